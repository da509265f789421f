"""An authenticator in software: makes passkeys and answers challenges as a browser hands them over (WebAuthn Level 3).

Everything that an attack changes is an argument: origin, RP id, challenge, flags, counter. `ES256`, no attestation or
`packed` self attestation, and the PRF extension's output.
"""

from __future__ import annotations

import hmac
import json
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Final

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

UP, UV, BE, BS, AT = 0x01, 0x04, 0x08, 0x10, 0x40
USED: Final = UP | UV
ZERO_AAGUID: Final = bytes(16)


def b64(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return urlsafe_b64decode(text + "==")


@dataclass(kw_only=True)
class SoftPasskey:
    """One passkey. Its counter goes up by one with every use, unless it does not count (0 for ever)."""

    rp_id: str
    user_handle: bytes
    credential_id: bytes
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    prf_key: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    counter: int = 1
    flags: int = USED

    def prf(self, salt: bytes) -> bytes:
        """As CTAP's hmac-secret makes it of the salt that the browser hashes."""
        return hmac.digest(self.prf_key, sha256(b"WebAuthn PRF\x00" + salt).digest(), "sha256")

    def cose_key(self) -> bytes:
        numbers = self.key.public_key().public_numbers()
        return cbor2.dumps({1: 2, 3: -7, -1: 1, -2: numbers.x.to_bytes(32), -3: numbers.y.to_bytes(32)})

    def sign(self, data: bytes) -> bytes:
        return self.key.sign(data, ec.ECDSA(hashes.SHA256()))


class Authenticator:
    """A device with passkeys on it, used in a browser that shows a page of `origin`."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.passkeys: list[SoftPasskey] = []

    def create(
        self,
        options: dict[str, Any],
        *,
        origin: str | None = None,
        rp_id: str | None = None,
        challenge: str | None = None,
        kind: str = "webauthn.create",
        flags: int = USED,
        counter: int = 1,
        attestation: str = "none",
        credential_id: bytes | None = None,
        client_data: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """`navigator.credentials.create()`: a new passkey, and the answer for the service."""
        passkey = SoftPasskey(
            rp_id=rp_id or options["rp"]["id"],
            user_handle=unb64(options["user"]["id"]),
            counter=counter,
            flags=flags,
            credential_id=credential_id or secrets.token_bytes(32),
        )
        self.passkeys.append(passkey)
        client_data_json = _client_data(
            kind, challenge or options["challenge"], origin or self.origin, client_data or {}
        )
        data = _authenticator_data(passkey, flags | AT, counter) + _attested(passkey)
        statement: dict[str, Any] = {}
        if attestation == "packed":
            statement = {"alg": -7, "sig": passkey.sign(data + sha256(client_data_json).digest())}
        if attestation == "fido-u2f":
            statement = _u2f(passkey, client_data_json)
        raw = cbor2.dumps({"fmt": attestation, "attStmt": statement, "authData": data})
        return _credential(
            passkey,
            {"clientDataJSON": b64(client_data_json), "attestationObject": b64(raw), "transports": ["internal"]},
        )

    def get(
        self,
        options: dict[str, Any],
        *,
        passkey: SoftPasskey | None = None,
        origin: str | None = None,
        rp_id: str | None = None,
        challenge: str | None = None,
        kind: str = "webauthn.get",
        flags: int | None = None,
        counter: int | None = None,
        user_handle: bytes | None = None,
        client_data: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """`navigator.credentials.get()`: the answer of a passkey, by default the one that was made last."""
        allowed = [unb64(one["id"]) for one in options.get("allowCredentials", ())]
        mine = [one for one in self.passkeys if not allowed or one.credential_id in allowed]
        used = passkey or mine[-1]
        if counter is None:
            used.counter += 1 if used.counter else 0
        client_data_json = _client_data(
            kind, challenge or options["challenge"], origin or self.origin, client_data or {}
        )
        data = _authenticator_data(
            used, used.flags if flags is None else flags, used.counter if counter is None else counter, rp_id
        )
        return _credential(
            used,
            {
                "clientDataJSON": b64(client_data_json),
                "authenticatorData": b64(data),
                "signature": b64(used.sign(data + sha256(client_data_json).digest())),
                "userHandle": b64(used.user_handle if user_handle is None else user_handle),
            },
        )


def _client_data(kind: str, challenge: str, origin: str, more: dict[str, Any]) -> bytes:
    fields = {"type": kind, "challenge": challenge, "origin": origin, "crossOrigin": False}
    return json.dumps(fields | more).encode()


def _authenticator_data(passkey: SoftPasskey, flags: int, counter: int, rp_id: str | None = None) -> bytes:
    return sha256((rp_id or passkey.rp_id).encode()).digest() + bytes([flags]) + counter.to_bytes(4)


def _attested(passkey: SoftPasskey) -> bytes:
    return ZERO_AAGUID + len(passkey.credential_id).to_bytes(2) + passkey.credential_id + passkey.cose_key()


def _u2f(passkey: SoftPasskey, client_data_json: bytes) -> dict[str, Any]:
    """A valid attestation of the old kind, by a certificate that says which make it is."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "A certain make")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    point = passkey.key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    said = sha256(passkey.rp_id.encode()).digest() + sha256(client_data_json).digest()
    signature = key.sign(b"\x00" + said + passkey.credential_id + point, ec.ECDSA(hashes.SHA256()))
    return {"x5c": [certificate.public_bytes(Encoding.DER)], "sig": signature}


def _credential(passkey: SoftPasskey, response: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": b64(passkey.credential_id),
        "rawId": b64(passkey.credential_id),
        "type": "public-key",
        "authenticatorAttachment": "platform",
        "response": response,
        "clientExtensionResults": {},
    }
