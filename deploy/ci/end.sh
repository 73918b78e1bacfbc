#!/bin/sh
# At a job's end, however it ended: the task ends with all that was issued in it, the SVID is given back, its key is deleted.
# It needs MAYFLY_CI_DIR as begin.sh had it, and the server's settings.
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
