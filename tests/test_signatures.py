"""HTTP Message Signatures: what is read is what was signed, by whom it says, to us, and can be shown to others."""

from __future__ import annotations

import base64
import hmac
import json
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from http_message_signatures import (
    HTTPMessageSigner,
    HTTPMessageVerifier,
    HTTPSignatureKeyResolver,
    InvalidSignature,
    algorithms,
)
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import ECKey, OKPKey

from ledger.devnet import node_binary
from ledger.errors import AuditError, AuthenticationError, LedgerError, MalformedError, StaleRequestError
from ledger.signatures import (
    FRESH_SECONDS,
    JWK,
    MAX_NONCE_LENGTH,
    MIN_NONCE_LENGTH,
    HttpRequest,
    HttpResponse,
    SignedRequest,
    algorithm_of,
    claimed_keyid,
    keyid_of,
    sign_request,
    sign_response,
    split_keyid,
    verify_evidence,
    verify_request,
    verify_response,
)

NOW: Final = 1_800_000_000
BANK: Final = "did:web:bank.example"
CUSTODIAN: Final = "0x44594101dda99d08F949750CfBBa1ec9c80cc281"
URL: Final = f"https://ledger.example/v1/consents/0x{'ab' * 32}/releases?dry=1&note=a%20b"
BODY: Final = b'{"purpose":"loan-origination","attributes":["age","job"]}'
NONCE: Final = "n-0123456789abcdef"
KEYS: Final[dict[str, JWK]] = {
    "P-256": ECKey.generate_key("P-256", {"use": "sig"}, auto_kid=True),
    "Ed25519": OKPKey.generate_key("Ed25519", {"use": "sig"}, auto_kid=True),
}
KEY: Final = KEYS["P-256"]
PARTS: Final = ("@method", "@target-uri", "idempotency-key", "content-digest")
REQUEST: Final = HttpRequest(
    method="POST", url=URL, headers={"Content-Type": "application/json", "Idempotency-Key": "k-1"}, body=BODY
)


def signed(key: JWK = KEY, *, at: int = NOW, nonce: str = NONCE, party_id: str = BANK, **changes: Any) -> HttpRequest:
    return sign_request(replace(REQUEST, **changes), party_id=party_id, key=key, at=at, nonce=nonce)


def verify(message: HttpRequest, key: JWK = KEY, *, now: int = NOW) -> SignedRequest:
    return verify_request(message, key, now=now)


def refused(message: HttpRequest, key: JWK = KEY, *, error: type[LedgerError] = AuthenticationError) -> None:
    with pytest.raises(LedgerError) as caught:
        verify(message, key)
    assert type(caught.value) is error
    # What was sent may be about a person: it is not said again.
    assert BODY.decode() not in str(caught.value)


def with_header(message: HttpRequest, name: str, change: Callable[[str], str]) -> HttpRequest:
    return replace(message, headers=message.headers | {name: change(message.headers[name])})


def without(message: HttpRequest, *names: str) -> HttpRequest:
    return replace(message, headers={name: value for name, value in message.headers.items() if name not in names})


class Keys(HTTPSignatureKeyResolver):
    """One key, or one secret, under whatever id."""

    def __init__(self, key: Any) -> None:
        self._key = key

    def resolve_public_key(self, key_id: str) -> Any:  # noqa: ARG002
        return self._key

    def resolve_private_key(self, key_id: str) -> Any:  # noqa: ARG002
        return self._key


def by_library(
    message: HttpRequest = REQUEST,
    *,
    key: JWK = KEY,
    parts: Sequence[str] = PARTS,
    at: int = NOW,
    body: bytes | None = BODY,
    **options: Any,
) -> HttpRequest:
    """Signed with the library and no more: also in ways that this code's own client never would."""
    made = replace(message, headers=dict(message.headers))
    options = {"key_id": keyid_of(BANK, key), "nonce": NONCE, "label": "sig"} | options
    signer = HTTPMessageSigner(signature_algorithm=algorithm_of(key), key_resolver=Keys(key.private_key))
    signer.sign(
        made,
        created=datetime.fromtimestamp(at, UTC),
        covered_component_ids=parts,
        body=body,
        **options,
    )
    return made


# ------------------------------------------------------------------------------------------------------------ requests


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_a_signed_request_is_taken_as_it_was_signed(key: JWK) -> None:
    message = signed(key)
    evidence = verify(message, key)
    assert (evidence.keyid, evidence.created, evidence.nonce) == (f"{BANK}#{key.kid}", NOW, NONCE)
    assert evidence.body == BODY
    lines = evidence.base.decode().split("\n")
    assert lines[:3] == ['"@method": POST', f'"@target-uri": {URL}', '"idempotency-key": k-1']
    assert lines[3] == f'"content-digest": sha-256=:{base64.b64encode(sha256(BODY).digest()).decode()}:'
    assert lines[4].startswith('"@signature-params": ("@method" "@target-uri" "idempotency-key" "content-digest");')


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_a_request_without_a_body_or_an_idempotency_key_needs_no_signature_over_them(key: JWK) -> None:
    message = sign_request(
        HttpRequest(method="GET", url="https://ledger.example/v1/consents"), party_id=BANK, key=key, at=NOW, nonce=NONCE
    )
    assert verify(message, key).body == b""
    refused(replace(message, body=BODY), key)
    refused(replace(message, headers=message.headers | {"Idempotency-Key": "k-1"}), key)


