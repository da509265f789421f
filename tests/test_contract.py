"""The contract's interface: what Python encodes and decodes is what the compiler says, to the last flag."""

from __future__ import annotations

import json
import re
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

import pytest
from eth_abi import encode
from eth_utils import keccak, to_checksum_address
from hypothesis import given
from hypothesis import strategies as st

from ledger import contract
from ledger.access import BatchKind, LoggedAccess
from ledger.consent import Address, ConsentState, Hex32, OuterGrant, Reason, State, hex32_of
from ledger.contract import (
    APPEND_CALLS,
    ERROR_SELECTORS,
    ERRORS,
    FUNCTIONS,
    SELECTORS,
    VIEWS,
    append_call,
    append_compelled_call,
    call,
    decode_call,
    decode_consent,
    decode_error,
    decode_log,
    decode_reasons,
    grant_call,
    pause_call,
    revoke_as_custodian_call,
    revoke_call,
)
from ledger.contract_events import EVENTS, TOPICS, batches_of, decode_events
from ledger.errors import SOLIDITY_TWINS, ChainUnavailableError, LedgerError, MalformedError, TransactionRevertedError

ROOT: Final = Path(__file__).parent.parent
ABI: Final[list[dict[str, Any]]] = json.loads((ROOT / "ledger/abi/ConsentLedger.json").read_text("utf-8"))["abi"]
LEDGER: Final = Address("0x5FbDB2315678afecb367f032d93F642f64180aa3")
NO_PART_OF_OURS: Final = {"eip712Domain", "EIP712DomainChanged", "InvalidShortString", "StringTooLong"}
"""What OpenZeppelin's EIP712 adds to the ABI (ERC-5267); nothing here calls it."""

words = st.binary(min_size=32, max_size=32).map(hex32_of)
accounts = st.binary(min_size=20, max_size=20).map(lambda raw: Address(to_checksum_address(raw)))
grants = st.builds(
    OuterGrant,
    terms_hash=words,
    subject=accounts,
    custodian=accounts,
    valid_from=st.integers(0, 2**64 - 1),
    expires_at=st.integers(0, 2**64 - 1),
    max_accesses=st.integers(0, 2**32 - 1),
)
accesses = st.builds(LoggedAccess, consent_id=words, entry_hash=words)


def named(kind: str) -> dict[str, dict[str, Any]]:
    found = [entry for entry in ABI if entry["type"] == kind and entry["name"] not in NO_PART_OF_OURS]
    assert len({entry["name"] for entry in found}) == len(found)
    return {entry["name"]: entry for entry in found}


def canonical(member: dict[str, Any]) -> str:
    """The type of an ABI entry as it stands in a signature."""
    if not member["type"].startswith("tuple"):
        return str(member["type"])
    inner = ",".join(canonical(part) for part in member["components"])
    return f"({inner}){member['type'].removeprefix('tuple')}"


def types_of(members: list[dict[str, Any]]) -> tuple[str, ...]:
    return tuple(canonical(member) for member in members)


# ---------------------------------------------------------------------------------------------------- against the ABI


def test_functions_are_those_of_the_contract_in_number_order_and_type() -> None:
    assert {name: types_of(entry["inputs"]) for name, entry in named("function").items()} == dict(FUNCTIONS)
    assert {name for name, entry in named("function").items() if entry["stateMutability"] in ("view", "pure")} == VIEWS


def test_selectors_are_those_of_the_contract() -> None:
    for name, entry in named("function").items():
        signature = f"{name}({','.join(types_of(entry['inputs']))})"
        assert SELECTORS[name] == keccak(text=signature)[:4]
    assert len(set(SELECTORS.values())) == len(SELECTORS)


def test_events_are_those_of_the_contract_indexed_parts_first() -> None:
    found = {}
    for name, entry in named("event").items():
        flags = [member["indexed"] for member in entry["inputs"]]
        # `Event.args` is in the order of the interface only if the indexed ones come first there.
        assert flags == sorted(flags, reverse=True), name
        assert not entry["anonymous"]
        parts = [[canonical(m) for m in entry["inputs"] if m["indexed"] is indexed] for indexed in (True, False)]
        found[name] = (tuple(parts[0]), tuple(parts[1]))
    assert found == {name: (tuple(indexed), tuple(other)) for name, (indexed, other) in EVENTS.items()}


def test_topics_are_those_of_the_contract() -> None:
    expected = {
        "0x" + keccak(text=f"{name}({','.join(types_of(entry['inputs']))})").hex(): name
        for name, entry in named("event").items()
    }
    assert expected == TOPICS


