"""Accesses: whoever has the opening and the events can recompute what is on the log, without this code."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import pytest
from eth_abi import encode
from eth_utils import keccak
from hypothesis import given
from hypothesis import strategies as st

from ledger import errors
from ledger.access import (
    ENTRY_TYPEHASH,
    AccessEntry,
    BatchKind,
    ChainProof,
    LoggedAccess,
    entry_hash_of,
    fold,
    fold_compelled,
    records_hash_of,
    refusal_hash,
)
from ledger.consent import ZERO32, Address, Hex32, Reason

VECTORS: Final[dict[str, Any]] = json.loads((Path(__file__).parent / "vectors/eip712.json").read_text(encoding="utf-8"))
CASE: Final[dict[str, Any]] = next(c for c in VECTORS["cases"] if c["typedData"]["primaryType"] == "AccessEntry")
ENTRY: Final = AccessEntry.from_json(CASE["typedData"]["message"])

words = st.binary(min_size=32, max_size=32).map(lambda raw: Hex32("0x" + raw.hex()))
outcomes = st.lists(st.tuples(words, words, st.sampled_from(Reason)), max_size=6)


# ------------------------------------------------------------------------------------------------------------- entries


def test_entry_hash_is_the_known_answer() -> None:
    assert entry_hash_of(ENTRY) == CASE["structHash"]


def test_entry_is_typed_as_in_the_vector() -> None:
    members = ",".join(f"{one['type']} {one['name']}" for one in CASE["typedData"]["types"]["AccessEntry"])
    assert keccak(text=f"AccessEntry({members})") == ENTRY_TYPEHASH


def test_opening_survives_the_way_to_json_and_back() -> None:
    assert ENTRY.as_json() == CASE["typedData"]["message"]
    assert AccessEntry.from_json(json.loads(json.dumps(ENTRY.as_json()))) == ENTRY


def test_entry_hash_follows_from_the_documented_type_alone() -> None:
    hashed = [
        keccak(
            text="AccessEntry(bytes32 consentId,bytes32 releaseId,string institution,string purpose,"
            "string[] attributes,bytes32 requestHash,bytes32 recordsHash,bytes32 salt)"
        ),
        bytes.fromhex(ENTRY.consent_id[2:]),
        bytes.fromhex(ENTRY.release_id[2:]),
        keccak(text=ENTRY.institution),
        keccak(text=ENTRY.purpose),
        keccak(b"".join(keccak(text=name) for name in ENTRY.attributes)),
        bytes.fromhex(ENTRY.request_hash[2:]),
        bytes.fromhex(ENTRY.records_hash[2:]),
        bytes.fromhex(ENTRY.salt[2:]),
    ]
    assert entry_hash_of(ENTRY) == "0x" + keccak(b"".join(hashed)).hex()


@pytest.mark.parametrize("name", [field.name for field in fields(AccessEntry)])
def test_an_opening_with_any_field_changed_does_not_open_the_entry(name: str) -> None:
    value = getattr(ENTRY, name)
    others: list[Any] = [(*value, "age"), value[:-1], value[::-1], ("".join(value),)] if name == "attributes" else []
    if isinstance(value, str):
        others = ["0x" + "ee" * 32, ZERO32] if value.startswith("0x") else [value + " ", ""]
    different = [other for other in others if other != value]
    assert different
    for other in different:
        assert entry_hash_of(replace(ENTRY, **{name: other})) != CASE["structHash"]


def test_without_the_salt_the_same_access_twice_looks_like_two() -> None:
    salted = [replace(ENTRY, salt=Hex32("0x" + sha256(bytes([n])).hexdigest())) for n in range(20)]
    assert len({entry_hash_of(entry) for entry in salted}) == 20


# ---------------------------------------------------------------------------------------------------------------- fold


def folded(head: Hex32, kind: int, batch: list[tuple[Hex32, Hex32, Reason]]) -> str:
    """`IConsentLedger.append`'s notes, written down a second time with an ABI encoder."""
    raw = keccak(encode(("bytes32", "uint8", "uint256"), (bytes.fromhex(head[2:]), kind, len(batch))))
    for consent_id, entry_hash, reason in batch:
        row = (raw, bytes.fromhex(consent_id[2:]), bytes.fromhex(entry_hash[2:]), int(reason))
        raw = keccak(encode(("bytes32", "bytes32", "bytes32", "uint8"), row))
    return "0x" + raw.hex()


def ours(head: Hex32, kind: BatchKind, batch: list[tuple[Hex32, Hex32, Reason]]) -> Hex32:
    accesses = [LoggedAccess(consent_id=consent_id, entry_hash=entry_hash) for consent_id, entry_hash, _ in batch]
    return fold(head, kind, accesses, [reason for _, _, reason in batch])


@given(head=words, kind=st.sampled_from(BatchKind), batch=outcomes)
def test_fold_is_what_the_interface_documents(
    head: Hex32, kind: BatchKind, batch: list[tuple[Hex32, Hex32, Reason]]
) -> None:
    assert ours(head, kind, batch) == folded(head, kind, batch)


