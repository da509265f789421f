"""Replay: the contract's events, gone through once more by its rules. Pure; no word of the custodian's is needed.

The events come in their order, block by block, proven (`blockproof.py`). From them this keeps the books of what the
contract must have stored (`books.py`). Each verdict of the contract is compared with what its rules say at that block's
time, each head and size with what the entries fold to. Where an event breaks a rule that is a finding, and the replay
goes on from what the event says, so that one break is one finding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Container, Sequence
from typing import Final, TypedDict

from eth_hash.backends.pysha3 import keccak256

from ledger.access import LONGEST_EMBARGO, BatchKind
from ledger.audit_report import MAX_LISTED, AuditedEntry, ConsentChange, EarlierLog, Finding
from ledger.blockproof import ProvenTransaction
from ledger.books import (
    COMPELLED,
    COUNTED,
    GRANTED,
    LATE,
    NEVER_GRANTED,
    RECORDED,
    REFUSED,
    REVOKED,
    Books,
    Consent,
    WriterLog,
    account_of,
)
from ledger.consent import MAX_TIME, Address, Hex32, Reason, State, hex32_of, reason_against
from ledger.contract_events import EVENTS, TOPICS
from ledger.json_forms import DAY_SECONDS

_WORD: Final = 32
_REASON_WORDS: Final = tuple(number.to_bytes(_WORD) for number in Reason)
# An attribute of an enumeration is slow to look up.
_IN_FORCE: Final = Reason.NONE
_BY_CUSTODIAN: Final = int(Reason.BY_CUSTODIAN)
_ENTRY_KINDS: Final = {
    "AccessRecorded": RECORDED,
    "AccessRefused": REFUSED,
    "AccessLate": LATE,
    "AccessCompelled": COMPELLED,
}
_NAMES: Final = {bytes.fromhex(topic[2:]): name for topic, name in TOPICS.items()}
_SIZES: Final = {name: (1 + len(indexed), _WORD * len(other)) for name, (indexed, other) in EVENTS.items()}
_ENTRIES: Final = {topic: (_ENTRY_KINDS[name], *_SIZES[name]) for topic, name in _NAMES.items() if name in _ENTRY_KINDS}

Pending = tuple[int, bytes, bytes, int]
"""Kind, consent id (or order hash), data, place in the transaction."""


class _About(TypedDict, total=False):
    consent_id: Hex32
    entry_hash: Hex32
    writer: bytes


class _Every(Container[bytes]):
    def __contains__(self, _: object) -> bool:
        return True


_EVERY: Final = _Every()


class Replay:
    """The books of the contract, as its events keep them."""

    def __init__(
        self,
        books: Books | None = None,
        *,
        watch: Collection[Hex32] = (),
        watch_entries: bool = False,
        watch_subjects: Collection[Address] = (),
        earlier: Sequence[EarlierLog] = (),
    ) -> None:
        self.books = Books() if books is None else books
        self.findings: list[Finding] = []
        self.finding_counts: Counter[str] = Counter()
        self.entries: list[AuditedEntry] = []
        self.changes: list[ConsentChange] = []
        self._watch = {bytes.fromhex(one[2:]) for one in watch}
        self._watch_entries = watch_entries
        self._watch_subjects = {bytes.fromhex(one[2:]) for one in watch_subjects}
        self._points = sorted(earlier, key=lambda one: one.block_number)
        self._number = self._now = 0
        self._day = self.books.days[0]
        self._transaction: ProvenTransaction | None = None
        self._events: dict[str, Callable[[Sequence[bytes], Sequence[bytes]], None]] = {
            "ConsentGranted": self._granted,
            "ConsentRevoked": self._revoked,
            "ConsentPauseSet": self._pause_set,
            "CustodianNumbered": self._numbered,
            "WriterSet": self._writer_set,
        }

    # ------------------------------------------------------------------------------------------------------ the events

    def block(self, number: int, timestamp: int, transactions: Sequence[ProvenTransaction]) -> None:
        """Everything that the contract logged in one block. `timestamp` is the block's, Unix seconds."""
        if self._points:
            self._compare_points(number)
        self._number, self._now = number, timestamp
        self._day = self.books.days[timestamp // DAY_SECONDS]
        for transaction in transactions:
            self._transaction = transaction
            self._through(transaction)

    def _through(self, transaction: ProvenTransaction) -> None:
        pending: list[Pending] = []
        for (topics, data), place in zip(transaction.logs, transaction.places, strict=True):
            entry = _ENTRIES.get(topics[0]) if topics else None
            if entry is not None and len(topics) == entry[1] and len(data) == entry[2]:
                pending.append((entry[0], topics[1], data, place))
                continue
            name = self._name(topics, data)
            if name == "LogAppended":
                self._appended(topics, data, pending)
                pending = []
                continue
            if pending:
                self._find("log_gap", f"{len(pending)} entries that no batch closes")
                pending = []
            if name is not None and name in self._events:
                self._events[name](topics, _words(data))
        if pending:
            self._find("log_gap", f"{len(pending)} entries that no batch closes")

    def _name(self, topics: Sequence[bytes], data: bytes) -> str | None:
        name = _NAMES.get(topics[0]) if topics else None
        if name is None or _SIZES[name] != (len(topics), len(data)):
            self._find("unknown_event", "an event that is none of this contract")
            return None
        return name

    # ------------------------------------------------------------------------------------------------------------- log

    def _appended(self, topics: Sequence[bytes], data: bytes, pending: Sequence[Pending]) -> None:
        custodian, writer = topics[1][12:], topics[2][12:]
        kind, size, head = (*map(int.from_bytes, (data[:32], data[32:64])), data[64:])
        log = self.books.logs.get((custodian, writer))
        if log is None:
            log = self.books.logs[custodian, writer] = WriterLog()
        if not log.allowed:
            self._find("writer_not_allowed", "a batch by a writer that the custodian did not allow", writer=writer)
        if not pending:
            self._find("rule_broken", "a batch without an entry", writer=writer)
        if kind > max(BatchKind):
            self._find("unknown_event", f"a batch of kind {kind}", writer=writer)
            kind = BatchKind.REFUSALS
        folded = keccak256(log.head + kind.to_bytes(_WORD) + len(pending).to_bytes(_WORD))
        if kind == BatchKind.COMPELLED_ACCESSES:
            folded = self._compelled(folded, pending, custodian, writer)
        else:
            folded = self._accesses(folded, BatchKind(kind), pending, log.custodian_number, custodian, writer)
        if size != log.size + len(pending):
            self._find("log_gap", f"size {size} after {log.size} and {len(pending)} entries", writer=writer)
        if head != folded:
            self._find("log_head_differs", "the batch does not fold to the head that it names", writer=writer)
        log.head, log.size, log.last_at = head, size, self._now
        log.batches += 1
        self.books.batches += 1

    def _accesses(
        self, head: bytes, batch: BatchKind, pending: Sequence[Pending], number: int, custodian: bytes, writer: bytes
    ) -> bytes:
        """The entries of a batch. Goes through every entry that there is, so it is written for speed."""
        consents, day, now = self.books.consents, self._day, self._now
        watch: Container[bytes] | None = _EVERY if self._watch_entries else self._watch or None
        otherwise = LATE if batch == BatchKind.LATE_ACCESSES else REFUSED
        by_custodian = batch == BatchKind.REFUSALS
        for kind, consent_id, data, place in pending:
            entry_hash, reason = data, 0
            if kind != RECORDED:
                entry_hash, reason = data[:_WORD], data[-1]
                if kind == COMPELLED or reason > _BY_CUSTODIAN or data[_WORD:-1].strip(b"\0"):
                    self._find("unknown_event", "an entry that is none of this kind of batch", writer=writer)
                    continue
            head = keccak256(head + consent_id + entry_hash + _REASON_WORDS[reason])
            consent = consents.get(consent_id)
            expected = _BY_CUSTODIAN if by_custodian else reason_against(consent or NEVER_GRANTED, number, now)
            day[kind] += 1
            if kind == RECORDED:
                if expected is not _IN_FORCE:
                    self._differs(kind, reason, expected, consent_id, entry_hash, writer)
                if consent is None:
                    # The contract cannot have: but if it had, it would have counted it.
                    consent = consents[consent_id] = Consent()
                consent.accesses += 1
                consent.recorded += 1
                consent.last_access_at = now
                if consent.revoked_at is not None:
                    self.books.after_revocation += 1
            else:
                if expected is _IN_FORCE or reason != expected or kind != otherwise:
                    self._differs(kind, reason, expected, consent_id, entry_hash, writer)
                self._not_recorded(kind, consent, consent_id, entry_hash, reason, writer)
            if watch is not None and consent_id in watch:
                self._seen(consent_id, entry_hash, reason, kind, place, custodian, writer)
        return head

    def _differs(
        self, kind: int, reason: int, expected: int, consent_id: bytes, entry_hash: bytes, writer: bytes
    ) -> None:
        what: _About = {"consent_id": hex32_of(consent_id), "entry_hash": hex32_of(entry_hash), "writer": writer}
        rules = Reason(expected).name.lower()
        if kind == RECORDED and expected is not _IN_FORCE:
            self._find("recorded_outside_consent", f"recorded, although by the rules it is refused: {rules}", **what)
            return
        said = f"{COUNTED[kind]} ({Reason(reason).name.lower()})"
        self._find("verdict_differs", f"logged as {said}, by the rules the verdict is: {rules}", **what)

    def _not_recorded(
        self, kind: int, consent: Consent | None, consent_id: bytes, entry_hash: bytes, reason: int, writer: bytes
    ) -> None:
        if kind == REFUSED:
            self.books.reasons[reason] += 1
            if consent is not None:
                consent.refused += 1
            return
        if consent is not None:
            consent.late += 1
        self._find(
            "late",
            f"logged after the fact, when its consent was no longer in force: {Reason(reason).name.lower()}",
            consent_id=hex32_of(consent_id),
            entry_hash=hex32_of(entry_hash),
            writer=writer,
        )

    def _compelled(self, head: bytes, pending: Sequence[Pending], custodian: bytes, writer: bytes) -> bytes:
        """One order, and its embargo, for all entries of the batch."""
        orders = {(order, data[_WORD:]) for _, order, data, _ in pending}
        if len(orders) != 1 or any(kind != COMPELLED for kind, *_ in pending):
            self._find("unknown_event", "compelled accesses that are not of one order", writer=writer)
            return head
        ((order, embargo_word),) = orders
        embargo = int.from_bytes(embargo_word)
        if embargo > self._now + LONGEST_EMBARGO:
            self._find("rule_broken", "an embargo that is longer than the contract allows", writer=writer)
        head = keccak256(head + order + embargo_word + _REASON_WORDS[Reason.COMPELLED])
        for _, _, data, place in pending:
            head = keccak256(head + order + data[:_WORD] + _REASON_WORDS[Reason.COMPELLED])
            if self._watch_entries or order in self._watch:
                self._seen(order, data[:_WORD], Reason.COMPELLED, COMPELLED, place, custodian, writer)
        self._day[COMPELLED] += len(pending)
        self.books.embargoes.append((order, len(pending), self._now, embargo))
        return head

    def end(self) -> None:
        """There is no later block: what is left of earlier checkpoints is compared."""
        if self._points:
            self._compare_points(self._points[-1].block_number + 1)

    def _compare_points(self, number: int) -> None:
        """Checkpoints of blocks before this one: each names every log, as it was after all of its block's events."""
        while self._points and (block := self._points[0].block_number) < number:
            here = [one for one in self._points if one.block_number == block]
            del self._points[: len(here)]
            named = {(_raw(one.custodian), _raw(one.writer)) for one in here}
            for one in here:
                log = self.books.logs.get((_raw(one.custodian), _raw(one.writer)), WriterLog())
                found, said = (log.size, hex32_of(log.head)), (one.size, one.head)
                if found != said:
                    what = "size {} and head {}"
                    detail = f"{what.format(*found)} at block {block}, by the checkpoint {what.format(*said)}"
                    self._find("checkpoint_inconsistent", detail, writer=_raw(one.writer))
            for (custodian, writer), log in self.books.logs.items():
                if log.size and (custodian, writer) not in named:
                    detail = f"size {log.size} at block {block}, and the checkpoint does not name this log"
                    self._find("checkpoint_inconsistent", detail, writer=writer)

    # -------------------------------------------------------------------------------------------------------- consents

    def _granted(self, topics: Sequence[bytes], words: Sequence[bytes]) -> None:
        consent_id, subject, custodian = topics[1], topics[2][12:], topics[3][12:]
        valid_from, expires_at, most = map(int.from_bytes, words)
        consent = self.books.consents.get(consent_id)
        number = self.books.numbers.get(custodian, 0)
        if consent is not None and consent.state != State.UNKNOWN:
            self._break("a consent was granted a second time or after its revocation", consent_id)
        if not valid_from < expires_at <= MAX_TIME or not 1 <= most < 2**32 or not number:
            self._break("a grant that the contract cannot have taken", consent_id)
        if consent is None:
            consent = self.books.consents[consent_id] = Consent()
        consent.valid_from, consent.expires_at, consent.max_accesses = valid_from, expires_at, most
        consent.accesses = consent.pause_sequence = 0
        consent.subject, consent.custodian, consent.custodian_number = subject, custodian, number
        consent.state, consent.granted_at = State.ACTIVE, self._now
        self._day[GRANTED] += 1
        if subject in self._watch_subjects:
            self._watch.add(consent_id)
        self._changed(consent_id, "granted", subject)

    def _revoked(self, topics: Sequence[bytes], words: Sequence[bytes]) -> None:  # noqa: ARG002 - as every event
        consent_id, by = topics[1], topics[2][12:]
        consent = self.books.consents.get(consent_id)
        if consent is None:
            consent = self.books.consents[consent_id] = Consent()
        elif consent.state == State.REVOKED:
            self._break("a consent was revoked a second time", consent_id)
        elif consent.state != State.UNKNOWN and by not in (consent.subject, consent.custodian):
            self._break("a consent was revoked by someone who is neither its subject nor its custodian", consent_id)
        consent.state, consent.revoked_at = State.REVOKED, self._now
        self._day[REVOKED] += 1
        self._changed(consent_id, "revoked", by)

    def _pause_set(self, topics: Sequence[bytes], words: Sequence[bytes]) -> None:
        consent_id = topics[1]
        paused, sequence = map(int.from_bytes, words)
        consent = self.books.consents.get(consent_id)
        if consent is None:
            consent = self.books.consents[consent_id] = Consent()
        if consent.state in (State.UNKNOWN, State.REVOKED) or paused > 1:
            self._break("a pause of a consent that is not there or was revoked", consent_id)
        elif not consent.pause_sequence < sequence < 2**32:
            self._break("a pause or resume that is not newer than the last one", consent_id)
        consent.state = State.PAUSED if paused else State.ACTIVE
        consent.pause_sequence = sequence
        self._changed(consent_id, "paused" if paused else "resumed", consent.subject)

    def _numbered(self, topics: Sequence[bytes], words: Sequence[bytes]) -> None:
        custodian, number = topics[1][12:], int.from_bytes(words[0])
        if custodian in self.books.numbers or number != max(self.books.numbers.values(), default=0) + 1:
            self._find("rule_broken", "a custodian got a number that was not the next one")
        self.books.numbers[custodian] = number

    def _writer_set(self, topics: Sequence[bytes], words: Sequence[bytes]) -> None:
        custodian, writer, allowed = topics[1][12:], topics[2][12:], int.from_bytes(words[0])
        number = self.books.numbers.get(custodian, 0)
        if not number or allowed > 1:
            self._find("rule_broken", "a writer of a custodian that has no number", writer=writer)
        log = self.books.logs.get((custodian, writer))
        if log is None:
            log = self.books.logs[custodian, writer] = WriterLog()
        log.custodian_number, log.allowed = number, bool(allowed)

    # --------------------------------------------------------------------------------------------- findings and results

    def _break(self, detail: str, consent_id: bytes) -> None:
        self._find("rule_broken", detail, consent_id=hex32_of(consent_id))

    def _find(
        self,
        code: str,
        detail: str,
        *,
        consent_id: Hex32 | None = None,
        entry_hash: Hex32 | None = None,
        writer: bytes | None = None,
    ) -> None:
        self.finding_counts[code] += 1
        if self.finding_counts[code] <= MAX_LISTED:
            self.findings.append(
                Finding(
                    code=code,
                    detail=detail,
                    block_number=self._number,
                    at=self._now,
                    consent_id=consent_id,
                    entry_hash=entry_hash,
                    writer=None if writer is None else account_of(writer),
                )
            )

    def _seen(
        self, consent_id: bytes, entry_hash: bytes, reason: int, kind: int, place: int, custodian: bytes, writer: bytes
    ) -> None:
        transaction = self._transaction
        assert transaction is not None
        self.entries.append(
            AuditedEntry(
                consent_id=hex32_of(consent_id),
                entry_hash=hex32_of(entry_hash),
                reason=Reason(reason),
                late=kind == LATE,
                custodian=account_of(custodian),
                writer=account_of(writer),
                block_number=self._number,
                at=self._now,
                transaction_hash=Hex32(transaction.transaction_hash),
                log_index=transaction.first_log_index + place,
            )
        )

    def _changed(self, consent_id: bytes, what: str, by: bytes | None) -> None:
        if consent_id in self._watch and self._transaction is not None:
            self.changes.append(
                ConsentChange(
                    consent_id=hex32_of(consent_id),
                    what=what,
                    by=None if by is None else account_of(by),
                    block_number=self._number,
                    at=self._now,
                    transaction_hash=Hex32(self._transaction.transaction_hash),
                )
            )


def _raw(account: Address) -> bytes:
    return bytes.fromhex(account[2:])


def _words(data: bytes) -> list[bytes]:
    return [data[start : start + _WORD] for start in range(0, len(data), _WORD)]
