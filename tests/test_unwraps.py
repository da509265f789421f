"""The journal of unwraps: written before the key is used, by all processes, and nobody changes it unseen."""

from __future__ import annotations

import ast
import fcntl
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest
from actors import VALUES, World

from ledger import unwrap_file
from ledger.envelope import (
    COMPARISON,
    OPENING,
    OWN_VIEW,
    RELEASE,
    RELEASE_RESUMED,
    ROTATION,
    TRIAL,
    Use,
    WrappedKey,
    open_envelope,
    seal,
)
from ledger.errors import KeyUnavailableError, UnwrapsError
from ledger.keys import KeyFile
from ledger.unwrap_file import Entry, UnwrapFile, head_path
from ledger.unwraps import START, Counted, Head, read_unwraps
from ledger.vault import NewRecord

ROOT: Final = Path(__file__).parent.parent
DEK: Final = bytes(range(32))
KEY: Final = b"k" * 32
RELEASE_ID: Final = "0x" + "ab" * 32
OTHER_ID: Final = "0x" + "cd" * 32


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "unwraps.log"


def read(path: Path, key: bytes = KEY, *, known: tuple[Head, ...] = ()) -> Counted:
    head = head_path(path)
    content = path.read_bytes().decode("ascii", "replace") if path.exists() else ""
    return read_unwraps(content, head.read_text("ascii") if head.exists() else None, key, known=known)


def opened(path: Path) -> UnwrapFile:
    return UnwrapFile(path, KEY, clock=lambda: 1_764_000_000)


def uses(path: Path) -> dict[str, int]:
    found = read(path)
    assert (found.altered, found.gaps) == ((), ())
    return found.by_use()


# ------------------------------------------------------------------------------------------------------------- counting


def test_what_is_written_is_read_and_ends_where_it_says(path: Path) -> None:
    file = opened(path)
    file.write([Entry("release", RELEASE_ID, 3, "kek-1:" + "0f" * 16), Entry("own-view", "-", 4)])
    file.write([Entry("comparison", "-", 1)])
    found = read(path)
    assert [(line.seq, line.use, line.about, line.number) for line in found.lines[1:]] == [
        (2, "release", RELEASE_ID, 3),
        (3, "own-view", "-", 4),
        (4, "comparison", "-", 1),
    ]
    assert found.lines[0].use == START
    assert (found.altered, found.gaps, found.head.seq) == ((), (), 4)
    assert (path.stat().st_mode & 0o777, head_path(path).stat().st_mode & 0o777) == (0o600, 0o600)


def test_a_journal_that_was_never_begun_is_empty(path: Path) -> None:
    assert read(path) == Counted(lines=(), gaps=(), altered=(), head=Head(seq=0, mac="0" * 32))


def test_what_is_opened_often_is_counted_ahead_and_the_rest_given_back(path: Path) -> None:
    file = opened(path)
    for _ in range(100):
        file.tally("opening")
    assert uses(path)["opening"] >= 100
    assert len(read(path).lines) < 8
    file.close()
    assert uses(path)["opening"] == 100


def test_a_process_that_dies_leaves_a_number_that_is_too_high_and_never_one_that_is_too_low(path: Path) -> None:
    for _ in range(40):
        process = multiprocessing.get_context("fork").Process(target=tally_and_die, args=(path, random.randrange(60)))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert uses(path).get("opening", 0) >= int((path.parent / "done").stat().st_size)


def tally_and_die(path: Path, times: int) -> None:
    file = opened(path)
    done = os.open(path.parent / "done", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for _ in range(times):
        file.tally("opening")
        os.write(done, b".")
    os.kill(os.getpid(), signal.SIGKILL)


def write_many(path: Path, name: str, times: int) -> None:
    file = opened(path)
    for number in range(times):
        file.write([Entry(name, "-", 1)] * (1 + number % 3))
        file.tally("opening")
    file.close()


def test_processes_and_threads_at_once_lose_and_mix_no_line(path: Path) -> None:
    context = multiprocessing.get_context("fork")
    names = [f"use-{letter}" for letter in "abcd"]
    processes = [context.Process(target=write_many, args=(path, name, 150)) for name in names]
    for process in processes:
        process.start()
    mine = opened(path)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: mine.write([Entry("own-view", "-", 2)]), range(200)))
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert uses(path) == {"opening": 4 * 150, "own-view": 400, **dict.fromkeys(names, 300)}


