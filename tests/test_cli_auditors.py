"""The verbs `audit checkpoint` and `audit reconcile`, on a real node and a real data directory."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pytest
from actors import Institution, Subject
from typer.testing import CliRunner

import ledger.cli
from ledger import cli_auditor, cli_disclose
from ledger.checkpoint import open_checkpoint
from ledger.compelled import NewOrder
from ledger.consent import Hex32
from ledger.custodian import Custodian
from ledger.devnet import mine
from ledger.envelope import RELEASE, Use
from ledger.errors import AuditError, ChainUnavailableError
from ledger.feed import Feed
from ledger.release import Release
from ledger.stateproof import block_hash_of
from ledger.witness import read_signer

pytestmark = pytest.mark.devnet
OTHER: Final = Hex32("0x" + "5e" * 32)


@dataclass(frozen=True, slots=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        fields: dict[str, Any] = json.loads(self.out)
        return fields


@dataclass(frozen=True, slots=True)
class Place:
    """A custodian at work, and an auditor beside it."""

    custodian: Custodian
    institution: Institution
    subject: Subject
    desk: Path
    run: Callable[..., Done]

    def ask(self) -> Release:
        consent = self.subject.grant(self.custodian, self.institution)
        return self.custodian.releases.release(self.institution.request(self.custodian, consent))

    def key(self, name: str) -> str:
        return self.run("checkpoint", "new-key", name, self.desk / f"{name}.key").out.strip()

    def make(self, name: str, out: str, *more: object) -> Done:
        of = ("--key", self.desk / f"{name}.key", "--memory", self.desk / name, "--out", self.desk / out)
        return self.run("checkpoint", "make", "--without-compiler", *of, *more)


@pytest.fixture
def place(
    quiet_custodian: Custodian,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Place:
    config = quiet_custodian.config
    for name, value in config.environment().items():
        monkeypatch.setenv(name, value)
    assert ledger.cli.app, "which mounts the verbs"

    def run(*words: object) -> Done:
        capsys.readouterr()
        arguments = [str(word) for word in words]
        monkeypatch.setattr("sys.argv", ["consent-ledger", "audit", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli_auditor.main(arguments)
        assert isinstance(ended.value.code, int)
        return Done(ended.value.code, *capsys.readouterr())

    institution, subject = Institution(), Subject("audited")
    institution.register(quiet_custodian)
    subject.furnish(quiet_custodian)
    desk = tmp_path / "desk"
    desk.mkdir()
    made = Place(quiet_custodian, institution, subject, desk, run)
    made.ask()
    return made


# ---------------------------------------------------------------------------------------------------------- checkpoints


def test_auditors_sign_cosign_and_compare_and_a_split_view_shows(place: Place) -> None:
    alice, bob = place.key("alice.example"), place.key("bob.example")
    by = ("--by", alice, "--by", bob)
    assert place.make("alice.example", "1.note").code == 2
    done = place.make("alice.example", "1.note", "--first")
    assert done.code == 0, done
    cosign = ("--by", alice, "--key", place.desk / "bob.example.key", "--memory", place.desk / "bob")
    done = place.run("checkpoint", "cosign", place.desk / "1.note", *cosign, "--first", "--out", place.desk / "2.note")
    assert done.code == 0, done
    # Two of two signed the one, one of two the other.
    assert place.run("checkpoint", "verify", place.desk / "2.note", *by).code == 0
    assert place.run("checkpoint", "verify", place.desk / "1.note", *by).code == 1
    assert place.run("checkpoint", "verify", place.desk / "1.note", *by, "--quorum", 1).code == 0
    # The chain goes on, and the next checkpoint follows.
    place.ask()
    assert place.make("alice.example", "3.note").code == 0
    node = ("--rpc-url", place.custodian.config.rpc_url)
    done = place.run("checkpoint", "verify", place.desk / "1.note", "--by", alice, *node)
    assert done.code == 0, done
    done = place.run("checkpoint", "compare", place.desk / "1.note", place.desk / "3.note", *by)
    assert (done.code, "different blocks" in done.out) == (0, True)
    assert place.run("checkpoint", "compare", place.desk / "1.note", place.desk / "2.note", *by).code == 0
    # Someone was shown another history.
    signer = read_signer(place.desk / "bob.example.key")
    seen = open_checkpoint((place.desk / "1.note").read_text(), [read_signer(place.desk / "alice.example.key").key])[0]
    log, (size, _) = next((log, state) for log, state in seen.logs.items() if state[0])
    shown = replace(seen, logs={**seen.logs, log: (size, OTHER)})
    (place.desk / "other.note").write_text(signer.sign(shown.text()))
    done = place.run("checkpoint", "compare", place.desk / "other.note", place.desk / "1.note", *by, "--json")
    assert (done.code, [one["code"] for one in done.json["findings"]]) == (1, ["split_view"])
    # In the form of the report's own.
    assert done.json["findings"][0]["blockNumber"] == seen.block_number
    # Nor is a count cosigned that the own audit did not come to, however many others signed it.
    accused = replace(seen, findings={"recorded_outside_consent": 3})
    (place.desk / "accused.note").write_text(read_signer(place.desk / "alice.example.key").sign(accused.text()))
    done = place.run("checkpoint", "cosign", place.desk / "accused.note", *cosign)
    assert (done.code, "recorded_outside_consent 3" in done.out) == (1, True)
    # Nor does the chain lead on from the other history, nor is it cosigned.
    done = place.run("checkpoint", "verify", place.desk / "other.note", "--by", bob, *node)
    assert (done.code, "checkpoint_inconsistent" in done.out) == (1, True)
    of = ("--by", bob, "--key", place.desk / "alice.example.key", "--memory", place.desk / "third", "--first")
    done = place.run("checkpoint", "cosign", place.desk / "other.note", *of)
    assert (done.code, "split_view" in done.out) == (1, True)
    assert not list((place.desk / "third").glob("*.note"))


def test_a_witness_whose_chain_was_exchanged_signs_nothing(place: Place) -> None:
    place.key("alice.example")
    assert place.make("alice.example", "1.note", "--first").code == 0
    memory = next((place.desk / "alice.example").glob("*.note"))
    signer = read_signer(place.desk / "alice.example.key")
    seen = open_checkpoint(memory.read_text(), [signer.key])[0]
    mine(place.custodian.rpc)
    grown = {log: (size + 1, head) for log, (size, head) in seen.logs.items()}
    for other in (replace(seen, block_hash=OTHER), replace(seen, logs=grown)):
        memory.write_text(signer.sign(other.text()))
        assert place.make("alice.example", "2.note").code == 1
    # A node that lags behind what was signed last says nothing of the ledger.
    later = replace(seen, block_number=seen.block_number + 1000)
    memory.write_text(signer.sign(later.text()))
    assert place.make("alice.example", "2.note").code == 2
    memory.write_text(signer.sign(seen.text()))
    assert place.make("alice.example", "2.note").code == 0


def test_what_nobody_thought_of_is_no_finding(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("ledger.cli_audit.audited", broken)
    assert place.run("chain").code == 2


def test_only_headers_with_events_still_tell_the_history_of_a_consent(place: Place) -> None:
    consent_id = place.subject.grant(place.custodian, place.institution)
    done = place.run("consent", consent_id, "--headers", "events")
    assert (done.code, "the consent was in force" in done.out) == (2, True)
    assert "endpoint's word" in done.err


@pytest.mark.parametrize(("error", "code"), [(ChainUnavailableError, 2), (AuditError, 1)])
def test_of_a_chain_that_was_not_read_to_its_end_nobody_says_that_a_consent_is_not_there(
    place: Place, monkeypatch: pytest.MonkeyPatch, error: type[Exception], code: int
) -> None:
    consent_id = place.subject.grant(place.custodian, place.institution)

    def ends(*_: object) -> None:
        raise error("in the middle")

    monkeypatch.setattr("ledger.feed.Feed._headers", ends)
    for headers in ("all", "events"):
        done = place.run("consent", consent_id, "--headers", headers)
        assert (done.code, "the consent was" in done.out) == (code, False)


def test_of_a_history_that_does_not_explain_the_state_nobody_says_that_a_consent_was_in_force(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    consent_id = place.subject.grant(place.custodian, place.institution)
    place.subject.revoke(place.custodian, consent_id)
    revoked_in = place.custodian.chain.latest().number
    numbers = Feed._numbers
    monkeypatch.setattr(
        Feed, "_numbers", lambda feed, first, last: [one for one in numbers(feed, first, last) if one < revoked_in]
    )
    done = place.run("consent", consent_id, "--headers", "events")
    assert (done.code, "the consent was" in done.out, "state_differs" in done.out) == (1, False, True)
    done = place.run("consent", consent_id, "--headers", "events", "--json")
    assert (done.code, done.json["verdict"]) == (1, "findings")


def test_a_state_that_cannot_be_kept_keeps_nobody_from_the_result(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place.desk / "file").write_text("")
    monkeypatch.setattr("ledger.cli_audit.user_data_path", lambda _: place.desk / "file" / "in a file")
    done = place.run("chain", "--without-compiler", "--state", place.desk / "seen.state")
    assert (done.code, "CLEAN" in done.out, "audit.key" in done.err) == (2, True, True)


def test_a_node_that_does_not_answer_makes_no_checkpoint(place: Place) -> None:
    place.key("alice.example")
    done = place.make("alice.example", "1.note", "--first", "--rpc-url", "http://127.0.0.1:9")
    assert done.code == 2
    assert not (place.desk / "1.note").exists()
    assert place.run("checkpoint", "compare", place.desk / "1.note", place.desk / "1.note", "--by", "x").code == 2


# ---------------------------------------------------------------------------------------------------- orders, offline


def test_an_order_is_disclosed_with_a_bundle_that_stands_for_the_chain(place: Place) -> None:
    custodian, court = place.custodian, Institution("court-1", "Court")
    custodian.registry.add_authority("court-1", "Court", court.jwks, at=custodian.clock())
    new = NewOrder(
        authority="court-1",
        reference="1/26",
        document_hash=OTHER,
        subject_id=custodian.vault.subject_of(place.subject.ref),
        attributes=("savings",),
        embargo_until=0,
    )
    order_hash = custodian.orders.execute(new).order_hash
    place.ask()
    for what, entries in (("--order", 1), ("--subject", 3)):
        file = place.desk / f"disclosed{what}.json"
        named = order_hash if what == "--order" else place.subject.ref
        made = CliRunner().invoke(cli_disclose.app, [what, named, "--proofs", "--out", str(file)])
        assert made.exit_code == 0, made
        found = json.loads(file.read_text())["entries"]
        hashes = [_block_of(one) for one in found]
        assert len(hashes) == entries
        known = [word for one in hashes for word in ("--block-hash", one)]
        done = place.run("entry", file, "--offline", "--believe-keys", *known, "--json")
        assert (done.code, done.json["verdict"]) == (0, "clean"), done
        # Of another block's hash it proves nothing.
        done = place.run("entry", file, "--offline", "--believe-keys", "--block-hash", OTHER)
        assert done.code == 2, done


def _block_of(entry: dict[str, Any]) -> Hex32:
    return block_hash_of(bytes.fromhex(entry["bundle"]["headerRlp"][2:]))


# ------------------------------------------------------------------------------------------------------- reconciliation


def test_a_custodian_at_work_reconciles_and_the_drill_is_found(place: Place) -> None:
    receipts = place.desk / "receipts"
    receipts.mkdir()
    (receipts / "bank").write_text(place.ask().receipt)
    done = place.run("reconcile", "--receipts", receipts, "--json")
    assert done.code == 0, done
    assert done.json["numbers"] == {"released": 2, "receipts": 1}
    known = ("--known", done.json["unwrapsEnd"])
    assert place.run("reconcile", *known).code == 0
    # One extra unwrap.
    vault = place.custodian.vault
    (held,) = vault.find(vault.subject_of(place.subject.ref), ["savings"])
    vault.open(held, Use(RELEASE, OTHER))
    done = place.run("reconcile", *known)
    assert (done.code, "unexplained_unwrap" in done.out) == (1, True)


def test_one_unlogged_release_is_found_on_a_copy_and_the_original_is_left_alone(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = place.desk / "copy"
    shutil.copytree(place.custodian.config.data, copy)
    before = {path: path.read_bytes() for path in place.custodian.config.key_file.parent.iterdir()}
    monkeypatch.setenv("CONSENT_LEDGER_DATA", str(copy))
    assert place.run("reconcile").code == 0
    with sqlite3.connect(copy / "ledger.db") as database:
        database.execute("UPDATE releases SET entry_hash = ?, body = NULL, kek_id = NULL, wrapped_dek = NULL", (OTHER,))
    database.close()
    done = place.run("reconcile", "--json")
    assert (done.code, done.json["differences"]) == (
        1,
        {"entry_not_on_file": 1, "unexplained_unwrap": 1, "unlogged_release": 1},
    )
    assert {path: path.read_bytes() for path in before} == before


def test_with_fewer_headers_it_reconciles_what_it_read(place: Place) -> None:
    done = place.run("reconcile", "--headers", "events", "--json")
    assert (done.code, done.json["verdict"], done.json["numbers"]) == (2, "could_not_verify", {"released": 1})
    with sqlite3.connect(place.custodian.config.database) as database:
        database.execute("DELETE FROM releases")
    database.close()
    done = place.run("reconcile", "--headers", "events", "--json")
    assert (done.code, done.json["differences"]) == (1, {"entry_not_on_file": 1, "unexplained_unwrap": 1})


def test_a_chain_that_cannot_be_read_is_never_clean(place: Place) -> None:
    done = place.run("reconcile", "--rpc-url", "http://127.0.0.1:9", "--json")
    assert (done.code, done.json["verdict"], done.json["findings"]) == (2, "could_not_verify", [])
    assert place.run("reconcile", "--known", "nothing").code == 2
    assert place.run("reconcile", "--receipts", place.desk / "nowhere").code == 2
