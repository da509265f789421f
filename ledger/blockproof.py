"""What happened in a block, proven by its hash: header, events, and the roots of whole tries. Pure.

A header commits to the receipts of all transactions of its block (`receiptsRoot`), and by its `logsBloom` to who may
have logged anything at all. So events that are read here are not what an endpoint says happened, but what the block's
hash says; and that a block has none is known from the header alone. Sources: the Yellow Paper, section 4.3 and appendix
D; EIP-2718 (typed receipts). `stateproof.py` has the other half: accounts and single slots.

The text of a receipt is put together as hex digits and turned into bytes once: an audit reads millions of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import rlp
from eth_hash.backends.pysha3 import keccak256

from ledger.consent import Address, Hex32, hex32_of, parse_hex32
from ledger.errors import AuditError, ChainUnavailableError, MalformedError, ReceiptsDifferError
from ledger.stateproof import header_rlp, quantity

EMPTY_ROOT: Final = keccak256(b"\x80")
BLOOM_BYTES: Final = 256
_WORD: Final = 32
_SHORT: Final = 55
_MAX_TYPE: Final = 0x7F
_ADDRESS_DIGITS: Final = 40
_WORD_DIGITS: Final = 64
_ACCESS_TOPICS: Final = 2
# What RLP marks the two kinds of items with.
_STRING, _LIST = 0x80, 0xC0
# What reading an answer of another form than JSON-RPC's raises.
_MALFORMED: Final = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError, MalformedError)

Log = tuple[tuple[bytes, ...], bytes]
"""Topics and data of an event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What an audit needs of a block's header. `bloom` is the logsBloom as a number, `timestamp` Unix seconds."""

    number: int
    block_hash: Hex32
    parent_hash: Hex32
    state_root: Hex32
    receipts_root: Hex32
    timestamp: int
    bloom: int
    transactions: tuple[Hex32, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvenTransaction:
    """The contract's events of one transaction, in order. The hash of the transaction is the endpoint's word only."""

    transaction_hash: str
    index: int
    first_log_index: int
    logs: tuple[Log, ...]
    places: tuple[int, ...]


# -------------------------------------------------------------------------------------------------------------- headers


def read_header(block: Mapping[str, Any]) -> Header:
    """A block as JSON-RPC gives it, its hash recomputed.

    Raises `AuditError` if it says that it has another one, `ChainUnavailableError` if it is no block.
    """
    try:
        block_hash = hex32_of(keccak256(header_rlp(block)))
        if parse_hex32(block["hash"], "hash") != block_hash:
            raise AuditError(f"block {int(block['number'], 16)}: its header has another hash than it says")
        bloom = bytes.fromhex(block["logsBloom"][2:])
        if len(bloom) != BLOOM_BYTES:
            raise MalformedError("logsBloom: expected 256 bytes", field="logsBloom")
        return Header(
            number=quantity(block["number"]),
            block_hash=block_hash,
            parent_hash=parse_hex32(block["parentHash"], "parentHash"),
            state_root=parse_hex32(block["stateRoot"], "stateRoot"),
            receipts_root=parse_hex32(block["receiptsRoot"], "receiptsRoot"),
            timestamp=quantity(block["timestamp"]),
            bloom=int.from_bytes(bloom),
            transactions=tuple(parse_hex32(one, "transactions") for one in block["transactions"]),
        )
    except _MALFORMED as exc:
        raise ChainUnavailableError("the endpoint's answer is not a block") from exc


def bloom_of(account: Address) -> int:
    """The bits that a block's logsBloom has if the account logged anything in it (Yellow Paper, section 4.3.1)."""
    digest = keccak256(bytes.fromhex(account[2:]))
    bits = 0
    for start in (0, 2, 4):
        bits |= 1 << (int.from_bytes(digest[start : start + 2]) & 0x7FF)
    return bits


# ------------------------------------------------------------------------------------------------------------- receipts


def proven_logs(header: Header, receipts: Sequence[Mapping[str, Any]], contract: Address) -> list[ProvenTransaction]:
    """The contract's events in a block, from the receipts of all its transactions.

    Raises `ReceiptsDifferError` unless the receipts are exactly those that the header commits to,
    `ChainUnavailableError` if they are no receipts.
    """
    own = contract[2:].lower()
    try:
        if not isinstance(receipts, list):
            raise MalformedError("receipts: expected a list", field="receipts")
        if len(receipts) != len(header.transactions):
            counts = f"{len(receipts)} receipts for {len(header.transactions)} transactions"
            raise ReceiptsDifferError(f"block {header.number}: {counts}")
        encoded, found = [], []
        for index, receipt in enumerate(receipts):
            text, logs = _receipt_text(receipt)
            raw = bytes.fromhex(text)
            if raw.hex() != text:
                # Digits in another case, or white space: what is read below must be what was hashed.
                raise MalformedError("receipt: expected lower-case hex digits", field="receipt")
            encoded.append((_rlp_number(index), raw))
            found.append(logs)
        if trie_root(encoded) != bytes.fromhex(header.receipts_root[2:]):
            raise ReceiptsDifferError(f"block {header.number}: its receipts are not those that its header commits to")
        return list(_own_logs(found, own, header))
    except _MALFORMED as exc:
        raise ChainUnavailableError(f"block {header.number}: the endpoint's answer is not its receipts") from exc


def _own_logs(found: Sequence[Sequence[Mapping[str, Any]]], own: str, header: Header) -> Iterator[ProvenTransaction]:
    first = 0
    for index, logs in enumerate(found):
        places = [place for place, log in enumerate(logs) if log["address"][2:] == own]
        if places:
            yield ProvenTransaction(
                transaction_hash=header.transactions[index],
                index=index,
                first_log_index=first,
                logs=tuple(
                    (tuple([bytes.fromhex(topic[2:]) for topic in log["topics"]]), bytes.fromhex(log["data"][2:]))
                    for log in map(logs.__getitem__, places)
                ),
                places=tuple(places),
            )
        first += len(logs)


def _receipt_text(receipt: Mapping[str, Any]) -> tuple[str, Sequence[Mapping[str, Any]]]:
    """The receipt as it is hashed, in hex digits (EIP-2718), and its logs."""
    logs = receipt["logs"]
    if not isinstance(logs, list):
        raise MalformedError("logs: expected a list", field="logs")
    content = "".join(map(_log_text, logs))
    if "root" in receipt and "status" not in receipt:
        # Before Byzantium (EIP-658): the state root after the transaction.
        status = _string(receipt["root"][2:])
    else:
        status = "01" if quantity(receipt["status"]) else "80"
    bloom = receipt["logsBloom"][2:]
    if len(bloom) != 2 * BLOOM_BYTES:
        raise MalformedError("logsBloom: expected 256 bytes", field="logsBloom")
    body = f"{status}{_quantity(receipt['cumulativeGasUsed'])}b90100{bloom}{_listed(content)}"
    kind = quantity(receipt.get("type") or "0x0")
    if not 0 <= kind <= _MAX_TYPE:
        raise MalformedError("type: expected that of a transaction", field="type")
    return (f"{kind:02x}" if kind else "") + _listed(body), logs


def _log_text(log: Mapping[str, Any]) -> str:
    address, topics, data = log["address"], log["topics"], log["data"]
    if len(address) != _ADDRESS_DIGITS + 2:
        raise MalformedError("address: expected 20 bytes", field="address")
    digits = len(data) - 2
    # An access, as nearly all are.
    if len(topics) == _ACCESS_TOPICS and digits == _WORD_DIGITS:
        first, second = topics
        if len(first) == len(second) == _WORD_DIGITS + 2:
            return f"f87a94{address[2:]}f842a0{first[2:]}a0{second[2:]}a0{data[2:]}"
    if not isinstance(topics, list):
        raise MalformedError("topics: expected a list", field="topics")
    words = ""
    for topic in topics:
        if len(topic) != _WORD_DIGITS + 2:
            raise MalformedError("topic: expected 32 bytes", field="topics")
        words += f"a0{topic[2:]}"
    return _listed(f"94{address[2:]}{_listed(words)}{_string(data[2:])}")


def _quantity(text: str) -> str:
    number = quantity(text)
    return _string(number.to_bytes((number.bit_length() + 7) // 8).hex())


def _string(digits: str) -> str:
    """A byte string in RLP, all in hex digits."""
    size = len(digits) // 2
    if size == 1 and digits < "80":
        return digits
    return _prefix(size, _STRING) + digits


def _listed(content: str) -> str:
    """A list in RLP around its encoded items, all in hex digits."""
    return _prefix(len(content) // 2, _LIST) + content


def _prefix(size: int, base: int) -> str:
    if size <= _SHORT:
        return f"{base + size:02x}"
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return f"{base + _SHORT + len(length):02x}{length.hex()}"


def _rlp_number(number: int) -> bytes:
    encoded: bytes = rlp.encode(number)
    return encoded


# ---------------------------------------------------------------------------------------------------------------- tries


def trie_root(items: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The root of the Merkle-Patricia trie with exactly these keys and values (Yellow Paper, appendix D).

    No key may begin with another one. The trie is built from its sorted keys and not kept.
    """
    if not items:
        return EMPTY_ROOT
    ordered = sorted(items)
    return keccak256(_node(ordered, 0, len(ordered), 0))


def _node(items: list[tuple[bytes, bytes]], low: int, high: int, depth: int) -> bytes:
    """The node over `items[low:high]`, which share their first `depth` digits, in RLP."""
    key, value = items[low]
    if high - low == 1:
        return _list_of(_text_of(_path(key, depth, 2 * len(key), leaf=True)) + _text_of(value))
    last = items[high - 1][0]
    shared = depth
    while _digit(key, shared) == _digit(last, shared):
        shared += 1
    branch = _branch(items, low, high, shared)
    if shared == depth:
        return branch
    return _list_of(_text_of(_path(key, depth, shared, leaf=False)) + _reference(branch))


def _branch(items: list[tuple[bytes, bytes]], low: int, high: int, depth: int) -> bytes:
    content = []
    place = low
    for digit in range(16):
        start = place
        while place < high and _digit(items[place][0], depth) == digit:
            place += 1
        content.append(_reference(_node(items, start, place, depth + 1)) if place > start else b"\x80")
    return _list_of(b"".join(content) + b"\x80")


def _reference(node: bytes) -> bytes:
    return node if len(node) < _WORD else b"\xa0" + keccak256(node)


def _digit(key: bytes, place: int) -> int:
    byte = key[place >> 1]
    return byte & 15 if place & 1 else byte >> 4


def _path(key: bytes, start: int, end: int, *, leaf: bool) -> bytes:
    """Digits of a key with their prefix (Yellow Paper, appendix C)."""
    flag = 0x20 if leaf else 0
    if not (end - start) & 1 and not start & 1:
        return bytes([flag]) + key[start >> 1 : end >> 1]
    digits = key.hex()[start:end]
    return bytes.fromhex(f"{flag >> 4 | 1:x}{digits}" if (end - start) & 1 else f"{flag:02x}{digits}")


def _text_of(raw: bytes) -> bytes:
    if len(raw) == 1 and raw[0] < _STRING:
        return raw
    return _head_of(len(raw), _STRING) + raw


def _list_of(content: bytes) -> bytes:
    return _head_of(len(content), _LIST) + content


def _head_of(size: int, base: int) -> bytes:
    if size <= _SHORT:
        return bytes([base + size])
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes([base + _SHORT + len(length)]) + length
