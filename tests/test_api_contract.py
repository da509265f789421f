"""The API's contract: what the document says is what there is, and nobody gets what is not theirs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Final

import pytest
from actors import Furnisher, Institution, World, new_nonce
from asking import DECISION, FURNISHING, NO_UUID, NOWHERE, WANTED, Api, bodies, document, filled, operations, said
from openapi_spec_validator import OpenAPIV31SpecValidator
from werkzeug.test import TestResponse

from ledger import exchange
from ledger.errors import AuditError, LedgerError, ServiceError, WrongInstitutionError
from ledger.parties import FURNISHER, INSTITUTION
from web import problems

OWN, OTHERS, NOWHERE_AT_ALL, ERASED = "own", "another's", "nowhere", "erased"
OBJECTS: Final = (OTHERS, NOWHERE_AT_ALL, ERASED, OWN)
NO_OBJECT: Final = (OWN,)

EXPECTED: Final[dict[str, tuple[int, ...]]] = {
    # What a party that may ask gets: for another's, for what is nowhere, for what was erased, for its own; or for the
    # one thing that there is. Everyone else gets the same everywhere: 401, or 403 while suspended (but for DUTIES).
    "POST /v1/consent-requests": (201,),
    "GET /v1/consent-requests": (200,),
    "GET /v1/consent-requests/{request}": (404, 404, 403, 200),
    "GET /v1/consents": (200,),
    "GET /v1/consents/{consent}": (404, 404, 403, 200),
    "DELETE /v1/consents/{consent}": (404, 404, 403, 200),
    "POST /v1/consents/{consent}/deletion-attestations": (404, 404, 403, 201),
    "POST /v1/consents/{consent}/releases": (404, 404, 403, 200),
    "POST /v1/batch/releases": (200, 200, 200, 200),
    "GET /v1/consents/{consent}/releases": (404, 404, 403, 200),
    "GET /v1/releases/{release}": (404, 404, 403, 200),
    "GET /v1/releases/{release}/receipt": (404, 404, 403, 200),
    # The simulated chain cannot prove anything.
    "GET /v1/releases/{release}/proof": (404, 404, 403, 503),
    "POST /v1/releases/{release}/adverse-action": (404, 404, 403, 200),
    "GET /v1/webhook": (200,),
    "PUT /v1/webhook": (200,),
    "DELETE /v1/webhook": (200,),
    "GET /v1/events": (200,),
    "POST /v1/events/{event}/acknowledgement": (404, 404, 200, 200),
    "GET /v1/keys": (200,),
    "PUT /v1/keys": (200,),
    # Another's: the values of another source. Nowhere: a person who is new. The answer must not tell which it is.
    "PUT /v1/subjects/{ref}/attributes": (409, 200, 403, 200),
    # Only who is the source of all that is held of a person invites them.
    "POST /v1/subjects/{ref}/invitations": (404, 404, 403, 201),
}
DUTIES: Final = {
    "GET /v1/consents/{consent}/releases",
    "POST /v1/consents/{consent}/deletion-attestations",
    "GET /v1/releases/{release}/receipt",
    "GET /v1/releases/{release}/proof",
    "POST /v1/releases/{release}/adverse-action",
    "GET /v1/events",
    "POST /v1/events/{event}/acknowledgement",
}
"""What a suspended institution may do as any other."""
IN_A_BATCH: Final = dict(zip(OBJECTS, (404, 404, 403, 200), strict=True))


@pytest.fixture
def api(world: World) -> Api:
    return Api(world)


# --------------------------------------------------------------------------------------------------------- the document


def test_the_document_is_valid(api: Api) -> None:
    OpenAPIV31SpecValidator(dict(document())).validate()
    assert document()["openapi"].startswith("3.1")


def test_every_route_of_the_api_is_in_the_document_and_nothing_else_is(api: Api) -> None:
    routes = {
        f"{method} {rule.rule.replace('<path:', '<').replace('<', '{').replace('>', '}')}"
        for rule in api.client.application.url_map.iter_rules()
        for method in rule.methods or ()
        if rule.rule.startswith("/v1") and method not in ("HEAD", "OPTIONS")
    }
    assert routes == set(operations())


@pytest.mark.parametrize("operation", operations())
def test_every_operation_says_what_it_is_and_how_it_refuses(operation: str) -> None:
    method, path = operation.split(" ")
    found = document()["paths"][path][method.lower()]
    assert found["summary"]
    assert found["security"] == [{"signature": []}]
    assert {"401", "403", "404", "409", "410", "413", "422", "429", "500", "503"} <= found["responses"].keys()
    for status, answer in found["responses"].items():
        assert answer["description"]
        (content_type,) = answer["content"]
        assert content_type == ("application/json" if status.startswith("2") else "application/problem+json")
    if method in ("POST", "PUT") and not path.endswith(("acknowledgement", "invitations")):
        assert "application/json" in found["requestBody"]["content"]


def errors_that_leave(kind: type[LedgerError] = LedgerError) -> Iterator[type[LedgerError]]:
    """All but what is found out on the caller's side, and what is answered as what does not exist."""
    for child in kind.__subclasses__():
        if child.__module__ == "ledger.errors" and not issubclass(child, AuditError | ServiceError):
            yield from (child, *errors_that_leave(child))


