"""The repository's own rules: imports point one way, the pure parts are pure, and every error keeps the promises."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from ledger import errors
from ledger.errors import LedgerError

ROOT: Final = Path(__file__).parent.parent
MODULES: Final = {path.stem: path for path in sorted((ROOT / "ledger").glob("*.py"))}
WEB: Final = sorted((ROOT / "web").rglob("*.py"))

ORDER: Final[tuple[frozenset[str], ...]] = (
    frozenset({"audit_style", "errors", "gather", "json_forms", "markup", "unwraps"}),
    frozenset({"attributes", "consent", "envelope", "jsonrpc", "passkeys", "private_files", "signed_note", "store"}),
    frozenset(
        {
            *("access", "answers", "artifact", "attribute_texts", "audit_report", "cli_terminal", "erasures"),
            *("importmap", "locks", "outbox", "prompts", "purposes", "signatures", "stateproof", "texts"),
            *("typed_data", "unwrap_file"),
        }
    ),
    frozenset(
        {
            *("audit_reader", "audit_spans", "audit_texts", "blockproof", "checkpoint", "compelled", "compiler"),
            *("contract_events", "daily_limits", "exchange", "key_files", "notice_texts", "outbound"),
            *("reconciliation", "requested", "verifying_keys", "wallets"),
        }
    ),
    frozenset(
        {
            *("accounts", "asked_by", "channel", "consent_receipts", "contract", "contract_storage"),
            *("disclosure", "feed", "keys", "notices", "picture_parts", "receipts", "reconcile", "witness"),
        }
    ),
    frozenset(
        {
            *("attempts", "audit_openings", "audit_pictures", "books", "chain", "invitations", "key_sources"),
            *("parties", "scrutiny", "vault"),
        }
    ),
    frozenset(
        {
            *("audit_state", "challenges", "deploy", "disclosed_entry", "disputes", "evidence", "importer", "journal"),
            *("registry", "replay", "report_parts", "sessions"),
        }
    ),
    frozenset(
        {
            *("access_records", "audit", "audit_counted", "audit_found", "authentication", "commit", "disclosed"),
            *("enrolment", "order_book", "received", "relay", "retention", "standing", "subject_audit"),
            *("subject_data", "unsealing", "webhooks"),
        }
    ),
    frozenset(
        {
            *("audit_html", "cli_audit_options", "cli_disclosure_output", "client", "config", "disclosure_facts"),
            *("grants", "orders", "preparation", "public_record", "writers"),
        }
    ),
    frozenset(
        {
            *("activity", "cli_audit_output", "cli_disclosure", "cli_evidence", "consent_requests"),
            *("custodian_side", "devnet", "duties", "erase", "furnish", "release", "serving"),
        }
    ),
    frozenset({"cli_audit", "cli_checkpoint", "concerns", "own_requests", "proof", "sync"}),
    frozenset({"disclosing", "subject_export"}),
    frozenset({"custodian"}),
    frozenset({"actors", "cli_output", "cli_reconcile", "demo_seed"}),
    frozenset(
        {
            *("cli_auditor", "cli_consents", "cli_data", "cli_disclose", "cli_disputes", "cli_duties"),
            *("cli_orders", "cli_parties", "cli_prompts", "cli_serve", "cli_writers", "demo"),
        }
    ),
    frozenset({"cli_requests"}),
    frozenset({"cli"}),
    frozenset({"cli_main"}),
)
PURE: Final = frozenset(
    {
        *("access", "answers", "asked_by", "attribute_texts", "attributes", "audit_counted", "audit_found"),
        *(
            "audit_openings",
            "audit_html",
            "audit_pictures",
            "audit_reader",
            "audit_report",
            "audit_spans",
            "audit_state",
        ),
        *("audit_style", "audit_texts", "blockproof", "books", "checkpoint", "compelled", "consent"),
        *("consent_receipts", "contract", "contract_events", "contract_storage", "daily_limits", "disclosed"),
        *("disclosed_entry", "disclosure", "envelope", "errors", "exchange", "importmap", "json_forms", "markup"),
        *(
            "notice_texts",
            "picture_parts",
            "purposes",
            "receipts",
            "reconcile",
            "reconciliation",
            "replay",
            "report_parts",
        ),
        *("requested", "scrutiny", "signatures", "signed_note", "stateproof", "subject_audit", "texts", "typed_data"),
        *("unwraps", "verifying_keys"),
    }
)
OUTSIDE_WORLD: Final = frozenset(
    {
        *("asyncio", "fcntl", "io", "multiprocessing", "os", "pathlib", "platformdirs", "random", "secrets", "shutil"),
        *("signal", "socket", "sqlite3", "subprocess", "tempfile", "threading", "time"),
        *("flask", "requests", "sqlalchemy", "urllib", "urllib3", "web3"),
    }
)
ALLOWED_OUTSIDE: Final = {"envelope": {"os.urandom"}}
LONG: Final = {
    "ledger/audit.py": "the steps (1) to (8) in their order",
    "ledger/attributes.py": "the catalogue is one table",
    "ledger/chain.py": "the protocol and its one implementation, method by method",
    "ledger/commit.py": "one batch in flight, and everything that may become of it",
    "ledger/consent.py": "what is granted, its rules and its form are read together or not at all",
    "ledger/custodian.py": "everything that a custodian runs, wired in one place",
    "ledger/demo.py": "one story from beginning to end",
    "ledger/errors.py": "the whole hierarchy in one place, two lines each",
    "ledger/grants.py": "granting, replacing, pausing and revoking share their steps",
    "ledger/journal.py": "every statement on the journal, so that no other module has one",
    "ledger/store.py": "every table of the database",
    "ledger/vault.py": "every way in which a person's values come in and go out",
    "ledger/sync.py": "the steps (1) to (5) in their order",
    "web/api.py": "every route, so that the API is read in one place",
    "web/models.py": "every model of the API",
    "ledger/replay.py": "every event by its rule",
    "ledger/release.py": "the steps (0) to (7) in their order",
}
VERIFIER: Final = {
    "access",
    "chain",
    "compelled",
    "consent",
    "contract_events",
    "errors",
    "exchange",
    "signatures",
    "stateproof",
    "typed_data",
}
"""All that checking a receipt may need: never the store, the keys or a flow, whose word it is meant to replace."""


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def imported(path: Path) -> Iterator[str]:
    """Every imported module, in full (`ledger.chain`, `os`), wherever in the file the import stands."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: imports are absolute"
            if node.module == "ledger":
                yield from (f"ledger.{alias.name}" for alias in node.names)
            elif node.module:
                yield node.module


