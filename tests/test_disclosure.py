"""Disclosures: an auditor believes nothing in them that does not check, and finds what a custodian did wrong."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final, cast

import pytest
from actors import DAY, NOON, Institution, Subject, World, new_nonce
from altering import alterations, oddities
from courts import execute, registered
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwe
from on_chain import AS_DISCLOSED, codes, disclosed, entries_on, facts_of, judged, unknown
from sqlalchemy import update

from ledger import preparation
from ledger.access import entry_hash_of
from ledger.asked_by import accesses_asked_by
from ledger.audit_report import Verdict
from ledger.chain import QUESTION_GAS, JsonRpcChain
from ledger.consent import Hex32
from ledger.daily_limits import DatedAccess, daily_limit_held
from ledger.disclosed import judge
from ledger.disclosure import Disclosure, read_disclosure
from ledger.disclosure_facts import _accepts, offline_facts
from ledger.errors import AuditError, ConsentError, ErasedError, MalformedError, NotFoundError
from ledger.exchange import (
    RECEIPT_TYPE,
    SEALING,
    check_jwks,
    key_for,
    release_request,
    seal_answer,
    sign_claims,
    verify_claims,
)
from ledger.jsonrpc import JsonRpc, RpcError
from ledger.received import judge_receipt
from ledger.release import Release
from ledger.scrutiny import Facts, FoundEntry, Keyring
from ledger.signatures import HttpRequest, SignedRequest, sign_request
from ledger.store import institutions
from ledger.verifying_keys import public_jwk

OTHER32: Final = "0x" + "ab" * 32


def inner(world: World, release: Release) -> str:
    """The JWT that the institution finds in its answer."""
    signed = jwe.decrypt_compact(release.sealed, world.institution.sealing_key, algorithms=list(SEALING.values()))
    return (signed.plaintext or b"").decode()


@pytest.fixture
def document(world: World) -> dict[str, Any]:
    """A consent with two accesses and a refusal, one answer handed on by the institution."""
    consent_id = world.grant()
    release = world.ask(consent_id, attributes=("credit_amount", "savings"))
    world.ask(consent_id)
    with pytest.raises(ConsentError):
        world.ask(consent_id, attributes=("credit_duration",))
    world.custodian.releases.log_refusals()
    made = json.loads(json.dumps(disclosed(world, consent_id)))
    made["entries"][0]["answer"] = inner(world, release)
    return made  # type: ignore[no-any-return] # JSON


# ------------------------------------------------------------------------------------------------------ what is honest


def test_an_honest_disclosure_is_clean_and_everything_of_it_was_checked(world: World, document: dict[str, Any]) -> None:
    found = judged(world, document)
    assert found.verdict is Verdict.CLEAN
    assert [one.outcome.value for one in found.entries] == ["recorded", "recorded", "refused"]
    checked = {"opening", "place", "outcome", "terms", "request", "records", "receipt"}
    assert [{check.name for check in one.checks} - {"answer"} for one in found.entries] == [checked] * 3
    assert {check.name for check in found.checks} == {"domain", "subject_signature", "daily_limit", "requests", "keys"}


def test_it_is_read_as_it_was_written(document: dict[str, Any]) -> None:
    assert read_disclosure(document).as_json() == document


def test_it_holds_no_value_of_an_attribute_and_no_private_key(world: World) -> None:
    consent_id = world.grant()
    world.ask(consent_id, attributes=("credit_amount", "savings"))
    text = json.dumps(disclosed(world, consent_id))
    # As a value; the digits alone may be in any hash.
    assert ": 1169" not in text
    assert "below_100" not in text
    assert '"d"' not in text


def test_many_releases_asked_for_by_one_request_are_clean(world: World) -> None:
    consents = [world.grant(), world.grant()]
    items = [
        {"consent": one, "purpose": "loan-origination", "attributes": [name], "idempotencyKey": f"batch-{one}-{name}"}
        for one in consents
        for name in ("credit_amount", "savings")
    ]
    message = HttpRequest(
        method="POST",
        url=f"{world.custodian.config.service_url}/v1/batch/releases",
        headers={"Content-Type": "application/json"},
        body=json.dumps({"releases": items}).encode(),
    )
    signed = world.custodian.authentication.verify(world.institution.sign(message, at=world.clock()))
    asked = [
        release_request(
            signed.evidence,
            signed.party.party_id,
            consent_id=consents[number // 2],
            purpose=item["purpose"],
            attributes=item["attributes"],
            idempotency_key=item["idempotencyKey"],
        )
        for number, item in enumerate(items)
    ]
    _, results = world.custodian.releases.answer(asked, signed)
    assert all(isinstance(one, Release) for one in results)
    made = world.custodian.disclosing.of_subject(world.custodian.vault.subject_of(world.subject.ref), at=world.clock())
    found = judged(world, made.disclosure)
    assert (found.verdict, len(found.entries)) == (Verdict.CLEAN, 4)


def test_a_refusal_of_the_contracts_is_clean_with_its_reason(world: World) -> None:
    consent_id = world.grant()
    grant = world.grant_of(consent_id)
    world.chain.before("sign", lambda: world.subject.revoke_directly(world.chain, grant))
    with pytest.raises(ConsentError):
        world.ask(consent_id)
    made = disclosed(world, consent_id)
    assert [(one["outcome"], one["reason"]) for one in made["entries"]] == [("refused", "revoked")]
    assert judged(world, made).verdict is Verdict.CLEAN
    made["entries"][0]["reason"] = "expired"
    assert codes(judged(world, made)) == {"outcome_differs"}


def test_what_is_asked_for_is_what_is_in_it(world: World) -> None:
    first, second = world.grant(), world.grant()
    releases = [world.ask(first), world.ask(first), world.ask(second)]
    making, at = world.custodian.disclosing, world.clock()
    one = making.of_release(releases[1].release_id, at=at).disclosure
    assert [it.entry.release_id for it in one.entries] == [releases[1].release_id]
    assert [it.consent_id for it in one.consents] == [first]
    assert len(making.of_consent(first, at=at).disclosure.entries) == 2
    everything = making.of_subject(world.custodian.vault.subject_of(world.subject.ref), at=at).disclosure
    assert [it.entry.release_id for it in everything.entries] == [it.release_id for it in releases]
    other = world.another_subject()
    assert making.of_subject(world.custodian.vault.subject_of(other.ref), at=at).disclosure.entries == ()
    with pytest.raises(NotFoundError):
        making.of_release(Hex32(OTHER32), at=at)


def test_what_is_not_on_chain_is_left_out_and_counted(world: World) -> None:
    consent_id = world.grant()
    world.ask(consent_id)
    with pytest.raises(ConsentError):
        world.ask(consent_id, attributes=("credit_duration",))
    made = world.custodian.disclosing.of_consent(consent_id, at=world.clock())
    assert (len(made.disclosure.entries), made.not_on_chain) == (1, 1)


def test_what_was_erased_cannot_be_disclosed(world: World) -> None:
    consent_id = world.grant()
    release = world.ask(consent_id)
    world.custodian.eraser.erase(world.subject.ref)
    making, at = world.custodian.disclosing, world.clock()
    with pytest.raises(ErasedError):
        making.of_consent(consent_id, at=at)
    with pytest.raises(ErasedError):
        making.of_release(release.release_id, at=at)


# --------------------------------------------------------------------------------------------------- what was altered


def test_no_alteration_of_any_part_is_clean(world: World, document: dict[str, Any]) -> None:
    # One entry of each kind is as good as more.
    document["entries"] = [document["entries"][0], document["entries"][2]]
    assert judged(world, document).verdict is not Verdict.FINDINGS
    held = []
    altered = list(alterations(document))
    assert len(altered) > 200
    for path, other in altered:
        try:
            found = judged(world, other)
        except MalformedError:
            continue
        if found.verdict is Verdict.CLEAN:
            held.append(path)
    # It may have fewer entries, and receipts and answers need not be there.
    fewer = {f"entries.-[{place}]" for place in (0, 1)}
    bare = {"entries.[0].answer.null", "entries.[0].receipt.null", "entries.[1].receipt.null"}
    assert set(held) <= fewer | bare


@pytest.mark.parametrize(
    ("path", "value", "code"),
    [
        ("entries.0.entry.salt", OTHER32, "opening_differs"),
        ("entries.0.entryHash", OTHER32, "entry_not_on_chain"),
        ("entries.0.place.logIndex", 7, "place_differs"),
        ("entries.0.place.transactionHash", OTHER32, "place_differs"),
        ("entries.0.outcome", "refused", "outcome_differs"),
        ("entries.2.outcome", "recorded", "outcome_differs"),
        ("entries.2.reason", "disputed", "outcome_differs"),
        ("entries.0.records.0", OTHER32, "records_differ"),
        ("entries.0.records", [OTHER32], "records_differ"),
        ("entries.0.request.nonce", "another-nonce-altogether", "request_signature"),
        ("entries.0.request.body", "e30=", "request_signature"),
        ("consents.0.grant.maxAccesses", 4, "consent_differs"),
        ("consents.0.grant.terms.institution", "bank-2", "consent_differs"),
        ("consents.0.signature", "0x" + "12" * 65, "subject_signature"),
        ("domain.chainId", 1, "domain_differs"),
        ("entries.0.receipt", "a.b.c", "receipt_differs"),
        ("entries.0.answer", "a.b.c", "answer_differs"),
    ],
)
def test_an_alteration_is_named(world: World, document: dict[str, Any], path: str, value: object, code: str) -> None:
    *way, name = [int(step) if step.isdigit() else step for step in path.split(".")]
    part: Any = document
    for step in way:
        part = part[step]
    assert part[name] != value
    part[name] = value
    assert code in codes(judged(world, document))


@pytest.mark.parametrize("member", ["request", "records"])
def test_what_is_left_out_is_not_clean(world: World, document: dict[str, Any], member: str) -> None:
    document["entries"][0][member] = None
    found = judged(world, document)
    assert found.verdict is Verdict.UNVERIFIED
    assert member in unknown(found)


def test_a_consent_or_a_key_that_is_left_out_is_not_clean(world: World, document: dict[str, Any]) -> None:
    for part, name in (("consents", "terms"), ("institutions", "request")):
        other = copy.deepcopy(document)
        if part == "consents":
            other["consents"] = []
        else:
            other["keys"]["institutions"] = {}
        found = judged(world, other)
        assert found.verdict is Verdict.UNVERIFIED
        assert name in unknown(found)


def test_nothing_odd_in_it_is_anything_but_malformed_or_judged(world: World, document: dict[str, Any]) -> None:
    document["entries"] = document["entries"][:1]
    for _, other in oddities(document):
        try:
            read = read_disclosure(other)
        except MalformedError:
            continue
        judged(world, read)


@pytest.mark.parametrize("proof", [[], None, "x", 7])
def test_a_receipt_with_an_odd_claim_is_found(world: World, document: dict[str, Any], proof: object) -> None:
    key = world.custodian.accounts.signing_key
    claims = verify_claims(document["entries"][0]["receipt"], key, RECEIPT_TYPE)
    odd = sign_claims(claims | {"proof": proof}, key, RECEIPT_TYPE)
    document["entries"][0]["receipt"] = odd
    assert codes(judged(world, document)) == {"receipt_differs"}
    found = judge_receipt(odd, key, lambda one, _: facts_of(world.chain, one), domain=world.chain.domain)
    assert codes(found) == {"receipt_differs"}


def test_nothing_is_verified_by_a_disclosure_of_nothing(world: World) -> None:
    empty = Disclosure(domain=world.chain.domain, custodian_keys=(), institution_keys={}, consents=(), entries=())
    assert judged(world, empty).verdict is Verdict.UNVERIFIED


def test_an_entry_or_a_consent_that_is_in_it_twice_is_no_disclosure(document: dict[str, Any]) -> None:
    for name in ("entries", "consents"):
        with pytest.raises(MalformedError):
            read_disclosure(document | {name: [*document[name], document[name][0]]})


@pytest.mark.parametrize("other", [None, [], {}, "x", 7, {"version": 1}, {"version": True}])
def test_what_was_never_a_disclosure_is_refused(other: Any) -> None:
    with pytest.raises(MalformedError):
        read_disclosure(other)


# ------------------------------------------------------------------------------------- what a custodian may have done


def let_through(monkeypatch: pytest.MonkeyPatch, *rules: str) -> None:
    """A custodian that does without some of its own rules."""
    for name in rules:
        monkeypatch.setattr(preparation, name, lambda *_, **__: None)


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"attributes": ("credit_amount", "credit_duration")}, "scope_exceeded"),
        ({"purpose": "account-review"}, "wrong_purpose"),
    ],
)
def test_an_access_beyond_the_terms_is_found(
    world: World, monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any], code: str
) -> None:
    let_through(monkeypatch, "authorize")
    consent_id = world.grant()
    world.ask(consent_id, **asked)
    assert codes(judged(world, disclosed(world, consent_id))) == {code}


def test_an_access_by_another_institution_is_found(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    let_through(monkeypatch, "authorize", "require_institution")
    other = world.another_institution()
    consent_id = world.grant()
    world.custodian.releases.release(other.request(world.custodian, consent_id))
    assert codes(judged(world, disclosed(world, consent_id))) == {"wrong_institution"}


def test_too_many_accesses_on_a_day_are_found(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    let_through(monkeypatch, "authorize")
    consent_id = world.grant(max_accesses=3, accesses_per_day=2)
    for _ in range(3):
        world.ask(consent_id)
    assert codes(judged(world, disclosed(world, consent_id))) == {"daily_limit_exceeded"}


def test_accesses_around_midnight_are_no_false_alarm(world: World) -> None:
    consent_id = world.grant(accesses_per_day=1)
    world.clock.now = NOON + DAY // 2 - 5
    world.ask(consent_id)
    message = world.request(consent_id)
    world.clock.advance(10)
    # Signed before midnight, judged after it.
    world.custodian.releases.release(message)
    assert judged(world, disclosed(world, consent_id)).verdict is Verdict.CLEAN


@pytest.mark.parametrize("named_alike", [False, True])
def test_a_request_that_the_institution_did_not_sign_is_found(world: World, *, named_alike: bool) -> None:
    """The custodian makes a request up, and a key to go with it."""
    bank, custodian_key = world.institution, world.custodian.accounts.signing_key
    forger = Institution(bank.institution_id)
    if named_alike:
        sealing, signing = (forger.jwks["keys"][place] for place in (1, 0))
        assert signing["use"] == "sig"
        forger.jwks = {"keys": [signing | {"kid": str(bank.signing_key.kid)}, sealing]}
        forger.signing_key = key_for(forger.jwks, "sig")
    consent_id = world.grant()
    with world.custodian.store.begin() as tx:
        # By itself: the service would not call another key as the present one is called.
        forged = {"jwks": json.dumps(check_jwks(forger.jwks)), "version": institutions.c.version + 1}
        tx.execute(update(institutions).where(institutions.c.party_id == bank.institution_id).values(**forged))
    world.custodian.releases.release(forger.request(world.custodian, consent_id))
    made = disclosed(world, consent_id)
    # Believed by nobody but who believes the custodian about the key.
    assert judged(world, made).verdict is Verdict.CLEAN
    known = Keyring(custodian=(custodian_key,), institutions={bank.institution_id: (bank.signing_key,)})
    found = judged(world, made, known)
    if named_alike:
        assert codes(found) == {"request_signature", "keys_differ"}
    else:
        assert (found.verdict, unknown(found)) == (Verdict.UNVERIFIED, {"keys"})


def logged_with(
    world: World, consent_id: Hex32, evidence: SignedRequest, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """What a custodian discloses that logged an access with this as the institution's request."""
    real = preparation._entry

    def entry(request: Any, records_hash: Hex32) -> Any:
        return replace(real(request, records_hash), request_hash=evidence.digest())

    monkeypatch.setattr(preparation, "_entry", entry)
    world.ask(consent_id)
    made = disclosed(world, consent_id)
    made["entries"][0]["request"] = evidence.as_json()
    return made