def documented_codes() -> dict[str, tuple[int, str]]:
    """Status and text of every code in the introduction's table."""
    rows = re.findall(r"^\| (\d{3}) \| `(\w+)` \| (.+) \|$", document()["info"]["description"], re.MULTILINE)
    assert len(rows) == len({code for _, code, _ in rows})
    return {code: (int(status), text) for status, code, text in rows}


def test_every_code_that_can_leave_the_service_is_in_the_document_with_its_status_and_meaning() -> None:
    documented = documented_codes()
    for kind in set(errors_that_leave()) - {WrongInstitutionError}:
        status, text = documented[kind.code]
        assert status == kind.http_status
        assert text == problems.title_of(kind)
    for status, (code, text) in problems.HTTP_CODES.items():
        assert documented[code] == (status, text)
    assert "wrong_institution" not in documented
    assert not any("retry_after" in text for _, text in documented.values()), "a name that only Python has"
    for code in ("in_progress", "party_changed", "answer_gone", "paused", "aborted", "daily_limit"):
        assert re.search(r"\b[Aa]sk again|\bUse a new key", documented[code][1]), code


# ----------------------------------------------------------------------------------------------------------- the matrix


class Cast:
    """Everyone who may try, and one of everything that they may try."""

    def __init__(self, api: Api) -> None:
        self.api, world = api, api.world
        self.other = world.another_institution()
        erased = world.another_subject()
        self.furnisher = Furnisher()
        self.furnisher.register(world.custodian)
        self.own = api.objects(world.institution)
        self.objects = {
            OTHERS: api.objects(self.other) | {"ref": self.of_another_source()},
            NOWHERE_AT_ALL: {
                "request": NO_UUID,
                "consent": NOWHERE,
                "release": NOWHERE,
                "event": NO_UUID,
                "ref": "new",
            },
            ERASED: api.objects(world.institution, erased),
            OWN: self.own,
        }
        world.custodian.eraser.erase(erased.ref)

    def of_another_source(self) -> str:
        other = Furnisher("urn:test:another-furnisher")
        other.register(self.api.world.custodian)
        ref = "person-of-another"
        assert (
            self.api.ask(
                other,
                "PUT",
                f"/v1/subjects/{ref}/attributes",
                bodies(self.api.world)["PUT /v1/subjects/{ref}/attributes"],
            ).status_code
            == 200
        )
        return ref

    def strangers(self, operation: str) -> Iterator[tuple[str, Institution | Furnisher | None, int]]:
        """Who gets nothing, whatever they ask for: who they are, and the status that says so."""
        world, custodian = self.api.world, self.api.world.custodian
        furnishing = FURNISHING in operation
        yield "unsigned", None, 401
        yield "the other role", world.institution if furnishing else self.furnisher, 401
        yield "unknown", Furnisher("urn:nobody") if furnishing else Institution("bank-nobody"), 401
        yield "unknown key", Furnisher() if furnishing else Institution(world.institution.institution_id), 401
        yield "retired key", self.retired(furnishing=furnishing), 401
        if operation in DUTIES:
            return
        suspended = self.suspended(furnishing=furnishing)
        yield "suspended", suspended, 403
        role, party = (
            (FURNISHER, self.furnisher.furnisher_id) if furnishing else (INSTITUTION, world.institution.institution_id)
        )
        custodian.registry.suspend(role, party, suspended=False)

    def suspended(self, *, furnishing: bool) -> Institution | Furnisher:
        registry = self.api.world.custodian.registry
        if furnishing:
            registry.suspend(FURNISHER, self.furnisher.furnisher_id, suspended=True)
            return self.furnisher
        registry.suspend(INSTITUTION, self.api.world.institution.institution_id, suspended=True)
        return self.api.world.institution

    def retired(self, *, furnishing: bool) -> Institution | Furnisher:
        """Someone whose key of yesterday counts no more; the new one does."""
        world = self.api.world
        role, party = (FURNISHER, "urn:test:retired") if furnishing else (INSTITUTION, "bank-retired")
        old, new = (Furnisher(party) if furnishing else Institution(party) for _ in range(2))
        old.register(world.custodian)
        jwks = exchange.check_jwks(new.jwks, ["sig"])
        world.custodian.registry.rotate_keys(role, party, jwks, now=world.clock(), overlap_seconds=0)
        return old

    def try_it(self, who: Institution | Furnisher | None, operation: str, ids: dict[str, str]) -> TestResponse:
        method, path = operation.split(" ")
        body = bodies(self.api.world).get(operation)
        if operation == "POST /v1/batch/releases":
            body = {"releases": [WANTED | {"consent": ids["consent"], "idempotencyKey": new_nonce()}]}
        return self.api.ask(who, method, filled(path, self.api.world, **ids), body, key=new_nonce())


