"""What is on chain about me: every byte of the custodian's acts and of the entries, and nothing of anyone else."""

from __future__ import annotations

import re

import pytest
from actors import NOON, World

from ledger.consent import ZERO32, Hex32
from ledger.contract import decode_call
from ledger.errors import ChainUnavailableError, ConsentError, NotFoundError
from ledger.public_record import MEANINGS, PublicConsent, PublicField, PublicRecord, PublicTransaction
from ledger.typed_data import terms_hash


def me(world: World) -> str:
    return world.custodian.vault.subject_of(world.subject.ref)


def record(world: World) -> PublicRecord:
    return world.custodian.public_records.of_subject(me(world))


def only(world: World) -> PublicConsent:
    (found,) = record(world).consents
    return found


def values(fields: tuple[PublicField, ...] | None) -> dict[str, str]:
    assert fields is not None
    return {one.name: one.value for one in fields}


def transactions(found: PublicRecord) -> list[PublicTransaction]:
    return [one for consent in found.consents for one in (*consent.transactions, *consent.entries)]


def test_the_slot_says_all_that_the_contract_keeps(world: World) -> None:
    consent = world.grant()
    world.ask(consent)
    world.subject.pause(world.custodian, consent)
    assert values(only(world).slot) == {
        "validFrom": str(NOON),
        "expiresAt": str(NOON + 30 * 86_400),
        "maxAccesses": "3",
        "accesses": "1",
        "custodianNumber": "1",
        "pauseSequence": "1",
        "state": "paused",
    }


def test_every_act_is_there_with_every_field_of_its_data_and_its_events(world: World) -> None:
    consent = world.grant()
    grant = world.grant_of(consent)
    world.subject.pause(world.custodian, consent)
    world.subject.revoke(world.custodian, consent)
    found = only(world)
    assert [one.function for one in found.transactions] == ["revoke", "setPaused", "grant"]
    revoked, paused, granted = found.transactions
    outer = {
        "termsHash": terms_hash(grant.terms),
        "subject": world.subject.address.lower(),
        "custodian": world.custodian.address.lower(),
        "validFrom": str(NOON),
        "expiresAt": str(grant.expires_at),
        "maxAccesses": "3",
    }
    signature = "0x" + world.custodian.registry.consent(consent).signature.hex()
    assert {name: value.lower() for name, value in values(granted.fields).items()} == outer | {"signature": signature}
    assert values(paused.fields)["paused"] == "true"
    assert values(paused.fields)["sequence"] == "1"
    assert granted.events is not None
    assert [name for name, _ in granted.events] == ["ConsentGranted"]
    assert paused.events is not None
    assert values(paused.events[0][1]) == {"consentId": consent, "paused": "true", "sequence": "1"}
    assert revoked.events is not None
    assert values(revoked.events[0][1])["by"] == world.subject.address
    for one in found.transactions:
        assert one.transaction_hash is not None
        mined = world.chain.receipt(one.transaction_hash)
        assert mined is not None
        assert one.block_number == mined.block_number
        assert one.raw is not None
        assert bytes.fromhex(one.raw[2:]) in world.chain.sent
        # Nothing of the data was left out.
        act = next(
            row for row in world.custodian.journal.acts_about(consent) if row.transaction_hash == mined.transaction_hash
        )
        name, args = decode_call(act.calldata)
        assert name == one.function
        assert all(part.hex() in one.raw for part in args if isinstance(part, bytes))


def test_every_entry_is_there_with_its_event_and_without_those_of_others(world: World) -> None:
    consent = world.grant()
    world.ask(consent)
    with pytest.raises(ConsentError):
        world.ask(consent, purpose="account-review")
    other = world.another_subject()
    world.custodian.releases.release(
        world.institution.request(world.custodian, other.grant(world.custodian, world.institution))
    )
    world.custodian.sync()
    found = only(world)
    assert [one.function for one in found.entries] == ["appendRefusals", "append"]
    refused, recorded = found.entries
    assert recorded.events is not None
    assert refused.events is not None
    assert [(name, values(fields)) for name, fields in recorded.events] == [
        ("AccessRecorded", {"consentId": consent, "entryHash": world.logged()[0]})
    ]
    ((name, fields),) = refused.events
    assert (name, values(fields)["reason"]) == ("AccessRefused", "8")
    assert {one.args[1] for one in world.chain.all_events() if one.name.startswith("Access")} > {
        values(one.fields)["entryHash"] for one in found.entries
    }


