"""Relaying signed acts: one lane for each account, durable before it is sent, judged by its outcome.

Acts are idempotent by what they say (a consent is granted once, a revocation stays), so an act may be signed again into
another transaction; what counts is the state that the contract ends in. Anyone may have relayed the same act first.
While a transaction may still be mined, its very bytes are sent again: on a chain that stands still each try would be
one more that waits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from eth_account.signers.local import LocalAccount

from ledger.chain import Chain, Receipt, nonce_of
from ledger.consent import Address, Hex32, State
from ledger.contract import decode_call
from ledger.errors import (
    ChainError,
    ChainUnavailableError,
    ConsentAlreadyGrantedError,
    StalePauseSequenceError,
    StoreUnavailableError,
    TransactionRevertedError,
    VaultError,
)
from ledger.journal import Act, Journal
from ledger.locks import FileLock

GAS_BASE: Final = 500_000
GAS_PER_CONSENT: Final = 40_000
EVENTS: Final = {
    "grant": "ConsentGranted",
    "revoke": "ConsentRevoked",
    "custodian-revoke": "ConsentRevoked",
    "pause": "ConsentPauseSet",
    "writer": "WriterSet",
}
"""What the contract emits when it takes an act of that kind."""
UNKNOWN: Final = (ChainError, VaultError)
"""Errors that say nothing of what the contract thinks of an act: nobody answers, another process has the lane, or the
database is busy, perhaps after the act was sent."""


def gas_for(consents: int) -> int:
    """The limit of a transaction about so many consents.

    To be asked with the same: a smart account that goes by the gas it gets could say yes to the question alone.
    """
    return GAS_BASE + GAS_PER_CONSENT * consents


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

        Raises the contract's error if it will never take the act; one of `UNKNOWN` if the outcome is unknown: the act
        stays pending and `sync` goes on with it.
        """
        with self._lane(self._journal.act(act_id).lane):
            # As whoever had the lane last has left it.
            receipt = self._send(self._journal.act(act_id))
        self._journal.anchor_act(act_id, receipt)
        return receipt

    @contextmanager
    def _lane(self, address: str) -> Iterator[None]:
        """Nobody else sends from there. Raises `StoreUnavailableError` if somebody does for longer than the timeout."""
        if not self._threads[address].acquire(timeout=self._timeout):
            raise StoreUnavailableError("another request sends from this account: ask again")
        try:
            with FileLock(self._locks / f"{address}.lock").hold(timeout=self._timeout):
                yield
        finally:
            self._threads[address].release()

    def _send(self, act: Act) -> Receipt:
        if earlier := self._earlier(act):
            return earlier
        transaction_hash = self._sent_again(act) or self._sent_anew(act)
        self._step("act sent")
        receipt = self._chain.wait(transaction_hash, timeout=self._timeout)
        if not receipt.succeeded:
            if earlier := self._earlier(act):
                return earlier
            self._require_same_outcome(act)
        elif not self._is_done(act, receipt):
            raise ChainUnavailableError("the endpoint's receipt does not show what the transaction should have done")
        return receipt

    def _earlier(self, act: Act) -> Receipt | None:
        """That of the act's last transaction, if it did what it should."""
        earlier = self._chain.receipt(act.transaction_hash) if act.transaction_hash else None
        return earlier if earlier is not None and earlier.succeeded and self._is_done(act, earlier) else None

    def _sent_again(self, act: Act) -> Hex32 | None:
        """The hash of the act's last transaction, sent once more; None if it is or will be mined no more."""
        if act.raw is None or act.transaction_hash is None:
            return None
        lane, nonce = Address(act.lane), nonce_of(act.raw)
        # Ahead of the next nonce it waits for one before it, which may have been dropped.
        if not self._chain.mined_nonce(lane) <= nonce <= self._chain.nonce(lane):
            return None
        self._step("act durable")
        try:
            self._chain.send(act.raw)
        except TransactionRevertedError:
            # Not as it is: the price of gas may be above what it offers.
            return None
        return act.transaction_hash

    def _sent_anew(self, act: Act) -> Hex32:
        transaction = self._chain.sign(self._accounts[act.lane], act.calldata, gas=gas_for(len(act.consent_ids)))
        self._journal.attach_transaction(act.act_id, transaction)
        self._step("act durable")
        self._chain.send(transaction.raw)
        return transaction.transaction_hash

    def _is_done(self, act: Act, receipt: Receipt) -> bool:
        """Success alone says little: an account without a contract takes every call and does nothing."""
        shown = {event.args[0] for event in receipt.events if event.name == EVENTS[act.kind]}
        if act.kind == "writer":
            return bool(shown)
        missing = [consent_id for consent_id in act.consent_ids if consent_id not in shown]
        # What was revoked before is no event of this transaction.
        revoking = EVENTS[act.kind] == "ConsentRevoked"
        return not missing or (revoking and all(self._chain.consent(each).state is State.REVOKED for each in missing))

    def _require_same_outcome(self, act: Act) -> None:
        """A reverted act is fine if the contract holds it already; otherwise raise why it will not have it."""
        try:
            self._chain.simulate(Address(act.lane), act.calldata, gas=gas_for(len(act.consent_ids)))
        except ConsentAlreadyGrantedError:
            return
        except StalePauseSequenceError:
            # The same act came another way, or a newer one overtook it.
            _, (_, paused, sequence, _) = decode_call(act.calldata)
            on_chain = self._chain.consent(act.consent_ids[0])
            if on_chain.pause_sequence == sequence and (on_chain.state is State.PAUSED) == paused:
                return
            raise
        raise TransactionRevertedError("the contract reverted an act that it would take now: try again")
