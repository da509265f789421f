"""Disclosing: makes the document by which an auditor can read entries of the log, from what is kept sealed of each.

It opens what names people and what was asked about them, and no value of an attribute: that is no access, and nothing
goes on the log for it. Whoever is handed the document learns whom it is about, so it needs a legal basis of its own.
What is not on chain is not in it, and what was erased cannot be: both are counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from joserfc.jwk import ECKey
from sqlalchemy import Row

from ledger.access import AccessEntry
from ledger.access_records import AccessRecords, ids_in
from ledger.consent import Address, Domain, Hex32
from ledger.disclosure import (
    DisclosedConsent,
    DisclosedEntry,
    DisclosedOutcome,
    Disclosure,
    EntryPlace,
)
from ledger.envelope import DISCLOSURE
from ledger.errors import ErasedError, NotFoundError
from ledger.exchange import RECEIPT_TYPE, receipt_claims, sign_claims
from ledger.journal import REFUSED, Journal, is_on_log
from ledger.keys import KeyFile
from ledger.order_book import OpenedOrder, OrderBook
from ledger.parties import INSTITUTION
from ledger.preparation import opening_context
from ledger.proof import Proofs
from ledger.registry import Registry
from ledger.signatures import JWK, SignedRequest, split_keyid
from ledger.store import Store
from ledger.vault import open_json
from ledger.verifying_keys import verifying_key

PAGE: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeDisclosure:
    """The document, how many releases are not in it because they are not on chain, and keys that are on file no more.

    `missing_keys` are ids as requests name them (`<party>#<kid>`): the auditor needs them from the parties.
    """

    disclosure: Disclosure
    not_on_chain: int
    missing_keys: tuple[str, ...]


class Disclosing:
    """Makes the documents. With `proofs` each recorded entry gets a bundle, so that no chain is needed to check it."""

    def __init__(
        self,
        store: Store,
        journal: Journal,
        registry: Registry,
        records: AccessRecords,
        book: OrderBook,
        proofs: Proofs,
        keys: KeyFile,
        domain: Domain,
        *,
        custodian: Address,
        signing_key: ECKey,
    ) -> None:
        self._store, self._journal, self._registry, self._records = store, journal, registry, records
        self._book, self._proofs, self._keys, self._domain = book, proofs, keys, domain
        self._custodian, self._signing_key = custodian, signing_key

    def of_release(self, release_id: Hex32, *, at: int, proofs: bool = False) -> MadeDisclosure:
        """One entry. Raises `NotFoundError`, `ErasedError`, `VaultError`, with `proofs` also `ChainError`."""
        row = self._journal.release_row(release_id)
        if row is None:
            raise NotFoundError("release: no such release", field="release")
        if row.subject_id is None:
            raise ErasedError("the data were erased")
        with self._store.read() as tx:
            found = self._journal.one_of_subject(tx, row.subject_id, release_id)
        return self._made([found] if found is not None else [], [row.consent_id], at=at, proofs=proofs)

    def of_consent(self, consent_id: Hex32, *, at: int, proofs: bool = False) -> MadeDisclosure:
        """Every entry under a consent. Raises as `of_release`."""
        consent = self._registry.consent(consent_id)
        rows = self._rows(consent.subject_id, consent_id)
        return self._made(rows, [consent_id], at=at, proofs=proofs)

    def of_subject(self, subject_id: str, *, at: int, proofs: bool = False) -> MadeDisclosure:
        """Every entry about a person, and every consent, used or not; of orders those that the person may know of.

        Raises as `of_release`.
        """
        consents = [one.consent_id for one in self._registry.consents(subject_id)]
        with self._store.read() as tx:
            orders = self._book.visible(tx, subject_id, now=at)
        return self._made(self._rows(subject_id, None), consents, orders, at=at, proofs=proofs)

    def of_order(self, order_hash: Hex32, *, at: int, proofs: bool = False) -> MadeDisclosure:
        """The access that an authority ordered, also under its embargo. Raises as `of_release`."""
        with self._store.read() as tx:
            row = self._book.row(tx, order_hash)
        if row is None or row.log_index is None:
            raise NotFoundError("order: no such order on the log", field="order")
        return self._made([], [], [row], at=at, proofs=proofs)

    def of_records(self, record_ids: Sequence[str], *, at: int) -> MadeDisclosure:
        """Exactly these access records, as an auditor's consent lets them be read. Raises as `of_release`."""
        consent_ids, release_ids = ids_in(record_ids)
        with self._store.read() as tx:
            rows = self._journal.with_batches(tx, release_ids)
        return self._made(rows, consent_ids, at=at, proofs=False)

    def _rows(self, subject_id: str, consent_id: Hex32 | None) -> list[Row[Any]]:
        """All of them, oldest first."""
        found: list[Row[Any]] = []
        with self._store.read() as tx:
            while more := self._journal.of_subject(
                tx, subject_id, limit=PAGE, after=found[-1] if found else None, consent_id=consent_id
            ):
                found += more
        return found[::-1]

    def _made(
        self,
        rows: Sequence[Row[Any]],
        consent_ids: Iterable[Hex32],
        orders: Sequence[Row[Any]] = (),
        *,
        at: int,
        proofs: bool,
    ) -> MadeDisclosure:
        entries = [self._entry(row, at=at, proofs=proofs) for row in rows if is_on_log(row)]
        ordered = [(row, self._book.opened(row)) for row in orders if is_on_log(row)]
        entries += [self._ordered(row, opened, at=at, proofs=proofs) for row, opened in ordered]
        signers = {one.request.keyid for one in entries if one.request is not None}
        keys = {keyid: key for keyid in sorted(signers) if (key := self._key(keyid)) is not None}
        institutions: dict[str, list[JWK]] = {}
        for keyid, key in keys.items():
            institutions.setdefault(split_keyid(keyid)[0], []).append(key)
        stored = [self._registry.consent(one) for one in dict.fromkeys(consent_ids)]
        disclosure = Disclosure(
            domain=self._domain,
            # Nothing is signed with it where there is no entry.
            custodian_keys=(verifying_key(self._signing_key),) if entries else (),
            institution_keys={party_id: tuple(found) for party_id, found in institutions.items()},
            consents=tuple(
                DisclosedConsent(consent_id=one.consent_id, grant=one.grant, signature=one.signature) for one in stored
            ),
            orders=tuple(opened.order for _, opened in ordered),
            entries=tuple(entries),
        )
        missing = tuple(sorted(signers - set(keys)))
        return MadeDisclosure(
            disclosure=disclosure, not_on_chain=len(rows) + len(orders) - len(entries), missing_keys=missing
        )

    def _entry(self, row: Row[Any], *, at: int, proofs: bool) -> DisclosedEntry:
        opening = open_json(row, opening_context(row.release_id), self._keys, DISCLOSURE)
        entry = AccessEntry.from_json(opening["entry"])
        proof = self._journal.proof_of(row, self._domain, self._custodian)
        outcome = _outcome_of(row)
        claims = receipt_claims(entry, row.entry_hash, proof, at=at, late=row.late)
        bundle = None
        if proofs and outcome is not DisclosedOutcome.REFUSED:
            bundle = self._proofs.bundle(row.release_id, self._registry.institution(entry.institution))
        return DisclosedEntry(
            entry_hash=row.entry_hash,
            entry=entry,
            outcome=outcome,
            place=EntryPlace.of(proof),
            reason=row.reason if outcome is DisclosedOutcome.REFUSED else None,
            request=SignedRequest.from_json(opening["request"]),
            records=self._digests(opening["records"]),
            receipt=sign_claims(claims, self._signing_key, RECEIPT_TYPE),
            bundle=bundle,
        )

    def _ordered(self, row: Row[Any], opened: OpenedOrder, *, at: int, proofs: bool) -> DisclosedEntry:
        proof = self._journal.proof_of(row, self._domain, self._custodian)
        claims = receipt_claims(opened.entry, row.entry_hash, proof, at=at) | {"order": opened.order.as_json()}
        receipt = sign_claims(claims, self._signing_key, RECEIPT_TYPE)
        return DisclosedEntry(
            entry_hash=row.entry_hash,
            entry=opened.entry,
            outcome=DisclosedOutcome.COMPELLED,
            place=EntryPlace.of(proof),
            records=self._digests(opened.records),
            receipt=receipt,
            bundle=self._proofs.of_receipt(receipt, row.batch_id) if proofs else None,
        )

    def _digests(self, record_ids: Sequence[str]) -> tuple[Hex32, ...] | None:
        digests = [record.envelope.digest() for record in self._records.load(record_ids)]
        return tuple(Hex32("0x" + digest.hex()) for digest in digests) or None

    def _key(self, keyid: str) -> JWK | None:
        party_id, kid = split_keyid(keyid)
        party = self._registry.looked_up(INSTITUTION, party_id)
        for key in party.keys if party else ():
            if key.kid == kid and key.get("use") == "sig":
                return verifying_key(key)
        return None


def _outcome_of(row: Row[Any]) -> DisclosedOutcome:
    if row.state == REFUSED:
        return DisclosedOutcome.REFUSED
    return DisclosedOutcome.LATE if row.late else DisclosedOutcome.RECORDED
