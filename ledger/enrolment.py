"""Enrolment: accounts of the portal, and the passkeys and wallets by which a person comes to one.

An account belongs to one subject record and is opened with an invitation (`invitations.py`). A person has one account
at a time: opening another one, with a new code after every passkey was lost, ends the earlier one with all that hangs
on it. What the earlier passkeys could sign is lost with them; what was granted can still be stopped by the custodian.

The service never sees a person's signing keys. Each passkey has the person's root secret with it, wrapped under a key
that only that passkey gives to the browser; here it is a text that nobody can read (`wrapped_root`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, Row, Table, and_, delete, func, literal, or_, select, update

from ledger.consent import Address
from ledger.errors import (
    AccountFullError,
    AlreadyExistsError,
    ConflictError,
    MalformedError,
    NotFoundError,
    SignInRefusedError,
)
from ledger.invitations import Invitations
from ledger.keys import KeyFile
from ledger.passkeys import KnownPasskey, NewPasskey, Used, cloned
from ledger.sessions import PASSKEY, WALLET, Proof, Sessions
from ledger.store import Store, accounts, new_id, passkeys, wallets
from ledger.vault import open_json, seal_json

MAX_NAME: Final = 60
MAX_PASSKEYS: Final = 20
MAX_WALLETS: Final = 10
_WRAPPED_ROOT: Final = re.compile(r"[A-Za-z0-9_-]{38,512}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Passkey:
    """A passkey of an account. `wrapped_root` is None if the passkey can only sign in (no PRF)."""

    passkey_id: str
    account_id: str
    subject_id: str
    name: str
    known: KnownPasskey = field(repr=False)
    wrapped_root: str | None = field(repr=False)
    backed_up: bool
    created_at: int
    last_used_at: int | None

    @property
    def proof(self) -> Proof:
        """What signing in by it proves."""
        return Proof(account_id=self.account_id, subject_id=self.subject_id, method=PASSKEY, proof_id=self.passkey_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wallet:
    """A wallet of an account."""

    wallet_id: str
    account_id: str
    subject_id: str
    address: Address
    created_at: int
    last_used_at: int | None

    @property
    def proof(self) -> Proof:
        """What signing in by it proves."""
        return Proof(account_id=self.account_id, subject_id=self.subject_id, method=WALLET, proof_id=self.wallet_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A new passkey with what the browser and the person say of it."""

    made: NewPasskey
    name: str
    wrapped_root: str | None = field(repr=False)


