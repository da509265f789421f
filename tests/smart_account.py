"""A smart account on a real node: one owner's key signs for it (ERC-1271), and the owner can be changed."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

import solcx
from eth_abi import encode
from eth_utils import keccak, to_checksum_address

from ledger.consent import Address
from ledger.jsonrpc import JsonRpc

ROOT: Final = Path(__file__).parent.parent
SOURCE: Final = """
pragma solidity ^0.8.20;
contract OwnedWallet {
    address public owner;
    constructor(address first) { owner = first; }
    function hand(address next) external { require(msg.sender == owner); owner = next; }
    function isValidSignature(bytes32 digest, bytes calldata signature) external view returns (bytes4) {
        if (signature.length != 66 || bytes1(signature[65]) != 0x77) return 0xffffffff;
        address signer = ecrecover(digest, uint8(signature[64]), bytes32(signature[0:32]), bytes32(signature[32:64]));
        return signer != address(0) && signer == owner ? this.isValidSignature.selector : bytes4(0xffffffff);
    }
}
"""
MARK: Final = "77"
"""Ends this account's signatures, which are so of another length than a key's."""


@cache
def _bytecode() -> str:
    wanted = {
        "language": "Solidity",
        "sources": {"OwnedWallet.sol": {"content": SOURCE}},
        "settings": {"evmVersion": "paris", "outputSelection": {"*": {"*": ["evm.bytecode.object"]}}},
    }
    compiled = solcx.compile_standard(wanted, solc_binary=str(ROOT / "bin" / "solc"))
    return str(compiled["contracts"]["OwnedWallet.sol"]["OwnedWallet"]["evm"]["bytecode"]["object"])


def deploy_wallet(rpc: JsonRpc, owner: str) -> Address:
    """Made by one of the node's own accounts."""
    sender = rpc("eth_accounts")[0]
    data = "0x" + _bytecode() + encode(["address"], [owner]).hex()
    receipt = rpc("eth_getTransactionReceipt", rpc("eth_sendTransaction", {"from": sender, "data": data}))
    assert receipt["status"] == "0x1"
    return Address(to_checksum_address(receipt["contractAddress"]))


def hand_over(rpc: JsonRpc, wallet: Address, owner: str, to: str) -> None:
    """The owner makes another one the owner."""
    rpc("hardhat_impersonateAccount", owner)
    rpc("hardhat_setBalance", owner, hex(10**18))
    data = "0x" + (keccak(b"hand(address)")[:4] + encode(["address"], [to])).hex()
    receipt = rpc("eth_getTransactionReceipt", rpc("eth_sendTransaction", {"from": owner, "to": wallet, "data": data}))
    assert receipt["status"] == "0x1"
