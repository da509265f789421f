"""Erasure and rotation: erased is unreadable for ever, backups included; everything else stays readable (P6)."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from actors import DAY, VALUES, Subject, World, id_of
from full_disk import files_up_to
from sqlalchemy import Table, select

from ledger import journal
from ledger.chain import Receipt
from ledger.consent import Address, Hex32, Reason
from ledger.consent_requests import token_of
from ledger.envelope import TRIAL
from ledger.erase import Erasure
from ledger.erasures import ErasureFile
from ledger.errors import (
    AnswerGoneError,
    ChainError,
    ConfirmationTimeoutError,
    ConflictError,
    ConsentError,
    ConsentRevokedError,
    ErasedError,
    KeyFileError,
    KeyUnavailableError,
    NotFoundError,
)
from ledger.exchange import verify_claims
from ledger.store import (
    ABOUT_SUBJECTS,
    SEALED_TABLES,
    Store,
    acts,
    adverse_actions,
    consent_requests,
    consents,
    deletion_attestations,
    metadata,
    new_id,
    records,
    releases,
    subjects,
)


class Killed(BaseException):
    """What a process does not survive."""


def die() -> None:
    raise Killed


def status(world: World, consent: Hex32) -> Reason:
    return world.chain.statuses([consent], world.custodian.address)[0]


def erase(world: World) -> Erasure:
    return world.custodian.eraser.erase(world.subject.ref)


def sealed_bytes(world: World) -> list[bytes]:
    """Everything in the database that keys could open: bodies and wrapped keys."""
    with world.custodian.store.read() as tx:
        return [
            value
            for table in SEALED_TABLES
            for row in tx.execute(select(table.c.wrapped_dek, table.c.body))
            for value in row
            if value is not None
        ]


def files(world: World) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(world.config.data.glob("ledger.db*")))


# -------------------------------------------------------------------------------------------------------------- erasure


def test_erasing_a_person_revokes_destroys_and_leaves_a_tombstone(world: World) -> None:
    consent = world.grant()
    world.ask(consent, key="once")
    erasure = erase(world)

    assert (erasure.envelopes, erasure.consents, erasure.releases) == (len(VALUES), 1, 1)
    assert status(world, consent) is Reason.REVOKED
    assert world.custodian.vault.count() == {"subjects": 1, "erased": 1, "records": 0}
    for act in (lambda: world.ask(consent), lambda: world.ask(consent, key="once"), lambda: erase(world), world.grant):
        with pytest.raises(ErasedError):
            act()


def test_no_trace_of_any_key_or_ciphertext_stays_in_the_files(world: World) -> None:
    consent = world.grant()
    answer = world.ask(consent).sealed
    world.subject.pause(world.custodian, consent)
    sealed = sealed_bytes(world)
    assert all(each in files(world) for each in sealed)
    erase(world)
    left = files(world)
    assert not any(each in left for each in sealed)
    assert answer not in left


def test_the_proof_of_erasure_is_signed_and_names_no_one(world: World) -> None:
    consent = world.grant()
    subject_id = world.custodian.vault.subject_of(world.subject.ref)
    erasure = erase(world)
    claims = verify_claims(erasure.proof, world.custodian.accounts.signing_key, "erasure-proof+jwt")
    assert claims["envelopesDestroyed"] == len(VALUES)
    for name in (world.subject.ref, world.subject.address, consent, subject_id, world.institution.institution_id):
        assert name not in str(claims)


def test_what_stays_on_chain_can_no_longer_be_opened_by_anyone_here(world: World) -> None:
    consent = world.grant()
    world.ask(consent)
    (row,) = world.custodian.journal.history()
    opening = world.custodian.releases.opening(row)
    assert opening is not None
    erase(world)
    assert len(world.logged()) == 1
    (row,) = world.custodian.journal.history()
    assert world.custodian.releases.opening(row) is None
    with pytest.raises(ErasedError):
        world.custodian.releases.receipt(row.release_id)
    assert opening.salt[2:] not in files(world).hex()


def test_others_stay_as_they_are(world: World) -> None:
    other = world.another_subject()
    consent = other.grant(world.custodian, world.institution)
    world.grant()
    erase(world)
    assert world.read(world.ask(consent))["values"]["credit_amount"]["value"] == VALUES["credit_amount"]


def test_someone_who_is_not_there_cannot_be_erased(world: World) -> None:
    with pytest.raises(NotFoundError):
        world.custodian.eraser.erase("nobody")


def test_an_institution_that_was_never_given_the_consent_does_not_learn_of_the_erasure(world: World) -> None:
    consent = world.grant()
    erase(world)
    stranger = world.another_institution()
    with pytest.raises(NotFoundError):
        world.custodian.releases.release(stranger.request(world.custodian, consent))


def test_erasure_while_the_chain_is_down_is_done_at_once_and_the_revocation_lands_later(world: World) -> None:
    consent = world.grant()
    world.chain.down = True
    assert not erase(world).is_on_chain
    assert world.custodian.vault.count()["records"] == 0
    world.chain.down = False
    with pytest.raises(ErasedError):
        world.ask(consent)
    world.custodian.sync()
    assert status(world, consent) is Reason.REVOKED


def test_an_erasure_does_not_tell_on_chain_which_accounts_were_one_persons(world: World) -> None:
    here, elsewhere = world.subject, Subject(world.subject.ref)
    bank, other = world.institution, world.another_institution()
    consents = [here.grant(world.custodian, bank), here.grant(world.custodian, bank)]
    consents.append(elsewhere.grant(world.custodian, other))
    assert erase(world).is_on_chain
    together: dict[str, set[Hex32]] = {}
    for event in world.chain.all_events():
        if event.name == "ConsentRevoked":
            together.setdefault(event.transaction_hash, set()).add(event.args[0])
    assert sorted(together.values(), key=len) == [{consents[2]}, set(consents[:2])]
    with world.custodian.store.read() as tx:
        on_file = tx.scalars(select(acts.c.consent_ids).where(acts.c.kind == "custodian-revoke")).all()
    assert sorted(len(json.loads(ids)) for ids in on_file) == [1, 2]


def test_an_erasure_of_many_accounts_waits_for_a_silent_chain_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    consents = [Subject(world.subject.ref).grant(world.custodian, world.institution) for _ in range(5)]
    tries: list[str] = []

    def silent(act_id: str) -> Receipt:
        tries.append(act_id)
        raise ConfirmationTimeoutError("no block")

    monkeypatch.setattr(world.custodian.relay, "relay", silent)
    assert not erase(world).is_on_chain
    assert len(tries) == 1
    monkeypatch.undo()
    world.custodian.sync()
    assert [status(world, consent) for consent in consents] == [Reason.REVOKED] * 5


def test_erasure_with_a_grant_on_its_way_is_done_and_the_grant_ends_revoked(world: World) -> None:
    """The contract does not know the consent yet, so it refuses its revocation; that must not stop an erasure."""
    draft = world.subject.draft(world.custodian, world.institution)
    world.steps.at("grant durable", die)
    with pytest.raises(Killed):
        world.subject.hand_in(world.custodian, draft)
    erase(world)
    assert world.custodian.vault.count()["records"] == 0
    world.custodian.sync()
    assert status(world, id_of(draft, world.chain)) in (Reason.REVOKED, Reason.NOT_GRANTED)
    assert world.custodian.journal.pending_acts() == []


def test_a_grant_in_the_middle_of_an_erasure_is_not_left_standing(world: World) -> None:
    world.grant()
    late: list[Hex32] = []
    world.steps.at("erase revoked", lambda: late.append(world.grant()))
    with pytest.raises(ConflictError):
        erase(world)
    assert world.custodian.vault.count()["erased"] == 0
    erase(world)
    assert status(world, late[0]) is Reason.REVOKED
    assert world.custodian.registry.consents() == []


def test_a_grant_that_began_before_an_erasure_leaves_no_opening_after_it(world: World) -> None:
    draft = world.subject.draft(world.custodian, world.institution)
    subject_id = world.custodian.vault.subject_of(world.subject.ref)
    signature = world.subject.sign(world.custodian, draft)
    erase(world)
    with pytest.raises(ErasedError):
        world.custodian.grants.grant(draft, signature, subject_id)
    assert sealed_bytes(world) == []


def test_an_erasure_that_was_cut_off_is_finished_by_the_next_one(world: World) -> None:
    consent = world.grant()
    world.steps.at("erase revoked", die)
    with pytest.raises(Killed):
        erase(world)
    world.restart()
    with pytest.raises(ConsentRevokedError):
        world.ask(consent)
    erase(world)
    assert world.custodian.vault.count()["records"] == 0


def test_an_erased_persons_history_comes_back_on_a_lost_chain_and_opens_to_nothing(world: World) -> None:
    consent = world.grant()
    world.ask(consent)
    (entry,) = world.logged()
    erase(world)
    world.rebuild_chain()
    world.custodian.sync()
    assert world.logged() == [entry]
    assert status(world, consent) is Reason.REVOKED
    assert sealed_bytes(world) == []


def test_what_was_asked_under_a_grant_that_the_chain_never_took_is_seen_and_goes_with_the_person(world: World) -> None:
    draft = world.subject.draft(world.custodian, world.institution)
    world.chain.penniless.add(Address(world.custodian.accounts.grants.address))
    with pytest.raises(ChainError):
        world.subject.hand_in(world.custodian, draft)
    with pytest.raises(ConsentError):
        world.ask(id_of(draft, world.chain))
    world.chain.penniless.clear()
    world.subject.revoke_directly(world.chain, draft)
    world.custodian.sync()
    subject_id = world.custodian.vault.subject_of(world.subject.ref)
    assert [one.outcome for one in world.custodian.activity.page(subject_id)] == ["refused"]
    erase(world)
    (row,) = world.custodian.journal.history()
    assert (row.subject_id, row.wrapped_dek, row.body) == (None, None, None)


def test_a_furnisher_cannot_bring_an_erased_person_back(world: World) -> None:
    erase(world)
    with world.custodian.store.begin() as tx:
        index = world.custodian.vault.ref_index(world.subject.ref)
        assert world.custodian.vault.erased_refs(tx, [index]) == {index}
    with pytest.raises(ErasedError):
        world.custodian.vault.subject_of(world.subject.ref)


REASON = "Income insufficient for amount of credit requested"


def everything_about_a_person(world: World) -> Hex32:
    """An accepted request, a release under its consent, a decision that relied on it, an attested deletion."""
    registry, clock = world.custodian.registry, world.clock
    party = registry.institution(world.institution.institution_id)
    asked = world.custodian.requests.ask(
        party,
        purpose="loan-origination",
        attributes=["credit_amount"],
        validity_days=31,
        max_accesses=3,
        accesses_per_day=3,
        retention_days=31,
    )
    token = token_of(asked.link or "")
    grant = world.custodian.requests.draft(token, world.subject.address)
    signature = world.subject.sign(world.custodian, grant)
    subject_id = world.custodian.vault.subject_of(world.subject.ref)
    consent = world.custodian.requests.accept(token, grant, signature, subject_id).consent_id
    release = world.ask(consent).release_id
    signed = world.institution.evidence(world.custodian, "/v1/x", {"reasons": [REASON]})
    world.custodian.duties.adverse_action(
        party, release, decision="worse_terms", reasons=[REASON], attributes=["credit_amount"], evidence=signed
    )
    world.custodian.duties.attest_deletion(party, consent, deleted_at=clock(), evidence=signed)
    return release


def duties_of(world: World) -> tuple[list[str], int | None]:
    """What can be read of them: the reasons, and when the deletion was attested."""
    subject_id = world.custodian.vault.subject_of(world.subject.ref)
    actions = world.custodian.duties.adverse_actions(subject_id)
    (consent,) = world.custodian.registry.consents(subject_id)
    attested_at = world.custodian.duties.standing([consent.consent_id])[consent.consent_id].attested_at
    return [reason for action in actions for reason in action.reasons], attested_at


def test_requests_attestations_and_decisions_go_with_the_person(world: World) -> None:
    everything_about_a_person(world)
    world.subject.pause(world.custodian, world.custodian.registry.consents()[0].consent_id)
    sealed = sealed_bytes(world)
    rows = (consent_requests, deletion_attestations, adverse_actions)
    # Three values, consent and release, and one of each of these.
    assert len(sealed) == 2 * (len(VALUES) + 2 + len(rows))
    assert all(each in files(world) for each in sealed)
    subject_id = world.custodian.vault.subject_of(world.subject.ref)
    erasure = erase(world)
    assert (erasure.requests, erasure.attestations, erasure.adverse_actions) == (1, 1, 1)
    claims = verify_claims(erasure.proof, world.custodian.accounts.signing_key, "erasure-proof+jwt")
    destroyed = ("consentRequestsDestroyed", "deletionAttestationsDestroyed", "adverseActionsDestroyed")
    assert [claims[name] for name in destroyed] == [1, 1, 1]
    assert sealed_bytes(world) == []
    left = files(world)
    assert not any(each in left for each in sealed)
    with world.custodian.store.read() as tx:
        for table in (*rows, releases, consents):
            assert subject_id not in repr(tx.execute(select(table)).all())


def test_what_comes_in_during_an_erasure_goes_with_the_rest_and_nothing_comes_in_after_it(world: World) -> None:
    everything_about_a_person(world)
    party = world.custodian.registry.institution(world.institution.institution_id)
    (consent,) = world.custodian.registry.consents()
    signed = world.institution.evidence(world.custodian, "/v1/x", {})

    def come_in() -> None:
        at = world.clock()
        world.custodian.duties.attest_deletion(party, consent.consent_id, deleted_at=at, evidence=signed)
        world.subject.furnish(world.custodian, {"age": 44})

    world.steps.at("erase revoked", come_in)
    erasure = erase(world)
    assert (erasure.envelopes, erasure.attestations) == (len(VALUES) + 1, 2)
    with pytest.raises(ErasedError):
        come_in()
    assert sealed_bytes(world) == []


def test_no_reference_value_or_reason_is_ever_in_the_files(world: World) -> None:
    world.subject = Subject("Erika Mustermann 4711")
    world.subject.furnish(world.custodian, {"credit_amount": 987_654_321, "savings": "from_1000"})
    everything_about_a_person(world)
    texts = (world.subject.ref, "987654321", "from_1000", REASON, "worse_terms")
    assert [text for text in texts if text.encode() in files(world)] == []
    erase(world)
    assert [text for text in texts if text.encode() in files(world)] == []


def test_another_persons_requests_attestations_and_decisions_stay(world: World) -> None:
    everything_about_a_person(world)
    kept = duties_of(world)
    other = world.another_subject()
    erasure = world.custodian.eraser.erase(other.ref)
    assert (erasure.requests, erasure.attestations, erasure.adverse_actions) == (0, 0, 0)
    assert duties_of(world) == kept == ([REASON], world.clock())


def test_a_rotation_keeps_requests_attestations_and_decisions_readable(world: World) -> None:
    everything_about_a_person(world)
    before = duties_of(world)
    old = world.custodian.keys.active_kek_id
    assert world.custodian.rotate_keys().destroyed == (old,)
    world.restart()
    assert duties_of(world) == before
    party = world.custodian.registry.institution(world.institution.institution_id)
    (request,) = world.custodian.requests.listed(party, limit=10)
    assert request.attributes == ("credit_amount",)


# ----------------------------------------------------------------------------------------------- answers that were kept


def test_a_forgotten_answer_is_gone_for_a_retry_and_for_a_look_and_its_receipt_is_not(world: World) -> None:
    message = world.request(world.grant())
    first = world.custodian.releases.release(message)
    party = world.custodian.registry.institution(world.institution.institution_id)
    assert first.sealed in files(world)
    assert world.custodian.journal.forget_answers(world.clock() + 1) == 1
    world.custodian.store.scrub()
    assert first.sealed not in files(world)
    with pytest.raises(AnswerGoneError):
        world.retry(message)
    with pytest.raises(AnswerGoneError):
        world.custodian.releases.found(first.release_id, party)
    receipt = world.custodian.releases.receipt(first.release_id)
    claims = verify_claims(receipt, world.custodian.accounts.signing_key, "access-receipt+jwt")
    assert (claims["entry"]["releaseId"], claims["entryHash"]) == (first.release_id, world.logged()[0])
    assert len(world.logged()) == 1
    # The duties that the answer made are no shorter than they were.
    consent = world.custodian.registry.consents()[0].consent_id
    assert world.custodian.duties.standing([consent])[consent].due_at == world.clock() + 31 * DAY


def test_only_answers_from_before_that_time_are_forgotten_and_each_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger.journal.FORGOTTEN_AT_ONCE", 2)
    consents = [world.grant() for _ in range(5)]
    for consent in consents:
        world.ask(consent)
    world.clock.advance(1)
    late = world.ask(consents[0], key="late")
    with pytest.raises(ConsentError):
        world.ask(consents[1], purpose="account-review")
    assert world.custodian.journal.forget_answers(world.clock() - 1) == 0
    assert world.custodian.journal.forget_answers(world.clock()) == 5
    assert world.custodian.journal.forget_answers(world.clock()) == 0
    assert world.ask(consents[0], key="late").sealed == late.sealed


def test_forgetting_answers_reads_no_more_than_those_that_are_kept(world: World) -> None:
    with world.custodian.store.read() as tx:
        query = journal._WITH_ANSWER.compile(dialect=tx.dialect)
        (plan,) = tx.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}", (world.clock(), 1, 0))
    assert "INDEX releases_with_answer" in plan.detail


# ------------------------------------------------------------------------------------------------------------- rotation


def bodies(world: World) -> dict[str, bytes]:
    with world.custodian.store.read() as tx:
        return {row.record_id: row.body for row in tx.execute(select(records))}


def test_rotation_rewraps_everything_touches_no_body_and_destroys_the_old_key(world: World) -> None:
    consent = world.grant()
    first = world.ask(consent, key="once")
    before, old = bodies(world), world.custodian.keys.active_kek_id
    progress: list[tuple[int, int]] = []
    rotation = world.custodian.rotate_keys(lambda done, total: progress.append((done, total)))

    assert (rotation.destroyed, rotation.kept) == ((old,), ())
    assert world.custodian.keys.kek_ids == [rotation.active]
    assert bodies(world) == before
    assert progress[-1] == (len(VALUES) + 2, len(VALUES) + 2)
    assert world.ask(consent, key="once").sealed == first.sealed
    assert world.ask(consent).sealed


def test_a_process_that_starts_while_a_rotation_ends_writes_nothing_under_the_destroyed_key(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = world.custodian.keys.active_kek_id
    opened = Store.open

    def opened_late(path: Path, identity: dict[str, str]) -> Store:
        # The one that starts has read the key file, and is not known to be there yet.
        assert world.custodian.rotate_keys().destroyed == (old,)
        return opened(path, identity)

    with monkeypatch.context() as patched:
        patched.setattr(Store, "open", opened_late)
        starting = world.open()
    with starting:
        world.subject.furnish(starting, {"credit_amount": 4711})
    (record,) = world.custodian.vault.find(world.custodian.vault.subject_of(world.subject.ref), ["credit_amount"])
    assert world.custodian.vault.open(record, TRIAL).value == 4711


@pytest.mark.skipif(os.geteuid() != 0, reason="only the superuser meets other people's files")
def test_a_rotation_by_the_superuser_leaves_the_service_account_every_file(world: World) -> None:
    world.grant()
    world.custodian.close()
    data, account = world.config.data, 65534
    # As after a start with fewer workers than this takes a writer of, and before anything was ever opened.
    for made in (*data.glob("locks/*"), *data.glob("keys/unwraps.log*")):
        made.unlink()
    for path in (data, *data.rglob("*")):
        os.chown(path, account, account)
    world.custodian = world.open()
    assert world.custodian.rotate_keys().destroyed
    assert {path.name for path in data.glob("keys/*.l*")} == {"kek.json.lock", "unwraps.log", "unwraps.log.head"}
    assert [path.name for path in data.rglob("*") if path.stat().st_uid != account] == []


def test_a_backup_from_before_an_erasure_opens_nothing_once_the_key_is_rotated(world: World, tmp_path: Path) -> None:
    world.grant()
    subject_id = world.custodian.vault.subject_of(world.subject.ref)
    world.custodian.store.scrub()
    backup = tmp_path / "backup.db"
    shutil.copy(world.config.database, backup)
    erasure = erase(world)
    rotation = world.custodian.rotate_keys()
    assert set(erasure.readable_in_backups_until_destroyed) == set(rotation.destroyed)

    world.custodian.close()
    for leftover in world.config.data.glob("ledger.db*"):
        leftover.unlink()
    shutil.copy(backup, world.config.database)
    world.custodian = world.open()
    for record in world.custodian.vault.find(subject_id, list(VALUES)):
        with pytest.raises(KeyUnavailableError):
            world.custodian.vault.open(record, TRIAL)
    with pytest.raises(KeyUnavailableError):
        world.custodian.registry.consents()


@pytest.mark.parametrize("step", ["rotate: new KEK active", "rotate: chunk"])
@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_rotation_that_is_killed_goes_on_and_nothing_is_lost(
    world: World, monkeypatch: pytest.MonkeyPatch, step: str, times: int
) -> None:
    monkeypatch.setattr("ledger.erase.CHUNK", 2)
    consent = world.grant()
    first = world.ask(consent, key="once")
    old = world.custodian.keys.active_kek_id
    for _ in range(times):
        world.steps.at(step, die)
        with pytest.raises(Killed):
            world.custodian.rotate_keys()
        world.restart()
        assert world.ask(consent, key="once").sealed == first.sealed
        assert world.custodian.vault.open(world.custodian.vault.find(subject_of(world), ["savings"])[0], TRIAL)
    rotation = world.custodian.rotate_keys()
    assert old in rotation.destroyed
    assert world.custodian.keys.kek_ids == [rotation.active]
    assert world.ask(consent).sealed


def test_a_key_that_something_is_still_wrapped_under_is_never_destroyed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger.erase.CHUNK", 2)
    old = world.custodian.keys.active_kek_id
    world.steps.at("rotate: chunk", die)
    with pytest.raises(Killed):
        world.custodian.rotate_keys()
    assert world.custodian.eraser.destroy_retired() == []
    assert old in world.custodian.keys.kek_ids
    assert all(
        world.custodian.vault.open(each, TRIAL) for each in world.custodian.vault.find(subject_of(world), list(VALUES))
    )


def subject_of(world: World) -> str:
    return world.custodian.vault.subject_of(world.subject.ref)


def test_releases_and_grants_go_on_while_keys_are_rotated(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.erase.CHUNK", 1)
    consent = world.grant()
    made: list[Any] = []
    world.steps.at("rotate: new KEK active", lambda: made.append(world.ask(consent, key="during")))
    world.steps.at("rotate: chunk", lambda: made.append(world.grant()))
    world.custodian.rotate_keys()
    assert world.ask(consent, key="during").sealed == made[0].sealed
    assert world.ask(made[1]).sealed


def test_another_process_at_work_keeps_the_old_key_until_it_is_gone(world: World) -> None:
    consent = world.grant()
    with world.open() as other:
        rotation = world.custodian.rotate_keys()
        assert rotation.destroyed == ()
        assert len(rotation.kept) == 1
        assert other.releases.release(world.request(consent)).sealed
    again = world.custodian.rotate_keys()
    assert set(rotation.kept) <= set(again.destroyed)
    assert world.ask(consent).sealed


def test_a_process_that_starts_after_a_rotation_uses_the_new_key(world: World) -> None:
    consent = world.grant()
    active = world.custodian.rotate_keys().active
    with world.open() as other:
        assert other.keys.active_kek_id == active
        assert other.releases.release(world.request(consent)).sealed


def test_a_tombstone_survives_rotation_and_years(world: World) -> None:
    erase(world)
    world.custodian.rotate_keys()
    world.clock.advance(4000 * DAY)
    with pytest.raises(ErasedError):
        world.custodian.vault.subject_of(world.subject.ref)


def test_a_busy_database_fails_an_erasure_as_a_whole(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.store.BUSY_SECONDS", 0)
    world.restart()
    consent = world.grant()
    thief = sqlite3.connect(world.config.database, isolation_level=None)
    world.steps.at("erase revoked", lambda: thief.execute("BEGIN IMMEDIATE"))
    with pytest.raises(Exception, match="nothing was written"):
        erase(world)
    thief.execute("ROLLBACK")
    thief.close()
    assert world.custodian.vault.count()["records"] == len(VALUES)
    with pytest.raises(ConsentRevokedError):
        world.ask(consent)
    assert erase(world).envelopes == len(VALUES)


def test_a_rotation_that_had_to_keep_the_old_key_is_finished_by_the_next(world: World) -> None:
    with world.open():
        first = world.custodian.rotate_keys()
    assert first.kept
    second = world.custodian.rotate_keys()
    assert (second.active, second.destroyed, second.kept) == (first.active, first.kept, ())
    assert world.custodian.rotate_keys().destroyed == (first.active,)


# ------------------------------------------------------------------------------------------ every table, and beforehand


def everything_there_can_be(world: World) -> str:
    """Something about a person in every table that can hold anything about people. Returns the person's id."""
    custodian = world.custodian
    everything_about_a_person(world)
    subject_id = subject_of(world)
    party = custodian.registry.institution(world.institution.institution_id)
    custodian.disputes.open(subject_id, "savings", "This is not mine")
    custodian.disputes.withdraw(subject_id, "savings")
    custodian.disputes.open(subject_id, "savings", "Still not mine")
    for answer in (custodian.own_requests.claim, custodian.own_requests.decline):
        asked = custodian.requests.ask(
            party,
            purpose="loan-origination",
            attributes=["credit_amount"],
            validity_days=31,
            max_accesses=3,
            accesses_per_day=3,
            retention_days=31,
        )
        answer(token_of(asked.link or ""), subject_id)
    with custodian.store.begin() as tx:
        invitation = custodian.invitations.invite(tx, subject_id)
    proof = custodian.enrolment.enrol(invitation.invitation_id, new_id(), world.subject.address)
    custodian.sessions.start(proof, device="Firefox")
    with custodian.store.begin() as tx:
        custodian.invitations.invite(tx, subject_id)
        for table in ABOUT_SUBJECTS:
            if tx.execute(select(table).where(table.c.subject_id == subject_id)).first() is None:
                tx.execute(table.insert(), [made_up(table, subject_id)])
    return subject_id


