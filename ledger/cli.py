"""The command line: thin verbs over `Custodian`. Every verb takes `--json`.

Exit codes: 0 done · 1 the answer is no (consent) · 2 the request is wrong · 3 store, keys or set-up · 4 the chain ·
5 something that must hold does not (verification, demo).

Secrets are read from files that only their owner can read, never from arguments, and are never printed.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from eth_account import Account
from eth_utils import keccak
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from ledger import deploy
from ledger.chain import JsonRpc
from ledger.config import DEVNET_PORT, Config
from ledger.consent import (
    Address,
    Hex32,
    grant_typed_data,
    hex32_of,
    parse_hex32,
    pause_typed_data,
    revocation_typed_data,
    sign_typed_data,
)
from ledger.custodian import Custodian
from ledger.demo import run_demo
from ledger.devnet import Devnet, fund
from ledger.errors import (
    AuditError,
    ChainError,
    ConsentError,
    DevnetError,
    LedgerError,
    MalformedError,
    RequestError,
    UnreadableFileError,
)
from ledger.evidence import verify_receipt
from ledger.exchange import key_for, new_institution_keys, open_answer, sign_request
from ledger.grants import ActResult
from ledger.importer import Importer
from ledger.importmap import BadCell, parse_map
from ledger.keys import read_private_key, write_private_file
from ledger.purposes import purpose as purpose_of
from ledger.registry import StoredConsent

DAY: Final = 86_400
EXIT_CODES: Final[Sequence[tuple[type[LedgerError], int]]] = (
    (ConsentError, 1),
    (RequestError, 2),
    (ChainError, 4),
    (AuditError, 5),
)
out = Console()
err = Console(stderr=True)

app = typer.Typer(
    help="Consent Ledger: no access without a signed consent, no release before it is on the log.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
contracts_app = typer.Typer(help="The contract.", no_args_is_help=True)
institutions_app = typer.Typer(help="Lenders that may ask.", no_args_is_help=True)
subjects_app = typer.Typer(help="People and what is held about them.", no_args_is_help=True)
consents_app = typer.Typer(help="Consents.", no_args_is_help=True)
keys_app = typer.Typer(help="The custodian's keys.", no_args_is_help=True)
app.add_typer(contracts_app, name="contracts")
app.add_typer(institutions_app, name="institutions")
app.add_typer(subjects_app, name="subjects")
app.add_typer(consents_app, name="consents")
app.add_typer(keys_app, name="keys")

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
ConsentId = Annotated[str, typer.Argument(help="Id of the consent: 0x and 64 hex digits.")]
SubjectRef = Annotated[str, typer.Argument(help="The furnisher's reference of the person.")]
KeyPath = Annotated[Path, typer.Option("--key", help="File with the subject's private key, mode 0600.")]


# ---------------------------------------------------------------------------------------------------------- installation


@app.command()
def init(as_json: Json = False) -> None:
    """Make keys, accounts and an empty database in the data directory. Overwrites nothing."""
    config = Config.from_env()
    Custodian.init(config)
    with Custodian(config) as custodian:
        _show(as_json, {"data": str(config.data), "custodian": custodian.address}, f"Ready in {config.data}")


@app.command()
def devnet(
    port: Annotated[int, typer.Option(help="Port on loopback.")] = DEVNET_PORT,
    as_json: Json = False,
) -> None:
    """Run a local chain in the foreground until Ctrl-C. It keeps nothing; `sync` puts back what it lost."""
    config = Config.from_env()
    with Devnet(port=port, log=config.data / "devnet.log") as node:
        _show(as_json, {"rpcUrl": node.url, "log": str(config.data / "devnet.log")}, f"A local chain at {node.url}")
        _wait_for_interrupt(node)


@app.command("deploy")
def deploy_contract(
    fund_accounts: Annotated[bool, typer.Option("--fund", help="On a devnet: give the accounts gas money.")] = False,
    as_json: Json = False,
) -> None:
    """Put the contract on chain, unless it is there, and let the writers append."""
    with _custodian() as custodian:
        if fund_accounts:
            fund(custodian.rpc, [account.address for account in custodian.accounts.every()])
        deployed = custodian.deploy()
        address = custodian.chain.domain.contract
        what = "deployed" if deployed else "is there already"
        _show(as_json, {"contract": address, "deployed": deployed}, f"The contract {what}: {address}")


@contracts_app.command("verify")
def contracts_verify(
    solc: Annotated[Path | None, typer.Option(help="A Solidity compiler; default: the checkout's.")] = None,
    as_json: Json = False,
) -> None:
    """Recompile the sources and compare with the code on chain."""
    config = Config.from_env()
    found = deploy.verify(JsonRpc(config.rpc_url), solc)
    _show(
        as_json,
        {"contract": found.contract, "compiler": found.compiler, "sources": found.sources, "bytes": found.code_size},
        f"The code at {found.contract} is what {found.sources} source files compile to (solc {found.compiler}).",
    )


@app.command()
def sync(as_json: Json = False) -> None:
    """Make chain and journal agree: relay what is pending, put back what the chain lost, log refusals."""
    with _custodian() as custodian:
        report = custodian.sync()
    fields = {name: getattr(report, name) for name in report.__slots__}
    _show(
        as_json,
        fields,
        ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in fields.items() if count) or "In sync.",
    )


@app.command()
def up(
    port: Annotated[int, typer.Option(help="Port of the local chain.")] = DEVNET_PORT,
    every: Annotated[int, typer.Option(help="Seconds between two rounds of sync.")] = 10,
    as_json: Json = False,
) -> None:
    """Run a local chain and the service in the foreground until Ctrl-C; state stays in the data directory."""
    config = Config.from_env()
    if not config.database.exists():
        Custodian.init(config)
    with Devnet(port=port, log=config.data / "devnet.log") as node, Custodian(_at(config, node.url)) as custodian:
        fund(custodian.rpc, [account.address for account in custodian.accounts.every()])
        custodian.deploy()
        report = custodian.sync()
        _show(
            as_json,
            {"rpcUrl": node.url, "contract": custodian.chain.domain.contract, "data": str(config.data)},
            f"Up: chain at {node.url}, contract {custodian.chain.domain.contract}, data in {config.data}. "
            f"Put back: {report.replayed_acts} acts, {report.replayed_accesses} accesses. Ctrl-C ends it.",
        )
        _wait_for_interrupt(node, every, custodian)


# ------------------------------------------------------------------------------------------------------------------ data


@app.command("import")
def import_file(
    file: Annotated[Path, typer.Argument(help="CSV file of a furnisher.")],
    map_name: Annotated[str, typer.Option("--map", help="Map file, or the name of one that ships: german, taiwan.")],
    strict: Annotated[bool, typer.Option(help="All or nothing: a single bad row stops it.")] = False,
    as_json: Json = False,
) -> None:
    """Take a CSV file into the vault. Bad rows are reported and skipped; a run that was cut off goes on."""
    text = _map_text(map_name)
    bad: list[BadCell] = []

    def report(cell: BadCell) -> None:
        if as_json:
            bad.append(cell)
        else:
            where = f", column {cell.column}" if cell.column else ""
            err.print(f"line {cell.line}{where}: {cell.reason}", markup=False, highlight=False)

    with _custodian() as custodian, Progress(console=err, disable=as_json, transient=True) as bar:
        task = bar.add_task("importing", total=None)
        result = Importer(custodian.store, custodian.vault, clock=custodian.clock).run(
            file,
            parse_map(text),
            text,
            strict=strict,
            report=report,
            progress=lambda done: bar.update(task, completed=done, description=f"importing: {done} rows"),
        )
    cells = [{"line": cell.line, "column": cell.column, "reason": cell.reason} for cell in bad]
    fields = {name: getattr(result, name) for name in result.__slots__} | {"badCells": cells}
    done = "was imported before" if result.already_done else f"{result.imported} rows imported, {result.bad} bad"
    _show(as_json, fields, f"{file.name}: {done}, {result.versions} new values.")


@subjects_app.command("count")
def subjects_count(as_json: Json = False) -> None:
    """How many people and values are held."""
    with _custodian() as custodian:
        counts = custodian.vault.count()
    _show(as_json, counts, ", ".join(f"{count} {name}" for name, count in counts.items()))


@subjects_app.command("show")
def subjects_show(subject: SubjectRef, as_json: Json = False) -> None:
    """Which attributes are held about a person (no values), and the person's consents."""
    with _custodian() as custodian:
        subject_id = custodian.vault.subject_of(subject)
        held = custodian.vault.held(subject_id)
        consents = [_consent_fields(custodian, consent) for consent in custodian.registry.consents(subject_id)]
    _show(as_json, {"attributes": held, "consents": consents}, _table(consents, f"{len(held)} attributes; consents"))


