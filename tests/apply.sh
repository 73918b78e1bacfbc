#!/usr/bin/env bash
# docs/configuration-as-code.md by the command line, against a dev server of its own: what a folder says and what comes of it, exit codes,
# order, approvals, confirmations, hostile folders, drift.
#
#   tests/apply.sh MAYFLY
source "$(dirname "$0")/typed.sh"

check "a server" 0 up
mayfly=$(realpath "$mayfly")
mkdir "$work/folder" && cd "$work/folder"
field() { python3 -c 'import json, sys
value = json.load(open(sys.argv[1]))
for key in sys.argv[2].split("."):
    value = value[int(key)] if key.isdigit() else value[key]
print(json.dumps(value) if isinstance(value, (list, dict, bool)) or value is None else value)' "$work/out" "$1" 2>/dev/null || echo "not there"; }
is() { verdict "$1" "$([ "$(field "$2")" = "$3" ] && echo yes || echo "$2 is $(field "$2"), not $3")"; }

# 1. An export is what is in effect, and applying it changes nothing.
check "mayfly export config" 0 you export config
says "tells that no secret is in it" err "no secret is among them"
for file in policy.cedar roles.toml; do
    verdict "$file is the text that the registry keeps" "$(cmp -s "$world/policy/$file" "config/$file" && echo yes || echo "it differs")"
done
verdict "an upstream has its file" "$([ -s config/upstreams/echo.toml ] && echo yes || ls -R config)"
verdict "no file has a secret" "$(! grep -rlE 'BEGIN|PRIVATE|whsec_' config >/dev/null && echo yes || echo "one has")"
check "mayfly apply config --dry-run" 0 you apply config --dry-run
says "says so" err "nothing differs"
check "mayfly apply config" 0 you apply config --reason "first"
says "says so, too" err "nothing differs"
check "an export over files" 2 you export config
check "as JSON" 0 you apply config --dry-run -o json
is "nothing differs" differs false
is "there are no steps" steps "[]"
check "the files of the first start" 0 you apply "$world/policy" --dry-run
head_of() { you audit search --since 1h -o json | python3 -c 'import json, sys; print(sum("set" in str(r.get("event", "")) for r in json.load(sys.stdin)))'; }
changes=$(head_of)
verdict "the audit has the changes of the first start" "$([ "$changes" -ge 4 ] && echo yes || echo "$changes")"
check "once more" 0 you apply config --reason "again"
verdict "no change is in the audit" "$([ "$(head_of)" = "$changes" ] && echo yes || echo "$(head_of), not $changes")"

# 2. A new upstream, a binding, and a registration that becomes narrower.
warehouse '"orders:read"' >config/upstreams/warehouse.toml
cat >config/bindings/warehouse-search.toml <<'TOML'
name = "warehouse-search"
upstream = "warehouse"
ids = ["spiffe://dev.mayfly.internal/mcp/echo"]
tools = ["search"]
scopes = ["orders:read"]
TOML
sed -i 's/"echo:write", //; /^    "echo:write",$/d' config/upstreams/echo.toml
grep -q echo:write config/upstreams/echo.toml && sed -n '/scopes/,/]/p' config/upstreams/echo.toml
one() { agent get echo --purpose "write something" --scope echo:write --to "$work/$1"; }
check "a credential with the scope that goes" 0 one a
check "another" 0 one b
check "mayfly apply config --dry-run" 10 you apply config --dry-run
says "shows the line that goes" err "echo:write"
says "shows the line that comes" err '+name = "warehouse"'
says "shows what would be revoked" err "--confirm 2"
says "a step narrows" out "narrows"
check "as JSON" 10 you apply config --dry-run -o json
is "it differs" differs true
is "what narrows comes first" steps.0.effect narrows
is "it is the upstream" steps.0.name echo
is "with its number" steps.0.revokes.credentials 2
is "then the new upstream" steps.1.change add
is "the binding is last" steps.2.object binding
is "and takes another operator" steps.2.approval_for '["binding warehouse-search"]'
is "nothing was done" steps.0.outcome planned
check "it has changed nothing" 3 you upstream show warehouse
check "without a reason" 2 you apply config
check "without the confirmation" 2 you apply config --reason "finance"
says "the number is told" err "--confirm 2"
check "nothing was done" 3 you upstream show warehouse
check "with too small a number" 2 you apply config --reason "finance" --confirm 1
check "mayfly apply config" 9 you apply config --reason "finance" --confirm 2 -o json
is "the narrower one is done" steps.0.outcome done
is "the new one is done" steps.1.outcome done
is "the binding waits" steps.2.outcome waits
is "counted" waiting 1
says "the command of the approver is told" err "mayfly approval give appr_"
id=$(approval)
looked_up() { you -o json token lookup --token - <"$work/a" || you -o json token lookup <"$work/a"; }
check "a credential with the scope that went" 0 looked_up
says "is revoked" out '"state": "revoked"'
check "the scope is gone" 5 one c
check "a second run asks no second time" 9 you apply config --reason "finance" -o json
is "only the binding is left" steps.0.object binding
verdict "it is the same approval" "$([ "$(approval)" = "$id" ] && echo yes || echo "$(approval), not $id")"
check "a dry run shows it as a difference" 10 you apply config --dry-run
check "another operator approves" 0 colleague approval give "$id" --reason "as agreed"
check "nothing differs any more" 0 you apply config --reason "finance"
check "an export says the same" 0 you export again
check "which applies as nothing" 0 you apply again --dry-run
check "and is written the same way" 0 you export third
verdict "byte for byte" "$(diff -r again third >"$work/out" && echo yes || echo no)"
verdict "the texts of policy and roles are the folder's" "$(cmp -s config/policy.cedar again/policy.cedar && cmp -s config/roles.toml again/roles.toml && echo yes || echo no)"

# 3. A policy set waits, and what gives waits for it.
cat >config/readers.cedar <<'CEDAR'
@id("readers")
permit (principal in Role::"reader", action == Action::"Observe", resource);
CEDAR
cat >>config/roles.toml <<'TOML'

[role.reader]
ids = ["spiffe://dev.mayfly.internal/agent/demo"]
TOML
sed -i 's/"orders:read"/"orders:read", "orders:list"/' config/upstreams/warehouse.toml
check "the plan" 10 you apply config --dry-run -o json
is "the policy set comes before what gives" steps.0.object policy
says "what takes another operator is named" out "policy readers"
is "the wider registration comes after it" steps.1.effect widens
check "it waits" 9 you apply config --reason "readers" -o json
is "the policy set waits" steps.0.outcome waits
is "the wider registration is held back" steps.1.outcome held
is "by name" steps.1.detail "after policy dev"
check "the registration is as before" 0 you upstream show warehouse -o json
silent "without the scope" out "orders:list"
check "it asked for one approval only" 0 you approval list -o name
verdict "of the policy set" "$([ "$(wc -l <"$work/out")" = 1 ] && echo yes || echo no)"
check "which is given" 0 colleague approval give "$(first_line <"$work/out")" --reason "as agreed"
check "a second run goes on" 9 you apply config --reason "readers" -o json
is "with the registration" steps.0.name warehouse
check "which is approved" 0 colleague approval give "$(approval)" --reason "as agreed"
check "and then nothing differs" 0 you apply config --reason "readers"

# 4. Who may only read sees the difference, and makes none.
reader() { as agent/demo operator-you "$@"; }
check "a reader exports" 0 reader export seen
check "which is the same" 0 you apply seen --dry-run
cp -r config changed
sed -i 's/max = "15m"/max = "10m"/' changed/upstreams/warehouse.toml
sed -i 's/"echo:read"/"echo:read", "echo:more"/' changed/upstreams/echo.toml
check "a reader's dry run" 10 reader apply changed --dry-run -o json
is "shows the step" steps.0.name warehouse
is "without the numbers" steps.0.revokes null
check "and a reader's run" 5 reader apply changed --reason "mine"
check "does nothing" 10 you apply changed --dry-run

# 5. What takes and gives at once has no safe place beside a new policy set.
cp -r config unsafe
sed -i 's/"orders:read", "orders:list"/"orders:list", "orders:count"/; s/"orders:read",//; s/^    "orders:list",/    "orders:list", "orders:count",/' unsafe/upstreams/warehouse.toml
rm unsafe/bindings/warehouse-search.toml
echo '// another' >>unsafe/readers.cedar
check "no order is safe" 2 you apply unsafe --reason "both"
says "which is told" err "upstream warehouse takes rights and gives others, and policy dev changes too"
check "nothing was done" 0 you apply config --dry-run
check "the operator chooses" 9 you apply unsafe --only upstreams --reason "first the registration"
check "and withdraws" 0 you approval refuse "$(approval)" --reason "not yet"

# 6. What the folder does not have.
cp -r config less
rm less/upstreams/warehouse.toml less/bindings/warehouse-search.toml
check "it stays" 0 you apply less --reason "less"
says "and is listed" err "upstream warehouse is not in the folder and stays"
says "the binding, too" err "binding warehouse-search is not in the folder and stays"
check "with --prune it differs" 10 you apply less --prune --dry-run -o json
is "the binding is removed first" steps.0.change remove
is "then the upstream is retired" steps.1.change retire
cp -r less other
rm -r other/bindings
check "a folder without bindings says nothing about them" 10 you apply other --prune --dry-run -o json
is "only the upstream" steps.0.object upstream
check "mayfly apply less --prune" 0 you apply less --prune --reason "finance left" --confirm all
check "it is retired" 0 you upstream show warehouse -o json
says "for good" out '"state": "retired"'
check "and then nothing differs" 0 you apply less --prune --dry-run
check "a retired name in a folder" 2 you apply config --dry-run
says "is told" err "upstream warehouse is retired"
check "an export has it no more" 0 you export after
verdict "neither the upstream nor the binding" "$([ ! -e after/upstreams/warehouse.toml ] && [ ! -e after/bindings/warehouse-search.toml ] && echo yes || echo no)"

# 7. An upstream that an operator disabled stays disabled.
check "it is disabled" 0 you upstream disable tickets --reason "incident" --confirm all
check "which is no difference" 0 you apply less --dry-run
says "and is told" err "upstream tickets is disabled and stays so"
check "it is enabled" 0 you upstream enable tickets --reason "over"

# 8. A folder of somebody else.
hostile() { rm -rf hostile && cp -r less hostile; }
hostile && ln -s /etc/passwd hostile/upstreams/passwd.toml
check "a link out of the folder" 2 you apply hostile --dry-run
says "is told" err "hostile/upstreams/passwd.toml: is a symbolic link that leads out of the folder"
silent "and not read" err "root:"
hostile && ln -s .. hostile/upstreams/above
check "a link to above" 2 you apply hostile --dry-run
hostile && mkfifo hostile/upstreams/pipe.toml
check "a pipe does not hang" 2 timeout 20 "$mayfly" --config "$world/operator-you.toml" apply hostile --dry-run
hostile && head -c 300000 /dev/zero | tr '\0' '#' >hostile/upstreams/huge.toml
check "a huge file" 2 you apply hostile --dry-run
says "is told" err "huge.toml"
hostile && echo x >hostile/notes.txt && echo 'name = ' >hostile/upstreams/a.toml && printf 'name = "b"\nscopes = 3\n' >hostile/bindings/b.toml && echo 'permit (' >hostile/bad.cedar
check "everything that is wrong" 2 you apply hostile --dry-run
says "an unknown file" err "hostile/notes.txt: does not belong into this folder"
says "a registration, with its line" err "hostile/upstreams/a.toml:1"
says "a binding, with its line" err "hostile/bindings/b.toml:2"
says "a policy, with its line" err "hostile/bad.cedar:"
hostile && cp hostile/upstreams/echo.toml hostile/upstreams/echo-2.toml
check "one name in two files" 2 you apply hostile --dry-run
says "is told" err "has the name echo, as"
mkdir -p map/..data/upstreams && cp less/policy.cedar less/readers.cedar less/roles.toml map/..data && cp less/upstreams/* map/..data/upstreams
for name in policy.cedar readers.cedar roles.toml upstreams; do ln -s "..data/$name" "map/$name"; done
check "the links of a ConfigMap are followed" 0 you apply map --dry-run
mkdir empty
check "an empty folder says nothing" 2 you apply empty --dry-run
check "no folder" 2 you apply nowhere --dry-run

# 9. Drift: the files of the server's configuration, compared with what is in effect.
cp less/readers.cedar less/policy.cedar less/roles.toml "$world/policy/" && rm "$world"/policy/upstreams/* && cp less/upstreams/* "$world/policy/upstreams/"
sed -i "s#^files = .*#files = [\"policy/policy.cedar\", \"policy/readers.cedar\"]#; s#^upstreams = \(\".*\"\)#upstreams = \1\nbindings = \"policy/bindings\"#" "$world/mayfly.toml"
mkdir -p "$world/policy/bindings"
again() { "$mayfly" dev down --dir "$world" && "$mayfly" dev up --dir "$world" --detach; }
check "the server starts with these files" 0 again
check "mayfly status" 0 you status -o json
silent "no drift" out "policy files:"
sed -i 's/"5m"/"4m"/' "$world/policy/upstreams/echo.toml"
printf 'name = "echo-search"\nupstream = "echo"\nids = ["spiffe://dev.mayfly.internal/mcp/echo"]\ntools = ["search"]\nscopes = ["echo:read"]\n' >"$world/policy/bindings/echo-search.toml"
check "the files change" 0 again
check "mayfly status" 0 you status -o json
says "shows the registration" out "the file of upstream echo differs from its registration"
says "and the binding" out "binding echo-search is in a file and not in force"
check "the folder of the server is applied" 9 you apply "$world/policy" --reason "as the files say"
check "the binding is approved" 0 colleague approval give "$(approval)" --reason "as agreed"
check "the server looks again" 0 again
check "mayfly status" 0 you status -o json
silent "no drift is left" out "policy files:"

# 10. A first start takes in the bindings of the folder, too.
anew() { "$mayfly" dev down --dir "$world" && rm -rf "$world/data" && "$mayfly" dev up --dir "$world" --detach; }
check "a first start with these files" 0 anew
check "the binding is in force" 0 you binding show echo-search -o json
says "by the files" out '"version": 1'
check "nothing differs from the folder" 0 you apply "$world/policy" --prune --dry-run
says "which is told" err "nothing differs"
check "mayfly status" 0 you status -o json
silent "no drift" out "policy files:"
ended apply
