"""A person's own audit: what they were not told of shows, and what they were told and is not so."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from actors import DAY, Subject, World
from altering import oddities
from courts import execute, registered
from on_chain import facts_of

from ledger.audit_report import Verdict
from ledger.consent import Hex32
from ledger.disclosure import Disclosure
from ledger.errors import ConsentError, MalformedError
from ledger.scrutiny import Facts
from ledger.subject_audit import JudgedSubject, judge_subject, read_export


def export_of(world: World, subject: Subject | None = None) -> dict[str, Any]:
    """As the portal gives it."""
    ref = (subject or world.subject).ref
    made = world.custodian.subject_export.of_subject(world.custodian.vault.subject_of(ref))
    return json.loads(json.dumps(made))  # type: ignore[no-any-return] # JSON


def facts(world: World, export: dict[str, Any]) -> Facts:
    """What the chain shows of this person's accounts and of the orders that they know of."""
    told = read_export(export)
    document = Disclosure(
        domain=world.chain.domain, custodian_keys=(), institution_keys={}, consents=told.consents, entries=()
    )
    found = facts_of(world.chain, document)
    accounts = {one.grant.subject for one in told.consents} or {world.subject.address}
    known = {one.consent_id for one in told.consents} | {one.entry.consent_id for one in told.accesses}
    mine = {one for one, account in found.subjects.items() if account in accounts} | known
    return facts_of(
        world.chain,
        document,
        entries=tuple(one for one in found.entries or () if one.consent_id in mine),
        subjects={one: account for one, account in found.subjects.items() if one in mine},
        changes=tuple(one for one in found.changes if one.consent_id in mine),
    )


def judged(world: World, export: dict[str, Any], told: dict[str, Any] | None = None) -> JudgedSubject:
    """The chain of now against an export."""
    return judge_subject(read_export(told or export), facts(world, export), domain=world.chain.domain)


def codes(found: JudgedSubject) -> set[str]:
    return {one.code for one in found.all_findings}


@pytest.fixture
def consent_id(world: World) -> Hex32:
    """Two accesses and a refusal, all on the log."""
    consent_id = world.grant()
    world.ask(consent_id)
    world.ask(consent_id, attributes=("savings",))
    with pytest.raises(ConsentError):
        world.ask(consent_id, attributes=("credit_duration",))
    world.custodian.releases.log_refusals()
    return consent_id


@pytest.mark.usefixtures("consent_id")
def test_a_person_who_was_told_everything_sees_that(world: World) -> None:
    found = judged(world, export_of(world))
    assert found.verdict is Verdict.CLEAN
    assert [one.outcome for one in found.accesses] == ["recorded", "recorded", "refused"]
    assert [one.entry and one.entry.attributes for one in found.accesses] == [
        ("credit_amount",),
        ("savings",),
        ("credit_duration",),
    ]


@pytest.mark.usefixtures("consent_id")
@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_access_that_the_person_was_not_told_of_is_found(world: World, place: int) -> None:
    export = export_of(world)
    del export["activity"][place]
    found = judged(world, export)
    assert codes(found) == {"access_untold"}
    assert len(found.all_findings) == 1


@pytest.mark.usefixtures("consent_id")
@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_access_that_was_logged_twice_is_found_with_an_export_and_without(world: World, place: int) -> None:
    export = export_of(world)
    found = facts(world, export)
    entries = found.entries or ()
    twice = replace(found, entries=(*entries, replace(entries[place], at=entries[place].at + 1)))
    for told in (read_export(export), None):
        assert codes(judge_subject(told, twice, domain=world.chain.domain)) == {"double_entry"}


def test_a_consent_that_the_person_was_not_told_of_is_found(world: World, consent_id: Hex32) -> None:
    other = world.grant()
    world.ask(other)
    whole = export_of(world)
    less = export_of(world)
    less["consents"] = [one for one in whole["consents"] if one["consentId"] == consent_id]
    less["activity"] = [one for one in whole["activity"] if one["consentId"] == consent_id]
    assert codes(judged(world, whole, less)) == {"consent_untold", "access_untold"}


