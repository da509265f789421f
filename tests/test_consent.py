"""Consents: what was signed is what counts, byte for byte, and every "no" has its reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Final

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_utils import keccak
from hypothesis import given
from hypothesis import strategies as st

from ledger.consent import (
    MAX_COUNT,
    MAX_TIME,
    NO_ADDRESS,
    REASON_ERRORS,
    ZERO32,
    AccessRequest,
    Address,
    ConsentGrant,
    ConsentState,
    Domain,
    Hex32,
    Reason,
    State,
    Terms,
    authorize,
    check_form,
    hex32_of,
    parse_address,
    parse_hex32,
    require_in_force,
)
from ledger.errors import (
    AttributeNotConsentedError,
    ConsentError,
    CustodianMissingError,
    DailyLimitError,
    DisputedError,
    ErasedError,
    InvalidSignatureError,
    InvalidWindowError,
    LedgerError,
    MalformedError,
    NoAccessAllowedError,
    PurposeMismatchError,
    WrongInstitutionError,
)
from ledger.typed_data import (
    HALF_ORDER,
    TYPES,
    consent_id_of,
    digest_of,
    grant_typed_data,
    outer_of,
    parse_grant,
    pause_typed_data,
    require_signer,
    revocation_typed_data,
    sign_typed_data,
    terms_hash,
)

VECTORS: Final[dict[str, Any]] = json.loads((Path(__file__).parent / "vectors/eip712.json").read_text(encoding="utf-8"))
SIGNED: Final[list[dict[str, Any]]] = [c for c in VECTORS["cases"] if c["typedData"]["primaryType"] != "AccessEntry"]
GRANTS: Final[list[dict[str, Any]]] = [c for c in SIGNED if "termsHash" in c]
KEY: Final = bytes.fromhex(VECTORS["privateKey"][2:])
SUBJECT: Final = Address(VECTORS["address"])
DOMAIN: Final = Domain(chain_id=31337, contract=Address("0x5FbDB2315678afecb367f032d93F642f64180aa3"))
CURVE_ORDER: Final = 2 * HALF_ORDER + 1
EVERY_CASE = pytest.mark.parametrize("case", SIGNED, ids=lambda case: case["name"])
EVERY_GRANT = pytest.mark.parametrize("case", GRANTS, ids=lambda case: case["name"])


def the_message() -> dict[str, Any]:
    """The first vector's grant, to be changed at will."""
    message: dict[str, Any] = deepcopy(GRANTS[0]["typedData"]["message"])
    return message


def the_grant() -> ConsentGrant:
    return parse_grant(the_message())


def with_terms(**changes: Any) -> ConsentGrant:
    grant = the_grant()
    return replace(grant, terms=replace(grant.terms, **changes))


def refused(signature: bytes, *, digest: Hex32 | None = None, subject: Address = SUBJECT) -> None:
    with pytest.raises(LedgerError) as caught:
        require_signer(digest or consent_id_of(the_grant(), DOMAIN), signature, subject)
    assert type(caught.value) is InvalidSignatureError
    assert str(caught.value) == "signature: not the subject's over exactly this"


# ------------------------------------------------------------------------------------------------------- known answers


@EVERY_CASE
def test_digest_is_the_one_three_libraries_agree_on(case: dict[str, Any]) -> None:
    assert digest_of(case["typedData"]) == case["digest"]


@EVERY_CASE
def test_signature_is_the_one_three_libraries_made(case: dict[str, Any]) -> None:
    assert "0x" + sign_typed_data(case["typedData"], KEY).hex() == case["signature"]


@EVERY_CASE
def test_signature_of_the_vectors_is_the_subjects(case: dict[str, Any]) -> None:
    require_signer(case["digest"], bytes.fromhex(case["signature"][2:]), SUBJECT)


@EVERY_GRANT
def test_terms_hash_is_the_known_answer(case: dict[str, Any]) -> None:
    grant = parse_grant(case["typedData"]["message"])
    assert terms_hash(grant.terms) == case["termsHash"]
    assert outer_of(grant).terms_hash == case["termsHash"]


@EVERY_GRANT
def test_a_parsed_grant_is_what_was_signed(case: dict[str, Any]) -> None:
    grant = parse_grant(case["typedData"]["message"])
    assert grant.as_json() == case["typedData"]["message"]
    assert grant_typed_data(grant, DOMAIN) == case["typedData"]
    assert consent_id_of(grant, DOMAIN) == case["digest"]
    check_form(grant)


