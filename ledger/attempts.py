"""How often someone may try: codes, sign-ins, and whatever makes the database write for a stranger.

Counted for each client address, of which only a keyed hash with the time window is on file, and not for long. A try is
counted before it is looked at, so that many at once are not more than many in a row; one that succeeded is given back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, delete, update

from ledger.errors import RateLimitedError
from ledger.keys import KeyFile
from ledger.store import Store, attempts


@dataclass(frozen=True, slots=True)
class Limit:
    """So many tries within so many seconds."""

    name: str
    tries: int
    seconds: int


CODES: Final = Limit("codes", 10, 15 * 60)
"""Invitation codes that are none."""
PROOFS: Final = Limit("proofs", 20, 15 * 60)
"""Passkeys and wallets that prove nothing."""
BEGINNINGS: Final = Limit("beginnings", 60, 60)
"""Challenges asked for, answered or not."""
RPC: Final = Limit("rpc", 600, 60)
"""Questions to the chain that are handed on."""
AUDIT_RPC: Final = Limit("audit-rpc", 300, 60)
"""The same for audits, each time as many as a node answers at once."""


class Attempts:
    """Counts tries, and refuses one too many."""

    def __init__(self, store: Store, keys: KeyFile, *, clock: Callable[[], int]) -> None:
        self._store, self._keys, self._clock = store, keys, clock

    def count(self, limit: Limit, client: str) -> None:
        """Count a try. Raises `RateLimitedError`."""
        now = self._clock()
        index = self._index(limit, client)
        ends = (now // limit.seconds + 1) * limit.seconds
        with self._store.begin() as tx:
            made = tx.execute(
                update(attempts)
                .where(attempts.c.attempt_index == index)
                .values(made=attempts.c.made + 1)
                .returning(attempts.c.made)
            ).scalar()
            if made is None:
                tx.execute(attempts.insert().values(attempt_index=index, made=1, expires_at=ends))
        if made is not None and made > limit.tries:
            raise RateLimitedError(
                f"expected at most {limit.tries} tries in {limit.seconds} s", limit=limit.tries, retry_after=ends - now
            )

    def give_back(self, limit: Limit, client: str) -> None:
        """The try that was counted last was a good one."""
        with self._store.begin() as tx:
            tx.execute(
                update(attempts)
                .where(attempts.c.attempt_index == self._index(limit, client), attempts.c.made > 0)
                .values(made=attempts.c.made - 1)
            )

    def forget(self, tx: Connection) -> None:
        """Forget the counts of windows that have ended."""
        tx.execute(delete(attempts).where(attempts.c.expires_at <= self._clock()))

    def _index(self, limit: Limit, client: str) -> str:
        return self._keys.index("attempt", f"{limit.name}\n{client}\n{self._clock() // limit.seconds}")
