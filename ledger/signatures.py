"""HTTP Message Signatures (RFC 9421) with Content-Digest (RFC 9530): authentication that is evidence. Pure.

What an institution signed can be shown to anyone later: the signature base names method, target, body digest, time,
nonce and key. `SignedRequest` keeps base, signature and body; its `digest` is the `requestHash` of the access log.

A request's signature must cover `@method`, `@target-uri`, `content-digest` (if there is a body) and `idempotency-key`
(if there is one), and carry `created`, `nonce` and `keyid`. `keyid` is `<party>#<kid>`: the party's id, and the key's
id in its JWK set. Keys are Ed25519 or P-256; the key decides the algorithm, whatever `alg` says.

A response is signed by the custodian over `@status`, `content-digest` and, of its request, `@target-uri` and
`signature`: what was answered, and to which request.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final, NamedTuple

from http_message_signatures import (
    HTTPMessageSigner,
    HTTPMessageVerifier,
    HTTPSignatureAlgorithm,
    HTTPSignatureKeyResolver,
    VerifyResult,
    algorithms,
)
from http_message_signatures.exceptions import HTTPMessageSignaturesException
from joserfc.jwk import ECKey, OKPKey

from ledger.consent import Hex32, hex32_of
from ledger.errors import AuditError, AuthenticationError, MalformedError, StaleRequestError

JWK = ECKey | OKPKey
SIGNING_CURVES: Final = ("P-256", "Ed25519")
FRESH_SECONDS: Final = 300
LABEL: Final = "sig"
MAX_NONCE_LENGTH: Final = 200
MIN_NONCE_LENGTH: Final = 16
IDEMPOTENCY_KEY: Final = "idempotency-key"
_REQUEST_PARTS: Final = ("@method", "@target-uri")
_RESPONSE_PARTS: Final = ("@status", '"@target-uri";req', '"signature";req')
_SIGNED: Final = ("signature-input", "signature")
_PARAMETERS: Final = '"@signature-params"'
# Finds the key to verify with; the verified value is compared with it afterwards.
_KEYID: Final = re.compile(r';keyid="([^"\\]{1,400})"')
_BASE64: Final = r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"
_SIGNATURE: Final = re.compile(rf"[a-z*][a-z0-9_.*-]*=:({_BASE64}):")


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest:
    """A request as it goes over the wire. `url` is absolute, and the one that the service calls itself by."""

    method: str
    url: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    def header(self, name: str) -> str | None:
        """A header by its name, whatever its case, as it is signed: trimmed, and several of one name joined."""
        values = [value.strip(" \t") for key, value in self.headers.items() if key.lower() == name.lower()]
        return ", ".join(values) if values else None


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpResponse:
    """A response together with its request."""

    status_code: int
    headers: dict[str, str]
    body: bytes
    request: HttpRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedRequest:
    """A request that was verified: exactly what was signed, and enough to show it to a third party."""

    keyid: str
    created: int
    nonce: str
    base: bytes
    signature: bytes
    body: bytes

    def digest(self) -> Hex32:
        """SHA-256 of the signature base: the `requestHash` of an access entry. The signer knows it beforehand."""
        return hex32_of(sha256(self.base).digest())

    def as_json(self) -> dict[str, Any]:
        """The evidence, as it is kept (sealed) and handed to auditors."""
        return {
            "version": 1,
            "keyid": self.keyid,
            "created": self.created,
            "nonce": self.nonce,
            "base": self.base.decode(),
            "signature": base64.b64encode(self.signature).decode(),
            "body": base64.b64encode(self.body).decode(),
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> SignedRequest:
        """The inverse of `as_json`. Raises `MalformedError`."""
        try:
            return cls(
                keyid=str(fields["keyid"]),
                created=int(fields["created"]),
                nonce=str(fields["nonce"]),
                base=str(fields["base"]).encode(),
                signature=base64.b64decode(fields["signature"], validate=True),
                body=base64.b64decode(fields["body"], validate=True),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as exc:
            raise MalformedError("evidence: expected a signed request", field="evidence") from exc


# ------------------------------------------------------------------------------------------------------------- keys


def algorithm_of(key: JWK) -> type[HTTPSignatureAlgorithm]:
    """The one algorithm that a key signs with. Raises `MalformedError` for a key of another kind."""
    if isinstance(key, ECKey) and key.curve_name == "P-256":
        return algorithms.ECDSA_P256_SHA256
    if isinstance(key, OKPKey) and key.curve_name == "Ed25519":
        return algorithms.ED25519
    raise MalformedError("key: expected Ed25519 or P-256", field="key")


def keyid_of(party_id: str, key: JWK) -> str:
    """`<party>#<kid>`."""
    return f"{party_id}#{key.kid}"


def split_keyid(keyid: str) -> tuple[str, str]:
    """The party and the key's id. Raises `AuthenticationError`."""
    party_id, separator, kid = keyid.rpartition("#")
    if not separator or not party_id or not kid:
        raise AuthenticationError('signature-input: expected keyid="<party>#<kid>"', field="signature-input")
    return party_id, kid


