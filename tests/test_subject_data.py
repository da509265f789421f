"""My data: in plain words, from where and since when; and disputes, which keep lenders out until they are settled."""

from __future__ import annotations

import pytest
from actors import NOON, SOURCE, Furnisher, World
from sqlalchemy import select

from ledger import cli_disputes
from ledger.attribute_texts import DESCRIPTIONS
from ledger.attributes import ASKABLE
from ledger.disputes import MAX_LENGTH, Dispute
from ledger.errors import ConflictError, DisputedError, ErasedError, MalformedError, NotFoundError
from ledger.store import disputes
from ledger.subject_data import HeldAttribute, HeldValue
from ledger.vault import AttributeValue, NewRecord

STATEMENT = "It was 900.\n<script>alert(1)</script>"


def me(world: World) -> str:
    return world.custodian.vault.subject_of(world.subject.ref)


def held(world: World) -> dict[str, HeldAttribute]:
    return {one.name: one for one in world.custodian.subject_data.attributes(me(world))}


def object_to(world: World, attribute: str = "credit_amount", statement: str = STATEMENT) -> Dispute:
    return world.custodian.disputes.open(me(world), attribute, statement)


def open_one(world: World) -> str:
    (found,) = world.custodian.disputes.waiting()
    return found.dispute_id


def imported(world: World, value: int, as_of: str) -> None:
    """As a file that a furnisher hands in."""
    new = NewRecord(
        subject_ref=world.subject.ref,
        attribute="credit_amount",
        value=AttributeValue(value=value, source=SOURCE, as_of=as_of),
    )
    with world.custodian.store.begin() as tx:
        world.custodian.vault.put(tx, [new], at=world.clock())


# ----------------------------------------------------------------------------------------------------------------- data


def test_every_attribute_of_the_catalogue_has_a_sentence_for_the_person() -> None:
    assert list(DESCRIPTIONS) == list(ASKABLE)
    assert [name for name, text in DESCRIPTIONS.items() if not text.endswith(".")] == []


def test_data_are_shown_in_plain_words_with_source_and_times(world: World) -> None:
    found = held(world)
    assert list(found) == ["credit_duration", "credit_amount", "savings"]
    amount = found["credit_amount"]
    assert amount.now == HeldValue(
        version=1,
        value=1169,
        text="1169 DEM",
        source=SOURCE,
        source_name=None,
        as_of="2026-01-31",
        came_at=NOON,
    )
    assert (amount.label, amount.unit, amount.sensitivity, amount.is_disputed, amount.earlier) == (
        "Amount of the credit in Deutsche Mark",
        "DEM",
        "ordinary",
        False,
        (),
    )
    assert amount.description
    assert found["savings"].now.text == "below 100 DM"


def test_earlier_versions_are_shown_newest_first_with_their_own_times_and_the_furnishers_name(world: World) -> None:
    furnisher = Furnisher()
    furnisher.register(world.custodian)
    for number, value in enumerate((1200, 1300)):
        world.clock.advance(60)
        furnisher.put(world.custodian, world.subject.ref, {"credit_amount": value}, as_of=f"2026-02-0{number + 1}")
    amount = held(world)["credit_amount"]
    assert [(one.version, one.value, one.came_at) for one in (amount.now, *amount.earlier)] == [
        (3, 1300, NOON + 120),
        (2, 1200, NOON + 60),
        (1, 1169, NOON),
    ]
    assert amount.now.source_name == "Test Bureau"


def test_what_the_catalogue_knows_no_more_is_shown_as_it_is(world: World) -> None:
    new = [
        NewRecord(
            subject_ref=world.subject.ref,
            attribute=name,
            value=AttributeValue(value=value, source=SOURCE, as_of="2026-01-31"),
        )
        for name, value in (("of_old", "x"), ("housing", "castle"), ("age", 41.5))
    ]
    with world.custodian.store.begin() as tx:
        world.custodian.vault.put(tx, new, at=NOON)
    found = held(world)
    assert [found[name].now.text for name in ("of_old", "housing", "age")] == ["x", "castle", "41.5"]
    assert (found["of_old"].label, found["of_old"].sensitivity) == ("of_old", "unknown")


def test_each_person_sees_their_own(world: World) -> None:
    other = world.another_subject()
    world.custodian.disputes.open(world.custodian.vault.subject_of(other.ref), "savings", STATEMENT)
    assert not any(one.is_disputed or one.dispute for one in held(world).values())
    assert world.custodian.subject_data.attributes("nobody") == []


# ------------------------------------------------------------------------------------------------------------- disputes


def test_a_disputed_attribute_is_refused_by_its_code_and_nothing_of_the_statement_leaves(world: World) -> None:
    consent = world.grant()
    object_to(world)
    with pytest.raises(DisputedError) as caught:
        world.ask(consent)
    assert caught.value.code == "disputed"
    assert "900" not in str(caught.value)
    assert world.ask(consent, attributes=("savings",)).sealed
    shown = held(world)["credit_amount"]
    assert shown.is_disputed
    assert shown.dispute is not None
    assert (shown.dispute.statement, shown.dispute.opened_at, shown.dispute.outcome) == (STATEMENT, NOON, None)
    assert not held(world)["savings"].is_disputed


