"""What an auditor keeps from one audit to the next: the books as they were proven, and of which block. Pure.

The file is zlib over JSON behind its HMAC-SHA256 under the auditor's own key, so that an altered file is refused. Apart
from that, books that were altered do not have the storage root which the next block proves.
"""

from __future__ import annotations

import hmac
import json
import zlib
from dataclasses import asdict, dataclass
from typing import Any, Final

from ledger.audit_report import Finding
from ledger.books import Books, Consent, WriterLog
from ledger.consent import Address, Domain, Hex32
from ledger.errors import AuditError

MAGIC: Final = b"consent-ledger audit state 1\n"
MAX_BYTES: Final = 2**31
_DIGEST_BYTES: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditState:
    """The books at a block. `linked`: every header up to it was read. `sources`: the code hash that was recompiled."""

    domain: Domain
    first_block: int
    block_number: int
    block_hash: Hex32
    linked: bool
    sources: str | None
    blocks: int
    books: Books
    findings: tuple[Finding, ...]
    finding_counts: dict[str, int]


def sealed(state: AuditState, key: bytes) -> bytes:
    """The state as a file's content."""
    books = state.books
    content = {
        "chainId": state.domain.chain_id,
        "contract": state.domain.contract,
        "firstBlock": state.first_block,
        "blockNumber": state.block_number,
        "blockHash": state.block_hash,
        "linked": state.linked,
        "sources": state.sources,
        "blocks": state.blocks,
        "consents": [[one.hex(), *map(_plain, consent.values())] for one, consent in books.consents.items()],
        "numbers": [[one.hex(), number] for one, number in books.numbers.items()],
        "logs": [[one.hex(), two.hex(), *map(_plain, log.values())] for (one, two), log in books.logs.items()],
        "days": [[day, *counts] for day, counts in books.days.items() if any(counts)],
        "reasons": list(books.reasons.items()),
        "batches": books.batches,
        "afterRevocation": books.after_revocation,
        "embargoes": [[order.hex(), *rest] for order, *rest in books.embargoes],
        "findings": [asdict(finding) for finding in state.findings],
        "findingCounts": state.finding_counts,
    }
    packed = zlib.compress(json.dumps(content, separators=(",", ":")).encode(), 1)
    return MAGIC + hmac.digest(key, MAGIC + packed, "sha256") + packed


def opened(data: bytes, key: bytes) -> AuditState:
    """The inverse of `sealed`. Raises `AuditError` if it is not this auditor's, or was altered."""
    digest, packed = data[len(MAGIC) : len(MAGIC) + _DIGEST_BYTES], data[len(MAGIC) + _DIGEST_BYTES :]
    if not data.startswith(MAGIC) or not hmac.compare_digest(digest, hmac.digest(key, MAGIC + packed, "sha256")):
        raise AuditError("the audit's state was altered, or is another auditor's: remove it to start anew")
    content: dict[str, Any] = json.loads(zlib.decompressobj().decompress(packed, MAX_BYTES))
    books = Books()
    books.consents = {bytes.fromhex(one): Consent(*map(_raw, values)) for one, *values in content["consents"]}
    books.numbers = {bytes.fromhex(one): number for one, number in content["numbers"]}
    books.logs = {
        (bytes.fromhex(one), bytes.fromhex(two)): WriterLog(*map(_raw, values)) for one, two, *values in content["logs"]
    }
    books.days.update({day: counts for day, *counts in content["days"]})
    books.reasons.update(dict(content["reasons"]))
    books.batches, books.after_revocation = content["batches"], content["afterRevocation"]
    books.embargoes = [(bytes.fromhex(order), *rest) for order, *rest in content["embargoes"]]
    return AuditState(
        domain=Domain(chain_id=content["chainId"], contract=Address(content["contract"])),
        first_block=content["firstBlock"],
        block_number=content["blockNumber"],
        block_hash=Hex32(content["blockHash"]),
        linked=content["linked"],
        sources=content["sources"],
        blocks=content["blocks"],
        books=books,
        findings=tuple(Finding(**finding) for finding in content["findings"]),
        finding_counts=content["findingCounts"],
    )


def _plain(value: object) -> object:
    return value.hex() if isinstance(value, bytes) else value


def _raw(value: object) -> object:
    return bytes.fromhex(value) if isinstance(value, str) else value
