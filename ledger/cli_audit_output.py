"""Placeholder until the report's branch is merged."""

from __future__ import annotations

from ledger.audit_report import AuditReport


def report_text(report: AuditReport) -> str:
    """The report for a terminal."""
    lines = [f"{report.verdict}: {report.block}"]
    lines += [f"{check.name} {check.holds} {check.detail}" for check in report.checks]
    lines += [f"{finding.code}: {finding.detail}" for finding in report.findings[:10]]
    lines += [str(report.totals)]
    return "\n".join(lines)


def report_html(report: AuditReport, *, command: str) -> str:
    """The report as HTML."""
    return command
