"""Releases in which something ends, fails or dies half way: P1, P3, P4 and P8 of the design."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from actors import DAY, STEP_NAMES, Furnisher, World
from simulator import SimulatedChain

from ledger.accounts import WRITERS
from ledger.chain import Receipt
from ledger.commit import Finality
from ledger.consent import Hex32, Reason
from ledger.contract import call
from ledger.custodian import Custodian
from ledger.errors import (
    AuthenticationError,
    ChainError,
    ChainLostError,
    ChainUnavailableError,
    ConfirmationTimeoutError,
    ConsentError,
    ConsentExhaustedError,
    ConsentExpiredError,
    ConsentPausedError,
    ConsentRevokedError,
    ContractMissingError,
    DailyLimitError,
    DisputedError,
    ErasedError,
    InstitutionSuspendedError,
    KeyFileError,
    LedgerError,
    LogAheadError,
    NotFoundError,
    NotWriterError,
    ReleaseAbortedError,
    ReleaseInProgressError,
    ReplayedRequestError,
    StoreMismatchError,
    StoreUnavailableError,
    TransactionRevertedError,
    WrongChainError,
)
from ledger.journal import ABORTED, INTENT, RECORDED, REFUSED, RELEASED
from ledger.keys import KeyFile
from ledger.parties import INSTITUTION
from ledger.release import Release
from ledger.signatures import HttpRequest
from ledger.store import institutions
from ledger.vault import StoredRecord

BEFORE_THE_ANSWER = (
    "4 before intent",
    "4 intent durable",
    "batch durable",
    "batch sent",
    "batch landed",
    "5 logged",
    "6 before decrypting",
    "6 before answer durable",
)
NEVER_SENT = ("4 before intent", "4 intent durable", "batch durable")


class Killed(BaseException):
    """What a process does not survive; nothing in the package may catch it."""


def die() -> None:
    raise Killed


def outcome_of(act: Callable[[], Release]) -> Release | LedgerError:
    try:
        return act()
    except LedgerError as exc:
        return exc


def test_a_step_that_no_code_announces_is_an_error_and_no_empty_test(world: World) -> None:
    assert {*BEFORE_THE_ANSWER, "6 answer durable"} <= STEP_NAMES
    with pytest.raises(AssertionError, match="5 before append"):
        world.steps.at("5 before append", die)


# ---------------------------------------------------------------------- revoked, paused or erased between any two steps


def dispute(world: World) -> None:
    world.custodian.disputes.open(world.custodian.vault.subject_of(world.subject.ref), "credit_amount", "It is wrong.")


@pytest.mark.parametrize("step", BEFORE_THE_ANSWER)
def test_a_dispute_between_any_two_steps_releases_nothing(world: World, step: str) -> None:
    consent = world.grant()
    world.steps.at(step, lambda: dispute(world))
    for _ in range(2):
        with pytest.raises(DisputedError):
            world.ask(consent, key="once")
    assert RELEASED not in world.states()
    assert world.ask(consent, attributes=("savings",)).sealed


def test_a_dispute_stops_also_what_a_retry_takes_up(world: World) -> None:
    consent = world.grant()
    world.chain.lose_replies = 1
    with pytest.raises(ChainUnavailableError):
        world.ask(consent, key="once")
    dispute(world)
    for _ in range(2):
        with pytest.raises(DisputedError):
            world.ask(consent, key="once")
    assert world.states() == [ABORTED]


@pytest.mark.parametrize("step", BEFORE_THE_ANSWER)
def test_a_suspension_between_any_two_steps_releases_nothing(world: World, step: str) -> None:
    consent, bank = world.grant(), world.institution.institution_id
    world.steps.at(step, lambda: world.custodian.registry.suspend(INSTITUTION, bank, suspended=True))
    with pytest.raises(InstitutionSuspendedError):
        world.ask(consent, key="once")
    assert RELEASED not in world.states()


@pytest.mark.parametrize("step", BEFORE_THE_ANSWER[1:])
def test_a_value_that_is_corrected_between_any_two_steps_is_not_released(world: World, step: str) -> None:
    furnisher, consent = Furnisher(), world.grant()
    furnisher.register(world.custodian)
    world.steps.at(step, lambda: furnisher.put(world.custodian, world.subject.ref, {"credit_amount": 9999}))
    with pytest.raises(ReleaseAbortedError, match="corrected"):
        world.ask(consent, key="once")
    assert world.states() == [ABORTED]
    assert world.read(world.ask(consent))["values"]["credit_amount"]["value"] == 9999


def test_a_retry_does_not_wait_for_the_successor_of_the_process_that_died_at_the_release(world: World) -> None:
    message = world.request(world.grant())
    killed = world.open()
    world.steps.at("5 logged", die)
    with pytest.raises(Killed):
        killed.releases.release(message)
    killed.close()
    successor = world.open()
    assert successor.log.address == killed.log.address
    # Its batch is the successor's to find out about, which has the writer; the release is nobody's.
    with pytest.raises(ReleaseInProgressError):
        world.retry(message)
    successor.log.resolve()
    assert world.retry(message).sealed
    assert len(world.logged()) == 1
    successor.close()


def test_of_two_processes_that_take_up_one_release_the_second_gives_the_first_ones_answer(world: World) -> None:
    message = world.request(world.grant())
    killed, other = world.open(), world.open()
    world.steps.at("5 logged", die)
    with pytest.raises(Killed):
        killed.releases.release(message)
    killed.close()
    answers: list[Release] = []
    # The first is of the retry's own round, in which there is nothing to answer.
    for act in (lambda: None, lambda: answers.append(world.retry(message, other))):
        world.steps.at("6 before answer durable", act)
    assert [world.retry(message)] == answers
    assert world.states() == [RELEASED]
    other.close()


@pytest.mark.parametrize("step", BEFORE_THE_ANSWER)
def test_revocation_between_any_two_steps_releases_nothing(world: World, step: str) -> None:
    consent = world.grant()
    world.steps.at(step, lambda: world.subject.revoke(world.custodian, consent))
    with pytest.raises(ConsentRevokedError):
        world.ask(consent, key="once")
    require_nothing_released(world, consent, recorded=0 if step in NEVER_SENT else 1)
    with pytest.raises(ConsentRevokedError):
        world.ask(consent, key="once")


@pytest.mark.parametrize("step", BEFORE_THE_ANSWER)
def test_pause_between_any_two_steps_releases_nothing(world: World, step: str) -> None:
    consent = world.grant()
    world.steps.at(step, lambda: world.subject.pause(world.custodian, consent))
    with pytest.raises(ConsentPausedError):
        world.ask(consent, key="once")
    require_nothing_released(world, consent, recorded=0 if step in NEVER_SENT else 1)


@pytest.mark.parametrize("step", BEFORE_THE_ANSWER[:6])
def test_revocation_on_chain_that_we_were_not_told_of_releases_nothing(world: World, step: str) -> None:
    consent = world.grant()
    world.steps.at(step, lambda: world.subject.revoke_directly(world.chain, world.grant_of(consent)))
    with pytest.raises(ConsentRevokedError):
        world.ask(consent, key="once")
    require_nothing_released(world, consent, recorded=0 if step in NEVER_SENT else 1)


@pytest.mark.parametrize("step", BEFORE_THE_ANSWER)
def test_revocation_while_the_chain_is_down_stops_a_release_at_any_step(world: World, step: str) -> None:
    consent = world.grant()

    def revoke_unheard() -> None:
        world.chain.down = True
        assert world.subject.revoke(world.custodian, consent).receipt is None
        world.chain.down = False

    world.steps.at(step, revoke_unheard)
    with pytest.raises(ConsentRevokedError):
        world.ask(consent, key="once")
    assert RELEASED not in world.states()
    assert world.custodian.sync().relayed == 1
    assert world.chain.statuses([consent], world.custodian.address) == [Reason.REVOKED]


def test_a_revocation_that_the_chain_has_not_heard_of_yet_keeps_an_access_off_the_log(world: World) -> None:
    consent = world.grant()
    world.chain.down = True
    assert world.subject.revoke(world.custodian, consent).receipt is None
    world.chain.down = False
    assert world.chain.statuses([consent], world.custodian.address) == [Reason.NONE]
    with pytest.raises(ConsentRevokedError):
        world.ask(consent)
    assert world.logged() == []
    assert world.states() == [REFUSED]


@pytest.mark.parametrize("step", BEFORE_THE_ANSWER)
def test_erasure_in_the_middle_of_a_release_releases_nothing_and_leaves_no_opening(world: World, step: str) -> None:
    consent = world.grant()
    world.steps.at(step, lambda: world.custodian.eraser.erase(world.subject.ref))
    with pytest.raises((ErasedError, ConsentRevokedError)):
        world.ask(consent, key="once")
    rows = world.custodian.journal.history()
    assert all(row.state in (ABORTED, REFUSED) for row in rows)
    assert all(row.body is None and row.sealed is None and row.subject_id is None for row in rows)
    with pytest.raises((ErasedError, ConsentRevokedError)):
        world.ask(consent, key="once")


def test_revocation_after_the_answer_is_durable_does_not_take_it_back(world: World) -> None:
    consent = world.grant()
    world.steps.at("6 answer durable", lambda: world.subject.revoke(world.custodian, consent))
    release = world.ask(consent, key="once")
    assert world.ask(consent, key="once").sealed == release.sealed
    with pytest.raises(ConsentRevokedError):
        world.ask(consent)


@pytest.mark.parametrize("step", BEFORE_THE_ANSWER[:6])
@pytest.mark.parametrize("known", [True, False], ids=["told", "not told"])
def test_nothing_is_decrypted_once_a_revocation_is_visible(
    world: World, monkeypatch: pytest.MonkeyPatch, step: str, known: bool
) -> None:
    consent = world.grant()
    opened: list[StoredRecord] = []
    monkeypatch.setattr(world.custodian.vault, "open", opened.append)

    def revoke() -> None:
        if known:
            world.subject.revoke(world.custodian, consent)
        else:
            world.subject.revoke_directly(world.chain, world.grant_of(consent))

    world.steps.at(step, revoke)
    with pytest.raises(ConsentRevokedError):
        world.ask(consent)
    assert opened == []


def require_nothing_released(world: World, consent: Hex32, *, recorded: int) -> None:
    """P4: no answer exists, and nothing counts as recorded after the end of the consent in chain order."""
    assert RELEASED not in world.states()
    assert INTENT not in world.states()
    assert RECORDED not in world.states()
    assert all(row.sealed is None for row in world.custodian.journal.history())
    names = [
        event.name
        for event in world.chain.all_events()
        if event.name in ("ConsentRevoked", "ConsentPauseSet", "AccessRecorded") and event.args[0] == consent
    ]
    assert names.count("AccessRecorded") == recorded
    assert names[-1] in ("ConsentRevoked", "ConsentPauseSet")


# --------------------------------------------------------------------------------------------------------- many at once


def test_a_hundred_copies_of_one_request_are_one_access_and_one_answer(world: World) -> None:
    signed = world.request(world.grant())
    outcomes = at_once(world, [signed] * 100)
    assert sum(isinstance(each, Release) for each in outcomes) == 1
    assert {type(each) for each in outcomes if isinstance(each, LedgerError)} == {ReplayedRequestError}
    assert len(world.logged()) == 1
    assert world.states() == [RELEASED]


def test_a_hundred_retries_of_one_request_are_one_access_and_identical_bytes(world: World) -> None:
    signed = world.request(world.grant(max_accesses=1, accesses_per_day=1))
    answers = at_once(world, [world.institution.sign(signed, at=world.clock()) for _ in range(100)])
    assert [type(each) for each in answers] == [Release] * 100
    assert len({(each.sealed, each.receipt) for each in answers if isinstance(each, Release)}) == 1
    assert len(world.logged()) == 1
    assert world.states() == [RELEASED]


def test_a_one_use_consent_asked_by_fifty_threads_answers_exactly_one(world: World) -> None:
    consent = world.grant(purpose="loan-origination", max_accesses=1, accesses_per_day=1)
    outcomes = ask_at_once(world, consent, 50)
    refused = Counter(type(each) for each in outcomes if isinstance(each, LedgerError))
    assert sum(isinstance(each, Release) for each in outcomes) == 1
    assert set(refused) <= {ConsentExhaustedError, DailyLimitError}
    assert sum(refused.values()) == 49
    assert len(world.logged()) == world.chain.consent(consent).accesses == 1


def test_the_daily_limit_holds_when_all_ask_at_once(world: World) -> None:
    consent = world.grant(max_accesses=3, accesses_per_day=2)
    outcomes = ask_at_once(world, consent, 20)
    assert sum(isinstance(each, Release) for each in outcomes) == 2
    assert {type(each) for each in outcomes if isinstance(each, LedgerError)} == {DailyLimitError}
    assert world.chain.consent(consent).accesses == 2


def test_releases_that_wait_together_share_batches_and_each_gets_its_own_answer(world: World) -> None:
    consents = [world.grant() for _ in range(20)]
    requests = [world.request(consent) for consent in consents]
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(world.custodian.releases.release, requests))
    assert [world.read(answer)["consent"] for answer in answers] == consents
    assert len(set(world.logged())) == 20
    assert sum(event.name == "LogAppended" for event in world.chain.all_events()) < 20


def ask_at_once(world: World, consent: Hex32, number: int) -> list[Release | LedgerError]:
    return at_once(world, [world.request(consent) for _ in range(number)])


def at_once(world: World, requests: Sequence[HttpRequest], *others: Custodian) -> list[Release | LedgerError]:
    """All of them in the same moment; in turns to the other processes, if there are any."""
    start = threading.Barrier(len(requests))
    processes = (world.custodian, *others)

    def ask(number: int) -> Release | LedgerError:
        start.wait()
        releases = processes[number % len(processes)].releases
        return outcome_of(lambda: releases.release(requests[number]))

    with ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(ask, range(len(requests))))


# --------------------------------------------------------------------------------------------------- the chain at fault


def contract_is_gone(chain: SimulatedChain) -> None:
    chain.restart_empty()


def chain_is_down(chain: SimulatedChain) -> None:
    chain.down = True


@pytest.mark.parametrize(
    ("fault", "error"), [(chain_is_down, ChainUnavailableError), (contract_is_gone, ContractMissingError)]
)
def test_an_unreachable_chain_or_contract_denies(
    world: World, fault: Callable[[SimulatedChain], None], error: type[ChainError]
) -> None:
    consent = world.grant()
    fault(world.chain)
    with pytest.raises(error):
        world.ask(consent)
    assert world.states() == []


def test_a_chain_that_goes_down_at_any_call_releases_nothing_and_the_next_try_works(world: World) -> None:
    for method in ("statuses", "log", "sign", "send", "receipt"):
        consent = world.grant()
        world.restart()
        world.chain.before(method, lambda: setattr(world.chain, "down", True))
        with pytest.raises(ChainUnavailableError):
            world.ask(consent, key=f"once-{method}")
        world.chain.down = False
        assert world.ask(consent, key=f"once-{method}").sealed
    assert world.states() == [RELEASED] * 5
    assert len(world.logged()) == 5


def test_the_chain_going_down_after_the_access_is_logged_releases_nothing_until_it_is_back(world: World) -> None:
    consent = world.grant()
    world.steps.at("5 logged", lambda: setattr(world.chain, "down", True))
    with pytest.raises(ChainUnavailableError):
        world.ask(consent, key="once")
    assert world.states() == [RECORDED]
    world.chain.down = False
    assert world.ask(consent, key="once").sealed
    assert len(world.logged()) == 1


def test_a_reply_that_is_lost_after_the_send_is_one_access_and_one_answer(world: World) -> None:
    consent = world.grant()
    world.chain.lose_replies = 1
    with pytest.raises(ChainUnavailableError):
        world.ask(consent, key="once")
    assert world.states() == [INTENT]
    assert world.ask(consent, key="once").sealed
    assert len(world.logged()) == 1


def test_a_dropped_transaction_is_sent_again_as_the_same_bytes(data: Path) -> None:
    world = World(data, finality=Finality(timeout=0.05))
    consent = world.grant()
    world.chain.sent.clear()
    world.chain.drop = 1
    with pytest.raises(ConfirmationTimeoutError):
        world.ask(consent, key="once")
    assert world.ask(consent, key="once").sealed
    assert len(world.chain.sent) == 2
    assert len(set(world.chain.sent)) == 1
    assert len(world.logged()) == 1


def test_a_block_that_comes_too_late_is_found_by_the_retry(data: Path) -> None:
    world = World(data, finality=Finality(timeout=0.05))
    consent = world.grant()
    world.chain.automine = False
    with pytest.raises(ConfirmationTimeoutError):
        world.ask(consent, key="once")
    assert world.states() == [INTENT]
    world.chain.mine()
    assert world.ask(consent, key="once").sealed
    assert len(world.logged()) == 1


def test_nothing_is_released_before_the_block_is_final(data: Path) -> None:
    world = World(data, finality=Finality(tag="finalized", timeout=0.05))
    consent = world.grant()
    world.chain.finality_lag = 2
    with pytest.raises(ConfirmationTimeoutError):
        world.ask(consent, key="once")
    assert world.states() == [INTENT]
    world.chain.mine()
    world.chain.mine()
    assert world.ask(consent, key="once").sealed
    assert len(world.logged()) == 1


def test_a_reorganisation_before_finality_releases_nothing(data: Path) -> None:
    world = World(data, finality=Finality(tag="finalized", timeout=0.05))
    consent = world.grant()
    world.chain.finality_lag = 2
    with pytest.raises(ConfirmationTimeoutError):
        world.ask(consent, key="once")
    world.chain.reorg(
        1, keep=True, meanwhile=lambda: world.subject.revoke_directly(world.chain, world.grant_of(consent))
    )
    for _ in range(3):
        world.chain.mine()
    with pytest.raises(ConsentRevokedError):
        world.ask(consent, key="once")
    assert world.logged() == []
    assert world.states() == [REFUSED]


def test_a_reorganisation_that_takes_consent_and_access_before_decrypting_releases_nothing(world: World) -> None:
    consent = world.grant()
    world.steps.at("5 logged", lambda: world.chain.reorg(2))
    with pytest.raises(ChainLostError):
        world.ask(consent, key="once")
    assert world.states() == [RECORDED]
    world.custodian.sync()
    assert world.ask(consent, key="once").sealed
    assert len(world.logged()) == 1


def nothing_is_read(
    world: World, consent: Hex32, monkeypatch: pytest.MonkeyPatch, error: type[ChainError], *, tries: int = 1
) -> None:
    """Asked under the key `once`."""
    opened: list[StoredRecord] = []
    monkeypatch.setattr(world.custodian.vault, "open", lambda record, _use: opened.append(record))
    for _ in range(tries):
        with pytest.raises(error):
            world.ask(consent, key="once")
    monkeypatch.undo()
    assert opened == []
    assert world.states() == [RECORDED]


def nothing_is_read_until_the_chain_has_it_back(
    world: World, consent: Hex32, monkeypatch: pytest.MonkeyPatch, *, tries: int = 1
) -> None:
    """Asked under the key `once`."""
    nothing_is_read(world, consent, monkeypatch, ChainLostError, tries=tries)
    world.custodian.sync()
    assert world.ask(consent, key="once").sealed
    assert len(world.logged()) == 1


def test_a_reorganisation_that_takes_only_the_access_before_decrypting_releases_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    consent = world.grant()
    world.steps.at("5 logged", lambda: world.chain.reorg(1))
    # The second finds what the first has left.
    nothing_is_read_until_the_chain_has_it_back(world, consent, monkeypatch, tries=2)


def test_an_endpoint_that_does_not_know_the_block_of_an_access_yet_is_not_said_to_have_lost_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    consent = world.grant()
    world.steps.at("5 logged", lambda: setattr(world.chain, "behind", 1))
    nothing_is_read(world, consent, monkeypatch, ChainUnavailableError, tries=2)
    world.chain.behind = 0
    assert world.ask(consent, key="once").sealed
    assert len(world.logged()) == 1


@pytest.mark.parametrize("restarted", [False, True], ids=["the same process", "another process"])
def test_what_the_chain_lost_before_it_was_read_is_not_read(
    world: World, monkeypatch: pytest.MonkeyPatch, restarted: bool
) -> None:
    consent = world.grant()
    leave_recorded(world, consent)
    world.chain.reorg(1)
    if restarted:
        world.restart()
    nothing_is_read_until_the_chain_has_it_back(world, consent, monkeypatch)


def leave_recorded(world: World, consent: Hex32) -> None:
    """A release under the key `once` that is on the log and was not answered, because its process died."""
    world.steps.at("6 before answer durable", die)
    with pytest.raises(Killed):
        world.ask(consent, key="once")
    world.restart()
    world.custodian.log.resolve()
    assert world.states() == [RECORDED]


def test_an_access_that_comes_back_late_is_not_released_any_more(world: World) -> None:
    consent = world.grant()
    world.steps.at("5 logged", lambda: setattr(world.chain, "down", True))
    with pytest.raises(ChainUnavailableError):
        world.ask(consent, key="once")
    assert world.states() == [RECORDED]
    world.chain.down = False
    world.chain.reorg(1)
    world.clock.advance(30 * DAY)
    assert world.custodian.sync(stale_after=60 * DAY).late == 1
    with pytest.raises(ReleaseAbortedError):
        world.ask(consent, key="once")
    assert world.states() == [ABORTED]


def test_a_batch_that_the_chain_lost_before_it_was_settled_is_sent_again_and_judged_anew(world: World) -> None:
    consent = world.grant()
    world.steps.at("5 logged", die)
    with pytest.raises(Killed):
        world.ask(consent, key="once")
    world.restart()
    world.chain.reorg(1)
    world.clock.advance(30 * DAY)
    world.custodian.sync(stale_after=60 * DAY)
    with pytest.raises(ConsentExpiredError):
        world.ask(consent, key="once")
    assert world.states() == [REFUSED]


def test_a_chain_that_forgot_a_standing_consent_is_reported_as_lost(world: World) -> None:
    consent = world.grant()
    world.chain.restart_empty(deployed=True)
    with pytest.raises(NotWriterError):
        world.ask(consent)
    world.custodian.allow_writers()
    with pytest.raises(ChainLostError):
        world.ask(consent)
    assert world.states() == []


def test_another_chain_behind_the_endpoint_is_refused(world: World) -> None:
    world.chain.serves_chain_id = 1
    with pytest.raises(WrongChainError):
        world.chain.check()
    with pytest.raises(WrongChainError):
        world.custodian.sync()
    with pytest.raises(ChainError):
        world.grant()


def test_a_receipt_that_turns_a_refusal_into_a_record_releases_nothing(world: World) -> None:
    consent = world.grant()
    world.steps.at("batch durable", lambda: world.subject.revoke_directly(world.chain, world.grant_of(consent)))
    world.chain.lie = as_recorded
    with pytest.raises(ChainUnavailableError):
        world.ask(consent, key="once")
    assert RELEASED not in world.states()
    world.chain.lie = lambda receipt: receipt
    with pytest.raises(ConsentRevokedError):
        world.ask(consent, key="once")


def as_recorded(receipt: Receipt) -> Receipt:
    """The lie of an endpoint that wants a release: refused entries look recorded."""
    events = tuple(
        replace(event, name="AccessRecorded", args=event.args[:2]) if event.name == "AccessRefused" else event
        for event in receipt.events
    )
    return replace(receipt, events=events)


def with_another_head(receipt: Receipt) -> Receipt:
    return replace(
        receipt,
        events=tuple(
            replace(event, args=(*event.args[:4], "0x" + "00" * 32)) if event.name == "LogAppended" else event
            for event in receipt.events
        ),
    )


def without_events(receipt: Receipt) -> Receipt:
    return replace(receipt, events=())


def with_another_entry(receipt: Receipt) -> Receipt:
    return replace(
        receipt,
        events=tuple(
            replace(event, args=(event.args[0], "0x" + "ee" * 32)) if event.name == "AccessRecorded" else event
            for event in receipt.events
        ),
    )


def as_reverted(receipt: Receipt) -> Receipt:
    return replace(receipt, succeeded=False, events=())


@pytest.mark.parametrize("lie", [with_another_head, without_events, with_another_entry])
def test_a_lying_receipt_releases_nothing_and_the_truth_later_is_one_access(
    world: World, lie: Callable[[Receipt], Receipt]
) -> None:
    consent = world.grant()
    world.chain.lie = lie
    for _ in range(2):
        with pytest.raises(ChainUnavailableError):
            world.ask(consent, key="once")
    assert world.states() == [INTENT]
    world.chain.lie = lambda receipt: receipt
    assert world.ask(consent, key="once").sealed
    assert len(world.logged()) == 1


def test_a_receipt_that_says_reverted_of_what_landed_makes_no_second_entry_and_the_truth_later_releases(
    world: World,
) -> None:
    consent = world.grant()
    world.chain.lie = as_reverted
    for _ in range(2):
        with pytest.raises(LogAheadError):
            world.ask(consent, key="once")
    world.chain.lie = lambda receipt: receipt
    assert world.ask(consent, key="once").sealed
    assert len(world.logged()) == 1


@pytest.fixture
def impatient(data: Path, first_state: World) -> Iterator[World]:
    """A world in which nobody waits long for a block."""
    world = World(data, finality=Finality(timeout=0.05), like=first_state)
    yield world
    world.custodian.close()


def leave_without_batch(world: World, message: HttpRequest) -> None:
    """A release that is on file and in no batch, because its batch reverted; then its process ends."""
    stop = call("setWriter", world.custodian.log.address, False)
    world.steps.at("batch durable", lambda: world.chain.transact(world.custodian.accounts.custodian, stop))
    with pytest.raises(TransactionRevertedError):
        world.custodian.releases.release(message)
    assert world.states() == [INTENT]
    world.custodian.close()


@contextmanager
def left_to_two_others(
    world: World, message: HttpRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Custodian, Custodian]]:
    """Two more processes, of which neither waits for the other, and a release that is theirs to take up."""
    monkeypatch.setattr("ledger.release.OTHER_PROCESS_SECONDS", 0)
    with world.open() as second, world.open() as third:
        leave_without_batch(world, message)
        yield second, third
    world.custodian = world.open()


def test_an_access_that_waits_in_another_writers_batch_is_not_appended_by_a_third(
    impatient: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = impatient
    message = world.request(consent := world.grant())
    with left_to_two_others(world, message, monkeypatch) as (second, third):
        world.chain.automine = False
        with pytest.raises(ConfirmationTimeoutError):
            world.retry(message, second)
        with pytest.raises(ReleaseInProgressError):
            world.retry(message, third)
        world.chain.mine()
        world.chain.automine = True
        answer = world.retry(message, second)
        assert world.retry(message, third) == answer
        assert len(world.logged()) == world.chain.consent(consent).accesses == 1
        # Neither that writer nor sync is stuck.
        assert second.releases.release(world.request(consent)).sealed
        third.sync()


def test_an_access_in_the_batch_of_a_writer_that_died_is_found_by_a_third(impatient: World) -> None:
    world = impatient
    message = world.request(world.grant())
    second, third = world.open(), world.open()
    leave_without_batch(world, message)
    world.steps.at("batch sent", die)
    with pytest.raises(Killed):
        world.retry(message, second)
    second.close()
    assert world.retry(message, third).sealed
    assert len(world.logged()) == 1
    third.close()
    world.custodian = world.open()


@pytest.mark.parametrize("mined", [True, False], ids=["answered by then", "in flight by then"])
def test_an_access_that_another_process_appends_at_the_same_moment_is_not_appended_again(
    impatient: World, monkeypatch: pytest.MonkeyPatch, mined: bool
) -> None:
    world = impatient
    message = world.request(consent := world.grant())
    with left_to_two_others(world, message, monkeypatch) as (second, third):

        def append() -> None:
            world.chain.automine = mined
            outcome = outcome_of(lambda: world.retry(message, third))
            assert isinstance(outcome, Release if mined else ConfirmationTimeoutError)

        # The second has seen by then that it is in no batch.
        world.chain.before("statuses", lambda: world.chain.before("statuses", append))
        with pytest.raises(ReleaseInProgressError):
            world.retry(message, second)
        if not mined:
            world.chain.mine()
            world.chain.automine = True
        assert world.retry(message, third) == world.retry(message, second)
        assert len(world.logged()) == world.chain.consent(consent).accesses == 1
        third.sync()


def test_a_writer_whose_log_was_rebuilt_by_another_process_goes_on(world: World) -> None:
    """The same bytes are on its log again, so that its own idea of the head is the right one."""
    with world.open() as other:
        consent = world.grant()
        world.ask(consent)
        lost = other.releases.release(world.request(consent, key="lost"))
        world.chain.reorg(1)
        world.custodian.sync()
        assert other.releases.release(world.request(consent, key="next")).sealed != lost.sealed
        assert other.releases.release(world.request(consent, key="lost")).sealed == lost.sealed
    assert len(world.logged()) == len(set(world.logged())) == 3


# ----------------------------------------------------------------------------------------------- the custodian at fault


@pytest.mark.parametrize("step", [*BEFORE_THE_ANSWER, "6 answer durable"])
def test_a_process_that_dies_at_any_step_is_taken_up_by_the_next_one(world: World, step: str) -> None:
    consent = world.grant()
    world.steps.at(step, die)
    with pytest.raises(Killed):
        world.ask(consent, key="once")
    world.restart()
    first = world.ask(consent, key="once")
    assert world.ask(consent, key="once").sealed == first.sealed
    assert len(world.logged()) == 1
    assert world.states() == [RELEASED]


@pytest.mark.parametrize("step", [*BEFORE_THE_ANSWER, "6 answer durable"])
def test_a_release_that_no_one_comes_back_for_ends_within_the_bound(world: World, step: str) -> None:
    consent = world.grant()
    world.steps.at(step, die)
    with pytest.raises(Killed):
        world.ask(consent, key="once")
    world.restart()
    world.clock.advance(901)
    world.custodian.sync()
    assert set(world.states()) <= {RELEASED, ABORTED}
    if world.states() == [ABORTED]:
        with pytest.raises(ReleaseAbortedError):
            world.ask(consent, key="once")


def test_a_release_of_a_dead_process_ends_although_another_writer_syncs(world: World) -> None:
    consent = world.grant()
    other = world.open()
    signed = world.request(consent, key="once")
    world.steps.at("5 logged", die)
    with pytest.raises(Killed):
        other.releases.release(signed)
    other.close()
    world.clock.advance(901)
    assert world.custodian.sync().stale_ended == 1
    assert world.states() == [ABORTED]


def test_a_release_of_a_dead_process_is_finished_by_another_writer(world: World) -> None:
    consent = world.grant()
    other = world.open()
    world.steps.at("batch sent", die)
    with pytest.raises(Killed):
        other.releases.release(world.request(consent, key="once"))
    other.close()
    assert world.ask(consent, key="once").sealed
    assert len(world.logged()) == 1


def test_two_retries_at_once_of_what_a_dead_process_left_are_one_access(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = world.request(world.grant())
    world.steps.at("4 intent durable", die)
    with pytest.raises(Killed):
        world.custodian.releases.release(message)
    world.restart()
    really_resolve = world.custodian.log.resolve
    second_came = threading.Event()
    retries: list[Future[Release]] = []

    def resolve() -> None:
        """The first to take it up waits for a second one that would do the same, which must not come so far."""
        really_resolve()
        if retries:
            second_came.set()
            return
        retries.append(pool.submit(world.retry, message))
        second_came.wait(timeout=0.5)

    monkeypatch.setattr(world.custodian.log, "resolve", resolve)
    with ThreadPoolExecutor(1) as pool:
        first = world.retry(message)
        assert retries[0].result() == first
    assert len(world.logged()) == 1


def test_two_processes_at_once_answer_one_request_once(world: World) -> None:
    signed = world.request(world.grant(max_accesses=1, accesses_per_day=1))
    with world.open() as other:
        outcomes = at_once(world, [world.institution.sign(signed, at=world.clock()) for _ in range(20)], other)
        again = world.retry(signed, other)
    answers = {each.sealed for each in outcomes if isinstance(each, Release)}
    assert answers == {again.sealed}
    assert {each.code for each in outcomes if isinstance(each, LedgerError)} <= {"in_progress"}
    assert len(world.logged()) == 1


def test_the_same_bytes_to_two_processes_at_once_are_let_in_by_one(world: World) -> None:
    signed = world.request(world.grant())
    with world.open() as other:
        outcomes = at_once(world, [signed] * 20, other)
    assert sum(isinstance(each, Release) for each in outcomes) == 1
    assert {type(each) for each in outcomes if isinstance(each, LedgerError)} == {ReplayedRequestError}
    assert len(world.logged()) == 1


def test_a_locked_database_is_a_clear_error_and_the_next_try_works(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger.store.BUSY_SECONDS", 0)
    world.restart()
    consent = world.grant()
    thief = sqlite3.connect(world.config.database, isolation_level=None)
    world.steps.at("4 before intent", lambda: thief.execute("BEGIN IMMEDIATE"))
    with pytest.raises(StoreUnavailableError):
        world.ask(consent, key="once")
    thief.execute("ROLLBACK")
    thief.close()
    assert world.states() == []
    assert world.logged() == []
    assert world.ask(consent, key="once").sealed


def test_a_database_that_locks_after_the_access_is_logged_releases_nothing_until_it_is_free(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger.store.BUSY_SECONDS", 0)
    world.restart()
    consent = world.grant()
    thief = sqlite3.connect(world.config.database, isolation_level=None)
    world.steps.at("batch landed", lambda: thief.execute("BEGIN IMMEDIATE"))
    with pytest.raises(StoreUnavailableError):
        world.ask(consent, key="once")
    thief.execute("ROLLBACK")
    thief.close()
    assert world.states() == [INTENT]
    assert world.ask(consent, key="once").sealed
    assert len(world.logged()) == 1


@pytest.mark.parametrize("step", ["4 before intent", "4 intent durable", "batch landed", "6 before answer durable"])
def test_a_full_disk_at_any_write_is_a_clear_error_and_the_next_try_works(
    world: World, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    really_begin = world.custodian.store.begin
    consent = world.grant()

    def fill() -> None:
        # What SQLite does on a full disk, by its own limit: no page can be added any more.
        def begin() -> Any:
            return capped(really_begin())

        monkeypatch.setattr(world.custodian.store, "begin", begin)

    world.steps.at(step, fill)
    with pytest.raises(StoreUnavailableError, match="full"):
        world.ask(consent, key="once", attributes=("credit_amount", "savings"))
    assert RELEASED not in world.states()
    monkeypatch.undo()
    with world.custodian.store.begin() as tx:
        tx.exec_driver_sql("PRAGMA max_page_count=1073741823")
    assert world.ask(consent, key="once", attributes=("credit_amount", "savings")).sealed
    assert len(world.logged()) == 1


class capped:  # noqa: N801 - reads as a function
    """A writing transaction in which no page can be added, and one has to be."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __enter__(self) -> Any:
        tx = self._inner.__enter__()
        tx.exec_driver_sql("PRAGMA max_page_count=1")
        try:
            tx.exec_driver_sql("CREATE TABLE filler (bytes BLOB)")
            tx.exec_driver_sql("INSERT INTO filler VALUES (zeroblob(100000000))")
        except BaseException as exc:
            if not self._inner.__exit__(type(exc), exc, exc.__traceback__):
                raise
        return tx

    def __exit__(self, *error: object) -> Any:
        return self._inner.__exit__(*error)


