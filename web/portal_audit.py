"""The audit of this deployment, for anyone: the verdict, pictures, and how to come to the same without us.

`POST /audit/rpc` hands an auditor's questions on to the node: reading only, about the contract only, many in one
request. A liar behind it gains nothing: an audit believes no answer that does not follow from the block's hash.
"""

from __future__ import annotations

import json
import threading
from http import HTTPStatus
from typing import Annotated, Any, Final

from flask import Blueprint, Response, abort, current_app, jsonify, render_template, request
from flask_babel import gettext
from markupsafe import Markup
from pydantic import Field, ValidationError

from ledger.attempts import AUDIT_RPC
from ledger.audit_pictures import consents_figure, entries_figure, gaps_figure, growth_figure
from ledger.audit_report import AuditReport
from ledger.audit_spans import spans_of
from ledger.audit_style import PICTURES
from ledger.audit_texts import UNPROVEN, check_text, finding_text, is_proven, not_made, reason_text
from ledger.cli_audit_output import report_html
from ledger.errors import MalformedError, RateLimitedError
from ledger.json_forms import DAY_SECONDS
from ledger.jsonrpc import RpcError
from ledger.picture_parts import bar, grouped, patterns
from web import problems
from web.door import client, custodian
from web.live_audit import LiveAudit
from web.models import Model
from web.portal_chain import NODE_ERROR, Question, require_log_filter, require_plain
from web.responses import download

MAX_RPC: Final = 64 * 1024
MOST_CALLS: Final = 128
MOST_BLOCKS_OF_RECEIPTS: Final = 16
MOST_SLOTS: Final = 256
AT_ONCE: Final = 4
METHODS: Final = {
    "eth_chainId": 0,
    "eth_getBlockByNumber": 2,
    "eth_getBlockByHash": 2,
    "eth_getBlockReceipts": 1,
    "eth_getTransactionReceipt": 1,
    "eth_getProof": 3,
    "eth_getCode": 2,
    "eth_getLogs": 1,
}
"""What an audit asks, and how many parameters each question has."""
REFRESH_SECONDS: Final = 5

routes = Blueprint("audit", __name__)
_asking = threading.BoundedSemaphore(AT_ONCE)
"""So that audits from outside never have more than a few of the threads that people and institutions wait for."""


@routes.get("/audit")
def page() -> Response:
    """The verdict on this deployment, and how to come to one's own."""
    live = _live()
    report = live.report()
    is_current = report is not None and live.is_current(report)
    made = Response(
        render_template(
            "portal/audit.html",
            report=report,
            is_current=is_current,
            command=command(report),
            contract=custodian().chain.domain.contract,
            checks=[(check, check_text(check.name)) for check in report.checks] if report else [],
            missing=not_made(report) if report else [],
            found=_found(report) if report else [],
            refused=_refused(report) if report else [],
            figures=_figures(report) if report else [],
            unproven="" if report is None or is_proven(report) else UNPROVEN,
            patterns=Markup(patterns()),  # noqa: S704 - markup that escapes by itself
        ),
        content_type="text/html; charset=utf-8",
    )
    if not is_current:
        made.headers["Refresh"] = str(REFRESH_SECONDS)
    return made


@routes.get("/audit/report.json")
def as_json() -> Response:
    """The last report for machines."""
    return _file(json.dumps(_report().as_json(), indent=1), "audit-report.json", "application/json")


@routes.get("/audit/report.html")
def as_html() -> Response:
    """The last report as a file to print and to keep."""
    report = _report()
    return _file(report_html(report, command=command(report)), "audit-report.html", "text/html")


@routes.get("/static/pictures.css")
def style() -> Response:
    """How the pictures look: the same as in the file."""
    return Response(PICTURES, content_type="text/css; charset=utf-8", headers={"Cache-Control": "max-age=3600"})


def command(report: AuditReport | None) -> str:
    """What repeats the audit, of the same block, from anywhere."""
    held = custodian()
    domain = held.chain.domain
    lines = [
        "consent-ledger audit chain",
        f"--rpc-url {held.config.service_url}/audit/rpc",
        f"--chain-id {domain.chain_id}",
        f"--contract {domain.contract}",
    ]
    if report is not None and report.block is not None:
        lines.append(f"--block {report.block.block_hash}")
    return " \\\n  ".join(lines)


def _live() -> LiveAudit:
    held, extensions = custodian(), current_app.extensions
    if "live_audit" not in extensions:
        extensions.setdefault("live_audit", LiveAudit(held.config, held.chain, clock=held.clock))
    live: LiveAudit = extensions["live_audit"]
    return live


