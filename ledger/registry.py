"""Who may ask (`parties.py`) and who allowed it: the consents with their sealed openings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, bindparam, select, tuple_, update

from ledger.consent import ConsentGrant, Hex32
from ledger.errors import (
    ConsentError,
    ConsentPausedError,
    ConsentRevokedError,
    ErasedError,
    NotFoundError,
)
from ledger.keys import KeyFile
from ledger.outbox import BY_SUBJECT, EXPIRED, GRANTED, PAUSED, REPLACED_BY, RESUMED, REVOKED, Outbox
from ledger.parties import Parties
from ledger.store import Store, consent_requests, consents, releases, subjects
from ledger.typed_data import stored_grant
from ledger.vault import open_json, seal_json

EXPIRIES_AT_ONCE: Final = 500

# Statements on the way of a release are built once: building one takes longer than running it.
_CONSENTS: Final = select(consents).where(consents.c.consent_id.in_(bindparam("ids", expanding=True)))
_ANSWERED: Final = select(consent_requests.c.consent_id, consent_requests.c.request_id).where(
    consent_requests.c.consent_id.in_(bindparam("ids", expanding=True))
)
_TOLD: Final = (
    consents.c.consent_id,
    consents.c.institution_index,
    consents.c.revoked_at,
)
_WITHDRAWALS: Final = select(
    consents.c.consent_id, consents.c.erased_at, consents.c.revoked_at, consents.c.paused
).where(consents.c.consent_id.in_(bindparam("ids", expanding=True)))


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredConsent:
    """A consent and its opening. `standing` is false until its grant is on chain.

    `replaced_by` is the consent whose standing ended this one; None if anything else did.
    """

    consent_id: Hex32
    subject_id: str
    grant: ConsentGrant
    signature: bytes
    created_at: int
    standing: bool
    revoked_at: int | None
    replaced_by: Hex32 | None
    paused: bool
    pause_sequence: int


class Registry(Parties):
    """Institutions, furnishers and consents."""

    def __init__(self, store: Store, keys: KeyFile, outbox: Outbox) -> None:
        super().__init__(store, keys)
        self._outbox = outbox

    def add_consent(
        self,
        tx: Connection,
        consent_id: Hex32,
        grant: ConsentGrant,
        signature: bytes,
        subject_id: str,
        *,
        at: int,
    ) -> None:
        """Put a signed grant on file, not standing yet, within the caller's transaction. Raises `ErasedError`."""
        if tx.scalar(select(subjects.c.erased_at).where(subjects.c.subject_id == subject_id)) is not None:
            # In this transaction: an erasure must not be overtaken by a grant that began before it.
            raise ErasedError("subject: erased", field="subject")
        opening = {"grant": grant.as_json(), "signature": signature.hex()}
        row = {
            "consent_id": consent_id,
            "subject_id": subject_id,
            "institution_index": self.institution_index(grant.terms.institution),
            "created_at": at,
            "expires_at": grant.expires_at,
            "standing": False,
            **seal_json(opening, _context(consent_id), self._keys),
        }
        tx.execute(consents.insert(), [row])

    def find_consent(self, consent_id: Hex32) -> StoredConsent | None:
        """A consent with its opening; None if there is none. Raises `ErasedError`."""
        with self._store.read() as tx:
            row = self.rows(tx, [consent_id]).get(consent_id)
        return self.opened(row) if row else None

    def rows(self, tx: Connection, consent_ids: Sequence[Hex32]) -> dict[Hex32, Row[Any]]:
        """Consents as they are on file, still sealed, by id."""
        return {row.consent_id: row for row in tx.execute(_CONSENTS, {"ids": list(consent_ids)})}

    def consent(self, consent_id: Hex32) -> StoredConsent:
        """Raises `NotFoundError`, `ErasedError`."""
        found = self.find_consent(consent_id)
        if found is None:
            raise NotFoundError("consent: no such consent", field="consent")
        return found

    def consents(self, subject_id: str | None = None) -> list[StoredConsent]:
        """Every consent that can still be opened, oldest first; of one subject if given."""
        query = select(consents).where(consents.c.erased_at.is_(None)).order_by(consents.c.created_at, "consent_id")
        if subject_id is not None:
            query = query.where(consents.c.subject_id == subject_id)
        with self._store.read() as tx:
            return [self.opened(row) for row in tx.execute(query)]

    def ids_of(self, tx: Connection, subject_id: str) -> list[Hex32]:
        """Every consent of a person, revoked ones included, oldest first; opens nothing."""
        query = select(consents.c.consent_id).where(consents.c.subject_id == subject_id)
        return list(tx.scalars(query.order_by(consents.c.created_at, consents.c.consent_id)))

    def consents_of(self, party_id: str, *, limit: int, after: Hex32 | None = None) -> list[StoredConsent]:
        """A page of an institution's consents that can still be opened, newest first, from `after` on."""
        mine = consents.c.institution_index == self.institution_index(party_id)
        query = select(consents).where(mine, consents.c.erased_at.is_(None))
        with self._store.read() as tx:
            if after is not None:
                last = tx.execute(select(consents.c.created_at).where(mine, consents.c.consent_id == after)).first()
                if last is None:
                    raise NotFoundError("after: expected the id of a consent", field="after")
                query = query.where(tuple_(consents.c.created_at, consents.c.consent_id) < (last.created_at, after))
            query = query.order_by(consents.c.created_at.desc(), consents.c.consent_id.desc()).limit(limit)
            return [self.opened(row) for row in tx.execute(query)]

    def consent_of(self, consent_id: Hex32, party_id: str) -> StoredConsent:
        """A consent of this institution. Raises `NotFoundError` (also if it is another's), `ErasedError`."""
        with self._store.read() as tx:
            row = self.rows(tx, [consent_id]).get(consent_id)
        if row is None or row.institution_index != self.institution_index(party_id):
            raise NotFoundError("consent: no such consent", field="consent")
        return self.opened(row)

    def requests_of(self, consent_ids: Sequence[Hex32]) -> dict[Hex32, str]:
        """By consent, the consent request that it answers, where there is one."""
        with self._store.read() as tx:
            return _requests_of(tx, consent_ids)

    def set_standing(self, consent_id: Hex32, *, at: int) -> None:
        """Its grant is on chain: its institution is told."""
        row = (consents.c.consent_id == consent_id, consents.c.standing.is_(False))
        with self._store.begin() as tx:
            for told in tx.execute(update(consents).where(*row).values(standing=True).returning(*_TOLD)).all():
                # Revoked on its way: that was said already.
                if told.revoked_at is None:
                    asked = _requests_of(tx, [consent_id])
                    answers = {"request": asked[consent_id]} if consent_id in asked else {}
                    self._tell(tx, GRANTED, told, at, by=BY_SUBJECT, **answers)

    def set_not_standing(self, tx: Connection, consent_id: Hex32) -> None:
        """Its grant was on a chain that was lost and will never be on one again. What it was used for stays on file."""
        tx.execute(update(consents).where(consents.c.consent_id == consent_id).values(standing=False))

    def not_standing(self) -> list[Hex32]:
        """Consents whose grant was not seen through yet."""
        row = (consents.c.standing.is_(False), consents.c.erased_at.is_(None))
        with self._store.read() as tx:
            return list(tx.scalars(select(consents.c.consent_id).where(*row).order_by(consents.c.created_at)))

    def live(self, tx: Connection, subject_id: str) -> list[Hex32]:
        """Consents of a subject that were not revoked."""
        row = (consents.c.subject_id == subject_id, consents.c.revoked_at.is_(None))
        return list(tx.scalars(select(consents.c.consent_id).where(*row).order_by(consents.c.created_at)))

    def withdrawals(self, tx: Connection, consent_ids: Sequence[Hex32]) -> dict[Hex32, ConsentError | None]:
        """Why each consent may not be used any more, as this service knows within the caller's transaction."""
        rows = {row.consent_id: row for row in tx.execute(_WITHDRAWALS, {"ids": list(consent_ids)})}
        return {consent_id: withdrawal_of(rows.get(consent_id)) for consent_id in consent_ids}

    def withdraw(self, tx: Connection, consent_id: Hex32) -> None:
        """Its grant will never be on chain: leave nothing half-written. What was asked under it keeps it on file."""
        # It is by their consents that a person's releases are found: for the person, and to be erased.
        asked = select(releases.c.release_id).where(releases.c.consent_id == consent_id).exists()
        row = (consents.c.consent_id == consent_id, consents.c.standing.is_(False))
        tx.execute(consents.delete().where(*row, ~asked))

    def mark_revoked(
        self, tx: Connection, consent_ids: Sequence[Hex32], *, at: int, by: str, replaced_by: Hex32 | None = None
    ) -> int:
        """Effective in this service from here on; institutions are told. Returns how many were not revoked before."""
        live = (consents.c.consent_id.in_(consent_ids), consents.c.revoked_at.is_(None))
        change = update(consents).where(*live).values(revoked_at=at, revoked_by=by, replaced_by=replaced_by)
        changed = tx.execute(change.returning(*_TOLD)).all()
        for told in changed:
            self._tell(tx, REVOKED, told, at, by=by, **({REPLACED_BY: replaced_by} if replaced_by else {}))
        return len(changed)

    def mark_paused(self, tx: Connection, consent_id: Hex32, *, paused: bool, sequence: int, at: int, by: str) -> int:
        """Only a newer sequence than the last counts. Returns 1 if it did; the institution is told of a change."""
        row = (consents.c.consent_id == consent_id) & (consents.c.pause_sequence < sequence)
        told = tx.execute(select(*_TOLD, consents.c.paused).where(row).with_for_update()).first()
        if told is None:
            return 0
        tx.execute(update(consents).where(row).values(paused=paused, pause_sequence=sequence))
        if told.paused != paused and told.revoked_at is None:
            self._tell(tx, PAUSED if paused else RESUMED, told, at, by=by)
        return 1

    def tell_expired(self, now: int) -> int:
        """Tell institutions, once, of consents whose window has passed; not of revoked ones. Returns how many."""
        over = select(*_TOLD).where(
            consents.c.expiry_told.is_(False), consents.c.expires_at <= now, consents.c.standing.is_(True)
        )
        with self._store.read() as tx:
            if tx.execute(over.limit(1)).first() is None:
                return 0
        with self._store.begin() as tx:
            rows = tx.execute(over.limit(EXPIRIES_AT_ONCE).with_for_update()).all()
            mine = consents.c.consent_id.in_([row.consent_id for row in rows])
            tx.execute(update(consents).where(mine).values(expiry_told=True))
            expired = [row for row in rows if row.revoked_at is None]
            for told in expired:
                self._tell(tx, EXPIRED, told, now)
        return len(expired)

    def _tell(self, tx: Connection, kind: str, told: Row[*tuple[Any, ...]], at: int, **details: str) -> None:
        index, consent_id = told.institution_index, told.consent_id
        self._outbox.add(tx, kind=kind, institution_index=index, consent_id=consent_id, at=at, details=details)

    def revoked_by(self, consent_id: Hex32) -> str | None:
        """At whose wish a consent was revoked (`outbox.py`); None if it was not, or is not there."""
        with self._store.read() as tx:
            row = self.rows(tx, [consent_id]).get(consent_id)
        return row.revoked_by if row else None

    def is_erased(self, consent_id: Hex32) -> bool:
        """True also for a consent that is not there."""
        with self._store.read() as tx:
            row = tx.execute(select(consents.c.erased_at).where(consents.c.consent_id == consent_id)).first()
        return row is None or row.erased_at is not None

    def erase(self, tx: Connection, subject_id: str, *, at: int) -> int:
        """Destroy the openings, salts included, and every link to the person. Returns how many consents."""
        self._outbox.erase(tx, self.ids_of(tx, subject_id))
        gone = dict.fromkeys(("subject_id", "kek_id", "wrapped_dek", "body", "replaced_by"))
        gone |= {"erased_at": at}
        return tx.execute(update(consents).where(consents.c.subject_id == subject_id).values(**gone)).rowcount

    def opened(self, row: Row[Any]) -> StoredConsent:
        """A consent with its opening. Raises `ErasedError`, `VaultError`."""
        if row.erased_at is not None:
            raise ErasedError("the data were erased")
        opening = open_json(row, _context(row.consent_id), self._keys)
        return StoredConsent(
            consent_id=row.consent_id,
            subject_id=row.subject_id,
            grant=stored_grant(opening["grant"]),
            signature=bytes.fromhex(opening["signature"]),
            created_at=row.created_at,
            standing=row.standing,
            revoked_at=row.revoked_at,
            replaced_by=row.replaced_by,
            paused=row.paused,
            pause_sequence=row.pause_sequence,
        )


def withdrawal_of(row: Any) -> ConsentError | None:  # noqa: ANN401 - a row of `rows`, or part of one
    """Why the consent in a row may not be used any more; None while it may."""
    if row is None or row.erased_at is not None:
        return ErasedError("the data were erased")
    if row.revoked_at is not None:
        return ConsentRevokedError("the consent is not in force: revoked")
    return ConsentPausedError("the consent is not in force: paused") if row.paused else None


def _requests_of(tx: Connection, consent_ids: Sequence[Hex32]) -> dict[Hex32, str]:
    return {row.consent_id: row.request_id for row in tx.execute(_ANSWERED, {"ids": list(consent_ids)})}


def _context(consent_id: str) -> dict[str, str]:
    return {"kind": "consent", "consent": consent_id}
