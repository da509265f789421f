// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Books} from "./Books.t.sol";
import {Handler} from "./Handler.t.sol";
import {IConsentLedger} from "./IConsentLedger.sol";

// INVARIANTS, whatever is called, by whomever, in whatever order, at whatever time:
//
//   1. Revoked never becomes active: after its first ConsentRevoked a consent is Revoked, to everyone, for ever.
//   2. Only the subject widens: no consent comes into being, or out of a pause, but by its subject's signature or call,
//      and what stands is exactly what was signed. A custodian narrows only, and only what names it.
//   3. The subject can always revoke in one transaction, by one signature that a stranger relays, whatever came before.
//   4. Every AccessRecorded belonged to a consent in force: granted, not revoked, not paused, within its window, not
//      used up, and of this custodian.
//   5. The counter never exceeds maxAccesses, and it is the number of AccessRecorded.
//   6. Size and head of every log equal the fold of all its events.
//   7. A batch sent twice lands once.
//   8. There is one validity question: what status answers is what an append does, and why, in the documented order.
//   9. A custodian has one number, a number one custodian, and it never changes.
//  10. A compelled access is one of its own kind: it counts under no consent, all of a batch are of one order and one
//      embargo, and no embargo is longer than 366 days.
//
// The handler does the deeds and keeps the books (Books.t.sol); here the ledger is held against them. Run all Solidity
// tests, with --grep if need be: given this file alone, Hardhat does not load the handler's artifact.
contract InvariantsTest {
    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    Handler private _handler;
    IConsentLedger private _ledger;

    function setUp() public {
        _handler = new Handler();
        _ledger = _handler.theLedger();
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(_handler);
    }

    function targetSelectors() external view returns (FuzzSelector[] memory targets) {
        targets = new FuzzSelector[](1);
        targets[0] = FuzzSelector(address(_handler), _handler.deeds());
    }

    modifier unbroken(uint256 number) {
        _ledger = _handler.theLedger(); // and the handler's time
        _;
        string memory how = _handler.broken(number);
        require(bytes(how).length == 0, how);
    }

    function invariant_1_revokedNeverBecomesActive() public unbroken(1) {
        (uint256 consents,) = _handler.sizes();
        for (uint256 i = 0; i < consents; ++i) {
            bytes32 id = _handler.ids(i);
            if (!_handler.bookOf(id).revoked) continue;
            assert(_ledger.consentOf(id).state == IConsentLedger.State.Revoked);
            for (uint256 c = 0; c < 2; ++c) {
                assert(_ledger.status(id, _handler.custodians(c)) == IConsentLedger.Reason.Revoked);
            }
        }
    }

    function invariant_2_onlyTheSubjectWidens() public unbroken(2) {
        (uint256 consents,) = _handler.sizes();
        for (uint256 i = 0; i < consents; ++i) {
            bytes32 id = _handler.ids(i);
            Books.Book memory book = _handler.bookOf(id);
            IConsentLedger.Consent memory c = _ledger.consentOf(id);
            assert(c.validFrom == (book.granted ? book.grant.validFrom : 0));
            assert(c.expiresAt == (book.granted ? book.grant.expiresAt : 0));
            assert(c.maxAccesses == (book.granted ? book.grant.maxAccesses : 0));
            assert(c.custodianNumber == (book.granted ? _ledger.numberOf(book.grant.custodian) : 0));
            assert(c.pauseSequence == book.sequence);
            IConsentLedger.State standing = book.paused ? IConsentLedger.State.Paused : IConsentLedger.State.Active;
            if (!book.granted) standing = IConsentLedger.State.Unknown;
            assert(c.state == (book.revoked ? IConsentLedger.State.Revoked : standing));
        }
    }

    function invariant_3_theSubjectCanAlwaysRevokeAtOnce() public unbroken(3) {
        for (uint256 who = 0; who < _handler.SUBJECTS(); ++who) {
            try _handler.tryToRevokeEverythingOf(who) {
                assert(false);
            } catch (bytes memory undone) {
                assert(keccak256(undone) == keccak256(abi.encodeWithSelector(Handler.Undone.selector, true)));
            }
        }
    }

    function invariant_4_everyRecordedAccessWasUnderAConsentInForce() public unbroken(4) {
        (uint256 consents,) = _handler.sizes();
        for (uint256 i = 0; i < consents; ++i) {
            Books.Book memory book = _handler.bookOf(_handler.ids(i));
            assert(book.recorded == 0 || book.granted);
        }
    }

    function invariant_5_theCounterIsTheNumberOfRecordsAndWithinTheLimit() public unbroken(5) {
        (uint256 consents,) = _handler.sizes();
        for (uint256 i = 0; i < consents; ++i) {
            bytes32 id = _handler.ids(i);
            IConsentLedger.Consent memory c = _ledger.consentOf(id);
            assert(c.accesses <= c.maxAccesses);
            assert(c.accesses == _handler.bookOf(id).recorded);
        }
    }

    function invariant_6_sizeAndHeadAreTheFoldOfAllEvents() public unbroken(6) {
        for (uint256 i = 0; i < 4; ++i) {
            (address custodian, address writer) = (_handler.custodians(i % 2), _handler.writers(i / 2));
            (bytes32 head, uint256 size) = _handler.logBookOf(custodian, writer);
            IConsentLedger.Log memory log = _ledger.logOf(custodian, writer);
            assert(log.head == head && log.size == size);
            assert(log.custodianNumber == _ledger.numberOf(custodian));
        }
    }

    function invariant_7_anEntrySentTwiceLandsOnce() public unbroken(7) {
        (, uint256 entries) = _handler.sizes();
        for (uint256 i = 0; i < entries; ++i) {
            assert(_handler.landings(_handler.entryHashes(i)) == 1);
        }
    }

    function invariant_8_thereIsOneValidityQuestion() public unbroken(8) {
        (uint256 consents,) = _handler.sizes();
        for (uint256 i = 0; i < consents; ++i) {
            bytes32 id = _handler.ids(i);
            for (uint256 c = 0; c < 2; ++c) {
                address asking = _handler.custodians(c);
                assert(_ledger.status(id, asking) == _handler.answer(id, asking));
            }
        }
    }

    function invariant_9_oneCustodianOneNumber() public unbroken(9) {
        assert(_ledger.numberOf(_handler.custodians(0)) == 1);
        assert(_ledger.numberOf(_handler.custodians(1)) == 2);
        assert(_ledger.numberOf(address(_handler)) == 0);
    }

    function invariant_10_anOrderUsesNoConsentAndIsNotSecretForEver() public unbroken(10) {
        (uint256 consents,) = _handler.sizes();
        for (uint256 i = 0; i < consents; ++i) {
            bytes32 id = _handler.ids(i);
            assert(_ledger.consentOf(id).accesses == _handler.bookOf(id).recorded);
            assert(_ledger.status(id, _handler.custodians(0)) != IConsentLedger.Reason.Compelled);
        }
    }

    /// @dev The campaign, by hand and with all the dice known: 48 runs of 64 deeds, after each of which everything
    /// holds, and in which everything really happened. Without it, a handler that only reverts would be green.
    function test_theDeedsReachEverything() public {
        bytes4[] memory deeds = _handler.deeds();
        uint256[20] memory done;
        uint256[16] memory refusedFor;
        for (uint256 run = 0; run < 48; ++run) {
            setUp();
            for (uint256 i = 0; i < 64; ++i) {
                uint256[5] memory dice;
                for (uint256 d = 0; d < 5; ++d) dice[d] = uint256(keccak256(abi.encode(run, i, d)));
                bytes4 deed = deeds[uint256(keccak256(abi.encode(run, i))) % deeds.length];
                (bool ok,) = address(_handler).call(abi.encodePacked(deed, abi.encode(dice)));
                assert(ok);
            }
            _everythingHolds();
            for (uint8 d = 0; d <= uint8(type(Books.Deed).max); ++d) done[d] += _handler.done(Books.Deed(d));
            for (uint8 r = 0; r <= uint8(type(IConsentLedger.Reason).max); ++r) {
                refusedFor[r] += _handler.refusedFor(IConsentLedger.Reason(r));
            }
        }
        for (uint8 d = 0; d <= uint8(type(Books.Deed).max); ++d) assert(done[d] > 10);
        // `Compelled` is never why something was refused.
        for (uint8 r = 1; r < uint8(type(IConsentLedger.Reason).max); ++r) assert(refusedFor[r] > 10);
        assert(refusedFor[uint8(IConsentLedger.Reason.Compelled)] == 0);
    }

    function _everythingHolds() private {
        invariant_1_revokedNeverBecomesActive();
        invariant_2_onlyTheSubjectWidens();
        invariant_3_theSubjectCanAlwaysRevokeAtOnce();
        invariant_4_everyRecordedAccessWasUnderAConsentInForce();
        invariant_5_theCounterIsTheNumberOfRecordsAndWithinTheLimit();
        invariant_6_sizeAndHeadAreTheFoldOfAllEvents();
        invariant_7_anEntrySentTwiceLandsOnce();
        invariant_8_thereIsOneValidityQuestion();
        invariant_9_oneCustodianOneNumber();
        invariant_10_anOrderUsesNoConsentAndIsNotSecretForEver();
    }
}
