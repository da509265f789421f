"""A full audit beside its floor: `make bench-audit` prints it and writes bench/audit.json.

The floor is what nobody can go without: all logs by `eth_getLogs`, from the same node, the entries folded to the heads;
nothing else. The audit is the whole command `consent-ledger audit chain`, from its start to its verdict: every header,
every receipt proven, every consent and log replayed, the storage root rebuilt. Every phase is a process of its own, the
node too (`audit_feed.py`); floor and audit take turns, so that their ratio means something. Recompiling the sources is
timed by itself: it takes the same time for every ledger. 10^4 entries are also on a real node (Hardhat's).

This process imports nothing of the ledger: the peak memory of a process starts with that of its parent.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
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

ROOT: Final = Path(__file__).parent.parent
FEED: Final = ROOT / "bench/audit_feed.py"
FLOOR: Final = ROOT / "bench/audit_floor.py"
DEVNET: Final = ROOT / "bench/audit_devnet.py"
SIZES: Final = (10_000, 100_000, 1_000_000)
ROUNDS: Final = {10_000: 3, 100_000: 3, 1_000_000: 2}
DEVNET_ENTRIES: Final = 10_000
HOST: Final = "127.0.0.1"
WITH_TESTS: Final = os.environ | {"PYTHONPATH": str(ROOT / "tests")}
"""The feed is made of the histories that the tests are made of."""


@dataclass(frozen=True)
class Ran:
    """A process that has ended: how long it took, how much of a processor, its peak memory, what it printed."""

    seconds: float
    processor: float
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
    return Ran(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, json.loads(text))


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
        # The same of the processor's seconds: other processes on the machine matter less to it.
        "audit_over_floor_cpu": round(statistics.median(one.processor / other.processor for one, other in pairs), 3),
        "peak_rss_mb": round(max(one.megabytes for _, one in pairs)),
        "floor_peak_rss_mb": round(max(one.megabytes for one, _ in pairs)),
        "incremental_idle_s": round(idle, 2),
    }


@contextmanager
def serving(directory: Path) -> Iterator[str]:
    """The node of a made ledger, in a process of its own."""
    with _node([str(FEED), "serve", str(directory), str(port := _free_port())]) as process:
        while process.poll() is None and not _listens(port):
            time.sleep(0.05)
        yield f"http://{HOST}:{port}"


@contextmanager
def devnet(home: Path) -> Iterator[str]:
    """Hardhat's node, filled."""
    with _node([str(DEVNET), str(port := _free_port()), str(home)]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield f"http://{HOST}:{port}"


@contextmanager
def _node(command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, env=WITH_TESTS) as process:
        try:
            yield process
        finally:
            process.terminate()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def compile_seconds() -> float:
    """What recompiling the sources takes, which an audit does once for each code."""
    return ran([sys.executable, "-c", "from ledger.compiler import recompile; recompile(); print(1)"]).seconds


def main() -> None:
    sizes = tuple(int(one) for one in sys.argv[1:]) or SIZES
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        for size in sizes:
            subprocess.run(
                [sys.executable, str(FEED), "make", str(home / str(size)), str(size)], check=True, env=WITH_TESTS
            )
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
