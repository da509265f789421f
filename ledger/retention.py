"""Retention: until when an institution may keep what it received under a consent.

The terms say for how many days after its release. A consent that was replaced hands its data on: what was received
under the old one may be kept while the newest replacement stands, and afterwards for as long as the longer of the two
retentions allows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row

from ledger.consent import Hex32
from ledger.json_forms import DAY_SECONDS
from ledger.registry import Registry, StoredConsent


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long what was received under `consent` may be kept.

    `days` count from a release; `not_before` (Unix seconds) is when the replacement ended, 0 if there was none.
    `is_open`: the replacement still stands, so that there is no end yet.
    """

    consent: StoredConsent
    days: int
    not_before: int = 0
    is_open: bool = False

    def ends(self, released_at: int) -> int | None:
        """Unix seconds from which on what was released then may not be kept; None if that is not known yet."""
        return None if self.is_open else max(released_at + self.days * DAY_SECONDS, self.not_before)


def retentions(tx: Connection, registry: Registry, consent_ids: Sequence[Hex32], *, now: int) -> dict[Hex32, Retention]:
    """By consent; without those that are not there or whose terms were erased. Raises `VaultError`."""
    rows = _with_replacements(tx, registry, consent_ids)
    return {
        consent_id: _retention(registry, rows, rows[consent_id], now)
        for consent_id in consent_ids
        if consent_id in rows and rows[consent_id].erased_at is None
    }


def _with_replacements(tx: Connection, registry: Registry, consent_ids: Sequence[Hex32]) -> dict[Hex32, Row[Any]]:
    rows: dict[Hex32, Row[Any]] = {}
    wanted = set(consent_ids)
    while wanted:
        found = registry.rows(tx, list(wanted))
        rows |= found
        wanted = {row.replaced_by for row in found.values() if row.replaced_by is not None} - rows.keys()
    return rows


def _retention(registry: Registry, rows: dict[Hex32, Row[Any]], row: Row[Any], now: int) -> Retention:
    consent = registry.opened(row)
    days = consent.grant.terms.retention_days
    newest = row
    # A consent's id is made of the id that it replaces, so this comes to an end.
    while newest.replaced_by in rows:
        newest = rows[newest.replaced_by]
    if newest is row:
        return Retention(consent=consent, days=days)
    ended_at = newest.expires_at if newest.revoked_at is None else min(newest.expires_at, newest.revoked_at)
    return Retention(
        consent=consent,
        days=max(days, registry.opened(newest).grant.terms.retention_days),
        not_before=ended_at,
        is_open=now < ended_at,
    )
