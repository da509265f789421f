"""Gathering: callers that arrive while a call is in flight wait together and share the next one.

The first caller runs at once (no timer, so a lone caller never waits for company); whoever arrives meanwhile is
answered by one call for all of them, run by the first of them. It is group commit (DeWitt et al., SIGMOD 1984, §5.2) as
a function: the same shape serves appending to the log, asking for statuses and committing to the database.

What surrounds a call can say so (`near`). A call that is about to start then waits a moment for those that are near:
they are about to hand something in, or to answer who may ask again. And of all that are near one at a time computes:
more threads than that only take the interpreter from each other, and from the call.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

PATIENCE_SECONDS: Final = 0.3
"""How long a call waits for those that are near, at most: more than a few dozen of them take on a slow machine."""
LINGER_SECONDS: Final = 0.004
"""And for those of the last round to ask again, about what they need for it. Whoever was alone in it does not wait."""


class _Ticket(Generic[T, R]):
    __slots__ = ("comes_back", "done", "error", "item", "leads", "result", "turn")

    def __init__(self, item: T) -> None:
        self.item = item
        # Whether its caller is near again once it is answered, and is not counted as such yet.
        self.comes_back = False
        self.turn = threading.Event()
        self.leads = False
        self.done = False
        self.result: R | None = None
        self.error: BaseException | None = None


class Gather(Generic[T, R]):
    """Calls `run` with what has gathered, never twice at the same time, at most `limit` items at once.

    `run` returns one result for each item, in order. What it raises, every caller of that round gets; a result that is
    an exception is raised to its own caller only.
    """

    def __init__(self, run: Callable[[Sequence[T]], Sequence[R | Exception]], *, limit: int = 200) -> None:
        self._run = run
        self._limit = limit
        self._lock = threading.Lock()
        self._waiting: deque[_Ticket[T, R]] = deque()
        self._busy = False
        self._near, self._expected = 0, 1
        self._nobody_is_near = threading.Condition(self._lock)
        # Whether one of those that are near computes, and the turns of those that wait for it: it wakes the next one.
        self._computes = False
        self._to_compute: deque[threading.Event] = deque()
        self._this_thread = threading.local()

    @contextmanager
    def near(self) -> Iterator[None]:
        """Around a call and the work before and after it, in which nothing is waited for but the call (or `aside`)."""
        try:
            self._come_near()
            yield
        finally:
            self._go_away()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Around waiting for something else within `near`."""
        if not getattr(self._this_thread, "computes", False):
            yield
            return
        self._go_away()
        try:
            yield
        finally:
            self._come_near()

    def _come_near(self) -> None:
        turn = threading.Event()
        with self._lock:
            self._count_in(turn)
        self._compute(turn)

    def _go_away(self) -> None:
        with self._lock:
            if getattr(self._this_thread, "computes", False):
                self._this_thread.computes = False
                self._let_next_compute()
            self._near -= 1
            if not self._near:
                self._nobody_is_near.notify()

    def _line_up(self, turn: threading.Event) -> None:
        if self._computes:
            self._to_compute.append(turn)
        else:
            self._computes = True
            turn.set()

    def _let_next_compute(self) -> None:
        if self._to_compute:
            self._to_compute.popleft().set()
        else:
            self._computes = False

    def _compute(self, turn: threading.Event) -> None:
        """Wait for the turn to compute. Only who has it is woken: all at once would stand in each other's way."""
        try:
            if not turn.is_set():
                turn.wait()
        except BaseException:
            with self._lock:
                if turn in self._to_compute:
                    self._to_compute.remove(turn)
                else:
                    self._let_next_compute()
            raise
        self._this_thread.computes = True

    def __call__(self, item: T) -> R:
        """Hand in one item and wait for its result."""
        (result,) = self.all([item])
        if isinstance(result, Exception):
            raise result
        return result

    def all(self, items: Sequence[T]) -> list[R | Exception]:
        """Hand in several and wait for all; what one of them raised stands in its place."""
        tickets: list[_Ticket[T, R]] = [_Ticket(item) for item in items]
        if not tickets:
            return []
        with self._lock:
            self._waiting.extend(tickets)
            tickets[0].leads, self._busy = not self._busy, True
        if not getattr(self._this_thread, "computes", False):
            self._wait_for(tickets)
        else:
            self._wait_away(tickets)
        return [ticket.error or ticket.result for ticket in tickets]  # type: ignore[misc] # set by its round

    def _wait_away(self, tickets: Sequence[_Ticket[T, R]]) -> None:
        """Away from those that are near; back among them at the moment of the answer, not only when the thread runs."""
        last = tickets[-1]
        last.comes_back = True
        self._go_away()
        try:
            self._wait_for(tickets)
        finally:
            with self._lock:
                turn = last.turn
                if last.comes_back:
                    # Interrupted: whatever becomes of the ticket, its turn is not this one.
                    turn, last.comes_back = threading.Event(), False
                    self._count_in(turn)
            self._compute(turn)

    def _count_in(self, turn: threading.Event) -> None:
        self._near += 1
        self._line_up(turn)

    def _wait_for(self, tickets: Sequence[_Ticket[T, R]]) -> None:
        for number, ticket in enumerate(tickets):
            if not ticket.leads:
                try:
                    ticket.turn.wait()
                except BaseException:
                    # Interrupted while waiting: whoever comes after must not wait for these.
                    self._leave(tickets[number:])
                    raise
            if ticket.leads:
                self._lead()
            if ticket.error is not None and not isinstance(ticket.error, Exception):
                self._leave(tickets[number + 1 :])
                raise ticket.error

    def _leave(self, tickets: Sequence[_Ticket[T, R]]) -> None:
        with self._lock:
            for ticket in tickets:
                if ticket in self._waiting:
                    self._waiting.remove(ticket)
        if any(ticket.leads and not ticket.done for ticket in tickets):
            self._hand_over()

    def _lead(self) -> None:
        # The leader's own ticket is the oldest, so it is always in the round.
        with self._lock:
            if self._nobody_is_near.wait_for(lambda: self._is_worth_starting(1), PATIENCE_SECONDS):
                self._nobody_is_near.wait_for(lambda: self._is_worth_starting(self._expected), LINGER_SECONDS)
            tickets = [self._waiting.popleft() for _ in range(min(self._limit, len(self._waiting)))]
        try:
            results = self._run([ticket.item for ticket in tickets])
            for ticket, result in zip(tickets, results, strict=True):
                if isinstance(result, Exception):
                    ticket.error = result
                else:
                    ticket.result = result
        except BaseException as exc:  # noqa: BLE001 - handed to everyone who waits for it
            for ticket in tickets:
                ticket.error = exc
        finally:
            # They first, so that they are near when the next one looks.
            with self._lock:
                back = [ticket for ticket in tickets if ticket.comes_back]
                self._expected = max(len(tickets), len(back) + len(self._waiting))
                for ticket in tickets:
                    ticket.done = True
                    if not ticket.comes_back:
                        ticket.turn.set()
                for ticket in back:
                    # It is woken when it is its turn to compute, not before.
                    ticket.comes_back = False
                    ticket.turn = threading.Event() if ticket.leads else ticket.turn
                    self._count_in(ticket.turn)
            self._hand_over()

    def _is_worth_starting(self, enough: int) -> bool:
        return len(self._waiting) >= self._limit or (self._near == 0 and len(self._waiting) >= enough)

    def _hand_over(self) -> None:
        with self._lock:
            if self._waiting:
                successor = self._waiting[0]
                successor.leads = True
                successor.turn.set()
            else:
                self._busy = False
