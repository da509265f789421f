"""The door of the API: every request under /v1 is authenticated before anything looks at it, every answer is signed."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from flask import Flask, Response, abort, current_app, g, request
from flask.json.provider import DefaultJSONProvider

from ledger.authentication import Caller, Signed
from ledger.custodian import Custodian
from ledger.errors import MalformedError
from ledger.exchange import ReleaseRequest
from ledger.parties import FURNISHER, INSTITUTION
from ledger.release import Release
from ledger.signatures import HttpRequest, HttpResponse, sign_response
from web.clients import client_of

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

API: Final = "/v1/"
MAX_BODY: Final = 256 * 1024
FURNISHERS: Final = "/v1/subjects/"
RELEASES: Final = re.compile(r"/v1/(consents/[^/]+|batch)/releases")
_AUTHORITY: Final = re.compile(r"https?://[^/?#]*", re.IGNORECASE)
DUTIES: Final = frozenset(
    {
        "api.list_releases",
        "api.attest_deletion",
        "api.record_adverse_action",
        "api.see_receipt",
        "api.see_proof",
        "api.list_events",
        "api.acknowledge_event",
    }
)
"""What a suspended institution still owes, or needs to do what it owes. Nothing else is open to it."""
LET_IN_BY_THEIR_ROUND: Final = frozenset({"api.release_under_consent", "api.release_many"})
"""Releases are let in by the transaction that puts them on file; for all others, that of `authenticate`."""


class StrictJson(DefaultJSONProvider):
    """An object, in UTF-8. Refuses what two readers could read in two ways: a name twice, NaN, nesting without end."""

    sort_keys = False

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:  # noqa: ANN401, ARG002 - JSON
        """Raises `ValueError`."""
        # Left to itself, json guesses UTF-16 and UTF-32, and forgives a byte order mark.
        text = s.decode() if isinstance(s, bytes) else s
        try:
            found = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)
        except RecursionError as exc:
            raise ValueError("nested too deeply") from exc
        if not isinstance(found, dict):
            # A text would be read once more, as JSON in JSON, by another reader than this one.
            raise ValueError("expected an object")  # noqa: TRY004 - the one error of a reader of JSON
        return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name twice")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(name)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number without end")
    return number


def custodian() -> Custodian:
    """The one that this process serves."""
    held: Custodian = current_app.extensions["custodian"]
    return held


def client() -> str:
    """Whose tries this request counts among: an address that whoever sends it cannot choose."""
    forwarded = request.headers.get("X-Forwarded-For", "")
    return client_of(request.remote_addr or "", forwarded, proxies=custodian().config.proxies)


def caller() -> Caller:
    """Who sent this request, authenticated and let in."""
    let_in: Caller = g.caller
    return let_in


def signed() -> Signed:
    """Who sent this request; not let in yet, which `answered` does."""
    verified: Signed = g.signed
    return verified


def answered(requests: Sequence[ReleaseRequest]) -> list[Release | Exception]:
    """Answer the releases that this signed request asks for; it is let in by the same transaction."""
    g.caller, results = custodian().releases.answer(requests, g.signed)
    return results


def install(app: Flask) -> None:
    """Put the door in front of every route of the app. Errors are answered by `error_pages`."""
    app.json = StrictJson(app)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    app.wsgi_app = _near(app)  # type: ignore[method-assign,assignment] # the way that Flask documents for a middleware
    app.before_request(_authenticate)
    app.after_request(_sign)


def _near(app: Flask) -> WSGIApplication:
    """Tells the rounds of releases who is on the way to them or back; what waits for a client stays outside."""
    answer = app.wsgi_app

    def near(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        is_release = environ["REQUEST_METHOD"] == "POST" and RELEASES.fullmatch(environ["PATH_INFO"])
        with app.extensions["custodian"].releases.near() if is_release else nullcontext():
            return answer(environ, start_response)

    return near


def _authenticate() -> None:
    if not request.path.startswith(API) or request.url_rule is None:
        # What does not exist is said to anyone.
        return
    if "Transfer-Encoding" in request.headers:
        # How long it is must be known before it is read; a proxy that was sent it in pieces knows by then.
        abort(HTTPStatus.LENGTH_REQUIRED)
    g.message = message = message_of_request()
    role = FURNISHER if request.path.startswith(FURNISHERS) else INSTITUTION
    g.signed = None
    if request.endpoint in LET_IN_BY_THEIR_ROUND:
        g.signed = custodian().authentication.verify(message, role)
        if message.url != custodian().config.service_url + request.path:
            # As evidence it is read by whoever audits it, who knows only the documented target (`asked_by.py`).
            raise MalformedError("request: expected the path as documented, without a query", field="request")
    else:
        g.caller = custodian().authentication.authenticate(message, role, is_duty=request.endpoint in DUTIES)
    if message.body and request.mimetype != "application/json":
        raise MalformedError("content-type: expected application/json", field="content-type")


def message_of_request() -> HttpRequest:
    """The request as its sender signed it: under the address that this service is reached by."""
    return HttpRequest(
        method=request.method, url=_target_uri(), headers=dict(request.headers), body=request.get_data(cache=True)
    )


def _target_uri() -> str:
    target: str = request.environ.get("RAW_URI") or request.environ.get("REQUEST_URI") or request.full_path
    if not target.startswith("/"):
        # The absolute form, which a proxy may be sent. Of anything else the path that is routed is not the one that
        # stands here: nobody signs what becomes of it.
        authority = _AUTHORITY.match(target)
        target = target[authority.end() :] if authority else f"/{target}"
    return custodian().config.service_url + target


def _sign(response: Response) -> Response:
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    if "Content-Security-Policy" not in response.headers:
        response.headers["Content-Security-Policy"] = "default-src 'none'; frame-ancestors 'none'"
    if not request.path.startswith(API):
        return response
    response.headers["Cache-Control"] = "no-store"
    known: Caller | None = g.get("caller")
    if known is not None and known.rate is not None:
        response.headers["RateLimit-Limit"] = str(known.rate.limit)
        response.headers["RateLimit-Remaining"] = str(known.rate.remaining)
        response.headers["RateLimit-Reset"] = str(known.rate.reset)
    held = custodian()
    asked = g.get("message") or HttpRequest(method=request.method, url=_target_uri(), headers=dict(request.headers))
    # A response to HEAD has no content.
    body = b"" if request.method == "HEAD" else response.get_data()
    try:
        signed = sign_response(
            HttpResponse(status_code=response.status_code, headers={}, body=body, request=asked),
            party_id=held.address,
            key=held.accounts.signing_key,
            at=held.clock(),
        )
    except MalformedError:
        # What was asked cannot stand in a signature, so nobody signed it.
        return response
    response.headers.update(signed.headers)
    return response
