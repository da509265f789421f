/**
 * "Check it yourself": the hash of an access is made again from its opening, and looked for on chain.
 *
 * The chain is asked through this service or, without it, through a wallet: then nothing is left to the service's word
 * but the opening itself, and a wrong opening makes another hash.
 */
import { ENTRY_EVENTS } from "./chain.js";
import { PortalError } from "./errors.js";
import { structHash } from "./typed.js";

/**
 * @typedef {{entry: Record<string, any>, entryHash: string,
 *   proof: {chainId: number, contract: string, transactionHash: string}}} Access an opening, and where its entry stands
 * @typedef {{entryHash: string, kind: "recorded" | "refused" | "late", blockNumber: number, blockHash: string,
 *   timestamp: number, logIndex: number}} Found `timestamp` in Unix seconds, of the block
 */

/** The hash that an opening makes, as `ledger/access.py` `entry_hash_of`. @param {Record<string, any>} entry */
export const entryHashOf = (entry) => structHash("AccessEntry", entry);

/**
 * Throws `check_hash_differs` if the opening makes another hash than the service says, `check_absent` if the transaction
 * is not on the chain or has no entry of this consent, `check_other` if it has only others, `chain_unreachable`.
 * @param {Access} access @param {import("./chain.js").Rpc} rpc
 * @returns {Promise<Found>}
 */
export async function checkAccess({ entry, entryHash, proof }, rpc) {
  const made = entryHashOf(entry);
  if (made !== entryHash) throw new PortalError("check_hash_differs", { detail: made });
  if (Number(await rpc("eth_chainId", [])) !== proof.chainId) throw new PortalError("wallet_wrong_chain");
  const receipt = await rpc("eth_getTransactionReceipt", [proof.transactionHash]);
  if (!receipt || receipt.status !== "0x1") throw new PortalError("check_absent");
  const ofConsent = logsOf(receipt).filter((log) => isEntry(log, proof.contract, entry.consentId));
  if (ofConsent.length === 0) throw new PortalError("check_absent");
  const log = ofConsent.find(({ data }) => String(data).slice(0, 66).toLowerCase() === made);
  if (!log) throw new PortalError("check_other");
  const block = await rpc("eth_getBlockByNumber", [receipt.blockNumber, false]);
  // The transaction may have been moved between the two questions: asked again, the answers agree.
  if (block?.hash !== receipt.blockHash) throw new PortalError("chain_unreachable");
  return {
    entryHash: made,
    kind: ENTRY_EVENTS[log.topics[0]],
    blockNumber: Number(receipt.blockNumber),
    blockHash: block.hash,
    timestamp: Number(block.timestamp),
    logIndex: Number(log.logIndex),
  };
}

function logsOf(receipt) {
  if (!Array.isArray(receipt.logs)) throw new PortalError("chain_unreachable");
  return receipt.logs;
}

function isEntry({ address, topics }, contract, consentId) {
  const ours = String(address).toLowerCase() === contract.toLowerCase();
  return ours && topics?.[0] in ENTRY_EVENTS && String(topics[1]).toLowerCase() === consentId.toLowerCase();
}
