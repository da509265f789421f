"""Unsealing: what a lender does with a release that came to it. It is opened, and believed only if everything agrees.

(1) The answer opens with one of the lender's keys, and the custodian signed it, to this lender.
(2) The custodian signed the receipt, which opens an entry of the log: of this release, and this lender.
(3) Answer and receipt say the same, and it is what was asked: consent, purpose, attributes.
(4) The entry is of a request that the lender sent.
(5) With a chain at hand, the entry stands on it where the receipt says, recorded while the consent was in force.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ledger.access import AccessEntry
from ledger.answers import SealedRelease, Value, read
from ledger.chain import Chain
from ledger.channel import Custodian
from ledger.consent import Domain, Hex32
from ledger.errors import AuditError, MalformedError
from ledger.evidence import OpenedReceipt, ProvenAccess, VerifiedAccess, open_receipt, verify_bundle, verify_receipt
from ledger.exchange import key_for, open_answer
from ledger.signatures import JWK


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseAsk:
    """What to ask for under a consent. Without an idempotency key it gets a fresh one.

    `earlier` are the digests of requests that another process sent under the same key (its client's `sent`).
    """

    consent_id: Hex32
    purpose: str
    attributes: Sequence[str]
    idempotency_key: str | None = None
    earlier: Collection[Hex32] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """An answer that was opened and checked. `erase_by` is Unix seconds.

    `answer` (sealed) and `receipt` are the evidence. `request_hash` is the digest of the request that the log has.
    `verified` is the entry as it was found on chain; None if there was no chain to ask.
    """

    release_id: Hex32
    consent_id: Hex32
    values: Mapping[str, Value]
    erase_by: int
    answer: str
    receipt: str
    late: bool
    request_hash: Hex32
    verified: VerifiedAccess | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A receipt that was checked: against the chain if there is one, otherwise only that the custodian says so."""

    receipt: str
    entry: AccessEntry
    verified: VerifiedAccess | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """A bundle that holds; anchored if there was a chain to say the hash of its block."""

    bundle: Mapping[str, Any]
    proven: ProvenAccess


class Unsealing:
    """One lender's. `keys` are private JWKs, the newest first."""

    def __init__(
        self,
        institution_id: str,
        keys: Sequence[Mapping[str, Any]],
        *,
        custodian: Callable[[], Custodian],
        chain: Chain | None,
    ) -> None:
        self._institution_id, self._custodian, self._chain = institution_id, custodian, chain
        self._sealing_keys: list[JWK] = []
        self.add_keys(keys)

    def add_keys(self, keys: Sequence[Mapping[str, Any]]) -> None:
        """More keys; what was sealed to the ones before is still opened. Raises `MalformedError`."""
        new = [key_for({"keys": [one]}, "enc") for one in keys if one.get("use") == "enc"]
        if not new or not all(key.is_private for key in new):
            raise MalformedError("keys: expected a private key with use 'enc'", field="keys")
        for key in new:
            key.ensure_kid()
        self._sealing_keys = [*new, *self._sealing_keys]

    def release(self, sealed: SealedRelease, asked: ReleaseAsk | None, sent: Collection[Hex32] | None) -> Release:
        """What was released. `asked` and `sent` are None for what was asked in another process.

        Raises `AuditError` saying what does not hold, `ChainError`.
        """
        custodian = self._custodian()
        # (1)
        claims = open_answer(sealed.answer.encode(), self._sealing_key(sealed.answer), custodian.key)
        # (2)
        opened = open_receipt(sealed.receipt, custodian.key)
        entry, values = opened.entry, claims.get("values")
        self._require_mine(entry, sealed.id)
        # (3)
        self._require_same(sealed, claims, opened, custodian)
        if not isinstance(values, Mapping) or set(values) != set(entry.attributes):
            raise AuditError("the release does not hold: the answer has other attributes than the receipt")
        if asked is not None:
            content = (entry.consent_id, entry.purpose, entry.attributes)
            _require(content == (asked.consent_id, asked.purpose, tuple(asked.attributes)), "it is not what was asked")
        # (4)
        _require(sent is None or entry.request_hash in sent, "its entry is of a request that was not sent from here")
        return Release(
            release_id=sealed.id,
            consent_id=entry.consent_id,
            values={name: read(Value, value) for name, value in values.items()},
            erase_by=int(claims["eraseBy"]),
            answer=sealed.answer,
            receipt=sealed.receipt,
            late=sealed.late,
            request_hash=entry.request_hash,
            # (5)
            verified=self._verified(sealed.receipt),
        )

    def receipt(self, receipt: str, release_id: Hex32) -> Receipt:
        """A receipt of this release. Raises `AuditError`, `ChainError`."""
        entry = open_receipt(receipt, self._custodian().key).entry
        self._require_mine(entry, release_id)
        return Receipt(receipt=receipt, entry=entry, verified=self._verified(receipt))

    def proof(self, bundle: Mapping[str, Any], release_id: Hex32, domain: Domain) -> Proof:
        """A bundle of this release. Raises `AuditError`, `ChainError`."""
        proven = verify_bundle(bundle, self._custodian().key, domain=domain, block_hash=None)
        self._require_mine(proven.entry, release_id)
        if self._chain is not None:
            on_chain = self._chain.block_hash(proven.block_number)
            _require(on_chain == proven.block_hash, "its block is not on the chain")
            proven = replace(proven, anchored=True)
        return Proof(bundle=bundle, proven=proven)

    def _verified(self, receipt: str) -> VerifiedAccess | None:
        return None if self._chain is None else verify_receipt(receipt, self._chain, self._custodian().key)

    def _require_mine(self, entry: AccessEntry, release_id: Hex32) -> None:
        _require(entry.institution == self._institution_id, "it is another institution's")
        _require(entry.release_id == release_id, "it is another release")

    def _require_same(
        self, sealed: SealedRelease, claims: Mapping[str, Any], opened: OpenedReceipt, custodian: Custodian
    ) -> None:
        expected = {
            "iss": custodian.address,
            "aud": self._institution_id,
            "jti": sealed.id,
            "consent": opened.entry.consent_id,
            "purpose": opened.entry.purpose,
            "entryHash": opened.entry_hash,
        }
        for name, value in expected.items():
            _require(claims.get(name) == value, f"the answer's {name} is not the receipt's")
        _require(type(claims.get("eraseBy")) is int, "it does not say until when it may be kept")
        _require(sealed.consent == opened.entry.consent_id, "it is of another consent")
        _require(sealed.late == opened.late, "the receipt does not say that it is late")

    def _sealing_key(self, answer: str) -> JWK:
        """The key that an answer is sealed to, which may be one that was replaced since."""
        try:
            header = json.loads(base64.urlsafe_b64decode(answer.partition(".")[0] + "=="))
            kid = header["kid"]
        except (ValueError, KeyError, TypeError, RecursionError):
            kid = None
        for key in self._sealing_keys:
            if kid == key.kid:
                return key
        raise AuditError("the release does not hold: it is sealed to none of these keys")


def _require(holds: bool, otherwise: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not holds:
        raise AuditError(f"the release does not hold: {otherwise}")
