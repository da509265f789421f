"""Where consents stand: the terms beside what the chain, the journal and the person's own acts make of them.

What the person signed counts from the moment it is on file here; otherwise the contract's verdict does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from ledger.chain import Chain
from ledger.consent import Address, Hex32, Reason
from ledger.journal import Journal
from ledger.json_forms import DAY_SECONDS
from ledger.registry import Registry, StoredConsent
from ledger.store import Store

IN_FORCE: Final = "in_force"
PENDING: Final = "pending"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A consent and where it stands.

    `state` is `in_force`, `pending` (on its way to the chain), or the reason why it is not in force. Times are Unix
    seconds; `uses_left` counts what the contract still allows, `used_today` what was used of the daily limit (UTC).
    """

    consent: StoredConsent
    state: str
    uses_left: int
    used_today: int
    last_used_at: int | None


class Standings:
    """Asks chain and journal, each once for all."""

    def __init__(
        self,
        store: Store,
        journal: Journal,
        registry: Registry,
        chain: Chain,
        *,
        custodian: Address,
        clock: Callable[[], int],
    ) -> None:
        self._store, self._journal, self._registry, self._chain = store, journal, registry, chain
        self._custodian, self._clock = custodian, clock

    def of(self, consents: Sequence[StoredConsent]) -> list[Standing]:
        """Where each stands now. Raises `ChainError`."""
        if not consents:
            return []
        ids = [consent.consent_id for consent in consents]
        now = self._clock()
        reasons = self._chain.statuses(ids, self._custodian)
        accesses = [state.accesses for state in self._chain.consents(ids)]
        with self._store.read() as tx:
            used_today = self._journal.used_on(tx, ids, now // DAY_SECONDS)
            last_used = self._journal.last_used(tx, ids)
        return [
            Standing(
                consent=consent,
                state=_state(consent, reason, now),
                uses_left=max(0, consent.grant.max_accesses - used),
                used_today=used_today[consent.consent_id],
                last_used_at=last_used.get(consent.consent_id),
            )
            for consent, reason, used in zip(consents, reasons, accesses, strict=True)
        ]

    def of_institution(self, party_id: str, *, limit: int, after: Hex32 | None = None) -> list[Standing]:
        """A page of an institution's consents, newest first."""
        return self.of(self._registry.consents_of(party_id, limit=limit, after=after))


def _state(consent: StoredConsent, reason: Reason, now: int) -> str:
    if consent.revoked_at is not None:
        return Reason.REVOKED.name.lower()
    if consent.paused and reason in (Reason.NONE, Reason.PAUSED):
        return Reason.PAUSED.name.lower()
    if reason is Reason.NOT_GRANTED:
        return PENDING
    # A view is judged at the time of the last block, which stands still while nothing happens.
    if reason in (Reason.NONE, Reason.NOT_YET_VALID, Reason.PAUSED) and consent.grant.expires_at <= now:
        return Reason.EXPIRED.name.lower()
    if reason is Reason.NOT_YET_VALID and consent.grant.valid_from <= now:
        return IN_FORCE
    return reason.name.lower() if reason else IN_FORCE
