"""Import maps: real files without loss, wrong maps and headers refused by name, every bad cell of a row reported."""

from __future__ import annotations

import csv
from collections import Counter
from itertools import groupby
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ledger
from ledger.attributes import ATTRIBUTES, Value
from ledger.errors import MapError
from ledger.importmap import BadCell, ImportedRow, ImportMap, RejectedRow, RowReader, parse_map

PACKAGE: Final = Path(ledger.__file__).parent
SHARED: Final = PACKAGE.parent.parent / "shared" / "data"
GERMAN: Final = PACKAGE / "data" / "german_statlog_1000.csv"

HEAD: Final = """
[map]
format = 1
name = "test"
version = "1"
source = "urn:consent-ledger:furnisher:test"
as_of = 2026-01-31
encoding = "utf-8"
delimiter = ","
nulls = ["", "NA"]
ignore = ["notes"]
"""
SUBJECT: Final = """
[subject]
column = "ID"
"""
COLUMNS: Final = """
[columns."Age"]
attribute = "age"
[columns."Late?"]
attribute = "default_next_month"
values = { "yes" = "true", "no" = "false" }
[columns."Guarantor"]
attribute = "other_debtors"
[columns."Paid"]
attribute = "payment_amount_2005_09"
values = { "nothing" = "0" }
"""
HEADER: Final = ["ID", "Age", "Late?", "Guarantor", "Paid", "notes"]
GOOD: Final = ["P-1", "67", "yes", "none", "nothing", "any text at all"]


def small_reader() -> RowReader:
    return parse_map(HEAD + SUBJECT + COLUMNS).reader(HEADER)


def shipped_map(name: str) -> ImportMap:
    return parse_map((PACKAGE / "maps" / f"{name}.toml").read_bytes())


def rows_of(path: Path) -> list[list[str]]:
    if not path.exists():
        pytest.skip(f"{path} is not here: it may not be shipped with the project")
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def imported(name: str, path: Path) -> list[ImportedRow | RejectedRow]:
    header, *rows = rows_of(path)
    reader = shipped_map(name).reader(header)
    return [reader.row(number + 1, number, cells) for number, cells in enumerate(rows, start=1)]


def values_in(rows: list[ImportedRow | RejectedRow], name: str) -> list[Value]:
    return [row.values[name] for row in rows if isinstance(row, ImportedRow)]


# ------------------------------------------------------------------------------------------------------ real files


def test_german_file_is_imported_to_the_last_row() -> None:
    rows = imported("german", GERMAN)
    assert Counter(type(row) for row in rows) == {ImportedRow: 1000}
    assert {len(row.values) for row in rows if isinstance(row, ImportedRow)} == {20}
    assert [row.subject for row in rows[:2] if isinstance(row, ImportedRow)] == ["german-0001", "german-0002"]
    assert sum(int(value) for value in values_in(rows, "credit_amount")) == 3_271_258
    assert Counter(values_in(rows, "creditability")) == {"good": 700, "bad": 300}


def test_taiwan_file_is_imported_to_the_last_row_undocumented_codes_included() -> None:
    path = SHARED / "taiwan_default_30000.csv"
    rows = imported("taiwan", path)
    assert Counter(type(row) for row in rows) == {ImportedRow: 30_000}
    assert {len(row.values) for row in rows if isinstance(row, ImportedRow)} == {24}
    assert Counter(values_in(rows, "default_next_month")) == {True: 6636, False: 23_364}
    assert Counter(values_in(rows, "education"))["undocumented_5"] == 280
    assert Counter(values_in(rows, "marriage"))["undocumented_0"] == 54
    assert Counter(values_in(rows, "repayment_status_2005_09"))["undocumented_minus_2"] == 2759
    statements = sum(int(value) for value in values_in(rows, "bill_amount_2005_04"))
    assert statements == sum(int(cells[16]) for cells in rows_of(path)[1:])


def test_german_labels_mean_what_the_corrected_file_says() -> None:
    """Statlog's labels are wrong. Rows that both files have are compared through the corrected code table."""
    header, *rows = rows_of(SHARED / "south_german_1000.csv")
    corrected = [dict(zip(header, cells, strict=True)) for cells in rows]
    by_key = Counter(map(_south_german_key, corrected))
    south = {_south_german_key(row): row for row in corrected if by_key[_south_german_key(row)] == 1}
    german = [row.values for row in imported("german", GERMAN) if isinstance(row, ImportedRow)]
    keys = [tuple(str(row[name]) for name in ("credit_duration", "credit_amount", "age")) for row in german]
    pairs = [(row, south[key]) for row, key in zip(german, keys, strict=True) if key in south and keys.count(key) == 1]
    assert len(pairs) == 990
    differing = Counter(
        name
        for ours, theirs in pairs
        for name, (column, codes) in SOUTH_GERMAN.items()
        if ours[name] != codes[theirs[column]]
    )
    # The published files themselves differ in these cells; a wrong label would differ in hundreds.
    assert differing == {"other_installment_plans": 34, "foreign_worker": 10, "housing": 1}


