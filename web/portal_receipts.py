"""Receipts of what a person signed, for them to keep: each proves by itself what it says, without this service."""

from __future__ import annotations

import json

import segno
from flask import Blueprint, Response, render_template
from markupsafe import Markup

from ledger.consent import Hex32, parse_hex32
from ledger.contract import call, revoke_call
from ledger.errors import NotFoundError
from ledger.registry import StoredConsent
from ledger.typed_data import outer_of
from web.door import custodian
from web.signed_in import signed_in

routes = Blueprint("receipts", __name__)


@routes.get("/receipts/<consent_id>")
def page(consent_id: str) -> str:
    """The receipts of one consent."""
    consent, held = _mine(consent_id), custodian()
    ended = held.grants.revocation_receipt(consent.consent_id) if consent.revoked_at is not None else None
    return render_template(
        "portal/receipt.html",
        consent=consent,
        granted=held.grants.receipt(consent.consent_id),
        ended=ended,
        code=_code_of(f"{held.config.service_url}/verify"),
    )


@routes.get("/receipts/<consent_id>/grant.jwt")
def grant(consent_id: str) -> Response:
    """What was signed, signed by the custodian as well."""
    return _file(custodian().grants.receipt(_mine(consent_id).consent_id), "consent-receipt.jwt", "application/jwt")


@routes.get("/receipts/<consent_id>/revocation.jwt")
def revocation(consent_id: str) -> Response:
    """How it was ended. Raises `NotFoundError` if it was not."""
    token = custodian().grants.revocation_receipt(_mine(consent_id).consent_id)
    return _file(token, "revocation-receipt.jwt", "application/jwt")


@routes.get("/receipts/<consent_id>/without-us.txt")
def without_us(consent_id: str) -> Response:
    """How this very consent is ended by the person alone, should this service be gone; to be kept with the receipt."""
    consent, domain = _mine(consent_id), custodian().chain.domain
    text = render_template(
        "portal/without_us.txt",
        consent=consent,
        domain=domain,
        calldata="0x" + revoke_call([outer_of(consent.grant)], b"").hex(),
        selector="0x" + call("consentOf", b"\0" * 32).hex()[:8],
    )
    return _file(text, "stop-without-us.txt", "text/plain")


@routes.get("/receipts/<consent_id>/record.jsonld")
def record(consent_id: str) -> Response:
    """The same for other people's software: ISO/IEC TS 27560 in the words of DPV."""
    consent = _mine(consent_id)
    document = custodian().subject_export.consent_receipt(consent.subject_id, consent.consent_id)
    return _file(json.dumps(document, ensure_ascii=False, indent=2), "consent-record.jsonld", "application/ld+json")


def _mine(consent_id: str) -> StoredConsent:
    me, given = signed_in(), parse_hex32(consent_id, "consent")
    found = custodian().registry.find_consent(Hex32(given))
    if found is None or found.subject_id != me.subject_id:
        raise NotFoundError("consent: no such consent", field="consent")
    return found


def _file(text: str, name: str, kind: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(text, content_type=f"{kind}; charset=utf-8", headers=headers)


def _code_of(address: str) -> Markup:
    """An address as a QR code: SVG without any style of its own."""
    return Markup(  # noqa: S704 - made of our own address
        segno.make(address, error="m").svg_inline(scale=4, border=2, dark="#000", svgclass="qr", lineclass=None)
    )
