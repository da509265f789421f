"""The checks of one disclosed entry and of its consent, step by step as `disclosed.py` lists them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from joserfc.jwk import ECKey

from ledger.access import COMPELLED, AccessEntry, entry_hash_of, records_hash_of, refusal_hash
from ledger.asked_by import accesses_asked_by
from ledger.compelled import CompelledOrder, order_hash_of
from ledger.consent import ConsentGrant, Domain, Hex32, Reason
from ledger.disclosure import DisclosedConsent, DisclosedEntry, DisclosedOutcome, EntryPlace
from ledger.errors import AuditError, AuthenticationError, InvalidSignatureError
from ledger.exchange import ANSWER_TYPE, verify_claims
from ledger.json_forms import DAY_SECONDS
from ledger.purposes import AUDIT
from ledger.scrutiny import BundledEntry, Facts, FoundEntry, Marks, ReceivedEntry
from ledger.signatures import JWK, SignedRequest, split_keyid, verify_evidence
from ledger.typed_data import consent_id_of, require_signer

_CONTRACT_REASONS: Final = frozenset(reason.name.lower() for reason in Reason if reason)
READ: Final = (DisclosedOutcome.RECORDED, DisclosedOutcome.LATE)
"""Outcomes after which attributes may have been released under a consent."""


def check_opening(one: DisclosedEntry, marks: Marks) -> None:
    """(1) The opening has the hash."""
    if entry_hash_of(one.entry) == one.entry_hash:
        marks.holds("opening", "the opening has the entry's hash")
    else:
        marks.differs("opening", "opening_differs", "the opening does not have the hash that it is said to have")


# -------------------------------------------------------------------------------------------------------------- place


def entry_at(place: EntryPlace, standing: Sequence[FoundEntry]) -> FoundEntry | None:
    """Of the times that one entry stands on chain, the one at this place, else the first; None if there is none."""
    return next((it for it in standing if it.place == place), standing[0] if standing else None)


def check_place(one: DisclosedEntry, standing: Sequence[FoundEntry], marks: Marks) -> None:
    """(2), where there is a chain: the entry is there, once. `standing` are all times that it is."""
    found = entry_at(one.place, standing)
    if found is None:
        marks.differs("place", "entry_not_on_chain", "the chain has no such entry under this consent or order")
        return
    if len(standing) > 1:
        marks.differs("place", "double_entry", standing_twice(standing))
    if found.place != one.place:
        where = f"block {found.place.block_number}, transaction {found.place.transaction_hash}"
        marks.differs("place", "place_differs", f"it stands elsewhere: {where}; a reorganisation may have moved it")
    else:
        marks.holds(
            "place", f"on chain in block {found.place.block_number}, entry at log index {found.place.log_index}"
        )
    if found.outcome is not one.outcome:
        marks.differs("outcome", "outcome_differs", f"on chain it is {found.outcome}, not {one.outcome}")
        return
    check_outcome(one, found.reason, marks)


def standing_twice(standing: Sequence[FoundEntry]) -> str:
    """What is said of an entry that is on chain more than once."""
    blocks = ", ".join(str(it.place.block_number) for it in standing)
    return f"it stands on the log {len(standing)} times, in blocks {blocks}"


def check_outcome(one: DisclosedEntry, reason: Reason, marks: Marks) -> None:
    """(2) The reason on chain is the one that is said; a late entry is one to be explained."""
    said = reason.name.lower()
    match one.outcome:
        case DisclosedOutcome.LATE:
            why = f": {said}" if reason else ""
            marks.differs("outcome", "late", f"logged after the fact, when its consent was no longer in force{why}")
        case DisclosedOutcome.REFUSED if reason is Reason.BY_CUSTODIAN:
            if one.reason is not None and one.entry.records_hash == refusal_hash(one.reason):
                marks.holds("outcome", f"refused by the custodian: {one.reason}")
            elif one.records and one.reason in _CONTRACT_REASONS:
                # The chain lost a refusal of the contract's, and the custodian put it back.
                marks.holds("outcome", f"refused, and put back on the log; by the custodian's word for: {one.reason}")
            else:
                marks.differs(
                    "outcome", "outcome_differs", "the reason is not the one that the custodian put on the log"
                )
        case DisclosedOutcome.REFUSED:
            if one.reason == said:
                marks.holds("outcome", f"refused by the contract: {said}")
            else:
                marks.differs("outcome", "outcome_differs", f"the contract refused it for another reason: {said}")
        case _ if one.reason is not None:
            marks.differs("outcome", "outcome_differs", f"it was {one.outcome}, and a reason is given why it was not")
        case _:
            marks.holds("outcome", f"{one.outcome}, by the contract's verdict")


def check_bundle(one: DisclosedEntry, bundle: BundledEntry | str | None, *, online: bool, marks: Marks) -> None:
    """(2), by what leads from the entry to a block's hash; without a chain it has to be there."""
    if bundle is None and not online:
        marks.unknown("place", "there is neither a chain nor a bundle to find it by")
    elif isinstance(bundle, str):
        marks.differs("bundle", "bundle_differs", bundle)
    elif bundle is not None:
        _check_proven(one, bundle, marks)
        if not online:
            check_outcome(one, Reason.NONE, marks)


