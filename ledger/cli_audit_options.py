"""What every verb of the auditor is given: endpoints, contract and block, read once for all of them."""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer
from rich.progress import Progress

from ledger.artifact import contract_address
from ledger.audit import Asked, Audit, audit_chain
from ledger.audit_report import Verdict
from ledger.audit_state import AuditState
from ledger.cli_terminal import fail, progress_bar
from ledger.consent import Domain, Hex32, parse_address, parse_hex32
from ledger.errors import LedgerError, MalformedError
from ledger.jsonrpc import JsonRpc

EXIT_CODES: Final = {Verdict.CLEAN: 0, Verdict.FINDINGS: 1, Verdict.UNVERIFIED: 2}
COULD_NOT: Final = 2
DEVNET_URL: Final = "http://127.0.0.1:8545"
DEVNET_CHAIN_ID: Final = 31337
TIMEOUT_SECONDS: Final = 30.0
_LONGEST_NUMBER: Final = 16

RpcUrls = Annotated[
    list[str] | None,
    typer.Option("--rpc-url", envvar="CONSENT_LEDGER_RPC_URL", help="A node to ask; give two, and they must agree."),
]
Contract = Annotated[str | None, typer.Option(help="The contract. Default: where this version's is on every chain.")]
ChainId = Annotated[int, typer.Option(envvar="CONSENT_LEDGER_CHAIN_ID", help="The chain that is meant.")]
At = Annotated[str | None, typer.Option("--block", help="The block, by its hash (best: from elsewhere) or its number.")]
Tag = Annotated[str, typer.Option(envvar="CONSENT_LEDGER_FINALITY", help="Without --block: which newest block.")]
FromBlock = Annotated[int, typer.Option(min=0, help="The first block to read: one before the contract was deployed.")]
Headers = Annotated[str, typer.Option(help="all: every header, linked. events: on long chains, only where events are.")]

Solc = Annotated[Path | None, typer.Option(help="A Solidity compiler; default: the checkout's, or py-solc-x gets one.")]
WithoutCompiler = Annotated[
    bool, typer.Option("--without-compiler", help="Believe that the bytecode which ships is that of the sources.")
]


def domain_of(contract: str | None, chain_id: int) -> Domain:
    """The ledger that is meant. Raises `MalformedError`."""
    address = contract_address() if contract is None else parse_address(contract, "contract")
    return Domain(chain_id=chain_id, contract=address)


def block_of(text: str | None) -> Hex32 | int | None:
    """A block by its hash or its number. Raises `MalformedError`."""
    if text is None:
        return None
    if text.isascii() and text.isdigit() and len(text) < _LONGEST_NUMBER:
        return int(text)
    return parse_hex32(text, "block")


def wants_all_headers(text: str) -> bool:
    """Raises `MalformedError`."""
    if text not in ("all", "events"):
        raise MalformedError("headers: expected all or events", field="headers")
    return text == "all"


def asked_of(contract: str | None, chain_id: int, block: str | None, tag: str, from_block: int, headers: str) -> Asked:
    """What these options ask for; the sources are not compiled. Raises `MalformedError`."""
    return Asked(
        domain=domain_of(contract, chain_id),
        block=block_of(block),
        tag=tag,
        first_block=from_block,
        all_headers=wants_all_headers(headers),
        compile_sources=False,
    )


def endpoints(urls: Sequence[str] | None) -> list[JsonRpc]:
    """The nodes to ask, none of them trusted: answers have an end."""
    return [JsonRpc(url, timeout=TIMEOUT_SECONDS) for url in urls or [DEVNET_URL]]


class Steps:
    """Shows how many blocks were read."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task = bar.add_task("blocks", total=None)

    def __call__(self, done: int, of: int) -> None:
        """So many of so many."""
        self._bar.update(self._task, completed=done, total=of)


def audited(urls: Sequence[str] | None, asked: Asked, before: AuditState | None, *, quiet: bool) -> Audit:
    """The audit by these endpoints, with a bar that shows how far it is unless `quiet`."""
    # Books and batches hold no cycles: the collector would go through all of them again and again and free nothing.
    gc.disable()
    with progress_bar(hidden=quiet) as bar:
        return audit_chain(endpoints(urls), asked, now=int(time.time()), state=before, step=Steps(bar))


def auditors_app() -> typer.Typer:
    """An app for verbs of the auditor."""
    return typer.Typer(
        help="Check everything from the chain alone: no key, no database, no custodian (`reconcile` alone is for a "
        "custodian, on its own data). Exit codes: 0 clean, 1 findings, 2 could not verify.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
    )


def run(app: typer.Typer, args: Sequence[str]) -> NoReturn:
    """Run a verb; whatever stands in its way means that nothing was verified."""
    try:
        app(args=list(args), prog_name="consent-ledger audit")
    except LedgerError as exc:
        fail(exc, exit_code=COULD_NOT)
    except Exception:  # noqa: BLE001 - Python's own exit code, 1, would say that something was found
        traceback.print_exc()
        raise SystemExit(COULD_NOT) from None
    raise SystemExit(0)
