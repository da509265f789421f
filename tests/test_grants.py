"""Grants, revocations, pauses and amendments: only the subject's own signature over exactly this counts (P4, P5)."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from actors import DAY, Subject, World, id_of
from eth_abi.exceptions import ValueOutOfBounds
from eth_account import Account
from eth_account.messages import encode_defunct
from eth_account.signers.local import LocalAccount
from simulator import SimulatedChain
from sqlalchemy import Connection, select

from ledger.chain import Receipt
from ledger.commit import Finality
from ledger.consent import MAX_COUNT, MAX_TIME, NO_ADDRESS, ZERO32, Address, ConsentGrant, Domain, Hex32, Reason, State
from ledger.contract import grant_call, pause_call
from ledger.errors import (
    CeilingExceededError,
    ChainError,
    ChainUnavailableError,
    ConfirmationTimeoutError,
    ConflictError,
    ConsentAlreadyGrantedError,
    ConsentAlreadyRevokedError,
    ConsentNotGrantedError,
    ConsentRevokedError,
    ContractMissingError,
    CustodianMissingError,
    EmptyBatchError,
    ForeignGrantError,
    InvalidSignatureError,
    InvalidWindowError,
    LedgerError,
    MalformedError,
    MixedSubjectsError,
    NoAccessAllowedError,
    NotFoundError,
    RequestError,
    StalePauseSequenceError,
    StoreUnavailableError,
    UnknownAttributeError,
    UnknownPurposeError,
)
from ledger.exchange import verify_claims
from ledger.grants import MOST_AT_ONCE, at_once
from ledger.journal import Act
from ledger.locks import FileLock
from ledger.relay import GAS_BASE, GAS_PER_CONSENT
from ledger.store import events, meta
from ledger.typed_data import (
    consent_id_of,
    grant_typed_data,
    outer_of,
    pause_typed_data,
    revocation_typed_data,
    sign_typed_data,
)

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


class Killed(BaseException):
    """What a process does not survive."""


def die() -> None:
    raise Killed


def require_nothing_written(world: World) -> None:
    assert world.custodian.registry.consents() == []
    assert world.custodian.journal.pending_acts() == []
    assert world.chain.state.consents == {}


def status(world: World, consent: Hex32) -> Reason:
    return world.chain.statuses([consent], world.custodian.address)[0]


# -------------------------------------------------------------------------------------------------------- the happy way


def test_a_signed_grant_stands_on_chain_and_here(world: World) -> None:
    consent = world.grant()
    stored = world.custodian.registry.consent(consent)
    assert stored.standing
    assert status(world, consent) is Reason.NONE
    assert consent == id_of(stored.grant, world.chain)


def test_the_chain_learns_nothing_of_the_terms(world: World) -> None:
    world.grant()
    sent = b"".join(world.chain.sent)
    for secret in (b"bank-1", b"First Bank", b"loan-origination", b"credit_amount"):
        assert secret not in sent


def test_the_receipt_of_a_grant_holds_what_was_signed(world: World) -> None:
    consent = world.grant()
    claims = verify_claims(
        world.custodian.grants.receipt(consent), world.custodian.accounts.signing_key, "consent-receipt+jwt"
    )
    assert claims["grant"] == world.grant_of(consent).as_json()
    assert claims["standing"] is True
    world.subject.revoke(world.custodian, consent)
    claims = verify_claims(
        world.custodian.grants.receipt(consent), world.custodian.accounts.signing_key, "consent-receipt+jwt"
    )
    assert claims["revokedAt"] == world.clock.now


def test_granting_again_says_that_it_stands(world: World) -> None:
    grant = world.subject.draft(world.custodian, world.institution)
    world.subject.hand_in(world.custodian, grant)
    with pytest.raises(ConsentAlreadyGrantedError):
        world.subject.hand_in(world.custodian, grant)


def test_a_revoked_grant_never_comes_back(world: World) -> None:
    grant = world.subject.draft(world.custodian, world.institution)
    consent = world.subject.hand_in(world.custodian, grant)
    world.subject.revoke(world.custodian, consent)
    with pytest.raises(ConsentAlreadyRevokedError):
        world.subject.hand_in(world.custodian, grant)
    assert status(world, consent) is Reason.REVOKED


def test_one_signature_revokes_many(world: World) -> None:
    consents = [world.grant() for _ in range(3)]
    world.subject.revoke(world.custodian, *consents)
    assert [status(world, consent) for consent in consents] == [Reason.REVOKED] * 3


def test_revoking_twice_is_revoking_once(world: World) -> None:
    consent = world.grant()
    first = world.subject.revoke(world.custodian, consent)
    world.clock.advance(60)
    world.subject.revoke(world.custodian, consent)
    assert world.custodian.registry.consent(consent).revoked_at == first.stored_at
    assert sum(event.name == "ConsentRevoked" for event in world.chain.all_events()) == 1


def test_an_old_pause_or_resume_says_nothing_new(world: World) -> None:
    consent = world.grant()
    world.subject.pause(world.custodian, consent, sequence=5)
    for sequence in (5, 4, 0):
        with pytest.raises(StalePauseSequenceError):
            world.subject.pause(world.custodian, consent, paused=False, sequence=sequence)
    assert status(world, consent) is Reason.PAUSED
    world.subject.pause(world.custodian, consent, paused=False, sequence=6)
    assert status(world, consent) is Reason.NONE


def test_after_the_highest_sequence_on_chain_no_pause_or_resume_can_be_asked_for_and_a_revocation_can(
    world: World,
) -> None:
    consent = world.grant()
    world.subject.pause_directly(world.chain, world.grant_of(consent), paused=True, sequence=MAX_COUNT - 1)
    world.custodian.sync()
    assert world.custodian.grants.next_pause(consent) == MAX_COUNT
    world.subject.pause_directly(world.chain, world.grant_of(consent), paused=True, sequence=MAX_COUNT)
    world.custodian.sync()
    with pytest.raises(StalePauseSequenceError, match="highest"):
        world.custodian.grants.next_pause(consent)
    with pytest.raises(StalePauseSequenceError):
        world.subject.pause(world.custodian, consent, paused=False, sequence=MAX_COUNT)
    world.subject.revoke(world.custodian, consent)
    assert world.chain.statuses([consent], world.custodian.address) == [Reason.REVOKED]


def test_a_revoked_consent_is_not_paused_or_resumed(world: World) -> None:
    consent = world.grant()
    world.subject.revoke(world.custodian, consent)
    with pytest.raises(ConsentAlreadyRevokedError):
        world.subject.pause(world.custodian, consent, paused=False)


@pytest.mark.parametrize("is_smart", [False, True])
def test_a_grant_that_somebody_relayed_before_is_taken_for_what_it_is_whatever_account_signed(
    world: World, is_smart: bool
) -> None:
    person = Subject("relayed")
    person.furnish(world.custodian)
    grant = person.draft(world.custodian, world.institution)
    signature = person.sign(world.custodian, grant)
    if is_smart:
        signature = b"open sesame"
        world.chain.smart_accounts[person.address] = lambda _, signed: signed == signature
    world.chain.transact(Account.create(), grant_call(outer_of(grant), signature))
    consent = person.hand_in(world.custodian, grant, signature)
    assert world.custodian.registry.consent(consent).standing
    assert world.ask(consent).sealed


@pytest.mark.parametrize("is_smart", [False, True])
def test_a_pause_of_a_grant_that_is_on_its_way_is_taken_whatever_account_signed(world: World, is_smart: bool) -> None:
    person = Subject("waiting")
    person.furnish(world.custodian)
    grant = person.draft(world.custodian, world.institution)
    signature = person.sign(world.custodian, grant)
    if is_smart:
        signature = b"open sesame"
        world.chain.smart_accounts[person.address] = lambda _, signed: signed == signature
    world.steps.at("grant durable", die)
    with pytest.raises(Killed):
        person.hand_in(world.custodian, grant, signature)
    consent = world.custodian.grants.id_of(grant)
    payload = pause_typed_data(consent, paused=True, sequence=1, domain=world.chain.domain)
    signed = signature if is_smart else sign_typed_data(payload, person.key)
    assert world.custodian.grants.set_paused(consent, paused=True, sequence=1, signature=signed).receipt is None
    assert world.custodian.sync().relayed == 2
    assert status(world, consent) is Reason.PAUSED


def test_a_smart_account_grants_and_revokes_by_its_own_rule(world: World) -> None:
    wallet = Subject("wallet")
    wallet.furnish(world.custodian)
    world.chain.smart_accounts[wallet.address] = lambda _, signature: signature == b"open sesame"
    grant = wallet.draft(world.custodian, world.institution)
    with pytest.raises(InvalidSignatureError):
        wallet.hand_in(world.custodian, grant, b"open barley")
    consent = wallet.hand_in(world.custodian, grant, b"open sesame")
    with pytest.raises(InvalidSignatureError):
        world.custodian.grants.revoke([consent], b"open barley")
    world.custodian.grants.revoke([consent], b"open sesame")
    assert status(world, consent) is Reason.REVOKED


# -------------------------------------------------------------------------------- signatures that are not the subject's


def by_another_key(world: World, grant: ConsentGrant) -> bytes:
    return Subject().sign(world.custodian, grant)


def over_another_grant(world: World, grant: ConsentGrant) -> bytes:
    return world.subject.sign(world.custodian, replace(grant, max_accesses=grant.max_accesses - 1))


def over_other_terms(world: World, grant: ConsentGrant) -> bytes:
    terms = replace(grant.terms, attributes=("credit_amount",))
    return world.subject.sign(world.custodian, replace(grant, terms=terms))


def for_another_chain(world: World, grant: ConsentGrant) -> bytes:
    domain = replace(world.chain.domain, chain_id=1)
    return sign_typed_data(grant_typed_data(grant, domain), world.subject.key)


def for_another_contract(world: World, grant: ConsentGrant) -> bytes:
    domain = Domain(chain_id=world.chain.domain.chain_id, contract=Address(Account.create().address))
    return sign_typed_data(grant_typed_data(grant, domain), world.subject.key)


def with_high_s(world: World, grant: ConsentGrant) -> bytes:
    signed = world.subject.sign(world.custodian, grant)
    s = ORDER - int.from_bytes(signed[32:64])
    return signed[:32] + s.to_bytes(32) + bytes([27 + 28 - signed[64]])


def with_v_of_zero_or_one(world: World, grant: ConsentGrant) -> bytes:
    signed = world.subject.sign(world.custodian, grant)
    return signed[:64] + bytes([signed[64] - 27])


def one_byte_short(world: World, grant: ConsentGrant) -> bytes:
    return world.subject.sign(world.custodian, grant)[:-1]


def one_byte_long(world: World, grant: ConsentGrant) -> bytes:
    return world.subject.sign(world.custodian, grant) + b"\x00"


def compact(world: World, grant: ConsentGrant) -> bytes:
    """EIP-2098: 64 bytes, a second form of the same signature."""
    signed = world.subject.sign(world.custodian, grant)
    packed = int.from_bytes(signed[32:64]) | (signed[64] - 27) << 255
    return signed[:32] + packed.to_bytes(32)


def zeros(world: World, grant: ConsentGrant) -> bytes:
    return bytes(64) + b"\x1b"


def empty(world: World, grant: ConsentGrant) -> bytes:
    return b""


def r_out_of_range(world: World, grant: ConsentGrant) -> bytes:
    signed = world.subject.sign(world.custodian, grant)
    return b"\xff" * 32 + signed[32:]


def a_personal_message(world: World, grant: ConsentGrant) -> bytes:
    """The same 32 bytes, signed as a message (EIP-191) instead of as typed data."""
    digest = bytes.fromhex(id_of(grant, world.chain)[2:])
    return bytes(Account.sign_message(encode_defunct(digest), world.subject.key).signature)


FORGERIES = [
    by_another_key,
    over_another_grant,
    over_other_terms,
    for_another_chain,
    for_another_contract,
    with_high_s,
    with_v_of_zero_or_one,
    one_byte_short,
    one_byte_long,
    compact,
    zeros,
    empty,
    r_out_of_range,
    a_personal_message,
]


@pytest.mark.parametrize("forge", FORGERIES)
def test_a_grant_without_the_subjects_signature_over_exactly_it_leaves_nothing(
    world: World, forge: Callable[[World, ConsentGrant], bytes]
) -> None:
    grant = world.subject.draft(world.custodian, world.institution)
    with pytest.raises(InvalidSignatureError):
        world.subject.hand_in(world.custodian, grant, forge(world, grant))
    require_nothing_written(world)
    assert world.subject.hand_in(world.custodian, grant)


@pytest.mark.parametrize("forge", FORGERIES)
def test_the_simulated_contract_refuses_what_the_custodian_refuses(
    world: World, forge: Callable[[World, ConsentGrant], bytes]
) -> None:
    """Else the simulator would be no judge of a custodian that forgot to look."""
    grant = world.subject.draft(world.custodian, world.institution)
    with pytest.raises(InvalidSignatureError):
        world.chain.simulate(world.custodian.address, grant_call(outer_of(grant), forge(world, grant)), gas=1_000_000)


def test_a_revocation_by_anyone_else_is_refused(world: World) -> None:
    consent = world.grant()
    with pytest.raises(InvalidSignatureError):
        world.custodian.grants.revoke([consent], Subject().revocation(world.custodian, consent))
    assert status(world, consent) is Reason.NONE
    assert world.custodian.registry.consent(consent).revoked_at is None


def test_a_revocation_of_some_is_no_revocation_of_others(world: World) -> None:
    first, second = world.grant(), world.grant()
    with pytest.raises(InvalidSignatureError):
        world.custodian.grants.revoke([first, second], world.subject.revocation(world.custodian, first))
    with pytest.raises(InvalidSignatureError):
        world.custodian.grants.revoke([second], world.subject.revocation(world.custodian, first))


def test_a_revocation_signed_for_another_chain_or_contract_is_refused(world: World) -> None:
    consent = world.grant()
    for domain in (
        replace(world.chain.domain, chain_id=1),
        replace(world.chain.domain, contract=Address(Account.create().address)),
    ):
        signature = sign_typed_data(revocation_typed_data([consent], domain), world.subject.key)
        with pytest.raises(InvalidSignatureError):
            world.custodian.grants.revoke([consent], signature)


def test_a_pause_signature_does_not_resume_and_a_resume_signature_does_not_pause(world: World) -> None:
    consent = world.grant()
    for paused in (True, False):
        payload = pause_typed_data(consent, paused=not paused, sequence=1, domain=world.chain.domain)
        signature = sign_typed_data(payload, world.subject.key)
        with pytest.raises(InvalidSignatureError):
            world.custodian.grants.set_paused(consent, paused=paused, sequence=1, signature=signature)


def test_consents_of_two_people_are_not_revoked_together(world: World) -> None:
    other = world.another_subject()
    ours, theirs = world.grant(), other.grant(world.custodian, world.institution)
    with pytest.raises(MixedSubjectsError):
        world.custodian.grants.revoke([ours, theirs], world.subject.revocation(world.custodian, ours, theirs))
    with pytest.raises(EmptyBatchError):
        world.custodian.grants.revoke([], b"")


def test_what_is_not_on_file_is_not_found(world: World) -> None:
    unknown = Hex32("0x" + "77" * 32)
    with pytest.raises(NotFoundError):
        world.subject.revoke(world.custodian, unknown)
    with pytest.raises(NotFoundError):
        world.subject.pause(world.custodian, unknown)
    with pytest.raises(NotFoundError):
        world.custodian.grants.revoke_as_custodian([unknown])


# ------------------------------------------------------------------------------------------ grants that no one may make


@pytest.mark.parametrize(
    ("changes", "terms", "error", "field"),
    [
        ({"max_accesses": 0}, {}, NoAccessAllowedError, "maxAccesses"),
        ({"max_accesses": -1}, {}, NoAccessAllowedError, "maxAccesses"),
        ({"max_accesses": MAX_COUNT + 1}, {}, NoAccessAllowedError, "maxAccesses"),
        ({"max_accesses": 4}, {}, CeilingExceededError, "maxAccesses"),
        ({}, {"accesses_per_day": 0}, NoAccessAllowedError, "terms.accessesPerDay"),
        ({"max_accesses": 2}, {"accesses_per_day": 3}, MalformedError, "accessesPerDay"),
        ({}, {"retention_days": -1}, MalformedError, "terms.retentionDays"),
        ({}, {"retention_days": 32}, CeilingExceededError, "retentionDays"),
        ({}, {"purpose": "curiosity"}, UnknownPurposeError, "purpose"),
        ({}, {"purpose": ""}, MalformedError, "terms.purpose"),
        ({}, {"attributes": ("shoe_size",)}, UnknownAttributeError, "attributes"),
        ({}, {"attributes": ()}, MalformedError, "attributes"),
        ({}, {"attributes": ("savings", "savings")}, MalformedError, "attributes"),
        ({}, {"attributes": ("telephone",)}, CeilingExceededError, "attributes"),
        ({}, {"salt": ZERO32}, MalformedError, "terms.salt"),
        ({}, {"institution": "nobody"}, NotFoundError, "institution"),
        ({}, {"institution_name": "Best Bank"}, ForeignGrantError, "terms.institutionName"),
        ({"custodian": NO_ADDRESS}, {}, CustodianMissingError, "custodian"),
        ({"custodian": Address("0x" + "11" * 20)}, {}, ForeignGrantError, "custodian"),
        ({"valid_from": -1}, {}, InvalidWindowError, "expiresAt"),
        ({"expires_at": 0}, {}, InvalidWindowError, "expiresAt"),
        ({"expires_at": MAX_TIME + 1}, {}, InvalidWindowError, "expiresAt"),
        ({"expires_at": MAX_TIME}, {}, CeilingExceededError, "expiresAt"),
        ({}, {"replaces": Hex32("0x" + "99" * 32)}, NotFoundError, "terms.replaces"),
    ],
)
def test_a_grant_that_must_not_be_is_refused_by_field_and_leaves_nothing(
    world: World, changes: dict[str, Any], terms: dict[str, Any], error: type[LedgerError], field: str
) -> None:
    draft = world.subject.draft(world.custodian, world.institution)
    grant = replace(draft, terms=replace(draft.terms, **terms), **changes)
    with pytest.raises(error) as caught:
        world.subject.hand_in(world.custodian, grant, signature_if_it_can_be(world, grant))
    assert caught.value.field == field
    require_nothing_written(world)


def signature_if_it_can_be(world: World, grant: ConsentGrant) -> bytes:
    """Signed properly where the format allows it: the refusal must not be for a signature."""
    try:
        return world.subject.sign(world.custodian, grant)
    except ValueOutOfBounds:
        return bytes(65)


def test_a_window_that_has_passed_is_refused(world: World) -> None:
    now = world.clock.now
    with pytest.raises(InvalidWindowError):
        world.grant(valid_from=now - 2 * DAY, expires_at=now)
    assert world.grant(valid_from=now - 2 * DAY, expires_at=now + 1)


def test_a_revocation_before_the_grant_leaves_nothing_of_the_grant(world: World) -> None:
    grant = world.subject.draft(world.custodian, world.institution)
    world.subject.revoke_directly(world.chain, grant)
    with pytest.raises(ConsentAlreadyRevokedError):
        world.subject.hand_in(world.custodian, grant)
    assert world.custodian.registry.consents() == []
    assert world.custodian.journal.pending_acts() == []


# ----------------------------------------------------------------------------------------------------------- amendments


def test_an_amendment_ends_the_consent_that_it_replaces(world: World) -> None:
    old = world.grant()
    new = world.grant(replaces=old, attributes=("savings",))
    assert (status(world, old), status(world, new)) == (Reason.REVOKED, Reason.NONE)
    with pytest.raises(ConsentRevokedError):
        world.ask(old)
    assert world.ask(new, attributes=("savings",)).sealed


def test_an_amendment_that_does_not_stand_ends_nothing(world: World) -> None:
    old = world.grant()
    draft = world.subject.draft(world.custodian, world.institution, replaces=old)
    world.chain.before("send", lambda: world.subject.revoke_directly(world.chain, draft))
    with pytest.raises(ConsentAlreadyRevokedError):
        world.subject.hand_in(world.custodian, draft)
    assert status(world, old) is Reason.NONE
    assert world.ask(old).sealed


def test_no_one_ends_the_consent_of_someone_else_by_an_amendment(world: World) -> None:
    theirs = world.another_subject().grant(world.custodian, world.institution)
    elsewhere = world.subject.grant(world.custodian, world.another_institution())
    for other in (theirs, elsewhere):
        with pytest.raises(NotFoundError):
            world.grant(replaces=other)
        assert status(world, other) is Reason.NONE


@pytest.mark.parametrize("step", ["grant durable", "act durable", "act sent", "revocation durable"])
def test_an_amendment_that_was_cut_off_is_finished_by_sync(world: World, step: str) -> None:
    old = world.grant()
    world.steps.at(step, die)
    draft = world.subject.draft(world.custodian, world.institution, replaces=old)
    with pytest.raises(Killed):
        world.subject.hand_in(world.custodian, draft)
    world.restart()
    world.custodian.sync()
    new = id_of(draft, world.chain)
    assert (status(world, old), status(world, new)) == (Reason.REVOKED, Reason.NONE)
    assert world.custodian.registry.consent(new).standing
    assert world.custodian.registry.consent(old).revoked_at is not None


def test_an_amendment_that_died_between_the_chain_and_the_database_is_finished_by_sync(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = world.grant()
    draft = world.subject.draft(world.custodian, world.institution, replaces=old)
    monkeypatch.setattr(world.custodian.grants, "_stand", lambda *_: die())
    with pytest.raises(Killed):
        world.subject.hand_in(world.custodian, draft)
    assert world.custodian.journal.pending_acts() == []
    world.restart()
    world.custodian.sync()
    assert status(world, old) is Reason.REVOKED
    assert world.custodian.registry.consent(id_of(draft, world.chain)).standing


def test_a_replaced_consent_names_the_one_that_ended_it(world: World) -> None:
    old = world.grant()
    assert world.custodian.registry.consent(old).replaced_by is None
    new = world.grant(replaces=old)
    assert world.custodian.registry.consent(old).replaced_by == new
    assert world.custodian.registry.consent(new).replaced_by is None


def test_a_consent_that_the_subject_ended_was_not_replaced_by_what_came_later(world: World) -> None:
    old = world.grant()
    draft = world.subject.draft(world.custodian, world.institution, replaces=old)
    world.subject.revoke(world.custodian, old)
    world.subject.hand_in(world.custodian, draft)
    assert world.custodian.registry.consent(old).replaced_by is None


@pytest.mark.parametrize("step", ["grant durable", "act durable", "act sent"])
def test_what_is_to_be_replaced_stays_usable_until_the_new_consent_stands(world: World, step: str) -> None:
    old = world.grant()
    draft = world.subject.draft(world.custodian, world.institution, replaces=old)
    world.steps.at(step, die)
    with pytest.raises(Killed):
        world.subject.hand_in(world.custodian, draft)
    world.restart()
    assert world.custodian.registry.consent(old).replaced_by is None
    assert world.ask(old).sealed
    world.custodian.sync()
    assert world.custodian.registry.consent(old).replaced_by == id_of(draft, world.chain)
    assert world.ask(id_of(draft, world.chain)).sealed


def test_no_database_that_a_kill_leaves_behind_has_a_replaced_consent_without_its_successor(world: World) -> None:
    """What is marked as revoked by an amendment says by which, in the same transaction."""
    old = world.grant()
    draft = world.subject.draft(world.custodian, world.institution, replaces=old)
    new = id_of(draft, world.chain)

    def revoked_at_last() -> None:
        stored = world.custodian.registry.consent(old)
        assert (stored.revoked_at is None) == (stored.replaced_by is None)
        if stored.revoked_at is None:
            world.steps.at("act durable", revoked_at_last)
        else:
            die()

    world.steps.at("act durable", revoked_at_last)
    with pytest.raises(Killed):
        world.subject.hand_in(world.custodian, draft)
    world.restart()
    assert (status(world, old), status(world, new)) == (Reason.NONE, Reason.NONE)
    assert not world.custodian.registry.consent(new).standing
    with pytest.raises(ConsentRevokedError):
        world.ask(old)
    world.custodian.sync()
    assert world.custodian.registry.consent(old).replaced_by == new
    assert world.custodian.registry.consent(new).standing
    assert (status(world, old), status(world, new)) == (Reason.REVOKED, Reason.NONE)


def test_an_amendment_while_the_chain_is_away_is_finished_by_sync(world: World) -> None:
    old = world.grant()
    draft = world.subject.draft(world.custodian, world.institution, replaces=old)
    world.chain.down = True
    with pytest.raises(ChainUnavailableError):
        world.subject.hand_in(world.custodian, draft)
    assert world.custodian.registry.consent(old).revoked_at is None
    world.chain.down = False
    world.custodian.sync()
    assert world.custodian.registry.consent(old).replaced_by == id_of(draft, world.chain)
    assert status(world, old) is Reason.REVOKED


def test_an_erasure_leaves_no_trace_of_what_replaced_what(world: World) -> None:
    old = world.grant()
    new = world.grant(replaces=old)
    world.custodian.eraser.erase(world.subject.ref)
    with world.custodian.store.read() as tx:
        rows = world.custodian.registry.rows(tx, [old, new])
        details = {row.consent_id: json.loads(row.details) for row in tx.execute(select(events))}
    assert {row.replaced_by for row in rows.values()} == {None}
    assert details == {old: {"by": "custodian"}, new: {"by": "custodian"}}
    assert f'"replacedBy": "{new}"'.encode() not in b"".join(
        path.read_bytes() for path in world.config.data.glob("ledger.db*")
    )


def test_an_erasure_leaves_what_others_replaced(world: World) -> None:
    other = world.another_subject()
    old = other.grant(world.custodian, world.institution)
    new = other.grant(world.custodian, world.institution, replaces=old)
    world.grant()
    world.custodian.eraser.erase(world.subject.ref)
    assert world.custodian.registry.consent(old).replaced_by == new
    with world.custodian.store.read() as tx:
        details = [json.loads(row.details) for row in tx.execute(select(events).where(events.c.consent_id == old))]
    assert details[-1] == {"by": "custodian", "replacedBy": new}


# ------------------------------------------------------------------------------ what goes on file together with a grant


def test_what_goes_on_file_with_a_grant_is_there_together_with_it_or_not_at_all(world: World) -> None:
    draft = world.subject.draft(world.custodian, world.institution)
    signature = world.subject.sign(world.custodian, draft)
    subject_id = world.custodian.vault.subject_of(world.subject.ref)

    def note(tx: Connection) -> None:
        tx.execute(meta.insert(), [{"key": "note", "value": "written"}])

    def note_and_refuse(tx: Connection) -> None:
        note(tx)
        raise ConflictError("request: answered meanwhile")

    def notes() -> int:
        with world.custodian.store.read() as tx:
            return len(tx.execute(select(meta).where(meta.c.key == "note")).all())

    with pytest.raises(ConflictError):
        world.custodian.grants.grant(draft, signature, subject_id, within=note_and_refuse)
    require_nothing_written(world)
    assert notes() == 0
    world.steps.at("grant durable", die)
    with pytest.raises(Killed):
        world.custodian.grants.grant(draft, signature, subject_id, within=note)
    assert notes() == 1
    # On file already, so it is not written again.
    assert world.custodian.grants.grant(draft, signature, subject_id, within=note).standing


def test_nothing_goes_on_file_with_a_grant_that_is_refused(world: World) -> None:
    draft = world.subject.draft(world.custodian, world.institution)
    subject_id = world.custodian.vault.subject_of(world.subject.ref)

    def unreachable(_: Connection) -> None:
        pytest.fail("a grant that is refused goes nowhere")

    with pytest.raises(InvalidSignatureError):
        world.custodian.grants.grant(draft, bytes(65), subject_id, within=unreachable)


# --------------------------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize("step", ["grant durable", "act durable", "act sent"])
@pytest.mark.parametrize("how", ["again", "sync"])
def test_a_grant_that_was_cut_off_is_finished(world: World, step: str, how: str) -> None:
    draft = world.subject.draft(world.custodian, world.institution)
    world.steps.at(step, die)
    with pytest.raises(Killed):
        world.subject.hand_in(world.custodian, draft)
    world.restart()
    if how == "again":
        world.subject.hand_in(world.custodian, draft)
    else:
        world.custodian.sync()
    consent = id_of(draft, world.chain)
    assert world.custodian.registry.consent(consent).standing
    assert world.ask(consent).sealed
    assert sum(event.name == "ConsentGranted" for event in world.chain.all_events()) == 1


@pytest.mark.parametrize("step", ["revocation durable", "act durable", "act sent"])
def test_a_revocation_that_was_cut_off_is_in_force_and_lands(world: World, step: str) -> None:
    consent = world.grant()
    world.steps.at(step, die)
    with pytest.raises(Killed):
        world.subject.revoke(world.custodian, consent)
    world.restart()
    with pytest.raises(ConsentRevokedError):
        world.ask(consent)
    world.custodian.sync()
    assert status(world, consent) is Reason.REVOKED
    assert world.custodian.journal.pending_acts() == []


def chain_is_down(chain: SimulatedChain) -> None:
    chain.down = True


def transaction_is_dropped(chain: SimulatedChain) -> None:
    chain.drop = 1


def reply_is_lost(chain: SimulatedChain) -> None:
    chain.lose_replies = 1


def nothing_is_mined(chain: SimulatedChain) -> None:
    chain.automine = False


FAULTS = [chain_is_down, transaction_is_dropped, reply_is_lost, nothing_is_mined]


def heal(chain: SimulatedChain) -> None:
    chain.down, chain.automine = False, True
    chain.mine()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_grant_in_a_fault_is_a_clear_error_and_the_next_try_stands(
    data: Path, first_state: World, fault: Callable[[SimulatedChain], None]
) -> None:
    world = World(data, finality=Finality(timeout=0.05), like=first_state)
    draft = world.subject.draft(world.custodian, world.institution)
    fault(world.chain)
    with pytest.raises(ChainError) as caught:
        world.subject.hand_in(world.custodian, draft)
    assert caught.value.code in ("chain_unavailable", "confirmation_timeout")
    heal(world.chain)
    assert world.subject.hand_in(world.custodian, draft) == id_of(draft, world.chain)
    assert world.ask(id_of(draft, world.chain)).sealed
    assert sum(event.name == "ConsentGranted" for event in world.chain.all_events()) == 1


@pytest.mark.parametrize("fault", FAULTS)
def test_a_revocation_in_a_fault_is_in_force_at_once_and_lands_later(
    data: Path, first_state: World, fault: Callable[[SimulatedChain], None]
) -> None:
    world = World(data, finality=Finality(timeout=0.05), like=first_state)
    consent = world.grant()
    fault(world.chain)
    result = world.subject.revoke(world.custodian, consent)
    assert result.receipt is None
    heal(world.chain)
    with pytest.raises(ConsentRevokedError):
        world.ask(consent)
    world.custodian.sync()
    assert status(world, consent) is Reason.REVOKED


@pytest.mark.parametrize("fault", FAULTS)
def test_a_pause_in_a_fault_is_in_force_at_once_and_a_resume_only_once_on_chain(
    data: Path, first_state: World, fault: Callable[[SimulatedChain], None]
) -> None:
    world = World(data, finality=Finality(timeout=0.05), like=first_state)
    consent = world.grant()
    fault(world.chain)
    assert world.subject.pause(world.custodian, consent).receipt is None
    assert world.custodian.registry.consent(consent).paused
    heal(world.chain)
    world.custodian.sync()
    assert status(world, consent) is Reason.PAUSED
    fault(world.chain)
    world.subject.pause(world.custodian, consent, paused=False, sequence=2)
    assert world.custodian.registry.consent(consent).paused
    heal(world.chain)
    world.custodian.sync()
    assert not world.custodian.registry.consent(consent).paused
    assert status(world, consent) is Reason.NONE


def test_a_pause_after_a_resume_that_the_chain_has_not_heard_yet_ends_as_a_pause(world: World) -> None:
    """Of two with one sequence the contract takes the first: the person's last word would never be heard."""
    consent, grants = world.grant(), world.custodian.grants
    world.subject.pause(world.custodian, consent, sequence=1)
    world.chain.down = True
    world.subject.pause(world.custodian, consent, paused=False, sequence=grants.next_pause(consent))
    with pytest.raises(StalePauseSequenceError, match=r"^sequence: expected at least 3, got 2$"):
        world.subject.pause(world.custodian, consent, sequence=2)
    assert grants.next_pause(consent) == 3
    world.subject.pause(world.custodian, consent, sequence=3)
    assert grants.next_pause(consent) == 4
    world.chain.down = False
    world.custodian.sync()
    assert world.custodian.journal.pending_acts() == []
    assert world.custodian.registry.consent(consent).paused
    assert status(world, consent) is Reason.PAUSED


