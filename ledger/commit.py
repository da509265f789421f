"""Group commit to the log: one writer, one log, one batch in flight.

Before a batch is sent, its raw transaction and the order of its entries are durable. After a crash or a lost reply the
same bytes are sent again, and the head decides what happened: it is a compare-and-swap, so a batch lands at most once.
What the chain answers is checked against what was sent and against the fold, before anyone acts on it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Final

from eth_account.signers.local import LocalAccount
from sqlalchemy import Connection

from ledger.access import BatchKind, ChainProof, LoggedAccess, fold, fold_compelled
from ledger.chain import Chain, Fate, Prospect, Receipt, calldata_of, nonce_of
from ledger.consent import Address, Hex32, Reason
from ledger.contract import LogState, append_call, append_compelled_call, decode_call
from ledger.contract_events import Appended, batches_of
from ledger.errors import (
    ChainError,
    ChainLostError,
    ChainUnavailableError,
    ConfirmationTimeoutError,
    LogAheadError,
    NotWriterError,
    TransactionRevertedError,
)
from ledger.journal import Batch, Journal, QueuedAccess
from ledger.store import Store

MAX_BATCH: Final = 200
GAS_BASE: Final = 150_000
GAS_PER_ENTRY: Final = 15_000
GAS_OF_NOTHING: Final = 50_000
POLL_SECONDS: Final = 0.02
FUTURE_NONCES: Final = 64
"""How many transactions of one account a node keeps that cannot be mined yet: further ahead, none is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Landed:
    """An entry on the log: what the contract made of it, and where it stands."""

    release_id: Hex32
    reason: Reason
    late: bool
    proof: ChainProof


@dataclass(frozen=True, slots=True, kw_only=True)
class Finality:
    """When a block counts: a tag of the chain, or just its being there (`latest`)."""

    tag: str = "latest"
    timeout: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Landing:
    """A batch on chain that the journal does not know to be there yet."""

    batch: Batch
    receipt: Receipt
    appended: Appended


