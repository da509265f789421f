"""Disclosure: what is handed to an auditor, a regulator or a court so that entries of the log can be read. Pure.

On chain an entry is a hash. A disclosure has what the hash stands for, and everything by which that can be checked
without believing whoever made it: `disclosed.py` does. It names people and what was read of them, so it is handed over
under a legal basis only; it holds no value of an attribute. Version 1 is a JSON object with exactly these members:

    version, kind    1, "disclosure"
    domain           chain and contract, as in every signed type
    keys             public signing keys (JWK: kty, crv, x, y, kid): `custodian` a list, `institutions` a list by id
    consents         `consent` its id, `grant` as the subject signed it, `signature` the subject's, 0x and hex
    orders           openings of the orders that compelled entries name as their consent
    entries          one object for each entry:
        entryHash    as on chain
        entry        the opening: what the hash is made of, salt included
        outcome      `recorded`, `late`, `refused` or `compelled`
        reason       of a refused one the code of why, otherwise null
        place        where it stands: custodian, writer, transactionHash, blockNumber, logIndex
        request      the institution's request as it signed it (`SignedRequest.as_json`), or null
        records      SHA-256 of the stored envelopes that were read, in the order of the attributes, or null
        receipt      the AccessReceipt (a JWT), or null
        answer       what the custodian answered, signed by it and opened by the institution (a JWT), or null: it alone
                     has values, and comes from the institution
        bundle       a proof bundle (`evidence.py`): stands for the chain where there is none, or null

A member more or less is no disclosure. What is null cannot be checked, and the checks say so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from ledger.access import AccessEntry, ChainProof
from ledger.compelled import CompelledOrder
from ledger.consent import Address, ConsentGrant, Domain, Hex32, is_text, parse_address, parse_hex32
from ledger.errors import MalformedError
from ledger.signatures import JWK, SignedRequest
from ledger.typed_data import parse_grant
from ledger.verifying_keys import public_jwk, read_jwk

DISCLOSURE_VERSION: Final = 1
KIND: Final = "disclosure"
_DOCUMENT: Final = frozenset({"version", "kind", "domain", "keys", "consents", "orders", "entries"})
_CONSENT: Final = frozenset({"consent", "grant", "signature"})
_ENTRY: Final = frozenset(
    ("entryHash", "entry", "outcome", "reason", "place", "request", "records", "receipt", "answer", "bundle")
)
_OPENING: Final = frozenset(
    ("consentId", "releaseId", "institution", "purpose", "attributes", "requestHash", "recordsHash", "salt")
)
_PLACE: Final = frozenset({"custodian", "writer", "transactionHash", "blockNumber", "logIndex"})
_REQUEST: Final = frozenset({"version", "keyid", "created", "nonce", "base", "signature", "body"})
_BYTES: Final = re.compile(r"0x([0-9a-f]{2})*")
_MOST: Final = 2**63


class DisclosedOutcome(StrEnum):
    """What the contract made of an entry."""

    RECORDED = "recorded"
    LATE = "late"
    REFUSED = "refused"
    COMPELLED = "compelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class DisclosedConsent:
    """A consent's opening. `consent_id` is what the document says, not what the grant comes to."""

    consent_id: Hex32
    grant: ConsentGrant
    signature: bytes

    def as_json(self) -> dict[str, Any]:
        """As a member of `consents`."""
        return {"consent": self.consent_id, "grant": self.grant.as_json(), "signature": "0x" + self.signature.hex()}


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryPlace:
    """Where an entry stands on chain."""

    custodian: Address
    writer: Address
    transaction_hash: Hex32
    block_number: int
    log_index: int

    @classmethod
    def of(cls, proof: ChainProof) -> EntryPlace:
        """The place that a receipt names."""
        return cls(
            custodian=proof.custodian,
            writer=proof.writer,
            transaction_hash=proof.transaction_hash,
            block_number=proof.block_number,
            log_index=proof.log_index,
        )

    def as_json(self) -> dict[str, Any]:
        """As a member of an entry."""
        return {
            "custodian": self.custodian,
            "writer": self.writer,
            "transactionHash": self.transaction_hash,
            "blockNumber": self.block_number,
            "logIndex": self.log_index,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class DisclosedEntry:
    """One entry, as the document has it: nothing here was checked but its form."""

    entry_hash: Hex32
    entry: AccessEntry
    outcome: DisclosedOutcome
    place: EntryPlace
    reason: str | None = None
    request: SignedRequest | None = None
    records: tuple[Hex32, ...] | None = None
    receipt: str | None = None
    answer: str | None = None
    bundle: Mapping[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """As a member of `entries`."""
        return {
            "entryHash": self.entry_hash,
            "entry": self.entry.as_json(),
            "outcome": self.outcome.value,
            "reason": self.reason,
            "place": self.place.as_json(),
            "request": None if self.request is None else self.request.as_json(),
            "records": None if self.records is None else list(self.records),
            "receipt": self.receipt,
            "answer": self.answer,
            "bundle": None if self.bundle is None else dict(self.bundle),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Disclosure:
    """A disclosure whose form is right. `custodian_keys` and `institution_keys` are whoever's who made it says."""

    domain: Domain
    custodian_keys: tuple[JWK, ...]
    institution_keys: Mapping[str, tuple[JWK, ...]]
    consents: tuple[DisclosedConsent, ...]
    entries: tuple[DisclosedEntry, ...]
    orders: tuple[CompelledOrder, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The document, ready for `json.dumps`."""
        return {
            "version": DISCLOSURE_VERSION,
            "kind": KIND,
            "domain": self.domain.as_json(),
            "keys": {
                "custodian": [public_jwk(key) for key in self.custodian_keys],
                "institutions": {
                    party_id: [public_jwk(key) for key in keys] for party_id, keys in self.institution_keys.items()
                },
            },
            "consents": [one.as_json() for one in self.consents],
            "orders": [one.as_json() for one in self.orders],
            "entries": [one.as_json() for one in self.entries],
        }


# ------------------------------------------------------------------------------------------------------------- reading


def read_disclosure(document: object) -> Disclosure:
    """Read a document that comes from outside: its form only. Raises `MalformedError` naming the member."""
    fields = _object(document, _DOCUMENT, "disclosure")
    if (fields["version"], fields["kind"]) != (DISCLOSURE_VERSION, KIND) or type(fields["version"]) is not int:
        raise MalformedError(f"version: expected a disclosure of version {DISCLOSURE_VERSION}", field="version")
    keys = _object(fields["keys"], frozenset({"custodian", "institutions"}), "keys")
    institutions = keys["institutions"]
    if not isinstance(institutions, Mapping):
        raise MalformedError("keys.institutions: expected an object", field="keys.institutions")
    read = Disclosure(
        domain=_domain(fields["domain"]),
        custodian_keys=_keys(keys["custodian"], "keys.custodian"),
        institution_keys={
            party_id: _keys(jwks, f"keys.institutions.{party_id}") for party_id, jwks in institutions.items()
        },
        consents=tuple(
            read_consent(one, f"consents[{n}]") for n, one in enumerate(_list(fields["consents"], "consents"))
        ),
        orders=tuple(read_order(one, f"orders[{n}]") for n, one in enumerate(_list(fields["orders"], "orders"))),
        entries=tuple(_entry(one, f"entries[{n}]") for n, one in enumerate(_list(fields["entries"], "entries"))),
    )
    if len({one.entry_hash for one in read.entries}) < len(read.entries):
        raise MalformedError("entries: expected each once", field="entries")
    if len({one.consent_id for one in read.consents}) < len(read.consents):
        raise MalformedError("consents: expected each once", field="consents")
    return read


def _domain(value: object) -> Domain:
    fields = _mapping(value, "domain")
    chain_id = _number(fields.get("chainId"), "domain.chainId")
    domain = Domain(chain_id=chain_id, contract=_address(fields.get("verifyingContract"), "domain"))
    if fields != domain.as_json():
        raise MalformedError("domain: expected the EIP-712 domain of a consent ledger", field="domain")
    return domain


def _keys(value: object, field: str) -> tuple[JWK, ...]:
    return tuple(read_jwk(one, f"{field}[{number}]") for number, one in enumerate(_list(value, field)))


def read_consent(value: object, field: str) -> DisclosedConsent:
    """A member of `consents`. Raises `MalformedError`."""
    fields = _object(value, _CONSENT, field)
    grant = parse_grant(fields["grant"])
    if grant.as_json() != fields["grant"]:
        raise MalformedError(f"{field}.grant: expected a grant as it is signed", field=field)
    return DisclosedConsent(
        consent_id=_hex32(fields["consent"], f"{field}.consent"),
        grant=grant,
        signature=_bytes(fields["signature"], f"{field}.signature"),
    )


def read_order(value: object, field: str) -> CompelledOrder:
    """A member of `orders`. Raises `MalformedError`."""
    order = CompelledOrder.from_json(_mapping(value, field))
    if order.as_json() != value:
        raise MalformedError(f"{field}: expected the opening of an order", field=field)
    return order


def _entry(value: object, field: str) -> DisclosedEntry:
    fields = _object(value, _ENTRY, field)
    records, bundle = fields["records"], fields["bundle"]
    if fields["outcome"] not in tuple(DisclosedOutcome):
        raise MalformedError(f"{field}.outcome: expected one of {', '.join(DisclosedOutcome)}", field=field)
    return DisclosedEntry(
        entry_hash=_hex32(fields["entryHash"], f"{field}.entryHash"),
        entry=read_opening(fields["entry"], f"{field}.entry"),
        outcome=DisclosedOutcome(fields["outcome"]),
        place=_place(fields["place"], f"{field}.place"),
        reason=_text_or_none(fields["reason"], f"{field}.reason"),
        request=None if fields["request"] is None else _request(fields["request"], f"{field}.request"),
        records=None if records is None else tuple(_hex32(one, field) for one in _list(records, field)),
        receipt=_text_or_none(fields["receipt"], f"{field}.receipt"),
        answer=_text_or_none(fields["answer"], f"{field}.answer"),
        bundle=None if bundle is None else _mapping(bundle, f"{field}.bundle"),
    )


def read_opening(value: object, field: str) -> AccessEntry:
    """The opening of an entry. Raises `MalformedError`."""
    fields = _object(value, _OPENING, field)
    for name in ("consentId", "releaseId", "requestHash", "recordsHash", "salt"):
        _hex32(fields[name], f"{field}.{name}")
    if not all(map(is_text, [fields["institution"], fields["purpose"], *_list(fields["attributes"], field)])):
        raise MalformedError(f"{field}: expected text", field=field)
    return AccessEntry.from_json(dict(fields))


def _place(value: object, field: str) -> EntryPlace:
    fields = _object(value, _PLACE, field)
    return EntryPlace(
        custodian=_address(fields["custodian"], field),
        writer=_address(fields["writer"], field),
        transaction_hash=_hex32(fields["transactionHash"], field),
        block_number=_number(fields["blockNumber"], field),
        log_index=_number(fields["logIndex"], field),
    )


def _request(value: object, field: str) -> SignedRequest:
    request = SignedRequest.from_json(_object(value, _REQUEST, field))
    # Written in one way only, so that what was altered in writing is not read as if it had not been.
    if request.as_json() != value:
        raise MalformedError(f"{field}: expected a signed request", field=field)
    return request


def _object(value: object, members: frozenset[str], field: str) -> Mapping[str, Any]:
    fields = _mapping(value, field)
    if set(fields) != members:
        odd = ", ".join(sorted(set(fields) ^ members))
        raise MalformedError(f"{field}: expected exactly its members; missing or too many: {odd}", field=field)
    return fields


def _mapping(value: object, field: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise MalformedError(f"{field}: expected an object", field=field)
    return value


def _list(value: object, field: str) -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        raise MalformedError(f"{field}: expected a list", field=field)
    return value


def _hex32(value: object, field: str) -> Hex32:
    found = parse_hex32(value, field)
    if found != value:
        raise MalformedError(f"{field}: expected lower-case digits", field=field)
    return found


def _address(value: object, field: str) -> Address:
    found = parse_address(value, field)
    if found != value:
        raise MalformedError(f"{field}: expected an account with its checksum", field=field)
    return found


def _number(value: object, field: str) -> int:
    if type(value) is not int or not 0 <= value < _MOST:
        raise MalformedError(f"{field}: expected a whole number", field=field)
    return value


def _text_or_none(value: object, field: str) -> str | None:
    if value is not None and not (is_text(value) and value):
        raise MalformedError(f"{field}: expected text or null", field=field)
    return value


def _bytes(value: object, field: str) -> bytes:
    if is_text(value) and _BYTES.fullmatch(value):
        return bytes.fromhex(value[2:])
    raise MalformedError(f"{field}: expected 0x and hex digits", field=field)
