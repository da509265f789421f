"""Releases alone and in company: `make bench-release` prints it and writes bench/release.json.

The whole way (0) to (7) in one process, on Hardhat's node: signature check, status, intent, log, decryption, sealing.
"Waiting" is the number of threads that ask at the same time. The same requests are then made with batches of one, that
is, one transaction for each release. Both in one run, in turns, so that their ratio means something.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console

from ledger.actors import Demo, Findings, Lender, Person
from ledger.chain import JsonRpcChain
from ledger.config import Config
from ledger.custodian import Custodian
from ledger.devnet import Devnet, free_port, fund
from ledger.registry import StoredConsent
from ledger.signatures import HttpRequest
from ledger.vault import AttributeValue, NewRecord

ROOT = Path(__file__).parent.parent
WAITING = (1, 16, 64)
REQUESTS = {1: 60, 16: 256, 64: 512}
ROUNDS = 4
PEOPLE = 64


def prepare(config: Config) -> tuple[Lender, list[Person]]:
    lender = Lender.new("did:web:bench.example", "Bench")
    people = [Person.new(f"bench-{number}") for number in range(PEOPLE)]
    with Custodian(config) as custodian:
        fund(custodian.rpc, [account.address for account in custodian.accounts.every()])
        custodian.deploy()
        custodian.registry.add_institution(lender.institution_id, lender.name, lender.keys, at=1)
        value = AttributeValue(value=1169, source="bench", as_of="1975-12-31")
        rows = [NewRecord(subject_ref=person.ref, attribute="credit_amount", value=value) for person in people]
        with custodian.store.begin() as tx:
            custodian.vault.put(tx, rows, at=1)
    return lender, people


def measure(demo: Demo, lender: Lender, people: list[Person], waiting: int) -> list[tuple[float, float]]:
    """(start, end) of each request, in seconds."""
    total = REQUESTS[waiting]
    consents: list[StoredConsent] = []
    for number in range(-(-total // 3)):
        person = people[number % len(people)]
        limits = {"max_accesses": 3, "per_day": 3}
        consents.append(demo.new_consent(person, lender, "loan-origination", ["credit_amount"], **limits))
    requests = [demo.request(lender, consents[number % len(consents)]) for number in range(total)]

    def ask(signed: HttpRequest) -> tuple[float, float]:
        started = time.perf_counter()
        demo.custodian.releases.release(signed)
        return started, time.perf_counter()

    with ThreadPoolExecutor(waiting) as pool:
        return list(pool.map(ask, requests))


def summary(times: list[list[tuple[float, float]]]) -> dict[str, float]:
    latencies = sorted(end - start for run in times for start, end in run)
    rates = [len(run) / (max(end for _, end in run) - min(start for start, _ in run)) for run in times]
    return {
        "p50_ms": round(latencies[len(latencies) // 2] * 1000, 1),
        "p99_ms": round(latencies[int(len(latencies) * 0.99)] * 1000, 1),
        "releases_per_second": round(statistics.median(rates), 1),
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        with Devnet(port=free_port(), log=home / "devnet.log") as node:
            config = Config(data=home / "data", rpc_url=node.url)
            Custodian.init(config)
            lender, people = prepare(config)
            runs: dict[tuple[str, int], list[list[tuple[float, float]]]] = {}
            ways = [("grouped", 200), ("one_by_one", 1)]
            for _ in range(ROUNDS):
                # In turns, each first as often as the other: machines have their slow minutes.
                ways.reverse()
                for name, max_batch in ways:
                    with Custodian(config, max_batch=max_batch) as custodian:
                        witness = JsonRpcChain(custodian.rpc, custodian.chain.domain)
                        demo = Demo(custodian, witness, Findings(), Console(quiet=True), serial=time.time_ns())
                        for waiting in WAITING:
                            runs.setdefault((name, waiting), []).append(measure(demo, lender, people, waiting))
    result: dict[str, object] = {f"{name}_{waiting}": summary(times) for (name, waiting), times in runs.items()}
    grouped, alone = (summary(runs[name, 64])["releases_per_second"] for name in ("grouped", "one_by_one"))
    result["grouped_over_one_by_one_64"] = round(grouped / alone, 2)
    (ROOT / "bench/release.json").write_text(json.dumps(result, indent=2) + "\n")
    print("                     waiting     p50 ms     p99 ms   releases/s")
    for (name, waiting), times in runs.items():
        line = summary(times)
        print(f"{name:<20} {waiting:>7} {line['p50_ms']:>10} {line['p99_ms']:>10} {line['releases_per_second']:>12}")
    print(f"group commit over one transaction each, at 64 waiting: {result['grouped_over_one_by_one_64']}")


if __name__ == "__main__":
    main()
