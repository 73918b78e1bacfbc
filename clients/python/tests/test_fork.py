"""gRPC for Python does not survive a fork: a child says so, and does not die of it."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

PROLOGUE = """
import asyncio, os, sys
from mayfly import Closed, Mayfly

async def use(mayfly):
    async with mayfly.credential("echo", scope="echo:read", purpose="fork") as cred:
        return cred.credential_id

def child(work):
    inside = asyncio._get_running_loop() is not None
    pid = os.fork()
    if pid == 0:
        try:
            print(work(), flush=True)
        except Closed as no:
            print("closed:", no, flush=True)
        sys.stdout.flush()
        # In the middle of a loop's work, as multiprocessing ends its children; else as a script ends.
        os._exit(0) if inside else sys.exit(0)
    _, status = os.waitpid(pid, 0)
    print("ended with", os.waitstatus_to_exitcode(status), flush=True)

def anew():
    async def one():
        async with Mayfly.from_env() as mayfly:
            return await use(mayfly)
    loop = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    try:
        return asyncio.run(one())
    finally:
        asyncio._set_running_loop(loop)
"""
AFTER_CLOSE = """
asyncio.run(use(mayfly := Mayfly.from_env()))
child(anew)
"""
AFTER_ACLOSE = """
print(anew())
child(anew)
child(lambda: (child(anew), "a grandchild")[1])
print(anew())
"""
IN_USE = """
async def parent():
    async with Mayfly.from_env() as mayfly:
        async with mayfly.credential("echo", scope="echo:read", purpose="parent") as cred:
            child(anew)
            def same():
                # As a server does that forks workers: the child's own loop, the parent's client.
                loop = asyncio._get_running_loop()
                asyncio._set_running_loop(None)
                try:
                    return asyncio.run(use(mayfly))
                finally:
                    asyncio._set_running_loop(loop)
            child(same)
            await cred.renew()
        return await use(mayfly)
print(asyncio.run(parent()))
"""
BEFORE = """
mayfly = Mayfly.from_env()
child(lambda: asyncio.run(use(mayfly)))
print(asyncio.run(use(mayfly)))
"""
VERIFIER = """
from mayfly.verify import Refused, Verifier
async def parent():
    async with Mayfly.from_env() as mayfly:
        verifier = Verifier(mayfly, issuer=os.environ["ISSUER"], audience="https://echo.dev.mayfly.internal", upstreams=["echo"])
        async with verifier, mayfly.credential("echo", scope="echo:read", purpose="fork") as cred:
            verifier.check(cred.token)
            def check():
                try:
                    return verifier.check(cred.token)
                except Refused as no:
                    assert no.reason == "not_whole" and not verifier.ready
                    return f"refused: {no}"
            child(check)
asyncio.run(parent())
"""
SPAWNED = """
print(anew())
import subprocess
script = os.environ["PROLOGUE"] + "print(anew())"
print(subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout)
"""


@pytest.mark.parametrize(
    ("script", "refused"),
    [(AFTER_CLOSE, 1), (AFTER_ACLOSE, 2), (IN_USE, 2), (BEFORE, 0), (SPAWNED, 0), (VERIFIER, 0)],
    ids=["after use", "after aclose", "in use", "before", "spawned", "a verifier"],
)
def test_a_process_that_was_forked_off_is_told_so_or_works(world, tmp_path, script, refused):
    env = {k: v for k, v in os.environ.items() if not k.startswith("MAYFLY_")} | world.svid("mcp/echo", at=tmp_path)
    source = PROLOGUE + textwrap.dedent(script)
    command = [sys.executable, "-X", "faulthandler", "-c", source]
    done = subprocess.run(
        command, env=env | {"PROLOGUE": PROLOGUE, "ISSUER": world.issuer}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    ends = [line for line in done.stdout.splitlines() if line.startswith("ended with")]
    assert all(line == "ended with 0" for line in ends), done.stdout + done.stderr
    told = [line for line in done.stdout.splitlines() if line.startswith("closed:")]
    assert len(told) == refused and all("forked off" in line for line in told), done.stdout + done.stderr
