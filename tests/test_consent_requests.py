"""Consent requests: asked within the ceilings, answered once and by the link, with what was asked or with less."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from actors import DAY, Institution, Subject, World, id_of
from sqlalchemy import select

from ledger.consent import ZERO32, ConsentGrant, Hex32, Reason
from ledger.consent_requests import ConsentRequest, token_of
from ledger.errors import (
    CeilingExceededError,
    ChainUnavailableError,
    ConflictError,
    ConsentAlreadyGrantedError,
    ConsentAlreadyRevokedError,
    ConsentRevokedError,
    ErasedError,
    InvalidSignatureError,
    LedgerError,
    MalformedError,
    NoAccessAllowedError,
    NotFoundError,
    OutsideRequestError,
    UnknownAttributeError,
    UnknownPurposeError,
)
from ledger.exchange import Party
from ledger.purposes import PURPOSES
from ledger.registry import StoredConsent
from ledger.store import consent_requests

UNKNOWN = Hex32("0x" + "77" * 32)
NO_TOKEN = "A" * 43


class Killed(BaseException):
    """What a process does not survive."""


def die() -> None:
    raise Killed


def party(world: World, institution: Institution | None = None) -> Party:
    return world.custodian.registry.institution((institution or world.institution).institution_id)


def ask(world: World, institution: Institution | None = None, **changes: Any) -> ConsentRequest:
    """A loan decision: one attribute needed, one that may be left out."""
    fields: dict[str, Any] = {
        "purpose": "loan-origination",
        "attributes": ["credit_amount"],
        "optional_attributes": ["savings"],
        "validity_days": 31,
        "max_accesses": 3,
        "accesses_per_day": 2,
        "retention_days": 31,
    }
    return world.custodian.requests.ask(party(world, institution), **(fields | changes))


def link_of(request: ConsentRequest) -> str:
    assert request.link is not None
    return token_of(request.link)


def draft(world: World, request: ConsentRequest, **chosen: Any) -> ConsentGrant:
    return world.custodian.requests.draft(link_of(request), world.subject.address, **chosen)


def accept(
    world: World, request: ConsentRequest, grant: ConsentGrant | None = None, *, subject: Subject | None = None
) -> StoredConsent:
    """The subject signs a draft, the default one unless another is given, and hands it in by the link."""
    person = subject or world.subject
    grant = grant or draft(world, request)
    return world.custodian.requests.accept(
        link_of(request), grant, person.sign(world.custodian, grant), world.custodian.vault.subject_of(person.ref)
    )


def now_of(world: World, request: ConsentRequest) -> ConsentRequest:
    return world.custodian.requests.get(request.request_id, party(world))


def status(world: World, consent: Hex32) -> Reason:
    return world.chain.statuses([consent], world.custodian.address)[0]


def require_no_consent(world: World) -> None:
    assert world.custodian.registry.consents() == []
    assert world.custodian.journal.pending_acts() == []


# --------------------------------------------------------------------------------------------------------------- asking


def test_a_request_says_what_was_asked_to_both_sides_and_gives_its_link_to_the_institution(world: World) -> None:
    request = ask(world)
    now = world.clock.now
    assert request == ConsentRequest(
        request_id=request.request_id,
        institution="bank-1",
        institution_name="First Bank",
        purpose="loan-origination",
        attributes=("credit_amount",),
        optional_attributes=("savings",),
        validity_days=31,
        max_accesses=3,
        accesses_per_day=2,
        retention_days=31,
        replaces=ZERO32,
        notice_hash=world.custodian.notices.current("loan-origination").notice_hash,
        created_at=now,
        answer_by=now + 30 * DAY,
        state="pending",
        consent_id=None,
        link=f"{world.config.service_url}/requests/{link_of(request)}",
    )
    assert now_of(world, request) == request
    assert world.custodian.requests.opened(link_of(request)) == replace(request, link=None)


@pytest.mark.parametrize(
    ("changes", "error", "field"),
    [
        ({"purpose": "curiosity"}, UnknownPurposeError, "purpose"),
        ({"attributes": []}, MalformedError, "attributes"),
        ({"attributes": ["shoe_size"]}, UnknownAttributeError, "attributes"),
        ({"attributes": ["telephone"]}, CeilingExceededError, "attributes"),
        ({"attributes": ["credit_amount", "credit_amount"]}, MalformedError, "attributes"),
        ({"optional_attributes": ["shoe_size"]}, UnknownAttributeError, "optionalAttributes"),
        ({"optional_attributes": ["telephone"]}, CeilingExceededError, "optionalAttributes"),
        ({"optional_attributes": ["savings", "savings"]}, MalformedError, "optionalAttributes"),
        ({"optional_attributes": ["credit_amount"]}, MalformedError, "optionalAttributes"),
        ({"validity_days": 0}, MalformedError, "validityDays"),
        ({"validity_days": True}, MalformedError, "validityDays"),
        ({"validity_days": 32}, CeilingExceededError, "validityDays"),
        ({"validity_days": 10**30}, CeilingExceededError, "validityDays"),
        ({"max_accesses": 0}, NoAccessAllowedError, "maxAccesses"),
        ({"max_accesses": 4}, CeilingExceededError, "maxAccesses"),
        ({"accesses_per_day": 0}, NoAccessAllowedError, "accessesPerDay"),
        ({"max_accesses": 1}, MalformedError, "accessesPerDay"),
        ({"retention_days": -1}, MalformedError, "retentionDays"),
        ({"retention_days": 32}, CeilingExceededError, "retentionDays"),
        ({"answer_within_days": 0}, MalformedError, "answerWithinDays"),
        ({"answer_within_days": 91}, MalformedError, "answerWithinDays"),
        ({"replaces": UNKNOWN}, NotFoundError, "replaces"),
    ],
)
def test_a_request_for_too_much_is_refused_by_the_apis_name_of_the_field_and_is_not_on_file(
    world: World, changes: dict[str, Any], error: type[LedgerError], field: str
) -> None:
    with pytest.raises(error) as caught:
        ask(world, **changes)
    assert type(caught.value) is error
    assert caught.value.field == field
    assert caught.value.message.startswith(f"{field}: ")
    assert world.custodian.requests.listed(party(world), limit=10) == []


def test_a_window_that_is_too_long_is_said_in_days(world: World) -> None:
    with pytest.raises(CeilingExceededError, match="validityDays: loan-origination allows at most 31"):
        ask(world, validity_days=32)


def test_what_is_not_yours_to_amend_is_not_told_from_what_does_not_exist(world: World) -> None:
    elsewhere = world.subject.grant(world.custodian, world.another_institution())
    revoked, erased = world.grant(), world.another_subject()
    world.subject.revoke(world.custodian, revoked)
    gone = erased.grant(world.custodian, world.institution)
    world.custodian.eraser.erase(erased.ref)
    messages = set()
    for consent in (elsewhere, revoked, gone, UNKNOWN):
        with pytest.raises(NotFoundError) as caught:
            ask(world, replaces=consent)
        messages.add((caught.value.message, caught.value.field))
    assert len(messages) == 1
    assert ask(world, replaces=world.grant()).state == "pending"


def test_requests_of_others_do_not_exist(world: World) -> None:
    other = world.another_institution()
    request = ask(world)
    refusals = set()
    for request_id in (request.request_id, "no-such-request"):
        with pytest.raises(NotFoundError) as caught:
            world.custodian.requests.get(request_id, party(world, other))
        refusals.add(caught.value.message)
    assert len(refusals) == 1
    assert world.custodian.requests.listed(party(world, other), limit=10) == []
    with pytest.raises(NotFoundError):
        world.custodian.requests.listed(party(world, other), limit=10, after=request.request_id)


def test_requests_are_listed_newest_first_page_by_page_and_without_their_links(world: World) -> None:
    made = []
    for _ in range(5):
        made.append(ask(world).request_id)
        world.clock.advance(1)
    pages, after = [], None
    while page := world.custodian.requests.listed(party(world), limit=2, after=after):
        after = page[-1].request_id
        pages.append([one.request_id for one in page])
        assert {one.link for one in page} == {None}
    assert pages == [[made[4], made[3]], [made[2], made[1]], [made[0]]]


def test_the_database_holds_neither_the_link_nor_what_was_asked(world: World) -> None:
    request = ask(world, attributes=["credit_history"])
    files = b"".join(path.read_bytes() for path in sorted(world.config.data.glob("ledger.db*")))
    assert request.request_id.encode() in files
    for secret in (link_of(request), "credit_history"):
        assert secret.encode() not in files
    # Every purpose has its notice on file, whichever was asked under.
    assert all(world.custodian.notices.current(code).notice_hash.encode() in files for code in PURPOSES)
    with world.custodian.store.read() as tx:
        row = tx.execute(select(consent_requests)).one()
    assert world.institution.institution_id not in (row.institution_index, row.token_index)


@pytest.mark.parametrize("token", [NO_TOKEN, "", "x", "a" * 10_000, "ü" * 43, "\udcff" * 43, "A" * 43 + "\n"])
def test_a_link_that_was_never_given_opens_drafts_and_declines_nothing(world: World, token: str) -> None:
    requests = world.custodian.requests
    grant = draft(world, ask(world))
    acts: Sequence[Callable[[], object]] = (
        lambda: requests.opened(token),
        lambda: requests.draft(token, world.subject.address),
        lambda: requests.accept(token, grant, b"", "nobody"),
        lambda: requests.decline(token),
    )
    for act in acts:
        with pytest.raises(NotFoundError):
            act()


def test_no_token_is_taken_for_an_option_of_a_command_line(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = iter(["-" * 43, "-" + "A" * 42, NO_TOKEN])
    monkeypatch.setattr("ledger.consent_requests.secrets.token_urlsafe", lambda _: next(tokens))
    assert link_of(ask(world)) == NO_TOKEN


def test_a_request_is_readable_after_the_keys_were_rotated(world: World) -> None:
    request = ask(world)
    world.custodian.rotate_keys()
    assert now_of(world, request) == request


# ------------------------------------------------------------------------------------------------------------- drafting


def test_nothing_that_is_optional_is_ticked_beforehand(world: World) -> None:
    request = ask(world)
    grant = draft(world, request)
    now = world.clock.now
    assert grant.terms.attributes == ("credit_amount",)
    assert (grant.valid_from, grant.expires_at) == (now, now + 31 * DAY)
    assert (grant.max_accesses, grant.terms.accesses_per_day, grant.terms.retention_days) == (3, 2, 31)
    assert (grant.terms.institution_name, grant.terms.notice_hash) == ("First Bank", request.notice_hash)
    assert draft(world, request, attributes=["savings"]).terms.attributes == ("credit_amount", "savings")
    assert draft(world, request, attributes=["credit_amount"]).terms.attributes == ("credit_amount",)


def test_limits_may_be_shorter_than_asked(world: World) -> None:
    grant = draft(world, ask(world), max_accesses=2, accesses_per_day=1, retention_days=0, validity_days=1)
    assert (grant.max_accesses, grant.terms.accesses_per_day, grant.terms.retention_days) == (2, 1, 0)
    assert grant.expires_at - grant.valid_from == DAY


def test_fewer_accesses_in_all_are_also_fewer_a_day(world: World) -> None:
    assert draft(world, ask(world), max_accesses=1).terms.accesses_per_day == 1


@pytest.mark.parametrize(
    ("chosen", "field"),
    [
        ({"attributes": ["credit_duration"]}, "attributes"),
        ({"max_accesses": 3}, "maxAccesses"),
        ({"max_accesses": 0}, "maxAccesses"),
        ({"accesses_per_day": 2}, "accessesPerDay"),
        ({"max_accesses": 1, "accesses_per_day": 2}, "accessesPerDay"),
        ({"retention_days": 8}, "retentionDays"),
        ({"retention_days": -1}, "retentionDays"),
        ({"validity_days": 11}, "validityDays"),
        ({"validity_days": 0}, "validityDays"),
        ({"validity_days": True}, "validityDays"),
    ],
)
def test_a_choice_of_more_than_was_asked_names_the_field(world: World, chosen: dict[str, Any], field: str) -> None:
    # All of it is within the ceilings of the purpose.
    request = ask(world, max_accesses=2, accesses_per_day=1, retention_days=7, validity_days=10)
    with pytest.raises(OutsideRequestError) as caught:
        draft(world, request, **chosen)
    assert caught.value.field == field
    assert caught.value.message.startswith(f"{field}: ")


# ------------------------------------------------------------------------------------------------------------ accepting


def test_an_accepted_request_is_granted_and_its_consent_can_be_used(world: World) -> None:
    request = ask(world)
    consent = accept(world, request)
    assert status(world, consent.consent_id) is Reason.NONE
    assert now_of(world, request) == replace(request, state="granted", consent_id=consent.consent_id, link=None)
    assert world.custodian.requests.opened(link_of(request)).consent_id == consent.consent_id
    assert world.ask(consent.consent_id).sealed


def test_a_consent_that_ended_was_granted_all_the_same(world: World) -> None:
    request = ask(world)
    consent = accept(world, request).consent_id
    world.subject.revoke(world.custodian, consent)
    world.clock.advance(90 * DAY)
    assert (now_of(world, request).state, now_of(world, request).consent_id) == ("granted", consent)


def test_a_request_is_granted_once(world: World) -> None:
    request = ask(world)
    first, second = draft(world, request), draft(world, request)
    accept(world, request, first)
    for person in (world.subject, world.another_subject()):
        with pytest.raises(ConflictError):
            accept(world, request, replace(second, subject=person.address), subject=person)
    with pytest.raises(ConsentAlreadyGrantedError):
        accept(world, request, first)
    with pytest.raises(ConflictError):
        draft(world, request)
    assert [one.consent_id for one in world.custodian.registry.consents()] == [id_of(first, world.chain)]


def test_of_two_different_answers_at_once_exactly_one_counts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other answer goes on file between this one's check and its transaction."""
    request = ask(world)
    first, second = draft(world, request), draft(world, request)
    look_up = world.custodian.registry.institution
    overtaken: list[bool] = []

    def overtake(institution_id: str) -> Party:
        if not overtaken:
            overtaken.append(True)
            accept(world, request, second)
        return look_up(institution_id)

    monkeypatch.setattr(world.custodian.registry, "institution", overtake)
    with pytest.raises(ConflictError):
        accept(world, request, first)
    assert overtaken
    assert now_of(world, request).consent_id == id_of(second, world.chain)
    assert [one.consent_id for one in world.custodian.registry.consents()] == [id_of(second, world.chain)]
    assert sum(event.name == "ConsentGranted" for event in world.chain.all_events()) == 1


