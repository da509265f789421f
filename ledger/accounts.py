"""The custodian's accounts (`keys/accounts.json`), one for each lane: a revocation never queues behind an access.

With them is the key that signs answers and receipts.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from eth_account import Account
from eth_account.signers.local import LocalAccount
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from ledger.errors import KeyFileError
from ledger.key_files import changing_key_file, create_key_file, read_key_file, require_private

WRITERS: Final = 8


@dataclass(frozen=True, slots=True)
class Accounts:
    """The custodian's accounts. `custodian` is the one that grants name; the others only pay gas and append."""

    custodian: LocalAccount
    grants: LocalAccount
    revocations: LocalAccount
    writers: tuple[LocalAccount, ...]
    signing_key: ECKey = field(repr=False)

    @classmethod
    def create(cls, path: Path) -> Accounts:
        """Make new accounts. Raises `AlreadyExistsError`."""
        names = ["custodian", "grants", "revocations", *(f"writer-{i}" for i in range(WRITERS))]
        signing_key = ECKey.generate_key("P-256", {"use": "sig", "alg": "ES256"}, auto_kid=True)
        create_key_file(
            path,
            {
                "accounts": {name: "0x" + secrets.token_hex(32) for name in names},
                "signing_key": signing_key.as_dict(private=True),
            },
        )
        return cls.load(path)

    @classmethod
    def load(cls, path: Path) -> Accounts:
        """Raises `KeyFileError`."""
        content = read_key_file(path)
        try:
            accounts = {name: Account.from_key(key) for name, key in content["accounts"].items()}
            return cls(
                custodian=accounts["custodian"],
                grants=accounts["grants"],
                revocations=accounts["revocations"],
                writers=tuple(accounts[name] for name in sorted(accounts) if name.startswith("writer-")),
                signing_key=_signing_key(content["signing_key"]),
            )
        except (JoseError, KeyError, ValueError, AttributeError, TypeError):
            # Not chained: what the libraries below say of a key may repeat it.
            raise KeyFileError(f"{path} is not an account file") from None

    @classmethod
    def add_writer(cls, path: Path) -> LocalAccount:
        """Make one more writer's account in that file. Raises `KeyFileError`, and leaves the old file."""
        key = "0x" + secrets.token_hex(32)
        with changing_key_file(path) as content:
            content["accounts"][f"writer-{len(cls.load(path).writers)}"] = key
        account: LocalAccount = Account.from_key(key)
        return account

    def every(self) -> tuple[LocalAccount, ...]:
        """All that need gas."""
        return (self.custodian, self.grants, self.revocations, *self.writers)


def _signing_key(fields: dict[str, Any]) -> ECKey:
    key = ECKey.import_key(fields)
    if not key.is_private:
        raise ValueError("expected a private key")
    return key


def read_private_key(path: Path) -> bytes:
    """A subject's key from a local file, for scripts: 64 hex digits, mode 0600. Raises `KeyFileError`."""
    require_private(path)
    try:
        key = bytes.fromhex(path.read_text(encoding="utf-8").strip().removeprefix("0x"))
        Account.from_key(key)
    except Exception:  # noqa: BLE001 - eth-account raises types of its own
        # Not chained: what the libraries below say of a key may repeat it.
        raise KeyFileError(f"{path}: expected a private key, 64 hex digits") from None
    return key
