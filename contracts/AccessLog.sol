// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ConsentRegistry} from "./ConsentRegistry.sol";
import {IConsentLedger} from "./IConsentLedger.sol";

/// @title The room of accesses
/// @notice Append-only logs, one for each writer of each custodian. See {IConsentLedger}.
abstract contract AccessLog is ConsentRegistry {
    /// @dev A year, in a leap year too: longer is "for ever" by another name.
    uint256 private constant LONGEST_EMBARGO = 366 days;

    // The custodian is part of the key: nobody can occupy another custodian's writer.
    mapping(address custodian => mapping(address writer => Log)) private _logs;

    /// @inheritdoc IConsentLedger
    function setWriter(address writer, bool allowed) external {
        // Effect: head and size stay, so a writer that comes back goes on where it stopped.
        Log storage log = _logs[msg.sender][writer];
        log.custodianNumber = _numbered(msg.sender);
        log.allowed = allowed;

        // Log
        emit WriterSet(msg.sender, writer, allowed);
    }

    /// @inheritdoc IConsentLedger
    function append(address custodian, bytes32 expectedHead, Access[] calldata accesses) external {
        Log storage log = _logAt(custodian, expectedHead, accesses.length);
        uint32 number = log.custodianNumber;
        bytes32 head = _opened(expectedHead, BatchKind.Accesses, accesses.length);

        for (uint256 i = 0; i < accesses.length; ++i) {
            Access calldata access = accesses[i];
            // Check and effect: in force, then one use more.
            Reason reason = _use(access.consentId, number);
            head = _folded(head, access.consentId, access.entryHash, reason);
            // Log
            if (reason == Reason.None) emit AccessRecorded(access.consentId, access.entryHash);
            else emit AccessRefused(access.consentId, access.entryHash, reason);
        }

        _close(log, custodian, BatchKind.Accesses, accesses.length, head);
    }

    /// @inheritdoc IConsentLedger
    function appendRefusals(address custodian, bytes32 expectedHead, Access[] calldata accesses) external {
        Log storage log = _logAt(custodian, expectedHead, accesses.length);
        bytes32 head = _opened(expectedHead, BatchKind.Refusals, accesses.length);

        for (uint256 i = 0; i < accesses.length; ++i) {
            Access calldata access = accesses[i];
            head = _folded(head, access.consentId, access.entryHash, Reason.ByCustodian);
            // Log
            emit AccessRefused(access.consentId, access.entryHash, Reason.ByCustodian);
        }

        _close(log, custodian, BatchKind.Refusals, accesses.length, head);
    }

    /// @inheritdoc IConsentLedger
    function appendLate(address custodian, bytes32 expectedHead, Access[] calldata accesses) external {
        Log storage log = _logAt(custodian, expectedHead, accesses.length);
        uint32 number = log.custodianNumber;
        bytes32 head = _opened(expectedHead, BatchKind.LateAccesses, accesses.length);

        for (uint256 i = 0; i < accesses.length; ++i) {
            Access calldata access = accesses[i];
            // Effect: counted while in force; what is not in force is marked, never refused.
            Reason reason = _use(access.consentId, number);
            head = _folded(head, access.consentId, access.entryHash, reason);
            // Log
            if (reason == Reason.None) emit AccessRecorded(access.consentId, access.entryHash);
            else emit AccessLate(access.consentId, access.entryHash, reason);
        }

        _close(log, custodian, BatchKind.LateAccesses, accesses.length, head);
    }

    /// @inheritdoc IConsentLedger
    function appendCompelled(
        address custodian,
        bytes32 expectedHead,
        bytes32 orderHash,
        uint64 embargoUntil,
        bytes32[] calldata entryHashes
    ) external {
        Log storage log = _logAt(custodian, expectedHead, entryHashes.length);
        // Check: kept from the subject for a while, never for ever.
        uint256 latest = block.timestamp + LONGEST_EMBARGO;
        if (embargoUntil > latest) revert EmbargoTooLong(embargoUntil, uint64(latest));

        bytes32 head = _opened(expectedHead, BatchKind.CompelledAccesses, entryHashes.length);
        head = _folded(head, orderHash, bytes32(uint256(embargoUntil)), Reason.Compelled);
        for (uint256 i = 0; i < entryHashes.length; ++i) {
            head = _folded(head, orderHash, entryHashes[i], Reason.Compelled);
            // Log
            emit AccessCompelled(orderHash, entryHashes[i], embargoUntil);
        }

        _close(log, custodian, BatchKind.CompelledAccesses, entryHashes.length, head);
    }

    /// @inheritdoc IConsentLedger
    function logOf(address custodian, address writer) external view returns (Log memory log) {
        return _logs[custodian][writer];
    }

    /// @dev The checks that every append starts with.
    function _logAt(address custodian, bytes32 expectedHead, uint256 count) private view returns (Log storage log) {
        log = _logs[custodian][msg.sender];
        // Check: a writer of this custodian, on the head it thinks it is on, with something to say.
        if (!log.allowed) revert NotWriter(custodian, msg.sender);
        if (log.head != expectedHead) revert HeadMismatch(expectedHead, log.head);
        if (count == 0) revert EmptyBatch();
    }

    /// @dev What every append ends with.
    function _close(Log storage log, address custodian, BatchKind kind, uint256 count, bytes32 head) private {
        // Effect
        uint64 size = log.size + uint64(count);
        log.head = head;
        log.size = size;

        // Log
        emit LogAppended(custodian, msg.sender, kind, size, head);
    }

    /// @dev A batch is opened by folding its kind and length, so that batches cannot be cut or joined unseen.
    function _opened(bytes32 head, BatchKind kind, uint256 count) private pure returns (bytes32) {
        return keccak256(abi.encode(head, kind, count));
    }

    /// @dev `keccak256(abi.encode(head, consentId, entryHash, reason))`, without taking new memory for every entry:
    /// that alone is worth 240 of the 9,090 gas which an access in a batch of 100 would cost otherwise.
    function _folded(bytes32 head, bytes32 consentId, bytes32 entryHash, Reason reason)
        private
        pure
        returns (bytes32 folded)
    {
        assembly ("memory-safe") {
            let free := mload(0x40)
            mstore(free, head)
            mstore(add(free, 0x20), consentId)
            mstore(add(free, 0x40), entryHash)
            mstore(add(free, 0x60), reason)
            folded := keccak256(free, 0x80)
        }
    }
}
