"""The journal of unwraps: how often keys were used to open envelopes, and why; a file that shows what was done to it.

Pure: the form of its lines, and how they are verified. `unwrap_file.py` writes it, beside the key file and outside the
database. One line is one use, and is written before the key is unwrapped:

    1 <seq> <time> <run> <use> <about> <number> <of> <mac>

    seq     1, 2, 3, ...; a gap is only ever before a `start`
    run     the process that wrote it, at random
    use     what for: see `Use` in `envelope.py`; or `start`
    about   the release's id for a release or an order; for `start` the boot of the machine; otherwise `-`
    number  of envelopes, at most; for `start`: of lines that others wrote and that are not there any more
    of      which envelopes: `<kek id>:<keyed hash of the wrapped keys>` for a release; it dies with its KEK
    mac     HMAC-SHA256 (the first 16 bytes) over the last line's mac and this line, under a key in the key file

What is opened often and is no attribute (a consent's terms, a session) is counted in advance: a line says how many may
follow, and one with a negative number at the end how many did not. A process that is killed leaves a number that is too
high, never one that is too low. A second file has the last line's seq and mac, so that a tail that was cut shows.

It counts what the key service was asked for, under the name that it was asked by. A program that reads the KEK from the
key file itself is in no line: that takes keys that no file gives away (an HSM, a KMS), whose own log then is the count.
"""

from __future__ import annotations

import hmac
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

