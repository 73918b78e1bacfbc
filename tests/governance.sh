#!/usr/bin/env bash
# Governance by the command line alone, against a dev server of its own that is ended with the script: a registration, bound tools, an export
# that somebody approves, a stricter policy, an owner who leaves, break-glass. What is asserted is what each person types and is told.
#
#   tests/governance.sh MAYFLY
source "$(dirname "$0")/typed.sh"

server() { as mcp/echo agent-demo "$@"; }

auditor() { as operator/auditor operator-you "$@"; }

check "dev up" 0 up

# Somebody is told of what happens. The receiver is a few lines of Python, on this host.
touch "$work/told"
python3 "$(dirname "$0")/receiver.py" "$work/port" "$work/told" &
receiver=$!
trap 'kill "$receiver" 2>/dev/null || true; end' EXIT
for _ in $(seq 100); do [ -s "$work/port" ] && break || sleep 0.1; done
check "dev down, to configure it" 0 "$mayfly" dev down --dir "$world"
(umask 077; printf 'whsec_%s\n' "$(head -c 32 /dev/urandom | base64)" >"$world/pager.secret")
cat >>"$world/mayfly.toml" <<TOML

[[webhooks]]
name = "pager"
url = "http://127.0.0.1:$(cat "$work/port")/hook"
secret_file = "pager.secret"
environments = ["dev"]
TOML
check "the configuration is valid" 0 "$mayfly" server validate --config "$world/mayfly.toml"
check "dev up again" 0 "$mayfly" dev up --dir "$world" --detach
check "the receiver takes a test event" 0 you webhook test pager

# A registration: what lacks something is told all that is missing.
warehouse '"orders:read", { name = "orders:export", sensitive = true }' >"$work/warehouse.toml"
grep -v '^owner' "$work/warehouse.toml" >"$work/lacking.toml"
check "a registration without an owner" 2 you upstream add "$work/lacking.toml"
says "is told so" err "lacks owner"
check "the warehouse is registered" 0 you upstream add "$work/warehouse.toml"
check "two registrations of one target are refused" 5 bash -c 'sed s/warehouse\"/other\"/ "$1/warehouse.toml" >"$1/other.toml" && shift && "$@"' - "$work" "$mayfly" --config "$world/operator-you.toml" upstream add "$work/other.toml"
says "and told apart by what is the same" err "has the same audience as upstream warehouse"

# Policy: written, tested, compared, and put in force by two.
check "the files in force" 0 you policy show dev --to "$work/policy"
cat >"$work/policy/governance.cedar" <<'CEDAR'
@id("tools-are-bound")
forbid (principal in Role::"mcp", action == Action::"Exchange", resource == Upstream::"echo")
when { context has tool } unless { context has binding };

@id("exports-need-somebody")
forbid (principal, action == Action::"Exchange", resource == Upstream::"warehouse")
when { context.sensitive } unless { context.approvals.count >= 1 };

@id("exports")
permit (principal in Role::"agent", action == Action::"OpenTask", resource == Upstream::"warehouse");
CEDAR
cat >"$work/tests.toml" <<'TOML'
[[test]]
name = "an export waits for somebody"
caller = "spiffe://dev.mayfly.internal/agent/demo"
upstream = "warehouse"
scopes = ["orders:export"]
tool = "export"
arguments = '{"rows": 10}'
expect = "approval"

