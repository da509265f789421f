"""What an institution asks a person to agree to, and whether an answer lies within it. Pure.

An answer may be narrower than what was asked in everything but its required attributes, and wider in nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ledger.consent import ConsentGrant, Hex32
from ledger.errors import CeilingExceededError, MalformedError, OutsideRequestError, RequestError
from ledger.json_forms import DAY_SECONDS
from ledger.purposes import PURPOSES, check_ceilings


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestedTerms:
    """What is asked for. `validity_days` and `retention_days` are days of 24 hours.

    `attributes` are those without which the request makes no sense, `optional_attributes` those that the person may
    leave out. `replaces` is `ZERO32` unless a consent is to be amended.
    """

    institution: str
    institution_name: str
    purpose: str
    attributes: tuple[str, ...]
    optional_attributes: tuple[str, ...]
    validity_days: int
    max_accesses: int
    accesses_per_day: int
    retention_days: int
    replaces: Hex32
    notice_hash: Hex32

    def check(self, now: int) -> None:
        """Hold them against the ceilings of their purpose, as `check_ceilings` does, by the API's names of the fields.

        Raises as `check_ceilings`.
        """
        require_days("validityDays", self.validity_days)
        self._check(self.attributes, "attributes", now)
        if self.optional_attributes:
            self._check(self.optional_attributes, "optionalAttributes", now)
        if both := sorted(set(self.attributes) & set(self.optional_attributes)):
            raise MalformedError(
                f"optionalAttributes: expected none that is required, got {', '.join(both)}", field="optionalAttributes"
            )

    def _check(self, attributes: Sequence[str], field: str, now: int) -> None:
        try:
            check_ceilings(
                purpose_code=self.purpose,
                attributes=attributes,
                valid_from=now,
                expires_at=now + self.validity_days * DAY_SECONDS,
                max_accesses=self.max_accesses,
                accesses_per_day=self.accesses_per_day,
                retention_days=self.retention_days,
            )
        except RequestError as exc:
            if exc.field == "expiresAt":
                longest = f"{self.purpose} allows at most {PURPOSES[self.purpose].max_validity_days}"
                raise CeilingExceededError(f"validityDays: {longest}", field="validityDays") from None
            if exc.field == "attributes":
                raise type(exc)(exc.message.replace("attributes", field, 1), field=field) from None
            raise

    def with_optional(self, chosen: Sequence[str]) -> tuple[str, ...]:
        """All required attributes, and of the optional ones those chosen; in the order of the request.

        Raises `OutsideRequestError`.
        """
        if not set(chosen) <= {*self.attributes, *self.optional_attributes}:
            raise OutsideRequestError("attributes: expected only such as were asked for", field="attributes")
        return (*self.attributes, *(name for name in self.optional_attributes if name in chosen))

    def require_within(self, grant: ConsentGrant) -> None:
        """What was signed is what was asked for, or less. Raises `OutsideRequestError` naming the field."""
        terms = grant.terms
        for field, signed, asked in (
            ("terms.institution", terms.institution, self.institution),
            ("terms.purpose", terms.purpose, self.purpose),
            ("terms.replaces", terms.replaces, self.replaces),
            ("terms.noticeHash", terms.notice_hash, self.notice_hash),
        ):
            if signed != asked:
                raise OutsideRequestError(f"{field}: expected what was asked for", field=field)
        if not set(self.attributes) <= set(terms.attributes) <= {*self.attributes, *self.optional_attributes}:
            raise OutsideRequestError(
                "terms.attributes: expected all that are required, and none that was not asked for",
                field="terms.attributes",
            )
        for field, given, most, unit in (
            (
                "expiresAt",
                grant.expires_at - grant.valid_from,
                self.validity_days * DAY_SECONDS,
                " seconds after validFrom",
            ),
            ("maxAccesses", grant.max_accesses, self.max_accesses, ""),
            ("terms.accessesPerDay", terms.accesses_per_day, self.accesses_per_day, ""),
            ("terms.retentionDays", terms.retention_days, self.retention_days, ""),
        ):
            if given > most:
                raise OutsideRequestError(f"{field}: expected at most {most}{unit}", field=field)


def limit_of(field: str, chosen: int | None, asked: int, *, least: int = 1) -> int:
    """A limit that was chosen in place of what was asked. Raises `OutsideRequestError` if it is above that."""
    if chosen is None:
        return asked
    if not isinstance(chosen, int) or isinstance(chosen, bool) or not least <= chosen <= asked:
        raise OutsideRequestError(f"{field}: expected {least} to {asked}, as was asked for", field=field)
    return chosen


def require_days(field: str, days: int, most: int | None = None) -> None:
    """Raises `MalformedError` unless it is a number of days, at least 1."""
    # A bool is an int in Python; in an API it is a mistake.
    if not isinstance(days, int) or isinstance(days, bool) or days < 1 or (most is not None and days > most):
        span = "1 or more" if most is None else f"1 to {most}"
        raise MalformedError(f"{field}: expected a whole number of days, {span}", field=field)