def test_signing_leaves_the_request_as_it_was_and_adds_three_headers() -> None:
    message = signed()
    assert set(message.headers) - set(REQUEST.headers) == {"Content-Digest", "Signature-Input", "Signature"}
    assert set(REQUEST.headers) == {"Content-Type", "Idempotency-Key"}


def test_who_signs_again_leaves_nothing_of_an_earlier_signature_however_its_headers_are_written() -> None:
    once = without(signed(nonce="of-the-first-signature-0"), "Content-Digest")
    loud = replace(once, headers={name.upper(): value for name, value in once.headers.items()})
    again = sign_request(loud, party_id=BANK, key=KEY, at=NOW, nonce=NONCE)
    assert {name.upper() for name in again.headers} == {*loud.headers, "CONTENT-DIGEST"}
    assert len(again.headers) == len(loud.headers) + 1
    assert verify(again).nonce == NONCE


def test_the_names_of_headers_are_the_same_in_any_case() -> None:
    message = signed()
    assert verify(replace(message, headers={name.upper(): value for name, value in message.headers.items()}))
    assert verify(replace(message, headers={name.lower(): value for name, value in message.headers.items()}))


def test_a_header_is_read_as_it_is_signed() -> None:
    spaced = HttpRequest(method="GET", url=URL, headers={"Idempotency-Key": " \tk-1 "})
    twice = HttpRequest(method="GET", url=URL, headers={"Idempotency-Key": "k-1", "idempotency-key": "k-2"})
    for message, value in ((spaced, "k-1"), (twice, "k-1, k-2")):
        evidence = verify(sign_request(message, party_id=BANK, key=KEY, at=NOW, nonce=NONCE))
        assert f'"idempotency-key": {value}\n' in evidence.base.decode()
        assert message.header("IDEMPOTENCY-KEY") == value
    assert spaced.header("idempotency") is None


@pytest.mark.parametrize(
    "message",
    [
        replace(REQUEST, url="/v1/consents"),
        replace(REQUEST, url="https://ledger.example/v1/päth"),
        replace(REQUEST, url="https://ledger.example/v1/a b"),
        replace(REQUEST, method="post"),
        replace(REQUEST, headers={"Idempotency-Key": "clé"}),
        replace(REQUEST, headers={"Idempotency-Key": "k\nContent-Type: text/html"}),
        replace(REQUEST, headers={"Content-Digest": "sha-256=:AAAA:"}),
    ],
    ids=lambda message: f"{message.method} {message.url[-10:]} {message.headers}",
)
def test_what_cannot_be_signed_is_malformed(message: HttpRequest) -> None:
    with pytest.raises(MalformedError):
        sign_request(message, party_id=BANK, key=KEY, at=NOW, nonce=NONCE)


# ------------------------------------------------------------------------------------------------------------- altered


