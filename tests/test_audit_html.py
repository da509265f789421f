"""The HTML report: it says what the report says, whoever wrote into it, at any size, and needs nothing else."""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from typing import Any, Final

import pytest
import reports

from ledger.audit_html import POLICY, html_of
from ledger.audit_pictures import gap_counts
from ledger.audit_report import AuditReport, Check, DayCounts, Finding, Verdict
from ledger.audit_spans import spans_of
from ledger.audit_texts import CLEAN_IN_PART, FINDINGS, UNPROVEN, VERDICTS
from ledger.cli_audit_output import report_text
from ledger.consent import Reason
from ledger.json_forms import DAY_SECONDS
from ledger.markup import tag, together, visible

COMMAND: Final = "consent-ledger audit chain --rpc-url URL --contract 0x9fE46736679d2D9a65F0992F2272dE9f3c7fa6e0"
VOID: Final = {"meta", "br", "hr"}
ALL: Final = {
    "clean": reports.report(),
    "one day": reports.report(days=1),
    "findings": reports.with_findings(),
    "unverified": reports.unverified(),
    "no block": reports.unverified(block=None),
    "empty": reports.empty(),
    "large": reports.large(),
}


class Page(HTMLParser):
    """The document as a browser has it: tags, text, and whether every element is closed where it must be."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.rows = 0
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes.extend((tag, name, value or "") for name, value in attrs)
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.words.append(data)


@cache
def written(name: str) -> tuple[str, Page]:
    html = html_of(ALL[name], command=COMMAND, program_version="0.1.0")
    return html, Page(html)


def page(report: AuditReport) -> Page:
    return Page(html_of(report, command=COMMAND, program_version="0.1.0"))


# --------------------------------------------------------------------------------------------------------- what it says


@pytest.mark.parametrize("name", ALL)
def test_the_verdict_and_what_it_is_about_stand_at_the_top(name: str) -> None:
    report = ALL[name]
    text = written(name)[1].text
    begins = text[: text.index("What was checked, and how")]
    assert VERDICTS[report.verdict] in begins
    assert report.domain.contract in begins
    if report.block is None:
        assert "No block of it could be audited." in begins
    else:
        assert report.block.block_hash in begins
        assert "2026-11-18 11:06:00 UTC" in begins
    for other in set(VERDICTS.values()) - {VERDICTS[report.verdict]}:
        assert other not in text


def test_a_hash_that_the_auditor_brought_is_told_from_one_of_the_endpoint() -> None:
    clean = reports.report()
    assert clean.block is not None
    assert "The hash came from the endpoint that was asked. Compare it" in page(clean).text
    assert "The auditor brought this hash along" in page(replace(clean, block=replace(clean.block, given=True))).text


def test_a_clean_report_does_not_claim_what_was_left_out() -> None:
    clean = reports.report()
    left_out = replace(clean, checks=tuple(check for check in clean.checks if check.name != "sources"))
    for report, said in ((clean, VERDICTS[Verdict.CLEAN]), (left_out, CLEAN_IN_PART)):
        assert report.verdict is Verdict.CLEAN
        assert said in page(report).text
        assert said in report_text(report).splitlines()[0]
    assert VERDICTS[Verdict.CLEAN] not in page(left_out).text


def test_a_report_that_is_not_clean_says_why_before_anything_else() -> None:
    text = page(reports.unverified()).text
    assert "Nothing withheld, nothing invented: could not be checked. the endpoint did not answer" in text
    assert "Nothing was found in what could be checked." in text
    assert "They are not proven to be all." in text
    findings = page(reports.with_findings()).text
    assert "Logged too late: 3" in findings[: findings.index("What was checked")]


NOTHING: Final = ("No access was recorded after", "No consent was used and then revoked", "There are no", "There is no")


@pytest.mark.parametrize("name", ["block", "headers", "receipts", "state_root"])
@pytest.mark.parametrize("holds", [False, None])
def test_where_something_may_be_kept_from_view_nothing_seen_is_not_said_to_be_nothing(
    name: str, holds: bool | None
) -> None:
    assert "No consent was used and then revoked" in page(reports.empty()).text
    checks = tuple(replace(check, holds=holds) if check.name == name else check for check in reports.empty().checks)
    for report in (reports.empty(checks=checks), reports.report(checks=checks, revocation_gaps=(5,))):
        for text in (page(report).text, report_text(report)):
            assert not [said for said in NOTHING if said in text]
            assert UNPROVEN in text


def test_every_check_is_shown_also_one_that_was_never_made() -> None:
    text = page(reports.report(checks=(Check(name="headers", holds=False, detail="block 7 is not linked"),))).text
    assert "✗ does not hold One unbroken chain" in text
    assert "block 7 is not linked" in text
    assert text.count("\N{EN DASH} not checked") == 7


@pytest.mark.parametrize("code", FINDINGS)
def test_every_kind_of_finding_is_explained_with_what_to_ask(code: str) -> None:
    words = FINDINGS[code]
    text = page(reports.with_findings(listed={code: 1})).text
    for said in (code, words.title, words.meaning, words.question):
        assert said in text


def test_every_finding_is_shown_or_counted() -> None:
    report = reports.with_findings(listed={"late": 4_200, "log_gap": 2, "of_the_future": 1})
    html = html_of(report, command=COMMAND)
    listed = [finding for finding in report.findings if finding.code == "late"]
    shown = [str(finding.entry_hash) in html for finding in listed]
    assert shown == [True] * 100 + [False] * 900
    assert "4,100 more of this kind are not listed here." in html
    assert all(str(finding.consent_id) in html for finding in report.findings if finding.code != "late")
    assert "of the future" in html


def test_a_finding_that_is_listed_and_was_not_counted_is_shown() -> None:
    report = reports.report(findings=(Finding(code="log_gap", detail="entry 7 is missing"),))
    assert "entry 7 is missing" in page(report).text
    assert "Findings: 1" in page(report).text


def test_what_is_counted_stands_there() -> None:
    report = reports.with_findings()
    text = page(report).text
    for number in (report.totals.entries, report.totals.recorded, report.totals.refused, report.totals.consents):
        assert f"{number:,}" in text
    for log in report.logs:
        assert log.head in text
        assert log.writer in text
    for name in report.institutions:
        assert name in text
    assert "Accesses that were recorded after their consent had been revoked: 1." in text
    assert "still running" in text
    assert "none: visible at once" in text
    assert "No access was recorded after a revocation." in page(reports.report()).text


def test_the_command_and_the_limits_are_there() -> None:
    text = page(reports.report()).text
    assert COMMAND in text
    assert "The contract governs the log, not the key." in text
    assert "0.1.0" in text


# --------------------------------------------------------------------------------------------------- what it is made of


@pytest.mark.parametrize("name", ALL)
def test_the_file_needs_nothing_else_and_runs_nothing(name: str) -> None:
    html, made = written(name)
    assert not set(made.tags) & {
        "script",
        "link",
        "img",
        "iframe",
        "object",
        "embed",
        "form",
        "input",
        "base",
    }
    for tag_name, attribute, value in made.attributes:
        assert not attribute.startswith("on")
        assert attribute not in ("src", "style", "action", "srcset", "xlink:href")
        assert attribute != "href" or value.startswith("#"), (tag_name, value)
    style = html[html.index("<style>") : html.index("</style>")]
    assert "@import" not in style
    assert re.findall(r"url\(([^)]*)\)", style) == ["#hatch-refused", "#hatch-revoked"]
    assert ("meta", "content", POLICY) in made.attributes


@pytest.mark.parametrize("name", ALL)
def test_names_are_there_once_and_every_reference_leads_somewhere(name: str) -> None:
    made = written(name)[1]
    names = Counter(value for _, attribute, value in made.attributes if attribute == "id")
    assert set(names.values()) == {1}
    for _, attribute, value in made.attributes:
        if attribute in ("aria-labelledby", "aria-describedby", "href"):
            assert value.removeprefix("#") in names


def test_every_picture_says_in_words_what_is_on_it() -> None:
    html = html_of(reports.with_findings(), command=COMMAND)
    pictures = re.findall(
        r'<svg class="picture"[^>]*role="img"[^>]*><title[^>]*>[^<]+</title><desc[^>]*>[^<]+</desc>', html
    )
    assert len(pictures) == html.count('role="img"') == 4


def test_a_large_report_stays_a_file_that_can_be_read() -> None:
    html = written("large")[0]
    assert len(html) < 400_000
    assert "Entries per month" in html


# ------------------------------------------------------------------------------------------------------ what is hostile

EVIL: Final = '"><script>alert(1)</script><img src=x onerror=alert(1)>\'"</style></svg>\u202e\x00\x1b[31m'


def hostile() -> AuditReport:
    report = reports.with_findings(listed={"late": 1})
    return replace(
        report,
        checks=(Check(name=EVIL, holds=None, detail=EVIL),),
        findings=(Finding(code=EVIL, detail=EVIL, consent_id=EVIL), *report.findings),  # type: ignore[arg-type]
        finding_counts={EVIL: 1, "late": 1},
        endpoints=(EVIL, f"http://x/{EVIL}"),
        institutions={EVIL: 3},
        logs=(replace(report.logs[0], head=EVIL, writer=EVIL),),  # type: ignore[arg-type]
        domain=replace(report.domain, contract=EVIL),  # type: ignore[arg-type]
    )


def test_whatever_is_written_into_a_report_is_text() -> None:
    html = html_of(hostile(), command=EVIL, program_version=EVIL)
    made = Page(html)
    assert not set(made.tags) & {"script", "img"}
    assert not [one for one in made.attributes if one[1].startswith("on")]
    assert not set(html) & set("\x00\x1b\u202e")
    assert "\\u202e" in html
    assert html.count("<style>") == html.count("</style>") == 1
    assert html.count("alert(1)") > 20


def test_markup_is_only_what_was_made_as_such() -> None:
    assert tag("p", "<b>", tag("i", "&")) == "<p>&lt;b&gt;<i>&amp;</i></p>"
    assert together(("<", tag("br"), None)) == "&lt;<br>"
    assert tag("a", title='"x"', aria_label=None) == '<a title="&quot;x&quot;"></a>'
    assert visible("a\u2066b\x07\n") == "a\\u2066b\\x07\n"


@pytest.mark.parametrize(
    "change",
    [
        {"made_at": 2**70},
        {"days": (DayCounts(day=0, recorded=1), DayCounts(day=2**60, recorded=1))},
        {"days": (DayCounts(day=-5, recorded=1),)},
        {"days": (DayCounts(day=20_000, recorded=10**24, refused=1),)},
        {"revocation_gaps": (-(2**63), 0, 2**63)},
        {"refusals_by_reason": {Reason.EXPIRED: 10**30}},
        {"institutions": {"": 0}},
        {"logs": reports.report().logs * 500},
    ],
)
def test_numbers_of_any_size_make_a_document(change: dict[str, Any]) -> None:
    html = html_of(replace(reports.with_findings(), **change), command=COMMAND)
    Page(html)
    assert len(html) < 600_000


# ------------------------------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize(
    ("days", "unit"),
    [(1, "day"), (62, "day"), (63, "week"), (500, "week"), (600, "month"), (3_650, "month"), (9_000, "year")],
)
def test_no_entry_is_lost_on_the_way_into_a_picture(days: int, unit: str) -> None:
    counted = reports.report(days=days).days
    spans = spans_of(counted, reports.NOW // DAY_SECONDS)
    assert spans.unit == unit
    assert len(spans.spans) <= 132
    for kind in ("recorded", "refused", "granted", "revoked"):
        assert sum(getattr(one, kind) for one in spans.spans) == sum(getattr(one, kind) for one in counted)
    assert spans.spans[-1].size == sum(one.recorded + one.refused for one in counted)


def test_days_without_anything_are_seen_as_such() -> None:
    spans = spans_of((DayCounts(day=20_000, recorded=1), DayCounts(day=20_030, late=2)), 20_040).spans
    assert len(spans) == 41
    assert [place for place, one in enumerate(spans) if one.entries] == [0, 30]


def test_every_gap_is_in_one_column_and_a_negative_one_is_after_the_revocation() -> None:
    rng = random.Random(5)
    gaps = tuple(rng.choice((-1, 0, 600, 601, 3_600, 86_400, 604_801, 10**9)) for _ in range(500))
    counts = gap_counts(replace(reports.report(), revocation_gaps=gaps))
    assert sum(count for _, count in counts) == 500
    assert counts[-1] == ("after", sum(gap < 0 for gap in gaps))
    assert counts[0] == ("> 30 days", sum(gap > 2_592_000 for gap in gaps))
    assert dict(counts)["≤ 10 min"] == sum(0 <= gap <= 600 for gap in gaps)
