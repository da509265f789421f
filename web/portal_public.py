"""Pages that need no account: checking a receipt in the browser, and ending a consent without this service."""

from __future__ import annotations

from flask import Blueprint, render_template

from web.door import custodian

routes = Blueprint("public", __name__)


@routes.get("/verify")
def verify() -> str:
    """Checks receipts and proofs. What is opened stays in the browser."""
    held = custodian()
    return render_template(
        "portal/verify.html",
        jwks={"keys": [dict(held.accounts.signing_key.as_dict(private=False))]},
        service_url=held.config.service_url,
    )


@routes.get("/without-us")
def without_us() -> str:
    """How to revoke directly on chain. The page makes the data from a receipt, and needs nothing of the service."""
    return render_template("portal/without_us.html", domain=custodian().chain.domain)
