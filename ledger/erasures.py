"""Who was erased, beside the keys: so that an older backup of the database brings nobody back.

A line for each erasure: when it was (Unix seconds), and the keyed hash of the person's reference, which is what the
tombstone in the database has as well. Nothing else; without the key file it leads to no one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ledger.errors import KeyFileError
from ledger.private_files import leave_to_owner

ERASURES: Final = "erasures.log"
PRIVATE: Final = 0o600
_LINE: Final = re.compile(r"(\d{1,12}) ([0-9a-f]{64})")


class ErasureFile:
    """The file at `path`, appended to by whichever process erases someone. Made by the first erasure."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> dict[str, int]:
        """The keyed hash of everyone who was erased, and when. Raises `KeyFileError`."""
        try:
            lines = self._path.read_text(encoding="ascii", errors="replace").split("\n")
        except FileNotFoundError:
            return {}
        except OSError as exc:
            raise KeyFileError(f"{self._path} cannot be read: {exc.strerror}") from exc
        # A line that was not written whole is missing, and comes again from the tombstone.
        found = [match for line in lines if (match := _LINE.fullmatch(line))]
        return {match[2]: int(match[1]) for match in found}

    def add(self, erased: Mapping[str, int]) -> None:
        """Write these down, on the disk when it returns. Raises `KeyFileError`."""
        if not erased:
            return
        # Each begins a line of its own, whatever a crash left at the end.
        content = ("".join(f"\n{at} {ref_index}" for ref_index, at in erased.items()) + "\n").encode("ascii")
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, PRIVATE)
            try:
                leave_to_owner(descriptor, self._path.parent)
                if os.write(descriptor, content) != len(content):
                    raise KeyFileError(f"{self._path} cannot be written whole")
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as exc:
            raise KeyFileError(f"{self._path} cannot be written: {exc.strerror}") from exc
