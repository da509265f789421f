"""A person's own audit: what the custodian told them, against what the chain shows under their consents. Pure.

The chain alone says which consents an account gave and every access under them, refused and late ones too, but not
what was read: for that the person has the openings in their export. So three things can show:

- an access, or a consent, that is on chain and that the person was not told of;
- one that they were told of and that is not on chain, or is something else there, or stands there twice;
- an access beyond what they agreed to.

What came to the chain after the export was made cannot be in it: a newer export has to tell.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ledger.access import AccessEntry
from ledger.audit_report import AuditedBlock, Check, Finding, Verdict, verdict_of
from ledger.compelled import CompelledOrder
from ledger.consent import Domain, Hex32, is_text, parse_hex32
from ledger.disclosed_entry import check_opening, check_order, check_outcome, check_subject, check_terms
from ledger.disclosure import (
    DisclosedConsent,
    DisclosedEntry,
    DisclosedOutcome,
    read_consent,
    read_opening,
    read_order,
)
from ledger.errors import MalformedError
from ledger.scrutiny import Facts, FoundEntry, Marks

PENDING: Final = "pending"
UNKNOWN: Final = "unknown"
_REFUSED: Final = "refused"
_RELEASED: Final = "released"
_WAITING: Final = "waiting"
JUST_NOW_SECONDS: Final = 60
"""So near to each other neither the block's time nor the custodian's clock tells which came first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldAccess:
    """An access as the export tells of it. `outcome` is the portal's word; `on_chain` whether it says so."""

    entry_hash: Hex32
    entry: AccessEntry
    outcome: str
    reason: str | None
    on_chain: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a person was told. `told_at` is Unix seconds; `states` are the consents' by the custodian's word."""

    told_at: int
    consents: tuple[DisclosedConsent, ...]
    states: Mapping[Hex32, str]
    accesses: tuple[ToldAccess, ...]
    orders: tuple[CompelledOrder, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectAccess:
    """One access under the person's consents. `entry` is None where nothing opens it; `at` is its block's time."""

    entry_hash: Hex32
    consent_id: Hex32
    outcome: DisclosedOutcome | None
    entry: AccessEntry | None
    at: int | None
    checks: tuple[Check, ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedSubject:
    """The whole of it, the accesses in the order of the chain, what is not on it at the end."""

    domain: Domain
    block: AuditedBlock | None
    checks: tuple[Check, ...]
    findings: tuple[Finding, ...]
    accesses: tuple[SubjectAccess, ...]

    @property
    def all_checks(self) -> list[Check]:
        """Those of the accesses as well."""
        return [*self.checks, *(check for one in self.accesses for check in one.checks)]

    @property
    def all_findings(self) -> list[Finding]:
        """Those of the accesses as well."""
        return [*self.findings, *(found for one in self.accesses for found in one.findings)]

    @property
    def verdict(self) -> Verdict:
        """Of everything in it."""
        return verdict_of(self.all_checks, found=bool(self.all_findings))


def read_export(document: Mapping[str, Any]) -> Told:
    """The parts of a person's export that matter here. Raises `MalformedError` if it is none."""
    try:
        # Not there in exports of a version that knew of none.
        orders = document.get("orders", [])
        consents = tuple(
            read_consent(
                {"consent": one["consentId"], "grant": one["grant"], "signature": one["signature"]}, "consents"
            )
            for one in document["consents"]
        )
        return Told(
            told_at=int(document["exportedAt"]),
            consents=consents,
            states={one["consentId"]: str(one["state"]) for one in document["consents"]},
            accesses=tuple(
                ToldAccess(
                    entry_hash=parse_hex32(one["entryHash"], "activity.entryHash"),
                    entry=read_opening(one["entry"], "activity"),
                    outcome=str(one["outcome"]),
                    reason=_text_or_none(one.get("reason"), "activity.reason"),
                    on_chain=one["place"] is not None,
                )
                for one in [*document["activity"], *orders]
            ),
            orders=tuple(read_order(one["order"], "orders") for one in orders),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as exc:
        raise MalformedError("export: expected the export of a person's data", field="export") from exc


def _text_or_none(value: object, field: str) -> str | None:
    if value is None or is_text(value):
        return value
    raise MalformedError(f"{field}: expected text or null", field=field)


def judge_subject(told: Told | None, facts: Facts, *, domain: Domain) -> JudgedSubject:
    """Compare. Without `told` the accesses are only listed. Raises nothing: what does not hold is in the result."""
    whole = Marks()
    whole.checks += facts.checks
    whole.findings += facts.findings
    accesses: list[SubjectAccess] = []
    if facts.entries is None:
        whole.unknown("accesses", "the chain did not show them")
    else:
        accesses += [_access(one, told, facts.embargoes) for one in facts.entries]
        _doubles(facts.entries, whole)
        if told is not None:
            _consents(told, facts, domain, whole)
            accesses += _not_on_chain(told, facts)
    return JudgedSubject(
        domain=domain,
        block=facts.block,
        checks=tuple(whole.checks),
        findings=tuple(whole.findings),
        accesses=tuple(accesses),
    )


def _access(found: FoundEntry, told: Told | None, embargoes: Mapping[Hex32, int]) -> SubjectAccess:
    marks = Marks(
        block_number=found.place.block_number,
        at=found.at,
        consent_id=found.consent_id,
        writer=found.place.writer,
        entry_hash=found.entry_hash,
    )
    mine = [one for one in told.accesses if one.entry_hash == found.entry_hash] if told else []
    if told is not None and not mine:
        if found.at <= told.told_at:
            marks.differs("told", "access_untold", f"an access that you were not told of: {found.outcome}")
        else:
            marks.unknown("told", "it came after your export: make a new one")
    elif told is None and found.outcome is DisclosedOutcome.LATE:
        marks.differs("outcome", "late", "logged after the fact, when its consent was no longer in force")
    if told is not None and mine:
        _told_access(mine[0], found, told, embargoes, marks)
    return SubjectAccess(
        entry_hash=found.entry_hash,
        consent_id=found.consent_id,
        outcome=found.outcome,
        entry=mine[0].entry if mine else None,
        at=found.at,
        checks=tuple(marks.checks),
        findings=tuple(marks.findings),
    )


def _doubles(entries: tuple[FoundEntry, ...], whole: Marks) -> None:
    """The chain alone shows them: an entry has a salt of its own, so that no two are alike."""
    for (consent_id, entry_hash), times in Counter((it.consent_id, it.entry_hash) for it in entries).items():
        if times > 1:
            said = f"an access stands on the log {times} times"
            whole.differs("accesses", "double_entry", said, consent_id=consent_id, entry_hash=entry_hash)


def _told_access(one: ToldAccess, found: FoundEntry, told: Told, embargoes: Mapping[Hex32, int], marks: Marks) -> None:
    marks.holds("told", "you were told of it")
    entry = DisclosedEntry(
        entry_hash=one.entry_hash,
        entry=one.entry,
        outcome=found.outcome,
        place=found.place,
        reason=one.reason if found.outcome is DisclosedOutcome.REFUSED else None,
    )
    check_opening(entry, marks)
    _told_outcome(one, entry, found, told.told_at, marks)
    if found.outcome is DisclosedOutcome.COMPELLED:
        check_order(entry, told.orders, embargoes, marks)
        return
    if one.entry.consent_id != found.consent_id:
        marks.differs("terms", "consent_differs", "it was logged under another consent than you were told")
        return
    grants = {it.consent_id: it.grant for it in told.consents}
    check_terms(entry, grants.get(found.consent_id), marks)


def _told_outcome(one: ToldAccess, entry: DisclosedEntry, found: FoundEntry, told_at: int, marks: Marks) -> None:
    refused = found.outcome is DisclosedOutcome.REFUSED
    same = one.outcome == (_REFUSED if refused else _RELEASED)
    if not one.on_chain and not same and found.at < told_at - JUST_NOW_SECONDS:
        said = f"you were told that it was {one.outcome}, and not on the log: it was there, {found.outcome}"
        marks.differs("outcome", "outcome_differs", said)
    elif not one.on_chain and one.outcome == _WAITING:
        marks.unknown("outcome", f"you were told that it was waiting, and it is {found.outcome} now: make a new export")
    elif (one.outcome == _REFUSED) is not refused:
        said = f"you were told that it was {one.outcome}, on chain it is {found.outcome}"
        marks.differs("outcome", "outcome_differs", said)
    elif not one.on_chain and found.at <= told_at:
        marks.unknown("outcome", "you were told that it was not on the log yet: make a new export")
    else:
        check_outcome(entry, found.reason, marks)


def _consents(told: Told, facts: Facts, domain: Domain, whole: Marks) -> None:
    known = {one.consent_id for one in told.consents}
    for one in told.consents:
        state = told.states.get(one.consent_id)
        if one.consent_id not in facts.subjects and state in (PENDING, UNKNOWN):
            whole.unknown("consent", f"{one.consent_id} is {state} by your export, and not on chain")
        else:
            check_subject(one, facts, domain, whole)
    for consent_id in facts.subjects:
        if consent_id in known:
            continue
        granted = next(it.at for it in facts.changes if it.consent_id == consent_id and it.what == "granted")
        if granted <= told.told_at:
            said = "a consent of yours that you were not told of"
            whole.differs("consent", "consent_untold", said, consent_id=consent_id, at=granted)
        else:
            whole.unknown("consent", f"{consent_id} came after your export: make a new one")


def _not_on_chain(told: Told, facts: Facts) -> list[SubjectAccess]:
    """What the export has and the chain does not."""
    there = {one.entry_hash for one in facts.entries or ()}
    missing: list[SubjectAccess] = []
    for one in told.accesses:
        if one.entry_hash in there:
            continue
        marks = Marks(consent_id=one.entry.consent_id, entry_hash=one.entry_hash)
        if one.on_chain or one.outcome == _RELEASED:
            said = "you were told that it is on the log, and it is not on chain under your consents"
            marks.differs("place", "entry_not_on_chain", said)
        else:
            marks.holds("place", f"not on chain, as you were told: {one.outcome}")
        missing.append(
            SubjectAccess(
                entry_hash=one.entry_hash,
                consent_id=one.entry.consent_id,
                outcome=None,
                entry=one.entry,
                at=None,
                checks=tuple(marks.checks),
                findings=tuple(marks.findings),
            )
        )
    return missing
