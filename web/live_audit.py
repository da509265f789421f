"""The audit of this deployment that anyone can look at: the auditor's command, run now and then, and its report.

It runs as a process of its own (`consent-ledger audit chain`), so that what the page says is what the command says, and
so that no request waits for it longer than a moment. It checks less than the command that the page prints: it compiles
nothing, and of a chain longer than `MOST_LINKED` it reads the headers of blocks with events only.

One at a time on this machine; not before the last report is `FRESH_SECONDS` old. The report lies beside the database,
with the state from which the next audit goes on. After any report that is not clean the next one begins from the first
block: a state that led to it may be what is wrong.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from ledger.audit_reader import report_of
from ledger.audit_report import AuditReport, Check, Verdict
from ledger.chain import Chain
from ledger.config import Config
from ledger.consent import Domain
from ledger.errors import LedgerError, MalformedError, StoreUnavailableError
from ledger.locks import FileLock

FRESH_SECONDS: Final = 30
STALE_SECONDS: Final = 15 * 60
"""A report older than this is no answer to what is asked now."""
WAIT_SECONDS: Final = 6.0
MOST_WAITING: Final = 4
TIME_LIMIT: Final = 15 * 60
MOST_LINKED: Final = 500_000
"""On a longer chain only the headers of blocks with events are read."""
PROGRAM: Final = "from ledger.cli_main import main; main()"

Run = Callable[[Path], AuditReport]
"""Makes an audit that goes on from the state at that path, and leaves its own there."""


class LiveAudit:
    """The last report, and the making of the next. One for each process; they share what is on file."""

    def __init__(self, config: Config, chain: Chain, *, clock: Callable[[], int], run: Run | None = None) -> None:
        self._directory = config.data / "audit"
        self._lock_path = config.locks / "audit"
        self._clock = clock
        self._run = run or Command(config, chain, clock=clock)
        self._guard = threading.Lock()
        self._waiting = threading.BoundedSemaphore(MOST_WAITING)
        self._thread: threading.Thread | None = None

    def report(self) -> AuditReport | None:
        """The last one; a newer one is begun if it is time, and waited for a moment if there is none that will do."""
        found = self._read()
        if not self._is_younger(found, FRESH_SECONDS):
            # One that goes on from a state takes no longer than a second.
            self._wait_for(self._begin(), 1.0 if self._is_younger(found, STALE_SECONDS) else WAIT_SECONDS)
            found = self._read() or found
        return found

    def is_current(self, report: AuditReport) -> bool:
        """Whether it may be shown as what holds now."""
        return self._is_younger(report, STALE_SECONDS)

    def _is_younger(self, report: AuditReport | None, seconds: int) -> bool:
        return report is not None and 0 <= self._clock() - report.made_at < seconds

    def _wait_for(self, thread: threading.Thread, seconds: float) -> None:
        # A crowd at the page must not take the threads that people and institutions wait for.
        if self._waiting.acquire(blocking=False):
            try:
                thread.join(timeout=seconds)
            finally:
                self._waiting.release()

    def _begin(self) -> threading.Thread:
        with self._guard:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._make, name="audit", daemon=True)
                self._thread.start()
            return self._thread

    def _make(self) -> None:
        # What cannot be kept is not shown: the page has no verdict then.
        with suppress(OSError, StoreUnavailableError):
            self._make_alone()

    def _make_alone(self) -> None:
        lock = FileLock(self._lock_path)
        if not lock.acquire():
            return
        try:
            # Another process may have made one meanwhile.
            if self._is_younger(self._read(), FRESH_SECONDS):
                return
            self._directory.mkdir(mode=0o700, exist_ok=True)
            report = self._run(self._state)
            if report.verdict is not Verdict.CLEAN:
                self._state.unlink(missing_ok=True)
            self._write(report)
        finally:
            lock.release()

    @property
    def _file(self) -> Path:
        return self._directory / "report.json"

    @property
    def _state(self) -> Path:
        return self._directory / "state"

    def _read(self) -> AuditReport | None:
        try:
            return report_of(json.loads(self._file.read_text("utf-8")))
        except (OSError, ValueError, RecursionError, MalformedError):
            return None

    def _write(self, report: AuditReport) -> None:
        part = self._file.with_suffix(".part")
        part.write_text(json.dumps(report.as_json()), encoding="utf-8")
        part.replace(self._file)


class Command:
    """The command that anyone can run, run here. Whatever keeps it from its report makes one that could not verify."""

    def __init__(self, config: Config, chain: Chain, *, clock: Callable[[], int]) -> None:
        self._config, self._chain, self._clock = config, chain, clock

    def __call__(self, state: Path) -> AuditReport:
        """The report. Raises nothing that the audit does."""
        try:
            words = [sys.executable, "-I", "-c", PROGRAM, *self._words(), "--state", str(state), "--json"]
            # The endpoint may hold a key: it does not stand where every user of the machine can read it.
            done = subprocess.run(  # noqa: S603 - our own words
                words,
                env={"CONSENT_LEDGER_RPC_URL": self._config.rpc_url, "XDG_DATA_HOME": str(state.parent)},
                capture_output=True,
                text=True,
                timeout=TIME_LIMIT,
                check=False,
            )
            return report_of(json.loads(done.stdout))
        except LedgerError as exc:
            return self._failed(f"the audit could not be made ({exc.code})")
        except subprocess.TimeoutExpired:
            return self._failed(f"the audit did not end within {TIME_LIMIT} seconds")
        except (OSError, ValueError):
            return self._failed("the audit gave no report")

    def _words(self) -> list[str]:
        domain = self._chain.domain
        words = ["audit", "chain", "--chain-id", str(domain.chain_id), "--contract", domain.contract]
        words += ["--tag", self._config.finality.tag, "--without-compiler"]
        if self._chain.latest().number > MOST_LINKED:
            words += ["--headers", "events"]
        return words

    def _failed(self, why: str) -> AuditReport:
        domain = Domain(chain_id=self._chain.domain.chain_id, contract=self._chain.domain.contract)
        return AuditReport(
            domain=domain,
            block=None,
            endpoints=(),
            made_at=self._clock(),
            checks=(Check(name="chain_id", holds=None, detail=why),),
        )
