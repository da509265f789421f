"""Attacks on the API: what was not signed exactly so, once, for here and now, gets nothing and leaves nothing."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from hashlib import sha256, sha512

import pytest
from actors import Furnisher, Institution, World, new_nonce
from asking import HANDED_IN, WANTED, Api, code, said
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc.jwk import ECKey, OKPKey
from werkzeug.test import TestResponse

from ledger import exchange
from ledger.consent import Hex32
from ledger.signatures import FRESH_SECONDS, JWK, HttpRequest, SignedRequest, algorithm_of, keyid_of, verify_evidence
from ledger.vault import open_json

Change = Callable[[HttpRequest], HttpRequest]


@pytest.fixture
def api(world: World) -> Api:
    return Api(world)


def digest_of(body: bytes) -> str:
    return f"sha-256=:{base64.b64encode(sha256(body).digest()).decode()}:"


def with_headers(message: HttpRequest, **changes: str | None) -> HttpRequest:
    """Headers by their names with `_` for `-`; None takes one away."""
    named = {name.replace("_", "-").lower(): value for name, value in changes.items()}
    kept = {name: value for name, value in message.headers.items() if name.lower() not in named}
    return replace(message, headers=kept | {name: value for name, value in named.items() if value is not None})


def forged(
    message: HttpRequest,
    sign: Callable[[bytes], bytes],
    *,
    at: int,
    covered: str = '"@method" "@target-uri" "content-digest" "idempotency-key"',
    leave_out: str = "",
    **parameters: str,
) -> HttpRequest:
    """A signature with whatever components and parameters, made by hand as RFC 9421 says."""
    values = {
        '"@method"': message.method,
        '"@target-uri"': message.url,
        '"content-digest"': digest_of(message.body),
        '"idempotency-key"': message.header("idempotency-key") or "",
    }
    written = {"created": str(at), "nonce": f'"{new_nonce()}"'} | parameters
    shown = "".join(f";{name}={value}" for name, value in written.items() if name != leave_out)
    components = [part for part in covered.split(" ") if part]
    lines = [f"{part}: {values[part]}" for part in components]
    base = "\n".join([*lines, f'"@signature-params": ({" ".join(components)}){shown}']).encode()
    return with_headers(
        message,
        content_digest=digest_of(message.body),
        signature_input=f"sig=({' '.join(components)}){shown}",
        signature=f"sig=:{base64.b64encode(sign(base)).decode()}:",
    )


def signer(key: JWK) -> Callable[[bytes], bytes]:
    def sign(base: bytes) -> bytes:
        signature: bytes = algorithm_of(key)(private_key=key.private_key).sign(base)
        return signature

    return sign


def wanted(api: Api, consent: Hex32, *, key: str = "a-first-question") -> HttpRequest:
    """A release that is asked for, not signed yet."""
    return api.request("POST", f"/v1/consents/{consent}/releases", WANTED, key=key)


# --------------------------------------------------------------------------------------------------- altered on the way


def other_body(message: HttpRequest) -> HttpRequest:
    return replace(message, body=message.body.replace(b"credit_amount", b"savings"))


ALTERED: Mapping[str, Change] = {
    "body": other_body,
    "body and its digest": lambda m: with_headers(other_body(m), content_digest=digest_of(other_body(m).body)),
    "no body": lambda m: replace(m, body=b""),
    "a byte more": lambda m: replace(m, body=m.body + b" "),
    "another digest of the same body": lambda m: with_headers(
        m, content_digest=f"sha-512=:{base64.b64encode(sha512(m.body).digest()).decode()}:"
    ),
    "two digests": lambda m: with_headers(m, content_digest=f"{digest_of(b'')}, {m.header('content-digest')}"),
    "no digest": lambda m: with_headers(m, content_digest=None),
    "idempotency key": lambda m: with_headers(m, idempotency_key="another-question"),
    "two idempotency keys": lambda m: with_headers(m, idempotency_key="a-first-question,a-first-question"),
    "no idempotency key": lambda m: with_headers(m, idempotency_key=None),
    "query": lambda m: replace(m, url=f"{m.url}?purpose=account-review"),
    "empty query": lambda m: replace(m, url=f"{m.url}?"),
    "path": lambda m: replace(m, url=m.url.replace("0x", "0x0").replace("/releases", "")[:-1] + "/releases"),
    "case of the path": lambda m: replace(m, url=m.url.replace("/v1/consents", "/v1/Consents")),
    "created": lambda m: with_headers(
        m, signature_input=(m.header("signature-input") or "").replace("created=1", "created=2")
    ),
    "nonce": lambda m: with_headers(
        m, signature_input=(m.header("signature-input") or "").replace('nonce="', 'nonce="x')
    ),
    "signature": lambda m: with_headers(m, signature="sig=:" + base64.b64encode(b"\1" * 64).decode() + ":"),
    "no signature": lambda m: with_headers(m, signature=None),
    "no signature input": lambda m: with_headers(m, signature_input=None),
    "another label": lambda m: with_headers(m, signature=(m.header("signature") or "").replace("sig=", "gis=")),
    "covers less": lambda m: with_headers(
        m, signature_input=(m.header("signature-input") or "").replace(' "idempotency-key"', "")
    ),
}


@pytest.mark.parametrize("what", ALTERED)
def test_a_request_that_was_altered_on_the_way_gets_nothing(world: World, api: Api, what: str) -> None:
    consent = world.grant()
    honest = api.signed(world.institution, wanted(api, consent))
    altered = ALTERED[what](honest)
    assert altered != honest
    refused = send_unchecked(api, altered)
    assert refused.status_code in (401, 404), refused.text
    assert world.states() == []
    # Nothing but the change was wrong with it, and it has used up nothing.
    assert api.send(honest).status_code == 200


def send_unchecked(api: Api, message: HttpRequest) -> TestResponse:
    """Sent in the form in which it can stand in a request line: what was altered may not be a signature any more."""
    target = message.url.removeprefix(api.url)
    return api.send(message, target=target)


@pytest.mark.parametrize("method", ["DELETE", "HEAD", "POST", "PUT", "PATCH", "OPTIONS"])
def test_a_signed_question_does_nothing_under_another_method(world: World, api: Api, method: str) -> None:
    consent = world.grant()
    honest = api.signed(world.institution, api.request("GET", f"/v1/consents/{consent}"))
    refused = send_unchecked(api, replace(honest, method=method))
    assert refused.status_code in (401, 405)
    assert said(api.send(honest))["state"] == "in_force"


def test_a_signature_is_good_for_one_path(world: World, api: Api) -> None:
    mine, other = world.grant(), world.another_subject().grant(world.custodian, world.institution)
    honest = api.signed(world.institution, wanted(api, mine))
    moved = replace(honest, url=honest.url.replace(mine, other))
    assert code(send_unchecked(api, moved)) == "authentication"
    assert world.states() == []


@pytest.mark.parametrize(
    "url", ["https://other.example", "http://127.0.0.1:8001", "https://127.0.0.1:8000", "http://127.0.0.1"]
)
def test_a_signature_for_another_service_is_of_no_use_here(world: World, api: Api, url: str) -> None:
    consent = world.grant()
    path = f"/v1/consents/{consent}/releases"
    there = api.signed(world.institution, replace(wanted(api, consent), url=f"{url}{path}"))
    for target in (path, f"{url}{path}"):
        here = with_headers(replace(there, url=f"{api.url}{path}"), host=url.split("//")[1])
        refused = api.send(here, target=target)
        assert code(refused) == "authentication"
        assert f"over what was sent under {api.url}," in said(refused)["detail"]
    assert world.states() == []


@pytest.mark.parametrize(
    "target",
    ["x:{path}?://a{signed}", "x:{path}?://{signed}", "://a{signed}?{path}", "ftp://h{signed}", "{path}/../keys", "*"],
)
def test_a_target_that_is_read_in_two_ways_is_let_in_by_neither(world: World, api: Api, target: str) -> None:
    consent = world.grant()
    signed = api.signed(world.institution, api.request("DELETE", "/v1/webhook"))
    path = f"/v1/consents/{consent}"
    # As gunicorn splits such a target: the path is that of a consent.
    line = target.format(path=path, signed="/v1/webhook")
    refused = api.send(replace(signed, url=f"{api.url}{path}"), target=line)
    assert code(refused) == "authentication"
    assert world.custodian.registry.consent(consent).revoked_at is None


def test_the_absolute_form_of_a_target_is_the_same_target(world: World, api: Api) -> None:
    for form in ("http://127.0.0.1:8000/v1/keys", "https://a.proxy/v1/keys", "HTTP://x/v1/keys"):
        signed = api.signed(world.institution, api.request("GET", "/v1/keys"))
        assert api.send(signed, target=form).status_code == 200


@pytest.mark.parametrize(
    "written", ["/v1/consents/{}/releases?x=1", "/v1/consents/{}/releases?", "/v1/%63onsents/{}/releases"]
)
def test_a_release_is_asked_for_only_so_that_its_evidence_says_it(world: World, api: Api, written: str) -> None:
    consent = world.grant()
    target = written.format(consent)
    signed = api.signed(world.institution, api.request("POST", target, WANTED, key="k1"))
    refused = api.send(signed, target=target)
    assert (refused.status_code, said(refused)["field"]) == (422, "request")
    assert world.states() == []


def test_a_batch_is_asked_for_only_so_that_its_evidence_says_it(world: World, api: Api) -> None:
    item = WANTED | {"consent": world.grant(), "idempotencyKey": "k1"}
    target = "/v1/%62atch/releases"
    signed = api.signed(world.institution, api.request("POST", target, {"releases": [item]}))
    refused = api.send(signed, target=target)
    assert (refused.status_code, said(refused)["field"]) == (422, "request")
    assert world.states() == []


# --------------------------------------------------------------------------------------------------- when and how often


@pytest.mark.parametrize("off", [-FRESH_SECONDS - 1, FRESH_SECONDS + 1, -86_400, 10**9])
def test_a_signature_of_another_time_is_refused(world: World, api: Api, off: int) -> None:
    consent = world.grant()
    signed = api.signed(world.institution, wanted(api, consent), at=world.clock() + off)
    assert code(api.send(signed)) == "stale_request"
    assert world.states() == []


@pytest.mark.parametrize("off", [-FRESH_SECONDS, FRESH_SECONDS])
def test_clocks_may_differ_by_five_minutes(world: World, api: Api, off: int) -> None:
    signed = api.signed(world.institution, wanted(api, world.grant()), at=world.clock() + off)
    assert api.send(signed).status_code == 200


@pytest.mark.parametrize("path", ["/v1/keys", "/v1/events"])
def test_a_nonce_is_good_for_one_request(world: World, api: Api, path: str) -> None:
    signed = api.signed(world.institution, api.request("GET", path))
    assert api.send(signed).status_code == 200
    assert code(api.send(signed)) == "replayed"
    # Also while it would be fresh, and for another thing.
    again = api.signed(world.institution, wanted(api, world.grant()), nonce=nonce_of(signed))
    assert code(api.send(again)) == "replayed"
    assert world.states() == []


def nonce_of(message: HttpRequest) -> str:
    return (message.header("signature-input") or "").partition('nonce="')[2].partition('"')[0]


def test_a_nonce_of_a_signature_from_the_future_is_remembered_for_as_long_as_that_is_fresh(
    world: World, api: Api
) -> None:
    early = api.signed(world.institution, api.request("GET", "/v1/keys"), at=world.clock() + FRESH_SECONDS)
    assert api.send(early).status_code == 200
    world.clock.advance(2 * FRESH_SECONDS)
    world.custodian.authentication.forget_nonces()
    assert code(api.send(early)) == "replayed"


# ------------------------------------------------------------------------------------------------------------ which key


def test_a_key_that_nobody_registered_opens_nothing(world: World, api: Api) -> None:
    consent = world.grant()
    stranger = Institution("bank-nobody")
    claims_to_be = Institution(world.institution.institution_id)
    borrowed = Institution(world.institution.institution_id)
    borrowed.signing_key = same_kid(claims_to_be.signing_key, world.institution.signing_key)
    for who in (stranger, claims_to_be, borrowed):
        assert code(api.send(api.signed(who, wanted(api, consent)))) == "authentication"
    assert world.states() == []


def same_kid(key: JWK, other: JWK) -> JWK:
    """A key under the id of another."""
    assert isinstance(key, ECKey)
    fields = {name: value for name, value in key.as_dict(private=True).items() if value is not None}
    return ECKey.import_key(fields | {"kid": other.kid or ""})


def test_the_key_that_answers_are_sealed_to_signs_nothing(world: World, api: Api) -> None:
    message = wanted(api, world.grant())
    key = world.institution.sealing_key
    made = forged(message, signer(key), at=world.clock(), keyid=f'"{keyid_of("bank-1", key)}"')
    assert code(api.send(made)) == "authentication"


def test_a_retired_key_opens_nothing_from_the_end_of_its_overlap(world: World, api: Api) -> None:
    old = world.institution
    new = Institution(old.institution_id)
    public = exchange.check_jwks(new.jwks)
    assert api.ask(old, "PUT", "/v1/keys", {"jwks": public, "overlapDays": 1}).status_code == 200
    world.clock.advance(86_399)
    assert api.ask(old, "GET", "/v1/keys").status_code == 200
    world.clock.advance(1)
    assert code(api.ask(old, "GET", "/v1/keys")) == "authentication"
    assert api.ask(new, "GET", "/v1/keys").status_code == 200


def test_a_furnisher_is_no_institution_and_an_institution_no_furnisher(world: World, api: Api) -> None:
    furnisher = registered_furnisher(world)
    assert code(api.release(furnisher, world.grant())) == "authentication"
    path = f"/v1/subjects/{world.subject.ref}/attributes"
    assert code(api.ask(world.institution, "PUT", path, HANDED_IN)) == "authentication"
    assert api.ask(furnisher, "PUT", path, HANDED_IN).status_code == 200


def test_whoever_asks_as_the_other_kind_of_party_is_told_so_and_nobody_else_is(world: World, api: Api) -> None:
    furnisher, path = registered_furnisher(world), f"/v1/subjects/{world.subject.ref}/attributes"
    by_furnisher = said(api.ask(furnisher, "GET", "/v1/consents"))
    assert (
        by_furnisher["detail"]
        == "signature: by a key of a registered furnisher: expected one of a registered institution"
    )
    by_institution = said(api.ask(world.institution, "PUT", path, HANDED_IN))
    assert (
        by_institution["detail"]
        == "signature: by a key of a registered institution: expected one of a registered furnisher"
    )
    # Without its key, a party's name says nothing of whether it is registered.
    for name in (furnisher.furnisher_id, "urn:nobody"):
        stranger = said(api.ask(Institution(name), "GET", "/v1/consents"))
        assert stranger["detail"] == "signature: not by a current key of a registered party"
    assert {one["code"] for one in (by_furnisher, by_institution, stranger)} == {"authentication"}
    assert "institution" not in by_institution["title"]


def registered_furnisher(world: World) -> Furnisher:
    furnisher = Furnisher()
    furnisher.register(world.custodian)
    return furnisher


# -------------------------------------------------------------------------------------------------- what a signature is


def forge(api: Api, message: HttpRequest, sign: Callable[[bytes], bytes], **parameters: str) -> TestResponse:
    who = api.world.institution
    named = {"keyid": f'"{keyid_of(who.institution_id, who.signing_key)}"'} | parameters
    return api.send(forged(message, sign, at=api.world.clock(), **named))


def test_a_signature_made_by_hand_as_the_standard_says_is_accepted(world: World, api: Api) -> None:
    """That the others are refused is then due to what they say, and not to how they were made."""
    sign = signer(world.institution.signing_key)
    assert forge(api, wanted(api, world.grant()), sign).status_code == 200
    assert forge(api, wanted(api, world.grant(), key="2"), sign, alg='"ecdsa-p256-sha256"').status_code == 200


def public_bytes(key: JWK) -> list[bytes]:
    """A public key in every form that someone may take for a secret."""
    public = key.public_key
    fields = json.dumps(key.as_dict(private=False)).encode()
    return [
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint),
        fields,
    ]


@pytest.mark.parametrize("alg", [None, '"hmac-sha256"', '"ecdsa-p256-sha256"', '"HS256"'])
def test_a_public_key_is_no_secret_to_sign_with(world: World, api: Api, alg: str | None) -> None:
    consent = world.grant()
    for secret in public_bytes(world.institution.signing_key):

        def sign(base: bytes, secret: bytes = secret) -> bytes:
            return hmac.digest(secret, base, "sha256")

        parameters = {} if alg is None else {"alg": alg}
        assert code(forge(api, wanted(api, consent), sign, **parameters)) == "authentication"
    assert world.states() == []


@pytest.mark.parametrize(
    "alg", ['"none"', '"hmac-sha256"', '"rsa-pss-sha512"', '"ed25519"', '"ecdsa-p384-sha384"', '""', "1", "?0"]
)
def test_what_a_signature_says_of_its_algorithm_decides_nothing(world: World, api: Api, alg: str) -> None:
    consent = world.grant()
    for sign in (signer(world.institution.signing_key), lambda _: b"", lambda _: bytes(64)):
        assert code(forge(api, wanted(api, consent), sign, alg=alg)) == "authentication"
    assert world.states() == []


@pytest.mark.parametrize("part", ['"@method"', '"@target-uri"', '"content-digest"', '"idempotency-key"'])
def test_a_signature_that_does_not_cover_everything_is_refused(world: World, api: Api, part: str) -> None:
    consent, sign = world.grant(), signer(world.institution.signing_key)
    covered = '"@method" "@target-uri" "content-digest" "idempotency-key"'.replace(part, "")
    refused = forge(api, wanted(api, consent), sign, covered=covered)
    assert code(refused) == "authentication"
    if "digest" in part:
        assert said(refused)["detail"].startswith("content-digest: expected it to be covered")
    else:
        assert said(refused)["detail"].endswith(f"expected {part[1:-1]} to be covered")
    assert world.states() == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("created", None),
        ("nonce", None),
        ("keyid", None),
        ("nonce", '"short"'),
        ("nonce", f'"{"x" * 201}"'),
        ("nonce", "1234567890123456"),
        ("created", '"1789560000"'),
        ("created", "1789560000.0"),
        ("created", "-1"),
        ("created", "999999999999999"),
        ("expires", "1"),
        ("expires", '"never"'),
        ("context", "1"),
        ("keyid", '"#"'),
        ("keyid", '"bank-1"'),
        ("keyid", "bank-1"),
    ],
)
def test_a_signature_says_when_and_once_and_by_whom(world: World, api: Api, name: str, value: str | None) -> None:
    consent, sign = world.grant(), signer(world.institution.signing_key)
    changed = {"leave_out": name} if value is None else {name: value}
    answer = forge(api, wanted(api, consent), sign, **changed)
    assert answer.status_code == 401, answer.text
    assert world.states() == []


def kept_evidence(world: World) -> SignedRequest:
    """What the custodian can show of the last release."""
    row = world.custodian.journal.history()[-1]
    opening = open_json(row, {"kind": "release", "release": row.release_id}, world.custodian.keys)
    return SignedRequest.from_json(opening["request"])


TWICE: Mapping[str, Change] = {
    "two members": lambda m: with_headers(
        m,
        signature_input=f"{m.header('signature-input')}, {(m.header('signature-input') or '').replace('sig=', 'two=')}",
        signature=f"{m.header('signature')}, {(m.header('signature') or '').replace('sig=', 'two=')}",
    ),
    "two members of one name": lambda m: with_headers(m, signature=f"sig=:AAAA:, {m.header('signature')}"),
    "another member first": lambda m: with_headers(m, signature=f"a=:AAAA:, {m.header('signature')}"),
    "two inputs of one name": lambda m: with_headers(
        m, signature_input=f"{m.header('signature-input')}, {m.header('signature-input')}"
    ),
    "a parameter": lambda m: with_headers(m, signature=f"{m.header('signature')};a=:AAAA:"),
    "blanks": lambda m: with_headers(m, signature=f"  {m.header('signature')}  "),
    "no padding": lambda m: with_headers(
        m, signature=(m.header("signature") or "").replace("=:", "#", 1).replace("=", "").replace("#", "=:", 1)
    ),
}


@pytest.mark.parametrize("what", TWICE)
def test_nobody_can_make_a_request_that_is_let_in_and_cannot_be_shown_later(world: World, api: Api, what: str) -> None:
    consent = world.grant()
    signed = TWICE[what](api.signed(world.institution, wanted(api, consent)))
    answer = send_unchecked(api, signed)
    if answer.status_code == 200:
        verify_evidence(kept_evidence(world), world.institution.signing_key)
    else:
        assert code(answer) == "authentication"
        assert world.states() == []


def test_an_ed25519_key_signs_as_well(world: World, api: Api) -> None:
    who = Institution("bank-ed25519")
    key = OKPKey.generate_key("Ed25519", {"use": "sig"}, auto_kid=True)
    who.jwks = {"keys": [key.as_dict(private=True), who.sealing_key.as_dict(private=True)]}
    who.signing_key = key
    who.register(world.custodian)
    assert api.release(who, world.subject.grant(world.custodian, who)).status_code == 200
    verify_evidence(kept_evidence(world), key)
