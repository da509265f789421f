"""A node that lies: an honest history, and one thing in its answers altered. What it may do is the list `TAMPERS`.

Each one takes a history and dice, and gives the endpoint with what the auditor brings along (`Trap`). It alters only
what a block's hash commits to or what the audit rests on: a lie about anything else is no lie that matters. Where there
is nothing of the kind to alter in a history it raises `NothingToAlterError`, and another history is tried.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from eth_hash.backends.pysha3 import keccak256
from feeds import HistoryRpc
from histories import (
    HEADER,
    TOPIC,
    History,
    Mined,
    account_bytes,
    block_json,
    header_hash,
    history,
    word,
)
from tries import number
from violations import VIOLATIONS

from ledger.consent import Hex32
from ledger.errors import ChainUnavailableError
from ledger.jsonrpc import RpcError

Change = Callable[[str, Sequence[Any], Any], Any]
NUMBERS: Final = frozenset(
    {
        *("difficulty", "number", "gasLimit", "gasUsed", "timestamp"),
        *("baseFeePerGas", "blobGasUsed", "excessBlobGas"),
    }
)


class NothingToAlterError(Exception):
    """This history has nothing of the kind."""


class LyingRpc(HistoryRpc):
    """Everything that it says goes through `change` first."""

    def __init__(self, told: History, change: Change, *, whole_blocks: bool = True) -> None:
        super().__init__(told, url="history://lying")
        self._change = change
        self._whole_blocks = whole_blocks

    def __call__(self, method: str, *params: Any) -> Any:
        if method == "eth_getBlockReceipts" and not self._whole_blocks:
            raise RpcError(method, {"code": -32601, "message": f"the method {method} does not exist"})
        answer = copy.deepcopy(super().__call__(method, *params))
        return self._change(method, params, answer)


@dataclass(frozen=True, kw_only=True)
class Trap:
    """What the auditor faces: the endpoints in order; `block` is the hash that it brings along, if it does."""

    rpcs: tuple[HistoryRpc, ...]
    history: History
    block: Hex32 | None = None
    all_headers: bool = True


Tamper = Callable[[History, random.Random], Trap]


# ------------------------------------------------------------------------------------------------------------- receipts


def _own(told: History) -> str:
    return told.domain.contract.lower()


def _busy(told: History) -> list[Mined]:
    """Blocks with events of the contract."""
    own = _own(told)
    busy = [one for one in told.blocks if any(log["address"] == own for rec in one.receipts for log in rec["logs"])]
    if not busy:
        raise NothingToAlterError
    return busy


def _receipts_trap(told: History, dice: random.Random, alter: Callable[[list[dict[str, Any]], Mined], None]) -> Trap:
    """`alter` changes the receipts of each block, in whatever way the auditor asks for them."""
    altered: dict[str, list[dict[str, Any]]] = {}
    by_hash: dict[str, dict[str, Any]] = {}
    whole_blocks = dice.random() < 0.6
    changed = False
    for mined in told.blocks:
        receipts = copy.deepcopy(mined.receipts)
        alter(receipts, mined)
        altered[mined.block["hash"]] = receipts
        # Asked for one by one, what is beyond the block's transactions is never seen.
        by_hash |= zip(mined.block["transactions"], receipts, strict=False)
        changed = changed or (receipts if whole_blocks else receipts[: len(mined.receipts)]) != mined.receipts
    if not changed:
        raise NothingToAlterError

    def change(method: str, params: Sequence[Any], answer: Any) -> Any:
        if method == "eth_getBlockReceipts":
            return altered[answer[0]["blockHash"]] if answer else answer
        if method == "eth_getTransactionReceipt":
            return by_hash.get(params[0])
        if method == "eth_getLogs":
            own = _own(told)
            kept = [log for one in altered.values() for rec in one for log in rec["logs"] if log["address"] == own]
            return [log for log in kept if any(log["blockHash"] == other["blockHash"] for other in answer)]
        return answer

    return Trap(rpcs=(LyingRpc(told, change, whole_blocks=whole_blocks),), history=told)


def _one_block(
    told: History, dice: random.Random, alter: Callable[[list[dict[str, Any]]], None], *, busy: Sequence[Mined] = ()
) -> Trap:
    chosen = dice.choice(busy or _busy(told))

    def only(receipts: list[dict[str, Any]], mined: Mined) -> None:
        if mined is chosen:
            alter(receipts)

    return _receipts_trap(told, dice, only)


def _own_logs(told: History, receipts: Sequence[dict[str, Any]]) -> list[tuple[list[Any], int]]:
    """Each of the contract's events: the list that it is in, and its place there."""
    own = _own(told)
    return [(rec["logs"], at) for rec in receipts for at, log in enumerate(rec["logs"]) if log["address"] == own]