def test_of_ten_answers_at_once_exactly_one_counts(world: World) -> None:
    request = ask(world)
    drafts = [draft(world, request) for _ in range(10)]

    def answer(grant: ConsentGrant) -> str:
        try:
            return accept(world, request, grant).consent_id
        except ConflictError as exc:
            return exc.code

    with ThreadPoolExecutor(10) as pool:
        outcomes = list(pool.map(answer, drafts))
    (won,) = [one for one in outcomes if one.startswith("0x")]
    assert outcomes.count("conflict") == 9
    assert now_of(world, request).consent_id == won
    assert [one.consent_id for one in world.custodian.registry.consents()] == [won]


def test_an_acceptance_and_a_refusal_at_once_are_one_answer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    request = ask(world)
    grant = draft(world, request)
    look_up = world.custodian.registry.institution

    def decline_meanwhile(institution_id: str) -> Party:
        world.custodian.requests.decline(link_of(request))
        return look_up(institution_id)

    monkeypatch.setattr(world.custodian.registry, "institution", decline_meanwhile)
    with pytest.raises(ConflictError):
        accept(world, request, grant)
    monkeypatch.undo()
    assert now_of(world, request).state == "declined"
    require_no_consent(world)


def test_one_grant_does_not_answer_two_requests(world: World) -> None:
    first, second = ask(world), ask(world)
    grant = draft(world, first)
    world.chain.down = True
    with pytest.raises(ChainUnavailableError):
        accept(world, first, grant)
    world.chain.down = False
    for _ in range(2):
        # While it is on its way, and when it stands.
        with pytest.raises(ConsentAlreadyGrantedError):
            accept(world, second, grant)
        world.custodian.sync()
    assert (now_of(world, first).state, now_of(world, second).state) == ("granted", "pending")


