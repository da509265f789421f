"""What the verbs about single entries print: a verdict, then each entry with what was checked of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from ledger.access import AccessEntry
from ledger.audit_report import AuditedBlock, Check, Finding, Verdict
from ledger.json_forms import iso_time
from ledger.markup import visible
from ledger.scrutiny import JudgedDisclosure, check_json, finding_json
from ledger.subject_audit import JudgedSubject

MARKS: Final = {True: "✓", False: "✗", None: "?"}
VERDICTS: Final = {
    Verdict.CLEAN: "✓ CLEAN. Everything that was checked holds.",
    Verdict.FINDINGS: "✗ FINDINGS. Something is not as it must be.",
    Verdict.UNVERIFIED: "? COULD NOT VERIFY. Nothing wrong was found, but not everything could be checked.",
}
VERSION: Final = 1


def disclosure_json(judged: JudgedDisclosure) -> dict[str, Any]:
    """The result for machines; `version` counts changes of its form."""
    return {
        **_whole(judged),
        "entries": [
            {
                "entryHash": one.entry_hash,
                "verdict": one.verdict.value,
                "outcome": one.outcome.value,
                "at": one.at,
                "atIso": None if one.at is None else iso_time(one.at),
                "entry": one.entry.as_json(),
                "checks": [check_json(check) for check in one.checks],
                "findings": [finding_json(found) for found in one.findings],
            }
            for one in judged.entries
        ],
    }


def subject_json(judged: JudgedSubject) -> dict[str, Any]:
    """The result for machines; `version` counts changes of its form."""
    return {
        **_whole(judged),
        "accesses": [
            {
                "entryHash": one.entry_hash,
                "consent": one.consent_id,
                "outcome": None if one.outcome is None else one.outcome.value,
                "at": one.at,
                "atIso": None if one.at is None else iso_time(one.at),
                "entry": None if one.entry is None else one.entry.as_json(),
                "checks": [check_json(check) for check in one.checks],
                "findings": [finding_json(found) for found in one.findings],
            }
            for one in judged.accesses
        ],
    }


def _whole(judged: JudgedDisclosure | JudgedSubject) -> dict[str, Any]:
    block = judged.block
    return {
        "version": VERSION,
        "verdict": judged.verdict.value,
        "chainId": judged.domain.chain_id,
        "contract": judged.domain.contract,
        "block": None
        if block is None
        else {
            "number": block.number,
            "blockHash": block.block_hash,
            "timestamp": block.timestamp,
            "timestampIso": iso_time(block.timestamp),
            "given": block.given,
        },
        "checks": [check_json(check) for check in judged.checks],
        "findings": [finding_json(found) for found in judged.findings],
    }


def disclosure_text(judged: JudgedDisclosure) -> str:
    """The result for a person to read."""
    lines = [VERDICTS[judged.verdict], *_block(judged.block), "", *_checks(judged.checks)]
    for number, one in enumerate(judged.entries, start=1):
        lines += ["", f"{number}. {_title(one.entry, one.outcome.value, one.at)}", f"   entry {one.entry_hash}"]
        lines += [f"   {line}" for line in _checks(one.checks)]
    return _shown([*lines, *_findings(judged.all_findings)])


def subject_text(judged: JudgedSubject) -> str:
    """The result for a person to read."""
    lines = [VERDICTS[judged.verdict], *_block(judged.block), "", *_checks(judged.checks)]
    for number, one in enumerate(judged.accesses, start=1):
        outcome = "not on chain" if one.outcome is None else one.outcome.value
        lines += ["", f"{number}. {_title(one.entry, outcome, one.at)}", f"   consent {one.consent_id}"]
        lines += [f"   entry   {one.entry_hash}"]
        # What holds of each is a line too many for somebody who wants to see what does not.
        lines += [f"   {line}" for line in _checks([check for check in one.checks if not check.holds])]
    if not judged.accesses:
        lines += ["", "No access."]
    return _shown([*lines, *_findings(judged.all_findings)])


def _block(block: AuditedBlock | None) -> Iterator[str]:
    if block is not None:
        yield f"block {block.number} of {iso_time(block.timestamp)}"
        yield f"hash  {block.block_hash}"
        if not block.given:
            yield "      from the endpoint: compare it with a source that you trust"


def _title(entry: AccessEntry | None, outcome: str, at: int | None) -> str:
    when = iso_time(at) if at is not None else "(no time)"
    if entry is None:
        return f"{when}  {outcome}: nothing says what it was"
    return f"{when}  {outcome}: {entry.institution}, {entry.purpose}: {', '.join(entry.attributes)}"


def _checks(checks: Sequence[Check]) -> Iterable[str]:
    return (f"{MARKS[check.holds]} {check.name}: {check.detail}" for check in checks)


def _findings(findings: Sequence[Finding]) -> Iterator[str]:
    if findings:
        yield ""
        yield "Findings:"
    for finding in findings:
        about = finding.entry_hash or finding.consent_id
        yield f"✗ {finding.code}: {finding.detail}" + (f" ({about})" if about else "")


def _shown(lines: Iterable[str]) -> str:
    """No text from outside can begin a line of its own."""
    return "\n".join(visible(line.replace("\n", "\\n")) for line in lines)
