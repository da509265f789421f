"""Sessions of the portal, in the database: whichever process a request reaches, it finds them.

A browser holds a random token in a cookie, and only the token's keyed hash is on file. Before anyone has signed in
there is a token and nothing on file: what stands in forms (`csrf_of`) and what challenges are bound to
(`challenges.py`) follows from the token alone. Signing in makes a new token, so that nobody can know it beforehand.

A session ends when it was not used for 30 minutes, after 12 hours, when it is ended, or with what it was signed in by.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, select, update

from ledger.errors import NotFoundError, SignInRefusedError
from ledger.keys import KeyFile
from ledger.store import Store, new_id, passkeys, sessions, wallets
from ledger.vault import open_json, seal_json

TOKEN_BYTES: Final = 32
IDLE_SECONDS: Final = 30 * 60
ABSOLUTE_SECONDS: Final = 12 * 3600
STEP_UP_SECONDS: Final = 5 * 60
SEEN_SECONDS: Final = 60
"""How exactly it is known when a session was last used: not every page is worth a write."""
PASSKEY: Final = "passkey"
WALLET: Final = "wallet"
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{43}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """Who is signed in, and by what: `proof_id` is the passkey's or the wallet's, `stepped_up_at` Unix seconds."""

    session_id: str
    account_id: str
    subject_id: str
    method: str
    proof_id: str
    created_at: int
    stepped_up_at: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedSession:
    """A session as it is shown to whom it belongs. `seen_at` is right to a minute."""

    session_id: str
    method: str
    device: str
    created_at: int
    seen_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """Whose account was proved, by what: the passkey or the wallet of that id."""

    account_id: str
    subject_id: str
    method: str
    proof_id: str


class Sessions:
    """Who is signed in."""

    def __init__(self, store: Store, keys: KeyFile, *, clock: Callable[[], int]) -> None:
        self._store, self._keys, self._clock = store, keys, clock

    def csrf_of(self, token: str) -> str:
        """What a page of this session carries, so that no other page can make its requests."""
        return self._keys.index("csrf", token)

    def is_csrf_of(self, token: str, given: str) -> bool:
        """Compared in constant time."""
        return hmac.compare_digest(self.csrf_of(token).encode(), given.encode())

    def start(self, proof: Proof, *, device: str, in_place_of: str | None = None) -> str:
        """Sign in. Returns the new session's token; the session of the token `in_place_of` ends.

        Whoever has just signed in has just shown that it is them: it counts as stepping up.
        """
        token, now = new_token(), self._clock()
        session_id = new_id()
        key = passkeys.c.passkey_id if proof.method == PASSKEY else wallets.c.wallet_id
        with self._store.begin() as tx:
            # In this transaction: what was proved may have been removed, or its account have ended, since.
            if tx.execute(select(key).where(key == proof.proof_id).with_for_update()).first() is None:
                raise SignInRefusedError("credential: it does not prove who is there", field="credential")
            if in_place_of is not None:
                tx.execute(delete(sessions).where(sessions.c.token_index == self._index(in_place_of)))
            tx.execute(
                sessions.insert().values(
                    session_id=session_id,
                    token_index=self._index(token),
                    account_id=proof.account_id,
                    subject_id=proof.subject_id,
                    method=proof.method,
                    proof_id=proof.proof_id,
                    created_at=now,
                    seen_at=now,
                    stepped_up_at=now,
                    **seal_json({"device": device}, _context(session_id), self._keys),
                )
            )
        return token

    def find(self, token: str) -> Session | None:
        """The session of a token, which counts as used; None if there is none or it has ended."""
        if not is_token(token):
            return None
        with self._store.read() as tx:
            row = tx.execute(
                select(sessions).where(sessions.c.token_index == self._index(token), self._alive())
            ).first()
        if row is None:
            return None
        now = self._clock()
        if now - row.seen_at >= SEEN_SECONDS:
            with self._store.begin() as tx:
                # Not one that has ended meanwhile.
                tx.execute(update(sessions).where(sessions.c.session_id == row.session_id).values(seen_at=now))
        return _session(row)

    def step_up(self, session_id: str) -> None:
        """The person has shown once more that it is them."""
        with self._store.begin() as tx:
            tx.execute(update(sessions).where(sessions.c.session_id == session_id).values(stepped_up_at=self._clock()))

    def is_stepped_up(self, session: Session) -> bool:
        """Whether that was within the last five minutes."""
        return session.stepped_up_at is not None and self._clock() - session.stepped_up_at < STEP_UP_SECONDS

    def listed(self, account_id: str) -> tuple[ListedSession, ...]:
        """The account's sessions, the last one used first."""
        query = select(sessions).where(sessions.c.account_id == account_id, self._alive())
        with self._store.read() as tx:
            rows = tx.execute(query.order_by(sessions.c.seen_at.desc(), sessions.c.session_id.desc())).all()
        return tuple(
            ListedSession(
                session_id=row.session_id,
                method=row.method,
                device=open_json(row, _context(row.session_id), self._keys)["device"],
                created_at=row.created_at,
                seen_at=row.seen_at,
            )
            for row in rows
        )

    def end(self, session_id: str, account_id: str) -> None:
        """End one of the account's sessions. Raises `NotFoundError`: also if it is another's."""
        with self._store.begin() as tx:
            ended = tx.execute(
                delete(sessions).where(sessions.c.session_id == session_id, sessions.c.account_id == account_id)
            ).rowcount
        if not ended:
            raise NotFoundError("session: no such session", field="session")

    def end_others(
        self, tx: Connection, account_id: str, *, but: str | None = None, proof_id: str | None = None
    ) -> int:
        """End the account's sessions but one; with `proof_id` only those signed in by it. Returns how many."""
        query = delete(sessions).where(sessions.c.account_id == account_id)
        if but is not None:
            query = query.where(sessions.c.session_id != but)
        if proof_id is not None:
            query = query.where(sessions.c.proof_id == proof_id)
        return tx.execute(query).rowcount

    def erase(self, tx: Connection, subject_id: str) -> None:
        """End every session of a person."""
        tx.execute(delete(sessions).where(sessions.c.subject_id == subject_id))

    def forget(self, tx: Connection) -> None:
        """Forget those that have ended by themselves."""
        tx.execute(delete(sessions).where(~self._alive()))

    def _alive(self) -> ColumnElement[bool]:
        now = self._clock()
        return and_(sessions.c.seen_at > now - IDLE_SECONDS, sessions.c.created_at > now - ABSOLUTE_SECONDS)

    def _index(self, token: str) -> str:
        return self._keys.index("session", token)


def new_token() -> str:
    """32 random bytes, as they stand in a cookie."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def is_token(text: str) -> bool:
    """Whether it is of the form of a token."""
    return _TOKEN.match(text) is not None


def _session(row: Row[Any]) -> Session:
    return Session(
        session_id=row.session_id,
        account_id=row.account_id,
        subject_id=row.subject_id,
        method=row.method,
        proof_id=row.proof_id,
        created_at=row.created_at,
        stepped_up_at=row.stepped_up_at,
    )


def _context(session_id: str) -> dict[str, str]:
    return {"kind": "session", "session": session_id}
