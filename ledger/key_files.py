"""Key files: JSON of one version, outside the database, mode 0600, replaced atomically and by one process at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from ledger.errors import KeyFileError
from ledger.locks import FileLock
from ledger.private_files import replace_private_file, write_private_file

FILE_VERSION: Final = 1
LOCK_SECONDS: Final = 10.0


def create_key_file(path: Path, content: dict[str, Any]) -> None:
    """Write a new one. Raises `AlreadyExistsError`: a key file is never overwritten."""
    write_private_file(path, json.dumps({"version": FILE_VERSION, **content}, indent=1))


def read_key_file(path: Path) -> dict[str, Any]:
    """Raises `KeyFileError`."""
    require_private(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise unreadable(path, exc) from exc
    except (ValueError, RecursionError) as exc:
        raise KeyFileError(f"{path} cannot be read as a key file") from exc
    if not isinstance(content, dict) or content.get("version") != FILE_VERSION:
        raise KeyFileError(f"{path}: expected a key file of version {FILE_VERSION}")
    return content


@contextmanager
def changing_key_file(path: Path) -> Iterator[dict[str, Any]]:
    """What is in it, which takes its place at the end of the block. Raises `KeyFileError`, and leaves the old file.

    Of two processes that change it at once, the second sees what the first wrote, so neither drops the other's key.
    """
    with FileLock(path.with_name(f"{path.name}.lock")).hold(timeout=LOCK_SECONDS):
        content = read_key_file(path)
        yield content
        try:
            replace_private_file(path, json.dumps(content, indent=1))
        except OSError as exc:
            raise KeyFileError(f"{path} cannot be replaced, nothing was changed: {exc.strerror}") from exc


def require_private(path: Path) -> None:
    """Raise `KeyFileError` unless it is there and its owner's alone."""
    try:
        mode = path.stat().st_mode
    except OSError as exc:
        raise unreadable(path, exc) from exc
    if mode & 0o077:
        raise KeyFileError(f"{path} can be read by others: expected mode 0600 (chmod 600 {path})")


def unreadable(path: Path, exc: OSError) -> KeyFileError:
    """What it means that the file could not be read."""
    if isinstance(exc, FileNotFoundError):
        return KeyFileError(f"no key file at {path}: run `consent-ledger init`, or name the right one")
    return KeyFileError(f"{path} cannot be read as a key file: {exc.strerror}")
