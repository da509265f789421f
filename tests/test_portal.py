"""The portal's pages without a browser: what is another's, what others wrote, what may be asked of the chain."""

from __future__ import annotations

import json
import re
from typing import Any, Final

import pytest
from actors import DAY, SOURCE, Subject, World
from browsing import Browser, code, enrolled, said
from markupsafe import escape

from ledger.attributes import ASKABLE
from ledger.consent import Hex32
from ledger.contract import SELECTORS, VIEWS
from ledger.errors import ChainUnavailableError, LedgerError
from ledger.exchange import new_furnisher_keys
from ledger.purposes import PURPOSES
from ledger.sessions import IDLE_SECONDS
from ledger.typed_data import grant_typed_data, parse_grant, revocation_typed_data, sign_typed_data
from web.language import CHINESE

SCRIPT: Final = "<script>alert(1)</script>"


@pytest.fixture
def anna(world: World) -> Browser:
    return enrolled(world, world.subject)


@pytest.fixture
def stranger(world: World) -> Browser:
    return enrolled(world, world.another_subject())


def consent_of(world: World, subject: Subject | None = None) -> Hex32:
    notice = world.custodian.notices.current("loan-origination").notice_hash
    return (subject or world.subject).grant(world.custodian, world.institution, notice_hash=notice)


def request_of(world: World, **changes: Any) -> str:
    wanted: dict[str, Any] = {
        "purpose": "loan-origination",
        "attributes": ["credit_amount"],
        "optional_attributes": ["savings"],
        "validity_days": 30,
        "max_accesses": 3,
        "accesses_per_day": 2,
        "retention_days": 31,
    }
    party = world.custodian.registry.institution(world.institution.institution_id)
    link = world.custodian.requests.ask(party, **(wanted | changes)).link
    assert link is not None
    return "/requests/" + link.rsplit("/", 1)[-1]


# ---------------------------------------------------------------------------------------------------- what is another's


def test_what_is_anothers_does_not_exist(world: World, anna: Browser, stranger: Browser) -> None:
    consent = consent_of(world)
    release = world.ask(consent).release_id
    path = request_of(world)
    assert anna.get(path).status_code == 200
    pages = (
        f"/consents/{consent}",
        f"/receipts/{consent}",
        f"/receipts/{consent}/grant.jwt",
        f"/receipts/{consent}/record.jsonld",
        f"/receipts/{consent}/without-us.txt",
        f"/activity/{release}",
        path,
    )
    for page in pages:
        assert anna.get(page).status_code == 200, page
        theirs, nothing = stranger.get(page), stranger.get(re.sub(r"0x\w+", "0x" + "ab" * 32, page))
        assert theirs.status_code == 404, page
        if page != path:
            assert re.sub(r"0x\w{64}|\?lang=|value=\S+|content=\S+", "", theirs.text).replace(page, "") == re.sub(
                r"0x\w{64}|\?lang=|value=\S+|content=\S+", "", nothing.text
            ).replace(re.sub(r"0x\w+", "0x" + "ab" * 32, page), "")
    for act, fields in (
        ("/consents/revocations", {"consents": [consent]}),
        ("/consents/revoke", {"revocations": [{"consents": [consent], "signature": "0x" + "11" * 65}]}),
        (f"/consents/{consent}/pause-draft", {"paused": True}),
        (f"/consents/{consent}/pause", {"paused": True, "sequence": 1, "signature": "0x" + "11" * 65}),
    ):
        assert code(stranger.post(act, fields)) == "not_found", act
    assert stranger.submit(f"/consents/{consent}/stop").status_code == 404
    assert stranger.submit(f"{path}/decline").status_code == 404
    assert world.custodian.registry.consent(consent).revoked_at is None
    assert "First Bank" not in stranger.get("/consents").text + stranger.get("/activity").text


def test_a_pause_is_offered_after_the_resume_that_is_still_on_its_way(world: World, anna: Browser) -> None:
    consent = consent_of(world)

    def offered() -> int:
        draft = anna.post(f"/consents/{consent}/pause-draft", {"paused": True})
        return int(draft.get_json()["typedData"]["message"]["sequence"])

    world.subject.pause(world.custodian, consent, sequence=offered())
    assert offered() == 2
    world.chain.down = True
    world.subject.pause(world.custodian, consent, paused=False, sequence=2)
    assert offered() == 3


