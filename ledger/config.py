"""Configuration: one frozen object, and the only code of ours that reads the environment.

Options of the command line may be given by it as well, which typer reads: of the auditor's verbs, which know no
`Config`, some of these (`cli_audit_options.py`), and `PORT` of `up` and `serve` (`cli_serve.py`).

| variable | meaning | default |
|---|---|---|
| `CONSENT_LEDGER_DATA` | directory of database, keys and locks | the user's data directory |
| `CONSENT_LEDGER_RPC_URL` | JSON-RPC endpoint of the chain | `http://127.0.0.1:8545` |
| `CONSENT_LEDGER_CHAIN_ID` | chain id that the endpoint must serve | `31337` |
| `CONSENT_LEDGER_FINALITY` | when a block counts: `latest`, `safe` or `finalized` | `latest` |
| `CONSENT_LEDGER_TIMEOUT` | seconds to wait for a block to count | `30` |
| `CONSENT_LEDGER_PRIORITY_FEE` | least priority fee in wei (EIP-1559); 0: 0.001 gwei, none where gas is free | `0` |
| `CONSENT_LEDGER_MAX_FEE` | most that a unit of gas may cost, in wei: nothing dearer is signed | `500000000000` |
| `CONSENT_LEDGER_URL` | where this service is reached; signed requests begin with it | `http://127.0.0.1:8000` |
| `CONSENT_LEDGER_RATE_LIMIT` | requests a minute of one institution or furnisher | `600` |
| `CONSENT_LEDGER_WEBHOOKS` | where webhooks go: `public`, or `insecure-any` (private networks, http) | `public` |
| `CONSENT_LEDGER_THREADS` | requests that each process of the service works on at once | `32` |
| `CONSENT_LEDGER_PROXIES` | how many reverse proxies are in front, whose `X-Forwarded-For` is believed | `0` |
| `PORT` | port of the service, on loopback | `8000` |
| `RUNTIME_DIRECTORY` | for what a service needs while it runs (systemd sets it) | shared memory or temporary files |

`latest` is right where blocks are final at once (the devnet, QBFT, IBFT). On a chain that can reorganise, releases must
wait for `finalized`: what was released cannot be taken back.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from platformdirs import user_data_path

from ledger.chain import MAX_FEE
from ledger.commit import Finality
from ledger.errors import ConfigError

DEVNET_CHAIN_ID: Final = 31337
DEVNET_PORT: Final = 8545
DEVNET_URL: Final = f"http://127.0.0.1:{DEVNET_PORT}"
MAX_DIGITS: Final = 18
TAGS: Final = ("latest", "safe", "finalized")
SERVICE_PORT: Final = 8000
SERVICE_URL: Final = f"http://127.0.0.1:{SERVICE_PORT}"
RATE_LIMIT: Final = 600
THREADS: Final = 32
LAST_PORT: Final = 65_535
LOOPBACK: Final = ("127.0.0.1", "::1")
WEBHOOKS: Final = ("public", "insecure-any")
_PLACE: Final = f" with a host and, if any, a port from 1 to {LAST_PORT}"
_URL: Final = re.compile(r"https?://[a-z0-9.\[\]:-]+(/[A-Za-z0-9._~/-]*)?\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Where things are, and when a block counts."""

    data: Path
    rpc_url: str = DEVNET_URL
    chain_id: int = DEVNET_CHAIN_ID
    finality: Finality = field(default_factory=Finality)
    priority_fee: int = 0
    max_fee: int = MAX_FEE
    service_url: str = SERVICE_URL
    rate_limit: int = RATE_LIMIT
    insecure_webhooks: bool = False
    threads: int = THREADS
    proxies: int = 0
    runtime: Path | None = None

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, *, port: int = SERVICE_PORT) -> Config:
        """Raises `ConfigError` naming the variable and what was expected.

        `port` is where the service listens; unless it is configured otherwise, that is where it is reached.
        """
        env = os.environ if environ is None else environ
        tag = _one_of(env, "CONSENT_LEDGER_FINALITY", TAGS)
        priority_fee = _number(env, "CONSENT_LEDGER_PRIORITY_FEE", 0, least=0)
        max_fee = _number(env, "CONSENT_LEDGER_MAX_FEE", MAX_FEE)
        if max_fee < priority_fee:
            raise ConfigError("CONSENT_LEDGER_MAX_FEE: expected no less than CONSENT_LEDGER_PRIORITY_FEE")
        return cls(
            data=Path(env.get("CONSENT_LEDGER_DATA") or user_data_path("consent-ledger")),
            rpc_url=_rpc_url(env),
            chain_id=_number(env, "CONSENT_LEDGER_CHAIN_ID", DEVNET_CHAIN_ID),
            finality=Finality(tag=tag, timeout=float(_number(env, "CONSENT_LEDGER_TIMEOUT", 30))),
            priority_fee=priority_fee,
            max_fee=max_fee,
            service_url=_service_url(env, port),
            rate_limit=_number(env, "CONSENT_LEDGER_RATE_LIMIT", RATE_LIMIT),
            insecure_webhooks=_one_of(env, "CONSENT_LEDGER_WEBHOOKS", WEBHOOKS) == "insecure-any",
            threads=_number(env, "CONSENT_LEDGER_THREADS", THREADS),
            proxies=_number(env, "CONSENT_LEDGER_PROXIES", 0, least=0),
            runtime=_first_path(env.get("RUNTIME_DIRECTORY")),
        )

    def environment(self) -> dict[str, str]:
        """The variables that `from_env` reads this from: for a process that is started with it."""
        return {
            "CONSENT_LEDGER_DATA": str(self.data),
            "CONSENT_LEDGER_RPC_URL": self.rpc_url,
            "CONSENT_LEDGER_CHAIN_ID": str(self.chain_id),
            "CONSENT_LEDGER_FINALITY": self.finality.tag,
            "CONSENT_LEDGER_TIMEOUT": str(max(1, int(self.finality.timeout))),
            "CONSENT_LEDGER_PRIORITY_FEE": str(self.priority_fee),
            "CONSENT_LEDGER_MAX_FEE": str(self.max_fee),
            "CONSENT_LEDGER_URL": self.service_url,
            "CONSENT_LEDGER_RATE_LIMIT": str(self.rate_limit),
            "CONSENT_LEDGER_WEBHOOKS": WEBHOOKS[self.insecure_webhooks],
            "CONSENT_LEDGER_THREADS": str(self.threads),
            "CONSENT_LEDGER_PROXIES": str(self.proxies),
        } | ({"RUNTIME_DIRECTORY": str(self.runtime)} if self.runtime else {})

    @property
    def portal_origin(self) -> str:
        """Where the subject's portal is, as browsers write an origin.

        On this machine it is `localhost`: passkeys are bound to a name, never to an IP address (WebAuthn Level 3,
        section 5.4.2).
        """
        parts = urlsplit(self.service_url)
        port = f":{parts.port}" if parts.port not in (None, {"http": 80, "https": 443}[parts.scheme]) else ""
        host = f"[{parts.hostname}]" if ":" in str(parts.hostname) else parts.hostname
        return f"{parts.scheme}://{'localhost' if parts.hostname in LOOPBACK else host}{port}"

    @property
    def rp_id(self) -> str:
        """The name that passkeys are bound to."""
        return str(urlsplit(self.portal_origin).hostname)

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.data / "ledger.db"

    @property
    def key_file(self) -> Path:
        """KEKs and index key."""
        return self.data / "keys" / "kek.json"

    @property
    def account_file(self) -> Path:
        """EVM accounts and signing key."""
        return self.data / "keys" / "accounts.json"

    @property
    def locks(self) -> Path:
        """Lock files of the lanes."""
        return self.data / "locks"


