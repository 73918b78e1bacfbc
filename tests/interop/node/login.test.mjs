// People sign in by an OIDC provider that nobody of us wrote: the real `mayfly login`, by a browser and by a device code.
//
// The provider is oidc-provider from npm, on loopback (provider.mjs, which has the browser too).
import assert from 'node:assert/strict';
import { execFile, execFileSync, spawn, spawnSync } from 'node:child_process';
import { appendFileSync, closeSync, existsSync, mkdtempSync, openSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import https from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Browser, CLIENT, listen } from './provider.mjs';

const PEOPLE = 'people.dev.internal';
const binary = process.env.MAYFLY_BIN ?? fileURLToPath(new URL('../../../target/debug/mayfly', import.meta.url));

let folder, world, server, addresses, issuer, listener, env;

// ---- mayfly

function run(context, ...words) {
  return new Promise((resolve) => {
    execFile(binary, ['--config', join(world, context), ...words], { env, encoding: 'utf8', timeout: 60_000 }, (error, stdout, stderr) =>
      resolve({ code: error ? error.code : 0, stdout, stderr }));
  });
}

async function succeed(context, ...words) {
  const ran = await run(context, ...words);
  assert.equal(ran.code, 0, `${words.join(' ')}: ${ran.stderr}`);
  return ran;
}

// `mayfly login`, and whoever signs in when it says where.
async function login(context, who, ...words) {
  const child = spawn(binary, ['--config', join(world, context), 'login', '-o', 'json', ...words], { env });
  let [stdout, stderr] = ['', ''];
  const ended = new Promise((resolve) => child.once('exit', resolve));
  let found;
  const told = new Promise((resolve) => (found = resolve));
  child.stdout.setEncoding('utf8').on('data', (part) => (stdout += part));
  child.stderr.setEncoding('utf8').on('data', (part) => {
    stderr += part;
    const url = /^(http:\/\/127\.0\.0\.1:\d+\/\S+)\n/m.exec(stderr);
    if (url) found(url[1]);
  });
  const url = await Promise.race([told, ended.then(() => undefined)]);
  const page = url && (await new Browser().signIn(url, who));
  return { code: await ended, stdout, stderr, url, page };
}

before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'mayfly-login-'));
  world = join(folder, 'world');
  env = { ...process.env, HOME: folder, XDG_CONFIG_HOME: join(folder, 'config'), XDG_STATE_HOME: join(folder, 'state') };
  ({ issuer, listener } = await listen());
  const up = async () => {
    rmSync(join(world, 'ready.json'), { force: true });
    const log = openSync(join(folder, 'server.log'), 'a');
    server = spawn(binary, ['dev', 'up', '--dir', world, '--port', '0'], { env, stdio: ['ignore', log, log] });
    closeSync(log);
    for (let n = 0; n < 1200 && !existsSync(join(world, 'ready.json')); n++) {
      assert.equal(server.exitCode, null, readFileSync(join(folder, 'server.log'), 'utf8'));
      await sleep(50);
    }
    addresses = JSON.parse(readFileSync(join(world, 'ready.json')));
  };
  // The first start writes the world; the second has people in it.
  await up();
  await down();
  appendFileSync(join(world, 'mayfly.toml'), `
[own_domain]
trust_domain = "${PEOPLE}"
device_login = true

[[oidc_issuers]]
name = "corp"
issuer = "${issuer}"
environments = ["dev"]
uses = ["login"]
audience = "${CLIENT}"
`);
  await up();
  for (const name of ['ada', 'bob']) {
    const [address, publicly] = [`https://${addresses.admin}`, `https://localhost:${addresses.public.split(':').at(-1)}`];
    const text = `address = "${address}"\npublic = "${publicly}"\nbundle = "bundle.pem"\nserver_id = "spiffe://dev.mayfly.internal/mayfly"\n`;
    writeFileSync(join(world, `${name}.toml`), text);
    writeFileSync(join(world, `${name}-work.toml`), text.replace(address, `https://${addresses.workload}`));
  }
  // Policy for people, by two operators: who may sign in governs.
  const you = (...words) => run('operator-you.toml', ...words);
  assert.equal((await you('policy', 'show', 'dev', '--to', join(folder, 'policy'))).code, 0);
  const files = readdirSync(join(folder, 'policy'));
  const roles = join(folder, 'policy', files.find((f) => f.endsWith('.toml')));
  writeFileSync(roles, readFileSync(roles, 'utf8').replace('under = ["spiffe://dev.mayfly.internal"]', `under = ["spiffe://dev.mayfly.internal", "spiffe://${PEOPLE}/people"]`)
    + `\n[role.people]\nunder = ["spiffe://${PEOPLE}/people"]\n`);
  writeFileSync(join(folder, 'policy', 'people.cedar'), `
@id("people-sign-in")
permit (principal in Role::"people", action == Action::"SignIn", resource);

@id("people-work")
permit (principal in Role::"people", action in Action::"Work", resource in Environment::"dev");

@id("people-approve-with-a-second-factor")
forbid (principal, action == Action::"Approve", resource)
unless { context has person && context.person.amr.contains("mfa") && context.person has acr && context.person.acr == "urn:example:high"
  && context.now.durationSince(context.person.auth_time) <= duration("15m") };

@id("agents-open-tasks-for-exports")
permit (principal in Role::"agent", action == Action::"OpenTask", resource == Upstream::"echo");

@id("exports-need-somebody")
forbid (principal, action == Action::"Exchange", resource == Upstream::"echo") when { context.sensitive } unless { context.approvals.count >= 1 };
`);
  const set = ['policy', 'set', 'dev', join(folder, 'policy'), '--roles', roles, '--reason', 'people'];
  const colleague = join(world, 'svid/operator/colleague');
  const byTwo = async (...change) => {
    const asked = await you(...change);
    assert.equal(asked.code, 9, asked.stderr);
    const approval = /appr_[A-Za-z0-9_-]+/.exec(asked.stderr)[0];
    const give = ['--svid', join(colleague, 'svid.pem'), '--key', join(colleague, 'key.pem'), 'approval', 'give', approval, '--reason', 'agreed'];
    await succeed('operator-you.toml', ...give);
  };
  await byTwo(...set);
  // Ada may approve, by issuer and subject: one more approver takes two operators as well.
  const echo = join(folder, 'echo.toml');
  const text = readFileSync(join(world, 'policy/upstreams/echo.toml'), 'utf8');
  writeFileSync(echo, text.replace('approvers = [', `approvers = [{ issuer = "${issuer}", subject = "ada" }, `));
  await byTwo('upstream', 'change', echo, '--version', '1');
});

