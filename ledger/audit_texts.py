"""An audit's report in plain words: what each check is, what each finding means, and what to ask the custodian. Pure.

Whoever reads a report (a regulator, a consumer group, a person) need not know what a storage root is. Everything here
is English; pages that speak another language translate it by these very texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from ledger.audit_report import AuditReport, Verdict
from ledger.consent import Reason, State


@dataclass(frozen=True, slots=True)
class CheckText:
    """`title` names a check, `meaning` says what it is for."""

    title: str
    meaning: str


@dataclass(frozen=True, slots=True)
class FindingText:
    """`title` names a kind of finding, `meaning` says what it means, `question` what the custodian is to be asked."""

    title: str
    meaning: str
    question: str


VERDICTS: Final[Mapping[Verdict, str]] = MappingProxyType(
    {
        Verdict.CLEAN: "Everything was checked, and nothing was found to be wrong.",
        Verdict.FINDINGS: "Not everything is as it must be.",
        Verdict.UNVERIFIED: "Not everything could be checked. This is not a clean result.",
    }
)
CLEAN_IN_PART: Final = "Every check that was made holds, and nothing was found to be wrong."
"""In place of the sentence of a clean report, where a check was left out."""
MARKS: Final[Mapping[bool | None, str]] = MappingProxyType({True: "✓", False: "✗", None: "?"})
OUTCOMES: Final[Mapping[bool | None, str]] = MappingProxyType(
    {True: "holds", False: "does not hold", None: "could not be checked"}
)

UNPROVEN: Final = "The numbers are of what could be read. They are not proven to be all."

CHECKS: Final[Mapping[str, CheckText]] = MappingProxyType(
    {
        "chain_id": CheckText("The right chain", "The endpoint serves the chain that was asked for."),
        "block": CheckText(
            "The block",
            "There is such a block, and its contents hash to its hash. Everything else is about this block.",
        ),
        "headers": CheckText(
            "One unbroken chain",
            "Each block names the hash of the one before it, without a gap, up to the block that was audited.",
        ),
        "receipts": CheckText(
            "Nothing withheld, nothing invented",
            "What every transaction left on record was taken from the blocks themselves and matches their headers.",
        ),
        "replay": CheckText(
            "The rules were kept",
            "Every grant, pause, revocation and access was judged again by the contract's rules, and the running hash "
            "and the length of every log were computed again. An entry that was dropped, moved or changed would give "
            "another hash.",
        ),
        "state_root": CheckText(
            "The contract's memory is what follows from its history",
            "All that the contract stores was rebuilt from its history, and has the very hash that the block commits "
            "to. A consent or a log that was kept from view would change it.",
        ),
        "code": CheckText(
            "The contract's code is the published one",
            "The code on the chain is the code that is published with this program.",
        ),
        "sources": CheckText(
            "The code comes from the sources", "The published sources were compiled again, and give the same code."
        ),
        "endpoints": CheckText("A second source agrees", "Another endpoint has the same block under the same hash."),
        "checkpoints": CheckText(
            "Earlier checkpoints were passed",
            "The logs of today continue those that earlier checkpoints attest, block by block.",
        ),
        "stale_endpoint": CheckText("A recent state", "The endpoint's newest block is not an old one."),
    }
)

ALWAYS: Final = frozenset({"chain_id", "block", "code", "sources", "headers", "receipts", "replay", "state_root"})
"""What every audit of a chain checks; the others are made where there is something to compare with."""

PROVING: Final = frozenset({"block", "headers", "receipts", "state_root"})
"""The checks that make what was read the whole of it."""

FINDINGS: Final[Mapping[str, FindingText]] = MappingProxyType(
    {
        # ----------------------------------------------------------------------------------------- the chain's own word
        "code_differs": FindingText(
            "Other code",
            "The contract's code is not the published one: its rules may be any.",
            "Which code is this, where are its sources, and since when has it been in use?",
        ),
        "header_unlinked": FindingText(
            "A break in the chain",
            "A block does not name the block before it. What the endpoint showed is not one chain.",
            "None yet: ask another endpoint first. If that shows the same, ask who produces the chain's blocks.",
        ),
        "receipts_differ": FindingText(
            "A block's record was altered",
            "What the endpoint showed as a block's record is not what the block commits to: something was withheld, "
            "added or changed on the way.",
            "Who runs this endpoint, and why does it show something else than the chain? Ask another endpoint.",
        ),
        "state_differs": FindingText(
            "The contract's memory is another",
            "What the contract stores does not follow from what its history shows: part of the history is missing or "
            "untrue.",
            "Who runs this endpoint? Ask another one; if it shows the same, the contract is not the one that it seems.",
        ),
        "endpoints_disagree": FindingText(
            "Two sources, two stories",
            "Two endpoints gave different answers about the same block: at least one of them is wrong.",
            "Which chain does the custodian stand by? Compare the block's hash with a third source.",
        ),
        "block_differs": FindingText(
            "Not the block that was named",
            "The endpoint has another block than the one whose hash was brought along.",
            "Which block hash does the custodian stand by, and who else can confirm it?",
        ),
        "stale_endpoint": FindingText(
            "An old state",
            "The endpoint's newest block is old: what happened since was not shown.",
            "Why does this endpoint not follow the chain?",
        ),
        "unknown_event": FindingText(
            "A record of an unknown kind",
            "The contract left a record that the published code does not know.",
            "Which code is running, and what does this record mean?",
        ),
        # --------------------------------------------------------------------------------------------- consents, logs
        "recorded_outside_consent": FindingText(
            "Recorded as allowed, but it was not",
            "An access stands in the log as allowed, although no consent was in force for it by the rules.",
            "By which right were the data read? The person concerned should be told.",
        ),
        "verdict_differs": FindingText(
            "Another verdict than the rules'",
            "The log gives another reason for an access than the rules do.",
            "Which code made this entry?",
        ),
        "rule_broken": FindingText(
            "A rule was broken",
            "Something happened that the contract's rules do not let happen.",
            "Which code is running, and who made this transaction?",
        ),
        "writer_not_allowed": FindingText(
            "Written by a key that may not write",
            "A batch was put on the log by a key that its custodian had not allowed to write.",
            "Whose key is it, and which entries in its log are the custodian's?",
        ),
        "late": FindingText(
            "Logged too late",
            "The entry went on the log after its consent had ended or run out. There may be a good cause: the chain "
            "was rebuilt, and the entry put back.",
            "What was the cause, and what shows that the access itself was made while the consent was in force?",
        ),
        "log_gap": FindingText(
            "A gap in a log",
            "A log does not go on where it had stopped: entries are missing.",
            "Where are the missing entries, and what is their content?",
        ),
        "log_head_differs": FindingText(
            "A log's running hash is another",
            "The entries that are shown do not give the running hash that the contract holds: they are not all, not in "
            "this order, or not the true ones.",
            "Which entries are the true ones? Ask for the openings of the entries of this log.",
        ),
        "checkpoint_inconsistent": FindingText(
            "The log was rewritten",
            "The log of today does not continue the one that an earlier checkpoint attests.",
            "What became of the earlier entries?",
        ),
    }
)
"""By the finding's stable code: those of an audit of the chain. Disclosures and reconciliations say theirs in full."""

REASONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "NOT_GRANTED": "There was no consent",
        "NOT_YET_VALID": "The consent had not begun",
        "EXPIRED": "The consent's time was over",
        "PAUSED": "The person had paused the consent",
        "REVOKED": "The consent had been revoked",
        "EXHAUSTED": "The consent was used up",
        "WRONG_CUSTODIAN": "The consent was given to another custodian",
        "BY_CUSTODIAN": "The custodian refused by the signed terms or its own rules",
        "COMPELLED": "Ordered by an authority",
    }
)
"""Why an access was refused, by the name of the contract's reason."""

STATES: Final[Mapping[State, str]] = MappingProxyType(
    {
        State.UNKNOWN: "not granted",
        State.ACTIVE: "granted",
        State.PAUSED: "paused",
        State.REVOKED: "revoked",
    }
)

LIMITS: Final = (
    (
        "The contract governs the log, not the key. A custodian that holds the keys could read data without writing an "
        "entry. The chain alone cannot show that; the custodian's own count of key uses can be reconciled with the log "
        "(consent-ledger audit reconcile)."
    ),
    (
        "The chain names nobody: no person, institution, purpose or data. What an entry stands for can be checked once "
        "its opening is handed over (consent-ledger audit entry)."
    ),
    "The times are those of blocks, as their producers set them, and not those at which somebody read data.",
    (
        "Everything is as true as the block hash that it rests on. Compare that hash with a source that is not the "
        "custodian."
    ),
)
"""What an audit of the chain cannot say."""


def not_made(report: AuditReport) -> list[CheckText]:
    """Checks that a whole audit has and this one does not: it ended before them, or was told to do without."""
    made = {check.name for check in report.checks}
    return [text for name, text in CHECKS.items() if name in ALWAYS - made]


def is_proven(report: AuditReport) -> bool:
    """Whether what the report counts is all that there is: only then does nothing seen mean that there was nothing."""
    held = {check.name for check in report.checks if check.holds}
    return report.block is not None and held >= PROVING


def verdict_text(report: AuditReport) -> str:
    """The verdict in a sentence. A clean one says so where a check was left out."""
    if report.verdict is Verdict.CLEAN and not_made(report):
        return CLEAN_IN_PART
    return VERDICTS[report.verdict]


def check_text(name: str) -> CheckText:
    """The words for a check; of one that is not known here, its name."""
    return CHECKS.get(name) or CheckText(name.replace("_", " "), "")


def finding_text(code: str) -> FindingText:
    """The words for a kind of finding; of one that is not known here, its code."""
    return FINDINGS.get(code) or FindingText(code.replace("_", " "), "", "What is the cause of this?")


def reason_text(reason: Reason) -> str:
    """Why an access was refused."""
    return REASONS.get(reason.name) or reason.name.lower().replace("_", " ")
