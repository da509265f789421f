"""The journal: every signed act, every batch and every release, with its state and its place on chain.

It is written before the chain is asked and settled after it answered, so that whatever is killed in between is found
again: an act or a batch is `pending` until its block is known; a release is `intent` until its batch has landed.

    release:  intent ─► recorded ─► released          intent ─► refused (by the contract, or by the custodian itself)
                 └──────────┴─────► aborted           the last three are final
"""

from __future__ import annotations

import json
import secrets
from collections import Counter
from collections.abc import Collection, Container, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    and_,
    bindparam,
    case,
    delete,
    func,
    insert,
    literal_column,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.sql.dml import Update

from ledger.access import BatchKind, ChainProof, LoggedAccess
from ledger.chain import RawTransaction, Receipt
from ledger.consent import ZERO32, Address, Domain, Hex32
from ledger.contract_events import Appended, Outcome
from ledger.errors import ChainLostError, ReleaseInProgressError
from ledger.store import Store, act_consents, acts, batches, consents, insert_many, meta, new_id, orders, releases

INTENT: Final = "intent"
RECORDED: Final = "recorded"
RELEASED: Final = "released"
REFUSED: Final = "refused"
ABORTED: Final = "aborted"

PENDING: Final = "pending"
ANCHORED: Final = "anchored"
LOST: Final = "lost"
FAILED: Final = "failed"

FORGOTTEN_AT_ONCE: Final = 500

