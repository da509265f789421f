"""Reconciliation: keys, journal, receipts and chain agree, and whatever was done to one of them shows in the others."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from actors import DAY, VALUES, Institution, World
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap

from ledger import envelope, journal, reconcile
from ledger.access import AccessEntry, BatchKind, LoggedAccess, entry_hash_of
from ledger.attributes import ACCESS_OPENINGS
from ledger.audit_report import AuditedEntry, Check, Verdict
from ledger.compelled import NewOrder
from ledger.consent import Hex32, Reason
from ledger.contract import append_call
from ledger.contract_events import batches_of
from ledger.custodian_side import Books, receipts_in, sides_of
from ledger.envelope import ORDER, RELEASE, RELEASE_RESUMED, USES, Use, WrappedKey, open_envelope
from ledger.errors import ConsentRevokedError, PurposeMismatchError, UnreadableFileError
from ledger.exchange import RECEIPT_TYPE, sign_claims, verify_claims
from ledger.keys import KeyFile
from ledger.preparation import opening_context
from ledger.purposes import AUDIT
from ledger.reconciliation import EXPLANATIONS, HandedIn, OnFile, Reconciliation, Sides, differences_of
from ledger.release import Release
from ledger.unwrap_file import head_path
from ledger.unwraps import Counted, Gap, Head
from ledger.vault import envelope_of, open_json

PROVEN: Final = Check(name="audit", holds=True, detail="the entries are those of the chain")


def entries_of(world: World) -> list[AuditedEntry]:
    """This custodian's entries on the simulated chain, in the form that an audit gives them."""
    return [
        AuditedEntry(
            consent_id=outcome.access.consent_id,
            entry_hash=outcome.access.entry_hash,
            reason=outcome.reason,
            late=outcome.late,
            custodian=batch.custodian,
            writer=batch.writer,
            block_number=1,
            at=world.clock(),
            transaction_hash=Hex32("0x" + "00" * 32),
            log_index=outcome.log_index,
        )
        for batch in batches_of(world.chain.all_events())
        for outcome in batch.outcomes
    ]


def books(world: World) -> Books:
    custodian = world.custodian
    records, keys = custodian.access_records, custodian.keys
    return Books(journal=custodian.journal, orders=custodian.order_book, records=records, keys=keys)


def reconciled(
    world: World, *, receipts: Sequence[HandedIn] = (), known: Sequence[Head] = (), **changes: Any
) -> Reconciliation:
    sides = sides_of(books(world), lambda: entries_of(world), receipts=receipts, known=known)
    return reconcile.reconcile(replace(sides, **changes), [PROVEN])


def codes(found: Reconciliation) -> list[str]:
    assert (found.verdict is Verdict.CLEAN) == (not found.findings)
    return sorted(finding.code for finding in found.findings)


def in_database(world: World, statement: str, *values: object) -> None:
    """What someone does who has the database and nothing else."""
    with sqlite3.connect(world.custodian.config.database) as connection:
        assert connection.execute(statement, values).rowcount >= 1
    connection.close()


def released(world: World) -> Hex32:
    """The id of the newest release."""
    return Hex32(world.custodian.journal.history(limit=1)[0].release_id)


def record_of(world: World, name: str = "savings") -> Any:
    return world.custodian.vault.find(world.custodian.vault.subject_of(world.subject.ref), [name])[0]


@pytest.fixture
def busy(world: World) -> World:
    """A custodian after a day of everything that is normal, some of which looks odd."""
    consent = world.grant(attributes=tuple(VALUES), max_accesses=3)
    for number in (1, 2):
        world.ask(consent, attributes=tuple(VALUES)[:number])
    with pytest.raises(PurposeMismatchError):
        world.ask(consent, purpose="account-review")
    world.ask(consent, attributes=tuple(VALUES))
    gone = world.grant()
    world.ask(gone)
    world.subject.revoke(world.custodian, gone)
    with pytest.raises(ConsentRevokedError):
        world.ask(gone)
    stopped = world.grant()
    world.steps.at("5 logged", lambda: world.subject.revoke(world.custodian, stopped))
    with pytest.raises(ConsentRevokedError):
        world.ask(stopped)
    world.steps.forget()
    world.custodian.subject_data.attributes(world.custodian.vault.subject_of(world.subject.ref))
    world.custodian.sync()
    return world


