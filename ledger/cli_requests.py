"""The verbs about consent requests: what a person does with the link that an institution gave them.

An institution asks by the HTTP API.
"""

from __future__ import annotations

import textwrap
from typing import Annotated, Any, Final

import typer
from eth_account import Account

from ledger.accounts import read_private_key
from ledger.cli_consents import PANEL, KeyPath, hand_in
from ledger.cli_output import consent_text, open_custodian
from ledger.cli_terminal import Json, number_of, plain, show
from ledger.consent import ZERO32, Address
from ledger.consent_requests import ConsentRequest, token_of
from ledger.json_forms import iso_time
from ledger.purposes import PURPOSES

app = typer.Typer()
requests_app = typer.Typer(help="What institutions ask a person to consent to.", no_args_is_help=True)
app.add_typer(requests_app, name="requests", rich_help_panel=PANEL)

Link = Annotated[str, typer.Argument(help="The link that the institution gave, or the token at its end.")]
Claimed = Annotated[
    str | None, typer.Option("--subject", help="The furnisher's reference of the person, if they claimed it.")
]
NOTHING: Final = "none"


@requests_app.command("show")
def requests_show(*, link: Link, subject: Claimed = None, as_json: Json = False) -> None:
    """What is asked, by whom, and what became of it."""
    with open_custodian() as custodian:
        subject_id = None if subject is None else custodian.vault.subject_of(subject)
        found = custodian.requests.opened(token_of(link), subject_id)
    show(as_json, request_fields(found), request_text(found))


@requests_app.command("accept")
def requests_accept(
    *,
    link: Link,
    key: KeyPath,
    subject: Annotated[str, typer.Option(help="The furnisher's reference of the person.")],
    attribute: Annotated[
        list[str] | None, typer.Option(help="An optional attribute to agree to as well; repeat for more.")
    ] = None,
    max_accesses: Annotated[int | None, typer.Option(help="Fewer accesses than asked for.")] = None,
    days: Annotated[int | None, typer.Option(help="Fewer days than asked for.")] = None,
    print_id: Annotated[
        bool, typer.Option("--print-id", metavar="", help="Print the consent's id and nothing else.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Agree: sign what is required, and of the rest what was chosen, with a local key; bring it on chain."""
    private_key = read_private_key(key)
    token = token_of(link)
    with open_custodian() as custodian:
        subject_id = custodian.vault.subject_of(subject)
        prepared = custodian.requests.draft(
            token,
            Address(Account.from_key(private_key).address),
            attributes=attribute,
            max_accesses=max_accesses,
            validity_days=days,
            subject_id=subject_id,
        )
        fields = hand_in(
            custodian,
            prepared,
            private_key,
            lambda signature: custodian.requests.accept(token, prepared, signature, subject_id),
        )
    show(as_json, fields, fields["consent"] if print_id else "Granted:\n" + consent_text(fields))


@requests_app.command("decline")
def requests_decline(*, link: Link, subject: Claimed = None, as_json: Json = False) -> None:
    """Say no. It needs nothing but the link, unless the person claimed the request in the portal."""
    with open_custodian() as custodian:
        if subject is None:
            found = custodian.requests.decline(token_of(link))
        else:
            found = custodian.own_requests.decline(token_of(link), custodian.vault.subject_of(subject)).request
    show(as_json, request_fields(found), f"{found.state.capitalize()}.")


def request_fields(found: ConsentRequest) -> dict[str, Any]:
    """A consent request, for machines."""
    return {
        "request": found.request_id,
        "state": found.state,
        "institution": found.institution,
        "institutionName": found.institution_name,
        "purpose": found.purpose,
        "attributes": list(found.attributes),
        "optionalAttributes": list(found.optional_attributes),
        "validityDays": found.validity_days,
        "maxAccesses": found.max_accesses,
        "accessesPerDay": found.accesses_per_day,
        "retentionDays": found.retention_days,
        "replaces": None if found.replaces == ZERO32 else found.replaces,
        "noticeHash": found.notice_hash,
        "createdAt": iso_time(found.created_at),
        "answerBy": iso_time(found.answer_by),
        "consent": found.consent_id,
    }


def request_text(found: ConsentRequest) -> str:
    """A consent request, for a person: ids alone on a line, to be copied."""
    times, days = number_of(found.max_accesses, "time"), number_of(found.validity_days, "day")
    lines = [
        plain(f"{found.institution_name} ({found.institution}) asks for {found.purpose}:"),
        *(f"    {line}" for line in textwrap.wrap(PURPOSES[found.purpose].description, 72)),
        f"    required   {', '.join(found.attributes)}",
        f"    optional   {', '.join(found.optional_attributes) or NOTHING}",
        f"    how often  {times}, at most {found.accesses_per_day} a day, within {days}",
        f"    kept for   {number_of(found.retention_days, 'day')}",
        f"    {found.state}, to be answered before {iso_time(found.answer_by)}",
    ]
    if found.replaces != ZERO32:
        lines += ["    in place of", found.replaces]
    if found.consent_id is not None:
        lines += ["    granted as", found.consent_id]
    return "\n".join(lines)
