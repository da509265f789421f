"""A person at a browser: the system's Chromium, a passkey or a wallet, and the portal on a real chain."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from actors import DAY, Institution, Subject
from eth_account import Account
from eth_account.messages import encode_defunct
from playwright.sync_api import Browser, BrowserContext, CDPSession, Page
from service import serving
from smart_account import MARK, deploy_wallet
from sqlalchemy import update

from ledger.client import InstitutionClient
from ledger.config import Config
from ledger.custodian import Custodian
from ledger.devnet import Devnet, free_port, fund
from ledger.jsonrpc import JsonRpc
from ledger.sessions import STEP_UP_SECONDS
from ledger.store import releases, sessions
from ledger.vault import Value

ROOT: Final = Path(__file__).parent.parent
SHOTS: Final = ROOT / "test-artifacts" / "screenshots"
CHROMIUM: Final = shutil.which("chromium") or "/usr/bin/chromium"
FLAGS: Final = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
PHONE: Final = {"width": 390, "height": 844}
DESKTOP: Final = {"width": 1280, "height": 900}
AXE: Final = ROOT / "node_modules" / "axe-core" / "axe.min.js"
WAIT: Final = 20_000
HELD: Final[dict[str, Value]] = {
    "credit_amount": 1169,
    "credit_duration": 24,
    "savings": "below_100",
    "housing": "rent",
    "employment_duration": "below_4",
    "credit_history": "existing_paid",
    "age": 35,
}


class Portal:
    """The service on a real chain, with lenders; people are made as they are needed."""

    def __init__(self, devnet: Devnet, data: Path) -> None:
        self.devnet, self.port = devnet, free_port()
        self.config = Config(
            data=data, rpc_url=devnet.url, service_url=f"http://127.0.0.1:{self.port}", rate_limit=10**6
        )
        Custodian.init(self.config)
        self.custodian = Custodian(self.config)
        fund(self.custodian.rpc, [account.address for account in self.custodian.accounts.every()])
        self.custodian.deploy()
        self.bank = self.lender("did:web:northbank.example", "North Bank")
        self.homes = self.lender("did:web:hansahomes.example", "Hansa Homes")
        self.people = 0

    @property
    def url(self) -> str:
        return self.config.portal_origin

    @contextmanager
    def running(self) -> Iterator[None]:
        with serving(self.custodian, self.port):
            yield
        self.custodian.close()

    def lender(self, party_id: str, name: str) -> Institution:
        made = Institution(party_id, name)
        made.register(self.custodian)
        return made

    def person(self, values: dict[str, Value] | None = None) -> tuple[Subject, str]:
        """Somebody new, and the code that they were handed."""
        self.people += 1
        subject = Subject(f"person-{self.people}")
        subject.furnish(self.custodian, values or HELD)
        subject_id = self.custodian.vault.subject_of(subject.ref)
        return subject, self.invite(subject_id)

    def invite(self, subject_id: str) -> str:
        with self.custodian.store.begin() as tx:
            return self.custodian.invitations.invite(tx, subject_id).code

    def let_presence_lapse(self) -> None:
        """As if everyone had last shown just too long ago that it is them."""
        with self.custodian.store.begin() as tx:
            tx.execute(update(sessions).values(stepped_up_at=self.custodian.clock() - STEP_UP_SECONDS))

    def ask(self, lender: Institution, **changes: Any) -> str:
        """A consent request. Returns the path of its page."""
        wanted: dict[str, Any] = {
            "purpose": "loan-origination",
            "attributes": ["credit_amount", "savings"],
            "optional_attributes": ["housing"],
            "validity_days": 30,
            "max_accesses": 3,
            "accesses_per_day": 3,
            "retention_days": 31,
        }
        party = self.custodian.registry.institution(lender.institution_id)
        asked = self.custodian.requests.ask(party, **(wanted | changes))
        assert asked.link is not None
        return "/requests/" + asked.link.rsplit("/", 1)[-1]

    def client(self, lender: Institution) -> InstitutionClient:
        """The lender's own system, over HTTP."""
        return InstitutionClient(
            self.config.service_url,
            lender.institution_id,
            lender.jwks,
            chain=self.custodian.chain,
            clock=self.custodian.clock,
        )

    def long_ago(self, release_id: str, days: int) -> None:
        """As if this release had been made so many days earlier."""
        with self.custodian.store.begin() as tx:
            earlier = releases.c.finished_at - days * DAY
            tx.execute(update(releases).where(releases.c.release_id == release_id).values(finished_at=earlier))

    def release(self, lender: Institution, consent_id: Any, **wanted: Any) -> Any:
        return self.custodian.releases.release(lender.request(self.custodian, consent_id, **wanted))


