"""Furnishing: values come in checked and by their own source only, and whoever holds an older one is told."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from actors import DAY, NOON, SOURCE, VALUES, Furnisher, Subject, World
from sqlalchemy import select

from ledger.consent import Hex32
from ledger.envelope import TRIAL
from ledger.errors import (
    ConflictError,
    DisputedError,
    ErasedError,
    FurnisherSuspendedError,
    LedgerError,
    MalformedError,
    NotFoundError,
    StoreUnavailableError,
    UnknownAttributeError,
    ValueNotInCatalogueError,
)
from ledger.furnish import PutResult
from ledger.importer import Importer
from ledger.importmap import parse_map
from ledger.outbox import CORRECTED, Outbox
from ledger.parties import FURNISHER
from ledger.store import events, records
from ledger.vault import Value

TODAY = datetime.fromtimestamp(NOON, UTC).date().isoformat()
RETENTION_DAYS = 31


@pytest.fixture
def furnisher(world: World) -> Furnisher:
    """The one whose values the subject's are."""
    registered = Furnisher()
    registered.register(world.custodian)
    return registered


def value_of(world: World, name: str, ref: str | None = None) -> tuple[Value, str, str]:
    vault = world.custodian.vault
    held = vault.open(vault.find(vault.subject_of(ref or world.subject.ref), [name])[0], TRIAL)
    return held.value, held.source, held.as_of


def versions(world: World) -> int:
    return world.custodian.vault.count()["records"]


def corrections(world: World) -> list[tuple[str, str]]:
    """Institution's index and consent of every event that tells of a correction, in their order."""
    with world.custodian.store.read() as tx:
        rows = tx.execute(select(events).where(events.c.kind == CORRECTED).order_by(events.c.event_id))
        return [(row.institution_index, row.consent_id) for row in rows]


def told_of(world: World) -> list[str]:
    return [consent for _, consent in corrections(world)]


def put(world: World, furnisher: Furnisher, *, as_of: str = "2026-02-28", **values: Value) -> PutResult:
    return furnisher.put(world.custodian, world.subject.ref, values, as_of=as_of)


def dispute(world: World, name: str) -> None:
    subject_id = world.custodian.vault.subject_of(world.subject.ref)
    world.custodian.disputes.open(subject_id, name, "This is wrong.")


# ------------------------------------------------------------------------------------------------------ what is stored


def test_a_new_person_is_made_known_with_source_and_date(world: World, furnisher: Furnisher) -> None:
    result = furnisher.put(world.custodian, "person-new", {"savings": "from_1000", "telephone": True})
    assert result == PutResult(added=("savings", "telephone"), unchanged=(), told=0)
    assert value_of(world, "savings", "person-new") == ("from_1000", SOURCE, "2026-02-28")
    assert value_of(world, "telephone", "person-new") == (True, SOURCE, "2026-02-28")
    assert world.custodian.vault.count()["subjects"] == 2


def test_a_changed_value_is_a_new_version_and_the_newest_is_released(world: World, furnisher: Furnisher) -> None:
    consent = world.grant()
    result = put(world, furnisher, credit_amount=2000, age=44)
    assert result == PutResult(added=("credit_amount", "age"), unchanged=(), told=0)
    assert world.read(world.ask(consent))["values"]["credit_amount"]["value"] == 2000
    assert versions(world) == len(VALUES) + 2


def test_the_very_same_again_adds_nothing(world: World, furnisher: Furnisher) -> None:
    same = {"credit_amount": VALUES["credit_amount"], "savings": VALUES["savings"]}
    result = put(world, furnisher, as_of="2026-01-31", **same)
    assert result == PutResult(added=(), unchanged=("credit_amount", "savings"), told=0)
    assert versions(world) == len(VALUES)
    result = put(world, furnisher, as_of="2026-01-31", **{**same, "savings": "from_1000"})
    assert (result.added, result.unchanged) == (("savings",), ("credit_amount",))


def test_the_same_day_can_be_corrected(world: World, furnisher: Furnisher) -> None:
    assert put(world, furnisher, as_of="2026-01-31", credit_amount=7).added == ("credit_amount",)
    assert value_of(world, "credit_amount") == (7, SOURCE, "2026-01-31")


