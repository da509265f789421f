"""Grants: how a consent comes to stand, and how it ends. The subject's signature decides; this only carries it.

grant    (1) rebuild exactly what was signed  (2) check form, ceilings, parties, signer  (3) opening and act durable
         (4) relay  (5) it stands; the consent it replaces is revoked by the custodian, whose right is to narrow
revoke   (1) check the signer  (2) act durable, effective in this service from here on  (3) relay, on a lane of its own
pause    as revoke; a resume is effective only when the chain has it

A revocation is never refused for anything but its signature. Whatever the chain does, what is durable is relayed in
the end: here, by the same call again, or by `sync`.
"""

from __future__ import annotations

import json
import secrets
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from joserfc.jwk import ECKey
from sqlalchemy import Connection

from ledger.chain import Chain, Receipt
from ledger.consent import MAX_COUNT, ZERO32, Address, ConsentGrant, Domain, Hex32, Terms, check_form, hex32_of
from ledger.contract import decode_call, grant_call, pause_call, revoke_as_custodian_call, revoke_call
from ledger.errors import (
    CeilingExceededError,
    ConsentAlreadyGrantedError,
    ConsentAlreadyRevokedError,
    ConsentNotGrantedError,
    EmptyBatchError,
    ForeignGrantError,
    InstitutionSuspendedError,
    InvalidSignatureError,
    InvalidWindowError,
    LedgerError,
    MalformedError,
    MixedSubjectsError,
    NotCustodianError,
    NotFoundError,
    StalePauseSequenceError,
)
from ledger.journal import ANCHORED, FAILED, Journal
from ledger.json_forms import DAY_SECONDS
from ledger.notices import Notices
from ledger.outbox import BY_CUSTODIAN, BY_SUBJECT
from ledger.purposes import check_ceilings
from ledger.receipts import grant_receipt, revocation_receipt
from ledger.registry import Registry, StoredConsent
from ledger.relay import UNKNOWN, Relay, gas_for
from ledger.store import Store
from ledger.typed_data import (
    consent_id_of,
    digest_of,
    outer_of,
    pause_typed_data,
    require_signer,
    revocation_typed_data,
)

START_WITHIN_DAYS: Final = 31
MOST_AT_ONCE: Final = 400
"""Consents that one transaction can revoke: with `relay.py`'s gas for each, no transaction may have more (EIP-7825)."""


AFTER_SIGNATURE: Final = (
    ConsentAlreadyGrantedError,
    ConsentAlreadyRevokedError,
    ConsentNotGrantedError,
    StalePauseSequenceError,
)
"""What the contract says only once it has taken the signature."""


