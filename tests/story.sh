#!/usr/bin/env bash
# One day of governance as everybody in it types it, against a server of its own that is ended with the script. The same day as
# tests/server/scenario.rs: one MCP server's program run for two teams, once in each of two environments, an agent with a sub-agent, an
# export that a named person approves with a second factor, a use beyond what was meant, a binding that shrinks, break-glass and its review,
# an owner who leaves, and the audit that tells all of it to somebody who has a file, a key and no server.
#
# People sign in at an OIDC provider that is not ours: oidc-provider from npm (tests/interop/node/provider.mjs).
#
#   tests/story.sh MAYFLY
source "$(dirname "$0")/typed.sh"
node=$(cd "$(dirname "$0")/interop/node" && pwd)
domain=spiffe://dev.mayfly.internal

# The same program, run for the team in dev and for the team in prod.
dev_server() { as mcp/echo agent-demo "$@"; }
prod_server() { as mcp/repos agent-demo "$@"; }
# Who accepts echo's credentials.
service() { as service/echo agent-demo "$@"; }
# person NAME COMMAND...: as whoever signed in last as NAME.
person() {
    local name=$1
    shift
    "$mayfly" --config "$world/$name.toml" "$@"
}

# sign_in NAME LOGIN [WORDS...]: the real login; the browser is a script that fills in the provider's form.
sign_in() {
    local name=$1 login=$2 url='' code=0
    shift 2
    # The process below empties the file when it gets to it, and the URL of the sign-in before is not to be found until then.
    rm -f "$work/login.err"
    "$mayfly" --config "$world/$name.toml" login --no-browser --max-age 1s "$@" >"$work/login.out" 2>"$work/login.err" </dev/null &
    local waiting=$!
    for _ in $(seq 600); do
        url=$(grep -soE '^http://127\.0\.0\.1:[0-9]+/[^ ]+' "$work/login.err" | first_line) && break
        sleep 0.05
    done
    if ! node "$node/provider.mjs" sign-in "$url" "$login" 2>"$work/sign-in.err"; then
        # The command would wait for five minutes for a browser that does not come back.
        echo "the sign-in at <$url> failed:" && grep -v '^ *at ' "$work/sign-in.err" | tail -15
        kill "$waiting" 2>/dev/null || true
    fi
    wait "$waiting" || code=$?
    cat "$work/login.out"
    cat "$work/login.err" >&2
    return "$code"
}

# ---- the stage: two environments, people

check "a server" 0 up
node "$node/provider.mjs" listen "$work/issuer" 2>"$work/provider.err" &
provider=$!
trap 'kill "$provider" 2>/dev/null || true; end' EXIT
for _ in $(seq 200); do [ -s "$work/issuer" ] && break || sleep 0.1; done
issuer=$(cat "$work/issuer")
check "is ended, to be told of a second environment and of people" 0 "$mayfly" dev down --dir "$world"
sed -i 's/environments = \["dev"\]/environments = ["dev", "prod"]/' "$world/mayfly.toml"
cat >>"$world/mayfly.toml" <<TOML

[own_domain]
trust_domain = "people.internal"

[[oidc_issuers]]
name = "corp"
issuer = "$issuer"
environments = ["dev"]
uses = ["login"]
audience = "mayfly-cli"
TOML
check "the configuration is valid" 0 "$mayfly" server validate --config "$world/mayfly.toml"
check "the server again" 0 "$mayfly" dev up --dir "$world" --detach
public=$(grep '^public' "$world/mayfly.toml" | grep -oE '[0-9]+"$' | tr -d '"')
for name in ada bob carol; do
    { grep -E '^(address|bundle|server_id)' "$world/agent-demo.toml" && echo "public = \"https://localhost:$public\""; } >"$world/$name.toml"
done

# ---- who may do what, agreed on by two

check "the files in force in dev" 0 you policy show dev --to "$work/dev"
check "and in prod" 0 you policy show prod --to "$work/prod"
people() {
    sed -i "s#under = \[\"$domain\"\]#under = [\"$domain\", \"spiffe://people.internal/people\"]#" "$1/roles.toml"
    printf '\n[role.people]\nunder = ["spiffe://people.internal/people"]\n\n[environment.prod]\nids = ["%s/mcp/repos"]\n' "$domain" >>"$1/roles.toml"
}
people "$work/dev"
people "$work/prod"
cat >>"$work/dev/roles.toml" <<TOML

