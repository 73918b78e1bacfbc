"""A generated client does an exchange over mTLS, and an independent JOSE library judges what it got."""
import base64
import hashlib
import hmac
import http.client
import json
import ssl
import time

import grpc
import jwt
import pytest
from conftest import AUDIENCE, DOMAIN
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

ISSUER = f'https://{DOMAIN}/dev'
CLAIMS = ['iss', 'sub', 'aud', 'exp', 'iat', 'nbf', 'jti', 'client_id', 'scope']


def unpadded(data):
    return base64.urlsafe_b64encode(data).rstrip(b'=').decode()


def padded(text):
    return base64.urlsafe_b64decode(text + '=' * (-len(text) % 4))


def https_get(world, path):
    tls = ssl.create_default_context(cafile=str(world.file('bundle.pem')))
    tls.minimum_version = ssl.TLSVersion.TLSv1_3
    connection = http.client.HTTPSConnection('localhost', world.port('public'), context=tls, timeout=10)
    connection.request('GET', path)
    answer = connection.getresponse()
    assert answer.status == 200, path
    return json.loads(answer.read())


@pytest.fixture(scope='session')
def jwks(world):
    """The keys from the public listener, found by discovery."""
    found = https_get(world, '/.well-known/oauth-authorization-server/dev')
    assert found['issuer'] == ISSUER and found['jwks_uri'] == f'{ISSUER}/jwks.json'
    return https_get(world, '/dev/jwks.json')


@pytest.fixture(scope='session')
def issued(exchange):
    return exchange()


@pytest.fixture(scope='session')
def token(issued):
    return issued.bearer_token.token


def verify(token, jwks, audience=AUDIENCE, issuer=ISSUER):
    kid = jwt.get_unverified_header(token).get('kid')
    key = next(jwt.PyJWK(k) for k in jwks['keys'] if k['kid'] == kid)
    return jwt.decode(token, key, algorithms=['ES256'], audience=audience, issuer=issuer, options={'require': CLAIMS})


def test_pyjwt_verifies_what_was_issued(issued, token, jwks):
    header, claims = jwt.get_unverified_header(token), verify(token, jwks)
    assert header['typ'] == 'at+jwt' and header['alg'] == 'ES256'
    assert claims['aud'] == AUDIENCE and claims['scope'] == 'echo:read'
    assert claims['client_id'] == claims['sub'] == f'spiffe://{DOMAIN}/agent/demo'
    assert 'act' not in claims, 'the subject is the caller (RFC 8693, section 4.1)'
    assert claims['jti'] == issued.credential_id
    assert claims['exp'] == issued.expires_at.seconds and 0 < claims['exp'] - claims['iat'] <= 120
    assert abs(claims['iat'] - time.time()) < 60
    assert not issued.irrevocable


def test_the_keys_of_key_service_are_those_of_the_public_listener(world, contract, jwks):
    with world.channel('service/echo') as channel:
        keys = contract.keys_grpc.KeyServiceStub(channel)
        told = keys.GetJwks(contract.keys.GetJwksRequest(environment='dev'), timeout=10)
    assert json.loads(told.jwks) == jwks and told.issuer == ISSUER
    assert all('d' not in key and key['use'] == 'sig' for key in jwks['keys'])


def tampered(token, jwks):
    """Forgeries of a token, each with its name."""
    header, payload, signature = token.split('.')
    fields, claims, raw = json.loads(padded(header)), json.loads(padded(payload)), bytearray(padded(signature))

    def with_header(**change):
        return unpadded(json.dumps(dict(fields, **change)).encode())

    wider = unpadded(json.dumps(dict(claims, scope='echo:read echo:write')).encode())
    longer = unpadded(json.dumps(dict(claims, exp=claims['exp'] + 3600)).encode())
    raw[7] ^= 1
    key = jwt.PyJWK(next(k for k in jwks['keys'] if k['kid'] == fields['kid'])).key
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    stolen = with_header(alg='HS256') + '.' + wider
    mac = hmac.new(pem, stolen.encode(), hashlib.sha256).digest()
    own = ec.generate_private_key(ec.SECP256R1())
    own_pem = own.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return {
        'wider scope': f'{header}.{wider}.{signature}',
        'longer life': f'{header}.{longer}.{signature}',
        'one bit of the signature': f'{header}.{payload}.{unpadded(bytes(raw))}',
        'no signature': f'{header}.{payload}.',
        'alg none': f'{with_header(alg="none")}.{payload}.',
        'HS256 with the public key': f'{stolen}.{unpadded(mac)}',
        'a key of our own': jwt.encode(claims, own_pem, 'ES256', headers=dict(fields)),
        'a key in the header': f'{with_header(jwk=jwks["keys"][0])}.{payload}.{signature}',
    }


def test_pyjwt_refuses_every_forgery(token, jwks):
    for name, forged in tampered(token, jwks).items():
        with pytest.raises(jwt.InvalidTokenError):
            verify(forged, jwks)
            pytest.fail(name)


def test_another_audience_and_another_issuer_are_refused(token, jwks):
    with pytest.raises(jwt.InvalidAudienceError):
        verify(token, jwks, audience='https://repos.dev.mayfly.internal')
    with pytest.raises(jwt.InvalidIssuerError):
        verify(token, jwks, issuer=f'https://{DOMAIN}/prod')


