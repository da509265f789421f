"""The verb for the custodian's side of an audit: on its data directory, or a copy of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ledger.audit import Asked
from ledger.audit_report import AuditedEntry, Check
from ledger.cli_audit_options import EXIT_CODES, At, FromBlock, Headers, RpcUrls, audited, block_of, wants_all_headers
from ledger.cli_terminal import Json, plain, show
from ledger.errors import MalformedError
from ledger.reconcile import reconcile
from ledger.reconciliation import EXPLANATIONS, Reconciliation, differences_of
from ledger.unwraps import Head

if TYPE_CHECKING:
    from ledger.custodian import Custodian

MAX_SHOWN: Final = 20
_END: Final = re.compile(r"([0-9]{1,19}):([0-9a-f]{32})")


def add_to(audit: typer.Typer) -> None:
    """Mount this verb."""
    audit.command("reconcile")(reconcile_verb)


def reconcile_verb(
    *,
    receipts: Annotated[
        Path | None, typer.Option(help="A directory of receipts that institutions handed in, one in a file.")
    ] = None,
    known: Annotated[
        list[str] | None, typer.Option(help="An end of the journal of unwraps that an earlier run printed.")
    ] = None,
    rpc_url: RpcUrls = None,
    block: At = None,
    from_block: FromBlock = 0,
    headers: Headers = "all",
    as_json: Json = False,
) -> None:
    """Hold what the keys opened, the journal and receipts against the chain. For a custodian, on its data directory.

    The directory is that of CONSENT_LEDGER_DATA. The service may be at work, and a copy will do as well.
    """
    # An auditor's other verbs start without all that a custodian is made of.
    from ledger.config import Config  # noqa: PLC0415 - see above
    from ledger.custodian import Custodian  # noqa: PLC0415 - see above

    ends = [_head(text) for text in known or ()]
    with Custodian(Config.from_env()) as custodian:
        asked = Asked(
            domain=custodian.chain.domain,
            block=block_of(block),
            tag=custodian.config.finality.tag,
            first_block=from_block,
            all_headers=wants_all_headers(headers),
            compile_sources=False,
            watch_entries=True,
        )
        found = reconciled(custodian, asked, rpc_url, receipts=receipts, known=ends, quiet=as_json)
    show(as_json, found.as_json(), _told(found))
    raise SystemExit(EXIT_CODES[found.verdict])


def reconciled(
    custodian: Custodian,
    asked: Asked,
    urls: Sequence[str] | None,
    *,
    receipts: Path | None = None,
    known: Sequence[Head] = (),
    quiet: bool = True,
) -> Reconciliation:
    """Audit the chain and hold the custodian's side against it. Raises `VaultError`, `UnreadableFileError`."""
    from ledger.custodian_side import Books, receipts_in, sides_of  # noqa: PLC0415 - see above

    checks: list[Check] = []

    def entries() -> list[AuditedEntry]:
        audit = audited(urls or [custodian.config.rpc_url], asked, None, quiet=quiet)
        checks.extend(audit.report.checks)
        return [entry for entry in audit.entries if entry.custodian == custodian.address]

    handed_in = receipts_in(receipts, custodian.accounts.signing_key, asked.domain) if receipts else []
    records, keys = custodian.access_records, custodian.keys
    books = Books(journal=custodian.journal, orders=custodian.order_book, records=records, keys=keys)
    sides = sides_of(books, entries, receipts=handed_in, known=known)
    return reconcile(sides, checks)


def _told(found: Reconciliation) -> str:
    lines = [f"{found.verdict.value.replace('_', ' ').upper()}"]
    lines += [f"    {one.name}: {plain(one.detail)}" for one in found.checks if one.holds is not True]
    lines += [f"    {plain(line)}" for line in list(differences_of(found.findings))[:MAX_SHOWN]]
    if (more := len(found.findings) - MAX_SHOWN) > 0:
        lines.append(f"    and {more} more: --json has them all")
    lines.append("What agreed, or has its explanation:")
    lines += [f"    {count:>8}  {EXPLANATIONS[name]}" for name, count in found.numbers.items()]
    lines.append("What keys were used for (envelopes, at most):")
    lines += [f"    {count:>8}  {use}" for use, count in found.unwraps.items()]
    lines.append(f"Keep this, apart from the custodian, and give it to the next run: --known {found.end}")
    return "\n".join(lines)


def _head(text: str) -> Head:
    found = _END.fullmatch(text)
    if found is None:
        raise MalformedError("known: expected <number>:<32 hex digits>, as an earlier run printed it", field="known")
    return Head(seq=int(found[1]), mac=found[2])