@pytest.mark.parametrize("operation", operations())
def test_nobody_gets_what_is_not_theirs(world: World, api: Api, operation: str) -> None:
    assert operation in EXPECTED, "a new endpoint: say in EXPECTED what each role may have of it"
    cast = Cast(api)
    has_object = "{" in operation or "batch" in operation
    objects = OBJECTS if has_object else NO_OBJECT
    for role, who, status in cast.strangers(operation):
        for thing in objects:
            answer = cast.try_it(who, operation, cast.objects[thing])
            assert answer.status_code == status, f"{role}, {thing}: {answer.text}"
            assert answer.content_type == "application/problem+json"
            assert not any(value in answer.text for value in cast.objects[thing].values())
    who = cast.furnisher if FURNISHING in operation else world.institution
    for thing, status in zip(objects, EXPECTED[operation], strict=True):
        answer = cast.try_it(who, operation, cast.objects[thing])
        assert answer.status_code == status, f"the owner, {thing}: {answer.text}"
        if "batch" in operation:
            assert [one["status"] for one in said(answer)["results"]] == [IN_A_BATCH[thing]]
        if thing != OTHERS:
            assert not any(
                cast.objects[OTHERS][name] in answer.text for name in ("consent", "release", "request", "event")
            )


@pytest.mark.parametrize("operation", sorted(DUTIES))
def test_a_suspended_institution_does_what_it_owes(world: World, api: Api, operation: str) -> None:
    cast = Cast(api)
    suspended = cast.suspended(furnishing=False)
    for thing, status in zip(OBJECTS if "{" in operation else NO_OBJECT, EXPECTED[operation], strict=True):
        answer = cast.try_it(suspended, operation, cast.objects[thing])
        assert answer.status_code == status, f"{thing}: {answer.text}"
    # A nonce counts once, whoever sends it.
    method, path = operation.split(" ")
    message = api.request(method, filled(path, world, **cast.own), bodies(world).get(operation))
    once = [api.send(api.signed(suspended, message, nonce="twice-the-same-nonce")) for _ in range(2)]
    assert said(once[1])["code"] == "replayed"


def test_the_table_has_no_row_for_what_is_not_there() -> None:
    assert EXPECTED.keys() == set(operations())


@pytest.mark.parametrize("listed", ["consents", "consent-requests", "events"])
def test_lists_show_what_is_ones_own(world: World, api: Api, listed: str) -> None:
    cast = Cast(api)
    kind = {"consents": "consent", "consent-requests": "request", "events": "event"}[listed]
    for who, mine, theirs in ((world.institution, OWN, OTHERS), (cast.other, OTHERS, OWN)):
        answer = api.ask(who, "GET", f"/v1/{listed}").text
        assert cast.objects[mine][kind] in answer
        assert cast.objects[theirs][kind] not in answer
        # Nor does another's id say anything as the place to go on from.
        after = [
            api.ask(who, "GET", f"/v1/{listed}?after={one[kind]}")
            for one in (cast.objects[theirs], cast.objects[NOWHERE_AT_ALL])
        ]
        if listed != "events":
            assert same(*after)


