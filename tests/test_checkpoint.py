"""Checkpoints: signed as other tools verify them, compared so that a split view shows, and never taken back."""

from __future__ import annotations

import base64
import json
import multiprocessing
import stat
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.audit_report import AuditedBlock, AuditReport, Check, Finding, LogSummary
from ledger.checkpoint import (
    Checkpoint,
    checkpoint_of,
    compare,
    compare_all,
    is_decided,
    open_checkpoint,
    parse_checkpoint,
)
from ledger.consent import ZERO32, Address, Domain, Hex32
from ledger.errors import (
    AlreadyExistsError,
    AuditError,
    CheckpointInconsistentError,
    KeyFileError,
    LedgerError,
    MalformedError,
    SplitViewError,
)
from ledger.signed_note import NoteKey, NoteSigner, open_note
from ledger.witness import Witness, new_signer, read_signer

DOMAIN: Final = Domain(chain_id=31337, contract=Address("0x5FbDB2315678afecb367f032d93F642f64180aa3"))
CUSTODIAN: Final = Address("0x70997970C51812dc3A010C7d01b50e0d17dc79C8")
WRITERS: Final = (
    Address("0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"),
    Address("0x90F79bf6EB2c4f870365E785982E1f101E93b906"),
)
ALICE: Final = NoteSigner("alice.example", b"a" * 32)
BOB: Final = NoteSigner("bob.example/audits", b"b" * 32)


def word(name: str) -> Hex32:
    return Hex32("0x" + (name.encode().hex() + "0" * 64)[:64])


def seen(
    block: int = 42, sizes: tuple[int, int] = (5, 2), *, block_hash: str | None = None, view: str = "h"
) -> Checkpoint:
    """A checkpoint of one history; another `view` has other heads."""
    return Checkpoint(
        domain=DOMAIN,
        block_number=block,
        block_hash=word(block_hash or f"block {block}"),
        timestamp=1_764_000_000 + block,
        logs={
            (CUSTODIAN, writer): (size, word(f"{view}{number} {size}") if size else ZERO32)
            for number, (writer, size) in enumerate(zip(WRITERS, sizes, strict=True))
        },
    )


def report(checkpoint: Checkpoint, **changes: Any) -> AuditReport:
    fields: dict[str, Any] = {
        "domain": checkpoint.domain,
        "block": AuditedBlock(
            number=checkpoint.block_number, block_hash=checkpoint.block_hash, timestamp=checkpoint.timestamp, given=True
        ),
        "endpoints": ("http://node.example",),
        "made_at": 1_764_100_000,
        "checks": (Check(name="state", holds=True, detail="the storage root is the replayed one"),),
        "logs": tuple(
            LogSummary(custodian=log[0], writer=log[1], allowed=True, size=size, head=head, batches=1, last_at=None)
            for log, (size, head) in checkpoint.logs.items()
        ),
    }
    return AuditReport(**fields | changes)


# ------------------------------------------------------------------------------------------------------- signed notes