def drop_event(told: History, dice: random.Random) -> Trap:
    def alter(receipts: list[dict[str, Any]]) -> None:
        logs, at = dice.choice(_own_logs(told, receipts))
        del logs[at]

    return _one_block(told, dice, alter)


def drop_receipt(told: History, dice: random.Random) -> Trap:
    def alter(receipts: list[dict[str, Any]]) -> None:
        del receipts[dice.randrange(len(receipts))]

    return _one_block(told, dice, alter)


def drop_consent(told: History, dice: random.Random) -> Trap:
    chosen = "0x" + dice.choice(list(told.books.words)).hex()

    def alter(receipts: list[dict[str, Any]], _mined: Mined) -> None:
        for receipt in receipts:
            receipt["logs"] = [log for log in receipt["logs"] if log["topics"][1:2] != [chosen]]

    return _receipts_trap(told, dice, alter)


def drop_writer(told: History, dice: random.Random) -> Trap:
    _, writer = dice.choice(list(told.books.logs))
    named = "0x" + word(writer).hex()

    def alter(receipts: list[dict[str, Any]], _mined: Mined) -> None:
        for receipt in receipts:
            kept: list[Any] = []
            entries: list[Any] = []
            for log in receipt["logs"]:
                entries.append(log)
                if len(log["topics"]) != 2:
                    kept += [] if named in log["topics"] else entries
                    entries = []
            receipt["logs"] = kept + entries

    return _receipts_trap(told, dice, alter)


def reorder(told: History, dice: random.Random) -> Trap:
    def alter(receipts: list[dict[str, Any]]) -> None:
        items = dice.choice([receipts, *(rec["logs"] for rec in receipts)])
        if len(items) < 2:
            raise NothingToAlterError
        one, other = dice.sample(range(len(items)), 2)
        items[one], items[other] = items[other], items[one]

    return _one_block(told, dice, alter)


def duplicate(told: History, dice: random.Random) -> Trap:
    def alter(receipts: list[dict[str, Any]]) -> None:
        if dice.random() < 0.3:
            receipts.insert(dice.randrange(len(receipts)), copy.deepcopy(dice.choice(receipts)))
            return
        logs, at = dice.choice(_own_logs(told, receipts))
        logs.insert(dice.randint(0, len(logs)), copy.deepcopy(logs[at]))

    return _one_block(told, dice, alter)


def alter_event(told: History, dice: random.Random) -> Trap:
    """A digit of a topic, of the data (an entry's hash, a reason, a size), or who logged it."""

    def alter(receipts: list[dict[str, Any]]) -> None:
        logs, at = dice.choice(_own_logs(told, receipts))
        log = logs[at]
        part = dice.choice(("topic", "data", "address"))
        if part == "topic":
            place = dice.randrange(len(log["topics"]))
            log["topics"][place] = _other_digit(log["topics"][place], dice)
        else:
            name = "address" if part == "address" or len(log["data"]) == 2 else "data"
            log[name] = _other_digit(log[name], dice)

    return _one_block(told, dice, alter)


def alter_reason(told: History, dice: random.Random) -> Trap:
    refused = "0x" + TOPIC["AccessRefused"].hex()

    def alter(receipts: list[dict[str, Any]]) -> None:
        own = [logs[at] for logs, at in _own_logs(told, receipts)]
        entries = [log for log in own if log["topics"][0] == refused]
        if not entries:
            raise NothingToAlterError
        log = dice.choice(entries)
        if dice.random() < 0.5:
            log["data"] = log["data"][:-1] + dice.choice([one for one in "123456789" if one != log["data"][-1]])
        else:  # as if it had been recorded
            log["topics"][0] = "0x" + TOPIC["AccessRecorded"].hex()
            log["data"] = log["data"][:66]

    return _one_block(told, dice, alter)


