"""Who received data, as far as openings tell. Pure.

The chain names no institution: an entry is a hash. A disclosure says what hashes stand for, and nobody need be believed
for it: the opening comes to the entry's hash or it does not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from ledger.access import entry_hash_of
from ledger.audit_report import AuditedEntry
from ledger.consent import Hex32, Reason

if TYPE_CHECKING:
    # An audit without openings loads nothing for them.
    from ledger.disclosure import Disclosure

Openings = Mapping[tuple[Hex32, Hex32], str]
"""The institution that an entry's opening names, by the entry's consent and hash."""


def openings_of(disclosures: Iterable[Disclosure]) -> Openings:
    """Every opening that comes to the hash it is given for; what does not is left out."""
    return {
        (one.entry.consent_id, one.entry_hash): one.entry.institution
        for disclosure in disclosures
        for one in disclosure.entries
        if entry_hash_of(one.entry) == one.entry_hash
    }


def by_institution(openings: Openings, entries: Iterable[AuditedEntry]) -> dict[str, int]:
    """How many recorded entries of the log each institution has, of those that the openings tell of."""
    return dict(
        Counter(
            openings[key]
            for one in entries
            if one.reason is Reason.NONE and not one.late and (key := (one.consent_id, one.entry_hash)) in openings
        )
    )
