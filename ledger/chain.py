"""The chain, typed. Standard JSON-RPC methods only, so that any EVM network will do; everything fails closed.

Nothing here decides: it asks the contract, sends what it is given, and turns each refusal into its class of
`ledger.errors`.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

import rlp
from eth_account.signers.local import LocalAccount
from eth_keys.datatypes import PrivateKey
from eth_utils import keccak

from ledger import contract
from ledger.consent import Address, ConsentState, Domain, Hex32, Reason, hex32_of, parse_hex32
from ledger.contract import LogState
from ledger.contract_events import EVENTS, TOPICS, Event, decode_events
from ledger.errors import (
    ChainUnavailableError,
    ConfirmationTimeoutError,
    ContractMissingError,
    FeeTooHighError,
    LedgerError,
    MalformedError,
    TransactionRevertedError,
    WrongChainError,
)
from ledger.jsonrpc import JsonRpc, RpcError, in_parts
from ledger.stateproof import StateProof, block_hash_of, counter, header_rlp, quantity

QUESTION_GAS: Final = 1_000_000
"""What an account of somebody else's may burn of the node's time, to say whether it signed."""
BLOCKS_AT_ONCE: Final = 100
LEAST_PRIORITY_FEE: Final = 10**6
"""In wei for a unit of gas: geth takes nothing that offers none, and builds no block of less. On a quiet chain the base
fee is 7."""
MAX_FEE: Final = 500 * 10**9
"""In wei for a unit of gas, unless configured otherwise. The priority fee is paid in full, and how high the base fee is
only the endpoint says: one that means ill could have all that the account holds."""
LIMITED: Final = (-32005, 429)
"""Codes of errors at too many questions: of EIP-1474, and of providers who take them from HTTP."""
TAKEN: Final = ("already known", "nonce too low", "nonce is too low", "oldnonce", "revert")
"""What nodes say of a transaction that they have or had: geth, Besu, Nethermind, Erigon, anvil and Hardhat."""
POLL_SECONDS: Final = (0.0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A block's place and time."""

    number: int
    block_hash: Hex32
    timestamp: int
    base_fee: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RawTransaction:
    """A signed transaction, ready to be stored and then sent; sending it twice is sending it once."""

    raw: bytes
    transaction_hash: Hex32
    nonce: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Prospect:
    """What an account's next transaction is signed with: its nonce, and the base fee of the newest block, in wei."""

    nonce: int
    base_fee: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What one node says of a writer's transaction: its receipt if it is in a block, the log, and the mined nonce."""

    receipt: Receipt | None
    log: LogState
    mined_nonce: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A transaction in a block."""

    transaction_hash: Hex32
    succeeded: bool
    block_number: int
    block_hash: Hex32
    transaction_index: int
    events: tuple[Event, ...]


class Chain(Protocol):
    """What the flows need of a chain. `JsonRpcChain` is the real one; tests have a simulator with the same rules."""

    @property
    def domain(self) -> Domain:
        """The contract and its chain."""

    def check(self) -> None:
        """Raise unless this is the right chain and the contract is on it."""

    def latest(self) -> Block:
        """The newest block."""

    def block_hash(self, number: int) -> Hex32 | None:
        """The hash of the block of that number; None if there is none."""

    def block_hashes(self, numbers: Sequence[int]) -> tuple[list[Hex32 | None], int]:
        """The same of many, and the number of the newest block that whoever answered knows."""

    def finalized(self, tag: str) -> int:
        """The number of the block that the tag stands for (`latest`, `safe`, `finalized`)."""

    def statuses(self, consent_ids: Sequence[Hex32], custodian: Address) -> list[Reason]:
        """The contract's verdict on each, at the latest block."""

    def statuses_after(
        self, number: int, consent_ids: Sequence[Hex32], custodian: Address
    ) -> tuple[list[Reason], Hex32 | None]:
        """As `statuses`, with the hash of the block of that number."""

    def prospect(
        self, consent_ids: Sequence[Hex32], custodian: Address, sender: Address
    ) -> tuple[list[Reason], Prospect]:
        """As `statuses`, with what the sender's next transaction needs."""

    def consent(self, consent_id: Hex32) -> ConsentState:
        """What is on chain about a consent."""

    def consents(self, consent_ids: Sequence[Hex32]) -> list[ConsentState]:
        """The same of many."""

    def log(self, custodian: Address, writer: Address) -> LogState:
        """Where a writer's log stands."""

    def fate(self, transaction_hash: Hex32, custodian: Address, writer: Address) -> Fate:
        """What became of a writer's transaction, as one node sees it."""

    def simulate(self, sender: Address, calldata: bytes, *, gas: int) -> None:
        """Raise what a transaction with this calldata and this limit would."""

    def sign(
        self, account: LocalAccount, calldata: bytes, *, gas: int, prospect: Prospect | None = None
    ) -> RawTransaction:
        """Sign a call to the contract with the account's next nonce, asked for if not given; sends nothing."""

    def send(self, raw: bytes) -> None:
        """Broadcast. A transaction that the node knows already is fine."""

    def receipt(self, transaction_hash: Hex32) -> Receipt | None:
        """None while it is in no block."""

    def wait(self, transaction_hash: Hex32, *, timeout: float) -> Receipt:
        """Wait for a block. Raises `ConfirmationTimeoutError`: the outcome is then unknown."""

    def nonce(self, account: Address) -> int:
        """The account's next nonce, what waits for a block counted in."""

    def mined_nonce(self, account: Address) -> int:
        """How many of the account's transactions are in blocks."""

    def is_contract(self, account: Address) -> bool:
        """Whether there is code at the account."""

    def accepts_signature(self, account: Address, digest: Hex32, signature: bytes) -> bool:
        """Whether a smart account says that it signed this (ERC-1271), as of now; without code none does."""

    def events(self, first: int, last: int, *, names: Collection[str] = EVENTS) -> list[Event]:
        """The contract's events of these names in these blocks, both included."""

    def state_proof(self, number: int, slots: Sequence[Hex32]) -> StateProof:
        """What is in these slots of the contract at a block, so that the block's hash alone proves it."""


