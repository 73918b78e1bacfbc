"""Sets environment variables that gRPC reads when it is imported. Must be imported before gRPC."""

from __future__ import annotations

import os

# With its own fork handlers gRPC starts its threads again in a forked process, and now and then kills that process with
# a signal, whether the process uses gRPC or not. Without them nothing of gRPC runs there, and `_fork` raises an error
# for callers.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