def test_pages_of_a_person_are_for_the_signed_in(world: World) -> None:
    out = Browser(world)
    for page in ("/requests", "/consents", "/activity", "/data", "/data/erase", "/chain", "/notices", "/security"):
        answer = out.get(page)
        assert (answer.status_code, answer.headers["Location"].split("?")[0]) == (303, "/sign-in"), page
    for page in ("/", "/verify", "/without-us", request_of(world)):
        assert out.get(page).status_code == 200


@pytest.mark.parametrize("path", ["/sign-in", "/enrol"])
def test_who_has_no_javascript_is_promised_nothing_that_needs_a_session(world: World, path: str) -> None:
    (said_without,) = re.findall(r"<noscript>(.*?)</noscript>", Browser(world).get(path).text)
    assert "Signing in needs JavaScript. Without it you can decline a request by its link." in said_without
    assert "Reading" not in said_without


def test_who_has_no_javascript_is_told_to_stop_a_consent_on_chain_by_hand(world: World) -> None:
    page = Browser(world).get("/without-us").text
    (said_without,) = re.findall(r"<noscript>(.*?)</noscript>", page)
    assert "Without it, do it by hand, as said below." in said_without
    assert "By hand, without this page" in page.split(said_without)[1]


# ---------------------------------------------------------------------------------------------------- what others wrote


def test_script_in_whatever_somebody_wrote_is_text(world: World, anna: Browser) -> None:
    held = world.custodian
    world.institution.name = f"Bank {SCRIPT}"
    held.registry.add_institution("evil-1", f"Evil {SCRIPT}", world.institution.jwks, at=world.clock())
    party = held.registry.institution("evil-1")
    asked = held.requests.ask(
        party,
        purpose="loan-origination",
        attributes=["credit_amount"],
        validity_days=9,
        max_accesses=1,
        accesses_per_day=1,
        retention_days=1,
    )
    path = "/requests/" + str(asked.link).rsplit("/", 1)[-1]
    subject_id = held.vault.subject_of(world.subject.ref)
    held.disputes.open(subject_id, "savings", f"wrong {SCRIPT}")
    for page in (path, "/", "/requests", "/data"):
        text = anna.get(page).text
        assert "<script>alert" not in text, page
    assert "&lt;script&gt;alert(1)" in anna.get("/data").text
    assert "&lt;script&gt;alert(1)" in anna.get(path).text


def test_the_data_block_of_a_page_cannot_be_left(world: World, anna: Browser) -> None:
    held = world.custodian
    held.registry.add_institution("evil-2", "</script><b>", world.institution.jwks, at=world.clock())
    asked = held.requests.ask(
        held.registry.institution("evil-2"),
        purpose="loan-origination",
        attributes=["credit_amount"],
        validity_days=9,
        max_accesses=1,
        accesses_per_day=1,
        retention_days=1,
    )
    text = anna.get("/requests/" + str(asked.link).rsplit("/", 1)[-1]).text
    block = re.search(r'id="request">(.*?)</script>', text, re.DOTALL)
    assert block is not None
    assert json.loads(block[1])["institutionName"] == "</script><b>"


# ------------------------------------------------------------------------------------------------------------- answers


def test_accepting_needs_step_up_a_draft_does_not_and_what_was_signed_is_what_stands(
    world: World, anna: Browser
) -> None:
    path = request_of(world)
    anna.get(path)
    chosen = {
        "subject": world.subject.address,
        "attributes": ["savings"],
        "maxAccesses": 2,
        "accessesPerDay": 1,
        "retentionDays": 0,
        "validityDays": 7,
    }
    draft = said(anna.post(f"{path}/draft", chosen))
    grant = parse_grant(draft["typedData"]["message"])
    domain = world.chain.domain
    assert draft["typedData"] == grant_typed_data(grant, domain)
    signature = "0x" + sign_typed_data(draft["typedData"], world.subject.key).hex()
    signed = {"grant": draft["typedData"]["message"], "signature": signature}
    world.clock.advance(301)
    assert code(anna.post(f"{path}/accept", signed)) == "step_up_required"
    anna.step_up()
    answer = said(anna.post(f"{path}/accept", signed))
    assert answer["consentId"] == draft["consentId"]
    assert answer["state"] == "standing"
    assert answer["blockNumber"] > 0
    kept = world.custodian.registry.consent(answer["consentId"]).grant
    assert (kept.max_accesses, kept.terms.retention_days, kept.expires_at - kept.valid_from) == (2, 0, 7 * DAY)
    assert "You said yes." in anna.get(path).text


