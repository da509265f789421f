"""`kill -9` at every step, on a real node; the judge knows the chain and the answers only (P1 to P4, P8)."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import pytest
from actors import VALUES, Institution, Subject, World, id_of
from checker import Delivery, violations
from kill_child import Job
from simulator import SimulatedChain

from ledger.access import BatchKind, LoggedAccess
from ledger.chain import JsonRpcChain
from ledger.commit import Landed
from ledger.config import Config
from ledger.consent import Address, Hex32, Reason
from ledger.contract import append_call
from ledger.contract_events import Event
from ledger.custodian import Custodian
from ledger.devnet import Devnet, free_port, fund
from ledger.errors import (
    ChainLostError,
    ChainUnavailableError,
    ConsentError,
    ContractMissingError,
    ErasedError,
    LedgerError,
    ReleaseAbortedError,
    ReplayedRequestError,
    WrongChainError,
)
from ledger.exchange import verify_claims
from ledger.journal import ABORTED, REFUSED, RELEASED
from ledger.release import Release
from ledger.signatures import HttpRequest

CHILD: Final = Path(__file__).parent / "kill_child.py"
FINAL: Final = {RELEASED, REFUSED, ABORTED}
RELEASE_STEPS: Final = (
    "4 before intent",
    "4 intent durable",
    "batch durable",
    "batch sent",
    "batch landed",
    "5 logged",
    "6 before decrypting",
    "6 before answer durable",
    "6 answer durable",
)
ACT_STEPS: Final = ("act durable", "act sent")


def delivered(custodian: Custodian, institution: Institution, release: Release) -> Delivery:
    """What the institution makes of an answer, with its own key and the custodian's public one."""
    return Delivery(
        sealed=release.sealed,
        answer=institution.open(custodian, release.sealed),
        receipt=verify_claims(release.receipt, custodian.accounts.signing_key, "access-receipt+jwt"),
    )


# ---------------------------------------------------------------------------------------------- on a real node, kill -9