def add_event(told: History, dice: random.Random) -> Trap:
    def alter(receipts: list[dict[str, Any]]) -> None:
        logs = dice.choice(receipts)["logs"]
        topics = [
            "0x" + TOPIC["ConsentRevoked"].hex(),
            "0x" + dice.randbytes(32).hex(),
            "0x" + dice.randbytes(32).hex(),
        ]
        made = {"address": _own(told), "topics": topics, "data": "0x", "blockHash": told.blocks[0].block["hash"]}
        logs.insert(dice.randint(0, len(logs)), made)

    return _one_block(told, dice, alter)


def alter_receipt(told: History, dice: random.Random) -> Trap:
    """Its status, its gas, its type, its bloom."""

    def alter(receipts: list[dict[str, Any]]) -> None:
        receipt = dice.choice(receipts)
        name = dice.choice(("status", "cumulativeGasUsed", "type", "logsBloom"))
        if name == "status":
            receipt[name] = hex(1 - int(receipt[name], 16))
        elif name == "logsBloom":
            receipt[name] = _other_digit(receipt[name], dice)
        else:
            receipt[name] = hex(int(receipt[name], 16) + 1)

    return _one_block(told, dice, alter)


def truncate_tail(told: History, dice: random.Random) -> Trap:
    """The last blocks with events have none, or no transactions at all."""
    busy = _busy(told)
    chosen = {mined.block["hash"] for mined in busy[-dice.randint(1, len(busy)) :]}
    how = dice.choice(("no receipts", "no logs", "no transactions"))

    def alter(receipts: list[dict[str, Any]], mined: Mined) -> None:
        if mined.block["hash"] in chosen:
            for receipt in receipts:
                receipt["logs"] = []
            if how != "no logs":
                receipts.clear()

    trap = _receipts_trap(told, dice, alter)
    return _without_transactions(trap, chosen) if how == "no transactions" else trap


def empty_logs(told: History, dice: random.Random) -> Trap:
    """No event anywhere: what a node says that never had them, and what eth_getLogs says when it cannot be bothered."""
    how = dice.choice(("no logs", "no receipts", "no transactions"))

    def alter(receipts: list[dict[str, Any]], _mined: Mined) -> None:
        for receipt in receipts:
            receipt["logs"] = []
            receipt["logsBloom"] = "0x" + "0" * 512
        if how != "no logs":
            receipts.clear()

    trap = _receipts_trap(told, dice, alter)
    hashes = {mined.block["hash"] for mined in told.blocks}
    return _without_transactions(trap, hashes) if how == "no transactions" else trap


def _without_transactions(trap: Trap, hashes: set[str]) -> Trap:
    (rpc,) = trap.rpcs
    assert isinstance(rpc, LyingRpc)
    before = rpc._change

    def change(method: str, params: Sequence[Any], answer: Any) -> Any:
        answer = before(method, params, answer)
        if method.startswith("eth_getBlockBy") and answer and answer["hash"] in hashes:
            answer["transactions"] = []
        return answer

    rpc._change = change
    return trap


def move_event(told: History, dice: random.Random) -> Trap:
    """Into another block: another time."""
    busy = _busy(told)
    if len(busy) < 2:
        raise NothingToAlterError
    source, target = dice.sample(busy, 2)
    logs = [log for receipt in source.receipts for log in receipt["logs"] if log["address"] == _own(told)]
    chosen = dice.choice(logs)

    def alter(receipts: list[dict[str, Any]], mined: Mined) -> None:
        if mined is source:
            receipt = next(one for one in receipts if chosen in one["logs"])
            receipt["logs"].remove(chosen)
        if mined is target:
            into = dice.choice(receipts)["logs"]
            into.insert(dice.randint(0, len(into)), copy.deepcopy(chosen))

    return _receipts_trap(told, dice, alter)


