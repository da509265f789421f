"""Texts that people write: what may be in them. Pure.

They are shown to other people, so nothing may be in them that a reader does not see or that turns what stands around
it. Markup is text like any other: who shows it escapes it.
"""

from __future__ import annotations

import unicodedata
from typing import Final

from ledger.consent import is_text
from ledger.errors import MalformedError

_CONTROLS: Final = ("Cc", "Cs", "Zl", "Zp")
# They turn the text around them, so that a person reads another one than was signed.
_TURNING: Final = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_LINE_ENDS: Final = ("\r\n", "\r")


def is_readable(text: object, *, least: int, most: int, lines: bool = False) -> bool:
    """Whether it is text of that many characters without any that are not seen; with `lines`, line feeds may be in it.

    Blanks around it do not count towards `least`.
    """
    if not is_text(text) or len(text) > most or len(text.strip()) < least:
        return False
    seen = text.replace("\n", "") if lines else text
    return not any(c in _TURNING or unicodedata.category(c) in _CONTROLS for c in seen)


def require_readable(field: str, text: str, *, least: int, most: int) -> str:
    """A text of several lines as it is kept: its lines end in a line feed, and there are no blanks around it.

    Raises `MalformedError`.
    """
    if is_text(text):
        for end in _LINE_ENDS:
            text = text.replace(end, "\n")
        text = text.strip()
    if not is_readable(text, least=least, most=most, lines=True):
        raise MalformedError(
            f"{field}: expected {least} to {most} characters, no control characters but line feeds", field=field
        )
    return text
