"""Checkpoints: what an auditor saw at a block, in a signed note, so that nobody can show others something else. Pure.

    consent-ledger/31337/0x5FbD...                which chain and contract: the note's origin
    43                                            blocks up to and with this one: its number and one
    rjOPJx3y...                                   the block's hash, base64
    version 1
    time 1764013477                               of the block, Unix seconds
    log <custodian> <writer> <size> <head>        each writer's log, sorted
    finding <code> <count>                        what the auditor found and signs it in spite of; rarely there

The first three lines are those of C2SP `tlog-checkpoint`, whose tools read and store them as they stand. The blocks
are the log: each header names the one before, so the hash at the third line commits to every block before it, as a
root does; it is not the root of a Merkle tree of RFC 6962, and proofs of inclusion are those of `eth_getProof`. The
lines after that are covered by the signatures as well.

Two checkpoints of one chain agree, or show a split view: one block number with two hashes, or one size of a log with
two heads. Where they are of different blocks and sizes, only the chain itself can tell whether it leads from one to the
other: it must have the earlier block, and at that block each log must have had the earlier size and head, and no log
any entry that the earlier one does not name.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Final

from ledger.audit_report import AuditReport, EarlierLog, Finding
from ledger.consent import ZERO32, Address, Domain, Hex32, hex32_of, parse_address, parse_hex32
from ledger.errors import AuditError, MalformedError
from ledger.signed_note import NoteKey, open_note

VERSION: Final = 1
SPLIT_VIEW: Final = "split_view"
INCONSISTENT: Final = "checkpoint_inconsistent"
LogId = tuple[Address, Address]
"""Custodian and writer."""
_ORIGIN: Final = re.compile(r"consent-ledger/([1-9][0-9]{0,18})/(0x[0-9a-fA-F]{40})\Z")
_NUMBER: Final = re.compile(r"(0|[1-9][0-9]{0,18})\Z")
_CODE: Final = re.compile(r"[a-z][a-z_]{0,63}\Z")
_HEADING: Final = 5
_NOBODY: Final = Address("0x" + "00" * 20)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Every log of a contract at a block. `timestamp` is the block's, Unix seconds. `logs`: size and head of each."""

    domain: Domain
    block_number: int
    block_hash: Hex32
    timestamp: int
    logs: Mapping[LogId, tuple[int, Hex32]]
    findings: Mapping[str, int] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        """What it is about: checkpoints of one origin can be compared."""
        return f"consent-ledger/{self.domain.chain_id}/{self.domain.contract}"

    def text(self) -> str:
        """The one text of this checkpoint, to be signed."""
        root = base64.b64encode(bytes.fromhex(self.block_hash[2:])).decode()
        heading = (self.origin, str(self.block_number + 1), root, f"version {VERSION}", f"time {self.timestamp}")
        logs = (f"log {custodian} {writer} {size} {head}" for (custodian, writer), (size, head) in self._sorted())
        findings = (f"finding {code} {count}" for code, count in sorted(self.findings.items()))
        return "".join(f"{line}\n" for line in (*heading, *logs, *findings))

    def earlier(self) -> tuple[EarlierLog, ...]:
        """What an audit of a later block must have passed: this block, with all logs as they are here."""
        logs = self._sorted() or [((_NOBODY, _NOBODY), (0, ZERO32))]
        return tuple(
            EarlierLog(
                block_number=self.block_number,
                block_hash=self.block_hash,
                custodian=custodian,
                writer=writer,
                size=size,
                head=head,
            )
            for (custodian, writer), (size, head) in logs
        )

    def _sorted(self) -> list[tuple[LogId, tuple[int, Hex32]]]:
        return sorted(self.logs.items())


def parse_checkpoint(text: str) -> Checkpoint:
    """The inverse of `Checkpoint.text`. Raises `AuditError` unless it is exactly such a text."""
    try:
        found = _parsed(text.split("\n"))
    except (MalformedError, ValueError, IndexError, binascii.Error) as exc:
        raise AuditError("not a checkpoint of version 1") from exc
    if found.text() != text:
        raise AuditError("not a checkpoint of version 1: it can be written in one way only")
    return found


def open_checkpoint(note: str, keys: Collection[NoteKey], *, quorum: int = 1) -> tuple[Checkpoint, tuple[NoteKey, ...]]:
    """A checkpoint that at least `quorum` of the keys signed, and which of them. Raises `AuditError`."""
    opened = open_note(note, keys, quorum=quorum)
    return parse_checkpoint(opened.text), opened.signed_by