ALTERATIONS: Final[dict[str, Callable[[HttpRequest], HttpRequest]]] = {
    "body": lambda message: replace(message, body=BODY.replace(b"age", b"job")),
    "body longer": lambda message: replace(message, body=BODY + b" "),
    "body gone": lambda message: replace(message, body=b""),
    "method": lambda message: replace(message, method="PUT"),
    "method in another case": lambda message: replace(message, method="post"),
    "path": lambda message: replace(message, url=URL.replace("ab", "cd", 1)),
    "path with a slash": lambda message: replace(message, url=URL.replace("?", "/?")),
    "path with dots": lambda message: replace(message, url=URL.replace("/v1/", "/v1/x/../")),
    "path encoded": lambda message: replace(message, url=URL.replace("/v1/", "/%761/")),
    "query": lambda message: replace(message, url=URL.replace("dry=1", "dry=0")),
    "query gone": lambda message: replace(message, url=URL.partition("?")[0]),
    "query in another order": lambda message: replace(message, url=URL.replace("dry=1&note=a%20b", "note=a%20b&dry=1")),
    "host": lambda message: replace(message, url=URL.replace("ledger.example", "other.example")),
    "scheme": lambda message: replace(message, url=URL.replace("https", "http")),
    "port": lambda message: replace(message, url=URL.replace("example/", "example:8443/")),
    "the port that it is anyway": lambda message: replace(message, url=URL.replace("example/", "example:443/")),
    "a name before the host": lambda message: replace(message, url=URL.replace("//", "//bank@")),
    "fragment": lambda message: replace(message, url=f"{URL}#/v1/consents/0x{'cd' * 32}/releases"),
    "no address": lambda message: replace(message, url="nonsense"),
    "idempotency key": lambda message: with_header(message, "Idempotency-Key", lambda _: "k-2"),
    "idempotency key twice": lambda message: replace(message, headers=message.headers | {"idempotency-key": "k-2"}),
    "idempotency key gone": lambda message: without(message, "Idempotency-Key"),
    "digest": lambda message: with_header(
        message, "Content-Digest", lambda _: f"sha-256=:{base64.b64encode(sha256(b'x').digest()).decode()}:"
    ),
    "digest of another kind": lambda message: with_header(
        message, "Content-Digest", lambda was: was.replace("256", "512")
    ),
    "digest gone": lambda message: without(message, "Content-Digest"),
    "a digest more": lambda message: with_header(message, "Content-Digest", lambda was: f"{was}, sha-512=:AAAA:"),
    "body and digest": lambda message: replace(
        with_header(
            message, "Content-Digest", lambda _: f"sha-256=:{base64.b64encode(sha256(b'{}').digest()).decode()}:"
        ),
        body=b"{}",
    ),
    "signature": lambda message: with_header(message, "Signature", lambda was: was.replace("sig=:", "sig=:AA", 1)),
    "signature empty": lambda message: with_header(message, "Signature", lambda _: "sig=::"),
    "signature as a text": lambda message: with_header(message, "Signature", lambda was: was.replace(":", '"')),
    "signature unpadded": lambda message: with_header(message, "Signature", lambda was: was.replace("==:", ":")),
    "signature with a parameter": lambda message: with_header(message, "Signature", lambda was: f"{was};x=1"),
    "signature gone": lambda message: without(message, "Signature"),
    "input gone": lambda message: without(message, "Signature-Input"),
    "all of it gone": lambda message: without(message, "Signature", "Signature-Input", "Content-Digest"),
    "created": lambda message: with_header(message, "Signature-Input", lambda was: was.replace(str(NOW), str(NOW + 1))),
    "created gone": lambda message: with_header(
        message, "Signature-Input", lambda was: was.replace(f";created={NOW}", "")
    ),
    "nonce": lambda message: with_header(message, "Signature-Input", lambda was: was.replace(NONCE, NONCE[::-1])),
    "nonce gone": lambda message: with_header(
        message, "Signature-Input", lambda was: was.replace(f';nonce="{NONCE}"', "")
    ),
    "keyid": lambda message: with_header(message, "Signature-Input", lambda was: was.replace(BANK, "did:web:other")),
    "keyid twice": lambda message: with_header(
        message, "Signature-Input", lambda was: f'{was};keyid="{BANK}#{KEY.kid}"'
    ),
    "keyid gone": lambda message: with_header(
        message, "Signature-Input", lambda was: was.replace(f';keyid="{BANK}#{KEY.kid}"', "")
    ),
    "an expiry more": lambda message: with_header(message, "Signature-Input", lambda was: f"{was};expires={NOW + 60}"),
    "alg": lambda message: with_header(
        message, "Signature-Input", lambda was: was.replace("ecdsa-p256-sha256", "ed25519")
    ),
    "alg gone": lambda message: with_header(
        message, "Signature-Input", lambda was: was.replace(';alg="ecdsa-p256-sha256"', "")
    ),
    "a part less": lambda message: with_header(
        message, "Signature-Input", lambda was: was.replace(' "idempotency-key"', "")
    ),
    "parts in another order": lambda message: with_header(
        message, "Signature-Input", lambda was: was.replace('"@method" "@target-uri"', '"@target-uri" "@method"')
    ),
    "other labels": lambda message: with_header(message, "Signature", lambda was: was.replace("sig=", "gis=")),
    "no structured field": lambda message: with_header(message, "Signature-Input", lambda was: was[:-1]),
}


@pytest.mark.parametrize("alter", ALTERATIONS.values(), ids=ALTERATIONS)
def test_an_altered_request_is_not_what_was_signed(alter: Callable[[HttpRequest], HttpRequest]) -> None:
    message = signed()
    assert alter(message) != message
    refused(alter(message))


def flipped(text: str, at: int, bit: int) -> str:
    """One bit of one character is another; what cannot stand in a header or an address is left out by the transport."""
    return text[:at] + chr(ord(text[at]) ^ (1 << bit)) + text[at + 1 :]


SIGNED: Final = {name: signed(key) for name, key in KEYS.items()}
CHANGEABLE: Final = ("method", "url", "body", "Idempotency-Key", "Content-Digest", "Signature-Input", "Signature")


@given(st.sampled_from(sorted(KEYS)), st.sampled_from(CHANGEABLE), st.integers(0, 10_000), st.integers(0, 6))
def test_any_bit_that_is_another_is_noticed(curve: str, what: str, at: int, bit: int) -> None:
    message = SIGNED[curve]
    if what == "body":
        place = at % len(BODY)
        altered = replace(message, body=BODY[:place] + bytes([BODY[place] ^ (1 << bit)]) + BODY[place + 1 :])
    elif what == "method":
        altered = replace(message, method=flipped(message.method, at % len(message.method), bit))
    elif what == "url":
        altered = replace(message, url=flipped(URL, at % len(URL), bit))
    else:
        altered = with_header(message, what, lambda was: flipped(was, at % len(was), bit))
    try:
        evidence = verify(altered, KEYS[curve])
    except AuthenticationError:
        return
    # The bits of base64's last character that stand for nothing: the bytes are the same.
    assert what in ("Content-Digest", "Signature")
    assert evidence.signature == verify(message, KEYS[curve]).signature


