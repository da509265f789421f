"""Orders: what an authority compels is logged before it is read, once, and comes to the person's eyes in time."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from actors import DAY, World
from courts import DOCUMENT, Authority, execute, new_order, registered
from sqlalchemy import select

from ledger.access import (
    COMPELLED,
    LONGEST_EMBARGO,
    AccessEntry,
    BatchKind,
    entry_hash_of,
    fold_compelled,
    records_hash_of,
)
from ledger.chain import Receipt
from ledger.commit import Finality
from ledger.compelled import CompelledOrder, order_hash_of
from ledger.consent import ZERO32, Reason
from ledger.contract import call
from ledger.contract_events import Appended, batches_of
from ledger.errors import (
    AnswerGoneError,
    AttributeAbsentError,
    AuditError,
    ChainLostError,
    ChainUnavailableError,
    ConfirmationTimeoutError,
    EmbargoTooLongError,
    ErasedError,
    IdempotencyConflictError,
    InstitutionSuspendedError,
    LedgerError,
    MalformedError,
    NotFoundError,
    ReleaseInProgressError,
    TransactionRevertedError,
    UnknownAttributeError,
)
from ledger.evidence import verify_receipt
from ledger.exchange import RECEIPT_TYPE, new_institution_keys, sign_claims, verify_claims
from ledger.journal import ABORTED, INTENT, RECORDED, RELEASED
from ledger.parties import AUTHORITY
from ledger.release import KEPT_SECONDS
from ledger.store import batches, orders
from ledger.vault import AttributeValue, Vault

STEPS_BEFORE_DECRYPTING: Final = (
    "order before intent",
    "order durable",
    "batch durable",
    "batch sent",
    "batch landed",
    "order logged",
    "order before decrypting",
)
STEPS: Final = (*STEPS_BEFORE_DECRYPTING, "order before answer durable", "order answer durable")
UNSENT: Final = ("order before intent", "order durable", "batch durable")


class Killed(BaseException):
    """What a process does not survive."""


def die() -> None:
    raise Killed


@pytest.fixture
def court(world: World) -> Authority:
    return registered(world)


def compelled(world: World) -> list[Appended]:
    """The batches of orders on the canonical chain."""
    found = batches_of(world.chain.all_events())
    return [batch for batch in found if batch.kind is BatchKind.COMPELLED_ACCESSES]


def states(world: World) -> list[str]:
    with world.custodian.store.read() as tx:
        return list(tx.scalars(select(orders.c.state)))


def count_opened(world: World, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many compelled entries the chain had whenever a value was decrypted."""
    opened: list[int] = []
    own = Vault.open

    def watched(vault: Vault, *args: Any) -> AttributeValue:
        opened.append(len(compelled(world)))
        return own(vault, *args)

    monkeypatch.setattr(Vault, "open", watched)
    return opened


# ------------------------------------------------------------------------------------------------------------ the way


def test_an_order_is_answered_to_the_authority_alone_and_logged_as_what_it_is(world: World, court: Authority) -> None:
    done = execute(world)
    claims = court.open(world.custodian, done.sealed)
    assert (claims["aud"], claims["purpose"], claims["jti"]) == ("court-1", COMPELLED, done.release_id)
    assert {name: one["value"] for name, one in claims["values"].items()} == {
        "credit_amount": 1169,
        "savings": "below_100",
    }
    order = CompelledOrder.from_json(claims["order"])
    assert (order.reference, order.document_hash) == ("12 C 345/26", DOCUMENT)
    with pytest.raises(AuditError):
        world.institution.open(world.custodian, done.sealed)

    (batch,) = compelled(world)
    (outcome,) = batch.outcomes
    assert outcome.access.consent_id == order_hash_of(order) == done.order_hash
    assert outcome.access.entry_hash == claims["entryHash"]
    assert (outcome.reason, batch.embargo_until, batch.size) == (Reason.COMPELLED, 0, 1)
    assert batch.head == fold_compelled(ZERO32, done.order_hash, 0, [claims["entryHash"]])


def test_the_entry_binds_the_document_and_the_envelopes_that_were_read(world: World, court: Authority) -> None:
    done = execute(world)
    opened = world.custodian.orders.one(done.order_hash).opened
    assert opened is not None
    records = world.custodian.vault.find(opened.order.subject, opened.order.attributes)
    assert opened.entry.request_hash == DOCUMENT
    assert opened.entry.records_hash == records_hash_of(record.envelope.digest() for record in records)
    assert opened.entry.purpose == COMPELLED
    assert entry_hash_of(opened.entry) == court.open(world.custodian, done.sealed)["entryHash"]


