"""The contract's events as typed Python. Pure: what a node answers in, records out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, TypeVar

from eth_utils import keccak, to_checksum_address

from ledger.access import BatchKind, LoggedAccess
from ledger.consent import Address, Hex32, Reason, parse_hex32
from ledger.errors import ChainUnavailableError, MalformedError
from ledger.stateproof import counter

_Enum = TypeVar("_Enum", bound=IntEnum)

WORD: Final = 32
_WORD: Final = re.compile(r"[0-9a-f]{64}\Z")
_BITS: Final = {"address": 160, "bool": 1, "uint8": 8, "uint32": 32, "uint64": 64}

EVENTS: Final[Mapping[str, tuple[Sequence[str], Sequence[str]]]] = {
    # name: (indexed types, other types)
    "ConsentGranted": (("bytes32", "address", "address"), ("uint64", "uint64", "uint32")),
    "ConsentRevoked": (("bytes32", "address"), ()),
    "ConsentPauseSet": (("bytes32",), ("bool", "uint32")),
    "CustodianNumbered": (("address",), ("uint32",)),
    "WriterSet": (("address", "address"), ("bool",)),
    "AccessRecorded": (("bytes32",), ("bytes32",)),
    "AccessRefused": (("bytes32",), ("bytes32", "uint8")),
    "AccessLate": (("bytes32",), ("bytes32", "uint8")),
    "AccessCompelled": (("bytes32",), ("bytes32", "uint64")),
    "LogAppended": (("address", "address"), ("uint8", "uint64", "bytes32")),
}
TOPICS: Final = {
    "0x" + keccak(text=f"{name}({','.join((*indexed, *other))})").hex(): name
    for name, (indexed, other) in EVENTS.items()
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event: its name, its arguments in the order of `IConsentLedger.sol`, and where it is."""

    name: str
    args: tuple[Any, ...]
    log_index: int
    block_number: int
    block_hash: Hex32
    transaction_hash: Hex32


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the contract made of one access of a batch. Of a compelled one, `consent_id` is the order's hash."""

    access: LoggedAccess
    reason: Reason
    late: bool
    log_index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Appended:
    """One batch on the log: its outcomes in order, and the log just after it.

    `embargo_until` is for accesses by order: when their subject is told at the latest (Unix seconds; 0: at once).
    """

    custodian: Address
    writer: Address
    kind: BatchKind
    outcomes: tuple[Outcome, ...]
    size: int
    head: Hex32
    embargo_until: int = 0


# -------------------------------------------------------------------------------------------------------------- events


def decode_events(logs: Iterable[Mapping[str, Any]], contract: Address) -> list[Event]:
    """The contract's events among JSON-RPC log objects, in order; other contracts' are passed over.

    Raises `ChainUnavailableError` if they are not such objects.
    """
    try:
        return [
            _event(log, TOPICS[log["topics"][0]])
            for log in logs
            if log["address"].lower() == contract.lower() and log["topics"][:1] and log["topics"][0] in TOPICS
        ]
    except (KeyError, TypeError, ValueError, AttributeError, MalformedError) as exc:
        raise ChainUnavailableError("the endpoint's answer is not one of the contract") from exc


def _event(log: Mapping[str, Any], name: str) -> Event:
    indexed, other = EVENTS[name]
    if log.get("removed"):
        # Of a block that the chain left: it is in none.
        raise ValueError(name)
    data = log["data"].lower().removeprefix("0x")
    words = [topic.lower().removeprefix("0x") for topic in log["topics"][1:]]
    words += [data[start : start + 2 * WORD] for start in range(0, len(data), 2 * WORD)]
    return Event(
        name=name,
        args=tuple(_argument(kind, word) for kind, word in zip((*indexed, *other), words, strict=True)),
        log_index=counter(log["logIndex"]),
        block_number=counter(log["blockNumber"]),
        block_hash=parse_hex32(log["blockHash"], "blockHash"),
        transaction_hash=parse_hex32(log["transactionHash"], "transactionHash"),
    )


def _argument(kind: str, word: str) -> object:
    """One word of an event, in hex. Every type in `EVENTS` is one word long. Raises `ValueError`."""
    if not _WORD.match(word):
        raise ValueError(word)
    if kind == "bytes32":
        return Hex32("0x" + word)
    number = int(word, 16)
    if number >> _BITS[kind]:
        raise ValueError(word)
    if kind == "address":
        return to_checksum_address("0x" + word[24:])
    return bool(number) if kind == "bool" else number


def batches_of(events: Iterable[Event]) -> list[Appended]:
    """Group access events into batches: `LogAppended` closes the entries before it."""
    batches: list[Appended] = []
    outcomes: list[Outcome] = []
    embargo_until = 0
    for event in events:
        match event.name:
            case "AccessRecorded" | "AccessRefused" | "AccessLate":
                consent_id, entry_hash, *reason = event.args
                outcomes.append(
                    Outcome(
                        access=LoggedAccess(consent_id=consent_id, entry_hash=entry_hash),
                        reason=member_of(Reason, reason[0]) if reason else Reason.NONE,
                        late=event.name == "AccessLate",
                        log_index=event.log_index,
                    )
                )
            case "AccessCompelled":
                order_hash, entry_hash, embargo_until = event.args
                outcomes.append(
                    Outcome(
                        access=LoggedAccess(consent_id=order_hash, entry_hash=entry_hash),
                        reason=Reason.COMPELLED,
                        late=False,
                        log_index=event.log_index,
                    )
                )
            case "LogAppended":
                custodian, writer, kind, size, head = event.args
                batches.append(
                    Appended(
                        custodian=custodian,
                        writer=writer,
                        kind=member_of(BatchKind, kind),
                        outcomes=tuple(outcomes),
                        size=size,
                        head=head,
                        embargo_until=embargo_until,
                    )
                )
                outcomes, embargo_until = [], 0
    return batches


def member_of(enum: type[_Enum], number: int) -> _Enum:
    """The member of an enumeration with this number. Raises `ChainUnavailableError`."""
    try:
        return enum(number)
    except ValueError as exc:
        raise ChainUnavailableError("the endpoint's answer is not one of the contract") from exc
