"""What anyone may see: who this is, whether it works, the API's document and its interactive pages."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import flask_openapi3_swagger
from flask import Response, abort, jsonify, send_from_directory
from flask_openapi3.openapi import OpenAPI

from ledger.attributes import ASKABLE
from ledger.authentication import WINDOW_SECONDS
from ledger.errors import ChainError, LedgerError
from ledger.notice_texts import notice_hash_of
from ledger.purposes import PURPOSES
from ledger.release import KEPT_SECONDS
from ledger.signatures import FRESH_SECONDS, IDEMPOTENCY_KEY
from web import models
from web.door import custodian

API_VERSION: Final = "1.0.0"
INTRODUCTION: Final = """\
Ask people for consent to read their credit data, read it under what they consented to, and keep evidence of it that
stands without us.

Every request under `/v1` is signed by you (HTTP Message Signatures, RFC 9421): cover `@method`, `@target-uri`, the
`content-digest` of a body (RFC 9530) and `idempotency-key` where there is one; give `created`, a fresh `nonce` of 16 to
200 characters and `keyid="<your id>#<kid>"`. Keys are Ed25519 or P-256. Every answer is signed by the custodian, whose
key is in `/.well-known/consent-ledger`; so are refusals.

Errors are problems (RFC 9457) with a stable `code`. What is another's is answered as what does not exist.
"""
SWAGGER: Final = Path(flask_openapi3_swagger.__file__).parent / "templates" / "swagger"
HERE: Final = Path(__file__).parent
ASSETS: Final = {
    "swagger-ui.css": SWAGGER / "css",
    "swagger-ui-bundle.js": SWAGGER / "js",
    "docs.js": HERE / "static",
    "docs.css": HERE / "static",
    "lender.sh": HERE / "examples",
    "lender.mjs": HERE / "examples",
    "package.json": HERE / "examples",
}
DOCS_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
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


def install(app: OpenAPI) -> None:
    """Add the routes."""
    app.add_url_rule("/.well-known/consent-ledger", view_func=_deployment)
    app.add_url_rule("/healthz", view_func=_healthz)
    app.add_url_rule("/readyz", view_func=_readyz)
    document = _document(app)
    app.add_url_rule("/openapi.json", "openapi", lambda: jsonify(document))
    app.add_url_rule("/docs", "docs", _docs)
    app.add_url_rule("/docs/<asset>", "docs_asset", _docs_asset)


def _deployment() -> Response:
    held = custodian()
    config, domain = held.config, held.chain.domain
    deployment = models.Deployment(
        api_version=API_VERSION,
        service_url=config.service_url,
        chain_id=domain.chain_id,
        contract=domain.contract,
        custodian=held.address,
        jwks=models.KeySet(keys=[dict(held.accounts.signing_key.as_dict(private=False))]),
        finality=config.finality.tag,
        signature_max_age=FRESH_SECONDS,
        answers_kept=KEPT_SECONDS,
        rate_limit=config.rate_limit * 60 // WINDOW_SECONDS,
        purposes=[
            models.Purpose(
                code=one.code,
                label=one.label,
                description=one.description,
                notice_hash=notice_hash_of(one),
                attributes=sorted(one.attributes),
                max_validity_days=one.max_validity_days,
                max_accesses=one.max_accesses,
                max_accesses_per_day=one.max_accesses_per_day,
                max_retention_days=one.max_retention_days,
            )
            for one in PURPOSES.values()
        ],
        attributes=[
            models.Attribute(name=one.name, label=one.label, unit=one.unit, sensitivity=one.sensitivity.value)
            for one in ASKABLE.values()
        ],
    )
    return Response(deployment.model_dump_json(by_alias=True), content_type="application/json")


def _healthz() -> Response:
    return _health(models.Health(status="ok"))


def _readyz() -> Response:
    """Ready to release: the chain answers, it is the right one, and the database can be written."""
    held = custodian()
    chain = database = "ok"
    try:
        held.chain.check()
    except ChainError as exc:
        chain = exc.code
    try:
        with held.store.begin():
            pass
    except LedgerError as exc:
        database = exc.code
    return _health(
        models.Health(
            status="ok" if (chain, database) == ("ok", "ok") else "unavailable", chain=chain, database=database
        )
    )


def _health(health: models.Health) -> Response:
    status = HTTPStatus.OK if health.status == "ok" else HTTPStatus.SERVICE_UNAVAILABLE
    return Response(health.model_dump_json(exclude_none=True), status=status, content_type="application/json")


# ------------------------------------------------------------------------------------------------------------ documents


def _docs() -> Response:
    page = (HERE / "static" / "docs.html").read_text(encoding="utf-8")
    return Response(page, content_type="text/html; charset=utf-8", headers={"Content-Security-Policy": DOCS_POLICY})


def _docs_asset(asset: str) -> Response:
    if asset not in ASSETS:
        abort(HTTPStatus.NOT_FOUND)
    return send_from_directory(ASSETS[asset], asset, max_age=3600)


def _document(app: OpenAPI) -> dict[str, Any]:
    """The OpenAPI document, with what the generator does not know: our problems, signatures, the idempotency key."""
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
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            operation["security"] = [{"signature": []}]
            operation["responses"] = {
                status: answer for status, answer in operation["responses"].items() if status.startswith("2")
            } | {status: {"description": text, "content": problem} for status, text in ERRORS.items()}
            if path.endswith("/releases") and "consents" in path:
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
