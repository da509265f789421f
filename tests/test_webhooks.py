"""Webhooks: told at least once, in order, by us alone, to where it may go; and nothing waits for it."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256

import pytest
from actors import DAY, Institution, Subject, World
from asking import Api, document, said
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from receiver import Receiver, free_port, status
from sqlalchemy import select

from ledger.custodian import Custodian
from ledger.errors import (
    AuthenticationError,
    ConsentRevokedError,
    MalformedError,
    NotFoundError,
    StoreUnavailableError,
)
from ledger.outbox import CORRECTED, EXPIRED, Event
from ledger.signatures import HttpRequest, verify_request
from ledger.store import events
from ledger.webhooks import EVENTS_PER_TURN, LEASE_SECONDS, RECEIVERS_AT_ONCE
from web.models import SentEvent

PATIENCE = 60.0


class Killed(BaseException):
    """What a process does not survive."""


def die() -> None:
    raise Killed


@pytest.fixture
def world(world: World) -> World:
    """One that may send to this machine."""
    world.config = replace(world.config, insecure_webhooks=True)
    world.restart()
    return world


@pytest.fixture
def receivers() -> Iterator[Callable[[], Receiver]]:
    made: list[Receiver] = []

    def make() -> Receiver:
        made.append(Receiver())
        return made[-1]

    yield make
    for receiver in made:
        receiver.close()


@pytest.fixture
def receiver(receivers: Callable[[], Receiver], world: World) -> Receiver:
    """The one of the world's institution."""
    made = receivers()
    world.custodian.webhooks.register(world.institution.institution_id, made.url())
    return made


def deliver(world: World, custodian: Custodian | None = None) -> int:
    return (custodian or world.custodian).webhooks.deliver(patience=PATIENCE)


def told(world: World, institution: Institution | None = None) -> list[Event]:
    party_id = (institution or world.institution).institution_id
    index = world.custodian.registry.institution_index(party_id)
    return world.custodian.outbox.of(index, after=None, limit=1000)


def last(world: World) -> Event:
    return told(world)[-1]


def bodies(receiver: Receiver) -> list[dict[str, object]]:
    return [json.loads(request.body) for request in receiver.requests]


def kinds(receiver: Receiver) -> list[object]:
    return [body["kind"] for body in bodies(receiver)]


def nonce_of(request: HttpRequest) -> str:
    found = re.search(r';nonce="([^"]+)"', request.headers["Signature-Input"])
    assert found is not None
    return found[1]


def another(world: World, receiver: Receiver) -> tuple[Institution, Subject]:
    """One more institution with that receiver, and a person with a consent for it."""
    institution, subject = world.another_institution(), world.another_subject()
    world.custodian.webhooks.register(institution.institution_id, receiver.url())
    subject.grant(world.custodian, institution)
    return institution, subject


# ------------------------------------------------------------------------------------------------------------ delivery


