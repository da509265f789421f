"""Evidence: how an institution checks a receipt by itself, with the custodian's key and not at the custodian's word.

- `verify_receipt` asks an RPC endpoint.
- `verify_bundle` asks no one. A bundle (`proof.py` makes it) leads from the receipt to the log's head, and from there
  to the hash of a block, which the verifier has from elsewhere: years later, when no node has the state any more.

A bundle, version 1, is a JSON object:

    receipt       the AccessReceipt (a JWT)
    header        the fields of a block's header, named as in JSON-RPC
    headerRlp     the same as the bytes that are hashed
    accountProof  trie nodes from the header's state root to the contract's account
    storageProof  two lists of nodes, from the account's storage root to the two slots of the writer's log
    batches       every batch of that log from the entry's to the last one by that block, each with expectedHead, kind,
                  accesses (pairs of consent id and entry hash) and reasons, numbered as in the contract

Version 2 is the same for a log in which accesses were ordered by an authority: a batch of that kind has the order's
hash in the place of the consent's id, and `embargoUntil`. Where there is none of them, version 1 is written.

Where in its block the transaction stands, which the receipt says too, is not in a bundle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from joserfc.jwk import ECKey

from ledger.access import COMPELLED, AccessEntry, BatchKind, LoggedAccess, entry_hash_of, fold, fold_compelled
from ledger.chain import Chain, Receipt
from ledger.compelled import CompelledOrder, order_hash_of
from ledger.consent import Address, Domain, Hex32, Reason, parse_address, parse_hex32
from ledger.contract_events import Appended, Outcome, batches_of
from ledger.errors import AuditError, MalformedError
from ledger.exchange import RECEIPT_TYPE, verify_claims
from ledger.stateproof import StateProof, block_hash_of, header_fields, log_of, log_slots, storage_root, storage_word

BUNDLE_VERSION: Final = 1
BUNDLE_VERSION_WITH_ORDERS: Final = 2
_BUNDLE: Final = frozenset({"version", "receipt", "header", "headerRlp", "accountProof", "storageProof", "batches"})
_BATCH: Final = frozenset({"expectedHead", "kind", "accesses", "reasons"})
_ORDER_BATCH: Final = _BATCH | {"embargoUntil"}
_WORDS: Final = ("consentId", "releaseId", "requestHash", "recordsHash", "salt")
# What reading a claim of another form than expected raises.
_MALFORMED: Final = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError, MalformedError)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedAccess:
    """An entry that was found on chain where its receipt says, recorded and not refused, or ordered by an authority."""

    entry: AccessEntry
    outcome: Outcome
    batch: Appended
    block_number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvenAccess:
    """An entry that is in the log by the block's hash alone, recorded and not refused, or ordered by an authority.

    `anchored` is whether that hash was the verifier's: if not, the bundle agrees with itself and proves nothing yet.
    `timestamp` is the block's, Unix seconds. `late` entries came back to the log after their consent had ended.
    """

    entry: AccessEntry
    late: bool
    block_number: int
    block_hash: Hex32
    timestamp: int
    anchored: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedReceipt:
    """What a receipt says: the entry, whose hash holds, and where on chain it stands."""

    entry: AccessEntry
    entry_hash: Hex32
    late: bool
    proof: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    expected_head: Hex32
    kind: BatchKind
    accesses: tuple[LoggedAccess, ...]
    reasons: tuple[Reason, ...]
    embargo_until: int | None

    def head(self) -> Hex32:
        if self.kind is BatchKind.COMPELLED_ACCESSES:
            (order_hash,) = {access.consent_id for access in self.accesses}
            assert self.embargo_until is not None, "read with it"
            _require(self.reasons == (Reason.COMPELLED,) * len(self.accesses), "a reason of another kind")
            entry_hashes = [access.entry_hash for access in self.accesses]
            return fold_compelled(self.expected_head, order_hash, self.embargo_until, entry_hashes)
        return fold(self.expected_head, self.kind, self.accesses, self.reasons)


def open_receipt(receipt: str, custodian_key: ECKey) -> OpenedReceipt:
    """What the custodian says, signed; whether it is so is for the chain to show. Raises `AuditError`."""
    claims = verify_claims(receipt, custodian_key, RECEIPT_TYPE)
    try:
        opening = claims["entry"]
        for name in _WORDS:
            # Longer and shorter ones could be put together to the same hash.
            _exactly(opening[name])
        entry = AccessEntry.from_json(opening)
        entry_hash = entry_hash_of(entry)
        _require(entry_hash == claims["entryHash"], "the opening does not have the hash that it names")
        if entry.purpose == COMPELLED:
            ordered = order_hash_of(CompelledOrder.from_json(claims["order"]))
            _require(ordered == entry.consent_id, "the order's opening does not have the hash that the entry names")
        _require(isinstance(claims["proof"], Mapping), "it does not say where the entry stands")
        return OpenedReceipt(entry=entry, entry_hash=entry_hash, late=claims["late"], proof=claims["proof"])
    except _MALFORMED as exc:
        raise AuditError("a receipt without all of its claims") from exc


def _require_about(domain: Domain, opened: OpenedReceipt) -> None:
    _require(opened.proof["chainId"] == domain.chain_id, "it is about another chain")
    _require(opened.proof["contract"] == domain.contract, "it is about another contract")


# ------------------------------------------------------------------------------------------------- against the chain


def verify_receipt(receipt: str, chain: Chain, custodian_key: ECKey) -> VerifiedAccess:
    """Check an AccessReceipt against the chain.

    (1) The custodian signed it. (2) Its opening has the hash that it names. (3) The transaction is on chain, in the
    block that it names, and is the contract's. (4) At the log index stands an access with this consent and this hash,
    recorded while the consent was in force, or openly late. (5) The writer's log had the size and the head that it
    names.

    Raises `AuditError` saying what does not hold, `ChainError`.
    """
    # (1) and (2)
    opened = open_receipt(receipt, custodian_key)
    proof = opened.proof
    try:
        _require_about(chain.domain, opened)
        # (3)
        mined = chain.receipt(parse_hex32(proof["transactionHash"], "transactionHash"))
        if mined is None or not mined.succeeded:
            raise AuditError("the transaction is not on chain")
        place = (mined.block_hash, mined.block_number)
        _require(place == (proof["blockHash"], proof["blockNumber"]), "the transaction is in another block")
        _require(chain.block_hash(mined.block_number) == mined.block_hash, "the block is not on the canonical chain")
        # (4) and (5)
        batch, outcome = _find(mined, proof)
        _require(outcome.access.consent_id == opened.entry.consent_id, "the entry is of another consent")
        _require(outcome.access.entry_hash == opened.entry_hash, "another entry stands there")
        _require_let_out(outcome.reason, opened.entry, late=outcome.late)
        _require(outcome.late == opened.late, "it does not say that the entry is late")
        _require((batch.size, batch.head) == (proof["size"], proof["head"]), "the log was not at that head")
    except _MALFORMED as exc:
        raise AuditError("a receipt without all of its claims") from exc
    return VerifiedAccess(entry=opened.entry, outcome=outcome, batch=batch, block_number=mined.block_number)


def _find(mined: Receipt, proof: Mapping[str, Any]) -> tuple[Appended, Outcome]:
    for batch in batches_of(mined.events):
        for outcome in batch.outcomes:
            if outcome.log_index == proof["logIndex"]:
                same_log = (batch.custodian, batch.writer) == (proof["custodian"], proof["writer"])
                _require(same_log, "it is in the log of another writer")
                return batch, outcome
    raise AuditError("there is no entry at that log index")


def _require_let_out(reason: Reason, entry: AccessEntry, *, late: bool) -> None:
    """What left under a consent was in force or is openly late; what an authority ordered says so itself."""
    _require((reason is Reason.COMPELLED) == (entry.purpose == COMPELLED), "it does not say that it was ordered")
    _require(reason in (Reason.NONE, Reason.COMPELLED) or late, "the entry was refused")


def _require(holds: bool, otherwise: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not holds:
        raise AuditError(f"the receipt does not verify: {otherwise}")


# ------------------------------------------------------------------------------------------------------------ offline


def bundle_of(receipt: str, state: StateProof, batches: Sequence[tuple[Hex32, Appended]]) -> dict[str, Any]:
    """A bundle of these parts; each batch comes with the head that it was appended to."""
    ordered = any(batch.kind is BatchKind.COMPELLED_ACCESSES for _, batch in batches)
    return {
        "version": BUNDLE_VERSION_WITH_ORDERS if ordered else BUNDLE_VERSION,
        "receipt": receipt,
        "header": header_fields(state.header),
        "headerRlp": "0x" + state.header.hex(),
        "accountProof": ["0x" + node.hex() for node in state.account],
        "storageProof": [["0x" + node.hex() for node in nodes] for nodes in state.storage],
        "batches": [
            {
                "expectedHead": head,
                "kind": int(batch.kind),
                "accesses": [[one.access.consent_id, one.access.entry_hash] for one in batch.outcomes],
                "reasons": [int(one.reason) for one in batch.outcomes],
                **({"embargoUntil": batch.embargo_until} if batch.kind is BatchKind.COMPELLED_ACCESSES else {}),
            }
            for head, batch in batches
        ],
    }


def verify_bundle(
    bundle: Mapping[str, Any], custodian_key: ECKey, *, domain: Domain, block_hash: Hex32 | None
) -> ProvenAccess:
    """Check a bundle without any network.

    (1) The custodian signed the receipt, and its opening has the hash that it names. (2) The header has the hash
    `block_hash`, which must come from a source that the verifier trusts: a node, an explorer, a note of that day.
    (3) By the header's state root the contract's storage is what the nodes lead to; (4) by its storage root the
    writer's log had this head and this size. (5) The batches fold to that head, each onto the one before. (6) The entry
    is in the first of them, recorded while the consent was in force, or openly late.

    Raises `AuditError` saying what does not hold.
    """
    try:
        version = bundle["version"]
        known = type(version) is int and version in (BUNDLE_VERSION, BUNDLE_VERSION_WITH_ORDERS)
        _require(set(bundle) == _BUNDLE and known, "expected a bundle of version 1 or 2")
        # (1)
        opened = open_receipt(bundle["receipt"], custodian_key)
        _require_about(domain, opened)
        # (2)
        header = _bytes_of(bundle["headerRlp"])
        fields = header_fields(header)
        _require(bundle["header"] == fields, "the header's fields are not those of its bytes")
        found, number = block_hash_of(header), int(fields["number"], 16)
        _require(block_hash in (None, found), "the block has another hash")
        own = (opened.proof["blockNumber"], opened.proof["blockHash"])
        _require((number, found) == own or number > own[0], "the block is not the entry's, and not a later one")
        # (3) and (4)
        proven = _proven_log(bundle, opened, parse_hex32(fields["stateRoot"], "stateRoot"), domain.contract)
        # (5) and (6)
        batches = [_batch_of(one) for one in bundle["batches"]]
        ordered = any(batch.kind is BatchKind.COMPELLED_ACCESSES for batch in batches)
        _require(ordered == (version == BUNDLE_VERSION_WITH_ORDERS), "its version is not that of its batches")
        _require_linked(batches, proven, opened)
        late = _require_recorded(batches[0], opened)
    except _MALFORMED as exc:
        raise AuditError("a bundle that is not of its form") from exc
    return ProvenAccess(
        entry=opened.entry,
        late=late,
        block_number=number,
        block_hash=found,
        timestamp=int(fields["timestamp"], 16),
        anchored=block_hash is not None,
    )


def _proven_log(
    bundle: Mapping[str, Any], opened: OpenedReceipt, state_root: Hex32, contract: Address
) -> tuple[Hex32, int]:
    """Head and size of the writer's log at the block."""
    custodian, writer = (parse_address(opened.proof[name], name) for name in ("custodian", "writer"))
    root = storage_root(state_root, contract, [_bytes_of(node) for node in bundle["accountProof"]])
    first, second = (
        storage_word(root, slot, [_bytes_of(node) for node in nodes])
        for slot, nodes in zip(log_slots(custodian, writer), bundle["storageProof"], strict=True)
    )
    return log_of((first, second))


