// RFC 9421 and RFC 9530 by hand, with Node's own crypto alone: what an institution without a library does.
// stdin: {"sign": {method, url, headers, body}, keyid, key: <private JWK>, created, nonce} to sign a request, or
// {"verify": {status, headers, body}, request: {url, headers}, key: <public JWK>} to verify the answer to it.
import { createHash, createPrivateKey, createPublicKey, sign, verify } from "node:crypto";
import { readFileSync } from "node:fs";

const given = JSON.parse(readFileSync(0, "utf8"));
const algorithm = given.key.kty === "EC" ? "sha256" : null;
const sha256 = (bytes, encoding) => createHash("sha256").update(bytes).digest(encoding);
const digestOf = (body) => `sha-256=:${sha256(body, "base64")}:`;
const baseOf = (lines, parameters) => [...lines, `"@signature-params": ${parameters}`].join("\n");

function signRequest({ method, url, headers, body }) {
  const digest = digestOf(body);
  const parameters =
    `("@method" "@target-uri" "content-digest" "idempotency-key")` +
    `;created=${given.created};nonce="${given.nonce}";keyid="${given.keyid}"`;
  const base = baseOf(
    [
      `"@method": ${method}`,
      `"@target-uri": ${url}`,
      `"content-digest": ${digest}`,
      `"idempotency-key": ${headers["Idempotency-Key"]}`,
    ],
    parameters,
  );
  const key = createPrivateKey({ key: given.key, format: "jwk" });
  const signature = sign(algorithm, Buffer.from(base), { key, dsaEncoding: "ieee-p1363" }).toString("base64");
  return {
    headers: {
      ...headers,
      "content-digest": digest,
      "signature-input": `sig=${parameters}`,
      signature: `sig=:${signature}:`,
    },
    requestHash: "0x" + sha256(base, "hex"),
  };
}

function verifyResponse({ status, headers, body }) {
  const [label, parameters] = headers["Signature-Input"].split(/=(.*)/s);
  const signature = Buffer.from(headers.Signature.slice(label.length + 2, -1), "base64");
  const known = {
    '"@status"': status,
    '"@target-uri";req': given.request.url,
    '"signature";req': given.request.headers.Signature,
    '"content-digest"': digestOf(body),
  };
  const covered = parameters.slice(1, parameters.indexOf(")")).split(" ");
  const base = baseOf(
    covered.map((part) => `${part}: ${known[part]}`),
    parameters,
  );
  const key = createPublicKey({ key: given.key, format: "jwk" });
  const bound = Object.keys(known).every((part) => covered.includes(part));
  return {
    valid: bound && verify(algorithm, Buffer.from(base), { key, dsaEncoding: "ieee-p1363" }, signature),
    keyid: parameters.match(/;keyid="([^"]*)"/)[1],
  };
}

console.log(JSON.stringify(given.sign ? signRequest(given.sign) : verifyResponse(given.verify)));
