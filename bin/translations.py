#!/usr/bin/env python3
"""The portal's translations: source texts -> web/translations/messages.pot -> each language's .po -> .mo.

Source texts are those of `web/*.py` and the templates, and the labels that `ledger` has in English. With `--check`
nothing is written, and whatever is not up to date, not translated or not compiled fails.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from web.language import CHINESE, TRANSLATIONS, catalogue_labels  # noqa: E402 - after the path is set

METHODS: Final = [("**.py", "python"), ("**/templates/portal/**", "jinja2.ext:babel_extract")]
PICTURES: Final = [("audit_pictures.py", "python")]
KEYWORDS: Final = {"_": None, "gettext": None, "ngettext": (1, 2)}
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
PO: Final = TRANSLATIONS / CHINESE / "LC_MESSAGES" / "messages.po"


def messages() -> Iterator[tuple[str | tuple[str, ...], str]]:
    """Every source text with the file that it stands in."""
    found = extract_from_dir(ROOT / "web", METHODS, keywords=KEYWORDS, options_map={})
    for filename, _, message, *_ in found:
        yield message, f"web/{filename}"
    # Pictures are drawn in `ledger`, and are told how to say what is on them.
    for filename, _, message, *_ in extract_from_dir(ROOT / "ledger", PICTURES, keywords={"say": None}, options_map={}):
        yield message, f"ledger/{filename}"
    for label in catalogue_labels():
        yield label, "ledger"


def template() -> Catalog:
    """The source texts, in a stable order, without line numbers: those change with every edit."""
    places: dict[str | tuple[str, ...], set[str]] = {}
    for message, place in messages():
        places.setdefault(message, set()).add(place)
    made = Catalog(project="Consent Ledger", charset="utf-8", fuzzy=False)
    for message in sorted(places, key=lambda one: (sorted(places[one]), str(one))):
        flags = ["python-format"] if "%(" in str(message) else []
        made.add(message, locations=[(place, 0) for place in sorted(places[message])], flags=flags)
    return made


def updated() -> Catalog:
    """The Chinese catalogue with exactly today's source texts. New ones are empty."""
    old = read_po(io.BytesIO(PO.read_bytes()), locale=CHINESE) if PO.exists() else Catalog(locale=CHINESE)
    made = Catalog(locale=CHINESE, project="Consent Ledger", charset="utf-8", fuzzy=False)
    for message in template():
        if message.id:
            known = old.get(message.id)
            text = known.string if known and not known.fuzzy else ""
            made.add(message.id, text, locations=message.locations, flags=message.flags)
    return made


def written(catalogue: Catalog) -> tuple[bytes, bytes]:
    """As .po, without a date, and as .mo."""
    po, mo = io.BytesIO(), io.BytesIO()
    write_po(po, catalogue, omit_header=True, sort_output=False, include_lineno=False, width=120)
    header = b'msgid ""\nmsgstr ""\n"Content-Type: text/plain; charset=utf-8\\n"\n"Language: zh_Hans_CN\\n"\n'
    header += b'"Plural-Forms: nplurals=1; plural=0;\\n"\n\n'
    complete = Catalog(locale=CHINESE, charset="utf-8", fuzzy=False, creation_date=EPOCH, revision_date=EPOCH)
    for message in catalogue:
        if message.id:
            complete.add(message.id, message.string)
    write_mo(mo, complete)
    return header + po.getvalue(), mo.getvalue()


def missing(catalogue: Catalog) -> list[str]:
    """Source texts without a translation."""
    return [
        str(one.id)
        for one in catalogue
        if one.id and not (one.string if isinstance(one.string, str) else all(one.string))
    ]


def main() -> int:
    """Update, or check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    catalogue = updated()
    po, mo = written(catalogue)
    lacking = missing(catalogue)
    for text in lacking:
        print(f"not translated: {text}")
    if check:
        stale = [
            path.name
            for path, new in ((PO, po), (PO.with_suffix(".mo"), mo))
            if not path.exists() or path.read_bytes() != new
        ]
        for name in stale:
            print(f"not up to date: {name} (run bin/translations.py)")
        return 1 if stale or lacking else 0
    PO.parent.mkdir(parents=True, exist_ok=True)
    PO.write_bytes(po)
    PO.with_suffix(".mo").write_bytes(mo)
    return 0


if __name__ == "__main__":
    sys.exit(main())
