// An MCP server with Octokit that has its tokens of GitHub from mayfly, and loses them. GitHub is the double of tests/doubles/github.py.
import assert from 'node:assert/strict';
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { appendFileSync, copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { after, before, test } from 'node:test';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';
import type { Mayfly } from '@mayfly/client';
import { DOMAIN, PROJECT, until, World } from './kit.js';

const own = join(PROJECT, '.venv/bin/python');
const python = existsSync(own) ? own : 'python3';
const able = spawnSync(python, ['-c', 'import jwt, cryptography'], { stdio: 'ignore' }).status === 0;
const skip = able ? false : 'the double of GitHub needs Python with PyJWT and cryptography';
// For the closing lines of ./test.
const skipped = process.env['MAYFLY_SKIPPED'];
if (skip && skipped) appendFileSync(skipped, `${skip}\n`);

interface Ports { port: number; control: number; app: string; installation: number }

const POLICY = `
@id("mcp-server-reads-and-opens-issues")
permit (
  principal == Workload::"spiffe://${DOMAIN}/mcp/echo",
  action in Action::"Work",
  resource in Environment::"dev"
) when {
  ["site:read", "site:issues"].containsAll(context.scopes)
};
`;

let world: World;
let agent: Mayfly;
let double: ChildProcess;
let folder: string;
let ports: Ports;

const grant = (scope: string, permission: string) => `[[github.grants]]
scope = "${scope}"
repositories = [{ id = 1296269, name = "octo-org/site" }]
permissions = ["${permission}"]
`;

const registration = () => `name = "site"
owner = "team-web"
purpose = "the repositories of the web site"
environment = "dev"
audience = "github:site"
target = "https://localhost:${ports.port}"
approvers = []
kinds = ["github"]
scopes = ["site:read", "site:issues"]
expires = 2099-12-31

[classification]
system = "repositories"
privilege = "write"
blast_radius = "medium"

[ttl]
min = "1s"
default = "5m"
max = "1h"

[github]
app = "${ports.app}"
installation = ${ports.installation}
${grant('site:read', 'issues:read')}${grant('site:issues', 'issues:write')}`;

before(async () => {
  if (!able) return;
  world = await World.up(undefined, POLICY);
  folder = join(world.folder, 'github');
  mkdirSync(folder);
  double = spawn(python, [join(PROJECT, 'tests/doubles/github.py'), '--dir', folder], { stdio: ['pipe', 'ignore', 'inherit'] });
  await until('the double is there', () => existsSync(join(folder, 'double.json')), 30_000);
  ports = JSON.parse(readFileSync(join(folder, 'double.json'), 'utf8')) as Ports;
  await world.stop();
  appendFileSync(world.file('mayfly.toml'), '\n[upstreams]\nsecrets_dir = "secrets"\n');
  mkdirSync(world.file('secrets'), { mode: 0o700 });
  const key = readFileSync(join(folder, 'app.pem'), 'utf8');
  writeFileSync(world.file('secrets/site.toml'), `target = 'https://localhost:${ports.port}'\nprivate_key = '''\n${key}'''\n`, { mode: 0o600 });
  copyFileSync(join(folder, 'ca.pem'), world.file('secrets/site.pem'));
  await world.start();
  writeFileSync(join(folder, 'site.toml'), registration());
  await world.operator('upstream', 'add', join(folder, 'site.toml'));
  agent = world.client('agent/demo');
});
after(async () => {
  await agent?.close();
  await world?.down();
  double?.stdin?.end();
});

const live = async () => ((await (await fetch(`http://127.0.0.1:${ports.control}/state`)).json()) as { live: unknown[] }).live.length;
const words = (result: unknown): string => (result as { content: { text: string }[] }).content[0]!.text;

test('an MCP server with Octokit has tokens of the task, and loses them', { skip, timeout: 60_000 }, async (t) => {
  const { svid, key } = world.mint('mcp/echo', join(world.folder, 'issues'), 600);
  const env = {
    PATH: process.env['PATH']!, ...world.env('mcp/echo'), MAYFLY_SVID: svid, MAYFLY_KEY: key, NODE_EXTRA_CA_CERTS: join(folder, 'ca.pem'),
  };
  const client = new Client({ name: 'agent', version: '1.0.0' });
  t.after(() => client.close());
  const server = fileURLToPath(new URL('../examples/github-issues/stdio.js', import.meta.url));
  await client.connect(new StdioClientTransport({ command: process.execPath, args: [server, 'site'], env, stderr: 'inherit' }));
  const task = await agent.task({
    purpose: 'triage issues', upstreams: { site: ['site:read', 'site:issues'] }, callers: [`spiffe://${DOMAIN}/mcp/echo`],
  });
  const where = { owner: 'octo-org', repo: 'site' };
  const call = (name: string, more: Record<string, string> = {}) =>
    client.callTool({ name, arguments: { ...where, ...more }, _meta: task.meta });

  assert.equal(words(await call('list_issues')), '#17 the lamp is broken');
  assert.equal(words(await call('open_issue', { title: 'a new lamp' })), '#18 a new lamp');
  assert.match(words(await call('list_issues', { repo: 'tools' })), /^GitHub answered 404/, 'another repository of the installation');

  await world.operator('revoke', '--task', task.id, '--reason', 'test', '--confirm', 'all');
  await until('no token is left at GitHub', async () => (await live()) === 0);
  const gone = await call('list_issues');
  assert.ok(gone.isError === true && /TASK_NOT_ACTIVE|REVOKED|revoked|401/.test(words(gone)), words(gone));
});
