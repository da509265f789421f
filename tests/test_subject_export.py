"""The export has everything and nobody else's; the receipts in it are of the form that other software reads."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from actors import DAY, NOON, World
from test_consent_requests import ask, link_of
from test_erase import REASON, everything_about_a_person

from ledger.consent import ZERO32
from ledger.consent_receipts import CONTEXT, PURPOSES, RECEIPT_PROFILE, RECORD_PROFILE
from ledger.errors import ConsentError, NotFoundError
from ledger.purposes import PURPOSES as ALL_PURPOSES
from ledger.receipts import verify_grant, verify_revocation

# The guide's table (DPV-27560, "Consent Record" and "Consent Receipts"): what MUST be present.
RECEIPT_FIELDS = ("@id", "@type", "dct:conformsTo", "dpv:hasIdentifier", "dpv:hasRecordOfActivity", "dct:created")
RECORD_FIELDS = (
    *("@id", "@type", "dct:conformsTo", "dct:identifier", "dpv:hasDataSubject", "dpv:hasProcess", "dpv:hasNotice"),
    *("dpv:hasDataController", "dpv:hasJurisdiction", "dpv:hasRight", "dpv:hasConsentControl", "dpv:hasConsentStatus"),
)
PROCESS_FIELDS = (
    *("@type", "dpv:hasPurpose", "dpv:hasPersonalData", "dpv:hasStorageCondition", "dpv:hasDataController"),
    "dpv:hasRecipient",
)
PARTY_FIELDS = ("dct:identifier", "dpv:hasName", "dpv:hasAddress", "dpv:hasContact", "@type")
EVENT_FIELDS = ("@type", "dpv:isIndicatedBy", "dpv:isIndicatedAtTime", "dpv:hasIndicationMethod")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\Z")


def me(world: World) -> str:
    return world.custodian.vault.subject_of(world.subject.ref)


def exported(world: World) -> dict[str, Any]:
    found = world.custodian.subject_export.of_subject(me(world))
    return json.loads(json.dumps(found))  # type: ignore[no-any-return] # an object


def document(world: World, consent: str) -> dict[str, Any]:
    found = world.custodian.subject_export.consent_receipt(me(world), consent)  # type: ignore[arg-type] # from JSON
    return json.loads(json.dumps(found))  # type: ignore[no-any-return] # an object


def record_of(found: dict[str, Any]) -> dict[str, Any]:
    (record,) = found["dpv:hasRecordOfActivity"]
    return record  # type: ignore[no-any-return] # an object


def missing(found: dict[str, Any], names: tuple[str, ...]) -> list[str]:
    return [name for name in names if found.get(name) in (None, "", [], {})]


def names_in(value: Any) -> Iterator[str]:
    """Every name that belongs to a vocabulary: keys, types and terms."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from names_in(item)
    elif isinstance(value, list):
        for item in value:
            yield from names_in(item)
    elif isinstance(value, str) and re.fullmatch(r"(dpv|dct|pd|rdf|skos):\w+", value):
        yield value


# --------------------------------------------------------------------------------------------------------------- export


def test_the_export_has_everything_about_the_person(world: World) -> None:
    everything_about_a_person(world)
    subject_id = me(world)
    world.custodian.disputes.open(subject_id, "savings", "Not mine")
    world.custodian.own_requests.claim(link_of(ask(world)), subject_id)
    (consent,) = world.custodian.registry.consents(subject_id)
    with pytest.raises(ConsentError):
        world.ask(consent.consent_id, purpose="account-review")
    found = exported(world)
    assert {one["name"] for one in found["data"]} == {"credit_amount", "savings", "credit_duration"}
    assert found["data"][1]["now"]["value"] == 1169
    assert [one["statement"] for one in found["disputes"]] == ["Not mine"]
    assert [one["request"]["state"] for one in found["requests"]] == ["pending", "granted"]
    assert sorted(one["outcome"] for one in found["activity"]) == ["refused", "released"]
    assert {one["entry"]["releaseId"] for one in found["activity"]} == {one["releaseId"] for one in found["activity"]}
    assert [(one["kind"], one["reasons"]) for one in found["concerns"]] == [("adverse_action", [REASON])]
    (exported_consent,) = found["consents"]
    assert exported_consent["grant"] == consent.grant.as_json()
    assert exported_consent["state"] == "in_force"
    assert exported_consent["deletion"]["attestedAt"] == NOON
    assert list(found["notices"]) == [consent.grant.terms.notice_hash]
    assert [one["consentId"] for one in found["onChain"]["consents"]] == [consent.consent_id]
    key = world.custodian.accounts.signing_key
    assert verify_grant(exported_consent["receipt"], key, domain=world.chain.domain).consent_id == consent.consent_id
    assert exported_consent["revocationReceipt"] is None


def test_the_export_has_nothing_of_anyone_else_and_no_key(world: World) -> None:
    other = world.another_subject()
    theirs = other.grant(world.custodian, world.institution)
    released = world.custodian.releases.release(world.institution.request(world.custodian, theirs)).release_id
    world.grant()
    text = json.dumps(exported(world))
    for foreign in (other.address, theirs, released, world.custodian.vault.subject_of(other.ref)):
        assert foreign not in text
    assert "wrapped" not in text.lower()


