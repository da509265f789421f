"""The auditor's verbs about entries on a real chain: verdicts and exit codes as whoever types them sees them."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from actors import Institution, Subject
from joserfc import jwe
from typer.testing import CliRunner

from ledger.cli_auditor import app
from ledger.config import Config
from ledger.consent import Hex32
from ledger.custodian import Custodian
from ledger.devnet import Devnet, free_port, fund
from ledger.errors import ConsentError, MalformedError
from ledger.exchange import SEALING
from ledger.release import Release
from ledger.verifying_keys import public_jwk

pytestmark = pytest.mark.devnet


@dataclass(frozen=True)
class Case:
    """One person's consents on a chain, and the files that an auditor has."""

    url: str
    files: Path
    block_hash: Hex32
    disclosure: dict[str, Any]
    export: dict[str, Any]
    consent_id: Hex32

    def keys(self) -> list[str]:
        """From the parties themselves."""
        bank = f"bank-1={self.files / 'bank.json'}"
        return ["--institution-key", bank, "--custodian-key", str(self.files / "custodian.json")]

    def write(self, name: str, content: object) -> Path:
        path = self.files / name
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    def run(self, *args: object, online: bool = True) -> tuple[int, dict[str, Any]]:
        """Exit code and result."""
        where = ["--rpc-url", self.url] if online else []
        done = CliRunner().invoke(app, [*(str(one) for one in args), *where, "--json"])
        return done.exit_code, json.loads(done.stdout) if done.stdout else {}


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    files = tmp_path_factory.mktemp("auditor")
    with Devnet(port=free_port(), log=files / "node.log") as node:
        config = Config(data=files / "data", rpc_url=node.url)
        Custodian.init(config)
        with Custodian(config) as custodian:
            fund(custodian.rpc, [account.address for account in custodian.accounts.every()])
            custodian.deploy()
            bank, subject = Institution(), Subject()
            bank.register(custodian)
            subject.furnish(custodian)
            consent_id = subject.grant(custodian, bank)
            revoked = subject.grant(custodian, bank)
            release = custodian.releases.release(bank.request(custodian, consent_id))
            custodian.releases.release(bank.request(custodian, consent_id, attributes=("savings",)))
            with pytest.raises(ConsentError):
                custodian.releases.release(bank.request(custodian, consent_id, attributes=("credit_duration",)))
            custodian.releases.log_refusals()
            subject.revoke(custodian, revoked)
            made = custodian.disclosing.of_release(release.release_id, at=custodian.clock(), proofs=True)
            party = custodian.registry.institution(bank.institution_id)
            signed = jwe.decrypt_compact(release.sealed, bank.sealing_key, algorithms=list(SEALING.values()))
            document = json.loads(json.dumps(made.disclosure.as_json()))
            subject_id = custodian.vault.subject_of(subject.ref)
            case = Case(
                url=node.url,
                files=files,
                block_hash=release_block(custodian, release),
                disclosure=document,
                export=json.loads(json.dumps(custodian.subject_export.of_subject(subject_id))),
                consent_id=consent_id,
            )
            everything = custodian.disclosing.of_subject(subject_id, at=custodian.clock())
            case.write("all.json", everything.disclosure.as_json())
            case.write("bank.json", {"keys": [public_jwk(bank.signing_key)]})
            case.write("custodian.json", {"keys": [public_jwk(custodian.accounts.signing_key)]})
            case.write("receipt.jwt", release.receipt)
            case.write("answer.jwt", (signed.plaintext or b"").decode())
            case.write("bundle.json", custodian.proofs.bundle(release.release_id, party))
            case.write("grant.jwt", custodian.grants.receipt(consent_id))
            case.write("ended.jwt", custodian.grants.receipt(revoked))
            case.write("revocation.jwt", custodian.grants.revocation_receipt(revoked))
            yield case


def release_block(custodian: Custodian, release: Release) -> Hex32:
    row = custodian.journal.release_row(release.release_id)
    assert row is not None
    return Hex32(custodian.journal.batch_row(row.batch_id).block_hash)


def test_a_disclosure_is_clean_with_the_parties_own_keys_and_unverified_without(case: Case) -> None:
    file = case.files / "all.json"
    code, found = case.run("entry", file, *case.keys())
    assert (code, found["verdict"], len(found["entries"])) == (0, "clean", 3)
    assert found["block"]["given"] is False
    code, found = case.run("entry", file)
    assert (code, found["verdict"]) == (2, "could_not_verify")
    assert {one["name"] for one in found["checks"] if one["holds"] is None} == {"keys"}
    assert case.run("entry", file, "--believe-keys")[0] == 0


