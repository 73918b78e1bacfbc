#!/usr/bin/env bash
# docs/upstreams/postgres.md against a real PostgreSQL on loopback: the SQL of the page, the template, and the commands. The server of the
# database runs as an unprivileged user in a folder of the script, and ends with it.
#
#   tests/postgres.sh MAYFLY
source "$(dirname "$0")/typed.sh"
page=$(cd "$(dirname "$0")/.." && pwd)/docs/upstreams/postgres.md
bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | tail -n 1 || true)
if [ ! -x "$bin/initdb" ]; then
    skipped "PostgreSQL is not installed (Debian's package postgresql)"
    echo "postgres: 0 passed, 0 failed, 1 skipped"
    exit 0
fi
chmod 711 "$work"
# PostgreSQL refuses to run as root.
if [ "$(id -u)" = 0 ]; then
    alone() { setpriv --reuid=65534 --regid=65534 --clear-groups env -i PATH="$bin:/usr/bin:/bin" LC_ALL=C.UTF-8 "$@"; }
    install -d -m 700 -o 65534 -g 65534 "$work/db"
else
    alone() { env -i PATH="$bin:/usr/bin:/bin" LC_ALL=C.UTF-8 "$@"; }
    install -d -m 700 "$work/db"
fi
stop() { alone pg_ctl -D "$work/db/data" -m immediate stop >/dev/null 2>&1 || true; }
trap 'stop; end' EXIT
for db_port in $(shuf -n 20 -i 20000-32000); do
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$db_port") 2>/dev/null; then break; fi
done
check "a database server" 0 alone initdb -D "$work/db/data" -U super -A trust -N
alone sh -c "printf '%s\n' \"listen_addresses = '127.0.0.1'\" 'port = $db_port' \"unix_socket_directories = ''\" 'fsync = off' \"log_statement = 'all'\" >>'$work/db/data/postgresql.conf'"
# The superuser of this script is trusted; everybody else logs in as the page says.
alone sh -c "printf 'host all super 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n' >'$work/db/data/pg_hba.conf'"
check "is started" 0 alone pg_ctl -D "$work/db/data" -l "$work/db/log" -w start
sql() { psql -h 127.0.0.1 -p "$db_port" -U super -d "${database:-orders}" -X -q -A -t -v ON_ERROR_STOP=1 "$@"; }
database=postgres sql -c 'CREATE DATABASE orders'
sql -c "CREATE TABLE public.orders (id int PRIMARY KEY, what text); INSERT INTO public.orders VALUES (17, 'a lamp')"

check "a server" 0 up
check "is ended, to be told where its secrets are" 0 "$mayfly" dev down --dir "$world"
printf '\n[upstreams]\nsecrets_dir = "secrets"\n' >>"$world/mayfly.toml"
install -d -m 700 "$world/secrets"
check "the configuration is valid" 0 "$mayfly" server validate --config "$world/mayfly.toml"
check "the server again" 0 "$mayfly" dev up --dir "$world" --detach

# 3. The registration.
check "mayfly upstream template postgres" 0 you upstream template postgres
sed -e "s/db\.example\.org/127.0.0.1:$db_port/g" -e 's/"prod"/"dev"/' -e 's/^connection_limit = 4/connection_limit = 4\nplaintext = true/' \
    "$work/out" >"$work/orders.toml"
check "mayfly upstream add orders.toml" 0 you upstream add "$work/orders.toml"
check "mayfly upstream test orders, before there is a secret" 6 you upstream test orders
says "the file is named" out "orders.toml"

# 2. mayfly's password.
printf "target = 'postgres://127.0.0.1:%s'\npassword = 'choose one with many random characters'\n" "$db_port" >"$work/secret.toml"
install -m 600 "$work/secret.toml" "$world/secrets/orders.toml"

# 1. A role for mayfly: the statements of the page, one by one, with what the test says without them.
awk '/^```/ { block = (!block && $0 == "```sql"); next } block { print }' "$page" | grep -v '^--' >"$work/page.sql"
verdict "the page has its statements" "$([ "$(grep -c ';$' "$work/page.sql")" = 3 ] && echo yes || echo "$(grep -c ';$' "$work/page.sql") of them")"
check "without the role" 6 you upstream test orders
says "says what the database says" out "28P01"
sql -c "$(sed -n 1p "$work/page.sql")"
check "without its permissions" 6 you -o json upstream test orders
says "names the statement" out 'GRANT SELECT ON TABLE public.orders TO \"mayfly\" WITH GRANT OPTION'
sql -f <(sed -n '2,$p' "$work/page.sql")
check "mayfly upstream test orders" 0 you upstream test orders
says "it logged in" out "SELECT 1"
roles() { database=postgres sql -c "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'mayfly\\_%'"; }
verdict "nothing of the test stays" "$([ "$(roles)" = 0 ] && echo yes || echo "$(roles) roles")"

# 4. Use.
check "mayfly exec" 0 agent exec --upstream orders --purpose "look at order 17" -- psql -X -A -t -c 'SELECT what FROM public.orders'
says "psql has the login" out "a lamp"
check "mayfly get" 0 agent -o json get orders --purpose "look at order 17" --to "$work/login.json"
field() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["database_login"][sys.argv[2]])' "$work/login.json" "$1"; }
id=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["credential_id"])' "$work/login.json")
as_role() { PGPASSWORD=$(field password) psql -h 127.0.0.1 -p "$db_port" -U "$(field user)" -d orders -X -q -A -t "$@"; }
check "the login works" 0 as_role -c 'SELECT what FROM public.orders'
check "and may not write" 1 as_role -c "UPDATE public.orders SET what = 'none'"
check "the lease is listed" 0 you lease list
says "by the role's name" out "$(field user)"
as_role -c 'SELECT pg_sleep(600)' >/dev/null 2>&1 &
session=$!
for _ in $(seq 100); do [ "$(sql -c "SELECT count(*) FROM pg_stat_activity WHERE usename = '$(field user)'")" = 1 ] && break || sleep 0.05; done
check "mayfly revoke" 0 you revoke --credential "$id" --reason "done"
ended_by=0
for _ in $(seq 40); do kill -0 "$session" 2>/dev/null || { ended_by=1; break; }; sleep 0.025; done
verdict "a psql session ends within a second" "$([ "$ended_by" = 1 ] && echo yes || echo "it is still there")"
check "no new session" 2 as_role -c 'SELECT 1'
for _ in $(seq 100); do [ "$(roles)" = 0 ] && break || sleep 0.1; done
verdict "the role is gone" "$([ "$(roles)" = 0 ] && echo yes || echo "$(roles) roles")"
check "mayfly get once more" 0 agent -o json get orders --purpose "look at order 18" --to "$work/other.json"
other=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["credential_id"])' "$work/other.json")
check "mayfly revoke --wait --at-upstreams" 0 you revoke --credential "$other" --reason "done" --wait --at-upstreams
says "the login is gone when the command ends" err "at upstreams: 1 undone, 0 pending; verified there: 1"
verdict "the role is gone" "$([ "$(roles)" = 0 ] && echo yes || echo "$(roles) roles")"
verdict "no password is in the log of the database" "$(! grep -qF -- "$(field password)" "$work/db/log" && echo yes || echo "it is")"
verdict "no password is in the log of mayfly" "$(! grep -qrF -- "$(field password)" "$world"/*.log && echo yes || echo "it is")"
ended postgres