GO_SIGNER: Final = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
GO_KEY: Final = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_TEXT: Final = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
GO_NOTE: Final = (
    f"{GO_TEXT}\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
"""The known answer in the documentation of golang.org/x/mod/sumdb/note."""


def test_keys_and_notes_are_those_of_the_go_implementation_byte_for_byte() -> None:
    signer = NoteSigner.parse(GO_SIGNER)
    assert (str(signer), str(signer.key)) == (GO_SIGNER, GO_KEY)
    assert signer.sign(GO_TEXT) == GO_NOTE
    assert open_note(GO_NOTE, [NoteKey.parse(GO_KEY)]).text == GO_TEXT


def test_openssl_verifies_a_checkpoint(tmp_path: Path) -> None:
    text, _, line = ALICE.sign(seen().text()).rpartition("\n\n")
    (tmp_path / "text").write_text(f"{text}\n")
    (tmp_path / "signature").write_bytes(base64.b64decode(line.split(" ")[2])[4:])
    # SubjectPublicKeyInfo of an Ed25519 key (RFC 8410): 12 bytes that never change, then the key.
    (tmp_path / "key").write_bytes(bytes.fromhex("302a300506032b6570032100") + ALICE.key.public)
    command = "openssl pkeyutl -verify -pubin -keyform DER -inkey key -rawin -in text -sigfile signature"
    good = subprocess.run(command.split(), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert good.returncode == 0, good.stderr
    (tmp_path / "text").write_text(f"{text} \n")
    assert subprocess.run(command.split(), cwd=tmp_path, capture_output=True, check=False).returncode != 0


@pytest.mark.parametrize(
    "change",
    [
        lambda note: note.replace("43", "44", 1),
        lambda note: note.replace(" 5 ", " 6 ", 1),
        lambda note: note.replace("\n\n", "\nlog x\n\n"),
        lambda note: note.removesuffix("\n"),
        lambda note: note + "\n",
        lambda note: note.replace("— ", "- "),
        lambda note: note.replace("alice.example", "mallory.example"),
        lambda note: note.rpartition("\n\n")[0] + "\n\n",
        lambda note: note.replace("\n", "\r\n"),
        lambda _: "",
    ],
)
def test_a_note_that_was_altered_does_not_open(change: Callable[[str], str]) -> None:
    with pytest.raises(AuditError):
        open_note(change(ALICE.sign(seen().text())), [ALICE.key])


def test_a_known_key_with_a_wrong_signature_spoils_the_note_even_if_others_are_right() -> None:
    note = ALICE.cosign(BOB.sign(seen().text()))
    text, _, lines = note.rpartition("\n\n")
    forged = ALICE.sign("something else\n").splitlines()[-1]
    with pytest.raises(AuditError, match="alice"):
        open_note(f"{text}\n\n{lines.splitlines()[0]}\n{forged}\n", [ALICE.key, BOB.key])


def test_signatures_are_counted_by_key_and_a_quorum_is_a_quorum() -> None:
    note = BOB.cosign(ALICE.sign(seen().text()))
    assert {key.name for key in open_note(note, [ALICE.key, BOB.key], quorum=2).signed_by} == {ALICE.name, BOB.name}
    # Signing again adds no signature; one key under two names is one.
    assert BOB.cosign(note).count("\n— ") == 2
    twice = NoteSigner("other.example", ALICE.seed)
    with pytest.raises(AuditError, match="1 of the 2"):
        open_note(twice.cosign(ALICE.sign(seen().text())), [ALICE.key, twice.key], quorum=2)
    with pytest.raises(AuditError, match="1 of the 2"):
        open_note(ALICE.sign(seen().text()), [ALICE.key, BOB.key], quorum=2)
    for quorum in (0, 3):
        with pytest.raises(MalformedError):
            open_note(note, [ALICE.key, BOB.key], quorum=quorum)


@pytest.mark.parametrize("at", range(0, len(GO_KEY), 3))
def test_a_key_with_a_slip_of_the_pen_is_none(at: int) -> None:
    slipped = GO_KEY[:at] + chr(ord(GO_KEY[at]) + 1) + GO_KEY[at + 1 :]
    with pytest.raises(MalformedError):
        NoteKey.parse(slipped)


def test_a_private_key_is_not_repeated_when_it_does_not_parse_nor_when_it_is_shown() -> None:
    with pytest.raises(KeyFileError) as refused:
        NoteSigner.parse(GO_SIGNER[:-4])
    assert "AYEK" not in str(refused.value)
    assert "seed" not in repr(NoteSigner.parse(GO_SIGNER))


# ----------------------------------------------------------------------------------------------------------- the format


def test_a_checkpoint_reads_as_it_is_documented() -> None:
    root = base64.b64encode(bytes.fromhex(seen().block_hash[2:])).decode()
    assert seen().text().splitlines() == [
        "consent-ledger/31337/0x5FbDB2315678afecb367f032d93F642f64180aa3",
        "43",
        root,
        "version 1",
        "time 1764000042",
        f"log {CUSTODIAN} {WRITERS[0]} 5 {word('h0 5')}",
        f"log {CUSTODIAN} {WRITERS[1]} 2 {word('h1 2')}",
    ]


words: Final = st.binary(min_size=32, max_size=32).map(lambda raw: Hex32("0x" + raw.hex()))


@given(
    st.integers(0, 10**12),
    words,
    st.dictionaries(st.sampled_from(WRITERS), st.tuples(st.integers(0, 10**12), words)),
    st.dictionaries(st.sampled_from(["late", "daily_limit_exceeded"]), st.integers(1, 99)),
)
def test_a_checkpoint_is_read_back_as_it_was_written(
    number: int, block_hash: Hex32, logs: dict[Address, tuple[int, Hex32]], findings: dict[str, int]
) -> None:
    made = Checkpoint(
        domain=DOMAIN,
        block_number=number,
        block_hash=block_hash,
        timestamp=1,
        logs={(CUSTODIAN, writer): log for writer, log in logs.items()},
        findings=findings,
    )
    assert parse_checkpoint(made.text()) == made


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("consent-ledger/", "consent-ledger//"),
        lambda text: text.replace("0x5FbDB", "0x5FBDB"),
        lambda text: text.replace("\n43\n", "\n043\n"),
        lambda text: text.replace("\n43\n", "\n0\n"),
        lambda text: text.replace("version 1", "version 2"),
        lambda text: text.replace("time ", "time  "),
        lambda text: text.replace("log ", "entry "),
        lambda text: "".join(sorted(text.splitlines(keepends=True))),
        lambda text: text + text.splitlines()[-1] + "\n",
        lambda text: text + "finding late 1\nfinding late 2\n",
        lambda text: text + "finding \n",
        lambda text: text.removesuffix("\n"),
        lambda text: text.replace("\nlog", "\n\nlog", 1),
        lambda text: text.lower(),
        lambda text: "\n".join(text.splitlines()[:4]) + "\n",
        lambda _: "",
    ],
)
def test_a_checkpoint_that_can_be_written_in_another_way_is_none(change: Callable[[str], str]) -> None:
    with pytest.raises(AuditError):
        parse_checkpoint(change(seen().text()))


