"""What the portal says is so: of a stop, of who can read, of what an act did, and where an ended session leads."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from actors import DAY, Subject, World
from browsing import Browser, code, enrolled, invite, said
from sqlalchemy import select
from test_portal import consent_of, request_of

from ledger.commit import Finality
from ledger.consent import Hex32
from ledger.enrolment import Enrolment
from ledger.errors import (
    ChainUnavailableError,
    ConsentAlreadyRevokedError,
    ConsentRevokedError,
    StoreUnavailableError,
)
from ledger.locks import FileLock
from ledger.parties import INSTITUTION
from ledger.sessions import Sessions
from ledger.store import sessions
from ledger.typed_data import sign_typed_data
from web.language import CHINESE
from web.script_texts import script_texts

TEXTS = script_texts(str)
WANTED = {"attributes": [], "maxAccesses": 3, "accessesPerDay": 2, "retentionDays": 31, "validityDays": 30}


@pytest.fixture
def anna(world: World) -> Browser:
    return enrolled(world, world.subject)


def seen(page: str) -> str:
    """What is to be read in the middle of a page."""
    main = page.split('tabindex="-1">', maxsplit=1)[1].split("</main", maxsplit=1)[0]
    return re.sub(r"\s+", " ", re.sub(r"<script.*?</script>|<[^>]+>", " ", main, flags=re.DOTALL))


def accepted(world: World, browser: Browser, path: str) -> Hex32:
    draft = said(browser.post(f"{path}/draft", WANTED | {"subject": world.subject.account.address}))["typedData"]
    signature = "0x" + sign_typed_data(draft, world.subject.key).hex()
    return Hex32(said(browser.post(f"{path}/accept", {"grant": draft["message"], "signature": signature}))["consentId"])


# ---------------------------------------------------------------------------------------------------------------- stops


def signed_stops(world: World, anna: Browser) -> list[dict[str, Any]]:
    """Two consents of two accounts of Anna's, and what she signs to stop both."""
    consent_of(world)
    other = Subject("second key")
    other.ref = world.subject.ref
    notice = world.custodian.notices.current("loan-origination").notice_hash
    other.grant(world.custodian, world.institution, notice_hash=notice)
    keys = {one.account.address: one.key for one in (world.subject, other)}
    groups = said(anna.post("/consents/revocations", {"consents": "all"}))["groups"]
    return [
        {
            "consents": group["consents"],
            "signature": "0x" + sign_typed_data(group["typedData"], keys[group["subject"]]).hex(),
        }
        for group in groups
    ]


def stopped(world: World, stops: list[dict[str, Any]]) -> list[bool]:
    found = [world.custodian.registry.consent(Hex32(one["consents"][0])) for one in stops]
    return [consent.revoked_at is not None for consent in found]


def test_all_that_is_stopped_at_once_is_in_force_before_any_of_it_is_sent(world: World, anna: Browser) -> None:
    stops = signed_stops(world, anna)

    def read() -> None:
        assert stopped(world, stops) == [True, True]
        with pytest.raises(ConsentRevokedError):
            world.ask(Hex32(stops[1]["consents"][0]))

    world.steps.at("revocation durable", read)
    results = said(anna.post("/consents/revoke", {"revocations": stops}))["results"]
    assert [one["state"] for one in results] == ["on_chain", "on_chain"]


@pytest.mark.parametrize("bad", [0, 1])
def test_a_stop_that_cannot_be_taken_keeps_no_other_one_waiting(world: World, anna: Browser, bad: int) -> None:
    stops = signed_stops(world, anna)
    stops[bad]["signature"] = "0x" + "11" * 65
    results = said(anna.post("/consents/revoke", {"revocations": stops}))["results"]
    assert [one["consents"] for one in results] == [stops[1 - bad]["consents"]]
    assert stopped(world, stops) == [bad == 1, bad == 0]


def test_a_stop_that_the_contract_refuses_after_all_is_in_force_here_and_keeps_no_other_one_waiting(
    world: World, anna: Browser
) -> None:
    stops = signed_stops(world, anna)
    account = world.custodian.registry.consent(Hex32(stops[0]["consents"][0])).grant.subject
    stops[0]["signature"] = "0x" + "11" * 65
    # A smart account that says yes when it is asked, and no when it counts.
    answers = [True]
    world.chain.smart_accounts[account] = lambda *_: bool(answers) and answers.pop()
    results = said(anna.post("/consents/revoke", {"revocations": stops}))["results"]
    assert [one["state"] for one in results] == ["pending", "on_chain"]
    assert stopped(world, stops) == [True, True]


def test_if_nothing_can_be_stopped_it_is_said_why(world: World, anna: Browser) -> None:
    stops = signed_stops(world, anna)
    for one in stops:
        one["signature"] = "0x" + "11" * 65
    answer = anna.post("/consents/revoke", {"revocations": stops})
    assert (answer.status_code, code(answer)) == (422, "invalid_signature")
    assert stopped(world, stops) == [False, False]


