"""The file of the journal of unwraps: one for all processes, appended to under a lock, one write for all of a round.

Nothing is flushed to the disk on the way of a release: what a process has written survives its death, and only a
machine that stops loses what was written in the last second (`sync` is called about once a second). It shows as a gap.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple

from ledger.errors import UnwrapsError
from ledger.private_files import leave_to_owner
from ledger.unwraps import (
    FIRST_MAC,
    HEAD_LOST,
    NOTHING,
    START,
    Head,
    follows,
    head_text,
    line_text,
    parse_head,
    parse_line,
)

PRIVATE: Final = 0o600
LOCK_SECONDS: Final = 10.0
FIRST_ALLOWANCE: Final = 16
MOST_ALLOWANCE: Final = 1024
TAIL_BYTES: Final = 4096
BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class Entry(NamedTuple):
    """What one line is to say: see `unwraps.py`."""

    use: str
    about: str
    number: int
    of: str = NOTHING


class UnwrapFile:
    """Writes the journal at `path`, and where it ends in a file beside it. Opened at the first line."""

    def __init__(self, path: Path, key: bytes, *, clock: Callable[[], int]) -> None:
        self._path, self._key, self._clock = path, key, clock
        self._mutex = threading.Lock()
        self._dirty = False
        self._forget()

    def write(self, entries: Sequence[Entry]) -> None:
        """Append lines, before what they count is done. Raises `UnwrapsError`: then it must not be done."""
        with self._mutex:
            self._write(entries)

    def tally(self, use: str) -> None:
        """Count one of what is opened often: a line for many of them, ahead. Raises `UnwrapsError`."""
        with self._mutex:
            self._require_own_process()
            if not self._left[use]:
                self._write([Entry(use, NOTHING, self._allowance[use])])
                self._left[use] = self._allowance[use]
                self._allowance[use] = min(2 * self._allowance[use], MOST_ALLOWANCE)
            self._left[use] -= 1

    def sync(self) -> None:
        """Flush to the disk what was written here since the last time. Raises `UnwrapsError`."""
        with self._mutex:
            if self._descriptor is not None and self._head_file is not None and self._dirty:
                self._dirty = False
                with _as_unwraps_error():
                    os.fdatasync(self._descriptor)
                    os.fdatasync(self._head_file)

    def close(self) -> None:
        """Give back what was counted ahead and not used. It can be written to again."""
        with self._mutex:
            if self._descriptor is None or self._head_file is None or self._process != os.getpid():
                return
            unused = [Entry(use, NOTHING, -left) for use, left in sorted(self._left.items()) if left]
            with contextlib.suppress(UnwrapsError):
                # The number stays too high then.
                self._write(unused)
            os.close(self._descriptor)
            os.close(self._head_file)
            self._forget()

    # ------------------------------------------------------------------------------------------------------ in the lock

    def _forget(self) -> None:
        self._descriptor: int | None = None
        self._head_file: int | None = None
        self._process = 0
        self._run = ""
        self._end = -1
        self._head = Head(seq=0, mac=FIRST_MAC)
        self._left: defaultdict[str, int] = defaultdict(int)
        self._allowance: defaultdict[str, int] = defaultdict(lambda: FIRST_ALLOWANCE)

    def _require_own_process(self) -> None:
        if self._process not in (0, os.getpid()):
            # Forked: what was counted ahead is the parent's, and so is its lock.
            self._forget()

    def _write(self, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        self._require_own_process()
        with _as_unwraps_error():
            if self._descriptor is None:
                self._open()
            assert self._descriptor is not None
            with _locked(self._descriptor):
                if self._end < 0:
                    self._start(self._descriptor)
                elif (end := os.fstat(self._descriptor).st_size) != self._end:
                    self._catch_up(self._descriptor, end)
                self._append(self._descriptor, entries)

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(self._path, flags | os.O_APPEND, PRIVATE)
        try:
            leave_to_owner(descriptor, self._path.parent)
            head_file = os.open(head_path(self._path), flags, PRIVATE)
        except OSError:
            # Both or none, so that the next line tries again.
            os.close(descriptor)
            raise
        leave_to_owner(head_file, self._path.parent)
        self._descriptor, self._head_file = descriptor, head_file
        self._process, self._run = os.getpid(), secrets.token_hex(8)

    def _start(self, descriptor: int) -> None:
        """The first line of this process. It says for ever what is missing before it."""
        end = os.fstat(descriptor).st_size
        found = self._last_line(descriptor, end) or Head(seq=0, mac=FIRST_MAC)
        said = self._noted_head()
        missing = max(0, said.seq - found.seq) if said else (HEAD_LOST if end else 0)
        if _torn(descriptor, end):
            # A line that the machine did not get to write whole.
            end += os.write(descriptor, b"\n")
        self._head = found
        self._append(descriptor, [Entry(START, _boot(), missing)], end=end, skipped=max(0, missing))

    def _catch_up(self, descriptor: int, end: int) -> None:
        """Another process wrote since."""
        if torn := _torn(descriptor, end):
            # It was killed while it wrote a line, which therefore counts nothing.
            end -= torn
            os.ftruncate(descriptor, end)
        found, said = self._last_line(descriptor, end), self._noted_head()
        if found is None or said is None or found.seq < max(said.seq, self._head.seq) or end < self._end:
            raise UnwrapsError(f"{self._path} was altered while it was in use: nothing is opened until a new start")
        self._head, self._end = found, end

    def _append(self, descriptor: int, entries: Sequence[Entry], *, end: int | None = None, skipped: int = 0) -> None:
        at, head, texts = self._clock(), self._head, []
        end = self._end if end is None else end
        for entry in entries:
            text, head = line_text(
                self._key,
                head,
                at=at,
                run=self._run,
                use=entry.use,
                about=entry.about,
                number=entry.number,
                of=entry.of,
                skipped=skipped,
            )
            texts.append(text)
        content = "".join(texts).encode()
        if os.write(descriptor, content) != len(content):
            os.ftruncate(descriptor, end)
            raise UnwrapsError(f"{self._path} cannot be written whole: nothing is opened")
        assert self._head_file is not None
        os.pwrite(self._head_file, head_text(self._key, head).encode(), 0)
        self._head, self._end, self._dirty = head, end + len(content), True

    def _last_line(self, descriptor: int, end: int) -> Head | None:
        """The last line that was written under this key after the line before it."""
        start = max(0, end - TAIL_BYTES)
        *lines, _torn = os.pread(descriptor, end - start, start).decode("ascii", "replace").split("\n")
        last = None
        before = FIRST_MAC if start == 0 else None
        for text in lines:
            if (line := parse_line(text)) is None:
                continue
            if before is not None and follows(self._key, before, text):
                last = Head(seq=line.seq, mac=line.mac)
            before = line.mac
        return last

    def _noted_head(self) -> Head | None:
        assert self._head_file is not None
        return parse_head(self._key, os.pread(self._head_file, 200, 0).decode("ascii", "replace"))


class Ahead:
    """What was counted already, and is to be unwrapped in the block that counted it. For many threads."""

    def __init__(self) -> None:
        self._counted: dict[Hashable, list[bytes]] = {}
        self._mutex = threading.Lock()

    @contextmanager
    def holding(self, counted: Mapping[Hashable, Sequence[bytes]]) -> Iterator[None]:
        """Until the block ends, each may be taken once, for its use."""
        with self._mutex:
            for use, keys in counted.items():
                self._counted.setdefault(use, []).extend(keys)
        try:
            yield
        finally:
            with self._mutex:
                for use, keys in counted.items():
                    left = self._counted.get(use, [])
                    for key in keys if left else ():
                        if key in left:
                            # If another block counted the same and is not through, it counts again: never too few.
                            left.remove(key)
                    if not left:
                        self._counted.pop(use, None)

    def take(self, use: Hashable, key: bytes) -> bool:
        """Whether it was counted for this use, and not taken yet."""
        with self._mutex:
            left = self._counted.get(use)
            if not left or key not in left:
                return False
            left.remove(key)
            return True


def read_files(path: Path) -> tuple[str, str | None]:
    """The journal and where it says that it ends (None if it does not say), as they were at one moment.

    Raises `UnwrapsError` if they cannot be read.
    """
    with _as_unwraps_error():
        if not path.exists():
            return "", _text_of(head_path(path))
        with path.open("rb") as file, _locked(file.fileno()):
            return file.read().decode("ascii", "replace"), _text_of(head_path(path))


def _text_of(path: Path) -> str | None:
    try:
        return path.read_bytes().decode("ascii", "replace")
    except FileNotFoundError:
        return None


def head_path(path: Path) -> Path:
    """Where the journal's end is noted."""
    return path.with_name(f"{path.name}.head")


def _torn(descriptor: int, end: int) -> int:
    """How many bytes at the end are of a line that was not written whole."""
    tail = os.pread(descriptor, TAIL_BYTES, max(0, end - TAIL_BYTES))
    return len(tail) - tail.rfind(b"\n") - 1


@contextmanager
def _locked(descriptor: int) -> Iterator[None]:
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise UnwrapsError("another process keeps the journal of unwraps") from None
            time.sleep(0.0005)
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


@contextmanager
def _as_unwraps_error() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise UnwrapsError(f"unwraps cannot be counted, so nothing is opened: {exc.strerror}") from exc


def _boot() -> str:
    """Which start of the machine this is; `-` where that cannot be known."""
    try:
        return sha256(BOOT_ID.read_bytes()).hexdigest()[:16]
    except OSError:
        return NOTHING
