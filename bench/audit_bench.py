"""A full audit beside its floor: `make bench-audit` prints it and writes bench/audit.json.

The floor is what nobody can go without: all logs by `eth_getLogs`, from the same node, the entries folded to the heads;
nothing else. The audit is the whole command `consent-ledger audit chain`, from its start to its verdict: every header,
every receipt proven, every consent and log replayed, the storage root rebuilt. Every phase is a process of its own, the
node too (`audit_feed.py`); floor and audit take turns, so that their ratio means something. Recompiling the sources is
timed by itself: it takes the same time for every ledger. 10^4 entries are also on a real node (Hardhat's).
"""

from __future__ import annotations

import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from eth_account import Account
from eth_account.signers.local import LocalAccount

from ledger.access import BatchKind, LoggedAccess, fold
from ledger.chain import Chain, JsonRpc
from ledger.config import Config
from ledger.consent import ZERO32, Hex32, OuterGrant, Reason, hex32_of
from ledger.contract import append_call, grant_call
from ledger.custodian import Custodian
from ledger.devnet import Devnet, free_port, fund
from ledger.errors import ChainUnavailableError

ROOT: Final = Path(__file__).parent.parent
FEED: Final = ROOT / "bench/audit_feed.py"
FLOOR: Final = ROOT / "bench/audit_floor.py"
SIZES: Final = (10_000, 100_000, 1_000_000)
ROUNDS: Final = {10_000: 3, 100_000: 3, 1_000_000: 2}
DEVNET_ENTRIES: Final = 10_000
DEVNET_BATCH: Final = 500
DEVNET_CONSENTS: Final = 40


@dataclass(frozen=True)
class Ran:
    """A process that has ended: how long it took, its peak memory, what it printed."""

    seconds: float
    megabytes: float
    output: dict[str, Any]


def ran(command: Sequence[str], codes: Sequence[int] = (0,)) -> Ran:
    started = time.perf_counter()
    with tempfile.TemporaryFile() as out, subprocess.Popen(command, stdout=out) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - started
        out.seek(0)
        text = out.read()
    if process.returncode not in codes:
        raise RuntimeError(f"{command} ended with {process.returncode}: {text[-2000:]!r}")
    return Ran(seconds, usage.ru_maxrss / 1024, json.loads(text))


# --------------------------------------------------------------------------------------------------------------- phases


def audit(url: str, *options: str) -> Ran:
    command = [str(Path(sys.executable).parent / "consent-ledger"), "audit", "chain", "--json", "--without-compiler"]
    return ran([*command, "--rpc-url", url, *options])


def measured(url: str, entries: int, home: Path) -> dict[str, Any]:
    """Floor and audit in turns, then an audit over no news."""
    pairs: list[tuple[Ran, Ran]] = []
    state = home / f"{entries}.state"
    ways: list[Callable[[], Ran]] = [
        lambda: ran([sys.executable, str(FLOOR), url]),
        lambda: audit(url, "--state", str(state)),
    ]
    for number in range(ROUNDS.get(entries, 2)):
        state.unlink(missing_ok=True)
        order = (0, 1) if number % 2 == 0 else (1, 0)
        done = {which: ways[which]() for which in order}
        pairs.append((done[0], done[1]))
        said, folded = done[1].output, done[0].output
        assert said["verdict"] == "clean", said
        assert said["totals"]["entries"] == folded["entries"] == entries, said["totals"]
    idle = statistics.median(audit(url, "--state", str(state)).seconds for _ in range(3))
    bare = statistics.median(one.seconds for one, _ in pairs)
    took = statistics.median(one.seconds for _, one in pairs)
    return {
        "entries": entries,
        "seconds": round(took, 2),
        "entries_per_second": round(entries / took),
        "floor_entries_per_second": round(entries / bare),
        "audit_over_floor": round(statistics.median(one.seconds / other.seconds for one, other in pairs), 3),
        "peak_rss_mb": round(max(one.megabytes for _, one in pairs)),
        "floor_peak_rss_mb": round(max(one.megabytes for one, _ in pairs)),
        "incremental_idle_s": round(idle, 2),
    }


