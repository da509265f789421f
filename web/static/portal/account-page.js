/**
 * The pages to sign in, to enrol and to keep passkeys and wallets. Beside `#portal` and `#status` (see `page.js`) they
 * hold what they need of:
 *
 *   <button data-sign-in="passkey">, <button data-sign-in="wallet">
 *   <form id="enrol"> with inputs `code` and `name` (of the passkey); <button data-enrol="passkey">, "wallet"
 *   <form id="add"> with input `name`; <button data-add="passkey">, <button data-add="wallet">
 *       Of both the main button submits, so that Enter in a field presses it; the forms themselves send nothing, also
 *       without scripts (`method="dialog"`): a code does not belong in an address.
 *   <div id="wallets" hidden>, <button id="switch-chain" hidden>, <a id="continue" hidden> (see `wallet-page.js`)
 *
 * `next` of the page's address goes to the service, which answers where to go on.
 */
import { PortalError } from "./errors.js";
import { describe, go, jsonBlock, onClick, ours, reloadWhenBack, say, textOf } from "./page.js";
import { register, signIn, stepUp } from "./passkey.js";
import { showPresence } from "./presence.js";
import { prove } from "./wallet.js";
import { chooseWallet, offerSwitch } from "./wallet-page.js";

const portal = jsonBlock("portal");
const status = document.getElementById("status");
const HERE = "/security";
const next = new URLSearchParams(location.search).get("next") ?? undefined;

/** @type {Record<string, () => Promise<void>>} */
const acts = {
  "sign-in passkey": async () => go((await signIn({ next })).next),
  "sign-in wallet": async () => go((await proveWith("sign-in")).next),
  "enrol passkey": async () =>
    registered(await register({ code: field("enrol", "code"), name: field("enrol", "name"), next })),
  "enrol wallet": async () => go((await proveWith("enrol", field("enrol", "code"))).next),
  "add passkey": addPasskey,
  "add wallet": addWallet,
};

async function addPasskey() {
  // Of a passkey it is always asked: the new one wraps the root that the earlier one opens.
  const root = portal.passkey ? (await stepUp()).root : null;
  if (!portal.passkey) await showPresence(portal, status);
  try {
    say(status, textOf(portal.texts, "touch_new_passkey"));
    registered({ ...(await register({ name: field("add", "name"), root })), next: HERE });
  } finally {
    root?.fill(0);
  }
}

async function addWallet() {
  await showPresence(portal, status);
  await proveWith("link");
  go(HERE);
}

async function proveWith(use, code) {
  say(status, textOf(portal.texts, "look_at_wallet"));
  return prove(await chooseWallet(), { use, chainId: portal.chainId, code, next });
}

/** A passkey without PRF can sign in and stop, but sign no grant: said before going on. */
function registered(done) {
  if (done.prf) return go(done.next);
  say(status, textOf(portal.texts, "registered_without_prf"), "warning");
  const link = /** @type {HTMLAnchorElement} */ (document.getElementById("continue"));
  link.href = ours(done.next);
  link.hidden = false;
  return link.focus();
}

function field(form, name) {
  const input = /** @type {any} */ (document.getElementById(form)).elements[name];
  const value = input.value.trim();
  if (!value) {
    input.focus();
    throw new PortalError(`${name}_empty`, { field: name });
  }
  return value;
}

for (const kind of ["signIn", "enrol", "add"]) {
  const attribute = kind === "signIn" ? "sign-in" : kind;
  onClick(document.querySelectorAll(`button[data-${attribute}]`), async (button) => {
    const way = button.dataset[kind];
    try {
      if (way === "passkey") say(status, textOf(portal.texts, "touch_passkey"));
      await acts[`${attribute} ${way}`]();
    } catch (error) {
      say(status, describe(portal.texts, error), "error");
      offerSwitch(portal, error, status);
    }
  });
}
reloadWhenBack();
