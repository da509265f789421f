"""What the API answers, as a client of it reads that: frozen results, and problems turned back into errors. Pure.

Names are camelCase on the wire and snake_case here. What is not known here is passed over, so that a service may say
more than its clients know; what is missing or of another type is a `ServiceError`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Final, TypeVar, Union, get_args, get_origin, get_type_hints

from ledger import errors
from ledger.consent import Address, Hex32, parse_address, parse_hex32
from ledger.errors import AuditError, LedgerError, MalformedError, RateLimitedError, ServiceError
from ledger.json_forms import camel_case

_T = TypeVar("_T")

# ------------------------------------------------------------------------------------------------------------- results


@dataclass(frozen=True, slots=True, kw_only=True)
class Category:
    """A value of a category: the code that is released, and what a person reads."""

    code: str
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribute:
    """An attribute of the catalogue, and the values that it can have.

    `type` is `integer` (from `minimum` to `maximum`), `category`, `boolean` or `document` (JSON in a text).
    """

    name: str
    label: str
    unit: str | None
    sensitivity: str
    type: str
    minimum: int | None
    maximum: int | None
    categories: tuple[Category, ...]
    note: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Purpose:
    """A purpose and the most that it justifies."""

    code: str
    label: str
    description: str
    notice_hash: Hex32
    attributes: tuple[str, ...]
    max_validity_days: int
    max_accesses: int
    max_accesses_per_day: int
    max_retention_days: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """Who the custodian is, where its log is, and what may be asked for. Not signed: see `InstitutionClient`.

    `signature_max_age` and `answers_kept` are seconds, `rate_limit` is requests a minute.
    """

    api_version: str
    service_url: str
    chain_id: int
    contract: Address
    custodian: Address
    jwks: Mapping[str, Any]
    finality: str
    signature_max_age: int
    answers_kept: int
    rate_limit: int
    purposes: tuple[Purpose, ...]
    attributes: tuple[Attribute, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsentRequest:
    """A consent request and what became of it: `pending`, `granted`, `declined` or `expired`. Times are Unix seconds.

    `link` is to be handed to the person, `qr` is the same as SVG; `consent` is known once granted.
    """

    id: str
    state: str
    purpose: str
    attributes: tuple[str, ...]
    optional_attributes: tuple[str, ...]
    validity_days: int
    max_accesses: int
    accesses_per_day: int
    retention_days: int
    replaces: Hex32 | None
    notice_hash: Hex32
    created_at: int
    answer_by: int
    consent: Hex32 | None
    link: str | None
    qr: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletionDuty:
    """Until when what was received must be deleted, and whether that was attested. Unix seconds."""

    due_at: int | None
    attested_at: int | None
    overdue: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Consent:
    """A consent's terms, and where it stands. Times are Unix seconds."""

    id: Hex32
    state: str
    reason: str | None
    purpose: str
    attributes: tuple[str, ...]
    subject: Address
    valid_from: int
    expires_at: int
    max_accesses: int
    accesses_per_day: int
    retention_days: int
    notice_hash: Hex32
    uses_left: int
    used_today: int
    last_used_at: int | None
    granted_at: int
    revoked_at: int | None
    replaces: Hex32 | None
    replaced_by: Hex32 | None
    deletion: DeletionDuty
    request: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedRelease:
    """An answer as it comes: sealed, with the receipt of its access."""

    id: Hex32
    consent: Hex32
    answer: str
    receipt: str
    late: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedRelease:
    """What was asked for under a consent, and what became of it. Times are Unix seconds.

    `state` is `released`, `refused`, `aborted` (both for `reason`), or `unfinished`: ask again under its key.
    """

    id: Hex32
    state: str
    reason: str | None
    late: bool
    asked_at: int
    finished_at: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A released value: in which unit, from which furnisher, as of which day (ISO date)."""

    value: int | float | bool | str
    unit: str | None
    source: str
    as_of: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletionAttestation:
    """On file; the person and the auditor see it. Times are Unix seconds."""

    id: str
    consent: Hex32
    deleted_at: int
    recorded_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AdverseAction:
    """On file; the person sees it. `recorded_at` is Unix seconds."""

    release: Hex32
    decision: str
    reasons: tuple[str, ...]
    attributes: tuple[str, ...]
    recorded_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened to a consent, and whether it was acknowledged. Times are Unix seconds."""

    id: str
    kind: str
    consent: Hex32
    at: int
    details: Mapping[str, Any]
    state: str
    attempts: int
    last_answer: str | None
    acknowledged_at: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """Where events are sent; None: nowhere."""

    url: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKeys:
    """Public keys as they are registered (RFC 7517); `exp` is when a retired one stops counting."""

    keys: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Furnished:
    """What of the values was new, and how many institutions' consents are told of a correction."""

    added: tuple[str, ...]
    unchanged: tuple[str, ...]
    told: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """A one-time code for a person, to be entered at `link` before `expires_at` (Unix seconds)."""

    code: str = field(repr=False)
    link: str
    expires_at: int


