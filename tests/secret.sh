#!/usr/bin/env bash
# docs/upstreams/secret.md by the command line: the template, storing, handing out, revoking, replacing and removing a static secret.
#
#   tests/secret.sh MAYFLY
source "$(dirname "$0")/typed.sh"

check "a server" 0 up

# 1. The registration.
check "mayfly upstream template secret" 0 you upstream template secret
sed -e 's/"prod"/"dev"/' "$work/out" >"$work/sentry.toml"
check "mayfly upstream add sentry.toml" 0 you upstream add "$work/sentry.toml"
sed -e 's/^may_be_irrevocable.*//' -e 's/sentry/other/g' "$work/sentry.toml" >"$work/other.toml"
check "without the consent" 2 you upstream add "$work/other.toml"
says "the consent is named" err "may_be_irrevocable = true"
check "mayfly upstream test sentry, before there is a secret" 6 you upstream test sentry
says "says what is missing" out "mayfly secret put sentry"

# 2. The secret.
printf 'marker-one\n' >"$work/key"
put_one() { you secret put sentry --file "$work/key"; }
check "mayfly secret put sentry" 0 put_one
says "it is handed out" err "version 1"
check "mayfly secret list" 0 you secret list
says "says what stands" out "in use"
check "mayfly secret show sentry" 0 you secret show sentry
says "has the version" out "current"
check "mayfly upstream test sentry" 0 you upstream test sentry
says "the secret opens" out "opens with the sealing key"

# 3. Use.
check "mayfly exec" 0 agent exec --upstream sentry --purpose "look at an error" -- sh -c 'echo "$SENTRY_AUTH_TOKEN $SENTRY_BASE_URL"'
says "puts it into the registration's variable" out "marker-one https://sentry.example.org/api/0"
check "mayfly exec --env" 0 agent exec --env TOKEN=sentry --purpose "look at an error" -- sh -c 'echo "$TOKEN${SENTRY_AUTH_TOKEN:-}"'
says "puts it into that variable" out "marker-one"
check "mayfly get" 0 agent -o json get sentry --purpose "look at an error" --to "$work/key.json"
field() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$work/key.json" "$1"; }
verdict "says that it cannot be revoked" "$([ "$(field irrevocable)" = True ] && echo yes || field irrevocable)"

# 4. Revoking, and replacing the secret.
check "mayfly revoke" 0 you revoke --credential "$(field credential_id)" --reason "leaked"
for _ in $(seq 100); do you secret list >"$work/out" 2>/dev/null; grep -qF "is to be rotated" "$work/out" && break || sleep 0.1; done
says "the version is to be rotated" out "version 1 is to be rotated"
check "mayfly lease list" 0 you lease list
says "the lease waits for it" out "to be rotated"
printf 'marker-two\n' >"$work/key"
check "mayfly secret put sentry" 0 put_one
for _ in $(seq 100); do you -o json lease list >"$work/out" 2>/dev/null; grep -qF "to be rotated" "$work/out" && sleep 0.2 || break; done
silent "the lease is closed" out "to be rotated"
check "the new version is handed out" 0 agent exec --upstream sentry --purpose "look at an error" -- sh -c 'echo "$SENTRY_AUTH_TOKEN"'
says "to everybody" out "marker-two"
check "mayfly secret remove" 0 you secret remove sentry --reason "the vendor is not used any more"
says "says what is left to do" err "still valid at the vendor until revoked there: version 2"
check "nothing is handed out" 1 agent exec --upstream sentry --purpose "look at an error" -- true
says "with the reason" err "no secret of upstream sentry is stored"
verdict "no secret is in the log of mayfly" "$(! grep -qrF marker- "$world"/*.log && echo yes || echo "it is")"
verdict "nor in its data" "$(! grep -qrF marker- "$world/data" && echo yes || echo "it is")"
ended secret
