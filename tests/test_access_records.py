"""The purpose `audit`: an auditor reads who read, under a consent like any other, and is on the log for it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from actors import DAY, Furnisher, Institution, World

from ledger.access import AccessEntry, records_hash_of
from ledger.attributes import ACCESS_OPENINGS
from ledger.compelled import NewOrder
from ledger.consent import ZERO32, Hex32
from ledger.disclosed import judge
from ledger.disclosure import Disclosure, read_disclosure
from ledger.errors import (
    AttributeNotConsentedError,
    CeilingExceededError,
    ConsentExhaustedError,
    ConsentExpiredError,
    ConsentRevokedError,
    DailyLimitError,
    ErasedError,
    PurposeMismatchError,
    ReleaseAbortedError,
    UnknownAttributeError,
    WrongInstitutionError,
)
from ledger.purposes import AUDIT
from ledger.release import Release
from ledger.scrutiny import Facts, Keyring


class Killed(BaseException):
    """What a process does not survive."""


def die() -> None:
    raise Killed


@pytest.fixture
def auditor(world: World) -> Institution:
    auditor = Institution("auditor-1", "Consumer Watch")
    auditor.register(world.custodian)
    return auditor


def granted(world: World, auditor: Institution, **changes: Any) -> Hex32:
    fields = {"purpose": AUDIT, "attributes": (ACCESS_OPENINGS,), "accesses_per_day": 1, "max_accesses": 3}
    return world.subject.grant(world.custodian, auditor, **(fields | changes))


def ask(world: World, auditor: Institution, consent: Hex32, **changes: Any) -> Release:
    fields: dict[str, Any] = {"purpose": AUDIT, "attributes": (ACCESS_OPENINGS,)}
    return world.custodian.releases.release(auditor.request(world.custodian, consent, **(fields | changes)))


def disclosed(world: World, auditor: Institution, release: Release) -> Disclosure:
    held = auditor.open(world.custodian, release.sealed)["values"]
    assert list(held) == [ACCESS_OPENINGS]
    return read_disclosure(json.loads(held[ACCESS_OPENINGS]["value"]))


# ------------------------------------------------------------------------------------------------------------ the way


def test_an_auditor_reads_every_consent_and_every_access_with_what_checks_it(
    world: World, auditor: Institution
) -> None:
    loan = world.grant()
    first = world.ask(loan)
    with pytest.raises(PurposeMismatchError):
        world.ask(loan, purpose="account-review")
    world.custodian.releases.log_refusals()
    consent = granted(world, auditor)
    found = disclosed(world, auditor, ask(world, auditor, consent))
    assert {one.consent_id for one in found.consents} == {loan, consent}
    assert [one.outcome for one in found.entries] == ["recorded", "refused"]
    assert [one.entry_hash for one in found.entries] == world.logged()[:1] + world.logged("AccessRefused")
    assert found.entries[0].entry.release_id == first.release_id
    judged = judge(found, Facts(), Keyring(), domain=world.chain.domain)
    assert [finding for one in judged.entries for finding in one.findings] == []


def test_no_value_of_an_attribute_is_in_it(world: World, auditor: Institution) -> None:
    world.ask(world.grant(), attributes=("credit_amount", "savings"))
    release = ask(world, auditor, granted(world, auditor))
    text = json.dumps(auditor.open(world.custodian, release.sealed))
    assert "below_100" not in text
    # As a value; the digits alone may be in any hash.
    assert ": 1169" not in text


def test_the_auditors_own_read_is_on_the_log_in_the_activity_and_in_the_next_disclosure(
    world: World, auditor: Institution
) -> None:
    world.ask(world.grant())
    consent = granted(world, auditor)
    release = ask(world, auditor, consent)
    subject_id = world.custodian.vault.subject_of(world.subject.ref)
    newest, _ = world.custodian.activity.page(subject_id)
    assert (newest.institution_name, newest.purpose, newest.outcome) == ("Consumer Watch", AUDIT, "released")
    assert newest.attributes == (ACCESS_OPENINGS,)
    assert newest.place is not None
    assert newest.entry_hash == world.logged()[-1]
    assert world.chain.consent(consent).accesses == 1
    world.clock.advance(DAY)
    again = disclosed(world, auditor, ask(world, auditor, consent))
    own = [one for one in again.entries if one.entry.institution == "auditor-1"]
    assert [one.entry.release_id for one in own] == [release.release_id]
    judged = judge(again, Facts(), Keyring(), domain=world.chain.domain)
    assert [finding for one in judged.entries for finding in one.findings] == []


def test_the_entry_binds_the_very_openings_that_were_read(world: World, auditor: Institution) -> None:
    world.ask(world.grant())
    consent = granted(world, auditor)
    subject_id = world.custodian.vault.subject_of(world.subject.ref)
    with world.custodian.store.read() as tx:
        records = world.custodian.access_records.sealed(tx, subject_id)
    release = ask(world, auditor, consent)
    row = world.custodian.journal.release_row(release.release_id)
    assert row is not None
    entry = world.custodian.releases.opening(row)
    assert isinstance(entry, AccessEntry)
    assert len(records) == 3
    assert entry.records_hash == records_hash_of(record.envelope.digest() for record in records)


def test_nothing_is_opened_for_an_auditor_before_the_read_is_on_chain(
    world: World, auditor: Institution, monkeypatch: pytest.MonkeyPatch
) -> None:
    consent, logged = granted(world, auditor), []
    own = world.custodian.disclosing.of_records

    def watched(*args: Any, **more: Any) -> Any:
        logged.append(len(world.logged()))
        return own(*args, **more)

    monkeypatch.setattr(world.custodian.disclosing, "of_records", watched)
    ask(world, auditor, consent)
    assert logged == [1]


def test_a_read_that_a_crash_cut_off_after_it_was_logged_is_resumed(world: World, auditor: Institution) -> None:
    world.ask(world.grant())
    consent = granted(world, auditor)
    world.steps.at("6 before decrypting", die)
    message = auditor.request(world.custodian, consent, purpose=AUDIT, attributes=(ACCESS_OPENINGS,), key="once")
    with pytest.raises(Killed):
        world.custodian.releases.release(message)
    world.restart()
    # What came after it was logged is not what its entry binds.
    world.ask(world.grant())
    release = world.custodian.releases.release(auditor.sign(message, at=world.clock()))
    assert len(disclosed(world, auditor, release).entries) == 1
    assert len(world.logged()) == 3


def test_what_an_authority_ordered_under_an_embargo_is_not_in_it(world: World, auditor: Institution) -> None:
    court = Institution("court-1", "District Court")
    world.custodian.registry.add_authority("court-1", court.name, court.jwks, at=world.clock())
    done = world.custodian.orders.execute(
        NewOrder(
            authority="court-1",
            reference="12 C 345/26",
            document_hash=ZERO32,
            subject_id=world.custodian.vault.subject_of(world.subject.ref),
            attributes=("savings",),
            embargo_until=world.clock() + DAY,
        )
    )
    release = ask(world, auditor, granted(world, auditor))
    text = json.dumps(disclosed(world, auditor, release).as_json())
    assert "court-1" not in text
    assert done.order_hash not in text


# ------------------------------------------------------------------------------------------------------------- refused


def test_an_audit_names_access_records_only_and_nothing_else_names_them(world: World, auditor: Institution) -> None:
    for attributes in (("credit_amount",), (ACCESS_OPENINGS, "savings")):
        with pytest.raises(CeilingExceededError):
            granted(world, auditor, attributes=attributes)
    for purpose in ("loan-origination", "account-review", "tenancy-check", "model-audit"):
        with pytest.raises(CeilingExceededError):
            world.grant(purpose=purpose, attributes=(ACCESS_OPENINGS,), max_accesses=1, accesses_per_day=1)


@pytest.mark.parametrize(
    "changes", [{"max_accesses": 4}, {"accesses_per_day": 2}, {"retention_days": 32}], ids=lambda one: next(iter(one))
)
def test_an_audit_is_short_and_reads_seldom(world: World, auditor: Institution, changes: dict[str, int]) -> None:
    with pytest.raises(CeilingExceededError):
        granted(world, auditor, **changes)
    with pytest.raises(CeilingExceededError):
        granted(world, auditor, expires_at=world.clock() + 31 * DAY + 1)


def test_no_furnisher_can_hand_in_access_records_and_no_authority_can_order_them(world: World) -> None:
    furnisher = Furnisher()
    furnisher.register(world.custodian)
    with pytest.raises(UnknownAttributeError):
        furnisher.put(world.custodian, world.subject.ref, {ACCESS_OPENINGS: "{}"})
    world.custodian.registry.add_authority("court-1", "Court", world.institution.jwks, at=world.clock())
    order = NewOrder(
        authority="court-1",
        reference="1/26",
        document_hash=ZERO32,
        subject_id=world.custodian.vault.subject_of(world.subject.ref),
        attributes=(ACCESS_OPENINGS,),
    )
    with pytest.raises(UnknownAttributeError):
        world.custodian.orders.execute(order)


def test_an_auditor_that_the_consent_does_not_name_reads_nothing(world: World, auditor: Institution) -> None:
    consent = granted(world, auditor)
    with pytest.raises(WrongInstitutionError):
        ask(world, world.institution, consent)
    assert world.logged() == []


def test_a_consent_for_a_loan_lets_no_one_read_the_access_records(world: World) -> None:
    loan = world.grant()
    with pytest.raises(PurposeMismatchError):
        ask(world, world.institution, loan)
    with pytest.raises(AttributeNotConsentedError):
        world.ask(loan, attributes=(ACCESS_OPENINGS,))


@pytest.mark.parametrize("attributes", [("credit_amount",), (ACCESS_OPENINGS, "credit_amount")])
def test_a_consent_for_an_audit_lets_no_one_read_credit_data(
    world: World, auditor: Institution, attributes: tuple[str, ...]
) -> None:
    consent = granted(world, auditor)
    with pytest.raises(AttributeNotConsentedError):
        ask(world, auditor, consent, attributes=attributes)
    with pytest.raises(PurposeMismatchError):
        ask(world, auditor, consent, purpose="loan-origination", attributes=("credit_amount",))


def test_an_audit_ends_by_time_by_number_and_by_the_person(world: World, auditor: Institution) -> None:
    once = granted(world, auditor, max_accesses=1)
    ask(world, auditor, once)
    with pytest.raises((ConsentExhaustedError, DailyLimitError)):
        ask(world, auditor, once)
    stopped = granted(world, auditor)
    world.subject.revoke(world.custodian, stopped)
    with pytest.raises(ConsentRevokedError):
        ask(world, auditor, stopped)
    over = granted(world, auditor)
    world.clock.advance(31 * DAY)
    world.chain.mine()
    with pytest.raises(ConsentExpiredError):
        ask(world, auditor, over)


def test_an_erasure_in_the_middle_of_it_discloses_nothing(world: World, auditor: Institution) -> None:
    world.ask(world.grant())
    consent = granted(world, auditor)
    world.steps.at("6 before answer durable", lambda: world.custodian.eraser.erase(world.subject.ref))
    with pytest.raises((ErasedError, ConsentRevokedError, ReleaseAbortedError)):
        ask(world, auditor, consent)
