"""Consents: what was granted, where it stands, and how it is paused and stopped.

What the person's key signs is drafted here and handed in here. `stop` is the custodian's own narrowing, at the person's
wish: a plain form, for whoever has no key at hand or no scripts. It can end a consent and never make or widen one.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from flask import Blueprint, Response, jsonify, make_response, render_template
from pydantic import Field
from sqlalchemy import Row

from ledger.activity import READ, TURNED_AWAY, WAITING
from ledger.consent import ZERO32, Hex32, parse_hex32
from ledger.contract import decode_call
from ledger.errors import LedgerError, NotFoundError
from ledger.grants import MOST_AT_ONCE, ActResult, at_once
from ledger.outbox import BY_SUBJECT
from ledger.registry import StoredConsent
from ledger.typed_data import pause_typed_data, revocation_typed_data
from web import language, models, views
from web.door import custodian
from web.json_body import body_of
from web.models import Model, Signature
from web.signed_in import signed_in

Consents = Annotated[list[models.Hex32], Field(min_length=1, max_length=MOST_AT_ONCE)]

routes = Blueprint("consents", __name__)


class Wanted(Model):
    """Which consents are to be stopped."""

    consents: Consents | Literal["all"]


class Revocation(Model):
    """One signature over these."""

    consents: Consents
    signature: Signature


class Revocations(Model):
    """One for each account that granted."""

    revocations: Annotated[list[Revocation], Field(min_length=1, max_length=MOST_AT_ONCE)]


class Pause(Model):
    """Whether it is to be paused."""

    paused: bool


class SignedPause(Pause):
    """As signed."""

    sequence: Annotated[int, Field(ge=1, le=2**32 - 1)]
    signature: Signature


# --------------------------------------------------------------------------------------------------------------- pages


@routes.get("/consents")
def listed() -> str:
    """Every consent of the person: active, paused, ended."""
    held = custodian()
    shown, is_known = views.views_of(held, held.registry.consents(signed_in().subject_id))
    groups: defaultdict[str, list[views.ConsentView]] = defaultdict(list)
    for one in reversed(shown):
        groups[one.state].append(one)
    return render_template(
        "portal/consents.html",
        active=groups[views.WAITING] + groups[views.ACTIVE],
        paused=groups[views.PAUSED],
        ended=groups[views.ENDED],
        is_known=is_known,
    )


@routes.get("/consents/<consent_id>")
def page(consent_id: str) -> str:
    """One consent with everything about it."""
    return _page(mine(consent_id))


@routes.post("/consents/<consent_id>/stop")
def stop(consent_id: str) -> Response:
    """Stop it without the person's key; says what came of it, and how long it took."""
    consent, held = mine(consent_id), custodian()
    if consent.revoked_at is not None:
        return make_response(_page(consent))
    started = time.monotonic()
    (result,) = held.grants.revoke_as_custodian([consent.consent_id], by=BY_SUBJECT)
    milliseconds = round((time.monotonic() - started) * 1000)
    return make_response(_page(mine(consent_id), stopped=result, milliseconds=milliseconds))


def _page(consent: StoredConsent, *, stopped: ActResult | None = None, milliseconds: int = 0) -> str:
    held, me = custodian(), signed_in()
    notice = views.notice_of(held, consent.grant.terms.notice_hash)
    return render_template(
        "portal/consent.html",
        one=views.view_of(held, consent),
        grant=consent.grant,
        terms=consent.grant.terms,
        replaces=consent.grant.terms.replaces if consent.grant.terms.replaces != ZERO32 else None,
        part=notice.part(language.language()) if notice else None,
        acts=[(_what(act, consent), act) for act in held.journal.acts_about(consent.consent_id)],
        reads=held.activity.page(me.subject_id, consent_id=consent.consent_id, outcomes=READ),
        tries=held.activity.page(me.subject_id, consent_id=consent.consent_id, outcomes=(*TURNED_AWAY, WAITING)),
        duty=held.duties.standing([consent.consent_id])[consent.consent_id],
        stopped=stopped,
        seconds=f"{milliseconds / 1000:.1f}",
    )