def test_outer_grant_repeats_every_field_that_the_contract_sees() -> None:
    grant = the_grant()
    outer = outer_of(grant)
    for name in ("subject", "custodian", "valid_from", "expires_at", "max_accesses"):
        assert getattr(outer, name) == getattr(grant, name)


@pytest.mark.parametrize("case", [c for c in SIGNED if c not in GRANTS], ids=lambda case: case["name"])
def test_revocations_and_pauses_are_built_as_in_the_vectors(case: dict[str, Any]) -> None:
    message = case["typedData"]["message"]
    if case["typedData"]["primaryType"] == "ConsentRevocation":
        built = revocation_typed_data(message["consentIds"], DOMAIN)
    else:
        sequence, paused = message["sequence"], message["paused"]
        built = pause_typed_data(message["consentId"], paused=paused, sequence=sequence, domain=DOMAIN)
    assert built == case["typedData"]


def test_the_digest_follows_from_the_outer_fields_and_the_terms_hash_alone() -> None:
    # What the contract does: it never sees the terms, and must come to the same id.
    case = GRANTS[0]
    grant = parse_grant(case["typedData"]["message"])
    outer_type = (
        "ConsentGrant(Terms terms,address subject,address custodian,uint64 validFrom,uint64 expiresAt,"
        "uint32 maxAccesses)"
        "Terms(string institution,string institutionName,string purpose,string[] attributes,uint32 accessesPerDay,"
        "uint32 retentionDays,bytes32 noticeHash,bytes32 replaces,bytes32 salt)"
    )
    words = [
        keccak(text=outer_type),
        bytes.fromhex(terms_hash(grant.terms)[2:]),
        bytes.fromhex(grant.subject[2:]).rjust(32, b"\0"),
        bytes.fromhex(grant.custodian[2:]).rjust(32, b"\0"),
        *(number.to_bytes(32) for number in (grant.valid_from, grant.expires_at, grant.max_accesses)),
    ]
    struct_hash = keccak(b"".join(words))
    assert "0x" + struct_hash.hex() == case["structHash"]
    header = encode_typed_data(full_message=case["typedData"]).header
    assert "0x" + keccak(b"\x19\x01" + header + struct_hash).hex() == case["digest"]


# ------------------------------------------------------------------------------------------------------------- tamper


def _tampered(value: object) -> list[Any]:
    """What someone might put in place of a signed value."""
    match value:
        case bool():
            return [not value]
        case int():
            return [value + 1, value ^ 1 << 31, 0 if value else 7]
        case list():
            changes = [[*value, "0x" + "ab" * 32], value[:-1], value[::-1], [*value, *value[-1:]]]
            return [change for change in changes if change != value]
        case str() if value.startswith("0x"):
            return [f"0x{int(value, 16) ^ 1 << bit:0{len(value) - 2}x}" for bit in (0, 77, 4 * len(value) - 9)]
        case _:
            return [f"{value} ", f"{value}x", f"\u00a0{value}", ""]