def test_a_statement_is_sealed(world: World) -> None:
    object_to(world, statement="Erika never owed this")
    files = b"".join(path.read_bytes() for path in sorted(world.config.data.glob("ledger.db*")))
    assert b"Erika" not in files


def test_withdrawn_it_is_released_again_and_can_be_disputed_anew(world: World) -> None:
    consent = world.grant()
    object_to(world)
    world.clock.advance(60)
    closed = world.custodian.disputes.withdraw(me(world), "credit_amount")
    assert (closed.outcome, closed.closed_at, closed.answer) == ("withdrawn", NOON + 60, None)
    assert world.ask(consent).sealed
    with pytest.raises(NotFoundError):
        world.custodian.disputes.withdraw(me(world), "credit_amount")
    object_to(world, statement="Again: it was 900.")
    shown = held(world)["credit_amount"]
    assert shown.past_disputes == (closed,)
    with pytest.raises(DisputedError):
        world.ask(consent)


def test_the_custodian_settles_it_with_an_answer(world: World) -> None:
    consent = world.grant()
    opened = object_to(world)
    assert world.custodian.disputes.waiting() == [opened]
    closed = world.custodian.disputes.resolve(open_one(world), "confirmed", "The contract says 1169.")
    assert (closed.outcome, closed.answer, closed.statement) == ("confirmed", "The contract says 1169.", STATEMENT)
    assert world.custodian.disputes.waiting() == []
    with pytest.raises(NotFoundError):
        world.custodian.disputes.resolve(opened.dispute_id, "confirmed", "Again.")
    assert world.ask(consent).sealed
    assert cli_disputes.dispute_fields(closed)["outcome"] == "confirmed"


def test_a_furnishers_other_value_settles_it_and_the_same_again_does_not(world: World) -> None:
    consent = world.grant()
    furnisher = Furnisher()
    furnisher.register(world.custodian)
    object_to(world)
    furnisher.put(world.custodian, world.subject.ref, {"credit_amount": 1169}, as_of="2026-02-01")
    with pytest.raises(DisputedError):
        world.ask(consent)
    furnisher.put(world.custodian, world.subject.ref, {"credit_amount": 900}, as_of="2026-02-02")
    assert world.ask(consent).sealed
    shown = held(world)["credit_amount"]
    assert (shown.is_disputed, shown.dispute, [one.outcome for one in shown.past_disputes]) == (
        False,
        None,
        ["corrected"],
    )
    assert shown.past_disputes[0].statement == STATEMENT


def test_an_import_settles_no_dispute_by_itself(world: World) -> None:
    consent = world.grant()
    object_to(world)
    with pytest.raises(ConflictError):
        world.custodian.disputes.resolve(open_one(world), "corrected", "It is corrected.")
    imported(world, 900, "2026-02-01")
    with pytest.raises(DisputedError):
        world.ask(consent)
    assert held(world)["credit_amount"].dispute is not None
    closed = world.custodian.disputes.resolve(open_one(world), "corrected", "It is corrected.")
    assert closed.outcome == "corrected"
    assert world.ask(consent).sealed


@pytest.mark.parametrize("statement", ["", "  a ", "x" * (MAX_LENGTH + 1), "a\x00b c", "\u202etxt.exe", "\x1b[31mred"])
def test_a_statement_that_cannot_be_read_is_refused_and_nothing_is_disputed(world: World, statement: str) -> None:
    with pytest.raises(MalformedError) as caught:
        object_to(world, statement=statement)
    assert caught.value.field == "statement"
    assert not held(world)["credit_amount"].is_disputed


def test_only_what_is_held_can_be_disputed_and_once(world: World) -> None:
    with pytest.raises(NotFoundError):
        object_to(world, "age")
    with pytest.raises(NotFoundError):
        object_to(world, "no_such")
    object_to(world)
    with pytest.raises(ConflictError):
        object_to(world)
    with pytest.raises(MalformedError):
        world.custodian.disputes.resolve(open_one(world), "ignored", "No.")
    with pytest.raises(MalformedError):
        world.custodian.disputes.resolve(open_one(world), "confirmed", "\x00\x00\x00")
    with pytest.raises(NotFoundError):
        world.custodian.disputes.resolve("no-such", "confirmed", "It is right.")
    assert held(world)["credit_amount"].is_disputed


def test_another_person_cannot_take_a_dispute_back(world: World) -> None:
    object_to(world)
    other = world.custodian.vault.subject_of(world.another_subject().ref)
    with pytest.raises(NotFoundError):
        world.custodian.disputes.withdraw(other, "credit_amount")
    assert held(world)["credit_amount"].is_disputed


def test_an_erasure_takes_every_statement_and_a_rotation_none(world: World) -> None:
    object_to(world)
    world.custodian.disputes.withdraw(me(world), "credit_amount")
    object_to(world, statement="Once more")
    world.custodian.rotate_keys()
    assert held(world)["credit_amount"].past_disputes[0].statement == STATEMENT
    subject_id = me(world)
    world.custodian.eraser.erase(world.subject.ref)
    with world.custodian.store.read() as tx:
        assert tx.execute(select(disputes)).all() == []
    with pytest.raises(ErasedError):
        world.custodian.disputes.open(subject_id, "credit_amount", STATEMENT)
