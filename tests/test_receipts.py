"""Receipts of grants and revocations and proofs of erasure: checked without any network, and found out when altered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from actors import NOON, World

from ledger import receipts
from ledger.consent import Domain, Hex32
from ledger.errors import AuditError, ErasedError, NotFoundError
from ledger.exchange import new_institution_keys, sign_claims, verify_claims
from ledger.receipts import GRANT_TYPE, REVOCATION_TYPE, type_of, verify_erasure, verify_grant, verify_revocation

OTHER32 = Hex32("0x" + "ab" * 32)
OTHER_ADDRESS = "0x" + "12" * 20


def granted(world: World, consent: Hex32) -> receipts.VerifiedGrant:
    key = world.custodian.accounts.signing_key
    return verify_grant(world.custodian.grants.receipt(consent), key, domain=world.chain.domain)


def revoked(world: World, consent: Hex32) -> receipts.VerifiedRevocation:
    key = world.custodian.accounts.signing_key
    return verify_revocation(world.custodian.grants.revocation_receipt(consent), key, domain=world.chain.domain)


def altered(world: World, token: str, claim: str, value: object) -> str:
    """As a custodian would sign it that signs whatever it likes."""
    key = world.custodian.accounts.signing_key
    claims: Any = verify_claims(token, key, type_of(token))
    *path, name = claim.split(".")
    inner = claims
    for step in path:
        inner = inner[step]
    assert inner[name] != value
    inner[name] = value
    return sign_claims(claims, key, type_of(token))


def without(world: World, token: str, name: str) -> str:
    key = world.custodian.accounts.signing_key
    claims = verify_claims(token, key, type_of(token))
    del claims[name]
    return sign_claims(claims, key, type_of(token))


# --------------------------------------------------------------------------------------------------------------- grants


def test_a_grants_receipt_holds_by_itself(world: World) -> None:
    consent = world.grant()
    found = granted(world, consent)
    assert (found.consent_id, found.grant, found.standing, found.revoked_at, found.issued_at) == (
        consent,
        world.grant_of(consent),
        True,
        None,
        NOON,
    )
    assert found.transaction_hash is not None
    assert world.chain.receipt(found.transaction_hash) is not None


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        ("consent", OTHER32),
        ("grant.terms.institution", "bank-2"),
        ("grant.terms.attributes", ["credit_amount", "savings", "age"]),
        ("grant.terms.salt", OTHER32),
        ("grant.maxAccesses", 30),
        ("grant.subject", OTHER_ADDRESS),
        ("grant.custodian", OTHER_ADDRESS),
        ("grant.expiresAt", NOON * 2),
        ("grant.terms", None),
        ("grant", []),
        ("signature", "0x" + "11" * 65),
        ("signature", ""),
        ("signature", "no hex"),
        ("signature", None),
        ("domain", None),
        ("domain.chainId", 1),
        ("domain.verifyingContract", OTHER_ADDRESS),
        ("iss", OTHER_ADDRESS),
        ("version", 2),
        ("standing", "yes"),
        ("transactionHash", "latest"),
        ("revokedAt", "now"),
    ],
)
def test_a_custodian_that_signs_another_grant_is_found_out(world: World, claim: str, value: object) -> None:
    token = altered(world, world.custodian.grants.receipt(world.grant()), claim, value)
    with pytest.raises(AuditError):
        verify_grant(token, world.custodian.accounts.signing_key, domain=world.chain.domain)


def test_a_receipt_of_someone_elses_or_of_another_kind_or_chain_is_worth_nothing(world: World) -> None:
    consent = world.grant()
    token, key = world.custodian.grants.receipt(consent), world.custodian.accounts.signing_key
    foreign: Any = new_institution_keys().keys[0]
    elsewhere = Domain(chain_id=1, contract=world.chain.domain.contract)
    acts: list[Callable[[], object]] = [
        lambda: verify_grant(token, foreign, domain=world.chain.domain),
        lambda: verify_grant(token, key, domain=elsewhere),
        lambda: verify_revocation(token, key, domain=world.chain.domain),
        lambda: verify_erasure(token, key),
        lambda: verify_grant("", key, domain=world.chain.domain),
        lambda: verify_grant(token[:-4] + "AAAA", key, domain=world.chain.domain),
        lambda: verify_grant(world.ask(consent).receipt, key, domain=world.chain.domain),
    ]
    for act in acts:
        with pytest.raises(AuditError):
            act()


@pytest.mark.parametrize("name", ["consent", "grant", "signature", "domain", "iat", "standing", "revokedAt", "version"])
def test_a_receipt_that_leaves_something_out_does_not_hold(world: World, name: str) -> None:
    token = without(world, world.custodian.grants.receipt(world.grant()), name)
    with pytest.raises(AuditError):
        verify_grant(token, world.custodian.accounts.signing_key, domain=world.chain.domain)


# ---------------------------------------------------------------------------------------------------------- revocations


def test_a_revocations_receipt_shows_the_persons_signature_and_the_place_on_chain(world: World) -> None:
    first, second = world.grant(), world.grant()
    world.clock.advance(60)
    result = world.subject.revoke(world.custodian, first, second)
    assert result.receipt is not None
    for consent in (first, second):
        found = revoked(world, consent)
        assert found.consent_ids == (first, second)
        assert (found.by, found.by_subject, found.stored_at) == ("subject", True, NOON + 60)
        assert (found.transaction_hash, found.block_number) == (
            result.receipt.transaction_hash,
            result.receipt.block_number,
        )


def test_a_revocation_that_waits_for_the_chain_says_so_and_gets_its_place_later(world: World) -> None:
    consent = world.grant()
    world.chain.down = True
    world.subject.revoke(world.custodian, consent)
    waiting = revoked(world, consent)
    assert (waiting.by_subject, waiting.block_number) == (True, None)
    world.chain.down = False
    world.custodian.sync()
    assert revoked(world, consent).block_number is not None


def test_the_first_revocation_is_the_one_that_counts(world: World) -> None:
    consent = world.grant()
    world.subject.revoke(world.custodian, consent)
    world.clock.advance(60)
    world.custodian.grants.revoke_as_custodian([consent])
    found = revoked(world, consent)
    assert (found.by, found.by_subject, found.stored_at) == ("subject", True, NOON)


def test_a_revocation_by_the_custodian_or_on_chain_does_not_pretend_to_be_signed(world: World) -> None:
    stopped, direct = world.grant(), world.grant()
    world.custodian.grants.revoke_as_custodian([stopped])
    world.subject.revoke_directly(world.chain, world.grant_of(direct))
    world.custodian.sync()
    by_custodian, by_chain = revoked(world, stopped), revoked(world, direct)
    assert (by_custodian.by, by_custodian.by_subject) == ("custodian", False)
    assert (by_chain.by, by_chain.by_subject, by_chain.transaction_hash) == ("chain", False, None)


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        ("consents", [OTHER32]),
        ("consents", []),
        ("consents", "x"),
        ("subject", OTHER_ADDRESS),
        ("signature", "0x" + "11" * 65),
        ("domain.chainId", 1),
        ("storedAt", -1),
        ("by", 7),
        ("version", "1"),
    ],
)
def test_a_custodian_that_signs_another_revocation_is_found_out(world: World, claim: str, value: object) -> None:
    consent = world.grant()
    world.subject.revoke(world.custodian, consent)
    token = altered(world, world.custodian.grants.revocation_receipt(consent), claim, value)
    with pytest.raises(AuditError):
        verify_revocation(token, world.custodian.accounts.signing_key, domain=world.chain.domain)


def test_without_the_signature_it_is_no_longer_said_to_be_the_persons(world: World) -> None:
    consent = world.grant()
    world.subject.revoke(world.custodian, consent)
    token = altered(world, world.custodian.grants.revocation_receipt(consent), "signature", None)
    found = verify_revocation(token, world.custodian.accounts.signing_key, domain=world.chain.domain)
    assert not found.by_subject


def test_what_is_not_revoked_has_no_such_receipt(world: World) -> None:
    consent = world.grant()
    for one in (consent, OTHER32):
        with pytest.raises(NotFoundError):
            world.custodian.grants.revocation_receipt(one)
    world.subject.revoke(world.custodian, consent)
    world.custodian.eraser.erase(world.subject.ref)
    with pytest.raises(ErasedError):
        world.custodian.grants.revocation_receipt(consent)


# -------------------------------------------------------------------------------------------------------------- erasure


def test_a_proof_of_erasure_holds_and_names_no_one(world: World) -> None:
    world.ask(world.grant())
    proof = world.custodian.eraser.erase(world.subject.ref).proof
    found = verify_erasure(proof, world.custodian.accounts.signing_key)
    assert found.custodian == world.custodian.address
    assert found.erased_at == NOON
    assert found.destroyed["envelopesDestroyed"] == 3
    assert set(found.destroyed) == set(receipts.COUNTED)


@pytest.mark.parametrize(
    ("claim", "value"), [("iat", None), ("envelopesDestroyed", -1), ("envelopesDestroyed", True), ("version", 2)]
)
def test_a_proof_of_another_form_does_not_hold(world: World, claim: str, value: object) -> None:
    token = altered(world, world.custodian.eraser.erase(world.subject.ref).proof, claim, value)
    with pytest.raises(AuditError):
        verify_erasure(token, world.custodian.accounts.signing_key)


def test_a_proof_that_names_someone_is_none(world: World) -> None:
    key = world.custodian.accounts.signing_key
    proof = world.custodian.eraser.erase(world.subject.ref).proof
    claims = verify_claims(proof, key, receipts.ERASURE_TYPE) | {"subject": world.subject.ref}
    with pytest.raises(AuditError):
        verify_erasure(sign_claims(claims, key, receipts.ERASURE_TYPE), key)


def test_a_token_says_what_it_is(world: World) -> None:
    consent = world.grant()
    assert type_of(world.custodian.grants.receipt(consent)) == GRANT_TYPE
    world.subject.revoke(world.custodian, consent)
    assert type_of(world.custodian.grants.revocation_receipt(consent)) == REVOCATION_TYPE
    for token in ("", "x", "e30.e30.e30", "[]", "AAAA.AAAA", "bnVsbA.x"):
        assert type_of(token) == ""
