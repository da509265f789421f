"""Activity: each person sees every access and every attempt about them, and nothing of anyone else."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
from actors import DAY, NOON, Institution, Subject, World

from ledger.access import entry_hash_of
from ledger.activity import READ, TURNED_AWAY, Activity
from ledger.consent import ZERO32, Hex32
from ledger.contract_events import batches_of
from ledger.errors import ChainError, ConsentError, LedgerError, MalformedError, NotFoundError

SCRIPT = "<script>alert(1)</script>"


def me(world: World, subject: Subject | None = None) -> str:
    return world.custodian.vault.subject_of((subject or world.subject).ref)


def page(world: World, **options: Any) -> list[Activity]:
    return world.custodian.activity.page(me(world), **options)


def refused(world: World, consent: Hex32, institution: Institution | None = None, **changes: Any) -> None:
    who = institution or world.institution
    with pytest.raises(ConsentError):
        world.custodian.releases.release(who.request(world.custodian, consent, **changes))


def test_an_access_is_shown_with_all_that_a_person_asks(world: World) -> None:
    consent = world.grant()
    release = world.ask(consent)
    (found,) = page(world)
    (block,) = [event.block_number for event in world.chain.all_events() if event.name == "AccessRecorded"]
    assert found.place is not None
    assert asdict(found) | {"place": None} == {
        "release_id": release.release_id,
        "consent_id": consent,
        "asked_at": NOON,
        "ended_at": NOON,
        "institution": "bank-1",
        "institution_name": "First Bank",
        "purpose": "loan-origination",
        "attributes": ("credit_amount",),
        "outcome": "released",
        "reason": None,
        "is_late": False,
        "entry_hash": world.logged()[0],
        "place": None,
    }
    assert found.place.block_number == block


def test_every_refused_attempt_is_shown_with_its_code_and_where_it_is_logged(world: World) -> None:
    consent = world.grant(max_accesses=1, accesses_per_day=1)
    stranger = world.another_institution()
    refused(world, consent, purpose="account-review")
    refused(world, consent, attributes=("age",))
    refused(world, consent, stranger)
    world.ask(consent)
    refused(world, consent)
    world.subject.revoke(world.custodian, consent)
    refused(world, consent)
    found = page(world)
    assert {one.reason for one in found} == {
        None,
        "purpose_mismatch",
        "attribute_not_consented",
        "wrong_institution",
        "exhausted",
        "revoked",
    }
    assert [one.outcome for one in found].count("refused") == 5
    assert {one.institution for one in found if one.reason == "wrong_institution"} == {stranger.institution_id}
    assert all(one.place is None for one in found if one.outcome == "refused")
    world.custodian.sync()
    assert all(one.place is not None for one in page(world))


def test_what_an_institution_wrote_is_shown_as_it_wrote_it(world: World) -> None:
    refused(world, world.grant(), purpose=SCRIPT, attributes=(SCRIPT, "\u202e"))
    (found,) = page(world)
    assert (found.purpose, found.attributes, found.reason) == (SCRIPT, (SCRIPT, "\u202e"), "purpose_mismatch")


def test_pages_follow_each_other_without_gap_or_repetition_also_within_a_second(world: World) -> None:
    consents = [world.grant() for _ in range(3)]
    for consent in consents:
        for _ in range(3):
            world.ask(consent)
    world.clock.advance(60)
    refused(world, consents[0], attributes=("age",))
    everything = page(world)
    assert len(everything) == 10
    assert everything[0].asked_at == NOON + 60
    walked: list[Activity] = []
    while more := page(world, limit=3, after=walked[-1].release_id if walked else None):
        assert len(more) <= 3
        walked += more
    assert walked == everything


def test_a_page_can_be_of_one_institution_or_one_consent(world: World) -> None:
    bank = world.another_institution()
    mine, theirs = world.grant(), world.subject.grant(world.custodian, bank)
    world.ask(mine)
    world.custodian.releases.release(bank.request(world.custodian, theirs))
    assert [one.consent_id for one in page(world, institution=bank.institution_id)] == [theirs]
    assert [one.institution for one in page(world, consent_id=mine)] == ["bank-1"]
    assert page(world, institution="nobody") == page(world, consent_id=ZERO32) == []


def test_another_persons_accesses_do_not_exist(world: World) -> None:
    other = world.another_subject()
    theirs = world.ask(other.grant(world.custodian, world.institution)).release_id
    mine = world.ask(world.grant()).release_id
    assert [one.release_id for one in page(world)] == [mine]
    for release_id in (theirs, ZERO32):
        for act in (
            lambda one=release_id: world.custodian.activity.entry(me(world), one),
            lambda one=release_id: page(world, after=one),
        ):
            with pytest.raises(NotFoundError) as caught:
                act()
            assert caught.value.message == "activity: no such access"
    assert [one.reads for one in world.custodian.activity.readers(me(world))] == [1]


@pytest.mark.parametrize("limit", [0, -1, 201])
def test_a_page_has_bounds(world: World, limit: int) -> None:
    with pytest.raises(MalformedError):
        page(world, limit=limit)


# -------------------------------------------------------------------------------------------------------------- opening


@pytest.mark.parametrize("is_refused", [False, True])
def test_an_opening_hashes_to_what_stands_on_chain(world: World, is_refused: bool) -> None:
    consent = world.grant()
    if is_refused:
        refused(world, consent, purpose="account-review")
        world.custodian.sync()
    else:
        world.ask(consent)
    opened = world.custodian.activity.entry(me(world), page(world)[0].release_id)
    proof = opened.proof
    assert proof is not None
    assert entry_hash_of(opened.entry) == opened.activity.entry_hash
    mined = world.chain.receipt(proof.transaction_hash)
    assert mined is not None
    assert (mined.block_number, mined.block_hash) == (proof.block_number, proof.block_hash)
    (batch,) = batches_of(mined.events)
    (outcome,) = [one for one in batch.outcomes if one.log_index == proof.log_index]
    assert outcome.access.entry_hash == opened.activity.entry_hash
    assert bool(outcome.reason) == is_refused
    assert (batch.size, batch.head, batch.writer, batch.custodian) == (
        proof.size,
        proof.head,
        proof.writer,
        proof.custodian,
    )


def test_what_the_chain_lost_stands_nowhere_until_it_is_back(world: World) -> None:
    consent = world.grant()
    release = world.ask(consent)
    world.rebuild_chain()
    world.chain.before("send", lambda: setattr(world.chain, "down", True))
    with pytest.raises(LedgerError):
        world.custodian.sync()
    opened = world.custodian.activity.entry(me(world), release.release_id)
    assert (opened.activity.place, opened.proof, opened.activity.outcome) == (None, None, "released")
    world.chain.down = False
    world.subject.revoke(world.custodian, consent)
    world.custodian.sync()
    opened = world.custodian.activity.entry(me(world), release.release_id)
    assert opened.proof is not None
    assert world.chain.receipt(opened.proof.transaction_hash) is not None


def test_an_access_that_came_back_late_says_so(world: World) -> None:
    consent = world.grant(expires_at=NOON + 600)
    world.ask(consent)
    world.clock.advance(601)
    world.rebuild_chain()
    world.custodian.sync()
    (found,) = page(world)
    assert (found.outcome, found.is_late) == ("released", True)


def test_with_the_chain_down_all_is_still_shown_and_what_waits_says_so(world: World) -> None:
    consent = world.grant()
    world.ask(consent)
    message = world.request(consent)
    world.chain.before("send", lambda: setattr(world.chain, "down", True))
    with pytest.raises(ChainError):
        world.custodian.releases.release(message)
    found = page(world)
    assert sorted((one.outcome, one.place is None) for one in found) == [("released", False), ("waiting", True)]
    assert all(world.custodian.activity.entry(me(world), one.release_id).entry.salt for one in found)


# ----------------------------------------------------------------------------------------------------------- overviews


def test_who_read_my_data_is_told_by_institution_the_last_reader_first(world: World) -> None:
    bank, stranger = world.another_institution(), world.another_institution()
    mine, theirs = world.grant(), world.subject.grant(world.custodian, bank)
    world.custodian.releases.release(bank.request(world.custodian, theirs))
    world.clock.advance(60)
    for _ in range(2):
        world.ask(mine)
    refused(world, mine, purpose="account-review")
    refused(world, mine, stranger)
    found = world.custodian.activity.readers(me(world))
    assert [(one.institution, one.institution_name, one.reads, one.refusals, one.last_read_at) for one in found] == [
        ("bank-1", "First Bank", 2, 1, NOON + 60),
        (bank.institution_id, bank.name, 1, 0, NOON),
        (stranger.institution_id, stranger.name, 0, 1, None),
    ]
    assert found[2].last_asked_at == NOON + 60


def test_numbers_of_a_period_have_that_period_only(world: World) -> None:
    consent = world.grant()
    world.ask(consent)
    world.clock.advance(2 * DAY)
    world.ask(consent)
    refused(world, consent, purpose="account-review")
    activity = world.custodian.activity
    for since, reads in ((NOON, 2), (NOON + 1, 1)):
        assert [(one.reads, one.refusals) for one in activity.readers(me(world), since=since)] == [(reads, 1)]
    assert activity.readers(me(world), since=NOON + 2 * DAY + 1) == []


def test_a_page_of_reads_has_no_attempt_and_the_other_way_round(world: World) -> None:
    consent = world.grant()
    release = world.ask(consent)
    refused(world, consent, attributes=("age",))
    assert [one.release_id for one in page(world, outcomes=READ)] == [release.release_id]
    assert [one.reason for one in page(world, outcomes=TURNED_AWAY)] == ["attribute_not_consented"]


def test_of_an_erased_person_nothing_is_left_to_see(world: World) -> None:
    release = world.ask(world.grant())
    subject_id = me(world)
    world.custodian.eraser.erase(world.subject.ref)
    activity = world.custodian.activity
    assert activity.page(subject_id) == []
    assert activity.readers(subject_id) == []
    with pytest.raises(NotFoundError):
        activity.entry(subject_id, release.release_id)
