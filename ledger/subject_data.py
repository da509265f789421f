"""A person's own data, for that person: what is held, in plain words, where it comes from, and what it was before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from ledger.attribute_texts import description_of
from ledger.attributes import ATTRIBUTES
from ledger.disputes import Dispute, Disputes
from ledger.errors import ValueNotInCatalogueError
from ledger.registry import Registry
from ledger.vault import AttributeValue, StoredRecord, Value, Vault

UNKNOWN: Final = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldValue:
    """One version of a value. `text` is what a person reads, its unit included.

    `source` is what the furnisher calls itself, `source_name` the name it is registered under here: None if it is not,
    as with a file that somebody imported. `as_of` is an ISO date, `came_at` when it came here (Unix seconds).
    """

    version: int
    value: Value
    text: str
    source: str
    source_name: str | None
    as_of: str
    came_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldAttribute:
    """One attribute of a person: what it is now, and what it was (`earlier`, newest first).

    `sensitivity` is `ordinary`, `sensitive` or `protected` (`attributes.py`). `dispute` is the open one; `is_disputed`
    says whether lenders are refused it, which may be so without one.
    """

    name: str
    label: str
    description: str
    unit: str | None
    sensitivity: str
    now: HeldValue
    earlier: tuple[HeldValue, ...]
    is_disputed: bool
    dispute: Dispute | None
    past_disputes: tuple[Dispute, ...]


class SubjectData:
    """Opens one person's values for that person."""

    def __init__(self, vault: Vault, registry: Registry, disputes: Disputes) -> None:
        self._vault, self._registry, self._disputes = vault, registry, disputes

    def attributes(self, subject_id: str) -> list[HeldAttribute]:
        """Everything that is held about a person, in the order of the catalogue. Raises `VaultError`."""
        names = {one.party_id: one.name for one in self._registry.furnishers()}
        disputes = self._disputes.of_subject(subject_id)
        found = {
            name: self._attribute(name, list(versions), names, [one for one in disputes if one.attribute == name])
            for name, versions in groupby(self._vault.open_to_subject(subject_id), key=lambda held: held[0].attribute)
        }
        order = [*ATTRIBUTES, *sorted(found.keys() - ATTRIBUTES.keys())]
        return [found[name] for name in order if name in found]

    def sources(self, subject_id: str, names: Sequence[str]) -> tuple[str, ...]:
        """Who furnished these attributes of a person, each once, by id. Raises `VaultError`."""
        held = self._vault.open_to_subject(subject_id)
        return tuple(sorted({value.source for record, value in held if record.attribute in names}))

    def _attribute(
        self,
        name: str,
        versions: list[tuple[StoredRecord, AttributeValue]],
        names: dict[str, str],
        disputes: list[Dispute],
    ) -> HeldAttribute:
        entry = ATTRIBUTES.get(name)
        now, *earlier = (_value(name, record, held, names) for record, held in versions)
        return HeldAttribute(
            name=name,
            label=entry.label if entry else name,
            description=description_of(name),
            unit=entry.unit if entry else None,
            sensitivity=entry.sensitivity.value if entry else UNKNOWN,
            now=now,
            earlier=tuple(earlier),
            is_disputed=versions[0][0].disputed,
            dispute=next((one for one in disputes if one.closed_at is None), None),
            past_disputes=tuple(one for one in disputes if one.closed_at is not None),
        )


def _value(name: str, record: StoredRecord, held: AttributeValue, names: dict[str, str]) -> HeldValue:
    return HeldValue(
        version=record.version,
        value=held.value,
        text=_plain_words(name, held.value),
        source=held.source,
        source_name=names.get(held.source),
        as_of=held.as_of,
        came_at=record.created_at,
    )


def _plain_words(name: str, value: Value) -> str:
    # A catalogue may have changed since the value came in: then it is shown as it is.
    if name in ATTRIBUTES and not isinstance(value, float):
        try:
            return ATTRIBUTES[name].describe(value)
        except ValueNotInCatalogueError:
            return str(value)
    return str(value)
