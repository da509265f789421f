"""The API over real sockets: `serving` in a thread of the test, `served` as gunicorn with workers of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import urllib3
from werkzeug.serving import WSGIRequestHandler, make_server

from ledger.config import Config
from ledger.custodian import Custodian
from web import create_app

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

ROOT: Final = Path(__file__).parent.parent
START_SECONDS: Final = 60
BODY: Final = "tests.body"
"""Where the environment of a request keeps the body of its response."""


class _Handler(WSGIRequestHandler):
    """Says nothing, and closes a response's body when the client resets the connection: Werkzeug's own handler leaves
    the file of one that was sent whole open (`execute` reads what is left of the request before it closes)."""

    def log(self, type: str, message: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Nothing."""

    def connection_dropped(self, error: BaseException, environ: WSGIEnvironment | None = None) -> None:
        super().connection_dropped(error, environ)
        close = getattr((environ or {}).get(BODY), "close", None)
        if close is not None:
            close()


def _with_body(app: WSGIApplication) -> WSGIApplication:
    def keep(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        body = environ[BODY] = app(environ, start_response)
        return body

    return keep


@contextmanager
def serving(custodian: Custodian, port: int, *, demo: bool = False) -> Iterator[None]:
    """The app around a custodian, whose `service_url` leads to this port, from a thread: as fast as a test can be."""
    app = _with_body(create_app(custodian, demo=demo))
    server = make_server("127.0.0.1", port, app, threaded=True, request_handler=_Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def served(
    config: Config, port: int, *, workers: int = 2, log: IO[bytes] | None = None, **environment: str
) -> Iterator[int]:
    """Gunicorn as it is shipped, on a custodian's data and chain; `config.service_url` leads to this port. Its pid."""
    command = [sys.executable, "-m", "gunicorn", "--config", "python:web.server"]
    settings = config.environment() | {"PORT": str(port), "CONSENT_LEDGER_WORKERS": str(workers), **environment}
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)} | settings, cwd=ROOT, stderr=log)
    try:
        _wait_for(f"http://127.0.0.1:{port}/readyz", process)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(START_SECONDS)


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    http = urllib3.PoolManager(retries=False, timeout=5)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if http.request("GET", url).status == 200:
                return
        except urllib3.exceptions.HTTPError:
            time.sleep(0.05)
    raise AssertionError(f"the service did not start: {url}")
