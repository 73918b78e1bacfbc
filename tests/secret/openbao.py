"""The JWT login and the KV engines of OpenBao over TLS, as far as mayfly asks for them. Assertions are verified with PyJWT.

    openbao.py PORT CERTIFICATE KEY CA STATE ISSUER

STATE is a JSON file that the test writes, read at each request: `secrets` by path of the API, `bound` (the claims that the role wants),
`status` to answer every read with. LOG is STATE.log: a line of JSON for each request, without its secrets.
"""
import json
import secrets
import sys
from pathlib import Path

import jwt

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / 'federation'))
from token_endpoint import JsonEndpoint, listening, verified  # noqa: E402


class Bao(JsonEndpoint):
    tokens = set()

    def state(self):
        return json.loads(Path(self.server.state).read_text())

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers.get('content-length') or 0)) or b'{}')
        if self.path == '/v1/auth/jwt/login':
            return self.login(body)
        if self.path == '/v1/auth/token/revoke-self':
            known = self.headers.get('x-vault-token') in self.tokens
            self.tokens.discard(self.headers.get('x-vault-token'))
            self.note(path=self.path, known=known)
            return self.reply(204 if known else 403, None)
        self.reply(404, {'errors': []})

    def login(self, body):
        state = self.state()
        try:
            claims = verified(body['jwt'], [self.server.issuer], state['audience'], self.server.context)
            wrong = {k: claims.get(k) for k, v in state['bound'].items() if claims.get(k) != v}
            if body['role'] != state['role'] or wrong:
                raise jwt.InvalidTokenError(f'role {body["role"]}: error validating claims {wrong}')
        except (jwt.PyJWTError, KeyError) as no:
            self.note(path=self.path, refused=str(no))
            # A server that repeats what it was sent.
            return self.reply(400, {'errors': [f'{no} in {body.get("jwt")}']})
        token = 'hvs.' + secrets.token_urlsafe(24)
        self.tokens.add(token)
        self.note(path=self.path, claims=claims, namespace=self.headers.get('x-vault-namespace'))
        self.reply(200, {'auth': {'client_token': token, 'lease_duration': 60, 'renewable': False}, 'data': None})

    def do_GET(self):
        state = self.state()
        known = self.headers.get('x-vault-token') in self.tokens
        self.note(path=self.path, known=known)
        if not known or self.headers.get('x-vault-request') != 'true':
            return self.reply(403, {'errors': ['permission denied']})
        if state.get('status'):
            return self.reply(state['status'], {'errors': ['Vault is sealed']})
        found = state['secrets'].get(self.path)
        if found is None:
            return self.reply(404, {'errors': []})
        self.reply(200, {'request_id': secrets.token_hex(8), 'lease_id': '', 'data': found, 'warnings': None})

    def note(self, **what):
        with open(self.server.state + '.log', 'a') as log:
            log.write(json.dumps(what) + '\n')


def main():
    port, certificate, key, ca, state, issuer = sys.argv[1:]
    server = listening(Bao, port, certificate, key, ca)
    server.state, server.issuer = state, issuer
    server.serve_forever()


if __name__ == '__main__':
    main()