def _what(act: Row[Any], consent: StoredConsent) -> str:
    """What an act did: its kind; `resume` of a pause that is none; of the custodian's, at whose wish it was."""
    if act.kind == "pause":
        _, (_, paused, *_) = decode_call(act.calldata)
        return "pause" if paused else "resume"
    if act.kind == "custodian-revoke":
        if consent.replaced_by:
            return "replaced"
        return "stopped-for-you" if custodian().registry.revoked_by(consent.consent_id) == BY_SUBJECT else "stopped"
    return str(act.kind)


# --------------------------------------------------------------------------------------------- what the scripts ask for


@routes.post("/consents/revocations")
def revocations() -> Response:
    """What is to be signed to stop these: one text for each account that granted."""
    wanted, held = body_of(Wanted), custodian()
    all_of_mine = held.registry.consents(signed_in().subject_id)
    live = [one for one in all_of_mine if one.revoked_at is None]
    chosen = live if wanted.consents == "all" else _these(wanted.consents)
    groups: defaultdict[tuple[str, str], list[Hex32]] = defaultdict(list)
    for consent in chosen:
        groups[consent.grant.terms.institution, consent.grant.subject].append(consent.consent_id)
    return jsonify(
        groups=[
            {
                "institution": institution,
                "subject": subject,
                "consents": ids,
                "typedData": revocation_typed_data(ids, held.chain.domain),
            }
            for (institution, subject), of_account in groups.items()
            for ids in at_once(of_account)
        ]
    )


@routes.post("/consents/revoke")
def revoke() -> Response:
    """Hand in what was signed. All of it is in force here before any of it is sent to the chain.

    What cannot be taken keeps no other one waiting: it is not among the results. Raises why, if nothing can.
    """
    given, held = body_of(Revocations), custodian()
    signed = [(_these(one.consents), bytes.fromhex(one.signature[2:])) for one in given.revocations]
    started = time.monotonic()
    results = held.grants.revoke_each([([one.consent_id for one in mine], signature) for mine, signature in signed])
    taken = [result for result in results if isinstance(result, ActResult)]
    for result in results:
        if isinstance(result, LedgerError) and not taken:
            raise result
    return jsonify(results=[_result(result, started) for result in taken])


@routes.post("/consents/<consent_id>/pause-draft")
def pause_draft(consent_id: str) -> Response:
    """What is to be signed to pause or resume."""
    wanted, consent, held = body_of(Pause), mine(consent_id), custodian()
    sequence = held.grants.next_pause(consent.consent_id)
    payload = pause_typed_data(consent.consent_id, paused=wanted.paused, sequence=sequence, domain=held.chain.domain)
    return jsonify(typedData=payload, institution=consent.grant.terms.institution)


@routes.post("/consents/<consent_id>/pause")
def pause(consent_id: str) -> Response:
    """Hand in what was signed."""
    given, consent = body_of(SignedPause), mine(consent_id)
    started = time.monotonic()
    result = custodian().grants.set_paused(
        consent.consent_id,
        paused=given.paused,
        sequence=given.sequence,
        signature=bytes.fromhex(given.signature[2:]),
    )
    return jsonify(_result(result, started))


# -------------------------------------------------------------------------------------------------------------- inside


def mine(consent_id: str) -> StoredConsent:
    """A consent of whoever is signed in. Raises `NotFoundError` (also if it is another's)."""
    return _these([consent_id])[0]


def _these(consent_ids: Sequence[str]) -> list[StoredConsent]:
    """Consents of whoever is signed in. What is another's does not exist."""
    me, held = signed_in(), custodian()
    found = []
    for given in consent_ids:
        consent = held.registry.find_consent(parse_hex32(given, "consent"))
        if consent is None or consent.subject_id != me.subject_id:
            raise NotFoundError("consent: no such consent", field="consent")
        found.append(consent)
    return found


def _result(result: ActResult, started: float) -> dict[str, Any]:
    receipt = result.receipt
    return {
        "consents": list(result.consent_ids),
        "storedAt": result.stored_at,
        "state": "on_chain" if receipt else "pending",
        "transactionHash": receipt.transaction_hash if receipt else None,
        "blockNumber": receipt.block_number if receipt else None,
        "milliseconds": round((time.monotonic() - started) * 1000),
    }
