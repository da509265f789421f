"""Releases a second through gunicorn: `make bench-api` prints it and writes bench/api.json.

Real signatures, real sealing, Hardhat's node, service and clients on this machine's cores. Three services:

(a) governed    as shipped
(b) ungoverned  the same endpoint with consent check, log and database removed: signature check and sealing only
(c) one by one  as shipped, but a transaction of its own for each release

Each has a custodian, people and consents of its own. All are up from the beginning and are asked in short turns: a
machine has its slow minutes, and each of the three gets its share of them. The requests are signed before the clock
starts. A client is a connection that asks, waits for the answer, and asks again. Only ratios within one run mean
something: a ratio is the median of those of every round.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import urllib3
from rich.console import Console

from ledger.actors import Demo, Findings, Lender, Person
from ledger.chain import JsonRpcChain
from ledger.config import Config
from ledger.consent import Hex32
from ledger.custodian import Custodian
from ledger.devnet import Devnet, free_port, fund
from ledger.exchange import key_for, sign_release
from ledger.vault import AttributeValue, NewRecord

ROOT: Final = Path(__file__).parent.parent
CLIENTS: Final = (1, 16, 64)
SERVICES: Final = {
    "governed": "web.server:application()",
    "ungoverned": "bench.api_apps:ungoverned()",
    "one_by_one": "bench.api_apps:one_by_one()",
}
REQUESTS: Final = {
    "governed": {1: 30, 16: 300, 64: 2000},
    "ungoverned": {1: 200, 16: 600, 64: 3000},
    "one_by_one": {1: 30, 16: 80, 64: 300},
}
"""In one turn, for each number of clients: some seconds' worth."""
RATIOS: Final = {"governed_over_ungoverned_64": "ungoverned", "group_commit_over_one_by_one_64": "one_by_one"}
ROUNDS: Final = int(os.environ.get("ROUNDS", "7"))
WORKERS: Final = os.environ.get("CONSENT_LEDGER_WORKERS", "2")
PEOPLE: Final = 100
USES: Final = 3