class LogWriter:
    """Appends to the log of one writer key. The caller holds that writer's lock for as long as this lives.

    `another` takes another key instead, where this one may append no more; None if there is none.
    """

    def __init__(
        self,
        store: Store,
        journal: Journal,
        chain: Chain,
        *,
        writer: LocalAccount,
        custodian: Address,
        finality: Finality,
        clock: Callable[[], int],
        another: Callable[[], LocalAccount | None] = lambda: None,
        step: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._store, self._journal, self._chain = store, journal, chain
        self._another = another
        self._account = writer
        self.address = Address(writer.address)
        self._custodian = custodian
        self._finality = finality
        self._clock = clock
        self._step = step
        self._in_flight = threading.Lock()
        self._head: Hex32 | None = None
        self._next: tuple[Hex32, Prospect] | None = None
        self._batch: Batch | None = None
        self._landing: _Landing | None = None

    def append(self, kind: BatchKind, queued: Sequence[QueuedAccess]) -> list[Landed]:
        """Log a batch of what is on file and wait until it counts.

        Raises `ConfirmationTimeoutError` and other `ChainError`s: the outcome is then unknown, the entries stay in the
        journal and `resolve` finds out later; `ReleaseInProgressError`: one of them is in another batch, nothing was
        sent.
        """
        with self.turn():
            self.statuses([])
            with self._store.begin() as tx:
                batch_id = self.put(tx, kind, [entry.access for entry in queued])
                self._journal.put_in_batch(tx, batch_id, queued, writer=self.address)
            landed = self.land(queued)
            self.settle_alone()
        return landed

    # --------------------------------------------------------------------------------------------- a turn, in its steps
    # So that a flow can write in one transaction what it has to write and what the log has to.

    @contextmanager
    def turn(self) -> Iterator[None]:
        """One batch of this writer, in steps: nobody else appends until the block ends.

        `statuses`, `put` in a transaction, `land`, `settle` in a transaction, `settled` after it. Left before the end,
        a batch that is on file is one in flight, and whoever comes next finds out what became of it.
        """
        with self._in_flight:
            self._next = self._landing = None
            yield

    def statuses(self, consent_ids: Sequence[Hex32]) -> list[Reason]:
        """The contract's verdict on these consents, and with it whatever the batch needs. Raises `ChainError`.

        Where this writer may append no more, another one does, if there is one. Where its log is ahead nothing goes on
        until the operator has decided: the journal may have been rolled back.
        """
        try:
            head = self._ready()
        except NotWriterError:
            if not self._go_over():
                raise
            head = self._ready()
        reasons, prospect = self._chain.prospect(consent_ids, self._custodian, self.address)
        self._next = (head, prospect)
        return reasons

    def put(self, tx: Connection, kind: BatchKind, accesses: Sequence[LoggedAccess], *, embargo_until: int = 0) -> str:
        """Sign a batch and put it on file. Returns its id, for the rows of its entries.

        `embargo_until` is for accesses that an authority ordered, which are all of one order.
        """
        assert self._next is not None, "a turn begins with `statuses`"
        head, prospect = self._next
        if kind is BatchKind.COMPELLED_ACCESSES:
            entry_hashes = [access.entry_hash for access in accesses]
            order_hash = accesses[0].consent_id
            calldata = append_compelled_call(self._custodian, head, order_hash, embargo_until, entry_hashes)
        else:
            calldata = append_call(kind, self._custodian, head, accesses)
        gas = GAS_BASE + GAS_PER_ENTRY * len(accesses)
        transaction = self._chain.sign(self._account, calldata, gas=gas, prospect=prospect)
        # From here on a batch may be pending, until it is settled: whoever comes next resolves it first.
        self._head = None
        self._batch = self._journal.add_batch(
            tx, kind, self.address, head, transaction, at=self._clock(), embargo_until=embargo_until
        )
        return self._batch.batch_id

    def land(self, queued: Sequence[QueuedAccess]) -> list[Landed]:
        """Send the batch and wait until it counts. Raises `ChainError`: the outcome is then unknown."""
        assert self._batch is not None, "a batch is on file before it is sent"
        self._step("batch durable")
        self._chain.send(self._batch.raw)
        self._step("batch sent")
        self._landing = self._landed(self._batch, [entry.access for entry in queued])
        receipt, appended = self._landing.receipt, self._landing.appended
        return [
            Landed(
                release_id=entry.release_id,
                reason=outcome.reason,
                late=outcome.late,
                proof=self._proof(receipt, appended, outcome.log_index),
            )
            for entry, outcome in zip(queued, appended.outcomes, strict=True)
        ]

    def settle(self, tx: Connection, *, answered: Container[Hex32] = ()) -> None:
        """Every entry of what has landed has its outcome; the caller writes that of `answered` (entry hashes) itself.

        Does nothing where nothing has landed in this turn.
        """
        if self._landing is not None:
            self._settle(tx, self._landing, answered)

    def settled(self) -> None:
        """The transaction of `settle` is durable."""
        if self._landing is not None:
            self._head = self._landing.appended.head
            self._landing = None

    def settle_alone(self) -> None:
        """`settle` in a transaction of its own."""
        with self._store.begin() as tx:
            self.settle(tx)
        self.settled()

    # ----------------------------------------------------------------------------------------------- what was in flight

    def resolve(self) -> None:
        """Settle what was in flight when this writer's last process ended. Does nothing if nothing was."""
        with self._in_flight:
            self._resolve()

    def bury(self, batch: Batch) -> None:
        """See to it that a batch built on a chain that was lost has an end: on the log, or never to come there.

        While its nonce is free it may wait somewhere, and be back when the log is where it was. So its turn comes now,
        while the log is elsewhere: the nonces before it are used up for nothing, and the head decides.
        """
        with self._in_flight:
            fate = self._chain.fate(batch.transaction_hash, self._custodian, self.address)
            if fate.receipt is None and fate.log.head != batch.expected_head:
                self._bury(batch, fate)

    def _bury(self, batch: Batch, fate: Fate) -> None:
        nonce = nonce_of(batch.raw)
        if 0 <= nonce - fate.mined_nonce <= FUTURE_NONCES:
            self._use_up(range(fate.mined_nonce, nonce))
            if self._sent_again(batch) or self._outcome(batch) is not None:
                self._settle_landed(batch)
                return
        self._journal.lose_batch(batch)

    def put_back(self, batch: Batch) -> int:
        """Give a batch that the chain lost an end, whichever writer's it is, by the same bytes. Returns its entries.

        A pool may bring it back at any moment. Until its nonce is used up its entries are in no other batch: so they
        are on the log once. None is returned of one that can never land: its entries wait for another one then. Raises
        `ChainError`: what becomes of it is unknown, and it stays lost with its entries in it.
        """
        if batch.writer != self.address:
            # The same bytes take neither its key nor its lock.
            return self._put_back(batch, lambda _: self._chain.send(batch.raw))
        with self._in_flight:
            self._head = None
            return self._put_back(batch, lambda fate: self._send_in_its_place(batch, fate))

    def _put_back(self, batch: Batch, send: Callable[[Fate], None]) -> int:
        fate = self._chain.fate(batch.transaction_hash, self._custodian, Address(batch.writer))
        receipt = fate.receipt
        if receipt is None and 0 <= nonce_of(batch.raw) - fate.mined_nonce <= FUTURE_NONCES:
            self._step("batch durable")
            send(fate)
            self._step("batch sent")
            receipt = self._outcome(batch)
            self._step("batch landed")
        if receipt is None or not receipt.succeeded or not receipt.events:
            # It reverted, its nonce was used without it, or no node keeps what is so far ahead.
            self._journal.close_lost_batch(batch.batch_id)
            return 0
        self.settle_again(batch.batch_id, receipt)
        return len(self._journal.queued_in(batch))

    def _send_in_its_place(self, batch: Batch, fate: Fate) -> None:
        """Use the nonce of a lost batch of this writer: by the batch, unless that would say what is not so.

        Then its entries are to come back in another one: a call of nothing uses the nonce up.
        """
        nonce = nonce_of(batch.raw)
        # What came before it may be gone for good. The nonces of another process's writer are its own to use.
        self._use_up(range(fate.mined_nonce, nonce))
        if self._still_says_so(batch):
            self._sent_again(batch)
        else:
            self._use_up([nonce])

    def _still_says_so(self, batch: Batch) -> bool:
        """Whether the contract would make of a lost batch of accesses what it is to make of them."""
        if batch.kind not in (BatchKind.ACCESSES, BatchKind.LATE_ACCESSES):
            return True
        entries = self._journal.queued_in(batch)
        if len(entries) < len(decode_call(calldata_of(batch.raw))[1][-1]):
            # Refused where the batch moved to before, an entry is in another one: it would be on the log twice.
            return False
        reasons = self._chain.statuses([entry.access.consent_id for entry in entries], self._custodian)
        if batch.kind is BatchKind.ACCESSES:
            # Refused by now, its entries are to come back late, and not as a refusal first.
            return not any(reasons)
        # Before its grant is back an access would be late.
        return Reason.NOT_GRANTED not in reasons

    def _sent_again(self, batch: Batch) -> bool:
        """Whether a batch of this writer was taken as it is. Where it is not, a call of nothing uses its nonce up.

        Its price of gas may be below what the chain asks for by now: its entries are not to wait until that falls.
        """
        try:
            self._chain.send(batch.raw)
        except TransactionRevertedError:
            self._use_up([nonce_of(batch.raw)])
            return False
        return True

    def _outcome(self, batch: Batch) -> Receipt | None:
        """The receipt of a batch once its nonce is used; None if something else used it."""
        deadline = time.monotonic() + self._finality.timeout
        while True:
            fate = self._chain.fate(batch.transaction_hash, self._custodian, Address(batch.writer))
            if fate.receipt is not None or fate.mined_nonce > nonce_of(batch.raw):
                return fate.receipt
            if time.monotonic() >= deadline:
                raise ConfirmationTimeoutError(f"a lost batch is not back after {self._finality.timeout:g} s")
            time.sleep(POLL_SECONDS)

    def _use_up(self, nonces: Iterable[int]) -> None:
        for nonce in nonces:
            _, prospect = self._chain.prospect([], self._custodian, self.address)
            # A call of nothing reverts, and so does no more than this.
            filler = self._chain.sign(self._account, b"", gas=GAS_OF_NOTHING, prospect=replace(prospect, nonce=nonce))
            self._chain.send(filler.raw)

    def require_on_chain(self, proof: ChainProof) -> None:
        """What is on file of an access is not enough: the chain may have lost it since, whichever writer's it is.

        Raises `ChainLostError`.
        """
        mined = self._chain.receipt(proof.transaction_hash)
        if mined is None or not mined.succeeded or mined.block_hash != proof.block_hash:
            raise ChainLostError("the chain lost this access: run `consent-ledger sync`")

    def settle_again(self, batch_id: str, receipt: Receipt) -> None:
        """A batch, whichever writer's it is, is in another block than the journal says: so may its outcomes be others.

        Raises `ChainUnavailableError` if the receipt is not the batch's.
        """
        batch = self._journal.batch(batch_id)
        entries = {entry.access for entry in self._journal.queued_in(batch)}
        appended = self._appended(batch, receipt)
        # An entry that another block of this batch refused is in another batch by now.
        outcomes = tuple(outcome for outcome in appended.outcomes if outcome.access in entries)
        if len(outcomes) != len(entries):
            raise _lie()
        with self._store.begin() as tx:
            self._journal.settle_again(tx, batch, receipt, replace(appended, outcomes=outcomes), at=self._clock())

    def forget_head(self) -> None:
        """Ask the chain again where the log stands."""
        with self._in_flight:
            self._head = None

    def _resolve(self) -> None:
        if self._head is not None:
            # The last batch was settled by this process, and no other one has this writer.
            return
        batch = self._journal.pending_batch(self.address)
        if batch is None:
            return
        self._head = None
        fate = self._chain.fate(batch.transaction_hash, self._custodian, self.address)
        if fate.receipt is None:
            if fate.log.is_retired:
                # Out of use for good: the contract will never take it.
                self._journal.lose_batch(batch)
                return
            # The log may also be where the journal has it: then this one was built on what was lost.
            if fate.log.head not in (batch.expected_head, self._journal.log_end(self.address)[0]):
                raise self._elsewhere(fate.log, "the log is not where the pending batch left it")
            # It may have been signed with a nonce that was used (a node that was behind gave it), and never land.
            self._bury(batch, fate)
            return
        self._settle_landed(batch)

    def _settle_landed(self, batch: Batch) -> None:
        # That it reverted settles it too: its entries wait for another batch.
        with suppress(TransactionRevertedError):
            landing = self._landed(batch, [entry.access for entry in self._journal.queued_in(batch)])
            with self._store.begin() as tx:
                self._settle(tx, landing)
            self._head = landing.appended.head

    def _ready(self) -> Hex32:
        self._resolve()
        return self._current_head()

    def _go_over(self) -> bool:
        """Go on with another key. Returns whether there is one."""
        account = self._another()
        if account is None:
            return False
        self._account, self.address, self._head = account, Address(account.address), None
        return True

    def _current_head(self) -> Hex32:
        if self._head is None:
            log = self._chain.log(self._custodian, self.address)
            if not log.allowed:
                raise NotWriterError(f"{self.address} may not append to this log: run `consent-ledger deploy`")
            if self._journal.log_end(self.address)[0] != log.head:
                raise self._elsewhere(log, "the log on chain is not the one in the journal")
            self._head = log.head
        return self._head

    def _elsewhere(self, log: LogState, what: str) -> ChainError:
        """Why a log cannot be built on that is not where the journal has it: the chain lost something, or has more."""
        if log.size > self._journal.size_on_file(self.address):
            return LogAheadError(f"{what}, and has entries that are not on file: run `consent-ledger sync`")
        return ChainLostError(f"{what}: run `consent-ledger sync`")

    def _landed(self, batch: Batch, accesses: Sequence[LoggedAccess]) -> _Landing:
        """Wait until a batch that was sent counts."""
        self._head = None
        receipt = self._chain.wait(batch.transaction_hash, timeout=self._finality.timeout)
        if not receipt.succeeded:
            log = self._chain.log(self._custodian, self.address)
            is_elsewhere = log.head not in (batch.expected_head, self._journal.log_end(self.address)[0])
            if is_elsewhere and not log.is_retired:
                # Someone else wrote to the log, or the receipt lies: whether the batch is on it is unknown, until the
                # operator has decided that this key is out of use.
                raise self._elsewhere(log, "the log moved on without this service")
            # It reverted as a whole, so nothing of it is on the log and the entries are free for another batch.
            self._journal.lose_batch(batch)
            raise TransactionRevertedError("the contract reverted a batch")
        appended = self._checked(batch, accesses, receipt)
        self._await_finality(receipt)
        self._step("batch landed")
        return _Landing(batch=batch, receipt=receipt, appended=appended)

    def _settle(self, tx: Connection, landing: _Landing, answered: Container[Hex32] = ()) -> None:
        self._journal.settle_batch(
            tx, landing.batch, landing.receipt, landing.appended, at=self._clock(), answered=answered
        )

    def _checked(self, batch: Batch, accesses: Sequence[LoggedAccess], receipt: Receipt) -> Appended:
        appended = self._appended(batch, receipt)
        if [outcome.access for outcome in appended.outcomes] != list(accesses):
            raise _lie()
        return appended

    def _appended(self, batch: Batch, receipt: Receipt) -> Appended:
        """The endpoint may lie: entries, kind, writer, head and size must all be the ones that this batch makes.

        The size is not part of the head: a wrong one would be in receipts, and would be taken for the end of the log.
        """
        found = [appended for appended in batches_of(receipt.events) if appended.writer == batch.writer]
        if len(found) == 1:
            appended = found[0]
            accesses = [outcome.access for outcome in appended.outcomes]
            reasons = [outcome.reason for outcome in appended.outcomes]
            if (
                appended.kind is batch.kind
                and appended.custodian == self._custodian
                and appended.embargo_until == batch.embargo_until
                and accesses
                and appended.head == _head_after(batch, accesses, reasons)
                and appended.size - len(accesses) == self._journal.size_at(batch.writer, batch.expected_head)
            ):
                return appended
        raise _lie()

    def _await_finality(self, receipt: Receipt) -> None:
        if self._finality.tag == "latest":
            return
        deadline = time.monotonic() + self._finality.timeout
        while self._chain.finalized(self._finality.tag) < receipt.block_number:
            if time.monotonic() >= deadline:
                raise ConfirmationTimeoutError(f"not {self._finality.tag} after {self._finality.timeout:g} s")
            time.sleep(0.2)
        if self._chain.block_hash(receipt.block_number) != receipt.block_hash:
            raise ConfirmationTimeoutError("the batch moved to another block while it became final")

    def _proof(self, receipt: Receipt, appended: Appended, log_index: int) -> ChainProof:
        return ChainProof(
            chain_id=self._chain.domain.chain_id,
            contract=self._chain.domain.contract,
            custodian=self._custodian,
            writer=self.address,
            transaction_hash=receipt.transaction_hash,
            block_number=receipt.block_number,
            block_hash=receipt.block_hash,
            log_index=log_index,
            size=appended.size,
            head=appended.head,
        )


def _lie() -> ChainUnavailableError:
    return ChainUnavailableError("the endpoint's receipt does not match the batch that was sent")


def _head_after(batch: Batch, accesses: Sequence[LoggedAccess], reasons: Sequence[Reason]) -> Hex32:
    if batch.kind is not BatchKind.COMPELLED_ACCESSES:
        return fold(batch.expected_head, batch.kind, accesses, reasons)
    entry_hashes = [access.entry_hash for access in accesses]
    return fold_compelled(batch.expected_head, accesses[0].consent_id, batch.embargo_until, entry_hashes)
