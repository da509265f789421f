"""What is known and what is found when a disclosure is looked at: facts in, checks and findings out. Pure data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from joserfc.jwk import ECKey

from ledger.access import AccessEntry
from ledger.audit_report import (
    AuditedBlock,
    Check,
    ConsentChange,
    Finding,
    Verdict,
    verdict_of,
    without_overtaken_refusals,
)
from ledger.consent import Address, Domain, Hex32, Reason
from ledger.disclosure import DisclosedOutcome, Disclosure, EntryPlace
from ledger.json_forms import camel_case, iso_time
from ledger.receipts import kid_of
from ledger.signatures import JWK

# ------------------------------------------------------------------------------------------------------------ facts in


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyring:
    """Keys that the auditor has from the parties themselves. `as_disclosed`: those of the disclosure are believed."""

    custodian: tuple[JWK, ...] = ()
    institutions: Mapping[str, tuple[JWK, ...]] = field(default_factory=dict)
    as_disclosed: bool = False


def custodian_keys(disclosure: Disclosure, keys: Keyring, token: object) -> list[ECKey]:
    """Those that a token names, the auditor's first, then the disclosure's."""
    kid = kid_of(token)
    every = (*keys.custodian, *disclosure.custodian_keys)
    return [key for key in every if isinstance(key, ECKey) and key.kid == kid]


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundEntry:
    """An entry as the chain has it. `at` is its block's time, Unix seconds."""

    consent_id: Hex32
    entry_hash: Hex32
    outcome: DisclosedOutcome
    reason: Reason
    place: EntryPlace
    at: int

    @property
    def let_out(self) -> bool:
        """Whether data may have gone out."""
        return self.outcome is not DisclosedOutcome.REFUSED


@dataclass(frozen=True, slots=True, kw_only=True)
class BundledEntry:
    """What a bundle proves. `anchored`: its block is the auditor's or the chain's. `claims` say where it stands."""

    entry: AccessEntry
    late: bool
    block_number: int
    block_hash: Hex32
    at: int
    anchored: bool
    claims: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedEntry:
    """What a receipt says, signed with `key`; `claims` say where the entry stands."""

    entry: AccessEntry
    late: bool
    claims: Mapping[str, Any]
    key: JWK


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was found about a disclosure's entries; a text in the place of something says why it does not hold.

    `entries` are all of its consents' on chain but overtaken refusals (`audit_report.py`), `changes` what became of
    these and `subjects` who granted each there; None and nothing without a chain.
    `accepts` is whether an account takes a signature by its own code: False if it has none, None if it does not now.
    `embargoes` are what the chain says of orders (Unix seconds), `checks` and `findings` are about the chain itself.
    """

    entries: tuple[FoundEntry, ...] | None = None
    subjects: Mapping[Hex32, Address] = field(default_factory=dict)
    accepts: Mapping[Hex32, bool | None] = field(default_factory=dict)
    bundles: Mapping[Hex32, BundledEntry | str] = field(default_factory=dict)
    receipts: Mapping[Hex32, ReceivedEntry | str] = field(default_factory=dict)
    changes: tuple[ConsentChange, ...] = ()
    embargoes: Mapping[Hex32, int] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()
    findings: tuple[Finding, ...] = ()
    block: AuditedBlock | None = None

    def __post_init__(self) -> None:
        if self.entries is not None:
            object.__setattr__(self, "entries", tuple(without_overtaken_refusals(self.entries)))


# ---------------------------------------------------------------------------------------------------------- checks out


class Marks:
    """Collects what was checked, and what does not hold. `about` are fields of the findings."""

    def __init__(self, **about: Any) -> None:  # noqa: ANN401 - fields of a finding
        self.checks: list[Check] = []
        self.findings: list[Finding] = []
        self._about = about

    def holds(self, name: str, detail: str) -> None:
        """It is as it must be."""
        self.checks.append(Check(name=name, holds=True, detail=detail))

    def unknown(self, name: str, detail: str) -> None:
        """It could not be checked, and why not."""
        self.checks.append(Check(name=name, holds=None, detail=detail))

    def differs(self, name: str, code: str, detail: str, **about: Any) -> None:  # noqa: ANN401 - as above
        """It is not as it must be."""
        self.checks.append(Check(name=name, holds=False, detail=detail))
        self.findings.append(Finding(code=code, detail=detail, **(self._about | about)))


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedEntry:
    """One entry with everything that was checked of it, in the order of the steps. `at` is its block's time."""

    entry_hash: Hex32
    entry: AccessEntry
    outcome: DisclosedOutcome
    at: int | None
    checks: tuple[Check, ...]
    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> Verdict:
        """Of this entry alone."""
        return verdict_of(self.checks, found=bool(self.findings))


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedDisclosure:
    """The whole of it: the checks of everything together, and each entry by itself."""

    domain: Domain
    block: AuditedBlock | None
    checks: tuple[Check, ...]
    findings: tuple[Finding, ...]
    entries: tuple[JudgedEntry, ...]

    @property
    def all_checks(self) -> list[Check]:
        """Those of the entries as well."""
        return [*self.checks, *(check for one in self.entries for check in one.checks)]

    @property
    def all_findings(self) -> list[Finding]:
        """Those of the entries as well."""
        return [*self.findings, *(found for one in self.entries for found in one.findings)]

    @property
    def verdict(self) -> Verdict:
        """Of everything in it."""
        return verdict_of(self.all_checks, found=bool(self.all_findings))


def check_json(check: Check) -> dict[str, Any]:
    """A check as a report has it."""
    return {"name": check.name, "holds": check.holds, "detail": check.detail}


def finding_json(finding: Finding) -> dict[str, Any]:
    """A finding as a report has it."""
    made = {camel_case(one.name): getattr(finding, one.name) for one in fields(finding)}
    return made | {"atIso": None if finding.at is None else iso_time(finding.at)}