# Statements on the way of a release are built once: building one takes longer than running it.
_BY_IDEMPOTENCY: Final = select(releases.c.idempotency_index, releases.c.release_id, releases.c.state).where(
    releases.c.idempotency_index.in_(bindparam("indexes", expanding=True))
)
_COUNTS: Final = or_(
    releases.c.state.in_((INTENT, RECORDED, RELEASED)),
    and_(releases.c.state == ABORTED, releases.c.log_index.is_not(None)),
)
_USED_ON: Final = (
    select(releases.c.consent_id, func.count())
    .where(
        releases.c.consent_id.in_(bindparam("consents", expanding=True)), releases.c.day == bindparam("day"), _COUNTS
    )
    .group_by(releases.c.consent_id)
)
_OPEN: Final = select(releases.c.release_id).where(
    releases.c.release_id.in_(bindparam("ids", expanding=True)), releases.c.state.in_((INTENT, RECORDED))
)
_ANSWER: Final = (
    update(releases)
    .where(releases.c.release_id == bindparam("id"))
    .values(
        state=RELEASED,
        sealed=bindparam("answer"),
        receipt_signature=bindparam("receipt"),
        finished_at=bindparam("at"),
        log_index=bindparam("place"),
        late=bindparam("is_late"),
    )
)
_LAST_ANSWERED: Final = (
    select(releases.c.consent_id, func.max(releases.c.finished_at))
    .where(releases.c.state == RELEASED)
    .group_by(releases.c.consent_id)
)
_WITH_ANSWER: Final = (
    select(releases.c.release_id)
    .where(releases.c.sealed.is_not(None), releases.c.finished_at < bindparam("before"))
    .limit(bindparam("most"))
)
_FORGET_ANSWER: Final = (
    update(releases).where(releases.c.release_id == bindparam("id")).values(sealed=None, receipt_signature=None)
)
_ADD_BATCH: Final = insert(batches)
_PLACE: Final = ("transaction_hash", "block_number", "block_hash", "transaction_index")
_ANCHOR_BATCH: Final = (
    update(batches)
    .where(batches.c.batch_id == bindparam("batch"))
    .values(state=ANCHORED, **{name: bindparam(f"new_{name}") for name in (*_PLACE, "size", "head")})
)
_PENDING_BATCH: Final = select(batches).where(batches.c.writer == bindparam("address"), batches.c.state == PENDING)
_PUT_IN_BATCH: Final = (
    update(releases)
    .where(releases.c.release_id == bindparam("entry"), releases.c.batch_id.is_(None))
    .values(batch_id=bindparam("batch"), position=bindparam("place"), writer=bindparam("address"))
)
_WITH_BATCH: Final = select(
    releases,
    batches.c.state.label("batch_state"),
    *(batches.c[name] for name in ("kind", "transaction_hash", "block_number", "block_hash", "size", "head")),
).outerjoin(batches, batches.c.batch_id == releases.c.batch_id)
_TALLY: Final = (
    func.sum(case((releases.c.state == RELEASED, 1), else_=0)).label("reads"),
    func.sum(case((releases.c.state.in_((REFUSED, ABORTED)), 1), else_=0)).label("refusals"),
)
_LAST: Final = (
    func.max(case((releases.c.state == RELEASED, releases.c.finished_at))).label("last_read_at"),
    func.max(releases.c.created_at).label("last_asked_at"),
)
_ABOUT: Final = (
    select(acts)
    .join(act_consents, act_consents.c.act_id == acts.c.act_id)
    .where(act_consents.c.consent_id == bindparam("consent"))
    .order_by(acts.c.act_id.desc())
)
# In the very words of the index that holds them: a parameter would not say that it may be used.
_OPEN_STATE: Final = releases.c.state.in_([literal_column(f"'{state}'") for state in (INTENT, RECORDED)])
_ENTRY: Final = and_(releases.c.batch_id == bindparam("batch"), releases.c.entry_hash == bindparam("entry"))
_LAND: Final = update(releases).where(_ENTRY).values(log_index=bindparam("place"), late=bindparam("is_late"))
_RECORD: Final = (
    update(releases)
    .where(_ENTRY)
    .values(
        log_index=bindparam("place"),
        late=bindparam("is_late"),
        state=case((releases.c.state == INTENT, RECORDED), else_=releases.c.state),
    )
)
_RECORD_ORDER: Final = (
    update(orders)
    .where(orders.c.entry_hash == bindparam("entry"))
    .values(log_index=bindparam("place"), state=case((orders.c.state == INTENT, RECORDED), else_=orders.c.state))
)
_REFUSE: Final = (
    update(releases)
    # It may have been ended here, as by an erasure, while its batch was on the way.
    .where(_ENTRY, or_(releases.c.state == INTENT, and_(releases.c.state == ABORTED, releases.c.log_index.is_(None))))
    .values(state=REFUSED, reason=bindparam("why"), finished_at=bindparam("at"))
)
_PUT_BACK: Final = update(releases).where(_ENTRY, releases.c.state != REFUSED).values(batch_id=None, position=None)
_NOT_REFUSED: Final = (
    update(releases).where(_ENTRY, releases.c.state == REFUSED).values(state=ABORTED, reason="aborted", late=False)
)
_CHECKED: Final = select(meta.c.value).where(meta.c.key == "checked_block")
_FORGET_CHECKED: Final = delete(meta).where(meta.c.key == "checked_block")


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """A signed act that was or will be relayed: `grant`, `revoke`, `pause`, `custodian-revoke` or `writer`."""

    act_id: str
    kind: str
    consent_ids: tuple[Hex32, ...]
    lane: str
    calldata: bytes
    raw: bytes | None
    transaction_hash: Hex32 | None
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A batch of one writer, as it was signed. `embargo_until`: of accesses by order, otherwise 0."""

    batch_id: str
    kind: BatchKind
    writer: str
    expected_head: Hex32
    raw: bytes
    transaction_hash: Hex32
    embargo_until: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """Where on chain an act or a batch stands, in chain order."""

    block_number: int
    block_hash: Hex32
    transaction_index: int
    transaction_hash: Hex32
    act_id: str | None
    batch_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedAccess:
    """A release that waits for the log."""

    release_id: Hex32
    access: LoggedAccess


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What makes a release answered: the sealed bytes, the signature of its receipt, and its place on chain."""

    release_id: Hex32
    entry_hash: Hex32
    sealed: bytes
    receipt_signature: bytes
    log_index: int
    late: bool


