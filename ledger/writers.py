"""The custodian's writer keys: who has which, and whose log may be built on.

A process holds one key, and with it one log (`locks.py`). A log that is ahead of the journal, with entries on chain
that this journal does not have, is built on no more: either an older backup was restored, or somebody else has the key,
and nothing here can tell which. So nothing goes on by itself. The operator takes the key out of use on chain, for good,
and whichever process has it goes over to another one. The entries stay on the chain; `audit reconcile` names them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from eth_account.signers.local import LocalAccount

from ledger import contract
from ledger.chain import Chain
from ledger.consent import Address
from ledger.errors import LogAheadError, NotFoundError, NotWriterError, StoreUnavailableError
from ledger.journal import Batch, Journal
from ledger.locks import FileLock
from ledger.relay import Relay
from ledger.store import Store

WAIT_SECONDS: Final = 2.0
LOOKS: Final = 3
"""How often a log is looked at that its own process appends to meanwhile: what moves on here is not ahead."""

USABLE: Final = "usable"
AHEAD: Final = "ahead"
RETIRED: Final = "retired"
NOT_ALLOWED: Final = "not_allowed"


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterLog:
    """A writer's log: how many entries it has on chain and on file, and whether it may be built on."""

    address: Address
    state: str
    on_chain: int
    on_file: int


class Writers:
    """Every writer key of this installation."""

    def __init__(
        self,
        accounts: tuple[LocalAccount, ...],
        store: Store,
        journal: Journal,
        chain: Chain,
        relay: Relay,
        *,
        custodian: Address,
        locks: Path,
        clock: Callable[[], int],
    ) -> None:
        self._accounts, self._store, self._journal, self._chain, self._relay = accounts, store, journal, chain, relay
        self._custodian, self._locks, self._clock = custodian, locks, clock

    # ------------------------------------------------------------------------------------------------------- who has it

    def lock_of(self, account: LocalAccount) -> FileLock:
        """Whoever holds it may append by this account."""
        return FileLock(self._locks / f"{account.address}.lock")

    def take(self) -> tuple[FileLock, LocalAccount]:
        """A key that no other process has. Raises `StoreUnavailableError` if there is none for a while.

        The chain is not asked, so that what needs none works without: see `another`.
        """
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            for account in self._accounts:
                lock = self.lock_of(account)
                if lock.acquire():
                    return lock, account
            if time.monotonic() >= deadline:
                break
            time.sleep(0.05)
        raise StoreUnavailableError(f"all {len(self._accounts)} writer keys are in use by other processes")

    def another(self, than: Address) -> tuple[FileLock, LocalAccount] | None:
        """Another key that no process has and whose log may be built on; None if there is none. Raises `ChainError`."""
        for account in self._accounts:
            if Address(account.address) == than:
                continue
            lock = self.lock_of(account)
            if not lock.acquire():
                continue
            is_taken = False
            try:
                is_taken = self.log_of(account).state == USABLE
            finally:
                if not is_taken:
                    lock.release()
            if is_taken:
                return lock, account
        return None

    def require_usable(self, mine: Address) -> None:
        """Raise unless a process with this key can append, by it or by another one that is free.

        Raises `LogAheadError`, `NotWriterError`, and what `another` raises.
        """
        log = self.log_of(self._account(mine))
        if log.state == AHEAD:
            raise LogAheadError(meaning_of(log))
        if log.state != USABLE:
            other = self.another(mine)
            if other is None:
                raise NotWriterError(f"{mine} may not append to this log, and no other writer is there to go on with")
            other[0].release()

    # ------------------------------------------------------------------------------------------- where the logs stand

    def logs(self) -> list[WriterLog]:
        """Every writer's. Raises `ChainError`."""
        return [self.log_of(account) for account in self._accounts]

    def ahead(self) -> list[WriterLog]:
        """Those that are ahead of the journal and not out of use. Raises `ChainError`."""
        return [log for log in self.logs() if log.state == AHEAD]

    def log_of(self, account: LocalAccount) -> WriterLog:
        """Where a writer's log stands, whoever has the key. Raises `ChainError`."""
        address = Address(account.address)
        for _ in range(LOOKS):
            seen = on_file, batch = self._on_file(address)
            if batch is None:
                log, has_landed = self._chain.log(self._custodian, address), False
            else:
                fate = self._chain.fate(batch.transaction_hash, self._custodian, address)
                # Its entries are on file, and settled by whoever has the key, or has it next.
                log, has_landed = fate.log, fate.receipt is not None and fate.receipt.succeeded
            is_ahead = log.size > on_file and not has_landed
            if not is_ahead or seen == self._on_file(address):
                break
        else:
            is_ahead = False
        if log.is_retired:
            state = RETIRED
        elif not log.allowed:
            state = NOT_ALLOWED
        else:
            state = AHEAD if is_ahead else USABLE
        return WriterLog(address=address, state=state, on_chain=log.size, on_file=on_file)

    def _on_file(self, address: Address) -> tuple[int, Batch | None]:
        return self._journal.size_on_file(address), self._journal.pending_batch(address)

    # -------------------------------------------------------------------------------------------- who may, on chain

    def allow(self) -> None:
        """Let every key append to this custodian's log, but those that were taken out of use. Raises `ChainError`."""
        for account in self._accounts:
            log = self._chain.log(self._custodian, Address(account.address))
            if not log.allowed and not log.is_retired:
                self._set(account, allowed=True)

    def add(self, account: LocalAccount) -> WriterLog:
        """Let one more key append. Raises `ChainError`."""
        self._accounts = (*self._accounts, account)
        self._set(account, allowed=True)
        return self.log_of(account)

    def retire(self, address: Address) -> WriterLog:
        """Take a key out of use on chain, for good. Raises `NotFoundError`, `ChainError`.

        Whoever else has it can append no more either. What was in flight and did not land is free for another log.
        """
        account = self._account(address)
        if self.log_of(account).state != RETIRED:
            self._set(account, allowed=False)
        return self.log_of(account)

    def _set(self, account: LocalAccount, *, allowed: bool) -> None:
        calldata = contract.call("setWriter", account.address, allowed)
        with self._store.begin() as tx:
            act_id = self._journal.add_act(
                tx, kind="writer", consent_ids=[], lane=self._custodian, calldata=calldata, at=self._clock()
            )
        self._relay.relay(act_id)

    def _account(self, address: Address) -> LocalAccount:
        for account in self._accounts:
            if Address(account.address) == address:
                return account
        raise NotFoundError("writer: no writer key of that address here", field="writer")


def meaning_of(log: WriterLog) -> str:
    """What a log that is ahead says, in words."""
    return (
        f"the log of writer {log.address} is ahead: {log.on_chain} entries on chain, {log.on_file} in this journal: "
        "an older backup was restored, or somebody else has the key"
    )
