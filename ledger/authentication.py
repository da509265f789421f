"""Who asks: the one door for signed requests. An institution's and a furnisher's requests come through here.

(1) The signature is verified with a current key of the party that the request names (`signatures.py`).
(2) In one writing transaction, shared by all who wait: the party is still what it was in (1) and not suspended, the
    nonce was never used, and the rate limit holds. A nonce is durable before anything is done, and the database is
    shared by all processes: a replay finds it whichever process it reaches.

A request that was refused in (2) for anything but a replay has not used its nonce.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final

from sqlalchemy import Connection, bindparam, delete, select

from ledger.errors import (
    AuthenticationError,
    FurnisherSuspendedError,
    InstitutionSuspendedError,
    LedgerError,
    MalformedError,
    RateLimitedError,
    ReplayedRequestError,
)
from ledger.exchange import Party
from ledger.gather import Gather
from ledger.registry import INSTITUTION, Registry
from ledger.signatures import FRESH_SECONDS, HttpRequest, SignedRequest, claimed_keyid, split_keyid, verify_request
from ledger.store import Store, nonces, rates

WINDOW_SECONDS: Final = 60
DEFAULT_RATE_LIMIT: Final = 600
"""Requests a minute of one party, unless configured otherwise."""

_KNOWN_NONCES: Final = select(nonces.c.nonce_index).where(nonces.c.nonce_index.in_(bindparam("ids", expanding=True)))
_RATES: Final = select(rates).where(rates.c.party_index.in_(bindparam("ids", expanding=True)))
_FORGET_RATES: Final = delete(rates).where(rates.c.party_index.in_(bindparam("ids", expanding=True)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Where a party stands in the current window: requests allowed and left, seconds until it starts anew."""

    limit: int
    remaining: int
    reset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """An authenticated party and its request."""

    role: str
    party: Party
    evidence: SignedRequest
    rate: Rate | None = None


class _ChangedError(LedgerError):
    """The party was changed since its signature was verified. Never leaves this module."""


class Authentication:
    """Verifies signed requests, each once."""

    def __init__(self, store: Store, registry: Registry, *, clock: Callable[[], int], rate_limit: int) -> None:
        self._store, self._registry, self._clock, self._limit = store, registry, clock, rate_limit
        self._admit: Gather[Caller, Caller] = Gather(self._admit_all)

    def authenticate(self, message: HttpRequest, role: str = INSTITUTION) -> Caller:
        """Let a signed request in, once.

        Raises `AuthenticationError`, `StaleRequestError`, `ReplayedRequestError`, `RateLimitedError`, and
        `InstitutionSuspendedError` or `FurnisherSuspendedError`.
        """
        caller = self._verified(message, role, self._registry.remembered)
        try:
            if caller is not None:
                return self._admit(caller)
        except _ChangedError:
            pass
        # A key that is new, or one that was retired, since this process last looked.
        caller = self._verified(message, role, self._registry.looked_up)
        if caller is None:
            raise AuthenticationError("signature: not by a current key of a registered party", field="signature")
        try:
            return self._admit(caller)
        except _ChangedError as exc:
            raise AuthenticationError("signature: the party's keys are being changed", field="signature") from exc

    def _verified(self, message: HttpRequest, role: str, find: Callable[[str, str], Party | None]) -> Caller | None:
        """None if the party or the key is not found; an invalid signature is an error."""
        party_id, kid = split_keyid(claimed_keyid(message))
        now = self._clock()
        party = find(role, party_id)
        try:
            key = party.key("sig", now=now, kid=kid) if party else None
        except MalformedError:
            key = None
        if party is None or key is None:
            return None
        return Caller(role=role, party=party, evidence=verify_request(message, key, now=now))

    # ------------------------------------------------------------------------------------------------------- admission

    def _admit_all(self, callers: Sequence[Caller]) -> list[Caller | Exception]:
        with self._store.begin() as tx:
            return self.admit(tx, callers)

    def admit(self, tx: Connection, callers: Sequence[Caller]) -> list[Caller | Exception]:
        """Each with its rate, or why it is refused. Nonces and rates are written in the caller's transaction."""
        now = self._clock()
        window = now // WINDOW_SECONDS
        indexes = [_nonce_index(caller) for caller in callers]
        used = {row.nonce_index for row in tx.execute(_KNOWN_NONCES, {"ids": indexes})}
        current = {
            role: self._registry.parties(tx, role, [one.party.party_id for one in callers if one.role == role])
            for role in {caller.role for caller in callers}
        }
        rate_keys = list({_rate_key(caller) for caller in callers})
        counts = {row.party_index: row.used for row in tx.execute(_RATES, {"ids": rate_keys}) if row.window == window}
        results: list[Caller | Exception] = []
        fresh = []
        for caller, index in zip(callers, indexes, strict=True):
            try:
                self._require_unchanged(caller, current[caller.role].get(caller.party.party_id))
                if index in used:
                    raise ReplayedRequestError("nonce: was used before: sign again", field="signature-input")
                rate = self._rate(counts, _rate_key(caller), now)
            except LedgerError as refusal:
                results.append(refusal)
                continue
            used.add(index)
            fresh.append({"nonce_index": index, "expires_at": caller.evidence.created + 2 * FRESH_SECONDS})
            results.append(replace(caller, rate=rate))
        if fresh:
            tx.execute(nonces.insert(), fresh)
            tx.execute(_FORGET_RATES, {"ids": rate_keys})
            rows = [{"party_index": key, "window": window, "used": counts[key]} for key in rate_keys if key in counts]
            tx.execute(rates.insert(), rows)
        return results

    def _require_unchanged(self, caller: Caller, party: Party | None) -> None:
        if party is None or party.version != caller.party.version:
            raise _ChangedError("changed")
        if party.suspended:
            suspended = InstitutionSuspendedError if caller.role == INSTITUTION else FurnisherSuspendedError
            raise suspended(f"the {caller.role} is suspended", field=caller.role)

    def _rate(self, counts: dict[str, int], key: str, now: int) -> Rate:
        reset = WINDOW_SECONDS - now % WINDOW_SECONDS
        used = counts.get(key, 0) + 1
        if used > self._limit:
            raise RateLimitedError(
                f"expected at most {self._limit} requests in {WINDOW_SECONDS} s", limit=self._limit, retry_after=reset
            )
        counts[key] = used
        return Rate(limit=self._limit, remaining=self._limit - used, reset=reset)

    def forget_nonces(self) -> int:
        """Forget nonces of requests that are refused as stale by now. Returns how many."""
        with self._store.begin() as tx:
            return tx.execute(delete(nonces).where(nonces.c.expires_at < self._clock())).rowcount


def _nonce_index(caller: Caller) -> str:
    return sha256(f"{caller.role}\n{caller.evidence.keyid}\n{caller.evidence.nonce}".encode()).hexdigest()


def _rate_key(caller: Caller) -> str:
    return f"{caller.role}:{caller.party.party_id}"