def _leaves(message: dict[str, Any], path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    return [
        leaf
        for name, value in message.items()
        for leaf in (_leaves(value, (*path, name)) if isinstance(value, dict) else [(*path, name)])
    ]


def _replaced(payload: dict[str, Any], path: tuple[str, ...], value: object) -> dict[str, Any]:
    changed = deepcopy(payload)
    place = changed
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    return changed


def _tamper_cases() -> list[Any]:
    cases = []
    for case in SIGNED:
        payload = case["typedData"]
        for path in _leaves(payload["message"], ("message",)) + _leaves(payload["domain"], ("domain",)):
            value: Any = payload
            for name in path:
                value = value[name]
            for number, change in enumerate(_tampered(value)):
                cases.append(pytest.param(case, path, change, id=f"{case['name']}-{'.'.join(path)}-{number}"))
    return cases


@pytest.mark.parametrize(("case", "path", "value"), _tamper_cases())
def test_changing_any_signed_field_invalidates_the_signature(
    case: dict[str, Any], path: tuple[str, ...], value: object
) -> None:
    digest = digest_of(_replaced(case["typedData"], path, value))
    assert digest != case["digest"]
    refused(bytes.fromhex(case["signature"][2:]), digest=digest)


def test_every_field_of_every_signed_type_is_tampered_with() -> None:
    tampered = {path[-1] for case in SIGNED for path in _leaves(case["typedData"]["message"])}
    assert tampered == {member["name"] for members in TYPES.values() for member in members} - {"terms"}


def test_moving_text_from_one_field_into_the_next_is_another_consent() -> None:
    ids = {
        consent_id_of(with_terms(institution=left, institution_name=right), DOMAIN)
        for left, right in (("ab", "c"), ("a", "bc"), ("abc", ""), ("", "abc"))
    }
    assert len(ids) == 4


def test_order_of_attributes_is_part_of_what_was_signed() -> None:
    one, other = with_terms(attributes=("a", "b")), with_terms(attributes=("b", "a"))
    joined = with_terms(attributes=("ab",))
    assert len({terms_hash(grant.terms) for grant in (one, other, joined)}) == 3


@pytest.mark.parametrize(
    "elsewhere",
    [replace(DOMAIN, chain_id=1), replace(DOMAIN, contract=Address("0x" + "11" * 20))],
    ids=["foreign chain", "other contract"],
)
def test_a_signature_for_another_chain_or_contract_is_worth_nothing_here(elsewhere: Domain) -> None:
    grant = the_grant()
    foreign = sign_typed_data(grant_typed_data(grant, elsewhere), KEY)
    require_signer(consent_id_of(grant, elsewhere), foreign, SUBJECT)
    refused(foreign)


def test_a_pause_is_not_a_resume_and_a_revocation_is_neither() -> None:
    consent_id = consent_id_of(the_grant(), DOMAIN)
    payloads = [
        pause_typed_data(consent_id, paused=True, sequence=1, domain=DOMAIN),
        pause_typed_data(consent_id, paused=False, sequence=1, domain=DOMAIN),
        pause_typed_data(consent_id, paused=False, sequence=2, domain=DOMAIN),
        revocation_typed_data([consent_id], DOMAIN),
        revocation_typed_data([consent_id, consent_id], DOMAIN),
        revocation_typed_data([], DOMAIN),
        grant_typed_data(the_grant(), DOMAIN),
    ]
    assert len({digest_of(payload) for payload in payloads}) == len(payloads)


# --------------------------------------------------------------------------------------------------------- signatures


def parts() -> tuple[int, int, int]:
    raw = bytes.fromhex(GRANTS[0]["signature"][2:])
    return int.from_bytes(raw[:32]), int.from_bytes(raw[32:64]), raw[64]


def rejoined(r: int, s: int, v: int) -> bytes:
    return r.to_bytes(32) + s.to_bytes(32) + bytes([v])


def test_the_signature_is_accepted_before_it_is_spoiled() -> None:
    require_signer(consent_id_of(the_grant(), DOMAIN), rejoined(*parts()), SUBJECT)


def test_the_high_s_twin_of_a_valid_signature_is_refused_although_it_recovers_the_subject() -> None:
    r, s, v = parts()
    twin = rejoined(r, CURVE_ORDER - s, 55 - v)
    digest = consent_id_of(the_grant(), DOMAIN)
    assert Account._recover_hash(bytes.fromhex(digest[2:]), signature=twin) == SUBJECT
    refused(twin)


@pytest.mark.parametrize("v", [v for v in range(256) if v != parts()[2]])
def test_no_other_v_is_accepted(v: int) -> None:
    r, s, _ = parts()
    refused(rejoined(r, s, v))


@pytest.mark.parametrize("length", [0, 1, 32, 63, 64, 66, 96, 130])
def test_a_signature_of_another_length_is_refused(length: int) -> None:
    refused((rejoined(*parts()) * 3)[:length])


def test_a_signature_with_a_byte_after_it_is_refused() -> None:
    refused(rejoined(*parts()) + b"\0")


@pytest.mark.parametrize("v", [27, 28])
@pytest.mark.parametrize("spoilt", [0, CURVE_ORDER, CURVE_ORDER + 1, 2**256 - 1])
@pytest.mark.parametrize("part", ["r", "s"])
def test_r_or_s_of_zero_or_beyond_the_curve_is_refused(part: str, spoilt: int, v: int) -> None:
    r, s, _ = parts()
    refused(rejoined(spoilt, s, v) if part == "r" else rejoined(r, spoilt, v))


def test_all_zeros_is_nobodys_signature_not_even_of_the_zero_account() -> None:
    for v in (27, 28):
        refused(rejoined(0, 0, v), subject=NO_ADDRESS)


def test_the_boundary_of_low_s_is_at_half_the_order() -> None:
    # Which s comes out cannot be chosen, so the two sides of the boundary are told apart by what is asked of them.
    r, _, v = parts()
    refused(rejoined(r, HALF_ORDER + 1, v))
    signer = Account._recover_hash(bytes(32), signature=rejoined(r, HALF_ORDER, v))
    require_signer(ZERO32, rejoined(r, HALF_ORDER, v), Address(signer))


def test_another_persons_signature_is_refused() -> None:
    refused(sign_typed_data(grant_typed_data(the_grant(), DOMAIN), keccak(text="someone else")))


def test_a_personal_message_signature_is_not_a_grant() -> None:
    # Otherwise a site could have people "log in" with bytes that are a consent.
    digest = consent_id_of(the_grant(), DOMAIN)
    prefixed = keccak(b"\x19Ethereum Signed Message:\n32" + bytes.fromhex(digest[2:]))
    refused(bytes(Account.unsafe_sign_hash(prefixed, KEY).signature))


@given(st.binary(min_size=0, max_size=80))
def test_no_bytes_make_anything_else_than_the_one_refusal(signature: bytes) -> None:
    refused(signature)


# -------------------------------------------------------------------------------------------------- reading what comes


NOT_TEXT: Final[list[Any]] = [None, 7, 1.5, True, [], {}, b"bytes"]
NOT_A_COUNT: Final[list[Any]] = [None, "7", "", 1.0, 1.5, float("nan"), True, False, -1, 2**256, [], {}, 1 + 0j]
NOT_HEX32: Final = [
    *NOT_TEXT,
    "",
    "0x",
    "00" * 32,
    "0x" + "00" * 31,
    "0x" + "00" * 33,
    "0x" + "0" * 63 + "g",
    "0x" + "0" * 63 + "\n",
    "0x" + "00" * 32 + "\n",
    " 0x" + "00" * 32,
    "0x" + "\uff10" * 64,
]
NOT_ADDRESS: Final = [
    *NOT_TEXT,
    "",
    "0x",
    SUBJECT[2:],
    SUBJECT[:-1],
    SUBJECT + "0",
    SUBJECT + "\n",
    SUBJECT.replace("A", "a", 1),
    SUBJECT.swapcase().replace("X", "x"),
    "0x" + "g" * 40,
    "vitalik.eth",
]
NOT_NAMES: Final = [None, "name", 7, {}, {"0": "name"}, [""], ["a", 7], ["a", None], [["a"]], [True], {"a"}, ["\ud800"]]
MALFORMED: Final[dict[str, list[Any]]] = {
    "address": NOT_ADDRESS,
    "bytes32": NOT_HEX32,
    "uint64": [*NOT_A_COUNT, 2**64],
    "uint32": [*NOT_A_COUNT, 2**32],
    "string": [*NOT_TEXT, "\ud800", "name\udfff"],
    "string[]": NOT_NAMES,
    "Terms": [None, 7, "terms", [], [1], True],
}


def _members() -> list[tuple[str, str]]:
    outer = [(member["name"], member["type"]) for member in TYPES["ConsentGrant"]]
    return outer + [(f"terms.{member['name']}", member["type"]) for member in TYPES["Terms"]]


def _malformed_cases() -> list[Any]:
    return [
        pytest.param(field, value, id=f"{field}-{number}")
        for field, kind in _members()
        for number, value in enumerate(MALFORMED[kind])
    ]


@pytest.mark.parametrize(("field", "value"), _malformed_cases())
def test_a_malformed_field_is_refused_by_name(field: str, value: object) -> None:
    message = _replaced(the_message(), tuple(field.split(".")), value)
    with pytest.raises(LedgerError) as caught:
        parse_grant(message)
    assert type(caught.value) is MalformedError
    assert caught.value.field == field
    assert caught.value.message.startswith(f"{field}: ")


@pytest.mark.parametrize("field", [field for field, _ in _members()])
def test_a_missing_field_is_refused_by_name(field: str) -> None:
    message = the_message()
    place = message["terms"] if field.startswith("terms.") else message
    del place[field.removeprefix("terms.")]
    with pytest.raises(MalformedError) as caught:
        parse_grant(message)
    assert caught.value.field == field


@pytest.mark.parametrize("field", ["nonce", "maxaccesses", "", "terms.forEver", "terms.Purpose", "terms.subject"])
def test_a_field_that_the_subject_did_not_sign_is_refused_by_name(field: str) -> None:
    message = the_message()
    place = message["terms"] if field.startswith("terms.") else message
    place[field.removeprefix("terms.")] = 1
    with pytest.raises(MalformedError) as caught:
        parse_grant(message)
    assert caught.value.field == field


def test_keys_that_are_no_text_are_refused() -> None:
    with pytest.raises(MalformedError):
        parse_grant(the_message() | {7: 7})


@pytest.mark.parametrize("message", [None, [], "grant", 7, True, [["terms", {}]]])
def test_what_is_no_object_is_no_grant(message: object) -> None:
    with pytest.raises(MalformedError) as caught:
        parse_grant(message)
    assert caught.value.field == "grant"


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=5,
)