def checkpoint_of(report: AuditReport, *, despite: Collection[str] = ()) -> Checkpoint:
    """What an audit saw, to be signed. Raises `AuditError` unless every check held and nothing was found.

    `despite` names codes of findings that are known and do not hinder; the checkpoint says how many there were.
    """
    failed = [check.name for check in report.checks if check.holds is not True]
    counts = dict(report.by_code())
    hinder = sorted(set(counts) - set(despite))
    if report.block is None or not report.checks or failed or hinder:
        why = ", ".join([*failed, *hinder]) or "nothing was checked"
        raise AuditError(f"no checkpoint of an audit that did not come out clean: {why}")
    return Checkpoint(
        domain=report.domain,
        block_number=report.block.number,
        block_hash=report.block.block_hash,
        timestamp=report.block.timestamp,
        logs={(log.custodian, log.writer): (log.size, log.head) for log in report.logs},
        findings=counts,
    )


# ---------------------------------------------------------------------------------------------------------- comparing


def compare(first: Checkpoint, second: Checkpoint) -> list[Finding]:
    """How two checkpoints contradict each other, whoever signed them. Nothing found: see `is_decided`.

    Raises `AuditError` if they are of different chains or contracts: these cannot contradict each other.
    """
    if first.domain != second.domain:
        raise AuditError(f"not of one contract: {first.origin} and {second.origin}")
    earlier, later = sorted((first, second), key=lambda one: one.block_number)
    found = []
    if earlier.block_number == later.block_number and (earlier.block_hash, earlier.timestamp) != (
        later.block_hash,
        later.timestamp,
    ):
        detail = f"block {earlier.block_number} has two hashes: {earlier.block_hash} and {later.block_hash}"
        found.append(_finding(SPLIT_VIEW, detail, later))
    elif earlier.block_number < later.block_number and earlier.timestamp > later.timestamp:
        found.append(_finding(INCONSISTENT, f"block {later.block_number} is older than the one before it", later))
    for log in sorted({*earlier.logs, *later.logs}):
        found += _log_differences(log, earlier, later)
    return found


def compare_all(checkpoints: Sequence[Checkpoint]) -> list[Finding]:
    """Each with each other."""
    return [finding for first, second in combinations(checkpoints, 2) for finding in compare(first, second)]


def is_decided(first: Checkpoint, second: Checkpoint) -> bool:
    """Whether comparing the two alone says everything: they are of one block. Otherwise it takes the chain."""
    return first.block_hash == second.block_hash


def _log_differences(log: LogId, earlier: Checkpoint, later: Checkpoint) -> list[Finding]:
    none = (0, ZERO32)
    (size, head), (next_size, next_head) = earlier.logs.get(log, none), later.logs.get(log, none)
    whose = f"the log of {log[1]}"
    if size == next_size and head != next_head:
        detail = f"{whose} has two heads at size {size}: {head} and {next_head}"
        return [_finding(SPLIT_VIEW, detail, later, log[1])]
    if earlier.block_number == later.block_number and size != next_size:
        detail = f"{whose} has two sizes at block {later.block_number}: {size} and {next_size}"
        return [_finding(SPLIT_VIEW, detail, later, log[1])]
    if next_size < size:
        detail = f"{whose} shrank from {size} entries at block {earlier.block_number} to {next_size}"
        return [_finding(INCONSISTENT, detail, later, log[1])]
    return []


def _finding(code: str, detail: str, at: Checkpoint, writer: Address | None = None) -> Finding:
    return Finding(code=code, detail=detail, block_number=at.block_number, at=at.timestamp, writer=writer)


# ------------------------------------------------------------------------------------------------------------- reading


def _parsed(lines: Sequence[str]) -> Checkpoint:
    origin = _ORIGIN.match(lines[0])
    version, time = (line.split(" ") for line in lines[3:_HEADING])
    if origin is None or not _number(lines[1]) or version != ["version", str(VERSION)] or time[:1] != ["time"]:
        raise MalformedError("another heading")
    logs: dict[LogId, tuple[int, Hex32]] = {}
    findings: dict[str, int] = {}
    for line in lines[_HEADING:-1]:
        kind, *fields = line.split(" ")
        if kind == "log":
            custodian, writer, size, head = fields
            log = (parse_address(custodian, "custodian"), parse_address(writer, "writer"))
            logs[log] = (_number(size), parse_hex32(head, "head"))
        elif kind == "finding" and _CODE.match(fields[0]):
            code, count = fields
            findings[code] = _number(count)
        else:
            raise MalformedError("another line")
    return Checkpoint(
        domain=Domain(chain_id=int(origin[1]), contract=parse_address(origin[2], "contract")),
        block_number=_number(lines[1]) - 1,
        block_hash=hex32_of(base64.b64decode(lines[2], validate=True)),
        timestamp=_number(time[1]),
        logs=logs,
        findings=findings,
    )


def _number(text: str) -> int:
    if not _NUMBER.match(text):
        raise MalformedError("expected a whole number")
    return int(text)
