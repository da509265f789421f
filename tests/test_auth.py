"""Signing in to the portal: enrolment, passkeys, wallets, step-up, what a person can undo, and whoever else tries."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

import pytest
from actors import DAY, World
from authenticator import AT, BE, BS, UP, USED, UV, Authenticator, b64, unb64
from browsing import WRAPPED, Browser, code, enrolled, invite, said
from eth_account import Account
from sqlalchemy import select, update
from werkzeug.test import TestResponse

from ledger import attempts, challenges, invitations
from ledger.consent import Address
from ledger.enrolment import MAX_WALLETS
from ledger.errors import AccountFullError, LedgerError, NotFoundError
from ledger.passkeys import PRF_INPUT, Used
from ledger.sessions import ABSOLUTE_SECONDS, IDLE_SECONDS, STEP_UP_SECONDS
from ledger.store import SEALED_TABLES, accounts, passkeys
from web import create_app

OTHERS_CHAIN: Final = 1
HALF_HOUR: Final = IDLE_SECONDS


def options_of(answer: TestResponse) -> dict[str, Any]:
    found: dict[str, Any] = said(answer)["publicKey"]
    return found


def signed_out(world: World) -> Browser:
    """A person who has enrolled, and signed out."""
    browser = enrolled(world)
    browser.submit("/sign-out")
    return browser


def next_window(world: World) -> None:
    """A client's tries are counted from nothing again."""
    world.clock.advance(attempts.CODES.seconds)


# ------------------------------------------------------------------------------------------------------------ enrolment


def test_a_person_enrols_by_a_passkey_and_signs_in_by_it_later(world: World) -> None:
    browser = Browser(world)
    answer = browser.enrol(invite(world))
    assert (answer.status_code, said(answer)) == (200, {"next": "/"}), answer.text
    assert browser.is_signed_in()
    assert browser.submit("/sign-out").location == "/"
    assert not browser.is_signed_in()
    assert said(browser.sign_in()) == {"next": "/"}
    assert browser.is_signed_in()


@pytest.mark.parametrize(
    "made", [{}, {"attestation": "packed"}, {"flags": USED | BE | BS}, {"flags": USED | BE}, {"counter": 0}]
)
def test_passkeys_of_every_kind_are_taken(world: World, made: dict[str, Any]) -> None:
    browser = enrolled(world, **made)
    for _ in range(2):
        browser.submit("/sign-out")
        assert browser.sign_in().status_code == 200


def test_the_browser_is_asked_for_a_discoverable_passkey_that_verifies_the_person(world: World) -> None:
    browser = Browser(world)
    answer = said(browser.post("/auth/passkey/register/options", {"code": invite(world)}))
    options = answer["publicKey"]
    assert answer["hasRoot"] is False
    assert options["rp"] == {"name": "Consent Ledger", "id": "localhost"}
    assert options["authenticatorSelection"] == {
        "residentKey": "required",
        "requireResidentKey": True,
        "userVerification": "required",
    }
    assert options["attestation"] == "none"
    assert options["extensions"]["prf"]["eval"]["first"] == b64(PRF_INPUT)
    assert world.subject.ref not in str(options)
    assert -7 in {one["alg"] for one in options["pubKeyCredParams"]}
    assert len(unb64(options["challenge"])) == len(unb64(options["user"]["id"])) == 32
    browser.enrol(invite(world))
    sign_in = options_of(browser.post("/auth/passkey/sign-in/options"))
    assert (sign_in["userVerification"], sign_in["allowCredentials"], sign_in["rpId"]) == ("required", [], "localhost")
    step_up = options_of(browser.post("/auth/passkey/step-up/options"))
    assert [one["id"] for one in step_up["allowCredentials"]] == [b64(browser.authenticator.passkeys[-1].credential_id)]
    assert step_up["extensions"]["prf"]["eval"]["first"] == b64(PRF_INPUT)


@pytest.mark.parametrize(
    "as_typed",
    [str.lower, lambda code: code.replace("-", ""), lambda code: f"  {code.replace('-', ' ')} ", lambda code: code],
)
def test_a_code_counts_however_it_is_typed(world: World, as_typed: Callable[[str], str]) -> None:
    assert Browser(world).enrol(as_typed(invite(world))).status_code == 200


def test_letters_that_look_like_digits_are_read_as_meant() -> None:
    assert invitations.as_meant("oO0-iIlL1 abc") == "000" + "11111" + "ABC"
    assert not set("ILOU") & set(invitations.DIGITS)
    assert len(invitations.DIGITS) ** invitations.LENGTH >= 2**80


def test_a_code_counts_once(world: World) -> None:
    made = invite(world)
    assert Browser(world).enrol(made).status_code == 200
    assert code(Browser(world).enrol(made)) == "code_refused"


def test_of_two_who_use_a_code_at_once_one_comes_too_late(world: World) -> None:
    made = invite(world)
    first, second = Browser(world), Browser(world)
    options = [options_of(one.post("/auth/passkey/register/options", {"code": made})) for one in (first, second)]
    assert first.register(options[0]).status_code == 200
    assert code(second.register(options[1])) == "code_refused"
    assert first.is_signed_in()
    assert not second.is_signed_in()


def test_a_code_counts_for_fourteen_days(world: World) -> None:
    made = invite(world)
    world.clock.advance(14 * DAY - 1)
    options = options_of(Browser(world).post("/auth/passkey/register/options", {"code": made}))
    assert options
    late = Browser(world)
    begun = options_of(late.post("/auth/passkey/register/options", {"code": made}))
    world.clock.advance(1)
    assert code(late.register(begun)) == "code_refused"
    assert code(Browser(world).enrol(made)) == "code_refused"


