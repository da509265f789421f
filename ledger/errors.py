"""Every error that leaves a module of this package.

Families are by whose matter it is, and each family has one HTTP status unless a member says otherwise:

- `ConsentError` (403): the answer is no. The caller may not have this.
- `RequestError` (422): the request itself is wrong; the message names the field and what was expected.
- `VaultError` (500): our store or keys. Opaque to callers: no detail leaves the service.
- `ChainError` (503): the chain. Always fails closed; trying again later is right.
- `ConfigError` (500): this installation is not set up as it must be.
- `ServiceError` (502): the service that was asked. Only clients of it raise this.
- `AuditError`: a proof does not verify.

Rules: `code` is part of the interface and never changes its meaning. Every custom error of `IConsentLedger.sol` has its
twin here, named after it (`SOLIDITY_TWINS`). Exceptions of other libraries never cross a module border. Messages may
name fields, limits and public identifiers, never values of a person's data and never secrets.
"""

from __future__ import annotations

from typing import ClassVar


class LedgerError(Exception):
    """Root of everything this package raises on purpose.

    `field` names the offending field where there is one, in the dotted form of the API (`terms.purpose`).
    """

    code: ClassVar[str] = "error"
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field


# --------------------------------------------------------------------------------------------- "no": the caller may not


class ConsentError(LedgerError):
    """The caller may not have this."""

    code = "consent"
    http_status = 403


class ConsentNotGrantedError(ConsentError):
    """There is no such consent on chain; one that is `pending` is not there yet. Ask again under a new key."""

    code = "not_granted"


class ConsentNotYetValidError(ConsentError):
    """The consent's window has not begun: ask again after `validFrom`, under a new key."""

    code = "not_yet_valid"


class ConsentExpiredError(ConsentError):
    """The consent's window has passed. Ask the person for a new one."""

    code = "expired"


class ConsentPausedError(ConsentError):
    """The person paused the consent. Ask again under a new key once it is in force again."""

    code = "paused"


class ConsentRevokedError(ConsentError):
    """The consent was revoked, which is for ever. Ask the person for a new one."""

    code = "revoked"


class ConsentExhaustedError(ConsentError):
    """All the accesses that the consent allowed were made. Ask the person for a new one."""

    code = "exhausted"


class WrongCustodianError(ConsentError):
    """The consent names another custodian: ask that one."""

    code = "wrong_custodian"


class WrongInstitutionError(ConsentError):
    """The consent was given to another institution."""

    code = "wrong_institution"


class PurposeMismatchError(ConsentError):
    """The consent was given for another purpose: ask for the one that it names."""

    code = "purpose_mismatch"


class AttributeNotConsentedError(ConsentError):
    """The consent does not cover one of the attributes: ask for those that it names."""

    code = "attribute_not_consented"


class DailyLimitError(ConsentError):
    """Today's accesses under the consent are used up. Ask again tomorrow (UTC), under a new key."""

    code = "daily_limit"


class DisputedError(ConsentError):
    """The person disputes one of the attributes. Ask without it, or later, under a new key."""

    code = "disputed"


class ErasedError(ConsentError):
    """The person's data were erased, for ever. There is nothing to ask for any more."""

    code = "erased"


class InstitutionSuspendedError(ConsentError):
    """The institution may not ask for anything at present; what it owes it may still do. The custodian says why."""

    code = "institution_suspended"


class FurnisherSuspendedError(ConsentError):
    """The furnisher may not hand anything in at present. The custodian says why."""

    code = "furnisher_suspended"


class NotCustodianError(ConsentError):
    """Only the custodian that a consent names may do this."""

    code = "not_custodian"


class StepUpRequiredError(ConsentError):
    """The person must show once more, and now, that it is them: by a passkey or a wallet of their account."""

    code = "step_up_required"


class CrossSiteError(ConsentError):
    """The request was not made by a page of this service in this session. Load the page again."""

    code = "cross_site"


class CodeRefusedError(ConsentError):
    """The invitation code is not one that can be used: unknown, used, void and expired are not told apart."""

    code = "code_refused"


class ReleaseAbortedError(ConsentError):
    """An earlier try under this idempotency key ended without a release; nothing was decrypted. Use a new key."""

    code = "aborted"


# ------------------------------------------------------------------------------------------------ the request is wrong


class RequestError(LedgerError):
    """The request itself is wrong."""

    code = "request"
    http_status = 422


class MalformedError(RequestError):
    """A field is missing or not of its form: `field` names it, `detail` says what is expected."""

    code = "malformed"


class InvalidSignatureError(RequestError):
    """The signature is not the subject's over exactly this: wrong signer, chain or contract, high s, or malformed."""

    code = "invalid_signature"


class InvalidWindowError(RequestError):
    """`expiresAt` is not later than `validFrom`, has passed, or does not fit."""

    code = "invalid_window"


