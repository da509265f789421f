"""What the custodian signs for a person: receipts of grants and revocations, and the proof of an erasure. Pure.

Each is a JWT (ES256) whose header's `typ` says what it is. All of them are checked here without any network, with the
custodian's public key; a grant and a revocation also by the subject's own signature, so that they do not rest on the
custodian's word:

    consent-receipt+jwt     the whole grant as it was signed, terms and salt included, and the signature
    revocation-receipt+jwt  which consents, at whose wish, when it was stored and where it is on chain
    erasure-proof+jwt       how much was destroyed, and nobody's identity

What no receipt can show is what happened afterwards: whether a consent still stands is for the chain to say.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from joserfc.jwk import ECKey

from ledger.consent import Address, ConsentGrant, Domain, Hex32, parse_address, parse_hex32
from ledger.errors import AuditError, InvalidSignatureError, MalformedError
from ledger.exchange import sign_claims, verify_claims
from ledger.typed_data import consent_id_of, digest_of, parse_grant, require_signer, revocation_typed_data

VERSION: Final = 1
GRANT_TYPE: Final = "consent-receipt+jwt"
REVOCATION_TYPE: Final = "revocation-receipt+jwt"
ERASURE_TYPE: Final = "erasure-proof+jwt"
BY_SUBJECT: Final = "subject"
COUNTED: Final = (
    "envelopesDestroyed",
    "consentOpeningsDestroyed",
    "accessOpeningsDestroyed",
    "consentRequestsDestroyed",
    "deletionAttestationsDestroyed",
    "adverseActionsDestroyed",
    "disputesDestroyed",
    "portalAccountsDestroyed",
)
"""What a proof of erasure counts."""
_NAMELESS: Final = frozenset(
    {"version", "iss", "iat", *COUNTED, "writeAheadLogEmptied", "readableInBackupsUntilDestroyed"}
)
# What reading a claim of another form than expected raises.
_MALFORMED: Final = (KeyError, TypeError, ValueError, AttributeError, OverflowError, MalformedError)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedGrant:
    """A grant that its subject signed, as the custodian had it on file. Times are Unix seconds."""

    consent_id: Hex32
    grant: ConsentGrant
    issued_at: int
    transaction_hash: Hex32 | None
    standing: bool
    revoked_at: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedRevocation:
    """A revocation that the custodian has on file. `by_subject`: the subject signed it, and that signature was checked.

    Times are Unix seconds. `transaction_hash` and `block_number` are None while it is not on chain, or if the subject
    went to the chain directly.
    """

    consent_ids: tuple[Hex32, ...]
    by: str
    by_subject: bool
    stored_at: int
    issued_at: int
    transaction_hash: Hex32 | None
    block_number: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedErasure:
    """An erasure that the custodian says it carried out. `destroyed` has the claims' names."""

    custodian: Address
    erased_at: int
    destroyed: Mapping[str, int]
    scrubbed: bool
    readable_in_backups_until_destroyed: tuple[str, ...]


def type_of(token: str) -> str:
    """What a token says it is, unchecked; empty if it says nothing."""
    return _named(token, "typ")


def kid_of(token: object) -> str:
    """The id of the key that a token says it is signed with, unchecked; empty if it says nothing."""
    return _named(token, "kid")


def _named(token: object, name: str) -> str:
    try:
        header = json.loads(base64.urlsafe_b64decode(str(token).partition(".")[0] + "=="))
    except (ValueError, RecursionError):
        return ""
    found = header.get(name) if isinstance(header, dict) else None
    return found if isinstance(found, str) else ""


# --------------------------------------------------------------------------------------------------------------- making


def grant_receipt(
    consent_id: Hex32,
    grant: ConsentGrant,
    signature: bytes,
    domain: Domain,
    signing_key: ECKey,
    *,
    at: int,
    transaction_hash: Hex32 | None,
    standing: bool,
    revoked_at: int | None,
) -> str:
    """A receipt of a grant."""
    claims = {
        "version": VERSION,
        "iss": grant.custodian,
        "iat": at,
        "consent": consent_id,
        "grant": grant.as_json(),
        "signature": "0x" + signature.hex(),
        "domain": domain.as_json(),
        "transactionHash": transaction_hash,
        "standing": standing,
        "revokedAt": revoked_at,
    }
    return sign_claims(claims, signing_key, GRANT_TYPE)


def revocation_receipt(
    consent_ids: Sequence[Hex32],
    subject: Address,
    signature: bytes | None,
    domain: Domain,
    signing_key: ECKey,
    *,
    custodian: Address,
    at: int,
    by: str,
    stored_at: int,
    transaction_hash: Hex32 | None,
    block_number: int | None,
    block_hash: Hex32 | None,
) -> str:
    """A receipt of a revocation. `signature` is the subject's, if it is in the custodian's hands."""
    claims = {
        "version": VERSION,
        "iss": custodian,
        "iat": at,
        "consents": list(consent_ids),
        "subject": subject,
        "by": by,
        "signature": None if signature is None else "0x" + signature.hex(),
        "storedAt": stored_at,
        "domain": domain.as_json(),
        "transactionHash": transaction_hash,
        "blockNumber": block_number,
        "blockHash": block_hash,
    }
    return sign_claims(claims, signing_key, REVOCATION_TYPE)


