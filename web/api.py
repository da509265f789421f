"""The API of institutions and furnishers, under /v1. Thin: each route reads its models and calls one verb.

Who asks was settled before a route is reached (`door.py`); whatever is another's is answered as what does not exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import segno
from flask import Response, request
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel

from ledger import release, standing
from ledger.consent import ZERO32, Hex32
from ledger.errors import LedgerError, MalformedError
from ledger.exchange import release_request
from ledger.journal import INTENT, RECORDED
from ledger.json_forms import DAY_SECONDS
from ledger.parties import INSTITUTION
from ledger.signatures import IDEMPOTENCY_KEY
from web import models, problems
from web.door import answered, caller, custodian, signed
from web.metrics import count_release

if TYPE_CHECKING:
    from sqlalchemy import Row

    from ledger import consent_requests, duties, outbox


CONSENTS: Final = Tag(name="Consents", description="ask for one, see where it stands, give it up")
RELEASES: Final = Tag(name="Releases", description="ask for data under a consent; what follows from having it")
EVENTS: Final = Tag(name="Events", description="what happens to consents, pushed and polled")
KEYS: Final = Tag(name="Keys", description="the institution's own keys")
FURNISHING: Final = Tag(name="Furnishing", description="handing data in")

routes = APIBlueprint("api", __name__, url_prefix="/v1")


def _answer(model: BaseModel, status: HTTPStatus = HTTPStatus.OK) -> Response:
    return _json(model.model_dump_json(by_alias=True), status)


def _json(text: str, status: HTTPStatus = HTTPStatus.OK) -> Response:
    return Response(text, status=status, content_type="application/json")


# ----------------------------------------------------------------------------------------------------- consent requests


@routes.post("/consent-requests", tags=[CONSENTS], responses={201: models.ConsentRequest})
def ask_for_consent(body: models.NewConsentRequest) -> Response:
    """Ask a person for a consent: the answer has a link to hand to them.

    Checked against the ceilings of the purpose; a refusal names the field. To change a consent, ask for a new one that
    names it in `replaces`: the old one is revoked when the new one is granted, and stays usable until then.
    """
    found = custodian().requests.ask(
        caller().party,
        purpose=body.purpose,
        attributes=body.attributes,
        optional_attributes=body.optional_attributes,
        validity_days=body.validity_days,
        max_accesses=body.max_accesses,
        accesses_per_day=body.accesses_per_day,
        retention_days=body.retention_days,
        replaces=ZERO32 if body.replaces is None else Hex32(body.replaces),
        answer_within_days=body.answer_within_days,
    )
    return _answer(_consent_request(found), HTTPStatus.CREATED)


@routes.get("/consent-requests", tags=[CONSENTS], responses={200: models.ConsentRequestList})
def list_consent_requests(query: models.Page) -> Response:
    """Your consent requests, newest first."""
    found = custodian().requests.listed(caller().party, limit=query.limit, after=query.after)
    return _answer(models.ConsentRequestList(requests=[_consent_request(one) for one in found]))


@routes.get("/consent-requests/<request>", tags=[CONSENTS], responses={200: models.ConsentRequest})
def see_consent_request(path: models.RequestPath) -> Response:
    """What became of a consent request: pending, granted, declined or expired."""
    return _answer(_consent_request(custodian().requests.get(path.request, caller().party)))


def _consent_request(one: consent_requests.ConsentRequest) -> models.ConsentRequest:
    return models.ConsentRequest(
        id=one.request_id,
        state=one.state,  # type: ignore[arg-type] # one of these four
        purpose=one.purpose,
        attributes=list(one.attributes),
        optional_attributes=list(one.optional_attributes),
        validity_days=one.validity_days,
        max_accesses=one.max_accesses,
        accesses_per_day=one.accesses_per_day,
        retention_days=one.retention_days,
        replaces=None if one.replaces == ZERO32 else one.replaces,
        notice_hash=one.notice_hash,
        created_at=one.created_at,
        answer_by=one.answer_by,
        consent=one.consent_id,
        link=one.link,
        qr=_qr(one.link) if one.link else None,
    )


def _qr(link: str) -> str:
    return str(segno.make(link, error="m").svg_inline(scale=4))


# ------------------------------------------------------------------------------------------------------------- consents


@routes.get("/consents", tags=[CONSENTS], responses={200: models.ConsentList})
def list_consents(query: models.PageByHash) -> Response:
    """Your consents, newest first."""
    after = Hex32(query.after) if query.after is not None else None
    found = custodian().standings.of_institution(caller().party.party_id, limit=query.limit, after=after)
    return _answer(models.ConsentList(consents=_consents(found)))


@routes.get("/consents/<consent>", tags=[CONSENTS], responses={200: models.Consent})
def see_consent(path: models.ConsentPath) -> Response:
    """A consent's terms, and where it stands: state with its reason, uses left, last use, what must be deleted when."""
    held = custodian()
    found = held.registry.consent_of(Hex32(path.consent), caller().party.party_id)
    (one,) = _consents(held.standings.of([found]))
    return _answer(one)


