"""What a custodian has to show for itself when it is reconciled: its journal, its unwraps, the receipts handed in."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from joserfc.jwk import ECKey
from sqlalchemy import Row

from ledger.access import AccessEntry, entry_hash_of
from ledger.access_records import AccessRecords
from ledger.audit_report import AuditedEntry
from ledger.consent import Domain, Hex32
from ledger.envelope import EncryptionContext, WrappedKey
from ledger.errors import AuditError, UnreadableFileError, VaultError
from ledger.evidence import open_receipt
from ledger.journal import Journal
from ledger.keys import KeyFile
from ledger.order_book import OrderBook, order_context
from ledger.preparation import opening_context
from ledger.reconciliation import HandedIn, OnFile, Sides
from ledger.unwrap_file import read_files
from ledger.unwraps import Counted, Head, read_unwraps
from ledger.vault import open_json

PAGE: Final = 500
MAX_RECEIPT: Final = 1_000_000
# What an opening of another form than expected raises.
_MALFORMED: Final = (KeyError, TypeError, ValueError, AttributeError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """Where a custodian's side stands."""

    journal: Journal
    orders: OrderBook
    records: AccessRecords
    keys: KeyFile


def sides_of(
    books: Books,
    entries: Callable[[], Sequence[AuditedEntry]],
    *,
    receipts: Sequence[HandedIn] = (),
    known: Sequence[Head] = (),
) -> Sides:
    """Everything that `reconcile` compares. `entries` gets the proven ones of this custodian's logs.

    The service may be at work: what the journal has is then counted and on chain by the time that those are read, and
    what is new in those is in the journal by the time that it is read again. Raises `VaultError`, `ChainError`.
    """
    on_file = [*_releases(books), *_orders(books)]
    counted = counted_by(books.keys, known)
    proven = entries()
    seen = {row.release_id for row in on_file}
    # Ids are in the order of time, so that little is read twice.
    last = max((row.release_id for row in on_file if not row.ordered), default="")
    later = [row for row in (*_releases(books, after=last), *_orders(books)) if row.release_id not in seen]
    return Sides(
        entries=proven,
        on_file=(*on_file, *(replace(row, newer=True) for row in later)),
        counted=counted,
        since=books.keys.unwraps_key().since,
        receipts=receipts,
    )


def counted_by(keys: KeyFile, known: Sequence[Head] = ()) -> Counted:
    """The journal of unwraps, verified. Raises `UnwrapsError` if it cannot be read."""
    content, head = read_files(keys.unwraps_path)
    return read_unwraps(content, head, keys.unwraps_key().key, known=known)


def _releases(books: Books, *, after: str = "") -> Iterator[OnFile]:
    last = after
    while rows := books.journal.page(after=last, limit=PAGE):
        opened = [(row, *_opened(row, opening_context(row.release_id), row.consent_id, books.keys)) for row in rows]
        wrapped = books.records.wrapped_keys([one for _, opening, _ in opened if opening for one in opening["records"]])
        for row, opening, altered in opened:
            answered = row.sealed is not None or row.receipt_signature is not None
            found = _row(row, row.consent_id, opening, wrapped, books.keys)
            yield replace(found, answered=answered, altered=altered)
        last = rows[-1].release_id


def _orders(books: Books) -> Iterator[OnFile]:
    for row in books.orders.every():
        opening, altered = _opened(row, order_context(row.order_hash), row.order_hash, books.keys)
        wrapped = books.records.wrapped_keys(opening["records"] if opening else [])
        found = _row(row, row.order_hash, opening, wrapped, books.keys)
        yield replace(found, answered=row.sealed is not None, altered=altered, ordered=True)


def _opened(
    row: Row[Any], context: EncryptionContext, consent_id: str, keys: KeyFile
) -> tuple[dict[str, Any] | None, str | None]:
    """The opening, and what in the row is not as it says; neither of it after an erasure."""
    if row.body is None:
        return None, None
    try:
        opening = open_json(row, context, keys)
        entry = AccessEntry.from_json(opening["entry"])
        said = (entry.release_id, entry.consent_id, entry_hash_of(entry))
    except (VaultError, *_MALFORMED):
        return None, "the opening does not open: it was altered, or moved to another row"
    if said != (row.release_id, consent_id, row.entry_hash):
        return None, "the row is not what its opening says"
    return opening, None


def _row(
    row: Row[Any],
    consent_id: str,
    opening: dict[str, Any] | None,
    wrapped: dict[str, WrappedKey],
    keys: KeyFile,
) -> OnFile:
    record_ids = opening["records"] if opening else []
    is_complete = bool(record_ids) and all(one in wrapped for one in record_ids)
    return OnFile(
        release_id=Hex32(row.release_id),
        entry_hash=Hex32(row.entry_hash),
        consent_id=Hex32(consent_id),
        state=row.state,
        reached_log=row.log_index is not None,
        answered=False,
        finished_at=row.finished_at,
        attributes=len(record_ids) if opening else None,
        mark=keys.mark([wrapped[one] for one in record_ids]) if is_complete else None,
    )


# ------------------------------------------------------------------------------------------------------------- receipts


def receipts_in(directory: Path, custodian_key: ECKey, domain: Domain) -> list[HandedIn]:
    """The receipts in a directory: each a file with the token, or with an answer in JSON that has it.

    Raises `UnreadableFileError` for the directory; a file that is no receipt of this custodian says so itself.
    """
    try:
        paths = sorted(path for path in directory.iterdir() if path.is_file())
    except OSError as exc:
        raise UnreadableFileError(f"{directory}: {exc.strerror}", field="receipts") from exc
    return [_handed_in(path, custodian_key, domain) for path in paths]


def _handed_in(path: Path, custodian_key: ECKey, domain: Domain) -> HandedIn:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_RECEIPT).decode().strip()
        token = json.loads(text)["receipt"] if text.startswith("{") else text
        opened = open_receipt(token, custodian_key)
        if (opened.proof["chainId"], opened.proof["contract"]) != (domain.chain_id, domain.contract):
            return HandedIn(name=path.name, invalid="about another chain or contract")
    except AuditError as exc:
        return HandedIn(name=path.name, invalid=exc.message)
    except (OSError, RecursionError, *_MALFORMED):
        return HandedIn(name=path.name, invalid="not a receipt")
    return HandedIn(name=path.name, entry_hash=opened.entry_hash, release_id=opened.entry.release_id)
