"""The attribute catalogue: what can be asked for, consented to, stored and released. Pure.

An attribute is one fact about one person, with one meaning whoever furnished it: `age` and `sex` are the same concept
in every source, while amounts in different currencies are different attributes, each with its unit (ISO 4217), because
nothing here converts. Rules:

- Names and category codes are stable: a code never changes its meaning. What changes is a new name or code; labels may
  be reworded at any time.
- A value is an `int`, a `bool` or a category code. `parse` takes one written form of each and no other.
- `encode` is the plaintext of an envelope: JSON as RFC 8785 writes it, so equal values are equal bytes. Its format is
  bound by the version in the encryption context, so there is no version byte in it.
- Errors name the attribute and what it expects, never the value.

Sources of the vocabulary: UCI Statlog German Credit, with the labels of the corrected code table (Groemping 2019, UCI
South German Credit), and UCI Default of Credit Card Clients (Yeh and Lien 2009). Where the source documents no meaning
for a code that its data contain, the label says so; nothing is guessed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from ledger.errors import UnknownAttributeError, ValueNotInCatalogueError

Value = int | str | bool
"""A value of an attribute: an integer, a category code or a truth value."""

Labels = Mapping[str, str]
"""What a person reads, by category code, in order of presentation."""


class Sensitivity(StrEnum):
    """How the law looks at an attribute; the gravest that any of the laws named here gives it."""

    ORDINARY = "ordinary"
    """Financial facts of the usual kind: personal data, and no more."""
    SENSITIVE = "sensitive"
    """Of a highly personal nature, or such that disclosure can exclude a person: arrears, default, dependants,
    schooling (WP 248 rev.01, criterion 4)."""
    PROTECTED = "protected"
    """A ground on which lending may not discriminate: sex, age, marital status, origin and nationality (Regulation B,
    12 CFR 1002.2(z); EU Charter, Art. 21; Directive (EU) 2023/2225, Art. 6)."""


class ValueType(StrEnum):
    """The form of a value."""

    INTEGER = "integer"
    CATEGORY = "category"
    BOOLEAN = "boolean"
    DOCUMENT = "document"
    """JSON that is made for the reader. No furnisher hands one in, so it has no form to be read from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribute:
    """One entry of the catalogue.

    `label` is what a person reads; `note` what they should know about its meaning, if anything. `unit` is `years`,
    `months` or a currency, `None` where there is none. Integers lie in `minimum..maximum`, both included. `categories`
    maps each code to what a person reads, in order of presentation.
    """

    name: str
    label: str
    type: ValueType
    sensitivity: Sensitivity = Sensitivity.ORDINARY
    unit: str | None = None
    minimum: int = 0
    maximum: int = 0
    categories: Labels = field(default_factory=dict, hash=False)
    note: str = ""

    def expected(self) -> str:
        """What a value must look like, for people."""
        if self.type is ValueType.INTEGER:
            unit = f" ({self.unit})" if self.unit else ""
            return f"a whole number from {self.minimum} to {self.maximum}{unit}"
        return f"one of {', '.join(self.categories)}" if self.categories else "true or false"

    def parse(self, text: str) -> Value:
        """Read a value: decimal digits with an optional `-`, a category code, or `true` and `false`.

        There is one form of each value: no blanks, no `+`, no leading zeros, no thousands separators.

        Raises `ValueNotInCatalogueError`.
        """
        if self.type is ValueType.INTEGER:
            number = _number(text)
            if number is not None:
                return self.check(number)
        elif self.type is ValueType.BOOLEAN:
            if text in ("true", "false"):
                return text == "true"
        elif text in self.categories:
            return text
        raise self._refusal()

    def check(self, value: object) -> Value:
        """`value` itself, if the attribute can have it.

        Raises `ValueNotInCatalogueError`.
        """
        if self.type is ValueType.INTEGER:
            # A bool is an int in Python, and not here.
            if isinstance(value, int) and not isinstance(value, bool) and self.minimum <= value <= self.maximum:
                return value
        elif self.type is ValueType.BOOLEAN:
            if isinstance(value, bool):
                return value
        elif isinstance(value, str) and value in self.categories:
            return value
        raise self._refusal()

    def encode(self, value: Value) -> bytes:
        """Canonical JSON of `value` (RFC 8785), such as `1169`, `true` or `"none"`.

        Raises `ValueNotInCatalogueError`.
        """
        return json.dumps(self.check(value)).encode("ascii")

    def decode(self, plaintext: bytes) -> Value:
        """What `encode` encoded, and nothing else: other spellings of the same JSON are refused.

        Raises `ValueNotInCatalogueError`.
        """
        # Not by json.loads: every value has one spelling, and nested brackets crash the interpreter once a library has
        # raised the recursion limit (py_ecc, below eth_account, does).
        text = plaintext.decode("ascii", errors="replace")
        if self.type is ValueType.CATEGORY:
            text, quoted = text[1:-1], text
            if quoted != f'"{text}"':
                raise self._refusal()
        return self.parse(text)

    def describe(self, value: Value) -> str:
        """`value` as a person reads it: `1169 DEM`, `yes`, or a category's label.

        Raises `ValueNotInCatalogueError`.
        """
        checked = self.check(value)
        if isinstance(checked, bool):
            return "yes" if checked else "no"
        if isinstance(checked, str):
            return self.categories[checked]
        return f"{checked} {self.unit}" if self.unit else str(checked)

    def _refusal(self) -> ValueNotInCatalogueError:
        return ValueNotInCatalogueError(f"{self.name}: expected {self.expected()}", field=self.name)


