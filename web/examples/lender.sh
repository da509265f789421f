#!/usr/bin/env bash
# A lender's way through Consent Ledger with bash, curl and openssl 3, and nothing else.
#
#   SERVICE=http://127.0.0.1:8000 INSTITUTION=did:web:lender.example ./lender.sh keys      # makes lender.*.pem, lender.jwks
#   (the custodian registers lender.jwks under that id)
#   ./lender.sh ask                                                  # prints the link to hand to the person
#   ./lender.sh consent                                              # waits until it is granted, prints the consent's id
#   ./lender.sh release CONSENT ATTRIBUTE...                         # the sealed answer and the receipt, as JSON;
#   KEY=... ./lender.sh release CONSENT ATTRIBUTE...                 # the same again, by the key that it printed
#   ./lender.sh call METHOD PATH [BODY] [IDEMPOTENCY-KEY]            # anything else, e.g. call GET /v1/events
#
# Every request is signed (RFC 9421, Ed25519) and every answer's signature is checked before it is believed.
# To open the answer (a JWE, ECDH-ES+A256KW) use any JOSE library: lender.mjs shows it.
set -euo pipefail
SERVICE=${SERVICE:-http://127.0.0.1:8000}
INSTITUTION=${INSTITUTION:-did:web:lender.example}
NAME=${NAME:-lender} # of the key files
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() { echo "lender.sh: $*" >&2; exit 1; }
base64url() { openssl base64 -A | tr '+/' '-_' | tr -d '='; }
member() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" <<<"$2"; } # a text member of a JSON object, the last of that name

signing_x() { openssl pkey -in "$NAME.sig.pem" -pubout -outform DER | tail -c 32 | base64url; }

keys() { # a key is called as its own x: another key never has the id of an earlier one
  umask 077
  openssl genpkey -quiet -algorithm ed25519 -out "$NAME.sig.pem" # to sign what we ask
  openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$NAME.enc.pem" # to be sealed to
  local sig enc_x enc_y
  sig=$(signing_x)
  enc_x=$(openssl pkey -in "$NAME.enc.pem" -pubout -outform DER | tail -c 64 | head -c 32 | base64url)
  enc_y=$(openssl pkey -in "$NAME.enc.pem" -pubout -outform DER | tail -c 32 | base64url)
  cat >"$NAME.jwks" <<JSON
{"keys":[{"kty":"OKP","crv":"Ed25519","use":"sig","kid":"$sig","x":"$sig"},
{"kty":"EC","crv":"P-256","use":"enc","alg":"ECDH-ES+A256KW","kid":"$enc_x","x":"$enc_x","y":"$enc_y"}]}
JSON
  echo "$NAME.jwks"
}

# ------------------------------------------------------------------------------------------------ requests and answers

digest() { printf 'sha-256=:%s:' "$(openssl dgst -sha256 -binary "$1" | openssl base64 -A)"; }

call() { # METHOD PATH [BODY] [IDEMPOTENCY-KEY]: sign, send, check the answer's signature, print its body
  local method=$1 uri=$SERVICE$2 body=${3:-} key=${4:-} covered='"@method" "@target-uri"' params
  local headers=()
  meet_custodian
  printf '"@method": %s\n"@target-uri": %s\n' "$method" "$uri" >"$work/base"
  if [ -n "$key" ]; then
    printf '"idempotency-key": %s\n' "$key" >>"$work/base"
    covered+=' "idempotency-key"'
    headers+=(-H "Idempotency-Key: $key")
  fi
  if [ -n "$body" ]; then
    printf '%s' "$body" >"$work/body"
    printf '"content-digest": %s\n' "$(digest "$work/body")" >>"$work/base"
    covered+=' "content-digest"'
    headers+=(-H 'Content-Type: application/json' -H "Content-Digest: $(digest "$work/body")" --data-binary "@$work/body")
  fi
  params="($covered);created=$(date +%s);nonce=\"$(openssl rand -hex 16)\";keyid=\"$INSTITUTION#$(signing_x)\""
  printf '"@signature-params": %s' "$params" >>"$work/base" # what is signed ends without a newline
  local signature
  signature="sig=:$(openssl pkeyutl -sign -rawin -inkey "$NAME.sig.pem" -in "$work/base" | openssl base64 -A):"

  status=$(curl -sS -X "$method" "$uri" -o "$work/answer" -D "$work/head" -w '%{http_code}' \
    -H "Signature-Input: sig=$params" -H "Signature: $signature" "${headers[@]}")
  check_answer "$uri" "$signature"
  cat "$work/answer"
  [ "$status" -lt 400 ] || { echo >&2; fail "refused: $status $(member code "$(<"$work/answer")")"; }
}

header() { sed -n "s/^$1: *//Ip" "$work/head" | tr -d '\r' | tail -n 1; }

check_answer() { # the custodian signed this answer, to this very request
  local uri=$1 signature=$2 input raw
  input=$(header signature-input)
  [ -n "$input" ] || fail "the answer is not signed"
  [ "$(header content-digest)" = "$(digest "$work/answer")" ] || fail "the answer's body is not the one that was signed"
  [[ $input == 'sig=("@status" "@target-uri";req "signature";req "content-digest")'* ]] || fail "the answer's signature covers too little"
  printf '"@status": %s\n"@target-uri";req: %s\n"signature";req: %s\n"content-digest": %s\n"@signature-params": %s' \
    "$status" "$uri" "$signature" "$(header content-digest)" "${input#sig=}" >"$work/answered"
  # The signature is r and s, 32 bytes each; openssl wants them as DER.
  raw=$(header signature | sed 's/^sig=:\(.*\):$/\1/' | openssl base64 -d -A | od -An -v -tx1 | tr -d ' \n')
  printf 'asn1=SEQUENCE:both\n[both]\nr=INTEGER:0x%s\ns=INTEGER:0x%s\n' "${raw:0:64}" "${raw:64}" >"$work/both"
  openssl asn1parse -genconf "$work/both" -noout -out "$work/signature"
  openssl dgst -sha256 -verify "$NAME.custodian.pem" -signature "$work/signature" "$work/answered" >/dev/null ||
    fail "the answer is not signed by the custodian"
}

meet_custodian() { # its address, and its key as PEM: pin this file once you have checked it by another way
  if [ ! -s "$NAME.custodian.pem" ]; then
    local deployment x y
    deployment=$(curl -sS "$SERVICE/.well-known/consent-ledger")
    x=$(member x "$deployment") y=$(member y "$deployment")
    {
      echo "serviceUrl $(member serviceUrl "$deployment")" # what stands above a key is passed over
      echo '-----BEGIN PUBLIC KEY-----'
      { printf '\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00\x04'
        for part in "$x" "$y"; do tr -- '-_' '+/' <<<"$part=" | openssl base64 -d -A; done; } | openssl base64
      echo '-----END PUBLIC KEY-----'
    } >"$NAME.custodian.pem"
  fi
  local known
  known=$(sed -n 's/^serviceUrl //p' "$NAME.custodian.pem")
  # Every request is signed for the address that the service goes by: @target-uri begins with it.
  [ "${known:-$SERVICE}" = "$SERVICE" ] || fail "the service goes by another address: set SERVICE=$known"
}

# ------------------------------------------------------------------------------------------------------------ the way

ask() {
  call POST /v1/consent-requests '{"purpose": "loan-origination", "attributes": ["credit_amount"],
    "optionalAttributes": ["savings"], "validityDays": 30, "maxAccesses": 2, "accessesPerDay": 2, "retentionDays": 14}' \
    >"$NAME.request.json"
  member link "$(<"$NAME.request.json")"
}

consent() {
  local id answer state
  id=$(member id "$(<"$NAME.request.json")")
  for _ in $(seq 60); do
    answer=$(call GET "/v1/consent-requests/$id")
    state=$(member state "$answer")
    [ "$state" != granted ] || { member consent "$answer"; return; }
    [ "$state" = pending ] || fail "the request was $state"
    sleep 1
  done
  fail "not granted yet"
}

release() { # CONSENT ATTRIBUTE...
  local consent=$1 names key=${KEY:-$(openssl rand -hex 16)}
  shift
  names=$(printf '"%s", ' "$@")
  # Whatever fails from here on, the access may be on the log: the same key gets the same answer, and uses nothing up.
  echo "KEY=$key" >&2
  call POST "/v1/consents/$consent/releases" "{\"purpose\": \"loan-origination\", \"attributes\": [${names%, }]}" "$key" |
    tee "$work/release"
  cp "$work/release" "$NAME.release.json"
}

case "${1:-}" in
  keys | ask | consent | release | call) "$@" ;;
  *) sed -n '2,13s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
