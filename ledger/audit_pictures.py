"""The pictures of an audit's report, which a report and a page of the portal both show. Pure.

Every picture says in words what is to be seen on it; its numbers stand in a table beside it. `say` translates: every
text is given to it as it stands, so that they can be collected.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ledger.audit_report import AuditReport
from ledger.audit_spans import DAY, MONTH, OTHER, WEEK, YEAR, Span, Spans
from ledger.audit_texts import is_proven
from ledger.json_forms import DAY_SECONDS
from ledger.markup import Html, tag, together
from ledger.picture_parts import (
    FOOT,
    LANE,
    LEFT,
    PLOT,
    RIGHT,
    TOP,
    WIDTH,
    Plot,
    axis,
    ceiling,
    dates,
    grid,
    grouped,
    legend,
    mark,
    n,
    reach,
    svg,
)

Say = Callable[[str], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A picture, its title, and what is to be seen on it. `key`: for names that must be there once in a document."""

    key: str
    title: str
    caption: str
    picture: Html | None
    legend: Html | None = None


# -------------------------------------------------------------------------------------------------------------- entries


def entries_figure(spans: Spans, say: Say = str) -> Figure:
    """Entries over time by kind: recorded and refused as columns, late and compelled as marks below them."""
    titles = {
        DAY: say("Entries per day"),
        WEEK: say("Entries per week"),
        MONTH: say("Entries per month"),
        YEAR: say("Entries per year"),
        OTHER: say("Entries over time"),
    }
    sums = {
        kind: sum(getattr(one, kind) for one in spans.spans) for kind in ("recorded", "refused", "late", "compelled")
    }
    if not sum(sums.values()):
        return Figure(key="entries", title=titles[spans.unit], caption=say("No entries were seen."), picture=None)
    caption = say("Recorded: %(recorded)s. Refused: %(refused)s. Late: %(late)s. Compelled: %(compelled)s.") % {
        kind: grouped(count) for kind, count in sums.items()
    }
    plot = Plot(count=len(spans.spans), top=ceiling(max(one.recorded + one.refused for one in spans.spans)))
    lanes = [(kind, name) for kind, name in (("late", say("late")), ("compelled", say("compelled"))) if sums[kind]]
    floor = TOP + PLOT
    return Figure(
        key="entries",
        title=titles[spans.unit],
        caption=caption,
        picture=svg(
            "entries",
            titles[spans.unit],
            f"{caption} {reach(spans.spans)}",
            floor + len(lanes) * LANE + FOOT,
            grid(plot),
            *(
                tag(
                    "g",
                    tag("title", _told(one, say)),
                    plot.column("recorded", place, 0, one.recorded),
                    plot.column("refused", place, one.recorded, one.recorded + one.refused),
                )
                for place, one in enumerate(spans.spans)
            ),
            *(_lane(plot, kind, name, floor + row * LANE, spans.spans) for row, (kind, name) in enumerate(lanes)),
            dates(plot, spans.spans, floor + len(lanes) * LANE),
        ),
        legend=legend(
            ("recorded", say("recorded: a consent was in force")),
            ("refused", say("refused")),
            ("late", say("late")),
            ("compelled", say("compelled")),
        ),
    )


def _told(one: Span, say: Say) -> str:
    parts = (
        (say("recorded"), one.recorded),
        (say("refused"), one.refused),
        (say("late"), one.late),
        (say("compelled"), one.compelled),
    )
    return one.label + ": " + ", ".join(f"{name} {grouped(count)}" for name, count in parts)


def _lane(plot: Plot, kind: str, name: str, top: int, spans: Sequence[Span]) -> Html:
    middle = top + LANE / 2 + 2
    return tag(
        "g",
        tag("text", name, class_="lane-name", x=LEFT - 8, y=n(middle + 4), text_anchor="end"),
        tag("line", class_="grid", x1=LEFT, x2=WIDTH - RIGHT, y1=n(middle), y2=n(middle)),
        *(
            tag("g", tag("title", f"{one.label}: {grouped(getattr(one, kind))}"), mark(kind, plot.x(place), middle))
            for place, one in enumerate(spans)
            if getattr(one, kind)
        ),
    )


# --------------------------------------------------------------------------------------------------------------- growth


def growth_figure(spans: Spans, say: Say = str) -> Figure:
    """How long all logs together were, over time. It can only rise."""
    title = say("Length of the logs")
    total = spans.spans[-1].size if spans.spans else 0
    if not total:
        return Figure(key="growth", title=title, caption=say("No entries were seen."), picture=None)
    plot = Plot(count=len(spans.spans), top=ceiling(total))
    points = [
        (float(LEFT), plot.y(0)),
        *((plot.x(place + 0.5), plot.y(one.size)) for place, one in enumerate(spans.spans)),
    ]
    points[-1] = (float(WIDTH - RIGHT), plot.y(total))
    line = " ".join(f"{n(x)},{n(y)}" for x, y in points)
    caption = say("All entries of all logs, one on top of the other: %(total)s at the block. A log can only grow.") % {
        "total": grouped(total)
    }
    floor = plot.y(0)
    return Figure(
        key="growth",
        title=title,
        caption=caption,
        picture=svg(
            "growth",
            title,
            f"{caption} {reach(spans.spans)}",
            TOP + PLOT + FOOT,
            grid(plot),
            tag("polygon", class_="area", points=f"{LEFT},{n(floor)} {line} {WIDTH - RIGHT},{n(floor)}"),
            tag("polyline", class_="line", points=line),
            tag("circle", class_="dot", cx=WIDTH - RIGHT, cy=n(plot.y(total)), r=5),
            dates(plot, spans.spans, TOP + PLOT),
        ),
    )


