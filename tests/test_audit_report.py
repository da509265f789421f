"""An audit's report: its verdict, its JSON, and what a terminal is shown."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
import reports

from ledger.audit_reader import report_of
from ledger.audit_report import AuditReport, Check, Finding, Verdict
from ledger.audit_texts import FINDINGS
from ledger.cli_audit_options import auditors_app
from ledger.cli_audit_output import report_text
from ledger.errors import MalformedError
from ledger.json_forms import iso_date, iso_time, origin_of

LEDGER: Final = Path(__file__).parent.parent / "ledger"
ALL = {
    "clean": reports.report(),
    "findings": reports.with_findings(),
    "unverified": reports.unverified(),
    "empty": reports.empty(),
    "no block": reports.unverified(block=None),
}


# -------------------------------------------------------------------------------------------------------------- verdict


def test_a_report_is_clean_only_if_everything_was_checked_and_holds() -> None:
    clean = reports.report()
    assert clean.verdict is Verdict.CLEAN
    for place in range(len(clean.checks)):
        for holds, verdict in ((False, Verdict.FINDINGS), (None, Verdict.UNVERIFIED)):
            checks = [*clean.checks]
            checks[place] = replace(checks[place], holds=holds)
            assert replace(clean, checks=tuple(checks)).verdict is verdict
    assert replace(clean, checks=()).verdict is Verdict.UNVERIFIED
    assert replace(clean, block=None).verdict is Verdict.UNVERIFIED
    assert replace(clean, finding_counts={"late": 1}).verdict is Verdict.FINDINGS
    assert replace(clean, findings=(Finding(code="late", detail=""),)).verdict is Verdict.FINDINGS


# ----------------------------------------------------------------------------------------------------------------- JSON


@pytest.mark.parametrize("name", ALL)
def test_a_report_comes_back_from_json_as_it_was(name: str) -> None:
    report = ALL[name]
    shown = replace(report, endpoints=tuple(origin_of(url) for url in report.endpoints))
    assert report_of(json.loads(json.dumps(report.as_json()))) == shown


def test_times_stand_in_json_as_numbers_and_as_dates() -> None:
    fields = reports.with_findings().as_json()
    assert fields["block"]["timestampIso"] == iso_time(fields["block"]["timestamp"]) == "2026-11-18T11:06:00Z"
    assert fields["days"][0]["date"] == iso_date(fields["days"][0]["day"])
    standing = [one for one in fields["consents"] if one["revokedAt"] is None]
    revoked = [one for one in fields["consents"] if one["revokedAt"] is not None]
    assert standing
    assert revoked
    assert all(one["revokedAtIso"] == iso_time(one["revokedAt"]) for one in revoked)
    assert not any("revokedAtIso" in one for one in standing)
    assert fields["totals"]["entries"] == sum(
        fields["totals"][kind] for kind in ("recorded", "refused", "late", "compelled")
    )


def test_a_time_that_no_calendar_has_stays_a_number() -> None:
    assert (iso_time(2**63), iso_time(-1), iso_date(2**40)) == (str(2**63), "-1", str(2**40))


def _without(name: str) -> Any:
    return lambda fields: fields.pop(name)


@pytest.mark.parametrize(
    "tamper",
    [
        _without("findings"),
        _without("totals"),
        lambda fields: fields.update(version=2),
        lambda fields: fields.update(verdict="clean"),
        lambda fields: fields.update(checks={}),
        lambda fields: fields["checks"][0].update(holds="yes"),
        lambda fields: fields["totals"].update(recorded=True),
        lambda fields: fields["logs"][0].update(head="0x12"),
        lambda fields: fields["consents"][0].update(state="asleep"),
        lambda fields: fields.update(refusalsByReason={"whim": 1}),
    ],
)
def test_a_report_that_was_tampered_with_is_refused(tamper: Any) -> None:
    fields = json.loads(json.dumps(reports.with_findings().as_json()))
    tamper(fields)
    with pytest.raises(MalformedError):
        report_of(fields)


@pytest.mark.parametrize("given", [None, [], "clean", 7])
def test_what_is_no_object_is_no_report(given: object) -> None:
    with pytest.raises(MalformedError):
        report_of(given)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://127.0.0.1:8545", "http://127.0.0.1:8545"),
        ("http://127.0.0.1:8545/", "http://127.0.0.1:8545"),
        ("https://rpc.example/v3/0123456789abcdef0123456789abcdef", "https://rpc.example/…"),
        ("https://rpc.example?apikey=secret", "https://rpc.example/…"),
        ("https://user:secret@rpc.example/x", "https://rpc.example/…"),
        ("https://rpc.example:8443#secret", "https://rpc.example:8443/…"),
        ("secret", "(an address of another form)"),
        ("https://user:sec/secret@rpc.example", "(an address of another form)"),
        ("https://[2001:db8::1]:8545/secret", "https://[2001:db8::1]:8545/…"),
        ("https://rpc.example/…", "https://rpc.example/…"),
    ],
)
def test_an_endpoints_key_is_never_shown(url: str, shown: str) -> None:
    assert origin_of(url) == shown
    report = reports.report(endpoints=(url,))
    assert "secret" not in json.dumps(report.as_json()) + report_text(report)


# ------------------------------------------------------------------------------------------------------------- terminal


def test_the_first_line_is_the_verdict_and_the_hash_is_there_to_compare() -> None:
    firsts = {name: report_text(report).splitlines()[0] for name, report in ALL.items()}
    assert firsts["clean"].startswith("✓ CLEAN.")
    assert firsts["findings"].startswith("✗ FINDINGS.")
    assert firsts["unverified"].startswith("? COULD NOT VERIFY.")
    assert firsts["no block"].startswith("? COULD NOT VERIFY.")
    block = reports.report().block
    assert block is not None
    assert f"hash     {block.block_hash}\n         from the endpoint: compare it" in report_text(reports.report())
    given = reports.report(block=replace(block, given=True))
    assert "brought along by you" in report_text(given)


def test_every_check_is_shown_also_one_that_was_never_made() -> None:
    text = report_text(reports.report(checks=(Check(name="chain_id", holds=None, detail="no answer"),)))
    assert "? The right chain\n    no answer" in text
    assert "- One unbroken chain: not checked" in text
    assert "- The code comes from the sources: not checked" in text
    assert "They are not proven to be all." in text
    assert "not checked" not in report_text(reports.report())


def test_of_many_findings_the_first_are_shown_and_all_are_counted() -> None:
    text = report_text(reports.with_findings(listed={"late": 4_200}))
    assert "✗ 4,200 of late: Logged too late" in text
    assert text.count("    logged after the consent had expired") == 5
    assert "and 4,195 more" in text


def test_a_terminal_obeys_nothing_that_an_endpoint_says() -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\u202eclean\u202c\r\n✓ CLEAN"
    report = reports.report(
        checks=(Check(name="evil_\x1b[31m", holds=None, detail=evil),),
        findings=(Finding(code="x\x1b[0m", detail=evil),),
    )
    text = report_text(report)
    assert not set(text) & set("\x1b\x07\r\u202e\u202c")
    assert "\n✓ CLEAN" not in text


@pytest.mark.parametrize("code", FINDINGS)
def test_words_are_kept_for_what_an_audit_of_the_chain_can_find_and_for_nothing_else(code: str) -> None:
    sources = [*LEDGER.glob("audit*.py"), *LEDGER.glob("replay*.py")]
    assert any(f'"{code}"' in path.read_text() for path in sources if path.name != "audit_texts.py")


def test_every_log_stands_under_the_number_of_logs_and_one_entry_is_one() -> None:
    report = reports.report()
    one, other = (replace(report.logs[0], size=size) for size in (1, 1_200))
    changed = replace(report, logs=(one, other), totals=replace(report.totals, batches=1))
    lines = report_text(changed).splitlines()
    (at,) = [place for place, line in enumerate(lines) if line.startswith("logs ")]
    assert lines[at] == "logs     2, in 1 batch"
    assert [line.split(": ")[1].split(", head")[0] for line in lines[at + 1 : at + 3]] == ["1 entry", "1,200 entries"]
    assert lines[at + 3].startswith("blocks ")


def test_the_help_of_audits_says_which_verb_needs_the_custodians_data() -> None:
    assert "no custodian (`reconcile` alone is for a custodian" in (auditors_app().info.help or "")


def test_numbers_of_any_size_are_shown() -> None:
    clean = reports.report()
    assert "1,000,000,000,000,000,000 recorded" in report_text(
        replace(clean, totals=replace(clean.totals, recorded=10**18))
    )


def test_a_report_of_nothing_is_shown() -> None:
    nothing = AuditReport(domain=reports.DOMAIN, block=None, endpoints=(), made_at=0, checks=())
    assert report_text(nothing).startswith("? COULD NOT VERIFY")
    assert report_of(nothing.as_json()) == nothing
