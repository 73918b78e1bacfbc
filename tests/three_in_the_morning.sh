#!/usr/bin/env bash
# docs/three-in-the-morning.md: every command of the page, as it stands there, against a real server that has the trouble.
#
#   tests/three_in_the_morning.sh MAYFLY
#
# Each section's blocks are taken out of the page and run in order by one shell. Before it the trouble is made, and afterwards it is looked
# whether it is over. The disk is a small one of its own, which takes root and a mount namespace; where that cannot be had it is said.
if [ -z "${OWN_MOUNTS:-}" ] && [ "$(id -u)" = 0 ] && unshare --mount --propagation private true 2>/dev/null; then
    OWN_MOUNTS=yes exec unshare --mount --propagation private "$0" "$@"
fi
source "$(dirname "$0")/typed.sh"
binary=$mayfly
page=$(cd "$(dirname "$0")/.." && pwd)/docs/three-in-the-morning.md

# ---- a host with a server on it

running() { [ -s "$work/pid" ] && kill -0 "$(cat "$work/pid")" 2>/dev/null; }
systemctl() {
    case $1 in
        stop)
            ! running || kill -TERM "$(cat "$work/pid")"
            while running; do sleep 0.1; done
            ;;
        start)
            ! running || return 0
            # Short, since a server that was here before has `--wait` wait for so long.
            MAYFLY_FEED_MAX_AGE=5s "$binary" server run --config "$CONFIG" --log text >>"$work/log" 2>&1 &
            echo $! >"$work/pid"
            for _ in $(seq 150); do
                "$binary" server healthcheck --config "$CONFIG" >/dev/null 2>&1 && return
                running || return 1
                sleep 0.2
            done
            return 1
            ;;
    esac
}
mayfly() { "$binary" --config "$world/operator-you.toml" "$@"; }
agent() { "$binary" --config "$world/agent-demo.toml" "$@"; }
credential() { agent get echo --purpose "work" --scope echo:read; }
good() { mayfly -o json token lookup <"$1" | found '"state": "active"'; }
# The server knows it and refuses it, does not know it, or says that it is from before this generation.
refused() {
    local code=0
    mayfly -o json token lookup <"$1" >"$work/looked" 2>&1 || code=$?
    case $code in
        0) ! grep -q '"state": "active"' "$work/looked" ;;
        3) true ;;
        8) grep -q '"reason":"COMPACTED"' "$work/looked" ;;
        *) false ;;
    esac
}

up >/dev/null 2>&1
"$binary" dev down --dir "$world" >/dev/null 2>&1
export CONFIG=$world/mayfly.toml DATA=$world/data KEY=$world/seal.key KEY_COPY=$work/seal.copy BACKUP=$work/backup
export BUNDLE=$world/bundle.pem DOMAIN=dev.mayfly.internal WORKLOAD=spiffe://dev.mayfly.internal/agent/demo
export ELSEWHERE=$work/elsewhere OTHERS=
cp -p "$KEY" "$KEY_COPY"
cd "$work"
leave() {
    systemctl stop
    umount "$work/disk" 2>/dev/null || true
    end
}
trap leave EXIT

# ---- the page

# blocks HEADING: the commands under it; without a heading, those before the first.
blocks() {
    awk -v want="## $1" '
        /^## / { in_section = ($0 == want) }
        NR == 1 && want == "## " { in_section = 1 }
        /^```sh$/ { block = in_section; next }
        /^```$/ { if (block) print ""; block = 0; next }
        block { print }
    ' "$page"
}

told=()
# typed HEADING: types them.
typed() {
    local text code=0
    text=$(blocks "$1")
    told+=("$1")
    if [ -z "$text" ]; then
        verdict "$1" "no commands under that heading"
        return
    fi
    set +e
    (
        set -e
        eval "$text"
    ) >"$work/out" 2>"$work/err" </dev/null
    code=$?
    set -e
    verdict "$1: each command as it stands there" "$([ $code = 0 ] && echo yes || echo "exit code $code")"
}
# is WHAT COMMAND...: it holds.
is() {
    local what=$1
    shift
    verdict "$what" "$("$@" >"$work/out" 2>"$work/err" && echo yes || echo no)"
}
isnt() { is "$1" not "${@:2}"; }
not() { ! "$@"; }

systemctl start
is "a backup is taken" mayfly server backup --to "$BACKUP"
typed ""
typed "Not sure what it is"

credential >found 2>/dev/null
is "the token is good" good found
typed "A leaked token"
is "it is not any more" refused found

credential >token 2>/dev/null
cp "$world/svid/agent/demo/svid.pem" leaked.pem
typed "A leaked SVID"
is "what it was given is refused" refused token
isnt "the old SVID gets nothing" credential
"$binary" dev up --dir "$world" --detach >/dev/null 2>&1 || true
is "another SVID of the workload does" credential

credential >token 2>/dev/null
typed "A leaked signing key"
is "what it signed is refused" refused token
is "another key signs" credential

if [ -n "${OWN_MOUNTS:-}" ]; then
    systemctl stop
    mkdir "$work/disk"
    mount -t tmpfs -o size=260M none "$work/disk"
    mv "$DATA" "$work/disk/data"
    cp "$CONFIG" "$work/before.toml"
    sed -i "s|^path = .*|path = \"$work/disk/data\"|" "$CONFIG"
    systemctl start
    credential >token 2>/dev/null
    OTHERS=$work/disk/somebody-elses
    dd if=/dev/zero of="$OTHERS" bs=1M 2>/dev/null || true
    for _ in $(seq 100); do credential >/dev/null 2>&1 || break; done
    isnt "nothing is issued on a full disk" credential
    is "revoking works on a full disk" mayfly revoke --token - --reason "test" <token
    full=$DATA DATA=$work/disk/data
    typed "A full disk"
    DATA=$full
    for _ in $(seq 50); do credential >/dev/null 2>&1 && break || sleep 0.2; done
    is "it issues again by itself" credential
    systemctl stop
    mv "$work/disk/data" "$DATA"
    cp "$work/before.toml" "$CONFIG"
    systemctl start
else
    told+=("A full disk")
    skipped "A full disk: a small disk of its own takes root and unshare(1)"
fi

credential >token 2>/dev/null
# A backup never takes the place of another one.
BACKUP=$work/backup-2
is "another backup is taken" mayfly server backup --to "$BACKUP"
rm "$KEY"
typed "A lost sealing key"
is "what was issued before is unknown" refused token
is "it issues" credential
cp "$KEY" "$KEY_COPY"

BACKUP=$work/backup-3
is "a backup of the new store" mayfly server backup --to "$BACKUP"
credential >token 2>/dev/null
is "it is good until the disk is lost" good token
systemctl stop
# The disk gives back something else.
head -c 200000 /dev/urandom | dd of="$DATA/ledger.redb" conv=notrunc 2>/dev/null
isnt "it does not start" systemctl start
typed "A restore"
is "what was issued after the backup is refused" refused token
is "it issues" credential

# Nothing of the page is passed over.
for heading in $(grep -n '^## ' "$page" | cut -d: -f1); do
    name=$(sed -n "${heading}s/^## //p" "$page")
    verdict "$name was typed" "$(printf '%s\n' "${told[@]}" | found -xF "$name" && echo yes || echo no)"
done
ended "three in the morning"
