#!/usr/bin/env bash
# The commands of the pages: every line of docs/, of deploy/ and of the README that calls mayfly is one that the program takes, and those of the
# pages for operators are typed in their order against a server of its own, with names of that server in the place of the page's.
# docs/three-in-the-morning.md and docs/first-server.md have scripts of their own; the READMEs under clients/ have suites of their own; people, CI jobs and break-glass
# are typed in tests/story.sh, tests/interop/node and tests/governance.sh, with the providers and people that they take.
#
#   tests/pages.sh MAYFLY
source "$(dirname "$0")/typed.sh"
here=$(cd "$(dirname "$0")/.." && pwd)
unset XDG_STATE_HOME
mkdir "$work/typing" && cd "$work/typing"
printf '#!/bin/sh\nexec "%s" "$@"\n' "$mayfly" >"$work/mayfly" && chmod +x "$work/mayfly"
PATH=$work:$PATH

# lines PAGE: each command of its blocks that calls mayfly, on one line, without what is said of it.
lines() {
    awk '/^```/ { open = !open; block = open && ($0 == "```" || $0 == "```sh"); next } block { print }' "$here/$1" |
        sed -e ':a' -e '/\\$/ { N; s/ *\\\n */ /; ba }' -e 's/ \+#.*$//' | grep -E '^mayfly ' || true
}

# ---- each is a command line

