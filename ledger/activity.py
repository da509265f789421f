"""Activity: what was done with a person's data, for that person: every access, and every attempt that was refused.

All of it comes from the journal and needs no chain: where an entry stands is what was found when it landed, and `sync`
keeps that true. Whoever wants to know from the chain itself has the opening (`entry`), and asks a node.

Accesses that an authority ordered are a list of their own, without those that are under an embargo.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row

from ledger.access import AccessEntry, ChainProof
from ledger.compelled import CompelledOrder
from ledger.consent import Address, Domain, Hex32
from ledger.errors import MalformedError, NotFoundError
from ledger.journal import ABORTED, INTENT, RECORDED, REFUSED, RELEASED, Journal, is_on_log
from ledger.keys import KeyFile
from ledger.order_book import OrderBook
from ledger.preparation import entry_of
from ledger.registry import Registry
from ledger.store import Store

PAGE: Final = 50
MAX_PAGE: Final = 200

WAITING: Final = "waiting"
"""Asked, and not ended yet: on its way to the log, or logged and not answered."""
OUTCOMES: Final[Mapping[str, str]] = {
    INTENT: WAITING,
    RECORDED: WAITING,
    RELEASED: "released",
    REFUSED: "refused",
    ABORTED: "aborted",
}
READ: Final = ("released",)
TURNED_AWAY: Final = ("refused", "aborted")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where on chain an entry stands."""

    block_number: int
    block_hash: Hex32
    transaction_hash: Hex32
    log_index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """One access or attempt. Times are Unix seconds.

    `outcome` is `released`, `refused`, `aborted` (ended without an answer) or `waiting`; `reason` is the stable code of
    why not, as in `errors.py`. `is_late`: it came back to the log only after the consent had ended. `place` is None
    while it is not on chain. Purpose and attributes are what the institution wrote: of a refused one any text.
    """

    release_id: Hex32
    consent_id: Hex32
    asked_at: int
    ended_at: int | None
    institution: str
    institution_name: str
    purpose: str
    attributes: tuple[str, ...]
    outcome: str
    reason: str | None
    is_late: bool
    entry_hash: Hex32
    place: Place | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedActivity:
    """One access or attempt with all that makes its entry checkable. `proof` is None while it is not on chain."""

    activity: Activity
    entry: AccessEntry
    proof: ChainProof | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompelledActivity:
    """One access that an authority ordered, without a consent. Times are Unix seconds.

    `outcome` is `released`, or `waiting` while it is logged and not handed over. `reference` and `document_hash` (the
    SHA-256 of the order's document) are the authority's. `kept_until` is when the embargo ended; 0 if there was none.
    """

    order_hash: Hex32
    release_id: Hex32
    ordered_at: int
    handed_over_at: int | None
    authority: str
    authority_name: str
    reference: str
    document_hash: Hex32
    attributes: tuple[str, ...]
    kept_until: int
    outcome: str
    entry_hash: Hex32
    place: Place | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedCompelledActivity:
    """One of them with all that makes it checkable: the order's opening and the entry's."""

    activity: CompelledActivity
    order: CompelledOrder
    entry: AccessEntry
    proof: ChainProof | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """An institution that asked: how often it read, how often it got nothing, and when last. Unix seconds."""

    institution: str
    institution_name: str
    reads: int
    refusals: int
    last_read_at: int | None
    last_asked_at: int


