"""Gathering: nobody waits for company, nobody waits for ever, and everybody gets their own result."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Final

import pytest

from ledger.gather import Gather

PATIENCE: Final = 20.0


class Rounds:
    """A call that doubles its items, and can be held up so that others gather behind it."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.items: list[int] = []
        self.threads: list[int] = []
        self.at_once = 0
        self.most_at_once = 0
        self.entered = threading.Semaphore(0)
        self.gate = threading.Event()
        self.gate.set()
        self.fault: BaseException | None = None

    def __call__(self, items: Sequence[int]) -> list[int | Exception]:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.sizes.append(len(items))
        self.items += items
        self.threads.append(threading.get_ident())
        self.entered.release()
        assert self.gate.wait(PATIENCE)
        self.at_once -= 1
        if self.fault:
            raise self.fault
        return [ValueError(item) if item < 0 else 2 * item for item in items]


def waiting(gather: Gather[int, int]) -> int:
    return len(gather._waiting)


def until(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(int(PATIENCE / 0.002)):
        if condition():
            return
        pause.wait(0.002)
    pytest.fail("nothing happened")


def behind(
    rounds: Rounds, gather: Gather[int, int], pool: ThreadPoolExecutor, items: Sequence[int]
) -> list[Future[int]]:
    """One caller in a round that is held up, the others waiting behind it in order."""
    rounds.gate.clear()
    futures = [pool.submit(gather, 0)]
    assert rounds.entered.acquire(timeout=PATIENCE)
    for number, item in enumerate(items, start=1):
        futures.append(pool.submit(gather, item))
        until(lambda number=number: waiting(gather) == number)  # type: ignore[misc]
    return futures


def test_a_lone_caller_runs_at_once_in_its_own_thread() -> None:
    rounds = Rounds()
    gather = Gather(rounds)
    assert [gather(item) for item in (1, 2, 3)] == [2, 4, 6]
    assert rounds.sizes == [1, 1, 1]
    assert set(rounds.threads) == {threading.get_ident()}


def test_who_comes_while_a_call_is_in_flight_shares_the_next_one() -> None:
    rounds = Rounds()
    gather = Gather(rounds)
    with ThreadPoolExecutor(8) as pool:
        futures = behind(rounds, gather, pool, [1, 2, 3, 4, 5])
        rounds.gate.set()
        assert [future.result(PATIENCE) for future in futures] == [0, 2, 4, 6, 8, 10]
    assert rounds.sizes == [1, 5]
    assert rounds.items == [0, 1, 2, 3, 4, 5]


def test_a_round_takes_no_more_than_the_limit_and_the_oldest_first() -> None:
    rounds = Rounds()
    gather = Gather(rounds, limit=2)
    with ThreadPoolExecutor(8) as pool:
        futures = behind(rounds, gather, pool, [1, 2, 3, 4, 5])
        rounds.gate.set()
        assert [future.result(PATIENCE) for future in futures] == [0, 2, 4, 6, 8, 10]
    assert rounds.sizes == [1, 2, 2, 1]
    assert rounds.items == [0, 1, 2, 3, 4, 5]


def test_the_next_round_is_led_by_one_of_those_who_are_in_it() -> None:
    rounds = Rounds()
    gather = Gather(rounds)
    with ThreadPoolExecutor(8) as pool:
        futures = behind(rounds, gather, pool, [1, 2])
        rounds.gate.set()
        for future in futures:
            future.result(PATIENCE)
    # The first leader is answered and gone: it does not work for those who came after it.
    assert rounds.threads[0] != rounds.threads[1]


def test_an_error_is_everybodys_who_was_in_the_round_and_nobody_elses() -> None:
    rounds = Rounds()
    gather = Gather(rounds)
    with ThreadPoolExecutor(8) as pool:
        futures = behind(rounds, gather, pool, [1, 2, 3])
        fault = RuntimeError("the call failed")
        rounds.fault = fault
        rounds.gate.set()
        assert [future.exception(PATIENCE) for future in futures] == [fault] * 4
    rounds.fault = None
    assert gather(7) == 14


def test_an_error_of_one_item_is_raised_to_its_own_caller_only() -> None:
    rounds = Rounds()
    gather = Gather(rounds)
    with ThreadPoolExecutor(8) as pool:
        futures = behind(rounds, gather, pool, [1, -2, 3])
        rounds.gate.set()
        errors = [future.exception(PATIENCE) for future in futures]
    assert [type(error) for error in errors] == [type(None), type(None), ValueError, type(None)]
    assert str(errors[2]) == "-2"
    assert [future.result() for at, future in enumerate(futures) if at != 2] == [0, 2, 6]


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), SystemExit(1)])
def test_an_interrupted_leader_takes_nobody_down_with_it_in_silence(fault: BaseException) -> None:
    rounds = Rounds()
    rounds.fault = fault
    gather = Gather(rounds)
    with pytest.raises(type(fault)):
        gather(1)
    rounds.fault = None
    assert gather(2) == 4


