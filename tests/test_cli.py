"""The command line as its users meet it: the real executable, its output, its exit codes, and what it never prints."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from hashlib import sha256
from http import HTTPStatus
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast

import pytest
import typer
import urllib3
from full_disk import files_up_to
from rich.console import Console
from typer.core import TyperCommand, TyperGroup

from ledger import cli, cli_serve, exchange
from ledger.accounts import WRITERS, Accounts
from ledger.actors import PROPERTIES, Findings
from ledger.chain import JsonRpcChain
from ledger.config import Config
from ledger.custodian import Custodian
from ledger.demo import run_demo
from ledger.devnet import Devnet, free_port
from ledger.erase import Eraser
from ledger.errors import (
    AlreadyExistsError,
    ChainUnavailableError,
    ConfigError,
    DevnetError,
    LedgerError,
    StoreUnavailableError,
)
from ledger.jsonrpc import JsonRpc
from ledger.keys import KeyFile
from ledger.serving import Service
from ledger.store import Store

ROOT: Final = Path(__file__).parent.parent
EXECUTABLE: Final = str(Path(sys.executable).parent / "consent-ledger")
GERMAN: Final = ROOT / "ledger/data/german_statlog_1000.csv"
BANK: Final = "did:web:bank.example"
COURT: Final = "urn:court:1"
BUREAU: Final = "urn:consent-ledger:furnisher:uci-statlog-german-credit"
HIDDEN_VALUE: Final = "18123"
HIDDEN_TEXT: Final = "surprising-secret-4711"
HIDDEN_STATEMENT: Final = "I never had any savings there.\n\u2014 E. M."
SECONDS: Final = 120
_numbers = count(1)


def leaves(command: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], TyperCommand]]:
    """Every verb with its path: `("consents", "list")`."""
    if isinstance(command, TyperCommand):
        yield path, command
    elif isinstance(command, TyperGroup):
        for name, child in command.commands.items():
            yield from leaves(child, (*path, name))


VERBS: Final = dict(leaves(typer.main.get_command(cli.app)))
IN_THE_FOREGROUND: Final = {("up",), ("serve",), ("devnet",), ("demo",)}


@dataclass(frozen=True, slots=True)
class Done:
    code: int
    out: str
    err: str


@dataclass(slots=True)
class Installation:
    """A home and a data directory of their own. `said` is all that was ever printed here."""

    home: Path
    rpc_url: str
    said: list[str] = field(default_factory=list)

    @property
    def data(self) -> Path:
        return self.home / "data"

    @property
    def person(self) -> Path:
        return self.home / "person.key"

    @property
    def jwks(self) -> Path:
        return self.home / "bank.jwks"

    def order_args(self, subject: str, *more: str, reference: str = "12 C 345/26") -> list[str]:
        document = self.home / "order.txt"
        document.write_text("The court orders ...")
        answer = str(self.home / f"ordered-{next(_numbers)}.jwe")
        about = ["--authority", COURT, "--reference", reference, "--attribute", "savings"]
        return ["orders", "execute", subject, *about, "--document", str(document), "--out", answer, *more]

    def environment(self, **changes: str) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "COLUMNS": "80",
            "CONSENT_LEDGER_DATA": str(self.data),
            "CONSENT_LEDGER_RPC_URL": self.rpc_url,
        } | changes

    def execute(self, *args: str, stdin: str = "", **changes: str) -> Done:
        """By the executable that was installed."""
        ended = subprocess.run(
            [EXECUTABLE, *args],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
            env=self.environment(**changes),
            cwd=self.home,
        )
        return self._heard(Done(ended.returncode, ended.stdout, ended.stderr))

    def run(self, *args: str, stdin: str = "", **changes: str) -> Done:
        """By the same entry point in this process: starting Python takes longer than the verb."""
        shown, complained = io.StringIO(), io.StringIO()
        code = 0
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(shown), redirect_stderr(complained):
            for name in [name for name in os.environ if name.startswith("CONSENT_LEDGER_")]:
                patch.delenv(name)
            for name, value in self.environment(**changes).items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["consent-ledger", *args])
            patch.setattr(sys, "stdin", io.StringIO(stdin))
            try:
                cli.main()
            except SystemExit as exc:
                code = int(exc.code or 0)
            finally:
                for number, handler in handlers.items():
                    signal.signal(number, handler)
        return self._heard(Done(code, shown.getvalue(), complained.getvalue()))

    def _heard(self, done: Done) -> Done:
        self.said += [done.out, done.err]
        return done

    def ask(self, *args: str, **changes: str) -> Any:
        """The JSON of a verb that succeeds and says nothing else."""
        done = self.run(*args, "--json", **changes)
        assert (done.code, done.err) == (0, "")
        return json.loads(done.out)

    def refusal(self, *args: str, **changes: str) -> tuple[int, str, str | None]:
        """Exit code, error code and field of a verb that fails under `--json`; nothing is on standard output."""
        done = self.run(*args, "--json", **changes)
        assert done.out == ""
        error = json.loads(done.err)["error"]
        assert error["message"]
        return done.code, error["code"], error.get("field")

    def grant_args(self, **changes: str) -> list[str]:
        options = {
            "key": str(self.person),
            "subject": "german-0002",
            "institution": BANK,
            "purpose": "loan-origination",
            "attribute": "credit_amount",
        } | changes
        return ["grant", *(part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value))]

    def grant(self, **changes: str) -> str:
        consent: str = self.ask(*self.grant_args(**changes))["consent"]
        return consent

    def asked_for(self, **changes: Any) -> str:
        """The link of a consent request by the bank. It asks by HTTP; this is what its request comes to."""
        fields: dict[str, Any] = {
            "purpose": "loan-origination",
            "attributes": ["credit_amount"],
            "optional_attributes": ["savings"],
            "validity_days": 31,
            "max_accesses": 3,
            "accesses_per_day": 3,
            "retention_days": 31,
        } | changes
        with Custodian(Config(data=self.data, rpc_url=self.rpc_url)) as custodian:
            link = custodian.requests.ask(custodian.registry.institution(BANK), **fields).link
        assert link
        return link

    def dispute(self, subject: str, attribute: str, statement: str) -> None:
        """As a person does it in the portal."""
        with Custodian(Config(data=self.data, rpc_url=self.rpc_url)) as custodian:
            custodian.disputes.open(custodian.vault.subject_of(subject), attribute, statement)

    def release_args(self, consent: str, **changes: str) -> list[str]:
        options = {
            "institution": BANK,
            "keys": str(self.jwks),
            "purpose": "loan-origination",
            "attribute": "credit_amount",
            "idempotency_key": f"question-{next(_numbers)}",
        } | changes
        named = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)]
        return ["release", consent, *named]

    def processes(self) -> list[str]:
        """The command lines of all processes with this home, whoever their parent is by now."""
        return list(self._processes().values())

    def first_process(self, name: str) -> int:
        """The id of the oldest process with this in its command line."""
        return min(number for number, line in self._processes().items() if name in line)

    def _processes(self) -> dict[int, str]:
        if not Path("/proc/self/environ").exists():
            pytest.skip("processes are found by their environment, in /proc")
        mark = f"HOME={self.home}\0".encode()
        found: dict[int, str] = {}
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (process / "environ").read_bytes():
                    found[int(process.name)] = (process / "cmdline").read_text().replace("\0", " ")
            except OSError:
                continue
        return found

    def secrets(self) -> set[str]:
        """Every private key and KEK in the files of this installation."""
        found = {self.person.read_text().strip()}
        for path in (self.data / "keys" / "kek.json", self.data / "keys" / "accounts.json", self.jwks):
            text = path.read_text()
            found |= {match.removeprefix("0x") for match in re.findall(r'"((?:0x)?[0-9a-f]{64})"', text)}
            found |= set(re.findall(r'"d": ?"([^"]+)"', text))
        return found


@contextmanager
def running(home: Installation, *args: str) -> Iterator[tuple[subprocess.Popen[str], Any]]:
    """A verb in the foreground of another process, and the JSON line it says when it is ready."""
    command = [EXECUTABLE, *args, "--json"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=home.environment(),
        cwd=home.home,
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, process.stderr.read() if process.stderr else ""
            yield process, json.loads(line)
        finally:
            if process.poll() is None:
                process.terminate()


def end(home: Installation, process: subprocess.Popen[str], by: signal.Signals) -> tuple[int, str]:
    process.send_signal(by)
    rest, complaint = process.communicate(timeout=SECONDS)
    home.said += [rest, complaint]
    assert rest == ""
    return process.returncode, complaint


def health(url: str, path: str = "/healthz") -> int | None:
    """What the service answers to a health check; None if it does not."""
    try:
        return urllib3.PoolManager(retries=False, timeout=SECONDS).request("GET", url + path).status
    except urllib3.exceptions.HTTPError:
        return None


def csv_of(path: Path, rows: int, **replaced: str) -> Path:
    """The first rows of the German file; `row_1="18123"` replaces the credit amount of row 1."""
    header, *lines = GERMAN.read_text().splitlines()[: rows + 1]
    for name, value in replaced.items():
        number = int(name.removeprefix("row_")) - 1
        amount = re.search(r",(\d{3,5}),", lines[number])
        assert amount
        lines[number] = lines[number].replace(amount.group(), f",{value},")
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


@pytest.fixture
def fresh(tmp_path: Path) -> Installation:
    """A home without an installation, at an endpoint that nobody listens on."""
    return Installation(tmp_path, f"http://127.0.0.1:{free_port()}")


@dataclass(frozen=True, slots=True)
class Story:
    """What was told of each verb, and where it took place."""

    home: Installation
    told: dict[tuple[str, ...], Done]


@pytest.fixture(scope="module")
def story(quiet_devnet: Devnet, tmp_path_factory: pytest.TempPathFactory) -> Story:  # noqa: PLR0915 - every verb once
    """Every verb that ends by itself, run once by the executable with `--json`."""
    home = Installation(tmp_path_factory.mktemp("home"), quiet_devnet.url)
    told: dict[tuple[str, ...], Done] = {}

    def tell(*args: str) -> Any:
        verb = next(path for path in sorted(VERBS, key=len, reverse=True) if args[: len(path)] == path)
        told[verb] = home.execute(*args, "--json")
        assert told[verb].code == 0, told[verb].err
        return json.loads(told[verb].out)

    tell("init")
    tell("deploy", "--fund")
    tell("contracts", "verify")
    tell("import", str(csv_of(home.home / "people.csv", 5, row_1=HIDDEN_VALUE)), "--map", "german")
    tell("institutions", "add", BANK, "--name", "Example Bank", "--new-keys", str(home.jwks))
    tell("institutions", "list")
    tell("institutions", "suspend", BANK)
    tell("institutions", "resume", BANK)
    tell("institutions", "rotate-keys", BANK, "--jwks", str(home.jwks))
    tell("furnishers", "add", BUREAU, "--name", "Example Bureau", "--new-keys", str(home.home / "bureau.jwks"))
    tell("furnishers", "list")
    tell("furnishers", "suspend", BUREAU)
    tell("furnishers", "resume", BUREAU)
    tell("furnishers", "rotate-keys", BUREAU, "--jwks", str(home.home / "bureau.jwks"))
    tell("authorities", "add", COURT, "--name", "District Court", "--jwks", str(home.jwks))
    tell("authorities", "list")
    tell("authorities", "suspend", COURT)
    tell("authorities", "resume", COURT)
    order = tell(*home.order_args("german-0001"))["order"]
    tell("orders", "list")
    tell("orders", "show", order)
    tell("subjects", "new-key", str(home.person))
    tell("subjects", "count")
    tell("subjects", "invite", "german-0001")
    consent = tell(*home.grant_args(subject="german-0001"))["consent"]
    tell("consents", "list")
    tell("consents", "show", consent)
    tell("subjects", "show", "german-0001")
    tell(*home.release_args(consent))
    answer, public = home.home / "answer.json", home.home / "custodian.json"
    answer.write_text(told["release",].out)
    signing_key = Accounts.load(home.data / "keys" / "accounts.json").signing_key
    public.write_text(json.dumps(signing_key.as_dict(private=False)))
    tell("receipts", "verify", str(answer), "--custodian-key", str(public))
    tell("audit", "receipt", str(answer), "--custodian-key", str(public))
    tell("audit", "subject", "--address", json.loads(told["grant",].out)["subject"])
    tell("audit", "consent", consent)
    disclosure = home.home / "disclosure.json"
    tell("disclose", "--consent", consent, "--out", str(disclosure))
    tell("audit", "entry", str(disclosure), "--believe-keys")
    tell("audit", "chain", "--without-compiler")
    tell("audit", "reconcile")
    auditor, memory, note = (home.home / name for name in ("auditor.key", "memory", "note"))
    key = tell("audit", "checkpoint", "new-key", "auditor.example", str(auditor))["key"]
    signing = ("--key", str(auditor), "--memory", str(memory), "--out", str(note), "--first")
    tell("audit", "checkpoint", "make", "--without-compiler", *signing)
    tell("audit", "checkpoint", "verify", str(note), "--by", key)
    tell("audit", "checkpoint", "compare", str(note), str(note), "--by", key)
    other = home.home / "witness.key"
    tell("audit", "checkpoint", "new-key", "witness.example", str(other))
    seen = ("--key", str(other), "--memory", str(home.home / "memory-2"), "--out", str(home.home / "note-2"))
    tell("audit", "checkpoint", "cosign", str(note), "--by", key, *seen, "--first")
    tell("pause", consent, "--key", str(home.person))
    tell("log", "--subject", "german-0001")
    tell("duties", "overdue", "--subject", "german-0001")
    tell("revoke", consent, "--key", str(home.person))
    link = home.asked_for()
    tell("requests", "show", link)
    tell("requests", "accept", link, "--key", str(home.person), "--subject", "german-0001", "--attribute", "savings")
    tell("requests", "decline", home.asked_for())
    home.dispute("german-0001", "savings", HIDDEN_STATEMENT)
    (dispute,) = tell("disputes", "list")
    tell("disputes", "resolve", dispute["dispute"], "--outcome", "confirmed", "--answer", "The bank confirmed it.")
    tell("prompts", "export")
    tell("sync")
    (*_, spare) = tell("writers", "list")
    tell("writers", "retire", spare["writer"], "--yes")
    tell("writers", "add", "--fund")
    tell("backup", str(home.home / "backup.db"))
    tell("erase", "german-0001", "--yes")
    tell("keys", "rotate")
    return Story(home, told)


@pytest.fixture
def home(story: Story) -> Installation:
    """Where the story took place."""
    return story.home


# ------------------------------------------------------------------------------------------------------- help and usage


@pytest.mark.parametrize("path", VERBS, ids=" ".join)
def test_help_names_every_option_of_a_verb(path: tuple[str, ...], fresh: Installation) -> None:
    done = fresh.run(*path, "--help")
    assert (done.code, done.err) == (0, "")
    options = {option for one in VERBS[path].params for option in one.opts if option.startswith("--")}
    assert options >= {"--json"}
    assert {option for option in options if option not in done.out} == set()
    assert max(map(len, done.out.splitlines())) <= 80


def test_the_executable_lists_its_verbs(fresh: Installation) -> None:
    done = fresh.execute("--help")
    assert (done.code, done.err) == (0, "")
    assert {path[0] for path in VERBS if path[0] not in done.out} == set()
    assert "CONSENT_LEDGER_DATA" in done.out


@pytest.mark.parametrize(
    "args",
    [
        ["nonsense"],
        ["grant", "--nonsense"],
        ["grant"],
        ["release"],
        ["import", "file.csv"],
        ["log", "--limit", "many"],
        ["log", "--limit", "0"],
        ["up", "--port", "70000"],
        ["up", "--http-port", "0"],
        ["up", "--workers", "0"],
        ["serve", "--port", "8000"],
        ["serve", "--http-port", "many"],
        ["consents"],
        [],
    ],
    ids=" ".join,
)
def test_a_usage_error_exits_with_2_and_does_nothing(args: list[str], fresh: Installation) -> None:
    done = fresh.run(*args)
    assert done.code == 2
    assert "Usage:" in done.out + done.err
    assert not fresh.data.exists()


def test_no_option_takes_a_secret_itself(fresh: Installation) -> None:
    lines = {line for path in VERBS for line in fresh.run(*path, "--help").out.splitlines() if "--" in line}
    named = {line for line in lines if re.search("--[a-z-]*(key|kek|secret|private|password|jwk)", line)}
    files = {line for line in named if "<path>" in line}

    def options(of: set[str]) -> set[str]:
        return {re.findall("--[a-z-]+", line)[0] for line in of}

    assert options(files) == {"--jwks", "--key", "--keys", "--new-keys"}
    # The custodian's is a public one.
    # Public keys, or whether to believe them.
    public = {"--custodian-key", "--institution-key", "--believe-keys"}
    assert options(named - files) == {"--idempotency-key", *public}


# ------------------------------------------------------------------------------------------------------------ the story


@pytest.mark.devnet
def test_every_verb_prints_one_json_document_and_nothing_else(story: Story) -> None:
    assert set(story.told) == set(VERBS) - IN_THE_FOREGROUND
    for verb, done in story.told.items():
        assert done.out.count("\n") == 1, verb
        assert isinstance(json.loads(done.out), dict | list), verb
        assert done.err == "", verb


@pytest.mark.devnet
def test_the_story_says_what_happened(story: Story) -> None:
    said = {verb: json.loads(done.out) for verb, done in story.told.items()}
    assert said[("import",)] == {
        "rows": 5,
        "imported": 5,
        "bad": 0,
        "resumedAt": 0,
        "versions": 100,
        "older": 0,
        "alreadyDone": False,
        "badCells": [],
    }
    assert said[("subjects", "count")] == {"subjects": 5, "erased": 0, "records": 100}
    invited = said[("subjects", "invite")]
    assert re.fullmatch("([0-9A-HJKMNP-TV-Z]{4}-){3}[0-9A-HJKMNP-TV-Z]{4}", invited["code"])
    assert invited["link"] == "http://localhost:8000/enrol"
    assert invited["expiresAt"].endswith("Z")
    assert said[("institutions", "list")] == [
        {"institution": BANK, "name": "Example Bank", "keys": 2, "suspended": False}
    ]
    assert said[("furnishers", "list")] == [
        {"furnisher": BUREAU, "name": "Example Bureau", "keys": 1, "suspended": False}
    ]
    assert said[("furnishers", "suspend")] == {"furnisher": BUREAU, "suspended": True}
    assert said[("institutions", "resume")] == {"institution": BANK, "suspended": False}
    assert said[("duties", "overdue")] == []
    assert said[("consents", "show")]["status"] == said[("grant",)]["status"] == "in_force"
    assert len(said[("subjects", "show")]["attributes"]) == 20
    assert said[("release",)]["values"]["credit_amount"]["value"] == int(HIDDEN_VALUE)
    (entry,) = said[("log",)]
    assert (entry["state"], entry["attributes"], entry["block"]) == (
        "released",
        ["credit_amount"],
        said[("release",)]["block"],
    )
    assert said[("revoke",)]["block"] > said[("pause",)]["block"] > entry["block"]
    accepted = said[("requests", "accept")]
    assert (accepted["status"], accepted["attributes"]) == ("in_force", ["credit_amount", "savings"])
    assert said[("requests", "show")]["state"] == "pending"
    assert said[("requests", "decline")]["state"] == "declined"
    assert [one["statement"] for one in said[("disputes", "list")]] == [HIDDEN_STATEMENT]
    resolved = said[("disputes", "resolve")]
    assert (resolved["outcome"], resolved["answer"]) == ("confirmed", "The bank confirmed it.")
    counted = {one["kind"]: one["number"] for one in said[("prompts", "export")]}
    assert counted == {"accepted": 1, "declined": 1}
    assert said[("erase",)]["envelopes"] == 20
    assert (said[("erase",)]["onChain"], said[("erase",)]["scrubbed"]) == (True, True)
    assert said[("keys", "rotate")]["destroyed"] == said[("erase",)]["readableInBackupsUntilDestroyed"]


@pytest.mark.devnet
def test_a_person_reads_results_without_any_json(home: Installation) -> None:
    consent = home.grant(max_accesses="2", per_day="2")
    released = home.run(*home.release_args(consent))
    assert released.code == 0
    assert "credit_amount" in released.out
    for args in (
        ["consents", "list", "--subject", "german-0002"],
        ["consents", "show", consent],
        ["subjects", "show", "german-0002"],
        ["log", "--consent", consent],
    ):
        done = home.run(*args)
        assert (done.code, done.err) == (0, "")
        assert consent in done.out.split(), "the id is whole, on a line that can be copied"
        assert not set("{}┃│") & set(done.out)
        assert max(map(len, done.out.splitlines())) <= 80
    assert max(map(len, released.out.splitlines())) <= 80


@pytest.mark.devnet
def test_granting_can_print_the_id_alone(home: Installation) -> None:
    assert re.fullmatch(r"0x[0-9a-f]{64}\n", home.run(*home.grant_args(), "--print-id").out)


@pytest.mark.devnet
def test_without_a_retention_the_purpose_decides(home: Installation) -> None:
    consent = home.grant(purpose="tenancy-check", attribute="credit_history")
    assert home.ask("consents", "show", consent)["status"] == "in_force"


@pytest.mark.devnet
def test_a_person_agrees_to_the_required_and_to_what_was_chosen(home: Installation) -> None:
    link = home.asked_for()
    args = ("requests", "accept", link, "--key", str(home.person), "--subject", "german-0002")
    done = home.run(*args, "--max-accesses", "1", "--days", "2", "--print-id")
    assert re.fullmatch(r"0x[0-9a-f]{64}\n", done.out)
    granted = home.ask("consents", "show", done.out.strip())
    assert (granted["attributes"], granted["maxAccesses"]) == (["credit_amount"], 1)
    assert home.ask("requests", "show", link.rsplit("/", 1)[1])["consent"] == granted["consent"]
    assert home.refusal(*args) == (2, "conflict", "request")
    assert home.refusal("requests", "decline", link) == (2, "conflict", "request")
    assert home.ask(*home.release_args(granted["consent"]))["values"]


@pytest.mark.devnet
def test_a_person_reads_what_is_asked_and_why(home: Installation) -> None:
    old = home.grant()
    link = home.asked_for(replaces=old)
    shown = home.run("requests", "show", link)
    assert (shown.code, shown.err) == (0, "")
    for part in (BANK, "Example Bank", "To decide whether you get the loan", "credit_amount", "savings", "31 days"):
        assert part in shown.out
    assert old in shown.out.split(), "the id is whole, on a line that can be copied"
    assert max(map(len, shown.out.splitlines())) <= 80
    assert home.run("requests", "decline", link).out == "Declined.\n"
    assert home.ask("requests", "show", link)["state"] == "declined"
    assert home.ask("consents", "show", old)["status"] == "in_force"


@pytest.mark.devnet
def test_a_request_that_someone_claimed_is_shown_and_answered_as_theirs_alone(home: Installation) -> None:
    link = home.asked_for()
    with Custodian(Config(data=home.data, rpc_url=home.rpc_url)) as custodian:
        custodian.own_requests.claim(link.rsplit("/", 1)[-1], custodian.vault.subject_of("german-0002"))
    for verb in ("show", "decline"):
        assert home.refusal("requests", verb, link) == (2, "not_found", "request")
        assert home.refusal("requests", verb, link, "--subject", "german-0003") == (2, "not_found", "request")
        assert home.ask("requests", verb, link, "--subject", "german-0002")["institution"] == BANK
    assert home.ask("requests", "show", link, "--subject", "german-0002")["state"] == "declined"


@pytest.mark.devnet
def test_2_an_answer_to_a_request_names_what_is_wrong(home: Installation) -> None:
    link, nowhere = home.asked_for(max_accesses=2, accesses_per_day=2), "https://elsewhere.example/requests/xyz"
    person = ("--key", str(home.person), "--subject", "german-0002")
    for verb in (("show", nowhere), ("accept", nowhere, *person), ("decline", nowhere)):
        assert home.refusal("requests", *verb) == (2, "not_found", "request")
    accept = ("requests", "accept", link, *person)
    assert home.refusal(*accept, "--max-accesses", "3") == (2, "outside_request", "maxAccesses")
    assert home.refusal(*accept, "--days", "32") == (2, "outside_request", "validityDays")
    assert home.refusal(*accept, "--attribute", "credit_duration") == (2, "outside_request", "attributes")
    stranger = ("--key", str(home.person), "--subject", "nobody")
    assert home.refusal("requests", "accept", link, *stranger) == (2, "not_found", "subject")
    assert home.ask("requests", "show", link)["state"] == "pending"


@pytest.mark.devnet
def test_4_an_answer_that_is_on_file_says_so_instead_of_inviting_a_second_one(home: Installation) -> None:
    link = home.asked_for()
    args = ("requests", "accept", link, "--key", str(home.person), "--subject", "german-0002")
    nowhere = f"http://127.0.0.1:{free_port()}"
    done = home.run(*args, "--json", CONSENT_LEDGER_RPC_URL=nowhere)
    message = json.loads(done.err)["error"]["message"]
    assert done.code == 4
    assert "`consent-ledger sync`" in message
    assert home.refusal(*args) == (2, "conflict", "request")
    home.ask("sync")
    assert home.ask("requests", "show", link)["consent"] in message


@pytest.mark.devnet
def test_pausing_resuming_and_revoking_change_the_status(home: Installation) -> None:
    consent = home.grant()
    key = ("--key", str(home.person))

    def status() -> str:
        (own,) = [one for one in home.ask("consents", "list") if one["consent"] == consent]
        return str(own["status"])

    home.ask("pause", consent, *key)
    assert status() == "paused"
    home.ask("pause", consent, *key, "--resume")
    assert status() == "in_force"
    home.ask("revoke", consent, *key)
    assert status() == "revoked"


@pytest.mark.devnet
def test_one_signature_revokes_many(home: Installation) -> None:
    consents = [home.grant(), home.grant()]
    done = home.run("revoke", *consents, "--key", str(home.person))
    assert (done.code, done.out[:18]) == (0, "Revoked 2 consents")
    assert {home.ask("consents", "show", one)["status"] for one in consents} == {"revoked"}


@pytest.mark.devnet
def test_the_log_is_by_person_by_consent_and_both(home: Installation) -> None:
    mine, other = home.grant(subject="german-0003", max_accesses="2", per_day="2"), home.grant(subject="german-0004")
    home.ask(*home.release_args(mine))
    home.ask(*home.release_args(other))
    home.refusal(*home.release_args(mine, purpose="account-review"))
    assert {row["reason"] for row in home.ask("log", "--consent", mine)} == {"purpose_mismatch", None}
    assert {row["consent"] for row in home.ask("log", "--subject", "german-0003")} == {mine}
    assert home.ask("log", "--subject", "german-0003", "--consent", other) == []
    assert {mine, other} <= {row["consent"] for row in home.ask("log")}
    assert len(home.ask("log", "--limit", "1")) == 1


@pytest.mark.devnet
def test_an_erased_persons_entries_stay_and_say_nothing(home: Installation, story: Story) -> None:
    consent = json.loads(story.told[("grant",)].out)["consent"]
    (row,) = home.ask("log", "--consent", consent)
    assert (row["institution"], row["purpose"], row["attributes"]) == ("(erased)", "(erased)", [])
    assert row["block"] is not None
    assert "    (erased)\n" in home.run("log", "--consent", consent).out
    assert home.refusal("log", "--subject", "german-0001") == (1, "erased", "subject")
    assert consent not in {one["consent"] for one in home.ask("consents", "list")}


@pytest.mark.devnet
def test_what_an_institution_writes_cannot_steer_the_terminal_of_who_reads_the_log(home: Installation) -> None:
    consent = home.grant()
    # Markup that does not close used to end `log` by a traceback; the sequence clears the screen.
    args = home.release_args(consent, attribute="[/red]", purpose="account-review")
    assert home.refusal(*args, "--attribute", "\x1b[2J:key:\u202e")[0] == 1
    done = home.run("log", "--consent", consent)
    assert done.code == 0
    assert "[/red], \\x1b[2J:key:\\u202e" in done.out
    assert not {"\x1b", "\u202e"} & set(done.out)


@pytest.mark.devnet
def test_names_are_shown_as_they_are(home: Installation) -> None:
    keys = home.home / "odd.jwks"
    home.ask("institutions", "add", "did:key:odd", "--name", "[/b] :key: Südkredit", "--new-keys", str(keys))
    done = home.run("institutions", "list")
    assert done.code == 0
    assert "did:key:odd" in done.out
    assert "[/b] :key: Südkredit" in done.out


# -------------------------------------------------------------------------------------------------------------- parties


def test_a_furnishers_new_keys_are_for_its_owner_alone_and_can_only_sign(fresh: Installation) -> None:
    fresh.ask("init")
    keys = fresh.home / "bureau.jwks"
    done = fresh.run("furnishers", "add", BUREAU, "--name", "Example Bureau", "--new-keys", str(keys))
    assert (done.code, done.err) == (0, "")
    assert (BUREAU in done.out, str(keys) in done.out) == (True, True)
    assert stat.S_IMODE(keys.stat().st_mode) == 0o600
    assert [key["use"] for key in json.loads(keys.read_text())["keys"]] == ["sig"]
    assert fresh.refusal("institutions", "add", "x", "--name", "x", "--jwks", str(keys)) == (2, "malformed", "jwks")
    # What is not registered as one is not one.
    assert fresh.refusal("institutions", "suspend", BUREAU) == (2, "not_found", "institution")


def test_a_furnisher_is_registered_once_and_a_refused_one_leaves_no_keys(fresh: Installation) -> None:
    fresh.ask("init")
    first, second = fresh.home / "first.jwks", fresh.home / "second.jwks"
    assert fresh.refusal("furnishers", "add", BUREAU, "--name", "x") == (2, "malformed", "jwks")
    fresh.ask("furnishers", "add", BUREAU, "--name", "x", "--new-keys", str(first))
    again = ("furnishers", "add", BUREAU, "--name", "x", "--new-keys", str(second))
    assert fresh.refusal(*again) == (2, "already_exists", "furnisher")
    assert (first.exists(), second.exists()) == (True, False)
    fresh.ask("furnishers", "add", "urn:other", "--name", "y", "--jwks", str(first))
    assert [one["furnisher"] for one in fresh.ask("furnishers", "list")] == [BUREAU, "urn:other"]


def test_suspending_is_seen_in_the_list_until_it_is_taken_back(fresh: Installation) -> None:
    fresh.ask("init")
    for role in ("institutions", "furnishers"):
        fresh.ask(role, "add", "urn:x", "--name", "x", "--new-keys", str(fresh.home / f"{role}.jwks"))
        for verb, suspended in (("suspend", True), ("suspend", True), ("resume", False)):
            assert fresh.run(role, verb, "urn:x").out == f"{verb.capitalize().rstrip('e')}ed: urn:x\n"
            assert [one["suspended"] for one in fresh.ask(role, "list")] == [suspended]
        assert fresh.refusal(role, "suspend", "urn:nobody") == (2, "not_found", role.removesuffix("s"))
        assert fresh.refusal(role, "resume", "urn:nobody") == (2, "not_found", role.removesuffix("s"))


def test_new_keys_count_beside_the_old_ones_for_the_overlap(fresh: Installation) -> None:
    fresh.ask("init")
    for role, keys in (("institutions", 2), ("furnishers", 1)):
        first, second = fresh.home / f"{role}-1.jwks", fresh.home / f"{role}-2.jwks"
        fresh.ask(role, "add", "urn:x", "--name", "x", "--new-keys", str(first))
        fresh.ask(role, "add", "urn:y", "--name", "y", "--new-keys", str(second))
        assert fresh.ask(role, "rotate-keys", "urn:x", "--jwks", str(second))["keys"] == 2 * keys
        rotated = fresh.ask(role, "rotate-keys", "urn:y", "--jwks", str(first), "--overlap-days", "0")
        assert rotated["keys"] == keys
        assert fresh.run(role, "rotate-keys", "urn:x", "--jwks", str(second), "--overlap-days", "91").code == 2
        unknown = fresh.refusal(role, "rotate-keys", "urn:nobody", "--jwks", str(first))
        assert unknown == (2, "not_found", role.removesuffix("s"))
        assert fresh.refusal(role, "rotate-keys", "urn:x", "--jwks", "/nowhere") == (2, "unreadable_file", "file")


@pytest.mark.devnet
def test_a_suspended_lender_is_refused_and_a_retired_key_is_no_key(home: Installation) -> None:
    lender, old, new = "did:web:second.example", home.home / "old.jwks", home.home / "new.jwks"
    home.ask("institutions", "add", lender, "--name", "Second Bank", "--new-keys", str(old))
    home.ask("institutions", "add", "did:web:third.example", "--name", "Third Bank", "--new-keys", str(new))
    consent = home.grant(institution=lender, subject="german-0003", max_accesses="3", per_day="3")

    def asked(keys: Path) -> int:
        return home.run(*home.release_args(consent, institution=lender, keys=str(keys))).code

    home.ask("institutions", "suspend", lender)
    assert home.refusal(*home.release_args(consent, institution=lender, keys=str(old)))[:2] == (
        1,
        "institution_suspended",
    )
    home.ask("institutions", "resume", lender)
    assert asked(old) == 0
    home.ask("institutions", "rotate-keys", lender, "--jwks", str(new), "--overlap-days", "0")
    assert (asked(old), asked(new)) == (2, 0)


# --------------------------------------------------------------------------------------------------------------- duties


@pytest.mark.devnet
def test_an_overdue_deletion_is_listed_for_the_person_and_for_the_auditor(home: Installation) -> None:
    consent = home.grant(subject="german-0003", retention_days="0")
    home.ask(*home.release_args(consent))
    assert home.run("duties", "overdue").out == "Nothing is overdue.\n"
    with sqlite3.connect(home.data / "ledger.db") as database:
        # Eight days pass.
        database.execute("UPDATE releases SET finished_at = finished_at - 691200 WHERE consent_id = ?", (consent,))
    database.close()
    (listed,) = home.ask("duties", "overdue")
    assert (listed["consent"], listed["institution"]) == (consent, BANK)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", listed["dueAt"])
    assert home.ask("duties", "overdue", "--subject", "german-0003") == [listed]
    assert home.ask("duties", "overdue", "--subject", "german-0004") == []
    assert home.run("duties", "overdue").out == f"{consent}\n    {BANK}, due {listed['dueAt']}\n"
    assert home.refusal("duties", "overdue", "--subject", "nobody") == (2, "not_found", "subject")


# ----------------------------------------------------------------------------------------------------------- exit codes


@pytest.mark.devnet
def test_1_the_answer_is_no(home: Installation) -> None:
    consent = home.grant()
    home.ask("pause", consent, "--key", str(home.person))
    assert home.refusal(*home.release_args(consent)) == (1, "paused", None)
    assert home.refusal(*home.release_args(consent, attribute="savings"))[:2] == (1, "paused")
    done = home.run(*home.release_args(consent))
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error (paused): ")


@pytest.mark.devnet
@pytest.mark.parametrize(
    ("changes", "code", "field_name", "says"),
    [
        ({"days": "99"}, "ceiling_exceeded", "expiresAt", ["31 days"]),
        ({"max_accesses": "9"}, "ceiling_exceeded", "maxAccesses", ["at most 3"]),
        ({"retention_days": "32"}, "ceiling_exceeded", "retentionDays", ["at most 31"]),
        ({"attribute": "foreign_worker"}, "ceiling_exceeded", "attributes", ["foreign_worker"]),
        ({"attribute": "nonsense"}, "unknown_attribute", "attributes", ["names of the catalogue"]),
        ({"purpose": "nonsense"}, "unknown_purpose", "purpose", ["loan-origination", "tenancy-check"]),
        ({"days": "0"}, "invalid_window", "expiresAt", []),
        ({"days": "99999999999999"}, "invalid_window", "expiresAt", []),
        ({"institution": "did:web:nobody.example"}, "not_found", "institution", []),
        ({"subject": "nobody"}, "not_found", "subject", []),
        ({"replaces": "0x12"}, "malformed", "replaces", ["64 hex digits"]),
        ({"notice": "/nowhere"}, "unreadable_file", "notice", ["/nowhere"]),
    ],
)
def test_2_a_grant_of_too_much_or_of_nonsense_names_the_field(
    home: Installation, changes: dict[str, str], code: str, field_name: str, says: list[str]
) -> None:
    done = home.run(*home.grant_args(**changes), "--json")
    error = json.loads(done.err)["error"]
    assert (done.code, error["code"], error["field"]) == (2, code, field_name)
    assert error["message"].startswith(field_name) or field_name == "notice"
    assert [part for part in says if part not in error["message"]] == []


@pytest.mark.devnet
def test_2_the_request_is_wrong(home: Installation) -> None:
    key = str(home.person)
    unknown = "0x" + "12" * 32
    assert home.refusal("pause", "0x12", "--key", key) == (2, "malformed", "consent")
    assert home.refusal("revoke", "0x12", "--key", key) == (2, "malformed", "consent")
    assert home.refusal("log", "--consent", "0x12") == (2, "malformed", "consent")
    assert home.refusal("consents", "show", unknown)[:2] == (2, "not_found")
    assert home.refusal("subjects", "show", "nobody") == (2, "not_found", "subject")
    assert home.refusal("import", "/nowhere.csv", "--map", "german") == (2, "unreadable_file", "file")
    assert home.refusal("subjects", "invite", "nobody") == (2, "not_found", "subject")
    assert home.refusal("subjects", "new-key", key)[:2] == (2, "already_exists")
    assert home.refusal("subjects", "new-key", "/dev/null/key") == (2, "malformed", "file")
    assert home.refusal(*home.release_args(unknown, keys="/nowhere.jwks"))[:2] == (2, "unreadable_file")
    assert home.refusal("institutions", "add", "x", "--name", "x") == (2, "malformed", "jwks")
    assert home.refusal("institutions", "add", "x", "--name", "x", "--jwks", "/nowhere")[1] == "unreadable_file"


@pytest.mark.devnet
def test_2_a_lender_that_is_registered_already_leaves_no_keys_behind(home: Installation) -> None:
    keys = home.home / "again.jwks"
    args = ("institutions", "add", BANK, "--name", "Again", "--new-keys", str(keys))
    assert home.refusal(*args) == (2, "already_exists", "institution")
    assert not keys.exists()


@pytest.mark.devnet
def test_2_a_strangers_key_revokes_nothing(home: Installation) -> None:
    consent = home.grant()
    stranger = home.home / f"stranger-{next(_numbers)}.key"
    home.ask("subjects", "new-key", str(stranger))
    assert home.refusal("revoke", consent, "--key", str(stranger))[:2] == (2, "invalid_signature")
    assert home.ask("consents", "show", consent)["status"] == "in_force"


@pytest.fixture
def small(devnet: Devnet, tmp_path: Path) -> Installation:
    """An installation of its own with one person and one consent, on a node that others use as well."""
    home = Installation(tmp_path, devnet.url)
    home.ask("init")
    home.ask("deploy", "--fund")
    home.ask("import", str(csv_of(home.home / "people.csv", 2)), "--map", "german")
    home.ask("institutions", "add", BANK, "--name", "Example Bank", "--new-keys", str(home.jwks))
    home.ask("subjects", "new-key", str(home.person))
    return home


def restore(home: Installation, backup: Path) -> None:
    """As the README tells it."""
    for left in home.data.glob("ledger.db*"):
        left.unlink()
    backup.rename(home.data / "ledger.db")


@pytest.mark.devnet
def test_a_backup_that_is_older_than_the_last_access_is_said_and_a_verb_lets_releases_go_on(
    small: Installation,
) -> None:
    consent = small.grant(subject="german-0001", max_accesses="3", per_day="3")
    backup = small.home / "backup.db"
    told = small.ask("backup", str(backup))
    assert (told["backup"], told["bytes"]) == (str(backup), backup.stat().st_size)
    assert small.refusal("backup", str(backup))[:2] == (2, "already_exists")
    small.ask(*small.release_args(consent))
    restore(small, backup)
    assert small.refusal(*small.release_args(consent))[:2] == (4, "log_ahead")

    done = small.run("sync", "--json")
    (ahead,) = json.loads(done.out)["ahead"]
    assert (ahead["state"], ahead["onChain"], ahead["onFile"]) == ("ahead", 1, 0)
    assert (done.code, json.loads(done.err)["error"]["code"]) == (4, "log_ahead")
    human = small.run("sync")
    assert (human.code, human.out) == (4, "Not in sync; done: nothing.\n")
    assert f"the log of writer {ahead['writer']} is ahead: 1 entries on chain, 0 in this journal" in human.err
    assert "`consent-ledger writers retire ADDRESS`" in human.err

    # Not without a yes, and no other key than one of these.
    retire = ("writers", "retire", ahead["writer"])
    assert small.refusal(*retire) == (2, "malformed", "yes")
    assert small.run(*retire, stdin="n\n").code == 2
    assert small.refusal("writers", "retire", "0x" + "11" * 20, "--yes") == (2, "not_found", "writer")
    assert small.refusal("writers", "retire", "0x11", "--yes")[:2] == (2, "malformed")
    done = small.run(*retire, stdin="y\n")
    assert done.code == 0
    assert "Writers that can be used: 7." in done.out
    assert small.run("sync").out == "In sync.\n"
    assert small.ask(*small.release_args(consent))["values"]
    # `deploy` lets writers in, and not this one.
    small.ask("deploy")
    assert [log["state"] for log in small.ask("writers", "list")].count("usable") == 7
    added = small.run("writers", "add", "--fund")
    assert (added.code, added.err) == (0, "")
    assert "Back up the keys anew." in added.out
    assert [log["state"] for log in small.ask("writers", "list")].count("usable") == 8
    # The entry of before is on chain, not on file, and no secret.
    done = small.run("audit", "reconcile", "--json")
    assert done.code == 1
    assert "entry_not_on_file" in {one["code"] for one in json.loads(done.out)["findings"]}, done


@pytest.mark.devnet
def test_who_was_erased_is_erased_again_before_a_restored_database_is_served(small: Installation) -> None:
    backup = small.home / "backup.db"
    small.ask("backup", str(backup))
    small.ask("erase", "german-0001", "--yes")
    restore(small, backup)
    assert small.ask("subjects", "count")["erased"] == 0
    # It comes before the service, which does not start here.
    port = ("--http-port", str(free_port()))
    assert small.refusal("serve", *port, "--workers", str(WRITERS))[:2] == (3, "config")
    assert small.ask("subjects", "count")["erased"] == 1


@pytest.mark.devnet
@pytest.mark.parametrize("answer", ["n\n", ""], ids=["no", "nobody there"])
def test_2_without_a_yes_nobody_is_erased(home: Installation, answer: str) -> None:
    done = home.run("erase", "german-0005", stdin=answer)
    assert (done.code, done.out) == (2, "")
    assert "nothing was erased" in done.err
    # Under --json nobody is asked: a question would be in the way of who reads the output.
    assert home.refusal("erase", "german-0005") == (2, "malformed", "yes")
    assert len(home.ask("subjects", "show", "german-0005")["attributes"]) == 20


@pytest.mark.devnet
def test_what_is_unfinished_of_an_erasure_is_said(small: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(_: Store) -> None:
        raise StoreUnavailableError("somebody is reading")

    for number in (1, 2):
        small.grant(subject=f"german-000{number}")
    nowhere = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setattr(Store, "scrub", busy)
    done = small.run("erase", "german-0001", "--yes", CONSENT_LEDGER_RPC_URL=nowhere)
    assert done.code == 0
    assert "Not revoked on chain yet: run `consent-ledger sync`.\n" in done.out
    assert (
        "Traces are left in the write-ahead log, because someone was reading: run `consent-ledger sync`.\n" in done.out
    )
    said = small.ask("erase", "german-0002", "--yes", CONSENT_LEDGER_RPC_URL=nowhere)
    assert (said["onChain"], said["scrubbed"]) == (False, False)
    monkeypatch.undo()
    assert small.ask("sync")["relayed"] == 2


@pytest.mark.devnet
def test_what_an_erasure_would_take_is_said_and_nothing_is_erased(home: Installation) -> None:
    consent = home.grant(subject="german-0005", max_accesses="2", per_day="2")
    home.ask(*home.release_args(consent))
    before = home.ask("subjects", "count")
    found = home.ask("erase", "german-0005", "--preview")
    assert found["rows"]["records"] == 20
    assert (found["consentsThatEnd"], found["onChain"]) == ([consent], [consent])
    (kept,) = found["heldElsewhere"]
    assert (kept["consent"], kept["institution"], kept["institutionName"]) == (consent, BANK, "Example Bank")
    human = home.run("erase", "german-0005", "--preview")
    assert human.code == 0
    assert "Nothing was erased. It would take 20 values and end 1 consent.\n" in human.out
    assert f"Example Bank may keep what it read until {kept['until']}." in human.out
    assert found["readableInBackupsUntilDestroyed"][0] in human.out
    assert home.refusal("erase", "german-0005", "--preview", "--yes") == (2, "malformed", "yes")
    assert home.refusal("erase", "german-0001", "--preview") == (1, "erased", "subject")
    assert (home.ask("subjects", "count"), home.ask("consents", "show", consent)["status"]) == (before, "in_force")


@pytest.mark.devnet
def test_3_keys_that_others_can_read_are_refused(home: Installation) -> None:
    consent = home.grant()
    for file, args in (
        (home.person, ["revoke", consent, "--key", str(home.person)]),
        (home.person, home.grant_args()),
        (home.jwks, home.release_args(consent)),
        (home.data / "keys" / "kek.json", ["subjects", "count"]),
        (home.data / "keys" / "accounts.json", ["subjects", "count"]),
    ):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        file.chmod(0o644)
        try:
            assert home.refusal(*args)[:2] == (3, "key_file")
        finally:
            file.chmod(0o600)
    assert home.ask("consents", "show", consent)["status"] == "in_force"


def test_3_nothing_is_set_up(fresh: Installation) -> None:
    assert fresh.refusal("subjects", "count") == (3, "key_file", None)
    done = fresh.run("subjects", "count")
    assert (done.code, done.out) == (3, "")
    assert "`consent-ledger init`" in done.err


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CONSENT_LEDGER_TIMEOUT", "soon"),
        ("CONSENT_LEDGER_CHAIN_ID", "0"),
        ("CONSENT_LEDGER_FINALITY", "pending"),
        ("CONSENT_LEDGER_RPC_URL", "ftp://x"),
    ],
)
def test_3_a_setting_that_makes_no_sense_is_named(fresh: Installation, name: str, value: str) -> None:
    done = fresh.run("sync", "--json", **{name: value})
    error = json.loads(done.err)["error"]
    assert (done.code, error["code"]) == (3, "config")
    assert error["message"].startswith(name)


def test_3_a_data_directory_that_cannot_be_made(fresh: Installation) -> None:
    assert fresh.refusal("init", CONSENT_LEDGER_DATA="/dev/null/data")[0] == 3


def test_4_the_endpoint_is_down(fresh: Installation) -> None:
    fresh.ask("init")
    assert fresh.refusal("sync")[:2] == (4, "chain_unavailable")
    assert fresh.refusal("contracts", "verify")[:2] == (4, "chain_unavailable")
    done = fresh.run("sync")
    assert done.code == 4
    assert fresh.rpc_url in done.err


@pytest.mark.devnet
def test_4_the_endpoint_serves_another_chain(devnet: Devnet, tmp_path: Path) -> None:
    home = Installation(tmp_path, devnet.url)
    home.ask("init", CONSENT_LEDGER_CHAIN_ID="5")
    assert home.refusal("sync", CONSENT_LEDGER_CHAIN_ID="5")[:2] == (4, "wrong_chain")
    assert home.refusal("sync")[:2] == (3, "store_mismatch")


@pytest.mark.devnet
def test_4_a_grant_that_is_on_file_says_so_instead_of_inviting_a_second_one(home: Installation) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    done = home.run(*home.grant_args(subject="german-0005"), "--json", CONSENT_LEDGER_RPC_URL=nowhere)
    message = json.loads(done.err)["error"]["message"]
    assert done.code == 4
    assert "`consent-ledger sync`" in message
    (consent,) = re.findall("0x[0-9a-f]{64}", message)
    assert home.ask("sync")["relayed"] == 1
    assert home.ask("consents", "show", consent)["status"] == "in_force"


@pytest.mark.parametrize("broken", [["P4: something was released"], []], ids=["broken", "not exercised"])
def test_5_what_must_hold_does_not(fresh: Installation, monkeypatch: pytest.MonkeyPatch, broken: list[str]) -> None:
    findings = Findings(broken=broken)
    for prop in list(PROPERTIES)[1 - len(broken) :]:
        findings.check(prop, True, "held")
    monkeypatch.setattr(cli, "run_demo", lambda **_: findings)
    done = fresh.run("demo", "--json")
    assert done.code == 5
    assert json.loads(done.out)["holds"] is False
    assert json.loads(done.err)["error"]["code"] == "audit"


# --------------------------------------------------------------------------------------------------- init and importing


def test_init_twice_is_refused_and_changes_nothing(fresh: Installation) -> None:
    done = fresh.execute("init")
    assert (done.code, done.err) == (0, "")
    assert str(fresh.data) in done.out
    before = {path: path.read_bytes() for path in fresh.data.rglob("*") if path.is_file()}
    assert fresh.refusal("init")[:2] == (2, "already_exists")
    assert {path: path.read_bytes() for path in fresh.data.rglob("*") if path.is_file()} == before


def test_what_init_makes_is_for_the_owner_alone(fresh: Installation) -> None:
    fresh.ask("init")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [fresh.data, *fresh.data.rglob("*")]}
    assert {name for name, mode in modes.items() if mode & 0o077} == set()
    fresh.ask("subjects", "new-key", str(fresh.person))
    assert stat.S_IMODE(fresh.person.stat().st_mode) == 0o600


@pytest.mark.parametrize("room", [0, 500, 3000, 20_000], ids=["no key", "no account", "no database", "half of one"])
def test_init_on_a_full_disk_says_so_and_is_done_once_there_is_room(fresh: Installation, room: int) -> None:
    fresh.data.mkdir(mode=0o700)
    with files_up_to(room):
        done = fresh.run("init", "--json")
    assert (done.code, done.out) == (3, "")
    if room <= 500:
        lacking = fresh.data / "keys" / ("kek.json" if room == 0 else "accounts.json")
        assert str(lacking) in json.loads(done.err)["error"]["message"]
    left = {path.name for path in fresh.data.rglob("*") if path.is_file()}
    assert left <= {"init"}
    fresh.ask("init")


def test_an_init_that_is_interrupted_leaves_nothing_in_the_way(
    fresh: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> Store:
        raise KeyboardInterrupt

    config = Config(data=fresh.data)
    with monkeypatch.context() as patched:
        patched.setattr(Store, "create", interrupt)
        with pytest.raises(KeyboardInterrupt):
            Custodian.init(config)
    Custodian.init(config)


def test_of_two_inits_at_once_one_is_done_and_the_other_refused(
    fresh: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, create, refused = Config(data=fresh.data), KeyFile.create, []

    def init() -> None:
        try:
            Custodian.init(config)
        except AlreadyExistsError as exc:
            refused.append(exc)

    second = threading.Thread(target=init)

    def create_late(path: Path) -> KeyFile:
        if second.ident is None:
            # Nothing is there yet, and there is time enough for the second one to make everything.
            second.start()
            second.join(timeout=1)
        return create(path)

    monkeypatch.setattr(KeyFile, "create", create_late)
    init()
    second.join(timeout=SECONDS)
    assert len(refused) == 1
    fresh.ask("subjects", "count")


def test_an_import_skips_bad_rows_and_names_line_and_column(fresh: Installation) -> None:
    fresh.ask("init")
    file = csv_of(fresh.home / "bad.csv", 3, row_2=HIDDEN_TEXT)
    done = fresh.run("import", str(file), "--map", "german")
    assert done.code == 0, "rows were taken in, so this is no failure; --strict makes it one"
    assert done.out == "bad.csv: 2 rows imported, 1 bad row skipped, 40 new values.\n"
    assert re.fullmatch(r"line 3, column credit_amount: expected .+\n", done.err)
    again = fresh.ask("import", str(file), "--map", "german")
    assert (again["alreadyDone"], again["imported"], again["bad"]) == (True, 2, 1)


def test_a_bad_cell_is_reported_without_what_is_in_it(fresh: Installation) -> None:
    fresh.ask("init")
    file = csv_of(fresh.home / "bad.csv", 3, row_2=HIDDEN_TEXT)
    (cell,) = fresh.ask("import", str(file), "--map", "german")["badCells"]
    assert (cell["line"], cell["column"]) == (3, "credit_amount")
    assert HIDDEN_TEXT not in "".join(fresh.said)


def test_an_import_of_which_every_row_is_bad_is_an_error_each_time(fresh: Installation) -> None:
    fresh.ask("init")
    file = csv_of(fresh.home / "bad.csv", 2, row_1=HIDDEN_TEXT, row_2=HIDDEN_TEXT)
    done = fresh.run("import", str(file), "--map", "german", "--json")
    error = json.loads(done.err)["error"]
    assert (done.code, done.out, error["code"]) == (2, "", "rows_rejected")
    assert [cell["line"] for cell in error["badCells"]] == [2, 3]
    done = fresh.run("import", str(file), "--map", "german")
    assert (done.code, done.out) == (2, "")
    assert "every row is bad (2)" in done.err
    assert fresh.ask("subjects", "count")["subjects"] == 0
    # Nothing at all is nothing bad.
    assert fresh.ask("import", str(csv_of(fresh.home / "none.csv", 0)), "--map", "german")["rows"] == 0


def test_a_strict_import_of_a_bad_row_takes_in_nothing_and_says_why(fresh: Installation) -> None:
    fresh.ask("init")
    file = csv_of(fresh.home / "bad.csv", 3, row_2=HIDDEN_TEXT)
    done = fresh.run("import", str(file), "--map", "german", "--strict")
    assert (done.code, done.out) == (2, "")
    assert "line 3, column credit_amount" in done.err
    done = fresh.run("import", str(file), "--map", "german", "--strict", "--json")
    error = json.loads(done.err)["error"]
    assert (done.code, error["code"], error["badCells"][0]["line"]) == (2, "rows_rejected", 3)
    assert fresh.ask("subjects", "count")["subjects"] == 0


def test_a_map_that_is_not_there_or_does_not_fit(fresh: Installation) -> None:
    fresh.ask("init")
    file = str(csv_of(fresh.home / "some.csv", 1))
    done = fresh.run("import", file, "--map", "french", "--json")
    error = json.loads(done.err)["error"]
    assert (done.code, error["code"], error["field"]) == (2, "unreadable_file", "map")
    assert "german, taiwan" in error["message"]
    assert fresh.refusal("import", file, "--map", str(fresh.home))[:2] == (2, "unreadable_file")
    assert fresh.refusal("import", file, "--map", "taiwan")[:2] == (2, "map")
    own = fresh.home / "own.toml"
    own.write_text((ROOT / "ledger/maps/german.toml").read_text())
    assert fresh.ask("import", file, "--map", str(own))["imported"] == 1


def test_empty_lists_say_that_they_are_empty(fresh: Installation) -> None:
    fresh.ask("init")
    assert fresh.run("consents", "list").out == "No consents.\n"
    assert fresh.run("institutions", "list").out == "No institutions.\n"
    assert fresh.run("furnishers", "list").out == "No furnishers.\n"
    assert fresh.run("log").out == "No entries.\n"
    assert fresh.run("disputes", "list").out == "No dispute is open.\n"
    assert fresh.run("prompts", "export").out == "Nobody was asked anything.\n"
    assert fresh.refusal("prompts", "export", "--since", "yesterday") == (2, "malformed", "day")
    assert fresh.ask("consents", "list") == fresh.ask("institutions", "list") == fresh.ask("log") == []


# -------------------------------------------------------------------------------------------------------------- secrets


@pytest.mark.devnet
def test_no_output_holds_a_secret(home: Installation, story: Story) -> None:
    consent = home.grant()
    cut_short = home.home / "cut-short.key"
    for args in (
        ["revoke", consent, "--key", str(home.jwks)],
        ["revoke", consent, "--key", str(home.data / "keys" / "kek.json")],
        home.release_args(consent, keys=str(home.data / "keys" / "accounts.json")),
        home.release_args(consent, keys=str(home.data / "keys" / "kek.json")),
        ["institutions", "add", "did:web:x", "--name", "x", "--jwks", str(home.person)],
        ["institutions", "add", "did:web:y", "--name", "y", "--jwks", str(home.data / "keys" / "accounts.json")],
        ["subjects", "new-key", str(home.jwks)],
    ):
        assert home.run(*args).code != 0
        home.refusal(*args)
    # Not a key any more, by one digit: it must not be quoted.
    cut_short.touch(0o600)
    cut_short.write_text(home.person.read_text().strip()[:-1])
    assert home.run("revoke", consent, "--key", str(cut_short)).code == 3
    secrets = home.secrets() | {cut_short.read_text()}
    assert len(secrets) >= 12
    said = "".join(home.said)
    assert [secret for secret in secrets if secret.lower() in said.lower()] == []
    assert re.search(rf"\b{HIDDEN_VALUE}\b", story.told[("release",)].out)
    others = [done.out + done.err for verb, done in story.told.items() if verb != ("release",)]
    assert not re.search(rf"\b{HIDDEN_VALUE}\b", "".join(others))


# ------------------------------------------------------------------------------------------------------- the foreground


@pytest.mark.devnet
def test_a_chain_in_the_foreground_answers_and_leaves_nothing(fresh: Installation) -> None:
    port = free_port()
    fresh.rpc_url = f"http://127.0.0.1:{port}"
    with running(fresh, "devnet", "--port", str(port)) as (process, ready):
        # Keys will be in there.
        assert fresh.data.stat().st_mode & 0o777 == 0o700
        fresh.ask("init")
        assert ready["rpcUrl"] == fresh.rpc_url
        assert JsonRpc(fresh.rpc_url)("eth_chainId") == hex(31337)
        assert fresh.refusal("sync")[:2] == (4, "contract_missing")
        assert fresh.refusal("contracts", "verify")[:2] == (4, "contract_missing")
        assert fresh.refusal("devnet", "--port", str(port))[:2] == (4, "devnet")
        done = fresh.run("deploy")
        assert done.code == 3
        assert "--fund" in done.err
        assert fresh.ask("deploy", "--fund")["deployed"] is True
        assert fresh.ask("deploy")["deployed"] is False
        assert len(fresh.processes()) == 2
        code, said = end(fresh, process, signal.SIGINT)
    assert (code, said) == (0, "Stopping.\n")
    assert fresh.processes() == []
    with pytest.raises(ChainUnavailableError):
        JsonRpc(fresh.rpc_url)("eth_chainId")


@pytest.mark.devnet
def test_up_keeps_a_consent_from_one_run_to_the_next(fresh: Installation) -> None:
    port = free_port()
    ports = ("--port", str(port), "--http-port", str(free_port()))
    with running(fresh, "up", *ports) as (process, ready):
        fresh.rpc_url = f"http://127.0.0.1:{port}"
        assert ready["rpcUrl"] == fresh.rpc_url
        assert health(ready["serviceUrl"]) == HTTPStatus.OK
        assert fresh.ask("contracts", "verify")["contract"] == ready["contract"]
        fresh.ask("import", str(csv_of(fresh.home / "people.csv", 2)), "--map", "german")
        fresh.ask("institutions", "add", BANK, "--name", "Example Bank", "--new-keys", str(fresh.jwks))
        fresh.ask("subjects", "new-key", str(fresh.person))
        consent = fresh.grant(max_accesses="2", per_day="2")
        fresh.ask(*fresh.release_args(consent))
        other = fresh.run("up", "--port", str(free_port()), "--http-port", str(free_port()))
        assert (other.code, other.out) == (3, "")
        assert "another `consent-ledger up`" in other.err
        code, said = end(fresh, process, signal.SIGINT)
    assert (code, said) == (0, "Stopping.\n")
    assert fresh.processes() == []
    assert health(ready["serviceUrl"]) is None

    with running(fresh, "up", *ports) as (process, ready):
        assert (ready["replayedActs"], ready["replayedAccesses"]) >= (1, 1)
        (again,) = fresh.ask("consents", "list")
        assert (again["consent"], again["status"], again["used"]) == (consent, "in_force", 1)
        fresh.ask(*fresh.release_args(consent))
        # As when the terminal is closed, or a supervisor ends it: the node must not be left behind.
        code, _ = end(fresh, process, signal.SIGTERM)
    assert code == 128 + signal.SIGTERM
    assert fresh.processes() == []
    log = (fresh.data / "devnet.log").read_text()
    assert [secret for secret in fresh.secrets() if secret in log] == []


@pytest.mark.parametrize(
    ("node_rounds", "service_rounds", "error", "said"),
    [
        (2, None, DevnetError, "the local chain ended by itself"),
        (2, 9, DevnetError, "the local chain ended by itself"),
        (9, 2, ConfigError, "the service ended by itself"),
    ],
    ids=["chain alone", "chain", "service"],
)
def test_what_runs_until_ctrl_c_says_what_of_it_ended_by_itself(
    monkeypatch: pytest.MonkeyPatch, node_rounds: int, service_rounds: int | None, error: type[LedgerError], said: str
) -> None:
    def lasting(rounds: int) -> SimpleNamespace:
        left = iter([*[True] * rounds, False])
        return SimpleNamespace(is_running=lambda: next(left))

    monkeypatch.setattr(time, "sleep", lambda _: None)
    service = lasting(service_rounds) if service_rounds is not None else None
    with pytest.raises(error, match=said):
        cli_serve._keep_going(cast("Devnet", lasting(node_rounds)), cast("Service | None", service))


@pytest.mark.devnet
def test_a_service_in_the_foreground_answers_and_leaves_nothing(home: Installation) -> None:
    port = free_port()
    with running(home, "serve", "--http-port", str(port), "--workers", "2") as (process, ready):
        assert ready["serviceUrl"] == f"http://127.0.0.1:{port}"
        assert health(ready["serviceUrl"], "/readyz") == HTTPStatus.OK
        # A command beside the service has a writer of its own.
        home.ask(*home.release_args(home.grant()))
        assert home.refusal("serve", "--http-port", str(port))[:2] == (3, "config")
        assert len([line for line in home.processes() if "gunicorn" in line]) == 3
        code, said = end(home, process, signal.SIGINT)
    assert (code, said) == (0, "Stopping.\n")
    assert home.processes() == []
    assert health(ready["serviceUrl"]) is None
    with running(home, "serve", "--http-port", str(port), "--workers", "1") as (process, _):
        code, _ = end(home, process, signal.SIGTERM)
    assert code == 128 + signal.SIGTERM
    assert home.processes() == []


@pytest.mark.devnet
def test_a_service_that_cannot_be_is_not_started(home: Installation, fresh: Installation) -> None:
    port = ("--http-port", str(free_port()))
    assert home.refusal("serve", *port, "--workers", str(WRITERS))[:2] == (3, "config")
    assert fresh.refusal("serve", *port)[0] == 3
    assert not fresh.data.exists()
    fresh.ask("init")
    assert fresh.refusal("serve", *port)[:2] == (4, "chain_unavailable")
    assert home.processes() + fresh.processes() == []


def test_a_service_that_is_interrupted_before_it_starts_is_not_started(
    fresh: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    fresh.ask("init")
    # As while it erases again whom an older backup brought back, which can take long.
    monkeypatch.setattr(JsonRpcChain, "check", interrupt)
    monkeypatch.setattr(Service, "start", lambda _: pytest.fail("it was started"))
    done = fresh.run("serve")
    assert (done.code, done.out, done.err) == (0, "", "Stopping.\n")


@pytest.mark.devnet
@pytest.mark.parametrize(("victim", "expected"), [("gunicorn", 3), ("hardhat", 4)])
def test_up_ends_when_a_part_of_it_is_killed_and_leaves_nothing(
    fresh: Installation, victim: str, expected: int
) -> None:
    ports = ("--port", str(free_port()), "--http-port", str(free_port()), "--workers", "2")
    with running(fresh, "up", *ports) as (process, _):
        os.kill(fresh.first_process(victim), signal.SIGKILL)
        rest, complaint = process.communicate(timeout=SECONDS)
    assert (process.returncode, rest) == (expected, "")
    assert "ended by itself" in complaint
    # The workers notice that they are alone.
    deadline = time.monotonic() + SECONDS
    while fresh.processes() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert fresh.processes() == []


@pytest.mark.devnet
def test_up_tells_a_person_what_to_do_next(fresh: Installation) -> None:
    port, http_port = free_port(), free_port()
    with subprocess.Popen(
        [EXECUTABLE, "up", "--port", str(port)],
        stdout=subprocess.PIPE,
        text=True,
        # A platform says in this way which port is to be served.
        env=fresh.environment(PORT=str(http_port)),
    ) as process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(7)]
            process.send_signal(signal.SIGINT)
            assert process.wait(SECONDS) == 0
        finally:
            # Otherwise nothing would end this test where it fails.
            process.kill()
    said = "".join(lines)
    assert str(fresh.data) in said
    assert f"http://127.0.0.1:{http_port} " in said
    assert f"http://localhost:{http_port}/demo " in said
    assert f"export CONSENT_LEDGER_RPC_URL=http://127.0.0.1:{port}\n" in said
    assert fresh.processes() == []


# ------------------------------------------------------------------------------------------------------------- the demo


@pytest.mark.devnet
@pytest.mark.slow
def test_the_demo_exercises_every_property_and_leaves_nothing(fresh: Installation) -> None:
    temporary = fresh.home / "tmp"
    temporary.mkdir()
    done = fresh.execute("demo", "--json", TMPDIR=str(temporary))
    assert (done.code, done.err) == (0, "")
    report = json.loads(done.out)
    assert (report["holds"], report["broken"]) == (True, [])
    assert {prop for prop, checks in report["checks"].items() if checks > 0} == {f"P{n}" for n in range(1, 10)}
    assert (report["records"], report["consents"], report["answers"]) == (20_000, 100, 100)
    assert list(temporary.iterdir()) == []
    assert fresh.processes() == []
    assert not fresh.data.exists()


@pytest.mark.devnet
def test_the_demo_refuses_a_node_that_cannot_forget_before_it_does_anything(quiet_devnet: Devnet) -> None:
    with pytest.raises(DevnetError, match="cannot be reset"):
        run_demo(rpc_url=quiet_devnet.url, console=Console(quiet=True))


@pytest.mark.devnet
@pytest.mark.slow
def test_the_demo_sees_that_a_backup_can_still_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing_destroyed: Callable[[Eraser], list[str]] = lambda _: []  # noqa: E731
    monkeypatch.setattr(Eraser, "destroy_retired", nothing_destroyed)
    findings = run_demo(rpc_url=None, console=Console(quiet=True))
    assert findings.broken == ["P6: a backup still opens"]
    assert not findings.holds


# -------------------------------------------------------------------------------------------------------------- orders


def test_an_order_is_executed_once_and_sealed_to_the_authority(home: Installation) -> None:
    args = home.order_args("german-0003", "--embargo-until", "2027-01-01", reference="1 B 7/26")
    done = home.ask(*args)
    answer = Path(done["answer"])
    assert stat.S_IMODE(answer.stat().st_mode) == 0o600
    key = Accounts.load(home.data / "keys" / "accounts.json").signing_key
    court = exchange.key_for(json.loads(home.jwks.read_text()), "enc")
    claims = exchange.open_answer(answer.read_bytes(), court, key)
    assert (claims["aud"], claims["order"]["reference"]) == (COURT, "1 B 7/26")
    assert claims["order"]["documentHash"] == "0x" + sha256(b"The court orders ...").hexdigest()
    # An answer is not written over; the same order elsewhere is the same entry.
    assert home.refusal(*args) == (2, "malformed", "out")
    again = home.order_args("german-0003", "--embargo-until", "2027-01-01", reference="1 B 7/26")
    assert home.ask(*again)["release"] == done["release"]
    (listed,) = [one for one in home.ask("orders", "list") if one["order"] == done["order"]]
    assert (listed["state"], listed["visible"]) == ("released", False)
    shown = home.ask("orders", "show", done["order"])
    assert shown["opening"]["embargoUntil"] == 1_798_761_600
    assert shown["proof"]["transactionHash"] in home.run("orders", "show", done["order"]).out


@pytest.mark.parametrize(
    ("words", "where"),
    [(("--embargo-until", "tomorrow"), "embargo-until"), (("--document", "/nowhere/at/all"), "document")],
)
def test_an_order_that_cannot_be_read_is_refused_with_its_field(
    home: Installation, words: tuple[str, ...], where: str
) -> None:
    assert home.refusal(*home.order_args("german-0003", *words))[2] == where
    assert home.refusal("orders", "show", "0x" + "ab" * 32) == (2, "not_found", "order")
