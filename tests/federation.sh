#!/usr/bin/env bash
# docs/upstreams/federation.md: registrations, assertions verified by PyJWT and jose with what the public listener serves, and the exchange
# at a token endpoint over TLS that verifies with PyJWT.
#
#   tests/federation.sh MAYFLY        (with .venv and tests/interop/node/node_modules, as ./test installs them)
source "$(dirname "$0")/typed.sh"
here=$(cd "$(dirname "$0")" && pwd)
python=${FEDERATION_PYTHON:-$here/../.venv/bin/python}

check "a server" 0 up
check "is ended, to be told where the roots of upstreams are" 0 "$mayfly" dev down --dir "$world"
printf '\n[upstreams]\nsecrets_dir = "secrets"\n' >>"$world/mayfly.toml"
install -d -m 700 "$world/secrets"
check "the server again" 0 "$mayfly" dev up --dir "$world" --detach
base=$(sed -n 's/^issuer = "\(.*\)"/\1/p' "$world/mayfly.toml")
issuer() { echo "$base/dev/upstreams/$1"; }

# The token endpoint, with an authority of its own.
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/CN=the authority of a vendor" \
    -keyout "$work/ca.key" -out "$work/ca.pem" 2>/dev/null
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=localhost" -keyout "$work/vendor.key" -out "$work/vendor.csr" 2>/dev/null
openssl x509 -req -in "$work/vendor.csr" -CA "$work/ca.pem" -CAkey "$work/ca.key" -days 2 -out "$work/vendor.pem" \
    -extfile <(printf 'subjectAltName=DNS:localhost') 2>/dev/null
for vendor_port in $(shuf -n 20 -i 20000-32000); do
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$vendor_port") 2>/dev/null; then break; fi
done
"$python" "$here/federation/token_endpoint.py" "$vendor_port" "$work/vendor.pem" "$work/vendor.key" "$world/bundle.pem" "$work/vendor.log" \
    https://vendor.example/pool "$(issuer storage)" "$(issuer keyless)" "$(issuer client)" "$(issuer strange)" 2>"$work/vendor.err" &
vendor=$!
trap 'kill "$vendor" 2>/dev/null || true; end' EXIT
cat "$world/bundle.pem" "$work/ca.pem" >"$work/roots.pem"
roots() { install -m 600 "$work/roots.pem" "$world/secrets/$1.pem"; }

lookup() { "$mayfly" --config "$world/operator-you.toml" --svid "$world/svid/operator/you/svid.pem" --key "$world/svid/operator/you/key.pem" token lookup <"$1"; }

# An assertion that is handed out, in both algorithms.
check "mayfly upstream template federation" 0 you upstream template federation
cp "$work/out" "$work/template.toml"
registration() { # NAME ALG SED...: a registration made of the template
    local name=$1 alg=$2
    shift 2
    sed -e "s/\"storage\"/\"$name\"/; s/\"prod\"/\"dev\"/; s/^alg = .*/alg = \"$alg\"/" -e "s|^target = .*|target = \"https://vendor.example/$name\"|" \
        -e "s|^audience = \"https://storage.*|audience = \"https://vendor.example/$name\"|" \
        -e 's|^audience = "https://iam.*|audience = "https://vendor.example/pool"|' "$@" "$work/template.toml" >"$work/$name.toml"
}
# check takes no standard input: the verifier reads its file by itself.
verify() { local jwt=$1; shift; "$python" "$here/federation/verify.py" "$@" <"$jwt"; }
claim() { "$python" -c 'import json, sys; print(json.loads(open(sys.argv[1]).read().splitlines()[-1]).get(sys.argv[2]))' "$1" "$2"; }
for alg in RS256 ES256; do
    name=direct-${alg,,}
    registration "$name" "$alg"
    check "mayfly upstream add, $alg" 0 you upstream add "$work/$name.toml"
    check "mayfly upstream test without the roots of the public listener" 6 you upstream test "$name"
    says "names what a vendor fetches" out "openid-configuration"
    roots "$name"
    check "mayfly upstream test" 0 you upstream test "$name"
    says "the published keys verify it" out "is verified ($alg)"
    says "nothing ends it before" out "it ends by itself"
    check "mayfly get" 0 agent get "$name" --purpose "the report of May" --to "$work/$name.jwt"
    says "says that it cannot be revoked" err "cannot be revoked before it ends"
    check "PyJWT verifies it with what the public listener serves" 0 \
        verify "$work/$name.jwt" "$(issuer "$name")" https://vendor.example/pool "$world/bundle.pem"
    cp "$work/out" "$work/$name.claims"
    verdict "sub is the caller" "$([ "$(claim "$work/$name.claims" sub)" = spiffe://dev.mayfly.internal/agent/demo ] && echo yes || echo no)"
    verdict "alg is $alg" "$([ "$(claim "$work/$name.claims" alg)" = "$alg" ] && echo yes || echo no)"
    verdict "jti is the credential" "$(you credential show "$(claim "$work/$name.claims" jti)" >/dev/null 2>&1 && echo yes || echo no)"
    check "for another audience it is refused" 1 verify "$work/$name.jwt" "$(issuer "$name")" https://other.example "$world/bundle.pem"
    check "mayfly upstream jwks" 0 you upstream jwks "$name"
    cp "$work/out" "$work/$name.jwks"
    silent "no private part is in the set" out '"d"'
    check "the JWK set as a vendor holds it inline" 0 \
        verify "$work/$name.jwt" "$(issuer "$name")" https://vendor.example/pool "$world/bundle.pem" "$work/$name.jwks"
    check "jose verifies it" 0 node "$here/interop/node/assertion.mjs" "$(issuer "$name")" https://vendor.example/pool "$world/bundle.pem" "$work/$name.jwt"
    says "by the issuer's discovery" out '"sub":"spiffe://dev.mayfly.internal/agent/demo"'
