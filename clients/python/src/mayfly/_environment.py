"""What gRPC reads from the environment when it begins. Imported before it."""

from __future__ import annotations

import os

# With its own handlers gRPC starts its threads again in a process that was forked off, and now and then ends that by a signal,
# whether the process touches gRPC or not. Without them nothing of gRPC runs there, and `_fork` says so to whoever calls.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