@given(st.sampled_from(CHANGEABLE), st.integers(0, 10_000), st.characters(codec="latin-1"))
def test_any_character_that_is_put_in_is_noticed(what: str, at: int, character: str) -> None:
    message = SIGNED["Ed25519"]

    def put_in(text: str) -> str:
        place = at % (len(text) + 1)
        return text[:place] + character + text[place:]

    if what == "body":
        altered = replace(message, body=put_in(BODY.decode()).encode("latin-1"))
    elif what == "method":
        altered = replace(message, method=put_in(message.method))
    elif what == "url":
        altered = replace(message, url=put_in(URL))
    else:
        altered = with_header(message, what, put_in)
    try:
        evidence = verify(altered, KEYS["Ed25519"])
    except AuthenticationError:
        return
    # White space around a header or where a structured field may have it, a zero before a number: read as the same.
    assert character in " \t" or (what, character) == ("Signature-Input", "0")
    assert what not in ("body", "method", "url")
    assert evidence == verify(message, KEYS["Ed25519"])


@given(st.text(max_size=300), st.text(max_size=300))
def test_no_headers_make_anything_else_than_a_refusal(given_input: str, given_signature: str) -> None:
    refused(replace(REQUEST, headers={"Signature-Input": given_input, "Signature": given_signature}))


@given(
    st.from_regex(
        r'sig=\(("@?[a-z-]{1,12}"(;(sf|bs|req|key="x"))? ?){0,4}\);created=[0-9]{1,16};keyid="b#k"', fullmatch=True
    )
)
def test_no_input_that_looks_like_one_makes_anything_else_than_a_refusal(given_input: str) -> None:
    refused(replace(REQUEST, headers={"Signature-Input": given_input, "Signature": "sig=:AAAA:"}))


@pytest.mark.parametrize("depth", [10, 100_000])
def test_a_header_without_end_is_refused(depth: int) -> None:
    for text in ("(" * depth, "sig=" + "(" * depth, f'sig=("@method"){";a" * depth};keyid="{BANK}#{KEY.kid}"'):
        refused(with_header(signed(), "Signature-Input", lambda _, text=text: text))  # type: ignore[misc]


# ---------------------------------------------------------------------------------------------------------------- keys


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_another_key_is_refused_even_under_the_right_id(key: JWK) -> None:
    strangers: list[JWK] = [
        ECKey.generate_key("P-256", {"kid": key.kid or ""}),
        OKPKey.generate_key("Ed25519", {"kid": key.kid or ""}),
    ]
    for stranger in strangers:
        refused(signed(stranger), key)
        refused(signed(key), stranger)


def test_a_key_is_found_by_what_the_request_says_and_the_request_is_not_believed() -> None:
    message = signed()
    assert claimed_keyid(message) == f"{BANK}#{KEY.kid}"
    assert split_keyid(claimed_keyid(message)) == (BANK, KEY.kid)
    assert split_keyid("a#b#c") == ("a#b", "c")
    forged = with_header(message, "Signature", lambda _: "sig=:AAAA:")
    assert claimed_keyid(forged) == f"{BANK}#{KEY.kid}"
    refused(forged)


@pytest.mark.parametrize("keyid", ["", "#", "bank", "bank#", "#kid"])
def test_a_keyid_that_names_no_party_and_key_is_refused(keyid: str) -> None:
    with pytest.raises(AuthenticationError):
        split_keyid(keyid)


@pytest.mark.parametrize("value", ["", "sig=()", 'sig=();keyid=""', 'sig=();keyid="a#b";keyid="c#d"', "x=();keyid=a#b"])
def test_a_request_that_claims_no_one_key_is_refused(value: str) -> None:
    with pytest.raises(AuthenticationError):
        claimed_keyid(HttpRequest(method="GET", url=URL, headers={"Signature-Input": value}))


@pytest.mark.parametrize("kind", ["P-384", "secp256k1", "Ed448", "X25519"])
def test_a_key_of_another_kind_signs_and_verifies_nothing(kind: str) -> None:
    key: JWK = ECKey.generate_key(kind) if kind[0] in "Ps" else OKPKey.generate_key(kind)  # type: ignore[arg-type]
    for act in (lambda: signed(key), lambda: verify(signed(), key)):
        with pytest.raises(MalformedError):
            act()


# ----------------------------------------------------------------------------------------------- what the key decides


def forged(parameters: str, signature: Callable[[bytes], bytes]) -> HttpRequest:
    """A request whose signature base and headers are put together by hand."""
    digest = f"sha-256=:{base64.b64encode(sha256(BODY).digest()).decode()}:"
    names = " ".join(f'"{part}"' for part in PARTS)
    said = f"({names});{parameters}"
    values = zip(PARTS, ("POST", URL, "k-1", digest), strict=True)
    base = "\n".join([*(f'"{part}": {value}' for part, value in values), f'"@signature-params": {said}'])
    encoded = base64.b64encode(signature(base.encode())).decode()
    headers = {"Content-Digest": digest, "Signature-Input": f"sig={said}", "Signature": f"sig=:{encoded}:"}
    return replace(REQUEST, headers=REQUEST.headers | headers)


def parameters(key: JWK, **changes: str) -> str:
    named = {"created": str(NOW), "keyid": f'"{BANK}#{key.kid}"', "nonce": f'"{NONCE}"'} | changes
    return ";".join(f"{name}={value}" for name, value in named.items() if value)


def properly(key: JWK) -> Callable[[bytes], bytes]:
    return lambda base: bytes(algorithm_of(key)(private_key=key.private_key).sign(base))


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_a_request_put_together_by_hand_is_taken_with_or_without_alg(key: JWK) -> None:
    assert verify(forged(parameters(key), properly(key)), key)
    alg = f'"{algorithm_of(key).algorithm_id}"'
    assert verify(forged(parameters(key, alg=alg), properly(key)), key)


