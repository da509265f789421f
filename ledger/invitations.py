"""Invitations: the one-time codes by which a person comes to an account of the portal.

A code is handed to the person by the custodian or by a furnisher, who know them. Only its keyed hash is on file. It
counts for 14 days and once; a new one voids the older ones of the same person. Used, void, expired and made-up codes
are not told apart.

    7C4M-Q0ZK-9XT2-HV8E     16 digits of Crockford's base 32 (80 bits, no I, L, O, U), in four groups
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection, delete, select

from ledger.errors import CodeRefusedError
from ledger.json_forms import DAY_SECONDS
from ledger.keys import KeyFile
from ledger.store import Store, invitations, new_id

VALID_SECONDS: Final = 14 * DAY_SECONDS
DIGITS: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
LENGTH: Final = 16
GROUP: Final = 4
MAX_TYPED: Final = 64
_AS_MEANT: Final = str.maketrans("OIL", "011", " -\u2010\u2011\u2012\u2013\u2014_.")
"""What people type for a digit that looks like it, and what they put between the groups."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """What is handed out. `code` is known to nobody but who is given this."""

    invitation_id: str
    code: str = field(repr=False)
    expires_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenInvitation:
    """One that waits to be used. `by_custodian` is false if a furnisher handed it out."""

    invitation_id: str
    by_custodian: bool
    created_at: int
    expires_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Invited:
    """Whom a code is for."""

    invitation_id: str
    subject_id: str


class Invitations:
    """Codes that wait to be used."""

    def __init__(self, store: Store, keys: KeyFile, *, clock: Callable[[], int]) -> None:
        self._store, self._keys, self._clock = store, keys, clock

    def invite(self, tx: Connection, subject_id: str, *, furnisher: str | None = None) -> Invitation:
        """A new code for this person, handed out by `furnisher` or by the custodian; older ones are void."""
        code = "".join(secrets.choice(DIGITS) for _ in range(LENGTH))
        now = self._clock()
        made = Invitation(invitation_id=new_id(), code=grouped(code), expires_at=now + VALID_SECONDS)
        tx.execute(delete(invitations).where(invitations.c.subject_id == subject_id))
        tx.execute(
            invitations.insert().values(
                invitation_id=made.invitation_id,
                code_index=self._index(code),
                subject_id=subject_id,
                furnisher_index=None if furnisher is None else self._keys.index("furnisher", furnisher),
                created_at=now,
                expires_at=made.expires_at,
            )
        )
        return made

    def of_code(self, typed: str) -> Invited:
        """Whom a code is for, as it was typed: case, blanks, dashes and look-alikes do not matter.

        Raises `CodeRefusedError`.
        """
        index = self._index(as_meant(typed))
        with self._store.read() as tx:
            row = tx.execute(
                select(invitations).where(invitations.c.code_index == index, invitations.c.expires_at > self._clock())
            ).first()
        if row is None:
            raise _refused()
        return Invited(invitation_id=row.invitation_id, subject_id=row.subject_id)

    def use(self, tx: Connection, invitation_id: str) -> str:
        """Use it up, in the caller's transaction. Returns whom it is for. Raises `CodeRefusedError`."""
        row = tx.execute(
            delete(invitations)
            .where(invitations.c.invitation_id == invitation_id, invitations.c.expires_at > self._clock())
            .returning(invitations.c.subject_id)
        ).first()
        if row is None:
            raise _refused()
        return str(row.subject_id)

    def open(self, subject_id: str) -> tuple[OpenInvitation, ...]:
        """What waits to be used by this person, or by whoever has its code."""
        query = select(invitations).where(
            invitations.c.subject_id == subject_id, invitations.c.expires_at > self._clock()
        )
        with self._store.read() as tx:
            return tuple(
                OpenInvitation(
                    invitation_id=row.invitation_id,
                    by_custodian=row.furnisher_index is None,
                    created_at=row.created_at,
                    expires_at=row.expires_at,
                )
                for row in tx.execute(query)
            )

    def void(self, subject_id: str) -> None:
        """No code of this person counts any more."""
        with self._store.begin() as tx:
            self.erase(tx, subject_id)

    def erase(self, tx: Connection, subject_id: str) -> None:
        """As `void`, in the caller's transaction."""
        tx.execute(delete(invitations).where(invitations.c.subject_id == subject_id))

    def forget(self, tx: Connection) -> None:
        """Forget the expired ones."""
        tx.execute(delete(invitations).where(invitations.c.expires_at <= self._clock()))

    def _index(self, code: str) -> str:
        return self._keys.index("invitation", code)


def grouped(code: str) -> str:
    """As it is printed and read aloud."""
    return "-".join(code[start : start + GROUP] for start in range(0, len(code), GROUP))


def as_meant(typed: str) -> str:
    """The digits of a code, however it was typed. What cannot be one gives a text that no code is."""
    # Of what is far too long nothing is read: some characters become several in capitals.
    return typed[:MAX_TYPED].upper().translate(_AS_MEANT)


def _refused() -> CodeRefusedError:
    return CodeRefusedError("code: expected one that was handed out to you and not used yet", field="code")
