"""The command line: thin verbs over `Custodian`. Every verb takes `--json`.

Here are the entry point and the verbs about the installation; the others are in `cli_serve.py`, `cli_writers.py`,
`cli_parties.py`, `cli_data.py`, `cli_disputes.py`, `cli_consents.py`, `cli_requests.py`, `cli_duties.py`,
`cli_evidence.py`, `cli_orders.py`, `cli_prompts.py` and, for the auditor, `cli_auditor.py`.

Exit codes: 0 done · 1 the answer is no (consent) · 2 the request is wrong · 3 store, keys or set-up · 4 the chain ·
5 something that must hold does not (verification, demo).

Secrets are read from files that only their owner can read, never from arguments, and are never printed.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, Final

import typer
from rich.console import Console

from ledger import (
    cli_auditor,
    cli_consents,
    cli_data,
    cli_disclose,
    cli_disputes,
    cli_duties,
    cli_evidence,
    cli_orders,
    cli_parties,
    cli_prompts,
    cli_requests,
    cli_serve,
    cli_writers,
    deploy,
)
from ledger.cli_output import open_custodian
from ledger.cli_terminal import Json, fail, json_fields, out, plain, progress_bar, show
from ledger.cli_writers import writer_fields
from ledger.config import Config
from ledger.custodian import Custodian
from ledger.demo import run_demo
from ledger.devnet import fund
from ledger.errors import AuditError, ChainError, ConfigError, LedgerError, LogAheadError
from ledger.jsonrpc import JsonRpc, RpcError
from ledger.writers import meaning_of

PANEL: Final = "Installation"

app = typer.Typer(
    help="Consent Ledger: no access without a signed consent, no release before it is on the log.",
    epilog=(
        "Environment: CONSENT_LEDGER_DATA is the directory of database and keys, CONSENT_LEDGER_RPC_URL the chain; "
        "more in ledger/config.py. Exit codes: 0 done, 1 the answer is no, 2 the request is wrong, "
        "3 store, keys or set-up, 4 the chain, 5 something that must hold does not."
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
contracts_app = typer.Typer(help="The contract.", no_args_is_help=True)
keys_app = typer.Typer(help="The custodian's keys.", no_args_is_help=True)


@app.command(rich_help_panel=PANEL)
def demo(
    *,
    rpc_url: Annotated[
        str | None, typer.Option(help="An anvil to use instead of starting a node; everything on it is lost.")
    ] = None,
    as_json: Json = False,
) -> None:
    """The main job on real data, from an empty chain to a checked log. Leaves nothing behind."""
    report = run_demo(rpc_url=rpc_url, console=Console(quiet=True) if as_json else out)
    if as_json:
        sys.stdout.write(json.dumps(report.as_json(), indent=1) + "\n")
        sys.stdout.flush()
    if not report.holds:
        raise AuditError("a property does not hold: see the report")


@app.command(rich_help_panel=PANEL)
def init(*, as_json: Json = False) -> None:
    """Make keys, accounts and an empty database in the data directory. Overwrites nothing."""
    config = Config.from_env()
    Custodian.init(config)
    with Custodian(config) as custodian:
        show(as_json, {"data": str(config.data), "custodian": custodian.address}, f"Ready in {plain(str(config.data))}")


@app.command("deploy", rich_help_panel=PANEL)
def deploy_contract(
    *,
    fund_accounts: Annotated[
        bool, typer.Option("--fund", metavar="", help="On a devnet: give the accounts gas money.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Put the contract on chain, unless it is there, and let the writers append."""
    with open_custodian() as custodian:
        if fund_accounts:
            fund(custodian.rpc, [account.address for account in custodian.accounts.every()])
        try:
            deployed = custodian.deploy()
        except ChainError:
            # Nodes put it in words of their own.
            if _is_penniless(custodian):
                raise ConfigError(
                    f"the custodian's account {custodian.address} has no gas money: send it some, as to the others in "
                    f"{custodian.config.account_file}; on a devnet --fund does"
                ) from None
            raise
        address = custodian.chain.domain.contract
        what = "deployed" if deployed else "is there already"
        show(as_json, {"contract": address, "deployed": deployed}, f"The contract {what}: {address}")


def _is_penniless(custodian: Custodian) -> bool:
    try:
        return bool(custodian.rpc("eth_getBalance", custodian.address, "latest") == "0x0")
    except (ChainError, RpcError):
        return False