[break_glass.tickets-down]
environment = "dev"
open = [{ issuer = "$issuer", subject = "ada" }, { issuer = "$issuer", subject = "bob" }]
review = [{ issuer = "$issuer", subject = "carol" }]
upstreams = { tickets = ["tickets:read"] }
any_tool = true
ttl = "30m"
TOML
cat >"$work/dev/day.cedar" <<'CEDAR'
@id("people-sign-in")
permit (principal in Role::"people", action == Action::"SignIn", resource);

@id("people-approve-with-a-second-factor")
forbid (principal, action == Action::"Approve", resource)
unless {
  context has person && context.person.amr.contains("mfa") &&
  context.now.durationSince(context.person.auth_time) <= duration("15m")
};

@id("tools-are-bound")
forbid (principal in Role::"mcp", action == Action::"Exchange", resource == Upstream::"echo")
when { context has tool } unless { context has binding };

@id("agents-open-tasks-and-hand-on")
permit (principal in Role::"agent", action in [Action::"OpenTask", Action::"DelegateTask"], resource == Upstream::"echo");

@id("exports-need-somebody")
forbid (principal, action == Action::"Exchange", resource == Upstream::"echo")
when { context.sensitive } unless { context.approvals.count >= 1 };

@id("uses") permit (principal, action == Action::"Use", resource);

@id("only-declared-tools") forbid (principal, action == Action::"Use", resource) unless { context.declared };

@id("break-glass")
permit (principal in Role::"people", action in Action::"Work", resource == Upstream::"tickets")
when { context.break_glass };
CEDAR
# Prod lets everybody in: that is no way through the wall.
cat >"$work/prod/all.cedar" <<'CEDAR'
@id("everybody")
permit (principal, action in Action::"Work", resource);
CEDAR
set_policy() { you policy set "$1" "$work/$1" --roles "$work/$1/roles.toml" --reason "the day's rules" --confirm all; }
check "one operator alone names no break-glass" 9 set_policy dev
says "and is told that this governs" err "break-glass tickets-down"
check "whoever asked does not agree to it" 5 you approval give "$(approval)" --reason "me"
check "one operator sets what governs nothing" 0 set_policy prod
check "dev's waits for another" 9 set_policy dev
check "who reads it and agrees" 0 colleague approval give "$(approval)" --reason "read it"
check "it is in force" 0 you policy show dev -o name
says "as the second version" out "dev/2"

cp "$world/policy/upstreams/echo.toml" "$work/echo.toml"
sed -i -e "s#^approvers = .*#approvers = [{ issuer = \"$issuer\", subject = \"ada\" }]#" -e 's/^owner = .*/owner = "data-platform"/' "$work/echo.toml"
check "echo belongs to a team, and Ada approves what is sensitive there: another operator lets that through" 9 you upstream change "$work/echo.toml" --version 1
check "who does" 0 colleague approval give "$(approval)" --reason "read it"
sed -e 's/^name = .*/name = "echo-prod"/' -e 's/^environment = .*/environment = "prod"/' -e 's#https://echo.dev#https://echo.prod#' -e 's/127.0.0.1:7780/127.0.0.1:7781/' \
    "$work/echo.toml" >"$work/echo-prod.toml"
check "prod has an echo of its own" 0 you upstream add "$work/echo-prod.toml"

# ---- environments are walls

check "the team in prod works in prod" 0 prod_server get echo-prod --purpose serve --scope echo:read
check "not in dev" 5 prod_server get echo --purpose serve --scope echo:read --kind jwt
says "for the wall" err "ENVIRONMENT_WALL"
check "the team in dev not in prod" 5 dev_server get echo-prod --purpose serve --scope echo:read --kind jwt
says "for the wall" err "ENVIRONMENT_WALL"
check "whose upstreams it does not even see" 3 dev_server get echo-prod --purpose serve
check "nor does the agent" 5 agent get echo-prod --purpose look --scope echo:read --kind jwt
says "for the wall" err "ENVIRONMENT_WALL"

# ---- a server's tools are bound

cat >"$work/tools.toml" <<TOML
name = "dev-tools"
upstream = "echo"
ids = ["$domain/mcp/echo"]
tools = ["search", "summarize"]
scopes = ["echo:read"]
TOML
check "a binding waits for somebody else" 9 you binding add "$work/tools.toml" --reason "triage"
id=$(approval)
check "whoever wrote it does not let it through" 5 you approval give "$id" --reason "me"
check "another operator does" 0 colleague approval give "$id" --reason "looked at it"

