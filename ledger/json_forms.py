"""Names, times and addresses as JSON has them here, and as people read them. Pure."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from typing import Final

DAY_SECONDS: Final = 86_400
LATEST: Final = 253_402_300_799
"""The last second of the year 9999, which is as far as dates go."""
EPOCH_ORDINAL: Final = date(1970, 1, 1).toordinal()
_ORIGIN: Final = re.compile(
    r"(https?://)(?:[^/?#]*@)?((?:[A-Za-z0-9._-]+|\[[A-Za-z0-9.:]+\])(?::[0-9]+)?)(?=[/?#]|\Z)(.*)", re.DOTALL
)


def camel_case(name: str) -> str:
    """The name of a field as JSON has it."""
    first, *rest = name.split("_")
    return first + "".join(map(str.title, rest))


def origin_of(url: str) -> str:
    """Scheme, host and port of an endpoint. Whatever else stands in an address may be a key: nobody is shown it."""
    found = _ORIGIN.match(url)
    if found is None:
        return "(an address of another form)"
    return found[1] + found[2] + ("/\N{HORIZONTAL ELLIPSIS}" if found[3] not in ("", "/") else "")


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
