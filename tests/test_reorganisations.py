"""A batch that the chain lost may be back at any moment: every access is on the log once all the same."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from actors import World

from ledger.commit import Finality
from ledger.consent import Address, Hex32
from ledger.custodian import Custodian
from ledger.errors import ChainError, ChainLostError, LedgerError
from ledger.journal import RECORDED, RELEASED

QUESTIONS = ("statuses", "sign", "send", "receipt", "log", "mined_nonce", "block_hashes")


@pytest.fixture
def hasty(data: Path, first_state: World) -> Iterator[World]:
    """Who does not wait long for what never comes."""
    made = World(data, finality=Finality(timeout=0.1), like=first_state)
    yield made
    made.custodian.close()


def lost(world: World, custodian: Custodian | None = None) -> Callable[[], None]:
    """One access, which a reorganisation takes away. Returns what puts its batch into a block again."""
    consent = world.grant()
    (custodian or world.custodian).releases.release(world.request(consent, key="lost"))
    (raw,) = world.chain.reorg(1)

    def come_back() -> None:
        world.chain.return_to_pool(raw)
        world.chain.mine()

    return come_back


def synced(world: World, runs: int = 4) -> str | None:
    """What the last of some runs failed with."""
    last = None
    for _ in range(runs):
        try:
            world.custodian.sync()
        except LedgerError as exc:
            last = exc.code
        else:
            last = None
    return last


def times_logged(world: World) -> Counter[Hex32]:
    return Counter(world.logged("AccessRecorded") + world.logged("AccessLate"))


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_batch_that_is_back_while_it_is_put_back_is_on_the_log_once(hasty: World, question: str) -> None:
    come_back = lost(hasty)
    hasty.chain.before(question, come_back)
    assert synced(hasty) is None
    assert list(times_logged(hasty).values()) == [1]
    assert hasty.ask(hasty.grant(), key="next").sealed


def test_a_batch_that_waits_in_a_pool_is_on_the_log_once(hasty: World) -> None:
    """As go-ethereum does with the transactions of a block that it leaves."""
    consent = hasty.grant()
    hasty.ask(consent)
    hasty.chain.return_to_pool(*hasty.chain.reorg(1))
    # No other batch takes its entries while it waits.
    assert synced(hasty) == "confirmation_timeout"
    hasty.chain.mine()
    assert synced(hasty) is None
    assert list(times_logged(hasty).values()) == [1]
    assert hasty.ask(consent, key="next").sealed


def test_a_log_whose_lost_batch_is_back_is_not_ahead(hasty: World) -> None:
    """Nobody else has the key, and no backup was restored: the next sync takes it in."""
    consent = hasty.grant()
    hasty.ask(consent)
    hasty.chain.return_to_pool(*hasty.chain.reorg(1))
    assert synced(hasty, 1) == "confirmation_timeout"
    hasty.chain.mine()
    assert hasty.custodian.writers.ahead() == []
    hasty.custodian.require_writer()
    with pytest.raises(ChainLostError):
        hasty.ask(consent, key="next")
    assert synced(hasty, 1) is None
    assert hasty.ask(consent, key="next").sealed


def test_an_access_whose_consent_ended_on_the_new_branch_comes_back_late_and_not_as_a_refusal_first(
    hasty: World,
) -> None:
    consent = hasty.grant()
    hasty.ask(consent)
    grant = hasty.grant_of(consent)
    hasty.chain.reorg(1, meanwhile=lambda: hasty.subject.revoke_directly(hasty.chain, grant))
    assert synced(hasty) is None
    assert (len(hasty.logged("AccessLate")), hasty.logged(), hasty.logged("AccessRefused")) == (1, [], [])


def test_an_access_that_was_refused_where_its_batch_moved_to_is_on_the_log_once_when_both_batches_are_lost(
    world: World,
) -> None:
    before = len(world.chain.blocks)
    consent = world.grant()
    world.ask(consent)
    grant = world.grant_of(consent)
    world.chain.reorg(1, keep=True, meanwhile=lambda: world.subject.revoke_directly(world.chain, grant))
    world.custodian.sync()
    assert (len(world.logged("AccessRefused")), len(world.logged("AccessLate"))) == (1, 1)
    # Nobody brings back what the person did on a branch that is gone: the consent is in force.
    world.chain.reorg(len(world.chain.blocks) - before)
    world.custodian.sync()
    assert list(times_logged(world).values()) == [1]


def test_an_access_that_came_back_late_once_does_not_come_back_before_its_grant(world: World) -> None:
    world.ask(world.grant())
    mine = next(one for one in world.custodian.accounts.writers if Address(one.address) == world.custodian.log.address)
    # Its nonce was used, so it comes back in another batch, of those that are never refused.
    world.chain.reorg(1, meanwhile=lambda: world.chain.transact(mine, b""))
    assert world.custodian.sync().replayed_accesses == 1
    world.rebuild_chain()
    world.chain.penniless.add(Address(world.custodian.accounts.grants.address))
    with pytest.raises(ChainError):
        world.custodian.sync()
    world.chain.penniless.clear()
    world.custodian.sync()
    assert (len(world.logged()), world.logged("AccessLate")) == (1, [])


@pytest.mark.parametrize("is_alive", [True, False])
def test_a_batch_of_another_process_that_is_back_after_it_was_put_back_is_on_the_log_once(
    hasty: World, is_alive: bool
) -> None:
    other = hasty.open()
    come_back = lost(hasty, other)
    if not is_alive:
        other.close()
    assert synced(hasty, 2) is None
    come_back()
    assert synced(hasty, 2) is None
    if is_alive:
        other.close()
    assert list(times_logged(hasty).values()) == [1]


def test_what_a_process_that_ended_logged_waits_for_no_nonce_that_went_with_the_chain(hasty: World) -> None:
    consent = hasty.grant()
    with hasty.open() as other:
        theirs = next(one for one in other.accounts.writers if Address(one.address) == other.log.address)
        # Such as uses up a nonce: it reverts.
        hasty.chain.transact(theirs, b"")
        other.releases.release(hasty.request(consent))
    hasty.chain.reorg(2)
    assert synced(hasty, 1) is None
    assert list(times_logged(hasty).values()) == [1]


@pytest.mark.parametrize("seed", range(16))
def test_whatever_is_lost_and_whatever_of_it_comes_back_every_access_is_on_the_log_once(
    data: Path, first_state: World, seed: int
) -> None:
    chance = random.Random(seed)
    world = World(data, finality=Finality(timeout=0.05), like=first_state)
    consents = [world.grant() for _ in range(10)]
    with world.open() as other:
        asked = 0
        for _ in range(8):
            for custodian in chance.choices([world.custodian, other], k=chance.randint(1, 3)):
                asked += 1
                with suppress(LedgerError):
                    custodian.releases.release(world.request(chance.choice(consents), key=f"key-{asked}"))
            _lose_and_bring_back(world, chance)
            for _ in range(chance.randint(0, 2)):
                with suppress(LedgerError):
                    world.custodian.sync()
                if chance.random() < 0.5:
                    world.chain.mine()
        world.chain._hooks.clear()
    # With the other process gone: while it lives, a gap among its nonces is its own to fill, with its next batch.
    errors = [(world.chain.mine(), synced(world, 1))[1] for _ in range(8)]
    assert errors[-1] is None
    logged = times_logged(world)
    assert [entry for entry, times in logged.items() if times > 1] == []
    answered = [row.entry_hash for row in world.custodian.journal.history() if row.state in (RECORDED, RELEASED)]
    assert answered
    assert set(answered) <= set(logged)
    world.custodian.close()


def _lose_and_bring_back(world: World, chance: random.Random) -> None:
    """A reorganisation; of what it took some comes back, at once or at some question that the chain is asked later."""
    depth = chance.randint(1, min(4, len(world.chain.blocks) - 8))
    gone = [one for one in world.chain.reorg(depth) if chance.random() < 0.8]
    if chance.random() < 0.2:
        chance.shuffle(gone)

    def come_back() -> None:
        world.chain.return_to_pool(*gone)
        if chance.random() < 0.7:
            world.chain.mine()

    if chance.random() < 0.3:
        come_back()
    else:
        world.chain.before(chance.choice(QUESTIONS), come_back)