# -------------------------------------------------------------------------------------------------------- nothing amiss


def test_an_ordinary_day_reconciles_and_every_difference_has_its_explanation(busy: World) -> None:
    found = reconciled(busy)
    assert codes(found) == []
    assert found.numbers == {"released": 4, "logged_not_released": 1, "refused_here": found.numbers["refused_here"]}
    assert found.unwraps[RELEASE] == 1 + 2 + 3 + 1
    assert set(found.numbers) <= set(EXPLANATIONS)


def test_a_custodian_that_did_nothing_reconciles(world: World) -> None:
    assert codes(reconciled(world)) == []
    assert reconciled(world).numbers == {}


def test_a_release_that_a_crash_cut_short_is_explained_before_and_after_it_is_resumed(world: World) -> None:
    consent = world.grant()

    def die() -> None:
        raise KeyboardInterrupt

    world.steps.at("6 before answer durable", die)
    with pytest.raises(KeyboardInterrupt):
        world.ask(consent, key="once")
    world.restart()
    found = reconciled(world)
    assert (codes(found), found.numbers["resumable"], found.numbers["opened_then_stopped"]) == ([], 1, 1)
    world.ask(consent, key="once")
    found = reconciled(world)
    assert (codes(found), found.numbers) == ([], {"released": 1, "resumed": 1})


def test_a_release_that_nobody_came_back_for_is_explained(world: World) -> None:
    consent = world.grant()

    def die() -> None:
        raise KeyboardInterrupt

    world.steps.at("6 before decrypting", die)
    with pytest.raises(KeyboardInterrupt):
        world.ask(consent)
    world.restart()
    world.custodian.sync()
    world.clock.advance(DAY)
    world.custodian.sync()
    found = reconciled(world)
    assert (codes(found), found.numbers) == ([], {"logged_not_released": 1})


def test_a_crash_after_the_contract_refused_is_explained_before_and_after_the_sync(world: World) -> None:
    consent = world.grant()
    grant = world.grant_of(consent)
    world.chain.before("sign", lambda: world.subject.revoke_directly(world.chain, grant))

    def die() -> None:
        raise KeyboardInterrupt

    world.steps.at("batch landed", die)
    with pytest.raises(KeyboardInterrupt):
        world.ask(consent)
    world.restart()
    found = reconciled(world)
    assert (codes(found), found.numbers) == ([], {"refused_unread": 1})
    world.custodian.sync()
    found = reconciled(world)
    assert (codes(found), found.numbers) == ([], {"refused": 1})


def test_what_was_ended_here_while_its_batch_was_on_the_way_and_is_refused_on_chain_is_explained(world: World) -> None:
    """An erasure revokes, and ends what is open: neither waits for a batch in flight."""
    consent = world.grant()
    world.steps.at("batch durable", lambda: world.custodian.eraser.erase(world.subject.ref))
    landed: list[Reconciliation] = []
    world.steps.at("batch landed", lambda: landed.append(reconciled(world)))
    with pytest.raises(ConsentRevokedError):
        world.ask(consent)
    assert len(world.logged("AccessRefused")) == 1
    assert (codes(landed[0]), landed[0].numbers) == ([], {"refused_unread": 1})
    found = reconciled(world)
    assert (codes(found), found.numbers) == ([], {"refused": 1})


