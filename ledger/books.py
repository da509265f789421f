"""The books: what the contract must have stored, and sums of what it logged. Pure.

One small object for each consent and log, and nothing for an entry: a million entries fit in little memory.
`replay.py` keeps them from the events; here is what can be read off them.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from eth_utils import to_checksum_address

from ledger.audit_report import MAX_LISTED, ConsentSummary, DayCounts, Embargo, LogSummary, Totals
from ledger.consent import Address, Reason, State, hex32_of, reason_against
from ledger.contract_storage import StoredLog, consent_slot, consent_word, log_words, number_slot, storage_root_of

MAX_GAPS: Final = 100_000
RECORDED, REFUSED, LATE, COMPELLED, GRANTED, REVOKED = range(6)
COUNTED: Final = ("recorded", "refused", "late", "compelled", "granted", "revoked")


@dataclass(slots=True)
class Consent:
    """What the chain shows of one consent. Times are Unix seconds of blocks."""

    valid_from: int = 0
    expires_at: int = 0
    max_accesses: int = 0
    accesses: int = 0
    custodian_number: int = 0
    pause_sequence: int = 0
    state: State = State.UNKNOWN
    subject: bytes | None = None
    custodian: bytes | None = None
    granted_at: int | None = None
    revoked_at: int | None = None
    last_access_at: int | None = None
    recorded: int = 0
    refused: int = 0
    late: int = 0

    def values(self) -> list[Any]:
        """Everything, in the order in which it can be made again."""
        return [getattr(self, name) for name in self.__slots__]

    def word(self) -> int:
        """As the contract stores it."""
        return consent_word(
            valid_from=self.valid_from,
            expires_at=self.expires_at,
            max_accesses=self.max_accesses,
            accesses=self.accesses,
            custodian_number=self.custodian_number,
            pause_sequence=self.pause_sequence,
            state=self.state,
        )


NEVER_GRANTED: Final = Consent()
"""What is judged where there is no consent."""


@dataclass(slots=True)
class WriterLog:
    """One writer's log."""

    head: bytes = bytes(32)
    size: int = 0
    custodian_number: int = 0
    allowed: bool = False
    batches: int = 0
    last_at: int | None = None

    def values(self) -> list[Any]:
        """Everything, in the order in which it can be made again."""
        return [getattr(self, name) for name in self.__slots__]