def test_nothing_stands_on_a_chain_without_the_contract(world: World) -> None:
    """An account without code takes every call: a transaction that succeeds is no proof of anything."""
    before = world.grant()
    world.chain.restart_empty()
    draft = world.subject.draft(world.custodian, world.institution)
    with pytest.raises((ContractMissingError, ChainUnavailableError)):
        world.subject.hand_in(world.custodian, draft)
    assert world.subject.revoke(world.custodian, before).receipt is None
    assert not world.custodian.registry.consent(id_of(draft, world.chain)).standing
    world.chain.deploy()
    world.custodian.allow_writers()
    world.custodian.sync()
    assert world.ask(id_of(draft, world.chain)).sealed
    assert status(world, before) is Reason.REVOKED


def test_a_receipt_that_claims_a_grant_which_did_not_happen_makes_nothing_stand(data: Path, first_state: World) -> None:
    world = World(data, finality=Finality(timeout=0.05), like=first_state)
    draft = world.subject.draft(world.custodian, world.institution)
    world.chain.before("send", lambda: world.subject.revoke_directly(world.chain, draft))

    def lie(receipt: Receipt) -> Receipt:
        return replace(receipt, succeeded=True)

    world.chain.lie = lie
    with pytest.raises(ChainUnavailableError):
        world.subject.hand_in(world.custodian, draft)
    assert not world.custodian.registry.consent(id_of(draft, world.chain)).standing


