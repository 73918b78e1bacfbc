// MCP servers on the official SDK, called by its client: while their SVIDs rotate and their credentials are renewed, then revoked.
import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { after, before, test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import express from 'express';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { Mayfly, protect, type Task, type Verified } from '@mayfly/client';
import { AUDIENCE, DOMAIN, until, World } from './kit.js';

let world: World;
let agent: Mayfly;
let service: Mayfly;
let upstream: Server;
/** What the upstream let through, and what it answered. */
const seen: Verified[] = [];
const answers: number[] = [];

const example = (name: string) => fileURLToPath(new URL(`../examples/mcp-server/${name}.js`, import.meta.url));
const MCP = `spiffe://${DOMAIN}/mcp/echo`;

before(async () => {
  const app = express().use(express.json());
  upstream = app.listen(0, '127.0.0.1');
  await once(upstream, 'listening');
  world = await World.up(`http://127.0.0.1:${(upstream.address() as AddressInfo).port}`);
  agent = world.client('agent/demo');
  service = world.client('service/echo');
  const verifier = await service.verifier({ issuer: world.issuer, audience: AUDIENCE, upstreams: ['echo'], follower: 'the-upstream' }).ready();
  const body = (request: unknown) => (request as { body: unknown }).body;
  const note = (request: unknown) => seen.push((request as { auth: { extra: { mayfly: Verified } } }).auth.extra.mayfly);
  app.use((_request, response, next) => { response.once('finish', () => answers.push(response.statusCode)); next(); });
  app.post('/say', protect(verifier, { scope: 'echo:write', tool: 'say', arguments: body }), (request, response) => {
    note(request);
    response.send(`you said ${(body(request) as { words: string }).words}`);
  });
  app.get('/said', protect(verifier, { scope: 'echo:read', tool: 'listen' }), (request, response) => {
    note(request);
    response.send('nothing yet');
  });
});
after(async () => {
  upstream?.closeAllConnections();
  upstream?.close();
  await agent?.close();
  await service?.close();
  await world?.down();
});

/** An agent's task that names the MCP server as one who may act in it. */
const open = (): Promise<Task> => agent.task({
  purpose: 'talk to the echo', upstreams: { echo: ['echo:read', 'echo:write'] }, tools: ['say', 'listen'], callers: [MCP],
});

const words = (result: unknown): string => (result as { content: { text: string }[] }).content[0]!.text;

/** Calls tools without pause while the server's SVID rotates under it. */
async function callsWhileRotating(client: Client, folder: string, meta?: Record<string, string>): Promise<number> {
  // The server may have taken seconds to start, so its SVID begins to age only now; it looks at the files every two seconds.
  world.mint('mcp/echo', folder, 10);
  await sleep(2_300);
  let go = true;
  let calls = 0;
  const call = async () => {
    for (; go; calls++) {
      const said = `word ${calls}`;
      const request = calls % 2 === 0 ? { name: 'listen', arguments: {} } : { name: 'say', arguments: { words: said } };
      const result = await client.callTool(meta ? { ...request, _meta: meta } : request);
      assert.equal(words(result), calls % 2 === 0 ? '200 nothing yet' : `200 you said ${said}`);
    }
  };
  const calling = call();
  calling.catch(() => undefined);
  for (let turn = 0; turn < 3; turn++) {
    await sleep(2_300);
    world.mint('mcp/echo', folder, turn < 2 ? 10 : 600);
  }
  await sleep(2_300);
  go = false;
  await calling;
  return calls;
}

async function revokedWhileHeld(client: Client, task: Task, meta?: Record<string, string>): Promise<void> {
  const listen = () => client.callTool({ name: 'listen', arguments: {}, ...(meta ? { _meta: meta } : {}) });
  assert.equal(words(await listen()), '200 nothing yet');
  // The server keeps that one for its next call, which comes at once after everybody is said to know of the revocation.
  const held = seen.at(-1)!.credentialId;
  await world.operator('revoke', '--credential', held, '--reason', 'test', '--wait');
  const refused = words(await listen());
  if (refused.startsWith('401')) assert.match(refused, /"reason":"revoked"/);
  else assert.notEqual(seen.at(-1)!.credentialId, held, 'it had ended, and another one was had');
  assert.equal(words(await listen()), '200 nothing yet', 'after a 401 the server gets another one');
  await world.operator('revoke', '--task', task.id, '--reason', 'test', '--confirm', 'all', '--wait');
}

/** A client that goes with its test, however that ends: an MCP server over stdio lives, and keeps the process, as long as its client does. */
function mcpClient(t: TestContext): Client {
  const client = new Client({ name: 'agent', version: '1.0.0' });
  t.after(() => client.close());
  return client;
}

test('over stdio, the task in _meta', { timeout: 60_000 }, async (t) => {
  const folder = join(world.folder, 'stdio');
  const { svid, key } = world.mint('mcp/echo', folder, 60);
  const env = { PATH: process.env['PATH']!, ...world.env('mcp/echo'), MAYFLY_SVID: svid, MAYFLY_KEY: key };
  const client = mcpClient(t);
  await client.connect(new StdioClientTransport({ command: process.execPath, args: [example('stdio')], env, stderr: 'inherit' }));
  const task = await open();
  const calls = await callsWhileRotating(client, folder, task.meta);
  assert.ok(calls > 20, `${calls}`);
  assert.ok(seen.every((one) => one.task === task.id && one.caller === MCP));
  const listened = new Set(seen.filter((one) => one.claims.tool === 'listen').map((one) => one.credentialId));
  assert.ok(listened.size >= 2 && listened.size < calls / 3, `shared, and had anew before it ended: ${listened.size} for ${calls}`);
  const serials = new Set(seen.map((one) => one.claims.svid!.serial));
  assert.ok(serials.size >= 2, 'with more than one SVID');
  await revokedWhileHeld(client, task, task.meta);
  const gone = await client.callTool({ name: 'listen', arguments: {}, _meta: task.meta });
  assert.ok(gone.isError === true && /TASK_NOT_ACTIVE|REVOKED|revoked|401/.test(words(gone)), words(gone));
  // Without a task one is opened for the call, and is over after it.
  const alone = await client.callTool({ name: 'say', arguments: { words: 'x' } });
  assert.equal(words(alone), '200 you said x');
  const own = seen.at(-1)!.task!;
  await until('it is completed', async () => (await world.operator<{ state: string }>('task', 'show', own)).state === 'completed');
});

test('over stdio, the task in MAYFLY_TASK', { timeout: 30_000 }, async (t) => {
  await using task = await open();
  const client = mcpClient(t);
  const env = { PATH: process.env['PATH']!, ...world.env('mcp/echo'), MAYFLY_TASK: task.id };
  await client.connect(new StdioClientTransport({ command: process.execPath, args: [example('stdio')], env, stderr: 'inherit' }));
  assert.equal(words(await client.callTool({ name: 'listen', arguments: {} })), '200 nothing yet');
  assert.equal(seen.at(-1)!.task, task.id);
});

test('over HTTP, the task of the credential that is shown', { timeout: 60_000 }, async (t) => {
  const folder = join(world.folder, 'http');
  const { svid, key } = world.mint('mcp/echo', folder, 60);
  const env = { ...process.env, ...world.env('mcp/echo'), MAYFLY_SVID: svid, MAYFLY_KEY: key, ECHO_ISSUER: world.issuer };
  const server: ChildProcess = spawn(process.execPath, [example('http')], { env, stdio: ['ignore', 'pipe', 'inherit'] });
  try {
    const [url] = (await once(createInterface(server.stdout!), 'line')) as [string];
    const task = await open();
    const cred = await task.credential('echo', { scope: 'echo:read', tool: 'listen' });
    const client = mcpClient(t);
    const transport = new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers: cred.headers } });
    await client.connect(transport as Parameters<typeof client.connect>[0]);
    const before = seen.length;
    const calls = await callsWhileRotating(client, folder);
    assert.ok(calls > 20, `${calls}`);
    assert.ok(seen.slice(before).every((one) => one.task === task.id && one.caller === MCP && one.credentialId !== cred.credentialId));
    await revokedWhileHeld(client, task);
    // The task is revoked: the server's own middleware refuses the agent's credential.
    const bare = await fetch(url, { method: 'POST', headers: cred.headers });
    assert.deepEqual([bare.status, (await bare.json() as { reason: string }).reason], [401, 'revoked']);
    const nobody = await fetch(url, { method: 'POST' });
    assert.equal(nobody.status, 401);
    assert.match(nobody.headers.get('www-authenticate')!, /resource_metadata="https:\/\/echo\.dev\.mayfly\.internal\/\.well-known\/oauth-protected-resource"/);
  } finally {
    server.kill('SIGTERM');
    await once(server, 'exit');
  }
});

test('uses are in the audit, with the upstream\'s answer', async () => {
  const some = seen.find((one) => one.claims.tool === 'say')!;
  await until('they are reported', async () => (await world.records('uses reported', some.credentialId)).length > 0);
  assert.ok(answers.includes(200));
});
