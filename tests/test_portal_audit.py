"""The page of the audit: a verdict only while it is one of now; and the node that auditors may ask through it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final

import pytest
import reports
from actors import World
from browsing import Browser
from service import serving
from werkzeug.test import TestResponse

from ledger.attempts import AUDIT_RPC
from ledger.audit import Asked, audit_chain
from ledger.audit_reader import report_of
from ledger.audit_report import AuditReport, Verdict
from ledger.config import Config
from ledger.custodian import Custodian
from ledger.devnet import Devnet, free_port, fund
from ledger.jsonrpc import JsonRpc, RpcError
from web import live_audit
from web.language import CHINESE
from web.live_audit import FRESH_SECONDS, STALE_SECONDS, Command, LiveAudit

CLEAN: Final = "Everything was checked, and nothing was found to be wrong."
UNVERIFIED: Final = "This is not a clean result."


class Audits:
    """In place of the command: reports as they are given, made when the clock says."""

    def __init__(self, world: World, report: AuditReport) -> None:
        self._world, self.report, self.made = world, report, 0
        self.states: list[bool] = []

    def __call__(self, state: Path) -> AuditReport:
        self.made += 1
        self.states.append(state.exists())
        state.write_text("kept")
        return replace(self.report, made_at=self._world.clock())


@pytest.fixture
def out(world: World) -> Browser:
    return Browser(world)


def audited(out: Browser, report: AuditReport) -> Audits:
    held = out.custodian
    audits = Audits(out.world, report)
    out.app.extensions["live_audit"] = LiveAudit(held.config, held.chain, clock=held.clock, run=audits)
    return audits


# ------------------------------------------------------------------------------------------------------------- the page


def test_anyone_sees_the_verdict_and_the_command_that_repeats_it(out: Browser) -> None:
    report = reports.report()
    audited(out, report)
    answer = out.get("/audit")
    assert answer.status_code == 200
    assert CLEAN in answer.text
    assert report.block is not None
    assert report.block.block_hash in answer.text
    domain = out.custodian.chain.domain
    url = out.custodian.config.service_url
    for word in ("consent-ledger audit chain", f"--rpc-url {url}/audit/rpc", f"--contract {domain.contract}"):
        assert word in answer.text
    assert "a page can say anything" in answer.text
    assert "Refresh" not in answer.headers
    assert 'href="/audit"' in out.get("/verify").text


def test_the_page_says_what_the_report_says(out: Browser) -> None:
    for report in (reports.with_findings(), reports.unverified(), reports.empty()):
        audited(out, report)
        out.world.clock.advance(FRESH_SECONDS)
        text = out.get("/audit").text
        assert f'class="card verdict {report.verdict.value}"' in text
        assert (CLEAN in text) == (report.verdict is Verdict.CLEAN)
        assert (UNVERIFIED in text) == (report.verdict is Verdict.UNVERIFIED)
        for code in report.finding_counts:
            assert code in text


def test_an_audit_is_made_now_and_then_and_not_for_every_visit(out: Browser) -> None:
    audits = audited(out, reports.report())
    for _ in range(5):
        out.get("/audit")
    assert audits.made == 1
    out.world.clock.advance(FRESH_SECONDS)
    out.get("/audit")
    assert audits.made == 2
    assert audits.states == [False, True]


def test_after_a_report_that_is_not_clean_the_next_audit_begins_from_the_start(out: Browser) -> None:
    audits = audited(out, reports.with_findings())
    for _ in range(2):
        out.get("/audit")
        out.world.clock.advance(FRESH_SECONDS)
    assert audits.states == [False, False]


def test_a_chain_that_is_away_is_never_shown_as_clean(out: Browser) -> None:
    audits = audited(out, reports.report())
    assert CLEAN in out.get("/audit").text
    audits.report = reports.unverified(block=None)
    out.world.clock.advance(FRESH_SECONDS)
    text = out.get("/audit").text
    assert CLEAN not in text
    assert UNVERIFIED in text


def test_an_old_verdict_is_no_verdict(out: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    audits = audited(out, reports.report())
    out.get("/audit")
    hold = threading.Event()
    live: LiveAudit = out.app.extensions["live_audit"]

    def slow(state: Path) -> AuditReport:
        hold.wait()
        return audits(state)

    monkeypatch.setattr(live, "_run", slow)
    monkeypatch.setattr(live_audit, "WAIT_SECONDS", 0.05)
    out.world.clock.advance(STALE_SECONDS)
    answer = out.get("/audit")
    assert CLEAN not in answer.text
    assert "too old to say what holds now" in answer.text
    assert answer.headers["Refresh"]
    hold.set()
    assert live._thread is not None
    live._thread.join()
    assert CLEAN in out.get("/audit").text


def test_a_crowd_at_the_page_does_not_take_every_thread(out: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    audits = audited(out, reports.report())
    hold, live = threading.Event(), out.app.extensions["live_audit"]
    monkeypatch.setattr(live, "_run", lambda state: hold.wait() and audits(state))
    waiting = [threading.Thread(target=live.report) for _ in range(live_audit.MOST_WAITING)]
    for thread in waiting:
        thread.start()
    while live._waiting._value:
        time.sleep(0.01)
    began = time.monotonic()
    assert "The first audit is being made." in out.get("/audit").text
    assert time.monotonic() - began < live_audit.WAIT_SECONDS / 2
    hold.set()
    for thread in waiting:
        thread.join()
    assert audits.made == 1


def test_a_report_of_the_future_is_not_believed(out: Browser) -> None:
    audits = audited(out, reports.report())
    out.get("/audit")
    out.world.clock.advance(-FRESH_SECONDS)
    out.get("/audit")
    assert audits.made == 2


def test_a_report_that_cannot_be_read_is_made_again(out: Browser) -> None:
    audits = audited(out, reports.report())
    out.get("/audit")
    for made, content in enumerate(("", "null", "[]", '{"version": 1}', "[" * 100_000), 2):
        (out.custodian.config.data / "audit" / "report.json").write_text(content)
        assert CLEAN in out.get("/audit").text
        assert audits.made == made


def test_two_processes_make_one_audit(out: Browser) -> None:
    audits = audited(out, reports.report())
    held = out.custodian
    other = LiveAudit(held.config, held.chain, clock=held.clock, run=audits)
    out.get("/audit")
    assert other.report() is not None
    assert audits.made == 1


def test_the_report_can_be_had_as_a_file(out: Browser) -> None:
    audited(out, reports.with_findings())
    fields = out.get("/audit/report.json")
    assert report_of(json.loads(fields.text)).verdict is Verdict.FINDINGS
    html = out.get("/audit/report.html")
    assert "Not everything is as it must be." in html.text
    for answer in (fields, html):
        assert answer.headers["Content-Disposition"].startswith("attachment")


class Styles(HTMLParser):
    found: Final[list[str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.extend(f"{tag} {name}" for name, _ in attrs if name == "style" or name.startswith("on"))
        if tag == "style":
            self.found.append(tag)


def test_the_pictures_keep_to_the_policy_of_the_page(out: Browser) -> None:
    audited(out, reports.with_findings())
    for language, title in (("en", "Entries per day"), (CHINESE, "每日条目")):
        text = out.get(f"/audit?lang={language}").text
        assert text.count('role="img"') == 4
        assert title in text
        styles = Styles()
        styles.feed(text)
        assert styles.found == []
    assert out.get("/static/pictures.css").mimetype == "text/css"


def test_what_a_report_brings_is_text_on_the_page(out: Browser) -> None:
    evil = "<script>alert(1)</script>"
    report = reports.with_findings()
    check = replace(report.checks[0], name=evil, detail=evil)
    audited(out, replace(report, checks=(check,), finding_counts={evil: 1}))
    assert "<script>alert" not in out.get("/audit").text


def test_an_audit_that_cannot_be_made_ends_in_could_not_verify(world: World, tmp_path: Path) -> None:
    config = replace(world.config, rpc_url="http://127.0.0.1:1")
    report = Command(config, world.chain, clock=world.clock)(tmp_path / "state")
    assert report.verdict is Verdict.UNVERIFIED
    assert report.made_at > 0


# ------------------------------------------------------------------------------------------------------------- the node


class Node:
    """In place of the node: remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Sequence[object]]] = []

    def each(self, *calls: tuple[str, Sequence[object]]) -> list[Any]:
        self.asked.extend(calls)
        return [
            RpcError(method, {"message": "Method not found"}) if "Receipts" in method else "0x1" for method, _ in calls
        ]


