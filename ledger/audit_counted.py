"""The part of an audit's report that counts: numbers, pictures, logs and consents. Pure.

Lists end where nobody would read on; the counts are always whole.
"""

from __future__ import annotations

from typing import Final

from ledger.audit_pictures import after_revocation, consents_figure, entries_figure, growth_figure
from ledger.audit_report import AuditReport, ConsentSummary, LogSummary
from ledger.audit_spans import Spans
from ledger.audit_texts import STATES, UNPROVEN, is_proven, reason_text
from ledger.markup import Html, tag
from ledger.picture_parts import bar, grouped, lasting
from ledger.report_parts import Group, cut, facts, figure_of, ids, minute_text, more, table, time_text

MOST_CONSENTS: Final = 25
CONSENT_HEAD: Final = ("State", "From (UTC)", "Until", "Used", "Refused", "Late", "Last access", "Revoked")
MOST_LOGS: Final = 200
LOG_HEAD: Final = ("Entries", "Batches", "Last entry", "The writer")
MOST_ORDERS: Final = 200
MOST_INSTITUTIONS: Final = 60


# ---------------------------------------------------------------------------------------------------- numbers, pictures


def numbers(report: AuditReport) -> list[Html]:
    """What was counted, also of what is not listed."""
    totals = report.totals
    after = totals.accesses_after_revocation
    unproven = [] if is_proven(report) else [tag("p", tag("strong", UNPROVEN))]
    return [
        *unproven,
        facts(
            (grouped(totals.entries), "entries in all logs", False),
            (grouped(totals.recorded), "recorded: a consent was in force", False),
            (grouped(totals.refused), "refused: logged, nothing was read", False),
            (grouped(totals.late), "late: logged after the consent ended", totals.late > 0),
            (grouped(totals.compelled), "compelled: ordered by an authority", False),
            (grouped(after), "recorded after a revocation", after > 0),
        ),
        facts(
            (grouped(totals.consents), "consents that were granted", False),
            (grouped(totals.in_force), "in force at the block", False),
            (grouped(totals.paused), "paused", False),
            (grouped(totals.revoked), "revoked", False),
            (grouped(totals.expired), "expired", False),
            (grouped(totals.exhausted), "used up", False),
        ),
        facts(
            (grouped(len(report.logs)), "logs (one for each writer)", False),
            (grouped(totals.batches), "batches in them", False),
            (grouped(totals.blocks), "blocks read", False),
        ),
    ]


def over_time(spans: Spans) -> list[Html]:
    """Entries, logs and consents over time."""
    return [
        *figure_of(entries_figure(spans)),
        *figure_of(growth_figure(spans)),
        *figure_of(consents_figure(spans)),
        *(
            [tag("p", tag("a", "The numbers behind these pictures", href="#table"), class_="screen")]
            if spans.spans
            else ()
        ),
    ]


def table_of(spans: Spans) -> list[Html]:
    """The numbers of the pictures over time."""
    if not spans.spans:
        return []
    unit = {"day": "Day", "week": "Week from", "month": "Month", "year": "Year"}.get(spans.unit, "From")
    head = (unit, "Recorded", "Refused", "Late", "Compelled", "Length of the logs", "Granted", "Revoked")
    return [
        table(
            "Entries by kind, the length of all logs at the end, and consents granted and revoked",
            head,
            (
                (
                    tag("th", one.label, scope="row"),
                    *(
                        tag("td", grouped(number), class_="number")
                        for number in (
                            *(one.recorded, one.refused, one.late, one.compelled, one.size, one.granted, one.revoked),
                        )
                    ),
                )
                for one in spans.spans
            ),
            numbers=range(1, len(head)),
        )
    ]


def refusals(report: AuditReport) -> list[Html]:
    """Refused entries by reason."""
    total = sum(report.refusals_by_reason.values())
    if not total:
        return [tag("p", "No refused access was seen.")]
    most = max(report.refusals_by_reason.values())
    return [
        tag("p", "Each was logged with its reason, and nothing was read. That accesses are refused is no finding."),
        table(
            "Refused entries by reason",
            ("Reason", "Entries", "Share", ""),
            (
                (
                    tag("th", reason_text(reason), scope="row"),
                    tag("td", grouped(count), class_="number"),
                    tag("td", f"{count / total:.1%}", class_="number"),
                    tag("td", bar(count / most, "refused")),
                )
                for reason, count in sorted(report.refusals_by_reason.items(), key=lambda one: -one[1])
            ),
            numbers=(1, 2),
        ),
    ]


def institutions(report: AuditReport) -> list[Html]:
    """Recorded entries by institution; nothing without openings."""
    if not report.institutions:
        return []
    every = sorted(report.institutions.items(), key=lambda one: (-one[1], one[0]))
    shown, total = every[:MOST_INSTITUTIONS], sum(report.institutions.values())
    most = max(1, every[0][1])
    return [
        tag(
            "p",
            f"From the openings that were handed over: {grouped(total)} of {grouped(report.totals.recorded)} recorded "
            "entries. The chain alone names no institution.",
        ),
        table(
            "Recorded entries by institution",
            ("Institution", "Entries", ""),
            (
                (
                    tag("th", tag("bdi", cut(name)), scope="row"),
                    tag("td", grouped(count), class_="number"),
                    tag("td", bar(count / most)),
                )
                for name, count in shown
            ),
            numbers=(1,),
        ),
        *more(len(every) - len(shown), "institutions"),
    ]


