"""Orders: an authority compels an access without a consent. No silent door: the same steps as a release, and a log.

(1) Read the order: authority, attributes, embargo. The same order again => the same entry, never a second one.
(2) Find the envelopes: what is erased or absent is refused before anything is logged.
(3) Write the intent (order, entry, salts) durably, and with it the signed batch that (4) sends.
(4) Append on chain as a compelled access; wait for the finality that the profile asks for.
(5) On the log, and still not erased? Then unwrap, decrypt, seal to the authority's key, store the sealed bytes durably.
(6) Return them with the AccessReceipt, which opens the order too.

Nothing is decrypted before (4) is confirmed. Whoever asks the chain sees that there was an order, how many entries it
has and how long it may be kept from the subject; the subject sees who, what and when as soon as that time is over. A
process that dies between (3) and (6) leaves an intent that `sync` settles: it is then resumed by the same order, or
stays in sight as logged and not handed over.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from joserfc.jwk import ECKey
from sqlalchemy import Row

from ledger.access import COMPELLED, AccessEntry, BatchKind, ChainProof, LoggedAccess, entry_hash_of, records_hash_of
from ledger.attributes import attribute
from ledger.chain import Chain
from ledger.commit import LogWriter
from ledger.compelled import CompelledOrder, NewOrder, check_order, order_hash_of
from ledger.consent import Address, Hex32, hex32_of
from ledger.envelope import ORDER, ORDER_RESUMED, Use
from ledger.errors import (
    AnswerGoneError,
    ErasedError,
    IdempotencyConflictError,
    InstitutionSuspendedError,
    LedgerError,
    NotFoundError,
    ReleaseInProgressError,
    TransactionRevertedError,
)
from ledger.exchange import RECEIPT_TYPE, Party, receipt_claims, seal_answer, sign_claims
from ledger.journal import INTENT, RELEASED, Journal, QueuedAccess, is_on_log, made_at_ms, new_release_id, queued_order
from ledger.locks import FileLock
from ledger.order_book import OpenedOrder, OrderBook
from ledger.registry import Registry
from ledger.store import Store
from ledger.vault import StoredRecord, Vault

LOCK_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutedOrder:
    """The answer, sealed to the authority, and the receipt that proves where its access is logged."""

    order_hash: Hex32
    release_id: Hex32
    sealed: bytes
    receipt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedOrder:
    """An order as the custodian has it on file. Times are Unix seconds; `opened` is None after an erasure."""

    order_hash: Hex32
    release_id: Hex32
    state: str
    embargo_until: int
    created_at: int
    finished_at: int | None
    opened: OpenedOrder | None
    proof: ChainProof | None


class Orders:
    """The only other place, beside `Releases`, where an attribute is decrypted to leave."""

    def __init__(
        self,
        store: Store,
        journal: Journal,
        book: OrderBook,
        registry: Registry,
        vault: Vault,
        chain: Chain,
        log: LogWriter,
        *,
        custodian: Address,
        signing_key: ECKey,
        clock: Callable[[], int],
        lock: Path,
        recover: Callable[[str, int], bool],
        kept_seconds: int,
        step: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._store, self._journal, self._book, self._registry = store, journal, book, registry
        self._vault, self._chain, self._log = vault, chain, log
        self._custodian, self._signing_key, self._clock = custodian, signing_key, clock
        self._lock, self._recover, self._kept_seconds, self._step = lock, recover, kept_seconds, step

    # ------------------------------------------------------------------------------------------------------- the way

    def execute(self, new: NewOrder) -> ExecutedOrder:
        """Log and answer an order; executed again, the same entry and, while it is kept, the same bytes.

        Raises `MalformedError`, `UnknownAttributeError`, `EmbargoTooLongError`, `NotFoundError`, `ErasedError`,
        `AttributeAbsentError`, `InstitutionSuspendedError`, `IdempotencyConflictError` (the reference was used for
        another order), `AnswerGoneError`, `ReleaseInProgressError`, `VaultError`, `ChainError`.
        """
        # One at a time, over all processes: between looking for an order and writing it there must be no other.
        with FileLock(self._lock).hold(timeout=LOCK_SECONDS):
            # (1)
            authority = self._registry.authority(new.authority)
            if authority.suspended:
                raise InstitutionSuspendedError("authority: suspended")
            index, content = self._book.order_index(new.authority, new.reference), self._content_index(new)
            row = before = self._book.find(index)
            if row is None:
                now = self._clock()
                check_order(new, now=now)
                # (2)
                records = self._vault.find(new.subject_id, new.attributes)
                # What is logged can be answered.
                authority.key("enc", now=now)
                # (3) and (4)
                self._log_first(new, index, content, records, at=now)
            elif row.content_digest != content:
                raise IdempotencyConflictError("reference: used before for another order", field="reference")
            else:
                self._take_up(row)
            # (5) and (6)
            return self._answered(self._found(index), authority, ORDER if before is None else ORDER_RESUMED)

    def _content_index(self, new: NewOrder) -> str:
        content = [new.document_hash, new.subject_id, list(new.attributes), new.embargo_until]
        return self._book.content_index(json.dumps(content, separators=(",", ":")))

    def _log_first(self, new: NewOrder, index: str, content: str, records: Sequence[StoredRecord], *, at: int) -> None:
        order = CompelledOrder(
            authority=new.authority,
            reference=new.reference,
            document_hash=new.document_hash,
            subject=new.subject_id,
            attributes=new.attributes,
            embargo_until=new.embargo_until,
            salt=_salt(),
        )
        entry = AccessEntry(
            consent_id=order_hash_of(order),
            release_id=new_release_id(),
            institution=new.authority,
            purpose=COMPELLED,
            attributes=new.attributes,
            request_hash=new.document_hash,
            records_hash=records_hash_of(record.envelope.digest() for record in records),
            salt=_salt(),
        )
        entry_hash = entry_hash_of(entry)
        columns = {
            "order_hash": entry.consent_id,
            "order_index": index,
            "content_digest": content,
            "authority_index": self._registry.institution_index(new.authority),
            "subject_id": new.subject_id,
            "release_id": entry.release_id,
            "entry_hash": entry_hash,
            "embargo_until": new.embargo_until,
            "created_at": at,
        }
        opened = OpenedOrder(order=order, entry=entry, records=tuple(record.record_id for record in records))
        access = LoggedAccess(consent_id=entry.consent_id, entry_hash=entry_hash)
        queued = QueuedAccess(release_id=entry.release_id, access=access)
        self._step("order before intent")
        with self._log.turn():
            # Unreachable: nothing is on file.
            self._log.statuses([])
            with self._store.begin() as tx:
                if not self._vault.is_living(tx, new.subject_id):
                    raise ErasedError("subject: erased", field="subject")
                batch_id = self._log.put(
                    tx, BatchKind.COMPELLED_ACCESSES, [queued.access], embargo_until=new.embargo_until
                )
                self._book.add(tx, opened, columns | {"writer": self._log.address, "batch_id": batch_id})
            self._step("order durable")
            self._log.land([queued])
            self._log.settle_alone()
        self._step("order logged")

    def _take_up(self, row: Row[Any]) -> None:
        """The same order again: whatever a crash or a lost reply left open is on the log after this."""
        if row.body is None:
            raise ErasedError("the data were erased")
        if row.state != INTENT:
            return
        if row.writer != self._log.address and not self._recover(row.writer, made_at_ms(row.release_id)):
            raise ReleaseInProgressError("this order is being executed at this moment: ask again")
        self._log.resolve()
        row = self._found(row.order_index)
        if row.state == INTENT:
            self._log_again(row)

    def _log_again(self, row: Row[Any]) -> None:
        """Put an order that is on no batch on the log, the same entry under the same embargo."""
        queued = queued_order(row)
        with self._log.turn():
            self._log.statuses([])
            with self._store.begin() as tx:
                batch_id = self._log.put(
                    tx, BatchKind.COMPELLED_ACCESSES, [queued.access], embargo_until=row.embargo_until
                )
                self._book.put_in_batch(tx, row.order_hash, batch_id, writer=self._log.address)
            self._log.land([queued])
            self._log.settle_alone()

    def _answered(self, row: Row[Any], authority: Party, use: str) -> ExecutedOrder:
        """(5) and (6), for an order that is on the log."""
        opened = self._book.opened(row)
        sealed = row.sealed
        if row.state == RELEASED and sealed is None:
            raise AnswerGoneError(
                "the answer was kept for a while and is gone: it takes a new order", field="reference"
            )
        proof = self._proof_of(row)
        if sealed is None:
            self._log.require_on_chain(proof)
            records = self._vault.load(opened.records)
            self._step("order before decrypting")
            sealed = self._sealed(opened, records, proof, authority, Use(use, opened.entry.release_id))
            self._step("order before answer durable")
            with self._store.begin() as tx:
                if not self._book.answer(tx, row.order_hash, sealed, at=self._clock()):
                    raise ErasedError("the data were erased meanwhile: nothing was handed over")
            self._step("order answer durable")
        return ExecutedOrder(
            order_hash=row.order_hash,
            release_id=row.release_id,
            sealed=sealed,
            receipt=self._receipt(opened, row.entry_hash, proof),
        )

    def _sealed(
        self, opened: OpenedOrder, records: Sequence[StoredRecord], proof: ChainProof, authority: Party, use: Use
    ) -> bytes:
        """Decrypt and seal. Everything that must come before this has been done."""
        now = self._clock()
        with self._vault.counting({use: records}):
            held = {record.attribute: (record, self._vault.open(record, use)) for record in records}
        claims = {
            "version": 1,
            "iss": self._custodian,
            "aud": authority.party_id,
            "iat": now,
            "jti": opened.entry.release_id,
            "order": opened.order.as_json(),
            "purpose": COMPELLED,
            "values": {
                name: {
                    "value": one.value,
                    "unit": attribute(name).unit,
                    "source": one.source,
                    "asOf": one.as_of,
                    "disputed": record.disputed,
                }
                for name, (record, one) in held.items()
            },
            "entryHash": entry_hash_of(opened.entry),
            "proof": proof.as_json(),
        }
        return seal_answer(claims, self._signing_key, authority.key("enc", now=now))

    # ------------------------------------------------------------------------------------------------------- afterwards

    def receipt(self, order_hash: Hex32, *, subject_id: str | None = None) -> str:
        """A receipt with the order's opening and the place where its entry stands now; for its subject if given.

        Raises `NotFoundError` (also if it is another's, or not to be known yet), `ErasedError`, `ChainLostError`.
        """
        with self._store.read() as tx:
            if subject_id is None:
                row = self._book.row(tx, order_hash)
            else:
                visible = self._book.visible(tx, subject_id, now=self._clock())
                row = next((one for one in visible if one.order_hash == order_hash), None)
        if row is None or row.log_index is None:
            raise NotFoundError("order: no such order on the log", field="order")
        return self._receipt(self._book.opened(row), row.entry_hash, self._proof_of(row))

    def listed(self) -> list[ListedOrder]:
        """Every order, newest first."""
        return [self._listed(row) for row in self._book.listed()]

    def one(self, order_hash: Hex32) -> ListedOrder:
        """Raises `NotFoundError`."""
        with self._store.read() as tx:
            row = self._book.row(tx, order_hash)
        if row is None:
            raise NotFoundError("order: no such order", field="order")
        return self._listed(row)

    def replay(self, refused: Callable[[LedgerError], None]) -> int:
        """Put back what the chain lost, as compelled as it was; `refused` is told of each that it does not take now.

        Returns how many are back. Raises `ChainError`.
        """
        back = 0
        for row in self._book.unanchored():
            try:
                self._log_again(row)
            except TransactionRevertedError as exc:
                refused(exc)
            else:
                back += 1
        return back

    def forget_answers(self) -> int:
        """Destroy the sealed bytes that were kept long enough. Returns how many."""
        return self._book.forget_answers(self._clock() - self._kept_seconds)

    def _listed(self, row: Row[Any]) -> ListedOrder:
        return ListedOrder(
            order_hash=row.order_hash,
            release_id=row.release_id,
            state=row.state,
            embargo_until=row.embargo_until,
            created_at=row.created_at,
            finished_at=row.finished_at,
            opened=self._book.opened(row) if row.body is not None else None,
            proof=self._proof_of(row) if is_on_log(row) else None,
        )

    def _receipt(self, opened: OpenedOrder, entry_hash: Hex32, proof: ChainProof) -> str:
        claims = receipt_claims(opened.entry, entry_hash, proof, at=self._clock())
        return sign_claims(claims | {"order": opened.order.as_json()}, self._signing_key, RECEIPT_TYPE)

    def _proof_of(self, row: Row[Any]) -> ChainProof:
        return self._journal.proof_of(row, self._chain.domain, self._custodian)

    def _found(self, index: str) -> Row[Any]:
        row = self._book.find(index)
        assert row is not None, "an order is never deleted"
        return row


def _salt() -> Hex32:
    return hex32_of(secrets.token_bytes(32))