@pytest.fixture
def node(world: World, monkeypatch: pytest.MonkeyPatch) -> Node:
    made = Node()
    monkeypatch.setattr(world.custodian, "rpc", made)
    return made


def call(method: str, *params: object, number: int = 0) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": list(params)}


def ask(out: Browser, body: object) -> TestResponse:
    return out.open("POST", "/audit/rpc", json=body)


def test_an_auditor_asks_the_node_without_a_session(out: Browser, node: Node) -> None:
    answer = ask(out, call("eth_chainId", number=7))
    assert json.loads(answer.text) == {"jsonrpc": "2.0", "id": 7, "result": "0x1"}
    assert "Set-Cookie" not in answer.headers
    assert "Access-Control-Allow-Origin" not in answer.headers
    many = [call("eth_getBlockByNumber", hex(number), False, number=number) for number in range(128)]
    assert [one["id"] for one in json.loads(ask(out, many).text)] == list(range(128))
    refused = json.loads(ask(out, [call("eth_getBlockReceipts", "0x1")]).text)
    assert refused[0]["error"]["message"] == "method not found"
    assert len(node.asked) == 130


CONTRACT: Final = "CONTRACT"
OTHER: Final = "0x" + "11" * 20


FORBIDDEN: Final[list[Any]] = [
    [],
    {},
    [[call("eth_chainId")]],
    [call("eth_chainId")] * 129,
    call("eth_sendRawTransaction", "0x00"),
    call("eth_accounts"),
    call("debug_traceTransaction", "0x00"),
    call("eth_call", {"to": CONTRACT, "data": "0x"}, "latest"),
    call("eth_getProof", OTHER, [], "latest"),
    call("eth_getProof", CONTRACT, ["0x0"] * 257, "latest"),
    call("eth_getProof", CONTRACT, "0x0", "latest"),
    call("eth_getCode", OTHER, "latest"),
    call("eth_getBlockByNumber", "0x1", True),
    call("eth_getBlockByNumber", {"a": 1}, False),
    call("eth_getBlockByNumber", ["0x1"], False),
    call("eth_getBlockByHash", "0x" + "00" * 900, False),
    call("eth_getLogs", {"address": OTHER, "fromBlock": "0x0", "toBlock": "0x1"}),
    call("eth_getLogs", {"address": CONTRACT, "fromBlock": "0x0", "toBlock": "0xffffff"}),
    call("eth_getLogs", {"address": CONTRACT, "blockHash": None, "fromBlock": "0x0", "toBlock": "latest"}),
    [call("eth_getBlockReceipts", hex(number)) for number in range(17)],
    [call("eth_chainId"), call("eth_accounts")],
]