def test_of_a_transaction_about_several_consents_each_has_its_own_events(world: World) -> None:
    consents = [world.grant(), world.grant()]
    for consent in consents:
        with pytest.raises(ConsentError):
            world.ask(consent, purpose="account-review")
    # One batch for both.
    world.custodian.releases.log_refusals()
    world.subject.revoke(world.custodian, *consents)
    found = record(world)
    (batch,) = {one.transaction_hash for about in found.consents for one in about.entries}
    assert batch is not None
    for about in found.consents:
        revoked, *_ = about.transactions
        shown = [*(revoked.events or ()), *(event for one in about.entries for event in one.events or ())]
        assert [name for name, _ in shown] == ["ConsentRevoked", "AccessRefused"]
        assert {values(fields)["consentId"] for _, fields in shown} == {about.consent_id}


def test_a_late_entry_says_so_and_why(world: World) -> None:
    consent = world.grant(expires_at=NOON + 600)
    world.ask(consent)
    world.clock.advance(601)
    world.chain.restart_empty()
    world.chain.deploy()
    world.custodian.allow_writers()
    world.custodian.sync()
    (entry,) = only(world).entries
    assert entry.events is not None
    ((name, fields),) = entry.events
    assert (name, entry.function, values(fields)["reason"]) == ("AccessLate", "appendLate", "3")


def test_every_field_has_a_word_on_what_it_is(world: World) -> None:
    consents = [world.grant(), world.grant()]
    world.ask(consents[0])
    world.subject.pause(world.custodian, consents[0])
    world.subject.revoke(world.custodian, *consents)
    found = record(world)
    fields = [field for one in transactions(found) for field in one.fields]
    fields += [field for one in transactions(found) for _, event in one.events or () for field in event]
    fields += [field for one in found.consents for field in one.slot or ()]
    assert {one.name for one in fields} <= set(MEANINGS)
    assert all(one.meaning.endswith(".") for one in fields)


def test_names_purposes_and_attributes_are_not_among_what_is_public(world: World) -> None:
    world.ask(world.grant())
    # A hash may have the number by chance.
    shown = re.sub("[0-9a-f]{32,}", "", repr(record(world)))
    for secret in ("bank-1", "First Bank", "loan-origination", "credit_amount", world.subject.ref, "1169"):
        assert secret not in shown


def test_with_the_chain_away_what_is_known_is_said_and_the_rest_says_that_it_is_not(world: World) -> None:
    consent = world.grant()
    world.ask(consent)
    world.chain.down = True
    found = record(world)
    assert not found.is_chain_known
    (one,) = found.consents
    assert one.slot is None
    assert [act.function for act in one.transactions] == ["grant"]
    assert all(each.events is None and each.block_number is not None for each in transactions(found))
    # Lost in the middle of it.
    world.chain.down = False

    def fail() -> None:
        raise ChainUnavailableError("gone")

    world.chain.before("receipt", fail)
    assert None in [each.events for each in transactions(record(world))]


def test_a_grant_on_its_way_is_in_no_block_and_the_contract_knows_nothing(world: World) -> None:
    draft = world.subject.draft(world.custodian, world.institution)
    world.chain.before("send", lambda: setattr(world.chain, "down", True))
    with pytest.raises(ChainUnavailableError):
        world.subject.hand_in(world.custodian, draft)
    world.chain.down = False
    found = only(world)
    assert found.slot == ()
    (act,) = found.transactions
    assert (act.function, act.block_number) == ("grant", None)


def test_what_the_person_did_on_chain_alone_shows_in_the_slot(world: World) -> None:
    consent = world.grant()
    world.subject.revoke_directly(world.chain, world.grant_of(consent))
    found = only(world)
    assert values(found.slot)["state"] == "revoked"
    assert [act.function for act in found.transactions] == ["grant"]


def test_others_consents_do_not_exist_and_an_erased_persons_neither(world: World) -> None:
    other = world.another_subject()
    theirs, mine = other.grant(world.custodian, world.institution), world.grant()
    records = world.custodian.public_records
    assert [one.consent_id for one in record(world).consents] == [mine]
    for consent in (theirs, ZERO32, Hex32("0x" + "12" * 32)):
        with pytest.raises(NotFoundError):
            records.of_consent(me(world), consent)
    assert records.of_consent(me(world), mine).consents == record(world).consents
    subject_id = me(world)
    world.custodian.eraser.erase(world.subject.ref)
    assert records.of_subject(subject_id).consents == ()
