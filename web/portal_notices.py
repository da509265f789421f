"""To come: the notices pages of the portal, as plain as all the others are."""

from __future__ import annotations

from flask import Blueprint

routes = Blueprint("notices", __name__)