def _require_linked(batches: Sequence[_Batch], proven: tuple[Hex32, int], opened: OpenedReceipt) -> None:
    head, size = proven
    heads = [batch.head() for batch in batches]
    _require([batch.expected_head for batch in batches[1:]] == heads[:-1], "a batch is missing")
    _require(heads[-1] == head, "the batches do not lead to the log's head")
    later = sum(len(batch.accesses) for batch in batches[1:])
    _require((heads[0], size - later) == (opened.proof["head"], opened.proof["size"]), "the entry's batch is another")


def _require_recorded(batch: _Batch, opened: OpenedReceipt) -> bool:
    """Whether it was recorded late."""
    access = LoggedAccess(consent_id=opened.entry.consent_id, entry_hash=opened.entry_hash)
    _require(access in batch.accesses, "the entry is not in its batch")
    reason = batch.reasons[batch.accesses.index(access)]
    late = batch.kind is BatchKind.LATE_ACCESSES and reason is not Reason.NONE
    _require((batch.kind is BatchKind.COMPELLED_ACCESSES) == (reason is Reason.COMPELLED), "a reason of another kind")
    _require_let_out(reason, opened.entry, late=late)
    _require(late == opened.late, "it does not say that the entry is late")
    return late


def _batch_of(fields: Mapping[str, Any]) -> _Batch:
    ordered = fields["kind"] == BatchKind.COMPELLED_ACCESSES
    _require(set(fields) == (_ORDER_BATCH if ordered else _BATCH), "a batch has other fields")
    embargo_until = fields["embargoUntil"] if ordered else None
    _require(type(embargo_until) is int or not ordered, "expected a time in whole seconds")
    accesses = tuple(
        LoggedAccess(consent_id=_exactly(consent_id), entry_hash=_exactly(entry_hash))
        for consent_id, entry_hash in fields["accesses"]
    )
    return _Batch(
        expected_head=_exactly(fields["expectedHead"]),
        kind=BatchKind(fields["kind"]),
        accesses=accesses,
        reasons=tuple(Reason(number) for number in fields["reasons"]),
        embargo_until=embargo_until,
    )


def _exactly(text: object) -> Hex32:
    found = parse_hex32(text, "hash")
    _require(found == text, "a hash is not in lower case")
    return found


def _bytes_of(text: str) -> bytes:
    raw = bytes.fromhex(text[2:])
    _require(text == f"0x{raw.hex()}", "expected 0x and hex digits in lower case")
    return raw