@pytest.mark.parametrize("alg", ["hmac-sha256", "rsa-v1_5-sha256", "ecdsa-p384-sha384", "none", "", "ED25519"])
@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_an_algorithm_that_is_not_the_keys_is_refused_although_the_signature_is_good(key: JWK, alg: str) -> None:
    refused(forged(parameters(key, alg=f'"{alg}"'), properly(key)), key)


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_the_algorithm_of_the_other_kind_of_key_is_refused(key: JWK) -> None:
    (other,) = [each for each in KEYS.values() if each is not key]
    alg = f'"{algorithm_of(other).algorithm_id}"'
    for sign in (properly(key), properly(other)):
        refused(forged(parameters(key, alg=alg), sign), key)
    refused(forged(parameters(key), properly(other)), key)


@pytest.mark.parametrize("alg", ['"hmac-sha256"', ""])
@pytest.mark.parametrize("form", ["PEM", "DER", "JSON", "x"])
@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_the_public_key_is_no_shared_secret(key: JWK, form: str, alg: str) -> None:
    # The classic: a MAC, keyed with what everyone has.
    public = key.as_dict(private=False)
    secret = {
        "PEM": key.as_pem(private=False),
        "DER": key.as_der(private=False),
        "JSON": json.dumps(public).encode(),
        "x": base64.urlsafe_b64decode(f"{public['x']}=="),
    }[form]
    refused(forged(parameters(key, alg=alg), lambda base: hmac.digest(secret, base, "sha256")), key)


@pytest.mark.parametrize(
    "signature", [b"", bytes(64), bytes(63), bytes(65), b"\xff" * 64, bytes(31) + b"\1" + bytes(32)]
)
@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_no_made_up_signature_passes(key: JWK, signature: bytes) -> None:
    refused(forged(parameters(key), lambda _: signature), key)


def test_a_signature_in_der_is_not_the_one_of_the_standard() -> None:
    ec = algorithms.ECDSA_P256_SHA256
    message = forged(parameters(KEY), properly(KEY))
    assert verify(message)
    raw = base64.b64decode(message.headers["Signature"][5:-1])
    # The prefix of a DER sequence of two integers of 32 bytes each.
    der = b"\x30\x44\x02\x20" + raw[:32] + b"\x02\x20" + raw[32:]
    assert ec.algorithm_id == "ecdsa-p256-sha256"
    refused(with_header(message, "Signature", lambda _: f"sig=:{base64.b64encode(der).decode()}:"))


# ------------------------------------------------------------------------------------------- what a signature must say


@pytest.mark.parametrize("left_out", PARTS)
def test_a_part_that_is_not_covered_is_not_signed(left_out: str) -> None:
    parts = [part for part in PARTS if part != left_out]
    message = by_library(parts=parts, body=None if left_out == "content-digest" else BODY)
    if left_out == "content-digest":
        # Sent along, and not signed.
        digest = f"sha-256=:{base64.b64encode(sha256(BODY).digest()).decode()}:"
        message = replace(message, headers=message.headers | {"Content-Digest": digest})
    refused(message)


@pytest.mark.parametrize("instead", ["@authority", "@path", "@request-target", "@scheme", "@query"])
def test_a_target_that_is_covered_in_part_is_not_the_target(instead: str) -> None:
    refused(by_library(parts=["@method", instead, "idempotency-key"]))


@pytest.mark.parametrize("instead", ['"idempotency-key";bs', '"content-digest";sf', '"content-digest";key="sha-256"'])
def test_a_header_that_is_covered_in_another_form_is_not_taken_for_it(instead: str) -> None:
    name = instead.split('"')[1]
    message = sign_request(REQUEST, party_id=BANK, key=KEY, at=NOW, nonce=NONCE)
    bare = without(message, "Signature", "Signature-Input")
    parts = [instead if part == name else part for part in PARTS]
    refused(by_library(bare, parts=parts, use_existing_digest=True))
    assert verify(by_library(bare, use_existing_digest=True))


def test_more_than_must_be_covered_may_be_covered() -> None:
    message = by_library(parts=[*PARTS, "content-type", "@authority"])
    assert b'"content-type": application/json\n' in verify(message).base
    refused(with_header(message, "Content-Type", lambda _: "text/html"))


def test_a_request_with_two_signatures_is_refused_though_both_are_good() -> None:
    once = by_library()
    other = KEYS["Ed25519"]
    for key, label in ((KEY, "two"), (other, "two"), (other, "asig")):
        twice = replace(once, headers=dict(once.headers))
        signer = HTTPMessageSigner(signature_algorithm=algorithm_of(key), key_resolver=Keys(key.private_key))
        signer.sign(
            twice,
            key_id=keyid_of(BANK, key),
            created=datetime.fromtimestamp(NOW, UTC),
            nonce=NONCE,
            label=label,
            covered_component_ids=PARTS,
            append_if_signature_exists=True,
            body=BODY,
            use_existing_digest=True,
        )
        refused(twice)
        refused(twice, key)
    # Neither the second label, nor the second header of that name, is passed over.
    refused(replace(once, headers=once.headers | {"signature-input": once.headers["Signature-Input"]}))
    refused(replace(once, headers=once.headers | {"signature": once.headers["Signature"]}))


