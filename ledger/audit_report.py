"""What an audit says: what was checked, what was found, and the numbers. Pure data, no judgement of its own.

The verdict follows from the rest and is never set by hand: whatever was not checked makes it "could not verify", whatever
does not hold makes it "findings". It is about one block: nothing later, and nothing that is not on that chain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from ledger.consent import Address, Domain, Hex32, Reason, State

REPORT_VERSION: Final = 1
MAX_LISTED: Final = 1_000
"""How many findings of one code, and how many consents, a report lists; all are counted."""


class Verdict(StrEnum):
    """What an audit comes to."""

    CLEAN = "clean"
    FINDINGS = "findings"
    UNVERIFIED = "could_not_verify"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was to be checked. `holds` is None if it could not be; `detail` says what was compared, or why not."""

    name: str
    holds: bool | None
    detail: str


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
    """Compelled accesses of one order, and until when they may be kept from the person (Unix seconds; 0: not at all)."""

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

    @property
    def entries(self) -> int:
        """All entries of all logs."""
        return self.recorded + self.refused + self.late + self.compelled


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """The whole of it. `findings` and `consents` are listed up to `MAX_LISTED`; `finding_counts` and `totals` have all.

    `revocation_gaps` are seconds from the last recorded access of a consent to its revocation, one for each revoked
    consent that was used: a negative one would be an access after the revocation. `institutions` is empty unless
    openings were handed in; it counts recorded entries by institution.
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
        """Findings weigh more than what could not be checked."""
        if self.finding_counts or self.findings or any(check.holds is False for check in self.checks):
            return Verdict.FINDINGS
        if not self.checks or self.block is None or any(check.holds is None for check in self.checks):
            return Verdict.UNVERIFIED
        return Verdict.CLEAN

    def as_json(self) -> dict[str, Any]:
        """The report for machines; `version` counts changes of its form."""
        raise NotImplementedError


# --------------------------------------------------------------------------------------------------- what was looked for


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
    """A point that a writer's log had reached by an earlier block, from a checkpoint: it must have passed there."""

    block_number: int
    block_hash: Hex32
    custodian: Address
    writer: Address
    size: int
    head: Hex32