def test_a_draft_beyond_what_was_asked_is_refused(world: World, anna: Browser) -> None:
    path = request_of(world)
    anna.get(path)
    within = {"attributes": [], "maxAccesses": 3, "accessesPerDay": 2, "retentionDays": 31, "validityDays": 30}
    for change in ({"maxAccesses": 4}, {"validityDays": 31}, {"retentionDays": 32}, {"attributes": ["age"]}):
        answer = anna.post(f"{path}/draft", {"subject": world.subject.address} | within | change)
        assert code(answer) == "outside_request", change


def test_whoever_has_the_link_can_decline_without_an_account(world: World) -> None:
    out, path = Browser(world), request_of(world)
    page = out.get(path)
    assert page.status_code == 200
    assert "/sign-in?next=" + path in page.text
    assert "/enrol?next=" + path in page.text
    assert out.submit(f"{path}/decline").status_code == 303
    assert "You said no." in out.get(path).text


def test_a_request_after_a_no_is_kept_from_view_until_the_person_looks(world: World, anna: Browser) -> None:
    first, second = request_of(world), request_of(world)
    anna.get(first)
    anna.submit(f"{first}/decline")
    hidden = anna.get(second).text
    assert "kept from view until" in hidden
    assert "data-accept" not in hidden
    assert 'class="count"' not in anna.get("/").text
    anna.submit(f"{second}/reopen")
    assert "data-accept" in anna.get(second).text


# ------------------------------------------------------------------------------------------------------------ stopping


def test_one_signature_for_each_account_stops_all_consents(world: World, anna: Browser) -> None:
    consents = [consent_of(world), consent_of(world)]
    groups = said(anna.post("/consents/revocations", {"consents": "all"}))["groups"]
    assert [set(group["consents"]) for group in groups] == [set(consents)]
    assert groups[0]["typedData"] == revocation_typed_data(groups[0]["consents"], world.chain.domain)
    signature = "0x" + sign_typed_data(groups[0]["typedData"], world.subject.key).hex()
    revocations = [{"consents": groups[0]["consents"], "signature": signature}]
    (result,) = said(anna.post("/consents/revoke", {"revocations": revocations}))["results"]
    assert result["state"] == "on_chain"
    assert said(anna.post("/consents/revocations", {"consents": "all"}))["groups"] == []


