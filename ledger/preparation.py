"""Steps (1) to (4) of a release, for everyone of one round: what is asked is judged, and put on file with the outcome.

The steps are numbered as in `release.py`, whose transaction this works in.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import Connection, Row

from ledger.access import AccessEntry, LoggedAccess, entry_hash_of, records_hash_of, refusal_hash
from ledger.access_records import AccessRecords
from ledger.authentication import Caller, Signed
from ledger.consent import (
    AccessRequest,
    Address,
    ConsentGrant,
    Hex32,
    Reason,
    authorize,
    hex32_of,
    require_in_force,
    require_institution,
)
from ledger.errors import (
    ChainError,
    ChainLostError,
    ConsentError,
    ErasedError,
    LedgerError,
    NotFoundError,
    WrongInstitutionError,
)
from ledger.exchange import Party, ReleaseRequest
from ledger.journal import INTENT, REFUSED, Journal, QueuedAccess, new_release_id
from ledger.json_forms import DAY_SECONDS
from ledger.keys import KeyFile
from ledger.purposes import AUDIT
from ledger.registry import Registry, StoredConsent, withdrawal_of
from ledger.vault import StoredRecord, Vault, open_json, present, seal_json

LOGGED_REFUSALS_PER_DAY: Final = 50
"""For one consent: whoever asks more often than this is refused all the same, but no longer put on the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One release that a signed request asks for."""

    request: ReleaseRequest
    signed: Signed
    index: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """The same idempotency key was used before: the release that it stands for."""

    release_id: Hex32


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """What (4) makes durable, and all that (5) to (7) need."""

    institution: Party
    grant: ConsentGrant
    entry: AccessEntry
    entry_hash: Hex32
    records: tuple[StoredRecord, ...]

    @property
    def queued(self) -> QueuedAccess:
        """What goes to the log."""
        access = LoggedAccess(consent_id=self.entry.consent_id, entry_hash=self.entry_hash)
        return QueuedAccess(release_id=self.entry.release_id, access=access)


class Preparation:
    """(1) to (4) of one round, within its writing transaction.

    Within one transaction two requests at once cannot both have the last access of the day, nor both use one key.
    """

    def __init__(
        self,
        tx: Connection,
        asked: Sequence[Asked],
        reasons: Mapping[Hex32, Reason] | ChainError,
        journal: Journal,
        registry: Registry,
        vault: Vault,
        access_records: AccessRecords,
        keys: KeyFile,
        *,
        writer: Address,
        now: int,
    ) -> None:
        self._tx, self._reasons, self._journal, self._registry, self._keys = tx, reasons, journal, registry, keys
        self._access_records, self._writer, self._now = access_records, writer, now
        consent_ids = list({one.request.access.consent_id for one in asked})
        earlier = journal.find_releases(tx, [one.index for one in asked])
        self._earlier = {index: Earlier(release_id=release_id) for index, (release_id, _) in earlier.items()}
        self._consents = registry.rows(tx, consent_ids)
        self._used = journal.used_on(tx, consent_ids, now // DAY_SECONDS)
        people = {row.subject_id for row in self._consents.values() if row.subject_id is not None}
        names = {name for one in asked for name in one.request.access.attributes}
        self._records = vault.newest(tx, people, names)
        self._rows: list[dict[str, Any]] = []

    def run(self, asked: Sequence[Asked], callers: Sequence[Caller | Exception]) -> list[Intent | Earlier | Exception]:
        """All of them, in the order in which they came; nothing for those who were not let in."""
        return [
            caller if isinstance(caller, Exception) else self._one(one)
            for one, caller in zip(asked, callers, strict=True)
        ]

    def put_on_file(self, batch_id: str | None) -> None:
        """(4) Everything that was judged, the intents as entries of the batch in their order."""
        positions = itertools.count()
        for row in self._rows:
            is_entry = row["state"] == INTENT
            row |= {"batch_id": batch_id if is_entry else None, "position": next(positions) if is_entry else None}
        self._journal.add_releases(self._tx, self._rows)

    def _one(self, asked: Asked) -> Intent | Earlier | Exception:
        if earlier := self._earlier.get(asked.index):
            return earlier
        try:
            return self._first(asked)
        except LedgerError as exc:
            return exc

    def _first(self, asked: Asked) -> Intent:
        access = asked.request.access
        # (1)
        consent = self._consent(access)
        try:
            require_institution(access, consent.grant)
            self._require_usable(consent)
            # (2)
            authorize(access, consent.grant, used_today=self._used[consent.consent_id])
        except ConsentError as refusal:
            self._put_refusal_on_file(asked, consent, refusal)
            raise
        # (3)
        if access.purpose == AUDIT:
            records = tuple(self._access_records.sealed(self._tx, consent.subject_id))
        else:
            records = tuple(present(self._records, consent.subject_id, access.attributes))
        if contested := {record.attribute for record in records if record.disputed}:
            try:
                authorize(access, consent.grant, used_today=0, disputed=contested)
            except ConsentError as refusal:
                self._put_refusal_on_file(asked, consent, refusal)
                raise
        # What is logged can be answered.
        asked.signed.party.key("enc", now=self._now)
        # (4)
        entry = _entry(asked.request, records_hash_of(record.envelope.digest() for record in records))
        entry_hash = entry_hash_of(entry)
        self._judged(asked, consent, entry, entry_hash, records, state=INTENT)
        self._used[consent.consent_id] += 1
        return Intent(
            institution=asked.signed.party, grant=consent.grant, entry=entry, entry_hash=entry_hash, records=records
        )

    def _consent(self, access: AccessRequest) -> StoredConsent:
        row = self._consents.get(access.consent_id)
        if row is None or (
            # Whoever was never given it learns no more than that there is none.
            row.erased_at is not None and row.institution_index != self._registry.institution_index(access.institution)
        ):
            raise NotFoundError("consent: no such consent", field="consent")
        return self._registry.opened(row)

    def _require_usable(self, consent: StoredConsent) -> None:
        withdrawal = withdrawal_of(self._consents[consent.consent_id])
        if withdrawal is None and isinstance(self._reasons, ChainError):
            raise self._reasons
        reason = Reason.NONE if isinstance(self._reasons, ChainError) else self._reasons[consent.consent_id]
        require_usable(consent, withdrawal, reason, now=self._now)

    def _put_refusal_on_file(self, asked: Asked, consent: StoredConsent, refusal: ConsentError) -> None:
        if isinstance(withdrawal_of(self._consents[consent.consent_id]), ErasedError):
            # Nothing about an erased person comes back on file.
            return
        today = self._now // DAY_SECONDS
        refused = self._journal.refused_on(self._tx, consent.consent_id, today) + sum(
            row["consent_id"] == consent.consent_id and row["state"] == REFUSED for row in self._rows
        )
        if refused < LOGGED_REFUSALS_PER_DAY:
            entry = _entry(asked.request, refusal_hash(refusal.code))
            if isinstance(refusal, WrongInstitutionError):
                # Under no key: what becomes of the key later must not tell that there is such a consent.
                asked = replace(asked, index=entry.release_id)
            self._judged(
                asked, consent, entry, entry_hash_of(entry), (), state=REFUSED, reason=refusal.code, at=self._now
            )

    def _judged(
        self,
        asked: Asked,
        consent: StoredConsent,
        entry: AccessEntry,
        entry_hash: Hex32,
        records: Sequence[StoredRecord],
        *,
        state: str,
        reason: str | None = None,
        at: int | None = None,
    ) -> None:
        opening = {
            "entry": entry.as_json(),
            "records": [record.record_id for record in records],
            "request": asked.request.evidence.as_json(),
        }
        self._rows.append(
            {
                "release_id": entry.release_id,
                "idempotency_index": asked.index,
                "content_digest": asked.content,
                "institution_index": self._registry.institution_index(entry.institution),
                "consent_id": entry.consent_id,
                "subject_id": consent.subject_id,
                "day": self._now // DAY_SECONDS,
                "state": state,
                "reason": reason,
                "writer": self._writer,
                "entry_hash": entry_hash,
                "created_at": self._now,
                "finished_at": at,
                **seal_json(opening, opening_context(entry.release_id), self._keys),
            }
        )
        # A twin of the same round.
        self._earlier[asked.index] = Earlier(release_id=entry.release_id)


def require_usable(consent: StoredConsent, withdrawal: ConsentError | None, reason: Reason, *, now: int) -> None:
    """Raise why a consent may not be used: `withdrawal` is what is on file here, `reason` the contract's verdict."""
    # What the person has signed counts from the moment it is on file here, before the chain has it.
    if withdrawal is not None:
        raise withdrawal
    if reason is Reason.NOT_GRANTED and consent.standing:
        raise ChainLostError("the chain does not know a consent that stood on it: run `consent-ledger sync`")
    if reason is Reason.NOT_YET_VALID and consent.grant.valid_from <= now:
        # A view sees the time of the last block, which stands still while nothing happens: the append will tell.
        return
    require_in_force(reason)


def _entry(request: ReleaseRequest, records_hash: Hex32) -> AccessEntry:
    return AccessEntry(
        consent_id=request.access.consent_id,
        release_id=new_release_id(),
        institution=request.access.institution,
        purpose=request.access.purpose,
        attributes=request.access.attributes,
        request_hash=request.access.request_hash,
        records_hash=records_hash,
        salt=hex32_of(secrets.token_bytes(32)),
    )


def entry_of(row: Row[Any], keys: KeyFile) -> AccessEntry:
    """The entry that a row of the journal has the opening of. Raises `ErasedError`, `VaultError`."""
    return AccessEntry.from_json(open_json(row, opening_context(row.release_id), keys)["entry"])


def opening_context(release_id: str) -> dict[str, str]:
    """What the envelope of a release's opening is bound to."""
    return {"kind": "release", "release": release_id}
