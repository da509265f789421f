"""Signing in to the portal: enrolment, passkeys, wallets, step-up, and what a person can undo."""

from __future__ import annotations

from actors import World
from browsing import WRAPPED, Browser, code, enrolled, invite, said


def test_a_person_enrols_by_a_passkey_and_signs_in_by_it_later(world: World) -> None:
    browser = Browser(world)
    answer = browser.enrol(invite(world))
    assert (answer.status_code, said(answer)) == (200, {"next": "/"}), answer.text
    assert browser.is_signed_in()
    assert browser.submit("/sign-out").location == "/"
    assert not browser.is_signed_in()
    assert said(browser.sign_in()) == {"next": "/"}
    assert browser.is_signed_in()


def test_stepping_up_gives_the_root_as_this_passkey_wraps_it(world: World) -> None:
    browser = enrolled(world)
    answer = said(browser.step_up())
    assert answer["wrappedRoot"] == WRAPPED
    assert world.custodian.enrolment.passkeys(answer["accountId"])[0].wrapped_root == WRAPPED


def test_a_person_enrols_by_a_wallet_and_signs_in_by_it_later(world: World) -> None:
    browser = Browser(world)
    assert said(browser.by_wallet("enrol", code=invite(world))) == {"next": "/"}
    assert browser.is_signed_in()
    browser.submit("/sign-out")
    assert said(browser.by_wallet("sign-in")) == {"next": "/"}
    assert browser.is_signed_in()
    assert code(browser.by_wallet("step-up")) == ""
