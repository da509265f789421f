"""The verbs about consents: what a person does with them, what an institution does under them, what is on the log."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from eth_account import Account

from ledger.accounts import read_private_key
from ledger.cli_output import consent_fields, consent_text, open_custodian
from ledger.cli_terminal import ConsentId, Json, number_of, plain, read_private_json, show, table
from ledger.consent import ZERO32, Address, ConsentGrant, Hex32, parse_hex32
from ledger.custodian import Custodian
from ledger.errors import UnreadableFileError
from ledger.evidence import verify_receipt
from ledger.exchange import key_for, open_answer, sign_release
from ledger.grants import ActResult
from ledger.json_forms import DAY_SECONDS, iso_time
from ledger.notice_texts import notice_hash_of
from ledger.purposes import PURPOSES
from ledger.purposes import purpose as purpose_of
from ledger.registry import StoredConsent
from ledger.relay import UNKNOWN
from ledger.typed_data import consent_id_of, grant_typed_data, pause_typed_data, revocation_typed_data, sign_typed_data

PANEL: Final = "Consents"
RETENTION_DAYS: Final = 30
ERASED: Final = "(erased)"
app = typer.Typer()
consents_app = typer.Typer(help="Consents and their state.", no_args_is_help=True)
app.add_typer(consents_app, name="consents", rich_help_panel=PANEL)

KeyPath = Annotated[Path, typer.Option("--key", help="File with the subject's private key, mode 0600.")]
PurposeCode = Annotated[str, typer.Option(help=f"What for: {', '.join(PURPOSES)}.")]


# ----------------------------------------------------------------------------------------------------------- the person


@app.command(rich_help_panel=PANEL)
def grant(
    *,
    key: KeyPath,
    subject: Annotated[str, typer.Option(help="The furnisher's reference of the person.")],
    institution: Annotated[str, typer.Option(help="Who may ask.")],
    purpose: PurposeCode,
    attribute: Annotated[list[str], typer.Option(help="What may be read, as in `subjects show`; repeat for more.")],
    days: Annotated[int, typer.Option(help="How long, in days.")] = 30,
    max_accesses: Annotated[int, typer.Option(help="How often in all.")] = 1,
    per_day: Annotated[int, typer.Option(help="How often in one day.")] = 1,
    retention_days: Annotated[
        int | None,
        typer.Option(help="How long the institution may keep it. Default: 30, or what the purpose allows if less."),
    ] = None,
    notice: Annotated[Path | None, typer.Option(help="The text that was shown; its hash is signed.")] = None,
    replaces: Annotated[str | None, typer.Option(help="A consent that this one takes the place of.")] = None,
    print_id: Annotated[
        bool, typer.Option("--print-id", metavar="", help="Print the consent's id and nothing else.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Sign a grant with a local key and bring it on chain: for scripts, people use the portal."""
    private_key = read_private_key(key)
    chosen = purpose_of(purpose)
    with open_custodian() as custodian:
        notice_hash = custodian.notices.keep_text(_text_in(notice)) if notice else notice_hash_of(chosen)
        subject_id = custodian.vault.subject_of(subject)
        now = custodian.clock()
        prepared = custodian.grants.prepare(
            institution_id=institution,
            subject=Address(Account.from_key(private_key).address),
            purpose=purpose,
            attributes=attribute,
            valid_from=now,
            expires_at=now + days * DAY_SECONDS,
            max_accesses=max_accesses,
            accesses_per_day=per_day,
            retention_days=min(RETENTION_DAYS, chosen.max_retention_days) if retention_days is None else retention_days,
            notice_hash=notice_hash,
            replaces=parse_hex32(replaces, "replaces") if replaces else ZERO32,
        )
        fields = hand_in(
            custodian, prepared, private_key, lambda signature: custodian.grants.grant(prepared, signature, subject_id)
        )
    show(as_json, fields, fields["consent"] if print_id else "Granted:\n" + consent_text(fields))


