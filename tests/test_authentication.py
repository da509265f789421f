"""The door: each signed request is let in once, by whichever process; and everyone so often, and while it may."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from actors import DAY, Furnisher, Institution, World, new_nonce
from joserfc.jwk import ECKey
from sqlalchemy import delete, func, select

from ledger import exchange
from ledger.authentication import WINDOW_SECONDS, Caller, Rate, Signed
from ledger.custodian import Custodian
from ledger.errors import (
    AuthenticationError,
    FurnisherSuspendedError,
    InstitutionSuspendedError,
    LedgerError,
    MalformedError,
    NotFoundError,
    PartyChangedError,
    RateLimitedError,
    ReplayedRequestError,
    StaleRequestError,
    StoreUnavailableError,
)
from ledger.exchange import Party
from ledger.parties import FURNISHER, INSTITUTION
from ledger.signatures import FRESH_SECONDS, HttpRequest, sign_request
from ledger.store import institutions, nonces, rates

LIMIT = 5


def message(world: World, **changes: Any) -> HttpRequest:
    """A signed request of the world's institution, whatever it asks for."""
    return question(world, world.institution, **changes)


def question(world: World, by: Institution, *, at: int | None = None, nonce: str | None = None) -> HttpRequest:
    asked = HttpRequest(method="GET", url=f"{world.config.service_url}/v1/consents")
    return by.sign(asked, at=world.clock() if at is None else at, nonce=nonce)


def enter(custodian: Custodian, asked: HttpRequest, role: str = INSTITUTION) -> Caller:
    return custodian.authentication.authenticate(asked, role)


def outcome(custodian: Custodian, asked: HttpRequest) -> str:
    try:
        enter(custodian, asked)
    except LedgerError as exc:
        return exc.code
    return "let in"


def limited(world: World, limit: int = LIMIT) -> None:
    """The world's custodian allows so many requests a minute."""
    world.custodian.close()
    world.config = replace(world.config, rate_limit=limit)
    world.custodian = world.open()


def on_file(world: World, table: Any) -> int:
    with world.custodian.store.read() as tx:
        return tx.scalar(select(func.count()).select_from(table)) or 0


def at_once(asked: Sequence[tuple[Custodian, HttpRequest]]) -> Counter[str]:
    """All of them in the same moment."""
    start = threading.Barrier(len(asked))

    def enter_now(one: tuple[Custodian, HttpRequest]) -> str:
        start.wait()
        return outcome(*one)

    with ThreadPoolExecutor(len(asked)) as pool:
        return Counter(pool.map(enter_now, asked))


def keys_like(kid: str) -> dict[str, Any]:
    """New keys, of which the one that signs has that id."""
    signing = ECKey.generate_key("P-256", {"use": "sig", "kid": kid})
    sealing = ECKey.generate_key("P-256", {"use": "enc"}, auto_kid=True)
    return {"keys": [key.as_dict(private=True) for key in (signing, sealing)]}


def rotated(
    custodian: Custodian, institution: Institution, *, overlap: int, jwks: dict[str, Any] | None = None
) -> Institution:
    """The same party with new keys, which it has registered."""
    new = Institution(institution.institution_id, institution.name)
    keys = jwks or new.jwks
    new.signing_key, new.sealing_key = exchange.key_for(keys, "sig"), exchange.key_for(keys, "enc")
    custodian.registry.rotate_keys(
        INSTITUTION, new.institution_id, keys, now=custodian.clock(), overlap_seconds=overlap
    )
    return new


# ----------------------------------------------------------------------------------------------------------- who it is


def test_a_signed_request_is_let_in_as_the_party_that_signed_it(world: World) -> None:
    asked = message(world)
    caller = enter(world.custodian, asked)
    assert (caller.role, caller.party.party_id) == (INSTITUTION, world.institution.institution_id)
    assert caller.evidence.body == asked.body
    assert caller.evidence.keyid == f"{world.institution.institution_id}#{world.institution.signing_key.kid}"


def test_what_was_verified_is_not_let_in_yet(world: World) -> None:
    asked = message(world)
    for _ in range(2):
        assert world.custodian.authentication.verify(asked).message == asked
    assert on_file(world, nonces) == on_file(world, rates) == 0
    assert enter(world.custodian, asked)


