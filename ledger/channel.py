"""The channel to a custodian's service: each request is signed, no answer is believed that the custodian did not sign.

- Every try is signed anew, with a nonce of its own. An answer's signature covers that of the request, so that an
  answer to another try, however old, is none to this one.
- Tried again: requests that may be repeated, after a broken connection, `502`, `503`, `504`, `429`, `409 in_progress`;
  any request, if no connection could be made at all. With exponential back-off and jitter, and not before the time of
  `Retry-After`.
- An answer that is not signed is an `AuditError`; but one that says that something on the way is out of order (`502`,
  `503`, `504`, `429`) is no answer of the service, and when the tries are used up a `ServiceUnavailableError`.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Final, TypedDict
from urllib.parse import urlencode

from joserfc.errors import JoseError
from joserfc.jwk import ECKey
from urllib3 import BaseHTTPResponse, PoolManager
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, ProtocolError

from ledger.answers import Deployment, error_of, read
from ledger.consent import Address, Hex32
from ledger.errors import (
    AuditError,
    ConfigError,
    LedgerError,
    MalformedError,
    RateLimitedError,
    ReleaseInProgressError,
    ServiceError,
    ServiceUnavailableError,
)
from ledger.exchange import key_for
from ledger.signatures import JWK, HttpRequest, HttpResponse, sign_request, verify_request, verify_response

WELL_KNOWN: Final = "/.well-known/consent-ledger"
TRIES: Final = 6
FIRST_DELAY_SECONDS: Final = 0.25
MAX_DELAY_SECONDS: Final = 10.0
MAX_RETRY_AFTER_SECONDS: Final = 60.0
TIMEOUT_SECONDS: Final = 60.0
MAX_ANSWER: Final = 32 * 1024 * 1024
NONCE_BYTES: Final = 18
ON_THE_WAY: Final = frozenset(
    {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
"""What is answered by a proxy as well, which signs nothing."""


def unix_now() -> int:
    """The clock, in whole seconds."""
    return int(time.time())


class Options(TypedDict, total=False):
    """Of a channel. `custodian_key` pins the key that answers are signed with; `timeout` is in seconds, of each try."""

    custodian_key: ECKey | Mapping[str, Any] | None
    timeout: float
    http: PoolManager | None
    clock: Callable[[], int]
    sleep: Callable[[float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Custodian:
    """Who answers: the account that names it, and the key that it signs with."""

    address: Address
    key: ECKey


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tried:
    """What came of one try: an answer to believe, or the error, and whether to try again and when."""

    body: Mapping[str, Any] | None
    error: LedgerError | None
    again: bool
    after: float = 0.0


class Channel:
    """Signs as one party, to one service. Safe to share between threads."""

    def __init__(
        self,
        service_url: str,
        party_id: str,
        signing_key: JWK,
        *,
        custodian_key: ECKey | Mapping[str, Any] | None = None,
        timeout: float = TIMEOUT_SECONDS,
        http: PoolManager | None = None,
        clock: Callable[[], int] = unix_now,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.service_url = service_url.rstrip("/")
        self.party_id = party_id
        self.signing_key = signing_key
        self._pinned = custodian_key if isinstance(custodian_key, ECKey | None) else _pinned(custodian_key)
        self._http = http or PoolManager()
        self._timeout, self._clock, self._sleep = timeout, clock, sleep
        self._custodian: Custodian | None = None

    # -------------------------------------------------------------------------------------------------- the custodian

    def custodian(self) -> Custodian:
        """Who signs the answers: asked once, then kept. Raises as `deployment`."""
        if self._custodian is None:
            self.deployment()
        assert self._custodian is not None
        return self._custodian

    def deployment(self) -> Deployment:
        """What the service says of itself; from its first answer the custodian is known.

        Raises `AuditError` if that is not the custodian whose key is pinned or was seen first, `ConfigError` if the
        service goes by another URL, and `ServiceError`.
        """
        found = read(Deployment, self._plain_json(self.service_url + WELL_KNOWN))
        if found.service_url != self.service_url:
            raise ConfigError(f"service_url: expected the one that the service goes by, {found.service_url}")
        expected = self._custodian.key if self._custodian else self._pinned
        key = _published(found.jwks, expected)
        known = Custodian(address=found.custodian, key=key)
        if self._custodian is not None and known.address != self._custodian.address:
            raise AuditError("the service says that it is another custodian than before")
        self._custodian = known
        return found

    def _plain_json(self, url: str) -> object:
        def tried() -> _Tried:
            response = self._sent(HttpRequest(method="GET", url=url))
            if response.status_code == HTTPStatus.OK:
                return _Tried(body={"document": _json(response.body)}, error=None, again=False)
            gone = ServiceUnavailableError(f"the service answered {response.status_code} for {WELL_KNOWN}")
            return _Tried(
                body=None,
                error=gone,
                again=response.status_code in ON_THE_WAY,
                after=_retry_after(response, self._clock()),
            )

        return self._until_answered(tried, repeatable=True)["document"]

    # ------------------------------------------------------------------------------------------------------- requests

    def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, str | int | None] | None = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool | None = None,
        sent: Callable[[Hex32], object] = lambda _: None,
    ) -> Mapping[str, Any]:
        """Ask, and return the answer's JSON. GET, PUT and DELETE may be repeated; a POST if `repeatable` says so.

        `sent` is told the digest of every request (its `requestHash`) before it leaves.

        Raises the error that the service answered with, `AuditError`, `ServiceError`, `ServiceUnavailableError`.
        """
        known = {name: value for name, value in (query or {}).items() if value is not None}
        request = HttpRequest(
            method=method,
            url=self.service_url + path + (f"?{urlencode(known)}" if known else ""),
            headers={"Accept": "application/json", **(headers or {})},
            body=b"" if body is None else json.dumps(body).encode(),
        )
        if body is not None:
            request.headers["Content-Type"] = "application/json"

        def tried() -> _Tried:
            signed, digest = self._signed(request)
            sent(digest)
            return self._understood(self._sent(signed))

        self.custodian()
        return self._until_answered(tried, repeatable=method != "POST" if repeatable is None else repeatable)

    def _signed(self, request: HttpRequest) -> tuple[HttpRequest, Hex32]:
        now, key = self._clock(), self.signing_key
        nonce = secrets.token_urlsafe(NONCE_BYTES)
        signed = sign_request(request, party_id=self.party_id, key=key, at=now, nonce=nonce)
        return signed, verify_request(signed, key, now=now).digest()

    def _sent(self, request: HttpRequest) -> HttpResponse:
        response = self._http.request(
            request.method,
            request.url,
            body=request.body or None,
            headers=request.headers,
            timeout=self._timeout,
            retries=False,
            redirect=False,
            preload_content=False,
        )
        try:
            body = _body_of(response)
        except BaseException:
            # What is left of the answer must not be read as that to the next request.
            response.close()
            raise
        response.release_conn()
        return HttpResponse(
            status_code=response.status, headers=dict(response.headers.items()), body=body, request=request
        )

    def _understood(self, response: HttpResponse) -> _Tried:
        custodian, status = self.custodian(), response.status_code
        after = _retry_after(response, self._clock())
        try:
            verify_response(response, party_id=custodian.address, key=custodian.key)
        except AuditError as exc:
            if status not in ON_THE_WAY:
                raise
            gone = ServiceUnavailableError(f"something before the service answered {status}: {exc.message}")
            return _Tried(body=None, error=gone, again=True, after=after)
        body = _json(response.body)
        if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES and isinstance(body, Mapping):
            return _Tried(body=body, error=None, again=False)
        error = error_of(body, limit=_number(response, "RateLimit-Limit"), retry_after=int(after))
        again = status in ON_THE_WAY or isinstance(error, ReleaseInProgressError | RateLimitedError)
        return _Tried(body=None, error=error, again=again, after=after)

    def _until_answered(self, try_it: Callable[[], _Tried], *, repeatable: bool) -> Mapping[str, Any]:
        for number in range(TRIES):
            is_last = number == TRIES - 1
            try:
                tried = try_it()
            except HTTPError as exc:
                # Without a connection nothing was sent, so that anything may be tried again.
                unsent = isinstance(exc, NewConnectionError | ConnectTimeoutError)
                if is_last or not (repeatable or unsent):
                    doubt = "" if repeatable or unsent else ", and it is not known whether it did what was asked"
                    raise ServiceUnavailableError(f"the service at {self.service_url} did not answer{doubt}") from exc
                self._wait(number, 0.0)
                continue
            if tried.error is None:
                assert tried.body is not None
                return tried.body
            if is_last or not (tried.again and repeatable):
                raise tried.error
            self._wait(number, tried.after)
        raise AssertionError("the last try returns or raises")

    def _wait(self, number: int, at_least: float) -> None:
        delay = min(MAX_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2**number)
        # Half of it by chance, so that clients that were turned away together do not come back together.
        jitter = delay * secrets.randbelow(1000) / 2000
        self._sleep(max(delay / 2, at_least) + jitter)


def signing_key_of(keys: Mapping[str, Any]) -> JWK:
    """The key of a private JWK set that a party signs with. Raises `MalformedError`."""
    key = key_for(keys, "sig")
    if not key.is_private:
        raise MalformedError("keys: expected a private key with use 'sig'", field="keys")
    key.ensure_kid()
    return key


def _pinned(jwk: Mapping[str, Any]) -> ECKey:
    try:
        key = ECKey.import_key(dict(jwk))
    except (JoseError, ValueError, TypeError, KeyError) as exc:
        raise MalformedError("custodian_key: expected a JWK on P-256", field="custodian_key") from exc
    key.ensure_kid()
    return key


def _published(jwks: Mapping[str, Any], expected: ECKey | None) -> ECKey:
    """The custodian's key: the expected one if it is among the published, or the first if none is expected."""
    try:
        keys = [key_for({"keys": [one]}, "sig") for one in jwks["keys"]]
    except (KeyError, TypeError, MalformedError) as exc:
        raise ServiceError("the service publishes no key that is known here", field="jwks") from exc
    for key in keys:
        if isinstance(key, ECKey) and (expected is None or key.thumbprint() == expected.thumbprint()):
            key.ensure_kid()
            return key
    raise AuditError("the service does not publish the custodian's key that is expected: another custodian")