@dataclass(slots=True)
class Site:
    """An installation on the real node, whose processes are killed and whose files go on."""

    config: Config
    scratch: Path
    institution: Institution
    deliveries: list[Delivery] = field(default_factory=list)

    def open(self) -> Custodian:
        return Custodian(self.config)

    def kill(self, deed: str, step: str, *, times: int = 1, **arguments: Any) -> None:
        """Do it in a process of its own, which must die at that step."""
        job = Job(
            data=str(self.config.data),
            rpc_url=self.config.rpc_url,
            deed=deed,
            step=step,
            times=times,
            arguments=arguments,
        )
        done = subprocess.run(
            [sys.executable, str(CHILD), str(job.save(self.scratch / "job.json"))],
            capture_output=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()

    def person(self, custodian: Custodian) -> Subject:
        subject = Subject(f"person-{len(list(self.scratch.iterdir()))}-{random.getrandbits(64)}")
        subject.furnish(custodian)
        return subject

    def ask(self, custodian: Custodian, message: HttpRequest) -> Release:
        """Signed anew, as a client's retry is: whether the first try used its nonce, who knows."""
        release = custodian.releases.release(self.institution.sign(message, at=custodian.clock()))
        self.deliveries.append(delivered(custodian, self.institution, release))
        return release

    def judge(self, custodian: Custodian) -> None:
        """Nothing is wrong on the whole chain and with all answers so far, and nothing is unfinished."""
        events = custodian.chain.events(0, custodian.chain.latest().number)
        assert violations(of_custodian(events, custodian.address), time_on(custodian), self.deliveries) == []
        assert {row.state for row in custodian.journal.history()} <= FINAL
        assert custodian.journal.pending_acts() == []


def as_json(message: HttpRequest) -> dict[str, Any]:
    return asdict(message) | {"body": message.body.decode()}


def of_custodian(events: Sequence[Event], custodian: Address) -> list[Event]:
    """What consents became, and the accesses on this custodian's logs: other tests use the same node."""
    found: list[Event] = []
    batch: list[Event] = []
    for event in events:
        if event.name.startswith("Access"):
            batch.append(event)
        elif event.name == "LogAppended":
            found += batch if event.args[0] == custodian else []
            batch = []
        else:
            found.append(event)
    return found


def time_on(custodian: Custodian) -> Callable[[int], int]:
    times: dict[int, int] = {}

    def time_of(number: int) -> int:
        if number not in times:
            times[number] = int(custodian.rpc("eth_getBlockByNumber", hex(number), False)["timestamp"], 16)
        return times[number]

    return time_of


@pytest.fixture(scope="module")
def site(devnet: Devnet, tmp_path_factory: pytest.TempPathFactory) -> Site:
    scratch = tmp_path_factory.mktemp("site")
    config = Config(data=scratch / "data", rpc_url=devnet.url)
    Custodian.init(config)
    made = Site(config=config, scratch=scratch, institution=Institution())
    with made.open() as custodian:
        put_contract(custodian)
        made.institution.register(custodian)
    return made


@pytest.mark.devnet
@pytest.mark.slow
@pytest.mark.parametrize("step", RELEASE_STEPS)
def test_a_release_killed_at_any_step_and_asked_again_is_one_entry_and_the_same_bytes(site: Site, step: str) -> None:
    with site.open() as custodian:
        subject = site.person(custodian)
        consent = subject.grant(custodian, site.institution)
        signed = site.institution.request(custodian, consent)
    site.kill("release", step, message=as_json(signed))
    with site.open() as custodian:
        first = site.ask(custodian, signed)
        assert site.ask(custodian, signed).sealed == first.sealed
        assert custodian.chain.consent(consent).accesses == 1
        site.judge(custodian)


@pytest.mark.devnet
@pytest.mark.slow
@pytest.mark.parametrize("step", RELEASE_STEPS)
def test_a_release_killed_at_any_step_and_never_asked_again_ends(site: Site, step: str) -> None:
    with site.open() as custodian:
        subject = site.person(custodian)
        consent = subject.grant(custodian, site.institution)
        signed = site.institution.request(custodian, consent)
    site.kill("release", step, message=as_json(signed))
    with Custodian(site.config, clock=later) as custodian:
        custodian.sync()
        site.judge(custodian)
        recorded = custodian.chain.consent(consent).accesses
        states = [row.state for row in custodian.journal.history([consent])]
        assert states == ([] if step == "4 before intent" else [RELEASED if step == "6 answer durable" else ABORTED])
        # Once the batch is durable, which it is with its intents, sync sends it: it might have been sent before.
        assert recorded == (0 if step == "4 before intent" else 1)


@pytest.mark.devnet
@pytest.mark.slow
@pytest.mark.parametrize("step", ["4 intent durable", "batch sent", "5 logged", "6 before answer durable"])
def test_a_release_killed_and_then_revoked_releases_nothing(site: Site, step: str) -> None:
    with site.open() as custodian:
        subject = site.person(custodian)
        consent = subject.grant(custodian, site.institution)
        signed = site.institution.request(custodian, consent)
    site.kill("release", step, message=as_json(signed))
    with site.open() as custodian:
        subject.revoke(custodian, consent)
        with pytest.raises(LedgerError) as caught:
            site.ask(custodian, signed)
        assert caught.value.code == "revoked"
        site.judge(custodian)


@pytest.mark.devnet
@pytest.mark.slow
@pytest.mark.parametrize("step", ["grant durable", *ACT_STEPS])
def test_a_grant_killed_at_any_step_stands_once(site: Site, step: str) -> None:
    with site.open() as custodian:
        subject = site.person(custodian)
        draft = subject.draft(custodian, site.institution)
        signature = subject.sign(custodian, draft).hex()
        consent = id_of(draft, custodian.chain)
    site.kill("grant", step, grant=draft.as_json(), signature=signature, subject_ref=subject.ref)
    with site.open() as custodian:
        custodian.sync()
        assert custodian.registry.consent(consent).standing
        site.ask(custodian, site.institution.request(custodian, consent))
        site.judge(custodian)


@pytest.mark.devnet
@pytest.mark.slow
@pytest.mark.parametrize("step", ["revocation durable", *ACT_STEPS])
def test_a_revocation_killed_at_any_step_is_in_force_and_lands(site: Site, step: str) -> None:
    with site.open() as custodian:
        subject = site.person(custodian)
        consent = subject.grant(custodian, site.institution)
        signature = subject.revocation(custodian, consent).hex()
    site.kill("revoke", step, consent=consent, signature=signature)
    with site.open() as custodian:
        with pytest.raises(LedgerError) as caught:
            site.ask(custodian, site.institution.request(custodian, consent))
        assert caught.value.code == "revoked"
        custodian.sync()
        assert custodian.chain.statuses([consent], custodian.address) == [Reason.REVOKED]
        site.judge(custodian)


@pytest.mark.devnet
@pytest.mark.slow
@pytest.mark.parametrize("step", ["revocation durable", "act sent", "erase revoked"])
def test_an_erasure_killed_at_any_step_is_finished_by_the_next(site: Site, step: str) -> None:
    with site.open() as custodian:
        subject = site.person(custodian)
        consent = subject.grant(custodian, site.institution)
        site.ask(custodian, site.institution.request(custodian, consent))
    site.kill("erase", step, subject_ref=subject.ref)
    with site.open() as custodian:
        assert custodian.eraser.erase(subject.ref).envelopes == len(VALUES)
        with pytest.raises(ErasedError):
            custodian.vault.subject_of(subject.ref)
        custodian.sync()
        assert custodian.chain.statuses([consent], custodian.address) == [Reason.REVOKED]
        site.judge(custodian)


@pytest.mark.devnet
@pytest.mark.slow
@pytest.mark.parametrize(("step", "times"), [("rotate: new KEK active", 1), ("rotate: chunk", 1), ("rotate: chunk", 3)])
def test_a_rotation_killed_at_any_step_loses_nothing_and_is_finished(site: Site, step: str, times: int) -> None:
    with site.open() as custodian:
        subject = site.person(custodian)
        consent = subject.grant(custodian, site.institution)
        signed = site.institution.request(custodian, consent)
        first = site.ask(custodian, signed)
        old = custodian.keys.active_kek_id
    site.kill("rotate", step, times=times)
    with site.open() as custodian:
        assert site.ask(custodian, signed).sealed == first.sealed
        assert old in custodian.rotate_keys().destroyed
        assert site.ask(custodian, signed).sealed == first.sealed
        assert site.ask(custodian, site.institution.request(custodian, consent)).sealed != first.sealed
        site.judge(custodian)


@pytest.mark.devnet
@pytest.mark.slow
def test_a_node_that_is_killed_and_comes_back_empty_gets_everything_back(tmp_path: Path) -> None:
    node = Devnet(port=free_port(), log=tmp_path / "node.log").start()
    try:
        config = Config(data=tmp_path / "data", rpc_url=node.url)
        Custodian.init(config)
        site = Site(config=config, scratch=tmp_path, institution=Institution())
        with site.open() as custodian:
            put_contract(custodian)
            site.institution.register(custodian)
            subject = site.person(custodian)
            kept, revoked = (subject.grant(custodian, site.institution) for _ in range(2))
            signed = site.institution.request(custodian, kept)
            first = site.ask(custodian, signed)
            subject.revoke(custodian, revoked)

            node.stop(kill=True)
            with pytest.raises(ChainUnavailableError):
                site.ask(custodian, site.institution.request(custodian, kept))
            node.start()
            with pytest.raises(ContractMissingError):
                site.ask(custodian, site.institution.request(custodian, kept))
            put_contract(custodian)
            with pytest.raises(ChainLostError):
                site.ask(custodian, site.institution.request(custodian, kept))

            assert custodian.sync().replayed_accesses == 1
            assert custodian.chain.statuses([kept, revoked], custodian.address) == [Reason.NONE, Reason.REVOKED]
            assert site.ask(custodian, signed).sealed == first.sealed
            site.ask(custodian, site.institution.request(custodian, kept))
            site.judge(custodian)
    finally:
        node.stop(kill=True)


@pytest.mark.devnet
def test_twenty_retries_of_one_request_on_a_real_node_are_one_access(site: Site) -> None:
    with site.open() as custodian, ThreadPoolExecutor(20) as pool:
        consent = site.person(custodian).grant(custodian, site.institution, max_accesses=1, accesses_per_day=1)
        signed = site.institution.request(custodian, consent)
        answers = list(pool.map(lambda _: site.ask(custodian, signed).sealed, range(20)))
        assert len(set(answers)) == 1
        assert custodian.chain.consent(consent).accesses == 1


@pytest.mark.devnet
def test_twenty_copies_of_one_request_on_a_real_node_are_one_access_and_one_answer(site: Site) -> None:
    with site.open() as custodian, ThreadPoolExecutor(20) as pool:
        consent = site.person(custodian).grant(custodian, site.institution)
        signed = site.institution.request(custodian, consent)

        def outcome(_: int) -> str:
            try:
                return custodian.releases.release(signed).release_id
            except ReplayedRequestError as exc:
                return exc.code

        assert sorted(pool.map(outcome, range(20)))[1:] == ["replayed"] * 19
        assert custodian.chain.consent(consent).accesses == 1


@pytest.mark.devnet
def test_the_endpoint_of_another_chain_is_refused(site: Site) -> None:
    with site.open() as custodian, pytest.raises(WrongChainError):
        JsonRpcChain(custodian.rpc, replace(custodian.chain.domain, chain_id=1)).check()


def put_contract(custodian: Custodian) -> None:
    fund(custodian.rpc, [account.address for account in custodian.accounts.every()])
    custodian.deploy()


def later() -> int:
    """A clock a quarter of an hour and more ahead: whoever did not come back by now will not."""
    return int(time.time()) + 1000


# ---------------------------------------------------------------------------------------- on the simulator, by the dice


class Killed(BaseException):
    """What a process does not survive."""


class Dice:
    """A world in which anything goes wrong at any step, by a seed."""

    def __init__(self, world: World, seed: int, *, reorgs: bool = False) -> None:
        self.world, self.random, self.reorgs = world, random.Random(seed), reorgs
        self.deliveries: list[Delivery] = []
        self.requests: list[HttpRequest] = []
        self.answered: set[str] = set()
        self.consents = [world.grant() for _ in range(2)]

    def play(self, rounds: int) -> None:
        for _ in range(rounds):
            self._fault()
            try:
                self._deed()
            except LedgerError:
                pass
            except Killed:
                self.world.restart()
            self.world.clock.advance(self.random.choice((0, 1, 30)))
        self._heal()

    def _fault(self) -> None:
        world, chain = self.world, self.world.chain
        step = self.random.choice(RELEASE_STEPS + ACT_STEPS)
        match self.random.randrange(8):
            case 0:
                world.steps.at(step, die)
            case 1:
                chain.lose_replies = 1
            case 2:
                world.steps.at(step, lambda: setattr(chain, "down", True))
            case 3:
                chain.down = False
            case 4:
                world.steps.at(step, self._revoke_on_chain)
            case 5:
                # Not inside an act: the lane of revocations is not entered twice by one thread.
                step = self.random.choice(RELEASE_STEPS)
                world.steps.at(step, lambda: world.subject.revoke(world.custodian, self.random.choice(self.consents)))
            case 6:
                chain.drop = 1
            case 7 if self.reorgs:
                world.steps.at(step, lambda: chain.reorg(self.random.randrange(1, 6), keep=self.random.random() < 0.5))

    def _revoke_on_chain(self) -> None:
        consent = self.random.choice(self.consents)
        self.world.subject.revoke_directly(self.world.chain, self.world.grant_of(consent))

    def _deed(self) -> None:
        world = self.world
        match self.random.randrange(7):
            case 0 | 1 | 2:
                self.requests.append(world.request(self.random.choice(self.consents)))
                self._send(self.requests[-1])
            case 3:
                self._ask(self.random.choice(self.requests or [world.request(self.consents[0])]))
            case 4:
                self.consents.append(world.grant())
            case 5:
                world.custodian.sync()
            case 6:
                # The very same bytes: let in at most once.
                self._send(self.random.choice(self.requests or [world.request(self.consents[0])]))

    def _ask(self, message: HttpRequest) -> None:
        self._send(self.world.institution.sign(message, at=self.world.clock()))

    def _send(self, signed: HttpRequest) -> None:
        world, nonce = self.world, signed.headers["Signature-Input"]
        release = world.custodian.releases.release(signed)
        assert nonce not in self.answered, "a replay was answered"
        self.answered.add(nonce)
        self.deliveries.append(delivered(world.custodian, world.institution, release))

    def _heal(self) -> None:
        world = self.world
        world.chain.down, world.chain.drop, world.chain.lose_replies = False, 0, 0
        world.steps.forget()
        world.restart()
        world.clock.advance(1000)
        world.custodian.sync()
        for message in self.requests:
            # Refused or aborted is an end; anything else would be a release that hangs.
            with suppress(ConsentError):
                self._ask(message)


def die() -> None:
    raise Killed


@pytest.mark.parametrize("seed", [*range(16), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(16, 96))])
def test_whatever_goes_wrong_every_answer_has_its_entry_and_everything_ends(
    data: Path, first_state: World, seed: int
) -> None:
    world = World(data, finality=World.quick, like=first_state)
    dice = Dice(world, seed)
    dice.play(12)
    assert judged(world, dice.deliveries) == []
    assert set(world.states()) <= FINAL
    assert world.custodian.journal.pending_acts() == []
    world.custodian.close()