def outcome_let_out(entry: AccessEntry, *, late: bool) -> DisclosedOutcome:
    """What an entry is that was not refused."""
    if late:
        return DisclosedOutcome.LATE
    return DisclosedOutcome.COMPELLED if entry.purpose == COMPELLED else DisclosedOutcome.RECORDED


def _check_proven(one: DisclosedEntry, bundle: BundledEntry, marks: Marks) -> None:
    proven = outcome_let_out(bundle.entry, late=bundle.late)
    block = f"block {bundle.block_number}, {bundle.block_hash}"
    if bundle.entry != one.entry or not _is_at(one.place, bundle.claims):
        marks.differs("bundle", "bundle_differs", "the bundle is of another entry, or of another place")
    elif one.outcome is not proven:
        marks.differs("bundle", "outcome_differs", f"by the bundle it is {proven}, not {one.outcome}")
    elif not bundle.anchored:
        marks.unknown("bundle", f"it agrees with itself, and proves this only if the chain has {block}")
    else:
        marks.holds("bundle", f"on the log by {block}")


# ----------------------------------------------------------------------------------------------------------- consent


def check_subject(one: DisclosedConsent, facts: Facts, domain: Domain, marks: Marks) -> None:
    """(3) The consent is the grant's, and the subject's."""
    about, subject = {"consent_id": one.consent_id}, one.grant.subject
    if consent_id_of(one.grant, domain) != one.consent_id:
        marks.differs("consent", "consent_differs", "the grant does not have the id that it is said to have", **about)
        return
    on_chain = facts.subjects.get(one.consent_id)
    if facts.entries is not None and on_chain != subject:
        said = "the chain has no grant of this consent" if on_chain is None else f"on chain it is of {on_chain}"
        marks.differs("consent", "consent_not_on_chain", said, **about)
    try:
        require_signer(one.consent_id, one.signature, subject)
    except InvalidSignatureError:
        _check_smart_account(one, facts, marks)
    else:
        marks.holds("subject_signature", f"{subject} signed the consent {one.consent_id}")


def _check_smart_account(one: DisclosedConsent, facts: Facts, marks: Marks) -> None:
    subject, accepts = one.grant.subject, facts.accepts.get(one.consent_id)
    if facts.entries is None:
        said = f"it is not a signature by a key of {subject}; if that is a smart account, only the chain can tell"
        marks.unknown("subject_signature", said)
    elif accepts is False:
        said = f"{subject} did not sign this consent"
        marks.differs("subject_signature", "subject_signature", said, consent_id=one.consent_id)
    elif accepts is None:
        said = f"the smart account {subject} does not take this signature now; what it took then is not known"
        marks.unknown("subject_signature", said)
    else:
        marks.holds("subject_signature", f"the smart account {subject} takes the signature of {one.consent_id}")


# -------------------------------------------------------------------------------------------------------------- order


