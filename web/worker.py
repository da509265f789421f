"""The worker: gunicorn's threads, which are handed a request only once it is here whole.

In gunicorn's own, a thread waits for what its client has yet to send, and the loop waits for clients to hang up: as
many slow clients as there are threads keep everybody else out. Here the loop, which waits for nobody, collects each
request, and a client that takes longer than `REQUEST_SECONDS` loses its connection, nothing else.

What is no request is refused with a problem, and named in the log by its kind alone: gunicorn's own words repeat it.

Connections are spread evenly: a worker leaves a new one to another that has fewer. Left to chance one often has twice
as many as the next, for as long as clients keep them.
"""

from __future__ import annotations

import errno
import mmap
import re
import socket
import struct
import time
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from itertools import takewhile
from selectors import EVENT_READ
from typing import Any, Final

from gunicorn.http import errors
from gunicorn.http.message import Request
from gunicorn.workers.gthread import TConn, ThreadWorker

from web.door import MAX_BODY
from web.problems import CONTENT_TYPE, body_of_status, trace_of

REQUEST_SECONDS: Final = 10.0
LINGER_SECONDS: Final = 2.0
"""How long a client is given to hang up, and to finish its request when the service stops."""
STALL_SECONDS: Final = 5
"""How long a thread waits for a client to take, or to send, the next bytes."""
GIVE_WAY_SECONDS: Final = 0.005
"""How long a connection is left to a worker that has fewer, before it is taken all the same."""
MAX_HEAD: Final = 32 * 1024
CHUNK: Final = 64 * 1024
END_OF_HEAD: Final = b"\r\n\r\n"
_CONTENT_LENGTH: Final = re.compile(rb"\r\ncontent-length[ \t]*:[ \t]*([^\r\n]*)", re.IGNORECASE)
_LENGTH: Final = re.compile(rb"[0-9]{1,12}[ \t]*\Z")
_EXPECTS: Final = re.compile(rb"\r\nexpect[ \t]*:", re.IGNORECASE)
_STATUSES: Final[dict[type[Exception], HTTPStatus]] = {
    errors.LimitRequestLine: HTTPStatus.REQUEST_URI_TOO_LONG,
    errors.LimitRequestHeaders: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    errors.ExpectationFailed: HTTPStatus.EXPECTATION_FAILED,
    errors.UnsupportedTransferCoding: HTTPStatus.NOT_IMPLEMENTED,
}

_OURS: Final = (errors.InvalidResponseHeader, errors.InvalidResponseHeaderName)
# How many connections each worker has, and one more; 0 where there is no worker. By its age, which gunicorn counts up.
# Made before the workers are, so that all of them see the same memory.
_PLACES: Final = 64
_connections: Final = memoryview(mmap.mmap(-1, 4 * _PLACES)).cast("I")


def forget_worker(age: int) -> None:
    """A worker has ended: nothing is left to it any more."""
    _connections[age % _PLACES] = 0


@dataclass(slots=True)
class _Arriving:
    """What has come of a request. `length` is that of head and body, once the head is here."""

    deadline: float
    received: bytearray = field(default_factory=bytearray)
    length: int | None = None
    has_body: bool = True
    expects: bool = False

    def is_here(self) -> bool:
        """Whether a thread would not have to wait for any more of it."""
        if self.length is None:
            end = self.received.find(END_OF_HEAD)
            if end < 0:
                return False
            self._measure(bytes(self.received[: end + 2]), end + len(END_OF_HEAD))
        return self.length is not None and len(self.received) >= self.length

    def _measure(self, head: bytes, length: int) -> None:
        lengths = _CONTENT_LENGTH.findall(head)
        is_said = not lengths or (not lengths[1:] and _LENGTH.match(lengths[0]) is not None)
        body = int(lengths[0]) if lengths and is_said else 0
        # Whatever else is said of its length, and too much of it, is refused without a look at the body.
        self.has_body = is_said and body <= MAX_BODY and b"transfer-encoding" not in head.lower()
        self.length = length + (body if self.has_body else 0)
        self.expects = _EXPECTS.search(head) is not None

    def waits_for_leave(self) -> bool:
        """Whether the client waits to be told that it may send the body. True once."""
        expects, self.expects = self.expects, False
        return expects


