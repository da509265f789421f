"""What an audit says: what was checked, what was found, and the numbers. Pure data, no judgement of its own.

The verdict follows from the rest and is never set by hand: whatever was not checked makes it "could not verify",
whatever does not hold makes it "findings". It is about one block: nothing later, and nothing that is not on that chain.

As JSON (`AuditReport.as_json`, read again in `audit_reader.py`) every field has its own name in camel case. Times are
Unix seconds, with the same in RFC 3339 beside them under the name with `Iso` behind it; days are days since 1970-01-01,
with `date` beside them; accounts, ids and hashes are hex; states, reasons and the verdict are lower-case words. Of
endpoints only scheme, host and port are in it: a path or a query may be somebody's key.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from ledger.consent import Address, Domain, Hex32, Reason, State
from ledger.json_forms import camel_case, iso_date, iso_time, origin_of

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

REPORT_VERSION: Final = 1
HEADERS: Final = "headers"
"""The check that every header was read and linked; who asks for less leaves it open and reads the rest all the same."""
MAX_LISTED: Final = 1_000
"""How many findings of one code, and how many consents, a report lists; all are counted."""
_TIMES: Final = frozenset(
    {"timestamp", "at", "last_at", "valid_from", "expires_at", "granted_at", "revoked_at", "last_access_at"}
    | {"embargo_until"}
)


class Verdict(StrEnum):
    """What an audit comes to."""

    CLEAN = "clean"
    FINDINGS = "findings"
    UNVERIFIED = "could_not_verify"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing to be checked. `holds` is None if it could not be; `detail` says what was compared, or why not."""

    name: str
    holds: bool | None
    detail: str


def verdict_of(checks: Iterable[Check], *, found: bool) -> Verdict:
    """What checks come to: what was `found` weighs most, and where nothing was checked nothing is verified."""
    outcomes = {check.holds for check in checks}
    if found or False in outcomes:
        return Verdict.FINDINGS
    return Verdict.CLEAN if outcomes == {True} else Verdict.UNVERIFIED


