"""The applications that `api_bench.py` compares with the shipped one, for gunicorn to serve."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

from ledger.accounts import Accounts
from ledger.authentication import Caller, Rate, Signed
from ledger.config import Config
from ledger.consent import Address, Hex32
from ledger.custodian import Custodian, unix_now
from ledger.exchange import ReleaseRequest, seal_answer
from ledger.gather import Gather
from ledger.release import Release
from ledger.signatures import HttpRequest, claimed_keyid, split_keyid, verify_request
from web import create_app
from web.server import settle_in

if TYPE_CHECKING:
    from flask import Flask


def one_by_one() -> Flask:
    """The shipped service, but everyone alone: a transaction of its own for each release, on chain and in the store."""
    app = create_app(Custodian(Config.from_env(), max_batch=1))
    settle_in()
    return app


def ungoverned() -> Flask:
    """The same endpoint without consent check, log and database: the signature is checked and the answer is sealed."""
    config = Config.from_env()
    with Custodian(config) as held:
        institutions = {party.party_id: party for party in held.registry.institutions()}
    accounts = Accounts.load(config.account_file)
    address = Address(accounts.custodian.address)

    def verify(message: HttpRequest, role: str) -> Signed:
        party_id, kid = split_keyid(claimed_keyid(message))
        party = institutions[party_id]
        now = unix_now()
        evidence = verify_request(message, party.key("sig", now=now, kid=kid), now=now)
        return Signed(role=role, party=party, evidence=evidence, message=message)

    def answer(requests: Sequence[ReleaseRequest], signed: Signed) -> tuple[Caller, list[Release]]:
        now, party = unix_now(), signed.party
        claims = {
            "version": 1,
            "iss": address,
            "aud": party.party_id,
            "iat": now,
            "consent": requests[0].access.consent_id,
            "purpose": requests[0].access.purpose,
            "values": {"credit_amount": {"value": 1169, "unit": "DM", "source": "bench", "asOf": "1975-12-31"}},
            "eraseBy": now,
        }
        sealed = seal_answer(claims, accounts.signing_key, party.key("enc", now=now))
        rate = Rate(limit=1, remaining=1, reset=1)
        caller = Caller(role=signed.role, party=party, evidence=signed.evidence, rate=rate)
        return caller, [Release(release_id=Hex32("0x" + "00" * 32), sealed=sealed, receipt="", late=False)]

    stub = SimpleNamespace(
        config=config,
        accounts=accounts,
        address=address,
        clock=unix_now,
        close=lambda: None,
        authentication=SimpleNamespace(verify=verify),
        releases=SimpleNamespace(answer=answer, near=Gather(list).near),
    )
    app = create_app(cast("Custodian", stub))
    settle_in()
    return app
