"""What the service does by itself: a round that fails is not the last one, and one worker at a time does it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any, Final

import pytest
from actors import World
from sqlalchemy import Connection, event

from ledger.custodian import Custodian
from ledger.errors import ChainUnavailableError, StoreUnavailableError
from ledger.journal import LOST
from ledger.locks import FileLock
from web import create_app, server

PATIENCE = 20.0


class Rounds:
    """Takes the place of one of a custodian's duties: fails as often as it is told to, and can be waited for."""

    def __init__(self, *faults: Exception) -> None:
        self._faults = list(faults)
        self._done = threading.Semaphore(0)

    def __call__(self) -> None:
        self._done.release()
        if self._faults:
            raise self._faults.pop(0)

    def happen(self, times: int = 1) -> bool:
        """Whether that many more rounds begin."""
        return all(self._done.acquire(timeout=PATIENCE) for _ in range(times))

    def forget(self) -> None:
        """Rounds until now do not count."""
        while self._done.acquire(blocking=False):
            pass

    def has_happened(self) -> bool:
        return self._done.acquire(blocking=False)


@contextmanager
def kept_by(custodian: Custodian) -> Iterator[Callable[[], None]]:
    """A worker's housekeeper; what is yielded stops it."""
    housekeeper = server._Housekeeper(create_app(custodian))
    housekeeper.start()
    try:
        yield housekeeper.stop
    finally:
        housekeeper.stop()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "TICK_SECONDS", 0.01)
    # Every third round.
    monkeypatch.setattr(server, "SYNC_SECONDS", 0.03)


