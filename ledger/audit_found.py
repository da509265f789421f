"""The part of an audit's report that judges: every check with its outcome, and what was found, by kind. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ledger.audit_report import AuditReport, Check, Finding, Verdict
from ledger.audit_texts import MARKS, OUTCOMES, CheckText, check_text, finding_text, not_made
from ledger.markup import Html, tag
from ledger.picture_parts import grouped
from ledger.report_parts import Group, cut, ids, table, time_text

MOST_FINDINGS: Final = 100
FINDING_HEAD: Final = ("Block", "When", "What")


def checks(report: AuditReport) -> list[Html]:
    """Every check with its outcome."""
    if not report.checks:
        return [tag("p", "Nothing was checked.")]
    done = sum(check.holds is True for check in report.checks)
    return [
        tag(
            "p",
            f"{done} of {len(report.checks)} checks hold. None of them relies on the custodian's word: everything "
            "follows from the hash of the block.",
        ),
        table(
            "Every check and its outcome",
            ("Outcome", "What was checked", "Seen"),
            [*map(_check_row, report.checks), *map(_missing_row, not_made(report))],
        ),
    ]


def _check_row(check: Check) -> Sequence[Html]:
    text = check_text(check.name)
    kind = {True: "holds", False: "fails", None: "open"}[check.holds]
    return (
        tag("td", f"{MARKS[check.holds]} {OUTCOMES[check.holds]}", class_=f"outcome {kind}"),
        tag(
            "th",
            text.title,
            tag("br"),
            tag("span", text.meaning, class_="quiet small") if text.meaning else None,
            scope="row",
        ),
        tag("td", cut(check.detail), class_="detail small"),
    )


def _missing_row(text: CheckText) -> Sequence[Html]:
    return (
        tag("td", "\N{EN DASH} not checked", class_="outcome open"),
        tag("th", text.title, tag("br"), tag("span", text.meaning, class_="quiet small"), scope="row"),
        tag("td", "The audit ended before it, or was told to do without.", class_="detail small"),
    )


def findings(report: AuditReport) -> list[Html]:
    """What was found, the most frequent kind first."""
    counts = report.by_code()
    if not counts:
        said = (
            "Nothing was found." if report.verdict is Verdict.CLEAN else "Nothing was found in what could be checked."
        )
        return [tag("p", said)]
    every: dict[str, list[Finding]] = {}
    for finding in report.findings:
        every.setdefault(finding.code, []).append(finding)
    return [_findings_of(code, count, every.get(code, [])) for code, count in counts]


def _findings_of(code: str, count: int, listed: Sequence[Finding]) -> Html:
    text = finding_text(code)
    shown = listed[:MOST_FINDINGS]
    return tag(
        "div",
        tag(
            "h3",
            tag("span", text.title),
            tag("span", f"{grouped(count)} \N{MULTIPLICATION SIGN} ", tag("code", code), class_="count"),
        ),
        tag("p", text.meaning) if text.meaning else None,
        tag("p", tag("strong", "To be asked: "), text.question),
        table(
            f"Findings of the kind {code}",
            FINDING_HEAD,
            map(_finding_row, shown),
        )
        if shown
        else None,
        tag("p", f"{grouped(count - len(shown))} more of this kind are not listed here.", class_="quiet")
        if count > len(shown)
        else None,
        class_="finding",
    )


def _finding_row(finding: Finding) -> Group:
    return Group(
        ids(
            ("consent", finding.consent_id),
            ("entry", finding.entry_hash),
            ("writer", finding.writer),
            columns=len(FINDING_HEAD),
        ),
        (
            tag("td", "" if finding.block_number is None else grouped(finding.block_number)),
            tag("td", "" if finding.at is None else time_text(finding.at), class_="when"),
            tag("td", cut(finding.detail), class_="detail"),
        ),
    )
