"""The vault: people and their credit attributes, each value in an envelope of its own.

A value is never changed: a new one is a new version. A person is found by the keyed hash of a reference, which is the
same for all furnishers.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, bindparam, delete, exists, func, or_, select, update

from ledger.envelope import (
    COMPARISON,
    OPENING,
    OWN_VIEW,
    EncryptionContext,
    Envelope,
    KeyWrapper,
    Use,
    WrappedKey,
    open_envelope,
    seal,
)
from ledger.errors import AttributeAbsentError, ErasedError, NotFoundError
from ledger.keys import KeyFile
from ledger.store import Store, disputes, insert_many, new_id, records, subjects

Value = int | str | bool | float
RECORD_SCHEMA: Final = "1"
CORRECTED: Final = "corrected"
"""How a dispute ends when its furnisher hands in another value."""
_CANONICAL: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)
_AS_IT_STANDS: Final = json.JSONEncoder(ensure_ascii=False)
# Built once: it is on the way of every release, and building it takes longer than running it.
_NEWEST: Final = (
    select(records)
    .where(
        records.c.subject_id.in_(bindparam("subjects", expanding=True)),
        records.c.attribute.in_(bindparam("names", expanding=True)),
    )
    .order_by(records.c.version)
)
_newer: Final = records.alias("newer")
_OVERTAKEN: Final = select(records.c.record_id, records.c.disputed).where(
    records.c.record_id.in_(bindparam("ids", expanding=True)),
    or_(
        records.c.disputed.is_(True),
        exists().where(
            _newer.c.subject_id == records.c.subject_id,
            _newer.c.attribute == records.c.attribute,
            _newer.c.version > records.c.version,
        ),
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributeValue:
    """A value and where it comes from: `source` is the furnisher, `as_of` an ISO date."""

    value: Value
    source: str
    as_of: str

    def encode(self) -> bytes:
        """Canonical bytes, the plaintext of an envelope."""
        fields = {"value": self.value, "source": self.source, "asOf": self.as_of}
        return _CANONICAL.encode(fields).encode()

    @classmethod
    def decode(cls, plaintext: bytes) -> AttributeValue:
        """The inverse of `encode`."""
        fields = json.loads(plaintext)
        return cls(value=fields["value"], source=fields["source"], as_of=fields["asOf"])


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRecord:
    """One version of one attribute, still sealed."""

    record_id: str
    subject_id: str
    attribute: str
    version: int
    disputed: bool
    created_at: int
    envelope: Envelope


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRecord:
    """A value on its way in. A new version is undisputed, unless it is `disputed` from the start.

    While a dispute of the person is open, it is disputed too, unless it `settles` the dispute: another value than the
    disputed one, from its furnisher.
    """

    subject_ref: str
    attribute: str
    value: AttributeValue
    disputed: bool = False
    settles: bool = False


class Vault:
    """People and their sealed attributes."""

    def __init__(self, store: Store, keys: KeyFile) -> None:
        self._store = store
        self._keys = keys

    def subject_of(self, subject_ref: str) -> str:
        """The id of a living subject. Raises `NotFoundError`, `ErasedError`."""
        with self._store.read() as tx:
            subject_id = self.find_subject(tx, subject_ref)
        if subject_id is None:
            raise NotFoundError("subject: no such subject", field="subject")
        return subject_id

    def find_subject(self, tx: Connection, subject_ref: str) -> str | None:
        """As `subject_of`, within the caller's transaction; None if there is no such subject. Raises `ErasedError`."""
        query = select(subjects).where(subjects.c.ref_index == self.ref_index(subject_ref))
        row = tx.execute(query).first()
        if row is not None and row.erased_at is not None:
            raise ErasedError("subject: erased, and not taken in again under this reference", field="subject")
        return str(row.subject_id) if row is not None else None

    def ref_index(self, subject_ref: str) -> str:
        """How the reference of a person is stored: the same for every way in which Unicode can write it."""
        return self._keys.index("subject", unicodedata.normalize("NFC", subject_ref))

    def is_living(self, tx: Connection, subject_id: str) -> bool:
        """Whether there is such a subject, not erased, as the caller's transaction sees it."""
        living = (subjects.c.subject_id == subject_id, subjects.c.erased_at.is_(None))
        return tx.execute(select(subjects.c.subject_id).where(*living)).first() is not None

    def is_erased(self, subject_id: str) -> bool:
        """True also for a subject that is not there at all."""
        with self._store.read() as tx:
            row = tx.execute(select(subjects.c.erased_at).where(subjects.c.subject_id == subject_id)).first()
        return row is None or row.erased_at is not None

    def count(self) -> dict[str, int]:
        """Subjects, of them erased, and records."""
        with self._store.read() as tx:
            return {
                "subjects": tx.scalar(select(func.count()).select_from(subjects)) or 0,
                "erased": tx.scalar(select(func.count(subjects.c.erased_at))) or 0,
                "records": tx.scalar(select(func.count()).select_from(records)) or 0,
            }

    def held(self, subject_id: str) -> list[str]:
        """Names of the attributes held about a subject; opens nothing."""
        with self._store.read() as tx:
            query = select(records.c.attribute).where(records.c.subject_id == subject_id).distinct()
            return sorted(tx.scalars(query))

    def put(self, tx: Connection, new: Sequence[NewRecord], *, at: int) -> int:
        """Store values within the caller's transaction; a value that is already the newest is passed over.

        Returns how many versions were added. References of erased subjects are the caller's to refuse beforehand.
        """
        refs = self._ref_indexes(new)
        known = self._known(tx, list(refs.values()))
        missing = {index: new_id() for index in refs.values() if index not in known}
        if missing:
            tx.execute(
                subjects.insert(),
                [{"subject_id": key, "ref_index": index, "created_at": at} for index, key in missing.items()],
            )
        newest = self._newest(tx, list(known.values()))
        open_disputes = self._open_disputes(tx, list(known.values()))
        known |= missing
        rows = []
        for record in new:
            subject_id = known[refs[record.subject_ref]]
            row = self._row(subject_id, record, newest.get((subject_id, record.attribute)), at)
            if row and (dispute_id := open_disputes.get((subject_id, record.attribute))) is not None:
                row["disputed"] = int(not record.settles)
                if record.settles:
                    settled = {"closed_at": at, "outcome": CORRECTED}
                    tx.execute(update(disputes).where(disputes.c.dispute_id == dispute_id).values(**settled))
            if row:
                rows.append(row)
        if rows:
            insert_many(tx, records, rows)
        return len(rows)

    def without_older(self, tx: Connection, new: Sequence[NewRecord]) -> list[NewRecord]:
        """Those of which no value of a later day is held, whoever that is from: files come in any order.

        Opens what is held, without an access on the log, to compare the days; only `importer.py` may call this. Raises
        `VaultError`.
        """
        refs = self._ref_indexes(new)
        known = self._known(tx, list(refs.values()))
        if not known:
            return list(new)
        held = self.newest(tx, list(known.values()), {record.attribute for record in new})
        with self.counting({COMPARISON: list(held.values())}):
            days = {key: self._opened(record, COMPARISON).as_of for key, record in held.items()}
        places = [(known.get(refs[record.subject_ref], ""), record.attribute) for record in new]
        return [record for place, record in zip(places, new, strict=True) if days.get(place, "") <= record.value.as_of]

    def erased_refs(self, tx: Connection, ref_indexes: Sequence[str]) -> set[str]:
        """Those of the given reference indexes whose subject was erased."""
        return {
            row.ref_index
            for chunk in _chunks(ref_indexes)
            for row in tx.execute(
                select(subjects.c.ref_index).where(subjects.c.ref_index.in_(chunk), subjects.c.erased_at.is_not(None))
            )
        }

    def erased(self, tx: Connection) -> dict[str, int]:
        """The reference index of everyone who was erased, and when. Reads every subject."""
        query = select(subjects.c.ref_index, subjects.c.erased_at).where(subjects.c.erased_at.is_not(None))
        return {row.ref_index: row.erased_at for row in tx.execute(query)}

    def leave_out(self, tx: Connection, erased: Mapping[str, int]) -> None:
        """A tombstone for each reference index that is not known, so that nobody is taken in again under it."""
        known = self._known(tx, list(erased))
        rows = [
            {"subject_id": new_id(), "ref_index": index, "created_at": at, "erased_at": at}
            for index, at in erased.items()
            if index not in known
        ]
        if rows:
            tx.execute(subjects.insert(), rows)

    def living(self, tx: Connection, ref_indexes: Sequence[str]) -> list[str]:
        """The ids of those of the given reference indexes who are here and not erased."""
        return [
            row.subject_id
            for chunk in _chunks(ref_indexes)
            for row in tx.execute(
                select(subjects.c.subject_id).where(subjects.c.ref_index.in_(chunk), subjects.c.erased_at.is_(None))
            )
        ]

    def newest(
        self, tx: Connection, subject_ids: Collection[str], attributes: Collection[str]
    ) -> dict[tuple[str, str], StoredRecord]:
        """The newest version of these attributes of these people, where there is one. Decrypts nothing."""
        rows = tx.execute(_NEWEST, {"subjects": list(subject_ids), "names": list(attributes)})
        newest = {(row.subject_id, row.attribute): row for row in rows}
        return {key: _record(row) for key, row in newest.items()}

    def overtaken(self, tx: Connection, record_ids: Sequence[str]) -> dict[str, bool]:
        """Those of these records that are disputed by now (true), or of which there is a newer version (false)."""
        return {row.record_id: row.disputed for row in tx.execute(_OVERTAKEN, {"ids": list(record_ids)})}

    def find(self, subject_id: str, attributes: Sequence[str]) -> list[StoredRecord]:
        """As `newest`, of one person, in the order asked. Raises `AttributeAbsentError` naming what is missing."""
        with self._store.read() as tx:
            return present(self.newest(tx, [subject_id], attributes), subject_id, attributes)

    def wrapped_keys(self, record_ids: Sequence[str]) -> dict[str, WrappedKey]:
        """The keys of these records, still wrapped, of those that are there."""
        columns = (records.c.record_id, records.c.kek_id, records.c.wrapped_dek)
        with self._store.read() as tx:
            return {
                row.record_id: WrappedKey(row.kek_id, row.wrapped_dek)
                for chunk in _chunks(record_ids)
                for row in tx.execute(select(*columns).where(records.c.record_id.in_(chunk)))
            }

    def load(self, record_ids: Sequence[str]) -> list[StoredRecord]:
        """These very records, in this order. Raises `ErasedError` if one is gone: records go only by erasure."""
        with self._store.read() as tx:
            rows = tx.execute(select(records).where(records.c.record_id.in_(record_ids)))
            found = {row.record_id: _record(row) for row in rows}
        if any(record_id not in found for record_id in record_ids):
            raise ErasedError("the data were erased")
        return [found[record_id] for record_id in record_ids]

    def open(self, record: StoredRecord, use: Use) -> AttributeValue:
        """Decrypt one value, to be released. Only a release whose access is on chain may call this.

        `open_to_compare` does the same for who furnished it, `open_to_subject` for the person. Raises `VaultError`.
        """
        return self._opened(record, use)

    def counting(self, uses: Mapping[Use, Sequence[StoredRecord]]) -> AbstractContextManager[None]:
        """Count at once what the block will `open`: one write for a whole round. Raises `UnwrapsError`."""
        return self._keys.counting({use: [held.envelope.key for held in found] for use, found in uses.items()})

    def open_to_subject(self, subject_id: str) -> list[tuple[StoredRecord, AttributeValue]]:
        """Every version of everything about one person, decrypted, for that person alone; by attribute, newest first.

        Only `subject_data.py` may call this: what a person sees of their own data is no access. Raises `VaultError`.
        """
        query = select(records).where(records.c.subject_id == subject_id)
        with self._store.read() as tx:
            found = [_record(row) for row in tx.execute(query.order_by(records.c.attribute, records.c.version.desc()))]
        with self.counting({OWN_VIEW: found}):
            return [(record, self._opened(record, OWN_VIEW)) for record in found]

    def open_to_compare(self, record: StoredRecord) -> AttributeValue:
        """Decrypt one value without an access on the log, to compare it with what a furnisher hands in anew.

        Only `furnish.py` may call this, and the value stays in there: all that leaves is whether the furnisher's own
        value is another one, or older, and whose a value is. Raises `VaultError`.
        """
        return self._opened(record, COMPARISON)

    def _opened(self, record: StoredRecord, use: Use) -> AttributeValue:
        context = _context(record.subject_id, record.attribute, record.version)
        return AttributeValue.decode(open_envelope(record.envelope, context, self._keys, use))

    def set_disputed(self, tx: Connection, subject_id: str, attribute: str, *, disputed: bool) -> int:
        """Mark the newest and every older version: while disputed, the attribute is not released. Returns how many."""
        mine = (records.c.subject_id == subject_id, records.c.attribute == attribute)
        return tx.execute(update(records).where(*mine).values(disputed=disputed)).rowcount

    def erase(self, tx: Connection, subject_id: str, *, at: int) -> int:
        """Delete every envelope and wrapped key of a subject and leave a tombstone. Returns how many envelopes."""
        erased = tx.execute(delete(records).where(records.c.subject_id == subject_id)).rowcount
        tx.execute(update(subjects).where(subjects.c.subject_id == subject_id).values(erased_at=at))
        return erased

    def _ref_indexes(self, new: Sequence[NewRecord]) -> dict[str, str]:
        return {ref: self.ref_index(ref) for ref in dict.fromkeys(record.subject_ref for record in new)}

    def _known(self, tx: Connection, ref_indexes: Sequence[str]) -> dict[str, str]:
        return {
            row.ref_index: row.subject_id
            for chunk in _chunks(ref_indexes)
            for row in tx.execute(select(subjects).where(subjects.c.ref_index.in_(chunk)))
        }

    def _newest(self, tx: Connection, subject_ids: Collection[str]) -> dict[tuple[str, str], tuple[int, str]]:
        return {
            (row.subject_id, row.attribute): (row.version, row.value_index)
            for chunk in _chunks(list(subject_ids))
            for row in tx.execute(
                select(records.c.subject_id, records.c.attribute, records.c.version, records.c.value_index)
                .where(records.c.subject_id.in_(chunk))
                .order_by(records.c.version)
            )
        }

    def _open_disputes(self, tx: Connection, subject_ids: Sequence[str]) -> dict[tuple[str, str], str]:
        columns = (disputes.c.subject_id, disputes.c.attribute, disputes.c.dispute_id)
        return {
            (row.subject_id, row.attribute): row.dispute_id
            for chunk in _chunks(list(subject_ids))
            for row in tx.execute(
                select(*columns).where(disputes.c.subject_id.in_(chunk), disputes.c.closed_at.is_(None))
            )
        }

    def _row(
        self, subject_id: str, record: NewRecord, newest: tuple[int, str] | None, at: int
    ) -> dict[str, Any] | None:
        plaintext = record.value.encode()
        # Tells a repeated value from a new one without decrypting; keyed and per subject, so it compares nothing else.
        value_index = self._keys.index("value", f"{subject_id}\n{record.attribute}\n{plaintext.decode()}")
        version, last_index = newest or (0, "")
        if value_index == last_index:
            return None
        envelope = seal(plaintext, _context(subject_id, record.attribute, version + 1), self._keys)
        return {
            "record_id": new_id(),
            "subject_id": subject_id,
            "attribute": record.attribute,
            "version": version + 1,
            "value_index": value_index,
            "disputed": int(record.disputed),
            "created_at": at,
            **sealed_columns(envelope),
        }