@pytest.mark.parametrize("seed", [*range(16), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(16, 96))])
def test_whatever_goes_wrong_on_a_chain_that_loses_blocks_no_entry_is_missing_in_the_end(
    data: Path, first_state: World, seed: int
) -> None:
    world = World(data, finality=World.quick, like=first_state)
    dice = Dice(world, seed, reorgs=True)
    dice.play(12)
    assert judged(world, dice.deliveries, blocks_lost=True) == []
    assert set(world.states()) <= FINAL
    assert world.custodian.journal.pending_acts() == []
    world.custodian.close()


def judged(world: World, deliveries: list[Delivery], *, blocks_lost: bool = False) -> list[str]:
    return violations(world.chain.all_events(), time_in(world.chain), deliveries, blocks_lost=blocks_lost)


def time_in(chain: SimulatedChain) -> Callable[[int], int]:
    return lambda number: chain.blocks[number].timestamp


# ------------------------------------------------------------------------------ the checker can fail: harness mutations


def release_and_judge(world: World, consent: Hex32) -> list[str]:
    release = world.ask(consent)
    return judged(world, [delivered(world.custodian, world.institution, release)])


def test_the_checker_is_content_with_a_sound_release(world: World) -> None:
    assert release_and_judge(world, world.grant()) == []


