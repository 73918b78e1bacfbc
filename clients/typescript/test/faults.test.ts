// What goes wrong around a client, and what its user sees of it: nothing, or a clear word.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { status as Code } from '@grpc/grpc-js';
import { decodeJwt } from 'jose';
import {
  ApprovalNeeded, Denied, FileSource, LimitReached, Mayfly, Unavailable, WorkloadApiSource, type MayflyOptions, type SvidSource, type Task,
} from '@mayfly/client';
import { AgentDouble, ExchangeDouble, Relay } from './double.js';
import { DOMAIN, until, World } from './kit.js';

let world: World;
let double: ExchangeDouble;
let agent: AgentDouble | undefined;

before(async () => {
  world = await World.up();
  double = await new ExchangeDouble().up(world);
});
after(async () => {
  double?.down();
  agent?.down();
  await world?.down();
});

const SERVER = `spiffe://${DOMAIN}/mayfly`;
const files = (name: string) => new FileSource({ ...world.mint(name, join(world.folder, name)), bundle: world.file('bundle.pem'), every: 100 });
const client = (svid: SvidSource, options: MayflyOptions = {}, address = world.address) => new Mayfly({ address, svid, serverId: SERVER, ...options });
const doubled = (options: MayflyOptions = {}) => client(files('agent/doubled'), options, `127.0.0.1:${double.port}`);
const ask = { scope: 'a', task: 'task_aaaaaaaaaaaaaaaaaaaaaaaaaa' };

test('what may have been done is sent again with the same request id', async () => {
  await using mayfly = doubled({ idle: 0 });
  double.next({ code: Code.UNAVAILABLE }, { code: Code.ABORTED, reason: 'DECIDED_ON_OLD_STATE' }, { code: Code.DEADLINE_EXCEEDED });
  await mayfly.credential('x', ask);
  assert.equal(double.asked.length, 4);
  assert.equal(new Set(double.asked.map(({ request }) => request.requestId)).size, 1);
  double.next();
  await mayfly.credential('x', { ...ask, purpose: 'another' });
  assert.equal(double.asked.length, 1);
});

test('a limit is waited out where the server says how long, and told where it does not', async () => {
  await using mayfly = doubled();
  double.next({ code: Code.RESOURCE_EXHAUSTED, reason: 'LIMIT_REACHED', retryMs: 400 });
  await mayfly.credential('x', ask);
  assert.equal(double.asked.length, 2);
  assert.ok(double.asked[1]!.at - double.asked[0]!.at >= 400);
  double.next({ code: Code.RESOURCE_EXHAUSTED, reason: 'DISK_RESERVE' });
  await assert.rejects(mayfly.credential('x', { ...ask, purpose: 'b' }), LimitReached);
  assert.equal(double.asked.length, 1);
  double.next({ code: Code.RESOURCE_EXHAUSTED, reason: 'LIMIT_REACHED', retryMs: 60_000 });
  await assert.rejects(mayfly.credential('x', { ...ask, purpose: 'c' }), (error) => error instanceof LimitReached && error.retryAfter === 60_000);
  assert.equal(double.asked.length, 1, 'there is no time for a second try');
});

test('a denied call is not tried again, and says by which rule and who can change it', async () => {
  await using mayfly = doubled();
  double.next({ code: Code.PERMISSION_DENIED, reason: 'DENIED_BY_POLICY' });
  const denied = await mayfly.credential('x', ask).catch((error: unknown) => error);
  assert.ok(denied instanceof Denied);
  assert.deepEqual([denied.reason, denied.rule, denied.wayOut], ['DENIED_BY_POLICY', 'the rule', 'ask somebody']);
  assert.equal(double.asked.length, 1);
  double.next({ code: Code.FAILED_PRECONDITION, reason: 'APPROVAL_NEEDED' });
  await assert.rejects(mayfly.credential('x', ask), (error) => error instanceof ApprovalNeeded && error.approvalId === 'appr_x');
  assert.equal(double.asked.length, 1);
});

