// Attests the job, opens a task, and gets a credential for each upstream of the input.
import { spawn, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { appendFileSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const input = (name) => (process.env[`INPUT_${name.toUpperCase()}`] ?? '').trim();

// Writes a value on lines of its own, between delimiters that cannot be guessed.
function tell(file, name, value) {
  const mark = `mayfly_${randomBytes(16).toString('hex')}`;
  appendFileSync(process.env[file], `${name}<<${mark}\n${value}\n${mark}\n`);
}

// Escapes a value for a workflow command.
const escaped = (text) => text.replaceAll('%', '%25').replaceAll('\r', '%0D').replaceAll('\n', '%0A');

function fail(what) {
  console.log(`::error title=mayfly::${escaped(what)}`);
  process.exit(1);
}

for (const name of ['address', 'public', 'server-id', 'bundle', 'purpose', 'upstreams']) {
  if (!input(name)) fail(`the input ${name} is missing`);
}
const upstreams = input('upstreams').split('\n').map((line) => line.trim().split(/\s+/)).filter(([name]) => name);
const dir = mkdtempSync(join(process.env.RUNNER_TEMP ?? tmpdir(), 'mayfly-'));
// From here on the post step cleans up, whatever fails.
tell('GITHUB_STATE', 'dir', dir);
const config = join(dir, 'config.toml');
const settings = { address: input('address'), public: input('public'), server_id: input('server-id'), bundle: join(dir, 'bundle') };
writeFileSync(settings.bundle, `${input('bundle')}\n`);
if (input('public-ca')) {
  settings.public_ca = join(dir, 'roots.pem');
  writeFileSync(settings.public_ca, `${input('public-ca')}\n`);
}
writeFileSync(config, Object.entries(settings).map(([name, value]) => `${name} = ${JSON.stringify(value)}\n`).join(''));
const env = { ...process.env, MAYFLY_CONFIG: config };
// A task of the surrounding environment is not used.
delete env.MAYFLY_TASK;

function mayfly(...words) {
  const ran = spawnSync(input('mayfly') || 'mayfly', words, { env, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], maxBuffer: 1 << 20 });
  // Pass masking commands to the runner before anything else.
  const lines = (ran.stderr ?? '').split('\n');
  for (const line of lines.filter((line) => line.startsWith('::add-mask::'))) console.log(line);
  if (ran.status === 0) return ran.stdout;
  const said = lines.filter((line) => !line.startsWith('::')).join('\n').trim();
  return fail(`mayfly ${words[0]} ${words[1]}: ${said || ran.error?.message || `it ended by ${ran.signal}`}`);
}

const optional = (flag, value) => (value ? [flag, value] : []);
const attests = [...optional('--issuer', input('issuer')), ...optional('--rule', input('rule'))];
const login = JSON.parse(mayfly('ci', 'login', '-o', 'json', ...attests));
const allowances = upstreams.flatMap(([name, ...scopes]) => ['--upstream', scopes.length ? `${name}=${scopes.join(',')}` : name]);
const heartbeat = input('heartbeat') || '2m';
const terms = ['--purpose', input('purpose'), '--ttl', input('task-ttl') || '1h', '--heartbeat', heartbeat];
const wait = input('wait-for-approval');
const waits = wait && wait !== '0s' ? ['--wait-for-approval', wait, '--deadline', '20s'] : [];
const task = mayfly('task', 'open', '-o', 'name', ...terms, ...allowances, ...waits).trim();
tell('GITHUB_STATE', 'task', task);
// The process sends the task's heartbeats and renews the SVID of a long job; without it the task ends by itself. The process ends with the
// runner's own process, which is the parent; in a container of the job the runner's process is not visible.
const runner = process.ppid > 1 ? ['--while', String(process.ppid)] : [];
const beats = spawn(input('mayfly') || 'mayfly', ['ci', 'heartbeat', task, ...runner, ...attests], { env, detached: true, stdio: 'ignore' });
beats.on('error', () => {});
beats.unref();
if (beats.pid) tell('GITHUB_STATE', 'beats', String(beats.pid));

for (const [name, ...scopes] of upstreams) {
  const asked = scopes.flatMap((scope) => ['--scope', scope]);
  const token = mayfly('get', name, '--mask', '--task', task, '--purpose', input('purpose'), ...asked, ...waits).trim();
  tell('GITHUB_OUTPUT', name, token);
}
tell('GITHUB_OUTPUT', 'task', task);
tell('GITHUB_OUTPUT', 'spiffe-id', login.spiffe_id);
tell('GITHUB_ENV', 'MAYFLY_CONFIG', config);
tell('GITHUB_ENV', 'MAYFLY_TASK', task);
console.log(`this job is ${login.spiffe_id}, in task ${task}`);