def other_blocks_receipts(told: History, dice: random.Random) -> Trap:
    busy = _busy(told)
    if len(busy) < 2:
        raise NothingToAlterError
    one, other = dice.sample(busy, 2)

    def alter(receipts: list[dict[str, Any]], mined: Mined) -> None:
        if mined in (one, other):
            receipts[:] = copy.deepcopy((other if mined is one else one).receipts)
            for receipt in receipts:
                receipt["blockHash"] = mined.block["hash"]

    return _receipts_trap(told, dice, alter)


def logs_withheld(told: History, dice: random.Random) -> Trap:
    """An auditor who does not read every header asks eth_getLogs where events are: not all of them are named."""
    own = _own(told)
    numbers = sorted({mined.block["number"] for mined in _busy(told)})
    chosen = set(dice.sample(numbers, dice.randint(1, len(numbers))))

    def change(method: str, _params: Sequence[Any], answer: Any) -> Any:
        if method != "eth_getLogs":
            return answer
        return [log for log in answer if log["address"] != own or log["blockNumber"] not in chosen]

    return Trap(rpcs=(LyingRpc(told, change),), history=told, all_headers=False)


# -------------------------------------------------------------------------------------------------------------- headers


def header_fields_of(block: Mapping[str, Any]) -> dict[str, int | bytes]:
    return {
        name: int(block[name], 16) if name in NUMBERS else bytes.fromhex(block[name][2:])
        for name in HEADER
        if name in block
    }


def _altered_header(block: dict[str, Any], dice: random.Random) -> dict[str, int | bytes]:
    fields = header_fields_of(block)
    name = dice.choice(("timestamp", "receiptsRoot", "logsBloom", "stateRoot", "parentHash", "extraData", "number"))
    if name in NUMBERS:
        fields[name] = int(block[name], 16) + dice.choice((1, 60, 86_400))
    elif name == "logsBloom":
        fields[name] = bytes(256) if block[name] != "0x" + "0" * 512 else b"\xff" * 256
    else:
        fields[name] = dice.randbytes(32)
    return fields


def alter_header(told: History, dice: random.Random) -> Trap:
    """One header's time, root, bloom or number is another, under the old hash."""
    chosen = dice.choice(told.blocks).block
    fields = _altered_header(chosen, dice)
    made = block_json(fields, bytes.fromhex(chosen["hash"][2:]), _hashes(chosen))
    return _blocks_trap(told, {chosen["hash"]: made}, dice)


def alter_header_and_hash(told: History, dice: random.Random) -> Trap:
    """One header is another, under the hash that it then has: the next one does not follow it."""
    chosen = dice.choice(told.blocks).block
    fields = _altered_header(chosen, dice)
    return _blocks_trap(told, {chosen["hash"]: block_json(fields, header_hash(fields), _hashes(chosen))}, dice)


def rewrite_the_end(told: History, dice: random.Random) -> Trap:
    """From one block on all headers are made anew, each linked: only the hash that the auditor has is another."""
    return _blocks_trap(told, blocks_rewritten(told, dice, dice.randrange(len(told.blocks)), _altered_header), dice)


def two_faced(told: History, dice: random.Random) -> Trap:
    """Asked for the block by its hash it gives the true one; the headers by number lead elsewhere, to other times."""
    later = dice.choice((1, 60, 86_400))

    def moved(block: dict[str, Any], _dice: random.Random) -> dict[str, int | bytes]:
        return header_fields_of(block) | {"timestamp": int(block["timestamp"], 16) + later}

    instead = blocks_rewritten(told, dice, dice.randrange(len(told.blocks) - 1), moved)

    def change(method: str, _params: Sequence[Any], answer: Any) -> Any:
        return instead.get(answer["hash"], answer) if method == "eth_getBlockByNumber" and answer else answer

    return Trap(rpcs=(LyingRpc(told, change),), history=told, block=told.last_hash)