def made_up(table: Table, subject_id: str) -> dict[str, Any]:
    """A row about this person of a table that nothing here has filled by itself."""
    values: dict[type, Any] = {str: "x", int: 1, object: True, bytes: b"x"}
    return {column.name: values[column.type.python_type] for column in table.c} | {"subject_id": subject_id}


def test_an_erased_person_is_in_no_row_of_any_table(world: World) -> None:
    """Also of a table that comes later: one with people in it that an erasure does not reach fails here."""
    subject_id = everything_there_can_be(world)
    world.custodian.eraser.erase(world.subject.ref)
    with world.custodian.store.read() as tx:
        for table in metadata.sorted_tables:
            left = tx.execute(select(table)).all()
            if table is not subjects:
                assert subject_id not in repr(left), table.name
            if table in SEALED_TABLES:
                assert all(row.body is None for row in left), table.name


def test_every_table_with_sealed_rows_is_about_subjects_or_never_about_one() -> None:
    sealed = {table for table in metadata.sorted_tables if "wrapped_dek" in table.c}
    assert sealed == set(SEALED_TABLES)
    assert sealed <= set(ABOUT_SUBJECTS)


def test_what_an_erasure_takes_can_be_seen_beforehand(world: World) -> None:
    subject_id = everything_there_can_be(world)
    (consent,) = world.custodian.registry.consents(subject_id)
    before = world.custodian.eraser.preview(subject_id)
    assert before.rows.keys() == {table.name for table in ABOUT_SUBJECTS} - {"subjects"}
    assert all(before.rows.values())
    assert (before.rows["records"], before.rows["consents"], before.rows["releases"]) == (len(VALUES), 1, 1)
    assert (before.rows["disputes"], before.rows["consent_requests"], before.rows["wallets"]) == (2, 3, 1)
    assert before.consents_that_end == before.on_chain == (consent.consent_id,)
    (held,) = before.held_elsewhere
    assert (held.institution, held.institution_name, held.until) == ("bank-1", "First Bank", world.clock() + 31 * DAY)
    assert before.readable_in_backups_until_destroyed == tuple(world.custodian.keys.kek_ids)
    erasure = world.custodian.eraser.erase_subject(subject_id)
    assert (erasure.envelopes, erasure.disputes, erasure.requests) == (3, 2, 3)
    for act in (world.custodian.eraser.preview, world.custodian.eraser.erase_subject):
        for nobody in (subject_id, "nobody"):
            with pytest.raises(ErasedError):
                act(nobody)