def test_a_forged_signature_answers_nothing(world: World) -> None:
    request = ask(world)
    grant = draft(world, request)
    subject_id = world.custodian.vault.subject_of(world.subject.ref)
    with pytest.raises(InvalidSignatureError):
        world.custodian.requests.accept(
            link_of(request), grant, world.another_subject().sign(world.custodian, grant), subject_id
        )
    require_no_consent(world)
    assert now_of(world, request).state == "pending"
    assert accept(world, request, grant).standing


@pytest.mark.parametrize(
    ("changes", "terms", "field"),
    [
        ({}, {"institution": "bank-2"}, "terms.institution"),
        ({}, {"purpose": "account-review"}, "terms.purpose"),
        ({}, {"replaces": UNKNOWN}, "terms.replaces"),
        ({}, {"notice_hash": UNKNOWN}, "terms.noticeHash"),
        ({}, {"attributes": ("savings",)}, "terms.attributes"),
        ({}, {"attributes": ()}, "terms.attributes"),
        ({}, {"attributes": ("credit_amount", "credit_duration")}, "terms.attributes"),
        ({"max_accesses": 3}, {}, "maxAccesses"),
        ({}, {"accesses_per_day": 2}, "terms.accessesPerDay"),
        ({}, {"retention_days": 8}, "terms.retentionDays"),
    ],
)
def test_a_grant_of_anything_else_than_was_asked_is_refused_by_field(
    world: World, changes: dict[str, Any], terms: dict[str, Any], field: str
) -> None:
    request = ask(world, max_accesses=2, accesses_per_day=1, retention_days=7, validity_days=10)
    asked = draft(world, request)
    with pytest.raises(OutsideRequestError) as caught:
        accept(world, request, replace(asked, terms=replace(asked.terms, **terms), **changes))
    assert caught.value.field == field
    require_no_consent(world)
    assert now_of(world, request).state == "pending"


