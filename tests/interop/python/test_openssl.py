"""openssl judges the certificates, the TLS of the listeners and the signature of a token."""
import json
import subprocess

import jwt
import pytest
from conftest import DOMAIN
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from test_exchange import https_get, padded


def openssl(*args, stdin=b''):
    done = subprocess.run(['openssl', *map(str, args)], input=stdin, capture_output=True, timeout=20)
    return done.returncode, (done.stdout + done.stderr).decode(errors='replace')


@pytest.mark.parametrize('name, purpose', [('mayfly', 'sslserver'), ('agent/demo', 'sslclient'), ('service/echo', 'sslclient')])
def test_an_svid_has_its_chain_and_one_uri_name(world, name, purpose):
    certificate, _ = world.svid(name)
    code, said = openssl('verify', '-x509_strict', '-purpose', purpose, '-CAfile', world.file('bundle.pem'), certificate)
    assert code == 0, said
    code, text = openssl('x509', '-in', certificate, '-noout', '-text')
    assert code == 0 and text.count('URI:') == 1 and f'URI:spiffe://{DOMAIN}/{name}' in text
    assert 'X509v3 Key Usage: critical' in text and 'Certificate Sign' not in text and 'CA:TRUE' not in text


def test_another_root_does_not_vouch_for_it(world, tmp_path):
    root, key = tmp_path / 'root.pem', tmp_path / 'key.pem'
    code, said = openssl('req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', key, '-out', root,
                         '-subj', '/CN=somebody else', '-days', '1')
    assert code == 0, said
    code, said = openssl('verify', '-CAfile', root, world.svid('agent/demo')[0])
    assert code != 0 and 'unable to get local issuer certificate' in said


def s_client(world, listener, *more):
    return openssl('s_client', '-connect', f'127.0.0.1:{world.port(listener)}', '-servername', 'localhost', '-CAfile', world.file('bundle.pem'),
                   '-verify_return_error', '-verify_hostname', 'localhost', '-alpn', 'h2', '-brief', *more)


def test_the_listeners_speak_tls_1_3_and_nothing_older(world):
    certificate, key = world.svid('agent/demo')
    code, said = s_client(world, 'workload', '-cert', certificate, '-key', key)
    assert code == 0 and 'Protocol version: TLSv1.3' in said and 'Verification: OK' in said, said
    for listener in ('workload', 'admin', 'public'):
        code, said = s_client(world, listener, '-tls1_2')
        assert code != 0 and 'alert' in said, (listener, said)


def test_no_session_is_resumed(world, tmp_path):
    """Resumption would skip the check of the caller's certificate."""
    certificate, key = world.svid('agent/demo')
    session = tmp_path / 'session'
    s_client(world, 'workload', '-cert', certificate, '-key', key, '-sess_out', session)
    assert not session.exists() or session.stat().st_size == 0


def test_openssl_verifies_the_signature_of_a_token_and_refuses_it_tampered_with(world, exchange, tmp_path):
    token = exchange().bearer_token.token
    signed, signature = token.rsplit('.', 1)
    kid = jwt.get_unverified_header(token)['kid']
    key = jwt.PyJWK(next(k for k in https_get(world, '/dev/jwks.json')['keys'] if k['kid'] == kid)).key
    public, der = tmp_path / 'public.pem', tmp_path / 'signature'
    public.write_bytes(key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    raw = padded(signature)
    assert len(raw) == 64
    der.write_bytes(encode_dss_signature(int.from_bytes(raw[:32], 'big'), int.from_bytes(raw[32:], 'big')))

    def said(text):
        return openssl('dgst', '-sha256', '-verify', public, '-signature', der, stdin=text.encode())
    assert said(signed)[0] == 0
    header, payload = signed.split('.')
    claims = json.loads(padded(payload))
    assert said(f'{header}.{payload[:-1]}')[0] != 0
    assert claims['iss'] == f'https://{DOMAIN}/dev'
