"""Accesses: the entry that goes to the log, the fold that makes the log's head, and the proof that comes back. Pure.

An access entry is on chain only as its hash; whoever is handed the opening (the entry itself, salt included) can check
what it stands for. `recordsHash` binds the stored envelopes that answer the request and is known before anything is
decrypted. A request that the custodian itself refused is logged too; its `recordsHash` is then `refusal_hash(code)`.

An access that an authority ordered, without a consent, is logged as its own kind. Its entry has the order's hash where
another has the consent's id, and the purpose `compelled`, which no consent can have.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from eth_hash.backends.pysha3 import keccak256

from ledger.consent import Address, Hex32, Reason, hex32_of
from ledger.json_forms import DAY_SECONDS

ENTRY_TYPEHASH: Final = keccak256(
    b"AccessEntry(bytes32 consentId,bytes32 releaseId,string institution,string purpose,string[] attributes,"
    b"bytes32 requestHash,bytes32 recordsHash,bytes32 salt)"
)


class BatchKind(IntEnum):
    """How a batch came to the log; the contract's `BatchKind`, same numbers."""

    ACCESSES = 0
    REFUSALS = 1
    LATE_ACCESSES = 2
    COMPELLED_ACCESSES = 3


COMPELLED: Final = "compelled"
"""The purpose in the entry of an access that an authority ordered; no purpose that a consent may name."""
LONGEST_EMBARGO: Final = 366 * DAY_SECONDS
"""How long such an access may be kept from the person, in seconds; the contract refuses a longer one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessEntry:
    """One use of a consent, as it is hashed into the log."""

    consent_id: Hex32
    release_id: Hex32
    institution: str
    purpose: str
    attributes: tuple[str, ...]
    request_hash: Hex32
    records_hash: Hex32
    salt: Hex32

    def as_json(self) -> dict[str, Any]:
        """The opening: what makes the entry's hash checkable."""
        return {
            "consentId": self.consent_id,
            "releaseId": self.release_id,
            "institution": self.institution,
            "purpose": self.purpose,
            "attributes": list(self.attributes),
            "requestHash": self.request_hash,
            "recordsHash": self.records_hash,
            "salt": self.salt,
        }

    @classmethod
    def from_json(cls, opening: dict[str, Any]) -> AccessEntry:
        """The inverse of `as_json`, for openings that this service stored itself."""
        return cls(
            consent_id=opening["consentId"],
            release_id=opening["releaseId"],
            institution=opening["institution"],
            purpose=opening["purpose"],
            attributes=tuple(opening["attributes"]),
            request_hash=opening["requestHash"],
            records_hash=opening["recordsHash"],
            salt=opening["salt"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedAccess:
    """The contract's `Access`: what it is given of an entry."""

    consent_id: Hex32
    entry_hash: Hex32


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainProof:
    """Where an entry stands: enough to find it on chain and to check the log around it.

    `head` and `size` are the writer's log just after the batch that holds the entry.
    """

    chain_id: int
    contract: Address
    custodian: Address
    writer: Address
    transaction_hash: Hex32
    block_number: int
    block_hash: Hex32
    log_index: int
    size: int
    head: Hex32

    def as_json(self) -> dict[str, Any]:
        """Claims of an answer and of a receipt."""
        return {
            "chainId": self.chain_id,
            "contract": self.contract,
            "custodian": self.custodian,
            "writer": self.writer,
            "transactionHash": self.transaction_hash,
            "blockNumber": self.block_number,
            "blockHash": self.block_hash,
            "logIndex": self.log_index,
            "size": self.size,
            "head": self.head,
        }


def entry_hash_of(entry: AccessEntry) -> Hex32:
    """`hashStruct(AccessEntry)` (EIP-712), encoded by hand: several times for each release, a general encoder shows."""
    return hex32_of(
        keccak256(
            ENTRY_TYPEHASH
            + _word(entry.consent_id)
            + _word(entry.release_id)
            + _text(entry.institution)
            + _text(entry.purpose)
            + keccak256(b"".join(_text(name) for name in entry.attributes))
            + _word(entry.request_hash)
            + _word(entry.records_hash)
            + _word(entry.salt)
        )
    )


def records_hash_of(digests: Iterable[bytes]) -> Hex32:
    """Keccak-256 over the envelopes' SHA-256 digests, in the order of the entry's attributes."""
    return hex32_of(keccak256(b"".join(digests)))


def refusal_hash(code: str) -> Hex32:
    """The `recordsHash` of a request that the custodian refused for the reason `code`."""
    return hex32_of(_text(f"refused:{code}"))


def fold(head: Hex32, kind: BatchKind, accesses: Sequence[LoggedAccess], reasons: Sequence[Reason]) -> Hex32:
    """The head of a log after a batch, as `IConsentLedger.append` documents it. Those of orders: `fold_compelled`."""
    folded = keccak256(_word(head) + _number(kind) + _number(len(accesses)))
    for access, reason in zip(accesses, reasons, strict=True):
        folded = keccak256(folded + _word(access.consent_id) + _word(access.entry_hash) + _number(reason))
    return hex32_of(folded)


def fold_compelled(head: Hex32, order_hash: Hex32, embargo_until: int, entry_hashes: Sequence[Hex32]) -> Hex32:
    """The head of a log after the accesses of an order, as `IConsentLedger.appendCompelled` documents it."""
    order, reason = _word(order_hash), _number(Reason.COMPELLED)
    folded = keccak256(_word(head) + _number(BatchKind.COMPELLED_ACCESSES) + _number(len(entry_hashes)))
    for word in (_number(embargo_until), *map(_word, entry_hashes)):
        folded = keccak256(folded + order + word + reason)
    return hex32_of(folded)


def _text(value: str) -> bytes:
    return keccak256(value.encode())


def _word(value: Hex32) -> bytes:
    return bytes.fromhex(value[2:])


def _number(value: int) -> bytes:
    return value.to_bytes(32)
