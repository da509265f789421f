// Signs typed data as a wallet does, with a library that no one here wrote.
// stdin: {"library": "ethers" | "viem", "key": "0x...", "typedData": {...}}; stdout: the signature.
import { readFileSync } from "node:fs";

const { library, key, typedData } = JSON.parse(readFileSync(0, "utf8"));
const { EIP712Domain: _, ...types } = typedData.types;

async function withEthers() {
  const { Wallet } = await import("ethers");
  return new Wallet(key).signTypedData(typedData.domain, types, typedData.message);
}

async function withViem() {
  const { privateKeyToAccount } = await import("viem/accounts");
  const { domain, primaryType, message } = typedData;
  return privateKeyToAccount(key).signTypedData({ domain, types, primaryType, message });
}

console.log(await { ethers: withEthers, viem: withViem }[library]());
