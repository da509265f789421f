"""What a person signs (EIP-712), how a consent is identified by it, and who signed. Pure.

- A consent is immutable. Its id is the EIP-712 digest of the signed grant, so it belongs to one chain and contract.
- The signed formats (domain `ConsentLedger` / `1`) are versioned by that domain: a field that is added, removed,
  renamed or reordered makes a new version, and `tests/vectors/eip712.json` holds known answers of this one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from eth_account import Account
from eth_account.messages import SignableMessage, encode_typed_data
from eth_keys.datatypes import Signature
from eth_keys.exceptions import BadSignature
from eth_utils import ValidationError, keccak

from ledger.consent import (
    Address,
    ConsentGrant,
    Domain,
    Hex32,
    OuterGrant,
    Terms,
    hex32_of,
    is_text,
    parse_address,
    parse_hex32,
)
from ledger.errors import InvalidSignatureError, MalformedError

SIGNATURE_LENGTH: Final = 65
# secp256k1's group order, halved: a signature has one valid form, the low one (EIP-2).
HALF_ORDER: Final = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0

TYPES: Final[dict[str, list[dict[str, str]]]] = {
    "ConsentGrant": [
        {"name": "terms", "type": "Terms"},
        {"name": "subject", "type": "address"},
        {"name": "custodian", "type": "address"},
        {"name": "validFrom", "type": "uint64"},
        {"name": "expiresAt", "type": "uint64"},
        {"name": "maxAccesses", "type": "uint32"},
    ],
    "Terms": [
        {"name": "institution", "type": "string"},
        {"name": "institutionName", "type": "string"},
        {"name": "purpose", "type": "string"},
        {"name": "attributes", "type": "string[]"},
        {"name": "accessesPerDay", "type": "uint32"},
        {"name": "retentionDays", "type": "uint32"},
        {"name": "noticeHash", "type": "bytes32"},
        {"name": "replaces", "type": "bytes32"},
        {"name": "salt", "type": "bytes32"},
    ],
    "ConsentRevocation": [{"name": "consentIds", "type": "bytes32[]"}],
    "ConsentPause": [
        {"name": "consentId", "type": "bytes32"},
        {"name": "paused", "type": "bool"},
        {"name": "sequence", "type": "uint32"},
    ],
}
_DOMAIN_TYPE: Final = [
    {"name": "name", "type": "string"},
    {"name": "version", "type": "string"},
    {"name": "chainId", "type": "uint256"},
    {"name": "verifyingContract", "type": "address"},
]


# ------------------------------------------------------------------------------------------------ typed data and hashes


def typed_data(domain: Domain, primary_type: str, message: Mapping[str, Any]) -> dict[str, Any]:
    """The full EIP-712 JSON, as `eth_signTypedData_v4` takes it."""
    names = ["ConsentGrant", "Terms"] if primary_type == "ConsentGrant" else [primary_type]
    return {
        "types": {"EIP712Domain": _DOMAIN_TYPE, **{name: TYPES[name] for name in names}},
        "primaryType": primary_type,
        "domain": domain.as_json(),
        "message": dict(message),
    }


def grant_typed_data(grant: ConsentGrant, domain: Domain) -> dict[str, Any]:
    """What the subject's wallet shows and signs to grant."""
    return typed_data(domain, "ConsentGrant", grant.as_json())


def revocation_typed_data(consent_ids: Sequence[Hex32], domain: Domain) -> dict[str, Any]:
    """What the subject's wallet shows and signs to revoke, in this order."""
    return typed_data(domain, "ConsentRevocation", {"consentIds": list(consent_ids)})


def pause_typed_data(consent_id: Hex32, *, paused: bool, sequence: int, domain: Domain) -> dict[str, Any]:
    """What the subject's wallet shows and signs to pause or resume. `sequence` must grow with each."""
    return typed_data(domain, "ConsentPause", {"consentId": consent_id, "paused": paused, "sequence": sequence})


def digest_of(payload: Mapping[str, Any]) -> Hex32:
    """The EIP-712 digest of typed data: what the signature is over."""
    return _digest(encode_typed_data(full_message=dict(payload)))


def consent_id_of(grant: ConsentGrant, domain: Domain) -> Hex32:
    """The id of a consent: the digest of its grant."""
    return digest_of(grant_typed_data(grant, domain))


def terms_hash(terms: Terms) -> Hex32:
    """`hashStruct(Terms)`: all that the chain learns of the terms."""
    message = encode_typed_data(
        full_message={
            "types": {"EIP712Domain": [], "Terms": TYPES["Terms"]},
            "primaryType": "Terms",
            "domain": {},
            "message": terms.as_json(),
        }
    )
    return hex32_of(message.body)


