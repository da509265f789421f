"""The Flask application: the institutions' API and the subject's portal around one `Custodian`."""

from __future__ import annotations

from flask_openapi3.openapi import OpenAPI

from ledger.custodian import Custodian
from web import api, auth, document, door, metrics, portal, problems, public, security
from web import demo as demo_pages
from web.models import Problem


def create_app(custodian: Custodian, *, demo: bool = False) -> OpenAPI:
    """The application. It serves one custodian, which the caller closes in the end.

    `demo` adds `/demo`, where a demo may be (else raises `ConfigError`); without it there is no such route.
    """
    app = OpenAPI(
        "web",
        info=document.info(),
        doc_ui=False,
        static_folder=None,
        validation_error_status=422,
        validation_error_model=Problem,
        validation_error_callback=problems.validation_response,
    )
    app.url_map.merge_slashes = False
    app.extensions["custodian"] = custodian
    metrics.install(app)
    door.install(app)
    app.register_api(api.routes)
    public.install(app)
    security.install(app)
    auth.install(app)
    portal.install(app)
    app.add_template_global(lambda: demo, "is_demo")
    if demo:
        demo_pages.install(app)
    return app
