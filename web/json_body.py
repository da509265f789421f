"""The JSON body of a request of the portal's scripts, as a strict model."""

from __future__ import annotations

from typing import Final, TypeVar

from flask import abort, request
from pydantic import ValidationError
from werkzeug.exceptions import BadRequest

from ledger.errors import MalformedError
from web import problems
from web.models import Model

MAX_JSON: Final = 64 * 1024
M = TypeVar("M", bound=Model)


def body_of(model: type[M], *, most: int = MAX_JSON) -> M:
    """The body, of at most `most` bytes. Raises `MalformedError`, or aborts with the problem that names the field."""
    request.max_content_length = most
    if request.mimetype != "application/json":
        raise MalformedError("content-type: expected application/json", field="content-type")
    try:
        return model.model_validate(request.get_json())
    except BadRequest as exc:
        raise MalformedError("body: expected a JSON object", field="body") from exc
    except ValidationError as exc:
        abort(problems.validation_response(exc))
