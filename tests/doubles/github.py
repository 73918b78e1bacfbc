"""A double of GitHub's REST API, version 2022-11-28, as far as apps and their installations go: over real TLS, with the status codes, headers,
messages and shapes that https://docs.github.com/rest documents. The app's assertions are verified by PyJWT.

    python tests/doubles/github.py --dir DIR [--prefix /api/v3]

writes into DIR: ca.pem (the authority of the server's certificate, for localhost and 127.0.0.1), app.pem (the private key of the app, PKCS #1 as
GitHub gives it), and at last double.json (the ports). It ends when its standard input is closed.

The second port is for tests, plain HTTP on loopback: GET /state, POST /set, /hold, /release, /wait-held. What it says of tokens are their
SHA-256 digests, as GitHub's audit log does; a token itself is in the answer that made it and nowhere else.
"""
import argparse
import base64
import datetime
import hashlib
import http.server
import ipaddress
import json
import pathlib
import re
import secrets
import ssl
import string
import sys
import threading
import time

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

APP_ID, CLIENT_ID, SLUG = 314159, 'Iv23liMayflyDouble01', 'mayfly-double'
INSTALLATION, OTHER_INSTALLATION = 424242, 434343
LEVELS = {'read': 1, 'write': 2, 'admin': 3}
DOCS = 'https://docs.github.com/rest'


class Double:
    """The state of GitHub."""

    def __init__(self, prefix):
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.prefix = prefix
        self.app_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.settings = {
            'permissions': {'metadata': 'read', 'contents': 'write', 'issues': 'write', 'pull_requests': 'read'},
            # The repositories of the installation.
            'repositories': {'1296269': 'octo-org/site', '1296270': 'octo-org/tools', '1296271': 'octo-org/wiki'},
            # Repositories of another installation.
            'elsewhere': {'999': 'other-org/private'},
            'repository_selection': 'selected',
            'suspended': False,
            # The next answers: {'match': 'POST /app/…', 'status': …, 'headers': {…}, 'message': …, 'times': n}.
            'answers': [],
            # Permissions that are added to those asked for, as a faulty server might.
            'more_permissions': {},
            # The next token's answer is lost: the connection ends after it was made.
            'lose': 0,
            'token_seconds': 3600,
            # How far this server's clock is ahead, seconds.
            'ahead': 0,
        }
        self.tokens = {}
        self.made = self.deleted = 0
        self.hold = None
        self.held = False
        self.requests = []
        self.assertions = []

    def now(self):
        return time.time() + self.settings['ahead']

    def live(self):
        now = self.now()
        return {digest: token for digest, token in self.tokens.items() if token['expires'] > now}

    def wait(self, line, when):
        """Holds a request as a test asked for it."""
        with self.lock:
            if self.hold is None or self.held or self.hold['when'] != when or not re.search(self.hold['match'], line):
                return
            self.held = True
            self.changed.notify_all()
            while self.held:
                self.changed.wait()


class Refused(Exception):
    def __init__(self, status, message, headers=None, **more):
        super().__init__(message)
        self.status, self.headers = status, headers or {}
        self.body = {'message': message, **more, 'documentation_url': DOCS, 'status': str(status)}


class Lost(Exception):
    """The connection ends without an answer."""


def moment(seconds):
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime('%Y-%m-%dT%H:%M:%SZ')


def account(login):
    return {'login': login, 'id': 9919, 'node_id': 'MDEyOk9yZ2FuaXphdGlvbjk5MTk=', 'url': f'https://api.github.com/users/{login}',
            'html_url': f'https://github.com/{login}', 'type': 'Organization', 'site_admin': False}


def repository(number, full_name):
    owner, name = full_name.split('/')
    api = f'https://api.github.com/repos/{full_name}'
    # The URLs are what makes GitHub's descriptions long.
    kinds = ['forks', 'keys', 'collaborators', 'teams', 'hooks', 'issue_events', 'events', 'assignees', 'branches', 'tags', 'git_blobs',
             'git_tags', 'git_refs', 'git_trees', 'statuses', 'languages', 'stargazers', 'contributors', 'subscribers', 'subscription',
             'commits', 'git_commits', 'comments', 'issue_comment', 'contents', 'compare', 'merges', 'archive', 'downloads', 'issues',
             'pulls', 'milestones', 'notifications', 'labels', 'releases', 'deployments']
    return {'id': int(number), 'node_id': base64.b64encode(f'010:Repository{number}'.encode()).decode(), 'name': name,
            'full_name': full_name, 'private': True, 'owner': account(owner), 'html_url': f'https://github.com/{full_name}',
            'description': None, 'fork': False, 'url': api, **{f'{kind}_url': f'{api}/{kind}' for kind in kinds},
            'default_branch': 'main', 'visibility': 'private', 'archived': False, 'disabled': False,
            'permissions': {'admin': False, 'push': False, 'pull': False}}


