#!/usr/bin/env bash
# What the scripts that type commands share: a place of their own, checks, and the last line. Sourced with the binary as the first word.
set -Eeuo pipefail
mayfly=$1
work=$(mktemp -d)
export HOME=$work XDG_CONFIG_HOME=$work/config XDG_STATE_HOME=$work/state
skipped_to=${MAYFLY_SKIPPED:-}
unset "${!MAYFLY_@}"
world=$work/world
passed=0 failed=0

end() {
    "$mayfly" dev down --dir "$world" >/dev/null 2>&1 || true
    rm -rf "$work"
}
trap end EXIT

# check WHAT CODE COMMAND...: runs it, its output in $work/out and $work/err, and compares the exit code.
check() {
    local what=$1 want=$2 code=0
    shift 2
    "$@" >"$work/out" 2>"$work/err" </dev/null || code=$?
    verdict "$what" "$([ "$code" = "$want" ] && echo yes || echo "exit code $code, not $want")"
}

# skipped WHAT: a check that cannot run here, for the closing lines of ./test.
skipped() {
    echo "SKIPPED: $1"
    [ -z "$skipped_to" ] || echo "$1" >>"$skipped_to"
}

verdict() {
    if [ "$2" = yes ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        printf 'FAILED %s: %s\n' "$1" "$2"
        sed -n '1,20s/^/    /p' "$work/out" "$work/err"
    fi
}

# For the end of a pipeline. grep -q and head leave without reading all: what writes to them may then fail, and with it the pipeline (pipefail).
# found OPTION... PATTERN: whether standard input has it.
found() { grep -q "$@" <<<"$(cat)"; }
first_line() { sed -n 1p; }

# says WHAT FILE TEXT: the file holds the text.
says() { verdict "$1" "$(grep -qF -- "$3" "$work/$2" && echo yes || echo "no \"$3\" in $2")"; }
# silent WHAT FILE TEXT: it does not.
silent() { verdict "$1" "$(grep -qF -- "$3" "$work/$2" && echo "\"$3\" in $2" || echo yes)"; }

# Ports that can be named in advance, since the configuration has to hold them: the first three in a row that nobody has.
up() {
    for port in $(shuf -n 5 -i 20000-32000); do
        "$mayfly" dev up --dir "$world" --port "$port" --detach && return
        rm -rf "$world"
    done
    return 1
}

# as NAME CONTEXT COMMAND...: the command as that workload or operator of the world.
as() {
    local name=$1 context=$2
    shift 2
    "$mayfly" --config "$world/$context.toml" --svid "$world/svid/$name/svid.pem" --key "$world/svid/$name/key.pem" "$@"
}
# killed: the server of the world, by SIGKILL, and waits until the process is gone: the next `dev up` would find it running otherwise.
killed() {
    local pid
    pid=$(cat "$world/mayfly.pid")
    kill -9 "$pid"
    for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || return 0; sleep 0.05; done
    return 1
}
you() { as operator/you operator-you "$@"; }
colleague() { as operator/colleague operator-you "$@"; }
agent() { as agent/demo agent-demo "$@"; }
# The approval that the command before was told of.
approval() { grep -oE "appr_[A-Za-z0-9_-]+" "$work/err" | first_line || true; }

# warehouse SCOPES: a registration that issues tokens, with these scopes.
warehouse() {
    cat <<TOML
name = "warehouse"
owner = "data-platform"
purpose = "orders, for finance"
environment = "dev"
audience = "https://warehouse.dev.mayfly.internal"
target = "http://127.0.0.1:7790"
servers = ["spiffe://dev.mayfly.internal/service/echo"]
approvers = ["spiffe://dev.mayfly.internal/operator/colleague"]
kinds = ["jwt"]
scopes = [$1]
expires = 2099-12-31

[classification]
system = "warehouse"
privilege = "read"
blast_radius = "medium"

[ttl]
min = "1s"
default = "5m"
max = "15m"
TOML
}

# ended NAME: the counts, and whether all passed.
ended() {
    printf '%s: %d passed, %d failed\n' "$1" "$passed" "$failed"
    [ "$failed" = 0 ]
}
