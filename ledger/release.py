"""Release: the way of one request, from the institution's signature to the sealed answer. Read it top to bottom.

(0) Authenticate the institution's signed request; same idempotency key => same release.
(1) Load the opening; ask the contract for the status at the latest block.      unreachable => deny
(2) Authorize (pure): institution, purpose, attributes within the terms, per-day limit, not disputed or erased.
(3) Find the envelopes, so that "absent" is known before anything is logged.
(4) Write the intent (release id, entry, salt) durably.
(5) Append on chain with everyone else who is waiting (group commit); wait for the finality that the profile asks for.
(6) Recorded? Ask once more for a revocation; then unwrap, decrypt under the encryption context, seal to the
    institution's key, store the sealed bytes durably.
(7) Return them with the AccessReceipt (a separate signed proof without the values). Refused? Say so, with the reason.

Nothing is decrypted before (5) is confirmed. The only half state is "logged, not released"; it is resumed by a retry or
ends as aborted. What the custodian refuses by itself is put on file to be logged too, so that the person sees who
tried.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from joserfc.jwk import ECKey
from sqlalchemy import Connection, Row

from ledger.access import (
    AccessEntry,
    BatchKind,
    ChainProof,
    LoggedAccess,
    entry_hash_of,
    records_hash_of,
    refusal_hash,
)
from ledger.attributes import attribute
from ledger.chain import Chain
from ledger.commit import MAX_BATCH, Landed, LogWriter
from ledger.consent import Address, Hex32, Reason, authorize, hex32_of, require_in_force, require_institution
from ledger.errors import (
    ChainLostError,
    ConsentError,
    ConsentPausedError,
    ConsentRevokedError,
    ErasedError,
    IdempotencyConflictError,
    InstitutionSuspendedError,
    NotFoundError,
    ReleaseAbortedError,
    ReleaseInProgressError,
)
from ledger.exchange import (
    Institution,
    ReleaseRequest,
    claimed_institution,
    key_for,
    read_request,
    receipt_claims,
    seal_answer,
    sign_claims,
)
from ledger.gather import Gather
from ledger.journal import ABORTED, INTENT, RECORDED, REFUSED, RELEASED, Journal, QueuedAccess
from ledger.keys import KeyFile
from ledger.registry import Registry, StoredConsent
from ledger.store import Store, new_id
from ledger.vault import StoredRecord, Vault, open_json, seal_json

DAY_SECONDS: Final = 86_400
LOGGED_REFUSALS_PER_DAY: Final = 50
"""For one consent: whoever asks more often than this is refused all the same, but no longer put on the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """The sealed answer, and the receipt that proves where its access is logged."""

    release_id: Hex32
    sealed: bytes
    receipt: str
    late: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Intent:
    """What (4) makes durable, and all that (5) to (7) need."""

    request: ReleaseRequest
    consent: StoredConsent
    entry: AccessEntry
    records: tuple[StoredRecord, ...]

    @property
    def queued(self) -> QueuedAccess:
        access = LoggedAccess(consent_id=self.entry.consent_id, entry_hash=entry_hash_of(self.entry))
        return QueuedAccess(release_id=self.entry.release_id, access=access)


