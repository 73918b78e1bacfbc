// An authorization server that nobody of us wrote, oidc-provider from npm, over TLS on loopback, and an API that takes its tokens. Refresh
// tokens rotate, and a used one that comes back ends its grant.
//
//   node authorization-server.mjs DIR
//
// DIR gets what its clients need: ca.pem, client.pem and client.key for mTLS, assertion.key for assertions, and at last server.json with the
// issuer. It ends with its stdin. What is below /control is for tests:
//
//   GET  /control/tokens            what is valid: { access: [{ client, scope }], refresh: [{ client }] }
//   GET  /control/secrets          the tokens and codes
//   GET  /control/log               the requests to the token endpoint, without secrets
//   POST /control/trouble?next=N&how=503|reset|garbage|late|slow_down
//                                   the next N requests to the token endpoint fail: before they are carried out, or (late) after it
//   POST /control/hold?path=P&when=before|after
//                                   holds the next request to P, or its answer, until /control/release; /control/release?how=drop drops a
//                                   request that was held before it was carried out
//   GET  /control/held              answers once a request is held
//   POST /control/end               ends all grants
import { execFileSync } from 'node:child_process';
import { createPublicKey } from 'node:crypto';
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import https from 'node:https';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import Provider from 'oidc-provider';

const dir = process.argv[2];
const file = (name) => join(dir, name);
const openssl = (...words) => execFileSync('openssl', words, { stdio: ['ignore', 'ignore', 'pipe'] });

// An authority, and certificates of the server and of a client by it.
const p256 = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
openssl('req', '-x509', ...p256, '-keyout', file('ca.key'), '-out', file('ca.pem'), '-days', '2', '-subj', '/CN=authority of a test',
  '-addext', 'basicConstraints=critical,CA:TRUE', '-addext', 'keyUsage=critical,keyCertSign');
function certificate(name, subject, extensions) {
  writeFileSync(file(`${name}.ext`), `basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n${extensions}\n`);
  openssl('req', ...p256, '-keyout', file(`${name}.key`), '-out', file(`${name}.csr`), '-subj', subject);
  openssl('x509', '-req', '-in', file(`${name}.csr`), '-CA', file('ca.pem'), '-CAkey', file('ca.key'), '-CAcreateserial', '-days', '2',
    '-out', file(`${name}.pem`), '-extfile', file(`${name}.ext`));
}
certificate('server', '/CN=127.0.0.1', 'subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth');
certificate('client', '/CN=mayfly', 'extendedKeyUsage=clientAuth');
openssl('genpkey', '-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256', '-out', file('assertion.key'));
const assertionKey = { ...createPublicKey(readFileSync(file('assertion.key'))).export({ format: 'jwk' }), kid: 'k1', alg: 'ES256', use: 'sig' };

// The store, which tests can look into.
const stored = new Map();
class Adapter {
  constructor(kind) {
    this.kind = kind;
  }
  key(id) {
    return `${this.kind}:${id}`;
  }
  async upsert(id, payload, expiresIn) {
    stored.set(this.key(id), { payload, ends: expiresIn ? Date.now() + expiresIn * 1000 : Infinity });
  }
  async find(id) {
    const found = stored.get(this.key(id));
    return found && found.ends > Date.now() ? found.payload : undefined;
  }
  async by(name, value) {
    for (const [key, { payload }] of stored) if (key.startsWith(`${this.kind}:`) && payload[name] === value) return payload;
    return undefined;
  }
  findByUserCode(code) {
    return this.by('userCode', code);
  }
  findByUid(uid) {
    return this.by('uid', uid);
  }
  async consume(id) {
    stored.get(this.key(id)).payload.consumed = Math.floor(Date.now() / 1000);
  }
  async destroy(id) {
    stored.delete(this.key(id));
  }
  async revokeByGrantId(grant) {
    for (const [key, { payload }] of stored) if (payload.grantId === grant) stored.delete(key);
  }
}
const valid = (kind) => [...stored].filter(([key, { payload, ends }]) => key.startsWith(`${kind}:`) && ends > Date.now() && !payload.consumed);

