"""What every verb of the command line shares: how results and errors are shown, and how files with secrets are read.

Whatever is shown is text from outside: names, attributes and file names may hold markup, emoji codes or control
characters, and a terminal must be given none of them. Nothing here needs a custodian; `cli_output.py` has what does.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from ledger.consent import parse_hex32
from ledger.errors import (
    AuditError,
    ChainError,
    ConsentError,
    KeyFileError,
    LedgerError,
    MalformedError,
    RequestError,
    UnreadableFileError,
)
from ledger.json_forms import camel_case
from ledger.markup import visible
from ledger.private_files import write_private_file

EXIT_CODES: Final[Sequence[tuple[type[LedgerError], int]]] = (
    (ConsentError, 1),
    (RequestError, 2),
    (ChainError, 4),
    (AuditError, 5),
)
OTHER_EXIT_CODE: Final = 3

out = Console(markup=False, emoji=False, highlight=False)
err = Console(markup=False, emoji=False, highlight=False, stderr=True)

Json = Annotated[bool, typer.Option("--json", metavar="", help="Print JSON for machines.")]
ConsentId = Annotated[
    str,
    typer.Argument(
        help="Id of the consent: 0x and 64 hex digits.",
        callback=lambda value: parse_hex32(value, "consent"),
    ),
]
SubjectRef = Annotated[str, typer.Argument(help="The furnisher's reference of the person.")]


def progress_bar(*, hidden: bool) -> Progress:
    """A bar that leaves no trace; none where nobody would see it move."""
    return Progress(console=err, disable=hidden or not err.is_terminal, transient=True)


# -------------------------------------------------------------------------------------------------------------- results


def show(as_json: bool, fields: object, human: str | Table) -> None:  # noqa: FBT001 - the first thing each verb knows
    """Print the result: one JSON document, or what a person reads."""
    if as_json:
        sys.stdout.write(json.dumps(fields) + "\n")
        sys.stdout.flush()
    elif isinstance(human, Table):
        out.print(human)
    else:
        # Not broken into lines: ids and paths are there to be copied.
        out.print(human, soft_wrap=True)


def warn(text: str) -> None:
    """Say something beside the result."""
    err.print(plain(text), soft_wrap=True)


def agrees(question: str) -> bool:
    """Whether whoever is there says yes."""
    # Not by `typer.confirm`, which asks on standard output.
    err.print(f"{question} [y/N] ", end="", soft_wrap=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def table(rows: Sequence[Mapping[str, object]]) -> Table:
    """A table; its columns are the names in the first row."""
    made = Table(*(rows[0] if rows else ()))
    for column in made.columns:
        column.overflow = "fold"
    for row in rows:
        made.add_row(*("" if value is None else plain(str(value)) for value in row.values()))
    return made


def plain(text: str) -> str:
    """The text with everything escaped that a terminal would not print but obey."""
    return visible(text, kept="")


def json_fields(fields: Mapping[str, object]) -> dict[str, object]:
    """The names as JSON has them."""
    return {camel_case(name): value for name, value in fields.items()}


def number_of(count: int, noun: str) -> str:
    """`1 consent`, `2 consents`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


# --------------------------------------------------------------------------------------------------------------- errors


def fail(error: LedgerError, *, exit_code: int | None = None, **details: object) -> NoReturn:
    """End the process with a message on standard error and the exit code of the error's family, or the one given."""
    if "--json" in sys.argv[1:]:
        problem = {"code": error.code, "message": error.message} | ({"field": error.field} if error.field else {})
        sys.stderr.write(json.dumps({"error": problem | details}) + "\n")
    else:
        message = Text.assemble(("error", "bold red"), f" ({error.code}): {plain(error.message)}")
        err.print(message, soft_wrap=True)
    if exit_code is None:
        exit_code = next((code for family, code in EXIT_CODES if isinstance(error, family)), OTHER_EXIT_CODE)
    raise SystemExit(exit_code)


# ---------------------------------------------------------------------------------------------------------------- files


def read_json(path: Path) -> dict[str, Any]:
    """Raises `UnreadableFileError`."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as exc:
        raise UnreadableFileError(f"{path}: expected a JSON file", field="file") from exc
    if not isinstance(content, dict):
        raise UnreadableFileError(f"{path}: expected a JSON object", field="file")
    return content


def read_token(path: Path, *members: str) -> str:
    """A JWT as it is, or the first of these members that a JSON object has. Raises `UnreadableFileError`."""
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as exc:
        raise UnreadableFileError(f"{path}: expected a JWT", field="file") from exc
    if not text.startswith("{"):
        return text
    content = read_json(path)
    for name in members:
        if isinstance(found := content.get(name), str):
            return found
    raise UnreadableFileError(f"{path}: expected a member {' or '.join(members)}", field="file")


def read_private_json(path: Path) -> dict[str, Any]:
    """As `read_json`, for a file with private keys. Raises `KeyFileError` if others can read it."""
    content = read_json(path)
    if path.stat().st_mode & 0o077:
        raise KeyFileError(f"{path} can be read by others: expected mode 0600 (chmod 600 {path})")
    return content


def write_secret(path: Path, text: str) -> None:
    """A new file that only its owner can read. Raises `AlreadyExistsError`, `MalformedError` for an unusable path."""
    try:
        write_private_file(path, text)
    except OSError as exc:
        raise MalformedError(f"{path}: cannot be written ({exc.strerror})", field="file") from exc
