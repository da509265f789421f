"""Both languages say everything, and say it with the same blanks to fill in."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from babel.messages.pofile import read_po

ROOT: Final = Path(__file__).parent.parent
PO: Final = ROOT / "web" / "translations" / "zh_Hans_CN" / "LC_MESSAGES" / "messages.po"
BLANK: Final = re.compile(r"%\(\w+\)[sd]|\{\w+\}")


def test_every_text_is_translated_and_what_is_compiled_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "bin" / "translations.py", "--check"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_a_translation_has_the_blanks_of_its_source() -> None:
    with PO.open("rb") as file:
        catalogue = read_po(file, locale="zh_Hans_CN")
    assert len(catalogue) > 700
    for message in catalogue:
        source = message.id if isinstance(message.id, str) else message.id[-1]
        translated = message.string if isinstance(message.string, str) else "".join(message.string or ())
        assert set(BLANK.findall(translated)) == set(BLANK.findall(source)) or not message.id, message.id


def test_in_chinese_a_consent_and_its_revocation_have_one_word_each() -> None:
    """授权 and 撤回. 同意 is the verb, what a person does who says yes; 撤销 is to undo."""
    with PO.open("rb") as file:
        catalogue = read_po(file, locale="zh_Hans_CN")
    wrong = []
    for message in catalogue:
        source = message.id if isinstance(message.id, str) else " ".join(message.id)
        translated = message.string if isinstance(message.string, str) else "".join(message.string or ())
        rest = re.sub("[未不]经您同意", "", translated)
        is_noun = re.search(r"\b(consents?|grant)\b", source, re.IGNORECASE) and not re.search(
            r"\b(accept|yes)\b", source
        )
        if (is_noun and "同意" in rest) or ("撤销" in rest and "undone" not in source):
            wrong.append(translated)
    assert wrong == []