class Books:
    """Every consent, every custodian's number, every log; and sums."""

    def __init__(self) -> None:
        self.consents: dict[bytes, Consent] = {}
        self.numbers: dict[bytes, int] = {}
        self.logs: dict[tuple[bytes, bytes], WriterLog] = {}
        self.days: defaultdict[int, list[int]] = defaultdict(lambda: [0] * len(COUNTED))
        self.reasons: Counter[int] = Counter()
        self.batches = 0
        self.after_revocation = 0
        self.embargoes: list[tuple[bytes, int, int, int]] = []

    def storage_root(self) -> bytes:
        """The root of the storage that these books explain, all of it."""
        return storage_root_of(
            ((consent_id, consent.word()) for consent_id, consent in self.consents.items()),
            self.numbers.items(),
            self._stored_logs(),
        )

    def slots(self) -> int:
        """How many words of storage these books explain."""
        return len(self.consents) + len(self.numbers) + 1 + 2 * len(self.logs)

    def named_slots(self) -> Iterator[tuple[str, bytes, int]]:
        """Slots with what they hold, each by name: logs, then custodians' numbers, then consents."""
        for log in self._stored_logs():
            for what, (slot, word) in zip(("head", "size"), log_words(log), strict=True):
                yield f"the {what} of the log of {account_of(log.writer)}", slot, word
        for custodian, number in self.numbers.items():
            yield f"the number of custodian {account_of(custodian)}", number_slot(custodian), number
        for consent_id, consent in self.consents.items():
            yield f"consent {hex32_of(consent_id)}", consent_slot(consent_id), consent.word()

    def _stored_logs(self) -> Iterator[StoredLog]:
        for (custodian, writer), log in self.logs.items():
            yield StoredLog(custodian, writer, log.head, log.size, log.custodian_number, log.allowed)

    def totals(self, *, blocks: int, at: int) -> Totals:
        """The sums; states of consents as they are at time `at`."""
        # Anyone may revoke what nobody granted: that makes an id, not a consent.
        granted = [consent for consent in self.consents.values() if consent.granted_at is not None]
        verdicts = Counter(reason_against(consent, consent.custodian_number, at) for consent in granted)
        sums = [sum(day[kind] for day in self.days.values()) for kind in range(len(COUNTED))]
        return Totals(
            blocks=blocks,
            consents=len(granted),
            in_force=verdicts[Reason.NONE],
            paused=verdicts[Reason.PAUSED],
            revoked=verdicts[Reason.REVOKED],
            expired=verdicts[Reason.EXPIRED],
            exhausted=verdicts[Reason.EXHAUSTED],
            batches=self.batches,
            recorded=sums[RECORDED],
            refused=sums[REFUSED],
            late=sums[LATE],
            compelled=sums[COMPELLED],
            accesses_after_revocation=self.after_revocation,
            used_and_revoked=sum(1 for _ in self._gaps()),
        )

    def day_counts(self) -> tuple[DayCounts, ...]:
        """Every day on which anything happened."""
        return tuple(
            DayCounts(day=day, **dict(zip(COUNTED, counts, strict=True)))
            for day, counts in sorted(self.days.items())
            if any(counts)
        )

    def log_summaries(self) -> tuple[LogSummary, ...]:
        """Every log, by custodian and writer."""
        return tuple(
            LogSummary(
                custodian=account_of(custodian),
                writer=account_of(writer),
                allowed=log.allowed,
                size=log.size,
                head=hex32_of(log.head),
                batches=log.batches,
                last_at=log.last_at,
            )
            for (custodian, writer), log in sorted(self.logs.items())
        )

    def consent_summaries(self) -> tuple[ConsentSummary, ...]:
        """The consents with the most entries, as many as a report lists."""
        listed = heapq.nlargest(
            MAX_LISTED, self.consents.items(), key=lambda one: (one[1].recorded + one[1].refused + one[1].late, one[0])
        )
        return tuple(summary_of(consent_id, consent) for consent_id, consent in listed)

    def revocation_gaps(self) -> tuple[int, ...]:
        """Seconds from the last recorded access of a consent to its revocation; the shortest, if they are too many."""
        return tuple(sorted(self._gaps())[:MAX_GAPS])

    def _gaps(self) -> Iterator[int]:
        for consent in self.consents.values():
            if consent.revoked_at is not None and consent.last_access_at is not None:
                yield consent.revoked_at - consent.last_access_at

    def orders(self) -> tuple[Embargo, ...]:
        """Every batch of compelled accesses."""
        return tuple(
            Embargo(order_hash=hex32_of(order), entries=entries, at=at, embargo_until=until)
            for order, entries, at, until in self.embargoes
        )


def summary_of(consent_id: bytes, consent: Consent) -> ConsentSummary:
    """One consent for a report."""
    return ConsentSummary(
        consent_id=hex32_of(consent_id),
        subject=None if consent.subject is None else account_of(consent.subject),
        custodian=None if consent.custodian is None else account_of(consent.custodian),
        state=consent.state,
        valid_from=consent.valid_from,
        expires_at=consent.expires_at,
        max_accesses=consent.max_accesses,
        recorded=consent.recorded,
        refused=consent.refused,
        late=consent.late,
        granted_at=consent.granted_at,
        revoked_at=consent.revoked_at,
        last_access_at=consent.last_access_at,
    )


def account_of(raw: bytes) -> Address:
    """20 bytes as an account."""
    return Address(to_checksum_address(raw))
