"""Prompts: how often people were asked, what they answered, and how many steps each answer took. Nobody's identity.

Counted for each institution and UTC day, so that an auditor can see whether anyone is pressed: how often a "no" was
followed by asking again, and whether declining takes more steps than accepting. A number is added in the transaction of
what it counts. Who was asked is not in here, and an erasure changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, select, update

from ledger.errors import MalformedError
from ledger.json_forms import DAY_SECONDS, EPOCH_ORDINAL, iso_date
from ledger.store import Store, prompt_counts

MAX_STEPS: Final = 100
"""A page that says more is not believed: clicks, touches and key presses of one answer are a handful."""

SHOWN: Final = "shown"
"""An open request was put before a person, for the first time."""
HIDDEN: Final = "hidden"
"""A request that reached a person within the quiet period after a "no" to the same institution: not put before them."""
REOPENED: Final = "reopened"
"""A hidden one that the person opened by their own will."""
SAID_YES: Final = "accepted"
SAID_NO: Final = "declined"


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptCount:
    """One day of one institution. `day` is an ISO date (UTC); `with_steps` pages told of `steps` in all."""

    institution: str
    day: str
    kind: str
    number: int
    with_steps: int
    steps: int

    def as_json(self) -> dict[str, Any]:
        """For an auditor."""
        return {
            "institution": self.institution,
            "day": self.day,
            "kind": self.kind,
            "number": self.number,
            "withSteps": self.with_steps,
            "steps": self.steps,
        }


class Prompts:
    """Counts, and hands the counts out."""

    def __init__(self, store: Store, *, clock: Callable[[], int]) -> None:
        self._store, self._clock = store, clock

    def add(self, tx: Connection, institution_id: str, kind: str, *, steps: int | None = None) -> None:
        """Count one, within the caller's transaction; `steps` as the page reports them, nothing if out of bounds."""
        steps = _believable(steps)
        day = self._clock() // DAY_SECONDS
        counts = prompt_counts.c
        row = (counts.party_id == institution_id, counts.day == day, counts.kind == kind)
        known, taken = (0, 0) if steps is None else (1, steps)
        more = {"number": counts.number + 1, "with_steps": counts.with_steps + known, "steps": counts.steps + taken}
        if not tx.execute(update(prompt_counts).where(*row).values(**more)).rowcount:
            first = {"party_id": institution_id, "day": day, "kind": kind}
            tx.execute(prompt_counts.insert(), [first | {"number": 1, "with_steps": known, "steps": taken}])

    def counts(self, *, institution_id: str | None = None, first_day: str | None = None) -> list[PromptCount]:
        """Every count, by day and institution; of one institution, from a day on (ISO date), if given."""
        counts = prompt_counts.c
        query = select(prompt_counts).order_by(counts.day, counts.party_id, counts.kind)
        if institution_id is not None:
            query = query.where(counts.party_id == institution_id)
        if first_day is not None:
            query = query.where(counts.day >= _number_of(first_day))
        with self._store.read() as tx:
            return [
                PromptCount(
                    institution=row.party_id,
                    day=iso_date(row.day),
                    kind=row.kind,
                    number=row.number,
                    with_steps=row.with_steps,
                    steps=row.steps,
                )
                for row in tx.execute(query)
            ]


def _believable(steps: int | None) -> int | None:
    # An answer must not fail for what the page says of it. A bool is an int in Python; in an API it is a mistake.
    return steps if type(steps) is int and 1 <= steps <= MAX_STEPS else None


def _number_of(day: str) -> int:
    try:
        return datetime.fromisoformat(day).toordinal() - EPOCH_ORDINAL
    except ValueError:
        raise MalformedError("day: expected a date (YYYY-MM-DD)", field="day") from None
