// Verifying against the real server: its feed, its keys, its revocations; and the middleware in Express.
import assert from 'node:assert/strict';
import type { AddressInfo } from 'node:net';
import { readFileSync } from 'node:fs';
import type { Server } from 'node:http';
import https from 'node:https';
import { X509Certificate } from 'node:crypto';
import { after, before, test } from 'node:test';
import { once } from 'node:events';
import { inspect } from 'node:util';
import express from 'express';
import {
  argumentsDigest, Mayfly, protect, protectedResourceMetadata, Refused, Verified, type Credential, type Task, type Verifier,
} from '@mayfly/client';
import { AUDIENCE, DOMAIN, freePort, until, World } from './kit.js';

let world: World;
let agent: Mayfly;
let service: Mayfly;
let verifier: Verifier;
let server: Server;
let url: string;
let task: Task;

before(async () => {
  const port = await freePort();
  url = `http://127.0.0.1:${port}`;
  world = await World.up(url);
  agent = world.client('agent/demo', { idle: 0 });
  service = world.client('service/echo');
  verifier = await service.verifier({ issuer: world.issuer, audience: AUDIENCE, upstreams: ['echo'], follower: 'echo-1' }).ready();
  const app = express().use(express.json()).use(protectedResourceMetadata(verifier, { scopes: ['echo:read', 'echo:write'], name: 'Echo' }));
  app.post('/read', protect(verifier, { scope: 'echo:read' }), (request, response) => {
    response.json({ caller: (request as unknown as { auth: { clientId: string } }).auth.clientId, body: request.body });
  });
  app.post('/write', protect(verifier, { scope: ['echo:write'], tool: 'write', arguments: (request) => (request as unknown as { body: unknown }).body }),
    (_request, response) => void response.json({}));
  server = app.listen(port, '127.0.0.1');
  task = await agent.task({ purpose: 'verify', upstreams: { echo: ['echo:read', 'echo:write'] }, tools: 'any' });
});
after(async () => {
  server?.closeAllConnections();
  server?.close();
  await agent?.close();
  await service?.close();
  await world?.down();
});

const post = (path: string, cred: Credential | undefined, body: unknown = {}) =>
  fetch(`${cred?.baseUrl ?? url}${path}`, { method: 'POST', headers: { 'content-type': 'application/json', ...cred?.headers }, body: JSON.stringify(body) });
const reason = (work: Promise<unknown>): Promise<string> =>
  work.then(() => 'accepted', (error) => (error instanceof Refused ? error.reason : Promise.reject(error)));

test('a credential is accepted where it is for, and tells who came', async () => {
  await using cred = await task.credential('echo', { scope: 'echo:read' });
  const answer = await post('/read', cred, { a: 1 });
  assert.equal(answer.status, 200, answer.status === 200 ? '' : await answer.text());
  assert.deepEqual(await answer.json(), { caller: `spiffe://${DOMAIN}/agent/demo`, body: { a: 1 } });
  const verified = await verifier.check(cred.token.reveal(), { scope: 'echo:read' });
  assert.ok(verified instanceof Verified);
  assert.deepEqual([verified.task, verified.credentialId], [task.id, cred.credentialId]);
});

test('without a credential a service says where to get one (RFC 9728)', async () => {
  const answer = await post('/read', undefined);
  assert.equal(answer.status, 401);
  assert.equal(answer.headers.get('www-authenticate'), `Bearer resource_metadata="${AUDIENCE}/.well-known/oauth-protected-resource"`);
  const metadata = await fetch(`${url}/.well-known/oauth-protected-resource`);
  assert.deepEqual(await metadata.json(), {
    resource: AUDIENCE, authorization_servers: [world.issuer], bearer_methods_supported: ['header'], scopes_supported: ['echo:read', 'echo:write'],
    resource_name: 'Echo',
  });
  for (const authorization of ['Basic eDp5', 'Bearer', 'Bearer a b', 'bearer ', 'DPoP abc']) {
    const refused = await fetch(`${url}/read`, { method: 'POST', headers: { authorization } });
    assert.equal(refused.status, 401, authorization);
  }
  const forged = await fetch(`${url}/read?access_token=x`, { method: 'POST', headers: { authorization: 'Bearer a.b.c' } });
  assert.equal(forged.status, 401);
  assert.match(forged.headers.get('www-authenticate')!, /^Bearer error="invalid_token", error_description="[^"]*", resource_metadata="/);
});

