"""Sync: what is on file and what is on chain agree again, whatever was lost or cut off (P1, P2, P8)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from actors import DAY, Subject, World, id_of
from courts import execute, registered

from ledger.commit import Finality
from ledger.consent import Hex32, Reason, State
from ledger.contract import call
from ledger.contract_events import batches_of
from ledger.custodian import Custodian
from ledger.errors import (
    AnswerGoneError,
    ChainError,
    ChainLostError,
    ChainUnavailableError,
    ConsentNotGrantedError,
    ConsentPausedError,
    ConsentRevokedError,
    ContractMissingError,
    LedgerError,
    ReleaseAbortedError,
)
from ledger.evidence import verify_receipt
from ledger.exchange import verify_claims
from ledger.journal import ABORTED, ANCHORED, RELEASED
from ledger.outbox import BY_SUBJECT
from ledger.receipts import verify_revocation
from ledger.sync import SyncReport
from ledger.vault import StoredRecord


class Killed(BaseException):
    """What a process does not survive."""


def die() -> None:
    raise Killed


def status(world: World, consent: Hex32) -> Reason:
    return world.chain.statuses([consent], world.custodian.address)[0]


class History:
    """One of everything: released, refused, revoked, paused, replaced."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.used, self.revoked, self.paused, self.old = (world.grant() for _ in range(4))
        self.answers = {
            consent: world.ask(consent, key=f"history-{consent}").sealed
            for consent in (self.used, self.revoked, self.paused, self.old)
        }
        world.subject.revoke(world.custodian, self.revoked)
        world.subject.pause(world.custodian, self.paused)
        self.new = world.grant(replaces=self.old)
        with pytest.raises(LedgerError):
            world.ask(self.used, purpose="account-review")
        world.custodian.releases.log_refusals()
        self.entries = sorted(world.logged())
        self.refused = sorted(world.logged("AccessRefused"))

    def require_all_back(self) -> None:
        """Every entry is on chain exactly once, every consent is what it was, every answer is the same bytes."""
        world = self.world
        assert sorted(world.logged() + world.logged("AccessLate")) == self.entries
        assert sorted(world.logged("AccessRefused")) == self.refused
        assert [status(world, each) for each in (self.used, self.revoked, self.paused, self.old, self.new)] == [
            Reason.NONE,
            Reason.REVOKED,
            Reason.PAUSED,
            Reason.REVOKED,
            Reason.NONE,
        ]
        for consent, sealed in self.answers.items():
            assert world.ask(consent, key=f"history-{consent}").sealed == sealed
        # The logs fold, and the next release builds on them.
        assert world.ask(self.used).sealed
        for appended in batches_of(world.chain.all_events()):
            assert appended.size > 0


def test_sync_of_what_agrees_does_nothing(world: World) -> None:
    History(world)
    before = len(world.chain.sent)
    assert world.custodian.sync() == SyncReport()
    assert len(world.chain.sent) == before


def test_a_chain_that_was_restarted_empty_gets_everything_back(world: World) -> None:
    history = History(world)
    world.rebuild_chain()
    report = world.custodian.sync()
    history.require_all_back()
    assert report.replayed_accesses == 4
    assert report.late == 0
    assert world.custodian.sync() == SyncReport()


def test_sync_on_a_chain_without_the_contract_changes_nothing(world: World) -> None:
    history = History(world)
    world.chain.restart_empty()
    with pytest.raises(ContractMissingError):
        world.custodian.sync()
    world.chain.deploy()
    world.custodian.allow_writers()
    world.custodian.sync()
    history.require_all_back()


