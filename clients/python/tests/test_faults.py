"""What goes wrong beside us: SVIDs that rotate under load, a server that is killed, certificates of the wrong shape, an
agent that is away."""

from __future__ import annotations

import asyncio
import json
import shutil

import pytest
from agent import Agent
from conftest import until
from world import SERVER_ID, write

import mayfly as m
from mayfly import Mayfly


class Load:
    """Exchanges without a pause, and what became of them."""

    def __init__(self, mayfly: Mayfly, workers: int = 4, **ask) -> None:
        self.mayfly, self.ask = mayfly, {"scope": "echo:read", "purpose": "load"} | ask
        self.done, self.failed, self.going = 0, [], True
        self.tasks = [asyncio.create_task(self.work(n)) for n in range(workers)]

    async def work(self, n: int) -> None:
        while self.going:
            try:
                async with self.mayfly.credential("echo", **self.ask) as cred:
                    assert cred.token
                self.done += 1
            except Exception as wrong:
                self.failed.append(wrong)

    async def end(self) -> None:
        self.going = False
        await asyncio.gather(*self.tasks)


@pytest.mark.parametrize("stream", [False, True])
async def test_svids_in_files_rotate_under_load_with_no_failed_call(world, tmp_path, stream):
    env = world.svid("agent/demo", at=tmp_path / "s")
    async with Mayfly.from_env(env, poll=0.05, stream=stream) as mayfly:
        load = Load(mayfly)
        await until(lambda: load.done > 5)
        serials = set()
        for _ in range(5):
            made, done = mayfly._connection.made, load.done
            await asyncio.to_thread(world.svid, "agent/demo", at=tmp_path / "s")
            await until(lambda made=made: mayfly._connection.made > made)
            await until(lambda done=done: load.done > done + 5)
            serials.add(mayfly._connection._source.current.fingerprint)
        await load.end()
        assert load.failed == [] and len(serials) == 5
        await until(lambda: not mayfly._connection._draining, 5)


async def test_the_workload_api_gives_svids_that_rotate_under_load_with_no_failed_call(world, agent):
    env = {"MAYFLY_ADDRESS": world.address, "SPIFFE_ENDPOINT_SOCKET": agent.socket, "MAYFLY_SERVER_ID": SERVER_ID}
    since = world.head()
    async with Mayfly.from_env(env) as mayfly:
        load = Load(mayfly)

        async def rotated():
            made = mayfly._connection.made
            agent.rotate()
            await until(lambda: mayfly._connection.made > made)
            done = load.done
            await until(lambda: load.done > done + 2 * len(load.tasks))

        await until(lambda: load.done > 5)
        for _ in range(3):
            await rotated()
        # The agent restarts: its stream ends, and another one is begun.
        agent.hang_up()
        await until(lambda: len(agent.watchers) == 1)
        await rotated()
        await load.end()
        assert load.failed == []
    records = await asyncio.to_thread(world.audit, "credential issued", since)
    assert len({r["body"]["svid"]["serial"] for r in records}) == 5, "mayfly saw each SVID"


async def test_an_agent_that_is_away_or_knows_nothing_of_us_is_asked_again(world, tmp_path):
    env = {
        "MAYFLY_ADDRESS": world.address,
        "SPIFFE_ENDPOINT_SOCKET": f"unix://{tmp_path}/agent.sock",
        "MAYFLY_SERVER_ID": SERVER_ID,
    }
    async with Mayfly.from_env(env) as mayfly:

        async def one():
            async with mayfly.credential("echo", scope="echo:read", purpose="late") as cred:
                return cred.credential_id

        waiting = asyncio.create_task(one())
        await asyncio.sleep(0.5)
        agent = Agent(world, "agent/demo", tmp_path)
        agent.registered = False
        await asyncio.sleep(0.5)
        assert not waiting.done()
        agent.registered = True
        assert (await asyncio.wait_for(waiting, 10)).startswith("cred_")
    await asyncio.to_thread(agent.stop)


