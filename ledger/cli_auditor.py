"""The auditor's verbs, all of them, by themselves: without what a custodian needs they start in half the time.

Exit codes: 0 clean · 1 findings · 2 could not verify (also: asked in a way that makes no sense).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NoReturn

import typer

from ledger import cli_audit, cli_checkpoint, cli_disclosure, cli_reconcile
from ledger.cli_audit_options import COULD_NOT
from ledger.cli_terminal import fail
from ledger.errors import LedgerError

PANEL: Final = "Evidence"
app = typer.Typer(
    help="Check everything from the chain alone: no key, no database, no custodian. Exit codes: 0 clean, 1 findings, "
    "2 could not verify.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for verbs in (cli_audit, cli_disclosure, cli_checkpoint, cli_reconcile):
    verbs.add_to(app)


def main(args: Sequence[str]) -> NoReturn:
    """Run the verb; whatever stands in its way means that nothing was verified."""
    try:
        app(args=list(args), prog_name="consent-ledger audit")
    except LedgerError as exc:
        fail(exc, exit_code=COULD_NOT)
    raise SystemExit(0)