def outer_of(grant: ConsentGrant) -> OuterGrant:
    """The fields that the contract sees."""
    return OuterGrant(
        terms_hash=terms_hash(grant.terms),
        subject=grant.subject,
        custodian=grant.custodian,
        valid_from=grant.valid_from,
        expires_at=grant.expires_at,
        max_accesses=grant.max_accesses,
    )


def _digest(message: SignableMessage) -> Hex32:
    return hex32_of(keccak(b"\x19" + message.version + message.header + message.body))


# --------------------------------------------------------------------------------------------------------- signatures


def sign_typed_data(payload: Mapping[str, Any], private_key: bytes) -> bytes:
    """Sign with a local key (scripts, the demo). People sign with their wallet or passkey."""
    return bytes(Account.sign_typed_data(private_key, full_message=dict(payload)).signature)


def require_signer(digest: Hex32, signature: bytes, subject: Address) -> None:
    """Check an ECDSA signature over `digest`. Smart accounts (ERC-1271) can only be asked on chain.

    Raises `InvalidSignatureError`.
    """
    refused = InvalidSignatureError("signature: not the subject's over exactly this", field="signature")
    if len(signature) != SIGNATURE_LENGTH or signature[64] not in (27, 28):
        raise refused
    if not 1 <= int.from_bytes(signature[32:64]) <= HALF_ORDER:
        raise refused
    try:
        # Ethereum writes the recovery id as 27 or 28, the library as 0 or 1.
        recoverable = Signature(signature[:64] + bytes([signature[64] - 27]))
        signer = recoverable.recover_public_key_from_msg_hash(bytes.fromhex(digest[2:]))
    except (BadSignature, ValidationError) as exc:
        raise refused from exc
    if Address(signer.to_checksum_address()) != subject:
        raise refused


# ------------------------------------------------------------------------------------------------------------- parsing


def parse_grant(message: object) -> ConsentGrant:
    """Read the `message` of a grant's typed data, as a wallet or the API hands it in.

    Raises `MalformedError` naming the field; nothing is ignored and nothing is guessed.
    """
    outer = _parse_struct(message, "ConsentGrant", "")
    return stored_grant(outer | {"terms": _parse_struct(outer["terms"], "Terms", "terms.")})


def stored_grant(opening: Mapping[str, Any]) -> ConsentGrant:
    """The inverse of `ConsentGrant.as_json`, for openings that this service stored itself: nothing is checked again."""
    terms = opening["terms"]
    return ConsentGrant(
        terms=Terms(
            institution=terms["institution"],
            institution_name=terms["institutionName"],
            purpose=terms["purpose"],
            attributes=tuple(terms["attributes"]),
            accesses_per_day=terms["accessesPerDay"],
            retention_days=terms["retentionDays"],
            notice_hash=terms["noticeHash"],
            replaces=terms["replaces"],
            salt=terms["salt"],
        ),
        subject=opening["subject"],
        custodian=opening["custodian"],
        valid_from=opening["validFrom"],
        expires_at=opening["expiresAt"],
        max_accesses=opening["maxAccesses"],
    )


def _parse_struct(value: object, type_name: str, prefix: str) -> dict[str, Any]:
    fields = {member["name"]: member["type"] for member in TYPES[type_name]}
    if not isinstance(value, Mapping):
        where = prefix.rstrip(".") or "grant"
        raise MalformedError(f"{where}: expected an object", field=where)
    for name in value:
        if name not in fields:
            raise MalformedError(f"{prefix}{name}: not a field of {type_name}", field=f"{prefix}{name}")
    return {name: _parse_member(value.get(name), kind, prefix + name) for name, kind in fields.items()}


def _parse_member(value: object, kind: str, field: str) -> object:
    match kind:
        case "Terms":
            return value
        case "address":
            return parse_address(value, field)
        case "bytes32":
            return parse_hex32(value, field)
        case "uint64" | "uint32":
            # bool is an int in Python; 1.0 is not a count.
            if type(value) is int and 0 <= value < 2 ** int(kind[4:]):
                return value
            raise MalformedError(f"{field}: expected a whole number, {kind}", field=field)
        case "string[]":
            if isinstance(value, list | tuple) and all(is_text(item) and item for item in value):
                return list(value)
            raise MalformedError(f"{field}: expected a list of names", field=field)
        case _:
            if is_text(value):
                return value
            raise MalformedError(f"{field}: expected text", field=field)
