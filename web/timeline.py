"""The picture of who asked when: one lane for each institution, a mark for each access or attempt. Pure.

Numbers only, for a template that writes SVG; what is drawn is also listed as text beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ledger.activity import Activity
from ledger.registry import StoredConsent

DAY_SECONDS: Final = 86_400
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
    """One institution."""

    name: str
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


def timeline(entries: Sequence[Activity], consents: Sequence[StoredConsent], *, now: int, days: int) -> Timeline:
    """The last `days` days. Institutions in the order in which they asked last; at most eight of them."""
    start = now - days * DAY_SECONDS
    shown = [entry for entry in entries if start <= entry.asked_at <= now]
    names = list(dict.fromkeys(entry.institution_name for entry in shown))[:MOST_LANES]
    lanes = tuple(
        Lane(
            name=name,
            y=TOP + place * LANE,
            marks=_marks([entry for entry in shown if entry.institution_name == name], start, now),
            spans=tuple(
                _span(consent, start, now)
                for consent in consents
                if consent.grant.terms.institution_name == name and _end(consent) > start
            ),
        )
        for place, name in enumerate(names)
    )
    return Timeline(
        height=TOP + len(lanes) * LANE + FOOT,
        lanes=lanes,
        ticks=tuple((_x(at, start, now), at) for at in (start, (start + now) // 2, now)),
        reads=sum(entry.outcome == "released" for entry in shown),
        refusals=sum(entry.outcome != "released" for entry in shown),
    )


def _marks(entries: Sequence[Activity], start: int, now: int) -> tuple[Mark, ...]:
    marks: list[Mark] = []
    last = float("inf")
    # From the right, each at least a little to the left of the one after it.
    for entry in sorted(entries, key=lambda one: one.asked_at, reverse=True):
        last = min(_x(entry.asked_at, start, now), last - MOST_ALIKE)
        marks.append(Mark(round(max(EDGE, last), 1), "read" if entry.outcome == "released" else "refused"))
    return tuple(reversed(marks))


def _end(consent: StoredConsent) -> int:
    return min(consent.grant.expires_at, consent.revoked_at or consent.grant.expires_at)


def _span(consent: StoredConsent, start: int, now: int) -> Span:
    left = _x(max(start, consent.grant.valid_from), start, now)
    right = _x(min(now, _end(consent)), start, now)
    return Span(round(left, 1), round(max(2.0, right - left), 1))


def _x(at: int, start: int, now: int) -> float:
    return round(EDGE + (WIDTH - 2 * EDGE) * (at - start) / (now - start), 1)