def at_once(consent_ids: Sequence[Hex32]) -> list[Sequence[Hex32]]:
    """Consents of one account, in parts of which each can be revoked by one transaction."""
    return [consent_ids[start : start + MOST_AT_ONCE] for start in range(0, len(consent_ids), MOST_AT_ONCE)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lanes:
    """Which account sends what."""

    grants: Address
    revocations: Address
    custodian: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class ActResult:
    """An act that is on file; `receipt` is None while the chain has not confirmed it (`sync` goes on with it)."""

    consent_ids: tuple[Hex32, ...]
    stored_at: int
    receipt: Receipt | None


class Grants:
    """Grant, revoke, pause and resume."""

    def __init__(
        self,
        store: Store,
        journal: Journal,
        registry: Registry,
        relay: Relay,
        chain: Chain,
        notices: Notices,
        *,
        lanes: Lanes,
        signing_key: ECKey,
        clock: Callable[[], int],
        step: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._store, self._journal, self._registry = store, journal, registry
        self._relay, self._chain, self._notices, self._lanes = relay, chain, notices, lanes
        self._signing_key, self._clock, self._step = signing_key, clock, step

    @property
    def domain(self) -> Domain:
        """Where what people sign is valid."""
        return self._chain.domain

    def prepare(
        self,
        *,
        institution_id: str,
        subject: Address,
        purpose: str,
        attributes: Sequence[str],
        valid_from: int,
        expires_at: int,
        max_accesses: int,
        accesses_per_day: int,
        retention_days: int,
        notice_hash: Hex32,
        replaces: Hex32 = ZERO32,
        subject_id: str | None = None,
    ) -> ConsentGrant:
        """What the subject will be shown and asked to sign, with a fresh salt. Raises as `grant` would.

        What may be replaced is asked for only if it is known who the subject is (`subject_id`).
        """
        institution = self._registry.institution(institution_id)
        grant = ConsentGrant(
            terms=Terms(
                institution=institution_id,
                institution_name=institution.name,
                purpose=purpose,
                attributes=tuple(attributes),
                accesses_per_day=accesses_per_day,
                retention_days=retention_days,
                notice_hash=notice_hash,
                replaces=replaces,
                salt=hex32_of(secrets.token_bytes(32)),
            ),
            subject=subject,
            custodian=self._lanes.custodian,
            valid_from=valid_from,
            expires_at=expires_at,
            max_accesses=max_accesses,
        )
        self._check_content(grant)
        if subject_id is not None:
            self._check_replaced(grant, subject_id)
        return grant

    def id_of(self, grant: ConsentGrant) -> Hex32:
        """The id of the consent that this grant makes. Raises as `check_form`: what does not fit its type has none."""
        check_form(grant)
        return consent_id_of(grant, self._chain.domain)

    def grant(
        self,
        grant: ConsentGrant,
        signature: bytes,
        subject_id: str,
        *,
        within: Callable[[Connection], None] = lambda _: None,
    ) -> StoredConsent:
        """Bring a signed grant on chain. The same call again goes on where an earlier one was cut off.

        `within` runs first in the transaction in which the grant goes on file: what it raises keeps the grant off file.

        Raises `RequestError`s naming the field, `InvalidSignatureError`, `ConsentAlreadyGrantedError`,
        `ConsentAlreadyRevokedError`, `relay.UNKNOWN` (then it may be on file, and is relayed later).
        """
        # (1)
        consent_id = self.id_of(grant)
        known = self._registry.find_consent(consent_id)
        if known is not None:
            return self._go_on(known)
        # (2)
        self._check_content(grant)
        self._check_replaced(grant, subject_id)
        calldata = grant_call(outer_of(grant), signature)
        self._require_subject(consent_id, signature, grant.subject, calldata)
        # (3)
        now = self._clock()
        with self._store.begin() as tx:
            within(tx)
            self._notices.keep(tx, grant.terms.notice_hash)
            self._registry.add_consent(tx, consent_id, grant, signature, subject_id, at=now)
            act_id = self._journal.add_act(
                tx, kind="grant", consent_ids=[consent_id], lane=self._lanes.grants, calldata=calldata, at=now
            )
        self._step("grant durable")
        # (4) and (5)
        self._relay_grant(act_id, consent_id, grant)
        return self._registry.consent(consent_id)

    def revoke(self, consent_ids: Sequence[Hex32], signature: bytes) -> ActResult:
        """Revoke consents of one subject by its signature. Effective here at once, whatever the chain does.

        Raises `NotFoundError`, `MixedSubjectsError`, `InvalidSignatureError`.
        """
        (result,) = self.revoke_each([(consent_ids, signature)])
        if isinstance(result, LedgerError):
            raise result
        return result

    def revoke_each(self, signed: Sequence[tuple[Sequence[Hex32], bytes]]) -> list[ActResult | LedgerError]:
        """As `revoke`, for several accounts: all of them are in force here before any is sent.

        What one of them is refused for stands in its place, and keeps no other one waiting.
        """
        # (1)
        calls = [self._revocation(consent_ids, signature) for consent_ids, signature in signed]
        good = [
            (consent_ids, call) for (consent_ids, _), call in zip(signed, calls, strict=True) if isinstance(call, bytes)
        ]
        # (2)
        now = self._clock()
        with self._store.begin() as tx:
            act_ids = [
                self._narrow(tx, "revoke", consent_ids, self._lanes.revocations, calldata, at=now, by=BY_SUBJECT)
                for consent_ids, calldata in good
            ]
        self._step("revocation durable")
        # (3)
        results = iter(self._relayed([consent_ids for consent_ids, _ in good], act_ids, at=now))
        return [next(results) if isinstance(call, bytes) else call for call in calls]

    def revoke_as_custodian(
        self, consent_ids: Sequence[Hex32], *, by: str = BY_CUSTODIAN, replaced_by: Hex32 | None = None
    ) -> tuple[ActResult, ...]:
        """Narrow without the subject: lost keys, erasure, replaced consents; `by`: at whose wish.

        All of them at once here. On chain an act for each account of the person: in one transaction they would tell
        everyone that these accounts are one person's. Raises `NotFoundError`.
        """
        accounts: defaultdict[Address, list[Hex32]] = defaultdict(list)
        for consent_id in consent_ids:
            accounts[self._registry.consent(consent_id).grant.subject].append(consent_id)
        chunks = [chunk for mine in accounts.values() for chunk in at_once(mine)]
        now = self._clock()
        with self._store.begin() as tx:
            act_ids = [
                self._narrow(
                    tx,
                    "custodian-revoke",
                    chunk,
                    self._lanes.custodian,
                    revoke_as_custodian_call(chunk),
                    at=now,
                    by=by,
                    replaced_by=replaced_by,
                )
                for chunk in chunks
            ]
        self._step("revocation durable")
        return self._relayed(chunks, act_ids, at=now)

    def revoke_instead(self, tx: Connection, consent_ids: Sequence[Hex32]) -> str:
        """Of a revocation that the contract refused (a smart account says otherwise by now): the custodian's own.

        The person's wish is on file and in force here, so whoever may narrow carries it to the chain. Returns the act,
        for the caller to relay.
        """
        calldata = revoke_as_custodian_call(consent_ids)
        return self._narrow(
            tx, "custodian-revoke", consent_ids, self._lanes.custodian, calldata, at=self._clock(), by=BY_SUBJECT
        )

    def next_pause(self, consent_id: Hex32) -> int:
        """The sequence that the next pause or resume is to be signed with.

        Raises `NotFoundError`, `StalePauseSequenceError` if there can be none.
        """
        with self._store.read() as tx:
            return self._next_pause(tx, consent_id)

    def set_paused(self, consent_id: Hex32, *, paused: bool, sequence: int, signature: bytes) -> ActResult:
        """Pause or resume by the subject's signature. A pause is effective here at once, a resume once on chain.

        Raises `NotFoundError`, `ConsentAlreadyRevokedError`, `StalePauseSequenceError`, `InvalidSignatureError`.
        """
        # (1)
        consent = self._registry.consent(consent_id)
        if consent.revoked_at is not None:
            raise ConsentAlreadyRevokedError("consent: revoked, which is for ever", field="consent")
        calldata = pause_call(outer_of(consent.grant), paused=paused, sequence=sequence, signature=signature)
        payload = pause_typed_data(consent_id, paused=paused, sequence=sequence, domain=self._chain.domain)
        self._require_subject(digest_of(payload), signature, consent.grant.subject, calldata)
        # (2)
        now = self._clock()
        with self._store.begin() as tx:
            # In this transaction: two of the same sequence would not both be taken by the contract.
            expected = self._next_pause(tx, consent_id)
            if sequence < expected:
                raise StalePauseSequenceError(
                    f"sequence: expected at least {expected}, got {sequence}", field="sequence"
                )
            act_id = self._journal.add_act(
                tx, kind="pause", consent_ids=[consent_id], lane=self._lanes.revocations, calldata=calldata, at=now
            )
            if paused:
                self._registry.mark_paused(tx, consent_id, paused=True, sequence=sequence, at=now, by=BY_SUBJECT)
        # (3)
        receipt = self._try_relay(act_id)
        if receipt is not None and not paused:
            with self._store.begin() as tx:
                self._registry.mark_paused(
                    tx, consent_id, paused=False, sequence=sequence, at=self._clock(), by=BY_SUBJECT
                )
        return ActResult(consent_ids=(consent_id,), stored_at=now, receipt=receipt)

    def receipt(self, consent_id: Hex32) -> str:
        """A receipt of a grant: what was signed and where it stands, signed by the custodian (`receipts.py`).

        Raises `NotFoundError`, `ErasedError`.
        """
        consent = self._registry.consent(consent_id)
        act = self._journal.grant_act(consent_id)
        return grant_receipt(
            consent_id,
            consent.grant,
            consent.signature,
            self._chain.domain,
            self._signing_key,
            at=self._clock(),
            transaction_hash=act.transaction_hash if act else None,
            standing=consent.standing,
            revoked_at=consent.revoked_at,
        )

    def revocation_receipt(self, consent_id: Hex32) -> str:
        """A receipt of the revocation of a consent: at whose wish, since when, and where on chain.

        Raises `NotFoundError` (also if it is not revoked), `ErasedError`.
        """
        consent = self._registry.consent(consent_id)
        if consent.revoked_at is None:
            raise NotFoundError("consent: not revoked", field="consent")
        acts = [row for row in self._journal.acts_about(consent_id) if row.kind in ("revoke", "custodian-revoke")]
        # The oldest that the chain took or may take is the one that ended it; none is on file if the subject went to
        # the chain directly.
        ended = [row for row in acts if row.state != FAILED] or acts
        act = ended[-1] if ended else None
        signature: bytes | None = None
        if act is not None and act.kind == "revoke":
            _, (_, signature) = decode_call(act.calldata)
        return revocation_receipt(
            json.loads(act.consent_ids) if act else [consent_id],
            consent.grant.subject,
            signature,
            self._chain.domain,
            self._signing_key,
            custodian=self._lanes.custodian,
            at=self._clock(),
            by=self._registry.revoked_by(consent_id) or BY_CUSTODIAN,
            stored_at=consent.revoked_at,
            transaction_hash=act.transaction_hash if act else None,
            block_number=act.block_number if act and act.state == ANCHORED else None,
            block_hash=act.block_hash if act and act.state == ANCHORED else None,
        )

    # --------------------------------------------------------------------------------------------------------- checks

    def _check_content(self, grant: ConsentGrant) -> None:
        check_form(grant)
        if grant.custodian != self._lanes.custodian:
            raise ForeignGrantError("custodian: the grant names another custodian", field="custodian")
        now = self._clock()
        if grant.expires_at <= now:
            raise InvalidWindowError("expiresAt: expected in the future", field="expiresAt")
        if grant.valid_from > now + START_WITHIN_DAYS * DAY_SECONDS:
            # Otherwise a consent could be kept in store for years, whatever its purpose allows.
            raise CeilingExceededError(
                f"validFrom: expected within {START_WITHIN_DAYS} days of now ({now}), got {grant.valid_from}",
                field="validFrom",
            )
        institution = self._registry.institution(grant.terms.institution)
        if institution.suspended:
            raise InstitutionSuspendedError("terms.institution: suspended", field="terms.institution")
        if grant.terms.institution_name != institution.name:
            raise ForeignGrantError(
                "terms.institutionName: expected the name the institution is registered under",
                field="terms.institutionName",
            )
        check_ceilings(
            purpose_code=grant.terms.purpose,
            attributes=grant.terms.attributes,
            valid_from=grant.valid_from,
            expires_at=grant.expires_at,
            max_accesses=grant.max_accesses,
            accesses_per_day=grant.terms.accesses_per_day,
            retention_days=grant.terms.retention_days,
        )

    def _check_replaced(self, grant: ConsentGrant, subject_id: str) -> None:
        if grant.terms.replaces == ZERO32:
            return
        replaced = self._registry.find_consent(grant.terms.replaces)
        same = (
            replaced is not None
            and replaced.subject_id == subject_id
            and replaced.grant.terms.institution == grant.terms.institution
        )
        if not same:
            raise NotFoundError(
                "terms.replaces: expected a consent of the same subject and institution", field="terms.replaces"
            )

    def _revocation(self, consent_ids: Sequence[Hex32], signature: bytes) -> bytes | LedgerError:
        """The call that revokes these, whose signer is the one who may; or what it is refused for."""
        try:
            consents = self._one_subjects(consent_ids)
            calldata = revoke_call([outer_of(consent.grant) for consent in consents], signature)
            digest = digest_of(revocation_typed_data(consent_ids, self._chain.domain))
            self._require_subject(digest, signature, consents[0].grant.subject, calldata, consents=len(consents))
        except LedgerError as exc:
            return exc
        return calldata

    def _require_subject(
        self, digest: Hex32, signature: bytes, subject: Address, calldata: bytes, *, consents: int = 1
    ) -> None:
        try:
            require_signer(digest, signature, subject)
        except InvalidSignatureError as refused:
            # A smart account (ERC-1271) can only be asked on chain: the contract's own check decides.
            if len(signature) == 0 or not self._chain.is_contract(subject):
                raise
            try:
                self._chain.simulate(self._lanes.grants, calldata, gas=gas_for(consents))
            except InvalidSignatureError:
                raise refused from None
            except AFTER_SIGNATURE:
                # Then it was good. What becomes of the act is found out on its way, as where a key signed.
                return

    def _next_pause(self, tx: Connection, consent_id: Hex32) -> int:
        """More than any that the chain has taken or may still take: one that is on its way comes first there."""
        row = self._registry.rows(tx, [consent_id]).get(consent_id)
        if row is None:
            raise NotFoundError("consent: no such consent", field="consent")
        pending = [int(decode_call(calldata)[1][2]) for calldata in self._journal.pending_pauses(tx, consent_id)]
        newest = max(int(row.pause_sequence), *pending, 0)
        if newest >= MAX_COUNT:
            # The subject chose it, on chain and for good.
            raise StalePauseSequenceError("sequence: the highest there is was used, so it stays as it is or is revoked")
        return newest + 1

    def _one_subjects(self, consent_ids: Sequence[Hex32]) -> list[StoredConsent]:
        if not consent_ids:
            raise EmptyBatchError("consents: expected at least one", field="consents")
        if len(consent_ids) > MOST_AT_ONCE:
            raise MalformedError(f"consents: expected at most {MOST_AT_ONCE} in one signature", field="consents")
        consents = [self._registry.consent(consent_id) for consent_id in consent_ids]
        if len({consent.grant.subject for consent in consents}) > 1:
            raise MixedSubjectsError("consents: expected all of one subject", field="consents")
        return consents

    # ---------------------------------------------------------------------------------------------------------- relay

    def _go_on(self, known: StoredConsent) -> StoredConsent:
        """The grant is on file: finish it if it was cut off, otherwise say what stands."""
        if known.revoked_at is not None:
            raise ConsentAlreadyRevokedError("consent: revoked, which is for ever", field="consent")
        act = self._journal.grant_act(known.consent_id)
        if known.standing or act is None or act.state == FAILED:
            raise ConsentAlreadyGrantedError("consent: this very grant stands already", field="consent")
        self._relay_grant(act.act_id, known.consent_id, known.grant)
        return self._registry.consent(known.consent_id)

    def _relay_grant(self, act_id: str, consent_id: Hex32, grant: ConsentGrant) -> None:
        try:
            self._relay.relay(act_id)
        except UNKNOWN:
            # On file, not standing, relayed again by the next call or by `sync`.
            raise
        except LedgerError:
            with self._store.begin() as tx:
                if self._journal.fail_act(tx, act_id):
                    self._registry.withdraw(tx, consent_id)
            raise
        self._stand(consent_id, grant)

    def stand(self, consent_id: Hex32) -> None:
        """`sync` found a grant on chain that does not stand yet: finish what `grant` would have done."""
        self._stand(consent_id, self._registry.consent(consent_id).grant)

    def _stand(self, consent_id: Hex32, grant: ConsentGrant) -> None:
        # In this order: killed in between, the new one does not stand yet, and `sync` does both again.
        replaced = self._registry.find_consent(grant.terms.replaces)
        # It is not on file any more if its own grant was refused: nothing is there to be revoked.
        if replaced is not None and replaced.revoked_at is None:
            self.revoke_as_custodian([replaced.consent_id], replaced_by=consent_id)
        self._registry.set_standing(consent_id, at=self._clock())

    def _narrow(
        self,
        tx: Connection,
        kind: str,
        consent_ids: Sequence[Hex32],
        lane: Address,
        calldata: bytes,
        *,
        at: int,
        by: str,
        replaced_by: Hex32 | None = None,
    ) -> str:
        """Revoked from here on, whatever the chain does. Returns the act that says so there."""
        act_id = self._journal.add_act(tx, kind=kind, consent_ids=consent_ids, lane=lane, calldata=calldata, at=at)
        self._registry.mark_revoked(tx, consent_ids, at=at, by=by, replaced_by=replaced_by)
        return act_id

    def _relayed(self, parts: Sequence[Sequence[Hex32]], act_ids: Sequence[str], *, at: int) -> tuple[ActResult, ...]:
        results: list[ActResult] = []
        gets_through = True
        for part, act_id in zip(parts, act_ids, strict=True):
            receipt = None
            # One that does not get through would keep the others waiting as long again: `sync` goes on with them.
            if gets_through:
                # One that the contract refuses after all is in force here, and is `sync`'s as well.
                with suppress(LedgerError):
                    receipt = self._try_relay(act_id)
                    gets_through = receipt is not None
            results.append(ActResult(consent_ids=tuple(part), stored_at=at, receipt=receipt))
        return tuple(results)

    def _try_relay(self, act_id: str) -> Receipt | None:
        """Narrowing is on file and in force whatever happens now, so an unreachable chain is no failure.

        Nor is a busy lane, nor a grant that is still on its way (the contract then knows neither it nor its custodian).
        """
        try:
            return self._relay.relay(act_id)
        except (*UNKNOWN, NotCustodianError, ConsentNotGrantedError):
            return None