def _number(text: str) -> int | None:
    # The error of int() repeats what it read: it ends here, so that it is never chained to ours.
    try:
        number = int(text)
    except ValueError:
        return None
    # int() also reads "1_000", " 7" and other scripts' digits; only the canonical form comes back the same.
    return number if str(number) == text else None


def _attribute(
    name: str,
    label: str,
    form: Labels | tuple[str, int, int] | None,
    *,
    sensitivity: Sensitivity = Sensitivity.ORDINARY,
    note: str = "",
) -> Attribute:
    """An entry; `form` is its categories, or unit, minimum and maximum, or nothing for a truth value."""
    if form is None:
        kind = ValueType.BOOLEAN
        return Attribute(name=name, label=label, type=kind, sensitivity=sensitivity, note=note)
    if isinstance(form, tuple):
        kind, (unit, low, high) = ValueType.INTEGER, form
        return Attribute(
            name=name,
            label=label,
            type=kind,
            sensitivity=sensitivity,
            unit=unit,
            minimum=low,
            maximum=high,
            note=note,
        )
    kind, categories = ValueType.CATEGORY, MappingProxyType(dict(form))
    return Attribute(name=name, label=label, type=kind, sensitivity=sensitivity, categories=categories, note=note)


_SENSITIVE: Final = Sensitivity.SENSITIVE
_PROTECTED: Final = Sensitivity.PROTECTED
_BILLION: Final = 1_000_000_000

_SHARED: Final = (
    _attribute("age", "Age", ("years", 0, 125), sensitivity=_PROTECTED),
    _attribute("sex", "Sex", {"male": "male", "female": "female"}, sensitivity=_PROTECTED),
)

