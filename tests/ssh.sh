#!/usr/bin/env bash
# docs/upstreams/ssh.md against a real sshd on loopback: a login by certificate, what its scope allows, and its end by the KRL.
#
#   tests/ssh.sh MAYFLY
source "$(dirname "$0")/typed.sh"
sshd=$(command -v sshd || ls /usr/sbin/sshd 2>/dev/null || true)
if [ ! -x "$sshd" ] || ! command -v ssh >/dev/null || ! command -v curl >/dev/null; then
    skipped "OpenSSH is not installed (Debian's packages openssh-server, openssh-client and curl)"
    echo "ssh: 0 passed, 0 failed, 1 skipped"
    exit 0
fi
cd "$work"
me=$(id -un)

check "a server" 0 up
base=$(sed -n 's/^issuer = "\(.*\)"/\1/p' "$world/mayfly.toml")
fetch() { curl -sS --fail --cacert "$world/bundle.pem" -o "$2" "$base/dev/upstreams/$1"; }
listed() { sleep 2.2; }

# 1. The registration. The account is that of whoever runs this script: sshd that is not root has no other.
check "mayfly upstream template ssh" 0 you upstream template ssh
sed -e 's/"prod"/"dev"/' -e "s/principals = \[\"ops\"\]/principals = [\"$me\"]/; s/principals = \[\"deploy\"\]/principals = [\"$me\"]/" \
    -e 's|/usr/local/bin/deploy|echo deployed|; s/, sensitive = true//' "$work/out" >hosts.toml
check "mayfly upstream add" 0 you upstream add hosts.toml
for _ in $(seq 50); do you upstream ca hosts >/dev/null 2>&1 && break; sleep 0.1; done
check "mayfly upstream ca" 0 you upstream ca hosts
says "names the KRL" err "/dev/upstreams/hosts/krl"
cp "$work/out" ca.pub
check "the public listener serves the same" 0 fetch hosts/ssh_ca.pub served.pub
verdict "byte for byte" "$(cmp -s ca.pub served.pub && echo yes || echo no)"
check "mayfly upstream test" 0 you upstream test hosts
says "signs" out "sign a certificate with scope deploy"
says "verifies" out "its CA signed it for $me"
says "sees it revoked" out "see it in the KRL that is served"

# 2. sshd.
check "the KRL" 0 fetch hosts/krl krl
check "ssh-keygen reads it" 0 ssh-keygen -Q -l -f krl
ssh-keygen -q -t ed25519 -N '' -f host_key
for ssh_port in $(shuf -n 20 -i 20000-32000); do
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$ssh_port") 2>/dev/null; then break; fi
done
install -d -m 755 /run/sshd 2>/dev/null || true
cat >sshd_config <<CONFIG
Port $ssh_port
ListenAddress 127.0.0.1
HostKey $work/host_key
PidFile $work/sshd.pid
TrustedUserCAKeys $work/ca.pub
RevokedKeys $work/krl
AuthorizedKeysFile none
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PermitRootLogin prohibit-password
LogLevel VERBOSE
CONFIG
check "sshd takes its configuration" 0 "$sshd" -t -f "$work/sshd_config"
"$sshd" -D -e -f "$work/sshd_config" 2>sshd.log &
sshd_pid=$!
trap 'kill "$sshd_pid" 2>/dev/null || true; end' EXIT
for _ in $(seq 50); do (exec 3<>"/dev/tcp/127.0.0.1/$ssh_port") 2>/dev/null && break; sleep 0.1; done
login() { # KEY COMMAND...
    local key=$1
    shift
    ssh -F none -p "$ssh_port" -i "$key" -o IdentitiesOnly=yes -o IdentityAgent=none -o StrictHostKeyChecking=no -o BatchMode=yes \
        -o UserKnownHostsFile="$work/known" -o ConnectTimeout=10 "$me@127.0.0.1" "$@"
}

