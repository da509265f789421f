"""One JSON-RPC endpoint, over HTTP.

No call is retried behind the caller's back: whether a send may be repeated is the caller's to know.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from http import HTTPStatus
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Final

from urllib3 import BaseHTTPResponse, PoolManager
from urllib3.exceptions import HTTPError

from ledger.errors import ChainUnavailableError

TIMEOUT_SECONDS: Final = 10.0
POOL_SIZE: Final = 32
MAX_ANSWER: Final = 2**28
PIECE: Final = 2**16
_HEX: Final = re.compile(r"0x([0-9a-fA-F]{2})*\Z")


class RpcError(Exception):
    """The node answered with an error. What it means is for whoever asked to say."""

    def __init__(self, method: str, error: object) -> None:
        super().__init__(method)
        details = error if isinstance(error, dict) else {}
        self.message = str(details.get("message", error)).lower()
        self.code = details.get("code")
        data = details.get("data")
        # Hardhat nests the revert data; others give it as it is.
        data = data.get("data") if isinstance(data, dict) else data
        self.revert = bytes.fromhex(data[2:]) if isinstance(data, str) and _HEX.match(data) else b""


class JsonRpc:
    """One endpoint. Raises `ChainUnavailableError` when it does not answer as a node does.

    Raw JSON-RPC over one pool of connections: the way of a release has six calls in it, and a general client's work
    around each is longer than the call.

    With `bounded`, an answer must also end within `timeout`, and within `MAX_ANSWER`: for endpoints that mean ill.
    """

    def __init__(self, url: str, *, timeout: float = TIMEOUT_SECONDS, bounded: bool = False) -> None:
        self.url = url
        self._timeout, self._bounded = timeout, bounded
        self._pool = PoolManager(maxsize=POOL_SIZE, timeout=timeout, retries=False)

    def __call__(self, method: str, *params: object) -> Any:  # noqa: ANN401 - JSON
        """The result of one call. Raises `RpcError` for an error object."""
        answer = self._post(_envelope(0, method, params))
        if not isinstance(answer, dict):
            raise self._unusable()
        return self._result(method, answer)

    def together(self, *calls: tuple[str, Sequence[object]]) -> list[Any]:
        """The results of several calls in one round trip, in order."""
        results = self.each(*calls)
        for result in results:
            if isinstance(result, RpcError):
                raise result
        return results

    def each(self, *calls: tuple[str, Sequence[object]]) -> list[Any]:
        """As `together`; a call that was answered with an error object has its `RpcError` in its place."""
        answers = self._post([_envelope(number, method, params) for number, (method, params) in enumerate(calls)])
        try:
            by_id = {answer["id"]: answer for answer in answers}
            return [self._result_or_error(method, by_id[number]) for number, (method, _) in enumerate(calls)]
        except (TypeError, KeyError, AttributeError) as exc:
            raise self._unusable() from exc

    def _result_or_error(self, method: str, answer: dict[str, Any]) -> Any:  # noqa: ANN401 - JSON
        try:
            return self._result(method, answer)
        except RpcError as error:
            return error

    def _post(self, body: object) -> Any:  # noqa: ANN401 - JSON
        try:
            return json.loads(self._in_time(body) if self._bounded else self._fetched(body))
        except (HTTPError, OSError, ValueError, RecursionError) as exc:
            raise self._unusable() from exc

    def _fetched(self, body: object) -> bytes:
        response = self._pool.request("POST", self.url, json=body, redirect=False, preload_content=not self._bounded)
        if response.status != HTTPStatus.OK:
            response.close()
            raise self._unusable()
        return self._within_bounds(response) if self._bounded else response.data

    def _in_time(self, body: object) -> bytes:
        """As `_fetched`. A head that comes byte by byte is waited for by a thread that nobody waits for."""
        answered: SimpleQueue[bytes | Exception] = SimpleQueue()

        def ask() -> None:
            try:
                answered.put(self._fetched(body))
            except Exception as exc:  # noqa: BLE001 - raised to the caller
                answered.put(exc)

        Thread(target=ask, daemon=True).start()
        try:
            answer = answered.get(timeout=self._timeout)
        except Empty:
            raise self._unusable() from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _within_bounds(self, response: BaseHTTPResponse) -> bytes:
        """The body of an answer; a timeout of the socket alone is for one piece of it."""
        deadline = time.monotonic() + self._timeout
        read = bytearray()
        while piece := response.read1(PIECE):
            read += piece
            if len(read) > MAX_ANSWER or time.monotonic() > deadline:
                # What may still come would be taken for the next answer.
                response.close()
                raise self._unusable()
        response.release_conn()
        return bytes(read)

    def _result(self, method: str, answer: dict[str, Any]) -> Any:  # noqa: ANN401 - JSON
        if answer.get("error") is not None:
            raise RpcError(method, answer["error"])
        if "result" not in answer:
            raise self._unusable()
        return answer["result"]

    def _unusable(self) -> ChainUnavailableError:
        return ChainUnavailableError(f"no usable answer from the chain at {self.url}")


def _envelope(number: int, method: str, params: Sequence[object]) -> dict[str, object]:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": list(params)}