test('the metadata of a resource with a path lies under that path', async () => {
  const app = express().use(protectedResourceMetadata(verifier, { resource: 'https://mcp.example/server/mcp' }));
  app.use('/server/mcp', protect(verifier, { resource: 'https://mcp.example/server/mcp' }));
  const other = app.listen(0, '127.0.0.1');
  await once(other, 'listening');
  const at = `http://127.0.0.1:${(other.address() as AddressInfo).port}`;
  assert.equal((await fetch(`${at}/.well-known/oauth-protected-resource/server/mcp`)).status, 200);
  assert.equal((await fetch(`${at}/.well-known/oauth-protected-resource`)).status, 404);
  assert.equal((await fetch(`${at}/server/mcp`)).headers.get('www-authenticate'),
    'Bearer resource_metadata="https://mcp.example/.well-known/oauth-protected-resource/server/mcp"');
  other.closeAllConnections();
  other.close();
});

test('a good credential for something else is 403, with the scope that is missing', async () => {
  await using read = await task.credential('echo', { scope: 'echo:read' });
  const answer = await post('/write', read);
  assert.equal(answer.status, 403);
  assert.match(answer.headers.get('www-authenticate')!, /^Bearer error="insufficient_scope", scope="echo:write", /);
  assert.equal((await answer.json() as { reason: string }).reason, 'scope');
});

test('one for a tool call serves for that call', async () => {
  const body = { b: 2, a: [1.5, 'ä'] };
  await using cred = await task.credential('echo', { scope: 'echo:write', tool: 'write', arguments: body });
  assert.equal((await post('/write', cred, { a: [1.5, 'ä'], b: 2 })).status, 200, 'the order of names says nothing (RFC 8785)');
  const other = await post('/write', cred, { ...body, b: 3 });
  assert.deepEqual([other.status, (await other.json() as { reason: string }).reason], [403, 'arguments']);
  assert.equal(await reason(verifier.check(cred.token.reveal(), { argumentsSha256: argumentsDigest(body), tool: 'write' })), 'accepted');
  assert.equal(await reason(verifier.check(cred.token.reveal(), { tool: 'other' })), 'tool');
});

test('one that is bound to an SVID needs that SVID on the TLS session', async () => {
  await using cred = await task.credential('echo', { scope: 'echo:read', boundToSvid: true });
  const { svid, key } = world.svid('agent/demo');
  assert.equal(await reason(verifier.check(cred.token.reveal())), 'possession');
  const certificateSha256 = new X509Certificate(readFileSync(svid)).fingerprint256.replaceAll(':', '').toLowerCase();
  assert.equal(await reason(verifier.check(cred.token.reveal(), { certificateSha256 })), 'accepted');
  assert.equal((await post('/read', cred)).status, 401, 'over plain HTTP nothing is proven');
  const own = world.svid('service/echo');
  const app = express().post('/read', protect(verifier), (_request, response) => void response.json({}));
  const tls = https.createServer({
    cert: readFileSync(own.svid), key: readFileSync(own.key), ca: readFileSync(world.file('bundle.pem')), requestCert: true, rejectUnauthorized: false,
  }, app).listen(0, '127.0.0.1');
  await once(tls, 'listening');
  const status = (identity: object) => new Promise<number>((resolve, reject) => {
    const { port } = tls.address() as AddressInfo;
    https.request({
      host: '127.0.0.1', port, path: '/read', method: 'POST', headers: cred.headers, rejectUnauthorized: false, agent: false, ...identity,
    }, (answer) => resolve(answer.resume().statusCode!)).on('error', reject).end();
  });
  const other = world.svid('mcp/echo');
  assert.equal(await status({ cert: readFileSync(svid), key: readFileSync(key) }), 200);
  assert.equal(await status({ cert: readFileSync(other.svid), key: readFileSync(other.key) }), 401);
  assert.equal(await status({}), 401);
  tls.closeAllConnections();
  tls.close();
});

