"""The audit of a ledger, from the chain alone. Read it top to bottom.

(1) The endpoint serves the chain that is asked about.
(2) The block: the one whose hash the auditor brings along, or the newest that every endpoint has. All that follows is
    about it, and holds if this is the chain's block.
(3) The code: the contract's account is proven under the block's state root, and the code that the endpoint gives has
    the hash which stands there; it is the code that ships, and
(4) the sources compile to it (py-solc-x).
(5) The history: every header from the first block to this one, each linked to the one before; every event of the
    contract from receipts that a header commits to. On long chains, if wanted, only headers of blocks with events.
(6) The replay: every event by the contract's rules. What was recorded under a consent in force, what was not; every
    head and every size.
(7) The state: the storage that the events explain, all of it, has the root that is proven in the account. So no event
    was withheld and none made up, whoever it was about.
(8) Earlier checkpoints: at their blocks each log was as they say, and no other had an entry.

An endpoint can withhold answers or contradict itself; neither is ever "clean". What is not answered could not be
verified, what contradicts itself or the rules is a finding. Nothing here needs a key, a database or the custodian.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Final, NoReturn

from eth_hash.backends.pysha3 import keccak256

from ledger.artifact import artifact, require_code
from ledger.audit_reader import report_of
from ledger.audit_report import (
    AuditedBlock,
    AuditedEntry,
    AuditReport,
    Check,
    ConsentChange,
    EarlierLog,
    Finding,
)
from ledger.audit_state import AuditState, packed
from ledger.blockproof import Header
from ledger.books import Books
from ledger.consent import Address, Domain, Hex32, Reason, hex32_of
from ledger.errors import AuditError, ChainUnavailableError, ConfigError, ContractMismatchError, ReceiptsDifferError
from ledger.feed import Feed, Rpc
from ledger.json_forms import origin_of
from ledger.replay import Replay
from ledger.stateproof import account_roots, storage_word

MAX_NAMED: Final = 256
"""How many slots are looked at one by one, once it is known that the storage differs."""
SLACK_BLOCKS: Final = 3
"""How far two endpoints may be apart: the chain goes on between two questions."""
NO_CODE: Final = hex32_of(keccak256(b""))
_HEX: Final = re.compile(r"0x([0-9a-f]{2})+")
_CODES: Final = {
    "block": "block_differs",
    "code": "code_differs",
    "endpoints": "endpoints_disagree",
    "headers": "header_unlinked",
    "receipts": "receipts_differ",
    "sources": "code_differs",
    "state_root": "state_differs",
}
"""What it is called when a check does not hold; a name that is not here is the code itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is to be audited.

    `block` is a hash that the auditor brings along, or a number; None is the newest block that `tag` stands for.
    `all_headers`: read and link every header since `first_block`; otherwise only those of blocks that have events.
    `watch` and `watch_subjects` name consents whose entries and changes are wanted one by one; `watch_entries` wants
    every entry of every log.
    """

    domain: Domain
    block: Hex32 | int | None = None
    tag: str = "latest"
    first_block: int = 0
    all_headers: bool = True
    compile_sources: bool = True
    compiler: Path | None = None
    tries: int = 3
    watch: frozenset[Hex32] = frozenset()
    watch_entries: bool = False
    watch_subjects: frozenset[Address] = frozenset()
    earlier: tuple[EarlierLog, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """The report, and what was looked for. `books` are empty where nothing was read."""

    report: AuditReport
    books: Books
    entries: tuple[AuditedEntry, ...]
    changes: tuple[ConsentChange, ...]
    keep: Callable[[], AuditState | None]

    @property
    def state(self) -> AuditState | None:
        """What to go on from next time: None if there is nothing to keep, the very same if there was no news."""
        return self.keep()


def audit_chain(
    rpcs: Sequence[Rpc],
    asked: Asked,
    *,
    now: int,
    state: AuditState | None = None,
    step: Callable[[int, int], None] = lambda _done, _of: None,
) -> Audit:
    """Audit the contract by what these endpoints say; the first one is read, the others must agree.

    `now` (Unix seconds) is the report's date. `state` is what an earlier audit kept: what it proved is not read again.
    `step` hears how many of how many blocks were read. Raises for nothing that an endpoint does.
    """
    run = _Run(rpcs, asked, state, step)
    try:
        run.through()
    except ChainUnavailableError as exc:
        run.checks.append(Check(name=run.at, holds=None, detail=_without_urls(exc.message, rpcs)))
    except AuditError as exc:
        run.differs(exc.message)
    return run.audit(now)


class _Run:
    """One audit; `at` is the check that is being made."""

    def __init__(
        self, rpcs: Sequence[Rpc], asked: Asked, state: AuditState | None, step: Callable[[int, int], None]
    ) -> None:
        self._asked, self._state, self._step = asked, state, step
        self._rpcs = rpcs
        self._feeds = [Feed(rpc, asked.domain.contract, tries=asked.tries) for rpc in rpcs]
        self._feed = self._feeds[0]
        self._head: Header | None = None
        self._given = False
        self._sources = state.sources if state else None
        self._blocks = state.blocks if state else 0
        self._proven: tuple[Header, Hex32] | None = None
        self._read_to_the_end = False
        # Of this class; those of the replay are with the replay.
        self._findings: list[Finding] = []
        self.replay = Replay()
        self._unchanged: AuditReport | None = None
        self.checks: list[Check] = []
        self.at = "chain_id"

    # ------------------------------------------------------------------------------------------------------- the way

    def through(self) -> None:
        """(1) to (8). Raises `ChainUnavailableError` where it cannot go on, `AuditError` where it need not."""
        # (1)
        self._check_chain_id()
        # (2)
        self.at = "block"
        head = self._head = self._chosen()
        # (3)
        self.at = "code"
        storage_root, code_hash = self._check_code(head)
        # (4)
        self.at = "sources"
        self._check_sources(code_hash)
        if self._state is not None and self._state.block_number == head.number:
            self._confirm(self._state, head, storage_root)
        else:
            # (5) and (6)
            self.at = "headers"
            self._read(head)
            # (7)
            self.at = "state_root"
            self._check_state(head, storage_root)
            self._proven = (head, storage_root)
        # (8)
        self.at = "checkpoints"
        self._check_earlier(head)

    def _holds(self, name: str, detail: str) -> None:
        self.checks.append(Check(name=name, holds=True, detail=detail))

    def differs(self, detail: str) -> None:
        """What was being checked does not hold."""
        self.checks.append(Check(name=self.at, holds=False, detail=detail))
        self._find(_CODES.get(self.at, self.at), detail)

    def _find(self, code: str, detail: str) -> None:
        number, at = (self._head.number, self._head.timestamp) if self._head else (None, None)
        self._findings.append(Finding(code=code, detail=detail, block_number=number, at=at))

    def _counts(self) -> Counter[str]:
        replayed = self.replay.finding_counts if self._read_to_the_end else Counter[str]()
        if self._unchanged is not None and self._state is not None:
            replayed = Counter(self._state.finding_counts)
        return replayed + Counter(finding.code for finding in self._findings)

    # --------------------------------------------------------------------------------------------------- (1) and (2)

    def _check_chain_id(self) -> None:
        wanted = self._asked.domain.chain_id
        for feed in self._feeds:
            found = feed.chain_id()
            if found != wanted:
                raise ChainUnavailableError(f"an endpoint serves chain {found}, not {wanted}")
        self._holds("chain_id", f"chain {wanted}")

    def _chosen(self) -> Header:
        asked = self._asked.block
        if isinstance(asked, str):
            head = self._feed.header(asked)
            self._given = True
        else:
            head = self._feed.header(self._newest() if asked is None else asked)
        self._holds("block", f"block {head.number}, {head.block_hash}")
        for feed in self._feeds[1:]:
            self.at = "endpoints"
            other = feed.header(head.number)
            if other.block_hash != head.block_hash:
                hashes = f"{head.block_hash} at one endpoint, {other.block_hash} at another"
                raise AuditError(f"block {head.number} is {hashes}")
        if len(self._feeds) > 1:
            self._holds("endpoints", f"{len(self._feeds)} endpoints have this block")
        return head

    def _newest(self) -> int:
        """The newest block that every endpoint has; one that lags far behind another is stale."""
        before = [feed.header(self._asked.tag).number for feed in self._feeds]
        if max(before) - min(before) > SLACK_BLOCKS:
            again = [feed.header(self._asked.tag).number for feed in self._feeds]
            if min(again) + SLACK_BLOCKS < max(before):
                self.at = "stale_endpoint"
                raise AuditError(f"an endpoint's newest block is {min(again)}, another's {max(before)}")
        return min(before)

    # --------------------------------------------------------------------------------------------------- (3) and (4)

    def _check_code(self, head: Header) -> tuple[Hex32, Hex32]:
        domain = self._asked.domain
        self.at = "state_root"
        nodes = _nodes(self._feed.account(head).get("accountProof"))
        roots = account_roots(head.state_root, domain.contract, nodes)
        self.at = "code"
        if roots is None or roots[1] == NO_CODE:
            raise ChainUnavailableError(f"there is no contract at {domain.contract} in block {head.number}")
        code = self._feed.code(head)
        if hex32_of(keccak256(code)) != roots[1]:
            raise AuditError("the code that the endpoint gives is not the one whose hash is proven")
        try:
            require_code(code, artifact().deployed_bytecode, domain)
        except ContractMismatchError as exc:
            # Go on: what another contract let happen is what matters most.
            self.differs(exc.message)
        else:
            self._holds("code", f"the code at {domain.contract} is what ships with this version, hash {roots[1]}")
        return roots

    def _check_sources(self, code_hash: Hex32) -> None:
        if self._sources == code_hash:
            self._holds("sources", "compiled at an earlier audit, and the code is the same")
            return
        if not self._asked.compile_sources:
            return
        from ledger.compiler import recompile  # noqa: PLC0415 - it takes longer to load than an audit without news

        shipped = artifact()
        try:
            compiled = recompile(self._asked.compiler)
        except ConfigError as exc:
            self.checks.append(Check(name="sources", holds=None, detail=exc.message))
            return
        evm = compiled["evm"]
        if (bytes.fromhex(evm["bytecode"]["object"]), bytes.fromhex(evm["deployedBytecode"]["object"])) != (
            shipped.bytecode,
            shipped.deployed_bytecode,
        ):
            self.differs("the bytecode that ships is not what the sources compile to")
            return
        if any(check.name == "code" and check.holds for check in self.checks):
            # For next time. Of another code than what ships, nothing was compiled.
            self._sources = code_hash
        count = len(shipped.compiler_input["sources"])
        self._holds("sources", f"{count} source files compile to it with solc {shipped.compiler}")

    # --------------------------------------------------------------------------------------------------- (5) and (6)

    def _read(self, head: Header) -> None:
        first, before = self._start(head)
        self.replay = self._replay(first)
        linked = self._asked.all_headers
        feed = self._feed
        chunks = feed.blocks(first, head.number) if linked else feed.blocks_with_events(first, head.number)
        points = defaultdict(set)
        for point in self._asked.earlier:
            points[point.block_number].add(point.block_hash)
        read = 0
        try:
            for chunk in chunks:
                for header, transactions in chunk:
                    if linked and before is not None and header.parent_hash != before:
                        raise AuditError(f"block {header.number} does not follow the block before it")
                    before = header.block_hash
                    if points and points.get(header.number, {before}) != {before}:
                        self._find("checkpoint_inconsistent", f"block {header.number} is another than the checkpoint's")
                    if transactions:
                        self.replay.block(header.number, header.timestamp, transactions)
                read += len(chunk)
                self._step(chunk[-1][0].number - first + 1 if chunk else 0, head.number - first + 1)
        except ReceiptsDifferError:
            self.at = "receipts"
            raise
        if linked and before != head.block_hash:
            self._led_elsewhere(head)
        self._blocks += read
        self._read_to_the_end = True
        which = f"{read} headers of blocks {first} to {head.number}"
        if linked:
            self._holds("headers", f"{which}, each linked to the one before")
        else:
            detail = f"{which}, only those with events: their times and their order are the endpoint's word"
            self.checks.append(Check(name="headers", holds=None, detail=detail))
        self._holds("receipts", "every event is from receipts that its block's header commits to")
        self._judge_replay()

    def _led_elsewhere(self, head: Header) -> NoReturn:
        said = f"the headers do not lead to block {head.number}, {head.block_hash}"
        if self._asked.block is None:
            # One unbroken chain, and its newest block was another when it was asked for: so are reorganisations.
            raise ChainUnavailableError(f"{said}: if the chain lost it meanwhile, audit anew, or what is final")
        raise AuditError(said)

    def _confirm(self, state: AuditState, head: Header, storage_root: Hex32) -> None:
        """No news: what was proven of this very block by an earlier audit need not be proven again."""
        self.at = "block"
        if head.block_hash != state.block_hash:
            raise AuditError(f"block {head.number} is another than the one that was audited before")
        self.at = "state_root"
        if storage_root != state.storage_root:
            raise AuditError("the contract's storage is not what was proven of this block before")
        before = report_of(state.report)
        self.checks += [check for check in before.checks if check.name in ("headers", "receipts", "replay")]
        self._holds("state_root", "as it was proven by an earlier audit of this block")
        self._unchanged = before

    def _start(self, head: Header) -> tuple[int, Hex32 | None]:
        """The first block to read, and the hash of the one before it."""
        state = self._state
        if state is None:
            first = self._asked.first_block
            if first > head.number:
                raise ChainUnavailableError(f"block {first}, the first to read, is later than block {head.number}")
            return first, None
        if state.block_number > head.number:
            older = f"block {head.number} is older than block {state.block_number}, which was audited before"
            if self._asked.block is not None or self._asked.tag != "latest":
                # The auditor's own choice, or what is final only later: that says nothing of the endpoint.
                raise ChainUnavailableError(f"{older}: audit it without that state")
            self.at = "stale_endpoint"
            raise AuditError(older)
        before = self._feed.header(state.block_number)
        if before.block_hash != state.block_hash:
            self.at = "block"
            raise AuditError(f"block {state.block_number} is another than the one that was audited before")
        return state.block_number + 1, state.block_hash

    def _replay(self, first: int) -> Replay:
        """From what an earlier audit kept, or from nothing. What was at blocks before `first` it cannot say."""
        asked, state = self._asked, self._state
        replay = Replay(
            state.books() if state else None,
            watch=asked.watch,
            watch_entries=asked.watch_entries,
            watch_subjects=asked.watch_subjects,
            earlier=[one for one in asked.earlier if one.block_number >= first],
        )
        if state:
            replay.findings.extend(state.findings)
            replay.finding_counts.update(state.finding_counts)
        return replay

    def _judge_replay(self) -> None:
        totals = self.replay.books.totals(blocks=0, at=0)
        detail = f"{totals.entries} entries of {len(self.replay.books.logs)} logs, {totals.consents} consents"
        # What a checkpoint says is none of the contract's rules.
        broken = set(self.replay.finding_counts) - {"late", "checkpoint_inconsistent"}
        self.checks.append(Check(name="replay", holds=not broken, detail=detail))

    # --------------------------------------------------------------------------------------------------- (7) and (8)

    def _check_state(self, head: Header, storage_root: Hex32) -> None:
        if hex32_of(self.replay.books.storage_root()) == storage_root:
            slots = self.replay.books.slots()
            self._holds("state_root", f"{slots} slots of storage, the root is the one that the block's state proves")
            return
        try:
            where = self._named(head, storage_root)
        except (ChainUnavailableError, AuditError):
            # That it differs is proven already: no answer to where takes that back.
            where = "the endpoint does not say where"
        raise AuditError(f"the contract's storage is not what its events explain: {where}")

    def _named(self, head: Header, storage_root: Hex32) -> str:
        """What in the storage is not as the events explain it, as far as a few questions tell."""
        asked = list(islice(self.replay.books.named_slots(), MAX_NAMED))
        answer = self._feed.account(head, [hex32_of(slot) for _, slot, _ in asked])
        proofs = answer.get("storageProof")
        if not isinstance(proofs, list) or len(proofs) != len(asked):
            return "the endpoint does not say where"
        found = []
        for (name, slot, word), proof in zip(asked, proofs, strict=True):
            nodes = _nodes(proof.get("proof") if isinstance(proof, dict) else None)
            if storage_word(storage_root, hex32_of(slot), nodes) != word:
                found.append(name)
        return ", ".join(found[:5]) if found else "there is something that no event tells of"

    def _check_earlier(self, head: Header) -> None:
        if not self._asked.earlier:
            return
        newest = max(one.block_number for one in self._asked.earlier)
        if newest > head.number:
            raise ChainUnavailableError(f"a checkpoint is of block {newest}, later than block {head.number}")
        if self._state is not None and any(one.block_number <= self._state.block_number for one in self._asked.earlier):
            raise ChainUnavailableError("a checkpoint is older than what was audited before: audit from the start")
        oldest = min(one.block_number for one in self._asked.earlier)
        if self._state is None and oldest < self._asked.first_block:
            raise ChainUnavailableError(f"a checkpoint is of block {oldest}, before the first that was read")
        self.replay.end()
        if not self._asked.all_headers:
            for number, block_hash in {(one.block_number, one.block_hash) for one in self._asked.earlier}:
                if self._feed.header(number).block_hash != block_hash:
                    self._find("checkpoint_inconsistent", f"block {number} is another than the checkpoint's")
        if "checkpoint_inconsistent" in self._counts():
            self.checks.append(Check(name="checkpoints", holds=False, detail="a log never was what a checkpoint says"))
        else:
            self._holds("checkpoints", f"{len(self._asked.earlier)} earlier points of logs were passed")

    # ------------------------------------------------------------------------------------------------------ the result

    def audit(self, now: int) -> Audit:
        """What it came to."""
        if self._unchanged is not None:
            return self._as_before(self._unchanged, now)
        replay, head = self.replay, self._head
        # A header that leads nowhere can have any time: what was replayed by it reproaches no one.
        books = replay.books if self._read_to_the_end else Books()
        report = AuditReport(
            domain=self._asked.domain,
            block=None
            if head is None
            else AuditedBlock(
                number=head.number, block_hash=head.block_hash, timestamp=head.timestamp, given=self._given
            ),
            endpoints=tuple(rpc.url for rpc in self._rpcs),
            made_at=now,
            checks=tuple(self.checks),
            findings=(*(replay.findings if self._read_to_the_end else ()), *self._findings),
            finding_counts=dict(self._counts()),
            totals=books.totals(blocks=self._blocks, at=head.timestamp if head else 0),
            refusals_by_reason={Reason(number): count for number, count in sorted(books.reasons.items())},
            days=books.day_counts(),
            logs=books.log_summaries(),
            consents=books.consent_summaries(),
            revocation_gaps=books.revocation_gaps(),
            compelled=books.orders(),
            resumed_from=self._state.block_number if self._state else None,
        )
        return Audit(
            report=report,
            books=books,
            entries=tuple(replay.entries) if self._read_to_the_end else (),
            changes=tuple(replay.changes) if self._read_to_the_end else (),
            keep=lambda: self._kept(report),
        )

    def _as_before(self, before: AuditReport, now: int) -> Audit:
        """The report of the earlier audit, with what was checked of it now."""
        assert before.block is not None, "it was proven of a block"
        assert self._state is not None, "it is of a state"
        report = replace(
            before,
            block=replace(before.block, given=self._given),
            endpoints=tuple(rpc.url for rpc in self._rpcs),
            made_at=now,
            checks=tuple(self.checks),
            findings=(*self._state.findings, *self._findings),
            finding_counts=dict(self._counts()),
            resumed_from=self._state.block_number,
        )
        return Audit(report=report, books=Books(), entries=(), changes=(), keep=lambda: self._state)

    def _kept(self, report: AuditReport) -> AuditState | None:
        """Only what was proven to the end is gone on from."""
        if self._proven is None:
            return None
        head, storage_root = self._proven
        # The findings of the replay are the ledger's history, the others are of this audit.
        return AuditState(
            domain=report.domain,
            block_number=head.number,
            block_hash=head.block_hash,
            storage_root=storage_root,
            linked=self._asked.all_headers and (self._state is None or self._state.linked),
            sources=self._sources,
            blocks=self._blocks,
            findings=tuple(self.replay.findings),
            finding_counts=dict(self.replay.finding_counts),
            report=report.as_json(),
            packed_books=packed(self.replay.books),
        )


def _nodes(proof: object) -> tuple[bytes, ...]:
    if not isinstance(proof, list) or not all(isinstance(node, str) and _HEX.fullmatch(node) for node in proof):
        raise ChainUnavailableError("eth_getProof: the endpoint's answer is no proof")
    return tuple(bytes.fromhex(node[2:]) for node in proof)


def _without_urls(message: str, rpcs: Sequence[Rpc]) -> str:
    """Where an endpoint is may be nobody else's matter."""
    origins = [origin_of(rpc.url) for rpc in rpcs]
    for number, origin in enumerate(origins, start=1):
        message = message.replace(origin, f"endpoint {number}" if origins.count(origin) == 1 else "an endpoint")
    return message