const trouble = { next: 0, how: '' };
// The request that is to be held, and what waits for it.
let hold, held, release;
const holding = async (path, when) => {
  if (hold?.path !== path || hold.when !== when) return;
  hold = undefined;
  held.resolve();
  return release.promise;
};
const promise = () => {
  let resolve;
  const made = new Promise((done) => (resolve = done));
  return { promise: made, resolve };
};
const log = [];
let provider;
const tls = { key: readFileSync(file('server.key')), cert: readFileSync(file('server.pem')), ca: readFileSync(file('ca.pem')), requestCert: true,
  rejectUnauthorized: false, minVersion: 'TLSv1.3' };
const listener = https.createServer(tls, (request, answer) => provider.callback()(request, answer));
await new Promise((resolve) => listener.listen(Number(process.env.OAUTH_TEST_PORT ?? 0), '127.0.0.1', resolve));
const issuer = `https://127.0.0.1:${listener.address().port}`;

const SCOPES = ['api:read', 'api:write', 'offline_access', 'openid'];
const life = Number(process.env.OAUTH_TEST_LIFE ?? 600);
const machine = { grant_types: ['client_credentials'], redirect_uris: [], response_types: [] };
const person = {
  application_type: 'native',
  grant_types: ['authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code'],
  redirect_uris: ['http://127.0.0.1/callback'],
  response_types: ['code'],
};
provider = new Provider(issuer, {
  adapter: Adapter,
  clients: [
    { client_id: 'basic', client_secret: 'basic-marker:5c1%', token_endpoint_auth_method: 'client_secret_basic', ...machine },
    { client_id: 'post', client_secret: 'post-marker-91b7', token_endpoint_auth_method: 'client_secret_post', ...machine },
    { client_id: 'signed', jwks: { keys: [assertionKey] }, token_endpoint_auth_method: 'private_key_jwt',
      token_endpoint_auth_signing_alg: 'ES256', ...machine },
    { client_id: 'mutual', token_endpoint_auth_method: 'tls_client_auth', tls_client_auth_subject_dn: 'CN=mayfly', ...machine },
    { client_id: 'app', client_secret: 'app-marker-2b88', token_endpoint_auth_method: 'client_secret_basic', ...person },
    { client_id: 'public', token_endpoint_auth_method: 'none', ...person },
  ],
  scopes: SCOPES,
  clientAuthMethods: ['client_secret_basic', 'client_secret_post', 'private_key_jwt', 'tls_client_auth', 'none'],
  features: {
    clientCredentials: { enabled: true },
    deviceFlow: { enabled: true },
    devInteractions: { enabled: false },
    introspection: { enabled: true },
    revocation: { enabled: true },
    mTLS: {
      enabled: true,
      tlsClientAuth: true,
      getCertificate: (ctx) => {
        const peer = ctx.socket.getPeerX509Certificate?.();
        return peer?.toString();
      },
      certificateAuthorized: (ctx) => ctx.socket.authorized,
      certificateSubjectMatches: (ctx, property, expected) =>
        property === 'tls_client_auth_subject_dn' && ctx.socket.getPeerX509Certificate().subject === expected,
    },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (_, resource) => {
        if (resource !== `${issuer}/api`) throw new Error('no such resource');
        return { scope: 'api:read api:write', accessTokenFormat: 'opaque', accessTokenTTL: life };
      },
      useGrantedResource: () => false,
    },
  },
  pkce: { required: () => true },
  rotateRefreshToken: true,
  issueRefreshToken: (_, client) => client.grantTypeAllowed('refresh_token'),
  ttl: { AccessToken: life, ClientCredentials: life, RefreshToken: 86400, Grant: 86400, Session: 86400, Interaction: 600, DeviceCode: 600, AuthorizationCode: 60 },
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
  cookies: { keys: ['a key for tests'] },
});
provider.on('server_error', (_, error) => console.error('server:', error));