def test_a_stop_is_said_to_be_on_the_log_only_when_it_is(
    world: World, anna: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    consent = consent_of(world)

    def away(*_: object, **__: object) -> Any:
        raise ChainUnavailableError("away")

    for name in ("send", "receipt", "wait", "statuses", "consents", "latest"):
        monkeypatch.setattr(world.chain, name, away)
    page = anna.submit(f"/consents/{consent}/stop").text
    assert "Stopped." in page
    assert "The public log has it. It took" not in page
    assert "The public log does not have it yet" in page
    assert "cannot be asked now" in page
    monkeypatch.undo()
    assert "does not have this yet" in anna.get(f"/consents/{consent}").text
    world.custodian.sync()
    assert "does not have this yet" not in anna.get(f"/consents/{consent}").text


# ------------------------------------------------------------------------------------------------------------ activity


def test_a_lender_cannot_push_its_own_read_out_of_what_the_person_sees(world: World, anna: Browser) -> None:
    consent = consent_of(world)
    release = world.ask(consent).release_id
    for _ in range(5):
        world.clock.advance(DAY)
        for _ in range(50):
            with pytest.raises(LedgerError):
                world.ask(consent, attributes=("age",))
    anna.sign_in()
    page = anna.get("/activity").text
    assert "Read 1 time, refused or broken off 250 times." in page
    assert "First Bank: 1 read, 250 refused." in page
    assert len(re.findall(r'<circle class="read" cx="3', page)) == 1
    assert page.count('<path class="refused"') > 20
    assert f"/activity/{release}" in anna.get(f"/consents/{consent}").text
    assert f"/activity/{release}" in anna.get("/").text


def test_the_numbers_of_the_activity_are_those_of_the_institution_and_the_time_chosen(
    world: World, anna: Browser
) -> None:
    consent = consent_of(world)
    world.ask(consent)
    world.clock.advance(31 * DAY)
    other = world.another_institution()
    with pytest.raises(LedgerError):
        world.custodian.releases.release(other.request(world.custodian, consent))
    anna.sign_in()
    for query, numbers in (
        ("", "Read 0 times, refused or broken off 1 time."),
        ("?days=90", "Read 1 time, refused or broken off 1 time."),
        ("?days=90&institution=bank-1", "Read 1 time, refused or broken off 0 times."),
        ("?institution=bank-1", "Read 0 times, refused or broken off 0 times."),
    ):
        assert numbers in anna.get(f"/activity{query}").text, query


# ------------------------------------------------------------------------------------------------------------- my data


def test_a_dispute_is_opened_shown_and_taken_back_by_plain_forms(world: World, anna: Browser) -> None:
    assert anna.submit("/data/disputes", attribute="savings", statement="x").status_code == 422
    assert anna.submit("/data/disputes", attribute="savings", statement="It was 300 marks.").status_code == 303
    page = anna.get("/data").text
    assert "Disputed" in page
    assert "It was 300 marks." in page
    consent = consent_of(world)
    with pytest.raises(LedgerError):
        world.ask(consent, attributes=("savings",))
    assert (
        "You dispute what they asked for."
        in anna.get("/activity/" + re.findall(r'href="/activity/(0x\w+)"', anna.get("/activity").text)[0]).text
    )
    assert anna.submit("/data/disputes/withdraw", attribute="savings").status_code == 303
    assert "You took it back." in anna.get("/data").text


def test_what_a_person_wrote_outlives_the_session_on_the_page_that_says_so(world: World, anna: Browser) -> None:
    wrote = f"It was 300 marks, not 100. {SCRIPT}"
    fields = {"attribute": "savings", "statement": wrote}
    old = anna.csrf()
    stale = anna.submit("/data/disputes", accept="text/html", **fields | {"csrf": "ab" * 32})
    world.clock.advance(IDLE_SECONDS + 1)
    ended = anna.submit("/data/disputes", accept="text/html", **fields | {"csrf": old})
    assert ("This page is too old" in stale.text, "You are signed out" in ended.text) == (True, True)
    for answer in (stale, ended):
        assert f"readonly>{escape(wrote)}</textarea>" in answer.text
        assert "Location" not in answer.headers
    # One that is too large to be read is refused as such.
    large = anna.submit("/data/disputes", accept="text/html", **fields | {"statement": "x" * 2_000_000})
    assert large.status_code == 413
    # Another site's form puts no words on our page.
    theirs = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site", "Accept": "text/html"}
    answer = anna.open("POST", "/data/disputes", data=fields | {"csrf": old}, headers=theirs)
    assert "300 marks" not in answer.text


def test_of_a_consent_that_ended_no_times_are_left(world: World, anna: Browser) -> None:
    consent = consent_of(world)
    assert "<dt>Times left</dt><dd>3 of 3</dd>" in anna.get(f"/consents/{consent}").text
    world.subject.revoke(world.custodian, consent)
    assert "Times left" not in anna.get(f"/consents/{consent}").text


def test_what_was_done_with_a_consent_is_told_in_words(world: World, anna: Browser) -> None:
    consent = consent_of(world)
    world.subject.pause(world.custodian, consent)
    world.subject.revoke(world.custodian, consent)
    other = consent_of(world)
    anna.submit(f"/consents/{other}/stop")
    told = [re.findall(r"<dt>([^<]*?) · <time", anna.get(f"/consents/{one}").text) for one in (consent, other)]
    assert [sorted(each) for each in told] == [
        ["Given", "Paused", "Stopped by you"],
        ["Given", "Stopped by us, as you asked"],
    ]


def test_the_export_has_everything_and_is_a_download(world: World, anna: Browser) -> None:
    consent_of(world)
    answer = anna.get("/data/export.json")
    assert answer.headers["Content-Disposition"].startswith("attachment")
    assert answer.headers["Cache-Control"] == "no-store"
    assert {"consents"} <= set(json.loads(answer.text))


def test_who_signed_by_passkey_is_told_that_stopping_without_us_must_be_made_in_advance(
    world: World, anna: Browser
) -> None:
    consent = consent_of(world)
    page, file = anna.get(f"/receipts/{consent}").text, anna.get(f"/receipts/{consent}/without-us.txt").text
    assert "Signed with a passkey?" in page
    assert '<a href="/without-us">Make a stop in advance now</a>' in page
    assert f"Make a stop in advance now, at {world.config.portal_origin}/without-us." in file
    # The key of a wallet is the person's own.
    anna.wallet = world.subject.account
    assert anna.by_wallet("link").status_code == 200
    for path in (f"/receipts/{consent}", f"/receipts/{consent}/without-us.txt"):
        assert "in advance" not in anna.get(path).text


def test_who_is_signed_out_is_sent_to_sign_in_to_make_a_stop_in_advance(world: World, anna: Browser) -> None:
    out, member = Browser(world).get("/without-us").text, anna.get("/without-us").text
    assert '<a href="/sign-in?next=/without-us">Sign in to make one</a>' in out
    assert ('id="in-advance"' in out, "It is made below" in out) == (False, False)
    assert ('id="in-advance"' in member, "It is made below" in member) == (True, True)
    # An order is what an authority gives.
    assert "order" not in out + member


def test_erasing_needs_the_word_and_step_up_and_signs_out_for_ever(world: World, anna: Browser) -> None:
    consent = consent_of(world)
    assert anna.submit("/data/erase", word="yes").status_code == 422
    world.clock.advance(301)
    assert anna.submit("/data/erase", word="ERASE").status_code == 403
    assert world.custodian.registry.consent(consent).revoked_at is None
    anna.step_up()
    page = anna.submit("/data/erase", word="删除")
    assert page.status_code == 200
    assert "Your proof" in page.text
    assert not anna.is_signed_in()
    assert world.subject.ref not in page.text
    assert world.custodian.vault.count()["erased"] == 1


# ----------------------------------------------------------------------------------------------------------- concerns


def decided(world: World, release: Hex32, reason: str = "Debts too high") -> None:
    """As the API does it for the lender's signed request."""
    by, path = world.institution, f"/v1/releases/{release}/adverse-action"
    world.custodian.duties.adverse_action(
        world.custodian.registry.institution(by.institution_id),
        release,
        decision="counter_offer",
        reasons=[reason],
        attributes=["credit_amount"],
        evidence=by.evidence(world.custodian, path, {}),
    )


def test_a_decision_against_the_person_is_told_with_its_reasons_and_what_may_be_done(
    world: World, anna: Browser, stranger: Browser
) -> None:
    assert "Nothing at present." in anna.get("/notices").text
    consent = consent_of(world)
    release = world.ask(consent).release_id
    decided(world, release, reason=SCRIPT)
    assert "First Bank decided against you" in anna.get("/").text
    page = anna.get("/notices").text
    assert "It offered you something else than you asked for." in page
    assert SCRIPT not in page
    assert "&lt;script&gt;" in page
    for link in (f"/activity/{release}", f"/consents/{consent}", "/data#credit_amount"):
        assert f'href="{link}"' in page
    assert "to have the decision looked at by a person" in page
    assert "decided against you" not in stranger.get("/notices").text + stranger.get("/").text


def test_a_deletion_that_is_overdue_is_told_until_it_is_attested(world: World, anna: Browser) -> None:
    consent = consent_of(world)
    world.ask(consent)
    world.clock.advance((31 + 7) * DAY)
    assert anna.sign_in().status_code == 200
    assert "has not said that it deleted" not in anna.get("/notices").text
    world.clock.advance(1)
    page = anna.get("/notices").text
    assert "First Bank has not said that it deleted your data" in page
    assert "First Bank should have deleted your data" in anna.get("/").text
    party = world.custodian.registry.institution(world.institution.institution_id)
    evidence = world.institution.evidence(world.custodian, f"/v1/consents/{consent}/deletion", {})
    world.custodian.duties.attest_deletion(party, consent, deleted_at=world.clock(), evidence=evidence)
    assert "Nothing at present." in anna.get("/notices").text


@pytest.mark.parametrize("is_open", [True, False])
def test_nobody_is_told_to_stop_what_has_ended(world: World, anna: Browser, is_open: bool) -> None:
    notice = world.custodian.notices.current("loan-origination").notice_hash
    consent = world.subject.grant(world.custodian, world.institution, notice_hash=notice, retention_days=1)
    world.ask(consent)
    world.clock.advance(9 * DAY)
    if not is_open:
        world.subject.revoke(world.custodian, consent)
    anna.sign_in()
    page = anna.get("/notices").text
    assert "has not said that it deleted" in page
    assert ("Stop the consent" in page) == is_open


# ---------------------------------------------------------------------------------------------------------- the sources


def test_who_is_not_registered_is_said_to_be_so_in_words(world: World, anna: Browser) -> None:
    assert "a source that calls itself “urn:test:furnisher” and is not registered here" in anna.get("/data").text
    keys = new_furnisher_keys().as_dict(private=False)
    world.custodian.registry.add_furnisher(SOURCE, "Test Bureau", keys, at=world.clock())
    page = anna.get("/data").text
    assert "from Test Bureau, as of" in page
    assert SOURCE not in page


# --------------------------------------------------------------------------------------------------------- the chain


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("eth_sendRawTransaction", ["0x00"]),
        ("eth_accounts", []),
        ("hardhat_mine", []),
        ("eth_call", [{"to": "0x" + "11" * 20, "data": "0x"}, "latest"]),
        ("eth_call", [{"to": "CONTRACT", "data": "0x", "from": "0x" + "11" * 20}, "latest"]),
        ("eth_getLogs", [{"address": "0x" + "11" * 20, "fromBlock": "0x0", "toBlock": "0x1"}]),
        ("eth_getLogs", [{"address": "CONTRACT", "fromBlock": "0x0", "toBlock": "0xffffff"}]),
        ("eth_getLogs", [{"address": "CONTRACT", "fromBlock": "earliest", "toBlock": "latest"}]),
        ("eth_getLogs", [{"address": "CONTRACT", "blockHash": None, "fromBlock": "0x0", "toBlock": "0xffffff"}]),
        ("eth_getLogs", [{"address": "CONTRACT", "blockHash": "0x" + "11" * 32, "fromBlock": "0x0", "toBlock": "0x1"}]),
        ("eth_getLogs", [{"address": "CONTRACT", "blockHash": None}]),
        ("eth_getLogs", [{"address": "CONTRACT", "blockHash": "0x" + "11" * 900}]),
        ("eth_getLogs", [{"address": "CONTRACT", "fromBlock": "-0x1", "toBlock": "0x1"}]),
        ("eth_getBlockByNumber", ["latest"]),
        ("eth_getBlockByNumber", ["latest", True]),
        ("eth_getBlockByNumber", [{"a": 1}, False]),
        ("eth_getTransactionReceipt", ["0x" + "00" * 900]),
        ("eth_getTransactionReceipt", [["0x00"]]),
        ("eth_call", [{"to": "CONTRACT", "data": "0x"}, {"blockHash": "0x00"}]),
        ("eth_call", [{"to": "CONTRACT", "data": "0x"}, "latest"]),
        ("eth_call", [{"to": "CONTRACT"}, "latest"]),
        ("eth_call", [{"to": "CONTRACT", "data": 7}, "latest"]),
        ("eth_call", [{"to": "CONTRACT", "data": "0x" + SELECTORS["consentOf"].hex()}, {"blockHash": "0x00"}]),
        *(
            ("eth_call", [{"to": "CONTRACT", "data": "0x" + SELECTORS[name].hex() + "00" * 64}, "latest"])
            for name in sorted(set(SELECTORS) - VIEWS)
        ),
    ],
)
def test_nothing_but_reading_the_contract_is_handed_on_to_the_node(
    world: World, anna: Browser, method: str, params: list[Any]
) -> None:
    contract = world.chain.domain.contract
    given = json.loads(json.dumps(params).replace("CONTRACT", contract))
    assert code(anna.post("/rpc", {"jsonrpc": "2.0", "id": 1, "method": method, "params": given})) == "malformed"


