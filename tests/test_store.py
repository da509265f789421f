"""The database: all or nothing, nobody else's, and nothing left behind; every failure is one of ours."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest
from full_disk import files_up_to
from sqlalchemy import delete, func, select, text

from ledger.errors import AlreadyExistsError, LedgerError, StoreMismatchError, StoreUnavailableError
from ledger.store import SCHEMA_VERSION, SEALED_TABLES, Store, imports, meta, metadata, new_id, subjects

IDENTITY: Final = {"chain_id": "31337", "contract": "0x01", "custodian": "0x02", "key_file": "ab"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "ledger.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    path.parent.mkdir()
    made = Store.create(path, IDENTITY)
    yield made
    made.close()


def add(store: Store, subject_id: str, ref_index: str = "r") -> None:
    with store.begin() as tx:
        tx.execute(subjects.insert(), [{"subject_id": subject_id, "ref_index": ref_index, "created_at": 1}])


def count(store: Store) -> int:
    with store.read() as tx:
        return tx.scalar(select(func.count()).select_from(subjects)) or 0


def held(path: Path, script: str, then: str = "time.sleep(60)") -> subprocess.Popen[str]:
    """Another process that runs `script` on the database, says so, and stays."""
    program = f"import sqlite3, sys, time\ndb = sqlite3.connect(sys.argv[1], isolation_level=None)\n{script}\n"
    program += f"print('ready', flush=True)\n{then}\n"
    process = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


# ------------------------------------------------------------------------------------------------------ belonging


def test_a_new_database_is_its_owners_alone_with_all_that_belongs_to_it(store: Store, path: Path) -> None:
    add(store, "a")
    found = {entry.name: entry.stat().st_mode & 0o777 for entry in path.parent.iterdir()}
    assert set(found) == {"ledger.db", "ledger.db-wal", "ledger.db-shm"}
    assert set(found.values()) == {0o600}


@pytest.mark.parametrize("name", ["a?b.db", "a%41.db", "a#b.db", "a b.db", "?mode=memory", ":memory:"])
def test_a_database_is_where_its_path_says_and_its_owners_alone_whatever_the_path_is(tmp_path: Path, name: str) -> None:
    path = tmp_path / name / name
    path.parent.mkdir()
    made = Store.create(path, IDENTITY)
    add(made, "a")
    found = {entry.name: entry.stat().st_mode & 0o777 for entry in tmp_path.rglob("*") if entry.is_file()}
    assert found == dict.fromkeys((name, f"{name}-wal", f"{name}-shm"), 0o600)
    made.close()
    again = Store.open(path, IDENTITY)
    assert count(again) == 1
    again.close()


def test_an_existing_database_is_never_overwritten(store: Store, path: Path) -> None:
    add(store, "a")
    with pytest.raises(AlreadyExistsError):
        Store.create(path, IDENTITY)
    assert count(store) == 1


def test_a_database_where_there_can_be_none_is_unavailable(tmp_path: Path) -> None:
    for path in (tmp_path / "missing" / "ledger.db", Path("/proc/ledger.db")):
        with pytest.raises(StoreUnavailableError):
            Store.create(path, IDENTITY)


def test_a_missing_database_is_unavailable_and_not_made(path: Path) -> None:
    with pytest.raises(StoreUnavailableError, match="init"):
        Store.open(path, IDENTITY)
    assert not path.exists()


def test_what_was_stored_is_there_after_opening_again(store: Store, path: Path) -> None:
    add(store, "a")
    store.close()
    again = Store.open(path, IDENTITY)
    assert count(again) == 1
    again.close()


@pytest.mark.parametrize("name", IDENTITY)
def test_a_database_of_another_chain_contract_custodian_or_key_is_refused(store: Store, path: Path, name: str) -> None:
    with pytest.raises(StoreMismatchError, match=name):
        Store.open(path, IDENTITY | {name: "other"})


@pytest.mark.parametrize("version", ["0", "1", f"{int(SCHEMA_VERSION) + 1}", "", None])
def test_a_database_of_another_schema_is_refused(store: Store, path: Path, version: str | None) -> None:
    with store.begin() as tx:
        tx.execute(delete(meta).where(meta.c.key == "schema"))
        if version is not None:
            tx.execute(meta.insert(), [{"key": "schema", "value": version}])
    with pytest.raises(StoreMismatchError, match="schema"):
        Store.open(path, IDENTITY)


@pytest.mark.parametrize("content", [b"", b"not a database " * 100, b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_file_that_is_no_database_is_unavailable(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(content)
    with pytest.raises(StoreUnavailableError):
        Store.open(path, IDENTITY)
    path.unlink()


# --------------------------------------------------------------------------------------------------- all or nothing


def test_an_error_within_a_transaction_takes_everything_back(store: Store) -> None:
    add(store, "a", "1")

    class MidwayError(Exception):
        pass

    with pytest.raises(MidwayError), store.begin() as tx:  # noqa: PT012 - what comes before is the point
        tx.execute(subjects.insert(), [{"subject_id": "b", "ref_index": "2", "created_at": 1}])
        raise MidwayError
    assert count(store) == 1


def test_a_row_that_exists_takes_the_others_of_its_transaction_back(store: Store) -> None:
    add(store, "a", "1")
    rows = [{"subject_id": name, "ref_index": index, "created_at": 1} for name, index in (("b", "2"), ("a", "3"))]
    with pytest.raises(AlreadyExistsError), store.begin() as tx:
        tx.execute(subjects.insert(), rows)
    assert count(store) == 1


def test_a_process_that_is_killed_within_a_transaction_leaves_nothing_of_it(store: Store, path: Path) -> None:
    add(store, "a", "1")
    end(held(path, "db.execute('BEGIN IMMEDIATE')\ndb.execute(\"INSERT INTO subjects VALUES ('b', '2', 1, NULL)\")"))
    assert count(store) == 1
    add(store, "c", "3")
    assert count(store) == 2


def test_a_writing_transaction_has_its_lock_before_its_first_statement(store: Store, path: Path) -> None:
    # One that took it later, after reading, could be refused half way because another one wrote in between.
    other = sqlite3.connect(path, timeout=0, isolation_level=None)
    with store.begin(), pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("BEGIN IMMEDIATE")
    other.execute("BEGIN IMMEDIATE")
    other.close()


def test_a_reader_sees_the_state_in_which_it_began(store: Store) -> None:
    with store.read() as tx:
        before = tx.scalar(select(func.count()).select_from(subjects))
        add(store, "a")
        assert tx.scalar(select(func.count()).select_from(subjects)) == before == 0
    assert count(store) == 1


# ------------------------------------------------------------------------------------------------------- unavailable


def test_a_database_locked_by_another_process_is_unavailable_after_the_busy_time(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger.store.BUSY_SECONDS", 0)
    impatient = Store.open(path, IDENTITY)
    writer = held(path, "db.execute('BEGIN IMMEDIATE')")
    try:
        with pytest.raises(StoreUnavailableError, match="locked"):
            add(impatient, "a")
        # Readers are not in a writer's way, nor it in theirs.
        assert count(impatient) == 0
    finally:
        end(writer)
    add(impatient, "a")
    assert count(store) == 1
    impatient.close()


def test_a_database_that_is_locked_for_a_moment_is_waited_for(store: Store, path: Path) -> None:
    writer = held(path, "db.execute('BEGIN IMMEDIATE')", then="time.sleep(0.3); db.execute('ROLLBACK'); time.sleep(60)")
    started = time.monotonic()
    try:
        add(store, "a")
    finally:
        end(writer)
    assert 0.1 < time.monotonic() - started < 9
    assert count(store) == 1


def test_a_full_disk_is_unavailable_and_keeps_what_was_there(store: Store) -> None:
    add(store, "a", "1")
    with store.read() as tx:
        pages = tx.scalar(text("PRAGMA page_count"))
    rows = [{"subject_id": str(number), "ref_index": f"{number}" + "x" * 200, "created_at": 1} for number in range(99)]
    with store.begin() as tx:
        tx.execute(text(f"PRAGMA max_page_count = {pages}"))
    with pytest.raises(StoreUnavailableError, match="full"), store.begin() as tx:
        tx.execute(subjects.insert(), rows)
    assert count(store) == 1
    with store.begin() as tx:
        tx.execute(text("PRAGMA max_page_count = 1000000"))
    add(store, "b", "2")
    assert count(store) == 2


def test_a_database_that_may_only_be_read_is_unavailable_for_writing(store: Store) -> None:
    # By the database's own switch: file modes do not hold the superuser, whom tests often run as.
    with store.begin() as tx:
        tx.execute(text("PRAGMA query_only = ON"))
    with pytest.raises(StoreUnavailableError, match="readonly"):
        add(store, "a")
    assert count(store) == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write to every file")
def test_a_read_only_file_is_unavailable_for_writing(store: Store, path: Path) -> None:
    store.close()
    path.chmod(0o400)
    path.parent.chmod(0o500)
    try:
        with pytest.raises(StoreUnavailableError):
            add(Store.open(path, IDENTITY), "a")
    finally:
        path.parent.chmod(0o700)


def test_statements_that_the_database_does_not_understand_are_our_error(store: Store) -> None:
    for statement in ("SELECT * FROM nowhere", "nonsense"):
        with pytest.raises(StoreUnavailableError), store.read() as tx:
            tx.execute(text(statement))


# ------------------------------------------------------------------------------------------------------------- tables


def test_every_table_is_strict_and_the_database_is_as_durable_as_it_can_be(store: Store) -> None:
    with store.read() as tx:
        listed = {row.name: row.strict for row in tx.execute(text("PRAGMA table_list"))}
        pragmas = {
            name: tx.scalar(text(f"PRAGMA {name}"))
            for name in ("journal_mode", "synchronous", "secure_delete", "foreign_keys")
        }
    listed = {name: strict for name, strict in listed.items() if not name.startswith("sqlite_")}
    assert listed == dict.fromkeys(metadata.tables, 1)
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "secure_delete": 1, "foreign_keys": 1}


@pytest.mark.parametrize("value", ["one", 1.5, b"1"])
def test_a_value_of_another_type_than_its_column_is_refused(store: Store, value: object) -> None:
    row: dict[str, Any] = {"import_id": "i", "rows_done": value, "rows_bad": 0}
    with pytest.raises(LedgerError), store.begin() as tx:
        tx.execute(imports.insert(), [row])
    with store.read() as tx:
        assert tx.scalar(select(func.count()).select_from(imports)) == 0


def test_every_sealed_table_has_the_columns_of_an_envelope() -> None:
    columns = {"kek_id", "wrapped_dek", "body"}
    assert {table for table in metadata.sorted_tables if columns <= set(table.c.keys())} == set(SEALED_TABLES)
    assert all(table.primary_key.columns.keys() == [key] for table, key in SEALED_TABLES.items())


# ------------------------------------------------------------------------------------------------------------ no trace


CANARY: Final = "canary-5d1f9c"


def traces(path: Path) -> list[str]:
    return [entry.name for entry in path.parent.iterdir() if CANARY.encode() in entry.read_bytes()]


def planted(store: Store) -> None:
    with store.begin() as tx:
        rows = [{"subject_id": f"{CANARY}-{n}", "ref_index": f"{CANARY}-{n}" * 20, "created_at": 1} for n in range(200)]
        tx.execute(subjects.insert(), rows)


def test_what_is_deleted_and_scrubbed_is_in_no_file(store: Store, path: Path) -> None:
    planted(store)
    # Seen in both places first: otherwise this test would prove nothing.
    assert "ledger.db-wal" in traces(path)
    store.scrub()
    assert traces(path) == ["ledger.db"]
    with store.begin() as tx:
        tx.execute(delete(subjects))
    assert traces(path) != []
    store.scrub()
    assert traces(path) == []


def test_scrubbing_is_not_reported_as_done_while_a_reader_keeps_the_old_pages(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger.store.BUSY_SECONDS", 0)
    impatient = Store.open(path, IDENTITY)
    planted(impatient)
    reader = held(path, "db.execute('BEGIN')\ndb.execute('SELECT * FROM subjects').fetchone()")
    try:
        with impatient.begin() as tx:
            tx.execute(delete(subjects))
        with pytest.raises(StoreUnavailableError, match="busy"):
            impatient.scrub()
        assert traces(path) != []
    finally:
        end(reader)
    impatient.scrub()
    assert traces(path) == []
    impatient.close()


def test_deleting_alone_overwrites_what_was_in_the_main_file(store: Store, path: Path) -> None:
    planted(store)
    with store.begin() as tx:
        tx.execute(delete(subjects))
    store.close()
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    assert traces(path) == []


# ----------------------------------------------------------------------------------------------------------------- ids


def test_ids_are_uuids_of_version_7_in_the_order_of_time() -> None:
    ids = [new_id(at_ms) for at_ms in (0, 1, 255, 256, 2**32, 2**48 - 1)]
    assert ids == sorted(ids)
    for made in (*ids, new_id()):
        parsed = uuid.UUID(made)
        assert (str(parsed), parsed.version, parsed.variant) == (made, 7, uuid.RFC_4122)


def test_the_time_of_an_id_is_in_its_first_48_bits() -> None:
    # RFC 9562, appendix A.6.
    assert new_id(0x017F22E279B0).startswith("017f22e2-79b0-7")


def test_ids_of_one_millisecond_are_all_different() -> None:
    assert len({new_id(1) for _ in range(10_000)}) == 10_000


def test_a_backup_is_whole_private_and_of_one_moment_while_others_write(
    store: Store, path: Path, tmp_path: Path
) -> None:
    add(store, "first")
    # What a copy of the file would not have.
    assert path.with_name("ledger.db-wal").stat().st_size > 0
    target = tmp_path / "backup.db"
    with store.begin() as tx:
        # Whoever writes is not waited for, and what is not durable yet is not in it.
        tx.execute(subjects.insert(), [{"subject_id": "second", "ref_index": "q", "created_at": 1}])
        store.backup(target)
    assert [each.name for each in tmp_path.glob("backup.db*")] == ["backup.db"]
    assert target.stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(f"file:{target}?mode=ro", uri=True)) as copy:
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert copy.execute("SELECT subject_id FROM subjects").fetchall() == [("first",)]
    Store.open(target, IDENTITY).close()


def test_a_backup_overwrites_nothing_and_leaves_nothing_half_done(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "backup.db"
    target.write_text("mine")
    with pytest.raises(AlreadyExistsError):
        store.backup(target)
    assert target.read_text() == "mine"
    with pytest.raises(StoreUnavailableError):
        store.backup(tmp_path / "nowhere" / "backup.db")

    # It is the disk of the backup that is full, and not the database's.
    with files_up_to(20_000), pytest.raises(StoreUnavailableError, match=r"no backup can be made at \S+/full\.db: "):
        store.backup(tmp_path / "full.db")
    assert list(tmp_path.glob("full.db*")) == []

    def full(_: Path) -> None:
        raise StoreUnavailableError("no space left")

    monkeypatch.setattr("ledger.store._flush", full)
    with pytest.raises(StoreUnavailableError):
        store.backup(tmp_path / "other.db")
    assert not (tmp_path / "other.db").exists()