def test_a_new_code_voids_the_older_one_also_while_it_is_used(world: World) -> None:
    old, browser = invite(world), Browser(world)
    begun = options_of(browser.post("/auth/passkey/register/options", {"code": old}))
    new = invite(world)
    assert code(browser.register(begun)) == "code_refused"
    assert code(Browser(world).enrol(old)) == "code_refused"
    assert Browser(world).enrol(new).status_code == 200


def test_codes_that_do_not_count_are_not_told_apart(world: World) -> None:
    used, expired = invite(world), invite(world, world.another_subject())
    Browser(world).enrol(used)
    world.clock.advance(14 * DAY)
    void, _ = (invite(world, one) for one in [world.another_subject()] * 2)
    answers = [
        Browser(world).post("/auth/passkey/register/options", {"code": one})
        for one in (used, expired, void, "0000-0000-0000-0000", "", "x", "ß" * 64)
    ]
    answers += [Browser(world).ask_wallet("enrol", code=one) for one in (used, expired, void)]
    assert len({(answer.status_code, answer.text) for answer in answers}) == 1
    assert code(answers[0]) == "code_refused"


def test_codes_cannot_be_guessed_for_long(world: World) -> None:
    good = invite(world)
    for _ in range(attempts.CODES.tries):
        assert code(Browser(world).enrol("0000-0000-0000-0000")) == "code_refused"
    for answer in (Browser(world).enrol(good), Browser(world).ask_wallet("enrol", code=good)):
        assert (answer.status_code, code(answer)) == (429, "rate_limited")
        assert 0 < int(answer.headers["Retry-After"]) <= attempts.CODES.seconds
    next_window(world)
    assert Browser(world).enrol(good).status_code == 200


def test_who_tries_from_elsewhere_is_not_held_up_by_it(world: World) -> None:
    for _ in range(attempts.CODES.tries + 1):
        Browser(world).enrol("0000-0000-0000-0000")
    elsewhere = Browser(world)
    elsewhere.client.environ_base["REMOTE_ADDR"] = "192.0.2.7"
    assert elsewhere.enrol(invite(world)).status_code == 200


def test_only_a_keyed_hash_of_a_code_and_of_an_address_is_on_file(world: World) -> None:
    made = invite(world)
    Browser(world).enrol("0000-0000-0000-0000")
    content = world.config.database.read_bytes() + world.config.database.with_name("ledger.db-wal").read_bytes()
    for name in (made, made.replace("-", ""), "127.0.0.1"):
        assert name.encode() not in content


def test_enrolling_anew_ends_the_earlier_account_and_its_sessions(world: World) -> None:
    lost, found = enrolled(world), Browser(world)
    other = enrolled(world, world.another_subject())
    assert lost.is_signed_in()
    assert found.enrol(invite(world)).status_code == 200
    assert not lost.is_signed_in()
    assert code(lost.sign_in()) == "sign_in_refused"
    assert found.is_signed_in()
    assert other.is_signed_in()
    with world.custodian.store.read() as tx:
        assert len(tx.execute(select(accounts)).all()) == len(tx.execute(select(passkeys)).all()) == 2


def test_an_enrolment_that_fails_leaves_code_and_account_as_they_were(world: World) -> None:
    browser, made = enrolled(world), invite(world)
    again = Browser(world)
    assert code(again.enrol(made, origin="https://evil.example")) == "sign_in_refused"
    # Somebody's passkey already.
    taken = enrolled(world, world.another_subject()).authenticator.passkeys[0].credential_id
    assert code(again.enrol(made, credential_id=taken)) == "sign_in_refused"
    assert browser.is_signed_in()
    assert again.enrol(made).status_code == 200


@pytest.mark.parametrize("root", ["short", "A" * 513, "A" * 79 + "=", "A" * 79 + "\n", "<script>" * 10])
def test_a_wrapped_root_is_opaque_and_bounded(world: World, root: str) -> None:
    answer = Browser(world).enrol(invite(world), wrapped_root=root)
    assert (answer.status_code, said(answer)["field"]) == (422, "wrappedRoot")


@pytest.mark.parametrize("name", ["", "   ", "a" * 61, "a\nb", "\u202eevil"])
def test_a_passkey_has_a_name_that_can_be_shown(world: World, name: str) -> None:
    answer = Browser(world).enrol(invite(world), name=name)
    assert (answer.status_code, said(answer)["field"]) == (422, "name")


# --------------------------------------------------------------------------------------------------- passkeys, attacked

FORGED: Final[dict[str, dict[str, Any]]] = {
    "another origin": {"origin": "https://evil.example"},
    "another port": {"origin": "http://localhost:8001"},
    "the address in place of the name": {"origin": "http://127.0.0.1:8000"},
    "a longer origin": {"origin": "http://localhost:8000.evil.example"},
    "another RP id": {"rp_id": "evil.example"},
    "no user verification": {"flags": UP},
    "no user presence": {"flags": UV},
    "backed up but cannot be": {"flags": USED | BS},
    "another ceremony": {"kind": "payment.get"},
    "in a frame of another site": {"client_data": {"crossOrigin": True}},
    "under another page": {"client_data": {"topOrigin": "https://evil.example"}},
    "a challenge of one's own": {"challenge": b64(b"\x00" * 32)},
    "no challenge": {"client_data": {"challenge": None}},
    "a challenge that is none": {"client_data": {"challenge": [1]}},
}


@pytest.mark.parametrize("what", FORGED)
def test_a_passkey_made_wrongly_is_refused(world: World, what: str) -> None:
    browser = Browser(world)
    answer = browser.enrol(invite(world), **FORGED[what])
    assert answer.status_code == 401, answer.text
    assert code(answer) in ("sign_in_refused", "stale_challenge")
    assert not browser.is_signed_in()