def test_a_signed_request_for_something_else_is_found(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    consent_id = world.grant()
    message = world.request(consent_id, attributes=("savings",))
    evidence = world.custodian.authentication.authenticate(message).evidence
    made = logged_with(world, consent_id, evidence, monkeypatch)
    assert codes(judged(world, made)) == {"request_differs"}


def test_a_request_of_another_access_is_found(world: World) -> None:
    """Both are signed, and ask for the same."""
    consent_id = world.grant()
    world.ask(consent_id)
    world.ask(consent_id)
    made = disclosed(world, consent_id)
    first, second = made["entries"]
    first["request"], second["request"] = second["request"], first["request"]
    assert codes(judged(world, made)) == {"request_differs"}


def test_a_receipt_of_another_access_is_found(world: World, document: dict[str, Any]) -> None:
    first, second, _ = document["entries"]
    first["receipt"], second["receipt"] = second["receipt"], first["receipt"]
    assert codes(judged(world, document)) == {"receipt_differs"}


def test_a_signature_that_does_not_cover_the_body_is_found(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    consent_id = world.grant()
    message = HttpRequest(method="POST", url=f"{world.custodian.config.service_url}/v1/consents/{consent_id}/releases")
    key, party_id = world.institution.signing_key, world.institution.institution_id
    signed = sign_request(message, party_id=party_id, key=key, at=world.clock(), nonce=new_nonce())
    evidence = world.custodian.authentication.verify(signed).evidence
    body = json.dumps({"purpose": "loan-origination", "attributes": ["credit_amount"]}).encode()
    swapped = replace(evidence, body=body)
    found = judged(world, logged_with(world, consent_id, swapped, monkeypatch))
    assert found.verdict is Verdict.FINDINGS
    # Whoever reads what it asks for does not rest on the signature having been checked before.
    with pytest.raises(AuditError, match="does not cover"):
        accesses_asked_by(swapped, party_id)


def test_a_request_used_for_two_accesses_is_found(world: World) -> None:
    consent_id = world.grant()
    world.ask(consent_id)
    made = read_disclosure(disclosed(world, consent_id))
    (first,) = made.entries
    entry = replace(first.entry, release_id=Hex32(OTHER32))
    second = replace(first, entry=entry, entry_hash=entry_hash_of(entry), receipt=None)
    chain = tuple(entries_on(world.chain))
    there = (*chain, replace(chain[0], entry_hash=second.entry_hash))
    found = judged(world, replace(made, entries=(first, second)), entries=there)
    assert codes(found) == {"request_reused"}
    # The same two of a request that asks for both would be none.
    assert codes(judged(world, made)) == set()


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("before", [False, True])
def test_an_entry_that_was_logged_twice_is_found_whichever_is_read_first(
    world: World, document: dict[str, Any], place: int, *, before: bool
) -> None:
    chain = list(entries_on(world.chain))
    first = chain[place]
    copied = replace(first, place=replace(first.place, log_index=77, block_number=first.place.block_number + 1))
    there = [copied, *chain] if before else [*chain, copied]
    # Seen also where nothing in the file opens it.
    for opened in (
        document,
        document | {"entries": [it for it in document["entries"] if it["entryHash"] != first.entry_hash]},
    ):
        assert codes(judged(world, opened, entries=tuple(there))) == {"double_entry"}
    assert codes(judged(world, document, entries=tuple(chain))) == set()


def test_a_receipt_of_an_entry_that_was_logged_twice_is_found(world: World) -> None:
    receipt, key = world.ask(world.grant()).receipt, world.custodian.accounts.signing_key
    (entry,) = entries_on(world.chain)
    copied = replace(entry, place=replace(entry.place, log_index=77))
    for there in ((entry,), (copied, entry), (entry, copied)):

        def facts(disclosure: Disclosure, _: object, there: tuple[FoundEntry, ...] = there) -> Facts:
            return facts_of(world.chain, disclosure, entries=there)

        found = judge_receipt(receipt, key, facts, domain=world.chain.domain)
        assert codes(found) == ({"double_entry"} if len(there) > 1 else set())


def test_a_late_entry_is_found_with_its_reason(world: World) -> None:
    consent_id = world.grant()
    world.ask(consent_id)
    made = disclosed(world, consent_id)
    grant = world.grant_of(consent_id)
    world.chain.reorg(1, meanwhile=lambda: world.subject.revoke_directly(world.chain, grant))
    assert codes(judged(world, made)) == {"entry_not_on_chain"}
    world.custodian.sync()
    found = judged(world, disclosed(world, consent_id))
    assert codes(found) == {"late"}
    assert "revoked" in found.all_findings[0].detail
    # Said to be an ordinary one.
    hidden = disclosed(world, consent_id)
    hidden["entries"][0] |= {"outcome": "recorded", "receipt": None}
    assert codes(judged(world, hidden)) == {"outcome_differs"}


def test_an_entry_that_stands_elsewhere_since_is_said_to(world: World) -> None:
    consent_id = world.grant()
    world.ask(consent_id)
    made = disclosed(world, consent_id)
    world.chain.reorg(1)
    world.chain.mine()
    world.custodian.sync()
    assert codes(judged(world, made)) == {"place_differs"}
    assert judged(world, disclosed(world, consent_id)).verdict is Verdict.CLEAN


def test_a_consent_that_is_not_the_chains_is_found(world: World, document: dict[str, Any]) -> None:
    consent_id = document["consents"][0]["consent"]
    assert codes(judged(world, document, subjects={})) == {"consent_not_on_chain"}
    assert codes(judged(world, document, subjects={consent_id: Subject().address})) == {"consent_not_on_chain"}


# -------------------------------------------------------------------------------------------------------- the answer


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        ("aud", "bank-2"),
        ("jti", OTHER32),
        ("consent", OTHER32),
        ("purpose", "account-review"),
        ("entryHash", OTHER32),
        ("values", {}),
        ("values", {"credit_amount": {}, "savings": {}, "credit_duration": {}}),
        ("eraseBy", 2**40),
        ("proof", {}),
        ("iss", "0x" + "12" * 20),
        ("version", 2),
    ],
)
def test_an_answer_that_says_otherwise_is_found(
    world: World, document: dict[str, Any], claim: str, value: object
) -> None:
    key = world.custodian.accounts.signing_key
    claims = verify_claims(document["entries"][0]["answer"], key, "answer+jwt")
    sealed = seal_answer(claims | {claim: value}, key, world.institution.sealing_key)
    signed = jwe.decrypt_compact(sealed, world.institution.sealing_key, algorithms=list(SEALING.values()))
    document["entries"][0]["answer"] = (signed.plaintext or b"").decode()
    assert codes(judged(world, document)) == {"answer_differs"}


