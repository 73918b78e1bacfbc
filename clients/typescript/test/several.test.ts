// Several credentials at once: all or none, against a real server.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { inspect } from 'node:util';
import { status as Code } from '@grpc/grpc-js';
import { Denied, Mayfly, MayflyError, NotFound, type UpstreamAsk } from '@mayfly/client';
import { ExchangeDouble } from './double.js';
import { DOMAIN, until, World } from './kit.js';

let world: World;
let double: ExchangeDouble;
let mayfly: Mayfly;

before(async () => {
  world = await World.up('http://127.0.0.1:7780/');
  double = await new ExchangeDouble().up(world);
  mayfly = world.client('agent/demo');
});
after(async () => {
  await mayfly?.close();
  double?.down();
  await world?.down();
});

const READ: UpstreamAsk = { upstream: 'echo', scope: 'echo:read', purpose: 'several' };
const WRITE: UpstreamAsk = { upstream: 'echo', scope: 'echo:write', purpose: 'several' };
const ADMIN: UpstreamAsk = { upstream: 'echo', scope: 'echo:admin', purpose: 'several' };
const NOWHERE: UpstreamAsk = { upstream: 'nowhere', scope: 'x', purpose: 'several' };

const open = () => mayfly.task({ purpose: 'a test', upstreams: { echo: ['echo:read', 'echo:write'] }, tools: 'any' });
const issued = async (names: string) => (await world.records('credential issued', names)).length;
const state = async (kind: string, id: string) => (await world.operator<{ state: string }>(kind, 'show', id)).state;
const refusalOf = (asked: Promise<unknown>) => asked.then(() => assert.fail('it was given'), (error: unknown) => error as MayflyError);
const doubled = () => world.client('agent/demo', { idle: 0 }, { MAYFLY_ADDRESS: `127.0.0.1:${double.port}`, MAYFLY_SERVER_ID: `spiffe://${DOMAIN}/mayfly` });

test('they come in the order asked, and end with the block', async () => {
  await using task = await open();
  const call = { ...READ, tool: 'search', arguments: { q: 'a' }, ttl: 60 };
  const ids: string[] = [];
  {
    await using all = await task.credentials([WRITE, READ, call, call]);
    const [first, second, third, fourth] = all;
    assert.deepEqual(all.map((one) => one.scopes[0]), ['echo:write', 'echo:read', 'echo:read', 'echo:read']);
    assert.equal(new Set(all.map((one) => one.credentialId)).size, 4, 'those for arguments share nothing');
    assert.ok(all.every((one) => one.taskId === task.id) && third.remaining <= 60 && second.remaining > 60);
    assert.equal(first.headers['authorization'], `Bearer ${first.token.reveal()}`);
    for (const text of [inspect(all), JSON.stringify(all)]) assert.ok(!text.includes(first.token.reveal()), text);
    ids.push(third.credentialId, fourth.credentialId);
  }
  assert.deepEqual(await Promise.all(ids.map((id) => state('credential', id))), ['released', 'released']);
  assert.equal(await issued(task.id), 4);
});

test('without a task each opens one, that ends with it', async () => {
  const held = await mayfly.credentials([READ, WRITE]);
  const tasks = held.map((one) => one.taskId);
  assert.notEqual(tasks[0], tasks[1]);
  await held.release();
  assert.deepEqual(await Promise.all(tasks.map((id) => state('task', id))), ['completed', 'completed']);
});

for (const [refused, Sort] of [[NOWHERE, NotFound], [ADMIN, Denied]] as const) {
  test(`where ${refused.upstream} refuses there is none, and nothing stays`, async () => {
    const [before, tasks] = [await issued('echo'), (await world.records('task opened', `spiffe://${DOMAIN}/agent/demo`)).length];
    const no = await refusalOf(mayfly.credentials([READ, refused, WRITE]));
    assert.ok(no instanceof Sort, inspect(no));
    assert.equal(no.upstream, refused.upstream);
    assert.ok(no.message.includes(`${refused.upstream}: `) && !inspect(no).includes('exchanges['), inspect(no));
    assert.equal(await issued('echo'), before);
    assert.equal((await world.records('task opened', `spiffe://${DOMAIN}/agent/demo`)).length, tasks);
    await using alone = await mayfly.credential('echo', { scope: 'echo:read', purpose: 'alone' });
    assert.ok(alone.credentialId);
  });
}

