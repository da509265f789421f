import { createRequire } from "node:module";
import hardhatNetworkHelpers from "@nomicfoundation/hardhat-network-helpers";
import hardhatNodeTestRunner from "@nomicfoundation/hardhat-node-test-runner";
import hardhatViem from "@nomicfoundation/hardhat-viem";
import hardhatViemAssertions from "@nomicfoundation/hardhat-viem-assertions";

const require = createRequire(import.meta.url);
// The npm package "solc" is the compiler: a text file at `path` is loaded as solc-js, so nothing is downloaded.
const compiler = {
  version: require("solc/package.json").version,
  path: require.resolve("solc/soljson.js"),
  settings: {
    optimizer: { enabled: true, runs: 1_000_000 },
    evmVersion: "osaka",
    // The metadata lists the sources that the contract needs: they ship with its ABI, so that anyone can recompile it.
    outputSelection: { "*": { "*": ["metadata"] } },
  },
};

export default {
  plugins: [hardhatViem, hardhatViemAssertions, hardhatNetworkHelpers, hardhatNodeTestRunner],
  // One compiler setting for every profile: what is tested is what is deployed.
  solidity: { profiles: { default: compiler, production: compiler } },
  paths: { sources: "./contracts", tests: { nodejs: "./tests/contracts", solidity: "./contracts" } },
  networks: {
    default: { type: "edr-simulated", chainType: "l1", hardfork: "osaka", chainId: 31337 },
    // `hardhat node` serves this network: `consent-ledger devnet` starts it on loopback. Without the last option every
    // block would be a second later than the one before it, and a busy chain would run ahead of the clock.
    node: {
      type: "edr-simulated",
      chainType: "l1",
      hardfork: "osaka",
      chainId: 31337,
      loggingEnabled: false,
      allowBlocksWithSameTimestamp: true,
    },
  },
  test: { solidity: { fuzz: { runs: 256 }, invariant: { runs: 64, depth: 64 } } },
};
