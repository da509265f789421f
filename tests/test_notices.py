"""Notices: one text in two languages, signed by its hash, and readable for ever."""

from __future__ import annotations

import json
from types import MappingProxyType

import pytest
from actors import World
from eth_utils import keccak
from sqlalchemy import select
from test_consent_requests import accept, ask

from ledger import notice_texts, notices
from ledger.consent import Hex32, hex32_of
from ledger.errors import MalformedError, NotFoundError, UnknownPurposeError
from ledger.notice_texts import CURRENT, LANGUAGES, QUIET_DAYS, hash_of, notice_hash_of, read_notice
from ledger.purposes import PURPOSES
from ledger.store import notices as table


def kept(world: World) -> set[str]:
    with world.custodian.store.read() as tx:
        return set(tx.scalars(select(table.c.text)))


@pytest.mark.parametrize("code", list(PURPOSES))
def test_a_notice_says_everything_in_every_language(code: str) -> None:
    notice = CURRENT[code]
    assert tuple(notice.parts) == LANGUAGES
    for language, part in notice.parts.items():
        said = [getattr(part, name) for name in part.__slots__]
        assert all(said), language
        assert str(QUIET_DAYS) in part.asking_again
        has_chinese = ["\u4e00" <= c <= "\u9fff" for c in "".join(said)]
        assert any(has_chinese) == (language == "zh-Hans")
    english = notice.part("en")
    assert (english.title, english.why) == (PURPOSES[code].label, PURPOSES[code].description)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [("en", "en"), ("en-GB", "en"), ("de", "en"), ("", "en"), ("zh-Hans", "zh-Hans"), ("zh_Hans_CN", "zh-Hans")],
)
def test_a_part_is_found_by_the_browsers_name_of_the_language(wanted: str, found: str) -> None:
    notice = CURRENT["loan-origination"]
    assert notice.part(wanted) is notice.parts[found]


@pytest.mark.parametrize("code", list(PURPOSES))
def test_what_is_signed_is_the_hash_of_the_whole_text_as_it_is_shown(code: str) -> None:
    notice = CURRENT[code]
    assert notice_hash_of(PURPOSES[code]) == notice.notice_hash == hex32_of(keccak(notice.text.encode()))
    # RFC 8785: another implementation writes the same bytes.
    fields = json.loads(notice.text)
    assert json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False) == notice.text
    assert notice.text.isprintable()


def test_no_two_purposes_have_the_same_notice() -> None:
    assert len({notice.notice_hash for notice in CURRENT.values()}) == len(PURPOSES)


def test_a_granted_notice_stays_readable_when_the_code_has_other_texts(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    consent = accept(world, ask(world))
    signed = consent.grant.terms.notice_hash
    before = world.custodian.notices.notice(signed)
    assert before == CURRENT["loan-origination"]
    for place in (notices, notice_texts):
        monkeypatch.setattr(place, "KNOWN", MappingProxyType({}))
        monkeypatch.setattr(place, "CURRENT", MappingProxyType({}))
    world.restart()
    assert world.custodian.notices.notice(signed) == before
    assert hash_of(world.custodian.notices.text(signed)) == signed


def test_a_notice_asked_under_before_an_upgrade_is_readable_after_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = ask(world)
    monkeypatch.setattr(notices, "KNOWN", MappingProxyType({}))
    assert world.custodian.notices.notice(request.notice_hash).purpose == "loan-origination"


def test_a_direct_grant_keeps_its_notice_and_the_table_does_not_tell_which(world: World) -> None:
    assert kept(world) == set()
    world.grant(notice_hash=CURRENT["loan-origination"].notice_hash)
    assert kept(world) == set(notice_texts.KNOWN.values())


def test_a_purposes_mere_description_of_older_grants_is_read_as_it_was(world: World) -> None:
    description = PURPOSES["tenancy-check"].description
    notice = world.custodian.notices.notice(hex32_of(keccak(text=description)))
    assert (notice.part("zh").why, notice.text, notice.purpose) == (description, description, None)


@pytest.mark.parametrize(
    "text",
    [
        "A text of one's own.\nIn lines.",
        "{",
        "{}",
        '{"version":1}',
        "[" * 5000,
        "{" * 5000,
        CURRENT["model-audit"].text.replace('"version":1', '"version":2'),
        CURRENT["model-audit"].text.replace('"en"', '"fr"'),
        CURRENT["model-audit"].text.replace('"purpose":"model-audit"', '"purpose":7'),
        CURRENT["model-audit"].text.replace('"title"', '"heading"'),
        "<script>alert(1)</script>",
    ],
)
def test_a_text_of_ones_own_is_kept_and_shown_as_it_is(world: World, text: str) -> None:
    notice_hash = world.custodian.notices.keep_text(text)
    assert notice_hash == hex32_of(keccak(text=text))
    notice = world.custodian.notices.notice(notice_hash)
    assert (notice.text, notice.part("en").why, notice.notice_hash) == (text, text, notice_hash)
    assert world.custodian.notices.keep_text(text) == notice_hash


def test_an_empty_or_endless_text_is_no_notice(world: World) -> None:
    for text in ("", "x" * (notices.MAX_TEXT_LENGTH + 1)):
        with pytest.raises(MalformedError):
            world.custodian.notices.keep_text(text)
    with pytest.raises(MalformedError):
        read_notice('{"version":1}')


def test_a_hash_of_nothing_on_file_is_not_found(world: World) -> None:
    with pytest.raises(NotFoundError):
        world.custodian.notices.text(Hex32("0x" + "ab" * 32))
    with pytest.raises(UnknownPurposeError):
        world.custodian.notices.current("marketing")
