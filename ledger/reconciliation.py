"""What a reconciliation compares, and what it comes to. Pure data; `reconcile.py` holds one against the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ledger.audit_report import AuditedEntry, Check, Finding, Verdict, verdict_of
from ledger.consent import Hex32
from ledger.unwraps import Counted

EXPLANATIONS: Final = {
    "released": "released, recorded on chain and opened once",
    "released_late": "released, and put back on chain after a reorganisation when the consent had ended",
    "ordered": "handed out by order of an authority, logged as such",
    "erased": "opening destroyed since: that it was opened is counted, how much is not comparable any more",
    "resumed": "opened again, because the first try did not come to its end",
    "opened_then_stopped": "opened and not released: it was revoked, or failed, before the answer was on file",
    "logged_not_released": "logged, then revoked or given up: never opened, or stopped before it went out",
    "resumable": "logged, and waiting for its institution to come back or for the time limit",
    "waiting": "on file, not logged yet",
    "refused": "refused by the contract, logged as such",
    "refused_unread": "refused by the contract, and not yet so in the journal: in flight, or cut short by a crash",
    "refused_here": "refused by the custodian, logged as such",
    "refusals_waiting": "refused by the custodian, to be logged by the next sync",
    "before_counting": "released before unwraps were counted",
    "lost_with_machine": "released, and the line went down with the machine in the last seconds before it stopped",
    "receipts": "receipts that agree with chain and journal",
}
"""What each number counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnFile:
    """A row of the journal. `attributes` and `mark` (of the envelopes) are None where the opening was destroyed.

    `answered`: an answer was sealed, or its receipt signed. `altered` says what in the row contradicts its opening.
    `newer`: put on file after the unwraps and the chain were read. Times are Unix seconds.
    """

    release_id: Hex32
    entry_hash: Hex32
    consent_id: Hex32
    state: str
    reached_log: bool
    answered: bool
    finished_at: int | None
    attributes: int | None
    mark: str | None
    ordered: bool = False
    newer: bool = False
    altered: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedIn:
    """A receipt as an institution handed it in. `invalid` says why it is none: then the rest is not known."""

    name: str
    entry_hash: Hex32 | None = None
    release_id: Hex32 | None = None
    invalid: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """Everything that is compared. `since`: from when unwraps were counted. `entries` are this custodian's."""

    entries: Sequence[AuditedEntry]
    on_file: Sequence[OnFile]
    counted: Counted
    since: int
    receipts: Sequence[HandedIn] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    """What it comes to. `numbers` has what agreed and what was explained; `unwraps` how many there were, by use.

    `end` is where the journal of unwraps ends: who keeps it can show later that nothing was taken away before it.
    """

    checks: tuple[Check, ...]
    findings: tuple[Finding, ...]
    numbers: Mapping[str, int]
    unwraps: Mapping[str, int]
    end: str

    @property
    def verdict(self) -> Verdict:
        """As of every audit."""
        return verdict_of(self.checks, found=bool(self.findings))

    @property
    def differences(self) -> dict[str, int]:
        """How many findings of each code."""
        return dict(sorted(Counter(finding.code for finding in self.findings).items()))

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "version": 1,
            "verdict": self.verdict.value,
            "checks": [{"name": one.name, "holds": one.holds, "detail": one.detail} for one in self.checks],
            "differences": self.differences,
            "findings": [
                {"code": one.code, "detail": one.detail, "entryHash": one.entry_hash, "consent": one.consent_id}
                for one in self.findings
            ],
            "numbers": dict(self.numbers),
            "unwraps": dict(self.unwraps),
            "unwrapsEnd": self.end,
        }


def differences_of(findings: Sequence[Finding]) -> Iterator[str]:
    """Each finding in a line."""
    for finding in findings:
        about = f" (entry {finding.entry_hash})" if finding.entry_hash else ""
        yield f"{finding.code}: {finding.detail}{about}"
