"""A dev world for the tests, and a client that nobody of us wrote: what grpcio-tools makes of proto/.

The server is the real one, started as a child and ended by its process. Nothing leaves the test's folder or loopback.
"""
import json
import os
import pathlib
import subprocess
import sys
import time

import grpc
import pytest
from google.protobuf import duration_pb2
from grpc_tools import protoc

PROJECT = pathlib.Path(__file__).resolve().parents[3]
DOMAIN = 'dev.mayfly.internal'
AUDIENCE = 'https://echo.dev.mayfly.internal'


def binary():
    return os.environ.get('MAYFLY_BIN', str(PROJECT / 'target/debug/mayfly'))


@pytest.fixture(scope='session')
def contract(tmp_path_factory):
    """The modules of mayfly.v1, generated now."""
    import grpc_tools
    out = tmp_path_factory.mktemp('generated')
    protos = sorted(str(p) for p in (PROJECT / 'proto/mayfly/v1').glob('*.proto'))
    google = pathlib.Path(grpc_tools.__file__).parent / '_proto'
    args = ['protoc', f'-I{PROJECT / "proto"}', f'-I{google}', f'--python_out={out}', f'--grpc_python_out={out}', *protos]
    assert protoc.main(args) == 0
    sys.path.insert(0, str(out))
    from mayfly.v1 import (key_service_pb2, key_service_pb2_grpc, revocation_pb2, revocation_service_pb2, revocation_service_pb2_grpc,
                           task_pb2, token_service_pb2, token_service_pb2_grpc, types_pb2)

    class Contract:
        keys, keys_grpc = key_service_pb2, key_service_pb2_grpc
        revocations, revocations_grpc = revocation_service_pb2, revocation_service_pb2_grpc
        tokens, tokens_grpc = token_service_pb2, token_service_pb2_grpc
        targets, tasks, types = revocation_pb2, task_pb2, types_pb2
    return Contract


class World:
    """A server with its own trust domain in a folder."""

    def __init__(self, folder):
        self.folder = folder / 'world'
        # A home of its own: the dev server leaves a context for the command line there.
        env = dict(os.environ, HOME=str(folder), XDG_CONFIG_HOME=str(folder / 'config'), XDG_STATE_HOME=str(folder / 'state'))
        self.log = open(folder / 'server.log', 'wb')
        command = [binary(), 'dev', 'up', '--dir', str(self.folder), '--port', '0']
        self.child = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        ready = self.folder / 'ready.json'
        until = time.monotonic() + 60
        while not ready.exists():
            if self.child.poll() is not None or time.monotonic() > until:
                self.stop()
                raise RuntimeError('the server did not start:\n' + (folder / 'server.log').read_text())
            time.sleep(0.05)
        self.addresses = json.loads(ready.read_text())

    def stop(self):
        self.child.terminate()
        try:
            self.child.wait(30)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        self.log.close()

    def file(self, name):
        return self.folder / name

    def svid(self, name):
        folder = self.folder / 'svid' / name
        return folder / 'svid.pem', folder / 'key.pem'

    def port(self, listener):
        return int(self.addresses[listener].rsplit(':', 1)[1])

    def channel(self, name, listener='workload'):
        """gRPC over mTLS as a workload of the world. grpcio checks the server's DNS name."""
        certificate, key = self.svid(name)
        credentials = grpc.ssl_channel_credentials(self.file('bundle.pem').read_bytes(), key.read_bytes(), certificate.read_bytes())
        return grpc.secure_channel(f'localhost:{self.port(listener)}', credentials)


@pytest.fixture(scope='session')
def world(tmp_path_factory):
    world = World(tmp_path_factory.mktemp('mayfly'))
    yield world
    world.stop()


@pytest.fixture(scope='session')
def exchange(world, contract):
    """Exchanges the SVID of agent/demo for a credential for the echo upstream, its task opened by the same call."""
    channel = world.channel('agent/demo')
    tokens = contract.tokens_grpc.TokenServiceStub(channel)

    def one(**more):
        terms = contract.tasks.TaskTerms(
            purpose='interop', upstreams=[contract.tasks.Allowance(upstream='echo', scopes=['echo:read'])], tools=['search'])
        ask = contract.tokens.ExchangeRequest(
            open_task=terms, upstream='echo', scopes=['echo:read'], kind=contract.types.CREDENTIAL_KIND_JWT, tool='search',
            ttl=duration_pb2.Duration(seconds=120), **more)
        return tokens.Exchange(ask, timeout=10).issued

    yield one
    channel.close()
