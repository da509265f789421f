"""An independent judge: the chain's events and the delivered answers, and nothing of the custodian's own.

It says whether P1, P3 and P4 hold: every answer that left the house has exactly one entry on the log, recorded while
its consent was in force, whose opening is what was delivered; and no answer was made after the end of its consent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ledger.access import AccessEntry, entry_hash_of
from ledger.consent import ConsentState, Hex32, Reason, State
from ledger.contract_events import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What an institution holds: the bytes, and the claims that it read in answer and receipt."""

    sealed: bytes
    answer: dict[str, Any]
    receipt: dict[str, Any]


@dataclass(slots=True)
class History:
    """The chain, read from its beginning."""

    consents: dict[Hex32, ConsentState] = field(default_factory=dict)
    verdicts: dict[Hex32, list[Reason]] = field(default_factory=dict)
    late: Counter[Hex32] = field(default_factory=Counter)
    ended_at: dict[Hex32, int] = field(default_factory=dict)

    def read(self, event: Event, at: int) -> None:
        consent_id = event.args[0]
        consent = self.consents.get(consent_id, ConsentState())
        match event.name:
            case "ConsentGranted":
                _, _, _, valid_from, expires_at, max_accesses = event.args
                # One custodian per judgement, so any number will do.
                self.consents[consent_id] = ConsentState(
                    valid_from=valid_from,
                    expires_at=expires_at,
                    max_accesses=max_accesses,
                    custodian_number=1,
                    state=State.ACTIVE,
                )
            case "ConsentRevoked":
                self.consents[consent_id] = replace(consent, state=State.REVOKED)
                self.ended_at.setdefault(consent_id, at)
            case "ConsentPauseSet":
                self.consents[consent_id] = replace(consent, state=State.PAUSED if event.args[1] else State.ACTIVE)
            case "AccessRecorded":
                self.verdicts.setdefault(event.args[1], []).append(consent.reason(at=at, custodian_number=1))
                self.consents[consent_id] = replace(consent, accesses=consent.accesses + 1)
            case "AccessLate":
                self.late[event.args[1]] += 1


def violations(
    events: Sequence[Event], time_of: Callable[[int], int], deliveries: Sequence[Delivery], *, blocks_lost: bool = False
) -> list[str]:
    """What is wrong, in words; nothing if all is well.

    Where the chain lost blocks, an entry may be back as late: then it was recorded once, and cannot be again.
    """
    history = History()
    for event in events:
        history.read(event, time_of(event.block_number))
    found = [f"logged {len(each)} times: {entry}" for entry, each in history.verdicts.items() if len(each) > 1]
    found += [
        f"recorded although {reason.name}: {entry}"
        for entry, verdicts in history.verdicts.items()
        for reason in verdicts
        if reason is not Reason.NONE
    ]
    for delivery in deliveries:
        found += _of_delivery(delivery, history, blocks_lost=blocks_lost)
    by_release: dict[str, set[bytes]] = {}
    for delivery in deliveries:
        by_release.setdefault(delivery.answer["jti"], set()).add(delivery.sealed)
    return found + [f"two answers for one release: {key}" for key, each in by_release.items() if len(each) > 1]


def _of_delivery(delivery: Delivery, history: History, *, blocks_lost: bool) -> list[str]:
    answer, entry = delivery.answer, AccessEntry.from_json(delivery.receipt["entry"])
    entry_hash = entry_hash_of(entry)
    found = []
    recorded, late = len(history.verdicts.get(entry_hash, [])), history.late[entry_hash]
    if (recorded, late) not in ([(1, 0), (0, 1)] if blocks_lost else [(1, 0)]):
        found.append(f"released without exactly one entry on the log: {entry_hash}")
    same = (
        answer["entryHash"] == entry_hash == delivery.receipt["entryHash"]
        and answer["jti"] == entry.release_id
        and answer["consent"] == entry.consent_id
        and answer["aud"] == entry.institution
        and answer["purpose"] == entry.purpose
        and tuple(answer["values"]) == entry.attributes
    )
    if not same:
        found.append(f"the opening is not what was released: {entry_hash}")
    if answer["iat"] > history.ended_at.get(entry.consent_id, answer["iat"]):
        found.append(f"made after the revocation was in a block: {entry_hash}")
    return found
