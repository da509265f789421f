"""The verbs about data: whom they are about, where they come from, and their end."""

from __future__ import annotations

import textwrap
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Final

import typer
from eth_account import Account

from ledger.cli_output import consent_fields, consent_text, open_custodian
from ledger.cli_terminal import (
    Json,
    SubjectRef,
    agrees,
    fail,
    json_fields,
    number_of,
    plain,
    progress_bar,
    show,
    warn,
    write_secret,
)
from ledger.errors import MalformedError, RowsRejectedError, UnreadableFileError
from ledger.importer import Importer
from ledger.importmap import BadCell, parse_map
from ledger.json_forms import iso_time

PANEL: Final = "Data"
app = typer.Typer()
subjects_app = typer.Typer(help="People and what is held about them.", no_args_is_help=True)
app.add_typer(subjects_app, name="subjects", rich_help_panel=PANEL)


@app.command("import", rich_help_panel=PANEL)
def import_file(
    *,
    file: Annotated[Path, typer.Argument(help="CSV file of a furnisher.")],
    map_name: Annotated[str, typer.Option("--map", help="Map file, or the name of one that ships: german, taiwan.")],
    strict: Annotated[
        bool, typer.Option("--strict", metavar="", help="All or nothing: a single bad row stops it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Take a CSV file into the vault. Bad rows are reported and skipped; a run that was cut off goes on.

    If every row is bad, that is an error.
    """
    text = _map_text(map_name)
    import_map = parse_map(text)
    bad: list[BadCell] = []

    def report(cell: BadCell) -> None:
        if as_json:
            bad.append(cell)
        else:
            where = f", column {cell.column}" if cell.column else ""
            warn(f"line {cell.line}{where}: {cell.reason}")

    try:
        with open_custodian() as custodian, progress_bar(hidden=as_json) as bar:
            task = bar.add_task("importing", total=None)
            result = Importer(custodian.store, custodian.vault, clock=custodian.clock).run(
                file,
                import_map,
                text,
                strict=strict,
                report=report,
                progress=lambda done: bar.update(task, completed=done, description=f"importing: {done} rows"),
            )
    except RowsRejectedError as exc:
        fail(exc, badCells=_cells(bad))
    if result.bad and not result.imported:
        # A script that runs this would take it for done.
        fail(RowsRejectedError(f"every row is bad ({result.bad}): nothing was imported"), badCells=_cells(bad))
    fields = {name: getattr(result, name) for name in result.__slots__}
    done = "imported before" if result.already_done else "imported"
    older = f", {number_of(result.older, 'value')} passed over for one of a later day" if result.older else ""
    show(
        as_json,
        json_fields(fields) | {"badCells": _cells(bad)},
        f"{plain(file.name)}: {number_of(result.imported, 'row')} {done}, {number_of(result.bad, 'bad row')} skipped, "
        f"{number_of(result.versions, 'new value')}{older}.",
    )


def _cells(bad: list[BadCell]) -> list[dict[str, object]]:
    return [{"line": cell.line, "column": cell.column, "reason": cell.reason} for cell in bad]


def _map_text(name: str) -> str:
    shipped = files("ledger").joinpath(f"maps/{name}.toml")
    try:
        if name.isidentifier() and shipped.is_file():
            return shipped.read_text(encoding="utf-8")
        return Path(name).read_text(encoding="utf-8")
    except (OSError, ValueError) as exc:
        raise UnreadableFileError(f"{name}: expected a map file or one of german, taiwan", field="map") from exc


@app.command(rich_help_panel=PANEL)
def erase(
    *,
    subject: SubjectRef,
    yes: Annotated[bool, typer.Option("--yes", metavar="", help="Do not ask.")] = False,
    preview: Annotated[
        bool, typer.Option("--preview", metavar="", help="Only say what it would take and what it cannot take.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Erase a person for ever: revoke every consent, destroy every key, leave a tombstone."""
    if preview:
        _preview(subject, yes=yes, as_json=as_json)
        return
    if not yes and (as_json or not agrees(f"Erase {plain(subject)} for ever? This cannot be undone.")):
        raise MalformedError("yes: nothing was erased, because nobody agreed (--yes agrees beforehand)", field="yes")
    with open_custodian() as custodian:
        erasure = custodian.eraser.erase(subject)
    keks = list(erasure.readable_in_backups_until_destroyed)
    fields = {
        "erasedAt": erasure.erased_at,
        "envelopes": erasure.envelopes,
        "consents": erasure.consents,
        "releases": erasure.releases,
        "onChain": erasure.is_on_chain,
        "scrubbed": erasure.scrubbed,
        "readableInBackupsUntilDestroyed": keks,
        "proof": erasure.proof,
    }
    human = [f"Erased: {number_of(erasure.envelopes, 'value')}, {number_of(erasure.consents, 'consent')}."]
    if not erasure.is_on_chain:
        human.append("Not revoked on chain yet: run `consent-ledger sync`.")
    if not erasure.scrubbed:
        human.append("Traces are left in the write-ahead log, because someone was reading: run `consent-ledger sync`.")
    human.append(f"Older backups stay readable until {', '.join(keks)} is destroyed: `consent-ledger keys rotate`.")
    show(as_json, fields, "\n".join(human))


def _preview(subject: str, *, yes: bool, as_json: bool) -> None:
    if yes:
        raise MalformedError("yes: expected either --preview or --yes", field="yes")
    with open_custodian() as custodian:
        found = custodian.eraser.preview(custodian.vault.subject_of(subject))
    elsewhere = [
        {
            "consent": one.consent_id,
            "institution": one.institution,
            "institutionName": one.institution_name,
            "until": iso_time(one.until),
        }
        for one in found.held_elsewhere
    ]
    fields = {
        "rows": dict(found.rows),
        "consentsThatEnd": list(found.consents_that_end),
        "onChain": list(found.on_chain),
        "heldElsewhere": elsewhere,
        "readableInBackupsUntilDestroyed": list(found.readable_in_backups_until_destroyed),
    }
    values, kept = number_of(found.rows["records"], "value"), number_of(len(found.on_chain), "consent")
    human = [
        f"Nothing was erased. It would take {values} and end {number_of(len(found.consents_that_end), 'consent')}.",
        f"On chain stay the fingerprints of {kept}, which nothing opens any more.",
        *(f"{plain(str(one['institutionName']))} may keep what it read until {one['until']}." for one in elsewhere),
        f"Older backups stay readable until {', '.join(found.readable_in_backups_until_destroyed)} is destroyed.",
    ]
    show(as_json, fields, "\n".join(human))


@subjects_app.command("count")
def subjects_count(*, as_json: Json = False) -> None:
    """How many people and values are held."""
    with open_custodian() as custodian:
        counts = custodian.vault.count()
    show(as_json, counts, ", ".join(f"{count} {name}" for name, count in counts.items()))


@subjects_app.command("show")
def subjects_show(*, subject: SubjectRef, as_json: Json = False) -> None:
    """Which attributes are held about a person (no values), and the person's consents."""
    with open_custodian() as custodian:
        subject_id = custodian.vault.subject_of(subject)
        held = custodian.vault.held(subject_id)
        consents = [consent_fields(custodian, consent) for consent in custodian.registry.consents(subject_id)]
    names = textwrap.fill(", ".join(held), initial_indent="    ", subsequent_indent="    ")
    human = [f"{number_of(len(held), 'attribute')}:", names, f"{number_of(len(consents), 'consent')}:"]
    show(
        as_json,
        {"attributes": held, "consents": consents},
        "\n".join([*human, *(consent_text(one) for one in consents)]),
    )


@subjects_app.command("invite")
def subjects_invite(*, subject: SubjectRef, as_json: Json = False) -> None:
    """Make a one-time code with which a person enrols at the portal. Older ones are void.

    It is printed once. Hand it to the person and nobody else: whoever has it sees what is held about them.
    """
    with open_custodian() as custodian:
        subject_id = custodian.vault.subject_of(subject)
        with custodian.store.begin() as tx:
            made = custodian.invitations.invite(tx, subject_id)
        link = f"{custodian.config.portal_origin}/enrol"
    until = iso_time(made.expires_at)
    show(
        as_json,
        {"code": made.code, "link": link, "expiresAt": until},
        f"{made.code}\n    to be entered once, before {until}, at\n{link}",
    )


@subjects_app.command("new-key")
def subjects_new_key(
    *, file: Annotated[Path, typer.Argument(help="Where to write the new private key.")], as_json: Json = False
) -> None:
    """Make a signing key for a script. People use their wallet or passkey instead."""
    account = Account.create()
    write_secret(file, account.key.hex() + "\n")
    show(as_json, {"account": account.address}, f"A new key for {account.address} in {plain(str(file))}")