def test_errors_are_those_of_the_contract_and_each_has_its_twin() -> None:
    found = {name: types_of(entry["inputs"]) for name, entry in named("error").items()}
    assert found == {name: tuple(types) for name, types in ERRORS.items()}
    assert set(SOLIDITY_TWINS) == set(found)
    for name, types in found.items():
        assert ERROR_SELECTORS[keccak(text=f"{name}({','.join(types)})")[:4]] == name
    assert len(ERROR_SELECTORS) == len(found)


def test_twins_are_named_after_their_originals() -> None:
    assert {name: twin.__name__ for name, twin in SOLIDITY_TWINS.items()} == {n: f"{n}Error" for n in SOLIDITY_TWINS}


@pytest.mark.parametrize(
    ("function", "types"),
    [
        ("statuses", ("uint8[]",)),
        ("status", ("uint8",)),
        ("consentOf", ("(uint48,uint48,uint32,uint32,uint32,uint32,uint8)",)),
        ("logOf", ("(bytes32,uint64,uint32,bool)",)),
        ("numberOf", ("uint32",)),
        ("consentIdOf", ("bytes32",)),
        ("grant", ("bytes32",)),
    ],
)
def test_answers_have_the_types_that_are_decoded(function: str, types: tuple[str, ...]) -> None:
    assert types_of(named("function")[function]["outputs"]) == types


def test_nothing_in_the_interface_can_carry_text_or_bytes_onto_the_chain() -> None:
    # But the signature, which is checked and not kept.
    assert not {"string", "bytes"} & {kind for entry in named("event").values() for kind in types_of(entry["inputs"])}
    loose = {
        (name, member["name"])
        for name, entry in named("function").items()
        for member in entry["inputs"]
        if canonical(member) in ("string", "bytes", "string[]", "bytes[]")
    }
    assert {member for _, member in loose} == {"signature"}


def solidity_enum(name: str) -> list[str]:
    source = (ROOT / "contracts/IConsentLedger.sol").read_text("utf-8")
    found = re.search(rf"enum {name} \{{([^}}]*)\}}", source)
    assert found, name
    return [member.strip() for member in found[1].split(",")]


@pytest.mark.parametrize(("enum", "name"), [(Reason, "Reason"), (State, "State"), (BatchKind, "BatchKind")])
def test_enums_are_numbered_as_in_the_source(enum: type[IntEnum], name: str) -> None:
    snake = [re.sub(r"(?<=[a-z])(?=[A-Z])", "_", member).upper() for member in solidity_enum(name)]
    assert [(member.name, member.value) for member in enum] == [(name, at) for at, name in enumerate(snake)]


def test_every_kind_of_batch_has_its_call() -> None:
    # Those of orders have another form, and a call of their own.
    assert set(APPEND_CALLS) == set(BatchKind) - {BatchKind.COMPELLED_ACCESSES}
    calls = {*APPEND_CALLS.values(), "appendCompelled"}
    assert calls == {name for name in FUNCTIONS if name.startswith("append")}


# --------------------------------------------------------------------------------------------------------------- calls


def words_of(grant: OuterGrant) -> tuple[Any, ...]:
    terms, subject, custodian = bytes.fromhex(grant.terms_hash[2:]), grant.subject.lower(), grant.custodian.lower()
    return (terms, subject, custodian, grant.valid_from, grant.expires_at, grant.max_accesses)


@given(grant=grants, signature=st.binary(max_size=70))
def test_a_grant_survives_the_way_to_calldata_and_back(grant: OuterGrant, signature: bytes) -> None:
    assert decode_call(grant_call(grant, signature)) == ("grant", (words_of(grant), signature))


@given(several=st.lists(grants, max_size=3), signature=st.binary(max_size=70))
def test_a_revocation_survives_the_way_to_calldata_and_back(several: list[OuterGrant], signature: bytes) -> None:
    name, args = decode_call(revoke_call(several, signature))
    assert (name, args[1]) == ("revoke", signature)
    assert list(args[0]) == [words_of(grant) for grant in several]


@given(grant=grants, paused=st.booleans(), sequence=st.integers(0, 2**32 - 1))
def test_a_pause_survives_the_way_to_calldata_and_back(grant: OuterGrant, paused: bool, sequence: int) -> None:
    calldata = pause_call(grant, paused=paused, sequence=sequence, signature=b"s")
    assert decode_call(calldata) == ("setPaused", (words_of(grant), paused, sequence, b"s"))


