"""Public keys as an auditor has them: from a file, or from what a service says of itself."""

from __future__ import annotations

import json
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet, OKPKey
from urllib3 import PoolManager
from urllib3.exceptions import HTTPError

from ledger.channel import WELL_KNOWN
from ledger.cli_terminal import read_json
from ledger.errors import MalformedError, ServiceUnavailableError
from ledger.signatures import JWK, SIGNING_CURVES

TIMEOUT_SECONDS: Final = 10.0


def read_key_source(source: str) -> dict[str, Any]:
    """A JWK (set) in a file, or the service at a URL. Raises `UnreadableFileError`, `ServiceUnavailableError`."""
    content = _fetched(source) if source.startswith(("http://", "https://")) else read_json(Path(source))
    found = content.get("jwks", content)
    return found if isinstance(found, dict) else {}


def signing_keys(source: str) -> tuple[JWK, ...]:
    """The keys of a source that signatures can be verified with. Raises as `read_key_source`, and `MalformedError`."""
    content = read_key_source(source)
    keys = content.get("keys", [content])
    found: list[JWK] = []
    for one in keys if isinstance(keys, list) else []:
        if isinstance(one, dict) and one.get("use", "sig") == "sig":
            try:
                (key,) = KeySet.import_key_set({"keys": [one]}).keys
            except (JoseError, ValueError, TypeError, KeyError):
                continue
            if isinstance(key, ECKey | OKPKey) and key.curve_name in SIGNING_CURVES:
                key.ensure_kid()
                found.append(key)
    if not found:
        raise MalformedError(f"{source}: expected public keys (JWK) that signatures are verified with", field="keys")
    return tuple(found)


def _fetched(url: str) -> dict[str, Any]:
    """What the service says of itself. Whoever answers under the URL is believed. Raises `ServiceUnavailableError`."""
    address = url if url.endswith(WELL_KNOWN) else url.rstrip("/") + WELL_KNOWN
    try:
        response = PoolManager(timeout=TIMEOUT_SECONDS, retries=False).request("GET", address, redirect=False)
        content = json.loads(response.data) if response.status == HTTPStatus.OK else None
    except (HTTPError, ValueError, RecursionError) as exc:
        raise ServiceUnavailableError(f"no usable answer from {address}") from exc
    if not isinstance(content, dict):
        raise ServiceUnavailableError(f"no usable answer from {address}")
    return content