@routes.delete("/consents/<consent>", tags=[CONSENTS], responses={200: models.Consent})
def give_consent_up(path: models.ConsentPath) -> Response:
    """Give a consent up, for ever. The person is told; the duty to delete what was received stays."""
    held = custodian()
    found = held.registry.consent_of(Hex32(path.consent), caller().party.party_id)
    if found.revoked_at is None:
        held.grants.revoke_as_custodian([found.consent_id], by="institution")
    (one,) = _consents(held.standings.of([held.registry.consent(found.consent_id)]))
    return _answer(one)


def _consents(found: list[standing.Standing]) -> list[models.Consent]:
    ids = [one.consent.consent_id for one in found]
    owed, asked = custodian().duties.standing(ids), custodian().registry.requests_of(ids)
    return [_consent(one, owed[one.consent.consent_id], asked.get(one.consent.consent_id)) for one in found]


def _consent(one: standing.Standing, owed: duties.DeletionDuty, request_id: str | None) -> models.Consent:
    grant, terms = one.consent.grant, one.consent.grant.terms
    return models.Consent(
        id=one.consent.consent_id,
        state=one.state,  # type: ignore[arg-type] # one of these
        reason=None if one.state in (standing.IN_FORCE, standing.PENDING) else one.state,
        purpose=terms.purpose,
        attributes=list(terms.attributes),
        subject=grant.subject,
        valid_from=grant.valid_from,
        expires_at=grant.expires_at,
        max_accesses=grant.max_accesses,
        accesses_per_day=terms.accesses_per_day,
        retention_days=terms.retention_days,
        notice_hash=terms.notice_hash,
        uses_left=one.uses_left,
        used_today=one.used_today,
        last_used_at=one.last_used_at,
        granted_at=one.consent.created_at,
        revoked_at=one.consent.revoked_at,
        replaces=None if terms.replaces == ZERO32 else terms.replaces,
        replaced_by=one.consent.replaced_by,
        deletion=models.DeletionDuty(due_at=owed.due_at, attested_at=owed.attested_at, overdue=owed.overdue),
        request=request_id,
    )


@routes.post("/consents/<consent>/deletion-attestations", tags=[RELEASES], responses={201: models.DeletionAttestation})
def attest_deletion(path: models.ConsentPath, body: models.NewDeletionAttestation) -> Response:
    """State that everything received under a consent was deleted. The signed request is kept as your statement.

    It is due when the retention of the last release ends. An overdue one is visible to the person and to the auditor.
    """
    asked = caller()
    made = custodian().duties.attest_deletion(
        asked.party, Hex32(path.consent), deleted_at=body.deleted_at, evidence=asked.evidence
    )
    answer = models.DeletionAttestation(
        id=made.attestation_id, consent=made.consent_id, deleted_at=made.deleted_at, recorded_at=made.created_at
    )
    return _answer(answer, HTTPStatus.CREATED)


# ------------------------------------------------------------------------------------------------------------- releases


@routes.post("/consents/<consent>/releases", tags=[RELEASES], responses={200: models.Release})
def release_under_consent(path: models.ConsentPath, body: models.NewRelease) -> Response:
    """Ask for attributes under a consent. It is on the log before it is answered; the answer is sealed to your key.

    `Idempotency-Key` makes a retry the same request: it gets the identical answer and makes no second entry, for 24
    hours. Sign each try anew, with a nonce of its own. A refusal is the answer of its key, also a temporary one such as
    `paused`: ask again later under a new key. `403` says exactly why: one of the contract's reasons (`not_granted`,
    `not_yet_valid`, `expired`, `paused`, `revoked`, `exhausted`, `wrong_custodian`), or `attribute_not_consented`,
    `purpose_mismatch`, `daily_limit`, `disputed`, `erased`, `aborted`. `503` is safe to retry under the same key.
    """
    asked = signed()
    wanted = release_request(
        asked.evidence,
        asked.party.party_id,
        consent_id=Hex32(path.consent),
        purpose=body.purpose,
        attributes=body.attributes,
        idempotency_key=request.headers.get(IDEMPOTENCY_KEY),
    )
    (result,) = answered([wanted])
    count_release(result)
    if isinstance(result, Exception):
        raise result
    return _answer(_release(result, wanted.access.consent_id))


