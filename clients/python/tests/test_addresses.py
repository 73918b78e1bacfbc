"""A server of two addresses, the first of which is silent."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest

import mayfly as m
from mayfly import Mayfly, _probe


@contextlib.contextmanager
def mute(address, port):
    """A listener that accepts and says nothing."""
    with socket.create_server((address, port)) as listener:
        kept = []

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    kept.append(listener.accept()[0])

        threading.Thread(target=accept, daemon=True).start()
        yield
        for one in kept:
            one.close()


@pytest.fixture
def two_addresses(world, monkeypatch):
    """The server's name has two addresses: a mute one, then its own."""
    host, port = world.address.rsplit(":", 1)
    first = ("127.0.0.2", int(port))
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", first), (socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, int(port)))]
    monkeypatch.setattr(_probe.socket, "getaddrinfo", lambda *_, **__: found)
    with mute(*first):
        yield


async def test_the_next_one_is_tried_within_a_bounded_time(world, tmp_path, two_addresses):
    env = world.svid("agent/demo", at=tmp_path)
    began = time.monotonic()
    async with Mayfly.from_env(env) as mayfly:
        async with mayfly.credential("echo", scope="echo:read", purpose="p") as cred:
            assert cred.token
    assert time.monotonic() - began < 5


async def test_the_only_one_that_is_mute_is_said_so(world, tmp_path):
    env = world.svid("agent/demo", at=tmp_path)
    port = int(env["MAYFLY_ADDRESS"].rsplit(":", 1)[1])
    with mute("127.0.0.3", port):
        async with Mayfly.from_env(env | {"MAYFLY_ADDRESS": f"127.0.0.3:{port}"}, timeout=7) as mayfly:
            with pytest.raises(m.Unavailable, match="timed out|no answer"):
                async with mayfly.credential("echo", scope="echo:read", purpose="p"):
                    pass
