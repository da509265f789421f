"""Files that only their owner can read: keys, and what is as private."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryFile
from typing import Final

from ledger.errors import AlreadyExistsError, StoreUnavailableError

PRIVATE: Final = 0o600
ROOM: Final = 2**16


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


def replace_private_file(path: Path, text: str) -> None:
    """Atomic: a crash leaves the old file or the new one, never half of either, and the owner stays who it was.

    Raises `OSError`, and leaves the old one. The caller sees to it that nobody else replaces it meanwhile.
    """
    draft = path.with_name(f"{path.name}.draft")
    # One that a crash left behind may hold what was to be destroyed.
    draft.unlink(missing_ok=True)
    write_private_file(draft, text)
    try:
        _keep_owner(draft, path)
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _keep_owner(draft: Path, path: Path) -> None:
    """The superuser must not take a file from the account that a service runs as."""
    owner = path.stat()
    if draft.stat().st_uid == owner.st_uid:
        return
    try:
        os.chown(draft, owner.st_uid, owner.st_gid)
    except OSError as exc:
        raise OSError(exc.errno, f"it belongs to user {owner.st_uid}, do this as that user", str(path)) from exc


def require_room(directory: Path) -> None:
    """See whether a little can still be written in there. Raises `StoreUnavailableError`."""
    try:
        with TemporaryFile(dir=directory) as file:
            file.write(bytes(ROOM))
    except OSError as exc:
        raise StoreUnavailableError(f"nothing can be written in {directory}: {exc.strerror}") from exc


def private_directory(directory: Path) -> None:
    """Make one that only the owner of the directory above can enter, unless it is there. Raises `OSError`."""
    if directory.exists():
        return
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        leave_to_owner(descriptor, directory.parent)
    finally:
        os.close(descriptor)


def leave_to_owner(descriptor: int, directory: Path) -> None:
    """Give what was just made in it to the owner of a directory. Raises `OSError`.

    What the superuser makes beside a service, an account of less rights could not open otherwise.
    """
    if os.geteuid() == 0:
        owner = directory.stat()
        if os.fstat(descriptor).st_uid != owner.st_uid:
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