def test_what_is_sent_is_what_the_document_says_of_every_kind(world: World, receiver: Receiver) -> None:
    consent = world.grant()
    world.subject.pause(world.custodian, consent, paused=True, sequence=1)
    world.subject.pause(world.custodian, consent, paused=False, sequence=2)
    world.grant(replaces=consent)
    index = world.custodian.registry.institution_index(world.institution.institution_id)
    with world.custodian.store.begin() as tx:
        for kind in (EXPIRED, CORRECTED):
            world.custodian.outbox.add(tx, kind=kind, institution_index=index, consent_id=consent, at=world.clock())
    sent = 0
    while taken := deliver(world):
        sent += taken
    described = document()["webhooks"]["event"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    schema = document()["components"]["schemas"][described["$ref"].rpartition("/")[2]]
    assert set(schema["properties"]["kind"]["enum"]) == set(kinds(receiver))
    for body in bodies(receiver):
        assert schema["required"] == ["id", "kind", "consent", "at"]
        assert set(schema["required"]) <= body.keys() <= schema["properties"].keys()
        SentEvent.model_validate(body)
    # What is polled has the same, with its details apart.
    api = Api(world)
    polled = said(api.ask(world.institution, "GET", "/v1/events"))["events"]
    assert [{**one["details"], **{name: one[name] for name in schema["required"]}} for one in polled] == bodies(
        receiver
    )
    (replaced,) = [one for one in polled if one["kind"] == "consent.revoked"]
    assert replaced["details"].keys() == {"by", "replacedBy"}
    assert len(polled) == sent


def test_an_institution_is_told_everything_in_its_order(world: World, receiver: Receiver) -> None:
    consent = world.grant()
    world.subject.pause(world.custodian, consent, paused=True, sequence=1)
    world.subject.pause(world.custodian, consent, paused=False, sequence=2)
    world.subject.revoke(world.custodian, consent)
    assert deliver(world) == 4
    assert kinds(receiver) == ["consent.granted", "consent.paused", "consent.resumed", "consent.revoked"]
    assert bodies(receiver) == [event.as_json() for event in told(world)]
    assert bodies(receiver)[3] == {
        "id": last(world).event_id,
        "kind": "consent.revoked",
        "consent": consent,
        "at": world.clock(),
        "by": "subject",
    }
    assert {request.headers["Content-Type"] for request in receiver.requests} == {"application/json"}
    assert deliver(world) == 0


@pytest.mark.parametrize("code", [200, 201, 202, 204, 299])
def test_any_2xx_says_that_the_institution_knows(world: World, receiver: Receiver, code: int) -> None:
    world.grant()
    receiver.otherwise = status(code)
    world.clock.advance(3)
    assert deliver(world) == 1
    event = last(world)
    assert (event.state, event.attempts, event.last_answer) == ("acknowledged", 1, str(code))
    assert (event.acknowledged_at, event.next_attempt_at) == (world.clock(), None)


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308, 400, 401, 404, 410, 429, 500, 503])
def test_nothing_else_does_and_no_redirect_is_followed(
    world: World, receiver: Receiver, receivers: Callable[[], Receiver], code: int
) -> None:
    elsewhere = receivers()
    world.grant()
    receiver.otherwise = status(code, Location=elsewhere.url())
    assert deliver(world) == 0
    assert (last(world).state, last(world).attempts, last(world).last_answer) == ("waiting", 1, str(code))
    assert (len(receiver.requests), elsewhere.requests) == (1, [])


def test_housekeeping_tells(world: World, receiver: Receiver) -> None:
    consent = world.grant()
    world.clock.now = world.grant_of(consent).expires_at
    world.custodian.housekeeping()
    world.custodian.webhooks.close()
    assert kinds(receiver) == ["consent.granted", "consent.expired"]


def test_of_an_answer_nothing_but_the_status_is_kept(world: World, receiver: Receiver) -> None:
    world.grant()
    receiver.answers = [status(500, b"a remark about a person", Server="their secret")]
    deliver(world)
    with world.custodian.store.read() as tx:
        kept = repr([tuple(row) for row in tx.execute(select(events))])
    assert "500" in kept
    assert "remark" not in kept
    assert "secret" not in kept


def test_a_suspended_institution_is_still_told_that_a_consent_ended(world: World, receiver: Receiver) -> None:
    consent = world.grant()
    world.custodian.registry.suspend("institution", world.institution.institution_id, suspended=True)
    world.subject.revoke(world.custodian, consent)
    deliver(world)
    assert kinds(receiver) == ["consent.granted", "consent.revoked"]


# ----------------------------------------------------------------------------------------------------------- signature


def test_the_receiver_can_verify_that_the_custodian_sent_it(world: World, receiver: Receiver) -> None:
    world.grant()
    deliver(world)
    (request,) = receiver.requests
    key = world.custodian.accounts.signing_key
    signed = verify_request(request, key, now=world.clock())
    assert signed.keyid == f"{world.custodian.address}#{key.kid}"
    assert (signed.created, signed.nonce) == (world.clock(), f"{last(world).event_id}-1")
    forged = request.body.replace(b"granted", b"revoked")
    with pytest.raises(AuthenticationError, match="digest"):
        verify_request(replace(request, body=forged), key, now=world.clock())
    with pytest.raises(AuthenticationError):
        verify_request(replace(request, url=receiver.url("elsewhere.example")), key, now=world.clock())


