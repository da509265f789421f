"""The demo of `consent-ledger up`: the codes of its people, and a console for its lenders.

The console does what a lender's own system would do, and by the same means: `ledger/client.py` over HTTP, with the
lender's keys. What it shows is what the API answered, refusals to the letter.

There is no such route unless `create_app` was told so, and no telling it so but on a local chain.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from flask import Blueprint, Flask, Response, current_app, render_template, request
from flask_babel import gettext as _

from ledger import demo_seed
from ledger.answers import Consent, ConsentRequest, Deployment
from ledger.attributes import ACCESS_OPENINGS, ASKABLE
from ledger.client import InstitutionClient
from ledger.consent import parse_hex32
from ledger.demo_seed import INSTITUTIONS, DemoInstitution
from ledger.errors import ConfigError, LedgerError, MalformedError, NotFoundError
from ledger.unsealing import Release
from web.door import custodian
from web.responses import see_other

SHOWN: Final = 8
"""Of consents and of requests: the newest."""
DEFAULTS: Final = {"days": 30, "uses": 3, "perDay": 2, "retentionDays": 30}
USUAL: Final = {"credit_amount": "required", "credit_duration": "required", "savings": "optional"}
"""What the form has chosen at first: the lender's choice, not the person's."""

routes = Blueprint("demo", __name__, url_prefix="/demo")


def install(app: Flask) -> None:
    """Add the demo's pages. Raises `ConfigError` where a demo may not be."""
    if not demo_seed.is_place_for(app.extensions["custodian"].config):
        raise ConfigError("demo: only on a local chain, and reached from this machine only")
    app.extensions["demo"] = _Clients()
    app.register_blueprint(routes)


class _Clients:
    """One client for each lender of the demo, made when it is first needed."""

    def __init__(self) -> None:
        self._made: dict[str, InstitutionClient] = {}
        self._lock = threading.Lock()

    def of(self, institution: DemoInstitution) -> InstitutionClient:
        with self._lock:
            if institution.key not in self._made:
                held = custodian()
                keys = demo_seed.keys_of(held.config.data, institution)
                self._made[institution.key] = InstitutionClient(
                    held.config.service_url, institution.institution_id, keys, chain=held.chain, clock=held.clock
                )
            return self._made[institution.key]


# ---------------------------------------------------------------------------------------------------------- the people


@routes.get("")
def home() -> str:
    """Who is in the demo, and how to come in as one of them."""
    return render_template("portal/demo.html", people=demo_seed.codes(custodian()), institutions=INSTITUTIONS)


@routes.post("/codes")
def new_code() -> Response:
    """A new code for one of the people."""
    made = demo_seed.invite(custodian(), request.form.get("ref", ""))
    return see_other(f"/demo#{made.person.ref}")


# --------------------------------------------------------------------------------------------------------- the lenders


@routes.get("/<key>")
def console(key: str) -> str:
    """A lender's console."""
    return _console(_institution(key))


@routes.post("/<key>/requests")
def ask(key: str) -> Response | str:
    """Ask a person for a consent."""
    institution, form = _institution(key), request.form
    chosen = {name: form.getlist(name) for name in ("required", "optional")}

    def act() -> ConsentRequest:
        return _client(institution).ask_consent(
            purpose=form.get("purpose", ""),
            attributes=chosen["required"],
            optional_attributes=[name for name in chosen["optional"] if name not in chosen["required"]],
            validity_days=_number("days"),
            max_accesses=_number("uses"),
            accesses_per_day=_number("perDay"),
            retention_days=_number("retentionDays"),
        )

    _made, refused = _tried(act)
    return _console(institution, refused=refused) if refused else see_other(f"/demo/{key}#requests")


@routes.post("/<key>/releases")
def release(key: str) -> str:
    """Ask for values under a consent; the same form sent twice is one question."""
    institution, form = _institution(key), request.form

    def act() -> Release:
        return _client(institution).release(
            parse_hex32(form.get("consent"), "consent"),
            purpose=form.get("purpose", ""),
            attributes=form.getlist("attributes"),
            idempotency_key=form.get("idempotencyKey") or None,
        )

    answer, refused = _tried(act)
    return _console(institution, answer=answer, refused=refused)


