"""The rules of `IConsentLedger.sol`, a second time: a pure function from state and call to state and events."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

from eth_abi import encode
from eth_utils import keccak, to_checksum_address

from ledger.access import BatchKind, LoggedAccess, fold, fold_compelled
from ledger.consent import MAX_TIME, NO_ADDRESS, ZERO32, Address, ConsentState, Domain, Hex32, Reason, State, hex32_of
from ledger.contract import GRANT, LogState
from ledger.errors import SOLIDITY_TWINS, InvalidSignatureError, LedgerError
from ledger.typed_data import digest_of, pause_typed_data, require_signer, revocation_typed_data

Emitted = tuple[str, tuple[Any, ...]]
SmartAccount = Callable[[Hex32, bytes], bool]

DOMAIN_TYPE: Final = keccak(text="EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
GRANT_TYPE: Final = keccak(
    text="ConsentGrant(Terms terms,address subject,address custodian,uint64 validFrom,uint64 expiresAt,"
    "uint32 maxAccesses)Terms(string institution,string institutionName,string purpose,string[] attributes,"
    "uint32 accessesPerDay,uint32 retentionDays,bytes32 noticeHash,bytes32 replaces,bytes32 salt)"
)
LONGEST_EMBARGO: Final = 366 * 86_400
NO_LOG: Final = LogState(head=ZERO32, size=0, custodian_number=0, allowed=False)


@dataclass(slots=True)
class ContractState:
    """What the contract stores. Its values are immutable, so a copy of the maps is a snapshot."""

    consents: dict[Hex32, ConsentState] = field(default_factory=dict)
    numbers: dict[Address, int] = field(default_factory=dict)
    logs: dict[tuple[Address, Address], LogState] = field(default_factory=dict)

    def copy(self) -> ContractState:
        return ContractState(dict(self.consents), dict(self.numbers), dict(self.logs))


def consent_id_on_chain(grant: Sequence[Any], domain: Domain) -> Hex32:
    """`consentIdOf`: the digest around the hash of the terms, as the contract rebuilds it."""
    separator = keccak(
        encode(
            ("bytes32", "bytes32", "bytes32", "uint256", "address"),
            (DOMAIN_TYPE, keccak(text="ConsentLedger"), keccak(text="1"), domain.chain_id, domain.contract),
        )
    )
    struct = keccak(encode(("bytes32", *GRANT[1:-1].split(",")), (GRANT_TYPE, *grant)))
    return hex32_of(keccak(b"\x19\x01" + separator + struct))


class Call:
    """One call of one sender in one block. `run` changes the state and returns what was emitted, or raises."""

    def __init__(
        self,
        state: ContractState,
        domain: Domain,
        sender: Address,
        now: int,
        smart_accounts: Mapping[Address, SmartAccount],
    ) -> None:
        self._state, self._domain, self._sender, self._now = state, domain, sender, now
        self._smart_accounts = smart_accounts
        self._emitted: list[Emitted] = []

    def run(self, name: str, args: Sequence[Any]) -> list[Emitted]:
        functions: dict[str, Callable[..., None]] = {
            "grant": self._grant,
            "revoke": self._revoke,
            "setPaused": self._set_paused,
            "revokeAsCustodian": self._revoke_as_custodian,
            "setWriter": self._set_writer,
            "append": partial(self._append, BatchKind.ACCESSES),
            "appendRefusals": partial(self._append, BatchKind.REFUSALS),
            "appendLate": partial(self._append, BatchKind.LATE_ACCESSES),
            "appendCompelled": self._append_compelled,
        }
        functions[name](*args)
        return self._emitted

    # -------------------------------------------------------------------------------------------------------- consents

    def _grant(self, terms: Sequence[Any], signature: bytes) -> None:
        _, subject, custodian, valid_from, expires_at, max_accesses = terms
        if expires_at <= valid_from or expires_at > MAX_TIME:
            raise _revert("InvalidWindow")
        if max_accesses == 0:
            raise _revert("NoAccessAllowed")
        if _address(custodian) == NO_ADDRESS:
            raise _revert("CustodianMissing")
        consent_id = consent_id_on_chain(terms, self._domain)
        self._require_subject(subject, consent_id, signature)
        state = self._consent(consent_id).state
        if state is State.REVOKED:
            raise _revert("ConsentAlreadyRevoked")
        if state is not State.UNKNOWN:
            raise _revert("ConsentAlreadyGranted")
        self._state.consents[consent_id] = ConsentState(
            valid_from=valid_from,
            expires_at=expires_at,
            max_accesses=max_accesses,
            custodian_number=self._numbered(_address(custodian)),
            state=State.ACTIVE,
        )
        self._emit(
            "ConsentGranted", consent_id, _address(subject), _address(custodian), valid_from, expires_at, max_accesses
        )

    def _revoke(self, grants: Sequence[Sequence[Any]], signature: bytes) -> None:
        if not grants:
            raise _revert("EmptyBatch")
        subject = _address(grants[0][1])
        if any(_address(terms[1]) != subject for terms in grants):
            raise _revert("MixedSubjects")
        consent_ids = [consent_id_on_chain(terms, self._domain) for terms in grants]
        self._require_subject(subject, digest_of(revocation_typed_data(consent_ids, self._domain)), signature)
        for consent_id in consent_ids:
            self._end(consent_id, subject)

    def _set_paused(self, terms: Sequence[Any], paused: bool, sequence: int, signature: bytes) -> None:
        consent_id = consent_id_on_chain(terms, self._domain)
        payload = pause_typed_data(consent_id, paused=paused, sequence=sequence, domain=self._domain)
        self._require_subject(terms[1], digest_of(payload), signature)
        consent = self._consent(consent_id)
        if consent.state is State.UNKNOWN:
            raise _revert("ConsentNotGranted")
        if consent.state is State.REVOKED:
            raise _revert("ConsentAlreadyRevoked")
        if sequence <= consent.pause_sequence:
            raise _revert("StalePauseSequence")
        state = State.PAUSED if paused else State.ACTIVE
        self._state.consents[consent_id] = replace(consent, pause_sequence=sequence, state=state)
        self._emit("ConsentPauseSet", consent_id, paused, sequence)

    def _revoke_as_custodian(self, words: Sequence[bytes]) -> None:
        if not words:
            raise _revert("EmptyBatch")
        number = self._state.numbers.get(self._sender, 0)
        for consent_id in map(hex32_of, words):
            consent = self._consent(consent_id)
            if consent.state is not State.REVOKED and (number == 0 or consent.custodian_number != number):
                raise _revert("NotCustodian")
            self._end(consent_id, self._sender)

    def _end(self, consent_id: Hex32, by: Address) -> None:
        consent = self._consent(consent_id)
        if consent.state is State.REVOKED:
            return
        self._state.consents[consent_id] = replace(consent, state=State.REVOKED)
        self._emit("ConsentRevoked", consent_id, by)

    # ------------------------------------------------------------------------------------------------------------- log

    def _set_writer(self, writer: str, allowed: bool) -> None:
        key = (self._sender, _address(writer))
        number = self._numbered(self._sender)
        self._state.logs[key] = replace(self._state.logs.get(key, NO_LOG), custodian_number=number, allowed=allowed)
        self._emit("WriterSet", *key, allowed)

    def _append(self, kind: BatchKind, custodian: str, expected: bytes, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        key, log = self._log_at(custodian, expected, len(pairs))
        accesses = [LoggedAccess(consent_id=hex32_of(first), entry_hash=hex32_of(second)) for first, second in pairs]
        reasons = []
        for access in accesses:
            reason = Reason.BY_CUSTODIAN if kind is BatchKind.REFUSALS else self._use(access, log.custodian_number)
            reasons.append(reason)
            if reason is Reason.NONE:
                self._emit("AccessRecorded", access.consent_id, access.entry_hash)
            else:
                name = "AccessLate" if kind is BatchKind.LATE_ACCESSES else "AccessRefused"
                self._emit(name, access.consent_id, access.entry_hash, int(reason))
        self._close(key, log, kind, len(accesses), fold(log.head, kind, accesses, reasons))

    def _append_compelled(
        self, custodian: str, expected: bytes, order: bytes, embargo_until: int, entries: Sequence[bytes]
    ) -> None:
        key, log = self._log_at(custodian, expected, len(entries))
        if embargo_until > self._now + LONGEST_EMBARGO:
            raise _revert("EmbargoTooLong")
        order_hash, entry_hashes = hex32_of(order), [hex32_of(entry) for entry in entries]
        for entry_hash in entry_hashes:
            self._emit("AccessCompelled", order_hash, entry_hash, embargo_until)
        head = fold_compelled(log.head, order_hash, embargo_until, entry_hashes)
        self._close(key, log, BatchKind.COMPELLED_ACCESSES, len(entries), head)

    def _log_at(self, custodian: str, expected: bytes, count: int) -> tuple[tuple[Address, Address], LogState]:
        key = (_address(custodian), self._sender)
        log = self._state.logs.get(key, NO_LOG)
        if not log.allowed:
            raise _revert("NotWriter")
        if log.head != hex32_of(expected):
            raise _revert("HeadMismatch")
        if count == 0:
            raise _revert("EmptyBatch")
        return key, log

    def _close(self, key: tuple[Address, Address], log: LogState, kind: BatchKind, count: int, head: Hex32) -> None:
        self._state.logs[key] = replace(log, head=head, size=log.size + count)
        self._emit("LogAppended", *key, int(kind), log.size + count, head)

    def _use(self, access: LoggedAccess, custodian_number: int) -> Reason:
        consent = self._consent(access.consent_id)
        reason = consent.reason(at=self._now, custodian_number=custodian_number)
        if reason is Reason.NONE:
            self._state.consents[access.consent_id] = replace(consent, accesses=consent.accesses + 1)
        return reason

    # --------------------------------------------------------------------------------------------------------- helpers

    def _require_subject(self, subject: str, digest: Hex32, signature: bytes) -> None:
        account = _address(subject)
        if self._sender == account:
            return
        try:
            require_signer(digest, signature, account)
        except InvalidSignatureError:
            smart = self._smart_accounts.get(account)
            if smart is None or not smart(digest, signature):
                raise _revert("InvalidSignature") from None

    def _numbered(self, custodian: Address) -> int:
        numbers = self._state.numbers
        if custodian not in numbers:
            numbers[custodian] = len(numbers) + 1
            self._emit("CustodianNumbered", custodian, numbers[custodian])
        return numbers[custodian]

    def _consent(self, consent_id: Hex32) -> ConsentState:
        return self._state.consents.get(consent_id, ConsentState())

    def _emit(self, name: str, *args: object) -> None:
        self._emitted.append((name, args))


def _address(value: str) -> Address:
    return Address(to_checksum_address(value))


def _revert(name: str) -> LedgerError:
    return SOLIDITY_TWINS[name](f"the contract refused: {name}")
