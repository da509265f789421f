"""Access records: what a person lets an auditor read, which is no attribute of credit but who asked for their data.

Under a consent for the purpose `audit` the records that answer a request are the sealed openings on file: of every
consent of the person, and of every request under them that is on the log. They are found before anything is logged, as
attributes are, so the auditor's entry binds exactly them; they are opened as a disclosure, which has no value in it.
What an authority ordered is none of them: no consent covers it, and it may be under an embargo.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, Row

from ledger.attributes import ACCESS_OPENINGS
from ledger.consent import Hex32
from ledger.envelope import WrappedKey
from ledger.errors import ErasedError
from ledger.journal import Journal, is_on_log
from ledger.registry import Registry
from ledger.store import Store
from ledger.vault import StoredRecord, Vault, envelope_of

PAGE: Final = 1000
_CONSENT: Final = "consent:"
_RELEASE: Final = "release:"


class AccessRecords:
    """Finds them. Opens nothing."""

    def __init__(self, store: Store, journal: Journal, registry: Registry, vault: Vault) -> None:
        self._store, self._journal, self._registry, self._vault = store, journal, registry, vault

    def sealed(self, tx: Connection, subject_id: str) -> list[StoredRecord]:
        """All of a person's, oldest first: consents, then what is on the log under them."""
        ids = self._registry.ids_of(tx, subject_id)
        found = self._registry.rows(tx, ids)
        consents = [_record(_CONSENT + one, found[one]) for one in ids if found[one].body is not None]
        releases: list[Row[Any]] = []
        while more := self._journal.of_subject(tx, subject_id, limit=PAGE, after=releases[-1] if releases else None):
            releases += more
        logged = [row for row in reversed(releases) if is_on_log(row)]
        return [*consents, *(_record(_RELEASE + row.release_id, row) for row in logged)]

    def load(self, record_ids: Sequence[str]) -> list[StoredRecord]:
        """These very records, or those of the vault, in this order. Raises `ErasedError` if one is gone."""
        consent_ids, release_ids = ids_in(record_ids)
        if not consent_ids and not release_ids:
            return self._vault.load(record_ids)
        with self._store.read() as tx:
            rows: dict[str, Row[Any]] = {
                _CONSENT + key: row for key, row in self._registry.rows(tx, consent_ids).items()
            }
            rows |= {
                _RELEASE + key: row for key in release_ids if (row := self._journal.release_in(tx, key)) is not None
            }
        if any(record_id not in rows for record_id in record_ids):
            raise ErasedError("the data were erased")
        return [_record(record_id, rows[record_id]) for record_id in record_ids]

    def wrapped_keys(self, record_ids: Sequence[str]) -> dict[str, WrappedKey]:
        """The keys of these records, still wrapped, of those that are there; as `Vault.wrapped_keys`."""
        consent_ids, release_ids = ids_in(record_ids)
        found = self._vault.wrapped_keys([one for one in record_ids if not one.startswith((_CONSENT, _RELEASE))])
        with self._store.read() as tx:
            rows: dict[str, Row[Any]] = {
                _CONSENT + key: row for key, row in self._registry.rows(tx, consent_ids).items()
            }
            rows |= {_RELEASE + row.release_id: row for row in self._journal.with_batches(tx, release_ids)}
        return found | {one: envelope_of(row).key for one, row in rows.items() if row.body is not None}


def ids_in(record_ids: Sequence[str]) -> tuple[list[Hex32], list[Hex32]]:
    """The consents and the releases that records stand for."""
    consents, releases = (
        [Hex32(one.removeprefix(kind)) for one in record_ids if one.startswith(kind)] for kind in (_CONSENT, _RELEASE)
    )
    return consents, releases


def _record(record_id: str, row: Row[Any]) -> StoredRecord:
    return StoredRecord(
        record_id=record_id,
        subject_id=row.subject_id,
        attribute=ACCESS_OPENINGS,
        version=1,
        disputed=False,
        created_at=row.created_at,
        envelope=envelope_of(row),
    )