def test_the_answer_that_an_institution_hands_on_is_checked_too(case: Case) -> None:
    file, answer = case.write("one.json", case.disclosure), case.files / "answer.jwt"
    code, found = case.run("entry", file, "--answer", answer, *case.keys())
    assert (code, found["entries"][0]["checks"][-1]["name"]) == (0, "answer")
    other = case.write("other.jwt", answer.read_text()[:-6] + "AAAAAA")
    code, found = case.run("entry", file, "--answer", other, *case.keys())
    assert (code, found["entries"][0]["findings"][0]["code"]) == (1, "answer_differs")


def test_an_audit_with_openings_says_who_received_data_and_believes_none_that_does_not_fit(case: Case) -> None:
    code, found = case.run("chain", "--without-compiler", "--openings", case.files / "all.json")
    # Three entries of one institution, of which one was refused.
    assert (code, found["institutions"], found["totals"]["recorded"]) == (0, {"bank-1": 2}, 2)
    document = json.loads((case.files / "all.json").read_text())
    for one in document["entries"]:
        one["entry"]["institution"] = "another"
    altered = case.write("altered.json", document)
    code, found = case.run("chain", "--without-compiler", "--openings", altered)
    assert (code, found["institutions"]) == (0, {})
    with_state = ["--openings", str(altered), "--state", str(case.files / "seen.state")]
    assert isinstance(CliRunner().invoke(app, ["chain", *with_state]).exception, MalformedError)


@pytest.mark.parametrize("jti", [[], {}, 7, None])
def test_an_answer_of_no_release_is_no_verdict(case: Case, jti: object) -> None:
    file = case.write("one.json", case.disclosure)
    claims = base64.urlsafe_b64encode(json.dumps({"jti": jti}).encode()).decode().rstrip("=")
    answer = case.write("odd.jwt", f"e30.{claims}.AA")
    done = CliRunner().invoke(app, ["entry", str(file), "--answer", str(answer), "--offline", "--believe-keys"])
    assert isinstance(done.exception, MalformedError)


def test_a_disclosure_that_was_altered_ends_with_1(case: Case) -> None:
    document = json.loads((case.files / "all.json").read_text())
    document["entries"][0]["entry"]["attributes"] = ["savings"]
    code, found = case.run("entry", case.write("altered.json", document), *case.keys())
    assert (code, found["verdict"]) == (1, "findings")
    assert "opening_differs" in {one["code"] for one in found["entries"][0]["findings"]}


def test_without_a_node_a_bundle_and_a_blocks_hash_stand_for_the_chain(case: Case) -> None:
    file = case.write("one.json", case.disclosure)
    given = ("--block-hash", case.block_hash)
    code, found = case.run("entry", file, "--offline", *given, *case.keys(), online=False)
    # Of the other access nobody can say on which day it was: the limit allows three, so it does not matter.
    assert (code, found["verdict"]) == (0, "clean")
    for hashes in ((), ("--block-hash", "0x" + "ab" * 32)):
        code, found = case.run("entry", file, "--offline", *hashes, *case.keys(), online=False)
        assert code == 2
        assert {one["name"] for one in found["entries"][0]["checks"] if one["holds"] is None} == {"bundle"}
    bare = json.loads(json.dumps(case.disclosure))
    bare["entries"][0]["bundle"] = None
    code, found = case.run("entry", case.write("bare.json", bare), "--offline", *given, *case.keys(), online=False)
    assert code == 2
    bare["entries"][0]["bundle"] = case.disclosure["entries"][0]["bundle"] | {"batches": []}
    code, found = case.run("entry", case.write("bare.json", bare), "--offline", *given, *case.keys(), online=False)
    assert (code, found["entries"][0]["findings"][0]["code"]) == (1, "bundle_differs")


def test_with_fewer_headers_what_was_read_is_used_and_the_result_is_never_clean(case: Case) -> None:
    few = ("--headers", "events")
    key = ("--custodian-key", case.files / "custodian.json")
    for verb in (
        ("entry", case.files / "all.json", *case.keys()),
        ("receipt", case.files / "receipt.jwt", *key),
        ("receipt", case.files / "grant.jwt", *key),
        ("subject", case.write("export.json", case.export)),
    ):
        code, found = case.run(*verb, *few)
        assert (verb[:2], code, found["verdict"]) == (verb[:2], 2, "could_not_verify")
        parts = [found, *found.get("entries", ()), *found.get("accesses", ())]
        assert {one["name"] for part in parts for one in part["checks"] if one["holds"] is None} == {"headers"}
    less = case.write("less.json", case.export | {"activity": case.export["activity"][1:]})
    code, found = case.run("subject", less, *few)
    assert (code, len(found["accesses"])) == (1, 3)


def test_where_no_node_answers_or_another_chain_nothing_is_verified(case: Case) -> None:
    file = case.files / "all.json"
    done = CliRunner().invoke(app, ["entry", str(file), "--rpc-url", "http://127.0.0.1:9", "--believe-keys", "--json"])
    assert (done.exit_code, json.loads(done.stdout)["verdict"]) == (2, "could_not_verify")
    code, found = case.run("entry", file, "--believe-keys", "--chain-id", "1")
    assert code != 0
    assert found["verdict"] != "clean"


