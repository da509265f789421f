"""The actors of the demo and of the benchmarks: a lender and a person with keys of their own, and what they can do.

`Findings` counts every check under the property of the design that it bears on.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from eth_account import Account
from rich.console import Console
from rich.padding import Padding
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from ledger.chain import JsonRpcChain
from ledger.consent import Address
from ledger.custodian import Custodian
from ledger.errors import LedgerError
from ledger.evidence import verify_receipt
from ledger.exchange import key_for, new_institution_keys, open_answer, sign_release
from ledger.json_forms import DAY_SECONDS
from ledger.notice_texts import notice_hash_of
from ledger.purposes import purpose
from ledger.registry import StoredConsent
from ledger.release import Release
from ledger.signatures import HttpRequest
from ledger.typed_data import grant_typed_data, pause_typed_data, sign_typed_data

PROPERTIES: Final = {
    "P1": "every answer has exactly one entry on chain, made while the consent was in force",
    "P2": "no entry is lost, whatever happens to the chain",
    "P3": "a retry gets the same bytes and makes no second entry",
    "P4": "after a revocation or a pause nothing is released",
    "P5": "only the person's key grants or widens",
    "P6": "erased is unreadable for ever, backups included",
    "P7": "anyone can recompute the log's head from the chain",
    "P8": "every request ends: answered, or refused with its reason",
    "P9": "the chain names no person, institution, purpose or attribute",
}


@dataclass(slots=True)
class Findings:
    """Checks made, by property, and those that did not hold."""

    checks: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def check(self, prop: str, holds: bool, claim: str, *, count: int = 1) -> None:  # noqa: FBT001 - reads as a sentence
        """Count a check; remember it if it does not hold."""
        self.checks[prop] += count
        if not holds:
            self.broken.append(f"{prop}: {claim}")

    @property
    def holds(self) -> bool:
        """Whether everything held, and every property was exercised."""
        return not self.broken and set(self.checks) == set(PROPERTIES)

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return {"holds": self.holds, "checks": dict(sorted(self.checks.items())), "broken": self.broken, **self.facts}


@dataclass(frozen=True, slots=True)
class Lender:
    """An institution with its private keys."""

    institution_id: str
    name: str
    keys: Mapping[str, Any]

    @classmethod
    def new(cls, institution_id: str, name: str) -> Lender:
        """With fresh keys."""
        return cls(institution_id, name, new_institution_keys().as_dict(private=True))


@dataclass(frozen=True, slots=True)
class Person:
    """A subject with a signing key of its own."""

    ref: str
    key: bytes

    @classmethod
    def new(cls, ref: str) -> Person:
        """With a fresh key."""
        return cls(ref, bytes(Account.create().key))

    @property
    def account(self) -> Address:
        """The pseudonym."""
        return Address(Account.from_key(self.key).address)


@dataclass(slots=True)
class Demo:
    """The actors, and the verbs that the story is told in."""

    custodian: Custodian
    witness: JsonRpcChain
    findings: Findings
    console: Console
    serial: int = 0

    def new_consent(
        self, person: Person, lender: Lender, code: str, attributes: Sequence[str], **limits: int
    ) -> StoredConsent:
        """Prepare, sign with the person's key, relay."""
        ledger, now = self.custodian, int(time.time())
        grant = ledger.grants.prepare(
            institution_id=lender.institution_id,
            subject=person.account,
            purpose=code,
            attributes=attributes,
            valid_from=limits.get("valid_from", now - 60),
            expires_at=limits.get("expires_at", now + 20 * DAY_SECONDS),
            max_accesses=limits.get("max_accesses", 1),
            accesses_per_day=limits.get("per_day", 1),
            retention_days=limits.get("retention_days", 7),
            notice_hash=notice_hash_of(purpose(code)),
        )
        signature = sign_typed_data(grant_typed_data(grant, ledger.chain.domain), person.key)
        return ledger.grants.grant(grant, signature, ledger.vault.subject_of(person.ref))

    def request(
        self,
        lender: Lender,
        consent: StoredConsent,
        key: str | None = None,
        **changes: Any,  # noqa: ANN401
    ) -> HttpRequest:
        """A request as the lender signs it."""
        self.serial += 1
        terms = consent.grant.terms
        return sign_release(
            service_url=self.custodian.config.service_url,
            institution=lender.institution_id,
            consent_id=consent.consent_id,
            purpose=changes.get("purpose", terms.purpose),
            attributes=tuple(changes.get("attributes", terms.attributes)),
            idempotency_key=key or f"demo-{self.serial}",
            signing_key=key_for(lender.keys, "sig"),
            at=changes.get("at", int(time.time())),
            nonce=secrets.token_urlsafe(18),
        )

    def ask(self, lender: Lender, consent: StoredConsent, key: str | None = None, **changes: Any) -> Release:  # noqa: ANN401
        """Sign and ask."""
        return self.custodian.releases.release(self.request(lender, consent, key, **changes))

    def verify(self, lender: Lender, consent: StoredConsent, answer: Release) -> None:
        """What the lender checks by itself: the answer opens, says what was asked, and stands on chain."""
        public = self.custodian.accounts.signing_key
        claims = open_answer(answer.sealed, key_for(lender.keys, "enc"), public)
        terms = consent.grant.terms
        self.findings.check("P1", set(claims["values"]) <= set(terms.attributes), "values go beyond the consent")
        seen = verify_receipt(answer.receipt, self.witness, public)
        same = (seen.entry.consent_id, seen.entry.institution) == (consent.consent_id, lender.institution_id)
        self.findings.check(
            "P1", same and claims["entryHash"] == seen.outcome.access.entry_hash, "receipt and answer differ"
        )

    def refused(self, prop: str, code: str, what: str, act: Callable[[], object]) -> tuple[str, str]:
        """Expect a refusal with exactly this code. Returns a row for the table."""
        try:
            act()
        except LedgerError as exc:
            self.findings.check(prop, exc.code == code, f"{what}: expected {code}, got {exc.code}")
            return what, exc.code if exc.code == code else f"{exc.code}, NOT {code}"
        self.findings.check(prop, False, f"{what}: was not refused")
        return what, "NOT REFUSED"

    def pause(self, person: Person, consent: StoredConsent, *, paused: bool, sequence: int) -> None:
        """Pause or resume by the person's key."""
        domain = self.custodian.chain.domain
        payload = pause_typed_data(consent.consent_id, paused=paused, sequence=sequence, domain=domain)
        signature = sign_typed_data(payload, person.key)
        self.custodian.grants.set_paused(consent.consent_id, paused=paused, sequence=sequence, signature=signature)

    def chapter(self, title: str) -> None:
        """A heading."""
        self.console.print(f"\n{title}", style="bold cyan", highlight=False)

    def tell(self, text: str) -> None:
        """A line of the story."""
        self.console.print(Padding(Text(text), (0, 0, 0, 2)))

    def progress(self) -> Progress:
        """A bar that leaves no trace, where somebody can see it move."""
        return Progress(console=self.console, disable=not self.console.is_terminal, transient=True)

    def table(self, rows: Sequence[Sequence[object]], *columns: str) -> None:
        """A table of the story."""
        table = Table(*columns, box=None, pad_edge=True)
        for row in rows:
            table.add_row(*(Text(str(cell)) for cell in row))
        self.console.print(table)
