"""The verbs about checkpoints: what an auditor signs, compares with others', and never takes back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import typer

from ledger.audit import Asked
from ledger.audit_report import AuditReport, Finding, Verdict, fields_of
from ledger.checkpoint import Checkpoint, checkpoint_of, compare, compare_all, is_decided, open_checkpoint
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
    wants_all_headers,
)
from ledger.cli_audit_output import report_text
from ledger.cli_terminal import Json, plain, show
from ledger.errors import (
    AuditError,
    CheckpointInconsistentError,
    MalformedError,
    SplitViewError,
    UnreadableFileError,
)
from ledger.json_forms import iso_time
from ledger.signed_note import MAX_LENGTH, NoteKey
from ledger.witness import Witness, new_signer, read_signer

FINDINGS: Final = 1
app = typer.Typer(help="Signed notes of what an auditor saw, for others to compare.", no_args_is_help=True)

Note = Annotated[Path, typer.Argument(help="A checkpoint: a signed note in a file.")]
Key = Annotated[Path, typer.Option(help="Your key, made by `new-key`.")]
Memory = Annotated[Path, typer.Option(help="A directory that remembers what you signed last. Keep it.")]
First = Annotated[bool, typer.Option("--first", metavar="", help="There is nothing in the memory yet, nor was there.")]
By = Annotated[list[str], typer.Option("--by", help="A key that must have signed: its text, or a file that has it.")]
Out = Annotated[Path | None, typer.Option(help="Write the note there instead of printing it.")]


def add_to(audit: typer.Typer) -> None:
    """Mount these verbs."""
    audit.add_typer(app, name="checkpoint")


@app.command("new-key")
def new_key(
    *,
    name: Annotated[str, typer.Argument(help="Who signs: best an address of yours without its scheme.")],
    file: Annotated[Path, typer.Argument(help="A new file for the private key.")],
    as_json: Json = False,
) -> None:
    """Make an Ed25519 key. What is printed is its public half, for those who verify."""
    key = str(new_signer(name, file).key)
    show(as_json, {"key": key}, key)


@app.command("make")
def make(
    *,
    key: Key,
    memory: Memory,
    first: First = False,
    despite: Annotated[
        list[str] | None, typer.Option(help="Code of findings that are known: the checkpoint says how many there are.")
    ] = None,
    rpc_url: RpcUrls = None,
    contract: Contract = None,
    chain_id: ChainId = DEVNET_CHAIN_ID,
    block: At = None,
    tag: Tag = "latest",
    from_block: FromBlock = 0,
    solc: Solc = None,
    without_compiler: WithoutCompiler = False,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Audit the chain and sign what it came to, if that is clean and follows what you signed last."""
    witness = Witness(read_signer(key), memory)
    wanted = asked_of(contract, chain_id, block, tag, from_block, "all")
    last = witness.last(wanted.domain)
    asked = replace(
        wanted,
        compile_sources=not without_compiler,
        compiler=solc,
        earlier=last.earlier() if last else (),
    )
    report = audited(rpc_url, asked, None, quiet=as_json).report
    checkpoint = _checkpoint(report, despite or (), as_json=as_json)
    try:
        note = witness.sign(checkpoint, follows=last, first=first)
    except (SplitViewError, CheckpointInconsistentError) as exc:
        _refused(exc, as_json=as_json)
    _hand_out(note, checkpoint, out, as_json=as_json)


