"""Group commit, the log of one writer, and the simulator's agreement with the decision table (P2, P3)."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from actors import NOON, World
from contract_rules import consent_id_on_chain
from eth_account import Account
from simulator import SimulatedChain

from ledger.access import BatchKind, fold
from ledger.commit import Finality, LogWriter
from ledger.consent import ZERO32, Address, ConsentState, Domain, Hex32, Reason, State, hex32_of
from ledger.contract import append_call, call, decode_call, grant_call, revoke_as_custodian_call
from ledger.contract_events import batches_of
from ledger.errors import (
    ChainUnavailableError,
    EmptyBatchError,
    HeadMismatchError,
    LedgerError,
    LogAheadError,
    NotCustodianError,
    NotWriterError,
    TransactionRevertedError,
)
from ledger.journal import INTENT, RELEASED
from ledger.signatures import HttpRequest
from ledger.typed_data import consent_id_of, outer_of

CASES: Final = Path(__file__).parent / "vectors" / "consent_cases.json"
ROWS: Final[list[dict[str, Any]]] = json.loads(CASES.read_text(encoding="utf-8"))["cases"]
OTHERS: Final = Address(Account.create().address)
DOMAIN: Final = Domain(chain_id=31337, contract=Address(Account.create().address))


# --------------------------------------------------------------------------------------------------- the decision table


def state_of(row: dict[str, Any]) -> ConsentState:
    consent = row["consent"]
    if not consent["granted"]:
        return ConsentState(state=State.REVOKED if consent["revoked"] else State.UNKNOWN)
    standing = State.PAUSED if consent["paused"] else State.ACTIVE
    return ConsentState(
        valid_from=NOON + consent["validFrom"],
        expires_at=NOON + consent["expiresAt"],
        max_accesses=consent["maxAccesses"],
        accesses=consent["accesses"],
        custodian_number=1 if consent["custodian"] == "same" else 2,
        pause_sequence=1 if consent["paused"] else 0,
        state=State.REVOKED if consent["revoked"] else standing,
    )


def reason_of(row: dict[str, Any]) -> Reason:
    return {reason.name.replace("_", "").lower(): reason for reason in Reason}[row["reason"].lower()]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_the_python_verdict_is_the_one_of_the_table(row: dict[str, Any]) -> None:
    assert state_of(row).reason(at=NOON + row["at"], custodian_number=1) is reason_of(row)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_the_simulated_contract_answers_and_appends_by_the_table(row: dict[str, Any]) -> None:
    """The state is brought about by calls where time allows it, so that the simulator's own rules are what is tried."""
    chain = SimulatedChain(DOMAIN, lambda: NOON)
    custodian, writer = Account.create(), Account.create()
    chain.transact(custodian, call("setWriter", writer.address, True))
    chain.transact(Account.create(), call("setWriter", writer.address, True))
    consent_id = hex32_of(b"\x01" * 32)
    if state_of(row) != ConsentState():
        chain.state.consents[consent_id] = state_of(row)
    chain.mine(at=NOON + row["at"])
    assert chain.statuses([consent_id], Address(custodian.address)) == [reason_of(row)]

    chain.automine = False
    pair = [(b"\x01" * 32, b"\x02" * 32)]
    chain.transact(writer, call("append", custodian.address, bytes(32), pair))
    chain.mine(at=NOON + row["at"])
    (event,) = [event for event in chain.all_events() if event.name.startswith("Access")]
    recorded = reason_of(row) is Reason.NONE
    assert event.name == ("AccessRecorded" if recorded else "AccessRefused")
    assert chain.consent(consent_id).accesses == state_of(row).accesses + recorded


# ------------------------------------------------------------------------------------------ the simulator's other rules


def test_the_simulator_computes_the_id_that_is_signed(world: World) -> None:
    grant = world.subject.draft(world.custodian, world.institution)
    _, (terms, _) = decode_call(grant_call(outer_of(grant), b""))
    assert consent_id_on_chain(terms, world.chain.domain) == consent_id_of(grant, world.chain.domain)