@app.command(rich_help_panel=PANEL)
def sync(*, as_json: Json = False) -> None:
    """Make chain and journal agree: relay what is pending, put back what the chain lost, log refusals.

    Says which writers' logs on chain have entries that are not on file, and then ends with exit code 4.
    """
    with open_custodian() as custodian:
        report = custodian.sync()
    numbers = {name: getattr(report, name) for name in report.__slots__ if name != "ahead"}
    done = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in numbers.items() if count)
    if report.ahead:
        human = f"Not in sync; done: {done or 'nothing'}."
    else:
        human = f"In sync now: {done}." if done else "In sync."
    show(as_json, {**json_fields(numbers), "ahead": [writer_fields(log) for log in report.ahead]}, human)
    if report.ahead:
        told = "; ".join(meaning_of(log) for log in report.ahead)
        raise LogAheadError(
            f"{told}. Nothing is built on it: `consent-ledger writers retire ADDRESS` takes it out of use for good, "
            "and releases go on with another key; what to do before that is in the README, under Backup and restore"
        )


@app.command(rich_help_panel=PANEL)
def backup(
    *, target: Annotated[Path, typer.Argument(help="A new file; nothing is overwritten.")], as_json: Json = False
) -> None:
    """Copy the database, as it is at one moment, also while the service runs.

    The keys are not in it, and without them it cannot be read: back up the directory of the keys apart from it, and
    anew after every rotation, which makes every older backup unreadable.
    """
    with open_custodian() as custodian:
        custodian.store.backup(target)
        keys = custodian.config.key_file.parent
    size = target.stat().st_size
    show(
        as_json,
        {"backup": str(target), "bytes": size, "keys": str(keys)},
        f"The database is in {plain(str(target))} ({size} bytes).\n"
        f"Not in it: {plain(str(keys))}, to be kept apart, and backed up anew after every rotation.",
    )


@contracts_app.command("verify")
def contracts_verify(
    *,
    solc: Annotated[Path | None, typer.Option(help="A Solidity compiler; default: the checkout's.")] = None,
    as_json: Json = False,
) -> None:
    """Recompile the sources and compare with the code on chain."""
    found = deploy.verify(JsonRpc(Config.from_env().rpc_url), solc)
    show(
        as_json,
        {"contract": found.contract, "compiler": found.compiler, "sources": found.sources, "bytes": found.code_size},
        f"The code at {found.contract} is what {found.sources} source files compile to (solc {found.compiler}).",
    )


@keys_app.command("rotate")
def keys_rotate(*, as_json: Json = False) -> None:
    """Re-wrap everything under a new KEK and destroy the old one."""
    with open_custodian() as custodian, progress_bar(hidden=as_json) as bar:
        task = bar.add_task("re-wrapping", total=None)
        rotation = custodian.rotate_keys(lambda done, total: bar.update(task, completed=done, total=total))
    human = f"Active: {rotation.active}; destroyed: {', '.join(rotation.destroyed) or 'none'}."
    if rotation.kept:
        human += (
            f"\nKept, because another process (`consent-ledger up`?) may be using it: {', '.join(rotation.kept)}."
            "\nEnd that process and rotate again to destroy it."
        )
    show(
        as_json,
        {"active": rotation.active, "destroyed": list(rotation.destroyed), "kept": list(rotation.kept)},
        human,
    )


app.add_typer(contracts_app, name="contracts", rich_help_panel=PANEL)
app.add_typer(keys_app, name="keys", rich_help_panel=PANEL)
app.add_typer(cli_serve.app)
app.add_typer(cli_writers.app)
app.add_typer(cli_data.app)
app.add_typer(cli_disputes.app)
app.add_typer(cli_parties.app)
app.add_typer(cli_consents.app)
app.add_typer(cli_requests.app)
app.add_typer(cli_duties.app)
app.add_typer(cli_orders.app)
app.add_typer(cli_evidence.app)
app.add_typer(cli_prompts.app)
app.add_typer(cli_disclose.app)
# Listed here for --help; run by cli_main.py without the rest.
app.add_typer(cli_auditor.app, name="audit", rich_help_panel=cli_auditor.PANEL)


def main() -> None:
    """Entry point: turns every error of this package into a message and an exit code."""
    for ending in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(ending) is signal.SIG_DFL:
            # By an exception, so that a local chain is not left behind.
            signal.signal(ending, _end)
    try:
        app()
    except LedgerError as exc:
        fail(exc)
    except OSError as exc:
        fail(ConfigError(f"{exc.filename}: {exc.strerror}" if exc.filename else str(exc)))


def _end(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
