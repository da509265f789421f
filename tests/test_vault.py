"""The vault: values come back as they were put, and nothing of them or of anyone is in the files in clear."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pytest

from ledger.envelope import TRIAL, WrappedKey
from ledger.errors import AttributeAbsentError, ErasedError, IntegrityError, KeyUnavailableError, NotFoundError
from ledger.keys import KeyFile
from ledger.store import Store
from ledger.vault import AttributeValue, NewRecord, Value, Vault

ANNA, BORIS = "ref-canary-anna-71c3", "ref-canary-boris-9e0d"
SOURCE: Final = "urn:canary:furnisher"


@dataclass(frozen=True)
class Place:
    """A vault and what it stands on."""

    vault: Vault
    store: Store
    keys: KeyFile
    data: Path

    def put(self, ref: str, at: int = 1, as_of: str = "2026-01-01", **values: Value) -> int:
        new = [
            NewRecord(subject_ref=ref, attribute=name, value=AttributeValue(value=value, source=SOURCE, as_of=as_of))
            for name, value in values.items()
        ]
        with self.store.begin() as tx:
            return self.vault.put(tx, new, at=at)

    def values(self, ref: str, *attributes: str) -> list[Value]:
        found = self.vault.find(self.vault.subject_of(ref), attributes)
        return [self.vault.open(record, TRIAL).value for record in found]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    keys = KeyFile.create(tmp_path / "keys" / "kek.json")
    store = Store.create(tmp_path / "ledger.db", {"key_file": "test"})
    yield Place(Vault(store, keys), store, keys, tmp_path)
    store.close()


def test_values_come_back_as_they_were_put_in_the_order_asked(place: Place) -> None:
    assert place.put(ANNA, age=67, job="skilled", telephone=True, rate=1.5) == 4
    assert place.values(ANNA, "telephone", "age", "rate", "job") == [True, 67, 1.5, "skilled"]


def test_a_value_says_where_it_comes_from(place: Place) -> None:
    place.put(ANNA, age=67)
    (record,) = place.vault.find(place.vault.subject_of(ANNA), ["age"])
    assert place.vault.open(record, TRIAL) == AttributeValue(value=67, source=SOURCE, as_of="2026-01-01")


@pytest.mark.parametrize("value", [0, -1, 2**62, True, False, "", "none", '示例 "\\\n', 0.5])
def test_every_kind_of_value_keeps_its_type(place: Place, value: Value) -> None:
    place.put(ANNA, age=value)
    (again,) = place.values(ANNA, "age")
    assert again == value
    assert type(again) is type(value)


def test_people_do_not_see_each_others_values(place: Place) -> None:
    place.put(ANNA, age=67)
    place.put(BORIS, age=22)
    assert (place.values(ANNA, "age"), place.values(BORIS, "age")) == ([67], [22])
    assert place.vault.subject_of(ANNA) != place.vault.subject_of(BORIS)


def test_one_import_of_many_people_gives_each_their_own(place: Place) -> None:
    refs = [f"person-{number}" for number in range(1200)]
    new = [
        NewRecord(subject_ref=ref, attribute="age", value=AttributeValue(value=number, source=SOURCE, as_of="x"))
        for number, ref in enumerate(refs)
    ]
    for expected in (1200, 0):
        with place.store.begin() as tx:
            assert place.vault.put(tx, new, at=1) == expected
    assert [place.values(ref, "age") for ref in (refs[0], refs[500], refs[1199])] == [[0], [500], [1199]]
    assert place.vault.count() == {"subjects": 1200, "erased": 0, "records": 1200}


def test_a_repeated_value_makes_no_new_version(place: Place) -> None:
    assert [place.put(ANNA, age=67) for _ in range(3)] == [1, 0, 0]
    assert place.vault.count()["records"] == 1


def test_a_changed_value_is_a_new_version_and_the_old_one_stays(place: Place) -> None:
    place.put(ANNA, age=67)
    subject = place.vault.subject_of(ANNA)
    (first,) = place.vault.find(subject, ["age"])
    assert place.put(ANNA, age=68) == 1
    (second,) = place.vault.find(subject, ["age"])
    assert (first.version, second.version) == (1, 2)
    assert place.vault.open(second, TRIAL).value == 68
    assert [place.vault.open(r, TRIAL).value for r in place.vault.load([second.record_id, first.record_id])] == [68, 67]


def test_a_value_that_comes_back_after_another_is_a_third_version(place: Place) -> None:
    assert [place.put(ANNA, age=age) for age in (67, 68, 67)] == [1, 1, 1]
    assert place.values(ANNA, "age") == [67]


def test_the_same_value_as_of_another_day_is_a_new_version(place: Place) -> None:
    assert [place.put(ANNA, as_of=day, age=67) for day in ("2026-01-01", "2026-02-01")] == [1, 1]


def test_true_is_not_one_and_one_is_not_text(place: Place) -> None:
    assert [place.put(ANNA, age=value) for value in (1, True, "1", "true")] == [1, 1, 1, 1]


def test_absent_attributes_are_named_and_the_others_are_not(place: Place) -> None:
    place.put(ANNA, age=67)
    with pytest.raises(AttributeAbsentError) as caught:
        place.vault.find(place.vault.subject_of(ANNA), ["age", "job", "savings"])
    assert caught.value.message.endswith("no value held of job, savings")
    with pytest.raises(AttributeAbsentError):
        place.vault.find("nobody", ["age"])


def test_nobody_is_found_by_a_reference_that_was_never_put(place: Place) -> None:
    place.put(ANNA, age=67)
    for ref in (ANNA.upper(), ANNA + " ", "", BORIS):
        with pytest.raises(NotFoundError):
            place.vault.subject_of(ref)
    assert place.vault.is_erased("nobody")


def test_values_that_were_put_in_a_transaction_that_failed_are_not_there(place: Place) -> None:
    class MidwayError(Exception):
        pass

    new = [NewRecord(subject_ref=ANNA, attribute="age", value=AttributeValue(value=1, source=SOURCE, as_of="x"))]
    with pytest.raises(MidwayError), place.store.begin() as tx:  # noqa: PT012 - what comes before is the point
        place.vault.put(tx, new, at=1)
        raise MidwayError
    assert place.vault.count() == {"subjects": 0, "erased": 0, "records": 0}


# ------------------------------------------------------------------------------------------------------------- erased


def erase(place: Place, ref: str) -> int:
    with place.store.begin() as tx:
        return place.vault.erase(tx, place.vault.subject_of(ref), at=9)


def test_an_erased_person_is_gone_and_the_others_are_not(place: Place) -> None:
    place.put(ANNA, age=67, job="skilled")
    place.put(ANNA, age=68)
    place.put(BORIS, age=22)
    subject = place.vault.subject_of(ANNA)
    (record,) = place.vault.find(subject, ["age"])
    assert erase(place, ANNA) == 3
    with pytest.raises(ErasedError):
        place.vault.subject_of(ANNA)
    with pytest.raises(ErasedError):
        place.vault.load([record.record_id])
    assert place.vault.is_erased(subject)
    assert not place.vault.is_erased(place.vault.subject_of(BORIS))
    assert place.values(BORIS, "age") == [22]
    assert place.vault.count() == {"subjects": 2, "erased": 1, "records": 1}


def test_the_reference_of_an_erased_person_stays_known_as_erased(place: Place) -> None:
    place.put(ANNA, age=67)
    place.put(BORIS, age=22)
    erase(place, ANNA)
    indexes = [place.vault.ref_index(ref) for ref in (ANNA, BORIS, "nobody")]
    with place.store.read() as tx:
        assert place.vault.erased_refs(tx, indexes) == {indexes[0]}


# ----------------------------------------------------------------------------------------------------------- in dispute


def test_a_dispute_marks_every_version_of_one_attribute_and_can_be_settled(place: Place) -> None:
    place.put(ANNA, age=67, job="skilled")
    place.put(ANNA, age=68)
    subject = place.vault.subject_of(ANNA)
    for disputed in (True, False):
        with place.store.begin() as tx:
            assert place.vault.set_disputed(tx, subject, "age", disputed=disputed) == 2
        assert [record.disputed for record in place.vault.find(subject, ["age", "job"])] == [disputed, False]


# --------------------------------------------------------------------------------------------------------------- tamper


def test_a_record_moved_to_another_person_attribute_or_version_does_not_open(place: Place) -> None:
    place.put(ANNA, age=67)
    (record,) = place.vault.find(place.vault.subject_of(ANNA), ["age"])
    moved = [replace(record, subject_id="other"), replace(record, attribute="job"), replace(record, version=2)]
    for stolen in moved:
        with pytest.raises(IntegrityError):
            place.vault.open(stolen, TRIAL)
    assert place.vault.open(record, TRIAL).value == 67


def test_a_record_under_a_key_that_is_not_there_says_so(place: Place) -> None:
    place.put(ANNA, age=67)
    (record,) = place.vault.find(place.vault.subject_of(ANNA), ["age"])
    key = WrappedKey("kek-none", record.envelope.key.wrapped_dek)
    with pytest.raises(KeyUnavailableError):
        place.vault.open(replace(record, envelope=replace(record.envelope, key=key)), TRIAL)


# ------------------------------------------------------------------------------------------------------------- canaries


def forms(text: str) -> list[bytes]:
    """What a text might look like in a file."""
    raw = text.encode()
    base64s = [b64encode(raw[start:])[:-4] for start in range(3)]
    return [raw, raw.hex().encode(), raw.hex().upper().encode(), *base64s, text.encode("utf-16-le"), raw[::-1]]


def test_neither_values_nor_references_are_in_any_file_in_any_form(place: Place) -> None:
    canaries = [ANNA, BORIS, SOURCE, "value-canary-77aa", "8675309867530", "as-of-canary"]
    place.put(ANNA, as_of="as-of-canary", job="value-canary-77aa", credit_amount=8_675_309_867_530)
    place.put(BORIS, job="another")
    place.put(BORIS, job="value-canary-77aa")
    erase(place, BORIS)
    written = {entry.name: entry.read_bytes() for entry in place.data.rglob("*") if entry.is_file()}
    assert {"ledger.db", "ledger.db-wal", "kek.json"} <= set(written)
    found = [(name, text) for name, raw in written.items() for text in canaries for form in forms(text) if form in raw]
    assert found == []
    # The search itself works: what is no secret is found.
    assert any(form in written["ledger.db-wal"] for form in forms("credit_amount"))


def test_equal_values_of_two_people_have_nothing_equal_in_the_database(place: Place) -> None:
    place.put(ANNA, age=67)
    place.put(BORIS, age=67)
    (anna,), (boris,) = (place.vault.find(place.vault.subject_of(ref), ["age"]) for ref in (ANNA, BORIS))
    assert anna.envelope.body[1:] != boris.envelope.body[1:]
    with place.store.read() as tx:
        indexes = tx.exec_driver_sql("SELECT value_index FROM records").scalars().all()
    assert len(set(indexes)) == 2


def test_the_plaintext_of_an_envelope_is_canonical() -> None:
    value = AttributeValue(value="ä", source="s", as_of="d")
    assert value.encode() == '{"asOf":"d","source":"s","value":"ä"}'.encode()
    assert AttributeValue.decode(json.dumps({"value": "ä", "source": "s", "asOf": "d"}).encode()) == value
