"""Who the two sides are: settings, files, and certificates that are not accepted, each said plainly."""

from __future__ import annotations

import os

import pytest
from world import DOMAIN, SERVER_ID

import mayfly as m
from mayfly import Files, Mayfly

ECHO = {"scope": ["echo:read"], "purpose": "test"}


async def test_the_server_has_to_be_who_it_should_be(world, tmp_path):
    env = world.svid("agent/demo", at=tmp_path / "s") | {"MAYFLY_SERVER_ID": f"spiffe://{DOMAIN}/other"}
    async with Mayfly.from_env(env) as mayfly:
        with pytest.raises(m.ServerCertificateError, match=f"is {SERVER_ID}; expected spiffe://{DOMAIN}/other"):
            async with mayfly.credential("echo", **ECHO):
                pass
    env.pop("MAYFLY_SERVER_ID")
    async with Mayfly.from_env(env) as mayfly:
        # 127.0.0.1 is not the name in the certificate.
        with pytest.raises(m.ServerCertificateError, match="DNS names"):
            async with mayfly.credential("echo", **ECHO):
                pass
    port = world.address.rsplit(":", 1)[1]
    async with Mayfly.from_env(env | {"MAYFLY_ADDRESS": f"https://localhost:{port}"}) as mayfly:
        async with mayfly.credential("echo", **ECHO) as cred:
            assert cred.credential_id


async def test_a_bundle_of_another_domain_is_not_enough(world, tmp_path):
    env = world.svid("agent/demo", at=tmp_path / "s")
    own = tmp_path / "other.pem"
    own.write_bytes(world.make("agent/x")[0])
    async with Mayfly.from_env(env | {"MAYFLY_BUNDLE": str(own)}) as mayfly:
        with pytest.raises(m.ServerCertificateError, match="does not verify with the bundle"):
            async with mayfly.credential("echo", **ECHO):
                pass


async def test_an_svid_that_the_server_does_not_accept_is_said_so(world, tmp_path):
    env = world.svid("agent/demo", life=48 * 3600 * 30, at=tmp_path / "s")
    async with Mayfly.from_env(env) as mayfly:
        with pytest.raises(m.NotAuthenticated, match="does not accept the SVID"):
            async with mayfly.credential("echo", **ECHO):
                pass


async def test_the_look_at_the_server_does_without_files_in_memory(world, tmp_path, monkeypatch):
    monkeypatch.delattr("os.memfd_create", raising=False)
    async with Mayfly.from_env(world.svid("agent/demo", at=tmp_path / "s")) as mayfly:
        async with mayfly.credential("echo", **ECHO) as cred:
            assert cred.credential_id


async def test_files_that_do_not_fit_are_said_so(world, tmp_path):
    env = world.svid("agent/demo", at=tmp_path / "a")
    other = world.svid("agent/demo", at=tmp_path / "b")
    async with Mayfly.from_env(env | {"MAYFLY_KEY": other["MAYFLY_KEY"]}) as mayfly:
        with pytest.raises(m.IdentityError, match="the key does not belong to the SVID"):
            async with mayfly.credential("echo", **ECHO):
                pass
    async with Mayfly.from_env(env | {"MAYFLY_KEY": str(tmp_path / "none.pem")}) as mayfly:
        with pytest.raises(m.IdentityError, match="none.pem"):
            async with mayfly.credential("echo", **ECHO):
                pass


async def test_what_has_no_end_is_not_read(world, tmp_path):
    env = world.svid("agent/demo", at=tmp_path / "a")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "long").write_bytes(b"x" * (1024 * 1024 + 1))
    for path, what in (
        ("/dev/zero", "not a regular file"),
        (tmp_path / "pipe", "not a regular file"),
        (tmp_path / "long", "more than"),
    ):
        async with Mayfly.from_env(env | {"MAYFLY_BUNDLE": str(path)}) as mayfly:
            with pytest.raises(m.IdentityError, match=what):
                async with mayfly.credential("echo", **ECHO):
                    pass


def test_the_environment_says_what_is_missing():
    with pytest.raises(ValueError, match="MAYFLY_ADDRESS is not set"):
        Mayfly.from_env({})
    with pytest.raises(ValueError, match="SPIFFE_ENDPOINT_SOCKET"):
        Mayfly.from_env({"MAYFLY_ADDRESS": "localhost:1"})
    with pytest.raises(ValueError, match="MAYFLY_KEY, MAYFLY_BUNDLE not set"):
        Mayfly.from_env({"MAYFLY_ADDRESS": "localhost:1", "MAYFLY_SVID": "x"})
    for wrong in ("unix:/x", "https://h:1/path", "h:0", "h:x", ""):
        with pytest.raises(ValueError, match="MAYFLY_ADDRESS"):
            Mayfly.from_env({"MAYFLY_ADDRESS": wrong, "SPIFFE_ENDPOINT_SOCKET": "unix:/x"})


def test_files_can_be_named_in_code(world):
    files = Files(world.bundle, world.bundle, world.bundle)
    assert "127.0.0.1" in repr(Mayfly("127.0.0.1:1", files))
