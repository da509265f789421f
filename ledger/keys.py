"""Key files of the custodian. Both live outside the database, mode 0600, and are replaced atomically.

- `KeyFile` (`keys/kek.json`): the KEKs that wrap every DEK, and the index key under which identifiers are looked up.
  The default `KeyWrapper`; an HSM or a KMS takes its place without a change elsewhere. What it unwraps is counted in
  `keys/unwraps.log`, see `unwraps.py`.
- `AccountFile` (`keys/accounts.json`): the custodian's EVM accounts (one for each lane, so that a revocation never
  queues behind an access) and the key that signs answers and receipts.

Key wrap is AES-256-KW (RFC 3394, NIST SP 800-38F): deterministic, so there is no nonce budget to watch.
"""

from __future__ import annotations

import hmac
import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap
from eth_account import Account
from eth_account.signers.local import LocalAccount
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from ledger.envelope import DISCLOSURE, OPENING, Use, WrappedKey
from ledger.errors import IntegrityError, KeyFileError, KeyUnavailableError
from ledger.locks import FileLock
from ledger.private_files import replace_private_file, write_private_file
from ledger.unwrap_file import Ahead, Entry, UnwrapFile
from ledger.unwraps import NOTHING, mark_of

FILE_VERSION: Final = 1
KEY_BYTES: Final = 32
WRITERS: Final = 8
LOOK_AGAIN_SECONDS: Final = 1.0
LOCK_SECONDS: Final = 10.0
UNWRAPS: Final = "unwraps.log"
_COUNTED_AHEAD: Final = frozenset({OPENING, DISCLOSURE})
"""Uses for what is opened often and is no attribute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnwrapsKey:
    """Under which the journal of unwraps is written, and since when (Unix seconds) unwraps are counted at all."""

    key: bytes = field(repr=False)
    since: int


class KeyFile:
    """KEKs in a local file. Re-reads the file when another process has rotated it."""

    def __init__(self, path: Path, *, clock: Callable[[], int] = lambda: int(time.time())) -> None:
        self._path, self._clock = path, clock
        self._unwraps_key: UnwrapsKey | None = None
        self._unwraps: UnwrapFile | None = None
        self._ahead = Ahead()
        self._stamp: tuple[int, ...] = ()
        self._looked = float("-inf")
        self._keks: dict[str, bytes] = {}
        self._mark_keys: dict[str, bytes] = {}
        self._index_key = b""
        self._active = ""
        self._refresh()

    @classmethod
    def create(cls, path: Path) -> KeyFile:
        """Make a key file with one KEK. Raises `AlreadyExistsError`: a key file is never overwritten."""
        # From the beginning: nothing was ever opened with it.
        _create(path, {"index_key": secrets.token_hex(32), "unwraps": _new_unwraps_key(0), **_new_kek({})})
        return cls(path)

    @property
    def active_kek_id(self) -> str:
        """The KEK that new envelopes are wrapped under."""
        self._refresh(now=True)
        return self._active

    @property
    def kek_ids(self) -> list[str]:
        """Every KEK held, retired ones included."""
        self._refresh(now=True)
        return sorted(self._keks)

    def look_again(self) -> None:
        """Read the file now, whether or not it seems to have changed. Raises `KeyFileError`."""
        self._stamp = ()
        self._refresh(now=True)

    def wrap(self, dek: bytes) -> WrappedKey:
        """Wrap under the active KEK."""
        self._refresh()
        return WrappedKey(self._active, aes_key_wrap(self._keks[self._active], dek))

    def unwrap(self, key: WrappedKey, use: Use) -> bytes:
        """Raises `KeyUnavailableError` for a KEK that is not here, `IntegrityError` if the wrapped key was altered.

        `UnwrapsError` if it cannot be counted.
        """
        kek = self._keks.get(key.kek_id)
        if kek is None:
            self._refresh(now=True)
            kek = self._keks.get(key.kek_id)
        if kek is None:
            raise KeyUnavailableError(f"no KEK {key.kek_id} in the key file")
        if use in _COUNTED_AHEAD:
            self._journal().tally(use.name)
        elif not self._ahead.take(use, key.wrapped_dek):
            self._journal().write([self._entry(use, [key])])
        try:
            return aes_key_unwrap(kek, key.wrapped_dek)
        except (InvalidUnwrap, ValueError) as exc:
            raise IntegrityError("an envelope does not open") from exc

    @contextmanager
    def counting(self, uses: Mapping[Use, Sequence[WrappedKey]]) -> Iterator[None]:
        """Count at once what the block will unwrap: one write, however many there are. Raises `UnwrapsError`."""
        self._journal().write([self._entry(use, keys) for use, keys in uses.items() if keys])
        with self._ahead.holding({use: [key.wrapped_dek for key in keys] for use, keys in uses.items()}):
            yield

    def sync_unwraps(self, *, end: bool = False) -> None:
        """Flush the journal of unwraps to the disk, about once a second; or end this process's part of it.

        Raises `UnwrapsError`.
        """
        if self._unwraps is not None:
            (self._unwraps.close if end else self._unwraps.sync)()

    def mark(self, keys: Sequence[WrappedKey]) -> str:
        """Which envelopes these are, as the journal of unwraps says it; `-` if that cannot be said (any more).

        Under a key that dies with the KEK: after an erasure and a rotation, no backup leads from a line to a person.
        """
        kek_id = keys[0].kek_id
        mark_key = self._mark_keys.get(kek_id)
        if mark_key is None or any(key.kek_id != kek_id for key in keys):
            return NOTHING
        return mark_of(kek_id, mark_key, [key.wrapped_dek for key in keys])

    def unwraps_key(self) -> UnwrapsKey:
        """The journal's key. One is made if the key file is older than the journal. Raises `KeyFileError`."""
        if self._unwraps_key is None:
            with self._changing() as content:
                if "unwraps" not in content:
                    content["unwraps"] = _new_unwraps_key(self._clock())
            self._refresh(now=True)
        assert self._unwraps_key is not None, "it was read or made"
        return self._unwraps_key

    @property
    def unwraps_path(self) -> Path:
        """Where the journal is."""
        return self._path.with_name(UNWRAPS)

    def _journal(self) -> UnwrapFile:
        if self._unwraps is None:
            self._unwraps = UnwrapFile(self.unwraps_path, self.unwraps_key().key, clock=self._clock)
        return self._unwraps

    def _entry(self, use: Use, keys: Sequence[WrappedKey]) -> Entry:
        return Entry(use.name, use.about, len(keys), self.mark(keys) if use.about != NOTHING else NOTHING)

    def index(self, kind: str, identifier: str) -> str:
        """Keyed hash (HMAC-SHA256) under which an identifier is stored and found; `kind` separates the uses."""
        return hmac.digest(self._index_key, f"{kind}\n{identifier}".encode(), "sha256").hex()

    def rotate(self) -> str:
        """Add a KEK and make it the active one; the others stay until `destroy`. Returns its id."""
        with self._changing() as content:
            content.update(_new_kek(content["keks"]))
        return self.active_kek_id

    def destroy(self, kek_id: str) -> None:
        """Forget a retired KEK for ever: what is still wrapped under it, backups included, cannot be read again."""
        with self._changing() as content:
            if kek_id == content["active"]:
                raise KeyFileError("the active KEK cannot be destroyed")
            content["keks"].pop(kek_id, None)
        self._refresh(now=True)

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Any]]:
        # Two processes that change it at once would each drop the KEK that the other one is already wrapping under.
        with FileLock(self._path.with_name(f"{self._path.name}.lock")).hold(timeout=LOCK_SECONDS):
            self._refresh(now=True)
            content = _read(self._path)
            yield content
            _replace(self._path, content)

    def _refresh(self, *, now: bool = False) -> None:
        # A look at the file costs as much as a wrap. A KEK is destroyed only when no other process is at work, so one
        # that retired a second ago is still good.
        moment = time.monotonic()
        if not now and moment - self._looked < LOOK_AGAIN_SECONDS:
            return
        self._looked = moment
        try:
            found = self._path.stat()
        except OSError as exc:
            raise _unreadable(self._path, exc) from exc
        # The time alone is too coarse: two changes can fall into one tick of the file system's clock.
        stamp = (found.st_mtime_ns, found.st_ino, found.st_size)
        if stamp == self._stamp:
            return
        content = _read(self._path)
        try:
            keks = {kek_id: bytes.fromhex(kek) for kek_id, kek in content["keks"].items()}
            index_key = bytes.fromhex(content["index_key"])
            active = content["active"]
            unwraps = _unwraps_key(content["unwraps"]) if "unwraps" in content else None
            if active not in keks or any(len(kek) != KEY_BYTES for kek in (*keks.values(), index_key)):
                raise KeyFileError(f"{self._path} is not a key file")
        except (KeyError, ValueError, AttributeError, TypeError) as exc:
            raise KeyFileError(f"{self._path} is not a key file") from exc
        self._keks, self._index_key, self._active, self._stamp = keks, index_key, active, stamp
        self._mark_keys = {kek_id: hmac.digest(kek, b"unwraps", "sha256") for kek_id, kek in keks.items()}
        self._unwraps_key = unwraps


