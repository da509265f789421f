"""A node that knows one generated history: the methods that an auditor uses, in this process or over HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eth_hash.backends.pysha3 import keccak256
from histories import EMPTY_CODE, History, Mined, word
from tries import EMPTY_ROOT

from ledger.jsonrpc import RpcError

MISSING = {"code": -32000, "message": "header not found"}


class HistoryRpc:
    """The endpoint of an honest node. Has the form of `ledger.jsonrpc.JsonRpc`."""

    def __init__(self, history: History, *, url: str = "history://honest") -> None:
        self.url = url
        self.history = history
        self.asked: list[tuple[str, Sequence[object]]] = []
        self._first = history.first_block
        self._by_hash = {mined.block["hash"]: mined for mined in history.blocks}
        self._receipts = {one["transactionHash"]: one for mined in history.blocks for one in mined.receipts}

    def __call__(self, method: str, *params: Any) -> Any:
        self.asked.append((method, params))
        answer = getattr(self, method, None)
        if answer is None or not method.startswith("eth_"):
            raise RpcError(method, {"code": -32601, "message": f"the method {method} does not exist"})
        return answer(*params)

    def together(self, *calls: tuple[str, Sequence[object]]) -> list[Any]:
        return [self(method, *params) for method, params in calls]

    def each(self, *calls: tuple[str, Sequence[object]]) -> list[Any]:
        results: list[Any] = []
        for method, params in calls:
            try:
                results.append(self(method, *params))
            except RpcError as error:
                results.append(error)
        return results

    # -------------------------------------------------------------------------------------------------------- the chain

    def mined(self, block: object) -> Mined | None:
        """The block of a number, a tag, a hash, or an object of EIP-1898."""
        if isinstance(block, Mapping):
            block = block.get("blockHash") or block.get("blockNumber")
        if block in ("latest", "safe", "finalized", "pending"):
            return self.history.blocks[-1]
        if block == "earliest":
            return self.history.blocks[0]
        if isinstance(block, str) and len(block) == 66:
            return self._by_hash.get(block)
        place = int(str(block), 16) - self._first
        return self.history.blocks[place] if 0 <= place < len(self.history.blocks) else None

    def _mined(self, method: str, block: object) -> Mined:
        mined = self.mined(block)
        if mined is None:
            raise RpcError(method, MISSING)
        return mined

    def eth_chainId(self) -> str:  # noqa: N802 - as the method is called
        return hex(self.history.domain.chain_id)

    def eth_blockNumber(self) -> str:  # noqa: N802
        return str(self.history.blocks[-1].block["number"])

    def eth_getBlockByNumber(self, number: object, _full: object = None) -> Any:  # noqa: N802
        mined = self.mined(number)
        return mined and mined.block

    def eth_getBlockByHash(self, block_hash: object, _full: object = None) -> Any:  # noqa: N802
        mined = self._by_hash.get(str(block_hash))
        return mined and mined.block

    def eth_getBlockReceipts(self, block: object) -> Any:  # noqa: N802
        mined = self.mined(block)
        return mined and mined.receipts

    def eth_getTransactionReceipt(self, transaction_hash: object) -> Any:  # noqa: N802
        return self._receipts.get(str(transaction_hash))

    def eth_getLogs(self, wanted: Mapping[str, Any]) -> list[Any]:  # noqa: N802
        if "blockHash" in wanted:
            blocks = [self._mined("eth_getLogs", wanted["blockHash"])]
        else:
            last = int(self._mined("eth_getLogs", wanted.get("toBlock", "latest")).block["number"], 16) - self._first
            first = int(self._mined("eth_getLogs", wanted.get("fromBlock", "latest")).block["number"], 16) - self._first
            blocks = self.history.blocks[first : last + 1]
        addresses = wanted.get("address", ())
        own = {one.lower() for one in ([addresses] if isinstance(addresses, str) else addresses)}
        return [
            log
            for mined in blocks
            for receipt in mined.receipts
            for log in receipt["logs"]
            if (not own or log["address"] in own) and _has_topics(log["topics"], wanted.get("topics", ()))
        ]

    def eth_getCode(self, address: str, block: object) -> str:  # noqa: N802
        mined = self._mined("eth_getCode", block)
        return "0x" + self.history.code.hex() if self._is_contract(address, mined) else "0x"

    def eth_getProof(self, address: str, slots: Sequence[str], block: object) -> dict[str, Any]:  # noqa: N802
        mined = self._mined("eth_getProof", block)
        account = bytes.fromhex(address[2:])
        there = self._is_contract(address, mined)
        storage = mined.storage
        return {
            "address": address.lower(),
            "accountProof": ["0x" + node.hex() for node in mined.accounts.proof(keccak256(account))],
            "balance": "0x0",
            "nonce": "0x1" if there else "0x0",
            "codeHash": "0x" + (keccak256(self.history.code) if there else EMPTY_CODE).hex(),
            "storageHash": "0x" + (storage.root() if there else EMPTY_ROOT).hex(),
            "storageProof": [_slot_proof(mined, int(slot, 16)) for slot in slots],
        }

    def _is_contract(self, address: str, mined: Mined) -> bool:
        if address.lower() != self.history.domain.contract.lower():
            return False
        return mined.accounts.value(keccak256(bytes.fromhex(address[2:]))) is not None


def _slot_proof(mined: Mined, slot: int) -> dict[str, Any]:
    key = keccak256(word(slot))
    value = mined.storage.value(key)
    return {
        "key": f"0x{slot:064x}",
        "value": "0x0" if value is None else hex(int.from_bytes(value[1:] if len(value) > 1 else value)),
        "proof": ["0x" + node.hex() for node in mined.storage.proof(key)],
    }


def _has_topics(topics: Sequence[str], wanted: Sequence[Any]) -> bool:
    if len(topics) < len(wanted):
        return False
    return all(
        one is None or (topic == one if isinstance(one, str) else topic in one)
        for topic, one in zip(topics, wanted, strict=False)
    )