def test_a_refusal_that_lands_between_the_reading_of_the_journal_and_of_the_chain_is_explained(world: World) -> None:
    consent = world.grant()
    grant = world.grant_of(consent)
    world.chain.before("sign", lambda: world.subject.revoke_directly(world.chain, grant))
    read: list[Sides] = []
    world.steps.at("batch durable", lambda: read.append(sides_of(books(world), list)))
    with pytest.raises(ConsentRevokedError):
        world.ask(consent)
    found = reconcile.reconcile(replace(read[0], entries=entries_of(world)), [PROVEN])
    assert (codes(found), found.numbers) == ([], {"refused_unread": 1})


def test_a_chain_that_lost_its_tail_is_a_difference_until_the_sync_and_then_explained(busy: World) -> None:
    lost = busy.grant()
    busy.ask(lost)
    busy.chain.reorg(1)
    assert codes(reconciled(busy)) == ["unexplained_unwrap", "unlogged_release"]
    busy.custodian.sync()
    assert codes(reconciled(busy)) == []


def test_an_auditors_read_of_the_access_records_reconciles_like_any_release(busy: World) -> None:
    auditor = busy.another_institution()
    wanted: dict[str, Any] = {"purpose": AUDIT, "attributes": (ACCESS_OPENINGS,)}
    consent = busy.subject.grant(busy.custodian, auditor, accesses_per_day=1, **wanted)
    before = reconciled(busy).unwraps[RELEASE]
    release = busy.custodian.releases.release(auditor.request(busy.custodian, consent, **wanted))
    found = reconciled(busy)
    assert codes(found) == []
    row = busy.custodian.journal.release_row(release.release_id)
    assert row is not None
    opening = open_json(row, opening_context(row.release_id), busy.custodian.keys)
    assert found.unwraps[RELEASE] - before == len(opening["records"]) > 4
    # A second reading that no entry stands for.
    busy.clock.advance(60)
    key = envelope_of(row).key
    busy.custodian.keys.unwrap(key, Use(RELEASE, release.release_id))
    assert codes(reconciled(busy)) == ["unexplained_unwrap"]


def test_an_access_by_order_reconciles_and_one_that_was_resumed_as_well(busy: World) -> None:
    court = Institution("court-1", "Court One")
    busy.custodian.registry.add_authority(court.institution_id, court.name, court.jwks, at=busy.clock())
    new = NewOrder(
        authority=court.institution_id,
        reference="12 C 345/26",
        document_hash=Hex32("0x" + "d0" * 32),
        subject_id=busy.custodian.vault.subject_of(busy.subject.ref),
        attributes=("credit_amount", "savings"),
        embargo_until=0,
    )

    def die() -> None:
        raise KeyboardInterrupt

    busy.steps.at("order before answer durable", die)
    with pytest.raises(KeyboardInterrupt):
        busy.custodian.orders.execute(new)
    found = reconciled(busy)
    assert (codes(found), found.numbers["resumable"], found.numbers["opened_then_stopped"]) == ([], 1, 1)
    executed = busy.custodian.orders.execute(new)
    found = reconciled(busy)
    assert (codes(found), found.numbers["ordered"], found.numbers["resumed"]) == ([], 1, 1)
    assert (found.unwraps[ORDER], found.unwraps["order-resumed"]) == (2, 2)
    busy.clock.advance(60)
    for name in (ORDER, RELEASE):
        busy.custodian.vault.open(record_of(busy), Use(name, executed.release_id))
        assert codes(reconciled(busy)) == ["unexplained_unwrap"]


def test_an_erasure_leaves_numbers_that_still_reconcile(busy: World) -> None:
    busy.custodian.eraser.erase(busy.subject.ref)
    found = reconciled(busy)
    assert codes(found) == []
    assert found.numbers["erased"] == found.numbers["released"] == 4


def test_a_rotation_of_keys_changes_nothing_about_what_was_opened(busy: World) -> None:
    assert busy.custodian.rotate_keys().destroyed
    busy.ask(busy.grant())
    found = reconciled(busy)
    assert (codes(found), found.numbers["released"]) == ([], 5)
    assert found.unwraps["rotation"] > 0