def test_a_forked_child_does_not_use_up_what_its_parent_counted_ahead(path: Path) -> None:
    file = opened(path)
    file.tally("opening")

    def tally() -> None:
        for _ in range(10):
            file.tally("opening")
        file.close()
        os._exit(0)

    child = multiprocessing.get_context("fork").Process(target=tally)
    child.start()
    child.join()
    file.close()
    assert uses(path) == {"opening": 11}


def test_a_writer_that_is_killed_at_any_moment_leaves_a_journal_that_reads_and_goes_on(path: Path) -> None:
    context = multiprocessing.get_context("fork")
    for _ in range(12):
        process = context.Process(target=write_many, args=(path, "own-view", 10**9))
        process.start()
        process.join(random.uniform(0.01, 0.05))
        process.kill()
        process.join()
        assert read(path).altered == ()
        assert read(path).gaps == ()
    write_many(path, "comparison", 3)
    assert uses(path)["comparison"] == 6


@pytest.mark.parametrize("is_running", [True, False])
def test_a_line_that_a_killed_process_did_not_finish_is_no_line_and_no_reproach(path: Path, is_running: bool) -> None:
    file = opened(path)
    file.write([Entry("own-view", "-", 1)])
    with path.open("a") as torn:
        torn.write("1 3 17640")
    assert (read(path).altered, read(path).gaps) == ((), ())
    if not is_running:
        file = opened(path)
    file.write([Entry("comparison", "-", 1)])
    assert (read(path).altered, read(path).gaps) == ((), ())
    assert uses(path) == {"own-view": 1, "comparison": 1}