@pytest.mark.parametrize("depth", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("keep", [False, True], ids=["gone", "moved"])
def test_a_reorganisation_loses_nothing(world: World, depth: int, keep: bool) -> None:
    history = History(world)
    world.chain.reorg(depth, keep=keep)
    report = world.custodian.sync()
    assert report.moved + report.lost > 0
    history.require_all_back()


@pytest.mark.parametrize("step", ["act durable", "act sent", "batch durable", "batch sent", "batch landed"])
@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("loss", ["restart", "reorg"])
def test_reanchoring_that_is_killed_half_way_is_finished_by_the_next_run(
    world: World, step: str, times: int, loss: str
) -> None:
    history = History(world)
    if loss == "restart":
        world.rebuild_chain()
    else:
        world.chain.reorg(10)
    for _ in range(times):
        world.steps.at(step, die)
        with pytest.raises(Killed):
            world.custodian.sync()
        world.restart()
    world.custodian.sync()
    history.require_all_back()
    assert world.custodian.sync() == SyncReport()


@pytest.mark.parametrize("method", ["block_hash", "block_hashes", "receipt", "log", "send", "latest", "events"])
def test_reanchoring_during_which_the_chain_goes_down_is_finished_by_the_next_run(world: World, method: str) -> None:
    history = History(world)
    world.rebuild_chain()

    def down() -> None:
        world.chain.down = True

    world.chain.before(method, down)
    with pytest.raises(ChainUnavailableError):
        world.custodian.sync()
    world.chain.down = False
    world.custodian.sync()
    history.require_all_back()


def test_a_batch_in_flight_when_the_chain_is_lost_is_answered_after_all(world: World) -> None:
    history = History(world)
    consent = world.grant()
    world.steps.at("batch durable", die)
    with pytest.raises(Killed):
        world.ask(consent, key="once")
    world.restart()
    world.rebuild_chain()
    with pytest.raises(ChainLostError):
        world.ask(consent, key="once")
    world.custodian.sync()
    assert world.ask(consent, key="once").sealed
    history.entries = sorted([*history.entries, *world.logged()[-1:]])
    assert len(world.logged()) == 5


def test_a_batch_in_flight_that_reverts_is_free_for_another_one_and_does_not_stop_the_sync(world: World) -> None:
    consent = world.grant()
    world.steps.at("batch durable", die)
    with pytest.raises(Killed):
        world.ask(consent, key="once")
    stop = call("setWriter", world.custodian.log.address, False)
    world.chain.transact(world.custodian.accounts.custodian, stop)
    world.restart()
    world.custodian.sync()
    world.custodian.allow_writers()
    assert world.ask(consent, key="once").sealed
    assert len(world.logged()) == 1


def test_a_batch_in_flight_does_not_wedge_a_second_run(world: World) -> None:
    """The first run marks what is lost and dies; the second finds nothing newly lost, and the old batch still there."""
    History(world)
    consent = world.grant()
    world.steps.at("batch durable", die)
    with pytest.raises(Killed):
        world.ask(consent, key="once")
    world.restart()
    world.rebuild_chain()
    world.chain.before("log", die)
    with pytest.raises(Killed):
        world.custodian.sync()
    world.restart()
    world.custodian.sync()
    assert world.ask(consent, key="once").sealed
    assert len(world.logged()) == 5


def test_an_expired_consents_entry_comes_back_late_and_is_still_there(world: World) -> None:
    history = History(world)
    world.clock.advance(31 * DAY)
    world.rebuild_chain()
    report = world.custodian.sync()
    assert report.late == len(world.logged("AccessLate")) == 4
    assert sorted(world.logged("AccessLate")) == history.entries
    # The bytes are no longer given again; where the entry stands now is told for ever.
    with pytest.raises(AnswerGoneError):
        world.ask(history.used, key=f"history-{history.used}")
    (release_id,) = [row.release_id for row in world.custodian.journal.history([history.used]) if row.state == RELEASED]
    receipt = world.custodian.releases.receipt(release_id)
    assert verify_claims(receipt, world.custodian.accounts.signing_key, "access-receipt+jwt")["late"] is True


def test_an_entry_whose_consent_was_revoked_first_on_the_new_branch_comes_back_late(world: World) -> None:
    consent = world.grant()
    grant = world.grant_of(consent)
    release = world.ask(consent, key="once")
    world.chain.reorg(1, meanwhile=lambda: world.subject.revoke_directly(world.chain, grant))
    world.custodian.sync()
    assert world.logged() == []
    assert len(world.logged("AccessLate")) == 1
    again = world.ask(consent, key="once")
    assert (again.sealed, again.late) == (release.sealed, True)


def test_a_refusal_that_a_reorganisation_took_is_logged_again(world: World) -> None:
    consent = world.grant()
    with pytest.raises(LedgerError):
        world.ask(consent, purpose="account-review")
    world.custodian.sync()
    (entry,) = world.logged("AccessRefused")
    world.chain.reorg(1)
    world.custodian.sync()
    assert world.logged("AccessRefused") == [entry]


def test_a_lost_chain_is_told_before_anything_is_released(world: World) -> None:
    consent = world.grant()
    world.ask(consent)
    world.chain.reorg(1)
    world.restart()
    with pytest.raises(ChainLostError):
        world.ask(consent)
    assert len(world.logged()) == 0
    world.custodian.sync()
    assert world.ask(consent).sealed
    assert len(world.logged()) == 2


def test_a_revocation_on_chain_without_us_is_learned_and_nothing_is_released_again(world: World) -> None:
    first, second = world.grant(), world.grant()
    world.subject.revoke_directly(world.chain, world.grant_of(first), world.grant_of(second))
    assert world.custodian.sync().learned_revocations == 2
    assert world.custodian.registry.consent(first).revoked_at == world.clock.now
    world.chain.down = True
    with pytest.raises(ConsentRevokedError):
        world.ask(second)


def test_a_pause_and_a_resume_on_chain_without_us_are_learned(world: World) -> None:
    consent = world.grant()
    grant = world.grant_of(consent)
    world.subject.pause_directly(world.chain, grant, paused=True, sequence=3)
    assert world.custodian.sync().learned_pauses == 1
    with pytest.raises(ConsentPausedError):
        world.ask(consent)
    world.subject.pause_directly(world.chain, grant, paused=False, sequence=4)
    assert world.custodian.sync().learned_pauses == 1
    assert world.ask(consent).sealed


def test_what_others_did_on_a_new_branch_is_learned_as_well(world: World) -> None:
    consent, other = world.grant(), world.grant()
    grant = world.grant_of(consent)
    world.subject.pause(world.custodian, other)
    world.custodian.sync()
    world.chain.reorg(1, meanwhile=lambda: world.subject.revoke_directly(world.chain, grant))
    for _ in range(3):
        world.chain.mine()
    assert world.custodian.sync().learned_revocations == 1
    assert world.custodian.registry.consent(consent).revoked_at is not None


def test_a_grant_that_will_never_be_taken_is_withdrawn(world: World) -> None:
    draft = world.subject.draft(world.custodian, world.institution)
    world.steps.at("grant durable", die)
    with pytest.raises(Killed):
        world.subject.hand_in(world.custodian, draft)
    world.subject.revoke_directly(world.chain, draft)
    report = world.custodian.sync()
    assert report.refused_by_contract == 1
    assert world.custodian.registry.find_consent(id_of(draft, world.chain)) is None
    assert world.custodian.journal.pending_acts() == []


def by_a_smart_account(world: World) -> Hex32:
    """A consent that a smart account granted."""
    wallet = Subject("wallet")
    wallet.furnish(world.custodian)
    world.chain.smart_accounts[wallet.address] = lambda _, signature: signature == b"open sesame"
    return wallet.hand_in(world.custodian, wallet.draft(world.custodian, world.institution), b"open sesame")


def lost_with_its_owner(world: World) -> None:
    """The chain is lost, and what the smart account signed counts no more, because its owner changed."""
    for address in world.chain.smart_accounts:
        world.chain.smart_accounts[address] = lambda *_: False
    world.rebuild_chain()


def test_a_lost_grant_that_will_never_be_taken_again_is_refused_and_not_said_to_be_lost_for_ever(world: World) -> None:
    consent = by_a_smart_account(world)
    world.ask(consent)
    lost_with_its_owner(world)
    with pytest.raises(ChainLostError):
        world.ask(consent)
    report = world.custodian.sync()
    assert (report.refused_by_contract, report.late) == (1, 1)
    assert world.custodian.sync() == SyncReport()
    with pytest.raises(ConsentNotGrantedError):
        world.ask(consent)
    # What was released under it, and until when, stays on file.
    stored = world.custodian.registry.consent(consent)
    assert not stored.standing
    assert status(world, consent) is Reason.NOT_GRANTED


def revoked_by_a_smart_account(world: World, consent: Hex32, *, executed: bool) -> None:
    """It signs the revocation when it is asked; whether it does when it counts is another matter."""
    address = world.custodian.registry.consent(consent).grant.subject
    answers = iter([True, executed, *[False] * 5])
    world.chain.smart_accounts[address] = lambda *_: next(answers)
    world.custodian.grants.revoke([consent], b"open sesame")


def ended_on_chain_by_the_custodian(world: World, consent: Hex32) -> None:
    assert world.chain.consent(consent).state is State.REVOKED
    held = world.custodian
    newest = held.journal.acts_about(consent)[0]
    assert (newest.kind, newest.state) == ("custodian-revoke", ANCHORED)
    token = held.grants.revocation_receipt(consent)
    found = verify_revocation(token, held.accounts.signing_key, domain=world.chain.domain)
    assert (found.by, found.by_subject) == (BY_SUBJECT, False)
    assert (found.transaction_hash, found.block_number) == (newest.transaction_hash, newest.block_number)


def test_a_revocation_that_the_contract_refuses_after_all_reaches_the_chain_as_the_custodians(world: World) -> None:
    consent = by_a_smart_account(world)
    revoked_by_a_smart_account(world, consent, executed=False)
    assert world.chain.consent(consent).state is State.ACTIVE
    report = world.custodian.sync()
    assert (report.refused_by_contract, report.relayed) == (1, 1)
    ended_on_chain_by_the_custodian(world, consent)
    assert world.custodian.sync() == SyncReport()


def test_a_lost_revocation_that_is_refused_by_now_comes_back_as_the_custodians(world: World) -> None:
    consent = by_a_smart_account(world)
    revoked_by_a_smart_account(world, consent, executed=True)
    assert world.chain.consent(consent).state is State.REVOKED
    # Of what was signed before, the grant still counts.
    address = world.custodian.registry.consent(consent).grant.subject
    granted = world.custodian.grants.id_of(world.custodian.registry.consent(consent).grant)
    world.chain.smart_accounts[address] = lambda digest, _: digest == granted
    world.rebuild_chain()
    report = world.custodian.sync()
    assert (report.refused_by_contract, report.replayed_acts) == (1, 2)
    ended_on_chain_by_the_custodian(world, consent)
    assert world.custodian.sync() == SyncReport()


def test_a_release_that_is_back_under_a_grant_that_is_not_ends(world: World) -> None:
    consent = by_a_smart_account(world)
    world.steps.at("6 before answer durable", die)
    with pytest.raises(Killed):
        world.ask(consent, key="once")
    world.restart()
    world.custodian.log.resolve()
    lost_with_its_owner(world)
    assert world.custodian.sync().late == 1
    with pytest.raises(ReleaseAbortedError):
        world.ask(consent, key="once")
    assert world.states() == [ABORTED]


def test_a_failing_chain_ends_a_sync_with_a_clear_error(data: Path, first_state: World) -> None:
    world = World(data, finality=Finality(timeout=0.05), like=first_state)
    draft = world.subject.draft(world.custodian, world.institution)
    world.chain.automine = False
    for act in (lambda: world.subject.hand_in(world.custodian, draft), world.custodian.sync):
        with pytest.raises(ChainError):
            act()
    world.chain.automine = True
    world.chain.mine()
    world.custodian.sync()
    assert world.ask(id_of(draft, world.chain)).sealed


def test_releases_go_on_while_sync_runs(world: World) -> None:
    consent = world.grant()
    with pytest.raises(LedgerError):
        world.ask(consent, purpose="account-review")
    answers: list[bytes] = []

    def ask() -> None:
        with world.open() as other:
            answers.append(other.releases.release(world.request(consent)).sealed)

    world.steps.at("batch durable", ask)
    world.custodian.sync()
    assert len(answers) == 1
    assert world.ask(consent).sealed


def test_two_syncs_after_each_other_by_two_processes_agree(world: World) -> None:
    history = History(world)
    with world.open() as other:
        world.rebuild_chain()
        other.sync()
        assert world.custodian.sync() == SyncReport()
        history.require_all_back()


@pytest.mark.parametrize("stop", ["4 intent durable", "batch durable", "batch sent", "batch landed", "5 logged"])
def test_a_release_that_was_cut_off_before_the_chain_was_lost_ends_within_the_bound(world: World, stop: str) -> None:
    History(world)
    consent = world.grant()
    world.steps.at(stop, die)
    with pytest.raises(Killed):
        world.ask(consent, key="once")
    world.restart()
    world.rebuild_chain()
    world.clock.advance(901)
    world.custodian.sync()
    assert set(world.states()) == {RELEASED, ABORTED, "refused"}
    entries = world.logged() + world.logged("AccessLate")
    assert len(entries) == len(set(entries))


def while_put_back(world: World, other: Custodian, act: Callable[[], None]) -> None:
    """The chain lost the newest access; while `other` puts it back, it is in a batch that is not on the chain yet."""
    world.chain.reorg(1)
    world.steps.at("batch durable", act)
    assert other.sync(stale_after=DAY).replayed_accesses == 1


def test_a_release_that_is_being_put_back_is_not_answered_before_it_is_on_the_log(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger.release.OTHER_PROCESS_SECONDS", 0)
    consent = world.grant()
    world.steps.at("6 before answer durable", die)
    with pytest.raises(Killed):
        world.ask(consent, key="once")
    world.restart()
    world.custodian.log.resolve()
    opened: list[StoredRecord] = []

    def ask() -> None:
        with monkeypatch.context() as patched:
            patched.setattr(world.custodian.vault, "open", lambda record, _use: opened.append(record))
            assert raising(lambda: world.ask(consent, key="once")) in ("chain_lost", "in_progress")

    with world.open() as other:
        while_put_back(world, other, ask)
    assert opened == []
    assert world.ask(consent, key="once").sealed
    assert len(world.logged()) == 1


def test_while_an_access_is_being_put_back_no_receipt_says_where_it_stands(world: World) -> None:
    consent = world.grant()
    release = world.ask(consent, key="once")
    institution = world.custodian.registry.institution("bank-1")

    def ask() -> None:
        for act in (
            lambda: world.custodian.releases.receipt(release.release_id),
            lambda: world.custodian.releases.found(release.release_id, institution),
            lambda: world.custodian.proofs.bundle(release.release_id, institution),
        ):
            assert raising(act) == "chain_lost"

    with world.open() as other:
        while_put_back(world, other, ask)
    again = world.custodian.releases.receipt(release.release_id)
    assert verify_receipt(again, world.chain, world.custodian.accounts.signing_key)


def test_while_an_order_is_being_put_back_it_is_listed_without_a_place(world: World) -> None:
    registered(world)
    done = execute(world)

    def ask() -> None:
        (listed,) = world.custodian.orders.listed()
        assert listed.proof is None
        assert raising(lambda: world.custodian.orders.receipt(done.order_hash)) == "chain_lost"

    with world.open() as other:
        world.chain.reorg(1)
        world.steps.at("batch durable", ask)
        assert other.sync().replayed_orders == 1
    (listed,) = world.custodian.orders.listed()
    assert listed.proof is not None


def raising(act: Callable[[], object]) -> str:
    try:
        act()
    except LedgerError as exc:
        return exc.code
    return ""


def test_an_older_backup_of_the_database_is_told_from_the_chain(world: World) -> None:
    """Rolled back, the journal has less than the chain: nothing is built on it by itself (threat T19)."""
    consent = world.grant()
    world.custodian.store.scrub()
    backup = world.config.database.read_bytes()
    world.ask(consent)
    world.custodian.close()
    for leftover in world.config.data.glob("ledger.db*"):
        leftover.unlink()
    world.config.database.write_bytes(backup)
    world.config.database.chmod(0o600)
    world.custodian = world.open()
    assert raising(lambda: world.ask(consent)) == "log_ahead"
    assert len(world.logged()) == 1


# ------------------------------------------------------------------------------------------ what is not looked at again


def asked_for(world: World, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The blocks whose hash a sync asks for."""
    asked: list[int] = []
    really = world.chain.block_hash

    def watched(number: int) -> Hex32 | None:
        asked.append(number)
        return really(number)

    monkeypatch.setattr(world.chain, "block_hash", watched)
    world.custodian.sync()
    monkeypatch.undo()
    return asked


def test_what_was_found_on_chain_once_is_not_looked_for_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    History(world)
    assert len(asked_for(world, monkeypatch)) > 5
    # The block up to which everything was found, and the one up to which others' acts were taken in.
    assert len(asked_for(world, monkeypatch)) == 2
    world.ask(world.grant())
    assert len(asked_for(world, monkeypatch)) == 4


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_a_tail_lost_after_it_was_checked_is_noticed_and_put_back(world: World, depth: int) -> None:
    history = History(world)
    world.custodian.sync()
    assert world.custodian.journal.checked_block() is not None
    world.chain.reorg(depth)
    report = world.custodian.sync()
    assert report.lost > 0
    history.require_all_back()
    assert world.custodian.sync().lost == 0


def test_a_chain_lost_after_it_was_checked_is_put_back(world: World) -> None:
    history = History(world)
    world.custodian.sync()
    world.rebuild_chain()
    assert world.custodian.sync().lost > 0
    history.require_all_back()


def test_after_a_loss_everything_is_looked_at_once_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    History(world)
    world.custodian.sync()
    world.chain.reorg(1)
    world.custodian.sync()
    assert world.custodian.journal.checked_block() is None
    assert len(asked_for(world, monkeypatch)) > 5
