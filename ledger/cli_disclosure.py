"""The auditor's verbs about single entries: what a disclosure, a receipt or a person's own export comes to."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer
from joserfc.jwk import ECKey

from ledger.audit import Asked
from ledger.audit_report import Verdict
from ledger.cli_audit_options import (
    DEVNET_CHAIN_ID,
    EXIT_CODES,
    At,
    ChainId,
    Contract,
    FromBlock,
    Headers,
    RpcUrls,
    Steps,
    Tag,
    asked_of,
    endpoints,
)
from ledger.cli_disclosure_output import disclosure_json, disclosure_text, subject_json, subject_text
from ledger.cli_terminal import Json, progress_bar, read_json, read_token, show
from ledger.consent import Hex32, parse_address, parse_hex32
from ledger.disclosed import judge
from ledger.disclosure import Disclosure, read_disclosure
from ledger.disclosure_facts import offline_facts, online_facts
from ledger.errors import MalformedError
from ledger.key_sources import signing_keys
from ledger.receipts import kid_of
from ledger.received import judge_receipt
from ledger.scrutiny import Facts, Keyring
from ledger.signatures import JWK
from ledger.subject_audit import judge_subject, read_export
from ledger.verifying_keys import public_jwk

Offline = Annotated[
    bool, typer.Option("--offline", metavar="", help="Ask no node: proof bundles and --block-hash stand for the chain.")
]
BlockHashes = Annotated[
    list[str] | None, typer.Option("--block-hash", help="With --offline: a block's hash, from a source that you trust.")
]
_KEY_HELP: Final = "The custodian's public key: a JWK or JWK set in a file, or the service's URL."


class _Where:
    """Where facts come from: the chain that endpoints show, or what there is without one."""

    def __init__(
        self, asked: Asked, urls: Sequence[str] | None, hashes: Sequence[str] | None, *, offline: bool, quiet: bool
    ) -> None:
        if hashes and not offline:
            raise MalformedError("block-hash: expected with --offline; otherwise --block names it", field="block-hash")
        self.asked = asked
        self._urls, self._offline, self._quiet = urls, offline, quiet
        self._hashes = {parse_hex32(one, "block-hash") for one in hashes or ()}

    def facts(self, disclosure: Disclosure, keys: Keyring, watch: frozenset[Hex32] = frozenset()) -> Facts:
        """What is known about a disclosure, and about these consents."""
        if self._offline:
            return offline_facts(disclosure, keys, block_hashes=self._hashes)
        asked = replace(self.asked, watch=self.asked.watch | watch)
        with progress_bar(hidden=self._quiet) as bar:
            return online_facts(disclosure, keys, endpoints(self._urls), asked, now=int(time.time()), step=Steps(bar))


def entry(
    *,
    file: Annotated[Path, typer.Argument(help="The disclosure, as `consent-ledger disclose` makes it.")],
    rpc_url: RpcUrls = None,
    contract: Contract = None,
    chain_id: ChainId = DEVNET_CHAIN_ID,
    block: At = None,
    tag: Tag = "latest",
    from_block: FromBlock = 0,
    headers: Headers = "all",
    offline: Offline = False,
    block_hash: BlockHashes = None,
    institution_key: Annotated[
        list[str] | None,
        typer.Option(help="ID=FILE: public keys (JWK set) of an institution, as you have them from it."),
    ] = None,
    custodian_key: Annotated[str | None, typer.Option(help=_KEY_HELP)] = None,
    believe_keys: Annotated[
        bool, typer.Option("--believe-keys", metavar="", help="Take the keys in the disclosure for the parties' own.")
    ] = False,
    answer: Annotated[
        Path | None, typer.Option(help="What an institution was answered: the JWT inside the sealed answer.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check every entry of a disclosure: opening, place on chain, consent, terms, request, records, daily limits."""
    keys = Keyring(
        custodian=signing_keys(custodian_key) if custodian_key else (),
        institutions=_by_institution(institution_key or ()),
        as_disclosed=believe_keys,
    )
    asked = asked_of(contract, chain_id, block, tag, from_block, headers)
    where = _Where(asked, rpc_url, block_hash, offline=offline, quiet=as_json)
    disclosure = read_disclosure(read_json(file))
    if answer is not None:
        disclosure = _with_answer(disclosure, read_token(answer, "answer"))
    judged = judge(disclosure, where.facts(disclosure, keys), keys, domain=asked.domain)
    show(as_json, disclosure_json(judged), disclosure_text(judged))
    _end(judged.verdict)


