"""Key files: never overwritten, never readable by others, never half written, and never talked about."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ledger.accounts import WRITERS, Accounts, read_private_key
from ledger.envelope import TRIAL, WrappedKey, open_envelope, seal
from ledger.errors import AlreadyExistsError, IntegrityError, KeyFileError, KeyUnavailableError, LedgerError
from ledger.keys import LOOK_AGAIN_SECONDS, KeyFile
from ledger.private_files import write_private_file

CONTEXT = {"kind": "test"}
DEK = bytes(range(32))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys" / "kek.json"


@pytest.fixture
def keys(path: Path) -> KeyFile:
    return KeyFile.create(path)


def content_of(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def rewrite(path: Path, text: str | bytes) -> None:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(0o600)


def elsewhere(script: str, *args: object) -> str:
    """Runs Python in another process. Returns what it prints."""
    command = [sys.executable, "-c", script, *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip()


# -------------------------------------------------------------------------------------------------------- the file


@pytest.mark.parametrize("create", [KeyFile.create, Accounts.create])
def test_an_existing_file_is_never_overwritten(create: Callable[[Path], object], path: Path) -> None:
    create(path)
    before = path.read_bytes()
    with pytest.raises(AlreadyExistsError):
        create(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("create", [KeyFile.create, Accounts.create])
def test_file_and_directory_are_the_owners_alone_whatever_the_umask(
    create: Callable[[Path], object], path: Path
) -> None:
    before = os.umask(0)
    try:
        create(path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_rotation_keeps_the_file_the_owners_alone(keys: KeyFile, path: Path) -> None:
    before = os.umask(0)
    try:
        keys.rotate()
    finally:
        os.umask(before)
    assert {entry.stat().st_mode & 0o777 for entry in path.parent.iterdir()} == {0o600}


@pytest.mark.parametrize("load", [KeyFile, Accounts.load], ids=["keys", "accounts"])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o644, 0o666, 0o777])
def test_a_file_that_others_can_touch_is_refused(load: Callable[[Path], object], mode: int, path: Path) -> None:
    (KeyFile if load is KeyFile else Accounts).create(path)
    path.chmod(mode)
    with pytest.raises(KeyFileError, match="0600"):
        load(path)


@pytest.mark.parametrize("load", [KeyFile, Accounts.load, read_private_key], ids=["keys", "accounts", "private key"])
def test_a_missing_file_is_said_to_be_missing(load: Callable[[Path], object], path: Path) -> None:
    with pytest.raises(KeyFileError, match="no key file"):
        load(path)


def test_a_key_file_that_vanishes_while_in_use_is_noticed(
    keys: KeyFile, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.unlink()
    with pytest.raises(KeyFileError, match="no key file"):
        keys.rotate()
    monkeypatch.setattr("ledger.keys.LOOK_AGAIN_SECONDS", 0)
    with pytest.raises(KeyFileError, match="no key file"):
        keys.wrap(DEK)


def test_a_file_that_cannot_be_read_is_said_to_be_unreadable_and_why(path: Path) -> None:
    path.mkdir(mode=0o700, parents=True)
    with pytest.raises(KeyFileError, match="cannot be read as a key file: Is a directory"):
        KeyFile(path)
    with pytest.raises(KeyFileError, match="cannot be read as a key file: Not a directory"):
        Accounts.load(Path("/dev/null/accounts.json"))


KEK = "ab" * 32
GOOD: dict[str, Any] = {"version": 1, "index_key": "cd" * 32, "active": "kek-1", "keks": {"kek-1": KEK}}
GARBLED: dict[str, Any] = {
    "empty": "",
    "not JSON": "{",
    "not text": b"\xff\xfe\x00",
    "null": "null",
    "a list": "[]",
    "a number": "7",
    "deep": "[" * 50_000,
    "no version": {name: value for name, value in GOOD.items() if name != "version"},
    "version 0": GOOD | {"version": 0},
    "version 2": GOOD | {"version": 2},
    "version as text": GOOD | {"version": "1"},
    "no KEKs": GOOD | {"keks": {}},
    "KEKs no object": GOOD | {"keks": [KEK]},
    "KEKs null": GOOD | {"keks": None},
    "KEK no text": GOOD | {"keks": {"kek-1": 7}},
    "KEK not hex": GOOD | {"keks": {"kek-1": "zz" * 32}},
    "KEK too short": GOOD | {"keks": {"kek-1": "ab" * 16}},
    "another KEK too short": GOOD | {"keks": {"kek-1": KEK, "kek-2": "ab"}},
    "KEK too long": GOOD | {"keks": {"kek-1": "ab" * 33}},
    "active one missing": GOOD | {"active": "kek-2"},
    "active null": GOOD | {"active": None},
    "active a list": GOOD | {"active": []},
    "no active": {name: value for name, value in GOOD.items() if name != "active"},
    "no index key": {name: value for name, value in GOOD.items() if name != "index_key"},
    "index key too short": GOOD | {"index_key": "cd"},
    "index key null": GOOD | {"index_key": None},
}


@pytest.mark.parametrize("content", GARBLED.values(), ids=GARBLED)
def test_a_garbled_key_file_is_refused_and_its_content_not_repeated(content: Any, tmp_path: Path) -> None:
    path = tmp_path / "kek.json"
    rewrite(path, content if isinstance(content, str | bytes) else json.dumps(content))
    with pytest.raises(LedgerError) as caught:
        KeyFile(path)
    assert type(caught.value) is KeyFileError
    assert "abab" not in "".join(traceback.format_exception(caught.value))
    assert "cdcd" not in "".join(traceback.format_exception(caught.value))


def test_a_good_key_file_written_by_hand_is_read(tmp_path: Path) -> None:
    # The garbled ones above differ from this one, so they are refused for what is wrong with them.
    path = tmp_path / "kek.json"
    rewrite(path, json.dumps(GOOD))
    assert KeyFile(path).active_kek_id == "kek-1"


def test_a_key_file_garbled_while_in_use_is_refused_by_every_call(
    keys: KeyFile, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger.keys.LOOK_AGAIN_SECONDS", 0)
    rewrite(path, json.dumps({"version": 1}))
    calls: list[Callable[[], object]] = [
        lambda: keys.wrap(DEK),
        lambda: keys.active_kek_id,
        lambda: keys.kek_ids,
        keys.rotate,
        lambda: keys.destroy("kek-1"),
    ]
    for call in calls:
        with pytest.raises(KeyFileError):
            call()
    assert content_of(path) == {"version": 1}


# ------------------------------------------------------------------------------------------------------ wrap, unwrap


def test_a_wrapped_key_unwraps_to_itself_and_is_not_shown(keys: KeyFile) -> None:
    wrapped = keys.wrap(DEK)
    assert keys.unwrap(wrapped, TRIAL) == DEK
    assert wrapped.kek_id == keys.active_kek_id
    assert DEK not in wrapped.wrapped_dek


def test_every_key_file_has_keys_of_its_own(tmp_path: Path) -> None:
    one, other = KeyFile.create(tmp_path / "1.json"), KeyFile.create(tmp_path / "2.json")
    assert one.index("subject", "x") != other.index("subject", "x")
    with pytest.raises(KeyUnavailableError):
        other.unwrap(one.wrap(DEK), TRIAL)
    with pytest.raises(IntegrityError):
        other.unwrap(WrappedKey(other.active_kek_id, one.wrap(DEK).wrapped_dek), TRIAL)


def test_index_keeps_kinds_apart_and_stays_the_same_when_keys_are_rotated(keys: KeyFile, path: Path) -> None:
    before = keys.index("subject", "anna")
    assert before != keys.index("institution", "anna")
    assert before != keys.index("subject", "Anna")
    assert "anna" not in before
    keys.rotate()
    assert keys.index("subject", "anna") == KeyFile(path).index("subject", "anna") == before


# ----------------------------------------------------------------------------------------------------- rotate, destroy


def test_rotation_adds_a_key_and_the_old_one_still_opens(keys: KeyFile, path: Path) -> None:
    old = keys.wrap(DEK)
    active = keys.rotate()
    assert keys.active_kek_id == active != old.kek_id
    assert keys.wrap(DEK).kek_id == active
    assert keys.unwrap(old, TRIAL) == DEK
    assert KeyFile(path).kek_ids == keys.kek_ids == sorted([old.kek_id, active])


def test_a_destroyed_key_opens_nothing_ever_again(keys: KeyFile, path: Path) -> None:
    envelope = seal(b"gone", CONTEXT, keys)
    kek = content_of(path)["keks"][envelope.key.kek_id]
    keys.rotate()
    keys.destroy(envelope.key.kek_id)
    for holder in (keys, KeyFile(path)):
        with pytest.raises(KeyUnavailableError):
            open_envelope(envelope, CONTEXT, holder, TRIAL)
    assert all(kek.encode() not in entry.read_bytes() for entry in path.parent.iterdir())


def test_the_active_key_cannot_be_destroyed(keys: KeyFile, path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(KeyFileError, match="active"):
        keys.destroy(keys.active_kek_id)
    assert path.read_bytes() == before


def test_a_key_that_another_process_made_active_cannot_be_destroyed_by_one_that_has_not_looked(
    keys: KeyFile, path: Path
) -> None:
    active = KeyFile(path).rotate()
    with pytest.raises(KeyFileError, match="active"):
        keys.destroy(active)


def test_destroying_what_is_not_there_changes_nothing(keys: KeyFile) -> None:
    before = keys.kek_ids
    keys.destroy("kek-none")
    assert keys.kek_ids == before


def test_a_rotation_by_another_process_is_noticed(keys: KeyFile, path: Path) -> None:
    active = elsewhere(
        "import sys; from pathlib import Path; from ledger.keys import KeyFile\n"
        "print(KeyFile(Path(sys.argv[1])).rotate())",
        path,
    )
    assert keys.active_kek_id == active
    assert keys.wrap(DEK).kek_id == active


def test_a_destruction_by_another_process_is_noticed(keys: KeyFile, path: Path) -> None:
    old = keys.wrap(DEK)
    other = KeyFile(path)
    other.rotate()
    other.destroy(old.kek_id)
    assert old.kek_id not in keys.kek_ids
    with pytest.raises(KeyUnavailableError):
        keys.unwrap(old, TRIAL)


def test_a_process_that_only_writes_looks_for_a_new_key_again_within_a_second(
    keys: KeyFile, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    active = KeyFile(path).rotate()
    monkeypatch.setattr("time.monotonic", lambda real=time.monotonic: real() + LOOK_AGAIN_SECONDS)
    assert keys.wrap(DEK).kek_id == active


def test_a_rotation_within_the_same_tick_of_the_clock_is_noticed(keys: KeyFile, path: Path) -> None:
    before = path.stat()
    active = KeyFile(path).rotate()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert keys.active_kek_id == active


def test_rotations_at_once_lose_no_key(keys: KeyFile, path: Path) -> None:
    # Whoever rotated wraps under the new key at once: were it dropped, what it wrapped would be lost.
    def rotate(_: int) -> WrappedKey:
        mine = KeyFile(path)
        mine.rotate()
        return mine.wrap(DEK)

    with ThreadPoolExecutor(8) as pool:
        wrapped = list(pool.map(rotate, range(24)))
    assert len(keys.kek_ids) == 25
    assert [keys.unwrap(key, TRIAL) for key in wrapped] == [DEK] * 24


KILLED = """
import os, signal, sys
from pathlib import Path
import ledger.private_files
from ledger.keys import KeyFile