@pytest.mark.parametrize("what", FORGED)
def test_a_passkey_used_wrongly_is_refused(world: World, what: str) -> None:
    browser = signed_out(world)
    answer = browser.sign_in(**FORGED[what])
    assert answer.status_code == 401, answer.text
    assert code(answer) in ("sign_in_refused", "stale_challenge")
    assert not browser.is_signed_in()
    browser.sign_in()
    world.clock.advance(STEP_UP_SECONDS)
    assert browser.step_up(**FORGED[what]).status_code == 401
    assert code(browser.submit("/auth/passkeys/remove", passkey="x")) == "step_up_required"


@pytest.mark.parametrize("attestation", ["tpm", "android-key", "apple", "fido-u2f", "made-up", 7, None])
def test_an_attestation_that_was_not_asked_for_is_refused(world: World, attestation: Any) -> None:
    assert code(Browser(world).enrol(invite(world), attestation=attestation)) == "sign_in_refused"


def test_a_challenge_is_answered_once(world: World) -> None:
    browser = signed_out(world)
    options = options_of(browser.post("/auth/passkey/sign-in/options"))
    credential = browser.authenticator.get(options, origin="https://evil.example")
    assert code(browser.post("/auth/passkey/sign-in", {"credential": credential})) == "sign_in_refused"
    again = browser.authenticator.get(options)
    assert code(browser.post("/auth/passkey/sign-in", {"credential": again})) == "stale_challenge"
    good = browser.authenticator.get(options_of(browser.post("/auth/passkey/sign-in/options")))
    assert browser.post("/auth/passkey/sign-in", {"credential": good}).status_code == 200
    # The very same bytes again, in the session that they opened and in a new one.
    assert code(browser.post("/auth/passkey/sign-in", {"credential": good})) == "stale_challenge"
    assert code(Browser(world).post("/auth/passkey/sign-in", {"credential": good})) == "stale_challenge"


def test_a_challenge_is_too_old_after_five_minutes(world: World) -> None:
    browser = signed_out(world)
    for late, expected in ((challenges.VALID_SECONDS - 1, ""), (challenges.VALID_SECONDS, "stale_challenge")):
        credential = browser.authenticator.get(options_of(browser.post("/auth/passkey/sign-in/options")))
        world.clock.advance(late)
        assert code(browser.post("/auth/passkey/sign-in", {"credential": credential})) == expected
        browser.submit("/sign-out")


def test_a_challenge_of_another_session_is_none(world: World) -> None:
    browser, attacker = signed_out(world), Browser(world)
    # What an attacker's page had a person answer, and what a person's session is made to take.
    credential = browser.authenticator.get(options_of(attacker.post("/auth/passkey/sign-in/options")))
    assert code(browser.post("/auth/passkey/sign-in", {"credential": credential})) == "stale_challenge"
    credential = browser.authenticator.get(options_of(browser.post("/auth/passkey/sign-in/options")))
    assert code(attacker.post("/auth/passkey/sign-in", {"credential": credential})) == "stale_challenge"


def test_a_challenge_for_another_use_is_none(world: World) -> None:
    browser = enrolled(world)
    for asked, answered in (("sign-in", "step-up"), ("step-up", "sign-in")):
        options = options_of(browser.post(f"/auth/passkey/{asked}/options"))
        answer = browser.post(f"/auth/passkey/{answered}", {"credential": browser.authenticator.get(options)})
        assert code(answer) == "stale_challenge"
    register = options_of(browser.post("/auth/passkey/register/options", {"code": invite(world)}))
    answer = browser.post("/auth/passkey/sign-in", {"credential": browser.authenticator.get(register)})
    assert code(answer) == "stale_challenge"


def test_a_passkey_of_another_account_steps_nobody_up(world: World) -> None:
    browser, other = enrolled(world), enrolled(world, world.another_subject())
    options = options_of(browser.post("/auth/passkey/step-up/options"))
    theirs = other.authenticator.passkeys[-1]
    for credential in (
        browser.authenticator.get(options, passkey=theirs),
        browser.authenticator.get(
            options_of(browser.post("/auth/passkey/step-up/options")),
            passkey=theirs,
            user_handle=browser.authenticator.passkeys[-1].user_handle,
        ),
    ):
        answer = browser.post("/auth/passkey/step-up", {"credential": credential})
        assert code(answer) == "sign_in_refused"
        assert "wrappedRoot" not in answer.text


def test_a_passkey_that_claims_to_be_another_accounts_is_refused(world: World) -> None:
    browser, other = signed_out(world), enrolled(world, world.another_subject())
    handle = other.authenticator.passkeys[-1].user_handle
    assert code(browser.sign_in(user_handle=handle)) == "sign_in_refused"
    assert code(browser.sign_in(user_handle=b"")) == "sign_in_refused"
    for spoil in ({"userHandle": None}, {"userHandle": ""}):
        nameless = browser.authenticator.get(options_of(browser.post("/auth/passkey/sign-in/options")))
        nameless["response"].update(spoil)
        assert code(browser.post("/auth/passkey/sign-in", {"credential": nameless})) == "sign_in_refused"
    options = options_of(browser.post("/auth/passkey/sign-in/options"))
    credential = browser.authenticator.get(options)
    credential["rawId"] = credential["id"] = b64(other.authenticator.passkeys[-1].credential_id)
    assert code(browser.post("/auth/passkey/sign-in", {"credential": credential})) == "sign_in_refused"