def test_the_same_value_of_a_later_day_is_a_new_version_that_corrects_nothing(
    world: World, furnisher: Furnisher
) -> None:
    world.ask(world.grant())
    result = put(world, furnisher, credit_amount=VALUES["credit_amount"])
    assert result == PutResult(added=("credit_amount",), unchanged=(), told=0)
    assert value_of(world, "credit_amount") == (VALUES["credit_amount"], SOURCE, "2026-02-28")
    assert corrections(world) == []


def test_a_suspended_furnisher_hands_in_nothing(world: World, furnisher: Furnisher) -> None:
    world.custodian.registry.suspend(FURNISHER, SOURCE, suspended=True)
    with pytest.raises(FurnisherSuspendedError):
        put(world, furnisher, credit_amount=2000)
    assert versions(world) == len(VALUES)


# ------------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("name", "value", "error", "says"),
    [
        ("credit_amount", -4711, ValueNotInCatalogueError, "a whole number from 1"),
        ("credit_amount", 4711.5, ValueNotInCatalogueError, "a whole number from 1"),
        ("credit_amount", True, ValueNotInCatalogueError, "a whole number from 1"),
        ("credit_amount", "4711", ValueNotInCatalogueError, "a whole number from 1"),
        ("savings", "a-secret-4711", ValueNotInCatalogueError, "one of unknown_or_none"),
        ("telephone", 1, ValueNotInCatalogueError, "true or false"),
    ],
)
def test_one_bad_value_refuses_all_and_names_its_field_without_the_value(
    world: World, furnisher: Furnisher, name: str, value: Value, error: type[LedgerError], says: str
) -> None:
    with pytest.raises(error) as refused:
        furnisher.put(world.custodian, world.subject.ref, {"age": 44, name: value})
    assert refused.value.field == f"values.{name}"
    assert refused.value.message.startswith(f"values.{name}: ")
    assert says in refused.value.message
    assert "4711" not in refused.value.message
    # What a log would show of it.
    assert refused.value.__cause__ is None
    assert versions(world) == len(VALUES)


def test_a_name_that_is_not_in_the_catalogue_refuses_all_and_is_not_repeated(
    world: World, furnisher: Furnisher
) -> None:
    # Whoever mixes up names and values puts a person's data there.
    with pytest.raises(UnknownAttributeError) as refused:
        furnisher.put(world.custodian, world.subject.ref, {"age": 44, "Erika Mustermann": 4711})
    assert refused.value.field == "values"
    assert "Erika" not in refused.value.message
    assert versions(world) == len(VALUES)


def test_nothing_handed_in_is_refused(world: World, furnisher: Furnisher) -> None:
    with pytest.raises(MalformedError) as refused:
        put(world, furnisher)
    assert refused.value.field == "values"


@pytest.mark.parametrize(
    "as_of",
    ["", "1899-12-31", "2026-09-17", "9999-12-31", "20260131", "2026-02-30", "2026-W01-1", "2026-1-31", "2026-01-31 "],
)
def test_a_day_that_is_none_or_in_the_future_or_of_another_century_is_refused(
    world: World, furnisher: Furnisher, as_of: str
) -> None:
    with pytest.raises(MalformedError) as refused:
        put(world, furnisher, as_of=as_of, age=44)
    assert refused.value.field == "asOf"
    assert versions(world) == len(VALUES)


@pytest.mark.parametrize("as_of", ["1900-01-01", TODAY])
def test_the_first_and_the_last_day_are_taken(world: World, furnisher: Furnisher, as_of: str) -> None:
    assert put(world, furnisher, as_of=as_of, age=44).added == ("age",)


@pytest.mark.parametrize("ref", ["", "x" * 201, " person", "person ", "per\nson", "per\ud800son", "\x00"])
def test_a_reference_that_an_import_would_not_take_is_refused(world: World, furnisher: Furnisher, ref: str) -> None:
    with pytest.raises(MalformedError) as refused:
        furnisher.put(world.custodian, ref, {"age": 44})
    assert refused.value.field == "subject"
    assert world.custodian.vault.count()["subjects"] == 1