@pytest.mark.parametrize(
    "nonce",
    [
        None,
        "",
        "n" * (MIN_NONCE_LENGTH - 1),
        "n" * (MAX_NONCE_LENGTH + 1),
    ],
)
def test_a_nonce_that_is_missing_too_short_or_too_long_is_refused(nonce: str | None) -> None:
    refused(by_library(nonce=nonce))


@pytest.mark.parametrize("nonce", ["n" * MIN_NONCE_LENGTH, "n" * MAX_NONCE_LENGTH, 'a";keyid="b#c";x="1234', "\\" * 16])
def test_a_nonce_is_any_text_and_does_not_pass_for_another_parameter(nonce: str) -> None:
    evidence = verify(by_library(nonce=nonce))
    assert (evidence.nonce, evidence.keyid) == (nonce, f"{BANK}#{KEY.kid}")
    verify_evidence(evidence, KEY)


@pytest.mark.parametrize("offset", [-FRESH_SECONDS - 1, FRESH_SECONDS + 1, -(10**9), 10**9])
def test_a_request_signed_too_long_ago_or_in_the_future_is_stale(offset: int) -> None:
    refused(signed(at=NOW + offset), error=StaleRequestError)


@pytest.mark.parametrize("offset", [-FRESH_SECONDS, 0, FRESH_SECONDS])
def test_a_request_within_the_tolerance_is_fresh(offset: int) -> None:
    assert verify(signed(at=NOW + offset)).created == NOW + offset


@pytest.mark.parametrize("created", ["", f'"{NOW}"', f"{NOW}.0", "?1", "999999999999999"])
def test_a_time_of_signing_that_is_none_is_refused(created: str) -> None:
    message = forged(parameters(KEY, created=created), properly(KEY))
    with pytest.raises(AuthenticationError):
        verify(message)


@pytest.mark.parametrize(("expires", "fresh"), [(NOW - 1, False), (NOW, False), (NOW + 1, True)])
def test_a_signature_ends_when_it_says_so(expires: int, fresh: bool) -> None:
    message = forged(parameters(KEY, expires=str(expires)), properly(KEY))
    if fresh:
        assert verify(message)
    else:
        refused(message, error=StaleRequestError)


# ------------------------------------------------------------------------------------------------------------ evidence


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_evidence_can_be_kept_and_shown_to_a_third_party(key: JWK) -> None:
    evidence = verify(signed(key), key)
    kept = json.loads(json.dumps(evidence.as_json()))
    assert SignedRequest.from_json(kept) == evidence
    verify_evidence(SignedRequest.from_json(kept), key)
    assert evidence.digest() == "0x" + sha256(evidence.base).hexdigest()


def test_the_digest_is_known_to_the_signer_and_another_for_another_question_or_nonce() -> None:
    digests = {
        verify(message).digest()
        for message in (signed(), signed(), signed(nonce=NONCE[::-1]), signed(body=b"{}"), signed(at=NOW + 1))
    }
    # Two signatures of the same are the same question: ECDSA's own chance does not count.
    assert len(digests) == 4


def test_evidence_without_a_body_is_evidence_too() -> None:
    message = sign_request(HttpRequest(method="GET", url=URL, headers={}), party_id=BANK, key=KEY, at=NOW, nonce=NONCE)
    verify_evidence(verify(message), KEY)


EVIDENCE: Final = verify(signed())
FALSIFIED: Final[dict[str, dict[str, Any]]] = {
    "keyid": {"keyid": f"did:web:other#{KEY.kid}"},
    "created": {"created": NOW + 1},
    "nonce": {"nonce": NONCE[::-1]},
    "body": {"body": BODY.replace(b"age", b"job")},
    "no body": {"body": b""},
    "base": {"base": EVIDENCE.base.replace(b"POST", b"PUT")},
    "base with a line more": {"base": b'"x": y\n' + EVIDENCE.base},
    "base with a line less": {"base": EVIDENCE.base.partition(b"\n")[2]},
    "base with two of a line": {"base": b'"@method": PUT\n' + EVIDENCE.base},
    "base without its end": {"base": EVIDENCE.base.rpartition(b"\n")[0]},
    "no base": {"base": b""},
    "nonsense": {"base": b"\xff\xfe"},
    "signature": {"signature": EVIDENCE.signature[::-1]},
    "no signature": {"signature": b""},
}


@pytest.mark.parametrize("change", FALSIFIED.values(), ids=FALSIFIED)
def test_falsified_evidence_proves_nothing(change: dict[str, Any]) -> None:
    verify_evidence(EVIDENCE, KEY)
    with pytest.raises(AuditError):
        verify_evidence(replace(EVIDENCE, **change), KEY)


def test_every_field_of_the_evidence_is_among_the_falsified() -> None:
    assert {field.name for field in fields(SignedRequest)} == {name for change in FALSIFIED.values() for name in change}


def test_evidence_of_one_key_is_none_of_another() -> None:
    for stranger in (KEYS["Ed25519"], ECKey.generate_key("P-256", {"kid": KEY.kid or ""})):
        with pytest.raises(AuditError):
            verify_evidence(EVIDENCE, stranger)


