"""The portal's two languages: which one a request gets, and how labels, dates and numbers read in it.

The language is the one that `?lang=` asks for, which is then remembered in a cookie; else the cookie's; else what the
browser prefers. English is the source; `translations/` has everything in Simplified Chinese, the labels of attributes
and purposes included, which are written in English in `ledger`.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from datetime import UTC, date, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

from babel.dates import format_date, format_datetime
from babel.lists import format_list
from flask import Flask, Response, request
from flask_babel import Babel, get_locale, gettext, ngettext
from markupsafe import Markup

from ledger.attribute_texts import DESCRIPTIONS
from ledger.attributes import ASKABLE
from ledger.audit_texts import CHECKS, FINDINGS, REASONS, UNPROVEN
from ledger.json_forms import DAY_SECONDS
from ledger.public_record import MEANINGS
from ledger.purposes import PURPOSES
from ledger.vault import Value
from web.security import is_portal

ENGLISH: Final = "en"
CHINESE: Final = "zh_Hans_CN"
LANGUAGES: Final = {ENGLISH: "English", CHINESE: "中文"}
"""By code, in their own words."""
TAGS: Final = {ENGLISH: "en", CHINESE: "zh-Hans-CN"}
LOCALES: Final = {ENGLISH: "en-GB", CHINESE: "zh-Hans-CN"}
"""How scripts write dates: the day before the month, as the pages do."""
COOKIE: Final = "lang"
COOKIE_SECONDS: Final = 365 * DAY_SECONDS
TRANSLATIONS: Final = Path(__file__).parent / "translations"


def install(app: Flask) -> None:
    """Make `_`, labels and dates known to templates, and remember a language that was chosen."""
    Babel(app, default_translation_directories=str(TRANSLATIONS), locale_selector=language)
    app.after_request(_remember)
    app.add_template_global(lambda: TAGS[language()], "tag")
    app.add_template_global(_addresses, "languages")
    app.add_template_global(gap)
    for name, function in (
        ("attribute", attribute_label),
        ("purpose", purpose_label),
        ("value", value_label),
        ("listed", listed),
        ("time", time),
        ("day", day),
        ("day_text", day_text),
        ("iso_day", iso_day),
        ("reason", reason_text),
        ("text", gettext),
        ("b64", _base64),
        ("days", days),
        ("times", times),
    ):
        app.add_template_filter(function, name)


def language() -> str:
    """The language of this request: a key of `LANGUAGES`."""
    for asked in (request.args.get("lang"), request.cookies.get(COOKIE)):
        if asked in LANGUAGES:
            return asked
    preferred = request.accept_languages.best_match(["en", "zh-Hans-CN", "zh-CN", "zh-SG", "zh"], "en")
    return CHINESE if preferred.startswith("zh") else ENGLISH


def _remember(response: Response) -> Response:
    chosen = request.args.get("lang")
    if chosen in LANGUAGES and is_portal() and response.status_code < HTTPStatus.BAD_REQUEST:
        response.set_cookie(COOKIE, chosen, max_age=COOKIE_SECONDS, samesite="Lax", path="/", httponly=True)
    if is_portal() and response.mimetype == "text/html":
        response.vary.update(("Accept-Language", "Cookie"))
    return response


def _addresses() -> list[tuple[str, str, str, str]]:
    """Code, tag, name and address of this very page in every language but the present one."""
    others = [(name, value) for name, value in request.args.items(multi=True) if name != "lang"]
    path, kept = (request.path, others) if request.method == "GET" else ("/", [])
    return [
        (code, TAGS[code], name, f"{path}?{urlencode([*kept, ('lang', code)])}")
        for code, name in LANGUAGES.items()
        if code != language()
    ]


def gap() -> str:
    """What stands between two sentences: a space, and in Chinese nothing."""
    return "" if language() == CHINESE else " "


# -------------------------------------------------------------------------------------------------------------- labels


def attribute_label(name: str) -> str:
    """What a person reads for an attribute."""
    known = ASKABLE.get(name)
    return str(gettext(known.label)) if known else name


def purpose_label(code: str) -> str:
    """What a person reads for a purpose."""
    known = PURPOSES.get(code)
    return str(gettext(known.label)) if known else code


def value_label(value: Value, name: str) -> str:
    """What a person reads for a value of an attribute."""
    known = ASKABLE.get(name)
    if isinstance(value, bool):
        return str(gettext("yes") if value else gettext("no"))
    if known is None:
        return str(value)
    if isinstance(value, str) and value in known.categories:
        return str(gettext(known.categories[value]))
    # A number has its unit behind it; `DEM` and `TWD` are the same in both languages.
    return f"{value} {gettext(known.unit)}" if known.unit else str(value)


def reason_text(code: str) -> str:
    """Why an access was refused, by the stable code of `errors.py`."""
    texts = {
        "not_granted": gettext("There was no consent."),
        "not_yet_valid": gettext("The consent had not begun."),
        "expired": gettext("The time of the consent was over."),
        "paused": gettext("You had paused the consent."),
        "revoked": gettext("You had stopped the consent."),
        "exhausted": gettext("The consent was used up."),
        "purpose_mismatch": gettext("They asked for another purpose than you allowed."),
        "attribute_not_consented": gettext("They asked for something that you had not allowed."),
        "daily_limit": gettext("They had asked as often as you allow on one day."),
        "disputed": gettext("You dispute what they asked for."),
        "erased": gettext("The data were erased."),
        "attribute_absent": gettext("What they asked for is not held here."),
        "institution_suspended": gettext("This institution is barred at present."),
        "aborted": gettext("It was broken off before anything was given out."),
    }
    return str(texts.get(code) or gettext("It was refused by the rules of this service."))


def catalogue_labels() -> Iterable[str]:
    """Every label of `ledger` that a person may read here: the source texts that no template holds."""
    for purpose in PURPOSES.values():
        yield purpose.label
    for attribute in ASKABLE.values():
        yield attribute.label
        yield from attribute.categories.values()
        yield from (text for text in (attribute.unit,) if text)
    yield from DESCRIPTIONS.values()
    for check in CHECKS.values():
        yield from (check.title, check.meaning)
    for finding in FINDINGS.values():
        yield from (finding.title, finding.meaning)
    yield from REASONS.values()
    yield UNPROVEN
    yield from MEANINGS.values()


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def listed(names: Iterable[str], most: int = 0) -> str:
    """Attributes in one line: all of them, or the first `most` and how many more."""
    labels = [attribute_label(name) for name in names]
    if most and len(labels) > most + 1:
        more = len(labels) - most
        labels = [*labels[:most], ngettext("%(num)d more", "%(num)d more", more)]
    return str(format_list(labels, locale=get_locale()))


# --------------------------------------------------------------------------------------------------------------- times


def time(at: int | None, style: str = "medium") -> Markup:
    """A time, in UTC; a script then writes it in the reader's own time zone."""
    return _time(at, style, "short")