def test_only_an_allowed_writer_appends_and_only_on_the_head(world: World) -> None:
    consent = world.grant()
    calldata = call("append", world.custodian.address, bytes(32), [(bytes.fromhex(consent[2:]), b"\x05" * 32)])
    with pytest.raises(NotWriterError):
        world.chain.simulate(Address(Account.create().address), calldata, gas=1_000_000)
    world.chain.simulate(world.custodian.log.address, calldata, gas=1_000_000)
    world.ask(consent)
    with pytest.raises(HeadMismatchError):
        world.chain.simulate(world.custodian.log.address, calldata, gas=1_000_000)
    head = world.chain.log(world.custodian.address, world.custodian.log.address).head
    nothing = append_call(BatchKind.ACCESSES, world.custodian.address, head, [])
    with pytest.raises(EmptyBatchError):
        world.chain.simulate(world.custodian.log.address, nothing, gas=1_000_000)


def test_a_foreign_custodian_narrows_nothing(world: World) -> None:
    consent = world.grant()
    stranger = Account.create()
    world.chain.transact(stranger, call("setWriter", stranger.address, True))
    with pytest.raises(NotCustodianError):
        world.chain.simulate(Address(stranger.address), revoke_as_custodian_call([consent]), gas=1_000_000)


def test_a_reverted_call_changes_nothing(world: World) -> None:
    consent = world.grant()
    before = world.chain.state.copy()
    unknown = Hex32("0x" + "44" * 32)
    receipt = world.chain.transact(world.custodian.accounts.custodian, revoke_as_custodian_call([consent, unknown]))
    assert receipt is not None
    assert not receipt.succeeded
    assert receipt.events == ()
    assert world.chain.state == before


# -------------------------------------------------------------------------------------------------------------- the log


def test_the_head_is_the_fold_of_all_batches(world: World) -> None:
    for _ in range(3):
        world.ask(world.grant())
    head: Hex32 = ZERO32
    for appended in batches_of(world.chain.all_events()):
        accesses = [outcome.access for outcome in appended.outcomes]
        head = fold(head, appended.kind, accesses, [outcome.reason for outcome in appended.outcomes])
        assert appended.head == head
    log = world.chain.log(world.custodian.address, world.custodian.log.address)
    assert (log.head, log.size) == (head, 3)


def test_one_bad_entry_of_a_batch_does_not_stop_the_others(world: World) -> None:
    consents = [world.grant() for _ in range(6)]
    requests = [world.request(consent) for consent in consents]
    # One goes ahead and is held, so that the others gather; one of their consents ends before their batch is sent.
    gathered = threading.Event()
    world.steps.at("batch durable", lambda: gathered.wait(timeout=5))
    world.steps.at("batch durable", lambda: world.subject.revoke_directly(world.chain, world.grant_of(consents[3])))
    with ThreadPoolExecutor(6) as pool:
        futures = [pool.submit(outcome_code, world, requests[0])]
        wait_until(lambda: "batch durable" in world.steps.passed)
        futures += [pool.submit(outcome_code, world, request) for request in requests[1:]]
        wait_until(lambda: len(world.custodian.releases._rounds._waiting) == 5)
        gathered.set()
        codes = [future.result() for future in futures]
    assert codes == ["released"] * 3 + ["revoked"] + ["released"] * 2
    assert len(batches_of(world.chain.all_events())) == 2


