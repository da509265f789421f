// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title Consent Ledger
/// @notice Consents that people signed, and the log of every access under them. One contract, so that the call that
/// logs an access is the call that checks the consent.
///
/// Who may do what:
/// - Only the subject's key creates a consent or widens one (resume). It may do so by an EIP-712 signature that anyone
///   relays, or by calling directly; it needs no one's help to revoke.
/// - The custodian named in a consent may revoke it, and its writers may append to its logs. It can widen nothing.
/// - Nobody else may do anything. There is no owner, no upgrade, no fee and no pause switch.
///
/// What is on chain: salted hashes, pseudonymous accounts, times, counters, states. No name, value, purpose or attribute.
///
/// A consent is identified by `consentId`, the EIP-712 digest of the signed grant: it is bound to this chain and this
/// contract, and it can be granted once. Its terms (institution, purpose, attributes, ...) arrive only as their
/// `hashStruct`, so the chain enforces the outer fields and never learns the terms.
interface IConsentLedger {
    // ------------------------------------------------------------------------------------------------------- types

    /// @notice The outer fields of a signed grant.
    /// @param termsHash `hashStruct(Terms)`, salted.
    /// @param subject The account whose key signs: a pseudonym, ideally a different one for each institution.
    /// @param custodian Who may log accesses under this consent.
    /// @param validFrom First second in which the consent may be used (Unix time).
    /// @param expiresAt First second in which it no longer may. Must be later than `validFrom`.
    /// @param maxAccesses How many accesses it allows in all. Must be positive: zero means zero, never "for ever".
    struct Grant {
        bytes32 termsHash;
        address subject;
        address custodian;
        uint64 validFrom;
        uint64 expiresAt;
        uint32 maxAccesses;
    }

    /// @notice What the contract keeps of a consent: one storage slot.
    /// @dev Warm states can change with time or by the subject; `Revoked` is cold and never left.
    /// `Unknown` with a zero `expiresAt` is a consent never granted; a revocation that arrives before its grant leaves
    /// `Revoked` with every other field zero.
    struct Consent {
        uint48 validFrom;
        uint48 expiresAt;
        uint32 maxAccesses;
        uint32 accesses;
        uint32 custodianNumber;
        uint32 pauseSequence;
        State state;
    }

    enum State {
        Unknown,
        Active,
        Paused,
        Revoked
    }

    /// @notice Why an access may not be made; `None` when it may.
    /// @dev Asked in this order, the most final first: Revoked, NotGranted, WrongCustodian, Expired, Exhausted,
    /// NotYetValid, Paused. `ByCustodian` is never an answer of the contract: it marks refusals that the custodian
    /// decided by itself (`appendRefusals`). Nor is `Compelled`: it marks accesses that an authority ordered
    /// (`appendCompelled`). New members are only ever added at the end.
    enum Reason {
        None,
        NotGranted,
        NotYetValid,
        Expired,
        Paused,
        Revoked,
        Exhausted,
        WrongCustodian,
        ByCustodian,
        Compelled
    }

    /// @notice One use of a consent, as the log sees it.
    /// @param consentId The consent it is made under.
    /// @param entryHash `hashStruct(AccessEntry)`, salted; its opening stays off chain.
    struct Access {
        bytes32 consentId;
        bytes32 entryHash;
    }

    /// @notice How a batch came to the log.
    enum BatchKind {
        Accesses,
        Refusals,
        LateAccesses,
        CompelledAccesses
    }

    /// @notice One writer's log.
    /// @param head Running hash over every batch, see `append`.
    /// @param size Entries appended so far, refused ones included.
    /// @param custodianNumber The custodian it belongs to.
    /// @param allowed Whether the writer may append now.
    struct Log {
        bytes32 head;
        uint64 size;
        uint32 custodianNumber;
        bool allowed;
    }

    // ------------------------------------------------------------------------------------------------------ events

    /// @notice A consent came into being.
    event ConsentGranted(
        bytes32 indexed consentId,
        address indexed subject,
        address indexed custodian,
        uint64 validFrom,
        uint64 expiresAt,
        uint32 maxAccesses
    );

    /// @notice A consent ended for good. `by` is its subject or its custodian.
    event ConsentRevoked(bytes32 indexed consentId, address indexed by);

    /// @notice The subject paused or resumed a consent.
    event ConsentPauseSet(bytes32 indexed consentId, bool paused, uint32 sequence);

    /// @notice A custodian was named for the first time and has a number from now on.
    event CustodianNumbered(address indexed custodian, uint32 number);

