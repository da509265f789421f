"""Furnishing: a furnisher hands in what it knows of one person, and whoever received an older value is told.

(1) Check the reference, the date and every value against the catalogue: all of it is taken or nothing.
(2) Open what is held of these attributes, to compare. A furnisher replaces nothing but its own values, and no value by
    an older one.
(3) Store what is new as new versions.
(4) Another value in place of an old one is a correction. Every institution that was released the attribute and may
    still keep it is told: one event for each consent, on file with the correction itself. It ends the attribute's
    dispute, which the same value in a new version does not.

An event names the consent and not the attribute, which is the consent's own, sealed matter: the institution asks again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Any, Final

from sqlalchemy import Connection, Row

from ledger.attributes import ATTRIBUTES
from ledger.consent import Hex32
from ledger.errors import ConflictError, MalformedError, NotFoundError, UnknownAttributeError, ValueNotInCatalogueError
from ledger.exchange import Party
from ledger.importmap import FIRST_DAY, MAX_SUBJECT_LENGTH
from ledger.invitations import Invitation, Invitations
from ledger.journal import Journal
from ledger.keys import KeyFile
from ledger.outbox import CORRECTED, Outbox
from ledger.preparation import entry_of
from ledger.registry import Registry
from ledger.retention import Retention, retentions
from ledger.signatures import SignedRequest
from ledger.store import Store
from ledger.vault import AttributeValue, NewRecord, Value, Vault

_ISO_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class PutResult:
    """Attributes with a new version, attributes that were held like this already, and consents that were told of."""

    added: tuple[str, ...]
    unchanged: tuple[str, ...]
    told: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Compared:
    """What is to be stored, and which attributes have another value now than the one that was released."""

    new: tuple[NewRecord, ...]
    corrected: frozenset[str]


class Furnish:
    """Takes in what furnishers sign."""

    def __init__(
        self,
        store: Store,
        vault: Vault,
        registry: Registry,
        journal: Journal,
        outbox: Outbox,
        invitations: Invitations,
        keys: KeyFile,
        *,
        clock: Callable[[], int],
    ) -> None:
        self._store, self._vault, self._registry, self._journal = store, vault, registry, journal
        self._outbox, self._invitations, self._keys, self._clock = outbox, invitations, keys, clock

    def put(
        self,
        furnisher: Party,
        subject_ref: str,
        *,
        as_of: str,
        values: Mapping[str, Value],
        evidence: SignedRequest,  # noqa: ARG002 - what the values rest on; not kept, as an import's file is not
    ) -> PutResult:
        """Take in values of one person, as they were on the day `as_of` (ISO date). A new person is made known.

        Raises `MalformedError`, `UnknownAttributeError`, `ValueNotInCatalogueError`, `ErasedError`, and `ConflictError`
        for a value of another source or one that is newer than `as_of`.
        """
        # (1)
        now = self._clock()
        _require_ref(subject_ref)
        _require_day(as_of, now)
        _require_in_catalogue(values)
        with self._store.begin() as tx:
            # (2)
            subject_id = self._vault.find_subject(tx, subject_ref)
            offered = [
                NewRecord(
                    subject_ref=subject_ref,
                    attribute=name,
                    value=AttributeValue(value=value, source=furnisher.party_id, as_of=as_of),
                )
                for name, value in values.items()
            ]
            compared = self._compared(tx, subject_id, offered)
            # (3)
            self._vault.put(tx, compared.new, at=now)
            # (4)
            told = self._tell(tx, subject_id, compared.corrected, now) if subject_id and compared.corrected else 0
        added = tuple(record.attribute for record in compared.new)
        return PutResult(added=added, unchanged=tuple(name for name in values if name not in added), told=told)

    def invite(self, furnisher: Party, subject_ref: str) -> Invitation:
        """A code for a person to enrol at the portal with; it is the furnisher's to hand over.

        Raises `ErasedError`, and `NotFoundError` unless every value held of the person is from this furnisher: whoever
        invites a person can be that person in the portal, and would see there what others have handed in.
        """
        with self._store.begin() as tx:
            subject_id = self._vault.find_subject(tx, subject_ref)
            if subject_id is None or not self._is_only_source(tx, subject_id, furnisher):
                raise NotFoundError("subject: no such subject", field="subject")
            return self._invitations.invite(tx, subject_id, furnisher=furnisher.party_id)

    def _is_only_source(self, tx: Connection, subject_id: str, furnisher: Party) -> bool:
        # One value more is soon handed in, so that one of many is from a furnisher says nothing.
        held = self._vault.newest(tx, [subject_id], list(ATTRIBUTES)).values()
        return bool(held) and all(self._vault.open_to_compare(one).source == furnisher.party_id for one in held)

    def _compared(self, tx: Connection, subject_id: str | None, offered: Sequence[NewRecord]) -> _Compared:
        """Raises `ConflictError`."""
        names = [record.attribute for record in offered]
        found = self._vault.newest(tx, [subject_id], names) if subject_id else {}
        disputed = {record.attribute for record in found.values() if record.disputed}
        held = {record.attribute: self._vault.open_to_compare(record) for record in found.values()}
        # Of all of them, before anything is said of a date: that would be another's.
        for record in offered:
            if (old := held.get(record.attribute)) is not None and old.source != record.value.source:
                field = f"values.{record.attribute}"
                raise ConflictError(f"{field}: held from another source, which alone can correct it", field=field)
        if any(old.as_of > record.value.as_of for record in offered if (old := held.get(record.attribute))):
            raise ConflictError("asOf: expected no earlier day than that of the values that are held", field="asOf")
        new, corrected = [], set()
        for record in offered:
            old = held.get(record.attribute)
            if old == record.value:
                continue
            if old is not None and old.value != record.value.value:
                corrected.add(record.attribute)
                new.append(replace(record, settles=True))
            else:
                new.append(_again(record) if record.attribute in disputed else record)
        return _Compared(new=tuple(new), corrected=frozenset(corrected))

    def _tell(self, tx: Connection, subject_id: str, corrected: frozenset[str], now: int) -> int:
        """Tell of every consent under which one of these was released and may still be kept. Returns how many."""
        answered: dict[Hex32, list[Row[Any]]] = {}
        for row in self._journal.answered(tx, subject_id):
            answered.setdefault(row.consent_id, []).append(row)
        kept = retentions(tx, self._registry, list(answered), now=now)
        concerned = [one for one in kept.values() if self._has(answered[one.consent.consent_id], one, corrected, now)]
        for one in concerned:
            self._outbox.add(
                tx,
                kind=CORRECTED,
                institution_index=self._registry.institution_index(one.consent.grant.terms.institution),
                consent_id=one.consent.consent_id,
                at=now,
            )
        return len(concerned)

    def _has(self, rows: Sequence[Row[Any]], retention: Retention, corrected: frozenset[str], now: int) -> bool:
        for row in rows:
            ends = retention.ends(row.finished_at)
            if ends is not None and ends <= now:
                # They come newest first, so that the others ended before.
                return False
            if corrected & set(entry_of(row, self._keys).attributes):
                return True
        return False


def _again(record: NewRecord) -> NewRecord:
    """To say the same again settles no dispute."""
    return replace(record, disputed=True)


def _require_ref(subject_ref: str) -> None:
    # As an import reads it: the two must find the same person.
    printable = subject_ref.isprintable() and subject_ref == subject_ref.strip()
    if not printable or not 1 <= len(subject_ref) <= MAX_SUBJECT_LENGTH:
        raise MalformedError(
            f"subject: expected 1 to {MAX_SUBJECT_LENGTH} printable characters, no blanks around them", field="subject"
        )


def _require_day(as_of: str, now: int) -> None:
    today = datetime.fromtimestamp(now, UTC).date()
    if not _ISO_DATE.match(as_of) or not FIRST_DAY <= _day(as_of) <= today:
        raise MalformedError(f"asOf: expected a date from {FIRST_DAY} to today (YYYY-MM-DD, UTC)", field="asOf")


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return date.min


def _require_in_catalogue(values: Mapping[str, Value]) -> None:
    if not values:
        raise MalformedError("values: expected at least one", field="values")
    for name, value in values.items():
        if name not in ATTRIBUTES:
            raise UnknownAttributeError("values: expected only names of the catalogue", field="values")
        field = f"values.{name}"
        try:
            ATTRIBUTES[name].check(value)
        except ValueNotInCatalogueError:
            expected = ATTRIBUTES[name].expected()
            # Not chained: an error of the value is one of a person's data.
            raise ValueNotInCatalogueError(f"{field}: expected {expected}", field=field) from None
