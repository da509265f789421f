"""My data: what is held about the person and where it comes from; disputing it, taking a copy, erasing all of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from flask import Blueprint, Response, make_response, render_template, request
from flask_babel import gettext as _

from ledger.disputes import MAX_LENGTH, MIN_LENGTH
from ledger.errors import ConflictError, MalformedError, NotFoundError
from web.door import custodian
from web.responses import download, see_other
from web.security import drop_token
from web.signed_in import is_stepped_up, require_step_up, signed_in

ERASE_WORDS: Final = ("ERASE", "删除")
"""What is typed to erase: the word of either language, whatever the page is in."""

routes = Blueprint("data", __name__, url_prefix="/data")


@routes.get("")
def page() -> str:
    """Every attribute, with its source."""
    return _page()


def _page(*, problem: str = "", attribute: str = "", statement: str = "") -> str:
    me = signed_in()
    return render_template(
        "portal/data.html",
        attributes=custodian().subject_data.attributes(me.subject_id),
        least=MIN_LENGTH,
        most=MAX_LENGTH,
        problem=problem,
        wrong=attribute,
        statement=statement,
    )


@routes.post("/disputes")
def dispute() -> Response:
    """Say that a value is wrong: fields `attribute` and `statement`."""
    me = signed_in()
    attribute, statement = request.form.get("attribute", ""), request.form.get("statement", "")
    try:
        custodian().disputes.open(me.subject_id, attribute, statement.replace("\r\n", " ").replace("\n", " ").strip())
    except MalformedError:
        words = _("Say in %(least)d to %(most)d characters what is wrong.", least=MIN_LENGTH, most=MAX_LENGTH)
        return make_response(
            _page(problem=words, attribute=attribute, statement=statement), HTTPStatus.UNPROCESSABLE_ENTITY
        )
    except (ConflictError, NotFoundError):
        # Said already, perhaps in another window; or not held any more. The page shows how it stands.
        return see_other("/data")
    return see_other(f"/data#{attribute}")


@routes.post("/disputes/withdraw")
def withdraw() -> Response:
    """Take it back: field `attribute`."""
    me, attribute = signed_in(), request.form.get("attribute", "")
    try:
        custodian().disputes.withdraw(me.subject_id, attribute)
    except NotFoundError:
        return see_other("/data")
    return see_other(f"/data#{attribute}")


@routes.get("/export.json")
def export() -> Response:
    """Everything, as one document."""
    me, held = signed_in(), custodian()
    return _json_file(held.subject_export.of_subject(me.subject_id, account_id=me.account_id), "consent-ledger.json")


@routes.get("/erase")
def erase_page() -> str:
    """What an erasure takes, and what it cannot."""
    return _erase_page()


@routes.post("/erase")
def erase() -> Response:
    """Erase everything: field `word`. Needs step-up. Whoever did it is signed out, for ever."""
    me, held = signed_in(), custodian()
    if request.form.get("word", "").strip().upper() not in ERASE_WORDS:
        return make_response(_erase_page(wrong=True), HTTPStatus.UNPROCESSABLE_ENTITY)
    require_step_up()
    erased = held.eraser.erase_subject(me.subject_id)
    drop_token()
    return make_response(render_template("portal/erased.html", erased=erased, me=None))


def _erase_page(*, wrong: bool = False) -> str:
    me, held = signed_in(), custodian()
    return render_template(
        "portal/erase.html",
        preview=held.eraser.preview(me.subject_id),
        stepped_up=is_stepped_up(),
        words=ERASE_WORDS,
        wrong=wrong,
    )


def _json_file(document: Mapping[str, Any], name: str) -> Response:
    return download(json.dumps(document, ensure_ascii=False, indent=2), name, "application/json")