def siblings(name: str) -> set[str]:
    return {module.split(".")[1] for module in imported(MODULES[name]) if module.startswith("ledger.")}


# ------------------------------------------------------------------------------------------------------------- imports


def test_every_module_has_its_place_in_the_order_and_every_place_its_module() -> None:
    placed = [name for level in ORDER for name in level]
    assert len(placed) == len(set(placed))
    assert set(placed) == set(MODULES) - {"__init__"}


@pytest.mark.parametrize("name", [name for level in ORDER for name in sorted(level)])
def test_imports_point_one_way(name: str) -> None:
    at = next(number for number, level in enumerate(ORDER) if name in level)
    allowed = frozenset[str]().union(*ORDER[:at])
    assert sorted(siblings(name) - allowed) == []


@pytest.mark.parametrize("name", sorted(PURE))
def test_pure_modules_know_nothing_of_the_outside_world(name: str) -> None:
    used = {module for module in imported(MODULES[name]) if module.split(".")[0] in OUTSIDE_WORLD}
    if allowed := ALLOWED_OUTSIDE.get(name):
        assert used == {place.split(".")[0] for place in allowed}
        for node in ast.walk(tree(MODULES[name])):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in used:
                assert f"{node.value.id}.{node.attr}" in allowed
    else:
        assert used == set()


