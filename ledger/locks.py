"""Locks between processes of one machine: a file, held by `flock`, which the kernel lets go when its holder dies.

A lane (an account that sends transactions) has one holder at a time, so that no two payloads share a nonce and a log
has one batch in flight. That a lock is free says that its last holder is gone: its unfinished work may be taken up.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ledger.errors import StoreUnavailableError
from ledger.private_files import leave_to_owner, private_directory


class FileLock:
    """Not re-entrant, and not for threads (they need a lock of their own). Exclusive unless `shared`."""

    def __init__(self, path: Path, *, shared: bool = False) -> None:
        self._path = path
        self._kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Take it if it is free. Returns whether it was. Raises `StoreUnavailableError` where there can be no file."""
        try:
            private_directory(self._path.parent)
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise StoreUnavailableError(f"no lock file at {self._path}: {exc.strerror}") from exc
        try:
            leave_to_owner(descriptor, self._path.parent)
            fcntl.flock(descriptor, self._kind | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        except OSError as exc:
            os.close(descriptor)
            raise StoreUnavailableError(f"{self._path} cannot be locked: {exc.strerror}") from exc
        self._descriptor = descriptor
        # Said exactly: the kernel's own idea of now is some milliseconds old.
        now = time.time_ns()
        os.utime(descriptor, ns=(now, now))
        return True

    def held_since_ms(self) -> int:
        """When whoever has it took it, or had it last: milliseconds of Unix time, 0 if nobody ever did."""
        try:
            return self._path.stat().st_mtime_ns // 1_000_000
        except FileNotFoundError:
            return 0
        except OSError as exc:
            raise StoreUnavailableError(f"no lock file at {self._path}: {exc.strerror}") from exc

    def release(self) -> None:
        """Let it go."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def wait(self, *, timeout: float) -> None:
        """Wait for it. Raises `StoreUnavailableError` if another process keeps it for longer than `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not self.acquire():
            if time.monotonic() >= deadline:
                raise StoreUnavailableError(f"another process holds {self._path.name}")
            time.sleep(0.01)

    @contextmanager
    def hold(self, *, timeout: float) -> Iterator[None]:
        """Have it for the length of a block. Raises as `wait` does."""
        self.wait(timeout=timeout)
        try:
            yield
        finally:
            self.release()
