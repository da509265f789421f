"""What a page says about a consent: its state in the person's words, from what the chain and this service know.

While the chain cannot be asked, a page says what the service knows by itself, and that it is only that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from ledger.consent import Hex32, Reason, State
from ledger.custodian import Custodian
from ledger.errors import ChainError, NotFoundError
from ledger.notice_texts import Notice
from ledger.registry import StoredConsent
from ledger.standing import IN_FORCE, PENDING, Standing

ACTIVE: Final = "active"
PAUSED: Final = "paused"
WAITING: Final = "waiting"
ENDED: Final = "ended"
NOT_YET_VALID: Final = Reason.NOT_YET_VALID.name.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsentView:
    """A consent as it is shown. Times are Unix seconds.

    `state` is `active`, `paused`, `waiting` (on its way to the chain) or `ended`, and `why` how it ended: `revoked`,
    `replaced`, `expired` or `exhausted`; or why an active one cannot be used now: `not_yet_valid`, or `barred`, as its
    institution is suspended. `uses_left` and `last_used_at` are None where they are not known, as
    `is_known` says; `on_chain` is whether the chain has what `state` says, None while it cannot be asked.
    """

    consent: StoredConsent
    state: str
    why: str
    uses_left: int | None
    last_used_at: int | None
    on_chain: bool | None

    @property
    def id(self) -> Hex32:
        """Its id."""
        return self.consent.consent_id

    @property
    def is_known(self) -> bool:
        """Whether the chain was asked."""
        return self.on_chain is not None

    @property
    def can_stop(self) -> bool:
        """Whether there is anything to stop."""
        return self.state != ENDED


def views_of(custodian: Custodian, consents: Sequence[StoredConsent]) -> tuple[list[ConsentView], bool]:
    """How these consents are shown, in this order, and whether the chain could be asked."""
    try:
        standings = custodian.standings.of(consents)
        states = custodian.chain.consents([consent.consent_id for consent in consents]) if consents else []
    except ChainError:
        views, is_known = [_unasked(consent, custodian.clock()) for consent in consents], False
    else:
        views, is_known = [_asked(one, found.state) for one, found in zip(standings, states, strict=True)], True
    names = {view.consent.grant.terms.institution for view in views}
    barred = {name for name in names if custodian.registry.institution(name).suspended}
    return [
        replace(view, why="barred") if view.state == ACTIVE and view.consent.grant.terms.institution in barred else view
        for view in views
    ], is_known


def notice_of(custodian: Custodian, notice_hash: Hex32) -> Notice | None:
    """The notice that was signed for; None if whoever had it signed kept no text of it here."""
    try:
        return custodian.notices.notice(notice_hash)
    except NotFoundError:
        return None


def view_of(custodian: Custodian, consent: StoredConsent) -> ConsentView:
    """How one consent is shown."""
    return views_of(custodian, [consent])[0][0]


def _asked(standing: Standing, on_chain: State) -> ConsentView:
    consent = standing.consent
    state = {IN_FORCE: ACTIVE, NOT_YET_VALID: ACTIVE, PENDING: WAITING, "paused": PAUSED}.get(standing.state, ENDED)
    why = standing.state if state == ENDED or standing.state == NOT_YET_VALID else ""
    if why == "revoked" and consent.replaced_by:
        why = "replaced"
    return ConsentView(
        consent=consent,
        state=state,
        why=why,
        uses_left=standing.uses_left,
        last_used_at=standing.last_used_at,
        on_chain=on_chain is _expected(consent),
    )


def _expected(consent: StoredConsent) -> State:
    """What the chain says once it has everything that this service has on file."""
    if consent.revoked_at is not None:
        return State.REVOKED
    return State.PAUSED if consent.paused else State.ACTIVE


def _unasked(consent: StoredConsent, now: int) -> ConsentView:
    state, why = ACTIVE, ""
    if consent.revoked_at is not None:
        state, why = ENDED, "replaced" if consent.replaced_by else "revoked"
    elif consent.grant.expires_at <= now:
        state, why = ENDED, "expired"
    elif consent.paused:
        state = PAUSED
    elif not consent.standing:
        state = WAITING
    elif consent.grant.valid_from > now:
        why = NOT_YET_VALID
    return ConsentView(consent=consent, state=state, why=why, uses_left=None, last_used_at=None, on_chain=None)