test('every call has a deadline', { timeout: 10_000 }, async () => {
  await using mayfly = doubled({ timeout: 700 });
  double.next('silent', 'silent', 'silent');
  const began = performance.now();
  await assert.rejects(mayfly.credential('x', ask), Unavailable);
  assert.ok(performance.now() - began < 3_000);
  await using nowhere = client(files('agent/nowhere'), { timeout: 700 }, '127.0.0.1:9');
  await assert.rejects(nowhere.whoami(), Unavailable);
});

/** Workers that exchange without pause until they are told to stop; what came of each. */
function load(mayfly: Mayfly, task: Task, workers: number) {
  const done = { ids: [] as string[], errors: [] as unknown[], serials: new Set<string>() };
  let go = true;
  const worker = async (name: number) => {
    for (let n = 0; go; n++) {
      try {
        await using cred = await mayfly.credential('echo', { scope: 'echo:read', task, purpose: `load ${name}.${n}`, timeout: 20_000 });
        done.ids.push(cred.credentialId);
        done.serials.add((decodeJwt(cred.token.reveal())['https://mayfly.dev/claims'] as { svid: { serial: string } }).svid.serial);
      } catch (error) {
        done.errors.push(error);
      }
    }
  };
  const all = Promise.all(Array.from({ length: workers }, (_, name) => worker(name)));
  return { done, stop: async () => { go = false; await all; return done; } };
}

for (const streaming of ['never', 'always'] as const) {
  test(`an SVID that rotates under load fails no call (streaming ${streaming})`, { timeout: 60_000 }, async () => {
    const name = `agent/rotating-${streaming}`;
    await using mayfly = client(files(name), { streaming });
    await using task = await mayfly.task({ purpose: 'load', upstreams: { echo: 'echo:read' } });
    const work = load(mayfly, task, 12);
    for (let turn = 0; turn < 6; turn++) {
      await sleep(900);
      // It ends within the test: a call over a connection of an SVID that has ended would be refused.
      world.mint(name, join(world.folder, name), turn < 5 ? 5 : 600);
    }
    await sleep(1_500);
    const { ids, errors, serials } = await work.stop();
    assert.deepEqual(errors, []);
    assert.ok(ids.length > 100, `${ids.length}`);
    assert.ok(serials.size >= 4, `calls went out with ${serials.size} of the seven`);
  });
}

test('a server that is killed and comes back costs waiting, and no call', { timeout: 90_000 }, async () => {
  await using mayfly = client(files('agent/killed'), { timeout: 30_000 });
  await using task = await mayfly.task({ purpose: 'kill', upstreams: { echo: 'echo:read' } });
  const work = load(mayfly, task, 6);
  await sleep(500);
  const before = work.done.ids.length;
  await world.kill();
  await sleep(500);
  await world.start();
  await until('work goes on', () => work.done.ids.length > before + 50, 30_000);
  const { ids, errors } = await work.stop();
  assert.deepEqual(errors, []);
  assert.equal(new Set(ids).size, ids.length);
  // The audit has each once: what was sent again was answered with the first.
  const records = await world.records('credential issued', task.id);
  const requests = records.map(({ body }) => (body['request'] as { id: string }).id);
  assert.equal(new Set(requests).size, requests.length, 'none was issued twice');
});

