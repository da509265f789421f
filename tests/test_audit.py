"""An audit from the chain alone: on the real node, by the real executable, and on generated histories (P7).

What a node that lies can do is in test_audit_attacks.py, the second verifier in test_audit_agreement.py.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pytest
from actors import Institution, Subject
from feeds import HistoryRpc
from histories import History, history
from tampering import blocks_rewritten, header_fields_of
from violations import VIOLATIONS

from ledger.artifact import artifact, contract_address
from ledger.audit import Asked, Audit, audit_chain
from ledger.audit_report import EarlierLog, Verdict
from ledger.audit_state import AuditState, opened, packed, sealed
from ledger.books import Consent
from ledger.checkpoint import Checkpoint
from ledger.consent import Address, Hex32, Reason, State
from ledger.custodian import Custodian
from ledger.devnet import mine
from ledger.errors import AuditError, ConsentError, ContractMismatchError
from ledger.jsonrpc import JsonRpc, RpcError
from ledger.replay import Replay

EXECUTABLE: Final = str(Path(sys.executable).parent / "consent-ledger")
KEY: Final = bytes(32)
NOWHERE: Final = "http://127.0.0.1:9"


# -------------------------------------------------------------------------------------------------------- the real node


@dataclass(frozen=True)
class Story:
    """What happened on the node: one consent used, asked for too much, and revoked; one paused."""

    custodian: Custodian
    revoked: Hex32
    paused: Hex32
    before_revocation: int
    head: str


@pytest.fixture
def story(quiet_custodian: Custodian) -> Story:
    custodian, institution, subject = quiet_custodian, Institution(), Subject("audited")
    institution.register(custodian)
    subject.furnish(custodian)
    revoked, paused = (subject.grant(custodian, institution) for _ in range(2))
    custodian.releases.release(institution.request(custodian, revoked))
    with pytest.raises(ConsentError):
        custodian.releases.release(institution.request(custodian, revoked, attributes=("housing",)))
    custodian.releases.log_refusals()
    before = custodian.chain.latest().number
    subject.revoke(custodian, revoked)
    subject.pause(custodian, paused)
    head = custodian.chain.block_hash(custodian.chain.latest().number)
    assert head is not None
    return Story(custodian, revoked, paused, before, head)


def audited(custodian: Custodian, **changes: Any) -> Audit:
    asked = Asked(domain=custodian.chain.domain, compile_sources=False, **changes)
    return audit_chain([JsonRpc(custodian.config.rpc_url)], asked, now=0)


@pytest.mark.devnet
def test_an_honest_ledger_is_clean_down_to_the_last_slot_of_its_storage(story: Story) -> None:
    made = audited(story.custodian, watch=frozenset({story.revoked}), block=Hex32(story.head))
    report = made.report
    assert report.verdict is Verdict.CLEAN, report
    assert {check.name for check in report.checks} == {
        *("chain_id", "block", "code", "headers", "receipts", "replay", "state_root"),
    }
    assert report.block is not None
    assert report.block.given
    assert report.block.block_hash == story.head
    verdicts = [(one.reason, one.late) for one in made.entries]
    assert verdicts == [(Reason.NONE, False), (Reason.BY_CUSTODIAN, False)]
    assert [(one.what, one.block_number > story.before_revocation) for one in made.changes] == [
        ("granted", False),
        ("revoked", True),
    ]
    heads = {(log.custodian, log.writer): (log.size, log.head) for log in report.logs}
    for writer in story.custodian.accounts.writers:
        address = Address(writer.address)
        log = story.custodian.chain.log(story.custodian.address, address)
        assert heads[story.custodian.address, address] == (log.size, log.head)
    assert report.revocation_gaps
    assert min(report.revocation_gaps) >= 0


@pytest.mark.devnet
def test_headers_of_blocks_with_events_alone_come_to_the_same(story: Story) -> None:
    whole, sparse = audited(story.custodian), audited(story.custodian, all_headers=False)
    # Nothing links them to the block: when things happened is then the endpoint's word.
    assert sparse.report.verdict is Verdict.UNVERIFIED
    assert {check.name: check.holds for check in sparse.report.checks} == {
        **dict.fromkeys(("chain_id", "block", "code", "receipts", "replay", "state_root"), True),
        "headers": None,
    }
    assert sparse.report.logs == whole.report.logs
    assert sparse.report.consents == whole.report.consents
    assert sparse.report.totals.blocks < whole.report.totals.blocks


@pytest.mark.devnet
def test_without_a_contract_at_the_address_nothing_is_clean(story: Story) -> None:
    for account in (story.custodian.address, Address("0x" + "77" * 20)):
        asked = Asked(domain=replace(story.custodian.chain.domain, contract=account), compile_sources=False)
        report = audit_chain([JsonRpc(story.custodian.config.rpc_url)], asked, now=0).report
        assert report.verdict is Verdict.UNVERIFIED
        assert "no contract" in report.checks[-1].detail


# ------------------------------------------------------------------------------------------------------- the executable


def run(*args: str, home: Path) -> subprocess.CompletedProcess[str]:
    """The auditor's shell: an empty home, nothing of a custodian's environment."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8"}
    return subprocess.run(
        [EXECUTABLE, "audit", *args],
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def home(tmp_path: Path) -> Path:
    made = tmp_path / "home"
    made.mkdir()
    return made


@pytest.mark.devnet
def test_the_executable_needs_an_endpoint_and_an_address_only(story: Story, home: Path) -> None:
    url = story.custodian.config.rpc_url
    asked = ("--rpc-url", url, "--rpc-url", url, "--contract", contract_address(), "--block", story.head)
    done = run("chain", *asked, "--json", home=home)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["verdict"] == "clean"
    assert {check["name"]: check["holds"] for check in report["checks"]}["sources"] is True
    assert not list(home.iterdir())


@pytest.mark.devnet
def test_was_it_in_force_at_that_block_and_why_not(story: Story, home: Path) -> None:
    asked = ("--rpc-url", story.custodian.config.rpc_url, "--json")
    before, after, paused, never = (
        run("consent", consent, *asked, *block, home=home)
        for consent, block in (
            (story.revoked, ("--block", str(story.before_revocation))),
            (story.revoked, ()),
            (story.paused, ()),
            ("0x" + "77" * 32, ()),
        )
    )
    found = [json.loads(one.stdout) for one in (before, after, paused, never)]
    assert [one.returncode for one in (before, after, paused, never)] == [0, 0, 0, 0]
    assert [one["inForce"] for one in found] == [True, False, False, False]
    assert {one["verdict"] for one in found} == {"clean"}
    assert [one["reason"] for one in found] == [None, "revoked", "paused", "not_granted"]
    assert [change["what"] for change in found[1]["changes"]] == ["granted", "revoked"]
    assert [entry["verdict"] for entry in found[1]["entries"]] == ["recorded", "by_custodian"]


@pytest.mark.devnet
def test_what_was_proven_is_not_read_again_and_an_altered_state_is_refused(story: Story, home: Path) -> None:
    custodian = story.custodian
    asked = ("--rpc-url", custodian.config.rpc_url, "--without-compiler", "--state", "state", "--json")
    first = json.loads(run("chain", *asked, home=home).stdout)
    mine(custodian.rpc)
    again = run("chain", *asked, home=home)
    second = json.loads(again.stdout)
    assert (again.returncode, second["verdict"], second["resumedFrom"]) == (0, "clean", first["block"]["number"])
    assert second["logs"] == first["logs"]
    headers = next(check["detail"] for check in second["checks"] if check["name"] == "headers")
    assert headers.startswith("1 headers ")
    state = home / "state"
    data = bytearray(state.read_bytes())
    data[-1] ^= 1
    state.write_bytes(data)
    refused = run("chain", *asked, home=home)
    assert refused.returncode == 2
    assert "altered" in refused.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("chain", "--rpc-url", NOWHERE), "could not"),
        (("chain", "--headers", "some"), "headers: expected all or events"),
        (("chain", "--block", "0x12"), "block: expected 0x and 64 hex digits"),
        (("chain", "--contract", "0x12"), "contract: expected an account"),
        (("consent", "12"), "consent: expected 0x and 64 hex digits"),
        (("consent", "0x" + "11" * 32, "--rpc-url", NOWHERE), "could not"),
    ],
)
def test_what_cannot_be_verified_is_exit_code_2(args: Sequence[str], said: str, home: Path) -> None:
    done = run(*args, home=home)
    assert done.returncode == 2, done
    assert said in (done.stdout + done.stderr).lower().replace("\n", " ") or said in done.stderr


