"""Duties: what an institution owes after a release, and what it says that it did.

- Deletion: when the retention ends, everything that was received under the consent has to be deleted. The institution
  attests it by a signed request; what is overdue is visible to the person and to the auditor. Nobody can see from here
  whether it was deleted: the attestation is a statement that its signer answers for.
- Adverse action: a decision against the person that relied on a release is recorded with its main reasons, for the
  person to see.

Both are kept sealed, together with the signed request that made them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, func, select

from ledger.consent import Hex32
from ledger.errors import ConflictError, ErasedError, MalformedError, NotFoundError
from ledger.exchange import Party
from ledger.journal import RELEASED, Journal
from ledger.json_forms import DAY_SECONDS
from ledger.keys import KeyFile
from ledger.preparation import entry_of
from ledger.registry import Registry
from ledger.retention import retentions
from ledger.signatures import SignedRequest
from ledger.store import Store, adverse_actions, deletion_attestations, new_id
from ledger.texts import is_readable
from ledger.vault import open_json, seal_json

ATTESTATION_GRACE_DAYS: Final = 7
"""Deletion is due when the retention ends; the statement that it was done may follow within a week, because deleting
runs in jobs, daily or weekly, and someone has to look at what they did before putting a name to it."""

DECISIONS: Final = ("declined", "counter_offer", "worse_terms", "account_closed", "limit_reduced")
MAX_REASONS: Final = 4
"""More than four are not likely to help the person (12 CFR 1002, comment 9(b)(2)-1)."""
MIN_REASON_LENGTH: Final = 3
MAX_REASON_LENGTH: Final = 300
_LOOKED_AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Attestation:
    """An institution's statement that it deleted what it received under a consent. Times are Unix seconds."""

    attestation_id: str
    consent_id: Hex32
    deleted_at: int
    created_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletionDuty:
    """Until when an institution must have deleted what it received, and whether it says so. Times are Unix seconds.

    `due_at` is None if nothing was released, or if the consent was replaced by one that stands. `attested_at` is when a
    deletion after the last release was first attested. `overdue`: neither done nor within the days of grace.
    """

    due_at: int | None = None
    attested_at: int | None = None
    overdue: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OverdueDeletion:
    """A deletion that was due at `due_at` (Unix seconds) and was not attested."""

    consent_id: Hex32
    institution: str
    due_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AdverseAction:
    """A decision against a person, which relied on these attributes of a release. `created_at` is Unix seconds."""

    release_id: Hex32
    consent_id: Hex32
    institution: str
    decision: str
    reasons: tuple[str, ...]
    attributes: tuple[str, ...]
    created_at: int


