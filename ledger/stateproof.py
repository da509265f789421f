"""What a block's hash commits to: its header, the accounts under its state root, and their storage. Pure.

A header is hashed as the RLP of its fields, in the order in which the hard forks added them (up to Osaka, which added
none). Accounts and storage are Merkle-Patricia tries; the proofs are those of `eth_getProof` (EIP-1186). Of the
contract's storage this knows one thing: where the logs are (`contracts/AccessLog.sol`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import rlp
from eth_utils import keccak
from trie.hexary import HexaryTrie

from ledger.consent import Address, Hex32, hex32_of
from ledger.errors import AuditError

HEADER_FIELDS: Final = (
    *("parentHash", "sha3Uncles", "miner", "stateRoot", "transactionsRoot", "receiptsRoot", "logsBloom", "difficulty"),
    *("number", "gasLimit", "gasUsed", "timestamp", "extraData", "mixHash", "nonce"),
    *("baseFeePerGas", "withdrawalsRoot", "blobGasUsed", "excessBlobGas", "parentBeaconBlockRoot", "requestsHash"),
)
OLDEST_FIELDS: Final = 15
COUNTER_BITS: Final = 62
QUANTITIES: Final = frozenset(
    {
        *("difficulty", "number", "gasLimit", "gasUsed", "timestamp"),
        *("baseFeePerGas", "blobGasUsed", "excessBlobGas"),
    }
)
LOGS_SLOT: Final = 5
"""Slot of `_logs`, a mapping from custodian and writer to `Log`. A test compares it with the compiler's layout."""
_QUANTITY: Final = re.compile(r"0x[0-9a-fA-F]{1,64}\Z")
_SIZE_BITS: Final = 64
_WORD: Final = 32
_ACCOUNT_FIELDS: Final = 4
_STORAGE_ROOT: Final = 2
_SHORT: Final = 55
# What RLP marks the two kinds of items with.
_STRING, _LIST = 0x80, 0xC0


@dataclass(frozen=True, slots=True, kw_only=True)
class StateProof:
    """A block's header (RLP), and the trie nodes that lead from its state root to an account and to its slots."""

    header: bytes
    account: tuple[bytes, ...]
    storage: tuple[tuple[bytes, ...], ...]


# ----------------------------------------------------------------------------------------------------------------- RLP
# Yellow Paper, appendix B. Written as hex digits, because that is what JSON-RPC gives, and turned into bytes once: an
# audit hashes millions of items, and a general encoder takes longer for one than hashing it does.


def rlp_string(digits: str) -> str:
    """A byte string in RLP, all in hex digits. Raises `ValueError` for half a byte: it would shift all that follows."""
    size, half = divmod(len(digits), 2)
    if half:
        raise ValueError(digits)
    if size == 1 and digits < "80":
        return digits
    return _rlp_prefix(size, _STRING) + digits


