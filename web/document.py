"""The API's document: what the generator makes of routes and models, and what it does not know."""

from __future__ import annotations

from typing import Any, Final

from flask_openapi3.models.info import Info
from flask_openapi3.openapi import OpenAPI

from ledger.answers import ERRORS as OWN_ERRORS
from ledger.signatures import IDEMPOTENCY_KEY
from web import models, problems

API_VERSION: Final = "1.0.0"
_INTRODUCTION: Final = """\
Ask people for consent to read their credit data, read it under what they consented to, and keep evidence of it that
stands without us.

Every request under `/v1` is signed by you (HTTP Message Signatures, RFC 9421): cover `@method`, `@target-uri`, the
`content-digest` of a body (RFC 9530) and `idempotency-key` where there is one; give `created`, a fresh `nonce` of 16 to
200 characters and `keyid="<your id>#<kid>"`. `@target-uri` begins with the `serviceUrl` of
`/.well-known/consent-ledger`, by whatever address you reach the service. Keys are Ed25519 or P-256. Every answer is
signed by the custodian, whose key is in `/.well-known/consent-ledger`; so are refusals.

Errors are problems (RFC 9457). Their `code` never changes its meaning: all codes are in this table, also those of the
portal, and a code that you do not know means what its status means. A refusal of a release is the answer of its
idempotency key: ask again under a new one. What is another's is answered as what does not exist.

A suspended institution is refused everywhere but where it does what it owes: deletion attestations, adverse actions,
receipts, proofs and events.

{errors}
"""
ERRORS: Final = {
    "401": "not signed by a current key of a registered party, stale, or replayed",
    "403": "the answer is no: `code` says exactly why",
    "404": "there is no such thing, or it is not yours",
    "409": "at odds with what stands",
    "410": "no longer kept",
    "411": "a body needs its `Content-Length`",
    "413": "too large",
    "422": "a field is not as expected: `field` names it",
    "429": "too many requests: see `Retry-After`",
    "500": "an error of the service",
    "503": "the chain or the store cannot be reached: nothing was released, try again",
}


def info() -> Info:
    """What stands at the head of the document."""
    return Info(title="Consent Ledger", version=API_VERSION, description=_INTRODUCTION.format(errors=_error_table()))


def _error_table() -> str:
    """Every code that leaves the service, by status, in Markdown: a code means the same for ever."""
    kinds = [kind for kind in OWN_ERRORS.values() if kind not in problems.NOT_FOUND]
    own = [(kind.http_status, kind.code, problems.title_of(kind)) for kind in kinds]
    rows = sorted([*own, *((status, code, text) for status, (code, text) in problems.HTTP_CODES.items())])
    lines = ["| status | code | what it means, and what to do |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {status} | `{code}` | {text} |" for status, code, text in rows)])


_EVENT_SENT: Final = """\
POSTed to the address of `PUT /v1/webhook`, and signed by the custodian as you sign requests: over `@method`,
`@target-uri` (your address as you registered it) and `content-digest`, with `keyid="<custodian>#<kid>"` of the key in
`/.well-known/consent-ledger`. Verify that before you believe it: anyone can POST.

Any 2xx within 5 seconds says that you know, as `POST /v1/events/{event}/acknowledgement` does. After anything else the
event is sent again, under the same `id` with another nonce: after 10 s, 30 s, 2 min, 10 min, 1 h, and every 6 h, for
three days. You may receive one twice. They come one at a time and the oldest first, but one that failed waits while
later ones go: order by `id`, which grows, or go on from the last one by `GET /v1/events?after=`.

What an event tells of is in force already. It names no person and no value.
"""


def _event_sent() -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{models.SentEvent.__name__}"}
    return {
        "tags": ["Events"],
        "summary": "An event, as it is sent to your webhook",
        "description": _EVENT_SENT,
        "operationId": "event_sent",
        "security": [{"signature": []}],
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": {
            "2XX": {"description": "taken, and thereby acknowledged"},
            "default": {"description": "not taken: it is sent again"},
        },
    }


def document_of(app: OpenAPI) -> dict[str, Any]:
    """The OpenAPI document of the app, with what no generator knows: problems, signatures, the idempotency key."""
    document = dict(app.api_doc)
    document["servers"] = [{"url": "/"}]
    document.setdefault("components", {})["securitySchemes"] = {
        "signature": {
            "type": "apiKey",
            "in": "header",
            "name": "Signature",
            "description": "HTTP Message Signatures, RFC 9421, with the header Signature-Input",
        }
    }
    document["webhooks"] = {"event": {"post": _event_sent()}}
    document["components"]["schemas"][models.SentEvent.__name__] = models.SentEvent.model_json_schema()
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            operation["security"] = [{"signature": []}]
            operation["responses"] = {
                status: answer for status, answer in operation["responses"].items() if status.startswith("2")
            } | {status: {"description": text, "content": problem} for status, text in ERRORS.items()}
            if method == "post" and path.endswith("/releases") and "consents" in path:
                operation.setdefault("parameters", []).append(
                    {
                        "in": "header",
                        "name": IDEMPOTENCY_KEY.title(),
                        "required": True,
                        "description": "makes a retry the same request",
                        "schema": {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[!-~]+$"},
                    }
                )
    return document
