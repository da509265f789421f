"""Deployment: the address follows from the code, the code from the sources, and who doubts it can recompute both."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from eth_account import Account
from eth_utils import keccak, to_checksum_address

from ledger import deploy
from ledger.artifact import DEPLOYER, artifact, contract_address
from ledger.compiler import recompile
from ledger.deploy import DEPLOYER_SIGNER, DEPLOYER_TRANSACTION, verify
from ledger.devnet import Devnet, free_port, fund
from ledger.errors import ChainError, ConfigError, ContractMismatchError, ContractMissingError, FeeTooHighError
from ledger.jsonrpc import JsonRpc

ROOT: Final = Path(__file__).parent.parent
SHIPPED: Final[dict[str, Any]] = json.loads((ROOT / "ledger/abi/ConsentLedger.json").read_text("utf-8"))
SOURCES: Final[dict[str, dict[str, str]]] = SHIPPED["input"]["sources"]
PAYER: Final = Account.from_key(keccak(text="deploy test payer"))


def create2(deployer: str, salt: bytes, init_code: bytes) -> str:
    raw = keccak(b"\xff" + bytes.fromhex(deployer[2:]) + salt + keccak(init_code))
    return str(to_checksum_address(raw[-20:]))


def need_npm(package: str) -> Path:
    """A package of node_modules. Where it is not installed, the test is skipped, but not in CI."""
    place = ROOT / "node_modules" / package
    if not place.exists():
        reason = f"node_modules/{package} is not there: run `make setup`"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return place


# ------------------------------------------------------------------------------------------------------------- address


@pytest.mark.parametrize(
    ("deployer", "salt", "init_code", "address"),
    [
        # The examples of EIP-1014.
        ("00" * 20, "00" * 32, "00", "0x4D1A2e2bB4F88F0250f26Ffff098B0b30B26BF38"),
        ("deadbeef" + "00" * 16, "00" * 32, "00", "0xB928f69Bb1D91Cd65274e3c79d8986362984fDA3"),
        ("deadbeef" + "00" * 16, "00" * 12 + "feed" + "00" * 18, "00", "0xD04116cDd17beBE565EB2422F2497E06cC1C9833"),
        ("00" * 16 + "deadbeef", "00" * 28 + "cafebabe", "deadbeef", "0x60f3f640a8508fC6a86d45DF051962668E1e8AC7"),
    ],
)
def test_the_reckoning_of_these_tests_is_that_of_the_standard(
    deployer: str, salt: str, init_code: str, address: str
) -> None:
    assert create2("0x" + deployer, bytes.fromhex(salt), bytes.fromhex(init_code)) == address


def test_the_address_follows_from_the_shipped_code_alone() -> None:
    init_code = bytes.fromhex(SHIPPED["bytecode"].removeprefix("0x"))
    assert contract_address() == create2("0x4e59b44847b379578588920cA78FbF26c0B4956C", bytes(32), init_code)


def test_another_code_has_another_address(monkeypatch: pytest.MonkeyPatch) -> None:
    before = contract_address()
    other = replace(artifact(), bytecode=artifact().bytecode[:-1] + b"\0")
    monkeypatch.setattr("ledger.artifact.artifact", lambda: other)
    assert contract_address() != before


def test_the_deployer_is_the_account_that_the_presigned_transaction_makes() -> None:
    assert Account.recover_transaction(DEPLOYER_TRANSACTION) == DEPLOYER_SIGNER
    # The first contract of an account (nonce 0): keccak(rlp([account, 0])).
    rlp = b"\xd6\x94" + bytes.fromhex(DEPLOYER_SIGNER[2:]) + b"\x80"
    assert to_checksum_address(keccak(rlp)[-20:]) == DEPLOYER


# ------------------------------------------------------------------------------------------------------------- sources


def test_the_shipped_sources_are_those_of_the_repository() -> None:
    shipped = {name: source["content"] for name, source in SOURCES.items() if "openzeppelin" not in name}
    files = [path for path in (ROOT / "contracts").glob("*.sol") if not path.name.endswith(".t.sol")]
    ours = {f"project/contracts/{path.name}": path.read_text("utf-8") for path in files}
    # Run `make abi` if these differ.
    assert shipped == ours


def test_the_shipped_sources_of_others_are_as_they_were_published() -> None:
    place = need_npm("@openzeppelin/contracts")
    foreign = {name: source["content"] for name, source in SOURCES.items() if "openzeppelin" in name}
    assert foreign
    for name, source in foreign.items():
        path = name.split("@openzeppelin/contracts", 1)[1].split("/", 1)[1]
        assert (place / path).read_text("utf-8") == source, name


def test_the_shipped_artifact_is_read_as_it_is() -> None:
    read = artifact()
    assert read.bytecode.hex() == SHIPPED["bytecode"].removeprefix("0x")
    assert read.deployed_bytecode in read.bytecode
    assert read.abi == SHIPPED["abi"]
    assert read.compiler_input["settings"]["evmVersion"] == "osaka"
    assert all(start + length <= len(read.deployed_bytecode) for start, length in read.immutables)


# ------------------------------------------------------------------------------------------------------------- compiler


@pytest.fixture(scope="module")
def compiled() -> dict[str, Any]:
    need_npm("solc")
    return recompile(ROOT / "bin" / "solc")


@pytest.mark.devnet
def test_recompiling_the_shipped_sources_gives_the_shipped_code(compiled: dict[str, Any]) -> None:
    assert compiled["evm"]["bytecode"]["object"] == artifact().bytecode.hex()
    assert compiled["evm"]["deployedBytecode"]["object"] == artifact().deployed_bytecode.hex()


def script(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "solc"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("text", ["exit 1", "echo no JSON", "echo Version: 0.8.1+commit.df193b15.Linux.g++"])
def test_a_compiler_that_is_none_is_said_to_be_unusable(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="no usable Solidity compiler"):
        recompile(script(tmp_path, text))


def test_a_compiler_that_is_not_there_is_said_to_be_unusable(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        recompile(tmp_path / "nowhere")


# -------------------------------------------------------------------------------------------------------------- devnet


@pytest.fixture(scope="module")
def rpc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JsonRpc]:
    need_npm("hardhat")
    with Devnet(port=free_port(), log=tmp_path_factory.mktemp("devnet") / "node.log") as devnet:
        rpc = JsonRpc(devnet.url)
        fund(rpc, [PAYER.address])
        yield rpc


@pytest.fixture
def clean(rpc: JsonRpc) -> Iterator[JsonRpc]:
    """The devnet as it was before the test."""
    snapshot = rpc("evm_snapshot")
    yield rpc
    rpc("evm_revert", snapshot)


@pytest.mark.devnet
def test_a_devnet_that_was_told_the_time_too_late_is_told_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind for good, it would refuse a read under a consent of just now: not valid yet."""
    need_npm("hardhat")
    told = []

    class Slow(JsonRpc):
        def __call__(self, method: str, *params: object) -> Any:
            if method == "evm_mine":
                told.append(params)
                time.sleep(1 if len(told) == 1 else 0)
            return super().__call__(method, *params)

    monkeypatch.setattr("ledger.devnet.JsonRpc", Slow)
    with Devnet(port=free_port(), log=tmp_path / "node.log") as devnet:
        rpc, now = JsonRpc(devnet.url), int(time.time())
        rpc("evm_mine")
        assert int(rpc("eth_getBlockByNumber", "latest", False)["timestamp"], 16) >= now
    assert len(told) >= 2