async function down() {
  if (!server || server.exitCode !== null) return;
  const ended = new Promise((resolve) => server.once('exit', resolve));
  server.kill('SIGTERM');
  await ended;
}

after(async () => {
  await down();
  listener?.close();
  listener?.closeAllConnections();
  rmSync(folder, { recursive: true, force: true });
});

test('a browser signs somebody in, whom the server then knows by the provider', async () => {
  const ran = await login('ada.toml', 'ada', '--no-browser');
  assert.equal(ran.code, 0, ran.stderr);
  assert.match(ran.page.text, /You are signed in/);
  const made = JSON.parse(ran.stdout);
  assert.equal(made.spiffe_id, `spiffe://${PEOPLE}/people/corp/ada`);
  assert.match(ran.url, /code_challenge_method=S256/);
  for (const file of [made.svid, made.key]) assert.equal(statSync(file).mode & 0o777, 0o600, file);
  assert.equal(made.svid, join(world, 'ada.login/svid.pem'));
  assert.ok(!/BEGIN|eyJ/.test(ran.stdout + ran.stderr), 'no key and no token is shown');
  const who = JSON.parse((await succeed('ada.toml', 'whoami', '-o', 'json')).stdout);
  assert.deepEqual([who.person.spiffe_id, who.person.amr, who.person.acr], [made.spiffe_id, ['pwd'], 'urn:example:low']);
  assert.ok(Math.abs(Date.parse(who.person.auth_time) - Date.now()) < 60_000, who.person.auth_time);
});

test('a device code signs somebody in on another machine', async () => {
  const ran = await login('bob.toml', 'bob', '--device');
  assert.equal(ran.code, 0, ran.stderr + ran.page?.text);
  const made = JSON.parse(ran.stdout);
  assert.equal(made.spiffe_id, `spiffe://${PEOPLE}/people/corp/bob`);
  const who = JSON.parse((await succeed('bob.toml', 'whoami', '-o', 'json')).stdout);
  assert.deepEqual(who.person.amr, ['pwd']);
});

test('a person opens a task and owns it', async () => {
  const opened = await succeed('ada-work.toml', '--svid', join(world, 'ada.login/svid.pem'), '--key', join(world, 'ada.login/key.pem'),
    'task', 'open', '--upstream', 'echo=echo:read', '--purpose', 'by hand', '-o', 'json');
  const task = JSON.parse(opened.stdout);
  const shown = JSON.parse((await succeed('operator-you.toml', 'task', 'show', task.task_id ?? task.id, '-o', 'json')).stdout);
  assert.match(JSON.stringify(shown.owner), /"ada"/);
});