def test_someone_else_relaying_the_same_grant_first_does_no_harm(world: World) -> None:
    draft = world.subject.draft(world.custodian, world.institution)
    calldata = grant_call(outer_of(draft), world.subject.sign(world.custodian, draft))
    stranger = Account.create()
    world.chain.before("send", lambda: world.chain.transact(stranger, calldata))
    consent = world.subject.hand_in(world.custodian, draft)
    assert world.ask(consent).sealed


def test_a_resume_that_a_newer_pause_overtook_is_not_taken_for_done(world: World) -> None:
    consent = world.grant()
    world.subject.pause(world.custodian, consent, sequence=1)
    grant = world.grant_of(consent)
    world.chain.before("send", lambda: world.subject.pause_directly(world.chain, grant, paused=True, sequence=9))
    with pytest.raises(StalePauseSequenceError):
        world.subject.pause(world.custodian, consent, paused=False, sequence=2)
    assert world.custodian.registry.consent(consent).paused
    world.custodian.sync()
    assert world.custodian.registry.consent(consent).pause_sequence == 9
    assert world.custodian.journal.pending_acts() == []


def test_a_revocation_never_waits_for_the_lane_of_accesses_or_grants(world: World) -> None:
    consent = world.grant()
    lanes = (world.custodian.accounts.grants.address, world.custodian.log.address)
    locks = [FileLock(world.config.locks / f"{lane}.lock") for lane in lanes]
    locks[0].acquire()
    assert world.subject.revoke(world.custodian, consent).receipt is not None
    locks[0].release()


