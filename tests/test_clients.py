"""The whole way on the real node with clients that no one here wrote: ethers, viem, jose and Node's own crypto."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from actors import Institution, Subject, new_nonce

from ledger.config import Config
from ledger.consent import Hex32, Reason
from ledger.custodian import Custodian
from ledger.devnet import node_binary
from ledger.errors import AuthenticationError, InvalidSignatureError
from ledger.signatures import HttpRequest
from ledger.typed_data import grant_typed_data, revocation_typed_data

CLIENTS = Path(__file__).parent / "clients"
Client = Callable[[str, dict[str, Any]], str]
pytestmark = pytest.mark.devnet


@pytest.fixture(scope="module")
def client() -> Client:
    """Runs one of `tests/clients` with a JSON object on its standard input."""
    if not (CLIENTS.parent.parent / "node_modules" / "viem").exists():
        reason = "node_modules is not there: run `make setup`"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    node = node_binary()

    def run(name: str, given: dict[str, Any]) -> str:
        command = [node, str(CLIENTS / name)]
        done = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


def asked(custodian: Custodian, institution: Institution, consent_id: Hex32, client: Client) -> HttpRequest:
    """What the institution sends, signed by Node with nothing of ours."""
    url = f"{custodian.config.service_url}/v1/consents/{consent_id}/releases"
    body = json.dumps({"purpose": "loan-origination", "attributes": ["credit_amount"]})
    headers = {"Content-Type": "application/json", "Idempotency-Key": "from-node"}
    signed = client(
        "http_signature.mjs",
        {
            "sign": {"method": "POST", "url": url, "headers": headers, "body": body},
            "keyid": f"{institution.institution_id}#{institution.signing_key.kid}",
            "key": institution.signing_key.as_dict(private=True),
            "created": custodian.clock(),
            "nonce": new_nonce(),
        },
    )
    return HttpRequest(method="POST", url=url, headers=json.loads(signed)["headers"], body=body.encode())


@pytest.mark.parametrize("library", ["ethers", "viem"])
def test_what_a_foreign_wallet_signs_is_granted_answered_and_revoked(
    devnet_custodian: Custodian, devnet_config: Config, client: Client, library: str
) -> None:
    custodian = devnet_custodian
    institution, subject = Institution(), Subject()
    institution.register(custodian)
    subject.furnish(custodian)
    public = custodian.accounts.signing_key.as_dict(private=False)

    def signed(payload: dict[str, Any], key: bytes = subject.key) -> bytes:
        given = {"library": library, "key": "0x" + key.hex(), "typedData": payload}
        return bytes.fromhex(client("sign.mjs", given)[2:])

    draft = subject.draft(custodian, institution)
    payload = grant_typed_data(draft, custodian.chain.domain)
    with pytest.raises(InvalidSignatureError):
        subject.hand_in(custodian, draft, signed(payload, Subject().key))
    consent_id = subject.hand_in(custodian, draft, signed(payload))

    message = asked(custodian, institution, consent_id, client)
    with pytest.raises(AuthenticationError):
        custodian.releases.release(replace(message, body=message.body.replace(b"credit_amount", b"savings")))
    release = custodian.releases.release(message)
    given = {
        "answer": release.sealed.decode(),
        "key": institution.sealing_key.as_dict(private=True),
        "custodian": public,
    }
    opened = json.loads(client("open_answer.mjs", given))
    assert opened["claims"]["values"]["credit_amount"]["value"] == 1169
    seen = json.loads(
        client("check_receipt.mjs", {"receipt": release.receipt, "custodian": public, "rpcUrl": devnet_config.rpc_url})
    )
    assert seen == {"chain": True, "contract": True, "block": True, "consent": True, "entry": True}

    revocation = signed(revocation_typed_data([consent_id], custodian.chain.domain))
    assert custodian.grants.revoke([consent_id], revocation).receipt is not None
    assert custodian.chain.statuses([consent_id], custodian.address) == [Reason.REVOKED]
