"""What is posted to webhooks, checked by the library of Standard Webhooks: signature, time, id, JSON."""
import base64
import http.server
import json
import os
import threading
import time

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from conftest import World

SECRETS = ['whsec_' + base64.b64encode(os.urandom(32)).decode() for _ in range(2)]


class Receiver(http.server.BaseHTTPRequestHandler):
    got = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers['content-length']))
        self.got.append((dict((k.lower(), v) for k, v in self.headers.items()), body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture(scope='module')
def told(tmp_path_factory):
    """The events of a server that two secrets sign."""
    folder = tmp_path_factory.mktemp('webhooks')
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    World(folder).stop()
    secret = folder / 'world' / 'hook.secret'
    secret.write_text('\n'.join(SECRETS) + '\n')
    secret.chmod(0o600)
    with open(folder / 'world' / 'mayfly.toml', 'a') as config:
        url = f'http://127.0.0.1:{server.server_port}/hook'
        config.write(f'\n[[webhooks]]\nname = "interop"\nurl = "{url}"\nsecret_file = "hook.secret"\nevents = ["lock.added"]\n')
    (folder / 'world' / 'ready.json').unlink(missing_ok=True)
    world = World(folder)
    try:
        for n in range(3):
            run(world, 'lock', 'add', '--caller', f'spiffe://dev.mayfly.internal/agent/x{n}', '--reason', f'drill {n} \u202e')
        until = time.monotonic() + 30
        while len(Receiver.got) < 3 and time.monotonic() < until:
            time.sleep(0.05)
        yield list(Receiver.got)
    finally:
        world.stop()
        server.shutdown()


def run(world, *words):
    import subprocess

    from conftest import binary
    certificate, key = world.svid('operator/you')
    address = world.addresses['admin']
    command = [binary(), '--address', f'https://{address}', '--svid', certificate, '--key', key, '--bundle', world.file('bundle.pem'),
               '--server-id', 'spiffe://dev.mayfly.internal/mayfly', *words]
    subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL)


def test_each_secret_verifies_each_event_and_another_does_not(told):
    assert len(told) == 3
    for headers, body in told:
        for secret in SECRETS:
            assert Webhook(secret).verify(body, headers)['type'] == 'lock.added'
        with pytest.raises(WebhookVerificationError):
            Webhook('whsec_' + base64.b64encode(bytes(32)).decode()).verify(body, headers)
        with pytest.raises(WebhookVerificationError):
            Webhook(SECRETS[0]).verify(body.replace(b'drill', b'thrill'), headers)
        with pytest.raises(WebhookVerificationError):
            Webhook(SECRETS[0]).verify(body, dict(headers, **{'webhook-id': 'msg_other'}))


def test_events_come_once_each_in_order_with_ids_of_their_own(told):
    bodies = [json.loads(body) for _, body in told]
    assert [b['data']['reason'] for b in bodies] == ['drill 0 ', 'drill 1 ', 'drill 2 ']
    seqs = [b['data']['seq'] for b in bodies]
    assert seqs == sorted(set(seqs))
    assert len({headers['webhook-id'] for headers, _ in told}) == 3
