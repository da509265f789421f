"""The public record: every byte about a person that is on chain, with a word on what each of them is.

What is there is the same for everybody; what makes it this person's is on file here only, and goes with an erasure.
Transactions of the custodian and the entries come from the journal, so they are known when the chain is away; the slot
of each consent and the events are the chain's to say, and are None then (`is_chain_known`). What the person sent to the
chain directly is no transaction of ours: it shows in the slot.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import Row

from ledger.access import BatchKind
from ledger.chain import Chain
from ledger.consent import Address, ConsentState, Hex32
from ledger.contract import APPEND_CALLS, decode_call
from ledger.contract_events import Event
from ledger.errors import ChainError, NotFoundError
from ledger.journal import ANCHORED, Journal, is_on_log
from ledger.order_book import OrderBook
from ledger.registry import Registry, StoredConsent
from ledger.store import Store

MAX_ENTRIES: Final = 1000

MEANINGS: Final = MappingProxyType(
    {
        "consentId": "The number of your consent: a hash of all that you signed. It names nobody.",
        "termsHash": "A salted hash of the terms. Without the terms and the salt it says nothing.",
        "subject": "The account that you signed with. It is a pseudonym: nothing on chain says whose it is.",
        "custodian": "The account of this service.",
        "validFrom": "From when on the consent may be used (Unix seconds).",
        "expiresAt": "From when on it may not be used any more (Unix seconds).",
        "maxAccesses": "How often it may be used in all.",
        "accesses": "How often it was used.",
        "custodianNumber": "The number under which the contract knows this service.",
        "pauseSequence": "How often it was paused or resumed.",
        "state": "Whether it is active, paused or revoked.",
        "signature": "Your signature. It shows that the holder of the account agreed.",
        "paused": "Whether it was paused or resumed.",
        "sequence": "Which pause or resume it was, so that an old one cannot be repeated.",
        "entryHash": "A salted hash of one access: who asked, for what and why. Without its opening it says nothing.",
        "reason": "Why an access was refused, as a number of the contract.",
        "orderHash": "A salted hash of an order by an authority. Without its opening it says nothing, nor about whom.",
        "embargoUntil": "Until when the access could be kept from you (Unix seconds); 0: not at all.",
        "by": "The account that ended it: yours or this service's.",
        "from": "The account of this service that paid for the transaction.",
        "to": "The contract.",
        "raw": "The whole transaction as it was sent.",
    }
)
"""What each field is, in plain words."""

_GRANT_FIELDS: Final = ("termsHash", "subject", "custodian", "validFrom", "expiresAt", "maxAccesses")
_EVENT_FIELDS: Final = {
    "ConsentGranted": ("consentId", "subject", "custodian", "validFrom", "expiresAt", "maxAccesses"),
    "ConsentRevoked": ("consentId", "by"),
    "ConsentPauseSet": ("consentId", "paused", "sequence"),
}
_ENTRY_FIELDS: Final = ("consentId", "entryHash", "reason")
_ENTRY_EVENTS: Final = {
    **dict.fromkeys(("AccessRecorded", "AccessRefused", "AccessLate"), _ENTRY_FIELDS),
    "AccessCompelled": ("orderHash", "entryHash", "embargoUntil"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicField:
    """One thing that everybody can read, and what it is. `value` is hex, a number, or true or false."""

    name: str
    value: str
    meaning: str


PublicEvents = tuple[tuple[str, tuple[PublicField, ...]], ...]
"""Events by their names, each with its fields."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicTransaction:
    """A transaction of the custodian about a consent. `block_number` is None while it is in no block.

    `fields` are those of its data; `events` those that it left about this consent, None while the chain is away. An
    entry stands in a transaction with those of others, of which nothing is in here: `raw` is None then.
    """

    function: str
    transaction_hash: Hex32 | None
    block_number: int | None
    sender: Address
    fields: tuple[PublicField, ...]
    events: PublicEvents | None
    raw: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicConsent:
    """All that is public about one consent. `slot` is None while the chain is away, and empty if it knows none."""

    consent_id: Hex32
    slot: tuple[PublicField, ...] | None
    transactions: tuple[PublicTransaction, ...]
    entries: tuple[PublicTransaction, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicRecord:
    """All that is public about a person. `is_chain_known`: whether the chain was asked for slots and events.

    `orders` are accesses that an authority ordered, as far as the person may know of them by now.
    """

    chain_id: int
    contract: Address
    is_chain_known: bool
    consents: tuple[PublicConsent, ...]
    orders: tuple[PublicTransaction, ...] = ()


class PublicRecords:
    """Gathers it, for one person at a time."""

    def __init__(
        self,
        store: Store,
        journal: Journal,
        book: OrderBook,
        registry: Registry,
        chain: Chain,
        *,
        custodian: Address,
        clock: Callable[[], int],
    ) -> None:
        self._store, self._journal, self._book, self._registry, self._chain = store, journal, book, registry, chain
        self._custodian, self._clock = custodian, clock

    def of_subject(self, subject_id: str) -> PublicRecord:
        """Everything about a person, the newest consent first. Raises `VaultError`."""
        with self._store.read() as tx:
            ordered = self._book.visible(tx, subject_id, now=self._clock())
        return self._record(self._registry.consents(subject_id)[::-1], ordered)

    def of_consent(self, subject_id: str, consent_id: Hex32) -> PublicRecord:
        """Everything about one consent of a person. Raises `NotFoundError` (also if it is another's)."""
        found = [one for one in self._registry.consents(subject_id) if one.consent_id == consent_id]
        if not found:
            raise NotFoundError("consent: no such consent", field="consent")
        return self._record(found)

    def _record(self, consents: Sequence[StoredConsent], ordered: Sequence[Row[Any]] = ()) -> PublicRecord:
        try:
            slots: list[ConsentState] | None = self._chain.consents([one.consent_id for one in consents])
        except ChainError:
            slots = None
        return PublicRecord(
            chain_id=self._chain.domain.chain_id,
            contract=self._chain.domain.contract,
            is_chain_known=slots is not None,
            consents=tuple(
                self._consent(one, None if slots is None else slots[place], is_chain_known=slots is not None)
                for place, one in enumerate(consents)
            ),
            orders=tuple(self._order(row, is_chain_known=slots is not None) for row in ordered if is_on_log(row)),
        )

    def _consent(self, consent: StoredConsent, slot: ConsentState | None, *, is_chain_known: bool) -> PublicConsent:
        consent_id = consent.consent_id
        with self._store.read() as tx:
            rows = self._journal.of_subject(tx, consent.subject_id, limit=MAX_ENTRIES, consent_id=consent_id)
        # What was never sent is nowhere.
        acts = [row for row in self._journal.acts_about(consent_id) if row.transaction_hash is not None]
        return PublicConsent(
            consent_id=consent_id,
            slot=None if slot is None else _slot(slot),
            transactions=tuple(self._act(consent_id, row, is_chain_known=is_chain_known) for row in acts),
            entries=tuple(self._entry(row, is_chain_known=is_chain_known) for row in rows if is_on_log(row)),
        )

    def _act(self, consent_id: Hex32, row: Row[Any], *, is_chain_known: bool) -> PublicTransaction:
        function, args = decode_call(row.calldata)
        is_anchored = row.state == ANCHORED
        events = self._events(consent_id, row.transaction_hash) if is_chain_known and is_anchored else None
        return PublicTransaction(
            function=function,
            transaction_hash=row.transaction_hash,
            block_number=row.block_number if is_anchored else None,
            sender=row.lane,
            fields=_arguments(function, args),
            events=events,
            raw=None if row.raw is None else "0x" + row.raw.hex(),
        )

    def _events(self, consent_id: Hex32, transaction_hash: Hex32) -> PublicEvents | None:
        found = self._mined(transaction_hash)
        if found is None:
            return None
        return tuple(
            (event.name, tuple(_field(name, value) for name, value in zip(names, event.args, strict=True)))
            for event in found
            if (names := _EVENT_FIELDS.get(event.name)) and event.args[0] == consent_id
        )

    def _entry(self, row: Row[Any], *, is_chain_known: bool) -> PublicTransaction:
        kind = BatchKind(row.kind)
        fields = (_field("consentId", row.consent_id), _field("entryHash", row.entry_hash))
        return PublicTransaction(
            function=APPEND_CALLS[kind],
            transaction_hash=row.transaction_hash,
            block_number=row.block_number,
            sender=row.writer,
            fields=fields,
            events=self._entry_events(row) if is_chain_known else None,
            raw=None,
        )

    def _order(self, row: Row[Any], *, is_chain_known: bool) -> PublicTransaction:
        values = {"orderHash": row.order_hash, "entryHash": row.entry_hash, "embargoUntil": row.embargo_until}
        return PublicTransaction(
            function="appendCompelled",
            transaction_hash=row.transaction_hash,
            block_number=row.block_number,
            sender=row.writer,
            fields=tuple(_field(name, value) for name, value in values.items()),
            events=self._entry_events(row) if is_chain_known else None,
            raw=None,
        )

    def _entry_events(self, row: Row[Any]) -> PublicEvents | None:
        found = self._mined(row.transaction_hash)
        if found is None:
            return None
        return tuple(
            (event.name, tuple(_field(name, value) for name, value in zip(names, event.args, strict=False)))
            for event in found
            if (names := _ENTRY_EVENTS.get(event.name)) and event.args[1] == row.entry_hash
        )

    def _mined(self, transaction_hash: Hex32) -> Sequence[Event] | None:
        """What a transaction left; None if the chain cannot say."""
        try:
            mined = self._chain.receipt(transaction_hash)
        except ChainError:
            return None
        return mined.events if mined else ()


def _slot(state: ConsentState) -> tuple[PublicField, ...]:
    if state == ConsentState():
        return ()
    return (
        _field("validFrom", state.valid_from),
        _field("expiresAt", state.expires_at),
        _field("maxAccesses", state.max_accesses),
        _field("accesses", state.accesses),
        _field("custodianNumber", state.custodian_number),
        _field("pauseSequence", state.pause_sequence),
        _field("state", state.state.name.lower()),
    )


def _arguments(function: str, args: tuple[Any, ...]) -> tuple[PublicField, ...]:
    match function:
        case "grant":
            return (*_grant(args[0]), _field("signature", args[1]))
        case "revoke":
            return (*(field for grant in args[0] for field in _grant(grant)), _field("signature", args[1]))
        case "setPaused":
            rest = zip(("paused", "sequence", "signature"), args[1:], strict=True)
            return (*_grant(args[0]), *(_field(name, value) for name, value in rest))
        case _:
            return tuple(_field("consentId", one) for one in args[0])


def _grant(grant: Sequence[Any]) -> tuple[PublicField, ...]:
    return tuple(_field(name, value) for name, value in zip(_GRANT_FIELDS, grant, strict=True))


def _field(name: str, value: object) -> PublicField:
    if isinstance(value, bytes):
        shown = "0x" + value.hex()
    elif isinstance(value, bool):
        shown = "true" if value else "false"
    else:
        shown = str(value)
    return PublicField(name=name, value=shown, meaning=MEANINGS[name])
