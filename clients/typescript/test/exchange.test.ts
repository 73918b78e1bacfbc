// What somebody gets who calls: against the real server.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { format, inspect } from 'node:util';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { decodeJwt } from 'jose';
import { Closed, CredentialHeaders, Denied, InvalidRequest, Mayfly, NotActive, NotFound, Secret, type Credential } from '@mayfly/client';
import { AUDIENCE, DOMAIN, until, World } from './kit.js';

let world: World;
let mayfly: Mayfly;

before(async () => {
  world = await World.up('http://127.0.0.1:7780/');
  mayfly = world.client('agent/demo');
});
after(async () => {
  await mayfly?.close();
  await world?.down();
});

const open = (more: object = {}) => mayfly.task({ purpose: 'a test', upstreams: { echo: ['echo:read', 'echo:write'] }, tools: 'any', ...more });
const issued = async (task: string) => (await world.records('credential issued', task)).length;

test('a credential is had, shown and given back, and its task with it', async () => {
  let id: string;
  {
    await using cred = await mayfly.credential('echo', { scope: ['echo:read'], tool: 'search', purpose: 'a test', ttl: 120 });
    const claims = decodeJwt(cred.token.reveal());
    assert.deepEqual([claims.aud, claims.jti, claims['scope']], [AUDIENCE, cred.credentialId, 'echo:read']);
    assert.equal(cred.headers['authorization'], `Bearer ${cred.token.reveal()}`);
    assert.equal(cred.baseUrl, 'http://127.0.0.1:7780');
    assert.deepEqual([cred.kind, cred.upstream, cred.scopes, cred.repeated], ['jwt', 'echo', ['echo:read'], false]);
    assert.equal(cred.expiresAt.getTime() / 1000, claims.exp);
    assert.ok(cred.remaining > 100 && cred.remaining <= 120);
    id = cred.taskId;
  }
  const task = await world.operator<{ state: string }>('task', 'show', id);
  assert.equal(task.state, 'completed');
});

test('equal requests under way share one exchange, and those after it the credential', async () => {
  await using task = await open();
  const ask = { scope: 'echo:read', task, purpose: 'shared' };
  const held = await Promise.all(Array.from({ length: 50 }, () => mayfly.credential('echo', ask)));
  await using later = await mayfly.credential('echo', ask);
  assert.equal(new Set([...held, later].map((cred) => cred.credentialId)).size, 1);
  assert.equal(await issued(task.id), 1);
  await using other = await mayfly.credential('echo', { ...ask, purpose: 'another' });
  assert.notEqual(other.credentialId, later.credentialId);
  assert.equal(await issued(task.id), 2);
  for (const cred of held) await cred.release();
});

test('one with arguments, or with a task of its own, is shared with nobody', async () => {
  await using task = await open();
  const ask = { scope: 'echo:read', task, tool: 'search', arguments: { query: 'x' } };
  const [a, b] = await Promise.all([task.credential('echo', ask), task.credential('echo', ask)]);
  assert.notEqual(a.credentialId, b.credentialId);
  const inline = { scope: 'echo:read', purpose: 'inline' };
  const [c, d] = await Promise.all([mayfly.credential('echo', inline), mayfly.credential('echo', inline)]);
  assert.notEqual(c.taskId, d.taskId);
  await Promise.all([a, b, c, d].map((cred) => cred.release()));
});

test('the last holder gives a shared one back, after a while or at once', async () => {
  await using task = await open();
  await using eager = world.client('agent/demo', { idle: 0 });
  const ask = { scope: 'echo:read', task };
  const [a, b] = await Promise.all([eager.credential('echo', ask), eager.credential('echo', ask)]);
  const state = async (cred: Credential) => (await world.operator<{ state: string }>('credential', 'show', cred.credentialId)).state;
  await a.release();
  await a.release();
  assert.equal(await state(b), 'active');
  await b.release();
  assert.equal(await state(b), 'released');
  await using brief = world.client('agent/demo', { idle: 1 });
  const kept = await brief.credential('echo', ask);
  await kept.release();
  const again = await brief.credential('echo', ask);
  assert.equal(again.credentialId, kept.credentialId, 'it is had again while it is kept');
  await sleep(1_500);
  assert.equal(await state(kept), 'active', 'not given back while it is held');
  await again.release();
  await until('it is given back', async () => (await state(kept)) === 'released');
});

test('closing gives everything back, whoever holds it', async () => {
  const client = world.client('agent/demo');
  const task = await client.task({ purpose: 'closing', upstreams: { echo: 'echo:read' } });
  const cred = await client.credential('echo', { scope: 'echo:read', task });
  await client.close();
  assert.equal((await world.operator<{ state: string }>('credential', 'show', cred.credentialId)).state, 'released');
  await assert.rejects(client.credential('echo', { scope: 'echo:read', task }), Closed);
});

