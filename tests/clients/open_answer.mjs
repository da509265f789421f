// Opens an answer with stock libraries only: what an institution without Python does.
// stdin: {"answer": "...", "key": <its private JWK>, "custodian": <public JWK>}; stdout: the headers and the claims.
import { readFileSync } from "node:fs";
import { compactDecrypt, importJWK, jwtVerify } from "jose";

const { answer, key, custodian } = JSON.parse(readFileSync(0, "utf8"));
const { plaintext, protectedHeader } = await compactDecrypt(answer, await importJWK(key, "ECDH-ES+A256KW"), {
  keyManagementAlgorithms: ["ECDH-ES+A256KW"],
  contentEncryptionAlgorithms: ["A256GCM"],
});
const { payload, protectedHeader: signed } = await jwtVerify(plaintext, await importJWK(custodian, "ES256"), {
  algorithms: ["ES256"],
  typ: "answer+jwt",
});
console.log(JSON.stringify({ sealed: protectedHeader, signed, claims: payload }));