def test_column_of_the_german_file_that_does_not_belong_to_its_rows_is_not_imported() -> None:
    header, *rows = rows_of(GERMAN)
    index = header.index("personal_status_and_sex")
    blocks = [len(list(group)) for _, group in groupby(cells[index] for cells in rows)]
    assert blocks == [50, 310, 548, 92]
    assert "personal_status_and_sex" in shipped_map("german").ignored
    assert not any(
        "personal_status_and_sex" in row.values for row in imported("german", GERMAN) if isinstance(row, ImportedRow)
    )


@pytest.mark.parametrize("name", ["german", "taiwan"])
def test_every_imported_value_survives_storage(name: str) -> None:
    path = GERMAN if name == "german" else SHARED / "taiwan_default_30000.csv"
    for row in imported(name, path)[:1000]:
        assert isinstance(row, ImportedRow)
        for attribute, value in row.values.items():
            assert ATTRIBUTES[attribute].decode(ATTRIBUTES[attribute].encode(value)) == value


def test_every_attribute_of_the_catalogue_has_a_source() -> None:
    mapped = {column.attribute.name for name in ("german", "taiwan") for column in shipped_map(name).columns}
    assert ATTRIBUTES.keys() - mapped == {"personal_status_and_sex"}


# ----------------------------------------------------------------------------------------------------------- rows


def test_row_is_read_in_the_order_of_the_map() -> None:
    assert small_reader().row(2, 1, GOOD) == ImportedRow(
        line=2,
        subject="P-1",
        values={"age": 67, "default_next_month": True, "other_debtors": "none", "payment_amount_2005_09": 0},
    )


def test_columns_are_found_by_name_wherever_they_stand() -> None:
    order = [5, 3, 1, 0, 4, 2]
    reader = parse_map(HEAD + SUBJECT + COLUMNS).reader([HEADER[index] for index in order])
    assert reader.row(2, 1, [GOOD[index] for index in order]) == small_reader().row(2, 1, GOOD)


def test_spellings_of_an_integer_column_stand_beside_numbers() -> None:
    row = small_reader().row(2, 1, [*GOOD[:4], "1500", ""])
    assert isinstance(row, ImportedRow)
    assert row.values["payment_amount_2005_09"] == 1500


@pytest.mark.parametrize("null", ["", "NA"])
def test_null_is_absent_and_not_a_value(null: str) -> None:
    row = small_reader().row(2, 1, ["P-1", null, null, null, null, ""])
    assert row == ImportedRow(line=2, subject="P-1", values={})


def test_every_bad_cell_of_a_row_is_reported() -> None:
    row = small_reader().row(7, 6, ["", "sixty", "maybe", "nobody", "-1", "x"])
    assert isinstance(row, RejectedRow)
    assert row.line == 7
    assert [(cell.line, cell.column) for cell in row.cells] == [
        (7, "ID"),
        (7, "Age"),
        (7, "Late?"),
        (7, "Guarantor"),
        (7, "Paid"),
    ]
    assert row.cells[1].reason == "expected a whole number from 0 to 125 (years)"
    assert row.cells[2].reason == "expected one of 'yes', 'no'"


@pytest.mark.parametrize("cells", [[], GOOD[:-1], [*GOOD, "one too many"]])
def test_row_of_another_width_is_one_bad_cell_and_nothing_is_guessed(cells: list[str]) -> None:
    reason = f"expected 6 cells, got {len(cells)}"
    assert small_reader().row(3, 2, cells) == RejectedRow(line=3, cells=(BadCell(line=3, column=None, reason=reason),))


@pytest.mark.parametrize("text", ["true", "Yes", "yes ", "1"])
def test_closed_column_takes_only_the_texts_that_its_map_lists(text: str) -> None:
    assert isinstance(small_reader().row(2, 1, ["P-1", "67", text, "none", "0", ""]), RejectedRow)


@pytest.mark.parametrize("subject", ["", "NA", " P-1", "P-1\t", "P\n1", "P\x001", "x" * 201])
def test_row_about_nobody_is_rejected(subject: str) -> None:
    row = small_reader().row(2, 1, [subject, *GOOD[1:]])
    assert isinstance(row, RejectedRow)
    assert [cell.column for cell in row.cells] == ["ID"]