def erasure_proof(
    custodian: Address,
    signing_key: ECKey,
    *,
    at: int,
    destroyed: Mapping[str, int],
    scrubbed: bool,
    keks: Sequence[str],
) -> str:
    """A proof that names no one; `destroyed` has every name of `COUNTED`."""
    claims = {
        "version": VERSION,
        "iss": custodian,
        "iat": at,
        **{name: destroyed[name] for name in COUNTED},
        "writeAheadLogEmptied": scrubbed,
        "readableInBackupsUntilDestroyed": list(keks),
    }
    return sign_claims(claims, signing_key, ERASURE_TYPE)


# ------------------------------------------------------------------------------------------------------------- checking


def verify_grant(receipt: str, custodian_key: ECKey, *, domain: Domain) -> VerifiedGrant:
    """Check a receipt of a grant without any network.

    (1) The custodian signed it. (2) It is about this chain and contract. (3) The digest of the grant is the consent's
    id. (4) The subject that the grant names signed that digest. Raises `AuditError` saying what does not hold; also for
    a smart account (ERC-1271), whose signature can only be asked on chain.
    """
    # (1)
    claims = verify_claims(receipt, custodian_key, GRANT_TYPE)
    try:
        # (2)
        _require_version_and_domain(claims, domain)
        # (3)
        grant = parse_grant(claims["grant"])
        consent_id = _exactly(claims["consent"])
        _require(consent_id_of(grant, domain) == consent_id, "the grant's digest is not the consent's id")
        _require(claims["iss"] == grant.custodian, "the grant names another custodian")
        # (4)
        _require_signed(consent_id, claims["signature"], grant.subject)
        return VerifiedGrant(
            consent_id=consent_id,
            grant=grant,
            issued_at=_number(claims["iat"]),
            transaction_hash=_maybe(claims["transactionHash"], _exactly),
            standing=_truth(claims["standing"]),
            revoked_at=_maybe(claims["revokedAt"], _number),
        )
    except _MALFORMED as exc:
        raise AuditError("a receipt without all of its claims") from exc


def verify_revocation(receipt: str, custodian_key: ECKey, *, domain: Domain) -> VerifiedRevocation:
    """Check a receipt of a revocation without any network.

    (1) The custodian signed it. (2) It is about this chain and contract. (3) If it says that the subject did it, the
    subject signed the revocation of exactly these consents, in this order. Raises `AuditError` as `verify_grant`.
    """
    # (1)
    claims = verify_claims(receipt, custodian_key, REVOCATION_TYPE)
    try:
        # (2)
        _require_version_and_domain(claims, domain)
        consent_ids = tuple(_exactly(one) for one in claims["consents"])
        _require(bool(consent_ids), "it is about no consent")
        by, subject = _text(claims["by"]), parse_address(claims["subject"], "subject")
        # (3)
        signed = by == BY_SUBJECT and claims["signature"] is not None
        if signed:
            _require_signed(digest_of(revocation_typed_data(consent_ids, domain)), claims["signature"], subject)
        return VerifiedRevocation(
            consent_ids=consent_ids,
            by=by,
            by_subject=signed,
            stored_at=_number(claims["storedAt"]),
            issued_at=_number(claims["iat"]),
            transaction_hash=_maybe(claims["transactionHash"], _exactly),
            block_number=_maybe(claims["blockNumber"], _number),
        )
    except _MALFORMED as exc:
        raise AuditError("a receipt without all of its claims") from exc


def verify_erasure(proof: str, custodian_key: ECKey) -> VerifiedErasure:
    """Check a proof of erasure without any network: the custodian signed it, and it names no one.

    Whether it was done, and whose data it was, nobody can see from it. Raises `AuditError`.
    """
    claims = verify_claims(proof, custodian_key, ERASURE_TYPE)
    try:
        _require(claims["version"] == VERSION, "expected version 1")
        _require(set(claims) == _NAMELESS, "it says more or less than a proof of erasure does")
        return VerifiedErasure(
            custodian=parse_address(claims["iss"], "iss"),
            erased_at=_number(claims["iat"]),
            destroyed={name: _number(claims[name]) for name in COUNTED},
            scrubbed=_truth(claims["writeAheadLogEmptied"]),
            readable_in_backups_until_destroyed=tuple(_text(one) for one in claims["readableInBackupsUntilDestroyed"]),
        )
    except _MALFORMED as exc:
        raise AuditError("a proof without all of its claims") from exc


def _require_version_and_domain(claims: Mapping[str, Any], domain: Domain) -> None:
    _require(claims["version"] == VERSION, "expected version 1")
    _require(claims["domain"] == domain.as_json(), "it is about another chain or contract")


def _require_signed(digest: Hex32, signature: str, subject: Address) -> None:
    try:
        require_signer(digest, bytes.fromhex(_text(signature).removeprefix("0x")), subject)
    except InvalidSignatureError as exc:
        raise AuditError(
            "the receipt does not verify: the subject's signature does not hold by itself (one of a smart account can "
            "only be asked on chain)"
        ) from exc


def _require(holds: bool, otherwise: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not holds:
        raise AuditError(f"the receipt does not verify: {otherwise}")


def _exactly(text: object) -> Hex32:
    found = parse_hex32(text, "hash")
    _require(found == text, "a hash is not in lower case")
    return found


def _number(value: object) -> int:
    if type(value) is not int or value < 0:
        raise MalformedError("number: expected a whole one", field="number")
    return value


def _truth(value: object) -> bool:
    if type(value) is not bool:
        raise MalformedError("flag: expected true or false", field="flag")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise MalformedError("text: expected text", field="text")
    return value


def _maybe(value: object, read: Any) -> Any:  # noqa: ANN401 - what `read` returns
    return None if value is None else read(value)