def day(at: int | None, style: str = "medium") -> Markup:
    """As `time`, without the hours."""
    return _time(at, style, "")


def day_text(at: int) -> str:
    """As `day`, where no element can stand: in a picture, in a title."""
    return format_datetime(datetime.fromtimestamp(at, UTC), _day_pattern("medium"), locale=get_locale())


def iso_day(text: str) -> str:
    """An ISO date, such as the one that a value is as of."""
    return format_date(date.fromisoformat(text), _day_pattern("medium"), locale=get_locale())


def _time(at: int | None, date_style: str, time_style: str) -> Markup:
    if at is None:
        return Markup("&ndash;")
    moment = datetime.fromtimestamp(at, UTC)
    locale = get_locale()
    if time_style:
        text = f"{format_datetime(moment, _pattern(date_style), locale=locale)} UTC"
    else:
        text = format_datetime(moment, _day_pattern(date_style), locale=locale)
    return Markup('<time datetime="{}" data-date="{}" data-time="{}">{}</time>').format(
        moment.isoformat().replace("+00:00", "Z"), date_style, time_style, text
    )


def _pattern(style: str) -> str:
    return f"{_day_pattern(style)} HH:mm"


def _day_pattern(style: str) -> str:
    if str(get_locale()).startswith("zh"):
        return "y年M月d日"
    return "d MMMM y" if style == "long" else "d MMM y"


def days(number: int) -> str:
    """`31 days`."""
    return str(ngettext("%(num)d day", "%(num)d days", number))


def times(number: int) -> str:
    """`3 times`."""
    return str(ngettext("%(num)d time", "%(num)d times", number))
