/** Bytes and how they are written. Pure. */
import { PortalError } from "./errors.js";

const encoder = new TextEncoder();

/** @param {string} text */
export const utf8 = (text) => encoder.encode(text);

/** @param {Uint8Array} bytes @returns {string} 0x and lower-case digits */
export const toHex = (bytes) => `0x${Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")}`;

/**
 * @param {unknown} hex 0x and digits
 * @param {number} [length] how many bytes it must be
 * @returns {Uint8Array}
 */
export function fromHex(hex, length) {
  const is = typeof hex === "string" && /^0x(?:[0-9a-fA-F]{2})*$/.test(hex);
  if (!is || (length !== undefined && hex.length !== 2 + 2 * length)) {
    throw new PortalError("malformed", { detail: `expected 0x and ${length ?? "whole"} bytes in hex` });
  }
  return Uint8Array.from(hex.slice(2).match(/../g) ?? [], (digits) => Number.parseInt(digits, 16));
}

/** @param {Uint8Array | ArrayBuffer} bytes @returns {string} base64url without padding (RFC 4648) */
export function toBase64url(bytes) {
  const binary = Array.from(new Uint8Array(bytes), (byte) => String.fromCharCode(byte)).join("");
  return btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/** @param {unknown} text base64url without padding @returns {Uint8Array} */
export function fromBase64url(text) {
  if (typeof text !== "string" || !/^[A-Za-z0-9_-]*$/.test(text) || text.length % 4 === 1) {
    throw new PortalError("malformed", { detail: "expected base64url" });
  }
  const binary = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  return Uint8Array.from(binary, (character) => character.charCodeAt(0));
}

/** @param {...Uint8Array} parts */
export function concat(...parts) {
  const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
