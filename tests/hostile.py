"""An endpoint that is no node: whatever comes, it does one thing with the connection. See `WAYS`."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Final

from listening import Listener

Way = Callable[["Hostile", socket.socket], None]


class Hostile(Listener):
    """Listens on `url` until it is closed. Use as a context manager."""

    def __init__(self, way: Way) -> None:
        super().__init__()
        self._way = way
        self.closing = threading.Event()

    def __enter__(self) -> Hostile:
        self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.close()

    def serve(self, client: socket.socket) -> None:
        with suppress(OSError):
            client.recv(65536)
            self._way(self, client)


def saying(status: str, body: bytes, *headers: str) -> Way:
    """One answer."""

    def way(_hostile: Hostile, client: socket.socket) -> None:
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers, "", ""]
        client.sendall("\r\n".join(lines).encode() + body)

    return way


def streaming(start: bytes, piece: bytes, pause: float) -> Way:
    """An answer without an end."""

    def way(hostile: Hostile, client: socket.socket) -> None:
        client.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + start)
        for _ in count():
            if hostile.closing.is_set():
                return
            client.sendall(piece)
            time.sleep(pause)

    return way


def silent(hostile: Hostile, _client: socket.socket) -> None:
    """Takes the question, and says nothing."""
    hostile.closing.wait()


def hanging_up(_hostile: Hostile, _client: socket.socket) -> None:
    """Takes the question, and leaves."""


def trickling_headers(hostile: Hostile, client: socket.socket) -> None:
    """The answer's head never ends."""
    client.sendall(b"HTTP/1.1 200 OK\r\n")
    for number in count():
        if hostile.closing.wait(0.02):
            return
        client.sendall(f"X-{number}: 0\r\n".encode())


def byte_by_byte(start: bytes) -> Way:
    """One line that never ends, so slowly that no wait for the next byte is a long one."""

    def way(hostile: Hostile, client: socket.socket) -> None:
        client.sendall(b"HTTP/1.1 200 OK\r\n" + start)
        while not hostile.closing.wait(0.1):
            client.sendall(b"a")

    return way


OK: Final = "200 OK"
WAYS: Final[dict[str, Way]] = {
    "429": saying("429 Too Many Requests", b'{"jsonrpc":"2.0","id":0,"error":{"code":429}}', "Retry-After: 100000"),
    "503": saying("503 Service Unavailable", b"<html>busy</html>"),
    "401": saying("401 Unauthorized", b"no key"),
    "redirect": saying("307 Temporary Redirect", b"", "Location: http://127.0.0.1:1/"),
    "no JSON": saying(OK, b"<html>a hotel's login page</html>"),
    "no text": saying(OK, bytes(range(256)) * 10),
    "nothing": saying(OK, b""),
    "deep": saying(OK, b"[" * 1_000_000),
    "deep and closed": saying(OK, b"[" * 200_000 + b"]" * 200_000),
    "deep object": saying(OK, b'{"result":' * 100_000 + b"1" + b"}" * 100_000),
    "a number": saying(OK, b"7"),
    "a long number": saying(OK, b'{"jsonrpc":"2.0","id":0,"result":' + b"9" * 5_000_000 + b"}"),
    "null": saying(OK, b"null"),
    "no result": saying(OK, b'{"jsonrpc":"2.0","id":0}'),
    "other id": saying(OK, b'{"jsonrpc":"2.0","id":77,"result":"0x7a69"}'),
    "huge": saying(OK, b'{"jsonrpc":"2.0","id":0,"result":"0x' + b"0" * 60_000_000 + b'"}'),
    "hangs up": hanging_up,
    "no HTTP": lambda _hostile, client: client.sendall(b"\x16\x03\x01\x02\x00garbage\r\n\r\n"),
    "silent": silent,
    "trickling": streaming(b'{"jsonrpc":', b" ", 0.1),
    "trickling head": trickling_headers,
    "a header byte by byte": byte_by_byte(b"X: "),
    "a chunk byte by byte": byte_by_byte(b"Transfer-Encoding: chunked\r\n\r\n1;"),
    "endless": streaming(b'{"jsonrpc":"2.0","id":0,"result":"0x', b"0" * 1_000_000, 0.0),
}
