"""Signed notes: a text, and under it one line for each key that signed it. Pure.

This is the format of C2SP `signed-note` with its Ed25519 signatures (type 0x01), as Go's module mirror and checksum
database use it. Other tools verify it as it stands: `golang.org/x/mod/sumdb/note`, those of the transparency logs, and
`openssl pkeyutl -verify -rawin` with the text, the signature and the key. A JWS would hide the text in base64, and
would have to be made anew for each further signature; here a witness adds a line, and the text stays what it was.

    text, which ends with a line break
    (an empty line)
    — <key name> base64(4 bytes of key id ‖ signature)

A public key is written `<name>+<key id in hex>+<base64 of 0x01 and the key>`, a private one the same with its seed and
`PRIVATE+KEY+` before it. The key id is the beginning of SHA-256(name ‖ line break ‖ 0x01 ‖ public key).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ledger.errors import AuditError, KeyFileError, MalformedError

MAX_SIGNATURES: Final = 100
MAX_LENGTH: Final = 1_000_000
KEY_LENGTH: Final = 32
_ED25519: Final = b"\x01"
_ID_LENGTH: Final = 4
_DASH: Final = "— "
_PRIVATE: Final = "PRIVATE+KEY+"
_NAME: Final = re.compile(r"[!-*,-~]{1,200}\Z")
"""A key's name: printable ASCII with neither space nor plus. An address without its scheme is usual."""


@dataclass(frozen=True, slots=True)
class NoteKey:
    """A public key and its name; the two together are who signed."""

    name: str
    public: bytes

    @classmethod
    def parse(cls, text: str) -> NoteKey:
        """Raises `MalformedError`, also if the key id is not that of name and key."""
        name, _, rest = text.strip().partition("+")
        key = cls(name, _keyed(rest.partition("+")[2]))
        if not _NAME.match(name) or not key.public or str(key) != text.strip():
            raise MalformedError("key: expected <name>+<8 hex digits>+<base64>, an Ed25519 key", field="key")
        return key

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{_encoded(_ED25519 + self.public)}"

    @property
    def key_id(self) -> bytes:
        """Four bytes that tell one key of a name from another; not a proof of anything."""
        return sha256(self.name.encode() + b"\n" + _ED25519 + self.public).digest()[:_ID_LENGTH]

    def verifies(self, text: str, signature: bytes) -> bool:
        """Whether this key made this signature over the text."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, text.encode())
        except (InvalidSignature, ValueError):
            return False
        return True


@dataclass(frozen=True, slots=True)
class NoteSigner:
    """A private key (its seed, 32 bytes) and its name."""

    name: str
    seed: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not _NAME.match(self.name):
            raise MalformedError("name: expected ASCII without spaces and plus signs", field="name")

    @classmethod
    def parse(cls, text: str) -> NoteSigner:
        """Raises `KeyFileError`, which does not repeat the key."""
        name, _, rest = text.strip().removeprefix(_PRIVATE).partition("+")
        seed = _keyed(rest.partition("+")[2])
        if not seed or not _NAME.match(name) or str(signer := cls(name, seed)) != text.strip():
            raise KeyFileError("expected PRIVATE+KEY+<name>+<8 hex digits>+<base64>, an Ed25519 key")
        return signer

    def __str__(self) -> str:
        return f"{_PRIVATE}{self.name}+{self.key.key_id.hex()}+{_encoded(_ED25519 + self.seed)}"

    @property
    def key(self) -> NoteKey:
        """The public half."""
        return NoteKey(self.name, Ed25519PrivateKey.from_private_bytes(self.seed).public_key().public_bytes_raw())

    def sign(self, text: str) -> str:
        """A note of this text, with this signature alone."""
        if not text.endswith("\n") or any(c < " " and c != "\n" for c in text):
            raise ValueError("expected a text of whole lines without control characters")
        return f"{text}\n{self._line(text)}"

    def cosign(self, note: str) -> str:
        """The note with one signature more. The caller has verified those that count, and what it says."""
        text, lines = _parts(note)
        kept = [line for line in lines if _signature(line)[:2] != (self.name, self.key.key_id)]
        return "".join(f"{line}\n" for line in (text, *kept)) + self._line(text)

    def _line(self, text: str) -> str:
        signature = Ed25519PrivateKey.from_private_bytes(self.seed).sign(text.encode())
        return f"{_DASH}{self.name} {_encoded(self.key.key_id + signature)}\n"


@dataclass(frozen=True, slots=True)
class OpenedNote:
    """A text, and who of those that were looked for signed it."""

    text: str
    signed_by: tuple[NoteKey, ...]


def open_note(note: str, keys: Collection[NoteKey], *, quorum: int = 1) -> OpenedNote:
    """The text, if at least `quorum` of the keys signed it. Signatures of other keys say nothing and are passed over.

    Raises `AuditError`: not a note, too few signatures, or one under a known key that does not verify.
    """
    if not 1 <= quorum <= len(set(keys)):
        raise MalformedError(f"quorum: expected a number from 1 to that of the keys, {len(set(keys))}", field="quorum")
    text, lines = _parts(note)
    known = {(key.name, key.key_id): key for key in keys}
    found: dict[bytes, NoteKey] = {}
    for line in lines:
        name, key_id, signature = _signature(line)
        if (key := known.get((name, key_id))) is None:
            continue
        if not key.verifies(text, signature):
            raise AuditError(f"the note does not verify: the signature of {name} is not over this text")
        found[key.public] = key
    # Counted by key: one under two names is one.
    if len(found) < quorum:
        raise AuditError(f"the note does not verify: {len(found)} of the {quorum} signatures that it takes")
    return OpenedNote(text, tuple(found.values()))


def _parts(note: str) -> tuple[str, list[str]]:
    text, gap, block = note.rpartition("\n\n")
    lines = block.split("\n")
    if (
        not gap
        or len(note) > MAX_LENGTH
        or lines.pop() != ""
        or not 1 <= len(lines) <= MAX_SIGNATURES
        or any(c < " " and c != "\n" for c in note)
    ):
        raise AuditError("not a signed note: expected a text, an empty line and lines of signatures")
    return f"{text}\n", lines


def _signature(line: str) -> tuple[str, bytes, bytes]:
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    raw = _decoded(encoded)
    if not line.startswith(_DASH) or not name or len(raw) <= _ID_LENGTH:
        raise AuditError("not a signed note: a line of a signature is not of its form")
    return name, raw[:_ID_LENGTH], raw[_ID_LENGTH:]


def _keyed(encoded: str) -> bytes:
    """The 32 bytes after the byte of the algorithm; empty if it is not that."""
    raw = _decoded(encoded)
    return raw[1:] if raw[:1] == _ED25519 and len(raw) == 1 + KEY_LENGTH else b""


def _encoded(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _decoded(text: str) -> bytes:
    """Empty if it is not base64 in its one form."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
    return raw if _encoded(raw) == text else b""
