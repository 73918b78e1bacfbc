// Approvals, against the real server: named, waited for, given, refused, not decided in time.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { ApprovalNeeded, Denied, type Credential, type Mayfly } from '@mayfly/client';
import { World } from './kit.js';

// As somebody would write it who lets agents ask for what can do harm: they may, once a person said so.
const APPROVED = `
@id("agents-open-tasks-for-what-is-approved")
permit (principal in Role::"agent", action == Action::"OpenTask", resource in Environment::"dev");

@id("sensitive-scopes-are-approved")
forbid (principal, action == Action::"Exchange", resource)
when { context.sensitive } unless { context.approvals.count >= 1 };
`;

let world: World;
let mayfly: Mayfly;

before(async () => {
  world = await World.up('http://127.0.0.1:9', APPROVED);
  mayfly = world.client('agent/demo');
});
after(async () => {
  await mayfly?.close();
  await world?.down();
});

const wipe = (what: string, waitForApproval?: number): Promise<Credential> =>
  mayfly.credential('echo', { scope: 'echo:admin', tool: 'wipe', arguments: { what }, purpose: 'wipe', ttl: 60, waitForApproval });

async function needed(asking: Promise<Credential>): Promise<string> {
  const error: unknown = await asking.then(() => assert.fail('nobody approved it'), (no: unknown) => no);
  assert.ok(error instanceof ApprovalNeeded, String(error));
  assert.equal(error.reason, 'APPROVAL_NEEDED');
  assert.match(error.approvalId, /^appr_/);
  return error.approvalId;
}

const decide = (how: 'give' | 'refuse', id: string) => world.operator('approval', how, id, '--reason', 'as agreed');

test('one is named, waited for, and given for its arguments alone, once', async () => {
  const id = await needed(wipe('all'));
  const waiting = wipe('all', 30);
  assert.equal(await Promise.race([waiting.then(() => 'had'), sleep(300, 'waits')]), 'waits');
  await decide('give', id);
  await using cred = await waiting;
  assert.ok(cred.remaining > 40);
  assert.notEqual(await needed(wipe('all')), id);
  assert.notEqual(await needed(wipe('some')), id);
});

test('one that was given before is good for the same request at once', async () => {
  await decide('give', await needed(wipe('before')));
  await using cred = await wipe('before');
  assert.ok(cred.credentialId);
});

test('a refusal is a no, and ends the waiting', async () => {
  const id = await needed(wipe('refused'));
  const waiting = wipe('refused', 30);
  // Said at once, for it may reject before anybody looks.
  const ended = assert.rejects(waiting, (error) => error instanceof Denied && /was refused by/.test(error.message));
  await sleep(300);
  await decide('refuse', id);
  await ended;
});

test('one that nobody decides in time is needed still, and is the same one', async () => {
  const id = await needed(wipe('late', 1));
  assert.equal(await needed(wipe('late')), id);
  await decide('give', id);
  await using cred = await wipe('late');
  assert.ok(cred.credentialId);
});

test('whoever gives up waiting leaves nothing behind', async () => {
  const end = new AbortController();
  const ask = { scope: 'echo:admin', tool: 'wipe', arguments: { what: 'left' }, purpose: 'wipe', ttl: 60, waitForApproval: 30, signal: end.signal };
  const id = await needed(wipe('left'));
  const waiting = mayfly.credential('echo', ask);
  const left = assert.rejects(waiting);
  await sleep(300);
  end.abort();
  await left;
  await decide('give', id);
  // Who asked no longer waits: what came of it was given back.
  for (let n = 0; n < 200; n++) {
    const issued = await world.records('credential issued', id);
    const task = issued[0]?.body['task'];
    if (task !== undefined && (await world.operator<{ state: string }>('task', 'show', String(task))).state === 'completed') return;
    await sleep(50);
  }
  assert.fail('it was not given back');
});
