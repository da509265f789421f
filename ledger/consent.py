"""Consents: what a person grants, and who may do what under it.

Pure: no chain, no store, no clock.

Rules that this module enforces:

- Zero means zero, never "for ever": `maxAccesses`, `accessesPerDay` and the window must be positive;
  `retentionDays = 0` means that nothing may be stored.
- The window is half-open: `valid_from <= now < expires_at`, in Unix seconds.
- `authorize` raises the reason; there is no second, weaker check.

What is signed of it, and how it is identified: `typed_data.py`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, NewType, Protocol, TypeGuard

from eth_utils import is_checksum_address, is_checksum_formatted_address, is_hex_address, to_checksum_address

from ledger.errors import (
    AttributeNotConsentedError,
    ConsentError,
    ConsentExhaustedError,
    ConsentExpiredError,
    ConsentNotGrantedError,
    ConsentNotYetValidError,
    ConsentPausedError,
    ConsentRevokedError,
    CustodianMissingError,
    DailyLimitError,
    DisputedError,
    ErasedError,
    InvalidWindowError,
    MalformedError,
    NoAccessAllowedError,
    PurposeMismatchError,
    WrongCustodianError,
    WrongInstitutionError,
)

Hex32 = NewType("Hex32", str)
"""32 bytes as `0x` and 64 lower-case hex digits."""

Address = NewType("Address", str)
"""An EVM account in its checksum form (EIP-55)."""

ZERO32: Final = Hex32("0x" + "00" * 32)
NO_ADDRESS: Final = Address("0x" + "00" * 20)
MAX_TIME: Final = 2**48 - 1
MAX_COUNT: Final = 2**32 - 1
_BYTES: Final = 32
_HEX32: Final = re.compile(r"0x[0-9a-f]{64}\Z")


class Reason(IntEnum):
    """Why an access may not be made; the contract's `Reason`, same numbers."""

    NONE = 0
    NOT_GRANTED = 1
    NOT_YET_VALID = 2
    EXPIRED = 3
    PAUSED = 4
    REVOKED = 5
    EXHAUSTED = 6
    WRONG_CUSTODIAN = 7
    BY_CUSTODIAN = 8
    COMPELLED = 9


REASON_ERRORS: Final[Mapping[Reason, type[ConsentError]]] = {
    Reason.NOT_GRANTED: ConsentNotGrantedError,
    Reason.NOT_YET_VALID: ConsentNotYetValidError,
    Reason.EXPIRED: ConsentExpiredError,
    Reason.PAUSED: ConsentPausedError,
    Reason.REVOKED: ConsentRevokedError,
    Reason.EXHAUSTED: ConsentExhaustedError,
    Reason.WRONG_CUSTODIAN: WrongCustodianError,
}


class State(IntEnum):
    """State of a consent on chain; the contract's `State`, same numbers."""

    UNKNOWN = 0
    ACTIVE = 1
    PAUSED = 2
    REVOKED = 3