class Journal:
    """Reads and writes of the journal, each one transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store

    # ------------------------------------------------------------------------------------------------------------ acts

    def add_act(
        self, tx: Connection, *, kind: str, consent_ids: Sequence[Hex32], lane: str, calldata: bytes, at: int
    ) -> str:
        """Put an act on file within the caller's transaction. Returns its id."""
        act_id = new_id()
        row = {"act_id": act_id, "kind": kind, "consent_ids": json.dumps(list(consent_ids)), "lane": lane}
        tx.execute(acts.insert(), [row | {"calldata": calldata, "state": PENDING, "created_at": at}])
        if consent_ids:
            about = [{"consent_id": consent_id, "act_id": act_id} for consent_id in dict.fromkeys(consent_ids)]
            tx.execute(act_consents.insert(), about)
        return act_id

    def act(self, act_id: str) -> Act:
        """One act."""
        with self._store.read() as tx:
            return _act(tx.execute(select(acts).where(acts.c.act_id == act_id)).one())

    def pending_acts(self) -> list[Act]:
        """Acts whose block is not known, oldest first."""
        with self._store.read() as tx:
            query = select(acts).where(acts.c.state == PENDING).order_by(acts.c.act_id)
            return [_act(row) for row in tx.execute(query)]

    def consents_of_lost_acts(self) -> set[Hex32]:
        """Consents with an act that the chain lost and does not have back yet."""
        lost = select(act_consents.c.consent_id).join(acts, acts.c.act_id == act_consents.c.act_id)
        with self._store.read() as tx:
            return set(tx.scalars(lost.where(acts.c.state == LOST)))

    def grant_act(self, consent_id: Hex32) -> Act | None:
        """The act that granted a consent."""
        with self._store.read() as tx:
            row = tx.execute(_ABOUT.where(acts.c.kind == "grant"), {"consent": consent_id}).first()
        return _act(row) if row else None

    def acts_about(self, consent_id: Hex32) -> list[Row[Any]]:
        """Every act about a consent, newest first, with its place on chain."""
        with self._store.read() as tx:
            return list(tx.execute(_ABOUT, {"consent": consent_id}))

    def pending_pauses(self, tx: Connection, consent_id: Hex32) -> list[bytes]:
        """The calls by which a consent is to be paused or resumed and whose block is not known."""
        query = _ABOUT.where(acts.c.kind == "pause", acts.c.state == PENDING)
        return [row.calldata for row in tx.execute(query, {"consent": consent_id})]

    def attach_transaction(self, act_id: str, transaction: RawTransaction) -> None:
        """Make a signed transaction durable, before it is sent. What was lost keeps its place until it is back."""
        with self._store.begin() as tx:
            tx.execute(
                update(acts)
                .where(acts.c.act_id == act_id)
                .values(raw=transaction.raw, transaction_hash=transaction.transaction_hash)
            )

    def anchor_act(self, act_id: str, receipt: Receipt) -> None:
        """The act is on chain."""
        with self._store.begin() as tx:
            _check_again(tx, receipt)
            tx.execute(update(acts).where(acts.c.act_id == act_id).values(state=ANCHORED, **_place(receipt)))

    def fail_act(self, tx: Connection, act_id: str) -> bool:
        """The contract will never take it. False if it has it after all, by another process that sent the same."""
        row = (acts.c.act_id == act_id, acts.c.state != ANCHORED)
        return tx.execute(update(acts).where(*row).values(state=FAILED)).rowcount > 0

    # --------------------------------------------------------------------------------------------------------- batches

    def add_batch(
        self,
        tx: Connection,
        kind: BatchKind,
        writer: str,
        head: Hex32,
        transaction: RawTransaction,
        *,
        at: int,
        embargo_until: int = 0,
    ) -> Batch:
        """Put a signed batch on file, before it is sent; its entries say themselves that they are in it."""
        row = {
            "batch_id": new_id(),
            "kind": int(kind),
            "writer": writer,
            "expected_head": head,
            "raw": transaction.raw,
            "transaction_hash": transaction.transaction_hash,
            "state": PENDING,
            "created_at": at,
            "embargo_until": embargo_until,
        }
        tx.execute(_ADD_BATCH, [row])
        return _batch_of(row)

    def put_in_batch(self, tx: Connection, batch_id: str, queued: Sequence[QueuedAccess], *, writer: str) -> None:
        """Say of releases on file that they are in a batch, in this order: they are that writer's from here on.

        Raises `ReleaseInProgressError` if one of them is in a batch already: then none may be sent in this one.
        """
        rows = [
            {"entry": entry.release_id, "batch": batch_id, "place": position, "address": writer}
            for position, entry in enumerate(queued)
        ]
        if tx.execute(_PUT_IN_BATCH, rows).rowcount != len(rows):
            # Another process found it in no batch at the same moment and came first: it must not be on the log twice.
            raise ReleaseInProgressError("this access is on its way to the log in another batch: ask again")

    def pending_batch(self, writer: str) -> Batch | None:
        """The batch of this writer that is in flight, or was when its process died. There is at most one."""
        with self._store.read() as tx:
            row = tx.execute(_PENDING_BATCH, {"address": writer}).first()
        return _batch_of(row._asdict()) if row else None

    def queued_in(self, batch: Batch) -> list[QueuedAccess]:
        """The entries of a batch, in order."""
        batch_id = batch.batch_id
        with self._store.read() as tx:
            if batch.kind is BatchKind.COMPELLED_ACCESSES:
                return [queued_order(row) for row in tx.execute(select(orders).where(orders.c.batch_id == batch_id))]
            query = select(releases).where(releases.c.batch_id == batch_id).order_by(releases.c.position)
            return [_queued(row) for row in tx.execute(query)]

    def settle_batch(
        self, tx: Connection, batch: Batch, receipt: Receipt, appended: Appended, *, at: int, answered: Container[Hex32]
    ) -> None:
        """The batch is on chain: every entry has its outcome, but those that `store_answers` writes with their answer.

        `answered` has their entry hashes.
        """
        _check_again(tx, receipt)
        place = {**_place(receipt), "size": appended.size, "head": appended.head}
        tx.execute(_ANCHOR_BATCH, {"batch": batch.batch_id, **{f"new_{name}": value for name, value in place.items()}})
        if batch.kind is BatchKind.COMPELLED_ACCESSES:
            landed = [{"entry": one.access.entry_hash, "place": one.log_index} for one in appended.outcomes]
            tx.execute(_RECORD_ORDER, landed)
            return
        recorded = [
            _landed(batch, outcome)
            for outcome in appended.outcomes
            if not outcome.reason and outcome.access.entry_hash not in answered
        ]
        refused = [outcome for outcome in appended.outcomes if outcome.reason]
        if recorded:
            tx.execute(_RECORD, recorded)
        if refused:
            why = [_entry(batch, outcome) | {"why": outcome.reason.name.lower(), "at": at} for outcome in refused]
            tx.execute(_REFUSE, why)
            tx.execute(_LAND, [_landed(batch, outcome) for outcome in refused])

    def settle_again(self, tx: Connection, batch: Batch, receipt: Receipt, appended: Appended, *, at: int) -> None:
        """The batch is in another block, where its entries may have other outcomes. `appended`: of those still in it.

        What counted as recorded and is refused there is off the log, and waits for another batch. What was refused and
        is recorded there was logged and not handed over.
        """
        self.settle_batch(tx, batch, receipt, appended, at=at, answered=())
        if batch.kind is not BatchKind.ACCESSES:
            return
        for statement, is_refused in ((_PUT_BACK, True), (_NOT_REFUSED, False)):
            entries = [_entry(batch, each) for each in appended.outcomes if bool(each.reason) is is_refused]
            if entries:
                tx.execute(statement, entries)

    def lose_batch(self, batch: Batch) -> None:
        """The batch can never land: its entries wait for another one."""
        with self._store.begin() as tx:
            _let_go(tx, batch.batch_id)

    def unanchored(
        self, limit: int, *, under: Collection[Hex32] | None = None, besides: Collection[Hex32] = ()
    ) -> list[QueuedAccess]:
        """Accesses that were on the log and are on no batch now, oldest first: the log must have them back.

        Only those under the consents in `under`, if given; without those under the ones in `besides`.
        """
        on_log = or_(releases.c.state.in_((RECORDED, RELEASED)), releases.c.log_index.is_not(None))
        query = select(releases).where(on_log, releases.c.state != REFUSED, releases.c.batch_id.is_(None))
        if under is not None:
            query = query.where(releases.c.consent_id.in_(under))
        if besides:
            query = query.where(releases.c.consent_id.not_in(besides))
        with self._store.read() as tx:
            return [_queued(row) for row in tx.execute(query.order_by(releases.c.created_at).limit(limit))]

    def consents_on_their_way_back(self) -> set[Hex32]:
        """Consents with accesses in a batch that is to put them back on the log, and whose block is not known."""
        late = (batches.c.state == PENDING, batches.c.kind == int(BatchKind.LATE_ACCESSES))
        query = select(releases.c.consent_id).join(batches, batches.c.batch_id == releases.c.batch_id)
        with self._store.read() as tx:
            return set(tx.scalars(query.where(*late)))

    def batch(self, batch_id: str) -> Batch:
        """One batch."""
        return _batch_of(self.batch_row(batch_id)._asdict())

    def batch_row(self, batch_id: str) -> Row[Any]:
        """A batch with its place on chain."""
        with self._store.read() as tx:
            return tx.execute(select(batches).where(batches.c.batch_id == batch_id)).one()

    def proof_of(self, row: Row[Any], domain: Domain, custodian: Address) -> ChainProof:
        """Where the entry of a release stands. Raises `ChainLostError` if the chain lost it and does not have it back.

        A batch that is in flight stands nowhere yet, also if it is the one that puts an entry back.
        """
        batch = self.batch_row(row.batch_id) if row.batch_id is not None else None
        if batch is None or not _stands(batch.state, row.log_index):
            raise ChainLostError("the chain lost this access: run `consent-ledger sync`")
        return ChainProof(
            chain_id=domain.chain_id,
            contract=domain.contract,
            custodian=custodian,
            writer=batch.writer,
            transaction_hash=batch.transaction_hash,
            block_number=batch.block_number,
            block_hash=batch.block_hash,
            log_index=row.log_index,
            size=batch.size,
            head=batch.head,
        )

    def learned(self) -> list[tuple[int, Hex32]]:
        """Number and hash of the last blocks up to which the events were taken in, oldest first."""
        value = self._remembered("learned")
        return [(number, Hex32(block_hash)) for number, block_hash in json.loads(value or "[]")]

    def set_learned(self, blocks: Sequence[tuple[int, Hex32]]) -> None:
        """Remember them."""
        self._remember("learned", json.dumps(blocks))

    def checked_block(self) -> tuple[int, Hex32] | None:
        """Number and hash of the block up to which every anchor was found on chain; None if none was."""
        value = self._remembered("checked_block")
        return _checked(value) if value else None

    def set_checked_block(self, checked: Anchor | None) -> None:
        """Remember it."""
        self._remember("checked_block", f"{checked.block_number} {checked.block_hash}" if checked else "")

    def _remembered(self, key: str) -> str | None:
        with self._store.read() as tx:
            return tx.scalar(select(meta.c.value).where(meta.c.key == key))

    def _remember(self, key: str, value: str) -> None:
        with self._store.begin() as tx:
            tx.execute(delete(meta).where(meta.c.key == key))
            tx.execute(meta.insert(), [{"key": key, "value": value}])

    def log_end(self, writer: str, state: str = ANCHORED) -> tuple[Hex32, int]:
        """Head and size after this writer's newest batch on chain (or lost)."""
        with self._store.read() as tx:
            query = select(batches.c.head, batches.c.size).where(batches.c.writer == writer, batches.c.state == state)
            row = tx.execute(query.order_by(batches.c.size.desc()).limit(1)).first()
        return (row.head, row.size) if row else (ZERO32, 0)

    def size_at(self, writer: str, head: Hex32) -> int | None:
        """How many entries this writer's log has where its head is this one; None if no batch on file ends there."""
        if head == ZERO32:
            return 0
        with self._store.read() as tx:
            # By state: the index has the newest first, and it is nearly always that one.
            for state in (ANCHORED, LOST, FAILED):
                query = select(batches.c.size).where(batches.c.writer == writer, batches.c.state == state)
                newest = query.where(batches.c.head == head).order_by(batches.c.size.desc()).limit(1)
                if (size := tx.scalar(newest)) is not None:
                    return int(size)
        return None

    def size_on_file(self, writer: str) -> int:
        """How many entries this writer's log can have by what is on file: a lost batch may be back at any moment."""
        return max(self.log_end(writer, state)[1] for state in (ANCHORED, LOST))

    # -------------------------------------------------------------------------------------------------------- releases

    def find_releases(self, tx: Connection, idempotency_indexes: Sequence[str]) -> dict[str, tuple[Hex32, str]]:
        """Releases of earlier tries under the same keys, by index: their id and state."""
        rows = tx.execute(_BY_IDEMPOTENCY, {"indexes": list(idempotency_indexes)})
        return {row.idempotency_index: (row.release_id, row.state) for row in rows}

    def release_row(self, release_id: Hex32) -> Row[Any] | None:
        """One release."""
        with self._store.read() as tx:
            return self.release_in(tx, release_id)

    def release_in(self, tx: Connection, release_id: Hex32) -> Row[Any] | None:
        """One release, as the caller's transaction sees it."""
        return tx.execute(select(releases).where(releases.c.release_id == release_id)).first()

    def answered(self, tx: Connection, subject_id: str) -> list[Row[Any]]:
        """Answered releases about a person, newest first."""
        mine = (releases_about(subject_id), releases.c.state == RELEASED)
        return list(tx.execute(select(releases).where(*mine).order_by(releases.c.finished_at.desc())))

    def last_answered(self, tx: Connection, consent_ids: Sequence[Hex32]) -> dict[Hex32, int]:
        """When each consent was last answered under. Those under which nothing was released are left out."""
        query = _LAST_ANSWERED.where(releases.c.consent_id.in_(list(consent_ids)))
        return {row[0]: row[1] for row in tx.execute(query)}

    def answered_before(self, tx: Connection, before: int, subject_id: str | None = None) -> dict[Hex32, int]:
        """Consents last answered under before that time, and when; of one person if given, of no erased one."""
        whose = releases.c.subject_id.is_not(None) if subject_id is None else releases_about(subject_id)
        query = _LAST_ANSWERED.where(whose).having(func.max(releases.c.finished_at) < before)
        return {row[0]: row[1] for row in tx.execute(query)}

    def used_on(self, tx: Connection, consent_ids: Sequence[Hex32], day: int) -> Counter[Hex32]:
        """Accesses under consents in a UTC day: those that are on the log as recorded, or may still get there."""
        rows = tx.execute(_USED_ON, {"consents": list(consent_ids), "day": day})
        return Counter({row[0]: row[1] for row in rows})

    def last_used(self, tx: Connection, consent_ids: Sequence[Hex32]) -> dict[Hex32, int]:
        """When each consent was last used: its newest access that is on the log. Those never used are left out."""
        query = (
            select(releases.c.consent_id, func.max(releases.c.created_at))
            .where(releases.c.consent_id.in_(list(consent_ids)), releases.c.log_index.is_not(None))
            .where(releases.c.state != REFUSED)
            .group_by(releases.c.consent_id)
        )
        return {row[0]: row[1] for row in tx.execute(query)}

    def refused_on(self, tx: Connection, consent_id: Hex32, day: int) -> int:
        """Refusals on file under a consent in a UTC day."""
        row = (releases.c.consent_id == consent_id, releases.c.day == day, releases.c.state == REFUSED)
        return tx.scalar(select(func.count()).where(*row)) or 0

    def still_open(self, tx: Connection, release_ids: Sequence[Hex32]) -> set[Hex32]:
        """Those of the releases that wait for their answer."""
        return set(tx.scalars(_OPEN, {"ids": list(release_ids)}))

    def store_answers(self, tx: Connection, answers: Sequence[Answer], *, at: int) -> None:
        """The sealed bytes, once and for all; the caller has seen in this transaction that they are waited for."""
        rows = [
            {
                "id": one.release_id,
                "answer": one.sealed,
                "receipt": one.receipt_signature,
                "at": at,
                "place": one.log_index,
                "is_late": one.late,
            }
            for one in answers
        ]
        if rows:
            tx.execute(_ANSWER, rows)

    def forget_answers(self, before: int) -> int:
        """Destroy the sealed bytes of what was answered before that time. Returns how many.

        The releases, their entries and their receipts stay. A chunk at a time: releases wait for each transaction.
        """
        forgotten = 0
        while True:
            with self._store.begin() as tx:
                ids = list(tx.scalars(_WITH_ANSWER, {"before": before, "most": FORGOTTEN_AT_ONCE}))
                if ids:
                    tx.execute(_FORGET_ANSWER, [{"id": release_id} for release_id in ids])
            forgotten += len(ids)
            if len(ids) < FORGOTTEN_AT_ONCE:
                return forgotten

    def add_releases(self, tx: Connection, rows: Sequence[dict[str, Any]]) -> None:
        """Put intents or refusals on file within the caller's transaction."""
        if rows:
            insert_many(tx, releases, [row | {"late": 0} for row in rows])

    def move(self, release_id: Hex32, from_state: str, to_state: str, **values: object) -> bool:
        """Change a release's state if it is still the expected one. Returns whether it was."""
        with self._store.begin() as tx:
            return self.move_in(tx, release_id, from_state, to_state, **values)

    def move_in(self, tx: Connection, release_id: Hex32, from_state: str, to_state: str, **values: object) -> bool:
        """As `move`, within the caller's transaction."""
        changed = tx.execute(
            update(releases)
            .where(releases.c.release_id == release_id, releases.c.state == from_state)
            .values(state=to_state, **values)
        )
        return changed.rowcount == 1

    def writers_with_work(self) -> set[str]:
        """Writers with a batch in flight or releases that have not ended: their process is at work, or died at it."""
        open_releases = select(releases.c.writer).where(_OPEN_STATE)
        in_flight = select(batches.c.writer).where(batches.c.state == PENDING)
        with self._store.read() as tx:
            return {*tx.scalars(open_releases.distinct()), *tx.scalars(in_flight.distinct())}

    def unfinished(self, writer: str) -> list[Row[Any]]:
        """Releases of this writer that are neither answered nor refused."""
        with self._store.read() as tx:
            query = select(releases).where(releases.c.writer == writer, _OPEN_STATE)
            return list(tx.execute(query.order_by(releases.c.created_at)))

    def unlogged_refusals(self, limit: int) -> list[QueuedAccess]:
        """Requests that the custodian refused and that are not on the log yet, oldest first."""
        with self._store.read() as tx:
            query = select(releases).where(releases.c.state == REFUSED, releases.c.batch_id.is_(None))
            return [_queued(row) for row in tx.execute(query.order_by(releases.c.created_at).limit(limit))]

    def history(self, consent_ids: Sequence[Hex32] | None = None, limit: int = 1000) -> list[Row[Any]]:
        """Releases and refusals with their place on chain, newest first."""
        query = select(releases, batches.c.block_number, batches.c.transaction_hash).outerjoin(
            batches, batches.c.batch_id == releases.c.batch_id
        )
        if consent_ids is not None:
            query = query.where(releases.c.consent_id.in_(consent_ids))
        with self._store.read() as tx:
            return list(
                tx.execute(query.order_by(releases.c.created_at.desc(), releases.c.release_id.desc()).limit(limit))
            )

    def page(self, *, after: str, limit: int) -> list[Row[Any]]:
        """Every release and refusal there ever was, by id, a page at a time: those after the last one's id."""
        query = select(releases).where(releases.c.release_id > after).order_by(releases.c.release_id).limit(limit)
        with self._store.read() as tx:
            return list(tx.execute(query))

    def of_subject(
        self,
        tx: Connection,
        subject_id: str,
        *,
        limit: int,
        after: Row[Any] | None = None,
        institution_index: str | None = None,
        consent_id: Hex32 | None = None,
        states: Sequence[str] = (),
    ) -> list[Row[Any]]:
        """A page of what was asked about a person, newest first, from the row `after` on, with its batch."""
        query = _WITH_BATCH.where(releases_about(subject_id))
        if states:
            query = query.where(releases.c.state.in_(states))
        if after is not None:
            query = query.where(
                tuple_(releases.c.created_at, releases.c.release_id) < (after.created_at, after.release_id)
            )
        if institution_index is not None:
            query = query.where(releases.c.institution_index == institution_index)
        if consent_id is not None:
            query = query.where(releases.c.consent_id == consent_id)
        newest = (releases.c.created_at.desc(), releases.c.release_id.desc())
        return list(tx.execute(query.order_by(*newest).limit(limit)))

    def with_batches(self, tx: Connection, release_ids: Sequence[Hex32]) -> list[Row[Any]]:
        """Releases with their batches, oldest first."""
        found = [tx.execute(_WITH_BATCH.where(releases.c.release_id == one)).first() for one in release_ids]
        return sorted((row for row in found if row), key=lambda row: (row.created_at, row.release_id))

    def one_of_subject(self, tx: Connection, subject_id: str, release_id: Hex32) -> Row[Any] | None:
        """One of them, with its batch; None if it is another person's."""
        mine = (releases.c.subject_id == subject_id, releases.c.release_id == release_id)
        return tx.execute(_WITH_BATCH.where(*mine)).first()

    def readers(self, tx: Connection, subject_id: str, since: int) -> list[Row[Any]]:
        """For each institution that asked about a person: `reads`, `refusals`, `last_read_at`, `last_asked_at`."""
        mine = (releases_about(subject_id), releases.c.created_at >= since)
        query = select(releases.c.institution_index, *_TALLY, *_LAST)
        return list(tx.execute(query.where(*mine).group_by(releases.c.institution_index)))

    # -------------------------------------------------------------------------------------------------------- anchors

    def anchors(self, state: str = ANCHORED, *, after: int = -1) -> list[Anchor]:
        """Everything on chain (or lost) in a later block than `after`, in chain order."""
        place = ("block_number", "block_hash", "transaction_index", "transaction_hash")
        with self._store.read() as tx:
            found = [
                Anchor(
                    **{name: getattr(row, name) for name in place},
                    act_id=getattr(row, "act_id", None),
                    batch_id=getattr(row, "batch_id", None),
                )
                for table in (acts, batches)
                for row in tx.execute(select(table).where(table.c.state == state, table.c.block_number > after))
            ]
        return sorted(found, key=lambda anchor: (anchor.block_number, anchor.transaction_index))

    def move_anchor(self, anchor: Anchor, receipt: Receipt) -> None:
        """The same transaction is in another block now."""
        with self._store.begin() as tx:
            tx.execute(_update_of(anchor).values(**_place(receipt)))

    def mark_lost(self, lost: Sequence[Anchor]) -> None:
        """The chain has these no more. They keep their old place, which is the order in which they are replayed."""
        with self._store.begin() as tx:
            for anchor in lost:
                tx.execute(_update_of(anchor).values(state=LOST))

    def close_lost_batch(self, batch_id: str) -> None:
        """Let the entries that are still on a lost batch go: refusals and accesses alike wait for another one."""
        with self._store.begin() as tx:
            _let_go(tx, batch_id)


