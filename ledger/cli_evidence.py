"""The verbs about evidence: what an institution or an auditor checks with no custodian of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Final

import typer
from joserfc.jwk import ECKey

from ledger.access import AccessEntry
from ledger.artifact import contract_address
from ledger.chain import JsonRpcChain
from ledger.cli_terminal import Json, plain, read_json, read_token, show, warn
from ledger.config import Config
from ledger.consent import Domain, Hex32, State, parse_hex32
from ledger.errors import AuditError, MalformedError
from ledger.evidence import open_receipt, verify_bundle, verify_receipt
from ledger.exchange import key_for
from ledger.json_forms import iso_time
from ledger.jsonrpc import JsonRpc
from ledger.key_sources import read_key_source
from ledger.receipts import (
    ERASURE_TYPE,
    GRANT_TYPE,
    REVOCATION_TYPE,
    kid_of,
    type_of,
    verify_erasure,
    verify_grant,
    verify_revocation,
)

PANEL: Final = "Evidence"
END_OF_TIME: Final = 250_000_000_000
app = typer.Typer()
receipts_app = typer.Typer(help="Receipts, and proofs of erasure.", no_args_is_help=True)
app.add_typer(receipts_app, name="receipts", rich_help_panel=PANEL)


@receipts_app.command("verify")
def receipts_verify(
    *,
    file: Annotated[Path, typer.Argument(help="The receipt, or an answer in JSON that has it.")],
    custodian_key: Annotated[
        str, typer.Option(help="The custodian's public key: a JWK or JWK set in a file, or the service's URL.")
    ],
    rpc_url: Annotated[
        str | None, typer.Option(help="A node to ask. Default: CONSENT_LEDGER_RPC_URL, unless there is a bundle.")
    ] = None,
    bundle: Annotated[Path | None, typer.Option(help="A proof bundle: it is checked without any network.")] = None,
    block_hash: Annotated[
        str | None, typer.Option(help="The hash of the bundle's block, from a source that you trust.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a receipt by yourself. Exit code 5 if it does not hold.

    One of an access is checked against a node, or by a proof bundle. One of a grant or a revocation, and a proof of
    erasure, are checked without any network; with --rpc-url the node is asked as well.
    """
    if bundle is not None and rpc_url is not None:
        raise MalformedError("bundle: expected either --rpc-url or --bundle", field="bundle")
    if bundle is None and block_hash is not None:
        raise MalformedError("block-hash: expected with --bundle only", field="block-hash")
    receipt = read_token(file, "receipt", "proof")
    key = _key_of(custodian_key, receipt)
    config = Config.from_env()
    domain = Domain(chain_id=config.chain_id, contract=contract_address())
    if type_of(receipt) in _PERSONS:
        if bundle is not None:
            raise MalformedError("bundle: expected with the receipt of an access only", field="bundle")
        _verify_persons(receipt, key, domain, rpc_url, as_json=as_json)
        return
    found: dict[str, object]
    if bundle is None:
        chain = JsonRpcChain(JsonRpc(rpc_url or config.rpc_url), domain)
        chain.check()
        seen = verify_receipt(receipt, chain, key)
        found = {"late": seen.outcome.late, "block": seen.block_number}
        _show(as_json, seen.entry, found, f"It stands in block {seen.block_number}.")
        return
    wanted = None if block_hash is None else parse_hex32(block_hash, "block-hash")
    content = read_json(bundle)
    proven = verify_bundle(content, key, domain=domain, block_hash=wanted)
    if proven.entry != open_receipt(receipt, key).entry:
        raise AuditError("the bundle is of another receipt")
    # Of a block that was made up it can be any number.
    at = iso_time(proven.timestamp) if proven.timestamp < END_OF_TIME else str(proven.timestamp)
    found = {
        "late": proven.late,
        "block": proven.block_number,
        "blockHash": proven.block_hash,
        "blockTime": at,
        "anchored": proven.anchored,
    }
    where = f"block {proven.block_number} of {at}, {proven.block_hash}"
    if proven.anchored:
        human = f"It was on the log by {where}."
    else:
        human = f"The bundle agrees with itself. It proves what it says if this is the chain's: {where}."
        warn("Not proven yet: compare the block's hash with a source that you trust, or give it by --block-hash.")
    _show(as_json, proven.entry, found, human)


