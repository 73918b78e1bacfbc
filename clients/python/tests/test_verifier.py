"""The verifier against a real server's feed, and its middleware on an application in this process."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest
from conftest import until
from world import AUDIENCE, World

from mayfly import Mayfly, verify
from mayfly._verify.follower import Moment
from mayfly.asgi import MayflyMiddleware, verified
from mayfly.mcp import OWN_CLAIMS, TokenVerifier
from mayfly.verify import Refused, Verifier


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """One of this module's own: a follower that left is waited for by `revoke --wait` until its feed is too old."""
    world = World(tmp_path_factory.mktemp("verifier"))
    yield world
    world.stop()


@pytest.fixture
async def verifier(world, tmp_path):
    env = world.svid("service/echo", at=tmp_path / "service")
    async with Mayfly.from_env(env, poll=0.05) as client:
        # One name for all: the next takes its place.
        async with Verifier(client, issuer=world.issuer, audience=AUDIENCE, upstreams=["echo"], follower="test") as verifier:
            yield verifier


def reason(verifier, token, **need):
    try:
        verifier.check(token, **need)
    except Refused as refused:
        return refused.reason
    return "accepted"


async def test_a_credential_is_good_until_it_is_revoked(world, mayfly, verifier):
    async with mayfly.task("verify", upstreams={"echo": "echo:read"}, tools=["search"]) as task:
        async with task.credential("echo", scope="echo:read", tool="search", arguments={"q": 1}) as cred:
            good = verifier.check(cred.token, scope="echo:read", tool="search", arguments={"q": 1})
            assert good.credential_id == cred.credential_id and good.task_id == task.id and good.expires_at == cred.expires_at
            assert good.caller == good.subject == "spiffe://dev.mayfly.internal/agent/demo" and good.scopes == ("echo:read",)
            assert reason(verifier, cred.token, scope="echo:write") == "scope"
            assert reason(verifier, cred.token, tool="other") == "tool"
            assert reason(verifier, cred.token, arguments={"q": 2}) == "arguments"
            assert cred.token.reveal() not in repr(good)
            with pytest.raises(TypeError):
                good.claims["scope"] = "echo:admin"
            await asyncio.to_thread(world.revoke, "--credential", cred.credential_id)
            assert reason(verifier, cred.token) == "revoked"


async def test_what_is_given_back_is_refused_and_acknowledged(world, mayfly, verifier):
    async with mayfly.credential("echo", scope="echo:read", purpose="back") as cred:
        token = cred.token
        assert reason(verifier, token) == "accepted"
    await until(lambda: reason(verifier, token) == "revoked")
    await until(lambda: verifier.acknowledged == verifier.applied)
    listed = json.loads(await asyncio.to_thread(world.cli, "follower", "list", "-o", "json"))
    assert [f for f in listed if f["follower"] == "test"], listed


async def test_a_held_task_is_refused_until_it_is_resumed(world, mayfly, verifier):
    async with mayfly.task("hold", upstreams={"echo": "echo:read"}) as task, task.credential("echo", scope="echo:read") as cred:
        from mayfly.v1 import task_service_pb2, task_service_pb2_grpc

        stub = task_service_pb2_grpc.TaskServiceStub
        hold = task_service_pb2.HoldTaskRequest(task_id=task.id, reason="look")
        await mayfly._connection.unary(stub, "HoldTask", hold, 5)
        await until(lambda: reason(verifier, cred.token) == "held")
        await mayfly._connection.unary(stub, "ResumeTask", task_service_pb2.ResumeTaskRequest(task_id=task.id), 5)
        await until(lambda: reason(verifier, cred.token) == "accepted")


async def test_the_feed_goes_on_while_svids_rotate_with_no_refused_call(world, mayfly, verifier, tmp_path):
    client, refused, going = verifier._mayfly, [], True
    async with mayfly.task("rotate", upstreams={"echo": "echo:read"}) as task, task.credential("echo", scope="echo:read") as cred:

        async def ask():
            while going:
                if (said := reason(verifier, cred.token)) != "accepted":
                    refused.append(said)
                await asyncio.sleep(0.005)

        asking = asyncio.create_task(ask())
        for _ in range(3):
            made = client._connection.made
            await asyncio.to_thread(world.svid, "service/echo", at=tmp_path / "service")
            await until(lambda made=made: client._connection.made > made)
            await until(lambda: not client._connection._draining, 15)
        going = False
        await asking
        assert refused == []
        await asyncio.to_thread(world.revoke, "--credential", cred.credential_id)
        assert reason(verifier, cred.token) == "revoked"


