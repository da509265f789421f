"""Requests to addresses that others named: a webhook must not become a way into networks that its owner cannot reach.

- A URL is https, its port 443 or one above 1023, its host a public name or address.
- A name is resolved once. Every address must be public, and one of those is connected to: a name that resolves to
  something else a moment later (DNS rebinding) gains nothing. The certificate must be the name's.
- Redirects are not followed. Of an answer, its status is taken; the body is left unread.

`insecure` lifts the rules for URLs and addresses, for private networks; the way of a request is the same.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cached_property
from http.client import HTTPConnection, HTTPException
from threading import Timer
from typing import Final

from ledger.errors import MalformedError
from ledger.signatures import HttpRequest

TIMEOUT_SECONDS: Final = 5.0
"""For each of: connecting to an address, the TLS handshake, the answer."""
MAX_URL_LENGTH: Final = 500
MAX_ADDRESSES: Final = 3
HTTP_PORT: Final = 80
HTTPS_PORT: Final = 443
FIRST_FREE_PORT: Final = 1024
LAST_PORT: Final = 65_535

REFUSED_ADDRESS: Final = "refused_address"
UNRESOLVED: Final = "unresolved"
UNREACHABLE: Final = "unreachable"
TIMEOUT: Final = "timeout"
TLS: Final = "tls"
NOT_HTTP: Final = "not_http"

_URL: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9_](?:[a-z0-9._-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<target>/[A-Za-z0-9._~!$&'()*+,;=:@/?%-]*)\Z"
)
_NEVER: Final = tuple(
    ipaddress.ip_network(network)
    # What the standard library takes for public (Python 3.11) and is not, or leads elsewhere: protocol assignments with
    # some clouds' metadata, Azure's host, site-local, 6to4.
    for network in ("192.0.0.0/24", "168.63.129.16/32", "fec0::/10", "2002::/16")
)
_Address = tuple[socket.AddressFamily, tuple[object, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where a URL points. `authority` is host and port as the URL has them."""

    scheme: str
    host: str
    port: int
    authority: str
    target: str


class _FailedError(Exception):
    """A request failed, in this way. Never leaves this module."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


class Outbound:
    """Sends requests to others' addresses."""

    def __init__(self, *, insecure: bool, tls: ssl.SSLContext | None = None) -> None:
        self._insecure, self._given_tls = insecure, tls

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return self._given_tls or ssl.create_default_context()

    def check(self, url: str) -> None:
        """Raises `MalformedError` unless requests may be sent there. Names are judged when they are resolved."""
        self._place(url)

    def post(self, request: HttpRequest) -> str:
        """Send a request. Returns the status of the answer (`"204"`), or the kind of failure: it raises none."""
        try:
            place = self._place(request.url)
            sock = _connected(self._resolved(place))
            with closing(self._secured(sock, place) if place.scheme == "https" else sock) as secured:
                return str(_status(secured, place, request))
        except MalformedError:
            return REFUSED_ADDRESS
        except _FailedError as failed:
            return failed.kind

    def _place(self, url: str) -> _Place:
        found = _URL.match(url) if len(url) <= MAX_URL_LENGTH else None
        if found is None or (found["scheme"] != "https" and not self._insecure):
            raise MalformedError(
                f"url: expected https://host/path in lower case, without user or fragment, at most {MAX_URL_LENGTH} "
                "characters",
                field="url",
            )
        port = int(found["port"] or (HTTPS_PORT if found["scheme"] == "https" else HTTP_PORT))
        if port != HTTPS_PORT and not (1 if self._insecure else FIRST_FREE_PORT) <= port <= LAST_PORT:
            raise MalformedError(f"url: expected port {HTTPS_PORT}, or one from {FIRST_FREE_PORT} on", field="url")
        host = found["host"].strip("[]")
        if not self._insecure and not _may_be_public(host):
            raise MalformedError("url: expected a public host", field="url")
        authority = found["host"] + (f":{found['port']}" if found["port"] else "")
        return _Place(scheme=found["scheme"], host=host, port=port, authority=authority, target=found["target"])

    def _resolved(self, place: _Place) -> list[_Address]:
        try:
            found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise _FailedError(UNRESOLVED) from None
        # All of them: one that is not public says what the name is for.
        if not self._insecure and not all(_is_public(str(address[0])) for *_, address in found):
            raise _FailedError(REFUSED_ADDRESS)
        return [(family, address) for family, *_, address in found]

    def _secured(self, sock: socket.socket, place: _Place) -> ssl.SSLSocket:
        try:
            return self._tls.wrap_socket(sock, server_hostname=place.host)
        except TimeoutError:
            kind = TIMEOUT
        except (ssl.SSLError, ValueError):
            kind = TLS
        except OSError:
            kind = UNREACHABLE
        raise _FailedError(kind)


def _connected(addresses: list[_Address]) -> socket.socket:
    kind = UNREACHABLE
    for family, address in addresses[:MAX_ADDRESSES]:
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.settimeout(TIMEOUT_SECONDS)
        try:
            sock.connect(address)
        except OSError as exc:
            sock.close()
            kind = TIMEOUT if isinstance(exc, TimeoutError) else UNREACHABLE
        else:
            return sock
    raise _FailedError(kind)


def _status(sock: socket.socket, place: _Place, request: HttpRequest) -> int:
    """The status of the answer. The socket's own timeout starts anew with every byte, so the whole has a limit too."""
    connection = HTTPConnection(place.host, place.port)
    connection.sock = sock
    deadline = time.monotonic() + TIMEOUT_SECONDS
    end = Timer(TIMEOUT_SECONDS, _cut, [sock])
    end.start()
    try:
        headers = {"Host": place.authority, "Connection": "close", **request.headers}
        connection.request(request.method, place.target, body=request.body, headers=headers)
        with connection.getresponse() as answer:
            # One that was cut off looks complete.
            if time.monotonic() < deadline:
                return answer.status
            kind = TIMEOUT
    except TimeoutError:
        kind = TIMEOUT
    except ssl.SSLError:
        kind = TLS
    except OSError:
        kind = UNREACHABLE
    except (HTTPException, ValueError):
        kind = NOT_HTTP
    finally:
        end.cancel()
    raise _FailedError(TIMEOUT if time.monotonic() >= deadline else kind)


def _cut(sock: socket.socket) -> None:
    with suppress(OSError):
        # Not the method of `SSLSocket`, which changes what the other thread is reading from.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _may_be_public(host: str) -> bool:
    """Of a name, only that it is one: where it leads shows when it is resolved."""
    try:
        return _is_public(host)
    except ValueError:
        # A last label that is a number makes an address, in forms that only resolvers read (`127.1`, `0x7f.1`).
        *others, last = host.split(".")
        return bool(others) and last[0].isalpha()


def _is_public(text: str) -> bool:
    address = ipaddress.ip_address(text)
    if not address.is_global or address.is_multicast or address.is_reserved:
        return False
    return not any(address in network for network in _NEVER)
