"""Consent requests: the list, the page of one, and its answers.

Whoever holds a link sees what is asked. Signed in, opening it makes it theirs. Accepting is signed in the browser and
handed in here; declining is a plain form, which works without scripts and without an account.
"""

from __future__ import annotations

import time
from typing import Annotated, Any, Final

from flask import Blueprint, Response, jsonify, render_template
from pydantic import Field

from ledger.consent import ZERO32, Hex32, parse_address
from ledger.consent_requests import PENDING, ConsentRequest
from ledger.own_requests import OwnRequest
from ledger.typed_data import grant_typed_data, parse_grant
from web import language
from web.door import custodian
from web.json_body import body_of
from web.models import Model, Signature
from web.responses import see_other
from web.signed_in import maybe_signed_in, require_step_up, signed_in

DECLINE_STEPS: Final = 1
ACCEPT_STEPS: Final = 3
"""Accept, one touch or one prompt, Sign. What the page makes of each answer, which a browser test counts."""
Days = Annotated[int, Field(ge=0, le=100_000)]
Number = Annotated[int, Field(ge=1, le=100_000)]

routes = Blueprint("requests", __name__)


class Choices(Model):
    """What a person chose: which account signs, which optional attributes, and limits that may be shorter."""

    subject: Annotated[str, Field(max_length=42)]
    attributes: Annotated[list[Annotated[str, Field(max_length=64)]], Field(max_length=200)]
    max_accesses: Number
    accesses_per_day: Number
    retention_days: Days
    validity_days: Number


class SignedGrant(Model):
    """What was signed, and the signature in hex."""

    grant: dict[str, Any]
    signature: Signature


@routes.get("/requests")
def listed() -> str:
    """Everything that was asked of the person."""
    own = custodian().own_requests.for_subject(signed_in().subject_id)
    return render_template(
        "portal/requests.html",
        open=[one for one in own if one.request.state == PENDING and not one.is_hidden],
        hidden=[one for one in own if one.is_hidden],
        answered=[one for one in own if one.request.state != PENDING],
    )


@routes.get("/requests/<token>")
def page(token: str) -> str:
    """One request; opened by who is signed in, it is theirs."""
    me, held = maybe_signed_in(), custodian()
    own: OwnRequest | None = None
    if me is None:
        asked = held.requests.opened(token)
    else:
        own = held.own_requests.claim(token, me.subject_id)
        asked = own.request
    return _page(token, asked, own)


@routes.post("/requests/<token>/reopen")
def reopen(token: str) -> Response:
    """Look at a request that is kept from view, by one's own will."""
    custodian().own_requests.reopen(token, signed_in().subject_id)
    return see_other(f"/requests/{token}")


@routes.post("/requests/<token>/decline")
def decline(token: str) -> Response:
    """Say no: one click."""
    me, held = maybe_signed_in(), custodian()
    if me is None:
        held.requests.decline(token)
    else:
        held.own_requests.decline(token, me.subject_id, steps=DECLINE_STEPS)
    return see_other(f"/requests/{token}")


@routes.post("/requests/<token>/draft")
def draft(token: str) -> Response:
    """What the person is to sign for what they chose; nothing is on file yet."""
    me, chosen, held = signed_in(), body_of(Choices), custodian()
    grant = held.requests.draft(
        token,
        parse_address(chosen.subject, "subject"),
        attributes=chosen.attributes,
        max_accesses=chosen.max_accesses,
        accesses_per_day=chosen.accesses_per_day,
        retention_days=chosen.retention_days,
        validity_days=chosen.validity_days,
        subject_id=me.subject_id,
    )
    return jsonify(typedData=grant_typed_data(grant, held.chain.domain), consentId=held.grants.id_of(grant))


@routes.post("/requests/<token>/accept")
def accept(token: str) -> Response:
    """Hand in what was signed. Needs step-up; the same again goes on where it was cut off."""
    me, given, held = require_step_up(), body_of(SignedGrant), custodian()
    started = time.monotonic()
    grant = parse_grant(given.grant)
    stored = held.requests.accept(token, grant, bytes.fromhex(given.signature[2:]), me.subject_id, steps=ACCEPT_STEPS)
    granted = next((act for act in held.journal.acts_about(stored.consent_id) if act.kind == "grant"), None)
    return jsonify(
        consentId=stored.consent_id,
        state="standing" if stored.standing else "pending",
        transactionHash=granted.transaction_hash if granted else None,
        blockNumber=granted.block_number if granted else None,
        milliseconds=round((time.monotonic() - started) * 1000),
    )


def _page(token: str, asked: ConsentRequest, own: OwnRequest | None) -> str:
    held, me = custodian(), maybe_signed_in()
    notice = held.notices.notice(asked.notice_hash)
    is_on_its_way = asked.state == PENDING and held.requests.is_on_its_way(token, me.subject_id if me else None)
    return render_template(
        "portal/request.html",
        token=token,
        asked=asked,
        own=own,
        notice=notice,
        part=notice.part(language.language()),
        is_on_its_way=is_on_its_way,
        is_barred=held.registry.institution(asked.institution).suspended,
        replaced=_replaced(asked),
        link=f"{held.config.service_url}/requests/{token}",
        block={
            "token": token,
            "institution": asked.institution,
            "institutionName": asked.institution_name,
            "purpose": asked.purpose,
            "required": list(asked.attributes),
            "optional": list(asked.optional_attributes),
            "validityDays": asked.validity_days,
            "maxAccesses": asked.max_accesses,
            "accessesPerDay": asked.accesses_per_day,
            "retentionDays": asked.retention_days,
            "noticeHash": asked.notice_hash,
            "noticeText": notice.text,
            "replaces": asked.replaces,
        },
    )


def _replaced(asked: ConsentRequest) -> Hex32 | None:
    """The consent of whoever is signed in that a yes would end. Opens nothing: another's may be erased."""
    me, held = maybe_signed_in(), custodian()
    if me is None or asked.replaces == ZERO32:
        return None
    with held.store.read() as tx:
        row = held.registry.rows(tx, [asked.replaces]).get(asked.replaces)
    return asked.replaces if row is not None and row.subject_id == me.subject_id else None