class NoAccessAllowedError(RequestError):
    """A limit is zero: zero means zero, never "for ever"."""

    code = "no_access_allowed"


class CustodianMissingError(RequestError):
    """The grant names no custodian."""

    code = "custodian_missing"


class ForeignGrantError(RequestError):
    """The grant names another custodian, chain or contract than this one."""

    code = "foreign_grant"


class CeilingExceededError(RequestError):
    """A limit is above what its purpose allows: `field` names it, the catalogue has what is allowed."""

    code = "ceiling_exceeded"


class OutsideRequestError(RequestError):
    """The grant is not within what the institution asked for."""

    code = "outside_request"


class UnknownPurposeError(RequestError):
    """The purpose is not in the catalogue of `/.well-known/consent-ledger`."""

    code = "unknown_purpose"


class UnknownAttributeError(RequestError):
    """The attribute is not in the catalogue of `/.well-known/consent-ledger`."""

    code = "unknown_attribute"


class ValueNotInCatalogueError(RequestError):
    """The value is not one that the attribute can have."""

    code = "value_not_in_catalogue"


class EmbargoTooLongError(RequestError):
    """An order may be kept from the subject for 366 days, not longer."""

    code = "embargo_too_long"


class EmptyBatchError(RequestError):
    """The call carries no item."""

    code = "empty_batch"


class MixedSubjectsError(RequestError):
    """Consents of more than one subject in one revocation."""

    code = "mixed_subjects"


class UnreadableFileError(RequestError):
    """A file that was handed in cannot be read as what it should be."""

    code = "unreadable_file"


class MapError(RequestError):
    """The map of an import does not fit the catalogue or the file."""

    code = "map"


class RowsRejectedError(RequestError):
    """Rows are bad, with `--strict` at least one and otherwise all of them: nothing was imported."""

    code = "rows_rejected"


class ConflictError(RequestError):
    """The request is fine in itself but at odds with what already stands."""

    code = "conflict"
    http_status = 409


class ConsentAlreadyGrantedError(ConflictError):
    """This very grant stands already."""

    code = "already_granted"


class ConsentAlreadyRevokedError(ConflictError):
    """The consent was revoked, which is for ever."""

    code = "already_revoked"


class StalePauseSequenceError(ConflictError):
    """A pause or resume that is not newer than the last one."""

    code = "stale_pause_sequence"


class IdempotencyConflictError(ConflictError):
    """The idempotency key was used for another request. Use a new key."""

    code = "idempotency_conflict"


class ReleaseInProgressError(ConflictError):
    """The same request is being answered at this moment. Ask again in a moment, under the same key."""

    code = "in_progress"


class AccountFullError(ConflictError):
    """The account has as many passkeys, or wallets, as one may have. Remove one first."""

    code = "account_full"


class AlreadyExistsError(ConflictError):
    """There is one of that name already."""

    code = "already_exists"


class AuthenticationError(RequestError):
    """The request is not signed by a current key of the party that it names: `detail` says what was expected."""

    code = "authentication"
    http_status = 401


class StaleRequestError(AuthenticationError):
    """The request was signed too long ago, or in the future. Set the clock right and sign anew."""

    code = "stale_request"


class ReplayedRequestError(AuthenticationError):
    """The nonce was used before. A retry is signed anew, with a nonce of its own."""

    code = "replayed"


class PartyChangedError(AuthenticationError):
    """The party's keys or standing were changed while its request was being verified. Ask again."""

    code = "party_changed"


class SignInRequiredError(AuthenticationError):
    """Nobody is signed in, or the session has ended."""

    code = "sign_in_required"


class SignInRefusedError(AuthenticationError):
    """The passkey or the wallet does not prove who is there. One error for every cause."""

    code = "sign_in_refused"


class PasskeyClonedError(AuthenticationError):
    """The passkey's counter did not go up: there may be a copy of it. It is not accepted."""

    code = "passkey_cloned"


class StaleChallengeError(AuthenticationError):
    """The challenge is not one of this session and use, was answered already, or is too old. Begin again."""

    code = "stale_challenge"


class RateLimitedError(RequestError):
    """Too many requests in the current window. Wait as many seconds as `Retry-After` says.

    `retry_after` is in seconds.
    """

    code = "rate_limited"
    http_status = 429

    def __init__(self, message: str, *, limit: int, retry_after: int) -> None:
        super().__init__(message)
        self.limit = limit
        self.retry_after = retry_after


class AnswerGoneError(RequestError):
    """The release was answered, and its sealed bytes are no longer kept. Ask again under a new key."""

    code = "answer_gone"
    http_status = 410


class NotFoundError(RequestError):
    """There is no such thing, or it is not the caller's to see: the two are not told apart."""

    code = "not_found"
    http_status = 404


class AttributeAbsentError(RequestError):
    """Consented to, but the custodian holds no value of it. Ask without it, under a new key."""

    code = "attribute_absent"
    http_status = 404