def test_an_answer_to_a_refused_request_is_found(world: World, document: dict[str, Any]) -> None:
    document["entries"][2]["answer"] = document["entries"][0]["answer"]
    assert codes(judged(world, document)) == {"unlogged_release"}


# ------------------------------------------------------------------------------------------------ keys and signatures


def test_whose_a_key_is_has_to_be_known_from_elsewhere(world: World, document: dict[str, Any]) -> None:
    bank, custodian = world.institution.signing_key, world.custodian.accounts.signing_key
    name = world.institution.institution_id
    found = judged(world, document, Keyring())
    assert (found.verdict, unknown(found)) == (Verdict.UNVERIFIED, {"keys"})
    assert judged(world, document, Keyring(custodian=(custodian,))).verdict is Verdict.UNVERIFIED
    assert judged(world, document, Keyring(institutions={name: (bank,)})).verdict is Verdict.UNVERIFIED
    assert (
        judged(world, document, Keyring(custodian=(custodian,), institutions={name: (bank,)})).verdict is Verdict.CLEAN
    )
    # One that another institution gave is not this one's.
    other = Keyring(custodian=(custodian,), institutions={"bank-2": (bank,)})
    assert judged(world, document, other).verdict is Verdict.UNVERIFIED


def test_a_key_that_nothing_is_signed_with_is_not_passed_over(world: World, document: dict[str, Any]) -> None:
    document["keys"]["institutions"]["bank-2"] = [public_jwk(Institution().signing_key)]
    assert unknown(judged(world, document)) == {"keys"}