# --------------------------------------------------------------------------------------------- only of what was checked


def test_a_clean_audit_makes_the_checkpoint() -> None:
    assert checkpoint_of(report(seen())) == seen()


@pytest.mark.parametrize(
    "changes",
    [
        {"block": None},
        {"checks": ()},
        {"checks": (Check(name="state", holds=None, detail="the endpoint did not answer"),)},
        {"checks": (Check(name="state", holds=False, detail="another root"),)},
        {"findings": (Finding(code="log_gap", detail="an entry is missing"),)},
        {"finding_counts": {"log_gap": 2}},
        {"finding_counts": {"late": 1, "log_gap": 2}},
    ],
)
def test_an_audit_that_is_not_clean_makes_none(changes: dict[str, Any]) -> None:
    with pytest.raises(AuditError, match="clean"):
        checkpoint_of(report(seen(), **changes), despite=["late"])


def test_what_is_known_and_signed_all_the_same_stands_in_the_checkpoint() -> None:
    late = report(seen(), finding_counts={"late": 3})
    with pytest.raises(AuditError, match="late"):
        checkpoint_of(late)
    assert checkpoint_of(late, despite=["late"]).text().endswith("finding late 3\n")


# ------------------------------------------------------------------------------------------------------------ comparing


def codes(first: Checkpoint, second: Checkpoint) -> list[str]:
    found = [finding.code for finding in compare(first, second)]
    assert found == [finding.code for finding in compare(second, first)]
    return found


def test_one_history_seen_twice_agrees() -> None:
    assert codes(seen(), seen()) == []
    assert codes(seen(), seen(50, (9, 2))) == []
    assert codes(seen(), replace(seen(), findings={"late": 1})) == []
    assert is_decided(seen(), seen())
    assert not is_decided(seen(), seen(50, (9, 2)))


def test_two_hashes_of_one_block_are_a_split_view() -> None:
    assert codes(seen(), seen(block_hash="another block")) == ["split_view"]


def test_two_heads_at_one_size_are_a_split_view_at_whatever_blocks_they_were_seen() -> None:
    assert codes(seen(), seen(50, view="g")) == ["split_view", "split_view"]
    assert codes(seen(), seen(50, (5, 9), view="g")) == ["split_view"]


def test_one_block_cannot_have_two_sizes_of_a_log() -> None:
    assert codes(seen(), seen(sizes=(5, 3))) == ["split_view"]
    without = replace(seen(), logs={log: seen().logs[log] for log in list(seen().logs)[:1]})
    assert codes(seen(), without) == ["split_view"]


def test_a_log_that_shrank_or_vanished_is_inconsistent() -> None:
    assert codes(seen(), seen(50, (4, 2))) == ["checkpoint_inconsistent"]
    assert codes(seen(), seen(50, (5, 0))) == ["checkpoint_inconsistent"]
    assert codes(seen(), replace(seen(50), logs={})) == ["checkpoint_inconsistent"] * 2
    assert codes(seen(), replace(seen(50), timestamp=1)) == ["checkpoint_inconsistent"]


def test_checkpoints_of_two_contracts_cannot_be_compared() -> None:
    with pytest.raises(AuditError, match="not of one contract"):
        compare(seen(), replace(seen(), domain=replace(DOMAIN, chain_id=1)))


def test_one_of_three_witnesses_who_was_shown_something_else_stands_out() -> None:
    found = compare_all([seen(), seen(50, (9, 2)), seen(50, (9, 2), view="g")])
    assert {finding.code for finding in found} == {"split_view"}
    assert compare_all([seen(), seen(50, (9, 2)), seen(60, (9, 3))]) == []


# ------------------------------------------------------------------------------------------------------------ witnesses


@pytest.fixture
def witness(tmp_path: Path) -> Witness:
    return Witness(BOB, tmp_path)


