"""A witness: an auditor's key, and what it signed last, on disk before anyone is given the signature.

A witness signs nothing that contradicts what it signed before: no earlier block, no other hash of one block, no log
that shrank or turned into another. Its memory is one signed note for each contract, under its own key, so that a file
that was altered shows. One that was put back to an older one does not, and one that is gone must be said to be
(`first`): whoever can write to the witness's disk can make it forget, so it is best kept where the custodian cannot.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from ledger.checkpoint import Checkpoint, compare, open_checkpoint
from ledger.consent import Domain
from ledger.errors import (
    AuditError,
    CheckpointInconsistentError,
    KeyFileError,
    SplitViewError,
    UnreadableFileError,
)
from ledger.locks import FileLock
from ledger.private_files import write_private_file
from ledger.signed_note import KEY_LENGTH, NoteSigner

LOCK_SECONDS: Final = 10.0
_OTHERS: Final = 0o077


class Witness:
    """Signs checkpoints with one key. `memory` is a directory of its own."""

    def __init__(self, signer: NoteSigner, memory: Path) -> None:
        self._signer, self._memory = signer, memory

    def last(self, domain: Domain) -> Checkpoint | None:
        """What was signed last about a contract; None if nothing is there. Raises `AuditError` if it was altered."""
        try:
            note = self._path(domain).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as exc:
            raise UnreadableFileError(f"{self._path(domain)} cannot be read", field="memory") from exc
        last, _ = open_checkpoint(note, [self._signer.key])
        if last.domain != domain:
            raise AuditError(f"{self._path(domain)} is about another contract")
        return last

    def sign(
        self, checkpoint: Checkpoint, *, follows: Checkpoint | None, note: str | None = None, first: bool = False
    ) -> str:
        """The note with this witness's signature: a new one, or `note` with one signature more.

        `follows` is the checkpoint that the chain was shown to lead from, which must be the last one signed here;
        `first` says that there is none and that none was lost. Raises `SplitViewError`, `CheckpointInconsistentError`
        (also for an earlier block), `AuditError`.
        """
        path = self._path(checkpoint.domain)
        with FileLock(path.with_suffix(".lock")).hold(timeout=LOCK_SECONDS):
            last = self.last(checkpoint.domain)
            if last is None and not first:
                raise AuditError(f"nothing was signed before, or {path} is gone: a first time must be said to be one")
            if last != follows:
                raise AuditError("not shown to follow what was signed last")
            if last is not None:
                require_successor(last, checkpoint)
            signed = self._signer.cosign(note) if note is not None else self._signer.sign(checkpoint.text())
            if open_checkpoint(signed, [self._signer.key])[0] != checkpoint:
                # What is given out must be what is remembered.
                raise AuditError("the note says something else than what was checked")
            _keep(path, self._signer.sign(checkpoint.text()))
        return signed

    def _path(self, domain: Domain) -> Path:
        return self._memory / f"{domain.chain_id}-{domain.contract.lower()}.note"


def require_successor(last: Checkpoint, checkpoint: Checkpoint) -> None:
    """Raises `SplitViewError`, `CheckpointInconsistentError` unless the one can have come after the other."""
    for finding in compare(last, checkpoint):
        kind = SplitViewError if finding.code == SplitViewError.code else CheckpointInconsistentError
        raise kind(f"against what was signed last: {finding.detail}")
    if checkpoint.block_number < last.block_number:
        raise CheckpointInconsistentError(
            f"block {checkpoint.block_number} is before block {last.block_number}, which was signed last"
        )


def new_signer(name: str, path: Path) -> NoteSigner:
    """Make a key of this name and keep it in a new file. Raises `MalformedError`, `AlreadyExistsError`."""
    signer = NoteSigner(name, os.urandom(KEY_LENGTH))
    try:
        write_private_file(path, f"{signer}\n")
    except OSError as exc:
        raise KeyFileError(f"no key file can be made at {path}: {exc.strerror}") from exc
    return signer


def read_signer(path: Path) -> NoteSigner:
    """A key from its file, which only its owner may read. Raises `KeyFileError`."""
    try:
        mode, text = path.stat().st_mode, path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise KeyFileError(f"no key file at {path}") from exc
    if mode & _OTHERS:
        raise KeyFileError(f"{path} can be read by others: expected mode 0600 (chmod 600 {path})")
    return NoteSigner.parse(text)


def _keep(path: Path, note: str) -> None:
    """Atomic and durable: the old note or the new one, and the new one before this returns."""
    draft = path.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    write_private_file(draft, note)
    draft.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