def test_a_smart_accounts_signature_is_the_chains_to_judge(world: World, document: dict[str, Any]) -> None:
    consent_id = document["consents"][0]["consent"]
    document["consents"][0]["signature"] = "0x1234"
    assert judged(world, document, accepts={consent_id: True}).verdict is Verdict.CLEAN
    assert judged(world, document, accepts={consent_id: None}).verdict is Verdict.UNVERIFIED
    assert codes(judged(world, document, accepts={consent_id: False})) == {"subject_signature"}
    offline = read_disclosure(document)
    facts = offline_facts(offline, AS_DISCLOSED, block_hashes=())
    found = judge(offline, facts, AS_DISCLOSED, domain=world.chain.domain)
    assert found.verdict is Verdict.UNVERIFIED
    assert {"subject_signature", "place"} <= unknown(found)


@pytest.mark.parametrize(
    ("code", "answer", "accepts"),
    [
        ("0x", "0x", False),
        ("0x60", "0x1626ba7e" + "0" * 56, True),
        ("0x60", "0x" + "f" * 64, None),
        ("0x60", "0x", None),
        ("0x60", 7, None),
        ("0x60", RpcError("eth_call", {"code": 3, "message": "out of gas"}), None),
        (RpcError("eth_getCode", {"code": 1, "message": "not today"}), "0x", None),
    ],
)
def test_a_smart_account_is_asked_once_and_not_for_long(
    world: World, document: dict[str, Any], code: object, answer: object, *, accepts: bool | None
) -> None:
    asked: list[Any] = []

    def rpc(method: str, *params: Any) -> object:
        asked.append((method, *params))
        said = code if method == "eth_getCode" else answer
        if isinstance(said, Exception):
            raise said
        return said

    (consent,) = read_disclosure(document).consents
    chain = JsonRpcChain(cast("JsonRpc", rpc), world.chain.domain)
    assert _accepts(chain, consent) is accepts
    for method, call, *_ in asked[1:]:
        assert (method, call["to"], int(call["gas"], 16)) == ("eth_call", consent.grant.subject, QUESTION_GAS)


