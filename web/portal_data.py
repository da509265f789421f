"""To come: the data pages of the portal, as plain as all the others are."""

from __future__ import annotations

from flask import Blueprint

routes = Blueprint("data", __name__)
