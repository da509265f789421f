"""What goes between an institution and the custodian: a signed request in; a sealed answer and a receipt out. Pure.

- Request: JWS (ES256 or EdDSA) over the consent, the purpose, the attributes and the idempotency key.
- Answer: JWE (ECDH-ES+A256KW, A256GCM) around a JWT that the custodian signed (`cty: JWT`), so that only the
  institution reads it and it can show later what it was told.
- Receipt: a JWT of its own, without the values, that opens the entry on the log.

RFC 7515, 7516, 7518, 7519. Any stack opens these with stock libraries; the tests do it with Node's `jose`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from joserfc import jwe, jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet, OKPKey

from ledger.access import AccessEntry, ChainProof, entry_hash_of
from ledger.consent import AccessRequest, Hex32, hex32_of, is_text, parse_hex32
from ledger.errors import AuditError, AuthenticationError, MalformedError, StaleRequestError

JWK = ECKey | OKPKey
SIGNING_ALGORITHMS: Final = ["ES256", "Ed25519"]
SIGNING_CURVES: Final = ("P-256", "Ed25519")
SEALING: Final = {"alg": "ECDH-ES+A256KW", "enc": "A256GCM"}
REQUEST_TYPE: Final = "release-request+jwt"
FRESH_SECONDS: Final = 300
MAX_KEY_LENGTH: Final = 200
# What joserfc and json raise at input that was made up: a header's odd types get through to the libraries below them.
_UNREADABLE: Final = (JoseError, ValueError, KeyError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Institution:
    """A registered lender. `jwks` holds its public keys: `use: sig` to ask, `use: enc` to be answered."""

    institution_id: str
    name: str
    jwks: Mapping[str, Any]
    suspended: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseRequest:
    """An authenticated request: what is asked, and the key that makes a retry the same request."""

    access: AccessRequest
    idempotency_key: str
    signed: bytes

    def content_digest(self) -> str:
        """Tells whether a retry asks for the same thing; the time of signing does not count."""
        access = self.access
        content = [access.institution, access.consent_id, access.purpose, list(access.attributes)]
        return sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()


# ------------------------------------------------------------------------------------------------------------- request


def new_institution_keys() -> KeySet:
    """Fresh keys of an institution, private parts included: one to sign, one to be sealed to."""
    return KeySet(
        [
            ECKey.generate_key("P-256", {"use": "sig", "alg": "ES256"}, auto_kid=True),
            ECKey.generate_key("P-256", {"use": "enc", "alg": SEALING["alg"]}, auto_kid=True),
        ]
    )


def key_for(jwks: Mapping[str, Any], use: str, kid: str | None = None) -> JWK:
    """The first key of that use (and id). Raises `MalformedError`."""
    for key in _keys_of(jwks):
        if key.get("use") == use and kid in (None, key.kid) and isinstance(key, ECKey | OKPKey):
            return key
    raise MalformedError(f"jwks: expected a key with use {use!r} of a kind that is supported here", field="jwks")


def _keys_of(jwks: Mapping[str, Any]) -> list[Any]:
    try:
        return list(KeySet.import_key_set(dict(jwks)).keys)  # type: ignore[arg-type]
    except (JoseError, ValueError, TypeError, KeyError) as exc:
        raise MalformedError("jwks: expected a JWK set", field="jwks") from exc


def check_jwks(jwks: object) -> dict[str, Any]:
    """The public part of an institution's key set; it must be able to ask and to be answered.

    Keys that can do neither are left out. Raises `MalformedError`.
    """
    if not isinstance(jwks, Mapping):
        raise MalformedError("jwks: expected a JWK set", field="jwks")
    public = {"keys": [key.as_dict(private=False) for key in _keys_of(jwks) if _is_usable(key)]}
    key_for(public, "sig")
    key_for(public, "enc")
    return public


def _is_usable(key: object) -> bool:
    if not isinstance(key, ECKey | OKPKey):
        return False
    if key.get("use") == "sig":
        return key.curve_name in SIGNING_CURVES and key.get("alg") in (None, _algorithm(key))
    # Tried, because an answer that cannot be sealed would show only after its access is on the log.
    try:
        jwe.encrypt_compact(dict(SEALING), b"", key, algorithms=list(SEALING.values()))
    except (JoseError, ValueError):
        return False
    return key.get("use") == "enc"


def sign_request(
    *,
    institution: str,
    custodian: str,
    consent_id: Hex32,
    purpose: str,
    attributes: tuple[str, ...],
    idempotency_key: str,
    signing_key: JWK,
    at: int,
) -> bytes:
    """An institution's request, signed. `at` is Unix seconds."""
    payload = {
        "iss": institution,
        "aud": custodian,
        "iat": at,
        "consent": consent_id,
        "purpose": purpose,
        "attributes": list(attributes),
        "key": idempotency_key,
    }
    header = {"alg": _algorithm(signing_key), "kid": signing_key.kid, "typ": REQUEST_TYPE}
    return jws.serialize_compact(header, json.dumps(payload), signing_key, algorithms=SIGNING_ALGORITHMS).encode()