# 3. A certificate for a key that there is.
ssh-keygen -q -t ed25519 -N '' -f id
check "a login without a certificate is refused" 255 login id true
check "mayfly get --ssh-key" 0 agent get hosts --scope shell --ssh-key id.pub --purpose "a look at the log" --to id-cert.pub
id=$(grep -oE 'cred_[a-z0-9]+' "$work/err" | first_line)
check "ssh-keygen -L" 0 ssh-keygen -L -f id-cert.pub
says "the principal is that of the scope" out "$me"
says "the key id is the credential" out "Key ID: \"$id\""
says "with a terminal" out "permit-pty"
silent "without forwarding" out "permit-port-forwarding"
silent "the serial is not 0" out "Serial: 0"
check "a login by certificate" 0 login id 'echo "in as $(id -un)"'
says "works" out "in as $me"
verdict "sshd names the credential" "$(found -F "ID $id" <sshd.log && echo yes || echo no)"
check "a scope with one command" 0 agent get hosts --scope deploy --new-key narrow --purpose "deploy"
check "runs that, whatever is asked" 0 login narrow 'echo anything'
says "and nothing else" out "deployed"
verdict "the key is the user's alone" "$([ "$(stat -c %a narrow)" = 600 ] && echo yes || stat -c %a narrow)"
check "two scopes with different rights" 2 agent get hosts=deploy,shell --ssh-key id.pub --purpose x --to bad
says "do not share a certificate" err "differ in force_command"
ssh-keygen -q -t rsa -b 3072 -N '' -f rsa
check "a type of key that the registration leaves out" 2 agent get hosts --scope shell --ssh-key rsa.pub --purpose x --to bad
says "is named" err "takes ed25519"
check "a private key is not sent" 2 agent get hosts --scope shell --ssh-key id --purpose x --to bad
says "and the file is named" err "this is a private key"
check "no key at all" 2 agent get hosts --scope shell --purpose x --to bad
sed -e 's/"hosts"/"elsewhere"/; s|hosts.shop|elsewhere.shop|g; s|"10.0.0.0/8", "127.0.0.0/8"|"192.0.2.0/24"|' hosts.toml >elsewhere.toml
check "a registration for another network" 0 you upstream add elsewhere.toml
for _ in $(seq 50); do you upstream ca elsewhere >/dev/null 2>&1 && break; sleep 0.1; done
check "a certificate for that network" 0 agent get elsewhere --scope deploy --new-key far --purpose "deploy"
check "is for hosts of another CA" 255 login far true

# 4. mayfly exec.
check "mayfly exec" 0 agent exec --upstream hosts=shell --purpose "a look at the log" -- sh -c \
    "ssh -F none -p $ssh_port -i \"\$HOSTS_SSH_KEY\" -o IdentitiesOnly=yes -o IdentityAgent=none -o StrictHostKeyChecking=no -o BatchMode=yes -o UserKnownHostsFile=$work/known $me@127.0.0.1 'echo in' && dirname \"\$HOSTS_SSH_KEY\""
says "logs in with a key of its own" out "in"
verdict "whose files are gone afterwards" "$([ ! -e "$(tail -n 1 "$work/out")" ] && echo yes || echo no)"

# 5. Idempotency.
check "mayfly get with a request id" 0 agent get hosts --scope shell --ssh-key id.pub --purpose x --task-ttl 20m --request-id again --to one
check "again" 0 agent get hosts --scope shell --ssh-key id.pub --purpose x --task-ttl 20m --request-id again --to two
says "is the same certificate" err "the same credential as the first time"
verdict "with the same serial" "$([ "$(ssh-keygen -L -f one | sed -n '/Serial\|Valid\|Key ID/p')" = "$(ssh-keygen -L -f two | sed -n '/Serial\|Valid\|Key ID/p')" ] && echo yes || echo no)"

# 6. Revoking.
version() { ssh-keygen -Q -l -f "$1" | sed -n 's/# KRL version //p'; }
before=$(version krl)
check "mayfly revoke" 0 you revoke --credential "$id" --reason "done"
listed
check "sshd accepts it until it has the new KRL" 0 login id true
check "the new KRL" 0 fetch hosts/krl krl
verdict "has a higher number" "$([ "$(version krl)" -gt "$before" ] && echo yes || echo "$(version krl) follows $before")"
check "ssh-keygen -Q finds it revoked" 1 ssh-keygen -Q -f krl id-cert.pub
says "by name" out "REVOKED"
check "a login is refused" 255 login id true
verdict "as revoked" "$(found -i "revoked" <sshd.log && echo yes || echo no)"
check "another certificate still works" 0 login narrow true
check "mayfly explain" 0 you explain "$id"
says "tells why it is refused" out "revoked"
check "mayfly credential show" 0 you credential show "$id"
says "tells the kind" out "ssh"

# 7. A restart, and the next CA.
last=$(version krl)
check "a server that is ended" 0 "$mayfly" dev down --dir "$world"
check "and begins again" 0 "$mayfly" dev up --dir "$world" --detach
check "its KRL" 0 fetch hosts/krl krl
verdict "has a higher number" "$([ "$(version krl)" -gt "$last" ] && echo yes || echo "$(version krl) follows $last")"
check "and what was revoked" 1 ssh-keygen -Q -f krl id-cert.pub
check "mayfly key rotate" 0 you key rotate --purpose ssh_ca --upstream hosts --publish-ahead 0s
check "both CAs are published" 0 fetch hosts/ssh_ca.pub ca.pub
verdict "both" "$([ "$(grep -c ecdsa ca.pub)" = 2 ] && echo yes || grep -c ecdsa ca.pub)"
check "a certificate of the new CA" 0 agent get hosts --scope shell --new-key second --purpose "a look at the log"
check "logs in" 0 login second true
check "one of the old CA, too" 0 login narrow true
kid=$(grep -vxF -f served.pub ca.pub | sed 's/.*://')
check "mayfly key compromise" 0 you key compromise "$kid" --reason "drill" --confirm all
listed
check "the KRL" 0 fetch hosts/krl krl
check "has the CA itself: its certificate is refused though the CA is still trusted" 255 login second true
check "one of the other CA is not" 0 login narrow true
ended ssh
