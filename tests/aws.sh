#!/usr/bin/env bash
# docs/upstreams/aws.md against moto, an independent implementation of STS and IAM, over TLS on loopback.
#
#   tests/aws.sh MAYFLY        (with .venv, as ./test installs it)
source "$(dirname "$0")/typed.sh"
here=$(cd "$(dirname "$0")" && pwd)
python=${AWS_PYTHON:-$here/../target/aws/bin/python}
if [ ! -x "$python" ] || ! "$python" -c 'import moto, boto3' 2>/dev/null; then
    skipped "moto is not installed (tests/aws/requirements.txt)"
    echo "aws: 0 passed, 0 failed, 1 skipped"
    exit 0
fi

check "a server" 0 up
check "is ended, to be told where the roots of upstreams are" 0 "$mayfly" dev down --dir "$world"
printf '\n[upstreams]\nsecrets_dir = "secrets"\n' >>"$world/mayfly.toml"
install -d -m 700 "$world/secrets"
check "the server again" 0 "$mayfly" dev up --dir "$world" --detach

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/CN=the authority of moto" \
    -keyout "$work/ca.key" -out "$work/ca.pem" 2>/dev/null
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=localhost" -keyout "$work/moto.key" -out "$work/moto.csr" 2>/dev/null
openssl x509 -req -in "$work/moto.csr" -CA "$work/ca.pem" -CAkey "$work/ca.key" -days 2 -out "$work/moto.pem" \
    -extfile <(printf 'subjectAltName=DNS:localhost') 2>/dev/null
for moto_port in $(shuf -n 20 -i 20000-32000); do
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$moto_port") 2>/dev/null; then break; fi
done
"$(dirname "$python")/moto_server" -H 127.0.0.1 -p "$moto_port" -s -c "$work/moto.pem" -k "$work/moto.key" >"$work/moto.log" 2>&1 &
moto=$!
trap 'kill "$moto" 2>/dev/null || true; end' EXIT
export AWS_CA_BUNDLE=$work/ca.pem MOTO=https://localhost:$moto_port
admin() { env AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_DEFAULT_REGION=eu-central-1 "$python" "$here/aws/account.py" "$@"; }
for _ in $(seq 100); do (exec 3<>"/dev/tcp/127.0.0.1/$moto_port") 2>/dev/null && break || sleep 0.1; done
check "an account with both roles" 0 admin create
check "its STS answers" 0 admin whoami

check "mayfly upstream template aws" 0 you upstream template aws
sed -e 's/"prod"/"dev"/' -e "s|^region = .*|&\nsts_url = \"$MOTO/\"\niam_url = \"$MOTO/\"|" "$work/out" >"$work/reports.toml"
check "mayfly upstream add reports.toml" 0 you upstream add "$work/reports.toml"
check "mayfly upstream test without the roots of moto" 6 you upstream test reports
says "names the file" out "reports.pem"
install -m 600 "$work/ca.pem" "$world/secrets/reports.pem"
check "mayfly upstream test" 0 you upstream test reports
says "the session works" out "GetCallerIdentity says arn:aws:sts::123456789012:assumed-role/reports/lease_"
says "it is denied" out "verify that it is gone"
check "the deny is in the role" 0 admin denied
verdict "one session is denied" "$([ "$(wc -l <"$work/out")" = 1 ] && echo yes || echo no)"

check "mayfly get" 0 agent -o json get reports --purpose "the report of May" --ttl 5m --to "$work/keys.json"
says "says that AWS gives no shorter life" err "the upstream gives no shorter life"
silent "and does not say that it cannot be revoked" err "cannot be revoked"
field() { "$python" -c 'import json, sys; d = json.load(open(sys.argv[1])); print(d.get(sys.argv[2]) or d["aws_keys"][sys.argv[2]])' "$work/keys.json" "$1"; }
as_session() { env AWS_ACCESS_KEY_ID="$(field access_key_id)" AWS_SECRET_ACCESS_KEY="$(field secret_access_key)" \
    AWS_SESSION_TOKEN="$(field session_token)" AWS_DEFAULT_REGION="$(field region)" "$python" "$here/aws/account.py" "$@"; }
check "boto3 uses it" 0 as_session whoami
says "as the role" out "assumed-role/reports/lease_"
session=$(grep -oE "lease_[a-z0-9]+" "$work/out" || true)
check "what moto was asked" 0 admin requests
check "less than 5 minutes are not handed out" 2 agent get reports --purpose "the report of May" --ttl 2m --to "$work/none"