def test_no_act_asks_for_more_gas_than_a_transaction_may_have(world: World) -> None:
    many = [Hex32(f"0x{number:064x}") for number in range(MOST_AT_ONCE + 1)]
    assert [len(part) for part in at_once(many)] == [MOST_AT_ONCE, 1]
    # EIP-7825.
    assert GAS_BASE + GAS_PER_CONSENT * MOST_AT_ONCE <= 2**24
    with pytest.raises(MalformedError) as refused:
        world.custodian.grants.revoke(many, b"\x00" * 65)
    assert refused.value.field == "consents"


@pytest.fixture
def hurried(data: Path, first_state: World) -> World:
    """A world in which nobody waits long for a lane."""
    return World(data, finality=Finality(timeout=0.05), like=first_state)


def taken(world: World, lane: LocalAccount) -> AbstractContextManager[None]:
    """Another process has that lane, for the length of a block."""
    return FileLock(world.config.locks / f"{lane.address}.lock").hold(timeout=1)


def test_a_revocation_whose_lane_is_busy_is_in_force_all_the_same(hurried: World) -> None:
    consent = hurried.grant()
    with taken(hurried, hurried.custodian.accounts.revocations):
        assert hurried.subject.revoke(hurried.custodian, consent).receipt is None
    with pytest.raises(ConsentRevokedError):
        hurried.ask(consent)
    hurried.custodian.sync()
    assert status(hurried, consent) is Reason.REVOKED


