"""Releases: the happy way, and every attack on a request or a consent. Properties P1, P3 and P4 of the design."""

from __future__ import annotations

import json
from typing import Any

import pytest
from actors import DAY, Institution, World
from joserfc import jws

from ledger.access import AccessEntry, entry_hash_of
from ledger.consent import NO_ADDRESS, Hex32, Reason
from ledger.errors import (
    AttributeAbsentError,
    AttributeNotConsentedError,
    AuditError,
    AuthenticationError,
    ConsentExhaustedError,
    ConsentExpiredError,
    ConsentNotYetValidError,
    ConsentPausedError,
    ConsentRevokedError,
    DailyLimitError,
    DisputedError,
    IdempotencyConflictError,
    InstitutionSuspendedError,
    LedgerError,
    MalformedError,
    NotFoundError,
    PurposeMismatchError,
    StaleRequestError,
    WrongInstitutionError,
)
from ledger.exchange import verify_claims
from ledger.journal import REFUSED, RELEASED
from ledger.release import LOGGED_REFUSALS_PER_DAY
from ledger.store import institutions
from ledger.vault import AttributeValue, StoredRecord

# -------------------------------------------------------------------------------------------------------- the happy way


def test_a_release_gives_the_value_and_is_on_the_log_once(world: World) -> None:
    consent = world.grant()
    release = world.ask(consent, attributes=("credit_amount", "savings"))

    claims = world.read(release)
    assert {name: held["value"] for name, held in claims["values"].items()} == {
        "credit_amount": 1169,
        "savings": "below_100",
    }
    assert claims["eraseBy"] == world.clock.now + 31 * DAY
    assert world.logged() == [claims["entryHash"]]
    assert world.states() == [RELEASED]


def test_the_receipt_opens_the_entry_on_chain_and_says_no_value(world: World) -> None:
    release = world.ask(world.grant())
    claims = verify_claims(release.receipt, world.custodian.accounts.signing_key, "access-receipt+jwt")

    assert entry_hash_of(AccessEntry.from_json(claims["entry"])) == claims["entryHash"] == world.logged()[0]
    (event,) = [event for event in world.chain.all_events() if event.name == "AccessRecorded"]
    assert (claims["proof"]["blockHash"], claims["proof"]["logIndex"]) == (event.block_hash, event.log_index)
    assert "1169" not in json.dumps(claims)


def test_only_the_institution_that_asked_can_open_the_answer(world: World) -> None:
    release = world.ask(world.grant())
    with pytest.raises(AuditError):
        Institution().open(world.custodian, release.sealed)


def test_a_retry_returns_the_identical_bytes_and_logs_nothing(world: World) -> None:
    consent = world.grant(max_accesses=1, accesses_per_day=1)
    first = world.ask(consent, key="once")
    world.restart()
    assert world.ask(consent, key="once").sealed == first.sealed
    assert len(world.logged()) == 1


def test_a_retry_after_the_revocation_still_returns_what_was_released_before_it(world: World) -> None:
    consent = world.grant()
    first = world.ask(consent, key="once")
    world.subject.revoke(world.custodian, consent)
    assert world.ask(consent, key="once").sealed == first.sealed


