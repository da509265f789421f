"""Reports of audits as they come out in life: clean, with findings, one that could not be made, a large one."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from ledger.audit_report import (
    MAX_LISTED,
    AuditedBlock,
    AuditReport,
    Check,
    ConsentSummary,
    DayCounts,
    Embargo,
    Finding,
    LogSummary,
    Totals,
)
from ledger.consent import Address, Domain, Hex32, Reason, State, parse_address
from ledger.json_forms import DAY_SECONDS

NOW: Final = 1_795_000_000
DOMAIN: Final = Domain(chain_id=31337, contract=parse_address("0x9fe46736679d2d9a65f0992f2272de9f3c7fa6e0", ""))
HELD: Final = (
    ("chain_id", "chain 31337"),
    ("block", "block 18,204 hashes to the hash that it is known by"),
    ("headers", "18,205 headers, each with the hash of the one before it"),
    ("receipts", "2,318 blocks may have events of the contract; their receipts hash to the headers' receipts roots"),
    ("replay", "9,041 events; every verdict is the one of the rules"),
    ("state_root", "storage root 0x5c1f…09ae rebuilt from 4,410 slots is the one in the proven account"),
    ("code", "the code is what ships with this version, hash 0x81d0…77c2"),
    ("sources", "solc 0.8.30 makes the shipped bytecode of the sources"),
    ("endpoints", "http://rpc.example and https://other.example name the same block"),
)


def hex32(rng: random.Random) -> Hex32:
    return Hex32("0x" + rng.randbytes(32).hex())


def account(rng: random.Random) -> Address:
    return parse_address("0x" + rng.randbytes(20).hex(), "")


def report(*, days: int = 45, busy: int = 40, seed: int = 1, **changes: Any) -> AuditReport:
    """A clean one over so many days, unless something is changed."""
    rng = random.Random(seed)
    today = NOW // DAY_SECONDS
    counted = tuple(
        DayCounts(
            day=today - days + 1 + number,
            granted=rng.randrange(busy // 4 + 1),
            revoked=rng.randrange(busy // 12 + 1),
            recorded=rng.randrange(busy // 2, busy + 1) if (number + 3) % 7 < 5 else rng.randrange(busy // 8 + 1),
            refused=rng.randrange(busy // 6 + 1),
        )
        for number in range(days)
    )
    recorded, refused = sum(one.recorded for one in counted), sum(one.refused for one in counted)
    granted, revoked = sum(one.granted for one in counted), sum(one.revoked for one in counted)
    reasons = (Reason.BY_CUSTODIAN, Reason.EXPIRED, Reason.REVOKED, Reason.EXHAUSTED, Reason.PAUSED)
    parts = [refused // 2, refused // 4, refused // 8, refused // 16]
    fields: dict[str, Any] = {
        "domain": DOMAIN,
        "block": AuditedBlock(number=18_204, block_hash=hex32(rng), timestamp=NOW - 40, given=False),
        "endpoints": ("http://rpc.example/v3/5f0c2d7e9b1a4c6d8e0f2a4b6c8d0e1f",),
        "made_at": NOW,
        "checks": tuple(Check(name=name, holds=True, detail=detail) for name, detail in HELD[:-1]),
        "totals": Totals(
            blocks=18_205,
            consents=granted,
            in_force=granted - revoked - granted // 8,
            paused=granted // 40,
            revoked=revoked,
            expired=granted // 10,
            exhausted=granted // 40,
            batches=recorded // 3,
            recorded=recorded,
            refused=refused,
            used_and_revoked=revoked,
        ),
        "refusals_by_reason": dict(zip(reasons, [*parts, refused - sum(parts)], strict=True)) if refused else {},
        "days": counted,
        "logs": tuple(
            log(rng, size)
            for size in ((recorded + refused) * 2 // 3, (recorded + refused) - (recorded + refused) * 2 // 3)
        ),
        "consents": tuple(consent(rng) for _ in range(min(granted, MAX_LISTED))),
        "revocation_gaps": tuple(int(rng.lognormvariate(10, 3)) for _ in range(revoked)),
    }
    return replace(AuditReport(**fields), **changes)


def log(rng: random.Random, size: int) -> LogSummary:
    return LogSummary(
        custodian=account(random.Random(7)),
        writer=account(rng),
        allowed=rng.random() < 0.8,
        size=size,
        head=hex32(rng),
        batches=size // 3,
        last_at=NOW - rng.randrange(3600),
    )


def consent(rng: random.Random, **changes: Any) -> ConsentSummary:
    start = NOW - rng.randrange(1, 60) * DAY_SECONDS
    used = rng.randrange(9)
    revoked = start + rng.randrange(20, 30) * DAY_SECONDS if rng.random() < 0.2 else None
    fields: dict[str, Any] = {
        "consent_id": hex32(rng),
        "subject": account(rng),
        "custodian": account(random.Random(7)),
        "state": State.REVOKED if revoked else State.ACTIVE,
        "valid_from": start,
        "expires_at": start + 90 * DAY_SECONDS,
        "max_accesses": 12,
        "recorded": used,
        "refused": rng.randrange(3),
        "late": 0,
        "granted_at": start + 20,
        "revoked_at": revoked,
        "last_access_at": start + rng.randrange(20) * DAY_SECONDS if used else None,
    }
    return ConsentSummary(**(fields | changes))


def with_findings(*, listed: Mapping[str, int] | None = None, **changes: Any) -> AuditReport:
    """Late entries, an access outside a consent, a head that differs; and two orders of an authority."""
    rng = random.Random(3)
    counts = dict(listed or {"late": 3, "recorded_outside_consent": 1, "log_head_differs": 1})
    clean = report(days=45)
    details = {
        "late": "logged after the consent had expired",
        "recorded_outside_consent": "recorded as allowed; by the rules it was revoked",
        "log_head_differs": "the entries give head 0x11…, the contract holds 0x22…",
    }
    days = [*clean.days]
    for place, (late, compelled) in {12: (1, 0), 30: (2, 4), 41: (0, 2)}.items():
        one = days[place]
        days[place] = DayCounts(
            **{name: getattr(one, name) for name in ("day", "granted", "revoked", "recorded", "refused")},
            late=late,
            compelled=compelled,
        )
    fields: dict[str, Any] = {
        "checks": tuple(
            Check(
                name=name,
                holds=name != "replay",
                detail=detail if name != "replay" else "1 verdict is not the one of the rules",
            )
            for name, detail in HELD
        ),
        "findings": tuple(
            Finding(
                code=code,
                detail=details.get(code, "as the code says"),
                block_number=rng.randrange(18_000),
                at=NOW - rng.randrange(40) * DAY_SECONDS,
                consent_id=hex32(rng),
                writer=clean.logs[0].writer,
                entry_hash=hex32(rng) if code != "log_head_differs" else None,
            )
            for code, count in counts.items()
            for _ in range(min(count, MAX_LISTED))
        ),
        "finding_counts": counts,
        "totals": Totals(
            **{
                name: getattr(clean.totals, name)
                for name in (
                    "blocks",
                    "consents",
                    "in_force",
                    "paused",
                    "revoked",
                    "expired",
                    "exhausted",
                    "batches",
                    "recorded",
                    "refused",
                )
            },
            late=3,
            compelled=6,
            accesses_after_revocation=1,
        ),
        "days": tuple(days),
        "consents": (
            consent(
                rng,
                revoked_at=NOW - 9 * DAY_SECONDS,
                last_access_at=NOW - 8 * DAY_SECONDS,
                state=State.REVOKED,
                recorded=4,
            ),
            consent(rng, late=3),
            *clean.consents,
        ),
        "revocation_gaps": (-DAY_SECONDS, *clean.revocation_gaps),
        "compelled": (
            Embargo(order_hash=hex32(rng), entries=4, at=NOW - 14 * DAY_SECONDS, embargo_until=NOW + 76 * DAY_SECONDS),
            Embargo(order_hash=hex32(rng), entries=2, at=NOW - 3 * DAY_SECONDS, embargo_until=0),
        ),
        "institutions": {"North Bank": 610, "Hansa Homes": 204, "Credito Rapido": 55},
        "endpoints": ("http://rpc.example", "https://other.example/v1/abcdef0123456789abcdef"),
    }
    return replace(report(), **(fields | changes))


def unverified(**changes: Any) -> AuditReport:
    """The endpoint stopped answering half-way."""
    checks = tuple(
        Check(
            name=name,
            holds=True if place < 3 else None,
            detail=detail if place < 3 else "the endpoint did not answer (HTTP 429)",
        )
        for place, (name, detail) in enumerate(HELD[:-1])
    )
    nothing: dict[str, Any] = {
        "checks": checks,
        "totals": Totals(blocks=9_100),
        "refusals_by_reason": {},
        "days": (),
        "logs": (),
        "consents": (),
        "revocation_gaps": (),
    }
    return replace(report(), **(nothing | changes))


def empty(**changes: Any) -> AuditReport:
    """A contract that nobody has used yet."""
    nothing: dict[str, Any] = {
        "totals": Totals(blocks=3),
        "refusals_by_reason": {},
        "days": (),
        "logs": (),
        "consents": (),
        "revocation_gaps": (),
    }
    return replace(report(), **(nothing | changes))


def large() -> AuditReport:
    """Ten years, more than a million entries, thousands of findings."""
    clean = report(days=3_650, busy=400)
    return with_findings(
        listed={"late": 4_200, "recorded_outside_consent": 1_700},
        days=clean.days,
        totals=clean.totals,
        consents=clean.consents,
        revocation_gaps=clean.revocation_gaps,
    )
