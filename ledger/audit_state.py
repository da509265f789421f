"""What an auditor keeps from one audit to the next: the books as they were proven, and of which block. Pure.

The file is a line, an HMAC-SHA256 under the auditor's own key over all that follows, the length of the first part, and
two parts: JSON about the audit, its report included, and the books (zlib over JSON), unpacked only if there is
news. An altered file is refused; books that were altered before that do not have the storage root that a block proves.
"""

from __future__ import annotations

import hmac
import json
import zlib
from dataclasses import asdict, dataclass
from typing import Any, Final

from ledger.audit_report import Finding
from ledger.books import Books, Consent, WriterLog
from ledger.consent import Address, Domain, Hex32, State
from ledger.errors import AuditError

MAGIC: Final = b"consent-ledger audit state 4\n"
MAX_BYTES: Final = 2**31
_DIGEST_BYTES: Final = 32
_LENGTH_BYTES: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditState:
    """The books at a block, packed, and the report on them as JSON.

    `linked`: every header up to the block was read. `sources`: the code hash that was recompiled. `storage_root`: what
    the block proves and the books have.
    """

    domain: Domain
    block_number: int
    block_hash: Hex32
    storage_root: Hex32
    linked: bool
    sources: str | None
    blocks: int
    findings: tuple[Finding, ...]
    finding_counts: dict[str, int]
    report: dict[str, Any]
    packed_books: bytes

    def books(self) -> Books:
        """The books, unpacked: a copy of their own for everyone who asks."""
        return _unpacked(self.packed_books)


def sealed(state: AuditState, key: bytes) -> bytes:
    """The state as a file's content."""
    about = {
        "chainId": state.domain.chain_id,
        "contract": state.domain.contract,
        "blockNumber": state.block_number,
        "blockHash": state.block_hash,
        "storageRoot": state.storage_root,
        "linked": state.linked,
        "sources": state.sources,
        "blocks": state.blocks,
        "findings": [asdict(finding) for finding in state.findings],
        "findingCounts": state.finding_counts,
        "report": state.report,
    }
    first = json.dumps(about, separators=(",", ":")).encode()
    rest = len(first).to_bytes(_LENGTH_BYTES) + first + state.packed_books
    return MAGIC + hmac.digest(key, MAGIC + rest, "sha256") + rest


def opened(data: bytes, key: bytes) -> AuditState:
    """The inverse of `sealed`. Raises `AuditError` if it is not this auditor's, or was altered."""
    start = len(MAGIC) + _DIGEST_BYTES
    digest, rest = data[len(MAGIC) : start], data[start:]
    if not data.startswith(MAGIC) or not hmac.compare_digest(digest, hmac.digest(key, MAGIC + rest, "sha256")):
        raise AuditError("the audit's state was altered, or is another auditor's: remove it to start anew")
    end = _LENGTH_BYTES + int.from_bytes(rest[:_LENGTH_BYTES])
    about: dict[str, Any] = json.loads(rest[_LENGTH_BYTES:end])
    return AuditState(
        domain=Domain(chain_id=about["chainId"], contract=Address(about["contract"])),
        block_number=about["blockNumber"],
        block_hash=Hex32(about["blockHash"]),
        storage_root=Hex32(about["storageRoot"]),
        linked=about["linked"],
        sources=about["sources"],
        blocks=about["blocks"],
        findings=tuple(Finding(**finding) for finding in about["findings"]),
        finding_counts=about["findingCounts"],
        report=about["report"],
        packed_books=rest[end:],
    )


def packed(books: Books) -> bytes:
    """Books as a state holds them."""
    content = {
        "consents": [[one.hex(), *map(_plain, consent.values())] for one, consent in books.consents.items()],
        "numbers": [[one.hex(), number] for one, number in books.numbers.items()],
        "logs": [[one.hex(), two.hex(), *map(_plain, log.values())] for (one, two), log in books.logs.items()],
        "days": [[day, *counts] for day, counts in books.days.items() if any(counts)],
        "reasons": list(books.reasons.items()),
        "batches": books.batches,
        "afterRevocation": books.after_revocation,
        "embargoes": [[order.hex(), *rest] for order, *rest in books.embargoes],
    }
    return zlib.compress(json.dumps(content, separators=(",", ":")).encode(), 1)


def _unpacked(packed_books: bytes) -> Books:
    content: dict[str, Any] = json.loads(zlib.decompressobj().decompress(packed_books, MAX_BYTES))
    books = Books()
    books.consents = {bytes.fromhex(one): _consent(values) for one, *values in content["consents"]}
    books.numbers = {bytes.fromhex(one): number for one, number in content["numbers"]}
    books.logs = {
        (bytes.fromhex(one), bytes.fromhex(two)): WriterLog(*_raw(values)) for one, two, *values in content["logs"]
    }
    books.days.update({day: counts for day, *counts in content["days"]})
    books.reasons.update(dict(content["reasons"]))
    books.batches, books.after_revocation = content["batches"], content["afterRevocation"]
    books.embargoes = [(bytes.fromhex(order), *rest) for order, *rest in content["embargoes"]]
    return books


def _plain(value: object) -> object:
    return value.hex() if isinstance(value, bytes) else value


def _consent(values: list[Any]) -> Consent:
    consent = Consent(*_raw(values))
    consent.state = State(consent.state)
    return consent


def _raw(values: list[Any]) -> list[Any]:
    return [bytes.fromhex(value) if isinstance(value, str) else value for value in values]