@given(field=st.sampled_from([field for field, _ in _members()]), value=JSON_VALUES)
def test_whatever_stands_in_a_field_it_is_either_kept_as_it_is_or_refused(field: str, value: object) -> None:
    message = _replaced(the_message(), tuple(field.split(".")), value)
    try:
        grant = parse_grant(message)
    except MalformedError as refusal:
        assert str(refusal.field).startswith(field)  # noqa: PT017 - either outcome is right
    else:
        kept: Any = grant.as_json()
        for name in field.split("."):
            kept = kept[name]
        assert kept == value
        assert type(kept) is type(value)
        assert consent_id_of(grant, DOMAIN) != GRANTS[0]["digest"] or message == the_message()


def test_limits_of_numbers_are_accepted() -> None:
    message = the_message() | {"validFrom": 0, "expiresAt": 2**64 - 1, "maxAccesses": 2**32 - 1}
    grant = parse_grant(message)
    assert (grant.valid_from, grant.expires_at, grant.max_accesses) == (0, 2**64 - 1, 2**32 - 1)


def test_accounts_and_hashes_are_kept_in_one_form() -> None:
    assert parse_address(SUBJECT.lower(), "subject") == SUBJECT
    assert parse_address("0x" + SUBJECT[2:].upper(), "subject") == SUBJECT
    assert parse_hex32("0x" + "AB" * 32, "salt") == "0x" + "ab" * 32


