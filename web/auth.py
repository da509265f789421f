"""Signing in to the portal: by a passkey or a wallet, after enrolment with an invitation code.

What is here is JSON, for the scripts of the pages in `auth_pages.py`. An answer never tells whether a code, an account
or a credential exists.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, Final

from flask import Blueprint, Flask, Response, jsonify, request
from webauthn.helpers import bytes_to_base64url

from ledger import passkeys
from ledger.attempts import BEGINNINGS, CODES, PROOFS
from ledger.challenges import VALID_SECONDS
from ledger.consent import Address, parse_address
from ledger.enrolment import Device, Passkey, named, wrapped
from ledger.errors import (
    ChainError,
    MalformedError,
    SignInRefusedError,
)
from ledger.invitations import Invited
from ledger.passkeys import Site
from ledger.sessions import Proof
from ledger.store import new_id
from ledger.wallets import Ask, require_signed
from web import auth_models as models
from web import auth_pages
from web.clients import device_of
from web.door import client, custodian
from web.json_body import body_of
from web.security import is_portal, local_path, session_token
from web.signed_in import maybe_signed_in, require_step_up, signed_in, start

CHALLENGE_BYTES: Final = 32
REGISTER: Final = "register"
SIGN_IN: Final = "sign-in"
STEP_UP: Final = "step-up"
BY_WALLET: Final = "wallet"

routes = Blueprint("auth", __name__)


def install(app: Flask) -> None:
    """Add the routes, and `me` to the portal's templates."""
    app.register_blueprint(auth_pages.routes)
    app.register_blueprint(routes)
    app.context_processor(lambda: {"me": maybe_signed_in()} if is_portal() or request.endpoint is None else {})


# ------------------------------------------------------------------------------------------------------------- passkeys


@routes.post("/auth/passkey/register/options")
def passkey_register_options() -> Response:
    """What the browser needs to make a passkey, with a code for a new account or for the one that is signed in."""
    asked = body_of(models.Registration)
    enrolment = custodian().enrolment
    mine: tuple[Passkey, ...] = ()
    if asked.code is not None:
        invited = _invited(asked.code)
        account_id, subject_id, invitation_id = new_id(), invited.subject_id, invited.invitation_id
    else:
        me = require_step_up()
        account_id, subject_id, invitation_id = me.account_id, me.subject_id, None
        mine = enrolment.passkeys(account_id)
    fields = {"accountId": account_id, "subjectId": subject_id, "invitationId": invitation_id}
    options = passkeys.registration_options(
        _site(),
        _challenge(REGISTER, fields, subject_id=subject_id),
        enrolment.user_handle(account_id),
        exclude=[one.known.credential_id for one in mine],
    )
    return jsonify(publicKey=options, hasRoot=any(one.wrapped_root for one in mine))


@routes.post("/auth/passkey/register")
def passkey_register() -> Response:
    """Keep a passkey that was just made. Enrolment signs in."""
    given = body_of(models.NewCredential)
    name, wrapped_root = named(given.name), wrapped(given.wrapped_root)
    challenge, fields = _taken(REGISTER, given.credential)
    made = passkeys.verify_registration(given.credential, challenge, _site())
    _admit(fields, Device(made=made, name=name, wrapped_root=wrapped_root))
    return _go_on(given.next)


@routes.post("/auth/passkey/sign-in/options")
def passkey_sign_in_options() -> Response:
    """What the browser needs to let the person choose a passkey."""
    body_of(models.Nothing)
    return jsonify(publicKey=passkeys.sign_in_options(_site(), _challenge(SIGN_IN, {})))


@routes.post("/auth/passkey/sign-in")
def passkey_sign_in() -> Response:
    """Sign in by a passkey."""
    given = body_of(models.Credential)
    _start(_proved(SIGN_IN, given.credential).proof)
    return _go_on(given.next)


@routes.post("/auth/passkey/step-up/options")
def passkey_step_up_options() -> Response:
    """What the browser needs to ask for one of the account's passkeys, with its PRF output."""
    body_of(models.Nothing)
    me = signed_in()
    allow = [one.known.credential_id for one in custodian().enrolment.passkeys(me.account_id)]
    challenge = _challenge(STEP_UP, {}, subject_id=me.subject_id)
    return jsonify(publicKey=passkeys.sign_in_options(_site(), challenge, allow=allow))


@routes.post("/auth/passkey/step-up")
def passkey_step_up() -> Response:
    """Step up, and get the root secret as this very passkey wraps it."""
    given = body_of(models.Credential)
    me = signed_in()
    passkey = _proved(STEP_UP, given.credential, account_id=me.account_id)
    custodian().sessions.step_up(me.session_id)
    return jsonify(wrappedRoot=passkey.wrapped_root, accountId=me.account_id)


