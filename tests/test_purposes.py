"""Purposes: no consent may ask for more than its purpose justifies, and the refusal names the field."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.attributes import ACCESS_OPENINGS, ASKABLE, ATTRIBUTES, Sensitivity
from ledger.errors import (
    CeilingExceededError,
    InvalidWindowError,
    MalformedError,
    NoAccessAllowedError,
    RequestError,
    UnknownAttributeError,
    UnknownPurposeError,
)
from ledger.json_forms import DAY_SECONDS
from ledger.purposes import AUDIT, PURPOSES, Purpose, check_ceilings, purpose

START = 1_700_000_000
PROTECTED = {name for name, entry in ATTRIBUTES.items() if entry.sensitivity is Sensitivity.PROTECTED}
EVERY = pytest.mark.parametrize("chosen", PURPOSES.values(), ids=PURPOSES)


def at_the_ceiling(chosen: Purpose, **changes: Any) -> dict[str, Any]:
    """The arguments of the most that `chosen` allows, with `changes`."""
    return {
        "purpose_code": chosen.code,
        "attributes": tuple(sorted(chosen.attributes)),
        "valid_from": START,
        "expires_at": START + chosen.max_validity_days * DAY_SECONDS,
        "max_accesses": chosen.max_accesses,
        "accesses_per_day": chosen.max_accesses_per_day,
        "retention_days": chosen.max_retention_days,
    } | changes


def refused(error: type[RequestError], field: str, *fragments: str, **arguments: Any) -> None:
    with pytest.raises(RequestError) as caught:
        check_ceilings(**arguments)
    assert type(caught.value) is error
    assert caught.value.field == field
    assert caught.value.message.startswith(f"{field}: ")
    assert [fragment for fragment in fragments if fragment not in caught.value.message] == []


# ---------------------------------------------------------------------------------------------------- the catalogue


def test_purposes_are_the_closed_list_of_the_design() -> None:
    assert set(PURPOSES) == {"loan-origination", "account-review", "tenancy-check", "model-audit", "audit"}
    assert all(code == entry.code for code, entry in PURPOSES.items())


@EVERY
def test_every_purpose_has_ceilings_that_can_be_used_and_attributes_that_exist(chosen: Purpose) -> None:
    assert chosen.label
    assert chosen.description
    assert 1 <= chosen.max_accesses_per_day <= chosen.max_accesses < 2**32
    assert 1 <= chosen.max_validity_days <= 365
    assert 0 <= chosen.max_retention_days <= chosen.max_validity_days
    assert chosen.attributes
    assert chosen.attributes <= ASKABLE.keys()


def test_origination_sees_no_protected_ground_but_age() -> None:
    assert purpose("loan-origination").attributes & PROTECTED == {"age"}


@pytest.mark.parametrize("code", ["account-review", "tenancy-check"])
def test_reviews_and_tenancy_checks_see_no_protected_ground(code: str) -> None:
    assert purpose(code).attributes & PROTECTED == set()


def test_audit_can_measure_every_protected_ground_and_every_attribute_of_the_decisions() -> None:
    audited = purpose("model-audit").attributes
    assert audited >= PROTECTED
    assert all(audited >= entry.attributes for code, entry in PURPOSES.items() if code != AUDIT)


def test_access_records_are_for_an_audit_and_an_audit_is_for_access_records() -> None:
    assert purpose(AUDIT).attributes == {ACCESS_OPENINGS}
    assert [code for code, entry in PURPOSES.items() if ACCESS_OPENINGS in entry.attributes] == [AUDIT]


@pytest.mark.parametrize("code", ["loan-origination", "account-review", "tenancy-check"])
@pytest.mark.parametrize("name", ["telephone", "job", "education", "residence_duration"])
def test_decisions_do_not_see_what_is_no_financial_circumstance(code: str, name: str) -> None:
    assert name not in purpose(code).attributes


def test_tenancy_check_sees_no_amount_and_no_asset() -> None:
    seen = purpose("tenancy-check").attributes
    assert [name for name in seen if ATTRIBUTES[name].unit] == []
    assert seen & {"savings", "property", "dependants", "housing", "checking_account_status"} == set()


@pytest.mark.parametrize("code", ["", "marketing", "LOAN-ORIGINATION", "loan-origination ", None, ["audit"]])
def test_unknown_purpose_is_refused_with_the_list(code: Any) -> None:
    with pytest.raises(UnknownPurposeError, match="expected one of loan-origination, account-review") as caught:
        purpose(code)
    assert caught.value.field == "purpose"


# --------------------------------------------------------------------------------------------------------- ceilings


@EVERY
def test_exactly_the_ceiling_is_allowed(chosen: Purpose) -> None:
    check_ceilings(**at_the_ceiling(chosen))


@EVERY
def test_one_second_too_long_is_refused_with_the_limit(chosen: Purpose) -> None:
    seconds = chosen.max_validity_days * DAY_SECONDS
    arguments = at_the_ceiling(chosen, expires_at=START + seconds + 1)
    refused(CeilingExceededError, "expiresAt", str(seconds), chosen.code, **arguments)


@EVERY
@pytest.mark.parametrize(
    ("argument", "field", "limit"),
    [
        ("max_accesses", "maxAccesses", "max_accesses"),
        ("accesses_per_day", "accessesPerDay", "max_accesses_per_day"),
        ("retention_days", "retentionDays", "max_retention_days"),
    ],
)
def test_one_too_many_is_refused_with_the_limit(chosen: Purpose, argument: str, field: str, limit: str) -> None:
    ceiling = getattr(chosen, limit)
    arguments = at_the_ceiling(chosen, **{argument: ceiling + 1})
    refused(CeilingExceededError, field, f"at most {ceiling}", chosen.code, **arguments)


@EVERY
def test_one_attribute_too_many_is_refused_by_name(chosen: Purpose) -> None:
    for extra in ATTRIBUTES.keys() - chosen.attributes:
        arguments = at_the_ceiling(chosen, attributes=[min(chosen.attributes), extra])
        refused(CeilingExceededError, "attributes", extra, chosen.code, **arguments)


def test_landlord_who_asks_for_sex_age_and_origin_is_refused_all_three_by_name() -> None:
    asked = ["sex", "age", "foreign_worker", "creditability"]
    arguments = at_the_ceiling(purpose("tenancy-check"), attributes=asked)
    refused(CeilingExceededError, "attributes", "age, foreign_worker, sex", **arguments)


def test_unknown_purpose_is_refused_before_anything_else_is_looked_at() -> None:
    arguments = at_the_ceiling(purpose("tenancy-check"), purpose_code="marketing", attributes=[])
    refused(UnknownPurposeError, "purpose", **arguments)


@pytest.mark.parametrize(
    ("attributes", "error", "fragment"),
    [
        ([], MalformedError, "at least one"),
        (["age", "age"], MalformedError, "at most once"),
        ("age", MalformedError, "a list of names"),
        ([1], MalformedError, "a list of names"),
        (None, MalformedError, "a list of names"),
        (["age", "shoe_size", "Age"], UnknownAttributeError, "only names of the catalogue"),
    ],
)
def test_lists_that_are_no_sets_of_known_names_are_refused(
    attributes: Any, error: type[RequestError], fragment: str
) -> None:
    arguments = at_the_ceiling(purpose("model-audit"), attributes=attributes)
    refused(error, "attributes", fragment, **arguments)


@pytest.mark.parametrize("argument", ["max_accesses", "accesses_per_day"])
@pytest.mark.parametrize("given", [0, -1])
def test_zero_never_means_for_ever(argument: str, given: int) -> None:
    field = {"max_accesses": "maxAccesses", "accesses_per_day": "accessesPerDay"}[argument]
    arguments = at_the_ceiling(purpose("loan-origination"), **{argument: given})
    refused(NoAccessAllowedError, field, "1 or more", **arguments)


def test_more_accesses_a_day_than_in_all_are_refused() -> None:
    arguments = at_the_ceiling(purpose("loan-origination"), max_accesses=2, accesses_per_day=3)
    refused(MalformedError, "accessesPerDay", "at most maxAccesses", **arguments)


@pytest.mark.parametrize(("valid_from", "expires_at"), [(START, START), (START, START - 1), (-1, START), (0, 0)])
def test_windows_that_are_empty_or_backwards_are_refused(valid_from: int, expires_at: int) -> None:
    arguments = at_the_ceiling(purpose("loan-origination"), valid_from=valid_from, expires_at=expires_at)
    refused(InvalidWindowError, "expiresAt", "later than validFrom", **arguments)


def test_nothing_may_be_stored_is_a_valid_wish_and_less_than_nothing_is_not() -> None:
    check_ceilings(**at_the_ceiling(purpose("tenancy-check"), retention_days=0))
    refused(MalformedError, "retentionDays", "0 or more", **at_the_ceiling(purpose("tenancy-check"), retention_days=-1))


@pytest.mark.parametrize(
    ("argument", "field"),
    [
        ("valid_from", "validFrom"),
        ("expires_at", "expiresAt"),
        ("max_accesses", "maxAccesses"),
        ("accesses_per_day", "accessesPerDay"),
        ("retention_days", "retentionDays"),
    ],
)
@pytest.mark.parametrize("given", [True, 1.0, "1", None])
def test_what_is_no_whole_number_is_refused(argument: str, field: str, given: Any) -> None:
    arguments = at_the_ceiling(purpose("loan-origination"), **{argument: given})
    refused(MalformedError, field, "a whole number", **arguments)


@given(st.data())
def test_narrower_than_an_allowed_consent_is_always_allowed(data: st.DataObject) -> None:
    chosen = data.draw(st.sampled_from(list(PURPOSES.values())))
    accesses = data.draw(st.integers(1, chosen.max_accesses))
    names = st.sampled_from(sorted(chosen.attributes))
    check_ceilings(
        purpose_code=chosen.code,
        attributes=data.draw(st.lists(names, min_size=1, unique=True)),
        valid_from=START,
        expires_at=START + data.draw(st.integers(1, chosen.max_validity_days * DAY_SECONDS)),
        max_accesses=accesses,
        accesses_per_day=data.draw(st.integers(1, min(accesses, chosen.max_accesses_per_day))),
        retention_days=data.draw(st.integers(0, chosen.max_retention_days)),
    )