def test_what_came_after_the_export_is_no_finding_and_not_clean(world: World, consent_id: Hex32) -> None:
    export = export_of(world)
    world.clock.advance(60)
    world.ask(consent_id)
    found = judged(world, export)
    assert (found.verdict, codes(found)) == (Verdict.UNVERIFIED, set())
    assert judged(world, export_of(world)).verdict is Verdict.CLEAN


@pytest.mark.usefixtures("consent_id")
def test_an_access_that_is_not_on_chain_is_found(world: World) -> None:
    export = export_of(world)
    world.chain.reorg(1)
    assert codes(judged(world, export)) == {"entry_not_on_chain"}


@pytest.mark.usefixtures("consent_id")
@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"outcome": "refused"}, "outcome_differs"),
        ({"entryHash": "0x" + "ab" * 32}, "access_untold"),
    ],
)
def test_an_access_that_is_something_else_on_chain_is_found(world: World, change: dict[str, Any], code: str) -> None:
    export = export_of(world)
    export["activity"][-1] |= change
    assert code in codes(judged(world, export))


@pytest.mark.usefixtures("consent_id")
@pytest.mark.parametrize(
    ("name", "value"), [("purpose", "account-review"), ("attributes", ["credit_duration"]), ("institution", "bank-2")]
)
def test_an_access_that_was_told_otherwise_than_it_was_logged_is_found(world: World, name: str, value: object) -> None:
    export = export_of(world)
    export["activity"][-1]["entry"][name] = value
    assert "opening_differs" in codes(judged(world, export))


@pytest.mark.usefixtures("consent_id")
def test_a_refusal_told_as_a_read_and_with_another_reason_is_found(world: World) -> None:
    for change in ({"outcome": "released"}, {"reason": "disputed"}):
        export = export_of(world)
        (refused,) = [one for one in export["activity"] if one["outcome"] == "refused"]
        refused |= change
        assert codes(judged(world, export)) == {"outcome_differs"}


@pytest.mark.usefixtures("consent_id")
def test_a_consent_that_the_person_did_not_sign_is_found(world: World) -> None:
    export = export_of(world)
    (consent,) = export["consents"]
    consent["signature"] = "0x" + "12" * 65
    assert codes(judged(world, export)) == {"subject_signature"}
    consent["grant"]["maxAccesses"] = 9
    assert "consent_differs" in codes(judged(world, export))


def test_a_late_access_is_found(world: World) -> None:
    grant = world.grant_of(world.grant())
    (consent_id,) = [one["consentId"] for one in export_of(world)["consents"]]
    world.ask(consent_id)
    world.chain.reorg(1, meanwhile=lambda: world.subject.revoke_directly(world.chain, grant))
    world.custodian.sync()
    assert codes(judged(world, export_of(world))) == {"late"}


def test_an_order_that_the_person_may_know_of_is_among_the_accesses(world: World, consent_id: Hex32) -> None:
    registered(world)
    execute(world, embargo_until=world.clock() + 30 * DAY)
    before = judged(world, export_of(world))
    assert (before.verdict, len(before.accesses)) == (Verdict.CLEAN, 3)
    world.clock.advance(31 * DAY)
    export = export_of(world)
    found = judged(world, export)
    assert (found.verdict, [one.outcome for one in found.accesses][-1]) == (Verdict.CLEAN, "compelled")
    export["orders"][0]["order"]["reference"] = "another one"
    assert judged(world, export).verdict is not Verdict.CLEAN
    assert consent_id


def test_an_order_that_was_told_as_refused_is_found(world: World) -> None:
    registered(world)
    execute(world, embargo_until=0)
    for place in ("as told", None):
        export = export_of(world)
        (order,) = export["orders"]
        order |= {"outcome": "refused"} | ({} if place else {"place": None})
        assert codes(judged(world, export)) == {"outcome_differs"}