_PERSONS: Final = (GRANT_TYPE, REVOCATION_TYPE, ERASURE_TYPE)


def _verify_persons(receipt: str, key: ECKey, domain: Domain, rpc_url: str | None, *, as_json: bool) -> None:
    chain = JsonRpcChain(JsonRpc(rpc_url), domain) if rpc_url else None
    kind = type_of(receipt)
    consent_ids: tuple[Hex32, ...]
    if kind == ERASURE_TYPE:
        erased = verify_erasure(receipt, key)
        total, at = sum(erased.destroyed.values()), iso_time(erased.erased_at)
        fields = {"holds": True, "kind": kind, "erasedAt": at, **erased.destroyed}
        show(
            as_json,
            fields,
            f"The proof holds: {total} rows destroyed at {at}. It names no one.",
        )
        return
    if kind == GRANT_TYPE:
        granted = verify_grant(receipt, key, domain=domain)
        consent_ids, expected = (granted.consent_id,), {State.ACTIVE, State.PAUSED, State.REVOKED}
        terms = granted.grant.terms
        human = plain(f"{terms.institution}, {terms.purpose}: {', '.join(terms.attributes)}")
        fields = {"holds": True, "kind": kind, "consents": list(consent_ids), "grant": granted.grant.as_json()}
        said = f"The receipt holds: {granted.grant.subject} signed it.\n    {human}"
    else:
        revoked = verify_revocation(receipt, key, domain=domain)
        consent_ids, expected = revoked.consent_ids, {State.REVOKED}
        at = iso_time(revoked.stored_at)
        fields = {"holds": True, "kind": kind, "consents": list(consent_ids), "by": revoked.by, "storedAt": at}
        signed = "signed by the subject" if revoked.by_subject else f"at the wish of: {plain(revoked.by)}"
        said = f"The receipt holds: revoked at {at}, {signed}."
    lines = [said, *(f"    consent {one}" for one in consent_ids)]
    if chain is not None:
        chain.check()
        states = _states(chain, consent_ids, expected, granted=kind == GRANT_TYPE)
        fields |= {"onChain": True, "state": states[0] if kind == GRANT_TYPE else "revoked"}
        lines.append(f"On chain: {fields['state']}.")
    show(as_json, fields, "\n".join(lines))


def _states(chain: JsonRpcChain, ids: Sequence[Hex32], expected: set[State], *, granted: bool) -> list[str]:
    """What the chain says of each consent. Raises `AuditError` if that is not as the receipt has it."""
    states: list[str] = []
    for consent_id, found in zip(ids, chain.consents(ids), strict=True):
        name = found.state.name.lower()
        if found.state not in expected:
            raise AuditError(f"the chain says otherwise: consent {consent_id} is {name}")
        # A revocation that came first leaves nothing but the word: the grant never was on chain, and cannot be.
        if granted and not found.expires_at:
            raise AuditError(f"the chain says otherwise: consent {consent_id} is {name}, and was never granted")
        states.append(name)
    return states


def _show(as_json: bool, entry: AccessEntry, found: Mapping[str, object], human: str) -> None:  # noqa: FBT001
    what = plain(f"{entry.institution}, {entry.purpose}: {', '.join(entry.attributes)}")
    late = " It came back to the log only after the consent had ended." if found["late"] else ""
    show(
        as_json,
        {"holds": True, "entry": entry.as_json(), **found},
        f"The receipt holds. {human}{late}\n    {what}\n    consent {entry.consent_id}\n    release {entry.release_id}",
    )


def _key_of(source: str, receipt: str) -> ECKey:
    """The custodian's key that a receipt names, or its only one. Raises `MalformedError`."""
    content = read_key_source(source)
    keys = content.get("keys", [content])
    kid = kid_of(receipt)
    for one in keys if isinstance(keys, list) else []:
        if isinstance(one, dict) and (len(keys) == 1 or one.get("kid") == kid):
            with suppress(MalformedError):
                key = key_for({"keys": [{"use": "sig", **one}]}, "sig")
                if isinstance(key, ECKey):
                    return key
    raise MalformedError("custodian-key: expected the public key that the receipt names", field="custodian-key")
