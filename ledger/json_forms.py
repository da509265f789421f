"""Names and times as JSON has them here, and as people read them. Pure."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Final

DAY_SECONDS: Final = 86_400
LATEST: Final = 253_402_300_799
"""The last second of the year 9999, which is as far as dates go."""
EPOCH_ORDINAL: Final = date(1970, 1, 1).toordinal()


def camel_case(name: str) -> str:
    """The name of a field as JSON has it."""
    first, *rest = name.split("_")
    return first + "".join(map(str.title, rest))


def iso_time(seconds: int) -> str:
    """RFC 3339 in UTC. Chains can say any number: what is no date stays a number."""
    if not 0 <= seconds <= LATEST:
        return str(seconds)
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def iso_date(day: int) -> str:
    """The date of a day since 1970-01-01; as `iso_time`, a number if it is none."""
    if not 0 <= day <= LATEST // DAY_SECONDS:
        return str(day)
    return date.fromordinal(EPOCH_ORDINAL + day).isoformat()