def present(
    newest: Mapping[tuple[str, str], StoredRecord], subject_id: str, attributes: Sequence[str]
) -> list[StoredRecord]:
    """One person's records in the order asked. Raises `AttributeAbsentError` naming what is missing."""
    if absent := [name for name in attributes if (subject_id, name) not in newest]:
        raise AttributeAbsentError(f"attributes: no value held of {', '.join(absent)}", field="attributes")
    return [newest[subject_id, name] for name in attributes]


def sealed_columns(envelope: Envelope) -> dict[str, Any]:
    """An envelope as columns of a row."""
    return {"kek_id": envelope.key.kek_id, "wrapped_dek": envelope.key.wrapped_dek, "body": envelope.body}


def envelope_of(row: Row[Any]) -> Envelope:
    """The envelope in a row. Raises `ErasedError` if it was destroyed."""
    if row.body is None:
        raise ErasedError("the data were erased")
    return Envelope(WrappedKey(row.kek_id, row.wrapped_dek), row.body)


def seal_json(fields: Mapping[str, Any], context: EncryptionContext, keys: KeyWrapper) -> dict[str, Any]:
    """Seal an opening (a JSON object) into columns."""
    return sealed_columns(seal(_AS_IT_STANDS.encode(fields).encode(), context, keys))


def open_json(row: Row[Any], context: EncryptionContext, keys: KeyWrapper, use: Use = OPENING) -> dict[str, Any]:
    """The inverse of `seal_json`. Raises `VaultError`, `ErasedError`."""
    fields: dict[str, Any] = json.loads(open_envelope(envelope_of(row), context, keys, use))
    return fields


def _context(subject_id: str, attribute: str, version: int) -> EncryptionContext:
    return {
        "kind": "attribute",
        "subject": subject_id,
        "attribute": attribute,
        "version": str(version),
        "schema": RECORD_SCHEMA,
    }


def _record(row: Row[Any]) -> StoredRecord:
    return StoredRecord(
        record_id=row.record_id,
        subject_id=row.subject_id,
        attribute=row.attribute,
        version=row.version,
        disputed=row.disputed,
        created_at=row.created_at,
        envelope=envelope_of(row),
    )


def _chunks(items: Sequence[str], size: int = 500) -> list[Sequence[str]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