# ---------------------------------------------------------------------------------------------- several of one caller


def test_several_of_one_caller_share_a_round_and_have_each_its_result_in_its_place() -> None:
    rounds = Rounds()
    results = Gather(rounds).all([1, -2, 3])
    assert [str(result) for result in results] == ["2", "-2", "6"]
    assert isinstance(results[1], ValueError)
    assert rounds.sizes == [3]


def test_nothing_is_no_round() -> None:
    rounds = Rounds()
    gather = Gather(rounds)
    assert gather.all([]) == []
    assert rounds.sizes == []
    assert gather(1) == 2


def test_more_than_the_limit_of_one_caller_take_several_rounds() -> None:
    rounds = Rounds()
    gather = Gather(rounds, limit=2)
    assert gather.all([1, 2, 3, 4, 5]) == [2, 4, 6, 8, 10]
    assert rounds.sizes == [2, 2, 1]
    assert gather(6) == 12


def test_an_error_of_one_round_is_not_the_error_of_the_next() -> None:
    def run(items: Sequence[int]) -> list[int]:
        if 1 in items:
            raise LookupError
        return [2 * item for item in items]

    results = Gather(run, limit=2).all([1, 2, 3])
    assert [type(result) for result in results] == [LookupError, LookupError, int]


def test_several_of_many_callers_are_answered_in_the_order_in_which_they_came() -> None:
    rounds = Rounds()
    gather = Gather(rounds, limit=2)
    with ThreadPoolExecutor(4) as pool:
        (first,) = behind(rounds, gather, pool, [])
        many = pool.submit(gather.all, [1, 2, 3])
        until(lambda: waiting(gather) == 3)
        others = pool.submit(gather.all, [4, 5])
        until(lambda: waiting(gather) == 5)
        rounds.gate.set()
        assert first.result(PATIENCE) == 0
        assert many.result(PATIENCE) == [2, 4, 6]
        assert others.result(PATIENCE) == [8, 10]
    assert (rounds.sizes, rounds.items) == ([1, 2, 2, 1], [0, 1, 2, 3, 4, 5])


class Turns:
    """Takes the place of `threading` in `ledger.gather`: the impatient caller is interrupted as it waits for its turn.

    It is when the test says so, or `at_its_turn`: it is told that it is its turn, and does not take it.
    """

    def __init__(self, *, at_its_turn: bool = False) -> None:
        self.interrupted = threading.Event()
        turns = self

        class Turn(threading.Event):
            def wait(self, timeout: float | None = None) -> bool:
                assert timeout is None
                until(lambda: self.is_set() or turns.interrupted.is_set())
                is_impatient = threading.current_thread().name == "impatient"
                if is_impatient and (turns.interrupted.is_set() or at_its_turn):
                    raise KeyboardInterrupt
                return super().wait(PATIENCE)

        self.as_module = SimpleNamespace(
            Event=Turn, Lock=threading.Lock, Condition=threading.Condition, local=threading.local
        )


