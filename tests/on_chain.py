"""What the simulated chain shows, in the form of the facts that disclosures are judged by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from actors import World
from simulator import SimulatedChain

from ledger.audit_report import ConsentChange
from ledger.consent import Hex32, Reason
from ledger.contract_events import Event
from ledger.disclosed import judge
from ledger.disclosure import DisclosedOutcome, Disclosure, EntryPlace, read_disclosure
from ledger.disclosure_facts import offline_facts
from ledger.scrutiny import Facts, FoundEntry, JudgedDisclosure, Keyring

AS_DISCLOSED = Keyring(as_disclosed=True)
OUTCOMES = {
    "AccessRecorded": DisclosedOutcome.RECORDED,
    "AccessRefused": DisclosedOutcome.REFUSED,
    "AccessLate": DisclosedOutcome.LATE,
    "AccessCompelled": DisclosedOutcome.COMPELLED,
}
CHANGES = {"ConsentGranted": "granted", "ConsentRevoked": "revoked"}


def entries_on(chain: SimulatedChain) -> Iterator[FoundEntry]:
    """Every entry of every log, in order."""
    times = {mined.number: mined.timestamp for mined in chain.blocks}
    waiting: list[Event] = []
    for event in chain.all_events():
        if event.name in OUTCOMES:
            waiting.append(event)
        elif event.name == "LogAppended":
            custodian, writer, *_ = event.args
            for one in waiting:
                yield FoundEntry(
                    consent_id=one.args[0],
                    entry_hash=one.args[1],
                    outcome=OUTCOMES[one.name],
                    reason=_reason(one),
                    place=EntryPlace(
                        custodian=custodian,
                        writer=writer,
                        transaction_hash=one.transaction_hash,
                        block_number=one.block_number,
                        log_index=one.log_index,
                    ),
                    at=times[one.block_number],
                )
            waiting.clear()


def _reason(event: Event) -> Reason:
    if event.name == "AccessRecorded":
        return Reason.NONE
    return Reason.COMPELLED if event.name == "AccessCompelled" else Reason(event.args[2])


def facts_of(chain: SimulatedChain, disclosure: Disclosure, keys: Keyring = AS_DISCLOSED, **changes: Any) -> Facts:
    """What an audit of this chain would say; nobody has a smart account."""
    times = {mined.number: mined.timestamp for mined in chain.blocks}
    events = chain.all_events()
    facts = replace(
        offline_facts(disclosure, keys, block_hashes=()),
        entries=tuple(entries_on(chain)),
        subjects={one.args[0]: one.args[1] for one in events if one.name == "ConsentGranted"},
        accepts={one.consent_id: False for one in disclosure.consents},
        changes=tuple(
            ConsentChange(
                consent_id=one.args[0],
                what=CHANGES[one.name],
                by=one.args[1],
                block_number=one.block_number,
                at=times[one.block_number],
                transaction_hash=one.transaction_hash,
            )
            for one in events
            if one.name in CHANGES
        ),
        embargoes={one.args[0]: one.args[2] for one in events if one.name == "AccessCompelled"},
    )
    return replace(facts, **changes)


def judged(
    world: World, disclosure: Disclosure | dict[str, Any], keys: Keyring = AS_DISCLOSED, **changes: Any
) -> JudgedDisclosure:
    """What a disclosure comes to, read from JSON, against the world's chain."""
    read = read_disclosure(disclosure) if isinstance(disclosure, dict) else disclosure
    return judge(read, facts_of(world.chain, read, keys, **changes), keys, domain=world.chain.domain)


def codes(found: JudgedDisclosure) -> set[str]:
    return {one.code for one in found.all_findings}


def unknown(found: JudgedDisclosure) -> set[str]:
    """The names of checks that could not be made."""
    return {one.name for one in found.all_checks if one.holds is None}


def disclosed(world: World, consent_id: Hex32) -> dict[str, Any]:
    """What the custodian discloses about a consent, as JSON."""
    return world.custodian.disclosing.of_consent(consent_id, at=world.clock()).disclosure.as_json()