# --------------------------------------------------------------------------------------------------- an order's access


def ordered(world: World) -> dict[str, Any]:
    """What is disclosed of an access that a court ordered, under an embargo."""
    registered(world)
    done = execute(world, embargo_until=world.clock() + 30 * DAY)
    made = world.custodian.disclosing.of_order(done.order_hash, at=world.clock())
    return json.loads(json.dumps(made.disclosure.as_json()))  # type: ignore[no-any-return]


def test_a_compelled_access_is_checked_against_its_order(world: World) -> None:
    document = ordered(world)
    found = judged(world, document)
    assert (found.verdict, [one.outcome.value for one in found.entries]) == (Verdict.CLEAN, ["compelled"])
    held = []
    for path, other in alterations(document):
        try:
            if judged(world, other).verdict is Verdict.CLEAN:
                held.append(path)
        except MalformedError:
            continue
    assert held == []
    (order,) = [one.consent_id for one in entries_on(world.chain)]
    assert codes(judged(world, document, embargoes={order: 0})) == {"order_differs"}


def test_a_persons_disclosure_does_not_tell_of_an_order_under_embargo(world: World) -> None:
    ordered(world)
    subject_id = world.custodian.vault.subject_of(world.subject.ref)
    assert world.custodian.disclosing.of_subject(subject_id, at=world.clock()).disclosure.orders == ()
    world.clock.advance(31 * DAY)
    later = world.custodian.disclosing.of_subject(subject_id, at=world.clock()).disclosure
    assert (len(later.orders), len(later.entries)) == (1, 1)
    assert judged(world, later).verdict is Verdict.CLEAN


