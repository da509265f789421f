"""Whether a consent's daily limit held, as far as it can be known afterwards. Pure.

A limit counts by the UTC day on which the custodian judged the request, and that time is on no chain. It is bounded:
by the institution's signature, which names when it was made and was taken for a few minutes only; for an access that
was not opened by its block, which came after it. So each access has the days on which it may have been counted:

- a limit is broken if the opened accesses fit on their days in no way at all;
- it held if no day could have had too many, whatever day each was counted on; or if all are opened, and fit;
- otherwise nobody can say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ledger.json_forms import DAY_SECONDS
from ledger.signatures import FRESH_SECONDS

JUDGED_WITHIN: Final = 2 * FRESH_SECONDS
"""After the time in its signature a request is judged within this many seconds: what is taken, and a wait as long."""
LOGGED_WITHIN: Final = DAY_SECONDS
"""An access is on chain within this time after it was judged, unless it is late: half states end before that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatedAccess:
    """One access under a consent. `signed_at` is when its institution signed the request, None if that is not shown.

    `logged_at` is the time of its block, None without a chain. All in Unix seconds.
    """

    signed_at: int | None
    logged_at: int | None
    late: bool = False

    def days(self) -> tuple[int, int]:
        """First and last day (since 1970-01-01) on which it may have been counted."""
        if self.signed_at is not None:
            return (self.signed_at - FRESH_SECONDS) // DAY_SECONDS, (self.signed_at + JUDGED_WITHIN) // DAY_SECONDS
        assert self.logged_at is not None, "an access is opened or on chain"
        first = 0 if self.late else (self.logged_at - LOGGED_WITHIN) // DAY_SECONDS
        return first, self.logged_at // DAY_SECONDS


def daily_limit_held(accesses: Sequence[DatedAccess], limit: int, *, unseen: int = 0) -> bool | None:
    """True, False, or None if it cannot be said. `unseen` more accesses may have been made on any day."""
    opened = [access.days() for access in accesses if access.signed_at is not None]
    if not _fit(opened, limit):
        return False
    if most_on_a_day([access.days() for access in accesses]) + unseen <= limit:
        return True
    return True if len(opened) == len(accesses) and not unseen else None


def most_on_a_day(spans: Sequence[tuple[int, int]]) -> int:
    """How many may have been counted on one day at most."""
    # The most overlap where one of them begins.
    return max((sum(first <= day <= last for first, last in spans) for day, _ in spans), default=0)


def _fit(spans: Sequence[tuple[int, int]], limit: int) -> bool:
    """Whether each can be put on a day of its own span with no more than `limit` on any: the most urgent ones first."""
    waiting = sorted(spans)
    urgent: list[int] = []
    day = 0
    while waiting or urgent:
        if not urgent:
            day = waiting[0][0]
        while waiting and waiting[0][0] <= day:
            urgent.append(waiting.pop(0)[1])
        urgent.sort()
        placed, urgent = urgent[:limit], urgent[limit:]
        if any(last < day for last in placed) or any(last <= day for last in urgent):
            return False
        day += 1
    return True