[[test]]
name = "a tool that nobody bound"
caller = "spiffe://dev.mayfly.internal/mcp/echo"
upstream = "echo"
scopes = ["echo:read"]
tool = "search"
expect = "deny"
by = ["tools-are-bound"]
TOML
check "tests of the new policies" 0 you policy test "$work/tests.toml" "$work/policy" --environment dev
says "pass" err "2 passed, 0 failed"
check "tests of those in force" 10 you policy test "$work/tests.toml" --environment dev
check "the new ones are valid" 0 you policy validate "$work/policy" --environment dev
says "and take a second operator" err "policy exports-need-somebody"
check "nothing decided so far would differ" 0 you policy diff dev "$work/policy"
check "one operator alone changes none of it" 9 you policy set dev "$work/policy" --reason "exports by finance only"
id=$(approval)
check "a repeat asks no second time" 9 you policy set dev "$work/policy" --reason "exports by finance only"
verdict "it is the same approval" "$([ "$(approval)" = "$id" ] && echo yes || echo "$(approval), not $id")"
check "whoever asked does not approve it" 5 you approval give "$id" --reason "me again"
check "the other operator sees what differs" 0 colleague approval show "$id"
says "line by line" err '+@id("exports-need-somebody")'
check "and approves it" 0 colleague approval give "$id" --reason "as agreed"
check "it is in force" 0 you policy show dev -o name
says "as the second version" out "dev/2"
check "a request is explained before anybody makes it" 0 you policy explain dev --caller spiffe://dev.mayfly.internal/mcp/echo --upstream echo --scope echo:read --tool search
says "by the policy that decides" out "tools-are-bound"

# A server's tools are bound.
check "a tool that nobody bound" 5 server get echo --purpose serve --scope echo:read --tool search
cat >"$work/search.toml" <<'TOML'
name = "echo-search"
upstream = "echo"
ids = ["spiffe://dev.mayfly.internal/mcp/echo"]
tools = ["search", "list"]
scopes = ["echo:read"]
TOML
check "a binding waits for somebody else" 9 you binding add "$work/search.toml" --reason "triage"
id=$(approval)
check "who sees what it gives" 0 colleague approval show "$id"
says "by tool" err '"search"'
check "and lets it through" 0 colleague approval give "$id" --reason "looked at it"
check "the tool is bound" 0 server get echo --purpose serve --scope echo:read --tool search
check "another of its tools" 0 server get echo --purpose serve --scope echo:read --tool list
check "and one that is not" 5 server get echo --purpose serve --scope echo:read --tool delete
check "what a narrower binding would hit" 0 you blast-radius --binding echo-search
says "is known before" err "2 credentials"
check "it is narrowed at once" 0 you binding narrow echo-search --without-tool list --reason "not needed"
says "with what it no longer covers" err "revoked 1 credential"
check "that tool is refused from then on" 5 server get echo --purpose serve --scope echo:read --tool list

# An export that somebody approves, once.
echo '{"table":"orders","rows":250000}' >"$work/arguments.json"
echo '{"table":"customers"}' >"$work/others.json"
export_of() { agent get warehouse --purpose "monthly figures" --scope orders:export --tool export --arguments "$1"; }
check "an export waits" 9 export_of "$work/arguments.json"
id=$(approval)
check "it is on the list" 0 colleague approval list -o name
says "by its id" out "$id"
check "whoever approves sees the arguments" 0 colleague approval show "$id"
says "in clear" out "250000"
check "whoever asked does not decide about it" 3 agent approval give "$id" --reason "me"
check "it is approved" 0 colleague approval give "$id" --reason "as agreed with finance"
check "another export is none of it" 9 export_of "$work/others.json"
check "the export goes through" 0 export_of "$work/arguments.json"
check "once" 9 export_of "$work/arguments.json"
check "the approval is used" 0 colleague approval show "$id" -o json
says "and says so" out '"state": "used"'