def test_nothing_is_decrypted_before_the_access_is_on_the_log(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    on_the_log: list[int] = []
    really_open = world.custodian.vault.open

    def watched(record: StoredRecord) -> AttributeValue:
        on_the_log.append(len(world.logged()))
        return really_open(record)

    monkeypatch.setattr(world.custodian.vault, "open", watched)
    world.ask(world.grant())
    assert on_the_log == [1]


def test_idle_chain_time_does_not_make_a_consent_wait_for_its_window(world: World) -> None:
    consent = world.grant(valid_from=world.clock.now + 60)
    world.clock.advance(61)
    assert world.chain.statuses([consent], world.custodian.address) == [Reason.NOT_YET_VALID]
    assert world.read(world.ask(consent))["values"]["credit_amount"]["value"] == 1169


# ---------------------------------------------------------------------------------------- attacks on the signed request


def forged(world: World, consent: Hex32, claims: dict[str, Any]) -> bytes:
    """A request with these claims instead of the usual ones, signed by the institution all the same."""
    key = world.institution.signing_key
    payload = json.loads(jws.extract_compact(world.request(consent)).payload) | claims
    header = {"alg": "ES256", "kid": key.kid, "typ": "release-request+jwt"}
    return jws.serialize_compact(header, json.dumps(payload), key, algorithms=["ES256"]).encode()


@pytest.mark.parametrize(
    ("claims", "error"),
    [
        ({"aud": NO_ADDRESS}, AuthenticationError),
        ({"iss": "bank-2"}, NotFoundError),
        ({"iss": 7}, MalformedError),
        ({"iat": None}, StaleRequestError),
        ({"iat": True}, StaleRequestError),
        ({"consent": "0x12"}, MalformedError),
        ({"consent": None}, MalformedError),
        ({"attributes": "credit_amount"}, MalformedError),
        ({"attributes": [1]}, MalformedError),
        ({"attributes": []}, MalformedError),
        ({"attributes": ["credit_amount", "credit_amount"]}, MalformedError),
        ({"purpose": 1}, MalformedError),
        ({"purpose": "\ud800"}, MalformedError),
        ({"attributes": ["\ud800"]}, MalformedError),
        ({"key": ""}, MalformedError),
        ({"key": "k" * 201}, MalformedError),
        ({"key": "\ud800"}, MalformedError),
        ({"key": None}, MalformedError),
    ],
)
def test_a_malformed_request_is_named_and_leaves_nothing(
    world: World, claims: dict[str, Any], error: type[LedgerError]
) -> None:
    consent = world.grant()
    with pytest.raises(error):
        world.custodian.releases.release(forged(world, consent, claims))
    assert world.states() == []
    assert world.ask(consent).sealed


@pytest.mark.parametrize("signed", [b"", b"a.b", b"a.b.c", b"\xff\xfe.x.y", b"e30.e30.e30", b"e30.W10.e30"])
def test_what_is_no_signed_request_is_refused(world: World, signed: bytes) -> None:
    with pytest.raises((MalformedError, AuthenticationError)):
        world.custodian.releases.release(signed)


def test_a_request_signed_by_another_key_is_refused(world: World) -> None:
    stranger = Institution()
    with pytest.raises(AuthenticationError):
        world.ask(world.grant(), signing_key=stranger.signing_key)


def test_an_unsigned_request_is_refused(world: World) -> None:
    payload = world.request(world.grant()).split(b".")[1]
    with pytest.raises(AuthenticationError):
        world.custodian.releases.release(b"eyJhbGciOiJub25lIn0." + payload + b".")


def test_an_altered_request_is_refused(world: World) -> None:
    header, _, signature = world.request(world.grant()).split(b".")
    other = world.request(world.grant(), attributes=("savings",)).split(b".")[1]
    with pytest.raises(AuthenticationError):
        world.custodian.releases.release(b".".join((header, other, signature)))


@pytest.mark.parametrize("seconds", [301, -301])
def test_a_request_signed_too_long_ago_or_in_the_future_is_refused(world: World, seconds: int) -> None:
    signed = world.request(world.grant())
    world.clock.advance(seconds)
    with pytest.raises(StaleRequestError):
        world.custodian.releases.release(signed)
    assert world.states() == []


def test_a_replayed_request_gets_the_same_answer_and_no_new_access(world: World) -> None:
    signed = world.request(world.grant())
    first = world.custodian.releases.release(signed)
    assert world.custodian.releases.release(signed).sealed == first.sealed
    assert len(world.logged()) == 1


def test_the_same_idempotency_key_with_another_body_is_a_conflict(world: World) -> None:
    consent = world.grant()
    world.ask(consent, key="once")
    with pytest.raises(IdempotencyConflictError):
        world.ask(consent, key="once", attributes=("savings",))
    assert world.states() == [RELEASED]


def test_the_same_idempotency_key_of_another_institution_is_another_request(world: World) -> None:
    other = world.another_institution()
    ours, theirs = world.grant(), world.subject.grant(world.custodian, other)
    first = world.ask(ours, key="once")
    second = world.custodian.releases.release(other.request(world.custodian, theirs, key="once"))
    assert first.release_id != second.release_id
    assert len(world.logged()) == 2


def test_a_suspended_institution_gets_nothing(world: World) -> None:
    consent = world.grant()
    with world.custodian.store.begin() as tx:
        tx.execute(institutions.update().values(suspended=True))
    with pytest.raises(InstitutionSuspendedError):
        world.ask(consent)
    assert world.logged() == []


# ---------------------------------------------------------------------------------------------- more than was consented


def test_a_consent_of_another_institution_gives_nothing_and_is_seen_by_the_person(world: World) -> None:
    consent = world.grant()
    thief = world.another_institution()
    with pytest.raises(WrongInstitutionError):
        world.custodian.releases.release(thief.request(world.custodian, consent))
    assert world.custodian.releases.log_refusals() == 1
    assert world.logged() == []
    assert len(world.logged("AccessRefused")) == 1


def test_a_consent_that_nobody_gave_is_not_found(world: World) -> None:
    with pytest.raises(NotFoundError):
        world.ask(Hex32("0x" + "ab" * 32))


def test_a_consent_for_another_purpose_gives_nothing(world: World) -> None:
    with pytest.raises(PurposeMismatchError):
        world.ask(world.grant(), purpose="account-review")
    assert world.states() == [REFUSED]


@pytest.mark.parametrize("attribute", ["credit_duration", "age", "no_such_thing"])
def test_an_attribute_beyond_the_consent_gives_nothing_at_all(world: World, attribute: str) -> None:
    with pytest.raises(AttributeNotConsentedError):
        world.ask(world.grant(), attributes=("credit_amount", attribute))
    assert world.logged() == []
    assert world.states() == [REFUSED]


def test_an_attribute_that_is_not_held_is_told_before_anything_is_logged(world: World) -> None:
    consent = world.grant(attributes=("credit_amount", "age"))
    with pytest.raises(AttributeAbsentError):
        world.ask(consent, attributes=("credit_amount", "age"))
    assert world.logged() == []
    assert world.ask(consent).sealed


def test_a_disputed_attribute_is_not_released(world: World) -> None:
    consent = world.grant()
    subject_id = world.custodian.vault.subject_of(world.subject.ref)
    world.custodian.vault.set_disputed(subject_id, "credit_amount", disputed=True)
    with pytest.raises(DisputedError):
        world.ask(consent)
    assert world.ask(consent, attributes=("savings",)).sealed
    world.custodian.vault.set_disputed(subject_id, "credit_amount", disputed=False)
    assert world.ask(consent).sealed


def test_a_consent_whose_window_has_not_begun_gives_nothing(world: World) -> None:
    with pytest.raises(ConsentNotYetValidError):
        world.ask(world.grant(valid_from=world.clock.now + 60))
    assert world.logged() == []


def test_an_expired_consent_gives_nothing_and_the_try_is_on_the_log(world: World) -> None:
    consent = world.grant()
    world.clock.advance(30 * DAY)
    with pytest.raises(ConsentExpiredError):
        world.ask(consent, key="late")
    with pytest.raises(ConsentExpiredError):
        world.ask(consent, key="late")
    assert world.logged() == []
    assert len(world.logged("AccessRefused")) == 1


def test_an_exhausted_consent_gives_nothing(world: World) -> None:
    consent = world.grant(max_accesses=1, accesses_per_day=1)
    world.ask(consent)
    world.clock.advance(DAY)
    with pytest.raises(ConsentExhaustedError):
        world.ask(consent)


def test_the_daily_limit_ends_with_the_utc_day(world: World) -> None:
    consent = world.grant(max_accesses=3, accesses_per_day=1)
    world.ask(consent)
    with pytest.raises(DailyLimitError):
        world.ask(consent)
    world.clock.advance(DAY // 2 - 1)
    with pytest.raises(DailyLimitError):
        world.ask(consent)
    world.clock.advance(1)
    assert world.ask(consent).sealed


def test_a_paused_consent_gives_nothing_until_it_is_resumed(world: World) -> None:
    consent = world.grant()
    world.subject.pause(world.custodian, consent)
    with pytest.raises(ConsentPausedError):
        world.ask(consent)
    world.subject.pause(world.custodian, consent, paused=False, sequence=2)
    assert world.ask(consent).sealed


def test_a_revocation_by_the_subject_itself_on_chain_is_asked_for_before_anything_else(world: World) -> None:
    consent = world.grant()
    world.subject.revoke_directly(world.chain, world.grant_of(consent))
    with pytest.raises(ConsentRevokedError):
        world.ask(consent)
    assert world.logged() == []


def test_a_refused_request_stays_refused_under_its_key(world: World) -> None:
    consent = world.grant()
    world.subject.pause(world.custodian, consent)
    for _ in range(2):
        with pytest.raises(ConsentPausedError):
            world.ask(consent, key="once")
    world.subject.pause(world.custodian, consent, paused=False, sequence=2)
    with pytest.raises(ConsentPausedError):
        world.ask(consent, key="once")
    assert world.ask(consent, key="another").sealed


# -------------------------------------------------------------------------------------------------- refusals on the log


def test_refusals_are_logged_once_and_count_nothing(world: World) -> None:
    consent = world.grant()
    with pytest.raises(PurposeMismatchError):
        world.ask(consent, purpose="account-review")
    assert world.custodian.releases.log_refusals() == 1
    assert world.custodian.releases.log_refusals() == 0
    assert world.chain.consent(consent).accesses == 0
    (event,) = [event for event in world.chain.all_events() if event.name == "AccessRefused"]
    assert event.args[2] == Reason.BY_CUSTODIAN


def test_refusals_beyond_the_daily_number_are_refused_and_not_logged(world: World) -> None:
    consent = world.grant()
    for _ in range(LOGGED_REFUSALS_PER_DAY + 3):
        with pytest.raises(PurposeMismatchError):
            world.ask(consent, purpose="account-review")
    assert world.custodian.sync().refusals_logged == LOGGED_REFUSALS_PER_DAY
    assert world.ask(consent).sealed
