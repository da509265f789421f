// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IConsentLedger} from "./IConsentLedger.sol";
import {LedgerTest} from "./LedgerTest.t.sol";

/// @dev A smart account that accepts one signature over one digest, byte by byte.
contract PickyWallet {
    bytes32 private immutable _digest;
    bytes32 private immutable _signatureHash;

    constructor(bytes32 digest, bytes memory signature) {
        (_digest, _signatureHash) = (digest, keccak256(signature));
    }

    function isValidSignature(bytes32 digest, bytes calldata signature) external view returns (bytes4) {
        return digest == _digest && keccak256(signature) == _signatureHash ? this.isValidSignature.selector : bytes4(0);
    }
}

contract ConsentLedgerTest is LedgerTest {
    enum Tamper {
        TermsHash,
        Subject,
        Custodian,
        ValidFrom,
        ExpiresAt,
        MaxAccesses,
        R,
        S,
        V,
        HighS,
        Shorter,
        Longer,
        Key,
        Chain,
        Contract
    }

    function setUp() public {
        vm.warp(NOW);
    }

    /// @dev Any grant that can be granted, with room to flip any low bit of any field and stay valid otherwise.
    function _usable(IConsentLedger.Grant memory g, uint256 seed) private pure returns (uint256 key) {
        key = between(seed, 1, CURVE_ORDER - 2);
        g.subject = vm.addr(key);
        g.custodian = address(uint160(g.custodian) | 3);
        g.validFrom = uint64(between(g.validFrom, NOW - 1e8, NOW + 1e8));
        g.expiresAt = uint64(between(g.expiresAt, g.validFrom + 2 ** 17, type(uint48).max - 2 ** 17));
        g.maxAccesses |= 3;
    }

    function testFuzz_theIdIsTheEip712Digest(IConsentLedger.Grant calldata g) public view {
        assert(ledger.consentIdOf(g) == idOf(g));
    }

    function testFuzz_aGrantIsKeptAsSigned(IConsentLedger.Grant memory g, uint256 seed) public {
        uint256 key = _usable(g, seed);
        assert(ledger.grant(g, signed(key, idOf(g))) == idOf(g));
        IConsentLedger.Consent memory c = ledger.consentOf(idOf(g));
        assert(c.validFrom == g.validFrom && c.expiresAt == g.expiresAt && c.maxAccesses == g.maxAccesses);
        assert(c.accesses == 0 && c.pauseSequence == 0 && c.state == IConsentLedger.State.Active);
        assert(c.custodianNumber == 1 && ledger.numberOf(g.custodian) == 1);
    }

    function testFuzz_aGrantWithAnyOneThingFlippedIsNotSigned(
        IConsentLedger.Grant memory g,
        uint256 seed,
        uint8 which,
        uint8 where
    ) public {
        uint256 key = _usable(g, seed);
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, idOf(g));
        uint256 bit = 1 << where; // anywhere in a word
        uint256 low = 1 << (where % 16); // where a number stays usable

        Tamper tamper = Tamper(which % (uint256(type(Tamper).max) + 1));
        if (tamper == Tamper.TermsHash) g.termsHash ^= bytes32(bit);
        if (tamper == Tamper.Subject) g.subject = address(uint160(g.subject) ^ uint160(1 << (where % 160)));
        if (tamper == Tamper.Custodian) g.custodian = address(uint160(g.custodian) ^ uint160(1 << (where % 160)));
        if (tamper == Tamper.ValidFrom) g.validFrom ^= uint64(low);
        if (tamper == Tamper.ExpiresAt) g.expiresAt ^= uint64(low);
        if (tamper == Tamper.MaxAccesses) g.maxAccesses ^= uint32(low);
        if (tamper == Tamper.R) r ^= bytes32(bit);
        if (tamper == Tamper.S) s ^= bytes32(bit);
        if (tamper == Tamper.V) v = v == 27 ? 28 : 27;
        if (tamper == Tamper.HighS) (v, s) = (v == 27 ? 28 : 27, bytes32(CURVE_ORDER - uint256(s)));
        if (tamper == Tamper.Key) (v, r, s) = vm.sign(key + 1, idOf(g));
        if (tamper == Tamper.Chain) (v, r, s) = vm.sign(key, _elsewhere(g, block.chainid ^ low, address(ledger)));
        if (tamper == Tamper.Contract) (v, r, s) = vm.sign(key, _elsewhere(g, block.chainid, address(this)));
        bytes memory signature = abi.encodePacked(r, s, v);
        if (tamper == Tamper.Shorter) signature = abi.encodePacked(r, s);
        if (tamper == Tamper.Longer) signature = abi.encodePacked(r, s, v, where);

        notSigned(g, idOf(g));
        ledger.grant(g, signature);
    }

    function testFuzz_aRevocationSaysOnlyWhatWasSigned(
        IConsentLedger.Grant memory g,
        uint256 seed,
        bytes32[] memory signedIds
    ) public {
        uint256 key = _usable(g, seed);
        IConsentLedger.Grant[] memory grants = new IConsentLedger.Grant[](1);
        grants[0] = g;
        bytes32[] memory ids = new bytes32[](1);
        ids[0] = idOf(g);
        bytes memory signature = signed(key, revocationOf(signedIds));
        notSigned(g, revocationOf(ids));
        ledger.revoke(grants, signature);
        ledger.revoke(grants, signed(key, revocationOf(ids)));
        assert(ledger.consentOf(ids[0]).state == IConsentLedger.State.Revoked);
    }

    function testFuzz_aPauseSaysOnlyWhatWasSigned(IConsentLedger.Grant memory g, uint256 seed, bool paused, uint32 to)
        public
    {
        uint256 key = _usable(g, seed);
        bytes32 id = idOf(g);
        if (to == 0) to = 1;
        ledger.grant(g, signed(key, id));
        bytes memory signature = signed(key, pauseOf(id, paused, to));
        notSigned(g, pauseOf(id, !paused, to));
        ledger.setPaused(g, !paused, to, signature);
        notSigned(g, pauseOf(id, paused, to - 1));
        ledger.setPaused(g, paused, to - 1, signature);
        ledger.setPaused(g, paused, to, signature);
        IConsentLedger.Consent memory c = ledger.consentOf(id);
        assert(c.pauseSequence == to);
        assert(c.state == (paused ? IConsentLedger.State.Paused : IConsentLedger.State.Active));
        vm.expectRevert(abi.encodeWithSelector(IConsentLedger.StalePauseSequence.selector, id, to, to));
        ledger.setPaused(g, paused, to, signature);
    }

    /// @dev Time may go back here, so that every combination of reasons is reached.
    function testFuzz_theAnswerIsTheDocumentedRule(
        IConsentLedger.Grant memory g,
        uint256 seed,
        uint256 when,
        bool[4] memory done,
        uint8 uses
    ) public {
        uint256 key = _usable(g, seed);
        g.maxAccesses = uint32(between(g.maxAccesses, 1, 4));
        bytes32 id = idOf(g);
        (bool granted, bool paused, bool revoked, bool sameCustodian) = (done[0], done[1] && done[0], done[2], done[3]);
        uint256 accesses = granted ? between(uses, 0, g.maxAccesses) : 0;

        if (granted) ledger.grant(g, signed(key, id));
        vm.warp(g.validFrom);
        if (accesses > 0) _appendTo(g.custodian, id, accesses);
        if (paused) ledger.setPaused(g, true, 1, signed(key, pauseOf(id, true, 1)));
        if (revoked) {
            vm.prank(g.subject);
            ledger.revoke(_one(g), "");
        }

        // Half the time in the seconds around the two ends of the window, where mistakes live.
        uint256 edge = when & 2 == 0 ? g.validFrom : g.expiresAt;
        vm.warp(when & 1 == 0 ? between(when >> 2, edge - 2, edge + 2) : between(when >> 2, 0, type(uint48).max));
        address asking = sameCustodian ? g.custodian : address(this);
        assert(ledger.status(id, asking) == judged(g, granted, revoked, paused, accesses, asking));
    }

    function testFuzz_anySignatureReachesAWalletWhole(
        IConsentLedger.Grant memory g,
        uint256 seed,
        bytes memory signature
    ) public {
        _usable(g, seed);
        // A wallet's address is part of what it signs, so its code is put where the grant says.
        bytes memory runtime = address(new PickyWallet(idOf(g), signature)).code;
        vm.etch(g.subject, runtime);
        notSigned(g, idOf(g));
        ledger.grant(g, abi.encodePacked(signature, hex"00"));
        ledger.grant(g, signature);
        assert(ledger.consentOf(idOf(g)).state == IConsentLedger.State.Active);
    }

    function testFuzz_aBatchLandsOnceAndFoldsAsDocumented(bytes32[2][] memory entries, uint8 kind) public {
        if (entries.length == 0) return;
        IConsentLedger.Access[] memory batch = new IConsentLedger.Access[](entries.length);
        for (uint256 i = 0; i < entries.length; ++i) batch[i] = IConsentLedger.Access(entries[i][0], entries[i][1]);
        kind %= 3;
        IConsentLedger.Reason reason = kind == 1 ? IConsentLedger.Reason.ByCustodian : IConsentLedger.Reason.NotGranted;
        bytes32 head = keccak256(abi.encode(bytes32(0), kind, entries.length));
        for (uint256 i = 0; i < entries.length; ++i) {
            head = keccak256(abi.encode(head, entries[i][0], entries[i][1], reason));
        }

        ledger.setWriter(address(this), true);
        _send(kind, batch);
        IConsentLedger.Log memory log = ledger.logOf(address(this), address(this));
        assert(log.head == head && log.size == entries.length);
        vm.expectRevert(abi.encodeWithSelector(IConsentLedger.HeadMismatch.selector, bytes32(0), head));
        _send(kind, batch);
    }

    function testFuzz_anOrderFoldsAsDocumentedAndIsSecretForAYearAtMost(
        bytes32 order,
        bytes32[] memory entries,
        uint64 until,
        uint64 at
    ) public {
        if (entries.length == 0) return;
        at = uint64(between(at, 0, type(uint48).max));
        // Half the time near the bound, where mistakes live.
        uint64 latest = at + 366 days;
        if (until % 2 == 0) until = uint64(between(until, latest - 2, latest + 2));
        vm.warp(at);
        ledger.setWriter(address(this), true);
        if (until > latest) {
            vm.expectRevert(abi.encodeWithSelector(IConsentLedger.EmbargoTooLong.selector, until, latest));
            ledger.appendCompelled(address(this), 0, order, until, entries);
            assert(ledger.logOf(address(this), address(this)).size == 0);
            return;
        }
        ledger.appendCompelled(address(this), 0, order, until, entries);
        bytes32 head = keccak256(abi.encode(bytes32(0), uint8(3), entries.length));
        head = keccak256(abi.encode(head, order, bytes32(uint256(until)), uint8(9)));
        for (uint256 i = 0; i < entries.length; ++i) head = keccak256(abi.encode(head, order, entries[i], uint8(9)));
        IConsentLedger.Log memory log = ledger.logOf(address(this), address(this));
        assert(log.head == head && log.size == entries.length);
        vm.expectRevert(abi.encodeWithSelector(IConsentLedger.HeadMismatch.selector, bytes32(0), head));
        ledger.appendCompelled(address(this), 0, order, until, entries);
    }

    function test_aChainThatForksAwayTakesNoSignatureAlong() public {
        IConsentLedger.Grant memory g;
        uint256 key = _usable(g, 1);
        bytes memory signature = signed(key, idOf(g));
        bytes32 before = idOf(g);
        vm.chainId(block.chainid + 1);
        assert(idOf(g) != before && ledger.consentIdOf(g) == idOf(g));
        notSigned(g, idOf(g));
        ledger.grant(g, signature);
    }

    /// @dev The counter is added to without a check: at the top of its bits it must not run into its neighbour.
    function test_theLastOfFourBillionAccessesTouchesNothingElse() public {
        IConsentLedger.Grant memory g;
        uint256 key = _usable(g, 1);
        g.maxAccesses = type(uint32).max;
        bytes32 id = idOf(g);
        ledger.grant(g, signed(key, id));
        bytes32 slot = keccak256(abi.encode(id, uint256(2)));
        bytes32 word = vm.load(address(ledger), slot);
        vm.store(address(ledger), slot, bytes32(uint256(word) | uint256(type(uint32).max - 1) << 128));
        vm.warp(g.validFrom);
        _appendTo(g.custodian, id, 2);
        IConsentLedger.Consent memory c = ledger.consentOf(id);
        assert(c.accesses == type(uint32).max && c.maxAccesses == type(uint32).max && c.custodianNumber == 1);
        assert(ledger.status(id, g.custodian) == IConsentLedger.Reason.Exhausted);
    }

    function _elsewhere(IConsentLedger.Grant memory g, uint256 chainId, address verifier)
        private
        pure
        returns (bytes32)
    {
        return digestOf(grantHash(g), chainId, verifier);
    }

    function _appendTo(address custodian, bytes32 id, uint256 count) private {
        IConsentLedger.Access[] memory batch = new IConsentLedger.Access[](count);
        for (uint256 i = 0; i < count; ++i) batch[i] = IConsentLedger.Access(id, bytes32(i));
        vm.prank(custodian);
        ledger.setWriter(address(this), true);
        ledger.append(custodian, ledger.logOf(custodian, address(this)).head, batch);
    }

    function _send(uint8 kind, IConsentLedger.Access[] memory batch) private {
        if (kind == 0) ledger.append(address(this), 0, batch);
        if (kind == 1) ledger.appendRefusals(address(this), 0, batch);
        if (kind == 2) ledger.appendLate(address(this), 0, batch);
    }

    function _one(IConsentLedger.Grant memory g) private pure returns (IConsentLedger.Grant[] memory grants) {
        grants = new IConsentLedger.Grant[](1);
        grants[0] = g;
    }
}