@routes.get("/consents/<consent>/releases", tags=[RELEASES], responses={200: models.ReleaseList})
def list_releases(path: models.ConsentPath, query: models.PageByHash) -> Response:
    """What you asked for under a consent, newest first: also once the answers are kept no more.

    The ids are those of the receipt, the proof and the adverse action.
    """
    held, party = custodian(), caller().party
    consent = held.registry.consent_of(Hex32(path.consent), party.party_id)
    after = Hex32(query.after) if query.after is not None else None
    found = held.releases.of_consent(consent, party, limit=query.limit, after=after)
    return _answer(models.ReleaseList(releases=[_listed(row) for row in found]))


def _listed(row: Row[Any]) -> models.ListedRelease:
    return models.ListedRelease(
        id=row.release_id,
        state="unfinished" if row.state in (INTENT, RECORDED) else row.state,
        reason=row.reason,
        late=row.late,
        asked_at=row.created_at,
        finished_at=row.finished_at,
    )


@routes.get("/releases/<release>", tags=[RELEASES], responses={200: models.Release})
def see_release(path: models.ReleasePath) -> Response:
    """The identical answer again, for 24 hours; then `410`. What was refused is answered with its reason."""
    held, party = custodian(), caller().party
    found = held.releases.found(Hex32(path.release), party)
    return _answer(_release(found, held.releases.row_of(found.release_id, party).consent_id))


@routes.get("/releases/<release>/receipt", tags=[RELEASES], responses={200: models.Receipt})
def see_receipt(path: models.ReleasePath) -> Response:
    """The AccessReceipt, with the place where the entry stands now: a chain that was rebuilt may have moved it."""
    held = custodian()
    held.releases.row_of(Hex32(path.release), caller().party)
    return _answer(models.Receipt(receipt=held.releases.receipt(Hex32(path.release))))


@routes.get("/releases/<release>/proof", tags=[RELEASES], responses={200: models.ProofBundle})
def see_proof(path: models.ReleasePath) -> Response:
    """The receipt with everything that leads from it to the hash of a block: a proof for the time after us.

    Merkle proofs of the log's head, and the batches from the entry to that head. It is checked without any network,
    against a block hash that you have from elsewhere (`consent-ledger receipts verify`). Fetch it
    soon: a node that is no archive proves an old entry by a recent block, and the bundle has all that came in between.
    """
    bundle = models.ProofBundle(**custodian().proofs.bundle(Hex32(path.release), caller().party))
    # Exactly what was made: who verifies it refuses a field more.
    return _json(bundle.model_dump_json(by_alias=True, exclude_unset=True))


@routes.post("/batch/releases", tags=[RELEASES], responses={200: models.BatchResults})
def release_many(body: models.NewBatch) -> Response:
    """Many releases in one signed request, one append to the log; each has its own key and its own result."""
    asked = signed()
    wanted = [
        release_request(
            asked.evidence,
            asked.party.party_id,
            consent_id=Hex32(item.consent),
            purpose=item.purpose,
            attributes=item.attributes,
            idempotency_key=item.idempotency_key,
        )
        for item in body.releases
    ]
    results = answered(wanted)
    for result in results:
        count_release(result)
    return _answer(
        models.BatchResults(
            results=[_batch_result(item, result) for item, result in zip(body.releases, results, strict=True)]
        )
    )


def _batch_result(item: models.BatchItem, result: release.Release | Exception) -> models.BatchResult:
    if isinstance(result, release.Release):
        return models.BatchResult(status=HTTPStatus.OK, release=_release(result, item.consent))
    if not isinstance(result, LedgerError):
        raise result
    problem = models.Problem(**problems.fields_of(result))
    return models.BatchResult(status=problem.status, problem=problem)


def _release(one: release.Release, consent_id: str) -> models.Release:
    return models.Release(
        id=one.release_id, consent=consent_id, answer=one.sealed.decode(), receipt=one.receipt, late=one.late
    )


@routes.post("/releases/<release>/adverse-action", tags=[RELEASES], responses={200: models.AdverseAction})
def record_adverse_action(path: models.ReleasePath, body: models.NewAdverseAction) -> Response:
    """Record a decision against the person that relied on this release. The person sees it, with its reasons."""
    asked = caller()
    made = custodian().duties.adverse_action(
        asked.party,
        Hex32(path.release),
        decision=body.decision,
        reasons=body.reasons,
        attributes=body.attributes,
        evidence=asked.evidence,
    )
    return _answer(
        models.AdverseAction(
            release=made.release_id,
            decision=made.decision,
            reasons=list(made.reasons),
            attributes=list(made.attributes),
            recorded_at=made.created_at,
        )
    )


# --------------------------------------------------------------------------------------------------- events and webhook