def check_order(
    one: DisclosedEntry, orders: Iterable[CompelledOrder], embargoes: Mapping[Hex32, int], marks: Marks
) -> None:
    """(4) and (5) of an access without a consent: an authority ordered just this, for as long as the chain says."""
    entry = one.entry
    order = next((it for it in orders if order_hash_of(it) == entry.consent_id), None)
    if order is None:
        marks.unknown("order", "the order that it names is not in the disclosure")
        return
    ordered = (order.authority, COMPELLED, order.attributes, order.document_hash)
    embargo = embargoes.get(entry.consent_id, order.embargo_until)
    if (entry.institution, entry.purpose, entry.attributes, entry.request_hash) != ordered or one.request is not None:
        marks.differs("order", "order_differs", f"{order.authority} ordered something else: {order.reference}")
    elif embargo != order.embargo_until:
        marks.differs("order", "order_differs", f"its embargo ends at {order.embargo_until}, on chain {embargo}")
    else:
        marks.holds("order", f"ordered by {order.authority}, {order.reference}; its document is not in here")


# -------------------------------------------------------------------------------------------------------------- terms


def check_terms(one: DisclosedEntry, grant: ConsentGrant | None, marks: Marks) -> None:
    """(4) Nothing was read beyond what was agreed to."""
    if grant is None:
        marks.unknown("terms", "the consent that it names is not in the disclosure")
        return
    if one.outcome not in READ:
        marks.holds("terms", "nothing was read under them")
        return
    entry, terms, before = one.entry, grant.terms, len(marks.findings)
    if grant.custodian != one.place.custodian:
        marks.differs("terms", "wrong_custodian", f"the consent is for the custodian {grant.custodian}")
    if entry.institution != terms.institution:
        said = f"the consent is for {terms.institution}, the entry is of {entry.institution}"
        marks.differs("terms", "wrong_institution", said)
    if entry.purpose != terms.purpose:
        marks.differs("terms", "wrong_purpose", f"the consent is for {terms.purpose}, the entry for {entry.purpose}")
    if beyond := sorted(set(entry.attributes) - set(terms.attributes)):
        marks.differs("terms", "scope_exceeded", f"the consent does not cover {', '.join(beyond)}")
    if len(marks.findings) == before:
        covered = f"{terms.institution}, {terms.purpose}: {', '.join(entry.attributes)}"
        marks.holds("terms", f"within what was agreed to ({covered})")


# ------------------------------------------------------------------------------------------------------------- request


def check_request(one: DisclosedEntry, key_of: Callable[[str, str], JWK | None], marks: Marks) -> int:
    """(5) How many releases like this one the institution's signed request asks for; 0 if it does not hold.

    `key_of` finds the key of a party by the party's id and the key's.
    """
    request, entry = one.request, one.entry
    if request is None:
        marks.unknown("request", "the institution's request is not in the disclosure")
        return 0
    if request.digest() != entry.request_hash:
        marks.differs("request", "request_differs", "the request is not the one whose digest is in the entry")
        return 0
    if not _is_signed(request, entry.institution, key_of, marks):
        return 0
    try:
        asked = [(it.consent_id, it.purpose, it.attributes) for it in accesses_asked_by(request, entry.institution)]
    except AuditError as exc:
        marks.differs("request", "request_differs", exc.message)
        return 0
    times = asked.count((entry.consent_id, entry.purpose, entry.attributes))
    if times:
        marks.holds("request", f"signed by {entry.institution}, and asks for just this")
    else:
        said = "; ".join(f"{purpose}: {', '.join(names)}" for _, purpose, names in asked[:3])
        marks.differs("request", "request_differs", f"what the institution signed asks for something else ({said})")
    return times


def _is_signed(
    request: SignedRequest, institution: str, key_of: Callable[[str, str], JWK | None], marks: Marks
) -> bool:
    try:
        party_id, kid = split_keyid(request.keyid)
    except AuthenticationError:
        party_id, kid = "", ""
    key = key_of(party_id, kid) if party_id == institution else None
    if party_id != institution:
        marks.differs("request", "request_signature", f"the request is not signed by {institution}")
    elif key is None:
        marks.unknown("request", f"there is no key {kid} of {party_id} to check its signature with")
    else:
        try:
            verify_evidence(request, key)
        except AuditError as exc:
            marks.differs("request", "request_signature", exc.message)
        else:
            return True
    return False


