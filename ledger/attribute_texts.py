"""What each attribute of the catalogue means, in a sentence or two for the person it is about. Pure.

A description may be reworded at any time: what counts is the name. A test holds every attribute to having one.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from ledger.attributes import ACCESS_OPENINGS, ASKABLE

_MONTHLY: Final = {
    "repayment_status_": "Whether that month's card bill was paid on time, or how many months late.",
    "bill_amount_": "What your card statement of that month said you owed.",
    "payment_amount_": "What you paid towards your card in that month.",
}
_TEXTS: Final = {
    "age": "Your age in whole years when the data were recorded.",
    "sex": "Your sex as the source recorded it.",
    "checking_account_status": "Whether you have a checking account with the bank, and how much was on it.",
    "credit_duration": "Over how many months the credit was to be paid back.",
    "credit_history": "How you paid back credits that you had before this one.",
    "credit_purpose": "What you said the credit was for.",
    "credit_amount": "How much money the credit was about.",
    "savings": "How much you had in savings accounts or bonds.",
    "employment_duration": "How long you had been working for your employer.",
    "installment_rate": "How much of your disposable income the installments of the credit took.",
    "personal_status_and_sex": "Marital status and sex, which the source recorded as one answer.",
    "other_debtors": "Whether someone else answers for the credit together with you.",
    "residence_duration": "How long you had been living at your address.",
    "property": "The most valuable thing that you own, as the source recorded it.",
    "other_installment_plans": "Whether you were paying installments elsewhere, at a bank or in stores.",
    "housing": "Whether you rent, own, or live free of charge.",
    "existing_credits": "How many credits you have or had at this bank.",
    "job": "What kind of work you do.",
    "dependants": "How many people you have to support.",
    "telephone": "Whether a telephone was listed in your own name.",
    "foreign_worker": "Whether you were recorded as a worker from abroad.",
    "creditability": "Whether this credit was paid back as agreed.",
    "limit_balance": "How much credit your card allows in all, family cards included.",
    "education": "The highest schooling that the source recorded.",
    "marriage": "Your marital status as the source recorded it.",
    ACCESS_OPENINGS: (
        "Your consents with your signatures, and every request under them with where it stands on the public log. "
        "No values."
    ),
    "default_next_month": "Whether a payment that was due in October 2005 was missed.",
}


def _described(name: str) -> str:
    text = next((text for prefix, text in _MONTHLY.items() if name.startswith(prefix)), _TEXTS.get(name, ""))
    return " ".join(part for part in (text, ASKABLE[name].note) if part)


DESCRIPTIONS: Final[Mapping[str, str]] = MappingProxyType({name: _described(name) for name in ASKABLE})
"""By name, in the order of the catalogue."""


def description_of(name: str) -> str:
    """What it means; nothing for a name that is not in the catalogue."""
    return DESCRIPTIONS.get(name, "")
