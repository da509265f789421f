"""Sync when something cannot go on: what waits, what does not, and what is not believed (P1, P2, P8)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest
from actors import DAY, Institution, Subject, World, id_of
from simulator import BASE_FEE

from ledger.commit import Finality
from ledger.consent import Address, ConsentGrant, Hex32, Reason
from ledger.contract import call
from ledger.contract_events import Event
from ledger.custodian import Custodian
from ledger.errors import (
    ChainError,
    ChainUnavailableError,
    ConfirmationTimeoutError,
    ConsentRevokedError,
    InvalidSignatureError,
    LedgerError,
    LogAheadError,
    TransactionRevertedError,
)
from ledger.journal import ABORTED, INTENT, RELEASED
from ledger.locks import FileLock
from ledger.sync import SyncReport
from ledger.writers import WriterLog


class Killed(BaseException):
    """What a process does not survive."""


def die() -> None:
    raise Killed


def status(world: World, consent: Hex32) -> Reason:
    return world.chain.statuses([consent], world.custodian.address)[0]


def revoked_while_away(world: World, subject: Subject | None = None) -> Hex32:
    """A consent whose revocation is on file, and is on chain when a sync puts it there."""
    subject = subject or world.another_subject()
    consent = subject.grant(world.custodian, world.institution)
    world.chain.down = True
    assert subject.revoke(world.custodian, consent).receipt is None
    world.chain.down = False
    return consent


def two_faced(world: World) -> ConsentGrant:
    """A grant of a smart account that signed whenever it is asked, and never when it counts: such a grant goes nowhere.

    Any account can do that: it sees the price of gas, which is nothing when it is only asked.
    """
    wallet = world.another_subject()
    asked_and_executed = itertools.cycle([True, False])
    world.chain.smart_accounts[wallet.address] = lambda *_: next(asked_and_executed)
    draft = wallet.draft(world.custodian, world.institution)
    with pytest.raises(TransactionRevertedError):
        wallet.hand_in(world.custodian, draft, b"\x01" * 66)
    return draft


# ----------------------------------------------------------------------------------------- one act's trouble is its own


def leave_work(world: World) -> Callable[[], None]:
    """Something for every step of a sync. Returns a check that all of it was done."""
    revoked, known = revoked_while_away(world), world.grant()
    world.subject.revoke_directly(world.chain, world.grant_of(known))
    asked = world.grant()
    with pytest.raises(LedgerError):
        world.ask(asked, purpose="account-review")
    with world.open() as other:
        world.steps.at("batch sent", die)
        with pytest.raises(Killed):
            other.releases.release(world.request(asked, key="stale"))
    world.clock.advance(2000)

    def require_all_done() -> None:
        assert status(world, revoked) is Reason.REVOKED
        assert world.custodian.registry.consent(known).revoked_at is not None
        assert len(world.logged("AccessRefused")) == 1
        assert world.states() == [ABORTED, "refused"]

    return require_all_done


def test_an_act_that_fails_for_ever_keeps_nothing_else_from_its_turn(world: World) -> None:
    two_faced(world)
    require_all_done = leave_work(world)
    with pytest.raises(TransactionRevertedError):
        world.custodian.sync()
    require_all_done()


def test_a_lane_that_cannot_pay_keeps_no_other_lane_waiting(world: World) -> None:
    grants = Address(world.custodian.accounts.grants.address)
    draft = world.subject.draft(world.custodian, world.institution)
    require_all_done = leave_work(world)
    world.chain.penniless.add(grants)
    with pytest.raises(ChainError):
        world.subject.hand_in(world.custodian, draft)
    with pytest.raises(ChainError):
        world.custodian.sync()
    require_all_done()
    world.chain.penniless.clear()
    world.custodian.sync()
    assert status(world, id_of(draft, world.chain)) is Reason.NONE


def test_a_writer_that_is_stuck_keeps_no_revocation_waiting(world: World) -> None:
    """A stolen writer key: what its last batch became cannot be told, and that is nobody else's trouble."""
    with world.open() as other:
        world.steps.at("batch durable", die)
        with pytest.raises(Killed):
            other.releases.release(world.request(world.grant()))
        stolen = next(one for one in world.custodian.accounts.writers if Address(one.address) == other.log.address)
    theirs = call("append", world.custodian.address, bytes(32), [(b"\x09" * 32, b"\x08" * 32)])
    world.chain.transact(stolen, theirs)
    consent = revoked_while_away(world)
    (ahead,) = world.custodian.sync().ahead
    assert (ahead.address, ahead.on_chain, ahead.on_file) == (Address(stolen.address), 1, 0)
    assert status(world, consent) is Reason.REVOKED
    # Out of use, its batch can never land: the release is free to be logged by another one.
    assert world.states() == [INTENT]
    world.custodian.writers.retire(ahead.address)
    assert world.custodian.sync() == SyncReport()
    assert world.custodian.journal.pending_batch(ahead.address) is None