@pytest.mark.parametrize("name", sorted(PURE))
def test_pure_modules_ask_no_clock_and_roll_no_dice(name: str) -> None:
    asked = {
        f"{node.value.id}.{node.attr}"
        for node in ast.walk(tree(MODULES[name]))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        if node.attr in ("now", "today", "utcnow", "time", "time_ns", "monotonic", "uuid4", "urandom", "token_bytes")
    }
    assert asked == set(ALLOWED_OUTSIDE.get(name, ()))


@pytest.mark.parametrize("name", sorted(PURE))
def test_pure_modules_rest_on_pure_modules_only(name: str) -> None:
    assert siblings(name) <= PURE


def test_an_audit_rests_on_pure_modules_and_the_chain_client_only() -> None:
    assert siblings("audit") <= PURE | {"artifact", "compiler", "feed"}
    assert siblings("feed") <= PURE | {"jsonrpc"}


def test_checking_a_receipt_needs_neither_the_store_nor_the_keys_nor_a_flow() -> None:
    assert siblings("evidence") <= VERIFIER


def test_a_client_comes_without_database_server_and_custodian() -> None:
    program = (
        "import sys, ledger.client\n"
        "own = {'store', 'vault', 'keys', 'journal', 'registry', 'release', 'custodian', 'config', 'deploy'}\n"
        "outside = {'sqlalchemy', 'sqlite3', 'flask', 'werkzeug', 'gunicorn', 'web', 'web3', 'typer'}\n"
        "print(sorted((outside | {f'ledger.{name}' for name in own}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_the_ledger_knows_nothing_of_the_web() -> None:
    for name, path in MODULES.items():
        assert not {"flask", "werkzeug", "jinja2", "web"} & {module.split(".")[0] for module in imported(path)}, name


def test_the_environment_is_read_in_one_place() -> None:
    readers = {
        path.relative_to(ROOT).as_posix()
        for path in (*MODULES.values(), *WEB)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute)
        and node.attr in ("environ", "environb", "getenv")
        and isinstance(node.value, ast.Name)
        and node.value.id == "os"
    }
    # gunicorn and prometheus-client are told by it what `serving` settled, eth-hash which Keccak to take.
    told = {"web/server.py", "web/metrics.py", "ledger/__init__.py"}
    assert readers == {"ledger/config.py", "ledger/devnet.py", "ledger/serving.py"} | told
    # Handed on to a process, and looked at by no one here.
    for name in ("devnet", "serving"):
        (passed,) = [line for line in MODULES[name].read_text("utf-8").splitlines() if "os.environ" in line]
        assert passed.strip().startswith("env=os.environ | ")


def test_only_the_devnet_uses_methods_that_a_real_network_does_not_have() -> None:
    for name, path in MODULES.items():
        strings = {node.value for node in ast.walk(tree(path)) if isinstance(node, ast.Constant)}
        special = [s for s in strings if isinstance(s, str) and s.startswith(("hardhat_", "anvil_", "evm_", "debug_"))]
        assert special == [] or name in ("devnet", "demo"), name


@pytest.mark.parametrize(
    ("method", "module"),
    [
        ("open_to_compare", "furnish"),
        ("without_older", "importer"),
        ("open_to_subject", "subject_data"),
        ("_opened", "vault"),
    ],
)
def test_values_are_decrypted_without_an_access_by_those_alone_who_may(method: str, module: str) -> None:
    used = {
        path.stem
        for path in (*MODULES.values(), *WEB)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and node.attr == method
    }
    assert used == {module}


# --------------------------------------------------------------------------------------------------------------- files