@routes.post("/<key>/deletions")
def attest(key: str) -> str:
    """State that everything received under a consent was deleted."""
    institution = _institution(key)
    client = _client(institution)
    consent = parse_hex32(request.form.get("consent"), "consent")
    attested, refused = _tried(partial(client.attest_deletion, consent, custodian().clock()))
    return _console(institution, attested=attested, refused=refused)


# -------------------------------------------------------------------------------------------------------------- inside


def _console(institution: DemoInstitution, **outcome: Any) -> str:  # noqa: ANN401 - what the template is given
    client = _client(institution)
    deployment, unreachable = _tried(client.deployment)
    consents: list[Consent] = []
    requests: list[ConsentRequest] = []
    if not unreachable:
        consents, failed = _tried(lambda: _newest(client.consents()))
        requests, failed_too = _tried(lambda: [_with_link(client, one) for one in _newest(client.consent_requests())])
        unreachable = failed or failed_too
    return render_template(
        "portal/demo_console.html",
        institution=institution,
        institutions=INSTITUTIONS,
        consents=consents or [],
        requests=requests or [],
        form=_form(deployment),
        new_key=partial(secrets.token_urlsafe, 18),
        unreachable=unreachable,
        **outcome,
    )


def _form(deployment: Deployment | None) -> dict[str, Any] | None:
    """What the form to ask for a consent offers: for a purpose, the attributes that it may be asked for."""
    if deployment is None:
        return None
    purposes = {one.code: one for one in deployment.purposes}
    asked = request.values.get("purpose")
    purpose = purposes.get(asked or "", deployment.purposes[0])
    # Everyone has access records, also who was never asked.
    held = {*demo_seed.attributes(), ACCESS_OPENINGS}.intersection(purpose.attributes)
    offered = sorted(held, key=list(ASKABLE).index)
    sent = request.form if request.method == "POST" and "days" in request.form else None
    return {
        "purposes": list(purposes),
        "purpose": purpose,
        "attributes": offered,
        "chosen": (
            {name: kind for kind in ("optional", "required") for name in sent.getlist(kind)}
            if sent
            else _usual(offered)
        ),
        "limits": {name: sent.get(name, "") if sent else number for name, number in DEFAULTS.items()},
    }


def _usual(offered: list[str]) -> dict[str, str]:
    """The usual choice, of what a purpose offers; where that is nothing that must be read, the first that it offers."""
    chosen = {name: kind for name, kind in USUAL.items() if name in offered}
    return chosen if "required" in chosen.values() else {offered[0]: "required"} | chosen


def _with_link(client: InstitutionClient, one: ConsentRequest) -> ConsentRequest:
    # A list has no links; one request by itself has, while an answer can be given.
    return client.consent_request(one.id) if one.state == "pending" else one


def _newest(found: Any) -> list[Any]:  # noqa: ANN401 - of either kind
    return [one for one, _number_of_it in zip(found, range(SHOWN), strict=False)]


def _tried(act: Callable[[], Any]) -> tuple[Any, LedgerError | None]:
    """What came of it, or the refusal as the API gave it."""
    try:
        return act(), None
    except LedgerError as exc:
        return None, exc


def _number(name: str) -> int:
    text = request.form.get(name, "")
    if not text.isascii() or not text.isdigit() or len(text) > len("4294967295"):
        raise MalformedError(f"{name}: {_('expected a whole number')}", field=name)
    return int(text)


def _institution(key: str) -> DemoInstitution:
    for one in INSTITUTIONS:
        if one.key == key:
            return one
    raise NotFoundError("institution: none of the demo", field="institution")


def _client(institution: DemoInstitution) -> InstitutionClient:
    clients: _Clients = current_app.extensions["demo"]
    return clients.of(institution)