def blocks_rewritten(
    told: History,
    dice: random.Random,
    start: int,
    first: Callable[[dict[str, Any], random.Random], dict[str, int | bytes]],
) -> dict[str, dict[str, Any] | None]:
    """Headers from `start` on, by the hashes that they had: the first one is altered, the others follow it."""
    made: dict[str, dict[str, Any] | None] = {}
    parent = b""
    for at, mined in enumerate(told.blocks[start:]):
        fields = first(mined.block, dice) if at == 0 else header_fields_of(mined.block) | {"parentHash": parent}
        parent = header_hash(fields)
        made[mined.block["hash"]] = block_json(fields, parent, _hashes(mined.block))
    return made


def swap_headers(told: History, dice: random.Random) -> Trap:
    one, other = dice.sample(told.blocks, 2)
    return _blocks_trap(told, {one.block["hash"]: other.block, other.block["hash"]: one.block}, dice)


def leave_out_a_header(told: History, dice: random.Random) -> Trap:
    place = dice.randrange(len(told.blocks) - 1)
    left_out, after = told.blocks[place].block, told.blocks[place + 1].block
    return _blocks_trap(told, {left_out["hash"]: dice.choice((None, after))}, dice)


def _hashes(block: Mapping[str, Any]) -> list[bytes]:
    return [bytes.fromhex(one[2:]) for one in block["transactions"]]


def _blocks_trap(told: History, instead: Mapping[str, dict[str, Any] | None], dice: random.Random) -> Trap:
    """The auditor has the last block's hash; receipts are given as if nothing were."""

    def change(method: str, _params: Sequence[Any], answer: Any) -> Any:
        if method.startswith("eth_getBlockBy") and answer:
            return copy.deepcopy(instead.get(answer["hash"], answer))
        return answer

    return Trap(rpcs=(LyingRpc(told, change, whole_blocks=dice.random() < 0.6),), history=told, block=told.last_hash)


def stale_head(told: History, dice: random.Random) -> Trap:
    """An older state, true in itself. The auditor has a newer block's hash, or a second endpoint that is further."""
    behind = dice.randint(4, len(told.blocks) - 1)
    older = copy.copy(told)
    older.blocks = told.blocks[:-behind]
    if dice.random() < 0.5:
        return Trap(rpcs=(_insisting(older, dice),), history=told, block=told.last_hash)
    rpcs = [HistoryRpc(older, url="history://stale"), HistoryRpc(told)]
    dice.shuffle(rpcs)
    return Trap(rpcs=tuple(rpcs), history=told)


def fork(told: History, dice: random.Random) -> Trap:
    """Another history of the same contract, true in itself."""
    place = told.domain.chain_id, bytes.fromhex(told.domain.contract[2:])
    other = history(told.seed + 1_000_000_007, chain=place, blocks=dice.randint(3, 20))
    if dice.random() < 0.5:
        return Trap(rpcs=(_insisting(other, dice),), history=told, block=told.last_hash)
    rpcs = [HistoryRpc(other, url="history://fork"), HistoryRpc(told)]
    dice.shuffle(rpcs)
    return Trap(rpcs=tuple(rpcs), history=told)


def _insisting(told: History, dice: random.Random) -> HistoryRpc:
    """Asked for a block that it does not have, it says so, or gives its own last one."""
    insists = dice.random() < 0.5

    def change(method: str, _params: Sequence[Any], answer: Any) -> Any:
        return told.blocks[-1].block if insists and method == "eth_getBlockByHash" and answer is None else answer

    return LyingRpc(told, change)


# ---------------------------------------------------------------------------------------------------------------- state


def lie_about_a_slot(told: History, dice: random.Random) -> Trap:
    """Nodes of a state that has one word more, or another one, and is whole in itself."""
    books, last = told.books, told.blocks[-1]
    slots = list(books._slots.values())
    slot = dice.choice([*slots, dice.randbytes(32)])
    storage = last.storage.set(keccak256(slot), number(dice.getrandbits(200) + 1))
    account = account_bytes(nonce=1, balance=0, storage=storage.root(), code=keccak256(told.code))
    accounts = last.accounts.set(keccak256(books.contract), account)
    return _proof_trap(told, [node.hex() for node in accounts.proof(keccak256(books.contract))], storage.root())


