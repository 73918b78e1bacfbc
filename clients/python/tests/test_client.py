"""What a workload gets: against a real server."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import time
from datetime import timedelta

import pytest
from conftest import until
from world import World, free_port

import mayfly as m
from mayfly import Mayfly

ECHO = {"scope": ["echo:read"], "purpose": "test"}
# How long something is under way when it is cut off, seconds: not sent, sent, decided, answered.
WAITS = (0, 0.001, 0.002, 0.004, 0.008, 0.016, 0.05, 0.3)


def issued(world, since):
    return world.audit("credential issued", since)


async def test_a_credential_serves_its_scope_and_is_given_back_with_its_task(mayfly, world):
    since = world.head()
    async with mayfly.credential("echo", scope=["echo:read"], tool="search", purpose="look") as cred:
        assert dict(cred.headers) == {"authorization": f"Bearer {cred.token.reveal()}"}
        assert cred.base_url == f"http://127.0.0.1:{world.echo_port}"
        assert cred.credential_id.startswith("cred_") and cred.task_id.startswith("task_")
        assert 0 < cred.expires_in <= 300 and cred.issued.scopes == ("echo:read",) and cred.issued.kind == "jwt"
        task = cred.task_id
    closed = world.audit("task closed", since)
    assert [r["body"]["task"] for r in closed] == [task], "the task that the call opened ends with its scope"
    with pytest.raises(m.Closed):
        _ = cred.headers


async def test_what_a_task_allows_is_shared_and_given_back_when_nobody_holds_it(world, tmp_path):
    since = world.head()
    async with Mayfly.from_env(world.svid("agent/demo", at=tmp_path / "svid"), idle=0.3) as mayfly:
        async with mayfly.task("share", upstreams={"echo": "echo:read"}) as task:
            ids = set()

            async def one():
                async with task.credential("echo", scope="echo:read") as cred:
                    ids.add(cred.credential_id)
                    await asyncio.sleep(0.05)

            await asyncio.gather(*(one() for _ in range(50)))
            await one()
            assert len(ids) == 1 and len(issued(world, since)) == 1, "one exchange, counted by the server's audit"
            await until(lambda: world.audit("credential given back", since))
            await one()
            assert len(ids) == 2, "one that was given back is given to nobody"
        assert task.state == "COMPLETED"


async def test_arguments_and_tasks_of_their_own_are_never_shared(mayfly, world):
    async with mayfly.task("arguments", upstreams={"echo": "echo:read"}, tools=["search"]) as task:
        ask = {"scope": "echo:read", "tool": "search", "arguments": {"q": "a"}}
        async with task.credential("echo", **ask) as one, task.credential("echo", **ask) as two:
            assert one.credential_id != two.credential_id
    async with mayfly.credential("echo", **ECHO) as one, mayfly.credential("echo", **ECHO) as two:
        assert one.task_id != two.task_id


async def test_different_requests_share_nothing(mayfly):
    async with mayfly.task("differ", upstreams={"echo": "echo:read echo:write"}, tools=["a"]) as task:
        asks = [{}, {"purpose": "x"}, {"ttl": 60}, {"tool": "a"}, {"scope": "echo:write"}, {"kind": "reference"}]
        seen = set()
        for ask in asks:
            async with task.credential("echo", **({"scope": "echo:read"} | ask)) as cred:
                seen.add(cred.credential_id)
        assert len(seen) == len(asks)


async def test_a_denial_is_typed_and_not_tried_again(mayfly, world):
    since = world.head()
    with pytest.raises(m.Denied) as no:
        async with mayfly.credential("echo", scope=["echo:admin"], purpose="too much"):
            pass
    assert no.value.reason == "DENIED_BY_POLICY" and no.value.code == "PERMISSION_DENIED" and no.value.rule
    refused = world.audit("refused", since) or world.audit("refusals counted", since)
    assert len(refused) == 1 and refused[0]["body"].get("count", 1) in (0, 1), refused


async def test_refusals_are_typed(mayfly):
    with pytest.raises(m.NotFound) as no:
        async with mayfly.credential("nothing", **ECHO):
            pass
    assert no.value.reason == "NOT_FOUND"
    with pytest.raises(m.InvalidRequest) as bad:
        async with mayfly.credential("echo", scope=["echo:read"], purpose="x" * 600):
            pass
    assert bad.value.field_violations and "512" in str(bad.value)
    with pytest.raises(m.InvalidRequest, match="purpose"):
        async with mayfly.credential("echo", scope=["echo:read"]):
            pass
    with pytest.raises(m.InvalidRequest, match="arguments"):
        async with mayfly.credential("echo", arguments={"n": float("nan")}, **ECHO):
            pass


async def test_a_credential_is_renewed_for_all_who_hold_it(mayfly):
    async with mayfly.task("renew", upstreams={"echo": "echo:read"}) as task:
        async with (
            task.credential("echo", scope="echo:read", ttl=60) as one,
            task.credential("echo", scope="echo:read", ttl=60) as two,
        ):
            before, ends = one.credential_id, one.expires_at
            await one.renew(ttl=120)
            assert one.credential_id == two.credential_id != before and one.expires_at > ends


async def test_a_cached_credential_is_given_to_nobody_shortly_before_its_end(mayfly):
    async with mayfly.task("short", upstreams={"echo": "echo:read"}) as task:
        async with task.credential("echo", scope="echo:read", ttl=2) as one:
            first = one.credential_id
            await asyncio.sleep(1.7)
            async with task.credential("echo", scope="echo:read", ttl=2) as two:
                assert two.credential_id != first and two.expires_in > 1


async def test_a_shared_credential_that_an_upstream_refused_is_given_to_nobody_new(mayfly):
    async with mayfly.task("doubt", upstreams={"echo": "echo:read"}) as task:
        async with task.credential("echo", scope="echo:read") as one:
            one.used(outcome=401)
            async with task.credential("echo", scope="echo:read") as two:
                assert two.credential_id != one.credential_id
                async with task.credential("echo", scope="echo:read") as three:
                    assert three.credential_id == two.credential_id
        assert not [lease for lease in mayfly._leases._all if lease.holders]


async def test_whoever_is_cancelled_leaves_the_others_waiting(mayfly):
    async with mayfly.task("cancel", upstreams={"echo": "echo:read"}) as task:

        async def one():
            async with task.credential("echo", scope="echo:read") as cred:
                return cred.credential_id

        waiting = [asyncio.create_task(one()) for _ in range(5)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError) and len(set(results[1:])) == 1


async def test_one_that_nobody_waits_for_any_more_is_given_back(mayfly, world):
    since = world.head()

    async def one():
        async with mayfly.credential("echo", **ECHO):
            await asyncio.sleep(60)

    waiting = asyncio.create_task(one())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await asyncio.sleep(0.3)
    await mayfly.aclose()
    assert len(world.audit("task closed", since)) == len(world.audit("task opened", since))


async def cut_off(world, folder, begin, cut):
    """Tasks opened and closed by clients of which each begins something that is cut off, later each time."""
    since = world.head()
    for wait in WAITS:
        mayfly = Mayfly.from_env(world.svid("agent/demo", at=folder / f"s{wait}"))
        async with mayfly.credential("echo", **ECHO):
            pass

        async def one(mayfly=mayfly):
            async with begin(mayfly):
                await asyncio.sleep(60)

        waiting = asyncio.create_task(one())
        await asyncio.sleep(wait)
        await cut(mayfly, waiting)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await mayfly.aclose()
    opened, closed = len(world.audit("task opened", since)), len(world.audit("task closed", since))
    assert opened > len(WAITS), "none came as far as the server"
    assert opened == closed


async def test_what_is_under_way_when_the_client_closes_is_given_back(world, tmp_path):
    await cut_off(world, tmp_path, lambda mayfly: mayfly.credential("echo", **ECHO), lambda mayfly, _: mayfly.aclose())


async def test_a_task_whose_opening_nobody_waits_for_any_more_is_ended(world, tmp_path):
    async def cancelled(_, waiting):
        waiting.cancel()

    await cut_off(world, tmp_path, lambda mayfly: mayfly.task("left", upstreams={"echo": "echo:read"}), cancelled)


async def test_a_report_of_uses_under_way_when_the_client_closes_is_answered_first(world, tmp_path):
    mayfly = Mayfly.from_env(world.svid("agent/demo", at=tmp_path / "uses"))
    async with mayfly.credential("echo", **ECHO) as cred:
        cred.used(outcome=200)
    uses = mayfly._uses
    while uses._waiting:
        await asyncio.sleep(0)
    await mayfly.aclose()
    assert uses.sent + uses.dropped == 1, "it is known what became of it"


async def test_a_task_is_kept_alive_and_ends(mayfly, world):
    async with mayfly.task("beat", upstreams={"echo": "echo:read"}, heartbeat=5, ttl=60) as task:
        await asyncio.sleep(6)
        await task.refresh()
        assert task.state == "ACTIVE" and not task.ended.is_set()
        assert "beat" in repr(task) or task.id in repr(task)
    assert task.state == "COMPLETED"


async def test_a_task_is_extended_up_to_its_maximum(mayfly):
    async with mayfly.task("long", upstreams={"echo": "echo:read"}, ttl=60, max_ttl=120) as task:
        later = task.deadline + timedelta(seconds=30)
        await task.extend(later)
        assert task.deadline == later
        with pytest.raises(m.NotActive) as no:
            await task.extend(later + timedelta(seconds=60))
        assert no.value.reason == "NO_LIFE_LEFT"
        async with mayfly.task("part", upstreams={"echo": "echo:read"}, parent=task, ttl=30) as part:
            assert part.id != task.id
            async with part.credential("echo", scope="echo:read") as cred:
                assert cred.task_id == part.id and cred.expires_in <= 30


async def test_a_task_that_fails_is_cancelled(mayfly):
    with pytest.raises(ZeroDivisionError):
        async with mayfly.task("fail", upstreams={"echo": "echo:read"}) as task:
            raise ZeroDivisionError
    await task.refresh()
    assert task.state == "CANCELLED"


async def test_whoever_works_in_a_task_is_told_that_it_is_over(mayfly, world):
    async with mayfly.task("over", upstreams={"echo": "echo:read"}, heartbeat=5) as task:
        async with task.credential("echo", scope="echo:read"):
            world.revoke("--task", task.id)
            await asyncio.wait_for(task.ended.wait(), 5)
        with pytest.raises(m.MayflyError):
            async with task.credential("echo", scope="echo:read", purpose="again"):
                pass


async def test_use_reports_arrive_in_the_background(mayfly_echo, world):
    since = world.head()
    async with mayfly_echo.credential("echo", **ECHO) as cred:
        for status in (200, 204, 500, 403):
            cred.used(outcome=status)
        cred.used(count=3)
        name = cred.credential_id
        await until(lambda: mayfly_echo._uses.sent == 7)
    await until(lambda: [r for r in world.audit("uses reported", since) if name in json.dumps(r)], 70)
    with pytest.raises(ValueError, match="outcome"):
        async with mayfly_echo.credential("echo", **ECHO) as cred:
            cred.used("perhaps")


async def test_reports_that_wait_are_sent_at_the_end(world, tmp_path):
    async with Mayfly.from_env(world.svid("mcp/echo", at=tmp_path / "e")) as mayfly:
        async with mayfly.credential("echo", **ECHO) as cred:
            cred.used(200)
        uses = mayfly._uses
    assert uses.sent == 1 and uses.dropped == 0


async def test_the_stream_answers_the_same_call(world, tmp_path):
    since = world.head()
    async with Mayfly.from_env(world.svid("agent/demo", at=tmp_path / "s"), stream=True) as mayfly:

        async def one(n):
            async with mayfly.credential("echo", scope="echo:read", purpose=f"stream {n}") as cred:
                return cred.credential_id

        ids = await asyncio.gather(*(one(n) for n in range(100)))
        assert len(set(ids)) == 100 and mayfly._streams.opened == 1
        with pytest.raises(m.Denied):
            async with mayfly.credential("echo", scope="echo:admin", purpose="no"):
                pass
    assert len(issued(world, since)) == 100


async def test_secrets_are_nowhere_to_be_seen(mayfly, logs, world):
    texts = []
    async with mayfly.credential("echo", **ECHO) as cred:
        token = cred.token.reveal()
        for value in (
            cred,
            cred.token,
            cred.headers,
            cred.issued,
            cred.answer,
            mayfly,
            mayfly._leases,
            mayfly._connection._source.current,
        ):
            texts += [repr(value), str(value), f"{value}", f"{value!r:>10}"]
        for value in (cred, cred.token, cred.headers):
            with pytest.raises(TypeError):
                pickle.dumps(value)
            with pytest.raises(TypeError):
                json.dumps(value)
        assert copy.deepcopy(cred.token) == cred.token != m.Secret("else")
        await cred.renew()
        second = cred.token.reveal()
        key = mayfly._connection._source.current.key.decode()
    with pytest.raises(m.MayflyError) as no:
        async with mayfly.credential("echo", scope="echo:read", purpose="p", parent=token + "x"):
            pass
    texts += [
        str(no.value),
        repr(no.value),
        *(r.getMessage() for r in logs.records),
        logs.text,
        (world.home / "server.log").read_text(),
    ]
    for secret in (token, second, token.rsplit(".", 1)[1], key.splitlines()[1]):
        assert not [t for t in texts if secret in t]


APPROVED = """
@id("agents-open-tasks-for-what-is-approved")
permit (principal in Role::"agent", action == Action::"OpenTask", resource in Environment::"dev");

