"""The HTTP service as a process of its own: gunicorn with `web/server.py`, started and stopped from here.

Its workers are processes too, each with a custodian and a writer key of its own. Told to stop, it answers what is in
flight and ends; nothing of it outlives the block.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from urllib3 import PoolManager
from urllib3.exceptions import HTTPError

from ledger.accounts import Accounts
from ledger.config import Config
from ledger.errors import ConfigError

START_SECONDS: Final = 60
STOP_SECONDS: Final = 75
MOST_WORKERS: Final = 4
LOOPBACK: Final = "127.0.0.1"
SPARE_WRITERS: Final = 2
"""Writer keys that are left for other processes, such as a command beside the service."""
SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a directory of a name of its own is made there


class Service:
    """One gunicorn. Use as a context manager. `demo` adds the page with the codes and the lenders of the demo."""

    def __init__(self, config: Config, *, port: int, workers: int | None = None, demo: bool = False) -> None:
        self.url = f"http://{LOOPBACK}:{port}"
        self._config, self._port, self._demo = config, port, demo
        self._workers = workers or min(MOST_WORKERS, os.cpu_count() or 1)
        self._process: subprocess.Popen[bytes] | None = None
        self._metrics: Path | None = None

    def start(self) -> Service:
        """Start it and wait until it answers. Raises `ConfigError`."""
        writers = len(Accounts.load(self._config.account_file).writers)
        if self._workers > writers - SPARE_WRITERS:
            raise ConfigError(f"workers: expected at most {writers - SPARE_WRITERS}: there are {writers} writer keys")
        if self._answers():
            raise ConfigError(f"port {self._port} is taken: choose another by PORT")
        self._metrics = self._new_directory()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "--config", "python:web.server"],
            env=os.environ | self._config.environment() | self._settings(self._metrics),
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C comes to us, and we tell it
        )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            if self._answers():
                return self
            time.sleep(0.1)
        self.stop()
        raise ConfigError(f"the service did not start on port {self._port}: is it taken?")

    def _new_directory(self) -> Path:
        """For the workers' counts, of this service alone. Raises `ConfigError`.

        Not on the disk of the data: the counts are mapped into memory, and a worker that writes one for which a full
        disk has no page dies of SIGBUS, whatever it was asked.
        """
        place = self._config.runtime
        if place is None and os.access(SHARED_MEMORY, os.W_OK | os.X_OK):
            place = SHARED_MEMORY
        try:
            return Path(tempfile.mkdtemp(prefix="consent-ledger-", dir=place))
        except OSError as exc:
            raise ConfigError(f"no directory for the metrics can be made: {exc.filename}: {exc.strerror}") from exc

    def _settings(self, metrics: Path) -> dict[str, str]:
        return {
            "PORT": str(self._port),
            "CONSENT_LEDGER_WORKERS": str(self._workers),
            # Said in any case, so that it is never taken from whoever's environment this is.
            "CONSENT_LEDGER_DEMO": str(int(self._demo)),
            "PROMETHEUS_MULTIPROC_DIR": str(metrics),
        }

    def _answers(self) -> bool:
        try:
            answer = PoolManager(timeout=2, retries=False).request("GET", f"{self.url}/healthz")
        except HTTPError:
            return False
        return bool(answer.status)

    def stop(self) -> None:
        """Let what is in flight end, then end it."""
        self._end()
        if self._metrics is not None:
            shutil.rmtree(self._metrics, ignore_errors=True)
            self._metrics = None

    def _end(self) -> None:
        if self._process is None:
            return
        try:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(timeout=STOP_SECONDS)
        except ProcessLookupError:
            pass
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(timeout=10)
        # Workers whose master was killed notice it only after a while.
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process = None

    def is_running(self) -> bool:
        """False once it has ended by itself."""
        return self._process is not None and self._process.poll() is None

    def __enter__(self) -> Service:
        try:
            return self.start()
        except BaseException:
            # Also Ctrl-C while it starts.
            self.stop()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()