class _OneKey(HTTPSignatureKeyResolver):
    """Knows the one key that a message is verified with."""

    def __init__(self, keyid: str, key: JWK) -> None:
        self._keyid, self._key = keyid, key

    def resolve_public_key(self, key_id: str) -> Any:  # noqa: ANN401 - a key of the cryptography package
        # The header may name several, and only one of them was looked for.
        return self._key.public_key if key_id == self._keyid else None


class _Verifier(HTTPMessageVerifier):
    """The library's, without its clock: whether a request is fresh is judged by the service's own."""

    def validate_created_and_expires(self, sig_input: Any, max_age: Any = None) -> None:  # noqa: ANN401
        """`verify_request` does it."""


# ---------------------------------------------------------------------------------------------------------- requests


def sign_request(request: HttpRequest, *, party_id: str, key: JWK, at: int, nonce: str) -> HttpRequest:
    """The request with its digest and signature added. `at` is Unix seconds; a nonce is good for one request.

    Raises `MalformedError` if the target or a header holds what cannot stand in a signature base.
    """
    unsigned = {name: value for name, value in request.headers.items() if name.lower() not in _SIGNED}
    signed = replace(request, headers=unsigned)
    _sign(signed, party_id, key, at, _parts_of(request), body=request.body or None, nonce=nonce)
    return signed


def _parts_of(request: HttpRequest) -> list[str]:
    return [*_REQUEST_PARTS, *([IDEMPOTENCY_KEY] if request.header(IDEMPOTENCY_KEY) is not None else [])]


def _sign(
    message: HttpRequest | HttpResponse,
    party_id: str,
    key: JWK,
    at: int,
    covered: Sequence[str],
    *,
    body: bytes | None,
    nonce: str | None = None,
) -> None:
    algorithm = algorithm_of(key)
    try:
        prepared = HTTPMessageSigner(signature_algorithm=algorithm).prepare(
            message,
            key_id=keyid_of(party_id, key),
            created=datetime.fromtimestamp(at, UTC),
            nonce=nonce,
            label=LABEL,
            covered_component_ids=covered,
            body=body,
        )
    except (HTTPMessageSignaturesException, ValueError):
        # Not chained: what the library says of a message may repeat it.
        raise MalformedError("request: expected a target and headers that can be signed", field="request") from None
    signature = algorithm(private_key=key.private_key).sign(prepared.signature_base)
    # The library's own `apply` builds the base once more, in case the message changed while someone else signed it.
    message.headers["Signature-Input"] = f"{LABEL}={prepared.signature_params}"
    message.headers["Signature"] = f"{LABEL}=:{base64.b64encode(signature).decode()}:"


def claimed_keyid(request: HttpRequest) -> str:
    """Which key a request says it is signed with, unverified: only to find it. Raises `AuthenticationError`."""
    found = _KEYID.findall(request.header("signature-input") or "")
    if len(found) != 1:
        expected = "expected one signature (RFC 9421) with a keyid"
        raise AuthenticationError(f"signature-input: {expected}", field="signature-input")
    return str(found[0])


def verify_request(request: HttpRequest, key: JWK, *, now: int, under: str = "") -> SignedRequest:
    """Authenticate a request. Raises `StaleRequestError`, `AuthenticationError`, which names the address `under`."""
    keyid = claimed_keyid(request)
    result = _verified(request, keyid, key, under)
    _require_covered(request, result)
    created, nonce = result.parameters.get("created"), result.nonce
    if type(created) is not int or abs(now - created) > FRESH_SECONDS:
        raise StaleRequestError(f"created: expected within {FRESH_SECONDS} s of now", field="signature-input")
    expires = result.parameters.get("expires")
    if isinstance(expires, int) and expires <= now:
        raise StaleRequestError("expires: the signature has expired", field="signature-input")
    if nonce is None or not MIN_NONCE_LENGTH <= len(nonce) <= MAX_NONCE_LENGTH:
        expected = f"{MIN_NONCE_LENGTH} to {MAX_NONCE_LENGTH} characters, never used before"
        raise AuthenticationError(f"nonce: expected {expected}", field="signature-input")
    return SignedRequest(
        keyid=keyid,
        created=created,
        nonce=nonce,
        base=_base_of(result),
        signature=_signature_of(request.header("signature") or ""),
        body=request.body,
    )