@given(head=words, batch=outcomes.filter(bool), data=st.data())
def test_omitting_repeating_swapping_or_relabelling_an_entry_changes_the_head(
    head: Hex32, batch: list[tuple[Hex32, Hex32, Reason]], data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(batch) - 1))
    consent_id, entry_hash, reason = batch[at]
    changed = [
        batch[:at] + batch[at + 1 :],
        [*batch[: at + 1], *batch[at:]],
        batch[::-1],
        [*batch[:at], (entry_hash, consent_id, reason), *batch[at + 1 :]],
        [*batch[:at], (consent_id, entry_hash, Reason((reason + 1) % len(Reason))), *batch[at + 1 :]],
    ]
    heads = {ours(head, BatchKind.ACCESSES, other) for other in changed if other != batch}
    assert heads
    assert ours(head, BatchKind.ACCESSES, batch) not in heads


@given(head=words, batch=outcomes.filter(lambda batch: len(batch) > 1))
def test_batches_cannot_be_cut_or_joined_unseen(head: Hex32, batch: list[tuple[Hex32, Hex32, Reason]]) -> None:
    whole = ours(head, BatchKind.ACCESSES, batch)
    for cut in range(1, len(batch)):
        first = ours(head, BatchKind.ACCESSES, batch[:cut])
        assert ours(first, BatchKind.ACCESSES, batch[cut:]) != whole


@given(head=words, batch=outcomes)
def test_the_kind_of_a_batch_is_in_the_head(head: Hex32, batch: list[tuple[Hex32, Hex32, Reason]]) -> None:
    assert len({ours(head, kind, batch) for kind in BatchKind}) == len(BatchKind)


def test_a_batch_whose_reasons_are_not_as_many_as_its_accesses_is_not_folded() -> None:
    access = LoggedAccess(consent_id=ZERO32, entry_hash=ZERO32)
    for reasons in ([], [Reason.NONE, Reason.NONE]):
        with pytest.raises(ValueError, match="zip"):
            fold(ZERO32, BatchKind.ACCESSES, [access], reasons)


def folded_order(head: Hex32, order: Hex32, until: int, entries: list[Hex32]) -> str:
    """`IConsentLedger.appendCompelled`'s notes, written down a second time with an ABI encoder."""
    raw = keccak(encode(("bytes32", "uint8", "uint256"), (bytes.fromhex(head[2:]), 3, len(entries))))
    for word in (until.to_bytes(32), *(bytes.fromhex(entry[2:]) for entry in entries)):
        raw = keccak(encode(("bytes32", "bytes32", "bytes32", "uint8"), (raw, bytes.fromhex(order[2:]), word, 9)))
    return "0x" + raw.hex()


@given(head=words, order=words, until=st.integers(0, 2**64 - 1), entries=st.lists(words, max_size=4))
def test_the_fold_of_an_order_is_what_the_interface_documents(
    head: Hex32, order: Hex32, until: int, entries: list[Hex32]
) -> None:
    assert fold_compelled(head, order, until, entries) == folded_order(head, order, until, entries)


@given(head=words, order=words, until=st.integers(1, 2**64 - 2), entries=st.lists(words, min_size=1, max_size=4))
def test_an_order_cannot_be_given_another_embargo_or_entry_afterwards(
    head: Hex32, order: Hex32, until: int, entries: list[Hex32]
) -> None:
    changed = [
        (order, 0, entries),
        (order, until + 1, entries),
        (order, until, entries[:-1]),
        (order, until, [*entries, entries[-1]]),
        (Hex32("0x" + sha256(order.encode()).hexdigest()), until, entries),
    ]
    assert fold_compelled(head, order, until, entries) not in {fold_compelled(head, *other) for other in changed}


# -------------------------------------------------------------------------------------------------------------- hashes


def test_records_hash_is_keccak_over_the_digests_in_order() -> None:
    one, other = sha256(b"one").digest(), sha256(b"other").digest()
    assert records_hash_of([one, other]) == "0x" + keccak(one + other).hex()
    assert records_hash_of([other, one]) != records_hash_of([one, other])
    assert records_hash_of([]) == "0x" + keccak(b"").hex()


def test_refusal_hash_is_keccak_of_the_code() -> None:
    # Known answer: an auditor computes it from the code in the opening.
    assert refusal_hash("daily_limit") == "0x" + keccak(b"refused:daily_limit").hex()
    assert refusal_hash("daily_limit") == "0x784fd3639e4f52e293044e32d9bc7468b568de19df2ee46ef08754a76183cd56"


def test_every_reason_to_refuse_has_a_hash_of_its_own() -> None:
    codes = {
        kind.code for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.ConsentError)
    }
    assert len({refusal_hash(code) for code in codes}) == len(codes) > 10


# --------------------------------------------------------------------------------------------------------------- proof


def test_a_proof_names_all_that_is_needed_to_find_the_entry() -> None:
    proof = ChainProof(
        chain_id=31337,
        contract=Address("0xC"),
        custodian=Address("0xA"),
        writer=Address("0xB"),
        transaction_hash=Hex32("0x1"),
        block_number=7,
        block_hash=Hex32("0x2"),
        log_index=3,
        size=9,
        head=Hex32("0x4"),
    )
    assert proof.as_json() == {
        "chainId": 31337,
        "contract": "0xC",
        "custodian": "0xA",
        "writer": "0xB",
        "transactionHash": "0x1",
        "blockNumber": 7,
        "blockHash": "0x2",
        "logIndex": 3,
        "size": 9,
        "head": "0x4",
    }
