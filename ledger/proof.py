"""Proof bundles: a receipt with everything that leads from it to the hash of a block, made for `evidence.py` to check.

The block of the entry itself is proven if the node still has its state; the bundle is then short. Nodes that are no
archives keep the state of the last blocks only: then a recent block is proven, and the bundle has every batch since.
A reorganisation moves entries and a lost chain gets them back, so a bundle is made anew each time, of what stands now.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

from joserfc.jwk import ECKey
from sqlalchemy import Row

from ledger.chain import Chain
from ledger.consent import Address, Hex32
from ledger.contract_events import Appended, batches_of
from ledger.errors import AuditError, ChainUnavailableError
from ledger.evidence import bundle_of, verify_bundle
from ledger.exchange import Party
from ledger.journal import Journal
from ledger.release import Releases
from ledger.stateproof import StateProof, log_slots

EVENT_BLOCKS: Final = 10_000
MAX_ENTRIES: Final = 10_000
MAX_BLOCKS: Final = 20 * EVENT_BLOCKS
"""Between an entry and the block that it is proven by: a bundle has at most some 1.5 MB, and is made in seconds."""


class Proofs:
    """Makes the bundles, and hands out none that does not hold."""

    def __init__(
        self,
        journal: Journal,
        releases: Releases,
        chain: Chain,
        *,
        custodian: Address,
        signing_key: ECKey,
        finality: str,
    ) -> None:
        self._journal, self._releases, self._chain = journal, releases, chain
        self._custodian, self._signing_key, self._finality = custodian, signing_key, finality

    def bundle(self, release_id: Hex32, institution: Party) -> dict[str, Any]:
        """The bundle of a release of this institution, as JSON.

        Raises `NotFoundError` if there is none, the refusal of one that was refused, `ErasedError`, `ChainLostError`,
        and `ChainUnavailableError` also where the node has no state to prove it by.
        """
        row = self._releases.row_of(release_id, institution)
        return self.of_receipt(self._releases.receipt(release_id), row.batch_id)

    def of_receipt(self, receipt: str, batch_id: str) -> dict[str, Any]:
        """The bundle of an entry in that batch, a compelled one too, around its receipt.

        Raises `ChainUnavailableError` also where the node has no state to prove it by.
        """
        batch = self._journal.batch_row(batch_id)
        number, state = self._state(batch)
        made = bundle_of(receipt, state, list(self._batches(batch, number)))
        try:
            verify_bundle(made, self._signing_key, domain=self._chain.domain, block_hash=None)
        except AuditError as exc:
            # The endpoint is wrong about something, or the chain changed while it was asked.
            raise ChainUnavailableError("what the chain says does not prove the entry at this moment") from exc
        return made

    def _state(self, batch: Row[Any]) -> tuple[int, StateProof]:
        """The block that is proven, and its proof."""
        slots = log_slots(self._custodian, batch.writer)
        with suppress(ChainUnavailableError):
            return batch.block_number, self._chain.state_proof(batch.block_number, slots)
        recent = self._chain.finalized(self._finality)
        return recent, self._chain.state_proof(recent, slots)

    def _batches(self, batch: Row[Any], last: int) -> Iterator[tuple[Hex32, Appended]]:
        """The writer's batches from this one to the end of a block, each with the head that it was appended to."""
        head, entries = batch.expected_head, 0
        _require_near(last - batch.block_number, MAX_BLOCKS)
        for appended in self._appended(batch, last):
            if appended.size < batch.size:
                # Of the same block, and earlier.
                continue
            entries += len(appended.outcomes)
            _require_near(entries, MAX_ENTRIES)
            yield head, appended
            head = appended.head

    def _appended(self, batch: Row[Any], last: int) -> Iterator[Appended]:
        for first in range(batch.block_number, last + 1, EVENT_BLOCKS):
            events = self._chain.events(first, min(first + EVENT_BLOCKS - 1, last))
            for appended in batches_of(events):
                if (appended.custodian, appended.writer) == (self._custodian, batch.writer):
                    yield appended


def _require_near(distance: int, limit: int) -> None:
    if distance > limit:
        raise ChainUnavailableError("too much was logged since: only a node with the state of that day can prove it")
