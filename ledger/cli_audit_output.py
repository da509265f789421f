"""An audit's report for a terminal: verdict, checks, findings, numbers, and the hash to compare; and as HTML.

Plain lines, which can be sent by mail or kept in a log: no color, no frames. What comes from outside is made visible.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from typing import Final

from ledger.audit_html import html_of
from ledger.audit_pictures import after_revocation
from ledger.audit_report import AuditReport, Finding, Verdict
from ledger.audit_texts import MARKS, UNPROVEN, check_text, finding_text, is_proven, not_made, reason_text, verdict_text
from ledger.json_forms import iso_time, origin_of
from ledger.markup import visible
from ledger.picture_parts import grouped

WORDS: Final = {Verdict.CLEAN: "CLEAN", Verdict.FINDINGS: "FINDINGS", Verdict.UNVERIFIED: "COULD NOT VERIFY"}
SIGNS: Final = {Verdict.CLEAN: "✓", Verdict.FINDINGS: "✗", Verdict.UNVERIFIED: "?"}
MOST_FINDINGS: Final = 5
"""Of one kind."""
MOST_TEXT: Final = 300


def report_text(report: AuditReport) -> str:
    """All of it. No text from outside can begin a line of its own."""
    return "\n".join(visible(line.replace("\n", "\\n")) for line in _lines(report))


def report_html(report: AuditReport, *, command: str) -> str:
    """The report as one HTML file. `command` repeats the audit."""
    return html_of(report, command=command, program_version=version("consent-ledger"))


def _lines(report: AuditReport) -> Iterator[str]:
    yield f"{SIGNS[report.verdict]} {WORDS[report.verdict]}. {verdict_text(report)}"
    yield ""
    yield f"contract {report.domain.contract} on chain {report.domain.chain_id}"
    if report.block is None:
        yield "block    none could be audited"
    else:
        yield f"block    {grouped(report.block.number)} of {iso_time(report.block.timestamp)}"
        yield f"hash     {report.block.block_hash}"
        yield (
            "         brought along by you: what is said here rests on it"
            if report.block.given
            else "         from the endpoint: compare it with a source that you trust"
        )
    yield f"asked    {', '.join(origin_of(url) for url in report.endpoints) or 'nobody'}"
    if report.resumed_from is not None:
        yield f"resumed  from block {grouped(report.resumed_from)}, verified before"
    yield ""
    for check in report.checks:
        yield f"{MARKS[check.holds]} {check_text(check.name).title}"
        yield f"    {_cut(check.detail)}"
    for text in not_made(report):
        yield f"- {text.title}: not checked"
    yield from _findings(report)
    yield from _numbers(report)


def _findings(report: AuditReport) -> Iterator[str]:
    listed: dict[str, list[Finding]] = {}
    for finding in report.findings:
        listed.setdefault(finding.code, []).append(finding)
    for code, count in report.by_code():
        yield ""
        yield f"✗ {grouped(count)} of {code}: {finding_text(code).title}"
        shown = listed.get(code, [])[:MOST_FINDINGS]
        for finding in shown:
            yield f"    {_cut(finding.detail)}"
            if place := _place(finding):
                yield f"      {place}"
        if count > len(shown):
            yield f"    and {grouped(count - len(shown))} more"


def _place(finding: Finding) -> str:
    parts = (
        ("block", None if finding.block_number is None else grouped(finding.block_number)),
        ("at", None if finding.at is None else iso_time(finding.at)),
        ("consent", finding.consent_id),
        ("entry", finding.entry_hash),
        ("writer", finding.writer),
    )
    return " ".join(f"{name} {value}" for name, value in parts if value is not None)


def _numbers(report: AuditReport) -> Iterator[str]:
    totals = report.totals
    yield ""
    if not is_proven(report):
        yield UNPROVEN
    yield (
        f"entries  {grouped(totals.entries)}: {grouped(totals.recorded)} recorded, {grouped(totals.refused)} refused, "
        f"{grouped(totals.late)} late, {grouped(totals.compelled)} compelled"
    )
    if report.refusals_by_reason:
        every = sorted(report.refusals_by_reason.items(), key=lambda one: -one[1])
        yield "refused  " + "; ".join(f"{grouped(count)} {_lower(reason_text(reason))}" for reason, count in every)
    yield f"after    {after_revocation(report)}"
    yield (
        f"consents {grouped(totals.consents)}: {grouped(totals.in_force)} in force, {grouped(totals.paused)} paused, "
        f"{grouped(totals.revoked)} revoked, {grouped(totals.expired)} expired, {grouped(totals.exhausted)} used up"
    )
    yield f"logs     {grouped(len(report.logs))}, in {_so_many(totals.batches, 'batch', 'batches')}"
    for log in report.logs:
        size = _so_many(log.size, "entry", "entries")
        yield f"    {log.writer} of {log.custodian}: {size}, head {log.head}"
    yield f"blocks   {grouped(totals.blocks)} read"


def _so_many(number: int, one: str, several: str) -> str:
    return f"{grouped(number)} {one if number == 1 else several}"


def _lower(text: str) -> str:
    return text[0].lower() + text[1:]


def _cut(text: str) -> str:
    return text if len(text) <= MOST_TEXT else text[:MOST_TEXT] + "\N{HORIZONTAL ELLIPSIS}"
