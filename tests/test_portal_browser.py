"""The portal in a real browser, on a real chain: one story from a code to a stop, and every way in which it can go wrong."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from browser import CHROMIUM, FLAGS, Person, Portal, Wallet, add_authenticator, is_missing, person
from playwright.sync_api import Browser, sync_playwright

from ledger.devnet import Devnet
from ledger.errors import ConsentRevokedError

pytestmark = [pytest.mark.devnet, pytest.mark.slow]


@pytest.fixture(scope="session")
def portal(devnet: Devnet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Portal]:
    made = Portal(devnet, tmp_path_factory.mktemp("portal") / "data")
    with made.running():
        yield made


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if is_missing():
        reason = f"no Chromium at {CHROMIUM}"
        pytest.fail(reason) if "CI" in os.environ else pytest.skip(reason)
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


def test_from_a_code_to_a_consent_a_read_and_a_stop_all_of_it_seen(portal: Portal, anna: Person) -> None:
    assert "Nobody" in anna.text()
    request = portal.ask(portal.bank)
    before = anna.touches()
    consent = anna.accept(request)
    accepting = anna.steps + anna.touches() - before
    assert "public log" in anna.page.inner_text("#status")
    anna.go("/")
    assert "North Bank" in anna.text()

    portal.release(portal.bank, consent, attributes=("credit_amount",))
    anna.go("/activity")
    assert "North Bank" in anna.text()
    anna.page.click("main .list a.row")
    anna.page.click("#check")
    anna.says("The same.", "#check-status")
    assert anna.page.inner_text("#check-hash") in anna.page.inner_text("main")

    anna.go("/")
    anna.steps, before = 0, anna.touches()
    anna.click(f"[data-stop='{consent}']")
    anna.says("Stopped.")
    assert anna.page.get_attribute("#status", "data-kind") == "done"
    stopping = anna.steps + anna.touches() - before
    with pytest.raises(ConsentRevokedError):
        portal.release(portal.bank, consent, attributes=("credit_amount",))
    anna.go("/activity")
    assert anna.page.inner_text("main .list li:first-child .state") == "Refused"
    anna.page.click("main .list li:first-child a.row")
    assert "You had stopped the consent." in anna.text()
    assert (accepting, stopping) == (3, 2)