@pytest.mark.usefixtures("court")
def test_nothing_is_decrypted_before_the_chain_has_the_access(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = count_opened(world, monkeypatch)
    execute(world)
    assert opened == [1, 1]


@pytest.mark.usefixtures("court")
def test_a_receipt_of_an_order_leads_to_its_entry_and_opens_the_order(world: World) -> None:
    done = execute(world)
    key = world.custodian.accounts.signing_key
    seen = verify_receipt(done.receipt, world.chain, key)
    assert (seen.outcome.reason, seen.entry.consent_id) == (Reason.COMPELLED, done.order_hash)
    claims = verify_claims(done.receipt, key, RECEIPT_TYPE)
    other = claims | {"order": claims["order"] | {"reference": "13 C 1/26"}}
    unopened = {name: value for name, value in claims.items() if name != "order"}
    for changed in (other, unopened, claims | {"late": True}):
        with pytest.raises(AuditError):
            verify_receipt(sign_claims(changed, key, RECEIPT_TYPE), world.chain, key)


@pytest.mark.usefixtures("court")
def test_an_ordered_access_cannot_be_passed_off_as_one_under_a_consent(world: World) -> None:
    execute(world)
    release = world.ask(world.grant())
    key = world.custodian.accounts.signing_key
    claims = verify_claims(release.receipt, key, RECEIPT_TYPE)
    entry = AccessEntry.from_json(claims["entry"] | {"purpose": COMPELLED})
    forged = claims | {"entry": entry.as_json(), "entryHash": entry_hash_of(entry)}
    with pytest.raises(AuditError):
        verify_receipt(sign_claims(forged, key, RECEIPT_TYPE), world.chain, key)


@pytest.mark.usefixtures("court")
def test_no_consent_is_used_or_needed(world: World) -> None:
    consent = world.grant()
    before = world.chain.consent(consent)
    execute(world)
    world.subject.revoke(world.custodian, consent)
    execute(world, reference="after the revocation")
    assert world.chain.consent(consent).accesses == before.accesses == 0
    assert len(compelled(world)) == 2


# ------------------------------------------------------------------------------------------------------------- refused


@pytest.mark.usefixtures("court")
@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"authority": "court-2"}, NotFoundError),
        ({"authority": "bank-1"}, NotFoundError),
        ({"reference": ""}, MalformedError),
        ({"reference": "x" * 201}, MalformedError),
        ({"attributes": ()}, MalformedError),
        ({"attributes": ("savings", "savings")}, MalformedError),
        ({"attributes": ("shoe_size",)}, UnknownAttributeError),
        ({"attributes": ("savings", "age")}, AttributeAbsentError),
        ({"embargo_until": -1}, MalformedError),
        ({"embargo_until": 1}, MalformedError),
        ({"embargo_until": 2**64}, EmbargoTooLongError),
    ],
)
def test_what_cannot_be_answered_is_refused_before_anything_is_logged(
    world: World, changes: dict[str, Any], error: type[LedgerError]
) -> None:
    with pytest.raises(error):
        execute(world, **changes)
    assert (compelled(world), states(world)) == ([], [])


@pytest.mark.usefixtures("court")
def test_nothing_is_logged_for_an_authority_that_no_answer_can_be_sealed_to(world: World) -> None:
    registry = world.custodian.registry
    jwks = registry.authority("court-1").jwks
    retired = {"keys": [key | {"exp": world.clock()} for key in jwks["keys"]]}
    with world.custodian.store.begin() as tx:
        registry._update(tx, AUTHORITY, "court-1", jwks=json.dumps(retired))
    with pytest.raises(MalformedError, match="jwks"):
        execute(world)
    assert (compelled(world), states(world)) == ([], [])


@pytest.mark.usefixtures("court")
def test_an_embargo_ends_within_366_days_and_is_on_chain(world: World) -> None:
    latest = world.clock() + LONGEST_EMBARGO
    with pytest.raises(EmbargoTooLongError):
        execute(world, embargo_until=latest + 1)
    assert compelled(world) == []
    execute(world, embargo_until=latest)
    assert [batch.embargo_until for batch in compelled(world)] == [latest]


