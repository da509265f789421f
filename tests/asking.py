"""Asking: the HTTP API as institutions and furnishers meet it, the whole application in this process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any, Final, cast
from urllib.parse import urlsplit

from actors import Furnisher, Institution, Subject, World, new_nonce
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from ledger import signatures
from ledger.consent import Hex32, hex32_of
from ledger.custodian import Custodian
from ledger.exchange import check_jwks
from ledger.signatures import HttpRequest, HttpResponse
from web import create_app

Party = Institution | Furnisher

NOWHERE: Final = hex32_of(b"\x5a" * 32)
"""An id that nothing has."""
NO_UUID: Final = "01900000-0000-7000-8000-000000000000"
FURNISHING: Final = "/v1/subjects/"
JSON: Final = {"Content-Type": "application/json"}
REQUESTED: Final[dict[str, Any]] = {
    "purpose": "loan-origination",
    "attributes": ["credit_amount"],
    "optionalAttributes": ["savings"],
    "validityDays": 30,
    "maxAccesses": 3,
    "accessesPerDay": 3,
    "retentionDays": 31,
}
WANTED: Final[dict[str, Any]] = {"purpose": "loan-origination", "attributes": ["credit_amount"]}
DECISION: Final[dict[str, Any]] = {
    "decision": "declined",
    "reasons": ["Income insufficient for the amount"],
    "attributes": ["credit_amount"],
}
HANDED_IN: Final[dict[str, Any]] = {"asOf": "2026-02-28", "values": {"credit_amount": 1200}}


def bodies(world: World) -> dict[str, Any]:
    """For each operation that takes one, a body that is right in itself."""
    new = Institution(world.institution.institution_id)
    item = WANTED | {"consent": NOWHERE, "idempotencyKey": "an-item"}
    return {
        "POST /v1/consent-requests": REQUESTED,
        "POST /v1/consents/{consent}/deletion-attestations": {"deletedAt": world.clock()},
        "POST /v1/consents/{consent}/releases": WANTED,
        "POST /v1/batch/releases": {"releases": [item]},
        "POST /v1/releases/{release}/adverse-action": DECISION,
        "PUT /v1/webhook": {"url": "https://bank.example/events"},
        "PUT /v1/keys": {"jwks": check_jwks(new.jwks), "overlapDays": 7},
        "PUT /v1/subjects/{ref}/attributes": HANDED_IN,
    }


def party_id(who: Party) -> str:
    return who.institution_id if isinstance(who, Institution) else who.furnisher_id


def said(answer: TestResponse) -> Any:
    """What an answer says, read as JSON."""
    assert answer.json is not None, answer.text
    return answer.json


def code(answer: TestResponse) -> str:
    """Why a request was refused; empty if it was not."""
    return str(said(answer).get("code", ""))


class Api:
    """The application of a world's custodian. Every answer to a signed request is checked to be signed to it."""

    def __init__(self, world: World) -> None:
        self.world = world
        app = create_app(world.custodian)
        self.client: FlaskClient = app.test_client()

    @property
    def url(self) -> str:
        return self.world.custodian.config.service_url

    def request(
        self, method: str, path: str, body: object = None, *, key: str | None = None, **headers: str
    ) -> HttpRequest:
        """Not signed yet. `body` is bytes, or what is to be JSON; `key` the idempotency key."""
        content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        fields = (JSON if content else {}) | ({"Idempotency-Key": key} if key is not None else {}) | headers
        return HttpRequest(method=method, url=f"{self.url}{path}", headers=fields, body=content)

    def signed(
        self, who: Party, message: HttpRequest, *, at: int | None = None, nonce: str | None = None
    ) -> HttpRequest:
        """A signature of the current time, with a fresh nonce."""
        return signatures.sign_request(
            message,
            party_id=party_id(who),
            key=who.signing_key,
            at=self.world.clock() if at is None else at,
            nonce=nonce or new_nonce(),
        )

    def send(self, message: HttpRequest, *, target: str | None = None) -> TestResponse:
        """As it is. `target` stands in the request line instead of the path of its URL."""
        parts = urlsplit(message.url)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        overrides = {} if target is None else {"RAW_URI": target}
        answer = self.client.open(
            path, method=message.method, headers=message.headers, data=message.body, environ_overrides=overrides
        )
        if message.header("Signature") and target is None:
            self._require_signed(message, answer)
        return answer

    def _require_signed(self, message: HttpRequest, answer: TestResponse) -> None:
        held = self.world.custodian
        response = HttpResponse(
            status_code=answer.status_code, headers=dict(answer.headers), body=answer.data, request=message
        )
        signatures.verify_response(response, party_id=held.address, key=held.accounts.signing_key)

    def ask(
        self, who: Party | None, method: str, path: str, body: object = None, *, key: str | None = None, **headers: str
    ) -> TestResponse:
        """One request, signed unless nobody asks."""
        message = self.request(method, path, body, key=key, **headers)
        return self.send(self.signed(who, message) if who else message)

    # -------------------------------------------------------------------------------------- what a lender does in order

    def release(self, who: Party, consent: str, *, key: str | None = None, **wanted: Any) -> TestResponse:
        return self.ask(who, "POST", f"/v1/consents/{consent}/releases", WANTED | wanted, key=key or new_nonce())

    def token(self, who: Institution, **changes: Any) -> tuple[str, str]:
        """Asks for a consent. Returns the request's id and the token of its link."""
        made = self.ask(who, "POST", "/v1/consent-requests", REQUESTED | changes)
        assert made.status_code == 201, made.text
        return said(made)["id"], said(made)["link"].rsplit("/", 1)[-1]

    def accept(self, token: str, subject: Subject | None = None) -> Hex32:
        """The person who was sent the link says yes to what is asked for."""
        held, person = self.world.custodian, subject or self.world.subject
        draft = held.requests.draft(token, person.address)
        subject_id = held.vault.subject_of(person.ref)
        return held.requests.accept(token, draft, person.sign(held, draft), subject_id).consent_id

    def objects(self, who: Institution, subject: Subject | None = None) -> dict[str, str]:
        """One of everything that an institution can have, by the names of the path parameters."""
        request, token = self.token(who)
        consent = self.accept(token, subject)
        released = self.release(who, consent)
        (event,) = [one for one in said(self.ask(who, "GET", "/v1/events"))["events"] if one["consent"] == consent]
        ref = (subject or self.world.subject).ref
        ids = {
            "request": request,
            "consent": consent,
            "release": said(released)["id"],
            "event": event["id"],
            "ref": ref,
        }
        return {name: str(value) for name, value in ids.items()}


@cache
def document() -> Mapping[str, Any]:
    """The OpenAPI document, which needs no custodian."""
    app = create_app(cast("Custodian", None))
    found = app.test_client().get("/openapi.json").json
    assert found is not None
    return cast("Mapping[str, Any]", found)


def operations() -> list[str]:
    """`METHOD /path` of everything that the document describes."""
    return [f"{method.upper()} {path}" for path, found in document()["paths"].items() for method in found]


def filled(path: str, world: World, **ids: str) -> str:
    """A path of the document with its parameters filled in: with what is nowhere, unless given."""
    known = {"consent": NOWHERE, "release": NOWHERE, "request": NO_UUID, "event": NO_UUID, "ref": world.subject.ref}
    for name, value in (known | ids).items():
        path = path.replace(f"{{{name}}}", value)
    assert "{" not in path, f"{path}: a parameter that this kit does not know"
    return path