class Activities:
    """Reads the journal for one person at a time. What is another's is not there."""

    def __init__(
        self,
        store: Store,
        journal: Journal,
        registry: Registry,
        keys: KeyFile,
        book: OrderBook,
        domain: Domain,
        *,
        custodian: Address,
        clock: Callable[[], int],
    ) -> None:
        self._store, self._journal, self._registry, self._keys = store, journal, registry, keys
        self._book, self._domain, self._custodian, self._clock = book, domain, custodian, clock

    def page(
        self,
        subject_id: str,
        *,
        limit: int = PAGE,
        after: Hex32 | None = None,
        institution: str | None = None,
        consent_id: Hex32 | None = None,
        outcomes: Collection[str] = (),
    ) -> list[Activity]:
        """A page, newest first, from the release `after` on; of one institution, consent or some outcomes if given.

        What must not be missed is asked for by its outcome: any number of attempts then leave it where it is.
        Raises `MalformedError` for a limit out of bounds, `NotFoundError` if `after` is not one of this person's.
        """
        if not 1 <= limit <= MAX_PAGE:
            raise MalformedError(f"limit: expected 1 to {MAX_PAGE}", field="limit")
        index = None if institution is None else self._registry.institution_index(institution)
        with self._store.read() as tx:
            last = None if after is None else self._row(tx, subject_id, after)
            rows = self._journal.of_subject(
                tx,
                subject_id,
                limit=limit,
                after=last,
                institution_index=index,
                consent_id=consent_id,
                states=[state for state, outcome in OUTCOMES.items() if outcome in outcomes],
            )
        names = self._names()
        return [self._activity(row, entry_of(row, self._keys), names) for row in rows]

    def entry(self, subject_id: str, release_id: Hex32) -> OpenedActivity:
        """One of them with its opening. Raises `NotFoundError` (also if it is another's)."""
        with self._store.read() as tx:
            row = self._row(tx, subject_id, release_id)
        entry = entry_of(row, self._keys)
        activity = self._activity(row, entry, self._names())
        return OpenedActivity(
            activity=activity,
            entry=entry,
            proof=self._journal.proof_of(row, self._domain, self._custodian) if activity.place else None,
        )

    def readers(self, subject_id: str, *, since: int = 0) -> list[Reader]:
        """Who asked about this person, from then on (Unix seconds), who read last first. Opens nothing."""
        with self._store.read() as tx:
            rows = self._journal.readers(tx, subject_id, since)
        by_index = {self._registry.institution_index(one.party_id): one for one in self._registry.institutions()}
        found = [
            Reader(
                institution=by_index[row.institution_index].party_id,
                institution_name=by_index[row.institution_index].name,
                reads=row.reads,
                refusals=row.refusals,
                last_read_at=row.last_read_at,
                last_asked_at=row.last_asked_at,
            )
            for row in rows
            if row.institution_index in by_index
        ]
        return sorted(found, key=lambda one: (one.last_read_at or 0, one.last_asked_at, one.institution), reverse=True)

    def compelled(self, subject_id: str) -> list[CompelledActivity]:
        """What authorities ordered about this person, newest first: as far as the person may know by now."""
        return [one.activity for one in self._compelled(subject_id)]

    def compelled_entry(self, subject_id: str, order_hash: Hex32) -> OpenedCompelledActivity:
        """One of them. Raises `NotFoundError` (also if it is another's, or under an embargo)."""
        for one in self._compelled(subject_id):
            if one.activity.order_hash == order_hash:
                return one
        raise NotFoundError("activity: no such access", field="activity")

    # ---------------------------------------------------------------------------------------------------------- inside

    def _compelled(self, subject_id: str) -> list[OpenedCompelledActivity]:
        with self._store.read() as tx:
            rows = self._book.visible(tx, subject_id, now=self._clock())
        names = {one.party_id: one.name for one in self._registry.authorities()} if rows else {}
        return [self._opened_order(row, names) for row in rows]

    def _opened_order(self, row: Row[Any], names: Mapping[str, str]) -> OpenedCompelledActivity:
        opened, place = self._book.opened(row), _place_of(row)
        order = opened.order
        activity = CompelledActivity(
            order_hash=row.order_hash,
            release_id=row.release_id,
            ordered_at=row.created_at,
            handed_over_at=row.finished_at,
            authority=order.authority,
            authority_name=names.get(order.authority, order.authority),
            reference=order.reference,
            document_hash=order.document_hash,
            attributes=order.attributes,
            kept_until=row.embargo_until,
            outcome=OUTCOMES[row.state],
            entry_hash=row.entry_hash,
            place=place,
        )
        proof = self._journal.proof_of(row, self._domain, self._custodian) if place else None
        return OpenedCompelledActivity(activity=activity, order=order, entry=opened.entry, proof=proof)

    def _row(self, tx: Connection, subject_id: str, release_id: Hex32) -> Row[Any]:
        row = self._journal.one_of_subject(tx, subject_id, release_id)
        if row is None:
            raise NotFoundError("activity: no such access", field="activity")
        return row

    def _names(self) -> dict[str, str]:
        return {one.party_id: one.name for one in self._registry.institutions()}

    def _activity(self, row: Row[Any], entry: AccessEntry, names: Mapping[str, str]) -> Activity:
        return Activity(
            release_id=row.release_id,
            consent_id=row.consent_id,
            asked_at=row.created_at,
            ended_at=row.finished_at,
            institution=entry.institution,
            institution_name=names.get(entry.institution, entry.institution),
            purpose=entry.purpose,
            attributes=entry.attributes,
            outcome=OUTCOMES[row.state],
            reason=row.reason,
            is_late=row.late,
            entry_hash=row.entry_hash,
            place=_place_of(row),
        )


def _place_of(row: Row[Any]) -> Place | None:
    if not is_on_log(row):
        return None
    return Place(
        block_number=row.block_number,
        block_hash=row.block_hash,
        transaction_hash=row.transaction_hash,
        log_index=row.log_index,
    )