@given(st.lists(words, max_size=4))
def test_a_custodians_revocation_survives_the_way_to_calldata_and_back(consent_ids: list[Hex32]) -> None:
    name, (ids,) = decode_call(revoke_as_custodian_call(consent_ids))
    assert name == "revokeAsCustodian"
    assert [hex32_of(consent_id) for consent_id in ids] == consent_ids


@given(kind=st.sampled_from(list(APPEND_CALLS)), custodian=accounts, head=words, batch=st.lists(accesses, max_size=4))
def test_a_batch_survives_the_way_to_calldata_and_back(
    kind: BatchKind, custodian: Address, head: Hex32, batch: list[LoggedAccess]
) -> None:
    name, (to, expected, pairs) = decode_call(append_call(kind, custodian, head, batch))
    assert name == APPEND_CALLS[kind]
    assert (to, hex32_of(expected)) == (custodian.lower(), head)
    assert [(hex32_of(one), hex32_of(other)) for one, other in pairs] == [
        (access.consent_id, access.entry_hash) for access in batch
    ]


@given(
    custodian=accounts,
    head=words,
    order=words,
    until=st.integers(0, 2**64 - 1),
    entries=st.lists(words, max_size=4),
)
def test_the_accesses_of_an_order_survive_the_way_to_calldata_and_back(
    custodian: Address, head: Hex32, order: Hex32, until: int, entries: list[Hex32]
) -> None:
    name, args = decode_call(append_compelled_call(custodian, head, order, until, entries))
    assert (name, args[0], args[3]) == ("appendCompelled", custodian.lower(), until)
    assert [hex32_of(args[1]), hex32_of(args[2]), *map(hex32_of, args[4])] == [head, order, *entries]


@pytest.mark.parametrize(
    "calldata", [b"", b"\0", b"\0\0\0\0", b"\xff" * 68, SELECTORS["grant"], SELECTORS["status"] + b"\0" * 31]
)
def test_what_is_no_call_of_the_contract_is_not_decoded(calldata: bytes) -> None:
    with pytest.raises(MalformedError):
        decode_call(calldata)


# ------------------------------------------------------------------------------------------------------------- answers


CONSENT_TYPES: Final = ("uint48", "uint48", "uint32", "uint32", "uint32", "uint32", "uint8")


@given(st.tuples(*(st.integers(0, 2**32 - 1) for _ in range(6)), st.sampled_from(State)))
def test_the_state_of_a_consent_is_decoded_field_by_field(fields: tuple[Any, ...]) -> None:
    names = ("valid_from", "expires_at", "max_accesses", "accesses", "custodian_number", "pause_sequence", "state")
    assert decode_consent(encode(CONSENT_TYPES, fields)) == ConsentState(**dict(zip(names, fields, strict=True)))


def test_reasons_and_logs_are_decoded() -> None:
    assert decode_reasons(encode(("uint8[]",), [list(Reason)])) == list(Reason)
    log = decode_log(encode(("bytes32", "uint64", "uint32", "bool"), (b"\x01" * 32, 2**64 - 1, 7, True)))
    assert (log.head, log.size, log.custodian_number, log.allowed) == ("0x" + "01" * 32, 2**64 - 1, 7, True)


GARBAGE: Final = [b"", b"\0", b"\0" * 31, b"\xff" * 32, b"\xff" * 224, b"\xff" * 1000]
DECODERS: Final = [decode_reasons, decode_consent, decode_log]


@pytest.mark.parametrize("answer", GARBAGE, ids=range(len(GARBAGE)))
@pytest.mark.parametrize("decoder", DECODERS, ids=lambda decoder: decoder.__name__)
def test_an_answer_that_is_none_of_the_contract_fails_closed(decoder: Any, answer: bytes) -> None:
    with pytest.raises(ChainUnavailableError):
        decoder(answer)


@given(st.sampled_from(DECODERS), st.binary(max_size=300))
def test_no_answer_makes_anything_else_than_a_value_or_a_closed_door(decoder: Any, answer: bytes) -> None:
    try:
        decoder(answer)
    except LedgerError as refusal:
        assert type(refusal) is ChainUnavailableError  # noqa: PT017 - either outcome is right


@pytest.mark.parametrize("number", [len(Reason), 255])
def test_a_reason_that_is_not_known_is_not_taken_for_none(number: int) -> None:
    with pytest.raises(ChainUnavailableError):
        decode_reasons(encode(("uint8[]",), [[0, number]]))


@pytest.mark.parametrize("number", [len(State), 255])
def test_a_state_that_is_not_known_is_not_taken_for_active(number: int) -> None:
    with pytest.raises(ChainUnavailableError):
        decode_consent(encode(CONSENT_TYPES, (0, 0, 0, 0, 0, 0, number)))