def test_nothing_but_what_an_audit_reads_is_handed_on(out: Browser, node: Node) -> None:
    for body in FORBIDDEN:
        given = json.loads(json.dumps(body).replace(CONTRACT, out.custodian.chain.domain.contract))
        assert ask(out, given).status_code == 422, body
    assert node.asked == []


ONE: Final = b'{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":[]}'
NONSENSE: Final = [
    b"",
    b"nonsense",
    b"[" * 30_000,
    ONE + b'],"asked":[{',
    ONE + b"," + ONE,
    b'{"jsonrpc":"2.0","id":1,"id":2,"method":"eth_chainId","params":[]}',
    b" " * 70_000,
]


def test_what_is_no_question_is_refused(out: Browser, node: Node) -> None:
    for raw in NONSENSE:
        answer = out.open("POST", "/audit/rpc", data=raw, content_type="application/json")
        assert answer.status_code in (413, 422), raw[:60]
        assert answer.mimetype == "application/problem+json"
    assert node.asked == []


def test_a_form_of_another_page_asks_nothing(out: Browser, node: Node) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        answer = out.open("POST", "/audit/rpc", data=json.dumps(call("eth_chainId")), content_type=kind)
        assert answer.status_code == 422
    assert node.asked == []


def test_who_asks_too_often_is_refused(out: Browser, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("web.portal_audit.AUDIT_RPC", replace(AUDIT_RPC, tries=3))
    assert [ask(out, call("eth_chainId")).status_code for _ in range(4)] == [200, 200, 200, 429]


def test_a_few_at_once_and_no_more(out: Browser, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, leave = threading.Semaphore(0), threading.Event()

    class Slow:
        def each(self, *_: object) -> list[str]:
            entered.release()
            leave.wait()
            return ["0x1"]

    monkeypatch.setattr(world.custodian, "rpc", Slow())

    def one() -> int:
        return Browser(world, app=out.app).open("POST", "/audit/rpc", json=call("eth_chainId")).status_code

    answers: list[int] = []
    waiting = [threading.Thread(target=lambda: answers.append(one())) for _ in range(4)]
    for thread in waiting:
        thread.start()
        entered.acquire()
    assert one() == 429
    leave.set()
    for thread in waiting:
        thread.join()
    assert answers == [200] * 4


# ------------------------------------------------------------------------------------------------------ on a real chain


@pytest.mark.devnet
def test_the_page_has_the_commands_own_verdict_and_the_node_behind_it_serves_an_audit(
    devnet: Devnet, data: Path
) -> None:
    port = free_port()
    config = Config(data=data, rpc_url=devnet.url, service_url=f"http://127.0.0.1:{port}")
    Custodian.init(config)
    with Custodian(config) as custodian:
        fund(custodian.rpc, [account.address for account in custodian.accounts.every()])
        custodian.deploy()
        with serving(custodian, port):
            report = Command(config, custodian.chain, clock=custodian.clock)(data / "state")
            assert report.verdict is Verdict.CLEAN
            through = replace(config, rpc_url=f"{config.service_url}/audit/rpc")
            again = Command(through, custodian.chain, clock=custodian.clock)(data / "other")
            assert again.verdict is Verdict.CLEAN
            assert again.totals.batches == report.totals.batches


@pytest.mark.devnet
def test_an_audit_by_the_printed_command_waits_when_it_is_told_to(
    devnet: Devnet, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A long chain takes more questions than the limit of a minute; here it is a limit of two seconds.
    monkeypatch.setattr("web.portal_audit.AUDIT_RPC", replace(AUDIT_RPC, tries=6, seconds=2))
    monkeypatch.setattr("ledger.feed.HEADERS_AT_ONCE", 8)
    port = free_port()
    config = Config(data=data, rpc_url=devnet.url, service_url=f"http://127.0.0.1:{port}")
    Custodian.init(config)
    with Custodian(config) as custodian:
        fund(custodian.rpc, [account.address for account in custodian.accounts.every()])
        custodian.deploy()
        custodian.rpc.together(*[("evm_mine", ())] * 100)
        asked = Asked(domain=custodian.chain.domain, compile_sources=False)
        with serving(custodian, port):
            report = audit_chain([JsonRpc(f"{config.service_url}/audit/rpc")], asked, now=0).report
    assert report.verdict is Verdict.CLEAN, report.checks
    assert report.totals.blocks > 100
