"""Errors as a person reads them. Scripts and programs get the problem (RFC 9457) of `problems.py`."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from flask import Flask, Response, current_app, make_response, render_template, request
from flask_babel import gettext as _
from werkzeug.exceptions import HTTPException, InternalServerError

from ledger.errors import (
    ChainError,
    ConflictError,
    CrossSiteError,
    ErasedError,
    LedgerError,
    NotFoundError,
    RateLimitedError,
    SignInRequiredError,
    StepUpRequiredError,
    VaultError,
)
from web import language, problems
from web.door import API
from web.security import CSRF_FIELD, SAFE, is_portal
from web.signed_in import be_nobody

DOCUMENTS: Final = ("text/html", "application/xhtml+xml")
BACK: Final = {"/data/erase": "/data"}
"""Where whoever leaves a form that needs a step-up goes back to; the others are of /security."""
STATEMENT_FIELD: Final = "statement"
"""Where a form asks for a person's own words: those are not lost with an error."""


def install(app: Flask) -> None:
    """Answer errors by a page where a page was asked for."""
    app.register_error_handler(LedgerError, _ledger)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(Exception, _unexpected)


def _ledger(error: LedgerError) -> Response:
    answer = problems.response_of(error)
    if not _wants_page():
        return answer
    if isinstance(error, StepUpRequiredError) and request.form:
        return _step_up_page(answer, *_words(error))
    # Whoever was sent here by another site is told nothing of the session, and given none.
    return _page(answer, *_words(error), kind=error.code, bare=isinstance(error, CrossSiteError))


def _http(error: HTTPException) -> Response:
    answer = problems.http_response(error)
    status = HTTPStatus(answer.status_code)
    if not _wants_page() or status < HTTPStatus.BAD_REQUEST:
        return answer
    if status == HTTPStatus.NOT_FOUND:
        return _page(answer, _("There is no such page"), _("The address may be mistyped, or the page is gone."))
    return _page(answer, _("This did not work"), _("The service could not read what was sent. Nothing has changed."))


def _unexpected(error: Exception) -> Response:
    # The trace goes to the log of the service, without the request; the answer says nothing.
    current_app.logger.error("unexpected %s", problems.trace_of(error))
    answer = problems.http_response(InternalServerError())
    if not _wants_page():
        return answer
    return _page(
        answer, _("Something went wrong on our side"), _("Look at the page before in a moment, and try again.")
    )


def _wants_page() -> bool:
    if request.path.startswith(API) or (request.endpoint is not None and not is_portal()):
        return False
    best = request.accept_mimetypes.best_match(["application/json", "application/problem+json", *DOCUMENTS])
    return best in DOCUMENTS and request.mimetype != "application/json"


def _words(error: LedgerError) -> tuple[str, str]:
    """Heading and what to do, for the errors that a person can come to."""
    words = [
        (
            SignInRequiredError,
            _("You are signed out"),
            _("If you asked for this before and no answer came, your data may be erased already.")
            if request.path == "/data/erase"
            else _("Sign in again. Nothing has changed."),
        ),
        (
            StepUpRequiredError,
            _("Show once more that it is you"),
            _("What you want to do is important, so it needs your passkey or wallet again. Nothing has changed yet."),
        ),
        (
            CrossSiteError,
            _("This page is too old"),
            _("Go back, load the page again and repeat it; sign in if you are signed out. Nothing has changed."),
        ),
        (
            NotFoundError,
            _("There is no such thing here"),
            _("The link may be mistyped, or it belongs to someone else. If you have another account, sign in with it."),
        ),
        (ErasedError, _("This was erased"), _("Nobody can read it any more, and nobody can bring it back.")),
        (ConflictError, _("This has changed meanwhile"), _("Load the page again to see how it is now.")),
        (RateLimitedError, _("Too many tries"), _("Wait a little and try again.")),
        (
            ChainError,
            _("The public log cannot be asked now"),
            _("Nothing is given out while it cannot be asked. Try again in a moment."),
        ),
        (VaultError, _("The service cannot do this now"), _("Nothing was given out. Try again in a moment.")),
    ]
    for kind, heading, advice in words:
        if isinstance(error, kind):
            return heading, advice
    # A detail is in English, for developers; it names the field.
    detail = problems.fields_of(error)["detail"]
    is_english = language.language() == language.ENGLISH
    return _("This did not work"), detail if is_english else _("Something that was sent is not as it should be.")


def _step_up_page(answer: Response, heading: str, advice: str) -> Response:
    """The form that was sent, to be sent again as it was once the person has shown that it is them."""
    fields = [(name, value) for name, value in request.form.items(multi=True) if name != CSRF_FIELD]
    back = BACK.get(request.path, "/security")
    text = render_template("portal/step_up.html", heading=heading, advice=advice, fields=fields, back=back)
    return make_response(text, answer.status_code)


def _kept() -> str:
    """What a person wrote into the form that failed. Another site's form puts no words of its own on our page."""
    if request.method in SAFE or request.headers.get("Sec-Fetch-Site") != "same-origin":
        return ""
    try:
        return request.form.get(STATEMENT_FIELD, "")
    except HTTPException:
        # Too large to be read, which may be the error.
        return ""


def _came_from() -> str:
    """The page that holds the form which was sent: its own address, or the nearest above it that can be looked at."""
    if request.path.startswith("/auth/"):
        return "/security"
    adapter, path = current_app.create_url_adapter(request), request.path
    while adapter is not None and path:
        if adapter.test(path, method="GET"):
            return path
        path = path.rpartition("/")[0]
    return ""


def _page(answer: Response, heading: str, advice: str, *, kind: str = "", bare: bool = False) -> Response:
    words = {"heading": heading, "advice": advice, "kind": kind, "kept": _kept()}
    words["came_from"] = _came_from() if kind == SignInRequiredError.code else ""
    try:
        text = render_template("portal/error.html", **words, bare=bare)
    except LedgerError:
        be_nobody()
        text = render_template("portal/error.html", **words, bare=True)
    page = make_response(text, answer.status_code)
    for name in ("Retry-After", "Allow"):
        if name in answer.headers:
            page.headers[name] = answer.headers[name]
    return page
