"""The custodian's verb for those who are to see for themselves: entries with what opens them, in one file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Final

import typer

from ledger.cli_output import open_custodian
from ledger.cli_terminal import Json, number_of, plain, show, warn, write_secret
from ledger.consent import parse_hex32
from ledger.errors import MalformedError

PANEL: Final = "Evidence"
app = typer.Typer()


@app.command("disclose", rich_help_panel=PANEL)
def disclose(
    *,
    out: Annotated[Path, typer.Option(help="The file to make; only you can read it.")],
    release: Annotated[str | None, typer.Option(help="One release, by its id.")] = None,
    consent: Annotated[str | None, typer.Option(help="Everything under one consent, by its id.")] = None,
    subject: Annotated[str | None, typer.Option(help="Everything about one person, by the furnisher's ref.")] = None,
    order: Annotated[str | None, typer.Option(help="One access that an authority ordered, by its hash.")] = None,
    proofs: Annotated[
        bool, typer.Option("--proofs", metavar="", help="With a proof bundle of each: can be checked without a node.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make the file by which an auditor can read entries: `consent-ledger audit entry` checks it.

    It names people and what was asked about them, but holds no value. Hand it over under a legal basis only.
    """
    if sum(one is not None for one in (release, consent, subject, order)) != 1:
        raise MalformedError("disclose: expected one of --release, --consent, --subject, --order", field="disclose")
    with open_custodian() as custodian:
        making, at = custodian.disclosing, custodian.clock()
        if release is not None:
            made = making.of_release(parse_hex32(release, "release"), at=at, proofs=proofs)
        elif order is not None:
            made = making.of_order(parse_hex32(order, "order"), at=at, proofs=proofs)
        elif consent is not None:
            made = making.of_consent(parse_hex32(consent, "consent"), at=at, proofs=proofs)
        else:
            made = making.of_subject(custodian.vault.subject_of(str(subject)), at=at, proofs=proofs)
    write_secret(out, json.dumps(made.disclosure.as_json(), ensure_ascii=False, indent=1) + "\n")
    entries, consents = len(made.disclosure.entries), len(made.disclosure.consents)
    if made.missing_keys:
        names = ", ".join(plain(one) for one in made.missing_keys)
        warn(f"No longer on file, so the auditor needs them from the institutions: {names}")
    fields = {
        "file": str(out),
        "entries": entries,
        "consents": consents,
        "notOnChain": made.not_on_chain,
        "missingKeys": list(made.missing_keys),
    }
    waiting = f" {number_of(made.not_on_chain, 'release')} not on chain left out." if made.not_on_chain else ""
    human = f"{number_of(entries, 'entry').replace('entrys', 'entries')} of {number_of(consents, 'consent')}"
    show(
        as_json, fields, f"{human} in {plain(str(out))}.{waiting} It names people: hand it on under a legal basis only."
    )