def _report() -> AuditReport:
    report = _live().report()
    if report is None:
        abort(HTTPStatus.SERVICE_UNAVAILABLE)
    return report


def _found(report: AuditReport) -> list[tuple[str, int, Any]]:
    return [(code, count, finding_text(code)) for code, count in report.by_code()]


def _refused(report: AuditReport) -> list[tuple[str, str, Markup]]:
    most = max(report.refusals_by_reason.values(), default=1)
    return [
        (reason_text(reason), grouped(count), Markup(bar(count / most, "refused")))  # noqa: S704 - as above
        for reason, count in sorted(report.refusals_by_reason.items(), key=lambda one: -one[1])
    ]


def _figures(report: AuditReport) -> list[tuple[Any, Markup, Markup]]:
    until = None if report.block is None else report.block.timestamp // DAY_SECONDS
    spans = spans_of(report.days, until)
    figures = (
        entries_figure(spans, gettext),
        growth_figure(spans, gettext),
        consents_figure(spans, gettext),
        gaps_figure(report, gettext),
    )
    return [(one, Markup(one.picture or ""), Markup(one.legend or "")) for one in figures]  # noqa: S704 - as above


def _file(text: str, name: str, kind: str) -> Response:
    response = download(text, name, kind)
    response.headers["Cache-Control"] = "no-store"
    return response


# ------------------------------------------------------------------------------------------------------------- the node


class Questions(Model):
    """What came, one or many."""

    asked: Annotated[list[Question], Field(min_length=1, max_length=MOST_CALLS)]


@routes.post("/audit/rpc")
def rpc() -> Response:
    """An auditor's questions to the chain, each of them one of a few. Errors of the node come back as they are."""
    held = custodian()
    held.attempts.count(AUDIT_RPC, client())
    asked, is_batch = _questions()
    for one in asked:
        _require_allowed(one.method, one.params)
    if sum(one.method == "eth_getBlockReceipts" for one in asked) > MOST_BLOCKS_OF_RECEIPTS:
        raise MalformedError(f"body: expected receipts of at most {MOST_BLOCKS_OF_RECEIPTS} blocks", field="body")
    if not _asking.acquire(timeout=1.0):
        raise RateLimitedError("expected fewer questions at once", limit=AT_ONCE, retry_after=1)
    try:
        found = held.rpc.each(*((one.method, one.params) for one in asked))
    finally:
        _asking.release()
    answers = [_answer(one, result) for one, result in zip(asked, found, strict=True)]
    response = jsonify(answers if is_batch else answers[0])
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def _questions() -> tuple[list[Question], bool]:
    request.max_content_length = MAX_RPC
    if request.mimetype != "application/json":
        raise MalformedError("content-type: expected application/json", field="content-type")
    body = request.get_data().strip()
    is_batch = body.startswith(b"[")
    try:
        # As an object, because the reader is strict and wants one.
        read = current_app.json.loads(b'{"asked":' + (body if is_batch else b"[" + body + b"]") + b"}")
        asked = Questions.model_validate(read).asked
    except ValidationError as exc:
        abort(problems.validation_response(exc))
    except ValueError as exc:
        raise MalformedError("body: expected JSON-RPC", field="body") from exc
    if not is_batch and len(asked) > 1:
        raise MalformedError("body: expected one question, or a list", field="body")
    return asked, is_batch


def _answer(asked: Question, result: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    if isinstance(result, RpcError):
        return {"jsonrpc": "2.0", "id": asked.id, "error": {"code": NODE_ERROR, "message": result.message}}
    return {"jsonrpc": "2.0", "id": asked.id, "result": result}


def _require_allowed(method: str, params: list[Any]) -> None:
    if METHODS.get(method) != len(params):
        raise MalformedError(f"method: expected one of {', '.join(METHODS)} with its parameters", field="method")
    if method == "eth_getLogs":
        require_log_filter(params[0])
        return
    if method in ("eth_getProof", "eth_getCode"):
        contract = custodian().chain.domain.contract
        if str(params[0]).lower() != contract.lower():
            raise MalformedError("params: expected a question about the contract", field="params")
    if method == "eth_getProof":
        if not (isinstance(params[1], list) and len(params[1]) <= MOST_SLOTS):
            raise MalformedError(f"params: expected at most {MOST_SLOTS} slots", field="params")
        params = [params[0], params[2]]
    require_plain(method, params)