@subjects_app.command("new-key")
def subjects_new_key(
    file: Annotated[Path, typer.Argument(help="Where to write the new private key.")], as_json: Json = False
) -> None:
    """Make a signing key for a script. People use their wallet or passkey instead."""
    account = Account.create()
    write_private_file(file, account.key.hex() + "\n")
    _show(as_json, {"account": account.address}, f"A new key for {account.address} in {file}")


@institutions_app.command("add")
def institutions_add(
    institution: Annotated[str, typer.Argument(help="Its id, for example did:web:bank.example")],
    name: Annotated[str, typer.Option(help="The name that people see.")],
    jwks: Annotated[Path | None, typer.Option(help="Its public keys, a JWK set.")] = None,
    new_keys: Annotated[Path | None, typer.Option(help="Make keys for it and write them here.")] = None,
    as_json: Json = False,
) -> None:
    """Register a lender with its public keys (one to sign requests, one to be sealed to)."""
    if (jwks is None) == (new_keys is None):
        raise MalformedError("jwks: expected exactly one of --jwks and --new-keys", field="jwks")
    if new_keys is not None:
        keys: dict[str, Any] = dict(new_institution_keys().as_dict(private=True))
        write_private_file(new_keys, json.dumps(keys, indent=1))
    else:
        assert jwks is not None
        keys = _json_file(jwks)
    with _custodian() as custodian:
        custodian.registry.add_institution(institution, name, keys, at=custodian.clock())
    _show(as_json, {"institution": institution, "name": name}, f"Registered {institution}")