def test_what_another_institution_asked_for_under_a_consent_is_in_no_list_of_it(world: World, api: Api) -> None:
    cast = Cast(api)
    path = f"/v1/consents/{cast.own['consent']}/releases"
    assert api.release(cast.other, cast.own["consent"]).status_code == 404
    assert [one["id"] for one in said(api.ask(world.institution, "GET", path))["releases"]] == [cast.own["release"]]
    second = api.accept(api.token(world.institution)[1])
    elsewhere = said(api.release(world.institution, second))["id"]
    # Nor does another's id, or one of another consent, say anything as the place to go on from.
    places = (cast.objects[OTHERS]["release"], elsewhere, NOWHERE)
    first, *others = (api.ask(world.institution, "GET", f"{path}?after={place}") for place in places)
    assert first.status_code == HTTPStatus.NOT_FOUND
    assert all(same(first, other) for other in others)


# ------------------------------------------------------------------------------------ not yours is as good as not there


def shown(answer: TestResponse) -> tuple[Any, ...]:
    """All of an answer but what is different at every time: the signature, and how many requests are left."""
    apart = {"Signature", "Signature-Input", "RateLimit-Remaining", "Date"}
    return answer.status, answer.data, sorted((name, value) for name, value in answer.headers if name not in apart)


def same(first: TestResponse, second: TestResponse) -> bool:
    assert shown(first) == shown(second)
    return True


@pytest.mark.parametrize("operation", [one for one in operations() if "{" in one and FURNISHING not in one])
def test_what_is_anothers_is_answered_as_what_is_not_there(world: World, api: Api, operation: str) -> None:
    cast = Cast(api)
    of_another = cast.try_it(world.institution, operation, cast.objects[OTHERS])
    of_nobody = cast.try_it(world.institution, operation, cast.objects[NOWHERE_AT_ALL])
    assert of_another.status_code == HTTPStatus.NOT_FOUND
    assert same(of_another, of_nobody)


def test_an_item_of_a_batch_under_anothers_consent_is_answered_as_one_under_none(world: World, api: Api) -> None:
    cast = Cast(api)
    batch = "POST /v1/batch/releases"
    assert same(*(cast.try_it(world.institution, batch, cast.objects[thing]) for thing in (OTHERS, NOWHERE_AT_ALL)))


def test_a_replacement_of_anothers_consent_is_answered_as_one_of_none(world: World, api: Api) -> None:
    cast = Cast(api)
    body = bodies(world)["POST /v1/consent-requests"]
    ids = (cast.objects[OTHERS]["consent"], NOWHERE)
    assert same(*(api.ask(world.institution, "POST", "/v1/consent-requests", body | {"replaces": one}) for one in ids))


@pytest.mark.parametrize("then", [{}, {"attributes": ["savings"]}, {"purpose": "account-review"}])
def test_a_second_try_under_the_same_key_does_not_tell_them_apart_either(
    world: World, api: Api, then: dict[str, Any]
) -> None:
    cast = Cast(api)
    for first, second in ((cast.objects[OTHERS]["consent"], NOWHERE), (cast.own["consent"],) * 2):
        answers = []
        for number, consent in enumerate((first, second)):
            api.release(world.institution, consent, key=f"{first}-{number}")
            answers.append(api.release(world.institution, consent, key=f"{first}-{number}", **then))
        if first != second:
            assert same(*answers)


def test_another_question_under_a_key_that_was_used_for_anothers_consent_is_answered_as_if_it_were_new(
    world: World, api: Api
) -> None:
    cast = Cast(api)
    answers = []
    for consent in (cast.objects[OTHERS]["consent"], NOWHERE):
        key = new_nonce()
        api.release(world.institution, consent, key=key)
        answers.append(api.release(world.institution, cast.own["consent"], key=key))
    assert [one.status_code for one in answers] == [200, 200]


def test_one_who_asked_for_anothers_data_is_seen_by_the_person(world: World, api: Api) -> None:
    cast = Cast(api)
    consent = cast.objects[OTHERS]["consent"]
    assert api.release(world.institution, consent).status_code == 404
    assert "wrong_institution" in {row.reason for row in world.custodian.journal.history() if row.consent_id == consent}


def test_a_decision_on_anothers_release_is_not_on_file(world: World, api: Api) -> None:
    cast = Cast(api)
    release = cast.objects[OTHERS]["release"]
    assert api.ask(world.institution, "POST", f"/v1/releases/{release}/adverse-action", DECISION).status_code == 404
    subject_id = world.custodian.vault.subject_of(world.subject.ref)
    assert world.custodian.duties.adverse_actions(subject_id) == []
