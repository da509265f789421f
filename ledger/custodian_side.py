"""What a custodian has to show for itself when it is reconciled: its journal, its unwraps, the receipts handed in."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from joserfc.jwk import ECKey
from sqlalchemy import Row

from ledger.access import AccessEntry, entry_hash_of
from ledger.audit_report import AuditedEntry
from ledger.consent import Domain, Hex32
from ledger.envelope import WrappedKey
from ledger.errors import AuditError, UnreadableFileError, VaultError
from ledger.evidence import open_receipt
from ledger.journal import Journal
from ledger.keys import KeyFile
from ledger.preparation import opening_context
from ledger.reconciliation import HandedIn, OnFile, Sides
from ledger.unwrap_file import read_files
from ledger.unwraps import Counted, Head, read_unwraps
from ledger.vault import Vault, open_json

PAGE: Final = 500
MAX_RECEIPT: Final = 1_000_000
# What an opening of another form than expected raises.
_MALFORMED: Final = (KeyError, TypeError, ValueError, AttributeError)


def sides_of(
    journal: Journal,
    vault: Vault,
    keys: KeyFile,
    entries: Callable[[], Sequence[AuditedEntry]],
    *,
    receipts: Sequence[HandedIn] = (),
    known: Sequence[Head] = (),
) -> Sides:
    """Everything that `reconcile` compares. `entries` gets the proven ones of this custodian's logs.

    The service may be at work: what the journal has is then counted and on chain by the time that those are read, and
    what is new in those is in the journal by the time that it is read again. Raises `VaultError`, `ChainError`.
    """
    on_file = list(_on_file(journal, vault, keys))
    counted = counted_by(keys, known)
    proven = entries()
    last = on_file[-1].release_id if on_file else ""
    return Sides(
        entries=proven,
        on_file=(*on_file, *(replace(row, newer=True) for row in _on_file(journal, vault, keys, after=last))),
        counted=counted,
        since=keys.unwraps_key().since,
        receipts=receipts,
    )


def counted_by(keys: KeyFile, known: Sequence[Head] = ()) -> Counted:
    """The journal of unwraps, verified. Raises `UnwrapsError` if it cannot be read."""
    content, head = read_files(keys.unwraps_path)
    return read_unwraps(content, head, keys.unwraps_key().key, known=known)


def _on_file(journal: Journal, vault: Vault, keys: KeyFile, *, after: str = "") -> Iterator[OnFile]:
    last = after
    while rows := journal.page(after=last, limit=PAGE):
        opened = {row.release_id: _opened(row, keys) for row in rows}
        record_ids = [one for opening, _ in opened.values() if opening for one in opening["records"]]
        wrapped = vault.wrapped_keys(record_ids)
        for row in rows:
            opening, altered = opened[row.release_id]
            yield _row(row, opening, altered, wrapped, keys)
        last = rows[-1].release_id


def _opened(row: Row[Any], keys: KeyFile) -> tuple[dict[str, Any] | None, str | None]:
    """The opening, and what in the row is not as it says; neither of it after an erasure."""
    if row.body is None:
        return None, None
    try:
        opening = open_json(row, opening_context(row.release_id), keys)
        entry = AccessEntry.from_json(opening["entry"])
        said = (entry.release_id, entry.consent_id, entry_hash_of(entry))
    except (VaultError, *_MALFORMED):
        return None, "the opening does not open: it was altered, or moved to another row"
    if said != (row.release_id, row.consent_id, row.entry_hash):
        return None, "the row is not what its opening says"
    return opening, None


def _row(
    row: Row[Any],
    opening: dict[str, Any] | None,
    altered: str | None,
    wrapped: dict[str, WrappedKey],
    keys: KeyFile,
) -> OnFile:
    record_ids = opening["records"] if opening else []
    is_complete = bool(record_ids) and all(one in wrapped for one in record_ids)
    return OnFile(
        release_id=Hex32(row.release_id),
        entry_hash=Hex32(row.entry_hash),
        consent_id=Hex32(row.consent_id),
        state=row.state,
        reached_log=row.log_index is not None,
        answered=row.sealed is not None or row.receipt_signature is not None,
        finished_at=row.finished_at,
        attributes=len(record_ids) if opening else None,
        mark=keys.mark([wrapped[one] for one in record_ids]) if is_complete else None,
        altered=altered,
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