@pytest.mark.parametrize("ref", ["x", "Ä b/ç", "x" * 200])
def test_any_printable_reference_is_taken(world: World, furnisher: Furnisher, ref: str) -> None:
    assert furnisher.put(world.custodian, ref, {"age": 44}).added == ("age",)


def test_one_reference_is_one_person_however_unicode_writes_it(world: World, furnisher: Furnisher) -> None:
    composed, decomposed = (unicodedata.normalize(form, "José-1") for form in ("NFC", "NFD"))
    assert composed != decomposed
    furnisher.put(world.custodian, composed, {"age": 44})
    assert furnisher.put(world.custodian, decomposed, {"age": 44}).unchanged == ("age",)
    world.custodian.eraser.erase(decomposed)
    with pytest.raises(ErasedError):
        furnisher.put(world.custodian, composed, {"age": 44})


def test_an_erased_person_is_not_taken_in_again(world: World, furnisher: Furnisher) -> None:
    world.custodian.eraser.erase(world.subject.ref)
    with pytest.raises(ErasedError):
        put(world, furnisher, credit_amount=2000)
    assert world.custodian.vault.count() == {"subjects": 1, "erased": 1, "records": 0}


def test_an_older_day_than_the_one_held_is_refused(world: World, furnisher: Furnisher) -> None:
    put(world, furnisher, as_of="2026-02-28", credit_amount=2000)
    for value in (2000, 3000):
        with pytest.raises(ConflictError) as refused:
            put(world, furnisher, as_of="2026-02-27", credit_amount=value, age=44)
        assert refused.value.field == "asOf"
    assert value_of(world, "credit_amount") == (2000, SOURCE, "2026-02-28")
    assert versions(world) == len(VALUES) + 1


@pytest.mark.parametrize("as_of", ["2026-02-28", "2025-01-01"])
@pytest.mark.parametrize("value", [VALUES["credit_amount"], 2000])
def test_one_furnisher_cannot_overwrite_anothers_value_nor_learn_its_date(
    world: World, as_of: str, value: Value
) -> None:
    other = Furnisher("urn:test:other")
    other.register(world.custodian)
    with pytest.raises(ConflictError) as refused:
        put(world, other, as_of=as_of, age=44, credit_amount=value)
    assert refused.value.field == "values.credit_amount"
    assert "held from another source" in refused.value.message
    assert SOURCE not in refused.value.message
    assert versions(world) == len(VALUES)


def test_another_furnisher_can_add_what_nobody_has_said_and_owns_it(world: World, furnisher: Furnisher) -> None:
    other = Furnisher("urn:test:other")
    other.register(world.custodian)
    assert put(world, other, age=44).added == ("age",)
    with pytest.raises(ConflictError):
        put(world, furnisher, age=45)
    assert put(world, other, age=45).added == ("age",)


def test_one_value_more_does_not_open_to_a_furnisher_what_others_have_handed_in(
    world: World, furnisher: Furnisher
) -> None:
    other = Furnisher("urn:test:other")
    other.register(world.custodian)
    ours, theirs = (world.custodian.registry.furnisher(each.furnisher_id) for each in (furnisher, other))
    assert world.custodian.furnish.invite(ours, world.subject.ref).code
    put(world, other, age=44)
    for party in (ours, theirs):
        with pytest.raises(NotFoundError):
            world.custodian.furnish.invite(party, world.subject.ref)
    other.put(world.custodian, "person-9", {"age": 44})
    assert world.custodian.furnish.invite(theirs, "person-9").code


IMPORTED = """
[map]
format = 1
name = "test"
version = "1"
source = "urn:consent-ledger:furnisher:imported"
as_of = 2026-01-31
encoding = "utf-8"
delimiter = ","
[subject]
column = "who"
[columns."years"]
attribute = "age"
"""


def test_a_furnisher_registered_under_the_source_of_an_import_corrects_it(world: World, tmp_path: Path) -> None:
    file = tmp_path / "people.csv"
    file.write_text("who,years\nperson-imported,43\n")
    vault = world.custodian.vault
    Importer(world.custodian.store, vault, clock=world.clock).run(file, parse_map(IMPORTED), IMPORTED)
    importer = Furnisher("urn:consent-ledger:furnisher:imported")
    importer.register(world.custodian)
    assert importer.put(world.custodian, "person-imported", {"age": 44}).added == ("age",)
    assert value_of(world, "age", "person-imported") == (44, importer.furnisher_id, "2026-02-28")