def test_a_witness_remembers_what_it_signed_before_it_hands_out_the_signature(witness: Witness, tmp_path: Path) -> None:
    note = witness.sign(seen(), follows=None, note=ALICE.sign(seen().text()), first=True)
    assert open_checkpoint(note, [ALICE.key, BOB.key], quorum=2)[0] == seen()
    assert Witness(BOB, tmp_path).last(DOMAIN) == seen()
    assert witness.sign(seen(50, (9, 2)), follows=seen())
    assert Witness(BOB, tmp_path).last(DOMAIN) == seen(50, (9, 2))


def test_nothing_is_signed_that_could_not_be_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ledger.private_files.os.fsync", full)
    with pytest.raises(OSError, match="space"):
        Witness(BOB, tmp_path).sign(seen(), follows=None, first=True)
    assert Witness(BOB, tmp_path).last(DOMAIN) is None


@pytest.mark.parametrize(
    ("next_one", "error"),
    [
        (seen(41), CheckpointInconsistentError),
        (seen(41, (4, 2)), CheckpointInconsistentError),
        (seen(block_hash="another block"), SplitViewError),
        (seen(50, (5, 9), view="g"), SplitViewError),
        (seen(50, (4, 2)), CheckpointInconsistentError),
    ],
)
def test_a_witness_does_not_go_back_nor_to_another_history(
    witness: Witness, next_one: Checkpoint, error: type[LedgerError]
) -> None:
    witness.sign(seen(), follows=None, first=True)
    with pytest.raises(error):
        witness.sign(next_one, follows=seen())
    assert witness.last(DOMAIN) == seen()


def test_a_witness_signs_nothing_that_was_not_shown_to_follow(witness: Witness) -> None:
    witness.sign(seen(), follows=None, first=True)
    for follows in (None, seen(41), seen(50, (9, 2))):
        with pytest.raises(AuditError, match="follow"):
            witness.sign(seen(50, (9, 2)), follows=follows, first=True)


def test_a_witness_that_lost_its_memory_does_not_begin_anew_by_itself(witness: Witness, tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="first time"):
        witness.sign(seen(), follows=None)
    witness.sign(seen(), follows=None, first=True)
    next(tmp_path.glob("*.note")).unlink()
    with pytest.raises(AuditError, match="is gone"):
        witness.sign(seen(50), follows=None)


def test_a_memory_that_was_altered_or_is_of_another_contract_is_not_believed(witness: Witness, tmp_path: Path) -> None:
    witness.sign(seen(), follows=None, first=True)
    (file,) = tmp_path.glob("*.note")
    kept = file.read_text()
    for forged in (kept.replace("\n43\n", "\n40\n"), ALICE.sign(seen(40).text()), "", "\xff"):
        file.write_text(forged)
        with pytest.raises(AuditError):
            witness.last(DOMAIN)
    file.write_text(BOB.sign(replace(seen(), domain=replace(DOMAIN, chain_id=1)).text()))
    with pytest.raises(AuditError, match="another contract"):
        witness.last(DOMAIN)


def test_a_signature_is_not_given_to_a_note_that_says_something_else(witness: Witness) -> None:
    other = ALICE.sign(seen(50, (9, 2)).text())
    note = witness.sign(seen(), follows=None, note=ALICE.sign(seen().text()), first=True)
    assert open_checkpoint(note, [BOB.key])[0] == seen()
    with pytest.raises(AuditError, match="something else"):
        witness.sign(seen(), follows=seen(), note=other)


def sign_in_a_process(memory: Path, block: int, queue: Any) -> None:
    try:
        Witness(BOB, memory).sign(seen(block, view=str(block)), follows=None, first=True)
    except AuditError:
        queue.put(None)
    else:
        queue.put(block)


def test_two_processes_of_one_witness_do_not_sign_two_histories(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=sign_in_a_process, args=(tmp_path, block, queue)) for block in range(42, 46)]
    for process in processes:
        process.start()
    signed = [queue.get(timeout=30) for _ in processes]
    for process in processes:
        process.join()
    (only,) = [block for block in signed if block is not None]
    assert Witness(BOB, tmp_path).last(DOMAIN) == seen(only, view=str(only))


def test_a_key_file_is_private_made_once_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "auditor.key"
    signer = new_signer("auditor.example", path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_signer(path) == signer
    with pytest.raises(AlreadyExistsError):
        new_signer("auditor.example", path)
    path.chmod(0o644)
    with pytest.raises(KeyFileError, match="chmod"):
        read_signer(path)
    for name in ("", "two words", "a+b", "zwei\n"):
        with pytest.raises(MalformedError):
            new_signer(name, tmp_path / "none.key")
    with pytest.raises(KeyFileError):
        new_signer("a", path / "none.key")
    with pytest.raises(KeyFileError):
        read_signer(tmp_path / "none.key")
    path.chmod(0o600)
    path.write_text(json.dumps({}))
    with pytest.raises(KeyFileError):
        read_signer(path)
