"""The feed of an audit: headers and receipts of one endpoint, in order, in few round trips, one step ahead.

Every header comes with its hash recomputed and every block's events proven by it (`blockproof.py`): an endpoint can
withhold and can contradict itself, and both show, but it cannot make anything up.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final, Protocol

from ledger.blockproof import Header, ProvenTransaction, bloom_of, proven_logs, read_header
from ledger.consent import Address, Hex32
from ledger.errors import ChainUnavailableError, MethodUnknownError
from ledger.jsonrpc import RpcError, in_parts
from ledger.stateproof import quantity

HEADERS_AT_ONCE: Final = 128
RECEIPTS_AT_ONCE: Final = 16
LOG_BLOCKS: Final = 10_000
PAUSE_SECONDS: Final = 0.25
LONGEST_WAIT: Final = 60
"""For an endpoint that says when it may be asked again: limits count by the minute. What is longer is no answer."""
_DIGITS: Final = re.compile(r"0x([0-9a-fA-F]{2})*\Z")
_METHOD_NOT_FOUND: Final = -32601
"""The code of JSON-RPC 2.0 for a method that the endpoint does not have."""
_NOT_THERE: Final = ("not supported", "not found", "not exist", "not available", "unsupported", "unknown")

ProvenBlock = tuple[Header, list[ProvenTransaction]]
Call = tuple[str, Sequence[object]]


class Rpc(Protocol):
    """An endpoint; `jsonrpc.JsonRpc` is one."""

    @property
    def url(self) -> str:
        """Where it is."""

    def __call__(self, method: str, *params: object) -> Any:  # noqa: ANN401 - JSON
        """The result of one call."""

    def together(self, *calls: Call) -> list[Any]:
        """The results of several calls in one round trip, in order."""


class Feed:
    """What one endpoint says of a contract's chain.

    Raises `ChainUnavailableError` where it does not answer as a node does, `AuditError` where it contradicts itself.
    """

    def __init__(self, rpc: Rpc, contract: Address, *, tries: int, sleep: Callable[[float], None] = time.sleep) -> None:
        self._rpc, self._contract, self._tries, self._sleep = rpc, contract, tries, sleep
        self._bloom = bloom_of(contract)
        self._at_once: dict[str, int] = {}
        self._whole_blocks = True

    # --------------------------------------------------------------------------------------------------------- answers

    def chain_id(self) -> int:
        """The chain that it says it serves."""
        answer = self._ask("eth_chainId")
        with _understood("eth_chainId"):
            return quantity(answer)

    def header(self, block: Hex32 | int | str) -> Header:
        """The header of a block by its hash, its number, or what a tag stands for now."""
        if isinstance(block, str) and block.startswith("0x"):
            found = read_header(self._block(self._ask("eth_getBlockByHash", block, False), block))
            if found.block_hash != block:
                raise ChainUnavailableError(f"asked for block {block}, the endpoint gave another")
            return found
        name = hex(block) if isinstance(block, int) else block
        found = read_header(self._block(self._ask("eth_getBlockByNumber", name, False), str(block)))
        if isinstance(block, int) and found.number != block:
            raise ChainUnavailableError(f"asked for block {block}, the endpoint gave block {found.number}")
        return found

    def account(self, header: Header, slots: Sequence[Hex32] = ()) -> dict[str, Any]:
        """The contract's account and slots at a block, with their proofs (EIP-1186), unchecked."""
        answer = self._ask("eth_getProof", self._contract, list(slots), hex(header.number))
        if not isinstance(answer, dict):
            raise ChainUnavailableError("eth_getProof: the endpoint's answer is no proof")
        return answer

    def code(self, header: Header) -> bytes:
        """The contract's code at a block, unchecked."""
        answer = self._ask("eth_getCode", self._contract, hex(header.number))
        with _understood("eth_getCode"):
            if not _DIGITS.match(answer):
                raise ValueError(answer)
            return bytes.fromhex(answer[2:])

    # --------------------------------------------------------------------------------------------------------- history

    def blocks(self, first: int, last: int) -> Iterator[list[ProvenBlock]]:
        """All blocks in this range, both ends included, each with the contract's events in it, a few at a time.

        A block whose logsBloom does not have the contract has no event of it; of every other one all receipts are read.
        """
        return _ahead(self._proven(self._headers(range(first, last + 1))))

    def blocks_with_events(self, first: int, last: int) -> Iterator[list[ProvenBlock]]:
        """Only the blocks that the endpoint says have events: for chains too long to read every header."""
        return _ahead(self._proven(self._headers(self._numbers(first, last))))

    def _headers(self, numbers: Sequence[int]) -> Iterator[list[Header]]:
        for part in self._parts("headers", numbers, HEADERS_AT_ONCE):
            answers = self._together("headers", [("eth_getBlockByNumber", [hex(one), False]) for one in part])
            headers = [read_header(self._block(block, str(one))) for block, one in zip(answers, part, strict=True)]
            if [header.number for header in headers] != list(part):
                raise ChainUnavailableError("the endpoint gave other blocks than those asked for")
            yield headers

    def _proven(self, chunks: Iterator[list[Header]]) -> Iterator[list[ProvenBlock]]:
        for headers in chunks:
            place = 0
            wanted = [at for at, header in enumerate(headers) if header.bloom & self._bloom == self._bloom]
            for part in self._parts("receipts", wanted, RECEIPTS_AT_ONCE):
                proven = dict(zip(part, self._events([headers[at] for at in part]), strict=True))
                end = part[-1] + 1
                yield [(headers[at], proven.get(at, [])) for at in range(place, end)]
                place = end
            yield [(header, []) for header in headers[place:]]

    def _events(self, headers: Sequence[Header]) -> list[list[ProvenTransaction]]:
        receipts = self._receipts(headers)
        return [proven_logs(header, found, self._contract) for header, found in zip(headers, receipts, strict=True)]

    def _receipts(self, headers: Sequence[Header]) -> list[Any]:
        """Every receipt of these blocks, by block."""
        if self._whole_blocks:
            try:
                return self._together("receipts", [("eth_getBlockReceipts", [hex(one.number)]) for one in headers])
            except MethodUnknownError:
                self._whole_blocks = False
        calls: list[Call] = [("eth_getTransactionReceipt", [one]) for header in headers for one in header.transactions]
        answers = iter(self._together("receipts", calls))
        return [[next(answers) for _ in header.transactions] for header in headers]

    def _numbers(self, first: int, last: int) -> list[int]:
        """The numbers of the blocks that the endpoint says have events of the contract."""

        def read(start: int, end: int) -> list[int]:
            query = {"address": self._contract, "fromBlock": hex(start), "toBlock": hex(end)}
            logs = self._ask("eth_getLogs", query)
            with _understood("eth_getLogs"):
                return [quantity(log["blockNumber"]) for log in logs]

        def is_unknown(refusal: ChainUnavailableError, _: int) -> bool:
            return isinstance(refusal, MethodUnknownError)

        found = set(in_parts(first, last, LOG_BLOCKS, read, is_final=is_unknown))
        if any(not first <= number <= last for number in found):
            raise ChainUnavailableError("the endpoint gave logs of other blocks than those asked for")
        return sorted(found)

    # ------------------------------------------------------------------------------------------------------------- way

    def _parts(self, name: str, items: Sequence[Any], most: int) -> Iterator[Sequence[Any]]:
        place = 0
        while place < len(items):
            size = self._at_once.setdefault(name, most)
            yield items[place : place + size]
            place += size

    def _together(self, name: str, calls: Sequence[Call]) -> list[Any]:
        """Several calls in one round trip; one by one, and fewer from then on, where the endpoint takes not so many."""
        if not calls:
            return []
        try:
            answers = self._at_its_time(calls)
        except (RpcError, ChainUnavailableError) as exc:
            _require_known(exc)
            first = self._ask(calls[0][0], *calls[0][1])
            self._at_once[name] = max(1, self._at_once.get(name, len(calls)) // 4)
            return [first, *(self._ask(method, *params) for method, params in calls[1:])]
        if not isinstance(answers, list) or len(answers) != len(calls):
            raise ChainUnavailableError("the endpoint gave another number of answers")
        return answers

    def _ask(self, method: str, *params: object) -> Any:  # noqa: ANN401 - JSON
        for attempt in range(self._tries):
            try:
                return self._rpc(method, *params)
            except RpcError as exc:
                _require_known(exc)
                problem = ChainUnavailableError(f"{method}: the endpoint refused ({exc.message[:200]})")
            except ChainUnavailableError as exc:
                problem = exc
            if attempt + 1 < self._tries and not self._waited(problem):
                self._sleep(PAUSE_SECONDS * 2**attempt)
        raise problem

    def _at_its_time(self, calls: Sequence[Call]) -> list[Any]:
        """Several calls in one round trip; where the endpoint says that it was asked too often, again when it says."""
        for _ in range(self._tries - 1):
            try:
                return self._rpc.together(*calls)
            except ChainUnavailableError as exc:
                if not self._waited(exc):
                    raise
        return self._rpc.together(*calls)

    def _waited(self, problem: ChainUnavailableError) -> bool:
        """Waits for as long as the endpoint says, if it says so."""
        if problem.retry_after is None or problem.retry_after > LONGEST_WAIT:
            return False
        self._sleep(problem.retry_after)
        return True

    def _block(self, answer: object, asked: str) -> dict[str, Any]:
        if not isinstance(answer, dict):
            raise ChainUnavailableError(f"the endpoint does not have block {asked}")
        return answer


def _require_known(exc: Exception) -> None:
    if not isinstance(exc, RpcError):
        return
    # Some say it in words only. "Header not found" is another thing: that comes with time.
    says_so = "method" in exc.message and any(phrase in exc.message for phrase in _NOT_THERE)
    if exc.code == _METHOD_NOT_FOUND or says_so:
        raise MethodUnknownError(f"the endpoint refused: {exc.message[:200]}") from exc


@contextmanager
def _understood(method: str) -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as exc:
        raise ChainUnavailableError(f"{method}: the endpoint's answer is not that of an Ethereum node") from exc


def _ahead(chunks: Iterator[list[ProvenBlock]]) -> Iterator[list[ProvenBlock]]:
    """The same, each fetched while the one before it is read."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        coming = pool.submit(next, chunks, None)
        while (chunk := coming.result()) is not None:
            coming = pool.submit(next, chunks, None)
            yield chunk