def test_with_the_chain_away_the_export_is_complete_and_says_what_it_does_not_know(world: World) -> None:
    consent = world.grant()
    world.subject.revoke(world.custodian, consent)
    before = exported(world)
    world.chain.down = True
    found = exported(world)
    assert [one["state"] for one in found["consents"]] == ["unknown"]
    assert not found["onChain"]["isChainKnown"]
    assert found["data"] == before["data"]
    key = world.custodian.accounts.signing_key
    receipt = found["consents"][0]["revocationReceipt"]
    assert verify_revocation(receipt, key, domain=world.chain.domain).consent_ids == (consent,)


def test_many_accesses_are_all_exported(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.subject_export.MAX_PAGE", 2)
    consents = [world.grant() for _ in range(2)]
    for consent in consents * 2:
        world.ask(consent)
    assert len(exported(world)["activity"]) == 4


# ------------------------------------------------------------------------------------------------------------- receipts


def test_a_consent_receipt_has_every_field_that_the_guide_requires(world: World) -> None:
    consent = world.grant(notice_hash=world.custodian.notices.current("loan-origination").notice_hash)
    found = document(world, consent)
    assert missing(found, RECEIPT_FIELDS) == []
    assert (found["@type"], found["dct:conformsTo"]) == ("dpv:ConsentReceipt", RECEIPT_PROFILE)
    assert UUID(found["dpv:hasIdentifier"])
    assert TIME.match(found["dct:created"])
    record = record_of(found)
    assert missing(record, RECORD_FIELDS) == []
    assert (record["@type"], record["dct:conformsTo"]) == ("dpv:ConsentRecord", RECORD_PROFILE)
    assert record["dct:identifier"] == consent
    (process,) = record["dpv:hasProcess"]
    assert missing(process, PROCESS_FIELDS) == []
    assert [one["dct:identifier"] for one in process["dpv:hasPersonalData"]] == ["credit_amount", "savings"]
    kinds = [one["@type"] for one in process["dpv:hasStorageCondition"]]
    assert kinds == ["dpv:StorageLocation", "dpv:StorageDuration"]
    assert process["dpv:hasStorageCondition"][1]["dpv:hasDuration"]["rdf:value"] == "P31D"
    assert record["dpv:hasNotice"]["dct:language"] == ["en", "zh-Hans"]
    for entity in record["dpv:hasEntity"]:
        assert missing(entity, PARTY_FIELDS) == []
    for event in record["dpv:hasConsentStatus"]:
        assert missing(event, EVENT_FIELDS) == []
        assert TIME.match(event["dpv:isIndicatedAtTime"])
    # The event's validity.
    assert record["dpv:hasConsentStatus"][0]["dct:valid"] == "2026-09-16T12:00:00Z/2026-10-16T12:00:00Z"


def test_every_name_in_it_is_of_a_vocabulary_that_its_context_names(world: World) -> None:
    found = document(world, world.grant())
    assert found["@context"] == dict(CONTEXT)
    used = {name.split(":")[0] for name in names_in({k: v for k, v in found.items() if k != "@context"}) if ":" in name}
    assert used <= set(CONTEXT)
    bare = {name for name in names_in(found) if ":" not in name and not name.startswith("@")}
    assert bare == set(CONTEXT)


def test_how_a_consent_ended_is_told_by_who_ended_it(world: World) -> None:
    withdrawn, stopped, expired, direct = world.grant(), world.grant(), world.grant(expires_at=NOON + 60), world.grant()
    world.clock.advance(61)
    world.subject.revoke(world.custodian, withdrawn)
    world.custodian.grants.revoke_as_custodian([stopped])
    world.subject.revoke_directly(world.chain, world.grant_of(direct))
    world.custodian.sync()
    ends = {}
    for consent in (withdrawn, stopped, expired, direct):
        given, ended = record_of(document(world, consent))["dpv:hasConsentStatus"]
        assert "dpv:ConsentGiven" in given["@type"]
        ends[consent] = (*ended["@type"], world.subject.address in ended["dpv:isIndicatedBy"]["@id"])
    assert ends == {
        withdrawn: ("dpv:ConsentWithdrawn", True),
        stopped: ("dpv:ConsentRevoked", False),
        expired: ("dpv:ConsentExpired", True),
        direct: ("dpv:ConsentWithdrawn", True),
    }


def test_what_is_not_known_is_said_and_not_made_up(world: World) -> None:
    record = record_of(document(world, world.grant()))
    assert "not recorded" in record["dpv:hasDataController"]["dpv:hasAddress"]
    assert "not recorded" in record["dpv:hasJurisdiction"]["dct:description"]
    # Its notice is not on file: the code of the purpose is all there is.
    assert record["dpv:hasProcess"][0]["dpv:hasPurpose"]["dct:description"] == "loan-origination"
    assert PURPOSES.keys() == ALL_PURPOSES.keys()


def test_a_receipt_names_what_it_takes_the_place_of(world: World) -> None:
    old = world.grant()
    new = world.grant(replaces=old)
    assert record_of(document(world, new))["dct:replaces"] == old
    assert "dct:replaces" not in record_of(document(world, old))


def test_anothers_consent_has_no_receipt_for_me(world: World) -> None:
    theirs = world.another_subject().grant(world.custodian, world.institution)
    for consent in (theirs, ZERO32):
        with pytest.raises(NotFoundError):
            document(world, consent)
    assert DAY