@id("sensitive-scopes-are-approved")
forbid (principal, action == Action::"Exchange", resource)
when { context.sensitive } unless { context.approvals.count >= 1 };
"""


async def test_an_approval_is_named_waited_for_and_bound_to_its_arguments(tmp_path):
    world = World(tmp_path, policy=APPROVED)
    try:
        async with Mayfly.from_env(world.svid("agent/demo", at=tmp_path / "s")) as mayfly:

            def wipe(what, **more):
                ask = {"scope": "echo:admin", "tool": "wipe", "arguments": {"what": what}, "purpose": "wipe", "ttl": 60}
                return mayfly.credential("echo", **ask, **more)

            with pytest.raises(m.ApprovalNeeded) as no:
                async with wipe("all"):
                    pass
            assert no.value.approval_id.startswith("appr_") and no.value.reason == "APPROVAL_NEEDED"

            async def approve():
                await asyncio.sleep(0.5)
                await asyncio.to_thread(world.cli, "approval", "give", no.value.approval_id, "--reason", "as agreed")

            approving = asyncio.create_task(approve())
            async with wipe("all", wait_for_approval=20) as cred:
                assert cred.issued.approval_id == no.value.approval_id and cred.expires_in > 40
            await approving
            with pytest.raises(m.ApprovalNeeded) as other:
                async with wipe("some"):
                    pass
            assert other.value.approval_id != no.value.approval_id
    finally:
        world.stop()


async def test_no_server_is_unavailable_within_the_deadline(world, tmp_path):
    env = world.svid("agent/demo", at=tmp_path / "s") | {"MAYFLY_ADDRESS": f"127.0.0.1:{free_port()}"}
    async with Mayfly.from_env(env, timeout=1.0) as mayfly:
        began = time.monotonic()
        with pytest.raises(m.Unavailable):
            async with mayfly.credential("echo", **ECHO):
                pass
        assert time.monotonic() - began < 2.0


async def test_a_server_that_never_answers_is_left_within_the_deadline(world, tmp_path):
    async def silent(reader, writer):
        await asyncio.sleep(60)

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    env = world.svid("agent/demo", at=tmp_path / "s") | {"MAYFLY_ADDRESS": f"127.0.0.1:{port}"}
    async with Mayfly.from_env(env, timeout=1.0) as mayfly:
        began = time.monotonic()
        with pytest.raises(m.Unavailable):
            async with mayfly.credential("echo", **ECHO):
                pass
        assert time.monotonic() - began < 2.0
    server.close()


async def test_a_client_belongs_to_one_loop_and_ends_once(world, tmp_path):
    mayfly = Mayfly.from_env(world.svid("agent/demo", at=tmp_path / "s"))
    async with mayfly.credential("echo", **ECHO):
        pass

    def elsewhere():
        async def use():
            async with mayfly.credential("echo", **ECHO):
                pass

        asyncio.run(use())

    with pytest.raises(m.Closed, match="another event loop"):
        await asyncio.to_thread(elsewhere)
    await mayfly.aclose()
    await mayfly.aclose()
    with pytest.raises(m.Closed):
        async with mayfly.credential("echo", **ECHO):
            pass


async def test_nothing_is_written_to_the_disk(mayfly, tmp_path, world):
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    async with mayfly.credential("echo", **ECHO) as cred:
        token = cred.token.reveal()
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before
    assert not [p for p in world.home.rglob("*") if p.is_file() and token.encode() in p.read_bytes()]
