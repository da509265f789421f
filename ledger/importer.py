"""Import: a furnisher's CSV file into the vault. Streams, so memory does not grow with the file.

- Row by row: a bad row is reported with line, column and reason and does not stop the good ones. With `strict` a single
  bad row means that nothing is imported.
- Resumable: rows and progress are committed together, so a run that was killed goes on where it stopped.
- Idempotent: the same file with the same map is imported once; a value that is already the newest makes no new version.
- A value takes the place of none of a later day: files may come in any order.
- A person who was erased is not taken in again; a person twice in one file is a bad row.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from stat import S_ISREG
from typing import Final

from sqlalchemy import Connection, delete, select, update

from ledger.errors import ConflictError, MapError, RowsRejectedError, UnreadableFileError
from ledger.importmap import FIRST_DAY, BadCell, ImportedRow, ImportMap, RejectedRow
from ledger.store import Store, import_refs, imports
from ledger.vault import AttributeValue, NewRecord, Vault

BATCH_ROWS: Final = 500
Row = ImportedRow | RejectedRow


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportResult:
    """What a run did. Counts are rows of the file.

    But for `versions`, values that were new, and `older`, values that were passed over for one of a later day.
    """

    rows: int
    imported: int
    bad: int
    resumed_at: int
    versions: int
    older: int
    already_done: bool


class Importer:
    """Imports files into one vault."""

    def __init__(self, store: Store, vault: Vault, *, clock: Callable[[], int]) -> None:
        self._store, self._vault, self._clock = store, vault, clock

    def run(
        self,
        path: Path,
        import_map: ImportMap,
        map_text: str,
        *,
        strict: bool = False,
        report: Callable[[BadCell], None] = lambda _: None,
        progress: Callable[[int], None] = lambda _: None,
        step: Callable[[str], None] = lambda _: None,
    ) -> ImportResult:
        """Import `path`. `report` is given every bad cell, `progress` the rows done so far.

        Raises `UnreadableFileError`, `MapError` (columns missing, a day to come), `RowsRejectedError` (strict),
        `StoreUnavailableError`, `VaultError`.
        """
        today = datetime.fromtimestamp(self._clock(), UTC).date()
        if not FIRST_DAY <= import_map.as_of <= today:
            # Whoever furnished it could correct a value of a day to come by none.
            raise MapError(f"map.as_of: expected a date from {FIRST_DAY} to today (UTC)", field="map.as_of")
        import_id = sha256(_digest(path) + sha256(map_text.encode()).digest()).hexdigest()
        done, bad, finished = self._progress(import_id)
        if strict and done and not finished:
            raise ConflictError("file: an earlier run without --strict was cut off: finish it without --strict first")
        if finished:
            return ImportResult(
                rows=done, imported=done - bad, bad=bad, resumed_at=done, versions=0, older=0, already_done=True
            )
        resumed_at, versions, older = done, 0, 0
        with self._store.begin() if strict else nullcontext() as whole:
            for batch in _batches(_rows(path, import_map, skip=done)):
                with nullcontext(whole) if whole is not None else self._store.begin() as tx:
                    good, rejected = self._judge(tx, import_id, batch)
                    offered = _records(good, import_map)
                    current = self._vault.without_older(tx, offered)
                    older += len(offered) - len(current)
                    versions += self._vault.put(tx, current, at=self._clock())
                    done, bad = done + len(batch), bad + len(rejected)
                    self._advance(tx, import_id, done, bad)
                for row in rejected:
                    for cell in row.cells:
                        report(cell)
                progress(done)
                step("batch committed")
            if strict and bad:
                # Leaving the transaction by an exception takes everything back.
                raise RowsRejectedError(f"{bad} of {done} rows are bad: nothing was imported")
            self._finish(whole, import_id, done, bad)
        return ImportResult(
            rows=done,
            imported=done - bad,
            bad=bad,
            resumed_at=resumed_at,
            versions=versions,
            older=older,
            already_done=False,
        )

    def _progress(self, import_id: str) -> tuple[int, int, bool]:
        with self._store.read() as tx:
            row = tx.execute(select(imports).where(imports.c.import_id == import_id)).first()
        return (row.rows_done, row.rows_bad, row.finished_at is not None) if row else (0, 0, False)

    def _judge(
        self, tx: Connection, import_id: str, batch: Sequence[Row]
    ) -> tuple[list[ImportedRow], list[RejectedRow]]:
        """Sort out rows that are bad in themselves, of an erased person, or of one that was in the file before."""
        good: list[ImportedRow] = []
        rejected = [row for row in batch if isinstance(row, RejectedRow)]
        readable = {row.line: self._vault.ref_index(row.subject) for row in batch if isinstance(row, ImportedRow)}
        indexes = list(readable.values())
        erased = self._vault.erased_refs(tx, indexes)
        query = select(import_refs).where(import_refs.c.import_id == import_id, import_refs.c.ref_index.in_(indexes))
        first_line = {row.ref_index: row.line for row in tx.execute(query)}
        new = []
        for row in batch:
            if isinstance(row, RejectedRow):
                continue
            index = readable[row.line]
            if index in erased:
                rejected.append(_rejected(row, "the subject was erased and is not taken in again"))
            elif index in first_line:
                rejected.append(_rejected(row, f"the same subject as in line {first_line[index]}"))
            else:
                first_line[index] = row.line
                new.append({"import_id": import_id, "ref_index": index, "line": row.line})
                good.append(row)
        if new:
            tx.execute(import_refs.insert(), new)
        return good, sorted(rejected, key=lambda row: row.line)

    def _advance(self, tx: Connection, import_id: str, done: int, bad: int) -> None:
        values = {"rows_done": done, "rows_bad": bad}
        changed = tx.execute(update(imports).where(imports.c.import_id == import_id).values(**values))
        if changed.rowcount == 0:
            tx.execute(imports.insert(), [{"import_id": import_id, **values}])

    def _finish(self, whole: Connection | None, import_id: str, done: int, bad: int) -> None:
        with nullcontext(whole) if whole is not None else self._store.begin() as tx:
            self._advance(tx, import_id, done, bad)
            tx.execute(update(imports).where(imports.c.import_id == import_id).values(finished_at=self._clock()))
            tx.execute(delete(import_refs).where(import_refs.c.import_id == import_id))


def _digest(path: Path) -> bytes:
    try:
        if not S_ISREG(path.stat().st_mode):
            # It is read twice, and of a pipe nothing would be left for the second time.
            raise UnreadableFileError(f"{path}: expected a regular file, which can be read twice", field="file")
        with path.open("rb") as file:
            digest = sha256()
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except OSError as exc:
        raise UnreadableFileError(f"{path}: cannot be read ({exc.strerror})", field="file") from exc
    return digest.digest()


def _rows(path: Path, import_map: ImportMap, *, skip: int) -> Iterator[Row]:
    """The rows of the file, read by the map; the first `skip` are passed over."""
    # Bytes that are not of the encoding survive as surrogates, so that they spoil one row and not the rest of the file.
    with path.open(encoding=import_map.encoding, errors="surrogateescape", newline="") as file:
        lines = csv.reader(file, delimiter=import_map.delimiter, strict=True)
        try:
            header = next(lines, None)
        except csv.Error as exc:
            raise UnreadableFileError(f"{path}: the first line is not CSV ({exc})", field="file") from exc
        if not header:
            raise UnreadableFileError(f"{path}: empty, expected a line with column names", field="file")
        header[0] = header[0].removeprefix("\ufeff")
        reader = import_map.reader(header)
        number = 0
        while True:
            first_line = lines.line_num + 1
            try:
                cells = next(lines, None)
            except csv.Error as exc:
                number += 1
                if number > skip:
                    # A quote that is not closed swallows what follows: both ends are named.
                    reason = f"not CSV, up to line {lines.line_num}: {exc}"
                    yield RejectedRow(line=first_line, cells=(BadCell(line=first_line, column=None, reason=reason),))
                continue
            if cells is None:
                return
            if not cells:
                continue
            number += 1
            if number <= skip:
                continue
            yield _undecodable(lines.line_num, header, cells) or reader.row(lines.line_num, number, cells)


def _undecodable(line: int, header: Sequence[str], cells: Sequence[str]) -> RejectedRow | None:
    bad = [
        BadCell(line=line, column=column, reason="not text in the file's encoding")
        for column, cell in zip(header, cells, strict=False)
        if not cell.isascii() and any("\udc80" <= character <= "\udcff" for character in cell)
    ]
    return RejectedRow(line=line, cells=tuple(bad)) if bad else None


def _batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    for row in rows:
        batch.append(row)
        if len(batch) == BATCH_ROWS:
            yield batch
            batch = []
    if batch:
        yield batch


def _records(rows: Sequence[ImportedRow], import_map: ImportMap) -> list[NewRecord]:
    source, as_of = import_map.source, import_map.as_of.isoformat()
    return [
        NewRecord(
            subject_ref=row.subject,
            attribute=name,
            value=AttributeValue(value=value, source=source, as_of=as_of),
        )
        for row in rows
        for name, value in row.values.items()
    ]


def _rejected(row: ImportedRow, reason: str) -> RejectedRow:
    return RejectedRow(line=row.line, cells=(BadCell(line=row.line, column=None, reason=reason),))
