"""What an institution asked for by a request that was kept as evidence, read from what it signed. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from ledger.consent import AccessRequest, parse_hex32
from ledger.errors import AuditError, MalformedError
from ledger.exchange import RELEASE_PATH, release_request
from ledger.signatures import SignedRequest

_BATCH_PATH: Final = re.compile(r"[^?#]*/v1/batch/releases")
_UNREADABLE: Final = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


def accesses_asked_by(evidence: SignedRequest, institution: str) -> list[AccessRequest]:
    """What kept evidence asks for, by what its signature covers: one release, or the sound items of a batch.

    Whether it is signed is for `verify_evidence` to say. Raises `AuditError` if it asks for no release, or if the
    signature does not cover what it asks for.
    """
    try:
        covered = dict(line.split(": ", 1) for line in evidence.base.decode().split("\n"))
        method, url, body = covered['"@method"'], covered['"@target-uri"'], json.loads(evidence.body)
        single = RELEASE_PATH.fullmatch(url)
        if '"content-digest"' not in covered or method != "POST" or not (single or _BATCH_PATH.fullmatch(url)):
            raise AuditError("the institution's request is none for a release, or its signature does not cover it")
        items = [{**body, "consent": single[1]}] if single else list(body["releases"])
        return [asked for item in items for asked in _asked_by(evidence, institution, item)]
    except _UNREADABLE as exc:
        raise AuditError("the institution's request is none for a release") from exc


def _asked_by(evidence: SignedRequest, institution: str, item: Mapping[str, Any]) -> list[AccessRequest]:
    fields = {name: item.get(name) for name in ("purpose", "attributes")}
    try:
        consent_id = parse_hex32(item.get("consent"), "consent")
        return [release_request(evidence, institution, consent_id=consent_id, idempotency_key="any", **fields).access]
    except MalformedError:
        # Refused at the door, with no entry.
        return []
