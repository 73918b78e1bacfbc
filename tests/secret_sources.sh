#!/usr/bin/env bash
# docs/upstreams/secret.md, the section about sources: files, a KV engine whose login verifies mayfly's assertions with PyJWT, and AWS Secrets
# Manager by moto. Read at each grant, and kept nowhere else.
#
#   tests/secret_sources.sh MAYFLY        (with .venv and target/aws, as ./test installs them)
source "$(dirname "$0")/typed.sh"
here=$(cd "$(dirname "$0")" && pwd)
python=$here/../.venv/bin/python
aws_python=${AWS_PYTHON:-$here/../target/aws/bin/python}

check "a server" 0 up
check "is ended, to be told where the files of upstreams are" 0 "$mayfly" dev down --dir "$world"
printf '\n[upstreams]\nsecrets_dir = "secrets"\n' >>"$world/mayfly.toml"
install -d -m 700 "$world/secrets"
check "the server again" 0 "$mayfly" dev up --dir "$world" --detach
issuer=$(sed -n 's/^issuer = "\(.*\)"/\1/p' "$world/mayfly.toml")/dev/upstreams/sentry

check "mayfly upstream template secret" 0 you upstream template secret
sed -e '/^# Where the secret is kept, if/,$d' -e '/^overlap/d' -e '/^# How long the version/d' -e 's/"prod"/"dev"/' "$work/out" >"$work/plain.toml"
# registration NAME LINE...: with that source.
registration() {
    local name=$1
    shift
    { sed -e "s/sentry/$name/g; s/SENTRY/${name^^}/" "$work/plain.toml" && printf '[secret.source]\n' && printf '%s\n' "$@"; } >"$work/$name.toml"
}
handed_out() { agent exec --env TOKEN="$1" --purpose "look at an error" -- sh -c 'echo "$TOKEN"'; }
# waiting NAME WORD: until the leases of the upstream say so ("to wait"), or there is none ("to go").
leases() { you -o json lease list --upstream "$1" 2>/dev/null; }
until_leases() {
    for _ in $(seq 150); do leases "$1" >"$work/out"; if grep -qF "$2" "$work/out"; then return; else sleep 0.1; fi; done
    return 1
}
until_no_lease() {
    for _ in $(seq 150); do leases "$1" >"$work/out"; if ! grep -qF lease_ "$work/out"; then return; else sleep 0.1; fi; done
    return 1
}

# A file.
registration files 'from = "file"'
check "mayfly upstream add" 0 you upstream add "$work/files.toml"
check "mayfly upstream test, without the file" 6 you upstream test files
says "names the file" out "files.toml"
secret_file() { printf '%s\n' "$@" >"$work/new" && install -m 600 "$work/new" "$world/secrets/files.toml"; }
secret_file "target = 'https://evil.example.org'" "secret = 'marker-file-1'"
check "for another target" 1 handed_out files
says "it is not handed out" err "is not sent there"
secret_file "target = 'https://files.example.org'" "secret_file = '$work/mounted'"
printf 'marker-file-1\n' >"$work/mounted"
chmod 600 "$work/mounted"
check "mayfly upstream test" 0 you upstream test files
says "it was read" out "a file in upstreams.secrets_dir"
check "it is handed out" 0 handed_out files
says "without the line break" out "marker-file-1"
printf 'marker-file-2\n' >"$work/mounted"
check "a new one is in effect at once" 0 handed_out files
says "as it is in the file" out "marker-file-2"
check "mayfly secret list" 0 you secret list
says "says where it is" out "read at each grant: a file in upstreams.secrets_dir"
printf 'x' >"$work/key"
check "mayfly secret put" 1 you secret put files --file "$work/key"
says "stores nothing beside it" err "is read at each grant"
check "mayfly secret rotate" 1 you secret rotate files --reason "a colleague left"
says "says who rotates it" err "rotate it there"
check "mayfly get" 0 agent -o json get files --purpose "look at an error" --to "$work/one.json"
id_of() { "$python" -c 'import json, sys; print(json.load(open(sys.argv[1]))["credential_id"])' "$1"; }
check "mayfly revoke" 0 you revoke --credential "$(id_of "$work/one.json")" --reason "leaked"
check "the lease waits" 0 until_leases files "is still there"
check "the server is killed" 0 killed
check "and begins again" 0 "$mayfly" dev up --dir "$world" --detach
for _ in $(seq 150); do you status >/dev/null 2>&1 && break || sleep 0.2; done
check "the lease waits as before" 0 until_leases files "is still there"
printf 'marker-file-3\n' >"$work/mounted"
lease=$(grep -oE 'lease_[a-z0-9]{26}' "$work/out" | first_line || true)
check "mayfly lease retry" 0 you lease retry "$lease"
check "and closes with the new secret" 0 until_no_lease files