@given(st.binary(min_size=32, max_size=32))
def test_32_bytes_survive_the_way_to_hex_and_back(raw: bytes) -> None:
    assert bytes.fromhex(parse_hex32(hex32_of(raw), "salt")[2:]) == raw


@pytest.mark.parametrize("length", [0, 31, 33])
def test_other_lengths_than_32_bytes_are_no_hash(length: int) -> None:
    with pytest.raises(ValueError, match="expected 32 bytes"):
        hex32_of(bytes(length))


@given(
    institution=st.text(min_size=1, max_size=20),
    name=st.text(min_size=1, max_size=20),
    attributes=st.lists(st.text(min_size=1, max_size=8), max_size=4),
    window=st.tuples(st.integers(0, MAX_TIME), st.integers(0, MAX_TIME)),
    counts=st.tuples(st.integers(0, MAX_COUNT), st.integers(0, MAX_COUNT), st.integers(0, MAX_COUNT)),
)
def test_any_grant_survives_the_way_to_json_and_back_with_the_same_id(
    institution: str,
    name: str,
    attributes: list[str],
    window: tuple[int, int],
    counts: tuple[int, int, int],
) -> None:
    grant = ConsentGrant(
        terms=replace(
            the_grant().terms,
            institution=institution,
            institution_name=name,
            attributes=tuple(attributes),
            accesses_per_day=counts[0],
            retention_days=counts[1],
        ),
        subject=SUBJECT,
        custodian=Address("0x" + "11" * 20),
        valid_from=window[0],
        expires_at=window[1],
        max_accesses=counts[2],
    )
    again = parse_grant(json.loads(json.dumps(grant.as_json())))
    assert again == grant
    assert consent_id_of(again, DOMAIN) == consent_id_of(grant, DOMAIN)


