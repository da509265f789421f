/**
 * What the scripts read of a page, say in it, and ask of the service.
 *
 * The page holds `<script type="application/json" id="portal">`: chainId, contract, custodian, locale, wallets (linked
 * accounts), passkey (whether the account has one), signedInBy (passkey, wallet or null), stepUpUntil (Unix seconds or
 * null), labels {purposes, attributes}, texts {code: text}; and `<meta name="csrf-token">`. Every word that people
 * read comes from there.
 */
import { PortalError } from "./errors.js";

const WAIT_MILLISECONDS = 90_000;

/** A JSON block of the page. @param {string} id @returns {any} */
export const jsonBlock = (id) => JSON.parse(document.getElementById(id)?.textContent ?? "null");

/**
 * A text of the page, with `{name}` replaced.
 * @param {Record<string, string>} texts @param {string} code @param {Record<string, unknown>} [values]
 */
export function textOf(texts, code, values = {}) {
  return (texts[code] ?? code).replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

/** What to say about an error: the page's text for its code, else the service's own words on an English page, else the general text. */
export function describe(texts, error) {
  if (!(error instanceof PortalError)) return textOf(texts, "unexpected");
  const values = { ...error, detail: error.detail ?? "" };
  if (error.code in texts) return textOf(texts, error.code, values);
  const inEnglish = document.documentElement.lang.startsWith("en");
  return (inEnglish && error.detail) || textOf(texts, "unexpected");
}

/** Say something where a screen reader hears it, and where it is seen. @param {Element | null} place @param {string} text @param {string} [kind] */
export function say(place, text, kind = "info") {
  if (!place) return;
  place.textContent = text;
  place.setAttribute("data-kind", kind);
  place.scrollIntoView?.({ block: "nearest" });
}

/**
 * Ask the service: JSON in, JSON out. Throws `network_lost` if no answer came (whether it was carried out is then
 * unknown), else the problem's own code.
 * @param {string} url @param {unknown} body
 * @returns {Promise<any>}
 */
export async function post(url, body) {
  const token = document.querySelector('meta[name="csrf-token"]')?.getAttribute("content") ?? "";
  let response;
  let text;
  try {
    response = await fetch(url, {
      method: "POST",
      headers: { "Content-Type": "application/json", Accept: "application/json", "X-CSRF-Token": token },
      body: JSON.stringify(body),
      credentials: "same-origin",
      redirect: "error",
      signal: AbortSignal.timeout(WAIT_MILLISECONDS),
    });
    text = await response.text();
  } catch (cause) {
    throw new PortalError("network_lost", { cause });
  }
  const answer = parsed(text);
  if (response.ok && answer !== undefined) return answer;
  // A proxy's own page for 502 to 504 says as little about the outcome as silence.
  if (answer?.code === undefined && response.status > 501) throw new PortalError("network_lost");
  throw problem(answer, response.status);
}

function problem(answer, status) {
  const { code = "unexpected", detail, field } = answer ?? {};
  return new PortalError(String(code), { detail, field, status });
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** The address of a page of our own; for one elsewhere the first page. @param {unknown} next @returns {string} */
export function ours(next) {
  const url = new URL(String(next ?? "/"), location.origin);
  return url.origin === location.origin ? url.href : "/";
}

/** Go to a page of our own. @param {unknown} next */
export function go(next) {
  location.assign(ours(next));
}

/**
 * Run `act` on a click, once at a time: a second click does nothing until the first is done.
 * @param {Iterable<HTMLButtonElement>} buttons @param {(button: HTMLButtonElement) => Promise<void>} act
 */
export function onClick(buttons, act) {
  let busy = false;
  const all = [...buttons];
  for (const button of all) {
    button.addEventListener("click", async (event) => {
      event.preventDefault();
      if (busy) return;
      busy = true;
      // Not `disabled`, which takes the focus away from whoever uses a keyboard.
      for (const one of all) one.setAttribute("aria-disabled", "true");
      try {
        await act(button);
      } finally {
        busy = false;
        for (const one of all) one.removeAttribute("aria-disabled");
      }
    });
  }
}

/** Back to a page that the browser kept: what it shows may be over, so it is asked for again. */
export function reloadWhenBack() {
  addEventListener("pageshow", (event) => {
    if (event.persisted) location.reload();
  });
}

/** How long it took, in seconds, as a person reads it: nothing takes no time. */
export const secondsOf = ({ milliseconds }) => (milliseconds < 100 ? "< 0.1" : (milliseconds / 1000).toFixed(1));
