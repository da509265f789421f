"""The verbs about parties: who may ask, who hands data in, who may order accesses, and their keys."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from joserfc.jwk import KeySet

from ledger.cli_output import open_custodian
from ledger.cli_terminal import Json, number_of, plain, read_json, show, table, write_secret
from ledger.custodian import Custodian
from ledger.errors import AlreadyExistsError, LedgerError, MalformedError
from ledger.exchange import Party, new_furnisher_keys, new_institution_keys
from ledger.json_forms import DAY_SECONDS, iso_time
from ledger.parties import AUTHORITY, FURNISHER, INSTITUTION

PANEL: Final = "Parties"
MAX_OVERLAP_DAYS: Final = 90
PLURALS: Final = {INSTITUTION: "institutions", FURNISHER: "furnishers", AUTHORITY: "authorities"}

app = typer.Typer()
institutions_app = typer.Typer(help="Lenders that may ask.", no_args_is_help=True)
furnishers_app = typer.Typer(help="Who hands data in.", no_args_is_help=True)
app.add_typer(institutions_app, name="institutions", rich_help_panel=PANEL)
app.add_typer(furnishers_app, name="furnishers", rich_help_panel=PANEL)
authorities_app = typer.Typer(help="Who may order accesses.", no_args_is_help=True)
app.add_typer(authorities_app, name="authorities", rich_help_panel=PANEL)

Institution = Annotated[str, typer.Argument(help="Its id, for example did:web:bank.example")]
Furnisher = Annotated[str, typer.Argument(help="Its id, as the source of its values.")]
Authority = Annotated[str, typer.Argument(help="Its id, for example urn:court:1")]
Name = Annotated[str, typer.Option(help="The name that people see.")]
PublicKeys = Annotated[Path, typer.Option("--jwks", help="Its public keys, a JWK set.")]
OwnKeys = Annotated[Path | None, typer.Option("--jwks", help="Its public keys, a JWK set.")]
NewKeys = Annotated[Path | None, typer.Option(help="Make keys for it and write them here.")]
OverlapDays = Annotated[
    int, typer.Option(min=0, max=MAX_OVERLAP_DAYS, help="For so many days the present keys count as well.")
]

Add = Callable[[Custodian, dict[str, Any]], Party]


@institutions_app.command("add")
def institutions_add(
    *, institution: Institution, name: Name, jwks: OwnKeys = None, new_keys: NewKeys = None, as_json: Json = False
) -> None:
    """Register a lender with its public keys (one to sign requests, one to be sealed to)."""

    def add(custodian: Custodian, keys: dict[str, Any]) -> Party:
        return custodian.registry.add_institution(institution, name, keys, at=custodian.clock())

    _add(INSTITUTION, add, jwks, new_keys, new_institution_keys, as_json=as_json)


@furnishers_app.command("add")
def furnishers_add(
    *, furnisher: Furnisher, name: Name, jwks: OwnKeys = None, new_keys: NewKeys = None, as_json: Json = False
) -> None:
    """Register who hands data in, with its public key to sign with.

    Under the id that an import has as its source, it can correct what was imported.
    """

    def add(custodian: Custodian, keys: dict[str, Any]) -> Party:
        return custodian.registry.add_furnisher(furnisher, name, keys, at=custodian.clock())

    _add(FURNISHER, add, jwks, new_keys, new_furnisher_keys, as_json=as_json)


def _add(
    role: str, add: Add, jwks: Path | None, new_keys: Path | None, make: Callable[[], KeySet], *, as_json: bool
) -> None:
    if (jwks is None) == (new_keys is None):
        raise MalformedError("jwks: expected exactly one of --jwks and --new-keys", field="jwks")
    keys: dict[str, Any] = dict(make().as_dict(private=True)) if jwks is None else read_json(jwks)
    with open_custodian() as custodian:
        if new_keys is not None:
            write_secret(new_keys, json.dumps(keys, indent=1))
        try:
            party = add(custodian, keys)
        except LedgerError as exc:
            if new_keys is not None:
                # Keys of nobody; and in the way of the next try.
                new_keys.unlink()
            if isinstance(exc, AlreadyExistsError):
                raise AlreadyExistsError(f"{role}: registered already", field=role) from exc
            raise
    where = f"; its private keys are in {plain(str(new_keys))}" if new_keys is not None else ""
    show(as_json, {role: party.party_id, "name": party.name}, f"Registered {plain(party.party_id)}{where}")


@authorities_app.command("add")
def authorities_add(*, authority: Authority, name: Name, jwks: PublicKeys, as_json: Json = False) -> None:
    """Register who may order accesses, with the public key that answers are sealed to."""
    keys = read_json(jwks)
    with open_custodian() as custodian:
        party = custodian.registry.add_authority(authority, name, keys, at=custodian.clock())
    show(as_json, {AUTHORITY: party.party_id, "name": party.name}, f"Registered {plain(party.party_id)}")


@institutions_app.command("list")
def institutions_list(*, as_json: Json = False) -> None:
    """All registered lenders."""
    with open_custodian() as custodian:
        _list(INSTITUTION, custodian.registry.institutions(), as_json=as_json)


@furnishers_app.command("list")
def furnishers_list(*, as_json: Json = False) -> None:
    """All who may hand data in."""
    with open_custodian() as custodian:
        _list(FURNISHER, custodian.registry.furnishers(), as_json=as_json)


@authorities_app.command("list")
def authorities_list(*, as_json: Json = False) -> None:
    """All who may order accesses."""
    with open_custodian() as custodian:
        _list(AUTHORITY, custodian.registry.authorities(), as_json=as_json)


def _list(role: str, parties: Sequence[Party], *, as_json: bool) -> None:
    rows = [
        {role: one.party_id, "name": one.name, "keys": len(one.jwks["keys"]), "suspended": one.suspended}
        for one in parties
    ]
    show(as_json, rows, table(rows) if rows else f"No {PLURALS[role]}.")


@institutions_app.command("suspend")
def institutions_suspend(*, institution: Institution, as_json: Json = False) -> None:
    """Give a lender nothing any more, from its next request on. Its duties stay, and it can do them."""
    _suspend(INSTITUTION, institution, suspended=True, as_json=as_json)


@institutions_app.command("resume")
def institutions_resume(*, institution: Institution, as_json: Json = False) -> None:
    """Let a suspended lender ask again."""
    _suspend(INSTITUTION, institution, suspended=False, as_json=as_json)


@furnishers_app.command("suspend")
def furnishers_suspend(*, furnisher: Furnisher, as_json: Json = False) -> None:
    """Take nothing in from a furnisher any more. What it handed in stays."""
    _suspend(FURNISHER, furnisher, suspended=True, as_json=as_json)


@authorities_app.command("suspend")
def authorities_suspend(*, authority: Authority, as_json: Json = False) -> None:
    """Execute no order of an authority any more."""
    _suspend(AUTHORITY, authority, suspended=True, as_json=as_json)


@authorities_app.command("resume")
def authorities_resume(*, authority: Authority, as_json: Json = False) -> None:
    """Execute orders of a suspended authority again."""
    _suspend(AUTHORITY, authority, suspended=False, as_json=as_json)


@furnishers_app.command("resume")
def furnishers_resume(*, furnisher: Furnisher, as_json: Json = False) -> None:
    """Let a suspended furnisher hand data in again."""
    _suspend(FURNISHER, furnisher, suspended=False, as_json=as_json)


def _suspend(role: str, party_id: str, *, suspended: bool, as_json: bool) -> None:
    with open_custodian() as custodian:
        custodian.registry.suspend(role, party_id, suspended=suspended)
    human = f"{'Suspended' if suspended else 'Resumed'}: {plain(party_id)}"
    show(as_json, {role: party_id, "suspended": suspended}, human)


@institutions_app.command("rotate-keys")
def institutions_rotate_keys(
    *, institution: Institution, jwks: PublicKeys, overlap_days: OverlapDays = 7, as_json: Json = False
) -> None:
    """Replace a lender's keys: the new ones count at once, and answers go to them."""
    _rotate(INSTITUTION, institution, jwks, overlap_days, as_json=as_json)


@furnishers_app.command("rotate-keys")
def furnishers_rotate_keys(
    *, furnisher: Furnisher, jwks: PublicKeys, overlap_days: OverlapDays = 7, as_json: Json = False
) -> None:
    """Replace a furnisher's keys: the new ones count at once."""
    _rotate(FURNISHER, furnisher, jwks, overlap_days, as_json=as_json)


def _rotate(role: str, party_id: str, jwks: Path, overlap_days: int, *, as_json: bool) -> None:
    keys, overlap = read_json(jwks), overlap_days * DAY_SECONDS
    with open_custodian() as custodian:
        now = custodian.clock()
        party = custodian.registry.rotate_keys(role, party_id, keys, now=now, overlap_seconds=overlap)
    until = iso_time(now + overlap)
    show(
        as_json,
        {role: party_id, "keys": len(party.jwks["keys"]), "oldKeysUntil": until},
        f"{number_of(len(party.jwks['keys']), 'key')} of {plain(party_id)}; those from before count until {until}",
    )
