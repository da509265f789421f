"""Releases: the happy way, and every attack on a request or a consent. Properties P1, P3 and P4 of the design."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import pytest
from actors import DAY, Institution, World
from joserfc.jwk import ECKey

from ledger.access import AccessEntry, entry_hash_of
from ledger.authentication import Signed
from ledger.commit import MAX_BATCH
from ledger.consent import Hex32, Reason
from ledger.custodian import Custodian
from ledger.envelope import Use
from ledger.errors import (
    AnswerGoneError,
    AttributeAbsentError,
    AttributeNotConsentedError,
    AuditError,
    AuthenticationError,
    ChainUnavailableError,
    ConsentExhaustedError,
    ConsentExpiredError,
    ConsentNotYetValidError,
    ConsentPausedError,
    ConsentRevokedError,
    DailyLimitError,
    DisputedError,
    IdempotencyConflictError,
    InstitutionSuspendedError,
    MalformedError,
    NotFoundError,
    PurposeMismatchError,
    ReleaseInProgressError,
    ReplayedRequestError,
    StaleRequestError,
    WrongInstitutionError,
)
from ledger.exchange import (
    MAX_ATTRIBUTES,
    MAX_KEY_LENGTH,
    MAX_NAME_LENGTH,
    ReleaseRequest,
    release_request,
    verify_claims,
)
from ledger.journal import RECORDED, REFUSED, RELEASED
from ledger.parties import INSTITUTION
from ledger.preparation import LOGGED_REFUSALS_PER_DAY, opening_context
from ledger.release import KEPT_SECONDS, Release
from ledger.signatures import HttpRequest, SignedRequest, verify_evidence
from ledger.vault import AttributeValue, StoredRecord, open_json

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
    # A hash may have it by chance.
    assert "1169" not in re.sub("0x[0-9a-f]+", "", json.dumps(claims))


def test_what_the_institution_signed_is_kept_and_is_what_the_log_says_it_asked(world: World) -> None:
    message = world.request(world.grant())
    world.custodian.releases.release(message)
    (row,) = world.custodian.journal.history()
    opening = open_json(row, opening_context(row.release_id), world.custodian.keys)
    evidence = SignedRequest.from_json(opening["request"])
    verify_evidence(evidence, world.institution.signing_key)
    assert (evidence.body, opening["entry"]["requestHash"]) == (message.body, evidence.digest())
    assert f'"@target-uri": {message.url}\n' in evidence.base.decode()


def test_only_the_institution_that_asked_can_open_the_answer(world: World) -> None:
    release = world.ask(world.grant())
    with pytest.raises(AuditError):
        Institution().open(world.custodian, release.sealed)


def test_a_retry_returns_the_identical_bytes_and_receipt_and_logs_nothing(world: World) -> None:
    message = world.request(world.grant(max_accesses=1, accesses_per_day=1))
    first = world.custodian.releases.release(message)
    world.clock.advance(60)
    world.restart()
    assert world.retry(message) == first
    assert len(world.logged()) == 1


def test_a_retry_after_the_chain_moved_the_entry_has_the_same_bytes_and_a_receipt_of_where_it_stands(
    world: World,
) -> None:
    message = world.request(world.grant())
    first = world.custodian.releases.release(message)
    world.chain.reorg(1)
    world.clock.advance(60)
    world.custodian.sync()
    again = world.retry(message)
    assert again.sealed == first.sealed
    claims = verify_claims(again.receipt, world.custodian.accounts.signing_key, "access-receipt+jwt")
    (event,) = [event for event in world.chain.all_events() if event.name == "AccessRecorded"]
    assert (claims["proof"]["blockHash"], claims["entryHash"]) == (event.block_hash, event.args[1])
    assert again.receipt != first.receipt


def test_the_bytes_are_given_again_for_a_day_and_the_receipt_for_ever(world: World) -> None:
    message = world.request(world.grant())
    first = world.custodian.releases.release(message)
    party = world.custodian.registry.institution(world.institution.institution_id)
    world.clock.advance(KEPT_SECONDS - 1)
    assert world.retry(message) == world.custodian.releases.found(first.release_id, party) == first
    world.clock.advance(1)
    with pytest.raises(AnswerGoneError):
        world.retry(message)
    with pytest.raises(AnswerGoneError):
        world.custodian.releases.found(first.release_id, party)
    receipt = verify_claims(
        world.custodian.releases.receipt(first.release_id),
        world.custodian.accounts.signing_key,
        "access-receipt+jwt",
    )
    assert receipt["entryHash"] == world.logged()[0]
    assert len(world.logged()) == 1


def test_an_earlier_release_is_found_by_the_institution_that_asked_and_by_nobody_else(world: World) -> None:
    release = world.ask(world.grant())
    ours = world.custodian.registry.institution(world.institution.institution_id)
    other = world.custodian.registry.institution(world.another_institution().institution_id)
    assert world.custodian.releases.found(release.release_id, ours) == release
    for release_id, party in ((release.release_id, other), (Hex32("0x" + "ab" * 32), ours)):
        with pytest.raises(NotFoundError):
            world.custodian.releases.found(release_id, party)


def test_a_release_that_was_refused_or_is_not_finished_is_found_as_that(world: World) -> None:
    ours = world.custodian.registry.institution(world.institution.institution_id)
    with pytest.raises(PurposeMismatchError):
        world.ask(world.grant(), purpose="account-review")
    world.steps.at("5 logged", lambda: setattr(world.chain, "down", True))
    with pytest.raises(ChainUnavailableError):
        world.ask(world.grant(), key="once")
    found = {row.state: row.release_id for row in world.custodian.journal.history()}
    with pytest.raises(PurposeMismatchError):
        world.custodian.releases.found(found[REFUSED], ours)
    with pytest.raises(ReleaseInProgressError):
        world.custodian.releases.found(found[RECORDED], ours)


@pytest.mark.parametrize("max_batch", [MAX_BATCH, 2, 1])
def test_one_signed_request_for_several_releases_is_let_in_once_and_has_each_answer_in_its_place(
    world: World, max_batch: int
) -> None:
    # Also where it takes several rounds, as it does for whoever comes when many wait.
    world.custodian.close()
    world.custodian = Custodian(
        world.config, chain=world.chain, clock=world.clock, step=world.steps, max_batch=max_batch
    )
    ours, theirs = world.grant(), world.subject.grant(world.custodian, world.another_institution())
    wanted = [
        (ours, "loan-origination"),
        (ours, "account-review"),
        (Hex32(A_CONSENT), "loan-origination"),
        (theirs, "loan-origination"),
        (ours, "loan-origination"),
    ]
    signed, requests = several(
        world, [(consent, purpose, f"many-{number}") for number, (consent, purpose) in enumerate(wanted)]
    )
    caller, results = world.custodian.releases.answer(requests, signed)
    assert [type(result) for result in results] == [
        Release,
        PurposeMismatchError,
        NotFoundError,
        WrongInstitutionError,
        Release,
    ]
    # However much it asks for, it is one request.
    assert caller.rate.remaining == caller.rate.limit - 1
    assert len(world.logged()) == 2
    with pytest.raises(ReplayedRequestError):
        world.custodian.releases.answer(requests, signed)


def several(world: World, wanted: Sequence[tuple[Hex32, str, str]]) -> tuple[Signed, list[ReleaseRequest]]:
    """One signed request for several releases: of which consent, for what, and under which key."""
    signed = world.custodian.authentication.verify(world.request(wanted[0][0]))
    requests = [
        release_request(
            signed.evidence,
            signed.party.party_id,
            consent_id=consent,
            purpose=purpose,
            attributes=["savings"],
            idempotency_key=key,
        )
        for consent, purpose, key in wanted
    ]
    return signed, requests


def test_one_key_twice_in_one_round_is_one_release_or_a_conflict(world: World) -> None:
    consent, other = world.grant(), world.grant()
    once = (consent, "loan-origination", "once")
    signed, requests = several(world, [once, once, (other, "loan-origination", "once"), once])
    _, (first, again, conflict, third) = world.custodian.releases.answer(requests, signed)
    assert isinstance(first, Release)
    assert first == again == third
    assert isinstance(conflict, IdempotencyConflictError)
    assert len(world.logged()) == 1


def test_the_daily_limit_holds_within_one_round(world: World) -> None:
    consent = world.grant(max_accesses=3, accesses_per_day=2)
    signed, requests = several(world, [(consent, "loan-origination", f"k-{number}") for number in range(3)])
    _, results = world.custodian.releases.answer(requests, signed)
    assert [type(result) for result in results] == [Release, Release, DailyLimitError]
    assert world.chain.consent(consent).accesses == 2


def test_refusals_beyond_the_daily_number_are_not_logged_if_they_come_in_one_round_either(world: World) -> None:
    consent = world.grant()
    wanted = [(consent, "account-review", f"k-{number}") for number in range(LOGGED_REFUSALS_PER_DAY + 3)]
    signed, requests = several(world, wanted)
    _, results = world.custodian.releases.answer(requests, signed)
    assert {type(result) for result in results} == {PurposeMismatchError}
    assert world.states() == [REFUSED] * LOGGED_REFUSALS_PER_DAY


def test_a_retry_after_the_revocation_still_returns_what_was_released_before_it(world: World) -> None:
    consent = world.grant()
    first = world.ask(consent, key="once")
    world.subject.revoke(world.custodian, consent)
    assert world.ask(consent, key="once").sealed == first.sealed


def test_nothing_is_decrypted_before_the_access_is_on_the_log(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    on_the_log: list[int] = []
    really_open = world.custodian.vault.open

    def watched(record: StoredRecord, use: Use) -> AttributeValue:
        on_the_log.append(len(world.logged()))
        return really_open(record, use)

    monkeypatch.setattr(world.custodian.vault, "open", watched)
    world.ask(world.grant())
    assert on_the_log == [1]


def test_idle_chain_time_does_not_make_a_consent_wait_for_its_window(world: World) -> None:
    consent = world.grant(valid_from=world.clock.now + 60)
    world.clock.advance(61)
    assert world.chain.statuses([consent], world.custodian.address) == [Reason.NOT_YET_VALID]
    assert world.read(world.ask(consent))["values"]["credit_amount"]["value"] == 1169


# ---------------------------------------------------------------------------------------- attacks on the signed request


def forged(
    world: World,
    consent: Hex32,
    *,
    body: object = ...,
    path: str | None = None,
    method: str = "POST",
    key: str | None = "key-forged",
) -> HttpRequest:
    """A request with this instead of the usual, signed by the institution all the same."""
    message = HttpRequest(
        method=method,
        url=world.config.service_url + (path or f"/v1/consents/{consent}/releases"),
        headers={"Content-Type": "application/json"} | ({"Idempotency-Key": key} if key is not None else {}),
        body=body if isinstance(body, bytes) else json.dumps(USUAL if body is ... else body).encode(),
    )
    return world.institution.sign(message, at=world.clock())


USUAL: Final[dict[str, Any]] = {"purpose": "loan-origination", "attributes": ["credit_amount"]}
A_CONSENT: Final = "0x" + "ab" * 32
FORGERIES: Final[list[dict[str, Any]]] = [
    {"path": "/v1/consents/0x12/releases"},
    {"path": "/v1/consents/releases"},
    {"path": f"/v1/consents/{A_CONSENT.upper()}/releases"},
    {"path": f"/v1/consents/{A_CONSENT}/releases/"},
    {"path": f"/v1/consents/{A_CONSENT}"},
    {"path": f"/v1/elsewhere?also=/v1/consents/{A_CONSENT}/releases"},
    {"method": "PUT"},
    {"body": b""},
    {"body": b"{"},
    {"body": b"\xff"},
    {"body": b"[" * 50_000},
    {"body": None},
    {"body": 7},
    {"body": [USUAL]},
    {"body": {}},
    {"body": USUAL | {"attributes": "credit_amount"}},
    {"body": USUAL | {"attributes": None}},
    {"body": USUAL | {"attributes": {"credit_amount": 1}}},
    {"body": USUAL | {"attributes": [1]}},
    {"body": USUAL | {"attributes": []}},
    {"body": USUAL | {"attributes": ["credit_amount", "credit_amount"]}},
    {"body": USUAL | {"attributes": ["\ud800"]}},
    {"body": USUAL | {"attributes": ["a" * (MAX_NAME_LENGTH + 1)]}},
    {"body": USUAL | {"attributes": [f"a{number}" for number in range(MAX_ATTRIBUTES + 1)]}},
    {"body": USUAL | {"purpose": 1}},
    {"body": USUAL | {"purpose": None}},
    {"body": USUAL | {"purpose": "\ud800"}},
    {"body": USUAL | {"purpose": "p" * (MAX_NAME_LENGTH + 1)}},
    {"key": None},
    {"key": ""},
    {"key": "k" * (MAX_KEY_LENGTH + 1)},
]


@pytest.mark.parametrize("changes", FORGERIES, ids=lambda changes: repr(changes)[:60])
def test_a_malformed_request_is_named_and_leaves_nothing(world: World, changes: dict[str, Any]) -> None:
    consent = world.grant()
    with pytest.raises(MalformedError) as caught:
        world.custodian.releases.release(forged(world, consent, **changes))
    assert caught.value.field
    assert world.states() == []
    assert world.custodian.releases.release(forged(world, consent)).sealed


@pytest.mark.parametrize(
    "name", ["Signature", "Signature-Input", "Content-Digest", "Idempotency-Key", "Content-Type", "all of them"]
)
def test_a_request_without_one_of_its_headers_is_refused_unless_it_was_not_signed(world: World, name: str) -> None:
    message = world.request(world.grant())
    left = {} if name == "all of them" else {key: value for key, value in message.headers.items() if key != name}
    without = replace(message, headers=left)
    if name == "Content-Type":
        assert world.custodian.releases.release(without).sealed
        return
    with pytest.raises(AuthenticationError):
        world.custodian.releases.release(without)
    assert world.states() == []


def test_a_request_signed_by_another_key_is_refused(world: World) -> None:
    stranger = Institution()
    with pytest.raises(AuthenticationError):
        world.ask(world.grant(), signing_key=stranger.signing_key)


def test_a_request_signed_by_another_key_under_the_id_of_the_institutions_is_refused(world: World) -> None:
    known = world.institution.signing_key
    disguised: dict[str, Any] = Institution().signing_key.as_dict(private=True) | {"kid": known.kid}
    with pytest.raises(AuthenticationError):
        world.ask(world.grant(), signing_key=ECKey.import_key(disguised))


@pytest.mark.parametrize("registered", [True, False])
def test_a_request_in_the_name_of_another_institution_is_refused(world: World, registered: bool) -> None:
    consent = world.grant()
    other = world.another_institution() if registered else Institution("bank-unknown")
    with pytest.raises(AuthenticationError):
        world.ask(consent, institution=other.institution_id)
    with pytest.raises(AuthenticationError):
        world.ask(consent, signing_key=other.signing_key)
    assert world.states() == []


def test_an_altered_request_is_refused(world: World) -> None:
    message = world.request(world.grant())
    other = world.request(world.grant(), attributes=("savings",), purpose="account-review")
    alterations = [
        replace(message, url=other.url),
        replace(message, url=message.url + "?"),
        replace(message, url=f"{message.url}#/v1/consents/{A_CONSENT}/releases"),
        replace(message, url=message.url.replace("127.0.0.1", "elsewhere.example")),
        replace(message, method="PUT"),
        replace(message, body=other.body),
        replace(message, body=message.body + b" "),
        replace(message, body=b""),
        *(
            replace(message, headers=message.headers | {name: other.headers[name]})
            for name in ("Signature", "Signature-Input", "Idempotency-Key", "Content-Digest")
        ),
        replace(
            message, body=other.body, headers=message.headers | {"Content-Digest": other.headers["Content-Digest"]}
        ),
    ]
    for altered in alterations:
        with pytest.raises(AuthenticationError):
            world.custodian.releases.release(altered)
    assert world.states() == []
    assert world.custodian.releases.release(message).sealed


def test_a_request_to_another_custodian_is_none_to_this_one(world: World) -> None:
    consent = world.grant()
    with pytest.raises(AuthenticationError):
        world.custodian.releases.release(
            replace(
                world.request(consent, service_url="https://other.example"),
                url=f"{world.config.service_url}/v1/consents/{consent}/releases",
            )
        )


@pytest.mark.parametrize("seconds", [301, -301])
def test_a_request_signed_too_long_ago_or_in_the_future_is_refused(world: World, seconds: int) -> None:
    signed = world.request(world.grant())
    world.clock.advance(seconds)
    with pytest.raises(StaleRequestError):
        world.custodian.releases.release(signed)
    assert world.states() == []


def test_a_replayed_request_gets_no_answer_and_no_new_access(world: World) -> None:
    signed = world.request(world.grant())
    world.custodian.releases.release(signed)
    for _ in range(2):
        with pytest.raises(ReplayedRequestError):
            world.custodian.releases.release(signed)
    assert len(world.logged()) == 1
    assert world.states() == [RELEASED]


def test_a_replayed_request_that_was_refused_stays_out(world: World) -> None:
    signed = world.request(world.grant(), purpose="account-review")
    with pytest.raises(PurposeMismatchError):
        world.custodian.releases.release(signed)
    with pytest.raises(ReplayedRequestError):
        world.custodian.releases.release(signed)
    assert world.states() == [REFUSED]


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
    message = world.request(consent)
    bank = world.institution.institution_id
    world.custodian.registry.suspend(INSTITUTION, bank, suspended=True)
    with pytest.raises(InstitutionSuspendedError):
        world.custodian.releases.release(message)
    assert world.logged() == []
    assert world.states() == []
    world.custodian.registry.suspend(INSTITUTION, bank, suspended=False)
    assert world.custodian.releases.release(message).sealed


# ---------------------------------------------------------------------------------------------- more than was consented


def test_a_consent_of_another_institution_gives_nothing_and_is_seen_by_the_person(world: World) -> None:
    consent = world.grant()
    thief = world.another_institution()
    with pytest.raises(WrongInstitutionError):
        world.custodian.releases.release(thief.request(world.custodian, consent))
    assert world.custodian.releases.log_refusals() == 1
    assert world.logged() == []
    assert len(world.logged("AccessRefused")) == 1


def test_another_institution_does_not_learn_what_became_of_a_consent(world: World) -> None:
    """Whatever it is by now, whoever it was never given to is told the same of it."""
    thief = world.another_institution()
    standing, paused, revoked, lost = (world.grant() for _ in range(4))
    world.subject.pause(world.custodian, paused)
    world.subject.revoke(world.custodian, revoked)
    world.subject.revoke_directly(world.chain, world.grant_of(lost))
    for consent in (standing, paused, revoked, lost):
        with pytest.raises(WrongInstitutionError):
            world.custodian.releases.release(thief.request(world.custodian, consent))
    world.chain.down = True
    with pytest.raises(WrongInstitutionError):
        world.custodian.releases.release(thief.request(world.custodian, standing))


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
    world.custodian.disputes.open(subject_id, "credit_amount", "It was less.")
    with pytest.raises(DisputedError):
        world.ask(consent)
    assert world.states() == [REFUSED]
    assert world.ask(consent, attributes=("savings",)).sealed
    world.custodian.disputes.withdraw(subject_id, "credit_amount")
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
