#!/usr/bin/env bash
# The binary as somebody types it, against a dev server of its own that is ended with the script.
#
#   tests/smoke.sh MAYFLY
source "$(dirname "$0")/typed.sh"

me() { "$mayfly" --config "$world/operator-you.toml" "$@"; }
agent() { "$mayfly" --config "$world/agent-demo.toml" "$@"; }

check "without a command there is help" 2 "$mayfly"
check "an unknown command is a mistake in usage" 2 "$mayfly" frobnicate
check "version" 0 "$mayfly" --version
check "help" 0 "$mayfly" help revoke
says "help names the exit codes or flags" out "--dry-run"
check "completions" 0 "$mayfly" completions bash

check "dev up" 0 up
says "dev up says what to type next" err "mayfly status"
check "the server's configuration is valid" 0 "$mayfly" server validate --config "$world/mayfly.toml"
check "the server is healthy" 0 "$mayfly" server healthcheck --config "$world/mayfly.toml"
check "svid check accepts" 0 "$mayfly" svid check --bundle "$world/bundle.pem" --trust-domain dev.mayfly.internal "$world/svid/agent/demo/svid.pem"
check "svid check refuses a CA" 5 "$mayfly" svid check --bundle "$world/bundle.pem" --trust-domain dev.mayfly.internal "$world/ca.pem"

