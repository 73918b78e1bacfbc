#!/usr/bin/env bash
# docs/upstreams/mysql.md against a real MariaDB on loopback: the SQL of the page, the template, and the commands. The server of the database
# runs as an unprivileged user in a folder of the script, and ends with it.
#
#   tests/mysql.sh MAYFLY
source "$(dirname "$0")/typed.sh"
page=$(cd "$(dirname "$0")/.." && pwd)/docs/upstreams/mysql.md
if [ ! -x /usr/sbin/mariadbd ] && ! command -v mariadbd >/dev/null; then
    skipped "MariaDB is not installed (Debian's package mariadb-server)"
    echo "mysql: 0 passed, 0 failed, 1 skipped"
    exit 0
fi
chmod 711 "$work"
# MariaDB refuses to run as root.
if [ "$(id -u)" = 0 ]; then
    alone() { setpriv --reuid=65534 --regid=65534 --clear-groups env -i PATH=/usr/bin:/usr/sbin:/bin LC_ALL=C.UTF-8 "$@"; }
    install -d -m 700 -o 65534 -g 65534 "$work/db"
else
    alone() { env -i PATH=/usr/bin:/usr/sbin:/bin LC_ALL=C.UTF-8 "$@"; }
    install -d -m 700 "$work/db"
fi
server=
stop() { [ -z "$server" ] || kill -KILL "$server" 2>/dev/null || true; }
trap 'stop; end' EXIT
for db_port in $(shuf -n 20 -i 20000-32000); do
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$db_port") 2>/dev/null; then break; fi
done
check "a database server" 0 alone mariadb-install-db --no-defaults --datadir="$work/db/data" --auth-root-authentication-method=normal --skip-test-db
alone mariadbd --no-defaults --datadir="$work/db/data" --port="$db_port" --bind-address=127.0.0.1 --socket="$work/db/socket" \
    --pid-file="$work/db/pid" --skip-name-resolve --general-log --general-log-file="$work/db/statements" --log-error="$work/db/errors" \
    </dev/null >/dev/null 2>&1 &
server=$!
sql() { mariadb --no-defaults -N -B -h 127.0.0.1 -P "$db_port" -u root "$@"; }
for _ in $(seq 200); do sql -e 'SELECT 1' >/dev/null 2>&1 && break || sleep 0.1; done
sql -e "CREATE DATABASE orders; CREATE TABLE orders.orders (id int PRIMARY KEY, what text); INSERT INTO orders.orders VALUES (17, 'a lamp')"

check "a server" 0 up
check "is ended, to be told where its secrets are" 0 "$mayfly" dev down --dir "$world"
printf '\n[upstreams]\nsecrets_dir = "secrets"\n' >>"$world/mayfly.toml"
install -d -m 700 "$world/secrets"
check "the server again" 0 "$mayfly" dev up --dir "$world" --detach

# 3. The registration.
check "mayfly upstream template mysql" 0 you upstream template mysql
sed -e "s/db\.example\.org/127.0.0.1:$db_port/g" -e 's/"prod"/"dev"/' -e 's/^connection_limit = 4/connection_limit = 4\nplaintext = true/' \
    "$work/out" >"$work/orders.toml"
check "mayfly upstream add orders.toml" 0 you upstream add "$work/orders.toml"
check "mayfly upstream test orders, before there is a secret" 6 you upstream test orders
says "the file is named" out "orders.toml"

# 2. mayfly's password.
printf "target = 'mysql://127.0.0.1:%s'\npassword = 'choose one with many random characters'\n" "$db_port" >"$work/secret.toml"
install -m 600 "$work/secret.toml" "$world/secrets/orders.toml"

# 1. A user for mayfly: the statements of the page, one by one, with what the test says without them. The server of the test has no TLS.
awk '/^```/ { block = (!block && $0 == "```sql"); next } block { print }' "$page" | grep -v '^--' | sed 's/ REQUIRE SSL//' >"$work/page.sql"
verdict "the page has its statements" "$([ "$(grep -c ';$' "$work/page.sql")" = 4 ] && echo yes || echo "$(grep -c ';$' "$work/page.sql") of them")"
check "without the user" 6 you upstream test orders
says "says what the server says" out "1045"
sql -e "$(sed -n 1p "$work/page.sql")"
check "without its privileges" 6 you upstream test orders
says "names the first" out "GRANT CREATE USER ON *.* TO 'mayfly'@'%'"
sql -e "$(sed -n 2p "$work/page.sql")"
sql -e "$(sed -n 4p "$work/page.sql")"
check "without the look at users" 6 you upstream test orders
says "names that" out "GRANT SELECT (User, Host) ON mysql.user TO 'mayfly'@'%'"
sql -e "$(sed -n 3p "$work/page.sql")"
check "mayfly upstream test orders" 0 you upstream test orders
says "it logged in" out "SELECT 1"
users() { sql -e "SELECT COUNT(*) FROM mysql.user WHERE User LIKE 'mayfly_%'"; }
verdict "nothing of the test stays" "$([ "$(users)" = 0 ] && echo yes || echo "$(users) users")"

# 4. Use.
check "mayfly exec" 0 agent exec --upstream orders --purpose "look at order 17" -- mariadb -N -B -e 'SELECT what FROM orders.orders'
says "the client has the login" out "a lamp"
check "mayfly get" 0 agent -o json get orders --purpose "look at order 17" --to "$work/login.json"
field() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["database_login"][sys.argv[2]])' "$work/login.json" "$1"; }
id=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["credential_id"])' "$work/login.json")
as_user() { MYSQL_PWD=$(field password) mariadb --no-defaults -N -B -h 127.0.0.1 -P "$db_port" -u "$(field user)" -D orders "$@"; }
check "the login works" 0 as_user -e 'SELECT what FROM orders.orders'
check "and may not write" 1 as_user -e "UPDATE orders.orders SET what = 'none'"
check "the lease is listed" 0 you lease list
says "by the user's name" out "$(field user)"
check "mayfly credential list" 0 you credential list
as_user -e 'SELECT SLEEP(600)' >/dev/null 2>&1 &
session=$!
for _ in $(seq 100); do [ "$(sql -e "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER = '$(field user)'")" = 1 ] && break || sleep 0.05; done
check "mayfly revoke" 0 you revoke --credential "$id" --reason "done"
ended_by=0
for _ in $(seq 40); do kill -0 "$session" 2>/dev/null || { ended_by=1; break; }; sleep 0.025; done
verdict "a session ends within a second" "$([ "$ended_by" = 1 ] && echo yes || echo "it is still there")"
check "no new session" 1 as_user -e 'SELECT 1'
for _ in $(seq 100); do [ "$(users)" = 0 ] && break || sleep 0.1; done
verdict "the user is gone" "$([ "$(users)" = 0 ] && echo yes || echo "$(users) users")"
verdict "no password is in the log of the database" "$(! grep -qF -e "$(field password)" "$work/db/statements" && echo yes || echo "it is")"
verdict "no password is in the log of mayfly" "$(! grep -qrF -e "$(field password)" "$world"/*.log && echo yes || echo "it is")"
ended mysql