def receipt(
    *,
    file: Annotated[Path, typer.Argument(help="The receipt, or an answer in JSON that has it.")],
    custodian_key: Annotated[str, typer.Option(help=_KEY_HELP)],
    rpc_url: RpcUrls = None,
    contract: Contract = None,
    chain_id: ChainId = DEVNET_CHAIN_ID,
    block: At = None,
    tag: Tag = "latest",
    from_block: FromBlock = 0,
    headers: Headers = "all",
    offline: Offline = False,
    block_hash: BlockHashes = None,
    bundle: Annotated[Path | None, typer.Option(help="The proof bundle of an access, as the service gives it.")] = None,
    answer: Annotated[
        Path | None, typer.Option(help="What the institution was answered: the JWT inside the sealed answer.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a receipt of an access, a grant, a revocation or an erasure, as whoever holds it can."""
    token = read_token(file, "receipt", "proof")
    asked = asked_of(contract, chain_id, block, tag, from_block, headers)
    where = _Where(asked, rpc_url, block_hash, offline=offline, quiet=as_json)
    keys = [key for key in signing_keys(custodian_key) if isinstance(key, ECKey)]
    kid = kid_of(token)
    # A key that comes alone may go by another name, or by none: it is the one that is meant.
    named = [_called(kid, keys[0])] if len(keys) == 1 else [key for key in keys if key.kid == kid]
    if not named:
        raise MalformedError("custodian-key: expected the key that the receipt names", field="custodian-key")
    ring = Keyring(custodian=tuple(named))
    judged = judge_receipt(
        token,
        named[0],
        lambda disclosure, watch: where.facts(disclosure, ring, watch),
        domain=asked.domain,
        bundle=None if bundle is None else read_json(bundle),
        answer=None if answer is None else read_token(answer, "answer"),
    )
    show(as_json, disclosure_json(judged), disclosure_text(judged))
    _end(judged.verdict)


def subject(
    *,
    export: Annotated[Path | None, typer.Argument(help="Your export, as the portal gives it.")] = None,
    address: Annotated[
        list[str] | None, typer.Option(help="An account that you gave consents with; those in the export are known.")
    ] = None,
    rpc_url: RpcUrls = None,
    contract: Contract = None,
    chain_id: ChainId = DEVNET_CHAIN_ID,
    block: At = None,
    tag: Tag = "latest",
    from_block: FromBlock = 0,
    headers: Headers = "all",
    as_json: Json = False,
) -> None:
    """List every access under a person's consents from the chain alone, and compare it with what they were told."""
    if export is None and not address:
        raise MalformedError("subject: expected an export, or an --address", field="subject")
    told = None if export is None else read_export(read_json(export))
    consents = told.consents if told else ()
    accounts = {one.grant.subject for one in consents} | {parse_address(one, "address") for one in address or ()}
    asked = replace(asked_of(contract, chain_id, block, tag, from_block, headers), watch_subjects=frozenset(accounts))
    where = _Where(asked, rpc_url, None, offline=False, quiet=as_json)
    disclosure = Disclosure(domain=asked.domain, custodian_keys=(), institution_keys={}, consents=consents, entries=())
    watch = frozenset(one.entry.consent_id for one in told.accesses) if told else frozenset()
    judged = judge_subject(told, where.facts(disclosure, Keyring(), watch), domain=asked.domain)
    show(as_json, subject_json(judged), subject_text(judged))
    _end(judged.verdict)


def add_to(app: typer.Typer) -> None:
    """Add these verbs to the auditor's."""
    for verb in (entry, receipt, subject):
        app.command(verb.__name__)(verb)


# -------------------------------------------------------------------------------------------------------------- inside


def _by_institution(named: Sequence[str]) -> dict[str, tuple[JWK, ...]]:
    """Keys by the institution that gave them: of one that was named more than once all of them, old and new."""
    found: dict[str, tuple[JWK, ...]] = {}
    for text in named:
        party_id, separator, source = text.rpartition("=")
        if not separator or not party_id:
            raise MalformedError("institution-key: expected ID=FILE", field="institution-key")
        found[party_id] = found.get(party_id, ()) + signing_keys(source)
    return found


def _called(kid: str, key: ECKey) -> ECKey:
    return ECKey.import_key(public_jwk(key) | {"kid": kid})


def _with_answer(disclosure: Disclosure, token: str) -> Disclosure:
    release_id = _release_of(token)
    if release_id not in {one.entry.release_id for one in disclosure.entries}:
        raise MalformedError("answer: it is of a release that is not in the disclosure", field="answer")
    entries = tuple(
        replace(one, answer=token) if one.entry.release_id == release_id else one for one in disclosure.entries
    )
    return replace(disclosure, entries=entries)


def _release_of(answer: str) -> str | None:
    """The release that an answer says it is of, unchecked: to find the entry that it belongs to."""
    try:
        claims = json.loads(base64.urlsafe_b64decode(answer.split(".")[1] + "=="))
    except (ValueError, IndexError, RecursionError):
        return None
    found = claims.get("jti") if isinstance(claims, dict) else None
    return found if isinstance(found, str) else None


def _end(verdict: Verdict) -> NoReturn:
    raise SystemExit(EXIT_CODES[verdict])
