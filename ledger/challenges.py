"""Challenges: what a passkey or a wallet has to sign, once, within five minutes, in the session that asked for it.

Session, use and challenge are hashed into one key under which it is on file: whoever comes with another session or for
another use does not find it. Taking it deletes it, in one statement, so that of two that come with it one is too late.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from sqlalchemy import Connection, delete

from ledger.errors import StaleChallengeError
from ledger.keys import KeyFile
from ledger.store import Store, challenges
from ledger.vault import open_json, seal_json

VALID_SECONDS: Final = 5 * 60


class Challenges:
    """Challenges that wait for an answer."""

    def __init__(self, store: Store, keys: KeyFile, *, clock: Callable[[], int]) -> None:
        self._store, self._keys, self._clock = store, keys, clock

    def put(self, token: str, use: str, name: str, fields: Mapping[str, Any], *, subject_id: str | None = None) -> None:
        """File a challenge under session (its token), use and name; one that is there already is replaced."""
        index = self._index(token, use, name)
        with self._store.begin() as tx:
            tx.execute(delete(challenges).where(challenges.c.challenge_index == index))
            tx.execute(
                challenges.insert().values(
                    challenge_index=index,
                    subject_id=subject_id,
                    expires_at=self._clock() + VALID_SECONDS,
                    **seal_json(fields, _context(index), self._keys),
                )
            )

    def take(self, token: str, use: str, name: str) -> dict[str, Any]:
        """Take it away, whatever the answer is worth. Raises `StaleChallengeError`."""
        index = self._index(token, use, name)
        with self._store.begin() as tx:
            row = tx.execute(
                delete(challenges).where(challenges.c.challenge_index == index).returning(*challenges.c)
            ).first()
        if row is None or row.expires_at <= self._clock():
            raise StaleChallengeError("challenge: expected one of this page that was not answered yet: begin again")
        return open_json(row, _context(index), self._keys)

    def erase(self, tx: Connection, subject_id: str) -> None:
        """Forget what was asked of a person."""
        tx.execute(delete(challenges).where(challenges.c.subject_id == subject_id))

    def forget(self, tx: Connection) -> None:
        """Forget those that are too old."""
        tx.execute(delete(challenges).where(challenges.c.expires_at <= self._clock()))

    def _index(self, token: str, use: str, name: str) -> str:
        return self._keys.index("challenge", f"{token}\n{use}\n{name}")


def _context(index: str) -> dict[str, str]:
    return {"kind": "challenge", "challenge": index}
