#!/usr/bin/env bash
# deploy/systemd/mayfly.service: that systemd takes it, and that a server lives within it: each system call of a start, of issuing, revoking,
# a backup and a stop is one that the unit lets through, nothing is mapped that is written and run, and no other family of sockets is asked for.
#
#   tests/operators/unit.sh MAYFLY
source "$(dirname "$0")/../typed.sh"
unit=$(cd "$(dirname "$0")/../.." && pwd)/deploy/systemd/mayfly.service

sed "s#/usr/local/bin/mayfly#$mayfly#" "$unit" >"$work/mayfly.service"
check "systemd understands it" 0 systemd-analyze verify --man=no "$work/mayfly.service"
silent "and has nothing to say of it" err "mayfly.service"

# What the filter lets through: its lines in their order, each a list of calls and groups, `~` before those that are taken away.
calls_of() {
    local word
    for word in "$@"; do
        case $word in
            @*) systemd-analyze syscall-filter "$word" | sed -n 's/^ \+//p' | grep -v '^#' | while read -r inner; do calls_of "$inner"; done ;;
            *) echo "$word" ;;
        esac
    done
}
: >"$work/allowed"
while read -r line; do
    case $line in
        '~'*) calls_of ${line#'~'} | sort -u >"$work/taken" && comm -23 "$work/allowed" "$work/taken" >"$work/left" && mv "$work/left" "$work/allowed" ;;
        *) calls_of $line | sort -u - "$work/allowed" -o "$work/allowed" ;;
    esac
done < <(sed -n 's/^SystemCallFilter=//p' "$unit")
verdict "the filter lets some through and not all" \
    "$([ "$(wc -l <"$work/allowed")" -gt 200 ] && grep -qx openat "$work/allowed" && ! grep -qx ptrace "$work/allowed" && echo yes || echo no)"

check "a world" 0 up
check "whose server is started another way" 0 "$mayfly" dev down --dir "$world"
me() { "$mayfly" --config "$world/operator-you.toml" "$@"; }
agent() { "$mayfly" --config "$world/agent-demo.toml" "$@"; }
if ! strace -f -o "$work/none" true 2>/dev/null; then
    skipped "the server's system calls: strace may not trace here"
    ended unit
    exit
fi
strace -f -qq -o "$work/trace" "$mayfly" server run --config "$world/mayfly.toml" --log json >"$work/log" 2>&1 &
tracer=$!
trap 'pkill -P "$tracer" 2>/dev/null || true; end' EXIT
for _ in $(seq 300); do "$mayfly" server healthcheck --config "$world/mayfly.toml" >/dev/null 2>&1 && break || sleep 0.2; done
check "it serves" 0 "$mayfly" server healthcheck --config "$world/mayfly.toml"
check "issues" 0 agent get echo --purpose unit --scope echo:read
cp "$work/out" "$work/token"
check "revokes" 0 bash -c '"$1" --config "$2" revoke --token - --reason unit <"$3"' - "$mayfly" "$world/operator-you.toml" "$work/token"
check "is backed up" 0 me server backup --to "$work/backup"
check "tells how it is" 0 me status
pkill -TERM -P "$tracer" || true
code=0
wait "$tracer" || code=$?
verdict "and stops in good order" "$([ $code = 0 ] && echo yes || echo "exit code $code")"

sed -nE 's/^[0-9]+ +([a-z0-9_]+)\(.*/\1/p' "$work/trace" | sort -u >"$work/used"
comm -13 "$work/allowed" "$work/used" >"$work/out"
: >"$work/err"
verdict "each call is let through" "$([ -s "$work/out" ] && echo "$(tr '\n' ' ' <"$work/out")" || echo yes)"
verdict "$(wc -l <"$work/used") calls were seen" "$([ "$(wc -l <"$work/used")" -gt 40 ] && echo yes || echo no)"
grep -E '^[0-9]+ +(mmap|mprotect|pkey_mprotect|shmat)\(' "$work/trace" | grep -E 'PROT_WRITE\|PROT_EXEC|PROT_EXEC\|PROT_WRITE|SHM_EXEC' >"$work/out" || true
verdict "nothing is written and run (MemoryDenyWriteExecute=)" "$([ -s "$work/out" ] && echo no || echo yes)"
families=$(sed -n 's/^RestrictAddressFamilies=//p' "$unit" | tr ' ' '|')
grep -E '^[0-9]+ +socket(pair)?\(AF_' "$work/trace" | grep -vE "\((${families}|AF_LOCAL)," >"$work/out" || true
verdict "no other family of sockets is asked for" "$([ -s "$work/out" ] && echo no || echo yes)"
grep -E '^[0-9]+ +(open|openat|creat|mkdir|mkdirat|rename[a-z0-9]*|unlink|unlinkat)\(' "$work/trace" | grep -E 'O_WRONLY|O_RDWR|O_CREAT|mkdir|rename|unlink' |
    grep -v ENOENT | grep -oE '"/[^"]*"' | tr -d '"' | grep -vE "^($world/|$world$|/dev/(null|tty|urandom)|/proc/self/)" | sort -u >"$work/out" || true
verdict "nothing is written but below what is its own" "$([ -s "$work/out" ] && echo "$(head -5 "$work/out" | tr '\n' ' ')" || echo yes)"
ended unit