# ---------------------------------------------------------------------------------------------------------- who is told


def test_an_institution_that_received_the_old_value_is_told_once_for_each_consent(
    world: World, furnisher: Furnisher
) -> None:
    first, second = world.grant(), world.grant()
    for consent in (first, first, second):
        world.ask(consent, attributes=("credit_amount", "savings"))
    result = put(world, furnisher, credit_amount=2000, savings="from_1000")
    assert result.told == 2
    index = world.custodian.registry.institution_index(world.institution.institution_id)
    assert sorted(corrections(world)) == sorted([(index, first), (index, second)])


def test_every_institution_is_told_of_its_own_consent(world: World, furnisher: Furnisher) -> None:
    other = world.another_institution()
    theirs = world.subject.grant(world.custodian, other)
    mine = world.grant()
    world.custodian.releases.release(other.request(world.custodian, theirs))
    world.ask(mine)
    assert put(world, furnisher, credit_amount=2000).told == 2
    index = world.custodian.registry.institution_index
    assert set(corrections(world)) == {(index(other.institution_id), theirs), (index("bank-1"), mine)}


def test_what_is_told_names_neither_attribute_nor_value(world: World, furnisher: Furnisher) -> None:
    consent = world.grant()
    world.ask(consent)
    put(world, furnisher, credit_amount=2047)
    with world.custodian.store.read() as tx:
        (row,) = tx.execute(select(events).where(events.c.kind == CORRECTED))
    assert (row.consent_id, row.details, row.created_at) == (consent, "{}", world.clock())
    assert "2047" not in repr(tuple(row))


def test_who_did_not_receive_the_attribute_is_not_told(world: World, furnisher: Furnisher) -> None:
    other = world.another_subject()
    theirs = other.grant(world.custodian, world.institution)
    world.custodian.releases.release(world.institution.request(world.custodian, theirs))
    unused, refused = world.grant(), world.grant()
    world.ask(world.grant(), attributes=("savings",))
    with pytest.raises(LedgerError):
        world.ask(refused, purpose="account-review")
    assert put(world, furnisher, credit_amount=2000).told == 0
    assert corrections(world) == []
    assert unused not in told_of(world)


def test_who_was_logged_and_not_answered_is_not_told(world: World, furnisher: Furnisher) -> None:
    consent = world.grant()
    world.steps.at("6 before decrypting", lambda: world.subject.revoke(world.custodian, consent))
    with pytest.raises(LedgerError):
        world.ask(consent)
    assert len(world.logged()) == 1
    assert put(world, furnisher, credit_amount=2000).told == 0


def test_an_older_release_of_the_attribute_is_found_behind_newer_ones_of_others(
    world: World, furnisher: Furnisher
) -> None:
    consent = world.grant()
    world.ask(consent, attributes=("credit_amount",))
    world.clock.advance(DAY)
    world.ask(consent, attributes=("savings",))
    assert put(world, furnisher, credit_amount=2000).told == 1


@pytest.mark.parametrize(("seconds", "told"), [(RETENTION_DAYS * DAY - 1, 1), (RETENTION_DAYS * DAY, 0)])
def test_who_must_have_deleted_it_is_not_told(world: World, furnisher: Furnisher, seconds: int, told: int) -> None:
    world.ask(world.grant())
    world.clock.advance(seconds)
    assert put(world, furnisher, credit_amount=2000).told == told


def test_a_newer_release_of_another_attribute_does_not_keep_the_old_one(world: World, furnisher: Furnisher) -> None:
    consent = world.grant()
    world.ask(consent, attributes=("credit_amount",))
    world.clock.advance(20 * DAY)
    world.ask(consent, attributes=("savings",))
    world.clock.advance((RETENTION_DAYS - 20) * DAY)
    assert put(world, furnisher, credit_amount=2000).told == 0
    assert put(world, furnisher, savings="from_1000").told == 1