class Enrolment:
    """Accounts and what opens them."""

    def __init__(
        self,
        store: Store,
        keys: KeyFile,
        invitations: Invitations,
        sessions: Sessions,
        *,
        clock: Callable[[], int],
    ) -> None:
        self._store, self._keys, self._clock = store, keys, clock
        self._invitations, self._sessions = invitations, sessions

    # -------------------------------------------------------------------------------------------------------- accounts

    def enrol(self, invitation_id: str, account_id: str, device: Device | Address) -> Proof:
        """Open an account with an invitation, which is used up by it; an earlier account of the person ends.

        `account_id` was made beforehand, for the passkey to carry its handle. Raises `CodeRefusedError`,
        `MalformedError`, and `SignInRefusedError` for a passkey or a wallet that somebody has already.
        """
        with self._store.begin() as tx:
            subject_id = self._invitations.use(tx, invitation_id)
            self._end(tx, subject_id)
            tx.execute(accounts.insert().values(account_id=account_id, subject_id=subject_id, created_at=self._clock()))
            return self._add(tx, account_id, subject_id, device)

    def add(self, account_id: str, subject_id: str, device: Device | Address) -> Proof:
        """Add a passkey or a wallet to an account.

        Raises `AccountFullError` if there are too many, `SignInRefusedError` if somebody has it already.
        """
        with self._store.begin() as tx:
            table, most = (wallets, MAX_WALLETS) if isinstance(device, str) else (passkeys, MAX_PASSKEYS)
            if self._count(tx, table, account_id) >= most:
                raise AccountFullError(f"account: expected at most {most} of these: remove one first", field="account")
            if tx.execute(select(accounts).where(accounts.c.account_id == account_id)).first() is None:
                raise NotFoundError("account: it has ended", field="account")
            return self._add(tx, account_id, subject_id, device)

    def user_handle(self, account_id: str) -> bytes:
        """What a passkey carries to say whose it is: 32 bytes that say nothing to anyone else."""
        return bytes.fromhex(self._keys.index("user-handle", account_id))

    def _end(self, tx: Connection, subject_id: str) -> None:
        for table in (passkeys, wallets, accounts):
            tx.execute(delete(table).where(table.c.subject_id == subject_id))
        self._sessions.erase(tx, subject_id)

    def erase(self, tx: Connection, subject_id: str) -> int:
        """Delete a person's accounts with all that hangs on them, invitations included. Returns how many accounts."""
        count = select(func.count()).select_from(accounts).where(accounts.c.subject_id == subject_id)
        found: int = tx.scalar(count) or 0
        self._end(tx, subject_id)
        self._invitations.erase(tx, subject_id)
        return found

    def _add(self, tx: Connection, account_id: str, subject_id: str, device: Device | Address) -> Proof:
        try:
            if isinstance(device, str):
                return self._add_wallet(tx, account_id, subject_id, device)
            return self._add_passkey(tx, account_id, subject_id, device)
        except AlreadyExistsError as exc:
            # Whose it is, or that it is anyone's, is not said.
            raise SignInRefusedError("credential: it does not prove who is there", field="credential") from exc

    # -------------------------------------------------------------------------------------------------------- passkeys

    def _add_passkey(self, tx: Connection, account_id: str, subject_id: str, device: Device) -> Proof:
        made, passkey_id = device.made, new_id()
        credential_index = self._keys.index("credential", made.credential_id.hex())
        if tx.execute(select(passkeys.c.passkey_id).where(passkeys.c.credential_index == credential_index)).first():
            raise AlreadyExistsError("a passkey of that id")
        fields = {
            "credentialId": made.credential_id.hex(),
            "publicKey": made.public_key.hex(),
            "name": device.name,
            "wrappedRoot": device.wrapped_root,
        }
        tx.execute(
            passkeys.insert().values(
                passkey_id=passkey_id,
                account_id=account_id,
                subject_id=subject_id,
                credential_index=credential_index,
                sign_count=made.sign_count,
                backup_eligible=made.backup_eligible,
                backed_up=made.backed_up,
                created_at=self._clock(),
                **seal_json(fields, _context("passkey", passkey_id), self._keys),
            )
        )
        return Proof(account_id=account_id, subject_id=subject_id, method=PASSKEY, proof_id=passkey_id)

    def passkeys(self, account_id: str) -> tuple[Passkey, ...]:
        """The account's passkeys, oldest first."""
        query = select(passkeys).where(passkeys.c.account_id == account_id).order_by(passkeys.c.passkey_id)
        with self._store.read() as tx:
            return tuple(self._passkey(row) for row in tx.execute(query))

    def passkey_of(self, credential_id: bytes) -> Passkey | None:
        """The passkey of that credential id, if there is one."""
        index = self._keys.index("credential", credential_id.hex())
        with self._store.read() as tx:
            row = tx.execute(select(passkeys).where(passkeys.c.credential_index == index)).first()
        return None if row is None else self._passkey(row)

    def passkey_used(self, passkey: Passkey, used: Used) -> None:
        """Keep its counter, in one statement with the look at it. Authenticators that do not count say 0 for ever.

        Raises `PasskeyClonedError` if it did not go up.
        """
        with self._store.begin() as tx:
            moved = tx.execute(
                update(passkeys)
                .where(
                    passkeys.c.passkey_id == passkey.passkey_id,
                    or_(
                        passkeys.c.sign_count < used.sign_count,
                        and_(passkeys.c.sign_count == 0, literal(used.sign_count) == 0),
                    ),
                )
                .values(sign_count=used.sign_count, backed_up=used.backed_up, last_used_at=self._clock())
            ).rowcount
        if not moved:
            raise cloned()

    def remove_passkey(self, account_id: str, passkey_id: str, *, keep_session: str) -> None:
        """Forget a passkey and end the sessions that it signed in, but the one in which this is done.

        Raises `NotFoundError`, and `ConflictError` for the last way to sign in.
        """
        self._remove(passkeys, passkeys.c.passkey_id == passkey_id, account_id, passkey_id, keep_session)

    def _passkey(self, row: Row[Any]) -> Passkey:
        opened = open_json(row, _context("passkey", row.passkey_id), self._keys)
        return Passkey(
            passkey_id=row.passkey_id,
            account_id=row.account_id,
            subject_id=row.subject_id,
            name=opened["name"],
            known=KnownPasskey(
                credential_id=bytes.fromhex(opened["credentialId"]),
                public_key=bytes.fromhex(opened["publicKey"]),
                sign_count=row.sign_count,
                backup_eligible=row.backup_eligible,
                user_handle=self.user_handle(row.account_id),
            ),
            wrapped_root=opened["wrappedRoot"],
            backed_up=row.backed_up,
            created_at=row.created_at,
            last_used_at=row.last_used_at,
        )

    # --------------------------------------------------------------------------------------------------------- wallets

    def _add_wallet(self, tx: Connection, account_id: str, subject_id: str, address: Address) -> Proof:
        wallet_id, address_index = new_id(), self._keys.index("wallet", address)
        if tx.execute(select(wallets.c.wallet_id).where(wallets.c.address_index == address_index)).first():
            raise AlreadyExistsError("a wallet of that address")
        tx.execute(
            wallets.insert().values(
                wallet_id=wallet_id,
                account_id=account_id,
                subject_id=subject_id,
                address_index=address_index,
                created_at=self._clock(),
                **seal_json({"address": address}, _context("wallet", wallet_id), self._keys),
            )
        )
        return Proof(account_id=account_id, subject_id=subject_id, method=WALLET, proof_id=wallet_id)

    def wallets(self, account_id: str) -> tuple[Wallet, ...]:
        """The account's wallets, oldest first."""
        query = select(wallets).where(wallets.c.account_id == account_id).order_by(wallets.c.wallet_id)
        with self._store.read() as tx:
            return tuple(self._wallet(row) for row in tx.execute(query))

    def wallet_of(self, address: Address) -> Wallet | None:
        """The wallet of that address, if somebody has it."""
        index = self._keys.index("wallet", address)
        with self._store.read() as tx:
            row = tx.execute(select(wallets).where(wallets.c.address_index == index)).first()
        return None if row is None else self._wallet(row)

    def wallet_used(self, wallet: Wallet) -> None:
        """Keep when."""
        with self._store.begin() as tx:
            tx.execute(
                update(wallets).where(wallets.c.wallet_id == wallet.wallet_id).values(last_used_at=self._clock())
            )

    def remove_wallet(self, account_id: str, wallet_id: str, *, keep_session: str) -> None:
        """As `remove_passkey`."""
        self._remove(wallets, wallets.c.wallet_id == wallet_id, account_id, wallet_id, keep_session)

    def _wallet(self, row: Row[Any]) -> Wallet:
        opened = open_json(row, _context("wallet", row.wallet_id), self._keys)
        return Wallet(
            wallet_id=row.wallet_id,
            account_id=row.account_id,
            subject_id=row.subject_id,
            address=Address(opened["address"]),
            created_at=row.created_at,
            last_used_at=row.last_used_at,
        )

    # ------------------------------------------------------------------------------------------------------------ both

    def _remove(self, table: Table, this: Any, account_id: str, proof_id: str, keep_session: str) -> None:  # noqa: ANN401 - a condition
        with self._store.begin() as tx:
            if not tx.execute(delete(table).where(this, table.c.account_id == account_id)).rowcount:
                raise NotFoundError("account: no such passkey or wallet of yours", field="account")
            if not any(self._count(tx, one, account_id) for one in (passkeys, wallets)):
                raise ConflictError("account: the last way to sign in stays: add another one first", field="account")
            self._sessions.end_others(tx, account_id, but=keep_session, proof_id=proof_id)

    def _count(self, tx: Connection, table: Table, account_id: str) -> int:
        return tx.scalar(select(func.count()).select_from(table).where(table.c.account_id == account_id)) or 0


def named(name: str) -> str:
    """A name that a person gave to a passkey. Raises `MalformedError`."""
    found = name.strip()
    if not 1 <= len(found) <= MAX_NAME or not found.isprintable():
        raise MalformedError(f"name: expected 1 to {MAX_NAME} printable characters", field="name")
    return found


def wrapped(root: str | None) -> str | None:
    """A wrapped root as the browser hands it over: opaque, base64url, and no longer than it may be."""
    if root is not None and not _WRAPPED_ROOT.match(root):
        raise MalformedError("wrappedRoot: expected base64url of 38 to 512 characters", field="wrappedRoot")
    return root


def _context(kind: str, row_id: str) -> dict[str, str]:
    return {"kind": kind, kind: row_id}
