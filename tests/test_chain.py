"""The chain: whatever the endpoint answers, it is an answer of the chain or a `ChainError`, and never anything else."""

from __future__ import annotations

import json
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import pytest
from eth_abi import encode
from eth_account import Account
from eth_account.typed_transactions.typed_transaction import TypedTransaction
from eth_utils import keccak
from hexbytes import HexBytes
from hostile import WAYS, Hostile

from ledger.artifact import artifact, contract_address
from ledger.chain import JsonRpcChain, Prospect, nonce_of
from ledger.config import Config
from ledger.consent import Address, Domain, Hex32, Reason, State, hex32_of
from ledger.contract import ERRORS
from ledger.contract_events import EVENTS, TOPICS
from ledger.custodian import Custodian
from ledger.deploy import deploy, verify
from ledger.devnet import Devnet, free_port, fund
from ledger.errors import (
    SOLIDITY_TWINS,
    ChainError,
    ChainUnavailableError,
    ConfirmationTimeoutError,
    ContractMissingError,
    DevnetError,
    FeeTooHighError,
    HeadMismatchError,
    LedgerError,
    NotWriterError,
    TransactionRevertedError,
    WrongChainError,
)
from ledger.jsonrpc import JsonRpc
from ledger.stateproof import HEADER_FIELDS, QUANTITIES, block_hash_of, header_rlp

CONTRACT: Final = Address("0x5FbDB2315678afecb367f032d93F642f64180aa3")
OTHER: Final = Address("0x44594101dda99d08F949750CfBBa1ec9c80cc281")
ID: Final = Hex32("0x" + "ab" * 32)
HASH: Final = Hex32("0x" + "cd" * 32)
BLOCK: Final = {"number": "0x10", "hash": HASH, "timestamp": "0x20", "baseFeePerGas": "0x7"}
HEADER: Final = BLOCK | {name: "0x1" if name in QUANTITIES else HASH for name in HEADER_FIELDS}
RECEIPT: Final = {
    "status": "0x1",
    "blockHash": HASH,
    "blockNumber": "0x10",
    "transactionIndex": "0x3",
    "gasUsed": "0x9",
    "logs": [],
}

Answer = Callable[[str, list[Any]], Any]


class Raw:
    """A whole HTTP answer, where not even the JSON is right."""

    def __init__(self, body: bytes, *, status: int = 200, kind: str = "application/json", cut: int = 0) -> None:
        self.body, self.status, self.kind, self.cut = body, status, kind, cut


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        node: Node = self.server.node  # type: ignore[attr-defined]
        answer = node.raw(question)
        node.credentials.append(self.headers["Authorization"])
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(answer.body) + answer.cut))
        if answer.cut:
            self.close_connection = True
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        pass


