"""A person's requests: whoever claims one has it alone; after a "no" the same institution is quiet for a time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from actors import DAY, Institution, Subject, World
from test_consent_requests import accept, ask, draft, link_of, now_of

from ledger.consent import ConsentGrant
from ledger.consent_requests import ConsentRequest
from ledger.errors import ConflictError, ErasedError, NotFoundError
from ledger.notice_texts import QUIET_DAYS
from ledger.own_requests import OwnRequest
from ledger.prompts import PromptCount

QUIET = QUIET_DAYS * DAY


def me(world: World, subject: Subject | None = None) -> str:
    return world.custodian.vault.subject_of((subject or world.subject).ref)


def claim(world: World, request: ConsentRequest, subject: Subject | None = None) -> OwnRequest:
    return world.custodian.own_requests.claim(link_of(request), me(world, subject))


def say_no(world: World, request: ConsentRequest, *, steps: int | None = None) -> OwnRequest:
    return world.custodian.own_requests.decline(link_of(request), me(world), steps=steps)


def mine(world: World, subject: Subject | None = None) -> list[OwnRequest]:
    return world.custodian.own_requests.for_subject(me(world, subject))


def counts(world: World, institution: Institution | None = None) -> dict[str, int]:
    found = world.custodian.prompts.counts(institution_id=institution.institution_id if institution else None)
    return {one.kind: one.number for one in found}


# ------------------------------------------------------------------------------------------------------------- claiming


def test_who_opens_a_link_signed_in_has_the_request(world: World) -> None:
    first, second = ask(world), ask(world)
    for request in (first, second):
        world.clock.advance(1)
        own = claim(world, request)
        assert own.request == world.custodian.requests.opened(link_of(request), me(world))
        assert (own.token, own.claimed_at, own.is_hidden) == (link_of(request), world.clock.now, False)
    assert [one.request.request_id for one in mine(world)] == [second.request_id, first.request_id]
    assert mine(world, world.another_subject()) == []
    assert claim(world, first) == mine(world)[1]


def test_no_one_elses_account_and_no_mere_link_sees_or_answers_what_is_claimed(world: World) -> None:
    request = ask(world)
    other = world.another_subject()
    held, token, theirs = world.custodian, link_of(request), me(world, other)
    grant = held.requests.draft(token, other.address)
    signature = other.sign(held, grant)
    claim(world, request)
    acts: list[Callable[[], object]] = [
        lambda: held.requests.opened(token),
        lambda: held.requests.opened(token, theirs),
        lambda: held.requests.draft(token, other.address),
        lambda: held.requests.draft(token, other.address, subject_id=theirs),
        lambda: held.requests.accept(token, grant, signature, theirs),
        lambda: held.requests.decline(token),
        lambda: held.own_requests.claim(token, theirs),
        lambda: held.own_requests.reopen(token, theirs),
        lambda: held.own_requests.decline(token, theirs),
    ]
    for act in acts:
        with pytest.raises(NotFoundError) as caught:
            act()
        # As for a link that was made up.
        assert caught.value.message == "request: no such request"
    assert mine(world, other) == []
    assert now_of(world, request).state == "pending"
    assert held.registry.consents() == []


def test_the_person_who_claimed_it_answers_it(world: World) -> None:
    yes, no = ask(world), ask(world)
    for request in (yes, no):
        claim(world, request)
    grant = world.custodian.requests.draft(link_of(yes), world.subject.address, subject_id=me(world))
    assert accept(world, yes, grant).standing
    assert say_no(world, no).request.state == "declined"
    assert [one.request.state for one in mine(world)] == ["declined", "granted"]


def test_what_no_one_claimed_is_answered_by_the_link_and_is_then_its_persons(world: World) -> None:
    request, other = ask(world), world.another_subject()
    accept(world, request)
    assert [one.request.state for one in mine(world)] == ["granted"]
    assert world.custodian.requests.opened(link_of(request)).state == "granted"
    with pytest.raises(NotFoundError):
        claim(world, request, other)
    assert claim(world, request).claimed_at == world.clock.now


def test_of_two_people_who_open_a_link_at_once_one_has_it(world: World) -> None:
    request, other = ask(world), world.another_subject()

    def open_it(subject: Subject) -> bool:
        try:
            claim(world, request, subject)
        except NotFoundError:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(open_it, (world.subject, other))) == [False, True]
    assert len(mine(world)) + len(mine(world, other)) == 1


def test_a_link_that_was_made_up_is_no_ones(world: World) -> None:
    for token in ("A" * 43, "", "../x", "<script>"):
        with pytest.raises(NotFoundError):
            world.custodian.own_requests.claim(token, me(world))


def test_an_erased_person_claims_nothing_and_what_they_had_is_gone_for_all(world: World) -> None:
    request, other = ask(world), ask(world)
    subject_id = me(world)
    claim(world, request)
    world.custodian.eraser.erase(world.subject.ref)
    assert world.custodian.own_requests.for_subject(subject_id) == []
    for act in (world.custodian.own_requests.claim, world.custodian.own_requests.decline):
        for asked in (request, other):
            with pytest.raises(ErasedError):
                act(link_of(asked), subject_id)
    with pytest.raises(ErasedError):
        claim(world, request, world.another_subject())
    assert now_of(world, other).state == "pending"


def test_someone_who_is_no_subject_claims_nothing(world: World) -> None:
    with pytest.raises(ErasedError):
        world.custodian.own_requests.claim(link_of(ask(world)), "nobody")


# ---------------------------------------------------------------------------------------------------------------- quiet


def test_asking_again_after_a_no_is_kept_and_hidden_until_the_days_are_over(world: World) -> None:
    declined_at = world.clock.now
    say_no(world, ask(world))
    world.clock.advance(QUIET - 1)
    again = ask(world)
    own = claim(world, again)
    assert (own.is_hidden, own.quiet_until, own.request.state) == (True, declined_at + QUIET, "pending")
    # The institution learns nothing of it.
    assert now_of(world, again).state == "pending"
    world.clock.advance(1)
    assert not claim(world, again).is_hidden
    assert counts(world) == {"declined": 1, "hidden": 1, "shown": 1}


def test_the_quiet_ends_to_the_second(world: World) -> None:
    say_no(world, ask(world))
    world.clock.advance(QUIET)
    own = claim(world, ask(world))
    assert (own.is_hidden, own.quiet_until) == (False, None)


def test_a_link_that_was_kept_in_store_is_quiet_as_well(world: World) -> None:
    first, stored = ask(world), ask(world)
    world.clock.advance(DAY)
    say_no(world, first)
    world.clock.advance(DAY)
    assert claim(world, stored).is_hidden


def test_what_the_person_had_before_the_no_is_not_asking_again(world: World) -> None:
    first, other = ask(world), ask(world)
    claim(world, other)
    say_no(world, first)
    assert [one.is_hidden for one in mine(world)] == [False, False]


def test_the_quiet_is_between_one_person_and_one_institution(world: World) -> None:
    say_no(world, ask(world))
    assert not claim(world, ask(world, world.another_institution())).is_hidden
    assert not claim(world, ask(world), world.another_subject()).is_hidden
    assert claim(world, ask(world)).is_hidden


def test_a_hidden_request_is_opened_and_answered_by_the_persons_own_will(world: World) -> None:
    say_no(world, ask(world))
    again = ask(world)
    assert claim(world, again).is_hidden
    for _ in range(2):
        own = world.custodian.own_requests.reopen(link_of(again), me(world))
        assert (own.is_hidden, own.quiet_until) == (False, world.clock.now + QUIET)
    assert not claim(world, again).is_hidden
    grant = world.custodian.requests.draft(link_of(again), world.subject.address, subject_id=me(world))
    assert accept(world, again, grant).standing
    assert counts(world) == {"declined": 1, "hidden": 1, "reopened": 1, "accepted": 1}


def test_a_no_by_the_mere_link_is_nobodys_and_begins_no_quiet(world: World) -> None:
    request = ask(world)
    world.custodian.requests.decline(link_of(request))
    assert not claim(world, ask(world)).is_hidden
    # It is theirs as soon as they claim it.
    claim(world, request)
    assert claim(world, ask(world)).is_hidden


def test_a_granted_request_is_not_declined(world: World) -> None:
    request = ask(world)
    accept(world, request)
    with pytest.raises(ConflictError):
        say_no(world, request)
    assert counts(world) == {"accepted": 1}


# ------------------------------------------------------------------------------------------------------------- counting


def test_prompts_answers_and_steps_are_counted_without_anyones_identity(world: World) -> None:
    for steps in (3, 4, None, 0, -1, 101, True, 10**9):
        request = ask(world)
        say_no(world, request, steps=steps)
    request = ask(world, world.another_institution())
    claim(world, request)
    claim(world, request)
    accept(world, request, draft_of_mine(world, request))
    found = world.custodian.prompts.counts(institution_id=world.institution.institution_id)
    assert found == [
        PromptCount(institution="bank-1", day="2026-09-16", kind="declined", number=8, with_steps=2, steps=7)
    ]
    assert counts(world)["shown"] == 1


def draft_of_mine(world: World, request: ConsentRequest) -> ConsentGrant:
    return world.custodian.requests.draft(link_of(request), world.subject.address, subject_id=me(world))


def test_a_second_no_counts_once_and_days_are_apart(world: World) -> None:
    request = ask(world)
    say_no(world, request, steps=1)
    say_no(world, request, steps=1)
    world.clock.advance(DAY)
    say_no(world, ask(world))
    found = world.custodian.prompts.counts()
    assert [(one.day, one.kind, one.number, one.with_steps, one.steps) for one in found] == [
        ("2026-09-16", "declined", 1, 1, 1),
        ("2026-09-17", "declined", 1, 0, 0),
    ]
    assert world.custodian.prompts.counts(first_day="2026-09-17") == found[1:]


def test_a_grant_that_did_not_go_on_file_counts_nothing(world: World) -> None:
    request = ask(world)
    grant = draft(world, request)
    world.custodian.requests.decline(link_of(request))
    with pytest.raises(ConflictError):
        accept(world, request, grant)
    assert counts(world) == {"declined": 1}


def test_counts_outlive_an_erasure_and_say_nothing_of_anyone(world: World) -> None:
    say_no(world, ask(world))
    before = world.custodian.prompts.counts()
    world.custodian.eraser.erase(world.subject.ref)
    assert world.custodian.prompts.counts() == before
