"""The order book: every access that an authority ordered, with its state and its place on chain.

    intent ─► recorded ─► released          intent ─► aborted (erased before it was logged)

A row is written before the chain is asked, as in the journal (`journal.py`), and never ends unlogged: what is on chain
stays to be handed over or seen. Whether the subject may see a row is decided here, by its embargo, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, insert, select, update

from ledger.access import AccessEntry
from ledger.compelled import CompelledOrder, is_visible
from ledger.consent import Hex32
from ledger.errors import ReleaseInProgressError
from ledger.journal import ABORTED, INTENT, RECORDED, RELEASED
from ledger.keys import KeyFile
from ledger.store import Store, batches, orders
from ledger.vault import open_json, seal_json

_WITH_BATCH: Final = select(
    orders,
    batches.c.state.label("batch_state"),
    *(batches.c[name] for name in ("transaction_hash", "block_number", "block_hash", "size", "head")),
).outerjoin(batches, batches.c.batch_id == orders.c.batch_id)
_NEWEST_FIRST: Final = (orders.c.created_at.desc(), orders.c.release_id.desc())


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedOrder:
    """What a row has sealed: the order, the entry on the log, and the records that answer it."""

    order: CompelledOrder
    entry: AccessEntry
    records: tuple[str, ...]


class OrderBook:
    """Reads and writes of the orders."""

    def __init__(self, store: Store, keys: KeyFile) -> None:
        self._store, self._keys = store, keys

    def order_index(self, authority: str, reference: str) -> str:
        """How an order is found again: by who gave it, and under which reference."""
        return self._keys.index("order", f"{authority}\n{reference}")

    def content_index(self, content: str) -> str:
        """Keyed: so few things can be ordered that a bare hash would tell which."""
        return self._keys.index("order-content", content)

    def add(self, tx: Connection, opened: OpenedOrder, columns: Mapping[str, Any]) -> None:
        """Put an order on file, before it is logged, within the caller's transaction."""
        opening = {
            "order": opened.order.as_json(),
            "entry": opened.entry.as_json(),
            "records": list(opened.records),
        }
        sealed = seal_json(opening, order_context(columns["order_hash"]), self._keys)
        tx.execute(insert(orders), [{**columns, "state": INTENT, **sealed}])

    def find(self, order_index: str) -> Row[Any] | None:
        """The order of that index, with its batch."""
        with self._store.read() as tx:
            return tx.execute(_WITH_BATCH.where(orders.c.order_index == order_index)).first()

    def row(self, tx: Connection, order_hash: Hex32) -> Row[Any] | None:
        """The order of that hash, with its batch."""
        return tx.execute(_WITH_BATCH.where(orders.c.order_hash == order_hash)).first()

    def listed(self) -> list[Row[Any]]:
        """Every order, newest first, with its batch."""
        with self._store.read() as tx:
            return list(tx.execute(_WITH_BATCH.order_by(*_NEWEST_FIRST)))

    def every(self) -> list[Row[Any]]:
        """Every order there ever was, by its release's id."""
        with self._store.read() as tx:
            return list(tx.execute(select(orders).order_by(orders.c.release_id)))

    def visible(self, tx: Connection, subject_id: str, *, now: int) -> list[Row[Any]]:
        """What a person may know: accesses about them that are on the log and under no embargo, newest first."""
        logged = _WITH_BATCH.where(orders.c.subject_id == subject_id, orders.c.log_index.is_not(None))
        rows = tx.execute(logged.order_by(*_NEWEST_FIRST))
        return [row for row in rows if is_visible(row.embargo_until, now=now)]

    def opened(self, row: Row[Any]) -> OpenedOrder:
        """What an order is about. Raises `ErasedError`, `VaultError`."""
        opening = open_json(row, order_context(row.order_hash), self._keys)
        return OpenedOrder(
            order=CompelledOrder.from_json(opening["order"]),
            entry=AccessEntry.from_json(opening["entry"]),
            records=tuple(opening["records"]),
        )

    def put_in_batch(self, tx: Connection, order_hash: Hex32, batch_id: str, *, writer: str) -> None:
        """Say of an order that it is in a batch: it is that writer's from here on.

        Raises `ReleaseInProgressError` if it is in one already: it must not be on the log twice.
        """
        free = (orders.c.order_hash == order_hash, orders.c.batch_id.is_(None))
        if not tx.execute(update(orders).where(*free).values(batch_id=batch_id, writer=writer)).rowcount:
            raise ReleaseInProgressError("this order is on its way to the log in another batch: ask again")

    def answer(self, tx: Connection, order_hash: Hex32, sealed: bytes, *, at: int) -> bool:
        """The sealed bytes, once and for all. False if it was erased, or is not on the log."""
        waiting = (orders.c.order_hash == order_hash, orders.c.state == RECORDED, orders.c.body.is_not(None))
        changed = update(orders).where(*waiting).values(state=RELEASED, sealed=sealed, finished_at=at)
        return tx.execute(changed).rowcount == 1

    def forget_answers(self, before: int) -> int:
        """Destroy the sealed bytes of what was answered before that time. Returns how many."""
        old = (orders.c.sealed.is_not(None), orders.c.finished_at < before)
        with self._store.begin() as tx:
            return tx.execute(update(orders).where(*old).values(sealed=None)).rowcount

    def unanchored(self) -> list[Row[Any]]:
        """What was on the log and is on no batch now, oldest first: the log must have it back."""
        lost = (orders.c.log_index.is_not(None), orders.c.batch_id.is_(None))
        with self._store.read() as tx:
            return list(tx.execute(select(orders).where(*lost).order_by(orders.c.created_at)))

    def erase(self, tx: Connection, subject_id: str, *, at: int) -> int:
        """Destroy every opening about a person. Returns how many of them the person may know of.

        Those under an embargo go too, and are not counted: the number is for the person to see.
        """
        mine = orders.c.subject_id == subject_id
        visible = len(self.visible(tx, subject_id, now=at))
        ended = update(orders).where(mine, orders.c.state == INTENT)
        tx.execute(ended.values(state=ABORTED, finished_at=at))
        gone = dict.fromkeys(("subject_id", "kek_id", "wrapped_dek", "body", "sealed"))
        tx.execute(update(orders).where(mine).values(**gone))
        return visible


def order_context(order_hash: str) -> dict[str, str]:
    """What the envelope of an order's opening is bound to."""
    return {"kind": "order", "order": order_hash}