test('what was revoked is refused as soon as the revocation was waited for', async () => {
  await using cred = await task.credential('echo', { scope: 'echo:read' });
  assert.equal((await post('/read', cred)).status, 200);
  await world.operator('revoke', '--credential', cred.credentialId, '--reason', 'test', '--wait');
  const refused = await post('/read', cred);
  assert.deepEqual([refused.status, (await refused.json() as { reason: string }).reason], [401, 'revoked']);
});

test('a held task is refused until it is resumed, and an ended one for good', async () => {
  await using held = await agent.task({ purpose: 'held', upstreams: { echo: 'echo:read' } });
  const cred = await held.credential('echo', { scope: 'echo:read' });
  const token = cred.token.reveal();
  await world.operator('task', 'hold', held.id, '--reason', 'test');
  await until('it is held', async () => (await reason(verifier.check(token))) === 'held');
  await world.operator('task', 'resume', held.id, '--reason', 'test');
  await until('it is resumed', async () => (await reason(verifier.check(token))) === 'accepted');
  await held.complete();
  await until('it is over', async () => (await reason(verifier.check(token))) === 'revoked');
});

test('an issuer that is not there is said so', async () => {
  const typo = service.verifier({ issuer: `${world.issuer}x`, audience: AUDIENCE, upstreams: ['echo'] });
  await assert.rejects(typo.ready(1_000), /NOT_FOUND: there is no issuer/);
  typo.close();
});

test('a key that began to sign is known before it is refused', async () => {
  await world.operator('key', 'rotate', '--issuer', world.issuer, '--publish-ahead', '0s');
  await using cred = await task.credential('echo', { scope: 'echo:read', purpose: 'the new key' });
  assert.equal(await reason(verifier.check(cred.token.reveal())), 'accepted');
});

test('while the server is away everything is refused in the end, and nothing that was revoked comes back', { timeout: 90_000 }, async () => {
  const cred = await task.credential('echo', { scope: 'echo:read', purpose: 'before' });
  const gone = await task.credential('echo', { scope: 'echo:read', purpose: 'revoked' });
  await world.operator('revoke', '--credential', gone.credentialId, '--reason', 'test', '--wait');
  await world.kill();
  assert.equal(await reason(verifier.check(cred.token.reveal())), 'accepted', 'for as long as the feed is young enough');
  await until('it is stale', async () => (await reason(verifier.check(cred.token.reveal()))) === 'stale', 40_000);
  const answer = await post('/read', cred);
  assert.deepEqual([answer.status, answer.headers.get('retry-after')], [503, '5']);
  await assert.rejects(verifier.ready(200), /not known yet/);
  await world.start();
  await verifier.ready(30_000);
  assert.equal(await reason(verifier.check(cred.token.reveal())), 'accepted');
  assert.equal(await reason(verifier.check(gone.token.reveal())), 'revoked');
});

test('what is left in the request shows no token where it is printed', async () => {
  await using cred = await task.credential('echo', { scope: 'echo:read', purpose: 'printed' });
  let auth: { token: string } | undefined;
  const request = { headers: { authorization: cred.headers['authorization'] }, socket: {} } as never as Parameters<ReturnType<typeof protect>>[0];
  await protect(verifier)(request, {} as never, () => { auth = request.auth as { token: string }; });
  assert.equal(auth!.token, cred.token.reveal());
  assert.ok(!inspect(auth, { depth: 10 }).includes(cred.token.reveal()) && !JSON.stringify(auth).includes(cred.token.reveal()));
  assert.equal(service.taskOf({ authInfo: auth as never, _meta: { 'mayfly/task': 'task_aaaaaaaaaaaaaaaaaaaaaaaaaa' } }), task.id, 'the token counts');
});

test('a listener that throws ends nothing in the background', async () => {
  let told = 0;
  const onError = () => {
    told++;
    throw new Error('of its own');
  };
  await using deaf = world.client('service/echo', { onError }, { MAYFLY_ADDRESS: '127.0.0.1:1' });
  deaf.verifier({ issuer: world.issuer, audience: AUDIENCE, upstreams: ['echo'] });
  await until('it tries again', () => told >= 2);
});
