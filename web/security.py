"""What every page of the portal has: headers, and the proof that a request comes from a page of ours in this session.

Everything that is not the API (`/v1`) or one of the `PUBLIC` routes counts as the portal: a new route is protected
unless somebody says otherwise here. A request that changes anything must

(1) come from our own origin, where the browser says whence it comes (`Sec-Fetch-Site`, `Origin`), and
(2) carry the session's token, which only our own pages know: the field `csrf` of a form, or the header `X-CSRF-Token`.

Nor is anything of the portal given to another site's page to put in a frame, an image or a script of its own.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Final

from flask import Flask, Response, abort, g, redirect, request
from werkzeug.datastructures import Headers

from ledger.config import LOOPBACK
from ledger.errors import CrossSiteError
from ledger.sessions import is_token, new_token
from web.door import API, custodian

PUBLIC: Final = frozenset(
    {"_deployment", "_healthz", "_readyz", "_metrics", "openapi", "docs", "docs_asset", "audit.rpc"}
)
"""Endpoints that are neither the API nor the portal: for programs, auditors, and the API's documentation."""
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "publickey-credentials-create=(self), publickey-credentials-get=(self)",
}
SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
CSRF_FIELD: Final = "csrf"
CSRF_HEADER: Final = "X-CSRF-Token"
MAX_NEXT: Final = 512
_LOCAL: Final = re.compile(r"/(?![/\\])[\x21-\x5b\x5d-\x7e]*\Z")
"""A path of ours: no host (`//`, `/\\`), and nothing that a browser drops or turns into a slash."""


def install(app: Flask) -> None:
    """Protect every route of the portal that the app has or will have."""
    app.before_request(_require_ours)
    app.after_request(_harden)
    app.add_template_global(csrf_token)


def is_portal() -> bool:
    """Whether this request is for a page of the portal, or for something that such a page asks for."""
    return not request.path.startswith(API) and request.endpoint is not None and request.endpoint not in PUBLIC


def csrf_token() -> str:
    """What this session's pages carry. A browser without a token is given one with the answer."""
    return custodian().sessions.csrf_of(session_token())


def local_path(target: str | None, *, otherwise: str = "/") -> str:
    """Where to go on: a path of ours, or `otherwise`. Nobody is ever sent to another site."""
    if target is None or len(target) > MAX_NEXT or not _LOCAL.match(target):
        return otherwise
    return target


# -------------------------------------------------------------------------------------------------------------- cookie


def cookie_name() -> str:
    """`__Host-` where there is https: no neighbour under the same domain can set it."""
    return "__Host-session" if _is_https() else "session"


def cookie_token() -> str | None:
    """The token that the browser sent."""
    found = request.cookies.get(cookie_name())
    return found if found is not None and is_token(found) else None


def session_token() -> str:
    """The token of this request: the browser's, or a new one that it is given with the answer."""
    if "token" not in g:
        g.token = cookie_token()
    if g.token is None:
        # A browser that sends no cookie with another site's form has one all the same: it must not be replaced.
        g.token = give_token(new_token()) if request.method in SAFE else new_token()
    token: str = g.token
    return token


def give_token(token: str) -> str:
    """From the answer on, this is the browser's token."""
    g.token = g.new_token = token
    return token


def drop_token() -> None:
    """From the answer on, the browser has no token."""
    g.pop("token", None)
    g.new_token = None


def _is_https() -> bool:
    return custodian().config.portal_origin.startswith("https://")


# --------------------------------------------------------------------------------------------------------------- hooks


def _require_ours() -> None:
    if not is_portal():
        return
    if request.method in SAFE:
        _move_to_name()
        _require_no_other_page()
        return
    if request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
        raise _cross_site()
    ours = custodian().config.portal_origin
    origin = request.headers.get("Origin", ours)
    # Browsers write a form's origin as null where no referrer is sent; then only `Sec-Fetch-Site` can say it.
    if origin != ours and not (origin == "null" and "Sec-Fetch-Site" in request.headers):
        raise _cross_site()
    token = cookie_token()
    given = request.headers.get(CSRF_HEADER)
    if given is None and request.mimetype == "application/x-www-form-urlencoded":
        given = request.form.get(CSRF_FIELD)
    if token is None or given is None or not custodian().sessions.is_csrf_of(token, given):
        raise _cross_site()


def _move_to_name() -> None:
    # On this machine, to the name that passkeys can be bound to.
    host = request.host.rsplit(":", 1)[0].strip("[]")
    origin = custodian().config.portal_origin
    if host in LOOPBACK and "//localhost" in origin:
        abort(redirect(origin + request.full_path.rstrip("?"), HTTPStatus.TEMPORARY_REDIRECT))


def _require_no_other_page() -> None:
    site = request.headers.get("Sec-Fetch-Site", "none")
    is_visit = request.headers.get("Sec-Fetch-Mode") == "navigate" and request.headers.get("Sec-Fetch-Dest") in (
        "document",
        None,
    )
    if site in ("cross-site", "same-site") and not is_visit:
        raise _cross_site()


def _cross_site() -> CrossSiteError:
    return CrossSiteError("csrf: expected a request of a page of this service: load the page again", field="csrf")


def _harden(response: Response) -> Response:
    is_page = response.mimetype == "text/html" and request.endpoint is None
    if not is_portal() and not is_page:
        return response
    response.headers.update(Headers(HEADERS))
    if "Cache-Control" not in response.headers:
        response.headers["Cache-Control"] = "no-store"
    if "new_token" in g:
        _set_cookie(response, g.new_token)
    return response


def _set_cookie(response: Response, token: str | None) -> None:
    options = {"path": "/", "secure": _is_https(), "httponly": True, "samesite": "Lax"}
    if token is None:
        response.delete_cookie(cookie_name(), **options)  # type: ignore[arg-type] # as they are named
    else:
        response.set_cookie(cookie_name(), token, **options)  # type: ignore[arg-type]
    response.headers["Cache-Control"] = "no-store"
