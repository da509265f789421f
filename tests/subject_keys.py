"""A second implementation of the keys that `web/static/portal/keys.js` specifies, and the known answers of both."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from eth_account import Account

VECTORS: Final = Path(__file__).parent / "vectors" / "subject_keys.json"
ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
ROOT_AAD: Final = b"consent-ledger/v1/root"


def prf_input() -> bytes:
    return sha256(b"consent-ledger/v1/prf").digest()


def wrap_key(prf_output: bytes) -> bytes:
    return HKDF(SHA256(), 32, salt=None, info=b"consent-ledger/v1/root-wrap").derive(prf_output)


def wrapped(prf_output: bytes, root: bytes, nonce: bytes) -> str:
    sealed = nonce + AESGCM(wrap_key(prf_output)).encrypt(nonce, root, ROOT_AAD)
    return urlsafe_b64encode(sealed).decode().rstrip("=")


def unwrapped(prf_output: bytes, text: str) -> bytes:
    sealed = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    return AESGCM(wrap_key(prf_output)).decrypt(sealed[:12], sealed[12:], ROOT_AAD)


def subject_key(root: bytes, *, chain_id: int, contract: str, institution: str) -> bytes:
    info = f"{chain_id}\n{contract.lower()}\n{institution}".encode()
    okm = HKDF(SHA256(), 48, salt=b"consent-ledger/v1/subject-key", info=info).derive(root)
    return (int.from_bytes(okm) % (ORDER - 1) + 1).to_bytes(32)


def known_answers() -> dict[str, Any]:
    """Everything is derived from these words, so that anyone can make the file again."""
    text = sha256
    roots = [text(b"consent-ledger test root %d" % n).digest() for n in range(2)]
    outputs = [text(b"consent-ledger test prf output %d" % n).digest() for n in range(2)]
    nonces = [text(b"consent-ledger test nonce %d" % n).digest()[:12] for n in range(2)]
    contract = "0x5FbDB2315678afecb367f032d93F642f64180aa3"
    places = [
        (31337, contract, "did:web:bank.example"),
        (31337, contract, "did:web:other.example"),
        (1, contract, "did:web:bank.example"),
        (31337, "0x44594101dda99d08F949750CfBBa1ec9c80cc281", "did:web:bank.example"),
        (31337, contract, "lei:300300示例银行"),
    ]
    wraps = [(outputs[0], roots[0], nonces[0]), (outputs[1], roots[0], nonces[1]), (outputs[0], roots[1], nonces[1])]
    return {
        "note": "Known answers of the keys that web/static/portal/keys.js specifies; made by tests/subject_keys.py.",
        "prfInput": "0x" + prf_input().hex(),
        "wraps": [
            {
                "prfOutput": "0x" + output.hex(),
                "wrapKey": "0x" + wrap_key(output).hex(),
                "root": "0x" + root.hex(),
                "nonce": "0x" + nonce.hex(),
                "wrapped": wrapped(output, root, nonce),
            }
            for output, root, nonce in wraps
        ],
        "subjects": [
            {
                "root": "0x" + root.hex(),
                "chainId": chain_id,
                "contract": where,
                "institution": institution,
                "key": "0x" + key.hex(),
                "address": Account.from_key(key).address,
            }
            for root in roots
            for chain_id, where, institution in places
            for key in [subject_key(root, chain_id=chain_id, contract=where, institution=institution)]
        ],
    }
