#!/usr/bin/env bash
# docs/upstreams/redis.md against a real Redis on loopback: the user of the page, the template, and the commands. The server runs in a folder
# of the script, and ends with it.
#
#   tests/redis.sh MAYFLY
source "$(dirname "$0")/typed.sh"
page=$(cd "$(dirname "$0")/.." && pwd)/docs/upstreams/redis.md
if ! command -v redis-server >/dev/null; then
    skipped "Redis is not installed (Debian's package redis-server)"
    echo "redis: 0 passed, 0 failed, 1 skipped"
    exit 0
fi
server=
stop() { [ -z "$server" ] || kill -KILL "$server" 2>/dev/null || true; }
trap 'stop; end' EXIT
for db_port in $(shuf -n 20 -i 20000-32000); do
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$db_port") 2>/dev/null; then break; fi
done
install -d -m 700 "$work/db"
printf 'user default on nopass ~* &* +@all\n' >"$work/db/users.acl"
printf '%s\n' "bind 127.0.0.1" "port $db_port" "dir $work/db" 'save ""' "aclfile $work/db/users.acl" "slowlog-log-slower-than 0" \
    "slowlog-max-len 10000" "loglevel verbose" >"$work/db/redis.conf"
redis-server "$work/db/redis.conf" </dev/null >"$work/db/log" 2>&1 &
server=$!
cli() { redis-cli -h 127.0.0.1 -p "$db_port" "$@"; }
for _ in $(seq 100); do [ "$(cli PING 2>/dev/null)" = PONG ] && break || sleep 0.1; done
cli SET cart:17 "a lamp" >/dev/null

check "a server" 0 up
check "is ended, to be told where its secrets are" 0 "$mayfly" dev down --dir "$world"
printf '\n[upstreams]\nsecrets_dir = "secrets"\n' >>"$world/mayfly.toml"
install -d -m 700 "$world/secrets"
check "the server again" 0 "$mayfly" dev up --dir "$world" --detach

# 3. The registration.
check "mayfly upstream template redis" 0 you upstream template redis
sed -e "s/cache\.example\.org/127.0.0.1:$db_port/g" -e 's/"prod"/"dev"/' -e 's/^# plaintext/plaintext/' "$work/out" >"$work/cart.toml"
check "mayfly upstream add cart.toml" 0 you upstream add "$work/cart.toml"
check "mayfly upstream test cart, before there is a secret" 6 you upstream test cart
says "the file is named" out "cart.toml"

# 2. mayfly's password.
printf "target = 'redis://127.0.0.1:%s'\npassword = 'choose-one-with-many-random-characters'\n" "$db_port" >"$work/secret.toml"
install -m 600 "$work/secret.toml" "$world/secrets/cart.toml"

# 1. A user for mayfly: the commands of the page, one by one, with what the test says without them.
awk '/^```/ { block = (!block && $0 == "```redis"); next } block { print }' "$page" >"$work/page.redis"
verdict "the page has its commands" "$([ "$(wc -l <"$work/page.redis")" = 4 ] && echo yes || echo "$(wc -l <"$work/page.redis") of them")"
check "without the user" 6 you upstream test cart
says "says what the server says" out "WRONGPASS"
sed -n 1p "$work/page.redis" | cli >"$work/out"
says "the first command" out OK
check "without its permissions" 6 you upstream test cart
says "names the first" out "ACL SETUSER mayfly +client|setname"
sed -n '2,$p' "$work/page.redis" | cli >"$work/out"
check "mayfly upstream test cart" 0 you upstream test cart
says "it logged in" out "PING"
users() { cli ACL USERS | grep -c '^mayfly_' || true; }
verdict "nothing of the test stays" "$([ "$(users)" = 0 ] && echo yes || echo "$(users) users")"

# 4. Use: the command of the page.
command=$(sed -n "s/^mayfly exec .* -- sh -c '\(.*\)'\$/\1/p" "$page")
check "mayfly exec" 0 agent exec --upstream cart --purpose "look at a cart" -- sh -c "$command"
says "the client has the login" out "a lamp"
check "mayfly get" 0 agent -o json get cart --purpose "look at a cart" --to "$work/login.json"
field() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["database_login"][sys.argv[2]])' "$work/login.json" "$1"; }
id=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["credential_id"])' "$work/login.json")
as_user() { REDISCLI_AUTH=$(field password) cli --user "$(field user)" "$@"; }
as_user GET cart:17 >"$work/out" 2>&1
says "the login works" out "a lamp"
as_user SET cart:17 none >"$work/out" 2>&1
says "and may not write" out "NOPERM"
check "the lease is listed" 0 you lease list
says "by the user's name" out "$(field user)"
check "mayfly credential list" 0 you credential list
as_user < <(echo PING; exec sleep 20) >"$work/session" 2>&1 &
session=$!
sessions() { cli CLIENT LIST | grep -c "user=$(field user) " || true; }
for _ in $(seq 100); do [ "$(sessions)" = 1 ] && break || sleep 0.05; done
verdict "a session is open" "$([ "$(sessions)" = 1 ] && echo yes || echo "$(sessions) sessions")"
check "mayfly revoke" 0 you revoke --credential "$id" --reason "done"
for _ in $(seq 40); do [ "$(sessions)" = 0 ] && break || sleep 0.025; done
verdict "it ends within a second" "$([ "$(sessions)" = 0 ] && echo yes || echo "$(sessions) sessions")"
kill "$session" 2>/dev/null || true
as_user PING >"$work/out" 2>&1 || true
says "no new session" out "WRONGPASS"
for _ in $(seq 100); do [ "$(users)" = 0 ] && break || sleep 0.1; done
verdict "the user is gone" "$([ "$(users)" = 0 ] && echo yes || echo "$(users) users")"
verdict "no file of users has it" "$(! grep -qF -e "$(field user)" "$work/db/users.acl" && echo yes || echo "it has")"
cli SLOWLOG GET 10000 >"$work/db/slow"
verdict "no password is at the server" "$(! grep -qF -e "$(field password)" "$work/db/log" "$work/db/slow" "$work/db/users.acl" && echo yes || echo "it is")"
verdict "no password is in the log of mayfly" "$(! grep -qrF -e "$(field password)" "$world"/*.log && echo yes || echo "it is")"
ended redis
