"""What the chain, the bundles and the receipts say about the entries of a disclosure: the facts that it is judged by.

With endpoints the chain is audited to the end (`audit.py`) and its consents' entries come from proven receipts; if that
audit does not come to its end, nothing that was seen on the way is a fact. Without endpoints there are the bundles, and
the hashes of blocks that the auditor brings along. Whether a smart account takes a signature no block proves: that is
the endpoint's word, beside the proven grant.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from joserfc.jwk import ECKey

from ledger.audit import Asked, Audit, audit_chain
from ledger.audit_report import AuditedEntry, Check, Finding, are_facts
from ledger.chain import JsonRpcChain
from ledger.consent import Domain, Hex32, Reason
from ledger.disclosure import DisclosedConsent, DisclosedEntry, DisclosedOutcome, Disclosure, EntryPlace
from ledger.errors import AuditError, ChainError
from ledger.evidence import open_receipt, verify_bundle, verify_receipt
from ledger.jsonrpc import JsonRpc
from ledger.scrutiny import BundledEntry, Facts, FoundEntry, Keyring, ReceivedEntry, custodian_keys

_ELSEWHERE: Final = "late"


def offline_facts(disclosure: Disclosure, keys: Keyring, *, block_hashes: Collection[Hex32]) -> Facts:
    """What can be known without any network. `block_hashes` are the auditor's own."""
    return Facts(
        bundles={
            one.entry_hash: _bundled(one, disclosure, keys, lambda _number, found: found in block_hashes)
            for one in disclosure.entries
            if one.bundle is not None
        },
        receipts=_receipts(disclosure, keys, None),
    )


def online_facts(
    disclosure: Disclosure,
    keys: Keyring,
    rpcs: Sequence[JsonRpc],
    asked: Asked,
    *,
    now: int,
    step: Callable[[int, int], None] = lambda _done, _of: None,
) -> Facts:
    """What the endpoints' chain proves, audited as `asked`; the disclosure's consents are looked for in it."""
    watched = {one.consent_id for one in disclosure.consents} | {one.entry.consent_id for one in disclosure.entries}
    audit = audit_chain(rpcs, replace(asked, watch=asked.watch | frozenset(watched)), now=now, step=step)
    # Also those that are only known by who granted them.
    watched |= {one.consent_id for one in audit.changes} | asked.watch
    checks, believed = chain_checks(audit, watched)
    findings = tuple(chain_findings(audit, watched))
    if not believed:
        without = offline_facts(disclosure, keys, block_hashes=())
        return replace(without, checks=checks, findings=findings, block=audit.report.block)
    chain = JsonRpcChain(rpcs[0], asked.domain)
    subjects = {one.consent_id: one.by for one in audit.changes if one.what == "granted" and one.by is not None}
    return Facts(
        entries=tuple(_found(one) for one in audit.entries),
        subjects=subjects,
        changes=audit.changes,
        embargoes=_embargoes(audit),
        accepts={one.consent_id: _accepts(chain, one) for one in disclosure.consents},
        bundles={
            one.entry_hash: _bundled(one, disclosure, keys, lambda number, found: chain.block_hash(number) == found)
            for one in disclosure.entries
            if one.bundle is not None
        },
        receipts=_receipts(disclosure, keys, chain),
        checks=checks,
        findings=findings,
        block=audit.report.block,
    )


# --------------------------------------------------------------------------------------------------------- the chain


def chain_checks(audit: Audit, watched: Collection[Hex32]) -> tuple[tuple[Check, ...], bool]:
    """The audit's own checks, and whether what it found are facts: what is wrong with others' consents is left out."""
    others = [check for check in audit.report.checks if check.name != "replay"]
    believed = are_facts(others) and others[-1].name in ("state_root", "checkpoints")
    mine = list(chain_findings(audit, watched))
    detail = "every entry of these consents has the contract's verdict" if not mine else "see the findings"
    return (*others, *([Check(name="replay", holds=not mine, detail=detail)] if believed else [])), believed