@app.command("cosign")
def cosign(
    *,
    note: Note,
    by: By,
    key: Key,
    memory: Memory,
    first: First = False,
    rpc_url: RpcUrls = None,
    from_block: FromBlock = 0,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Audit the block of someone's checkpoint by your own endpoint, and add your signature if you see the same."""
    text = _read(note)
    theirs, _ = _opened(text, by, as_json=as_json)
    witness = Witness(read_signer(key), memory)
    last = witness.last(theirs.domain)
    asked = Asked(
        domain=theirs.domain,
        block=theirs.block_number,
        first_block=from_block,
        compile_sources=False,
        earlier=last.earlier() if last else (),
    )
    report = audited(rpc_url, asked, None, quiet=as_json).report
    mine = _checkpoint(report, tuple(theirs.findings), as_json=as_json)
    if found := compare(mine, theirs):
        _show_findings(found, as_json=as_json)
    if mine.findings != theirs.findings:
        # Whoever signs a count vouches for it.
        said = f"the checkpoint counts {_counts(theirs)}, this audit found {_counts(mine)}"
        _refused(CheckpointInconsistentError(said), as_json=as_json)
    try:
        signed = witness.sign(theirs, follows=last, note=text, first=first)
    except (SplitViewError, CheckpointInconsistentError) as exc:
        _refused(exc, as_json=as_json)
    _hand_out(signed, theirs, out, as_json=as_json)


@app.command("verify")
def verify(
    *,
    note: Note,
    by: By,
    quorum: Annotated[int | None, typer.Option(help="How many of the keys must have signed. Default: all.")] = None,
    rpc_url: Annotated[
        list[str] | None, typer.Option(help="A node: does its chain lead on from the checkpoint? Without: offline.")
    ] = None,
    from_block: FromBlock = 0,
    headers: Headers = "all",
    as_json: Json = False,
) -> None:
    """Check the signatures of a checkpoint, and if a node is named, that its chain leads on from it."""
    checkpoint, signed_by = _opened(_read(note), by, quorum=quorum, as_json=as_json)
    fields = {"checkpoint": _fields(checkpoint), "signedBy": [key.name for key in signed_by], "chain": None}
    human = f"Signed by {', '.join(key.name for key in signed_by)}.\n{_told(checkpoint)}"
    if rpc_url:
        asked = Asked(
            domain=checkpoint.domain,
            first_block=from_block,
            all_headers=wants_all_headers(headers),
            compile_sources=False,
            earlier=checkpoint.earlier(),
        )
        report = audited(rpc_url, asked, None, quiet=as_json).report
        fields["chain"] = report.as_json() if as_json else None
        show(as_json, fields, f"{human}\n{report_text(report)}")
        raise SystemExit(EXIT_CODES[report.verdict])
    show(as_json, fields, f"{human}\nWhether a chain leads on from it was not looked at (--rpc-url).")


@app.command("compare")
def compare_notes(
    *,
    notes: Annotated[list[Path], typer.Argument(help="Two checkpoints or more.")],
    by: By,
    as_json: Json = False,
) -> None:
    """Compare checkpoints of several auditors, or of several days: a split view shows."""
    if len(notes) == 1:
        raise MalformedError("notes: expected two or more", field="notes")
    checkpoints = [_opened(_read(note), by, quorum=1, as_json=as_json)[0] for note in notes]
    if found := compare_all(checkpoints):
        _show_findings(found, as_json=as_json)
    decided = all(is_decided(first, second) for first, second in combinations(checkpoints, 2))
    human = "They agree."
    if not decided:
        human += (
            " They are of different blocks: `verify --rpc-url` on the earlier one shows whether one chain has both."
        )
    show(as_json, {"verdict": Verdict.CLEAN.value, "findings": [], "ofOneBlock": decided}, human)


# -------------------------------------------------------------------------------------------------------------- results


def _checkpoint(report: AuditReport, despite: Sequence[str], *, as_json: bool) -> Checkpoint:
    """What is to be signed; ends the process with the report if the audit was not clean."""
    try:
        return checkpoint_of(report, despite=despite)
    except AuditError as exc:
        show(as_json, report.as_json() if as_json else None, f"{report_text(report)}\n{plain(exc.message)}")
        raise SystemExit(EXIT_CODES[report.verdict] or FINDINGS) from exc


def _opened(
    text: str, by: Sequence[str], *, quorum: int | None = None, as_json: bool
) -> tuple[Checkpoint, tuple[NoteKey, ...]]:
    keys = [NoteKey.parse(_key_text(one)) for one in by]
    try:
        return open_checkpoint(text, keys, quorum=len(set(keys)) if quorum is None else quorum)
    except AuditError as exc:
        _refused(exc, as_json=as_json)


def _refused(error: AuditError, *, as_json: bool) -> NoReturn:
    _show_findings([Finding(code=error.code, detail=error.message)], as_json=as_json)


def _show_findings(found: Sequence[Finding], *, as_json: bool) -> NoReturn:
    fields = {"verdict": Verdict.FINDINGS.value, "findings": [fields_of(one) for one in found]}
    show(as_json, fields, "\n".join(f"{one.code}: {plain(one.detail)}" for one in found))
    raise SystemExit(FINDINGS)


def _hand_out(note: str, checkpoint: Checkpoint, out: Path | None, *, as_json: bool) -> None:
    if out is not None:
        try:
            out.write_text(note, encoding="utf-8")
        except OSError as exc:
            raise MalformedError(f"{out}: cannot be written ({exc.strerror})", field="out") from exc
    show(as_json, {"checkpoint": _fields(checkpoint), "note": note}, note.rstrip("\n") if out is None else f"{out}")


def _counts(checkpoint: Checkpoint) -> str:
    return ", ".join(f"{code} {count}" for code, count in sorted(checkpoint.findings.items())) or "nothing"


def _fields(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "origin": checkpoint.origin,
        "block": checkpoint.block_number,
        "blockHash": checkpoint.block_hash,
        "blockTime": iso_time(checkpoint.timestamp),
        "logs": [
            {"custodian": custodian, "writer": writer, "size": size, "head": head}
            for (custodian, writer), (size, head) in sorted(checkpoint.logs.items())
        ],
        "findings": dict(checkpoint.findings),
    }


def _told(checkpoint: Checkpoint) -> str:
    entries = sum(size for size, _ in checkpoint.logs.values())
    return (
        f"{checkpoint.origin}, block {checkpoint.block_number} of {iso_time(checkpoint.timestamp)}, "
        f"{checkpoint.block_hash}: {entries} entries in {len(checkpoint.logs)} logs."
    )


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return file.read(MAX_LENGTH + 1)
    except (OSError, UnicodeDecodeError) as exc:
        raise UnreadableFileError(f"{path}: expected a signed note", field="note") from exc


def _key_text(given: str) -> str:
    return given if "+" in given else _read(Path(given))
