"""Wallets as a way to sign in: an ERC-4361 text that the service builds and keeps, and the signature over that text.

Nothing that comes back is parsed: the text that was kept is the one that must have been signed, so there is nothing to
be confused. The address is recovered from the signature; where that does not give it, the account itself is asked on
chain (ERC-1271), so whoever controls a smart account today is who signs in. One that is not deployed yet (ERC-6492) is
not asked.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from eth_account.messages import encode_defunct
from eth_utils import keccak

from ledger.consent import Address, Hex32, hex32_of
from ledger.errors import InvalidSignatureError, SignInRefusedError
from ledger.typed_data import require_signer

NONCE_BYTES: Final = 16
STATEMENTS: Final = {
    "sign-in": "Sign in to see who may read your credit data.",
    "enrol": "Use this wallet to see and decide who may read your credit data.",
    "link": "Also use this wallet to see and decide who may read your credit data.",
    "step-up": "Show once more that it is you.",
}
"""What a signature is for. Signing any of these agrees to nothing else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What a wallet is asked to sign: `issued_at` and `expires_at` are Unix seconds."""

    origin: str
    address: Address
    chain_id: int
    use: str
    issued_at: int
    expires_at: int

    def text(self) -> str:
        """The text (ERC-4361), with a fresh nonce."""
        domain = self.origin.partition("://")[2]
        return (
            f"{domain} wants you to sign in with your Ethereum account:\n"
            f"{self.address}\n\n"
            f"{STATEMENTS[self.use]}\n\n"
            f"URI: {self.origin}/sign-in\n"
            "Version: 1\n"
            f"Chain ID: {self.chain_id}\n"
            f"Nonce: {secrets.token_hex(NONCE_BYTES)}\n"
            f"Issued At: {_rfc3339(self.issued_at)}\n"
            f"Expiration Time: {_rfc3339(self.expires_at)}\n"
            f"Request ID: {self.use}"
        )


def require_signed(
    text: str, signature: bytes, address: Address, *, accepts: Callable[[Address, Hex32, bytes], bool]
) -> None:
    """Raises `SignInRefusedError` unless this account signed exactly this text (ERC-191).

    `accepts` asks a smart account, for what no key signed; `ChainError` if it cannot.
    """
    message = encode_defunct(text=text)
    digest = hex32_of(keccak(b"\x19" + message.version + message.header + message.body))
    try:
        require_signer(digest, signature, address)
    except InvalidSignatureError as exc:
        if not accepts(address, digest, signature):
            raise SignInRefusedError("signature: it does not prove who is there", field="signature") from exc


def _rfc3339(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