def test_the_signature_verifies_by_the_standard_alone(world: World, receiver: Receiver) -> None:
    # RFC 9421, 2.5 and 3.3.4, and RFC 9530 by hand: what a receiver in another language does.
    world.grant()
    deliver(world)
    (request,) = receiver.requests
    label, _, parameters = request.headers["Signature-Input"].partition("=")
    digest = base64.b64encode(sha256(request.body).digest()).decode()
    assert request.headers["Content-Digest"] == f"sha-256=:{digest}:"
    values = {
        '"@method"': "POST",
        '"@target-uri"': receiver.url(),
        '"content-digest"': request.headers["Content-Digest"],
    }
    covered = re.findall(r'"[^"]+"', parameters.partition(")")[0])
    assert set(covered) == set(values)
    lines = [f"{name}: {values[name]}" for name in covered] + [f'"@signature-params": {parameters}']
    signature = base64.b64decode(request.headers["Signature"].removeprefix(f"{label}=:").removesuffix(":"))
    numbers = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
    key = world.custodian.accounts.signing_key.public_key
    key.verify(encode_dss_signature(*numbers), "\n".join(lines).encode(), ECDSA(SHA256()))


# ----------------------------------------------------------------------------------------------- failures and back-off


def test_a_failure_is_tried_again_later_and_later_and_given_up_after_three_days(
    world: World, receiver: Receiver
) -> None:
    world.grant()
    receiver.otherwise = status(500)
    began = world.clock()
    for number, delay in enumerate([10, 30, 120, 600, 3600, *[21_600] * 9], start=1):
        deliver(world)
        assert len(receiver.requests) == number
        due = last(world).next_attempt_at
        assert due is not None
        assert delay <= due - world.clock() <= delay * 1.2
        world.clock.now = due - 1
        assert deliver(world) == 0
        assert len(receiver.requests) == number
        world.clock.now = due
    world.clock.now = began + 3 * DAY - 100
    deliver(world)
    assert (last(world).state, last(world).last_answer, last(world).next_attempt_at) == ("given_up", "500", None)
    world.clock.advance(30 * DAY)
    count = len(receiver.requests)
    assert deliver(world) == 0
    assert len(receiver.requests) == count


def test_every_attempt_has_the_same_id_and_another_nonce(world: World, receiver: Receiver) -> None:
    world.grant()
    receiver.answers = [status(500), status(503)]
    for _ in range(3):
        deliver(world)
        world.clock.advance(100)
    assert len({body["id"] for body in bodies(receiver)}) == 1
    assert len({nonce_of(request) for request in receiver.requests}) == 3
    assert (last(world).state, last(world).attempts) == ("acknowledged", 3)


def test_what_failed_together_does_not_all_come_back_together(world: World, receiver: Receiver) -> None:
    receiver.otherwise = status(500)
    world.grant()
    delays = set()
    for _ in range(40):
        with world.custodian.store.begin() as tx:
            tx.execute(events.update().values(attempts=3, next_attempt_at=world.clock()))
        deliver(world)
        delays.add((last(world).next_attempt_at or 0) - world.clock())
    assert len(delays) > 5


def test_one_that_fails_is_overtaken_by_the_next_ones(world: World, receiver: Receiver) -> None:
    consent = world.grant()
    world.subject.revoke(world.custodian, consent)
    receiver.answers = [status(500)]
    assert deliver(world) == 0
    assert deliver(world) == 1
    world.clock.advance(100)
    assert deliver(world) == 1
    assert kinds(receiver) == ["consent.granted", "consent.revoked", "consent.granted"]


def test_a_receiver_that_fails_is_asked_once_in_a_round_however_much_waits_for_it(
    world: World, receiver: Receiver
) -> None:
    for _ in range(3):
        world.grant()
    receiver.otherwise = status(500)
    deliver(world)
    assert len(receiver.requests) == 1


def test_a_revocation_takes_effect_at_once_though_its_receiver_cannot_be_reached(world: World) -> None:
    consent = world.grant()
    world.custodian.webhooks.register(world.institution.institution_id, f"http://127.0.0.1:{free_port()}/hook")
    world.subject.revoke(world.custodian, consent)
    with pytest.raises(ConsentRevokedError):
        world.ask(consent)
    assert deliver(world) == 0
    assert [(event.state, event.last_answer) for event in told(world)] == [
        ("waiting", "unreachable"),
        ("waiting", None),
    ]
    with pytest.raises(ConsentRevokedError):
        world.ask(consent)


def test_an_institution_that_acknowledges_by_itself_is_not_sent_it(world: World, receiver: Receiver) -> None:
    world.grant()
    index = world.custodian.registry.institution_index(world.institution.institution_id)
    world.custodian.outbox.acknowledge(index, last(world).event_id, at=world.clock())
    assert deliver(world) == 0
    assert receiver.requests == []