def test_introspection_is_active_for_the_token_and_for_no_forgery(world, contract, token, jwks):
    with world.channel('service/echo') as channel:
        tokens = contract.tokens_grpc.TokenServiceStub(channel)

        def active(token):
            return tokens.Introspect(contract.tokens.IntrospectRequest(token=token), timeout=10).active
        assert active(token)
        assert [name for name, forged in tampered(token, jwks).items() if active(forged)] == []


def test_a_revoked_credential_is_inactive_at_once_and_its_caller_gets_no_other(world, contract, exchange):
    token = exchange().bearer_token.token
    task = exchange().task_id
    target = contract.targets.Target(credential_id=jwt.decode(token, options={'verify_signature': False})['jti'])
    with world.channel('operator/you', 'admin') as admin, world.channel('service/echo') as service:
        tokens = contract.tokens_grpc.TokenServiceStub(service)
        ask = contract.tokens.IntrospectRequest(token=token)
        assert tokens.Introspect(ask, timeout=10).active
        revocations = contract.revocations_grpc.RevocationServiceStub(admin)
        done = revocations.Revoke(contract.revocations.RevokeRequest(targets=[target], reason='interop'), timeout=10)
        assert done.seq > 0
        assert not tokens.Introspect(ask, timeout=10).active
        gone = contract.targets.Target(task_id=task)
        everything = contract.types.Confirmation(all=True)
        revocations.Revoke(contract.revocations.RevokeRequest(targets=[gone], reason='interop', confirmation=everything), timeout=10)
    with world.channel('agent/demo') as agent:
        ask = contract.tokens.ExchangeRequest(task_id=task, upstream='echo', scopes=['echo:read'], tool='search')
        with pytest.raises(grpc.RpcError) as no:
            contract.tokens_grpc.TokenServiceStub(agent).Exchange(ask, timeout=10)
    assert no.value.code() in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.PERMISSION_DENIED)


def novelty(issued, name):
    return issued.DESCRIPTOR.fields_by_name['novelty'].enum_type.values_by_name[f'NOVELTY_{name}'].number


def test_the_same_request_gets_the_same_credential_and_another_is_refused(exchange):
    first, again = exchange(request_id='interop-1'), exchange(request_id='interop-1')
    # Signed anew, and ECDSA signatures differ: the same id and the same claims.
    claims = [jwt.decode(issued.bearer_token.token, options={'verify_signature': False}) for issued in (first, again)]
    assert claims[0] == claims[1] and first.seq == again.seq
    assert (first.novelty, again.novelty) == (novelty(first, 'NEW'), novelty(first, 'SAME'))
    with pytest.raises(grpc.RpcError) as no:
        exchange(request_id='interop-1', purpose='something else')
    assert no.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_without_a_certificate_nobody_is_served(world, contract):
    credentials = grpc.ssl_channel_credentials(world.file('bundle.pem').read_bytes())
    with grpc.secure_channel(f'localhost:{world.port("workload")}', credentials) as channel:
        with pytest.raises(grpc.RpcError) as no:
            contract.tokens_grpc.TokenServiceStub(channel).Whoami(contract.tokens.WhoamiRequest(), timeout=10)
    assert no.value.code() == grpc.StatusCode.UNAVAILABLE


def test_pyjwt_reads_on_whose_behalf_a_server_acts(world, contract, jwks):
    repos, server = f'https://repos.{DOMAIN}', f'spiffe://{DOMAIN}/mcp/repos'
    terms = contract.tasks.TaskTerms(
        purpose='on behalf', upstreams=[contract.tasks.Allowance(upstream='repos', scopes=['issues:read'])], callers=[server])
    ask = dict(upstream='repos', scopes=['issues:read'], kind=contract.types.CREDENTIAL_KIND_JWT)
    with world.channel('agent/demo') as channel:
        tokens = contract.tokens_grpc.TokenServiceStub(channel)
        first = tokens.Exchange(contract.tokens.ExchangeRequest(open_task=terms, **ask), timeout=10).issued
    shown = contract.types.SubjectToken(token=first.bearer_token.token, type=contract.types.SUBJECT_TOKEN_TYPE_MAYFLY)
    with world.channel('mcp/repos') as channel:
        tokens = contract.tokens_grpc.TokenServiceStub(channel)
        second = tokens.Exchange(
            contract.tokens.ExchangeRequest(task_id=first.task_id, subject_token=shown, **ask), timeout=10).issued
        with pytest.raises(grpc.RpcError) as refused:
            tampered = contract.types.SubjectToken(token=shown.token[:-4] + 'AAAA', type=shown.type)
            tokens.Exchange(contract.tokens.ExchangeRequest(task_id=first.task_id, subject_token=tampered, **ask), timeout=10)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    claims = verify(second.bearer_token.token, jwks, audience=repos)
    assert claims['sub'] == f'spiffe://{DOMAIN}/agent/demo' and claims['client_id'] == server
    assert claims['act'] == {'sub': server, 'iss': DOMAIN}, 'the caller is the outermost actor (RFC 8693, section 4.1)'
    assert claims['exp'] <= verify(first.bearer_token.token, jwks, audience=repos)['exp']
    own = claims['https://mayfly.dev/claims']
    assert [a['id'] for a in own['ancestors']] == [first.credential_id]
    assert own['subject_token'] == {'iss': ISSUER, 'id': first.credential_id}
