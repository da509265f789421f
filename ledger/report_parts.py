"""What an audit's report is put together from: tables, facts, figures, times. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from ledger.audit_pictures import Figure
from ledger.json_forms import iso_time
from ledger.markup import Html, tag
from ledger.picture_parts import grouped

SHORT: Final = 12
"""Rows of a table that is kept on one page."""
MOST_TEXT: Final = 1_200
"""Of one text from outside, in characters."""


@dataclass(frozen=True, slots=True)
class Group:
    """Two rows that belong together: a head as wide as the table, and cells."""

    head: Html
    cells: Sequence[Html]


def table(
    caption: str, head: Sequence[str], rows: Iterable[Sequence[Html] | Group], *, numbers: Iterable[int] = ()
) -> Html:
    """A table that scrolls where it is too wide. `numbers`: columns that stand to the right."""
    right, given = set(numbers), list(rows)
    return tag(
        "div",
        tag(
            "table",
            tag("caption", caption),
            tag(
                "thead",
                tag(
                    "tr",
                    *(
                        tag("th", name, scope="col", class_="number" if place in right else None) if name else tag("td")
                        for place, name in enumerate(head)
                    ),
                ),
            ),
            *_bodies(given),
        ),
        class_="scroll short" if len(given) <= SHORT else "scroll",
        tabindex=0,
        role="region",
        aria_label=caption,
    )


def _bodies(rows: Iterable[Sequence[Html] | Group]) -> Iterable[Html]:
    plain: list[Html] = []
    for row in rows:
        if isinstance(row, Group):
            yield tag("tbody", tag("tr", row.head), tag("tr", *row.cells), class_="group")
        else:
            plain.append(tag("tr", *row))
    if plain:
        yield tag("tbody", *plain)


def ids(*named: tuple[str, str | None], columns: int) -> Html:
    """The head of a group: hashes and accounts, each on a line of its own."""
    return tag(
        "th",
        *(
            tag("div", tag("span", f"{name} ", class_="quiet small"), tag("code", value))
            for name, value in named
            if value is not None
        ),
        colspan=columns,
        scope="rowgroup",
    )


def more(count: int, what: str) -> list[Html]:
    """Where a list ends before its end."""
    return [tag("p", f"{grouped(count)} more {what} are not listed here.", class_="quiet")] if count > 0 else []


def time_text(seconds: int) -> str:
    """`2026-11-24 19:33:00 UTC`."""
    return iso_time(seconds).replace("T", " ").replace("Z", " UTC")


def minute_text(seconds: int) -> str:
    """`2026-11-24 19:33`, in UTC: for columns that say so."""
    text = time_text(seconds)
    return text[:16] if text.endswith("UTC") else text


def cut(text: str) -> str:
    """The text, or its beginning and how much more there is."""
    if len(text) <= MOST_TEXT:
        return text
    return f"{text[:MOST_TEXT]}\N{HORIZONTAL ELLIPSIS} ({grouped(len(text) - MOST_TEXT)} more characters)"


def facts(*every: tuple[str, str, bool]) -> Html:
    """Numbers with what each of them counts; the third says whether it is one that must not be."""
    return tag(
        "dl",
        *(
            tag("div", tag("dt", name), tag("dd", number), class_="bad" if is_bad else None)
            for number, name, is_bad in every
        ),
        class_="facts",
    )


def figure_of(figure: Figure) -> list[Html]:
    """A picture with its title and what is to be seen on it."""
    return [
        tag(
            "figure",
            tag("h3", figure.title),
            tag("figcaption", figure.caption),
            figure.picture,
            figure.legend,
            class_="audit-figure",
        )
    ]
