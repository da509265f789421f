/**
 * Passkeys: register, sign in, and step up, which also brings the root secret of the person's keys (`keys.js`).
 *
 * The PRF output and the root stay in these functions' results: nothing that is sent to the service contains them.
 * `deps` are the parts that tests put others in for.
 */
import { fromBase64url, toBase64url } from "./bytes.js";
import { PortalError } from "./errors.js";
import { newRoot, prfInput, unwrapRoot, wrapRoot } from "./keys.js";
import { post } from "./page.js";
import { startAuthentication, startRegistration } from "./vendor.js";

const DEPS = { post, startAuthentication, startRegistration };

/** Whether this browser has passkeys at all; whether one has a PRF shows only when it is asked. */
export const supported = () => typeof globalThis.PublicKeyCredential === "function";

/** Sign in with any passkey of this site. @param {{next?: string}} [given] @returns {Promise<{next: string}>} */
export async function signIn({ next } = {}, deps = DEPS) {
  const { publicKey } = await deps.post("/auth/passkey/sign-in/options", {});
  const { credential } = await assertion(deps, publicKey, { prf: false });
  return deps.post("/auth/passkey/sign-in", { credential, ...(next ? { next } : {}) });
}

/**
 * One touch: prove presence, and open the root. `root` is null if this passkey has no PRF or wraps no root; then it can
 * sign in and step up, but sign no grant.
 * @returns {Promise<{root: Uint8Array | null, prf: boolean, accountId: string}>}
 */
export async function stepUp(deps = DEPS) {
  const { publicKey } = await deps.post("/auth/passkey/step-up/options", {});
  const { credential, prfOutput } = await assertion(deps, publicKey, { prf: true });
  const { wrappedRoot, accountId } = await deps.post("/auth/passkey/step-up", { credential });
  try {
    const root = prfOutput && wrappedRoot ? await unwrapRoot(prfOutput, wrappedRoot) : null;
    return { root, prf: prfOutput !== null, accountId };
  } finally {
    prfOutput?.fill(0);
  }
}

/**
 * Register a passkey: with `code` the first one of a new account, without it a further one, which wraps the same root;
 * that needs the root of an earlier one (`stepUp`). Many passkeys tell their PRF output only when used, which is then a
 * second touch. `prf` false in the result says that this one can sign in but sign no grant.
 * @param {{code?: string, name: string, next?: string, root?: Uint8Array | null}} given
 * @returns {Promise<{next: string, prf: boolean}>}
 */
export async function register({ code, name, next, root = null }, deps = DEPS) {
  const { publicKey, hasRoot } = await deps.post("/auth/passkey/register/options", code === undefined ? {} : { code });
  // A new root beside one that consents were already granted with would make two persons of one.
  if (hasRoot && !root) throw new PortalError("root_needed");
  const made = await created(deps, publicKey);
  const prfOutput = made.prfOutput ?? (made.prfEnabled ? await ask(deps, publicKey, made.credential) : null);
  let wrappedRoot = null;
  if (prfOutput) {
    wrappedRoot = await wrapRoot(prfOutput, root ?? newRoot());
    prfOutput.fill(0);
  }
  const given = { credential: made.credential, wrappedRoot, name, ...(next ? { next } : {}) };
  const answer = await deps.post("/auth/passkey/register", given);
  return { next: answer.next, prf: wrappedRoot !== null };
}

async function created(deps, publicKey) {
  const optionsJSON = await withPrf(publicKey);
  const credential = await prompted(() => deps.startRegistration({ optionsJSON }));
  const { enabled = false, results } = credential.clientExtensionResults?.prf ?? {};
  return { credential: sendable(credential), prfEnabled: enabled, prfOutput: bytesOf(results?.first) };
}

/** Its PRF output, of a passkey that was just made. The answer proves nothing to anyone: the challenge is our own. */
async function ask(deps, publicKey, credential) {
  const options = {
    challenge: toBase64url(crypto.getRandomValues(new Uint8Array(32))),
    rpId: publicKey.rp?.id,
    allowCredentials: [{ id: credential.id, type: "public-key", transports: credential.response?.transports }],
    userVerification: "required",
  };
  return (await assertion(deps, options, { prf: true })).prfOutput;
}

async function assertion(deps, publicKey, { prf }) {
  const optionsJSON = prf ? await withPrf(publicKey) : publicKey;
  const credential = await prompted(() => deps.startAuthentication({ optionsJSON }));
  const results = credential.clientExtensionResults?.prf?.results;
  return { credential: sendable(credential), prfOutput: prf ? bytesOf(results?.first) : null };
}

/** What the PRF is asked for is settled here and not by the service, and in bytes, which JSON has no way to say. */
async function withPrf(publicKey) {
  return { ...publicKey, extensions: { ...publicKey.extensions, prf: { eval: { first: await prfInput() } } } };
}

/** Without what the extensions answered: the PRF output would be among it. */
function sendable(credential) {
  const { enabled } = credential.clientExtensionResults?.prf ?? {};
  return { ...credential, clientExtensionResults: enabled === undefined ? {} : { prf: { enabled } } };
}

function bytesOf(output) {
  if (output === undefined || output === null) return null;
  return typeof output === "string" ? fromBase64url(output) : new Uint8Array(output);
}

async function prompted(prompt) {
  if (!supported()) throw new PortalError("passkey_unsupported");
  try {
    return await prompt();
  } catch (cause) {
    throw new PortalError(codeOf(cause), { cause });
  }
}

function codeOf(error) {
  const name = error?.name;
  if (name === "InvalidStateError") return "passkey_known";
  if (name === "SecurityError") return "passkey_wrong_site";
  if (name === "NotAllowedError" || name === "AbortError") return "passkey_cancelled";
  if (name === "ConstraintError" || name === "NotSupportedError") return "passkey_unsuitable";
  return "passkey_failed";
}