def test_reconciling_is_itself_counted_and_changes_no_result(busy: World) -> None:
    first, second = reconciled(busy), reconciled(busy)
    assert second.numbers == first.numbers
    assert second.unwraps["opening"] >= first.unwraps["opening"]


# ------------------------------------------------------------------------------------------------------------ the drill


def test_one_extra_unwrap_is_found(busy: World) -> None:
    nowhere = Use(RELEASE, "0x" + "77" * 32)
    busy.custodian.vault.open(record_of(busy), nowhere)
    assert codes(reconciled(busy)) == ["unexplained_unwrap"]


@pytest.mark.parametrize(("name", "later"), [(RELEASE, 0), (RELEASE_RESUMED, 60), (ORDER, 0)])
def test_one_extra_unwrap_under_the_name_of_a_release_that_there_was_is_found(
    world: World, name: str, later: int
) -> None:
    # Of the very same envelope.
    world.ask(world.grant(), attributes=("savings",))
    world.clock.advance(later)
    world.custodian.vault.open(record_of(world), Use(name, released(world)))
    assert codes(reconciled(world)) == ["unexplained_unwrap"]


@pytest.mark.parametrize(
    "use", [Use("sold-to-a-friend"), Use(RELEASE), Use(ORDER), Use(RELEASE_RESUMED), Use("own-viewing")]
)
def test_an_unwrap_for_no_release_or_for_a_use_that_there_is_not_is_found(busy: World, use: Use) -> None:
    busy.custodian.vault.open(record_of(busy), use)
    found = reconciled(busy)
    assert codes(found) == ["unexplained_unwrap"]
    assert use.name in found.findings[0].detail


def test_every_use_that_the_service_has_a_name_for_is_known() -> None:
    names = [one for name, one in vars(envelope).items() if name.isupper() and isinstance(one, str | Use)]
    assert {one if isinstance(one, str) else one.name for one in names} == USES


def test_an_unwrap_for_an_access_that_was_refused_is_found(busy: World) -> None:
    (refused, *_) = [row for row in busy.custodian.journal.history() if row.state == journal.REFUSED]
    busy.custodian.vault.open(record_of(busy), Use(RELEASE, refused.release_id))
    assert codes(reconciled(busy)) == ["unexplained_unwrap"]