def test_a_window_may_be_moved_but_not_be_longer(world: World) -> None:
    request = ask(world, validity_days=10)
    asked = draft(world, request)
    with pytest.raises(OutsideRequestError) as caught:
        accept(world, request, replace(asked, expires_at=asked.expires_at + 1))
    assert caught.value.field == "expiresAt"
    later = replace(asked, valid_from=asked.valid_from + DAY, expires_at=asked.expires_at + DAY)
    assert accept(world, request, later).standing


def test_an_erased_person_answers_nothing(world: World) -> None:
    request = ask(world)
    grant = draft(world, request)
    subject_id = world.custodian.vault.subject_of(world.subject.ref)
    world.custodian.eraser.erase(world.subject.ref)
    with pytest.raises(ErasedError):
        world.custodian.requests.accept(link_of(request), grant, world.subject.sign(world.custodian, grant), subject_id)
    assert now_of(world, request).state == "pending"


def test_what_an_erased_person_answered_is_gone_for_all(world: World) -> None:
    request, other = ask(world), ask(world)
    accept(world, request)
    world.custodian.eraser.erase(world.subject.ref)
    with pytest.raises(ErasedError):
        now_of(world, request)
    with pytest.raises(ErasedError):
        world.custodian.requests.opened(link_of(request))
    assert world.custodian.requests.listed(party(world), limit=10) == [replace(other, link=None)]


