"""Sync: make the chain and the journal agree again. Safe at any time, as often as one likes.

(1) Relay what is on file and not on chain yet (the outcome was unknown, or the chain could not be reached).
(2) Compare every anchor with the chain by block hash. Where the chain lost its tail (a reorganisation) or all of it (a
    devnet restarted), replay what is missing in the old order: signatures are still valid (a smart account may say
    otherwise by now: then its consent stands no more). A batch comes back by the same bytes, as a pool may bring it
    back at any moment and its entries are to be on the log once. Those of one that never can come back by `appendLate`,
    so that accesses whose consent is no longer in force are marked late instead of being lost; accesses that an
    authority ordered come back as such.
(3) Take in what others did on chain: a revocation or a pause that the subject sent without us. Erase again whoever was
    erased and is back by an older backup.
(4) Put refusals on the log, end releases that no one came back for.
(5) Hold the logs on chain against the journal: one that has more was written to by somebody else, or by this custodian
    before an older backup was restored. It is reported and never taken in: see `writers.py`.

What cannot go on keeps nothing else from its turn: it waits, and with it only what builds on it. A smart account can
make its own act fail as often as it likes, and a person's revocation must not be behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection

from ledger.access import BatchKind
from ledger.chain import Chain
from ledger.commit import MAX_BATCH, LogWriter
from ledger.consent import Hex32
from ledger.contract_events import Event
from ledger.erase import Eraser
from ledger.errors import (
    ChainError,
    ChainUnavailableError,
    LedgerError,
    LogAheadError,
    StoreUnavailableError,
    TransactionRevertedError,
)
from ledger.grants import Grants
from ledger.journal import ANCHORED, LOST, Act, Anchor, Batch, Journal, QueuedAccess
from ledger.orders import Orders
from ledger.outbox import BY_CHAIN
from ledger.registry import Registry
from ledger.relay import UNKNOWN, Relay
from ledger.release import Releases
from ledger.store import Store
from ledger.writers import WriterLog, Writers

STALE_SECONDS: Final = 900
EVENT_BLOCKS: Final = 10_000
OTHERS_ACTS: Final = frozenset({"ConsentRevoked", "ConsentPauseSet"})
"""The events of step (3): nearly all others are accesses, which may be many, and other custodians' too."""
LEARNED_KEPT: Final = 32
"""How many blocks to begin at after a reorganisation are kept: if all are gone, it begins at the first block."""


@dataclass(slots=True)
class SyncReport:
    """What was done, in numbers. `waiting`: acts that another process kept from the chain, and what builds on them.

    `ahead`: writers whose log on chain has entries that are not on file.
    """

    relayed: int = 0
    waiting: int = 0
    refused_by_contract: int = 0
    moved: int = 0
    replayed_acts: int = 0
    replayed_accesses: int = 0
    replayed_orders: int = 0
    late: int = 0
    learned_revocations: int = 0
    learned_pauses: int = 0
    refusals_logged: int = 0
    stale_ended: int = 0
    lost: int = 0
    erased_again: int = 0
    ahead: list[WriterLog] = field(default_factory=list)


@dataclass(slots=True)
class _Held:
    """What cannot go on in this run, and the first error that said so.

    `accesses`: consents with accesses that are not back, which after their revocation would be late.
    """

    error: LedgerError | None = None
    lanes: set[str] = field(default_factory=set)
    consents: set[Hex32] = field(default_factory=set)
    accesses: set[Hex32] = field(default_factory=set)

    def holds(self, act: Act) -> bool:
        """Whether an act comes after one that waits: in its lane, or about the same consents in another one.

        The contract refuses a custodian's revocation of what is not granted yet: it would be taken for a verdict.
        """
        return act.lane in self.lanes or not self.consents.isdisjoint(act.consent_ids)

    def stop(self, act: Act, why: LedgerError) -> None:
        """An act could not go on."""
        self.consents.update(act.consent_ids)
        # One that reverts is through with its nonce; after anything else its lane is in no state to go on.
        if not isinstance(why, TransactionRevertedError):
            self.lanes.add(act.lane)
        # That another process has the lane is no trouble.
        if not isinstance(why, StoreUnavailableError):
            self.error = self.error or why

    def note(self, why: LedgerError) -> None:
        """Something could not go on that nothing else builds on."""
        # A log that is ahead is said by step (5), which keeps nothing else from its turn.
        if not isinstance(why, LogAheadError):
            self.error = self.error or why

    @contextmanager
    def trouble(self) -> Iterator[None]:
        """What goes wrong within is raised at the end of the run."""
        try:
            yield
        except LedgerError as exc:
            self.note(exc)


