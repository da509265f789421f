"""Duties: what is due is known to the second, what is attested is kept as it was signed, what was decided is shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from actors import DAY, NOON, Institution, Subject, World
from sqlalchemy import select

from ledger import duties
from ledger.consent import Hex32
from ledger.duties import AdverseAction, Attestation, DeletionDuty, OverdueDeletion
from ledger.errors import ConflictError, ErasedError, LedgerError, MalformedError, NotFoundError
from ledger.signatures import SignedRequest, verify_evidence
from ledger.store import adverse_actions, deletion_attestations
from ledger.vault import open_json

RETENTION = 31 * DAY
GRACE = 7 * DAY
REASONS = ("Income insufficient for amount of credit requested", "Length of employment")


def attest(
    world: World, consent: Hex32, *, deleted_at: int | None = None, institution: Institution | None = None
) -> Attestation:
    by = institution or world.institution
    at = world.clock() if deleted_at is None else deleted_at
    path = f"/v1/consents/{consent}/deletion-attestations"
    return world.custodian.duties.attest_deletion(
        world.custodian.registry.institution(by.institution_id),
        consent,
        deleted_at=at,
        evidence=by.evidence(world.custodian, path, {"deletedAt": at}),
    )


def standing(world: World, consent: Hex32) -> DeletionDuty:
    return world.custodian.duties.standing([consent])[consent]


def overdue(world: World, subject: Subject | None = None) -> list[OverdueDeletion]:
    return world.custodian.duties.overdue(world.custodian.vault.subject_of(subject.ref) if subject else None)


def used(world: World, **terms: Any) -> Hex32:
    """A consent under which something was released just now."""
    consent = world.grant(**terms)
    world.ask(consent)
    return consent


def decide(
    world: World,
    release_id: Hex32,
    *,
    institution: Institution | None = None,
    decision: str = "declined",
    reasons: Sequence[str] = REASONS,
    attributes: Sequence[str] = ("credit_amount",),
) -> AdverseAction:
    by = institution or world.institution
    return world.custodian.duties.adverse_action(
        world.custodian.registry.institution(by.institution_id),
        release_id,
        decision=decision,
        reasons=reasons,
        attributes=attributes,
        evidence=by.evidence(world.custodian, f"/v1/releases/{release_id}/adverse-action", {"decision": decision}),
    )


def decisions(world: World, subject: Subject | None = None) -> list[AdverseAction]:
    subject_id = world.custodian.vault.subject_of((subject or world.subject).ref)
    return world.custodian.duties.adverse_actions(subject_id)


# ------------------------------------------------------------------------------------------------- when deletion is due


def test_deletion_is_due_when_the_retention_of_the_last_release_ends(world: World) -> None:
    consent = used(world)
    assert standing(world, consent) == DeletionDuty(due_at=NOON + RETENTION, attested_at=None, overdue=False)
    world.clock.advance(DAY)
    world.ask(consent)
    assert standing(world, consent).due_at == NOON + DAY + RETENTION


def test_what_may_not_be_stored_is_due_at_once(world: World) -> None:
    assert standing(world, used(world, retention_days=0)).due_at == NOON


def test_nothing_is_due_where_nothing_was_released(world: World) -> None:
    unused, refused = world.grant(), world.grant()
    with pytest.raises(LedgerError):
        world.ask(refused, purpose="account-review")
    nowhere = Hex32("0x" + "12" * 32)
    world.clock.advance(400 * DAY)
    assert world.custodian.duties.standing([unused, refused, nowhere]) == {
        unused: DeletionDuty(),
        refused: DeletionDuty(),
        nowhere: DeletionDuty(),
    }
    assert overdue(world) == []
    assert world.custodian.duties.standing([]) == {}


@pytest.mark.parametrize(("after", "late"), [(0, False), (GRACE, False), (GRACE + 1, True)])
def test_it_is_overdue_once_the_days_of_grace_have_passed(world: World, after: int, late: bool) -> None:
    consent = used(world)
    world.clock.advance(RETENTION + after)
    due_at = NOON + RETENTION
    assert standing(world, consent) == DeletionDuty(due_at=due_at, attested_at=None, overdue=late)
    expected = OverdueDeletion(consent_id=consent, institution="bank-1", due_at=due_at)
    assert overdue(world) == ([expected] if late else [])


def test_the_duty_stays_when_the_consent_ends(world: World) -> None:
    revoked, expired = used(world), used(world, expires_at=NOON + 60)
    world.subject.revoke(world.custodian, revoked)
    world.clock.advance(RETENTION + GRACE + 1)
    assert {one.consent_id for one in overdue(world)} == {revoked, expired}


def test_each_person_sees_what_is_overdue_and_the_auditor_sees_all_of_it(world: World) -> None:
    other, another = world.another_subject(), world.another_institution()
    theirs = other.grant(world.custodian, another, retention_days=2)
    world.custodian.releases.release(another.request(world.custodian, theirs))
    mine = used(world, retention_days=1)
    world.clock.advance(GRACE + 2 * DAY + 1)
    assert [one.consent_id for one in overdue(world)] == [mine, theirs]
    assert [one.consent_id for one in overdue(world, world.subject)] == [mine]
    assert [(one.consent_id, one.institution) for one in overdue(world, other)] == [(theirs, another.institution_id)]


def test_many_overdue_consents_are_all_found_the_longest_waiting_first(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duties, "_LOOKED_AT_ONCE", 2)
    days = (3, 0, 4, 1, 2, 6, 5)
    made = {used(world, retention_days=each): each for each in days}
    world.clock.advance(GRACE + 6 * DAY + 1)
    assert [made[one.consent_id] for one in overdue(world)] == sorted(days)


# ---------------------------------------------------------------------------------------------------------- attestation


def test_an_attested_deletion_is_not_overdue(world: World) -> None:
    consent = used(world)
    world.clock.advance(RETENTION)
    made = attest(world, consent, deleted_at=NOON + 5)
    assert (made.consent_id, made.deleted_at, made.created_at) == (consent, NOON + 5, NOON + RETENTION)
    world.clock.advance(GRACE + 1)
    assert standing(world, consent) == DeletionDuty(
        due_at=NOON + RETENTION, attested_at=NOON + RETENTION, overdue=False
    )
    assert overdue(world) == []


def test_a_late_attestation_ends_what_is_overdue(world: World) -> None:
    consent = used(world)
    world.clock.advance(RETENTION + GRACE + 1)
    assert standing(world, consent).overdue
    attest(world, consent)
    assert not standing(world, consent).overdue
    assert overdue(world) == []


def test_a_release_after_the_attestation_is_due_anew(world: World) -> None:
    consent = used(world)
    world.clock.advance(60)
    attest(world, consent)
    world.clock.advance(60)
    world.ask(consent)
    assert standing(world, consent) == DeletionDuty(due_at=NOON + 120 + RETENTION, attested_at=None, overdue=False)
    world.clock.advance(RETENTION + GRACE + 1)
    assert [one.consent_id for one in overdue(world)] == [consent]


def test_an_attestation_in_the_second_of_a_release_counts_only_if_its_deletion_came_no_earlier(world: World) -> None:
    consent = used(world)
    world.clock.advance(60)
    attest(world, consent, deleted_at=NOON + 30)
    world.ask(consent)
    assert standing(world, consent).attested_at is None
    other = used(world)
    attest(world, other, deleted_at=NOON + 60)
    assert standing(world, other).attested_at == NOON + 60
    world.clock.advance(RETENTION + GRACE + 1)
    assert [one.consent_id for one in overdue(world)] == [consent]


def test_saying_it_again_is_another_statement_and_the_first_one_counts(world: World) -> None:
    consent = used(world)
    first = attest(world, consent)
    world.clock.advance(60)
    second = attest(world, consent)
    assert first.attestation_id != second.attestation_id
    assert standing(world, consent).attested_at == first.created_at
    with world.custodian.store.read() as tx:
        assert len(tx.execute(select(deletion_attestations)).all()) == 2


def test_it_can_be_attested_before_it_is_due_and_without_any_release(world: World) -> None:
    unused = world.grant()
    assert attest(world, unused, deleted_at=0).deleted_at == 0
    with pytest.raises(MalformedError):
        attest(world, unused, deleted_at=-1)
    assert standing(world, unused) == DeletionDuty()
    consent = used(world)
    attest(world, consent)
    assert standing(world, consent).attested_at == NOON


@pytest.mark.parametrize("deleted_at", [NOON - 1, NOON + 61, -1, True, 1e9, "1"])
def test_a_deletion_in_the_future_or_before_the_last_release_is_not_believed(world: World, deleted_at: Any) -> None:
    consent = used(world)
    world.clock.advance(60)
    with pytest.raises(MalformedError) as refused:
        attest(world, consent, deleted_at=deleted_at)
    assert refused.value.field == "deletedAt"
    assert standing(world, consent).attested_at is None


def test_anothers_consent_and_none_cannot_be_attested_and_look_the_same(world: World) -> None:
    consent, stranger = used(world), world.another_institution()
    said = []
    for which in (consent, Hex32("0x" + "12" * 32)):
        with pytest.raises(NotFoundError) as refused:
            attest(world, which, institution=stranger)
        said.append((refused.value.message, refused.value.field))
    assert said[0] == said[1]
    assert standing(world, consent).attested_at is None


def test_the_signed_request_is_kept_and_can_be_shown(world: World) -> None:
    made = attest(world, used(world))
    with world.custodian.store.read() as tx:
        row = tx.execute(select(deletion_attestations)).one()
    context = {"kind": "deletion-attestation", "attestation": made.attestation_id}
    opening = open_json(row, context, world.custodian.keys)
    evidence = SignedRequest.from_json(opening["request"])
    verify_evidence(evidence, world.institution.signing_key)
    assert str(made.deleted_at).encode() in evidence.body
    assert world.institution.institution_id not in repr(tuple(row))


# --------------------------------------------------------------------------------------------------------- replacements


def test_nothing_is_due_while_a_replacement_stands(world: World) -> None:
    old = used(world, retention_days=1)
    new = world.grant(replaces=old, retention_days=1)
    world.clock.advance(20 * DAY)
    assert standing(world, old) == DeletionDuty()
    assert overdue(world) == []
    # A pause is no end of it.
    world.subject.pause(world.custodian, new)
    assert standing(world, old) == DeletionDuty()


def test_a_replacement_that_ended_lets_it_be_kept_for_the_longer_of_both_retentions(world: World) -> None:
    longer, shorter = used(world, retention_days=3), used(world, retention_days=20)
    for old, days in ((longer, 20), (shorter, 3)):
        new = world.grant(replaces=old, retention_days=days)
        world.clock.advance(60)
        world.subject.revoke(world.custodian, new)
    assert standing(world, longer).due_at == standing(world, shorter).due_at == NOON + 20 * DAY


def test_it_is_not_due_before_the_replacement_ended(world: World) -> None:
    revoked, expired = used(world, retention_days=1), used(world, retention_days=1)
    new = world.grant(replaces=revoked, retention_days=1)
    brief = world.grant(replaces=expired, retention_days=1, expires_at=NOON + 5 * DAY)
    world.clock.advance(10 * DAY)
    # The end of what had ended by itself stays what it was.
    world.subject.revoke(world.custodian, new, brief)
    assert standing(world, revoked) == DeletionDuty(due_at=NOON + 10 * DAY)
    assert standing(world, expired) == DeletionDuty(due_at=NOON + 5 * DAY)
    world.clock.advance(GRACE + 1)
    assert {one.consent_id for one in overdue(world)} == {revoked, expired}


def test_the_newest_of_several_replacements_counts(world: World) -> None:
    first = used(world, retention_days=1)
    second = world.grant(replaces=first, retention_days=31)
    third = world.grant(replaces=second, retention_days=5)
    assert standing(world, first) == DeletionDuty()
    world.subject.revoke(world.custodian, third)
    assert standing(world, first).due_at == NOON + 5 * DAY
    assert standing(world, second) == DeletionDuty()


def test_a_consent_that_ended_otherwise_has_no_replacement(world: World) -> None:
    old = used(world)
    world.subject.revoke(world.custodian, old)
    world.grant()
    assert standing(world, old).due_at == NOON + RETENTION


# ------------------------------------------------------------------------------------------------------ adverse actions


def test_a_decision_is_on_file_for_the_person_with_its_reasons(world: World) -> None:
    consent = world.grant()
    release = world.ask(consent, attributes=("credit_amount", "savings"))
    made = decide(world, release.release_id, attributes=("savings",))
    assert made == AdverseAction(
        release_id=release.release_id,
        consent_id=consent,
        institution="bank-1",
        decision="declined",
        reasons=REASONS,
        attributes=("savings",),
        created_at=NOON,
    )
    assert decisions(world) == [made]
    assert decisions(world, world.another_subject()) == []


def test_decisions_are_listed_newest_first(world: World) -> None:
    consent = world.grant()
    made = []
    for decision in ("declined", "counter_offer", "worse_terms"):
        made.append(decide(world, world.ask(consent).release_id, decision=decision))
        world.clock.advance(60)
    assert decisions(world) == made[::-1]


def test_the_same_again_is_the_same_and_anything_else_is_a_conflict(world: World) -> None:
    release = world.ask(world.grant(), attributes=("credit_amount", "savings")).release_id
    made = decide(world, release, attributes=("credit_amount", "savings"))
    world.clock.advance(60)
    assert decide(world, release, attributes=("savings", "credit_amount")) == made
    for change in ({"decision": "worse_terms"}, {"reasons": REASONS[:1]}, {"attributes": ("savings",)}):
        with pytest.raises(ConflictError) as refused:
            decide(world, release, **{"attributes": ("credit_amount", "savings"), **change})  # type: ignore[arg-type]
        assert refused.value.field == "release"
    assert decisions(world) == [made]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("decision", "approved"),
        ("decision", ""),
        ("reasons", ()),
        ("reasons", ("one", "two", "three", "four", "five")),
        ("reasons", ("no",)),
        ("reasons", ("   ",)),
        ("reasons", ("fine", "x" * 301)),
        ("reasons", ("a\nb c",)),
        ("reasons", ("clear \x1b[2J",)),
        ("reasons", ("a\u2028b c",)),
        ("reasons", ("half a pair \ud800",)),
        ("reasons", ("turned \u202e around",)),
        ("reasons", (4711,)),
        ("reasons", "declined"),
        ("attributes", ()),
        ("attributes", ("savings",)),
        ("attributes", ("credit_amount", "savings")),
        ("attributes", "credit_amount"),
    ],
)
def test_a_decision_that_is_not_of_its_form_names_the_field(world: World, field: str, value: Any) -> None:
    release = world.ask(world.grant()).release_id
    with pytest.raises(MalformedError) as refused:
        decide(world, release, **{field: value})
    assert refused.value.field == field
    assert decisions(world) == []


@pytest.mark.parametrize("reasons", [("two", "four", "six", "ten"), ("x" * 300,), ("درآمد کافی نمی‌باشد",)])
def test_reasons_may_be_four_and_in_any_language(world: World, reasons: tuple[str, ...]) -> None:
    release = world.ask(world.grant()).release_id
    assert decide(world, release, reasons=reasons).reasons == reasons


def test_anothers_release_and_none_look_the_same(world: World) -> None:
    release, stranger = world.ask(world.grant()).release_id, world.another_institution()
    said = []
    for which in (release, Hex32("0x" + "12" * 32)):
        with pytest.raises(NotFoundError) as refused:
            decide(world, which, institution=stranger)
        said.append((refused.value.message, refused.value.field))
    assert said[0] == said[1]
    assert decisions(world) == []


def test_nothing_can_be_decided_on_what_was_not_released(world: World) -> None:
    with pytest.raises(LedgerError):
        world.ask(world.grant(), purpose="account-review")
    (row,) = world.custodian.journal.history()
    with pytest.raises(ConflictError) as refused:
        decide(world, row.release_id)
    assert refused.value.field == "release"


def test_the_reasons_are_on_file_only_sealed_with_the_signed_request(world: World) -> None:
    release = world.ask(world.grant()).release_id
    decide(world, release, decision="worse_terms")
    with world.custodian.store.read() as tx:
        row = tx.execute(select(adverse_actions)).one()
    files = b"".join(path.read_bytes() for path in world.config.data.glob("ledger.db*"))
    for text in (*REASONS, "worse_terms"):
        assert text.encode() not in files
    opening = open_json(row, {"kind": "adverse-action", "release": release}, world.custodian.keys)
    verify_evidence(SignedRequest.from_json(opening["request"]), world.institution.signing_key)


# -------------------------------------------------------------------------------------------------------------- erasure


def test_after_an_erasure_nothing_is_due_attested_or_decided_any_more(world: World) -> None:
    consent = world.grant()
    release = world.ask(consent).release_id
    attest(world, consent)
    decide(world, release)
    subject_id = world.custodian.vault.subject_of(world.subject.ref)
    world.custodian.eraser.erase(world.subject.ref)
    world.clock.advance(RETENTION + GRACE + 1)
    assert overdue(world) == []
    assert standing(world, consent) == DeletionDuty()
    assert world.custodian.duties.adverse_actions(subject_id) == []
    for act in (lambda: attest(world, consent), lambda: decide(world, release)):
        with pytest.raises(ErasedError):
            act()
    with world.custodian.store.read() as tx:
        for table in (deletion_attestations, adverse_actions):
            (row,) = tx.execute(select(table))
            assert (row.subject_id, row.kek_id, row.wrapped_dek, row.body) == (None,) * 4