test('what is under way when the client closes is given back, too', async () => {
  await using task = await open();
  const client = world.client('agent/demo');
  const asked = client.credential('echo', { scope: 'echo:read', task, tool: 'search', arguments: { n: 1 } });
  await sleep(1);
  await client.close();
  const cred = await asked;
  assert.equal((await world.operator<{ state: string }>('credential', 'show', cred.credentialId)).state, 'released');
});

test('shortly before it ends another one is had', async () => {
  await using task = await open();
  const ask = { scope: 'echo:read', task, ttl: 2 };
  await using first = await mayfly.credential('echo', ask);
  await sleep(1_950);
  await using second = await mayfly.credential('echo', ask);
  assert.notEqual(first.credentialId, second.credentialId);
});

test('renewing changes what every holder shows', async () => {
  await using task = await open();
  const ask = { scope: 'echo:read', task };
  await using a = await mayfly.credential('echo', ask);
  await using b = await mayfly.credential('echo', ask);
  const before = a.credentialId;
  await Promise.all([a.renew(), b.renew()]);
  assert.notEqual(a.credentialId, before);
  assert.equal(a.credentialId, b.credentialId);
  assert.equal(decodeJwt(b.token.reveal()).jti, b.credentialId);
});

test('a refusal says why, by which rule, and is not tried again', async () => {
  await using task = await open();
  const refused = await mayfly.credential('echo', { scope: 'echo:admin', task }).then(() => assert.fail('given'), (error) => error as Denied);
  assert.ok(refused instanceof Denied);
  assert.equal(refused.reason, 'OUTSIDE_TASK');
  assert.ok(!format('%o %s %j', refused, refused, refused).includes('Bearer'));
  await assert.rejects(mayfly.credential('nothing', { scope: 'a', purpose: 'x' }), (error) => error instanceof NotFound || error instanceof Denied);
  const invalid = await mayfly.credential('echo', { scope: Array(9).fill('echo:read'), purpose: 'x' }).catch((error: unknown) => error);
  assert.ok(invalid instanceof InvalidRequest && invalid.fieldViolations.length > 0, inspect(invalid));
  assert.match(invalid.fieldViolations[0]!.field, /scopes/);
});

test('a denied call is sent once', async () => {
  await using job = world.client('ci/demo');
  const refusals = async () => (await world.records('refused', `spiffe://${DOMAIN}/ci/demo`)).length;
  assert.equal(await refusals(), 0);
  await assert.rejects(job.credential('echo', { scope: 'echo:write', purpose: 'denied' }), Denied);
  await until('the refusal is in the audit', async () => (await refusals()) > 0);
  await sleep(300);
  assert.equal(await refusals(), 1);
});

test('a request that lacks what every server would refuse is told at once', async () => {
  await assert.rejects(mayfly.credential('echo', { scope: [], purpose: 'x' }), TypeError);
  await assert.rejects(mayfly.credential('echo', { scope: 'echo:read' }), /purpose/);
  await assert.rejects(mayfly.credential('echo', { scope: 'echo:read', purpose: 'x', kind: 'nothing' as 'jwt' }), /none of/);
});

test('a task ends with its block, and everything in it', async () => {
  let cred: Credential;
  {
    await using task = await open();
    cred = await task.credential('echo', { scope: 'echo:read' });
    assert.equal(task.state, 'active');
    assert.deepEqual(task.meta, { 'mayfly/task': task.id });
    assert.ok(task.deadline.getTime() > Date.now());
  }
  const { state } = await world.operator<{ state: string }>('credential', 'show', cred.credentialId);
  assert.equal(state, 'task_ended');
  await assert.rejects(mayfly.credential('echo', { scope: 'echo:read', task: cred.taskId }), NotActive);
});

test('heartbeats keep a task alive, and an ended one is told', { timeout: 30_000 }, async () => {
  await using task = await open({ heartbeat: 5 });
  await sleep(6_500);
  assert.equal((await task.refresh()).state, 'active');
  await world.operator('task', 'cancel', task.id, '--reason', 'test');
  await until('the signal is given', () => task.signal.aborted);
  assert.ok(task.signal.reason instanceof NotActive);
});

test('many at once go over a stream, and one that is refused harms no other', async () => {
  await using task = await open();
  await using streaming = world.client('agent/demo', { streaming: 'always' });
  const asks = Array.from({ length: 200 }, (_, n) => streaming.credential('echo', { scope: n === 100 ? 'echo:admin' : 'echo:read', task, purpose: `number ${n}` }));
  const answers = await Promise.allSettled(asks);
  assert.equal(answers.filter((answer) => answer.status === 'fulfilled').length, 199);
  assert.ok((answers[100] as PromiseRejectedResult).reason instanceof Denied);
  assert.equal(await issued(task.id), 199);
});