class Node:
    """An endpoint that answers as the test says: a result by method, or any HTTP answer at all."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.credentials: list[str | None] = []
        self.answer: Answer = answering({"result": None})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.node = self  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def raw(self, question: Any) -> Raw:
        """The HTTP answer to one call, or to several that were sent together."""
        asked = question if isinstance(question, list) else [question]
        self.asked += [call["method"] for call in asked]
        answers = [self.answer(call["method"], call["params"]) for call in asked]
        if isinstance(answers[0], Raw):
            return answers[0]
        bodies = [{"jsonrpc": "2.0", "id": call["id"]} | answer for call, answer in zip(asked, answers, strict=True)]
        return Raw(json.dumps(bodies if isinstance(question, list) else bodies[0]).encode())

    def results(self, **by_method: Any) -> None:
        self.answer = lambda method, _params: {"result": by_method.get(method)}

    def fails(self, error: object) -> None:
        self.answer = lambda _method, _params: {"error": error}

    @contextmanager
    def serving(self) -> Iterator[Node]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()


@pytest.fixture(scope="module")
def served() -> Iterator[Node]:
    with Node().serving() as serving:
        yield serving


@pytest.fixture
def node(served: Node) -> Node:
    served.asked.clear()
    served.credentials.clear()
    served.answer = answering({"result": None})
    return served


def chain_at(url: str, *, timeout: float = 5, **fees: int) -> JsonRpcChain:
    return JsonRpcChain(JsonRpc(url, timeout=timeout), Domain(chain_id=31337, contract=CONTRACT), **fees)


def answering(answer: object) -> Answer:
    return lambda _method, _params: answer


ACCOUNT: Final = Account.from_key(keccak(text="chain test"))
CALLS: Final[dict[str, Callable[[JsonRpcChain], object]]] = {
    "check": lambda chain: chain.check(),
    "latest": lambda chain: chain.latest(),
    "block_hash": lambda chain: chain.block_hash(7),
    "block_hashes": lambda chain: chain.block_hashes([7, 8]),
    "finalized": lambda chain: chain.finalized("finalized"),
    "statuses": lambda chain: chain.statuses([ID], OTHER),
    "statuses_after": lambda chain: chain.statuses_after(7, [ID], OTHER),
    "prospect": lambda chain: chain.prospect([ID], OTHER, Address(ACCOUNT.address)),
    "consent": lambda chain: chain.consent(ID),
    "consents": lambda chain: chain.consents([ID, ID]),
    "log": lambda chain: chain.log(OTHER, OTHER),
    "fate": lambda chain: chain.fate(HASH, OTHER, OTHER),
    "simulate": lambda chain: chain.simulate(OTHER, b"\0\1\2\3", gas=1_000_000),
    "sign": lambda chain: chain.sign(ACCOUNT, b"\0\1\2\3", gas=100_000),
    "send": lambda chain: chain.send(b"\2\3"),
    "receipt": lambda chain: chain.receipt(HASH),
    "wait": lambda chain: chain.wait(HASH, timeout=0),
    "nonce": lambda chain: chain.nonce(OTHER),
    "mined_nonce": lambda chain: chain.mined_nonce(OTHER),
    "is_contract": lambda chain: chain.is_contract(OTHER),
    "accepts_signature": lambda chain: chain.accepts_signature(OTHER, HASH, b"\1"),
    "events": lambda chain: chain.events(0, 7),
    "state_proof": lambda chain: chain.state_proof(7, [HASH]),
}
EVERY_CALL = pytest.mark.parametrize("name", CALLS)


def test_every_call_of_the_chain_is_tried() -> None:
    public = {name for name in vars(JsonRpcChain) if not name.startswith("_")} - {"domain"}
    assert set(CALLS) == public


# ------------------------------------------------------------------------------------------------- no answer of a node


BROKEN: Final[dict[str, Raw]] = {
    "500": Raw(b'{"jsonrpc":"2.0","id":0,"result":"0x7a69"}', status=500),
    "502 with HTML": Raw(b"<html>bad gateway</html>", status=502, kind="text/html"),
    "429": Raw(b'{"error":"rate limited"}', status=429),
    "401": Raw(b"", status=401),
    "HTML": Raw(b"<html>log in</html>", kind="text/html"),
    "nothing": Raw(b""),
    "not UTF-8": Raw(b"\xff\xfe"),
    "JSON cut off": Raw(b'{"jsonrpc":"2.0","id":0,"resu'),
    "body cut off": Raw(b'{"jsonrpc":"2.0","id":0,"result":"0x1"', cut=50),
    "a list": Raw(b"[]"),
    "a list of answers": Raw(b'[{"jsonrpc":"2.0","id":0,"result":"0x1"}]'),
    "a number": Raw(b"7"),
    "null": Raw(b"null"),
    "text": Raw(b'"0x1"'),
    "no result": Raw(b'{"jsonrpc":"2.0","id":0}'),
    "error null and no result": Raw(b'{"jsonrpc":"2.0","id":0,"error":null}'),
    "deep": Raw(b'{"result":' + b"[" * 100_000),
    "a huge number": Raw(b'{"result":' + b"9" * 10_000 + b"}"),
}


@EVERY_CALL
@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_an_endpoint_that_does_not_answer_as_a_node_is_unavailable(node: Node, broken: Raw, name: str) -> None:
    node.answer = answering(broken)
    with pytest.raises(LedgerError) as caught:
        CALLS[name](chain_at(node.url))
    assert type(caught.value) is ChainUnavailableError
    assert caught.value.http_status == 503


@EVERY_CALL
def test_a_refused_connection_is_unavailable(name: str) -> None:
    with pytest.raises(ChainUnavailableError, match="no usable answer"):
        CALLS[name](chain_at(f"http://127.0.0.1:{free_port()}"))


def test_an_endpoint_is_named_without_what_may_be_a_key() -> None:
    place = f"127.0.0.1:{free_port()}"
    url = f"http://user:canary@{place}/canary?key=canary"
    for call in (lambda: chain_at(url).latest(), lambda: deploy(url, Account.create())):
        with pytest.raises(ChainUnavailableError) as caught:
            call()
        assert caught.value.message == f"no usable answer from the chain at http://{place}/…"


def test_an_endpoint_that_does_not_exist_is_unavailable() -> None:
    for url in ("http://chain.invalid:1", "http://", "http://127.0.0.1:99999", "http://[::1"):
        with pytest.raises(ChainUnavailableError):
            chain_at(url).latest()


def test_an_endpoint_that_is_silent_is_given_up_on(node: Node) -> None:
    given_up, answered = threading.Event(), threading.Event()

    def silent(_method: str, _params: list[Any]) -> Raw:
        given_up.wait(60)
        answered.set()
        return Raw(b"{}")

    node.answer = silent
    try:
        with pytest.raises(ChainUnavailableError):
            chain_at(node.url, timeout=0.2).latest()
        assert not answered.is_set()
    finally:
        given_up.set()


@pytest.mark.parametrize("way", ["trickling", "trickling head", "a header byte by byte", "a chunk byte by byte"])
def test_an_endpoint_that_trickles_is_given_up_on_when_its_time_is_over(way: str) -> None:
    """A writer would wait for it within its turn, and with it everyone whose release that worker has."""
    with Hostile(WAYS[way]) as hostile:
        started = time.monotonic()
        with pytest.raises(ChainUnavailableError):
            chain_at(hostile.url, timeout=0.5).latest()
        assert time.monotonic() - started < 2


def test_the_time_of_an_answer_is_not_the_time_of_the_next(node: Node) -> None:
    """They share a connection, and each begins with all of its time."""

    def slow(_method: str, _params: list[Any]) -> object:
        time.sleep(0.6)
        return {"result": BLOCK}

    node.answer = slow
    chain = chain_at(node.url, timeout=1)
    for _ in range(3):
        assert chain.latest().number == 16


def test_no_call_is_repeated_behind_the_callers_back(node: Node) -> None:
    for broken in (Raw(b"", status=500), Raw(b"", status=429), Raw(b"", cut=9)):
        node.answer = answering(broken)
        node.asked.clear()
        with pytest.raises(ChainUnavailableError):
            chain_at(node.url).send(b"\2")
        # Whether the transaction is in a block is asked in the same round trip.
        assert node.asked == ["eth_sendRawTransaction", "eth_getTransactionReceipt"]


ODD: Final[list[Any]] = [
    None, True, 7, -1, 1.5, "", "0x", "x", "0xzz", "0x0", "0x1", "0x123", "latest", [], [[]], {}, [{}],
    {"number": None}, {"hash": 7}, {"number": "0x1", "hash": "0x1", "timestamp": "0x1"}, {"blockHash": HASH},
    "0x" + "ff" * 7, "0x" + "ff" * 32, "0x" + "ff" * 320, {"blockHash": HASH, "status": 1},
    BLOCK | {"baseFeePerGas": []},
    BLOCK | {"baseFeePerGas": "-0x7"}, BLOCK | {"number": "-0x1"}, BLOCK | {"timestamp": "0x" + "f" * 20},
    "-0x1", "0x_1", RECEIPT | {"blockNumber": "-0x1"}, RECEIPT | {"transactionIndex": "0x" + "f" * 20},
    BLOCK | {"timestamp": None}, BLOCK | {"hash": "0x1234"}, HEADER | {"gasUsed": "-0x1"}, HEADER | {"number": None},
]  # fmt: skip


@EVERY_CALL
@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
def test_a_result_of_another_form_is_taken_for_what_it_is_or_refused(node: Node, odd: object, name: str) -> None:
    node.answer = lambda _method, _params: {"result": odd}
    # A transaction that is in no block yet is a timeout and not a fault.
    allowed: tuple[type[ChainError], ...] = (
        ChainUnavailableError, WrongChainError, ContractMissingError, ConfirmationTimeoutError,
    )  # fmt: skip
    try:
        CALLS[name](chain_at(node.url))
    except LedgerError as refusal:
        assert type(refusal) in allowed  # noqa: PT017 - either outcome is right


# ------------------------------------------------------------------------------------------------------- right answers


def test_the_fate_of_a_transaction_is_asked_in_one_round_trip_and_its_receipt_last(node: Node) -> None:
    log = encode(("bytes32", "uint64", "uint32", "bool"), (bytes.fromhex(HASH[2:]), 3, 1, True))
    node.results(eth_getTransactionCount="0x7", eth_call="0x" + log.hex(), eth_getTransactionReceipt=RECEIPT)
    fate = chain_at(node.url).fate(HASH, OTHER, OTHER)
    assert (fate.mined_nonce, fate.log.head, fate.log.size) == (7, HASH, 3)
    assert fate.receipt is not None
    assert fate.receipt.block_number == 16
    assert node.asked == ["eth_getTransactionCount", "eth_call", "eth_getTransactionReceipt"]
    node.results(eth_getTransactionCount="0x7", eth_call="0x" + log.hex(), eth_getTransactionReceipt=None)
    assert chain_at(node.url).fate(HASH, OTHER, OTHER).receipt is None


NUMBERS: Final = ("-0x1", "0x_1", " 0x1", "0x1\n", "0x-1", "1", "0x" + "f" * 16)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_number_that_nothing_can_have_is_no_answer(node: Node, number: str) -> None:
    chain = chain_at(node.url)
    calls: dict[str, dict[str, Any]] = {
        "latest": {"eth_getBlockByNumber": BLOCK | {"number": number}},
        "finalized": {"eth_getBlockByNumber": BLOCK | {"number": number}},
        "receipt": {"eth_getTransactionReceipt": RECEIPT | {"blockNumber": number}},
        "wait": {"eth_getTransactionReceipt": RECEIPT | {"transactionIndex": number}},
        "sign": {"eth_getBlockByNumber": BLOCK, "eth_getTransactionCount": number},
        "nonce": {"eth_getTransactionCount": number},
        "mined_nonce": {"eth_getTransactionCount": number},
    }
    for name, results in calls.items():
        node.results(**results)
        with pytest.raises(ChainUnavailableError):
            CALLS[name](chain)
    node.results(eth_getBlockByNumber=BLOCK | {"baseFeePerGas": "-0x1"}, eth_getTransactionCount="0x1")
    with pytest.raises(ChainUnavailableError):
        CALLS["sign"](chain)


def test_the_nonce_of_what_was_signed_is_read_back() -> None:
    for nonce in (0, 1, 127, 128, 70_000):
        prospect = Prospect(nonce=nonce, base_fee=7)
        raw = chain_at("http://127.0.0.1:9").sign(ACCOUNT, b"\1", gas=50_000, prospect=prospect).raw
        assert nonce_of(raw) == nonce


@pytest.mark.parametrize(("base_fee", "tip"), [(0, 0), (1, 10**6), (7, 10**6), (10**7, 10**6), (10**10, 10**9)])
def test_a_quiet_chain_is_offered_a_tip_as_well(base_fee: int, tip: int) -> None:
    """Else geth would take nothing where nobody else sends: its base fee is 7 wei there, a tenth of which is none."""
    prospect = Prospect(nonce=1, base_fee=base_fee)
    raw = chain_at("http://127.0.0.1:9").sign(ACCOUNT, b"\1", gas=50_000, prospect=prospect).raw
    fields = TypedTransaction.from_bytes(HexBytes(raw)).as_dict()
    assert fields["maxPriorityFeePerGas"] == tip
    assert fields["maxFeePerGas"] == 2 * base_fee + tip


def test_right_answers_are_read(node: Node) -> None:
    consent = (10, 20, 2, 1, 7, 3, State.PAUSED)
    types = ("uint48", "uint48", "uint32", "uint32", "uint32", "uint32", "uint8")
    node.results(eth_getBlockByNumber=BLOCK, eth_getTransactionCount="0x5", eth_getCode="0x60", eth_chainId="0x7a69")
    chain = chain_at(node.url)
    chain.check()
    block = chain.latest()
    assert (block.number, block.block_hash, block.timestamp, block.base_fee) == (16, HASH, 32, 7)
    assert chain.block_hash(16) == HASH
    node.results(eth_getBlockByNumber=BLOCK, eth_blockNumber="0x10")
    assert chain.block_hashes(range(250)) == ([HASH] * 250, 16)
    assert chain.block_hashes([]) == ([], 16)
    node.results(eth_getBlockByNumber=BLOCK, eth_getTransactionCount="0x5", eth_getCode="0x60", eth_chainId="0x7a69")
    assert chain.finalized("finalized") == 16
    assert chain.nonce(OTHER) == chain.mined_nonce(OTHER) == 5
    assert chain.is_contract(OTHER)
    node.results(eth_call="0x" + encode(types, consent).hex())
    assert chain.consent(ID).accesses == 1
    assert chain.consents([ID, HASH]) == [chain.consent(ID)] * 2
    node.results(eth_call="0x" + encode(("uint8[]",), [[0, 5]]).hex())
    assert chain.statuses([ID, ID], OTHER) == [Reason.NONE, Reason.REVOKED]
    node.results(eth_call="0x" + encode(("uint8[]",), [[0, 5]]).hex(), eth_getBlockByNumber=BLOCK)
    assert chain.statuses_after(16, [ID, ID], OTHER) == ([Reason.NONE, Reason.REVOKED], HASH)
    node.results(eth_call="0x" + encode(("uint8[]",), [[0, 5]]).hex(), eth_getBlockByNumber=None)
    assert chain.statuses_after(16, [ID, ID], OTHER) == ([Reason.NONE, Reason.REVOKED], None)
    node.results(eth_getCode="0x")
    assert not chain.is_contract(OTHER)


def test_a_block_or_receipt_that_is_not_there_is_none(node: Node) -> None:
    chain = chain_at(node.url)
    assert chain.block_hash(7) is None
    assert chain.receipt(HASH) is None
    assert chain.finalized("finalized") == 0
    node.results(eth_blockNumber="0x6")
    assert chain.block_hashes([7, 8]) == ([None, None], 6)
    node.results(eth_getTransactionReceipt={"blockHash": None})
    assert chain.receipt(HASH) is None


@pytest.mark.parametrize("count", [0, 1, 3])
def test_verdicts_that_are_not_as_many_as_the_questions_are_none(node: Node, count: int) -> None:
    # Zipped with the questions, they would answer for the wrong consents.
    node.results(eth_call="0x" + encode(("uint8[]",), [[0] * count]).hex())
    with pytest.raises(ChainUnavailableError):
        chain_at(node.url).statuses([ID, ID], OTHER)


@pytest.mark.parametrize(
    "spoil", [lambda answer: answer + "\n", lambda answer: answer.replace("00", "00 ", 1), str.upper]
)
def test_an_answer_that_is_no_plain_hex_is_none(node: Node, spoil: Callable[[str], str]) -> None:
    node.results(eth_call=spoil("0x" + encode(("uint8[]",), [[0]]).hex()))
    with pytest.raises(ChainUnavailableError):
        chain_at(node.url).statuses([ID], OTHER)


def test_a_node_that_is_behind_is_not_believed_that_nothing_happened(node: Node) -> None:
    node.results(eth_getLogs=[], eth_getBlockByNumber={"hash": HASH})
    assert chain_at(node.url).events(0, 7) == []
    node.results(eth_getLogs=[], eth_getBlockByNumber=None)
    with pytest.raises(ChainUnavailableError, match="newest blocks"):
        chain_at(node.url).events(0, 7)


def log_in(block: str) -> dict[str, Any]:
    topic = next(topic for topic, name in TOPICS.items() if name == "AccessRecorded")
    place = {"logIndex": "0x2", "blockNumber": block, "blockHash": HASH, "transactionHash": HASH}
    return {"address": CONTRACT.lower(), "topics": [topic, ID], "data": HASH, **place}


@pytest.mark.parametrize("most", [1, 7, 700, 3_000, 9_999, 10_000])
def test_events_are_asked_of_fewer_blocks_where_the_endpoint_takes_no_more(node: Node, most: int) -> None:
    first, last = 5, 10_004 if most > 7 else 60
    blocks = [5, 6, 50, *((2_504, 9_999, 10_004) if most > 7 else (60,))]

    def answer(method: str, params: list[Any]) -> dict[str, Any]:
        if method != "eth_getLogs":
            return {"result": BLOCK}
        start, end = (int(params[0][name], 16) for name in ("fromBlock", "toBlock"))
        if end - start >= most:
            return {"error": {"code": -32600, "message": "exceed maximum block range"}}
        return {"result": [log_in(hex(block)) for block in blocks if start <= block <= end]}

    node.answer = answer
    assert [event.block_number for event in chain_at(node.url).events(first, last)] == blocks


@pytest.mark.parametrize("heeds", [True, False])
def test_only_events_of_the_names_that_are_wanted_are_asked_for_and_given(node: Node, heeds: bool) -> None:
    wanted: list[Any] = []
    revoked = next(topic for topic, name in TOPICS.items() if name == "ConsentRevoked")
    revocation = log_in("0x6") | {"topics": [revoked, ID, "0x" + "00" * 12 + "11" * 20], "data": "0x"}

    def answer(method: str, params: list[Any]) -> dict[str, Any]:
        if method != "eth_getLogs":
            return {"result": BLOCK}
        wanted.extend(params[0]["topics"])
        return {"result": [revocation] if heeds else [log_in("0x5"), revocation, log_in("0x7")]}

    node.answer = answer
    (event,) = chain_at(node.url).events(5, 7, names={"ConsentRevoked"})
    assert (event.name, event.block_number) == ("ConsentRevoked", 6)
    assert wanted == [[revoked]]


def test_an_endpoint_that_gives_no_events_at_all_is_not_asked_without_end(node: Node) -> None:
    refused: dict[str, Any] = {"error": {"code": -32005, "message": "limit exceeded"}}
    node.answer = lambda method, _params: refused if method == "eth_getLogs" else {"result": BLOCK}
    with pytest.raises(ChainUnavailableError):
        chain_at(node.url).events(0, 9_999)
    assert node.asked.count("eth_getLogs") < 16
    node.asked.clear()
    # One that is behind is not asked about blocks that it may know.
    node.answer = lambda method, _params: {"result": [] if method == "eth_getLogs" else None}
    with pytest.raises(ChainUnavailableError, match="newest blocks"):
        chain_at(node.url).events(0, 9_999)
    assert node.asked.count("eth_getLogs") == 1


def test_a_receipt_is_read_with_its_events(node: Node) -> None:
    node.results(eth_getTransactionReceipt=RECEIPT | {"logs": [log_in("0x10")]})
    receipt = chain_at(node.url).receipt(HASH)
    assert receipt is not None
    assert receipt.succeeded
    assert [event.args for event in receipt.events] == [(ID, HASH)]
    assert chain_at(node.url).wait(HASH, timeout=0) == receipt
    node.results(eth_getTransactionReceipt=RECEIPT | {"status": "0x0"})
    failed = chain_at(node.url).receipt(HASH)
    assert failed is not None
    assert not failed.succeeded
    assert EVENTS["AccessRecorded"] == (("bytes32",), ("bytes32",))


def test_a_transaction_in_no_block_in_time_has_an_unknown_outcome(node: Node) -> None:
    with pytest.raises(ConfirmationTimeoutError):
        chain_at(node.url).wait(HASH, timeout=0.05)


def test_a_transaction_is_asked_for_until_it_is_in_a_block(node: Node) -> None:
    node.answer = lambda _method, _params: {"result": RECEIPT if len(node.asked) == 4 else None}
    assert chain_at(node.url).wait(HASH, timeout=60).block_number == 16
    assert node.asked == ["eth_getTransactionReceipt"] * 4


def test_a_receipt_that_came_with_the_send_is_not_asked_for_again_but_once_only(node: Node) -> None:
    node.results(eth_getTransactionReceipt=RECEIPT)
    chain = chain_at(node.url)
    transaction_hash = hex32_of(keccak(b"\2\3"))
    chain.send(b"\2\3")
    node.results(eth_getTransactionReceipt=RECEIPT | {"blockNumber": "0x11"})
    node.asked.clear()
    # Another transaction's is not taken for it.
    assert chain.wait(HASH, timeout=0).block_number == 17
    assert chain.wait(transaction_hash, timeout=0).block_number == 16
    assert len(node.asked) == 1
    # Later it may have moved to another block.
    assert chain.wait(transaction_hash, timeout=0).block_number == 17


@pytest.mark.parametrize("found", [{"result": None}, {"error": {"code": -32000, "message": "indexing"}}])
def test_a_send_that_the_node_took_needs_no_receipt_yet(node: Node, found: dict[str, Any]) -> None:
    node.answer = lambda method, _params: found if method == "eth_getTransactionReceipt" else {"result": HASH}
    chain = chain_at(node.url)
    chain.send(b"\2\3")
    node.results(eth_getTransactionReceipt=RECEIPT)
    assert chain.wait(hex32_of(keccak(b"\2\3")), timeout=0).block_number == 16


def test_a_transaction_that_is_in_a_block_was_taken_in_whatever_words_the_node_says_so(node: Node) -> None:
    refused = {"error": {"code": -32000, "message": "known transaction"}}
    node.answer = lambda method, _params: {"result": RECEIPT} if method == "eth_getTransactionReceipt" else refused
    chain = chain_at(node.url)
    chain.send(b"\2\3")
    assert chain.wait(hex32_of(keccak(b"\2\3")), timeout=0).succeeded
    node.answer = lambda method, _params: {"result": None} if method == "eth_getTransactionReceipt" else refused
    with pytest.raises(TransactionRevertedError):
        chain.send(b"\2\3")


def test_a_proof_of_state_has_the_header_that_hashes_to_the_block_or_there_is_none(node: Node) -> None:
    header = header_rlp(HEADER)
    proof = {"accountProof": ["0xc1", "0xc2"], "storageProof": [{"proof": ["0xc3"]}, {"proof": []}]}
    node.results(eth_getBlockByNumber=HEADER | {"hash": block_hash_of(header)}, eth_getProof=proof)
    state = chain_at(node.url).state_proof(1, [ID, HASH])
    assert (state.header, state.account, state.storage) == (header, (b"\xc1", b"\xc2"), ((b"\xc3",), ()))
    # As on a chain that leaves something out of what it hashes, or that lies.
    node.results(eth_getBlockByNumber=HEADER, eth_getProof=proof)
    with pytest.raises(ChainUnavailableError, match="hashes its headers"):
        chain_at(node.url).state_proof(1, [ID, HASH])


@pytest.mark.parametrize("chain_id", ["0x1", "0x7a68", "0x7a6a"])
def test_another_chain_is_told_apart_before_anything_else(node: Node, chain_id: str) -> None:
    node.results(eth_chainId=chain_id, eth_getCode="0x60")
    with pytest.raises(WrongChainError):
        chain_at(node.url).check()


def test_an_address_without_code_is_no_contract(node: Node) -> None:
    node.results(eth_chainId="0x7a69", eth_getCode="0x", eth_call="0x")
    for name in ("check", "statuses", "consent", "consents", "log"):
        with pytest.raises(ContractMissingError):
            CALLS[name](chain_at(node.url))


# ------------------------------------------------------------------------------------------------------ error objects


def revert_of(name: str) -> str:
    samples: dict[str, Any] = {"address": OTHER, "bytes32": b"\2" * 32, "uint32": 1, "uint64": 1}
    types = ERRORS[name]
    return "0x" + (keccak(text=f"{name}({','.join(types)})")[:4] + encode(types, [samples[t] for t in types])).hex()


SHAPES: Final[dict[str, Callable[[str], dict[str, Any]]]] = {
    "geth": lambda data: {"code": 3, "message": "execution reverted", "data": data},
    "anvil": lambda data: {"code": 3, "message": f"execution reverted: custom error {data[:10]}", "data": data},
    "hardhat": lambda data: {
        "code": -32603,
        "message": "Error: VM Exception while processing transaction: reverted with custom error",
        "data": {"message": "reverted", "transactionHash": HASH, "data": data},
    },
    "besu": lambda data: {"code": -32000, "message": "Execution reverted", "data": data},
    "nethermind": lambda data: {"code": -32015, "message": "VM execution error.", "data": f"Reverted {data}"},
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("name", ERRORS)
def test_a_revert_becomes_its_class_whichever_node_reports_it(
    node: Node, name: str, shape: Callable[[str], dict[str, Any]]
) -> None:
    node.fails(shape(revert_of(name)))
    for call in ("simulate", "consent"):
        with pytest.raises(LedgerError) as caught:
            CALLS[call](chain_at(node.url))
        assert type(caught.value) is SOLIDITY_TWINS[name]


def test_a_stale_head_and_a_stopped_writer_are_matters_of_the_chain(node: Node) -> None:
    for name, error in (("HeadMismatch", HeadMismatchError), ("NotWriter", NotWriterError)):
        node.fails(SHAPES["geth"](revert_of(name)))
        with pytest.raises(ChainError) as caught:
            CALLS["simulate"](chain_at(node.url))
        assert type(caught.value) is error


ERROR_OBJECTS: Final[dict[str, tuple[object, type[ChainError]]]] = {
    "revert without data": ({"code": 3, "message": "execution reverted"}, TransactionRevertedError),
    "revert with empty data": ({"code": 3, "message": "execution reverted", "data": "0x"}, TransactionRevertedError),
    "revert with foreign data": ({"message": "execution reverted", "data": "0x12345678"}, TransactionRevertedError),
    "revert with text": (
        {"code": 3, "message": "execution reverted: no", "data": "0x08c379a0" + encode(("string",), ["no"]).hex()},
        TransactionRevertedError,
    ),
    "nothing of Nethermind's": (
        {"code": -32015, "message": "VM execution error.", "data": "Reverted 0x"},
        TransactionRevertedError,
    ),
    "no revert of Nethermind's": (
        {"code": -32015, "message": "VM execution error.", "data": "OutOfGas"},
        ChainUnavailableError,
    ),
    "data that is no hex": ({"code": 3, "message": "execution reverted", "data": "0xzz"}, TransactionRevertedError),
    "data of odd length": ({"code": 3, "message": "execution reverted", "data": "0x123"}, TransactionRevertedError),
    "data a number": ({"code": 3, "message": "execution reverted", "data": 7}, TransactionRevertedError),
    "data a list": ({"code": 3, "message": "execution reverted", "data": [1]}, TransactionRevertedError),
    "nested data a number": ({"message": "execution reverted", "data": {"data": 7}}, TransactionRevertedError),
    "nested data missing": ({"message": "execution reverted", "data": {}}, TransactionRevertedError),
    "arguments cut off": ({"message": "revert", "data": revert_of("NotWriter")[:-2]}, ChainUnavailableError),
    "rate limit": ({"code": -32005, "message": "limit exceeded"}, ChainUnavailableError),
    "no such method": ({"code": -32601, "message": "method not found"}, ChainUnavailableError),
    "no message": ({"code": -32000}, ChainUnavailableError),
    "message a number": ({"message": 7}, ChainUnavailableError),
    "text": ("broken", ChainUnavailableError),
    "a number": (7, ChainUnavailableError),
    "empty": ({}, ChainUnavailableError),
    "false": (False, ChainUnavailableError),
}


@pytest.mark.parametrize(("error", "expected"), ERROR_OBJECTS.values(), ids=ERROR_OBJECTS)
def test_an_error_object_has_its_class_in_a_call_of_the_contract(
    node: Node, error: object, expected: type[ChainError]
) -> None:
    node.fails(error)
    with pytest.raises(LedgerError) as caught:
        CALLS["simulate"](chain_at(node.url))
    assert type(caught.value) is expected


@EVERY_CALL
@pytest.mark.parametrize("error", [error for error, _ in ERROR_OBJECTS.values()], ids=ERROR_OBJECTS)
def test_an_error_object_is_a_matter_of_the_chain_whatever_was_asked(node: Node, error: object, name: str) -> None:
    node.fails(error)
    try:
        answer = CALLS[name](chain_at(node.url))
    except LedgerError as refusal:
        assert isinstance(refusal, ChainError)  # noqa: PT017 - `send` takes some of them for "I have it"
    else:
        # An account that errs has not said yes.
        assert name == "send" or (name == "accepts_signature" and answer is False)


@pytest.mark.parametrize("code", [-32005, 429])
def test_an_account_that_was_not_asked_for_its_signature_has_not_said_no(node: Node, code: int) -> None:
    node.fails({"code": code, "message": "too many requests"})
    with pytest.raises(ChainUnavailableError):
        chain_at(node.url).accepts_signature(OTHER, HASH, b"\1")
    node.fails({"code": 3, "message": "execution reverted: too many requests"})
    assert not chain_at(node.url).accepts_signature(OTHER, HASH, b"\1")


@pytest.mark.parametrize(
    "error",
    [
        {"code": -32000, "message": "already known"},
        {"code": -32000, "message": "nonce too low: next nonce 5, tx nonce 4"},
        {"code": -32003, "message": "Nonce too low"},
        {"code": -32010, "message": "OldNonce, Current nonce: 5, nonce of rejected tx: 4"},
        {"code": -32010, "message": "Transaction nonce is too low. Try incrementing the nonce."},
        {"code": -32603, "message": "VM Exception while processing transaction: reverted", "data": {"data": "0x"}},
    ],
)
def test_a_node_that_has_the_transaction_already_is_no_refusal(node: Node, error: dict[str, Any]) -> None:
    node.fails(error)
    chain_at(node.url).send(b"\2\3")


@pytest.mark.parametrize(
    "message",
    [
        *("Known transaction", "known transaction: 0x6013", "AlreadyKnown", "tx already exists in cache"),
        "Transaction with the same hash was already imported.",
        "replacement transaction underpriced",
    ],
)
def test_a_transaction_that_waits_at_the_node_was_taken_in_whatever_words_it_says_so(node: Node, message: str) -> None:
    waiting: dict[str, Any] = {"result": {"hash": hex32_of(keccak(b"\2\3")), "blockHash": None}}
    refused: dict[str, Any] = {"error": {"code": -32000, "message": message}}
    by_method = {"eth_sendRawTransaction": refused, "eth_getTransactionByHash": waiting}
    node.answer = lambda method, _params: by_method.get(method, {"result": None})
    chain_at(node.url).send(b"\2\3")
    # What it does not have was refused.
    by_method["eth_getTransactionByHash"] = {"result": None}
    with pytest.raises(TransactionRevertedError):
        chain_at(node.url).send(b"\2\3")


@pytest.mark.devnet
def test_a_transaction_that_waits_for_a_block_can_be_sent_again_as_it_is(quiet_devnet: Devnet) -> None:
    """Else an act would be signed again with each try, and each would be one more that waits."""
    rpc = JsonRpc(quiet_devnet.url)
    fund(rpc, [ACCOUNT.address])
    chain = chain_at(quiet_devnet.url)
    raw = chain.sign(ACCOUNT, b"", gas=50_000)
    rpc("evm_setAutomine", False)
    try:
        chain.send(raw.raw)
        chain.send(raw.raw)
    finally:
        rpc("evm_setAutomine", True)
        rpc("evm_mine")
    chain.send(raw.raw)
    assert chain.wait(raw.transaction_hash, timeout=5).succeeded


@pytest.mark.parametrize(
    "message",
    ["insufficient funds for gas * price + value", "intrinsic gas too low", "underpriced", "invalid sender", ""],
)
def test_a_transaction_that_the_node_does_not_take_is_said_not_to_be_sent(node: Node, message: str) -> None:
    node.fails({"code": -32000, "message": message})
    with pytest.raises(TransactionRevertedError):
        chain_at(node.url).send(b"\2\3")


TOGETHER: Final[dict[str, bytes]] = {
    "one answer for both": b'{"jsonrpc":"2.0","id":0,"result":"0x1"}',
    "one error for both": b'{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"no batches"}}',
    "no answers": b"[]",
    "one missing": b'[{"id":0,"result":{}}]',
    "ids missing": b'[{"result":{}},{"result":"0x1"}]',
    "other ids": b'[{"id":7,"result":{}},{"id":8,"result":"0x1"}]',
    "ids as text": b'[{"id":"0","result":{}},{"id":"1","result":"0x1"}]',
    "ids as lists": b'[{"id":[],"result":{}},{"id":[],"result":"0x1"}]',
    "not objects": b'["id","id"]',
    "one without a result": b'[{"id":0,"result":{}},{"id":1}]',
    "one with an error": b'[{"id":0,"result":{}},{"id":1,"error":{"code":-32005,"message":"limit"}}]',
}


@pytest.mark.parametrize("body", TOGETHER.values(), ids=TOGETHER)
def test_answers_to_calls_made_together_that_do_not_belong_to_them_are_none(node: Node, body: bytes) -> None:
    node.answer = answering(Raw(body))
    with pytest.raises(ChainUnavailableError):
        CALLS["sign"](chain_at(node.url))


def test_answers_to_calls_made_together_may_come_in_any_order(node: Node) -> None:
    node.answer = answering(Raw(json.dumps([{"id": 1, "result": "0x5"}, {"id": 0, "result": BLOCK}]).encode()))
    assert chain_at(node.url).sign(ACCOUNT, b"", gas=100_000).nonce == 5


def test_a_name_and_a_password_in_the_address_are_for_the_node_and_for_nobody_else(node: Node) -> None:
    node.results(eth_chainId="0x1")
    JsonRpc(node.url)("eth_chainId")
    JsonRpc(node.url.replace("//", "//us%40er:pass%3Aword@"))("eth_chainId")
    assert node.credentials == [None, "Basic " + b64encode(b"us@er:pass:word").decode()]
    with pytest.raises(ChainUnavailableError) as caught:
        JsonRpc("http://us%40er:pass%3Aword@127.0.0.1:1")("eth_chainId")
    assert "pass" not in str(caught.value)


def test_what_a_node_says_is_not_repeated_at_length(node: Node) -> None:
    node.fails({"code": -32000, "message": "x" * 100_000})
    for name in ("latest", "simulate", "send"):
        with pytest.raises(ChainError) as caught:
            CALLS[name](chain_at(node.url))
        assert len(caught.value.message) < 400


# ------------------------------------------------------------------------------------------------ those who ask with it


def test_a_network_that_gives_nothing_away_is_no_devnet(node: Node) -> None:
    node.fails({"code": -32601, "message": "method not found"})
    with pytest.raises(DevnetError):
        fund(JsonRpc(node.url), [OTHER])
    assert node.asked == ["hardhat_setBalance", "anvil_setBalance"]


def test_a_signed_transaction_names_the_chain_and_the_next_nonce(node: Node) -> None:
    node.results(eth_getBlockByNumber=BLOCK, eth_getTransactionCount="0x5")
    signed = chain_at(node.url).sign(ACCOUNT, b"\0\1\2\3", gas=100_000)
    assert signed.nonce == 5
    assert signed.transaction_hash == "0x" + keccak(signed.raw).hex()
    assert Account.recover_transaction(signed.raw) == ACCOUNT.address
    assert "eth_sendRawTransaction" not in node.asked


@pytest.mark.parametrize(("base_fee", "offered"), [(0, 25), (7, 25), (250, 25), (10**9, 10**8)])
def test_a_transaction_offers_a_tenth_of_the_base_fee_and_no_less_than_it_is_told(
    tmp_path: Path, base_fee: int, offered: int
) -> None:
    Custodian.init(config := Config(data=tmp_path / "data", rpc_url="http://127.0.0.1:9", priority_fee=25))
    with Custodian(config) as custodian:
        signed = custodian.chain.sign(ACCOUNT, b"\1", gas=50_000, prospect=Prospect(nonce=1, base_fee=base_fee))
    sent = TypedTransaction.from_bytes(HexBytes(signed.raw)).as_dict()
    assert (sent["maxPriorityFeePerGas"], sent["maxFeePerGas"]) == (offered, 2 * base_fee + offered)


@pytest.mark.parametrize(("base_fee", "most"), [(40, 84), (90, 100), (91, 100)])
def test_a_transaction_costs_no_more_than_it_may(node: Node, base_fee: int, most: int) -> None:
    node.results(eth_getBlockByNumber=BLOCK | {"baseFeePerGas": hex(base_fee)}, eth_getTransactionCount="0x5")
    signed = chain_at(node.url, priority_fee=1, max_fee=100).sign(ACCOUNT, b"\1", gas=50_000)
    sent = TypedTransaction.from_bytes(HexBytes(signed.raw)).as_dict()
    assert (sent["maxPriorityFeePerGas"], sent["maxFeePerGas"]) == (base_fee // 10, most)


def test_an_endpoint_that_says_that_gas_is_dear_gets_nothing_to_sign(node: Node) -> None:
    """The priority fee is paid in full, and is a tenth of what the endpoint says that the base fee is."""
    verdicts = "0x" + encode(("uint8[]",), [[0]]).hex()
    dear = BLOCK | {"baseFeePerGas": hex(10**15)}
    node.results(eth_getBlockByNumber=dear, eth_getTransactionCount="0x5", eth_call=verdicts)
    chain = chain_at(node.url)
    with pytest.raises(FeeTooHighError):
        chain.sign(ACCOUNT, b"\1", gas=50_000)
    with pytest.raises(FeeTooHighError):
        chain.prospect([ID], OTHER, OTHER)
    node.results(eth_getBlockByNumber=BLOCK, eth_getTransactionCount="0x5", eth_call=verdicts)
    assert chain.prospect([ID], OTHER, OTHER)[0] == [Reason.NONE]


def test_verification_against_an_endpoint_that_answers_nonsense_fails_closed(node: Node, monkeypatch: Any) -> None:
    compiled = {
        "evm": {
            "bytecode": {"object": artifact().bytecode.hex()},
            "deployedBytecode": {"object": artifact().deployed_bytecode.hex()},
        }
    }
    # The compiler is slow and not what is asked about here; test_deploy.py runs it.
    monkeypatch.setattr("ledger.deploy.recompile", lambda _compiler: compiled)
    assert contract_address().startswith("0x")
    nonsense: list[Any] = [None, 7, "x", "0xzz", [], {}]
    for result in nonsense:
        node.results(eth_getCode=result)
        with pytest.raises(ChainError):
            verify(JsonRpc(node.url))


@pytest.mark.parametrize("odd", [None, "x", "0xzz", [], {}, "0x"], ids=repr)
def test_deployment_by_an_endpoint_that_answers_nonsense_fails_closed(node: Node, odd: object) -> None:
    node.answer = answering({"result": odd})
    with pytest.raises(LedgerError) as caught:
        deploy(node.url, ACCOUNT)
    assert isinstance(caught.value, ChainError)


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_deployment_by_an_endpoint_that_is_no_node_fails_closed(node: Node, broken: Raw) -> None:
    node.answer = answering(broken)
    with pytest.raises(LedgerError) as caught:
        deploy(node.url, ACCOUNT)
    assert isinstance(caught.value, ChainError)