# ------------------------------------------------------------------------------------------------------- daily limits

MIDNIGHT: Final = 20_000 * DAY


def signed(*seconds: int) -> list[DatedAccess]:
    return [DatedAccess(signed_at=MIDNIGHT + at, logged_at=MIDNIGHT + at) for at in seconds]


def logged(*seconds: int, late: bool = False) -> list[DatedAccess]:
    return [DatedAccess(signed_at=None, logged_at=MIDNIGHT + at, late=late) for at in seconds]


@pytest.mark.parametrize(
    ("accesses", "limit", "unseen", "held"),
    [
        ([], 1, 0, True),
        (signed(3600, 7200), 2, 0, True),
        (signed(3600, 7200), 1, 0, False),
        (signed(3600, 7200, DAY + 3600), 1, 0, False),
        # Around midnight it is on the one day or the other.
        (signed(-60, 60), 1, 0, True),
        (signed(-7200, -60, 60, 7200), 2, 0, True),
        (signed(-7200, -60, 60, 7200), 1, 0, False),
        (signed(-60, 0, 60), 1, 0, False),
        # Not opened: by its block it was that day or the one before.
        (logged(3600), 1, 0, True),
        (signed(3600) + logged(7200), 1, 0, None),
        (signed(3600) + logged(7200), 2, 0, True),
        (signed(3600) + logged(4 * DAY), 1, 0, True),
        (signed(3600) + logged(4 * DAY, late=True), 1, 0, None),
        (signed(3600), 1, 1, None),
        (signed(3600), 2, 1, True),
        (signed(3600, 7200), 1, 9, False),
    ],
)
def test_a_daily_limit_is_broken_or_kept_or_cannot_be_told(
    accesses: Sequence[DatedAccess], limit: int, unseen: int, held: bool | None
) -> None:
    assert daily_limit_held(accesses, limit, unseen=unseen) is held


