#!/usr/bin/env bash
# deploy/kubernetes as a kubelet would run it, without a cluster: volumes with the modes that a kubelet gives them (an emptyDir is 0777, a volume has
# the group of fsGroup, a Secret has its defaultMode), the user and group of the securityContext, no capabilities, a read-only root, the probes
# as the manifest has them, and SIGTERM with its grace period. The SVID and the bundle come from a Secret in the place of the SPIRE agent's
# socket, as statefulset.yaml describes.
#
#   tests/operators/pod.sh MAYFLY
if [ -z "${OWN_MOUNTS:-}" ] && [ "$(id -u)" = 0 ] && unshare --mount --propagation private true 2>/dev/null; then
    OWN_MOUNTS=yes exec unshare --mount --propagation private "$0" "$@"
fi
here=$(cd "$(dirname "$0")/../.." && pwd)/deploy/kubernetes
source "$(dirname "$0")/../typed.sh"
if [ -z "${OWN_MOUNTS:-}" ]; then
    skipped "a pod's files and user: a root of its own takes root and unshare(1)"
    echo "pod: 0 passed, 0 failed, 1 skipped"
    exit
fi
set_of() { sed -nE "s/^ *$1: *([^ #]+).*/\1/p" "$here/statefulset.yaml" | first_line; }
user=$(set_of runAsUser) group=$(set_of fsGroup) grace=$(set_of terminationGracePeriodSeconds)
probe=$(sed -nE 's/.*httpGet: \{ scheme: HTTPS, port: https, path: ([^ ]+) \}.*/\1/p' "$here/statefulset.yaml")
verdict "the manifest names user, group, grace period and probe" "$([ -n "$user$group$grace" ] && [ -n "$probe" ] && echo yes || echo "user $user, group $group, grace $grace, probe $probe")"

check "a world, for its SVIDs" 0 up
check "whose own server ends" 0 "$mayfly" dev down --dir "$world"
root=$work/root
mkdir "$root" && mount -t tmpfs -o mode=755 none "$root"
trap 'umount -R "$root" 2>/dev/null || true; end' EXIT
install -D -m 755 "$mayfly" "$root/usr/local/bin/mayfly"
ldd "$mayfly" | grep -oE '/[^ )]+' | while read -r library; do install -D -m 755 "$library" "$root$library"; done
mkdir -p "$root"/{dev,proc,etc/mayfly,etc/mayfly-policy,etc/mayfly-upstreams,run/seal,run/metrics,run/svid,run/mayfly,var/lib/mayfly}
# ConfigMaps: root's, 0644.
install -m 644 "$here/policy/policy.cedar" "$here/policy/roles.toml" "$root/etc/mayfly-policy/"
install -m 644 "$here"/policy/upstreams/*.toml "$root/etc/mayfly-upstreams/"
first=$(shuf -n 1 -i 20000-32000)
domain=dev.mayfly.internal
# The configuration of the manifest, with the world's trust domain, free ports, and files in the place of the agent.
sed -e "s/:7443/:$first/; s/:7444/:$((first + 1))/; s/:7445/:$((first + 2))/; s/:9464/:$((first + 3))/" -e "s/example\.org\"/$domain\"/" \
    -e 's#^\[workload_api\]#[tls]#; s#^socket = .*#certificate = "/run/svid/svid.pem"\nkey = "/run/svid/key.pem"#' \
    -e "s#^\(trust_domain = \"$domain\"\)#\1#" -e '/^\[\[bundles\]\]/,/^$/ s#^trust_domain = .*#trust_domain = "'$domain'"\nfile = "/run/svid/bundle.pem"#' \
    "$here/mayfly.toml" >"$root/etc/mayfly/mayfly.toml"
chmod 644 "$root/etc/mayfly/mayfly.toml"
sed -i "s#spiffe://example.org#spiffe://$domain#g" "$root/etc/mayfly-policy/roles.toml" "$root"/etc/mayfly-upstreams/*.toml
# Secrets: root's, of the group of fsGroup, 0440.
install -m 440 -g "$group" "$world/seal.key" "$root/run/seal/seal.key"
token=$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')
printf %s "$token" >"$work/token"
install -m 440 -g "$group" "$work/token" "$root/run/metrics/token"
install -m 440 -g "$group" "$world/svid/mayfly/svid.pem" "$world/svid/mayfly/key.pem" "$world/bundle.pem" "$root/run/svid/"
for device in null urandom; do : >"$root/dev/$device" && mount --bind "/dev/$device" "$root/dev/$device"; done
mount --bind /proc "$root/proc"
# An emptyDir, and a volume with fsGroup: root's, with the group's bit set on directories.
mount -t tmpfs -o "mode=2777,uid=0,gid=$group,size=1m" none "$root/run/mayfly"
mount -t tmpfs -o "mode=2775,uid=0,gid=$group" none "$root/var/lib/mayfly"
mount -o remount,ro "$root"
args=$(sed -nE 's/^ *args: \[(.*)\]$/\1/p' "$here/statefulset.yaml" | tr -d '",')
chroot=$(PATH=$PATH:/usr/sbin:/sbin command -v chroot)
# Words on purpose.
# shellcheck disable=SC2086
env -i CREDENTIALS_DIRECTORY=/run/seal "$chroot" --userspec="$user:$group" --groups= "$root" /usr/local/bin/mayfly $args >"$work/log" 2>&1 &
server=$!
trap 'kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; umount -R "$root" 2>/dev/null || true; end' EXIT
probed() { curl --silent --insecure --max-time 5 --fail "https://127.0.0.1:$((first + 2))$probe"; }
for _ in $(seq 150); do probed >/dev/null 2>&1 && break || sleep 0.2; done
check "the probe of the manifest finds the server ready" 0 probed
cp "$work/log" "$work/err"
# The test scrapes as Prometheus does: it verifies the certificate by the pod's own trust domain, and sends the token of the Secret.
scraped() { curl --silent --cacert "$world/bundle.pem" --resolve "localhost:$((first + 3)):127.0.0.1" --max-time 5 --fail "$@" "https://localhost:$((first + 3))/metrics"; }
verdict "a scraper with the token of the Secret reads the metrics over HTTPS" "$(scraped --header "Authorization: Bearer $token" | found '^mayfly_issuing 1' && echo yes || echo no)"
verdict "a scraper without it reads nothing" "$(scraped >/dev/null 2>&1 && echo "it was answered" || echo yes)"
verdict "it runs as the user of the manifest without capabilities" "$(grep -q '^CapEff:[[:space:]]*0*$' "/proc/$server/status" && grep -q "^Uid:[[:space:]]*$user" "/proc/$server/status" && echo yes || echo no)"
verdict "the operators' socket lies in a directory that only the server may enter" "$([ "$(stat -c %a "$root/run/mayfly/admin")" = 2700 ] && [ -S "$root/run/mayfly/admin/admin.sock" ] && echo yes || echo no)"
verdict "all that it keeps is in its volume" "$([ -e "$root/var/lib/mayfly/data/ledger.redb" ] && echo yes || echo no)"
from=$(date +%s) code=0
kill -TERM "$server"
wait "$server" || code=$?
verdict "SIGTERM ends it in good order within the grace period" "$([ $code = 0 ] && [ $(($(date +%s) - from)) -lt "$grace" ] && echo yes || echo "exit code $code")"
ended pod
