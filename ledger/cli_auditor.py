"""The auditor's verbs, all of them, by themselves: without what a custodian needs they start in half the time.

Exit codes: 0 clean · 1 findings · 2 could not verify (also: asked in a way that makes no sense).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NoReturn

from ledger import cli_audit, cli_checkpoint, cli_disclosure, cli_reconcile
from ledger.cli_audit_options import auditors_app, run

PANEL: Final = "Evidence"
app = auditors_app()
for verbs in (cli_audit, cli_disclosure, cli_checkpoint, cli_reconcile):
    verbs.add_to(app)


def main(args: Sequence[str]) -> NoReturn:
    """Run the verb that the arguments name."""
    run(app, args)
