"""The API in use: consents through their lives, batches, keys, limits, health."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from actors import DAY, Institution, World
from asking import NOWHERE, REQUESTED, WANTED, Api, code, said
from full_disk import files_up_to
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import select
from werkzeug.test import TestResponse

from ledger import exchange
from ledger.attributes import ASKABLE, ATTRIBUTES
from ledger.consent import Address, Reason
from ledger.contract import call
from ledger.parties import INSTITUTION
from ledger.store import TRY_SECONDS, consents, meta
from web import problems
from web.door import MAX_BODY
from web.models import MAX_BATCH


@pytest.fixture
def api(world: World) -> Api:
    return Api(world)


def consent_of(api: Api, consent: str) -> dict[str, Any]:
    found: dict[str, Any] = said(api.ask(api.world.institution, "GET", f"/v1/consents/{consent}"))
    return found


def state(api: Api, consent: str) -> tuple[str, str | None]:
    found = consent_of(api, consent)
    return found["state"], found["reason"]


def kinds(api: Api) -> list[tuple[str, str]]:
    """Kind of every event and its consent, oldest first."""
    events = said(api.ask(api.world.institution, "GET", "/v1/events"))["events"]
    return [(one["kind"], one["consent"]) for one in events]


# ------------------------------------------------------------------------------------------------ the life of a consent


def test_a_consent_is_asked_for_granted_used_and_given_up(world: World, api: Api) -> None:
    lender = world.institution
    request, token = api.token(lender)
    assert said(api.ask(lender, "GET", f"/v1/consent-requests/{request}"))["state"] == "pending"
    consent = api.accept(token)
    granted = said(api.ask(lender, "GET", f"/v1/consent-requests/{request}"))
    assert (granted["state"], granted["consent"], granted["link"], granted["qr"]) == ("granted", consent, None, None)
    assert state(api, consent) == ("in_force", None)

    released = api.release(lender, consent)
    assert world.institution.open(world.custodian, said(released)["answer"].encode())["values"]["credit_amount"]
    used = consent_of(api, consent)
    assert (used["usesLeft"], used["usedToday"], used["lastUsedAt"]) == (2, 1, world.clock())

    given_up = said(api.ask(lender, "DELETE", f"/v1/consents/{consent}"))
    assert (given_up["state"], given_up["reason"], given_up["revokedAt"]) == ("revoked", "revoked", world.clock())
    assert world.chain.statuses([consent], world.custodian.address) == [Reason.REVOKED]
    assert code(api.release(lender, consent)) == "revoked"
    # The person sees who ended it; whoever gave it up is told as well, once.
    with world.custodian.store.read() as tx:
        assert tx.scalar(select(consents.c.revoked_by).where(consents.c.consent_id == consent)) == "institution"
    assert said(api.ask(lender, "DELETE", f"/v1/consents/{consent}"))["revokedAt"] == given_up["revokedAt"]
    assert kinds(api) == [("consent.granted", consent), ("consent.revoked", consent)]


@pytest.mark.parametrize("is_ordered", [False, True])
def test_a_proof_is_handed_out_as_it_was_made_also_with_an_order_in_its_log(
    world: World, api: Api, monkeypatch: pytest.MonkeyPatch, is_ordered: bool
) -> None:
    batch = {"expectedHead": NOWHERE, "kind": 0, "accesses": [[NOWHERE, NOWHERE]], "reasons": [0]}
    order = batch | {"kind": 3, "reasons": [12], "embargoUntil": 1_790_000_000}
    bundle = {
        "version": 2 if is_ordered else 1,
        "receipt": "a.b.c",
        "header": {"number": "0x1"},
        "headerRlp": "0x00",
        "accountProof": ["0x00"],
        "storageProof": [["0x00"], ["0x00"]],
        "batches": [batch, order] if is_ordered else [batch],
    }
    monkeypatch.setattr(world.custodian.proofs, "bundle", lambda *_: bundle)
    assert said(api.ask(world.institution, "GET", f"/v1/releases/{NOWHERE}/proof")) == bundle


def test_where_a_consent_stands_is_said_with_the_reason(world: World, api: Api) -> None:
    subject, custodian = world.subject, world.custodian
    paused, expired, exhausted, revoked = (world.grant(max_accesses=n, accesses_per_day=n) for n in (3, 2, 1, 3))
    subject.pause(custodian, paused)
    assert api.release(world.institution, exhausted).status_code == 200
    subject.revoke(custodian, revoked)
    assert state(api, paused) == ("paused", "paused")
    assert state(api, exhausted) == ("exhausted", "exhausted")
    assert state(api, revoked) == ("revoked", "revoked")
    assert state(api, expired) == ("in_force", None)
    world.clock.advance(30 * DAY)
    assert state(api, expired) == ("expired", "expired")
    assert code(api.release(world.institution, expired)) == "expired"
    later = world.grant(valid_from=world.clock() + DAY, expires_at=world.clock() + 2 * DAY)
    assert state(api, later) == ("not_yet_valid", "not_yet_valid")


def test_a_consent_on_its_way_to_the_chain_is_pending(world: World, api: Api) -> None:
    world.chain.drop = 1_000
    world.chain.automine = False
    request, token = api.token(world.institution)
    with pytest.raises(Exception, match="block"):
        api.accept(token)
    assert said(api.ask(world.institution, "GET", f"/v1/consent-requests/{request}"))["state"] == "pending"
    (one,) = said(api.ask(world.institution, "GET", "/v1/consents"))["consents"]
    assert (one["state"], one["reason"]) == ("pending", None)


def test_a_consent_is_amended_by_one_that_replaces_it(world: World, api: Api) -> None:
    old = world.grant()
    _, token = api.token(world.institution, replaces=old, maxAccesses=1, accessesPerDay=1)
    assert state(api, old) == ("in_force", None)
    new = api.accept(token)
    before, after = consent_of(api, old), consent_of(api, new)
    assert (before["state"], before["replacedBy"]) == ("revoked", new)
    assert (after["state"], after["replaces"], after["maxAccesses"]) == ("in_force", old, 1)
    told = [("consent.granted", old), ("consent.granted", new), ("consent.revoked", old)]
    assert sorted(kinds(api)) == sorted(told)
    (ended,) = [
        one
        for one in said(api.ask(world.institution, "GET", "/v1/events"))["events"]
        if one["kind"] == "consent.revoked"
    ]
    assert ended["details"]["replacedBy"] == new
    assert code(api.release(world.institution, old)) == "revoked"
    assert api.release(world.institution, new).status_code == 200
    # What was revoked is not amended.
    again = api.ask(world.institution, "POST", "/v1/consent-requests", REQUESTED | {"replaces": old})
    assert (again.status_code, said(again)["field"]) == (404, "replaces")


def test_lists_are_read_page_by_page(world: World, api: Api) -> None:
    made = []
    for _ in range(5):
        made.append(world.grant())
        api.token(world.institution)
        world.clock.advance(1)
    for listed, ids in (("consents", made[::-1]), ("consent-requests", None), ("events", None)):
        name = {"consents": "consents", "consent-requests": "requests", "events": "events"}[listed]
        whole = [one["id"] for one in said(api.ask(world.institution, "GET", f"/v1/{listed}"))[name]]
        assert len(whole) == 5
        assert ids is None or whole == ids
        pages: list[str] = []
        while True:
            after = f"&after={pages[-1]}" if pages else ""
            page = said(api.ask(world.institution, "GET", f"/v1/{listed}?limit=2{after}"))[name]
            if not page:
                break
            pages += [one["id"] for one in page]
        assert pages == whole


def test_an_event_is_acknowledged_once(world: World, api: Api) -> None:
    consent = world.grant()
    (event,) = said(api.ask(world.institution, "GET", "/v1/events"))["events"]
    assert (event["kind"], event["consent"], event["acknowledgedAt"]) == ("consent.granted", consent, None)
    path = f"/v1/events/{event['id']}/acknowledgement"
    at = world.clock()
    assert said(api.ask(world.institution, "POST", path))["acknowledgedAt"] == at
    world.clock.advance(60)
    assert said(api.ask(world.institution, "POST", path))["acknowledgedAt"] == at
    assert said(api.ask(world.institution, "GET", f"/v1/events?after={event['id']}"))["events"] == []


def test_events_are_sent_where_the_institution_says(world: World, api: Api) -> None:
    lender, url = world.institution, "https://bank.example/events"
    assert said(api.ask(lender, "GET", "/v1/webhook")) == {"url": None}
    assert said(api.ask(lender, "PUT", "/v1/webhook", {"url": url})) == {"url": url}
    assert said(api.ask(lender, "GET", "/v1/webhook")) == {"url": url}
    assert said(api.ask(world.another_institution(), "GET", "/v1/webhook")) == {"url": None}
    for inward in ("http://bank.example/", "https://127.0.0.1/", "https://localhost/", "https://169.254.169.254/"):
        assert api.ask(lender, "PUT", "/v1/webhook", {"url": inward}).status_code == 422, inward
    assert said(api.ask(lender, "DELETE", "/v1/webhook")) == {"url": None}


# ------------------------------------------------------------------------------------------------------------- releases


def test_a_retry_gets_the_same_bytes_for_a_day(world: World, api: Api) -> None:
    consent = world.grant()
    first = api.release(world.institution, consent, key="once")
    assert api.release(world.institution, consent, key="once").data == first.data
    path = f"/v1/releases/{said(first)['id']}"
    assert api.ask(world.institution, "GET", path).data == first.data
    assert len(world.logged()) == 1
    assert code(api.release(world.institution, consent, key="once", attributes=["savings"])) == "idempotency_conflict"
    world.clock.advance(DAY)
    asked_again = (api.release(world.institution, consent, key="once"), api.ask(world.institution, "GET", path))
    for gone, field in zip(asked_again, ("idempotency-key", "release"), strict=True):
        assert (gone.status_code, code(gone), said(gone)["field"]) == (410, "answer_gone", field)
    assert said(api.ask(world.institution, "GET", f"{path}/receipt"))["receipt"]


@pytest.mark.parametrize("step", ["6 before decrypting", "6 before answer durable", "6 answer durable"])
def test_a_retry_gets_the_same_bytes_also_if_the_first_try_took_its_time(world: World, api: Api, step: str) -> None:
    consent = world.grant()
    world.steps.at(step, lambda: world.clock.advance(1))
    first = api.release(world.institution, consent, key="once")
    world.clock.advance(1)
    assert api.release(world.institution, consent, key="once").data == first.data
    assert api.ask(world.institution, "GET", f"/v1/releases/{said(first)['id']}").data == first.data


def test_who_lost_an_answer_finds_its_id_again_when_it_is_kept_no_more(world: World, api: Api) -> None:
    lender, consent = world.institution, world.grant()
    released = said(api.release(lender, consent))["id"]
    world.clock.advance(DAY)
    world.subject.pause(world.custodian, consent)
    assert code(api.release(lender, consent)) == "paused"
    path = f"/v1/consents/{consent}/releases"
    refused, kept = said(api.ask(lender, "GET", path))["releases"]
    assert kept == {
        "id": released,
        "state": "released",
        "reason": None,
        "late": False,
        "askedAt": world.clock() - DAY,
        "finishedAt": world.clock() - DAY,
    }
    assert (refused["state"], refused["reason"], refused["askedAt"]) == ("refused", "paused", world.clock())
    assert said(api.ask(lender, "GET", f"{path}?limit=1&after={refused['id']}"))["releases"] == [kept]
    assert said(api.ask(lender, "GET", f"{path}?after={released}"))["releases"] == []
    assert code(api.ask(lender, "GET", f"/v1/releases/{released}")) == "answer_gone"
    assert said(api.ask(lender, "GET", f"/v1/releases/{released}/receipt"))["receipt"]


@pytest.mark.parametrize("is_logged", [False, True])
def test_what_was_refused_has_no_access_receipt_and_no_proof(world: World, api: Api, is_logged: bool) -> None:
    lender, consent = world.institution, world.grant()
    assert code(api.release(lender, consent, attributes=["age"])) == "attribute_not_consented"
    (refused,) = said(api.ask(lender, "GET", f"/v1/consents/{consent}/releases"))["releases"]
    if is_logged:
        assert world.custodian.releases.log_refusals() == 1
    for of in ("", "/receipt", "/proof"):
        answer = api.ask(lender, "GET", f"/v1/releases/{refused['id']}{of}")
        assert (answer.status_code, code(answer)) == (403, "attribute_not_consented"), of


def test_a_consent_and_its_event_name_the_request_that_they_answer(world: World, api: Api) -> None:
    request, token = api.token(world.institution)
    answering, by_itself = api.accept(token), world.grant()
    assert consent_of(api, answering)["request"] == request
    assert consent_of(api, by_itself)["request"] is None
    events = said(api.ask(world.institution, "GET", "/v1/events"))["events"]
    assert {one["consent"]: one["details"] for one in events} == {
        answering: {"by": "subject", "request": request},
        by_itself: {"by": "subject"},
    }


def test_a_refusal_is_said_again_with_its_reason(world: World, api: Api) -> None:
    consent = world.grant()
    world.subject.pause(world.custodian, consent)
    assert code(api.release(world.institution, consent, key="k")) == "paused"
    world.subject.pause(world.custodian, consent, paused=False, sequence=2)
    assert code(api.release(world.institution, consent, key="k")) == "paused"
    assert api.release(world.institution, consent, key="k2").status_code == 200


# -------------------------------------------------------------------------------------------------------------- batches


def item(consent: str, key: str, **wanted: Any) -> dict[str, Any]:
    return WANTED | {"consent": consent, "idempotencyKey": key} | wanted


def batch(api: Api, *items: dict[str, Any]) -> TestResponse:
    return api.ask(api.world.institution, "POST", "/v1/batch/releases", {"releases": list(items)})


def outcomes(answer: TestResponse) -> list[tuple[int, str | None]]:
    assert answer.status_code == 200, answer.text
    return [(one["status"], one["problem"] and one["problem"]["code"]) for one in said(answer)["results"]]


def test_a_batch_is_one_transaction_and_each_item_has_a_result_of_its_own(world: World, api: Api) -> None:
    good = [world.another_subject().grant(world.custodian, world.institution) for _ in range(5)]
    paused, other = world.grant(), world.another_institution()
    world.subject.pause(world.custodian, paused)
    theirs = world.subject.grant(world.custodian, other)
    before = len([event for event in world.chain.all_events() if event.name == "LogAppended"])
    answer = batch(
        api,
        *(item(consent, f"k-{number}") for number, consent in enumerate(good)),
        item(paused, "k-paused"),
        item(theirs, "k-theirs"),
        item(NOWHERE, "k-nowhere"),
        item(good[0], "k-more", attributes=["age"]),
        item(good[0], "k-other", purpose="account-review"),
        item(good[0], "k-absent", attributes=["savings"]),
    )
    assert outcomes(answer) == [
        *[(200, None)] * 5,
        (403, "paused"),
        (404, "not_found"),
        (404, "not_found"),
        (403, "attribute_not_consented"),
        (403, "purpose_mismatch"),
        (200, None),
    ]
    appended = [event for event in world.chain.all_events() if event.name == "LogAppended"][before:]
    assert len(appended) == 1
    assert len(world.logged()) == 6
    results = said(answer)["results"]
    for consent, result in zip(good, results, strict=False):
        assert result["release"]["consent"] == consent
        opened = world.institution.open(world.custodian, result["release"]["answer"].encode())
        assert opened["consent"] == consent


def test_a_batch_that_is_sent_again_gets_the_same_answers(world: World, api: Api) -> None:
    consent, paused = world.grant(), world.grant(retention_days=1)
    world.subject.pause(world.custodian, paused)
    items = [item(consent, "a"), item(consent, "b", attributes=["savings"]), item(paused, "c"), item(NOWHERE, "d")]
    first = batch(api, *items)
    assert outcomes(first) == [(200, None), (200, None), (403, "paused"), (404, "not_found")]
    again = batch(api, *items)
    assert said(again)["results"][:2] == said(first)["results"][:2]
    assert outcomes(again) == outcomes(first)
    # Alone as well, and in another order.
    alone = api.release(world.institution, consent, key="a")
    assert said(alone) == said(first)["results"][0]["release"]
    assert said(batch(api, *items[::-1]))["results"][::-1][:2] == said(first)["results"][:2]
    assert len(world.logged()) == 2


def test_one_key_twice_in_a_batch_is_one_release(world: World, api: Api) -> None:
    consent = world.grant()
    answer = batch(api, item(consent, "k"), item(consent, "k"), item(consent, "k", attributes=["savings"]))
    assert outcomes(answer) == [(200, None), (200, None), (409, "idempotency_conflict")]
    first, second, _ = said(answer)["results"]
    assert first == second
    assert len(world.logged()) == 1


def test_a_batch_that_asks_for_more_than_the_limits_gets_as_much_as_they_allow(world: World, api: Api) -> None:
    consent = world.grant(max_accesses=3, accesses_per_day=2)
    answer = batch(api, *(item(consent, f"k-{number}") for number in range(4)))
    assert outcomes(answer) == [(200, None), (200, None), (403, "daily_limit"), (403, "daily_limit")]
    assert len(world.logged()) == 2


@pytest.mark.parametrize(("size", "status"), [(0, 422), (MAX_BATCH, 200), (MAX_BATCH + 1, 422)])
def test_a_batch_has_a_hundred_items_at_most(world: World, api: Api, size: int, status: int) -> None:
    assert batch(api, *(item(NOWHERE, f"k-{number}") for number in range(size))).status_code == status


def test_a_batch_with_something_wrong_in_it_is_refused_as_a_whole_with_its_place(world: World, api: Api) -> None:
    consent = world.grant()
    answer = batch(api, item(consent, "k"), item(consent, "", attributes=[]))
    assert answer.status_code == 422
    assert [one["field"] for one in said(answer)["errors"]] == ["releases.1.attributes", "releases.1.idempotencyKey"]
    assert world.states() == []


# ----------------------------------------------------------------------------------------------------------------- keys


def test_nothing_is_logged_for_an_institution_that_no_answer_can_be_sealed_to(world: World, api: Api) -> None:
    consent, bank = world.grant(), world.institution
    public = exchange.check_jwks(bank.jwks)["keys"]
    retired = {"keys": [key | {"exp": world.clock()} if key["use"] == "enc" else key for key in public]}
    refused = said(api.ask(bank, "PUT", "/v1/keys", {"jwks": retired, "overlapDays": 0}))
    assert (refused["code"], refused["field"]) == ("malformed", "jwks")
    assert "'exp'" in refused["detail"]
    # As a database of before may hold it.
    with world.custodian.store.begin() as tx:
        world.custodian.registry._update(tx, INSTITUTION, bank.institution_id, jwks=json.dumps(retired))
    assert code(api.release(bank, consent)) == "malformed"
    assert world.states() == []
    assert world.logged() == []
    assert world.chain.consent(consent).accesses == 0


def test_keys_are_rotated_with_an_overlap_and_answers_go_to_the_new_key_at_once(world: World, api: Api) -> None:
    old, consent = world.institution, world.grant()
    new = Institution(old.institution_id, old.name)
    rotated = said(api.ask(old, "PUT", "/v1/keys", {"jwks": exchange.check_jwks(new.jwks), "overlapDays": 2}))["keys"]
    assert [(key["kid"], key.get("exp")) for key in rotated] == [
        *((key["kid"], None) for key in exchange.check_jwks(new.jwks)["keys"]),
        *((key["kid"], world.clock() + 2 * DAY) for key in exchange.check_jwks(old.jwks)["keys"]),
    ]
    for asker in (old, new):
        answer = said(api.release(asker, consent))["answer"].encode()
        assert new.open(world.custodian, answer)["consent"] == consent
        with pytest.raises(Exception, match="does not open"):
            old.open(world.custodian, answer)
    world.clock.advance(2 * DAY)
    assert code(api.release(old, consent)) == "authentication"
    assert api.release(new, consent).status_code == 200


def test_private_keys_are_refused_and_not_kept_when_someone_sends_them(world: World, api: Api) -> None:
    new = Institution(world.institution.institution_id)
    answer = api.ask(world.institution, "PUT", "/v1/keys", {"jwks": new.jwks})
    assert (answer.status_code, said(answer)["field"]) == (422, "jwks")
    for private in (str(key["d"]) for key in new.jwks["keys"]):
        assert private not in answer.text
        assert private not in str(world.custodian.registry.institution(new.institution_id).jwks)


@pytest.mark.parametrize(
    "jwks", [{}, {"keys": []}, {"keys": [{"kty": "oct", "k": "A" * 43}]}, {"keys": "x"}, {"keys": [1]}]
)
def test_a_key_set_with_which_nothing_could_be_asked_is_refused(world: World, api: Api, jwks: dict[str, Any]) -> None:
    assert api.ask(world.institution, "PUT", "/v1/keys", {"jwks": jwks, "overlapDays": 0}).status_code == 422
    assert api.ask(world.institution, "GET", "/v1/keys").status_code == 200


# ------------------------------------------------------------------------------------------------------- limits, health


@pytest.fixture
def limited(world: World) -> Api:
    """At most three requests a minute of each party."""
    world.config = replace(world.config, rate_limit=3)
    world.restart()
    return Api(world)


def rate(answer: TestResponse) -> tuple[str | None, ...]:
    return tuple(answer.headers.get(f"RateLimit-{name}") for name in ("Limit", "Remaining", "Reset"))


def test_too_many_requests_are_refused_until_the_next_minute(world: World, limited: Api) -> None:
    world.clock.advance(15)
    answers = [limited.ask(world.institution, "GET", "/v1/keys") for _ in range(4)]
    assert [one.status_code for one in answers] == [200, 200, 200, 429]
    assert [rate(one) for one in answers] == [("3", left, "45") for left in ("2", "1", "0", "0")]
    assert answers[-1].headers["Retry-After"] == "45"
    assert code(answers[-1]) == "rate_limited"
    assert limited.ask(world.another_institution(), "GET", "/v1/keys").status_code == 200
    world.clock.advance(45)
    assert limited.ask(world.institution, "GET", "/v1/keys").status_code == 200


def test_releases_count_as_other_requests_do_and_a_batch_is_one(world: World, limited: Api) -> None:
    consent = world.grant()
    assert rate(limited.release(world.institution, consent, key="k"))[:2] == ("3", "2")
    assert rate(batch(limited, item(consent, "k"), item(NOWHERE, "l")))[:2] == ("3", "1")
    assert rate(limited.release(world.institution, NOWHERE))[:2] == ("3", "0")
    refused = limited.release(world.institution, consent, key="k")
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "60")
    assert batch(limited, item(consent, "k")).status_code == 429
    assert len(world.logged()) == 1


def test_a_request_that_was_refused_for_its_rate_can_be_sent_again_as_it_is(world: World, limited: Api) -> None:
    for _ in range(3):
        limited.ask(world.institution, "GET", "/v1/keys")
    signed = limited.signed(world.institution, limited.request("GET", "/v1/keys"))
    assert limited.send(signed).status_code == 429
    world.clock.advance(60)
    assert limited.send(signed).status_code == 200


def test_without_the_chain_nothing_is_released_and_the_service_says_so(world: World, api: Api) -> None:
    consent = world.grant()
    assert said(api.client.get("/readyz")) == {"status": "ok", "chain": "ok", "database": "ok", "keys": "ok"}
    world.chain.down = True
    ready = api.client.get("/readyz")
    assert (ready.status_code, said(ready)["chain"]) == (503, "chain_unavailable")
    assert api.client.get("/healthz").status_code == 200
    refused = api.release(world.institution, consent, key="k")
    assert (refused.status_code, code(refused)) == (503, "chain_unavailable")
    assert int(refused.headers["Retry-After"]) > 0
    assert "connection" not in refused.text
    assert world.states() == []
    world.chain.down = False
    assert world.logged() == []
    assert api.client.get("/readyz").status_code == 200
    assert api.release(world.institution, consent, key="k").status_code == 200


def test_a_service_whose_log_is_ahead_of_the_journal_is_not_ready_until_that_writer_is_retired(
    world: World, api: Api
) -> None:
    consent = world.grant()
    stolen = world.custodian.accounts.writers[0]
    entries = call("append", world.custodian.address, bytes(32), [(b"\x09" * 32, b"\x08" * 32)])
    world.chain.transact(stolen, entries)
    ready = api.client.get("/readyz")
    assert (ready.status_code, said(ready)["writer"]) == (503, "log_ahead")
    refused = api.release(world.institution, consent, key="k")
    assert (refused.status_code, code(refused)) == (503, "log_ahead")
    world.custodian.writers.retire(world.custodian.log.address)
    assert api.client.get("/readyz").status_code == 200
    assert api.release(world.institution, consent, key="k").status_code == 200
    for account in world.custodian.accounts.writers:
        world.custodian.writers.retire(Address(account.address))
    ready = api.client.get("/readyz")
    assert (ready.status_code, said(ready)["writer"]) == (503, "not_writer")


@pytest.mark.parametrize("room", [0, 40_000], ids=["none", "in the database's own files"])
def test_on_a_full_disk_the_service_says_that_it_is_not_ready(world: World, api: Api, room: int) -> None:
    world.custodian.store.scrub()
    with files_up_to(room):
        ready = api.client.get("/readyz")
        assert api.client.get("/healthz").status_code == 200
    assert ready.status_code == 503
    assert said(ready) == {
        "status": "unavailable",
        "chain": "ok",
        "database": "store_unavailable",
        "keys": "store_unavailable",
    }
    assert api.client.get("/readyz").status_code == 200


def test_asking_often_whether_the_service_is_ready_writes_once_a_second(
    world: World, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    def written() -> object:
        with world.custodian.store.read() as tx:
            return tx.scalar(select(meta.c.value).where(meta.c.key == "tried_at"))

    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    assert written() is None
    assert api.client.get("/readyz").status_code == 200
    first = written()
    assert first
    assert {api.client.get("/readyz").status_code for _ in range(5)} == {200}
    assert written() == first
    now += TRY_SECONDS
    assert api.client.get("/readyz").status_code == 200
    assert written() != first


@pytest.mark.parametrize("spoil", [Path.unlink, partial(Path.chmod, mode=0o644), partial(Path.write_text, data="{")])
def test_with_a_key_file_that_cannot_be_read_the_service_says_that_it_is_not_ready(
    world: World, api: Api, spoil: Callable[[Path], object]
) -> None:
    before = world.config.key_file.read_text("utf-8")
    assert api.client.get("/readyz").status_code == 200
    spoil(world.config.key_file)
    ready = api.client.get("/readyz")
    assert (ready.status_code, said(ready)["keys"], said(ready)["database"]) == (503, "key_file", "ok")
    world.config.key_file.write_text(before, "utf-8")
    world.config.key_file.chmod(0o600)
    assert api.client.get("/readyz").status_code == 200


def metrics(api: Api) -> dict[tuple[str, ...], float]:
    families = text_string_to_metric_families(api.client.get("/metrics").text)
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
        if sample.name.startswith("consent_ledger")
    }


def test_metrics_count_what_happens_and_name_nobody(world: World, api: Api) -> None:
    consent = world.grant()
    before = metrics(api)
    assert api.release(world.institution, consent, key="canary-key").status_code == 200
    api.release(world.institution, consent, key="k", attributes=["age"])
    batch(api, item(consent, "l"), item(NOWHERE, "m"))
    api.ask(world.institution, "GET", f"/v1/consents/{consent}")
    api.ask(None, "GET", "/v1/canary-path")
    api.client.open("/v1/keys", method="CANARY")
    after = metrics(api)

    def grown(*key: str) -> float:
        return after.get(key, 0) - before.get(key, 0)

    release = "/v1/consents/<consent>/releases"
    assert grown("consent_ledger_releases_total", "released") == 2
    assert grown("consent_ledger_releases_total", "attribute_not_consented") == 1
    assert grown("consent_ledger_releases_total", "not_found") == 1
    assert grown("consent_ledger_requests_total", *sorted((release, "POST", "200"))) == 1
    assert grown("consent_ledger_requests_total", *sorted((release, "POST", "403"))) == 1
    assert grown("consent_ledger_requests_total", *sorted(("none", "GET", "404"))) == 1
    assert grown("consent_ledger_request_seconds_count", release) == 2
    text = api.client.get("/metrics").text
    for name in (
        consent,
        world.institution.institution_id,
        world.subject.ref,
        world.subject.address,
        "canary",
        "CANARY",
    ):
        assert name not in text


def test_every_route_sends_the_headers_that_keep_a_browser_in_check(world: World, api: Api) -> None:
    rules = [rule.rule for rule in api.client.application.url_map.iter_rules()]
    for path in [*rules, "/", "/v1/nothing", "/nothing"]:
        answer = api.client.get(path.replace("<asset>", "docs.js"), buffered=True)
        assert answer.headers["X-Content-Type-Options"] == "nosniff", path
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert not {"unsafe-eval", "*"} & set(policy.replace(";", " ").split())
        assert "script-src 'self' 'unsafe-inline'" not in policy
        assert not answer.headers.get("Server", "").startswith("Werkzeug/")
        if path.startswith("/v1/"):
            assert answer.headers["Cache-Control"] == "no-store"


def test_other_methods_are_refused_and_head_is_get_without_a_body(world: World, api: Api) -> None:
    got = api.ask(world.institution, "GET", "/v1/keys")
    head = api.ask(world.institution, "HEAD", "/v1/keys")
    assert (head.status_code, head.data, head.content_length) == (200, b"", len(got.data))
    assert api.ask(world.institution, "OPTIONS", "/v1/keys").headers["Allow"]
    for method in ("POST", "PATCH", "DELETE", "TRACE", "PROPFIND", "X"):
        refused = api.ask(world.institution, method, "/v1/keys")
        assert (refused.status_code, code(refused)) == (405, "method_not_allowed")
        assert set(refused.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS", "PUT"}


def test_the_values_that_each_attribute_can_have_are_published(world: World, api: Api) -> None:
    published = {one["name"]: one for one in said(api.client.get("/.well-known/consent-ledger"))["attributes"]}
    assert list(published) == list(ASKABLE)
    for name, entry in ATTRIBUTES.items():
        one = published[name]
        assert (one["type"], one["unit"], one["note"]) == (entry.type.value, entry.unit, entry.note or None)
        assert [(each["code"], each["label"]) for each in one["categories"]] == list(entry.categories.items())
        limits = (entry.minimum, entry.maximum) if one["type"] == "integer" else (None, None)
        assert (one["minimum"], one["maximum"]) == limits
    answer = said(api.release(world.institution, world.grant(), attributes=["savings"]))["answer"].encode()
    released = world.institution.open(world.custodian, answer)["values"]["savings"]["value"]
    assert released in {each["code"] for each in published["savings"]["categories"]}


def test_who_this_is_can_be_asked_by_anyone(world: World, api: Api) -> None:
    deployment = said(api.client.get("/.well-known/consent-ledger"))
    assert deployment["custodian"] == world.custodian.address
    assert deployment["contract"] == world.chain.domain.contract
    assert deployment["rateLimit"] == world.config.rate_limit
    (key,) = deployment["jwks"]["keys"]
    assert "d" not in key
    assert key["kid"] == world.custodian.accounts.signing_key.kid


def test_an_error_of_http_itself_has_one_code_whatever_python_calls_it(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    for status in HTTPStatus:
        monkeypatch.setattr(status, "phrase", "As Another Python Calls It")
    tried = {
        413: api.ask(api.world.institution, "PUT", "/v1/webhook", b"x" * (MAX_BODY + 1)),
        405: api.ask(api.world.institution, "PATCH", "/v1/keys"),
        411: api.client.get("/v1/keys", headers={"Transfer-Encoding": "chunked"}),
        404: api.client.get("/v1/nothing"),
    }
    codes = {413: "content_too_large", 405: "method_not_allowed", 411: "length_required", 404: "not_found"}
    assert {status: (answer.status_code, code(answer)) for status, answer in tried.items()} == {
        status: (status, expected) for status, expected in codes.items()
    }
    for number, name in {414: "uri_too_long", 431: "request_header_fields_too_large", 418: "http_418"}.items():
        assert json.loads(problems.body_of_status(HTTPStatus(number)))["code"] == name