# A KV engine.
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/CN=the authority of a vault" \
    -keyout "$work/ca.key" -out "$work/ca.pem" 2>/dev/null
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=localhost" -keyout "$work/bao.key" -out "$work/bao.csr" 2>/dev/null
openssl x509 -req -in "$work/bao.csr" -CA "$work/ca.pem" -CAkey "$work/ca.key" -days 2 -out "$work/bao.pem" \
    -extfile <(printf 'subjectAltName=DNS:localhost') 2>/dev/null
free_port() {
    local port
    for port in $(shuf -n 20 -i 20000-32000); do
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then echo "$port" && return; fi
    done
    return 1
}
answers() { for _ in $(seq 100); do if (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; then return; else sleep 0.1; fi; done; return 1; }
bao_port=$(free_port)
bao=https://localhost:$bao_port
# kept STATUS TOKEN [TARGET]: what the double has, and what its role wants.
kept() {
    "$python" - "$work/bao.json" "$bao" "$@" <<'PY'
import json, os, sys
path, audience, status, token, *target = sys.argv[1:]
state = {
    'audience': audience, 'role': 'mayfly', 'status': int(status),
    'bound': {'sub': 'mayfly:secret:sentry', 'target': (target or ['https://sentry.example.org/api/0'])[0]},
    'secrets': {
        '/v1/secret/data/ci/sentry': {'data': {'token': token, 'other': 5} if token else None, 'metadata': {'version': 3}},
        '/v1/kv1/ci/sentry': {'token': token},
    },
}
with open(path + '.new', 'w') as file:
    json.dump(state, file)
os.replace(path + '.new', path)
PY
}
kept 0 marker-bao-1
"$python" "$here/secret/openbao.py" "$bao_port" "$work/bao.pem" "$work/bao.key" "$world/bundle.pem" "$work/bao.json" "$issuer" 2>"$work/bao.err" &
bao_process=$!
trap 'kill "$bao_process" 2>/dev/null || true; end' EXIT
check "the KV engine answers" 0 answers "$bao_port"
kv=('from = "openbao"' "url = \"$bao\"" 'path = "ci/sentry"' 'field = "token"' 'role = "mayfly"' 'namespace = "team"')
registration sentry "${kv[@]}"
check "mayfly upstream add" 0 you upstream add "$work/sentry.toml"
check "mayfly upstream test, without the roots" 6 you upstream test sentry
says "names the file for them" out "sentry.pem"
install -m 600 "$work/ca.pem" "$world/secrets/sentry.pem"
for _ in $(seq 100); do you upstream test sentry >"$work/out" 2>/dev/null && break || sleep 0.2; done
check "mayfly upstream test" 0 you upstream test sentry
says "it was read" out "token of secret/ci/sentry at $bao"
check "it is handed out" 0 handed_out sentry
says "as it is kept" out "marker-bao-1"
log() { "$python" -c 'import json, sys; [print(json.dumps(json.loads(l))) for l in open(sys.argv[1])]' "$work/bao.json.log"; }
check "what was asked" 0 log
says "the login says who asks" out '"sub": "mayfly:secret:sentry"'
says "and for which target" out '"target": "https://sentry.example.org/api/0"'
says "in the namespace" out '"namespace": "team"'
verdict "each login's token is revoked" "$("$python" - "$work/bao.json.log" <<'PY'
import json, sys
lines = [json.loads(line) for line in open(sys.argv[1])]
logins = sum('claims' in line for line in lines)
ended = sum(line['path'].endswith('revoke-self') and line['known'] for line in lines)
print('yes' if logins == ended > 0 else f'{logins} logins, {ended} revoked')
PY
)"
kept 0 marker-bao-1 https://other.example.org
check "for another target the login refuses" 1 handed_out sentry
says "with what it said" err "error validating claims"
says "and what mends it" err "the role has to accept the issuer $issuer"
silent "and without the assertion" err "eyJ"
kept 503 marker-bao-1
check "while it is sealed" 6 handed_out sentry
says "that is told" err "Vault is sealed"
kept 0 ""
check "without the secret" 1 handed_out sentry
says "that is told" err "the secret has no field token"
kept 0 'marker bao
1'
check "what no header can hold" 1 handed_out sentry
says "that is told" err "cannot be the value of a header"
silent "without the secret" err "marker bao"
kept 0 marker-bao-2
check "mayfly get" 0 agent -o json get sentry --purpose "look at an error" --request-id r-1 --to "$work/one.json"
check "a repeat is another credential" 0 agent -o json get sentry --purpose "look at an error" --request-id r-1 --to "$work/two.json"
check "mayfly revoke" 0 you revoke --credential "$(id_of "$work/two.json")" --reason "leaked"
check "the lease waits" 0 until_leases sentry "is still there"
check "mayfly upstream retire" 0 you upstream retire sentry --reason "done" --confirm all
kept 0 marker-bao-3
lease=$(grep -oE 'lease_[a-z0-9]{26}' "$work/out" | first_line || true)
for _ in $(seq 50); do leases sentry >"$work/out"; lease=$(grep -oE 'lease_[a-z0-9]{26}' "$work/out" | first_line || true); [ -n "$lease" ] && break || sleep 0.1; done
check "mayfly lease retry, without the registration" 0 you lease retry "$lease"
check "it closes with the new secret" 0 until_no_lease sentry

