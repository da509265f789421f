"""The verbs about duties: what institutions still owe after a release."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from ledger.cli_output import open_custodian
from ledger.cli_terminal import Json, plain, show
from ledger.json_forms import iso_time

PANEL: Final = "Consents"
app = typer.Typer()
duties_app = typer.Typer(help="What institutions owe after a release.", no_args_is_help=True)
app.add_typer(duties_app, name="duties", rich_help_panel=PANEL)


@duties_app.command("overdue")
def duties_overdue(
    *, subject: Annotated[str | None, typer.Option(help="Only of this person.")] = None, as_json: Json = False
) -> None:
    """Deletions that were due and were not attested, the one that waits longest first."""
    with open_custodian() as custodian:
        subject_id = None if subject is None else custodian.vault.subject_of(subject)
        found = custodian.duties.overdue(subject_id)
    rows = [{"consent": one.consent_id, "institution": one.institution, "dueAt": iso_time(one.due_at)} for one in found]
    human = [f"{row['consent']}\n    {plain(row['institution'])}, due {row['dueAt']}" for row in rows]
    show(as_json, rows, "\n".join(human) or "Nothing is overdue.")
