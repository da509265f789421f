"""The service as a process: what it needs while it runs is its own, away from the data, and gone when it ends."""

from __future__ import annotations

import errno
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import urllib3
from actors import World
from gunicorn.workers.gthread import ThreadWorker

from ledger.devnet import free_port
from ledger.errors import ConfigError
from ledger.serving import Service
from web.worker import Worker


@contextmanager
def service_of(world: World, **change: Any) -> Iterator[tuple[str, Path]]:
    """A service on the world's data, of which no chain is needed. Where it is, and where its workers count."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    config = replace(world.config, service_url=url, rpc_url=f"http://127.0.0.1:{free_port()}", **change)
    with Service(config, port=port, workers=1) as service:
        assert service._metrics is not None
        yield url, service._metrics


def answer(url: str, path: str) -> str:
    return urllib3.PoolManager(retries=False, timeout=30).request("GET", url + path).data.decode()


def health_checks_counted(url: str) -> float:
    labels = r'method="GET",route="/healthz",status="200"'
    (found,) = re.findall(
        rf"^consent_ledger_requests_total\{{{labels}\}} (\S+)$", answer(url, "/metrics"), re.MULTILINE
    )
    return float(found)


def test_what_workers_count_is_not_on_the_disk_of_the_data_and_gone_when_they_end(world: World) -> None:
    with service_of(world) as (url, counts):
        before = health_checks_counted(url)
        answer(url, "/healthz")
        assert health_checks_counted(url) == before + 1
        assert [path.suffix for path in counts.iterdir()].count(".db") >= 2
        assert world.config.data not in counts.parents
        assert not (world.config.data / "metrics").exists()
        assert stat.S_IMODE(counts.stat().st_mode) == 0o700
    assert not counts.exists()


def test_a_second_service_on_the_same_data_leaves_the_first_ones_counts(world: World) -> None:
    with service_of(world) as (url, counts):
        answer(url, "/healthz")
        before = health_checks_counted(url)
        with service_of(world) as (_, others):
            assert others != counts
        assert health_checks_counted(url) == before


def test_a_service_manager_says_where_counts_are_kept(world: World, tmp_path: Path) -> None:
    with service_of(world, runtime=tmp_path) as (url, counts):
        assert health_checks_counted(url) >= 1
        assert counts.parent == tmp_path
    assert list(tmp_path.glob("consent-ledger-*")) == []


def test_a_place_for_counts_that_is_none_is_named(world: World, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"), service_of(world, runtime=tmp_path / "nowhere"):
        pass


def test_a_client_that_does_not_take_its_answer_in_time_is_one_that_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    # Of those gunicorn logs nothing; of any other error a traceback, with which a client could fill the log.
    def stalled(*_: object) -> bool:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(ThreadWorker, "handle_request", stalled)
    worker, connection = Worker.__new__(Worker), Mock()
    worker._collected = {connection: Mock(has_body=True)}
    with pytest.raises(BrokenPipeError):
        worker.handle_request(Mock(), connection)