# ---- an agent, and a part of its task for a sub-agent

check "the agent opens the day's task" 0 agent task open --purpose "quarterly report" --upstream echo=echo:read,echo:admin \
    --tool search --tool summarize --tool export --caller "$domain/mcp/echo" --ttl 1h -o name
task=$(head -1 "$work/out")
hand_on() { agent task delegate "$task" --to "$domain/mcp/echo" --purpose "look things up" --tool search -o name "$@"; }
check "nobody hands on what they do not have" 5 hand_on --upstream echo=echo:read,echo:write
says "and is told the bound" err "echo:write"
check "a part of it goes to the sub-agent" 0 hand_on --upstream echo=echo:read
child=$(head -1 "$work/out")
check "who works in it" 0 dev_server get echo --task "$child" --scope echo:read --tool search --ttl 1m
check "within it" 5 dev_server get echo --task "$child" --scope echo:read --tool summarize
check "the whole is shown" 0 agent task show "$task" --tree
says "with its part" out "$child"

# ---- an export that a named person approves, with a second factor

echo '{"table":"orders"}' >"$work/orders.json"
echo '{"table":"customers"}' >"$work/customers.json"
export_of() { agent get echo --task "$task" --scope echo:admin --tool export --arguments "$work/$1.json" --ttl 1m; }
check "an export waits" 9 export_of orders
id=$(approval)
check "Ada signs in with a password" 0 sign_in ada ada
check "that does not do" 5 person ada approval give "$id" --reason "as agreed"
says "and she is told which policy wants more" err "people-approve-with-a-second-factor"
check "Carol signs in with a second factor" 0 sign_in carol carol+mfa --acr urn:example:high
check "nobody named her" 3 person carol approval give "$id" --reason "as agreed"
check "Ada signs in with a second factor" 0 sign_in ada ada+mfa --acr urn:example:high
agreed=$id
check "she sees the arguments" 0 person ada approval show "$id"
says "in clear" out "orders"
check "and approves them" 0 person ada approval give "$id" --reason "as agreed with finance"
check "another export is none of it" 9 export_of customers
verdict "it is a question of its own" "$([ "$(approval)" != "$id" ] && echo yes || echo "the same approval $id")"
check "the export goes through" 0 export_of orders
check "once" 9 export_of orders
verdict "and the next is asked anew" "$([ "$(approval)" != "$id" ] && echo yes || echo "the same approval $id")"

# ---- a use beyond what was meant holds the task

check "what the sub-agent holds" 0 you credential list --task "$child" -o name
credential=$(head -1 "$work/out")
check "is used for another tool" 0 service credential used "$credential" --tool delete_all --outcome accepted
held() { you task show "$child" -o json | found '"state": "held"'; }
for _ in $(seq 100); do held && break || sleep 0.1; done
check "its task is held" 0 you task show "$child"
says "for that tool" out "tool delete_all, undeclared"
check "nothing is issued in it" 5 dev_server get echo --task "$child" --scope echo:read --tool search
says "and it says by whom" err "held by policy"
check "the agent's own goes on" 0 agent get echo --task "$task" --scope echo:read --tool search --ttl 1m
check "it is explained" 0 you explain "$child"
says "with the use" out "delete_all"

# ---- a narrower binding is in force at once

check "a call of the tool that goes" 0 dev_server get echo --task "$task" --scope echo:read --tool summarize
check "and of the one that stays" 0 dev_server get echo --task "$task" --scope echo:read --tool search
check "what the narrowing would hit is known before" 0 you binding narrow dev-tools --without-tool summarize --reason "not needed" --dry-run
says "by number" err "1 credential"
check "the binding is narrowed" 0 you binding narrow dev-tools --without-tool summarize --reason "not needed"
says "and revokes what it no longer covers" err "revoked 1 credential"
check "the tool is gone" 5 dev_server get echo --task "$task" --scope echo:read --tool summarize
says "by that policy" err "tools-are-bound"
check "the other is not" 0 dev_server get echo --task "$task" --scope echo:read --tool search

# ---- break-glass: two people, and a third who looks at it

