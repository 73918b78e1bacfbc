// Which task a call belongs to, and that a call of another caller is never taken for it.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FileSource, InvalidRequest, Mayfly, META_TASK, type MayflyOptions } from '@mayfly/client';

const TASK = 'task_aaaaaaaaaaaaaaaaaaaaaaaaaa';
const PROCESS = 'task_baaaaaaaaaaaaaaaaaaaaaaaaa';
const nowhere = (task?: string, options: MayflyOptions = {}) =>
  new Mayfly({ address: '127.0.0.1:9', svid: new FileSource({ svid: 'none', key: 'none', bundle: 'none' }), task, ...options });
const meta = { [META_TASK]: TASK };

test('what names no task is refused, and never taken for none', async () => {
  await using mayfly = nowhere();
  assert.equal(mayfly.taskOf({ _meta: meta }), TASK);
  for (const none of [undefined, {}, { _meta: {} }, { _meta: undefined }, { _meta: { other: 1 } }]) assert.equal(mayfly.taskOf(none), undefined);
  for (const bad of ['task_x', '', 7, null, undefined, true, `${TASK}\n`, TASK.toUpperCase(), [TASK], { id: TASK }, ` ${TASK}`]) {
    assert.throws(() => mayfly.taskOf({ _meta: { [META_TASK]: bad } }), /mayfly\/task.*no task id/, String(bad));
  }
});

test('where a token came, `_meta` names no task', async () => {
  await using mayfly = nowhere();
  await using onStdio = nowhere(PROCESS);
  for (const inbound of [
    { _meta: meta, authInfo: {} }, { _meta: meta, authInfo: { extra: {} } }, { _meta: meta, authInfo: { extra: { mayfly: { task: TASK } } } },
    { _meta: meta, authInfo: { token: 'x', clientId: 'c', scopes: [], extra: { tasks: [TASK] } } },
    { _meta: meta, requestInfo: { headers: { authorization: 'Bearer x' } } }, { _meta: meta, requestInfo: { headers: { Authorization: 'Bearer x' } } },
  ]) {
    assert.equal(mayfly.taskOf(inbound), undefined, JSON.stringify(inbound));
    assert.equal(onStdio.taskOf(inbound), PROCESS, 'what the process was started for is nobody else\'s word');
    assert.throws(() => mayfly.taskOf(inbound, { requireTask: true }), InvalidRequest);
  }
  assert.equal(mayfly.taskOf({ _meta: meta, requestInfo: { headers: { accept: '*/*' } } }), TASK);
});

test('a server can require a task of every call', async () => {
  await using mayfly = nowhere();
  const required: string = mayfly.taskOf({ _meta: meta }, { requireTask: true });
  assert.equal(required, TASK);
  const none = (error: unknown) => error instanceof InvalidRequest && error.message.includes('belongs to no task') && error.fieldViolations.length === 1;
  assert.throws(() => mayfly.taskOf({}, { requireTask: true }), none);
  await assert.rejects(mayfly.credential('echo', { scope: 'a', purpose: 'p', requireTask: true }), none);
  await using strict = nowhere(undefined, { requireTask: true });
  assert.throws(() => strict.taskOf(), none);
  assert.equal(strict.taskOf({}, { requireTask: false }), undefined);
  for (const task of [undefined, null]) await assert.rejects(strict.credential('echo', { scope: 'a', purpose: 'p', task }), none);
  // Nor is an id that was lost on the way the wish for a task of its own.
  await assert.rejects(mayfly.credential('echo', { scope: 'a', purpose: 'p', task: '' }), /^TypeError: task: is empty/);
  await using onStdio = nowhere(PROCESS, { requireTask: true });
  assert.equal(onStdio.taskOf({}), PROCESS);
});