def test_an_institution_is_no_furnisher_and_a_furnisher_no_institution(world: World) -> None:
    furnisher = Furnisher("furnisher-1")
    furnisher.register(world.custodian)
    signed = sign_request(
        HttpRequest(method="PUT", url=f"{world.config.service_url}/v1/subjects/x/attributes", body=b"{}"),
        party_id=furnisher.furnisher_id,
        key=furnisher.signing_key,
        at=world.clock(),
        nonce=new_nonce(),
    )
    with pytest.raises(AuthenticationError):
        enter(world.custodian, signed)
    with pytest.raises(AuthenticationError):
        enter(world.custodian, message(world), FURNISHER)
    assert enter(world.custodian, signed, FURNISHER).role == FURNISHER


def test_an_institution_and_a_furnisher_of_one_id_and_key_are_two_parties(world: World) -> None:
    twin = Furnisher(world.institution.institution_id)
    twin.jwks, twin.signing_key = world.institution.jwks, world.institution.signing_key
    twin.register(world.custodian)
    asked = message(world)
    for role in (INSTITUTION, FURNISHER):
        caller = enter(world.custodian, asked, role)
        assert (caller.role, caller.rate.remaining) == (role, caller.rate.limit - 1)
        with pytest.raises(ReplayedRequestError):
            enter(world.custodian, asked, role)
    world.custodian.registry.suspend(FURNISHER, twin.furnisher_id, suspended=True)
    assert enter(world.custodian, message(world))


@pytest.mark.parametrize("known", [True, False])
def test_a_party_that_is_not_registered_is_refused(world: World, known: bool) -> None:
    stranger = Institution("bank-unknown")
    if known:
        # In the name of one who is.
        stranger.institution_id = world.institution.institution_id
    with pytest.raises(AuthenticationError):
        enter(world.custodian, question(world, stranger))
    assert on_file(world, nonces) == 0


def test_a_request_of_too_long_ago_or_of_the_future_is_refused_and_leaves_nothing(world: World) -> None:
    for offset in (-FRESH_SECONDS - 1, FRESH_SECONDS + 1):
        with pytest.raises(StaleRequestError):
            enter(world.custodian, message(world, at=world.clock() + offset))
    assert on_file(world, nonces) == on_file(world, rates) == 0


# ------------------------------------------------------------------------------------------------------------- replays


def test_a_replay_finds_its_nonce_in_whichever_process_it_reaches(world: World) -> None:
    asked = message(world)
    with world.open() as other:
        enter(world.custodian, asked)
        for custodian in (world.custodian, other):
            with pytest.raises(ReplayedRequestError):
                enter(custodian, asked)
    world.restart()
    with pytest.raises(ReplayedRequestError):
        enter(world.custodian, asked)


def test_a_nonce_is_used_up_by_another_request_too(world: World) -> None:
    nonce = new_nonce()
    enter(world.custodian, message(world, nonce=nonce))
    other = HttpRequest(method="DELETE", url=f"{world.config.service_url}/v1/elsewhere")
    with pytest.raises(ReplayedRequestError):
        enter(world.custodian, world.institution.sign(other, at=world.clock() + 1, nonce=nonce))


def test_a_replay_under_other_labels_is_one(world: World) -> None:
    asked = message(world)
    enter(world.custodian, asked)
    relabelled = {
        name: value.replace("sig=", "other=", 1) if name.startswith("Signature") else value
        for name, value in asked.headers.items()
    }
    with pytest.raises(ReplayedRequestError):
        enter(world.custodian, replace(asked, headers=relabelled))


def test_the_nonce_of_another_party_is_not_used_up(world: World) -> None:
    nonce = new_nonce()
    other = world.another_institution()
    assert enter(world.custodian, message(world, nonce=nonce))
    assert enter(world.custodian, question(world, other, nonce=nonce))


def test_of_fifty_threads_with_one_signed_request_exactly_one_is_let_in(world: World) -> None:
    asked = message(world)
    with world.open() as other:
        counted = at_once([((world.custodian, other)[number % 2], asked) for number in range(50)])
    assert counted == {"let in": 1, "replayed": 49}
    assert on_file(world, nonces) == 1