@given(st.lists(st.text().map("not {}".format), min_size=5, max_size=5))
def test_reports_are_the_same_whatever_was_found(cells: list[str]) -> None:
    """So no report of a rejected row can carry a person's value."""
    row = small_reader().row(2, 1, ["P-1", *cells])
    assert row == small_reader().row(2, 1, ["P-1", "a", "b", "c", "d", "e"])


# -------------------------------------------------------------------------------------------------------- headers


def test_all_missing_columns_are_named() -> None:
    with pytest.raises(MapError, match="'ID', 'Late\\?'") as caught:
        parse_map(HEAD + SUBJECT + COLUMNS).check_header(["Age", "Guarantor", "Paid"])
    assert caught.value.field == "header"


def test_repeated_column_is_refused_because_one_of_the_two_would_be_lost() -> None:
    with pytest.raises(MapError, match="expected once: 'Age'"):
        parse_map(HEAD + SUBJECT + COLUMNS).reader([*HEADER, "Age"])


def test_columns_that_would_be_dropped_silently_are_counted_off_but_not_repeated() -> None:
    with pytest.raises(MapError, match="column 7, 8; map them or add them to") as caught:
        parse_map(HEAD + SUBJECT + COLUMNS).reader([*HEADER, "Salary of Jane Doe", "Income"])
    assert "Jane" not in caught.value.message


def test_ignored_column_may_be_missing() -> None:
    parse_map(HEAD + SUBJECT + COLUMNS).check_header(HEADER[:-1])


def test_file_without_a_header_does_not_get_its_first_person_into_the_message() -> None:
    with pytest.raises(MapError) as caught:
        parse_map(HEAD + SUBJECT + COLUMNS).check_header(GOOD)
    assert not any(cell in caught.value.message for cell in ("P-1", "67", "nothing"))


# ----------------------------------------------------------------------------------------------------------- maps


@pytest.mark.parametrize(
    ("template", "reference"),
    [("{row}", "7"), ("p-{row:04d}", "p-0007"), ("{row:020d}!", "0" * 19 + "7!"), ("100%-{row}", "100%-7")],
)
def test_template_numbers_the_rows(template: str, reference: str) -> None:
    reader = parse_map(HEAD + f'[subject]\ntemplate = "{template}"\n' + COLUMNS).reader(HEADER[1:])
    row = reader.row(8, 7, GOOD[1:])
    assert isinstance(row, ImportedRow)
    assert row.subject == reference


