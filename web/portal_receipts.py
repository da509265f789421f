"""Receipts of what a person signed, for them to keep: each proves by itself what it says, without this service."""

from __future__ import annotations

import json

import segno
from flask import Blueprint, Response, render_template
from markupsafe import Markup

from ledger.consent import ConsentGrant
from ledger.contract import call, revoke_call
from ledger.typed_data import outer_of
from web.door import custodian
from web.portal_consents import mine
from web.responses import download
from web.signed_in import signed_in

routes = Blueprint("receipts", __name__)


@routes.get("/receipts/<consent_id>")
def page(consent_id: str) -> str:
    """The receipts of one consent."""
    consent, held = mine(consent_id), custodian()
    ended = held.grants.revocation_receipt(consent.consent_id) if consent.revoked_at is not None else None
    return render_template(
        "portal/receipt.html",
        consent=consent,
        granted=held.grants.receipt(consent.consent_id),
        ended=ended,
        by_wallet=_is_by_wallet(consent.grant),
        code=_code_of(f"{held.config.service_url}/verify"),
    )


@routes.get("/receipts/<consent_id>/grant.jwt")
def grant(consent_id: str) -> Response:
    """What was signed, signed by the custodian as well."""
    return download(custodian().grants.receipt(mine(consent_id).consent_id), "consent-receipt.jwt", "application/jwt")


@routes.get("/receipts/<consent_id>/revocation.jwt")
def revocation(consent_id: str) -> Response:
    """How it was ended. Raises `NotFoundError` if it was not."""
    token = custodian().grants.revocation_receipt(mine(consent_id).consent_id)
    return download(token, "revocation-receipt.jwt", "application/jwt")


@routes.get("/receipts/<consent_id>/without-us.txt")
def without_us(consent_id: str) -> Response:
    """How this very consent is ended by the person alone, should this service be gone; to be kept with the receipt."""
    consent, domain = mine(consent_id), custodian().chain.domain
    text = render_template(
        "portal/without_us.txt",
        consent=consent,
        domain=domain,
        by_wallet=_is_by_wallet(consent.grant),
        address=f"{custodian().config.portal_origin}/without-us",
        calldata="0x" + revoke_call([outer_of(consent.grant)], b"").hex(),
        selector="0x" + call("consentOf", b"\0" * 32).hex()[:8],
    )
    return download(text, "stop-without-us.txt", "text/plain")


@routes.get("/receipts/<consent_id>/record.jsonld")
def record(consent_id: str) -> Response:
    """The same for other people's software: ISO/IEC TS 27560 in the words of DPV."""
    consent = mine(consent_id)
    document = custodian().subject_export.consent_receipt(consent.subject_id, consent.consent_id)
    return download(json.dumps(document, ensure_ascii=False, indent=2), "consent-record.jsonld", "application/ld+json")


def _is_by_wallet(grant: ConsentGrant) -> bool:
    """Whether a wallet of the account signed: that key works elsewhere too. Removed ones are not known."""
    wallets = custodian().enrolment.wallets(signed_in().account_id)
    return grant.subject in {wallet.address for wallet in wallets}


def _code_of(address: str) -> Markup:
    """An address as a QR code: SVG without any style of its own."""
    return Markup(  # noqa: S704 - made of our own address
        segno.make(address, error="m").svg_inline(scale=4, border=2, dark="#000", svgclass="qr", lineclass=None)
    )