def lie_about_the_account(told: History, dice: random.Random) -> Trap:
    nodes = [node.hex() for node in told.blocks[-1].accounts.proof(keccak256(told.books.contract))]
    how = dice.choice(("digit", "drop", "none", "older"))
    if how == "digit":
        place = dice.randrange(len(nodes))
        nodes[place] = _other_digit("0x" + nodes[place], dice)[2:]
    elif how == "drop":
        del nodes[dice.randrange(len(nodes))]
    elif how == "none":
        nodes = []
    else:
        older = dice.choice(told.blocks[:-1])
        if older.accounts.root() == told.blocks[-1].accounts.root():
            raise NothingToAlterError
        nodes = [node.hex() for node in older.accounts.proof(keccak256(told.books.contract))]
    return _proof_trap(told, nodes, told.blocks[-1].storage.root())


def _proof_trap(told: History, nodes: Sequence[str], root: bytes) -> Trap:
    def change(method: str, _params: Sequence[Any], answer: Any) -> Any:
        if method == "eth_getProof":
            answer["accountProof"] = ["0x" + node for node in nodes]
            answer["storageHash"] = "0x" + root.hex()
        return answer

    return Trap(rpcs=(LyingRpc(told, change),), history=told)


def wrong_code(told: History, dice: random.Random) -> Trap:
    how = dice.choice(("digit", "none", "other"))

    def change(method: str, _params: Sequence[Any], answer: Any) -> Any:
        if method != "eth_getCode":
            return answer
        return {"digit": _other_digit(answer, dice), "none": "0x", "other": "0x60006000fd"}[how]

    return Trap(rpcs=(LyingRpc(told, change),), history=told)


def shipped_code_instead(told: History, _dice: random.Random) -> Trap:
    """Another contract's state, and the code that ships beside it."""
    other = history(told.seed, [VIOLATIONS["other_code"]])

    def change(method: str, _params: Sequence[Any], answer: Any) -> Any:
        return "0x" + told.code.hex() if method == "eth_getCode" else answer

    return Trap(rpcs=(LyingRpc(other, change),), history=other)


def wrong_chain(told: History, dice: random.Random) -> Trap:
    other = dice.choice([one for one in (1, 2, 31337, 0, 2**64) if one != told.domain.chain_id])

    def change(method: str, _params: Sequence[Any], answer: Any) -> Any:
        return hex(other) if method == "eth_chainId" else answer

    return Trap(rpcs=(LyingRpc(told, change),), history=told)


# --------------------------------------------------------------------------------------------------- answers of no use

NEEDED: Final = {
    "block": ("hash", *HEADER),
    "receipt": ("status", "cumulativeGasUsed", "logs", "logsBloom"),
    "log": ("address", "topics", "data"),
    "proof": ("accountProof",),
}


def _nested(depth: int) -> Any:
    made: list[Any] = []
    for _ in range(depth):
        made = [made]
    return made


def nonsense(dice: random.Random) -> Any:
    """Anything that JSON can say."""
    return dice.choice(
        (
            *(
                None,
                True,
                7,
                -1,
                1.5,
                "",
                "0x",
                "0xzz",
                "latest",
                "0x" + "f" * 200,
                "0X7",
                "\ud800",
                "0x\u0661",
                [],
                {},
            ),
            *([None], [[]], {"hash": None}, {"logs": [None]}, 10**400, [0] * 1000, "x" * 100_000, _nested(500)),
        )
    )


def nonsense_answer(told: History, dice: random.Random) -> Trap:
    """One method answers something else from some call on."""
    method = dice.choice(("eth_chainId", "eth_getBlockByNumber", "eth_getBlockReceipts", "eth_getProof", "eth_getCode"))
    calls = len(told.blocks) if method == "eth_getBlockByNumber" else 1
    after, made = dice.randrange(calls), nonsense(dice)
    seen = [0]

    def change(asked: str, _params: Sequence[Any], answer: Any) -> Any:
        if asked != method:
            return answer
        seen[0] += 1
        return made if seen[0] > after else answer

    return Trap(rpcs=(LyingRpc(told, change),), history=told)


