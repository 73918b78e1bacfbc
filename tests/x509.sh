#!/usr/bin/env bash
# docs/upstreams/x509.md: certificates from a CSR and for a key that mayfly makes, verified by openssl with the CA and the CRL that the public
# listener serves, in a handshake with openssl's server too; revoking, rotation of the CA, and restarts.
#
#   tests/x509.sh MAYFLY
source "$(dirname "$0")/typed.sh"
if ! command -v openssl >/dev/null || ! command -v curl >/dev/null; then
    skipped "openssl or curl is not installed"
    echo "x509: 0 passed, 0 failed, 1 skipped"
    exit 0
fi
cd "$work"

check "a server" 0 up
base=$(sed -n 's/^issuer = "\(.*\)"/\1/p' "$world/mayfly.toml")
fetch() { curl -sS --fail --cacert "$world/bundle.pem" -o "$2" "$base/dev/upstreams/$1"; }
number() { openssl crl -in "$1" -inform "${2:-PEM}" -noout -crlnumber | sed 's/.*=0x//; s/.*=//'; }
grows() { # WHAT OLD NEW: hexadecimal numbers
    verdict "$1" "$([ "$((16#$3))" -gt "$((16#$2))" ] && echo yes || echo "$3 follows $2")"
}
# A list is signed within a second after a revocation.
listed() { sleep 2.2; }

# 1. The registration.
check "mayfly upstream template x509" 0 you upstream template x509
sed 's/"prod"/"dev"/' "$work/out" >reports.toml
check "mayfly upstream add" 0 you upstream add reports.toml
for _ in $(seq 50); do you upstream ca reports >/dev/null 2>&1 && break; sleep 0.1; done
check "mayfly upstream ca" 0 you upstream ca reports
says "names where it is served" err "/dev/upstreams/reports/ca.pem"
says "names where the CRL is served" err "/dev/upstreams/reports/crl.pem"
cp "$work/out" ca.pem
check "the public listener serves the same" 0 fetch reports/ca.pem served.pem
verdict "byte for byte but for the last line" "$(diff <(cat ca.pem) served.pem >/dev/null && echo yes || echo no)"
check "openssl reads the CA" 0 openssl x509 -in ca.pem -noout -text
says "it is a CA" out "CA:TRUE, pathlen:0"
check "mayfly upstream test" 0 you upstream test reports
says "signs" out "sign a certificate with scope reports:read"
says "verifies" out "its CA signed it for CN=reports_reader"
says "sees it revoked" out "see it in the CRL that is served"

# 2. A certificate for a CSR.
openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout client.key -subj "/O=system:masters/CN=root" \
    -addext "subjectAltName=DNS:admin.example.org" -out client.csr 2>/dev/null
check "mayfly get --csr" 0 agent get reports --csr client.csr --purpose "the report of May" --to client.crt
id=$(grep -oE 'cred_[a-z0-9]+' "$work/err" | first_line)
check "openssl reads it" 0 openssl x509 -in client.crt -noout -text
says "the name is that of the registration" out "Subject: CN = reports_reader"
silent "nothing is of the request" out "admin.example.org"
says "it is for clients" out "TLS Web Client Authentication"
silent "it is for no server" out "TLS Web Server Authentication"
says "it has a CRL" out "/dev/upstreams/reports/crl/"
says "it is no CA" out "CA:FALSE"
check "openssl verify" 0 openssl verify -purpose sslclient -x509_strict -CAfile ca.pem client.crt
check "mayfly's CRLs" 0 fetch reports/crl.pem crl.pem
check "openssl verify -crl_check" 0 openssl verify -purpose sslclient -crl_check -CAfile ca.pem -CRLfile crl.pem client.crt
url=$(openssl x509 -in client.crt -noout -ext crlDistributionPoints | sed -n 's/.*URI://p')
check "the CRL of the distribution point" 0 curl -sS --fail --cacert "$world/bundle.pem" -o crl.der "$url"
check "openssl reads the CRL" 0 openssl crl -in crl.der -inform DER -noout -text
says "its distribution point is that of the certificate" out "$url"
says "it is of user certificates only" out "Only User Certificates"
cp "$work/out" crl.txt
check "its issuing distribution point is critical" 0 grep -q "Issuing Distribution Point: critical" crl.txt
first=$(number crl.der DER)
check "a CSR that is not signed with its key" 0 sh -c "openssl req -in client.csr -outform DER -out bad.der && printf '\\377' | dd of=bad.der bs=1 seek=\$((\$(stat -c %s bad.der) - 3)) conv=notrunc status=none"
check "is refused" 2 agent get reports --csr bad.der --purpose "the report of May" --to bad.crt
says "with its field" err "certificate_request"
check "none at all is refused" 2 agent get reports --purpose "the report of May" --to bad.crt
says "with what to name" err "--csr FILE, or --new-key FILE"
check "a token takes no CSR" 2 agent get echo --csr client.csr --purpose "the report of May" --to bad.jwt

# 3. A key that mayfly makes; a server with client certificates.
check "mayfly get --new-key" 0 agent get reports --scope reports:serve --new-key server.key --purpose "serve the reports"
verdict "the key is the user's alone" "$([ "$(stat -c %a server.key)" = 600 ] && echo yes || stat -c %a server.key)"
check "for a server" 0 openssl verify -purpose sslserver -verify_hostname reports.example.org -crl_check -CAfile ca.pem -CRLfile crl.pem server.key.crt
check "a key is not replaced" 2 agent get reports --new-key server.key --purpose "serve the reports"
check "two scopes with different names" 2 agent get reports=reports:read,reports:serve --csr client.csr --purpose x --to bad.crt
says "do not share a certificate" err "different common names"
for tls_port in $(shuf -n 20 -i 20000-32000); do
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$tls_port") 2>/dev/null; then break; fi
done
serve() { # CRL: openssl's server, which takes certificates of the CA that the CRL does not list
    openssl s_server -accept "127.0.0.1:$tls_port" -cert server.key.crt -key server.key -CAfile ca.pem -CRL "$1" -crl_check -Verify 1 \
        -verify_return_error -naccept 1 -www >server.log 2>&1 &
    server=$!
    for _ in $(seq 50); do (exec 3<>"/dev/tcp/127.0.0.1/$tls_port") 2>/dev/null && break; kill -0 "$server" 2>/dev/null || break; sleep 0.1; done
}
trap 'kill "${server:-}" 2>/dev/null || true; end' EXIT
ask() { curl -sS --max-time 10 --resolve "reports.example.org:$tls_port:127.0.0.1" --cacert ca.pem --cert "$1" --key "$2" -o page.html "https://reports.example.org:$tls_port/"; }
openssl s_server -accept "127.0.0.1:$tls_port" -cert server.key.crt -key server.key -CAfile ca.pem -CRL crl.pem -crl_check -Verify 1 \
    -verify_return_error -www >server.log 2>&1 &
server=$!
for _ in $(seq 50); do grep -q ACCEPT server.log && break; sleep 0.1; done
check "a client with its certificate is let in" 0 ask client.crt client.key
kill "$server"; wait "$server" 2>/dev/null || true

# 4. mayfly exec.
check "mayfly exec gives files" 0 agent exec --upstream reports --purpose "the report of May" -- \
    sh -c 'openssl verify -CAfile "$REPORTS_CA" "$REPORTS_CERT" && openssl pkey -in "$REPORTS_KEY" -noout && stat -c %a "$REPORTS_KEY" && dirname "$REPORTS_KEY"'
says "of the user alone" out "600"
verdict "that are gone afterwards" "$([ ! -e "$(tail -n 1 "$work/out")" ] && echo yes || echo no)"

# 5. Idempotency, audit.
check "mayfly get with a request id" 0 agent get reports --csr client.csr --purpose "the report of May" --task-ttl 20m --request-id again --to one.crt
check "again" 0 agent get reports --csr client.csr --purpose "the report of May" --task-ttl 20m --request-id again --to two.crt
says "is the same certificate" err "the same credential as the first time"
verdict "with the same serial and end" "$([ "$(openssl x509 -in one.crt -noout -serial -dates)" = "$(openssl x509 -in two.crt -noout -serial -dates)" ] && echo yes || echo no)"
openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout other.key -subj "/CN=x" -out other.csr 2>/dev/null
check "with another key it is another request" 2 agent get reports --csr other.csr --purpose "the report of May" --task-ttl 20m --request-id again --to three.crt
check "mayfly explain" 0 you explain "$id"
says "tells the decision" out "permitted by demo-agent"
check "mayfly credential show" 0 you credential show "$id"
says "tells the kind" out "x509"
says "of an active credential" out "active"

# 6. Revoking, by credential and by task.
check "mayfly revoke" 0 you revoke --credential "$id" --reason "done"
listed
check "the CRL after it" 0 fetch reports/crl.pem crl.pem
grows "has a higher number" "$first" "$(number crl.pem)"
check "openssl verify -crl_check refuses it" 2 openssl verify -crl_check -CAfile ca.pem -CRLfile crl.pem client.crt
says "as revoked" err "certificate revoked"
check "and not another one" 0 openssl verify -crl_check -CAfile ca.pem -CRLfile crl.pem one.crt
openssl s_server -accept "127.0.0.1:$tls_port" -cert server.key.crt -key server.key -CAfile ca.pem -CRL crl.pem -crl_check -Verify 1 \
    -verify_return_error -www >server.log 2>&1 &
server=$!
for _ in $(seq 50); do grep -q ACCEPT server.log && break; sleep 0.1; done
check "the server with the new CRL lets it in no more" 1 sh -c "! true || curl -sS --max-time 10 --resolve 'reports.example.org:$tls_port:127.0.0.1' --cacert ca.pem --cert client.crt --key client.key -o page.html 'https://reports.example.org:$tls_port/' && exit 0; exit 1"
check "and another one still" 0 ask one.crt client.key
kill "$server"; wait "$server" 2>/dev/null || true
task=$(you -o json credential show "$(agent get reports --csr client.csr --purpose hold --to held.crt 2>&1 | grep -oE 'cred_[a-z0-9]+' | first_line)" | sed -n 's/.*"task_id": "\(task_[a-z0-9]*\)".*/\1/p')
check "a task that is held" 0 you task hold "$task" --reason "a look"
listed
check "its CRL" 0 fetch reports/crl.pem held.pem
check "has its certificate" 2 openssl verify -crl_check -CAfile ca.pem -CRLfile held.pem held.crt
check "a task that goes on" 0 you task resume "$task" --reason "fine"
listed
check "its CRL" 0 fetch reports/crl.pem resumed.pem
check "has it no more" 0 openssl verify -crl_check -CAfile ca.pem -CRLfile resumed.pem held.crt
grows "and a higher number" "$(number held.pem)" "$(number resumed.pem)"
check "mayfly revoke --task" 0 you revoke --task "$task" --reason "done" --confirm all
listed
check "its CRL" 0 fetch reports/crl.pem task.pem
check "has its certificate again" 2 openssl verify -crl_check -CAfile ca.pem -CRLfile task.pem held.crt

# 7. A restart.
last=$(number task.pem)
check "a server that is ended" 0 "$mayfly" dev down --dir "$world"
check "and begins again" 0 "$mayfly" dev up --dir "$world" --detach
check "its CRL" 0 fetch reports/crl.pem restarted.pem
grows "has a higher number" "$last" "$(number restarted.pem)"
check "and still what was revoked" 2 openssl verify -crl_check -CAfile ca.pem -CRLfile restarted.pem client.crt
check "and not what was not" 0 openssl verify -crl_check -CAfile ca.pem -CRLfile restarted.pem one.crt

# 8. The next CA.
check "mayfly key rotate" 0 you key rotate --purpose upstream_ca --upstream reports --publish-ahead 0s
check "both CAs are published" 0 fetch reports/ca.pem both.pem
verdict "both" "$([ "$(grep -c BEGIN both.pem)" = 2 ] && echo yes || grep -c BEGIN both.pem)"
check "a certificate of the new CA" 0 agent get reports --csr client.csr --purpose "the report of June" --to new.crt
listed
check "the CRLs of both" 0 fetch reports/crl.pem both-crl.pem
check "a certificate of the old CA is good" 0 openssl verify -crl_check -CAfile both.pem -CRLfile both-crl.pem one.crt
check "that of the new one too" 0 openssl verify -crl_check -CAfile both.pem -CRLfile both-crl.pem new.crt
check "but not with the old CA alone" 2 openssl verify -CAfile ca.pem new.crt
check "what was revoked stays so" 2 openssl verify -crl_check -CAfile both.pem -CRLfile both-crl.pem client.crt
kid=$(you -o json key list --purpose upstream_ca --state active | sed -n 's/.*"key_id": "\([a-z0-9]*\)".*/\1/p')
check "mayfly key compromise" 0 you key compromise "$kid" --reason "drill" --confirm all
check "the CA is published no more" 0 fetch reports/ca.pem after.pem
check "its certificates are good no more" 2 openssl verify -CAfile after.pem new.crt
check "another CA signs at once" 0 agent get reports --csr client.csr --purpose "the report of June" --to after.crt
check "and is published" 0 openssl verify -CAfile after.pem after.crt

# 9. Certificates that nothing revokes.
sed -e 's/"reports"/"quick"/; s|reports.example.org|quick.example.org|g; s/^revocation = .*/revocation = "none"/; s/^max = .*/max = "10m"/; s/^default = .*/default = "5m"/' \
    reports.toml >quick.toml
check "mayfly upstream add of short lives" 0 you upstream add quick.toml
for _ in $(seq 50); do you upstream ca quick >/dev/null 2>&1 && break; sleep 0.1; done
check "mayfly get" 0 agent get quick --csr client.csr --purpose "the report of May" --to quick.crt
says "says that it cannot be revoked" err "cannot be revoked before it ends"
check "openssl reads it" 0 openssl x509 -in quick.crt -noout -text
silent "it has no CRL" out "CRL Distribution"
verdict "but noRevAvail" "$(openssl asn1parse -in quick.crt | found -E '2.5.29.56|X509v3 No Revocation Available' && echo yes || echo no)"
check "mayfly upstream test" 0 you upstream test quick
says "leaves it to end" out "nothing revokes it"
ended x509
