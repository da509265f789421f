"""A service as it is shipped, on the real node: requests over sockets, byte by byte where a test wants it."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from actors import Institution, Subject
from asking import WANTED
from service import served

from ledger.config import Config
from ledger.consent import Hex32
from ledger.contract_events import Event
from ledger.custodian import Custodian
from ledger.devnet import Devnet, free_port, fund
from ledger.signatures import HttpRequest

PATIENCE: Final = 60.0
S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class WireAnswer:
    """An answer as it came; status 0 if the connection ended without one."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json["code"]) if self.body else ""


NO_ANSWER: Final = WireAnswer(0, {}, b"")


class Connection:
    """A socket to a service. Use as a context manager."""

    def __init__(self, port: int, *, patience: float = PATIENCE) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=patience)
        self._file = self._socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def end(self) -> None:
        """Nothing more will be sent."""
        self._socket.shutdown(socket.SHUT_WR)

    def read_line(self) -> bytes:
        return self._file.readline()

    def read(self) -> WireAnswer:
        """The next answer, interim ones left out."""
        try:
            line = self._file.readline()
            if not line.endswith(b"\r\n"):
                return NO_ANSWER
            headers: dict[str, str] = {}
            while (header := self._file.readline()) not in (b"\r\n", b""):
                name, _, value = header.decode().partition(":")
                headers[name.strip().lower()] = value.strip()
            status = int(line.split()[1])
            if status < 200:
                return self.read()
            length = int(headers.get("content-length", "0"))
            body = self._file.read(length)
            return WireAnswer(status, headers, body) if len(body) == length else NO_ANSWER
        except OSError:
            return NO_ANSWER

    def is_open(self) -> bool:
        """False once the service has closed it; waits for that."""
        try:
            return self._file.read(1) != b""
        except OSError:
            return False

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def workers_of(service: int) -> list[int]:
    """The pids of the workers of a service that runs."""
    children = Path(f"/proc/{service}/task/{service}/children")
    return [int(pid) for pid in children.read_text("utf-8").split()]


class Live:
    """A custodian's data on a node, a lender and a person; the service around it is started with `running`."""

    def __init__(self, devnet: Devnet, data: Path) -> None:
        self.port = free_port()
        url = f"http://127.0.0.1:{self.port}"
        self.config = Config(data=data, rpc_url=devnet.url, service_url=url, rate_limit=10**6)
        self.log = data.parent / "service.log"
        self.lender, self.subject = Institution("bank-live"), Subject("person-live")
        Custodian.init(self.config)
        with self.custodian() as custodian:
            fund(custodian.rpc, [account.address for account in custodian.accounts.every()])
            custodian.deploy()
            self.lender.register(custodian)
            self.subject.furnish(custodian)

    def custodian(self) -> Custodian:
        """One more process of the custodian, as it were: a command beside the service."""
        return Custodian(self.config)

    @contextmanager
    def running(self) -> Iterator[int]:
        """The service with two workers. Its pid."""
        with self.log.open("ab") as log, served(self.config, self.port, log=log) as pid:
            yield pid

    def consents(self, count: int, **terms: Any) -> list[Hex32]:
        with self.custodian() as custodian:
            return [self.subject.grant(custodian, self.lender, **terms) for _ in range(count)]

    def events(self, name: str, consents: Sequence[Hex32]) -> list[Event]:
        """What of these consents is on the chain."""
        with self.custodian() as custodian:
            found = custodian.chain.events(0, custodian.chain.latest().number)
        return [event for event in found if event.name == name and event.args[0] in consents]

    # -------------------------------------------------------------------------------------------------------- requests

    def signed(self, method: str, path: str, body: object = None, *, key: str | None = None) -> HttpRequest:
        content = b"" if body is None else json.dumps(body).encode()
        headers = ({"Content-Type": "application/json"} if content else {}) | ({"Idempotency-Key": key} if key else {})
        message = HttpRequest(method=method, url=f"{self.config.service_url}{path}", headers=headers, body=content)
        return self.lender.sign(message, at=int(time.time()))

    def asking(self, consent: Hex32, key: str) -> bytes:
        """A request for a release, signed anew."""
        return self.raw(self.signed("POST", f"/v1/consents/{consent}/releases", WANTED, key=key))

    def raw(self, message: HttpRequest, *, target: str | None = None, extra: Sequence[str] = ()) -> bytes:
        """As it goes over the wire. `target` stands in the request line instead of the path."""
        path = target if target is not None else message.url.removeprefix(self.config.service_url)
        headers = {"Host": f"127.0.0.1:{self.port}", **message.headers}
        if message.body:
            headers["Content-Length"] = str(len(message.body))
        lines = [f"{message.method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), *extra]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + message.body

    def connect(self, *, patience: float = PATIENCE) -> Connection:
        return Connection(self.port, patience=patience)

    def ask(self, raw: bytes, *, patience: float = PATIENCE) -> WireAnswer:
        """One request on a connection of its own; `NO_ANSWER` if there was none within `patience` seconds."""
        try:
            with self.connect(patience=patience) as connection:
                connection.send(raw)
                return connection.read()
        except OSError:
            return NO_ANSWER

    def ask_at_once(self, requests: Sequence[bytes]) -> list[WireAnswer]:
        """All of them at the same time, each on a connection of its own."""
        return at_once(self.ask, requests)


def at_once(act: Callable[[S], T], each: Sequence[S]) -> list[T]:
    with ThreadPoolExecutor(len(each)) as pool:
        return list(pool.map(act, each))