test('the Workload API gives an SVID and the next one, and an agent that restarts costs nothing', { timeout: 60_000 }, async () => {
  const name = 'agent/by-agent';
  const mint = (seconds?: number) => world.mint(name, join(world.folder, name), seconds);
  agent = new AgentDouble(world, mint(6));
  await agent.up();
  const env = { MAYFLY_ADDRESS: world.address, SPIFFE_ENDPOINT_SOCKET: `unix://${agent.socket}`, MAYFLY_SERVER_ID: SERVER };
  await using mayfly = Mayfly.fromEnv({}, env);
  assert.equal((await mayfly.whoami()).spiffeId, `spiffe://${DOMAIN}/${name}`);
  await using task = await mayfly.task({ purpose: 'agent', upstreams: { echo: 'echo:read' } });
  const work = load(mayfly, task, 4);
  await sleep(1_000);
  agent.rotate(mint(6));
  await sleep(1_000);
  agent.down();
  await sleep(300);
  mint();
  await agent.up();
  await sleep(4_000);
  const { errors, ids, serials } = await work.stop();
  assert.deepEqual(errors, []);
  assert.ok(ids.length > 50);
  assert.equal(agent.refused, 0);
  assert.ok(agent.asked >= 2);
  assert.equal(serials.size, 3);
  assert.ok(agent.asked <= 8, `asked ${agent.asked} times: one stream at a time`);
});

test('a report that was not answered is not sent again, and one that was never sent is', { timeout: 150_000 }, async (t) => {
  const relay = await new Relay().up(world.address);
  t.after(() => relay.away());
  const told: unknown[] = [];
  await using server = client(files('mcp/echo'), { onError: (error) => told.push(error) }, relay.address);
  await using cred = await server.credential('echo', { scope: 'echo:read', purpose: 'reports' });
  cred.used({ outcome: 200 });
  relay.mute();
  await server.flush();
  assert.equal(told.length, 1, 'it may have been counted, and nobody knows');
  relay.away();
  // By then the client knows that the connection is gone.
  await sleep(500);
  cred.used({ outcome: 503 });
  await server.flush();
  assert.equal(told.length, 2, 'there was nobody to send it to');
  relay.back();
  const counted = async (outcome: string) => {
    const records = await world.records('uses reported', cred.credentialId);
    return records.filter(({ body }) => body['outcome'] === outcome).reduce((sum, { body }) => sum + Number(body['count']), 0);
  };
  await server.flush();
  // The server folds what comes in a minute, and writes it down when that is over.
  await until('the second is in the audit', async () => (await counted('failed')) > 0, 90_000);
  assert.deepEqual([await counted('accepted'), await counted('failed')], [1, 1]);
});

test('an agent that is not there is said so', { timeout: 20_000 }, async () => {
  const source = new WorkloadApiSource(`unix://${world.folder}/nowhere.sock`);
  await assert.rejects(source.current(AbortSignal.timeout(500)), /the SPIFFE agent gave no SVID: .*/);
  source.close();
  assert.throws(() => new WorkloadApiSource('http://agent'), /SPIFFE_ENDPOINT_SOCKET/);
});

test('no token is in a log, whatever is turned on', { timeout: 30_000 }, async () => {
  const script = `
    import { Mayfly } from '@mayfly/client';
    const mayfly = Mayfly.fromEnv({ streaming: process.argv[1] });
    const cred = await mayfly.credential('echo', { scope: 'echo:read', purpose: 'logs', arguments: { secret: 'an-argument' } });
    console.error(mayfly, cred, cred.headers, cred.token);
    await cred.release();
    await mayfly.close();
    if (!cred.token.reveal().startsWith('eyJhbGci')) throw new Error('not what is looked for');`;
  for (const streaming of ['never', 'always']) {
    const env = { ...process.env, ...world.env('agent/demo'), GRPC_TRACE: 'all', GRPC_VERBOSITY: 'DEBUG', NODE_DEBUG: 'http,net,stream' };
    const output = await new Promise<string>((resolve) => {
      execFile(process.execPath, ['--input-type=module', '-e', script, streaming], { env, maxBuffer: 1 << 26, cwd: new URL('../..', import.meta.url) },
        (error, stdout, stderr) => resolve(stdout + stderr + (error ? 'the script failed' : '')));
    });
    assert.ok(output.length > 1_000 && !output.includes('the script failed'), output.slice(-1_000));
    assert.ok(!output.includes('eyJhbGci'), 'a token is in the log');
    assert.ok(!output.includes('an-argument'), 'arguments are in the log');
  }
});
