"""Disputes: a person says that a value is wrong, and it is not released until that is settled.

open      with a statement in the person's own words, sealed; a lender that asks is refused with the code `disputed`
          and learns nothing else
withdraw  by the person
corrected by the furnisher, which hands in another value (`vault.py`)
resolve   by the custodian, who looked into it, with an answer for the person

    open ─► withdrawn | corrected | confirmed (the value stays as it was)       each is final; a new dispute may follow
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, select, update

from ledger.errors import ConflictError, ErasedError, MalformedError, NotFoundError
from ledger.keys import KeyFile
from ledger.store import Store, disputes, new_id, subjects
from ledger.texts import require_readable
from ledger.vault import CORRECTED, Vault, open_json, seal_json

WITHDRAWN: Final = "withdrawn"
CONFIRMED: Final = "confirmed"
RESOLUTIONS: Final = (CORRECTED, CONFIRMED)
"""How a custodian may resolve one."""

MIN_LENGTH: Final = 3
MAX_LENGTH: Final = 1000
LISTED: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispute:
    """What a person says is wrong, and what came of it. Times are Unix seconds.

    `outcome` is None while it is open; `answer` is the custodian's, if there is one. Both texts are shown as text.
    """

    dispute_id: str
    attribute: str
    statement: str
    opened_at: int
    closed_at: int | None
    outcome: str | None
    answer: str | None


class Disputes:
    """Opened and withdrawn by people, resolved by the custodian."""

    def __init__(self, store: Store, vault: Vault, keys: KeyFile, *, clock: Callable[[], int]) -> None:
        self._store, self._vault, self._keys, self._clock = store, vault, keys, clock

    def open(self, subject_id: str, attribute: str, statement: str) -> Dispute:
        """Dispute an attribute of this person: from now on it is not released.

        Raises `MalformedError` for the statement, `NotFoundError` if nothing of that name is held, `ConflictError` if
        it is disputed already, `ErasedError`.
        """
        said = require_readable("statement", statement, least=MIN_LENGTH, most=MAX_LENGTH)
        dispute_id = new_id()
        row = {
            "dispute_id": dispute_id,
            "subject_id": subject_id,
            "attribute": attribute,
            "opened_at": self._clock(),
            **self._sealed(dispute_id, said, None),
        }
        with self._store.begin() as tx:
            if tx.scalar(select(subjects.c.erased_at).where(subjects.c.subject_id == subject_id)) is not None:
                raise ErasedError("subject: erased", field="subject")
            if self._open(tx, subject_id, attribute) is not None:
                raise ConflictError("attribute: disputed already", field="attribute")
            held = self._vault.newest(tx, [subject_id], [attribute]).get((subject_id, attribute))
            if held is None:
                raise NotFoundError("attribute: no value of that name is held", field="attribute")
            self._vault.set_disputed(tx, subject_id, attribute, disputed=True)
            tx.execute(disputes.insert(), [row | {"version": held.version}])
            return self._read(tx.execute(select(disputes).where(disputes.c.dispute_id == dispute_id)).one())

    def withdraw(self, subject_id: str, attribute: str) -> Dispute:
        """The person takes it back. Raises `NotFoundError` if no dispute of theirs is open on it."""
        with self._store.begin() as tx:
            return self._close(tx, self._open(tx, subject_id, attribute), WITHDRAWN, None)

    def resolve(self, dispute_id: str, outcome: str, answer: str) -> Dispute:
        """The custodian looked into it: `corrected` or `confirmed`, with an answer that the person reads.

        Raises `MalformedError`, `NotFoundError` if none is open, `ConflictError` for `corrected` where no other value
        came in since.
        """
        if outcome not in RESOLUTIONS:
            raise MalformedError(f"outcome: expected one of {', '.join(RESOLUTIONS)}", field="outcome")
        said = require_readable("answer", answer, least=MIN_LENGTH, most=MAX_LENGTH)
        with self._store.begin() as tx:
            this = (disputes.c.dispute_id == dispute_id, disputes.c.closed_at.is_(None))
            row = tx.execute(select(disputes).where(*this)).first()
            if row is not None and outcome == CORRECTED and not self._has_new_version(tx, row):
                raise ConflictError("outcome: nothing was handed in since the dispute was opened", field="outcome")
            return self._close(tx, row, outcome, said)

    def of_subject(self, subject_id: str) -> list[Dispute]:
        """Every dispute of a person, the newest first."""
        query = select(disputes).where(disputes.c.subject_id == subject_id)
        with self._store.read() as tx:
            return [self._read(row) for row in tx.execute(query.order_by(disputes.c.dispute_id.desc()))]

    def waiting(self, *, limit: int = LISTED) -> list[Dispute]:
        """Those that are open, the one that waits longest first: for the custodian."""
        query = select(disputes).where(disputes.c.closed_at.is_(None)).order_by(disputes.c.dispute_id).limit(limit)
        with self._store.read() as tx:
            return [self._read(row) for row in tx.execute(query)]

    def _close(self, tx: Connection, row: Row[Any] | None, outcome: str, answer: str | None) -> Dispute:
        if row is None:
            raise NotFoundError("dispute: there is no such open one", field="dispute")
        mine = disputes.c.dispute_id == row.dispute_id
        sealed = self._sealed(row.dispute_id, self._read(row).statement, answer)
        closed = {"closed_at": self._clock(), "outcome": outcome, **sealed}
        tx.execute(update(disputes).where(mine).values(**closed))
        self._vault.set_disputed(tx, row.subject_id, row.attribute, disputed=False)
        return self._read(tx.execute(select(disputes).where(mine)).one())

    def _open(self, tx: Connection, subject_id: str, attribute: str) -> Row[Any] | None:
        mine = (disputes.c.subject_id == subject_id, disputes.c.attribute == attribute)
        return tx.execute(select(disputes).where(*mine, disputes.c.closed_at.is_(None))).first()

    def _has_new_version(self, tx: Connection, row: Row[Any]) -> bool:
        newest = self._vault.newest(tx, [row.subject_id], [row.attribute])[row.subject_id, row.attribute]
        return newest.version > int(row.version)

    def _sealed(self, dispute_id: str, statement: str, answer: str | None) -> dict[str, Any]:
        return seal_json({"statement": statement, "answer": answer}, _context(dispute_id), self._keys)

    def _read(self, row: Row[Any]) -> Dispute:
        said = open_json(row, _context(row.dispute_id), self._keys)
        return Dispute(
            dispute_id=row.dispute_id,
            attribute=row.attribute,
            statement=said["statement"],
            opened_at=row.opened_at,
            closed_at=row.closed_at,
            outcome=row.outcome,
            answer=said["answer"],
        )


def _context(dispute_id: str) -> dict[str, str]:
    return {"kind": "dispute", "dispute": dispute_id}