# ------------------------------------------------------------------------------------------------ declining and waiting


def test_declining_takes_the_link_alone_and_is_the_answer(world: World) -> None:
    request = ask(world)
    grant = draft(world, request)
    assert world.custodian.requests.decline(link_of(request)).state == "declined"
    assert world.custodian.requests.decline(link_of(request)).state == "declined"
    with pytest.raises(ConflictError):
        accept(world, request, grant)
    with pytest.raises(ConflictError):
        draft(world, request)
    world.clock.advance(90 * DAY)
    assert now_of(world, request) == replace(request, state="declined", link=None)
    require_no_consent(world)


def test_what_is_granted_is_revoked_and_not_declined(world: World) -> None:
    request = ask(world)
    consent = accept(world, request).consent_id
    with pytest.raises(ConflictError):
        world.custodian.requests.decline(link_of(request))
    assert now_of(world, request).state == "granted"
    assert status(world, consent) is Reason.NONE


def test_a_request_takes_an_answer_until_its_time_is_over(world: World) -> None:
    in_time, late = ask(world, answer_within_days=1), ask(world, answer_within_days=1)
    grant = draft(world, late)
    world.clock.advance(DAY - 1)
    assert accept(world, in_time).standing
    world.clock.advance(1)
    assert now_of(world, late) == replace(late, state="expired", link=None)
    with pytest.raises(ConflictError):
        accept(world, late, grant)
    with pytest.raises(ConflictError):
        draft(world, late)
    assert world.custodian.requests.decline(link_of(late)).state == "expired"
    assert len(world.custodian.registry.consents()) == 1


# --------------------------------------------------------------------------------------------------------------- faults


def again(world: World, request: ConsentRequest, grant: ConsentGrant) -> None:
    accept(world, request, grant)


