#!/usr/bin/env bash
# docs/first-server.md, typed as it stands: every block marked `sh`, in one shell, in an empty folder. Only the ports differ, since the page's may be
# taken, and each line is run with `set -e`.
#
#   tests/first-server.sh MAYFLY
source "$(dirname "$0")/typed.sh"
page=$(cd "$(dirname "$0")/.." && pwd)/docs/first-server.md
mkdir "$work/bin" "$work/folder" && ln -s "$(realpath "$mayfly")" "$work/bin/mayfly"

# Three free ports in a row.
free() {
    local first port
    for first in $(shuf -n 20 -i 20000-32000); do
        for port in 0 1 2; do
            if (exec 3<>"/dev/tcp/127.0.0.1/$((first + port))") 2>/dev/null; then continue 2; fi
        done
        echo "$first" && return
    done
    return 1
}
first=$(free)
blocks() { awk '/^```/ { block = (!block && $0 == "```sh"); next } block { print }' "$page"; }
{
    echo 'set -Eeuo pipefail'
    # Whatever happens, the server ends with the script.
    echo "trap 'kill \$(jobs -p) 2>/dev/null || true' EXIT"
    blocks | sed -e "s/7443/$first/g" -e "s/7444/$((first + 1))/g" -e "s/7445/$((first + 2))/g"
    echo 'echo "the page was typed to its end"'
} >"$work/page.sh"
verdict "the page has its commands" "$([ "$(grep -c '^mayfly ' "$work/page.sh")" -ge 15 ] && echo yes || echo "$(grep -c '^mayfly ' "$work/page.sh") of them")"
typed() { cd "$work/folder" && PATH=$work/bin:$PATH timeout 120 bash -m "$work/page.sh"; }
check "docs/first-server.md, typed as it stands" 0 typed
says "to its end" out "the page was typed to its end"
says "Ada's change needed an approval" err "appr_"
says "the workload was refused after the revocation" err "blocks new grants"
verdict "the token is not in the server's log" "$(token=$(cat "$work/folder/first-server/token" 2>/dev/null || echo none); [ -n "$token" ] && ! grep -qF -- "$token" "$work/folder/first-server/server.log" && echo yes || echo no)"
ended first-server
