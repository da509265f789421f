"""The API against requests that its own document gives rise to: right ones, wrong ones, unsigned ones."""

from __future__ import annotations

import json
from functools import cache
from typing import Any, Final

import pytest
import requests
import schemathesis
from actors import Furnisher, World, new_nonce
from asking import FURNISHING, Api, bodies, document, operations
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import CheckFunction, not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.core.transport import Response
from schemathesis.generation import GenerationMode
from schemathesis.generation.case import Case
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    positive_data_acceptance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from schemathesis.specs.openapi.schemas import OpenApiSchema

from ledger.signatures import HttpRequest

EXAMPLES: Final = 20
ALWAYS: Final[list[CheckFunction]] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
FEW: Final = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


class Signing:
    """Sends what was generated as a party that may ask, or unsigned."""

    def __init__(self, world: World) -> None:
        self.api = Api(world)
        self.furnisher = Furnisher()
        self.furnisher.register(world.custodian)
        self.ids = self.api.objects(world.institution)

    def seeds(self, label: str, data: st.DataObject) -> dict[str, Any]:
        """What is not generated this time, but real."""
        seeded: dict[str, Any] = {}
        body = bodies(self.api.world).get(label)
        real = {name: value for name, value in self.ids.items() if f"{{{name}}}" in label}
        with_ids, with_body = data.draw(st.tuples(st.booleans(), st.booleans()))
        if real and with_ids:
            seeded["path_parameters"] = real
        if body is not None and with_body:
            seeded["body"] = body
            if "releases" in body:
                item = body["releases"][0] | {"consent": self.ids["consent"], "idempotencyKey": new_nonce()}
                seeded["body"] = {"releases": [item]}
        return seeded

    def send(self, case: Case[Any], *, unsigned: bool = False) -> Response:
        prepared = requests.Request(**self._arguments(case)).prepare()
        body = prepared.body.encode() if isinstance(prepared.body, str) else prepared.body or b""
        assert isinstance(body, bytes)
        assert prepared.method
        assert prepared.url
        headers = {name: str(value) for name, value in prepared.headers.items()}
        message = HttpRequest(method=prepared.method, url=prepared.url, headers=headers, body=body)
        who = self.furnisher if case.operation.path.startswith(FURNISHING) else self.api.world.institution
        answer = self.api.send(message if unsigned else self.api.signed(who, message))
        return Response(
            status_code=answer.status_code,
            headers={name: answer.headers.getlist(name) for name, _ in answer.headers},
            content=answer.data,
            request=prepared,
            elapsed=0.0,
            verify=False,
        )

    def _arguments(self, case: Case[Any]) -> dict[str, Any]:
        arguments = case.as_transport_kwargs(base_url=self.api.url)
        return {
            name: arguments[name]
            for name in ("method", "url", "params", "headers", "json", "data", "cookies")
            if name in arguments
        }


@cache
def schema() -> OpenApiSchema:
    """The document, but for the signature: every request is signed, whatever is generated."""
    described = json.loads(json.dumps(document()))
    del described["components"]["securitySchemes"]
    for operation in (one for path in described["paths"].values() for one in path.values()):
        del operation["security"]
    return schemathesis.openapi.from_dict(described, config=SchemathesisConfig())


def operation_of(label: str) -> APIOperation[Any, Any, Any, Any]:
    method, path = label.split(" ")
    return schema()[path][method]


def checks_of(label: str) -> list[CheckFunction]:
    # The simulated chain has no proofs: 503, as the document says.
    return [one for one in ALWAYS if one is not not_a_server_error or "proof" not in label]


def checks_of_a_right_request(label: str) -> list[CheckFunction]:
    # What is asked of the ledger has rules that a schema cannot say; what is only read has none.
    return [*checks_of(label), positive_data_acceptance] if label.startswith("GET") else checks_of(label)


def takes_something(label: str) -> bool:
    method, path = label.split(" ")
    described = document()["paths"][path][method.lower()]
    return bool(described.get("parameters") or described.get("requestBody"))


@pytest.mark.parametrize("label", operations())
def test_a_request_that_the_document_allows_gets_an_answer_that_it_describes(world: World, label: str) -> None:
    signing = Signing(world)
    operation, checks, statuses = operation_of(label), checks_of_a_right_request(label), set()

    @FEW
    @given(data=st.data())
    def run(data: st.DataObject) -> None:
        # Every second time it is about what exists, and every second body is right in itself: the way goes on then.
        case: Case[Any] = data.draw(operation.as_strategy(**signing.seeds(label, data)))
        answer = signing.send(case)
        case.validate_response(answer, checks=checks)
        statuses.add(answer.status_code)

    run()
    assert 401 not in statuses
    assert statuses & {200, 201} or "proof" in label, f"nothing got through: {statuses}"


@pytest.mark.parametrize("label", [one for one in operations() if takes_something(one)])
def test_a_request_that_the_document_does_not_allow_is_refused_as_it_describes(world: World, label: str) -> None:
    signing = Signing(world)
    operation, checks = operation_of(label), [*checks_of(label), negative_data_rejection]

    @FEW
    @given(data=st.data())
    def run(data: st.DataObject) -> None:
        case = data.draw(operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))
        case.validate_response(signing.send(case), checks=checks)

    run()


@pytest.mark.parametrize("label", operations())
def test_whatever_is_sent_unsigned_is_answered_alike(world: World, label: str) -> None:
    signing = Signing(world)
    operation = operation_of(label)

    @settings(FEW, max_examples=3)
    @given(case=operation.as_strategy())
    def run(case: Case[Any]) -> None:
        answer = signing.send(case, unsigned=True)
        assert answer.status_code == 401
        case.validate_response(answer, checks=ALWAYS)

    run()
