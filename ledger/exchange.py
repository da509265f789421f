"""What goes between an institution and the custodian: a signed request in; a sealed answer and a receipt out. Pure.

- Request: an HTTP request, signed (`signatures.py`): consent, purpose, attributes and idempotency key.
- Answer: JWE (ECDH-ES+A256KW, A256GCM) around a JWT that the custodian signed (`cty: JWT`), so that only the
  institution reads it and it can show later what it was told.
- Receipt: a JWT of its own, without the values, that opens the entry on the log.

RFC 7515, 7516, 7518, 7519, 9421. Any stack opens these with stock libraries; the tests do it with Node's `jose`.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from joserfc import jwe, jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet, OKPKey

from ledger.access import AccessEntry, ChainProof
from ledger.consent import AccessRequest, Hex32, is_text, parse_hex32
from ledger.errors import AuditError, MalformedError
from ledger.signatures import IDEMPOTENCY_KEY, JWK, SIGNING_CURVES, HttpRequest, SignedRequest, sign_request

SEALING: Final = {"alg": "ECDH-ES+A256KW", "enc": "A256GCM"}
ANSWER_TYPE: Final = "answer+jwt"
RECEIPT_TYPE: Final = "access-receipt+jwt"
MAX_KEY_LENGTH: Final = 200
MAX_KID_LENGTH: Final = 150
MAX_NAME_LENGTH: Final = 100
MAX_ATTRIBUTES: Final = 100
RETIRED_AT: Final = "exp"
"""In a party's JWK set: Unix seconds after which a key counts no more. Until then it and its successor both do."""
_IDEMPOTENCY_KEY: Final = re.compile(rf"[!-~]{{1,{MAX_KEY_LENGTH}}}\Z")
_KID: Final = re.compile(rf"[!$-\[\]-~]{{1,{MAX_KID_LENGTH}}}")
RELEASE_PATH: Final = re.compile(r"[^?#]*/v1/consents/(0x[0-9a-f]{64})/releases")
_COMPACT: Final = json.JSONEncoder(separators=(",", ":"))
_CLAIMS: Final = json.JSONEncoder(ensure_ascii=False)
_ES256: Final = ECDSA(SHA256())
# What joserfc and json raise at input that was made up: a header's odd types get through to the libraries below them.
_UNREADABLE: Final = (JoseError, ValueError, KeyError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """A registered institution or furnisher. `jwks`: public keys, `use: sig` to ask, `use: enc` to be answered.

    `version` counts the changes of what is registered, so that what was read earlier can be told from what holds now.
    """

    party_id: str
    name: str
    jwks: Mapping[str, Any]
    suspended: bool = False
    version: int = 1
    keys: tuple[JWK, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "keys", tuple(_keys_of(self.jwks)))

    def key(self, use: str, *, now: int, kid: str | None = None) -> JWK:
        """A key of that use (and id) that is not retired, the newest first. Raises `MalformedError`."""
        for key in self.keys:
            if key.get("use") == use and kid in (None, key.kid) and _retires_at(key, now + 1) > now:
                return key
        raise MalformedError(f"jwks: expected a current key with use {use!r}", field="jwks")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseRequest:
    """An authenticated request: what is asked, and the key that makes a retry the same request."""

    access: AccessRequest
    idempotency_key: str
    evidence: SignedRequest

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


def new_furnisher_keys() -> KeySet:
    """A fresh key of a furnisher, private part included: it signs, and is sealed nothing."""
    return KeySet([ECKey.generate_key("P-256", {"use": "sig", "alg": "ES256"}, auto_kid=True)])


def key_for(jwks: Mapping[str, Any], use: str, kid: str | None = None) -> JWK:
    """The first key of that use (and id). Raises `MalformedError`."""
    for key in _keys_of(jwks):
        if key.get("use") == use and kid in (None, key.kid):
            return key
    raise MalformedError(f"jwks: expected a key with use {use!r} of a kind that is supported here", field="jwks")


def _keys_of(jwks: Mapping[str, Any]) -> list[JWK]:
    try:
        keys = KeySet.import_key_set(dict(jwks)).keys  # type: ignore[arg-type]
        return [key for key in keys if isinstance(key, ECKey | OKPKey)]
    except (JoseError, ValueError, TypeError, KeyError) as exc:
        raise MalformedError("jwks: expected a JWK set", field="jwks") from exc


def check_jwks(jwks: object, uses: Sequence[str] = ("sig", "enc")) -> dict[str, Any]:
    """The public part of a party's key set; it must have a key for each of `uses`, and no two of one `kid`.

    Keys that can be used for nothing here are left out; one without a `kid` gets its thumbprint (RFC 7638). When a key
    retires is for a rotation to say: of a set that retires by itself, an access would be logged that nothing answers.
    Raises `MalformedError`.
    """
    if not isinstance(jwks, Mapping):
        raise MalformedError("jwks: expected a JWK set", field="jwks")
    usable = [key for key in _keys_of(jwks) if _is_usable(key)]
    for key in usable:
        key.ensure_kid()
        if not _KID.fullmatch(str(key.kid)):
            # It stands in a signature's `keyid`, after the party and a #.
            raise MalformedError(
                f"jwks: expected each kid of 1 to {MAX_KID_LENGTH} visible ASCII characters, no quote, backslash or #",
                field="jwks",
            )
        if RETIRED_AT in key.as_dict(private=False):
            raise MalformedError(f"jwks: expected keys without {RETIRED_AT!r}, which a rotation sets", field="jwks")
    if len({key.kid for key in usable}) != len(usable):
        raise MalformedError("jwks: expected each kid once", field="jwks")
    public = {"keys": [key.as_dict(private=False) for key in usable]}
    for use in uses:
        key_for(public, use)
    return public


def _retires_at(key: JWK, otherwise: int) -> int:
    at: Any = key.as_dict(private=False).get(RETIRED_AT, otherwise)
    return int(at)


def rotated_jwks(old: Mapping[str, Any], new: Mapping[str, Any], *, now: int, overlap_seconds: int) -> dict[str, Any]:
    """The new keys first; the old ones count for the overlap, those that retired already no more.

    Raises `MalformedError` if one is called as another key was: what that one signed would be held against it.
    """
    known = {key["kid"]: _material(key) for key in old["keys"]}
    if any(known.get(key["kid"], _material(key)) != _material(key) for key in new["keys"]):
        raise MalformedError("jwks: expected another kid for another key", field="jwks")
    kids = {key["kid"] for key in new["keys"]}
    until = now + overlap_seconds
    kept = [
        key | {RETIRED_AT: min(until, key.get(RETIRED_AT, until))}
        for key in old["keys"]
        if key["kid"] not in kids and min(until, key.get(RETIRED_AT, until)) > now
    ]
    return {"keys": [*new["keys"], *kept]}


def _material(key: Mapping[str, Any]) -> list[Any]:
    return [key.get(name) for name in ("kty", "crv", "x", "y")]


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


def sign_release(
    *,
    service_url: str,
    institution: str,
    consent_id: Hex32,
    purpose: str,
    attributes: Sequence[str],
    idempotency_key: str,
    signing_key: JWK,
    at: int,
    nonce: str,
) -> HttpRequest:
    """`POST /v1/consents/{id}/releases`, signed by the institution. `at` is Unix seconds."""
    request = HttpRequest(
        method="POST",
        url=f"{service_url}/v1/consents/{consent_id}/releases",
        headers={"Content-Type": "application/json", "Idempotency-Key": idempotency_key},
        body=json.dumps({"purpose": purpose, "attributes": list(attributes)}).encode(),
    )
    return sign_request(request, party_id=institution, key=signing_key, at=at, nonce=nonce)


def read_release(message: HttpRequest, evidence: SignedRequest, institution: str) -> ReleaseRequest:
    """What an authenticated `POST /v1/consents/{id}/releases` asks for. Raises `MalformedError` naming the field."""
    found = RELEASE_PATH.fullmatch(message.url)
    if message.method != "POST" or found is None:
        raise MalformedError("request: expected POST /v1/consents/{id}/releases", field="request")
    try:
        body = json.loads(message.body)
    except (ValueError, RecursionError) as exc:
        raise MalformedError("body: expected a JSON object", field="body") from exc
    if not isinstance(body, dict):
        raise MalformedError("body: expected a JSON object", field="body")
    return release_request(
        evidence,
        institution,
        consent_id=parse_hex32(found[1], "consent"),
        purpose=body.get("purpose"),
        attributes=body.get("attributes"),
        idempotency_key=message.header(IDEMPOTENCY_KEY),
    )


def release_request(
    evidence: SignedRequest,
    institution: str,
    *,
    consent_id: Hex32,
    purpose: object,
    attributes: object,
    idempotency_key: object,
) -> ReleaseRequest:
    """One release of an authenticated request, its fields checked. Raises `MalformedError` naming the field."""
    if not is_text(purpose) or len(purpose) > MAX_NAME_LENGTH:
        raise MalformedError("purpose: expected a purpose's code", field="purpose")
    if not isinstance(attributes, list | tuple) or not 1 <= len(attributes) <= MAX_ATTRIBUTES:
        raise MalformedError(f"attributes: expected a list of 1 to {MAX_ATTRIBUTES} names", field="attributes")
    if not all(is_text(name) and len(name) <= MAX_NAME_LENGTH for name in attributes):
        raise MalformedError("attributes: expected a list of names", field="attributes")
    if not isinstance(idempotency_key, str) or not _IDEMPOTENCY_KEY.match(idempotency_key):
        raise MalformedError(
            f"idempotency-key: expected 1 to {MAX_KEY_LENGTH} printable ASCII characters without blanks",
            field="idempotency-key",
        )
    return ReleaseRequest(
        access=AccessRequest(
            consent_id=consent_id,
            institution=institution,
            purpose=purpose,
            attributes=tuple(attributes),
            request_hash=evidence.digest(),
        ),
        idempotency_key=idempotency_key,
        evidence=evidence,
    )


def _algorithm(key: JWK) -> str:
    return "ES256" if isinstance(key, ECKey) else "Ed25519"


# ------------------------------------------------------------------------------------------------- answer and receipt


def sign_claims(claims: Mapping[str, Any], signing_key: ECKey, typ: str) -> str:
    """A JWT by the custodian, whose key is P-256.

    Two for each release: put together here, as a general serializer looks around for as long as it takes to sign.
    """
    header = _COMPACT.encode({"alg": "ES256", "kid": signing_key.kid, "typ": typ})
    signed = _base64url(header.encode()) + b"." + _base64url(_CLAIMS.encode(claims).encode())
    r, s = decode_dss_signature(signing_key.get_op_key("sign").sign(signed, _ES256))
    return (signed + b"." + _base64url(r.to_bytes(32) + s.to_bytes(32))).decode()


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def signature_of(token: str) -> bytes:
    """The signature of a compact JWS."""
    return token.rpartition(".")[2].encode()


def resigned_claims(claims: Mapping[str, Any], signing_key: ECKey, typ: str, signature: bytes) -> str:
    """The token of which this is the signature, to the byte; a new one if these are not the claims it was made of."""
    fresh = sign_claims(claims, signing_key, typ)
    same = f"{fresh.rpartition('.')[0]}.{signature.decode()}"
    try:
        verify_claims(same, signing_key, typ)
    except AuditError:
        return fresh
    return same


def seal_answer(claims: Mapping[str, Any], signing_key: ECKey, institution_key: JWK) -> bytes:
    """Sign, then encrypt to the institution."""
    header = {**SEALING, "cty": "JWT", "kid": institution_key.kid}
    signed = sign_claims(claims, signing_key, ANSWER_TYPE)
    return jwe.encrypt_compact(header, signed, institution_key, algorithms=list(SEALING.values())).encode()


def open_answer(sealed: bytes, institution_key: JWK, custodian_key: ECKey) -> dict[str, Any]:
    """The institution's side: decrypt, then verify the custodian's signature. Raises `AuditError`."""
    try:
        signed = jwe.decrypt_compact(sealed, institution_key, algorithms=list(SEALING.values())).plaintext
    except _UNREADABLE as exc:
        raise AuditError("the answer does not open with this key") from exc
    return verify_claims(signed or b"", custodian_key, ANSWER_TYPE)


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


def receipt_claims(
    entry: AccessEntry, entry_hash: Hex32, proof: ChainProof, *, at: int, late: bool = False
) -> dict[str, Any]:
    """What an AccessReceipt says: the opening of the entry, and where the entry stands."""
    return {
        "version": 1,
        "iss": proof.custodian,
        "aud": entry.institution,
        "iat": at,
        "entry": entry.as_json(),
        "entryHash": entry_hash,
        "proof": proof.as_json(),
        "late": late,
    }
