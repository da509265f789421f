"""Texts that people write: nothing unseen in them, and markup is text."""

from __future__ import annotations

import pytest

from ledger.errors import MalformedError
from ledger.texts import is_readable, require_readable


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("The amount is wrong.", "The amount is wrong."),
        ("  two\r\nlines\rand a third \n", "two\nlines\nand a third"),
        ("<script>alert('x')</script>", "<script>alert('x')</script>"),
        ("金额不对。", "金额不对。"),
        ("x" * 100, "x" * 100),
    ],
)
def test_what_can_be_read_is_kept_with_plain_line_ends(given: str, kept: str) -> None:
    assert require_readable("statement", given, least=3, most=100) == kept


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ab",
        "   a  ",
        "x" * 101,
        "a\x00bc",
        "a\x1b[2Jbc",
        "abc\u202edef",
        "abc\u2028def",
        "abc\ud800",
        "a\tbc",
        7,
        None,
    ],
)
def test_what_cannot_be_read_is_refused_by_the_name_of_its_field(text: str) -> None:
    with pytest.raises(MalformedError) as caught:
        require_readable("statement", text, least=3, most=100)
    assert caught.value.field == "statement"


def test_a_text_of_one_line_has_no_line_ends() -> None:
    assert not is_readable("two\nlines", least=3, most=100)
    assert is_readable("two\nlines", least=3, most=100, lines=True)