@given(st.integers(0, len(EVIDENCE.base) - 1), st.integers(0, 7))
def test_any_bit_of_kept_evidence_that_is_another_is_noticed(at: int, bit: int) -> None:
    base = bytearray(EVIDENCE.base)
    base[at] ^= 1 << bit
    with pytest.raises(AuditError):
        verify_evidence(replace(EVIDENCE, base=bytes(base)), KEY)


@pytest.mark.parametrize(
    "change",
    [
        *({name: ...} for name in EVIDENCE.as_json() if name != "version"),
        {"created": "soon"},
        {"created": None},
        {"signature": "?"},
        {"signature": 7},
        {"body": "?"},
        {"body": None},
    ],
    ids=str,
)
def test_what_is_no_evidence_is_malformed(change: dict[str, Any]) -> None:
    kept = {name: value for name, value in (EVIDENCE.as_json() | change).items() if value is not ...}
    with pytest.raises(MalformedError) as caught:
        SignedRequest.from_json(kept)
    assert caught.value.field == "evidence"


# ----------------------------------------------------------------------------------------------------------- responses


CUSTODIANS: Final = ECKey.generate_key("P-256", {"use": "sig", "alg": "ES256"}, auto_kid=True)
ANSWER: Final = b'{"release":"0x01"}'


def answered(request: HttpRequest, *, key: JWK = CUSTODIANS, party_id: str = CUSTODIAN, at: int = NOW) -> HttpResponse:
    response = HttpResponse(status_code=201, headers={"Content-Type": "application/json"}, body=ANSWER, request=request)
    return sign_response(response, party_id=party_id, key=key, at=at)


def check(response: HttpResponse) -> None:
    verify_response(response, party_id=CUSTODIAN, key=CUSTODIANS)


@pytest.mark.parametrize("body", [ANSWER, b""])
def test_a_response_is_the_custodians_and_to_this_request(body: bytes) -> None:
    request = signed()
    response = HttpResponse(status_code=201, headers={"X-Other": "1"}, body=body, request=request)
    done = sign_response(response, party_id=CUSTODIAN, key=CUSTODIANS, at=NOW)
    check(done)
    assert set(done.headers) - set(response.headers) == {"Content-Digest", "Signature-Input", "Signature"}


@pytest.mark.parametrize(
    "change",
    [
        {"status_code": 200},
        {"body": ANSWER + b" "},
        {"body": b""},
        {"request": signed()},
        {"request": signed(nonce=NONCE[::-1])},
        {"request": replace(signed(), url=URL.replace("ab", "cd", 1))},
        {"request": REQUEST},
        {"headers": {}},
    ],
    ids=["status", "body", "no body", "signed again", "another nonce", "another target", "unsigned", "unsigned answer"],
)
def test_a_response_to_another_request_or_an_altered_one_is_refused(change: dict[str, Any]) -> None:
    response = answered(signed())
    check(response)
    with pytest.raises(AuditError):
        check(replace(response, **change))


@pytest.mark.parametrize("name", ["Content-Digest", "Signature-Input", "Signature"])
def test_a_response_without_a_part_of_its_signature_is_refused(name: str) -> None:
    response = answered(signed())
    left = {key: value for key, value in response.headers.items() if key != name}
    with pytest.raises(AuditError):
        check(replace(response, headers=left))


def test_a_response_of_somebody_else_is_refused() -> None:
    stranger = ECKey.generate_key("P-256", {"kid": CUSTODIANS.kid or ""})
    for response in (answered(signed(), key=stranger), answered(signed(), party_id=BANK)):
        with pytest.raises(AuditError):
            check(response)


def test_a_signed_response_to_an_unsigned_request_proves_nothing_to_who_signs_theirs() -> None:
    response = answered(REQUEST)
    with pytest.raises(AuditError, match="does not cover"):
        check(response)
    with pytest.raises(AuditError):
        check(replace(response, request=signed()))


@pytest.mark.parametrize("left_out", ["@status", '"@target-uri";req', '"signature";req', "content-digest"])
def test_a_response_that_does_not_cover_what_binds_it_is_refused(left_out: str) -> None:
    parts = [part for part in ("@status", '"@target-uri";req', '"signature";req') if part != left_out]
    # With a body it would not even pass for signed.
    body = b"" if left_out == "content-digest" else ANSWER
    response = HttpResponse(status_code=201, headers={}, body=body, request=signed())
    signer = HTTPMessageSigner(signature_algorithm=algorithm_of(CUSTODIANS), key_resolver=Keys(CUSTODIANS.private_key))
    signer.sign(
        response,
        key_id=keyid_of(CUSTODIAN, CUSTODIANS),
        created=datetime.fromtimestamp(NOW, UTC),
        label="sig",
        covered_component_ids=parts,
        body=body or None,
    )
    with pytest.raises(AuditError, match="does not cover"):
        check(response)


@pytest.mark.parametrize("url", ["nonsense", "https://ledger.example/v1/ä"])
def test_a_response_to_what_cannot_be_signed_is_not_signed(url: str) -> None:
    with pytest.raises(MalformedError):
        answered(HttpRequest(method="GET", url=url))


# -------------------------------------------------------------------------------------------------- without this code