check "Bob signs in" 0 sign_in bob bob
check "by day he has no rights there" 5 person bob get tickets --purpose look --scope tickets:read --tool psql
check "he asks for break-glass" 9 person bob break-glass open tickets-down --reason "tickets are not booked" -o name
night=$(head -1 "$work/out")
check "alone he has nothing" 5 person bob get tickets --task "$night" --scope tickets:read --tool psql
check "Ada joins" 0 person ada break-glass join "$night" --reason "I see it too"
check "both act" 0 person bob get tickets --task "$night" --scope tickets:read --tool psql
check "each for itself" 0 person ada get tickets --task "$night" --scope tickets:read --tool psql
check "what was not named is refused" 5 person ada get tickets --task "$night" --scope tickets:write --tool psql
check "it is ended" 0 person bob break-glass close "$night" --reason "booked again"
check "what it gave is dead" 0 you task show "$night" -o json
says "all of it" out '"live_credentials": 0'
check "an auditor finds it unreviewed" 10 as operator/auditor operator-you report unreviewed
check "neither opens another" 9 person ada break-glass open tickets-down --reason "again"
says "until somebody looked at it" err "nobody reviewed"
check "nor reviews it" 3 person bob break-glass review "$night" --text "all fine"
check "a third does" 0 person carol break-glass review "$night" --text "they only looked"
check "nothing is left" 0 as operator/auditor operator-you report unreviewed

# ---- an owner leaves

check "what the owner's leaving would stop is known before" 0 you owner left data-platform --reason "team dissolved" --dry-run
says "by name" out "echo"
check "the owner leaves" 0 you owner left data-platform --reason "team dissolved" --confirm all
check "nothing is issued for what it owned" 5 agent get echo --task "$task" --scope echo:read --tool search
says "and it says why" err "has left"
check "in prod neither" 5 prod_server get echo-prod --purpose serve --scope echo:read
check "an auditor is told who must take over" 10 you report ownerless
says "of what" out "echo-prod"

# ---- the audit tells it, with no server at hand

check "the keys that vouch for the ledger are kept" 0 you audit checkpoint --keys-out "$work/keys"
check "what was approved by Ada is found" 0 you audit search "$issuer#ada" --event "approval decided" -o json
says "with her words" out "as agreed with finance"
tells() {
    local id=$1
    shift
    check "the story of $id" 0 you audit export "$id" --out "$work/export.jsonl"
    check "is verified" 0 "$mayfly" audit verify "$work/export.jsonl" --key "$work/keys"
    for event in "$@"; do
        verdict "it tells of: $event" "$(grep -qF "$event" "$work/export.jsonl" && echo yes || echo no)"
    done
}
forged() { "$mayfly" audit verify "$work/forged.jsonl" --key "$work/keys"; }
lies() {
    local records first second
    mapfile -t records < <(grep -n '^{"record"' "$work/export.jsonl" | cut -d: -f1)
    first=${records[0]} second=${records[1]}
    awk -v n="$second" 'NR == n { at = index($0, "\"bytes\":\"") + 20; c = substr($0, at, 1) == "A" ? "B" : "A"; $0 = substr($0, 1, at - 1) c substr($0, at + 1) } { print }' \
        "$work/export.jsonl" >"$work/forged.jsonl"
    verdict "a byte differs" "$(cmp -s "$work/export.jsonl" "$work/forged.jsonl" && echo no || echo yes)"
    check "a flipped byte is found" 10 forged
    sed "${second}d" "$work/export.jsonl" >"$work/forged.jsonl"
    check "a removed record is found" 10 forged
    awk -v a="$first" -v b="$second" 'NR == FNR { line[NR] = $0; next } FNR == a { print line[b]; next } FNR == b { print line[a]; next } { print }' \
        "$work/export.jsonl" "$work/export.jsonl" >"$work/forged.jsonl"
    verdict "two records are swapped" "$(cmp -s "$work/export.jsonl" "$work/forged.jsonl" && echo no || echo yes)"
    check "a swapped pair is found" 10 forged
}
tells "$task" "task opened" "approval asked" "credential issued"
lies
tells "$agreed" "approval asked" "approval decided" "credential issued"
lies
tells "$child" "task opened" "task held" "uses reported"
lies
tells "$night" "break-glass" "credential issued"
lies

check "the server is ended" 0 "$mayfly" dev down --dir "$world" --purge
ended story
