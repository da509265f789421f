"""Ledger histories out of nothing: whole chains with real headers, receipts, tries and proofs, made from a seed.

Everything that a block's hash commits to is as on Ethereum, so that an auditor can be shown anything: what the contract
would do (`Books`), and what only a broken contract could have done (`violations.py`), with all the hashes right. The
transactions themselves are not modelled; nobody reads them. Written from `contracts/*.sol`, not from the auditor.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

from eth_hash.backends.pysha3 import keccak256
from eth_utils import to_checksum_address
from tries import EMPTY_ROOT, Trie, listed, number, root_of_list, text

from ledger.artifact import artifact
from ledger.consent import Address, Domain, Hex32

EVENTS: Final = (
    "ConsentGranted(bytes32,address,address,uint64,uint64,uint32)",
    "ConsentRevoked(bytes32,address)",
    "ConsentPauseSet(bytes32,bool,uint32)",
    "CustodianNumbered(address,uint32)",
    "WriterSet(address,address,bool)",
    "AccessRecorded(bytes32,bytes32)",
    "AccessRefused(bytes32,bytes32,uint8)",
    "AccessLate(bytes32,bytes32,uint8)",
    "AccessCompelled(bytes32,bytes32,uint64)",
    "LogAppended(address,address,uint8,uint64,bytes32)",
)
TOPIC: Final = {signature.split("(")[0]: keccak256(signature.encode()) for signature in EVENTS}
ACCESSES, REFUSALS, LATE, COMPELLED_BATCH = range(4)
NONE, NOT_GRANTED, NOT_YET_VALID, EXPIRED, PAUSED, REVOKED, EXHAUSTED, WRONG_CUSTODIAN, BY_CUSTODIAN, COMPELLED = range(
    10
)
UNKNOWN, ACTIVE, HALTED, ENDED = range(4)
WORDS_SLOT, NUMBERS_SLOT, LAST_NUMBER_SLOT, LOGS_SLOT = range(2, 6)
MAX_EMBARGO: Final = 366 * 86_400
ZERO: Final = bytes(32)
EMPTY_CODE: Final = keccak256(b"")
EMPTY_UNCLES: Final = keccak256(b"\xc0")
DAY: Final = 86_400

Log = tuple[bytes, tuple[bytes, ...], bytes]
"""Who logged it, topics, data."""


def word(value: int | bytes) -> bytes:
    """One word of the ABI; an address is padded on the left."""
    return value.to_bytes(32) if isinstance(value, int) else value.rjust(32, b"\0")


def checksummed(raw: bytes) -> Address:
    return Address(to_checksum_address(raw))


def judge(consent: int, custodian_number: int, now: int) -> int:  # noqa: PLR0911 - one line for each row of the table
    """`ConsentRegistry._reasonAgainst`."""
    state = consent >> 224
    if state == ENDED:
        return REVOKED
    if state == UNKNOWN:
        return NOT_GRANTED
    if consent >> 160 & 0xFFFFFFFF != custodian_number:
        return WRONG_CUSTODIAN
    if now >= consent >> 48 & 0xFFFFFFFFFFFF:
        return EXPIRED
    if consent >> 128 & 0xFFFFFFFF >= consent >> 96 & 0xFFFFFFFF:
        return EXHAUSTED
    if now < consent & 0xFFFFFFFFFFFF:
        return NOT_YET_VALID
    return PAUSED if state == HALTED else NONE


@cache
def deployed_code(chain_id: int, contract: bytes) -> bytes:
    """The contract's code at an address of a chain, immutables set as OpenZeppelin's EIP712 does."""
    name, version = b"ConsentLedger", b"1"
    kind = keccak256(b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
    hashes = [keccak256(name), keccak256(version)]
    place = [word(chain_id), word(contract)]
    values = [
        *(name.ljust(31, b"\0") + bytes([len(name)]), version.ljust(31, b"\0") + bytes([len(version)])),
        *(place[1], place[0], keccak256(b"".join([kind, *hashes, *place])), *hashes),
    ]
    shipped = artifact()
    code = bytearray(shipped.deployed_bytecode)
    for (start, length), value in zip(shipped.immutables, values, strict=True):
        code[start : start + length] = value
    return bytes(code)


# --------------------------------------------------------------------------------------------------------- the contract


@dataclass(slots=True)
class WriterLog:
    head: bytes = ZERO
    size: int = 0
    number: int = 0
    allowed: bool = False


class Books:
    """The contract: what it stores, what it emits, and its rules. Calls are made as the contract would take them.

    `twist` arguments are for broken contracts only: what the event says instead.
    """

    def __init__(self, contract: bytes) -> None:
        self.contract = contract
        self.now = 0
        self.words: dict[bytes, int] = {}
        self.subjects: dict[bytes, bytes] = {}
        self.custodians: dict[bytes, bytes] = {}
        self.numbers: dict[bytes, int] = {}
        self.logs: dict[tuple[bytes, bytes], WriterLog] = {}
        self.emitted: list[Log] = []
        self._changed: dict[bytes, int] = {}
        self._slots: dict[bytes, bytes] = {}
        self._storage = Trie()

    def storage(self) -> Trie:
        """The storage as it is now."""
        for slot, value in self._changed.items():
            self._storage = self._storage.set(keccak256(slot), number(value))
        self._changed.clear()
        return self._storage

    def put(self, slot: bytes, value: int) -> None:
        """Store a word that is not zero."""
        self._changed[slot] = value

    def emit(self, name: str, indexed: Sequence[bytes], *values: int | bytes) -> None:
        topics = (TOPIC[name], *map(word, indexed))
        self.emitted.append((self.contract, topics, b"".join(map(word, values))))

    # -------------------------------------------------------------------------------------------------------- consents

    def grant(
        self, consent_id: bytes, subject: bytes, custodian: bytes, window: tuple[int, int], max_accesses: int
    ) -> None:
        numbered = self.numbered(custodian)
        first, end = window
        self.put_consent(consent_id, first | end << 48 | max_accesses << 96 | numbered << 160 | ACTIVE << 224)
        self.subjects[consent_id], self.custodians[consent_id] = subject, custodian
        self.emit("ConsentGranted", (consent_id, subject, custodian), first, end, max_accesses)

    def revoke(self, consent_ids: Iterable[bytes], by: bytes) -> None:
        for consent_id in consent_ids:
            consent = self.words.get(consent_id, 0)
            if consent >> 224 == ENDED:
                continue
            self.put_consent(consent_id, consent & (1 << 224) - 1 | ENDED << 224)
            self.emit("ConsentRevoked", (consent_id, by))

    def set_paused(self, consent_id: bytes, sequence: int, *, paused: bool) -> None:
        below = self.words.get(consent_id, 0) & (1 << 192) - 1
        self.put_consent(consent_id, below | sequence << 192 | (HALTED if paused else ACTIVE) << 224)
        self.emit("ConsentPauseSet", (consent_id,), int(paused), sequence)

    def put_consent(self, consent_id: bytes, value: int) -> None:
        slot = self._slots.get(consent_id)
        if slot is None:
            slot = self._slots[consent_id] = keccak256(consent_id + word(WORDS_SLOT))
        self.words[consent_id] = self._changed[slot] = value

    def numbered(self, custodian: bytes) -> int:
        if custodian not in self.numbers:
            given = max(self.numbers.values(), default=0) + 1
            self.put_number(custodian, given)
            self.emit("CustodianNumbered", (custodian,), given)
        return self.numbers[custodian]

    def put_number(self, custodian: bytes, given: int) -> None:
        self.numbers[custodian] = given
        self.put(keccak256(word(custodian) + word(NUMBERS_SLOT)), given)
        self.put(word(LAST_NUMBER_SLOT), given)

    # ------------------------------------------------------------------------------------------------------------- log

    def set_writer(self, custodian: bytes, writer: bytes, *, allowed: bool) -> None:
        log = self.log(custodian, writer)
        log.number, log.allowed = self.numbered(custodian), allowed
        self.put_log(custodian, writer)
        self.emit("WriterSet", (custodian, writer), int(allowed))

    def append(
        self,
        kind: int,
        custodian: bytes,
        writer: bytes,
        accesses: Sequence[tuple[bytes, bytes]],
        *,
        twist: Mapping[int, tuple[str, int]] | None = None,
    ) -> None:
        """`append`, `appendRefusals`, `appendLate`. `twist`: by place, what the event says instead."""
        log = self.log(custodian, writer)
        head = keccak256(log.head + word(kind) + word(len(accesses)))
        for place, (consent_id, entry_hash) in enumerate(accesses):
            consent = self.words.get(consent_id, 0)
            reason = BY_CUSTODIAN if kind == REFUSALS else judge(consent, log.number, self.now)
            name = "AccessRecorded" if reason == NONE else "AccessLate" if kind == LATE else "AccessRefused"
            if twist and place in twist:
                name, reason = twist[place]
            head = keccak256(head + consent_id + entry_hash + word(reason))
            if name == "AccessRecorded":
                self.put_consent(consent_id, consent + (1 << 128))
                self.emit(name, (consent_id,), entry_hash)
            else:
                self.emit(name, (consent_id,), entry_hash, reason)
        self.close(kind, custodian, writer, log.size + len(accesses), head)

    def append_compelled(
        self, custodian: bytes, writer: bytes, order: bytes, embargo: int, entries: Sequence[bytes]
    ) -> None:
        log = self.log(custodian, writer)
        head = keccak256(log.head + word(COMPELLED_BATCH) + word(len(entries)))
        head = keccak256(head + order + word(embargo) + word(COMPELLED))
        for entry_hash in entries:
            head = keccak256(head + order + entry_hash + word(COMPELLED))
            self.emit("AccessCompelled", (order,), entry_hash, embargo)
        self.close(COMPELLED_BATCH, custodian, writer, log.size + len(entries), head)

    def close(self, kind: int, custodian: bytes, writer: bytes, size: int, head: bytes) -> None:
        log = self.log(custodian, writer)
        log.head, log.size = head, size
        self.put_log(custodian, writer)
        self.emit("LogAppended", (custodian, writer), kind, size, head)

    def log(self, custodian: bytes, writer: bytes) -> WriterLog:
        return self.logs.setdefault((custodian, writer), WriterLog())

    def put_log(self, custodian: bytes, writer: bytes) -> None:
        log = self.logs[custodian, writer]
        first = int.from_bytes(keccak256(word(writer) + keccak256(word(custodian) + word(LOGS_SLOT))))
        if log.head == ZERO:
            self._changed.pop(word(first), None)
        else:
            self.put(word(first), int.from_bytes(log.head))
        self.put(word((first + 1) % 2**256), log.size | log.number << 64 | int(log.allowed) << 96)


# ------------------------------------------------------------------------------------------------------------ the chain


@dataclass(frozen=True, slots=True)
class Transaction:
    """What a transaction left behind."""

    logs: tuple[Log, ...]
    kind: int = 2
    succeeded: bool = True


@dataclass(frozen=True, slots=True)
class Mined:
    """A block as JSON-RPC gives it, its receipts, and the state after it."""

    block: dict[str, Any]
    receipts: list[dict[str, Any]]
    accounts: Trie
    storage: Trie


@cache
def _bloom_bits(item: bytes) -> int:
    digest = keccak256(item)
    return sum({1 << (int.from_bytes(digest[start : start + 2]) & 0x7FF) for start in (0, 2, 4)})


def bloom_of(logs: Iterable[Log]) -> int:
    bits = 0
    for account, topics, _ in logs:
        bits |= _bloom_bits(account)
        for topic in topics:
            bits |= _bloom_bits(topic)
    return bits


def receipt_bytes(kind: int, *, succeeded: bool, gas: int, bloom: bytes, logs: Iterable[Log]) -> bytes:
    encoded = b"".join([_log_bytes(log) for log in logs])
    body = listed(number(int(succeeded)) + number(gas) + text(bloom) + listed(encoded))
    return (bytes([kind]) if kind else b"") + body


def _log_bytes(log: Log) -> bytes:
    account, topics, data = log
    return listed(text(account) + listed(b"".join(map(text, topics))) + text(data))


def account_bytes(*, nonce: int, balance: int, storage: bytes = EMPTY_ROOT, code: bytes = EMPTY_CODE) -> bytes:
    return listed(number(nonce) + number(balance) + text(storage) + text(code))


HEADER: Final = (
    *("parentHash", "sha3Uncles", "miner", "stateRoot", "transactionsRoot", "receiptsRoot", "logsBloom", "difficulty"),
    *("number", "gasLimit", "gasUsed", "timestamp", "extraData", "mixHash", "nonce", "baseFeePerGas"),
    *("withdrawalsRoot", "blobGasUsed", "excessBlobGas", "parentBeaconBlockRoot", "requestsHash"),
)
FORKS: Final = (21, 21, 21, 21, 20, 17, 16, 15)
"""How many of the header's fields a chain has: Osaka, Cancun, Shanghai, London, and before."""


