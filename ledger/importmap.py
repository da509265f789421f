"""Import maps: which column of a furnisher's file is which attribute. Pure.

This module is handed the text of a map (TOML) and, row by row, the cells of a file; opening files and the database is
the importer's business.

Format 1 of a map (an unknown key is an error, so that a typing mistake cannot drop data):

    [map]
    format = 1
    name = "german"                  # of this map
    version = "1"
    source = "urn:consent-ledger:furnisher:..."
    as_of = 1975-12-31               # day that the data describe
    encoding = "utf-8"               # one of ENCODINGS
    delimiter = ","
    nulls = [""]                     # optional: cells that mean "no value"; the attribute is then absent
    ignore = ["notes"]               # optional: columns that are left out on purpose

    [subject]                        # who a row is about: either
    column = "ID"                    #   a column, or
    template = "german-{row:04d}"    #   a text around the number of the data row, counted from 1

    [columns."age_in_years"]         # one table for each column
    attribute = "age"                # cells are read as the attribute's own form, see `Attribute.parse`

    [columns."telephone"]
    attribute = "telephone"
    [columns."telephone".values]     # text in the file = text that the attribute parses. For integers these are extra
    "none" = "false"                 # spellings beside numbers; for the other types they are all that is accepted

A row with a bad cell is rejected as a whole, and all its bad cells are reported. Reports name line, column and what was
expected, never what was found.

    reader = parse_map(text).reader(header)      # MapError if the header does not fit
    for row_number, cells in enumerate(csv_rows, start=1):
        match reader.row(csv_rows.line_num, row_number, cells):
            case ImportedRow(subject=subject, values=values): ...
            case RejectedRow(cells=bad_cells): ...
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Final, TypeVar

from ledger.attributes import ATTRIBUTES, Attribute, Value, ValueType
from ledger.errors import MapError, ValueNotInCatalogueError

FORMAT: Final = 1
ENCODINGS: Final = ("utf-8", "utf-8-sig", "ascii", "iso-8859-1", "windows-1252")
MAX_SUBJECT_LENGTH: Final = 200
FIRST_DAY: Final = date(1900, 1, 1)
"""Nothing that is held is as of an earlier day."""
_NUMBER_FORMATS: Final = ("", *(f":0{width}d" for width in range(1, 21)))
_HEAD_TEXTS: Final = ("name", "version", "source", "encoding", "delimiter")
_EXPECTED: Final[Mapping[type, str]] = {str: "a text that is not empty", dict: "a table", date: "a date (YYYY-MM-DD)"}

Table = Mapping[str, object]
_Kind = TypeVar("_Kind")


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column: its name in the file, its attribute, and the value of each text that the map lists."""

    name: str
    attribute: Attribute
    values: Mapping[str, Value] = field(hash=False)

    @property
    def closed(self) -> bool:
        """Whether the listed texts are all that the column may hold."""
        return bool(self.values) and self.attribute.type is not ValueType.INTEGER

    @property
    def expected(self) -> str:
        """What a cell must look like, for people."""
        return f"one of {', '.join(map(repr, self.values))}" if self.closed else self.attribute.expected()


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Who a row is about: the cell in `column`, or, where that is `None`, `prefix`, the row's number and `suffix`."""

    column: str | None = None
    prefix: str = ""
    number_format: str = ""
    suffix: str = ""

    def of_row(self, row_number: int) -> str:
        """The reference that the template makes of a row's number."""
        return f"{self.prefix}{row_number:{self.number_format}}{self.suffix}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BadCell:
    """Why a row cannot be imported. `line` is the line in the file; `column` is `None` where the whole row is bad."""

    line: int
    column: str | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedRow:
    """What a row says: about whom, and the value of each attribute that the row has, in the order of the map."""

    line: int
    subject: str
    values: Mapping[str, Value] = field(hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedRow:
    """A row with at least one bad cell; all of them are listed."""

    line: int
    cells: tuple[BadCell, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportMap:
    """A map as `parse_map` checked it. `source` is the furnisher's id, `as_of` the day that the data describe."""

    name: str
    version: str
    source: str
    as_of: date
    encoding: str
    delimiter: str
    nulls: tuple[str, ...]
    ignored: tuple[str, ...]
    subject: Subject
    columns: tuple[Column, ...]

    @property
    def used(self) -> tuple[str, ...]:
        """The columns that a file must have."""
        subject = () if self.subject.column is None else (self.subject.column,)
        return (*subject, *(column.name for column in self.columns))

    def check_header(self, header: Sequence[str]) -> None:
        """Refuse a file whose columns are not those of the map, in whatever order.

        Raises `MapError` that names the missing and the repeated columns, or counts off the positions of those that the
        map neither uses nor ignores: what stands there is not repeated, it may be a person's row in a headless file.
        """
        if missing := [name for name in self.used if name not in header]:
            raise MapError(
                f"header: expected columns that are missing: {', '.join(map(repr, missing))}", field="header"
            )
        if repeated := [name for name in self.used if header.count(name) > 1]:
            raise MapError(f"header: expected once: {', '.join(map(repr, repeated))}", field="header")
        known = {*self.used, *self.ignored}
        if extra := [str(position) for position, name in enumerate(header, start=1) if name not in known]:
            raise MapError(
                f"header: not in the map: column {', '.join(extra)}; map them or add them to map.ignore", field="header"
            )

    def reader(self, header: Sequence[str]) -> RowReader:
        """A reader for the rows under `header`.

        Raises `MapError` as `check_header` does.
        """
        self.check_header(header)
        return RowReader(self, header)


class RowReader:
    """Reads rows of one file. Everything that does not depend on the row is worked out once, here."""

    __slots__ = ("_nulls", "_plan", "_subject", "_subject_index", "_width")

    def __init__(self, import_map: ImportMap, header: Sequence[str]) -> None:
        self._width = len(header)
        self._subject = import_map.subject
        column = import_map.subject.column
        self._subject_index = None if column is None else header.index(column)
        self._nulls = import_map.nulls
        absent: dict[str, Value | None] = dict.fromkeys(import_map.nulls)
        self._plan = [
            (header.index(entry.name), entry.attribute.name, absent | dict(entry.values), entry)
            for entry in import_map.columns
        ]

    def row(self, line: int, row_number: int, cells: Sequence[str]) -> ImportedRow | RejectedRow:
        """Read one row. `line` is its line in the file, `row_number` its number among the data rows, from 1."""
        if len(cells) != self._width:
            reason = f"expected {self._width} cells, got {len(cells)}"
            return RejectedRow(line=line, cells=(BadCell(line=line, column=None, reason=reason),))
        values: dict[str, Value] = {}
        bad: list[BadCell] = []
        subject = self._read_subject(line, row_number, cells, bad)
        for index, name, listed, column in self._plan:
            text = cells[index]
            value = listed[text] if text in listed else _read(line, column, text, bad)
            if value is not None:
                values[name] = value
        if bad:
            return RejectedRow(line=line, cells=tuple(bad))
        return ImportedRow(line=line, subject=subject, values=values)

    def _read_subject(self, line: int, row_number: int, cells: Sequence[str], bad: list[BadCell]) -> str:
        if self._subject_index is None:
            return self._subject.of_row(row_number)
        text = cells[self._subject_index]
        printable = text.isprintable() and text == text.strip() and 1 <= len(text) <= MAX_SUBJECT_LENGTH
        if not printable or text in self._nulls:
            reason = f"expected a reference of 1 to {MAX_SUBJECT_LENGTH} printable characters, no blanks around it"
            bad.append(BadCell(line=line, column=self._subject.column, reason=reason))
        return text


def _read(line: int, column: Column, text: str, bad: list[BadCell]) -> Value | None:
    if not column.closed:
        try:
            return column.attribute.parse(text)
        except ValueNotInCatalogueError:
            pass
    bad.append(BadCell(line=line, column=column.name, reason=f"expected {column.expected}"))
    return None


# ------------------------------------------------------------------------------------------------------ reading a map


def parse_map(text: str | bytes) -> ImportMap:
    """Read a map in format 1 (see the head of this module); bytes are UTF-8.

    Raises `MapError` that names the key and what was expected.
    """
    document = _toml(text)
    _only(document, "", ("map", "subject", "columns"))
    head = _get(document, "map", "", dict)
    _only(head, "map.", (*_HEAD_TEXTS, "format", "as_of", "nulls", "ignore"))
    if head.get("format") != FORMAT or isinstance(head.get("format"), bool):
        raise _error("map.format", f"{FORMAT}")
    texts = {key: _get(head, key, "map.", str) for key in _HEAD_TEXTS}
    if texts["encoding"] not in ENCODINGS:
        raise _error("map.encoding", f"one of {', '.join(ENCODINGS)}")
    if len(texts["delimiter"]) != 1 or texts["delimiter"] in '"\r\n':
        raise _error("map.delimiter", "one character, not a quote or the end of a line")
    as_of = _get(head, "as_of", "map.", date)
    if isinstance(as_of, datetime):
        raise _error("map.as_of", _EXPECTED[date])
    return _consistent(
        ImportMap(
            **texts,
            as_of=as_of,
            nulls=_texts(head, "nulls"),
            ignored=_texts(head, "ignore"),
            subject=_subject(_get(document, "subject", "", dict)),
            columns=_columns(_get(document, "columns", "", dict)),
        )
    )


def _error(key: str, expected: str) -> MapError:
    return MapError(f"{key}: expected {expected}", field=key)


def _toml(text: str | bytes) -> Table:
    try:
        return tomllib.loads(text.decode("utf-8") if isinstance(text, bytes) else text)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise MapError(f"map: expected TOML in UTF-8: {exc}", field="map") from exc


def _only(table: Table, where: str, keys: Sequence[str]) -> None:
    if unknown := sorted(table.keys() - set(keys)):
        raise _error(f"{where}{unknown[0]}", f"no such key, but {', '.join(keys)}")


def _get(table: Table, key: str, where: str, kind: type[_Kind]) -> _Kind:
    value = table.get(key)
    if not isinstance(value, kind) or value == "":
        raise _error(f"{where}{key}", _EXPECTED[kind])
    return value


def _texts(table: Table, key: str) -> tuple[str, ...]:
    values = table.get(key, [])
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise _error(f"map.{key}", "a list of texts")
    return tuple(values)


def _subject(table: Table) -> Subject:
    _only(table, "subject.", ("column", "template"))
    if len(table) != 1:
        raise _error("subject", "either a column or a template")
    if "column" in table:
        return Subject(column=_get(table, "column", "subject.", str))
    return _template(_get(table, "template", "subject.", str))


def _template(template: str) -> Subject:
    prefix, opening, rest = template.partition("{row")
    number_format, closing, suffix = rest.partition("}")
    # Taken apart by hand and not by str.format, whose fields reach into objects ("{row.__class__}").
    braces = set("{}") & set(prefix + suffix)
    if not (opening and closing) or braces or number_format not in _NUMBER_FORMATS:
        raise _error("subject.template", "a text with one {row}, or {row:04d} to pad it with zeros")
    return Subject(prefix=prefix, number_format=number_format[1:], suffix=suffix)


def _columns(tables: Table) -> tuple[Column, ...]:
    if not tables:
        raise _error("columns", "at least one")
    columns: list[Column] = []
    for name in tables:
        where = f'columns."{name}".'
        table = _get(tables, name, "columns.", dict)
        _only(table, where, ("attribute", "values"))
        attribute = ATTRIBUTES.get(_get(table, "attribute", where, str))
        if attribute is None:
            raise _error(f"{where}attribute", "an attribute of the catalogue")
        if attribute in (column.attribute for column in columns):
            raise _error(f"{where}attribute", f"each attribute once, and {attribute.name} has a column already")
        listed = _get(table, "values", where, dict) if "values" in table else {}
        values = {text: _value(attribute, f'{where}values."{text}"', written) for text, written in listed.items()}
        columns.append(Column(name=name, attribute=attribute, values=values))
    return tuple(columns)


def _value(attribute: Attribute, where: str, written: object) -> Value:
    try:
        return attribute.parse(written if isinstance(written, str) else "")
    except ValueNotInCatalogueError:
        raise _error(where, f"in quotes, {attribute.expected()}") from None


def _consistent(import_map: ImportMap) -> ImportMap:
    if both := [name for name in import_map.ignored if name in import_map.used]:
        raise _error("map.ignore", f"no column that the map uses, such as {both[0]!r}")
    for column in import_map.columns:
        if column.values.keys() & set(import_map.nulls):
            raise _error(f'columns."{column.name}".values', "no text that is in map.nulls")
    return import_map