@pytest.mark.parametrize(
    "template",
    ["person", "{row.__class__}", "{row!r}", "{row:>999999999}", "{row:099d}", "{row}{row}", "{{row}}", "{0}", "{row"],
)
def test_template_that_could_do_more_than_number_is_refused(template: str) -> None:
    with pytest.raises(MapError) as caught:
        parse_map(HEAD + f'[subject]\ntemplate = "{template}"\n' + COLUMNS)
    assert caught.value.field == "subject.template"


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("not toml", "map"),
        ("", "map"),
        ("a = " + "[" * 5000, "map"),
        ("map = 1", "map"),
        (HEAD + SUBJECT, "columns"),
        (HEAD + SUBJECT + "[columns]", "columns"),
        (HEAD + COLUMNS, "subject"),
        (HEAD + "[subject]\n" + COLUMNS, "subject"),
        (HEAD + '[subject]\ncolumn = "ID"\ntemplate = "{row}"\n' + COLUMNS, "subject"),
        (HEAD + '[subject]\ncolum = "ID"\n' + COLUMNS, "subject.colum"),
        (HEAD + "[subject]\ncolumn = 1\n" + COLUMNS, "subject.column"),
        (HEAD + 'nul = [""]\n' + SUBJECT + COLUMNS, "map.nul"),
        (HEAD + SUBJECT + COLUMNS + '[column."Age"]\n', "column"),
        (HEAD.replace("format = 1", "format = 2") + SUBJECT + COLUMNS, "map.format"),
        (HEAD.replace("format = 1", "format = true") + SUBJECT + COLUMNS, "map.format"),
        (HEAD.replace('name = "test"', 'name = ""') + SUBJECT + COLUMNS, "map.name"),
        (HEAD.replace('source = "urn', 'from = "urn') + SUBJECT + COLUMNS, "map.from"),
        (HEAD.replace("2026-01-31", '"2026-01-31"') + SUBJECT + COLUMNS, "map.as_of"),
        (HEAD.replace("2026-01-31", "2026-01-31T00:00:00") + SUBJECT + COLUMNS, "map.as_of"),
        (HEAD.replace("utf-8", "rot13") + SUBJECT + COLUMNS, "map.encoding"),
        (
            HEAD.replace('delimiter = ","', 'delimiter = ",,"') + SUBJECT + COLUMNS,
            "map.delimiter",
        ),
        (HEAD.replace('delimiter = ","', "delimiter = '\"'") + SUBJECT + COLUMNS, "map.delimiter"),
        (HEAD.replace('["", "NA"]', '""') + SUBJECT + COLUMNS, "map.nulls"),
        (HEAD.replace('["notes"]', "[1]") + SUBJECT + COLUMNS, "map.ignore"),
        (HEAD.replace('["notes"]', '["Age"]') + SUBJECT + COLUMNS, "map.ignore"),
        (HEAD.replace('["notes"]', '["ID"]') + SUBJECT + COLUMNS, "map.ignore"),
        (HEAD + SUBJECT + '[columns."A"]\nattribute = "shoe_size"', 'columns."A".attribute'),
        (HEAD + SUBJECT + '[columns."A"]\natribute = "age"', 'columns."A".atribute'),
        (HEAD + SUBJECT + '[columns."A"]', 'columns."A".attribute'),
        (HEAD + SUBJECT + '[columns]\nA = "age"', "columns.A"),
        (HEAD + SUBJECT + COLUMNS + '[columns."A"]\nattribute = "age"', 'columns."A".attribute'),
        (HEAD + SUBJECT + COLUMNS.replace('"true"', '"wahr"'), 'columns."Late?".values."yes"'),
        (HEAD + SUBJECT + COLUMNS.replace('"true"', "true"), 'columns."Late?".values."yes"'),
        (HEAD + SUBJECT + COLUMNS.replace('"yes"', '"NA"'), 'columns."Late?".values'),
    ],
)
def test_wrong_map_is_refused_by_the_key(text: str, field: str) -> None:
    with pytest.raises(MapError, match="expected") as caught:
        parse_map(text)
    assert caught.value.field == field
    assert caught.value.message.startswith(f"{field}: ")


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(MapError, match="expected TOML in UTF-8"):
        parse_map(HEAD.encode("utf-16"))


# The code table of UCI South German Credit: (column there, its codes as ours). Amount, duration and age are the key.
def _south_german_key(row: dict[str, str]) -> tuple[str, ...]:
    return (row["laufzeit"], row["hoehe"], row["alter"])


def _coded(start: int, *codes: str) -> dict[str, Value]:
    return {str(number): code for number, code in enumerate(codes, start=start)}


SOUTH_GERMAN: Final[dict[str, tuple[str, dict[str, Value]]]] = {
    "checking_account_status": ("laufkont", _coded(1, "no_account", "overdrawn", "below_200", "from_200_or_salary")),
    "credit_history": (
        "moral",
        _coded(0, "delayed", "critical", "none_or_all_paid", "existing_paid", "all_paid_here"),
    ),
    "credit_purpose": (
        "verw",
        _coded(0, "other", "car_new", "car_used", "furniture", "radio_tv", "appliances", "repairs", "education")
        | _coded(8, "vacation", "retraining", "business"),
    ),
    "savings": ("sparkont", _coded(1, "unknown_or_none", "below_100", "below_500", "below_1000", "from_1000")),
    "employment_duration": ("beszeit", _coded(1, "unemployed", "below_1", "below_4", "below_7", "from_7")),
    "installment_rate": ("rate", _coded(1, "from_35", "below_35", "below_25", "below_20")),
    "other_debtors": ("buerge", _coded(1, "none", "co_applicant", "guarantor")),
    "residence_duration": ("wohnzeit", _coded(1, "below_1", "below_4", "below_7", "from_7")),
    "property": ("verm", _coded(1, "unknown_or_none", "car_or_other", "savings_agreement", "real_estate")),
    "other_installment_plans": ("weitkred", _coded(1, "bank", "stores", "none")),
    "housing": ("wohn", _coded(1, "free", "rent", "own")),
    "existing_credits": ("bishkred", _coded(1, "one", "two_or_three", "four_or_five", "six_or_more")),
    "job": ("beruf", _coded(1, "unskilled_non_resident", "unskilled_resident", "skilled", "highly_qualified")),
    "dependants": ("pers", _coded(1, "three_or_more", "up_to_two")),
    "telephone": ("telef", {"1": False, "2": True}),
    "foreign_worker": ("gastarb", {"1": True, "2": False}),
    "creditability": ("kredit", _coded(0, "bad", "good")),
}
