"""Bodies that are odd or wrong: refused by name of the field, and nothing of them is said again, here or in the log."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any
from urllib.parse import quote

import pytest
from actors import Furnisher, World, new_nonce
from asking import FURNISHING, HANDED_IN, WANTED, Api, bodies, code, filled, operations, said


@pytest.fixture
def api(world: World) -> Api:
    return Api(world)


def registered_furnisher(world: World) -> Furnisher:
    furnisher = Furnisher()
    furnisher.register(world.custodian)
    return furnisher


# ----------------------------------------------------------------------------------------------------------- odd bodies

RELEASE = json.dumps(WANTED).encode()
ODD: Mapping[str, bytes] = {
    "nothing": b"",
    "half of it": RELEASE[:-5],
    "two of them": RELEASE + RELEASE,
    "a list": b"[" + RELEASE + b"]",
    "a number": b"1",
    "null": b"null",
    "a text": b'"loan-origination"',
    "JSON in JSON": json.dumps(RELEASE.decode()).encode(),
    "NaN": b'{"purpose": NaN, "attributes": ["credit_amount"]}',
    "infinity": b'{"purpose": "loan-origination", "attributes": [1e999]}',
    "a name twice": b'{"purpose": "account-review", "purpose": "loan-origination", "attributes": ["credit_amount"]}',
    "one more name": b'{"purpose": "loan-origination", "attributes": ["credit_amount"], "consent": "0x"}',
    "a name in another case": b'{"Purpose": "loan-origination", "attributes": ["credit_amount"]}',
    "a byte order mark": b"\xef\xbb\xbf" + RELEASE,
    "UTF-16": RELEASE.decode().encode("utf-16"),
    "UTF-32": RELEASE.decode().encode("utf-32-be"),
    "no UTF-8": RELEASE.replace(b"credit_amount", b"credit_\xff\xfe"),
    "half a character": RELEASE.replace(b"credit_amount", b"\\ud800"),
    "a zero byte": RELEASE.replace(b"credit_amount", b"credit\\u0000"),
    "nested": b"[" * 100_000,
    "nested objects": b'{"a":' * 50_000,
    "nested where it is looked at": b'{"purpose": '
    + b"[" * 5_000
    + b"]" * 5_000
    + b', "attributes": ["credit_amount"]}',
    "a long number": b'{"purpose": ' + b"9" * 5_000 + b', "attributes": ["credit_amount"]}',
    "many names": json.dumps(WANTED | {"attributes": ["credit_amount"] * 101}).encode(),
    "no names": json.dumps(WANTED | {"attributes": []}).encode(),
    "a long name": json.dumps(WANTED | {"attributes": ["a" * 101]}).encode(),
    "comments": RELEASE + b" // and so on",
    "single quotes": RELEASE.replace(b'"', b"'"),
}

READABLE = "a JSON object in UTF-8, with each name once, and finite numbers"
UNREADABLE = {
    *(
        "nothing",
        "half of it",
        "two of them",
        "a list",
        "a number",
        "null",
        "a text",
        "JSON in JSON",
        "NaN",
        "infinity",
    ),
    *("a name twice", "a byte order mark", "UTF-16", "UTF-32", "no UTF-8", "nested", "nested objects", "comments"),
    *("single quotes",),
}


@pytest.mark.parametrize("what", ODD)
def test_a_body_that_can_be_read_in_two_ways_or_in_none_is_refused(world: World, api: Api, what: str) -> None:
    path = f"/v1/consents/{world.grant()}/releases"
    answer = api.ask(world.institution, "POST", path, ODD[what], key="a-question")
    assert answer.status_code == 422, answer.text
    assert answer.content_type == "application/problem+json"
    assert code(answer) == "malformed"
    if what in UNREADABLE:
        assert (said(answer)["field"], said(answer)["detail"]) == ("body", f"body: expected: {READABLE}")
    assert world.states() == []


def test_a_parameter_that_is_not_known_is_one_of_the_query(world: World, api: Api) -> None:
    refused = said(api.ask(world.institution, "GET", "/v1/consents?colour=red"))
    assert (refused["status"], refused["field"]) == (422, "query")


def test_a_value_of_an_attribute_that_is_not_known_is_one_of_the_values(world: World, api: Api) -> None:
    path = f"/v1/subjects/{world.subject.ref}/attributes"
    furnisher = registered_furnisher(world)
    for values in ({"colour": "red"}, {"credit_amount": 1, "colour": "red"}):
        refused = said(api.ask(furnisher, "PUT", path, HANDED_IN | {"values": values}))
        assert (refused["code"], refused["field"]) == ("unknown_attribute", "values")


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonp",
        "",
        "a/b/c",
    ],
)
def test_a_body_of_another_type_is_refused(world: World, api: Api, content_type: str) -> None:
    path = f"/v1/consents/{world.grant()}/releases"
    answer = api.ask(world.institution, "POST", path, WANTED, key="k", **{"Content-Type": content_type})
    assert (answer.status_code, said(answer)["field"]) == (422, "content-type")
    assert world.states() == []


def test_what_is_too_large_is_not_read(world: World, api: Api) -> None:
    large = WANTED | {"attributes": ["a" * 100] * 3_000}
    answer = api.ask(world.institution, "POST", f"/v1/consents/{world.grant()}/releases", large, key="k")
    assert (answer.status_code, answer.content_type) == (413, "application/problem+json")


@pytest.mark.parametrize("key", [None, "", "x" * 201, "a b", "a\tb"])
def test_an_idempotency_key_is_printable_and_short(world: World, api: Api, key: str | None) -> None:
    path = f"/v1/consents/{world.grant()}/releases"
    answer = api.ask(world.institution, "POST", path, WANTED, key=key)
    assert (answer.status_code, said(answer)["field"]) == (422, "idempotency-key")
    assert world.states() == []


# -------------------------------------------------------------------------------------------------- nothing is repeated

CANARY = "Jane-Canary-7391046"
NUMBER = 739_104_600_000
WRONG: tuple[Any, ...] = (
    CANARY,
    CANARY * 30,
    f"{CANARY}\r\n{CANARY}\x1b[31m",
    NUMBER,
    7_391_046,
    -7_391_046,
    7391046.5,
    [CANARY],
    {CANARY: CANARY},
    [[7_391_046]],
)
TELLTALE = re.compile("canary|7391046", re.IGNORECASE)


def places(body: Any, at: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every place in a body where a value stands, from the outside in."""
    yield at
    inner = body.items() if isinstance(body, dict) else enumerate(body) if isinstance(body, list) else ()
    for name, value in inner:
        yield from places(value, (*at, name))