def impatient(
    gather: Gather[int, int], items: Sequence[int], *, near: bool = False
) -> tuple[threading.Thread, list[BaseException]]:
    """A caller in a thread of its own, and what was raised to it."""
    raised: list[BaseException] = []

    def call() -> None:
        try:
            with gather.near() if near else nullcontext():
                gather.all(items)
        except KeyboardInterrupt as exc:
            raised.append(exc)

    thread = threading.Thread(target=call, name="impatient")
    thread.start()
    return thread, raised


def test_a_caller_that_is_interrupted_while_it_waits_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    turns, rounds = Turns(), Rounds()
    monkeypatch.setattr("ledger.gather.threading", turns.as_module)
    gather = Gather(rounds)
    with ThreadPoolExecutor(4) as pool:
        (first,) = behind(rounds, gather, pool, [])
        thread, raised = impatient(gather, [1, 2])
        until(lambda: waiting(gather) == 2)
        other = pool.submit(gather, 3)
        until(lambda: waiting(gather) == 3)
        turns.interrupted.set()
        thread.join(PATIENCE)
        assert waiting(gather) == 1
        rounds.gate.set()
        assert (first.result(PATIENCE), other.result(PATIENCE)) == (0, 6)
    assert [type(exc) for exc in raised] == [KeyboardInterrupt]
    assert rounds.items == [0, 3]