class JsonRpcChain:
    """The contract behind one JSON-RPC endpoint.

    Transactions offer a tenth of the base fee as priority fee (EIP-1559), and `priority_fee` at least, in wei for a
    unit of gas: some networks take nothing below a minimum of their own. If it is 0, `LEAST_PRIORITY_FEE` at least, or
    nothing where there is no base fee: gas is free there. Nothing is signed that would cost more than `max_fee`.
    """

    def __init__(self, rpc: JsonRpc, domain: Domain, *, priority_fee: int = 0, max_fee: int = MAX_FEE) -> None:
        self._rpc = rpc
        self._domain = domain
        self._priority_fee, self._max_fee = priority_fee, max_fee
        self._came_with_send: dict[Hex32, Receipt] = {}

    @property
    def domain(self) -> Domain:
        """The contract and its chain."""
        return self._domain

    def check(self) -> None:
        """Raises `ChainUnavailableError`, `WrongChainError`, `ContractMissingError`."""
        with _understood():
            chain_id = quantity(self._ask("eth_chainId"))
        if chain_id != self._domain.chain_id:
            raise WrongChainError(f"chain id: expected {self._domain.chain_id}, the endpoint serves {chain_id}")
        if not self.is_contract(self._domain.contract):
            raise ContractMissingError(f"no contract at {self._domain.contract}: run `consent-ledger deploy`")

    def latest(self) -> Block:
        """The newest block."""
        block = self._ask("eth_getBlockByNumber", "latest", False)
        with _understood():
            return Block(
                number=counter(block["number"]),
                block_hash=parse_hex32(block["hash"], "hash"),
                timestamp=counter(block["timestamp"]),
                base_fee=quantity(block.get("baseFeePerGas") or "0x0"),
            )

    def block_hash(self, number: int) -> Hex32 | None:
        """The hash of the block of that number; None if there is none."""
        return _hash_of(self._ask("eth_getBlockByNumber", hex(number), False))

    def block_hashes(self, numbers: Sequence[int]) -> tuple[list[Hex32 | None], int]:
        """The same of many, in few round trips, and the number of the newest block that all who answered know.

        It is asked for first: what is known then has its hash when the hashes are asked for.
        """
        found: list[Hex32 | None] = []
        tips: list[int] = []
        for start in range(0, max(len(numbers), 1), BLOCKS_AT_ONCE):
            some = numbers[start : start + BLOCKS_AT_ONCE]
            newest, *answers = self._ask_together(
                ("eth_blockNumber", []), *(("eth_getBlockByNumber", [hex(number), False]) for number in some)
            )
            found += [_hash_of(answer) for answer in answers]
            with _understood():
                tips.append(counter(newest))
        return found, min(tips)

    def finalized(self, tag: str) -> int:
        """The number of the block that the tag stands for."""
        block = self._ask("eth_getBlockByNumber", tag, False)
        with _understood():
            return counter(block["number"]) if block else 0

    def statuses(self, consent_ids: Sequence[Hex32], custodian: Address) -> list[Reason]:
        """The contract's verdict on each, at the latest block."""
        return _reasons(self._view(contract.statuses_call(consent_ids, custodian)), len(consent_ids))

    def statuses_after(
        self, number: int, consent_ids: Sequence[Hex32], custodian: Address
    ) -> tuple[list[Reason], Hex32 | None]:
        """As `statuses`, with the hash of the block of that number: one round trip for both."""
        verdict, block = self._ask_together(
            self._statuses_call(consent_ids, custodian), ("eth_getBlockByNumber", [hex(number), False])
        )
        return _reasons(self._returned(verdict), len(consent_ids)), _hash_of(block)

    def prospect(
        self, consent_ids: Sequence[Hex32], custodian: Address, sender: Address
    ) -> tuple[list[Reason], Prospect]:
        """As `statuses`, with what the sender's next transaction needs: one round trip for all.

        Raises `FeeTooHighError`.
        """
        verdict, *next_transaction = self._ask_together(
            self._statuses_call(consent_ids, custodian), *_prospect_calls(sender)
        )
        prospect = _prospect(next_transaction)
        # Before anything is written for the sake of it.
        self._fees(prospect)
        return _reasons(self._returned(verdict), len(consent_ids)), prospect

    def consent(self, consent_id: Hex32) -> ConsentState:
        """What is on chain about a consent."""
        return contract.decode_consent(self._view(contract.call("consentOf", bytes.fromhex(consent_id[2:]))))

    def consents(self, consent_ids: Sequence[Hex32]) -> list[ConsentState]:
        """The same of many, in one round trip."""
        calls = [contract.call("consentOf", bytes.fromhex(consent_id[2:])) for consent_id in consent_ids]
        to = self._domain.contract
        answers = self._ask_together(
            *(("eth_call", [{"to": to, "data": "0x" + calldata.hex()}, "latest"]) for calldata in calls)
        )
        return [contract.decode_consent(self._returned(answer)) for answer in answers]

    def log(self, custodian: Address, writer: Address) -> LogState:
        """Where a writer's log stands."""
        return contract.decode_log(self._view(contract.call("logOf", custodian, writer)))

    def fate(self, transaction_hash: Hex32, custodian: Address, writer: Address) -> Fate:
        """What became of a writer's transaction: one round trip, so that no two nodes answer.

        The receipt is asked for last: a transaction that used the nonce before has one by then.
        """
        calldata = "0x" + contract.call("logOf", custodian, writer).hex()
        nonce, log, found = self._ask_together(
            ("eth_getTransactionCount", [writer, "latest"]),
            ("eth_call", [{"to": self._domain.contract, "data": calldata}, "latest"]),
            ("eth_getTransactionReceipt", [transaction_hash]),
        )
        with _understood():
            return Fate(
                receipt=self._read_receipt(transaction_hash, found),
                log=contract.decode_log(self._returned(log)),
                mined_nonce=counter(nonce),
            )

    def simulate(self, sender: Address, calldata: bytes, *, gas: int) -> None:
        """Raise what a transaction with this calldata and this limit would."""
        self._view(calldata, {"from": sender, "gas": hex(gas)})

    def sign(
        self, account: LocalAccount, calldata: bytes, *, gas: int, prospect: Prospect | None = None
    ) -> RawTransaction:
        """Sign a call to the contract with the account's next nonce, asked for if not given; sends nothing.

        Raises `FeeTooHighError`.
        """
        if prospect is None:
            prospect = _prospect(self._ask_together(*_prospect_calls(Address(account.address))))
        return _signed(account, self._domain, prospect.nonce, self._fees(prospect), gas, calldata)

    def _fees(self, prospect: Prospect) -> tuple[int, int]:
        """The priority fee, and the most that a unit of gas may cost with it."""
        least = self._priority_fee or (LEAST_PRIORITY_FEE if prospect.base_fee else 0)
        priority_fee = max(prospect.base_fee // 10, least)
        if prospect.base_fee + priority_fee > self._max_fee:
            said = f"the base fee is {prospect.base_fee} wei"
            raise FeeTooHighError(f"{said}: expected at most {self._max_fee} in all (CONSENT_LEDGER_MAX_FEE)")
        # Room for a base fee that rises while it waits.
        return priority_fee, min(2 * prospect.base_fee + priority_fee, self._max_fee)

    def send(self, raw: bytes) -> None:
        """Broadcast. Raises `TransactionRevertedError` or the contract's error if the node will not take it.

        An answer that says no more than "I have it" or "that nonce is past" is not a refusal: the receipt decides. It
        is asked for in the same round trip: where blocks come at once, `wait` then need not ask.
        """
        transaction_hash = hex32_of(keccak(raw))
        sent, found = self._rpc.each(
            ("eth_sendRawTransaction", ["0x" + raw.hex()]), ("eth_getTransactionReceipt", [transaction_hash])
        )
        if not isinstance(found, RpcError) and (receipt := self._read_receipt(transaction_hash, found)):
            # It is in a block, in whatever words the node may say so.
            self._came_with_send[transaction_hash] = receipt
            return
        if isinstance(sent, RpcError):
            if sent.revert or any(text in sent.message for text in TAKEN) or self._has(transaction_hash):
                # A node that mines at once reports a revert here although the transaction is in a block.
                return
            raise TransactionRevertedError(f"the chain did not take the transaction: {sent.message[:200]}") from sent

    def _has(self, transaction_hash: Hex32) -> bool:
        """Whether a transaction waits at the node: of one that it has already, each says so in words of its own."""
        try:
            return bool(self._rpc("eth_getTransactionByHash", transaction_hash))
        except RpcError:
            return False

    def receipt(self, transaction_hash: Hex32) -> Receipt | None:
        """None while it is in no block."""
        return self._read_receipt(transaction_hash, self._ask("eth_getTransactionReceipt", transaction_hash))

    def _read_receipt(self, transaction_hash: Hex32, found: Any) -> Receipt | None:  # noqa: ANN401 - JSON
        with _understood():
            if not found or found.get("blockHash") is None:
                return None
            return Receipt(
                transaction_hash=transaction_hash,
                succeeded=quantity(found["status"]) == 1,
                block_number=counter(found["blockNumber"]),
                block_hash=parse_hex32(found["blockHash"], "blockHash"),
                transaction_index=counter(found["transactionIndex"]),
                events=tuple(decode_events(found["logs"], self._domain.contract)),
            )

    def wait(self, transaction_hash: Hex32, *, timeout: float) -> Receipt:
        """Wait for a block. Raises `ConfirmationTimeoutError`: the outcome is then unknown."""
        if came := self._came_with_send.pop(transaction_hash, None):
            return came
        deadline = time.monotonic() + timeout
        attempt = 0
        while True:
            if receipt := self.receipt(transaction_hash):
                return receipt
            if time.monotonic() >= deadline:
                raise ConfirmationTimeoutError(f"not in a block after {timeout:g} s: {transaction_hash}")
            time.sleep(POLL_SECONDS[min(attempt, len(POLL_SECONDS) - 1)])
            attempt += 1

    def nonce(self, account: Address) -> int:
        """The account's next nonce, what waits for a block counted in."""
        with _understood():
            return counter(self._ask("eth_getTransactionCount", account, "pending"))

    def mined_nonce(self, account: Address) -> int:
        """How many of the account's transactions are in blocks."""
        with _understood():
            return counter(self._ask("eth_getTransactionCount", account, "latest"))

    def is_contract(self, account: Address) -> bool:
        """Whether there is code at the account."""
        with _understood():
            return bool(bytes.fromhex(self._ask("eth_getCode", account, "latest")[2:]))

    def accepts_signature(self, account: Address, digest: Hex32, signature: bytes) -> bool:
        """Whether a smart account says that it signed this (ERC-1271), as of now; without code none does."""
        data = "0x" + contract.signature_question(digest, signature).hex()
        try:
            answer = self._rpc("eth_call", {"to": account, "data": data, "gas": hex(QUESTION_GAS)}, "latest")
        except RpcError as exc:
            if exc.code in LIMITED:
                # The account was not asked.
                raise _refusal(exc) from exc
            # Whatever the account does instead of saying yes is a no.
            return False
        return contract.is_yes(self._returned(answer, nothing=True))

    def events(self, first: int, last: int, *, names: Collection[str] = EVENTS) -> list[Event]:
        """The contract's events in these blocks, both included; of fewer at once where the endpoint takes no more."""

        def at_once(start: int, end: int) -> list[Event]:
            return self._events_at_once(start, end, names)

        # It may be away, or behind: then it is not the number of blocks that is wrong.
        def is_behind(_: ChainUnavailableError, end: int) -> bool:
            return self.block_hash(end) is None

        return in_parts(first, last, last - first + 1, at_once, is_final=is_behind)

    def _events_at_once(self, first: int, last: int, names: Collection[str]) -> list[Event]:
        # The last block is asked for in the same breath: behind one address there may be several nodes, and one that is
        # behind says of a block that it does not know that nothing happened in it.
        topics = [topic for topic, name in TOPICS.items() if name in names]
        place = {"address": self._domain.contract, "fromBlock": hex(first), "toBlock": hex(last)}
        query = {**place, "topics": [topics]}
        block, logs = self._ask_together(("eth_getBlockByNumber", [hex(last), False]), ("eth_getLogs", [query]))
        if _hash_of(block) is None:
            raise ChainUnavailableError("the endpoint does not know the newest blocks yet: ask again")
        # Whether it heeds the topics is its own affair.
        return [event for event in decode_events(logs, self._domain.contract) if event.name in names]

    def state_proof(self, number: int, slots: Sequence[Hex32]) -> StateProof:
        """Header and nodes (EIP-1186). Raises `ChainUnavailableError`, also where the node has no state of that block.

        Some chains hash their headers in a way of their own (IBFT, QBFT): there is no proof on those.
        """
        at = hex(number)
        block, proof = self._ask_together(
            ("eth_getBlockByNumber", [at, False]), ("eth_getProof", [self._domain.contract, list(slots), at])
        )
        with _understood():
            header = header_rlp(block)
            if block_hash_of(header) != block["hash"]:
                raise ChainUnavailableError("the chain hashes its headers in a way that is not known here")
            return StateProof(
                header=header,
                account=tuple(bytes.fromhex(node[2:]) for node in proof["accountProof"]),
                storage=tuple(
                    tuple(bytes.fromhex(node[2:]) for node in slot["proof"]) for slot in proof["storageProof"]
                ),
            )

    def _statuses_call(self, consent_ids: Sequence[Hex32], custodian: Address) -> tuple[str, list[object]]:
        calldata = contract.statuses_call(consent_ids, custodian)
        return "eth_call", [{"to": self._domain.contract, "data": "0x" + calldata.hex()}, "latest"]

    def _view(self, calldata: bytes, transaction: Mapping[str, str] | None = None) -> bytes:
        call = {"to": self._domain.contract, "data": "0x" + calldata.hex(), **(transaction or {})}
        try:
            answer = self._rpc("eth_call", call, "latest")
        except RpcError as exc:
            raise _refusal(exc) from exc
        return self._returned(answer, nothing=transaction is not None)

    def _returned(self, answer: object, *, nothing: bool = False) -> bytes:
        """What a call of the contract returned; `nothing` may be an answer too."""
        if answer == "0x" and not nothing:
            # An account without code answers every call with nothing.
            raise ContractMissingError(f"no contract at {self._domain.contract}: run `consent-ledger deploy`")
        with _understood():
            if isinstance(answer, str) and answer[:2] == "0x":
                returned = bytes.fromhex(answer[2:])
                # Python passes over blanks between the bytes.
                if returned.hex() == answer[2:].lower():
                    return returned
        raise ChainUnavailableError("the endpoint's answer is not one of the contract")

    def _ask(self, method: str, *params: object) -> Any:  # noqa: ANN401 - JSON
        try:
            return self._rpc(method, *params)
        except RpcError as exc:
            raise ChainUnavailableError(f"the chain refused {method}: {exc.message[:200]}") from exc

    def _ask_together(self, *calls: tuple[str, Sequence[object]]) -> list[Any]:
        try:
            return self._rpc.together(*calls)
        except RpcError as exc:
            raise ChainUnavailableError(f"the chain refused a call: {exc.message[:200]}") from exc


def nonce_of(raw: bytes) -> int:
    """The nonce of a transaction that `sign` made."""
    return int.from_bytes(rlp.decode(raw[1:])[1])


def calldata_of(raw: bytes) -> bytes:
    """What a transaction that `sign` made calls the contract with."""
    return bytes(rlp.decode(raw[1:])[7])


def _hash_of(block: Mapping[str, Any] | None) -> Hex32 | None:
    with _understood():
        return parse_hex32(block["hash"], "hash") if block else None


def _reasons(returned: bytes, count: int) -> list[Reason]:
    reasons = contract.decode_reasons(returned)
    if len(reasons) != count:
        raise ChainUnavailableError("the endpoint's answer is not one of the contract")
    return reasons


def _prospect_calls(sender: Address) -> tuple[tuple[str, list[object]], ...]:
    return ("eth_getBlockByNumber", ["latest", False]), ("eth_getTransactionCount", [sender, "pending"])


def _prospect(answers: Sequence[Any]) -> Prospect:
    block, nonce = answers
    with _understood():
        return Prospect(nonce=counter(nonce), base_fee=quantity(block.get("baseFeePerGas") or "0x0"))


def _signed(
    account: LocalAccount, domain: Domain, nonce: int, fees: tuple[int, int], gas: int, calldata: bytes
) -> RawTransaction:
    """An EIP-1559 transaction, encoded here: the general signer checks and converts for longer than it signs."""
    to = bytes.fromhex(domain.contract[2:])
    fields = [domain.chain_id, nonce, *fees, gas, to, 0, calldata, []]
    v, r, s = PrivateKey(account.key).sign_msg_hash(keccak(b"\x02" + rlp.encode(fields))).vrs
    raw = b"\x02" + rlp.encode([*fields, v, r, s])
    return RawTransaction(raw=raw, transaction_hash=hex32_of(keccak(raw)), nonce=nonce)


@contextmanager
def _understood() -> Iterator[None]:
    """What is read within is the node's answer: if it has another form than JSON-RPC says, that is no answer."""
    try:
        yield
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError, MalformedError) as exc:
        raise ChainUnavailableError("the endpoint's answer is not that of an Ethereum node") from exc


def _refusal(exc: RpcError) -> LedgerError:
    if exc.revert:
        return contract.decode_error(exc.revert)
    if "revert" in exc.message:
        return TransactionRevertedError("the contract reverted without a reason")
    return ChainUnavailableError(f"the chain refused the call: {exc.message[:200]}")
