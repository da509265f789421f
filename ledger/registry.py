"""Who may ask and who allowed it: registered institutions, and the consents with their sealed openings."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, Table, bindparam, select, update

from ledger.consent import ConsentGrant, Hex32, parse_grant
from ledger.errors import (
    ConsentError,
    ConsentPausedError,
    ConsentRevokedError,
    ErasedError,
    MalformedError,
    NotFoundError,
)
from ledger.exchange import Party, check_jwks, rotated_jwks
from ledger.keys import KeyFile
from ledger.store import Store, consents, furnishers, institutions, subjects
from ledger.vault import open_json, seal_json

INSTITUTION: Final = "institution"
FURNISHER: Final = "furnisher"
_PARTY_ID: Final = re.compile(r"[A-Za-z0-9._:/%@-]{1,200}\Z")

# Statements on the way of a release are built once: building one takes longer than running it.
_PARTIES: Final = {
    table.name[:-1]: select(table).where(table.c.party_id.in_(bindparam("ids", expanding=True)))
    for table in (institutions, furnishers)
}
_CONSENTS: Final = select(consents).where(consents.c.consent_id.in_(bindparam("ids", expanding=True)))
_WITHDRAWALS: Final = select(
    consents.c.consent_id, consents.c.erased_at, consents.c.revoked_at, consents.c.paused
).where(consents.c.consent_id.in_(bindparam("ids", expanding=True)))


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
        self._parties: dict[tuple[str, str], Party] = {}

    # -------------------------------------------------------------------------------------------------------- parties

    def add_institution(self, institution_id: str, name: str, jwks: object, *, at: int) -> Party:
        """Register a lender with its public keys. Raises `AlreadyExistsError`, `MalformedError`."""
        return self._add(institutions, institution_id, name, check_jwks(jwks), at)

    def add_furnisher(self, furnisher_id: str, name: str, jwks: object, *, at: int) -> Party:
        """Register who may hand data in. Raises `AlreadyExistsError`, `MalformedError`."""
        return self._add(furnishers, furnisher_id, name, check_jwks(jwks, ["sig"]), at)

    def _add(self, table: Table, party_id: str, name: str, jwks: dict[str, Any], at: int) -> Party:
        if not _PARTY_ID.match(party_id):
            # It stands in a signature's keyid, before the "#".
            raise MalformedError("id: expected 1 to 200 letters, digits and any of -._:/%@", field="id")
        with self._store.begin() as tx:
            row = {"party_id": party_id, "name": name, "jwks": json.dumps(jwks), "created_at": at}
            tx.execute(table.insert(), [row])
        return Party(party_id=party_id, name=name, jwks=jwks)

    def institution(self, institution_id: str) -> Party:
        """Raises `NotFoundError`."""
        return self._party(INSTITUTION, institution_id)

    def furnisher(self, furnisher_id: str) -> Party:
        """Raises `NotFoundError`."""
        return self._party(FURNISHER, furnisher_id)

    def _party(self, role: str, party_id: str) -> Party:
        found = self.looked_up(role, party_id)
        if found is None:
            raise NotFoundError(f"{role}: not registered", field=role)
        return found

    def remembered(self, role: str, party_id: str) -> Party | None:
        """As this process last saw it, which may be out of date; None if it never did."""
        return self._parties.get((role, party_id))

    def looked_up(self, role: str, party_id: str) -> Party | None:
        """As it is registered now; None if it is not."""
        with self._store.read() as tx:
            return self.parties(tx, role, [party_id]).get(party_id)

    def parties(self, tx: Connection, role: str, party_ids: Sequence[str]) -> dict[str, Party]:
        """Those of them that are registered, by id, as the caller's transaction sees them."""
        return {row.party_id: self._known(role, row) for row in tx.execute(_PARTIES[role], {"ids": list(party_ids)})}

    def _known(self, role: str, row: Row[Any]) -> Party:
        # To read a key set takes longer than to read its row.
        known = self._parties.get((role, row.party_id))
        if known is None or known.version != row.version:
            known = self._parties[role, row.party_id] = Party(
                party_id=row.party_id,
                name=row.name,
                jwks=json.loads(row.jwks),
                suspended=row.suspended,
                version=row.version,
            )
        return known

    def institutions(self) -> list[Party]:
        """All, by id."""
        return self._all(INSTITUTION, institutions)

    def furnishers(self) -> list[Party]:
        """All, by id."""
        return self._all(FURNISHER, furnishers)

    def _all(self, role: str, table: Table) -> list[Party]:
        with self._store.read() as tx:
            return [self._known(role, row) for row in tx.execute(select(table).order_by(table.c.party_id))]

    def suspend(self, role: str, party_id: str, *, suspended: bool) -> None:
        """A suspended party gets nothing, from the next request on. Raises `NotFoundError`."""
        self._change(role, party_id, suspended=suspended)

    def rotate_keys(self, role: str, party_id: str, jwks: object, *, now: int, overlap_seconds: int) -> Party:
        """New keys; the old ones count for `overlap_seconds` more. Raises `NotFoundError`, `MalformedError`."""
        new = check_jwks(jwks, ["sig", "enc"] if role == INSTITUTION else ["sig"])
        with self._store.begin() as tx:
            found = self.parties(tx, role, [party_id])
            if not found:
                raise NotFoundError(f"{role}: not registered", field=role)
            together = rotated_jwks(found[party_id].jwks, new, now=now, overlap_seconds=overlap_seconds)
            self._update(tx, role, party_id, jwks=json.dumps(together))
        return self._party(role, party_id)

    def _change(self, role: str, party_id: str, **values: object) -> None:
        with self._store.begin() as tx:
            if not self._update(tx, role, party_id, **values):
                raise NotFoundError(f"{role}: not registered", field=role)

    def _update(self, tx: Connection, role: str, party_id: str, **values: object) -> int:
        table = institutions if role == INSTITUTION else furnishers
        changed = update(table).where(table.c.party_id == party_id).values(version=table.c.version + 1, **values)
        return tx.execute(changed).rowcount

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

    def withdrawals(self, tx: Connection, consent_ids: Sequence[Hex32]) -> dict[Hex32, ConsentError | None]:
        """Why each consent may not be used any more, as this service knows within the caller's transaction."""
        rows = {row.consent_id: row for row in tx.execute(_WITHDRAWALS, {"ids": list(consent_ids)})}
        return {consent_id: withdrawal_of(rows.get(consent_id)) for consent_id in consent_ids}

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

    def opened(self, row: Row[Any]) -> StoredConsent:
        """A consent with its opening. Raises `ErasedError`, `VaultError`."""
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


def withdrawal_of(row: Any) -> ConsentError | None:  # noqa: ANN401 - a row of `rows`, or part of one
    """Why the consent in a row may not be used any more; None while it may."""
    if row is None or row.erased_at is not None:
        return ErasedError("the data were erased")
    if row.revoked_at is not None:
        return ConsentRevokedError("the consent is not in force: revoked")
    return ConsentPausedError("the consent is not in force: paused") if row.paused else None


def _context(consent_id: str) -> dict[str, str]:
    return {"kind": "consent", "consent": consent_id}