filled() {
    sed -E -e 's/ [|<>] .*$//' -e 's/task_…|\bTASK\b/task_ayjblgxklnqt4vggdqi2o3aujq/g' -e 's/cred_…|\bCREDENTIAL\b/cred_fxrll5l4vbrnedircjwilqbriq/g' \
        -e 's/--reason …/--reason x/' -e 's/\bAPPROVAL\b/appr_ayjblgxklnqt4vggdqi2o3aujq/g' -e 's/\bSEQ\b/1/g' -e 's/\bTEXT\b/text/g'
}
taken=0
for page in README.md deploy/README.md $(cd "$here" && ls docs/*.md); do
    case $page in docs/three-in-the-morning.md | docs/first-server.md) continue ;; esac
    while read -r line; do
        # What would run for as long as it is let.
        case $line in *"server run"* | "mayfly dev "*) continue ;; esac
        code=0
        timeout 20 env MAYFLY_ADDRESS=127.0.0.1:1 bash -c "$(filled <<<"$line")" >"$work/out" 2>"$work/err" </dev/null || code=$?
        grep -q "try '--help'" "$work/err" && verdict "$page: $line" "no such command line" || taken=$((taken + 1))
    done < <(lines "$page")
done
verdict "$taken commands of the pages are command lines" "$([ $taken -gt 60 ] && echo yes || echo no)"

# ---- the README, as it stands

up() {
    for port in $(shuf -n 5 -i 20000-32000); do
        "$mayfly" dev up --detach --port "$port" && return
        rm -rf "$HOME/.local/state/mayfly/dev"
    done
    return 1
}
# Twice: whoever types the README again finds it as it was.
readme_up() { if [ -e "$HOME/.local/state/mayfly/dev" ]; then "$mayfly" dev up --detach; else up; fi; }
for number in 1 2 3 4 1 2 3 4; do
    line=$(lines README.md | sed -n "${number}p")
    times=$((${times:-0} + 1))
    case $line in
        "mayfly dev up --detach") check "README: $line" 0 readme_up ;;
        "mayfly get "* | "mayfly revoke "*)
            sleep 0.2
            # In the world that it begins with, the commands are an operator's where they name nobody.
            check "README: $line" 0 env MAYFLY_CONFIG="$HOME/.local/state/mayfly/dev/operator-you.toml" bash -c "$line"
            ;;
        "mayfly dev down") check "README: $line" 0 bash -c "$line$([ $times -lt 8 ] || echo ' --purge')" ;;
        *) verdict "README: $line" "is not expected there" ;;
    esac
done

# ---- a server that the pages are typed against

world=$work/world
source_up() { "$mayfly" dev up --dir "$world" --port "$port" --detach; }
check "a server" 0 source_up
cat >"$work/names" <<'SED'
s#/etc/mayfly/mayfly.toml#WORLD/mayfly.toml#g
s#/var/lib/mayfly/data#WORLD/data#g
s#/backup/mayfly-([^ ]*)#WORK/backup-\1#g
s#/etc/mayfly/seal.key#WORK/made.key#g
s#\bprod\b#dev#g
s#spiffe://example.org/mcp/repos#spiffe://dev.mayfly.internal/mcp/repos#g
s#spiffe://example.org/prod/warehouse#spiffe://dev.mayfly.internal/service/echo#g
s#spiffe://example.org/person/ada#spiffe://dev.mayfly.internal/operator/colleague#g
SED
sed -i -e "s#WORLD#$world#g" -e "s#WORK#$work#g" "$work/names"
ours() { sed -E -f "$work/names"; }
# section PAGE HEADING: the TOML of it.
toml_after() { awk -v h="$2" '$0 == h { at = 1 } at && /^```toml$/ { block = 1; next } block && /^```$/ { exit } block { print }' "$here/$1" | ours; }
export MAYFLY_CONFIG=$world/operator-you.toml
# typed PAGE CODE PATTERN: the line of the page that has this, as an operator.
typed() {
    local page=$1 code=$2 pattern=$3 line
    line=$(lines "$page" | grep -F -- "$pattern" | first_line || true)
    done_lines+=("$line")
    check "$page: $line" "$code" bash -c "$(ours <<<"${line:-false}")"
}
done_lines=()
# all PAGE: that none was passed over.
all() {
    while read -r line; do
        verdict "$1: $line was typed" "$(printf '%s\n' "${done_lines[@]}" "$@" | found -xF -- "$line" && echo yes || echo no)"
    done < <(lines "$1")
}

# docs/registry.md
toml_after docs/registry.md "## A registration" | sed -e '/^approvers/s/, { issuer.*}\]/]/' >warehouse.toml
typed docs/registry.md 0 "upstream add warehouse.toml --dry-run"
line="mayfly upstream add warehouse.toml"
done_lines+=("$line")
check "docs/registry.md: $line" 0 bash -c "$line"
typed docs/registry.md 0 "upstream show warehouse --file > warehouse.toml"
verdict "what is shown is a registration" "$(grep -q '^name = "warehouse"' warehouse.toml && echo yes || echo no)"
sed -i 's/^owner = .*/owner = "finance@example.org"/' warehouse.toml
typed docs/registry.md 0 "upstream change warehouse.toml --dry-run"
typed docs/registry.md 0 "upstream change warehouse.toml --confirm 12"
typed docs/registry.md 0 "upstream disable warehouse"
typed docs/registry.md 0 "upstream enable warehouse"
typed docs/registry.md 0 "upstream retire warehouse"
toml_after docs/registry.md "## Bindings" >repos-search.toml
typed docs/registry.md 9 "binding add repos-search.toml"
check "another operator approves it" 0 colleague approval give "$(approval)" --reason "looked at it"
typed docs/registry.md 0 "binding list --upstream repos"
typed docs/registry.md 0 "binding narrow repos-search"
typed docs/registry.md 0 "binding remove repos-search"
all docs/registry.md

# docs/policy.md, "Changing a policy set"
cp -r "$world/policy/upstreams" upstreams
typed docs/policy.md 0 "policy show prod --to policy"
cp "$world/policy/tests.toml" policy/
typed docs/policy.md 0 "policy validate policy --environment prod"
typed docs/policy.md 0 "policy test policy/tests.toml policy"
typed docs/policy.md 0 "policy diff prod policy"
typed docs/policy.md 0 "policy set prod policy"
typed docs/policy.md 3 "policy set prod --version 41"
check "and to the one that there is" 0 "$mayfly" policy set dev --version 1 --reason back

# docs/operations.md
typed docs/operations.md 0 "server validate"
typed docs/operations.md 0 "server healthcheck"
typed docs/operations.md 0 "server backup --to"
backup=$(ls "$work"/backup-*)
sed -i "\$a s#$work/backup-[^ ]*#$backup#g" "$work/names"
typed docs/operations.md 0 "server backup --verify"
typed docs/operations.md 0 "server restore --config /etc/mayfly/mayfly.toml --check"
check "the server is stopped" 0 "$mayfly" dev down --dir "$world"
mv "$world/data" "$world/data.lost"
typed docs/operations.md 0 "restore --config /etc/mayfly/mayfly.toml --left"
check "and started" 0 "$mayfly" dev up --dir "$world" --detach
typed docs/operations.md 0 "lock list --everything"
check "the server is stopped again" 0 "$mayfly" dev down --dir "$world"
seq=$(($(sed -n 's/.*"seq":\([0-9]*\).*/\1/p' "$work/out" | first_line) + 0))
recover() { "$mayfly" server recover --config "$world/mayfly.toml" --after "$1"; }
check "docs/operations.md: mayfly server recover --config … --after SEQ" 0 recover "$seq"
verdict "it tells where the old store is" "$(grep -q 'before-recovery' "$work/out" && echo yes || echo no)"

check "the server is ended" 0 "$mayfly" dev down --dir "$world" --purge
ended pages
