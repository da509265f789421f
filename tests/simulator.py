"""A chain in memory with the contract's rules, behind the protocol of `ledger.chain.Chain`, and with faults at will.

Time is the test's clock. A block is mined for each transaction as on the devnet, unless `automine` is off. Faults:

- `down`: nothing answers. `before(method, act)`: do something just before a call, once; raising makes that call fail.
- `penniless`: accounts that cannot pay for gas.
- `nonces_behind`: the node that is asked for the next nonce does not know the last so many, or knows too many.
- `drop`: that many transactions are taken and vanish. `lose_replies`: that many are taken, and the sender never hears.
- `reorg`, `restart_empty`: the chain loses its tail, or all of it, the contract included.
- `lie`: every receipt goes through it. `finality_lag`: how far `finalized` is behind; `behind`: so many of the newest
  blocks, and the receipts in them, are not known yet.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from contract_rules import NO_LOG, Call, ContractState, SmartAccount
from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_account.typed_transactions.typed_transaction import TypedTransaction
from eth_utils import keccak, to_checksum_address
from hexbytes import HexBytes

from ledger.chain import Block, Fate, Prospect, RawTransaction, Receipt
from ledger.consent import Address, ConsentState, Domain, Hex32, Reason, hex32_of
from ledger.contract import LogState, decode_call
from ledger.contract_events import EVENTS, Event
from ledger.errors import (
    ChainUnavailableError,
    ConfirmationTimeoutError,
    ContractMissingError,
    LedgerError,
    TransactionRevertedError,
    WrongChainError,
)
from ledger.stateproof import StateProof

FIRST_BLOCK = Hex32("0x" + "11" * 32)
BASE_FEE = 1_000_000_000
GAS_OF_A_TRANSACTION = 21_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """A transaction as the node reads it."""

    raw: bytes
    transaction_hash: Hex32
    sender: Address
    nonce: int
    to: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class MinedBlock:
    """A block, and everything as it was just after it."""

    block: Block
    transactions: tuple[Transaction, ...]
    receipts: tuple[Receipt, ...]
    state: ContractState
    nonces: dict[Address, int]
    deployed: bool


class SimulatedChain:
    """One node with one contract. Thread-safe."""

    def __init__(self, domain: Domain, clock: Callable[[], int]) -> None:
        self._domain = domain
        self._clock = clock
        self._lock = threading.RLock()
        self._hooks: defaultdict[str, list[Callable[[], object]]] = defaultdict(list)
        self._epoch = 0
        self.smart_accounts: dict[Address, SmartAccount] = {}
        self.automine = True
        self.down = False
        self.penniless: set[Address] = set()
        self.nonces_behind = 0
        self.drop = 0
        self.lose_replies = 0
        self.finality_lag = 0
        self.behind = 0
        self.serves_chain_id = domain.chain_id
        self.lie: Callable[[Receipt], Receipt] = lambda receipt: receipt
        self.sent: list[bytes] = []
        self.restart_empty(deployed=True)

    # ---------------------------------------------------------------------------------------------- what a test can do

    def before(self, method: str, act: Callable[[], object]) -> None:
        """Run `act` just before the next call of `method`, once."""
        self._hooks[method].append(act)

    def mine(self, *, at: int | None = None) -> Block:
        """Put what waits into a block. `at` is its time; the clock's if not given, never less than the last one's."""
        with self._lock:
            tip = self._blocks[-1]
            number = tip.block.number + 1
            timestamp = max(self._clock() if at is None else at, tip.block.timestamp)
            state, nonces = tip.state.copy(), dict(tip.nonces)
            ready = self._take_ready(nonces)
            digest = b"".join(bytes.fromhex(each.transaction_hash[2:]) for each in ready)
            seed = bytes.fromhex(tip.block.block_hash[2:]) + number.to_bytes(8) + self._epoch.to_bytes(8) + digest
            block = Block(number=number, block_hash=hex32_of(keccak(seed)), timestamp=timestamp, base_fee=BASE_FEE)
            receipts: list[Receipt] = []
            for each in ready:
                receipts.append(self._execute(each, block, state, receipts, deployed=tip.deployed))
            self._blocks.append(
                MinedBlock(
                    block=block,
                    transactions=tuple(ready),
                    receipts=tuple(receipts),
                    state=state,
                    nonces=nonces,
                    deployed=tip.deployed,
                )
            )
            return block

    def reorg(
        self, depth: int, *, keep: bool | Address = False, meanwhile: Callable[[], object] = lambda: None
    ) -> list[bytes]:
        """Replace the last blocks by empty ones and one more. With `keep` their transactions come back after that.

        Or only those of one sender. `meanwhile` happens on the new branch first, before the transactions that are kept.
        Returns the transactions that were in the blocks.
        """
        with self._lock:
            self._epoch += 1
            gone = self._blocks[-depth:]
            del self._blocks[-depth:]
            self._pool.clear()
            meanwhile()
            if keep:
                came = [each for block in gone for each in block.transactions]
                self._pool.extend(each for each in came if keep is True or each.sender == keep)
            for _ in range(depth + 1):
                self.mine()
            return [each.raw for block in gone for each in block.transactions]

    def return_to_pool(self, *raws: bytes) -> None:
        """As a node does with the transactions of blocks that it left: those that can still be mined wait again."""
        with self._lock:
            for transaction in map(self._read, raws):
                used = transaction.nonce < self._blocks[-1].nonces.get(transaction.sender, 0)
                if not used and transaction not in self._pool:
                    self._pool.append(transaction)

    def restart_empty(self, *, deployed: bool = False) -> None:
        """The node comes back knowing nothing. `deployed`: the contract was put back already."""
        with self._lock:
            self._epoch += 1
            genesis = Block(number=0, block_hash=FIRST_BLOCK, timestamp=0, base_fee=BASE_FEE)
            self._pool: list[Transaction] = []
            self._blocks = [
                MinedBlock(
                    block=genesis, transactions=(), receipts=(), state=ContractState(), nonces={}, deployed=deployed
                )
            ]

    def deploy(self) -> None:
        """Put the contract at its address."""
        with self._lock:
            self._blocks[-1] = replace(self._blocks[-1], deployed=True)
            self.mine()

    def adopt(self, other: SimulatedChain) -> None:
        """Begin with the blocks of another chain of the same contract."""
        self._blocks = list(other._blocks)

    def transact(self, account: LocalAccount, calldata: bytes) -> Receipt | None:
        """Someone sends a transaction by themselves, whatever the faults are. None while it is in no block."""
        with self._lock:
            transaction = self._read(
                self._signed(account, calldata, 1_000_000, self._next_nonce(Address(account.address))).raw
            )
            self._pool.append(transaction)
            if self.automine:
                self.mine()
            return self._find(transaction.transaction_hash)

    @property
    def blocks(self) -> list[Block]:
        """The canonical chain."""
        with self._lock:
            return [mined.block for mined in self._blocks]

    @property
    def _known(self) -> list[MinedBlock]:
        return self._blocks[: len(self._blocks) - self.behind]

    @property
    def state(self) -> ContractState:
        """The contract's storage at the latest block."""
        with self._lock:
            return self._blocks[-1].state

    def all_events(self) -> list[Event]:
        """Everything the contract emitted on the canonical chain."""
        with self._lock:
            return [event for block in self._blocks for receipt in block.receipts for event in receipt.events]

    # --------------------------------------------------------------------------------------------------- the protocol

    @property
    def domain(self) -> Domain:
        return self._domain

    def check(self) -> None:
        self._enter("check")
        if self.serves_chain_id != self._domain.chain_id:
            raise WrongChainError("chain id: the endpoint serves another")
        self._require_contract()

    def latest(self) -> Block:
        self._enter("latest")
        return self._known[-1].block

    def block_hash(self, number: int) -> Hex32 | None:
        self._enter("block_hash")
        with self._lock:
            known = self._known
            return known[number].block.block_hash if 0 <= number < len(known) else None

    def block_hashes(self, numbers: Sequence[int]) -> tuple[list[Hex32 | None], int]:
        self._enter("block_hashes")
        return [self.block_hash(number) for number in numbers], self._known[-1].block.number

    def finalized(self, tag: str) -> int:
        self._enter("finalized")
        lag = 0 if tag == "latest" else self.finality_lag
        return max(0, self._blocks[-1].block.number - lag)

    def statuses(self, consent_ids: Sequence[Hex32], custodian: Address) -> list[Reason]:
        self._enter("statuses")
        self._require_contract()
        with self._lock:
            state = self.state
            number, now = state.numbers.get(custodian, 0), self._now()
            return [
                state.consents.get(consent_id, ConsentState()).reason(at=now, custodian_number=number)
                for consent_id in consent_ids
            ]

    def statuses_after(
        self, number: int, consent_ids: Sequence[Hex32], custodian: Address
    ) -> tuple[list[Reason], Hex32 | None]:
        return self.statuses(consent_ids, custodian), self.block_hash(number)

    def prospect(
        self, consent_ids: Sequence[Hex32], custodian: Address, sender: Address
    ) -> tuple[list[Reason], Prospect]:
        reasons = self.statuses(consent_ids, custodian)
        return reasons, Prospect(nonce=self._next_nonce(sender) - self.nonces_behind, base_fee=BASE_FEE)

    def consent(self, consent_id: Hex32) -> ConsentState:
        self._enter("consent")
        self._require_contract()
        return self.state.consents.get(consent_id, ConsentState())

    def consents(self, consent_ids: Sequence[Hex32]) -> list[ConsentState]:
        return [self.consent(consent_id) for consent_id in consent_ids]

    def log(self, custodian: Address, writer: Address) -> LogState:
        self._enter("log")
        self._require_contract()
        return self.state.logs.get((custodian, writer), NO_LOG)

    def fate(self, transaction_hash: Hex32, custodian: Address, writer: Address) -> Fate:
        mined_nonce = self.mined_nonce(writer)
        log = self.log(custodian, writer)
        return Fate(receipt=self.receipt(transaction_hash), log=log, mined_nonce=mined_nonce)

    def simulate(self, sender: Address, calldata: bytes, *, gas: int) -> None:
        self._enter("simulate")
        self._require_contract()
        if gas < GAS_OF_A_TRANSACTION:
            raise TransactionRevertedError("intrinsic gas too low")
        with self._lock:
            self._call(self.state.copy(), sender, self._now(), calldata)

    def sign(
        self, account: LocalAccount, calldata: bytes, *, gas: int, prospect: Prospect | None = None
    ) -> RawTransaction:
        self._enter("sign")
        nonce = prospect.nonce if prospect else self._next_nonce(Address(account.address)) - self.nonces_behind
        return self._signed(account, calldata, gas, nonce)

    def send(self, raw: bytes) -> None:
        self._enter("send")
        with self._lock:
            self.sent.append(raw)
            transaction = self._read(raw)
            known = self._find(transaction.transaction_hash) is not None or transaction in self._pool
            if known or transaction.nonce < self._blocks[-1].nonces.get(transaction.sender, 0):
                return
            if transaction.sender in self.penniless:
                raise TransactionRevertedError("the chain did not take the transaction: insufficient funds for gas")
            if self.drop:
                self.drop -= 1
                return
            self._pool.append(transaction)
            if self.automine:
                self.mine()
            if self.lose_replies:
                self.lose_replies -= 1
                raise ChainUnavailableError("the reply was lost")

    def receipt(self, transaction_hash: Hex32) -> Receipt | None:
        self._enter("receipt")
        found = self._find(transaction_hash)
        return self.lie(found) if found else None

    def wait(self, transaction_hash: Hex32, *, timeout: float) -> Receipt:
        deadline = time.monotonic() + timeout
        while True:
            if receipt := self.receipt(transaction_hash):
                return receipt
            if time.monotonic() >= deadline:
                raise ConfirmationTimeoutError(f"not in a block after {timeout:g} s: {transaction_hash}")
            time.sleep(0.001)

    def nonce(self, account: Address) -> int:
        self._enter("nonce")
        return self._next_nonce(account)

    def mined_nonce(self, account: Address) -> int:
        self._enter("mined_nonce")
        return self._blocks[-1].nonces.get(account, 0)

    def is_contract(self, account: Address) -> bool:
        self._enter("is_contract")
        return account in self.smart_accounts

    def accepts_signature(self, account: Address, digest: Hex32, signature: bytes) -> bool:
        self._enter("accepts_signature")
        return account in self.smart_accounts and self.smart_accounts[account](digest, signature)

    def events(self, first: int, last: int, *, names: Collection[str] = EVENTS) -> list[Event]:
        self._enter("events")
        within = [event for event in self.all_events() if first <= event.block_number <= last]
        return [event for event in within if event.name in names]

    def state_proof(self, number: int, slots: Sequence[Hex32]) -> StateProof:  # noqa: ARG002 - as the protocol has it
        raise ChainUnavailableError("a simulated chain has no Merkle trees")

    # --------------------------------------------------------------------------------------------------------- inside

    def _enter(self, method: str) -> None:
        if self._hooks[method]:
            self._hooks[method].pop(0)()
        if self.down:
            raise ChainUnavailableError("no usable answer from the chain: connection refused")

    def _require_contract(self) -> None:
        if not self._blocks[-1].deployed:
            raise ContractMissingError(f"no contract at {self._domain.contract}: run `consent-ledger deploy`")

    def _now(self) -> int:
        # A view sees the time of the last block, which stands still while nothing happens.
        return self._blocks[-1].block.timestamp

    def _signed(self, account: LocalAccount, calldata: bytes, gas: int, nonce: int) -> RawTransaction:
        fields: dict[str, Any] = {
            "type": 2,
            "chainId": self._domain.chain_id,
            "nonce": nonce,
            "to": str(self._domain.contract),
            "data": calldata,
            "value": 0,
            "gas": gas,
            "maxFeePerGas": 2 * BASE_FEE,
            "maxPriorityFeePerGas": 0,
        }
        raw = bytes(account.sign_transaction(fields).raw_transaction)
        return RawTransaction(raw=raw, transaction_hash=hex32_of(keccak(raw)), nonce=nonce)

    def _next_nonce(self, account: Address) -> int:
        with self._lock:
            waiting = {each.nonce for each in self._pool if each.sender == account}
            nonce = self._blocks[-1].nonces.get(account, 0)
            while nonce in waiting:
                nonce += 1
            return nonce

    def _read(self, raw: bytes) -> Transaction:
        fields = TypedTransaction.from_bytes(HexBytes(raw)).as_dict()
        if fields["chainId"] != self.serves_chain_id:
            raise TransactionRevertedError("the chain did not take the transaction: invalid chain id")
        return Transaction(
            raw=raw,
            transaction_hash=hex32_of(keccak(raw)),
            sender=Address(Account.recover_transaction(raw)),
            nonce=int(fields["nonce"]),
            to=to_checksum_address(bytes(fields["to"])),
            data=bytes(fields["data"]),
        )

    def _take_ready(self, nonces: dict[Address, int]) -> list[Transaction]:
        """Of what waits: every transaction whose nonce is next, in the order it came. Counts them in `nonces`."""
        ready: list[Transaction] = []
        while found := next((each for each in self._pool if each.nonce == nonces.get(each.sender, 0)), None):
            self._pool.remove(found)
            nonces[found.sender] = found.nonce + 1
            ready.append(found)
        self._pool = [each for each in self._pool if each.nonce >= nonces.get(each.sender, 0)]
        return ready

    def _execute(
        self, each: Transaction, block: Block, state: ContractState, earlier: Sequence[Receipt], *, deployed: bool
    ) -> Receipt:
        before, emitted, succeeded = state.copy(), [], True
        try:
            # An account without code takes every call and does nothing.
            emitted = self._call(state, each.sender, block.timestamp, each.data) if deployed else []
        except LedgerError:
            state.consents, state.numbers, state.logs = before.consents, before.numbers, before.logs
            succeeded = False
        first = sum(len(receipt.events) for receipt in earlier)
        return Receipt(
            transaction_hash=each.transaction_hash,
            succeeded=succeeded,
            block_number=block.number,
            block_hash=block.block_hash,
            transaction_index=len(earlier),
            events=tuple(
                Event(
                    name=name,
                    args=args,
                    log_index=first + index,
                    block_number=block.number,
                    block_hash=block.block_hash,
                    transaction_hash=each.transaction_hash,
                )
                for index, (name, args) in enumerate(emitted)
            ),
        )

    def _call(self, state: ContractState, sender: Address, now: int, data: bytes) -> list[tuple[str, tuple[Any, ...]]]:
        name, args = decode_call(data)
        return Call(state, self._domain, sender, now, self.smart_accounts).run(name, args)

    def _find(self, transaction_hash: Hex32) -> Receipt | None:
        with self._lock:
            receipts: Iterable[Receipt] = (receipt for block in reversed(self._known) for receipt in block.receipts)
            return next((receipt for receipt in receipts if receipt.transaction_hash == transaction_hash), None)
