"""gRPC for Python does not survive a fork: its threads are gone in the child, its locks and sockets are not, and the next call
ends the process by a signal. So the use of it is noted, and a process that was forked off after that is told so instead."""

from __future__ import annotations

import os

from .errors import Closed

# The process that has used gRPC by this package.
_used_by: int | None = None


def is_copy() -> bool:
    """This process was forked off one that had used gRPC."""
    return _used_by is not None and _used_by != os.getpid()


def begin() -> None:
    """Before gRPC is touched.

    Raises:
        Closed: it cannot be used in this process.
    """
    global _used_by  # noqa: PLW0603
    if is_copy():
        raise Closed(
            f"process {os.getpid()} was forked off process {_used_by} after that had used a client of mayfly, and gRPC for "
            "Python does not work in such a process; right would be to use the first client after the fork, or to start "
            "processes by 'spawn' (multiprocessing.set_start_method)"
        )
    _used_by = os.getpid()
