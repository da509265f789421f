"""A receipt by itself: what whoever holds it can check, with the custodian's key and a chain or a bundle.

An AccessReceipt opens an entry, so the entry is checked as in a disclosure; what it does not have (the consent, the
request, the records) is not asked. A person's receipts are of a grant, a revocation or an erasure: the first two are
checked by the person's own signature and on chain; the last names no one and stands for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from joserfc.jwk import ECKey

from ledger.compelled import CompelledOrder
from ledger.consent import Domain, Hex32, parse_address, parse_hex32
from ledger.disclosed_entry import (
    check_answer,
    check_bundle,
    check_opening,
    check_order,
    check_place,
    check_receipt,
    check_subject,
    entry_at,
    outcome_let_out,
)
from ledger.disclosure import DisclosedConsent, DisclosedEntry, DisclosedOutcome, Disclosure, EntryPlace, read_consent
from ledger.errors import AuditError, InvalidSignatureError, MalformedError
from ledger.evidence import open_receipt
from ledger.exchange import RECEIPT_TYPE, verify_claims
from ledger.receipts import ERASURE_TYPE, GRANT_TYPE, REVOCATION_TYPE, type_of, verify_erasure
from ledger.scrutiny import Facts, JudgedDisclosure, JudgedEntry, Marks
from ledger.typed_data import digest_of, require_signer, revocation_typed_data

FactsOf = Callable[[Disclosure, frozenset[Hex32]], Facts]
"""Finds the facts about what a disclosure has, and about these consents; `disclosure_facts.py` does."""
VERSION: Final = 1
_MALFORMED: Final = (KeyError, TypeError, ValueError, AttributeError, OverflowError, MalformedError)


def judge_receipt(
    receipt: str,
    key: ECKey,
    facts_of: FactsOf,
    *,
    domain: Domain,
    bundle: Mapping[str, Any] | None = None,
    answer: str | None = None,
) -> JudgedDisclosure:
    """Check a receipt of any kind. Raises nothing: what does not hold is in the result."""
    marks, entries, facts = Marks(), [], Facts()
    try:
        match type_of(receipt):
            case kind if kind == ERASURE_TYPE:
                done = verify_erasure(receipt, key)
                marks.holds("signature", f"{sum(done.destroyed.values())} rows destroyed; it names no one")
            case kind if kind == GRANT_TYPE:
                facts = _grant(receipt, key, facts_of, domain, marks)
            case kind if kind == REVOCATION_TYPE:
                facts = _revocation(receipt, key, facts_of, domain, marks)
            case _:
                entry = _disclosed(receipt, key, bundle, answer)
                facts = facts_of(_document(domain, key, entries=(entry,)), frozenset())
                entries.append(_access(entry, _order_of(receipt, key, entry), facts, key))
    except AuditError as exc:
        marks.differs("signature", "receipt_differs", exc.message)
    except _MALFORMED:
        marks.differs("signature", "receipt_differs", "a receipt without all of its claims")
    return JudgedDisclosure(
        domain=domain,
        block=facts.block,
        checks=(*facts.checks, *marks.checks),
        findings=(*facts.findings, *marks.findings),
        entries=tuple(entries),
    )


def _document(
    domain: Domain,
    key: ECKey,
    *,
    entries: tuple[DisclosedEntry, ...] = (),
    consents: tuple[DisclosedConsent, ...] = (),
) -> Disclosure:
    return Disclosure(domain=domain, custodian_keys=(key,), institution_keys={}, consents=consents, entries=entries)


# ------------------------------------------------------------------------------------------------------- of an access


def _disclosed(receipt: str, key: ECKey, bundle: Mapping[str, Any] | None, answer: str | None) -> DisclosedEntry:
    opened = open_receipt(receipt, key)
    proof = opened.proof
    return DisclosedEntry(
        entry_hash=opened.entry_hash,
        entry=opened.entry,
        outcome=outcome_let_out(opened.entry, late=opened.late),
        place=EntryPlace(
            custodian=parse_address(proof["custodian"], "custodian"),
            writer=parse_address(proof["writer"], "writer"),
            transaction_hash=parse_hex32(proof["transactionHash"], "transactionHash"),
            block_number=int(proof["blockNumber"]),
            log_index=int(proof["logIndex"]),
        ),
        receipt=receipt,
        bundle=bundle,
        answer=answer,
    )


def _order_of(receipt: str, key: ECKey, one: DisclosedEntry) -> tuple[CompelledOrder, ...]:
    if one.outcome is not DisclosedOutcome.COMPELLED:
        return ()
    return (CompelledOrder.from_json(verify_claims(receipt, key, RECEIPT_TYPE)["order"]),)


def _access(one: DisclosedEntry, orders: tuple[CompelledOrder, ...], facts: Facts, key: ECKey) -> JudgedEntry:
    mine = (one.entry.consent_id, one.entry_hash)
    standing = [it for it in facts.entries or () if (it.consent_id, it.entry_hash) == mine]
    found = entry_at(one.place, standing)
    marks = Marks(
        block_number=one.place.block_number,
        at=found.at if found else None,
        consent_id=one.entry.consent_id,
        writer=one.place.writer,
        entry_hash=one.entry_hash,
    )
    check_opening(one, marks)
    online = facts.entries is not None
    if online:
        check_place(one, standing, marks)
    check_bundle(one, facts.bundles.get(one.entry_hash), online=online, marks=marks)
    check_receipt(one, facts.receipts.get(one.entry_hash), marks)
    if orders:
        check_order(one, orders, facts.embargoes, marks)
    check_answer(one, None, [key], marks)
    return JudgedEntry(
        entry_hash=one.entry_hash,
        entry=one.entry,
        outcome=one.outcome,
        at=found.at if found else None,
        checks=tuple(marks.checks),
        findings=tuple(marks.findings),
    )


# -------------------------------------------------------------------------------------------------------- of a person


def _grant(receipt: str, key: ECKey, facts_of: FactsOf, domain: Domain, marks: Marks) -> Facts:
    claims = _claims(receipt, key, GRANT_TYPE, domain)
    consent = read_consent({name: claims[name] for name in ("consent", "grant", "signature")}, "receipt")
    marks.holds("signature", "the custodian signed the receipt")
    facts = facts_of(_document(domain, key, consents=(consent,)), frozenset())
    if facts.entries is None:
        marks.unknown("on_chain", "whether it stands is for the chain to say")
        check_subject(consent, facts, domain, marks)
    elif not claims["standing"] and consent.consent_id not in facts.subjects:
        marks.unknown("on_chain", "it is not on chain; when the receipt was made it was not yet")
    else:
        check_subject(consent, facts, domain, marks)
        if claims["revokedAt"] is not None:
            _check_revoked([consent.consent_id], facts, marks)
    return facts


def _revocation(receipt: str, key: ECKey, facts_of: FactsOf, domain: Domain, marks: Marks) -> Facts:
    claims = _claims(receipt, key, REVOCATION_TYPE, domain)
    consent_ids = [parse_hex32(one, "consent") for one in claims["consents"]]
    subject = parse_address(claims["subject"], "subject")
    marks.holds("signature", f"the custodian signed the receipt; at the wish of: {claims['by']}")
    if claims["signature"] is not None:
        try:
            signature = bytes.fromhex(str(claims["signature"]).removeprefix("0x"))
            require_signer(digest_of(revocation_typed_data(consent_ids, domain)), signature, subject)
            marks.holds("subject_signature", f"{subject} signed the revocation of exactly these")
        except InvalidSignatureError:
            said = f"it is not a signature by a key of {subject}; of a smart account nobody can say what it took then"
            marks.unknown("subject_signature", said)
    facts = facts_of(_document(domain, key), frozenset(consent_ids))
    if facts.entries is None:
        marks.unknown("on_chain", "whether they are revoked is for the chain to say")
    else:
        _check_revoked(consent_ids, facts, marks)
    return facts


def _claims(receipt: str, key: ECKey, kind: str, domain: Domain) -> dict[str, Any]:
    claims = verify_claims(receipt, key, kind)
    if claims["version"] != VERSION or claims["domain"] != domain.as_json():
        raise AuditError("the receipt is about another chain or contract")
    return claims


def _check_revoked(consent_ids: Sequence[Hex32], facts: Facts, marks: Marks) -> None:
    revoked = {one.consent_id for one in facts.changes if one.what == "revoked"}
    if missing := [one for one in consent_ids if one not in revoked]:
        said = "the chain has no revocation of it"
        marks.differs("on_chain", "receipt_not_on_chain", said, consent_id=missing[0])
    else:
        marks.holds("on_chain", f"{len(consent_ids)} revoked on chain")