def are_facts(checks: Sequence[Check]) -> bool:
    """Whether what an audit read can be used, whatever its verdict: all holds, but for headers that were left out."""
    if not checks or (checks[-1].name == HEADERS and not checks[-1].holds):
        # It did not get beyond them.
        return False
    return all(check.holds or (check.name == HEADERS and check.holds is None) for check in checks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is not as it must be. `code` is stable; `at` is the block's time in Unix seconds."""

    code: str
    detail: str
    block_number: int | None = None
    at: int | None = None
    consent_id: Hex32 | None = None
    writer: Address | None = None
    entry_hash: Hex32 | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedBlock:
    """The block that everything is about. `timestamp` is Unix seconds. `given`: the auditor brought the hash along."""

    number: int
    block_hash: Hex32
    timestamp: int
    given: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DayCounts:
    """One UTC day (days since 1970-01-01) of all logs. `granted` and `revoked` count consents, the others entries."""

    day: int
    granted: int = 0
    revoked: int = 0
    recorded: int = 0
    refused: int = 0
    late: int = 0
    compelled: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSummary:
    """One writer's log at the block. `entries` by kind add up to `size`."""

    custodian: Address
    writer: Address
    allowed: bool
    size: int
    head: Hex32
    batches: int
    last_at: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsentSummary:
    """One consent as the chain alone shows it. Times are Unix seconds of blocks."""

    consent_id: Hex32
    subject: Address | None
    custodian: Address | None
    state: State
    valid_from: int
    expires_at: int
    max_accesses: int
    recorded: int
    refused: int
    late: int
    granted_at: int | None
    revoked_at: int | None
    last_access_at: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Embargo:
    """Compelled accesses of one order, and until when the person may not be told (Unix seconds; 0: not kept at all)."""

    order_hash: Hex32
    entries: int
    at: int
    embargo_until: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Everything counted, also what is not listed."""

    blocks: int = 0
    consents: int = 0
    in_force: int = 0
    paused: int = 0
    revoked: int = 0
    expired: int = 0
    exhausted: int = 0
    batches: int = 0
    recorded: int = 0
    refused: int = 0
    late: int = 0
    compelled: int = 0
    accesses_after_revocation: int = 0
    used_and_revoked: int = 0

    @property
    def entries(self) -> int:
        """All entries of all logs."""
        return self.recorded + self.refused + self.late + self.compelled


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """The whole of it. `findings` and `consents` are listed up to `MAX_LISTED`; `finding_counts` and `totals` have all.

    `revocation_gaps` are seconds from the last recorded access of a consent to its revocation, for those that were used
    and revoked (`totals` has how many): a negative one would be an access after the revocation. `institutions` is empty
    unless openings were handed in; it counts recorded entries by institution.
    """

    domain: Domain
    block: AuditedBlock | None
    endpoints: tuple[str, ...]
    made_at: int
    checks: tuple[Check, ...]
    findings: tuple[Finding, ...] = ()
    finding_counts: Mapping[str, int] = field(default_factory=dict)
    totals: Totals = field(default_factory=Totals)
    refusals_by_reason: Mapping[Reason, int] = field(default_factory=dict)
    days: tuple[DayCounts, ...] = ()
    logs: tuple[LogSummary, ...] = ()
    consents: tuple[ConsentSummary, ...] = ()
    revocation_gaps: tuple[int, ...] = ()
    compelled: tuple[Embargo, ...] = ()
    institutions: Mapping[str, int] = field(default_factory=dict)
    resumed_from: int | None = None

    @property
    def verdict(self) -> Verdict:
        """Nothing is clean that is about no block."""
        verdict = verdict_of(self.checks, found=bool(self.finding_counts or self.findings))
        return Verdict.UNVERIFIED if verdict is Verdict.CLEAN and self.block is None else verdict

    def by_code(self) -> list[tuple[str, int]]:
        """Every code with its count, the most frequent first; also of one that is listed and was not counted."""
        counts = {**Counter(finding.code for finding in self.findings), **self.finding_counts}
        return sorted(counts.items(), key=lambda one: -one[1])

    def as_json(self) -> dict[str, Any]:
        """The report for machines; `version` counts changes of its form."""
        return {
            "version": REPORT_VERSION,
            "verdict": self.verdict.value,
            "chainId": self.domain.chain_id,
            "contract": self.domain.contract,
            "madeAt": self.made_at,
            "madeAtIso": iso_time(self.made_at),
            "endpoints": [origin_of(url) for url in self.endpoints],
            "block": None if self.block is None else fields_of(self.block),
            "resumedFrom": self.resumed_from,
            "checks": [fields_of(check) for check in self.checks],
            "findingCounts": dict(self.finding_counts),
            "findings": [fields_of(finding) for finding in self.findings],
            "totals": fields_of(self.totals) | {"entries": self.totals.entries},
            "refusalsByReason": {reason.name.lower(): count for reason, count in self.refusals_by_reason.items()},
            "days": [fields_of(one) for one in self.days],
            "logs": [fields_of(log) for log in self.logs],
            "consents": [fields_of(consent) for consent in self.consents],
            "revocationGaps": list(self.revocation_gaps),
            "compelled": [fields_of(one) for one in self.compelled],
            "institutions": dict(self.institutions),
        }


# ---------------------------------------------------------------------------------------------------------------- JSON


def fields_of(one: DataclassInstance) -> dict[str, Any]:
    """A part of the report for machines: names in camel case, and every time twice, in Unix seconds and ISO 8601."""
    made: dict[str, Any] = {}
    for each in fields(one):
        name, value = camel_case(each.name), getattr(one, each.name)
        made[name] = value.name.lower() if isinstance(value, IntEnum) else value
        if each.name in _TIMES and value is not None:
            made[f"{name}Iso"] = iso_time(value)
        elif each.name == "day":
            made["date"] = iso_date(value)
    return made


# -------------------------------------------------------------------------------------------------- what was looked for


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedEntry:
    """One entry of a consent that was looked for, as its block's receipts prove it. `at` is the block's time."""

    consent_id: Hex32
    entry_hash: Hex32
    reason: Reason
    late: bool
    custodian: Address
    writer: Address
    block_number: int
    at: int
    transaction_hash: Hex32
    log_index: int

    @property
    def let_out(self) -> bool:
        """Whether data may have gone out: recorded, late, or by order."""
        return self.late or self.reason in (Reason.NONE, Reason.COMPELLED)


class LoggedEntry(Protocol):
    """An entry on a log, however much is known of it."""

    @property
    def consent_id(self) -> Hex32:
        """The consent, or the order."""

    @property
    def entry_hash(self) -> Hex32:
        """Its hash."""

    @property
    def let_out(self) -> bool:
        """Whether data may have gone out."""


Entry = TypeVar("Entry", bound=LoggedEntry)


def without_overtaken_refusals(entries: Sequence[Entry]) -> list[Entry]:
    """All but refusals of what stands elsewhere as let out.

    A reorganisation may move a batch to a block where a consent has ended: it is refused there, and comes back late.
    """
    let_out = {(one.consent_id, one.entry_hash) for one in entries if one.let_out}
    return [one for one in entries if one.let_out or (one.consent_id, one.entry_hash) not in let_out]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsentChange:
    """One change of a consent that was looked for. `what` is granted, revoked, paused or resumed; `by` who revoked."""

    consent_id: Hex32
    what: str
    by: Address | None
    block_number: int
    at: int
    transaction_hash: Hex32


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierLog:
    """How a writer's log was at an earlier block, from a checkpoint. Those of one block name every log with entries."""

    block_number: int
    block_hash: Hex32
    custodian: Address
    writer: Address
    size: int
    head: Hex32
