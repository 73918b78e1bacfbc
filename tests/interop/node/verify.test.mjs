// An independent JOSE library verifies what mayfly issued and refuses every forgery of it.
//
// The server is the real one: a dev world in a folder of its own, as a child that this test ends.
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { createHmac, createPublicKey } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync, openSync, closeSync } from 'node:fs';
import https from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import * as jose from 'jose';

const DOMAIN = 'dev.mayfly.internal';
const ISSUER = `https://${DOMAIN}/dev`;
const AUDIENCE = 'https://echo.dev.mayfly.internal';
const binary = process.env.MAYFLY_BIN ?? fileURLToPath(new URL('../../../target/debug/mayfly', import.meta.url));

let folder, server, addresses, token, jwks, keys;

function get(path) {
  const [host, port] = ['localhost', addresses.public.split(':').at(-1)];
  const ca = readFileSync(join(folder, 'world/bundle.pem'));
  return new Promise((resolve, reject) => {
    const request = https.get({ host, port, path, ca, minVersion: 'TLSv1.3', timeout: 10_000 }, (answer) => {
      let body = '';
      answer.setEncoding('utf8').on('data', (part) => (body += part));
      answer.on('end', () => (answer.statusCode === 200 ? resolve(JSON.parse(body)) : reject(new Error(`${path}: ${answer.statusCode}`))));
    });
    request.on('error', reject).on('timeout', () => request.destroy(new Error(`${path}: no answer`)));
  });
}

before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'mayfly-node-'));
  // A home of its own: the dev server leaves a context for the command line there.
  const env = { ...process.env, HOME: folder, XDG_CONFIG_HOME: join(folder, 'config'), XDG_STATE_HOME: join(folder, 'state') };
  const log = openSync(join(folder, 'server.log'), 'w');
  server = spawn(binary, ['dev', 'up', '--dir', join(folder, 'world'), '--port', '0'], { env, stdio: ['ignore', log, log] });
  closeSync(log);
  const ready = join(folder, 'world/ready.json');
  for (let n = 0; n < 1200 && !existsSync(ready); n++) {
    assert.equal(server.exitCode, null, readFileSync(join(folder, 'server.log'), 'utf8'));
    await sleep(50);
  }
  addresses = JSON.parse(readFileSync(ready));
  const ask = ['get', 'echo', '--purpose', 'interop', '--scope', 'echo:read', '--kind', 'jwt', '--ttl', '2m'];
  token = execFileSync(binary, ['--config', join(folder, 'world/agent-demo.toml'), ...ask], { env, encoding: 'utf8' }).trim();
  jwks = await get('/dev/jwks.json');
  keys = jose.createLocalJWKSet(jwks);
});

after(async () => {
  if (server && server.exitCode === null) {
    const ended = new Promise((resolve) => server.once('exit', resolve));
    server.kill('SIGTERM');
    await ended;
  }
  rmSync(folder, { recursive: true, force: true });
});

const verify = (text, more = {}) =>
  jose.jwtVerify(text, keys, { algorithms: ['ES256'], typ: 'at+jwt', issuer: ISSUER, audience: AUDIENCE, requiredClaims: ['jti', 'client_id', 'scope'], ...more });

test('jose verifies what was issued', async () => {
  const { payload, protectedHeader } = await verify(token);
  assert.equal(protectedHeader.alg, 'ES256');
  assert.equal(payload.aud, AUDIENCE);
  assert.equal(payload.client_id, `spiffe://${DOMAIN}/agent/demo`);
  assert.equal(payload.scope, 'echo:read');
  assert.ok(payload.exp - payload.iat <= 120 && payload.exp > payload.iat);
});

test('discovery leads to the keys', async () => {
  const found = await get('/.well-known/oauth-authorization-server/dev');
  assert.equal(found.issuer, ISSUER);
  assert.equal(found.jwks_uri, `${ISSUER}/jwks.json`);
});

test('jose refuses another audience, another issuer and another type', async () => {
  await assert.rejects(verify(token, { audience: 'https://repos.dev.mayfly.internal' }), jose.errors.JWTClaimValidationFailed);
  await assert.rejects(verify(token, { issuer: `https://${DOMAIN}/prod` }), jose.errors.JWTClaimValidationFailed);
  await assert.rejects(verify(token, { typ: 'JWT' }), jose.errors.JWTClaimValidationFailed);
});

test('jose refuses every forgery', async () => {
  const [header, payload, signature] = token.split('.');
  const encode = (value) => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');
  const fields = jose.decodeProtectedHeader(token);
  const claims = jose.decodeJwt(token);
  const wider = encode({ ...claims, scope: 'echo:read echo:write' });
  const flipped = Buffer.from(signature, 'base64url');
  flipped[7] ^= 1;
  const pem = createPublicKey({ key: jwks.keys.find((k) => k.kid === fields.kid), format: 'jwk' }).export({ type: 'spki', format: 'pem' });
  const hs = `${encode({ ...fields, alg: 'HS256' })}.${wider}`;
  const { privateKey } = await jose.generateKeyPair('ES256');
  const forgeries = {
    'wider scope': `${header}.${wider}.${signature}`,
    'longer life': `${header}.${encode({ ...claims, exp: claims.exp + 3600 })}.${signature}`,
    'one bit of the signature': `${header}.${payload}.${flipped.toString('base64url')}`,
    'no signature': `${header}.${payload}.`,
    'alg none': `${encode({ ...fields, alg: 'none' })}.${payload}.`,
    'HS256 with the public key': `${hs}.${createHmac('sha256', pem).update(hs).digest('base64url')}`,
    'a key of our own': await new jose.SignJWT(claims).setProtectedHeader(fields).sign(privateKey),
  };
  for (const [name, forged] of Object.entries(forgeries)) {
    await assert.rejects(verify(forged), jose.errors.JOSEError, name);
  }
});
