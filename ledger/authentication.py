"""Who asks: the one door for signed requests. An institution's and a furnisher's requests come through here.

(1) The signature is verified with a current key of the party that the request names (`signatures.py`).
(2) In one writing transaction, shared by all who wait: the party is still what it was in (1) and not suspended (or does
    what it owes), the nonce was never used, and the rate limit holds. A nonce is durable before anything is done, and
    the database is shared by all processes: a replay finds it whichever process it reaches.

A request that was refused in (2) for anything but a replay has not used its nonce.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from ledger.errors import (
    AuthenticationError,
    FurnisherSuspendedError,
    InstitutionSuspendedError,
    LedgerError,
    MalformedError,
    PartyChangedError,
    RateLimitedError,
    ReplayedRequestError,
    StaleRequestError,
)
from ledger.exchange import Party
from ledger.gather import Gather
from ledger.parties import FURNISHER, INSTITUTION
from ledger.registry import Registry
from ledger.signatures import FRESH_SECONDS, HttpRequest, SignedRequest, claimed_keyid, split_keyid, verify_request
from ledger.store import Store, insert_many, nonces, rates

WINDOW_SECONDS: Final = 60
"""Requests a minute of one party, unless configured otherwise."""

_KNOWN_NONCES: Final = select(nonces.c.nonce_index).where(nonces.c.nonce_index.in_(bindparam("ids", expanding=True)))
_RATES: Final = select(rates).where(rates.c.party_index.in_(bindparam("ids", expanding=True)))
_COUNT: Final = (
    update(rates)
    .where(rates.c.party_index == bindparam("key"))
    .values(window=bindparam("now"), used=bindparam("count"))
)
_COUNT_NEW: Final = insert(rates).values(party_index=bindparam("key"), window=bindparam("now"), used=bindparam("count"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Where a party stands in the current window: requests allowed and left, seconds until it starts anew."""

    limit: int
    remaining: int
    reset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A request whose signature is valid, and that was not let in yet.

    `is_duty`: what it does is owed, so a suspended party may, and must, do it as well.
    """

    role: str
    party: Party
    evidence: SignedRequest
    message: HttpRequest
    is_duty: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """An authenticated party and its request, which was let in."""

    role: str
    party: Party
    evidence: SignedRequest
    rate: Rate


class Authentication:
    """Verifies signed requests, and lets each in once."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        *,
        service_url: str,
        clock: Callable[[], int],
        rate_limit: int,
        max_batch: int,
    ) -> None:
        self._store, self._registry, self._clock, self._limit = store, registry, clock, rate_limit
        self._service_url = service_url
        self._admit: Gather[Signed, Caller] = Gather(self._admit_all, limit=max_batch)

    def authenticate(self, message: HttpRequest, role: str = INSTITUTION, *, is_duty: bool = False) -> Caller:
        """Verify a request and let it in; one that is a duty, also from a suspended party.

        Raises `AuthenticationError`, `StaleRequestError`, `ReplayedRequestError`, `RateLimitedError`, and
        `InstitutionSuspendedError` or `FurnisherSuspendedError`.
        """
        signed = self.verify(message, role)
        try:
            return self._admit(replace(signed, is_duty=is_duty))
        except PartyChangedError:
            return self._admit(replace(self.verify_again(signed), is_duty=is_duty))

    def verify(self, message: HttpRequest, role: str = INSTITUTION) -> Signed:
        """(1) alone, for a flow that lets its callers in by itself (`admit`). Raises `AuthenticationError`."""
        try:
            found = self._verified(message, role, self._registry.remembered)
        except StaleRequestError:
            raise
        except AuthenticationError:
            # By the key that had this id when this process last looked, perhaps not by the one that has it now.
            found = None
        # A party or a key that is new since this process last looked.
        found = found or self._verified(message, role, self._registry.looked_up)
        if found is None:
            raise self._not_found(message, role)
        return found

    def verify_again(self, signed: Signed) -> Signed:
        """With the keys as they are registered now. Raises `AuthenticationError`."""
        found = self._verified(signed.message, signed.role, self._registry.looked_up)
        if found is None:
            raise self._not_found(signed.message, signed.role)
        return found

    def _not_found(self, message: HttpRequest, role: str) -> AuthenticationError:
        """Whoever holds a key of the other kind of party is told so; nobody else learns who is registered."""
        reason = "not by a current key of a registered party"
        for other in {INSTITUTION, FURNISHER} - {role}:
            with suppress(AuthenticationError):
                if self._verified(message, other, self._registry.looked_up):
                    reason = f"by a key of a registered {other}: expected one of a registered {role}"
        return AuthenticationError(f"signature: {reason}", field="signature")

    def _verified(self, message: HttpRequest, role: str, find: Callable[[str, str], Party | None]) -> Signed | None:
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
        evidence = verify_request(message, key, now=now, under=self._service_url)
        return Signed(role=role, party=party, evidence=evidence, message=message)

    # ------------------------------------------------------------------------------------------------------- admission

    def _admit_all(self, signed: Sequence[Signed]) -> list[Caller | Exception]:
        with self._store.begin() as tx:
            return self.admit(tx, signed)

    def admit(self, tx: Connection, signed: Sequence[Signed]) -> list[Caller | Exception]:
        """Each with its rate, or why it is refused. Nonces and rates are written in the caller's transaction."""
        now = self._clock()
        window = now // WINDOW_SECONDS
        indexes = [_nonce_index(one) for one in signed]
        used = {row.nonce_index for row in tx.execute(_KNOWN_NONCES, {"ids": indexes})}
        current = {
            role: self._registry.parties(tx, role, [one.party.party_id for one in signed if one.role == role])
            for role in {one.role for one in signed}
        }
        rate_keys = list({_rate_key(one) for one in signed})
        on_file = {row.party_index: row for row in tx.execute(_RATES, {"ids": rate_keys})}
        counts = {key: row.used for key, row in on_file.items() if row.window == window}
        results: list[Caller | Exception] = []
        fresh = []
        for one, index in zip(signed, indexes, strict=True):
            try:
                self._require_unchanged(one, current[one.role].get(one.party.party_id))
                if index in used:
                    raise ReplayedRequestError("nonce: was used before: sign again", field="signature-input")
                rate = self._rate(counts, _rate_key(one), now)
            except LedgerError as refusal:
                results.append(refusal)
                continue
            used.add(index)
            fresh.append({"nonce_index": index, "expires_at": one.evidence.created + 2 * FRESH_SECONDS})
            results.append(Caller(role=one.role, party=one.party, evidence=one.evidence, rate=rate))
        if fresh:
            insert_many(tx, nonces, fresh)
            counted = [{"key": key, "now": window, "count": counts[key]} for key in rate_keys if key in counts]
            if known := [row for row in counted if row["key"] in on_file]:
                tx.execute(_COUNT, known)
            if new := [row for row in counted if row["key"] not in on_file]:
                tx.execute(_COUNT_NEW, new)
        return results

    def _require_unchanged(self, signed: Signed, party: Party | None) -> None:
        if party is None or party.version != signed.party.version:
            raise PartyChangedError("signature: the party was changed meanwhile: ask again", field="signature")
        if party.suspended and not signed.is_duty:
            suspended = InstitutionSuspendedError if signed.role == INSTITUTION else FurnisherSuspendedError
            raise suspended(f"the {signed.role} is suspended", field=signed.role)

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


def _nonce_index(one: Signed) -> str:
    return sha256(f"{one.role}\n{one.evidence.keyid}\n{one.evidence.nonce}".encode()).hexdigest()


def _rate_key(one: Signed) -> str:
    return f"{one.role}:{one.party.party_id}"
