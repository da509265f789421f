"""The verbs about prompts: evidence for an auditor that nobody is pressed."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from ledger.cli_output import open_custodian
from ledger.cli_terminal import Json, show, table

PANEL: Final = "Evidence"
app = typer.Typer()
prompts_app = typer.Typer(help="How often people were asked, and what they answered.", no_args_is_help=True)
app.add_typer(prompts_app, name="prompts", rich_help_panel=PANEL)


@prompts_app.command("export")
def prompts_export(
    *,
    institution: Annotated[str | None, typer.Option(help="Only of this institution.")] = None,
    since: Annotated[str | None, typer.Option(help="From this day on (YYYY-MM-DD, UTC).")] = None,
    as_json: Json = False,
) -> None:
    """Counts by institution and day: prompts, hidden repetitions, answers, and the steps that each answer took."""
    with open_custodian() as custodian:
        found = custodian.prompts.counts(institution_id=institution, first_day=since)
    rows = [one.as_json() for one in found]
    show(as_json, rows, table(rows) if rows else "Nobody was asked anything.")
