"""The entry point. An auditor's verbs are loaded without what others need: an audit without news is over at once."""

from __future__ import annotations

import sys
from typing import Final

OFTEN: Final = (["chain"], ["consent"])
"""The auditor's verbs that are loaded alone, because they may be run every minute."""


def main() -> None:
    """Run the verb that the arguments name."""
    if sys.argv[1:2] == ["audit"]:
        if sys.argv[2:3] in OFTEN:
            from ledger.cli_audit import main as audit  # noqa: PLC0415 - what is not run is not loaded
        else:
            from ledger.cli_auditor import main as audit  # noqa: PLC0415 - as above
        audit(sys.argv[2:])
    from ledger.cli import main as every  # noqa: PLC0415 - as above

    every()
