"""The verbs about writers: whose logs there are, and which key is taken out of use."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from ledger.cli_output import open_custodian
from ledger.cli_terminal import Json, agrees, show, table
from ledger.consent import parse_address
from ledger.devnet import fund
from ledger.errors import MalformedError
from ledger.writers import WriterLog

PANEL: Final = "Installation"
app = typer.Typer()
writers_app = typer.Typer(help="The keys that append to the custodian's logs.", no_args_is_help=True)
app.add_typer(writers_app, name="writers", rich_help_panel=PANEL)

Writer = Annotated[
    str,
    typer.Argument(
        help="Its address, as `writers list` has it.", callback=lambda value: parse_address(value, "writer")
    ),
]


@writers_app.command("list")
def writers_list(*, as_json: Json = False) -> None:
    """Every writer key: whether it can be used, and its entries on chain and on file."""
    with open_custodian() as custodian:
        rows = [writer_fields(log) for log in custodian.writers.logs()]
    show(as_json, rows, table(rows))


@writers_app.command("add")
def writers_add(
    *,
    fund_account: Annotated[bool, typer.Option("--fund", metavar="", help="On a devnet: give it gas money.")] = False,
    as_json: Json = False,
) -> None:
    """Make one more writer key and let it append on chain: for one that was taken out of use, or for more workers.

    It is in the file of the accounts, which is to be backed up anew. It pays for what it appends.
    """
    with open_custodian() as custodian:
        log = custodian.add_writer()
        if fund_account:
            fund(custodian.rpc, [log.address])
    needs = "" if fund_account else " Send it gas money, as to the others."
    show(
        as_json,
        writer_fields(log),
        f"{log.address} may append.{needs}\nBack up the keys anew. A service knows it from its next start on.",
    )


@writers_app.command("retire")
def writers_retire(
    *,
    writer: Writer,
    yes: Annotated[bool, typer.Option("--yes", metavar="", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Take a writer key out of use on chain, for good.

    For one whose log is ahead of the journal, or whose key somebody else may have. Its entries stay on chain; `audit
    reconcile` names those that are not on file. Releases go on with another key.
    """
    if not yes and (as_json or not agrees(f"Take {writer} out of use for ever? This cannot be undone.")):
        raise MalformedError(
            "yes: the writer is as it was, because nobody agreed (--yes agrees beforehand)", field="yes"
        )
    with open_custodian() as custodian:
        log = custodian.writers.retire(parse_address(writer, "writer"))
        left = sum(one.state == "usable" for one in custodian.writers.logs())
    show(
        as_json,
        {**writer_fields(log), "usableWriters": left},
        f"{writer} may append no more. Writers that can be used: {left}.\nNow run `consent-ledger sync`.",
    )


def writer_fields(log: WriterLog) -> dict[str, object]:
    """A writer's log as JSON has it."""
    return {"writer": log.address, "state": log.state, "onChain": log.on_chain, "onFile": log.on_file}
