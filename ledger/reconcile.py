"""Reconciliation: what the custodian's keys opened and its journal says, held against the log on chain. Pure.

Four accounts of the same accesses must agree:

- the entries on chain, as an audit has proven them,
- the journal: what was released, refused, or logged and then not released,
- the unwraps of attributes, counted by the key service (`unwraps.py`),
- the receipts that institutions hand in.

Each difference is a finding or has an explanation that is counted: an entry that was logged and not released (a crash,
or a revocation that came in between), a release that was resumed, data that were erased, lines that went down with the
machine. What it cannot show: a custodian that reads the KEK with another program, which no line counts, and releases
nothing through this service; and whether what was opened for the person's own view or to compare was opened for that.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Final

from ledger.audit_report import AuditedEntry, Check, Finding, are_facts, without_overtaken_refusals
from ledger.consent import Hex32, Reason
from ledger.envelope import ORDER, ORDER_RESUMED, RELEASE, RELEASE_RESUMED, USES
from ledger.reconciliation import EXPLANATIONS, OnFile, Reconciliation, Sides
from ledger.unwraps import NOTHING, START, Gap, Line

RESUME_SECONDS: Final = 10
"""How long after the time on file a release may have been opened: that time is taken just before."""
LOST_SECONDS: Final = 60
"""The journal of unwraps is flushed about every second; a machine that stops loses no more than this, by far."""
BY_ORDER: Final = frozenset({ORDER, ORDER_RESUMED})
RESUMED: Final = frozenset({RELEASE_RESUMED, ORDER_RESUMED})
OF_ATTRIBUTES: Final = frozenset({RELEASE, ORDER, *RESUMED})

INTENT: Final = "intent"
RECORDED: Final = "recorded"
RELEASED: Final = "released"
REFUSED: Final = "refused"
ABORTED: Final = "aborted"


def reconcile(sides: Sides, checks: Sequence[Check] = ()) -> Reconciliation:
    """Hold the accounts against each other. `checks` are those of the audit that proved the entries.

    Where they are no facts there is nothing to compare with: what could not be read is no difference.
    """
    checks = checks or [Check(name="chain", holds=None, detail="nothing was proven of the chain")]
    work = _Work(sides)
    if are_facts(checks):
        work.entries_and_rows()
        work.unwraps()
        work.receipts()
    work.journal()
    counted = sides.counted
    sound = not counted.altered and all(gap.machine_stopped for gap in counted.gaps)
    detail = f"{len(counted.lines)} lines, the last one number {counted.head.seq}"
    return Reconciliation(
        checks=(*checks, Check(name="unwraps", holds=sound, detail=detail)),
        findings=tuple(work.findings),
        numbers={name: work.numbers[name] for name in EXPLANATIONS if work.numbers[name]},
        unwraps=counted.by_use(),
        end=f"{counted.head.seq}:{counted.head.mac}",
    )


class _Work:
    def __init__(self, sides: Sides) -> None:
        self._sides = sides
        self._rows = {row.entry_hash: row for row in sides.on_file}
        self._by_release = {row.release_id: row for row in sides.on_file}
        self._entries: dict[Hex32, AuditedEntry] = {}
        self._lines: defaultdict[str, list[Line]] = defaultdict(list)
        for line in sides.counted.lines:
            if line.about != NOTHING and line.use in OF_ATTRIBUTES:
                self._lines[line.about].append(line)
        self._uncounted: list[OnFile] = []
        self.findings: list[Finding] = []
        self.numbers: Counter[str] = Counter()

    def _find(self, code: str, detail: str, row: OnFile | None = None, entry: AuditedEntry | None = None) -> None:
        self.findings.append(
            Finding(
                code=code,
                detail=detail,
                entry_hash=entry.entry_hash if entry else row.entry_hash if row else None,
                consent_id=entry.consent_id if entry else row.consent_id if row else None,
                block_number=entry.block_number if entry else None,
                at=entry.at if entry else None,
                writer=entry.writer if entry else None,
            )
        )

    # ------------------------------------------------------------------------------------------ the log and the journal

    def entries_and_rows(self) -> None:
        """Every entry has its row, every row what the chain says of it."""
        for entry in without_overtaken_refusals(self._sides.entries):
            if entry.entry_hash in self._entries:
                self._find("double_entry", "an entry stands on the log twice", entry=entry)
            self._entries[entry.entry_hash] = entry
            if entry.entry_hash not in self._rows:
                self._find("entry_not_on_file", "an entry on the log that the journal does not have", entry=entry)
        for row in self._sides.on_file:
            if row.altered:
                self._find("row_altered", row.altered, row)
            entry_of_row = self._entries.get(row.entry_hash)
            if entry_of_row and entry_of_row.consent_id != row.consent_id:
                self._find("row_altered", "the journal names another consent than the log", row, entry_of_row)
            if entry_of_row and (entry_of_row.reason is Reason.COMPELLED) != row.ordered:
                self._find("row_altered", "by order on one side and not on the other", row, entry_of_row)
            if not row.newer:
                self._judge(row, entry_of_row)

    def _judge(self, row: OnFile, entry: AuditedEntry | None) -> None:
        went_out = row.state == RELEASED or row.answered
        if went_out and not is_recorded(entry):
            self._find("unlogged_release", "released, and not recorded on chain", row, entry)
        elif row.answered and row.state != RELEASED:
            self._find("row_altered", f"an answer was sealed, and the journal says {row.state}", row, entry)
        elif row.state == RELEASED:
            self._count_released(row, entry)
        elif is_recorded(entry):
            if row.state == REFUSED:
                self._find("row_altered", "recorded on chain, and refused by the journal", row, entry)
            else:
                self.numbers["logged_not_released" if row.state == ABORTED else "resumable"] += 1
        elif entry is not None:
            self._judge_refused(row, entry)
        elif row.reached_log or row.state == RECORDED:
            detail = (
                "on the log by the journal, and not on chain (if the chain lost it: run `consent-ledger sync` first)"
            )
            self._find("entry_not_on_chain", detail, row)
        elif row.state in (REFUSED, INTENT):
            self.numbers["refusals_waiting" if row.state == REFUSED else "waiting"] += 1

    def _judge_refused(self, row: OnFile, entry: AuditedEntry) -> None:
        by_contract = entry.reason is not Reason.BY_CUSTODIAN
        if row.state == REFUSED:
            self.numbers["refused" if by_contract else "refused_here"] += 1
        elif row.state in (INTENT, ABORTED) and by_contract:
            # Read before its batch landed, or the service stopped in between; the next sync takes it over.
            self.numbers["refused_unread"] += 1
        else:
            self._find("row_altered", f"refused on chain, and {row.state} by the journal", row, entry)

    def _count_released(self, row: OnFile, entry: AuditedEntry | None) -> None:
        assert entry is not None
        name = "ordered" if row.ordered else "released_late" if entry.late else "released"
        self.numbers[name] += 1
        if row.attributes is None:
            self.numbers["erased"] += 1

    # ---------------------------------------------------------------------------------------------- the key's own count

    def unwraps(self) -> None:
        """Every line has its release; every release its lines."""
        for release_id, lines in self._lines.items():
            row = self._by_release.get(Hex32(release_id))
            if row is None:
                number = sum(line.number for line in lines)
                self._find("unexplained_unwrap", f"{number} attributes opened for a release that is not on file")
            elif not is_recorded(self._entries.get(row.entry_hash)):
                self._find("unexplained_unwrap", "opened for a release that is not recorded on chain", row)
            else:
                self._explain(row, lines)
        for row in self._sides.on_file:
            if row.state == RELEASED and not row.newer and is_recorded(self._entries.get(row.entry_hash)):
                self._require_counted(row)
        self._lost_or_not()

    def _explain(self, row: OnFile, lines: Sequence[Line]) -> None:
        first = sum(line.number for line in lines if line.use not in RESUMED)
        again = [line for line in lines if line.use in RESUMED]
        if any((line.use in BY_ORDER) != row.ordered for line in lines):
            self._find("unexplained_unwrap", "opened as what it is not: an order, or a release", row)
        elif row.attributes is not None and (
            first > row.attributes or any(line.number > row.attributes for line in again)
        ):
            opened = first + sum(line.number for line in again)
            self._find("unexplained_unwrap", f"{opened} opened for a release of {row.attributes} attributes", row)
        elif row.finished_at is not None and any(line.at > row.finished_at + RESUME_SECONDS for line in lines):
            self._find("unexplained_unwrap", "opened again after the release had ended", row)
        elif any(self._is_of_others(row, line) for line in lines):
            self._find("unexplained_unwrap", "opened for it: other envelopes than its entry's", row)
        else:
            self.numbers["resumed"] += bool(again)
            self.numbers["opened_then_stopped"] += row.state != RELEASED

    def _is_of_others(self, row: OnFile, line: Line) -> bool:
        """As far as it can be compared: of the whole release, and wrapped under the same KEK still."""
        if NOTHING in (line.of, row.mark) or row.mark is None or line.number != row.attributes:
            return False
        same_kek = line.of.split(":")[0] == row.mark.split(":")[0]
        return same_kek and line.of != row.mark

    def _require_counted(self, row: OnFile) -> None:
        lines = self._lines.get(row.release_id, ())
        if row.finished_at is not None and row.finished_at < self._sides.since:
            self.numbers["before_counting"] += 1
        elif not lines or sum(line.number for line in lines) < (row.attributes or 1):
            self._uncounted.append(row)

    def _lost_or_not(self) -> None:
        stops = [gap for gap in self._sides.counted.gaps if gap.machine_stopped]
        last: dict[int, int] = {}
        for row in self._uncounted:
            for place, gap in enumerate(stops):
                if within(row, gap):
                    last[place] = max(last.get(place, 0), row.finished_at or 0)
        for row in self._uncounted:
            if any(
                within(row, stops[place]) and (row.finished_at or 0) > at - LOST_SECONDS for place, at in last.items()
            ):
                self.numbers["lost_with_machine"] += 1
            else:
                self._find(
                    "uncounted_release", "released, and the key service did not count what it opened for it", row
                )

    # --------------------------------------------------------------------------------------------------- the other side

    def receipts(self) -> None:
        """Every receipt has its entry and its release."""
        for receipt in self._sides.receipts:
            if receipt.invalid is not None or receipt.entry_hash is None:
                self._find("receipt_invalid", f"{receipt.name}: {receipt.invalid}")
                continue
            entry, row = self._entries.get(receipt.entry_hash), self._rows.get(receipt.entry_hash)
            if not is_recorded(entry):
                self._find("receipt_not_on_chain", f"{receipt.name}: its entry is not recorded on chain", row, entry)
            elif row is None or row.release_id != receipt.release_id:
                self._find("receipt_not_on_file", f"{receipt.name}: the journal does not have it", row, entry)
            elif row.state != RELEASED:
                self._find("receipt_not_on_file", f"{receipt.name}: the journal says {row.state}", row, entry)
            else:
                self.numbers["receipts"] += 1

    def journal(self) -> None:
        """The journal of unwraps itself: nothing in it was altered, and everything is for something."""
        for what in self._sides.counted.altered:
            self._find("unwraps_altered", what)
        for gap in self._sides.counted.gaps:
            if not gap.machine_stopped:
                self._find("unwraps_cut", f"{gap.number} lines are missing after line {gap.seq}")
        nameless: Counter[str] = Counter()
        for line in self._sides.counted.lines:
            if line.use not in USES | {START} or (line.use in OF_ATTRIBUTES and line.about == NOTHING):
                nameless[line.use] += line.number
        for use, number in sorted(nameless.items()):
            said = "without saying for which" if use in USES else "a use that there is not"
            self._find("unexplained_unwrap", f"{number} opened for {use}, {said}")


def is_recorded(entry: AuditedEntry | None) -> bool:
    """Whether an entry says that data may have gone out: recorded, late, or by order."""
    return entry is not None and entry.let_out


def within(row: OnFile, gap: Gap) -> bool:
    """Whether a release ended while lines were lost."""
    return row.finished_at is not None and gap.after <= row.finished_at <= gap.before
