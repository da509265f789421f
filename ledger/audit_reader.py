"""An audit's report read from JSON again, as `AuditReport.as_json` wrote it, by whoever keeps or compares them. Pure.

Every field must be there and of its kind: a report that is not understood in full is no report.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from enum import IntEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeVar

from ledger.audit_report import (
    REPORT_VERSION,
    AuditedBlock,
    AuditReport,
    Check,
    ConsentSummary,
    DayCounts,
    Embargo,
    Finding,
    LogSummary,
    Totals,
)
from ledger.consent import Domain, Reason, State, parse_address, parse_hex32
from ledger.errors import MalformedError
from ledger.json_forms import camel_case

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_Kind = TypeVar("_Kind", bound="DataclassInstance")
_Member = TypeVar("_Member", bound=IntEnum)


def report_of(given: object) -> AuditReport:
    """The report that `as_json` wrote. Raises `MalformedError`, also for another version of it.

    The verdict follows from what is read; one that says something else is refused.
    """
    found = _Reader(given, "report")
    if found["version"] != REPORT_VERSION:
        raise MalformedError(f"version: expected {REPORT_VERSION}", field="version")
    block = found["block"]
    report = AuditReport(
        domain=Domain(
            chain_id=_int(found["chainId"], "chainId"), contract=parse_address(found["contract"], "contract")
        ),
        block=None if block is None else _made(AuditedBlock, block, "block"),
        endpoints=tuple(_text(one, "endpoints") for one in _list(found["endpoints"], "endpoints")),
        made_at=_int(found["madeAt"], "madeAt"),
        checks=found.every("checks", Check),
        findings=found.every("findings", Finding),
        finding_counts=found.counts("findingCounts"),
        totals=_made(Totals, found["totals"], "totals"),
        refusals_by_reason={
            _member(Reason, name, "refusalsByReason"): count for name, count in found.counts("refusalsByReason").items()
        },
        days=found.every("days", DayCounts),
        logs=found.every("logs", LogSummary),
        consents=found.every("consents", ConsentSummary),
        revocation_gaps=tuple(_int(one, "revocationGaps") for one in _list(found["revocationGaps"], "revocationGaps")),
        compelled=found.every("compelled", Embargo),
        institutions=found.counts("institutions"),
        resumed_from=None if found["resumedFrom"] is None else _int(found["resumedFrom"], "resumedFrom"),
    )
    if found["verdict"] != report.verdict:
        raise MalformedError("verdict: expected the one that follows from the rest", field="verdict")
    return report


class _Reader:
    """A JSON object of which every field must be there."""

    def __init__(self, given: object, name: str) -> None:
        if not isinstance(given, dict):
            raise MalformedError(f"{name}: expected a JSON object", field=name)
        self._given = given

    def __getitem__(self, name: str) -> object:
        try:
            return self._given[name]
        except KeyError as exc:
            raise MalformedError(f"{name}: expected to be there", field=name) from exc

    def every(self, name: str, kind: type[_Kind]) -> tuple[_Kind, ...]:
        return tuple(_made(kind, one, name) for one in _list(self[name], name))

    def counts(self, name: str) -> dict[str, int]:
        found = self[name]
        if not isinstance(found, dict):
            raise MalformedError(f"{name}: expected a JSON object", field=name)
        return {key: _int(count, name) for key, count in found.items()}


def _made(kind: type[_Kind], given: object, name: str) -> _Kind:
    found = _Reader(given, name)
    read: dict[str, object] = {}
    for each in fields(kind):
        expected, _, optional = str(each.type).partition(" | ")
        value = found[camel_case(each.name)]
        at = f"{name}.{camel_case(each.name)}"
        read[each.name] = None if value is None and optional else _READERS[expected](value, at)
    return kind(**read)


def _list(value: object, name: str) -> list[object]:
    if not isinstance(value, list):
        raise MalformedError(f"{name}: expected a list", field=name)
    return value


def _int(value: object, name: str) -> int:
    if type(value) is not int:
        raise MalformedError(f"{name}: expected a whole number", field=name)
    return value


def _bool(value: object, name: str) -> bool:
    if type(value) is not bool:
        raise MalformedError(f"{name}: expected true or false", field=name)
    return value


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise MalformedError(f"{name}: expected text", field=name)
    return value


def _member(kind: type[_Member], value: object, name: str) -> _Member:
    try:
        return kind[_text(value, name).upper()]
    except KeyError as exc:
        raise MalformedError(f"{name}: expected one of {', '.join(one.name.lower() for one in kind)}") from exc


_READERS: Final[Mapping[str, Callable[[object, str], object]]] = MappingProxyType(
    {
        "int": _int,
        "bool": _bool,
        "str": _text,
        "Hex32": parse_hex32,
        "Address": parse_address,
        "State": lambda value, name: _member(State, value, name),
    }
)
"""By the annotations of the classes."""
