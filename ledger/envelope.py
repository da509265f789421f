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
from typing import Final, NamedTuple, Protocol

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


class Use(NamedTuple):
    """What an envelope is opened for: one of the names below, and for a release or an order its release's id."""

    name: str
    about: str = "-"


RELEASE: Final = "release"
RELEASE_RESUMED: Final = "release-resumed"
"""The same once more, after a first try that did not come to its end."""
ORDER: Final = "order"
ORDER_RESUMED: Final = "order-resumed"
OWN_VIEW: Final = Use("own-view")
"""An attribute, for the person that it is about: on the portal, or in what they export."""
COMPARISON: Final = Use("comparison")
"""An attribute, with what a furnisher hands in anew."""
OPENING: Final = Use("opening")
"""What is no attribute: terms of a consent, entry of a release, a session; for the service itself."""
DISCLOSURE: Final = Use("disclosure")
"""An opening, to be handed to an auditor."""
ROTATION: Final = Use("rotation")
"""Anything, to be wrapped anew; its content stays closed."""
TRIAL: Final = Use("trial")
"""Anything, to see whether it still opens."""
USES: Final = frozenset(
    {RELEASE, RELEASE_RESUMED, ORDER, ORDER_RESUMED}
    | {use.name for use in (OWN_VIEW, COMPARISON, OPENING, DISCLOSURE, ROTATION, TRIAL)}
)
"""The names of all of them: what was opened for anything else has no explanation."""


class KeyWrapper(Protocol):
    """Holds KEKs. The only door to plaintext keys, so that it can stand in another process, an HSM or a KMS.

    It counts what it unwraps, by use, before it does: a key file in a journal of its own (`unwraps.py`), an HSM or a
    KMS in its audit log, to which it hands the use on. What it counted is held against the log (`reconcile.py`).
    """

    def wrap(self, dek: bytes) -> WrappedKey:
        """Wrap under the active KEK."""

    def unwrap(self, key: WrappedKey, use: Use) -> bytes:
        """Raises `KeyUnavailableError` for a KEK it does not hold, `IntegrityError` for a key that was altered.

        `UnwrapsError` if it cannot be counted: then it is not unwrapped.
        """


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


def open_envelope(envelope: Envelope, context: EncryptionContext, keys: KeyWrapper, use: Use) -> bytes:
    """Decrypt, which is counted under `use`. `context` must be exactly the one it was sealed with.

    Raises `IntegrityError`, the same for a wrong key, a wrong context and altered bytes; `KeyUnavailableError`;
    `UnwrapsError`.
    """
    body = envelope.body
    if body[:1] != VERSION or len(body) < len(VERSION) + NONCE_LENGTH + TAG_LENGTH:
        raise IntegrityError("an envelope does not open")
    nonce, ciphertext = body[1 : 1 + NONCE_LENGTH], body[1 + NONCE_LENGTH :]
    dek = keys.unwrap(envelope.key, use)
    try:
        return AESGCM(dek).decrypt(nonce, ciphertext, associated_data(context))
    except (InvalidTag, ValueError) as exc:
        raise IntegrityError("an envelope does not open") from exc


def associated_data(context: EncryptionContext) -> bytes:
    """Canonical bytes of an encryption context: a label, then JSON with sorted keys."""
    return _LABEL + _CANONICAL.encode(context).encode()
