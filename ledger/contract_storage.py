"""The contract's storage as a whole: every slot that the books explain, and the root of the trie of all of them. Pure.

An account's storage root commits to every slot that is not zero. So the root of the storage that the events explain,
compared with the one that a block's state proves, tells whether anything was withheld or made up: also a consent or a
log that no event speaks of. The layout is that of `contracts/ConsentRegistry.sol` and `contracts/AccessLog.sol`; a test
compares it with the compiler's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from eth_hash.backends.pysha3 import keccak256

from ledger.blockproof import rlp_number, trie_root
from ledger.stateproof import slots_of_log

WORDS_SLOT: Final = 2
"""Slot of `_words`, a mapping from consent id to the consent in one word."""
NUMBERS_SLOT: Final = 3
LAST_NUMBER_SLOT: Final = 4
_EXPIRES_AT, _MAX_ACCESSES, _ACCESSES, _CUSTODIAN_NUMBER, _PAUSE_SEQUENCE, _STATE = 48, 96, 128, 160, 192, 224
_LOG_NUMBER, _LOG_ALLOWED = 64, 96
_WORD: Final = 32


@dataclass(frozen=True, slots=True)
class StoredLog:
    """A writer's log as it is stored: two words."""

    custodian: bytes
    writer: bytes
    head: bytes
    size: int
    custodian_number: int
    allowed: bool


def consent_word(
    *,
    valid_from: int,
    expires_at: int,
    max_accesses: int,
    accesses: int,
    custodian_number: int,
    pause_sequence: int,
    state: int,
) -> int:
    """A consent in its one word."""
    return (
        valid_from
        | expires_at << _EXPIRES_AT
        | max_accesses << _MAX_ACCESSES
        | accesses << _ACCESSES
        | custodian_number << _CUSTODIAN_NUMBER
        | pause_sequence << _PAUSE_SEQUENCE
        | state << _STATE
    )


def consent_slot(consent_id: bytes) -> bytes:
    """Where a consent's word is stored."""
    return keccak256(consent_id + WORDS_SLOT.to_bytes(_WORD))


def number_slot(custodian: bytes) -> bytes:
    """Where a custodian's number is stored."""
    return keccak256(custodian.rjust(_WORD, b"\0") + NUMBERS_SLOT.to_bytes(_WORD))


def storage_root_of(
    consents: Iterable[tuple[bytes, int]], numbers: Iterable[tuple[bytes, int]], logs: Iterable[StoredLog]
) -> bytes:
    """The storage root of a contract that has exactly these consents (id and word), custodians' numbers and logs."""
    items = [_item(consent_slot(consent_id), word) for consent_id, word in consents]
    last = 0
    for custodian, number in numbers:
        items.append(_item(number_slot(custodian), number))
        last = max(last, number)
    items.append(_item(LAST_NUMBER_SLOT.to_bytes(_WORD), last))
    for log in logs:
        items += [_item(slot, word) for slot, word in log_words(log)]
    # A slot that holds zero is not stored.
    return trie_root([item for item in items if item[1] != b"\x80"])


def log_words(log: StoredLog) -> tuple[tuple[bytes, int], tuple[bytes, int]]:
    """The two slots of a log and what is in them: its head; its size, custodian's number and whether it may append."""
    first, second = slots_of_log(log.custodian, log.writer)
    packed = log.size | log.custodian_number << _LOG_NUMBER | int(log.allowed) << _LOG_ALLOWED
    return (first, int.from_bytes(log.head)), (second, packed)


def _item(slot: bytes, word: int) -> tuple[bytes, bytes]:
    return keccak256(slot), rlp_number(word)
