"""Erasure and rotation: erased is unreadable for ever, backups included; everything else stays readable (P6)."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from actors import DAY, VALUES, World, id_of
from sqlalchemy import select

from ledger.consent import Hex32, Reason
from ledger.erase import Erasure
from ledger.errors import (
    ConflictError,
    ConsentRevokedError,
    ErasedError,
    KeyUnavailableError,
    NotFoundError,
)
from ledger.exchange import verify_claims
from ledger.store import SEALED_TABLES, records


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
    assert erase(world).revocation is not None
    assert world.custodian.vault.count()["records"] == 0
    world.chain.down = False
    with pytest.raises(ErasedError):
        world.ask(consent)
    world.custodian.sync()
    assert status(world, consent) is Reason.REVOKED


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
    world.chain.restart_empty()
    world.chain.deploy()
    world.custodian.allow_writers()
    world.custodian.sync()
    assert world.logged() == [entry]
    assert status(world, consent) is Reason.REVOKED
    assert sealed_bytes(world) == []


def test_a_furnisher_cannot_bring_an_erased_person_back(world: World) -> None:
    erase(world)
    with world.custodian.store.begin() as tx:
        index = world.custodian.vault.ref_index(world.subject.ref)
        assert world.custodian.vault.erased_refs(tx, [index]) == {index}
    with pytest.raises(ErasedError):
        world.custodian.vault.subject_of(world.subject.ref)


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
            world.custodian.vault.open(record)
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
        assert world.custodian.vault.open(world.custodian.vault.find(subject_of(world), ["savings"])[0])
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
    assert all(world.custodian.vault.open(each) for each in world.custodian.vault.find(subject_of(world), list(VALUES)))


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