# ------------------------------------------------------------------------------------------------------- dying half way


def test_a_process_that_dies_between_taking_and_sending_leaves_the_event_to_the_next(
    world: World, receiver: Receiver
) -> None:
    world.grant()
    world.steps.at("webhook claimed", die)
    with pytest.raises(Killed):
        deliver(world)
    world.restart()
    world.clock.advance(LEASE_SECONDS - 1)
    assert (deliver(world), receiver.requests) == (0, [])
    world.clock.advance(1)
    assert deliver(world) == 1
    assert (last(world).state, last(world).attempts) == ("acknowledged", 2)


def test_a_process_that_dies_between_sending_and_noting_it_sends_the_same_id_again(
    world: World, receiver: Receiver
) -> None:
    world.grant()
    world.steps.at("webhook answered", die)
    with pytest.raises(Killed):
        deliver(world)
    world.restart()
    world.clock.advance(LEASE_SECONDS)
    assert deliver(world) == 1
    first, second = receiver.requests
    assert first.body == second.body
    assert nonce_of(first) != nonce_of(second)


def test_a_database_that_cannot_be_written_loses_no_event(
    world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.grant()

    def busy(*_: object, **__: object) -> None:
        raise StoreUnavailableError("busy")

    with monkeypatch.context() as patched:
        patched.setattr(world.custodian.outbox, "delivered", busy)
        with pytest.raises(StoreUnavailableError):
            deliver(world)
    world.clock.advance(LEASE_SECONDS)
    assert deliver(world) == 1


# ------------------------------------------------------------------------------------------------ many at the same time


def test_two_processes_that_deliver_at_once_send_each_event_once_and_in_order(
    world: World, receivers: Callable[[], Receiver]
) -> None:
    mine = [receivers() for _ in range(3)]
    parties = [another(world, one) for one in mine]
    for institution, subject in parties:
        for _ in range(4):
            subject.grant(world.custodian, institution)
    other = world.open()
    ready = threading.Barrier(2)

    def work(custodian: Custodian) -> int:
        ready.wait()
        return sum(deliver(world, custodian) for _ in range(10))

    with ThreadPoolExecutor(2) as pool:
        assert sum(pool.map(work, [world.custodian, other])) == 15
    other.close()
    for one, (institution, _) in zip(mine, parties, strict=True):
        assert [body["id"] for body in bodies(one)] == [event.event_id for event in told(world, institution)]
        assert {event.attempts for event in told(world, institution)} == {1}


def test_a_slow_receiver_holds_up_nobody_but_itself(world: World, receivers: Callable[[], Receiver]) -> None:
    slow, quick = receivers(), receivers()
    gate = threading.Event()
    slow.otherwise = lambda handler: gate.wait(PATIENCE) and status(204)(handler)
    held_up, _ = another(world, slow)
    institution, subject = another(world, quick)
    try:
        # Both in one round; then rounds while the slow one is not done with the first.
        world.custodian.webhooks.deliver(patience=0.2)
        consent = subject.grant(world.custodian, institution)
        for _ in range(100):
            world.custodian.webhooks.deliver(patience=0.2)
            if len(quick.requests) == 2:
                break
        assert [body["consent"] for body in bodies(quick)][1] == consent
        assert len(slow.requests) == 1
    finally:
        gate.set()
    world.custodian.webhooks.close()
    assert [event.state for event in told(world, institution)] == ["acknowledged"] * 2
    assert [(event.state, event.attempts) for event in told(world, held_up)] == [("acknowledged", 1)]


def test_a_receiver_that_is_being_served_is_not_queued_for_again(
    world: World, receivers: Callable[[], Receiver], monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = receivers()
    gate, asked = threading.Event(), []
    slow.otherwise = lambda handler: gate.wait(PATIENCE) and status(204)(handler)
    institution, subject = another(world, slow)
    subject.grant(world.custodian, institution)
    claim = world.custodian.outbox.claim

    def counted(index: str, *, now: int, lease: int) -> Event | None:
        asked.append(index)
        return claim(index, now=now, lease=lease)

    monkeypatch.setattr(world.custodian.outbox, "claim", counted)
    for _ in range(5):
        world.custodian.webhooks.deliver(patience=0.1)
    assert len(asked) <= 1
    gate.set()
    world.custodian.webhooks.close()
    assert [event.attempts for event in told(world, institution)] == [1, 1]


def test_more_receivers_than_places_are_all_told(world: World, receivers: Callable[[], Receiver]) -> None:
    mine = [receivers() for _ in range(RECEIVERS_AT_ONCE + 3)]
    for one in mine:
        another(world, one)
    assert deliver(world) == len(mine)
    assert Counter(len(one.requests) for one in mine) == {1: len(mine)}


def test_one_institution_gets_a_few_events_a_round(world: World, receiver: Receiver) -> None:
    for _ in range(EVENTS_PER_TURN + 2):
        world.grant()
    assert [deliver(world) for _ in range(3)] == [EVENTS_PER_TURN, 2, 0]
    assert len(receiver.requests) == EVENTS_PER_TURN + 2


def test_who_has_waited_longest_is_told_first_if_there_are_too_many(
    world: World, receivers: Callable[[], Receiver]
) -> None:
    first, second = receivers(), receivers()
    another(world, first)
    another(world, second)
    assert world.custodian.webhooks.deliver(1, patience=PATIENCE) == 1
    assert (len(first.requests), len(second.requests)) == (1, 0)


# ------------------------------------------------------------------------------------------------------- registration


def test_without_a_receiver_an_event_is_left_to_be_read(world: World) -> None:
    world.grant()
    assert deliver(world) == 0
    assert (last(world).state, last(world).attempts, last(world).next_attempt_at) == ("unaddressed", 0, None)


def test_what_was_left_to_be_read_is_not_sent_to_a_receiver_that_comes_later(
    world: World, receivers: Callable[[], Receiver]
) -> None:
    consent = world.grant()
    deliver(world)
    late = receivers()
    world.custodian.webhooks.register(world.institution.institution_id, late.url())
    world.subject.revoke(world.custodian, consent)
    deliver(world)
    assert kinds(late) == ["consent.revoked"]


def test_after_a_receiver_is_removed_nothing_is_sent_to_it(world: World, receiver: Receiver) -> None:
    world.custodian.webhooks.unregister(world.institution.institution_id)
    world.grant()
    deliver(world)
    assert receiver.requests == []
    assert last(world).state == "unaddressed"


def test_events_go_to_their_own_institution_only(world: World, receivers: Callable[[], Receiver]) -> None:
    first, second = receivers(), receivers()
    one, _ = another(world, first)
    other, _ = another(world, second)
    deliver(world)
    assert [body["id"] for body in bodies(first)] == [event.event_id for event in told(world, one)]
    assert [body["id"] for body in bodies(second)] == [event.event_id for event in told(world, other)]


def test_a_new_address_takes_the_place_of_the_old_one_and_is_a_new_version(
    world: World, receiver: Receiver, receivers: Callable[[], Receiver]
) -> None:
    party_id = world.institution.institution_id
    before = world.custodian.registry.institution(party_id).version
    new = receivers()
    world.custodian.webhooks.register(party_id, new.url())
    assert world.custodian.webhooks.url_of(party_id) == new.url()
    assert world.custodian.registry.institution(party_id).version == before + 1
    world.grant()
    deliver(world)
    assert (len(receiver.requests), len(new.requests)) == (0, 1)


def test_an_address_that_is_refused_leaves_the_old_one(world: World, receiver: Receiver) -> None:
    party_id = world.institution.institution_id
    with pytest.raises(MalformedError):
        world.custodian.webhooks.register(party_id, "ftp://127.0.0.1/hook")
    assert world.custodian.webhooks.url_of(party_id) == receiver.url()


def test_who_is_not_registered_has_no_address(world: World) -> None:
    webhooks = world.custodian.webhooks
    with pytest.raises(NotFoundError):
        webhooks.register("nobody", "https://hook.example/")
    with pytest.raises(NotFoundError):
        webhooks.unregister("nobody")
    with pytest.raises(NotFoundError):
        webhooks.url_of("nobody")


def test_an_address_from_an_insecure_time_is_refused_later(world: World, receiver: Receiver) -> None:
    world.grant()
    world.config = replace(world.config, insecure_webhooks=False)
    world.restart()
    assert deliver(world) == 0
    assert (last(world).last_answer, receiver.requests) == ("refused_address", [])
