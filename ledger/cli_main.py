"""The entry point. The auditor's verbs are loaded without all that a custodian needs: they start in half the time."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the verb that the arguments name."""
    if sys.argv[1:2] == ["audit"]:
        from ledger.cli_auditor import main as audit  # noqa: PLC0415 - see above

        audit(sys.argv[2:])
    from ledger.cli import main as every  # noqa: PLC0415 - see above

    every()
