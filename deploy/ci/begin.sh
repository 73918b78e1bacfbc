# shellcheck shell=sh
# Source this script at the beginning of a job: the job attests and opens a task. The task ends with `end.sh`, or when the runner sent no
# heartbeat for two minutes.
#
# It needs MAYFLY_ADDRESS, MAYFLY_PUBLIC, MAYFLY_SERVER_ID and MAYFLY_BUNDLE (a file), and
#   MAYFLY_PURPOSE     the purpose of the job
#   MAYFLY_UPSTREAMS   the upstreams and scopes that it needs: "github=repo:read,repo:write registry=push"
# Optional are MAYFLY_CI_ISSUER, MAYFLY_CI_RULE, MAYFLY_TASK_TTL (1h), MAYFLY_HEARTBEAT (2m), MAYFLY_CI_DIR (the directory of its files), and
# MAYFLY_CI_BESIDE: the process that does the work, if it is not the shell that sources this script. Heartbeats end when that process does.
# The script sets MAYFLY_CONFIG and MAYFLY_TASK: from then on `mayfly get UPSTREAM --to FILE` works.

mayfly_begin() {
    if [ -z "${MAYFLY_PURPOSE:-}" ] || [ -z "${MAYFLY_UPSTREAMS:-}" ]; then
        echo "mayfly: MAYFLY_PURPOSE and MAYFLY_UPSTREAMS say what this job is for and what it needs" >&2
        return 2
    fi
    MAYFLY_CI_DIR=${MAYFLY_CI_DIR:-$(mktemp -d "${TMPDIR:-/tmp}/mayfly-XXXXXXXX")} || return
    mkdir -p "$MAYFLY_CI_DIR" && chmod 700 "$MAYFLY_CI_DIR" || return
    MAYFLY_CONFIG=$MAYFLY_CI_DIR/config.toml
    : >"$MAYFLY_CONFIG" || return
    unset MAYFLY_TASK
    export MAYFLY_CI_DIR MAYFLY_CONFIG
    mayfly ci login -o name ${MAYFLY_CI_ISSUER:+--issuer "$MAYFLY_CI_ISSUER"} ${MAYFLY_CI_RULE:+--rule "$MAYFLY_CI_RULE"} >&2 || return
    # The platform's token from the environment has been used, and cannot be used again.
    unset MAYFLY_ID_TOKEN
    set --
    for upstream in $MAYFLY_UPSTREAMS; do set -- "$@" --upstream "$upstream"; done
    MAYFLY_TASK=$(mayfly task open -o name --purpose "$MAYFLY_PURPOSE" --ttl "${MAYFLY_TASK_TTL:-1h}" --heartbeat "${MAYFLY_HEARTBEAT:-2m}" "$@") || return
    export MAYFLY_TASK
    # end.sh may run in another shell.
    echo "$MAYFLY_TASK" >"$MAYFLY_CI_DIR/task"
    nohup mayfly ci heartbeat "$MAYFLY_TASK" --while "${MAYFLY_CI_BESIDE:-$$}" ${MAYFLY_CI_ISSUER:+--issuer "$MAYFLY_CI_ISSUER"} ${MAYFLY_CI_RULE:+--rule "$MAYFLY_CI_RULE"} >/dev/null 2>&1 </dev/null &
    echo $! >"$MAYFLY_CI_DIR/beats"
    echo "mayfly: task $MAYFLY_TASK" >&2
}

mayfly_begin