def header_hash(fields: Mapping[str, int | bytes]) -> bytes:
    encoded = [number(value) if isinstance(value, int) else text(value) for value in fields.values()]
    return keccak256(listed(b"".join(encoded)))


class Miner:
    """Puts transactions into blocks. `seal` returns each; what is not kept elsewhere is forgotten."""

    def __init__(self, rng: random.Random, books: Books, code: bytes, *, first: int, fields: int = 21) -> None:
        self.rng, self.books, self.code = rng, books, code
        self.number = first
        self.parent = ZERO if first == 0 else rng.randbytes(32)
        self.deployed = False
        self._names = HEADER[:fields]
        self._accounts = Trie()
        self._nonces: dict[bytes, int] = {}
        self.senders = [rng.randbytes(20) for _ in range(4)]
        for sender in self.senders:
            self._touch(sender)

    def _touch(self, sender: bytes) -> None:
        nonce = self._nonces[sender] = self._nonces.get(sender, -1) + 1
        account = account_bytes(nonce=nonce, balance=10**18 + nonce)
        self._accounts = self._accounts.set(keccak256(sender), account)

    def seal(self, timestamp: int, transactions: Sequence[Transaction]) -> Mined:
        """The next block."""
        rng, at = self.rng, self.number
        hashes = [rng.randbytes(32) for _ in transactions]
        senders = [rng.choice(self.senders) for _ in transactions]
        for sender in senders:
            self._touch(sender)
        storage = self.books.storage()
        if self.deployed:
            account = account_bytes(nonce=1, balance=0, storage=storage.root(), code=keccak256(self.code))
            self._accounts = self._accounts.set(keccak256(self.books.contract), account)
        receipts, encoded, gas, bloom = [], [], 0, 0
        for index, transaction in enumerate(transactions):
            bits = bloom_of(transaction.logs)
            used = 21_000 + 9_000 * len(transaction.logs)
            gas, bloom = gas + used, bloom | bits
            encoded.append(
                receipt_bytes(
                    transaction.kind,
                    succeeded=transaction.succeeded,
                    gas=gas,
                    bloom=bits.to_bytes(256),
                    logs=transaction.logs,
                )
            )
            receipts.append(_receipt_json(transaction, hashes[index], index, senders[index], gas, used, bits))
        fields: dict[str, int | bytes] = {
            "parentHash": self.parent,
            "sha3Uncles": EMPTY_UNCLES,
            "miner": self.senders[0],
            "stateRoot": self._accounts.root(),
            "transactionsRoot": keccak256(b"".join(hashes)) if hashes else EMPTY_ROOT,
            "receiptsRoot": root_of_list(encoded),
            "logsBloom": bloom.to_bytes(256),
            "difficulty": 0,
            "number": at,
            "gasLimit": 60_000_000,
            "gasUsed": gas,
            "timestamp": timestamp,
            "extraData": b"" if at % 2 else b"history",
            "mixHash": rng.randbytes(32),
            "nonce": bytes(8),
            "baseFeePerGas": 7 + at % 1000,
            "withdrawalsRoot": EMPTY_ROOT,
            "blobGasUsed": 0,
            "excessBlobGas": 0,
            "parentBeaconBlockRoot": ZERO,
            "requestsHash": ZERO,
        }
        fields = {name: fields[name] for name in self._names}
        self.parent = header_hash(fields)
        self.number += 1
        block = block_json(fields, self.parent, hashes)
        place_receipts(receipts, block)
        return Mined(block, receipts, self._accounts, storage)