def put(body: Any, at: tuple[str | int, ...], value: Any) -> Any:
    """A copy of the body with another value at that place."""
    if not at:
        return value
    copy = deepcopy(body)
    holder = copy
    for name in at[:-1]:
        holder = holder[name]
    holder[at[-1]] = value
    return copy


def spoilt(body: Any) -> Iterator[Any]:
    """The body with something wrong in each of its places, once by its value and once by a name too many."""
    for at in places(body):
        yield from (put(body, at, wrong) for wrong in WRONG)
        held = body
        for name in at:
            held = held[name]
        if isinstance(held, dict):
            yield put(body, at, held | {CANARY: 1})
            yield put(body, at, held | {"more": CANARY})
        elif isinstance(held, list):
            yield put(body, at, [*held, CANARY, CANARY])


@pytest.mark.parametrize("operation", [one for one in operations() if not one.startswith(("GET", "DELETE"))])
def test_nothing_that_was_sent_is_repeated_in_a_refusal_or_in_the_log(
    world: World, api: Api, operation: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    method, path = operation.split(" ")
    who = registered_furnisher(world) if path.startswith(FURNISHING) else world.institution
    consent = world.grant()
    path = filled(path, world, consent=consent, release=world.ask(consent).release_id)
    refusals = 0
    for body in spoilt(bodies(world).get(operation, {})):
        answer = api.ask(who, method, path, body, key=new_nonce())
        if answer.status_code >= 300:
            refusals += 1
            assert answer.status_code < 500, answer.text
            assert not TELLTALE.search(answer.text), answer.text
            assert not TELLTALE.search(str(answer.headers))
        world.clock.advance(1)
    assert refusals or operation not in bodies(world)
    assert not TELLTALE.search(caplog.text)


@pytest.mark.parametrize("operation", operations())
def test_nothing_in_a_path_a_query_or_a_header_is_repeated(
    world: World, api: Api, operation: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    method, path = operation.split(" ")
    who = registered_furnisher(world) if path.startswith(FURNISHING) else world.institution
    body = bodies(world).get(operation)
    spoilt_path = re.sub(r"{[a-z]+}", quote(f"{CANARY} \r\n"), path)
    for one in (spoilt_path, f"{filled(path, world)}?limit={CANARY}&after={CANARY}&{CANARY}={CANARY}"):
        for headers in ({}, {"X-Name": CANARY, "User-Agent": CANARY, "Content-Type": CANARY, "Referer": CANARY}):
            answer = api.ask(who, method, one, body, key=CANARY * 20, **headers)
            assert answer.status_code < 500
            assert not TELLTALE.search(answer.text), answer.text
            assert not TELLTALE.search(str(answer.headers))
    assert not TELLTALE.search(caplog.text)


def test_an_error_of_our_own_is_in_the_log_by_kind_and_place_and_in_the_answer_not_at_all(
    world: World, api: Api, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(consent: str, _party: str) -> None:
        raise RuntimeError(f"{CANARY}: {consent}") from ValueError(CANARY)

    consent = world.grant()
    monkeypatch.setattr(world.custodian.registry, "consent_of", broken)
    answer = api.ask(world.institution, "GET", f"/v1/consents/{consent}")
    assert (answer.status_code, code(answer)) == (500, "internal_server_error")
    assert not TELLTALE.search(answer.text)
    assert "RuntimeError" in caplog.text
    assert "ValueError" in caplog.text
    assert "in see_consent" in caplog.text
    for name in (CANARY, consent, world.institution.institution_id):
        assert name not in caplog.text
