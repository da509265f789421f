"""Browsing: the portal as a person's browser meets it, the whole application in this process."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from actors import Subject, World
from authenticator import Authenticator
from eth_account import Account
from eth_account.messages import encode_defunct
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from ledger.custodian import Custodian
from web import create_app

SAME_ORIGIN: Final = {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}
VISIT: Final = {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
AGENT: Final = "Mozilla/5.0 (Android 16; Mobile; rv:152.0) Gecko/152.0 Firefox/152.0"
_TOKEN: Final = re.compile(r'<meta name="csrf-token" content="([0-9a-f]{64})">')
WRAPPED: Final = "A" * 80


class Browser:
    """A browser with its cookies and an authenticator, at the portal of a custodian."""

    def __init__(self, world: World, *, app: Flask | None = None, custodian: Custodian | None = None) -> None:
        self.world = world
        self.custodian = custodian or world.custodian
        self.app = app or create_app(self.custodian)
        self.origin = world.config.portal_origin
        self.client: FlaskClient = self.app.test_client()
        self.authenticator = Authenticator(self.origin)
        self.wallet = Account.create()

    # --------------------------------------------------------------------------------------------------------- requests

    def open(self, method: str, path: str, **options: Any) -> TestResponse:
        """As it is; `headers` are all that there are."""
        return self.client.open(path, method=method, base_url=self.origin, **options)

    def get(self, path: str, **headers: str) -> TestResponse:
        """A visit."""
        return self.open("GET", path, headers=VISIT | {"User-Agent": AGENT} | headers)

    def post(self, path: str, fields: Mapping[str, Any] | None = None, **headers: str) -> TestResponse:
        """JSON, as the script of a page sends it."""
        mine = {"Origin": self.origin, "X-CSRF-Token": self.csrf(), "User-Agent": AGENT}
        content = json.dumps({} if fields is None else dict(fields))
        return self.open(
            "POST", path, data=content, content_type="application/json", headers=SAME_ORIGIN | mine | headers
        )

    def submit(self, path: str, *, accept: str = "*/*", **fields: str) -> TestResponse:
        """A form of a page."""
        mine = SAME_ORIGIN | {"Origin": self.origin, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
        mine |= {"Accept": accept}
        return self.open("POST", path, data={"csrf": self.csrf(), **fields}, headers=mine | {"User-Agent": AGENT})

    def csrf(self) -> str:
        """The token that the pages of this session carry."""
        found = _TOKEN.search(self.get("/enrol").text)
        assert found is not None
        return found[1]

    def cookie(self) -> str | None:
        """What stands in the session's cookie."""
        found = self.client.get_cookie("session", domain="localhost")
        return None if found is None else found.value

    # --------------------------------------------------------------------------------------------------- what people do

    def enrol(self, code: str, *, wrapped_root: str | None = WRAPPED, **made: Any) -> TestResponse:
        """Make a passkey with a code. Signed in afterwards."""
        options = self.post("/auth/passkey/register/options", {"code": code})
        if options.status_code != 200:
            return options
        return self.register(said(options)["publicKey"], wrapped_root=wrapped_root, **made)

    def register(
        self,
        options: dict[str, Any],
        *,
        name: str = "My phone",
        wrapped_root: str | None = WRAPPED,
        next_page: str | None = None,
        **made: Any,
    ) -> TestResponse:
        """Make a passkey and hand it over."""
        credential = self.authenticator.create(options, **made)
        fields = {"credential": credential, "wrappedRoot": wrapped_root, "name": name}
        fields |= {} if next_page is None else {"next": next_page}
        return self.post("/auth/passkey/register", fields)

    def sign_in(self, **used: Any) -> TestResponse:
        """By a passkey."""
        options = said(self.post("/auth/passkey/sign-in/options"))["publicKey"]
        return self.post("/auth/passkey/sign-in", {"credential": self.authenticator.get(options, **used)})

    def step_up(self, **used: Any) -> TestResponse:
        """By a passkey of the account."""
        options = self.post("/auth/passkey/step-up/options")
        if options.status_code != 200:
            return options
        credential = self.authenticator.get(said(options)["publicKey"], **used)
        return self.post("/auth/passkey/step-up", {"credential": credential})

    def ask_wallet(self, use: str, **changes: Any) -> TestResponse:
        """The text for the wallet to sign."""
        fields = {"address": self.wallet.address, "chainId": self.world.config.chain_id, "use": use}
        return self.post("/auth/wallet/challenge", fields | changes)

    def by_wallet(self, use: str, **changes: Any) -> TestResponse:
        """Have the wallet sign what the service asks for."""
        asked = self.ask_wallet(use, **changes)
        if asked.status_code != 200:
            return asked
        return self.post("/auth/wallet", {"signature": self.sign_text(said(asked)["text"])})

    def sign_text(self, text: str) -> str:
        """`personal_sign`."""
        return "0x" + bytes(self.wallet.sign_message(encode_defunct(text=text)).signature).hex()

    def is_signed_in(self) -> bool:
        """Whether a page that is for the signed-in only is shown."""
        return self.get("/security").status_code == 200


def invite(world: World, subject: Subject | None = None, *, custodian: Custodian | None = None) -> str:
    """A code, as the custodian hands it out."""
    held = custodian or world.custodian
    subject_id = held.vault.subject_of((subject or world.subject).ref)
    with held.store.begin() as tx:
        return held.invitations.invite(tx, subject_id).code


def enrolled(world: World, subject: Subject | None = None, **made: Any) -> Browser:
    """A browser in which a person has just enrolled by a passkey."""
    browser = Browser(world)
    answer = browser.enrol(invite(world, subject), **made)
    assert answer.status_code == 200, answer.text
    return browser


def said(answer: TestResponse) -> Any:
    """What an answer says, read as JSON."""
    assert answer.json is not None, answer.text
    return answer.json


def code(answer: TestResponse) -> str:
    """Why a request was refused; empty if it was not."""
    return str((answer.json or {}).get("code", ""))
