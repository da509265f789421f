"""The floor of an audit: `audit_floor.py URL` fetches all logs and folds the entries to the heads, nothing else."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from eth_hash.backends.pysha3 import keccak256

from ledger.artifact import contract_address
from ledger.jsonrpc import JsonRpc

FLOOR_BLOCKS: Final = 16
"""As many as the audit asks for at once."""


def _topic(signature: str) -> str:
    return "0x" + keccak256(signature.encode()).hex()


def floor(url: str) -> dict[str, Any]:
    """The entries that were fetched and folded. The next answer is fetched while one is folded, as the audit does."""

    rpc, contract = JsonRpc(url), contract_address()
    appended = _topic("LogAppended(address,address,uint8,uint64,bytes32)")
    entry = {_topic("AccessRecorded(bytes32,bytes32)"), _topic("AccessRefused(bytes32,bytes32,uint8)")}
    last = int(rpc("eth_blockNumber"), 16)
    heads: dict[tuple[str, str], bytes] = {}
    pending: list[tuple[bytes, bytes, bytes]] = []
    entries = 0

    def logs(first: int) -> list[Any]:
        query = {"address": contract, "fromBlock": hex(first), "toBlock": hex(min(first + FLOOR_BLOCKS - 1, last))}
        found: list[Any] = rpc("eth_getLogs", query)
        return found

    starts = range(0, last + 1, FLOOR_BLOCKS)
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(logs, starts[0])
        for number in range(len(starts)):
            found = coming.result()
            if number + 1 < len(starts):
                coming = pool.submit(logs, starts[number + 1])
            for log in found:
                topics, data = log["topics"], bytes.fromhex(log["data"][2:])
                if topics[0] == appended:
                    key = topics[1], topics[2]
                    head = keccak256(heads.get(key, bytes(32)) + data[:32] + len(pending).to_bytes(32))
                    for consent_id, entry_hash, reason in pending:
                        head = keccak256(head + consent_id + entry_hash + reason)
                    assert head == data[64:], "the fold is not the log's"
                    heads[key], entries, pending = head, entries + len(pending), []
                elif topics[0] in entry:
                    pending.append((bytes.fromhex(topics[1][2:]), data[:32], data[32:] or bytes(32)))
    return {"entries": entries}


if __name__ == "__main__":
    print(json.dumps(floor(sys.argv[1])))