def test_an_audit_loads_no_database_no_flow_and_no_web3() -> None:
    program = (
        "import sys, ledger.cli_auditor\n"
        "own = {'store', 'vault', 'journal', 'registry', 'release', 'custodian', 'config', 'deploy'}\n"
        "outside = {'sqlalchemy', 'sqlite3', 'flask', 'werkzeug', 'gunicorn', 'web', 'web3', 'solcx'}\n"
        "print(sorted((outside | {f'ledger.{name}' for name in own}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


# -------------------------------------------------------------------------------------------------- generated histories


def first_long(seed: int = 4) -> History:
    """A history with a batch or two on it."""
    while True:
        made = history(seed, blocks=30)
        if made.first_block == 0 and any(mined.receipts for mined in made.blocks[20:]):
            return made
        seed += 1


def up_to(whole: History, number: int) -> HistoryRpc:
    """A node on which the chain ends at that block."""
    return HistoryRpc(replace(whole, blocks=whole.blocks[: number + 1]))


def audit(rpcs: Sequence[HistoryRpc], state: AuditState | None = None, **changes: Any) -> Audit:
    asked = Asked(domain=rpcs[0].history.domain, compile_sources=False, tries=1, **changes)
    return audit_chain(rpcs, asked, now=0, state=state)


def kept(made: Audit) -> AuditState:
    """What the audit keeps, through a file."""
    assert made.state is not None
    return opened(sealed(made.state, KEY), KEY)


def test_every_cut_into_two_audits_comes_to_the_same_as_one() -> None:
    whole = first_long()
    expected = audit([HistoryRpc(whole)]).report
    for number in range(3, 29):
        first = audit([up_to(whole, number)])
        if first.state is None:
            # The contract was not there yet.
            assert first.report.verdict is Verdict.UNVERIFIED
            continue
        rpc = HistoryRpc(whole)
        report = audit([rpc], kept(first)).report
        assert replace(report, resumed_from=None, checks=()) == replace(expected, checks=())
        read = [params[0] for method, params in rpc.asked if method == "eth_getBlockByNumber" and params[0] != "latest"]
        assert min(int(str(one), 16) for one in read) >= number


def test_what_was_revoked_and_never_granted_is_no_consent() -> None:
    books = Replay().books
    books.consents = {bytes([1]) * 32: Consent(state=State.REVOKED, revoked_at=5)}
    totals = books.totals(blocks=1, at=9)
    assert (totals.consents, totals.revoked) == (0, 0)
    assert books.slots() == 2


def test_findings_stay_in_the_reports_that_follow() -> None:
    whole = history(1, violations=[VIOLATIONS["after_revocation"]])
    first = audit([HistoryRpc(whole)], first_block=whole.first_block)
    assert first.report.finding_counts
    again = audit([HistoryRpc(whole)], kept(first), first_block=whole.first_block)
    assert again.report.finding_counts == first.report.finding_counts
    assert again.report.verdict is Verdict.FINDINGS


def test_without_news_nothing_is_read_and_the_report_is_as_it_was() -> None:
    whole = history(1, violations=[VIOLATIONS["after_revocation"]])
    first = audit([HistoryRpc(whole)], first_block=whole.first_block)
    rpc, state = HistoryRpc(whole), kept(first)
    again = audit([rpc], state, first_block=whole.first_block)
    assert again.state is state
    assert replace(again.report, checks=(), endpoints=(), resumed_from=None) == replace(
        first.report, checks=(), endpoints=()
    )
    names = {check.name: check.holds for check in first.report.checks}
    assert {check.name: check.holds for check in again.report.checks} == names
    assert {method for method, _ in rpc.asked} == {"eth_chainId", "eth_getBlockByNumber", "eth_getProof", "eth_getCode"}


def test_another_storage_than_was_proven_of_the_block_is_a_finding() -> None:
    whole = first_long()
    state = replace(kept(audit([HistoryRpc(whole)])), storage_root=Hex32("0x" + "44" * 32))
    assert audit([HistoryRpc(whole)], state).report.finding_counts == {"state_differs": 1}


def test_another_block_of_the_same_number_is_a_finding() -> None:
    whole = first_long()
    state = replace(kept(audit([HistoryRpc(whole)])), block_hash=Hex32("0x" + "44" * 32))
    assert audit([HistoryRpc(whole)], state).report.finding_counts == {"block_differs": 1}


def test_another_block_than_the_one_that_was_audited_before_is_a_finding() -> None:
    whole = first_long()
    state = kept(audit([up_to(whole, 20)]))
    rewritten = replace(state, block_hash=Hex32("0x" + "22" * 32))
    report = audit([HistoryRpc(whole)], rewritten).report
    assert report.finding_counts == {"block_differs": 1}


def test_a_reorganisation_while_the_headers_are_read_is_no_break_in_the_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = first_long()
    last = whole.blocks[-1].block["hash"]
    (moved,) = rewritten_from(whole, len(whole.blocks) - 1).values()

    def moving() -> HistoryRpc:
        """Its newest block becomes another one once the audit has begun with it."""
        rpc = HistoryRpc(whole)
        honest = rpc.eth_getBlockByNumber

        def by_number(number: object, _full: object = None) -> Any:
            mined = honest(number)
            begun = any(method == "eth_getCode" for method, _ in rpc.asked)
            return moved if begun and mined and mined["hash"] == last else mined

        monkeypatch.setattr(rpc, "eth_getBlockByNumber", by_number)
        return rpc

    report = audit([moving()]).report
    assert (report.verdict, report.finding_counts) == (Verdict.UNVERIFIED, {})
    # Of a block that the auditor brought along the endpoint must show the way to it.
    assert audit([moving()], block=Hex32(last)).report.finding_counts == {"header_unlinked": 1}


def rewritten_from(whole: History, place: int) -> dict[str, Any]:
    """Other blocks from this one on, by the hashes of those in their places."""

    def later(block: dict[str, Any], _dice: random.Random) -> dict[str, int | bytes]:
        return header_fields_of(block) | {"timestamp": int(block["timestamp"], 16) + 1}

    return blocks_rewritten(whole, random.Random(0), place, later)


def test_an_endpoint_behind_what_was_audited_before_is_a_finding() -> None:
    whole = first_long()
    state = kept(audit([HistoryRpc(whole)]))
    report = audit([up_to(whole, 20)], state).report
    assert report.finding_counts == {"stale_endpoint": 1}


def test_an_older_block_that_the_auditor_asks_for_is_no_lie_of_the_endpoint() -> None:
    whole = first_long()
    state = kept(audit([HistoryRpc(whole)]))
    older = whole.blocks[20].block["hash"]
    for block in (older, int(whole.blocks[20].block["number"], 16)):
        report = audit([HistoryRpc(whole)], state, block=block).report
        assert (report.verdict, report.finding_counts) == (Verdict.UNVERIFIED, {})
    # What is final comes later than what is there.
    report = audit([up_to(whole, 20)], state, tag="finalized").report
    assert (report.verdict, report.finding_counts) == (Verdict.UNVERIFIED, {})


def test_a_first_block_that_is_not_there_yet_is_no_break_in_the_chain() -> None:
    whole = first_long()
    report = audit([HistoryRpc(whole)], first_block=whole.first_block + 10**6).report
    assert (report.verdict, report.finding_counts) == (Verdict.UNVERIFIED, {})


def test_a_node_that_does_not_have_a_header_yet_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    rpc = HistoryRpc(first_long())
    refusals = [RpcError("eth_getCode", {"code": -32000, "message": "header not found"})] * 2
    honest = rpc.eth_getCode

    def patient(address: str, block: object) -> str:
        if refusals:
            raise refusals.pop()
        return honest(address, block)

    monkeypatch.setattr(rpc, "eth_getCode", patient)
    asked = Asked(domain=rpc.history.domain, compile_sources=False, tries=3)
    assert audit_chain([rpc], asked, now=0).report.verdict is Verdict.CLEAN
    assert not refusals


@pytest.fixture
def another_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """The code on chain is not the one that ships, whose sources compile to it."""

    def differs(*_: object) -> None:
        raise ContractMismatchError("the code is another")

    shipped = artifact()
    codes = {"bytecode": shipped.bytecode, "deployedBytecode": shipped.deployed_bytecode}
    evm = {name: {"object": code.hex()} for name, code in codes.items()}
    monkeypatch.setattr("ledger.audit.require_code", differs)
    monkeypatch.setattr("ledger.compiler.recompile", lambda _: {"evm": evm})


@pytest.mark.usefixtures("another_code")
def test_sources_are_not_taken_for_those_of_a_code_that_is_not_what_ships() -> None:
    rpc = HistoryRpc(first_long())
    made = audit_chain([rpc], Asked(domain=rpc.history.domain, tries=1), now=0)
    assert made.report.finding_counts == {"code_differs": 1}
    assert kept(made).sources is None


@pytest.mark.usefixtures("another_code")
def test_what_this_audit_found_is_counted_once_without_news() -> None:
    rpc = HistoryRpc(first_long())
    first = audit([rpc])
    again = audit([rpc], kept(first))
    assert again.report.finding_counts == first.report.finding_counts == {"code_differs": 1}
    assert len(again.report.findings) == 1


def test_an_endpoint_far_behind_another_is_a_finding() -> None:
    whole = first_long()
    assert audit([HistoryRpc(whole), up_to(whole, 20)]).report.finding_counts == {"stale_endpoint": 1}
    assert audit([HistoryRpc(whole), up_to(whole, len(whole.blocks) - 3)]).report.verdict is Verdict.CLEAN


def test_books_that_were_altered_do_not_have_the_proven_root() -> None:
    whole = first_long()
    state = kept(audit([up_to(whole, 20)]))
    books = state.books()
    log = next(iter(books.logs.values()))
    log.size += 1
    report = audit([HistoryRpc(whole)], replace(state, packed_books=packed(books))).report
    assert report.verdict is Verdict.FINDINGS


def test_another_auditors_state_is_refused() -> None:
    data = sealed(kept(audit([HistoryRpc(first_long())])), KEY)
    with pytest.raises(AuditError):
        opened(data, bytes([1]) * 32)
    for place in range(0, len(data), 97):
        altered = bytearray(data)
        altered[place] ^= 0x40
        with pytest.raises(AuditError):
            opened(bytes(altered), KEY)
    for cut in (0, 10, 60, len(data) - 1):
        with pytest.raises(AuditError):
            opened(data[:cut], KEY)


@pytest.mark.parametrize("most", [1, 7])
def test_an_endpoint_that_gives_logs_of_few_blocks_at_once_is_asked_for_fewer(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rpc = HistoryRpc(first_long())
    honest = rpc.eth_getLogs

    def limited(wanted: dict[str, Any]) -> list[Any]:
        if int(wanted["toBlock"], 16) - int(wanted["fromBlock"], 16) >= most:
            raise RpcError("eth_getLogs", {"code": -32600, "message": f"up to a {most} block range"})
        return honest(wanted)

    expected = audit([rpc], all_headers=False).report
    monkeypatch.setattr(rpc, "eth_getLogs", limited)
    assert audit([rpc], all_headers=False).report == expected


def test_an_endpoint_that_does_not_say_where_the_storage_differs_hides_no_difference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rpc = HistoryRpc(first_long())
    honest_logs, honest_proof = rpc.eth_getLogs, rpc.eth_getProof
    monkeypatch.setattr(rpc, "eth_getLogs", lambda wanted: honest_logs(wanted)[:-5])
    assert audit([rpc], all_headers=False).report.finding_counts.keys() >= {"state_differs"}

    def of_the_account_only(address: str, slots: Sequence[str], block: object) -> dict[str, Any]:
        if slots:
            raise RpcError("eth_getProof", {"code": -32602, "message": "too many slots"})
        return honest_proof(address, slots, block)

    monkeypatch.setattr(rpc, "eth_getProof", of_the_account_only)
    report = audit([rpc], all_headers=False).report
    assert (report.verdict, report.finding_counts.keys() >= {"state_differs"}) == (Verdict.FINDINGS, True)


def points_of(whole: History, number: int) -> tuple[EarlierLog, ...]:
    report = audit([up_to(whole, number)]).report
    assert report.block is not None
    return tuple(
        EarlierLog(
            block_number=report.block.number,
            block_hash=report.block.block_hash,
            custodian=log.custodian,
            writer=log.writer,
            size=log.size,
            head=log.head,
        )
        for log in report.logs
        if log.size
    )


def points_of_any(whole: History, number: int) -> tuple[EarlierLog, ...]:
    """None where the contract was not there yet."""
    return points_of(whole, number) if audit([up_to(whole, number)]).report.totals.batches else ()


@pytest.mark.parametrize("all_headers", [True, False])
def test_an_earlier_checkpoint_is_passed_or_it_is_a_finding(all_headers: bool) -> None:
    whole = first_long()
    points = points_of(whole, 24)
    assert points
    report = audit([HistoryRpc(whole)], earlier=points, all_headers=all_headers).report
    assert report.verdict is (Verdict.CLEAN if all_headers else Verdict.UNVERIFIED)
    assert {check.name: check.holds for check in report.checks}["checkpoints"] is True
    for change in (
        {"head": Hex32("0x" + "33" * 32)},
        {"size": 10**9},
        {"block_hash": Hex32("0x" + "33" * 32)},
        {"block_number": 0},
    ):
        wrong = (replace(points[0], **change), *points[1:])
        found = audit([HistoryRpc(whole)], earlier=wrong, all_headers=all_headers).report
        assert "checkpoint_inconsistent" in found.finding_counts, change


def test_a_checkpoint_that_says_less_than_its_block_had_is_a_finding() -> None:
    whole = first_long()
    now = points_of(whole, 24)
    before = {(one.custodian, one.writer): one for number in range(3, 24) for one in points_of_any(whole, number)}
    grown = next(one for one in now if before.get((one.custodian, one.writer), one).size < one.size)
    others = tuple(one for one in now if one is not grown)
    old = before[grown.custodian, grown.writer]
    assert others
    # A log as it was some blocks earlier, and one that is not named at all.
    for less in ((replace(grown, size=old.size, head=old.head), *others), others):
        for rpc in (HistoryRpc(whole), up_to(whole, 24)):
            assert "checkpoint_inconsistent" in audit([rpc], earlier=less).report.finding_counts


def test_a_checkpoint_before_the_first_block_that_was_read_cannot_be_checked() -> None:
    whole = first_long()
    own = whole.domain.contract.lower()
    busy = [any(log["address"] == own for one in mined.receipts for log in one["logs"]) for mined in whole.blocks]
    first = busy.index(True)
    never = Checkpoint(
        domain=whole.domain, block_number=first - 1, block_hash=Hex32("0x" + "33" * 32), timestamp=1, logs={}
    )
    read = audit([HistoryRpc(whole)], earlier=never.earlier()).report
    assert read.finding_counts == {"checkpoint_inconsistent": 1}
    for all_headers in (True, False):
        report = audit([HistoryRpc(whole)], earlier=never.earlier(), first_block=first, all_headers=all_headers).report
        assert report.verdict is Verdict.UNVERIFIED


def test_a_checkpoint_of_a_later_block_cannot_be_checked_by_an_earlier_one() -> None:
    whole = first_long()
    wrong = tuple(replace(one, size=one.size + 100) for one in points_of(whole, 24))
    report = audit([up_to(whole, 20)], earlier=wrong).report
    assert (report.verdict, report.finding_counts) == (Verdict.UNVERIFIED, {})
    # Without news nothing is replayed, so nothing was passed.
    state = kept(audit([up_to(whole, 20)]))
    assert audit([up_to(whole, 20)], state, earlier=wrong).report.verdict is Verdict.UNVERIFIED


def test_of_two_checkpoints_at_one_size_both_are_looked_at() -> None:
    whole = first_long()
    points = points_of(whole, 24)
    wrong = tuple(replace(one, head=Hex32("0x" + "33" * 32)) for one in points)
    for both in ((*points, *wrong), (*wrong, *points)):
        assert "checkpoint_inconsistent" in audit([HistoryRpc(whole)], earlier=both).report.finding_counts


def test_a_checkpoint_older_than_the_state_cannot_be_checked_by_it() -> None:
    whole = first_long()
    points, state = points_of(whole, 18), kept(audit([up_to(whole, 24)]))
    assert audit([HistoryRpc(whole)], state, earlier=points).report.verdict is Verdict.UNVERIFIED