def test_the_checker_sees_a_release_without_an_entry(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutation: step (5) is skipped, and the answer is made as if it had been done."""
    releases, consent = world.custodian.releases, world.grant()
    world.ask(consent)
    (batch,) = [anchor for anchor in world.custodian.journal.anchors() if anchor.batch_id]
    assert batch.batch_id is not None
    (row,) = world.custodian.journal.history()

    def skip(intents: Any) -> list[Landed]:
        (release_id,) = [intent.entry.release_id for intent in intents]
        world.custodian.journal.move(release_id, "intent", "recorded", batch_id=row.batch_id, log_index=0)
        return [Landed(release_id=release_id, reason=Reason.NONE, late=False, proof=releases._proof_of(row))]

    monkeypatch.setattr(releases, "_append_all", skip)
    assert any("without exactly one entry" in each for each in release_and_judge(world, consent))


def test_the_checker_sees_a_check_that_was_removed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutation: nobody asks for a revocation between the log and the answer."""
    consent = world.grant()
    grant = world.grant_of(consent)
    monkeypatch.setattr(world.custodian.releases, "_stopped", lambda items: [None] * len(items))

    def revoke_and_wait() -> None:
        world.subject.revoke_directly(world.chain, grant)
        world.clock.advance(1)

    world.steps.at("5 logged", revoke_and_wait)
    assert any("after the revocation" in each for each in release_and_judge(world, consent))


def test_the_checker_sees_a_contract_that_does_not_check(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutation: the contract records whatever it is given, and nobody looks before."""
    consent = world.grant()
    world.subject.revoke_directly(world.chain, world.grant_of(consent))
    monkeypatch.setattr("contract_rules.Call._use", lambda *_: Reason.NONE)
    monkeypatch.setattr("ledger.preparation.require_usable", lambda *_, **__: None)
    monkeypatch.setattr(world.custodian.releases, "_stopped", lambda items: [None] * len(items))
    assert any("recorded although REVOKED" in each for each in release_and_judge(world, consent))


def test_the_checker_sees_an_entry_that_is_on_the_log_twice(world: World) -> None:
    consent = world.grant()
    release = world.ask(consent)
    delivery = delivered(world.custodian, world.institution, release)
    again = LoggedAccess(consent_id=consent, entry_hash=delivery.answer["entryHash"])
    writer = world.custodian.accounts.writers[0]
    head = world.chain.log(world.custodian.address, Address(writer.address)).head
    world.chain.transact(writer, append_call(BatchKind.ACCESSES, world.custodian.address, head, [again]))
    assert any("logged 2 times" in each for each in judged(world, [delivery]))


def test_the_checker_sees_an_answer_that_is_not_what_was_logged(world: World) -> None:
    delivery = delivered(world.custodian, world.institution, world.ask(world.grant()))
    more = replace(delivery, answer=delivery.answer | {"values": delivery.answer["values"] | {"age": {"value": 30}}})
    assert any("not what was released" in each for each in judged(world, [more]))


def test_the_checker_sees_two_answers_for_one_release(world: World) -> None:
    delivery = delivered(world.custodian, world.institution, world.ask(world.grant()))
    other = replace(delivery, sealed=delivery.sealed[:-1])
    assert any("two answers" in each for each in judged(world, [delivery, other]))


def test_the_checker_sees_a_tail_that_was_lost(world: World) -> None:
    delivery = delivered(world.custodian, world.institution, world.ask(world.grant()))
    world.chain.reorg(1)
    assert judged(world, [delivery]) != []
    world.custodian.sync()
    assert judged(world, [delivery]) == []


def test_a_release_that_was_ended_stays_ended(world: World) -> None:
    consent = world.grant()
    signed = world.request(consent)
    world.steps.at("5 logged", die)
    with pytest.raises(Killed):
        world.custodian.releases.release(signed)
    world.restart()
    world.clock.advance(901)
    world.custodian.sync()
    with pytest.raises(ReleaseAbortedError):
        world.retry(signed)