# RFC 9421, appendix B: test-key-ed25519 (B.1.4), test-key-ecc-p256 (B.1.3) and the messages of B.2.
RFC_ED25519: Final = b"""-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAJrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=
-----END PUBLIC KEY-----
"""
RFC_P256: Final = b"""-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEqIVYZVLCrPZHGHjP17CTW0/+D9Lf
w0EkjqF7xB4FivAxzic30tMM4GF+hR6Dxh71Z50VGGdldkkDXZCnTNnoXQ==
-----END PUBLIC KEY-----
"""
RFC_REQUEST: Final = HttpRequest(
    method="POST",
    url="https://example.com/foo?param=Value&Pet=dog",
    headers={
        "Host": "example.com",
        "Date": "Tue, 20 Apr 2021 02:07:55 GMT",
        "Content-Type": "application/json",
        "Content-Digest": (
            "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:"
        ),
        "Content-Length": "18",
    },
    body=b'{"hello": "world"}',
)
RFC_B26: Final = {
    "Signature-Input": (
        'sig-b26=("date" "@method" "@path" "@authority" "content-type" "content-length")'
        ';created=1618884473;keyid="test-key-ed25519"'
    ),
    "Signature": "sig-b26=:wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==:",
}
RFC_B24: Final = {
    "Signature-Input": (
        'sig-b24=("@status" "content-type" "content-digest" "content-length")'
        ';created=1618884473;keyid="test-key-ecc-p256"'
    ),
    "Signature": "sig-b24=:wNmSUAhwb5LxtOtOpNa6W5xj067m5hFrj0XQ4fvpaCLx0NKocgPquLgyahnzDnDAUy5eCdlYUEkLIj+32oiasw==:",
}
RFC_RESPONSE: Final = HttpResponse(
    status_code=200,
    headers={
        "Date": "Tue, 20 Apr 2021 02:07:56 GMT",
        "Content-Type": "application/json",
        "Content-Digest": (
            "sha-512=:mEWXIS7MaLRuGgxOBdODa3xqM1XdEvxoYhvlCFJ41QJgJc4GTsPp29l5oGX69wWdXymyU0rjJuahq4l5aGgfLQ==:"
        ),
        "Content-Length": "23",
    },
    body=b'{"message": "good dog"}',
    request=RFC_REQUEST,
)


class Undated(HTTPMessageVerifier):
    """The vectors are of 2021."""

    def validate_created_and_expires(self, sig_input: Any, max_age: Any = None) -> None:
        """Whenever."""


@pytest.mark.parametrize(
    ("message", "headers", "pem", "algorithm"),
    [
        (RFC_REQUEST, RFC_B26, RFC_ED25519, algorithms.ED25519),
        (RFC_RESPONSE, RFC_B24, RFC_P256, algorithms.ECDSA_P256_SHA256),
    ],
    ids=["B.2.6 ed25519", "B.2.4 ecdsa-p256-sha256"],
)
def test_the_library_below_agrees_with_the_examples_of_the_standard(
    message: HttpRequest | HttpResponse, headers: dict[str, str], pem: bytes, algorithm: type[Any]
) -> None:
    made = replace(message, headers=message.headers | headers)
    verifier = Undated(signature_algorithm=algorithm, key_resolver=Keys(load_pem_public_key(pem)))
    (result,) = verifier.verify(made, max_age=None)
    assert result.parameters["created"] == 1618884473
    spoilt = replace(made, headers=made.headers | {"Content-Type": "text/html"})
    with pytest.raises(InvalidSignature):
        verifier.verify(spoilt, max_age=None)


def test_the_example_of_the_standard_is_refused_here_because_it_leaves_open_what_is_required() -> None:
    key = OKPKey.import_key(RFC_ED25519)
    message = replace(RFC_REQUEST, headers=RFC_REQUEST.headers | RFC_B26)
    with pytest.raises(AuthenticationError):
        verify_request(message, key, now=1618884473)


NODE_CLIENT: Final = Path(__file__).parent / "clients" / "http_signature.mjs"


def by_node(given_: dict[str, Any]) -> dict[str, Any]:
    """Node's own crypto and nothing else, from what RFC 9421 and this project's documentation say."""
    done = subprocess.run(
        [node_binary(), str(NODE_CLIENT)],
        input=json.dumps(given_),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_a_request_signed_by_another_implementation_is_taken(key: JWK) -> None:
    made = by_node(
        {
            "sign": {"method": "POST", "url": URL, "headers": REQUEST.headers, "body": BODY.decode()},
            "keyid": f"{BANK}#{key.kid}",
            "key": key.as_dict(private=True),
            "created": NOW,
            "nonce": NONCE,
        }
    )
    message = replace(REQUEST, headers=made["headers"])
    evidence = verify(message, key)
    # It knows beforehand which requestHash will be on the log.
    assert evidence.digest() == made["requestHash"]
    verify_evidence(evidence, key)
    refused(replace(message, body=b"{}"), key)


@pytest.mark.parametrize("altered", [False, True])
def test_another_implementation_verifies_a_response(altered: bool) -> None:
    response = answered(signed())
    made = by_node(
        {
            "verify": {
                "status": response.status_code,
                "headers": response.headers,
                "body": ANSWER.decode() + " " * altered,
            },
            "request": {"url": URL, "headers": response.request.headers},
            "key": CUSTODIANS.as_dict(private=False),
        }
    )
    assert made == {"valid": not altered, "keyid": f"{CUSTODIAN}#{CUSTODIANS.kid}"}
