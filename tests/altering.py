"""Every way to alter a JSON document a little: what is meant to show must show for each of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def alterations(value: Any) -> Iterator[tuple[str, Any]]:
    """Every way to alter, drop or add one part of it, with where."""
    if isinstance(value, dict):
        yield "+", value | {"more": 1}
        for name, part in value.items():
            yield f"-{name}", {key: other for key, other in value.items() if key != name}
            yield from ((f"{name}.{path}", value | {name: altered}) for path, altered in alterations(part))
    elif isinstance(value, list):
        for place, part in enumerate(value):
            yield f"-[{place}]", value[:place] + value[place + 1 :]
            for path, altered in alterations(part):
                yield f"[{place}].{path}", [*value[:place], altered, *value[place + 1 :]]
    elif isinstance(value, str):
        middle = len(value) // 2
        other = "0" if value[middle] != "0" else "1"
        yield "text", value[:middle] + other + value[middle + 1 :]
        yield "cut", value[:-2]
        if value.startswith("0x") and value[2:].upper() != value[2:]:
            yield "upper", f"0x{value[2:].upper()}"
        yield "null", None
    elif value is None:
        yield "text", "more"
        yield "list", ["0x" + "ab" * 32]
    else:
        yield "number", value + 1
        yield "null", None


ODD: tuple[Any, ...] = (float("inf"), float("nan"), 10**400, -1, True, [], [[]], {}, "", "\ud800", None)
"""What a value may be in a document that somebody made by hand, and that JSON can say."""


def oddities(value: Any) -> Iterator[tuple[str, Any]]:
    """Every way to put something odd in the place of one part of a JSON document, with where."""
    for odd in ODD:
        yield repr(odd), odd
    parts: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in parts:
        for path, altered in oddities(part):
            other = value.copy()
            other[name] = altered
            yield f"{name}.{path}", other