def block_json(fields: Mapping[str, int | bytes], block_hash: bytes, hashes: Iterable[bytes]) -> dict[str, Any]:
    shown = {name: hex(value) if isinstance(value, int) else "0x" + value.hex() for name, value in fields.items()}
    return {
        "hash": "0x" + block_hash.hex(),
        **shown,
        "size": "0x400",
        "uncles": [],
        "transactions": ["0x" + one.hex() for one in hashes],
    }


def _receipt_json(
    transaction: Transaction, tx_hash: bytes, index: int, sender: bytes, gas: int, used: int, bloom: int
) -> dict[str, Any]:
    return {
        "type": hex(transaction.kind),
        "status": hex(int(transaction.succeeded)),
        "transactionHash": "0x" + tx_hash.hex(),
        "transactionIndex": hex(index),
        "from": "0x" + sender.hex(),
        "to": "0x" + (transaction.logs[0][0] if transaction.logs else sender).hex(),
        "contractAddress": None,
        "cumulativeGasUsed": hex(gas),
        "gasUsed": hex(used),
        "effectiveGasPrice": "0x7",
        "logs": [
            {
                "address": "0x" + account.hex(),
                "topics": ["0x" + topic.hex() for topic in topics],
                "data": "0x" + data.hex(),
            }
            for account, topics, data in transaction.logs
        ],
        "logsBloom": f"0x{bloom:0512x}",
    }


