"""Passkeys: what a browser is asked for, and whether its answer proves anything (WebAuthn Level 3).

Passkeys are discoverable, so that nobody types a name, and the authenticator verifies the person (PIN, finger, face).
Attestation is not asked for: which make of authenticator somebody has is nobody's business. The options ask for the
`prf` extension, whose output never leaves the browser: it unwraps the person's root secret there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

from webauthn import (
    generate_authentication_options,
    generate_registration_options,
    verify_authentication_response,
    verify_registration_response,
)
from webauthn.helpers import (
    base64url_to_bytes,
    bytes_to_base64url,
    decode_credential_public_key,
    decoded_public_key_to_cryptography,
    options_to_json_dict,
)
from webauthn.helpers.structs import (
    AttestationFormat,
    AuthenticatorSelectionCriteria,
    CredentialDeviceType,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from ledger.errors import PasskeyClonedError, SignInRefusedError

RP_NAME: Final = "Consent Ledger"
TIMEOUT_MS: Final = 5 * 60 * 1000
PRF_INPUT: Final = sha256(b"consent-ledger/v1/prf").digest()
FORMATS: Final = (AttestationFormat.NONE, AttestationFormat.PACKED)
"""What comes of asking for no attestation: none, or the passkey's own signature."""
MAX_CREDENTIAL_ID: Final = 1023
_PRF: Final = {"prf": {"eval": {"first": bytes_to_base64url(PRF_INPUT)}}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where passkeys are used: the name that they are bound to, and the origin as browsers write it."""

    rp_id: str
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPasskey:
    """A passkey that was just made. `public_key` is a COSE key; `backed_up`: copies of it are kept elsewhere."""

    credential_id: bytes
    public_key: bytes = field(repr=False)
    sign_count: int
    backup_eligible: bool
    backed_up: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownPasskey:
    """What an answer is held against. `user_handle` is the account's, as the passkey has it."""

    credential_id: bytes
    public_key: bytes = field(repr=False)
    sign_count: int
    backup_eligible: bool
    user_handle: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """A passkey that has just proved itself: its counter now, and whether copies are kept."""

    sign_count: int
    backed_up: bool


def registration_options(
    site: Site, challenge: bytes, user_handle: bytes, *, exclude: Sequence[bytes] = ()
) -> dict[str, Any]:
    """For `navigator.credentials.create()`. `exclude` are the account's passkeys: no second one where one is."""
    # Shown by the browser's chooser: tells two accounts on one device apart, and says nothing of the person.
    name = f"{RP_NAME} {user_handle.hex()[:4]}"
    options = generate_registration_options(
        rp_id=site.rp_id,
        rp_name=RP_NAME,
        user_name=name,
        user_id=user_handle,
        challenge=challenge,
        timeout=TIMEOUT_MS,
        authenticator_selection=AuthenticatorSelectionCriteria(
            resident_key=ResidentKeyRequirement.REQUIRED, user_verification=UserVerificationRequirement.REQUIRED
        ),
        exclude_credentials=[PublicKeyCredentialDescriptor(id=one) for one in exclude],
    )
    return dict(options_to_json_dict(options)) | {"extensions": {"credProps": True, **_PRF}}


def sign_in_options(site: Site, challenge: bytes, *, allow: Sequence[bytes] = ()) -> dict[str, Any]:
    """For `navigator.credentials.get()`: any passkey of this site, or one of `allow`, then with its PRF output."""
    options = generate_authentication_options(
        rp_id=site.rp_id,
        challenge=challenge,
        timeout=TIMEOUT_MS,
        allow_credentials=[PublicKeyCredentialDescriptor(id=one) for one in allow],
        user_verification=UserVerificationRequirement.REQUIRED,
    )
    return dict(options_to_json_dict(options)) | ({"extensions": dict(_PRF)} if allow else {})


def challenge_of(credential: Mapping[str, Any]) -> str:
    """The challenge that an answer says it is to, base64url. Raises `SignInRefusedError`."""
    try:
        client_data = json.loads(base64url_to_bytes(credential["response"]["clientDataJSON"]))
        # We are never in a frame of another site. The library does not look at these.
        if client_data.get("crossOrigin", False) is not False or "topOrigin" in client_data:
            raise refused()
        found = client_data["challenge"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise refused() from exc
    if not isinstance(found, str):
        raise refused()
    return found


def credential_id_of(credential: Mapping[str, Any]) -> bytes:
    """Raises `SignInRefusedError`."""
    try:
        found = base64url_to_bytes(credential["rawId"])
    except (ValueError, KeyError, TypeError) as exc:
        raise refused() from exc
    if not 1 <= len(found) <= MAX_CREDENTIAL_ID:
        raise refused()
    return found


def verify_registration(credential: dict[str, Any], challenge: str, site: Site) -> NewPasskey:
    """Raises `SignInRefusedError`: another site or challenge, the person not verified, or not a passkey at all."""
    try:
        made = verify_registration_response(
            credential=credential,
            expected_challenge=base64url_to_bytes(challenge),
            expected_rp_id=site.rp_id,
            expected_origin=site.origin,
            require_user_verification=True,
        )
        # A key that can be read can be no key: a point beside the curve would only be noticed at the first sign-in.
        decoded_public_key_to_cryptography(decode_credential_public_key(made.credential_public_key))
    except Exception as exc:
        # The library lets through whatever its parsers stumble over.
        raise refused() from exc
    if (
        made.fmt not in FORMATS
        or not 1 <= len(made.credential_id) <= MAX_CREDENTIAL_ID
        or made.credential_id != credential_id_of(credential)
    ):
        raise refused()
    return NewPasskey(
        credential_id=made.credential_id,
        public_key=made.credential_public_key,
        sign_count=made.sign_count,
        backup_eligible=made.credential_device_type == CredentialDeviceType.MULTI_DEVICE,
        backed_up=made.credential_backed_up,
    )


def verify_sign_in(credential: dict[str, Any], challenge: str, site: Site, known: KnownPasskey) -> Used:
    """Raises `SignInRefusedError`. Whether the counter went up is for whoever keeps it to see (`passkey_used`)."""
    try:
        used = verify_authentication_response(
            credential=credential,
            expected_challenge=base64url_to_bytes(challenge),
            expected_rp_id=site.rp_id,
            expected_origin=site.origin,
            credential_public_key=known.public_key,
            # Not looked at here: the library does so before it has checked the signature.
            credential_current_sign_count=0,
            require_user_verification=True,
        )
        handle = credential["response"].get("userHandle")
        user_handle = known.user_handle if handle is None else base64url_to_bytes(handle)
    except Exception as exc:
        raise refused() from exc
    if user_handle != known.user_handle:
        raise refused()
    is_eligible = used.credential_device_type == CredentialDeviceType.MULTI_DEVICE
    if used.credential_id != known.credential_id or is_eligible != known.backup_eligible:
        raise refused()
    return Used(sign_count=used.new_sign_count, backed_up=used.credential_backed_up)


def refused() -> SignInRefusedError:
    """One error for every cause."""
    return SignInRefusedError("credential: it does not prove who is there", field="credential")


def cloned() -> PasskeyClonedError:
    """Two that use one passkey."""
    return PasskeyClonedError("credential: its counter did not go up, there may be a copy of it", field="credential")