# ------------------------------------------------------------------------------------------------- our store and keys


class VaultError(LedgerError):
    """Our store or keys."""

    code = "vault"
    http_status = 500


class IntegrityError(VaultError):
    """An envelope does not open. One error for every cause: wrong key, wrong context, altered bytes."""

    code = "integrity"


class KeyFileError(VaultError):
    """The key file is missing, unreadable, open to others, or not one."""

    code = "key_file"


class KeyUnavailableError(VaultError):
    """No key of that id: another key file, or the key was destroyed."""

    code = "key_unavailable"


class UnwrapsError(VaultError):
    """An unwrap cannot be counted, so nothing is unwrapped."""

    code = "unwraps"


class StoreUnavailableError(VaultError):
    """The database is locked, full or gone. Nothing was written: try again later, under the same key."""

    code = "store_unavailable"
    http_status = 503


class StoreMismatchError(VaultError):
    """The database belongs to another version, chain, contract or key file."""

    code = "store_mismatch"


# ------------------------------------------------------------------------------------------------------------ the chain


class ChainError(LedgerError):
    """The chain cannot be used at present. Nothing was released: try again later, under the same key."""

    code = "chain"
    http_status = 503


class ChainUnavailableError(ChainError):
    """The chain gives no answer. Nothing was released: try again later, under the same key.

    `retry_after` is in seconds, where the endpoint said when it may be asked again.
    """

    code = "chain_unavailable"

    def __init__(self, message: str, *, field: str | None = None, retry_after: int | None = None) -> None:
        super().__init__(message, field=field)
        self.retry_after = retry_after


class WrongChainError(ChainError):
    """The endpoint serves another chain."""

    code = "wrong_chain"


class ContractMissingError(ChainError):
    """No contract at the address."""

    code = "contract_missing"


class ContractMismatchError(ChainError):
    """The code on chain is not what the sources compile to."""

    code = "contract_mismatch"


class TransactionRevertedError(ChainError):
    """The contract refused, for a reason that has no class of its own."""

    code = "transaction_reverted"


class MethodUnknownError(ChainUnavailableError):
    """The endpoint does not know the method that it was asked; another one may do."""

    code = "method_unknown"


class ConfirmationTimeoutError(ChainError):
    """Sent, and not seen in a block in time, so nothing is released. Try again later, under the same key."""

    code = "confirmation_timeout"


class NotWriterError(ChainError):
    """The key may not append to this custodian's log."""

    code = "not_writer"


class HeadMismatchError(ChainError):
    """The log moved on: the batch was built on another head, or has landed already."""

    code = "head_mismatch"


class ChainLostError(ChainError):
    """The chain lost entries that this service has proof of. Run `consent-ledger sync`."""

    code = "chain_lost"


class FeeTooHighError(ChainError):
    """Gas costs more than this service pays for it. Nothing was released: try again later, under the same key."""

    code = "fee_too_high"


class LogAheadError(ChainError):
    """The log on chain has entries that this service does not know. Its operator must decide; nothing was released."""

    code = "log_ahead"


class DevnetError(ChainError):
    """The local chain does not start."""

    code = "devnet"


# ---------------------------------------------------------------------------------------------------------- the others


class ConfigError(LedgerError):
    """This installation is not set up as it must be."""

    code = "config"


class ServiceError(LedgerError):
    """The service gave an answer that this client does not know."""

    code = "service"
    http_status = 502


class ServiceUnavailableError(ServiceError):
    """The service gave no answer."""

    code = "service_unavailable"


class AuditError(LedgerError):
    """A proof does not verify."""

    code = "audit"


class SplitViewError(AuditError):
    """Two parties were shown two histories of one chain or log."""

    code = "split_view"


class CheckpointInconsistentError(AuditError):
    """The chain does not lead from an earlier checkpoint to this one."""

    code = "checkpoint_inconsistent"


class ReceiptsDifferError(AuditError):
    """The receipts of a block are not those that its header commits to."""

    code = "receipts_differ"


SOLIDITY_TWINS: dict[str, type[LedgerError]] = {
    "InvalidSignature": InvalidSignatureError,
    "InvalidWindow": InvalidWindowError,
    "NoAccessAllowed": NoAccessAllowedError,
    "CustodianMissing": CustodianMissingError,
    "ConsentAlreadyGranted": ConsentAlreadyGrantedError,
    "ConsentAlreadyRevoked": ConsentAlreadyRevokedError,
    "ConsentNotGranted": ConsentNotGrantedError,
    "MixedSubjects": MixedSubjectsError,
    "StalePauseSequence": StalePauseSequenceError,
    "NotCustodian": NotCustodianError,
    "NotWriter": NotWriterError,
    "HeadMismatch": HeadMismatchError,
    "EmbargoTooLong": EmbargoTooLongError,
    "EmptyBatch": EmptyBatchError,
}
"""Solidity error name -> its class. A test compares the keys with the ABI."""
