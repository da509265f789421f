"""HTML and SVG that is escaped by itself: text is text, and only what was made here is markup. Pure.

Whatever a terminal or a page would obey and not show (control characters, marks that turn the direction of writing) is
written out: a name from outside can neither leave its place nor pretend to be another.
"""

from __future__ import annotations

import html
from collections.abc import Iterable

VOID = frozenset({"meta", "br", "hr", "wbr"})


class Html(str):
    """Markup. Made by `tag` and `together` alone."""

    __slots__ = ()


def tag(name: str, /, *content: str | None, **attributes: str | float | None) -> Html:
    """An element. In names of attributes `_` is `-`, and nothing at the end; None leaves an attribute out."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_escaped(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in VOID:
        return Html(f"<{name}{given}>")
    return Html(f"<{name}{given}>{together(content)}</{name}>")


def together(parts: Iterable[str | None]) -> Html:
    """One after the other; what is no markup is escaped."""
    return Html("".join(part if isinstance(part, Html) else _escaped(part) for part in parts if part is not None))


def raw(text: str) -> Html:
    """Markup, or a style sheet, that is written out in the program. Never anything from outside."""
    return Html(text)


def visible(text: str, *, kept: str = "\n") -> str:
    """The text with everything written out that would be obeyed and not shown, but for what is `kept`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in kept else c.encode("unicode_escape").decode() for c in text)


def _escaped(text: str) -> str:
    return html.escape(visible(text))