# ------------------------------------------------------------------------------------------------------------- reading


def read(kind: type[_T], answer: object) -> _T:
    """An answer as a result. Raises `ServiceError` if it is not of that form."""
    return _value(kind, answer, kind.__name__)  # type: ignore[no-any-return] # of the kind that was asked for


def read_all(kind: type[_T], answer: object, name: str) -> tuple[_T, ...]:
    """The list of that name in an answer. Raises `ServiceError`."""
    found = answer.get(name) if isinstance(answer, Mapping) else None
    if not isinstance(found, list):
        raise _not_as_expected(name)
    return tuple(read(kind, one) for one in found)


@cache
def _parts(kind: type[Any]) -> dict[str, tuple[str, Any]]:
    hints = get_type_hints(kind)
    return {one.name: (camel_case(one.name), hints[one.name]) for one in fields(kind)}


def _value(hint: Any, value: object, name: str) -> Any:  # noqa: ANN401 - of the type that the hint says
    kind = get_origin(hint) or hint
    if kind in (UnionType, Union):
        return _one_of(get_args(hint), value, name)
    if kind in (Hex32, Address):
        return _identifier(hint, value, name)
    if isinstance(kind, type) and is_dataclass(kind) and isinstance(value, dict):
        # A field that is left out is null: services leave out what they do not know.
        return kind(**{field: _value(part, value.get(wire), wire) for field, (wire, part) in _parts(kind).items()})
    if kind is tuple and isinstance(value, list):
        return tuple(_value(get_args(hint)[0], one, name) for one in value)
    if type(value) is not (dict if kind is Mapping else kind):
        raise _not_as_expected(name)
    return value


def _one_of(options: tuple[Any, ...], value: object, name: str) -> Any:  # noqa: ANN401 - of one of these types
    plain = [one for one in options if one is not NoneType]
    if value is None and len(plain) < len(options):
        return None
    if type(value) in plain:
        return value
    return _value(plain[0], value, name)


def _identifier(hint: object, value: object, name: str) -> Hex32 | Address:
    try:
        return parse_hex32(value, name) if hint is Hex32 else parse_address(value, name)
    except MalformedError as exc:
        raise _not_as_expected(name) from exc


def _not_as_expected(name: str) -> ServiceError:
    return ServiceError(f"the service's answer is not of the form that this client knows: {name}", field=name)


# ------------------------------------------------------------------------------------------------------------ problems


def _every_error(kind: type[LedgerError] = LedgerError) -> Iterator[type[LedgerError]]:
    for child in kind.__subclasses__():
        yield child
        yield from _every_error(child)


ERRORS: Final[Mapping[str, type[LedgerError]]] = {
    kind.code: kind
    for kind in _every_error()
    # What these two say is found out on this side: nobody else can say it.
    if kind.__module__ == errors.__name__ and not issubclass(kind, AuditError | ServiceError)
}
"""By code, every error that a service may answer with."""


def error_of(problem: object, *, limit: int = 0, retry_after: int = 0) -> LedgerError:
    """The error that an RFC 9457 problem stands for, by its `code`; a `ServiceError` for a code that is not known."""
    said = problem if isinstance(problem, Mapping) else {}
    code, detail, field = (said.get(name) for name in ("code", "detail", "field"))
    message = detail if isinstance(detail, str) else "the service gave no reason"
    kind = ERRORS.get(code) if isinstance(code, str) else None
    if kind is None:
        return ServiceError(f"the service answered {str(code)[:50]!r}: {message}")
    if issubclass(kind, RateLimitedError):
        return kind(message, limit=limit, retry_after=retry_after)
    return kind(message, field=field if isinstance(field, str) else None)