done

# No key of one issuer verifies for another, and none is an access token's.
check "the keys of another upstream do not verify it" 1 \
    verify "$work/direct-rs256.jwt" "$(issuer direct-rs256)" https://vendor.example/pool "$world/bundle.pem" "$work/direct-es256.jwks"
check "an access token" 0 agent get echo --kind jwt --purpose "the report of May" --to "$work/echo.jwt"
check "is no assertion" 1 verify "$work/echo.jwt" "$(issuer direct-es256)" https://echo.dev.mayfly.internal "$world/bundle.pem"
check "mayfly key jwks" 0 you key jwks --environment dev
cp "$work/out" "$work/dev.jwks"
verdict "no key signs for both" "$(! grep -oE '"kid":"[^"]*"' "$work"/direct-*.jwks -h | found -F -f - "$work/dev.jwks" && echo yes || echo "it does")"
check "mayfly token lookup of an assertion" 0 lookup "$work/direct-es256.jwt"
says "finds its credential" out "$(claim "$work/direct-es256.claims" jti)"
says "as it was issued" out "issued"

# Revoking is said, and what a vendor can still do.
id=$(claim "$work/direct-rs256.claims" jti)
check "mayfly revoke" 0 you revoke --credential "$id" --reason "done"
check "mayfly lease list" 0 you -o json lease list
says "the lease stays until the assertion ends" out "$id"
check "a vendor accepts it until then" 0 verify "$work/direct-rs256.jwt" "$(issuer direct-rs256)" https://vendor.example/pool "$world/bundle.pem"
kid=$(claim "$work/direct-rs256.claims" kid)
check "mayfly key compromise ends that" 0 you key compromise "$kid" --reason "done" --confirm all
check "the key is published no more" 1 verify "$work/direct-rs256.jwt" "$(issuer direct-rs256)" https://vendor.example/pool "$world/bundle.pem"
check "another key signs at once" 0 agent get direct-rs256 --purpose "the report of May" --to "$work/direct-rs256.jwt"
check "and is published" 0 verify "$work/direct-rs256.jwt" "$(issuer direct-rs256)" https://vendor.example/pool "$world/bundle.pem"

# Keys that follow each other: published first.
check "mayfly key rotate" 0 you key rotate --purpose federation --upstream direct-es256 --publish-ahead 2h
check "mayfly upstream jwks has both" 0 you upstream jwks direct-es256
verdict "two keys" "$([ "$(grep -o '"kid"' "$work/out" | wc -l)" = 2 ] && echo yes || echo no)"
check "the old key signs" 0 agent get direct-es256 --purpose "the report of May" --to "$work/direct-es256.jwt"
check "a vendor verifies it" 0 verify "$work/direct-es256.jwt" "$(issuer direct-es256)" https://vendor.example/pool "$world/bundle.pem"
verdict "by the old key" "$([ "$(claim "$work/out" kid)" = "$(claim "$work/direct-es256.claims" kid)" ] && echo yes || echo no)"

# The exchange, by each grant.
exchange() { # NAME GRANT: the section of the template, with this grant
    registration "$1" RS256 -e 's/^# \[federation.exchange\]/[federation.exchange]/; s/^#! //' -e "s|https://sts.googleapis.com/v1/token|https://localhost:$vendor_port/token|" \
        -e "s/^grant = .*/grant = \"$2\"\nclient_id = \"mayfly\"/"
}
for grant in storage:token-exchange keyless:jwt-bearer client:client-assertion; do
    name=${grant%%:*}
    exchange "$name" "${grant#*:}"
    check "mayfly upstream add, ${grant#*:}" 0 you upstream add "$work/$name.toml"
    check "mayfly upstream test without the roots of the vendor" 6 you upstream test "$name"
    says "names the file of roots" out "$name.pem"
    roots "$name"
    check "mayfly upstream test" 0 you upstream test "$name"
    says "the vendor gave a token" out "gave a token for the assertion"
    verdict "the subject of a test" "$([ "$(claim "$work/vendor.log" sub)" = mayfly:upstream-test ] && echo yes || echo no)"
    check "mayfly get" 0 agent get "$name" --purpose "the report of May" --to "$work/$name.token"
    verdict "hands out the vendor's token" "$([ "$(cat "$work/$name.token")" = "$(claim "$work/vendor.log" token)" ] && echo yes || echo no)"
    verdict "for the caller" "$([ "$(claim "$work/vendor.log" sub)" = spiffe://dev.mayfly.internal/agent/demo ] && echo yes || echo no)"
    verdict "with the vendor's scope" "$(claim "$work/vendor.log" form | found "devstorage.read_only" && echo yes || echo no)"
done
check "mayfly token lookup of the vendor's token" 0 lookup "$work/storage.token"
says "finds its credential, too" out "storage"
check "mayfly exec" 0 agent exec --upstream storage --purpose "the report of May" -- sh -c 'printf %s "$STORAGE_TOKEN"'
verdict "gives the vendor's token" "$([ "$(cat "$work/out")" = "$(claim "$work/vendor.log" token)" ] && echo yes || echo no)"

# What a vendor does wrong.
echo '{"expires_in": 100000}' >"$work/vendor.log.answer"
check "a token that lives too long" 6 agent get storage --purpose "the report of May" --to "$work/none"
says "is told" err "federation.exchange.token_life names 3600 s"
echo '{"expires_in": 5}' >"$work/vendor.log.answer"
check "a token that ends too early" 6 agent get storage --purpose "the report of May" --to "$work/none"
says "is told, too" err "lower ttl.max"
echo '{"expires_in": null}' >"$work/vendor.log.answer"
check "a token without an end" 6 agent get storage --purpose "the report of May" --to "$work/none"
echo '{"token_type": "mac"}' >"$work/vendor.log.answer"
check "a token of another type" 6 agent get storage --purpose "the report of May" --to "$work/none"
rm "$work/vendor.log.answer"
exchange strange token-exchange
sed -i 's|^audience = "https://vendor.example/pool"|audience = "https://vendor.example/another"|' "$work/strange.toml"
roots strange
check "an audience that the vendor does not know" 0 you upstream add "$work/strange.toml"
check "is refused by the vendor" 6 agent get strange --purpose "the report of May" --to "$work/none"
says "in its words" err "invalid_grant"
says "without the assertion that it repeats" err "[secret]"
verdict "nothing was handed out" "$([ ! -e "$work/none" ] && echo yes || echo no)"

# The limits of vendors.
sed -e 's/^vendor = .*/vendor = "aws"/; s/^subject = .*/subject = "x"/' -e 's/"direct-es256"/"short"/; s|example/direct-es256|example/short|' "$work/direct-es256.toml" >"$work/short.toml"
check "a subject that AWS does not take" 0 you upstream add "$work/short.toml"
check "is told before anything is signed" 6 agent get short --purpose "the report of May" --to "$work/none"
says "with the limit" err "accepts 6 to 255"

# Secrets: no assertion and no token of the vendor is in a log or in the data of mayfly.
for secret in "$(cut -d. -f3 "$work/direct-es256.jwt")" "$(cat "$work/storage.token")" "$(cat "$work/client.token")"; do
    verdict "no credential is in mayfly's files" "$(! grep -rqF -- "$secret" "$world" && echo yes || echo "it is")"
done
check "mayfly upstream retire" 0 you upstream retire direct-es256 --reason "done" --confirm all
check "nothing is issued after that" 5 agent get direct-es256 --purpose "the report of May" --to "$work/none"
ended federation