def sync(world: World, request: ConsentRequest, grant: ConsentGrant) -> None:
    world.custodian.sync()


@pytest.mark.parametrize("step", ["grant durable", "act durable", "act sent"])
@pytest.mark.parametrize("finish", [again, sync])
def test_an_acceptance_that_was_cut_off_is_finished(
    world: World, step: str, finish: Callable[[World, ConsentRequest, ConsentGrant], None]
) -> None:
    request = ask(world)
    grant = draft(world, request)
    world.steps.at(step, die)
    with pytest.raises(Killed):
        accept(world, request, grant)
    world.restart()
    assert now_of(world, request).state == "pending"
    finish(world, request, grant)
    assert now_of(world, request).consent_id == id_of(grant, world.chain)
    assert sum(event.name == "ConsentGranted" for event in world.chain.all_events()) == 1


@pytest.mark.parametrize("finish", [again, sync])
def test_while_the_chain_is_away_a_signed_answer_waits_and_there_is_no_other(
    world: World, finish: Callable[[World, ConsentRequest, ConsentGrant], None]
) -> None:
    request = ask(world, answer_within_days=1)
    grant, other = draft(world, request), draft(world, request)
    world.chain.down = True
    with pytest.raises(ChainUnavailableError):
        accept(world, request, grant)
    waiting = now_of(world, request)
    assert (waiting.state, waiting.consent_id) == ("pending", None)
    for act in (
        lambda: accept(world, request, other),
        lambda: world.custodian.requests.decline(link_of(request)),
        lambda: draft(world, request),
    ):
        with pytest.raises(ConflictError):
            act()
    # It was signed in time, whenever the chain comes back.
    world.clock.advance(2 * DAY)
    assert now_of(world, request).state == "pending"
    world.chain.down = False
    finish(world, request, grant)
    assert now_of(world, request).consent_id == id_of(grant, world.chain)
    assert status(world, id_of(grant, world.chain)) is Reason.NONE


def test_a_grant_that_the_contract_refused_leaves_the_request_open(world: World) -> None:
    request = ask(world)
    refused = draft(world, request)
    world.chain.before("send", lambda: world.subject.revoke_directly(world.chain, refused))
    for _ in range(2):
        with pytest.raises(ConsentAlreadyRevokedError):
            accept(world, request, refused)
        assert (now_of(world, request).state, now_of(world, request).consent_id) == ("pending", None)
        require_no_consent(world)
    other = world.another_subject()
    grant = world.custodian.requests.draft(link_of(request), other.address)
    assert now_of(world, request).consent_id is None
    assert accept(world, request, grant, subject=other).standing
    assert now_of(world, request).consent_id == id_of(grant, world.chain)


def test_a_refused_grant_does_not_keep_a_request_from_being_declined_or_expiring(world: World) -> None:
    declined, expired = ask(world), ask(world)
    for request in (declined, expired):
        refused = draft(world, request)
        world.subject.revoke_directly(world.chain, refused)
        with pytest.raises(ConsentAlreadyRevokedError):
            accept(world, request, refused)
    assert world.custodian.requests.decline(link_of(declined)).state == "declined"
    world.clock.advance(30 * DAY)
    assert now_of(world, expired).state == "expired"


# ----------------------------------------------------------------------------------------------------------- amendments


def test_an_amendment_by_request_leaves_no_moment_without_a_consent(world: World) -> None:
    old = world.grant(accesses_per_day=3)
    request = ask(world, replaces=old)
    assert world.ask(old).sealed
    grant = draft(world, request)
    assert grant.terms.replaces == old
    world.chain.down = True
    with pytest.raises(ChainUnavailableError):
        accept(world, request, grant)
    world.chain.down = False
    assert world.ask(old).sealed
    world.custodian.sync()
    new = now_of(world, request).consent_id
    assert new is not None
    assert world.custodian.registry.consent(old).replaced_by == new
    assert world.ask(new).sealed
    with pytest.raises(ConsentRevokedError):
        world.ask(old)


def test_a_request_to_amend_someone_elses_consent_is_not_answered(world: World) -> None:
    theirs = world.another_subject().grant(world.custodian, world.institution)
    request = ask(world, replaces=theirs)
    with pytest.raises(NotFoundError) as caught:
        accept(world, request)
    assert caught.value.field == "terms.replaces"
    assert status(world, theirs) is Reason.NONE
    assert now_of(world, request).state == "pending"
