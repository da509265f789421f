"""The demo's pages: absent from a service, and a console that has nothing but the API."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from html import unescape
from urllib.parse import urlencode

import pytest
import urllib3
from actors import Subject, World
from service import serving

from ledger import demo_seed
from ledger.consent import Hex32
from ledger.consent_requests import token_of
from ledger.custodian import Custodian
from ledger.demo_seed import INSTITUTIONS, PEOPLE
from ledger.devnet import free_port
from ledger.errors import ConfigError
from ledger.purposes import PURPOSES
from ledger.serving import Service
from ledger.typed_data import grant_typed_data, sign_typed_data
from web import create_app

BANK = INSTITUTIONS[0]
FORM = {"purpose": "loan-origination", "required": ["credit_amount"], "optional": ["savings"]}
LIMITS = {"days": "10", "uses": "3", "perDay": "2", "retentionDays": "5"}


class Browser:
    """Keeps cookies and tokens, follows no address but our own."""

    def __init__(self, port: int) -> None:
        self.origin = f"http://localhost:{port}"
        self.http = urllib3.PoolManager(retries=False, timeout=30)
        self.cookies: dict[str, str] = {}
        self.csrf = ""

    def request(
        self,
        method: str,
        path: str,
        fields: Mapping[str, object] | None = None,
        more: Mapping[str, str] | None = None,
    ) -> tuple[int, str]:
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}
        body = None
        if fields is not None:
            headers |= {"Content-Type": "application/x-www-form-urlencoded", "Origin": self.origin}
            body = urlencode(fields, doseq=True)
        url = self.origin.replace("localhost", "127.0.0.1") + path
        answer = self.http.request(
            method, url, headers=headers | {"Host": self.origin[7:]} | dict(more or {}), body=body
        )
        for line in answer.headers.getlist("Set-Cookie"):
            name, value = line.split(";")[0].split("=", 1)
            self.cookies[name] = value
        text = answer.data.decode()
        if found := re.search(r'name="csrf" value="([^"]+)"', text):
            self.csrf = found[1]
        return answer.status, text

    def get(self, path: str) -> str:
        status, text = self.request("GET", path)
        assert status == 200, text
        return unescape(text)

    def post(self, path: str, fields: dict[str, object]) -> str:
        status, text = self.request("POST", path, {**fields, "csrf": self.csrf})
        if status == 303:
            return self.get(path.rpartition("/")[0])
        assert status == 200, text
        return unescape(text)


@dataclass
class Demo:
    world: World
    browser: Browser

    @property
    def custodian(self) -> Custodian:
        return self.world.custodian

    def ask(self, **changes: object) -> str:
        """Ask as the bank. The page that comes then."""
        self.browser.get(f"/demo/{BANK.key}")
        return self.browser.post(f"/demo/{BANK.key}/requests", {**FORM, **LIMITS, **changes})

    def grant(self, page: str, subject: Subject) -> Hex32:
        """The person accepts what the newest link asks for. The consent's id."""
        assert refusal(page) is None, page
        links = re.findall(r'href="(http://[^"]+/requests/[^"]+)"', page)
        token, held = token_of(links[0]), self.custodian
        grant = held.requests.draft(token, subject.address, attributes=["savings"])
        signature = sign_typed_data(grant_typed_data(grant, held.chain.domain), subject.key)
        subject_id = held.vault.subject_of(PEOPLE[0].ref)
        return held.requests.accept(token, grant, signature, subject_id).consent_id

    def release(self, consent_id: str, *attributes: str, key: str = "") -> str:
        self.browser.get(f"/demo/{BANK.key}")
        fields = {"consent": consent_id, "purpose": "loan-origination", "attributes": list(attributes)}
        return self.browser.post(f"/demo/{BANK.key}/releases", {**fields, "idempotencyKey": key})


@pytest.fixture
def demo(world: World) -> Iterator[Demo]:
    port = free_port()
    world.config = replace(world.config, service_url=f"http://127.0.0.1:{port}")
    world.restart()
    demo_seed.seed(world.custodian)
    with serving(world.custodian, port, demo=True):
        yield Demo(world=world, browser=Browser(port))