def claimed_institution(signed: bytes) -> str:
    """Who a request says it is from, unverified: only to find the keys to verify it with. Raises `MalformedError`."""
    try:
        claims = json.loads(jws.extract_compact(signed).payload)
        issuer = claims["iss"]
    except _UNREADABLE as exc:
        raise MalformedError("request: expected a signed request (compact JWS)", field="request") from exc
    if not isinstance(issuer, str):
        raise MalformedError("request.iss: expected text", field="request.iss")
    return issuer


def read_request(signed: bytes, institution: Institution, *, custodian: str, now: int) -> ReleaseRequest:
    """Authenticate a request and read it.

    Raises `AuthenticationError` (unknown key, wrong algorithm, altered), `StaleRequestError`, `MalformedError`.
    """
    try:
        header = jws.extract_compact(signed).headers()
        key = key_for(institution.jwks, "sig", header.get("kid"))
        claims = json.loads(jws.deserialize_compact(signed, key, algorithms=[_algorithm(key)]).payload)
    except (*_UNREADABLE, MalformedError) as exc:
        raise AuthenticationError("request: not signed by a current key of the institution", field="request") from exc
    if header.get("typ") != REQUEST_TYPE:
        # The same key signs other things for the institution, some of them for this custodian.
        raise AuthenticationError(f"request: expected the type {REQUEST_TYPE}", field="request")
    parties = (institution.institution_id, custodian)
    if not isinstance(claims, dict) or (claims.get("iss"), claims.get("aud")) != parties:
        raise AuthenticationError("request.aud: expected this custodian's id", field="request.aud")
    if type(claims.get("iat")) is not int or abs(now - claims["iat"]) > FRESH_SECONDS:
        raise StaleRequestError(f"request.iat: expected within {FRESH_SECONDS} s of now", field="request.iat")
    attributes, key_text = claims.get("attributes"), claims.get("key")
    if not isinstance(attributes, list) or not all(is_text(name) for name in attributes):
        raise MalformedError("request.attributes: expected a list of names", field="request.attributes")
    if not is_text(key_text) or not 1 <= len(key_text) <= MAX_KEY_LENGTH:
        raise MalformedError(f"request.key: expected 1 to {MAX_KEY_LENGTH} characters", field="request.key")
    if not is_text(claims.get("purpose")):
        raise MalformedError("request.purpose: expected text", field="request.purpose")
    return ReleaseRequest(
        access=AccessRequest(
            consent_id=parse_hex32(claims.get("consent"), "request.consent"),
            institution=institution.institution_id,
            purpose=claims["purpose"],
            attributes=tuple(attributes),
            request_hash=hex32_of(sha256(signed).digest()),
        ),
        idempotency_key=key_text,
        signed=signed,
    )


def _algorithm(key: JWK) -> str:
    return "ES256" if isinstance(key, ECKey) else "Ed25519"


# ------------------------------------------------------------------------------------------------- answer and receipt


def sign_claims(claims: Mapping[str, Any], signing_key: ECKey, typ: str) -> str:
    """A JWT by the custodian."""
    header = {"alg": "ES256", "kid": signing_key.kid, "typ": typ}
    return jws.serialize_compact(header, json.dumps(claims, ensure_ascii=False), signing_key, algorithms=["ES256"])


def seal_answer(claims: Mapping[str, Any], signing_key: ECKey, institution_key: JWK) -> bytes:
    """Sign, then encrypt to the institution."""
    header = {**SEALING, "cty": "JWT", "kid": institution_key.kid}
    signed = sign_claims(claims, signing_key, "answer+jwt")
    return jwe.encrypt_compact(header, signed, institution_key, algorithms=list(SEALING.values())).encode()


def open_answer(sealed: bytes, institution_key: JWK, custodian_key: ECKey) -> dict[str, Any]:
    """The institution's side: decrypt, then verify the custodian's signature. Raises `AuditError`."""
    try:
        signed = jwe.decrypt_compact(sealed, institution_key, algorithms=list(SEALING.values())).plaintext
    except _UNREADABLE as exc:
        raise AuditError("the answer does not open with this key") from exc
    return verify_claims(signed or b"", custodian_key, "answer+jwt")


def verify_claims(signed: bytes | str, custodian_key: ECKey, typ: str) -> dict[str, Any]:
    """Claims that the custodian signed, as the given type. Raises `AuditError`."""
    try:
        token = jws.deserialize_compact(signed, custodian_key, algorithms=["ES256"])
        claims = json.loads(token.payload)
    except _UNREADABLE as exc:
        raise AuditError(f"not signed by the custodian: expected a {typ}") from exc
    if token.headers().get("typ") != typ or not isinstance(claims, dict):
        raise AuditError(f"signed by the custodian, but not a {typ}")
    return claims


def receipt_claims(entry: AccessEntry, proof: ChainProof, *, at: int, late: bool = False) -> dict[str, Any]:
    """What an AccessReceipt says: the opening of the entry, and where the entry stands."""
    return {
        "version": 1,
        "iss": proof.custodian,
        "aud": entry.institution,
        "iat": at,
        "entry": entry.as_json(),
        "entryHash": entry_hash_of(entry),
        "proof": proof.as_json(),
        "late": late,
    }
