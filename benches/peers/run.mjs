// Runs each issuer in turn with the same number of requests in flight and prints what one token cost it.
//
//   node run.mjs --mayfly BINARY [--rvault BINARY] [--seconds N] [--in-flight N] [--json]
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import autocannon from 'autocannon';

const { values: args } = parseArgs({
  options: {
    mayfly: { type: 'string' },
    rvault: { type: 'string' },
    seconds: { type: 'string', default: '10' },
    'in-flight': { type: 'string', default: '256' },
    json: { type: 'boolean', default: false },
  },
});
const [seconds, inFlight] = [Number(args.seconds), Number(args['in-flight'])];

const ticks = Number(spawnSync('getconf', ['CLK_TCK']).stdout.toString());
// utime and stime, proc(5); after the command in parentheses.
const cpu = (pid) => {
  const fields = readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ').pop().split(' ');
  return (Number(fields[11]) + Number(fields[12])) / ticks;
};

const freePort = () =>
  new Promise((resolve) => {
    const probe = createServer().listen(0, '127.0.0.1', () => {
      const { port } = probe.address();
      probe.close(() => resolve(port));
    });
  });

const until = async (what, look) => {
  for (let n = 0; n < 200; n += 1) {
    if (await look().catch(() => false)) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`${what} did not answer within 20 s`);
};

const load = (options, time) =>
  new Promise((resolve, reject) => {
    autocannon({ connections: inFlight, duration: time, ...options }, (error, result) => (error ? reject(error) : resolve(result)));
  });

// Warm-up, then the measurement: CPU of the server before and after, divided by what it answered with 2xx.
async function measure(peer, pid, options) {
  await load(options, Math.max(1, Math.round(seconds / 5)));
  const before = cpu(pid);
  const result = await load(options, seconds);
  const cpuUs = ((cpu(pid) - before) * 1e6) / result['2xx'];
  return { ...peer, cpu_us: cpuUs, per_s: result['2xx'] / result.duration, p50_ms: result.latency.p50, p99_ms: result.latency.p99, errors: result.non2xx + result.errors };
}

async function oidc() {
  const port = await freePort();
  const child = spawn(process.execPath, [new URL('oidc.mjs', import.meta.url).pathname, String(port)], { stdio: ['ignore', 'ignore', 'ignore'], env: { ...process.env, NODE_ENV: 'production' } });
  try {
    const body = 'grant_type=client_credentials&client_id=agent&client_secret=a-secret-of-the-measurement-only-0001&scope=read';
    const options = { url: `http://127.0.0.1:${port}/token`, method: 'POST', headers: { 'content-type': 'application/x-www-form-urlencoded' }, body };
    await until('oidc-provider', async () => {
      const answer = await fetch(options.url, options);
      const { access_token: token } = await answer.json();
      return token.split('.').length === 3;
    });
    const peer = { peer: 'oidc-provider 9.13.3 (npm)', issues: 'JWT, ES256, client credentials over HTTP', durable: 'no', audited: 'no', revocable: 'no: a JWT lives until exp', mtls: 'no', policy: 'no' };
    return await measure(peer, child.pid, options);
  } finally {
    child.kill();
  }
}

async function vault() {
  const [port, dir] = [await freePort(), mkdtempSync(join(tmpdir(), 'mayfly-peer-'))];
  const config = join(dir, 'config.hcl');
  writeFileSync(config, `storage "file" {\n  path = "${dir}/data"\n}\n\nlistener "tcp" {\n  address = "127.0.0.1:${port}"\n  tls_disable = "true"\n}\n\napi_addr = "http://127.0.0.1:${port}"\nlog_level = "error"\nlog_format = ""\npid_file = "${dir}/pid"\nwork_dir = "${dir}"\n`);
  const child = spawn(args.rvault, ['server', '--config', config], { stdio: 'ignore' });
  try {
    const at = `http://127.0.0.1:${port}`;
    const call = async (path, body, token) => {
      const answer = await fetch(`${at}/v1/${path}`, { method: 'POST', body: JSON.stringify(body), headers: { 'content-type': 'application/json', ...(token ? { 'x-rustyvault-token': token, 'x-vault-token': token } : {}) } });
      return answer.json();
    };
    let keys;
    await until('rusty_vault', async () => {
      keys = await call('sys/init', { secret_shares: 1, secret_threshold: 1 });
      return Boolean(keys.root_token);
    });
    await call('sys/unseal', { key: keys.keys[0] });
    const body = JSON.stringify({ ttl: '300s', policies: ['default'] });
    const options = { url: `${at}/v1/auth/token/create`, method: 'POST', headers: { 'content-type': 'application/json', 'x-rustyvault-token': keys.root_token, 'x-vault-token': keys.root_token }, body };
    const first = await (await fetch(options.url, options)).json();
    if (!first.auth?.client_token) throw new Error(`rusty_vault made no token: ${JSON.stringify(first)}`);
    const peer = { peer: 'rusty_vault 0.2.1 (crates.io)', issues: 'opaque token over HTTP, looked up', durable: 'a file for each, never flushed', audited: 'no', revocable: 'yes', mtls: 'no', policy: 'path ACLs, not asked here (root)' };
    return await measure(peer, child.pid, options);
  } finally {
    child.kill('SIGKILL');
    rmSync(dir, { recursive: true, force: true });
  }
}

function mayfly(mode) {
  const flags = ['bench', '--mode', mode, '--concurrency', String(inFlight), '--seconds', `${seconds}s`, '--json'];
  const run = spawnSync(args.mayfly, flags, { stdio: ['ignore', 'pipe', 'inherit'] });
  if (run.status !== 0) throw new Error(`mayfly ended with ${run.status}`);
  const told = JSON.parse(run.stdout.toString());
  return { peer: `mayfly, ${mode}`, issues: 'JWT, ES256, gRPC over mTLS', durable: 'yes, flushed before the answer', audited: 'yes', revocable: 'yes, at once', mtls: 'yes', policy: 'Cedar, 50 policies', cpu_us: told.server_cpu_us_per_issue, per_s: told.issued_per_s, p50_ms: told.p50_ms, p99_ms: told.p99_ms, errors: told.errors + told.refused, raw_sign_us: told.raw_sign_us };
}

const rows = [await oidc()];
if (args.rvault) rows.push(await vault());
if (args.mayfly) rows.push(mayfly('unary'), mayfly('stream'));

if (args.json) {
  rows.forEach((row) => console.log(JSON.stringify(row)));
} else {
  const columns = ['peer', 'cpu_us', 'per_s', 'p50_ms', 'p99_ms', 'errors', 'durable', 'audited', 'revocable', 'mtls', 'policy'];
  const cell = (value) => (typeof value === 'number' ? (Number.isInteger(value) ? String(value) : value.toFixed(1)) : value);
  console.log(`| ${columns.join(' | ')} |\n|${columns.map(() => '---').join('|')}|`);
  rows.forEach((row) => console.log(`| ${columns.map((column) => cell(row[column])).join(' | ')} |`));
}
