#!/usr/bin/env bash
# docs/upstreams/github.md against the double of GitHub's API on loopback (tests/doubles/github.py): the template, the file with the app's
# key, and the commands.
#
#   tests/github.sh MAYFLY
source "$(dirname "$0")/typed.sh"
here=$(cd "$(dirname "$0")" && pwd)
page=$here/../docs/upstreams/github.md
python=$here/../.venv/bin/python
[ -x "$python" ] || python=python3
if ! "$python" -c 'import jwt, cryptography' 2>/dev/null || ! command -v curl >/dev/null; then
    skipped "the double of GitHub needs curl, and Python with PyJWT and cryptography (tests/interop/python/requirements.txt)"
    echo "github: 0 passed, 0 failed, 1 skipped"
    exit 0
fi
mkdir "$work/hub"
# The double ends when its standard input is closed, which is when this script ends.
exec 9> >(exec "$python" "$here/doubles/github.py" --dir "$work/hub")
trap 'exec 9>&-; end' EXIT
for _ in $(seq 300); do [ -e "$work/hub/double.json" ] && break || sleep 0.1; done
port_of() { "$python" -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$work/hub/double.json" "$1"; }
api="https://localhost:$(port_of port)" control="http://127.0.0.1:$(port_of control)"
state() { curl -s "$control/state" | "$python" -c "import json, sys; state = json.load(sys.stdin); print($1)"; }
set_to() { curl -s -d "$1" "$control/set" >/dev/null; }

check "a server" 0 up
check "is ended, to be told where its secrets are" 0 "$mayfly" dev down --dir "$world"
printf '\n[upstreams]\nsecrets_dir = "secrets"\n' >>"$world/mayfly.toml"
install -d -m 700 "$world/secrets"
check "the configuration is valid" 0 "$mayfly" server validate --config "$world/mayfly.toml"
check "the server again" 0 "$mayfly" dev up --dir "$world" --detach

# 3. The registration.
check "mayfly upstream template github" 0 you upstream template github
sed -e "s#\"https://api.github.com\"#\"$api\"#" -e 's/"prod"/"dev"/' -e "s/Iv23liAbCdEfGhIjKlMn/$(port_of app)/" \
    -e "s/^installation = 12345678/installation = $(port_of installation)/" -e 's/"pull_requests:write"/"pull_requests:read"/' \
    "$work/out" >"$work/site.toml"
check "mayfly upstream add site.toml" 0 you upstream add "$work/site.toml"
check "mayfly upstream test site, before there is a key" 6 you upstream test site
says "the file is named" out "site.toml"

# 2. The key, between the lines of the page.
awk '/^```/ { block = (!block && $0 == "```toml"); next } block' "$page" | sed -n "/^target/,\$p" >"$work/secret.page"
verdict "the page shows the file" "$([ "$(grep -c "'''" "$work/secret.page")" = 2 ] && echo yes || echo "it does not")"
{ echo "target = '$api'"; echo "private_key = '''"; cat "$work/hub/app.pem"; echo "'''"; } >"$work/secret.toml"
install -m 600 "$work/secret.toml" "$world/secrets/site.toml"
check "without the roots of the server" 6 you upstream test site
install -m 600 "$work/hub/ca.pem" "$world/secrets/site.pem"
check "mayfly upstream test site" 0 you upstream test site
says "it used the token" out "listed the repositories of the token: 1"
verdict "nothing of the test stays" "$([ "$(state "len(state['live'])")" = 0 ] && echo yes || echo "$(state "state['live']")")"
set_to '{"permissions": {"metadata": "read", "issues": "read"}}'
check "without a permission" 6 you -o json upstream test site
says "names the permission" out "lacks contents:read"
says "and where to add it" out "/settings/installations/"
set_to '{"permissions": {"metadata": "read", "contents": "write", "issues": "write", "pull_requests": "read"}}'

# 4. Use.
ask='curl -s --cacert "$CA" -o /dev/null -w "%{http_code} " -H "authorization: Bearer $GITHUB_TOKEN" "$SITE_BASE_URL/repos/octo-org/$0"'
check "mayfly exec" 0 env CA="$work/hub/ca.pem" "$mayfly" --config "$world/agent-demo.toml" --svid "$world/svid/agent/demo/svid.pem" \
    --key "$world/svid/agent/demo/key.pem" exec --env GITHUB_TOKEN=site=site:read --purpose "look at issue 17" -- \
    sh -c "for path in site/issues tools; do sh -c '$ask' \$path; done"
says "gh has the token, for this repository only" out "200 404 "
check "mayfly get" 0 agent -o json get site --scope site:read --purpose "look at issue 17" --to "$work/token.json"
field() { "$python" -c 'import json, sys; answer = json.load(open(sys.argv[1])); print(eval(sys.argv[2], {"a": answer}))' "$work/token.json" "$1"; }
id=$(field 'a["credential_id"]') token=$(field 'a["bearer_token"]["token"]')
status() { curl -s --cacert "$work/hub/ca.pem" -o /dev/null -w '%{http_code}' --config - "$api/repos/octo-org/site/issues" <<<"header = \"authorization: Bearer $token\""; }
verdict "the token works" "$([ "$(status)" = 200 ] && echo yes || echo "$(status)")"
check "the credential is listed" 0 you credential list
says "by its id" out "$id"
check "the lease is listed" 0 you lease list
says "by its installation" out "token of installation $(port_of installation)"
check "mayfly revoke" 0 you revoke --credential "$id" --reason "done"
for _ in $(seq 50); do [ "$(status)" = 401 ] && break || sleep 0.1; done
verdict "the token is lost" "$([ "$(status)" = 401 ] && echo yes || echo "$(status)")"
for _ in $(seq 100); do [ "$(state "len(state['live'])")" = 0 ] && break || sleep 0.1; done
verdict "no token stays at GitHub" "$([ "$(state "len(state['live'])")" = 0 ] && echo yes || echo "$(state "state['live']")")"
check "no lease stays" 0 you lease list
silent "of it" out "token of installation"
verdict "no token is in the log of mayfly" "$(! grep -qrF -e "$token" "$world"/*.log && echo yes || echo "it is")"
line=$(sed -n 5p "$work/hub/app.pem")
verdict "no line of the key is in what mayfly keeps" "$(! grep -qrF -e "$line" "$world"/*.log "$world"/data && echo yes || echo "it is")"
ended github
