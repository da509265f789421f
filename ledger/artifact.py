"""What ships of the contract: its code, its address, and what an auditor compares the code on chain with.

The contract takes no argument, so its address follows from its code alone: the same on every chain (EIP-1014).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

from eth_utils import keccak, to_checksum_address

from ledger.consent import Address, Domain
from ledger.errors import ContractMismatchError

DEPLOYER: Final = to_checksum_address("0x4e59b44847b379578588920cA78FbF26c0B4956C")
"""https://github.com/Arachnid/deterministic-deployment-proxy"""
SALT: Final = bytes(32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """What ships of the contract."""

    abi: list[dict[str, Any]]
    bytecode: bytes
    deployed_bytecode: bytes
    immutables: tuple[tuple[int, int], ...]
    compiler: str
    contract: str
    compiler_input: dict[str, Any]


@cache
def artifact() -> Artifact:
    """The contract of this version of the package."""
    raw = json.loads(files("ledger").joinpath("abi/ConsentLedger.json").read_text(encoding="utf-8"))
    return Artifact(
        abi=raw["abi"],
        bytecode=bytes.fromhex(raw["bytecode"][2:]),
        deployed_bytecode=bytes.fromhex(raw["deployedBytecode"][2:]),
        immutables=tuple((start, length) for start, length in raw["immutables"]),
        compiler=raw["compiler"],
        contract=raw["contract"],
        compiler_input=raw["input"],
    )


def contract_address() -> Address:
    """Where the contract of this version is on every chain (EIP-1014)."""
    preimage = b"\xff" + bytes.fromhex(DEPLOYER[2:]) + SALT + keccak(artifact().bytecode)
    return Address(to_checksum_address(keccak(preimage)[12:]))


def require_code(code: bytes, expected: bytes, domain: Domain) -> None:
    """Check that code on chain is `expected` but for its immutables, and that those are of this chain and address.

    Raises `ContractMismatchError`.
    """
    shipped = artifact()
    if masked(code, shipped.immutables) != masked(expected, shipped.immutables):
        raise ContractMismatchError(f"the code at {domain.contract} is not what the sources compile to")
    found = sorted(code[start : start + length] for start, length in shipped.immutables)
    if found != _immutables_of(domain):
        raise ContractMismatchError(f"the code at {domain.contract} was made for another chain or address")


def masked(code: bytes, immutables: tuple[tuple[int, int], ...]) -> bytes:
    """The code without its immutables (chain id and own address, cached for EIP-712): they are set at deployment."""
    bare = bytearray(code)
    for start, length in immutables:
        bare[start : start + length] = bytes(length)
    return bytes(bare)


def _immutables_of(domain: Domain) -> list[bytes]:
    """What the constructor of OpenZeppelin's EIP712 caches, in no order: each value is another."""
    fields = domain.as_json()
    texts = [fields["name"].encode(), fields["version"].encode()]
    domain_type = "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
    place = [domain.chain_id.to_bytes(32), bytes.fromhex(domain.contract[2:]).rjust(32, b"\0")]
    hashes = [keccak(text) for text in texts]
    short_strings = [text.ljust(31, b"\0") + bytes([len(text)]) for text in texts]
    return sorted([*place, *hashes, *short_strings, keccak(b"".join([keccak(text=domain_type), *hashes, *place]))])