def new_release_id() -> Hex32:
    """A UUIDv7 and as much chance again: releases of one second stay in order. It is on chain only inside a hash."""
    return Hex32("0x" + new_id().replace("-", "") + secrets.token_hex(16))


def made_at_ms(release_id: Hex32) -> int:
    """When `new_release_id` made it, in milliseconds of Unix time."""
    return int(release_id[2:14], 16)


def releases_about(subject_id: str) -> ColumnElement[bool]:
    """The releases about a person, found by their consents."""
    return releases.c.consent_id.in_(select(consents.c.consent_id).where(consents.c.subject_id == subject_id))


def is_on_log(row: Row[Any]) -> bool:
    """Whether the entry of a row with its batch is on the log, as far as the journal knows."""
    return _stands(row.batch_state, row.log_index)


def _stands(batch_state: str | None, log_index: int | None) -> bool:
    # What the chain lost keeps its old place until it is back: that is nowhere.
    return batch_state == ANCHORED and log_index is not None


def _checked(value: str) -> tuple[int, Hex32]:
    number, _, block_hash = value.partition(" ")
    return int(number), Hex32(block_hash)


def _check_again(tx: Connection, receipt: Receipt) -> None:
    # It may be on a branch that was left before: what was checked is above it, and nobody would look for it again.
    value = tx.scalar(_CHECKED)
    if value and _checked(value)[0] >= receipt.block_number:
        tx.execute(_FORGET_CHECKED)


