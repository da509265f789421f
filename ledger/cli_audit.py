"""The verbs of the auditor: they need an endpoint and an address, and neither keys nor a database.

Exit codes: 0 clean · 1 findings · 2 could not verify (also: asked in a way that makes no sense).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer
from platformdirs import user_data_path

from ledger.audit import Asked, Audit
from ledger.audit_openings import Openings, by_institution, openings_of
from ledger.audit_report import AuditReport, Verdict
from ledger.audit_state import AuditState, opened, sealed
from ledger.books import NEVER_GRANTED, summary_of
from ledger.cli_audit_options import (
    DEVNET_CHAIN_ID,
    EXIT_CODES,
    At,
    ChainId,
    Contract,
    FromBlock,
    Headers,
    RpcUrls,
    Solc,
    Tag,
    WithoutCompiler,
    asked_of,
    audited,
    auditors_app,
    run,
)
from ledger.cli_audit_output import report_html, report_text
from ledger.cli_terminal import Json, read_json, show, warn
from ledger.consent import Hex32, Reason, parse_hex32, reason_against
from ledger.errors import MalformedError, UnreadableFileError
from ledger.json_forms import iso_time
from ledger.private_files import write_private_file

KEY_BYTES: Final = 32


def add_to(audit: typer.Typer) -> None:
    """Mount these verbs."""
    audit.command("chain")(chain)
    audit.command("consent")(consent)


def main(args: Sequence[str]) -> NoReturn:
    """Run one of these verbs without even loading the others."""
    app = auditors_app()
    add_to(app)
    run(app, args)


def chain(
    *,
    rpc_url: RpcUrls = None,
    contract: Contract = None,
    chain_id: ChainId = DEVNET_CHAIN_ID,
    block: At = None,
    tag: Tag = "latest",
    from_block: FromBlock = 0,
    headers: Headers = "all",
    solc: Solc = None,
    without_compiler: WithoutCompiler = False,
    state: Annotated[
        Path | None, typer.Option(help="A file to go on from next time: what was proven is not read again.")
    ] = None,
    openings: Annotated[
        list[Path] | None,
        typer.Option(help="A disclosure: the report then counts recorded entries by institution. May be repeated."),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write the report as one HTML file.")] = None,
    as_json: Json = False,
) -> None:
    """Check the code, every consent, every access and every log against a block's hash."""
    asked = replace(
        asked_of(contract, chain_id, block, tag, from_block, headers),
        compile_sources=not without_compiler,
        compiler=solc,
    )
    if openings and state is not None:
        raise MalformedError(
            "openings: their entries are looked for from the start, so without --state", field="openings"
        )
    opened_entries = _openings(openings or ())
    asked = replace(asked, watch=frozenset(consent_id for consent_id, _ in opened_entries))
    before = None if state is None else _read_state(state, asked)
    made = audited(rpc_url, asked, before, quiet=as_json)
    if opened_entries:
        made = replace(made, report=replace(made.report, institutions=by_institution(opened_entries, made.entries)))
    # First of all: what cannot be written must not keep anyone from the result.
    show(as_json, made.report.as_json() if as_json else None, report_text(made.report))
    if state is not None and (kept := made.state) is not None and kept is not before:
        _write_state(state, kept)
    if html is not None:
        _write(html, report_html(made.report, command=_command(made.report)))
    raise SystemExit(EXIT_CODES[made.report.verdict])


def _openings(files: Sequence[Path]) -> Openings:
    """What the files hand over, if any. Raises `MalformedError`, `UnreadableFileError`."""
    if not files:
        return {}
    from ledger.disclosure import read_disclosure  # noqa: PLC0415 - it takes as long to load as an audit without news

    return openings_of(read_disclosure(read_json(file)) for file in files)


def consent(
    *,
    consent_id: Annotated[str, typer.Argument(help="Id of the consent: 0x and 64 hex digits.")],
    rpc_url: RpcUrls = None,
    contract: Contract = None,
    chain_id: ChainId = DEVNET_CHAIN_ID,
    block: At = None,
    tag: Tag = "latest",
    from_block: FromBlock = 0,
    headers: Headers = "all",
    as_json: Json = False,
) -> None:
    """Whether a consent was in force at a block, and why: what the chain alone proves of it up to there."""
    wanted = parse_hex32(consent_id, "consent")
    asked = replace(asked_of(contract, chain_id, block, tag, from_block, headers), watch=frozenset({wanted}))
    made = audited(rpc_url, asked, None, quiet=as_json)
    report = made.report
    if not {"receipts", "state_root"} <= {check.name for check in report.checks if check.holds}:
        # Not read to the end, or not all that there is: what was not seen is not the same as what is not there.
        show(as_json, report.as_json() if as_json else None, report_text(report))
        raise SystemExit(EXIT_CODES[report.verdict])
    fields, human = _history(wanted, made, report)
    show(as_json, fields, human)
    if report.verdict is Verdict.FINDINGS:
        warn("The ledger has findings: see `consent-ledger audit chain`.")
    elif report.verdict is Verdict.UNVERIFIED:
        warn("Only headers of blocks with events were read: times and their order are the endpoint's word.")
    raise SystemExit(EXIT_CODES[report.verdict])