def refusal(page: str) -> str | None:
    found = re.search(r'id="refused".*?class="mono">(\w+)<', page, re.DOTALL)
    return found[1] if found else None


def test_a_service_has_no_demo(custodian: Custodian) -> None:
    app = create_app(custodian)
    assert not [rule for rule in app.url_map.iter_rules() if "demo" in rule.rule]
    with app.test_client() as client:
        for path in ("/demo", "/demo/", f"/demo/{BANK.key}"):
            assert client.get(path, base_url="http://localhost:8000").status_code == 404
        assert client.post("/demo/codes", base_url="http://localhost:8000").status_code in (403, 404)


def test_a_service_has_no_demo_whatever_the_environment_says(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    demo_seed.seed(world.custodian)
    world.custodian.close()
    monkeypatch.setenv("CONSENT_LEDGER_DEMO", "1")
    for demo, status in ((False, 404), (True, 200)):
        port = free_port()
        config = replace(world.config, service_url=f"http://127.0.0.1:{port}")
        with Service(config, port=port, workers=1, demo=demo):
            assert Browser(port).request("GET", "/demo")[0] == status


def test_no_demo_where_it_could_be_taken_for_a_service(world: World) -> None:
    for change in ({"chain_id": 1}, {"service_url": "https://consent.example"}):
        world.custodian.config = replace(world.config, **change)
        with pytest.raises(ConfigError):
            create_app(world.custodian, demo=True)


def test_every_page_says_that_it_is_a_demo_and_a_service_s_pages_do_not(demo: Demo, custodian: Custodian) -> None:
    assert 'class="demo-mark"' in demo.browser.get("/")
    with create_app(custodian).test_client() as client:
        assert b"demo-mark" not in client.get("/", base_url=custodian.config.portal_origin).data


def test_the_codes_are_shown_under_a_mark(demo: Demo) -> None:
    page = demo.browser.get("/demo")
    assert 'class="demo-mark"' in page
    for one in demo_seed.codes(demo.custodian):
        assert one.code
        assert one.code in page
        assert f"{one.person.name} <" in page


def test_a_new_code_takes_the_place_of_the_old_one(demo: Demo) -> None:
    old = demo_seed.codes(demo.custodian)[0].code
    demo.browser.get("/demo")
    page = demo.browser.post("/demo/codes", {"ref": PEOPLE[0].ref})
    new = demo_seed.codes(demo.custodian)[0].code
    assert old != new
    assert new is not None
    assert new in page
    assert str(old) not in page


def test_asked_granted_released_revoked_refused(demo: Demo) -> None:
    subject = Subject()
    page = demo.ask()
    assert 'class="demo-mark"' in page
    consent_id = demo.grant(page, subject)

    page = demo.release(consent_id, "credit_amount", "savings", key="once")
    assert refusal(page) is None
    assert "2096" in page or "5951" in page
    assert "checked by the lender" in page
    assert len(demo.world.logged()) == 1

    subject.revoke(demo.custodian, consent_id)
    page = demo.release(consent_id, "credit_amount")
    assert refusal(page) == "revoked"
    assert 'id="answer"' not in page
    assert len(demo.world.logged()) == 1


def test_a_form_that_is_sent_twice_is_one_question(demo: Demo) -> None:
    consent_id = demo.grant(demo.ask(), Subject())
    first, second = (demo.release(consent_id, "savings", key="same") for _ in range(2))
    assert len(demo.world.logged()) == 1
    found = [re.search(r'class="mono">(0x[0-9a-f]{64})</dd>', page) for page in (first, second)]
    assert found[0]
    assert found[1]
    assert found[0][1] == found[1][1]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"days": "400"}, "ceiling_exceeded"),
        ({"uses": "99"}, "ceiling_exceeded"),
        ({"days": "ten"}, "malformed"),
        ({"days": ""}, "malformed"),
        ({"uses": "0"}, "malformed"),
        ({"required": []}, "malformed"),
        ({"required": ["telephone"]}, "ceiling_exceeded"),
        ({"purpose": "curiosity"}, "unknown_purpose"),
    ],
)
def test_what_may_not_be_asked_is_refused_in_the_api_s_words(demo: Demo, changes: dict[str, object], code: str) -> None:
    page = demo.ask(**changes)
    assert refusal(page) == code
    assert not list(demo.custodian.requests.listed(demo.custodian.registry.institution(BANK.institution_id), limit=5))


