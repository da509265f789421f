"""Fixtures. `world` is the whole system on a simulated chain; `devnet` is a real node for the tests that need one."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from actors import Clock, Institution, Subject, World
from simulator import SimulatedChain

from ledger.config import Config
from ledger.custodian import Custodian
from ledger.devnet import Devnet, free_port, fund


def need_programs(*names: str) -> None:
    """Skip, saying why, if a program is not there that is not ours to install; in CI it must be."""
    missing = [name for name in names if shutil.which(name) is None]
    if missing and "CI" in os.environ:
        pytest.fail(f"not installed: {', '.join(missing)}")
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


@pytest.fixture(scope="session")
def stock_tools() -> None:
    """bash, curl and openssl, as a lender's engineer has them."""
    need_programs("bash", "curl", "openssl")


# A suite that a shell started in the background was started with SIGINT ignored, and so would be every process that is
# to end by it.
for interruption in (signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(interruption) is signal.SIG_IGN:
        signal.signal(interruption, signal.default_int_handler)

# How long an example takes is the machine's matter.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The data directory of a custodian; nothing is in it yet."""
    return tmp_path / "data"


@pytest.fixture(scope="session")
def first_state(tmp_path_factory: pytest.TempPathFactory) -> World:
    """What every world is a copy of."""
    made = World(tmp_path_factory.mktemp("world") / "data")
    made.custodian.close()
    return made


@pytest.fixture
def world(data: Path, first_state: World) -> Iterator[World]:
    """A custodian on a simulated chain, with one institution and one subject who are known to it."""
    made = World(data, like=first_state)
    yield made
    made.custodian.close()


@pytest.fixture
def clock(world: World) -> Clock:
    return world.clock


@pytest.fixture
def chain(world: World) -> SimulatedChain:
    return world.chain


@pytest.fixture
def custodian(world: World) -> Custodian:
    """The world's custodian. After `world.restart()` use `world.custodian`."""
    return world.custodian


@pytest.fixture
def institution(world: World) -> Institution:
    return world.institution


@pytest.fixture
def subject(world: World) -> Subject:
    return world.subject


@pytest.fixture(scope="session")
def devnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devnet]:
    """One node for the whole session. Tests that use it are marked `devnet`."""
    with Devnet(port=free_port(), log=tmp_path_factory.mktemp("devnet") / "node.log") as node:
        yield node


@pytest.fixture(scope="module")
def quiet_devnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devnet]:
    """A node that no other file's tests were on: an audit is of a whole chain, with all that was ever done on it."""
    with Devnet(port=free_port(), log=tmp_path_factory.mktemp("quiet") / "node.log") as node:
        yield node


@pytest.fixture
def devnet_config(devnet: Devnet, data: Path) -> Config:
    """A custodian of its own on that node: keys made, accounts funded, contract deployed, writers allowed."""
    return _installed(devnet, data)


@pytest.fixture
def quiet_custodian(quiet_devnet: Devnet, data: Path) -> Iterator[Custodian]:
    """One on the quiet node."""
    with Custodian(_installed(quiet_devnet, data)) as custodian:
        yield custodian


def _installed(node: Devnet, data: Path) -> Config:
    config = Config(data=data, rpc_url=node.url)
    Custodian.init(config)
    with Custodian(config) as custodian:
        fund(custodian.rpc, [account.address for account in custodian.accounts.every()])
        custodian.deploy()
    return config


@pytest.fixture
def devnet_custodian(devnet_config: Config) -> Iterator[Custodian]:
    with Custodian(devnet_config) as custodian:
        yield custodian