def wait_until(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(10_000):
        if condition():
            return
        pause.wait(0.002)
    pytest.fail("nothing happened")


def outcome_code(world: World, signed: HttpRequest) -> str:
    try:
        world.custodian.releases.release(signed)
    except LedgerError as exc:
        return exc.code
    return "released"


def test_a_batch_that_is_sent_twice_lands_once(world: World) -> None:
    consent = world.grant()
    world.steps.at("batch sent", lambda: world.chain.send(world.chain.sent[-1]))
    world.ask(consent)
    assert len(world.logged()) == 1


def test_the_transaction_is_durable_before_it_is_sent(world: World) -> None:
    on_file: list[bytes] = []

    def look() -> None:
        batch = world.custodian.journal.pending_batch(world.custodian.log.address)
        assert batch is not None
        on_file.append(batch.raw)

    consent = world.grant()
    world.chain.before("send", look)
    world.ask(consent)
    assert on_file == [world.chain.sent[-1]]


def test_a_log_that_someone_else_wrote_to_stops_the_writer_and_releases_nothing(world: World) -> None:
    """A stolen writer key: its entry is on chain for all to see, and this service does not build on it."""
    consent = world.grant()
    stolen = world.custodian.accounts.writers[0]
    assert Address(stolen.address) == world.custodian.log.address
    calldata = call("append", world.custodian.address, bytes(32), [(b"\x09" * 32, b"\x08" * 32)])
    world.chain.before("statuses", lambda: world.chain.transact(stolen, calldata))
    for _ in range(2):
        with pytest.raises(LogAheadError):
            world.ask(consent, key="once")
    assert world.states() == [INTENT]
    assert world.logged() == []


def test_where_no_writer_may_append_it_is_said(world: World) -> None:
    consent = world.grant()
    owner = world.custodian.accounts.custodian
    for writer in world.custodian.accounts.writers:
        world.chain.transact(owner, call("setWriter", writer.address, False))
    with pytest.raises(NotWriterError):
        world.ask(consent, key="once")
    world.chain.transact(owner, call("setWriter", world.custodian.log.address, True))
    assert world.ask(consent, key="once").sealed


def test_a_writer_that_may_not_append_any_more_makes_way_for_another_one(world: World) -> None:
    consent = world.grant()
    world.ask(consent)
    first = world.custodian.log.address
    world.custodian.writers.retire(first)
    world.restart()
    assert world.ask(consent).sealed
    assert world.custodian.log.address != first
    assert {appended.writer for appended in batches_of(world.chain.all_events())} == {
        first,
        world.custodian.log.address,
    }
    # The one that it left is nobody's, and the one that it took is nobody else's.
    with world.open() as other:
        assert other.log.address == first
    with world.open() as other:
        assert other.releases.release(world.request(consent)).sealed
        assert other.log.address not in (first, world.custodian.log.address)


def test_a_writer_that_is_taken_out_of_use_under_a_process_costs_it_one_try(world: World) -> None:
    consent = world.grant()
    world.ask(consent)
    world.custodian.writers.retire(world.custodian.log.address)
    with pytest.raises(TransactionRevertedError):
        world.ask(consent, key="once")
    assert world.ask(consent, key="once").sealed
    assert len(world.logged()) == 2


def test_a_writer_that_was_taken_out_of_use_stays_out_when_the_writers_are_let_in(world: World) -> None:
    first = world.custodian.log.address
    world.custodian.writers.retire(first)
    world.custodian.allow_writers()
    assert not world.chain.log(world.custodian.address, first).allowed
    # On a chain that begins anew as well.
    world.rebuild_chain()
    world.custodian.sync()
    assert not world.chain.log(world.custodian.address, first).allowed
    assert world.custodian.writers.retire(first).state == "retired"


def test_where_every_writer_was_taken_out_of_use_one_that_is_added_goes_on(world: World) -> None:
    consent = world.grant()
    for writer in world.custodian.accounts.writers:
        world.custodian.writers.retire(Address(writer.address))
    with pytest.raises(NotWriterError):
        world.ask(consent, key="once")
    added = world.custodian.add_writer()
    assert added.state == "usable"
    assert world.ask(consent, key="once").sealed
    assert world.custodian.log.address == added.address
    world.restart()
    assert world.ask(consent).sealed
    assert {appended.writer for appended in batches_of(world.chain.all_events())} == {added.address}


def test_no_writer_is_added_that_nothing_can_let_in(world: World) -> None:
    before = [log.address for log in world.custodian.writers.logs()]
    world.chain.down = True
    with pytest.raises(ChainUnavailableError):
        world.custodian.add_writer()
    world.chain.down = False
    world.restart()
    assert [log.address for log in world.custodian.writers.logs()] == before


def test_a_writer_that_is_stopped_while_its_batch_is_on_the_way_loses_nothing(world: World) -> None:
    consent = world.grant()
    stop = call("setWriter", world.custodian.log.address, False)
    world.steps.at("batch durable", lambda: world.chain.transact(world.custodian.accounts.custodian, stop))
    with pytest.raises(TransactionRevertedError):
        world.ask(consent, key="once")
    assert world.states() == [INTENT]
    assert world.ask(consent, key="once").sealed
    assert len(world.logged()) == 1


def test_each_process_has_a_log_of_its_own(world: World) -> None:
    first, second = world.grant(), world.grant()
    with world.open() as other:
        world.ask(first)
        other.releases.release(world.request(second))
        writers = {appended.writer for appended in batches_of(world.chain.all_events())}
        assert writers == {world.custodian.log.address, other.log.address}
    assert world.states() == [RELEASED] * 2


def test_the_block_that_became_final_must_be_the_one_with_the_batch(data: Path, first_state: World) -> None:
    world = World(data, finality=Finality(tag="finalized", timeout=0.5), like=first_state)
    consent = world.grant()
    world.chain.before("finalized", lambda: world.chain.reorg(1, keep=True))
    with pytest.raises(LedgerError) as caught:
        world.ask(consent, key="once")
    assert caught.value.code == "confirmation_timeout"
    assert world.states() == [INTENT]
    assert world.ask(consent, key="once").sealed
    assert len(world.logged()) == 1


def test_an_entry_of_another_batch_in_the_receipt_is_no_confirmation(world: World) -> None:
    """The receipt of somebody else's append, passed off as ours."""
    consent = world.grant()

    def lie(receipt: Any) -> Any:
        events = tuple(
            replace(event, args=(event.args[0], OTHERS, *event.args[2:])) if event.name == "LogAppended" else event
            for event in receipt.events
        )
        return replace(receipt, events=events)

    world.chain.lie = lie
    with pytest.raises(ChainUnavailableError):
        world.ask(consent, key="once")
    assert world.states() == [INTENT]


@pytest.mark.parametrize("size", [0, 1, 3, 2**61, 2**64 - 1])
def test_a_size_that_the_batch_does_not_make_is_no_confirmation(world: World, size: int) -> None:
    """It is not in the head: a receipt would name it, and the journal would take this batch for the last for ever."""
    consent = world.grant()
    world.ask(consent, key="first")

    def lie(receipt: Any) -> Any:
        events = tuple(
            replace(event, args=(*event.args[:3], size, event.args[4])) if event.name == "LogAppended" else event
            for event in receipt.events
        )
        return replace(receipt, events=events)

    told = world.chain.lie
    world.chain.lie = lie
    with pytest.raises(ChainUnavailableError):
        world.ask(consent, key="second")
    assert world.states() == [INTENT, RELEASED]
    world.chain.lie = told
    for key in ("second", "third"):
        assert world.ask(consent, key=key).sealed
        world.restart()
    assert world.states() == [RELEASED] * 3


def test_a_writer_without_a_batch_in_flight_has_nothing_to_resolve(world: World) -> None:
    log: LogWriter = world.custodian.log
    sent = len(world.chain.sent)
    log.resolve()
    assert len(world.chain.sent) == sent


def test_thirty_at_once_are_all_served(world: World) -> None:
    consents = [world.grant() for _ in range(10)]
    requests = [world.request(consent) for consent in consents for _ in range(3)]
    with ThreadPoolExecutor(30) as pool:
        codes = list(pool.map(lambda signed: outcome_code(world, signed), requests))
    assert codes == ["released"] * 30
    assert len(set(world.logged())) == 30
