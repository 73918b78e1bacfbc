"""A token endpoint over TLS that verifies mayfly's assertions with PyJWT and gives tokens for them: RFC 8693 and RFC 7523, sections 2.1 and 2.2.

    token_endpoint.py PORT CERTIFICATE KEY CA LOG AUDIENCE ISSUER...

It fetches the discovery document and the keys of each issuer from mayfly's public listener, as a vendor does. Each line of LOG is JSON:
the claims of an accepted assertion, or why one was refused. The file LOG.answer, where there is one, replaces the members of an answer.
"""
import json
import os
import secrets
import ssl
import sys
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt

GRANTS = {
    'urn:ietf:params:oauth:grant-type:token-exchange': 'subject_token',
    'urn:ietf:params:oauth:grant-type:jwt-bearer': 'assertion',
    'client_credentials': 'client_assertion',
}


def verified(token, issuers, audience, context):
    """The claims of an assertion of one of these issuers. The keys are fetched by the issuer's own discovery document."""
    header = jwt.get_unverified_header(token)
    if header.get('typ') != 'JWT':
        raise jwt.InvalidTokenError(f'typ is {header.get("typ")}')
    issuer = jwt.decode(token, options={'verify_signature': False}).get('iss')
    if issuer not in issuers:
        raise jwt.InvalidIssuerError(f'unknown issuer {issuer}')
    with urllib.request.urlopen(f'{issuer}/.well-known/openid-configuration', context=context, timeout=10) as answer:
        discovery = json.load(answer)
    if discovery['issuer'] != issuer or header['alg'] not in discovery['id_token_signing_alg_values_supported']:
        raise jwt.InvalidIssuerError('the discovery document is of another issuer or algorithm')
    key = jwt.PyJWKClient(discovery['jwks_uri'], ssl_context=context).get_signing_key_from_jwt(token)
    required = ['iss', 'sub', 'aud', 'iat', 'nbf', 'exp', 'jti']
    claims = jwt.decode(token, key.key, algorithms=[header['alg']], audience=audience, issuer=issuer, options={'require': required})
    return {**claims, 'alg': header['alg'], 'kid': header['kid']}


class JsonEndpoint(BaseHTTPRequestHandler):
    """Answers in JSON, and prints nothing."""

    def reply(self, status, body):
        data = b'' if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header('content-type', 'application/json')
        self.send_header('content-length', str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


def listening(endpoint, port, certificate, key, ca):
    """A server of TLS 1.3 on loopback. `context` verifies mayfly's public listener."""
    server = ThreadingHTTPServer(('127.0.0.1', int(port)), endpoint)
    server.context = ssl.create_default_context(cafile=ca)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.minimum_version = ssl.TLSVersion.TLSv1_3
    tls.load_cert_chain(certificate, key)
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    return server


class Endpoint(JsonEndpoint):
    seen = set()

    def do_POST(self):
        form = dict(urllib.parse.parse_qsl(self.rfile.read(int(self.headers['content-length'])).decode(), strict_parsing=True))
        try:
            grant = form.get('grant_type')
            if grant not in GRANTS:
                return self.answer(400, error='unsupported_grant_type')
            claims = verified(form[GRANTS[grant]], self.server.issuers, self.server.audience, self.server.context)
            if claims['jti'] in self.seen:
                return self.answer(400, error='invalid_grant', error_description='the assertion was used before')
            self.seen.add(claims['jti'])
        except (jwt.PyJWTError, KeyError) as no:
            self.note(refused=str(no))
            # A vendor that repeats what it was sent.
            return self.answer(400, error='invalid_grant', error_description=f'{no} in {form.get("subject_token", "")}')
        token = 'vendor-' + secrets.token_urlsafe(24)
        self.note(**claims, grant=grant, form={k: v for k, v in form.items() if k not in GRANTS.values()}, token=token)
        special = self.server.log + '.answer'
        more = json.load(open(special)) if os.path.exists(special) else {}
        self.answer(200, **{'access_token': token, 'token_type': 'Bearer', 'expires_in': 900, **more})

    def note(self, **what):
        with open(self.server.log, 'a') as log:
            log.write(json.dumps(what) + '\n')

    def answer(self, status, **body):
        self.reply(status, {k: v for k, v in body.items() if v is not None})


def main():
    port, certificate, key, ca, log, audience, *issuers = sys.argv[1:]
    server = listening(Endpoint, port, certificate, key, ca)
    server.log, server.audience, server.issuers = log, audience, issuers
    server.serve_forever()


if __name__ == '__main__':
    main()
