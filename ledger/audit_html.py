"""An audit's report as one HTML file: for a regulator to read, to print and to keep. Pure.

The file needs nothing else: no script, no font, no picture from elsewhere, and a policy in it that would forbid them.
What comes from outside is escaped by `markup`. Lists end where nobody would read on; the counts are always whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from ledger.audit_counted import compelled, consents, institutions, logs, numbers, over_time, refusals, table_of
from ledger.audit_found import checks, findings
from ledger.audit_pictures import gaps_figure
from ledger.audit_report import REPORT_VERSION, AuditReport, Verdict
from ledger.audit_spans import Spans, spans_of
from ledger.audit_style import style_sheet
from ledger.audit_texts import (
    LIMITS,
    check_text,
    finding_text,
    verdict_text,
)
from ledger.json_forms import DAY_SECONDS, origin_of
from ledger.markup import Html, raw, tag, together
from ledger.picture_parts import grouped, patterns
from ledger.report_parts import cut, figure_of, time_text

POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
PROGRAM: Final = "Consent Ledger"


def html_of(report: AuditReport, *, command: str, program_version: str = "") -> str:
    """The whole document. `command` repeats the audit; it is shown as given, so it must not hold anybody's key."""
    spans = spans_of(report.days, None if report.block is None else report.block.timestamp // DAY_SECONDS)
    sections = [section for section in _sections(report, spans, command, program_version) if section[2]]
    title = f"Audit report: {_word(report)}"
    body = tag(
        "main",
        patterns(),
        _head(report),
        _contents(sections),
        *(
            tag(
                "section",
                tag("h2", f"{number}. {name}", id=f"{key}-heading"),
                *parts,
                id=key,
                aria_labelledby=f"{key}-heading",
            )
            for number, (key, name, parts) in enumerate(sections, 1)
        ),
        _foot(report, program_version),
        class_="page",
    )
    heading = f"Audit report, chain {report.domain.chain_id}, contract {report.domain.contract}"
    return "<!doctype html>\n" + tag(
        "html",
        tag(
            "head",
            tag("meta", charset="utf-8"),
            tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("meta", name="color-scheme", content="light dark"),
            tag("meta", name="referrer", content="no-referrer"),
            tag("title", title),
            tag("style", raw(style_sheet(heading))),
        ),
        tag("body", body),
        lang="en",
    )


_Section = tuple[str, str, Sequence[Html]]


def _sections(report: AuditReport, spans: Spans, command: str, program_version: str) -> list[_Section]:
    return [
        ("checked", "What was checked, and how", checks(report)),
        ("findings", "Findings", findings(report)),
        ("numbers", "Numbers", numbers(report)),
        ("time", "Over time", over_time(spans)),
        ("revocations", "After a revocation", figure_of(gaps_figure(report))),
        ("refusals", "Why accesses were refused", refusals(report)),
        ("institutions", "Who received data", institutions(report)),
        ("compelled", "Accesses ordered by an authority", compelled(report)),
        ("logs", "The logs", logs(report)),
        ("consents", "Consents", consents(report)),
        ("limits", "What this cannot say", [tag("ul", *(tag("li", text) for text in LIMITS), class_="limits")]),
        ("repeat", "How to repeat it", _repeat(report, command, program_version)),
        ("table", "The numbers behind the pictures", table_of(spans)),
    ]


# ----------------------------------------------------------------------------------------------------------------- head


def _word(report: AuditReport) -> str:
    found = sum(report.finding_counts.values()) or len(report.findings)
    return {
        Verdict.CLEAN: "clean",
        Verdict.FINDINGS: f"findings: {grouped(found)}" if found else "findings",
        Verdict.UNVERIFIED: "could not verify",
    }[report.verdict]


def _head(report: AuditReport) -> Html:
    block = report.block
    return tag(
        "header",
        tag("p", "Audit of a consent ledger, from the chain alone", class_="kicker"),
        tag("h1", "Audit report"),
        tag("p", f"Made on {time_text(report.made_at)}.", class_="quiet"),
        tag(
            "div",
            tag(
                "p",
                tag(
                    "span",
                    {Verdict.CLEAN: "✓", Verdict.FINDINGS: "✗"}.get(report.verdict, "?"),
                    class_="sign",
                    aria_hidden="true",
                ),
                tag("span", _word(report).capitalize()),
                class_="word",
            ),
            tag("p", tag("strong", verdict_text(report))),
            *_why(report),
            tag("p", _about(report)),
            None
            if block is None
            else tag(
                "div",
                tag("p", "The hash of that block:", class_="small"),
                tag("p", tag("code", block.block_hash)),
                tag("p", _compare(report), class_="small"),
                class_="compare",
            ),
            class_=f"verdict {report.verdict.value}",
        ),
    )


def _why(report: AuditReport) -> Iterable[Html]:
    """What the verdict comes from, where it is not a clean one."""
    failed = [check for check in report.checks if check.holds is False]
    lines = [
        *(f"{finding_text(code).title}: {grouped(count)}" for code, count in report.by_code()),
        *(f"{check_text(check.name).title}: does not hold" for check in failed if not report.finding_counts),
        *(
            f"{check_text(check.name).title}: could not be checked. {cut(check.detail)}"
            for check in report.checks
            if check.holds is None
        ),
    ]
    if report.verdict is Verdict.UNVERIFIED and not report.checks:
        lines.append("Nothing was checked.")
    return [tag("ul", *(tag("li", line) for line in lines))] if lines else []


def _about(report: AuditReport) -> Html:
    domain, block = report.domain, report.block
    contract = tag("code", domain.contract)
    if block is None:
        return together(
            ("It is about the contract ", contract, f" on chain {domain.chain_id}. No block of it could be audited.")
        )
    return together(
        (
            *("It is about the contract ", contract, f" on chain {domain.chain_id}, as it stood at block "),
            f"{grouped(block.number)} of {time_text(block.timestamp)}. Whatever came later is not in it.",
        )
    )


def _compare(report: AuditReport) -> str:
    if report.block is not None and report.block.given:
        return (
            "The auditor brought this hash along: what is said here rests on it, and not on the word of an endpoint. "
            "Whoever repeats the audit with the same hash must come to the same result."
        )
    if any(check.name == "endpoints" and check.holds for check in report.checks):
        return (
            "The hash came from the endpoint, and a second endpoint names the same. Compare it with a source that you "
            "trust: this report is true as far as the hash is."
        )
    return (
        "The hash came from the endpoint that was asked. Compare it with a source that you trust and that is not the "
        "custodian: this report is true as far as the hash is."
    )


def _contents(sections: Sequence[_Section]) -> Html:
    return tag(
        "nav",
        tag("ol", *(tag("li", tag("a", name, href=f"#{key}")) for key, name, _ in sections)),
        class_="contents small",
        aria_label="Contents",
    )


# --------------------------------------------------------------------------------------------------------------- repeat


def _repeat(report: AuditReport, command: str, program_version: str) -> list[Html]:
    block = report.block
    rows = [
        ("Chain", str(report.domain.chain_id)),
        ("Contract", report.domain.contract),
        ("Block", "none" if block is None else f"{block.number}, {block.block_hash}"),
        ("Endpoints asked", ", ".join(origin_of(url) for url in report.endpoints) or "none"),
        (
            "Read from",
            "the first block"
            if report.resumed_from is None
            else f"the auditor's own state of block {report.resumed_from}, which had been verified before",
        ),
        ("Program", f"{PROGRAM} {program_version}".strip()),
        ("Form of this report", f"version {REPORT_VERSION}"),
    ]
    return [
        tag(
            "p",
            "Anyone can: it needs the program, an endpoint of the chain (any will do) and the address of the contract, "
            "and no leave of the custodian.",
        ),
        tag("pre", tag("code", command), tabindex=0, role="region", aria_label="Command"),
        tag(
            "p",
            "With --block and the hash above it is about the same block. A second --rpc-url makes another endpoint "
            "agree, or its disagreement a finding. With --json the same report is for machines, in full.",
        ),
        tag("dl", *(part for name, value in rows for part in (tag("dt", name), tag("dd", value))), class_="rows"),
    ]


def _foot(report: AuditReport, program_version: str) -> Html:
    return tag(
        "footer",
        tag(
            "p",
            f"{PROGRAM} {program_version}".strip() + f", audit report version {REPORT_VERSION}, made on "
            f"{time_text(report.made_at)}. It says what was found on the chain, and is no judgement on anyone.",
        ),
    )
