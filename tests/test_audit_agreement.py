"""Two auditors, written apart in two languages, say the same of thousands of histories: clean, broken, lied about."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pytest
from feeds import HistoryRpc
from histories import history
from second_auditor import SCRIPT, SecondAuditor, consents_digest, logs_of
from tampering import TAMPERS, Trap, trap
from violations import some_of_them

from ledger.audit import Asked, audit_chain
from ledger.audit_report import AuditReport, Verdict
from ledger.chain import JsonRpc
from ledger.config import Config
from ledger.custodian import Custodian
from ledger.devnet import node_binary

HISTORIES: Final = int(os.environ.get("AGREEMENT_HISTORIES", "2100"))
"""How many in all; as many more as one has time for."""
SEED: Final = int(os.environ.get("AGREEMENT_SEED", "0"))
ONE_BY_ONE: Final = sorted(set(TAMPERS) - {"logs_withheld"})
"""The second auditor always reads every header, so nobody can withhold from it where events are."""


@pytest.fixture(scope="module")
def second() -> Iterator[SecondAuditor]:
    with SecondAuditor() as auditor:
        yield auditor


def first_report(faced: Trap) -> AuditReport:
    told = faced.history
    asked = Asked(domain=told.domain, block=faced.block, first_block=told.first_block, compile_sources=False, tries=1)
    return audit_chain(faced.rpcs, asked, now=1).report


def both(second: SecondAuditor, one: Trap, other: Trap) -> tuple[AuditReport, dict[str, Any]]:
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(second.audit, other)
        return first_report(one), coming.result()


def said(report: AuditReport) -> tuple[str, list[str]]:
    return report.verdict.value, sorted(report.finding_counts)


def assert_same_books(report: AuditReport, other: dict[str, Any]) -> None:
    assert said(report) == (other["verdict"], other["codes"])
    assert logs_of(report) == other["logs"]
    assert consents_digest(report) == other["consents"]
    assert report.block is not None
    assert report.block.number == other["number"]


def test_both_find_clean_histories_clean_with_the_same_consents_and_logs(second: SecondAuditor) -> None:
    for seed in range(SEED, SEED + HISTORIES // 3):
        told = history(seed)
        faced = Trap(rpcs=(HistoryRpc(told),), history=told)
        report, other = both(second, faced, faced)
        assert report.verdict is Verdict.CLEAN, seed
        assert_same_books(report, other)


def test_both_find_the_same_in_histories_that_break_the_rules(second: SecondAuditor) -> None:
    for seed in range(SEED, SEED + HISTORIES // 3):
        told = history(seed, some_of_them(seed))
        faced = Trap(rpcs=(HistoryRpc(told),), history=told)
        report, other = both(second, faced, faced)
        assert said(report) == (other["verdict"], other["codes"]), (seed, told.planted)
        assert report.verdict is Verdict.FINDINGS, (seed, told.planted)
        assert told.expected <= set(other["codes"]), (seed, told.planted)
        assert_same_books(report, other)


def test_both_say_the_same_of_a_node_that_lies(second: SecondAuditor) -> None:
    honest = [history(seed) for seed in range(SEED, SEED + 60)]
    for number in range(HISTORIES // 3):
        name = ONE_BY_ONE[number % len(ONE_BY_ONE)]
        report, other = both(second, trap(name, number, honest), trap(name, number, honest))
        found = said(report)
        if name == "alter_header_and_hash" and {*found[1], *other["codes"]} == {"header_unlinked", "receipts_differ"}:
            continue  # it is both: which one is seen first is a matter of order
        assert found == (other["verdict"], other["codes"]), (name, number, other["why"])
        assert report.verdict is not Verdict.CLEAN, (name, number)


@pytest.mark.devnet
def test_both_find_a_real_chain_clean(devnet_config: Config, devnet_custodian: Custodian) -> None:
    rpc, domain = devnet_custodian.rpc, devnet_custodian.chain.domain
    report = audit_chain([JsonRpc(devnet_config.rpc_url)], Asked(domain=domain, compile_sources=False), now=1).report
    command = [node_binary(), str(SCRIPT), "--url", rpc.url, "--contract", domain.contract]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout
    assert report.block is not None
    assert_same_books(report, json.loads(done.stdout))
    assert report.logs, "nothing was set up: this compared nothing"