def test_what_is_asked_of_the_chain_too_often_is_refused(
    world: World, anna: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(world.custodian.rpc), "each", lambda *_: ["0x7a69"])
    asked = {"jsonrpc": "2.0", "id": 7, "method": "eth_chainId", "params": []}
    assert said(anna.post("/rpc", asked)) == {"id": 7, "jsonrpc": "2.0", "result": "0x7a69"}
    csrf = anna.csrf()
    mine = {"Origin": anna.origin, "X-CSRF-Token": csrf}
    answers = [anna.open("POST", "/rpc", json=asked, headers=mine).status_code for _ in range(600)]
    assert answers.count(200) == 599
    assert answers[-1] == 429


# ------------------------------------------------------------------------------------------------------------ language


def test_the_language_is_the_one_asked_for_then_the_one_remembered_then_the_browsers(world: World) -> None:
    out = Browser(world)
    assert 'lang="en"' in out.get("/").text
    chinese = {"Accept-Language": "zh-CN,zh;q=0.9,en;q=0.5"}
    assert 'lang="zh-Hans-CN"' in out.get("/", **chinese).text
    assert "您的信用数据" in out.get(f"/?lang={CHINESE}").text
    assert "您的信用数据" in out.get("/").text
    assert "Your credit data" in out.get("/?lang=en").text
    assert "Your credit data" in out.get("/?lang=xx", **chinese).text