test('they are shared with single requests and with each other', async () => {
  await using task = await open();
  await using single = await task.credential('echo', { scope: 'echo:read', purpose: 'several' });
  await using all = await task.credentials([READ, WRITE, READ]);
  assert.deepEqual([all[0].credentialId, all[2].credentialId], [single.credentialId, single.credentialId]);
  await using other = await task.credential('echo', { scope: 'echo:write', purpose: 'several' });
  assert.equal(other.credentialId, all[1].credentialId);
  assert.equal(await issued(task.id), 2);
  const no = await refusalOf(task.credentials([READ, ADMIN]));
  assert.equal(no.reason, 'OUTSIDE_TASK');
  await using again = await task.credential('echo', { scope: 'echo:read', purpose: 'several' });
  assert.equal(again.credentialId, single.credentialId, 'a refusal leaves what was shared before');
});

test('equal ones under way are one exchange, and one that is refused harms no single request', async () => {
  await using task = await open();
  const all = await Promise.all(Array.from({ length: 20 }, () => task.credentials([READ, WRITE])));
  assert.equal(new Set(all.flatMap((one) => one.map((cred) => cred.credentialId))).size, 2);
  assert.equal(await issued(task.id), 2);
  await Promise.all(all.map((one) => one.release()));
  const about = { purpose: 'another' };
  const refused = refusalOf(task.credentials([{ ...READ, ...about }, ADMIN]));
  const [single, no] = await Promise.all([task.credential('echo', { scope: 'echo:read', ...about }), refused]);
  assert.ok(single.credentialId && no instanceof Denied);
  await single.release();
});

test('those that are abandoned are given back when they come', async () => {
  await using task = await open();
  await using eager = world.client('agent/demo', { idle: 0 });
  const control = new AbortController();
  const asked = eager.credentials([READ, WRITE], { task, signal: control.signal });
  await sleep(1);
  control.abort(new Error('no longer wanted'));
  await assert.rejects(asked, /no longer wanted/);
  await until('they were issued', async () => (await issued(task.id)) === 2);
  const ids = (await world.records('credential issued', task.id)).map(({ body }) => body['credential'] as string);
  await until('they are given back', async () => (await Promise.all(ids.map((id) => state('credential', id)))).every((one) => one === 'released'));
});

test('how many there may be, and what each says, is checked before anything is sent', async () => {
  for (const asks of [[], Array.from({ length: 9 }, () => READ)]) {
    await assert.rejects(mayfly.credentials(asks), new RegExp(`${asks.length} requests; right would be 1 to 8`));
  }
  await assert.rejects(mayfly.credentials([READ, { ...WRITE, scope: [] }]), /echo: scope: at least one/);
  await assert.rejects(mayfly.credentials([READ, { ...WRITE, upstream: '' }]), /requests\[1\]: upstream: is empty/);
  await assert.rejects(mayfly.credentials([READ, { ...WRITE, waitForApproval: 3 } as UpstreamAsk]), /waitForApproval: is for a single credential/);
  await assert.rejects(mayfly.credentials([READ, WRITE], { requireTask: true }), /belongs to no task/);
  const most = await mayfly.credentials(Array.from({ length: 8 }, () => READ));
  assert.equal(new Set(most.map((one) => one.credentialId)).size, 8);
  await most.release();
});

test('a repeat has the request ids of the first, and a refusal is sent once', async () => {
  await using client = doubled();
  const task = 'task_aaaaaaaaaaaaaaaaaaaaaaaaaa';
  double.next({ code: Code.UNAVAILABLE }, { code: Code.ABORTED, reason: 'DECIDED_ON_OLD_STATE' });
  await client.credentials([READ, WRITE], { task });
  assert.equal(double.batches.length, 3);
  const ids = double.batches.map(({ exchanges }) => exchanges.map(({ requestId }) => requestId).join());
  assert.ok(new Set(ids).size === 1 && new Set(ids[0]!.split(',')).size === 2 && double.batches.every((one) => one.allOrNothing), ids.join(' '));
  double.next({ code: Code.PERMISSION_DENIED, reason: 'DENIED_BY_POLICY', message: 'exchanges[1]: no' });
  const no = await refusalOf(client.credentials([{ ...READ, purpose: 'b' }, NOWHERE], { task }));
  assert.deepEqual([double.batches.length, no.upstream, no.message], [1, 'nowhere', 'DENIED_BY_POLICY: nowhere: no (ask somebody)']);
  double.next();
  await client.credentials([{ ...READ, purpose: 'c' }], { task });
  assert.deepEqual([double.batches.length, double.asked.length], [0, 1], 'one is an exchange like any other');
});
