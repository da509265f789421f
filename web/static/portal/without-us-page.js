/**
 * The public page that says how a consent is ended on chain without this service: what to send is made here, from the
 * receipt. Beside `#portal` and `#status` (see `page.js`) it holds
 *
 *   <form id="without-us"> with a textarea `receipt`, a file input `file` and a submit button
 *   <button id="in-advance">   signed in: signs the revocation with a passkey, so that anyone can send it, at any time
 *   <div id="result" hidden> with `#out-chain`, `#out-from`, `#out-to`, `#out-data`, `#out-cast`, `#out-rpc`, `#out-state`
 *   <p id="sender-own">, <p id="sender-any">
 */
import { fromBase64url } from "./bytes.js";
import { PortalError } from "./errors.js";
import { checksummed } from "./keys.js";
import { describe, jsonBlock, onClick, say, textOf } from "./page.js";
import { passkeySigner } from "./signer.js";
import { revokeCall, stateCall } from "./without-us.js";
import { digestOf, typedDataOf } from "./typed.js";

const portal = jsonBlock("portal");
const byId = (id) => /** @type {any} */ (document.getElementById(id));
const status = byId("status");
const { receipt, file } = byId("without-us").elements;

function read() {
  try {
    const claims = JSON.parse(new TextDecoder().decode(fromBase64url(receipt.value.trim().split(".")[1])));
    const where = { chainId: claims.domain.chainId, contract: claims.domain.verifyingContract };
    // Of a receipt that was changed, something else would be sent than the consent that is meant.
    if (digestOf(typedDataOf("ConsentGrant", where, claims.grant)) !== claims.consent) throw new Error("changed");
    return { grant: claims.grant, consent: claims.consent, where };
  } catch (cause) {
    throw new PortalError("receipt_not_one", { cause });
  }
}

function show({ grant, consent, where }, signature) {
  const from = signature === "0x" ? grant.subject : "ANY-ACCOUNT";
  const data = revokeCall([grant], signature);
  const call = { from, to: where.contract, data };
  const ask = [{ to: where.contract, data: stateCall(consent) }, "latest"];
  byId("out-chain").textContent = where.chainId;
  byId("out-from").textContent = from;
  byId("out-to").textContent = where.contract;
  byId("out-data").textContent = data;
  byId("out-cast").textContent = `cast send ${where.contract} ${data} --rpc-url YOUR-NODE --private-key YOUR-KEY`;
  byId("out-rpc").textContent = question("eth_sendTransaction", [call]);
  byId("out-state").textContent = question("eth_call", ask);
  byId("sender-own").hidden = signature !== "0x";
  byId("sender-any").hidden = signature === "0x";
  byId("result").hidden = false;
  say(status, "");
}

const question = (method, params) => JSON.stringify({ jsonrpc: "2.0", id: 1, method, params });

async function shown(act) {
  byId("result").hidden = true;
  try {
    await act();
  } catch (error) {
    say(status, describe(portal.texts, error), "error");
  }
}

async function inAdvance() {
  const found = read();
  say(status, textOf(portal.texts, "touch_passkey"));
  const signer = await passkeySigner(found.where);
  try {
    const { institution } = found.grant.terms;
    if ((await signer.account(institution)) !== checksummed(found.grant.subject)) {
      throw new PortalError("no_key_for_these");
    }
    const typedData = typedDataOf("ConsentRevocation", found.where, { consentIds: [found.consent] });
    show(found, await signer.sign(typedData, institution));
  } finally {
    signer.forget();
  }
}

byId("without-us").addEventListener("submit", (event) => {
  // Nothing is sent: the form has no address, and this stops it in any case.
  event.preventDefault();
  shown(async () => show(read(), "0x"));
});
file.addEventListener("change", async () => {
  receipt.value = (await file.files[0]?.text()) ?? "";
});
if (byId("in-advance")) onClick([byId("in-advance")], () => shown(inAdvance));