@routes.get("/webhook", tags=[EVENTS], responses={200: models.Webhook})
def see_webhook() -> Response:
    """Where your events are sent."""
    return _answer(models.Webhook(url=custodian().webhooks.url_of(caller().party.party_id)))


@routes.put("/webhook", tags=[EVENTS], responses={200: models.Webhook})
def register_webhook(body: models.NewWebhook) -> Response:
    """Have events sent to an address of yours: signed by the custodian, at least once, until answered with 2xx.

    What is sent, and how it is retried, stands under *Webhooks*.
    """
    custodian().webhooks.register(caller().party.party_id, body.url)
    return _answer(models.Webhook(url=body.url))


@routes.delete("/webhook", tags=[EVENTS], responses={200: models.Webhook})
def remove_webhook() -> Response:
    """Have events sent nowhere; they can still be polled."""
    custodian().webhooks.unregister(caller().party.party_id)
    return _answer(models.Webhook(url=None))


@routes.get("/events", tags=[EVENTS], responses={200: models.EventList})
def list_events(query: models.Page) -> Response:
    """What happened to your consents, oldest first, and whether you have acknowledged it.

    An event stays here whatever became of sending it; once acknowledged or given up, for 90 days.
    """
    held = custodian()
    index = held.registry.institution_index(caller().party.party_id)
    found = held.outbox.of(index, after=query.after, limit=query.limit)
    return _answer(models.EventList(events=[_event(one) for one in found]))


@routes.post("/events/<event>/acknowledgement", tags=[EVENTS], responses={200: models.Event})
def acknowledge_event(path: models.EventPath) -> Response:
    """Say that you know. An event that was delivered is acknowledged already."""
    held = custodian()
    index = held.registry.institution_index(caller().party.party_id)
    return _answer(_event(held.outbox.acknowledge(index, path.event, at=held.clock())))


def _event(one: outbox.Event) -> models.Event:
    return models.Event.model_validate(
        {
            "id": one.event_id,
            "kind": one.kind,
            "consent": one.consent_id,
            "at": one.created_at,
            "details": one.details,
            "state": one.state,
            "attempts": one.attempts,
            "last_answer": one.last_answer,
            "acknowledged_at": one.acknowledged_at,
        }
    )


# ----------------------------------------------------------------------------------------------------------------- keys


@routes.get("/keys", tags=[KEYS], responses={200: models.KeySet})
def see_keys() -> Response:
    """Your public keys as they are registered here."""
    return _answer(models.KeySet(keys=caller().party.jwks["keys"]))


def _require_public(jwks: Mapping[str, Any]) -> None:
    keys = jwks.get("keys")
    if isinstance(keys, list) and any(isinstance(key, Mapping) and "d" in key for key in keys):
        raise MalformedError("jwks: expected public keys only: make new ones, we have seen these", field="jwks")


@routes.put("/keys", tags=[KEYS], responses={200: models.KeySet})
def rotate_keys(body: models.NewKeys) -> Response:
    """Replace your keys. The present ones count for the overlap, the new ones at once; answers go to the new ones."""
    _require_public(body.jwks)
    held = custodian()
    party = held.registry.rotate_keys(
        INSTITUTION,
        caller().party.party_id,
        body.jwks,
        now=held.clock(),
        overlap_seconds=body.overlap_days * DAY_SECONDS,
    )
    return _answer(models.KeySet(keys=party.jwks["keys"]))


# ----------------------------------------------------------------------------------------------------------- furnishers


@routes.put("/subjects/<path:ref>/attributes", tags=[FURNISHING], responses={200: models.Furnished})
def furnish(path: models.SubjectPath, body: models.NewAttributes) -> Response:
    """Hand in what you know of a person. A changed value is a new version; who received the old one is told.

    Signed by a registered furnisher. All of it is taken or nothing.
    """
    asked = caller()
    put = custodian().furnish.put(asked.party, path.ref, as_of=body.as_of, values=body.values, evidence=asked.evidence)
    return _answer(models.Furnished(added=list(put.added), unchanged=list(put.unchanged), told=put.told))


@routes.post("/subjects/<path:ref>/invitations", tags=[FURNISHING], responses={201: models.Invitation})
def invite(path: models.SubjectPath) -> Response:
    """A one-time code with which a person enrols at the portal, if all values held of them are yours.

    Of anyone else the custodian makes it. Hand it to the person and nobody else: whoever has it sees what is held about
    them. A new code voids the older ones.
    """
    held = custodian()
    made = held.furnish.invite(caller().party, path.ref)
    answer = models.Invitation(code=made.code, link=f"{held.config.portal_origin}/enrol", expires_at=made.expires_at)
    return _answer(answer, HTTPStatus.CREATED)
