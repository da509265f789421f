"""The derived keys of `web/static/portal/keys.js`, once more in Python: the known answers are those of both."""

from __future__ import annotations

import json

import pytest
from cryptography.exceptions import InvalidTag
from subject_keys import ORDER, VECTORS, known_answers, subject_key, unwrapped, wrapped


def test_the_known_answers_are_what_the_specification_says() -> None:
    assert json.loads(VECTORS.read_text("utf-8")) == known_answers()


def test_no_two_institutions_chains_or_contracts_see_one_account() -> None:
    addresses = [subject["address"] for subject in known_answers()["subjects"]]
    assert len(set(addresses)) == len(addresses) == 10


def test_two_passkeys_open_one_root_and_a_third_opens_nothing() -> None:
    first, second = (bytes([n]) * 32 for n in (1, 2))
    root, nonce = b"r" * 32, b"n" * 12
    for output in (first, second):
        assert unwrapped(output, wrapped(output, root, nonce)) == root
    with pytest.raises(InvalidTag):
        unwrapped(b"3" * 32, wrapped(first, root, nonce))


def test_every_derived_key_is_one_of_the_group() -> None:
    for n in range(50):
        key = subject_key(bytes([n]) * 32, chain_id=1, contract="0x" + "Ab" * 20, institution=f"did:web:{n}.example")
        assert 1 <= int.from_bytes(key) < ORDER
