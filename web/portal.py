"""The subject's portal: the frame around its pages, and what all of them share.

Pages are in `portal_*.py`, by topic, as blueprints; templates in `templates/portal/`; what a page may say about a
consent is made in `views.py`, so that templates decide nothing. Reading works without scripts, and so do declining and
stopping, once signed in; signing in and signing need them, because keys never leave the browser.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from flask import Blueprint, Flask, Response, g, send_from_directory
from flask_babel import gettext

from ledger.attributes import ASKABLE
from ledger.consent_requests import PENDING
from ledger.purposes import PURPOSES
from ledger.sessions import STEP_UP_SECONDS
from web import (
    error_pages,
    language,
    portal_activity,
    portal_audit,
    portal_chain,
    portal_consents,
    portal_data,
    portal_home,
    portal_notices,
    portal_public,
    portal_receipts,
    portal_requests,
)
from web.door import custodian
from web.script_texts import script_texts
from web.signed_in import maybe_signed_in

STATIC: Final = Path(__file__).parent / "static" / "portal"
ASSET_SECONDS: Final = 3600

routes = Blueprint("portal", __name__)


def install(app: Flask) -> None:
    """Add the portal's pages to the app."""
    language.install(app)
    error_pages.install(app)
    for blueprint in (
        routes,
        portal_home.routes,
        portal_requests.routes,
        portal_consents.routes,
        portal_activity.routes,
        portal_data.routes,
        portal_chain.routes,
        portal_notices.routes,
        portal_public.routes,
        portal_audit.routes,
        portal_receipts.routes,
    ):
        app.register_blueprint(blueprint)
    app.add_template_global(waiting)
    app.add_template_global(script_block)


@routes.get("/static/portal/<path:asset>")
def static(asset: str) -> Response:
    """Style sheet, scripts and pictures."""
    return send_from_directory(STATIC, asset, max_age=ASSET_SECONDS)


def waiting() -> int:
    """How many requests wait for an answer of whoever is signed in."""
    me = maybe_signed_in()
    if me is None:
        return 0
    if "waiting" not in g:
        own = custodian().own_requests.for_subject(me.subject_id)
        g.waiting = sum(one.request.state == PENDING and not one.is_hidden for one in own)
    number: int = g.waiting
    return number


def script_block() -> dict[str, Any]:
    """What the scripts of a page are told, see `static/portal/page.js`. Every word that they show is among it."""
    held, me = custodian(), maybe_signed_in()
    domain = held.chain.domain
    enrolment = held.enrolment
    return {
        "chainId": domain.chain_id,
        "contract": domain.contract,
        "custodian": held.address,
        "locale": language.LOCALES[language.language()],
        "wallets": [wallet.address for wallet in enrolment.wallets(me.account_id)] if me else [],
        "passkey": bool(me and enrolment.passkeys(me.account_id)),
        "signedInBy": me.method if me else None,
        "stepUpUntil": me.stepped_up_at + STEP_UP_SECONDS if me and me.stepped_up_at is not None else None,
        "labels": {
            "purposes": {code: language.purpose_label(code) for code in PURPOSES},
            "attributes": {name: language.attribute_label(name) for name in ASKABLE},
        },
        "texts": script_texts(gettext),
    }
