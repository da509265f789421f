"""Locks between processes: one holder at a time, many readers, and nobody is locked out by the dead."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ledger.errors import StoreUnavailableError
from ledger.locks import FileLock

HOLDER = """
import sys, time
from pathlib import Path
from ledger.locks import FileLock
lock = FileLock(Path(sys.argv[1]), shared=sys.argv[2] == "shared")
print(lock.acquire(), flush=True)
time.sleep(60)
"""


@contextmanager
def held_elsewhere(path: Path, *, shared: bool = False) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLDER, str(path), "shared" if shared else "exclusive"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "locks" / "lane.lock"


def test_a_lock_held_by_another_process_is_not_free(path: Path) -> None:
    lock = FileLock(path)
    with held_elsewhere(path):
        assert not lock.acquire()
        assert not FileLock(path, shared=True).acquire()
    assert lock.acquire()
    lock.release()


def test_a_shared_lock_is_shared_and_keeps_out_who_wants_it_alone(path: Path) -> None:
    shared = FileLock(path, shared=True)
    with held_elsewhere(path, shared=True):
        assert shared.acquire()
        assert not FileLock(path).acquire()
    assert not FileLock(path).acquire()
    shared.release()
    alone = FileLock(path)
    assert alone.acquire()
    alone.release()


def test_a_lock_whose_holder_was_killed_is_free(path: Path) -> None:
    with held_elsewhere(path) as process:
        assert not FileLock(path).acquire()
        process.kill()
        process.wait()
        lock = FileLock(path)
        assert lock.acquire()
        lock.release()


def test_two_locks_of_one_process_exclude_each_other_too(path: Path) -> None:
    one, other = FileLock(path), FileLock(path)
    assert one.acquire()
    assert not other.acquire()
    one.release()
    assert other.acquire()
    other.release()


def test_letting_go_twice_or_of_nothing_does_no_harm(path: Path) -> None:
    one, other = FileLock(path), FileLock(path)
    one.release()
    assert one.acquire()
    one.release()
    assert other.acquire()
    one.release()
    assert not one.acquire()
    other.release()


def lowest_free_descriptor() -> int:
    descriptor = os.dup(0)
    os.close(descriptor)
    return descriptor


def test_where_files_cannot_be_locked_is_said_and_nothing_is_left_open(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    free = lowest_free_descriptor()
    with pytest.raises(StoreUnavailableError, match="No locks available"):
        FileLock(path).acquire()
    assert lowest_free_descriptor() == free


@pytest.mark.skipif(os.geteuid() != 0, reason="only the superuser meets other people's files")
def test_a_directory_of_locks_that_the_superuser_makes_is_the_service_accounts(tmp_path: Path) -> None:
    account = 65534
    os.chown(tmp_path, account, account)
    lock = FileLock(tmp_path / "locks" / "one")
    assert lock.acquire()
    lock.release()
    assert {entry.stat().st_uid for entry in tmp_path.rglob("*")} == {account}


def test_waiting_for_a_lock_ends_when_it_is_let_go(path: Path) -> None:
    with held_elsewhere(path) as process:
        process.kill()
        with FileLock(path).hold(timeout=10):
            assert not FileLock(path).acquire()
    assert FileLock(path).acquire()


def test_waiting_for_a_lock_ends_after_its_time_too(path: Path) -> None:
    with held_elsewhere(path):
        started = time.monotonic()
        with pytest.raises(StoreUnavailableError, match=r"lane\.lock"), FileLock(path).hold(timeout=0.1):
            pytest.fail("it was held elsewhere")
        assert 0.1 <= time.monotonic() - started < 5


def test_a_lock_is_let_go_when_what_it_guards_fails(path: Path) -> None:
    with pytest.raises(ZeroDivisionError), FileLock(path).hold(timeout=1):
        _ = 1 / 0
    lock = FileLock(path)
    assert lock.acquire()
    lock.release()


def test_a_child_process_does_not_inherit_a_lock(path: Path) -> None:
    lock = FileLock(path)
    assert lock.acquire()
    with subprocess.Popen(["sleep", "60"], close_fds=False) as child:
        lock.release()
        again = FileLock(path)
        try:
            assert again.acquire()
        finally:
            child.kill()
    again.release()


def test_the_lock_file_is_its_owners_alone(path: Path) -> None:
    with FileLock(path).hold(timeout=1):
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_lock_where_there_can_be_no_file_is_our_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "lane.lock", tmp_path):
        with pytest.raises(StoreUnavailableError):
            FileLock(path).acquire()