def _one_of(env: Mapping[str, str], name: str, choices: tuple[str, ...]) -> str:
    """The first is the default."""
    chosen = env.get(name, choices[0])
    if chosen not in choices:
        raise ConfigError(f"{name}: expected one of {', '.join(choices)}")
    return chosen


def _first_path(paths: str | None) -> Path | None:
    """Of a unit with several, systemd names all of them."""
    first = (paths or "").split(":")[0]
    return Path(first) if first else None


def _rpc_url(env: Mapping[str, str]) -> str:
    url = env.get("CONSENT_LEDGER_RPC_URL", DEVNET_URL)
    # Not repeated when it is refused: it may hold a key.
    if not url.startswith(("http://", "https://")) or not url.isprintable() or " " in url or not _leads_somewhere(url):
        raise ConfigError(f"CONSENT_LEDGER_RPC_URL: expected an http or https address{_PLACE}")
    return url


def _leads_somewhere(url: str) -> bool:
    """Whether it has a host, and a port if any that can be one."""
    try:
        parts = urlsplit(url)
        # Asked for the port, it raises for what is none.
        return bool(parts.hostname) and (parts.port is None or 1 <= parts.port <= LAST_PORT)
    except ValueError:
        return False


def _service_url(env: Mapping[str, str], port: int) -> str:
    url = env.get("CONSENT_LEDGER_URL", f"http://127.0.0.1:{port}")
    if not _URL.match(url) or not _leads_somewhere(url):
        raise ConfigError(
            f"CONSENT_LEDGER_URL: expected an http or https address in lower case{_PLACE}, without a query"
        )
    return url.rstrip("/")


def _number(env: Mapping[str, str], name: str, default: int, *, least: int = 1) -> int:
    text = env.get(name)
    if text is None:
        return default
    # Bounded before it is read: int() refuses, and float() overflows at, what nobody means.
    if not text.isascii() or not text.isdigit() or len(text) > MAX_DIGITS or int(text) < least:
        raise ConfigError(f"{name}: expected a {'positive ' if least else ''}whole number")
    return int(text)
