#!/usr/bin/env bash
# mayfly with a real SPIRE, by the configurations of deploy/spire: its server takes its SVID and bundle from the agent's Workload API, so does a
# workload, and both rotate, roots included. Everything is on loopback and ends with the script.
#
#   tests/spire.sh MAYFLY SPIRE-BINARIES PYTHON
#
# PYTHON: one with the Python client installed.
spire=$2 python=$3
root=$(cd "$(dirname "$0")/.." && pwd)
source "$(dirname "$0")/typed.sh"
processes=()

end() {
    # What it says where nobody else does.
    [ "$failed" = 0 ] || for log in spire-server spire-agent mayfly fetch; do tail -n 5 "$work/$log.log" 2>/dev/null | cut -c1-400; done
    kill "${processes[@]}" 2>/dev/null || true
    wait 2>/dev/null || true
    rm -rf "$work"
}

# until_ok COMMAND...: until it succeeds, forty seconds at the longest.
until_ok() {
    local end=$((SECONDS + 40))
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 0.2
    done
}
# must WHAT COMMAND...: what all that follows needs.
must() { check "$1" 0 until_ok "${@:2}"; [ "$failed" = 0 ] || { ended spire; exit 1; }; }
free() { "$python" -c 'import socket; s = [socket.socket() for _ in range('"$1"')]; [x.bind(("127.0.0.1", 0)) for x in s]; print(*[x.getsockname()[1] for x in s])'; }
api=$work/api.sock agent_sock=$work/agent.sock
server() { "$spire/spire-server" "$@" -socketPath "$api"; }
begin() { # begin LOG COMMAND...: in the background, until the script ends
    local log=$1
    shift
    (exec "$@" >>"$work/$log" 2>&1) &
    processes+=($!)
}

# ---- SPIRE, by the files of deploy/spire with other paths, ports and a life of SVIDs that a test can wait for

read -r spire_port health_server health_agent workload admin public <<<"$(free 6)"
sed -e "s#/var/lib/spire#$work/spire#" -e "s#\"8081\"#\"$spire_port\"#" -e "s#\"8082\"#\"$health_server\"#" \
    -e "s#bind_address = .*#&\n  socket_path = \"$api\"\n  experimental { feature_flags = [\"forced_rotation\"] }#" \
    -e 's#0\.0\.0\.0#127.0.0.1#' "$root/deploy/spire/server.conf" >"$work/server.conf"
sed -e "s#/var/lib/spire#$work/spire#" -e "s#\"8081\"#\"$spire_port\"#" -e "s#\"8083\"#\"$health_agent\"#" \
    -e "s#/run/spire/agent.sock#$agent_sock#" -e "s#/etc/spire/bootstrap.pem#$work/bootstrap.pem#" \
    -e 's#spire-server.example.org#127.0.0.1#' -e "s#log_level = .*#&\n  experimental { sync_interval = \"1s\" }#" \
    -e '/WorkloadAttestor/,/}/ s#plugin_data {}#plugin_data { discover_workload_path = true }#' "$root/deploy/spire/agent.conf" >"$work/agent.conf"
mkdir -p "$work/spire/server" "$work/spire/agent"
check "deploy/spire/server.conf is one that SPIRE takes" 0 "$spire/spire-server" validate -config "$work/server.conf"
begin spire-server.log "$spire/spire-server" run -config "$work/server.conf"
must "the SPIRE server serves" server healthcheck
server bundle show >"$work/bootstrap.pem"
check "deploy/spire/agent.conf is one that SPIRE takes" 0 "$spire/spire-agent" validate -config "$work/agent.conf"
node=spiffe://example.org/node/one
agent=("$spire/spire-agent" run -config "$work/agent.conf")
begin spire-agent.log "${agent[@]}" -joinToken "$(server token generate -spiffeID $node | cut -d' ' -f2)"
agent_pid=${processes[-1]}
must "the agent serves" "$spire/spire-agent" healthcheck -socketPath "$agent_sock"

# ---- mayfly, by the configuration of deploy/spire with other paths and ports