def test_nothing_of_a_consent_can_be_changed_after_it_was_made() -> None:
    grant = the_grant()
    for thing in (grant, grant.terms, outer_of(grant), DOMAIN, ConsentState()):
        for field in fields(thing):
            with pytest.raises(AttributeError):
                setattr(thing, field.name, None)


# --------------------------------------------------------------------------------------------------- zero means zero


@pytest.mark.parametrize(
    ("change", "error", "field"),
    [
        (lambda: replace(the_grant(), custodian=NO_ADDRESS), CustodianMissingError, "custodian"),
        (lambda: replace(the_grant(), expires_at=0), InvalidWindowError, "expiresAt"),
        (lambda: replace(the_grant(), valid_from=0, expires_at=0), InvalidWindowError, "expiresAt"),
        (lambda: replace(the_grant(), expires_at=the_grant().valid_from), InvalidWindowError, "expiresAt"),
        (lambda: replace(the_grant(), expires_at=the_grant().valid_from - 1), InvalidWindowError, "expiresAt"),
        (lambda: replace(the_grant(), expires_at=MAX_TIME + 1), InvalidWindowError, "expiresAt"),
        (lambda: replace(the_grant(), expires_at=2**64 - 1), InvalidWindowError, "expiresAt"),
        (lambda: replace(the_grant(), valid_from=-1), InvalidWindowError, "expiresAt"),
        (lambda: replace(the_grant(), max_accesses=0), NoAccessAllowedError, "maxAccesses"),
        (lambda: replace(the_grant(), max_accesses=-1), NoAccessAllowedError, "maxAccesses"),
        (lambda: replace(the_grant(), max_accesses=MAX_COUNT + 1), NoAccessAllowedError, "maxAccesses"),
        (lambda: with_terms(accesses_per_day=0), NoAccessAllowedError, "terms.accessesPerDay"),
        (lambda: with_terms(accesses_per_day=MAX_COUNT + 1), NoAccessAllowedError, "terms.accessesPerDay"),
        (lambda: with_terms(retention_days=-1), MalformedError, "terms.retentionDays"),
        (lambda: with_terms(retention_days=MAX_COUNT + 1), MalformedError, "terms.retentionDays"),
        (lambda: with_terms(institution=""), MalformedError, "terms.institution"),
        (lambda: with_terms(institution_name=""), MalformedError, "terms.institutionName"),
        (lambda: with_terms(purpose=""), MalformedError, "terms.purpose"),
        (lambda: with_terms(salt=ZERO32), MalformedError, "terms.salt"),
    ],
)
def test_a_grant_that_could_mean_for_ever_or_nothing_is_refused_by_field(
    change: Callable[[], ConsentGrant], error: type[LedgerError], field: str
) -> None:
    with pytest.raises(LedgerError) as caught:
        check_form(change())
    assert type(caught.value) is error
    assert caught.value.field == field


@pytest.mark.parametrize(
    "grant",
    [
        replace(the_grant(), valid_from=0, expires_at=1),
        replace(the_grant(), expires_at=MAX_TIME),
        replace(the_grant(), max_accesses=1),
        replace(the_grant(), max_accesses=MAX_COUNT),
        with_terms(accesses_per_day=1),
        with_terms(retention_days=0),
        with_terms(replaces=ZERO32, notice_hash=ZERO32),
    ],
)
def test_the_last_value_before_each_limit_is_accepted(grant: ConsentGrant) -> None:
    check_form(grant)


# ----------------------------------------------------------------------------------------------------------- authorize


def request_of(**changes: Any) -> AccessRequest:
    terms = the_grant().terms
    asked: dict[str, Any] = {
        "consent_id": ZERO32,
        "institution": terms.institution,
        "purpose": terms.purpose,
        "attributes": terms.attributes,
        "request_hash": ZERO32,
    }
    return AccessRequest(**asked | changes)


def test_exactly_what_was_consented_to_is_authorized_and_any_part_of_it_in_any_order() -> None:
    authorize(request_of(), the_grant(), used_today=0)
    authorize(request_of(attributes=("credit_limit",)), the_grant(), used_today=0)
    authorize(request_of(attributes=("credit_limit", "repayment_status")), the_grant(), used_today=0)
    authorize(request_of(attributes=("credit_limit",)), the_grant(), used_today=0, disputed=("repayment_status",))