async def test_without_a_fresh_feed_everything_is_refused(own_world, tmp_path, monkeypatch):
    world = own_world
    async with Mayfly.from_env(world.svid("service/echo", at=tmp_path / "s")) as client:
        verifier = Verifier(client, issuer=world.issuer, audience=AUDIENCE, upstreams=["echo"], follower="test")
        async with verifier, Mayfly.from_env(world.svid("agent/demo", at=tmp_path / "a"), timeout=30) as mayfly:
            async with mayfly.task("stale", upstreams={"echo": "echo:read"}) as task:
                async with task.credential("echo", scope="echo:read") as cred:
                    assert reason(verifier, cred.token) == "accepted" and verifier.ready
                    await asyncio.to_thread(world.kill)
                    assert reason(verifier, cred.token) == "accepted", "the feed is still young"
                    now = verify.moment()
                    monkeypatch.setattr(verify, "moment", lambda: Moment(now.wall + 31_000, now.steady + 31_000))
                    assert reason(verifier, cred.token) == "stale" and not verifier.ready
                    monkeypatch.undo()
                    await asyncio.to_thread(world.start)
                    # A server that was restarted knows a follower again when it has come back.
                    await until(lambda: followers(world) and verifier.ready, 15)
                    assert reason(verifier, cred.token) == "accepted"
                    await asyncio.to_thread(world.revoke, "--credential", cred.credential_id)
                    assert reason(verifier, cred.token) == "revoked"


def followers(world):
    return [f for f in json.loads(world.cli("follower", "list", "-o", "json")) if f["connected"] and f["applied_seq"]]


async def test_a_workload_that_serves_another_upstream_may_not_follow(world, tmp_path):
    async with Mayfly.from_env(world.svid("agent/demo", at=tmp_path / "s")) as client:
        verifier = Verifier(client, issuer=world.issuer, audience=AUDIENCE, upstreams="echo")
        await verifier.start(wait=1)
        assert not verifier.ready and reason(verifier, "a.b.c") == "malformed"
        await verifier.aclose()


async def test_the_sdks_token_verifier_takes_what_is_good(mayfly, verifier):
    async with mayfly.credential("echo", scope="echo:read", purpose="sdk") as cred:
        good = await TokenVerifier(verifier).verify_token(cred.token.reveal())
        assert good is not None and good.client_id.endswith("agent/demo") and good.scopes == ["echo:read"]
        assert good.resource == AUDIENCE and good.claims[OWN_CLAIMS]["tasks"][-1]["id"] == cred.task_id
        assert await TokenVerifier(verifier).verify_token(cred.token.reveal() + "x") is None