# -------------------------------------------------------------------------------------------------------------- errors


SAMPLES: Final[dict[str, Any]] = {
    "address": "0x" + "11" * 20,
    "bytes32": b"\x22" * 32,
    "uint32": 7,
    "uint64": 2**64 - 1,
}


def revert_of(name: str) -> bytes:
    types = ERRORS[name]
    return keccak(text=f"{name}({','.join(types)})")[:4] + encode(types, [SAMPLES[kind] for kind in types])


@pytest.mark.parametrize("name", ERRORS)
def test_every_solidity_error_becomes_its_twin_with_its_arguments(name: str) -> None:
    error = decode_error(revert_of(name))
    assert type(error) is SOLIDITY_TWINS[name]
    assert name in error.message
    for kind in ERRORS[name]:
        value = SAMPLES[kind]
        assert ("0x" + value.hex() if isinstance(value, bytes) else str(value)) in error.message


@pytest.mark.parametrize(
    "data", [b"", b"\0", bytes(4), b"\x08\xc3\x79\xa0" + encode(("string",), ["no"]), b"\x4e\x48\x7b\x71" + bytes(32)]
)
def test_a_revert_of_another_kind_is_a_revert(data: bytes) -> None:
    assert type(decode_error(data)) is TransactionRevertedError


@pytest.mark.parametrize("name", [name for name, types in ERRORS.items() if types])
def test_an_error_whose_arguments_are_cut_off_fails_closed(name: str) -> None:
    with pytest.raises(ChainUnavailableError):
        decode_error(revert_of(name)[:-1])


# -------------------------------------------------------------------------------------------------------------- events


TOPIC_OF: Final = {name: topic for topic, name in TOPICS.items()}


def log_of(name: str, *values: Any, index: int = 0, address: str = LEDGER) -> dict[str, Any]:
    """A JSON-RPC log object, as nodes give it."""
    indexed, other = EVENTS[name]
    topics = [encode((kind,), (value,)) for kind, value in zip(indexed, values, strict=False)]
    return {
        "address": address.lower(),
        "topics": [TOPIC_OF[name], *("0x" + topic.hex() for topic in topics)],
        "data": "0x" + encode(other, values[len(indexed) :]).hex(),
        "logIndex": hex(index),
        "blockNumber": "0x10",
        "blockHash": "0x" + "bb" * 32,
        "transactionHash": "0x" + "cc" * 32,
    }


VALUES: Final[dict[str, Any]] = {
    "bytes32": b"\x22" * 32,
    "address": to_checksum_address("0x" + "ab" * 20),
    "uint64": 2**63,
    "uint32": 7,
    "uint8": 2,
    "bool": True,
}


@pytest.mark.parametrize("name", EVENTS)
def test_every_event_is_decoded_in_the_order_of_the_interface(name: str) -> None:
    values = [VALUES[kind] for part in EVENTS[name] for kind in part]
    (event,) = decode_events([log_of(name, *values, index=3)], LEDGER)
    assert event.name == name
    assert event.args == tuple("0x" + value.hex() if isinstance(value, bytes) else value for value in values)
    assert (event.log_index, event.block_number) == (3, 16)
    assert (event.block_hash, event.transaction_hash) == ("0x" + "bb" * 32, "0x" + "cc" * 32)


def test_events_of_other_contracts_and_other_events_are_passed_over() -> None:
    ours = log_of("AccessRecorded", b"\1" * 32, b"\2" * 32)
    foreign = log_of("AccessRecorded", b"\1" * 32, b"\2" * 32, address="0x" + "66" * 20)
    assert [event.log_index for event in decode_events([foreign, ours], LEDGER)] == [0]
    for topics in ([], ["0x" + "77" * 32]):
        assert decode_events([ours | {"topics": topics}], LEDGER) == []


@pytest.mark.parametrize(
    "change",
    [
        {"data": "0x"},
        {"data": "0xzz"},
        {"data": None},
        {"data": "0x" + "00" * 31},
        {"topics": [TOPIC_OF["AccessRecorded"]]},
        {"topics": [TOPIC_OF["AccessRecorded"], 7]},
        {"topics": None},
        {"address": None},
        {"logIndex": None},
        {"logIndex": "x"},
        {"logIndex": "-0x1"},
        {"logIndex": "0x" + "f" * 16},
        {"blockNumber": None},
        {"blockNumber": "-0x1"},
        {"blockHash": None},
        {"blockHash": 7},
        {"blockHash": "0x1234"},
        {"transactionHash": []},
        {"removed": True},
        {"blockHash": ...},
        {"transactionHash": ...},
        {"address": ...},
        {"topics": ...},
    ],
)
def test_a_log_object_that_is_none_fails_closed(change: dict[str, Any]) -> None:
    log = log_of("AccessRecorded", b"\1" * 32, b"\2" * 32) | change
    with pytest.raises(ChainUnavailableError):
        decode_events([{name: value for name, value in log.items() if value is not ...}], LEDGER)