def _history(consent_id: Hex32, made: Audit, report: AuditReport) -> tuple[dict[str, object], str]:
    """What the chain proves of one consent at the audited block."""
    assert report.block is not None
    block = report.block
    found = made.books.consents.get(bytes.fromhex(consent_id[2:]))
    judged = found or NEVER_GRANTED
    reason = reason_against(judged, judged.custodian_number, block.timestamp)
    in_force = reason is Reason.NONE
    entries = [
        {
            "entryHash": one.entry_hash,
            "verdict": "late" if one.late else one.reason.name.lower() if one.reason else "recorded",
            "block": one.block_number,
            "at": iso_time(one.at),
            "transaction": one.transaction_hash,
        }
        for one in made.entries
    ]
    changes = [
        {"what": one.what, "by": one.by, "block": one.block_number, "at": iso_time(one.at)} for one in made.changes
    ]
    summary = summary_of(bytes.fromhex(consent_id[2:]), found) if found else None
    fields: dict[str, object] = {
        "consent": consent_id,
        # Of the whole ledger, as the exit code is: what is said of one consent rests on it.
        "verdict": report.verdict.value,
        "block": block.number,
        "blockHash": block.block_hash,
        "blockTime": iso_time(block.timestamp),
        "inForce": in_force,
        "reason": None if in_force else reason.name.lower(),
        "subject": summary.subject if summary else None,
        "custodian": summary.custodian if summary else None,
        "validFrom": iso_time(summary.valid_from) if summary and summary.granted_at else None,
        "expiresAt": iso_time(summary.expires_at) if summary and summary.granted_at else None,
        "used": summary.recorded if summary else 0,
        "maxAccesses": summary.max_accesses if summary else 0,
        "changes": changes,
        "entries": entries,
    }
    verdict = "in force" if in_force else f"not in force: {reason.name.lower().replace('_', ' ')}"
    lines = [f"At block {block.number} of {iso_time(block.timestamp)} ({block.block_hash}) the consent was {verdict}."]
    lines += [f"    {one['at']}  block {one['block']}  {one['what']} by {one['by']}" for one in changes]
    lines += [f"    {one['at']}  block {one['block']}  access {one['entryHash']}: {one['verdict']}" for one in entries]
    if summary and summary.granted_at:
        lines.append(f"    used {summary.recorded} of {summary.max_accesses}, until {iso_time(summary.expires_at)}")
    return fields, "\n".join(lines)


def _command(report: AuditReport) -> str:
    """What repeats the audit; whoever repeats it names an endpoint of their own."""
    block = "" if report.block is None else f" --block {report.block.block_hash}"
    chain_id, contract = report.domain.chain_id, report.domain.contract
    return f"consent-ledger audit chain --rpc-url URL --chain-id {chain_id} --contract {contract}{block}"


# ------------------------------------------------------------------------------------------------------------ the state


def _read_state(path: Path, asked: Asked) -> AuditState | None:
    """What an earlier audit kept; None at the first one. Raises `AuditError`, `MalformedError`."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise UnreadableFileError(f"{path}: {exc.strerror}", field="state") from exc
    state = opened(data, _state_key())
    if state.domain != asked.domain or (asked.all_headers and not state.linked):
        raise MalformedError("state: it is of an audit of something else: give another file", field="state")
    return state


def _write_state(path: Path, state: AuditState) -> None:
    part = path.with_name(path.name + ".part")
    _write(part, sealed(state, _state_key()))
    part.replace(path)


def _state_key() -> bytes:
    """The auditor's own key, apart from the state: whoever alters the one does not have the other."""
    path = user_data_path("consent-ledger") / "audit.key"
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_private_file(path, os.urandom(KEY_BYTES).hex())
        key = bytes.fromhex(path.read_text("ascii"))
    except (OSError, ValueError) as exc:
        raise UnreadableFileError(f"{path}: expected the auditor's key", field="state") from exc
    if len(key) != KEY_BYTES:
        raise UnreadableFileError(f"{path}: expected the auditor's key", field="state")
    return key


def _write(path: Path, content: bytes | str) -> None:
    try:
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content, encoding="utf-8")
    except OSError as exc:
        raise MalformedError(f"{path}: cannot be written ({exc.strerror})", field="file") from exc