async def plain(scope, receive, send):
    """An application without a framework."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 1000})
        return
    if scope["path"] == "/later":
        verified().require(tool="another")
    body = scope["mayfly"].credential_id.encode() if "mayfly" in scope else b"nobody"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def client_of(app):
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test")


async def test_the_middleware_guards_any_asgi_application(mayfly, verifier):
    app = MayflyMiddleware(
        plain, verifier, resource="https://api.example/v1", scopes=lambda scope: "echo:read", public=["/healthz"]
    )
    async with client_of(app) as http, mayfly.credential("echo", scope="echo:read", tool="one", purpose="asgi") as cred:
        assert (await http.get("/", headers=cred.headers)).text == cred.credential_id
        assert (await http.get("/healthz")).text == "nobody"
        later = await http.get("/later", headers=cred.headers)
        assert later.status_code == 403 and later.json()["reason"] == "tool"
        metadata = "https://api.example/.well-known/oauth-protected-resource/v1"
        assert (await http.get("/")).headers["www-authenticate"] == f'Bearer resource_metadata="{metadata}"'
        for path in ("/.well-known/oauth-protected-resource", "/.well-known/oauth-protected-resource/v1"):
            described = (await http.get(path)).json()
            assert described["resource"] == "https://api.example/v1" and described["authorization_servers"] == [verifier.issuer]
        with pytest.raises(LookupError):
            verified()
    with pytest.raises(ValueError, match="resource"):
        MayflyMiddleware(plain, verifier, resource="api.example")


async def test_a_method_without_a_scope_is_refused(mayfly, verifier):
    app = MayflyMiddleware(plain, verifier, scopes={"GET": "echo:read"})
    async with client_of(app) as http, mayfly.credential("echo", scope="echo:read", purpose="methods") as cred:
        for method, status in (("GET", 200), ("HEAD", 200), ("POST", 403), ("DELETE", 403)):
            assert (await http.request(method, "/", headers=cred.headers)).status_code == status, method
    app = MayflyMiddleware(plain, verifier, scopes={"GET": "echo:write"})
    async with client_of(app) as http, mayfly.credential("echo", scope="echo:read", purpose="methods") as cred:
        assert (await http.head("/", headers=cred.headers)).status_code == 403


async def test_one_whose_feed_is_not_known_answers_503_and_keeps_nobodys_token_for_bad(mayfly, world, tmp_path):
    async with Mayfly.from_env(world.svid("service/echo", at=tmp_path / "s")) as client:
        verifier = Verifier(client, issuer=world.issuer, audience=AUDIENCE, upstreams=["echo"], follower="not started")
        async with client_of(MayflyMiddleware(plain, verifier)) as http:
            async with mayfly.credential("echo", scope="echo:read", purpose="503") as cred:
                # Neither keys nor revocations are known.
                assert (await http.get("/", headers=cred.headers)).status_code == 401
                async with client_verifier(world, tmp_path) as known:
                    verifier._checker.set_keys(known._checker.keys)
                answer = await http.get("/", headers=cred.headers)
                assert answer.status_code == 503 and answer.headers["retry-after"] == "1"
                assert answer.json()["reason"] == "not_whole" and "www-authenticate" not in answer.headers


def client_verifier(world, tmp_path):
    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def opened():
        async with Mayfly.from_env(world.svid("service/echo", at=tmp_path / "k")) as client:
            async with Verifier(client, issuer=world.issuer, audience=AUDIENCE, upstreams=["echo"], follower="test") as verifier:
                yield verifier

    return opened()


async def test_websockets_are_guarded_and_lifespans_pass(mayfly, verifier):
    app = MayflyMiddleware(plain, verifier)
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "websocket.connect"}

    await app({"type": "websocket", "path": "/", "headers": []}, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008, "reason": "no credential"}]
    sent.clear()
    extended = {"type": "websocket", "path": "/", "headers": [], "extensions": {"websocket.http.response": {}}}
    await app(extended, receive, send)
    assert sent[0]["type"] == "websocket.http.response.start" and sent[0]["status"] == 401
    sent.clear()
    async with mayfly.credential("echo", scope="echo:read", purpose="ws") as cred:
        headers = [(b"authorization", cred.headers["authorization"].encode())]
        await app({"type": "websocket", "path": "/", "headers": headers}, receive, send)
    assert sent[0] == {"type": "websocket.accept"}
    seen = []

    async def lifespan(scope, receive, send):
        seen.append(scope["type"])

    await MayflyMiddleware(lifespan, verifier)({"type": "lifespan"}, receive, send)
    assert seen == ["lifespan"]


async def test_a_bound_credential_needs_the_certificate_of_its_session(mayfly, verifier):
    async with mayfly.credential("echo", scope="echo:read", purpose="bound", key_binding="svid") as cred:
        leaf = (await mayfly._connection.identity()).leaf_sha256
        assert reason(verifier, cred.token, certificate_sha256=leaf) == "accepted"
        assert reason(verifier, cred.token) == "possession"
        assert reason(verifier, cred.token, certificate_sha256=bytes(32)) == "possession"
        pem = (await mayfly._connection.identity()).chain.decode()
        app = MayflyMiddleware(plain, verifier)
        headers = [(b"authorization", cred.headers["authorization"].encode()), (b"x-client-cert", pem.replace("\n", "").encode())]
        for extensions, status in (({"tls": {"client_cert_chain": [pem]}}, 200), ({}, 401)):
            sent = []

            async def send(message, sent=sent):
                sent.append(message)

            scope = {"type": "http", "method": "GET", "path": "/", "headers": headers, "extensions": extensions}
            await app(scope, None, send)
            assert sent[0]["status"] == status