provider.use(async (ctx, next) => {
  const { path } = ctx;
  if (path === '/api/me') {
    const token = /^Bearer (.+)$/.exec(ctx.get('authorization'))?.[1] ?? '';
    const found = (await provider.AccessToken.find(token)) ?? (await provider.ClientCredentials.find(token));
    ctx.status = found ? 200 : 401;
    ctx.body = found ? { client: found.clientId, scope: found.scope } : { error: 'invalid_token' };
    return;
  }
  if (path === '/control/tokens') {
    const access = [...valid('AccessToken'), ...valid('ClientCredentials')].map(([, { payload }]) => ({ client: payload.clientId, scope: payload.scope }));
    ctx.body = { access, refresh: valid('RefreshToken').map(([, { payload }]) => ({ client: payload.clientId })) };
    return;
  }
  if (path === '/control/secrets') {
    ctx.body = [...stored.values()].flatMap(({ payload }) => (['RefreshToken', 'AccessToken', 'AuthorizationCode'].includes(payload.kind) ? [payload.jti] : []));
    return;
  }
  if (path === '/control/log') {
    ctx.body = log;
    return;
  }
  if (path === '/control/trouble') {
    Object.assign(trouble, { next: Number(ctx.query.next), how: ctx.query.how });
    ctx.body = {};
    return;
  }
  if (path === '/control/hold') {
    [hold, held, release] = [{ path: ctx.query.path, when: ctx.query.when }, promise(), promise()];
    ctx.body = {};
    return;
  }
  if (path === '/control/held') {
    await held.promise;
    ctx.body = {};
    return;
  }
  if (path === '/control/release') {
    release.resolve(ctx.query.how);
    ctx.body = {};
    return;
  }
  if (path === '/control/end') {
    for (const key of [...stored.keys()]) if (/^(Grant|RefreshToken|AccessToken):/.test(key)) stored.delete(key);
    ctx.body = {};
    return;
  }
  if (path.startsWith('/interaction/')) return interaction(ctx);
  if ((await holding(path, 'before')) === 'drop') {
    ctx.req.socket.destroy();
    return;
  }
  await answered(ctx, next);
  await holding(path, 'after');
});

async function answered(ctx, next) {
  if (ctx.path !== '/token') return next();
  const how = trouble.next > 0 ? (trouble.next--, trouble.how) : '';
  if (how === '503') {
    [ctx.status, ctx.body] = [503, 'busy'];
    return;
  }
  if (how === 'slow_down') {
    [ctx.status, ctx.body] = [400, { error: 'slow_down' }];
    return;
  }
  if (how === 'garbage') {
    ctx.body = '<html>';
    return;
  }
  if (how === 'reset') {
    ctx.req.socket.destroy();
    return;
  }
  await next();
  const { grant_type, scope, resource } = ctx.oidc?.params ?? {};
  log.push({ client: ctx.oidc?.client?.clientId, grant_type, scope, resource, status: ctx.status, error: ctx.body?.error });
  if (how === 'late') await sleep(60_000);
}

// One page for each interaction: it asks for a name and lets everything through that was asked for.
async function interaction(ctx) {
  const details = await provider.interactionDetails(ctx.req, ctx.res);
  if (ctx.method === 'GET') {
    ctx.type = 'html';
    ctx.body = `<form method="post" action="${ctx.path}"><input name="login"><input name="go"></form>`;
    return;
  }
  let body = '';
  for await (const part of ctx.req) body += part;
  const login = new URLSearchParams(body).get('login');
  if (details.prompt.name === 'login') {
    await provider.interactionFinished(ctx.req, ctx.res, { login: { accountId: login } }, { mergeWithLastSubmission: false });
  } else {
    const grant = details.grantId
      ? await provider.Grant.find(details.grantId)
      : new provider.Grant({ accountId: details.session.accountId, clientId: details.params.client_id });
    const scope = details.params.scope ?? '';
    grant.addOIDCScope(scope);
    if (details.params.resource) grant.addResourceScope(details.params.resource, scope);
    await provider.interactionFinished(ctx.req, ctx.res, { consent: { grantId: await grant.save() } }, { mergeWithLastSubmission: true });
  }
  ctx.respond = false;
}

writeFileSync(file('server.json.new'), JSON.stringify({ issuer, pid: process.pid }));
renameSync(file('server.json.new'), file('server.json'));
process.stdin.resume().on('end', () => process.exit(0)).on('error', () => process.exit(0));
