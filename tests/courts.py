"""A court, and the orders that it gives: for every test of what an authority compels."""

from __future__ import annotations

from hashlib import sha256
from typing import Any, Final

from actors import Institution, World

from ledger.compelled import NewOrder
from ledger.consent import Hex32
from ledger.orders import ExecutedOrder

DOCUMENT: Final = Hex32("0x" + sha256(b"We order ...").hexdigest())


class Authority(Institution):
    """A court: it signs nothing here, and is sealed what it ordered."""

    def __init__(self) -> None:
        super().__init__("court-1", "District Court")


def registered(world: World) -> Authority:
    """A court that the custodian knows."""
    court = Authority()
    world.custodian.registry.add_authority(court.institution_id, court.name, court.jwks, at=world.clock())
    return court


def new_order(world: World, **changes: Any) -> NewOrder:
    fields: dict[str, Any] = {
        "authority": "court-1",
        "reference": "12 C 345/26",
        "document_hash": DOCUMENT,
        "subject_id": world.custodian.vault.subject_of(world.subject.ref),
        "attributes": ("credit_amount", "savings"),
        "embargo_until": 0,
    }
    return NewOrder(**(fields | changes))


def execute(world: World, **changes: Any) -> ExecutedOrder:
    return world.custodian.orders.execute(new_order(world, **changes))