# ------------------------------------------------------------------------------------------------------------- consents


def consents_figure(spans: Spans, say: Say = str) -> Figure:
    """Consents granted (up) and revoked (down) over time."""
    title = say("Consents granted and revoked")
    granted, revoked = (sum(getattr(one, kind) for one in spans.spans) for kind in ("granted", "revoked"))
    if not granted + revoked:
        return Figure(key="consents", title=title, caption=say("No consents were seen."), picture=None)
    caption = say("Granted: %(granted)s. Revoked: %(revoked)s.") % {
        "granted": grouped(granted),
        "revoked": grouped(revoked),
    }
    rows = 2 if revoked else 1
    most = ceiling(max(max(one.granted, one.revoked) for one in spans.spans), rows)
    plot = Plot(count=len(spans.spans), top=most, bottom=most * (rows - 1))
    told = f"{say('granted')} %s, {say('revoked')} %s"
    return Figure(
        key="consents",
        title=title,
        caption=caption,
        picture=svg(
            "consents",
            title,
            f"{caption} {reach(spans.spans)}",
            TOP + PLOT + FOOT,
            grid(plot),
            *(
                tag(
                    "g",
                    tag("title", f"{one.label}: {told % (grouped(one.granted), grouped(one.revoked))}"),
                    plot.column("granted", place, 0, one.granted),
                    plot.column("revoked", place, 0, -one.revoked),
                )
                for place, one in enumerate(spans.spans)
            ),
            axis(plot),
            dates(plot, spans.spans, TOP + PLOT),
        ),
        legend=legend(("granted", say("granted (upwards)")), ("revoked", say("revoked (downwards)"))),
    )


# ----------------------------------------------------------------------------------------------------------- revocation


def gap_counts(report: AuditReport, say: Say = str) -> list[tuple[str, int]]:
    """How many consents had their last recorded access how long before they were revoked; the last is *after* it."""
    bounds = [
        (0, say("after")),
        (600, say("≤ 10 min")),
        (3_600, say("≤ 1 h")),
        (DAY_SECONDS, say("≤ 1 day")),
        (604_800, say("≤ 7 days")),
        (2_592_000, say("≤ 30 days")),
    ]
    counts = [0] * (len(bounds) + 1)
    for gap in report.revocation_gaps:
        counts[next((place for place, (most, _) in enumerate(bounds) if _is_within(gap, place, most)), -1)] += 1
    names = [name for _, name in bounds] + [say("> 30 days")]
    return list(zip(names, counts, strict=True))[::-1]


def _is_within(gap: int, place: int, most: int) -> bool:
    return gap < 0 if place == 0 else gap <= most


def gaps_figure(report: AuditReport, say: Say = str) -> Figure:
    """From the last recorded access of a consent to its revocation: whatever stands right of the line must not be."""
    title = say("From the last access to the revocation")
    counts = gap_counts(report, say)
    after = report.totals.accesses_after_revocation
    caption = after_revocation(report, say)
    if not report.revocation_gaps and not after:
        return Figure(key="gaps", title=title, caption=caption, picture=None)
    plot = Plot(count=len(counts), top=ceiling(max(count for _, count in counts)))
    line = plot.x(len(counts) - 1.5)
    return Figure(
        key="gaps",
        title=title,
        caption=caption,
        picture=svg(
            "gaps",
            title,
            caption + " " + "; ".join(f"{name}: {grouped(count)}" for name, count in counts) + ".",
            TOP + PLOT + 2 * FOOT - 6,
            grid(plot),
            *(
                together(
                    (
                        plot.column("after" if place == len(counts) - 1 else "recorded", place, 0, count),
                        tag("text", grouped(count), class_="value", x=n(plot.x(place)), y=n(plot.y(count) - 7)),
                        tag("text", name, class_="middle", x=n(plot.x(place)), y=TOP + PLOT + 24),
                    )
                )
                for place, (name, count) in enumerate(counts)
            ),
            tag("line", class_="border", x1=n(line), x2=n(line), y1=TOP, y2=TOP + PLOT + FOOT),
            tag(
                "text",
                say("before the revocation"),
                class_="lane-name",
                x=n(line - 10),
                y=TOP + PLOT + 50,
                text_anchor="end",
            ),
            tag("text", say("after it"), class_="lane-name", x=n(line + 10), y=TOP + PLOT + 50, text_anchor="start"),
        ),
    )


def after_revocation(report: AuditReport, say: Say = str) -> str:
    """The plain sentence on accesses after a revocation."""
    used = report.totals.used_and_revoked
    if after := report.totals.accesses_after_revocation:
        return say("Accesses that were recorded after their consent had been revoked: %(after)s.") % {
            "after": grouped(after)
        }
    if not is_proven(report):
        return say("Whether an access was recorded after a revocation is not known: not everything could be checked.")
    if not used:
        return say("No consent was used and then revoked, and no access was recorded after a revocation.")
    return say("No access was recorded after a revocation. Consents that were used and then revoked: %(used)s.") % {
        "used": grouped(used)
    }
