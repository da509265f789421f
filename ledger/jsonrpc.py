"""One JSON-RPC endpoint, over HTTP.

No call is retried behind the caller's back: whether a send may be repeated is the caller's to know.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from http import HTTPStatus
from http.client import HTTPResponse
from io import BufferedReader, RawIOBase
from socket import socket
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import unquote

from urllib3 import BaseHTTPResponse, HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError
from urllib3.util import make_headers, parse_url

from ledger.errors import ChainUnavailableError
from ledger.json_forms import origin_of

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

TIMEOUT_SECONDS: Final = 10.0
POOL_SIZE: Final = 32
MAX_ANSWER: Final = 2**28
PIECE: Final = 2**16
REVERTED: Final = "Reverted "
_Part = TypeVar("_Part")
_HEX: Final = re.compile(r"0x([0-9a-fA-F]{2})*\Z")
_SECONDS: Final = re.compile(r"[0-9]{1,6}\Z")


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
        if isinstance(data, str) and data.startswith(REVERTED):
            # Nethermind's, and Parity's before it: the message says nothing of it.
            self.message, data = f"{self.message} (reverted)", data.removeprefix(REVERTED)
        self.revert = bytes.fromhex(data[2:]) if isinstance(data, str) and _HEX.match(data) else b""


class _InTime(RawIOBase):
    """What a socket receives until its timeout is over: on its own, it would start again with every byte."""

    def __init__(self, sock: socket, received: RawIOBase) -> None:
        self._sock, self._received = sock, received
        self._deadline = time.monotonic() + (sock.gettimeout() or 0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._sock.settimeout(left)
        return self._sock.recv_into(buffer)

    def close(self) -> None:
        self._received.close()
        super().close()


class _AnswerInTime(HTTPResponse):
    """One timeout for all of an answer, its head included."""

    def __init__(self, sock: socket, debuglevel: int = 0, method: str | None = None, url: str | None = None) -> None:
        super().__init__(sock, debuglevel, method, url)
        self.fp = BufferedReader(_InTime(sock, self.fp.detach()))


class _Http(HTTPConnection):
    response_class = _AnswerInTime


class _Https(HTTPSConnection):
    response_class = _AnswerInTime


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _Http


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _Https


class JsonRpc:
    """One endpoint. Raises `ChainUnavailableError` when it does not answer as a node does.

    Raw JSON-RPC over one pool of connections: the way of a release has six calls in it, and a general client's work
    around each is longer than the call.

    An answer must end within `timeout` and within `MAX_ANSWER`: an endpoint may mean ill, and a writer waits for it.
    """

    def __init__(self, url: str, *, timeout: float = TIMEOUT_SECONDS) -> None:
        self.url, self._timeout = url, timeout

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

    @cached_property
    def _endpoint(self) -> tuple[HTTPConnectionPool, str]:
        """The pool and the path, found once: to take the URL apart takes longer than the limits of an answer."""
        pools = PoolManager(maxsize=POOL_SIZE, timeout=self._timeout, retries=False)
        pools.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}
        address = parse_url(self.url)
        # A name and a password in the address are for its server (RFC 7617), as every other client has it.
        headers = make_headers(basic_auth=unquote(address.auth)) if address.auth else {}
        return pools.connection_from_url(self.url, {"headers": headers}), address.request_uri

    def _post(self, body: object) -> Any:  # noqa: ANN401 - JSON
        try:
            pool, path = self._endpoint
            # Preloaded, an answer would have no limit of size.
            response = pool.request("POST", path, json=body, redirect=False, preload_content=False)
            return json.loads(self._within_bounds(response))
        except (HTTPError, OSError, ValueError, RecursionError) as exc:
            raise self._unusable() from exc

    def _within_bounds(self, response: BaseHTTPResponse) -> bytes:
        """The body of an answer."""
        if response.status == HTTPStatus.OK:
            read = bytearray()
            while len(read) <= MAX_ANSWER:
                piece = response.read1(PIECE)
                if not piece:
                    response.release_conn()
                    return bytes(read)
                read += piece
        # What may still come would be taken for the next answer.
        response.close()
        said = response.headers.get("Retry-After", "")
        raise self._unusable(retry_after=int(said) if _SECONDS.match(said) else None)

    def _result(self, method: str, answer: dict[str, Any]) -> Any:  # noqa: ANN401 - JSON
        if answer.get("error") is not None:
            raise RpcError(method, answer["error"])
        if "result" not in answer:
            raise self._unusable()
        return answer["result"]

    def _unusable(self, *, retry_after: int | None = None) -> ChainUnavailableError:
        said = f"no usable answer from the chain at {origin_of(self.url)}"
        return ChainUnavailableError(said, retry_after=retry_after)


def in_parts(
    first: int,
    last: int,
    most: int,
    read: Callable[[int, int], list[_Part]],
    *,
    is_final: Callable[[ChainUnavailableError, int], bool],
) -> list[_Part]:
    """What `read` finds in these blocks, both included, in parts of `most` blocks; of fewer where that is too many.

    Endpoints limit the blocks or the events of one answer, each in words of its own, so any refusal may be that, unless
    it `is_final`, given the error and the last block that was asked for. Raises the refusal of a single block.
    """
    found: list[_Part] = []
    start, size = first, most
    while start <= last:
        end = min(start + size - 1, last)
        try:
            found += read(start, end)
        except ChainUnavailableError as exc:
            if start == end or is_final(exc, end):
                raise
            size = max(1, (end - start + 1) // 4)
        else:
            start = end + 1
    return found


def _envelope(number: int, method: str, params: Sequence[object]) -> dict[str, object]:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": list(params)}
