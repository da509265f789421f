"""The portal in a real browser, on a real chain: from a code to a stop, and every way in which it can go wrong."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any, Final

import pytest
import urllib3
from browser import CHROMIUM, DESKTOP, FLAGS, PHONE, Person, Portal, Wallet, add_authenticator, is_missing, person
from eth_account import Account
from playwright.sync_api import Browser, Page, Route, sync_playwright

from ledger.consent import Hex32
from ledger.contract import revoke_call
from ledger.devnet import Devnet, fund
from ledger.errors import ConsentRevokedError
from ledger.jsonrpc import JsonRpc
from ledger.typed_data import outer_of

pytestmark = [pytest.mark.devnet, pytest.mark.slow]
JSON: Final = {"Content-Type": "application/json"}


@pytest.fixture(scope="session")
def portal(devnet: Devnet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Portal]:
    made = Portal(devnet, tmp_path_factory.mktemp("portal") / "data")
    with made.running():
        yield made


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if is_missing():
        reason = f"no Chromium at {CHROMIUM}"
        if "CI" in os.environ:
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture
def anna(browser: Browser, portal: Portal) -> Iterator[Person]:
    """Someone with an account and a passkey."""
    with person(browser, portal.url) as made:
        _, code = portal.person()
        made.enrol(code)
        yield made


@pytest.fixture(scope="session")
def regular(browser: Browser, portal: Portal) -> Iterator[Person]:
    """Someone who has been here for a while: something on every page."""
    with person(browser, portal.url) as made:
        _, code = portal.person()
        made.enrol(code)
        stopped, kept = (made.accept(portal.ask(portal.homes, purpose="tenancy-check", **HOMES)) for _ in range(2))
        read = portal.release(portal.homes, kept, purpose="tenancy-check", attributes=("credit_history",))
        portal.long_ago(read.release_id, days=15)
        active = made.accept(portal.ask(portal.bank))
        consent = Hex32(active)
        released = portal.client(portal.bank).release(consent, purpose="loan-origination", attributes=["credit_amount"])
        portal.client(portal.bank).adverse_action(
            released.release_id, decision="declined", reasons=REASONS, attributes=["credit_amount"]
        )
        made.go("/")
        made.page.click(f"[data-stop='{stopped}']")
        made.says("Stopped.")
        with pytest.raises(ConsentRevokedError):
            portal.release(portal.homes, stopped, purpose="tenancy-check", attributes=("credit_history",))
        waiting = portal.ask(portal.bank)
        made.go(waiting)
        made.paths = {"request": waiting, "active": f"/consents/{active}", "stopped": f"/consents/{stopped}"}
        made.paths |= {"receipt": f"/receipts/{stopped}"}
        yield made


REASONS: Final = ["The amount is high for your income", "Too little is left after your other instalments"]
HOMES: dict[str, Any] = {
    "attributes": ["credit_history"],
    "optional_attributes": [],
    "max_accesses": 1,
    "accesses_per_day": 1,
    "retention_days": 7,
}


# ----------------------------------------------------------------------------------------------------------- the story


def test_from_a_code_to_a_consent_a_read_and_a_stop_all_of_it_seen(portal: Portal, anna: Person) -> None:
    assert "Nobody" in anna.text()
    before = anna.touches()
    consent = anna.accept(portal.ask(portal.bank))
    accepting = anna.steps + anna.touches() - before
    assert anna.page.get_attribute("#status", "data-kind") == "done"
    anna.go("/")
    assert "North Bank" in anna.text()

    portal.release(portal.bank, consent, attributes=("credit_amount",))
    anna.go("/activity")
    anna.page.click("main .list a.row")
    anna.page.click("#check")
    anna.says("The same.", "#check-status")

    anna.go("/")
    anna.steps, before = 0, anna.touches()
    anna.click(f"[data-stop='{consent}']")
    anna.says("Stopped. The public log has it")
    stopping = anna.steps + anna.touches() - before
    with pytest.raises(ConsentRevokedError):
        portal.release(portal.bank, consent, attributes=("credit_amount",))
    anna.go("/activity")
    assert anna.page.inner_text("main .list li:first-child .state") == "Refused"
    anna.page.click("main .list li:first-child a.row")
    assert "You had stopped the consent." in anna.text()

    anna.steps = 0
    anna.go(portal.ask(portal.homes, purpose="tenancy-check", **HOMES))
    anna.click("#decline")
    anna.page.wait_for_load_state()
    assert "You said no." in anna.text()
    declining = anna.steps
    assert declining < accepting
    assert stopping <= accepting
    assert (declining, stopping, accepting) == (1, 2, 3)


def test_all_consents_are_stopped_by_one_touch_and_shown_as_what_the_public_log_has(
    portal: Portal, anna: Person
) -> None:
    mine = [
        anna.accept(portal.ask(portal.bank)),
        anna.accept(portal.ask(portal.homes, purpose="tenancy-check", **HOMES)),
        anna.accept(portal.ask(portal.bank)),
    ]
    anna.go("/consents")
    before = anna.touches()
    anna.page.click("[data-stop='all']")
    anna.says("Stopped. The public log has it")
    assert anna.touches() - before == 1
    assert [anna.page.inner_text(f"[data-state='{consent}']") for consent in mine] == ["Stopped"] * 3
    for lender, consent in ((portal.bank, mine[0]), (portal.bank, mine[2])):
        with pytest.raises(ConsentRevokedError):
            portal.release(lender, consent, attributes=("credit_amount",))


def test_what_is_signed_is_what_was_chosen_and_nothing_optional_is_chosen_for_anyone(
    portal: Portal, anna: Person
) -> None:
    anna.go(portal.ask(portal.bank))
    assert anna.page.locator("input[type=checkbox]:checked").count() == 0
    boxes = [anna.page.locator(one).bounding_box() for one in ("[data-accept]", "#decline")]
    assert boxes[0] is not None
    assert boxes[1] is not None
    assert (boxes[0]["width"], boxes[0]["height"], boxes[0]["y"]) == (
        boxes[1]["width"],
        boxes[1]["height"],
        boxes[1]["y"],
    )
    look = "e => { const s = getComputedStyle(e); return [s.color, s.backgroundColor, s.borderColor, s.fontWeight] }"
    assert anna.page.eval_on_selector("[data-accept]", look) == anna.page.eval_on_selector("#decline", look)
    anna.page.check("input[value=housing]")
    anna.page.click("#answer summary")
    anna.page.fill("#maxAccesses", "2")
    anna.page.fill("#validityDays", "7")
    anna.page.click("[data-accept=passkey]")
    anna.page.wait_for_selector("#sign[open]")
    shown = anna.page.inner_text("#sign-terms")
    assert "Housing" in shown
    anna.page.click("#sign-yes")
    anna.page.wait_for_selector("#granted:not([hidden])")
    consent = str(anna.page.get_attribute("#granted", "href")).rsplit("/", 1)[-1]
    grant = portal.custodian.registry.consent(consent).grant  # type: ignore[arg-type] # as it stands in the address
    assert grant.terms.attributes == ("credit_amount", "savings", "housing")
    assert (grant.max_accesses, grant.expires_at - grant.valid_from) == (2, 7 * 86_400)


def test_a_limit_beyond_what_was_asked_is_named_as_on_the_page_and_has_the_focus(portal: Portal, anna: Person) -> None:
    anna.go(portal.ask(portal.bank))
    anna.page.click("summary:has-text('Allow less')")
    anna.page.fill("#validityDays", "31")
    anna.page.click("summary:has-text('Allow less')")
    anna.page.click("[data-accept=passkey]")
    anna.says("A limit is not within what was asked (For how many days: 1-30).")
    assert anna.page.evaluate("document.activeElement.id") == "validityDays"
    assert anna.page.is_visible("#validityDays")
    anna.shot("limit-outside-en")


def test_a_terms_dialog_that_is_left_signs_nothing(portal: Portal, anna: Person) -> None:
    path = portal.ask(portal.bank)
    anna.go(path)
    for leave in ("#sign-no", "Escape"):
        anna.page.click("[data-accept=passkey]")
        anna.page.wait_for_selector("#sign[open]")
        if leave == "Escape":
            anna.page.keyboard.press("Escape")
        else:
            anna.page.click(leave)
        anna.says("Nothing was signed")
    assert portal.custodian.requests.opened(path.rsplit("/", 1)[-1], newest(portal)).state == "pending"


def test_a_second_passkey_signs_for_the_same_accounts(portal: Portal, anna: Person) -> None:
    first = anna.accept(portal.ask(portal.bank))
    anna.go("/security")
    old = anna.authenticator
    assert anna.cdp is not None
    # Two devices: the first proves presence, the second makes the passkey.
    anna.cdp.send("WebAuthn.setAutomaticPresenceSimulation", {"authenticatorId": old, "enabled": True})
    anna.page.fill("#add #name", "Laptop")
    new = ""

    def swap(route: Route) -> None:
        nonlocal new
        if not new:
            new = add_authenticator(anna, transport="usb")
            anna.cdp.send(  # type: ignore[union-attr] # as above
                "WebAuthn.setAutomaticPresenceSimulation", {"authenticatorId": old, "enabled": False}
            )
        route.continue_()

    anna.page.route("**/auth/passkey/register/options", swap)
    anna.page.click("[data-add=passkey]")
    anna.page.wait_for_selector("strong:has-text('Laptop')")
    anna.cdp.send("WebAuthn.removeVirtualAuthenticator", {"authenticatorId": old})
    anna.authenticator = new
    anna.go("/security")
    assert "Laptop" in anna.text()
    anna.go("/")
    anna.page.click(f"[data-stop='{first}']")
    anna.says("Stopped. The public log has it")


REMOVE: Final = "form[action='/auth/{}/remove'] button"


def link_wallet(made: Person, wallet: Wallet) -> None:
    made.go("/security")
    made.page.click("[data-add=wallet]")
    made.page.wait_for_selector(f"strong:has-text('{wallet.account.address}')")


def test_removing_something_long_after_signing_in_takes_one_touch_and_goes_on(portal: Portal, browser: Browser) -> None:
    wallet = Wallet(portal.config.chain_id)
    with person(browser, portal.url) as anna:
        wallet.put_into(anna)
        anna.enrol(portal.person()[1])
        before = anna.touches()
        link_wallet(anna, wallet)
        assert anna.touches() == before
        portal.let_presence_lapse()
        anna.go("/security")
        anna.steps = 0
        anna.click(REMOVE.format("wallets"))
        anna.page.wait_for_selector(f"strong:has-text('{wallet.account.address}')", state="detached")
        assert (anna.steps, anna.touches() - before) == (1, 1)
        assert anna.page.url == anna.url + "/security"


def test_a_touch_that_is_refused_removes_nothing(portal: Portal, browser: Browser) -> None:
    wallet = Wallet(portal.config.chain_id)
    with person(browser, portal.url) as anna:
        wallet.put_into(anna)
        anna.enrol(portal.person()[1])
        link_wallet(anna, wallet)
        portal.let_presence_lapse()
        anna.go("/security")
        assert anna.cdp is not None
        here = {"authenticatorId": anna.authenticator, "isUserVerified": False}
        anna.cdp.send("WebAuthn.setUserVerified", here)
        anna.page.click(REMOVE.format("wallets"))
        anna.says("No passkey was used. Nothing has changed")
        anna.go("/security")
        assert wallet.account.address in anna.text()


def test_who_signed_in_by_wallet_removes_a_lost_passkey_with_the_wallet(portal: Portal, browser: Browser) -> None:
    wallet = Wallet(portal.config.chain_id)
    with person(browser, portal.url) as anna:
        wallet.put_into(anna)
        anna.enrol(portal.person()[1])
        link_wallet(anna, wallet)
        anna.page.click("form[action='/sign-out'] button")
        anna.go("/sign-in")
        anna.page.click("[data-sign-in=wallet]")
        anna.page.wait_for_url(anna.url + "/")
        portal.let_presence_lapse()
        anna.go("/security")
        before, wallet.asked[:] = anna.touches(), []
        anna.page.click(REMOVE.format("passkeys"))
        anna.page.wait_for_selector("text=You have none.")
        assert anna.touches() == before
        assert wallet.asked.count("personal_sign") == 1


def test_a_browser_whose_clock_is_wrong_is_asked_by_the_service_and_the_form_goes_on(
    portal: Portal, browser: Browser
) -> None:
    wallet = Wallet(portal.config.chain_id)
    with person(browser, portal.url) as anna:
        wallet.put_into(anna)
        anna.enrol(portal.person()[1])
        link_wallet(anna, wallet)
        anna.go("/security")
        # What the page was told is not so any more.
        portal.let_presence_lapse()
        with anna.lenient():
            anna.page.click(REMOVE.format("wallets"))
            anna.page.wait_for_selector("h1:has-text('Show once more that it is you')")
        assert anna.axe() == []
        anna.shot("step-up-en")
        anna.page.click("form[data-step-up] button")
        anna.page.wait_for_url(anna.url + "/security")
        assert wallet.account.address not in anna.text()


# -------------------------------------------------------------------------------------------------------------- wallets


def test_a_wallet_enrols_accepts_pauses_resumes_and_stops(portal: Portal, browser: Browser) -> None:
    _, code = portal.person()
    wallet = Wallet(portal.config.chain_id)
    with person(browser, portal.url, passkeys=False) as made:
        wallet.put_into(made)
        made.go("/enrol")
        made.page.fill("#code", code)
        wallet.rejects = True
        made.page.click("[data-enrol=wallet]")
        made.says("You said no in your wallet.")
        wallet.rejects = False
        made.page.click("[data-enrol=wallet]")
        made.page.wait_for_url(made.url + "/")
        path = portal.ask(portal.bank)
        made.go(path)

        wallet.chain_id = 1
        made.page.click("[data-accept=wallet]")
        made.says("another network")
        made.page.click("#switch-chain")
        made.says("changed its network")

        right, wallet.account = wallet.account, Wallet(1).account
        made.page.click("[data-accept=wallet]")
        made.says("another account")
        wallet.account = right

        wallet.rejects = True
        made.page.click("[data-accept=wallet]")
        made.page.wait_for_selector("#sign[open]")
        made.page.click("#sign-yes")
        made.says("You said no in your wallet.")
        assert portal.custodian.requests.opened(path.rsplit("/", 1)[-1], newest(portal)).state == "pending"
        wallet.rejects = False

        made.page.click("[data-accept=wallet]")
        made.page.wait_for_selector("#sign[open]")
        made.page.click("#sign-yes")
        made.page.wait_for_selector("#granted:not([hidden])")
        consent = str(made.page.get_attribute("#granted", "href"))
        made.go(consent)
        made.page.click("[data-pause]")
        made.says("Paused. The public log has it")
        assert (shown := made.page.locator("h1 + .state")).get_attribute("class") == "state paused"
        assert "Nothing is given out until" in made.page.inner_text("[data-why]")
        made.go(consent)
        made.page.click("[data-resume]")
        made.says("Active again. The public log has it")
        assert (shown.inner_text(), shown.get_attribute("class")) == ("Active", "state active")
        made.page.click("[data-stop]")
        made.says("Stopped. The public log has it")
        assert (shown.inner_text(), shown.get_attribute("class")) == ("Stopped", "state ended")
        assert "for ever" in made.page.inner_text("[data-why]")
        assert "It can be used now." not in made.text()
        assert not made.page.is_visible("summary:has-text('Stop without a key')")


def test_a_smart_account_enrols_accepts_stops_and_signs_in_again(portal: Portal, browser: Browser) -> None:
    wallet = Wallet(portal.config.chain_id)
    wallet.become_smart(portal.custodian.rpc)
    with person(browser, portal.url, passkeys=False) as made:
        wallet.put_into(made)
        made.go("/enrol")
        made.page.fill("#code", portal.person()[1])
        made.page.click("[data-enrol=wallet]")
        made.page.wait_for_url(made.url + "/")
        made.go(portal.ask(portal.bank))
        made.page.click("[data-accept=wallet]")
        made.page.wait_for_selector("#sign[open]")
        made.page.click("#sign-yes")
        made.page.wait_for_selector("#granted:not([hidden])")
        (consent,) = consents_of(portal)
        assert consent.grant.subject == wallet.smart
        made.page.click("form[action='/sign-out'] button")
        made.go("/sign-in")
        made.page.click("[data-sign-in=wallet]")
        made.page.wait_for_url(made.url + "/")
        made.page.click("[data-stop]")
        made.says("Stopped. The public log has it")


def test_a_passkey_without_prf_says_so_and_the_wallet_is_offered(portal: Portal, browser: Browser) -> None:
    _, code = portal.person()
    wallet = Wallet(portal.config.chain_id)
    with person(browser, portal.url, prf=False) as made:
        wallet.put_into(made)
        made.go("/enrol?next=/activity%3Flang=en")
        made.page.fill("#code", code)
        made.page.click("[data-enrol=passkey]")
        made.says("it cannot sign new ones")
        made.page.click("#continue")
        made.page.wait_for_url(made.url + "/activity?lang=en")
        path = portal.ask(portal.bank)
        made.go(path)
        made.page.click("[data-accept=passkey]")
        made.says("You can use a wallet")
        made.go("/security")
        made.page.click("[data-add=wallet]")
        made.page.wait_for_selector(f"strong:has-text('{wallet.account.address}')")
        made.go(path)
        made.page.click("[data-accept=wallet]")
        made.page.wait_for_selector("#sign[open]")
        made.page.click("#sign-yes")
        made.page.wait_for_selector("#granted:not([hidden])")


# ------------------------------------------------------------------------------------------------------------ concerns


def test_a_decision_and_a_deletion_that_is_overdue_reach_the_person(portal: Portal, regular: Person) -> None:
    regular.go("/")
    assert "North Bank decided against you and told you why." in regular.text()
    regular.page.click("a:has-text('Hansa Homes should have deleted your data')")
    regular.page.wait_for_url(regular.url + "/notices")
    decision = regular.page.inner_text("[data-concern=adverse_action]")
    assert "North Bank decided against you" in decision
    assert "It said no to you." in decision
    assert all(reason in decision for reason in REASONS)
    overdue = regular.page.inner_text("[data-concern=deletion_overdue]")
    assert "Hansa Homes has not said that it deleted your data" in overdue
    regular.page.click("[data-concern=adverse_action] a:has-text('When it read that')")
    assert "North Bank" in regular.text()
    assert regular.page.inner_text(".state") == "Read"


# ------------------------------------------------------------------------------------------------------------- mishaps


def test_a_grant_whose_answer_is_lost_is_sent_again_and_stands_once(portal: Portal, anna: Person) -> None:
    path = portal.ask(portal.bank)
    anna.go(path)
    lost: list[bool] = []

    def lose(route: Route) -> None:
        if len(lost) < 2:
            # It arrives; its answer does not.
            route.fetch()
            lost.append(True)
            route.abort("connectionreset")
        else:
            route.continue_()

    anna.page.route("**/accept", lose)
    with anna.lenient():
        anna.page.click("[data-accept=passkey]")
        anna.page.wait_for_selector("#sign[open]")
        anna.page.click("#sign-yes")
        anna.page.wait_for_selector("#granted:not([hidden])", timeout=30_000)
    assert lost == [True, True]
    assert len(consents_of(portal)) == 1


def test_a_grant_cut_off_for_good_is_kept_in_the_tab_and_can_be_sent_again(portal: Portal, anna: Person) -> None:
    path = portal.ask(portal.bank)
    anna.go(path)
    anna.page.route("**/accept", lambda route: route.abort("connectionreset"))
    with anna.lenient():
        anna.page.click("[data-accept=passkey]")
        anna.page.wait_for_selector("#sign[open]")
        anna.page.click("#sign-yes")
        anna.says("not known whether")
        anna.page.unroute("**/accept")
        anna.page.reload()
    anna.says("You signed this before")
    anna.page.click("#send-again")
    anna.page.wait_for_selector("#granted:not([hidden])", timeout=20_000)
    assert len(consents_of(portal)) == 1


def test_a_double_click_asks_once_and_going_back_shows_what_stands(portal: Portal, anna: Person) -> None:
    path = portal.ask(portal.bank)
    anna.go(path)
    drafts: list[str] = []
    anna.page.on("request", lambda request: drafts.append(request.url) if request.url.endswith("/draft") else None)
    anna.page.dblclick("[data-accept=passkey]")
    anna.page.wait_for_selector("#sign[open]")
    anna.page.click("#sign-yes")
    anna.page.wait_for_selector("#granted:not([hidden])")
    assert len(drafts) == 1
    anna.page.click("#granted")
    anna.page.go_back()
    anna.page.wait_for_function("() => document.querySelector('main').textContent.includes('You said yes.')")
    assert anna.page.locator("[data-accept]").count() == 0


def test_two_tabs_answer_once(portal: Portal, anna: Person) -> None:
    path = portal.ask(portal.bank)
    anna.go(path)
    second = anna.context.new_page()
    second.goto(anna.url + path)
    second.click("#decline")
    second.wait_for_load_state()
    with anna.lenient():
        anna.page.click("[data-accept=passkey]")
        anna.says("answered already")
    assert consents_of(portal) == []


def test_while_the_chain_is_away_pages_say_so_and_a_stop_counts_here_at_once(
    portal: Portal, anna: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    consent = anna.accept(portal.ask(portal.bank))
    with monkeypatch.context() as away:
        away.setattr(portal.custodian.rpc, "_endpoint", JsonRpc("http://127.0.0.1:9")._endpoint)
        anna.go("/")
        assert "The public log cannot be asked now" in anna.text()
        assert "North Bank" in anna.text()
        anna.go(f"/consents/{consent}")
        with anna.lenient():
            anna.page.click("summary:has-text('Stop without a key')")
            anna.page.click("button:has-text('Stop it without a key')")
            anna.page.wait_for_load_state()
        assert "The public log does not have it yet" in anna.text()
        assert "Stopped." in anna.text()
    anna.go(f"/consents/{consent}")
    assert "The public log does not have this yet." in anna.text()
    portal.custodian.sync()
    anna.go(f"/consents/{consent}")
    assert "The public log does not have this yet." not in anna.text()


def test_without_scripts_everything_can_be_read_declined_and_stopped(
    portal: Portal, browser: Browser, regular: Person
) -> None:
    state = regular.context.storage_state()
    other = portal.ask(portal.homes, purpose="tenancy-check", **HOMES)
    with person(browser, portal.url, passkeys=False, java_script_enabled=False, storage_state=state) as made:
        for path in (
            "/",
            "/requests",
            "/consents",
            "/activity",
            "/data",
            "/chain",
            "/notices",
            "/security",
            "/verify",
            "/audit",
        ):
            made.go(path)
            assert made.page.locator("h1").count() == 1
        made.go(other)
        assert "needs JavaScript" in made.text()
        made.page.click("#decline")
        assert "You said no." in made.text()
    with person(browser, portal.url) as made:
        _, code = portal.person()
        made.enrol(code)
        consent = made.accept(portal.ask(portal.bank))
        state = made.context.storage_state()
        with person(browser, portal.url, passkeys=False, java_script_enabled=False, storage_state=state) as plain:
            plain.go("/")
            plain.click(f"[data-stop='{consent}']")
            plain.page.wait_for_load_state()
            assert "Stopped." in plain.text()
            assert plain.steps == 1
            portal.let_presence_lapse()
            plain.go("/data/erase")
            plain.page.fill("#word", "erase")
            with plain.lenient():
                plain.click("#erase-now")
                plain.page.wait_for_load_state()
            assert "Show once more that it is you" in plain.text()
            assert "This needs JavaScript" in plain.text()
            assert not portal.custodian.vault.is_erased(newest(portal))


# ---------------------------------------------------------------------------------------------------------------- pages


def pages_of(made: Person, lender_path: str) -> dict[str, str]:
    return {
        "overview": "/",
        "requests": "/requests",
        "request": lender_path,
        "consents": "/consents",
        "consent": made.paths["active"],
        "consent-stopped": made.paths["stopped"],
        "activity": "/activity",
        "data": "/data",
        "erase": "/data/erase",
        "chain": "/chain",
        "notices": "/notices",
        "receipt": made.paths["receipt"],
        "security": "/security",
        "verify": "/verify",
        "audit": "/audit",
        "without-us": "/without-us",
    }


VIEWS = [
    pytest.param(language, scheme, size, id=f"{language}-{scheme}-{name}")
    for language, scheme, size, name in (
        ("en-GB", "light", PHONE, "phone"),
        ("en-GB", "dark", DESKTOP, "desktop"),
        ("zh-CN", "dark", PHONE, "phone"),
        ("zh-CN", "light", DESKTOP, "desktop"),
    )
]


@pytest.mark.parametrize(("locale", "scheme", "size"), VIEWS)
def test_every_page_is_accessible_complains_of_nothing_and_fits(
    portal: Portal, browser: Browser, regular: Person, locale: str, scheme: str, size: dict[str, int]
) -> None:
    state = regular.context.storage_state()
    wrong: dict[str, list[str]] = {}
    with person(
        browser, portal.url, passkeys=False, storage_state=state, locale=locale, color_scheme=scheme, viewport=size
    ) as made:
        pages = pages_of(regular, regular.paths["request"])
        for name, path in pages.items():
            look_at(made, name, path, f"{name}-{locale}-{scheme}-{size['width']}", wrong)
        made.go("/activity")
        first = str(made.page.get_attribute("main .list a.row", "href"))
        look_at(made, "access", first, f"access-{locale}-{scheme}-{size['width']}", wrong)
        made.go("/notices")
        notice = str(made.page.get_attribute("main .list a.row", "href"))
        look_at(made, "notice", notice, f"notice-{locale}-{scheme}-{size['width']}", wrong)
        made.context.clear_cookies()
        for name, path in {"home": "/", "sign-in": "/sign-in", "enrol": "/enrol"}.items():
            look_at(made, name, path, f"{name}-{locale}-{scheme}-{size['width']}", wrong)
        look_at(made, "request-out", portal.ask(portal.bank), f"request-out-{locale}-{scheme}-{size['width']}", wrong)
    assert wrong == {}


@pytest.mark.parametrize("locale", ["en-GB", "zh-CN"])
def test_at_320_px_nothing_is_cut_off_and_nothing_scrolls_sideways(
    portal: Portal, browser: Browser, regular: Person, locale: str
) -> None:
    state = regular.context.storage_state()
    with person(
        browser, portal.url, passkeys=False, storage_state=state, locale=locale, viewport={"width": 320, "height": 640}
    ) as made:
        for name, path in pages_of(regular, regular.paths["request"]).items():
            made.go(path)
            assert not made.overflows(), name
            places = made.page.eval_on_selector_all(
                ".nav a", "(all) => all.map((one) => one.getBoundingClientRect()).map((box) => [box.left, box.right])"
            )
            assert len(places) == 5
            assert all(0 <= left < right <= 320 for left, right in places), (name, places)
            made.shot(f"{name}-{locale}-320")


def look_at(made: Person, name: str, path: str, shot: str, wrong: dict[str, list[str]]) -> None:
    made.go(path)
    made.page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true })")
    found = made.axe()
    if made.overflows():
        found.append("wider than the window")
    assert made.page.locator("h1").count() == 1, name
    assert made.page.get_attribute("html", "lang") == ("en" if "en-GB" in shot else "zh-Hans-CN")
    made.page.evaluate("document.querySelectorAll('main details').forEach((one) => { one.open = false })")
    made.shot(shot)
    if found:
        wrong[name] = found


def test_the_dialog_of_what_is_signed_is_accessible(portal: Portal, anna: Person) -> None:
    anna.go(portal.ask(portal.bank))
    anna.page.click("[data-accept=passkey]")
    anna.page.wait_for_selector("#sign[open]")
    anna.shot("dialog-en")
    assert anna.axe() == []
    assert anna.page.evaluate("document.querySelector('#sign').contains(document.activeElement)")


def test_keyboard_alone_gets_to_the_answer(portal: Portal, anna: Person) -> None:
    anna.go(portal.ask(portal.bank))
    anna.page.keyboard.press("Tab")
    assert anna.page.evaluate("document.activeElement.className") == "skip"
    anna.page.keyboard.press("Enter")
    assert anna.page.evaluate("document.activeElement.id") == "main"
    for _ in range(20):
        anna.page.keyboard.press("Tab")
        if anna.page.evaluate("document.activeElement.id") == "decline":
            break
    anna.page.keyboard.press("Enter")
    anna.page.wait_for_function("() => document.querySelector('main').textContent.includes('You said no.')")


# -------------------------------------------------------------------------------------------------------- other origins


def test_enter_in_a_field_presses_the_main_button_and_nothing_gets_into_an_address(
    portal: Portal, browser: Browser
) -> None:
    _, code = portal.person()
    with person(browser, portal.url) as made:
        made.go("/enrol")
        made.page.fill("#code", code)
        made.page.press("#name", "Enter")
        made.page.wait_for_url(made.url + "/")
        made.go("/security")
        made.page.fill("#name", "")
        made.page.press("#name", "Enter")
        made.says("Give the passkey a name")
        assert made.page.url == made.url + "/security"
    _, code = portal.person()
    with person(browser, portal.url, passkeys=False, java_script_enabled=False) as plain:
        for path, field in (("/enrol", "#code"), ("/without-us", "#file"), ("/verify", "#file")):
            plain.go(path)
            if field == "#code":
                plain.page.fill(field, code)
            plain.page.click("main form button[type=submit]")
            plain.page.wait_for_timeout(200)
            assert plain.page.url == plain.url + path


def test_another_site_can_neither_send_a_form_nor_fetch_nor_load_nor_frame_anything(
    portal: Portal, anna: Person
) -> None:
    consent = anna.accept(portal.ask(portal.bank))
    evil = anna.context.new_page()
    evil.route("http://evil.example/**", lambda route: route.fulfill(body="<p>evil</p>", content_type="text/html"))
    evil.goto("http://evil.example/")
    with anna.lenient():
        for path in (f"/consents/{consent}/stop", "/data/erase", "/sign-out", "/auth/sessions/end"):
            status = post_form(evil, anna.url + path)
            assert status == 403, path
            evil.goto("http://evil.example/")
        loaded = evil.evaluate(
            """(url) => Promise.all([
              fetch(url + "/data/export.json", { credentials: "include" }).then(() => "read", () => "refused"),
              fetch(url + "/consents/revocations", { method: "POST", credentials: "include", mode: "no-cors" })
                .then((answer) => (answer.type === "opaque" ? "opaque" : "read"), () => "refused"),
              new Promise((done) => { const one = new Image(); one.onload = () => done("read");
                one.onerror = () => done("refused"); one.src = url + "/static/portal/icon.svg"; }),
            ])""",
            anna.url,
        )
        assert loaded[0] == "refused"
        assert loaded[1] in ("opaque", "refused")
        assert loaded[2] == "refused"
        evil.set_content(f"<iframe src='{anna.url}/'></iframe>")
        evil.wait_for_timeout(300)
        assert all("Consent Ledger" not in frame.content() for frame in evil.frames[1:])
    assert portal.custodian.registry.consent(consent).revoked_at is None  # type: ignore[arg-type] # as it stands there
    anna.go("/")
    assert "North Bank" in anna.text()


def post_form(page: Page, url: str) -> int:
    """The status of a form that this page sends there."""
    with page.expect_navigation() as going:
        page.evaluate(
            """(url) => { const form = document.createElement("form"); form.method = "post"; form.action = url;
              const field = document.createElement("input"); field.name = "word"; field.value = "ERASE";
              form.append(field); document.body.append(form); form.submit(); }""",
            url,
        )
    response = going.value
    assert response is not None
    return response.status


# ---------------------------------------------------------------------------------------------------------- without us


def test_a_stop_made_in_advance_ends_the_consent_with_no_code_of_ours_on_the_way(portal: Portal, anna: Person) -> None:
    consent = anna.accept(portal.ask(portal.bank))
    anna.go(f"/receipts/{consent}")
    with anna.page.expect_download() as saved:
        anna.page.click("a[href$='grant.jwt']")
    anna.go("/without-us")
    anna.page.fill("#receipt", saved.value.path().read_text("utf-8"))
    anna.page.click("#without-us button[type=submit]")
    anna.page.wait_for_selector("#result:not([hidden])")
    grant = portal.custodian.registry.consent(consent).grant  # type: ignore[arg-type] # as it stands in the address
    assert anna.page.inner_text("#out-data") == "0x" + revoke_call([outer_of(grant)], b"").hex()
    assert anna.page.inner_text("#out-from").lower() == grant.subject.lower()
    anna.page.click("#in-advance")
    anna.page.wait_for_function("() => document.getElementById('out-from').textContent === 'ANY-ACCOUNT'")
    question, data = anna.page.inner_text("#out-state"), anna.page.inner_text("#out-data")

    def ask(method: str, *params: object) -> Any:
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        return json.loads(urllib3.request("POST", portal.devnet.url, body=body, headers=JSON).data)["result"]

    anyone = Account.create()
    fund(portal.custodian.rpc, [anyone.address])
    unsigned = {
        "to": portal.custodian.chain.domain.contract,
        "data": data,
        "nonce": 0,
        "gas": 200_000,
        "maxFeePerGas": 10**10,
        "maxPriorityFeePerGas": 0,
        "chainId": portal.config.chain_id,
    }
    sent = ask("eth_sendRawTransaction", "0x" + anyone.sign_transaction(unsigned).raw_transaction.hex())
    assert ask("eth_getTransactionReceipt", sent)["status"] == "0x1"
    state = json.loads(urllib3.request("POST", portal.devnet.url, body=question, headers=JSON).data)["result"]
    assert state[-1] == "3"
    # The service finds out by asking the chain, and obeys.
    with pytest.raises(ConsentRevokedError):
        portal.release(portal.bank, consent)
    anna.go(f"/consents/{consent}")
    assert anna.page.inner_text(".state") == "Stopped"


# ------------------------------------------------------------------------------------------------------------- the end


def test_erasing_takes_the_word_and_a_touch_and_leaves_a_proof_that_checks_offline(
    portal: Portal, anna: Person
) -> None:
    anna.accept(portal.ask(portal.bank))
    anna.go("/data/erase")
    anna.page.fill("#word", "erase please")
    with anna.lenient():
        anna.page.click("#erase-now")
        anna.page.wait_for_selector("#word-problem")
    anna.page.fill("#word", "erase")
    anna.page.click("#erase-now")
    anna.page.wait_for_selector("h1:has-text('Erased')", timeout=20_000)
    proof = anna.page.inner_text("pre.wrap")
    anna.go("/verify")
    anna.context.set_offline(offline=True)
    anna.page.fill("#receipt", proof)
    anna.page.click("#verify button")
    anna.says("This is genuine.")
    anna.page.fill("#receipt", proof[:-8] + "AAAAAAAA")
    anna.page.click("#verify button")
    anna.says("not genuine")


def consents_of(portal: Portal) -> list[Any]:
    """Those of the person who came last."""
    return portal.custodian.registry.consents(newest(portal))


def newest(portal: Portal) -> str:
    """The person who came last."""
    return portal.custodian.vault.subject_of(f"person-{portal.people}")