def test_a_revoked_consent_is_not_said_to_end_and_its_data_are_still_elsewhere(world: World) -> None:
    used, unused = world.grant(), world.grant()
    world.ask(used)
    world.subject.revoke(world.custodian, used)
    before = world.custodian.eraser.preview(subject_of(world))
    assert before.consents_that_end == (unused,)
    assert set(before.on_chain) == {used, unused}
    assert [one.consent_id for one in before.held_elsewhere] == [used]


# ------------------------------------------------------------------------------------------------- an older backup


def erasures(world: World) -> str:
    return world.config.key_file.with_name("erasures.log").read_text()


def test_who_was_erased_is_erased_again_after_an_older_backup(world: World) -> None:
    consent = world.grant()
    other = world.another_subject()
    world.restore_what_was_before(lambda: erase(world))
    assert world.custodian.vault.count()["erased"] == 0
    assert world.custodian.sync().erased_again == 1
    assert world.custodian.vault.count() == {"subjects": 2, "erased": 1, "records": len(VALUES)}
    for act in (lambda: world.ask(consent), lambda: erase(world), world.grant):
        with pytest.raises(ErasedError):
            act()
    assert other.grant(world.custodian, world.institution)
    # Once: a backup is put back while no process is running.
    assert world.custodian.sync().erased_again == 0
    world.restart()
    assert world.custodian.sync().erased_again == 0