def test_the_receipt_of_an_access_is_checked_with_a_node_or_a_bundle(case: Case) -> None:
    file, key = case.files / "receipt.jwt", ("--custodian-key", case.files / "custodian.json")
    code, found = case.run("receipt", file, *key, "--answer", case.files / "answer.jwt")
    assert (code, found["verdict"]) == (0, "clean")
    assert {"place", "receipt", "answer"} <= {one["name"] for one in found["entries"][0]["checks"]}
    offline = ("receipt", file, *key, "--offline", "--bundle", case.files / "bundle.json")
    assert case.run(*offline, "--block-hash", case.block_hash, online=False)[0] == 0
    assert case.run(*offline, online=False)[0] == 2
    assert case.run("receipt", file, *key, "--offline", online=False)[0] == 2
    head, claims, _ = file.read_text().split(".")
    forged = case.write("forged.jwt", f"{head}.{claims}.{'A' * 86}")
    code, found = case.run("receipt", forged, *key)
    assert (code, found["findings"][0]["code"]) == (1, "receipt_differs")


def test_a_custodians_only_key_is_taken_by_whatever_name_it_goes(case: Case) -> None:
    (jwk,) = json.loads((case.files / "custodian.json").read_text())["keys"]
    nameless = {name: value for name, value in jwk.items() if name != "kid"}
    for file in (case.write("named.json", jwk | {"kid": "main"}), case.write("nameless.json", nameless)):
        for name in ("receipt.jwt", "grant.jwt"):
            code, found = case.run("receipt", case.files / name, "--custodian-key", file)
            assert (file.name, name, code, found["verdict"]) == (file.name, name, 0, "clean")
    other = case.write("other.json", public_jwk(Institution().signing_key) | {"kid": jwk["kid"]})
    code, found = case.run("receipt", case.files / "receipt.jwt", "--custodian-key", other)
    assert (code, [one["code"] for one in found["findings"]]) == (1, ["receipt_differs"])


def test_an_institutions_old_and_new_key_may_both_be_named(case: Case) -> None:
    newer = f"bank-1={case.write('newer.json', public_jwk(Institution().signing_key))}"
    for keys in ((*case.keys(), "--institution-key", newer), ("--institution-key", newer, *case.keys())):
        code, found = case.run("entry", case.files / "all.json", *keys)
        assert (code, found["verdict"]) == (0, "clean")


def test_a_persons_receipts_are_checked_by_their_own_signature_and_on_chain(case: Case) -> None:
    key = ("--custodian-key", case.files / "custodian.json")
    for name in ("grant.jwt", "ended.jwt", "revocation.jwt"):
        code, found = case.run("receipt", case.files / name, *key)
        assert (name, code, found["verdict"]) == (name, 0, "clean")
        assert "subject_signature" in {one["name"] for one in found["checks"]}
        code, found = case.run("receipt", case.files / name, *key, "--offline", online=False)
        assert (name, code) == (name, 2)


def test_a_receipt_of_a_revocation_that_the_chain_does_not_have_is_found(case: Case) -> None:
    key = ("--custodian-key", case.files / "custodian.json")
    # At a block before it.
    code, found = case.run("receipt", case.files / "revocation.jwt", *key)
    block = found["block"]["number"]
    code, found = case.run("receipt", case.files / "revocation.jwt", *key, "--block", block - 1)
    assert (code, found["findings"][0]["code"]) == (1, "receipt_not_on_chain")


def test_a_person_lists_their_accesses_and_finds_the_one_they_were_not_told_of(case: Case) -> None:
    code, found = case.run("subject", case.write("export.json", case.export))
    assert (code, found["verdict"], len(found["accesses"])) == (0, "clean", 3)
    less = case.export | {"activity": case.export["activity"][1:]}
    code, found = case.run("subject", case.write("less.json", less))
    assert (code, [one["code"] for one in found["accesses"][-1]["findings"]]) == (1, ["access_untold"])
    # By the account alone: what was read is in nobody's hands, but that it was shows.
    (account,) = {one["grant"]["subject"] for one in case.export["consents"]}
    code, found = case.run("subject", "--address", account)
    assert (code, [one["outcome"] for one in found["accesses"]]) == (0, ["recorded", "recorded", "refused"])
    assert all(one["entry"] is None for one in found["accesses"])


def test_what_is_asked_in_a_way_that_makes_no_sense_is_no_verdict(case: Case) -> None:
    done = CliRunner().invoke(app, ["subject", "--rpc-url", case.url])
    assert (done.exit_code == 0, done.stdout) == (False, "")
    online = ["--rpc-url", case.url, "--block-hash", case.block_hash]
    done = CliRunner().invoke(app, ["entry", str(case.files / "all.json"), *online])
    assert done.exit_code != 0
