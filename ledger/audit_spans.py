"""The days of a report put together to spans that a picture can show: days, weeks, months, years. Pure.

Spans without anything in them are there too, so that a pause in a log is seen as one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from types import MappingProxyType
from typing import Final

from ledger.audit_report import DayCounts
from ledger.json_forms import DAY_SECONDS, EPOCH_ORDINAL, LATEST, iso_date

DAY: Final = "day"
WEEK: Final = "week"
MONTH: Final = "month"
YEAR: Final = "year"
OTHER: Final = "span"
MOST: Final[Mapping[str, int]] = MappingProxyType({DAY: 62, WEEK: 80, MONTH: 132, YEAR: 100})
"""How many of each a picture has room for."""
LEAST: Final = 10
"""Fewer columns than this look like blocks: days without anything are put before the first."""
_MONTHS: Final = 12
_MONDAY: Final = 3
"""The first of January 1970 was a Thursday."""
_COUNTS: Final = ("granted", "revoked", "recorded", "refused", "late", "compelled")


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """From one day to another, both in it, with what was counted in between. `size`: all entries up to its end."""

    label: str
    granted: int
    revoked: int
    recorded: int
    refused: int
    late: int
    compelled: int
    size: int

    @property
    def entries(self) -> int:
        """Entries of every kind."""
        return self.recorded + self.refused + self.late + self.compelled


@dataclass(frozen=True, slots=True, kw_only=True)
class Spans:
    """All of them in order, and what each is: a `DAY`, `WEEK`, `MONTH`, `YEAR` or some `OTHER` span."""

    unit: str
    spans: tuple[Span, ...]


def spans_of(days: Sequence[DayCounts], until: int | None = None) -> Spans:
    """From the first day that something happened to `until` (days since 1970-01-01), or to the last one."""
    if not days:
        return Spans(unit=DAY, spans=())
    first, last = min(one.day for one in days), max(one.day for one in days)
    last = max(last, last if until is None else until)
    first = min(first, max(0, last - LEAST + 1))
    unit, number, label = _unit(first, last)
    sums: dict[int, list[int]] = {}
    for day in days:
        counted = sums.setdefault(number(day.day), [0] * len(_COUNTS))
        for place, name in enumerate(_COUNTS):
            counted[place] += getattr(day, name)
    made: list[Span] = []
    size = 0
    for each in range(number(first), number(last) + 1):
        granted, revoked, *entries = sums.get(each, [0] * len(_COUNTS))
        size += sum(entries)
        recorded, refused, late, compelled = entries
        made.append(
            Span(
                label=label(each),
                granted=granted,
                revoked=revoked,
                recorded=recorded,
                refused=refused,
                late=late,
                compelled=compelled,
                size=size,
            )
        )
    return Spans(unit=unit, spans=tuple(made))


def _unit(first: int, last: int) -> tuple[str, Callable[[int], int], Callable[[int], str]]:
    """The smallest unit that fits, its number of a day, and its name."""
    if first >= 0 and last <= LATEST // DAY_SECONDS:
        for unit, number, label in _UNITS:
            if number(last) - number(first) < MOST[unit]:
                return unit, number, label
    length = (last - first) // MOST[DAY] + 1
    return OTHER, lambda day: day // length, lambda each: iso_date(each * length)


def _date(day: int) -> date:
    return date.fromordinal(EPOCH_ORDINAL + day)


def _month(day: int) -> int:
    at = _date(day)
    return at.year * _MONTHS + at.month - 1


_UNITS: Final[tuple[tuple[str, Callable[[int], int], Callable[[int], str]], ...]] = (
    (DAY, lambda day: day, iso_date),
    (WEEK, lambda day: (day + _MONDAY) // 7, lambda each: iso_date(each * 7 - _MONDAY)),
    (MONTH, _month, lambda each: f"{each // _MONTHS}-{each % _MONTHS + 1:02d}"),
    (YEAR, lambda day: _date(day).year, str),
)