def test_after_an_older_backup_sync_names_the_log_that_is_ahead_and_the_verb_lets_releases_go_on(world: World) -> None:
    consent = world.grant()
    world.ask(consent, key="before")
    world.restore_what_was_before(lambda: world.ask(consent, key="after"))
    first = world.custodian.log.address
    for _ in range(2):
        (ahead,) = world.custodian.sync().ahead
        assert (ahead.address, ahead.state, ahead.on_chain, ahead.on_file) == (first, "ahead", 2, 1)
        # Nothing goes on by itself: it may be that somebody else has the key.
        with pytest.raises(LogAheadError):
            world.ask(consent, key="new")
        with pytest.raises(LogAheadError):
            world.custodian.require_writer()
    world.custodian.writers.retire(first)
    assert world.custodian.sync() == SyncReport()
    world.custodian.require_writer()
    assert world.ask(consent, key="new").sealed
    # What is on chain stays there, and is not written again.
    assert len(world.logged()) == 3


def test_a_log_that_its_own_process_appends_to_meanwhile_is_not_ahead(world: World) -> None:
    consent = world.grant()
    with world.open() as other:
        theirs = next(one for one in other.accounts.writers if Address(one.address) == other.log.address)
        world.chain.before("log", lambda: other.releases.release(world.request(consent)))
        log = world.custodian.writers.log_of(theirs)
        assert (log.state, log.on_chain, log.on_file) == ("usable", 1, 1)
        assert world.custodian.sync().ahead == []
    assert len(world.logged()) == 1


@pytest.mark.parametrize("step", ["batch durable", "batch sent", "batch landed"])
def test_a_batch_in_flight_is_not_what_makes_a_log_be_ahead(world: World, step: str) -> None:
    consent = world.grant()
    with world.open() as other:
        seen: list[WriterLog] = []
        world.steps.at(step, lambda: seen.extend(world.custodian.writers.ahead()))
        other.releases.release(world.request(consent))
    assert seen == []


def test_what_is_about_the_consent_of_an_act_that_waits_is_not_judged_before_it(world: World) -> None:
    """Taken for a verdict, the contract's not knowing the consent yet would leave it in force there for ever."""
    draft = world.subject.draft(world.custodian, world.institution)
    world.chain.penniless.add(Address(world.custodian.accounts.grants.address))
    with pytest.raises(ChainError):
        world.subject.hand_in(world.custodian, draft)
    world.custodian.grants.revoke_as_custodian([id_of(draft, world.chain)])
    with pytest.raises(ChainError):
        world.custodian.sync()
    world.chain.penniless.clear()
    world.custodian.sync()
    assert status(world, id_of(draft, world.chain)) is Reason.REVOKED