def test_who_may_not_store_it_is_not_told(world: World, furnisher: Furnisher) -> None:
    world.ask(world.grant(retention_days=0))
    assert put(world, furnisher, credit_amount=2000).told == 0


def test_a_revoked_an_expired_and_a_paused_consent_are_told_while_what_was_received_is_kept(
    world: World, furnisher: Furnisher
) -> None:
    revoked, paused = world.grant(), world.grant()
    expired = world.grant(expires_at=world.clock() + 60)
    for consent in (revoked, paused, expired):
        world.ask(consent)
    world.subject.revoke(world.custodian, revoked)
    world.subject.pause(world.custodian, paused)
    world.clock.advance(DAY)
    assert put(world, furnisher, credit_amount=2000).told == 3
    assert set(told_of(world)) == {revoked, paused, expired}


def test_what_a_replacement_lets_be_kept_is_told_for_as_long(world: World, furnisher: Furnisher) -> None:
    old = world.grant(retention_days=1)
    world.ask(old)
    world.grant(replaces=old, retention_days=1)
    world.clock.advance(29 * DAY)
    assert put(world, furnisher, credit_amount=2000).told == 1
    world.clock.advance(DAY)
    assert put(world, furnisher, credit_amount=3000).told == 0
    assert told_of(world) == [old]


def test_each_correction_is_told(world: World, furnisher: Furnisher) -> None:
    consent = world.grant()
    world.ask(consent)
    for value in (2000, 3000):
        assert put(world, furnisher, credit_amount=value).told == 1
    assert told_of(world) == [consent, consent]


def test_a_correction_that_cannot_be_told_is_not_made(
    world: World, furnisher: Furnisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise StoreUnavailableError("the disk is full")

    world.ask(world.grant())
    monkeypatch.setattr(Outbox, "add", broken)
    with pytest.raises(StoreUnavailableError):
        put(world, furnisher, credit_amount=2000)
    assert value_of(world, "credit_amount")[0] == VALUES["credit_amount"]
    assert versions(world) == len(VALUES)


# ------------------------------------------------------------------------------------------------------------- disputes


def test_a_correction_ends_the_dispute_of_its_attribute_alone(world: World, furnisher: Furnisher) -> None:
    consent = world.grant()
    for name in ("credit_amount", "savings"):
        dispute(world, name)
    put(world, furnisher, credit_amount=2000)
    assert world.read(world.ask(consent))["values"]["credit_amount"]["value"] == 2000
    with pytest.raises(DisputedError):
        world.ask(consent, attributes=("savings",))


def test_saying_the_same_again_does_not_end_a_dispute(world: World, furnisher: Furnisher) -> None:
    consent = world.grant()
    dispute(world, "credit_amount")
    assert put(world, furnisher, credit_amount=VALUES["credit_amount"]).added == ("credit_amount",)
    with pytest.raises(DisputedError):
        world.ask(consent)


# ------------------------------------------------------------------------------------------------------ what is on file


def test_what_is_handed_in_is_on_file_only_sealed(world: World, furnisher: Furnisher) -> None:
    ref = "Erika Mustermann 4711"
    furnisher.put(world.custodian, ref, {"credit_amount": 987_654_321, "credit_purpose": "radio_tv"})
    with world.custodian.store.read() as tx:
        stored: Sequence[object] = [value for row in tx.execute(select(records)) for value in row]
    files = b"".join(path.read_bytes() for path in sorted(world.config.data.glob("ledger.db*")))
    for text in (ref, "987654321", "radio_tv"):
        assert text.encode() not in files
        assert text not in map(str, stored)


def test_a_person_who_is_furnished_can_consent_and_is_released(world: World, furnisher: Furnisher) -> None:
    person = Subject("person-new")
    furnisher.put(world.custodian, person.ref, {"credit_amount": 55})
    consent: Hex32 = person.grant(world.custodian, world.institution, attributes=("credit_amount",))
    answer = world.read(world.ask(consent))["values"]["credit_amount"]
    assert (answer["value"], answer["source"], answer["asOf"]) == (55, SOURCE, "2026-02-28")