def test_a_revocation_whose_lane_is_busy_during_sync_too_is_relayed_by_the_next_one(hurried: World) -> None:
    first, second = hurried.grant(), hurried.grant()
    with taken(hurried, hurried.custodian.accounts.revocations):
        for consent in (first, second):
            hurried.subject.revoke(hurried.custodian, consent)
        report = hurried.custodian.sync()
        assert (report.waiting, report.relayed, report.refused_by_contract) == (2, 0, 0)
    assert hurried.custodian.sync().relayed == 2
    assert [status(hurried, consent) for consent in (first, second)] == [Reason.REVOKED] * 2


def test_what_waits_for_a_busy_lane_is_not_overtaken_by_what_builds_on_it(hurried: World) -> None:
    draft = hurried.subject.draft(hurried.custodian, hurried.institution)
    consent_id = hurried.custodian.grants.id_of(draft)
    with taken(hurried, hurried.custodian.accounts.grants):
        with pytest.raises(StoreUnavailableError):
            hurried.subject.hand_in(hurried.custodian, draft)
        hurried.custodian.grants.revoke_as_custodian([consent_id])
        assert hurried.custodian.sync().waiting == 2
    hurried.custodian.sync()
    assert status(hurried, consent_id) is Reason.REVOKED


def test_a_grant_whose_lane_is_busy_stands_at_the_next_try(hurried: World) -> None:
    draft = hurried.subject.draft(hurried.custodian, hurried.institution)
    with taken(hurried, hurried.custodian.accounts.grants):
        for _ in range(2):
            with pytest.raises(StoreUnavailableError):
                hurried.subject.hand_in(hurried.custodian, draft)
    assert hurried.ask(hurried.subject.hand_in(hurried.custodian, draft)).sealed