def _body_of(response: BaseHTTPResponse) -> bytes:
    if response.length_remaining is None and not response.chunked:
        # Where the headers were cut off, their end looks like that of an answer that lasts until the connection ends.
        raise ProtocolError("an answer without its length")
    body = bytearray()
    for part in response.stream(65536, decode_content=False):
        body += part
        if len(body) > MAX_ANSWER:
            raise ServiceError("the service's answer is longer than any that it could give")
    return bytes(body)


def _json(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise ServiceError("the service's answer is not JSON") from exc


def _retry_after(response: HttpResponse, now: int) -> float:
    """Seconds, as many as anyone should wait; also if it is given as a date (RFC 9110). Not signed: only a hint."""
    text = _header(response, "Retry-After")
    if text.isascii() and text.isdigit():
        return min(MAX_RETRY_AFTER_SECONDS, float(text))
    try:
        return max(0.0, min(MAX_RETRY_AFTER_SECONDS, parsedate_to_datetime(text).timestamp() - now))
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0.0


def _number(response: HttpResponse, name: str) -> int:
    text = _header(response, name)
    return int(text) if text.isascii() and text.isdigit() and len(text) < NONCE_BYTES else 0


def _header(response: HttpResponse, name: str) -> str:
    return next((value for key, value in response.headers.items() if key.lower() == name.lower()), "")