check "no server there" 8 me --address https://127.0.0.1:1 status
check "status" 0 me status -o json
check "whoami" 0 agent whoami
says "whoami names the SPIFFE ID" out "spiffe://dev.mayfly.internal/agent/demo"
check "a task" 0 agent task open --purpose smoke --upstream echo=echo:read -o name
task=$(head -1 "$work/out")
check "a credential in it, to a pipe" 0 agent get echo --task "$task" --scope echo:read
cp "$work/out" "$work/token"
verdict "stdout has the token and nothing else" "$([ "$(wc -l <"$work/token")" -le 1 ] && grep -qE '^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$' "$work/token" && echo yes || echo no)"
silent "stderr does not have it" err "$(cat "$work/token")"
# On a real terminal, which script(1) makes one of.
typed() { script -qec "$(printf '%q ' "$mayfly" --config "$world/agent-demo.toml" get echo --task "$task" --scope echo:read "$@")" /dev/null; }
check "a terminal gets no credential" 2 typed
says "and is told where one may go" out "--to FILE"
silent "and shows none" out "eyJ"
check "unless it is told to" 0 typed --force-terminal
says "then it does" out "eyJ"
check "a terminal beside a file is none" 0 typed --to "$work/typed"
silent "and shows none" out "eyJ"
elsewhere() { env MAYFLY_ADDRESS=127.0.0.1:1 MAYFLY_SVID=/nowhere MAYFLY_SERVER_ID=spiffe://other/one "$@"; }
check "the file that a flag names counts before the environment" 0 elsewhere "$mayfly" --config "$world/agent-demo.toml" whoami
check "also after the command" 0 elsewhere "$mayfly" whoami --config "$world/agent-demo.toml"
check "another flag before that" 8 "$mayfly" --config "$world/agent-demo.toml" whoami --address 127.0.0.1:1
check "the environment before a file that it names itself" 8 env MAYFLY_CONFIG="$world/agent-demo.toml" MAYFLY_ADDRESS=127.0.0.1:1 "$mayfly" whoami
port=$(grep '^address' "$world/agent-demo.toml" | grep -oE '[0-9]+"$' | tr -d '"')
grep -v '^address' "$world/agent-demo.toml" >"$world/no-address.toml"
check "and where the file is silent it is asked, with a host and a port as clients have it" 0 \
    env MAYFLY_ADDRESS="localhost:$port" "$mayfly" --config "$world/no-address.toml" whoami
check "a scope that the task lacks is refused" 5 agent get echo --task "$task" --scope echo:write
check "an upstream that is not there" 3 agent get nowhere --purpose smoke
check "credentials are listed" 0 me credential list -o json
says "with their task" out "${task:-none}"
silent "and without a token" out "$(cut -d. -f3 <"$work/token")"
check "a dry run revokes nothing" 0 me revoke --task "$task" --reason smoke --dry-run
check "a workload is no operator, whichever listener it asks" 5 \
    me --svid "$world/svid/agent/demo/svid.pem" --key "$world/svid/agent/demo/key.pem" revoke --task "$task" --reason smoke
check "revoking the task" 0 me revoke --task "$task" --reason smoke --confirm all
check "nothing more is issued in it" 5 agent get echo --task "$task" --scope echo:read
check "a found token is told" 0 bash -c '"$1" --config "$2" token lookup <"$3"' - "$mayfly" "$world/operator-you.toml" "$work/token"
check "it is explained" 0 me explain "$task"
check "a lock" 0 me lock add --caller spiffe://dev.mayfly.internal/agent/demo --reason smoke
check "keeps its caller out" 5 agent get echo --purpose smoke --scope echo:read
check "keys" 0 me key list
check "bundles" 0 me bundle show dev.mayfly.internal

# The sealing key is lost (docs/operations.md): the store stays shut, and a new one knows nothing that the old one issued.
check "dev down before the key is lost" 0 "$mayfly" dev down --dir "$world"
cp "$world/seal.key" "$work/seal.key"
head -c 32 /dev/urandom >"$world/seal.key"
check "with another sealing key it does not start" 1 timeout 60 "$mayfly" server run --config "$world/mayfly.toml"
says "and says what mends it" err "put the key of this store back"
rm "$world/seal.key"
check "without one it does not start either" 1 timeout 60 "$mayfly" server run --config "$world/mayfly.toml"
says "and says how one is made" err "head -c 32 /dev/urandom"
mv "$world/data" "$work/data.lost"
(umask 077 && head -c 32 /dev/urandom >"$world/seal.key")
check "a new store starts with a new key" 0 "$mayfly" dev up --dir "$world" --detach
check "and does not know what the old one issued" 3 bash -c '"$1" --config "$2" token lookup <"$3"' - "$mayfly" "$world/operator-you.toml" "$work/token"
check "but issues" 0 agent get echo --purpose smoke --scope echo:read
check "dev down again" 0 "$mayfly" dev down --dir "$world"
rm -r "$world/data"
mv "$work/data.lost" "$world/data"
install -m 600 "$work/seal.key" "$world/seal.key"
check "the old store starts with its own key" 0 "$mayfly" dev up --dir "$world" --detach
check "and knows what it issued" 0 bash -c '"$1" --config "$2" token lookup <"$3"' - "$mayfly" "$world/operator-you.toml" "$work/token"

# An SVID for a workload of one's own.
check "dev svid" 0 "$mayfly" dev svid mcp/notes --dns notes.internal --dir "$world" -o json
says "it names the SPIFFE ID" out '"spiffe_id": "spiffe://dev.mayfly.internal/mcp/notes"'
check "the command line uses it by its context file" 0 "$mayfly" --config "$world/mcp-notes.toml" whoami
says "as that workload" out "spiffe://dev.mayfly.internal/mcp/notes"
check "and by its variables" 0 bash -c 'set -a; . "$1"; exec "$2" whoami' - "$world/mcp-notes.env" "$mayfly"
says "as the same" out "spiffe://dev.mayfly.internal/mcp/notes"
check "a name that is no path of a SPIFFE ID" 2 "$mayfly" dev svid 'no good/..' --dir "$world"
check "the server's own name" 2 "$mayfly" dev svid mayfly --dir "$world"
before=$(cat "$world/svid/mcp/notes/svid.pem")
check "dev down for a renewal" 0 "$mayfly" dev down --dir "$world"
check "dev up renews all" 0 "$mayfly" dev up --dir "$world" --detach
verdict "also what dev svid made" "$([ "$before" != "$(cat "$world/svid/mcp/notes/svid.pem")" ] && echo yes || echo no)"
verdict "with its DNS name" "$(openssl x509 -in "$world/svid/mcp/notes/svid.pem" -noout -ext subjectAltName | found 'DNS:notes.internal' && echo yes || echo no)"
check "a lock, to be forgotten" 0 me lock add --caller spiffe://dev.mayfly.internal/agent/demo --reason smoke
check "a lock is lifted by what lock list prints" 0 bash -c '"$1" --config "$2" lock lift "$("$1" --config "$2" lock list -o name | sed -n 1p)" --reason smoke' - "$mayfly" "$world/operator-you.toml"
check "another lock" 0 me lock add --caller spiffe://dev.mayfly.internal/agent/demo --reason smoke
check "dev reset" 0 "$mayfly" dev reset --dir "$world"
check "dev up after it" 0 "$mayfly" dev up --dir "$world" --detach
check "begins without locks" 0 agent get echo --purpose smoke

# What a command line leaves out is named, and what it names twice, too.
check "get without a purpose" 2 agent get echo
says "names what is missing" err "--purpose"
silent "and not what could be there instead" err "--task"
check "exec with one variable for two" 2 agent exec --env TOKEN=echo --env TOKEN=repos --purpose smoke -- true
says "names the variable" err "TOKEN"
check "a kind that nobody issues" 2 agent get echo --purpose smoke --kind password
says "and says which are" err "reference"
check "a kind that the upstream does not issue" 5 agent get echo --purpose smoke --kind github
says "and says which it does" err "echo issues jwt, reference"
check "a policy set is shown as text" 0 me policy show dev
says "line by line" out '@id("operators")'

check "dev down" 0 "$mayfly" dev down --dir "$world" --purge
verdict "nothing is left" "$([ ! -e "$world" ] && echo yes || echo "$world is there")"

ended smoke