def test_who_was_erased_and_is_not_in_an_older_backup_at_all_is_not_taken_in_again(world: World) -> None:
    late = Subject("late")

    def come_and_go() -> None:
        late.furnish(world.custodian)
        world.custodian.eraser.erase(late.ref)

    world.restore_what_was_before(come_and_go)
    assert world.custodian.sync().erased_again == 0
    assert world.custodian.vault.count()["erased"] == 1
    with pytest.raises(ErasedError):
        world.custodian.vault.subject_of(late.ref)


@pytest.mark.skipif(os.geteuid() != 0, reason="only the superuser meets other people's files")
def test_an_erasure_by_the_superuser_leaves_the_service_account_its_file(world: World) -> None:
    account = 65534
    os.chown(world.config.key_file.parent, account, account)
    erase(world)
    assert world.config.key_file.with_name("erasures.log").stat().st_uid == account


def test_an_erasure_that_cannot_be_written_down_whole_is_not_taken_for_written_down(tmp_path: Path) -> None:
    with files_up_to(40), pytest.raises(KeyFileError, match="cannot be written whole"):
        ErasureFile(tmp_path / "erasures.log").add({"ab" * 32: 1})


def test_what_is_written_down_of_an_erasure_names_nobody_and_is_the_owners_alone(world: World) -> None:
    with world.custodian.store.read() as tx:
        (index,) = tx.scalars(select(subjects.c.ref_index))
    erase(world)
    assert erasures(world) == f"\n{world.clock()} {index}\n"
    assert world.config.key_file.with_name("erasures.log").stat().st_mode & 0o777 == 0o600