# A task that somebody approves, and more time for it.
mkdir -p "$work/tasks" && cp "$work"/policy/* "$work/tasks/"
cat >"$work/tasks/tasks.cedar" <<'CEDAR'
@id("wide-tasks-need-somebody")
forbid (principal, action == Action::"OpenTask", resource == Upstream::"warehouse")
when { context.task.tools.contains("purge") } unless { context.approvals.count >= 1 };

@id("more-time")
permit (principal in Role::"agent", action == Action::"ExtendTask", resource == Upstream::"warehouse");
CEDAR
cat >"$work/tasks/two.cedar" <<'CEDAR'
@id("two-approve")
forbid (principal, action == Action::"OpenTask", resource) unless { context.approvals.count >= 2 };
CEDAR
check "a set that wants two approvals of a request is refused" 10 you policy validate "$work/tasks" --environment dev
says "and says why" err "compares context.approvals.count with 2"
rm "$work/tasks/two.cedar"
check "tasks with the purge take somebody" 9 you policy set dev "$work/tasks" --reason "purges by two"
check "as two operators agree" 0 colleague approval give "$(approval)" --reason "as agreed"
open_task() { agent task open --purpose "yearly purge" --upstream warehouse=orders:export --tool purge --ttl 10m --max-ttl 1h "$@"; }
check "a task waits" 9 open_task -o name
id=$(approval)
task=$(cat "$work/out")
check "nothing is issued in it" 5 agent get warehouse --task "$task" --scope orders:export --tool purge --arguments "$work/arguments.json"
check "whoever approves sees what it is" 0 colleague approval show "$id" -o json
says "its tools" out '"purge"'
says "its purpose" out "yearly purge"
says "and how long it may live" out '"max_ttl_ms": 3600000'
check "it is on the list" 0 colleague approval list -o name
says "like any other" out "$id"
check "whoever asked does not approve it" 3 agent approval give "$id" --reason "me"
check "it is approved" 0 colleague approval give "$id" --reason "as agreed with finance"
says "having been shown" err "tools purge"
check "the task is active" 0 agent task show "$task" -o json
says "by that approval" out "$id"
check "a credential in it waits by itself" 9 agent get warehouse --task "$task" --scope orders:export --tool purge --arguments "$work/arguments.json"
check "another task waits by itself" 9 open_task
check "it is refused" 0 colleague approval refuse "$(approval)" --reason "one is enough"
check "more time takes another approval" 9 agent task extend "$task" --by 5m
id=$(approval)
check "which shows until when" 0 colleague approval show "$id" -o json
says "it would live" out '"deadline"'
check "it is given" 0 colleague approval give "$id" --reason "the purge is slow"
check "the task has more time" 0 agent task extend "$task" --by 5m
check "once" 9 agent task extend "$task" --by 5m
check "its story has all of it" 0 you explain "$task"
says "who approved it" out "as agreed with finance"
says "and the more time" out "task extended"

# An owner leaves.
check "the owner of the warehouse leaves" 0 you owner left data-platform --reason "team dissolved" --confirm all
check "nothing is issued for it" 5 agent get warehouse --purpose "monthly figures" --scope orders:read
check "an auditor is told" 10 you report ownerless
says "by name" out "warehouse"

# Break-glass: named in advance by two, opened by two, looked at by a third. Owners are back, so that there is something to mend.
check "the owner is back" 0 you owner back data-platform --reason "team founded anew"
check "the registration of a static secret" 0 you upstream template secret
sed -e 's/"prod"/"dev"/' "$work/out" >"$work/sentry.toml"
check "is added" 0 you upstream add "$work/sentry.toml"
printf 'marker-one\n' >"$work/key"
check "a secret is stored for it" 0 you secret put sentry --file "$work/key"
check "nobody has named any rights" 3 you break-glass open orders-down --reason "orders are not booked"
check "the files in force" 0 you policy show dev --to "$work/night"
cat >>"$work/night/roles.toml" <<'TOML'

[break_glass.orders-down]
environment = "dev"
open = ["spiffe://dev.mayfly.internal/operator/you", "spiffe://dev.mayfly.internal/operator/colleague"]
review = ["spiffe://dev.mayfly.internal/operator/auditor"]
upstreams = { warehouse = ["orders:read"], sentry = ["events:read"] }
any_tool = true
ttl = "30m"
TOML
cat >"$work/night/break-glass.cedar" <<'CEDAR'
@id("break-glass")
permit (principal in Role::"operator", action in Action::"Work", resource in Environment::"dev")
when { context.break_glass };
CEDAR
check "one operator alone does not name them" 9 you policy set dev "$work/night" --roles "$work/night/roles.toml" --reason "for the night"
says "and is told what governs" err "break-glass orders-down"
check "two do" 0 colleague approval give "$(approval)" --reason "as agreed"
check "it is asked for" 9 you break-glass open orders-down --reason "orders are not booked" -o name
task=$(cat "$work/out")
check "whoever asked is not the second person" 5 you break-glass join "$task" --reason "me again"
check "with one person nothing is issued" 5 you get warehouse --task "$task" --purpose "look" --scope orders:read
check "a second person joins" 0 colleague break-glass join "$task" --reason "I see it too"
check "both act in it" 0 you get warehouse --task "$task" --purpose "look" --scope orders:read
check "each for itself" 0 colleague get warehouse --task "$task" --purpose "look" --scope orders:read
check "and gets the static secret" 0 you get sentry --task "$task" --purpose "look"
check "which is in use" 0 you secret list
says "and not yet to be rotated" out "in use"
check "what was not named is refused" 5 you get warehouse --task "$task" --purpose "take" --scope orders:export
check "and nobody else is in it" 3 auditor get warehouse --task "$task" --purpose "look" --scope orders:read
check "it is ended" 0 colleague break-glass close "$task" --reason "booked again"
check "what it issued is dead" 0 you task show "$task" -o json
says "all of it" out '"live_credentials": 0'
for _ in $(seq 100); do you secret list >"$work/out" 2>/dev/null; grep -qF "is to be rotated" "$work/out" && break || sleep 0.1; done
says "and the static secret that it revealed is to be rotated" out "version 1 is to be rotated"
check "until it was reviewed neither opens another" 9 you break-glass open orders-down --reason "once more"
says "and is told why" err "nobody reviewed"
check "an auditor is told" 10 auditor report unreviewed
check "one of the two does not review it" 3 you break-glass review "$task" --text "all fine"
check "a third does" 0 auditor break-glass review "$task" --text "both looked only"
check "nothing is left to review" 0 auditor report unreviewed
check "whoever watches was told" 0 you webhook list
for _ in $(seq 100); do grep -q break_glass.reviewed "$work/told" && break || sleep 0.1; done
cp "$work/told" "$work/out"
for event in opened joined used refused closed reviewed; do
    says "of break-glass $event" out "\"type\":\"break_glass.$event\""
done
says "and of approvals" out '"type":"approval.given"'

# The policy before: a change like any other.
check "going back takes two as well" 9 you policy set dev --version 1 --reason "too strict"
check "and is refused" 0 colleague approval refuse "$(approval)" --reason "it is not"
check "so it stays" 0 you policy show dev -o name
says "as it is" out "dev/4"

# The audit tells the whole story, to somebody who has a file and a key and no server.
check "the ledger is searched by the upstream" 0 you audit search --upstream warehouse -o json
for event in "upstream set" "approval asked" "credential issued" "refused"; do
    says "and tells of: $event" out "$event"
done
check "who approved is found" 0 you audit search spiffe://dev.mayfly.internal/operator/colleague --event "approval decided" -o json
says "by name" out "operator/colleague"
check "the server checks its own ledger" 0 you audit verify
check "what concerns the warehouse is exported" 0 you audit export --upstream warehouse --out "$work/export.jsonl"
check "the keys that vouch for it are kept" 0 you audit checkpoint --keys-out "$work/keys"
check "the export is verified without a server" 0 "$mayfly" audit verify "$work/export.jsonl" --key "$work/keys"
forged() { "$mayfly" audit verify "$work/forged.jsonl" --key "$work/keys"; }
sed '0,/"bytes":"Cik/s//"bytes":"Cil/' "$work/export.jsonl" >"$work/forged.jsonl"
verdict "a byte is flipped" "$(cmp -s "$work/export.jsonl" "$work/forged.jsonl" && echo no || echo yes)"
check "a flipped byte is found" 10 forged
last=$(grep -n '^{"record"' "$work/export.jsonl" | tail -1 | cut -d: -f1)
sed "${last}d" "$work/export.jsonl" >"$work/forged.jsonl"
check "a record that is gone is found" 10 forged
awk '/^{"record"/ { if (held != "" && !done) { print; print held; held = ""; done = 1; next } if (!done) { held = $0; next } } { if (held != "") { print held; held = "" } print }' \
    "$work/export.jsonl" >"$work/forged.jsonl"
verdict "two records are swapped" "$(cmp -s "$work/export.jsonl" "$work/forged.jsonl" && echo no || echo yes)"
check "a swapped pair is found" 10 forged

check "dev down" 0 "$mayfly" dev down --dir "$world" --purge
ended governance