# The first version of the engine.
kill "$bao_process" 2>/dev/null || true
kept 0 marker-bao-1 https://kvone.example.org/api/0
sed -i 's/secret:sentry/secret:kvone/' "$work/bao.json"
"$python" "$here/secret/openbao.py" "$bao_port" "$work/bao.pem" "$work/bao.key" "$world/bundle.pem" "$work/bao.json" "${issuer%sentry}kvone" 2>"$work/bao.err" &
bao_process=$!
check "the KV engine answers" 0 answers "$bao_port"
registration kvone "${kv[@]}" 'mount = "kv1"' 'engine = 1' 'alg = "RS256"'
sed -i 's|ci/kvone|ci/sentry|' "$work/kvone.toml"
install -m 600 "$work/ca.pem" "$world/secrets/kvone.pem"
check "mayfly upstream add" 0 you upstream add "$work/kvone.toml"
for _ in $(seq 100); do you upstream test kvone >"$work/out" 2>/dev/null && break || sleep 0.2; done
check "it is handed out" 0 handed_out kvone
says "as it is kept" out "marker-bao-1"

# AWS Secrets Manager.
if [ -x "$aws_python" ] && "$aws_python" -c 'import moto, boto3' 2>/dev/null; then
    moto_port=$(free_port)
    "$(dirname "$aws_python")/moto_server" -H 127.0.0.1 -p "$moto_port" -s -c "$work/bao.pem" -k "$work/bao.key" >"$work/moto.log" 2>&1 &
    moto=$!
    trap 'kill "$bao_process" "$moto" 2>/dev/null || true; end' EXIT
    check "moto answers" 0 answers "$moto_port"
    export AWS_CA_BUNDLE=$work/ca.pem MOTO=https://localhost:$moto_port
    admin() { env AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_DEFAULT_REGION=eu-central-1 "$aws_python" "$here/aws/account.py" "$@"; }
    check "an account with a secret" 0 admin secret sentry '{"token": "marker-aws-1"}'
    arn=$(cat "$work/out")
    registration cloud 'from = "aws_secrets_manager"' "secret = \"$arn\"" 'field = "token"' \
        'role = "arn:aws:iam::123456789012:role/mayfly-reads-sentry"' "sts_url = \"$MOTO/\"" "url = \"$MOTO/\""
    install -m 600 "$work/ca.pem" "$world/secrets/cloud.pem"
    check "mayfly upstream add" 0 you upstream add "$work/cloud.toml"
    for _ in $(seq 100); do you upstream test cloud >"$work/out" 2>/dev/null && break || sleep 0.2; done
    check "mayfly upstream test" 0 you upstream test cloud
    says "it was read" out "token of $arn"
    check "it is handed out" 0 handed_out cloud
    says "as it is kept" out "marker-aws-1"
    check "mayfly get" 0 agent -o json get cloud --purpose "look at an error" --to "$work/one.json"
    check "mayfly revoke" 0 you revoke --credential "$(id_of "$work/one.json")" --reason "leaked"
    check "the lease waits" 0 until_leases cloud "is still there"
    check "a new version of the secret" 0 admin secret sentry '{"token": "marker-aws-2"}'
    lease=$(leases cloud | grep -oE 'lease_[a-z0-9]{26}' | first_line || true)
    check "mayfly lease retry" 0 you lease retry "$lease"
    check "the lease closes" 0 until_no_lease cloud
    check "a secret that is not there" 0 admin secret sentry delete
    check "it is not handed out" 1 handed_out cloud
    says "with the reason" err "reading $arn"
else
    skipped "moto is not installed (tests/aws/requirements.txt)"
fi

verdict "no secret is in the log of mayfly" "$(! grep -qrF marker- "$world"/*.log && echo yes || echo "it is")"
verdict "nor in its data" "$(! grep -qrF marker- "$world/data" && echo yes || echo "it is")"
ended secret_sources
