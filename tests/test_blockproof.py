"""Roots of tries, receipts and headers, against the library and the compiler."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
import rlp
import solcx
from feeds import HistoryRpc
from histories import Mined, history
from trie.hexary import HexaryTrie

from ledger import contract_storage, stateproof
from ledger.artifact import artifact
from ledger.blockproof import (
    EMPTY_ROOT,
    _log_text,
    _receipt_text,
    bloom_of,
    proven_logs,
    read_header,
    rlp_number,
    trie_root,
)
from ledger.consent import Address, Hex32, hex32_of
from ledger.contract_events import TOPICS
from ledger.errors import AuditError, ChainUnavailableError, ReceiptsDifferError
from ledger.stateproof import block_hash_of, header_rlp, rlp_list, rlp_string

ROOT: Final = Path(__file__).parent.parent


def by_the_library(items: dict[bytes, bytes]) -> bytes:
    library = HexaryTrie({})
    for key, value in items.items():
        library[key] = value
    root: bytes = library.root_hash
    return root


@pytest.mark.parametrize("seed", range(60))
def test_a_trie_has_the_root_that_the_library_gives_it(seed: int) -> None:
    dice = random.Random(seed)
    count = dice.choice([0, 1, 2, 3, 17, 150])
    keys: list[bytes]
    if seed % 3 == 0:
        keys = [rlp.encode(number) for number in range(count)]
    else:
        # Near each other as well: extensions, and nodes that are short enough to stand in their parents.
        keys = [dice.randbytes(32) if dice.random() < 0.6 else b"\1" * 30 + dice.randbytes(2) for _ in range(count)]
    items = {key: dice.randbytes(dice.choice([1, 2, 31, 33, 60, 300])) for key in keys}
    assert trie_root(list(items.items())) == by_the_library(items)


def test_nothing_has_the_root_of_the_empty_trie() -> None:
    assert trie_root([]) == EMPTY_ROOT == by_the_library({})


def test_a_receipt_of_any_kind_is_proven_and_any_change_of_it_shows() -> None:
    seen = set()
    for seed in range(40):
        made = history(seed)
        for mined in made.blocks:
            header = read_header(mined.block)
            proven = proven_logs(header, list(mined.receipts), made.domain.contract)
            own = made.domain.contract.lower()
            expected = [sum(log["address"] == own for log in receipt["logs"]) for receipt in mined.receipts]
            assert [len(one.logs) for one in proven] == [count for count in expected if count]
            seen |= {receipt.get("type") for receipt in mined.receipts}
            if proven:
                assert header.bloom & bloom_of(made.domain.contract) == bloom_of(made.domain.contract)
            if mined.receipts:
                receipt = dict(mined.receipts[0])
                receipt["cumulativeGasUsed"] = hex(int(receipt["cumulativeGasUsed"], 16) + 1)
                with pytest.raises(ReceiptsDifferError):
                    proven_logs(header, [receipt, *mined.receipts[1:]], made.domain.contract)
                with pytest.raises(ReceiptsDifferError):
                    proven_logs(header, list(mined.receipts[1:]), made.domain.contract)
    assert len(seen) > 1


def a_block_with_receipts() -> tuple[Mined, Address]:
    made = next(one for one in map(history, range(50)) if any(mined.receipts for mined in one.blocks))
    return next(mined for mined in made.blocks if mined.receipts), made.domain.contract


def test_digits_with_white_space_between_them_are_no_receipt() -> None:
    mined, contract = a_block_with_receipts()
    header, receipt = read_header(mined.block), mined.receipts[0]
    digits = receipt["logsBloom"][:-2]
    for bloom in (digits + "  ", digits + " 0", digits + "0\n", digits + "0x", receipt["logsBloom"] + "00"):
        with pytest.raises(ChainUnavailableError):
            proven_logs(header, [receipt | {"logsBloom": bloom}, *mined.receipts[1:]], contract)


def test_half_a_byte_of_digits_is_no_receipt() -> None:
    mined, contract = a_block_with_receipts()
    header, receipt = read_header(mined.block), mined.receipts[0]
    log = {"address": "0x" + "11" * 20, "topics": [], "data": "0x123"}
    before_byzantium = {name: value for name, value in receipt.items() if name != "status"} | {"root": "0x1"}
    for odd in (receipt | {"logs": [log]}, before_byzantium):
        with pytest.raises(ChainUnavailableError):
            proven_logs(header, [odd, *mined.receipts[1:]], contract)


def test_events_of_others_read_from_the_middle_of_a_byte_are_no_event_of_the_ledger() -> None:
    """Two odd counts of digits make one even: what stands between is the same text, half a byte further on.

    Three events of somebody else, of which the second's address and the third's data are chosen so that, read from half
    a byte later, an event of the ledger stands in them.
    """
    ledger, other, third = (Address("0x" + digit * 40) for digit in "543")
    revoked = next(topic for topic, name in TOPICS.items() if name == "ConsentRevoked")
    forged = _log_text({"address": ledger, "topics": [revoked, "0x" + "ab" * 32, "0x" + "00" * 32], "data": "0x"})
    # The head of an event of 0x4222 bytes, its address, no topics and the head of its data, from half a byte later.
    in_the_middle = 0x4222 - 25
    second = {
        "address": "0x222" + "94" + "2" * 35,
        "topics": [],
        "data": "0x" + f"0c0b9{in_the_middle:04x}".ljust(48, "0"),
    }
    seen_from = _log_text(second)[1:]
    used = 6 + 2 + 40 + 2 + 6
    size = in_the_middle + len(forged) // 2 + 200
    head = len(_log_text({"address": third, "topics": [], "data": "0x" + "00" * size})) - 2 * size
    before = 2 * in_the_middle - len(seen_from[used:]) - head
    last = next(
        log
        for length in range(1, size, 2)
        for log in [{"address": other, "topics": [], "data": "0x" + "7" * length}]
        if len(_half(log)) == 2 * size - before - len(forged)
    )
    start = "0x" + "00" * 32
    first = {"address": other, "topics": [], "data": start}
    theirs = [first, second, {"address": third, "topics": [], "data": "0x" + "7" * before + forged + _half(last)}]
    text = seen_from + _log_text(theirs[2])
    shifted = [
        first | {"data": start + "e"},
        {"address": "0x" + text[8:48], "topics": [], "data": "0x" + text[used : used + 2 * in_the_middle]},
        {"address": ledger, "topics": [revoked, "0x" + "ab" * 32, "0x" + "00" * 32], "data": "0x"},
        last,
    ]
    receipt = {"status": "0x1", "cumulativeGasUsed": "0x5208", "logsBloom": "0x" + "00" * 256, "type": "0x2"}
    raw = bytes.fromhex(_receipt_text(receipt | {"logs": theirs})[0])
    # The attack is one: as text that nobody looks at, both are the same receipt.
    assert "".join(map(_half, shifted)) == "".join(map(_log_text, theirs))
    mined, _ = a_block_with_receipts()
    header = replace(
        read_header(mined.block),
        receipts_root=hex32_of(trie_root([(rlp_number(0), raw)])),
        transactions=(Hex32("0x" + "00" * 32),),
    )
    assert proven_logs(header, [receipt | {"logs": theirs}], ledger) == []
    with pytest.raises(ChainUnavailableError):
        proven_logs(header, [receipt | {"logs": shifted}], ledger)


def _half(log: dict[str, Any]) -> str:
    """As `_log_text`, of whatever number of digits."""
    topics, data = "".join("a0" + topic[2:] for topic in log["topics"]), log["data"][2:]
    prefix = rlp_string("00" * (len(data) // 2))[: -2 * (len(data) // 2) or None]
    content = f"94{log['address'][2:]}{rlp_list(topics)}{prefix}{data}"
    return rlp_list(content)


def test_digits_in_capitals_are_the_same_bytes() -> None:
    for made in map(history, range(20)):
        for mined in made.blocks:
            header, contract = read_header(mined.block), made.domain.contract
            capitals = json.loads(
                json.dumps(mined.receipts), object_hook=lambda one: {name: _capitals(one[name]) for name in one}
            )
            assert proven_logs(header, capitals, contract) == proven_logs(header, list(mined.receipts), contract)


def _capitals(value: object) -> object:
    if isinstance(value, list):
        return [_capitals(one) for one in value]
    return "0x" + value[2:].upper() if isinstance(value, str) and value.startswith("0x") else value


def test_a_header_under_another_hash_is_caught_and_what_is_none_is_told_apart() -> None:
    block = HistoryRpc(history(1)).history.blocks[2].block
    with pytest.raises(AuditError):
        read_header(block | {"timestamp": hex(int(block["timestamp"], 16) + 1)})
    root = block["stateRoot"]
    for nonsense in (
        *({}, block | {"number": "x"}, block | {"hash": None}, block | {"transactions": None}),
        *(block | {"stateRoot": text} for text in (root[:-1], root[:-2] + "  ", root[:-1] + "g", root[2:], 7)),
    ):
        with pytest.raises(ChainUnavailableError):
            read_header(nonsense)


@pytest.mark.parametrize("name", ["number", "timestamp"])
def test_a_number_that_no_block_has_makes_no_header_though_it_is_hashed_right(name: str) -> None:
    block = HistoryRpc(history(1)).history.blocks[2].block
    for value, fits in ((2**62 - 1, True), (2**62, False), (2**63 - 1, False), (2**200, False)):
        made = block | {name: hex(value)}
        made["hash"] = block_hash_of(header_rlp(made))
        if fits:
            assert value in (read_header(made).number, read_header(made).timestamp)
        else:
            with pytest.raises(ChainUnavailableError):
                read_header(made)


@pytest.mark.slow
def test_every_slot_is_where_the_compiler_puts_it() -> None:
    if not (ROOT / "node_modules" / "solc").exists():
        pytest.skip("node_modules is not there: run `make setup`")
    shipped = artifact()
    wanted = shipped.compiler_input | {
        "settings": shipped.compiler_input["settings"] | {"outputSelection": {"*": {"*": ["storageLayout"]}}}
    }
    source, name = shipped.contract.rsplit(":", 1)
    compiled = solcx.compile_standard(wanted, solc_binary=str(ROOT / "bin" / "solc"))
    layout = compiled["contracts"][source][name]["storageLayout"]
    slots = {one["label"]: int(one["slot"]) for one in layout["storage"]}
    assert slots == {
        # Of OpenZeppelin's EIP712, for names that are too long for an immutable: empty here.
        "_nameFallback": 0,
        "_versionFallback": 1,
        "_words": contract_storage.WORDS_SLOT,
        "_numbers": contract_storage.NUMBERS_SLOT,
        "_lastNumber": contract_storage.LAST_NUMBER_SLOT,
        "_logs": stateproof.LOGS_SLOT,
    }
    log = next(one for one in layout["types"].values() if one["label"] == "struct IConsentLedger.Log")
    assert [(one["label"], int(one["slot"]), one["offset"]) for one in log["members"]] == [
        ("head", 0, 0),
        ("size", 1, 0),
        ("custodianNumber", 1, 8),
        ("allowed", 1, 12),
    ]
    # The size has the lowest 64 bits of its word to itself.
    assert {layout["types"][one["type"]]["encoding"] for one in log["members"]} == {"inplace"}
    assert layout["types"]["t_uint64"]["numberOfBytes"] == "8"
    by_custodian = next(one for one in layout["storage"] if one["label"] == "_logs")
    by_writer = layout["types"][layout["types"][by_custodian["type"]]["value"]]
    assert layout["types"][by_writer["value"]] == log
