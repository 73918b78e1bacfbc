"""Following when the server goes back, restarts, or has much to tell: a follower decides by what it knows, and never by a head
that went back."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import signal

import httpx
from conftest import until
from mayfly.v1 import feed_pb2, revocation_pb2
from test_verify_cases import SHARED, checker
from world import AUDIENCE

from mayfly import Mayfly, verify
from mayfly._verify.follower import Moment
from mayfly.mcp import TokenVerifier
from mayfly.verify import Refused, Verifier

CASE = next(c for c in SHARED["cases"] if c["name"] == "a_good_token_is_accepted")
TOKEN = CASE["steps"][-1]["check"]["token"]


def following():
    """A checker that follows, a token that is good, and now."""
    from google.protobuf import json_format

    what, now = checker(), Moment(CASE["steps"][0]["wall"], CASE["steps"][0]["steady"])
    for step in CASE["steps"][:-1]:
        message = json_format.ParseDict(step["feed"], feed_pb2.WatchRevocationsResponse())
        assert what.follower.take(message, now) == "taken"
    return what, now


def said(what, now, token=TOKEN):
    try:
        what.check(token, now)
    except Refused as refused:
        return refused.reason
    return "accepted"


def test_the_view_of_before_decides_until_a_snapshot_of_40_000_rules_is_whole():
    what, now = following()
    head = what.follower.applied
    what.follower.resync()
    assert what.follower.begin_stream() is None
    for part in range(40):
        rules = [feed_pb2.RuleEvent(seq=head + 1, targets=[revocation_pb2.Target(tool=f"t{part}-{n}")]) for n in range(1000)]
        message = feed_pb2.WatchRevocationsResponse(seq=head + 2, snapshot=feed_pb2.SnapshotPart(rules=rules, last=part == 39))
        assert said(what, now) == "accepted"
        assert what.follower.take(message, now) == "taken"
    assert said(what, now) == "accepted" and len(what.follower.rules) == 40_000
    assert what.follower.begin_stream() == head + 2
    # No longer than its last proof is good for.
    what.follower.resync()
    assert said(what, Moment(now.wall + 30_001, now.steady + 30_001)) == "stale"


def test_what_was_seen_of_the_ledger_is_told_where_a_stream_begins():
    what, now = following()
    assert what.follower.seen() is None
    beat = feed_pb2.WatchRevocationsResponse(seq=what.follower.applied + 1)
    beat.heartbeat.fresh_at.FromMilliseconds(now.wall)
    beat.heartbeat.max_age.seconds = 30
    beat.heartbeat.heads.add(writer="1", commit=7, header_sha256=b"\1" * 32)
    assert what.follower.take(beat, now) == "taken"
    seen = what.follower.seen()
    assert (seen.seq, list(seen.heads)) == (beat.seq, list(beat.heartbeat.heads))
    what.follower.distrust("it has another commit 7")
    assert said(what, now) == "rolled_back"


def test_workers_that_were_forked_follow_under_names_of_their_own():
    client = Mayfly.__new__(Mayfly)
    made = Verifier(client, issuer="https://i.example", audience=AUDIENCE, upstreams=["echo"])
    given = Verifier(client, issuer="https://i.example", audience=AUDIENCE, upstreams=["echo"], follower="web")
    other = Verifier(client, issuer="https://i.example", audience=AUDIENCE, upstreams=["echo"])
    before = made.follower
    assert before == made.follower != other.follower and given.follower == "web"
    names = set()
    for _ in range(2):
        reader, writer = os.pipe()
        if (pid := os.fork()) == 0:
            os.write(writer, json.dumps([made.follower, given.follower]).encode())
            os._exit(0)
        os.close(writer)
        os.waitpid(pid, 0)
        names |= set(json.loads(os.read(reader, 4096)))
        os.close(reader)
    assert len(names) == 4 and not names & {before, "web"}, names
    assert all(len(name) <= 128 for name in names)


async def test_stale_revocations_are_503_at_the_sdks_own_middleware_and_logged(caplog, monkeypatch):
    """As `MCPServer(token_verifier=…)` puts it together."""
    from mcp.server.auth.middleware.bearer_auth import BearerAuthBackend, RequireAuthMiddleware
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.authentication import AuthenticationMiddleware
    from starlette.routing import Route

    what, now = following()
    verifier = Verifier(Mayfly.__new__(Mayfly), issuer=what.issuer, audience=what.audience, upstreams=["echo"])
    verifier._checker = what
    guard = BearerAuthBackend(TokenVerifier(verifier))

    async def answer(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    app = Starlette(
        routes=[Route("/mcp", RequireAuthMiddleware(answer, []))],
        middleware=[Middleware(AuthenticationMiddleware, backend=guard)],
    )

    async def get(moment, token=TOKEN):
        monkeypatch.setattr(verify, "moment", lambda: moment)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as http:
            return await http.get("/mcp", headers={"authorization": f"Bearer {token}"})

    assert (await get(now)).status_code in (200, 401)
    caplog.set_level(logging.WARNING, "mayfly")
    for _ in range(5):
        late = await get(Moment(now.wall + 30_001, now.steady + 30_001))
        assert (late.status_code, late.headers["retry-after"]) == (503, "1")
        assert late.json()["reason"] == "stale" and "www-authenticate" not in late.headers
    assert [r.message for r in caplog.records if "every credential is refused" in r.message].__len__() == 1, caplog.text
    assert (await get(now, "a.b.c")).status_code == 401


async def test_no_restart_and_no_old_copy_of_the_server_lets_a_revoked_credential_through(own_world, tmp_path):
    world = own_world
    copy = tmp_path / "copy"
    async with (
        Mayfly.from_env(world.svid("service/echo", at=tmp_path / "s")) as client,
        Verifier(client, issuer=world.issuer, audience=AUDIENCE, upstreams=["echo"], follower="test") as verifier,
    ):
        async with Mayfly.from_env(world.svid("agent/demo", at=tmp_path / "a"), timeout=30) as mayfly:
            async with (
                mayfly.task("restart", upstreams={"echo": "echo:read"}) as task,
                task.credential("echo", scope="echo:read") as held,
                task.credential("echo", scope="echo:read", purpose="bad") as other,
            ):
                good, bad, bad_id = held.token, other.token, other.credential_id
                reasons, going = set(), True

                def reason(token):
                    try:
                        verifier.check(token)
                    except Refused as refused:
                        return refused.reason
                    return "accepted"

                async def ask():
                    while going:
                        reasons.add(reason(good))
                        await asyncio.sleep(0.002)

                asking = asyncio.create_task(ask())
                await asyncio.to_thread(world.stop)
                await asyncio.to_thread(shutil.copytree, world.folder / "data", copy)
                await asyncio.to_thread(world.start)
                await until(lambda: verifier.acknowledged and connected(world), 20)
                await asyncio.to_thread(world.revoke, "--credential", bad_id)
                assert reason(bad) == "revoked"
                going = False
                await asking
                assert reasons == {"accepted"}, f"a restart shows: {reasons}"
                await until(lambda: verifier.acknowledged == verifier.applied, 10)
                seen = verifier.applied
                await asyncio.to_thread(world.stop, signal.SIGKILL)
                shutil.rmtree(world.folder / "data")
                shutil.copytree(copy, world.folder / "data")
                await asyncio.to_thread(world.start)
                await until(lambda: reason(bad) == reason(good) == "rolled_back", 20)
                for n in range(40):
                    await asyncio.to_thread(world.cli, "lock", "add", "--tool", f"t{n}", "--reason", "test")
                assert await asyncio.to_thread(world.head) > seen
                await asyncio.sleep(3)
                assert reason(bad) == reason(good) == "rolled_back", "nothing heals by itself"
                status = json.loads(await asyncio.to_thread(world.cli, "status", "-o", "json"))
                assert status["counts"]["followers_beyond"] == 1, status
                assert "server recover" in (world.home / "server.log").read_text()


def connected(world):
    return [f for f in json.loads(world.cli("follower", "list", "-o", "json")) if f["connected"] and f["applied_seq"]]
