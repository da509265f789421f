"""Two auditors, written apart in two languages, say the same of thousands of histories: clean, broken, lied about."""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pytest
import rlp
from eth_hash.backends.pysha3 import keccak256
from feeds import HistoryRpc
from histories import deployed_code, history
from ledger_story import LedgerStory
from second_auditor import SCRIPT, SecondAuditor, consents_digest, logs_of
from tampering import TAMPERS, Trap, trap
from trie.hexary import HexaryTrie
from tries import Trie
from violations import some_of_them

from ledger.audit import Asked, audit_chain
from ledger.audit_report import AuditReport, Verdict
from ledger.consent import Reason
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


@pytest.mark.slow
def test_both_find_clean_histories_clean_with_the_same_consents_and_logs(second: SecondAuditor) -> None:
    for seed in range(SEED, SEED + HISTORIES // 3):
        told = history(seed)
        faced = Trap(rpcs=(HistoryRpc(told),), history=told)
        report, other = both(second, faced, faced)
        assert report.verdict is Verdict.CLEAN, seed
        assert_same_books(report, other)


@pytest.mark.slow
def test_both_find_the_same_in_histories_that_break_the_rules(second: SecondAuditor) -> None:
    for seed in range(SEED, SEED + HISTORIES // 3):
        told = history(seed, some_of_them(seed))
        faced = Trap(rpcs=(HistoryRpc(told),), history=told)
        report, other = both(second, faced, faced)
        assert said(report) == (other["verdict"], other["codes"]), (seed, told.planted)
        assert report.verdict is Verdict.FINDINGS, (seed, told.planted)
        assert told.expected <= set(other["codes"]), (seed, told.planted)
        assert_same_books(report, other)


@pytest.mark.slow
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


def asked_both(custodian: Custodian) -> AuditReport:
    rpc, domain = custodian.rpc, custodian.chain.domain
    report = audit_chain([rpc], Asked(domain=domain, compile_sources=False), now=1).report
    command = [node_binary(), str(SCRIPT), "--url", rpc.url, "--contract", domain.contract]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == {"clean": 0, "findings": 1, "could_not_verify": 2}[report.verdict.value], done.stdout
    assert_same_books(report, json.loads(done.stdout))
    return report


@pytest.mark.devnet
def test_both_find_the_real_contract_on_a_real_node_clean_whatever_it_is_told(quiet_custodian: Custodian) -> None:
    before = asked_both(quiet_custodian).finding_counts.get("late", 0)
    story = LedgerStory(quiet_custodian)
    story.tell()
    report = asked_both(quiet_custodian)
    # The node is everyone's: other tests may have logged late accesses of theirs.
    assert report.finding_counts == ({"late": before} if before else {})
    assert {Reason.EXPIRED, Reason.PAUSED, Reason.REVOKED, Reason.EXHAUSTED} <= set(report.refusals_by_reason)
    assert {Reason.NOT_GRANTED, Reason.NOT_YET_VALID, Reason.BY_CUSTODIAN} <= set(report.refusals_by_reason)
    assert report.totals.compelled >= 2
    story.access_without_consent()
    assert asked_both(quiet_custodian).finding_counts == {"late": before + 1}


@pytest.mark.devnet
def test_the_generated_histories_have_the_code_of_a_real_chain(quiet_custodian: Custodian) -> None:
    domain = quiet_custodian.chain.domain
    code = quiet_custodian.rpc("eth_getCode", domain.contract, "latest")
    assert code == "0x" + deployed_code(domain.chain_id, bytes.fromhex(domain.contract[2:])).hex()


# ------------------------------------------------------------------------------------------------------- the generator


@pytest.mark.parametrize("count", [0, 1, 2, 3, 17, 130, 300])
def test_the_generators_tries_are_those_of_the_trie_package(count: int) -> None:
    dice = random.Random(count)
    ours, theirs = Trie(), HexaryTrie({})
    for place in range(count):
        # Short values make nodes that their parents hold.
        key, value = keccak256(place.to_bytes(4)), dice.randbytes(dice.choice((1, 5, 33)))
        ours = ours.set(key, value)
        theirs[key] = value
    assert ours.root() == theirs.root_hash
    for place in range(count + 1):
        key = keccak256(place.to_bytes(4))
        nodes = [rlp.decode(node) for node in ours.proof(key)]
        assert (ours.value(key) or b"") == theirs[key]
        if count:
            assert HexaryTrie.get_from_proof(ours.root(), key, nodes) == theirs[key]  # type: ignore[no-untyped-call]


def test_a_history_is_the_same_every_time() -> None:
    one, other = (history(7, some_of_them(7)) for _ in range(2))
    assert [mined.block for mined in one.blocks] == [mined.block for mined in other.blocks]
    assert one.last_hash != history(8).last_hash
