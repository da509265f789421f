"""Orders: an authority that compels the custodian to hand out data without a consent. Pure.

Such an access is logged as a kind of its own, under the hash of the order instead of a consent's id. The hash is
salted, so that no one learns from the chain whom it is about; whoever is handed the opening can check what was ordered,
by whom, and for how long it could be kept from the subject.

The hash is `hashStruct(CompelledOrder)` (EIP-712). `documentHash` is the SHA-256 of the order's document; `subject` is
the custodian's own id of the person; `embargoUntil` (Unix seconds) is when the person is told, 0: at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from eth_hash.backends.pysha3 import keccak256

from ledger.access import LONGEST_EMBARGO
from ledger.attributes import ATTRIBUTES
from ledger.consent import Hex32, hex32_of, is_text, parse_hex32
from ledger.errors import EmbargoTooLongError, MalformedError, UnknownAttributeError
from ledger.json_forms import DAY_SECONDS

ORDER_TYPEHASH: Final = keccak256(
    b"CompelledOrder(string authority,string reference,bytes32 documentHash,string subject,string[] attributes,"
    b"uint64 embargoUntil,bytes32 salt)"
)
MAX_REFERENCE: Final = 200
MAX_ATTRIBUTES: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class NewOrder:
    """What an authority ordered. `document_hash` is the SHA-256 of its document; `embargo_until` Unix seconds or 0."""

    authority: str
    reference: str
    document_hash: Hex32
    subject_id: str
    attributes: tuple[str, ...]
    embargo_until: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CompelledOrder:
    """What an authority ordered, as it is hashed into the log."""

    authority: str
    reference: str
    document_hash: Hex32
    subject: str
    attributes: tuple[str, ...]
    embargo_until: int
    salt: Hex32

    def as_json(self) -> dict[str, Any]:
        """The opening: what makes the order's hash checkable."""
        return {
            "authority": self.authority,
            "reference": self.reference,
            "documentHash": self.document_hash,
            "subject": self.subject,
            "attributes": list(self.attributes),
            "embargoUntil": self.embargo_until,
            "salt": self.salt,
        }

    @classmethod
    def from_json(cls, opening: Mapping[str, Any]) -> CompelledOrder:
        """The inverse of `as_json`. Raises `MalformedError`: openings come from outside, too."""
        names = ("authority", "reference", "subject")
        fields = {*names, "documentHash", "attributes", "embargoUntil", "salt"}
        if set(opening) != fields or not all(is_text(opening[name]) for name in names):
            raise MalformedError("order: expected the opening of an order", field="order")
        attributes, until = opening["attributes"], opening["embargoUntil"]
        if not isinstance(attributes, list) or not all(is_text(name) for name in attributes):
            raise MalformedError("order.attributes: expected a list of names", field="order.attributes")
        if type(until) is not int or not 0 <= until < 2**64:
            raise MalformedError("order.embargoUntil: expected Unix seconds", field="order.embargoUntil")
        return cls(
            authority=opening["authority"],
            reference=opening["reference"],
            document_hash=parse_hex32(opening["documentHash"], "order.documentHash"),
            subject=opening["subject"],
            attributes=tuple(attributes),
            embargo_until=until,
            salt=parse_hex32(opening["salt"], "order.salt"),
        )


def order_hash_of(order: CompelledOrder) -> Hex32:
    """`hashStruct(CompelledOrder)`: what stands on chain in the place of a consent's id."""
    return hex32_of(
        keccak256(
            ORDER_TYPEHASH
            + keccak256(order.authority.encode())
            + keccak256(order.reference.encode())
            + bytes.fromhex(order.document_hash[2:])
            + keccak256(order.subject.encode())
            + keccak256(b"".join(keccak256(name.encode()) for name in order.attributes))
            + order.embargo_until.to_bytes(32)
            + bytes.fromhex(order.salt[2:])
        )
    )


def check_order(new: NewOrder, *, now: int) -> None:
    """Refuse an order that could not be logged or answered.

    Raises `MalformedError`, `UnknownAttributeError`, `EmbargoTooLongError`, each naming the field.
    """
    if not is_text(new.reference) or not 1 <= len(new.reference) <= MAX_REFERENCE:
        raise MalformedError(f"reference: expected 1 to {MAX_REFERENCE} characters", field="reference")
    if not 1 <= len(new.attributes) <= MAX_ATTRIBUTES:
        raise MalformedError(f"attributes: expected 1 to {MAX_ATTRIBUTES} names", field="attributes")
    if len(set(new.attributes)) != len(new.attributes):
        raise MalformedError("attributes: expected each at most once", field="attributes")
    if any(name not in ATTRIBUTES for name in new.attributes):
        raise UnknownAttributeError("attributes: expected only names of the catalogue", field="attributes")
    if new.embargo_until < 0 or 0 < new.embargo_until <= now:
        # Of one that is over already the person would know at once, which cannot be taken back.
        raise MalformedError("embargoUntil: expected Unix seconds to come, or 0 for none", field="embargoUntil")
    if new.embargo_until > now + LONGEST_EMBARGO:
        raise EmbargoTooLongError(
            f"embargoUntil: expected at most {LONGEST_EMBARGO // DAY_SECONDS} days from now", field="embargoUntil"
        )


def is_visible(embargo_until: int, *, now: int) -> bool:
    """Whether the subject may know: the embargo is over, or there was none."""
    return embargo_until <= now
