/**
 * Stop, pause and resume, wherever a page shows consents. Beside `#portal` (see `page.js`) and `#status` it holds
 *
 *   <button data-stop="0x…"> or <button data-stop="all">
 *   <button data-pause="0x…"> and <button data-resume="0x…">, with data-subject and data-institution (the id)
 *   <div id="wallets" hidden>, <button id="switch-chain" hidden> (see `wallet-page.js`)
 *   <a id="reload" hidden>              where to see the page as it is now
 *
 * A stop button may stand in the form of the custodian's stop: without this script the form is sent. Once the chain says
 * so, `data-state="0x…"` elements are set to the text `state_revoked`, `state_paused` or `state_active`, with the look of
 * that state, `data-why="0x…"` to the sentence that goes with it, and what has `data-while-open="0x…"` goes with a stop.
 */
import { serviceRpc } from "./chain.js";
import { PortalError } from "./errors.js";
import { checksummed } from "./keys.js";
import { describe, jsonBlock, onClick, post, reloadWhenBack, say, secondsOf, textOf } from "./page.js";
import { setPaused } from "./pause.js";
import { revoke } from "./revoke.js";
import { passkeySigner, walletSigner } from "./signer.js";
import { chooseWallet, offerSwitch } from "./wallet-page.js";

const portal = jsonBlock("portal");
const status = document.getElementById("status");
const deps = { post, rpc: serviceRpc(), sending: () => say(status, textOf(portal.texts, "sending")) };

/** Whoever is needed: a wallet for what a linked account granted, one touch of a passkey for all that is left. */
async function signersFor(subjects) {
  const linked = portal.wallets.map(checksummed);
  const byWallet = subjects.map(checksummed).filter((subject) => linked.includes(subject));
  const signers = [];
  for (const account of new Set(byWallet)) {
    say(status, textOf(portal.texts, "look_at_wallet"));
    signers.push(await walletSigner(await chooseWallet(), portal, [account]));
  }
  if (byWallet.length < subjects.length) {
    if (!portal.passkey) throw new PortalError("no_key_for_these");
    say(status, textOf(portal.texts, "touch_passkey"));
    signers.push(await passkeySigner(portal));
  }
  return signers;
}

async function stop(button) {
  const asked = button.dataset.stop;
  const groups = (given) => signersFor(given.map(({ subject }) => subject));
  await shown(async () => {
    const result = await revoke(asked === "all" ? "all" : [asked], portal, groups, deps);
    if (result.onChain === "yes") mark(result.revoked, "revoked");
    const kind = result.unsigned.length ? "stopped_some" : `stopped_${result.onChain}`;
    return textOf(portal.texts, kind, { ...counts(result), seconds: secondsOf(result) });
  });
}

async function pauseOrResume(button) {
  const paused = button.dataset.pause !== undefined;
  const { subject, institution } = button.dataset;
  const id = paused ? button.dataset.pause : button.dataset.resume;
  await shown(async () => {
    const result = await setPaused({ id, subject, institution }, paused, portal, () => signersFor([subject]), deps);
    if (result.onChain === "yes") mark([id], paused ? "paused" : "active");
    return textOf(portal.texts, `${paused ? "paused" : "resumed"}_${result.onChain}`, { seconds: secondsOf(result) });
  });
}

async function shown(act) {
  try {
    say(status, await act(), "done");
    document.getElementById("reload")?.removeAttribute("hidden");
  } catch (error) {
    say(status, describe(portal.texts, error), "error");
    offerSwitch(portal, error, status);
  }
}

function mark(ids, state) {
  for (const id of ids) {
    const all = (attribute) => document.querySelectorAll(`[data-${attribute}="${CSS.escape(id)}"]`);
    for (const place of all("state")) {
      place.textContent = textOf(portal.texts, `state_${state}`);
      place.className = `state ${state === "revoked" ? "ended" : state}`;
    }
    for (const place of all("why")) place.textContent = textOf(portal.texts, `why_${state}`);
    if (state !== "revoked") continue;
    for (const part of ["stop", "pause", "resume", "while-open"].flatMap((name) => [...all(name)])) part.hidden = true;
  }
}

const counts = ({ revoked, unsigned }) => ({ revoked: revoked.length, unsigned: unsigned.length });

onClick(document.querySelectorAll("button[data-stop], button[data-pause], button[data-resume]"), (button) =>
  button.dataset.stop === undefined ? pauseOrResume(button) : stop(button),
);
reloadWhenBack();
