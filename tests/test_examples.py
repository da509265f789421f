"""The two walks for a lender's engineer run as they stand, and notice when they are lied to."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pytest
from actors import Subject
from middle import Middle, WireAnswer, altering, cutting
from service import served

from ledger.config import Config
from ledger.consent import Hex32
from ledger.consent_requests import token_of
from ledger.custodian import Custodian
from ledger.devnet import Devnet, free_port, fund, node_binary
from ledger.evidence import verify_receipt

pytestmark = [pytest.mark.devnet, pytest.mark.slow]

ROOT: Final = Path(__file__).parent.parent
EXAMPLES: Final = ROOT / "web" / "examples"
WALKS: Final = ("lender.sh", "lender.mjs")


@dataclass(frozen=True)
class Engineer:
    """Someone with an empty directory, the two files, and what they were told: where the service and a node are."""

    home: Path
    config: Config
    walk: str

    @property
    def name(self) -> str:
        return self.walk.replace(".", "-")

    @property
    def institution(self) -> str:
        return f"did:web:{self.name}.example"

    def run(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = ["bash", self.walk] if self.walk.endswith(".sh") else [node_binary(), self.walk]
        return subprocess.run(
            [*command, *words],
            cwd=self.home,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.home),
                "SERVICE": self.config.service_url,
                "INSTITUTION": self.institution,
                "NAME": self.name,
                "RPC_URL": self.config.rpc_url,
                **environment,
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def does(self, *words: str) -> str:
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@dataclass(frozen=True)
class Site:
    """Where the service is, and who stands before it."""

    config: Config
    middle: Middle


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, devnet: Devnet, stock_tools: None) -> Iterator[Site]:
    """A custodian with one subject, served by gunicorn with two workers, behind a man in the middle."""
    port = free_port()
    middle = Middle(port)
    config = Config(data=tmp_path_factory.mktemp("site") / "data", rpc_url=devnet.url, service_url=middle.url)
    Custodian.init(config)
    with Custodian(config) as custodian:
        fund(custodian.rpc, [account.address for account in custodian.accounts.every()])
        custodian.deploy()
        Subject().furnish(custodian)
    with served(config, port):
        yield Site(config=config, middle=middle)
    middle.close()


@pytest.fixture(params=WALKS)
def engineer(request: pytest.FixtureRequest, tmp_path: Path, site: Site) -> Engineer:
    for file in EXAMPLES.iterdir():
        shutil.copy(file, tmp_path)
    (tmp_path / "node_modules").symlink_to(ROOT / "node_modules")
    return Engineer(home=tmp_path, config=site.config, walk=request.param)


def register(engineer: Engineer) -> None:
    jwks = json.loads((engineer.home / engineer.does("keys")).read_text())
    assert all("d" not in key for key in jwks["keys"]), "private keys stay with the lender"
    with Custodian(engineer.config) as custodian:
        if engineer.institution in {party.party_id for party in custodian.registry.institutions()}:
            custodian.registry.rotate_keys(
                "institution", engineer.institution, jwks, now=custodian.clock(), overlap_seconds=0
            )
        else:
            custodian.registry.add_institution(engineer.institution, engineer.name, jwks, at=custodian.clock())


def granted(engineer: Engineer) -> Hex32:
    """Ask; a person agrees to what is required and to one thing that is optional."""
    register(engineer)
    link = engineer.does("ask")
    subject = Subject()
    with Custodian(engineer.config) as custodian:
        draft = custodian.requests.draft(token_of(link), subject.address, attributes=["savings"])
        subject_id = custodian.vault.subject_of(subject.ref)
        made = custodian.requests.accept(token_of(link), draft, subject.sign(custodian, draft), subject_id)
    assert engineer.does("consent") == made.consent_id
    return made.consent_id


def test_the_walk_leads_to_the_values_and_to_an_entry_on_chain(engineer: Engineer) -> None:
    consent = granted(engineer)
    answer = json.loads(engineer.does("release", consent, "credit_amount", "savings"))
    with Custodian(engineer.config) as custodian:
        assert custodian.chain.consent(consent).accesses == 1
        if engineer.walk == "lender.sh":
            seen = verify_receipt(answer["receipt"], custodian.chain, custodian.accounts.signing_key)
            assert (seen.entry.consent_id, seen.entry.institution) == (consent, engineer.institution)
        else:
            assert {name: held["value"] for name, held in answer["values"].items()} == {
                "credit_amount": 1169,
                "savings": "below_100",
            }
            assert answer["loggedInBlock"] > 0


def test_an_answer_that_was_lost_is_got_by_its_key_and_uses_nothing_up(engineer: Engineer, site: Site) -> None:
    consent = granted(engineer)
    site.middle.plans.append(cutting(0.5))
    lost = engineer.run("release", consent, "credit_amount")
    assert lost.returncode != 0
    (key,) = re.findall(r"^KEY=(\S+)$", lost.stderr, re.MULTILINE)
    again = engineer.run("release", consent, "credit_amount", KEY=key)
    assert again.returncode == 0, again.stderr
    assert f"KEY={key}\n" in again.stderr
    with Custodian(engineer.config) as custodian:
        assert custodian.chain.consent(consent).accesses == 1


def test_an_answer_is_kept_before_it_is_looked_into(engineer: Engineer) -> None:
    consent = granted(engineer)
    done = engineer.run("release", consent, "credit_amount", RPC_URL="http://127.0.0.1:1")
    assert (done.returncode == 0) == (engineer.walk == "lender.sh"), "the other one asks a node"
    kept = json.loads((engineer.home / f"{engineer.name}.release.json").read_text())
    assert kept["answer"]
    assert kept["receipt"]


def test_a_refusal_ends_the_walk_with_its_reason(engineer: Engineer) -> None:
    done = engineer.run("release", granted(engineer), "age")
    assert done.returncode == 1
    assert "attribute_not_consented" in done.stderr


def test_an_answer_by_another_custodian_is_not_believed(engineer: Engineer) -> None:
    register(engineer)
    pinned = {"lender.sh": "custodian.pem", "lender.mjs": "custodian.json"}[engineer.walk]
    engineer.does("ask")
    file = engineer.home / f"{engineer.name}.{pinned}"
    if engineer.walk == "lender.sh":
        key = subprocess.run(
            "openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 | openssl pkey -pubout",
            shell=True,
            capture_output=True,
            check=True,
        )
        file.write_bytes(key.stdout)
    else:
        told = json.loads(file.read_text())
        (key_of_another,) = [
            key
            for key in json.loads((engineer.home / f"{engineer.name}.jwks").read_text())["keys"]
            if key["use"] == "enc"
        ]
        told["jwks"]["keys"][0] |= {name: key_of_another[name] for name in ("x", "y")}
        file.write_text(json.dumps(told))
    done = engineer.run("ask")
    assert done.returncode == 1
    assert "not signed by the custodian" in done.stderr


def test_who_calls_the_service_by_another_address_is_told_the_right_one(engineer: Engineer) -> None:
    register(engineer)
    elsewhere = replace(
        engineer,
        config=replace(engineer.config, service_url=engineer.config.service_url.replace("127.0.0.1", "localhost")),
    )
    for _ in range(2):
        done = elsewhere.run("ask")
        assert done.returncode == 1
        assert f"set SERVICE={engineer.config.service_url}\n" in done.stderr
    assert engineer.does("ask")


@pytest.mark.parametrize("engineer", ["lender.mjs"], indirect=True)
@pytest.mark.parametrize("other", [{"contract": "0x" + "11" * 20}, {"chainId": 1}], ids=["contract", "chain"])
def test_a_receipt_of_another_contract_than_the_pinned_one_is_not_believed(
    engineer: Engineer, other: dict[str, Any]
) -> None:
    consent = granted(engineer)
    file = engineer.home / f"{engineer.name}.custodian.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | other))
    done = engineer.run("release", consent, "savings")
    assert (done.returncode, done.stdout) == (1, "")
    assert "another contract than the pinned one" in done.stderr


@pytest.mark.parametrize(
    "change",
    [
        lambda answer: replace(answer, body=answer.body.replace(b"savings", b"housing")),
        lambda answer: replace(answer, status=200),
        lambda answer: answer.having("Signature", None).having("Signature-Input", None),
        lambda answer: answer.having("Signature-Input", answer.header("Signature-Input").replace('"@status" ', "")),
        lambda answer: answer.having("Content-Digest", None),
    ],
    ids=["body", "status", "unsigned", "covers less", "no digest"],
)
def test_an_altered_answer_ends_the_walk(
    engineer: Engineer, site: Site, change: Callable[[WireAnswer], WireAnswer]
) -> None:
    register(engineer)
    engineer.does("ask")
    site.middle.plans.append(altering(change))
    done = engineer.run("ask")
    assert (done.returncode, done.stdout) == (1, "")
    assert site.middle.plans == []


def test_an_older_answer_ends_the_walk(engineer: Engineer, site: Site) -> None:
    register(engineer)
    for _ in range(2):
        engineer.does("ask")
    old = site.middle.answers[-1]
    site.middle.plans.append(lambda _middle, _request: old)
    done = engineer.run("ask")
    assert (done.returncode, done.stdout) == (1, "")
    assert "not signed by the custodian" in done.stderr