cp "$mayfly" "$work/mayfly-server"
uid=$(id -u)
mkdir -p "$work/etc/policy/upstreams"
mkdir -m 700 "$work/run"
cp "$root/src/cli/samples/upstreams/echo.toml" "$work/etc/policy/upstreams/"
sed 's#dev.mayfly.internal#example.org#g' -i "$work/etc/policy/upstreams/echo.toml"
sed 's#dev.mayfly.internal#example.org#g' "$root/src/cli/samples/roles.toml" >"$work/etc/policy/roles.toml"
cat >"$work/etc/policy/policy.cedar" <<'CEDAR'
@id("agents")
permit (principal in Role::"agent", action in Action::"Work", resource in Environment::"prod");
CEDAR
sed -i 's#environment = "dev"#environment = "prod"#' "$work/etc/policy/upstreams/echo.toml"
sed -i 's#\[environment.dev\]#[environment.prod]#' "$work/etc/policy/roles.toml"
(umask 077 && head -c 32 /dev/urandom >"$work/etc/seal.key")
sed -e "s#0.0.0.0:7443#127.0.0.1:$workload#" -e "s#0.0.0.0:7444#127.0.0.1:$admin#" -e "s#0.0.0.0:7445#127.0.0.1:$public#" \
    -e "s#^metrics.*##" -e "s#/run/mayfly/#$work/run/#" -e "s#unix:/run/spire/agent.sock#unix:$agent_sock#" \
    -e "s#/var/lib/mayfly/data#$work/data#" -e "s#/etc/mayfly/#$work/etc/#" -e "s#^credential = .*#key_file = \"$work/etc/seal.key\"#" \
    "$root/deploy/spire/mayfly.toml" >"$work/etc/mayfly.toml"
check "nobody is registered yet: a start would wait" 0 "$mayfly" server validate --config "$work/etc/mayfly.toml"
says "and says how to register" out "spire-server entry create"

# The server's entry as deploy/spire has it, told apart by the program's path, since everybody here is one user.
entry() { # entry NAME PATH TTL [MORE...]
    local name=$1 path=$2 ttl=$3
    shift 3
    server entry create -parentID $node -spiffeID "spiffe://example.org/$name" -selector "unix:uid:$uid" -selector "unix:path:$path" \
        -x509SVIDTTL "$ttl" "$@"
}
MAYFLY_WORKLOAD_API_START_TIMEOUT=1s check "a start that waits in vain ends with 4" 4 "$work/mayfly-server" server run --config "$work/etc/mayfly.toml"
says "and says how to register" err "spire-server entry create"
entries() {
    entry mayfly "$work/mayfly-server" 20 -dns localhost && entry agent/demo "$mayfly" 20 &&
        entry agent/python "$("$python" -c 'import os, sys; print(os.path.realpath(sys.executable))')" 20
}
check "entries" 0 entries
begin mayfly.log "$work/mayfly-server" server run --config "$work/etc/mayfly.toml" --log json
healthy() { "$work/mayfly-server" server healthcheck --config "$work/etc/mayfly.toml"; }
must "mayfly serves by an SVID of SPIRE's" healthy
check "validate finds nothing" 0 "$work/mayfly-server" server validate --config "$work/etc/mayfly.toml"
silent "nothing at all" out "workload_api"

# admin COMMAND...: over the operators' socket.
admin() { "$mayfly" --address "unix:$work/run/admin.sock" "$@"; }
# told JQ-LIKE: one value of the status, by Python.
status() { admin status -o json | "$python" -c 'import json, sys; i = json.load(sys.stdin)["identity"]; print(i[sys.argv[1]])' "$1"; }
check "its status" 0 admin status -o json
says "says where its SVID comes from" out '"source": "workload_api"'
says "and which" out '"spiffe_id": "spiffe://example.org/mayfly"'
says "and its DNS name" out '"localhost"'
check "doctor" 0 "$work/mayfly-server" doctor --offline --server-config "$work/etc/mayfly.toml"

# ---- the command line: its SVID from the same agent, kept current in files

begin fetch.log "$mayfly" svid fetch --watch --socket "unix:$agent_sock" --to "$work/svid"
must "the command line's SVID is written" test -s "$work/svid/svid.pem"
demo() {
    "$mayfly" --address "https://127.0.0.1:$workload" --svid "$work/svid/svid.pem" --key "$work/svid/key.pem" --bundle "$work/svid/bundle.pem" \
        --server-id spiffe://example.org/mayfly "$@"
}
exchange() { demo get echo --scope echo:read --purpose rotation; }
check "an exchange by the command line" 0 exchange

# ---- the Python client, by the Workload API, all through what follows

cat >"$work/calls.py" <<'PYTHON'
import asyncio, os, pathlib, sys

from mayfly import Mayfly


async def main() -> None:
    stop, count = pathlib.Path(sys.argv[1]), 0
    async with Mayfly.from_env() as mayfly:
        while not stop.exists():
            async with mayfly.credential("echo", scope=["echo:read"], purpose="rotation", tool=f"t{count}", arguments={"n": count}):
                count += 1
            print(count, flush=True)
            await asyncio.sleep(0.02)


