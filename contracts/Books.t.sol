// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IConsentLedger} from "./IConsentLedger.sol";
import {LedgerTest, Vm} from "./LedgerTest.t.sol";

/// @dev The books that an auditor would keep: what was signed and what the events say, never what the ledger stores.
/// Whatever contradicts them is noted under the number of the invariant that it breaks, see Invariants.t.sol.
abstract contract Books is LedgerTest {
    uint256 internal constant LONGEST_EMBARGO = 366 days;

    struct Book {
        IConsentLedger.Grant grant;
        uint256 key;
        bool granted;
        bool revoked;
        bool paused;
        uint32 sequence;
        uint256 recorded;
    }

    struct LogBook {
        bytes32 head;
        uint256 size;
        bytes32 lastOn;
        IConsentLedger.BatchKind lastKind;
        IConsentLedger.Access[] last;
        uint64 lastEmbargo;
    }

    /// @dev What really happened, counted, so that no invariant holds merely because nothing did.
    enum Deed {
        Granted,
        Revoked,
        RevokedBeforeGranted,
        RevokedByCustodian,
        Paused,
        Resumed,
        Recorded,
        Refused,
        RefusedByCustodian,
        Late,
        LateInForce,
        Compelled,
        CompelledInTheDark,
        TooLongInTheDark,
        Replayed,
        Forged,
        Stopped,
        Jumped
    }

    uint256 public clock = NOW;
    bytes32[] public ids;
    bytes32[] public entryHashes;
    mapping(bytes32 entryHash => uint256) public landings;
    mapping(Deed => uint256) public done;
    mapping(IConsentLedger.Reason => uint256) public refusedFor;
    mapping(uint256 invariant => string) public broken;
    mapping(bytes32 id => Book) internal _books;
    mapping(address custodian => mapping(address writer => LogBook)) internal _logBooks;

    function bookOf(bytes32 id) external view returns (Book memory) {
        return _books[id];
    }

    function logBookOf(address custodian, address writer) external view returns (bytes32 head, uint256 size) {
        return (_logBooks[custodian][writer].head, _logBooks[custodian][writer].size);
    }

    function sizes() external view returns (uint256 consents, uint256 entries) {
        return (ids.length, entryHashes.length);
    }

    /// @dev What the rules say of a consent now, by the books.
    function answer(bytes32 id, address asking) public view returns (IConsentLedger.Reason) {
        Book storage b = _books[id];
        return judged(b.grant, b.granted, b.revoked, b.paused, b.recorded, asking);
    }

    function _breaks(uint256 invariant, string memory how) internal {
        broken[invariant] = how;
    }

    function _readRevocations(address by, Deed deed) internal {
        Vm.Entry[] memory logs = vm.getRecordedLogs();
        for (uint256 i = 0; i < logs.length; ++i) {
            if (logs[i].topics[0] != IConsentLedger.ConsentRevoked.selector) _breaks(2, "a revocation did more");
            if (logs[i].topics[2] != _word(by)) _breaks(1, "a revocation names another");
            Book storage book = _books[logs[i].topics[1]];
            if (book.revoked) _breaks(1, "revoked twice");
            book.revoked = true;
            ++done[book.granted ? deed : Deed.RevokedBeforeGranted];
        }
    }

    /// @dev Folds the events of one batch, and holds each entry against what the books say of its consent.
    function _readBatch(address custodian, address writer) internal {
        LogBook storage book = _logBooks[custodian][writer];
        Vm.Entry[] memory logs = vm.getRecordedLogs();
        Vm.Entry memory end = logs[logs.length - 1];
        if (
            end.topics[0] != IConsentLedger.LogAppended.selector || end.topics[1] != _word(custodian)
                || end.topics[2] != _word(writer)
        ) _breaks(6, "the batch was not closed, or another log was");
        (IConsentLedger.BatchKind kind, uint64 size, bytes32 head) =
            abi.decode(end.data, (IConsentLedger.BatchKind, uint64, bytes32));
        book.head = keccak256(abi.encode(book.head, kind, logs.length - 1));
        book.size += logs.length - 1;
        if (kind == IConsentLedger.BatchKind.CompelledAccesses) {
            (, uint64 until) = abi.decode(logs[0].data, (bytes32, uint64));
            book.head = _compelled(book.head, logs[0].topics[1], bytes32(uint256(until)));
            _readOrder(logs, until);
        }
        for (uint256 i = 0; i < logs.length - 1; ++i) book.head = _readEntry(book.head, logs[i], kind, custodian);
        if (head != book.head || size != book.size) _breaks(6, "LogAppended is not the fold of the events before it");
    }

    function _readEntry(bytes32 head, Vm.Entry memory log, IConsentLedger.BatchKind kind, address custodian)
        private
        returns (bytes32 folded)
    {
        bytes32 id = log.topics[1];
        bytes32 entryHash = abi.decode(log.data, (bytes32));
        IConsentLedger.Reason reason = IConsentLedger.Reason.None;
        if (++landings[entryHash] == 1) entryHashes.push(entryHash);
        if (kind == IConsentLedger.BatchKind.CompelledAccesses) return _compelled(head, id, entryHash);
        if (log.topics[0] == IConsentLedger.AccessRecorded.selector) {
            if (answer(id, custodian) != IConsentLedger.Reason.None) _breaks(4, "recorded although not in force");
            if (kind == IConsentLedger.BatchKind.Refusals) _breaks(5, "a refusal by the custodian was counted");
            ++_books[id].recorded;
            ++done[kind == IConsentLedger.BatchKind.Accesses ? Deed.Recorded : Deed.LateInForce];
        } else {
            (, reason) = abi.decode(log.data, (bytes32, IConsentLedger.Reason));
            _readRefusal(log.topics[0], reason, kind, answer(id, custodian));
        }
        return keccak256(abi.encode(head, id, entryHash, reason));
    }

    function _readRefusal(
        bytes32 what,
        IConsentLedger.Reason reason,
        IConsentLedger.BatchKind kind,
        IConsentLedger.Reason expected
    ) private {
        bool late = kind == IConsentLedger.BatchKind.LateAccesses;
        bool own = kind == IConsentLedger.BatchKind.Refusals;
        if (what != (late ? IConsentLedger.AccessLate.selector : IConsentLedger.AccessRefused.selector)) {
            _breaks(8, "an entry came as another event than its kind's");
        }
        if (reason == IConsentLedger.Reason.None) _breaks(8, "refused for no reason");
        if (reason != (own ? IConsentLedger.Reason.ByCustodian : expected)) _breaks(8, "refused for another reason");
        ++done[own ? Deed.RefusedByCustodian : late ? Deed.Late : Deed.Refused];
        ++refusedFor[reason];
    }

    /// @dev All of one order, of one embargo, and nothing else among them.
    function _readOrder(Vm.Entry[] memory logs, uint64 until) private {
        if (until > clock + LONGEST_EMBARGO) _breaks(10, "kept from the subject for too long");
        for (uint256 i = 0; i < logs.length - 1; ++i) {
            if (logs[i].topics[0] != IConsentLedger.AccessCompelled.selector) {
                _breaks(10, "an entry of an order came as another event");
            }
            (, uint64 other) = abi.decode(logs[i].data, (bytes32, uint64));
            if (logs[i].topics[1] != logs[0].topics[1] || other != until) _breaks(10, "two orders in one batch");
            ++done[until > clock ? Deed.CompelledInTheDark : Deed.Compelled];
        }
    }

    function _compelled(bytes32 head, bytes32 order, bytes32 word) private pure returns (bytes32 folded) {
        return keccak256(abi.encode(head, order, word, IConsentLedger.Reason.Compelled));
    }

    function _word(address account) private pure returns (bytes32) {
        return bytes32(uint256(uint160(account)));
    }
}
