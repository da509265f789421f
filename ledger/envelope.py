"""Envelopes: how anything private is stored. Pure: keys come in through `KeyWrapper`.

Every envelope has a data key (DEK) of its own, made for this one message and used once; the DEK is stored wrapped by a
key-encryption key (KEK) that is never in the database. Destroying the wrapped DEK makes the envelope unreadable.

The encryption context (who, what, which version) is bound as associated data: an envelope that is moved to another
person, attribute or version does not open. It is not secret and not stored with the envelope: the reader must know it.

Format of `body`, version 1: `0x01 ‖ nonce (12) ‖ AES-256-GCM ciphertext and tag`. A new format gets a new first byte.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ledger.errors import IntegrityError

VERSION: Final = b"\x01"
NONCE_LENGTH: Final = 12
TAG_LENGTH: Final = 16
DEK_LENGTH: Final = 32
_CANONICAL: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True)
_LABEL: Final = b"consent-ledger/envelope/1\n"

EncryptionContext = Mapping[str, str]
"""Non-secret facts that must be the same when opening: {"kind": "attribute", "subject": ..., ...}."""


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A DEK under the KEK `kek_id`."""

    kek_id: str
    wrapped_dek: bytes


class KeyWrapper(Protocol):
    """Holds KEKs. The only door to plaintext keys, so that it can stand in another process, an HSM or a KMS."""

    def wrap(self, dek: bytes) -> WrappedKey:
        """Wrap under the active KEK."""

    def unwrap(self, key: WrappedKey) -> bytes:
        """Raises `KeyUnavailableError` for a KEK it does not hold, `IntegrityError` for anything else."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """Stored ciphertext. Re-wrapping changes `key`, never `body`."""

    key: WrappedKey
    body: bytes

    def digest(self) -> bytes:
        """SHA-256 of the body: stable when the KEK is rotated."""
        return sha256(self.body).digest()


def seal(plaintext: bytes, context: EncryptionContext, keys: KeyWrapper) -> Envelope:
    """Encrypt under a fresh DEK, bound to `context`."""
    dek = os.urandom(DEK_LENGTH)
    nonce = os.urandom(NONCE_LENGTH)
    ciphertext = AESGCM(dek).encrypt(nonce, plaintext, associated_data(context))
    return Envelope(keys.wrap(dek), VERSION + nonce + ciphertext)


def open_envelope(envelope: Envelope, context: EncryptionContext, keys: KeyWrapper) -> bytes:
    """Decrypt. `context` must be exactly the one it was sealed with.

    Raises `IntegrityError`, the same for a wrong key, a wrong context and altered bytes; `KeyUnavailableError`.
    """
    body = envelope.body
    if body[:1] != VERSION or len(body) < len(VERSION) + NONCE_LENGTH + TAG_LENGTH:
        raise IntegrityError("an envelope does not open")
    nonce, ciphertext = body[1 : 1 + NONCE_LENGTH], body[1 + NONCE_LENGTH :]
    dek = keys.unwrap(envelope.key)
    try:
        return AESGCM(dek).decrypt(nonce, ciphertext, associated_data(context))
    except (InvalidTag, ValueError) as exc:
        raise IntegrityError("an envelope does not open") from exc


def associated_data(context: EncryptionContext) -> bytes:
    """Canonical bytes of an encryption context: a label, then JSON with sorted keys."""
    return _LABEL + _CANONICAL.encode(context).encode()