def test_other_envelopes_than_those_of_the_entry_are_found(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    really_count = world.custodian.vault.counting
    other = record_of(world, "savings")
    monkeypatch.setattr(world.custodian.vault, "counting", lambda uses: really_count({use: [other] for use in uses}))
    monkeypatch.setattr(world.custodian.vault, "open", lambda _, use: world.custodian.vault._opened(other, use))
    world.ask(world.grant(), attributes=("credit_amount",))
    assert codes(reconciled(world)) == ["unexplained_unwrap"]


def test_one_unlogged_release_is_found(busy: World) -> None:
    row = next(row for row in busy.custodian.journal.history() if row.state == journal.RELEASED)
    without = [one for one in entries_of(busy) if one.entry_hash != row.entry_hash]
    found = reconciled(busy, entries=without)
    assert codes(found) == ["unexplained_unwrap", "unlogged_release"]
    assert {finding.entry_hash for finding in found.findings} == {row.entry_hash}


class KeyTakenAlong:
    """The KEK in another program: the key file is read, and the journal is not written."""

    def __init__(self, keys: KeyFile) -> None:
        self._keys = keys
        self.wrap = keys.wrap

    def unwrap(self, key: WrappedKey, use: Use) -> bytes:  # noqa: ARG002 - that is what it is about
        return aes_key_unwrap(self._keys._keks[key.kek_id], key.wrapped_dek)


def test_a_release_that_the_key_service_did_not_count_is_found(busy: World, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = KeyTakenAlong(busy.custodian.keys)
    monkeypatch.setattr(
        "ledger.vault.open_envelope", lambda held, context, _, use: open_envelope(held, context, taken, use)
    )
    monkeypatch.setattr(busy.custodian.vault, "counting", lambda _: nullcontext())
    busy.ask(busy.grant())
    assert codes(reconciled(busy)) == ["uncounted_release"]


# ------------------------------------------------------------------------------------------------ the database, altered


def test_a_row_that_is_set_to_released_without_an_entry_is_found(world: World) -> None:
    consent = world.grant()
    world.steps.at("batch durable", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        world.ask(consent)
    assert codes(reconciled(world)) == []
    in_database(world, "UPDATE releases SET state = 'released', finished_at = ?", world.clock())
    assert codes(reconciled(world)) == ["unlogged_release"]


def test_a_refusal_that_is_made_a_release_is_found(busy: World) -> None:
    in_database(busy, "UPDATE releases SET state = 'released', finished_at = 1 WHERE state = 'refused'")
    assert set(codes(reconciled(busy))) == {"unlogged_release"}


def test_a_row_that_was_deleted_is_found_by_its_entry_and_by_its_unwraps(busy: World) -> None:
    in_database(busy, "DELETE FROM releases WHERE release_id = ?", released_of(busy, journal.RELEASED))
    assert codes(reconciled(busy)) == ["entry_not_on_file", "unexplained_unwrap"]


def released_of(world: World, state: str) -> str:
    return next(str(row.release_id) for row in world.custodian.journal.history() if row.state == state)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("state = 'aborted'", "row_altered"),
        ("state = 'refused'", "row_altered"),
        ("entry_hash = '0x' || substr(entry_hash, 4) || 'f'", "row_altered"),
        ("consent_id = '0x' || substr(consent_id, 4) || 'f'", "row_altered"),
        ("body = zeroblob(80)", "row_altered"),
        ("release_id = '0x' || substr(release_id, 4) || 'f'", "row_altered"),
    ],
)
def test_a_row_that_was_altered_is_found(busy: World, change: str, found: str) -> None:
    where = released_of(busy, journal.RELEASED)
    in_database(busy, f"UPDATE releases SET {change} WHERE release_id = ?", where)
    assert found in codes(reconciled(busy))


def test_a_batch_that_was_withheld_from_the_journal_is_found(busy: World) -> None:
    # Someone with the writer's key appends what no one can open.
    writer = busy.custodian.log
    access = LoggedAccess(consent_id=busy.grant(), entry_hash=Hex32("0x" + "99" * 32))
    head = busy.chain.log(busy.custodian.address, writer.address).head
    calldata = append_call(BatchKind.ACCESSES, busy.custodian.address, head, [access])
    account = next(one for one in busy.custodian.accounts.writers if one.address == str(writer.address))
    prospect = busy.chain.prospect([], busy.custodian.address, writer.address)[1]
    busy.chain.send(busy.chain.sign(account, calldata, gas=1_000_000, prospect=prospect).raw)
    assert codes(reconciled(busy)) == ["entry_not_on_file"]


# ----------------------------------------------------------------------------------------------- the journal of unwraps


def lines_of(world: World) -> list[str]:
    return world.custodian.keys.unwraps_path.read_text("ascii").splitlines()


def rewrite(world: World, lines: Sequence[str]) -> None:
    world.restart()
    world.custodian.keys.unwraps_path.write_text("".join(f"{line}\n" for line in lines), "ascii")


def test_a_line_that_was_edited_taken_out_or_added_is_found(busy: World) -> None:
    lines = lines_of(busy)
    place = next(number for number, line in enumerate(lines) if " release " in line)
    for changed in (
        [*lines[:place], lines[place].replace(" 1 kek", " 2 kek"), *lines[place + 1 :]],
        [*lines[:place], *lines[place + 1 :]],
        [*lines[:place], lines[place], *lines[place:]],
    ):
        rewrite(busy, changed)
        assert "unwraps_altered" in codes(reconciled(busy))


def test_a_tail_that_was_cut_is_found_and_what_it_told_of_is_missed(busy: World) -> None:
    busy.ask(busy.grant())
    lines = lines_of(busy)
    last = max(number for number, line in enumerate(lines) if " release " in line)
    rewrite(busy, lines[:last])
    assert codes(reconciled(busy)) == ["uncounted_release", "unwraps_cut"]


def test_a_journal_that_was_thrown_away_whole_is_found_by_what_was_released(busy: World) -> None:
    end = reconciled(busy).end
    busy.custodian.close()
    path = busy.custodian.keys.unwraps_path
    path.unlink()
    head_path(path).unlink()
    busy.custodian = busy.open()
    assert codes(reconciled(busy)) == ["uncounted_release"] * 4
    seq, mac = end.split(":")
    assert "unwraps_altered" in codes(reconciled(busy, known=[Head(seq=int(seq), mac=mac)]))


def test_a_journal_that_was_put_back_is_found_by_who_kept_its_end(busy: World) -> None:
    path = busy.custodian.keys.unwraps_path
    before = path.read_bytes(), head_path(path).read_bytes()
    busy.custodian.vault.open(record_of(busy), Use(RELEASE, "0x" + "77" * 32))
    seq, mac = reconciled(busy).end.split(":")
    busy.custodian.close()
    path.write_bytes(before[0])
    head_path(path).write_bytes(before[1])
    busy.custodian = busy.open()
    # The extra unwrap was just before it, and nothing was released since: only memory tells.
    assert codes(reconciled(busy)) == []
    assert codes(reconciled(busy, known=[Head(seq=int(seq), mac=mac)])) == ["unwraps_altered"]


# ------------------------------------------------------------------------------------------------------------- receipts


@pytest.fixture
def handed(tmp_path: Path) -> Path:
    directory = tmp_path / "receipts"
    directory.mkdir()
    return directory


def read(world: World, directory: Path) -> list[HandedIn]:
    return receipts_in(directory, world.custodian.accounts.signing_key, world.chain.domain)


def test_receipts_that_agree_are_counted_in_either_form(busy: World, handed: Path) -> None:
    for number in range(3):
        release = busy.ask(busy.grant())
        text = release.receipt if number else json.dumps({"receipt": release.receipt, "jwe": "..."})
        (handed / f"{number}.txt").write_text(f"{text}\n")
    found = reconciled(busy, receipts=read(busy, handed))
    assert (codes(found), found.numbers["receipts"]) == ([], 3)


def forged(world: World, release: Release, **changes: Any) -> str:
    """Signed by the custodian, as a rogue one would: about an entry that never was."""
    claims = verify_claims(release.receipt, world.custodian.accounts.signing_key, RECEIPT_TYPE)
    claims["entry"] |= changes
    claims["entryHash"] = entry_hash_of(AccessEntry.from_json(claims["entry"]))
    return sign_claims(claims, world.custodian.accounts.signing_key, RECEIPT_TYPE)


def test_a_receipt_of_an_entry_that_is_not_on_chain_is_found(busy: World, handed: Path) -> None:
    release = busy.ask(busy.grant())
    (handed / "off-the-record").write_text(forged(busy, release, salt="0x" + "5a" * 32))
    found = reconciled(busy, receipts=read(busy, handed))
    assert codes(found) == ["receipt_not_on_chain"]
    assert "off-the-record" in found.findings[0].detail


@pytest.mark.parametrize("text", ["", "{", '{"receipt": 5}', "a.b.c", "\0", "[" * 10_000, '{"jwe": "x"}'], ids=range(7))
def test_what_is_no_receipt_is_said_to_be_none(busy: World, handed: Path, text: str) -> None:
    (handed / "odd").write_text(text)
    assert codes(reconciled(busy, receipts=read(busy, handed))) == ["receipt_invalid"]


def test_a_receipt_that_was_altered_or_is_of_another_custodian_is_no_receipt(
    busy: World, handed: Path, tmp_path: Path
) -> None:
    receipt = busy.ask(busy.grant()).receipt
    header, claims, signature = receipt.split(".")
    (handed / "altered").write_text(".".join((header, claims[:-2] + "AA", signature)))
    (one,) = read(busy, handed)
    assert one.invalid
    (handed / "altered").write_text(receipt)
    (one,) = receipts_in(handed, World(tmp_path / "other").custodian.accounts.signing_key, busy.chain.domain)
    assert one.invalid
    (one,) = receipts_in(handed, busy.custodian.accounts.signing_key, replace(busy.chain.domain, chain_id=1))
    assert one.invalid == "about another chain or contract"


def test_a_receipt_whose_release_was_deleted_from_the_journal_is_found(busy: World, handed: Path) -> None:
    (handed / "mine").write_text(busy.ask(busy.grant()).receipt)
    in_database(busy, "DELETE FROM releases WHERE release_id = ?", released(busy))
    found = codes(reconciled(busy, receipts=read(busy, handed)))
    assert found == ["entry_not_on_file", "receipt_not_on_file", "unexplained_unwrap"]


def test_a_receipt_for_what_the_journal_calls_aborted_is_found(busy: World, handed: Path) -> None:
    (handed / "mine").write_text(busy.ask(busy.grant()).receipt)
    gone = "UPDATE releases SET state = 'aborted', sealed = NULL, receipt_signature = NULL WHERE release_id = ?"
    in_database(busy, gone, released(busy))
    assert codes(reconciled(busy, receipts=read(busy, handed))) == ["receipt_not_on_file"]


def test_a_directory_of_receipts_that_is_not_there_is_no_empty_one(busy: World, tmp_path: Path) -> None:
    with pytest.raises(UnreadableFileError):
        read(busy, tmp_path / "nowhere")


# ----------------------------------------------------------------------------------------------------- the rules, alone

ROW: Final = OnFile(
    release_id=Hex32("0x" + "11" * 32),
    entry_hash=Hex32("0x" + "22" * 32),
    consent_id=Hex32("0x" + "33" * 32),
    state=journal.RELEASED,
    reached_log=True,
    answered=True,
    finished_at=1000,
    attributes=1,
    mark=None,
)


def entry(world: World, row: OnFile = ROW, **changes: Any) -> AuditedEntry:
    fields = {"consent_id": row.consent_id, "entry_hash": row.entry_hash} | changes
    return replace(entries_of(world)[0], **fields)


def judged(entries: Sequence[AuditedEntry], rows: Sequence[OnFile], gaps: Sequence[Gap] = (), **changes: Any) -> Any:
    counted = Counted(lines=(), gaps=tuple(gaps), altered=(), head=Head(seq=9, mac="0" * 32))
    sides = Sides(entries=entries, on_file=rows, counted=counted, since=0)
    return reconcile.reconcile(replace(sides, **changes), [PROVEN])


def test_an_entry_that_stands_on_the_log_twice_is_found(busy: World) -> None:
    assert "double_entry" in codes(judged([entry(busy)] * 2, [ROW]))


def test_an_entry_that_was_refused_where_its_batch_moved_to_and_came_back_late_stands_once(busy: World) -> None:
    late = entry(busy, late=True, reason=Reason.REVOKED)
    refused = replace(late, late=False, log_index=99)
    for both in ([refused, late], [late, refused]):
        assert "double_entry" not in codes(judged(both, [ROW]))
        assert codes(judged(both, [ROW])) == codes(judged([late], [ROW]))
    # A refusal for each of two, and nothing let out, is still twice.
    assert "double_entry" in codes(judged([refused, replace(refused, log_index=98)], [ROW]))


def test_what_was_released_before_unwraps_were_counted_is_explained_and_nothing_later(busy: World) -> None:
    assert judged([entry(busy)], [ROW], since=1001).numbers == {"released": 1, "before_counting": 1}
    assert codes(judged([entry(busy)], [ROW], since=1000)) == ["uncounted_release"]


def test_lines_that_went_down_with_the_machine_explain_its_last_seconds_only(busy: World) -> None:
    stop = Gap(seq=4, number=0, after=100, before=2000, machine_stopped=True)
    early = replace(ROW, release_id=Hex32("0x" + "44" * 32), entry_hash=Hex32("0x" + "55" * 32), finished_at=900)
    both = [entry(busy), entry(busy, early)]
    found = judged(both, [ROW, early], [stop])
    assert codes(found) == ["uncounted_release"]
    assert found.numbers["lost_with_machine"] == 1
    cut = replace(stop, machine_stopped=False, number=1)
    assert codes(judged([entry(busy)], [ROW], [cut])) == ["uncounted_release", "unwraps_cut"]
    over = replace(stop, before=999)
    assert codes(judged([entry(busy)], [ROW], [over])) == ["uncounted_release"]


def test_an_access_by_order_is_one_on_both_sides_or_a_finding(busy: World) -> None:
    ordered = replace(ROW, ordered=True)
    compelled = entry(busy, reason=Reason.COMPELLED)
    early: dict[str, Any] = {"since": 2000}
    assert judged([compelled], [ordered], **early).numbers == {"ordered": 1, "before_counting": 1}
    assert codes(judged([compelled], [ROW], **early)) == ["row_altered"]
    assert codes(judged([entry(busy)], [ordered], **early)) == ["row_altered"]


def test_what_could_not_be_checked_is_never_clean(world: World) -> None:
    sides = sides_of(books(world), list)
    assert reconcile.reconcile(sides, [replace(PROVEN, holds=None)]).verdict is Verdict.UNVERIFIED
    assert reconcile.reconcile(sides, [replace(PROVEN, holds=False)]).verdict is Verdict.FINDINGS
    assert reconcile.reconcile(sides).verdict is Verdict.UNVERIFIED
    assert reconcile.reconcile(sides, [PROVEN]).verdict is Verdict.CLEAN


def test_a_chain_that_could_not_be_read_makes_no_differences_of_its_own(busy: World) -> None:
    sides = sides_of(books(busy), list)
    found = reconcile.reconcile(sides, [replace(PROVEN, holds=None)])
    assert (found.verdict, found.findings, found.numbers) == (Verdict.UNVERIFIED, (), {})


def test_headers_that_were_left_out_leave_it_unverified_and_hide_no_difference(busy: World) -> None:
    left_out = Check(name="headers", holds=None, detail="only those with events")
    sides = sides_of(books(busy), lambda: entries_of(busy))
    found = reconcile.reconcile(sides, [left_out, PROVEN])
    assert (found.verdict, found.findings, found.numbers["released"]) == (Verdict.UNVERIFIED, (), 4)
    row = next(row for row in busy.custodian.journal.history() if row.state == journal.RELEASED)
    less = replace(sides, entries=[one for one in sides.entries if one.entry_hash != row.entry_hash])
    assert reconcile.reconcile(less, [left_out, PROVEN]).verdict is Verdict.FINDINGS
    # An endpoint that fell silent at the headers showed nothing.
    assert reconcile.reconcile(less, [PROVEN, left_out]).findings == ()


def test_its_words_for_states_are_those_of_the_journal() -> None:
    names = ("INTENT", "RECORDED", "RELEASED", "REFUSED", "ABORTED")
    assert [getattr(reconcile, name) for name in names] == [getattr(journal, name) for name in names]


def test_a_report_names_every_difference_in_a_line_and_in_json(busy: World) -> None:
    in_database(busy, "DELETE FROM releases WHERE release_id = ?", released_of(busy, journal.RELEASED))
    found = reconciled(busy)
    (first, second) = differences_of(found.findings)
    assert first.startswith("entry_not_on_file: ")
    assert second.startswith("unexplained_unwrap: ")
    fields = json.loads(json.dumps(found.as_json()))
    assert (fields["verdict"], fields["differences"]) == (
        "findings",
        {"entry_not_on_file": 1, "unexplained_unwrap": 1},
    )
    assert fields["unwrapsEnd"] == found.end