def _verified(message: HttpRequest | HttpResponse, keyid: str, key: JWK, under: str = "") -> VerifyResult:
    verifier = _Verifier(signature_algorithm=algorithm_of(key), key_resolver=_OneKey(keyid, key))
    try:
        (result,) = verifier.verify(message, max_age=None, body=message.body)
    except (HTTPMessageSignaturesException, ValueError, TypeError, RecursionError) as exc:
        # Not chained: what the library says of a message may repeat it.
        is_covered = '"content-digest"' in " ".join(message.headers.values())
        digest = "content-digest: " + ("is not that of the body" if is_covered else "expected it to be covered")
        reason = digest if "digest" in str(exc).lower() else "signature: is not valid"
        sent = f"what was sent under {under}" if under else "what was sent"
        raise AuthenticationError(
            f"{reason}: expected RFC 9421 over {sent}, by a current key of the party named", field="signature"
        ) from None
    return result


def _require_covered(request: HttpRequest, result: VerifyResult) -> None:
    required = _parts_of(request) + (["content-digest"] if request.body else [])
    if missing := [part for part in required if f'"{part}"' not in result.covered_components]:
        expected = f"expected {', '.join(missing)} to be covered"
        raise AuthenticationError(f"signature-input: {expected}", field="signature-input")
    if result.covered_components['"@target-uri"'] != request.url:
        # A fragment and a user's name are no part of what is signed, so they may be no part of what is read.
        raise AuthenticationError("request: expected the target that was signed, and no more", field="request")


def _base_of(result: VerifyResult) -> bytes:
    return "\n".join(f"{name}: {value}" for name, value in result.covered_components.items()).encode()


def _signature_of(header: str) -> bytes:
    # Written in one way only: bytes other than those that were verified would be evidence of nothing.
    found = _SIGNATURE.fullmatch(header)
    if found is None:
        raise AuthenticationError("signature: expected one, as padded base64 between colons", field="signature")
    return base64.b64decode(found[1])


# --------------------------------------------------------------------------------------------------------- evidence


class _Kept(NamedTuple):
    """A signed request of which only the evidence is left."""

    covered: Mapping[str, str]
    headers: Mapping[str, str]


class _KeptParts:
    """What each covered part of a kept request was."""

    def __init__(self, kept: _Kept) -> None:
        self._covered = kept.covered

    def resolve(self, part: object) -> str:
        return self._covered[str(part)]


def verify_evidence(evidence: SignedRequest, key: JWK) -> None:
    """Check kept evidence against the signer's key, long after: it is signed, and says what was signed.

    Raises `AuditError`.
    """
    verifier = _Verifier(
        signature_algorithm=algorithm_of(key),
        key_resolver=_OneKey(evidence.keyid, key),
        component_resolver_class=_KeptParts,
    )
    try:
        covered = dict(line.split(": ", 1) for line in evidence.base.decode().split("\n"))
        signature = base64.b64encode(evidence.signature).decode()
        headers = {"Signature-Input": f"{LABEL}={covered.pop(_PARAMETERS)}", "Signature": f"{LABEL}=:{signature}:"}
        (result,) = verifier.verify(_Kept(covered, headers), max_age=None, body=evidence.body)
    except (HTTPMessageSignaturesException, KeyError, ValueError, TypeError, RecursionError) as exc:
        raise AuditError("the evidence is not signed by this key, or its body is not the one that was signed") from exc
    said = (result.parameters.get("created"), result.nonce, _base_of(result))
    if said != (evidence.created, evidence.nonce, evidence.base):
        raise AuditError("the evidence does not say what was signed")


# --------------------------------------------------------------------------------------------------------- responses


def sign_response(response: HttpResponse, *, party_id: str, key: JWK, at: int) -> HttpResponse:
    """The response with its digest and signature added; bound to its request if that was signed.

    Raises `MalformedError` if the request's target or signature holds what cannot stand in a signature base.
    """
    signed = replace(response, headers=dict(response.headers))
    parts = [part for part in _RESPONSE_PARTS if "signature" not in part or response.request.header("signature")]
    _sign(signed, party_id, key, at, parts, body=response.body)
    return signed


def verify_response(response: HttpResponse, *, party_id: str, key: JWK) -> None:
    """The institution's side: the custodian answered this, to exactly this request. Raises `AuditError`."""
    try:
        result = _verified(response, keyid_of(party_id, key), key)
    except AuthenticationError as exc:
        raise AuditError("the response is not signed by the custodian, or was altered") from exc
    required = [*_RESPONSE_PARTS, "content-digest"]
    covered = [part if part.startswith('"') else f'"{part}"' for part in required]
    if missing := [part for part in covered if part not in result.covered_components]:
        raise AuditError(f"the response's signature does not cover {', '.join(missing)}")