_GERMAN: Final = (
    _attribute(
        "checking_account_status",
        "Checking account with the bank",
        {
            "no_account": "no checking account",
            "overdrawn": "overdrawn (below 0 DM)",
            "below_200": "0 to below 200 DM",
            "from_200_or_salary": "200 DM or more, or salary paid in for at least a year",
        },
    ),
    _attribute("credit_duration", "Duration of the credit", ("months", 1, 600)),
    _attribute(
        "credit_history",
        "How earlier credits were paid back",
        {
            "delayed": "with delay in the past",
            "critical": "critical account, or credits elsewhere",
            "none_or_all_paid": "no credits taken, or all paid back duly",
            "existing_paid": "existing credits paid back duly until now",
            "all_paid_here": "all credits at this bank paid back duly",
        },
        sensitivity=_SENSITIVE,
    ),
    _attribute(
        "credit_purpose",
        "What the credit was for",
        {
            "car_new": "new car",
            "car_used": "used car",
            "furniture": "furniture or equipment",
            "radio_tv": "radio or television",
            "appliances": "domestic appliances",
            "repairs": "repairs",
            "education": "education",
            "vacation": "vacation",
            "retraining": "retraining",
            "business": "business",
            "other": "other",
        },
    ),
    _attribute("credit_amount", "Amount of the credit in Deutsche Mark", ("DEM", 1, _BILLION)),
    _attribute(
        "savings",
        "Savings",
        {
            "unknown_or_none": "unknown, or no savings account",
            "below_100": "below 100 DM",
            "below_500": "100 to below 500 DM",
            "below_1000": "500 to below 1000 DM",
            "from_1000": "1000 DM or more",
        },
    ),
    _attribute(
        "employment_duration",
        "Time with the present employer",
        {
            "unemployed": "unemployed",
            "below_1": "less than 1 year",
            "below_4": "1 to less than 4 years",
            "below_7": "4 to less than 7 years",
            "from_7": "7 years or more",
        },
    ),
    _attribute(
        "installment_rate",
        "Installments as a share of disposable income",
        {
            "from_35": "35 % or more",
            "below_35": "25 to below 35 %",
            "below_25": "20 to below 25 %",
            "below_20": "< 20 %",
        },
    ),
    _attribute(
        "personal_status_and_sex",
        "Marital status and sex, in one answer",
        {
            "male_divorced": "man, divorced or separated",
            "female_not_single_or_male_single": "woman, not single; or man, single",
            "male_married": "man, married or widowed",
            "female_single": "woman, single",
        },
        sensitivity=_PROTECTED,
        note="The source has one code for two groups, so neither sex nor marital status can be read from it.",
    ),
    _attribute(
        "other_debtors",
        "Others who answer for the credit",
        {"none": "nobody", "co_applicant": "a co-applicant", "guarantor": "a guarantor"},
    ),
    _attribute(
        "residence_duration",
        "Time at the present address",
        {
            "below_1": "less than 1 year",
            "below_4": "1 to less than 4 years",
            "below_7": "4 to less than 7 years",
            "from_7": "7 years or more",
        },
    ),
    _attribute(
        "property",
        "Most valuable property",
        {
            "unknown_or_none": "unknown, or none",
            "car_or_other": "car or other",
            "savings_agreement": "building society savings agreement or life insurance",
            "real_estate": "real estate",
        },
    ),
    _attribute(
        "other_installment_plans",
        "Installment plans elsewhere",
        {"bank": "at a bank", "stores": "at stores", "none": "none"},
    ),
    _attribute("housing", "Housing", {"free": "lives free of charge", "rent": "rents", "own": "owns"}),
    _attribute(
        "existing_credits",
        "Credits at this bank, this one included",
        {"one": "1", "two_or_three": "2 or 3", "four_or_five": "4 or 5", "six_or_more": "6 or more"},
    ),
    _attribute(
        "job",
        "Job",
        {
            "unskilled_non_resident": "unemployed, or unskilled and not resident",
            "unskilled_resident": "unskilled, resident",
            "skilled": "skilled employee or official",
            "highly_qualified": "manager, self-employed or highly qualified",
        },
        sensitivity=_SENSITIVE,
        note="One of its codes says where a person is resident.",
    ),
    _attribute(
        "dependants",
        "People who are entitled to maintenance",
        {"up_to_two": "0 to 2", "three_or_more": "3 or more"},
        sensitivity=_SENSITIVE,
    ),
    _attribute("telephone", "Telephone listed in own name", None),
    _attribute("foreign_worker", "Foreign worker", None, sensitivity=_PROTECTED),
    _attribute(
        "creditability",
        "Whether the credit was paid back as agreed",
        {"good": "paid back as agreed", "bad": "not paid back as agreed"},
        sensitivity=_SENSITIVE,
    ),
)