def test_no_file_is_longer_than_a_room_unless_there_is_a_reason() -> None:
    long = {
        path.relative_to(ROOT).as_posix()
        for path in (*MODULES.values(), *WEB)
        if len(path.read_text("utf-8").splitlines()) > 350
    }
    assert long == set(LONG)


def test_no_module_is_named_after_nothing() -> None:
    names = {path.stem for path in (*MODULES.values(), *WEB)}
    assert not names & {"utils", "util", "helpers", "helper", "manager", "common", "misc", "base", "core", "service"}


@pytest.mark.parametrize("name", sorted(set(MODULES)))
def test_every_module_says_first_what_it_is(name: str) -> None:
    assert len(ast.get_docstring(tree(MODULES[name])) or "") > 40


def test_importing_the_package_leaves_deeply_nested_json_an_error_and_not_a_crash() -> None:
    # eth-account's dependencies raise the recursion limit so far that the C stack ends first: a remote kill switch.
    program = (
        "import json, ledger.cli, ledger.custodian\n"
        "try: json.loads('[' * 1_000_000)\n"
        "except RecursionError: print('refused')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "refused\n")


# -------------------------------------------------------------------------------------------------------------- errors


def every_error(kind: type[LedgerError] = LedgerError) -> Iterator[type[LedgerError]]:
    for child in kind.__subclasses__():
        yield child
        yield from every_error(child)


ALL: Final = [kind for kind in every_error() if kind.__module__ == "ledger.errors"]
FAMILIES: Final = {
    errors.ConsentError: 403,
    errors.RequestError: 422,
    errors.VaultError: 500,
    errors.ChainError: 503,
    errors.ConfigError: 500,
    errors.ServiceError: 502,
    errors.AuditError: 500,
}
OTHERWISE: Final = {
    errors.ConflictError: 409,
    errors.AuthenticationError: 401,
    errors.NotFoundError: 404,
    errors.AttributeAbsentError: 404,
    errors.StoreUnavailableError: 503,
    errors.RateLimitedError: 429,
    errors.AnswerGoneError: 410,
}


def test_all_errors_are_in_one_place() -> None:
    assert {kind.__module__ for kind in every_error() if kind.__module__.split(".")[0] in ("ledger", "web")} == {
        "ledger.errors"
    }
    assert len(ALL) == len(set(ALL)) > 50


def test_every_error_has_a_code_of_its_own() -> None:
    codes = [kind.code for kind in ALL]
    assert sorted(codes) == sorted(set(codes))
    assert all("code" in vars(kind) for kind in ALL)
    assert all(code.isascii() and code == code.lower() and code.replace("_", "").isalpha() for code in codes)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_error_is_documented_named_as_one_and_of_one_family(kind: type[LedgerError]) -> None:
    assert vars(kind).get("__doc__")
    assert kind.__name__.endswith("Error")
    assert len([family for family in FAMILIES if issubclass(kind, family)]) == 1


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_error_has_the_status_of_its_family_unless_it_says_otherwise(kind: type[LedgerError]) -> None:
    statuses = {kind: status for given in (FAMILIES, OTHERWISE) for kind, status in given.items()}
    assert kind.http_status == next(
        status for base in kind.__mro__ for given, status in statuses.items() if given is base
    )


def test_an_error_carries_its_message_and_field() -> None:
    error = errors.MalformedError("terms.purpose: expected text", field="terms.purpose")
    assert (str(error), error.message, error.field) == ("terms.purpose: expected text",) * 2 + ("terms.purpose",)
    assert errors.MalformedError("x").field is None


def test_every_error_is_raised_somewhere() -> None:
    nodes = (node for path in (*MODULES.values(), *WEB) for node in ast.walk(tree(path)))
    named = {node.id for node in nodes if isinstance(node, ast.Name)}
    own = {kind.__name__ for kind in ALL if not kind.__subclasses__() and kind not in errors.SOLIDITY_TWINS.values()}
    assert sorted(own - named) == []
