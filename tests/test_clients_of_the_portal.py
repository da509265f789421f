"""What the portal knows of whoever asks: an address to count tries by, and a short name for the browser."""

from __future__ import annotations

from dataclasses import replace

import pytest
from actors import World
from browsing import Browser, code, enrolled, invite

from ledger import attempts
from web.clients import client_of, device_of


@pytest.mark.parametrize(
    ("agent", "name"),
    [
        ("Mozilla/5.0 (X11; Linux x86_64; rv:152.0) Gecko/20100101 Firefox/152.0", "Firefox, Linux"),
        ("Mozilla/5.0 (Linux; Android 16) AppleWebKit/537.36 Chrome/156.0 Mobile Safari/537.36", "Chrome, Android"),
        ("Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/156 Safari/537.36 Edg/156.0", "Edge, Windows"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 26_0 like Mac OS X) Version/26.0 Safari/604.1", "Safari, iPhone"),
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) Version/26.0 Safari/605.1.15", "Safari, Mac"),
        ("curl/8", "Browser"),
        ("<script>alert(1)</script>", "Browser"),
        ("", "Browser"),
    ],
)
def test_a_browser_has_a_short_name_of_our_own_words(agent: str, name: str) -> None:
    assert device_of(agent) == name


@pytest.mark.parametrize(
    ("peer", "forwarded", "proxies", "client"),
    [
        ("192.0.2.1", "", 0, "192.0.2.1"),
        # What a client says of itself is not believed.
        ("192.0.2.1", "198.51.100.7", 0, "192.0.2.1"),
        ("192.0.2.1", "198.51.100.7", 1, "198.51.100.7"),
        ("192.0.2.1", "203.0.113.9, 198.51.100.7", 1, "198.51.100.7"),
        ("192.0.2.1", "203.0.113.9, 198.51.100.7,192.0.2.2", 2, "198.51.100.7"),
        ("192.0.2.1", "198.51.100.7", 2, "192.0.2.1"),
        ("192.0.2.1", "", 1, "192.0.2.1"),
        ("192.0.2.1", "made up", 1, "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "", 0, "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "", 0, "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", "", 0, "192.0.2.1"),
        ("", "", 0, ""),
    ],
)
def test_tries_are_counted_by_an_address_that_nobody_can_make_up(
    peer: str, forwarded: str, proxies: int, client: str
) -> None:
    assert client_of(peer, forwarded, proxies=proxies) == client


def test_nobody_gets_more_tries_by_another_name_for_themselves(world: World) -> None:
    for number in range(attempts.CODES.tries):
        browser = Browser(world)
        browser.client.environ_base["HTTP_X_FORWARDED_FOR"] = f"198.51.100.{number}"
        assert code(browser.enrol("0000-0000-0000-0000")) == "code_refused"
    assert code(Browser(world).enrol(invite(world))) == "rate_limited"


def test_behind_a_proxy_people_are_told_apart(world: World) -> None:
    object.__setattr__(world.custodian.config, "proxies", 1)
    for number, expected in enumerate(["code_refused"] * attempts.CODES.tries + ["rate_limited"]):
        browser = Browser(world)
        browser.client.environ_base["HTTP_X_FORWARDED_FOR"] = f"203.0.113.{number}, 198.51.100.1"
        assert code(browser.enrol("0000-0000-0000-0000")) == expected
    browser = Browser(world)
    browser.client.environ_base["HTTP_X_FORWARDED_FOR"] = "198.51.100.2"
    assert browser.enrol(invite(world)).status_code == 200


@pytest.mark.parametrize("path", ["/rpc", "/audit/rpc"])
@pytest.mark.parametrize(
    ("proxies", "mine", "theirs"),
    [
        (1, {"HTTP_X_FORWARDED_FOR": "198.51.100.1"}, {"HTTP_X_FORWARDED_FOR": "198.51.100.2"}),
        (0, {"REMOTE_ADDR": "2001:db8:0:1::%x"}, {"REMOTE_ADDR": "2001:db8:0:2::1"}),
    ],
)
def test_a_stranger_uses_up_nobody_elses_questions_to_the_chain(
    world: World, monkeypatch: pytest.MonkeyPatch, path: str, proxies: int, mine: dict[str, str], theirs: dict[str, str]
) -> None:
    object.__setattr__(world.custodian.config, "proxies", proxies)
    monkeypatch.setattr("web.portal_chain.RPC", replace(attempts.RPC, tries=3))
    monkeypatch.setattr("web.portal_audit.AUDIT_RPC", replace(attempts.AUDIT_RPC, tries=3))
    monkeypatch.setattr(type(world.custodian.rpc), "each", lambda *_: ["0x7a69"])
    browser = enrolled(world)

    def asked(environ: dict[str, str]) -> int:
        browser.client.environ_base.update(environ)
        return browser.post(path, {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": []}).status_code

    answers = [asked({name: value.replace("%x", f"{number:x}") for name, value in mine.items()}) for number in range(4)]
    assert answers == [200, 200, 200, 429]
    assert asked(theirs) == 200