test('an approval that wants a second factor is refused without it and given with it', async () => {
  const rows = join(folder, 'rows.json');
  writeFileSync(rows, '{"rows":1}');
  const ask = ['get', 'echo', '--purpose', 'export', '--scope', 'echo:admin', '--tool', 'export', '--arguments', rows, '--ttl', '1m'];
  const asked = await run('agent-demo.toml', ...ask);
  assert.equal(asked.code, 9, asked.stderr);
  const approval = /appr_[A-Za-z0-9_-]+/.exec(asked.stderr)[0];
  const give = ['approval', 'give', approval, '--reason', 'as agreed'];
  const refused = await run('ada.toml', ...give);
  assert.equal(refused.code, 5, refused.stderr);
  assert.match(refused.stderr, /people-approve-with-a-second-factor/);
  const again = await login('ada.toml', 'ada+mfa', '--no-browser', '--acr', 'urn:example:high');
  assert.equal(again.code, 0, again.stderr);
  await succeed('ada.toml', ...give);
  await succeed('agent-demo.toml', ...ask);
});

// The bundle and the CRL that a certificate names, as openssl judges by them.
function openssl(name) {
  const svid = join(world, `${name}.login/svid.pem`);
  const text = execFileSync('openssl', ['x509', '-in', svid, '-noout', '-text'], { encoding: 'utf8' });
  const url = /URI:(https:\/\/\S+\/spiffe\/crl\/\S+)/.exec(text)[1];
  return { svid: readFileSync(svid), text, url };
}

function fetched(path) {
  const ca = readFileSync(join(world, 'bundle.pem'));
  return new Promise((resolve, reject) => {
    const port = addresses.public.split(':').at(-1);
    const request = https.get({ host: 'localhost', port, path, ca, minVersion: 'TLSv1.3', timeout: 10_000 }, (answer) => {
      const parts = [];
      answer.on('data', (part) => parts.push(part));
      answer.on('end', () => (answer.statusCode === 200 ? resolve(Buffer.concat(parts)) : reject(new Error(`${path}: ${answer.statusCode}`))));
    });
    request.on('error', reject);
  });
}

async function verified(seen) {
  const pem = (kind, der) => `-----BEGIN ${kind}-----\n${der.toString('base64').match(/.{1,64}/g).join('\n')}\n-----END ${kind}-----\n`;
  const bundle = JSON.parse(await fetched('/spiffe/bundle.json'));
  const [cas, crl, svid] = ['cas.pem', 'crl.pem', 'shown.pem'].map((name) => join(folder, name));
  writeFileSync(cas, bundle.keys.map((key) => pem('CERTIFICATE', Buffer.from(key.x5c[0], 'base64'))).join(''));
  writeFileSync(crl, pem('X509 CRL', await fetched(new URL(seen.url).pathname)));
  writeFileSync(svid, seen.svid);
  const done = spawnSync('openssl', ['verify', '-x509_strict', '-purpose', 'sslclient', '-crl_check', '-CAfile', cas, '-CRLfile', crl, svid], { encoding: 'utf8' });
  const list = execFileSync('openssl', ['crl', '-in', crl, '-noout', '-text', '-CAfile', cas], { encoding: 'utf8', stdio: 'pipe' });
  return { code: done.status, said: done.stdout + done.stderr, list };
}

test('openssl accepts the certificate by bundle and CRL, and refuses it when the login was ended', async () => {
  const seen = openssl('bob');
  assert.equal(seen.text.match(/URI:spiffe:/g).length, 1);
  assert.match(seen.text, /X509v3 Key Usage: critical\s+Digital Signature\n/);
  assert.match(seen.text, /X509v3 Subject Alternative Name: critical/);
  const good = await verified(seen);
  assert.equal(good.code, 0, good.said);
  assert.match(good.list, /Issuing Distribution Point: critical/);
  assert.ok(good.list.includes(`URI:${seen.url}`) && good.list.includes('Only User Certificates'), good.list);
  const target = JSON.parse((await succeed('bob.toml', 'whoami', '-o', 'json')).stdout).person.credential;
  await succeed('operator-you.toml', 'revoke', '--credential', target, '--reason', 'test', '--confirm', 'all');
  const bad = await verified(seen);
  assert.notEqual(bad.code, 0);
  assert.match(bad.said, /certificate revoked/);
  const again = await login('bob.toml', 'bob', '--device');
  assert.equal(again.code, 0, again.stderr);
});

test('signing out ends the login and deletes its key', async () => {
  const key = join(world, 'bob.login/key.pem');
  const kept = [readFileSync(join(world, 'bob.login/svid.pem')), readFileSync(key)];
  await succeed('bob.toml', 'logout');
  assert.ok(!existsSync(key));
  // Whoever has a copy has nothing.
  const [svid, copy] = ['svid.pem', 'key.pem'].map((name) => join(folder, `stolen-${name}`));
  writeFileSync(svid, kept[0], { mode: 0o600 });
  writeFileSync(copy, kept[1], { mode: 0o600 });
  const stolen = await run('bob.toml', '--svid', svid, '--key', copy, 'whoami');
  assert.notEqual(stolen.code, 0);
  assert.match(stolen.stderr, /given back/);
});