export AWS_PROFILE=somebody AWS_CONTAINER_CREDENTIALS_FULL_URI=http://169.254.170.2/
check "mayfly exec" 0 agent exec --upstream reports --purpose "the report of May" -- "$python" "$here/aws/account.py" whoami
says "boto3 has the session by itself" out "assumed-role/reports/lease_"
check "the program's variables" 0 agent exec --upstream reports --purpose "the report of May" -- env
says "the region" out "AWS_REGION=eu-central-1"
says "the JSON of a credential_process" out 'REPORTS_KEYS={"Version":1,'
silent "no profile" out "AWS_PROFILE"
silent "no container" out "AWS_CONTAINER"
unset AWS_PROFILE AWS_CONTAINER_CREDENTIALS_FULL_URI

# Revoking: the deny is written, and read back.
denied() { admin denied >"$work/denied" && grep -q "$1" "$work/denied"; }
verdict "it is not denied yet" "$(denied "$session" && echo "it is" || echo yes)"
id=$(field credential_id)
check "mayfly revoke" 0 you revoke --credential "$id" --reason "done"
for _ in $(seq 100); do denied "$session" && break || sleep 0.1; done
verdict "the session is denied" "$(denied "$session" && echo yes || echo no)"
for _ in $(seq 100); do you lease list >"$work/leases" 2>/dev/null; grep -q "$session" "$work/leases" || break; sleep 0.1; done
verdict "its lease is closed" "$(grep -q "$session" "$work/leases" && echo no || echo yes)"

# Many at once: coalesced, and all of them are there.
task=$(agent -o name task open --upstream reports=reports:read --purpose "the reports of all months" 2>/dev/null)
for n in 1 2 3 4 5 6 7 8; do agent -o json get reports --task "$task" --to "$work/many.$n" 2>/dev/null & done
wait $(jobs -p | grep -v "^$moto$")
check "mayfly task complete" 0 agent task complete "$task"
lost=0
for n in 1 2 3 4 5 6 7 8; do
    one=$("$python" -c 'import json, sys; print(json.load(open(sys.argv[1]))["credential_id"])' "$work/many.$n")
    lease=$(you -o json explain "$one" 2>/dev/null | grep -oE 'lease_[a-z0-9]{26}' | first_line || true)
    for _ in $(seq 100); do denied "$lease" && break || sleep 0.1; done
    denied "$lease" || lost=$((lost + 1))
done
verdict "all eight sessions are denied" "$([ "$lost" = 0 ] && echo yes || echo "$lost are not")"

# After a restart, and after the registration is gone.
check "mayfly get once more" 0 agent -o json get reports --purpose "the report of May" --to "$work/keys.json"
check "who" 0 as_session whoami
session=$(grep -oE "lease_[a-z0-9]+" "$work/out" || true)
check "the server is killed" 0 killed
check "and begins again" 0 "$mayfly" dev up --dir "$world" --detach
for _ in $(seq 150); do you status >/dev/null 2>&1 && break || sleep 0.2; done
check "mayfly upstream retire" 0 you upstream retire reports --reason "done" --confirm all
for _ in $(seq 150); do denied "$session" && break || sleep 0.1; done
verdict "the session of a retired upstream is denied" "$(denied "$session" && echo yes || echo no)"

# Without an administration role.
sed -e '/^administration/d' "$work/reports.toml" >"$work/plain.toml"
check "without an administration role, consent is needed" 2 you upstream add "$work/plain.toml"
says "names both ways" err "aws.irrevocable"
sed -i -e 's/"reports"$/"plain"/; s|^region|irrevocable = true\nregion|; s|reports.s3|plain.s3|' -e 's/^name = .*/name = "plain"/' "$work/plain.toml"
check "with consent" 0 you upstream add "$work/plain.toml"
install -m 600 "$work/ca.pem" "$world/secrets/plain.pem"
check "mayfly get" 0 agent get plain --purpose "the report of May" -o json --to "$work/plain.json"
says "says that it cannot be revoked" err "cannot be revoked before it ends"

for secret in "$(field secret_access_key)" "$(field session_token)"; do
    verdict "no key is in mayfly's files" "$(! grep -rqF -- "$secret" "$world" && echo yes || echo "it is")"
done
ended aws
