"""A node that serves a ledger of any size, made on the way to disk: `audit_feed.py make DIRECTORY ENTRIES` and `serve`.

The answers are written as they will be sent, so that serving them is finding a place in a file: `eth_getLogs` and
`eth_getBlockReceipts` cost the same. Headers, receipts and tries are those of `tests/histories.py`. Every block has a
batch of 100 entries; every consent is granted in the block before it is first used, and used about twenty times.
"""

from __future__ import annotations

import json
import mmap
import pickle
import random
import sys
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO

from eth_hash.backends.pysha3 import keccak256
from histories import ACCESSES, DAY, REFUSALS, Books, Miner, Transaction, deployed_code

from ledger.artifact import contract_address

CHAIN_ID = 31337
BATCH = 100
USES = 20
WRITERS = 4
Span = tuple[int, int]


class Maker:
    """Writes blocks and receipts, and remembers where they are."""

    def __init__(self, directory: Path, entries: int) -> None:
        self._directory, self._entries = directory, entries
        self._rng = random.Random(entries)
        contract = bytes.fromhex(contract_address()[2:])
        self._code = deployed_code(CHAIN_ID, contract)
        self._books = Books(contract)
        self._miner = Miner(self._rng, self._books, self._code, first=0)
        self._time = 1_700_000_000
        self.index: dict[str, Any] = {"blocks": [], "receipts": [], "logs": [], "numbers": {}}

    def make(self) -> None:
        rng, books = self._rng, self._books
        with (self._directory / "blocks").open("wb") as blocks, (self._directory / "receipts").open("wb") as receipts:
            self._files = blocks, receipts
            self._seal([])
            self._miner.deployed = True
            custodian = rng.randbytes(20)
            writers = [(custodian, rng.randbytes(20)) for _ in range(WRITERS)]
            for key in writers:
                books.set_writer(*key, allowed=True)
            consents: list[bytes] = []
            for number in range(self._entries // BATCH):
                consents += [self._granted(custodian) for _ in range(BATCH // USES)]
                granted = self._taken()
                if number % 10 == 9:
                    # Refused from here on: about one entry in twenty.
                    ended = rng.choice(consents)
                    books.revoke([ended], books.subjects[ended])
                kind = REFUSALS if number % 50 == 49 else ACCESSES
                chosen = rng.choices(consents[-100 * BATCH :], k=BATCH)
                books.append(kind, *writers[number % WRITERS], [(one, rng.randbytes(32)) for one in chosen])
                self._seal([granted, self._taken()])
        self._finish()

    def _granted(self, custodian: bytes) -> bytes:
        consent_id = self._rng.randbytes(32)
        window = self._time - 1, self._time + 3_000 * DAY
        self._books.grant(consent_id, self._rng.randbytes(20), custodian, window, 2**32 - 1)
        return consent_id

    def _taken(self) -> Transaction:
        logs = tuple(self._books.emitted)
        self._books.emitted.clear()
        return Transaction(logs)

    def _seal(self, transactions: Sequence[Transaction]) -> None:
        self._time += 12
        self._books.now = self._time
        self.last = mined = self._miner.seal(self._time, transactions)
        blocks, receipts = self._files
        self.index["numbers"][mined.block["hash"]] = len(self.index["blocks"])
        self.index["blocks"].append(_write(blocks, _compact(mined.block)))
        start = receipts.tell()
        spans: list[Span] = []
        receipts.write(b"[")
        for place, receipt in enumerate(mined.receipts):
            # The logs last and by themselves: the same bytes are the answer to both questions.
            logs = receipt.pop("logs")
            receipts.write(b"," * bool(place) + _compact(receipt)[:-1] + b',"logs":[')
            spans.append(_write(receipts, b",".join(map(_compact, logs))))
            receipts.write(b"]}")
        receipts.write(b"]")
        self.index["receipts"].append((start, receipts.tell()))
        self.index["logs"].append(spans)

    def _finish(self) -> None:
        proof = self.last.accounts.proof(keccak256(self._books.contract))
        answer = {
            "address": contract_address(),
            "accountProof": ["0x" + node.hex() for node in proof],
            "balance": "0x0",
            "nonce": "0x1",
            "codeHash": "0x" + keccak256(self._code).hex(),
            "storageHash": "0x" + self.last.storage.root().hex(),
            "storageProof": [],
        }
        self.index["proof"], self.index["code"] = _compact(answer), _compact("0x" + self._code.hex())
        with (self._directory / "index").open("wb") as file:
            pickle.dump(self.index, file)


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _write(file: BinaryIO, raw: bytes) -> Span:
    start = file.tell()
    file.write(raw)
    return start, file.tell()


class Answers:
    """The results of calls, as bytes of JSON."""

    def __init__(self, directory: Path) -> None:
        with (directory / "index").open("rb") as file:
            self._index = pickle.load(file)
        self._blocks, self._receipts = (_mapped(directory / name) for name in ("blocks", "receipts"))
        self._last = len(self._index["blocks"]) - 1

    def result(self, method: str, params: Sequence[Any]) -> list[bytes] | None:
        """In pieces; None if there is no such method."""
        if method == "eth_getBlockReceipts":
            start, end = self._index["receipts"][self._number(params[0])]
            return [self._receipts[start:end]]
        if method in ("eth_getBlockByNumber", "eth_getBlockByHash"):
            number = self._number(params[0])
            if not 0 <= number <= self._last:
                return [b"null"]
            start, end = self._index["blocks"][number]
            return [self._blocks[start:end]]
        if method == "eth_getLogs":
            numbers = range(self._number(params[0]["fromBlock"]), self._number(params[0]["toBlock"]) + 1)
            spans = [span for number in numbers for span in self._index["logs"][number] if span[0] < span[1]]
            pieces = [piece for start, end in spans for piece in (b",", self._receipts[start:end])]
            return [b"[", *pieces[1:], b"]"]
        fixed = {"eth_chainId": _compact(hex(CHAIN_ID)), "eth_blockNumber": _compact(hex(self._last))}
        fixed |= {"eth_getProof": self._index["proof"], "eth_getCode": self._index["code"]}
        return [fixed[method]] if method in fixed else None

    def _number(self, block: str) -> int:
        if block in ("latest", "safe", "finalized"):
            return self._last
        number: int = self._index["numbers"].get(block, -1) if len(block) == 66 else int(block, 16)
        return number


def _mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # As every node: otherwise a small answer waits for its head to be acknowledged, which takes 40 ms.
    disable_nagle_algorithm = True
    answers: Answers

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if isinstance(asked, list):
            pieces = [b"["]
            for place, one in enumerate(asked):
                pieces += [b","] * bool(place) + self._answer(one)
            pieces.append(b"]")
        else:
            pieces = self._answer(asked)
        body = b"".join(pieces)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _answer(self, one: dict[str, Any]) -> list[bytes]:
        head = b'{"jsonrpc":"2.0","id":%d,' % one["id"]
        found = self.answers.result(one["method"], one["params"])
        if found is None:
            return [head, b'"error":{"code":-32601,"message":"the method does not exist"}}']
        return [head, b'"result":', *found, b"}"]

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def main() -> None:
    verb, directory, argument = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    if verb == "make":
        directory.mkdir()
        Maker(directory, argument).make()
        return
    Handler.answers = Answers(directory)
    ThreadingHTTPServer.daemon_threads = True
    ThreadingHTTPServer(("127.0.0.1", argument), Handler).serve_forever()


if __name__ == "__main__":
    main()