def test_a_passkey_that_nobody_has_is_refused_as_one_that_is_somebodys(world: World) -> None:
    browser = signed_out(world)
    stranger = Authenticator(browser.origin)
    stranger.create(options_of(browser.post("/auth/passkey/register/options", {"code": invite(world)})))
    unknown = stranger.get(options_of(browser.post("/auth/passkey/sign-in/options")))
    answers = [browser.post("/auth/passkey/sign-in", {"credential": unknown}), browser.sign_in(flags=UP)]
    assert len({(answer.status_code, answer.text) for answer in answers}) == 1


def test_a_cloned_passkey_is_refused_with_a_code_of_its_own(world: World) -> None:
    browser = signed_out(world)
    assert browser.sign_in(counter=7).status_code == 200
    browser.submit("/sign-out")
    for counter in (7, 6, 1, 0):
        assert code(browser.sign_in(counter=counter)) == "passkey_cloned"
        assert not browser.is_signed_in()
    # What is not signed by it says nothing of a clone.
    options = options_of(browser.post("/auth/passkey/sign-in/options"))
    forged = browser.authenticator.get(options, counter=1)
    forged["response"]["signature"] = b64(b"\x30\x06\x02\x01\x01\x02\x01\x01")
    assert code(browser.post("/auth/passkey/sign-in", {"credential": forged})) == "sign_in_refused"
    assert browser.sign_in(counter=8).status_code == 200


def test_a_clone_that_is_used_at_the_same_moment_is_noticed(world: World) -> None:
    browser = enrolled(world)
    (known,) = world.custodian.enrolment.passkeys(said(browser.step_up(counter=5))["accountId"])
    with world.custodian.store.begin() as tx:
        tx.execute(update(passkeys).values(sign_count=9))
    with pytest.raises(LedgerError) as refused:
        world.custodian.enrolment.passkey_used(known, Used(sign_count=8, backed_up=False))
    assert refused.value.code == "passkey_cloned"


def test_a_passkey_that_could_not_be_copied_and_now_can_is_another_one(world: World) -> None:
    browser = signed_out(world)
    assert code(browser.sign_in(flags=USED | BE)) == "sign_in_refused"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda one: one.pop("response"),
        lambda one: one.pop("rawId"),
        lambda one: one.update(rawId="!"),
        lambda one: one.update(rawId=b64(b"x" * 2000), id=b64(b"x" * 2000)),
        lambda one: one.update(rawId=7),
        lambda one: one.update(id="x"),
        lambda one: one.update(type="password"),
        lambda one: one["response"].update(clientDataJSON=b64(b"{")),
        lambda one: one["response"].update(clientDataJSON=b64(b"[" * 5_000)),
        lambda one: one["response"].update(clientDataJSON=b64(b"\xff\xfe")),
        lambda one: one["response"].update(clientDataJSON=7),
        lambda one: one["response"].update(authenticatorData=b64(b"x" * 36)),
        lambda one: one["response"].update(authenticatorData=b64(b"x" * 32 + bytes([USED | AT]) + b"\x81" * 9_000)),
        lambda one: one["response"].update(signature=b64(b"")),
        lambda one: one["response"].update(signature=None),
        lambda one: one["response"].update(userHandle=7),
        lambda one: one["response"].update(userHandle={"a": 1}),
    ],
)
def test_an_answer_that_is_not_one_is_refused(world: World, spoil: Callable[[dict[str, Any]], Any]) -> None:
    browser = signed_out(world)
    options = options_of(browser.post("/auth/passkey/sign-in/options"))
    credential = browser.authenticator.get(options)
    spoil(credential)
    answer = browser.post("/auth/passkey/sign-in", {"credential": credential})
    assert (answer.status_code, code(answer)) == (401, "sign_in_refused"), answer.text


