"""The contract's calls, answers and errors as typed Python (events: `contract_events.py`). Pure: bytes in, bytes out.

Calldata is encoded here, ahead of time and without a contract object, because the release path sends it as raw
JSON-RPC. A test compares every signature below with the compiled ABI.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from eth_abi import decode, encode
from eth_utils import function_signature_to_4byte_selector

from ledger.access import BatchKind, LoggedAccess
from ledger.consent import Address, ConsentState, Hex32, OuterGrant, Reason, State, hex32_of
from ledger.contract_events import WORD, member_of
from ledger.errors import (
    SOLIDITY_TWINS,
    ChainUnavailableError,
    LedgerError,
    MalformedError,
    TransactionRevertedError,
)

GRANT: Final = "(bytes32,address,address,uint64,uint64,uint32)"
ACCESS: Final = "(bytes32,bytes32)"

FUNCTIONS: Final[Mapping[str, Sequence[str]]] = {
    "grant": (GRANT, "bytes"),
    "revoke": (f"{GRANT}[]", "bytes"),
    "setPaused": (GRANT, "bool", "uint32", "bytes"),
    "revokeAsCustodian": ("bytes32[]",),
    "status": ("bytes32", "address"),
    "statuses": ("bytes32[]", "address"),
    "consentOf": ("bytes32",),
    "consentIdOf": (GRANT,),
    "numberOf": ("address",),
    "setWriter": ("address", "bool"),
    "append": ("address", "bytes32", f"{ACCESS}[]"),
    "appendRefusals": ("address", "bytes32", f"{ACCESS}[]"),
    "appendLate": ("address", "bytes32", f"{ACCESS}[]"),
    "appendCompelled": ("address", "bytes32", "bytes32", "uint64", "bytes32[]"),
    "logOf": ("address", "address"),
}
ERRORS: Final[Mapping[str, Sequence[str]]] = {
    "InvalidSignature": ("address", "bytes32"),
    "InvalidWindow": ("uint64", "uint64"),
    "NoAccessAllowed": (),
    "CustodianMissing": (),
    "ConsentAlreadyGranted": ("bytes32",),
    "ConsentAlreadyRevoked": ("bytes32",),
    "ConsentNotGranted": ("bytes32",),
    "MixedSubjects": ("address", "address"),
    "StalePauseSequence": ("bytes32", "uint32", "uint32"),
    "NotCustodian": ("bytes32", "address"),
    "NotWriter": ("address", "address"),
    "HeadMismatch": ("bytes32", "bytes32"),
    "EmbargoTooLong": ("uint64", "uint64"),
    "EmptyBatch": (),
}
APPEND_CALLS: Final = {
    BatchKind.ACCESSES: "append",
    BatchKind.REFUSALS: "appendRefusals",
    BatchKind.LATE_ACCESSES: "appendLate",
}


def _selector(name: str, types: Sequence[str]) -> bytes:
    return function_signature_to_4byte_selector(f"{name}({','.join(types)})")


SELECTORS: Final = {name: _selector(name, types) for name, types in FUNCTIONS.items()}
VIEWS: Final = frozenset({"status", "statuses", "consentOf", "consentIdOf", "numberOf", "logOf"})
"""Functions that only read. The others call an account's own code, if it is a smart one, to ask whether it signed."""
ERROR_SELECTORS: Final = {_selector(name, types): name for name, types in ERRORS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class LogState:
    """The contract's `Log`: where one writer's log stands."""

    head: Hex32
    size: int
    custodian_number: int
    allowed: bool

    @property
    def is_retired(self) -> bool:
        """Whether the custodian let this writer append once and does no more."""
        return self.custodian_number != 0 and not self.allowed


# --------------------------------------------------------------------------------------------------------------- calls

IS_VALID_SIGNATURE: Final = function_signature_to_4byte_selector("isValidSignature(bytes32,bytes)")


def call(name: str, *args: object) -> bytes:
    """Calldata of any function of the contract."""
    return SELECTORS[name] + encode(FUNCTIONS[name], args)


def signature_question(digest: Hex32, signature: bytes) -> bytes:
    """Calldata that asks a smart account whether it signed (ERC-1271)."""
    return IS_VALID_SIGNATURE + encode(["bytes32", "bytes"], [bytes.fromhex(digest[2:]), signature])


def is_yes(answer: bytes) -> bool:
    """Whether a smart account's answer to `signature_question` is a yes: the selector, filled up with zeros."""
    return answer[:32] == IS_VALID_SIGNATURE.ljust(32, b"\0")


def grant_call(grant: OuterGrant, signature: bytes) -> bytes:
    """Calldata of `grant`."""
    return call("grant", _grant(grant), signature)


def revoke_call(grants: Sequence[OuterGrant], signature: bytes) -> bytes:
    """Calldata of `revoke`."""
    return call("revoke", [_grant(grant) for grant in grants], signature)


def pause_call(grant: OuterGrant, *, paused: bool, sequence: int, signature: bytes) -> bytes:
    """Calldata of `setPaused`."""
    return call("setPaused", _grant(grant), paused, sequence, signature)


def revoke_as_custodian_call(consent_ids: Sequence[Hex32]) -> bytes:
    """Calldata of `revokeAsCustodian`."""
    return call("revokeAsCustodian", [_word(consent_id) for consent_id in consent_ids])


def append_call(kind: BatchKind, custodian: Address, head: Hex32, accesses: Sequence[LoggedAccess]) -> bytes:
    """Calldata of `append`, `appendRefusals` or `appendLate`."""
    # By hand, as `statuses_call`: a general encoder takes longer for this than all else that a release costs here.
    words = [_address(custodian), _word(head), _number(3 * WORD), _number(len(accesses))]
    for access in accesses:
        words += (_word(access.consent_id), _word(access.entry_hash))
    return SELECTORS[APPEND_CALLS[kind]] + b"".join(words)


def append_compelled_call(
    custodian: Address, head: Hex32, order_hash: Hex32, embargo_until: int, entry_hashes: Sequence[Hex32]
) -> bytes:
    """Calldata of `appendCompelled`."""
    entries = [_word(entry_hash) for entry_hash in entry_hashes]
    return call("appendCompelled", custodian, _word(head), _word(order_hash), embargo_until, entries)


def statuses_call(consent_ids: Sequence[Hex32], custodian: Address) -> bytes:
    """Calldata of `statuses`."""
    words = [_number(2 * WORD), _address(custodian), _number(len(consent_ids)), *map(_word, consent_ids)]
    return SELECTORS["statuses"] + b"".join(words)


def decode_call(data: bytes) -> tuple[str, tuple[Any, ...]]:
    """The function and the arguments of calldata: for the simulator and for whoever reads a transaction.

    Raises `MalformedError` if it is no call of the contract.
    """
    names = {selector: name for name, selector in SELECTORS.items()}
    try:
        name = names[data[:4]]
        return name, tuple(decode(FUNCTIONS[name], data[4:]))
    except Exception as exc:
        # eth-abi raises a tree of its own.
        raise MalformedError("calldata: not a call of the contract", field="calldata") from exc


def _grant(grant: OuterGrant) -> tuple[Any, ...]:
    return (
        _word(grant.terms_hash),
        grant.subject,
        grant.custodian,
        grant.valid_from,
        grant.expires_at,
        grant.max_accesses,
    )


def _word(value: Hex32) -> bytes:
    return bytes.fromhex(value[2:])


def _address(account: Address) -> bytes:
    return bytes.fromhex(account[2:]).rjust(WORD, b"\0")


def _number(value: int) -> bytes:
    return value.to_bytes(WORD)


# ------------------------------------------------------------------------------------------------------------- answers


def decode_reasons(data: bytes) -> list[Reason]:
    """Answer of `statuses`."""
    return [member_of(Reason, number) for number in _decode(("uint8[]",), data)[0]]


def decode_consent(data: bytes) -> ConsentState:
    """Answer of `consentOf`."""
    fields = _decode(("uint48", "uint48", "uint32", "uint32", "uint32", "uint32", "uint8"), data)
    return ConsentState(
        valid_from=fields[0],
        expires_at=fields[1],
        max_accesses=fields[2],
        accesses=fields[3],
        custodian_number=fields[4],
        pause_sequence=fields[5],
        state=member_of(State, fields[6]),
    )


def decode_log(data: bytes) -> LogState:
    """Answer of `logOf`."""
    head, size, number, allowed = _decode(("bytes32", "uint64", "uint32", "bool"), data)
    return LogState(head=hex32_of(head), size=size, custodian_number=number, allowed=allowed)


def _decode(types: Sequence[str], data: bytes) -> tuple[Any, ...]:
    try:
        return tuple(decode(types, data))
    except Exception as exc:
        # eth-abi raises a tree of its own; all of it means that the endpoint's answer is not the contract's.
        raise ChainUnavailableError("the endpoint's answer is not one of the contract") from exc


def decode_error(data: bytes) -> LedgerError:
    """The Python twin of a Solidity error. Its arguments are public identifiers and numbers."""
    name = ERROR_SELECTORS.get(data[:4])
    if name is None:
        return TransactionRevertedError(f"the contract reverted with 0x{data[:4].hex() or '(nothing)'}")
    values = _decode(ERRORS[name], data[4:])
    args = ", ".join("0x" + value.hex() if isinstance(value, bytes) else str(value) for value in values)
    return SOLIDITY_TWINS[name](f"the contract refused: {name}({args})")
