"""Public keys as they are handed on: what verifies, the id by which signatures name it, and no more. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet, OKPKey

from ledger.consent import is_text
from ledger.errors import MalformedError
from ledger.signatures import JWK, SIGNING_CURVES

_MEMBERS: Final[Mapping[str, frozenset[str]]] = {
    "EC": frozenset({"kty", "crv", "x", "y", "kid"}),
    "OKP": frozenset({"kty", "crv", "x", "kid"}),
}


def public_jwk(key: JWK) -> dict[str, Any]:
    """The public part of a signing key, as JSON."""
    fields: dict[str, Any] = {**key.as_dict(private=False), "kid": key.kid}
    return {name: fields[name] for name in sorted(_MEMBERS[fields["kty"]])}


def verifying_key(key: JWK) -> JWK:
    """The public part of a signing key: it verifies, and does nothing else."""
    return read_jwk(public_jwk(key), "key")


def read_jwk(value: object, field: str) -> JWK:
    """The inverse of `public_jwk`, strictly. Raises `MalformedError` naming `field`."""
    refused = MalformedError(f"{field}: expected a public key of {' or '.join(SIGNING_CURVES)} (JWK)", field=field)
    if not isinstance(value, Mapping) or not all(is_text(one) for one in value.values()):
        raise refused
    if set(value) != _MEMBERS.get(value.get("kty", ""), frozenset()):
        raise refused
    try:
        (key,) = KeySet.import_key_set({"keys": [dict(value)]}).keys
    except (JoseError, ValueError, TypeError, KeyError) as exc:
        raise refused from exc
    if not isinstance(key, ECKey | OKPKey) or key.curve_name not in SIGNING_CURVES or public_jwk(key) != dict(value):
        raise refused
    return key