# ------------------------------------------------------------------------------------------- records, receipt, answer


def check_records(one: DisclosedEntry, marks: Marks) -> None:
    """(6) The records are those that the entry names."""
    entry = one.entry
    if one.outcome is DisclosedOutcome.REFUSED and one.reason and entry.records_hash == refusal_hash(one.reason):
        if one.records is None:
            marks.holds("records", "none: the custodian refused before any was looked at")
        else:
            marks.differs("records", "records_differ", "records are named of an access that was refused before any")
    elif one.records is None:
        marks.unknown("records", "the digests of the records are not in the disclosure")
    elif (entry.purpose == AUDIT or len(one.records) == len(entry.attributes)) and (
        records_hash_of(bytes.fromhex(digest[2:]) for digest in one.records) == entry.records_hash
    ):
        marks.holds("records", f"{len(one.records)} stored envelopes, in the order of the attributes")
    else:
        marks.differs("records", "records_differ", "the records are not the ones that the entry names")


def check_receipt(one: DisclosedEntry, receipt: ReceivedEntry | str | None, marks: Marks) -> None:
    """(7) The receipt; nothing if there is none."""
    if isinstance(receipt, str):
        marks.differs("receipt", "receipt_differs", receipt)
    elif receipt is not None:
        same = (receipt.entry, receipt.late) == (one.entry, one.outcome is DisclosedOutcome.LATE)
        if same and _is_at(one.place, receipt.claims):
            marks.holds("receipt", "the custodian's receipt says the same")
        else:
            marks.differs("receipt", "receipt_differs", "the receipt is of another entry, or of another place")


def check_answer(one: DisclosedEntry, grant: ConsentGrant | None, keys: Iterable[ECKey], marks: Marks) -> ECKey | None:
    """(7) The answer; nothing if there is none. Returns the key that it is signed with."""
    if one.answer is None:
        return None
    for key in keys:
        try:
            claims = verify_claims(one.answer, key, ANSWER_TYPE)
        except AuditError:
            continue
        _check_claims(one, claims, grant, marks)
        return key
    marks.differs("answer", "answer_differs", "the answer is not signed with a key of the custodian that is known here")
    return None


def _check_claims(one: DisclosedEntry, claims: Mapping[str, Any], grant: ConsentGrant | None, marks: Marks) -> None:
    entry, values, proof = one.entry, claims.get("values"), claims.get("proof")
    expected = {
        "version": 1,
        "iss": one.place.custodian,
        "aud": entry.institution,
        "jti": entry.release_id,
        "consent": entry.consent_id,
        "purpose": entry.purpose,
        "entryHash": one.entry_hash,
    }
    wrong = [name for name, value in expected.items() if claims.get(name) != value]
    if not isinstance(values, Mapping) or sorted(values) != sorted(entry.attributes):
        wrong.append("values")
    if not isinstance(proof, Mapping) or not _is_at(one.place, proof):
        wrong.append("proof")
    if one.outcome not in READ and one.outcome is not DisclosedOutcome.COMPELLED:
        marks.differs("answer", "unlogged_release", f"answered, although the access was {one.outcome}")
    elif wrong:
        marks.differs("answer", "answer_differs", f"the answer says otherwise than the entry: {', '.join(wrong)}")
    elif grant is not None and not _kept_as_agreed(claims, grant):
        days = grant.terms.retention_days
        marks.differs("answer", "answer_differs", f"the answer does not say to erase it after {days} days")
    else:
        marks.holds("answer", "the custodian's answer says the same; its values are the custodian's word")


def _kept_as_agreed(claims: Mapping[str, Any], grant: ConsentGrant) -> bool:
    made, until = claims.get("iat"), claims.get("eraseBy")
    return type(made) is int and type(until) is int and until - made == grant.terms.retention_days * DAY_SECONDS


def _is_at(place: EntryPlace, claims: Mapping[str, Any]) -> bool:
    return all(claims.get(name) == value for name, value in place.as_json().items())