    /// @notice A custodian let `writer` append to its log, or stopped it.
    event WriterSet(address indexed custodian, address indexed writer, bool allowed);

    /// @notice An access under a consent in force.
    event AccessRecorded(bytes32 indexed consentId, bytes32 entryHash);

    /// @notice An access that was refused, and why.
    event AccessRefused(bytes32 indexed consentId, bytes32 entryHash, Reason reason);

    /// @notice An access that was logged after the fact under a consent that is no longer in force, and why it is not.
    event AccessLate(bytes32 indexed consentId, bytes32 entryHash, Reason reason);

    /// @notice An access that an authority ordered, without a consent. `embargoUntil` is when the subject is told at the
    /// latest; zero means at once.
    event AccessCompelled(bytes32 indexed orderHash, bytes32 entryHash, uint64 embargoUntil);

    /// @notice Closes a batch; the entry events before it in the same call are its content, in order.
    event LogAppended(address indexed custodian, address indexed writer, BatchKind kind, uint64 size, bytes32 head);

    // ------------------------------------------------------------------------------------------------------ errors

    /// @notice The signature over `digest` is not the subject's (wrong signer, other chain or contract, high s, malformed).
    error InvalidSignature(address subject, bytes32 digest);

    /// @notice `expiresAt` must be later than `validFrom` and fit in 48 bits.
    error InvalidWindow(uint64 validFrom, uint64 expiresAt);

    /// @notice `maxAccesses` is zero.
    error NoAccessAllowed();

    /// @notice The grant names no custodian.
    error CustodianMissing();

    /// @notice This very grant stands already.
    error ConsentAlreadyGranted(bytes32 consentId);

    /// @notice The consent was revoked, which is for ever.
    error ConsentAlreadyRevoked(bytes32 consentId);

    /// @notice There is no such consent.
    error ConsentNotGranted(bytes32 consentId);

    /// @notice Consents of more than one subject in one revocation.
    error MixedSubjects(address expected, address found);

    /// @notice A pause or resume that is not newer than the last one.
    error StalePauseSequence(bytes32 consentId, uint32 current, uint32 given);

    /// @notice `caller` is not the custodian of this consent.
    error NotCustodian(bytes32 consentId, address caller);

    /// @notice `writer` may not append to this custodian's log.
    error NotWriter(address custodian, address writer);

    /// @notice The log moved on: this batch was built on another head (or has landed already).
    error HeadMismatch(bytes32 expected, bytes32 actual);

    /// @notice An order may be kept from the subject until `latest`, not longer.
    error EmbargoTooLong(uint64 embargoUntil, uint64 latest);

    /// @notice The call carries no item.
    error EmptyBatch();

    // ---------------------------------------------------------------------------------------------------- consents

    /// @notice Grants a consent.
    /// @dev Emits {ConsentGranted}.
    ///
    /// Notes:
    /// - Anyone may relay it: the signature decides. The subject may also call directly with an empty signature.
    /// - A window that has passed is accepted: it can never be used, and a lost chain can be rebuilt from signed grants.
    ///
    /// Requirements:
    /// - The signature over the grant is the subject's: ECDSA with low s, or ERC-1271.
    /// - The window is not empty, at least one access is allowed, a custodian is named.
    /// - The consent was neither granted nor revoked before.
    function grant(Grant calldata terms, bytes calldata signature) external returns (bytes32 consentId);

    /// @notice Revokes consents of one subject, all by one signature.
    /// @dev Emits {ConsentRevoked} for each that was not revoked before.
    ///
    /// Notes:
    /// - No nonce, no deadline, idempotent, and a consent may be revoked before its grant arrives (which then can
    ///   never take effect): nothing that a relayer withholds can block a revocation.
    /// - The grants are presented again instead of storing their subject.
    ///
    /// Requirements:
    /// - At least one grant; all of the same subject.
    /// - The signature over `ConsentRevocation(bytes32[] consentIds)`, in this order, is the subject's; or the subject calls.
    function revoke(Grant[] calldata grants, bytes calldata signature) external;

    /// @notice Pauses or resumes a consent.
    /// @dev Emits {ConsentPauseSet}.
    ///
    /// Requirements:
    /// - The signature over `ConsentPause(bytes32 consentId,bool paused,uint32 sequence)` is the subject's; or the subject calls.
    /// - The consent was granted and is not revoked.
    /// - `sequence` is greater than the last one used for this consent, so that an old signature says nothing new.
    function setPaused(Grant calldata terms, bool paused, uint32 sequence, bytes calldata signature) external;