@dataclass(frozen=True, slots=True)
class Accounts:
    """The custodian's accounts. `custodian` is the one that grants name; the others only pay gas and append."""

    custodian: LocalAccount
    grants: LocalAccount
    revocations: LocalAccount
    writers: tuple[LocalAccount, ...]
    signing_key: ECKey = field(repr=False)

    @classmethod
    def create(cls, path: Path) -> Accounts:
        """Make new accounts. Raises `AlreadyExistsError`."""
        names = ["custodian", "grants", "revocations", *(f"writer-{i}" for i in range(WRITERS))]
        signing_key = ECKey.generate_key("P-256", {"use": "sig", "alg": "ES256"}, auto_kid=True)
        _create(
            path,
            {
                "accounts": {name: "0x" + secrets.token_hex(32) for name in names},
                "signing_key": signing_key.as_dict(private=True),
            },
        )
        return cls.load(path)

    @classmethod
    def load(cls, path: Path) -> Accounts:
        """Raises `KeyFileError`."""
        content = _read(path)
        try:
            accounts = {name: Account.from_key(key) for name, key in content["accounts"].items()}
            return cls(
                custodian=accounts["custodian"],
                grants=accounts["grants"],
                revocations=accounts["revocations"],
                writers=tuple(accounts[name] for name in sorted(accounts) if name.startswith("writer-")),
                signing_key=_signing_key(content["signing_key"]),
            )
        except (JoseError, KeyError, ValueError, AttributeError, TypeError):
            # Not chained: what the libraries below say of a key may repeat it.
            raise KeyFileError(f"{path} is not an account file") from None

    @classmethod
    def add_writer(cls, path: Path) -> LocalAccount:
        """Make one more writer's account in that file. Raises `KeyFileError`, and leaves the old file."""
        with FileLock(path.with_name(f"{path.name}.lock")).hold(timeout=LOCK_SECONDS):
            taken = len(cls.load(path).writers)
            key = "0x" + secrets.token_hex(32)
            content = _read(path)
            content["accounts"][f"writer-{taken}"] = key
            _replace(path, content)
        account: LocalAccount = Account.from_key(key)
        return account

    def every(self) -> tuple[LocalAccount, ...]:
        """All that need gas."""
        return (self.custodian, self.grants, self.revocations, *self.writers)