class Duties:
    """Attestations of deletion, and adverse actions."""

    def __init__(
        self, store: Store, registry: Registry, journal: Journal, keys: KeyFile, *, clock: Callable[[], int]
    ) -> None:
        self._store, self._registry, self._journal = store, registry, journal
        self._keys, self._clock = keys, clock

    # -------------------------------------------------------------------------------------------------------- deletion

    def attest_deletion(
        self, institution: Party, consent_id: Hex32, *, deleted_at: int, evidence: SignedRequest
    ) -> Attestation:
        """Put on file that everything received under a consent was deleted. Saying it again makes another one.

        Raises `NotFoundError` (also if it is another's), `ErasedError`, `MalformedError` for a time that is in the
        future or before the last release.
        """
        now = self._clock()
        _require_past(deleted_at, now)
        made = Attestation(attestation_id=new_id(), consent_id=consent_id, deleted_at=deleted_at, created_at=now)
        # In one transaction: an erasure must not be overtaken by what began before it.
        with self._store.begin() as tx:
            row = self._registry.rows(tx, [consent_id]).get(consent_id)
            if row is None or row.institution_index != self._registry.institution_index(institution.party_id):
                raise NotFoundError("consent: no such consent", field="consent")
            if row.erased_at is not None:
                raise ErasedError("the data were erased")
            if deleted_at < self._journal.last_answered(tx, [consent_id]).get(consent_id, 0):
                raise MalformedError("deletedAt: expected no earlier than the last release", field="deletedAt")
            opening = {"deletedAt": deleted_at, "request": evidence.as_json()}
            new = {
                "attestation_id": made.attestation_id,
                "consent_id": consent_id,
                "subject_id": row.subject_id,
                "institution_index": row.institution_index,
                "created_at": now,
                **seal_json(opening, _attestation_context(made.attestation_id), self._keys),
            }
            tx.execute(deletion_attestations.insert(), [new])
        return made

    def standing(self, consent_ids: Sequence[Hex32]) -> dict[Hex32, DeletionDuty]:
        """Where the duty to delete stands, for each of these consents; none where the terms were erased."""
        with self._store.read() as tx:
            duties = self._duties(tx, consent_ids)
        return {consent_id: duties.get(consent_id, (DeletionDuty(), ""))[0] for consent_id in consent_ids}

    def overdue(self, subject_id: str | None = None) -> list[OverdueDeletion]:
        """Every deletion that is overdue, the one that waits longest first; of one person if given."""
        latest = self._clock() - ATTESTATION_GRACE_DAYS * DAY_SECONDS
        found: list[OverdueDeletion] = []
        with self._store.read() as tx:
            # No retention is less than none.
            released = self._journal.answered_before(tx, latest, subject_id)
            ids = sorted(released)
            for start in range(0, len(ids), _LOOKED_AT_ONCE):
                chunk = ids[start : start + _LOOKED_AT_ONCE]
                settled = _attested_after(tx, chunk, released)
                duties = self._duties(tx, [one for one in chunk if one not in settled])
                found += [
                    OverdueDeletion(consent_id=consent_id, institution=institution, due_at=duty.due_at)
                    for consent_id, (duty, institution) in duties.items()
                    if duty.overdue and duty.due_at is not None
                ]
        return sorted(found, key=lambda one: (one.due_at, one.consent_id))

    def _duties(self, tx: Connection, consent_ids: Sequence[Hex32]) -> dict[Hex32, tuple[DeletionDuty, str]]:
        """With the institution whose duty it is."""
        now = self._clock()
        released = self._journal.last_answered(tx, consent_ids)
        attested = self._attested(tx, released)
        duties = {}
        for consent_id, retention in retentions(tx, self._registry, list(released), now=now).items():
            due_at, attested_at = retention.ends(released[consent_id]), attested.get(consent_id)
            overdue = due_at is not None and attested_at is None and now > due_at + ATTESTATION_GRACE_DAYS * DAY_SECONDS
            duty = DeletionDuty(due_at=due_at, attested_at=attested_at, overdue=overdue)
            duties[consent_id] = (duty, retention.consent.grant.terms.institution)
        return duties

    def _attested(self, tx: Connection, released: dict[Hex32, int]) -> dict[Hex32, int]:
        """When it was first attested that what was released last was deleted as well."""
        query = select(deletion_attestations).where(
            deletion_attestations.c.consent_id.in_(list(released)), deletion_attestations.c.body.is_not(None)
        )
        attested: dict[Hex32, int] = {}
        for row in tx.execute(query.order_by(deletion_attestations.c.created_at)):
            # One that was made before a release says nothing of it, so it need not be opened.
            if row.consent_id not in attested and row.created_at >= released[row.consent_id]:
                opening = open_json(row, _attestation_context(row.attestation_id), self._keys)
                if opening["deletedAt"] >= released[row.consent_id]:
                    attested[row.consent_id] = row.created_at
        return attested

    # -------------------------------------------------------------------------------------------------- adverse actions

    def adverse_action(
        self,
        institution: Party,
        release_id: Hex32,
        *,
        decision: str,
        reasons: Sequence[str],
        attributes: Sequence[str],
        evidence: SignedRequest,
    ) -> AdverseAction:
        """Record a decision against the person that relied on a release. The same again changes nothing.

        Raises `MalformedError` naming the field, `NotFoundError` (also if it is another's), `ErasedError`, and
        `ConflictError` if nothing was released or another decision is on file.
        """
        _require_decision(decision, reasons)
        now = self._clock()
        with self._store.begin() as tx:
            row = self._answered(tx, release_id, institution)
            made = AdverseAction(
                release_id=release_id,
                consent_id=row.consent_id,
                institution=institution.party_id,
                decision=decision,
                reasons=tuple(reasons),
                attributes=_relied_on(attributes, entry_of(row, self._keys).attributes),
                created_at=now,
            )
            earlier = tx.execute(select(adverse_actions).where(adverse_actions.c.release_id == release_id)).first()
            if earlier is not None:
                return self._same(earlier, made)
            opening = {
                "consent": made.consent_id,
                "institution": made.institution,
                "decision": made.decision,
                "reasons": list(made.reasons),
                "attributes": list(made.attributes),
                "request": evidence.as_json(),
            }
            new = {
                "release_id": release_id,
                "subject_id": row.subject_id,
                "institution_index": row.institution_index,
                "created_at": now,
                **seal_json(opening, _action_context(release_id), self._keys),
            }
            tx.execute(adverse_actions.insert(), [new])
        return made

    def adverse_actions(self, subject_id: str) -> list[AdverseAction]:
        """Every decision against a person that is on file, newest first."""
        mine = adverse_actions.c.subject_id == subject_id
        order = (adverse_actions.c.created_at.desc(), adverse_actions.c.release_id.desc())
        with self._store.read() as tx:
            return [self._action(row) for row in tx.execute(select(adverse_actions).where(mine).order_by(*order))]

    def _answered(self, tx: Connection, release_id: Hex32, institution: Party) -> Row[Any]:
        row = self._journal.release_in(tx, release_id)
        if row is None or row.institution_index != self._registry.institution_index(institution.party_id):
            raise NotFoundError("release: no such release", field="release")
        if row.state != RELEASED:
            raise ConflictError(f"release: expected one that was answered, it is {row.state}", field="release")
        return row

    def _same(self, row: Row[Any], asked: AdverseAction) -> AdverseAction:
        earlier = self._action(row)
        content = (asked.decision, asked.reasons, asked.attributes)
        if (earlier.decision, earlier.reasons, earlier.attributes) != content:
            raise ConflictError("release: another adverse action is on file for it", field="release")
        return earlier

    def _action(self, row: Row[Any]) -> AdverseAction:
        opening = open_json(row, _action_context(row.release_id), self._keys)
        return AdverseAction(
            release_id=row.release_id,
            consent_id=opening["consent"],
            institution=opening["institution"],
            decision=opening["decision"],
            reasons=tuple(opening["reasons"]),
            attributes=tuple(opening["attributes"]),
            created_at=row.created_at,
        )