@pytest.mark.usefixtures("consent_id")
@pytest.mark.parametrize(
    ("outcome", "seconds", "verdict"),
    [
        # Long on the log when the person was told that it was not.
        ("waiting", 61, Verdict.FINDINGS),
        ("aborted", 61, Verdict.FINDINGS),
        # Nobody can tell which came first.
        ("waiting", 60, Verdict.UNVERIFIED),
        ("waiting", 0, Verdict.UNVERIFIED),
        # It was so then.
        ("waiting", -60, Verdict.UNVERIFIED),
        # The worse was told, and where it stands was not.
        ("released", 61, Verdict.UNVERIFIED),
    ],
)
def test_an_access_that_was_on_the_log_is_not_told_as_one_that_was_not(
    world: World, outcome: str, seconds: int, verdict: Verdict
) -> None:
    export = export_of(world)
    found = facts(world, export)
    (at,) = {one.at for one in found.entries or ()}
    export["exportedAt"] = at + seconds
    one = next(one for one in export["activity"] if one["outcome"] == "released")
    one |= {"outcome": outcome, "place": None}
    if seconds < 0:
        # The others came before it.
        others = tuple(
            it if it.entry_hash == one["entryHash"] else replace(it, at=at + seconds) for it in found.entries or ()
        )
        found = replace(found, entries=others)
    made = judge_subject(read_export(export), found, domain=world.chain.domain)
    assert (made.verdict, codes(made)) == (verdict, {"outcome_differs"} if verdict is Verdict.FINDINGS else set())


def test_a_refusal_that_was_logged_after_the_export_is_as_it_was_told(world: World) -> None:
    consent_id = world.grant()
    with pytest.raises(ConsentError):
        world.ask(consent_id, attributes=("credit_duration",))
    export = export_of(world)
    world.clock.advance(60)
    world.custodian.releases.log_refusals()
    assert judged(world, export).verdict is Verdict.CLEAN


def test_without_an_export_the_chain_alone_lists_the_accesses(world: World, consent_id: Hex32) -> None:
    found = judge_subject(None, facts(world, export_of(world)), domain=world.chain.domain)
    assert [one.consent_id for one in found.accesses] == [consent_id] * 3
    assert all(one.entry is None for one in found.accesses)


@pytest.mark.usefixtures("consent_id")
def test_without_a_chain_nothing_is_verified(world: World) -> None:
    found = judge_subject(read_export(export_of(world)), Facts(), domain=world.chain.domain)
    assert found.verdict is Verdict.UNVERIFIED


@pytest.mark.usefixtures("consent_id")
def test_nothing_odd_in_an_export_is_anything_but_malformed_or_judged(world: World) -> None:
    registered(world)
    execute(world, embargo_until=0)
    export = export_of(world)
    export = {name: export[name] for name in ("exportedAt", "consents", "activity", "orders")}
    export["activity"] = export["activity"][:1]
    found = facts(world, export)
    for _, other in oddities(export):
        try:
            told = read_export(other)
        except MalformedError:
            continue
        judge_subject(told, found, domain=world.chain.domain)


@pytest.mark.parametrize("other", [{}, {"exportedAt": 1}, {"exportedAt": 1, "consents": 7, "activity": []}])
def test_what_is_no_export_is_refused(other: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        read_export(other)


def test_an_access_that_a_reorganisation_moved_behind_its_consents_end_is_no_lie_of_the_custodian(world: World) -> None:
    consent = world.grant()
    world.ask(consent)
    grant = world.grant_of(consent)
    world.chain.reorg(1, keep=True, meanwhile=lambda: world.subject.revoke_directly(world.chain, grant))
    world.custodian.sync()
    assert world.logged("AccessLate") == world.logged("AccessRefused") != []
    assert codes(judged(world, export_of(world))) <= {"late"}
