"""The verbs about disputes: what people say is wrong, and how the custodian settles it."""

from __future__ import annotations

import textwrap
from typing import Annotated, Any, Final

import typer

from ledger.cli_output import open_custodian
from ledger.cli_terminal import Json, plain, show
from ledger.disputes import RESOLUTIONS, Dispute
from ledger.json_forms import iso_time

PANEL: Final = "Data"
app = typer.Typer()
disputes_app = typer.Typer(help="What people say is wrong.", no_args_is_help=True)
app.add_typer(disputes_app, name="disputes", rich_help_panel=PANEL)


@disputes_app.command("list")
def disputes_list(*, as_json: Json = False) -> None:
    """Those that are open, the one that waits longest first."""
    with open_custodian() as custodian:
        found = custodian.disputes.waiting()
    human = [
        f"{one.dispute_id}\n    {one.attribute}, open since {iso_time(one.opened_at)}\n"
        + textwrap.indent("\n".join(plain(line) for line in one.statement.split("\n")), "    ")
        for one in found
    ]
    show(as_json, [dispute_fields(one) for one in found], "\n".join(human) or "No dispute is open.")


@disputes_app.command("resolve")
def disputes_resolve(
    *,
    dispute: Annotated[str, typer.Argument(help="Its id, as `disputes list` shows it.")],
    outcome: Annotated[str, typer.Option(help=f"One of {', '.join(RESOLUTIONS)}.")],
    answer: Annotated[str, typer.Option(help="What the person reads.")],
    as_json: Json = False,
) -> None:
    """Settle a dispute after looking into it; the attribute can be released again."""
    with open_custodian() as custodian:
        made = custodian.disputes.resolve(dispute, outcome, answer)
    show(as_json, dispute_fields(made), f"{made.attribute}: {made.outcome}.")


def dispute_fields(one: Dispute) -> dict[str, Any]:
    """A dispute, for machines."""
    return {
        "dispute": one.dispute_id,
        "attribute": one.attribute,
        "statement": one.statement,
        "openedAt": iso_time(one.opened_at),
        "closedAt": None if one.closed_at is None else iso_time(one.closed_at),
        "outcome": one.outcome,
        "answer": one.answer,
    }