def test_a_grant_handed_in_again_while_another_process_sends_it_keeps_its_place(hurried: World) -> None:
    draft = hurried.subject.draft(hurried.custodian, hurried.institution)
    other = hurried.open()

    def again() -> None:
        with pytest.raises(StoreUnavailableError):
            hurried.subject.hand_in(other, draft)

    hurried.steps.at("act sent", again)
    assert hurried.ask(hurried.subject.hand_in(hurried.custodian, draft)).sealed


def test_an_act_that_another_process_brings_on_chain_first_is_not_sent_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft, other = world.subject.draft(world.custodian, world.institution), world.open()
    read = world.custodian.journal.act

    def overtaken(act_id: str) -> Act:
        act = read(act_id)
        monkeypatch.undo()
        other.relay.relay(act_id)
        return act

    monkeypatch.setattr(world.custodian.journal, "act", overtaken)
    sent = len(world.chain.sent)
    assert world.ask(world.subject.hand_in(world.custodian, draft)).sealed
    # The grant, and the access.
    assert len(world.chain.sent) == sent + 2
    other.close()


def test_a_grant_on_chain_whose_place_could_not_be_put_on_file_is_found_there(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = world.subject.draft(world.custodian, world.institution)

    def busy(*_: object) -> None:
        raise StoreUnavailableError("the database is busy")

    monkeypatch.setattr(world.custodian.journal, "anchor_act", busy)
    with pytest.raises(StoreUnavailableError):
        world.subject.hand_in(world.custodian, draft)
    monkeypatch.undo()
    assert status(world, world.custodian.grants.id_of(draft)) is Reason.NONE
    world.custodian.sync()
    assert world.ask(world.custodian.grants.id_of(draft)).sealed


def test_what_the_contract_refuses_of_an_act_that_another_process_brought_on_chain_undoes_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = world.subject.draft(world.custodian, world.institution)
    relay = world.custodian.grants._relay.relay

    def after_the_other(act_id: str) -> Receipt:
        relay(act_id)
        raise InvalidSignatureError("a smart account that says otherwise by now")

    monkeypatch.setattr(world.custodian.grants._relay, "relay", after_the_other)
    with pytest.raises(InvalidSignatureError):
        world.subject.hand_in(world.custodian, draft)
    monkeypatch.undo()
    world.custodian.sync()
    assert world.ask(world.custodian.grants.id_of(draft)).sealed


def test_many_grants_at_once_all_stand(world: World) -> None:
    subjects = [world.another_subject() for _ in range(10)]
    with ThreadPoolExecutor(10) as pool:
        consents = list(pool.map(lambda each: each.grant(world.custodian, world.institution), subjects))
    assert world.chain.statuses(consents, world.custodian.address) == [Reason.NONE] * 10


def test_one_grant_handed_in_ten_times_at_once_is_granted_once(world: World) -> None:
    draft = world.subject.draft(world.custodian, world.institution)
    signature = world.subject.sign(world.custodian, draft)

    def hand_in(_: int) -> str:
        try:
            world.subject.hand_in(world.custodian, draft, signature)
        except RequestError as exc:
            return exc.code
        return "granted"

    with ThreadPoolExecutor(10) as pool:
        outcomes = set(pool.map(hand_in, range(10)))
    assert "granted" in outcomes
    assert outcomes <= {"granted", "already_granted", "already_exists"}
    assert sum(event.name == "ConsentGranted" for event in world.chain.all_events()) == 1
    assert len(world.custodian.registry.consents()) == 1


# ------------------------------------------------------------------------------------------------ the custodian's right


def test_the_custodian_narrows_and_the_contract_lets_it(world: World) -> None:
    consent = world.grant()
    world.custodian.grants.revoke_as_custodian([consent])
    assert status(world, consent) is Reason.REVOKED


def test_the_custodian_cannot_grant_widen_or_resume(world: World) -> None:
    """P5 on the contract's side: none of the custodian's accounts gets such a call through."""
    consent = world.grant()
    grant = world.grant_of(consent)
    world.subject.pause(world.custodian, consent)
    wider = replace(grant, max_accesses=100)
    for account in world.custodian.accounts.every():
        sender, key = Address(account.address), bytes(account.key)
        forged = sign_typed_data(grant_typed_data(wider, world.chain.domain), key)
        with pytest.raises(InvalidSignatureError):
            world.chain.simulate(sender, grant_call(outer_of(wider), forged), gas=1_000_000)
        resume = pause_typed_data(consent, paused=False, sequence=2, domain=world.chain.domain)
        forged = sign_typed_data(resume, key)
        with pytest.raises(InvalidSignatureError):
            world.chain.simulate(
                sender, pause_call(outer_of(grant), paused=False, sequence=2, signature=forged), gas=1_000_000
            )
    assert world.chain.consent(consent).state is State.PAUSED
    assert consent_id_of(wider, world.chain.domain) != consent


def test_a_pause_of_what_is_not_on_chain_yet_waits_for_it(world: World) -> None:
    draft = world.subject.draft(world.custodian, world.institution)
    world.steps.at("grant durable", die)
    with pytest.raises(Killed):
        world.subject.hand_in(world.custodian, draft)
    consent = id_of(draft, world.chain)
    with pytest.raises(ConsentNotGrantedError):
        world.ask(consent)
    world.custodian.grants.revoke_as_custodian([consent])
    world.custodian.sync()
    assert status(world, consent) is Reason.REVOKED
    assert world.custodian.journal.pending_acts() == []


def test_a_timeout_is_told_from_a_refusal(data: Path, first_state: World) -> None:
    world = World(data, finality=Finality(timeout=0.05), like=first_state)
    world.chain.automine = False
    with pytest.raises(ConfirmationTimeoutError):
        world.grant()