def nonsense_field(told: History, dice: random.Random) -> Trap:
    """One field that is needed is missing, or something else: in a block, its receipts, or the account's proof."""
    kind = dice.choice(list(NEEDED))
    name = dice.choice([one for one in NEEDED[kind] if kind != "block" or one in told.blocks[0].block])
    missing, made = dice.random() < 0.4, nonsense(dice)
    at = dice.choice(_busy(told)).block["number"]

    def spoiled(method: str, answer: Any) -> dict[str, Any] | None:
        if method == "eth_getProof":
            return answer if kind == "proof" else None
        if method.startswith("eth_getBlockBy"):
            return answer if kind == "block" and answer["number"] == at else None
        if method == "eth_getBlockReceipts" and answer[0]["blockNumber"] == at:
            items = {"receipt": answer, "log": [log for receipt in answer for log in receipt["logs"]]}
            return dice.choice(items[kind]) if kind in items else None
        return None

    def change(method: str, _params: Sequence[Any], answer: Any) -> Any:
        item = spoiled(method, answer)
        if item is not None:
            before = item.pop(name)
            if not missing:
                item[name] = made if made != before else "0x1234567"
        return answer

    return Trap(rpcs=(LyingRpc(told, change),), history=told)


def refused(told: History, dice: random.Random) -> Trap:
    """An error object, or no answer of a node, from some call on: a rate limit, a proxy's page, a broken connection."""
    after = dice.randrange(6)
    seen = [0]
    messages = ("header not found", "rate limited", "missing trie node", "method not found", "method is not supported")
    objects: list[object] = [{"code": -32000, "message": message} for message in messages]
    objects += [None, "text", [], {"message": None}, {"code": 3, "data": "0xzz"}]
    errors: list[Exception] = [RpcError("eth_any", one) for one in objects]
    error = dice.choice([*errors, ChainUnavailableError("no usable answer from the chain at history://lying")])

    def change(_method: str, _params: Sequence[Any], answer: Any) -> Any:
        seen[0] += 1
        if seen[0] > after:
            raise error
        return answer

    return Trap(rpcs=(LyingRpc(told, change),), history=told)


def too_few_or_too_many(told: History, dice: random.Random) -> Trap:
    """A round trip is answered with another number of answers."""

    class Miscounting(HistoryRpc):
        def together(self, *calls: tuple[str, Sequence[object]]) -> list[Any]:
            answers = super().together(*calls)
            return dice.choice((answers[:-1], [*answers, answers[-1]], []))

        def each(self, *calls: tuple[str, Sequence[object]]) -> list[Any]:
            answers = super().each(*calls)
            return dice.choice((answers[:-1], [*answers, answers[-1]], []))

    return Trap(rpcs=(Miscounting(told, url="history://miscounting"),), history=told)


def _other_digit(digits: str, dice: random.Random) -> str:
    place = dice.randrange(2, len(digits))
    other = dice.choice([one for one in "0123456789abcdef" if one != digits[place]])
    return digits[:place] + other + digits[place + 1 :]


TAMPERS: Final[dict[str, Tamper]] = {
    tamper.__name__: tamper
    for tamper in (
        *(
            drop_event,
            drop_receipt,
            drop_consent,
            drop_writer,
            reorder,
            duplicate,
            alter_event,
            alter_reason,
            add_event,
        ),
        *(alter_receipt, truncate_tail, empty_logs, move_event, other_blocks_receipts, logs_withheld, alter_header),
        *(
            alter_header_and_hash,
            rewrite_the_end,
            two_faced,
            swap_headers,
            leave_out_a_header,
            stale_head,
            fork,
            lie_about_a_slot,
        ),
        *(
            lie_about_the_account,
            wrong_code,
            shipped_code_instead,
            wrong_chain,
            nonsense_answer,
            nonsense_field,
            refused,
            too_few_or_too_many,
        ),
    )
}


def trap(name: str, seed: int, honest: Sequence[History]) -> Trap:
    """The instance of that seed: one of these histories, and what is altered in it."""
    dice = random.Random(f"{name} {seed}")
    for _ in range(200):
        try:
            return TAMPERS[name](dice.choice(honest), dice)
        except NothingToAlterError:
            continue
    raise AssertionError(name)