def test_while_the_chain_is_away_all_is_stopped_here_and_goes_there_later(
    world: World, anna: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    stops = signed_stops(world, anna)
    with monkeypatch.context() as away:
        away.setattr(world.chain, "send", lambda _: (_ for _ in ()).throw(ChainUnavailableError("away")))
        results = said(anna.post("/consents/revoke", {"revocations": stops}))["results"]
        assert [one["state"] for one in results] == ["pending", "pending"]
    assert stopped(world, stops) == [True, True]
    world.custodian.sync()
    assert {world.chain.consent(Hex32(one["consents"][0])).state.name for one in stops} == {"REVOKED"}


def test_a_stop_that_only_the_chain_can_judge_is_not_said_to_be_on_file_while_it_is_away(
    world: World, anna: Browser
) -> None:
    stops = signed_stops(world, anna)
    for one in stops:
        # As of a smart account, which the contract asks whether it signed.
        one["signature"] = "0x" + "11" * 65
    world.chain.down = True
    answer = anna.post("/consents/revoke", {"revocations": stops})
    assert (answer.status_code, code(answer), stopped(world, stops)) == (503, "chain_unavailable", [False, False])
    assert "What you signed is on file" not in TEXTS["chain_unavailable"]


def test_a_grant_that_waits_for_others_is_on_file_and_not_said_to_have_changed_nothing(
    data: Path, first_state: World
) -> None:
    world = World(data, finality=Finality(timeout=0.05), like=first_state)
    anna, path = enrolled(world, world.subject), request_of(world)
    draft = said(anna.post(f"{path}/draft", WANTED | {"subject": world.subject.account.address}))
    signed = {
        "grant": draft["typedData"]["message"],
        "signature": "0x" + sign_typed_data(draft["typedData"], world.subject.key).hex(),
    }
    with FileLock(world.config.locks / f"{world.custodian.accounts.grants.address}.lock").hold(timeout=1):
        answer = anna.post(f"{path}/accept", signed)
    assert (answer.status_code, code(answer)) == (503, "store_unavailable")
    assert "Nothing has changed" not in TEXTS["store_unavailable"]
    world.custodian.sync()
    assert world.chain.consent(draft["consentId"]).state.name == "ACTIVE"


def test_the_scripts_say_no_more_than_they_know() -> None:
    # Stops that were not taken are among those that are not stopped yet; who is barred cannot read what is resumed.
    assert "because another passkey or wallet signed them. " not in TEXTS["stopped_some"]
    assert TEXTS["stopped_some"].startswith("Stopped here")
    assert "It can be used now" not in TEXTS["why_active"]


# ----------------------------------------------------------------------------------------------------- what acts did


def acts_told(browser: Browser, consent: Hex32) -> list[str]:
    return re.findall(r"<dt>([^<]*?) · <time", browser.get(f"/consents/{consent}").text)


def test_a_pause_and_a_resume_are_told_apart(world: World, anna: Browser) -> None:
    consent = consent_of(world)
    world.subject.pause(world.custodian, consent)
    world.subject.pause(world.custodian, consent, paused=False, sequence=2)
    assert acts_told(anna, consent) == ["Made active again", "Paused", "Given"]


def test_who_stopped_a_consent_and_what_for_is_told(world: World, anna: Browser) -> None:
    mine, replaced, ours = (consent_of(world) for _ in range(3))
    anna.submit(f"/consents/{mine}/stop")
    new = accepted(world, anna, request_of(world, replaces=replaced))
    world.custodian.grants.revoke_as_custodian([ours])
    told = {one: acts_told(anna, one)[0] for one in (mine, replaced, ours)}
    assert told == {mine: "Stopped by us, as you asked", replaced: "Replaced", ours: "Stopped by us"}
    # Each leads to the other.
    assert f'href="/consents/{new}"' in anna.get(f"/consents/{replaced}").text
    assert f'href="/consents/{replaced}"' in anna.get(f"/consents/{new}").text


def test_an_act_that_the_contract_did_not_take_is_not_on_its_way(world: World, anna: Browser) -> None:
    consent = consent_of(world)
    world.subject.revoke_directly(world.chain, world.grant_of(consent))
    with suppress(ConsentAlreadyRevokedError):
        world.subject.pause(world.custodian, consent)
    world.custodian.sync()
    page = seen(anna.get(f"/consents/{consent}").text)
    assert "the public log did not take it" in page
    assert "not on the public log yet" not in page


# ------------------------------------------------------------------------------------------------------ who can read


def test_a_consent_that_has_not_begun_is_not_said_to_be_usable(world: World, anna: Browser) -> None:
    notice = world.custodian.notices.current("loan-origination").notice_hash
    begins = world.clock() + 20 * DAY
    window = {"valid_from": begins, "expires_at": begins + 30 * DAY}
    consent = world.subject.grant(world.custodian, world.institution, notice_hash=notice, **window)
    for away in (False, True):
        world.chain.down = away
        page = seen(anna.get(f"/consents/{consent}").text)
        assert "It can be used from this time on:" in page
        assert "It can be used now." not in page
    world.chain.down = False
    world.clock.advance(21 * DAY)
    assert anna.sign_in().status_code == 200
    assert "It can be used now." in seen(anna.get(f"/consents/{consent}").text)


def test_of_a_barred_institution_nothing_is_said_to_be_usable_and_nothing_can_be_accepted(
    world: World, anna: Browser
) -> None:
    consent, path = consent_of(world), request_of(world)
    draft = said(anna.post(f"{path}/draft", WANTED | {"subject": world.subject.account.address}))["typedData"]
    world.custodian.registry.suspend(INSTITUTION, world.institution.institution_id, suspended=True)
    for page in (f"/consents/{consent}", path):
        assert "This institution is barred at present." in seen(anna.get(page).text)
    assert "data-accept" not in anna.get(path).text
    signature = "0x" + sign_typed_data(draft, world.subject.key).hex()
    refused = [
        anna.post(f"{path}/draft", WANTED | {"subject": world.subject.account.address}),
        anna.post(f"{path}/accept", {"grant": draft["message"], "signature": signature}),
    ]
    assert [code(answer) for answer in refused] == ["institution_suspended"] * 2
    world.custodian.registry.suspend(INSTITUTION, world.institution.institution_id, suspended=False)
    assert "It can be used now." in seen(anna.get(f"/consents/{consent}").text)
    assert anna.post(f"{path}/accept", {"grant": draft["message"], "signature": signature}).status_code == 200


@pytest.mark.parametrize("path", ["/", "/consents"])
def test_where_it_says_who_can_read_now_whoever_cannot_is_told_of(world: World, anna: Browser, path: str) -> None:
    notice = world.custodian.notices.current("loan-origination").notice_hash
    begins = world.clock() + 20 * DAY
    window = {"valid_from": begins, "expires_at": begins + 30 * DAY}
    world.subject.grant(world.custodian, world.institution, notice_hash=notice, **window)
    assert "It can be used from this time on:" in seen(anna.get(path).text)
    world.custodian.registry.suspend(INSTITUTION, world.institution.institution_id, suspended=True)
    assert "This institution is barred at present." in seen(anna.get(path).text)


def test_a_request_that_ends_an_older_consent_says_so_before_it_is_signed(world: World, anna: Browser) -> None:
    old = consent_of(world)
    path = request_of(world, replaces=old)
    page = anna.get(path).text
    assert "this takes the place of an older consent of yours, which is stopped for ever" in seen(page)
    assert f'href="/consents/{old}"' in page
    assert "takes the place" not in seen(anna.get(request_of(world)).text)


def test_nobody_signs_for_the_end_of_another_persons_consent(world: World) -> None:
    path = request_of(world, replaces=consent_of(world))
    stranger = enrolled(world, world.another_subject())
    assert "takes the place" not in seen(stranger.get(path).text)
    answer = stranger.post(f"{path}/draft", WANTED | {"subject": Subject("y").account.address})
    assert (answer.status_code, code(answer)) == (404, "not_found")


def test_a_request_in_place_of_an_erased_persons_consent_can_be_seen_and_declined(world: World) -> None:
    path = request_of(world, replaces=consent_of(world))
    stranger = enrolled(world, world.another_subject())
    world.custodian.eraser.erase(world.subject.ref)
    page = stranger.get(path, Accept="text/html")
    assert page.status_code == 200
    assert "takes the place" not in seen(page.text)
    stranger.submit(f"{path}/decline")
    assert "You said no." in seen(stranger.get(path).text)


def test_the_only_passkey_that_signs_is_told_to_be_that(world: World, anna: Browser) -> None:
    warning = "what it signed can only be stopped"
    assert warning not in seen(anna.get("/security").text)
    assert anna.by_wallet("link").status_code == 200
    assert warning in seen(anna.get("/security").text)


def test_the_export_has_the_codes_that_wait_for_the_person(world: World, anna: Browser) -> None:
    assert json.loads(anna.get("/data/export.json").text)["account"]["invitations"] == []
    invite(world)
    (waiting,) = json.loads(anna.get("/data/export.json").text)["account"]["invitations"]
    assert (waiting["byCustodian"], waiting["createdAt"]) == (True, world.clock())
    assert waiting["expiresAt"] > world.clock()


# --------------------------------------------------------------------------------------------------- ended sessions


@pytest.mark.parametrize(
    ("path", "back"),
    [
        ("/data/disputes", "/data"),
        ("/data/erase", "/data/erase"),
        ("/consents/{consent}/stop", "/consents/{consent}"),
        ("/auth/passkeys/remove", "/security"),
    ],
)
def test_who_was_signed_out_is_led_back_to_the_form(world: World, anna: Browser, path: str, back: str) -> None:
    consent = consent_of(world)
    path, back = path.format(consent=consent), back.format(consent=consent)
    world.clock.advance(2 * DAY)
    answer = anna.submit(path, accept="text/html")
    assert answer.status_code == 401
    assert set(re.findall(r'href="/sign-in([^"]*)"', answer.text)) == {f"?next={back}"}


def test_a_page_that_is_not_there_knows_who_is_signed_in(world: World, anna: Browser) -> None:
    for path in ("/nothing", "/data/"):
        answer = anna.get(path, Accept="text/html")
        assert answer.status_code == 404
        assert "Sign out" in answer.text
    assert "Sign out" not in Browser(world).get("/nothing", Accept="text/html").text


@pytest.mark.parametrize(
    ("path", "told"), [("/consents", "Nothing was given out."), ("/nothing", "There is no such page")]
)
def test_while_the_database_cannot_say_who_is_there_a_page_says_what_is_wrong(
    anna: Browser, monkeypatch: pytest.MonkeyPatch, path: str, told: str
) -> None:
    monkeypatch.setattr(Sessions, "find", lambda *_: (_ for _ in ()).throw(StoreUnavailableError("gone")))
    page = anna.get(path, Accept="text/html").text
    assert told in seen(page)
    assert "Sign" not in page


@pytest.mark.parametrize("path", ["/activity?after=zz", "/consents/xyz"])
def test_what_developers_wrote_in_english_is_not_put_before_who_reads_chinese(anna: Browser, path: str) -> None:
    english = seen(anna.get(path, Accept="text/html").text)
    assert "hex digits" in english
    anna.get(f"/?lang={CHINESE}")
    chinese = seen(anna.get(path, Accept="text/html").text)
    assert not re.search("[a-z]{3}", chinese), chinese


# -------------------------------------------------------------------------------------- what happens at the same time


def between_proof_and_session(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    real, todo = Enrolment.passkey_used, [act]

    def used(self: Enrolment, *given: Any) -> None:
        real(self, *given)
        if todo:
            todo.pop()()

    monkeypatch.setattr(Enrolment, "passkey_used", used)


def thief_of(world: World, anna: Browser) -> Browser:
    thief = Browser(world, app=anna.app)
    thief.authenticator = anna.authenticator
    return thief


def same_session(world: World, anna: Browser) -> Browser:
    """Another window."""
    cookie = anna.cookie()
    assert cookie is not None
    window = Browser(world)
    window.client.set_cookie("session", cookie, domain="localhost")
    return window


def test_a_sign_in_that_meets_an_erasure_leaves_no_session(
    world: World, anna: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, thief = world.custodian, thief_of(world, anna)
    subject_id = held.vault.subject_of(world.subject.ref)
    between_proof_and_session(monkeypatch, lambda: held.eraser.erase_subject(subject_id))
    assert thief.sign_in().status_code == 401
    with held.store.read() as tx:
        assert tx.execute(select(sessions).where(sessions.c.subject_id == subject_id)).all() == []


def test_a_sign_in_with_a_passkey_that_is_removed_meanwhile_leaves_no_session(
    world: World, anna: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert anna.by_wallet("link").status_code == 200
    (passkey,) = re.findall(r'name="passkey" value="([^"]+)"', anna.get("/security").text)
    thief, same = thief_of(world, anna), same_session(world, anna)
    between_proof_and_session(monkeypatch, lambda: same.submit("/auth/passkeys/remove", passkey=passkey))
    assert thief.sign_in().status_code == 401
    assert thief.get("/data").status_code != 200


def test_a_sign_in_that_meets_a_new_enrolment_leaves_no_session(
    world: World, anna: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh, invitation, thief = Browser(world), invite(world), thief_of(world, anna)
    between_proof_and_session(monkeypatch, lambda: fresh.enrol(invitation))
    assert thief.sign_in().status_code == 401
    assert fresh.get("/data").status_code == 200


def test_of_two_erasures_at_once_one_proves_what_it_erased_and_the_other_nothing(world: World, anna: Browser) -> None:
    consent_of(world)
    second = same_session(world, anna)
    told: list[str] = []
    world.steps.at("erase revoked", lambda: told.append(second.submit("/data/erase", word="ERASE").text))
    late = anna.submit("/data/erase", accept="text/html", word="ERASE")
    assert "Values destroyed" in told[0]
    assert "This was erased" in seen(late.text)
    assert "destroyed" not in seen(late.text)
