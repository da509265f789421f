"""Import beside its floor: `make bench-import` prints it and writes bench/import.json.

The floor is what nobody can go without, on the same rows in the same run: a fresh DEK and an AES-GCM seal for each
value, the DEK wrapped, and one `executemany` of the rows into SQLite with the same durability. The import itself adds
parsing and checking, versions, the index of values, duplicates, progress and reporting. Memory is the peak of a process
of its own for each size (Linux).
"""

from __future__ import annotations

import csv
import json
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

from ledger.config import Config
from ledger.custodian import Custodian
from ledger.importer import Importer, _batches, _records, _rows
from ledger.importmap import ImportedRow, parse_map
from ledger.store import new_id

ROOT = Path(__file__).parent.parent
GERMAN = ROOT / "ledger/data/german_statlog_1000.csv"
MAP = (ROOT / "ledger/maps/german.toml").read_text()
SIZES = (1_000, 5_000, 20_000)


def write_rows(target: Path, rows: int) -> None:
    """The German file again and again: the map takes the person from the row's number."""
    with GERMAN.open(newline="") as source:
        header, *lines = list(csv.reader(source))
    with target.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for number in range(rows):
            writer.writerow(lines[number % len(lines)])


def import_rows(path: Path, home: Path) -> float:
    """Seconds of a whole import into a new vault."""
    config = Config(data=home)
    Custodian.init(config)
    with Custodian(config) as custodian:
        importer = Importer(custodian.store, custodian.vault, clock=custodian.clock)
        started = time.perf_counter()
        importer.run(path, parse_map(MAP), MAP)
        return time.perf_counter() - started


def floor(path: Path, home: Path) -> float:
    """Seconds of seal, wrap and insert alone, for the same values."""
    import_map = parse_map(MAP)
    values = [
        (record.attribute, record.value.encode())
        for batch in _batches(_rows(path, import_map, skip=0))
        for record in _records([row for row in batch if isinstance(row, ImportedRow)], import_map)
    ]
    kek = os.urandom(32)
    database = sqlite3.connect(home / "floor.db")
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.execute("CREATE TABLE records (id TEXT PRIMARY KEY, attribute TEXT, dek BLOB, body BLOB) STRICT")
    started = time.perf_counter()
    rows = []
    for attribute, plaintext in values:
        dek, nonce = os.urandom(32), os.urandom(12)
        body = nonce + AESGCM(dek).encrypt(nonce, plaintext, attribute.encode())
        rows.append((new_id(), attribute, aes_key_wrap(kek, dek), body))
    with database:
        database.executemany("INSERT INTO records VALUES (?, ?, ?, ?)", rows)
    took = time.perf_counter() - started
    database.close()
    return took


def peak_megabytes(path: Path, home: Path) -> float:
    """Peak memory of an import in a process of its own, as it says itself.

    Not `ru_maxrss`, which a process takes over from the one that started it: here from one that had imported already.
    """
    command = [sys.executable, __file__, "--one", str(path), str(home)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        import_rows(Path(sys.argv[2]), Path(sys.argv[3]))
        (peak,) = re.findall(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), flags=re.MULTILINE)
        print(int(peak) / 1024)
        return
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        files = {size: home / f"{size}.csv" for size in SIZES}
        for size, path in files.items():
            write_rows(path, size)
        size = SIZES[1]
        pairs = []
        for number in range(3):
            (home / f"f{number}").mkdir()
            pairs.append((import_rows(files[size], home / f"i{number}"), floor(files[size], home / f"f{number}")))
        took, bare = sorted(pairs, key=lambda pair: pair[0] / pair[1])[1]
        memory = {size: round(peak_megabytes(path, home / f"m{size}"), 1) for size, path in files.items()}
    result = {
        "rows": size,
        "records_per_second": round(size / took),
        "floor_records_per_second": round(size / bare),
        "import_over_floor": round(bare / took, 3),
        "peak_rss_mb": memory,
    }
    (ROOT / "bench/import.json").write_text(json.dumps(result, indent=2) + "\n")
    print(f"import           {result['records_per_second']:>8} records/s (20 values each)")
    print(f"floor            {result['floor_records_per_second']:>8} records/s (seal, wrap, insert; nothing else)")
    print(f"import / floor   {result['import_over_floor']:>8}")
    for rows, megabytes in memory.items():
        print(f"peak memory      {megabytes:>8} MB at {rows} records")


if __name__ == "__main__":
    main()