def _proved(use: str, credential: dict[str, Any], *, account_id: str | None = None) -> Passkey:
    """The passkey that an answer proves, of this account if one is given."""
    held = custodian()
    held.attempts.count(PROOFS, client())
    challenge, _ = _taken(use, credential)
    passkey = held.enrolment.passkey_of(passkeys.credential_id_of(credential))
    if passkey is None or account_id not in (None, passkey.account_id):
        raise passkeys.refused()
    if account_id is None and not credential.get("response", {}).get("userHandle"):
        # Whoever names no account is named by the passkey.
        raise passkeys.refused()
    used = passkeys.verify_sign_in(credential, challenge, _site(), passkey.known)
    held.enrolment.passkey_used(passkey, used)
    held.attempts.give_back(PROOFS, client())
    return passkey


def _site() -> Site:
    config = custodian().config
    return Site(rp_id=config.rp_id, origin=config.portal_origin)


def _challenge(use: str, fields: Mapping[str, Any], *, subject_id: str | None = None) -> bytes:
    held = custodian()
    held.attempts.count(BEGINNINGS, client())
    challenge = secrets.token_bytes(CHALLENGE_BYTES)
    held.challenges.put(session_token(), use, bytes_to_base64url(challenge), fields, subject_id=subject_id)
    return challenge


def _taken(use: str, credential: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    challenge = passkeys.challenge_of(credential)
    return challenge, custodian().challenges.take(session_token(), use, challenge)


# -------------------------------------------------------------------------------------------------------------- wallets


@routes.post("/auth/wallet/challenge")
def wallet_challenge() -> Response:
    """The text that the wallet is to sign."""
    asked, held = body_of(models.WalletChallenge), custodian()
    if asked.chain_id != held.config.chain_id:
        raise MalformedError(f"chainId: expected a wallet on chain {held.config.chain_id}", field="chainId")
    fields: dict[str, Any] = {"use": asked.use, "address": parse_address(asked.address, "address")}
    subject_id = None
    if asked.use == "enrol":
        invited = _invited(asked.code or "")
        subject_id = invited.subject_id
        fields |= {"accountId": new_id(), "invitationId": invited.invitation_id}
    elif asked.use != SIGN_IN:
        me = require_step_up() if asked.use == "link" else signed_in()
        subject_id = me.subject_id
        fields |= {"accountId": me.account_id, "invitationId": None}
    now = held.clock()
    fields["subjectId"] = subject_id
    fields["text"] = Ask(
        origin=held.config.portal_origin,
        address=fields["address"],
        chain_id=asked.chain_id,
        use=asked.use,
        issued_at=now,
        expires_at=now + VALID_SECONDS,
    ).text()
    held.attempts.count(BEGINNINGS, client())
    held.challenges.put(session_token(), BY_WALLET, "", fields, subject_id=subject_id)
    return jsonify(text=fields["text"])


@routes.post("/auth/wallet")
def wallet_answer() -> Response:
    """The signature over this session's text: enrols, signs in, steps up or links, as the text says."""
    given, held = body_of(models.WalletSignature), custodian()
    held.attempts.count(PROOFS, client())
    fields = held.challenges.take(session_token(), BY_WALLET, "")
    address = Address(fields["address"])
    try:
        require_signed(
            fields["text"], bytes.fromhex(given.signature[2:]), address, accepts=held.chain.accepts_signature
        )
    except ChainError as exc:
        # Nothing is on file to be sent again, as the chain's own errors are taken to mean by the pages.
        raise SignInRefusedError("signature: the chain cannot be asked whether it proves who is there") from exc
    if fields["use"] in ("enrol", "link"):
        _admit(fields, address)
    else:
        wallet = held.enrolment.wallet_of(address)
        if wallet is None or (fields["use"] == STEP_UP and wallet.account_id != signed_in().account_id):
            raise SignInRefusedError("signature: it does not prove who is there", field="signature")
        held.enrolment.wallet_used(wallet)
        if fields["use"] == STEP_UP:
            held.sessions.step_up(signed_in().session_id)
        else:
            _start(wallet.proof)
    held.attempts.give_back(PROOFS, client())
    return _go_on(given.next)


# ----------------------------------------------------------------------------------------------------------------- both


def _invited(code: str) -> Invited:
    held = custodian()
    held.attempts.count(CODES, client())
    invited = held.invitations.of_code(code)
    held.attempts.give_back(CODES, client())
    return invited


def _admit(fields: Mapping[str, Any], device: Device | Address) -> None:
    """A new passkey or wallet opens an account, or is added to the one that is signed in."""
    enrolment = custodian().enrolment
    if fields["invitationId"] is not None:
        _start(enrolment.enrol(fields["invitationId"], fields["accountId"], device))
        return
    me = signed_in()
    if me.account_id != fields["accountId"]:
        raise SignInRefusedError("session: another account is signed in now", field="session")
    enrolment.add(me.account_id, me.subject_id, device)


def _start(proof: Proof) -> None:
    start(proof, device=device_of(request.headers.get("User-Agent", "")))


def _go_on(target: str | None) -> Response:
    return jsonify(next=local_path(target))
