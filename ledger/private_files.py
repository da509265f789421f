"""Files that only their owner can read: keys, and what is as private."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from ledger.errors import AlreadyExistsError

PRIVATE: Final = 0o600


def write_private_file(path: Path, text: str) -> None:
    """Write a new file that only its owner can read, or none. Raises `AlreadyExistsError`, `OSError` with its name."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
    except FileExistsError as exc:
        raise AlreadyExistsError(f"{path} exists already and is not overwritten") from exc
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except BaseException as exc:
        # Half a file would be in the way of the next try, and "no space left" without a name says little.
        path.unlink(missing_ok=True)
        if isinstance(exc, OSError):
            raise OSError(exc.errno, exc.strerror, str(path)) from exc
        raise