@pytest.mark.parametrize("purpose", sorted(PURPOSES))
def test_the_form_of_every_purpose_can_be_sent_as_it_comes(demo: Demo, purpose: str) -> None:
    page = demo.browser.get(f"/demo/{BANK.key}?purpose={purpose}")
    _, _, form = page.partition(f'action="/demo/{BANK.key}/requests"')
    assert form
    ticked = re.findall(r'name="(required|optional)" value="(\w+)"[^>]* checked', form)
    fields: dict[str, object] = dict(re.findall(r'name="(\w+)" type="text" inputmode="numeric" value="(\d+)"', form))
    for kind in ("required", "optional"):
        fields[kind] = [name for chosen, name in ticked if chosen == kind]
    assert refusal(demo.browser.post(f"/demo/{BANK.key}/requests", {"purpose": purpose, **fields})) is None


def test_what_is_not_consented_is_refused_and_logged(demo: Demo) -> None:
    consent_id = demo.grant(demo.ask(), Subject())
    assert refusal(demo.release(consent_id, "housing")) == "attribute_not_consented"
    assert refusal(demo.release("0x" + "ab" * 32, "savings")) == "not_found"
    assert refusal(demo.release("nonsense", "savings")) == "malformed"
    assert demo.world.logged() == []


def test_a_deletion_is_stated_and_the_person_can_see_it(demo: Demo) -> None:
    consent_id = demo.grant(demo.ask(), Subject())
    demo.release(consent_id, "savings")
    page = demo.browser.post(f"/demo/{BANK.key}/deletions", {"consent": consent_id})
    assert refusal(page) is None
    assert 'class="note good"' in page


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/demo/codes", {"ref": PEOPLE[0].ref}),
        (f"/demo/{BANK.key}/requests", FORM | LIMITS),
        (f"/demo/{BANK.key}/releases", {"consent": "0x" + "ab" * 32}),
        (f"/demo/{BANK.key}/deletions", {"consent": "0x" + "ab" * 32}),
    ],
)
def test_a_form_of_another_page_does_nothing(demo: Demo, path: str, fields: dict[str, object]) -> None:
    before = demo_seed.codes(demo.custodian)
    demo.browser.get("/demo")
    for csrf in ("", "made-up"):
        status, _ = demo.browser.request("POST", path, {**fields, "csrf": csrf})
        assert status == 403
    assert demo_seed.codes(demo.custodian) == before


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "null", "Sec-Fetch-Site": "same-origin"}, 303),  # Chromium, where no referrer is sent
        ({"Origin": "null"}, 403),
        ({"Origin": "null", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "null", "Sec-Fetch-Site": "none"}, 403),
        ({"Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"}, 403),
    ],
)
def test_a_form_whose_origin_the_browser_withholds_counts_if_it_says_same_origin(
    demo: Demo, headers: dict[str, str], status: int
) -> None:
    demo.browser.get("/demo")
    fields = {"ref": PEOPLE[0].ref, "csrf": demo.browser.csrf}
    assert demo.browser.request("POST", "/demo/codes", fields, headers)[0] == status


def test_there_is_no_other_institution_behind_a_path(demo: Demo) -> None:
    for key in ("bank-1", "..%2Fkeys%2Faccounts", "demo-bank.jwks"):
        assert demo.browser.request("GET", f"/demo/{key}")[0] == 404


def test_what_came_from_others_is_text_in_the_page(demo: Demo) -> None:
    page = demo.ask(days="<script>alert(1)</script>")
    raw = demo.browser.request(
        "POST", f"/demo/{BANK.key}/requests", {**FORM, **LIMITS, "days": "<b>", "csrf": demo.browser.csrf}
    )
    assert "<b>" not in raw[1]
    assert refusal(page) == "malformed"
