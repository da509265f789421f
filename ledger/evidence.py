"""Evidence: how an institution checks a receipt by itself, with nothing but an RPC endpoint and the custodian's key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from joserfc.jwk import ECKey

from ledger.access import AccessEntry, entry_hash_of
from ledger.chain import Chain, Receipt
from ledger.contract import Appended, Outcome, batches_of
from ledger.errors import AuditError
from ledger.exchange import verify_claims


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedAccess:
    """An entry that was found on chain where its receipt says, recorded and not refused."""

    entry: AccessEntry
    outcome: Outcome
    batch: Appended
    block_number: int


def verify_receipt(receipt: str, chain: Chain, custodian_key: ECKey) -> VerifiedAccess:
    """Check an AccessReceipt against the chain.

    (1) The custodian signed it. (2) Its opening has the hash that it names. (3) The transaction is on chain, in the
    block that it names, and is the contract's. (4) At the log index stands an access with this consent and this hash,
    recorded while the consent was in force, or openly late. (5) The writer's log had the size and the head that it
    names.

    Raises `AuditError` saying what does not hold, `ChainError`.
    """
    # (1)
    claims = verify_claims(receipt, custodian_key, "access-receipt+jwt")
    try:
        entry = AccessEntry.from_json(claims["entry"])
        proof: dict[str, Any] = claims["proof"]
        # (2)
        _require(entry_hash_of(entry) == claims["entryHash"], "the opening does not have the hash that it names")
        _require(proof["chainId"] == chain.domain.chain_id, "it is about another chain")
        _require(proof["contract"] == chain.domain.contract, "it is about another contract")
        # (3)
        mined = chain.receipt(proof["transactionHash"])
        if mined is None or not mined.succeeded:
            raise AuditError("the transaction is not on chain")
        _require(mined.block_hash == proof["blockHash"], "the transaction is in another block")
        _require(chain.block_hash(mined.block_number) == mined.block_hash, "the block is not on the canonical chain")
        # (4) and (5)
        batch, outcome = _find(mined, proof)
        _require(outcome.access.consent_id == entry.consent_id, "the entry is of another consent")
        _require(outcome.access.entry_hash == claims["entryHash"], "another entry stands there")
        _require(not outcome.reason or outcome.late, "the entry was refused")
        _require(outcome.late == claims["late"], "it does not say that the entry is late")
        _require((batch.size, batch.head) == (proof["size"], proof["head"]), "the log was not at that head")
    except (KeyError, TypeError) as exc:
        raise AuditError("a receipt without all of its claims") from exc
    return VerifiedAccess(entry=entry, outcome=outcome, batch=batch, block_number=mined.block_number)


def _find(mined: Receipt, proof: dict[str, Any]) -> tuple[Appended, Outcome]:
    for batch in batches_of(mined.events):
        for outcome in batch.outcomes:
            if outcome.log_index == proof["logIndex"]:
                same_log = (batch.custodian, batch.writer) == (proof["custodian"], proof["writer"])
                _require(same_log, "it is in the log of another writer")
                return batch, outcome
    raise AuditError("there is no entry at that log index")


def _require(holds: bool, otherwise: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not holds:
        raise AuditError(f"the receipt does not verify: {otherwise}")
