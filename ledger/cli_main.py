"""The entry point. The auditor's verbs are loaded without all that a custodian needs: they start in half the time."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the verb that the arguments name."""
    if sys.argv[1:2] == ["audit"]:
        from ledger import cli_audit, cli_checkpoint, cli_reconcile  # noqa: PLC0415 - see above

        cli_checkpoint.add_to(cli_audit.app)
        cli_reconcile.add_to(cli_audit.app)
        cli_audit.main(sys.argv[2:])
    from ledger.cli import main as every  # noqa: PLC0415 - see above

    every()