START: Final = "start"
NOTHING: Final = "-"
HEAD_LOST: Final = -1
"""The number in a `start` that found lines and no head: what was cut, if anything, cannot be told."""
MAC_DIGITS: Final = 32
FIRST_MAC: Final = "0" * MAC_DIGITS
MAX_TOLD: Final = 20
_LINE: Final = re.compile(
    r"1 (?P<seq>[1-9][0-9]{0,18}) (?P<at>[0-9]{1,12}) (?P<run>[0-9a-f]{16}) (?P<use>[a-z-]{1,32}) "
    r"(?P<about>-|0x[0-9a-f]{64}|[0-9a-f]{16}) (?P<number>-?[0-9]{1,18}) (?P<of>-|[a-zA-Z0-9-]{1,32}:[0-9a-f]{32}) "
    r"(?P<mac>[0-9a-f]{32})\Z"
)
_HEAD: Final = re.compile(r"1 (?P<seq>[0-9]{19}) (?P<mac>[0-9a-f]{32}) (?P<own>[0-9a-f]{32})\n\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line, as it was written. `at` is Unix seconds."""

    seq: int
    at: int
    run: str
    use: str
    about: str
    number: int
    of: str
    mac: str


class Head(NamedTuple):
    """Where the journal ends: the last line's number and mac. Kept elsewhere, it shows later that nothing was cut."""

    seq: int
    mac: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Lines that are not there any more: `number` of them after line `seq`, between two times (Unix seconds).

    `machine_stopped`: the machine was started anew in between, so that they may never have reached the disk; how many
    there were may then be unknown, and `number` 0.
    """

    seq: int
    number: int
    after: int
    before: int
    machine_stopped: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """A journal that was read. `altered` says in words what does not hold; empty if all of it does."""

    lines: tuple[Line, ...]
    gaps: tuple[Gap, ...]
    altered: tuple[str, ...]
    head: Head

    def by_use(self) -> dict[str, int]:
        """How many envelopes were opened at most, by use."""
        total: Counter[str] = Counter()
        for line in self.lines:
            if line.use != START:
                total[line.use] += line.number
        return dict(sorted(total.items()))


def line_text(
    key: bytes, last: Head, *, at: int, run: str, use: str, about: str, number: int, of: str, skipped: int = 0
) -> tuple[str, Head]:
    """The next line after `last`, with its line break, and the head that it makes."""
    seq = last.seq + skipped + 1
    text = f"1 {seq} {at} {run} {use} {about} {number} {of} "
    mac = _mac(key, last.mac, text)
    return f"{text}{mac}\n", Head(seq=seq, mac=mac)


def head_text(key: bytes, head: Head) -> str:
    """What the second file holds: always as long."""
    text = f"1 {head.seq:019d} {head.mac} "
    return f"{text}{_mac(key, 'head', text)}\n"


def parse_head(key: bytes, text: str) -> Head | None:
    """None if it is not one that was made under this key."""
    found = _HEAD.match(text)
    head = Head(seq=int(found["seq"]), mac=found["mac"]) if found else None
    return head if head and hmac.compare_digest(head_text(key, head), text) else None


def parse_line(text: str) -> Line | None:
    """A line by its form; whether its mac is right is another question."""
    found = _LINE.match(text)
    if found is None:
        return None
    return Line(
        seq=int(found["seq"]),
        at=int(found["at"]),
        run=found["run"],
        use=found["use"],
        about=found["about"],
        number=int(found["number"]),
        of=found["of"],
        mac=found["mac"],
    )


def follows(key: bytes, mac: str, text: str) -> bool:
    """Whether a line was written under this key after the line with this mac."""
    own = text[-MAC_DIGITS:]
    return hmac.compare_digest(_mac(key, mac, text[:-MAC_DIGITS]), own)


def mark_of(kek_id: str, key: bytes, wrapped: Sequence[bytes]) -> str:
    """Which envelopes these are, by their wrapped keys, in whatever order."""
    return f"{kek_id}:{hmac.digest(key, b''.join(sorted(wrapped)), 'sha256')[:16].hex()}"


def _mac(key: bytes, last: str, text: str) -> str:
    return hmac.digest(key, f"{last}\n{text}".encode(), "sha256")[: MAC_DIGITS // 2].hex()


# ------------------------------------------------------------------------------------------------------------- reading


def read_unwraps(content: str, head: str | None, key: bytes, *, known: Sequence[Head] = ()) -> Counted:
    """Verify a journal from first line to last. `head` is the second file; `known` what was seen of it before."""
    reader = _Reader(key)
    lines = content.split("\n")
    torn = lines.pop()
    for text in lines:
        reader.take(text)
    if parse_line(torn):
        reader.take(torn)
    # Otherwise a process was killed while it wrote a line, and did nothing after it: where the journal ends says so.
    reader.end(head, known)
    return Counted(
        lines=tuple(reader.lines),
        gaps=tuple(reader.gaps),
        altered=tuple(reader.altered[:MAX_TOLD]),
        head=Head(seq=reader.seq, mac=reader.mac),
    )


class _Reader:
    """Follows the chain. What does not fit is told, and the chain taken up again behind it."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self.lines: list[Line] = []
        self.gaps: list[Gap] = []
        self.altered: list[str] = []
        self.seq, self.mac = 0, FIRST_MAC
        self._at = 0
        self._boot = NOTHING
        self._left: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._broken: Line | str | None = None
        self._macs: dict[int, str] = {}

    def take(self, text: str) -> None:
        line = parse_line(text)
        if line is not None and follows(self._key, self.mac, text):
            self._accept(line)
        elif line is not None and isinstance(self._broken, Line) and follows(self._key, self._broken.mac, text):
            # The one before it was altered, and its mac left as it was.
            self.seq = self._broken.seq
            self._tell_broken()
            self._accept(line)
        else:
            self._tell_broken()
            self._broken = line or text

    def _accept(self, line: Line) -> None:
        stopped = line.use == START and NOTHING not in (line.about, self._boot) and line.about != self._boot
        if not (line.use == START and isinstance(self._broken, str)):
            # Half a line before a start that follows the line before it was never a whole one.
            self._tell_broken()
        self._broken = None
        missing = line.number if line.use == START and line.number > 0 else 0
        if line.seq != self.seq + missing + 1:
            self.altered.append(f"line {line.seq} follows line {self.seq}")
        if missing or stopped:
            gap = Gap(seq=self.seq, number=missing, after=self._at, before=line.at, machine_stopped=stopped)
            self.gaps.append(gap)
        if line.use == START:
            self._boot = line.about
            if line.number == HEAD_LOST:
                self.altered.append(f"before line {line.seq} the file that says where the journal ends was gone")
        else:
            whose = (line.run, line.use)
            self._left[whose] += line.number
            if self._left[whose] < 0:
                self.altered.append(f"line {line.seq} takes back more than was counted")
        self.seq, self.mac, self._at = line.seq, line.mac, line.at
        self._macs[line.seq] = line.mac
        self.lines.append(line)

    def _tell_broken(self) -> None:
        if self._broken is not None:
            number = self._broken.seq if isinstance(self._broken, Line) else self.seq + 1
            self.altered.append(f"line {number} is not as it was written, or not where it was")
            if isinstance(self._broken, Line):
                # What follows hangs on it, whatever it says.
                self.seq, self.mac = self._broken.seq, self._broken.mac
            self._broken = None

    def end(self, head: str | None, known: Sequence[Head]) -> None:
        self._tell_broken()
        said = parse_head(self._key, head) if head is not None else None
        if said is None and (self.seq or head is not None):
            self.altered.append("the file that says where the journal ends is gone, or not as it was written")
        elif said is not None and said.seq > self.seq:
            gap = Gap(seq=self.seq, number=said.seq - self.seq, after=self._at, before=self._at, machine_stopped=False)
            self.gaps.append(gap)
        elif said is not None and said.seq and self._macs.get(said.seq) != said.mac:
            self.altered.append(f"line {said.seq} is another one than the end that was noted")
        for one in known:
            if one.seq and self._macs.get(one.seq) != one.mac:
                self.altered.append(
                    f"line {one.seq} is not the one that was known: the journal was put back or rewritten"
                )
