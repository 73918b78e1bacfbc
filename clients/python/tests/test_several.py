"""Several credentials at once: all or none, against a real server and against a server of the test's own."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from conftest import until
from test_client import issued
from test_retries import Code, double, refusal  # noqa: F401  # a fixture

import mayfly as m
from mayfly import CredentialRequest, Mayfly

READ = CredentialRequest("echo", scope="echo:read", purpose="test")
WRITE = CredentialRequest("echo", scope="echo:write", purpose="test")
ADMIN = CredentialRequest("echo", scope="echo:admin", purpose="test")
NOWHERE = CredentialRequest("nowhere", scope="x", purpose="test")
BOTH = {"echo": "echo:read echo:write"}


def given_back(world, since):
    return {r["body"]["credential"] for r in world.audit("credential given back", since)}


async def test_they_come_in_the_order_asked_and_end_with_the_scope(mayfly, world):
    since = world.head()
    async with mayfly.task("several", upstreams=BOTH, tools=["search"]) as task:
        call = CredentialRequest("echo", scope="echo:read", tool="search", arguments={"q": "a"}, ttl=60)
        async with task.credentials([WRITE, READ, call, call]) as held:
            assert [one.issued.scopes for one in held] == [("echo:write",), ("echo:read",), ("echo:read",), ("echo:read",)]
            assert len({one.credential_id for one in held}) == 4, "those for arguments share nothing"
            assert {one.task_id for one in held} == {task.id} and 0 < held[2].expires_in <= 60
            assert held[0].headers["authorization"] == f"Bearer {held[0].token.reveal()}"
            calls = {one.credential_id for one in held[2:]}
        assert len(issued(world, since)) == 4 and given_back(world, since) == calls
        with pytest.raises(m.Closed):
            _ = held[0].headers


async def test_without_a_task_each_opens_one_that_ends_with_the_scope(mayfly, world):
    since = world.head()
    async with mayfly.credentials([READ, WRITE]) as (one, two):
        tasks = {one.task_id, two.task_id}
        assert len(tasks) == 2
        await one.renew(ttl=120)
        assert one.issued.scopes == ("echo:read",) and one.expires_in > 60
    assert {r["body"]["task"] for r in world.audit("task closed", since)} == tasks


@pytest.mark.parametrize("refused", [NOWHERE, ADMIN], ids=["unknown upstream", "scope that policy refuses"])
async def test_where_one_is_refused_there_is_none_and_nothing_stays(mayfly, world, refused):
    since = world.head()
    with pytest.raises(m.MayflyError) as no:
        async with mayfly.credentials([READ, refused, WRITE]):
            pass
    assert type(no.value) is (m.NotFound if refused is NOWHERE else m.Denied)
    assert no.value.upstream == refused.upstream and no.value.message.startswith(f"{refused.upstream}: "), no.value
    assert "exchanges[" not in str(no.value) + repr(no.value) + str(no.value.field_violations)
    assert not issued(world, since) and not world.audit("task opened", since), "nothing was issued, and no task was opened"
    assert not mayfly._leases._all and not mayfly._leases._shared
    async with mayfly.credential("echo", scope="echo:read", purpose="test") as alone:
        assert alone.credential_id, "the client is as good as before"


async def test_a_refusal_leaves_what_was_shared_before(mayfly, world):
    async with mayfly.task("several", upstreams=BOTH) as task:
        async with task.credential("echo", scope="echo:read", purpose="test") as before:
            for _ in range(2):
                with pytest.raises(m.Denied) as no:
                    async with task.credentials([READ, ADMIN]):
                        pass
                assert no.value.reason == "OUTSIDE_TASK" and no.value.upstream == "echo"
            async with task.credential("echo", scope="echo:read", purpose="test") as after:
                assert after.credential_id == before.credential_id
    assert not mayfly._leases._all


async def test_they_are_shared_with_single_requests_and_with_each_other(mayfly, world):
    since = world.head()
    async with mayfly.task("several", upstreams=BOTH) as task:
        async with task.credential("echo", scope="echo:read", purpose="test") as single:
            async with task.credentials([READ, WRITE, READ]) as held:
                assert held[0].credential_id == held[2].credential_id == single.credential_id
                async with task.credential("echo", scope="echo:write", purpose="test") as other:
                    assert other.credential_id == held[1].credential_id
        assert len(issued(world, since)) == 2
        assert not given_back(world, since), "they wait for the next holder"


async def test_concurrent_equal_ones_are_one_exchange(mayfly, world):
    since = world.head()
    seen: list[set[str]] = []

    async def several(task):
        async with task.credentials([READ, WRITE]) as held:
            seen.append({one.credential_id for one in held})
            await asyncio.sleep(0.05)

    async def single(task):
        async with task.credential("echo", scope="echo:write", purpose="test") as cred:
            seen.append({cred.credential_id})
            await asyncio.sleep(0.05)

    async with mayfly.task("several", upstreams=BOTH) as task:
        await asyncio.gather(*(several(task) if n % 3 else single(task) for n in range(30)))
    assert len(set.union(*seen)) == 2 and len(issued(world, since)) == 2


async def test_a_single_request_that_shares_a_batch_is_not_refused_with_it(mayfly):
    async with mayfly.task("several", upstreams=BOTH) as task:
        batch = asyncio.create_task(refused(task))
        while not mayfly._leases._shared:
            await asyncio.sleep(0)
        async with task.credential("echo", scope="echo:read", purpose="test") as cred:
            assert cred.credential_id.startswith("cred_")
        assert isinstance(await batch, m.Denied)


async def refused(task):
    with pytest.raises(m.Denied) as no:
        async with task.credentials([READ, ADMIN]):
            pass
    return no.value


async def test_whoever_is_cancelled_leaves_none_behind(world, tmp_path):
    since = world.head()
    async with Mayfly.from_env(world.svid("agent/demo", at=tmp_path / "svid"), idle=0) as mayfly:
        for wait in (0, 0.001, 0.004, 0.016, 0.3):
            asking = asyncio.create_task(held(mayfly))
            await asyncio.sleep(wait)
            asking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asking
        await until(lambda: not mayfly._leases._all)
    opened = {r["body"]["task"] for r in world.audit("task opened", since)}
    assert opened and opened == {r["body"]["task"] for r in world.audit("task closed", since)}


async def held(mayfly):
    async with mayfly.credentials([READ, WRITE]):
        await asyncio.sleep(10)


async def test_how_many_there_may_be_is_checked_before_anything_is_sent(mayfly, world):
    since = world.head()
    for requests in ([], [READ] * 9):
        with pytest.raises(m.InvalidRequest, match=f"requests: are {len(requests)}; right would be 1 to 8"):
            async with mayfly.credentials(requests):
                pass
    with pytest.raises(m.InvalidRequest, match="echo: scope: is empty") as no:
        async with mayfly.credentials([READ, CredentialRequest("echo", scope="")]):
            pass
    assert no.value.upstream == "echo" and no.value.field_violations[0].field == "echo.scope"
    with pytest.raises(m.InvalidRequest, match=r"requests\[1\]: upstream: is empty"):
        async with mayfly.credentials([READ, CredentialRequest("", scope="a")]):
            pass
    with pytest.raises(m.InvalidRequest, match="belongs to no task"):
        async with mayfly.credentials([READ, WRITE], require_task=True):
            pass
    assert not issued(world, since)
    async with mayfly.credentials([READ] * 8) as most:
        assert len({one.credential_id for one in most}) == 8


def test_a_request_shows_no_secret():
    marker = "marker-of-a-secret"
    token = m.SubjectToken(marker, "oidc")
    request = CredentialRequest("echo", scope="a", arguments={"q": marker}, subject_token=token, parent=marker)
    assert marker not in repr(request) and "echo" in repr(request)


async def test_one_is_an_exchange_like_any_other(double):  # noqa: F811
    async with double.client.credentials([READ]) as (one,):
        assert one.credential_id
    assert len(double.asked) == 1 and not double.batches


async def test_a_repeat_has_the_request_ids_of_the_first(double):  # noqa: F811
    double.answers = [refusal(Code.UNAVAILABLE, "NOT_READY"), refusal(Code.ABORTED, "DECIDED_ON_OLD_STATE")]
    async with double.client.credentials([READ, WRITE]):
        pass
    assert len(double.batches) == 3 and len({b.SerializeToString(deterministic=True) for b in double.batches}) == 1
    first = double.batches[0]
    assert first.all_or_nothing and [list(one.scopes) for one in first.exchanges] == [["echo:read"], ["echo:write"]]
    assert len({one.request_id for one in first.exchanges}) == 2
    assert len(double.completed) == 2 and not double.asked


async def test_a_refusal_is_sent_once(double):  # noqa: F811
    double.answers = [refusal(Code.PERMISSION_DENIED, "DENIED_BY_POLICY", message="exchanges[1]: policy does not permit it")]
    with pytest.raises(m.Denied, match="nowhere: policy does not permit it") as no:
        async with double.client.credentials([READ, NOWHERE]):
            pass
    assert len(double.batches) == 1 and no.value.upstream == "nowhere"


@pytest.mark.parametrize("spoil", ["one too few", "a problem", "an unknown kind"])
async def test_an_answer_that_is_not_whole_gives_none_and_ends_what_was_issued(double, spoil):  # noqa: F811
    def spoilt(results):
        if spoil == "one too few":
            return results[:1]
        if spoil == "a problem":
            results[1].problem.message = "no"
        else:
            results[1].issued.ClearField("answer")
        return results

    double.spoil = spoilt
    with pytest.raises((m.Fault, ValueError)):
        async with double.client.credentials([READ, WRITE]):
            pass
    left = 2 if spoil == "an unknown kind" else 1
    assert len(double.completed) == left, "the task of each that was issued is ended"


async def test_a_server_whose_tasks_are_short_is_asked_once_more(double):  # noqa: F811
    wrong = "exchanges[0].open_task.max_ttl"
    double.answers = [refusal(Code.INVALID_ARGUMENT, "INVALID_FIELD", field=wrong)]
    async with double.client.credentials([READ, WRITE]):
        pass
    before, after = double.batches
    assert all(one.open_task.HasField("max_ttl") for one in before.exchanges)
    assert not any(one.open_task.HasField("max_ttl") for one in after.exchanges)
    assert {one.request_id for one in before.exchanges}.isdisjoint(one.request_id for one in after.exchanges)