@institutions_app.command("list")
def institutions_list(as_json: Json = False) -> None:
    """All registered lenders."""
    with _custodian() as custodian:
        rows = [
            {
                "institution": one.institution_id,
                "name": one.name,
                "keys": len(one.jwks["keys"]),
                "suspended": one.suspended,
            }
            for one in custodian.registry.institutions()
        ]
    _show(as_json, rows, _table(rows, "Institutions"))


# -------------------------------------------------------------------------------------------------------------- consents


@app.command()
def grant(
    key: KeyPath,
    subject: Annotated[str, typer.Option(help="The furnisher's reference of the person.")],
    institution: Annotated[str, typer.Option(help="Who may ask.")],
    purpose: Annotated[str, typer.Option(help="Code of the purpose.")],
    attribute: Annotated[list[str], typer.Option(help="Attribute that may be read; repeat for more.")],
    days: Annotated[int, typer.Option(help="How long, in days.")] = 30,
    max_accesses: Annotated[int, typer.Option(help="How often in all.")] = 1,
    per_day: Annotated[int, typer.Option(help="How often in one day.")] = 1,
    retention_days: Annotated[int, typer.Option(help="How long the institution may keep it.")] = 30,
    notice: Annotated[Path | None, typer.Option(help="The text that was shown; its hash is signed.")] = None,
    replaces: Annotated[str | None, typer.Option(help="A consent that this one takes the place of.")] = None,
    print_id: Annotated[bool, typer.Option("--print-id", help="Print the consent's id and nothing else.")] = False,
    as_json: Json = False,
) -> None:
    """Sign a grant with a local key and bring it on chain: for scripts, people use the portal."""
    private_key = read_private_key(key)
    shown = notice.read_bytes() if notice else purpose_of(purpose).description.encode()
    with _custodian() as custodian:
        subject_id = custodian.vault.subject_of(subject)
        now = custodian.clock()
        prepared = custodian.grants.prepare(
            institution_id=institution,
            subject=Address(Account.from_key(private_key).address),
            purpose=purpose,
            attributes=attribute,
            valid_from=now,
            expires_at=now + days * DAY,
            max_accesses=max_accesses,
            accesses_per_day=per_day,
            retention_days=retention_days,
            notice_hash=hex32_of(keccak(shown)),
            **({"replaces": parse_hex32(replaces, "replaces")} if replaces else {}),
        )
        payload = grant_typed_data(prepared, custodian.chain.domain)
        consent = custodian.grants.grant(prepared, sign_typed_data(payload, private_key), subject_id)
        fields = _consent_fields(custodian, consent) | {"receipt": custodian.grants.receipt(consent.consent_id)}
    _show(as_json, fields, consent.consent_id if print_id else f"Granted: {consent.consent_id}")