REFUSALS: Final[list[tuple[type[LedgerError], str, dict[str, Any], dict[str, Any]]]] = [
    # In order of precedence; the request's fault, then the circumstances'.
    (WrongInstitutionError, "wrong_institution", {"institution": "did:web:other.example"}, {}),
    (ErasedError, "erased", {}, {"erased": True}),
    (PurposeMismatchError, "purpose_mismatch", {"purpose": "account-review"}, {}),
    (AttributeNotConsentedError, "attribute_not_consented", {"attributes": ("credit_limit", "age")}, {}),
    (DisputedError, "disputed", {}, {"disputed": ("credit_limit",)}),
    (DailyLimitError, "daily_limit", {}, {"used_today": 2}),
]


@pytest.mark.parametrize(("error", "code", "asked", "circumstances"), REFUSALS, ids=[row[1] for row in REFUSALS])
def test_every_refusal_has_its_reason(
    error: type[LedgerError], code: str, asked: dict[str, Any], circumstances: dict[str, Any]
) -> None:
    with pytest.raises(ConsentError) as caught:
        authorize(request_of(**asked), the_grant(), **{"used_today": 0} | circumstances)
    assert type(caught.value) is error
    assert caught.value.code == code


@pytest.mark.parametrize("first", range(len(REFUSALS)))
@pytest.mark.parametrize("second", range(len(REFUSALS)))
def test_of_two_refusals_the_earlier_in_the_table_is_given(first: int, second: int) -> None:
    asked = REFUSALS[first][2] | REFUSALS[second][2]
    circumstances = {"used_today": 0} | REFUSALS[first][3] | REFUSALS[second][3]
    with pytest.raises(ConsentError) as caught:
        authorize(request_of(**asked), the_grant(), **circumstances)
    assert type(caught.value) is REFUSALS[min(first, second)][0]


def test_another_institution_learns_nothing_about_the_consent() -> None:
    asked = request_of(institution="did:web:other.example", purpose="account-review", attributes=("age",))
    with pytest.raises(WrongInstitutionError) as caught:
        authorize(asked, the_grant(), used_today=99, disputed=("age",), erased=True)
    assert caught.value.message == "the consent names another institution"


@pytest.mark.parametrize("attributes", [(), ("credit_limit", "credit_limit")])
def test_asking_for_nothing_or_for_the_same_twice_is_malformed(attributes: tuple[str, ...]) -> None:
    with pytest.raises(MalformedError) as caught:
        authorize(request_of(attributes=attributes), the_grant(), used_today=0)
    assert caught.value.field == "attributes"


@pytest.mark.parametrize("institution", ["did:web:bank.example ", "DID:WEB:BANK.EXAMPLE", "did:web:bank.example.x", ""])
def test_a_name_that_only_looks_alike_is_another_institution(institution: str) -> None:
    with pytest.raises(WrongInstitutionError):
        authorize(request_of(institution=institution), the_grant(), used_today=0)


@pytest.mark.parametrize("used", range(5))
def test_the_daily_limit_counts_the_accesses_before_this_one(used: int) -> None:
    if used < the_grant().terms.accesses_per_day:
        authorize(request_of(), the_grant(), used_today=used)
    else:
        with pytest.raises(DailyLimitError):
            authorize(request_of(), the_grant(), used_today=used)


@given(
    consented=st.sets(st.sampled_from("abcdef"), min_size=1),
    asked=st.lists(st.sampled_from("abcdef"), min_size=1, unique=True),
    disputed=st.sets(st.sampled_from("abcdef")),
)
def test_what_is_authorized_is_a_subset_of_the_terms_and_undisputed(
    consented: set[str], asked: list[str], disputed: set[str]
) -> None:
    grant = with_terms(attributes=tuple(sorted(consented)))
    try:
        authorize(request_of(attributes=tuple(asked)), grant, used_today=0, disputed=disputed)
    except AttributeNotConsentedError:
        assert not set(asked) <= consented
    except DisputedError:
        assert set(asked) <= consented
        assert set(asked) & disputed
    else:
        assert set(asked) <= consented - disputed


