// What outlasts a credential: an MCP session, whose calls may be of several callers; a `fetch` that renews; work whose task was opened with it.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { randomUUID } from 'node:crypto';
import { after, before, mock, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import express from 'express';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';
import { Denied, Mayfly, NotActive, protect, type Credential, type Verified, type Verifier } from '@mayfly/client';
import { AUDIENCE, until, World } from './kit.js';

let world: World;
let agent: Mayfly;
let service: Mayfly;
let verifier: Verifier;
let upstream: Server;
const shown: { token: string; body: string }[] = [];
let answers: number[] = [];
/** A token that it takes for revoked. */
let revoked = '';

before(async () => {
  upstream = createServer(async (request, response) => {
    let body = '';
    for await (const part of request) body += part;
    shown.push({ token: request.headers.authorization ?? '', body });
    response.writeHead(answers.shift() ?? (request.headers.authorization === revoked ? 401 : 200)).end();
  }).listen(0, '127.0.0.1');
  await once(upstream, 'listening');
  world = await World.up(url('').slice(0, -1), '\nforbid (principal, action in Action::"Work", resource) when { context.ttl_seconds > 600 };\n');
  agent = world.client('agent/demo');
  service = world.client('mcp/echo');
  verifier = await service.verifier({ issuer: world.issuer, audience: AUDIENCE, upstreams: ['echo'] }).ready();
});
after(async () => {
  await agent?.close();
  await service?.close();
  upstream?.close();
  upstream?.closeAllConnections();
  await world?.down();
});

const url = (path: string) => `http://127.0.0.1:${(upstream.address() as AddressInfo).port}/${path}`;

/** A server with sessions: each has one transport for all its calls, whoever makes them. */
async function stateful(): Promise<{ url: string; server: Server }> {
  const transports = new Map<string, StreamableHTTPServerTransport>();
  const app = express().use(express.json());
  app.all('/mcp', protect(verifier), async (request, response) => {
    let transport = transports.get(String(request.headers['mcp-session-id']));
    if (!transport) {
      const made = new StreamableHTTPServerTransport({
        sessionIdGenerator: randomUUID, enableJsonResponse: true, onsessioninitialized: (id) => void transports.set(id, made),
      });
      transport = made;
      const server = new McpServer({ name: 'echo', version: '1.0.0' });
      server.registerTool('who', {}, (extra) => {
        const { credentialId } = (extra.authInfo!.extra!['mayfly'] as Verified).claims;
        return { content: [{ type: 'text', text: `${credentialId} ${service.taskOf(extra)}` }] };
      });
      await server.connect(made as Parameters<typeof server.connect>[0]);
    }
    await transport.handleRequest(request, response, request.body);
  });
  const server = app.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/mcp`, server };
}

test('a tool in a session has the credential of the call, whoever began the session', { timeout: 60_000 }, async () => {
  const { url, server } = await stateful();
  try {
    await using one = await agent.task({ purpose: 'the first', upstreams: { echo: 'echo:read' }, ttl: 600 });
    await using two = await agent.task({ purpose: 'the second', upstreams: { echo: 'echo:read' }, ttl: 600 });
    await using first = await one.credential('echo', { scope: 'echo:read' });
    await using second = await two.credential('echo', { scope: 'echo:read' });
    let shows = first;
    const client = new Client({ name: 'agent', version: '1.0.0' });
    const send = (input: string | URL, init?: RequestInit) => {
      const headers = new Headers(init?.headers);
      for (const [name, value] of Object.entries(shows.headers)) headers.set(name, value);
      return fetch(input, { ...init, headers });
    };
    const transport = new StreamableHTTPClientTransport(new URL(url), { fetch: send });
    await client.connect(transport as Parameters<typeof client.connect>[0]);
    for (const [cred, task] of [[second, two], [first, one], [second, two]] as const) {
      shows = cred;
      const { content } = (await client.callTool({ name: 'who', arguments: {} })) as { content: { text: string }[] };
      assert.equal(content[0]!.text, `${cred.credentialId} ${task.id}`);
    }
    await client.close();
  } finally {
    server.close();
    server.closeAllConnections();
  }
});

test('an MCP session lives longer than its credential', { timeout: 60_000 }, async () => {
  const { url, server } = await stateful();
  try {
    await using task = await agent.task({ purpose: 'a session', upstreams: { echo: 'echo:read' }, ttl: 600 });
    await using send = task.fetch('echo', { scope: 'echo:read', ttl: 2, url });
    const client = new Client({ name: 'agent', version: '1.0.0' });
    const transport = new StreamableHTTPClientTransport(new URL(url), { fetch: send });
    await client.connect(transport as Parameters<typeof client.connect>[0]);
    const ids = new Set<string>();
    for (let n = 0; n < 5; n++) {
      const { content } = (await client.callTool({ name: 'who', arguments: {} })) as { content: { text: string }[] };
      const [credential, of] = content[0]!.text.split(' ');
      ids.add(credential!);
      assert.equal(of, task.id);
      await sleep(1_000);
    }
    assert.ok(ids.size >= 3, `${ids.size}`);
    await client.close();
  } finally {
    server.close();
    server.closeAllConnections();
  }
});

test('a request that is refused is sent once more, with another credential', { timeout: 30_000 }, async () => {
  shown.length = 0;
  answers = [401];
  await using send = agent.fetch('echo', { scope: 'echo:read', purpose: 'session' });
  const once = await send(url('x'), { method: 'POST', body: 'once more' });
  assert.equal(once.status, 200);
  assert.deepEqual(shown.map(({ body }) => body), ['once more', 'once more']);
  assert.notEqual(shown[0]!.token, shown[1]!.token);
  answers = [401, 401, 401];
  shown.length = 0;
  assert.equal((await send(url('x'))).status, 401);
  assert.equal(shown.length, 2, 'once');
  answers = [];
  revoked = shown.at(-1)!.token;
  shown.length = 0;
  const many = await Promise.all(Array.from({ length: 10 }, () => send(new Request(url('x')))));
  assert.deepEqual(new Set(many.map(({ status }) => status)), new Set([200]));
  assert.equal(new Set(shown.map(({ token }) => token)).size, 2, 'all with one other credential');
  for (const other of ['http://127.0.0.1:1/', url('').replace('http:', 'https:'), 'http://localhost:9/']) {
    await assert.rejects(send(other), /goes to another place/);
  }
});

test('a session whose task is over says why', { timeout: 30_000 }, async () => {
  const task = await agent.task({ purpose: 'a session', upstreams: { echo: 'echo:read' }, ttl: 600 });
  await using send = task.fetch('echo', { scope: 'echo:read', ttl: 2 });
  assert.equal((await send(url('x'))).status, 200);
  await world.operator('revoke', '--task', task.id, '--reason', 'test', '--confirm', 'all');
  await sleep(2_000);
  await assert.rejects(send(url('x')), (error) => error instanceof Denied || error instanceof NotActive);
});

test('a renewal lives as long as was asked for, and so does the task that a call opened', { timeout: 30_000 }, async () => {
  await using task = await agent.task({ purpose: 'renewals', upstreams: { echo: 'echo:read' }, ttl: 600 });
  await using named = await task.credential('echo', { scope: 'echo:read', ttl: 10 });
  await named.renew();
  const lives = (cred: Credential, ttl: number) => assert.ok(cred.lifetime > ttl - 1 && cred.lifetime <= ttl, `${cred.lifetime}`);
  lives(named, 10);
  const cred = await agent.credential('echo', { scope: 'echo:read', purpose: 'long work', ttl: 3 });
  const [opened, first] = [cred.taskId, cred.expiresAt];
  for (let n = 0; n < 6; n++) {
    await sleep(700);
    await cred.renew();
    assert.equal(cred.taskId, opened);
    lives(cred, 3);
  }
  assert.ok(cred.expiresAt.getTime() - first.getTime() > 3_000);
  await cred.release();
  await until('it is completed', async () => (await world.operator<{ state: string }>('task', 'show', opened)).state === 'completed');
  // Policy bounds what is asked for at once: the task of a call asks for no more than the credential.
  const within = await agent.credential('echo', { scope: 'echo:read', purpose: 'short work' });
  await within.release();
});

test('the clock that says more counts', { timeout: 30_000 }, async () => {
  await using task = await agent.task({ purpose: 'clocks', upstreams: { echo: 'echo:read' }, ttl: 600 });
  await using one = await task.credential('echo', { scope: 'echo:read', ttl: 15 });
  assert.ok(one.remaining > 13);
  const now = Date.now.bind(Date);
  const clock = mock.method(Date, 'now', () => now() + 20_000);
  try {
    // The machine was suspended: the monotonic clock stood still.
    assert.equal(one.remaining, 0);
    await using two = await task.credential('echo', { scope: 'echo:read', ttl: 15 });
    assert.notEqual(two.credentialId, one.credentialId);
    clock.mock.mockImplementation(() => now() - 3_600_000);
    assert.ok(two.remaining > 0 && two.remaining < 15, 'set back, it adds nothing');
  } finally {
    clock.mock.restore();
  }
});