def chain_findings(audit: Audit, watched: Collection[Hex32]) -> Iterator[Finding]:
    """Those about these consents, and those about no consent. That an entry is late is said with the entry."""
    for finding in audit.report.findings:
        if finding.code != _ELSEWHERE and (finding.consent_id is None or finding.consent_id in watched):
            yield finding


def _embargoes(audit: Audit) -> dict[Hex32, int]:
    """The longest under each order: a batch more, with a shorter one, does not hide it."""
    longest: dict[Hex32, int] = {}
    for one in audit.report.compelled:
        longest[one.order_hash] = max(longest.get(one.order_hash, 0), one.embargo_until)
    return longest


def _found(one: AuditedEntry) -> FoundEntry:
    return FoundEntry(
        consent_id=one.consent_id,
        entry_hash=one.entry_hash,
        outcome=outcome_of(one),
        reason=one.reason,
        place=EntryPlace(
            custodian=one.custodian,
            writer=one.writer,
            transaction_hash=one.transaction_hash,
            block_number=one.block_number,
            log_index=one.log_index,
        ),
        at=one.at,
    )


def outcome_of(one: AuditedEntry) -> DisclosedOutcome:
    """What the contract made of it."""
    if one.reason is Reason.NONE:
        return DisclosedOutcome.RECORDED
    if one.reason is Reason.COMPELLED:
        return DisclosedOutcome.COMPELLED
    return DisclosedOutcome.LATE if one.late else DisclosedOutcome.REFUSED


def _accepts(chain: JsonRpcChain, consent: DisclosedConsent) -> bool | None:
    """Whether the subject's own code takes the signature; False if it has none, None if it does not take it."""
    subject = consent.grant.subject
    try:
        if not chain.is_contract(subject):
            return False
        return chain.accepts_signature(subject, consent.consent_id, consent.signature) or None
    except ChainError:
        return None


# ------------------------------------------------------------------------------------------------ bundles and receipts


def _bundled(
    one: DisclosedEntry, disclosure: Disclosure, keys: Keyring, has: Callable[[int, Hex32], bool]
) -> BundledEntry | str:
    assert one.bundle is not None, "only of an entry with a bundle"
    error = "there is no key of the custodian to check it with"
    for key in custodian_keys(disclosure, keys, one.bundle.get("receipt")):
        try:
            proven = verify_bundle(one.bundle, key, domain=disclosure.domain, block_hash=None)
            claims = open_receipt(one.bundle["receipt"], key).proof
        except AuditError as exc:
            error = exc.message
            continue
        return BundledEntry(
            entry=proven.entry,
            late=proven.late,
            block_number=proven.block_number,
            block_hash=proven.block_hash,
            at=proven.timestamp,
            anchored=has(proven.block_number, proven.block_hash),
            claims=claims,
        )
    return error


def _receipts(disclosure: Disclosure, keys: Keyring, chain: JsonRpcChain | None) -> dict[Hex32, ReceivedEntry | str]:
    return {
        one.entry_hash: _received(one, custodian_keys(disclosure, keys, one.receipt), disclosure.domain, chain)
        for one in disclosure.entries
        if one.receipt is not None
    }


def _received(
    one: DisclosedEntry, keys: Iterable[ECKey], domain: Domain, chain: JsonRpcChain | None
) -> ReceivedEntry | str:
    assert one.receipt is not None, "only of an entry with a receipt"
    error = "there is no key of the custodian to check it with"
    for key in keys:
        try:
            opened = open_receipt(one.receipt, key)
        except AuditError as exc:
            error = exc.message
            continue
        about = (opened.proof.get("chainId"), opened.proof.get("contract"))
        if about != (domain.chain_id, domain.contract):
            return "the receipt is about another chain or contract"
        try:
            if chain is not None and one.outcome is not DisclosedOutcome.REFUSED:
                verify_receipt(one.receipt, chain, key)
        except AuditError as exc:
            return exc.message
        return ReceivedEntry(entry=opened.entry, late=opened.late, claims=opened.proof, key=key)
    return error