    /// @notice Revokes consents that name the caller as custodian: narrowing is its right, widening never.
    /// @dev Emits {ConsentRevoked} for each that was not revoked before.
    ///
    /// Requirements:
    /// - Each consent was granted with the caller as custodian, or is revoked already.
    function revokeAsCustodian(bytes32[] calldata consentIds) external;

    /// @notice The one validity question: may `custodian` log an access under this consent in this block?
    /// @return reason `None` when it may; otherwise exactly why not.
    function status(bytes32 consentId, address custodian) external view returns (Reason reason);

    /// @notice As `status`, for many consents in one call.
    function statuses(bytes32[] calldata consentIds, address custodian) external view returns (Reason[] memory reasons);

    /// @notice The stored state of a consent.
    function consentOf(bytes32 consentId) external view returns (Consent memory consent);

    /// @notice The id that `terms` has on this chain and contract: the EIP-712 digest that the subject signs.
    function consentIdOf(Grant calldata terms) external view returns (bytes32 consentId);

    /// @notice The number of a custodian; zero if it was never named.
    function numberOf(address custodian) external view returns (uint32 number);

    // --------------------------------------------------------------------------------------------------------- log

    /// @notice Lets `writer` append to the caller's log, or stops it. A writer can log; it can grant, widen and read nothing.
    /// @dev Emits {WriterSet}.
    function setWriter(address writer, bool allowed) external;

    /// @notice Checks and logs: each access under a consent in force is recorded and counted, each other one is
    /// recorded as refused with its reason. One bad entry never reverts the others.
    /// @dev Emits {AccessRecorded} or {AccessRefused} for each, then {LogAppended}.
    ///
    /// Notes:
    /// - The head is a compare-and-swap: a batch that is sent twice lands once.
    /// - Whoever has the events can recompute the head: a batch opens with
    ///   `head = keccak256(abi.encode(head, kind, accesses.length))`, then for each access
    ///   `head = keccak256(abi.encode(head, consentId, entryHash, reason))`. `size` grows by `accesses.length`.
    ///
    /// Requirements:
    /// - The caller is an allowed writer of `custodian`.
    /// - `expectedHead` is the head of that writer's log.
    /// - At least one access.
    function append(address custodian, bytes32 expectedHead, Access[] calldata accesses) external;

    /// @notice Logs requests that the custodian itself refused (over-asking, daily limit, disputed data, ...), so that
    /// the person and the auditor see who tried. Counts nothing.
    /// @dev Emits {AccessRefused} with `ByCustodian` for each, then {LogAppended}. Requirements as for {append}.
    function appendRefusals(address custodian, bytes32 expectedHead, Access[] calldata accesses) external;

    /// @notice Logs accesses that a reorganisation or a lost chain took away after the release. Never refuses: a log
    /// that could refuse to record a violation would hide it.
    /// @dev Emits {AccessRecorded}, with its count, where the consent is in force, {AccessLate} where it is not, then
    /// {LogAppended} with `LateAccesses`. Requirements as for {append}.
    function appendLate(address custodian, bytes32 expectedHead, Access[] calldata accesses) external;

    /// @notice Logs accesses that an authority ordered, all by one order: data that leave without a consent leave a trace
    /// of their own kind. Touches no consent and counts no use.
    /// @dev Emits {AccessCompelled} for each, then {LogAppended} with `CompelledAccesses`.
    ///
    /// Notes:
    /// - The order and its entries are salted hashes: no one learns whom they are about, but everyone can count them.
    /// - The head also binds the embargo: after the opening of the batch, as documented at {append}, once
    ///   `head = keccak256(abi.encode(head, orderHash, bytes32(uint256(embargoUntil)), Reason.Compelled))`, then for each
    ///   entry `head = keccak256(abi.encode(head, orderHash, entryHash, Reason.Compelled))`.
    ///
    /// Requirements as for {append}, and:
    /// - `embargoUntil` is at most 366 days from now; zero means that the subject may know at once.
    /// @param orderHash `hashStruct(CompelledOrder)`, salted; its opening stays off chain.
    function appendCompelled(
        address custodian,
        bytes32 expectedHead,
        bytes32 orderHash,
        uint64 embargoUntil,
        bytes32[] calldata entryHashes
    ) external;

    /// @notice The log of one writer of one custodian.
    function logOf(address custodian, address writer) external view returns (Log memory log);
}
