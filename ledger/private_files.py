"""Files that only their owner can read: keys, and what is as private."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from ledger.errors import AlreadyExistsError

PRIVATE: Final = 0o600


def write_private_file(path: Path, text: str) -> None:
    """Write a new file that only its owner can read. Raises `AlreadyExistsError`."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
    except FileExistsError as exc:
        raise AlreadyExistsError(f"{path} exists already and is not overwritten") from exc
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
