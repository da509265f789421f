"""What only a broken or another contract does, planted into a history with every hash right: only a replay can tell.

Each violation names the codes of the findings that it must lead to. `SILENT` ones leave no event at all: the storage
alone has them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final

from histories import (
    ACCESSES,
    BY_CUSTODIAN,
    DAY,
    ENDED,
    EXPIRED,
    LATE,
    MAX_EMBARGO,
    NONE,
    REFUSALS,
    REVOKED,
    Story,
    Violation,
    word,
)

OUTSIDE: Final = frozenset({"recorded_outside_consent"})
BROKEN: Final = frozenset({"rule_broken"})
RECORDED: Final = ("AccessRecorded", NONE)


def _record(story: Story, consent_id: bytes, key: tuple[bytes, bytes] | None = None, *, kind: int = ACCESSES) -> None:
    """One batch in which that access is recorded, whatever the rules say; others around it as they should be."""
    around = story.accesses()[:3] if kind == ACCESSES else []
    place = story.rng.randint(0, len(around))
    batch = [*around[:place], (consent_id, story.rng.randbytes(32)), *around[place:]]
    # What the rules say can change within a batch, never to "in force": the twist is a lie in any case.
    story.books.append(kind, *(key or _log(story)), batch, twist={place: RECORDED})
    story.transact()


def _log(story: Story, number: int | None = None) -> tuple[bytes, bytes]:
    """A writer that may append; of the custodian with that number, if one is given."""
    logs = story.books.logs
    allowed = [key for key, log in logs.items() if log.allowed and number in (None, log.number)]
    if allowed:
        return story.rng.choice(allowed)
    custodians = [one for one, has in story.books.numbers.items() if number in (None, has)]
    key = story.rng.choice(custodians), story.rng.randbytes(20)
    story.books.set_writer(*key, allowed=True)
    return key


def _own_log(story: Story, consent_id: bytes) -> tuple[bytes, bytes]:
    return _log(story, story.books.words[consent_id] >> 160 & 0xFFFFFFFF)


def _in_force(story: Story) -> bytes:
    return story.new_consent(starts_in=-5, lasts=300 * DAY, max_accesses=50)


def after_revocation(story: Story) -> None:
    consent_id = _in_force(story)
    story.books.revoke([consent_id], story.books.subjects[consent_id])
    story.transact()
    _record(story, consent_id, _own_log(story, consent_id))


def revoked_before_its_grant(story: Story) -> None:
    consent_id = story.rng.randbytes(32)
    story.books.revoke([consent_id], story.rng.randbytes(20))
    story.transact()
    _record(story, consent_id)


def beyond_the_count(story: Story) -> None:
    consent_id = story.new_consent(starts_in=-5, lasts=300 * DAY, max_accesses=2)
    key = _own_log(story, consent_id)
    story.books.append(ACCESSES, *key, [(consent_id, story.rng.randbytes(32)) for _ in range(3)])
    story.transact()
    _record(story, consent_id, key)


def after_expiry(story: Story) -> None:
    consent_id = story.new_consent(starts_in=-DAY, lasts=DAY)
    story.transact()
    _record(story, consent_id, _own_log(story, consent_id))


def before_its_window(story: Story) -> None:
    consent_id = story.new_consent(starts_in=1, lasts=DAY)
    story.transact()
    _record(story, consent_id, _own_log(story, consent_id))


def while_paused(story: Story) -> None:
    consent_id = _in_force(story)
    story.books.set_paused(consent_id, 1, paused=True)
    story.transact()
    _record(story, consent_id, _own_log(story, consent_id))


def wrong_custodian(story: Story) -> None:
    consent_id = _in_force(story)
    stranger = story.rng.randbytes(20), story.rng.randbytes(20)
    story.books.set_writer(*stranger, allowed=True)
    story.transact()
    _record(story, consent_id, stranger)


def never_granted(story: Story) -> None:
    _record(story, story.rng.randbytes(32))


def late_recorded_after_revocation(story: Story) -> None:
    consent_id = _in_force(story)
    story.books.revoke([consent_id], story.books.custodians[consent_id])
    story.transact()
    _record(story, consent_id, _own_log(story, consent_id), kind=LATE)


def recorded_as_a_refusal(story: Story) -> None:
    consent_id = _in_force(story)
    story.transact()
    _record(story, consent_id, _own_log(story, consent_id), kind=REFUSALS)


def late(story: Story) -> None:
    """Nothing that the contract forbids: that it happened is the finding."""
    consent_id = _in_force(story)
    story.books.revoke([consent_id], story.books.subjects[consent_id])
    story.books.append(LATE, *_own_log(story, consent_id), [(consent_id, story.rng.randbytes(32))])
    story.transact()


def _twisted(story: Story, kind: int, event: str, reason: int) -> None:
    consent_id = _in_force(story)
    batch = [(consent_id, story.rng.randbytes(32)) for _ in range(story.rng.randint(1, 3))]
    story.books.append(kind, *_own_log(story, consent_id), batch, twist={len(batch) - 1: (event, reason)})
    story.transact()


def late_without_cause(story: Story) -> None:
    _twisted(story, LATE, "AccessLate", story.rng.choice((EXPIRED, REVOKED)))


def late_in_an_ordinary_batch(story: Story) -> None:
    _twisted(story, ACCESSES, "AccessLate", EXPIRED)


def refused_while_in_force(story: Story) -> None:
    _twisted(story, ACCESSES, "AccessRefused", story.rng.choice((EXPIRED, REVOKED, BY_CUSTODIAN)))


def refused_for_another_reason(story: Story) -> None:
    consent_id = _in_force(story)
    key = _own_log(story, consent_id)
    story.books.revoke([consent_id], story.books.subjects[consent_id])
    story.books.append(ACCESSES, *key, [(consent_id, story.rng.randbytes(32))], twist={0: ("AccessRefused", EXPIRED)})
    story.transact()


def _closed(story: Story, *, size: int = 0, head: bytes | None = None, kind: int | None = None) -> None:
    """A batch as it should be, but for its end."""
    key = story.any_log()
    story.books.append(ACCESSES, *key, story.accesses())
    story.books.emitted.pop()
    log = story.books.logs[key]
    story.books.close(ACCESSES if kind is None else kind, *key, log.size + size, head or log.head)
    story.transact()


def size_gap(story: Story) -> None:
    _closed(story, size=story.rng.choice((1, 7, 2**40)))


def wrong_head(story: Story) -> None:
    _closed(story, head=story.rng.randbytes(32))


def size_taken_back(story: Story) -> None:
    key = story.any_log()
    story.books.append(ACCESSES, *key, story.accesses())
    story.books.append(ACCESSES, *key, story.accesses()[:1])
    story.books.emitted.pop()
    log = story.books.logs[key]
    story.books.close(ACCESSES, *key, log.size - 1, log.head)
    story.transact()


def entry_without_event(story: Story) -> None:
    """Folded and counted, but told to nobody."""
    story.books.append(REFUSALS, *story.any_log(), story.accesses())
    place = next(at for at, log in enumerate(story.books.emitted) if len(log[1]) == 2 and len(log[2]) == 64)
    del story.books.emitted[place]
    story.transact()


def entries_swapped(story: Story) -> None:
    story.books.append(REFUSALS, *story.any_log(), [(story.rng.randbytes(32), story.rng.randbytes(32)) for _ in "ab"])
    events = story.books.emitted
    events[-3], events[-2] = events[-2], events[-3]
    story.transact()


def batch_never_closed(story: Story) -> None:
    logs = {key: (log.head, log.size) for key, log in story.books.logs.items()}
    key = _log(story)
    story.books.append(REFUSALS, *key, story.accesses())
    story.books.emitted.pop()
    log = story.books.logs[key]
    log.head, log.size = logs.get(key, (bytes(32), 0))
    story.books.put_log(*key)
    story.transact()


def writer_that_was_not_allowed(story: Story) -> None:
    key = _log(story)
    story.books.set_writer(*key, allowed=False)
    story.transact()
    story.books.append(REFUSALS, *key, story.accesses())
    story.transact()


def batch_of_nothing(story: Story) -> None:
    story.books.append(ACCESSES, *story.any_log(), [])
    story.transact()


def embargo_too_long(story: Story) -> None:
    until = story.now + MAX_EMBARGO + story.rng.choice((1, DAY))
    story.books.append_compelled(*story.any_log(), story.rng.randbytes(32), until, [story.rng.randbytes(32)])
    story.transact()


def granted_again(story: Story) -> None:
    consent_id = _in_force(story)
    subject, custodian = story.books.subjects[consent_id], story.books.custodians[consent_id]
    story.books.grant(consent_id, subject, custodian, (story.now, story.now + DAY), 9)
    story.transact()


def granted_after_revocation(story: Story) -> None:
    consent_id, subject = story.rng.randbytes(32), story.rng.randbytes(20)
    story.books.revoke([consent_id], subject)
    story.books.grant(consent_id, subject, story.custodians[0], (story.now, story.now + DAY), 9)
    story.transact()


def window_of_nothing(story: Story) -> None:
    story.new_consent(starts_in=0, lasts=story.rng.choice((0, -5)))
    story.transact()


def no_access_allowed(story: Story) -> None:
    story.new_consent(max_accesses=0)
    story.transact()


def revoked_by_a_stranger(story: Story) -> None:
    story.books.revoke([_in_force(story)], story.rng.randbytes(20))
    story.transact()


def revoked_twice(story: Story) -> None:
    consent_id = _in_force(story)
    story.books.revoke([consent_id], story.books.subjects[consent_id])
    story.books.emitted.append(story.books.emitted[-1])
    story.transact()


def pause_that_is_not_newer(story: Story) -> None:
    consent_id = _in_force(story)
    story.books.set_paused(consent_id, 5, paused=True)
    story.books.set_paused(consent_id, story.rng.choice((5, 4)), paused=False)
    story.transact()


def number_skipped(story: Story) -> None:
    custodian = story.rng.randbytes(20)
    given = max(story.books.numbers.values()) + 2
    story.books.put_number(custodian, given)
    story.books.emit("CustodianNumbered", (custodian,), given)
    story.transact()


def unknown_event(story: Story) -> None:
    topics = tuple(story.rng.randbytes(32) for _ in range(story.rng.randint(1, 4)))
    story.books.emitted.append((story.books.contract, topics, story.rng.randbytes(32)))
    story.transact()


def nameless_event(story: Story) -> None:
    story.books.emitted.append((story.books.contract, (), story.rng.randbytes(32)))
    story.transact()


def silent_use(story: Story) -> None:
    consent_id = _in_force(story)
    story.books.put_consent(consent_id, story.books.words[consent_id] + (1 << 128))
    story.transact()


def silent_revocation(story: Story) -> None:
    consent_id = _in_force(story)
    story.transact()
    story.books.put_consent(consent_id, story.books.words[consent_id] & (1 << 224) - 1 | ENDED << 224)
    del story.books.words[consent_id]  # nothing more happens to it, so that no event tells
    story.idle()


def silent_grant(story: Story) -> None:
    consent_id = _in_force(story)
    story.books.emitted.pop()
    del story.books.words[consent_id], story.books.subjects[consent_id], story.books.custodians[consent_id]
    story.transact()


def silent_writer(story: Story) -> None:
    key = story.custodians[0], story.rng.randbytes(20)
    story.books.set_writer(*key, allowed=True)
    story.books.emitted.pop()
    del story.books.logs[key]
    story.transact()


def silent_slot(story: Story) -> None:
    story.books.put(story.rng.choice((word(0), word(6), story.rng.randbytes(32))), story.rng.getrandbits(255) + 1)
    story.idle()


def other_code(story: Story) -> None:
    changed = bytearray(story.code)
    changed[story.rng.randrange(len(changed))] ^= 1 << story.rng.randrange(8)
    story.code = story.miner.code = story.history.code = bytes(changed)
    story.idle()


STATE: Final = frozenset({"state_differs"})
VERDICT: Final = frozenset({"verdict_differs"})
GAP: Final = frozenset({"log_gap"})
HEAD: Final = frozenset({"log_head_differs"})
_PLANTS: Final[Sequence[tuple[Callable[[Story], None], frozenset[str]]]] = (
    *((after_revocation, OUTSIDE), (revoked_before_its_grant, OUTSIDE), (beyond_the_count, OUTSIDE)),
    *((after_expiry, OUTSIDE), (before_its_window, OUTSIDE), (while_paused, OUTSIDE), (wrong_custodian, OUTSIDE)),
    *((never_granted, OUTSIDE), (late_recorded_after_revocation, OUTSIDE), (recorded_as_a_refusal, OUTSIDE)),
    *((late, frozenset({"late"})), (late_without_cause, VERDICT | {"late"})),
    *((late_in_an_ordinary_batch, VERDICT | {"late"}), (refused_while_in_force, VERDICT)),
    *((refused_for_another_reason, VERDICT), (size_gap, GAP), (size_taken_back, GAP), (wrong_head, HEAD)),
    *((entry_without_event, GAP | HEAD), (entries_swapped, HEAD), (batch_never_closed, GAP)),
    *((writer_that_was_not_allowed, frozenset({"writer_not_allowed"})), (batch_of_nothing, BROKEN)),
    *((embargo_too_long, BROKEN), (granted_again, BROKEN), (granted_after_revocation, BROKEN)),
    *((window_of_nothing, BROKEN), (no_access_allowed, BROKEN), (revoked_by_a_stranger, BROKEN)),
    *((revoked_twice, BROKEN), (pause_that_is_not_newer, BROKEN), (number_skipped, BROKEN)),
    *((unknown_event, frozenset({"unknown_event"})), (nameless_event, frozenset({"unknown_event"}))),
    *((silent_use, STATE), (silent_revocation, STATE), (silent_grant, STATE), (silent_writer, STATE)),
    *((silent_slot, STATE), (other_code, frozenset({"code_differs"}))),
)
VIOLATIONS: Final[dict[str, Violation]] = {plant.__name__: (plant.__name__, codes, plant) for plant, codes in _PLANTS}


def some_of_them(seed: int) -> list[Violation]:
    """One to three violations."""
    rng = random.Random(seed)
    return rng.sample(list(VIOLATIONS.values()), rng.choice((1, 1, 1, 2, 3)))
