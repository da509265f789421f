"""Webhooks: events are pushed to the addresses that institutions registered, until they are taken.

POST, JSON `{"id", "kind", "consent", "at", ...}`, signed by the custodian (RFC 9421, `signatures.py`) with the key that
it publishes. Any 2xx says that the institution knows. Otherwise the event is sent again, later and later, for three
days. Nothing else waits for this: what an event tells of is in force already.

- At least once: an event is taken by one process, which counts the attempt before it sends. One that dies in between
  leaves the event to the next, once its lease is over. The receiver sees the same id, under another nonce.
- In order: an institution is sent one event at a time, the oldest first. One that fails waits while later ones go.
- Apart: institutions are served side by side, so that a slow receiver holds up itself.
- A suspended institution is told as well: that a consent has ended is what it must know.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Final

from joserfc.jwk import ECKey

from ledger.consent import Address
from ledger.json_forms import DAY_SECONDS
from ledger.outbound import Outbound
from ledger.outbox import Event, Outbox
from ledger.registry import Registry
from ledger.signatures import HttpRequest, sign_request

RETRY_SECONDS: Final = (10, 30, 120, 600, 3600, 21_600)
"""After the first attempt, the second, ...; the last one repeats."""
GIVE_UP_SECONDS: Final = 3 * DAY_SECONDS
JITTER: Final = 5
"""Up to one part in this many is added to a delay, so that what failed together does not come back together."""
LEASE_SECONDS: Final = 60
"""Longer than one attempt can take: see `outbound.py`, and resolvers give up after half a minute."""
RECEIVERS_AT_ONCE: Final = 8
EVENTS_PER_TURN: Final = 5
PATIENCE_SECONDS: Final = 2.0


class Webhooks:
    """Where institutions want to be told, and the telling."""

    def __init__(
        self,
        registry: Registry,
        outbox: Outbox,
        outbound: Outbound,
        *,
        custodian: Address,
        signing_key: ECKey,
        clock: Callable[[], int],
        step: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._registry, self._outbox, self._outbound = registry, outbox, outbound
        self._custodian, self._signing_key, self._clock, self._step = custodian, signing_key, clock, step
        self._pool = ThreadPoolExecutor(RECEIVERS_AT_ONCE, thread_name_prefix="webhook")
        self._serving: set[str] = set()
        self._lock = threading.Lock()

    def register(self, party_id: str, url: str) -> None:
        """Send an institution's events there from now on. Raises `MalformedError` (field `url`), `NotFoundError`."""
        self._outbound.check(url)
        self._registry.set_webhook(party_id, url)

    def unregister(self, party_id: str) -> None:
        """Send its events nowhere; it can still read them. Raises `NotFoundError`."""
        self._registry.set_webhook(party_id, None)

    def url_of(self, party_id: str) -> str | None:
        """Where its events are sent. Raises `NotFoundError`."""
        return self._registry.webhook(party_id)

    def deliver(self, limit: int = 50, *, patience: float = PATIENCE_SECONDS) -> int:
        """Give each institution that something is due to its turn, `limit` of them at most.

        Returns how many events were taken by receivers within `patience` seconds; what takes longer goes on by itself.
        Raises `StoreUnavailableError`, nothing for a receiver's failure.
        """
        now = self._clock()
        due = self._outbox.due(now, limit)
        urls = self._registry.webhooks() if due else {}
        turns = []
        for index in due:
            if index not in urls:
                self._outbox.leave_unaddressed(index, now=now)
            elif (turn := self._begin(index, urls[index])) is not None:
                turns.append(turn)
        ended, _ = wait(turns, timeout=patience)
        return sum(turn.result() for turn in ended)

    def close(self) -> None:
        """Wait for what is being sent; begin nothing more."""
        self._pool.shutdown(cancel_futures=True)

    # ----------------------------------------------------------------------------------------------------------- turns

    def _begin(self, index: str, url: str) -> Future[int] | None:
        """None while its last turn lasts."""
        with self._lock:
            if index in self._serving:
                return None
            self._serving.add(index)
        turn = self._pool.submit(self._turn, index, url)
        turn.add_done_callback(lambda _: self._serving.discard(index))
        return turn

    def _turn(self, index: str, url: str) -> int:
        """A few of an institution's events, until one is not taken. Returns how many were."""
        for done in range(EVENTS_PER_TURN):
            event = self._outbox.claim(index, now=self._clock(), lease=LEASE_SECONDS)
            if event is None:
                return done
            self._step("webhook claimed")
            if not self._send(event, url):
                # What fails one fails the next, and whoever waits for a place here waits for that.
                return done
        return EVENTS_PER_TURN

    def _send(self, event: Event, url: str) -> bool:
        message = HttpRequest(
            method="POST",
            url=url,
            headers={"Content-Type": "application/json", "User-Agent": "consent-ledger"},
            body=json.dumps(event.as_json()).encode(),
        )
        signed = sign_request(
            message,
            party_id=self._custodian,
            key=self._signing_key,
            at=self._clock(),
            nonce=f"{event.event_id}-{event.attempts}",
        )
        answer = self._outbound.post(signed)
        self._step("webhook answered")
        now = self._clock()
        is_taken = answer.startswith("2")
        if is_taken:
            self._outbox.delivered(event, answer=answer, at=now)
        else:
            self._outbox.failed(event, answer=answer, retry_at=_retry_at(event, now))
        return is_taken


def _retry_at(event: Event, now: int) -> int | None:
    """When to try again; None: never."""
    delay = RETRY_SECONDS[min(event.attempts, len(RETRY_SECONDS)) - 1]
    at = now + delay + secrets.randbelow(delay // JITTER + 1)
    return at if at < event.created_at + GIVE_UP_SECONDS else None