def place_receipts(receipts: Sequence[dict[str, Any]], block: Mapping[str, Any]) -> None:
    """Where they and their logs are."""
    place = {"blockHash": block["hash"], "blockNumber": block["number"]}
    count = 0
    for receipt in receipts:
        receipt |= place  # noqa: PLW2901 - changed in its place
        for log in receipt["logs"]:
            log |= place  # noqa: PLW2901
            log["transactionHash"] = receipt["transactionHash"]
            log["transactionIndex"] = receipt["transactionIndex"]
            log["logIndex"] = hex(count)
            log["removed"] = False
            count += 1


@dataclass
class History:
    """A whole chain. `planted` names the violations; `expected` are the codes of the findings they lead to."""

    seed: int
    domain: Domain
    code: bytes
    books: Books
    blocks: list[Mined] = field(default_factory=list)
    planted: list[str] = field(default_factory=list)
    expected: set[str] = field(default_factory=set)

    @property
    def first_block(self) -> int:
        return int(self.blocks[0].block["number"], 16)

    @property
    def last_hash(self) -> Hex32:
        return Hex32(self.blocks[-1].block["hash"])


Violation = tuple[str, frozenset[str], Callable[["Story"], None]]
CHAINS: Final = ((31337, b"\x11" * 20), (1, b"\xc0\xde" * 10), (8453, bytes(range(20))), (11_155_111, b"\xff" * 20))