def compelled(report: AuditReport) -> list[Html]:
    """Accesses by order of an authority, and their embargoes."""
    if not report.compelled:
        return [tag("p", "None was seen. An access without a consent, by order of an authority, would stand here.")]
    now = report.made_at if report.block is None else report.block.timestamp
    shown = sorted(report.compelled, key=lambda one: one.at)[-MOST_ORDERS:]
    start = min(one.at for one in shown)
    length = max(1, max(max(one.at, one.embargo_until, now) for one in shown) - start)
    return [
        tag(
            "p",
            "The person concerned need not be told before the embargo ends; after it they see the access as any other. "
            "The line in the bars is the audited block.",
        ),
        table(
            "Compelled accesses by order",
            ("Order (its hash)", "Entries", "Logged (UTC)", "Embargo until", "From the log to the end of the embargo"),
            (
                (
                    tag("td", tag("code", one.order_hash), class_="id"),
                    tag("td", grouped(one.entries), class_="number"),
                    tag("td", minute_text(one.at), class_="small"),
                    tag("td", _embargo(one.embargo_until, now), class_="small"),
                    tag(
                        "td",
                        lasting(
                            (one.at - start) / length,
                            (max(one.at, one.embargo_until) - start) / length,
                            (now - start) / length,
                        ),
                    ),
                )
                for one in shown
            ),
            numbers=(1,),
        ),
        *more(len(report.compelled) - len(shown), "orders"),
    ]


def _embargo(until: int, now: int) -> str:
    if not until:
        return "none: visible at once"
    return f"{minute_text(until)} ({'over' if until <= now else 'still running'})"


# ------------------------------------------------------------------------------------------------------- logs, consents


def logs(report: AuditReport) -> list[Html]:
    """Every log: who writes it, how long it is, its head."""
    if not report.logs:
        return [tag("p", "No log was seen.")]
    shown = sorted(report.logs, key=lambda log: -log.size)[:MOST_LOGS]
    return [
        tag(
            "p",
            "One for each key that writes for a custodian. The head is a running hash over every batch: two logs with "
            "the same head and length are the same, entry by entry.",
        ),
        table(
            "Every log at the block",
            LOG_HEAD,
            map(_log_row, shown),
            numbers=(0, 1),
        ),
        *more(len(report.logs) - len(shown), "logs"),
    ]


def _log_row(log: LogSummary) -> Group:
    return Group(
        ids(("custodian", log.custodian), ("writer", log.writer), ("head", log.head), columns=len(LOG_HEAD)),
        (
            tag("td", grouped(log.size), class_="number"),
            tag("td", grouped(log.batches), class_="number"),
            tag("td", "never" if log.last_at is None else time_text(log.last_at)),
            tag("td", "may write" if log.allowed else "may not write any more"),
        ),
    )


def consents(report: AuditReport) -> list[Html]:
    """The consents that are listed, those of concern first."""
    if not report.totals.consents and not report.consents:
        return [tag("p", "No consent was seen.")]
    # First those that somebody may have to ask about.
    shown = sorted(report.consents, key=lambda one: (not _is_after(one), -one.late, -one.recorded))[:MOST_CONSENTS]
    return [
        tag(
            "p",
            "As the chain shows them: numbers, accounts and times, and nobody's name. Those with an access after their "
            "revocation come first, then those with late entries, then those most used.",
        ),
        tag("p", after_revocation(report)),
        table(
            "Consents at the block",
            CONSENT_HEAD,
            map(_consent_row, shown),
            numbers=(3, 4, 5),
        ),
        *more(max(report.totals.consents, len(report.consents)) - len(shown), "consents"),
    ]


def _is_after(consent: ConsentSummary) -> bool:
    last, revoked = consent.last_access_at, consent.revoked_at
    return last is not None and revoked is not None and last > revoked


def _consent_row(consent: ConsentSummary) -> Group:
    last, revoked = consent.last_access_at, consent.revoked_at
    return Group(
        ids(("consent", consent.consent_id), ("subject", consent.subject), columns=len(CONSENT_HEAD)),
        (
            tag("td", STATES[consent.state]),
            tag("td", minute_text(consent.valid_from), class_="when"),
            tag("td", minute_text(consent.expires_at), class_="when"),
            tag("td", f"{grouped(consent.recorded)} of {grouped(consent.max_accesses)}", class_="number"),
            tag("td", grouped(consent.refused), class_="number"),
            tag("td", grouped(consent.late), class_="number"),
            tag("td", "never" if last is None else minute_text(last), class_="when"),
            tag(
                "td",
                "" if revoked is None else minute_text(revoked),
                tag("div", tag("strong", "used after it")) if _is_after(consent) else None,
                class_="when",
            ),
        ),
    )
