"""Events: what institutions are told of their consents. An event is on file in the transaction of what it tells of.

An event names a consent, a kind and a time, never a person, a value or a term. It is `waiting` until its institution
has it (`webhooks.py` sends; an institution may as well read and acknowledge by itself), and ends as one of:

- `acknowledged`: the institution said that it knows.
- `given_up`: its receiver did not take it for days.
- `unaddressed`: no receiver was registered.

Whatever its state, an event can be read. Their ids grow in the order in which they went on file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Row, Update, delete, func, select, update

from ledger.consent import Hex32
from ledger.errors import NotFoundError
from ledger.store import Store, events, new_id

GRANTED: Final = "consent.granted"
PAUSED: Final = "consent.paused"
RESUMED: Final = "consent.resumed"
REVOKED: Final = "consent.revoked"
EXPIRED: Final = "consent.expired"
CORRECTED: Final = "attribute.corrected"

BY_SUBJECT: Final = "subject"
BY_CUSTODIAN: Final = "custodian"
BY_CHAIN: Final = "chain"
"""`by` in the details: whose act it was. What was learnt from the chain, the subject did there itself."""

REPLACED_BY: Final = "replacedBy"
"""In the details: the consent that took the place of one that ended."""

WAITING: Final = "waiting"
ACKNOWLEDGED: Final = "acknowledged"
GIVEN_UP: Final = "given_up"
UNADDRESSED: Final = "unaddressed"

SENDING: Final = "sending"
"""As the last answer: being sent, or cut off while it was."""

Detail = str | Sequence[str]
_NONE: Final[Mapping[str, Detail]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What happened to a consent, and how far the telling is. Times are Unix seconds; `created_at`: on file here.

    `last_answer` is an HTTP status, `sending`, or a kind of failure (`outbound.py`); None before the first attempt.
    """

    event_id: str
    kind: str
    consent_id: Hex32
    created_at: int
    details: Mapping[str, Detail]
    state: str
    attempts: int
    next_attempt_at: int | None
    last_answer: str | None
    acknowledged_at: int | None

    def as_json(self) -> dict[str, object]:
        """What the institution is told."""
        told = {"id": self.event_id, "kind": self.kind, "consent": self.consent_id, "at": self.created_at}
        return {**self.details, **told}


