"""The attribute catalogue: one written form of each value, stable bytes, nothing of a person in an error."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.attributes import ATTRIBUTES, Attribute, Sensitivity, Value, ValueType, attribute
from ledger.errors import UnknownAttributeError, ValueNotInCatalogueError

INTEGER = attribute("credit_amount")
CATEGORY = attribute("other_debtors")
BOOLEAN = attribute("telephone")
ENTRIES = st.sampled_from(list(ATTRIBUTES.values()))


def values_of(entry: Attribute) -> st.SearchStrategy[Value]:
    if entry.type is ValueType.INTEGER:
        return st.integers(entry.minimum, entry.maximum)
    return st.booleans() if entry.type is ValueType.BOOLEAN else st.sampled_from(list(entry.categories))


ENTRIES_AND_VALUES = ENTRIES.flatmap(lambda entry: st.tuples(st.just(entry), values_of(entry)))


# ---------------------------------------------------------------------------------------------------- the catalogue


def test_names_and_codes_are_identifiers_that_need_no_quoting_anywhere() -> None:
    names = [*ATTRIBUTES, *(code for entry in ATTRIBUTES.values() for code in entry.categories)]
    assert [name for name in names if not re.fullmatch(r"[a-z][a-z0-9_]{0,59}", name)] == []


def test_every_entry_says_to_people_what_it_is() -> None:
    labels = [entry.label for entry in ATTRIBUTES.values()]
    assert all(labels)
    assert len(set(labels)) == len(labels)
    assert all(label for entry in ATTRIBUTES.values() for label in entry.categories.values())


@pytest.mark.parametrize("entry", ATTRIBUTES.values(), ids=ATTRIBUTES)
def test_no_category_is_shown_under_the_label_of_another(entry: Attribute) -> None:
    assert len(set(entry.categories.values())) == len(entry.categories)


def test_every_integer_has_a_unit_and_fits_into_json_numbers_of_every_language() -> None:
    for entry in ATTRIBUTES.values():
        if entry.type is ValueType.INTEGER:
            assert entry.unit in {"years", "months", "DEM", "TWD"}
            assert -(2**53) < entry.minimum < entry.maximum < 2**53
        else:
            assert entry.unit is None


def test_grounds_on_which_lending_may_not_discriminate_are_protected() -> None:
    protected = {name for name, entry in ATTRIBUTES.items() if entry.sensitivity is Sensitivity.PROTECTED}
    assert protected == {"age", "sex", "marriage", "personal_status_and_sex", "foreign_worker"}


def test_arrears_and_default_are_never_ordinary() -> None:
    arrears = [
        n for n in ATTRIBUTES if n.startswith(("repayment_status", "default", "credit_history", "creditability"))
    ]
    assert len(arrears) == 9
    assert {ATTRIBUTES[name].sensitivity for name in arrears} == {Sensitivity.SENSITIVE}


def test_codes_that_the_source_does_not_document_say_so_to_people() -> None:
    undocumented = [
        entry.describe(code)
        for entry in ATTRIBUTES.values()
        for code in entry.categories
        if code.startswith("undocumented")
    ]
    assert len(undocumented) == 3 + 1 + 6 * 2
    assert all("not documented by the source" in label for label in undocumented)


def test_catalogue_cannot_be_changed_by_whoever_holds_it() -> None:
    with pytest.raises(TypeError):
        ATTRIBUTES["age"] = INTEGER  # type: ignore[index]
    with pytest.raises(TypeError):
        CATEGORY.categories["none"] = "other"  # type: ignore[index]


def test_unknown_attribute_is_named() -> None:
    with pytest.raises(UnknownAttributeError, match="'shoe_size'") as caught:
        attribute("shoe_size")
    assert caught.value.field == "attributes"


# --------------------------------------------------------------------------------------------------------- parsing


@pytest.mark.parametrize(
    ("entry", "text", "value"),
    [
        (INTEGER, "1", 1),
        (INTEGER, "1169", 1169),
        (attribute("bill_amount_2005_09"), "-165580", -165580),
        (attribute("payment_amount_2005_09"), "0", 0),
        (CATEGORY, "co_applicant", "co_applicant"),
        (BOOLEAN, "true", True),
        (BOOLEAN, "false", False),
    ],
)
def test_written_values_are_read(entry: Attribute, text: str, value: Value) -> None:
    parsed = entry.parse(text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    "text",
    ["", " 7", "7 ", "+7", "07", "-0", "1_000", "1,000", "7.0", "1e3", "\u0667", "0x10", "NaN", "true", "9" * 5000],
)
def test_second_spellings_of_a_number_are_refused(text: str) -> None:
    with pytest.raises(ValueNotInCatalogueError):
        replace(INTEGER, minimum=-(10**9)).parse(text)


@pytest.mark.parametrize("text", ["0", "-1", "1000000001"])
def test_numbers_outside_the_range_are_refused(text: str) -> None:
    with pytest.raises(ValueNotInCatalogueError, match="from 1 to 1000000000"):
        INTEGER.parse(text)


@pytest.mark.parametrize(("entry", "text"), [(BOOLEAN, "True"), (BOOLEAN, "1"), (BOOLEAN, ""), (CATEGORY, "None")])
def test_near_misses_of_codes_are_refused(entry: Attribute, text: str) -> None:
    with pytest.raises(ValueNotInCatalogueError):
        entry.parse(text)


@given(ENTRIES, st.text().map("no value {}".format))
def test_refusal_is_the_same_whatever_the_value_was(entry: Attribute, text: str) -> None:
    """So no message, cause or context can carry a person's value into a log."""
    with pytest.raises(ValueNotInCatalogueError) as caught:
        entry.parse(text)
    assert caught.value.message == f"{entry.name}: expected {entry.expected()}"
    assert caught.value.field == entry.name
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