class Bench:
    """A custodian with a lender and people, and a supply of consents that were not used yet."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.lender = Lender.new("did:web:bench.example", "Bench")
        self.people = [Person.new(f"bench-{number}") for number in range(PEOPLE)]
        with Custodian(config) as custodian:
            fund(custodian.rpc, [account.address for account in custodian.accounts.every()])
            custodian.deploy()
            custodian.registry.add_institution(self.lender.institution_id, self.lender.name, self.lender.keys, at=1)
            value = AttributeValue(value=1169, source="bench", as_of="1975-12-31")
            rows = [NewRecord(subject_ref=person.ref, attribute="credit_amount", value=value) for person in self.people]
            with custodian.store.begin() as tx:
                custodian.vault.put(tx, rows, at=1)

    def consents(self, count: int) -> list[Hex32]:
        """So many, granted."""
        with Custodian(self.config) as custodian, ThreadPoolExecutor(4) as pool:
            demo = Demo(custodian, JsonRpcChain(custodian.rpc, custodian.chain.domain), Findings(), Console(quiet=True))

            def grant(number: int) -> Hex32:
                person = self.people[number % PEOPLE]
                limits = {"max_accesses": USES, "per_day": USES}
                made = demo.new_consent(person, self.lender, "loan-origination", ["credit_amount"], **limits)
                return made.consent_id

            return list(pool.map(grant, range(count)))

    def requests(self, consents: Iterable[Hex32]) -> list[bytes]:
        """One of each of these, ready to be sent."""
        key, now = key_for(self.lender.keys, "sig"), int(time.time())
        messages = []
        for consent_id in consents:
            asked = sign_release(
                service_url=self.config.service_url,
                institution=self.lender.institution_id,
                consent_id=consent_id,
                purpose="loan-origination",
                attributes=["credit_amount"],
                idempotency_key=secrets.token_hex(8),
                signing_key=key,
                at=now,
                nonce=secrets.token_urlsafe(18),
            )
            path = asked.url.removeprefix(self.config.service_url)
            host = self.config.service_url.removeprefix("http://")
            headers = {"Host": host, "Content-Length": str(len(asked.body)), **asked.headers}
            lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
            messages.append("\r\n".join(lines).encode() + asked.body)
        return messages


async def ask(port: int, supply: Iterator[bytes], times: list[tuple[float, float]]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for message in supply:
        started = time.perf_counter()
        writer.write(message)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            length = int(head.lower().partition(b"content-length:")[2].split()[0])
            raise SystemExit(f"refused: {head.decode()}{(await reader.readexactly(length)).decode()}")
        await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split()[0]))
        times.append((started, time.perf_counter()))
    writer.close()


def measure(port: int, messages: list[bytes], clients: int) -> list[tuple[float, float]]:
    """(start, end) of each request, in seconds."""
    times: list[tuple[float, float]] = []
    supply = iter(messages)

    async def all_of_them() -> None:
        await asyncio.gather(*(ask(port, supply, times) for _ in range(clients)))

    asyncio.run(all_of_them())
    return times


@contextmanager
def served(name: str, config: Config, port: int) -> Iterator[None]:
    environment = os.environ | {
        "PORT": str(port),
        "CONSENT_LEDGER_DATA": str(config.data),
        "CONSENT_LEDGER_RPC_URL": config.rpc_url,
        "CONSENT_LEDGER_URL": config.service_url,
        "CONSENT_LEDGER_RATE_LIMIT": "1000000000",
        "CONSENT_LEDGER_WORKERS": WORKERS,
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "gunicorn", "--config", "python:web.server", SERVICES[name]]
    process = subprocess.Popen(command, env=environment, cwd=ROOT)
    http = urllib3.PoolManager(retries=False, timeout=2)
    try:
        for _ in range(200):
            try:
                if http.request("GET", f"http://127.0.0.1:{port}/healthz").status == 200:
                    break
            except urllib3.exceptions.HTTPError:
                time.sleep(0.1)
        time.sleep(1)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def rate_of(run: list[tuple[float, float]], clients: int) -> float:
    """Releases a second while every client is at it: after as many answers as clients, until the last one asks."""
    answers = sorted(end for _, end in run)
    first, last = answers[clients - 1], max(start for start, _ in run)
    return sum(first < answer <= last for answer in answers) / (last - first)


def summary(runs: list[list[tuple[float, float]]], clients: int) -> dict[str, float]:
    latencies = sorted(end - start for run in runs for start, end in run)
    return {
        "p50_ms": round(latencies[len(latencies) // 2] * 1000, 1),
        "p99_ms": round(latencies[int(len(latencies) * 0.99)] * 1000, 1),
        "releases_per_second": round(statistics.median(rate_of(run, clients) for run in runs), 1),
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as directory, ExitStack() as up:
        home = Path(directory)
        node = up.enter_context(Devnet(port=free_port(), log=home / "devnet.log"))
        ports = {name: free_port() for name in SERVICES}
        benches: dict[str, Bench] = {}
        supplies: dict[str, Iterator[Hex32]] = {}
        for name, port in ports.items():
            config = Config(data=home / name, rpc_url=node.url, service_url=f"http://127.0.0.1:{port}")
            Custodian.init(config)
            benches[name] = Bench(config)
            # Where no consent is checked, one will do.
            total = ROUNDS * sum(REQUESTS[name].values()) if name != "ungoverned" else 1
            supplies[name] = itertools.cycle(benches[name].consents(-(-total // USES)))
            up.enter_context(served(name, config, port))
        runs: dict[tuple[str, int], list[list[tuple[float, float]]]] = {}
        order = list(SERVICES)
        for _ in range(ROUNDS):
            # Each first as often as the others.
            order = [*order[1:], order[0]]
            for clients in CLIENTS:
                for name in order:
                    messages = benches[name].requests(itertools.islice(supplies[name], REQUESTS[name][clients]))
                    runs.setdefault((name, clients), []).append(measure(ports[name], messages, clients))
    result: dict[str, object] = {
        f"{name}_{clients}": summary(times, clients) for (name, clients), times in runs.items()
    }
    rates = {name: [rate_of(run, 64) for run in runs[name, 64]] for name in SERVICES}
    for ratio, other in RATIOS.items():
        in_rounds = sorted(mine / its for mine, its in zip(rates["governed"], rates[other], strict=True))
        result[ratio] = round(statistics.median(in_rounds), 2)
        result[f"{ratio}_from_to"] = [round(in_rounds[0], 2), round(in_rounds[-1], 2)]
    result |= {"workers": int(WORKERS), "rounds": ROUNDS}
    if "--dry" not in sys.argv:
        (ROOT / "bench/api.json").write_text(json.dumps(result, indent=2) + "\n")
    print("                     clients     p50 ms     p99 ms   releases/s")
    for (name, clients), times in sorted(runs.items()):
        line = summary(times, clients)
        print(f"{name:<20} {clients:>7} {line['p50_ms']:>10} {line['p99_ms']:>10} {line['releases_per_second']:>12}")
    for ratio in RATIOS:
        print(f"{ratio}: {result[ratio]}, in rounds {result[f'{ratio}_from_to']}")


if __name__ == "__main__":
    main()
