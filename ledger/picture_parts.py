"""What pictures of numbers over time are made of: columns, grids, marks, legends in SVG. Pure.

No style is in them. Color alone says nothing: what is refused is hatched, what is late or compelled has a mark of its
own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ledger.audit_spans import Span
from ledger.markup import Html, tag, together

WIDTH: Final = 720
LEFT: Final = 84
RIGHT: Final = 14
TOP: Final = 16
PLOT: Final = 200
LANE: Final = 24
FOOT: Final = 34
WIDEST: Final = 34.0
FILLED: Final = 0.74
SEEN: Final = 2.0
"""Height of a column of which there would be less to see."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """Where a number and a place in a row of columns are on the picture."""

    count: int
    top: int
    bottom: int = 0

    @property
    def slot(self) -> float:
        """Room of one column, its distance to the next included."""
        return (WIDTH - LEFT - RIGHT) / max(1, self.count)

    @property
    def width(self) -> float:
        """Of a column."""
        return min(self.slot * FILLED, WIDEST)

    def x(self, place: float) -> float:
        """The middle of a column."""
        return LEFT + self.slot * (place + 0.5)

    def y(self, value: float) -> float:
        """How high a number stands."""
        return TOP + PLOT * (self.top - value) / (self.top + self.bottom)

    def column(self, kind: str, place: int, low: int, high: int) -> Html | None:
        """A rectangle from one number to another; seen even where it is next to nothing."""
        if low == high:
            return None
        height = max(abs(self.y(low) - self.y(high)), SEEN)
        top = self.y(low) - height if high > low else self.y(low)
        left = self.x(place) - self.width / 2
        return tag("rect", class_=kind, x=n(left), y=n(top), width=n(self.width), height=n(height))


def bar(share: float, kind: str = "recorded") -> Html:
    """A bar in a cell of a table, from 0 to 1. The number stands in the cell beside it."""
    return _cell(tag("rect", class_=kind, width=n(max(share * 100, 1.0 if share else 0)), height=10))


def lasting(start: float, end: float, now: float) -> Html:
    """From when to when, in a cell of a table: places from 0 to 1, with a line where the audited block stands."""
    width = max((end - start) * 100, 1.5)
    return _cell(
        tag("rect", class_="compelled", x=n(min(start * 100, 98.5)), width=n(width), height=10),
        tag("rect", class_="now", x=n(min(now * 100, 99.2)), width=0.8, height=10),
    )


def _cell(*shapes: Html) -> Html:
    return tag(
        "svg",
        tag("rect", class_="track", width=100, height=10),
        *shapes,
        class_="bar",
        viewBox="0 0 100 10",
        preserveAspectRatio="none",
        aria_hidden="true",
    )


def mark(kind: str, x: float, y: float) -> Html:
    """What stands for a late entry (a diamond) or a compelled one (a square with a hole)."""
    if kind == "late":
        return tag("path", class_="mark-late", d=f"M{n(x)} {n(y - 7)}l7 7l-7 7l-7-7z")
    return tag("path", class_="mark-compelled", d=f"M{n(x - 6)} {n(y - 6)}h12v12h-12z")


def legend(*entries: tuple[str, str]) -> Html:
    """What the kinds look like."""
    return tag(
        "ul",
        *(
            tag(
                "li",
                tag(
                    "svg",
                    mark(kind, 10, 10)
                    if kind in ("late", "compelled")
                    else tag("rect", class_=kind, x=2, y=3, width=16, height=14),
                    class_="picture",
                    viewBox="0 0 20 20",
                    aria_hidden="true",
                ),
                tag("span", name),
            )
            for kind, name in entries
        ),
        class_="legend",
    )


def patterns() -> Html:
    """What `refused` and `revoked` are filled with: once in every document, before the pictures."""
    return tag(
        "svg",
        tag(
            "defs",
            *(
                tag(
                    "pattern",
                    tag("rect", class_=f"{name}-ground", width=6, height=6),
                    tag("rect", class_=f"{name}-line", width=2.4, height=6),
                    id=f"hatch-{name}",
                    width=6,
                    height=6,
                    patternUnits="userSpaceOnUse",
                    patternTransform="rotate(45)",
                )
                for name in ("refused", "revoked")
            ),
        ),
        class_="patterns",
        width=0,
        height=0,
        aria_hidden="true",
    )


def grouped(number: int) -> str:
    """`1,234,567`."""
    return f"{number:,}"


def short(number: int) -> str:
    """`950`, `12k`, `3.4M`: for an axis."""
    for limit, letter in ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**4, "k")):
        if abs(number) >= limit:
            unit = limit // 10 if letter == "k" else limit
            return f"{number / unit:.3g}{letter}"
    return grouped(number)


def svg(key: str, title: str, description: str, height: float, *parts: Html | None) -> Html:
    """A picture with its name and what is to be seen on it, for those who see nothing."""
    return tag(
        "svg",
        tag("title", title, id=f"{key}-title"),
        tag("desc", description, id=f"{key}-text"),
        *parts,
        class_="picture",
        viewBox=f"0 0 {WIDTH} {n(height)}",
        role="img",
        aria_labelledby=f"{key}-title",
        aria_describedby=f"{key}-text",
    )


def grid(plot: Plot) -> Html:
    """Lines at round numbers."""
    step = _step(plot.top + plot.bottom)
    levels = [*range(0, plot.top + 1, step), *(range(-step, -plot.bottom - 1, -step) if plot.bottom else ())]
    return tag(
        "g",
        *(
            together(
                (
                    tag("line", class_="axis" if level == 0 else "grid", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y),
                    tag("text", short(abs(level)), x=LEFT - 8, y=n(plot.y(level) + 4), text_anchor="end"),
                )
            )
            for level in levels
            for y in [n(plot.y(level))]
        ),
    )


def axis(plot: Plot) -> Html:
    """The line at nought, over the columns."""
    return tag("line", class_="axis", x1=LEFT, x2=WIDTH - RIGHT, y1=n(plot.y(0)), y2=n(plot.y(0)))


def dates(plot: Plot, spans: Sequence[Span], top: int) -> Html:
    """The first, the middle and the last span, below the plot."""
    last = len(spans) - 1
    places = [(0, "start"), (last // 2, "middle"), (last, "end")]
    edge = plot.width / 2
    return tag(
        "g",
        *(
            tag(
                "text",
                spans[place].label,
                x=n(plot.x(place) + {"start": -edge, "middle": 0, "end": edge}[anchor]),
                y=top + 24,
                text_anchor=anchor,
            )
            for place, anchor in places
        ),
    )


def reach(spans: Sequence[Span]) -> str:
    """From when to when."""
    return f"{spans[0].label} \N{EN DASH} {spans[-1].label}."


def ceiling(most: int, rows: int = 1) -> int:
    """The least number not under `most` that the lines of a grid divide, which goes `rows` times so far."""
    step = _step(max(1, most) * rows)
    return -(-max(1, most) // step) * step


def _step(most: int) -> int:
    """From line to line: 1, 2 or 5 with noughts, so that there are at most five of them."""
    power = 1
    while True:
        for digit in (1, 2, 5):
            if most <= 5 * digit * power:
                return digit * power
        power *= 10


def n(value: float) -> str:
    """A number as it stands in SVG."""
    return f"{value:.1f}".removesuffix(".0")