@given(
    st.lists(st.integers(-3, 3).flatmap(lambda day: st.sampled_from([day * DAY - 60, day * DAY + 3600])), max_size=6),
    st.integers(1, 3),
)
def test_a_daily_limit_is_broken_just_where_no_way_of_counting_keeps_it(times: list[int], limit: int) -> None:
    spans = [one.days() for one in signed(*times)]

    def ways(place: int, counts: dict[int, int]) -> Iterator[dict[int, int]]:
        if place == len(spans):
            yield counts
            return
        for day in range(spans[place][0], spans[place][1] + 1):
            yield from ways(place + 1, counts | {day: counts.get(day, 0) + 1})

    possible = any(max(counts.values(), default=0) <= limit for counts in ways(0, {}))
    assert daily_limit_held(signed(*times), limit) is possible


def test_what_is_not_opened_is_counted_by_its_block(world: World) -> None:
    consent_id = world.grant(max_accesses=3, accesses_per_day=2)
    first = world.ask(consent_id)
    world.ask(consent_id)
    made = world.custodian.disclosing.of_release(first.release_id, at=world.clock()).disclosure
    assert judged(world, made).verdict is Verdict.CLEAN
    world.clock.advance(DAY)
    world.ask(consent_id)
    # Three, of which two may have been on one day.
    assert unknown(judged(world, made)) == {"daily_limit"}
    assert judged(world, disclosed(world, consent_id)).verdict is Verdict.CLEAN


# ----------------------------------------------------------------------------------------------------------- the verbs


def test_the_auditors_verbs_need_no_database_no_server_and_no_custodian() -> None:
    program = (
        "import sys, ledger.cli_disclosure\n"
        "own = {'store', 'vault', 'journal', 'registry', 'release', 'custodian', 'deploy', 'disclosing'}\n"
        "outside = {'sqlalchemy', 'sqlite3', 'flask', 'werkzeug', 'gunicorn', 'web', 'web3', 'solcx'}\n"
        "print(sorted((outside | {f'ledger.{name}' for name in own}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
