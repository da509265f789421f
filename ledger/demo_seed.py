"""What `consent-ledger up` puts into a data directory so that a newcomer can try everything in the browser.

A few rows of the German file under invented first names, and a furnisher and institutions whose private keys lie beside
the database, where only a demo may have them. Made once: whatever is there already stays as it is, and who was erased
stays so. The codes are kept in clear, in a file of their own, until they are used: they are what the demo's page shows.

Never part of `consent-ledger serve`.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from joserfc.jwk import KeySet

from ledger.config import DEVNET_CHAIN_ID, LOOPBACK, Config
from ledger.custodian import Custodian
from ledger.errors import AlreadyExistsError, ErasedError, NotFoundError
from ledger.exchange import new_furnisher_keys, new_institution_keys
from ledger.importmap import ImportedRow, ImportMap, parse_map
from ledger.private_files import write_private_file
from ledger.vault import AttributeValue, NewRecord

DIRECTORY: Final = "demo"


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoPerson:
    """An invented name for a row of the German file; `ref` is what the vault knows it by."""

    ref: str
    name: str
    row: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoInstitution:
    """A lender whose keys lie in the data directory. `key` names it in addresses and files."""

    key: str
    institution_id: str
    name: str


PEOPLE: Final = tuple(
    DemoPerson(ref=f"demo-{name.lower()}", name=name, row=row)
    for name, row in (("Anna", 2), ("Bruno", 11), ("Chen", 25), ("Dilara", 60))
)
INSTITUTIONS: Final = tuple(
    DemoInstitution(key=key, institution_id=f"did:web:{key}.example", name=name)
    for key, name in (("demo-bank", "Demo Bank"), ("demo-cards", "Demo Cards"), ("demo-homes", "Demo Homes"))
)


FURNISHER_NAME: Final = "Demo Bureau"


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoCode:
    """A person of the demo, and the code that waits for them: None if it is used, out of date or never made."""

    person: DemoPerson
    code: str | None
    is_erased: bool


def is_place_for(config: Config) -> bool:
    """Whether a demo may be here at all: on a local chain, and reached from this machine only."""
    return config.chain_id == DEVNET_CHAIN_ID and config.rp_id in ("localhost", *LOOPBACK)


def seed(custodian: Custodian) -> bool:
    """Make what is not there yet. Returns whether anything was. Raises `StoreUnavailableError`, `VaultError`."""
    made = _people(custodian)
    made = _furnisher(custodian) or made
    for institution in INSTITUTIONS:
        made = _institution(custodian, institution) or made
    return made


@cache
def attributes() -> frozenset[str]:
    """What is known of the people of the demo."""
    return frozenset(record.attribute for _person, records in _rows() for record in records)


def keys_of(data: Path, institution: DemoInstitution) -> Mapping[str, Any]:
    """Its JWK set, private parts included. Raises `NotFoundError` where there is no demo."""
    return _kept(data / DIRECTORY / f"{institution.key}.jwks")


def codes(custodian: Custodian) -> list[DemoCode]:
    """Everyone of the demo, with the code that can still be used."""
    kept = _codes(custodian.config.data)
    return [_code(custodian, person, kept.get(person.ref)) for person in PEOPLE]


def invite(custodian: Custodian, ref: str) -> DemoCode:
    """A new code for a person of the demo; the one before is void. Raises `NotFoundError`, `ErasedError`."""
    person = next((one for one in PEOPLE if one.ref == ref), None)
    if person is None:
        raise NotFoundError("subject: nobody of the demo", field="subject")
    subject_id = custodian.vault.subject_of(ref)
    with custodian.store.begin() as tx:
        made = custodian.invitations.invite(tx, subject_id)
    kept = _codes(custodian.config.data) | {ref: {"id": made.invitation_id, "code": made.code}}
    path = _codes_path(custodian.config.data)
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    write_private_file(fresh, json.dumps(kept, indent=1))
    fresh.replace(path)
    return DemoCode(person=person, code=made.code, is_erased=False)


# -------------------------------------------------------------------------------------------------------------- inside


def _people(custodian: Custodian) -> bool:
    made = False
    for person, row in _rows():
        with suppress(ErasedError):
            try:
                custodian.vault.subject_of(person.ref)
            except NotFoundError:
                with custodian.store.begin() as tx:
                    custodian.vault.put(tx, row, at=custodian.clock())
                invite(custodian, person.ref)
                made = True
    return made


def _map() -> ImportMap:
    return parse_map(files("ledger").joinpath("maps/german.toml").read_text(encoding="utf-8"))


def _rows() -> Iterator[tuple[DemoPerson, list[NewRecord]]]:
    import_map = _map()
    text = files("ledger").joinpath("data/german_statlog_1000.csv").read_text(encoding="utf-8")
    header, *rows = csv.reader(text.splitlines())
    reader = import_map.reader(header)
    for person in PEOPLE:
        row = reader.row(person.row + 1, person.row, rows[person.row - 1])
        assert isinstance(row, ImportedRow)
        source, as_of = import_map.source, import_map.as_of.isoformat()
        yield (
            person,
            [
                NewRecord(
                    subject_ref=person.ref,
                    attribute=name,
                    value=AttributeValue(value=value, source=source, as_of=as_of),
                )
                for name, value in row.values.items()
            ],
        )


def _furnisher(custodian: Custodian) -> bool:
    keys = _keys(custodian, "furnisher", new_furnisher_keys)
    try:
        custodian.registry.add_furnisher(_map().source, FURNISHER_NAME, keys, at=custodian.clock())
    except AlreadyExistsError:
        return False
    return True


def _institution(custodian: Custodian, institution: DemoInstitution) -> bool:
    keys = _keys(custodian, institution.key, new_institution_keys)
    try:
        custodian.registry.add_institution(institution.institution_id, institution.name, keys, at=custodian.clock())
    except AlreadyExistsError:
        return False
    return True


def _keys(custodian: Custodian, name: str, make: Callable[[], KeySet]) -> dict[str, Any]:
    """Made and kept before their owner is registered: keys that nobody has would leave one that can never ask."""
    path = custodian.config.data / DIRECTORY / f"{name}.jwks"
    try:
        return _kept(path)
    except NotFoundError:
        keys = dict(make().as_dict(private=True))
        path.parent.mkdir(mode=0o700, exist_ok=True)
        write_private_file(path, json.dumps(keys, indent=1))
        return keys


def _code(custodian: Custodian, person: DemoPerson, kept: Mapping[str, str] | None) -> DemoCode:
    try:
        subject_id = custodian.vault.subject_of(person.ref)
    except (ErasedError, NotFoundError):
        return DemoCode(person=person, code=None, is_erased=True)
    is_open = kept is not None and kept["id"] in {one.invitation_id for one in custodian.invitations.open(subject_id)}
    return DemoCode(person=person, code=kept["code"] if kept and is_open else None, is_erased=False)


def _codes_path(data: Path) -> Path:
    return data / DIRECTORY / "codes.json"


def _codes(data: Path) -> dict[str, Any]:
    try:
        return _kept(_codes_path(data))
    except NotFoundError:
        return {}


def _kept(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        raise NotFoundError(f"demo: {path.name} is not there: `consent-ledger up` makes it", field="demo") from exc
    return found
