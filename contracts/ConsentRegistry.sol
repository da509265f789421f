// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";
import {IConsentLedger} from "./IConsentLedger.sol";

/// @title The room of consents
/// @notice The state of every consent, and the rules by which it changes. See {IConsentLedger}.
abstract contract ConsentRegistry is IConsentLedger, EIP712 {
    // The signed types are part of the format: a change is a new version of the domain.
    bytes32 private constant GRANT_TYPEHASH = keccak256(
        "ConsentGrant(Terms terms,address subject,address custodian,uint64 validFrom,uint64 expiresAt,uint32 maxAccesses)"
        "Terms(string institution,string institutionName,string purpose,string[] attributes,uint32 accessesPerDay,uint32 retentionDays,bytes32 noticeHash,bytes32 replaces,bytes32 salt)"
    );
    bytes32 private constant REVOCATION_TYPEHASH = keccak256("ConsentRevocation(bytes32[] consentIds)");
    bytes32 private constant PAUSE_TYPEHASH = keccak256("ConsentPause(bytes32 consentId,bool paused,uint32 sequence)");

    // A consent is one word, packed by hand: decoding a struct on every access would cost 500 gas of about 9,000.
    //   bits   0-47  validFrom        48-95  expiresAt       96-127 maxAccesses   128-159 accesses
    //        160-191 custodianNumber 192-223 pauseSequence  224-231 state
    uint256 private constant EXPIRES_AT = 48;
    uint256 private constant MAX_ACCESSES = 96;
    uint256 private constant ACCESSES = 128;
    uint256 private constant CUSTODIAN_NUMBER = 160;
    uint256 private constant PAUSE_SEQUENCE = 192;
    uint256 private constant STATE = 224;

    uint256 private constant ONE_ACCESS = 1 << ACCESSES;
    uint256 private constant BELOW_STATE = (1 << STATE) - 1;
    uint256 private constant BELOW_PAUSE_SEQUENCE = (1 << PAUSE_SEQUENCE) - 1;

    mapping(bytes32 consentId => uint256 word) private _words;

    // A number instead of an address lets a whole consent fit in one slot.
    mapping(address custodian => uint32 number) private _numbers;
    uint32 private _lastNumber;

    constructor() EIP712("ConsentLedger", "1") {}

    // ---------------------------------------------------------------------------------------------------- changes

    /// @inheritdoc IConsentLedger
    function grant(Grant calldata terms, bytes calldata signature) external returns (bytes32 consentId) {
        // Check: the window can be used and stored, something is allowed, someone may log it.
        if (terms.expiresAt <= terms.validFrom || terms.expiresAt > type(uint48).max) {
            revert InvalidWindow(terms.validFrom, terms.expiresAt);
        }
        if (terms.maxAccesses == 0) revert NoAccessAllowed();
        if (terms.custodian == address(0)) revert CustodianMissing();

        // Check: the subject wants it.
        consentId = consentIdOf(terms);
        _requireSubject(terms.subject, consentId, signature);

        // Check: neither granted nor revoked before.
        State state = _stateOf(_words[consentId]);
        if (state == State.Revoked) revert ConsentAlreadyRevoked(consentId);
        if (state != State.Unknown) revert ConsentAlreadyGranted(consentId);

        // Effect: all of it in one write. No use and no pause yet.
        _words[consentId] = uint256(terms.validFrom) | uint256(terms.expiresAt) << EXPIRES_AT
            | uint256(terms.maxAccesses) << MAX_ACCESSES | uint256(_numbered(terms.custodian)) << CUSTODIAN_NUMBER
            | uint256(State.Active) << STATE;

        // Log
        emit ConsentGranted(
            consentId, terms.subject, terms.custodian, terms.validFrom, terms.expiresAt, terms.maxAccesses
        );
    }

    /// @inheritdoc IConsentLedger
    function revoke(Grant[] calldata grants, bytes calldata signature) external {
        // Check: there is something to revoke, and it is all one subject's.
        uint256 count = grants.length;
        if (count == 0) revert EmptyBatch();
        address subject = grants[0].subject;
        bytes32[] memory consentIds = new bytes32[](count);
        for (uint256 i = 0; i < count; ++i) {
            if (grants[i].subject != subject) revert MixedSubjects(subject, grants[i].subject);
            consentIds[i] = consentIdOf(grants[i]);
        }

        // Check: the subject wants it.
        bytes32 structHash = keccak256(abi.encode(REVOCATION_TYPEHASH, keccak256(abi.encodePacked(consentIds))));
        _requireSubject(subject, _hashTypedDataV4(structHash), signature);

        // Effect: granted or not, never again.
        for (uint256 i = 0; i < count; ++i) {
            _revoke(consentIds[i], subject);
        }
    }

    /// @inheritdoc IConsentLedger
    function setPaused(Grant calldata terms, bool paused, uint32 sequence, bytes calldata signature) external {
        // Check: the subject wants it.
        bytes32 consentId = consentIdOf(terms);
        bytes32 structHash = keccak256(abi.encode(PAUSE_TYPEHASH, consentId, paused, sequence));
        _requireSubject(terms.subject, _hashTypedDataV4(structHash), signature);

        // Check: there is a consent, and this is newer than what was said before.
        uint256 word = _words[consentId];
        State state = _stateOf(word);
        if (state == State.Unknown) revert ConsentNotGranted(consentId);
        if (state == State.Revoked) revert ConsentAlreadyRevoked(consentId);
        uint32 current = uint32(word >> PAUSE_SEQUENCE);
        if (sequence <= current) revert StalePauseSequence(consentId, current, sequence);

        // Effect
        _words[consentId] = word & BELOW_PAUSE_SEQUENCE | uint256(sequence) << PAUSE_SEQUENCE
            | uint256(paused ? State.Paused : State.Active) << STATE;

        // Log
        emit ConsentPauseSet(consentId, paused, sequence);
    }

    /// @inheritdoc IConsentLedger
    function revokeAsCustodian(bytes32[] calldata consentIds) external {
        // Check: there is something to revoke.
        if (consentIds.length == 0) revert EmptyBatch();
        uint32 number = _numbers[msg.sender];

        for (uint256 i = 0; i < consentIds.length; ++i) {
            // Check: the caller's own. A number is never zero, so an unknown consent is nobody's.
            uint256 word = _words[consentIds[i]];
            if (_stateOf(word) != State.Revoked && (number == 0 || uint32(word >> CUSTODIAN_NUMBER) != number)) {
                revert NotCustodian(consentIds[i], msg.sender);
            }
            // Effect
            _revoke(consentIds[i], msg.sender);
        }
    }

    // ------------------------------------------------------------------------------------------------------- views

    /// @inheritdoc IConsentLedger
    function status(bytes32 consentId, address custodian) external view returns (Reason reason) {
        return _reasonAgainst(_words[consentId], _numbers[custodian]);
    }

    /// @inheritdoc IConsentLedger
    function statuses(bytes32[] calldata consentIds, address custodian)
        external
        view
        returns (Reason[] memory reasons)
    {
        uint32 number = _numbers[custodian];
        reasons = new Reason[](consentIds.length);
        for (uint256 i = 0; i < consentIds.length; ++i) {
            reasons[i] = _reasonAgainst(_words[consentIds[i]], number);
        }
    }

    /// @inheritdoc IConsentLedger
    function consentOf(bytes32 consentId) external view returns (Consent memory consent) {
        uint256 word = _words[consentId];
        return Consent({
            validFrom: uint48(word),
            expiresAt: uint48(word >> EXPIRES_AT),
            maxAccesses: uint32(word >> MAX_ACCESSES),
            accesses: uint32(word >> ACCESSES),
            custodianNumber: uint32(word >> CUSTODIAN_NUMBER),
            pauseSequence: uint32(word >> PAUSE_SEQUENCE),
            state: _stateOf(word)
        });
    }

    /// @inheritdoc IConsentLedger
    function consentIdOf(Grant calldata terms) public view returns (bytes32 consentId) {
        return _hashTypedDataV4(
            keccak256(
                abi.encode(
                    GRANT_TYPEHASH,
                    terms.termsHash,
                    terms.subject,
                    terms.custodian,
                    terms.validFrom,
                    terms.expiresAt,
                    terms.maxAccesses
                )
            )
        );
    }

    /// @inheritdoc IConsentLedger
    function numberOf(address custodian) external view returns (uint32 number) {
        return _numbers[custodian];
    }

    // ---------------------------------------------------------------------------------------------------- internal

    /// @dev Uses the consent once if it is in force; changes nothing otherwise.
    function _use(bytes32 consentId, uint32 custodianNumber) internal returns (Reason reason) {
        uint256 word = _words[consentId];
        // Check: in force.
        reason = _reasonAgainst(word, custodianNumber);
        // Effect: one use more. It cannot carry into the next field: accesses < maxAccesses.
        if (reason == Reason.None) {
            unchecked {
                _words[consentId] = word + ONE_ACCESS;
            }
        }
    }

    /// @dev The number of a custodian; its first one if it has none.
    function _numbered(address custodian) internal returns (uint32 number) {
        number = _numbers[custodian];
        if (number == 0) {
            number = ++_lastNumber;
            _numbers[custodian] = number;
            emit CustodianNumbered(custodian, number);
        }
    }

    /// @dev The only place where a consent is judged. Keep the order: it is documented at {IConsentLedger-Reason}.
    function _reasonAgainst(uint256 word, uint32 custodianNumber) private view returns (Reason) {
        State state = _stateOf(word);
        if (state == State.Revoked) return Reason.Revoked;
        if (state == State.Unknown) return Reason.NotGranted;
        if (uint32(word >> CUSTODIAN_NUMBER) != custodianNumber) return Reason.WrongCustodian;
        if (block.timestamp >= uint48(word >> EXPIRES_AT)) return Reason.Expired;
        if (uint32(word >> ACCESSES) >= uint32(word >> MAX_ACCESSES)) return Reason.Exhausted;
        if (block.timestamp < uint48(word)) return Reason.NotYetValid;
        if (state == State.Paused) return Reason.Paused;
        return Reason.None;
    }

    function _stateOf(uint256 word) private pure returns (State) {
        return State(word >> STATE);
    }

    /// @dev Idempotent: only the first revocation is an event.
    function _revoke(bytes32 consentId, address by) private {
        uint256 word = _words[consentId];
        if (_stateOf(word) == State.Revoked) return;
        _words[consentId] = word & BELOW_STATE | uint256(State.Revoked) << STATE;
        emit ConsentRevoked(consentId, by);
    }

    function _requireSubject(address subject, bytes32 digest, bytes calldata signature) private view {
        if (msg.sender == subject) return;
        // The key first: it saves looking up the subject's code, which only smart accounts have.
        (address signer, ECDSA.RecoverError problem,) = ECDSA.tryRecoverCalldata(digest, signature);
        if (problem == ECDSA.RecoverError.NoError && signer == subject) return;
        if (!SignatureChecker.isValidERC1271SignatureNowCalldata(subject, digest, signature)) {
            revert InvalidSignature(subject, digest);
        }
    }
}