async def test_without_an_agent_the_error_says_so(world, tmp_path):
    socket = f"unix://{tmp_path}/nobody.sock"
    env = {"MAYFLY_ADDRESS": world.address, "SPIFFE_ENDPOINT_SOCKET": socket, "MAYFLY_SERVER_ID": SERVER_ID}
    async with Mayfly.from_env(env, timeout=3) as mayfly:
        with pytest.raises(m.IdentityError, match=r"nobody\.sock"):
            async with mayfly.credential("echo", scope="echo:read", purpose="nobody"):
                pass


async def test_a_rotation_before_the_first_connection_is_not_lost(world, tmp_path):
    async with Mayfly.from_env(world.svid("agent/demo", at=tmp_path / "s"), poll=0.02) as mayfly:
        calling = asyncio.create_task(mayfly._connection.link())
        for _ in range(5):
            await asyncio.to_thread(world.svid, "agent/demo", at=tmp_path / "s")
            await asyncio.sleep(0.03)
        await calling
        leaf = (tmp_path / "s" / "svid.pem").read_bytes()
        await until(lambda: mayfly._connection._link.identity.chain == leaf)


async def test_whoever_asks_for_the_svid_can_be_cancelled_at_any_moment(world, tmp_path):
    """Or closing the client waits for ever for the one that takes up new SVIDs."""
    async with Mayfly.from_env(world.svid("agent/demo", at=tmp_path / "s")) as mayfly:
        await mayfly._connection.identity()

        async def asks():
            while True:
                await mayfly._connection.identity()
                await asyncio.sleep(0)

        for turns in range(1, 20):
            asking = asyncio.create_task(asks())
            for _ in range(turns):
                await asyncio.sleep(0)
            asking.cancel()
            ended, _ = await asyncio.wait([asking], timeout=1)
            asking.cancel()
            assert ended, f"cancelled after {turns} turns of the loop, it went on"


async def test_a_server_that_is_killed_and_restarted_fails_no_call(own_world, tmp_path):
    world = own_world
    env = world.svid("agent/demo", at=tmp_path / "s")
    async with Mayfly.from_env(env, timeout=30, poll=0.1) as mayfly:
        load = Load(mayfly, workers=3)
        await until(lambda: load.done > 5)
        for _ in range(2):
            await asyncio.to_thread(world.kill)
            await asyncio.to_thread(world.start)
            done = load.done
            await until(lambda done=done: load.done > done + 3, 30)
        await load.end()
        assert load.failed == [], load.failed[:3]
        records = await asyncio.to_thread(world.audit, "credential issued")
        asked = [r["body"]["request"]["id"] for r in records]
        assert len(asked) == len(set(asked)), "a repeat issued nothing twice"


async def test_a_server_whose_svid_is_another_after_a_restart_is_found_again(own_world, tmp_path):
    world = own_world
    async with Mayfly.from_env(world.svid("agent/demo", at=tmp_path / "s"), timeout=30) as mayfly:
        async with mayfly.credential("echo", scope="echo:read", purpose="one"):
            pass
        pinned = mayfly._connection._link.server.certificate
        await asyncio.to_thread(world.stop)
        # `dev up` makes all SVIDs anew.
        await asyncio.to_thread(world.start)
        async with mayfly.credential("echo", scope="echo:read", purpose="two"):
            pass
        assert mayfly._connection._link.server.certificate != pinned


async def test_a_server_certificate_with_only_a_uri_is_said_to_lack_a_dns_name(own_world, tmp_path):
    world = own_world
    chain, key = world.make("mayfly")
    folder = world.folder / "svid" / "mayfly"
    backup = tmp_path / "backup"
    shutil.copytree(folder, backup)
    write(folder / "key.pem", key)
    write(folder / "svid.pem", chain)
    env = world.svid("agent/demo", at=tmp_path / "s")

    async def attempt():
        async with Mayfly.from_env(env) as mayfly, mayfly.credential("echo", scope="echo:read", purpose="dns") as cred:
            return cred.credential_id

    async def refused():
        try:
            await attempt()
        except m.ServerCertificateError as wrong:
            return str(wrong)
        return None

    # The server looks at its files every two seconds.
    async with asyncio.timeout(15):
        while not (said := await refused()):
            await asyncio.sleep(0.3)
    assert "no DNS name beside its URI" in said and "-dns" in said and SERVER_ID in said


