"""The pages on which a person signs in, enrols, and sees to passkeys, wallets and sessions; and their forms.

What the templates are given:

- `portal/sign_in.html`   `next` (a local path: where the person was going)
- `portal/security.html`  `passkeys`, `wallets` (`ledger.enrolment`), `sessions` (`ledger.sessions.ListedSession`),
  `invitations` (open codes), `stepped_up` (whether the five minutes run)

The scripts take `next` from the page's own address, and send it back with their answer.
"""

from __future__ import annotations

from flask import Blueprint, Response, render_template, request

from web.door import custodian
from web.responses import see_other
from web.security import drop_token, local_path
from web.signed_in import is_stepped_up, maybe_signed_in, require_step_up, signed_in

routes = Blueprint("auth_pages", __name__)


# --------------------------------------------------------------------------------------------------------------- pages


@routes.get("/sign-in")
def sign_in_page() -> Response | str:
    """Sign in; whoever has done so goes on."""
    going = local_path(request.args.get("next"))
    if maybe_signed_in() is not None:
        return see_other(going)
    return render_template("portal/sign_in.html", next=going)


@routes.get("/enrol")
def enrol_page() -> str:
    """Open an account with an invitation code."""
    return render_template("portal/enrol.html")


@routes.get("/security")
def security_page() -> str:
    """Passkeys, wallets and sessions of the account."""
    me, held = signed_in(), custodian()
    return render_template(
        "portal/security.html",
        passkeys=held.enrolment.passkeys(me.account_id),
        wallets=held.enrolment.wallets(me.account_id),
        sessions=held.sessions.listed(me.account_id),
        invitations=held.invitations.open(me.subject_id),
        stepped_up=is_stepped_up(),
    )


@routes.post("/sign-out")
def sign_out() -> Response:
    """End this session."""
    me = maybe_signed_in()
    if me is not None:
        custodian().sessions.end(me.session_id, me.account_id)
    drop_token()
    return see_other("/")


# --------------------------------------------------------------------------------------------------- forms of /security


@routes.post("/auth/sessions/end")
def end_session() -> Response:
    """Field `session`: the id of one, or `others`."""
    me, held = signed_in(), custodian()
    which = request.form.get("session", "")
    if which == "others":
        with held.store.begin() as tx:
            held.sessions.end_others(tx, me.account_id, but=me.session_id)
    else:
        held.sessions.end(which, me.account_id)
    if which == me.session_id:
        drop_token()
        return see_other("/")
    return see_other("/security")


@routes.post("/auth/passkeys/remove")
def remove_passkey() -> Response:
    """Field `passkey`. Needs step-up; the last way to sign in stays."""
    me = require_step_up()
    custodian().enrolment.remove_passkey(me.account_id, request.form.get("passkey", ""), keep_session=me.session_id)
    return see_other("/security")


@routes.post("/auth/wallets/remove")
def remove_wallet() -> Response:
    """Field `wallet`. Needs step-up; the last way to sign in stays."""
    me = require_step_up()
    custodian().enrolment.remove_wallet(me.account_id, request.form.get("wallet", ""), keep_session=me.session_id)
    return see_other("/security")


@routes.post("/auth/invitations/void")
def void_invitations() -> Response:
    """A code that was handed out and not used opens nothing any more."""
    custodian().invitations.void(signed_in().subject_id)
    return see_other("/security")