@contextmanager
def serving(directory: Path) -> Iterator[str]:
    """The node of a made ledger, in a process of its own."""

    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen([sys.executable, str(FEED), "serve", str(directory), str(port)]) as process:
        try:
            for _ in range(200):
                try:
                    JsonRpc(url)("eth_chainId")
                    break
                except ChainUnavailableError:
                    time.sleep(0.05)
            yield url
        finally:
            process.terminate()


@contextmanager
def devnet(home: Path) -> Iterator[str]:
    """Hardhat's node with that many entries, appended in large batches."""

    with Devnet(port=free_port(), log=home / "devnet.log") as node:
        config = Config(data=home / "data", rpc_url=node.url)
        Custodian.init(config)
        with Custodian(config) as custodian:
            chain, subject, writer = custodian.chain, Account.create(), custodian.accounts.writers[0]
            fund(custodian.rpc, [subject.address, *(account.address for account in custodian.accounts.every())])
            custodian.deploy()
            before, now = set(_granted(chain)), chain.latest().timestamp
            for _ in range(DEVNET_CONSENTS):
                outer = OuterGrant(
                    terms_hash=hex32_of(os.urandom(32)),
                    subject=subject.address,
                    custodian=custodian.address,
                    valid_from=now - 10,
                    expires_at=now + 86_400,
                    max_accesses=2**32 - 1,
                )
                _send(chain, subject, grant_call(outer, b""), gas=200_000)
            consents = [one for one in _granted(chain) if one not in before]
            head = ZERO32
            for _ in range(DEVNET_ENTRIES // DEVNET_BATCH):
                batch = [
                    LoggedAccess(consent_id=one, entry_hash=hex32_of(os.urandom(32)))
                    for one in random.choices(consents, k=DEVNET_BATCH)
                ]
                _send(chain, writer, append_call(BatchKind.ACCESSES, custodian.address, head, batch), gas=16_000_000)
                head = fold(head, BatchKind.ACCESSES, batch, [Reason.NONE] * DEVNET_BATCH)
        yield node.url


def _granted(chain: Chain) -> list[Hex32]:
    return [event.args[0] for event in chain.events(0, chain.latest().number) if event.name == "ConsentGranted"]


def _send(chain: Chain, account: LocalAccount, call: bytes, *, gas: int) -> None:
    signed = chain.sign(account, call, gas=gas)
    chain.send(signed.raw)
    assert chain.wait(signed.transaction_hash, timeout=60).succeeded


def compile_seconds() -> float:
    """What recompiling the sources takes, which an audit does once for each code."""
    return ran([sys.executable, "-c", "from ledger.compiler import recompile; recompile(); print(1)"]).seconds


def main() -> None:
    sizes = tuple(int(one) for one in sys.argv[1:]) or SIZES
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        for size in sizes:
            subprocess.run([sys.executable, str(FEED), "make", str(home / str(size)), str(size)], check=True)
            with serving(home / str(size)) as url:
                result[f"entries_{size}"] = shown(f"{size} entries", measured(url, size, home))
            shutil.rmtree(home / str(size))
        with devnet(home) as url:
            result["devnet"] = shown("on Hardhat's node", measured(url, DEVNET_ENTRIES, home))
    largest, smaller = result[f"entries_{sizes[-1]}"], result[f"entries_{sizes[-2 if len(sizes) > 1 else -1]}"]
    result["compile_s"] = round(compile_seconds(), 2)
    result["audit_over_floor"] = largest["audit_over_floor"]
    result["incremental_idle_s"] = max(one["incremental_idle_s"] for one in (largest, smaller, result["devnet"]))
    # Seconds for each entry at the largest size over those at the one before: 1 is linear.
    result["slope"] = round(smaller["entries_per_second"] / largest["entries_per_second"], 2)
    if sizes == SIZES:
        result["peak_rss_mb_1e6"] = largest["peak_rss_mb"]
        (ROOT / "bench/audit.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({name: value for name, value in result.items() if not isinstance(value, dict)}, indent=2))


def shown(name: str, numbers: dict[str, Any]) -> dict[str, Any]:
    print(
        f"{name:<20} audit {numbers['entries_per_second']:>8}/s   floor {numbers['floor_entries_per_second']:>8}/s   "
        f"ratio {numbers['audit_over_floor']:>5}   peak {numbers['peak_rss_mb']:>4} MB   "
        f"no news {numbers['incremental_idle_s']} s",
        flush=True,
    )
    return numbers


if __name__ == "__main__":
    main()
