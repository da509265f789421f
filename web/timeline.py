"""The picture of who asked when: one lane for each institution, a mark for each access or attempt. Pure.

Numbers only, for a template that writes SVG; what is drawn is also listed as text beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ledger.activity import READ, TURNED_AWAY, Activity, Reader
from ledger.json_forms import DAY_SECONDS
from ledger.registry import StoredConsent

WIDTH: Final = 400
EDGE: Final = 10
TOP: Final = 4
LANE: Final = 50
FOOT: Final = 28
MOST_LANES: Final = 8
MOST_ALIKE: Final = 5.0
"""Marks nearer than this (in units of the picture) are moved apart, so that none hides another."""


@dataclass(frozen=True, slots=True)
class Mark:
    """One access or attempt; `kind` is `read` or `refused`."""

    x: float
    kind: str


@dataclass(frozen=True, slots=True)
class Span:
    """From where to where a consent was in force."""

    x: float
    width: float


@dataclass(frozen=True, slots=True)
class Lane:
    """One institution, with its numbers: there may be more than the marks that found room."""

    name: str
    reads: int
    refusals: int
    y: int
    marks: tuple[Mark, ...]
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Timeline:
    """The whole picture. `ticks` are places and times (Unix seconds)."""

    height: int
    lanes: tuple[Lane, ...]
    ticks: tuple[tuple[float, int], ...]
    reads: int
    refusals: int


def timeline(
    readers: Sequence[Reader],
    entries: Sequence[Activity],
    consents: Sequence[StoredConsent],
    *,
    now: int,
    days: int,
) -> Timeline:
    """The last `days` days. `readers` are all who asked in them, with their numbers; the first eight are drawn.

    `entries` may be some of the accesses and attempts only: every number comes from `readers`.
    """
    start = now - days * DAY_SECONDS
    shown = [entry for entry in entries if start <= entry.asked_at <= now]
    lanes = tuple(
        Lane(
            name=reader.institution_name,
            reads=reader.reads,
            refusals=reader.refusals,
            y=TOP + place * LANE,
            marks=_marks([entry for entry in shown if entry.institution == reader.institution], start, now),
            spans=tuple(
                _span(consent, start, now)
                for consent in consents
                if consent.grant.terms.institution == reader.institution and _end(consent) > start
            ),
        )
        for place, reader in enumerate(readers[:MOST_LANES])
    )
    return Timeline(
        height=TOP + len(lanes) * LANE + FOOT,
        lanes=lanes,
        ticks=tuple((_x(at, start, now), at) for at in (start, (start + now) // 2, now)),
        reads=sum(reader.reads for reader in readers),
        refusals=sum(reader.refusals for reader in readers),
    )


def _marks(entries: Sequence[Activity], start: int, now: int) -> tuple[Mark, ...]:
    """Reads take their places first. What finds none to the left of its own is not drawn."""
    marks: list[Mark] = []
    newest = sorted(entries, key=lambda one: one.asked_at, reverse=True)
    for kind, outcomes in (("read", READ), ("refused", TURNED_AWAY)):
        for entry in newest:
            if entry.outcome in outcomes:
                place = _free(_x(entry.asked_at, start, now), marks)
                if place < EDGE:
                    break
                marks.append(Mark(place, kind))
    return tuple(sorted(marks, key=lambda mark: mark.x))


def _free(place: float, marks: Sequence[Mark]) -> float:
    """The nearest place at or to the left of this one where no other mark is."""
    while near := [mark.x for mark in marks if round(abs(mark.x - place), 1) < MOST_ALIKE]:
        place = round(min(near) - MOST_ALIKE, 1)
    return place


def _end(consent: StoredConsent) -> int:
    return min(consent.grant.expires_at, consent.revoked_at or consent.grant.expires_at)


def _span(consent: StoredConsent, start: int, now: int) -> Span:
    left = _x(max(start, consent.grant.valid_from), start, now)
    right = _x(min(now, _end(consent)), start, now)
    return Span(round(left, 1), round(max(2.0, right - left), 1))


def _x(at: int, start: int, now: int) -> float:
    return round(EDGE + (WIDTH - 2 * EDGE) * (at - start) / (now - start), 1)
