// Following when the server goes back, restarts, or has much to tell: a follower decides by what it knows, and never by a head that went back.
import assert from 'node:assert/strict';
import { readFileSync, cpSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { create, fromJson, type JsonValue } from '@bufbuild/protobuf';
import { RuleEventSchema, SnapshotPartSchema, WatchRevocationsResponseSchema } from '#dist/gen/mayfly/v1/feed_pb.js';
import { Checker } from '#dist/verify/check.js';
import { Refused } from '#dist/verify/refused.js';
import { readJwks } from '#dist/verify/token.js';
import { needed } from '#dist/verify/verifier.js';
import { AUDIENCE, until, World } from './kit.js';

interface Step {
  wall: number;
  steady: number;
  feed?: JsonValue;
  check?: { token: string };
}

const path = new URL('../../../../tests/vectors/verify/cases.json', import.meta.url);
const shared = JSON.parse(readFileSync(path, 'utf8')) as { settings: { issuer: string; audience: string }; jwks: object; cases: { name: string; steps: Step[] }[] };
const { steps } = shared.cases.find(({ name }) => name === 'a_good_token_is_accepted')!;
const token = steps.at(-1)!.check!.token;
const now = { wall: steps[0]!.wall, steady: steps[0]!.steady };

async function following(): Promise<Checker> {
  const checker = new Checker(shared.settings);
  checker.setKeys(await readJwks(JSON.stringify(shared.jwks)));
  for (const { feed } of steps) if (feed) assert.equal(checker.take(fromJson(WatchRevocationsResponseSchema, feed), now), 'taken');
  return checker;
}

const reason = (work: Promise<unknown>): Promise<string> =>
  work.then(() => 'accepted', (error) => (error instanceof Refused ? error.reason : Promise.reject(error)));
const said = (checker: Checker, at = now) => reason(checker.check(token, needed({}), () => at));

test('the view of before decides until a snapshot of 40,000 rules is whole', async () => {
  const checker = await following();
  const head = BigInt(checker.applied);
  checker.resync();
  assert.equal(checker.beginStream(), undefined);
  for (let part = 0; part < 40; part++) {
    const rules = Array.from({ length: 1_000 }, (_, n) =>
      create(RuleEventSchema, { seq: head + 1n, targets: [{ target: { case: 'tool', value: `t${part}-${n}` } }] }));
    const value = create(SnapshotPartSchema, { rules, last: part === 39 });
    assert.equal(await said(checker), 'accepted');
    assert.equal(checker.take(create(WatchRevocationsResponseSchema, { seq: head + 2n, event: { case: 'snapshot', value } }), now), 'taken');
  }
  assert.equal(await said(checker), 'accepted');
  assert.equal(checker.beginStream(), Number(head + 2n));
  checker.resync();
  assert.equal(await said(checker, { wall: now.wall + 30_001, steady: now.steady + 30_001 }), 'stale', 'no longer than its last proof is good for');
});

test('a server that stops is not held up, a restart shows nowhere, and an old copy of its data is not believed', { timeout: 120_000 }, async () => {
  const world = await World.up();
  const [agent, service] = [world.client('agent/demo', { idle: 0 }), world.client('service/echo')];
  try {
    const verifier = await service.verifier({ issuer: world.issuer, audience: AUDIENCE, upstreams: ['echo'], follower: 'echo-1' }).ready();
    const task = await agent.task({ purpose: 'restart', upstreams: { echo: ['echo:read'] } });
    const good = await task.credential('echo', { scope: 'echo:read' });
    const bad = await task.credential('echo', { scope: 'echo:read', purpose: 'bad' });
    const check = (cred: { token: { reveal(): string } }) => reason(verifier.check(cred.token.reveal()));
    const [heard, end] = [new Set<string>(), new AbortController()];
    const asking = (async () => {
      for (; !end.signal.aborted; await new Promise((resolve) => setTimeout(resolve, 2))) heard.add(await check(good));
    })();
    const began = performance.now();
    await world.stop();
    assert.ok(performance.now() - began < 4_000, `the server took ${performance.now() - began} ms to stop`);
    const copy = join(world.folder, 'copy');
    cpSync(world.file('data'), copy, { recursive: true });
    await world.start();
    const followers = () => world.operator<{ connected: boolean; applied_seq: number }[]>('follower', 'list');
    await until('it follows again', async () => (await followers()).some((one) => one.connected && one.applied_seq > 0));
    await world.operator('revoke', '--credential', bad.credentialId, '--reason', 'test', '--wait');
    assert.equal(await check(bad), 'revoked');
    end.abort();
    await asking;
    assert.deepEqual([...heard], ['accepted']);
    const seen = verifier.applied;
    await world.kill();
    rmSync(world.file('data'), { recursive: true });
    cpSync(copy, world.file('data'), { recursive: true });
    await world.start();
    await until('it does not believe it', async () => (await check(bad)) === 'rolled_back' && (await check(good)) === 'rolled_back', 20_000);
    for (let n = 0; n < 40; n++) await world.operator('lock', 'add', '--tool', `t${n}`, '--reason', 'test');
    const status = await world.operator<{ ledger: { durable_seq: number }; counts: { followers_beyond: number } }>('status');
    assert.ok(status.ledger.durable_seq > seen);
    assert.equal(status.counts.followers_beyond, 1);
    await new Promise((resolve) => setTimeout(resolve, 3_000));
    assert.deepEqual([await check(bad), await check(good)], ['rolled_back', 'rolled_back'], 'nothing heals by itself');
  } finally {
    await agent.close();
    await service.close();
    await world.down();
  }
});