def installation(double, number):
    with double.lock:
        state = double.settings
        suspended = moment(double.now() - 60) if state['suspended'] else None
        return {'id': number, 'account': account('octo-org'),
                'access_tokens_url': f'https://api.github.com/app/installations/{number}/access_tokens',
                'repositories_url': 'https://api.github.com/installation/repositories',
                'html_url': f'https://github.com/organizations/octo-org/settings/installations/{number}', 'app_id': APP_ID,
                'target_id': 9919, 'target_type': 'Organization', 'permissions': dict(state['permissions']), 'events': [],
                'created_at': '2026-01-01T00:00:00Z', 'updated_at': '2026-01-01T00:00:00Z', 'single_file_name': None,
                'has_multiple_single_files': False, 'single_file_paths': [], 'app_slug': SLUG,
                'repository_selection': state['repository_selection'], 'suspended_at': suspended,
                'suspended_by': account('owner') if suspended else None}


class Api(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    double = None

    def log_message(self, *_):
        pass

    def version_string(self):
        return 'github.com'

    def answer(self, status, body=None, headers=None):
        data = b'' if body is None else json.dumps(body).encode()
        self.send_response(status)
        state = {'x-github-api-version-selected': '2022-11-28', 'x-github-media-type': 'github.v3; format=json',
                 'x-ratelimit-limit': '5000', 'x-ratelimit-remaining': '4987', 'x-ratelimit-used': '13', 'x-ratelimit-resource': 'core',
                 'x-ratelimit-reset': str(int(self.double.now()) + 1800), 'x-github-request-id': secrets.token_hex(12),
                 'strict-transport-security': 'max-age=31536000; includeSubdomains; preload', 'x-content-type-options': 'nosniff'}
        if body is not None:
            state['content-type'] = 'application/json; charset=utf-8'
        state.update(headers or {})
        for name, value in state.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header('content-length', str(len(data)))
        self.end_headers()
        if status != 204:
            self.wfile.write(data)

    def do_GET(self):
        self.serve()

    do_POST = do_DELETE = do_PATCH = do_PUT = do_GET

    def serve(self):
        double = self.double
        line = f'{self.command} {self.path}'
        length = int(self.headers.get('content-length') or 0)
        body = self.rfile.read(length) if length else b''
        double.wait(line, 'before')
        try:
            status, answer, headers = self.carry_out(line, body)
        except Refused as no:
            status, answer, headers = no.status, no.body, no.headers
        except Lost:
            self.close_connection = True
            return
        with double.lock:
            double.requests.append([line, status])
        double.wait(line, 'after')
        self.answer(status, answer, headers)

    def carry_out(self, line, body):
        double = self.double
        if not self.headers.get('user-agent'):
            raise Refused(403, 'Request forbidden by administrative rules. Please make sure your request has a User-Agent header')
        version = self.headers.get('x-github-api-version')
        if version not in (None, '2022-11-28'):
            raise Refused(400, f'Version {version} is not a supported version')
        accept = self.headers.get('accept', '*/*')
        if not any(kind in accept for kind in ('application/vnd.github', 'application/json', '*/*')):
            raise Refused(415, 'Unsupported \'Accept\' header')
        with double.lock:
            for planned in double.settings['answers']:
                if planned.get('times', 1) > 0 and re.search(planned['match'], line):
                    planned['times'] = planned.get('times', 1) - 1
                    raise Refused(planned['status'], planned.get('message', 'as a test asked for'), planned.get('headers'))
        path = self.path.split('?')[0]
        if not path.startswith(double.prefix):
            raise Refused(404, 'Not Found')
        path = path[len(double.prefix):]
        routes = [('POST', r'/app/installations/(\d+)/access_tokens', self.mint), ('GET', r'/app/installations/(\d+)', self.installation),
                  ('GET', r'/repos/([^/]+/[^/]+)/installation', self.of_repository),
                  ('GET', r'/installation/repositories', self.repositories), ('DELETE', r'/installation/token', self.revoke),
                  ('GET', r'/repos/([^/]+/[^/]+)', self.repository), ('GET', r'/repos/([^/]+/[^/]+)/issues', self.issues),
                  ('POST', r'/repos/([^/]+/[^/]+)/issues', self.new_issue)]
        for method, pattern, route in routes:
            match = re.fullmatch(pattern, path)
            if match and method == self.command:
                return route(body, *match.groups())
        raise Refused(404, 'Not Found')

    def bearer(self):
        scheme, _, value = self.headers.get('authorization', '').partition(' ')
        return value.strip() if scheme.lower() in ('bearer', 'token') else ''

    def as_app(self):
        """Who the assertion says is calling, verified as GitHub documents it."""
        text = self.bearer()
        undecodable = Refused(401, 'A JSON web token could not be decoded')
        now = self.double.now()
        try:
            header = jwt.get_unverified_header(text)
            claims = jwt.decode(text, self.double.app_key.public_key(), algorithms=['RS256'],
                                options={'require': ['exp', 'iat', 'iss'], 'verify_exp': False, 'verify_iat': False, 'verify_aud': False})
        except jwt.InvalidTokenError:
            raise undecodable
        if header != {'alg': 'RS256', 'typ': 'JWT'} or any(type(claims[name]) is not int for name in ('iat', 'exp')):
            raise undecodable
        if claims['exp'] <= now:
            raise Refused(401, "'Expiration time' claim ('exp') must be a numeric value representing the future time at which the assertion "
                               'expires')
        if claims['exp'] > now + 600:
            raise Refused(401, "'Expiration time' claim ('exp') is too far in the future")
        if claims['iat'] > now:
            raise Refused(401, "'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued")
        with self.double.lock:
            self.double.assertions.append({'header': header, 'claims': claims, 'at': now})
        if str(claims['iss']) not in (str(APP_ID), CLIENT_ID):
            raise Refused(404, 'Integration not found')

    def as_installation(self):
        digest = hashlib.sha256(self.bearer().encode()).hexdigest()
        with self.double.lock:
            token = self.double.live().get(digest)
            if token is None:
                raise Refused(401, 'Bad credentials')
            if self.double.settings['suspended']:
                raise Refused(403, 'This installation has been suspended')
            return digest, token

    def mint(self, body, number):
        double = self.double
        self.as_app()
        with double.lock:
            state = double.settings
            if int(number) != INSTALLATION:
                raise Refused(404, 'Not Found')
            if state['suspended']:
                raise Refused(403, 'This installation has been suspended')
            try:
                asked = json.loads(body or b'{}')
            except ValueError:
                raise Refused(400, 'Problems parsing JSON')
            permissions = asked.get('permissions', state['permissions'])
            if not isinstance(permissions, dict) or any(level not in LEVELS for level in permissions.values()):
                raise Refused(422, 'Invalid request.\n\nInvalid property /permissions: it is not of a known level.')
            for name, level in permissions.items():
                if LEVELS[level] > LEVELS.get(state['permissions'].get(name), 0):
                    raise Refused(422, 'The permissions requested are not granted to this installation.')
            numbers = asked.get('repository_ids')
            if numbers is not None:
                if not isinstance(numbers, list) or len(numbers) > 500 or any(type(one) is not int for one in numbers):
                    raise Refused(422, 'Invalid request.\n\nFor \'items/0\', it is not an integer.')
                if any(str(one) not in state['repositories'] for one in numbers):
                    raise Refused(422, 'There is at least one repository that does not exist or is not accessible to the parent '
                                       'installation.')
            token = 'ghs_' + ''.join(secrets.choice(string.ascii_letters + string.digits) for _ in range(36))
            expires = double.now() + state['token_seconds']
            given = {**permissions, 'metadata': permissions.get('metadata', 'read'), **state['more_permissions']}
            reached = [str(one) for one in numbers] if numbers is not None else list(state['repositories'])
            double.tokens[hashlib.sha256(token.encode()).hexdigest()] = {
                'expires': expires, 'permissions': given, 'repositories': reached, 'narrowed': numbers is not None}
            double.made += 1
            if state['lose'] > 0:
                state['lose'] -= 1
                raise Lost()
            answer = {'token': token, 'expires_at': moment(expires), 'permissions': given,
                      'repository_selection': 'selected' if numbers is not None else state['repository_selection']}
            if numbers is not None:
                answer['repositories'] = [repository(one, state['repositories'][one]) for one in reached]
            return 201, answer, {}

    def installation(self, _, number):
        self.as_app()
        if int(number) != INSTALLATION:
            raise Refused(404, 'Not Found')
        return 200, installation(self.double, INSTALLATION), {}

    def of_repository(self, _, name):
        self.as_app()
        with self.double.lock:
            if name in self.double.settings['repositories'].values():
                return 200, installation(self.double, INSTALLATION), {}
            if name in self.double.settings['elsewhere'].values():
                return 200, installation(self.double, OTHER_INSTALLATION), {}
        raise Refused(404, 'Not Found')

    def repositories(self, _):
        _, token = self.as_installation()
        with self.double.lock:
            names = self.double.settings['repositories']
            found = [repository(one, names[one]) for one in token['repositories'] if one in names]
        query = dict(part.split('=') for part in self.path.partition('?')[2].split('&') if '=' in part)
        page = min(int(query.get('per_page', 30)), 100)
        selection = 'selected' if token['narrowed'] else self.double.settings['repository_selection']
        return 200, {'total_count': len(found), 'repository_selection': selection, 'repositories': found[:page]}, {}

    def revoke(self, _):
        digest, _ = self.as_installation()
        with self.double.lock:
            del self.double.tokens[digest]
            self.double.deleted += 1
        return 204, None, {}

    def within(self, name, permission, level):
        """The repository, if the token may do that there. What a token does not see does not exist for it."""
        _, token = self.as_installation()
        with self.double.lock:
            number = next((one for one, known in self.double.settings['repositories'].items() if known == name), None)
        if number is None or number not in token['repositories']:
            raise Refused(404, 'Not Found')
        if LEVELS.get(token['permissions'].get(permission), 0) < LEVELS[level]:
            raise Refused(403, 'Resource not accessible by integration')
        return repository(number, name)

    def repository(self, _, name):
        return 200, self.within(name, 'metadata', 'read'), {}

    def issues(self, _, name):
        self.within(name, 'issues', 'read')
        return 200, [{'id': 1, 'number': 17, 'title': 'the lamp is broken', 'state': 'open', 'user': account('ada')}], {}

    def new_issue(self, body, name):
        self.within(name, 'issues', 'write')
        return 201, {'id': 2, 'number': 18, 'title': json.loads(body)['title'], 'state': 'open', 'user': account('mayfly-double[bot]')}, {}


class TlsServer(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address, handler, context):
        super().__init__(address, handler)
        self.context = context

    def finish_request(self, request, client_address):
        # In the thread of the connection, so that a client that does not speak delays nobody.
        request.settimeout(60)
        try:
            with self.context.wrap_socket(request, server_side=True) as tls:
                self.RequestHandlerClass(tls, client_address, self)
        except (OSError, ssl.SSLError):
            pass

    def handle_error(self, *_):
        pass


class Control(http.server.BaseHTTPRequestHandler):
    """What tests see and change."""
    double = None

    def log_message(self, *_):
        pass

    def answer(self, body):
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header('content-length', str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        double = self.double
        with double.lock:
            live = [{'digest': digest, **token} for digest, token in double.live().items()]
            self.answer({'live': live, 'made': double.made, 'deleted': double.deleted, 'requests': double.requests,
                         'assertions': double.assertions, 'held': double.held, 'settings': double.settings})

    def do_POST(self):
        double = self.double
        asked = json.loads(self.rfile.read(int(self.headers.get('content-length') or 0)) or b'{}')
        with double.lock:
            if self.path == '/set':
                unknown = set(asked) - set(double.settings)
                assert not unknown, unknown
                double.settings.update(asked)
            elif self.path == '/hold':
                double.hold, double.held = asked, False
            elif self.path == '/release':
                double.hold, double.held = None, False
                double.changed.notify_all()
            elif self.path == '/wait-held':
                double.changed.wait_for(lambda: double.held, timeout=60)
            self.answer({'held': double.held})


def certificates(folder):
    now = datetime.datetime.now(datetime.timezone.utc)
    span = {'not_valid_before': now - datetime.timedelta(hours=1), 'not_valid_after': now + datetime.timedelta(days=2)}

    def certificate(common_name, key, issuer, issuer_key, extensions):
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        builder = x509.CertificateBuilder(issuer_name=issuer or name, subject_name=name, public_key=key.public_key(),
                                          serial_number=x509.random_serial_number(), **span)
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(issuer_key, hashes.SHA256())

    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca = certificate('authority of the double', ca_key, None, ca_key, [(x509.BasicConstraints(ca=True, path_length=0), True)])
    names = x509.SubjectAlternativeName([x509.DNSName('localhost'), x509.IPAddress(ipaddress.ip_address('127.0.0.1'))])
    leaf = certificate('github double', key, ca.subject, ca_key, [(names, False), (x509.BasicConstraints(ca=False, path_length=None), True)])
    pem = serialization.Encoding.PEM
    (folder / 'ca.pem').write_bytes(ca.public_bytes(pem))
    (folder / 'server.pem').write_bytes(leaf.public_bytes(pem) + key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return folder / 'server.pem'


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument('--dir', type=pathlib.Path, required=True)
    arguments.add_argument('--prefix', default='')
    arguments = arguments.parse_args()
    double = Double(arguments.prefix)
    Api.double = Control.double = double
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(certificates(arguments.dir))
    (arguments.dir / 'app.pem').write_bytes(double.app_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()))
    api = TlsServer(('127.0.0.1', 0), Api, context)
    control = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Control)
    control.daemon_threads = True
    for server in (api, control):
        threading.Thread(target=server.serve_forever, daemon=True).start()
    ready = arguments.dir / 'double.new'
    ready.write_text(json.dumps({'port': api.server_port, 'control': control.server_port, 'app': CLIENT_ID, 'app_id': APP_ID,
                                 'installation': INSTALLATION}))
    ready.rename(arguments.dir / 'double.json')
    sys.stdin.read()


if __name__ == '__main__':
    main()
