"""Who may ask and who allowed it: registered institutions, and the consents with their sealed openings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, bindparam, select, update

from ledger.consent import ConsentGrant, Hex32, parse_grant
from ledger.errors import ConsentError, ConsentPausedError, ConsentRevokedError, ErasedError, NotFoundError
from ledger.exchange import Institution, check_jwks
from ledger.keys import KeyFile
from ledger.store import Store, consents, institutions, subjects
from ledger.vault import open_json, seal_json

# Statements on the way of a release are built once: building one takes longer than running it.
_INSTITUTION: Final = select(institutions).where(institutions.c.institution_id == bindparam("id"))
_CONSENT: Final = select(consents).where(consents.c.consent_id == bindparam("id"))
_WITHDRAWAL: Final = select(consents.c.erased_at, consents.c.revoked_at, consents.c.paused).where(
    consents.c.consent_id == bindparam("id")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredConsent:
    """A consent and its opening. `standing` is false until its grant is on chain."""

    consent_id: Hex32
    subject_id: str
    grant: ConsentGrant
    signature: bytes
    created_at: int
    standing: bool
    revoked_at: int | None
    paused: bool
    pause_sequence: int


class Registry:
    """Institutions and consents."""

    def __init__(self, store: Store, keys: KeyFile) -> None:
        self._store = store
        self._keys = keys

    # ---------------------------------------------------------------------------------------------------- institutions

    def add_institution(self, institution_id: str, name: str, jwks: object, *, at: int) -> Institution:
        """Register a lender with its public keys. Raises `AlreadyExistsError`, `MalformedError`."""
        public = check_jwks(jwks)
        with self._store.begin() as tx:
            row = {"institution_id": institution_id, "name": name, "jwks": json.dumps(public), "created_at": at}
            tx.execute(institutions.insert(), [row])
        return Institution(institution_id=institution_id, name=name, jwks=public)

    def institution(self, institution_id: str) -> Institution:
        """Raises `NotFoundError`."""
        with self._store.read() as tx:
            row = tx.execute(_INSTITUTION, {"id": institution_id}).first()
        if row is None:
            raise NotFoundError("institution: not registered", field="institution")
        return _institution(row)

    def institutions(self) -> list[Institution]:
        """All, by id."""
        with self._store.read() as tx:
            return [_institution(row) for row in tx.execute(select(institutions).order_by("institution_id"))]

    def institution_index(self, institution_id: str) -> str:
        """How a relationship to an institution is stored."""
        return self._keys.index("institution", institution_id)

    # -------------------------------------------------------------------------------------------------------- consents

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
            "standing": False,
            **seal_json(opening, _context(consent_id), self._keys),
        }
        tx.execute(consents.insert(), [row])

    def find_consent(self, consent_id: Hex32) -> StoredConsent | None:
        """A consent with its opening; None if there is none. Raises `ErasedError`."""
        with self._store.read() as tx:
            row = tx.execute(_CONSENT, {"id": consent_id}).first()
        return self._opened(row) if row else None

    def consent(self, consent_id: Hex32) -> StoredConsent:
        """Raises `NotFoundError`, `ErasedError`."""
        found = self.find_consent(consent_id)
        if found is None:
            raise NotFoundError("consent: no such consent", field="consent")
        return found

    def was_given(self, consent_id: Hex32, institution_id: str) -> bool:
        """Whether a consent was given to this institution; known even after its opening was erased."""
        with self._store.read() as tx:
            found = tx.scalar(select(consents.c.institution_index).where(consents.c.consent_id == consent_id))
        return found == self.institution_index(institution_id)

    def consents(self, subject_id: str | None = None) -> list[StoredConsent]:
        """Every consent that can still be opened, oldest first; of one subject if given."""
        query = select(consents).where(consents.c.erased_at.is_(None)).order_by(consents.c.created_at, "consent_id")
        if subject_id is not None:
            query = query.where(consents.c.subject_id == subject_id)
        with self._store.read() as tx:
            return [self._opened(row) for row in tx.execute(query)]

    def set_standing(self, consent_id: Hex32) -> None:
        """Its grant is on chain."""
        with self._store.begin() as tx:
            tx.execute(update(consents).where(consents.c.consent_id == consent_id).values(standing=True))

    def not_standing(self) -> list[Hex32]:
        """Consents whose grant was not seen through yet."""
        row = (consents.c.standing.is_(False), consents.c.erased_at.is_(None))
        with self._store.read() as tx:
            return list(tx.scalars(select(consents.c.consent_id).where(*row).order_by(consents.c.created_at)))

    def live(self, tx: Connection, subject_id: str) -> list[Hex32]:
        """Consents of a subject that were not revoked."""
        row = (consents.c.subject_id == subject_id, consents.c.revoked_at.is_(None))
        return list(tx.scalars(select(consents.c.consent_id).where(*row).order_by(consents.c.created_at)))

    def withdrawal(self, tx: Connection, consent_id: Hex32) -> ConsentError | None:
        """Why a consent may not be used any more, as this service knows within the caller's transaction."""
        row = tx.execute(_WITHDRAWAL, {"id": consent_id}).first()
        if row is None or row.erased_at is not None:
            return ErasedError("the data were erased")
        if row.revoked_at is not None:
            return ConsentRevokedError("the consent is not in force: revoked")
        return ConsentPausedError("the consent is not in force: paused") if row.paused else None

    def withdraw(self, tx: Connection, consent_id: Hex32) -> None:
        """Its grant will never be on chain: leave nothing half-written."""
        tx.execute(consents.delete().where(consents.c.consent_id == consent_id, consents.c.standing.is_(False)))

    def mark_revoked(self, tx: Connection, consent_ids: Sequence[Hex32], *, at: int) -> int:
        """Effective in this service from here on. Returns how many were not revoked before."""
        row = consents.c.consent_id.in_(consent_ids)
        return tx.execute(update(consents).where(row, consents.c.revoked_at.is_(None)).values(revoked_at=at)).rowcount

    def mark_paused(self, tx: Connection, consent_id: Hex32, *, paused: bool, sequence: int) -> int:
        """Only a newer sequence than the last counts. Returns 1 if it did."""
        row = (consents.c.consent_id == consent_id) & (consents.c.pause_sequence < sequence)
        return tx.execute(update(consents).where(row).values(paused=paused, pause_sequence=sequence)).rowcount

    def is_erased(self, consent_id: Hex32) -> bool:
        """True also for a consent that is not there."""
        with self._store.read() as tx:
            row = tx.execute(select(consents.c.erased_at).where(consents.c.consent_id == consent_id)).first()
        return row is None or row.erased_at is not None

    def erase(self, tx: Connection, subject_id: str, *, at: int) -> int:
        """Destroy the openings, salts included, and the link to the person. Returns how many consents."""
        gone = {"subject_id": None, "kek_id": None, "wrapped_dek": None, "body": None, "erased_at": at}
        return tx.execute(update(consents).where(consents.c.subject_id == subject_id).values(**gone)).rowcount

    def _opened(self, row: Row[Any]) -> StoredConsent:
        if row.erased_at is not None:
            raise ErasedError("the data were erased")
        opening = open_json(row, _context(row.consent_id), self._keys)
        return StoredConsent(
            consent_id=row.consent_id,
            subject_id=row.subject_id,
            grant=parse_grant(opening["grant"]),
            signature=bytes.fromhex(opening["signature"]),
            created_at=row.created_at,
            standing=row.standing,
            revoked_at=row.revoked_at,
            paused=row.paused,
            pause_sequence=row.pause_sequence,
        )


def _context(consent_id: str) -> dict[str, str]:
    return {"kind": "consent", "consent": consent_id}


def _institution(row: Row[Any]) -> Institution:
    return Institution(
        institution_id=row.institution_id, name=row.name, jwks=json.loads(row.jwks), suspended=row.suspended
    )