asyncio.run(main())
PYTHON
by_python() {
    exec env MAYFLY_ADDRESS=localhost:$workload MAYFLY_SERVER_ID=spiffe://example.org/mayfly SPIFFE_ENDPOINT_SOCKET="unix:$agent_sock" \
        "$python" "$work/calls.py" "$work/stop"
}
by_python >"$work/python.out" 2>"$work/python.err" &
calls=$!
processes+=("$calls")
check "the Python client gets credentials" 0 until_ok test -s "$work/python.out"

# ---- rotations of SVIDs of 20 s

renewed() { [ "$(status renewals)" -ge "$1" ]; }
check "the server's SVID rotates" 0 until_ok renewed 1
check "and again" 0 until_ok renewed 2
check "exchanges go on" 0 exchange
# ---- without its agent

kill "$agent_pid"
away() { status problem | found 'no connection'; }
check "that the agent is away is told" 0 until_ok away
check "exchanges go on without it" 0 exchange
begin spire-agent.log "${agent[@]}"
back() { [ -z "$(status problem)" ]; }
check "the agent is back" 0 until_ok back
# ---- a new root in the place of the old

# The command line of SPIRE 1.10 can only show its roots; its API can change them (spire-api-sdk, localauthority/v1).
cat >"$work/authority.py" <<'PYTHON'
import sys

import grpc

socket, method, *ids = sys.argv[1:]
call = grpc.insecure_channel(f"unix:{socket}").unary_unary(f"/spire.api.server.localauthority.v1.LocalAuthority/{method}")
# One field, a text: authority_id.
answer = call(b"".join(bytes([10, len(i)]) + i.encode() for i in ids), timeout=10)
# The state of an authority begins with its id, too; so does the first of several.
print(answer[4 : 4 + answer[3]].decode() if answer[:1] == b"\n" else "")
PYTHON
authority() { "$python" "$work/authority.py" "$api" "$@"; }
old=$(authority GetX509AuthorityState)
check "a root is prepared" 0 authority PrepareX509Authority
new=$(cat "$work/out")
roots() { [ "$(admin bundle show example.org -o json | "$python" -c 'import json, sys; print(len(json.load(sys.stdin)["trust_anchors"]))')" = "$1" ]; }
check "it reaches mayfly's bundle" 0 until_ok roots 2
check "it is made the active one" 0 authority ActivateX509Authority "$new"
before=$(status renewals)
renewed_since() { [ "$(status renewals)" -gt "$before" ]; }
check "mayfly shows an SVID by it" 0 until_ok renewed_since
sleep 12 # Everybody else has one as well: half of 20 s, and the agent's next look.
check "the old root is tainted" 0 authority TaintX509Authority "$old"
sleep 4
check "and revoked" 0 authority RevokeX509Authority "$old"
check "it leaves mayfly's bundle" 0 until_ok roots 1
check "what it vouched for is revoked" 0 admin rules list -o json
says "with the reason" out "the root is no longer in unix:$agent_sock"
check "exchanges go on" 0 until_ok exchange

# ---- what the Python client saw of all that

touch "$work/stop"
wait "$calls" && code=0 || code=$?
cp "$work/python.err" "$work/err"
tail -1 "$work/python.out" >"$work/out"
verdict "no call of the Python client failed" "$([ "$code" = 0 ] && echo yes || echo "exit code $code")"
verdict "and there were many" "$([ "$(tail -1 "$work/python.out")" -gt 200 ] && echo yes || echo "$(tail -1 "$work/python.out")")"
echo "the Python client made $(tail -1 "$work/python.out") exchanges over $(status renewals) certificates of the server"

# ---- a server without a DNS name

id=$(server entry show -spiffeID spiffe://example.org/mayfly -output json | "$python" -c 'import json, sys; print(json.load(sys.stdin)["entries"][0]["id"])')
check "the entry loses its DNS name" 0 server entry update -entryID "$id" -parentID $node -spiffeID spiffe://example.org/mayfly \
    -selector "unix:uid:$uid" -selector "unix:path:$work/mayfly-server" -x509SVIDTTL 20
nameless() { [ "$(status dns_names)" = "[]" ]; }
check "the server's SVID has none" 0 until_ok nameless
rm "$work/stop"
check "the Python client cannot use it" 1 eval "(by_python)"
says "and says what is wrong" err "has no DNS name beside its URI"
says "and what mends it" err "-dns NAME"
check "the command line can" 0 exchange
check "validate" 0 "$work/mayfly-server" server validate --config "$work/etc/mayfly.toml"
says "warns of it" out "has no DNS name"

ended spire