def test_nothing_is_counted_half_when_the_disk_is_full(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = opened(path)
    file.write([Entry("own-view", "-", 1)])
    really_write = os.write
    monkeypatch.setattr(os, "write", lambda to, data: really_write(to, data[:20]))
    with pytest.raises(UnwrapsError, match="whole"):
        file.write([Entry("release", RELEASE_ID, 1)])

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(UnwrapsError, match="No space"):
        file.write([Entry("release", RELEASE_ID, 1)])
    monkeypatch.undo()
    file.write([Entry("comparison", "-", 1)])
    assert uses(path) == {"own-view": 1, "comparison": 1}


def test_a_journal_that_did_not_open_is_an_error_each_time_and_opens_once_it_can(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = opened(path)
    really_open, held = os.open, []

    def open_all_but_the_head(name: Path, *how: int) -> int:
        if name == head_path(path):
            raise OSError(24, "Too many open files")
        held.append(really_open(name, *how))
        return held[-1]

    monkeypatch.setattr(os, "open", open_all_but_the_head)
    for _ in range(2):
        with pytest.raises(UnwrapsError, match="Too many"):
            file.write([Entry("own-view", "-", 1)])
    monkeypatch.undo()
    for descriptor in held:
        # It was given back.
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
    file.write([Entry("own-view", "-", 1)])
    file.close()
    assert uses(path) == {"own-view": 1}


def test_a_process_that_keeps_the_lock_stops_unwrapping_and_not_the_count(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(path).write([Entry("own-view", "-", 1)])
    monkeypatch.setattr(unwrap_file, "LOCK_SECONDS", 0.05)
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(UnwrapsError, match="another process"):
            opened(path).write([Entry("own-view", "-", 1)])


# ----------------------------------------------------------------------------------------------------------- tampering


@pytest.fixture
def written(path: Path) -> Path:
    """Two processes' lines, of which the second joins while the first is at work."""
    first, second = opened(path), opened(path)
    for number in range(8):
        first.write([Entry("release", RELEASE_ID, 1 + number)])
        second.write([Entry("own-view", "-", 1)])
    return path


def altered(path: Path, change: Callable[[list[str]], Any]) -> Counted:
    lines = path.read_text("ascii").splitlines()
    changed = change(lines)
    lines = changed if isinstance(changed, list) else lines
    path.write_text("".join(f"{line}\n" for line in lines), "ascii")
    return read(path)


def test_any_byte_of_the_journal_that_is_changed_is_noticed(written: Path) -> None:
    content = written.read_bytes()
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1
        written.write_bytes(bytes(changed))
        found = read(written)
        assert found.altered or found.gaps, place
    written.write_bytes(content)
    assert uses(written)


def test_any_line_that_is_taken_out_doubled_or_moved_is_noticed(written: Path) -> None:
    lines = written.read_text("ascii").splitlines()
    for place in range(len(lines)):
        for changed in (
            lines[:place] + lines[place + 1 :],
            lines[: place + 1] + lines[place:],
            lines[:place] + lines[place + 1 : place + 2] + lines[place : place + 1] + lines[place + 2 :],
            lines[:place],
            lines[place:],
        ):
            if changed == lines:
                continue
            written.write_text("".join(f"{line}\n" for line in changed), "ascii")
            found = read(written)
            assert found.altered or found.gaps, place


def test_a_line_that_was_edited_is_named_and_the_others_still_count(written: Path) -> None:
    found = altered(written, lambda lines: lines.__setitem__(4, lines[4].replace(RELEASE_ID, OTHER_ID)))
    assert found.altered == ("line 5 is not as it was written, or not where it was",)
    assert len(found.lines) == 17


def test_a_tail_that_was_cut_is_a_gap_and_stays_one_when_the_service_starts_again(written: Path) -> None:
    found = altered(written, lambda lines: lines[:-3])
    assert [(gap.seq, gap.number, gap.machine_stopped) for gap in found.gaps] == [(15, 3, False)]
    opened(written).write([Entry("own-view", "-", 1)])
    found = read(written)
    assert [(gap.seq, gap.number, gap.machine_stopped) for gap in found.gaps] == [(15, 3, False)]
    assert found.altered == ()


def test_a_tail_that_went_with_the_machine_says_so(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    altered(written, lambda lines: lines[:-3])
    with written.open("a") as file:
        file.write("1 16 17640")
    monkeypatch.setattr(unwrap_file, "_boot", lambda: "ab" * 8)
    opened(written).write([Entry("own-view", "-", 1)])
    # Another process joins, and finds the end behind what was torn.
    opened(written).write([Entry("own-view", "-", 1)])
    found = read(written)
    assert [(gap.seq, gap.number, gap.machine_stopped) for gap in found.gaps] == [(15, 3, True)]
    assert found.altered == ()


def test_a_journal_that_is_cut_while_it_is_in_use_stops_every_unwrap(path: Path) -> None:
    file = opened(path)
    for _ in range(3):
        file.write([Entry("own-view", "-", 1)])
    for keep in (2, 0):
        lines = path.read_text("ascii").splitlines(keepends=True)
        path.write_text("".join(lines[:keep]), "ascii")
        with pytest.raises(UnwrapsError, match="altered"):
            file.write([Entry("own-view", "-", 1)])


def test_a_journal_that_is_cut_and_filled_up_while_it_is_in_use_stops_every_unwrap(path: Path) -> None:
    file = opened(path)
    for _ in range(3):
        file.write([Entry("own-view", "-", 1)])
    lines = path.read_text("ascii").splitlines(keepends=True)
    path.write_text("".join(lines[:2]) + "x" * 1000 + "\n", "ascii")
    with pytest.raises(UnwrapsError, match="altered"):
        file.write([Entry("own-view", "-", 1)])


@pytest.mark.parametrize("gone", ["log", "head", "both"])
def test_files_that_are_gone_are_missed(written: Path, gone: str) -> None:
    known = read(written).head
    if gone != "head":
        written.unlink()
    if gone != "log":
        head_path(written).unlink()
    now = read(written, known=(known,))
    assert now.altered or now.gaps
    opened(written).write([Entry("own-view", "-", 1)])
    later = read(written, known=(known,))
    # With both gone, only who knew it can tell; and whoever compares with what was released (test_reconcile.py).
    assert later.altered or later.gaps
    assert bool(read(written).altered or read(written).gaps) == (gone != "both")


def test_a_journal_that_was_put_back_whole_is_noticed_by_who_has_seen_a_later_end(written: Path) -> None:
    before = (written.read_bytes(), head_path(written).read_bytes())
    early = read(written).head
    opened(written).write([Entry("release", OTHER_ID, 1)])
    seen = read(written).head
    written.write_bytes(before[0])
    head_path(written).write_bytes(before[1])
    assert read(written, known=(early,)).altered == ()
    opened(written).write([Entry("own-view", "-", 1)])
    opened(written).write([Entry("own-view", "-", 1)])
    assert "known" in read(written, known=(early, seen)).altered[0]


def test_lines_and_ends_of_another_key_are_not_believed(written: Path, tmp_path: Path) -> None:
    assert read(written, b"x" * 32).altered
    other = UnwrapFile(tmp_path / "other.log", b"x" * 32, clock=lambda: 1)
    other.write([Entry("own-view", "-", 1)])
    head_path(written).write_bytes(head_path(tmp_path / "other.log").read_bytes())
    assert read(written).altered
    with written.open("ab") as file:
        file.write((tmp_path / "other.log").read_bytes())
    assert len(read(written).altered) >= 2


def test_more_cannot_be_given_back_than_was_counted(path: Path) -> None:
    file = opened(path)
    file.write([Entry("opening", "-", 5), Entry("opening", "-", -6)])
    assert "takes back" in read(path).altered[0]


# ----------------------------------------------------------------------------------------------------- the key service


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[KeyFile]:
    held = KeyFile.create(tmp_path / "keys" / "kek.json")
    yield held
    held.sync_unwraps(end=True)


def counted(keys: KeyFile) -> dict[str, int]:
    found = read(keys.unwraps_path, keys.unwraps_key().key)
    assert (found.altered, found.gaps) == ((), ())
    return found.by_use()


def test_every_unwrap_is_counted_under_its_use(keys: KeyFile) -> None:
    wrapped = keys.wrap(DEK)
    for use in (TRIAL, OWN_VIEW, Use(RELEASE, RELEASE_ID), OPENING):
        assert keys.unwrap(wrapped, use) == DEK
    keys.sync_unwraps(end=True)
    assert counted(keys) == {"trial": 1, "own-view": 1, "release": 1, "opening": 1}


def test_a_round_is_counted_by_one_write_and_each_envelope_once(keys: KeyFile, monkeypatch: pytest.MonkeyPatch) -> None:
    round_ = {Use(RELEASE, f"0x{number:064x}"): [keys.wrap(os.urandom(32)) for _ in range(3)] for number in range(100)}
    keys.unwrap(keys.wrap(DEK), TRIAL)
    writes: list[int] = []
    really_write = os.write

    def watched(to: int, data: bytes) -> int:
        writes.append(to)
        return really_write(to, data)

    monkeypatch.setattr(os, "write", watched)
    monkeypatch.setattr(os, "fdatasync", lambda _: pytest.fail("flushed"))
    with keys.counting(round_):
        for use, wrapped in round_.items():
            for key in wrapped:
                keys.unwrap(key, use)
    assert len(writes) == 1
    assert counted(keys)["release"] == 300
    # Once is once: in the block and after it.
    use, (key, *_) = next(iter(round_.items()))
    with keys.counting({use: [key]}):
        keys.unwrap(key, use)
        keys.unwrap(key, use)
    keys.unwrap(key, use)
    assert counted(keys)["release"] == 303


def test_another_envelope_than_those_that_were_counted_is_counted_for_itself(keys: KeyFile) -> None:
    mine, other = keys.wrap(DEK), keys.wrap(os.urandom(32))
    use = Use(RELEASE, RELEASE_ID)
    with keys.counting({use: [mine]}):
        keys.unwrap(other, use)
        keys.unwrap(mine, Use(RELEASE, OTHER_ID))
        keys.unwrap(mine, use)
    found = read(keys.unwraps_path, keys.unwraps_key().key)
    assert [(line.about, line.number, line.of) for line in found.lines[1:]] == [
        (RELEASE_ID, 1, keys.mark([mine])),
        (RELEASE_ID, 1, keys.mark([other])),
        (OTHER_ID, 1, keys.mark([mine])),
    ]


def test_what_cannot_be_counted_is_not_unwrapped(keys: KeyFile, monkeypatch: pytest.MonkeyPatch) -> None:
    wrapped = keys.wrap(DEK)
    monkeypatch.setattr("ledger.keys.aes_key_unwrap", lambda *_: pytest.fail("unwrapped"))
    keys.unwraps_path.mkdir()
    for use in (TRIAL, OPENING, Use(RELEASE, RELEASE_ID)):
        with pytest.raises(UnwrapsError):
            keys.unwrap(wrapped, use)
        with pytest.raises(UnwrapsError), keys.counting({use: [wrapped]}):
            pytest.fail("went on")


def test_the_line_is_on_file_before_the_key_is_unwrapped(keys: KeyFile) -> None:
    wrapped = keys.wrap(DEK)
    program = (
        "import os, signal, sys; from pathlib import Path; import ledger.keys; from ledger.envelope import *\n"
        "ledger.keys.aes_key_unwrap = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "keys = ledger.keys.KeyFile(Path(sys.argv[1]))\n"
        "keys.unwrap(WrappedKey(sys.argv[2], bytes.fromhex(sys.argv[3])), Use('release', sys.argv[4]))"
    )
    arguments = [str(keys.unwraps_path.with_name("kek.json")), wrapped.kek_id, wrapped.wrapped_dek.hex(), RELEASE_ID]
    killed = subprocess.run([sys.executable, "-c", program, *arguments], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert counted(keys) == {"release": 1}


def test_a_kek_that_is_not_here_opens_nothing_and_counts_nothing(keys: KeyFile) -> None:
    with pytest.raises(KeyUnavailableError):
        keys.unwrap(WrappedKey("kek-none", b"x" * 40), TRIAL)
    assert counted(keys) == {}


def test_what_names_the_envelopes_dies_with_their_kek(keys: KeyFile) -> None:
    wrapped = [keys.wrap(os.urandom(32)) for _ in range(3)]
    before = keys.mark(wrapped)
    assert before == keys.mark(wrapped[::-1]) != keys.mark(wrapped[:2])
    old = wrapped[0].kek_id
    keys.rotate()
    assert keys.mark(wrapped) == before
    assert keys.mark([*wrapped, keys.wrap(DEK)]) == "-"
    keys.destroy(old)
    assert keys.mark(wrapped) == "-"


def test_a_key_file_from_before_begins_to_count_and_says_since_when(tmp_path: Path) -> None:
    path = tmp_path / "kek.json"
    content = {"version": 1, "index_key": "cd" * 32, "active": "kek-1", "keks": {"kek-1": "ab" * 32}}
    path.write_text(json.dumps(content))
    path.chmod(0o600)
    keys = KeyFile(path, clock=lambda: 77)
    keys.unwrap(keys.wrap(DEK), TRIAL)
    assert keys.unwraps_key().since == 77
    assert KeyFile(path, clock=lambda: 99).unwraps_key() == keys.unwraps_key()
    assert keys.unwraps_key().key.hex() not in repr(keys.unwraps_key())
    assert counted(keys) == {"trial": 1}


# ---------------------------------------------------------------------------------------------------------- the service


def journal(world: World) -> Counted:
    keys = world.custodian.keys
    found = read(keys.unwraps_path, keys.unwraps_key().key)
    assert (found.altered, found.gaps) == ((), ())
    return found


def test_everything_that_opens_an_attribute_says_what_for(world: World) -> None:
    consent = world.grant(attributes=tuple(VALUES))
    world.ask(consent, attributes=tuple(VALUES))
    released = world.custodian.journal.history()[0].release_id
    subject_id = world.custodian.vault.subject_of(world.subject.ref)
    world.custodian.subject_data.attributes(subject_id)
    world.custodian.rotate_keys()
    found = journal(world)
    by_use = found.by_use()
    assert (by_use[RELEASE], by_use["own-view"]) == (len(VALUES), len(VALUES))
    assert by_use["rotation"] > len(VALUES)
    (line,) = [line for line in found.lines if line.use == RELEASE]
    assert line.about == released
    assert {line.about for line in found.lines if line.use not in (RELEASE, START)} == {"-"}


def test_the_journal_names_nobody_and_says_no_attribute(world: World) -> None:
    consent = world.grant()
    world.ask(consent)
    world.custodian.keys.sync_unwraps(end=True)
    content = world.custodian.keys.unwraps_path.read_text("ascii")
    subject_id = world.custodian.vault.subject_of(world.subject.ref)
    for told in (subject_id, world.subject.ref, consent, "credit", "loan", "bank", world.subject.address):
        assert str(told) not in content


def test_a_retry_after_a_crash_is_counted_as_what_it_is(world: World) -> None:
    consent = world.grant()

    def die() -> None:
        raise KeyboardInterrupt

    world.steps.at("6 unwraps counted", die)
    with pytest.raises(KeyboardInterrupt):
        world.ask(consent, key="once")
    world.restart()
    world.ask(consent, key="once")
    assert Counter(line.use for line in journal(world).lines if line.about.startswith("0x")) == {
        RELEASE: 1,
        RELEASE_RESUMED: 1,
    }


def test_a_rotation_counts_what_it_re_wraps_and_old_lines_still_read(world: World) -> None:
    consent = world.grant()
    world.ask(consent)
    before = journal(world)
    world.custodian.rotate_keys()
    world.ask(consent)
    after = journal(world)
    assert after.lines[: len(before.lines)] == before.lines
    assert len({line.of.split(":")[0] for line in after.lines if line.use == RELEASE}) == 2


OPENERS: Final = {
    "unwrap": {"ledger/envelope.py", "ledger/erase.py"},
    "open_envelope": {"ledger/vault.py", "ledger/demo.py"},
    "aes_key_unwrap": {"ledger/keys.py"},
}
"""Who may call what opens an envelope. Whoever comes to it says here that it is so, and for what use."""


def test_no_unwrap_goes_without_a_use() -> None:
    called: dict[str, set[str]] = {name: set() for name in OPENERS}
    for path in sorted([*(ROOT / "ledger").glob("*.py"), *(ROOT / "web").rglob("*.py")]):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in OPENERS:
                called[name].add(path.relative_to(ROOT).as_posix())
            if name in ("unwrap", "open_envelope"):
                given = ast.unparse(node.args[-1])
                assert given in ("use", "ROTATION", "TRIAL"), f"{path}: {ast.unparse(node)}"
    assert called == OPENERS


def test_attributes_are_opened_under_uses_for_attributes(world: World) -> None:
    (held,) = world.custodian.vault.find(world.custodian.vault.subject_of(world.subject.ref), ["savings"])
    counts = Counter(journal(world).by_use())
    vault = world.custodian.vault
    vault.open_to_compare(held)
    assert Counter(journal(world).by_use()) - counts == {COMPARISON.name: 1}
    offered = [NewRecord(subject_ref=world.subject.ref, attribute="savings", value=vault.open_to_compare(held))]
    with world.custodian.store.begin() as tx:
        assert vault.without_older(tx, offered) == offered
    assert Counter(journal(world).by_use()) - counts == {COMPARISON.name: 3}
    assert ROTATION not in (COMPARISON, OWN_VIEW)


def test_an_envelope_of_an_attribute_is_not_opened_by_the_wrong_context_uncounted(keys: KeyFile) -> None:
    envelope = seal(b"value", {"kind": "attribute"}, keys)
    with pytest.raises(Exception, match="open"):
        open_envelope(envelope, {"kind": "other"}, keys, TRIAL)
    assert counted(keys) == {"trial": 1}