class Releases:
    """The only place where an attribute is decrypted."""

    def __init__(
        self,
        store: Store,
        journal: Journal,
        registry: Registry,
        vault: Vault,
        keys: KeyFile,
        chain: Chain,
        log: LogWriter,
        *,
        custodian: Address,
        signing_key: ECKey,
        clock: Callable[[], int],
        recover: Callable[[str], bool],
        max_batch: int = MAX_BATCH,
        step: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._store, self._journal, self._registry, self._vault = store, journal, registry, vault
        self._keys, self._chain, self._log = keys, chain, log
        self._custodian, self._signing_key, self._clock = custodian, signing_key, clock
        self._recover, self._step = recover, step
        self._working: set[Hex32] = set()
        self._done = threading.Condition()
        self._status: Gather[Hex32, Reason] = Gather(lambda ids: chain.statuses(ids, custodian))
        self._write_intent: Gather[_Intent, None] = Gather(self._write_intents)
        self._append: Gather[QueuedAccess, Landed] = Gather(
            lambda queued: log.append(BatchKind.ACCESSES, queued), limit=max_batch
        )
        self._write_answer: Gather[tuple[QueuedAccess, bytes], bool] = Gather(self._write_answers)

    # ------------------------------------------------------------------------------------------------------- the way

    def release(self, signed: bytes) -> Release:
        """Answer a signed request.

        Raises `AuthenticationError`, `MalformedError`, `NotFoundError`, `ConsentError` (the exact reason),
        `ConflictError`, `AttributeAbsentError`, `VaultError`, `ChainError`.
        """
        # (0)
        institution, request = self._authenticated(signed)
        index = self._idempotency_index(request)
        earlier = self._journal.find_release(index)
        if earlier is None:
            try:
                return self._first(institution, request)
            except (ConsentError, ReleaseInProgressError):
                # Its twin may have come first, and have used up what this one was refused for.
                earlier = self._journal.find_release(index)
                if earlier is None or earlier.state in (REFUSED, ABORTED):
                    raise
        return self._again(earlier, institution, request)

    def _first(self, institution: Institution, request: ReleaseRequest) -> Release:
        # (1)
        consent = self._consent(request)
        try:
            require_institution(request.access, consent.grant)
            self._require_in_force(consent)
            # (2)
            self._authorized(request, consent)
        except ConsentError as refusal:
            self._put_refusal_on_file(request, consent, refusal)
            raise
        # (3)
        records = tuple(self._vault.find(consent.subject_id, request.access.attributes))
        if contested := {record.attribute for record in records if record.disputed}:
            self._refuse_disputed(request, consent, contested)

        # (4)
        intent = self._new_intent(request, consent, records)
        with self._at_work(intent.entry.release_id):
            self._step("4 before intent")
            try:
                self._write_intent(intent)
            except ConsentError as refusal:
                self._put_refusal_on_file(request, consent, refusal)
                raise
            self._step("4 intent durable")
            # (5)
            landed = self._append(intent.queued)
            self._step("5 logged")
            # (6) and (7)
            return self._answer(intent, institution, landed)

    def _answer(self, intent: _Intent, institution: Institution, landed: Landed) -> Release:
        release_id = intent.entry.release_id
        if landed.reason is not Reason.NONE:
            require_in_force(landed.reason)
        # (6) A revocation that is visible by now stops it, whoever sent it to the chain.
        self._abort_if_withdrawn(intent, late=landed.late)
        self._step("6 before decrypting")
        values = {record.attribute: self._vault.open(record) for record in intent.records}
        now = self._clock()
        grant = intent.consent.grant
        claims = {
            "version": 1,
            "iss": self._custodian,
            "aud": intent.entry.institution,
            "iat": now,
            "jti": release_id,
            "consent": intent.entry.consent_id,
            "purpose": intent.entry.purpose,
            "values": {
                name: {"value": held.value, "unit": attribute(name).unit, "source": held.source, "asOf": held.as_of}
                for name, held in values.items()
            },
            "eraseBy": now + grant.terms.retention_days * DAY_SECONDS,
            "entryHash": intent.queued.access.entry_hash,
            "proof": landed.proof.as_json(),
        }
        sealed = seal_answer(claims, self._signing_key, key_for(institution.jwks, "enc"))
        self._step("6 before answer durable")
        if not self._write_answer((intent.queued, sealed)):
            # Revoked, paused, erased or taken up by another process, between the check and here.
            self._abort_if_withdrawn(intent, late=landed.late)
            raise self._final_error(release_id)
        self._step("6 answer durable")
        # (7)
        return self._released(intent.entry, landed.proof, sealed, late=landed.late)

    # ---------------------------------------------------------------------------------------------- (0) to (4), closer

    def _authenticated(self, signed: bytes) -> tuple[Institution, ReleaseRequest]:
        institution = self._registry.institution(claimed_institution(signed))
        request = read_request(signed, institution, custodian=self._custodian, now=self._clock())
        if institution.suspended:
            raise InstitutionSuspendedError("the institution is suspended", field="institution")
        return institution, request

    def _idempotency_index(self, request: ReleaseRequest) -> str:
        return self._keys.index("idempotency", f"{request.access.institution}\n{request.idempotency_key}")

    def _content_index(self, request: ReleaseRequest) -> str:
        # Keyed: so few things can be asked for that a bare hash would tell which.
        return self._keys.index("content", request.content_digest())

    def _consent(self, request: ReleaseRequest) -> StoredConsent:
        try:
            return self._registry.consent(request.access.consent_id)
        except ErasedError:
            # Whoever was never given it learns no more than that there is none.
            if self._registry.was_given(request.access.consent_id, request.access.institution):
                raise
            raise NotFoundError("consent: no such consent", field="consent") from None

    def _require_in_force(self, consent: StoredConsent) -> None:
        # What the person has signed counts from the moment it is on file here, before the chain has it.
        with self._store.read() as tx:
            withdrawal = self._registry.withdrawal(tx, consent.consent_id)
        if withdrawal is not None:
            raise withdrawal
        reason = self._status(consent.consent_id)
        if reason is Reason.NOT_GRANTED and consent.standing:
            raise ChainLostError("the chain does not know a consent that stood on it: run `consent-ledger sync`")
        if reason is Reason.NOT_YET_VALID and consent.grant.valid_from <= self._clock():
            # A view sees the time of the last block, which stands still while nothing happens: the append will tell.
            return
        require_in_force(reason)

    def _authorized(self, request: ReleaseRequest, consent: StoredConsent) -> None:
        with self._store.read() as tx:
            used = self._journal.used_on(tx, consent.consent_id, self._clock() // DAY_SECONDS)
        authorize(request.access, consent.grant, used_today=used)

    def _refuse_disputed(self, request: ReleaseRequest, consent: StoredConsent, contested: set[str]) -> NoReturn:
        try:
            authorize(request.access, consent.grant, used_today=0, disputed=contested)
        except ConsentError as refusal:
            self._put_refusal_on_file(request, consent, refusal)
            raise
        raise AssertionError("a disputed attribute was authorized")

    def _new_intent(
        self, request: ReleaseRequest, consent: StoredConsent, records: tuple[StoredRecord, ...]
    ) -> _Intent:
        digests = (record.envelope.digest() for record in records)
        return _Intent(
            request=request, consent=consent, entry=_entry(request, records_hash_of(digests)), records=records
        )

    def _write_intents(self, intents: Sequence[_Intent]) -> list[Exception | None]:
        with self._store.begin() as tx:
            return [self._write_one(tx, intent) for intent in intents]

    def _write_one(self, tx: Connection, intent: _Intent) -> Exception | None:
        # Inside the writing transaction: two requests at once cannot both have the last access of the day.
        row = self._row(intent.request, intent.consent, intent.entry, [r.record_id for r in intent.records])
        if self._journal.is_known(tx, row["idempotency_index"]):
            return ReleaseInProgressError("this request is being answered at this moment: ask again")
        if withdrawal := self._registry.withdrawal(tx, intent.consent.consent_id):
            return withdrawal
        try:
            used = self._journal.used_on(tx, intent.consent.consent_id, row["day"])
            authorize(intent.request.access, intent.consent.grant, used_today=used)
        except ConsentError as exc:
            return exc
        self._journal.add_release(tx, row | {"state": INTENT})
        return None

    def _row(
        self, request: ReleaseRequest, consent: StoredConsent, entry: AccessEntry, record_ids: Sequence[str]
    ) -> dict[str, Any]:
        now = self._clock()
        opening = {"entry": entry.as_json(), "records": list(record_ids), "request": request.signed.decode()}
        return {
            "release_id": entry.release_id,
            "idempotency_index": self._idempotency_index(request),
            "content_digest": self._content_index(request),
            "institution_index": self._registry.institution_index(request.access.institution),
            "consent_id": entry.consent_id,
            "subject_id": consent.subject_id,
            "day": now // DAY_SECONDS,
            "writer": self._log.address,
            "entry_hash": entry_hash_of(entry),
            "created_at": now,
            **seal_json(opening, _context(entry.release_id), self._keys),
        }

    def _put_refusal_on_file(self, request: ReleaseRequest, consent: StoredConsent, refusal: ConsentError) -> None:
        entry = _entry(request, refusal_hash(refusal.code))
        row = self._row(request, consent, entry, []) | {"state": REFUSED, "reason": refusal.code}
        with self._store.begin() as tx:
            if self._journal.is_known(tx, row["idempotency_index"]):
                return
            if isinstance(self._registry.withdrawal(tx, consent.consent_id), ErasedError):
                # Nothing about an erased person comes back on file.
                return
            if self._journal.refused_on(tx, consent.consent_id, row["day"]) < LOGGED_REFUSALS_PER_DAY:
                self._journal.add_release(tx, row | {"finished_at": row["created_at"]})

    # ---------------------------------------------------------------------------------------------------- (6), closer

    def _abort_if_withdrawn(self, intent: _Intent, *, late: bool) -> None:
        """Raise, and end the release, if the consent was revoked or paused or the data erased meanwhile."""
        reason = self._status(intent.entry.consent_id)
        if reason is Reason.NOT_GRANTED:
            raise ChainLostError("the chain lost the consent, and the access with it: run `consent-ledger sync`")
        with self._store.read() as tx:
            withdrawal = self._registry.withdrawal(tx, intent.entry.consent_id)
        if withdrawal is None and reason is Reason.REVOKED:
            withdrawal = ConsentRevokedError("revoked after it was logged: nothing was released")
        if withdrawal is None and reason is Reason.PAUSED:
            withdrawal = ConsentPausedError("paused after it was logged: nothing was released")
        if withdrawal is None and late:
            withdrawal = ReleaseAbortedError("back on the log only after the consent had ended: nothing was released")
        if withdrawal is not None:
            ended = {"reason": withdrawal.code, "finished_at": self._clock()}
            self._journal.move(intent.entry.release_id, RECORDED, ABORTED, **ended)
            raise withdrawal

    def _write_answers(self, answers: Sequence[tuple[QueuedAccess, bytes]]) -> list[bool]:
        # The same transaction asks for a revocation once more: one that is on file before the answer stops it.
        with self._store.begin() as tx:
            return [
                self._registry.withdrawal(tx, queued.access.consent_id) is None
                and self._journal.store_answer(tx, queued.release_id, sealed, at=self._clock())
                for queued, sealed in answers
            ]

    def _released(self, entry: AccessEntry, proof: ChainProof, sealed: bytes, *, late: bool) -> Release:
        claims = receipt_claims(entry, proof, at=self._clock(), late=late)
        receipt = sign_claims(claims, self._signing_key, "access-receipt+jwt")
        return Release(release_id=entry.release_id, sealed=sealed, receipt=receipt, late=late)

    # ------------------------------------------------------------------------------------------------- the same again

    def _again(self, row: Row[Any], institution: Institution, request: ReleaseRequest) -> Release:
        """The same idempotency key: the same release, whatever state it is in."""
        if row.content_digest != self._content_index(request):
            raise IdempotencyConflictError("key: used before for another request", field="request.key")
        release_id: Hex32 = row.release_id
        with self._done:
            self._done.wait_for(lambda: release_id not in self._working, timeout=60)
        row = self._journal.release_row(release_id) or row
        if row.state in (INTENT, RECORDED) and row.writer != self._log.address and not self._recover(row.writer):
            raise ReleaseInProgressError("this request is being answered at this moment: ask again")
        with self._at_work(release_id):
            row = self._journal.release_row(release_id) or row
            if row.state == RELEASED:
                return self._released(self._entry_of(row), self._proof_of(row), row.sealed, late=row.late)
            if row.state in (INTENT, RECORDED):
                return self._resume(row, institution, request)
        raise self._final_error(release_id)

    def _resume(self, row: Row[Any], institution: Institution, request: ReleaseRequest) -> Release:
        """Go on where a crash or an unreachable chain stopped it: from (1), or from (6) if it is on the log."""
        self._log.resolve()
        row = self._journal.release_row(row.release_id) or row
        if row.state == REFUSED:
            raise self._final_error(row.release_id)
        consent = self._consent(request)
        opening = open_json(row, _context(row.release_id), self._keys)
        entry = AccessEntry.from_json(opening["entry"])
        records = tuple(self._vault.load(opening["records"]))
        intent = _Intent(request=request, consent=consent, entry=entry, records=records)
        if row.state == RECORDED:
            landed = Landed(release_id=entry.release_id, reason=Reason.NONE, late=row.late, proof=self._proof_of(row))
        else:
            try:
                self._require_in_force(consent)
            except ConsentError as exc:
                self._journal.move(row.release_id, INTENT, ABORTED, reason=exc.code, finished_at=self._clock())
                raise
            landed = self._append(intent.queued)
        return self._answer(intent, institution, landed)

    def _final_error(self, release_id: Hex32) -> ConsentError:
        """Why a release ended without an answer."""
        row = self._journal.release_row(release_id)
        code = row.reason if row else None
        for kind in ConsentError.__subclasses__():
            if kind.code == code:
                return kind(f"the request was refused: {code}")
        return ReleaseAbortedError("an earlier try under this key ended without a release: use a new key")

    def _entry_of(self, row: Row[Any]) -> AccessEntry:
        return AccessEntry.from_json(open_json(row, _context(row.release_id), self._keys)["entry"])

    def _proof_of(self, row: Row[Any]) -> ChainProof:
        if row.batch_id is None:
            raise ChainLostError("the chain lost this access: run `consent-ledger sync`")
        batch = self._journal.batch_row(row.batch_id)
        return ChainProof(
            chain_id=self._chain.domain.chain_id,
            contract=self._chain.domain.contract,
            custodian=self._custodian,
            writer=batch.writer,
            transaction_hash=batch.transaction_hash,
            block_number=batch.block_number,
            block_hash=batch.block_hash,
            log_index=row.log_index,
            size=batch.size,
            head=batch.head,
        )

    def _at_work(self, release_id: Hex32) -> _AtWork:
        return _AtWork(self._working, self._done, release_id)

    # ------------------------------------------------------------------------------------------------------- afterwards

    def receipt(self, release_id: Hex32) -> str:
        """A receipt with the place where the entry stands now. Raises `NotFoundError`, `ErasedError`."""
        row = self._journal.release_row(release_id)
        if row is None or row.log_index is None:
            raise NotFoundError("release: no such release on the log", field="release")
        claims = receipt_claims(self._entry_of(row), self._proof_of(row), at=self._clock(), late=row.late)
        return sign_claims(claims, self._signing_key, "access-receipt+jwt")

    def opening(self, row: Row[Any]) -> AccessEntry | None:
        """What an entry stands for, for the person's own view of the log; None after erasure."""
        return self._entry_of(row) if row.body is not None else None

    def log_refusals(self, limit: int = 100) -> int:
        """Put refusals of the custodian's own on the log, at leisure. Returns how many."""
        queued = self._journal.unlogged_refusals(limit)
        if queued:
            self._log.append(BatchKind.REFUSALS, queued)
        return len(queued)

    def end_stale(self, *, older_than: int, writers: Sequence[str]) -> int:
        """Abort what no one came back for: every release ends within a bound. Returns how many.

        The caller holds the locks of `writers`, so that no other process is at work on theirs.
        """
        now = self._clock()
        stale = [
            row
            for writer in writers
            for row in self._journal.unfinished(writer)
            if row.created_at < now - older_than and row.release_id not in self._working
        ]
        return sum(
            self._journal.move(row.release_id, row.state, ABORTED, reason="aborted", finished_at=now) for row in stale
        )


class _AtWork:
    """Marks a release as being answered by this process; a second caller waits for the first."""

    def __init__(self, working: set[Hex32], done: threading.Condition, release_id: Hex32) -> None:
        self._working, self._done, self._release_id = working, done, release_id

    def __enter__(self) -> None:
        with self._done:
            self._done.wait_for(lambda: self._release_id not in self._working)
            self._working.add(self._release_id)

    def __exit__(self, *_: object) -> None:
        with self._done:
            self._working.discard(self._release_id)
            self._done.notify_all()


def _entry(request: ReleaseRequest, records_hash: Hex32) -> AccessEntry:
    return AccessEntry(
        consent_id=request.access.consent_id,
        release_id=_new_release_id(),
        institution=request.access.institution,
        purpose=request.access.purpose,
        attributes=request.access.attributes,
        request_hash=request.access.request_hash,
        records_hash=records_hash,
        salt=hex32_of(secrets.token_bytes(32)),
    )


def _new_release_id() -> Hex32:
    """A UUIDv7 and as much chance again: releases of one second stay in order. It is on chain only inside a hash."""
    return Hex32("0x" + new_id().replace("-", "") + secrets.token_hex(16))


def _context(release_id: str) -> dict[str, str]:
    return {"kind": "release", "release": release_id}
