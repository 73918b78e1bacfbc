#!/usr/bin/env bash
# docs/upstreams/oauth.md against oidc-provider from npm on loopback: the template, the commands, and a sign-in by browser and by device code.
#
#   tests/oauth.sh MAYFLY
source "$(dirname "$0")/typed.sh"
node=$(cd "$(dirname "$0")" && pwd)/interop/node
if [ ! -d "$node/node_modules/oidc-provider" ] || ! command -v openssl >/dev/null; then
    skipped "oidc-provider (npm ci in tests/interop/node) or openssl is not installed"
    echo "oauth: 0 passed, 0 failed, 1 skipped"
    exit 0
fi
mkdir "$work/as"
# The server ends with its stdin.
coproc AS { exec node "$node/authorization-server.mjs" "$work/as" 2>"$work/as/log"; }
for _ in $(seq 600); do [ -f "$work/as/server.json" ] && break || sleep 0.05; done
[ -f "$work/as/server.json" ] || { cat "$work/as/log"; exit 1; }
issuer=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["issuer"])' "$work/as/server.json")
control() { curl -sS --cacert "$work/as/ca.pem" "$issuer/control/$1"; }
tokens() { control tokens | python3 -c 'import json, sys; print(sum(t["client"] == sys.argv[2] for t in json.load(sys.stdin)[sys.argv[1]]))' "$1" "$2"; }
wait_tokens() { for _ in $(seq 100); do [ "$(tokens "$1" "$2")" = "$3" ] && break || sleep 0.1; done; verdict "$4" "$([ "$(tokens "$1" "$2")" = "$3" ] && echo yes || echo "$(tokens "$1" "$2") tokens")"; }

check "a server" 0 up
check "is ended, to be told where its secrets are" 0 "$mayfly" dev down --dir "$world"
printf '\n[upstreams]\nsecrets_dir = "secrets"\n' >>"$world/mayfly.toml"
install -d -m 700 "$world/secrets"
check "the server again" 0 "$mayfly" dev up --dir "$world" --detach

# 3. The registration.
check "mayfly upstream template oauth" 0 you upstream template oauth
sed -e "s|https://auth\.example\.org/scopes/mail\.readonly|api:read|; s|https://auth\.example\.org/scopes/mail\.send|api:write|" \
    -e "s|https://auth\.example\.org|$issuer|; s|https://api\.example\.org/mail|$issuer/api|g; s|\"prod\"|\"dev\"|" \
    -e 's|^client_id = "mayfly"|client_id = "basic"|; s|^# probe = .*|probe = "/me"|' "$work/out" >"$work/mail.toml"
check "mayfly upstream add mail.toml" 0 you upstream add "$work/mail.toml"
check "mayfly upstream test mail, before there is a secret" 6 you upstream test mail
says "the file is named" out "mail.toml"

# 2. mayfly's secret.
secret() {
    printf "target = '%s'\nclient_secret = '%s'\n" "$issuer" "$2" >"$work/secret.toml"
    install -m 600 "$work/secret.toml" "$world/secrets/$1.toml"
    cp "$work/as/ca.pem" "$world/secrets/$1.pem"
}
secret mail wrong-marker
check "with a wrong secret" 6 you upstream test mail
says "says what the server says" out "invalid_client"
silent "but not the secret" out "wrong-marker"
secret mail 'basic-marker:5c1%'
check "mayfly upstream test mail" 0 you upstream test mail
says "the token was used" out "GET /me"
wait_tokens access basic 0 "nothing of the test stays"

# 5. Use.
check "mayfly get" 0 agent -o json get mail --purpose "look for the confirmation of order 17" --scope mail:read --to "$work/token.json"
field() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]] if len(sys.argv) == 3 else json.load(open(sys.argv[1]))[sys.argv[2]][sys.argv[3]])' "$work/token.json" "$@"; }
api() { curl -sS -o /dev/null -w '%{http_code}' --cacert "$work/as/ca.pem" -H "Authorization: Bearer $(field bearer_token token)" "$issuer/api/me"; }
verdict "the token works" "$([ "$(api)" = 200 ] && echo yes || api)"
check "the lease is listed" 0 you lease list
says "by the client" out "basic"
check "mayfly revoke" 0 you revoke --credential "$(field credential_id)" --reason "done"
wait_tokens access basic 0 "the token is revoked at the server"
verdict "and refused by the API" "$([ "$(api)" = 401 ] && echo yes || api)"
verdict "no token is in the log of mayfly" "$(! grep -qrF "$(field bearer_token token)" "$world"/*.log && echo yes || echo "it is")"

# 4. Signing in.
sed -e 's|^name = "mail"|name = "box"|; s|^client_id = .*|client_id = "app"|; s|^grant = .*|grant = "refresh_token"|; s|^probe = .*||' \
    -e "s|$issuer/api|$issuer/api/box|" -e 's|^lifetime = .*|lifetime = "1h"\nirrevocable = true\nsign_in_scopes = ["openid", "offline_access"]\nalso_granted = ["openid", "offline_access"]|' \
    "$work/mail.toml" >"$work/box.toml"
check "mayfly upstream add box.toml" 0 you upstream add "$work/box.toml"
secret box app-marker-2b88
check "before somebody signed in" 6 you upstream test box
says "names the command" out "mayfly upstream connect box"
check "mayfly upstream show box" 0 you -o json upstream show box
says "says so" out '"none"'
check "mayfly status" 0 you -o json status
says "says so, too" out "mayfly upstream connect box"
sign_in() { # the command, and somebody who signs in where it says
    you upstream connect box --no-browser "$@" >"$work/out" 2>"$work/err" </dev/null &
    local command=$! url=
    for _ in $(seq 600); do url=$(grep -m 1 -oE "^$issuer/\S+" "$work/err" || true); [ -n "$url" ] && break || sleep 0.05; done
    NODE_EXTRA_CA_CERTS=$work/as/ca.pem node "$node/provider.mjs" sign-in "$url" ada >"$work/page" 2>&1 || kill "$command" 2>/dev/null || true
    wait "$command"
}
check "mayfly upstream connect box" 0 sign_in
says "it is connected" err "is connected"
wait_tokens refresh app 1 "there is one refresh token"
check "mayfly upstream show box" 0 you -o json upstream show box
says "it is connected" out '"connected"'
check "mayfly upstream test box" 0 you upstream test box
check "connecting twice" 5 you upstream connect box --no-browser
says "is refused" err "mayfly upstream disconnect box"
check "mayfly get box" 0 agent -o json get box --purpose "look for the confirmation of order 17" --scope mail:read --to "$work/token.json"
verdict "the token works" "$([ "$(api)" = 200 ] && echo yes || api)"
control end >/dev/null
check "the server ended the grant" 6 you upstream test box
says "somebody has to sign in again" out "mayfly upstream connect box"
check "mayfly status" 0 you -o json status
says "says so" out "mayfly upstream connect box"
check "mayfly upstream connect box --device" 0 sign_in --device
check "mayfly upstream test box" 0 you upstream test box
check "mayfly upstream disconnect box" 0 you upstream disconnect box
says "it is revoked" err "revoked at the authorization server"
wait_tokens refresh app 0 "no refresh token stays"
check "after that" 6 you upstream test box
verdict "no secret of a client is in the log of mayfly" "$(! grep -qrE "app-marker|basic-marker" "$world"/*.log "$world/data" && echo yes || echo "it is")"
ended oauth