def _signing_key(fields: dict[str, Any]) -> ECKey:
    key = ECKey.import_key(fields)
    if not key.is_private:
        raise ValueError("expected a private key")
    return key


def read_private_key(path: Path) -> bytes:
    """A subject's key from a local file, for scripts: 64 hex digits, mode 0600. Raises `KeyFileError`."""
    _require_private(path)
    try:
        key = bytes.fromhex(path.read_text(encoding="utf-8").strip().removeprefix("0x"))
        Account.from_key(key)
    except Exception:  # noqa: BLE001 - eth-account raises types of its own
        # Not chained: what the libraries below say of a key may repeat it.
        raise KeyFileError(f"{path}: expected a private key, 64 hex digits") from None
    return key


def _new_kek(keks: dict[str, str]) -> dict[str, Any]:
    kek_id = f"kek-{secrets.token_hex(4)}"
    return {"active": kek_id, "keks": {**keks, kek_id: secrets.token_hex(32)}}


def _new_unwraps_key(now: int) -> dict[str, Any]:
    return {"key": secrets.token_hex(32), "since": now}


def _unwraps_key(fields: dict[str, Any]) -> UnwrapsKey:
    """Raises `KeyError`, `ValueError`, `TypeError`."""
    key, since = bytes.fromhex(fields["key"]), fields["since"]
    if len(key) != KEY_BYTES or not isinstance(since, int):
        raise ValueError("not the key of a journal of unwraps")
    return UnwrapsKey(key=key, since=since)


def _create(path: Path, content: dict[str, Any]) -> None:
    write_private_file(path, json.dumps({"version": FILE_VERSION, **content}, indent=1))


def _replace(path: Path, content: dict[str, Any]) -> None:
    """The caller holds the lock. Raises `KeyFileError`, and leaves the old file."""
    try:
        replace_private_file(path, json.dumps(content, indent=1))
    except OSError as exc:
        raise KeyFileError(f"{path} cannot be replaced, nothing was changed: {exc.strerror}") from exc


def _unreadable(path: Path, exc: OSError) -> KeyFileError:
    if isinstance(exc, FileNotFoundError):
        return KeyFileError(f"no key file at {path}: run `consent-ledger init`, or name the right one")
    return KeyFileError(f"{path} cannot be read as a key file: {exc.strerror}")


def _require_private(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as exc:
        raise _unreadable(path, exc) from exc
    if mode & 0o077:
        raise KeyFileError(f"{path} can be read by others: expected mode 0600 (chmod 600 {path})")


def _read(path: Path) -> dict[str, Any]:
    _require_private(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise _unreadable(path, exc) from exc
    except (ValueError, RecursionError) as exc:
        raise KeyFileError(f"{path} cannot be read as a key file") from exc
    if not isinstance(content, dict) or content.get("version") != FILE_VERSION:
        raise KeyFileError(f"{path}: expected a key file of version {FILE_VERSION}")
    return content