def test_a_nonce_is_forgotten_only_when_its_request_would_be_refused_as_stale(world: World) -> None:
    late, early = (message(world, at=world.clock() + offset) for offset in (FRESH_SECONDS, -FRESH_SECONDS))
    for asked in (late, early):
        enter(world.custodian, asked)
    codes: set[str] = set()
    for _ in range(4 * FRESH_SECONDS // 50):
        world.clock.advance(50)
        world.custodian.authentication.forget_nonces()
        codes |= {outcome(world.custodian, asked) for asked in (late, early)}
    assert codes == {"replayed", "stale_request"}
    assert on_file(world, nonces) == 0


def test_nonces_are_forgotten_by_housekeeping(world: World) -> None:
    enter(world.custodian, message(world))
    world.clock.advance(DAY)
    world.custodian.housekeeping()
    assert on_file(world, nonces) == 0


def test_what_the_database_did_not_take_is_not_let_in(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = message(world)

    def begin() -> Any:
        raise StoreUnavailableError("full")

    monkeypatch.setattr(world.custodian.store, "begin", begin)
    with pytest.raises(StoreUnavailableError):
        enter(world.custodian, asked)
    monkeypatch.undo()
    assert enter(world.custodian, asked)


# --------------------------------------------------------------------------------------------------------------- rates


def test_the_rate_limit_is_exact_across_processes(world: World) -> None:
    limited(world)
    with world.open() as other:
        counted = at_once([((world.custodian, other)[number % 2], message(world)) for number in range(4 * LIMIT)])
        assert counted == {"let in": LIMIT, "rate_limited": 3 * LIMIT}
        for custodian in (world.custodian, other):
            with pytest.raises(RateLimitedError):
                enter(custodian, message(world))


def test_everyone_is_told_where_they_stand(world: World) -> None:
    limited(world)
    world.clock.now -= world.clock.now % WINDOW_SECONDS
    told = []
    for _ in range(LIMIT):
        told.append(enter(world.custodian, message(world)).rate)
        world.clock.advance(7)
    assert told == [Rate(limit=LIMIT, remaining=LIMIT - 1 - n, reset=WINDOW_SECONDS - 7 * n) for n in range(LIMIT)]
    with pytest.raises(RateLimitedError) as caught:
        enter(world.custodian, message(world))
    assert (caught.value.limit, caught.value.retry_after) == (LIMIT, WINDOW_SECONDS - 7 * LIMIT)
    assert caught.value.http_status == 429
    world.clock.advance(caught.value.retry_after - 1)
    with pytest.raises(RateLimitedError):
        enter(world.custodian, message(world))
    world.clock.advance(1)
    assert enter(world.custodian, message(world)).rate == Rate(limit=LIMIT, remaining=LIMIT - 1, reset=WINDOW_SECONDS)


def test_what_is_refused_does_not_use_up_the_rate(world: World) -> None:
    limited(world)
    asked = message(world)
    assert enter(world.custodian, asked).rate.remaining == LIMIT - 1
    stranger = Institution(world.institution.institution_id)
    for _ in range(2 * LIMIT):
        # Otherwise whoever recorded one request could lock its sender out.
        assert outcome(world.custodian, asked) == "replayed"
        assert outcome(world.custodian, question(world, stranger)) == "authentication"
        assert outcome(world.custodian, message(world, at=world.clock() - DAY)) == "stale_request"
    assert enter(world.custodian, message(world)).rate.remaining == LIMIT - 2


def test_a_request_that_was_refused_for_the_rate_may_be_sent_again_as_it_is(world: World) -> None:
    limited(world)
    for _ in range(LIMIT):
        enter(world.custodian, message(world))
    asked = message(world)
    for _ in range(2):
        with pytest.raises(RateLimitedError):
            enter(world.custodian, asked)
    world.clock.advance(WINDOW_SECONDS)
    assert enter(world.custodian, asked)
    with pytest.raises(ReplayedRequestError):
        enter(world.custodian, asked)


def test_the_rate_of_one_party_is_not_anothers(world: World) -> None:
    limited(world)
    other = world.another_institution()
    for _ in range(LIMIT):
        enter(world.custodian, message(world))
    assert outcome(world.custodian, message(world)) == "rate_limited"
    assert enter(world.custodian, question(world, other)).rate.remaining == LIMIT - 1


def test_a_round_that_holds_more_than_the_rate_allows_lets_in_the_first_of_each_party(world: World) -> None:
    limited(world)
    other = world.another_institution()
    verify = world.custodian.authentication.verify
    signed: list[Signed] = [verify(message(world)) for _ in range(LIMIT + 2)] + [verify(question(world, other))]
    with world.custodian.store.begin() as tx:
        callers = world.custodian.authentication.admit(tx, [*signed, signed[0]])
    assert [type(caller) for caller in callers] == [
        *[Caller] * LIMIT,
        *[RateLimitedError] * 2,
        Caller,
        ReplayedRequestError,
    ]
    assert on_file(world, nonces) == LIMIT + 1
    assert on_file(world, rates) == 2


def test_releases_count_as_requests_do(world: World) -> None:
    limited(world, 2)
    consent = world.grant()
    assert world.ask(consent).sealed
    assert enter(world.custodian, message(world)).rate.remaining == 0
    asked = world.request(consent)
    with pytest.raises(RateLimitedError):
        world.custodian.releases.release(asked)
    assert len(world.states()) == 1
    world.clock.advance(WINDOW_SECONDS)
    assert world.custodian.releases.release(asked).sealed


# ------------------------------------------------------------------------------------------ suspended, changed, removed


def test_a_suspended_institution_is_refused_at_once_by_every_process(world: World) -> None:
    with world.open() as other:
        for custodian in (world.custodian, other):
            enter(custodian, message(world))
        asked = message(world)
        world.custodian.registry.suspend(INSTITUTION, world.institution.institution_id, suspended=True)
        for custodian in (world.custodian, other):
            with pytest.raises(InstitutionSuspendedError):
                enter(custodian, asked)
        assert other.authentication.verify(asked).party.suspended
        world.custodian.registry.suspend(INSTITUTION, world.institution.institution_id, suspended=False)
        # What was refused has not used its nonce.
        assert enter(other, asked)


def test_a_suspended_furnisher_is_refused(world: World) -> None:
    furnisher = Furnisher("furnisher-1")
    furnisher.register(world.custodian)
    world.custodian.registry.suspend(FURNISHER, furnisher.furnisher_id, suspended=True)
    with pytest.raises(FurnisherSuspendedError):
        furnisher.put(world.custodian, "person-1", {"credit_amount": 1})


def test_a_party_that_is_not_there_can_be_neither_suspended_nor_given_new_keys(world: World) -> None:
    for role in (INSTITUTION, FURNISHER):
        with pytest.raises(NotFoundError):
            world.custodian.registry.suspend(role, "nobody", suspended=True)
        new = exchange.new_institution_keys().as_dict(private=False)
        with pytest.raises(NotFoundError):
            world.custodian.registry.rotate_keys(role, "nobody", new, now=world.clock(), overlap_seconds=0)


def test_a_key_that_was_replaced_counts_until_the_overlap_ends_and_then_no_more(world: World) -> None:
    old = world.institution
    with world.open() as other:
        enter(other, question(world, old))
        new = rotated(world.custodian, old, overlap=DAY)
        world.clock.advance(DAY - 1)
        for custodian in (world.custodian, other):
            assert enter(custodian, question(world, old))
            assert enter(custodian, question(world, new))
        world.clock.advance(1)
        for custodian in (world.custodian, other):
            with pytest.raises(AuthenticationError):
                enter(custodian, question(world, old))
            assert enter(custodian, question(world, new))


def test_a_new_key_is_known_at_once_to_a_process_that_knew_the_party(world: World) -> None:
    with world.open() as other:
        enter(other, message(world))
        new = rotated(world.custodian, world.institution, overlap=DAY)
        assert enter(other, question(world, new))


def test_without_an_overlap_the_old_key_is_refused_at_once_by_a_process_that_knew_it(world: World) -> None:
    old = world.institution
    consent = world.grant()
    with world.open() as other:
        enter(other, question(world, old))
        new = rotated(world.custodian, old, overlap=0)
        with pytest.raises(AuthenticationError):
            enter(other, question(world, old))
        with pytest.raises(AuthenticationError):
            other.releases.release(old.request(other, consent))
        assert world.states() == []
        assert other.releases.release(new.request(other, consent)).sealed


def test_a_key_under_the_id_of_one_that_is_gone_takes_its_place_in_every_process(world: World) -> None:
    old = world.institution
    with world.open() as other:
        for custodian in (world.custodian, other):
            enter(custodian, question(world, old))
        between = rotated(world.custodian, old, overlap=0)
        new = rotated(world.custodian, between, overlap=DAY, jwks=keys_like(str(old.signing_key.kid)))
        for custodian in (other, world.custodian):
            # The new one first: nothing else has told this process of the change.
            assert enter(custodian, question(world, new))
            with pytest.raises(AuthenticationError):
                enter(custodian, question(world, old))


def test_a_second_rotation_does_not_lengthen_the_life_of_the_first_key(world: World) -> None:
    first = world.institution
    second = rotated(world.custodian, first, overlap=DAY)
    world.clock.advance(DAY // 2)
    third = rotated(world.custodian, second, overlap=DAY)
    assert enter(world.custodian, question(world, first))
    world.clock.advance(DAY // 2)
    with pytest.raises(AuthenticationError):
        enter(world.custodian, question(world, first))
    assert enter(world.custodian, question(world, second))
    assert enter(world.custodian, question(world, third))


@pytest.mark.parametrize("bad", [{}, {"keys": []}, {"keys": [{"kty": "EC", "crv": "P-256"}]}, None])
def test_keys_that_are_none_change_nothing(world: World, bad: Any) -> None:
    with pytest.raises(MalformedError):
        world.custodian.registry.rotate_keys(
            INSTITUTION, world.institution.institution_id, bad, now=world.clock(), overlap_seconds=0
        )
    assert enter(world.custodian, message(world))


def test_a_party_that_was_removed_is_refused_at_once_by_a_process_that_knew_it(world: World) -> None:
    consent = world.grant()
    with world.open() as other:
        enter(other, message(world))
        with world.custodian.store.begin() as tx:
            tx.execute(delete(institutions))
        for custodian in (other, world.custodian):
            with pytest.raises(AuthenticationError):
                enter(custodian, message(world))
            with pytest.raises(AuthenticationError):
                custodian.releases.release(world.request(consent))
    assert world.states() == []


def test_a_party_that_is_changed_between_the_check_and_the_door_is_checked_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    authentication = world.custodian.authentication
    really_verify = authentication.verify

    def verified_and_then_rotated(asked: HttpRequest, role: str = INSTITUTION) -> Signed:
        signed = really_verify(asked, role)
        rotated(world.custodian, world.institution, overlap=0)
        return signed

    monkeypatch.setattr(authentication, "verify", verified_and_then_rotated)
    with pytest.raises(AuthenticationError):
        enter(world.custodian, message(world))
    assert on_file(world, nonces) == 0


def test_a_party_that_is_changed_while_its_release_waits_is_checked_again(world: World) -> None:
    consent = world.grant()
    asked = world.request(consent)
    world.steps.at("4 before intent", lambda: rotated(world.custodian, world.institution, overlap=0))
    with pytest.raises(AuthenticationError):
        world.custodian.releases.release(asked)
    assert world.states() == []


def test_a_party_that_gets_another_key_while_its_release_waits_is_answered(world: World) -> None:
    asked = world.request(world.grant())
    world.steps.at("4 before intent", lambda: rotated(world.custodian, world.institution, overlap=DAY))
    assert world.custodian.releases.release(asked).sealed
    assert len(world.logged()) == 1


def test_a_party_that_never_stops_changing_is_told_to_ask_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    authentication, registry = world.custodian.authentication, world.custodian.registry
    consent = world.grant()
    really_look = registry.looked_up

    def changed_after_the_look(role: str, party_id: str) -> Party | None:
        found = really_look(role, party_id)
        registry.suspend(role, party_id, suspended=False)
        return found

    monkeypatch.setattr(registry, "looked_up", changed_after_the_look)
    asked = message(world)
    for act in (lambda: authentication.authenticate(asked), lambda: world.ask(consent)):
        registry.suspend(INSTITUTION, world.institution.institution_id, suspended=False)
        with pytest.raises(PartyChangedError):
            act()
    assert on_file(world, nonces) == 0
    monkeypatch.undo()
    assert enter(world.custodian, asked)


def test_a_party_that_is_changed_in_what_it_may_still_do_notices_nothing(world: World) -> None:
    enter(world.custodian, message(world))
    signed = world.custodian.authentication.verify(message(world))
    world.custodian.registry.set_webhook(world.institution.institution_id, "https://bank.example/events")
    with world.custodian.store.begin() as tx:
        (refused,) = world.custodian.authentication.admit(tx, [signed])
    assert isinstance(refused, PartyChangedError)
    assert enter(world.custodian, signed.message)
    assert world.ask(world.grant()).sealed