@app.command()
def revoke(
    consent: Annotated[list[str], typer.Argument(help="Ids of the consents.")], key: KeyPath, as_json: Json = False
) -> None:
    """Revoke consents by the subject's signature; one signature for all of them."""
    consent_ids = [parse_hex32(one, "consent") for one in consent]
    private_key = read_private_key(key)
    with _custodian() as custodian:
        payload = revocation_typed_data(consent_ids, custodian.chain.domain)
        result = custodian.grants.revoke(consent_ids, sign_typed_data(payload, private_key))
    _show_act(as_json, result, f"Revoked {len(consent_ids)}")


@app.command()
def pause(
    consent: ConsentId,
    key: KeyPath,
    resume: Annotated[bool, typer.Option("--resume", help="End the pause.")] = False,
    as_json: Json = False,
) -> None:
    """Pause a consent, or resume it, by the subject's signature."""
    consent_id = parse_hex32(consent, "consent")
    private_key = read_private_key(key)
    with _custodian() as custodian:
        sequence = custodian.registry.consent(consent_id).pause_sequence + 1
        payload = pause_typed_data(consent_id, paused=not resume, sequence=sequence, domain=custodian.chain.domain)
        signature = sign_typed_data(payload, private_key)
        result = custodian.grants.set_paused(consent_id, paused=not resume, sequence=sequence, signature=signature)
    _show_act(as_json, result, "Resumed" if resume else "Paused")


@consents_app.command("list")
def consents_list(
    subject: Annotated[str | None, typer.Option(help="Only of this person.")] = None, as_json: Json = False
) -> None:
    """Consents and their state on chain."""
    with _custodian() as custodian:
        subject_id = custodian.vault.subject_of(subject) if subject else None
        rows = [_consent_fields(custodian, consent) for consent in custodian.registry.consents(subject_id)]
    _show(as_json, rows, _table(rows, "Consents", leave_out=("attributes", "subject")))


@consents_app.command("show")
def consents_show(consent: ConsentId, as_json: Json = False) -> None:
    """One consent: its terms, its state on chain, and a receipt."""
    consent_id = parse_hex32(consent, "consent")
    with _custodian() as custodian:
        fields = _consent_fields(custodian, custodian.registry.consent(consent_id))
        fields["receipt"] = custodian.grants.receipt(consent_id)
    _show(as_json, fields, "\n".join(f"{name:>15}  {value}" for name, value in fields.items()))


@app.command()
def release(
    consent: ConsentId,
    keys: Annotated[Path, typer.Option(help="The institution's private JWK set, mode 0600.")],
    institution: Annotated[str, typer.Option(help="Who asks.")],
    attribute: Annotated[list[str], typer.Option(help="What is asked; repeat for more.")],
    purpose: Annotated[str, typer.Option(help="What for.")],
    key: Annotated[str, typer.Option("--idempotency-key", help="A retry with the same key is the same request.")],
    as_json: Json = False,
) -> None:
    """Ask as an institution: sign the request, open the sealed answer, check the receipt against the chain."""
    private = _json_file(keys)
    with _custodian() as custodian:
        signed = sign_request(
            institution=institution,
            custodian=custodian.address,
            consent_id=parse_hex32(consent, "consent"),
            purpose=purpose,
            attributes=tuple(attribute),
            idempotency_key=key,
            signing_key=key_for(private, "sig"),
            at=custodian.clock(),
        )
        answer = custodian.releases.release(signed)
        claims = open_answer(answer.sealed, key_for(private, "enc"), custodian.accounts.signing_key)
        verified = verify_receipt(answer.receipt, custodian.chain, custodian.accounts.signing_key)
    fields = {
        "releaseId": answer.release_id,
        "values": claims["values"],
        "sealed": answer.sealed.decode(),
        "receipt": answer.receipt,
        "block": verified.block_number,
    }
    rows = [{"attribute": name, **value} for name, value in claims["values"].items()]
    _show(as_json, fields, _table(rows, f"Logged in block {verified.block_number}, then released"))


