"""Who may ask, who hands data in and who may order: registered institutions, furnishers and authorities, their keys.

Also where an institution's events are sent. An authority signs nothing here: its orders come on paper, and what they
compel is sealed to its key.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, Row, Table, bindparam, select, update

from ledger.errors import MalformedError, NotFoundError
from ledger.exchange import Party, check_jwks, rotated_jwks
from ledger.keys import KeyFile
from ledger.store import Store, authorities, furnishers, institutions

INSTITUTION: Final = "institution"
FURNISHER: Final = "furnisher"
AUTHORITY: Final = "authority"
TABLES: Final = {INSTITUTION: institutions, FURNISHER: furnishers, AUTHORITY: authorities}
USES: Final = {INSTITUTION: ("sig", "enc"), FURNISHER: ("sig",), AUTHORITY: ("enc",)}
"""The keys that a party of each kind must have."""
_PARTY_ID: Final = re.compile(r"[A-Za-z0-9._:/%@-]{1,200}\Z")

# Statements on the way of a release are built once: building one takes longer than running it.
_PARTIES: Final = {
    role: select(table).where(table.c.party_id.in_(bindparam("ids", expanding=True))) for role, table in TABLES.items()
}


class Parties:
    """Institutions, furnishers and authorities."""

    def __init__(self, store: Store, keys: KeyFile) -> None:
        self._store, self._keys = store, keys
        self._parties: dict[tuple[str, str], Party] = {}

    def add_institution(self, institution_id: str, name: str, jwks: object, *, at: int) -> Party:
        """Register a lender with its public keys. Raises `AlreadyExistsError`, `MalformedError`."""
        return self._add(institutions, institution_id, name, check_jwks(jwks), at)

    def add_furnisher(self, furnisher_id: str, name: str, jwks: object, *, at: int) -> Party:
        """Register who may hand data in. Raises `AlreadyExistsError`, `MalformedError`."""
        return self._add(furnishers, furnisher_id, name, check_jwks(jwks, ["sig"]), at)

    def add_authority(self, authority_id: str, name: str, jwks: object, *, at: int) -> Party:
        """Register who may order accesses, with the key that answers are sealed to.

        Raises `AlreadyExistsError`, `MalformedError`.
        """
        return self._add(authorities, authority_id, name, check_jwks(jwks, ["enc"]), at)

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

    def authority(self, authority_id: str) -> Party:
        """Raises `NotFoundError`."""
        return self._party(AUTHORITY, authority_id)

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

    def authorities(self) -> list[Party]:
        """All, by id."""
        return self._all(AUTHORITY, authorities)

    def _all(self, role: str, table: Table) -> list[Party]:
        with self._store.read() as tx:
            return [self._known(role, row) for row in tx.execute(select(table).order_by(table.c.party_id))]

    def suspend(self, role: str, party_id: str, *, suspended: bool) -> None:
        """A suspended party gets nothing, from the next request on. Raises `NotFoundError`."""
        self._change(role, party_id, suspended=suspended)

    def rotate_keys(self, role: str, party_id: str, jwks: object, *, now: int, overlap_seconds: int) -> Party:
        """New keys; the old ones count for `overlap_seconds` more. Raises `NotFoundError`, `MalformedError`."""
        new = check_jwks(jwks, USES[role])
        with self._store.begin() as tx:
            found = self.parties(tx, role, [party_id])
            if not found:
                raise NotFoundError(f"{role}: not registered", field=role)
            together = rotated_jwks(found[party_id].jwks, new, now=now, overlap_seconds=overlap_seconds)
            self._update(tx, role, party_id, jwks=json.dumps(together))
        return self._party(role, party_id)

    def set_webhook(self, institution_id: str, url: str | None) -> None:
        """Where its events are sent; None: nowhere. Raises `NotFoundError`."""
        self._change(INSTITUTION, institution_id, webhook_url=url)

    def webhook(self, institution_id: str) -> str | None:
        """Where its events are sent. Raises `NotFoundError`."""
        with self._store.read() as tx:
            query = select(institutions.c.webhook_url).where(institutions.c.party_id == institution_id)
            row = tx.execute(query).first()
        if row is None:
            raise NotFoundError(f"{INSTITUTION}: not registered", field=INSTITUTION)
        return row.webhook_url  # type: ignore[no-any-return] # Text

    def webhooks(self) -> dict[str, str]:
        """Where events are sent, by the institution's index; a suspended one must know, too, what it may not keep."""
        query = select(institutions).where(institutions.c.webhook_url.is_not(None))
        with self._store.read() as tx:
            return {self.institution_index(row.party_id): row.webhook_url for row in tx.execute(query)}

    def _change(self, role: str, party_id: str, **values: object) -> None:
        with self._store.begin() as tx:
            if not self._update(tx, role, party_id, **values):
                raise NotFoundError(f"{role}: not registered", field=role)

    def _update(self, tx: Connection, role: str, party_id: str, **values: object) -> int:
        table = TABLES[role]
        changed = update(table).where(table.c.party_id == party_id).values(version=table.c.version + 1, **values)
        return tx.execute(changed).rowcount

    def institution_index(self, institution_id: str) -> str:
        """How a relationship to an institution is stored."""
        return self._keys.index("institution", institution_id)
