"""What anyone may see: who this is, whether it works, the API's document and its interactive pages."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Final

import flask_openapi3_swagger
from flask import Response, abort, jsonify, send_from_directory
from flask_openapi3.openapi import OpenAPI

from ledger.attributes import ASKABLE, Attribute, ValueType
from ledger.authentication import WINDOW_SECONDS
from ledger.errors import LedgerError
from ledger.notice_texts import notice_hash_of
from ledger.private_files import require_room
from ledger.purposes import PURPOSES
from ledger.release import KEPT_SECONDS
from ledger.signatures import FRESH_SECONDS
from web import models
from web.document import API_VERSION, document_of
from web.door import custodian

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


def install(app: OpenAPI) -> None:
    """Add the routes."""
    app.add_url_rule("/.well-known/consent-ledger", view_func=_deployment)
    app.add_url_rule("/healthz", view_func=_healthz)
    app.add_url_rule("/readyz", view_func=_readyz)
    document = document_of(app)
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
        attributes=[_attribute(one) for one in ASKABLE.values()],
    )
    return Response(deployment.model_dump_json(by_alias=True), content_type="application/json")


def _attribute(one: Attribute) -> models.Attribute:
    is_number = one.type is ValueType.INTEGER
    return models.Attribute(
        name=one.name,
        label=one.label,
        unit=one.unit,
        sensitivity=one.sensitivity.value,
        type=one.type.value,
        minimum=one.minimum if is_number else None,
        maximum=one.maximum if is_number else None,
        categories=[models.Category(code=code, label=label) for code, label in one.categories.items()],
        note=one.note or None,
    )


def _healthz() -> Response:
    return _health(models.Health(status="ok"))


def _readyz() -> Response:
    """Ready to release: the right chain answers, a log can be built on, the database can be written, the keys read.

    Where the database has room left in its own files, nothing else may have, such as the journal of unwraps. Of the
    writer is said what is wrong with it, and nothing else: `log_ahead` takes the operator, see `writers.py`.
    """
    held = custodian()
    found = {
        "chain": _outcome(held.chain.check),
        "database": _outcome(held.store.check_writable, partial(require_room, held.config.data)),
        "keys": _outcome(held.keys.look_again, partial(require_room, held.config.key_file.parent)),
    }
    if found["chain"] == "ok" and (writer := _outcome(held.require_writer)) != "ok":
        found["writer"] = writer
    return _health(models.Health(status="ok" if set(found.values()) == {"ok"} else "unavailable", **found))


def _outcome(*checks: Callable[[], object]) -> str:
    try:
        for check in checks:
            check()
    except LedgerError as exc:
        return exc.code
    return "ok"


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