def test_a_round_that_fails_does_not_end_the_service(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    chores = Rounds(StoreUnavailableError("an import keeps the database busy"), ZeroDivisionError("of person-1"))
    syncs = Rounds(ChainUnavailableError("no usable answer from the chain"), KeyError("of person-2"))
    monkeypatch.setattr(world.custodian, "housekeeping", chores)
    monkeypatch.setattr(world.custodian, "sync", syncs)
    with kept_by(world.custodian):
        assert chores.happen(times=4)
        assert syncs.happen(times=4)
    assert caplog.text.count("store_unavailable") == caplog.text.count("chain_unavailable") == 1
    assert caplog.text.count("ZeroDivisionError") == caplog.text.count("KeyError") == 1
    # What an error says may name somebody.
    assert "person-" not in caplog.text


@pytest.mark.parametrize("broken", ["housekeeping", "sync"])
def test_one_that_always_fails_does_not_keep_the_other_from_its_turn(
    world: World, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    other = ({"housekeeping", "sync"} - {broken}).pop()
    rounds = Rounds()
    monkeypatch.setattr(world.custodian, broken, Rounds(*[ValueError()] * 10_000))
    monkeypatch.setattr(world.custodian, other, rounds)
    with kept_by(world.custodian):
        assert rounds.happen(times=3)


def test_one_worker_at_a_time_keeps_house_and_another_takes_over(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with world.open() as second:
        chores = [Rounds(), Rounds()]
        for custodian, rounds in zip((world.custodian, second), chores, strict=True):
            monkeypatch.setattr(custodian, "housekeeping", rounds)
            monkeypatch.setattr(custodian, "sync", lambda: None)
        with kept_by(world.custodian) as stop:
            assert chores[0].happen()
            with kept_by(second):
                assert chores[0].happen(times=5)
                assert not chores[1].has_happened()
                stop()
                chores[0].forget()
                assert chores[1].happen(times=3)
                assert not chores[0].has_happened()


def test_a_worker_without_a_file_to_spare_takes_over_later(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    chores = Rounds()
    monkeypatch.setattr(world.custodian, "housekeeping", chores)
    monkeypatch.setattr(world.custodian, "sync", Rounds())
    full = Rounds(*[StoreUnavailableError("no lock file: Too many open files")] * 3)
    acquire = FileLock.acquire

    def acquired(lock: FileLock) -> bool:
        full()
        return acquire(lock)

    monkeypatch.setattr(FileLock, "acquire", acquired)
    with kept_by(world.custodian):
        assert chores.happen(times=2)


def test_what_a_dead_worker_left_is_ended_without_anybodys_asking(world: World) -> None:
    def die() -> None:
        raise SystemExit

    consent = world.grant()
    world.steps.at("5 logged", die)
    with pytest.raises(SystemExit):
        world.ask(consent)
    assert world.states() == ["intent"]
    assert world.chain.consent(consent).accesses == 1
    world.restart()
    world.clock.advance(1000)
    with kept_by(world.custodian):
        ended = threading.Event()
        for _ in range(int(PATIENCE / 0.01)):
            if world.states() == ["aborted"]:
                break
            ended.wait(0.01)
    assert world.states() == ["aborted"]


def test_a_lock_that_cannot_be_had_keeps_no_other_from_being_let_go(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the first of two dead workers left would be taken for the work of a living one until this process ends."""

    def die() -> None:
        raise SystemExit

    consent = world.grant()
    dead = [world.open(), world.open()]
    for worker in dead:
        world.steps.at("5 logged", die)
        with pytest.raises(SystemExit):
            worker.releases.release(world.request(consent))
    for worker in dead:
        worker.close()
    world.clock.advance(1000)
    acquire, asked = FileLock.acquire, count()

    def acquired(lock: FileLock) -> bool:
        # The lock of sync, that of one writer, that of the other.
        if next(asked) == 2:
            raise StoreUnavailableError("no lock file: Too many open files")
        return acquire(lock)

    with monkeypatch.context() as patched:
        patched.setattr(FileLock, "acquire", acquired)
        with pytest.raises(StoreUnavailableError, match="Too many"):
            world.custodian.sync()
    world.custodian.sync()
    assert world.states() == ["aborted", "aborted"]


LOOKS: Final[dict[str, Callable[[Custodian, str], object]]] = {
    "the head of a writer": lambda held, _: held.journal.log_end(held.log.address),
    "the batch in flight": lambda held, _: held.journal.pending_batch(held.log.address),
    "writers with work": lambda held, _: held.journal.writers_with_work(),
    "releases that have not ended": lambda held, _: held.journal.unfinished(held.log.address),
    "acts on their way": lambda held, _: held.journal.pending_acts(),
    "what the chain lost": lambda held, _: held.journal.anchors(LOST),
    "what is not final yet": lambda held, _: held.journal.anchors(after=7),
    "refusals that are not logged": lambda held, _: held.journal.unlogged_refusals(10),
    "what was asked about a person": lambda held, subject: reading(
        held, lambda tx: held.journal.of_subject(tx, subject, limit=10)
    ),
    "who asked about a person": lambda held, subject: reading(held, lambda tx: held.journal.readers(tx, subject, 0)),
    "what was answered about a person": lambda held, subject: reading(
        held, lambda tx: held.journal.answered(tx, subject)
    ),
    "how long answers about a person are kept": lambda held, subject: reading(
        held, lambda tx: held.journal.answered_before(tx, 0, subject)
    ),
}


def reading(held: Custodian, look: Callable[[Connection], object]) -> object:
    with held.store.read() as tx:
        return look(tx)


@pytest.mark.parametrize("look", LOOKS)
def test_to_look_for_work_reads_no_more_than_the_work(world: World, look: str) -> None:
    """Every few seconds, for every release or page: as slow as the history is long, one day it does nothing else."""
    asked: list[tuple[str, Any]] = []

    def note(_tx: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        asked.append((statement, parameters))

    held, subject_id = world.custodian, world.custodian.vault.subject_of(world.subject.ref)
    event.listen(held.store._engine, "before_cursor_execute", note)
    LOOKS[look](held, subject_id)
    event.remove(held.store._engine, "before_cursor_execute", note)
    assert asked
    for statement, parameters in asked:
        with held.store.read() as tx:
            plan = [row.detail for row in tx.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
        # To go through an index that holds open work only is to read the work.
        read = [
            step
            for step in plan
            if not step.startswith(("USE TEMP B-TREE", "LIST SUBQUERY")) and "INDEX releases_open" not in step
        ]
        assert all(step.startswith("SEARCH ") and "INDEX" in step for step in read), plan
        assert look != "the head of a writer" or plan == read, plan
