"""Detects forks. gRPC for Python does not survive a fork: its threads do not exist in the child, but its locks and
sockets do, and the next call kills the process with a signal. This module records the use of gRPC, so that a process
forked afterwards gets an error instead."""

from __future__ import annotations

import os

from .errors import Closed

# The process that used gRPC through this package.
_used_by: int | None = None


def is_copy() -> bool:
    """Whether this process was forked from one that had used gRPC."""
    return _used_by is not None and _used_by != os.getpid()


def begin() -> None:
    """To be called before gRPC is used.

    Raises:
        Closed: gRPC cannot be used in this process.
    """
    global _used_by  # noqa: PLW0603
    if is_copy():
        raise Closed(
            f"process {os.getpid()} was forked off process {_used_by} after that had used a client of mayfly, and gRPC for "
            "Python does not work in such a process; right would be to use the first client after the fork, or to start "
            "processes by 'spawn' (multiprocessing.set_start_method)"
        )
    _used_by = os.getpid()