def test_a_caller_that_is_interrupted_as_it_is_to_lead_hands_over(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = Rounds()
    monkeypatch.setattr("ledger.gather.threading", Turns(at_its_turn=True).as_module)
    gather = Gather(rounds)
    with ThreadPoolExecutor(4) as pool:
        (first,) = behind(rounds, gather, pool, [])
        thread, raised = impatient(gather, [1, 2])
        until(lambda: waiting(gather) == 2)
        other = pool.submit(gather, 3)
        until(lambda: waiting(gather) == 3)
        rounds.gate.set()
        assert (first.result(PATIENCE), other.result(PATIENCE)) == (0, 6)
        thread.join(PATIENCE)
    assert [type(exc) for exc in raised] == [KeyboardInterrupt]
    assert gather(4) == 8
    assert rounds.items == [0, 3, 4]


def test_a_leader_that_is_interrupted_in_its_first_round_leaves_nothing_in_the_way() -> None:
    rounds = Rounds()
    rounds.fault = KeyboardInterrupt()
    gather = Gather(rounds, limit=2)
    with pytest.raises(KeyboardInterrupt):
        gather.all([1, 2, 3, 4, 5])
    rounds.fault = None
    assert waiting(gather) == 0
    assert gather(6) == 12
    assert rounds.items == [1, 2, 6]


# ------------------------------------------------------------------------------------------------------- who is near


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is waited for must come: the time after which a call goes without it is longer than a test may take."""
    monkeypatch.setattr("ledger.gather.PATIENCE_SECONDS", 3 * PATIENCE)
    monkeypatch.setattr("ledger.gather.LINGER_SECONDS", 3 * PATIENCE)


@pytest.mark.usefixtures("patient")
def test_a_lone_caller_that_is_near_does_not_wait_for_company() -> None:
    rounds = Rounds()
    gather = Gather(rounds)
    for item in (1, 2):
        with gather.near():
            assert gather(item) == 2 * item
    assert rounds.sizes == [1, 1]


@pytest.mark.usefixtures("patient")
def test_a_call_waits_for_who_is_near_and_has_not_handed_in_yet() -> None:
    rounds = Rounds()
    gather = Gather(rounds)
    handed_in = threading.Event()

    def second() -> int:
        with gather.near():
            handed_in.set()
            # The first can hand in, but not start: this one is near, and computes.
            until(lambda: gather._near == 2)
            return gather(2)

    def first() -> int:
        assert handed_in.wait(PATIENCE)
        with gather.near():
            return gather(1)

    with ThreadPoolExecutor(2) as pool:
        assert [future.result(PATIENCE) for future in [pool.submit(second), pool.submit(first)]] == [4, 2]
    assert rounds.sizes == [2]


def test_who_is_near_and_hands_nothing_in_delays_a_call_only_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.gather.PATIENCE_SECONDS", 0.01)
    gather = Gather(Rounds())
    with gather.near(), ThreadPoolExecutor(1) as pool:
        assert pool.submit(gather, 4).result(PATIENCE) == 8


@pytest.mark.usefixtures("patient")
def test_who_waits_for_something_else_is_not_waited_for_and_lets_others_compute() -> None:
    gather = Gather(Rounds())

    def other() -> int:
        with gather.near():
            return gather(4)

    with gather.near(), gather.aside(), ThreadPoolExecutor(1) as pool:
        assert pool.submit(other).result(PATIENCE) == 8
    with gather.aside():
        assert gather(5) == 10


def test_who_was_answered_is_near_at_once_and_not_only_when_its_thread_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    may_run = threading.Event()

    class Turn(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            is_mine = super().wait(timeout or PATIENCE)
            assert threading.current_thread().name != "slow" or may_run.wait(PATIENCE)
            return is_mine

    kept = SimpleNamespace(Event=Turn, Lock=threading.Lock, Condition=threading.Condition, local=threading.local)
    monkeypatch.setattr("ledger.gather.threading", kept)
    rounds = Rounds()
    gather = Gather(rounds)
    slow = threading.Thread(target=behind_in, args=(gather,), name="slow")
    with ThreadPoolExecutor(2) as pool:
        first, second = behind(rounds, gather, pool, [1])
        slow.start()
        until(lambda: waiting(gather) == 2 and gather._near == 0)
        rounds.gate.set()
        assert (first.result(PATIENCE), second.result(PATIENCE)) == (0, 2)
    assert gather._near == 1
    may_run.set()
    slow.join(PATIENCE)
    assert gather._near == 0
    assert rounds.sizes == [1, 2]


def behind_in(gather: Gather[int, int]) -> None:
    with gather.near():
        gather(2)


def test_of_those_that_are_near_one_at_a_time_computes() -> None:
    rounds = Rounds()
    gather = Gather(rounds)
    at_once, most = 0, 0

    def caller(number: int) -> int:
        nonlocal at_once, most
        answer = 0
        for _ in range(50):
            with gather.near():
                for step in range(2):
                    at_once += 1
                    most = max(most, at_once)
                    threading.Event().wait(0.0001)
                    at_once -= 1
                    if step == 0:
                        answer = gather(number)
        return answer

    with ThreadPoolExecutor(8) as pool:
        assert [future.result(60) for future in [pool.submit(caller, number) for number in range(8)]] == [
            2 * number for number in range(8)
        ]
    assert most == 1
    assert gather._near == 0


def test_of_those_that_were_answered_one_at_a_time_is_woken_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    woken: list[str] = []

    class Turn(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            is_mine = super().wait(timeout or PATIENCE)
            woken.append(threading.current_thread().name)
            return is_mine

    kept = SimpleNamespace(Event=Turn, Lock=threading.Lock, Condition=threading.Condition, local=threading.local)
    monkeypatch.setattr("ledger.gather.threading", kept)
    monkeypatch.setattr("ledger.gather.LINGER_SECONDS", 0.0)
    rounds = Rounds()
    gather = Gather(rounds)
    threads = [threading.Thread(target=behind_in, args=(gather,), name=str(number)) for number in range(1, 6)]
    with ThreadPoolExecutor(1) as pool:
        (first,) = behind(rounds, gather, pool, [])
        for number, thread in enumerate(threads, start=1):
            thread.start()
            until(lambda number=number: waiting(gather) == number and gather._near == 0)  # type: ignore[misc]
        with gather.near():
            rounds.gate.set()
            first.result(PATIENCE)
            # The leader of the five waits for who is near, and no longer than that.
            until(lambda: len(rounds.sizes) == 2 and gather._near == 6)
            threading.Event().wait(0.02)
            assert woken == ["1"]
        for thread in threads:
            thread.join(PATIENCE)
    assert rounds.sizes == [1, 5]
    # The first of them led, and waits for its turn like the others.
    assert woken == ["1", "1", "2", "3", "4", "5"]
    assert gather._near == 0


@pytest.mark.usefixtures("patient")
def test_two_groups_of_callers_that_come_back_are_one_from_then_on() -> None:
    rounds = Rounds()
    gather = Gather(rounds)

    def ask(times: int) -> None:
        for _ in range(times):
            with gather.near():
                gather(1)
            # On its way to the client and back, it is not near.
            threading.Event().wait(0.05)

    rounds.gate.clear()
    with ThreadPoolExecutor(3) as pool:
        asking = [pool.submit(ask, 2)]
        assert rounds.entered.acquire(timeout=PATIENCE)
        asking += [pool.submit(ask, 1) for _ in range(2)]
        until(lambda: waiting(gather) == 2)
        rounds.gate.set()
        for each in asking:
            each.result(PATIENCE)
    # The first asks again, so the two who wait at its answer have it with them.
    assert rounds.sizes == [1, 3]


def test_what_goes_wrong_while_near_leaves_nobody_near() -> None:
    gather = Gather(Rounds())
    with pytest.raises(ZeroDivisionError), gather.near():
        raise ZeroDivisionError
    with pytest.raises(ValueError, match="-3"), gather.near():
        gather(-3)
    assert gather._near == 0
    with gather.near():
        assert gather(1) == 2


def test_a_caller_that_is_interrupted_while_near_is_not_counted_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    turns, rounds = Turns(), Rounds()
    monkeypatch.setattr("ledger.gather.threading", turns.as_module)
    gather = Gather(rounds)
    with ThreadPoolExecutor(2) as pool:
        (first,) = behind(rounds, gather, pool, [])
        thread, raised = impatient(gather, [1, 2], near=True)
        until(lambda: waiting(gather) == 2)
        turns.interrupted.set()
        thread.join(PATIENCE)
        rounds.gate.set()
        assert first.result(PATIENCE) == 0
    assert [type(exc) for exc in raised] == [KeyboardInterrupt]
    assert gather._near == 0


# ----------------------------------------------------------------------------------------------------- what is nobody's


@pytest.mark.parametrize("results", [[], [1], [1, 2, 3]])
def test_results_that_are_not_as_many_as_the_items_are_nobodys(results: list[int]) -> None:
    # Zipped with the items, they would be somebody else's.
    gate = threading.Event()
    rounds: list[Sequence[int]] = []

    def run(items: Sequence[int]) -> list[int]:
        rounds.append(items)
        assert gate.wait(PATIENCE)
        return [0] if len(items) == 1 and items[0] == 0 else results

    gather = Gather(run)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(gather, 0)
        until(lambda: len(rounds) == 1)
        others = [pool.submit(gather, item) for item in (1, 2)]
        until(lambda: len(gather._waiting) == 2)
        gate.set()
        assert first.result(PATIENCE) == 0
        assert [type(future.exception(PATIENCE)) for future in others] == [ValueError, ValueError]


def test_64_threads_with_200_calls_each_are_all_answered_with_their_own_result() -> None:
    rounds = Rounds()
    gather = Gather(rounds, limit=50)
    together = threading.Barrier(64)

    def caller(thread: int) -> list[int]:
        together.wait(PATIENCE)
        return [gather(1000 * thread + call) for call in range(200)]

    with ThreadPoolExecutor(64) as pool:
        answers = [future.result(60) for future in [pool.submit(caller, thread) for thread in range(64)]]
    assert answers == [[2 * (1000 * thread + call) for call in range(200)] for thread in range(64)]
    assert rounds.most_at_once == 1
    assert max(rounds.sizes) <= 50
    assert sorted(rounds.items) == sorted(1000 * thread + call for thread in range(64) for call in range(200))
    assert waiting(gather) == 0
    # And the calls of one caller are made in the order in which it made them.
    for thread in range(64):
        mine = [item for item in rounds.items if item // 1000 == thread]
        assert mine == sorted(mine)