_UNDOCUMENTED: Final = "code {} (not documented by the source)"
_MONTHS: Final = {
    "2005_09": "September 2005",
    "2005_08": "August 2005",
    "2005_07": "July 2005",
    "2005_06": "June 2005",
    "2005_05": "May 2005",
    "2005_04": "April 2005",
}
_REPAYMENT: Final = {
    "duly": "paid duly",
    "late_1": "1 month late",
    **{f"late_{months}": f"{months} months late" for months in range(2, 9)},
    "late_9_or_more": "9 or more months late",
    "undocumented_0": _UNDOCUMENTED.format("0"),
    "undocumented_minus_2": _UNDOCUMENTED.format("-2"),
}


def _monthly(month: str, text: str) -> tuple[Attribute, ...]:
    return (
        _attribute(f"repayment_status_{month}", f"Repayment in {text}", _REPAYMENT, sensitivity=_SENSITIVE),
        _attribute(f"bill_amount_{month}", f"Card statement of {text}", ("TWD", -_BILLION, _BILLION)),
        _attribute(f"payment_amount_{month}", f"Paid in {text}", ("TWD", 0, _BILLION)),
    )


_TAIWAN: Final = (
    _attribute("limit_balance", "Credit limit, family cards included", ("TWD", 0, _BILLION)),
    _attribute(
        "education",
        "Education",
        {
            "graduate_school": "graduate school",
            "university": "university",
            "high_school": "high school",
            "other": "other",
            **{f"undocumented_{code}": _UNDOCUMENTED.format(code) for code in (0, 5, 6)},
        },
        sensitivity=_SENSITIVE,
    ),
    _attribute(
        "marriage",
        "Marital status",
        {
            "married": "married",
            "single": "single",
            "other": "other",
            "undocumented_0": _UNDOCUMENTED.format(0),
        },
        sensitivity=_PROTECTED,
    ),
    *(attribute for month, text in _MONTHS.items() for attribute in _monthly(month, text)),
    _attribute("default_next_month", "Defaulted in October 2005", None, sensitivity=_SENSITIVE),
)


def _by_name(attributes: Iterable[Attribute]) -> Mapping[str, Attribute]:
    listed = tuple(attributes)
    by_name = {entry.name: entry for entry in listed}
    if len(by_name) != len(listed):
        raise ValueError("two attributes of one name in the catalogue")
    return MappingProxyType(by_name)


ATTRIBUTES: Final[Mapping[str, Attribute]] = _by_name((*_SHARED, *_GERMAN, *_TAIWAN))
"""Every attribute by its name, in order of presentation."""

ACCESS_OPENINGS: Final = "access_openings"
ASKABLE: Final[Mapping[str, Attribute]] = MappingProxyType(
    {
        **ATTRIBUTES,
        ACCESS_OPENINGS: Attribute(
            name=ACCESS_OPENINGS,
            label="The record of who asked for my data",
            type=ValueType.DOCUMENT,
            # Where somebody asks for credit, and was refused, says much about them.
            sensitivity=_SENSITIVE,
        ),
    }
)
"""Everything that a consent may name: the attributes, and the person's own access records, which nobody furnishes."""


def attribute(name: str) -> Attribute:
    """The attribute called `name`.

    Raises `UnknownAttributeError`, which names it.
    """
    try:
        return ATTRIBUTES[name]
    except KeyError:
        raise UnknownAttributeError(f"attributes: {name!r} is not in the catalogue", field="attributes") from None
