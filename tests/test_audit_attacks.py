"""A malicious endpoint before an honest history, and what only a broken contract does: never "clean", never a crash.

What an endpoint says is a finding where it contradicts what a hash proves, "could not verify" where it says nothing
that can be checked. It is never a reproach to the custodian. See `tampering.py`, `violations.py`, `hostile.py`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final

import pytest
from feeds import HistoryRpc
from histories import Books, History, history
from hostile import WAYS, Hostile
from middle import Middle, Plan, WireAnswer, altering
from tampering import TAMPERS, Trap, trap
from violations import VIOLATIONS

from ledger.audit import Asked, Audit, audit_chain
from ledger.audit_report import Verdict
from ledger.config import Config
from ledger.consent import Domain, Hex32
from ledger.custodian import Custodian
from ledger.errors import ChainUnavailableError
from ledger.jsonrpc import JsonRpc

INSTANCES: Final = int(os.environ.get("ATTACK_INSTANCES", "200"))
"""How many of each way to lie."""
SEEDS: Final = int(os.environ.get("VIOLATION_SEEDS", "20"))
"""How many of each violation; ten times as many clean ones."""
HONEST: Final = 60

RECEIPTS: Final = frozenset({"receipts_differ"})
HEADERS: Final = frozenset({"header_unlinked", "receipts_differ", "block_differs"})
OTHER_CHAIN: Final = frozenset({"stale_endpoint", "endpoints_disagree", "block_differs"})
ANY: Final = None
MAY_FIND: Final[Mapping[str, frozenset[str] | None]] = {
    # The codes that a lie may lead to; without any, the verdict is "could not verify".
    **dict.fromkeys(("drop_event", "drop_receipt", "drop_consent", "drop_writer", "reorder", "duplicate"), RECEIPTS),
    **dict.fromkeys(("alter_event", "alter_reason", "add_event", "alter_receipt", "truncate_tail"), RECEIPTS),
    **dict.fromkeys(("empty_logs", "move_event", "other_blocks_receipts"), RECEIPTS),
    **dict.fromkeys(("alter_header", "alter_header_and_hash", "rewrite_the_end", "two_faced"), HEADERS),
    **dict.fromkeys(("swap_headers", "leave_out_a_header"), HEADERS),
    **dict.fromkeys(("stale_head", "fork"), OTHER_CHAIN),
    **dict.fromkeys(("lie_about_a_slot", "lie_about_the_account"), frozenset({"state_differs"})),
    **dict.fromkeys(("wrong_code", "shipped_code_instead"), frozenset({"code_differs"})),
    "wrong_chain": frozenset({"chain_id"}),
    # Where not every header is read, an event that is missing looks as if the rules were broken.
    "logs_withheld": ANY,
    **dict.fromkeys(("refused", "too_few_or_too_many"), frozenset()),
    **dict.fromkeys(("nonsense_answer", "nonsense_field"), HEADERS | {"code_differs", "state_differs", "chain_id"}),
}

CONTRADICTIONS: Final = frozenset(
    {
        # What no honest node can say is a finding, and not only something that could not be verified.
        *("drop_event", "drop_consent", "drop_writer", "reorder", "alter_event", "alter_reason", "add_event"),
        *("alter_receipt", "move_event", "alter_header", "two_faced", "lie_about_a_slot", "lie_about_the_account"),
        *("wrong_code", "shipped_code_instead"),
    }
)


@cache
def honest() -> list[History]:
    return [history(seed) for seed in range(HONEST)]


def audited(faced: Trap) -> Audit:
    told = faced.history
    asked = Asked(
        domain=told.domain,
        block=faced.block,
        first_block=told.first_block,
        all_headers=faced.all_headers,
        compile_sources=False,
        tries=1,
    )
    return audit_chain(faced.rpcs, asked, now=1)


def alone(told: History, block: Hex32 | None = None) -> Trap:
    return Trap(rpcs=(HistoryRpc(told),), history=told, block=block)


# ----------------------------------------------------------------------------------------------------------------- lies


@pytest.mark.parametrize("name", TAMPERS)
def test_no_lie_is_ever_clean(name: str) -> None:
    may_find = MAY_FIND[name]
    for seed in range(INSTANCES):
        report = audited(trap(name, seed, honest())).report
        assert report.verdict is not Verdict.CLEAN, (name, seed)
        found = set(report.finding_counts)
        assert may_find is None or found <= may_find, (name, seed, found)
        assert found or any(check.holds is None for check in report.checks), (name, seed)
        assert found or name not in CONTRADICTIONS, (name, seed)


def test_every_way_to_lie_is_a_lie_about_something_that_is_clean_without_it() -> None:
    for told in honest():
        for block in (None, told.last_hash):
            assert audited(alone(told, block)).report.verdict is Verdict.CLEAN


@pytest.mark.parametrize("seed", range(20))
def test_a_head_older_than_what_was_audited_before_is_never_clean(seed: int) -> None:
    told = history(seed)
    audit = audited(alone(told))
    assert audit.state is not None
    told.blocks = told.blocks[: -1 - seed % 4]
    again = audit_chain([HistoryRpc(told)], _asked(told), now=2, state=audit.state).report
    assert again.verdict is Verdict.FINDINGS
    assert set(again.finding_counts) == {"stale_endpoint"}


@pytest.mark.parametrize("seed", range(20))
def test_another_chain_than_the_one_that_was_audited_before_is_never_clean(seed: int) -> None:
    place = 1, b"\x22" * 20
    told = history(seed, chain=place, blocks=6)
    audit = audited(alone(told))
    assert audit.state is not None
    numbers = range(1000 * seed + 1000, 1000 * seed + 2000)
    others = (history(number, chain=place, blocks=30) for number in numbers)
    other = next(one for one in others if one.first_block == told.first_block)
    again = audit_chain([HistoryRpc(other)], _asked(other), now=2, state=audit.state).report
    assert again.verdict is Verdict.FINDINGS
    assert set(again.finding_counts) == {"block_differs"}


def _asked(told: History) -> Asked:
    return Asked(domain=told.domain, first_block=told.first_block, compile_sources=False, tries=1)


def test_a_node_may_refuse_to_give_all_receipts_of_a_block_at_once() -> None:
    class Older(HistoryRpc):
        eth_getBlockReceipts: Any = None  # noqa: N815 - the method's name

    for told in honest()[:20]:
        assert audited(Trap(rpcs=(Older(told),), history=told)).report.verdict is Verdict.CLEAN


# ----------------------------------------------------------------------------------------------------------- violations


@pytest.mark.parametrize("name", VIOLATIONS)
def test_every_violation_is_found_and_named(name: str) -> None:
    violation = VIOLATIONS[name]
    for seed in range(SEEDS):
        told = history(seed, [violation])
        report = audited(alone(told, told.last_hash)).report
        assert report.verdict is Verdict.FINDINGS, (name, seed)
        found = set(report.finding_counts)
        assert told.expected <= found, (name, seed, found)
        # One break is one finding; an entry that was the only one leaves a batch of nothing besides.
        besides = {"rule_broken"} if name == "entry_without_event" else set()
        assert found - besides <= told.expected, (name, seed, found)


def test_clean_histories_raise_no_alarm() -> None:
    for seed in range(10_000, 10_000 + 10 * SEEDS):
        told = history(seed)
        report = audited(alone(told)).report
        assert report.verdict is Verdict.CLEAN, seed
        assert (report.findings, report.finding_counts) == ((), {}), seed
        assert report.totals.entries == _entries(told.books), seed


def _entries(books: Books) -> int:
    return sum(log.size for log in books.logs.values())


# -------------------------------------------------------------------------------------------------------- over a socket


@pytest.mark.parametrize("way", WAYS)
def test_an_endpoint_that_is_no_node_ends_as_could_not_verify_and_soon(way: str) -> None:
    asked = Asked(domain=Domain(chain_id=31337, contract=honest()[0].domain.contract), compile_sources=False, tries=1)
    with Hostile(WAYS[way]) as hostile:
        started = time.monotonic()
        report = audit_chain([JsonRpc(hostile.url, timeout=1)], asked, now=1).report
        took = time.monotonic() - started
    assert report.verdict is Verdict.UNVERIFIED
    assert report.findings == ()
    assert took < 20


def test_an_answer_without_end_ends_by_its_size_long_before_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.jsonrpc.MAX_ANSWER", 10_000_000)
    with Hostile(WAYS["endless"]) as hostile:
        started = time.monotonic()
        with pytest.raises(ChainUnavailableError):
            JsonRpc(hostile.url, timeout=60)("eth_chainId")
        assert time.monotonic() - started < 20


# ------------------------------------------------------------------------------------------------------- the real chain


class Always(list[Plan]):
    """One plan for every request."""

    def pop(self, _index: Any = -1) -> Plan:
        return self[0]


def lying(change: Callable[[str, Any], Any]) -> Plan:
    """`change` turns a method and its result into what is said instead."""

    def plan(middle: Middle, request: bytes) -> bytes:
        asked = json.loads(request.partition(b"\r\n\r\n")[2])
        methods = {one["id"]: one["method"] for one in (asked if isinstance(asked, list) else [asked])}

        def altered(answer: WireAnswer) -> WireAnswer:
            said = json.loads(answer.body)
            for one in said if isinstance(said, list) else [said]:
                if "result" in one:
                    one["result"] = change(methods[one["id"]], one["result"])
            return WireAnswer(status=200, headers=answer.headers, body=json.dumps(said).encode())

        return altering(altered)(middle, request)

    return plan


def _no_logs(method: str, result: Any) -> Any:
    if method == "eth_getTransactionReceipt":
        result["logs"] = []
    return result


def _without_the_last_event(method: str, result: Any) -> Any:
    if method == "eth_getTransactionReceipt" and result["logs"]:
        result["logs"].pop()
    return result


def _of_another_account(method: str, result: Any) -> Any:
    if method == "eth_getProof":
        result["accountProof"][-1] = result["accountProof"][-1][:-2] + "00"
    return result


def _another_time(method: str, result: Any) -> Any:
    if method.startswith("eth_getBlockBy"):
        result["timestamp"] = hex(int(result["timestamp"], 16) + 1)
    return result


def _another_code(method: str, result: Any) -> Any:
    return result[:-2] + "00" if method == "eth_getCode" else result


def _another_chain(method: str, result: Any) -> Any:
    return "0x1" if method == "eth_chainId" else result


@pytest.fixture
def middle(devnet_config: Config) -> Iterator[Middle]:
    between = Middle(int(devnet_config.rpc_url.rsplit(":", 1)[1]))
    yield between
    between.close()


@pytest.mark.devnet
@pytest.mark.parametrize(
    ("change", "codes"),
    [
        *((_no_logs, {"receipts_differ"}), (_without_the_last_event, {"receipts_differ"})),
        *((_of_another_account, {"state_differs"}), (_another_time, {"block_differs"})),
        *((_another_code, {"code_differs"}), (_another_chain, set())),
    ],
)
def test_a_lying_proxy_before_a_real_node_is_never_clean(
    middle: Middle, devnet_custodian: Custodian, change: Callable[[str, Any], Any], codes: Sequence[str]
) -> None:
    asked = Asked(domain=devnet_custodian.chain.domain, compile_sources=False, tries=1)
    through = audit_chain([JsonRpc(middle.url)], asked, now=1).report
    assert all(check.holds for check in through.checks)
    middle.plans = Always([lying(change)])
    report = audit_chain([JsonRpc(middle.url)], asked, now=1).report
    assert report.verdict is not Verdict.CLEAN
    assert not all(check.holds for check in report.checks)
    # The node is everyone's: other tests may have logged late accesses of theirs.
    assert set(report.finding_counts) - {"late"} == set(codes)


def command(*urls: str) -> tuple[int, dict[str, Any]]:
    """The auditor's own command: exit code and report."""
    program = "from ledger.cli_main import main; main()"
    options = [option for url in urls for option in ("--rpc-url", url)]
    done = subprocess.run(
        [sys.executable, "-c", program, "audit", "chain", "--json", "--without-compiler", *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return done.returncode, json.loads(done.stdout)


@pytest.mark.devnet
def test_the_command_says_what_the_endpoint_did(middle: Middle, devnet_custodian: Custodian) -> None:
    middle.plans = Always([lying(_no_logs)])
    code, report = command(middle.url)
    assert (code, report["verdict"]) == (1, "findings")
    assert "receipts_differ" in report["findingCounts"]
    # A second endpoint that serves another chain ends it, whatever the first one says.
    middle.plans = Always([lying(_another_chain)])
    code, report = command(devnet_custodian.rpc.url, middle.url)
    assert (code, report["verdict"]) == (2, "could_not_verify")
    # No node at all.
    middle.plans = Always([lambda _middle, _request: b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n"])
    code, report = command(middle.url)
    assert (code, report["verdict"]) == (2, "could_not_verify")