@pytest.mark.parametrize("name", ["key_file", "account_file"])
def test_without_its_key_files_nothing_starts_and_with_them_it_goes_on(world: World, name: str) -> None:
    consent = world.grant()
    path: Path = getattr(world.config, name)
    away = path.rename(path.with_name("away"))
    world.custodian.close()
    with pytest.raises(KeyFileError):
        world.open()
    away.rename(path)
    world.custodian = world.open()
    assert world.ask(consent).sealed


def test_the_key_file_of_another_installation_opens_nothing(world: World) -> None:
    world.custodian.close()
    world.config.key_file.unlink()
    KeyFile.create(world.config.key_file)
    with pytest.raises(StoreMismatchError):
        world.open()


def test_a_database_of_another_chain_or_custodian_is_not_opened(world: World, tmp_path: Path) -> None:
    other = World(tmp_path / "other")
    other.custodian.close()
    world.custodian.close()
    with pytest.raises(StoreMismatchError, match="chain_id"):
        Custodian(replace(world.config, chain_id=1), chain=world.chain)
    world.config.account_file.unlink()
    other.config.account_file.rename(world.config.account_file)
    with pytest.raises(StoreMismatchError, match="custodian"):
        world.open()


def test_a_key_file_that_others_can_read_is_refused(world: World) -> None:
    world.config.key_file.chmod(0o644)
    with pytest.raises(KeyFileError, match="0600"):
        world.open()


