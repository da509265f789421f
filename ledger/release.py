"""Release: the way of one request, from the institution's signature to the sealed answer. Read it top to bottom.

(0) Authenticate the institution's signed request; same idempotency key => same release.
(1) Load the opening; ask the contract for the status at the latest block.      unreachable => deny
(2) Authorize (pure): institution, purpose, attributes within the terms, per-day limit, not disputed or erased.
(3) Find the envelopes, so that "absent" is known before anything is logged.
(4) Write the intent (release id, entry, salt) durably, and with it the signed batch that (5) sends.
(5) Append on chain with everyone else who is waiting (group commit); wait for the finality that the profile asks for.
(6) Recorded? Ask once more whether it still is, and for a revocation; then unwrap, decrypt under the encryption
    context, seal to the institution's key, store the sealed bytes durably; that the access has landed goes on file with
    them, unless the same transaction finds a revocation, a suspension, a dispute or a correction on file.
(7) Return them with the AccessReceipt (a separate signed proof without the values). Refused? Say so, with the reason.

Nothing is decrypted before (5) is confirmed. The only half state is "logged, not released"; it is resumed by a retry or
ends as aborted. A process that dies between (5) and the end of (6) leaves a batch in flight on file, and whoever takes
it up finds out from the chain that it landed (`commit.py`). What the custodian refuses by itself is put on file to be
logged too, so that the person sees who tried.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from joserfc.jwk import ECKey
from sqlalchemy import Connection, Row

from ledger.access import (
    AccessEntry,
    BatchKind,
    ChainProof,
)
from ledger.access_records import AccessRecords
from ledger.attributes import ACCESS_OPENINGS, attribute
from ledger.authentication import Authentication, Caller, Signed
from ledger.chain import Chain
from ledger.commit import MAX_BATCH, Landed, LogWriter
from ledger.consent import (
    Address,
    Hex32,
    Reason,
    require_in_force,
)
from ledger.envelope import RELEASE, RELEASE_RESUMED, Use
from ledger.errors import (
    AnswerGoneError,
    ChainError,
    ChainLostError,
    ChainUnavailableError,
    ConsentError,
    ConsentPausedError,
    ConsentRevokedError,
    DisputedError,
    ErasedError,
    IdempotencyConflictError,
    InstitutionSuspendedError,
    LedgerError,
    NotFoundError,
    PartyChangedError,
    ReleaseAbortedError,
    ReleaseInProgressError,
)
from ledger.exchange import (
    RECEIPT_TYPE,
    Party,
    ReleaseRequest,
    read_release,
    receipt_claims,
    resigned_claims,
    seal_answer,
    sign_claims,
    signature_of,
)
from ledger.gather import Gather
from ledger.journal import ABORTED, INTENT, RECORDED, REFUSED, RELEASED, Answer, Journal, made_at_ms
from ledger.json_forms import DAY_SECONDS
from ledger.keys import KeyFile
from ledger.parties import INSTITUTION
from ledger.preparation import Asked, Earlier, Intent, Preparation, entry_of, opening_context, require_usable
from ledger.purposes import AUDIT
from ledger.registry import Registry, StoredConsent
from ledger.signatures import IDEMPOTENCY_KEY, HttpRequest
from ledger.store import Store
from ledger.vault import Vault, open_json

KEPT_SECONDS: Final = DAY_SECONDS
"""How long the sealed bytes are kept, to be given again to a retry."""
OTHER_PROCESS_SECONDS: Final = 20.0
POLL_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """The sealed answer, and the receipt that proves where its access is logged."""

    release_id: Hex32
    sealed: bytes
    receipt: str
    late: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Done:
    """What became of one asked release in its round."""

    caller: Caller
    outcome: Release | Earlier | Exception


class Releases:
    """The only place where an attribute is decrypted to leave."""

    def __init__(
        self,
        store: Store,
        journal: Journal,
        registry: Registry,
        vault: Vault,
        access_records: AccessRecords,
        keys: KeyFile,
        chain: Chain,
        log: LogWriter,
        authentication: Authentication,
        *,
        custodian: Address,
        signing_key: ECKey,
        clock: Callable[[], int],
        recover: Callable[[str, int], bool],
        disclose: Callable[[Sequence[str], int], Mapping[str, Any]],
        max_batch: int = MAX_BATCH,
        step: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._store, self._journal, self._registry, self._vault = store, journal, registry, vault
        self._keys, self._chain, self._log, self._authentication = keys, chain, log, authentication
        self._custodian, self._signing_key, self._clock = custodian, signing_key, clock
        self._recover, self._disclose, self._step = recover, disclose, step
        self._access_records = access_records
        self._working: set[Hex32] = set()
        # What asks for more than one round holds is let in by the first. Kept together, so that no id is used anew.
        self._let_in: dict[int, tuple[Signed, Caller]] = {}
        self._done = threading.Condition()
        self._rounds: Gather[Asked, _Done] = Gather(self._round, limit=max_batch)
        self.near = self._rounds.near
        """Around a request for releases and its answer: see `gather.py`."""

    # ------------------------------------------------------------------------------------------------------- the way

    def release(self, message: HttpRequest) -> Release:
        """Answer a signed `POST /v1/consents/{id}/releases`.

        Raises `AuthenticationError`, `MalformedError`, `NotFoundError`, `ConsentError` (the exact reason),
        `ConflictError`, `AttributeAbsentError`, `VaultError`, `ChainError`.
        """
        signed = self._authentication.verify(message)
        _, (result,) = self.answer([read_release(message, signed.evidence, signed.party.party_id)], signed)
        if isinstance(result, Exception):
            raise result
        return result

    def answer(self, requests: Sequence[ReleaseRequest], signed: Signed) -> tuple[Caller, list[Release | Exception]]:
        """Answer all that one signed request asks for, together with everyone else who asks at this moment.

        What one of them is refused for stands in its place. Raises what refuses the signed request as a whole:
        `AuthenticationError`, `RateLimitedError`, `InstitutionSuspendedError`.
        """
        done = self._in_rounds(requests, signed)
        if any(isinstance(one, PartyChangedError) for one in done):
            done = self._in_rounds(requests, self._authentication.verify_again(signed))
        results: list[Release | Exception] = []
        caller: Caller | None = None
        for one, request in zip(done, requests, strict=True):
            if isinstance(one, Exception):
                raise one
            caller = one.caller
            results.append(self._unless_there_was_one(one.outcome, request, caller))
        assert caller is not None, "a signed request asks for something"
        return caller, results

    def _in_rounds(self, requests: Sequence[ReleaseRequest], signed: Signed) -> list[_Done | Exception]:
        try:
            return self._rounds.all([self._asked(request, signed) for request in requests])
        finally:
            self._let_in.pop(id(signed), None)

    def _round(self, asked: Sequence[Asked]) -> list[_Done | Exception]:
        """(0) to (7) for everyone who waits. It does not raise for one of them only."""
        intents: list[Intent] = []
        try:
            with self._log.turn():
                # (0) to (4)
                callers, prepared = self._prepare_all(asked)
                intents = [one for one in prepared if isinstance(one, Intent)]
                # (5)
                landed = self._append_all(intents)
                # (6) and (7)
                finished = iter(self._finish_all(intents, landed))
        finally:
            self._no_longer_at_work([intent.entry.release_id for intent in intents])
        outcomes = [next(finished) if isinstance(one, Intent) else one for one in prepared]
        return [
            _Done(caller=caller, outcome=outcome) if isinstance(caller, Caller) else caller
            for caller, outcome in zip(callers, outcomes, strict=True)
        ]

    def _unless_there_was_one(
        self, outcome: Release | Earlier | Exception, request: ReleaseRequest, caller: Caller
    ) -> Release | Exception:
        """The outcome of a first try; or the same again, if this was none."""
        earlier = outcome if isinstance(outcome, Earlier) else None
        if isinstance(outcome, ConsentError):
            # Its twin in another process may have come first, and have used up what this one was refused for.
            index = self._idempotency_index(request)
            with self._store.read() as tx:
                twin = self._journal.find_releases(tx, [index]).get(index)
            if twin is not None and twin[1] not in (REFUSED, ABORTED):
                earlier = Earlier(release_id=twin[0])
        if earlier is None:
            return outcome  # type: ignore[return-value] # no Earlier
        try:
            with self._rounds.aside():
                return self._again(earlier.release_id, request, caller.party)
        except Exception as exc:  # noqa: BLE001 - it stands in its place
            return exc

    # -------------------------------------------------------------------------------------------------- (0) to (4)

    def _asked(self, request: ReleaseRequest, signed: Signed) -> Asked:
        return Asked(
            request=request,
            signed=signed,
            index=self._idempotency_index(request),
            content=self._content_index(request),
        )

    def _idempotency_index(self, request: ReleaseRequest) -> str:
        return self._keys.index("idempotency", f"{request.access.institution}\n{request.idempotency_key}")

    def _content_index(self, request: ReleaseRequest) -> str:
        # Keyed: so few things can be asked for that a bare hash would tell which.
        return self._keys.index("content", request.content_digest())

    def _prepare_all(
        self, asked: Sequence[Asked]
    ) -> tuple[list[Caller | Exception], list[Intent | Earlier | Exception]]:
        """(0) to (4) for everyone who waits: one question to the chain, one transaction.

        The batch of (5) is signed and put on file with the intents.
        """
        consent_ids = list({one.request.access.consent_id for one in asked})
        # (1) Unreachable: no one gets anything new.
        reasons: dict[Hex32, Reason] | ChainError
        try:
            reasons = dict(zip(consent_ids, self._log.statuses(consent_ids), strict=True))
        except ChainError as exc:
            reasons = exc
        self._step("4 before intent")
        with self._store.begin() as tx:
            callers = self._admitted(tx, asked)
            preparation = Preparation(
                tx,
                asked,
                reasons,
                self._journal,
                self._registry,
                self._vault,
                self._access_records,
                self._keys,
                writer=self._log.address,
                now=self._clock(),
            )
            results = preparation.run(asked, callers)
            intents = [one for one in results if isinstance(one, Intent)]
            batch_id = None
            if intents:
                batch_id = self._log.put(tx, BatchKind.ACCESSES, [intent.queued.access for intent in intents])
            preparation.put_on_file(batch_id)
            # Before anyone else can see them.
            with self._done:
                self._working.update(intent.entry.release_id for intent in intents)
        for one, caller in zip(asked, callers, strict=True):
            if isinstance(caller, Caller):
                self._let_in[id(one.signed)] = (one.signed, caller)
        self._step("4 intent durable")
        return callers, results

    def _admitted(self, tx: Connection, asked: Sequence[Asked]) -> list[Caller | Exception]:
        """Everyone's caller, or why the request is not let in: each signed request once, however much it asks for."""
        signed = {id(one.signed): one.signed for one in asked}
        before = {key: found[1] for key in signed if (found := self._let_in.get(key))}
        new = [key for key in signed if key not in before]
        admitted = dict(zip(new, self._authentication.admit(tx, [signed[key] for key in new]), strict=True))
        return [(before.get(id(one.signed)) or admitted[id(one.signed)]) for one in asked]

    def _append_all(self, intents: Sequence[Intent]) -> list[Landed | Exception]:
        """(5) for every intent of the round, in one batch."""
        if not intents:
            return []
        try:
            landed = self._log.land([intent.queued for intent in intents])
        except LedgerError as exc:
            return [exc] * len(intents)
        self._step("5 logged")
        return list(landed)

    # ---------------------------------------------------------------------------------------------------- (6) and (7)

    def _finish_all(self, intents: Sequence[Intent], landed: Sequence[Landed | Exception]) -> list[Release | Exception]:
        """(6) and (7) for everyone whose access has landed in this turn."""
        try:
            return self._finished(intents, landed, in_turn=True)
        except LedgerError as exc:
            # The chain or the store, so it is everyone's: a retry goes on from (6).
            with suppress(LedgerError):
                self._log.settle_alone()
            return [one if isinstance(one, Exception) else exc for one in landed]

    def _finished(
        self, intents: Sequence[Intent], landed: Sequence[Landed | Exception], *, in_turn: bool
    ) -> list[Release | Exception]:
        """`in_turn`: what has landed is not on file yet, and goes there in the transaction of the answers."""
        results: list[Release | Exception | None] = [
            one if isinstance(one, Exception) else _refusal(one.reason) for one in landed
        ]
        items = {place: (intents[place], one) for place, one in enumerate(landed) if isinstance(one, Landed)}
        # (6) A revocation that is visible by now stops it, whoever sent it to the chain.
        logged = [place for place, result in enumerate(results) if result is None]
        for place, stopped in zip(logged, self._stopped([items[place] for place in logged]), strict=True):
            results[place] = stopped
        self._step("6 before decrypting")
        # One time for the receipt and for the file: from that, a retry makes the same receipt.
        now = self._clock()
        answers: dict[int, Answer] = {}
        kind = RELEASE if in_turn else RELEASE_RESUMED
        uses = {place: Use(kind, items[place][0].entry.release_id) for place in logged if results[place] is None}
        with self._vault.counting({use: items[place][0].records for place, use in uses.items()}):
            self._step("6 unwraps counted")
            for place, use in uses.items():
                try:
                    answers[place], results[place] = self._sealed(*items[place], use, now=now)
                except LedgerError as exc:
                    results[place] = exc
        self._step("6 before answer durable")
        if items:
            mine = {place: items[place][0] for place in logged}
            stopped_late = self._put_on_file(mine, answers, results, in_turn=in_turn, now=now)
            results = [stopped_late.get(place, result) for place, result in enumerate(results)]
        self._step("6 answer durable")
        # (7)
        return results  # type: ignore[return-value] # every place has its own by now

    def _stopped(self, items: Sequence[tuple[Intent, Landed]]) -> list[Exception | None]:
        """Why each may not be answered after all: off the chain again, revoked, paused or erased meanwhile."""
        if not items:
            return []
        consent_ids = list({intent.entry.consent_id for intent, _ in items})
        # Of one batch, so all in one block.
        logged_in = items[0][1].proof
        verdicts, block_hash = self._chain.statuses_after(logged_in.block_number, consent_ids, self._custodian)
        if block_hash is None:
            # Its node is behind, or its chain became shorter: which of them only time tells.
            unknown = "the endpoint does not know the block of this access: ask again"
            return [ChainUnavailableError(unknown) for _ in items]
        if block_hash != logged_in.block_hash:
            return [ChainLostError("the chain lost this access: run `consent-ledger sync`") for _ in items]
        reasons = dict(zip(consent_ids, verdicts, strict=True))
        with self._store.read() as tx:
            withdrawals = self._registry.withdrawals(tx, consent_ids)
        stopped: list[Exception | None] = []
        for intent, landed in items:
            consent_id = intent.entry.consent_id
            withdrawal = withdrawals[consent_id] or _withdrawn_on_chain(reasons[consent_id])
            if withdrawal is None and landed.late:
                withdrawal = ReleaseAbortedError("back on the log only after the consent had ended: nothing released")
            stopped.append(withdrawal)
        return stopped

    def _put_on_file(
        self,
        intents: Mapping[int, Intent],
        answers: Mapping[int, Answer],
        results: Sequence[Release | Exception | None],
        *,
        in_turn: bool,
        now: int,
    ) -> dict[int, Exception]:
        """Make what has landed, the sealed bytes and what was stopped durable. Returns who is stopped only here.

        The same transaction asks once more: what is on file before the answer stops it.
        """
        ended = {place: end for place in intents if isinstance(end := results[place], ConsentError)}
        late: dict[int, Exception] = {}
        with self._store.begin() as tx:
            open_ones = self._journal.still_open(tx, [answer.release_id for answer in answers.values()])
            stopped = self._stopped_by_now(tx, {place: intents[place] for place in answers})
            for place, answer in answers.items():
                if place in stopped:
                    late[place] = ended[place] = stopped[place]
                elif answer.release_id not in open_ones:
                    # Taken up by another process, between the check and here.
                    late[place] = self._final_error_of(self._journal.release_in(tx, answer.release_id))
            stored = [answer for place, answer in answers.items() if place not in late]
            if in_turn:
                self._log.settle(tx, answered={answer.entry_hash for answer in stored})
            self._journal.store_answers(tx, stored, at=now)
            for place, end in ended.items():
                self._journal.move_in(
                    tx, intents[place].entry.release_id, RECORDED, ABORTED, reason=end.code, finished_at=now
                )
        if in_turn:
            self._log.settled()
        return late

    def _stopped_by_now(self, tx: Connection, intents: Mapping[int, Intent]) -> dict[int, ConsentError]:
        """Who may not be answered and why: revoked, paused, erased, suspended, disputed or corrected by now."""
        entries = [intent.entry for intent in intents.values()]
        withdrawals = self._registry.withdrawals(tx, list({entry.consent_id for entry in entries}))
        parties = self._registry.parties(tx, INSTITUTION, list({entry.institution for entry in entries}))
        records = [record.record_id for intent in intents.values() for record in intent.records]
        overtaken = self._vault.overtaken(tx, records)
        stopped: dict[int, ConsentError] = {}
        for place, intent in intents.items():
            disputes = [overtaken[one.record_id] for one in intent.records if one.record_id in overtaken]
            if withdrawal := withdrawals[intent.entry.consent_id]:
                stopped[place] = withdrawal
            elif (party := parties.get(intent.entry.institution)) is None or party.suspended:
                stopped[place] = InstitutionSuspendedError("the institution is suspended", field="institution")
            elif any(disputes):
                stopped[place] = DisputedError("disputed after it was logged: nothing was released", field="attributes")
            elif disputes:
                # The entry is of the old value, so the new one is another access.
                stopped[place] = ReleaseAbortedError("a value was corrected meanwhile: ask again under a new key")
        return stopped

    def _sealed(self, intent: Intent, landed: Landed, use: Use, *, now: int) -> tuple[Answer, Release]:
        """Decrypt and seal. Everything that must come before this has been done."""
        entry = intent.entry
        claims = {
            "version": 1,
            "iss": self._custodian,
            "aud": entry.institution,
            "iat": now,
            "jti": entry.release_id,
            "consent": entry.consent_id,
            "purpose": entry.purpose,
            "values": self._access_openings(intent, now) if entry.purpose == AUDIT else self._values(intent, use),
            "eraseBy": now + intent.grant.terms.retention_days * DAY_SECONDS,
            "entryHash": intent.entry_hash,
            "proof": landed.proof.as_json(),
        }
        sealed = seal_answer(claims, self._signing_key, intent.institution.key("enc", now=now))
        receipt = sign_claims(
            receipt_claims(entry, intent.entry_hash, landed.proof, at=now, late=landed.late),
            self._signing_key,
            RECEIPT_TYPE,
        )
        return (
            Answer(
                release_id=entry.release_id,
                entry_hash=intent.entry_hash,
                sealed=sealed,
                receipt_signature=signature_of(receipt),
                log_index=landed.proof.log_index,
                late=landed.late,
            ),
            Release(release_id=entry.release_id, sealed=sealed, receipt=receipt, late=landed.late),
        )

    def _values(self, intent: Intent, use: Use) -> dict[str, Any]:
        values = {record.attribute: self._vault.open(record, use) for record in intent.records}
        return {
            name: {"value": held.value, "unit": attribute(name).unit, "source": held.source, "asOf": held.as_of}
            for name, held in values.items()
        }

    def _access_openings(self, intent: Intent, now: int) -> dict[str, Any]:
        """The person's own access records, opened for an auditor: a disclosure (`disclosure.py`), as JSON in a text."""
        document = self._disclose([record.record_id for record in intent.records], now)
        as_of = datetime.fromtimestamp(now, UTC).date().isoformat()
        held = {"value": json.dumps(document, ensure_ascii=False), "unit": None, "source": self._custodian}
        return {ACCESS_OPENINGS: held | {"asOf": as_of}}

    # ------------------------------------------------------------------------------------------------- the same again

    def _again(self, release_id: Hex32, request: ReleaseRequest, institution: Party) -> Release:
        """The same idempotency key: the same release, whatever state it is in."""
        with self._done:
            self._done.wait_for(lambda: release_id not in self._working, timeout=60)
        row = self._row(release_id)
        if row.content_digest != self._content_index(request):
            raise IdempotencyConflictError("idempotency-key: used before for another request", field="idempotency-key")
        self._await_other_process(row)
        with _AtWork(self._working, self._done, release_id):
            row = self._row(release_id)
            if row.state == RELEASED:
                return self._released_before(row)
            if row.state in (INTENT, RECORDED):
                return self._resume(row, institution)
        raise self._final_error(release_id)

    def _await_other_process(self, row: Row[Any]) -> None:
        """Wait until no living process is at work on it. Raises `ReleaseInProgressError` after a while."""
        deadline = time.monotonic() + OTHER_PROCESS_SECONDS
        made_at = made_at_ms(row.release_id)
        while (
            row.state in (INTENT, RECORDED)
            and row.writer != self._log.address
            and not self._recover(row.writer, made_at)
        ):
            if time.monotonic() >= deadline:
                raise ReleaseInProgressError("this request is being answered at this moment: ask again")
            time.sleep(POLL_SECONDS)
            row = self._row(row.release_id)

    def _resume(self, row: Row[Any], institution: Party) -> Release:
        """Go on where a crash or an unreachable chain stopped it: from (1), or from (6) if the chain still has it."""
        self._log.resolve()
        row = self._row(row.release_id)
        if row.state == REFUSED:
            raise self._final_error(row.release_id)
        consent = self._registry.consent(row.consent_id)
        opening = open_json(row, opening_context(row.release_id), self._keys)
        entry = AccessEntry.from_json(opening["entry"])
        records = tuple(self._access_records.load(opening["records"]))
        intent = Intent(
            institution=institution, grant=consent.grant, entry=entry, entry_hash=row.entry_hash, records=records
        )
        if row.state == RECORDED:
            landed = Landed(release_id=entry.release_id, reason=Reason.NONE, late=row.late, proof=self._proof_of(row))
        else:
            (reason,) = self._chain.statuses([consent.consent_id], self._custodian)
            with self._store.read() as tx:
                withdrawal = self._registry.withdrawals(tx, [consent.consent_id])[consent.consent_id]
            try:
                require_usable(consent, withdrawal, reason, now=self._clock())
            except ConsentError as exc:
                self._journal.move(row.release_id, INTENT, ABORTED, reason=exc.code, finished_at=self._clock())
                raise
            (landed,) = self._log.append(BatchKind.ACCESSES, [intent.queued])
        (result,) = self._finished([intent], [landed], in_turn=False)
        if isinstance(result, ReleaseAbortedError) and (now := self._row(row.release_id)).state == RELEASED:
            # Another process took it up as well and came first: its bytes are the answer.
            return self._released_before(now)
        if isinstance(result, Exception):
            raise result
        return result

    def found(self, release_id: Hex32, institution: Party) -> Release:
        """An earlier release of this institution: the identical bytes, while they are kept.

        Raises `NotFoundError`, `AnswerGoneError`, `ReleaseInProgressError`, `ConsentError` (why there was none).
        """
        row = self.row_of(release_id, institution)
        if row.state == RELEASED:
            return self._released_before(row, field="release")
        if row.state in (INTENT, RECORDED):
            raise ReleaseInProgressError("not answered yet: ask again under its idempotency key")
        raise self._final_error(release_id)

    def of_consent(
        self, consent: StoredConsent, institution: Party, *, limit: int, after: Hex32 | None = None
    ) -> list[Row[Any]]:
        """A page of the journal's rows of what this institution asked for under a consent, newest first.

        Raises `NotFoundError` if `after` is none of them.
        """
        index = self._registry.institution_index(institution.party_id)
        with self._store.read() as tx:
            last = self._journal.release_in(tx, after) if after is not None else None
            mine = last is not None and (last.consent_id, last.institution_index) == (consent.consent_id, index)
            if after is not None and not mine:
                raise NotFoundError("after: expected the id of a release", field="after")
            return self._journal.of_subject(
                tx,
                consent.subject_id,
                limit=limit,
                after=last,
                institution_index=index,
                consent_id=consent.consent_id,
            )

    def row_of(self, release_id: Hex32, institution: Party) -> Row[Any]:
        """The journal's row of a release of this institution. Raises `NotFoundError`."""
        row = self._journal.release_row(release_id)
        if row is None or row.institution_index != self._registry.institution_index(institution.party_id):
            raise NotFoundError("release: no such release", field="release")
        return row

    def _released_before(self, row: Row[Any], *, field: str = IDEMPOTENCY_KEY) -> Release:
        if row.body is None:
            raise ErasedError("the data were erased")
        if row.sealed is None or self._clock() >= row.finished_at + KEPT_SECONDS:
            raise AnswerGoneError(
                f"the answer was kept for {KEPT_SECONDS // 3600} hours: ask again under a new idempotency key",
                field=field,
            )
        claims = receipt_claims(
            self._entry_of(row), row.entry_hash, self._proof_of(row), at=row.finished_at, late=row.late
        )
        receipt = resigned_claims(claims, self._signing_key, RECEIPT_TYPE, row.receipt_signature)
        return Release(release_id=row.release_id, sealed=row.sealed, receipt=receipt, late=row.late)

    def _final_error(self, release_id: Hex32) -> ConsentError:
        """Why a release ended without an answer."""
        return self._final_error_of(self._journal.release_row(release_id))

    def _final_error_of(self, row: Row[Any] | None) -> ConsentError:
        code = row.reason if row else None
        for kind in ConsentError.__subclasses__():
            if kind.code == code:
                return kind(f"the request was refused: {code}")
        return ReleaseAbortedError("an earlier try under this key ended without a release: use a new key")

    def _entry_of(self, row: Row[Any]) -> AccessEntry:
        return entry_of(row, self._keys)

    def _proof_of(self, row: Row[Any]) -> ChainProof:
        return self._journal.proof_of(row, self._chain.domain, self._custodian)

    def _row(self, release_id: Hex32) -> Row[Any]:
        row = self._journal.release_row(release_id)
        if row is None:
            raise NotFoundError("release: no such release", field="release")
        return row

    def _no_longer_at_work(self, release_ids: Sequence[Hex32]) -> None:
        if release_ids:
            with self._done:
                self._working.difference_update(release_ids)
                self._done.notify_all()

    # ------------------------------------------------------------------------------------------------------- afterwards

    def receipt(self, release_id: Hex32) -> str:
        """A receipt with the place where the entry stands now.

        Raises `NotFoundError`, `ErasedError`, and the refusal of one that was refused: no access is to be proven.
        """
        row = self._row(release_id)
        if row.state == REFUSED:
            raise self._final_error_of(row)
        if row.log_index is None:
            raise NotFoundError("release: no such release on the log", field="release")
        claims = receipt_claims(
            self._entry_of(row), row.entry_hash, self._proof_of(row), at=self._clock(), late=row.late
        )
        return sign_claims(claims, self._signing_key, RECEIPT_TYPE)

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


def _refusal(reason: Reason) -> Exception | None:
    try:
        require_in_force(reason)
    except ConsentError as refusal:
        return refusal
    return None


def _withdrawn_on_chain(reason: Reason) -> ConsentError | None:
    if reason is Reason.REVOKED:
        return ConsentRevokedError("revoked after it was logged: nothing was released")
    if reason is Reason.PAUSED:
        return ConsentPausedError("paused after it was logged: nothing was released")
    return None


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
