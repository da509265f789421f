"""The README keeps its word: what it tells to type works, and what it names exists."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest
import typer
from typer.core import TyperGroup

from ledger import cli, config
from ledger.actors import PROPERTIES
from ledger.config import Config
from ledger.devnet import Devnet, free_port

ROOT: Final = Path(__file__).parent.parent
README: Final = (ROOT / "README.md").read_text(encoding="utf-8")
EXECUTABLE: Final = Path(sys.executable).parent / "consent-ledger"
SECONDS: Final = 300


def block(kind: str) -> str:
    (found,) = re.findall(rf"^```{kind}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
    return str(found)


def unignored(names: Iterable[str]) -> set[str]:
    """Those that `git add .` would take, were they at the root of the repository."""
    listed = subprocess.run(
        ["git", "check-ignore", "--no-index", *names], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert listed.returncode in (0, 1), listed.stderr
    return set(names) - set(listed.stdout.split())


def commands(script: str) -> Iterator[list[str]]:
    """Every call of `consent-ledger` in a script, as words."""
    joined = script.replace("\\\n", " ")
    for call in re.findall(r"consent-ledger ([^\n]*?)(?:\)|\|\||$)", joined, flags=re.MULTILINE):
        yield shlex.split(call, comments=True)


def variables_of_options(command: object) -> Iterator[str]:
    """Every variable of the environment that an option of this command, or of one under it, may be given by."""
    for parameter in getattr(command, "params", []):
        given = parameter.envvar or ()
        yield from [given] if isinstance(given, str) else given
    if isinstance(command, TyperGroup):
        for one in command.commands.values():
            yield from variables_of_options(one)


class Recording(dict[str, str]):
    """An environment that remembers what it was asked for."""

    asked: Final[set[str]] = set()

    def get(self, key: str, default: object = None) -> str | None:  # type: ignore[override]
        self.asked.add(key)
        return None if default is None else str(default)


@pytest.mark.devnet
@pytest.mark.slow
def test_the_commands_of_the_readme_work_as_they_stand(tmp_path: Path, stock_tools: None) -> None:
    # As in a checkout, but for what the commands write.
    for name in ("ledger", "web", ".venv"):
        (tmp_path / name).symlink_to(ROOT / name)
    port, http_port = free_port(), free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "CONSENT_LEDGER_DATA": str(tmp_path / "data"),
        "CONSENT_LEDGER_RPC_URL": f"http://127.0.0.1:{port}",
        # Where the text says 8000.
        "PORT": str(http_port),
        "SERVICE": f"http://127.0.0.1:{http_port}",
    }

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=SECONDS
        )

    service = subprocess.Popen(
        [EXECUTABLE, "up", "--port", str(port)], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    )
    with service:
        try:
            assert service.stdout is not None
            assert service.stdout.readline().startswith("Up;")
            done, integrated, audited, opened, witnessed = (
                run("bash", "-euo", "pipefail", "-c", block(f"sh {kind}"))
                for kind in ("by-hand", "integrate", "audit", "entries", "checkpoints")
            )
            snippet = block("python client").replace(":8000", f":{http_port}").replace(":8545", f":{port}")
            listed = run(sys.executable, "-c", snippet)
        finally:
            service.send_signal(signal.SIGINT)
    assert done.returncode == 0, done.stderr
    assert service.returncode == 0
    # The two refusals that it shows, and nothing else, went to standard error.
    assert re.findall(r"^error \((\w+)\)", done.stderr, flags=re.MULTILINE) == ["paused", "revoked"]
    assert len(done.stderr.splitlines()) == 2
    assert "1000 rows imported, 0 bad rows" in done.stdout
    assert re.findall(r"^\S+Z  (released|refused: \w+)", done.stdout, flags=re.MULTILINE) == [
        "refused: revoked",
        "refused: paused",
        "released",
    ]
    assert re.search(r"Erased: 20 values, 1 consent\b", done.stdout)
    assert integrated.returncode == 0, integrated.stderr
    assert re.search(r'"state":"in_force".*"usesLeft":1,', integrated.stdout)
    assert set(json.loads((tmp_path / "answer.json").read_text())) == {"id", "consent", "answer", "receipt", "late"}
    assert audited.returncode == 0, audited.stdout + audited.stderr
    assert audited.stdout.count("✓ CLEAN") == 2
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert opened.returncode == 0, opened.stdout + opened.stderr
    assert witnessed.returncode == 0, witnessed.stdout + witnessed.stderr
    # Nothing of what they wrote, keys among it, gets into the repository.
    here = {path.name + "/" * path.is_dir() for path in tmp_path.iterdir() if not path.name.startswith(".")}
    written = here - {"ledger/", "web/", "data/"}
    assert {"bank.jwks", "person.key", "lender.sig.pem", "answer.json", "remembered/"} <= written
    assert unignored(written) == set()
    # Its one consent was erased with the person.
    assert (listed.returncode, listed.stdout) == (0, ""), listed.stderr


@pytest.mark.devnet
@pytest.mark.slow
def test_a_backup_and_a_restore_work_as_the_readme_has_them(tmp_path: Path, devnet: Devnet, stock_tools: None) -> None:
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    data = tmp_path / "data"
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "CONSENT_LEDGER_DATA": str(data),
        "CONSENT_LEDGER_RPC_URL": devnet.url,
    }

    def run(script: str) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    release = (
        'consent-ledger release "$(cat consent)" --institution did:web:bank.example --keys bank.jwks '
        "--purpose loan-origination --attribute credit_amount --idempotency-key "
    )
    path = 'export PATH="$PWD/.venv/bin:$PATH"\n'
    run(
        f"""{path}
        consent-ledger init; consent-ledger deploy --fund
        head -n 4 {ROOT}/ledger/data/german_statlog_1000.csv > people.csv; consent-ledger import people.csv --map german
        consent-ledger institutions add did:web:bank.example --name Bank --new-keys bank.jwks
        consent-ledger subjects new-key person.key
        consent-ledger grant --key person.key --subject german-0001 --institution did:web:bank.example \\
          --purpose loan-origination --attribute credit_amount --max-accesses 3 --per-day 3 --print-id > consent
        {release}before
        """
    )
    run(block("sh backup"))
    assert {path.name for path in (tmp_path / "keys-backup").iterdir()} >= {"kek.json", "accounts.json", "unwraps.log"}
    run(f"{path}{release}after\nconsent-ledger erase german-0002 --yes")
    # Another backup, which somebody keeps where it is easily found, is none of the database's files.
    other = data / "ledger.db.of-yesterday"
    other.write_text("")
    # Nothing goes on before what the text tells to do, and everything after it.
    shown = run(block("sh restore"))
    assert "erased again 1" in shown
    assert "error (log_ahead): the log of writer 0x" in shown
    assert "may append no more. Writers that can be used: 7." in shown
    assert "In sync.\n" in shown
    assert "entry_not_on_file" in shown
    assert "credit_amount" in run(f"{path}{release}new")
    assert other.exists()
    # Nothing of what they wrote gets into the repository.
    assert unignored({"ledger-backup.db", "keys-backup/"}) == set()


def test_every_command_of_the_readme_is_a_verb_with_these_options() -> None:
    blocks = re.findall(r"^```sh\b[^\n]*\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
    named = list(commands("".join(blocks)))
    assert len(named) > 30
    for words in named:
        command: object = typer.main.get_command(cli.app)
        rest = list(words)
        while isinstance(command, TyperGroup):
            assert rest[0] in command.commands, words
            command = command.commands[rest.pop(0)]
        known = {option for parameter in getattr(command, "params", []) for option in parameter.opts}
        assert {word for word in rest if word.startswith("--")} <= known, words


def test_every_target_of_make_that_the_readme_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    named = set(re.findall(r"`make ([a-z-]+)`|^make ([a-z-]+)$", README, flags=re.MULTILINE))
    assert len(named) >= 7
    assert {first or second for first, second in named} <= targets


def test_every_file_that_the_readme_links_exists() -> None:
    linked = {target for target in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in target}
    assert len(linked) >= 7
    assert {target for target in linked if not (ROOT / target).exists()} == set()


def test_the_readme_promises_what_the_demo_checks() -> None:
    promised = re.findall(r"^- \*\*(P\d+)\*\* ", README, flags=re.MULTILINE)
    assert promised == list(PROPERTIES)


def test_the_documented_variables_are_those_that_are_read() -> None:
    table = config.__doc__ or ""
    documented = re.findall(r"^\| `(CONSENT_LEDGER_\w+|RUNTIME_DIRECTORY)` \|", table, flags=re.MULTILINE)
    read: Mapping[str, str] = Recording()
    Config.from_env(read)
    assert len(documented) == len(set(documented))
    assert set(documented) == Recording.asked
    # What options take from it is read by typer.
    assert {"PORT", "CONSENT_LEDGER_RPC_URL"} <= set(variables_of_options(typer.main.get_command(cli.app)))
    tabled = set(re.findall(r"^\| `([A-Z_]+)` \|", table, flags=re.MULTILINE))
    assert set(variables_of_options(typer.main.get_command(cli.app))) <= tabled
    named = set(re.findall(r"CONSENT_LEDGER_[A-Z_]+", README))
    assert named
    assert named <= set(documented)
