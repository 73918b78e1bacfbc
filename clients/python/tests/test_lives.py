"""How long a credential is good for: by which clock, and after it was renewed."""

from __future__ import annotations

import asyncio
import time

import pytest

import mayfly as m
from mayfly import _clock


def lives(cred, ttl):
    """It lives as long as was asked for: a JWT's end is a whole second."""
    return ttl - 1 < cred.issued.life <= ttl


async def test_a_renewal_lives_as_long_as_was_asked_for(mayfly):
    async with mayfly.task("renewals", upstreams={"echo": "echo:read"}) as task:
        async with task.credential("echo", scope="echo:read", ttl=10) as cred:
            for _ in range(2):
                await cred.renew()
                assert lives(cred, 10)
            await cred.renew(ttl=20)
            assert lives(cred, 20)
            await cred.renew()
            assert lives(cred, 20), "as was asked for last"
        async with task.credential("echo", scope="echo:read") as cred:
            assert lives(cred, 300)
            await cred.renew()
            assert lives(cred, 300)


async def test_the_task_that_a_call_opens_lives_as_long_as_the_work(world, mayfly):
    began = time.monotonic()
    async with mayfly.credential("echo", scope="echo:read", purpose="long work", ttl=3) as cred:
        task, first = cred.task_id, cred.expires_at
        while time.monotonic() - began < 5:
            await asyncio.sleep(0.7)
            await cred.renew()
            assert cred.task_id == task and lives(cred, 3) and cred.expires_in > 1.5
        assert (cred.expires_at - first).total_seconds() > 3
    shown = world.cli("task", "show", task, "-o", "json")
    assert '"completed"' in shown.lower(), shown


async def test_without_renewals_it_ends_with_its_credential(world, mayfly):
    async with mayfly.credential("echo", scope="echo:read", purpose="short work", ttl=2) as cred:
        await asyncio.sleep(2.2)
        with pytest.raises(m.MayflyError):
            await cred.renew()


async def test_renewals_go_as_far_as_policy_lets_a_task_live(tmp_path):
    """A policy that bounds what is asked for at once bounds no work that asks again and again."""
    from world import World

    world = World(tmp_path, policy='\nforbid (principal, action in Action::"Work", resource) when { context.ttl_seconds > 3 };\n')
    try:
        async with m.Mayfly.from_env(world.svid("agent/demo", at=tmp_path / "s")) as mayfly:
            async with mayfly.credential("echo", scope="echo:read", purpose="p", ttl=3) as cred:
                for _ in range(3):
                    await asyncio.sleep(1)
                    await cred.renew()
                assert lives(cred, 3)
            with pytest.raises(m.Denied):
                async with mayfly.credential("echo", scope="echo:read", purpose="p", ttl=4):
                    pass
    finally:
        world.stop()


async def test_the_clock_that_says_more_counts(mayfly, monkeypatch):
    wall, steady = time.time, time.monotonic
    async with mayfly.task("clocks", upstreams={"echo": "echo:read"}) as task:
        async with task.credential("echo", scope="echo:read", ttl=15) as one:
            assert 13 < one.expires_in <= 15
            # The machine was suspended: the monotonic clock stood still.
            monkeypatch.setattr(_clock.time, "time", lambda: wall() + 20)
            assert one.expires_in == 0
            async with task.credential("echo", scope="echo:read", ttl=15) as two:
                assert two.credential_id != one.credential_id and two.expires_in > 12
                # It was set back: that adds nothing.
                monkeypatch.setattr(_clock.time, "time", lambda: wall() - 3600)
                assert 0 < two.expires_in < 15
                monkeypatch.undo()
                assert steady is time.monotonic
