/** Whether typed data from the service is the very one that is expected. Pure. */
import { PortalError } from "./errors.js";
import { checksummed } from "./keys.js";
import { digestOf } from "./typed.js";

/** Throws `draft_differs`. The digest covers every member of the message and of the domain. */
export function requireSame(typedData, expected) {
  if (digestOf(typedData) === digestOf(expected)) return;
  const { domain, message } = typedData;
  const place = expected.domain;
  const elsewhere = ["name", "version", "chainId"].find((name) => domain[name] !== place[name]);
  const field =
    elsewhere ??
    (checksummed(domain.verifyingContract) !== checksummed(place.verifyingContract) ? "verifyingContract" : null) ??
    (typedData.primaryType !== expected.primaryType ? "primaryType" : null) ??
    Object.keys(expected.message).find(
      (name) => JSON.stringify(message[name]) !== JSON.stringify(expected.message[name]),
    );
  throw new PortalError("draft_differs", { field });
}
