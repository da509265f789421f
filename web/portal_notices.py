"""Notices: what a person should know of without asking; and every text that was ever signed for, word by word."""

from __future__ import annotations

from flask import Blueprint, render_template

from ledger.consent import parse_hex32
from web import language
from web.door import custodian
from web.signed_in import signed_in

routes = Blueprint("notices", __name__)


@routes.get("/notices")
def listed() -> str:
    """What concerns the person, and the notices of their consents."""
    me, held = signed_in(), custodian()
    signed: dict[str, str] = {}
    for consent in held.registry.consents(me.subject_id):
        signed.setdefault(consent.grant.terms.notice_hash, consent.grant.terms.purpose)
    return render_template(
        "portal/notices.html", concerns=held.concerns.of_subject(me.subject_id), signed=list(signed.items())
    )


@routes.get("/notices/<notice_hash>")
def page(notice_hash: str) -> str:
    """One notice. It says nothing of anyone, so anyone may read it."""
    notice = custodian().notices.notice(parse_hex32(notice_hash, "notice"))
    return render_template("portal/notice.html", notice=notice, part=notice.part(language.language()))
