// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {AccessLog} from "./AccessLog.sol";

/// @title Consent Ledger
/// @notice The deployed contract: the room of consents and the room of accesses under one roof, so that an access is
/// checked and logged by one call. It takes no argument, so its CREATE2 address is the same on every chain.
/// See {IConsentLedger} for everything it does.
contract ConsentLedger is AccessLog {}
