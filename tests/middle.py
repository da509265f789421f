"""A man in the middle: a TCP server between a client and the service, who may do to each answer whatever he likes.

`plans` are followed in turn, one for each request; without one, everything is passed on. `requests` and `answers` are
what came through, as bytes of the wire.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, replace

from listening import HOST, Listener


@dataclass(frozen=True, kw_only=True)
class WireAnswer:
    """An answer, taken apart so that it can be altered."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @classmethod
    def of(cls, raw: bytes) -> WireAnswer:
        head, _, body = raw.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = tuple((name, value.strip()) for name, _, value in (line.partition(":") for line in lines))
        return cls(status=int(first.split()[1]), headers=headers, body=body)

    def header(self, name: str) -> str:
        return next(value for key, value in self.headers if key.lower() == name.lower())

    def having(self, name: str, value: str | None) -> WireAnswer:
        """With another value of a header, or without it."""
        kept = tuple((key, old) for key, old in self.headers if key.lower() != name.lower())
        return replace(self, headers=kept if value is None else (*kept, (name, value)))

    def raw(self) -> bytes:
        sized = self.having("Content-Length", str(len(self.body))).having("Connection", "close")
        lines = [f"HTTP/1.1 {self.status} Altered", *(f"{name}: {value}" for name, value in sized.headers), "", ""]
        return "\r\n".join(lines).encode() + self.body


Plan = Callable[["Middle", bytes], bytes]


def passing(middle: Middle, request: bytes) -> bytes:
    """Touches nothing."""
    return middle.ask(request)


def altering(change: Callable[[WireAnswer], WireAnswer]) -> Plan:
    """Passes the request on, and alters the answer."""
    return lambda middle, request: change(WireAnswer.of(middle.ask(request))).raw()


def cutting(share: float) -> Plan:
    """Passes the request on, and hangs up after that share of the answer."""

    def plan(middle: Middle, request: bytes) -> bytes:
        raw = middle.ask(request)
        return raw[: int(len(raw) * share)]

    return plan


def saying(status: int, body: bytes = b"", **headers: str) -> Plan:
    """Passes nothing on, and answers by himself, as a proxy would."""
    made = WireAnswer(
        status=status, headers=tuple((name.replace("_", "-"), value) for name, value in headers.items()), body=body
    )
    return lambda _middle, _request: made.raw()


class Middle(Listener):
    """Listens on `port`; the service is at `upstream`."""

    def __init__(self, upstream: int) -> None:
        super().__init__()
        self.upstream = upstream
        self.plans: list[Plan] = []
        self.requests: list[bytes] = []
        self.answers: list[bytes] = []
        self.listen()

    def ask(self, request: bytes) -> bytes:
        """Pass a request on."""
        with socket.create_connection((HOST, self.upstream), timeout=30) as service:
            service.sendall(request.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
            raw = b"".join(iter(lambda: service.recv(65536), b""))
        self.answers.append(raw)
        return raw

    def serve(self, client: socket.socket) -> None:
        request = _request_of(client)
        if not request:
            return
        self.requests.append(request)
        plan = self.plans.pop(0) if self.plans else passing
        client.sendall(plan(self, request))


def _request_of(client: socket.socket) -> bytes:
    raw = b""
    while b"\r\n\r\n" not in raw:
        part = client.recv(65536)
        if not part:
            return b""
        raw += part
    head, _, body = raw.partition(b"\r\n\r\n")
    sizes = [line.partition(b":")[2] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    missing = (int(sizes[0]) if sizes else 0) - len(body)
    while missing > 0:
        part = client.recv(missing)
        raw += part
        missing -= len(part)
    return raw