@pytest.mark.parametrize(
    "key",
    [
        b"\x04",
        b"\x81" * 2_000 + b"\x00",
        b"\xa5\x01\x02\x03\x26\x20\x01\x21\x58\x20" + b"\x01" * 32 + b"\x22\x58\x20" + b"\x02" * 32,
        b"\xa0",
        b"",
    ],
)
def test_a_passkey_without_a_key_that_is_one_is_refused(
    world: World, key: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("authenticator.SoftPasskey.cose_key", lambda _: key)
    assert code(Browser(world).enrol(invite(world))) == "sign_in_refused"


def test_proofs_that_prove_nothing_cannot_be_tried_for_long(world: World) -> None:
    browser = signed_out(world)
    for _ in range(attempts.PROOFS.tries):
        assert code(browser.sign_in(flags=UP)) == "sign_in_refused"
    assert code(browser.sign_in()) == "rate_limited"
    assert code(browser.by_wallet("sign-in")) == "rate_limited"
    next_window(world)
    assert browser.sign_in().status_code == 200


def test_good_sign_ins_are_never_too_many(world: World) -> None:
    browser = signed_out(world)
    for _ in range(attempts.PROOFS.tries + 5):
        assert browser.sign_in().status_code == 200
        browser.submit("/sign-out")
        world.clock.advance(2)


def test_challenges_cannot_fill_the_database(world: World) -> None:
    answers = [Browser(world).post("/auth/passkey/sign-in/options") for _ in range(attempts.BEGINNINGS.tries + 3)]
    assert [code(one) for one in answers[-3:]] == ["rate_limited"] * 3
    assert {code(one) for one in answers[:-3]} == {""}


# -------------------------------------------------------------------------------------------------------------- wallets


def test_a_person_enrols_by_a_wallet_and_signs_in_by_it_later(world: World) -> None:
    browser = Browser(world)
    assert said(browser.by_wallet("enrol", code=invite(world))) == {"next": "/"}
    assert browser.is_signed_in()
    browser.submit("/sign-out")
    assert said(browser.by_wallet("sign-in")) == {"next": "/"}
    assert browser.is_signed_in()
    assert said(browser.by_wallet("step-up")) == {"next": "/"}
    assert code(browser.by_wallet("link")) != "step_up_required"


def test_the_text_says_what_is_signed(world: World) -> None:
    browser = Browser(world)
    lines = said(browser.ask_wallet("sign-in"))["text"].split("\n")
    nonce = lines[8].removeprefix("Nonce: ")
    assert lines == [
        "localhost:8000 wants you to sign in with your Ethereum account:",
        browser.wallet.address,
        "",
        "Sign in to see who may read your credit data.",
        "",
        "URI: http://localhost:8000/sign-in",
        "Version: 1",
        "Chain ID: 31337",
        f"Nonce: {nonce}",
        "Issued At: 2026-09-16T12:00:00Z",
        "Expiration Time: 2026-09-16T12:05:00Z",
        "Request ID: sign-in",
    ]
    assert len(nonce) == 32
    assert nonce not in said(browser.ask_wallet("sign-in"))["text"]


def test_a_wallet_signs_exactly_the_text_of_this_session_once(world: World) -> None:
    browser = Browser(world)
    browser.by_wallet("enrol", code=invite(world))
    browser.submit("/sign-out")
    stale = browser.sign_text(said(browser.ask_wallet("sign-in"))["text"])
    foreign = browser.sign_text(said(Browser(world).ask_wallet("sign-in", address=browser.wallet.address))["text"])
    for signature in (stale, foreign):
        browser.ask_wallet("sign-in")
        assert code(browser.post("/auth/wallet", {"signature": signature})) == "sign_in_refused"
        assert code(browser.post("/auth/wallet", {"signature": signature})) == "stale_challenge"
    text = said(browser.ask_wallet("sign-in"))["text"]
    for wrong in (text.replace("sign-in", "step-up"), text + "\n", text.replace("localhost", "evil.example")):
        assert code(browser.post("/auth/wallet", {"signature": browser.sign_text(wrong)})) == "sign_in_refused"
        text = said(browser.ask_wallet("sign-in"))["text"]
    good = browser.sign_text(text)
    assert browser.post("/auth/wallet", {"signature": good}).status_code == 200
    assert code(browser.post("/auth/wallet", {"signature": good})) == "stale_challenge"


def test_a_text_is_too_old_after_five_minutes(world: World) -> None:
    browser = Browser(world)
    signature = browser.sign_text(said(browser.ask_wallet("enrol", code=invite(world)))["text"])
    world.clock.advance(challenges.VALID_SECONDS)
    assert code(browser.post("/auth/wallet", {"signature": signature})) == "stale_challenge"


def test_a_wallet_on_another_chain_is_refused_by_name_of_the_field(world: World) -> None:
    answer = Browser(world).ask_wallet("sign-in", chainId=OTHERS_CHAIN)
    assert (answer.status_code, said(answer)["field"]) == (422, "chainId")
    assert "31337" in said(answer)["detail"]


def test_another_account_of_the_wallet_is_refused(world: World) -> None:
    browser = Browser(world)
    browser.by_wallet("enrol", code=invite(world))
    browser.submit("/sign-out")
    # The address was that of the person's account, the signature is of another one; and the other way round.
    mine, other = browser.wallet, Account.create()
    text = said(browser.ask_wallet("sign-in"))["text"]
    browser.wallet = other
    assert code(browser.post("/auth/wallet", {"signature": browser.sign_text(text)})) == "sign_in_refused"
    assert code(browser.by_wallet("sign-in")) == "sign_in_refused"
    browser.wallet = mine
    assert browser.by_wallet("sign-in").status_code == 200
    assert code(browser.by_wallet("step-up")) == ""


def test_whether_somebody_has_a_wallet_is_not_told(world: World) -> None:
    browser = enrolled(world)
    browser.step_up()
    browser.by_wallet("link")
    stranger, nobody = Browser(world), Browser(world)
    stranger.wallet = browser.wallet
    asked = [one.ask_wallet("sign-in") for one in (stranger, nobody)]
    assert [one.status_code for one in asked] == [200, 200]
    signature = "0x" + "11" * 64 + "1b"
    answers = [one.post("/auth/wallet", {"signature": signature}) for one in (stranger, nobody)]
    assert len({(one.status_code, one.text) for one in answers}) == 1


def test_a_wallet_that_somebody_has_opens_no_second_account(world: World) -> None:
    first = Browser(world)
    first.by_wallet("enrol", code=invite(world))
    second = Browser(world)
    second.wallet = first.wallet
    made = invite(world, world.another_subject())
    assert code(second.by_wallet("enrol", code=made)) == "sign_in_refused"
    second.wallet = Account.create()
    assert second.by_wallet("enrol", code=made).status_code == 200
    second.by_wallet("step-up")
    second.wallet = first.wallet
    assert code(second.by_wallet("link")) == "sign_in_refused"


def test_a_wallet_of_another_account_steps_nobody_up(world: World) -> None:
    browser, other = enrolled(world), Browser(world)
    other.by_wallet("enrol", code=invite(world, world.another_subject()))
    browser.wallet = other.wallet
    world.clock.advance(STEP_UP_SECONDS)
    assert code(browser.by_wallet("step-up")) == "sign_in_refused"
    assert code(browser.ask_wallet("link")) == "step_up_required"


def test_a_wallet_is_linked_after_stepping_up_and_signs_in(world: World) -> None:
    browser = enrolled(world)
    world.clock.advance(STEP_UP_SECONDS)
    assert code(browser.by_wallet("link")) == "step_up_required"
    browser.step_up()
    assert browser.by_wallet("link").status_code == 200
    browser.submit("/sign-out")
    assert browser.by_wallet("sign-in").status_code == 200


@pytest.mark.parametrize("address", ["", "0x", "vitalik.eth", "0x" + "zz" * 20, "0x" + "0" * 41])
def test_an_address_is_one(world: World, address: str) -> None:
    answer = Browser(world).ask_wallet("sign-in", address=address)
    assert (answer.status_code, said(answer)["field"]) == (422, "address")


def test_a_signature_with_a_high_s_is_refused(world: World) -> None:
    browser = Browser(world)
    text = said(browser.ask_wallet("enrol", code=invite(world)))["text"]
    raw = bytes.fromhex(browser.sign_text(text)[2:])
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    high = raw[:32] + (order - int.from_bytes(raw[32:64])).to_bytes(32) + bytes([27 + 28 - raw[64]])
    assert code(browser.post("/auth/wallet", {"signature": "0x" + high.hex()})) == "sign_in_refused"


def test_what_asks_for_a_signed_in_person_asks_nobody_else(world: World) -> None:
    browser = Browser(world)
    for answer in (
        browser.ask_wallet("step-up"),
        browser.ask_wallet("link"),
        browser.post("/auth/passkey/step-up/options"),
        browser.post("/auth/passkey/register/options"),
        browser.submit("/auth/sessions/end", session="others"),
        browser.submit("/auth/passkeys/remove", passkey="x"),
        browser.submit("/auth/wallets/remove", wallet="x"),
        browser.submit("/auth/invitations/void"),
    ):
        assert (answer.status_code, code(answer)) == (401, "sign_in_required")


# ------------------------------------------------------------------------------------------------------------- sessions


def test_signing_in_makes_a_new_token(world: World) -> None:
    browser = signed_out(world)
    browser.get("/sign-in")
    planted = browser.cookie()
    csrf = browser.csrf()
    browser.sign_in()
    first = browser.cookie()
    browser.sign_in()
    second = browser.cookie()
    assert len({planted, first, second}) == 3
    assert csrf != browser.csrf()
    # Whoever planted or knew an earlier one has nothing.
    for token in (planted, first):
        attacker = Browser(world)
        assert token is not None
        attacker.client.set_cookie("session", token, domain="localhost")
        assert not attacker.is_signed_in()


def test_a_token_that_was_planted_before_signing_in_opens_nothing(world: World) -> None:
    attacker, victim = Browser(world), signed_out(world)
    attacker.get("/sign-in")
    token = attacker.cookie()
    assert token is not None
    victim.client.set_cookie("session", token, domain="localhost")
    assert victim.sign_in().status_code == 200
    assert victim.is_signed_in()
    assert not attacker.is_signed_in()


def test_a_session_ends_after_half_an_hour_without_use(world: World) -> None:
    browser = enrolled(world)
    for _ in range(3):
        world.clock.advance(HALF_HOUR - 1)
        assert browser.is_signed_in()
    world.clock.advance(HALF_HOUR)
    assert not browser.is_signed_in()
    world.clock.advance(-HALF_HOUR // 2)
    world.custodian.housekeeping()


def test_a_session_ends_after_twelve_hours_however_it_is_used(world: World) -> None:
    browser = enrolled(world)
    for _ in range(ABSOLUTE_SECONDS // 1200 - 1):
        world.clock.advance(1200)
        assert browser.is_signed_in()
    world.clock.advance(1199)
    assert browser.is_signed_in()
    world.clock.advance(1)
    assert not browser.is_signed_in()
    assert code(browser.post("/auth/passkey/step-up/options")) == "sign_in_required"


def test_stepping_up_lasts_five_minutes_and_so_does_signing_in(world: World) -> None:
    browser = enrolled(world)
    for again in (browser.step_up, browser.sign_in):
        world.clock.advance(STEP_UP_SECONDS - 1)
        assert browser.post("/auth/passkey/register/options").status_code == 200
        world.clock.advance(1)
        assert code(browser.post("/auth/passkey/register/options")) == "step_up_required"
        again()
    assert browser.post("/auth/passkey/register/options").status_code == 200


def test_stepping_up_is_of_one_session(world: World) -> None:
    browser, elsewhere = enrolled(world), Browser(world)
    elsewhere.authenticator = browser.authenticator
    elsewhere.sign_in()
    world.clock.advance(STEP_UP_SECONDS)
    browser.step_up()
    assert code(elsewhere.post("/auth/passkey/register/options")) == "step_up_required"


def test_sessions_are_listed_and_ended(world: World) -> None:
    browser, elsewhere = enrolled(world), Browser(world)
    elsewhere.authenticator = browser.authenticator
    elsewhere.sign_in()
    account = said(browser.step_up())["accountId"]
    listed = world.custodian.sessions.listed(account)
    assert [one.device for one in listed] == ["Firefox, Android"] * 2
    other = enrolled(world, world.another_subject())
    ids = [one.session_id for one in listed]
    for session in ids:
        assert code(other.submit("/auth/sessions/end", session=session)) == "not_found"
    assert browser.submit("/auth/sessions/end", session="others").status_code == 303
    assert browser.is_signed_in()
    assert not elsewhere.is_signed_in()
    assert other.is_signed_in()
    (mine,) = world.custodian.sessions.listed(account)
    ended = browser.submit("/auth/sessions/end", session=mine.session_id)
    assert ended.location == "/"
    assert not browser.is_signed_in()


def test_signing_out_ends_the_session_and_not_only_the_cookie(world: World) -> None:
    browser, thief = enrolled(world), Browser(world)
    token = browser.cookie()
    assert token is not None
    browser.submit("/sign-out")
    assert browser.cookie() != token
    thief.client.set_cookie("session", token, domain="localhost")
    assert not thief.is_signed_in()


# ------------------------------------------------------------------------------------------------------------- security


def test_a_second_passkey_is_added_after_stepping_up(world: World) -> None:
    browser = enrolled(world)
    browser.step_up()
    answer = said(browser.post("/auth/passkey/register/options"))
    assert answer["hasRoot"] is True
    options = answer["publicKey"]
    first = browser.authenticator.passkeys[0]
    assert [one["id"] for one in options["excludeCredentials"]] == [b64(first.credential_id)]
    assert unb64(options["user"]["id"]) == first.user_handle
    assert browser.register(options, name="Key ring", wrapped_root="B" * 80).status_code == 200
    browser.submit("/sign-out")
    second = browser.authenticator.passkeys[1]
    assert browser.sign_in(passkey=second).status_code == 200
    assert said(browser.step_up(passkey=second))["wrappedRoot"] == "B" * 80
    assert said(browser.step_up(passkey=first))["wrappedRoot"] == WRAPPED


def test_a_passkey_without_prf_has_no_root(world: World) -> None:
    browser = enrolled(world, wrapped_root=None)
    assert said(browser.step_up())["wrappedRoot"] is None
    assert said(browser.post("/auth/passkey/register/options"))["hasRoot"] is False


def test_a_passkey_is_removed_with_the_sessions_it_opened(world: World) -> None:
    browser, lost = enrolled(world), Browser(world)
    account = said(browser.step_up())["accountId"]
    browser.register(options_of(browser.post("/auth/passkey/register/options")), name="Lost phone")
    phone = browser.authenticator.passkeys[1]
    lost.authenticator = browser.authenticator
    lost.sign_in(passkey=phone)
    assert lost.is_signed_in()
    first, second = world.custodian.enrolment.passkeys(account)
    assert browser.submit("/auth/passkeys/remove", passkey=second.passkey_id).status_code == 303
    assert not lost.is_signed_in()
    assert code(lost.sign_in(passkey=phone)) == "sign_in_refused"
    # The last way to sign in stays.
    assert code(browser.submit("/auth/passkeys/remove", passkey=first.passkey_id)) == "conflict"
    assert browser.is_signed_in()


def test_nobody_removes_what_is_anothers(world: World) -> None:
    browser, other = enrolled(world), enrolled(world, world.another_subject())
    account = said(other.step_up())["accountId"]
    other.by_wallet("link")
    (passkey,), (wallet,) = world.custodian.enrolment.passkeys(account), world.custodian.enrolment.wallets(account)
    world.clock.advance(STEP_UP_SECONDS)
    assert code(browser.submit("/auth/passkeys/remove", passkey=passkey.passkey_id)) == "step_up_required"
    browser.step_up()
    other.step_up()
    for path, fields in (
        ("/auth/passkeys/remove", {"passkey": passkey.passkey_id}),
        ("/auth/wallets/remove", {"wallet": wallet.wallet_id}),
        ("/auth/passkeys/remove", {"passkey": "nothing"}),
    ):
        assert code(browser.submit(path, **fields)) == "not_found"
    assert other.submit("/auth/wallets/remove", wallet=wallet.wallet_id).status_code == 303
    assert world.custodian.enrolment.wallet_of(Address(other.wallet.address)) is None


def test_a_form_that_comes_too_late_is_there_to_be_sent_again_once_the_person_has_shown_that_it_is_them(
    world: World,
) -> None:
    browser = enrolled(world)
    browser.by_wallet("link")
    account = said(browser.step_up())["accountId"]
    (wallet,) = world.custodian.enrolment.wallets(account)
    world.clock.advance(STEP_UP_SECONDS)
    page = browser.submit("/auth/wallets/remove", accept="text/html", wallet=wallet.wallet_id, more='"><b>')
    assert page.status_code == 403
    assert world.custodian.enrolment.wallets(account) == (wallet,)
    assert 'action="/auth/wallets/remove" data-step-up="always"' in page.text
    assert f'name="wallet" value="{wallet.wallet_id}"' in page.text
    assert 'name="more" value="&#34;&gt;&lt;b&gt;"' in page.text
    # Its own token, once, and not what came with the form.
    assert page.text.partition("<main")[2].count('name="csrf"') == 1
    assert "This needs JavaScript" in page.text
    browser.step_up()
    assert browser.submit("/auth/wallets/remove", accept="text/html", wallet=wallet.wallet_id).status_code == 303
    assert world.custodian.enrolment.wallets(account) == ()


def test_a_script_that_comes_too_late_is_told_so_and_given_no_page(world: World) -> None:
    browser = enrolled(world)
    world.clock.advance(STEP_UP_SECONDS)
    assert code(browser.post("/auth/passkey/register/options")) == "step_up_required"


def test_a_code_that_was_handed_out_is_seen_and_can_be_made_void(world: World) -> None:
    browser, made = enrolled(world), invite(world)
    (seen,) = world.custodian.invitations.open(world.custodian.vault.subject_of(world.subject.ref))
    assert seen.by_custodian
    assert browser.submit("/auth/invitations/void").status_code == 303
    assert code(Browser(world).enrol(made)) == "code_refused"


def test_a_passkey_is_not_added_to_an_account_that_has_ended_meanwhile(world: World) -> None:
    browser = enrolled(world)
    browser.step_up()
    options = options_of(browser.post("/auth/passkey/register/options"))
    Browser(world).enrol(invite(world))
    assert code(browser.register(options)) == "sign_in_required"


def test_nothing_is_added_to_an_account_that_ends_at_the_same_moment(world: World) -> None:
    account = said(enrolled(world).step_up())["accountId"]
    subject_id = world.custodian.vault.subject_of(world.subject.ref)
    Browser(world).enrol(invite(world))
    with pytest.raises(NotFoundError):
        world.custodian.enrolment.add(account, subject_id, Address(Account.create().address))


def test_an_account_has_so_many_wallets_and_no_more(world: World) -> None:
    account = said(enrolled(world).step_up())["accountId"]
    subject_id = world.custodian.vault.subject_of(world.subject.ref)
    for _ in range(MAX_WALLETS):
        world.custodian.enrolment.add(account, subject_id, Address(Account.create().address))
    with pytest.raises(AccountFullError):
        world.custodian.enrolment.add(account, subject_id, Address(Account.create().address))
    assert len(world.custodian.enrolment.wallets(account)) == MAX_WALLETS


# ----------------------------------------------------------------------------------------------- erasure, housekeeping


def test_erasure_takes_the_account_with_all_that_hangs_on_it(world: World) -> None:
    browser, other = enrolled(world), enrolled(world, world.another_subject())
    browser.step_up()
    browser.by_wallet("link")
    browser.post("/auth/passkey/step-up/options")
    browser.ask_wallet("step-up")
    made = invite(world)
    subject_id = world.custodian.vault.subject_of(world.subject.ref)
    assert world.custodian.eraser.erase(world.subject.ref).accounts == 1
    with world.custodian.store.read() as tx:
        for name in ("accounts", "passkeys", "wallets", "sessions", "invitations", "challenges"):
            query = f"SELECT count(*) FROM {name} WHERE subject_id = '{subject_id}'"
            assert tx.exec_driver_sql(query).scalar() == 0, name
    assert not browser.is_signed_in()
    assert code(browser.sign_in()) == "sign_in_refused"
    assert code(browser.by_wallet("sign-in")) == "sign_in_refused"
    assert code(Browser(world).enrol(made)) == "code_refused"
    assert other.is_signed_in()


def test_what_is_over_is_forgotten(world: World) -> None:
    browser = enrolled(world)
    browser.post("/auth/passkey/sign-in/options")
    invite(world)
    world.clock.advance(15 * DAY)
    world.custodian.housekeeping()
    with world.custodian.store.read() as tx:
        for name in ("sessions", "challenges", "invitations", "attempts"):
            assert tx.exec_driver_sql(f"SELECT count(*) FROM {name}").scalar() == 0, name
        assert len(tx.execute(select(accounts)).all()) == 1


def test_keys_are_rotated_under_people_who_are_signed_in(world: World) -> None:
    browser = enrolled(world)
    browser.step_up()
    browser.by_wallet("link")
    options = options_of(browser.post("/auth/passkey/step-up/options"))
    rotation = world.custodian.rotate_keys()
    assert rotation.destroyed
    credential = browser.authenticator.get(options)
    assert browser.post("/auth/passkey/step-up", {"credential": credential}).status_code == 200
    assert browser.is_signed_in()
    assert {"passkeys", "wallets", "sessions", "challenges"} <= {table.name for table in SEALED_TABLES}


# --------------------------------------------------------------------------------------------------------- two workers


def test_two_workers_share_sessions_challenges_codes_and_counts(world: World) -> None:
    other_worker = world.open()
    try:
        browser = Browser(world)
        apps = (browser.app, create_app(other_worker))
        cookies = browser.client

        def at(number: int) -> Browser:
            cookies.application = apps[number]
            return browser

        options = options_of(at(0).post("/auth/passkey/register/options", {"code": invite(world)}))
        assert at(1).register(options).status_code == 200
        assert at(0).is_signed_in()
        options = options_of(at(0).post("/auth/passkey/step-up/options"))
        credential = browser.authenticator.get(options)
        assert at(1).post("/auth/passkey/step-up", {"credential": credential}).status_code == 200
        assert code(at(0).post("/auth/passkey/step-up", {"credential": credential})) == "stale_challenge"
        assert at(0).post("/auth/passkey/register/options").status_code == 200
        assert code(at(1).by_wallet("link")) == ""
        for number in range(attempts.CODES.tries):
            at(number % 2).post("/auth/passkey/register/options", {"code": "0"})
        assert code(at(0).post("/auth/passkey/register/options", {"code": "0"})) == "rate_limited"
        assert code(at(1).post("/auth/passkey/register/options", {"code": "0"})) == "rate_limited"
        assert at(1).submit("/sign-out").status_code == 303
        assert not at(0).is_signed_in()
    finally:
        other_worker.close()


def test_of_many_who_come_with_one_answer_at_once_one_is_let_in(world: World) -> None:
    browser = signed_out(world)
    options = options_of(browser.post("/auth/passkey/sign-in/options"))
    credential, csrf, token = browser.authenticator.get(options), browser.csrf(), browser.cookie()
    assert token is not None
    results: list[str] = []
    start = threading.Barrier(8)

    def come() -> None:
        one = Browser(world, app=browser.app)
        one.client.set_cookie("session", token, domain="localhost")
        one.csrf = lambda: csrf  # type: ignore[method-assign]
        start.wait()
        results.append(code(one.post("/auth/passkey/sign-in", {"credential": credential})))

    threads = [threading.Thread(target=come) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [""] + ["stale_challenge"] * 7


def test_a_database_that_is_gone_lets_nobody_in_and_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = enrolled(world)
    monkeypatch.setattr("ledger.store.BUSY_SECONDS", 0)
    world.custodian.store._engine.dispose()
    with world.custodian.store.begin() as tx:
        tx.exec_driver_sql("ALTER TABLE sessions RENAME TO gone")
    answer = browser.get("/security")
    assert (answer.status_code, code(answer)) == (503, "store_unavailable")
    assert "sessions" not in answer.text