# --------------------------------------------------------------------------------------------- what the contract says


def state(**changes: Any) -> ConsentState:
    """In force from 100 to 200 for custodian 1, with 1 of 2 accesses used."""
    stored: dict[str, Any] = {
        "valid_from": 100,
        "expires_at": 200,
        "max_accesses": 2,
        "accesses": 1,
        "custodian_number": 1,
        "state": State.ACTIVE,
    }
    return ConsentState(**stored | changes)


@pytest.mark.parametrize(
    ("at", "reason"),
    [
        (0, Reason.NOT_YET_VALID),
        (99, Reason.NOT_YET_VALID),
        (100, Reason.NONE),
        (101, Reason.NONE),
        (199, Reason.NONE),
        (200, Reason.EXPIRED),
        (201, Reason.EXPIRED),
        (2**48, Reason.EXPIRED),
    ],
)
def test_the_window_is_half_open(at: int, reason: Reason) -> None:
    assert state().reason(at=at, custodian_number=1) is reason


@pytest.mark.parametrize("accesses", range(5))
def test_the_last_access_is_the_one_before_the_limit(accesses: int) -> None:
    expected = Reason.NONE if accesses < 2 else Reason.EXHAUSTED
    assert state(accesses=accesses).reason(at=150, custodian_number=1) is expected


PRECEDENCE: Final[list[tuple[Reason, dict[str, Any], dict[str, int]]]] = [
    (Reason.REVOKED, {"state": State.REVOKED}, {}),
    (Reason.NOT_GRANTED, {"state": State.UNKNOWN}, {}),
    (Reason.WRONG_CUSTODIAN, {}, {"custodian_number": 2}),
    (Reason.EXPIRED, {"expires_at": 150}, {}),
    (Reason.EXHAUSTED, {"accesses": 2}, {}),
    (Reason.NOT_YET_VALID, {"valid_from": 151}, {}),
    (Reason.PAUSED, {"state": State.PAUSED}, {}),
]


@pytest.mark.parametrize("first", range(len(PRECEDENCE)))
@pytest.mark.parametrize("second", range(len(PRECEDENCE)))
def test_of_two_reasons_the_more_final_is_given(first: int, second: int) -> None:
    first, second = sorted((first, second))
    # The earlier one last: a consent has one state, and the more final is the one it is in.
    stored = PRECEDENCE[second][1] | PRECEDENCE[first][1]
    asked = {"at": 150, "custodian_number": 1} | PRECEDENCE[second][2] | PRECEDENCE[first][2]
    assert state(**stored).reason(**asked) is PRECEDENCE[first][0]


def test_a_consent_that_was_never_granted_is_not_granted_to_anyone_at_any_time() -> None:
    for at in (0, 1, 2**48):
        for number in (0, 1):
            assert ConsentState().reason(at=at, custodian_number=number) is Reason.NOT_GRANTED


def test_nobody_is_custodian_of_a_consent_revoked_before_it_was_granted() -> None:
    assert ConsentState(state=State.REVOKED).reason(at=0, custodian_number=0) is Reason.REVOKED


# These two mark entries of the log, and are never what the contract answers.
@pytest.mark.parametrize("reason", sorted(set(Reason) - {Reason.NONE, Reason.BY_CUSTODIAN, Reason.COMPELLED}))
def test_every_reason_of_the_contract_raises_its_own_error(reason: Reason) -> None:
    with pytest.raises(ConsentError) as caught:
        require_in_force(reason)
    assert type(caught.value) is REASON_ERRORS[reason]
    assert caught.value.code == reason.name.lower()
    assert list(REASON_ERRORS.values()).count(type(caught.value)) == 1


def test_no_reason_raises_nothing() -> None:
    require_in_force(Reason.NONE)


def test_every_typed_field_has_its_place_in_the_dataclasses() -> None:
    # A field that is signed and then dropped on the way in would be a term that nobody keeps.
    assert list(the_grant().as_json()) == [member["name"] for member in TYPES["ConsentGrant"]]
    assert list(the_grant().terms.as_json()) == [member["name"] for member in TYPES["Terms"]]
    assert len(fields(ConsentGrant)) == len(TYPES["ConsentGrant"])
    assert len(fields(Terms)) == len(TYPES["Terms"])