class Outbox:
    """Events and their delivery states. Institutions are named by their index (`Registry.institution_index`)."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(
        self,
        tx: Connection,
        *,
        kind: str,
        institution_index: str,
        consent_id: Hex32,
        at: int,
        details: Mapping[str, Detail] = _NONE,
    ) -> None:
        """Put an event on file, within the transaction of what it tells of. `details` name no person and no value."""
        row = {
            "event_id": _next_id(tx),
            "institution_index": institution_index,
            "kind": kind,
            "consent_id": consent_id,
            "details": json.dumps(dict(details)),
            "created_at": at,
            "state": WAITING,
            "next_attempt_at": at,
        }
        tx.execute(events.insert(), [row])

    def erase(self, tx: Connection, consent_ids: Sequence[Hex32]) -> None:
        """What was told of these consents no longer says that two of them are one person's."""
        told = select(events).where(events.c.consent_id.in_(consent_ids), events.c.kind == REVOKED)
        for row in tx.execute(told).all():
            kept = {name: detail for name, detail in json.loads(row.details).items() if name != REPLACED_BY}
            tx.execute(update(events).where(events.c.event_id == row.event_id).values(details=json.dumps(kept)))

    # --------------------------------------------------------------------------------------------- for the institution

    def of(self, institution_index: str, *, after: str | None, limit: int) -> list[Event]:
        """Its events, oldest first, that went on file after the one of the id `after`."""
        query = select(events).where(events.c.institution_index == institution_index)
        if after is not None:
            query = query.where(events.c.event_id > after)
        with self._store.read() as tx:
            return [_event(row) for row in tx.execute(query.order_by(events.c.event_id).limit(limit))]

    def get(self, institution_index: str, event_id: str) -> Event:
        """Raises `NotFoundError`, also if it is another's."""
        query = select(events).where(events.c.institution_index == institution_index, events.c.event_id == event_id)
        with self._store.read() as tx:
            row = tx.execute(query).first()
        if row is None:
            raise NotFoundError("event: no such event", field="event")
        return _event(row)

    def acknowledge(self, institution_index: str, event_id: str, *, at: int) -> Event:
        """The institution knows, and is not told again. The first time counts. Raises `NotFoundError`."""
        mine = (events.c.institution_index == institution_index, events.c.event_id == event_id)
        with self._store.begin() as tx:
            tx.execute(_acknowledgement(at).where(*mine))
        return self.get(institution_index, event_id)

    # --------------------------------------------------------------------------------------------------- for delivery

    def due(self, now: int, limit: int) -> list[str]:
        """Institutions that something is to be sent to now, the one that waits longest first."""
        query = (
            select(events.c.institution_index)
            .where(events.c.state == WAITING, events.c.next_attempt_at <= now)
            .group_by(events.c.institution_index)
            .order_by(func.min(events.c.event_id))
            .limit(limit)
        )
        with self._store.read() as tx:
            return list(tx.scalars(query))

    def claim(self, institution_index: str, *, now: int, lease: int) -> Event | None:
        """Take the institution's oldest event that is due; None if there is none, or another one is being sent.

        Nobody else gets it for `lease` seconds: whoever is cut off before `delivered` or `failed` lost it until then.
        """
        mine = (events.c.institution_index == institution_index, events.c.state == WAITING)
        with self._store.begin() as tx:
            # One at a time, so that they arrive in their order.
            in_flight = select(events.c.event_id).where(
                *mine, events.c.last_answer == SENDING, events.c.next_attempt_at > now
            )
            if tx.execute(in_flight.limit(1)).first() is not None:
                return None
            due = select(events).where(*mine, events.c.next_attempt_at <= now).order_by(events.c.event_id).limit(1)
            row = tx.execute(due).first()
            if row is None:
                return None
            # Counted before it is sent: no two attempts have one number, whatever becomes of them.
            taken = (
                update(events)
                .where(events.c.event_id == row.event_id, events.c.attempts == row.attempts)
                .values(attempts=row.attempts + 1, next_attempt_at=now + lease, last_answer=SENDING)
                .returning(*events.c)
            )
            rows = tx.execute(taken).all()
        return _event(rows[0]) if rows else None

    def delivered(self, event: Event, *, answer: str, at: int) -> None:
        """The receiver took it."""
        with self._store.begin() as tx:
            tx.execute(_of_attempt(event).values(last_answer=answer))
            tx.execute(_acknowledgement(at).where(events.c.event_id == event.event_id))

    def failed(self, event: Event, *, answer: str, retry_at: int | None) -> None:
        """The receiver did not take it; None: it is not asked again. Of no effect if a later attempt has begun."""
        state = GIVEN_UP if retry_at is None else WAITING
        with self._store.begin() as tx:
            tx.execute(_of_attempt(event).values(last_answer=answer))
            change = _of_attempt(event).where(events.c.state == WAITING)
            tx.execute(change.values(state=state, next_attempt_at=retry_at))

    def leave_unaddressed(self, institution_index: str, *, now: int) -> int:
        """What is due to an institution without a receiver is left to be read. Returns how many."""
        due = (events.c.state == WAITING, events.c.next_attempt_at <= now)
        change = update(events).where(events.c.institution_index == institution_index, *due)
        with self._store.begin() as tx:
            return tx.execute(change.values(state=UNADDRESSED, next_attempt_at=None)).rowcount

    def forget(self, older_than: int) -> int:
        """Delete acknowledged and given up events that went on file before this time. Returns how many."""
        old = (events.c.created_at < older_than, events.c.state.in_((ACKNOWLEDGED, GIVEN_UP)))
        with self._store.begin() as tx:
            return tx.execute(delete(events).where(*old)).rowcount


def _acknowledgement(at: int) -> Update:
    change = update(events).where(events.c.state != ACKNOWLEDGED)
    return change.values(state=ACKNOWLEDGED, acknowledged_at=at, next_attempt_at=None)


def _of_attempt(event: Event) -> Update:
    return update(events).where(events.c.event_id == event.event_id, events.c.attempts == event.attempts)


def _next_id(tx: Connection) -> str:
    """Later than every other: a reader that goes on from the last one it saw must miss none."""
    fresh = new_id()
    last = tx.scalar(select(func.max(events.c.event_id)))
    return fresh if last is None or fresh > last else str(UUID(int=UUID(last).int + 1))


def _event(row: Row[Any]) -> Event:
    return Event(
        event_id=row.event_id,
        kind=row.kind,
        consent_id=row.consent_id,
        created_at=row.created_at,
        details=json.loads(row.details),
        state=row.state,
        attempts=row.attempts,
        next_attempt_at=row.next_attempt_at,
        last_answer=row.last_answer,
        acknowledged_at=row.acknowledged_at,
    )
