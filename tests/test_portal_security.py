"""Requests that other sites make in a person's name, and what every answer of the portal carries.

The routes are those of the url map: one that is new and not protected fails here.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any, Final, cast
from urllib.parse import quote

import pytest
from actors import World
from browsing import SAME_ORIGIN, VISIT, Browser, code, enrolled, invite, said
from werkzeug.routing import Rule

from ledger.custodian import Custodian
from ledger.errors import AuthenticationError
from ledger.sessions import new_token
from web import create_app, problems
from web.door import API
from web.json_body import MAX_JSON
from web.security import HEADERS, PUBLIC, local_path

EVIL: Final = "https://evil.example"
FORM: Final = "application/x-www-form-urlencoded"
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)


@cache
def rules() -> tuple[Rule, ...]:
    """Every route that is neither the API nor said to be public."""
    app = create_app(cast("Custodian", None))
    found = (rule for rule in app.url_map.iter_rules() if not rule.rule.startswith(API))
    return tuple(rule for rule in found if rule.endpoint not in PUBLIC)


def routes(*, unsafe: bool) -> list[str]:
    """`METHOD /path` with something in the place of parameters."""
    return sorted(
        f"{method} {re.sub('<[^>]+>', 'x', rule.rule)}"
        for rule in rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if (method != "GET") == unsafe
    )


UNSAFE: Final = routes(unsafe=True)
PAGES: Final = routes(unsafe=False)


def rows(world: World) -> list[Any]:
    """Everything in the database that a portal request could change."""
    names = ("accounts", "passkeys", "wallets", "sessions", "invitations", "challenges", "attempts", "consents", "acts")
    with world.custodian.store.read() as tx:
        return [tx.exec_driver_sql(f"SELECT * FROM {name}").all() for name in (*names, "subjects", "consent_requests")]


def test_there_are_unsafe_routes_to_be_protected() -> None:
    assert {"POST /auth/passkey/sign-in", "POST /sign-out", "POST /auth/sessions/end"} <= set(UNSAFE)
    assert {"GET /security", "GET /sign-in", "GET /enrol"} <= set(PAGES)


def test_what_is_public_exists_and_changes_nothing() -> None:
    app = create_app(cast("Custodian", None))
    public = {rule.endpoint: rule.methods or set() for rule in app.url_map.iter_rules() if rule.endpoint in PUBLIC}
    assert public.keys() <= PUBLIC
    # JSON-RPC is asked by POST, and only to read: see test_portal_audit.py.
    assert public.pop("audit.rpc") <= {"POST", "OPTIONS"}
    assert all(methods <= {"GET", "HEAD", "OPTIONS"} for methods in public.values())


# ----------------------------------------------------------------------------------------------------------------- CSRF


@pytest.fixture
def victim(world: World) -> Browser:
    """Signed in and stepped up: whatever is not refused would be done."""
    browser = enrolled(world)
    assert browser.step_up().status_code == 200
    return browser


@pytest.mark.parametrize("route", UNSAFE)
def test_another_sites_page_changes_nothing(world: World, victim: Browser, route: str) -> None:
    method, path = route.split(" ")
    token, before = victim.csrf(), rows(world)
    cross = {"Sec-Fetch-Site": "cross-site", "Origin": EVIL}
    with_token = {"X-CSRF-Token": token}
    fetch = {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "empty"}
    navigate = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    tries: dict[str, dict[str, Any]] = {
        "a form": {"headers": cross | navigate, "content_type": FORM, "data": {"session": "others"}},
        "a form that is sent by itself, from no origin": {
            "headers": {"Sec-Fetch-Site": "cross-site", "Origin": "null"},
            "content_type": FORM,
            "data": {},
        },
        "a form that looks like JSON": {"headers": cross | navigate, "content_type": "text/plain", "data": '{"a":"="}'},
        "fetch": {"headers": cross | fetch, "data": "{}", "content_type": "text/plain"},
        "fetch with JSON": {"headers": cross | fetch, "data": "{}", "content_type": "application/json"},
        "a neighbour under the same domain": {
            "headers": {"Sec-Fetch-Site": "same-site", "Origin": "http://other.localhost"},
            "content_type": FORM,
            "data": {},
        },
        # Even if the token had leaked, or an old browser does not say whence it comes.
        "with the token, as it says from elsewhere": {
            "headers": cross | with_token,
            "data": "{}",
            "content_type": "application/json",
        },
        "with the token in the form, from elsewhere": {
            "headers": {"Origin": EVIL},
            "data": {"csrf": token},
            "content_type": FORM,
        },
        "with the token, from another port": {
            "headers": with_token | {"Origin": "http://localhost:1"},
            "data": "{}",
            "content_type": "application/json",
        },
        "with the token, over another scheme": {
            "headers": with_token | {"Origin": victim.origin.replace("http:", "https:")},
            "data": "{}",
            "content_type": "application/json",
        },
        "with the token, from another site that is not named": {
            "headers": with_token | {"Sec-Fetch-Site": "cross-site"},
            "data": "{}",
            "content_type": "application/json",
        },
        "with the token, from a neighbour that is not named": {
            "headers": with_token | {"Sec-Fetch-Site": "same-site"},
            "data": "{}",
            "content_type": "application/json",
        },
        "an old browser's form": {"headers": {}, "content_type": FORM, "data": {}},
        "without a token": {"headers": SAME_ORIGIN | {"Origin": victim.origin}, "content_type": FORM, "data": {}},
        "with an empty token": {
            "headers": SAME_ORIGIN | {"Origin": victim.origin, "X-CSRF-Token": ""},
            "data": "{}",
            "content_type": "application/json",
        },
        "with the token in the address": {
            "headers": SAME_ORIGIN | {"Origin": victim.origin},
            "query_string": {"csrf": token},
            "content_type": FORM,
            "data": {},
        },
        "with the token in JSON": {
            "headers": SAME_ORIGIN | {"Origin": victim.origin},
            "content_type": "application/json",
            "data": f'{{"csrf": "{token}"}}',
        },
        "with another session's token": {
            "headers": SAME_ORIGIN | {"Origin": victim.origin, "X-CSRF-Token": Browser(world).csrf()},
            "content_type": "application/json",
            "data": "{}",
        },
    }
    for what, options in tries.items():
        answer = victim.open(method, path, **options)
        assert (answer.status_code, code(answer)) == (403, "cross_site"), f"{what}: {answer.status_code} {answer.text}"
        assert rows(world) == before, what
    assert victim.is_signed_in()


@pytest.mark.parametrize("route", UNSAFE)
def test_an_image_or_a_link_changes_nothing(world: World, victim: Browser, route: str) -> None:
    path = route.split(" ")[1]
    before = rows(world)
    victim.open("GET", path, headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "image"})
    victim.open("GET", path, headers={"Sec-Fetch-Site": "cross-site"} | VISIT)
    victim.open("HEAD", path)
    victim.open("OPTIONS", path, headers={"Origin": EVIL, "Access-Control-Request-Method": "POST"})
    assert rows(world) == before
    assert victim.is_signed_in()


@pytest.mark.parametrize("route", UNSAFE)
def test_the_token_of_the_page_lets_a_request_through_the_door(world: World, victim: Browser, route: str) -> None:
    method, path = route.split(" ")
    answer = victim.post(path) if method == "POST" else victim.open(method, path)
    assert code(answer) != "cross_site"


def test_no_answer_lets_another_site_read_it(victim: Browser) -> None:
    for route in (*UNSAFE, *PAGES):
        method, path = route.split(" ")
        for answer in (
            victim.open(method, path, headers={"Origin": EVIL}),
            victim.open("OPTIONS", path, headers={"Origin": EVIL, "Access-Control-Request-Method": method}),
        ):
            assert not [name for name, _ in answer.headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize("route", PAGES)
def test_a_page_is_not_shown_in_another_sites_frame_or_image_and_not_fetched(victim: Browser, route: str) -> None:
    path = route.split(" ")[1]
    for site in ("cross-site", "same-site"):
        for mode, dest in (
            ("navigate", "iframe"),
            ("navigate", "frame"),
            ("navigate", "embed"),
            ("navigate", "object"),
            ("no-cors", "image"),
            ("no-cors", "script"),
            ("cors", "empty"),
        ):
            headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": dest}
            answer = victim.open("GET", path, headers=headers)
            assert code(answer) == "cross_site", (site, mode, dest)
    assert code(victim.get(path, **{"Sec-Fetch-Site": "cross-site"})) != "cross_site"


# -------------------------------------------------------------------------------------------------------------- headers


@pytest.mark.parametrize("route", [*UNSAFE, *PAGES])
def test_every_answer_of_the_portal_has_the_headers(world: World, victim: Browser, route: str) -> None:
    method, path = route.split(" ")
    stranger = Browser(world)
    answers = [victim.open(method, path), stranger.open(method, path), victim.open(method, path + "?lang=xx")]
    answers.append(victim.post(path) if method == "POST" else victim.get(path))
    for answer in answers:
        found = {name: answer.headers.get(name) for name in (*HEADERS, "Cache-Control")}
        assert found == {
            "Content-Security-Policy": POLICY,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Permissions-Policy": "publickey-credentials-create=(self), publickey-credentials-get=(self)",
            "Cache-Control": found["Cache-Control"] if "/static/" in path else "no-store",
        }
        for name in HEADERS:
            assert len(answer.headers.getlist(name)) == 1, name


def test_the_api_and_its_documentation_are_as_they_were(world: World) -> None:
    browser = Browser(world)
    for path in ("/healthz", "/readyz", "/docs", "/openapi.json", "/.well-known/consent-ledger", "/metrics"):
        answer = browser.open("GET", path, headers={"Sec-Fetch-Site": "cross-site", "Origin": EVIL})
        assert answer.status_code in (200, 503), path
        assert "Cross-Origin-Opener-Policy" not in answer.headers, path
        assert "Set-Cookie" not in answer.headers, path
        assert browser.open("POST", path).status_code == 405, path
    assert browser.open("POST", "/v1/consent-requests").json == {
        "type": "urn:consent-ledger:problem:authentication",
        "title": problems.title_of(AuthenticationError),
        "status": 401,
        "code": "authentication",
        "detail": browser.open("POST", "/v1/consent-requests").json["detail"],  # type: ignore[index] # as above
        "field": "signature-input",
    }


def test_a_page_opened_by_the_address_moves_to_the_name_that_passkeys_are_bound_to(world: World) -> None:
    browser = Browser(world)
    for address in ("http://127.0.0.1:8000", "http://[::1]:8000"):
        answer = browser.client.get("/sign-in?next=/security", base_url=address)
        assert (answer.status_code, answer.location) == (307, f"{browser.origin}/sign-in?next=/security")
    assert browser.client.get("/healthz", base_url="http://127.0.0.1:8000").status_code == 200


# --------------------------------------------------------------------------------------------------------------- cookie


def test_the_cookie_is_for_the_browser_alone(world: World) -> None:
    browser = Browser(world)
    (cookie,) = browser.get("/sign-in").headers.getlist("Set-Cookie")
    name, *attributes = cookie.split("; ")
    assert name.startswith("session=")
    assert sorted(attributes) == ["HttpOnly", "Path=/", "SameSite=Lax"]


def test_over_https_no_neighbour_can_set_the_cookie(world: World) -> None:
    object.__setattr__(world.custodian.config, "service_url", "https://ledger.example")
    client = create_app(world.custodian).test_client()
    answer = client.get("/sign-in", base_url="https://ledger.example")
    (cookie,) = answer.headers.getlist("Set-Cookie")
    name, *attributes = cookie.split("; ")
    assert name.startswith("__Host-session=")
    assert sorted(attributes) == ["HttpOnly", "Path=/", "SameSite=Lax", "Secure"]


def test_of_a_token_the_database_has_only_a_keyed_hash(world: World, victim: Browser) -> None:
    token = victim.cookie()
    assert token is not None
    content = world.config.database.read_bytes() + world.config.database.with_name("ledger.db-wal").read_bytes()
    assert token.encode() not in content
    assert world.custodian.keys.index("session", token).encode() in content
    assert b"Firefox" not in content


# ------------------------------------------------------------------------------------------------------------ redirects


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example",
        "//evil.example",
        "///evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "/\tevil",
        "/\n/evil.example",
        "\t//evil.example",
        " //evil.example",
        "javascript:alert(1)",
        "data:text/html,x",
        "evil.example",
        "http:evil.example",
        "/%0d%0aSet-Cookie:x\r\n",
        "/a\\b",
        "/ü",
        "",
        "?x",
        "#x",
        "/" + "a" * 600,
    ],
)
def test_nobody_is_sent_to_another_site(world: World, target: str) -> None:
    assert local_path(target) == "/"
    browser = Browser(world)
    assert browser.enrol(invite(world), next_page=target).json == {"next": "/"}
    assert browser.get("/sign-in?next=" + quote(target, safe="")).location == "/"
    browser.submit("/sign-out")
    options = said(browser.post("/auth/passkey/sign-in/options"))["publicKey"]
    fields = {"credential": browser.authenticator.get(options), "next": target}
    assert said(browser.post("/auth/passkey/sign-in", fields)) == {"next": "/"}


def test_whoever_signs_in_goes_on_to_where_they_were_going(world: World) -> None:
    browser = enrolled(world)
    browser.submit("/sign-out")
    away = browser.get("/security?lang=zh")
    assert (away.status_code, away.location) == (303, "/sign-in?next=%2Fsecurity%3Flang%3Dzh")
    options = said(browser.post("/auth/passkey/sign-in/options"))["publicKey"]
    fields = {"credential": browser.authenticator.get(options), "next": "/security?lang=zh"}
    assert said(browser.post("/auth/passkey/sign-in", fields)) == {"next": "/security?lang=zh"}


# --------------------------------------------------------------------------------------------------------------- bodies

JSON_ROUTES: Final = [one for one in UNSAFE if re.search("/auth/(passkey|wallet)(/|$)", one)]


@pytest.mark.parametrize("route", JSON_ROUTES)
def test_json_that_is_odd_deep_or_large_is_refused(world: World, victim: Browser, route: str) -> None:
    path = route.split(" ")[1]
    headers = SAME_ORIGIN | {"Origin": victim.origin, "X-CSRF-Token": victim.csrf()}
    deep = b'{"credential": ' + b"[" * 10_000 + b"]" * 10_000 + b"}"
    odd: dict[bytes, int] = {
        b"": 422,
        b"null": 422,
        b"[]": 422,
        b'"{}"': 422,
        b'{"a": NaN}': 422,
        b'{"unknown": 1}': 422,
        b'{"credential": {}, "credential": {}}': 422,
        b"{}".decode().encode("utf-16"): 422,
        deep: 422,
        b'{"a":' * 5_000: 422,
        b'{"credential": "' + b"x" * MAX_JSON + b'"}': 413,
    }
    for body, status in odd.items():
        answer = victim.open("POST", path, data=body, content_type="application/json", headers=headers)
        assert answer.status_code == status, f"{body[:40]!r}: {answer.text}"
        assert answer.content_type == "application/problem+json"
    for content_type in ("text/plain", FORM, "application/jsonp", ""):
        answer = victim.open("POST", path, data=b"{}", content_type=content_type, headers=headers)
        assert (answer.status_code, said(answer)["field"]) == (422, "content-type")


def test_what_was_sent_is_not_repeated(world: World, victim: Browser) -> None:
    canary = "Canary7391046"
    for route in UNSAFE:
        path = route.split(" ")[1]
        for fields in ({canary: canary}, {"credential": {canary: canary}}, {"code": canary}, {"address": canary}):
            answer = victim.post(path, fields)
            assert answer.status_code < 500
            assert canary not in answer.text + str(answer.headers)


def test_a_made_up_cookie_is_nobody(world: World) -> None:
    browser = Browser(world)
    for value in (new_token(), "x", "' OR 1=1 --", "A" * 43, "é" * 43, ""):
        browser.client.set_cookie("session", value, domain="localhost")
        assert browser.get("/security").status_code == 303
