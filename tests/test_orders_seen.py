"""Accesses by order come to the person's eyes: at once, or when the embargo is over; and never sooner."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
from actors import DAY, Institution, Subject, World
from browsing import Browser, enrolled

from ledger.access import entry_hash_of
from ledger.compelled import CompelledOrder, NewOrder, order_hash_of
from ledger.consent import Hex32
from ledger.errors import NotFoundError
from ledger.evidence import verify_receipt
from ledger.orders import ExecutedOrder

DOCUMENT: Final = Hex32("0x" + "d0" * 32)


@pytest.fixture(autouse=True)
def court(world: World) -> Institution:
    court = Institution("court-1", "District Court")
    world.custodian.registry.add_authority("court-1", court.name, court.jwks, at=world.clock())
    return court


def me(world: World, subject: Subject | None = None) -> str:
    return world.custodian.vault.subject_of((subject or world.subject).ref)


def execute(world: World, **changes: Any) -> ExecutedOrder:
    fields: dict[str, Any] = {
        "authority": "court-1",
        "reference": "12 C 345/26",
        "document_hash": DOCUMENT,
        "subject_id": me(world),
        "attributes": ("credit_amount", "savings"),
    }
    return world.custodian.orders.execute(NewOrder(**(fields | changes)))


def everything_told(world: World, browser: Browser) -> str:
    """All that the person can get at, in one text."""
    held = world.custodian
    pages = [browser.get(page).text for page in ("/", "/activity", "/chain", "/data", "/data/erase", "/notices")]
    told = [json.dumps(held.subject_export.of_subject(me(world))), repr(held.activity.page(me(world)))]
    told += [repr(held.activity.readers(me(world))), repr(held.activity.readers(me(world), since=1))]
    return "\n".join(pages + told + [repr(held.activity.compelled(me(world)))])


def test_an_order_without_an_embargo_is_shown_at_once_with_who_what_and_which(world: World) -> None:
    done = execute(world)
    (found,) = world.custodian.activity.compelled(me(world))
    assert (found.order_hash, found.release_id) == (done.order_hash, done.release_id)
    assert (found.authority, found.authority_name) == ("court-1", "District Court")
    assert (found.reference, found.document_hash) == ("12 C 345/26", DOCUMENT)
    assert found.attributes == ("credit_amount", "savings")
    assert (found.ordered_at, found.handed_over_at, found.outcome) == (world.clock(), world.clock(), "released")
    assert found.kept_until == 0
    assert found.place is not None
    assert [found.entry_hash] == world.logged("AccessCompelled")


def test_its_openings_make_it_checkable(world: World) -> None:
    done = execute(world)
    opened = world.custodian.activity.compelled_entry(me(world), done.order_hash)
    assert order_hash_of(opened.order) == opened.entry.consent_id == done.order_hash
    assert [entry_hash_of(opened.entry)] == world.logged("AccessCompelled")
    receipt = world.custodian.orders.receipt(done.order_hash, subject_id=me(world))
    assert verify_receipt(receipt, world.chain, world.custodian.accounts.signing_key).entry == opened.entry


def test_under_an_embargo_the_person_is_told_nothing_and_all_of_it_when_it_is_over(world: World) -> None:
    until = world.clock() + 90 * DAY
    anna = enrolled(world, world.subject)
    before = everything_told(world, anna)
    done = execute(world, embargo_until=until)
    release_id, (entry_hash,) = done.release_id, world.logged("AccessCompelled")
    for when in (world.clock(), until - 1):
        world.clock.now = when
        anna.sign_in()
        told = everything_told(world, anna)
        for word in ("court-1", "District Court", "12 C 345/26", done.order_hash, release_id, entry_hash):
            assert word not in told
        assert told.count("appendCompelled") == before.count("appendCompelled") == 0
        for act in (
            lambda: world.custodian.activity.compelled_entry(me(world), done.order_hash),
            lambda: world.custodian.orders.receipt(done.order_hash, subject_id=me(world)),
        ):
            with pytest.raises(NotFoundError):
                act()
        assert anna.get(f"/activity/orders/{done.order_hash}").status_code == 404
        assert anna.get(f"/activity/orders/{done.order_hash}/receipt.jwt").status_code == 404
    # What everybody can count: that there is one, and until when.
    (event,) = [event for event in world.chain.all_events() if event.name == "AccessCompelled"]
    assert event.args[2] == until

    world.clock.now = until
    anna.sign_in()
    told = everything_told(world, anna)
    for word in ("District Court", "12 C 345/26", done.order_hash, release_id, entry_hash, "appendCompelled"):
        assert word in told
    (found,) = world.custodian.activity.compelled(me(world))
    assert found.kept_until == until


def test_the_page_says_who_what_and_when_and_the_receipt_can_be_kept(world: World) -> None:
    done = execute(world)
    anna = enrolled(world, world.subject)
    assert f"/activity/orders/{done.order_hash}" in anna.get("/activity").text
    page = anna.get(f"/activity/orders/{done.order_hash}").text
    for word in ("District Court", "12 C 345/26", DOCUMENT, "Amount of the credit", done.order_hash):
        assert word in page
    receipt = anna.get(f"/activity/orders/{done.order_hash}/receipt.jwt")
    assert receipt.headers["Content-Type"].startswith("application/jwt")
    assert verify_receipt(receipt.text, world.chain, world.custodian.accounts.signing_key)


def test_what_is_anothers_does_not_exist(world: World) -> None:
    done = execute(world)
    other = world.another_subject()
    stranger = enrolled(world, other)
    assert world.custodian.activity.compelled(me(world, other)) == []
    assert stranger.get(f"/activity/orders/{done.order_hash}").status_code == 404
    assert stranger.get(f"/activity/orders/{done.order_hash}/receipt.jwt").status_code == 404
    assert "District Court" not in stranger.get("/activity").text + stranger.get("/chain").text
    with pytest.raises(NotFoundError):
        world.custodian.orders.receipt(done.order_hash, subject_id=me(world, other))


def test_it_is_among_what_is_on_chain_about_the_person_and_in_the_export(world: World) -> None:
    done = execute(world)
    (public,) = world.custodian.public_records.of_subject(me(world)).orders
    assert public.function == "appendCompelled"
    assert {field.name: field.value for field in public.fields}["orderHash"] == done.order_hash
    assert public.events is not None
    assert [name for name, _ in public.events] == ["AccessCompelled"]
    (exported,) = world.custodian.subject_export.of_subject(me(world))["orders"]
    assert order_hash_of(CompelledOrder.from_json(exported["order"])) == done.order_hash
    assert verify_receipt(exported["receipt"], world.chain, world.custodian.accounts.signing_key)
    json.dumps(exported)


def test_the_portal_says_that_there_may_be_some_in_both_languages(world: World) -> None:
    anna = enrolled(world, world.subject)
    for page in ("/activity", "/chain"):
        assert "at most 366 days" in anna.get(page).text
        assert "最长 366 天" in anna.get(f"{page}?lang=zh_Hans_CN").text
        anna.get(f"{page}?lang=en")


def test_an_erased_person_and_a_rebuilt_chain_leave_nothing_to_be_seen(world: World) -> None:
    execute(world)
    subject_id = me(world)
    world.custodian.eraser.erase(world.subject.ref)
    assert world.custodian.activity.compelled(subject_id) == []
    assert world.custodian.public_records.of_subject(subject_id).orders == ()
