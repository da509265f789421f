// What the tests and the gas benchmark share: the signed formats, a deployed ledger, signers, grants.
import { bytesToHex, encodeAbiParameters, hashStruct, hashTypedData, keccak256, numberToHex, zeroHash } from "viem";
import { generatePrivateKey, privateKeyToAccount } from "viem/accounts";

export const TYPES = {
  ConsentGrant: [
    { name: "terms", type: "Terms" },
    { name: "subject", type: "address" },
    { name: "custodian", type: "address" },
    { name: "validFrom", type: "uint64" },
    { name: "expiresAt", type: "uint64" },
    { name: "maxAccesses", type: "uint32" },
  ],
  Terms: [
    { name: "institution", type: "string" },
    { name: "institutionName", type: "string" },
    { name: "purpose", type: "string" },
    { name: "attributes", type: "string[]" },
    { name: "accessesPerDay", type: "uint32" },
    { name: "retentionDays", type: "uint32" },
    { name: "noticeHash", type: "bytes32" },
    { name: "replaces", type: "bytes32" },
    { name: "salt", type: "bytes32" },
  ],
  ConsentRevocation: [{ name: "consentIds", type: "bytes32[]" }],
  ConsentPause: [
    { name: "consentId", type: "bytes32" },
    { name: "paused", type: "bool" },
    { name: "sequence", type: "uint32" },
  ],
};

export const Reason = {
  None: 0,
  NotGranted: 1,
  NotYetValid: 2,
  Expired: 3,
  Paused: 4,
  Revoked: 5,
  Exhausted: 6,
  WrongCustodian: 7,
  ByCustodian: 8,
  Compelled: 9,
};
export const BatchKind = { Accesses: 0, Refusals: 1, LateAccesses: 2, CompelledAccesses: 3 };

export const random32 = () => bytesToHex(crypto.getRandomValues(new Uint8Array(32)));
export const newSubject = () => privateKeyToAccount(generatePrivateKey());

/** Terms as a person signs them; only their hash goes to the contract. */
export function someTerms(changes = {}) {
  return {
    institution: "did:web:bank.example",
    institutionName: "Example Bank",
    purpose: "loan-origination",
    attributes: ["repayment_status", "credit_limit"],
    accessesPerDay: 2,
    retentionDays: 90,
    noticeHash: random32(),
    replaces: zeroHash,
    salt: random32(),
    ...changes,
  };
}

export const termsHash = (terms) => hashStruct({ types: TYPES, primaryType: "Terms", data: terms });

const words = (types, values) => keccak256(encodeAbiParameters(types.map((type) => ({ type })), values));

/** The fold that `append` documents: what an auditor recomputes. */
export const fold = (head, kind, accesses, reasons) =>
  accesses.reduce(
    (folded, access, i) =>
      words(["bytes32", "bytes32", "bytes32", "uint8"], [folded, access.consentId, access.entryHash, reasons[i]]),
    words(["bytes32", "uint8", "uint256"], [head, kind, BigInt(accesses.length)]),
  );

/** The fold that `appendCompelled` documents: the order and its embargo first, then its entries. */
export const foldCompelled = (head, orderHash, embargoUntil, entryHashes) =>
  [numberToHex(embargoUntil, { size: 32 }), ...entryHashes].reduce(
    (folded, word) => words(["bytes32", "bytes32", "bytes32", "uint8"], [folded, orderHash, word, Reason.Compelled]),
    words(["bytes32", "uint8", "uint256"], [head, BatchKind.CompelledAccesses, BigInt(entryHashes.length)]),
  );

/** A fresh ledger on a fresh simulated chain, and the verbs that tests speak in. */
export async function deployLedger(connection) {
  const { viem } = connection;
  const [relayer, custodian, writer, stranger] = await viem.getWalletClients();
  const publicClient = await viem.getPublicClient();
  const ledger = await viem.deployContract("ConsentLedger");
  const chainId = await publicClient.getChainId();
  const domain = { name: "ConsentLedger", version: "1", chainId, verifyingContract: ledger.address };

  const now = async () => (await publicClient.getBlock()).timestamp;
  /** A grant ready to be sent: the outer fields for the contract, the full message for the signer. */
  async function newGrant({ subject = newSubject(), terms = someTerms(), ...outer } = {}) {
    const at = await now();
    const fields = {
      subject: subject.address,
      custodian: custodian.account.address,
      validFrom: at - 60n,
      expiresAt: at + 86_400n,
      maxAccesses: 3,
      ...outer,
    };
    const message = { terms, ...fields };
    const id = hashTypedData({ domain, types: TYPES, primaryType: "ConsentGrant", message });
    return { id, subject, message, outer: { termsHash: termsHash(terms), ...fields } };
  }
  const signGrant = (g, by = g.subject, on = domain) =>
    by.signTypedData({ domain: on, types: TYPES, primaryType: "ConsentGrant", message: g.message });
  const signRevocation = (grants, by = grants[0].subject, on = domain) =>
    by.signTypedData({
      domain: on,
      types: TYPES,
      primaryType: "ConsentRevocation",
      message: { consentIds: grants.map((g) => g.id) },
    });
  const signPause = (g, paused, sequence, by = g.subject, on = domain) =>
    by.signTypedData({
      domain: on,
      types: TYPES,
      primaryType: "ConsentPause",
      message: { consentId: g.id, paused, sequence },
    });

  const mined = async (hash) => publicClient.getTransactionReceipt({ hash: await hash });
  const granted = async (changes) => {
    const g = await newGrant(changes);
    await ledger.write.grant([g.outer, await signGrant(g)]);
    return g;
  };
  const allowWriter = (who = writer, of = custodian) =>
    ledger.write.setWriter([who.account.address, true], { account: of.account });
  const head = async (who = writer, of = custodian) =>
    (await ledger.read.logOf([of.account.address, who.account.address])).head;
  const access = (g, entryHash = random32()) => ({ consentId: g.id, entryHash });
  const append = async (accesses, { as = writer, of = custodian, how = "append", on } = {}) =>
    ledger.write[how]([of.account.address, on ?? (await head(as, of)), accesses], { account: as.account });
  const appendCompelled = async (order, embargoUntil, entryHashes, { as = writer, of = custodian, on } = {}) => {
    const args = [of.account.address, on ?? (await head(as, of)), order, embargoUntil, entryHashes];
    return ledger.write.appendCompelled(args, { account: as.account });
  };
  const status = (g, of = custodian) => ledger.read.status([g.id, of.account.address]);

  return {
    ...{ viem, publicClient, ledger, chainId, domain, relayer, custodian, writer, stranger },
    ...{ now, newGrant, signGrant, signRevocation, signPause, mined, granted, allowWriter, head, access },
    ...{ append, appendCompelled, status },
  };
}