@given(ENTRIES, st.binary().map(b"no value ".__add__))
def test_bytes_that_do_not_decode_are_not_repeated(entry: Attribute, plaintext: bytes) -> None:
    with pytest.raises(ValueNotInCatalogueError) as caught:
        entry.decode(plaintext)
    assert caught.value.message == f"{entry.name}: expected {entry.expected()}"
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


# -------------------------------------------------------------------------------------------------------- encoding


@pytest.mark.parametrize(
    ("entry", "value", "plaintext"),
    [(INTEGER, 1169, b"1169"), (CATEGORY, "none", b'"none"'), (BOOLEAN, True, b"true"), (BOOLEAN, False, b"false")],
)
def test_plaintext_is_known_bytes(entry: Attribute, value: Value, plaintext: bytes) -> None:
    assert entry.encode(value) == plaintext


@given(ENTRIES_AND_VALUES)
def test_what_was_encoded_decodes_to_the_same_value_and_type(drawn: tuple[Attribute, Value]) -> None:
    entry, value = drawn
    decoded = entry.decode(entry.encode(value))
    assert decoded == value
    assert type(decoded) is type(value)
    assert json.loads(entry.encode(value)) == value


@pytest.mark.parametrize(
    ("entry", "plaintext"),
    [
        (INTEGER, b" 7"),
        (INTEGER, b"7.0"),
        (INTEGER, b"7e0"),
        (INTEGER, b"true"),
        (INTEGER, b'"7"'),
        (INTEGER, b"NaN"),
        (INTEGER, b""),
        (INTEGER, b"[" * 100_000),
        (INTEGER, "7".encode("utf-16")),
        (BOOLEAN, b"1"),
        (CATEGORY, b'"n\\u006fne"'),
        (CATEGORY, b"\xff"),
        (CATEGORY, b"'none'"),
        (CATEGORY, b"none"),
        (CATEGORY, b'"'),
        (INTEGER, b"7\xff"),
    ],
)
def test_other_bytes_for_the_same_value_are_refused(entry: Attribute, plaintext: bytes) -> None:
    with pytest.raises(ValueNotInCatalogueError):
        entry.decode(plaintext)


@pytest.mark.parametrize(("entry", "value"), [(INTEGER, True), (INTEGER, 0), (BOOLEAN, 1), (CATEGORY, "nobody")])
def test_value_of_the_wrong_kind_is_never_encoded(entry: Attribute, value: Value) -> None:
    with pytest.raises(ValueNotInCatalogueError):
        entry.encode(value)


# --------------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize(
    ("entry", "value", "text"),
    [
        (INTEGER, 1169, "1169 DEM"),
        (attribute("age"), 67, "67 years"),
        (CATEGORY, "none", "nobody"),
        (BOOLEAN, True, "yes"),
        (BOOLEAN, False, "no"),
    ],
)
def test_people_read_labels_and_units(entry: Attribute, value: Value, text: str) -> None:
    assert entry.describe(value) == text