class Worker(ThreadWorker):  # type: ignore[misc] # gunicorn has no types
    """Collects requests in the loop; threads answer them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - gunicorn's
        super().__init__(*args, **kwargs)
        # By connection, in the order of their deadlines.
        self._arriving: dict[TConn, _Arriving] = {}
        self._collected: dict[TConn, _Arriving] = {}
        self._leaving: dict[TConn, float] = {}
        self._is_stopping = False
        # Until when a new connection is left to another worker; None if none is.
        self._gives_way_until: float | None = None

    # ------------------------------------------------------------------------------------------------------ in the loop

    def run(self) -> None:
        """Gunicorn's: the loop."""
        self._tell_connections()
        super().run()

    def accept(self, listener: socket.socket) -> None:
        """Gunicorn's: there is a connection to be taken."""
        if self._gives_way_until is None and self._another_has_fewer():
            self._gives_way_until = time.monotonic() + GIVE_WAY_SECONDS
            self.set_accept_enabled(False)
            return
        self._gives_way_until = None
        super().accept(listener)
        self._tell_connections()

    def set_accept_enabled(self, enabled: bool) -> None:  # noqa: FBT001 - gunicorn's
        """Gunicorn's, in every turn of the loop: whether connections are looked for."""
        is_time = self._gives_way_until is None or time.monotonic() >= self._gives_way_until
        super().set_accept_enabled(enabled and is_time)

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Gunicorn's: one turn of the loop."""
        if not self._accepting and self._gives_way_until is not None:
            timeout = min(timeout, max(0.0, self._gives_way_until - time.monotonic()))
        super().wait_for_and_dispatch_events(timeout)

    def _tell_connections(self) -> None:
        _connections[self.age % _PLACES] = 0 if self._is_stopping else self.nr_conns + 1

    def _another_has_fewer(self) -> bool:
        return any(0 < count <= self.nr_conns for count in _connections)

    def enqueue_req(self, conn: TConn) -> None:
        """Gunicorn's: a connection is new, or goes on after an answer."""
        patience = LINGER_SECONDS if self._is_stopping else REQUEST_SECONDS
        arriving = self._arriving[conn] = _Arriving(deadline=time.monotonic() + patience)
        conn.sock.setblocking(False)
        self.poller.register(conn.sock, EVENT_READ, partial(self._on_readable, conn))
        if conn.parser is None:
            _limit_waiting(conn.sock)
            self._on_readable(conn, conn.sock)
        else:
            # Bytes of this request may have come with the one before.
            arriving.received += conn.parser.unreader.take_buffered()
            self._on_readable(conn, conn.sock) if not arriving.is_here() else self._take(conn)

    def _on_readable(self, conn: TConn, sock: socket.socket) -> None:
        arriving = self._arriving[conn]
        try:
            received = sock.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        arriving.received += received
        if not received:
            self._drop(conn)
        elif arriving.is_here():
            self._take(conn)
        elif arriving.length is None and len(arriving.received) > MAX_HEAD:
            self._refuse(conn, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        elif arriving.waits_for_leave():
            _send(sock, b"HTTP/1.1 100 Continue\r\n\r\n")

    def _take(self, conn: TConn) -> None:
        """It is here: a thread takes it."""
        self._collected[conn] = self._arriving.pop(conn)
        self.poller.unregister(conn.sock)
        super().enqueue_req(conn)

    def _refuse(self, conn: TConn, status: HTTPStatus) -> None:
        _send(conn.sock, _refusal(status))
        del self._arriving[conn]
        self.poller.unregister(conn.sock)
        self._leave(conn)

    def finish_request(self, conn: TConn, answered: Future[bool]) -> None:
        """Gunicorn's: a thread is done with a request."""
        if not answered.cancelled() and answered.exception() is None and answered.result():
            super().finish_request(conn, answered)
        else:
            self._leave(conn)

    def _leave(self, conn: TConn) -> None:
        """Close it once the client has hung up: closed with bytes unread, it could lose the answer."""
        try:
            conn.sock.setblocking(False)
            conn.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._drop(conn)
            return
        self._leaving[conn] = time.monotonic() + LINGER_SECONDS
        self.poller.register(conn.sock, EVENT_READ, partial(self._on_leaving, conn))

    def _on_leaving(self, conn: TConn, sock: socket.socket) -> None:
        try:
            said = sock.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        if not said:
            self._drop(conn)

    def _drop(self, conn: TConn) -> None:
        self._arriving.pop(conn, None)
        self._leaving.pop(conn, None)
        with suppress(KeyError, ValueError):
            self.poller.unregister(conn.sock)
        self.nr_conns -= 1
        conn.close()

    def murder_pending(self) -> None:
        """Gunicorn's, in every turn of the loop: let go of those whose time is over."""
        now = time.monotonic()
        if not self.alive and not self._is_stopping:
            self._is_stopping = True
            self._gives_way_until = None
            for arriving in self._arriving.values():
                arriving.deadline = min(arriving.deadline, now + LINGER_SECONDS)
        for conn in _before(now, {conn: arriving.deadline for conn, arriving in self._arriving.items()}):
            if self._arriving[conn].received:
                self._refuse(conn, HTTPStatus.REQUEST_TIMEOUT)
            else:
                self._drop(conn)
        for conn in _before(now, self._leaving):
            self._drop(conn)
        self._tell_connections()

    # ---------------------------------------------------------------------------------------------------- in a thread

    def handle(self, conn: TConn) -> bool:
        """Gunicorn's: answer a request. Returns whether another may follow."""
        conn.init()
        conn.parser.unreader.unread(bytes(self._collected[conn].received))
        try:
            return bool(super().handle(conn))
        finally:
            del self._collected[conn]

    def handle_request(self, req: Request, conn: TConn) -> bool:
        """Gunicorn's."""
        if not self._collected[conn].has_body:
            # Whatever follows is not the next request.
            req.force_close()
        try:
            return bool(super().handle_request(req, conn))
        except BlockingIOError:
            # Its time to take the answer is over. As of a client that has gone, the log says nothing: with a traceback
            # for each, whoever likes could fill it.
            raise BrokenPipeError(errno.EPIPE, "the client does not take its answer") from None

    def handle_error(self, req: Request | None, client: socket.socket, addr: object, exc: Exception) -> None:  # noqa: ARG002
        """Gunicorn's: what came is no request, or something broke."""
        status = next((status for kind, status in _STATUSES.items() if isinstance(exc, kind)), HTTPStatus.BAD_REQUEST)
        if isinstance(exc, errors.ParseException) and not isinstance(exc, _OURS):
            self.log.warning("no request: %s", type(exc).__name__)
        else:
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            self.log.error("unexpected %s", trace_of(exc))
        _send(client, _refusal(status))


def _before(now: float, deadlines: Mapping[TConn, float]) -> list[TConn]:
    return list(takewhile(lambda conn: deadlines[conn] <= now, deadlines))


def _refusal(status: HTTPStatus) -> bytes:
    body = body_of_status(status).encode()
    headers = (
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"Content-Type: {CONTENT_TYPE}",
        f"Content-Length: {len(body)}",
        "X-Content-Type-Options: nosniff",
        "Connection: close",
    )
    return "\r\n".join([*headers, "", ""]).encode() + body


def _send(sock: socket.socket, data: bytes) -> None:
    # To a client that does not listen, or not any more, nothing is said.
    with suppress(OSError):
        sock.send(data)


def _limit_waiting(sock: socket.socket) -> None:
    """In threads: the loop never waits for a socket."""
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", STALL_SECONDS, 0))
