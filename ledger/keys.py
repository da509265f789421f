"""The custodian's keys (`keys/kek.json`): the KEKs that wrap every DEK, and the key that identifiers are found by.

`KeyFile` is the default `KeyWrapper`; an HSM or a KMS takes its place without a change elsewhere. What it unwraps is
counted in `keys/unwraps.log`, see `unwraps.py`.

Key wrap is AES-256-KW (RFC 3394, NIST SP 800-38F): deterministic, so there is no nonce budget to watch.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from ledger.envelope import DISCLOSURE, OPENING, Use, WrappedKey
from ledger.errors import IntegrityError, KeyFileError, KeyUnavailableError
from ledger.key_files import changing_key_file, create_key_file, read_key_file, unreadable
from ledger.unwrap_file import Ahead, Entry, UnwrapFile
from ledger.unwraps import NOTHING, mark_of

KEY_BYTES: Final = 32
LOOK_AGAIN_SECONDS: Final = 1.0
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
        create_key_file(path, {"index_key": secrets.token_hex(32), "unwraps": _new_unwraps_key(0), **_new_kek({})})
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
        with changing_key_file(self._path) as content:
            self._refresh(now=True)
            yield content

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
            raise unreadable(self._path, exc) from exc
        # The time alone is too coarse: two changes can fall into one tick of the file system's clock.
        stamp = (found.st_mtime_ns, found.st_ino, found.st_size)
        if stamp == self._stamp:
            return
        content = read_key_file(self._path)
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
