# shellcheck shell=sh
# To be sourced at a job's beginning: the job attests and opens a task, which ends with `end.sh`, or when the runner was silent for two minutes.
#
# It needs MAYFLY_ADDRESS, MAYFLY_PUBLIC, MAYFLY_SERVER_ID and MAYFLY_BUNDLE (a file), and
#   MAYFLY_PURPOSE     what it is for
#   MAYFLY_UPSTREAMS   what it needs: "github=repo:read,repo:write registry=push"
# It may have MAYFLY_CI_ISSUER, MAYFLY_CI_RULE, MAYFLY_TASK_TTL (1h), MAYFLY_HEARTBEAT (2m), MAYFLY_CI_DIR (where its files lie), and
# MAYFLY_CI_BESIDE: the process that does the work, where that is not the shell that this is sourced in. Heartbeats end when it does.
# It sets MAYFLY_CONFIG and MAYFLY_TASK: from then on `mayfly get UPSTREAM --to FILE` works.

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
    # The token that the platform put into the environment was used once, and is of no more use.
    unset MAYFLY_ID_TOKEN
    set --
    for upstream in $MAYFLY_UPSTREAMS; do set -- "$@" --upstream "$upstream"; done
    MAYFLY_TASK=$(mayfly task open -o name --purpose "$MAYFLY_PURPOSE" --ttl "${MAYFLY_TASK_TTL:-1h}" --heartbeat "${MAYFLY_HEARTBEAT:-2m}" "$@") || return
    export MAYFLY_TASK
    # For an end in another shell.
    echo "$MAYFLY_TASK" >"$MAYFLY_CI_DIR/task"
    nohup mayfly ci heartbeat "$MAYFLY_TASK" --while "${MAYFLY_CI_BESIDE:-$$}" ${MAYFLY_CI_ISSUER:+--issuer "$MAYFLY_CI_ISSUER"} ${MAYFLY_CI_RULE:+--rule "$MAYFLY_CI_RULE"} >/dev/null 2>&1 </dev/null &
    echo $! >"$MAYFLY_CI_DIR/beats"
    echo "mayfly: task $MAYFLY_TASK" >&2
}

mayfly_begin
