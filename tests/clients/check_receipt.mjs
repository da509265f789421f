// Checks an AccessReceipt against the chain with jose and viem alone, from the documented formats.
// stdin: {"receipt": "...", "custodian": <public JWK>, "rpcUrl": "..."}; stdout: what was found.
import { readFileSync } from "node:fs";
import { importJWK, jwtVerify } from "jose";
import { createPublicClient, decodeEventLog, hashStruct, http, parseAbi } from "viem";

const ENTRY = {
  AccessEntry: [
    { name: "consentId", type: "bytes32" },
    { name: "releaseId", type: "bytes32" },
    { name: "institution", type: "string" },
    { name: "purpose", type: "string" },
    { name: "attributes", type: "string[]" },
    { name: "requestHash", type: "bytes32" },
    { name: "recordsHash", type: "bytes32" },
    { name: "salt", type: "bytes32" },
  ],
};
const abi = parseAbi(["event AccessRecorded(bytes32 indexed consentId, bytes32 entryHash)"]);

const { receipt, custodian, rpcUrl } = JSON.parse(readFileSync(0, "utf8"));
const { payload } = await jwtVerify(receipt, await importJWK(custodian, "ES256"), { typ: "access-receipt+jwt" });
const { entry, proof } = payload;
const chain = createPublicClient({ transport: http(rpcUrl) });
const mined = await chain.getTransactionReceipt({ hash: proof.transactionHash });
const log = mined.logs.find(({ logIndex }) => logIndex === proof.logIndex);
const { args } = decodeEventLog({ abi, ...log });
const entryHash = hashStruct({ types: ENTRY, primaryType: "AccessEntry", data: entry });

console.log(
  JSON.stringify({
    chain: (await chain.getChainId()) === proof.chainId,
    contract: log.address.toLowerCase() === proof.contract.toLowerCase(),
    block: mined.blockHash === proof.blockHash,
    consent: args.consentId === entry.consentId,
    entry: args.entryHash === entryHash && entryHash === payload.entryHash,
  }),
);