def die(*_args, **_kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

keys = KeyFile(Path(sys.argv[1]))
match sys.argv[2]:
    case "before the draft": ledger.private_files.write_private_file = die
    case "within the draft": os.fsync = die
    case "before the replacement": Path.replace = die
    case "after the replacement": os.open = (lambda real: lambda path, flags, *rest: (
        die() if flags == os.O_RDONLY else real(path, flags, *rest)))(os.open)
keys.rotate()
"""


@pytest.mark.parametrize(
    "moment", ["before the draft", "within the draft", "before the replacement", "after the replacement"]
)
def test_a_rotation_killed_half_way_leaves_the_old_file_or_the_new_one(moment: str, keys: KeyFile, path: Path) -> None:
    old = keys.wrap(DEK)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path), moment], check=False, timeout=60)
    assert killed.returncode == -9
    assert len(KeyFile(path).kek_ids) == (2 if moment == "after the replacement" else 1)
    assert keys.unwrap(old, TRIAL) == DEK
    # And nobody is locked out by what was left behind.
    active = keys.rotate()
    assert keys.unwrap(keys.wrap(DEK), TRIAL) == DEK
    # Nor does what was left behind keep a key that is destroyed later.
    kek = content_of(path)["keks"][old.kek_id]
    keys.destroy(old.kek_id)
    assert keys.active_kek_id == active
    assert all(kek.encode() not in entry.read_bytes() for entry in path.parent.iterdir())


as_superuser = pytest.mark.skipif(os.geteuid() != 0, reason="only the superuser meets other people's files")
SERVICE_ACCOUNT = 65534


@as_superuser
def test_a_rotation_by_the_superuser_leaves_the_file_to_its_owner(keys: KeyFile, path: Path) -> None:
    os.chown(path, SERVICE_ACCOUNT, SERVICE_ACCOUNT)
    old = keys.active_kek_id
    keys.rotate()
    keys.destroy(old)
    found = path.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (SERVICE_ACCOUNT, SERVICE_ACCOUNT, 0o600)


@as_superuser
def test_a_rotation_that_would_take_the_file_from_its_owner_changes_nothing(
    keys: KeyFile, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbid(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    os.chown(path, SERVICE_ACCOUNT, SERVICE_ACCOUNT)
    before = path.read_bytes()
    monkeypatch.setattr(os, "chown", forbid)
    with pytest.raises(KeyFileError, match="nothing was changed: it belongs to user 65534"):
        keys.rotate()
    assert (path.read_bytes(), path.stat().st_uid) == (before, SERVICE_ACCOUNT)
    assert not [entry for entry in path.parent.iterdir() if "draft" in entry.name]


# ------------------------------------------------------------------------------------------------------------ accounts


def test_accounts_are_all_different_and_come_back_the_same(path: Path) -> None:
    made, loaded = Accounts.create(path), Accounts.load(path)
    addresses = [account.address for account in made.every()]
    assert len(set(addresses)) == len(addresses) == 3 + WRITERS
    assert [account.address for account in loaded.every()] == addresses
    assert [bytes(account.key) for account in loaded.every()] == [bytes(account.key) for account in made.every()]
    assert loaded.signing_key.thumbprint() == made.signing_key.thumbprint()


def test_writers_that_are_added_at_once_are_all_there_and_nothing_else_is_another(path: Path) -> None:
    before = Accounts.create(path)
    with ThreadPoolExecutor(4) as pool:
        added = [account.address for account in pool.map(Accounts.add_writer, [path] * 4)]
    after = Accounts.load(path)
    assert sorted(account.address for account in after.writers) == sorted(
        [*(account.address for account in before.writers), *added]
    )
    assert len({account.address for account in after.every()}) == len(before.every()) + 4
    same = (after.custodian.key, after.grants.key, after.revocations.key, after.signing_key.thumbprint())
    assert same == (before.custodian.key, before.grants.key, before.revocations.key, before.signing_key.thumbprint())
    assert path.stat().st_mode & 0o777 == 0o600


def _spoilt_accounts() -> Iterator[Any]:
    def at(name: str, value: object) -> Callable[[dict[str, Any]], None]:
        return lambda content: content["accounts"].update({name: value})

    yield pytest.param(at("custodian", "0x1234"), id="short key")
    yield pytest.param(at("custodian", "0x" + "00" * 32), id="zero key")
    yield pytest.param(at("custodian", "0x" + "ff" * 32), id="key beyond the curve")
    yield pytest.param(at("writer-0", "canary-canary"), id="not hex")
    yield pytest.param(at("grants", None), id="null")
    yield pytest.param(at("revocations", {}), id="an object")
    yield pytest.param(lambda content: content["accounts"].pop("revocations"), id="one missing")
    yield pytest.param(lambda content: content.update(accounts=[]), id="accounts a list")
    yield pytest.param(lambda content: content.pop("accounts"), id="no accounts")
    yield pytest.param(lambda content: content.pop("signing_key"), id="no signing key")
    yield pytest.param(lambda content: content.update(signing_key=None), id="signing key null")
    yield pytest.param(lambda content: content.update(signing_key={}), id="signing key empty")
    yield pytest.param(lambda content: content.update(signing_key={"kty": "oct", "k": "AAAA"}), id="symmetric key")
    yield pytest.param(lambda content: content["signing_key"].pop("d"), id="public signing key")
    yield pytest.param(lambda content: content["signing_key"].update(d="AAAA"), id="another private part")
    yield pytest.param(lambda content: content["signing_key"].update(crv="P-384"), id="another curve")
    yield pytest.param(lambda content: content.update(version=2), id="another version")


@pytest.mark.parametrize("spoil", list(_spoilt_accounts()))
def test_a_garbled_account_file_is_refused_and_its_content_not_repeated(
    spoil: Callable[[dict[str, Any]], object], path: Path
) -> None:
    Accounts.create(path)
    content = content_of(path)
    secrets = [*content["accounts"].values(), content["signing_key"]["d"], "canary"]
    spoil(content)
    rewrite(path, json.dumps(content))
    with pytest.raises(LedgerError) as caught:
        Accounts.load(path)
    assert type(caught.value) is KeyFileError
    said = "".join(traceback.format_exception(caught.value))
    assert [secret for secret in secrets if secret in said] == []


# ----------------------------------------------------------------------------------------------- private keys, silence


def test_a_private_key_is_read_with_or_without_its_prefix(tmp_path: Path) -> None:
    for number, text in enumerate(("0x" + "12" * 32, "12" * 32 + "\n")):
        write_private_file(tmp_path / str(number), text)
        assert read_private_key(tmp_path / str(number)) == bytes.fromhex("12" * 32)


@pytest.mark.parametrize(
    "text",
    [b"", b"0x", b"12" * 31, b"12" * 33, b"zz" * 32, b"\xff" * 64, b"00" * 32, b"ff" * 32, b"canary" * 9, b"[]"],
)
def test_what_is_no_private_key_is_refused_and_not_repeated(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "key"
    rewrite(path, text)
    with pytest.raises(LedgerError) as caught:
        read_private_key(path)
    assert type(caught.value) is KeyFileError
    said = "".join(traceback.format_exception(caught.value))
    assert len(text) < 8 or text.decode("latin-1")[:8] not in said


def test_a_directory_is_no_private_key(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with pytest.raises(KeyFileError):
        read_private_key(tmp_path)


def test_a_private_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    rewrite(path, "12" * 32)
    path.chmod(0o644)
    with pytest.raises(KeyFileError, match="0600"):
        read_private_key(path)


def test_no_secret_is_in_what_keys_say_of_themselves(keys: KeyFile, path: Path, tmp_path: Path) -> None:
    accounts = Accounts.create(tmp_path / "accounts.json")
    written = content_of(tmp_path / "accounts.json")
    secrets = [
        *content_of(path)["keks"].values(),
        content_of(path)["index_key"],
        *(key[2:] for key in written["accounts"].values()),
        written["signing_key"]["d"],
    ]
    assert len(secrets) == 2 + 3 + WRITERS + 1
    shown = f"{keys!r} {keys!s} {accounts!r} {accounts!s} {accounts.every()!r} {accounts.signing_key!r}"
    raw = [repr(bytes.fromhex(secret))[2:-1] for secret in secrets[:-1]]
    assert [secret for secret in [*secrets, *raw] if secret in shown] == []


def test_no_secret_is_in_what_a_failed_unwrap_says(keys: KeyFile, path: Path) -> None:
    wrapped = keys.wrap(DEK)
    secret = content_of(path)["keks"][wrapped.kek_id]
    for key in (WrappedKey("kek-none", wrapped.wrapped_dek), WrappedKey(wrapped.kek_id, wrapped.wrapped_dek[::-1])):
        with pytest.raises(LedgerError) as caught:
            keys.unwrap(key, TRIAL)
        said = "".join(traceback.format_exception(caught.value))
        assert secret not in said
        assert DEK.hex() not in said