@dataclass
class Person:
    """A browser of someone's own, what it complained of, and how often it was clicked or touched."""

    context: BrowserContext
    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)
    steps: int = 0
    cdp: CDPSession | None = None
    authenticator: str = ""
    paths: dict[str, str] = field(default_factory=dict)

    def go(self, path: str) -> None:
        response = self.page.goto(self.url + path)
        assert response is not None
        assert response.status < 400, f"{path}: {response.status}"

    def click(self, selector: str) -> None:
        """One step of this person."""
        self.steps += 1
        self.page.click(selector, timeout=WAIT)

    def says(self, text: str, selector: str = "#status") -> None:
        """Wait until the page says so."""
        self.page.wait_for_function(
            "([selector, text]) => document.querySelector(selector)?.textContent.includes(text)",
            arg=[selector, text],
            timeout=WAIT,
        )

    def text(self) -> str:
        return self.page.inner_text("main")

    def enrol(self, code: str) -> None:
        """With a passkey."""
        self.go("/enrol")
        self.page.fill("#code", code)
        self.page.click("[data-enrol=passkey]")
        self.page.wait_for_url(self.url + "/", timeout=WAIT)

    def touches(self) -> int:
        """How often a passkey was used to sign or to show presence."""
        assert self.cdp is not None
        found = self.cdp.send("WebAuthn.getCredentials", {"authenticatorId": self.authenticator})
        return sum(int(one["signCount"]) for one in found["credentials"])

    def accept(self, path: str) -> str:
        """Accept, a touch, Sign. Returns the consent's id."""
        self.go(path)
        self.click("[data-accept=passkey]")
        self.page.wait_for_selector("#sign[open]", timeout=WAIT)
        self.click("#sign-yes")
        self.page.wait_for_selector("#granted:not([hidden])", timeout=WAIT)
        return str(self.page.get_attribute("#granted", "href")).rsplit("/", 1)[-1]

    def axe(self) -> list[str]:
        """What axe-core finds wrong with the page as it is."""
        with self.lenient():
            found = self.page.evaluate(
                AXE.read_text("utf-8")
                + ";axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']})"
            )
        return [
            f"{one['id']}: {one['help']}: {[node['target'] for node in one['nodes']][:3]}"
            for one in found["violations"]
        ]

    @contextmanager
    def lenient(self) -> Iterator[None]:
        """Complaints of the browser that the test itself makes are not counted."""
        before = list(self.complaints)
        yield
        self.complaints[:] = before

    def shot(self, name: str) -> None:
        """The whole page, for people to look at."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        size = self.page.viewport_size
        assert size is not None
        height = self.page.evaluate("document.documentElement.scrollHeight")
        self.page.set_viewport_size({"width": size["width"], "height": max(size["height"], min(height, 6000))})
        self.page.screenshot(path=SHOTS / f"{re.sub(r'[^a-z0-9]+', '-', name.lower())}.png")
        self.page.set_viewport_size(size)

    def overflows(self) -> bool:
        return bool(self.page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"))


@contextmanager
def person(
    browser: Browser, url: str, *, passkeys: bool = True, prf: bool = True, strict: bool = True, **options: Any
) -> Iterator[Person]:
    """Somebody at a fresh browser. In the end nothing may have been complained of, unless not `strict`."""
    context = browser.new_context(**({"viewport": PHONE, "locale": "en-GB"} | options))
    page = context.new_page()
    made = Person(context, page, url)
    listen(made, page)
    if passkeys:
        made.cdp = context.new_cdp_session(page)
        made.cdp.send("WebAuthn.enable")
        made.authenticator = add_authenticator(made, prf=prf)
    try:
        yield made
        assert not strict or made.complaints == []
    finally:
        context.close()


def listen(made: Person, page: Page) -> None:
    page.on(
        "console",
        lambda message: made.complaints.append(message.text) if message.type in ("error", "warning") else None,
    )
    page.on("pageerror", lambda error: made.complaints.append(str(error)))


def add_authenticator(made: Person, *, prf: bool = True, transport: str = "internal") -> str:
    assert made.cdp is not None
    options = {
        "protocol": "ctap2",
        "ctap2Version": "ctap2_1",
        "transport": transport,
        "hasResidentKey": True,
        "hasUserVerification": True,
        "isUserVerified": True,
        "automaticPresenceSimulation": True,
        "hasPrf": prf,
    }
    return str(made.cdp.send("WebAuthn.addVirtualAuthenticator", {"options": options})["authenticatorId"])


WALLET_SCRIPT: Final = """
(() => {
  const provider = { request: (call) => window.walletRequest(JSON.stringify(call)).then((text) => {
    const answer = JSON.parse(text);
    if (answer.error) throw Object.assign(new Error(answer.error.message), answer.error);
    return answer.result;
  }) };
  const detail = Object.freeze({ info: { uuid: "350670db-19fa-4704-a166-e52e178b59d2", name: "Test Wallet",
    icon: "data:image/svg+xml,<svg/>", rdns: "example.wallet" }, provider });
  const announce = () => window.dispatchEvent(new CustomEvent("eip6963:announceProvider", { detail }));
  window.addEventListener("eip6963:requestProvider", announce);
  announce();
})();
"""


class Wallet:
    """A wallet in the browser: a real key, and an owner who may say no."""

    def __init__(self, chain_id: int) -> None:
        self.account = Account.create()
        self.smart, self.code, self.mark = "", "0x", ""
        self.chain_id, self.rejects = chain_id, False
        self.asked: list[str] = []

    def put_into(self, made: Person) -> None:
        made.context.expose_function("walletRequest", self._answer)
        made.context.add_init_script(WALLET_SCRIPT)

    def _answer(self, text: str) -> str:
        call = json.loads(text)
        method, params = call["method"], call.get("params") or []
        self.asked.append(method)
        try:
            return json.dumps({"result": self._result(method, params)})
        except PermissionError:
            return json.dumps({"error": {"code": 4001, "message": "User rejected the request."}})

    def _result(self, method: str, params: list[Any]) -> object:
        match method:
            case "eth_requestAccounts":
                return [(self.smart or self.account.address).lower()]
            case "eth_chainId":
                return hex(self.chain_id)
            case "eth_getCode":
                return self.code
            case "wallet_switchEthereumChain":
                self.chain_id = int(params[0]["chainId"], 16)
                return None
        if self.rejects:
            raise PermissionError
        if method == "personal_sign":
            signed = self.account.sign_message(encode_defunct(hexstr=params[0]))
        else:
            assert method == "eth_signTypedData_v4", method
            signed = self.account.sign_typed_data(full_message=json.loads(params[1]))
        return "0x" + bytes(signed.signature).hex() + self.mark

    def become_smart(self, rpc: JsonRpc) -> None:
        """Be a smart account on chain, of which the key that was the wallet's is the owner."""
        self.smart, self.mark = deploy_wallet(rpc, self.account.address), MARK
        self.code = rpc("eth_getCode", self.smart, "latest")


def is_missing() -> bool:
    return not os.access(CHROMIUM, os.X_OK)
