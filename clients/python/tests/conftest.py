"""One real server for most tests; those that kill or spoil one make their own."""

from __future__ import annotations

import asyncio
import contextlib
import logging

import pytest
from agent import Agent
from world import World

from mayfly import Mayfly


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    world = World(tmp_path_factory.mktemp("mayfly"))
    yield world
    world.stop()


@pytest.fixture
def own_world(tmp_path):
    """A server that the test may do anything to."""
    world = World(tmp_path)
    yield world
    world.stop()


@pytest.fixture
def agent(world, tmp_path):
    agent = Agent(world, "agent/demo", tmp_path)
    yield agent
    agent.stop()


@pytest.fixture
async def mayfly(world, tmp_path):
    """A client as agent/demo, its SVID in files of its own."""
    env = world.svid("agent/demo", at=tmp_path / "svid")
    async with Mayfly.from_env(env, poll=0.1) as client:
        yield client


@pytest.fixture
async def mayfly_echo(world, tmp_path):
    """A client as mcp/echo, which is a server of the echo upstream."""
    async with Mayfly.from_env(world.svid("mcp/echo", at=tmp_path / "echo"), poll=0.1) as client:
        yield client


@pytest.fixture
def logs(caplog):
    """Everything that anybody logs."""
    caplog.set_level(logging.DEBUG)
    return caplog


async def until(what, seconds: float = 10.0):
    """Waits until something holds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while not what():
                await asyncio.sleep(0.02)
    assert what()
