"""The server: gunicorn with several workers, each a custodian process with a writer key of its own.

Run as `gunicorn --config python:web.server`; `consent-ledger serve` does that. Settings that differ between
installations come from the environment (`ledger/config.py`); `PORT`, `CONSENT_LEDGER_WORKERS` and
`CONSENT_LEDGER_DEMO` from `serve` and `up`.

A thread is handed a request once it is here whole (`worker.py`). A worker that is told to stop answers what is in
flight first. What a killed one left behind is taken up by a retry, or ended by `sync`. One of the workers keeps house:
webhooks, expiry, sync.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
from typing import TYPE_CHECKING, Final

from prometheus_client import multiprocess

from ledger.config import Config
from ledger.custodian import Custodian
from ledger.errors import LedgerError, LogAheadError
from ledger.locks import FileLock
from web import create_app
from web.metrics import MULTIPROCESS
from web.problems import trace_of
from web.worker import forget_worker

if TYPE_CHECKING:
    from flask import Flask
    from gunicorn.arbiter import Arbiter
    from gunicorn.workers.base import Worker

TICK_SECONDS: Final = 1.0
SYNC_SECONDS: Final = 15.0
# Threads that wait for the disk or the chain must not wait for those that compute any longer than this.
SWITCH_SECONDS: Final = 0.001

# ------------------------------------------------------------------------------------------------- gunicorn's settings

bind = f"127.0.0.1:{os.environ.get('PORT', '8000')}"
workers = int(os.environ.get("CONSENT_LEDGER_WORKERS", "2"))
worker_class = "web.worker.Worker"
threads = Config.from_env().threads
backlog = 2048
# With files and the chain's connections, fewer than the 1024 descriptors that a process usually has.
worker_connections = 512
keepalive = 30
timeout = 120
graceful_timeout = 60
limit_request_line = 4094
limit_request_fields = 50
limit_request_field_size = 8190
# Nothing that a client says of itself is believed, wherever it comes from.
forwarded_allow_ips = ""
# So that a client that does not take a file keeps its thread for a while only.
sendfile = False
# A path can hold a furnisher's reference, and a header a signature: neither belongs in a log.
accesslog = None
loglevel = "warning"
wsgi_app = "web.server:application()"
proc_name = "consent-ledger"


def application() -> Flask:
    """One worker's application, with a custodian of its own. Called in the worker, after the fork."""
    app = create_app(Custodian(Config.from_env()), demo=os.environ.get("CONSENT_LEDGER_DEMO") == "1")
    settle_in()
    _Housekeeper(app).start()
    return app


def settle_in() -> None:
    """What a worker's interpreter is told once all modules are loaded."""
    sys.setswitchinterval(SWITCH_SECONDS)
    # Modules and classes stay for good. To look through all of them for garbage stops every request for a tenth of a
    # second, time and again.
    gc.collect()
    gc.freeze()


def child_exit(_server: Arbiter, worker: Worker) -> None:
    """Gunicorn's hook: a worker has ended; its gauges go with it, and its share of the connections."""
    forget_worker(worker.age)
    if MULTIPROCESS in os.environ:
        multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def worker_exit(_server: Arbiter, worker: Worker) -> None:
    """Gunicorn's hook, in the worker: what was in flight has been answered."""
    app: Flask = worker.wsgi
    if housekeeper := app.extensions.get("housekeeper"):
        housekeeper.stop()
    app.extensions["custodian"].close()


class _Housekeeper:
    """A thread in every worker, of which one at a time does the work: whoever holds the lock."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._custodian: Custodian = app.extensions["custodian"]
        self._lock = FileLock(self._custodian.config.locks / "housekeeping")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="housekeeping", daemon=True)
        app.extensions["housekeeper"] = self

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(timeout=SYNC_SECONDS)

    def _run(self) -> None:
        since_sync = SYNC_SECONDS
        is_mine = has_resolved = False
        while not self._stopping.wait(TICK_SECONDS):
            try:
                if not has_resolved:
                    # What this worker's writer had in flight when its last holder died: retries wait for it elsewhere.
                    self._custodian.log.resolve()
                    has_resolved = True
                is_mine = is_mine or self._lock.acquire()
                if not is_mine:
                    continue
                since_sync += TICK_SECONDS
                # First, and not in every round: neither keeps the other from its turn by failing.
                if since_sync >= SYNC_SECONDS:
                    since_sync = 0.0
                    if self._custodian.sync().ahead:
                        self._app.logger.warning("housekeeping: %s", LogAheadError.code)
                self._custodian.housekeeping()
            except LedgerError as exc:
                # An unreachable chain, a busy database: the next round will do.
                self._app.logger.warning("housekeeping: %s", exc.code)
            except Exception as exc:  # noqa: BLE001 - it goes on
                self._app.logger.error("housekeeping: unexpected %s", trace_of(exc))  # noqa: TRY400 - without its words
        self._lock.release()
