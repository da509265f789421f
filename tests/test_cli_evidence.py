"""`consent-ledger receipts verify`, as someone runs it who has a receipt and no custodian."""

from __future__ import annotations

import io
import json
import re
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import urllib3
from actors import Institution, Subject
from service import serving

from ledger import cli
from ledger.config import Config
from ledger.consent import Hex32
from ledger.contract import revoke_call
from ledger.custodian import Custodian
from ledger.devnet import free_port, fund
from ledger.exchange import new_institution_keys
from ledger.receipts import grant_receipt, revocation_receipt
from ledger.typed_data import consent_id_of, outer_of

pytestmark = pytest.mark.devnet


@dataclass(frozen=True, kw_only=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


@dataclass(frozen=True, kw_only=True)
class Auditor:
    """Someone with an empty home, and the files of one release: receipt, bundle and the custodian's key."""

    home: Path
    rpc_url: str
    service_url: str
    block_hash: str
    release_id: str

    def run(self, *words: str, rpc_url: str = "http://127.0.0.1:1") -> Done:
        """By the entry point in this process: starting Python takes longer than the verb."""
        shown, complained, code = io.StringIO(), io.StringIO(), 0
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(shown), redirect_stderr(complained):
            patch.setenv("HOME", str(self.home))
            patch.setenv("CONSENT_LEDGER_RPC_URL", rpc_url)
            patch.delenv("CONSENT_LEDGER_DATA", raising=False)
            patch.chdir(self.home)
            patch.setattr(sys, "argv", ["consent-ledger", "receipts", "verify", *words])
            try:
                cli.main()
            except SystemExit as exc:
                code = int(exc.code or 0)
            finally:
                for number, handler in handlers.items():
                    signal.signal(number, handler)
        return Done(returncode=code, stdout=shown.getvalue(), stderr=complained.getvalue())

    def finds(self, *words: str, rpc_url: str = "http://127.0.0.1:1") -> dict[str, Any]:
        done = self.run(*words, "--json", rpc_url=rpc_url)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def change(self, name: str, change: Callable[[Any], Any]) -> None:
        file = self.home / name
        file.write_text(json.dumps(change(json.loads(file.read_text()))))


def stopped_before_its_grant(custodian: Custodian, institution: Institution) -> str:
    """The receipt of a grant that the subject stopped on chain before it came there, so that it never can."""
    subject, domain = Subject("person-3"), custodian.chain.domain
    subject.furnish(custodian)
    grant = subject.draft(custodian, institution)
    fund(custodian.rpc, [subject.address])
    unsigned = {
        "to": domain.contract,
        "data": revoke_call([outer_of(grant)], b""),
        "nonce": 0,
        "gas": 200_000,
        "maxFeePerGas": 10**10,
        "maxPriorityFeePerGas": 0,
        "chainId": domain.chain_id,
    }
    sent = subject.account.sign_transaction(unsigned)
    custodian.chain.send(bytes(sent.raw_transaction))
    assert custodian.chain.wait(Hex32("0x" + sent.hash.hex()), timeout=10).succeeded
    return grant_receipt(
        consent_id_of(grant, domain),
        grant,
        subject.sign(custodian, grant),
        domain,
        custodian.accounts.signing_key,
        at=1,
        transaction_hash=None,
        standing=False,
        revoked_at=None,
    )


@pytest.fixture
def auditor(devnet_config: Config, tmp_path: Path) -> Iterator[Auditor]:
    port = free_port()
    config = replace(devnet_config, service_url=f"http://127.0.0.1:{port}")
    home = tmp_path / "home"
    home.mkdir()
    institution, subject = Institution(), Subject()
    with Custodian(config) as custodian:
        institution.register(custodian)
        subject.furnish(custodian)
        consent = subject.grant(custodian, institution)
        release = custodian.releases.release(institution.request(custodian, consent))
        bundle = custodian.proofs.bundle(release.release_id, custodian.registry.institution(institution.institution_id))
        block_hash = custodian.chain.block_hash(int(bundle["header"]["number"], 16))
        assert block_hash is not None
        (home / "grant.jwt").write_text(custodian.grants.receipt(consent))
        untrue = revocation_receipt(
            [consent],
            subject.address,
            None,
            custodian.chain.domain,
            custodian.accounts.signing_key,
            custodian=custodian.address,
            at=1,
            by="custodian",
            stored_at=1,
            transaction_hash=None,
            block_number=None,
            block_hash=None,
        )
        (home / "untrue.jwt").write_text(untrue)
        other = Subject("person-2")
        other.furnish(custodian)
        ended = other.grant(custodian, institution)
        other.revoke(custodian, ended)
        (home / "revocation.jwt").write_text(custodian.grants.revocation_receipt(ended))
        (home / "ended.jwt").write_text(custodian.grants.receipt(ended))
        (home / "never.jwt").write_text(stopped_before_its_grant(custodian, institution))
        (home / "erasure.json").write_text(json.dumps({"proof": custodian.eraser.erase(other.ref).proof}))
        (home / "receipt.jwt").write_text(release.receipt + "\n")
        (home / "release.json").write_text(json.dumps({"id": release.release_id, "receipt": release.receipt}))
        (home / "bundle.json").write_text(json.dumps(bundle))
        (home / "key.json").write_text(json.dumps(dict(custodian.accounts.signing_key.as_dict(private=False))))
        with serving(custodian, port):
            yield Auditor(
                home=home,
                rpc_url=config.rpc_url,
                service_url=config.service_url,
                block_hash=block_hash,
                release_id=release.release_id,
            )


def test_a_receipt_is_checked_against_a_node_with_no_custodian_around(auditor: Auditor) -> None:
    for file in ("receipt.jwt", "release.json", "bundle.json"):
        found = auditor.finds(file, "--custodian-key", "key.json", "--rpc-url", auditor.rpc_url)
        assert (found["holds"], found["late"]) == (True, False)
        assert found["entry"]["releaseId"] == auditor.release_id
    # The node may come from the environment, and the key from the service.
    assert auditor.finds("receipt.jwt", "--custodian-key", auditor.service_url, rpc_url=auditor.rpc_url)["holds"]
    said = auditor.run("receipt.jwt", "--custodian-key", "key.json", rpc_url=auditor.rpc_url)
    assert said.stdout.startswith("The receipt holds. It stands in block ")
    assert auditor.release_id in said.stdout
    assert not (auditor.home / ".local").exists()


def test_of_several_keys_the_one_that_the_receipt_names_is_taken(auditor: Auditor) -> None:
    others = new_institution_keys().as_dict(private=False)["keys"]
    auditor.change("key.json", lambda key: {"keys": [*others, {"kty": "EC"}, key]})
    assert auditor.finds("receipt.jwt", "--custodian-key", "key.json", rpc_url=auditor.rpc_url)["holds"]


def test_a_node_of_another_chain_is_not_asked(auditor: Auditor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSENT_LEDGER_CHAIN_ID", "1")
    done = auditor.run("receipt.jwt", "--custodian-key", "key.json", "--json", rpc_url=auditor.rpc_url)
    assert (done.returncode, json.loads(done.stderr)["error"]["code"]) == (4, "wrong_chain")


def test_a_bundle_is_checked_with_no_network_at_all(auditor: Auditor) -> None:
    words = ("receipt.jwt", "--custodian-key", "key.json", "--bundle", "bundle.json")
    found = auditor.finds(*words, "--block-hash", auditor.block_hash)
    assert (found["anchored"], found["blockHash"]) == (True, auditor.block_hash)
    assert auditor.run(*words, "--block-hash", auditor.block_hash).stdout.startswith("The receipt holds. It was on the")
    loose = auditor.finds(*words)
    assert not loose["anchored"]
    done = auditor.run(*words)
    assert "The bundle agrees with itself." in done.stdout
    assert "Not proven yet" in done.stderr


def test_what_does_not_hold_ends_with_5(auditor: Auditor) -> None:
    words = ("receipt.jwt", "--custodian-key", "key.json")
    other = auditor.run(*words, "--bundle", "bundle.json", "--block-hash", "0x" + "ab" * 32)
    assert (other.returncode, "another hash" in other.stderr) == (5, True)
    (auditor.home / "other.json").write_text(json.dumps(new_institution_keys().as_dict(private=False)["keys"][0]))
    foreign = auditor.run("receipt.jwt", "--custodian-key", "other.json", rpc_url=auditor.rpc_url)
    assert (foreign.returncode, "not signed by the custodian" in foreign.stderr) == (5, True)
    auditor.change("bundle.json", lambda bundle: bundle | {"batches": []})
    empty = auditor.run(*words, "--bundle", "bundle.json", "--block-hash", auditor.block_hash, "--json")
    assert (empty.returncode, json.loads(empty.stderr)["error"]["code"]) == (5, "audit")
    receipt = (auditor.home / "receipt.jwt").read_text()
    (auditor.home / "receipt.jwt").write_text(receipt.replace(receipt[200:204], "AAAA"))
    altered = auditor.run(*words, rpc_url=auditor.rpc_url)
    assert altered.returncode == 5


def test_a_bundle_of_another_release_proves_nothing_of_this_one(auditor: Auditor, devnet_config: Config) -> None:
    institution, subject = Institution("bank-2", "Second Bank"), Subject("of-another-release")
    with Custodian(devnet_config) as custodian:
        institution.register(custodian)
        subject.furnish(custodian)
        consent = subject.grant(custodian, institution)
        release = custodian.releases.release(institution.request(custodian, consent))
    (auditor.home / "second.jwt").write_text(release.receipt)
    done = auditor.run("second.jwt", "--custodian-key", "key.json", "--bundle", "bundle.json")
    assert (done.returncode, "of another receipt" in done.stderr) == (5, True)


def test_what_is_asked_wrongly_is_said(auditor: Auditor) -> None:
    key = ("--custodian-key", "key.json")
    (auditor.home / "empty.json").write_text("{}")
    (auditor.home / "list.json").write_text("[]")
    (auditor.home / "symmetric.json").write_text('{"kty": "oct", "k": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}')
    for words, code in (
        (("receipt.jwt", *key, "--bundle", "bundle.json", "--rpc-url", auditor.rpc_url), 2),
        (("receipt.jwt", *key, "--block-hash", auditor.block_hash), 2),
        (("receipt.jwt", *key, "--bundle", "bundle.json", "--block-hash", "latest"), 2),
        (("nowhere.jwt", *key), 2),
        (("empty.json", *key), 2),
        (("receipt.jwt", "--custodian-key", "nowhere.json"), 2),
        (("receipt.jwt", "--custodian-key", "empty.json"), 2),
        (("receipt.jwt", "--custodian-key", "list.json"), 2),
        (("receipt.jwt", "--custodian-key", "symmetric.json"), 2),
        (("receipt.jwt", *key, "--bundle", "list.json"), 2),
        (("receipt.jwt", "--custodian-key", "http://127.0.0.1:1"), 3),
        (("receipt.jwt", "--custodian-key", auditor.rpc_url), 2),
        (("receipt.jwt", *key), 4),
        (("receipt.jwt", *key, "--rpc-url", auditor.service_url), 4),
    ):
        done = auditor.run(*words)
        assert (done.returncode, done.stdout) == (code, ""), (words, done.stderr)
        assert len(done.stderr.splitlines()) == 1, done.stderr


# -------------------------------------------------------------------------------------------------- a person's receipts


def test_a_persons_receipts_are_checked_with_no_network_and_against_a_node_if_one_is_named(auditor: Auditor) -> None:
    granted = auditor.finds("grant.jwt", "--custodian-key", "key.json")
    assert (granted["holds"], granted["grant"]["terms"]["purpose"]) == (True, "loan-origination")
    revoked = auditor.finds("revocation.jwt", "--custodian-key", "key.json")
    assert (revoked["by"], len(revoked["consents"])) == ("subject", 1)
    erased = auditor.finds("erasure.json", "--custodian-key", "key.json")
    assert (erased["envelopesDestroyed"], erased["holds"]) == (3, True)
    for file in ("grant.jwt", "revocation.jwt"):
        assert auditor.finds(file, "--custodian-key", "key.json", "--rpc-url", auditor.rpc_url)["onChain"]
    for file, state in (("grant.jwt", "active"), ("ended.jwt", "revoked"), ("revocation.jwt", "revoked")):
        asked = (file, "--custodian-key", "key.json", "--rpc-url", auditor.rpc_url)
        assert auditor.finds(*asked)["state"] == state
        assert auditor.run(*asked).stdout.splitlines()[-1] == f"On chain: {state}."
    assert "names no one" in auditor.run("erasure.json", "--custodian-key", "key.json").stdout


def test_the_commands_that_the_page_for_receipts_shows_work_as_they_stand(auditor: Auditor) -> None:
    (auditor.home / "consent-receipt.jwt").write_text((auditor.home / "grant.jwt").read_text())
    page = urllib3.request("GET", auditor.service_url.replace("127.0.0.1", "localhost") + "/verify").data.decode()
    shown = re.findall(r">consent-ledger receipts verify ?([^<]*)</(?:code|pre)>", page)
    assert len(shown) == 2
    for words in shown:
        done = auditor.run(*shlex.split(words))
        assert (done.returncode, done.stdout.startswith("The receipt holds: ")) == (0, True), done.stderr


def test_a_persons_receipt_that_was_altered_ends_with_5_and_a_bundle_with_2(auditor: Auditor) -> None:
    for file in ("grant.jwt", "revocation.jwt"):
        token = (auditor.home / file).read_text()
        (auditor.home / file).write_text(token[:-6] + ("AAAAAA" if token[-6:] != "AAAAAA" else "BBBBBB"))
        assert auditor.run(file, "--custodian-key", "key.json").returncode == 5
    assert auditor.run("erasure.json", "--custodian-key", "key.json", "--bundle", "bundle.json").returncode == 2


def test_a_receipt_that_the_chain_does_not_bear_out_ends_with_5(auditor: Auditor) -> None:
    assert "at the wish of: custodian" in auditor.run("untrue.jwt", "--custodian-key", "key.json").stdout
    done = auditor.run("untrue.jwt", "--custodian-key", "key.json", "--rpc-url", auditor.rpc_url)
    assert (done.returncode, "the chain says otherwise" in done.stderr) == (5, True)


def test_a_grant_that_was_stopped_before_it_came_to_the_chain_is_not_borne_out_by_it(auditor: Auditor) -> None:
    words = ("never.jwt", "--custodian-key", "key.json")
    assert auditor.finds(*words)["holds"]
    done = auditor.run(*words, "--rpc-url", auditor.rpc_url)
    assert (done.returncode, "is revoked, and was never granted" in done.stderr) == (5, True)