@pytest.mark.devnet
def test_a_deployment_is_at_its_address_and_made_once(clean: JsonRpc) -> None:
    assert clean("eth_getCode", contract_address(), "latest") == "0x"
    assert deploy.deploy(clean.url, PAYER)
    assert clean("eth_getCode", contract_address(), "latest") != "0x"
    block = clean("eth_blockNumber")
    assert not deploy.deploy(clean.url, PAYER)
    assert clean("eth_blockNumber") == block


@pytest.mark.devnet
def test_a_payer_without_money_is_a_matter_of_the_chain(clean: JsonRpc) -> None:
    with pytest.raises(ChainError):
        deploy.deploy(clean.url, Account.from_key(keccak(text="poor")))


@pytest.mark.devnet
def test_a_deployment_costs_no_more_than_it_may(clean: JsonRpc) -> None:
    price = int(clean("eth_gasPrice"), 16)
    before = clean("eth_blockNumber")
    with pytest.raises(FeeTooHighError):
        deploy.deploy(clean.url, PAYER, max_fee=price - 1)
    assert clean("eth_blockNumber") == before
    assert deploy.deploy(clean.url, PAYER, max_fee=price)


@pytest.mark.devnet
def test_the_deployed_code_is_what_the_sources_compile_to(clean: JsonRpc) -> None:
    need_npm("solc")
    with pytest.raises(ContractMissingError):
        verify(clean, ROOT / "bin" / "solc")
    deploy.deploy(clean.url, PAYER)
    verified = verify(clean, ROOT / "bin" / "solc")
    assert verified.contract == contract_address()
    assert verified.compiler == SHIPPED["compiler"]
    assert verified.code_size == len(artifact().deployed_bytecode)


@pytest.mark.devnet
def test_a_single_changed_byte_of_the_code_on_chain_is_caught(
    clean: JsonRpc, compiled: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The compiler has run once; what it gives is the same every time.
    monkeypatch.setattr(deploy, "recompile", lambda _compiler: compiled)
    deploy.deploy(clean.url, PAYER)
    code = bytes.fromhex(clean("eth_getCode", contract_address(), "latest")[2:])
    assert verify(clean).code_size == len(code)
    immutable = {at for start, length in artifact().immutables for at in range(start, start + length)}
    own = [at for at in range(len(code)) if at not in immutable]
    for at in (*own[:: len(own) // 20], own[-1]):
        changed = bytearray(code)
        changed[at] ^= 1
        clean("hardhat_setCode", contract_address(), "0x" + changed.hex())
        with pytest.raises(ContractMismatchError):
            verify(clean)
    for longer in (code + b"\0", code[:-1]):
        clean("hardhat_setCode", contract_address(), "0x" + longer.hex())
        with pytest.raises(ContractMismatchError):
            verify(clean)


@pytest.mark.devnet
def test_changed_immutables_are_caught(
    clean: JsonRpc, compiled: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # They are set at deployment, so no compiler gives them; but a domain of another chain would accept its signatures.
    monkeypatch.setattr(deploy, "recompile", lambda _compiler: compiled)
    deploy.deploy(clean.url, PAYER)
    code = bytearray.fromhex(clean("eth_getCode", contract_address(), "latest")[2:])
    for start, length in artifact().immutables:
        changed = bytearray(code)
        changed[start + length - 1] ^= 1
        clean("hardhat_setCode", contract_address(), "0x" + changed.hex())
        with pytest.raises(ContractMismatchError):
            verify(clean)


@pytest.mark.devnet
def test_a_shipped_code_that_is_not_what_the_sources_compile_to_is_caught(
    clean: JsonRpc, compiled: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = replace(artifact(), bytecode=artifact().bytecode[:-1] + b"\0")
    monkeypatch.setattr(deploy, "artifact", lambda: other)
    monkeypatch.setattr(deploy, "recompile", lambda _compiler: compiled)
    with pytest.raises(ContractMismatchError, match="shipped"):
        verify(clean)
