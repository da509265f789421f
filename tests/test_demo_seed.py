"""What `consent-ledger up` puts into a data directory: once, and only where a demo may be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from actors import World

from ledger import demo_seed
from ledger.config import Config
from ledger.custodian import Custodian
from ledger.demo_seed import FURNISHER_NAME, INSTITUTIONS, PEOPLE
from ledger.errors import CodeRefusedError, ErasedError, NotFoundError
from ledger.exchange import key_for


@pytest.fixture
def seeded(world: World) -> Custodian:
    assert demo_seed.seed(world.custodian)
    return world.custodian


def everything(data: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted((data / "demo").iterdir())}


def test_people_have_the_values_of_their_row_and_a_code_that_works(seeded: Custodian) -> None:
    found = demo_seed.codes(seeded)
    assert [one.person for one in found] == list(PEOPLE)
    for one in found:
        subject_id = seeded.vault.subject_of(one.person.ref)
        assert set(seeded.vault.held(subject_id)) == demo_seed.attributes()
        assert seeded.invitations.of_code(one.code or "").subject_id == subject_id


def test_what_is_known_of_the_people_comes_from_a_furnisher_that_is_registered(seeded: Custodian) -> None:
    (furnisher,) = seeded.registry.furnishers()
    held = seeded.subject_data.attributes(seeded.vault.subject_of(PEOPLE[0].ref))
    assert {one.now.source for one in held} == {furnisher.party_id}
    assert {one.now.source_name for one in held} == {FURNISHER_NAME}


def test_seeded_twice_is_seeded_once(seeded: Custodian, world: World) -> None:
    before, counts = everything(world.config.data), seeded.vault.count()
    assert not demo_seed.seed(seeded)
    assert (everything(world.config.data), seeded.vault.count()) == (before, counts)
    world.restart()
    assert not demo_seed.seed(world.custodian)
    assert everything(world.config.data) == before


def test_what_a_cut_off_seeding_left_out_is_made_the_next_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as cut:
        cut.setattr(world.custodian.registry, "add_institution", lambda *_args, **_options: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            demo_seed.seed(world.custodian)
    assert demo_seed.seed(world.custodian)
    for institution in INSTITUTIONS:
        keys = demo_seed.keys_of(world.config.data, institution)
        registered = world.custodian.registry.institution(institution.institution_id)
        assert key_for(registered.jwks, "sig").kid == key_for(keys, "sig").kid


def test_names_are_not_in_the_database_and_keys_are_for_the_owner_only(seeded: Custodian, world: World) -> None:
    stored = b"".join(path.read_bytes() for path in world.config.data.glob("ledger.db*"))
    for person in PEOPLE:
        assert person.ref.encode() not in stored
        assert person.name.encode() not in stored
    for path in (world.config.data / "demo").iterdir():
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_new_code_voids_the_one_before(seeded: Custodian) -> None:
    person = PEOPLE[0]
    (old, *_) = demo_seed.codes(seeded)
    new = demo_seed.invite(seeded, person.ref)
    assert demo_seed.codes(seeded)[0] == new
    assert new.code != old.code
    with pytest.raises(CodeRefusedError):
        seeded.invitations.of_code(old.code or "")


def test_a_used_code_is_not_shown_any_more(seeded: Custodian) -> None:
    (one, *others) = demo_seed.codes(seeded)
    with seeded.store.begin() as tx:
        seeded.invitations.use(tx, seeded.invitations.of_code(one.code or "").invitation_id)
    assert [each.code is None for each in demo_seed.codes(seeded)] == [True, *(False for _ in others)]


def test_whoever_was_erased_stays_so(seeded: Custodian) -> None:
    ref = PEOPLE[0].ref
    seeded.eraser.erase(ref)
    assert not demo_seed.seed(seeded)
    assert demo_seed.codes(seeded)[0].is_erased
    with pytest.raises(ErasedError):
        demo_seed.invite(seeded, ref)


def test_nobody_but_the_people_of_the_demo_gets_a_code_here(seeded: Custodian, world: World) -> None:
    with pytest.raises(NotFoundError):
        demo_seed.invite(seeded, world.subject.ref)


def test_a_demo_is_for_a_local_chain_and_this_machine_only(world: World) -> None:
    local: Config = world.config
    assert demo_seed.is_place_for(local)
    assert demo_seed.is_place_for(replace(local, service_url="http://localhost:9000"))
    for other in (
        replace(local, chain_id=1),
        replace(local, service_url="https://consent.example"),
        replace(local, service_url="http://192.0.2.1:8000"),
    ):
        assert not demo_seed.is_place_for(other)
