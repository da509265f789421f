"""Purposes: why data may be asked for, and the most that each purpose justifies. Pure.

The codes are closed. A consent request above a ceiling is refused before the person ever sees it, with the field named,
as India's account aggregators do (fair-use rules, HTTP 412). Ceilings are outer limits, not recommended values.

Where the numbers come from ("AA nnn" is a ReBIT purpose code in Sahamati's fair-use rule set for consent creation, read
from Sahamati/fair-use-implementation-guidelines-for-aa; "Reg. B" is 12 CFR 1002, read; GDPR, the Consumer Credit
Directive 2023/2225 (CCD) and the AI Act are cited from memory or from summaries):

- time and number: the AA rule of the same purpose, unless a comment beside the number says why not;
- attributes: data minimisation (GDPR 5(1)(c)). Lending sees the "financial and economic circumstances" (CCD 18(3)), so
  neither schooling nor time at an address. No decision sees a protected ground, but for age in loan origination. Nor
  does one see `telephone` (Reg. B 1002.6(b)(4) forbids to take a telephone listing into account) or `job` (one of its
  codes says who is not resident, CCD 6).

What this module does not do: it has no clock, so whether a window lies too far in the future is its caller's to check.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from ledger.attributes import ACCESS_OPENINGS, ASKABLE, ATTRIBUTES
from ledger.errors import (
    CeilingExceededError,
    InvalidWindowError,
    MalformedError,
    NoAccessAllowedError,
    UnknownAttributeError,
    UnknownPurposeError,
)
from ledger.json_forms import DAY_SECONDS

AUDIT: Final = "audit"
"""The purpose under which an auditor reads a person's access records."""

AttributeNames = frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Purpose:
    """Why data may be asked for, with its ceilings.

    `label` and `description` are what a person reads. `max_validity_days` bounds `expiresAt - validFrom` in days of 24
    hours, `max_accesses` all accesses of a consent, `max_accesses_per_day` those of one UTC day, `max_retention_days`
    how long the institution may keep what it received.
    """

    code: str
    label: str
    description: str
    max_validity_days: int
    max_accesses: int
    max_accesses_per_day: int
    max_retention_days: int
    attributes: AttributeNames


_CARD_HISTORY: Final = frozenset(
    name for name in ATTRIBUTES if name.startswith(("repayment_status_", "bill_amount_", "payment_amount_"))
)
_RUNNING_CREDIT: Final = _CARD_HISTORY | {
    "checking_account_status",
    "creditability",
    "credit_amount",
    "credit_duration",
    "credit_history",
    "default_next_month",
    "employment_duration",
    "existing_credits",
    "installment_rate",
    "limit_balance",
    "other_installment_plans",
    "savings",
}

_ALL: Final = (
    Purpose(
        code="loan-origination",
        label="Decide on a loan",
        description="To decide whether you get the loan or the card that you applied for.",
        # AA 103 (CT001, underwriting): consent 1 month, data life 1 month (31 days).
        max_validity_days=31,
        # AA 103 is a single fetch. Two more are for an amended application and for the check by a second person; all
        # may fall on the day of the decision.
        max_accesses=3,
        max_accesses_per_day=3,
        max_retention_days=31,
        attributes=_RUNNING_CREDIT
        | {
            "credit_purpose",
            "dependants",  # what they cost is part of what a person can afford (CCD 18(3))
            "housing",
            "other_debtors",
            "property",
            # Reg. B 1002.6(b)(2): for the capacity to contract, and in a sound score if never against the elderly.
            "age",
        },
    ),
    Purpose(
        code="account-review",
        label="Review a running account",
        description="To see whether the credit that you already have still fits your situation.",
        # AA 104 (monitoring) allows 5 years; a year is the longest that a consent lasts without being asked again under
        # CDR (12 months) and CFPB 1033 (1 year).
        max_validity_days=365,
        # AA 104: 5 a month, so 60 a year. Its source changes monthly: no day needs two.
        max_accesses=60,
        max_accesses_per_day=1,
        # AA 104: data life 1 month.
        max_retention_days=31,
        attributes=_RUNNING_CREDIT,
    ),
    Purpose(
        code="tenancy-check",
        label="Check a tenant",
        description="To see whether you are likely to pay the rent.",
        # AA 105 as amended for a check that another decision waits for (CT010): consent 1 month, data life 7 days.
        max_validity_days=31,
        # AA 105: a single fetch.
        max_accesses=1,
        max_accesses_per_day=1,
        max_retention_days=7,
        # The means to pay and whether they were used to pay: no amounts, no assets, nothing about the family.
        attributes=frozenset(
            {
                "creditability",
                "credit_history",
                "default_next_month",
                "employment_duration",
                "installment_rate",
                "repayment_status_2005_09",
            }
        ),
    ),
    Purpose(
        code="model-audit",
        label="Test a scoring model for fairness",
        description="To measure whether a scoring model treats groups of people differently. No decision is about you.",
        # CDR and CFPB 1033, as for account reviews.
        max_validity_days=365,
        # Four quarterly measurements.
        max_accesses=4,
        max_accesses_per_day=1,
        # A quarter, as the longest data life in the AA rules (CT042: 90 days): protected data are deleted once the bias
        # is corrected (AI Act 10(5)).
        max_retention_days=90,
        # Protected grounds may be read for a self-test and for nothing else (Reg. B 1002.5(b)(1), 1002.15; AI Act
        # 10(5)), together with all that a model might use, forbidden proxies included: else no bias would show.
        attributes=frozenset(ATTRIBUTES),
    ),
    Purpose(
        code=AUDIT,
        label="Check who read my data",
        description=(
            "To let an independent auditor check every access to your data. They see who asked, when and for what, and "
            "no values."
        ),
        # No AA rule: the person asks for a check, which takes days. A month leaves room for questions.
        max_validity_days=31,
        # One reading, and one more each time that something was put right.
        max_accesses=3,
        max_accesses_per_day=1,
        max_retention_days=31,
        # Nothing of credit: who may see that says the consent that is checked.
        attributes=frozenset({ACCESS_OPENINGS}),
    ),
)

