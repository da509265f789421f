"""Who is signed in, for every page of the portal."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlencode

from flask import abort, g, redirect, request

from ledger.errors import SignInRequiredError, StepUpRequiredError
from ledger.sessions import Proof, Session
from web.door import custodian
from web.security import SAFE, cookie_token, give_token, local_path


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedIn:
    """Who is signed in. `method` is `passkey` or `wallet`; `stepped_up_at` (Unix seconds) begins with signing in."""

    account_id: str
    subject_id: str
    session_id: str
    method: str
    stepped_up_at: int | None


def maybe_signed_in() -> SignedIn | None:
    """Who is signed in, if anyone is. Raises `StoreUnavailableError`."""
    session = _session()
    if session is None:
        return None
    return SignedIn(
        account_id=session.account_id,
        subject_id=session.subject_id,
        session_id=session.session_id,
        method=session.method,
        stepped_up_at=session.stepped_up_at,
    )


def signed_in() -> SignedIn:
    """Who is signed in. Otherwise a page goes to /sign-in and back; anything else raises `SignInRequiredError`."""
    me = maybe_signed_in()
    if me is not None:
        return me
    if request.method in SAFE:
        back = local_path(request.full_path.rstrip("?"))
        abort(redirect(_address("/sign-in", next=back), HTTPStatus.SEE_OTHER))
    raise SignInRequiredError("session: nobody is signed in, or the session has ended", field="session")


def require_step_up() -> SignedIn:
    """Before a grant, an erasure or a change of keys. Raises `StepUpRequiredError`, `SignInRequiredError`."""
    me = signed_in()
    if not is_stepped_up():
        raise StepUpRequiredError("session: show once more that it is you, by a passkey or a wallet", field="session")
    return me


def is_stepped_up() -> bool:
    """Whether the person has shown within the last five minutes that it is them."""
    session = _session()
    return session is not None and custodian().sessions.is_stepped_up(session)


def start(proof: Proof, *, device: str) -> None:
    """Sign in: a new session with a new token, in place of the one that the request came with."""
    give_token(custodian().sessions.start(proof, device=device, in_place_of=cookie_token()))
    g.pop("session", None)


def be_nobody() -> None:
    """Nobody is signed in for the rest of this request: the database cannot say who is."""
    g.session = None


def _session() -> Session | None:
    if "session" not in g:
        token = cookie_token()
        g.session = None if token is None else custodian().sessions.find(token)
    found: Session | None = g.session
    return found


def _address(path: str, **query: str) -> str:
    return f"{path}?{urlencode(query)}"
