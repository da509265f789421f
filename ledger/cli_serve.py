"""The verbs that run until Ctrl-C: the service, a local chain, and both together."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Annotated, Final, NoReturn

import typer

from ledger import demo_seed
from ledger.cli_terminal import Json, number_of, plain, show, warn
from ledger.config import DEVNET_PORT, SERVICE_PORT, Config
from ledger.custodian import Custodian
from ledger.devnet import Devnet, fund
from ledger.errors import ConfigError, DevnetError, StoreUnavailableError
from ledger.locks import FileLock
from ledger.serving import Service

PANEL: Final = "Installation"
ChainPort = Annotated[int, typer.Option("--port", min=1, max=65535, help="Port of the local chain, on loopback.")]
HttpPort = Annotated[
    int, typer.Option("--http-port", envvar="PORT", min=1, max=65535, help="Port of the service, on loopback.")
]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes, each with a writer key. Default: one per core.")]

app = typer.Typer()


@app.command(rich_help_panel=PANEL)
def serve(*, http_port: HttpPort = SERVICE_PORT, workers: Workers = None, as_json: Json = False) -> None:
    """Run the API in the foreground until Ctrl-C; what is in flight then is answered first."""
    config = Config.from_env(port=http_port)
    # All of it: interrupted before the service is there, it must not be started.
    with _until_interrupted():
        with Custodian(config) as custodian:
            custodian.chain.check()
            # Before anyone can ask for their data.
            custodian.eraser.erase_again()
            contract = custodian.chain.domain.contract
        with Service(config, port=http_port, workers=workers) as service:
            show(
                as_json,
                {"serviceUrl": config.service_url, "contract": contract},
                f"Serving {config.service_url}; Ctrl-C ends it. Documentation: {service.url}/docs",
            )
            while service.is_running():
                time.sleep(0.5)
            raise ConfigError("the service ended by itself")


@app.command(rich_help_panel=PANEL)
def up(
    *,
    port: ChainPort = DEVNET_PORT,
    http_port: HttpPort = SERVICE_PORT,
    workers: Workers = None,
    with_demo: Annotated[bool, typer.Option("--demo/--no-demo", help="With people and lenders to try it with.")] = True,
    as_json: Json = False,
) -> None:
    """Run a local chain and the service in the foreground until Ctrl-C; state stays in the data directory."""
    # A local chain is for trying things out, and so is a receiver of webhooks on this machine.
    config = replace(Config.from_env(port=http_port), insecure_webhooks=True)
    alone = FileLock(config.locks / "up")
    if not alone.acquire():
        # Two chains would take turns in being the one that lost the other's entries.
        raise StoreUnavailableError(f"another `consent-ledger up` is at work in {config.data}")
    if not config.database.exists():
        Custodian.init(config)
    with Devnet(port=port, log=config.data / "devnet.log") as node, _until_interrupted():
        here = replace(config, rpc_url=node.url)
        with Custodian(here) as custodian:
            fund(custodian.rpc, [account.address for account in custodian.accounts.every()])
            custodian.deploy()
            report = custodian.sync()
            contract = custodian.chain.domain.contract
            demo = with_demo and demo_seed.is_place_for(here)
            if demo:
                demo_seed.seed(custodian)
        with Service(here, port=http_port, workers=workers, demo=demo) as service:
            lines = [
                "Up; Ctrl-C ends it, and what is on file is kept.",
                f"  service   {service.url}   documentation at /docs",
                *([f"  demo      {config.portal_origin}/demo   start here"] if demo else []),
                f"  chain     {node.url}",
                f"  contract  {contract}",
                f"  data      {plain(str(config.data))}",
            ]
            if report.replayed_acts or report.replayed_accesses:
                acts = number_of(report.replayed_acts, "signed act")
                lines.append(f"  put back  {acts}, {report.replayed_accesses} accesses")
            if config.rpc_url != node.url:
                lines.append(f"For the other verbs: export CONSENT_LEDGER_RPC_URL={node.url}")
            show(
                as_json,
                {
                    "serviceUrl": config.service_url,
                    "rpcUrl": node.url,
                    "contract": contract,
                    "data": str(config.data),
                    "replayedActs": report.replayed_acts,
                    "replayedAccesses": report.replayed_accesses,
                },
                "\n".join(lines),
            )
            _keep_going(node, service)


@app.command(rich_help_panel=PANEL)
def devnet(*, port: ChainPort = DEVNET_PORT, as_json: Json = False) -> None:
    """Run a local chain in the foreground until Ctrl-C. It keeps nothing; `sync` puts back what it lost."""
    config = Config.from_env()
    with Devnet(port=port, log=config.data / "devnet.log") as node, _until_interrupted():
        show(
            as_json,
            {"rpcUrl": node.url, "log": str(config.data / "devnet.log")},
            f"A local chain at {node.url}; Ctrl-C ends it. `consent-ledger deploy --fund` puts the contract on it.",
        )
        _keep_going(node)


@contextmanager
def _until_interrupted() -> Iterator[None]:
    """Ctrl-C is how it ends, not an error."""
    try:
        yield
    except KeyboardInterrupt:
        warn("Stopping.")


def _keep_going(node: Devnet, service: Service | None = None) -> NoReturn:
    while node.is_running():
        if service is not None and not service.is_running():
            raise ConfigError("the service ended by itself")
        time.sleep(0.5)
    raise DevnetError("the local chain ended by itself")
