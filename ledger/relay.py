"""Relaying signed acts: one lane for each account, durable before it is sent, judged by its outcome.

Acts are idempotent by what they say (a consent is granted once, a revocation stays), so an act may be signed again into
another transaction; what counts is the state that the contract ends in. Anyone may have relayed the same act first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from eth_account.signers.local import LocalAccount

from ledger.chain import Chain, Receipt
from ledger.consent import Address
from ledger.errors import (
    ConsentAlreadyGrantedError,
    LedgerError,
    StalePauseSequenceError,
    TransactionRevertedError,
)
from ledger.journal import Act, Journal
from ledger.locks import FileLock

GAS_BASE: Final = 500_000
GAS_PER_CONSENT: Final = 40_000
SAME_OUTCOME: Final = (ConsentAlreadyGrantedError, StalePauseSequenceError)
"""What the contract says when the very same act is there already."""


class Relay:
    """Sends acts from the lane they belong to."""

    def __init__(
        self,
        journal: Journal,
        chain: Chain,
        lanes: Iterable[LocalAccount],
        *,
        locks: Path,
        timeout: float,
        step: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._journal = journal
        self._chain = chain
        self._accounts = {str(account.address): account for account in lanes}
        self._threads = {address: threading.Lock() for address in self._accounts}
        self._locks = locks
        self._timeout = timeout
        self._step = step

    def relay(self, act_id: str) -> Receipt:
        """Bring an act on chain and wait for its block.

        Raises the contract's error if it will never take the act; `ChainUnavailableError` or
        `ConfirmationTimeoutError` if the outcome is unknown: the act stays pending and `sync` goes on with it.
        """
        act = self._journal.act(act_id)
        with self._threads[act.lane], FileLock(self._locks / f"{act.lane}.lock").hold(timeout=self._timeout):
            receipt = self._send(act)
        self._journal.anchor_act(act_id, receipt)
        return receipt

    def _send(self, act: Act) -> Receipt:
        if act.transaction_hash and (receipt := self._chain.receipt(act.transaction_hash)) and receipt.succeeded:
            return receipt
        account = self._accounts[act.lane]
        gas = GAS_BASE + GAS_PER_CONSENT * len(act.consent_ids)
        transaction = self._chain.sign(account, act.calldata, gas=gas)
        self._journal.attach_transaction(act.act_id, transaction)
        self._step("act durable")
        self._chain.send(transaction.raw)
        self._step("act sent")
        receipt = self._chain.wait(transaction.transaction_hash, timeout=self._timeout)
        if not receipt.succeeded:
            self._require_same_outcome(act)
        return receipt

    def _require_same_outcome(self, act: Act) -> None:
        """A reverted act is fine if the contract holds it already; otherwise raise why it will not have it."""
        try:
            self._chain.simulate(Address(act.lane), act.calldata)
        except SAME_OUTCOME:
            return
        except LedgerError:
            raise
        raise TransactionRevertedError("the contract reverted an act that it would take now: try again")
