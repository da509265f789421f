"""The service told to stop, and killed, in mid-release: who was read is answered, and nothing is lost or done twice."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from live import NO_ANSWER, Live, WireAnswer, workers_of

from ledger.consent import Hex32
from ledger.devnet import Devnet

pytestmark = [pytest.mark.devnet, pytest.mark.slow]

AT_ONCE = 40
LATER = 20


@pytest.fixture
def live(devnet: Devnet, data: Path) -> Live:
    return Live(devnet, data)


class Crowd:
    """Many who ask at once for one release each, and some who come later."""

    def __init__(self, live: Live, consents: list[Hex32]) -> None:
        self._live, self.answers = live, dict.fromkeys(consents, NO_ANSWER)
        self._first = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(consent, max(0, number - AT_ONCE)))
            for number, consent in enumerate(consents)
        ]

    def _ask(self, consent: Hex32, wait: int) -> None:
        if wait:
            self._first.wait()
            time.sleep(wait * 0.01)
        self.answers[consent] = self._live.ask(self._live.asking(consent, f"key-{consent}"))
        if self.answers[consent].status:
            self._first.set()

    def ask(self) -> None:
        """Returns when the first one has been answered, and the others have not."""
        for thread in self._threads:
            thread.start()
        assert self._first.wait(60)

    def wait(self) -> dict[Hex32, WireAnswer]:
        """Everyone's answer, once they all have one or know that there is none."""
        for thread in self._threads:
            thread.join()
        return self.answers


def recorded(live: Live, consents: list[Hex32]) -> list[Hex32]:
    """The consents of all entries on the chain, as often as they have one."""
    return sorted(event.args[0] for event in live.events("AccessRecorded", consents))


def test_told_to_stop_it_answers_what_it_has_read_and_refuses_the_rest_unread(live: Live) -> None:
    consents = live.consents(AT_ONCE + LATER)
    with live.running() as service:
        crowd = Crowd(live, consents)
        crowd.ask()
        os.kill(service, signal.SIGTERM)
        answers = crowd.wait()
    answered = [consent for consent, answer in answers.items() if answer is not NO_ANSWER]
    assert {answers[consent].status for consent in answered} == {200}
    assert len(answered) > 1
    # Who got no answer left no trace: nothing was begun for them.
    assert recorded(live, consents) == sorted(answered)
    with live.running():
        for consent in consents:
            again = live.ask(live.asking(consent, f"key-{consent}"))
            assert again.status == 200
            assert consent not in answered or again.body == answers[consent].body
    assert recorded(live, consents) == sorted(consents)


def until_released(live: Live, consent: Hex32) -> WireAnswer:
    """A client's retries, signed anew each time, under the same key."""
    deadline = time.monotonic() + 60
    while True:
        answer = live.ask(live.asking(consent, f"key-{consent}"))
        if answer.status == 200 or time.monotonic() > deadline:
            return answer
        assert answer.status in (0, 409, 503), answer
        time.sleep(0.05)


def test_one_worker_killed_in_mid_release_leaves_the_others_at_work_and_nothing_undone(live: Live) -> None:
    consents = live.consents(AT_ONCE)
    with live.running() as service:
        crowd = Crowd(live, consents)
        crowd.ask()
        os.kill(workers_of(service)[0], signal.SIGKILL)
        answers = crowd.wait()
        # Some were with the one that was killed; the others were answered.
        assert {answer.status for answer in answers.values()} <= {0, 200}
        for consent in consents:
            again = until_released(live, consent)
            assert again.status == 200, again
            assert answers[consent] is NO_ANSWER or again.body == answers[consent].body
        assert recorded(live, consents) == sorted(consents)