async def test_a_denied_call_is_sent_once(world, tmp_path):
    """Counted at the server: refusals of one caller are recorded one by one at first."""
    env = world.svid("agent/denied", at=tmp_path / "s")
    since = world.head()
    async with Mayfly.from_env(env) as mayfly:
        for n in range(3):
            with pytest.raises(m.Denied):
                async with mayfly.credential("repos", scope="repo:write", purpose=f"no {n}"):
                    pass
    refused = await asyncio.to_thread(world.audit, "refused", since)
    mine = [r for r in refused if "agent/denied" in json.dumps(r)]
    assert len(mine) == 3, [r["body"] for r in mine]


async def test_one_exchange_for_equal_requests_under_way_counted_by_the_audit(world, mayfly):
    since = await asyncio.to_thread(world.head)
    async with mayfly.task("flight", upstreams={"echo": "echo:read"}) as task:
        together = asyncio.Barrier(200)

        async def one():
            async with task.credential("echo", scope="echo:read") as cred:
                await together.wait()
                return cred.credential_id

        assert len(set(await asyncio.gather(*(one() for _ in range(200))))) == 1
    assert len(await asyncio.to_thread(world.audit, "credential issued", since)) == 1


async def test_an_svid_that_ends_is_said_so(world, tmp_path):
    async with Mayfly.from_env(world.svid("agent/demo", life=3, at=tmp_path / "s"), poll=0.2, timeout=3) as mayfly:
        await asyncio.sleep(3.2)
        with pytest.raises((m.IdentityError, m.NotAuthenticated)):
            async with mayfly.credential("echo", scope="echo:read", purpose="late"):
                pass
        # And with a new one it goes on.
        await asyncio.to_thread(world.svid, "agent/demo", at=tmp_path / "s")
        async with mayfly.credential("echo", scope="echo:read", purpose="again") as cred:
            assert cred.credential_id


async def test_who_begins_in_the_middle_of_a_rotation_looks_again(world, tmp_path):
    env = world.svid("agent/demo", at=tmp_path / "s")
    chain, key = world.make("agent/demo")
    write(tmp_path / "s" / "key.pem", key)

    async def other_half():
        await asyncio.sleep(0.3)
        write(tmp_path / "s" / "svid.pem", chain)

    writing = asyncio.create_task(other_half())
    async with Mayfly.from_env(env) as mayfly, mayfly.credential("echo", scope="echo:read", purpose="half") as cred:
        assert cred.credential_id
    await writing
    # And what stays so is said.
    write(tmp_path / "s" / "key.pem", world.make("agent/demo")[1])
    with pytest.raises(m.IdentityError, match="the key does not belong to the SVID"):
        async with Mayfly.from_env(env) as mayfly, mayfly.credential("echo", scope="echo:read", purpose="half"):
            pass


async def test_half_a_rotation_is_looked_at_again(world, tmp_path):
    env = world.svid("agent/demo", at=tmp_path / "s")
    async with Mayfly.from_env(env, poll=0.05) as mayfly:
        async with mayfly.credential("echo", scope="echo:read", purpose="one"):
            pass
        chain, key = world.make("agent/demo")
        write(tmp_path / "s" / "key.pem", key)
        await asyncio.sleep(0.3)
        async with mayfly.credential("echo", scope="echo:read", purpose="two"):
            pass
        made = mayfly._connection.made
        write(tmp_path / "s" / "svid.pem", chain)
        await until(lambda: mayfly._connection.made > made)
