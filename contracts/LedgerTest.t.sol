// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ConsentLedger} from "./ConsentLedger.sol";
import {IConsentLedger} from "./IConsentLedger.sol";

/// @dev The cheatcodes that the tests use.
interface Vm {
    struct Entry {
        bytes32[] topics;
        bytes data;
        address emitter;
    }

    function addr(uint256 key) external pure returns (address);
    function chainId(uint256 id) external;
    function etch(address target, bytes calldata code) external;
    function expectRevert(bytes calldata data) external;
    function getRecordedLogs() external returns (Entry[] memory);
    function load(address target, bytes32 slot) external view returns (bytes32);
    function prank(address caller) external;
    function recordLogs() external;
    function sign(uint256 key, bytes32 digest) external pure returns (uint8 v, bytes32 r, bytes32 s);
    function store(address target, bytes32 slot, bytes32 value) external;
    function warp(uint256 time) external;
}

/// @dev A ledger, and the signed formats written down a second time: from the documentation, not from the source.
abstract contract LedgerTest {
    Vm internal constant vm = Vm(0x7109709ECfa91a80626fF3989D68f67F5b1DD12D);
    uint256 internal constant CURVE_ORDER = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141;
    uint256 internal constant NOW = 1_800_000_000;

    ConsentLedger internal ledger = new ConsentLedger();

    function digestOf(bytes32 structHash, uint256 chainId, address verifier) internal pure returns (bytes32) {
        bytes32 domain = keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256("ConsentLedger"),
                keccak256("1"),
                chainId,
                verifier
            )
        );
        return keccak256(abi.encodePacked(hex"1901", domain, structHash));
    }

    function grantHash(IConsentLedger.Grant memory g) internal pure returns (bytes32) {
        bytes32 typeHash = keccak256(
            "ConsentGrant(Terms terms,address subject,address custodian,uint64 validFrom,uint64 expiresAt,uint32 maxAccesses)"
            "Terms(string institution,string institutionName,string purpose,string[] attributes,uint32 accessesPerDay,uint32 retentionDays,bytes32 noticeHash,bytes32 replaces,bytes32 salt)"
        );
        return keccak256(abi.encode(typeHash, g));
    }

    function idOf(IConsentLedger.Grant memory g) internal view returns (bytes32) {
        return digestOf(grantHash(g), block.chainid, address(ledger));
    }

    function revocationOf(bytes32[] memory ids) internal view returns (bytes32) {
        bytes32 typeHash = keccak256("ConsentRevocation(bytes32[] consentIds)");
        bytes32 structHash = keccak256(abi.encode(typeHash, keccak256(abi.encodePacked(ids))));
        return digestOf(structHash, block.chainid, address(ledger));
    }

    function pauseOf(bytes32 id, bool paused, uint32 sequence) internal view returns (bytes32) {
        bytes32 typeHash = keccak256("ConsentPause(bytes32 consentId,bool paused,uint32 sequence)");
        return digestOf(keccak256(abi.encode(typeHash, id, paused, sequence)), block.chainid, address(ledger));
    }

    function signed(uint256 key, bytes32 digest) internal pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        return abi.encodePacked(r, s, v);
    }

    function notSigned(IConsentLedger.Grant memory g, bytes32 digest) internal {
        vm.expectRevert(abi.encodeWithSelector(IConsentLedger.InvalidSignature.selector, g.subject, digest));
    }

    /// @dev The rules as IConsentLedger documents them at Reason, over plain fields.
    function judged(
        IConsentLedger.Grant memory g,
        bool granted,
        bool revoked,
        bool paused,
        uint256 accesses,
        address asking
    ) internal view returns (IConsentLedger.Reason) {
        if (revoked) return IConsentLedger.Reason.Revoked;
        if (!granted) return IConsentLedger.Reason.NotGranted;
        if (g.custodian != asking) return IConsentLedger.Reason.WrongCustodian;
        if (!(block.timestamp < g.expiresAt)) return IConsentLedger.Reason.Expired;
        if (!(accesses < g.maxAccesses)) return IConsentLedger.Reason.Exhausted;
        if (!(g.validFrom <= block.timestamp)) return IConsentLedger.Reason.NotYetValid;
        if (paused) return IConsentLedger.Reason.Paused;
        return IConsentLedger.Reason.None;
    }

    function between(uint256 seed, uint256 low, uint256 high) internal pure returns (uint256) {
        return low + seed % (high - low + 1);
    }
}