def _let_go(tx: Connection, batch_id: str) -> None:
    tx.execute(update(batches).where(batches.c.batch_id == batch_id).values(state=FAILED))
    tx.execute(update(releases).where(releases.c.batch_id == batch_id).values(batch_id=None, position=None))
    tx.execute(update(orders).where(orders.c.batch_id == batch_id).values(batch_id=None))


def _update_of(anchor: Anchor) -> Update:
    if anchor.act_id:
        return update(acts).where(acts.c.act_id == anchor.act_id)
    return update(batches).where(batches.c.batch_id == anchor.batch_id)


def _entry(batch: Batch, outcome: Outcome) -> dict[str, Any]:
    return {"batch": batch.batch_id, "entry": outcome.access.entry_hash}


def _landed(batch: Batch, outcome: Outcome) -> dict[str, Any]:
    return _entry(batch, outcome) | {"place": outcome.log_index, "is_late": outcome.late}


def _place(receipt: Receipt) -> dict[str, Any]:
    return {name: getattr(receipt, name) for name in _PLACE}


def _act(row: Row[Any]) -> Act:
    return Act(
        act_id=row.act_id,
        kind=row.kind,
        consent_ids=tuple(json.loads(row.consent_ids)),
        lane=row.lane,
        calldata=row.calldata,
        raw=row.raw,
        transaction_hash=row.transaction_hash,
        state=row.state,
    )


def _batch_of(row: dict[str, Any]) -> Batch:
    return Batch(
        batch_id=row["batch_id"],
        kind=BatchKind(row["kind"]),
        writer=row["writer"],
        expected_head=row["expected_head"],
        raw=row["raw"],
        transaction_hash=row["transaction_hash"],
        embargo_until=row["embargo_until"],
    )


def queued_order(row: Row[Any]) -> QueuedAccess:
    """What goes to the log of a row of the orders."""
    access = LoggedAccess(consent_id=row.order_hash, entry_hash=row.entry_hash)
    return QueuedAccess(release_id=row.release_id, access=access)


def _queued(row: Row[Any]) -> QueuedAccess:
    return QueuedAccess(
        release_id=row.release_id, access=LoggedAccess(consent_id=row.consent_id, entry_hash=row.entry_hash)
    )
