"""Concerns: what a person should know of without asking, and what they may do about it.

- `deletion_overdue`: what an institution received had to be deleted, and it has not attested that it was.
- `adverse_action`: a decision against the person relied on a release; its reasons are the institution's own words.

What may be done is a code, so that each page says it in its own language.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ledger.consent import Hex32
from ledger.duties import Duties
from ledger.registry import Registry

DELETION_OVERDUE: Final = "deletion_overdue"
ADVERSE_ACTION: Final = "adverse_action"

ASK_INSTITUTION: Final = "ask_institution"
ASK_FOR_A_PERSON: Final = "ask_for_a_person"
DISPUTE_DATA: Final = "dispute_data"
STOP_CONSENT: Final = "stop_consent"
COMPLAIN: Final = "complain"
_FOR_DELETION: Final = (ASK_INSTITUTION, COMPLAIN)
_FOR_DELETION_WHILE_OPEN: Final = (ASK_INSTITUTION, STOP_CONSENT, COMPLAIN)
_FOR_DECISION: Final = (ASK_INSTITUTION, ASK_FOR_A_PERSON, DISPUTE_DATA, COMPLAIN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Concern:
    """One of them. `at` is when it was due, or decided (Unix seconds); `may_do` are the codes above.

    `release_id`, `decision`, `reasons` and `attributes` are of an adverse action; the reasons are shown as text.
    """

    kind: str
    at: int
    institution: str
    institution_name: str
    consent_id: Hex32
    may_do: tuple[str, ...]
    release_id: Hex32 | None = None
    decision: str | None = None
    reasons: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()


class Concerns:
    """Gathers them, for one person at a time."""

    def __init__(self, duties: Duties, registry: Registry, *, clock: Callable[[], int]) -> None:
        self._duties, self._registry, self._clock = duties, registry, clock

    def of_subject(self, subject_id: str) -> list[Concern]:
        """Everything that concerns a person, newest first. Raises `VaultError`."""
        names = {one.party_id: one.name for one in self._registry.institutions()}
        overdue = [
            Concern(
                kind=DELETION_OVERDUE,
                at=one.due_at,
                institution=one.institution,
                institution_name=names.get(one.institution, one.institution),
                consent_id=one.consent_id,
                may_do=_FOR_DELETION_WHILE_OPEN if self._is_open(one.consent_id) else _FOR_DELETION,
            )
            for one in self._duties.overdue(subject_id)
        ]
        decided = [
            Concern(
                kind=ADVERSE_ACTION,
                at=one.created_at,
                institution=one.institution,
                institution_name=names.get(one.institution, one.institution),
                consent_id=one.consent_id,
                may_do=_FOR_DECISION,
                release_id=one.release_id,
                decision=one.decision,
                reasons=one.reasons,
                attributes=one.attributes,
            )
            for one in self._duties.adverse_actions(subject_id)
        ]
        return sorted([*overdue, *decided], key=lambda one: (one.at, one.kind, one.consent_id), reverse=True)

    def _is_open(self, consent_id: Hex32) -> bool:
        # Nobody is told to stop what has ended.
        consent = self._registry.consent(consent_id)
        return consent.revoked_at is None and self._clock() < consent.grant.expires_at
