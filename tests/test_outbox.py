"""Events: whatever happens to a consent is on file with the act itself, once, and says nothing that it need not say."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from actors import DAY, World
from sqlalchemy import func, select

from ledger import outbox
from ledger.consent import Hex32
from ledger.errors import ConsentAlreadyRevokedError, LedgerError, NotFoundError, StoreUnavailableError
from ledger.outbox import Event
from ledger.registry import EXPIRIES_AT_ONCE
from ledger.store import consents, events


class Killed(BaseException):
    """What a process does not survive."""


def die() -> None:
    raise Killed


def index_of(world: World) -> str:
    return world.custodian.registry.institution_index(world.institution.institution_id)


def told(world: World, after: str | None = None) -> list[Event]:
    return world.custodian.outbox.of(index_of(world), after=after, limit=1000)


def kinds(world: World) -> list[str]:
    return [event.kind for event in told(world)]


def last(world: World) -> Event:
    return told(world)[-1]


def add(world: World, number: int, *, index: str | None = None) -> None:
    with world.custodian.store.begin() as tx:
        consent_id = Hex32(f"0x{number:064x}")
        at = world.clock()
        where = index or index_of(world)
        world.custodian.outbox.add(tx, kind=outbox.GRANTED, institution_index=where, consent_id=consent_id, at=at)


def claimed(world: World) -> Event | None:
    return world.custodian.outbox.claim(index_of(world), now=world.clock(), lease=60)


# ----------------------------------------------------------------------------------------------- what is told, and how


def test_a_grant_is_told_once_it_stands(world: World) -> None:
    consent = world.grant()
    (event,) = told(world)
    assert (event.kind, event.consent_id, event.created_at) == ("consent.granted", consent, world.clock())
    assert (event.details, event.state, event.attempts, event.last_answer) == ({"by": "subject"}, "waiting", 0, None)


def test_a_grant_that_is_not_on_chain_is_not_told_until_it_is(world: World) -> None:
    world.chain.drop = 1
    with pytest.raises(LedgerError):
        world.grant()
    assert kinds(world) == []
    world.custodian.sync()
    assert kinds(world) == ["consent.granted"]
    world.custodian.sync()
    assert kinds(world) == ["consent.granted"]


def test_a_grant_that_two_processes_see_through_is_told_once(world: World) -> None:
    consent = world.grant()
    world.custodian.grants.stand(consent)
    assert kinds(world) == ["consent.granted"]


def test_a_pause_and_a_resume_are_told(world: World) -> None:
    consent = world.grant()
    world.clock.advance(5)
    world.subject.pause(world.custodian, consent, paused=True, sequence=1)
    paused = last(world)
    assert (paused.kind, paused.created_at, paused.details) == ("consent.paused", world.clock(), {"by": "subject"})
    world.clock.advance(5)
    world.subject.pause(world.custodian, consent, paused=False, sequence=2)
    resumed = last(world)
    assert (resumed.kind, resumed.created_at, resumed.details) == ("consent.resumed", world.clock(), {"by": "subject"})


def test_a_pause_of_what_is_paused_changes_nothing_and_is_not_told(world: World) -> None:
    consent = world.grant()
    for sequence in (1, 2):
        world.subject.pause(world.custodian, consent, paused=True, sequence=sequence)
    assert kinds(world) == ["consent.granted", "consent.paused"]


def test_a_resume_that_the_chain_does_not_have_is_told_when_it_has(world: World) -> None:
    consent = world.grant()
    world.subject.pause(world.custodian, consent, paused=True, sequence=1)
    world.chain.down = True
    world.subject.pause(world.custodian, consent, paused=False, sequence=2)
    assert kinds(world)[-1] == "consent.paused"
    world.chain.down = False
    world.custodian.sync()
    assert kinds(world)[1:] == ["consent.paused", "consent.resumed"]


def test_a_revocation_is_told_at_once_even_when_the_chain_is_down(world: World) -> None:
    consent = world.grant()
    world.chain.down = True
    world.subject.revoke(world.custodian, consent)
    assert (last(world).kind, last(world).details) == ("consent.revoked", {"by": "subject"})


def test_one_signature_over_many_consents_tells_of_each(world: World) -> None:
    mine = {world.grant(), world.grant()}
    world.subject.revoke(world.custodian, *mine)
    assert {event.consent_id for event in told(world) if event.kind == "consent.revoked"} == mine


def test_revoking_again_tells_nothing_more(world: World) -> None:
    consent = world.grant()
    for _ in range(2):
        world.subject.revoke(world.custodian, consent)
    world.custodian.grants.revoke_as_custodian([consent])
    world.custodian.sync()
    assert kinds(world) == ["consent.granted", "consent.revoked"]
    assert last(world).details == {"by": "subject"}


def test_what_the_custodian_revokes_is_told_as_its_own_act(world: World) -> None:
    world.custodian.grants.revoke_as_custodian([world.grant()])
    assert last(world).details == {"by": "custodian"}


@pytest.mark.parametrize("by", ["custodian", "institution"])
def test_it_is_told_at_whose_wish_the_custodian_revoked(world: World, by: str) -> None:
    world.custodian.grants.revoke_as_custodian([world.grant()], by=by)
    assert last(world).details == {"by": by}
    with world.custodian.store.read() as tx:
        assert tx.scalar(select(consents.c.revoked_by)) == by


def test_what_the_subject_did_on_chain_without_us_is_told_as_learnt_from_the_chain(world: World) -> None:
    consent = world.grant()
    grant = world.grant_of(consent)
    world.subject.pause_directly(world.chain, grant, paused=True, sequence=1)
    world.custodian.sync()
    world.subject.pause_directly(world.chain, grant, paused=False, sequence=2)
    world.custodian.sync()
    world.subject.revoke_directly(world.chain, grant)
    world.custodian.sync()
    assert kinds(world)[1:] == ["consent.paused", "consent.resumed", "consent.revoked"]
    assert [event.details["by"] for event in told(world)[1:]] == ["chain"] * 3


def test_a_replaced_consent_is_told_with_the_one_that_replaces_it_and_before_it(world: World) -> None:
    old = world.grant()
    new = world.grant(replaces=old)
    revoked, granted = told(world)[1:]
    assert (revoked.kind, revoked.consent_id) == ("consent.revoked", old)
    assert revoked.details == {"by": "custodian", "replacedBy": new}
    assert (granted.kind, granted.consent_id) == ("consent.granted", new)


def test_a_consent_that_was_revoked_on_its_way_is_never_told_as_granted_afterwards(world: World) -> None:
    grant = world.subject.draft(world.custodian, world.institution)
    # The chain has it, and the process never hears of that; then comes the revocation.
    world.steps.at("act sent", die)
    with pytest.raises(Killed):
        world.subject.hand_in(world.custodian, grant)
    (stored,) = world.custodian.registry.consents()
    consent = stored.consent_id
    assert not stored.standing
    assert world.chain.consent(consent).max_accesses == grant.max_accesses
    world.subject.revoke(world.custodian, consent)
    world.custodian.sync()
    assert kinds(world) == ["consent.revoked"]


def test_erasing_a_person_tells_that_the_consents_ended(world: World) -> None:
    world.grant()
    world.custodian.eraser.erase(world.subject.ref)
    assert kinds(world) == ["consent.granted", "consent.revoked"]
    assert last(world).details == {"by": "custodian"}


# ------------------------------------------------------------------------------------------------------------- expiry


def test_an_expired_consent_is_told_once(world: World) -> None:
    consent = world.grant()
    ends = world.grant_of(consent).expires_at
    world.clock.now = ends - 1
    assert world.custodian.registry.tell_expired(world.clock()) == 0
    world.clock.now = ends
    assert world.custodian.registry.tell_expired(ends) == 1
    assert world.custodian.registry.tell_expired(ends + DAY) == 0
    assert kinds(world) == ["consent.granted", "consent.expired"]
    assert (last(world).created_at, last(world).details) == (ends, {})


def test_a_revoked_consent_does_not_expire_as_well(world: World) -> None:
    consent = world.grant()
    world.subject.revoke(world.custodian, consent)
    world.clock.advance(365 * DAY)
    assert world.custodian.registry.tell_expired(world.clock()) == 0
    assert kinds(world) == ["consent.granted", "consent.revoked"]


def test_a_consent_that_never_stood_does_not_expire(world: World) -> None:
    world.chain.drop = 1
    with pytest.raises(LedgerError):
        world.grant()
    world.clock.advance(365 * DAY)
    assert world.custodian.registry.tell_expired(world.clock()) == 0


def test_a_paused_consent_expires(world: World) -> None:
    consent = world.grant()
    world.subject.pause(world.custodian, consent)
    world.clock.advance(365 * DAY)
    assert world.custodian.registry.tell_expired(world.clock()) == 1


def test_two_processes_that_notice_an_expiry_at_once_tell_it_once(world: World) -> None:
    world.grant()
    world.clock.advance(365 * DAY)
    other = world.open()
    ready = threading.Barrier(2)

    def notice(custodian: object) -> int:
        ready.wait()
        return (world.custodian if custodian is world.custodian else other).registry.tell_expired(world.clock())

    with ThreadPoolExecutor(2) as pool:
        assert sum(pool.map(notice, [world.custodian, other])) == 1
    other.close()
    assert kinds(world) == ["consent.granted", "consent.expired"]


def test_many_that_expire_together_are_told_in_portions(world: World) -> None:
    with world.custodian.store.begin() as tx:
        for number in range(EXPIRIES_AT_ONCE + 1):
            row = {"consent_id": f"0x{number:064x}", "institution_index": index_of(world), "standing": True}
            tx.execute(consents.insert(), [{**row, "created_at": 1, "expires_at": 2}])
    portions = [world.custodian.registry.tell_expired(world.clock()) for _ in range(3)]
    assert portions == [EXPIRIES_AT_ONCE, 1, 0]


def test_housekeeping_tells_of_expiry_and_forgets_what_is_old(world: World) -> None:
    world.grant()
    world.custodian.outbox.acknowledge(index_of(world), last(world).event_id, at=world.clock())
    world.clock.advance(91 * DAY)
    world.custodian.housekeeping()
    assert kinds(world) == ["consent.expired"]


# ------------------------------------------------------------------------------------------- in one transaction, or not


def test_an_act_that_does_not_get_on_file_is_not_told(world: World) -> None:
    consent = world.grant()
    with suppress(Killed), world.custodian.store.begin() as tx:
        assert world.custodian.registry.mark_revoked(tx, [consent], at=world.clock(), by="subject") == 1
        die()
    assert kinds(world) == ["consent.granted"]
    assert world.custodian.registry.consent(consent).revoked_at is None


def test_a_process_that_dies_right_after_a_revocation_has_told_it(world: World) -> None:
    consent = world.grant()
    world.steps.at("revocation durable", die)
    with pytest.raises(Killed):
        world.subject.revoke(world.custodian, consent)
    world.restart()
    assert kinds(world)[-1] == "consent.revoked"


def test_an_act_is_not_on_file_if_its_event_cannot_be(world: World) -> None:
    consent = world.grant()
    with world.custodian.store.begin() as tx:
        events.drop(tx)
    with pytest.raises(StoreUnavailableError):
        world.subject.revoke(world.custodian, consent)
    assert world.custodian.registry.consent(consent).revoked_at is None
    assert world.custodian.journal.pending_acts() == []


# ------------------------------------------------------------------------------------------------- what it does not say


def test_events_name_no_person_no_institution_and_no_terms(world: World) -> None:
    consent = world.grant()
    world.subject.pause(world.custodian, consent)
    world.subject.revoke(world.custodian, consent)
    with world.custodian.store.read() as tx:
        kept = repr([tuple(row) for row in tx.execute(select(events))])
    subject_id = world.custodian.vault.subject_of(world.subject.ref)
    purpose_and_attributes = ("loan-origination", "credit_amount", "savings")
    for name in (world.subject.ref, subject_id, world.subject.address, "bank-1", "First Bank", *purpose_and_attributes):
        assert name not in kept
    assert consent in kept


def test_what_is_told_has_id_kind_consent_and_time_whatever_the_details_are(world: World) -> None:
    consent = Hex32("0x" + "1" * 64)
    details = {"attributes": ["savings"], "id": "forged", "kind": "forged", "consent": "forged", "at": "forged"}
    with world.custodian.store.begin() as tx:
        world.custodian.outbox.add(
            tx, kind=outbox.CORRECTED, institution_index=index_of(world), consent_id=consent, at=7, details=details
        )
    event = last(world)
    assert event.as_json() == {
        "id": event.event_id,
        "kind": "attribute.corrected",
        "consent": consent,
        "at": 7,
        "attributes": ["savings"],
    }


# ------------------------------------------------------------------------------------------------------------- polling


def test_a_poller_that_goes_on_from_the_last_one_misses_none(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = iter([f"0199{n:04x}-0000-7000-8000-ffffffffffff" for n in (9, 5, 5, 1)])
    # Same millisecond, and a clock that was set back.
    monkeypatch.setattr(outbox, "new_id", lambda: next(ids))
    seen: list[Event] = []
    for number in range(4):
        add(world, number)
        seen += told(world, after=seen[-1].event_id if seen else None)
    assert [int(event.consent_id, 16) for event in seen] == [0, 1, 2, 3]


def test_events_come_in_pages_oldest_first(world: World) -> None:
    for number in range(5):
        add(world, number)
    found = world.custodian.outbox
    first = found.of(index_of(world), after=None, limit=2)
    second = found.of(index_of(world), after=first[-1].event_id, limit=2)
    assert [int(event.consent_id, 16) for event in first + second] == [0, 1, 2, 3]
    assert found.get(index_of(world), first[0].event_id) == first[0]


def test_anothers_event_cannot_be_told_from_one_that_does_not_exist(world: World) -> None:
    world.grant()
    theirs = last(world).event_id
    other = world.custodian.registry.institution_index(world.another_institution().institution_id)
    messages = set()
    for event_id in (theirs, "00000000-0000-7000-8000-000000000000"):
        with pytest.raises(NotFoundError) as read:
            world.custodian.outbox.get(other, event_id)
        with pytest.raises(NotFoundError) as acknowledged:
            world.custodian.outbox.acknowledge(other, event_id, at=1)
        messages |= {str(read.value), str(acknowledged.value)}
    assert len(messages) == 1
    assert world.custodian.outbox.of(other, after=None, limit=10) == []
    assert last(world).state == "waiting"


def test_an_acknowledgement_counts_the_first_time_and_ends_the_telling(world: World) -> None:
    world.grant()
    event_id = last(world).event_id
    first = world.custodian.outbox.acknowledge(index_of(world), event_id, at=world.clock())
    again = world.custodian.outbox.acknowledge(index_of(world), event_id, at=world.clock() + 9)
    assert (first.state, first.acknowledged_at, first.next_attempt_at) == ("acknowledged", world.clock(), None)
    assert again == first
    assert claimed(world) is None
    assert world.custodian.outbox.due(world.clock() + DAY, 10) == []


@pytest.mark.parametrize("was", ["given_up", "unaddressed"])
def test_what_was_not_delivered_can_still_be_acknowledged(world: World, was: str) -> None:
    world.grant()
    if was == "given_up":
        event = claimed(world)
        assert event is not None
        world.custodian.outbox.failed(event, answer="500", retry_at=None)
    else:
        assert world.custodian.outbox.leave_unaddressed(index_of(world), now=world.clock()) == 1
    assert last(world).state == was
    got = world.custodian.outbox.acknowledge(index_of(world), last(world).event_id, at=world.clock())
    assert got.state == "acknowledged"


# ------------------------------------------------------------------------------------------------------------ claiming


def test_an_event_is_taken_by_exactly_one_of_many(world: World) -> None:
    add(world, 1)
    ready = threading.Barrier(8)

    def take(_: int) -> Event | None:
        ready.wait()
        return claimed(world)

    with ThreadPoolExecutor(8) as pool:
        taken = [event for event in pool.map(take, range(8)) if event is not None]
    assert [(event.attempts, event.last_answer) for event in taken] == [(1, "sending")]


def test_while_one_is_being_sent_no_later_one_is_taken(world: World) -> None:
    add(world, 1)
    add(world, 2)
    first = claimed(world)
    assert first is not None
    assert claimed(world) is None
    world.custodian.outbox.delivered(first, answer="200", at=world.clock())
    second = claimed(world)
    assert second is not None
    assert [int(event.consent_id, 16) for event in (first, second)] == [1, 2]


def test_one_that_failed_does_not_hold_up_the_later_ones(world: World) -> None:
    add(world, 1)
    add(world, 2)
    first = claimed(world)
    assert first is not None
    world.custodian.outbox.failed(first, answer="500", retry_at=world.clock() + 10)
    second = claimed(world)
    assert second is not None
    assert int(second.consent_id, 16) == 2


def test_what_a_dead_process_had_taken_is_free_again_after_its_lease(world: World) -> None:
    add(world, 1)
    first = claimed(world)
    world.clock.advance(59)
    assert claimed(world) is None
    world.clock.advance(1)
    again = claimed(world)
    assert first is not None
    assert again is not None
    assert (again.event_id, again.attempts) == (first.event_id, 2)


def test_a_process_that_comes_back_from_the_dead_does_not_undo_what_the_next_one_does(world: World) -> None:
    add(world, 1)
    first = claimed(world)
    world.clock.advance(60)
    second = claimed(world)
    assert first is not None
    assert second is not None
    world.custodian.outbox.failed(first, answer="timeout", retry_at=None)
    assert last(world) == second
    world.custodian.outbox.delivered(second, answer="200", at=world.clock())
    world.custodian.outbox.failed(second, answer="timeout", retry_at=None)
    assert last(world).state == "acknowledged"


def test_a_late_success_counts_whatever_was_thought_of_it(world: World) -> None:
    add(world, 1)
    first = claimed(world)
    world.clock.advance(60)
    second = claimed(world)
    assert first is not None
    assert second is not None
    world.custodian.outbox.failed(second, answer="timeout", retry_at=None)
    world.custodian.outbox.delivered(first, answer="200", at=world.clock())
    assert last(world).state == "acknowledged"


def test_who_waits_longest_comes_first_and_each_once(world: World) -> None:
    names = [world.custodian.registry.institution_index(name) for name in ("c", "a", "b")]
    for index in (*names, names[0]):
        add(world, 1, index=index)
    assert world.custodian.outbox.due(world.clock(), 10) == names
    assert world.custodian.outbox.due(world.clock(), 2) == names[:2]
    assert world.custodian.outbox.due(world.clock() - 1, 10) == []


def test_only_what_has_ended_is_forgotten(world: World) -> None:
    others = [world.custodian.registry.institution_index(name) for name in "abcd"]
    for index in others:
        add(world, 1, index=index)
    acknowledged, given_up, unaddressed, _waiting = others
    found = world.custodian.outbox
    (one,) = found.of(acknowledged, after=None, limit=1)
    found.acknowledge(acknowledged, one.event_id, at=world.clock())
    other = found.claim(given_up, now=world.clock(), lease=1)
    assert other is not None
    found.failed(other, answer="500", retry_at=None)
    found.leave_unaddressed(unaddressed, now=world.clock())
    assert found.forget(world.clock()) == 0
    assert found.forget(world.clock() + 1) == 2
    with world.custodian.store.read() as tx:
        states = set(tx.scalars(select(events.c.state)))
        assert (tx.scalar(select(func.count()).select_from(events)), states) == (2, {"waiting", "unaddressed"})


def test_a_revoked_consent_cannot_be_resumed_or_told_so(world: World) -> None:
    consent = world.grant()
    world.subject.pause(world.custodian, consent)
    world.subject.revoke(world.custodian, consent)
    with pytest.raises(ConsentAlreadyRevokedError):
        world.subject.pause(world.custodian, consent, paused=False, sequence=2)
    with world.custodian.store.begin() as tx:
        world.custodian.registry.mark_paused(tx, consent, paused=False, sequence=3, at=1, by="chain")
    assert kinds(world)[-1] == "consent.revoked"