def test_an_altered_envelope_is_not_released_and_the_release_ends(world: World) -> None:
    consent = world.grant()
    with sqlite3.connect(world.config.database) as tx:
        tx.execute("UPDATE records SET body = CAST(body || x'00' AS BLOB)")
    tx.close()
    with pytest.raises(LedgerError) as caught:
        world.ask(consent, key="once")
    assert caught.value.code == "integrity"
    assert "1169" not in str(caught.value)
    world.clock.advance(901)
    world.custodian.sync()
    assert world.states() == [ABORTED]


def test_no_more_processes_than_writer_keys(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.writers.WAIT_SECONDS", 0)
    others = [world.open() for _ in range(WRITERS - 1)]
    with pytest.raises(StoreUnavailableError):
        world.open()
    others.pop().close()
    with world.open():
        pass
    for other in others:
        other.close()


def test_what_was_asked_for_cannot_be_guessed_from_the_database(world: World) -> None:
    """The rows name neither institution nor purpose nor attribute, nor a bare hash of them."""
    consent = world.grant()
    signed = world.request(consent)
    world.custodian.releases.release(signed)
    content = ["bank-1", consent, "loan-origination", ["credit_amount"]]
    bare = sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()
    dump = world.config.database.read_bytes() + world.config.database.with_name("ledger.db-wal").read_bytes()
    for clue in (bare, "loan-origination", "person-1"):
        assert clue.encode() not in dump


def test_every_refusal_of_a_consent_has_a_code_of_its_own() -> None:
    kinds = ConsentError.__subclasses__()
    assert len({kind.code for kind in kinds}) == len(kinds)


def test_a_custodian_is_not_another_one(world: World, tmp_path: Path) -> None:
    """A request to one custodian is no request to another that happens to know the same institution."""
    other = World(tmp_path / "other")
    other.custodian.close()
    other.config = replace(other.config, service_url="https://other.example")
    other.custodian = other.open()
    with other.custodian.store.begin() as tx:
        tx.execute(institutions.delete())
    world.institution.register(other.custodian)
    signed = world.request(world.grant())
    # The door of a service puts its own address before what it was asked for.
    forwarded = replace(signed, url=signed.url.replace(world.config.service_url, "https://other.example"))
    with pytest.raises(AuthenticationError):
        other.custodian.releases.release(forwarded)
    with pytest.raises(NotFoundError):
        other.custodian.releases.release(world.institution.sign(forwarded, at=world.clock()))
    assert other.states() == []
    other.custodian.close()