class Sync:
    """Brings chain and journal together. `writers` are all whose lock the caller holds; `log` is one of them.

    `take` makes another one of them, if no process has it.
    """

    def __init__(
        self,
        store: Store,
        journal: Journal,
        registry: Registry,
        relay: Relay,
        grants: Grants,
        releases: Releases,
        orders: Orders,
        chain: Chain,
        log: LogWriter,
        writers: Mapping[str, LogWriter],
        every_writer: Writers,
        eraser: Eraser,
        *,
        take: Callable[[str], None],
        clock: Callable[[], int],
    ) -> None:
        self._store, self._journal, self._registry = store, journal, registry
        self._relay, self._grants, self._releases, self._orders = relay, grants, releases, orders
        self._chain, self._log, self._writers, self._clock = chain, log, writers, clock
        self._every_writer, self._eraser, self._take = every_writer, eraser, take

    def run(self, *, stale_after: int = STALE_SECONDS) -> SyncReport:
        """All steps. Raises the first error; what could be done was done, and the next run goes on."""
        self._chain.check()
        report, held = SyncReport(), _Held()
        # What was lost comes first: what is pending may build on it.
        self._find_lost(report)
        self._resolve_writers(held)
        with held.trouble():
            self._replay(report, held)
        with held.trouble():
            report.replayed_orders += self._orders.replay(held.note)
        with held.trouble():
            self._relay_pending(report, held)
        with held.trouble():
            self._learn(report)
        with held.trouble():
            report.erased_again = self._eraser.erase_again()
        with held.trouble():
            self._log_refusals(report)
        with held.trouble():
            report.stale_ended = self._releases.end_stale(older_than=stale_after, writers=list(self._writers))
        with held.trouble():
            report.ahead = self._every_writer.ahead()
        # What an erasure left in the write-ahead log because someone was reading; the next run tries again.
        with suppress(StoreUnavailableError):
            self._store.scrub()
        if held.error is not None:
            raise held.error
        return report

    def _log_refusals(self, report: SyncReport) -> None:
        while logged := self._releases.log_refusals():
            report.refusals_logged += logged

    # ----------------------------------------------------------------------------------------------------- (1) pending

    def _resolve_writers(self, held: _Held) -> None:
        # Also what an interrupted run found lost and did not get to.
        chain_lost = bool(self._journal.anchors(LOST))
        for address, writer in self._writers.items():
            # What became of a batch that cannot be told stays open: its entries are in it, and nobody replays them.
            with held.trouble():
                writer.forget_head()
                batch = self._journal.pending_batch(address)
                if chain_lost and batch is not None:
                    writer.bury(batch)
                writer.resolve()

    def _relay_pending(self, report: SyncReport, held: _Held) -> None:
        held.consents.update(self._journal.consents_of_lost_acts())
        for act in self._journal.pending_acts():
            report.relayed += self._bring(act, report, held, refused=self._registry.withdraw)
        for consent_id in self._registry.not_standing():
            granted = self._journal.grant_act(consent_id)
            if granted is not None and granted.state == ANCHORED:
                with held.trouble():
                    self._grants.stand(consent_id)

    def _bring(
        self, act: Act, report: SyncReport, held: _Held, *, refused: Callable[[Connection, Hex32], None]
    ) -> bool:
        """Whether the act is on chain now. If not, it waits, or will never be taken: then `refused` has its grant.

        The contract never takes a grant that was revoked before it came, or a pause that was overtaken. In place of a
        revocation that it does not take comes the custodian's.
        """
        if held.holds(act):
            held.consents.update(act.consent_ids)
            report.waiting += 1
            return False
        try:
            self._relay.relay(act.act_id)
        except UNKNOWN as exc:
            held.stop(act, exc)
            report.waiting += 1
            return False
        except LedgerError:
            report.refused_by_contract += 1
            instead = self._refuse(act, refused)
            return instead is not None and self._bring(self._journal.act(instead), report, held, refused=refused)
        return True

    def _refuse(self, act: Act, refused: Callable[[Connection, Hex32], None]) -> str | None:
        """The contract will never take it. Returns the act that is to be relayed in its place, if there is one."""
        with self._store.begin() as tx:
            if not self._journal.fail_act(tx, act.act_id):
                return None
            if act.kind == "grant":
                refused(tx, act.consent_ids[0])
            return self._grants.revoke_instead(tx, act.consent_ids) if act.kind == "revoke" else None

    # -------------------------------------------------------------------------------------------------------- (2) lost

    def _find_lost(self, report: SyncReport) -> None:
        """Mark what is not on chain any more; move what is in another block now, with the outcomes that it has there.

        A block's hash stands for all blocks before it: while the one up to which everything was found is on chain,
        only what came after it is looked at.

        Raises `ChainUnavailableError` if the endpoint is behind: nothing of what it does not know is lost.
        """
        lost = []
        checked = self._journal.checked_block()
        if checked is not None and self._chain.block_hash(checked[0]) != checked[1]:
            checked = None
        anchors = self._journal.anchors(after=checked[0] if checked else -1)
        moved = report.moved
        numbers = list(dict.fromkeys(anchor.block_number for anchor in anchors))
        found, tip = self._chain.block_hashes(numbers)
        hashes = dict(zip(numbers, found, strict=True))
        if _is_behind(anchors, hashes, tip, checked=checked is not None):
            raise ChainUnavailableError("the endpoint does not know the newest blocks yet: nothing is taken for lost")
        for anchor in anchors:
            if hashes[anchor.block_number] == anchor.block_hash:
                continue
            receipt = self._chain.receipt(anchor.transaction_hash)
            if receipt is None or not receipt.succeeded or (anchor.batch_id is not None and not receipt.events):
                # Without events it came before the contract was there: such an account takes every call.
                lost.append(anchor)
            elif anchor.batch_id is not None:
                self._log.settle_again(anchor.batch_id, receipt)
                report.moved += 1
            else:
                self._journal.move_anchor(anchor, receipt)
                report.moved += 1
        self._journal.mark_lost(lost)
        report.lost = len(lost)
        if lost or report.moved > moved:
            self._journal.set_checked_block(None)
        elif anchors:
            self._journal.set_checked_block(anchors[-1])

    def _replay(self, report: SyncReport, held: _Held) -> None:
        """Everything that is marked as lost, in its old order; also what an interrupted run left over."""
        held.accesses = self._journal.consents_on_their_way_back()
        for anchor in self._journal.anchors(LOST):
            if anchor.batch_id is not None:
                batch = self._journal.batch(anchor.batch_id)
                if not self._put_back(batch, report, held) and batch.kind is not BatchKind.REFUSALS:
                    held.accesses.update(queued.access.consent_id for queued in self._journal.queued_in(batch))
                self._replay_accesses(report, held)
            elif anchor.act_id is not None:
                act = self._journal.act(anchor.act_id)
                if act.kind != "grant" and not held.holds(act):
                    # Left over from a batch that was closed: after their revocation they would be late.
                    self._replay_accesses(report, held, under=act.consent_ids)
                    if not held.accesses.isdisjoint(act.consent_ids):
                        continue
                # No later run puts back what is refused: whoever asks is told so, and not to wait for one.
                refused = self._registry.set_not_standing
                report.replayed_acts += self._bring(act, report, held, refused=refused)
        self._replay_accesses(report, held)

    def _put_back(self, batch: Batch, report: SyncReport, held: _Held) -> bool:
        """Whether a lost batch has an end. What comes after it in its log cannot be there before it."""
        if batch.writer in held.lanes:
            return False
        if batch.writer not in self._writers:
            self._take(batch.writer)
        try:
            back = self._writers.get(batch.writer, self._log).put_back(batch)
        except ChainError as exc:
            held.lanes.add(batch.writer)
            held.note(exc)
            return False
        if batch.kind is BatchKind.COMPELLED_ACCESSES:
            report.replayed_orders += back
        elif batch.kind is not BatchKind.REFUSALS:
            report.replayed_accesses += back
        return True

    def _replay_accesses(self, report: SyncReport, held: _Held, *, under: Collection[Hex32] | None = None) -> None:
        # Before its grant is back an access would be late.
        while queued := self._journal.unanchored(MAX_BATCH, under=under, besides=held.consents | held.accesses):
            if not self._log_again(queued, report, held):
                held.accesses.update(entry.access.consent_id for entry in queued)

    def _log_again(self, queued: Sequence[QueuedAccess], report: SyncReport, held: _Held) -> bool:
        if self._log.address in held.lanes:
            return False
        try:
            landed = self._log.append(BatchKind.LATE_ACCESSES, queued)
        except ChainError as exc:
            held.lanes.add(self._log.address)
            held.note(exc)
            return False
        report.replayed_accesses += len(landed)
        report.late += sum(entry.late for entry in landed)
        return True

    # --------------------------------------------------------------------------------------------------- (3) others'
    # acts

    def _learn(self, report: SyncReport) -> None:
        """What subjects did on chain without us counts here as well."""
        latest = self._chain.latest()
        learned = self._journal.learned()
        # A number alone says nothing of the branch: on another one there may be others' acts in blocks of old numbers.
        while learned and self._chain.block_hash(learned[-1][0]) != learned[-1][1]:
            learned.pop()
        first = learned[-1][0] + 1 if learned else 0
        for start in range(first, latest.number + 1, EVENT_BLOCKS):
            end = min(start + EVENT_BLOCKS - 1, latest.number)
            # Before its events: should the branch change meanwhile, they are read again.
            end_hash = latest.block_hash if end == latest.number else self._chain.block_hash(end)
            for event in self._chain.events(start, end, names=OTHERS_ACTS):
                self._take_in(event, report)
            if end_hash is not None:
                # Of a long chain that is read for the first time, a run that is cut off has its part.
                learned = [*learned, (end, end_hash)][-LEARNED_KEPT:]
                self._journal.set_learned(learned)

    def _take_in(self, event: Event, report: SyncReport) -> None:
        with self._store.begin() as tx:
            if event.name == "ConsentRevoked":
                report.learned_revocations += self._registry.mark_revoked(
                    tx, [event.args[0]], at=self._clock(), by=BY_CHAIN
                )
            else:
                consent_id, paused, sequence = event.args
                report.learned_pauses += self._registry.mark_paused(
                    tx, consent_id, paused=paused, sequence=sequence, at=self._clock(), by=BY_CHAIN
                )


def _is_behind(anchors: Sequence[Anchor], hashes: Mapping[int, Hex32 | None], tip: int, *, checked: bool) -> bool:
    """Whether everything up to the tip is as it was (`checked`: there is something), and the rest is above it.

    A chain that lost its tail, or was restarted, has other blocks where the old ones were.
    """
    reached = [anchor for anchor in anchors if anchor.block_number <= tip]
    same = all(hashes[anchor.block_number] == anchor.block_hash for anchor in reached)
    missing = any(hashes[anchor.block_number] is None for anchor in anchors[len(reached) :])
    return missing and same and (checked or bool(reached))
