"""Activity: who read the person's data, who tried, what authorities ordered, and what makes each of it checkable."""

from __future__ import annotations

from typing import Final

from flask import Blueprint, Response, render_template, request

from ledger.activity import MAX_PAGE, PAGE, READ, TURNED_AWAY
from ledger.consent import parse_hex32
from ledger.json_forms import DAY_SECONDS
from web.door import custodian
from web.responses import download
from web.signed_in import signed_in
from web.timeline import WIDTH, timeline

PERIODS: Final = (30, 90, 365)

routes = Blueprint("activity", __name__)


@routes.get("/activity")
def listed() -> str:
    """A page of it, newest first, of one institution if chosen."""
    me, held = signed_in(), custodian()
    institution = request.args.get("institution") or None
    after = request.args.get("after")
    days = request.args.get("days", type=int)
    entries = held.activity.page(
        me.subject_id,
        limit=PAGE,
        after=parse_hex32(after, "after") if after else None,
        institution=institution,
    )
    period = days if days in PERIODS else PERIODS[0]
    now = held.clock()
    readers = held.activity.readers(me.subject_id)
    # By themselves, so that no number of refused attempts takes a read out of the picture.
    reads, refusals = (
        held.activity.page(me.subject_id, limit=MAX_PAGE, institution=institution, outcomes=outcomes)
        for outcomes in (READ, TURNED_AWAY)
    )
    picture = timeline(
        [
            one
            for one in held.activity.readers(me.subject_id, since=now - period * DAY_SECONDS)
            if institution in (None, one.institution)
        ],
        [*reads, *refusals],
        held.registry.consents(me.subject_id),
        now=now,
        days=period,
    )
    return render_template(
        "portal/activity.html",
        entries=entries,
        has_more=len(entries) == PAGE,
        readers=readers,
        ordered=held.activity.compelled(me.subject_id),
        institution=institution,
        after=after,
        period=period,
        periods=PERIODS,
        picture=picture,
        width=WIDTH,
    )


@routes.get("/activity/orders/<order_hash>")
def order(order_hash: str) -> str:
    """One access that an authority ordered, with the openings of the order and of its entry."""
    found = custodian().activity.compelled_entry(signed_in().subject_id, parse_hex32(order_hash, "activity"))
    return render_template(
        "portal/order.html",
        entry=found.activity,
        order=found.order.as_json(),
        opening=found.entry.as_json(),
        proof=found.proof,
    )


@routes.get("/activity/orders/<order_hash>/receipt.jwt")
def order_receipt(order_hash: str) -> Response:
    """The receipt of it: it proves by itself what was ordered, and where on the log it stands."""
    me = signed_in()
    token = custodian().orders.receipt(parse_hex32(order_hash, "activity"), subject_id=me.subject_id)
    return download(token, "order-receipt.jwt", "application/jwt")


@routes.get("/activity/<release_id>")
def page(release_id: str) -> str:
    """One access or attempt, with its opening."""
    found = custodian().activity.entry(signed_in().subject_id, parse_hex32(release_id, "activity"))
    proof = found.proof
    return render_template(
        "portal/access.html",
        entry=found.activity,
        opening=found.entry.as_json(),
        block=None
        if proof is None
        else {
            "entry": found.entry.as_json(),
            "entryHash": found.activity.entry_hash,
            "proof": {
                "chainId": proof.chain_id,
                "contract": proof.contract,
                "transactionHash": proof.transaction_hash,
            },
        },
        proof=proof,
    )
