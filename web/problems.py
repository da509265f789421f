"""Errors as RFC 9457 problems. What our own errors say may go out as it is; nothing else may, and never a value."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from http import HTTPStatus
from traceback import format_tb
from typing import Any, Final, cast

from flask import Response, request
from pydantic import ValidationError
from werkzeug.exceptions import HTTPException

from ledger.attributes import ASKABLE
from ledger.errors import (
    ChainError,
    ConfigError,
    LedgerError,
    MalformedError,
    NotFoundError,
    RateLimitedError,
    VaultError,
    WrongInstitutionError,
)
from web import models

CONTENT_TYPE: Final = "application/problem+json"
NOT_FOUND: Final[Mapping[type[LedgerError], LedgerError]] = {
    # What is another's is answered as what does not exist, to the byte.
    WrongInstitutionError: NotFoundError("consent: no such consent", field="consent"),
}
OPAQUE: Final = {
    VaultError: "the service cannot do this at present; nothing was released",
    ChainError: "the chain cannot be asked or did not confirm at present; nothing was released: try again later",
    ConfigError: "the service is not set up as it must be",
}
RETRY_SECONDS: Final = 5
HTTP_CODES: Final[Mapping[int, tuple[str, str]]] = {
    400: ("bad_request", "What came cannot be read as a request."),
    405: ("method_not_allowed", "The path does not know this method: `Allow` names those that it knows."),
    408: ("request_timeout", "The request was not here whole in time. Send it again."),
    411: ("length_required", "A body needs its `Content-Length`."),
    413: ("content_too_large", "The body is too large. Ask for less at a time."),
    414: ("uri_too_long", "The target is too long."),
    415: ("unsupported_media_type", "The body is not of a kind that is read here."),
    417: ("expectation_failed", "The service does not do what `Expect` asks for."),
    431: ("request_header_fields_too_large", "The headers are too many, or too large."),
    500: ("internal_server_error", "An error of the service. Try again later, under the same key."),
    501: ("not_implemented", "The service does not read this `Transfer-Encoding`."),
    503: ("service_unavailable", "The service cannot do this at present. Try again later, under the same key."),
}
"""Codes of errors of HTTP itself, and what they mean. Not by Python's names of them, which are others in 3.13."""


def fields_of(error: LedgerError) -> dict[str, Any]:
    """The problem's members."""
    said = NOT_FOUND.get(type(error), error)
    detail = next((text for family, text in OPAQUE.items() if isinstance(said, family)), said.message)
    problem = {
        "type": f"urn:consent-ledger:problem:{said.code}",
        "title": title_of(type(said)),
        "status": said.http_status,
        "code": said.code,
        "detail": detail,
    }
    return problem | ({"field": said.field} if said.field and detail is said.message else {})


def response_of(error: LedgerError) -> Response:
    """The problem as a response."""
    headers = {}
    if isinstance(error, RateLimitedError):
        headers = {
            "Retry-After": str(error.retry_after),
            "RateLimit-Limit": str(error.limit),
            "RateLimit-Remaining": "0",
            "RateLimit-Reset": str(error.retry_after),
        }
    elif error.http_status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers = {"Retry-After": str(RETRY_SECONDS)}
    return _response(fields_of(error), headers)


def validation_response(error: ValidationError) -> Response:
    """What pydantic found. Its own words would repeat the input."""
    found = [
        {"field": _place(one["loc"]), "detail": f"expected: {_expected(one)}"}
        for one in error.errors(include_url=False, include_context=True, include_input=False)[:20]
    ]
    problem = {
        "type": "urn:consent-ledger:problem:malformed",
        "title": title_of(MalformedError),
        "status": HTTPStatus.UNPROCESSABLE_ENTITY,
        "code": "malformed",
        "detail": f"{found[0]['field']}: {found[0]['detail']}",
        "field": found[0]["field"],
        "errors": found,
    }
    return _response(problem)


_WORDS: Final = {
    "missing": "this field",
    "extra_forbidden": "no field that is not documented",
    "string_pattern_mismatch": "text of the form {pattern}",
    "string_too_short": "at least {min_length} characters",
    "string_too_long": "at most {max_length} characters",
    "too_short": "at least {min_length} items",
    "too_long": "at most {max_length} items",
    "greater_than_equal": "at least {ge}",
    "less_than_equal": "at most {le}",
    "literal_error": "{expected}",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "an object",
    "bool_type": "true or false",
    "model_type": "an object",
    "model_attributes_type": "an object",
}


@cache
def _names() -> frozenset[str]:
    # Once every model is there.
    return frozenset(ASKABLE) | models.names()


def _place(path: Sequence[str | int]) -> str:
    """The place of a value, by names of ours: any other name was made up by the sender, and may say whatever."""
    known = ".".join(str(name) for name in path if isinstance(name, int) or name in _names())
    return known or ("query" if request.method in ("GET", "HEAD") else "body")


def _expected(found: Mapping[str, Any]) -> str:
    if not found["loc"]:
        # Whatever could not be read is as good as nothing to the validation.
        return "a JSON object in UTF-8, with each name once, and finite numbers"
    words = _WORDS.get(found["type"])
    return words.format(**found.get("ctx", {})) if words else str(found["type"]).replace("_", " ")


def http_response(error: HTTPException) -> Response:
    """Errors of HTTP itself: no such path, method, too large."""
    if error.response is not None:
        # A response that something raised as an error, as the validation does.
        return cast("Response", error.response)
    headers = {name: value for name, value in error.get_headers() if name == "Allow"}
    return _response(_fields_of_status(HTTPStatus(error.code or HTTPStatus.INTERNAL_SERVER_ERROR)), headers)


def body_of_status(status: HTTPStatus) -> str:
    """The problem for an error of HTTP itself, where there is no application to make a response."""
    return _json(_fields_of_status(status))


def _fields_of_status(status: HTTPStatus) -> dict[str, Any]:
    if status == HTTPStatus.NOT_FOUND:
        return fields_of(NotFoundError("there is no such path"))
    code, text = HTTP_CODES.get(status, (f"http_{status.value}", f"HTTP status {status.value}"))
    return {
        "type": f"urn:consent-ledger:problem:{code}",
        "title": text,
        "status": status.value,
        "code": code,
        "detail": text,
    }


def trace_of(error: BaseException) -> str:
    """For the log: kinds and places of an error and its causes. Not their words, which may repeat what was asked."""
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None and cause not in causes:
        causes.append(cause)
    return "because of ".join(f"{type(one).__name__}\n{''.join(format_tb(one.__traceback__))}" for one in causes)


def title_of(error: type[LedgerError]) -> str:
    """What an error means, and what to do about it: the first line of what its class says."""
    return (error.__doc__ or error.code).partition("\n")[0].strip()


def _response(problem: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    return Response(
        _json(problem), status=int(problem["status"]), headers=dict(headers or {}), content_type=CONTENT_TYPE
    )


def _json(problem: Mapping[str, Any]) -> str:
    return json.dumps(problem, ensure_ascii=False, separators=(",", ":"))
