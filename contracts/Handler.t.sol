// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Books} from "./Books.t.sol";
import {IConsentLedger} from "./IConsentLedger.sol";

/// @dev Does what subjects, custodians, writers, relayers and thieves might do. Every argument is any number.
contract Handler is Books {
    uint256 public constant SUBJECTS = 3;
    uint256 private constant FIRST_KEY = 0xC0FFEE;
    uint256 private constant MOST_CONSENTS = 40;
    uint256 private _entries;

    // Both custodians name the same two keys, so each writer is squatted.
    address[2] public custodians = [address(0xC1), address(0xC2)];
    address[2] public writers = [address(0xA1), address(0xA2)];

    /// @dev A warp does not outlive the call that made it.
    modifier onTime() {
        vm.warp(clock);
        _;
    }

    constructor() {
        for (uint256 i = 0; i < 4; ++i) {
            vm.prank(custodians[i % 2]);
            ledger.setWriter(writers[i / 2], true);
        }
        // A ledger in use to begin with: usable now, by both custodians, of every subject, for one to five accesses.
        for (uint256 i = 0; i < 12; ++i) _grant(_draft(i, i * 90, 1100, i / 2), i % 5 == 0);
    }

    function deeds() external pure returns (bytes4[] memory selectors) {
        selectors = new bytes4[](12);
        selectors[0] = this.grantNew.selector;
        selectors[1] = this.jump.selector;
        selectors[2] = this.grantKnown.selector;
        selectors[3] = this.revoke.selector;
        selectors[4] = this.revokeAsCustodian.selector;
        selectors[5] = this.setPaused.selector;
        selectors[6] = this.forge.selector;
        selectors[7] = this.append.selector;
        selectors[8] = this.appendRefusals.selector;
        selectors[9] = this.appendLate.selector;
        selectors[10] = this.replayOrStop.selector;
        selectors[11] = this.appendCompelled.selector;
    }

    // ---------------------------------------------------------------------------------------------------- consents

    /// @dev Every other grant is not sent yet, so that it can be revoked, forged or used before it stands.
    function grantNew(uint256 who, uint256 from, uint256 length, uint256 uses, uint256 how) external {
        bytes32 id = _draft(who, from, length, uses);
        if (how % 2 == 0) _grant(id, how % 4 == 0);
    }

    function grantKnown(uint256 which, uint256 direct) external onTime {
        _grant(_id(which), direct % 2 == 0);
    }

    function revoke(uint256 which, uint256 count, uint256 direct) external onTime {
        Book storage first = _books[_id(which)];
        bytes32[] memory own = _consentsOf(first.key, which, between(count, 1, 2));
        bytes memory signature = direct % 2 == 0 ? bytes("") : signed(first.key, revocationOf(own));
        vm.recordLogs();
        if (direct % 2 == 0) vm.prank(first.grant.subject);
        try ledger.revoke(_grants(own), signature) {
            _readRevocations(first.grant.subject, Deed.Revoked);
        } catch {
            _breaks(3, "the subject could not revoke");
        }
        for (uint256 i = 0; i < own.length; ++i) {
            if (!_books[own[i]].revoked) _breaks(3, "a revocation left no event");
        }
    }

    function revokeAsCustodian(uint256 which, uint256 custodian) external onTime {
        bytes32[] memory one = _only(_id(which));
        Book storage book = _books[one[0]];
        address by = custodians[custodian % 2];
        bool may = book.revoked || (book.granted && book.grant.custodian == by);
        vm.recordLogs();
        vm.prank(by);
        try ledger.revokeAsCustodian(one) {
            if (!may) _breaks(2, "a custodian revoked what is not its own");
            _readRevocations(by, Deed.RevokedByCustodian);
        } catch {
            if (may) _breaks(2, "a custodian could not revoke its own");
        }
    }

    function setPaused(uint256 which, uint256 paused, uint256 step, uint256 direct) external onTime {
        bytes32 id = _id(which);
        // Half the time one that is paused, if there is any, so that resuming is not rare.
        bool resume = paused % 2 == 0;
        for (uint256 i = 0; i < ids.length && resume && !_books[id].paused; ++i) id = _id(which % ids.length + i);
        Book storage book = _books[id];
        bool pause = paused % 3 == 0 ? book.paused : !book.paused;
        uint32 sequence = book.sequence + uint32(step % 4); // one in four is stale
        bytes memory signature = direct % 2 == 0 ? bytes("") : signed(book.key, pauseOf(id, pause, sequence));
        bool may = book.granted && !book.revoked && sequence > book.sequence;
        if (direct % 2 == 0) vm.prank(book.grant.subject);
        try ledger.setPaused(book.grant, pause, sequence, signature) {
            if (!may) _breaks(1, "a pause or resume that no rule allows");
            if (pause != book.paused) ++done[pause ? Deed.Paused : Deed.Resumed];
            (book.paused, book.sequence) = (pause, sequence);
        } catch {
            if (may) _breaks(2, "the subject could not pause or resume");
        }
    }

    /// @dev Somebody else speaks for the subject where the subject could: with another key, or by merely calling.
    function forge(uint256 which, uint256 thief, uint256 call) external onTime {
        bytes32 id = _id(which);
        Book storage book = _books[id];
        if (book.revoked || (call % 3 == 0) == book.granted) return;
        bytes32[] memory one = _only(id);
        bytes32 digest = [id, revocationOf(one), pauseOf(id, false, book.sequence + 1)][call % 3];
        // The key after the last subject's is nobody's.
        uint256 key = FIRST_KEY + (book.key - FIRST_KEY + between(thief, 1, SUBJECTS)) % (SUBJECTS + 1);
        bytes memory signature = thief % 2 == 0 ? signed(key, digest) : bytes("");
        bytes memory data = abi.encodeCall(ledger.grant, (book.grant, signature));
        if (call % 3 == 1) data = abi.encodeCall(ledger.revoke, (_grants(one), signature));
        if (call % 3 == 2) data = abi.encodeCall(ledger.setPaused, (book.grant, false, book.sequence + 1, signature));
        vm.prank(thief % 4 < 2 ? book.grant.custodian : vm.addr(key));
        (bool accepted,) = address(ledger).call(data);
        if (accepted) _breaks(2, "somebody else spoke for the subject");
        ++done[Deed.Forged];
    }

    // --------------------------------------------------------------------------------------------------------- log

    function append(uint256 where, uint256 seed) external onTime {
        _append(where, seed, IConsentLedger.BatchKind.Accesses);
    }

    function appendRefusals(uint256 where, uint256 seed) external onTime {
        _append(where, seed, IConsentLedger.BatchKind.Refusals);
    }

    function appendLate(uint256 where, uint256 seed) external onTime {
        _append(where, seed, IConsentLedger.BatchKind.LateAccesses);
    }

    /// @dev One order, known or not as a consent, under an embargo that is none, over, running, or too long.
    function appendCompelled(uint256 where, uint256 seed, uint256 dark) external onTime {
        uint64 until = uint64([0, clock, clock + between(seed, 1, LONGEST_EMBARGO), clock + LONGEST_EMBARGO][dark % 4]);
        if (dark % 5 > 0) return _appendBatch(where, seed, IConsentLedger.BatchKind.CompelledAccesses, until);

        (address custodian, address writer, LogBook storage book) = _log(where);
        until = uint64(clock + LONGEST_EMBARGO + between(seed, 1, 1000));
        IConsentLedger.Access[] memory batch = _batch(custodian, seed, 1);
        if (_send(custodian, writer, book.head, batch, IConsentLedger.BatchKind.CompelledAccesses, until)) {
            _breaks(10, "kept from the subject for too long");
        }
        ++done[Deed.TooLongInTheDark];
    }

    /// @dev A writer that lost the reply sends the same bytes again; or it is stopped, and tries all the same.
    function replayOrStop(uint256 where, uint256 seed, uint256 stop) external onTime {
        (address custodian, address writer, LogBook storage book) = _log(where);
        vm.recordLogs();
        if (stop % 2 == 0 && book.size > 0) {
            if (_send(custodian, writer, book.lastOn, book.last, book.lastKind, book.lastEmbargo)) {
                _breaks(7, "a batch landed twice");
                _readBatch(custodian, writer);
            }
            ++done[Deed.Replayed];
        } else {
            vm.prank(custodian);
            ledger.setWriter(writer, false);
            if (_send(custodian, writer, book.head, _batch(custodian, seed, 1), IConsentLedger.BatchKind.Accesses, 0)) {
                _breaks(6, "a stopped writer appended");
            }
            vm.prank(custodian);
            ledger.setWriter(writer, true);
            ++done[Deed.Stopped];
        }
    }

    function jump(uint256 time) external {
        clock += between(time, 0, 200);
        ++done[Deed.Jumped];
    }

    // ------------------------------------------------------------------------------------------------------ probes

    error Undone(bool revoked);

    /// @dev Everything of one subject, revoked by one signature that a stranger relays; then undone, to go on.
    function tryToRevokeEverythingOf(uint256 who) external onTime {
        uint256 key = FIRST_KEY + who % SUBJECTS;
        bytes32[] memory own = _consentsOf(key, 0, MOST_CONSENTS);
        bool all = true;
        if (own.length > 0) {
            ledger.revoke(_grants(own), signed(key, revocationOf(own)));
            for (uint256 i = 0; i < own.length; ++i) {
                all = all && ledger.status(own[i], _books[own[i]].grant.custodian) == IConsentLedger.Reason.Revoked;
            }
        }
        revert Undone(all);
    }

    /// @dev The ledger itself, for whoever asks at the handler's time.
    function theLedger() external onTime returns (IConsentLedger) {
        return ledger;
    }

    // ------------------------------------------------------------------------------------------------------- tools

    function _draft(uint256 who, uint256 from, uint256 length, uint256 uses) private onTime returns (bytes32 id) {
        if (ids.length == MOST_CONSENTS) return _id(who);
        uint256 key = FIRST_KEY + who % SUBJECTS;
        uint64 validFrom = uint64(clock + between(from, 0, 2000) - 1000);
        IConsentLedger.Grant memory g = IConsentLedger.Grant({
            termsHash: keccak256(abi.encode("terms", ids.length)),
            subject: vm.addr(key),
            custodian: custodians[uses % 2],
            validFrom: validFrom,
            expiresAt: validFrom + uint64(between(length, 1, 1500)),
            maxAccesses: uint32(between(uses, 1, 5))
        });
        id = idOf(g);
        ids.push(id);
        (_books[id].grant, _books[id].key) = (g, key);
    }

    function _grant(bytes32 id, bool direct) private {
        Book storage book = _books[id];
        bytes memory signature = direct ? bytes("") : signed(book.key, id);
        if (direct) vm.prank(book.grant.subject);
        try ledger.grant(book.grant, signature) {
            if (book.granted) _breaks(2, "granted twice");
            if (book.revoked) _breaks(1, "granted after a revocation");
            book.granted = true;
            ++done[Deed.Granted];
        } catch {
            if (!book.granted && !book.revoked) _breaks(2, "the subject could not grant");
        }
    }

    function _append(uint256 where, uint256 seed, IConsentLedger.BatchKind kind) private {
        _appendBatch(where, seed, kind, 0);
    }

    function _appendBatch(uint256 where, uint256 seed, IConsentLedger.BatchKind kind, uint64 until) private {
        (address custodian, address writer, LogBook storage book) = _log(where);
        IConsentLedger.Access[] memory batch = _batch(custodian, seed, between(seed >> 8, 1, 4));
        (book.lastOn, book.lastKind, book.lastEmbargo) = (book.head, kind, until);
        delete book.last;
        for (uint256 i = 0; i < batch.length; ++i) book.last.push(batch[i]);
        vm.recordLogs();
        if (_send(custodian, writer, book.head, batch, kind, until)) _readBatch(custodian, writer);
        else _breaks(6, "a writer could not append");
    }

    function _send(
        address custodian,
        address writer,
        bytes32 on,
        IConsentLedger.Access[] memory batch,
        IConsentLedger.BatchKind kind,
        uint64 until
    ) private returns (bool sent) {
        bytes memory data;
        if (kind == IConsentLedger.BatchKind.CompelledAccesses) {
            bytes32[] memory entries = new bytes32[](batch.length);
            for (uint256 i = 0; i < batch.length; ++i) entries[i] = batch[i].entryHash;
            data = abi.encodeCall(ledger.appendCompelled, (custodian, on, batch[0].consentId, until, entries));
        } else {
            bytes4[3] memory calls = [ledger.append.selector, ledger.appendRefusals.selector, ledger.appendLate.selector];
            data = abi.encodeWithSelector(calls[uint8(kind)], custodian, on, batch);
        }
        vm.prank(writer);
        (sent,) = address(ledger).call(data);
    }

    /// @dev Any consents, mostly the custodian's own, some unknown; and every entry new.
    function _batch(address custodian, uint256 seed, uint256 length)
        private
        returns (IConsentLedger.Access[] memory batch)
    {
        batch = new IConsentLedger.Access[](length);
        for (uint256 i = 0; i < length; ++i) {
            seed = uint256(keccak256(abi.encode(seed)));
            bytes32 id = bytes32(seed);
            if (seed % 8 > 0) id = _id(seed >> 8);
            if (seed % 4 > 0 && _books[id].grant.custodian != custodian) id = _id(seed >> 16);
            batch[i] = IConsentLedger.Access(id, keccak256(abi.encode("entry", ++_entries)));
        }
    }

    function _id(uint256 which) private view returns (bytes32) {
        return ids[which % ids.length];
    }

    function _only(bytes32 id) private pure returns (bytes32[] memory one) {
        one = new bytes32[](1);
        one[0] = id;
    }

    function _log(uint256 where) private view returns (address custodian, address writer, LogBook storage book) {
        (custodian, writer) = (custodians[where % 2], writers[where / 2 % 2]);
        book = _logBooks[custodian][writer];
    }

    /// @dev Up to `most` consents of the subject with this key, from `start` round.
    function _consentsOf(uint256 key, uint256 start, uint256 most) private view returns (bytes32[] memory own) {
        own = new bytes32[](most);
        uint256 found;
        for (uint256 i = 0; i < ids.length && found < most; ++i) {
            bytes32 id = ids[(start % ids.length + i) % ids.length];
            if (_books[id].key == key) own[found++] = id;
        }
        assembly ("memory-safe") {
            mstore(own, found)
        }
    }

    function _grants(bytes32[] memory own) private view returns (IConsentLedger.Grant[] memory grants) {
        grants = new IConsentLedger.Grant[](own.length);
        for (uint256 i = 0; i < own.length; ++i) grants[i] = _books[own[i]].grant;
    }
}