PURPOSES: Final[Mapping[str, Purpose]] = MappingProxyType({entry.code: entry for entry in _ALL})
"""Every purpose by its code, in order of presentation."""


def purpose(code: str) -> Purpose:
    """The purpose of that code.

    Raises `UnknownPurposeError`, which lists the codes there are.
    """
    try:
        return PURPOSES[code]
    except (KeyError, TypeError):
        raise UnknownPurposeError(f"purpose: expected one of {', '.join(PURPOSES)}", field="purpose") from None


def check_ceilings(
    *,
    purpose_code: str,
    attributes: Collection[str],
    valid_from: int,
    expires_at: int,
    max_accesses: int,
    accesses_per_day: int,
    retention_days: int,
) -> None:
    """Refuse what a consent for this purpose may not ask for. Times are Unix seconds; the window is half-open.

    The error's `field` is the API's name (`purpose`, `attributes`, `expiresAt`, `maxAccesses`, `accessesPerDay`,
    `retentionDays`) and its message names the limit and what was given. Fields are checked in that order; the first
    that fails is reported.

    Raises `UnknownPurposeError`; `UnknownAttributeError`; `CeilingExceededError` above a ceiling;
    `NoAccessAllowedError` for a limit below 1; `InvalidWindowError` for an empty or negative window; `MalformedError`
    for anything else, among it no or repeated attributes and more accesses a day than there are in all.
    """
    chosen = purpose(purpose_code)
    _check_attributes(chosen, attributes)
    _check_window(chosen, valid_from, expires_at)
    _check_count(chosen, "maxAccesses", max_accesses, chosen.max_accesses)
    _check_count(chosen, "accessesPerDay", accesses_per_day, chosen.max_accesses_per_day)
    if accesses_per_day > max_accesses:
        raise MalformedError(
            "accessesPerDay: expected at most maxAccesses, which are all there are", field="accessesPerDay"
        )
    _check_number("retentionDays", retention_days)
    if retention_days < 0:
        raise MalformedError("retentionDays: expected 0 or more", field="retentionDays")
    _check_ceiling(chosen, "retentionDays", retention_days, chosen.max_retention_days)


def _check_attributes(chosen: Purpose, attributes: Collection[str]) -> None:
    # A lone text is a collection of texts too, of its letters.
    listed = isinstance(attributes, Collection) and not isinstance(attributes, str)
    if not listed or not all(isinstance(name, str) for name in attributes):
        raise MalformedError("attributes: expected a list of names", field="attributes")
    if not attributes:
        raise MalformedError("attributes: expected at least one", field="attributes")
    names = set(attributes)
    if len(names) != len(attributes):
        raise MalformedError("attributes: expected each at most once", field="attributes")
    if names - ASKABLE.keys():
        raise UnknownAttributeError("attributes: expected only names of the catalogue", field="attributes")
    if beyond := sorted(names - chosen.attributes):
        raise CeilingExceededError(f"attributes: {chosen.code} does not allow {', '.join(beyond)}", field="attributes")


def _check_window(chosen: Purpose, valid_from: int, expires_at: int) -> None:
    _check_number("validFrom", valid_from)
    _check_number("expiresAt", expires_at)
    if not 0 <= valid_from < expires_at:
        raise InvalidWindowError("expiresAt: expected later than validFrom", field="expiresAt")
    longest = chosen.max_validity_days * DAY_SECONDS
    if expires_at - valid_from > longest:
        raise CeilingExceededError(
            f"expiresAt: {chosen.code} allows at most {longest} seconds after validFrom "
            f"({chosen.max_validity_days} days)",
            field="expiresAt",
        )


def _check_count(chosen: Purpose, name: str, given: int, limit: int) -> None:
    _check_number(name, given)
    if given < 1:
        raise NoAccessAllowedError(f"{name}: expected 1 or more", field=name)
    _check_ceiling(chosen, name, given, limit)


def _check_ceiling(chosen: Purpose, name: str, given: int, limit: int) -> None:
    if given > limit:
        raise CeilingExceededError(f"{name}: {chosen.code} allows at most {limit}", field=name)


def _check_number(name: str, given: object) -> None:
    # A bool is an int in Python; in an API it is a mistake.
    if not isinstance(given, int) or isinstance(given, bool):
        raise MalformedError(f"{name}: expected a whole number", field=name)