@pytest.mark.parametrize("trouble", ["penniless", "busy"])
def test_an_access_whose_lost_grant_waits_does_not_come_back_late(
    world: World, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    consent = world.grant()
    world.ask(consent)
    world.subject.revoke(world.custodian, consent)
    lane = world.custodian.accounts.grants.address
    world.rebuild_chain()
    if trouble == "penniless":
        world.chain.penniless.add(Address(lane))
        with pytest.raises(ChainError):
            world.custodian.sync()
        world.chain.penniless.clear()
    else:
        monkeypatch.setattr(world.custodian.relay, "_timeout", 0.05)
        with FileLock(world.config.locks / f"{lane}.lock").hold(timeout=1):
            assert world.custodian.sync().waiting == 2
    assert world.logged() + world.logged("AccessLate") == []
    report = world.custodian.sync()
    assert (report.replayed_accesses, report.late) == (1, 0)
    assert status(world, consent) is Reason.REVOKED


def test_what_came_after_an_access_that_is_not_back_waits_for_it(world: World) -> None:
    consent = world.grant()
    world.ask(consent)
    world.subject.revoke(world.custodian, consent)
    world.rebuild_chain()
    world.chain.penniless.add(world.custodian.log.address)
    with pytest.raises(ChainError):
        world.custodian.sync()
    assert status(world, consent) is Reason.NONE
    world.chain.penniless.clear()
    world.custodian.sync()
    assert status(world, consent) is Reason.REVOKED
    assert (len(world.logged()), world.logged("AccessLate")) == (1, [])


def test_a_lost_revocation_waits_for_no_access_of_another_consent(world: World) -> None:
    """The accesses are free for another batch, which nobody can send: the nonce of their own one was used."""
    used, revoked = world.grant(), world.grant()
    world.ask(used)
    world.subject.revoke(world.custodian, revoked)
    world.subject.revoke(world.custodian, used)
    world.rebuild_chain()
    mine = world.custodian.log.address
    world.chain.transact(next(one for one in world.custodian.accounts.writers if Address(one.address) == mine), b"")
    world.chain.penniless.add(mine)
    # In the first run they are put into a batch, which the others find in flight.
    for _ in range(3):
        with pytest.raises(ChainError):
            world.custodian.sync()
        assert (status(world, revoked), status(world, used)) == (Reason.REVOKED, Reason.NONE)
    world.chain.penniless.clear()
    assert world.custodian.sync().late == 0
    assert (status(world, used), len(world.logged())) == (Reason.REVOKED, 1)


def test_a_lost_revocation_waits_for_no_refusal_that_is_not_back(world: World) -> None:
    consent = world.grant()
    with pytest.raises(LedgerError):
        world.ask(consent, purpose="account-review")
    world.custodian.releases.log_refusals()
    world.subject.revoke(world.custodian, consent)
    world.rebuild_chain()
    world.chain.penniless.add(world.custodian.log.address)
    with pytest.raises(ChainError):
        world.custodian.sync()
    assert status(world, consent) is Reason.REVOKED


def test_a_revocation_of_now_waits_for_no_access_that_is_not_back(world: World) -> None:
    consent = world.grant()
    world.ask(consent)
    world.rebuild_chain()
    world.chain.down = True
    world.subject.revoke(world.custodian, consent)
    world.chain.down = False
    world.chain.penniless.add(world.custodian.log.address)
    with pytest.raises(ChainError):
        world.custodian.sync()
    assert status(world, consent) is Reason.REVOKED


def test_a_consent_that_replaces_one_whose_grant_was_refused_stands(world: World) -> None:
    first = world.subject.draft(world.custodian, world.institution)
    world.chain.down = True
    with pytest.raises(ChainUnavailableError):
        world.subject.hand_in(world.custodian, first)
    second = world.subject.draft(world.custodian, world.institution, replaces=id_of(first, world.chain))
    with pytest.raises(ChainUnavailableError):
        world.subject.hand_in(world.custodian, second)
    world.chain.down = False
    world.subject.revoke_directly(world.chain, first)
    world.custodian.sync()
    assert world.custodian.registry.find_consent(id_of(first, world.chain)) is None
    assert world.ask(id_of(second, world.chain)).sealed


# -------------------------------------------------------------------------------------------- what can never land, ends


def given_a_used_nonce(world: World, consent: Hex32) -> None:
    """A release whose batch was signed with what a node that is behind took for the next nonce."""
    world.ask(consent)
    world.chain.nonces_behind = 1
    with pytest.raises(ConfirmationTimeoutError):
        world.ask(consent, key="once")
    world.chain.nonces_behind = 0


@pytest.mark.parametrize("by", ["sync", "the next release", "another process"])
def test_a_batch_with_a_nonce_that_was_used_lets_its_writer_go_on(data: Path, first_state: World, by: str) -> None:
    world = World(data, finality=World.quick, like=first_state)
    consent = world.grant()
    given_a_used_nonce(world, consent)
    if by == "sync":
        world.custodian.sync()
    elif by == "the next release":
        assert world.ask(world.grant()).sealed
    else:
        world.restart()
    assert world.ask(consent, key="once").sealed
    assert len(world.logged()) == len(set(world.logged()))
    assert world.states() == [RELEASED] * len(world.logged())
    world.custodian.close()


def test_what_was_given_up_while_its_batch_was_on_the_way_and_is_refused_on_chain_is_refused(
    data: Path, first_state: World
) -> None:
    """As a release that was ended it would have a place on the log, and a receipt of an access that there was not."""
    world = World(data, finality=World.quick, like=first_state)
    consent = world.grant()
    world.chain.drop = 2
    with pytest.raises(ConfirmationTimeoutError):
        world.ask(consent, key="once")
    world.clock.advance(2000)
    with pytest.raises(ConfirmationTimeoutError):
        world.custodian.sync()
    assert world.states() == [ABORTED]
    world.subject.revoke_directly(world.chain, world.grant_of(consent))
    world.custodian.sync()
    assert (len(world.logged("AccessRefused")), world.states()) == (1, ["refused"])
    with pytest.raises(ConsentRevokedError):
        world.custodian.releases.receipt(world.custodian.journal.history()[0].release_id)
    world.custodian.close()


def test_a_batch_whose_nonce_is_free_is_not_given_up(data: Path, first_state: World) -> None:
    """It may be in a block at any moment: another batch with its entries would be one too many."""
    world = World(data, finality=World.quick, like=first_state)
    consent = world.grant()
    world.chain.automine = False
    for _ in range(3):
        with pytest.raises(ChainError):
            world.ask(consent, key="once")
        with pytest.raises(ChainError):
            world.custodian.sync()
    world.chain.mine()
    assert world.ask(consent, key="once").sealed
    assert len(world.logged()) == 1
    world.custodian.close()


def test_a_batch_that_waits_in_a_pool_for_the_lost_one_before_it_is_on_the_log_once(world: World) -> None:
    """Put back, the lost one makes the very head that the other was built on, and uses the nonce that it waits for."""
    consent = world.grant()
    world.ask(consent)
    world.chain.reorg(1)
    world.custodian.sync()
    world.steps.at("batch durable", lambda: world.chain.reorg(1))
    world.steps.at("batch sent", die)
    with pytest.raises(Killed):
        world.ask(consent, key="once")
    world.restart()
    world.custodian.sync()
    assert world.ask(consent, key="once").sealed
    assert world.states() == [RELEASED] * 2
    assert len(world.logged()) == len(set(world.logged())) == 2


def test_a_batch_that_waits_for_a_nonce_that_nobody_uses_lets_its_writer_go_on(data: Path, first_state: World) -> None:
    world = World(data, finality=World.quick, like=first_state)
    consent = world.grant()
    world.chain.nonces_behind = -1
    with pytest.raises(ConfirmationTimeoutError):
        world.ask(consent, key="once")
    world.chain.nonces_behind = 0
    assert world.ask(consent, key="once").sealed
    assert len(world.logged()) == 1
    world.custodian.close()


# ---------------------------------------------------------------------------------- what is too cheap by now, is no end


def let_gas_be_dearer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a chain begins anew: from here on nothing is taken at the price that it was signed at."""
    too_cheap, really = set(world.chain.sent), world.chain.send

    def send(raw: bytes) -> None:
        if raw in too_cheap:
            raise TransactionRevertedError("the chain did not take the transaction: underpriced")
        really(raw)

    monkeypatch.setattr(world.chain, "send", send)
    monkeypatch.setattr("simulator.BASE_FEE", 2 * BASE_FEE)


def test_a_lost_batch_that_is_not_taken_as_it_was_signed_comes_back_in_another_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    consent = world.grant()
    world.ask(consent)
    let_gas_be_dearer(world, monkeypatch)
    world.rebuild_chain()
    report = world.custodian.sync()
    assert (report.replayed_accesses, report.late) == (1, 0)
    assert len(world.logged()) == 1
    assert world.ask(consent).sealed


def test_a_lost_batch_of_a_process_that_ended_is_not_waited_for_because_its_gas_is_too_cheap(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    consent = world.grant()
    with world.open() as other:
        other.releases.release(world.request(consent))
    let_gas_be_dearer(world, monkeypatch)
    world.rebuild_chain()
    assert world.custodian.sync().replayed_accesses == 1
    assert len(world.logged()) == 1


@pytest.mark.parametrize("asked_before", [0, 1])
def test_a_batch_in_flight_that_is_not_taken_as_it_was_signed_lets_its_writer_go_on(
    world: World, monkeypatch: pytest.MonkeyPatch, asked_before: int
) -> None:
    consent = world.grant()
    for _ in range(asked_before):
        world.ask(consent)
    world.steps.at("batch sent", die)
    with pytest.raises(Killed):
        world.ask(consent, key="once")
    let_gas_be_dearer(world, monkeypatch)
    world.restart()
    world.rebuild_chain()
    world.custodian.sync()
    assert world.ask(consent, key="once").sealed
    assert len(world.logged()) == len(set(world.logged())) == asked_before + 1


# --------------------------------------------------------------------------------- what is not known yet, is not lost


def test_what_an_endpoint_does_not_know_yet_is_not_logged_again(world: World) -> None:
    """The node that answers is a block behind; the one that takes the transaction is not."""
    consent = world.grant()
    with world.open() as other:
        other.releases.release(world.request(consent))
        world.chain.behind = 1
        world.chain.before("send", lambda: setattr(world.chain, "behind", 0))
        with pytest.raises(ChainUnavailableError):
            world.custodian.sync()
        world.chain.behind = 0
        assert world.custodian.sync() == SyncReport()
    assert len(world.logged() + world.logged("AccessLate")) == 1


@pytest.mark.parametrize("checked", [False, True])
def test_an_endpoint_that_is_far_behind_has_lost_nothing(world: World, checked: bool) -> None:
    if checked:
        world.custodian.sync()
    world.ask(world.grant())
    sent = len(world.chain.sent)
    for behind in (1, 2):
        world.chain.behind = behind
        with pytest.raises(ChainUnavailableError):
            world.custodian.sync()
    world.chain.behind = 0
    assert len(world.chain.sent) == sent
    assert world.custodian.sync() == SyncReport()


def test_a_shorter_chain_with_other_blocks_is_not_one_that_is_behind(world: World) -> None:
    release = world.ask(world.grant(), key="once")
    for _ in range(50):
        world.chain.mine()
    consent = world.grant()
    world.rebuild_chain()
    assert world.custodian.sync().lost > 0
    assert status(world, consent) is Reason.NONE
    assert world.logged("AccessRecorded") == [row.entry_hash for row in world.custodian.journal.history()]
    assert release.sealed


# ------------------------------------------------------------------------------------- what others did on a new branch


@pytest.mark.parametrize("runs", [1, 3, 40])
@pytest.mark.parametrize("depth", [1, 2])
def test_what_others_did_in_blocks_of_old_numbers_is_learned(world: World, runs: int, depth: int) -> None:
    """The new branch has all of our own acts where they were: nothing else says that there is one."""
    consent = world.grant()
    grant = world.grant_of(consent)
    for _ in range(runs):
        world.chain.mine()
        world.custodian.sync()
    world.chain.reorg(min(depth, runs), meanwhile=lambda: world.subject.revoke_directly(world.chain, grant))
    for _ in range(3):
        world.chain.mine()
    assert world.custodian.sync().learned_revocations == 1
    with pytest.raises(ConsentRevokedError):
        world.ask(consent)


def test_what_was_learned_is_not_read_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.grant()
    for _ in range(40):
        world.chain.mine()
        world.custodian.sync()
    read: list[tuple[int, int]] = []
    really = world.chain.events

    def watched(first: int, last: int, *, names: Collection[str]) -> list[Event]:
        read.append((first, last))
        return really(first, last, names=names)

    monkeypatch.setattr(world.chain, "events", watched)
    tip = world.chain.latest().number
    world.custodian.sync()
    world.chain.mine()
    world.custodian.sync()
    # Of a new branch, what is above the last block that it has.
    world.chain.reorg(3)
    world.custodian.sync()
    assert read == [(tip + 1, tip + 1), (tip - 1, tip + 2)]


def test_a_run_that_is_cut_off_while_it_learns_is_gone_on_with(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    consent = world.grant()
    world.subject.revoke_directly(world.chain, world.grant_of(consent))
    for _ in range(60):
        world.chain.mine()
    monkeypatch.setattr("ledger.sync.EVENT_BLOCKS", 10)
    read: list[int] = []
    really, is_cut_off = world.chain.events, True

    def watched(first: int, last: int, *, names: Collection[str]) -> list[Event]:
        read.append(first)
        if is_cut_off and first >= 30:
            raise ChainUnavailableError("gone")
        return really(first, last, names=names)

    monkeypatch.setattr(world.chain, "events", watched)
    for _ in range(2):
        with pytest.raises(ChainUnavailableError):
            world.custodian.sync()
    assert read == [0, 10, 20, 30, 30]
    assert world.custodian.registry.consent(consent).revoked_at is not None
    is_cut_off = False
    world.custodian.sync()
    assert read[5:8] == [30, 40, 50]


# -------------------------------------------------------------------------------- what moved, with what became of it


def places(world: World) -> dict[Hex32, int]:
    """Where the journal says that each entry is among the events of its block."""
    return {row.entry_hash: row.log_index for row in world.custodian.journal.history()}


def test_an_access_that_moved_and_is_refused_there_comes_back_late(world: World) -> None:
    consent, other = world.grant(), world.grant()
    sealed = world.ask(consent, key="once").sealed
    grant = world.grant_of(consent)
    world.chain.reorg(1, keep=True, meanwhile=lambda: world.subject.revoke_directly(world.chain, grant))
    assert len(world.logged("AccessRefused")) == 1
    report = world.custodian.sync()
    assert (report.moved, report.replayed_accesses, report.late) == (1, 1, 1)
    assert world.logged("AccessLate") == world.logged("AccessRefused")
    assert world.ask(consent, key="once").sealed == sealed
    # The writer's log is where the journal says, and goes on; a second reorganisation finds both where they are.
    assert world.ask(other).sealed
    world.chain.reorg(4, keep=True)
    world.custodian.sync()
    assert len(world.logged("AccessLate")) == 1
    assert world.ask(other).sealed
    assert world.custodian.sync() == SyncReport()


def test_a_refusal_that_moved_and_is_recorded_there_was_logged_and_not_handed_over(world: World) -> None:
    consent, other = world.grant(), world.grant()
    grant = world.grant_of(consent)
    world.steps.at("batch durable", lambda: world.subject.revoke_directly(world.chain, grant))
    with pytest.raises(ConsentRevokedError):
        world.ask(consent, key="once")
    # The revocation is gone, the batch is not.
    world.chain.reorg(2, keep=world.custodian.log.address)
    assert len(world.logged()) == 1
    assert world.custodian.sync().moved == 1
    assert world.states() == [ABORTED]
    assert world.ask(other).sealed


def test_an_access_that_moved_has_its_new_place_among_the_events_of_its_block(world: World) -> None:
    consent, _ = world.grant(), world.grant()
    world.ask(consent)
    # Two blocks become one.
    world.chain.reorg(2, keep=True)
    assert world.custodian.sync().moved == 2
    (event,) = [event for event in world.chain.all_events() if event.name == "AccessRecorded"]
    assert event.log_index > 0
    assert places(world) == {event.args[1]: event.log_index}


def test_a_batch_that_is_settled_in_a_block_that_is_gone_is_looked_for_though_later_ones_were_checked(
    world: World,
) -> None:
    consent, third = world.grant(), world.grant()
    with world.open() as other:

        def reorganised() -> None:
            world.chain.reorg(1)
            for _ in range(2):
                world.subject.grant(other, world.institution)
            other.sync()

        world.steps.at("batch landed", reorganised)
        with pytest.raises(ChainError):
            world.ask(consent, key="once")
        world.custodian.sync()
        assert len(world.logged() + world.logged("AccessLate")) == 1
        assert world.ask(third).sealed


# ----------------------------------------------------------------------------------------- a chain that stands still


@pytest.fixture
def still(data: Path, first_state: World) -> Iterator[World]:
    """A world in which nobody waits long and nothing is mined any more. It has one consent, which is in force."""
    made = World(data, finality=Finality(timeout=0.1), like=first_state)
    made.grant()
    made.chain.automine = False
    yield made
    made.custodian.close()


def the_consent(world: World) -> Hex32:
    return world.custodian.registry.consents()[0].consent_id


def test_an_act_that_waits_for_a_block_is_sent_again_as_the_same_bytes(still: World) -> None:
    before = len(still.chain.sent)
    assert still.subject.revoke(still.custodian, the_consent(still)).receipt is None
    for _ in range(3):
        with pytest.raises(ConfirmationTimeoutError):
            still.custodian.sync()
    assert len(still.chain.sent[before:]) == 4
    assert len(set(still.chain.sent[before:])) == 1
    still.chain.mine()
    assert still.custodian.sync().relayed == 1
    assert status(still, the_consent(still)) is Reason.REVOKED


def test_what_is_on_file_as_the_place_of_a_grant_is_the_transaction_that_granted(still: World) -> None:
    draft = still.subject.draft(still.custodian, still.institution)
    with pytest.raises(ConfirmationTimeoutError):
        still.subject.hand_in(still.custodian, draft)
    with pytest.raises(ConfirmationTimeoutError):
        still.custodian.sync()
    still.chain.mine()
    still.custodian.sync()
    act = still.custodian.journal.grant_act(id_of(draft, still.chain))
    assert act is not None
    assert act.transaction_hash is not None
    receipt = still.chain.receipt(act.transaction_hash)
    assert receipt is not None
    assert receipt.succeeded


def test_an_act_that_waits_for_a_nonce_that_nobody_uses_is_signed_again(still: World) -> None:
    """Sent again as it is, it would wait for ever."""
    still.chain.automine = True
    still.chain.nonces_behind = -1
    assert still.subject.revoke(still.custodian, the_consent(still)).receipt is None
    still.chain.nonces_behind = 0
    assert still.custodian.sync().relayed == 1
    assert status(still, the_consent(still)) is Reason.REVOKED


def test_an_act_that_is_not_taken_as_it_was_signed_is_signed_again(
    still: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The price of gas rose: the same bytes would be refused for ever."""
    still.chain.automine = True
    still.chain.drop = 1
    assert still.subject.revoke(still.custodian, the_consent(still)).receipt is None
    too_cheap, really = still.chain.sent[-1], still.chain.send

    def send(raw: bytes) -> None:
        if raw == too_cheap:
            raise TransactionRevertedError("the chain did not take the transaction: underpriced")
        really(raw)

    monkeypatch.setattr(still.chain, "send", send)
    monkeypatch.setattr("simulator.BASE_FEE", 2 * BASE_FEE)
    assert still.custodian.sync().relayed == 1
    assert status(still, the_consent(still)) is Reason.REVOKED


def test_requests_that_wait_for_a_lane_do_not_wait_for_each_other_without_end(still: World) -> None:
    still.chain.automine = True
    consents = [still.grant() for _ in range(8)]
    still.chain.automine = False
    before = len(still.chain.sent)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda consent: still.subject.revoke(still.custodian, consent), consents))
    assert [result.receipt for result in results] == [None] * 8
    # While the first waited for its block, the others gave up waiting for the lane. They are on file.
    assert len(still.chain.sent) - before < 4
    still.chain.automine = True
    still.chain.mine()
    still.custodian.sync()
    assert {status(still, consent) for consent in consents} == {Reason.REVOKED}