def test_where_a_person_was_going_is_kept_through_another_language_and_the_way_to_enrol(world: World) -> None:
    out = Browser(world)
    page = out.get("/sign-in?next=/requests/abc&lang=en").text
    assert f'href="/sign-in?next=%2Frequests%2Fabc&amp;lang={CHINESE}"' in page
    assert 'href="/enrol?next=/requests/abc"' in page
    assert 'href="/enrol"' in out.get("/sign-in?next=//evil.example&lang=en").text


def test_every_purpose_and_attribute_reads_in_chinese(world: World, anna: Browser) -> None:
    text = anna.get(f"/verify?lang={CHINESE}").text
    block = re.search(r'id="portal">(.*?)</script>', text, re.DOTALL)
    assert block is not None
    labels = json.loads(block[1])["labels"]
    assert set(labels["attributes"]) == set(ASKABLE)
    assert set(labels["purposes"]) == set(PURPOSES)
    assert all(re.search(r"[\u4e00-\u9fff]", label) for kind in labels.values() for label in kind.values())


def test_errors_are_pages_for_people_and_problems_for_programs(anna: Browser) -> None:
    page = anna.get("/nothing", Accept="text/html")
    assert (page.status_code, page.mimetype) == (404, "text/html")
    problem = anna.get("/nothing", Accept="application/json")
    assert (problem.status_code, problem.mimetype) == (404, "application/problem+json")


def test_a_refused_form_of_another_site_leaves_the_browsers_session_as_it_is(anna: Browser) -> None:
    # No cookie comes with it (SameSite), and the answer must not bring another one.
    foreign = {"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site", "Accept": "text/html"}
    for path in ("/data/erase", "/consents", "/nothing"):
        anna.client.delete_cookie("session", domain="localhost")
        answer = anna.open("POST", path, headers=foreign, data={"word": "ERASE"})
        assert answer.status_code in (403, 404, 405)
        assert "Set-Cookie" not in answer.headers, path
