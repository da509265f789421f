"""The first page: signed out, what this is; signed in, who can read one's data now, and who did last."""

from __future__ import annotations

from typing import Final

from flask import Blueprint, render_template

from ledger.activity import READ, TURNED_AWAY, WAITING
from ledger.consent_requests import PENDING
from web import views
from web.door import custodian
from web.signed_in import maybe_signed_in

LAST_READS: Final = 5
LAST_TRIES: Final = 3

routes = Blueprint("home", __name__)


@routes.get("/")
def home() -> str:
    """Either."""
    me, held = maybe_signed_in(), custodian()
    if me is None:
        return render_template("portal/home.html")
    shown, is_known = views.views_of(held, held.registry.consents(me.subject_id))
    requests = [
        one
        for one in held.own_requests.for_subject(me.subject_id)
        if one.request.state == PENDING and not one.is_hidden
    ]
    return render_template(
        "portal/overview.html",
        open=[one for one in reversed(shown) if one.state in (views.ACTIVE, views.WAITING)],
        paused=[one for one in reversed(shown) if one.state == views.PAUSED],
        is_known=is_known,
        requests=requests,
        activity=[
            *held.activity.page(me.subject_id, limit=LAST_READS, outcomes=READ),
            *held.activity.page(me.subject_id, limit=LAST_TRIES, outcomes=(*TURNED_AWAY, WAITING)),
        ],
        concerns=held.concerns.of_subject(me.subject_id),
    )
