"""The verbs about orders: what an authority compels, executed as a logged access of its own kind."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from ledger.cli_output import open_custodian
from ledger.cli_terminal import Json, SubjectRef, plain, show, table, write_secret
from ledger.compelled import NewOrder, is_visible
from ledger.consent import hex32_of, parse_hex32
from ledger.errors import MalformedError, UnreadableFileError
from ledger.json_forms import iso_time
from ledger.orders import ListedOrder

PANEL: Final = "Duties"
app = typer.Typer()
orders_app = typer.Typer(help="Accesses that an authority orders, without a consent.", no_args_is_help=True)
app.add_typer(orders_app, name="orders", rich_help_panel=PANEL)


@orders_app.command("execute")
def orders_execute(
    *,
    subject: SubjectRef,
    authority: Annotated[str, typer.Option(help="Id of the authority, as it is registered.")],
    reference: Annotated[str, typer.Option(help="The authority's own reference: it stands for one order.")],
    document: Annotated[Path, typer.Option(help="The order's document: its digest goes into the order's hash.")],
    attribute: Annotated[list[str], typer.Option(help="What is to be handed out; repeat it for more.")],
    out: Annotated[Path, typer.Option(help="Where the answer goes, sealed to the authority's key.")],
    embargo_until: Annotated[
        str | None,
        typer.Option(help="Until when it may be kept from the person: a date, at most 366 days ahead."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Log an order, then read and seal what it compels. The same order again is the same entry.

    Nothing is read before the access is on chain. The person sees it at once, or when the embargo is over.
    """
    if out.exists():
        raise MalformedError(f"out: {out} exists already and is not overwritten", field="out")
    document_hash = hex32_of(_digest_of(document))
    until = 0 if embargo_until is None else _time_of(embargo_until)
    with open_custodian() as custodian:
        done = custodian.orders.execute(
            NewOrder(
                authority=authority,
                reference=reference,
                document_hash=document_hash,
                subject_id=custodian.vault.subject_of(subject),
                attributes=tuple(attribute),
                embargo_until=until,
            )
        )
    write_secret(out, done.sealed.decode())
    fields = {"order": done.order_hash, "release": done.release_id, "answer": str(out), "receipt": done.receipt}
    show(as_json, fields, f"{done.order_hash}\n    on the log; the sealed answer is in {plain(str(out))}")


@orders_app.command("list")
def orders_list(*, as_json: Json = False) -> None:
    """Every order, newest first."""
    with open_custodian() as custodian:
        now = custodian.clock()
        rows = [order_fields(one, now=now) for one in custodian.orders.listed()]
    names = ("order", "authority", "reference", "state", "embargoUntil", "visible")
    short = [{name: row[name] for name in names} for row in rows]
    show(as_json, rows, table(short) if short else "No orders.")


@orders_app.command("show")
def orders_show(
    *, order: Annotated[str, typer.Argument(help="Its hash, as `orders list` shows it.")], as_json: Json = False
) -> None:
    """One order with its opening, its place on chain and its receipt."""
    with open_custodian() as custodian:
        found = custodian.orders.one(parse_hex32(order, "order"))
        fields = order_fields(found, now=custodian.clock())
        fields["entry"] = found.opened.entry.as_json() if found.opened else None
        fields["opening"] = found.opened.order.as_json() if found.opened else None
        fields["proof"] = found.proof.as_json() if found.proof else None
        fields["receipt"] = custodian.orders.receipt(found.order_hash) if found.opened and found.proof else None
    human = "\n".join(f"{name}: {plain(str(value))}" for name, value in fields.items() if value is not None)
    show(as_json, fields, human)


def order_fields(one: ListedOrder, *, now: int) -> dict[str, Any]:
    """An order, for machines. After an erasure nothing is left of what it was about."""
    order = one.opened.order if one.opened else None
    return {
        "order": one.order_hash,
        "release": one.release_id,
        "state": one.state if one.opened else "erased",
        "authority": order.authority if order else None,
        "reference": order.reference if order else None,
        "documentHash": order.document_hash if order else None,
        "attributes": list(order.attributes) if order else [],
        "embargoUntil": iso_time(one.embargo_until) if one.embargo_until else None,
        "visible": is_visible(one.embargo_until, now=now),
        "executedAt": iso_time(one.created_at),
        "answeredAt": None if one.finished_at is None else iso_time(one.finished_at),
    }


def _digest_of(document: Path) -> bytes:
    try:
        return sha256(document.read_bytes()).digest()
    except OSError as exc:
        raise UnreadableFileError(f"{document}: cannot be read", field="document") from exc


def _time_of(text: str) -> int:
    """A date (its first second, UTC) or a time; Unix seconds."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as exc:
        raise MalformedError("embargo-until: expected a date such as 2026-12-31", field="embargo-until") from exc
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