# ------------------------------------------------------------------------------------------------------ on a real node


BY_GAS: Final = "0x620f42405a11631626ba7e60e01b025f5260205ff3"
"""A smart account that signed everything if it gets more than a million gas: PUSH3 GAS GT, the answer, MUL, RETURN."""
ALWAYS: Final = "0x631626ba7e60e01b5f5260205ff3"
"""One that signed everything."""


@pytest.mark.devnet
def test_what_was_logged_when_gas_was_cheap_is_back_on_a_chain_where_it_is_dear(quiet_custodian: Custodian) -> None:
    """A node begins anew at a price that falls with every block: what is signed later offers far less."""
    custodian, person, bank = quiet_custodian, Subject("person-1"), Institution()
    bank.register(custodian)
    person.furnish(custodian)
    # The node's clock may be a moment behind.
    consent = person.grant(custodian, bank, valid_from=custodian.clock() - DAY)
    before = custodian.rpc("evm_snapshot")
    custodian.rpc("hardhat_setNextBlockBaseFeePerGas", hex(7))
    custodian.rpc("evm_mine")
    custodian.releases.release(bank.request(custodian, consent))
    custodian.rpc("evm_revert", before)
    custodian.rpc("hardhat_setNextBlockBaseFeePerGas", hex(10**9))
    for _ in range(3):
        custodian.rpc("evm_mine")
    report = custodian.sync()
    assert (report.lost, report.replayed_accesses, report.late) == (1, 1, 0)
    assert custodian.sync() == SyncReport()


@pytest.mark.devnet
def test_a_smart_account_is_asked_with_the_gas_that_the_transaction_has(devnet_custodian: Custodian) -> None:
    """Asked with more, it could sign what will never be taken, and what is tried again for ever."""
    custodian, wallet, bank = devnet_custodian, Subject("wallet"), Institution()
    bank.register(custodian)
    wallet.furnish(custodian)
    draft = wallet.draft(custodian, bank)
    custodian.rpc("hardhat_setCode", wallet.address, BY_GAS)
    with pytest.raises(InvalidSignatureError):
        wallet.hand_in(custodian, draft, b"\x01" * 66)
    assert custodian.journal.pending_acts() == []
    custodian.rpc("hardhat_setCode", wallet.address, ALWAYS)
    # It changes its mind in between: the contract's refusal is a verdict, and not a reason to try again.
    with Custodian(custodian.config, step=lambda _: custodian.rpc("hardhat_setCode", wallet.address, BY_GAS)) as other:
        with pytest.raises(InvalidSignatureError):
            wallet.hand_in(other, draft, b"\x01" * 66)
        assert other.registry.find_consent(other.grants.id_of(draft)) is None
