"""Configuration: one reader of the environment, and what is wrong there is said by name before anything happens."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import ledger.config
from ledger.commit import Finality
from ledger.config import DEVNET_CHAIN_ID, DEVNET_URL, RATE_LIMIT, SERVICE_URL, Config
from ledger.errors import ConfigError, LedgerError


def test_without_any_setting_it_is_the_devnet_and_the_users_own_directory() -> None:
    config = Config.from_env({})
    assert (config.rpc_url, config.chain_id) == (DEVNET_URL, DEVNET_CHAIN_ID)
    assert (config.finality.tag, config.finality.timeout) == ("latest", 30.0)
    assert (config.service_url, config.rate_limit, config.insecure_webhooks) == (SERVICE_URL, RATE_LIMIT, False)
    assert config.data.is_absolute()
    assert config.data.name == "consent-ledger"


def test_every_setting_is_read() -> None:
    config = Config.from_env(
        {
            "CONSENT_LEDGER_DATA": "/somewhere",
            "CONSENT_LEDGER_RPC_URL": "https://chain.example/key",
            "CONSENT_LEDGER_CHAIN_ID": "1",
            "CONSENT_LEDGER_FINALITY": "finalized",
            "CONSENT_LEDGER_TIMEOUT": "900",
            "CONSENT_LEDGER_PRIORITY_FEE": "30000000000",
            "CONSENT_LEDGER_MAX_FEE": "900000000000",
            "CONSENT_LEDGER_URL": "https://custodian.example:8443/ledger/",
            "CONSENT_LEDGER_RATE_LIMIT": "7",
            "CONSENT_LEDGER_WEBHOOKS": "insecure-any",
            "CONSENT_LEDGER_THREADS": "5",
            "CONSENT_LEDGER_PROXIES": "2",
        },
        port=1234,
    )
    assert config.data == Path("/somewhere")
    assert (config.rpc_url, config.chain_id) == ("https://chain.example/key", 1)
    assert (config.finality.tag, config.finality.timeout) == ("finalized", 900.0)
    assert (config.service_url, config.rate_limit) == ("https://custodian.example:8443/ledger", 7)
    assert config.insecure_webhooks
    assert (config.threads, config.proxies) == (5, 2)
    assert (config.priority_fee, config.max_fee) == (30 * 10**9, 900 * 10**9)


def test_a_service_that_is_not_said_to_be_elsewhere_is_reached_where_it_listens() -> None:
    assert Config.from_env({}, port=1234).service_url == "http://127.0.0.1:1234"


@pytest.mark.parametrize(
    "config",
    [
        Config(data=Path("/x")),
        Config(
            data=Path("/somewhere with a space"),
            rpc_url="https://chain.example/key",
            chain_id=1,
            finality=Finality(tag="safe", timeout=900.0),
            service_url="https://custodian.example/ledger",
            rate_limit=7,
            insecure_webhooks=True,
            threads=64,
            proxies=3,
            priority_fee=25 * 10**9,
            max_fee=26 * 10**9,
        ),
    ],
    ids=["defaults", "everything else"],
)
def test_a_process_that_is_started_with_it_reads_the_same(config: Config) -> None:
    assert Config.from_env(config.environment(), port=1234) == config


def test_of_several_runtime_directories_the_first_is_taken_and_handed_on() -> None:
    for given, taken in (("/run/ledger", "/run/ledger"), ("/run/a:/run/b", "/run/a")):
        config = Config.from_env({"RUNTIME_DIRECTORY": given})
        assert config.runtime == Path(taken)
        assert Config.from_env(config.environment()) == config
    assert Config.from_env({"RUNTIME_DIRECTORY": ""}).runtime is Config.from_env({}).runtime is None


def test_a_process_waits_a_second_at_least() -> None:
    config = Config(data=Path("/x"), finality=Finality(timeout=0.02))
    assert Config.from_env(config.environment()).finality.timeout == 1.0


def test_the_environment_of_the_process_is_read_when_no_other_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSENT_LEDGER_DATA", "/from/the/environment")
    assert Config.from_env().data == Path("/from/the/environment")


NOWHERE = (
    *("http://", "http:///path", "http://:8545", "http://a:b:c", "http://a:99999999", "http://localhost:abc"),
    *("http://a:0", "http://a:65536", "http://a:-1", "http://[::1", "http://::1]:1", "http://[x]"),
)
"""Addresses that lead nowhere, though they begin well."""
NUMBERS = tuple(f"CONSENT_LEDGER_{name}" for name in ("CHAIN_ID", "TIMEOUT", "RATE_LIMIT", "THREADS", "MAX_FEE"))


def test_a_most_that_is_below_the_least_is_refused() -> None:
    settings = {"CONSENT_LEDGER_PRIORITY_FEE": "26", "CONSENT_LEDGER_MAX_FEE": "25"}
    with pytest.raises(ConfigError, match=r"\ACONSENT_LEDGER_MAX_FEE: expected no less"):
        Config.from_env(settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("CONSENT_LEDGER_FINALITY", value) for value in ("", "Latest", "earliest", "pending", "12", " latest")),
        *(
            ("CONSENT_LEDGER_RPC_URL", value)
            for value in (
                *("", "localhost:8545", "ws://x", "ipc:/x", "file:///x", " http://x", "http://x y", "http://x\n"),
                *NOWHERE,
                *("http://user:pass@", "http://u:p/x@host"),
            )
        ),
        *(("CONSENT_LEDGER_WEBHOOKS", value) for value in ("", "any", "private", "Public", "insecure", "1")),
        *(
            ("CONSENT_LEDGER_URL", value)
            for value in (
                *("", "custodian.example", "ftp://x", "https://", "https:///path", " https://x", "https://x\n"),
                # A signature covers the address as it is written: it must have one form only.
                *("https://X.example", "HTTPS://x", "https://u:p@x", "https://x?a=b", "https://x/?", "https://x/#a"),
                *("https://x/%41", "https://x/a b", "https://\u0445"),
                *NOWHERE,
            )
        ),
        *(
            (name, value)
            for name in NUMBERS
            for value in ("0", "-1", "1.5", "0x7a69", "1e3", " 1", "1_000", "\u0661", "\u00b2", "nan", "9" * 5000, "")
        ),
        *(
            (name, value)
            for name in ("CONSENT_LEDGER_PROXIES", "CONSENT_LEDGER_PRIORITY_FEE")
            for value in ("", "-1", "1.5", "all", "9" * 5000)
        ),
    ],
)
def test_a_setting_that_cannot_be_right_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(LedgerError) as caught:
        Config.from_env({name: value})
    assert type(caught.value) is ConfigError
    assert caught.value.message.startswith(f"{name}: expected ")
    assert "pass" not in caught.value.message


@pytest.mark.parametrize(
    ("service_url", "origin", "name"),
    [
        # A passkey is bound to a name, which an address is not.
        ("http://127.0.0.1:8000", "http://localhost:8000", "localhost"),
        ("http://[::1]:9000", "http://localhost:9000", "localhost"),
        ("http://localhost:8000", "http://localhost:8000", "localhost"),
        # Browsers leave out the port that goes without saying, and the path.
        ("https://ledger.example", "https://ledger.example", "ledger.example"),
        ("https://ledger.example:443/portal", "https://ledger.example", "ledger.example"),
        ("http://ledger.example:80", "http://ledger.example", "ledger.example"),
        ("https://ledger.example:80", "https://ledger.example:80", "ledger.example"),
        ("http://192.0.2.1:8000", "http://192.0.2.1:8000", "192.0.2.1"),
        ("http://[2001:db8::1]:8000", "http://[2001:db8::1]:8000", "2001:db8::1"),
    ],
)
def test_the_portal_is_where_browsers_say_that_it_is(service_url: str, origin: str, name: str) -> None:
    config = Config(data=Path("/x"), service_url=service_url)
    assert (config.portal_origin, config.rp_id) == (origin, name)


def test_an_empty_directory_is_taken_for_none_and_not_for_the_current_one() -> None:
    assert Config.from_env({"CONSENT_LEDGER_DATA": ""}).data == Config.from_env({}).data


def test_keys_lie_outside_the_database_and_everything_within_the_data_directory(tmp_path: Path) -> None:
    config = Config(data=tmp_path)
    places = [config.database, config.key_file, config.account_file, config.locks]
    assert len(set(places)) == len(places)
    assert all(tmp_path in place.parents for place in places)
    assert config.key_file.parent == config.account_file.parent != config.database.parent


def test_a_process_is_given_every_setting() -> None:
    documented = re.findall(r"^\| `(CONSENT_LEDGER_\w+)`", str(ledger.config.__doc__), re.MULTILINE)
    assert set(Config(data=Path("/x")).environment()) == set(documented)


def test_every_setting_is_documented_at_the_head_of_the_module() -> None:
    documented = re.findall(r"^\| `(CONSENT_LEDGER_\w+)`", str(ledger.config.__doc__), re.MULTILINE)
    code = Path(ledger.config.__file__).read_text("utf-8").split('"""', 2)[2]
    assert set(documented) == set(re.findall(r"CONSENT_LEDGER_\w+", code))


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Config(data=Path("/x")).chain_id = 1  # type: ignore[misc]
