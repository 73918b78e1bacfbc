#!/usr/bin/env bash
# deploy/container/Containerfile without a container engine: that its build stage has all that the build asks for, and that a server lives in
# what the image holds: no shell, no other file than the libraries of distroless/cc, a root that is read-only, a user who is not root and has
# no capabilities.
#
#   tests/operators/container.sh MAYFLY
if [ -z "${OWN_MOUNTS:-}" ] && [ "$(id -u)" = 0 ] && unshare --mount --propagation private true 2>/dev/null; then
    OWN_MOUNTS=yes exec unshare --mount --propagation private "$0" "$@"
fi
here=$(cd "$(dirname "$0")/../.." && pwd)
cargo_home=${CARGO_HOME:-$HOME/.cargo} rustup_home=${RUSTUP_HOME:-$HOME/.rustup}
source "$(dirname "$0")/../typed.sh"
export CARGO_HOME=$cargo_home RUSTUP_HOME=$rustup_home
containerfile=$here/deploy/container/Containerfile

# ---- the build stage

mkdir "$work/src"
awk '/^FROM /{ stage++ } stage == 1 && /^COPY /{ print }' "$containerfile" | while read -r _ words; do
    for from in $words; do to=$from; done
    for from in $words; do
        [ "$from" != "$to" ] || continue
        case $to in
            ./) cp "$here/$from" "$work/src/" ;;
            *) mkdir -p "$work/src/$(dirname "$to")" && cp -r "$here/$from" "$work/src/$to" ;;
        esac
    done
    # `COPY proto proto` names one twice.
    [ "${words%% *}" != "$to" ] || { mkdir -p "$work/src/$(dirname "$to")" && cp -r "$here/$to" "$work/src/$to"; }
done
# Without those that it leaves out, as an engine does. Those of other platforms are on no machine that builds for this one.
platform=$(rustc -vV | sed -n 's/^host: //p')
in_stage() { (cd "$work/src" && cargo metadata --locked --offline --filter-platform "$platform" --format-version 1 >/dev/null); }
check "the build stage has every crate of the workspace, as Cargo.lock has them" 0 in_stage
missing=
while IFS=: read -r file path; do
    [ -e "$(dirname "$file")/$path" ] || missing="$missing $file:$path"
done < <(cd "$work/src" && grep -rHoE 'include_(str|bytes)!\("[^"]+"' src clients | grep -vE '(^|[/_])tests(\.rs|/)' | sed -E 's/include_(str|bytes)!\("//; s/"$//' | sed "s#^#$work/src/#")
verdict "and every file that is built in" "$([ -z "$missing" ] && echo yes || echo "missing:$missing")"

# ---- what the image holds

if [ -z "${OWN_MOUNTS:-}" ]; then
    skipped "a server in the image's files: a root of its own takes root and unshare(1)"
    ended container
    exit
fi
check "a world" 0 up
check "whose server runs elsewhere" 0 "$mayfly" dev down --dir "$world"
root=$work/root
mkdir "$root" && mount -t tmpfs -o mode=755 none "$root"
trap 'umount -R "$root" 2>/dev/null || true; end' EXIT
install -D -m 755 "$mayfly" "$root/usr/local/bin/mayfly"
# distroless/cc: the C library, libgcc and the loader; accounts; certificates; a few folders.
ldd "$mayfly" | grep -oE '/[^ )]+' | while read -r library; do install -D -m 755 "$library" "$root$library"; done
outside=$(cd "$root" && find . -name '*.so*' | grep -vE '/(ld-linux[a-z0-9-]*|libc|libm|libgcc_s|libdl|librt|libpthread)\.so' || true)
verdict "it needs no library that the image has not" "$([ -z "$outside" ] && echo yes || echo "$outside")"
mkdir -p "$root"/{dev,proc,tmp,etc/mayfly,var/lib/mayfly,run/secrets/mayfly}
printf 'root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n' >"$root/etc/passwd"
cp -r "$world"/{mayfly.toml,bundle.pem,svid,policy} "$root/etc/mayfly/"
cp "$world/seal.key" "$root/run/secrets/mayfly/"
sed -i -e 's#^path = .*#path = "/var/lib/mayfly/data"#' -e 's#^key_file = .*#key_file = "/run/secrets/mayfly/seal.key"#' \
    -e 's#^admin_socket = .*#admin_socket = "/var/lib/mayfly/admin.sock"#' "$root/etc/mayfly/mayfly.toml"
chown -R 65532:65532 "$root/etc/mayfly" "$root/run/secrets/mayfly"
for device in null urandom; do : >"$root/dev/$device" && mount --bind "/dev/$device" "$root/dev/$device"; done
mount --bind /proc "$root/proc"
mount -t tmpfs -o mode=700,uid=65532,gid=65532 none "$root/var/lib/mayfly"
mount -o remount,ro "$root"
# The words of the image's own last lines.
entry=$(sed -n 's/^ENTRYPOINT \[\(.*\)\]$/\1/p' "$containerfile" | tr -d '",')
words=$(sed -n 's/^CMD \[\(.*\)\]$/\1/p' "$containerfile" | tr -d '",')
health=$(sed -n 's/^HEALTHCHECK .*CMD \[\(.*\)\]$/\1/p' "$containerfile" | tr -d '",')
chroot=$(PATH=$PATH:/usr/sbin:/sbin command -v chroot)
inside() { env -i "$chroot" --userspec=65532:65532 --groups= "$root" "$@"; }
check "there is no shell" 127 inside /bin/sh -c true
# By itself, not as a function, so that its number is the server's.
env -i "$chroot" --userspec=65532:65532 --groups= "$root" $entry $words >"$work/log" 2>&1 &
server=$!
trap 'kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; umount -R "$root" 2>/dev/null || true; end' EXIT
for _ in $(seq 150); do inside $health >/dev/null 2>&1 && break || sleep 0.2; done
check "the image's health check" 0 inside $health
cp "$work/log" "$work/err"
verdict "it is nobody who may do anything" "$(grep -q '^CapEff:[[:space:]]*0*$' "/proc/$server/status" && grep -q '^Uid:[[:space:]]*65532' "/proc/$server/status" && echo yes || echo no)"
check "a workload is served" 0 "$mayfly" --config "$world/agent-demo.toml" whoami
verdict "all that it wrote is in its volume" "$(mount | found " $root type tmpfs (ro" && [ -e "$root/var/lib/mayfly/data/ledger.redb" ] && echo yes || echo no)"
kill -TERM "$server"
code=0
wait "$server" || code=$?
verdict "it stops in good order" "$([ $code = 0 ] && echo yes || echo "exit code $code")"
ended container