# ------------------------------------------------------------------------------------------------------------- batches


def test_events_are_grouped_into_the_batches_that_they_were() -> None:
    custodian, writer = VALUES["address"], Address(to_checksum_address("0x" + "cd" * 20))
    one, two, three = (bytes([number]) * 32 for number in (1, 2, 3))
    logs = [
        log_of("AccessRecorded", one, two, index=0),
        log_of("AccessRefused", two, three, int(Reason.EXPIRED), index=1),
        log_of("LogAppended", custodian, writer, int(BatchKind.ACCESSES), 2, one, index=2),
        log_of("ConsentRevoked", one, custodian, index=3),
        log_of("AccessLate", three, one, int(Reason.REVOKED), index=4),
        log_of("LogAppended", custodian, writer, int(BatchKind.LATE_ACCESSES), 3, two, index=5),
    ]
    first, second = batches_of(decode_events(logs, LEDGER))
    assert (first.custodian, first.writer, first.kind) == (custodian, writer, BatchKind.ACCESSES)
    assert (first.size, first.head) == (2, hex32_of(one))
    assert [(o.access.consent_id, o.access.entry_hash, o.reason, o.late, o.log_index) for o in first.outcomes] == [
        (hex32_of(one), hex32_of(two), Reason.NONE, False, 0),
        (hex32_of(two), hex32_of(three), Reason.EXPIRED, False, 1),
    ]
    assert (second.kind, second.size, second.head) == (BatchKind.LATE_ACCESSES, 3, hex32_of(two))
    assert [(o.reason, o.late, o.log_index) for o in second.outcomes] == [(Reason.REVOKED, True, 4)]


def test_the_accesses_of_an_order_are_a_batch_that_says_which_order_and_how_long_it_is_secret() -> None:
    account = VALUES["address"]
    one, two, three = (bytes([number]) * 32 for number in (1, 2, 3))
    logs = [
        log_of("AccessCompelled", one, two, 7, index=0),
        log_of("AccessCompelled", one, three, 7, index=1),
        log_of("LogAppended", account, account, int(BatchKind.COMPELLED_ACCESSES), 2, one, index=2),
        log_of("AccessRecorded", one, two, index=3),
        log_of("LogAppended", account, account, int(BatchKind.ACCESSES), 3, two, index=4),
    ]
    order, other = batches_of(decode_events(logs, LEDGER))
    assert (order.kind, order.size, order.embargo_until) == (BatchKind.COMPELLED_ACCESSES, 2, 7)
    assert [(o.access.consent_id, o.access.entry_hash, o.reason, o.late, o.log_index) for o in order.outcomes] == [
        (hex32_of(one), hex32_of(two), Reason.COMPELLED, False, 0),
        (hex32_of(one), hex32_of(three), Reason.COMPELLED, False, 1),
    ]
    assert (other.kind, other.embargo_until) == (BatchKind.ACCESSES, 0)


def test_entries_that_no_batch_closes_make_none() -> None:
    assert batches_of(decode_events([log_of("AccessRecorded", b"\1" * 32, b"\2" * 32)], LEDGER)) == []


@pytest.mark.parametrize(
    "log",
    [
        log_of("AccessRefused", b"\1" * 32, b"\2" * 32, len(Reason)),
        log_of("LogAppended", VALUES["address"], VALUES["address"], len(BatchKind), 1, b"\1" * 32),
    ],
)
def test_a_number_that_the_interface_does_not_have_fails_closed(log: dict[str, Any]) -> None:
    with pytest.raises(ChainUnavailableError):
        batches_of(decode_events([log], LEDGER))


def test_calls_with_arguments_of_other_types_are_not_encoded() -> None:
    # The types are the contract's: nothing is cut to fit.
    for args in ((b"\0" * 33, "0x" + "11" * 20), (b"\0" * 32, "0x11"), (b"\0" * 32,)):
        with pytest.raises(Exception, match=r".+"):
            call("status", *args)
    assert contract.SELECTORS["status"] == call("status", b"\0" * 32, "0x" + "11" * 20)[:4]