@pytest.mark.usefixtures("court")
def test_a_suspended_authority_and_an_erased_person_get_an_order_nowhere(world: World) -> None:
    new = new_order(world)
    world.custodian.registry.suspend(AUTHORITY, "court-1", suspended=True)
    with pytest.raises(InstitutionSuspendedError):
        world.custodian.orders.execute(new)
    world.custodian.registry.suspend(AUTHORITY, "court-1", suspended=False)
    world.custodian.eraser.erase(world.subject.ref)
    with pytest.raises((AttributeAbsentError, ErasedError)):
        world.custodian.orders.execute(new)
    assert compelled(world) == []


@pytest.mark.usefixtures("court")
def test_while_the_chain_is_away_nothing_is_handed_over_and_nothing_is_on_file(world: World) -> None:
    world.chain.down = True
    with pytest.raises(ChainUnavailableError):
        execute(world)
    world.chain.down = False
    assert (compelled(world), states(world)) == ([], [])


@pytest.mark.usefixtures("court")
@pytest.mark.parametrize("place", [0, 1, 2], ids=["order", "entry", "embargo"])
def test_an_endpoint_that_tells_of_another_order_is_not_believed(
    world: World, place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = count_opened(world, monkeypatch)

    def lie(receipt: Receipt) -> Receipt:
        changed = [
            replace(one, args=(*one.args[:place], 7 if place == 2 else DOCUMENT, *one.args[place + 1 :]))
            if one.name == "AccessCompelled"
            else one
            for one in receipt.events
        ]
        return replace(receipt, events=tuple(changed))

    world.chain.lie = lie
    with pytest.raises(ChainUnavailableError):
        execute(world)
    assert opened == []
    world.chain.lie = lambda receipt: receipt
    execute(world)
    assert len(compelled(world)) == 1


# ---------------------------------------------------------------------------------------------------- the same again


def test_the_same_order_twice_is_one_entry_and_the_same_bytes(world: World, court: Authority) -> None:
    first, second = execute(world), execute(world)
    assert (first.sealed, first.order_hash) == (second.sealed, second.order_hash)
    assert len(compelled(world)) == 1
    assert court.open(world.custodian, second.sealed)["jti"] == first.release_id


@pytest.mark.usefixtures("court")
@pytest.mark.parametrize(
    "changes",
    [{"document_hash": ZERO32}, {"attributes": ("savings",)}, {"embargo_until": 1}],
    ids=lambda changes: next(iter(changes)),
)
def test_a_reference_stands_for_one_order(world: World, changes: dict[str, Any]) -> None:
    execute(world)
    with pytest.raises(IdempotencyConflictError):
        execute(world, **changes)
    assert len(compelled(world)) == 1


@pytest.mark.usefixtures("court")
def test_an_answer_is_kept_for_a_day_and_gone_after_it(world: World) -> None:
    done = execute(world)
    world.clock.advance(KEPT_SECONDS + 700)
    world.custodian.housekeeping()
    with pytest.raises(AnswerGoneError):
        execute(world)
    assert len(compelled(world)) == 1
    assert world.custodian.orders.receipt(done.order_hash)


# -------------------------------------------------------------------------------------------------------- crash points


@pytest.mark.usefixtures("court")
@pytest.mark.parametrize("step", STEPS)
def test_a_process_that_dies_at_any_step_leaves_one_entry_and_is_resumed(
    world: World, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = count_opened(world, monkeypatch)
    world.steps.at(step, die)
    with pytest.raises(Killed):
        execute(world)
    if step in UNSENT:
        assert compelled(world) == []
    if step in STEPS_BEFORE_DECRYPTING:
        assert opened == []
    world.restart()
    done = execute(world)
    assert len(compelled(world)) == 1
    assert verify_receipt(done.receipt, world.chain, world.custodian.accounts.signing_key)
    assert states(world) == [RELEASED]


@pytest.mark.usefixtures("court")
@pytest.mark.parametrize("step", STEPS[1:-1])
def test_whoever_does_not_come_back_leaves_an_access_in_sight(world: World, step: str) -> None:
    subject_id = world.custodian.vault.subject_of(world.subject.ref)
    world.steps.at(step, die)
    with pytest.raises(Killed):
        execute(world)
    world.restart()
    world.custodian.sync()
    assert len(compelled(world)) == 1
    assert states(world) == [RECORDED]
    with world.custodian.store.read() as tx:
        (row,) = world.custodian.order_book.visible(tx, subject_id, now=world.clock())
    assert row.log_index is not None
    assert execute(world).order_hash == row.order_hash


@pytest.mark.usefixtures("court")
def test_an_order_at_which_another_process_is_at_work_waits(world: World) -> None:
    world.steps.at("batch durable", die)
    with pytest.raises(Killed):
        execute(world)
    # The process lives: it has its writer.
    other = world.open()
    try:
        with pytest.raises(ReleaseInProgressError):
            other.orders.execute(new_order(world))
    finally:
        other.close()
    assert states(world) == [INTENT]


def test_an_order_that_waits_in_another_writers_batch_is_not_appended_by_a_third(
    data: Path, first_state: World
) -> None:
    world = World(data, finality=Finality(timeout=0.05), like=first_state)
    registered(world)
    new = new_order(world)
    stop = call("setWriter", world.custodian.log.address, False)
    with world.open() as second, world.open() as third:
        world.steps.at("batch durable", lambda: world.chain.transact(world.custodian.accounts.custodian, stop))
        with pytest.raises(TransactionRevertedError):
            world.custodian.orders.execute(new)
        world.custodian.close()
        world.chain.automine = False
        with pytest.raises(ConfirmationTimeoutError):
            second.orders.execute(new)
        with pytest.raises(ReleaseInProgressError):
            third.orders.execute(new)
        world.chain.mine()
        world.chain.automine = True
        assert second.orders.execute(new).sealed == third.orders.execute(new).sealed
        assert len(compelled(world)) == 1
        assert second.orders.execute(new_order(world, reference="13 C 1/26")).sealed
        third.sync()


@pytest.mark.usefixtures("court")
def test_an_order_is_in_one_batch_at_a_time(world: World) -> None:
    done = execute(world)
    book, writer = world.custodian.order_book, world.custodian.log.address
    with world.custodian.store.begin() as tx, pytest.raises(ReleaseInProgressError):
        book.put_in_batch(tx, done.order_hash, "another", writer=writer)


@pytest.mark.usefixtures("court")
@pytest.mark.parametrize("step", STEPS_BEFORE_DECRYPTING[:-2])
def test_an_erasure_in_the_middle_of_an_order_hands_nothing_over(world: World, step: str) -> None:
    world.steps.at(step, lambda: world.custodian.eraser.erase(world.subject.ref))
    with pytest.raises((ErasedError, AttributeAbsentError)):
        execute(world)
    assert RELEASED not in states(world)


@pytest.mark.usefixtures("court")
def test_an_erasure_just_before_the_answer_is_stored_hands_nothing_over(world: World) -> None:
    world.steps.at("order before answer durable", lambda: world.custodian.eraser.erase(world.subject.ref))
    with pytest.raises(ErasedError):
        execute(world)
    assert states(world) == [RECORDED]


# ----------------------------------------------------------------------------------------------------- the chain loses


@pytest.mark.usefixtures("court")
def test_a_lost_chain_gets_an_order_back_as_the_order_it_was(world: World) -> None:
    until = world.clock() + 100 * DAY
    consent = world.grant()
    world.ask(consent)
    done = execute(world, embargo_until=until)
    world.ask(consent)
    (before,) = compelled(world)
    world.chain.restart_empty()
    world.chain.deploy()
    world.custodian.allow_writers()
    assert world.custodian.sync().replayed_orders == 1
    (after,) = compelled(world)
    assert [one.access for one in after.outcomes] == [one.access for one in before.outcomes]
    assert after.embargo_until == until
    assert verify_receipt(
        world.custodian.orders.receipt(done.order_hash), world.chain, world.custodian.accounts.signing_key
    )
    assert world.custodian.sync().replayed_orders == 0


@pytest.mark.usefixtures("court")
def test_an_order_that_cannot_come_back_now_keeps_nothing_else_from_it(world: World) -> None:
    consent = world.grant()
    world.clock.advance(600)
    execute(world, embargo_until=world.clock() + LONGEST_EMBARGO)
    world.ask(consent)
    world.chain.restart_empty()
    # The machine of the new chain has a clock that is behind: the embargo is too long by it.
    world.clock.advance(-300)
    world.chain.deploy()
    world.custodian.allow_writers()
    with pytest.raises(TransactionRevertedError):
        world.custodian.sync()
    assert (len(world.logged()), compelled(world)) == (1, [])
    world.clock.advance(300)
    world.custodian.sync()
    assert len(compelled(world)) == 1


@pytest.mark.usefixtures("court")
def test_an_order_that_cannot_come_back_now_is_tried_once_in_a_run_however_much_was_lost(world: World) -> None:
    execute(world, embargo_until=world.clock() + LONGEST_EMBARGO)
    for _ in range(5):
        world.subject.revoke(world.custodian, world.grant())
    world.chain.restart_empty()
    world.clock.advance(-300)
    world.chain.deploy()
    world.custodian.allow_writers()
    for runs in (1, 2):
        with pytest.raises(TransactionRevertedError):
            world.custodian.sync()
        with world.custodian.store.read() as tx:
            made = tx.scalars(
                select(batches.c.batch_id).where(batches.c.kind == int(BatchKind.COMPELLED_ACCESSES))
            ).all()
        assert len(made) == 1 + runs


@pytest.mark.usefixtures("court")
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_reorganisation_loses_no_order(world: World, depth: int) -> None:
    world.ask(world.grant())
    execute(world)
    world.ask(world.grant())
    world.chain.reorg(depth)
    world.custodian.sync()
    assert len(compelled(world)) == 1


@pytest.mark.usefixtures("court")
def test_what_the_chain_lost_before_it_was_read_is_not_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = count_opened(world, monkeypatch)
    world.steps.at("order logged", lambda: world.chain.reorg(1))
    with pytest.raises(ChainLostError):
        execute(world)
    assert opened == []
    world.custodian.sync()
    execute(world)
    assert opened == [1, 1]


# ------------------------------------------------------------------------------------------------------------- erasure


@pytest.mark.usefixtures("court")
def test_an_erasure_destroys_what_is_on_file_of_an_order_and_its_log_stays_whole(world: World) -> None:
    done = execute(world)
    execute(world, reference="under embargo", embargo_until=world.clock() + DAY)
    subject_id = world.custodian.vault.subject_of(world.subject.ref)
    # The number is for the person to see: not of what is kept from them.
    assert world.custodian.eraser.preview(subject_id).rows["orders"] == 1
    erasure = world.custodian.eraser.erase(world.subject.ref)
    assert erasure.releases == 1
    assert all(one.opened is None for one in world.custodian.orders.listed())
    with pytest.raises(ErasedError):
        world.custodian.orders.receipt(done.order_hash)
    world.chain.restart_empty()
    world.chain.deploy()
    world.custodian.allow_writers()
    assert world.custodian.sync().replayed_orders == 2
    assert sorted(batch.outcomes[0].access.consent_id for batch in compelled(world)) == sorted(
        one.order_hash for one in world.custodian.orders.listed()
    )


@pytest.mark.usefixtures("court")
def test_an_order_that_was_never_logged_is_over_with_an_erasure(world: World) -> None:
    world.steps.at("order durable", die)
    with pytest.raises(Killed):
        execute(world)
    world.restart()
    world.custodian.eraser.erase(world.subject.ref)
    assert states(world) == [ABORTED]


@pytest.mark.usefixtures("court")
def test_the_database_does_not_say_what_was_ordered(world: World) -> None:
    execute(world)
    with world.custodian.store.read() as tx:
        (row,) = tx.execute(select(orders))
    text = json.dumps({name: str(value) for name, value in row._mapping.items()})
    for word in ("court-1", "12 C 345/26", "credit_amount", DOCUMENT[2:]):
        assert word not in text


def test_a_key_rotation_reaches_orders_too(world: World, court: Authority) -> None:
    done = execute(world)
    rotation = world.custodian.rotate_keys()
    assert rotation.destroyed
    assert court.open(world.custodian, execute(world).sealed)["jti"] == done.release_id


def test_an_authority_needs_a_key_to_be_sealed_to(world: World) -> None:
    sig_only = {"keys": [new_institution_keys().as_dict(private=False)["keys"][0]]}
    with pytest.raises(MalformedError):
        world.custodian.registry.add_authority("court-9", "Court", sig_only, at=world.clock())