def test_an_erasure_that_did_not_happen_is_not_written_down(world: World) -> None:
    world.grant()
    world.steps.at("erase revoked", world.grant)
    with pytest.raises(ConflictError):
        erase(world)
    assert not world.config.key_file.with_name("erasures.log").exists()
    world.restart()
    assert world.custodian.sync().erased_again == 0
    assert world.custodian.vault.count()["erased"] == 0


def test_an_erasure_that_could_not_be_written_down_is_written_down_by_the_next_sync_of_the_same_process(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.custodian.sync()
    with monkeypatch.context() as patched:
        patched.setattr("ledger.erasures.os.open", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
        erase(world)
    world.custodian.sync()
    assert erasures(world).startswith(f"\n{world.clock()} ")


@pytest.mark.parametrize("left", ["nothing", "half a line", "no file for it"])
def test_an_erasure_that_was_cut_off_before_it_was_written_down_is_written_down_by_the_next_sync(
    world: World, left: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if left == "no file for it":
        monkeypatch.setattr("ledger.erasures.os.open", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
        assert erase(world).envelopes == len(VALUES)
        monkeypatch.undo()
    else:
        world.steps.at("erase durable", die)
        with pytest.raises(Killed):
            erase(world)
    if left == "half a line":
        world.config.key_file.with_name("erasures.log").write_text(f"\n{world.clock()} 0123")
    world.restart()
    world.custodian.sync()
    assert len(erasures(world).splitlines()[-1].split()[1]) == 64
    (at,) = [line.split()[0] for line in erasures(world).splitlines() if len(line) > 64]
    assert int(at) == world.clock()
