#!/bin/sh
# Run this script at the end of a job, whether it succeeded or failed: it completes the task, which ends everything that was issued in it, gives
# the SVID back, and deletes its key. It needs the same MAYFLY_CI_DIR as begin.sh, and the server's settings.
set -u
dir=${MAYFLY_CI_DIR:-}
if [ -z "$dir" ] || [ ! -f "$dir/config.toml" ]; then exit 0; fi
export MAYFLY_CONFIG="$dir/config.toml"
failed=0
if [ -s "$dir/beats" ]; then kill "$(cat "$dir/beats")" 2>/dev/null || :; fi
if [ -s "$dir/task" ]; then mayfly task complete "$(cat "$dir/task")" >/dev/null || failed=1; fi
mayfly logout || failed=1
rm -rf "$dir/config.login" "$dir/config.toml" "$dir/task" "$dir/beats"
rmdir "$dir" 2>/dev/null || :
exit $failed