def hand_in(
    custodian: Custodian, prepared: ConsentGrant, private_key: bytes, grant: Callable[[bytes], StoredConsent]
) -> dict[str, Any]:
    """Sign a grant and bring it on chain by `grant`, which takes the signature. What a person reads of it."""
    signature = sign_typed_data(grant_typed_data(prepared, custodian.chain.domain), private_key)
    try:
        consent = grant(signature)
        return consent_fields(custodian, consent) | {"receipt": custodian.grants.receipt(consent.consent_id)}
    except UNKNOWN as exc:
        consent_id = consent_id_of(prepared, custodian.chain.domain)
        if custodian.registry.find_consent(consent_id) is None:
            raise
        # Calling again would sign another one.
        raise type(exc)(
            f"{exc.message}. The signed grant {consent_id} is on file: `consent-ledger sync` brings it on chain",
            field=exc.field,
        ) from exc


def _text_in(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except OSError as exc:
        raise UnreadableFileError(f"{path}: cannot be read ({exc.strerror})", field="notice") from exc
    except UnicodeDecodeError as exc:
        raise UnreadableFileError(f"{path}: expected text in UTF-8", field="notice") from exc


@app.command(rich_help_panel=PANEL)
def revoke(
    *, consent: Annotated[list[str], typer.Argument(help="Ids of the consents.")], key: KeyPath, as_json: Json = False
) -> None:
    """Revoke consents by the subject's signature; one signature for all of them."""
    consent_ids = [parse_hex32(one, "consent") for one in consent]
    private_key = read_private_key(key)
    with open_custodian() as custodian:
        payload = revocation_typed_data(consent_ids, custodian.chain.domain)
        result = custodian.grants.revoke(consent_ids, sign_typed_data(payload, private_key))
    _show_act(as_json, result, f"Revoked {number_of(len(consent_ids), 'consent')}")


@app.command(rich_help_panel=PANEL)
def pause(
    *,
    consent: ConsentId,
    key: KeyPath,
    resume: Annotated[bool, typer.Option("--resume", metavar="", help="End the pause.")] = False,
    as_json: Json = False,
) -> None:
    """Pause a consent, or resume it, by the subject's signature."""
    consent_id = Hex32(consent)
    private_key = read_private_key(key)
    with open_custodian() as custodian:
        sequence = custodian.grants.next_pause(consent_id)
        payload = pause_typed_data(consent_id, paused=not resume, sequence=sequence, domain=custodian.chain.domain)
        signature = sign_typed_data(payload, private_key)
        result = custodian.grants.set_paused(consent_id, paused=not resume, sequence=sequence, signature=signature)
    if resume and result.receipt is None:
        _show_act(as_json, result, "To be resumed", waiting="as soon as the chain can be reached (`sync`)")
    else:
        _show_act(as_json, result, "Resumed" if resume else "Paused")


def _show_act(
    as_json: bool,  # noqa: FBT001 - as in `show`
    result: ActResult,
    what: str,
    waiting: str = "in effect here; on chain as soon as it can be reached (`sync`)",
) -> None:
    block = result.receipt.block_number if result.receipt else None
    fields = {"consents": list(result.consent_ids), "storedAt": result.stored_at, "block": block}
    show(as_json, fields, f"{what}: {waiting if block is None else f'on chain in block {block}'}.")


# ----------------------------------------------------------------------------------------------------------------- both


@consents_app.command("list")
def consents_list(
    *, subject: Annotated[str | None, typer.Option(help="Only of this person.")] = None, as_json: Json = False
) -> None:
    """Consents and their state on chain."""
    with open_custodian() as custodian:
        subject_id = custodian.vault.subject_of(subject) if subject is not None else None
        rows = [consent_fields(custodian, consent) for consent in custodian.registry.consents(subject_id)]
    show(as_json, rows, "\n".join(consent_text(row) for row in rows) or "No consents.")


@consents_app.command("show")
def consents_show(*, consent: ConsentId, as_json: Json = False) -> None:
    """One consent: its terms, its state on chain, and (in JSON) a signed receipt."""
    consent_id = Hex32(consent)
    with open_custodian() as custodian:
        fields = consent_fields(custodian, custodian.registry.consent(consent_id))
        receipt = custodian.grants.receipt(consent_id)
    show(as_json, fields | {"receipt": receipt}, f"{consent_text(fields)}\n    signed by {fields['subject']}")


# ------------------------------------------------------------------------------------------------------ the institution


@app.command(rich_help_panel=PANEL)
def release(
    *,
    consent: ConsentId,
    keys: Annotated[Path, typer.Option(help="The institution's private JWK set, mode 0600.")],
    institution: Annotated[str, typer.Option(help="Who asks.")],
    attribute: Annotated[list[str], typer.Option(help="What is asked; repeat for more.")],
    purpose: PurposeCode,
    key: Annotated[str, typer.Option("--idempotency-key", help="A retry with the same key is the same request.")],
    as_json: Json = False,
) -> None:
    """Ask as an institution: sign the request, open the sealed answer, check the receipt against the chain."""
    private = read_private_json(keys)
    with open_custodian() as custodian:
        signed = sign_release(
            service_url=custodian.config.service_url,
            institution=institution,
            consent_id=Hex32(consent),
            purpose=purpose,
            attributes=tuple(attribute),
            idempotency_key=key,
            signing_key=key_for(private, "sig"),
            at=custodian.clock(),
            nonce=secrets.token_urlsafe(18),
        )
        answer = custodian.releases.release(signed)
        claims = open_answer(answer.sealed, key_for(private, "enc"), custodian.accounts.signing_key)
        verified = verify_receipt(answer.receipt, custodian.chain, custodian.accounts.signing_key)
    fields = {
        "releaseId": answer.release_id,
        "values": claims["values"],
        "sealed": answer.sealed.decode(),
        "receipt": answer.receipt,
        "block": verified.block_number,
    }
    found = table([{"attribute": name, **value} for name, value in claims["values"].items()])
    found.title, found.title_justify = f"Logged in block {verified.block_number}, then released", "left"
    show(as_json, fields, found)


# -------------------------------------------------------------------------------------------------------------- the log


@app.command("log", rich_help_panel=PANEL)
def access_log(
    *,
    subject: Annotated[str | None, typer.Option(help="Only of this person.")] = None,
    consent: Annotated[str | None, typer.Option(help="Only under this consent.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, newest first.")] = 100,
    as_json: Json = False,
) -> None:
    """Who read what, and who tried: every access and every refusal."""
    with open_custodian() as custodian:
        wanted: list[Hex32] | None = None
        if subject is not None:
            consents = custodian.registry.consents(custodian.vault.subject_of(subject))
            wanted = [one.consent_id for one in consents]
        if consent is not None:
            only = parse_hex32(consent, "consent")
            wanted = [only] if wanted is None or only in wanted else []
        rows = []
        for row in custodian.journal.history(wanted, limit):
            entry = custodian.releases.opening(row)
            rows.append(
                {
                    "time": iso_time(row.created_at),
                    "state": row.state,
                    "reason": row.reason,
                    "institution": entry.institution if entry else ERASED,
                    "purpose": entry.purpose if entry else ERASED,
                    "attributes": list(entry.attributes) if entry else [],
                    "consent": row.consent_id,
                    "entryHash": row.entry_hash,
                    "block": row.block_number,
                    "late": row.late,
                }
            )
    show(as_json, rows, "\n".join(map(_entry_text, rows)) or "No entries.")


def _entry_text(row: dict[str, Any]) -> str:
    state = f"{row['state']}: {row['reason']}" if row["reason"] else row["state"]
    place = "not on chain yet" if row["block"] is None else f"block {row['block']}"
    asked = ERASED
    if row["institution"] != ERASED:
        # All of it is what the institution wrote, refused or not.
        asked = plain(f"{row['institution']}, {row['purpose']}: {', '.join(row['attributes'])}")
    late = ", put back late" if row["late"] else ""
    return f"{row['time']}  {state}, {place}{late}\n    {asked}\n    consent {row['consent']}"