test('what is abandoned is given back when it comes', async () => {
  await using task = await open();
  await using eager = world.client('agent/demo', { idle: 0 });
  const control = new AbortController();
  const asked = eager.credential('echo', { scope: 'echo:read', task, purpose: 'abandoned', signal: control.signal });
  control.abort(new Error('no longer wanted'));
  await assert.rejects(asked, /no longer wanted/);
  await until('it was issued', async () => (await issued(task.id)) === 1);
  const [record] = await world.records('credential issued', task.id);
  const id = record!.body['credential'] as string;
  await until('it is given back', async () => (await world.records('credential given back', id)).length === 1);
});

test('uses are reported by a server of the upstream', async () => {
  await using server = world.client('mcp/echo');
  {
    await using cred = await server.credential('echo', { scope: 'echo:read', tool: 'echo', purpose: 'reports' });
    for (let n = 0; n < 3; n++) cred.used({ outcome: 200 });
    cred.used({ outcome: 503 });
    await server.flush();
    await until('they are in the audit', async () => (await world.records('uses reported', cred.credentialId)).length > 0);
    const body = JSON.stringify(await world.records('uses reported', cred.credentialId));
    assert.ok(body.includes('echo'), body);
    assert.throws(() => cred.used({ outcome: 'well' as 'accepted' }), TypeError);
  }
});

test('on behalf of whoever showed a credential', async () => {
  await using task = await open({ callers: [`spiffe://${DOMAIN}/mcp/echo`] });
  await using shown = await task.credential('echo', { scope: 'echo:read' });
  await using server = world.client('mcp/echo');
  await using cred = await server.credential('echo', { scope: 'echo:read', task, subjectToken: { token: shown.token, type: 'mayfly' } });
  const claims = decodeJwt(cred.token.reveal());
  assert.deepEqual([claims.sub, claims['client_id']], [`spiffe://${DOMAIN}/agent/demo`, `spiffe://${DOMAIN}/mcp/echo`]);
  // No server takes a parent yet: it names the field, and the token is not in what it says.
  const under = await server.credential('echo', { scope: 'echo:read', task, parent: shown.token }).catch((error: unknown) => error);
  assert.ok(under instanceof InvalidRequest && under.fieldViolations[0]?.field === 'parent_credential', inspect(under));
  assert.ok(!inspect(under).includes(shown.token.reveal()));
});

test('after a 401 nobody else is given the credential', async () => {
  await using task = await open();
  const ask = { scope: 'echo:read', task };
  await using first = await mayfly.credential('echo', ask);
  first.used({ outcome: 401 });
  await using second = await mayfly.credential('echo', ask);
  assert.notEqual(first.credentialId, second.credentialId);
});

test('nothing that is printed, logged or serialized shows a token', async () => {
  await using cred = await mayfly.credential('echo', { scope: 'echo:read', purpose: 'secrets' });
  const token = cred.token.reveal();
  const parts = token.split('.').concat(token.slice(0, 20));
  const all = { cred, headers: cred.headers, token: cred.token, list: [cred], mayfly, map: new Map([['a', cred.headers]]) };
  const texts = [
    inspect(all, { depth: 20, showHidden: true, getters: false }), JSON.stringify(all), `${cred} ${cred.token} ${cred.headers} ${mayfly}`,
    format('%s %o %O %j %d', cred, cred.headers, cred.token, all, cred), inspect(cred.headers), JSON.stringify(cred.headers),
  ];
  for (const text of texts) for (const part of parts) assert.ok(!text.includes(part), text.slice(0, 200));
  // It serves all the same where headers are wanted.
  assert.equal(new Headers(cred.headers).get('authorization'), `Bearer ${token}`);
  assert.equal({ ...cred.headers }['authorization'], `Bearer ${token}`);
  assert.ok(cred.headers instanceof CredentialHeaders && cred.token instanceof Secret);
  assert.throws(() => cred.login, /has no login/);
});

test('the server has to be who it is said to be, by the bundle of its own trust domain', async () => {
  await using wrong = world.client('agent/demo', { timeout: 1_500 }, { MAYFLY_SERVER_ID: `spiffe://${DOMAIN}/service/echo` });
  await assert.rejects(wrong.whoami(), /has to be spiffe:\/\/dev\.mayfly\.internal\/service\/echo/);
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '1', '-subj', '/CN=x',
    '-keyout', `${world.folder}/x.key`, '-out', `${world.folder}/x.pem`], { stdio: 'ignore' });
  await using foreign = world.client('agent/demo', { timeout: 1_500 }, { MAYFLY_BUNDLE: `${world.folder}/x.pem` });
  await assert.rejects(foreign.whoami(), /UNAVAILABLE|certificate|connection/i);
  const me = await mayfly.whoami();
  assert.deepEqual([me.spiffeId, me.environment, me.locks], [`spiffe://${DOMAIN}/agent/demo`, 'dev', 0]);
});