class Story:
    """One random history in the making: the people, what they do, and the blocks it ends up in."""

    def __init__(self, seed: int, *, chain: tuple[int, bytes] | None = None) -> None:
        self.rng = rng = random.Random(seed)
        chain_id, contract = chain or rng.choice(CHAINS)
        self.books = Books(contract)
        self.code = deployed_code(chain_id, contract)
        first = rng.choice((0, 0, 0, 1, 19_000_000))
        self.miner = Miner(rng, self.books, self.code, first=first, fields=rng.choice(FORKS))
        self.history = History(seed, Domain(chain_id=chain_id, contract=checksummed(contract)), self.code, self.books)
        self.now = rng.randrange(1_600_000_000, 1_900_000_000)
        self.custodians = [rng.randbytes(20) for _ in range(rng.randint(1, 3))]
        self.waiting: list[Transaction] = []
        self.elsewhere = [rng.randbytes(20) for _ in range(3)]
        self._acts: Sequence[tuple[int, Callable[[], None]]] = (
            *(
                (4, self.grant),
                (2, self.revoke),
                (1, self.revoke_early),
                (2, self.pause),
                (1, self.revoke_as_custodian),
            ),
            *((1, self.set_writer), (12, self.append), (2, self.append_refusals), (2, self.append_late_in_force)),
            *((1, self.append_compelled), (1, self.idle), (4, self.foreign)),
        )

    # ------------------------------------------------------------------------------------------------------- the blocks

    def transact(self) -> None:
        """One transaction of all that was emitted, others' events around it at times."""
        rng = self.rng
        logs = [*self.books.emitted]
        self.books.emitted.clear()
        if rng.random() < 0.1:
            logs.insert(0, self.others_log())
        if rng.random() < 0.1:
            logs.append(self.others_log())
        self.waiting.append(Transaction(tuple(logs), rng.choice((0, 1, 2, 2, 2, 3, 4))))

    def seal(self) -> None:
        """A block of what waits; time goes on."""
        self.history.blocks.append(self.miner.seal(self.now, self.waiting))
        self.waiting = []
        self.now += self.rng.choice((1, 2, 12, 12, 60, 3600, DAY, 3 * DAY))
        self.books.now = self.now

    def others_log(self) -> Log:
        """An event of another contract: its own, or one that is made to look like ours."""
        rng = self.rng
        if rng.random() < 0.5:
            topics = (rng.choice(list(TOPIC.values())), self.any_consent(), word(self.books.contract))
            return rng.choice(self.elsewhere), topics, rng.randbytes(32 * rng.randint(0, 3))
        anything = tuple(rng.randbytes(32) for _ in range(rng.randint(0, 4)))
        return rng.choice(self.elsewhere), anything, rng.randbytes(rng.choice((0, 1, 20, 32, 55, 56, 300)))

    def run(self, blocks: int, violations: Sequence[Violation] = ()) -> History:
        """The whole story. Violations come at random blocks, in any order."""
        rng = self.rng
        self.books.now = self.now
        for _ in range(rng.randint(0, 2)):
            self.foreign()
            self.seal()
        self.miner.deployed = True
        self.idle()
        self.seal()
        for custodian in self.custodians:
            for _ in range(rng.randint(1, 3)):
                self.books.set_writer(custodian, rng.randbytes(20), allowed=True)
            self.transact()
        for _ in range(rng.randint(1, 6)):
            self.grant()
        self.seal()
        due = [(rng.randrange(blocks), rng.random(), violation) for violation in violations]
        weights, acts = zip(*self._acts, strict=True)
        for block in range(blocks):
            for _ in range(rng.choice((0, 1, 1, 2, 3))):
                rng.choices(acts, weights)[0]()
            for at, _, (name, codes, plant) in sorted(due, key=lambda one: one[:2]):
                if at == block:
                    plant(self)
                    self.history.planted.append(name)
                    self.history.expected |= codes
            self.seal()
        return self.history

    # ------------------------------------------------------------------------------------------------------ the people

    def any_consent(self) -> bytes:
        """One that there is, mostly."""
        ids = list(self.books.words)
        return self.rng.choice(ids) if ids and self.rng.random() < 0.95 else self.rng.randbytes(32)

    def any_log(self) -> tuple[bytes, bytes]:
        """Custodian and writer that may append; a new writer if there is none."""
        allowed = [key for key, log in self.books.logs.items() if log.allowed]
        if not allowed or self.rng.random() < 0.02:
            key = self.rng.choice(self.custodians), self.rng.randbytes(20)
            self.books.set_writer(*key, allowed=True)
            return key
        return self.rng.choice(allowed)

    def new_consent(
        self,
        *,
        custodian: bytes | None = None,
        starts_in: int | None = None,
        lasts: int | None = None,
        max_accesses: int | None = None,
    ) -> bytes:
        """Grant one. Times are seconds from now."""
        rng = self.rng
        consent_id, subject = rng.randbytes(32), rng.randbytes(20)
        starts = self.now + (rng.choice((-DAY, -1, 0, 5, DAY)) if starts_in is None else starts_in)
        ends = starts + (rng.choice((30, 2 * DAY, 300 * DAY, 300 * DAY)) if lasts is None else lasts)
        most = rng.choice((1, 2, 3, 10, 2**32 - 1)) if max_accesses is None else max_accesses
        self.books.grant(consent_id, subject, custodian or rng.choice(self.custodians), (starts, ends), most)
        return consent_id

    def grant(self) -> None:
        self.new_consent()
        if self.rng.random() < 0.05:
            self.custodians.append(self.rng.randbytes(20))
            self.new_consent(custodian=self.custodians[-1])
        self.transact()

    def revoke(self) -> None:
        subjects = self.books.subjects
        if subjects:
            chosen = self.rng.choice(list(subjects))
            # One signature revokes several of one subject; here each subject has one, and perhaps one not granted yet.
            also = [self.rng.randbytes(32)] if self.rng.random() < 0.2 else []
            self.books.revoke([chosen, *also], subjects[chosen])
        self.transact()

    def revoke_early(self) -> None:
        """Before the grant, which then never comes: its transaction fails."""
        self.books.revoke([self.rng.randbytes(32)], self.rng.randbytes(20))
        self.transact()
        self.waiting.append(Transaction((), 2, succeeded=False))

    def revoke_as_custodian(self) -> None:
        custodians = self.books.custodians
        if custodians:
            chosen = self.rng.choice(list(custodians))
            self.books.revoke([chosen], custodians[chosen])
        self.transact()

    def pause(self) -> None:
        live = [one for one, value in self.books.words.items() if value >> 224 in (ACTIVE, HALTED)]
        if live:
            chosen = self.rng.choice(live)
            sequence = (self.books.words[chosen] >> 192 & 0xFFFFFFFF) + self.rng.choice((1, 1, 5))
            self.books.set_paused(chosen, sequence, paused=self.rng.random() < 0.5)
        self.transact()

    def set_writer(self) -> None:
        if self.rng.random() < 0.5:
            self.books.set_writer(self.rng.choice(self.custodians), self.rng.randbytes(20), allowed=True)
        else:
            self.books.set_writer(*self.rng.choice(list(self.books.logs)), allowed=self.rng.random() < 0.5)
        self.transact()

    def accesses(self) -> list[tuple[bytes, bytes]]:
        rng = self.rng
        return [(self.any_consent(), rng.randbytes(32)) for _ in range(rng.choice((1, 1, 2, 3, 5, 12)))]

    def append(self) -> None:
        for _ in range(self.rng.choice((1, 1, 1, 2))):  # a writer can be a contract that appends twice
            self.books.append(ACCESSES, *self.any_log(), self.accesses())
        self.transact()

    def append_refusals(self) -> None:
        self.books.append(REFUSALS, *self.any_log(), self.accesses())
        self.transact()

    def append_late_in_force(self) -> None:
        """A late batch whose consents are all still in force: nothing to explain."""
        custodian, writer = self.any_log()
        own, now = self.books.log(custodian, writer).number, self.now
        chosen = [one for one, value in self.books.words.items() if judge(value, own, now) == NONE][:3]
        if chosen:
            self.books.append(LATE, custodian, writer, [(one, self.rng.randbytes(32)) for one in chosen])
        self.transact()

    def append_compelled(self) -> None:
        rng = self.rng
        embargo = rng.choice((0, self.now + 5, self.now + MAX_EMBARGO))
        entries = [rng.randbytes(32) for _ in range(rng.choice((1, 2, 5)))]
        self.books.append_compelled(*self.any_log(), rng.randbytes(32), embargo, entries)
        self.transact()

    def idle(self) -> None:
        """A call of the contract that changes nothing, or one that fails."""
        self.waiting.append(Transaction((), 2, succeeded=self.rng.random() < 0.5))

    def foreign(self) -> None:
        """Others' traffic."""
        for _ in range(self.rng.choice((1, 1, 2, 140) if self.rng.random() < 0.02 else (1, 2))):
            logs = tuple(self.others_log() for _ in range(self.rng.randint(0, 3)))
            self.waiting.append(Transaction(logs, self.rng.choice((0, 2, 2, 3))))


def history(
    seed: int,
    violations: Sequence[Violation] = (),
    *,
    blocks: int | None = None,
    chain: tuple[int, bytes] | None = None,
) -> History:
    """The history of that seed, the same every time. `blocks`: how many after its beginning. `chain`: its id, and the
    contract's address there."""
    story = Story(seed, chain=chain)
    return story.run(story.rng.randint(6, 18) if blocks is None else blocks, violations)