def rlp_list(content: str) -> str:
    """A list in RLP around its encoded items, all in hex digits."""
    return _rlp_prefix(len(content) // 2, _LIST) + content


def rlp_quantity(text: str) -> str:
    """A number as JSON-RPC writes it, in RLP. Raises `ValueError`, `TypeError`."""
    number = quantity(text)
    return rlp_string(number.to_bytes((number.bit_length() + 7) // 8).hex())


def _rlp_prefix(size: int, base: int) -> str:
    if size <= _SHORT:
        return f"{base + size:02x}"
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return f"{base + _SHORT + len(length):02x}{length.hex()}"


def _decoded(encoded: bytes) -> list[Any]:
    fields = _rlp_decoded(encoded)
    if not isinstance(fields, list):
        raise AuditError("not a list in RLP")
    return fields


def _rlp_decoded(encoded: bytes) -> object:
    try:
        return rlp.decode(encoded)
    except Exception as exc:
        # rlp raises a tree of its own, and RecursionError.
        raise AuditError("not RLP") from exc


# -------------------------------------------------------------------------------------------------------------- header


def header_rlp(block: Mapping[str, Any]) -> bytes:
    """The header of a block as JSON-RPC gives it.

    Raises `KeyError`, `TypeError`, `ValueError`, `OverflowError`, `AttributeError` if it is none.
    """
    names = [name for number, name in enumerate(HEADER_FIELDS) if number < OLDEST_FIELDS or block.get(name) is not None]
    text = rlp_list("".join([_field_text(name, block[name]) for name in names]))
    header = bytes.fromhex(text)
    if 2 * len(header) != len(text):
        # Python reads digits with white space between them, too.
        raise ValueError(text)
    return header


def _field_text(name: str, text: str) -> str:
    if name in QUANTITIES:
        return rlp_quantity(text)
    if not text.startswith("0x"):
        raise ValueError(text)
    return rlp_string(text[2:])


def quantity(text: str) -> int:
    """A number as JSON-RPC writes it. Raises `ValueError`, `TypeError`: Python's own reader takes more than that."""
    if not _QUANTITY.match(text):
        raise ValueError(text)
    return int(text, 16)


def counter(text: str) -> int:
    """As `quantity`, of what is counted one by one: blocks, seconds, transactions, events. A database must hold it."""
    number = quantity(text)
    if number >> COUNTER_BITS:
        raise ValueError(text)
    return number


def header_fields(header: bytes) -> dict[str, str]:
    """The fields of a header by their names in JSON-RPC. Raises `AuditError`."""
    fields = _decoded(header)
    if not OLDEST_FIELDS <= len(fields) <= len(HEADER_FIELDS) or not all(isinstance(field, bytes) for field in fields):
        raise AuditError("the header is not one of an Ethereum block")
    return {
        name: hex(int.from_bytes(field)) if name in QUANTITIES else "0x" + field.hex()
        for name, field in zip(HEADER_FIELDS, fields, strict=False)
    }


def block_hash_of(header: bytes) -> Hex32:
    """The hash of the block with this header."""
    return hex32_of(keccak(header))


# --------------------------------------------------------------------------------------------------------------- state


def account_roots(state_root: Hex32, account: Address, proof: Sequence[bytes]) -> tuple[Hex32, Hex32] | None:
    """Storage root and code hash of an account; None if the proof shows that there is none. Raises `AuditError`."""
    value = _proven(state_root, bytes.fromhex(account[2:]), proof)
    if not value:
        return None
    fields = _decoded(value)
    roots = fields[_STORAGE_ROOT:] if len(fields) == _ACCOUNT_FIELDS else []
    if not all(isinstance(root, bytes) and len(root) == _WORD for root in roots) or not roots:
        raise AuditError("the account is not one of an Ethereum state")
    return hex32_of(roots[0]), hex32_of(roots[1])


def storage_root(state_root: Hex32, account: Address, proof: Sequence[bytes]) -> Hex32:
    """The root of an account's storage. Raises `AuditError` if the proof does not lead to such an account."""
    roots = account_roots(state_root, account, proof)
    if roots is None:
        raise AuditError("the account is not one of an Ethereum state")
    return roots[0]


def storage_word(root: Hex32, slot: Hex32, proof: Sequence[bytes]) -> int:
    """The word in a slot; zero if the proof shows that there is none. Raises `AuditError`."""
    value = _proven(root, bytes.fromhex(slot[2:]), proof)
    word = _rlp_decoded(value) if value else b""
    if not isinstance(word, bytes) or len(word) > _WORD:
        raise AuditError("the slot does not hold a word")
    return int.from_bytes(word)


def _proven(root: Hex32, key: bytes, proof: Sequence[bytes]) -> bytes:
    nodes = [_decoded(node) for node in proof]
    try:
        value: bytes = HexaryTrie.get_from_proof(  # type: ignore[no-untyped-call]
            bytes.fromhex(root[2:]), keccak(key), nodes
        )
    except Exception as exc:
        # Nodes that were made up make the trie raise of every kind.
        raise AuditError("the nodes do not lead from the root to the value") from exc
    return value


# ------------------------------------------------------------------------------------------------------------- the log


def log_slots(custodian: Address, writer: Address) -> tuple[Hex32, Hex32]:
    """Where a writer's log is stored: the slot of its head, and the one that its size is packed in."""
    first, second = slots_of_log(bytes.fromhex(custodian[2:]), bytes.fromhex(writer[2:]))
    return hex32_of(first), hex32_of(second)


def slots_of_log(custodian: bytes, writer: bytes) -> tuple[bytes, bytes]:
    """As `log_slots`, all in bytes."""
    inner = keccak(custodian.rjust(_WORD, b"\0") + LOGS_SLOT.to_bytes(_WORD))
    first = keccak(writer.rjust(_WORD, b"\0") + inner)
    return first, ((int.from_bytes(first) + 1) % 2**256).to_bytes(_WORD)


def log_of(words: tuple[int, int]) -> tuple[Hex32, int]:
    """Head and size of a log, from the words in its slots."""
    head, packed = words
    return hex32_of(head.to_bytes(_WORD)), packed % 2**_SIZE_BITS
