"""Envelopes: whatever is altered, moved or guessed, there is one answer, and it says nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap
from hypothesis import given
from hypothesis import strategies as st

from ledger.envelope import TRIAL, Envelope, Use, WrappedKey, associated_data, open_envelope, seal
from ledger.errors import IntegrityError, KeyUnavailableError, LedgerError

VECTORS: Final[dict[str, Any]] = json.loads((Path(__file__).parent / "vectors/envelope.json").read_text("utf-8"))
CONTEXT: Final = {"kind": "attribute", "subject": "s-1", "attribute": "age", "version": "1", "schema": "1"}
OUTCOMES: Final[dict[str, Callable[[LedgerError], bool]]] = {
    "integrity": lambda exc: type(exc) is IntegrityError and str(exc) == "an envelope does not open",
    "key unavailable": lambda exc: type(exc) is KeyUnavailableError,
}


class Keks:
    """`KeyWrapper` as the protocol describes it, over KEKs that the test knows."""

    def __init__(self, keks: dict[str, bytes], active: str) -> None:
        self.keks, self.active = keks, active
        self.seen: list[bytes] = []

    def wrap(self, dek: bytes) -> WrappedKey:
        self.seen.append(dek)
        return WrappedKey(self.active, aes_key_wrap(self.keks[self.active], dek))

    def unwrap(self, key: WrappedKey, use: Use) -> bytes:  # noqa: ARG002 - a key service of a test counts nothing
        if key.kek_id not in self.keks:
            raise KeyUnavailableError("no such KEK")
        try:
            return aes_key_unwrap(self.keks[key.kek_id], key.wrapped_dek)
        except (InvalidUnwrap, ValueError) as exc:
            raise IntegrityError("an envelope does not open") from exc


@pytest.fixture
def keys() -> Keks:
    return Keks({"kek-1": bytes(range(32)), "kek-2": bytes(32)}, "kek-1")


def does_not_open(envelope: Envelope, context: dict[str, str], keys: Keks) -> None:
    with pytest.raises(LedgerError) as caught:
        open_envelope(envelope, context, keys, TRIAL)
    assert OUTCOMES["integrity"](caught.value)


# ------------------------------------------------------------------------------------------------------- known answers


def case_of(case: dict[str, Any]) -> tuple[Envelope, dict[str, str], Keks]:
    keys = Keks({kek_id: bytes.fromhex(kek) for kek_id, kek in VECTORS["keks"].items()}, "kek-1")
    key = WrappedKey(case["kekId"], bytes.fromhex(case["wrappedDek"]))
    return Envelope(key, bytes.fromhex(case["body"])), case["context"], keys


@pytest.mark.parametrize("case", VECTORS["opens"], ids=lambda case: case["name"])
def test_known_envelope_opens_to_its_plaintext(case: dict[str, Any]) -> None:
    envelope, context, keys = case_of(case)
    assert open_envelope(envelope, context, keys, TRIAL).hex() == case["plaintext"]
    assert associated_data(context).hex() == case["associatedData"]
    assert envelope.digest().hex() == case["digest"]


@pytest.mark.parametrize("case", VECTORS["fails"], ids=lambda case: case["name"])
def test_spoilt_envelope_fails_with_its_outcome(case: dict[str, Any]) -> None:
    envelope, context, keys = case_of(case)
    # An outcome that is not on the list is a mistake in the vectors, not a new kind of failure.
    expected = OUTCOMES[case["outcome"]]
    with pytest.raises(LedgerError) as caught:
        open_envelope(envelope, context, keys, TRIAL)
    assert expected(caught.value)


def test_outcomes_of_the_vectors_are_a_closed_list() -> None:
    assert VECTORS["outcomes"] == list(OUTCOMES)
    assert {case["outcome"] for case in VECTORS["fails"]} == set(OUTCOMES)


@pytest.mark.parametrize("case", VECTORS["opens"], ids=lambda case: case["name"])
def test_known_envelope_opens_without_this_code(case: dict[str, Any]) -> None:
    # RFC 3394, SP 800-38D and the format line of the module: what a second implementation would do.
    body = bytes.fromhex(case["body"])
    dek = aes_key_unwrap(bytes.fromhex(VECTORS["keks"][case["kekId"]]), bytes.fromhex(case["wrappedDek"]))
    text = json.dumps(case["context"], sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    opened = AESGCM(dek).decrypt(body[1:13], body[13:], b"consent-ledger/envelope/1\n" + text.encode())
    assert body[0] == 1
    assert opened.hex() == case["plaintext"]


# ----------------------------------------------------------------------------------------------------------- round trip


contexts = st.dictionaries(st.text(max_size=10), st.text(max_size=10), max_size=5)


@given(plaintext=st.binary(max_size=2000), context=contexts)
def test_what_is_sealed_opens_to_the_same_bytes(plaintext: bytes, context: dict[str, str]) -> None:
    keys = Keks({"kek-1": bytes(32)}, "kek-1")
    envelope = seal(plaintext, context, keys)
    assert open_envelope(envelope, dict(reversed(context.items())), keys, TRIAL) == plaintext
    assert len(envelope.body) == 1 + 12 + len(plaintext) + 16


@given(left=contexts, right=contexts)
def test_two_contexts_have_the_same_bytes_only_if_they_are_equal(left: dict[str, str], right: dict[str, str]) -> None:
    assert (associated_data(left) == associated_data(right)) == (left == right)


def test_moving_text_between_the_names_and_values_of_a_context_changes_it() -> None:
    look_alikes = [{"a": 'b","c":"d'}, {"a": "b", "c": "d"}, {"ab": "", "c": "d"}, {"a": "", "bc": "d"}]
    assert len({associated_data(context) for context in look_alikes}) == len(look_alikes)


# ------------------------------------------------------------------------------------------------------------- tamper


def _flips(raw: bytes) -> Iterator[bytes]:
    for bit in range(8 * len(raw)):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        yield bytes(flipped)


def test_every_single_flipped_bit_of_the_body_is_noticed(keys: Keks) -> None:
    envelope = seal(b"a secret value", CONTEXT, keys)
    for body in _flips(envelope.body):
        does_not_open(replace(envelope, body=body), CONTEXT, keys)


def test_every_single_flipped_bit_of_the_wrapped_key_is_noticed(keys: Keks) -> None:
    envelope = seal(b"a secret value", CONTEXT, keys)
    for wrapped_dek in _flips(envelope.key.wrapped_dek):
        does_not_open(replace(envelope, key=WrappedKey(envelope.key.kek_id, wrapped_dek)), CONTEXT, keys)


def test_every_single_changed_character_of_the_context_is_noticed(keys: Keks) -> None:
    envelope = seal(b"a secret value", CONTEXT, keys)
    for name, value in CONTEXT.items():
        for at in range(len(value)):
            for bit in range(7):
                changed = value[:at] + chr(ord(value[at]) ^ 1 << bit) + value[at + 1 :]
                does_not_open(envelope, CONTEXT | {name: changed}, keys)
        renamed = {other: text for other, text in CONTEXT.items() if other != name}
        does_not_open(envelope, renamed, keys)
        does_not_open(envelope, renamed | {name.upper(): value}, keys)
    does_not_open(envelope, CONTEXT | {"more": ""}, keys)


@pytest.mark.parametrize("length", [0, 1, 12, 13, 20, 28])
def test_a_body_that_is_too_short_does_not_open(keys: Keks, length: int) -> None:
    envelope = seal(b"", CONTEXT, keys)
    does_not_open(replace(envelope, body=envelope.body[:length]), CONTEXT, keys)


def test_a_body_with_something_after_it_does_not_open(keys: Keks) -> None:
    envelope = seal(b"a secret value", CONTEXT, keys)
    does_not_open(replace(envelope, body=envelope.body + b"\0"), CONTEXT, keys)


@pytest.mark.parametrize("version", [version for version in range(256) if version != 1])
def test_a_body_of_another_version_does_not_open(keys: Keks, version: int) -> None:
    envelope = seal(b"a secret value", CONTEXT, keys)
    does_not_open(replace(envelope, body=bytes([version]) + envelope.body[1:]), CONTEXT, keys)


@pytest.mark.parametrize("wrapped", [b"", b"\0" * 8, b"\0" * 24, b"\0" * 40, b"\0" * 41])
def test_a_wrapped_key_that_is_none_does_not_open(keys: Keks, wrapped: bytes) -> None:
    envelope = seal(b"a secret value", CONTEXT, keys)
    does_not_open(replace(envelope, key=WrappedKey("kek-1", wrapped)), CONTEXT, keys)


@pytest.mark.parametrize("length", [16, 24])
def test_a_weaker_key_wrapped_by_someone_with_the_kek_opens_nothing(keys: Keks, length: int) -> None:
    envelope = seal(b"a secret value", CONTEXT, keys)
    does_not_open(replace(envelope, key=keys.wrap(bytes(length))), CONTEXT, keys)


def test_the_right_key_under_the_wrong_kek_does_not_open(keys: Keks) -> None:
    envelope = seal(b"a secret value", CONTEXT, keys)
    does_not_open(replace(envelope, key=WrappedKey("kek-2", envelope.key.wrapped_dek)), CONTEXT, keys)


@pytest.mark.parametrize("name", ["subject", "attribute", "version", "schema", "kind"])
def test_an_envelope_moved_to_another_place_does_not_open(keys: Keks, name: str) -> None:
    elsewhere = CONTEXT | {name: "2"}
    mine, other = seal(b"mine", CONTEXT, keys), seal(b"other", elsewhere, keys)
    assert open_envelope(mine, CONTEXT, keys, TRIAL) == b"mine"
    assert open_envelope(other, elsewhere, keys, TRIAL) == b"other"
    does_not_open(mine, elsewhere, keys)
    does_not_open(other, CONTEXT, keys)
    # Nor does the body of one under the key of the other.
    does_not_open(Envelope(mine.key, other.body), CONTEXT, keys)
    does_not_open(Envelope(mine.key, other.body), elsewhere, keys)


# --------------------------------------------------------------------------------------------------------------- keys


def test_two_seals_of_one_plaintext_have_nothing_in_common(keys: Keks) -> None:
    one, other = seal(b"the same", CONTEXT, keys), seal(b"the same", CONTEXT, keys)
    assert one.body[1:13] != other.body[1:13]
    assert one.body[13:] != other.body[13:]
    assert one.key.wrapped_dek != other.key.wrapped_dek
    assert one.digest() != other.digest()


def test_ten_thousand_seals_use_ten_thousand_keys_and_nonces(keys: Keks) -> None:
    nonces = {seal(b"", CONTEXT, keys).body[1:13] for _ in range(10_000)}
    assert len(nonces) == 10_000
    assert len(set(keys.seen)) == 10_000
    assert {len(dek) for dek in keys.seen} == {32}


def test_rewrapping_changes_neither_the_body_nor_the_digest(keys: Keks) -> None:
    envelope = seal(b"a secret value", CONTEXT, keys)
    keys.active = "kek-2"
    rewrapped = replace(envelope, key=keys.wrap(keys.unwrap(envelope.key, TRIAL)))
    assert rewrapped.key.kek_id == "kek-2"
    assert rewrapped.digest() == envelope.digest() == sha256(envelope.body).digest()
    del keys.keks["kek-1"]
    assert open_envelope(rewrapped, CONTEXT, keys, TRIAL) == b"a secret value"
    with pytest.raises(KeyUnavailableError):
        open_envelope(envelope, CONTEXT, keys, TRIAL)


def test_neither_the_value_nor_its_key_is_in_what_an_envelope_shows_of_itself(keys: Keks) -> None:
    envelope = seal(b"canary-value", CONTEXT, keys)
    shown = f"{envelope!r} {envelope!s}"
    assert "canary" not in shown
    assert keys.seen[-1].hex() not in shown
    assert repr(keys.seen[-1]) not in shown
