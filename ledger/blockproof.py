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

from eth_hash.backends.pysha3 import keccak256

from ledger.consent import Address, Hex32, hex32_of, parse_hex32
from ledger.errors import AuditError, ChainUnavailableError, MalformedError, ReceiptsDifferError
from ledger.stateproof import counter, header_rlp, quantity, rlp_list, rlp_quantity, rlp_string

EMPTY_ROOT: Final = keccak256(b"\x80")
BLOOM_BYTES: Final = 256
_WORD: Final = 32
_SHORT: Final = 55
_MAX_TYPE: Final = 0x7F
_ADDRESS_TEXT: Final = 42
_WORD_TEXT: Final = 66
# An access, as nearly all events are: two topics and one word of data. In RLP: the heads of the event, the address and
# the topics, then three words with a head each.
_ACCESS_TOPICS: Final = 2
_ACCESS_SIZE: Final = 124
_ACCESS_TOPICS_HEAD: Final = b"\xf8\x42"
# What RLP marks the two kinds of items with.
_STRING, _LIST = 0x80, 0xC0
# What reading an answer of another form than JSON-RPC's raises.
_MALFORMED: Final = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError, MalformedError)

Log = tuple[tuple[bytes, ...], bytes]
"""Topics and data of an event."""
_Read = tuple[Sequence[Mapping[str, Any]], Sequence[str], bytes]
"""A receipt: its events as the endpoint gave them, each in RLP in hex digits, and all of it in RLP."""


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
            number=counter(block["number"]),
            block_hash=block_hash,
            parent_hash=parse_hex32(block["parentHash"], "parentHash"),
            state_root=parse_hex32(block["stateRoot"], "stateRoot"),
            receipts_root=parse_hex32(block["receiptsRoot"], "receiptsRoot"),
            timestamp=counter(block["timestamp"]),
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
            if 2 * len(raw) != len(text):
                # Python reads digits with white space between them, too: what is read below must be what was hashed.
                raise MalformedError("receipt: expected hex digits", field="receipt")
            encoded.append((rlp_number(index), raw))
            found.append((receipt["logs"], logs, raw))
        if trie_root(encoded) != bytes.fromhex(header.receipts_root[2:]):
            raise ReceiptsDifferError(f"block {header.number}: its receipts are not those that its header commits to")
        return list(_own_logs(found, contract, header))
    except _MALFORMED as exc:
        raise ChainUnavailableError(f"block {header.number}: the endpoint's answer is not its receipts") from exc


def _own_logs(found: Sequence[_Read], contract: Address, header: Header) -> Iterator[ProvenTransaction]:
    """The contract's events, receipt by receipt. Those of accesses are cut from its bytes, which is fast."""
    own = contract[2:].lower()
    access = bytes.fromhex(own) + _ACCESS_TOPICS_HEAD
    first = 0
    for index, (logs, texts, raw) in enumerate(found):
        events: list[Log] = []
        places: list[int] = []
        # The events are what a receipt ends with.
        at = len(raw) - sum(map(len, texts)) // 2
        for place, text in enumerate(texts):
            size = len(text) // 2
            if size == _ACCESS_SIZE and raw[at + 3 : at + 25] == access:
                events.append(((raw[at + 26 : at + 58], raw[at + 59 : at + 91]), raw[at + 92 : at + 124]))
                places.append(place)
            elif (log := logs[place])["address"][2:].lower() == own:
                topics = tuple([bytes.fromhex(topic[2:]) for topic in log["topics"]])
                events.append((topics, bytes.fromhex(log["data"][2:])))
                places.append(place)
            at += size
        if events:
            yield ProvenTransaction(
                transaction_hash=header.transactions[index],
                first_log_index=first,
                logs=tuple(events),
                places=tuple(places),
            )
        first += len(logs)


def _receipt_text(receipt: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The receipt as it is hashed, in hex digits (EIP-2718), and each of its logs in it."""
    logs = receipt["logs"]
    if not isinstance(logs, list):
        raise MalformedError("logs: expected a list", field="logs")
    texts = list(map(_log_text, logs))
    if "root" in receipt and "status" not in receipt:
        # Before Byzantium (EIP-658): the state root after the transaction.
        status = rlp_string(receipt["root"][2:])
    else:
        status = "01" if quantity(receipt["status"]) else "80"
    bloom = receipt["logsBloom"][2:]
    if len(bloom) != 2 * BLOOM_BYTES:
        raise MalformedError("logsBloom: expected 256 bytes", field="logsBloom")
    body = f"{status}{rlp_quantity(receipt['cumulativeGasUsed'])}b90100{bloom}{rlp_list(''.join(texts))}"
    kind = quantity(receipt.get("type") or "0x0")
    if not 0 <= kind <= _MAX_TYPE:
        raise MalformedError("type: expected that of a transaction", field="type")
    return (f"{kind:02x}" if kind else "") + rlp_list(body), texts


def _log_text(log: Mapping[str, Any]) -> str:
    address, topics, data = log["address"], log["topics"], log["data"]
    if len(address) != _ADDRESS_TEXT:
        raise MalformedError("address: expected 20 bytes", field="address")
    if len(topics) == _ACCESS_TOPICS and len(data) == _WORD_TEXT:
        first, second = topics
        if len(first) == len(second) == _WORD_TEXT:
            return f"f87a94{address[2:]}f842a0{first[2:]}a0{second[2:]}a0{data[2:]}"
    if not isinstance(topics, list):
        raise MalformedError("topics: expected a list", field="topics")
    words = ""
    for topic in topics:
        if len(topic) != _WORD_TEXT:
            raise MalformedError("topic: expected 32 bytes", field="topics")
        words += f"a0{topic[2:]}"
    return rlp_list(f"94{address[2:]}{rlp_list(words)}{rlp_string(data[2:])}")


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


def rlp_number(number: int) -> bytes:
    """A number in RLP, as keys and values of tries are."""
    return _text_of(number.to_bytes((number.bit_length() + 7) // 8))


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