@app.command("log")
def access_log(
    subject: Annotated[str | None, typer.Option(help="Only of this person.")] = None,
    consent: Annotated[str | None, typer.Option(help="Only under this consent.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many, newest first.")] = 100,
    as_json: Json = False,
) -> None:
    """Who read what, and who tried: every access and every refusal."""
    with _custodian() as custodian:
        wanted: list[Hex32] | None = None
        if consent is not None:
            wanted = [parse_hex32(consent, "consent")]
        elif subject is not None:
            consents = custodian.registry.consents(custodian.vault.subject_of(subject))
            wanted = [one.consent_id for one in consents]
        rows = []
        for row in custodian.journal.history(wanted, limit):
            entry = custodian.releases.opening(row)
            rows.append(
                {
                    "time": _time(row.created_at),
                    "state": row.state,
                    "reason": row.reason,
                    "institution": entry.institution if entry else "(erased)",
                    "purpose": entry.purpose if entry else "(erased)",
                    "attributes": list(entry.attributes) if entry else [],
                    "consent": row.consent_id,
                    "entryHash": row.entry_hash,
                    "block": row.block_number,
                    "late": row.late,
                }
            )
    _show(as_json, rows, _table(rows, "Log", leave_out=("entryHash", "late")))


@app.command()
def erase(
    subject: SubjectRef,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Erase a person for ever: revoke every consent, destroy every key, leave a tombstone."""
    if not yes and not typer.confirm("This cannot be undone. Erase?"):
        raise typer.Exit(2)
    with _custodian() as custodian:
        erasure = custodian.eraser.erase(subject)
    keks = list(erasure.readable_in_backups_until_destroyed)
    fields = {
        "erasedAt": erasure.erased_at,
        "envelopes": erasure.envelopes,
        "consents": erasure.consents,
        "releases": erasure.releases,
        "onChain": erasure.revocation is None or erasure.revocation.receipt is not None,
        "readableInBackupsUntilDestroyed": keks,
        "proof": erasure.proof,
    }
    _show(
        as_json,
        fields,
        f"Erased: {erasure.envelopes} envelopes, {erasure.consents} consents. Older backups stay readable until "
        f"{', '.join(keks)} is destroyed: `consent-ledger keys rotate`.",
    )


@keys_app.command("rotate")
def keys_rotate(as_json: Json = False) -> None:
    """Re-wrap everything under a new KEK and destroy the old one."""
    with _custodian() as custodian, Progress(console=err, disable=as_json, transient=True) as bar:
        task = bar.add_task("re-wrapping", total=None)
        rotation = custodian.rotate_keys(lambda done, total: bar.update(task, completed=done, total=total))
    fields = {"active": rotation.active, "destroyed": list(rotation.destroyed), "kept": list(rotation.kept)}
    kept = f"; kept, because another process is at work here: {', '.join(rotation.kept)}" if rotation.kept else ""
    _show(as_json, fields, f"Active: {rotation.active}; destroyed: {', '.join(rotation.destroyed) or 'none'}{kept}")


@app.command()
def demo(
    rpc_url: Annotated[str | None, typer.Option(help="A devnet to use instead of starting one.")] = None,
    as_json: Json = False,
) -> None:
    """The main job on real data, from an empty chain to a checked log. Leaves nothing behind."""
    report = run_demo(rpc_url=rpc_url, console=Console(quiet=True) if as_json else out)
    if as_json:
        sys.stdout.write(json.dumps(report.as_json(), indent=1) + "\n")
    if not report.holds:
        raise AuditError("a property does not hold: see the report")


# ---------------------------------------------------------------------------------------------------------------- common


def main() -> None:
    """Entry point: turns every error of this package into a message and an exit code."""
    try:
        app()
    except LedgerError as exc:
        _fail(exc)


def _fail(exc: LedgerError) -> None:
    if "--json" in sys.argv[1:]:
        problem = {"code": exc.code, "message": exc.message} | ({"field": exc.field} if exc.field else {})
        sys.stderr.write(json.dumps({"error": problem}) + "\n")
    else:
        err.print(f"[bold red]error[/] ({exc.code}): ", end="")
        err.print(exc.message, markup=False, highlight=False)
    raise SystemExit(next((code for family, code in EXIT_CODES if isinstance(exc, family)), 3))


def _custodian() -> Custodian:
    return Custodian(Config.from_env())


def _at(config: Config, url: str) -> Config:
    return Config(data=config.data, rpc_url=url, chain_id=config.chain_id, finality=config.finality)


def _wait_for_interrupt(node: Devnet, every: int = 1, custodian: Custodian | None = None) -> None:
    try:
        while node.is_running():
            time.sleep(every)
            if custodian is not None:
                try:
                    custodian.sync()
                except ChainError as exc:
                    err.print(f"sync: {exc.message}", markup=False)
    except KeyboardInterrupt:
        err.print("Stopping.")
        return
    raise DevnetError("the local chain ended by itself")


def _show(as_json: bool, fields: object, human: object) -> None:  # noqa: FBT001 - the first thing each verb knows
    if as_json:
        sys.stdout.write(json.dumps(fields, ensure_ascii=False) + "\n")
    else:
        out.print(human, markup=False, highlight=False) if isinstance(human, str) else out.print(human)


def _show_act(as_json: bool, result: ActResult, what: str) -> None:  # noqa: FBT001
    block = result.receipt.block_number if result.receipt else None
    where = (
        f"on chain in block {block}" if block is not None else "in effect here; on chain as soon as it can be reached"
    )
    fields = {"consents": list(result.consent_ids), "storedAt": result.stored_at, "block": block}
    _show(as_json, fields, f"{what}: {where}.")


def _table(rows: Sequence[Mapping[str, object]], title: str, leave_out: Sequence[str] = ()) -> Table:
    table = Table(title=title, title_justify="left")
    names = [name for name in (rows[0] if rows else {}) if name not in leave_out]
    for name in names:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row[name]) for name in names))
    return table


def _cell(value: object) -> str:
    if isinstance(value, str) and value.startswith("0x") and len(value) > 20:  # noqa: PLR2004
        return f"{value[:10]}…{value[-4:]}"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)


def _consent_fields(custodian: Custodian, consent: StoredConsent) -> dict[str, Any]:
    state = custodian.chain.consent(consent.consent_id)
    reason = custodian.chain.statuses([consent.consent_id], custodian.address)[0]
    terms = consent.grant.terms
    return {
        "consent": consent.consent_id,
        "institution": terms.institution,
        "purpose": terms.purpose,
        "attributes": list(terms.attributes),
        "subject": consent.grant.subject,
        "status": "in_force" if not reason else reason.name.lower(),
        "validFrom": _time(consent.grant.valid_from),
        "expiresAt": _time(consent.grant.expires_at),
        "used": state.accesses,
        "maxAccesses": consent.grant.max_accesses,
    }


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _json_file(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise UnreadableFileError(f"{path}: expected a JSON file", field="file") from exc
    if not isinstance(content, dict):
        raise UnreadableFileError(f"{path}: expected a JSON object", field="file")
    return content


def _map_text(name: str) -> str:
    shipped = files("ledger").joinpath(f"maps/{name}.toml")
    try:
        return (
            shipped.read_text(encoding="utf-8")
            if name.isidentifier() and shipped.is_file()
            else Path(name).read_text(encoding="utf-8")
        )
    except (OSError, ValueError) as exc:
        raise UnreadableFileError(f"{name}: expected a map file or one of german, taiwan", field="map") from exc
