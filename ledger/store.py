"""The database: tables, transactions, and what its failures mean. No SQL error leaves this module as such.

Everything that names a person or a relationship is inside an envelope (`kek_id`, `wrapped_dek`, `body`); identifiers
are looked up by keyed hash (`*_index`). Rows have UUIDv7 or content hashes as keys, never a sequence.

SQLite: WAL, STRICT tables, `synchronous=FULL`, `secure_delete` (what is erased is overwritten), and every writing
transaction takes its lock at once (`BEGIN IMMEDIATE`), so that none fails half way for want of it.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from sqlalchemy import (
    URL,
    Column,
    Connection,
    Dialect,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TextClause,
    TypeDecorator,
    UniqueConstraint,
    create_engine,
    event,
    select,
    text,
    update,
)
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from ledger.errors import AlreadyExistsError, StoreMismatchError, StoreUnavailableError

SCHEMA_VERSION: Final = "4"
BUSY_SECONDS: Final = 10
TURN_SECONDS: Final = 0.0005
TRY_SECONDS: Final = 1.0
CHECKPOINT_PAGES: Final = 8_000
"""How many pages (of 4 KiB) the write-ahead log holds before they are copied to their places.

SQLite's own 1,000 are four rounds of releases: the same pages of the indexes would be copied over and over, while
everyone waits. What was erased leaves the log at once all the same (`Store.scrub`).
"""

metadata = MetaData()


class Flag(TypeDecorator[bool]):
    """A boolean, as 0 or 1: STRICT tables know no other."""

    impl = Integer
    cache_ok = True

    def process_bind_param(self, value: bool | None, dialect: object) -> int | None:  # noqa: ARG002, FBT001
        """To the database."""
        return None if value is None else int(value)

    def process_result_value(self, value: int | None, dialect: object) -> bool | None:  # noqa: ARG002
        """From the database."""
        return None if value is None else bool(value)


def _table(name: str, *columns: Any, **options: Any) -> Table:  # noqa: ANN401 - columns and constraints
    return Table(name, metadata, *columns, sqlite_strict=True, **options)


def _sealed(*, optional: bool = False) -> tuple[Column[Any], ...]:
    return (
        Column("kek_id", Text, nullable=optional),
        Column("wrapped_dek", LargeBinary, nullable=optional),
        Column("body", LargeBinary, nullable=optional),
    )


def _only(condition: TextClause) -> dict[str, Any]:
    return {f"{dialect}_where": condition for dialect in ("sqlite", "postgresql")}


meta = _table("meta", Column("key", Text, primary_key=True), Column("value", Text, nullable=False))

subjects = _table(
    "subjects",
    Column("subject_id", Text, primary_key=True),
    Column("ref_index", Text, nullable=False, unique=True),
    Column("created_at", Integer, nullable=False),
    Column("erased_at", Integer),
)

records = _table(
    "records",
    Column("record_id", Text, primary_key=True),
    Column("subject_id", Text, nullable=False),
    Column("attribute", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("value_index", Text, nullable=False),
    Column("disputed", Flag, nullable=False, default=False),
    Column("created_at", Integer, nullable=False),
    *_sealed(),
    UniqueConstraint("subject_id", "attribute", "version"),
)

disputes = _table(
    "disputes",
    Column("dispute_id", Text, primary_key=True),
    Column("subject_id", Text, nullable=False, index=True),
    Column("attribute", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("opened_at", Integer, nullable=False),
    Column("closed_at", Integer),
    Column("outcome", Text),
    *_sealed(),
    # One at a time.
    Index("disputes_open", "subject_id", "attribute", unique=True, **_only(text("closed_at IS NULL"))),
)

imports = _table(
    "imports",
    Column("import_id", Text, primary_key=True),
    Column("rows_done", Integer, nullable=False),
    Column("rows_bad", Integer, nullable=False),
    Column("finished_at", Integer),
)

import_refs = _table(
    "import_refs",
    Column("import_id", Text, primary_key=True),
    Column("ref_index", Text, primary_key=True),
    Column("line", Integer, nullable=False),
)


def _parties(name: str, *more: Any) -> Table:  # noqa: ANN401 - columns
    return _table(
        name,
        Column("party_id", Text, primary_key=True),
        Column("name", Text, nullable=False),
        Column("jwks", Text, nullable=False),
        Column("suspended", Flag, nullable=False, default=False),
        Column("version", Integer, nullable=False, default=1),
        Column("created_at", Integer, nullable=False),
        *more,
    )


institutions = _parties("institutions", Column("webhook_url", Text))
furnishers = _parties("furnishers")
authorities = _parties("authorities")

nonces = _table(
    "nonces",
    Column("nonce_index", Text, primary_key=True),
    Column("expires_at", Integer, nullable=False, index=True),
    sqlite_with_rowid=False,
)

rates = _table(
    "rates",
    Column("party_index", Text, primary_key=True),
    Column("window", Integer, nullable=False),
    Column("used", Integer, nullable=False),
)

consents = _table(
    "consents",
    Column("consent_id", Text, primary_key=True),
    Column("subject_id", Text, index=True),
    Column("institution_index", Text, nullable=False, index=True),
    Column("created_at", Integer, nullable=False),
    Column("expires_at", Integer, nullable=False),
    Column("standing", Flag, nullable=False),
    Column("revoked_at", Integer),
    Column("revoked_by", Text),
    Column("replaced_by", Text),
    Column("expiry_told", Flag, nullable=False, default=False),
    Column("paused", Flag, nullable=False, default=False),
    Column("pause_sequence", Integer, nullable=False, default=0),
    Column("erased_at", Integer),
    *_sealed(optional=True),
    Index("consents_by_expiry", "expiry_told", "expires_at"),
)

acts = _table(
    "acts",
    Column("act_id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("consent_ids", Text, nullable=False),
    Column("lane", Text, nullable=False),
    Column("calldata", LargeBinary, nullable=False),
    Column("raw", LargeBinary),
    Column("transaction_hash", Text),
    Column("state", Text, nullable=False),
    Column("created_at", Integer, nullable=False),
    Column("block_number", Integer),
    Column("block_hash", Text),
    Column("transaction_index", Integer),
    Index("acts_by_state_block", "state", "block_number"),
)

# Which acts are about a consent: what is on chain about someone is found without reading every act there ever was.
act_consents = _table(
    "act_consents",
    Column("consent_id", Text, primary_key=True),
    Column("act_id", Text, primary_key=True),
)

batches = _table(
    "batches",
    Column("batch_id", Text, primary_key=True),
    Column("kind", Integer, nullable=False),
    Column("writer", Text, nullable=False),
    Column("expected_head", Text, nullable=False),
    Column("raw", LargeBinary, nullable=False),
    Column("transaction_hash", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("created_at", Integer, nullable=False),
    Column("block_number", Integer),
    Column("block_hash", Text),
    Column("transaction_index", Integer),
    Column("size", Integer),
    Column("head", Text),
    # Of a batch of accesses that an authority ordered; otherwise 0.
    Column("embargo_until", Integer, nullable=False, default=0),
    Index("batches_by_writer_state_size", "writer", "state", "size"),
    Index("batches_by_state_block", "state", "block_number"),
)

releases = _table(
    "releases",
    Column("release_id", Text, primary_key=True),
    Column("idempotency_index", Text, nullable=False, unique=True),
    Column("content_digest", Text, nullable=False),
    Column("institution_index", Text, nullable=False),
    Column("consent_id", Text, nullable=False),
    Column("subject_id", Text),
    Column("day", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text),
    Column("late", Flag, nullable=False, default=False),
    Column("writer", Text, nullable=False),
    Column("batch_id", Text),
    Column("position", Integer),
    Column("entry_hash", Text, nullable=False),
    Column("log_index", Integer),
    Column("sealed", LargeBinary),
    Column("receipt_signature", LargeBinary),
    Column("created_at", Integer, nullable=False),
    Column("finished_at", Integer),
    *_sealed(optional=True),
    # Each index of something random is one more page to be written for every release. A person's releases are found by
    # their consents, an entry by its batch.
    Index("releases_by_consent_day", "consent_id", "day"),
    Index("releases_by_batch_entry", "batch_id", "entry_hash", unique=True),
    # Of those that have not ended, which are few: so that to look for them does not read every release there ever was.
    Index("releases_open", "writer", **_only(text("state IN ('intent', 'recorded')"))),
    # Of the answers that are still kept, which are few: so that forgetting does not read every release there ever was.
    Index("releases_with_answer", "finished_at", **_only(text("sealed IS NOT NULL"))),
)

# Accesses that an authority ordered, one for each order.
orders = _table(
    "orders",
    Column("order_hash", Text, primary_key=True),
    Column("order_index", Text, nullable=False, unique=True),
    Column("content_digest", Text, nullable=False),
    Column("authority_index", Text, nullable=False),
    Column("subject_id", Text, index=True),
    Column("release_id", Text, nullable=False, unique=True),
    Column("entry_hash", Text, nullable=False, unique=True),
    Column("embargo_until", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("writer", Text, nullable=False),
    Column("batch_id", Text, index=True),
    Column("log_index", Integer),
    Column("sealed", LargeBinary),
    Column("created_at", Integer, nullable=False),
    Column("finished_at", Integer),
    *_sealed(optional=True),
)

consent_requests = _table(
    "consent_requests",
    Column("request_id", Text, primary_key=True),
    Column("institution_index", Text, nullable=False, index=True),
    Column("token_index", Text, nullable=False, unique=True),
    Column("subject_id", Text, index=True),
    Column("consent_id", Text, index=True),
    Column("created_at", Integer, nullable=False),
    Column("answer_by", Integer, nullable=False),
    Column("claimed_at", Integer),
    Column("shown_at", Integer),
    Column("declined_at", Integer),
    *_sealed(optional=True),
)

# Texts that people were shown; not about anyone.
notices = _table(
    "notices",
    Column("notice_hash", Text, primary_key=True),
    Column("text", Text, nullable=False),
)

# Counters about institutions, with nobody's identity.
prompt_counts = _table(
    "prompt_counts",
    Column("party_id", Text, primary_key=True),
    Column("day", Integer, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("number", Integer, nullable=False),
    Column("with_steps", Integer, nullable=False),
    Column("steps", Integer, nullable=False),
)

deletion_attestations = _table(
    "deletion_attestations",
    Column("attestation_id", Text, primary_key=True),
    Column("consent_id", Text, nullable=False, index=True),
    Column("subject_id", Text, index=True),
    Column("institution_index", Text, nullable=False),
    Column("created_at", Integer, nullable=False),
    *_sealed(optional=True),
)

adverse_actions = _table(
    "adverse_actions",
    Column("release_id", Text, primary_key=True),
    Column("subject_id", Text, index=True),
    Column("institution_index", Text, nullable=False),
    Column("created_at", Integer, nullable=False),
    *_sealed(optional=True),
)

events = _table(
    "events",
    Column("event_id", Text, primary_key=True),
    Column("institution_index", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("consent_id", Text, nullable=False),
    Column("details", Text, nullable=False),
    Column("created_at", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("next_attempt_at", Integer),
    Column("acknowledged_at", Integer),
    Column("last_answer", Text),
    Index("events_by_institution", "institution_index", "event_id"),
    Index("events_by_state_time", "state", "next_attempt_at"),
)

invitations = _table(
    "invitations",
    Column("invitation_id", Text, primary_key=True),
    Column("code_index", Text, nullable=False, unique=True),
    Column("subject_id", Text, nullable=False, index=True),
    Column("furnisher_index", Text),
    Column("created_at", Integer, nullable=False),
    Column("expires_at", Integer, nullable=False, index=True),
)

accounts = _table(
    "accounts",
    Column("account_id", Text, primary_key=True),
    Column("subject_id", Text, nullable=False, index=True),
    Column("created_at", Integer, nullable=False),
)

passkeys = _table(
    "passkeys",
    Column("passkey_id", Text, primary_key=True),
    Column("account_id", Text, nullable=False, index=True),
    Column("subject_id", Text, nullable=False, index=True),
    Column("credential_index", Text, nullable=False, unique=True),
    Column("sign_count", Integer, nullable=False),
    Column("backup_eligible", Flag, nullable=False),
    Column("backed_up", Flag, nullable=False),
    Column("created_at", Integer, nullable=False),
    Column("last_used_at", Integer),
    *_sealed(),
)

wallets = _table(
    "wallets",
    Column("wallet_id", Text, primary_key=True),
    Column("account_id", Text, nullable=False, index=True),
    Column("subject_id", Text, nullable=False, index=True),
    Column("address_index", Text, nullable=False, unique=True),
    Column("created_at", Integer, nullable=False),
    Column("last_used_at", Integer),
    *_sealed(),
)

sessions = _table(
    "sessions",
    Column("session_id", Text, primary_key=True),
    Column("token_index", Text, nullable=False, unique=True),
    Column("account_id", Text, nullable=False, index=True),
    Column("subject_id", Text, nullable=False, index=True),
    Column("method", Text, nullable=False),
    Column("proof_id", Text, nullable=False, index=True),
    Column("created_at", Integer, nullable=False),
    Column("seen_at", Integer, nullable=False, index=True),
    Column("stepped_up_at", Integer),
    *_sealed(),
)

challenges = _table(
    "challenges",
    Column("challenge_index", Text, primary_key=True),
    Column("subject_id", Text, index=True),
    Column("expires_at", Integer, nullable=False, index=True),
    *_sealed(),
)

attempts = _table(
    "attempts",
    Column("attempt_index", Text, primary_key=True),
    Column("made", Integer, nullable=False),
    Column("expires_at", Integer, nullable=False, index=True),
)

SEALED_TABLES: Final = {
    records: "record_id",
    disputes: "dispute_id",
    consents: "consent_id",
    releases: "release_id",
    orders: "order_hash",
    consent_requests: "request_id",
    deletion_attestations: "attestation_id",
    adverse_actions: "release_id",
    passkeys: "passkey_id",
    wallets: "wallet_id",
    sessions: "session_id",
    challenges: "challenge_index",
}
"""Every table with envelopes, and its key: a rotation re-wraps them."""

ABOUT_SUBJECTS: Final = tuple(table for table in metadata.sorted_tables if "subject_id" in table.c)
"""Every table with rows about people: an erasure leaves none of them with a person in it."""


class Store:
    """One database. `begin` is for writing, `read` for reading; both raise `StoreUnavailableError`."""

    def __init__(self, url: str | URL) -> None:
        self._engine = create_engine(url)
        self._tried = float("-inf")
        if self._engine.dialect.name == "sqlite":
            event.listen(self._engine, "connect", _configure_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)

    @classmethod
    def create(cls, path: Path, identity: dict[str, str]) -> Store:
        """Make a new SQLite database that belongs to `identity`. Raises `AlreadyExistsError`."""
        _make_private(path)
        store = cls(sqlite_url(path))
        try:
            with store.begin() as tx:
                metadata.create_all(tx)
                tx.execute(meta.insert(), [{"key": "schema", "value": SCHEMA_VERSION}])
                tx.execute(meta.insert(), [{"key": key, "value": value} for key, value in identity.items()])
        except BaseException:
            # Open, it would go on in files that the caller may remove.
            store.close()
            raise
        return store

    @classmethod
    def open(cls, path: Path, identity: dict[str, str]) -> Store:
        """Raises `StoreUnavailableError` if there is none, `StoreMismatchError` if it is not of this `identity`."""
        if not path.exists():
            raise StoreUnavailableError(f"no database at {path}: run `consent-ledger init`")
        store = cls(sqlite_url(path))
        with store.read() as tx:
            found = {row.key: row.value for row in tx.execute(select(meta))}
        for key, expected in {"schema": SCHEMA_VERSION, **identity}.items():
            if found.get(key) != expected:
                raise StoreMismatchError(f"{path} belongs to another {key}")
        return store

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A writing transaction: all of it or nothing. Raises `StoreUnavailableError`."""
        with _guarded(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A reading transaction. Raises `StoreUnavailableError`."""
        with _guarded(), self._engine.connect().execution_options(read_only=True) as connection:
            yield connection

    def check_writable(self) -> None:
        """Write something. Raises `StoreUnavailableError`, as on a full disk, which a mere lock does not notice.

        About once a second at most: whoever may ask has no say in how often the disk is written to.
        """
        if time.monotonic() - self._tried < TRY_SECONDS:
            return
        tried = {"value": str(time.time_ns())}
        with self.begin() as tx:
            if tx.execute(update(meta).where(meta.c.key == "tried_at").values(tried)).rowcount == 0:
                tx.execute(meta.insert(), [{"key": "tried_at", **tried}])
        self._tried = time.monotonic()

    def scrub(self) -> None:
        """Leave no trace of deleted rows in the write-ahead log."""
        if self._engine.dialect.name != "sqlite":
            return
        # Outside any transaction, which the driver's own connection is and SQLAlchemy's would not be.
        with _guarded():
            connection = self._engine.raw_connection()
            try:
                # It does not raise when a reader is in the way, it says so.
                busy = connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            except sqlite3.Error as exc:
                raise StoreUnavailableError(f"the write-ahead log could not be emptied: {exc}") from exc
            finally:
                connection.close()
        if busy:
            raise StoreUnavailableError("the write-ahead log could not be emptied: the database is busy")

    def backup(self, target: Path) -> None:
        """Copy the whole database, as it is at one moment, into a new file that only its owner can read.

        Others may read and write meanwhile; what is in the write-ahead log is in the copy. Raises `AlreadyExistsError`,
        `StoreUnavailableError`.
        """
        _make_private(target)
        try:
            with _guarded():
                connection = self._engine.raw_connection()
            # All pages in one step: in several, whoever writes in between would make it begin anew.
            with closing(connection) as source, closing(sqlite3.connect(target)) as copy:
                assert isinstance(source.driver_connection, sqlite3.Connection)
                source.driver_connection.backup(copy)
                # One file, which is whole by itself.
                copy.execute("PRAGMA journal_mode=DELETE")
            _flush(target)
        except BaseException as exc:
            target.unlink(missing_ok=True)
            if isinstance(exc, sqlite3.Error):
                raise StoreUnavailableError(f"no backup can be made at {target}: {exc}") from exc
            raise

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()


def _make_private(path: Path) -> None:
    """An empty file, made by hand, because SQLite would make it readable for everyone."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError as exc:
        raise AlreadyExistsError(f"{path} exists already and is not overwritten") from exc
    except OSError as exc:
        raise StoreUnavailableError(f"no database can be made at {path}: {exc.strerror}") from exc


def _flush(path: Path) -> None:
    """To the disk, the file and its name. Raises `StoreUnavailableError`."""
    try:
        for each in (path, path.parent):
            descriptor = os.open(each, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    except OSError as exc:
        raise StoreUnavailableError(f"{path} is not safe on the disk: {exc.strerror}") from exc


def sqlite_url(path: Path) -> URL:
    """Not put together as text, in which a `?` or a `%` of the path would mean something."""
    return URL.create("sqlite", database=str(path))


@contextmanager
def _guarded() -> Iterator[None]:
    try:
        yield
    except IntegrityError as exc:
        raise AlreadyExistsError("the database has a row of that key already") from exc
    except (DBAPIError, SQLAlchemyError, sqlite3.Error) as exc:
        cause = str(getattr(exc, "orig", exc)) or type(exc).__name__
        raise StoreUnavailableError(f"the database did not take it, nothing was written: {cause}") from exc


def _configure_sqlite(connection: Any, _record: object) -> None:  # noqa: ANN401 - the driver's own connection
    # The driver's implicit BEGIN comes too late and is DEFERRED; `_begin_sqlite` says BEGIN itself.
    connection.isolation_level = None
    for pragma in (
        f"busy_timeout={BUSY_SECONDS * 1000}",
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "secure_delete=ON",
        f"wal_autocheckpoint={CHECKPOINT_PAGES}",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    # On the driver's own connection: SQLAlchemy's way around a statement takes longer than these do.
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    if connection.get_execution_options().get("read_only", False):
        driver.execute("BEGIN")
        return
    # SQLite's own waiting sleeps longer each time, up to a tenth of a second: a process that writes often would hardly
    # let another one in.
    deadline = time.monotonic() + BUSY_SECONDS
    driver.execute("PRAGMA busy_timeout=0")
    try:
        while not _has_begun(driver, last=time.monotonic() >= deadline):
            time.sleep(TURN_SECONDS)
    finally:
        driver.execute(f"PRAGMA busy_timeout={BUSY_SECONDS * 1000}")


def _has_begun(driver: sqlite3.Connection, *, last: bool) -> bool:
    try:
        driver.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as exc:
        if last or exc.sqlite_errorcode != sqlite3.SQLITE_BUSY:
            raise
        return False
    return True


def insert_many(tx: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert many plain rows by the driver's own `executemany`: SQLAlchemy's work for each costs more than sealing it.

    Every row has the same columns, and values as the driver takes them (a `Flag` as 0 or 1).
    """
    statement, names = _insert(table, tuple(rows[0]), tx.dialect)
    tx.exec_driver_sql(
        statement, [tuple([row[name] for name in names]) for row in rows] if names else [dict(row) for row in rows]
    )


@lru_cache
def _insert(table: Table, columns: tuple[str, ...], dialect: Dialect) -> tuple[str, Sequence[str] | None]:
    """The text of an insert, and the order of its parameters where the driver wants one."""
    compiled = table.insert().values(dict.fromkeys(columns)).compile(dialect=dialect)
    return compiled.string, compiled.positiontup


def new_id(at_ms: int | None = None) -> str:
    """A UUIDv7 (RFC 9562): ordered by time, so that rows of one time are near each other."""
    milliseconds = time.time_ns() // 1_000_000 if at_ms is None else at_ms
    raw = bytearray(milliseconds.to_bytes(6) + os.urandom(10))
    raw[6] = 0x70 | raw[6] & 0x0F
    raw[8] = 0x80 | raw[8] & 0x3F
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