# An attribute of an enumeration is slow to look up, and an audit asks for a verdict a million times.
_NONE: Final = Reason.NONE
_UNKNOWN, _PAUSED, _REVOKED = State.UNKNOWN, State.PAUSED, State.REVOKED


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """Where signatures are valid: one contract on one chain."""

    chain_id: int
    contract: Address

    def as_json(self) -> dict[str, Any]:
        """The EIP-712 domain of every signed type."""
        return {
            "name": "ConsentLedger",
            "version": "1",
            "chainId": self.chain_id,
            "verifyingContract": self.contract,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The private part of a consent; only its salted hash is on chain."""

    institution: str
    institution_name: str
    purpose: str
    attributes: tuple[str, ...]
    accesses_per_day: int
    retention_days: int
    notice_hash: Hex32
    replaces: Hex32
    salt: Hex32

    def as_json(self) -> dict[str, Any]:
        """As signed."""
        return {
            "institution": self.institution,
            "institutionName": self.institution_name,
            "purpose": self.purpose,
            "attributes": list(self.attributes),
            "accessesPerDay": self.accesses_per_day,
            "retentionDays": self.retention_days,
            "noticeHash": self.notice_hash,
            "replaces": self.replaces,
            "salt": self.salt,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsentGrant:
    """What the subject signs. Times are Unix seconds; the window is half-open."""

    terms: Terms
    subject: Address
    custodian: Address
    valid_from: int
    expires_at: int
    max_accesses: int

    def as_json(self) -> dict[str, Any]:
        """As signed."""
        return {
            "terms": self.terms.as_json(),
            "subject": self.subject,
            "custodian": self.custodian,
            "validFrom": self.valid_from,
            "expiresAt": self.expires_at,
            "maxAccesses": self.max_accesses,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class OuterGrant:
    """The contract's `Grant`: the outer fields around the hash of the terms."""

    terms_hash: Hex32
    subject: Address
    custodian: Address
    valid_from: int
    expires_at: int
    max_accesses: int


class Judged(Protocol):
    """The contract's `Consent`, however it is kept: what a verdict is about."""

    @property
    def valid_from(self) -> int:
        """First second of the window."""

    @property
    def expires_at(self) -> int:
        """First second after it."""

    @property
    def max_accesses(self) -> int:
        """How many it allows."""

    @property
    def accesses(self) -> int:
        """How many there were."""

    @property
    def custodian_number(self) -> int:
        """Whose it is."""

    @property
    def state(self) -> State:
        """What became of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsentState:
    """The contract's `Consent`: what is on chain about a consent."""

    valid_from: int = 0
    expires_at: int = 0
    max_accesses: int = 0
    accesses: int = 0
    custodian_number: int = 0
    pause_sequence: int = 0
    state: State = State.UNKNOWN

    def reason(self, *, at: int, custodian_number: int) -> Reason:
        """The contract's verdict at block time `at`."""
        return reason_against(self, custodian_number, at)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRequest:
    """What an institution asks for. `request_hash` is the digest of its request as it signed it."""

    consent_id: Hex32
    institution: str
    purpose: str
    attributes: tuple[str, ...]
    request_hash: Hex32


# --------------------------------------------------------------------------------------------------------- decisions


def reason_against(  # noqa: PLR0911 - one line for each row of the table
    consent: Judged, custodian_number: int, at: int
) -> Reason:
    """The contract's verdict (`_reasonAgainst`) at block time `at`, in its order: the most final reason first."""
    state = consent.state
    if state is _REVOKED:
        return Reason.REVOKED
    if state is _UNKNOWN:
        return Reason.NOT_GRANTED
    if consent.custodian_number != custodian_number:
        return Reason.WRONG_CUSTODIAN
    if at >= consent.expires_at:
        return Reason.EXPIRED
    if consent.accesses >= consent.max_accesses:
        return Reason.EXHAUSTED
    if at < consent.valid_from:
        return Reason.NOT_YET_VALID
    if state is _PAUSED:
        return Reason.PAUSED
    return _NONE


def require_in_force(reason: Reason) -> None:
    """Raise the `ConsentError` that belongs to `reason`; nothing if it is `NONE`."""
    if reason is not Reason.NONE:
        raise REASON_ERRORS[reason](f"the consent is not in force: {REASON_ERRORS[reason].code}")


def require_institution(request: AccessRequest, grant: ConsentGrant) -> None:
    """Whoever the consent was not given to learns nothing else about it. Raises `WrongInstitutionError`."""
    if request.institution != grant.terms.institution:
        raise WrongInstitutionError("the consent names another institution", field="institution")


def authorize(
    request: AccessRequest,
    grant: ConsentGrant,
    *,
    used_today: int,
    disputed: Collection[str] = (),
    erased: bool = False,
) -> None:
    """Decide whether `grant` covers `request`. Whether it is in force is the contract's to say, not this function's.

    `used_today` counts the accesses under this consent in the current UTC day, this one not included. `disputed` are
    the attributes that the subject disputes.

    Raises the `ConsentError` that says why not.
    """
    require_institution(request, grant)
    if erased:
        raise ErasedError("the data were erased")
    if request.purpose != grant.terms.purpose:
        raise PurposeMismatchError(f"the consent is for {grant.terms.purpose}, nothing else", field="purpose")
    if not request.attributes:
        raise MalformedError("attributes: expected at least one", field="attributes")
    if len(set(request.attributes)) != len(request.attributes):
        raise MalformedError("attributes: expected each at most once", field="attributes")
    if not set(request.attributes) <= set(grant.terms.attributes):
        covered = ", ".join(sorted(grant.terms.attributes))
        raise AttributeNotConsentedError(f"the consent covers only {covered}", field="attributes")
    if contested := sorted(set(request.attributes) & set(disputed)):
        raise DisputedError(f"disputed by the subject: {', '.join(contested)}", field="attributes")
    if used_today >= grant.terms.accesses_per_day:
        raise DailyLimitError(f"the consent allows {grant.terms.accesses_per_day} accesses a day, all used today")


def check_form(grant: ConsentGrant) -> None:
    """Refuse a grant that no contract would take or that says "for ever" with a zero.

    Raises `CustodianMissingError`, `InvalidWindowError`, `NoAccessAllowedError`, `MalformedError`.
    """
    if grant.custodian == NO_ADDRESS:
        raise CustodianMissingError("custodian: expected an account, got the zero address", field="custodian")
    if not 0 <= grant.valid_from < grant.expires_at <= MAX_TIME:
        raise InvalidWindowError("expiresAt: expected later than validFrom, below 2^48", field="expiresAt")
    for name, value in (("maxAccesses", grant.max_accesses), ("terms.accessesPerDay", grant.terms.accesses_per_day)):
        if not 1 <= value <= MAX_COUNT:
            raise NoAccessAllowedError(f"{name}: expected 1 or more, got {value}", field=name)
    if not 0 <= grant.terms.retention_days <= MAX_COUNT:
        raise MalformedError("terms.retentionDays: expected 0 or more", field="terms.retentionDays")
    for name in ("institution", "institutionName", "purpose"):
        if not grant.terms.as_json()[name]:
            raise MalformedError(f"terms.{name}: expected text", field=f"terms.{name}")
    if grant.terms.salt == ZERO32:
        # A known salt would let anyone guess the terms from their hash.
        raise MalformedError("terms.salt: expected 32 random bytes, got zeros", field="terms.salt")


# ----------------------------------------------------------------------------------------------------- parsing, edges


def hex32_of(raw: bytes) -> Hex32:
    """32 bytes as hex."""
    if len(raw) != _BYTES:
        raise ValueError(f"expected 32 bytes, got {len(raw)}")
    return Hex32("0x" + raw.hex())


def parse_hex32(value: object, field: str) -> Hex32:
    """Raises `MalformedError` unless `value` is 32 bytes in hex."""
    if isinstance(value, str) and _HEX32.match(lowered := value.lower()):
        return Hex32(lowered)
    raise MalformedError(f"{field}: expected 0x and 64 hex digits", field=field)


def parse_address(value: object, field: str) -> Address:
    """Raises `MalformedError` unless `value` is an EVM account; its checksum, if it has one, must be right."""
    # Digits of one case carry no checksum; eth-utils' `is_address` does not look at that of the others.
    if isinstance(value, str) and value.startswith("0x") and is_hex_address(value) and _checksum_holds(value):
        return Address(to_checksum_address(value))
    raise MalformedError(f"{field}: expected an account, 0x and 40 hex digits with the right checksum", field=field)


def _checksum_holds(value: str) -> bool:
    return is_checksum_address(value) or not is_checksum_formatted_address(value)


def is_text(value: object) -> TypeGuard[str]:
    """Whether `value` is text that can be hashed: JSON can hold half a surrogate pair, which has no bytes."""
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)