def _attested_after(tx: Connection, consent_ids: Sequence[Hex32], released: dict[Hex32, int]) -> set[Hex32]:
    """Those attested later than their last release, which only a deletion after it can be: nothing is opened."""
    query = select(deletion_attestations.c.consent_id, func.max(deletion_attestations.c.created_at))
    query = query.where(deletion_attestations.c.consent_id.in_(list(consent_ids)))
    newest = tx.execute(query.group_by(deletion_attestations.c.consent_id))
    return {row[0] for row in newest if row[1] > released[row[0]]}


def _require_past(deleted_at: int, now: int) -> None:
    # A bool is an int in Python; in an API it is a mistake.
    if type(deleted_at) is not int or not 0 <= deleted_at <= now:
        raise MalformedError("deletedAt: expected Unix seconds, not in the future", field="deletedAt")


def _require_decision(decision: str, reasons: Sequence[str]) -> None:
    if decision not in DECISIONS:
        raise MalformedError(f"decision: expected one of {', '.join(DECISIONS)}", field="decision")
    if not 1 <= len(reasons) <= MAX_REASONS:
        raise MalformedError(f"reasons: expected a list of 1 to {MAX_REASONS}", field="reasons")
    if not all(_is_reason(reason) for reason in reasons):
        raise MalformedError(
            f"reasons: expected each of {MIN_REASON_LENGTH} to {MAX_REASON_LENGTH} characters, no control characters",
            field="reasons",
        )


def _is_reason(reason: str) -> bool:
    return is_readable(reason, least=MIN_REASON_LENGTH, most=MAX_REASON_LENGTH)


def _relied_on(attributes: Sequence[str], released: Sequence[str]) -> tuple[str, ...]:
    """In the order of the release, so that the same attributes are the same content."""
    if not attributes or not set(attributes) <= set(released):
        raise MalformedError("attributes: expected at least one, and none that was not released", field="attributes")
    return tuple(name for name in released if name in attributes)


def _attestation_context(attestation_id: str) -> dict[str, str]:
    return {"kind": "deletion-attestation", "attestation": attestation_id}


def _action_context(release_id: str) -> dict[str, str]:
    return {"kind": "adverse-action", "release": release_id}
