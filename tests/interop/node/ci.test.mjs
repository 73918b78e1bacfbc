// CI jobs: the real action, the real scripts, as a runner runs them. The platforms are doubles that sign with jose.
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { appendFileSync, chmodSync, closeSync, existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { SignJWT, decodeJwt, exportJWK, generateKeyPair } from 'jose';
import { parse } from 'yaml';

// A check that cannot run here, for the closing lines of ./test.
function skipped(what) {
  console.log(`SKIPPED: ${what}`);
  if (process.env.MAYFLY_SKIPPED) appendFileSync(process.env.MAYFLY_SKIPPED, `${what}\n`);
}

const OWN = 'ci.dev.internal';
const ISSUER = 'https://dev.mayfly.internal';
const binary = process.env.MAYFLY_BIN ?? fileURLToPath(new URL('../../../target/debug/mayfly', import.meta.url));
const deploy = fileURLToPath(new URL('../../../deploy/ci', import.meta.url));
const bash = existsSync('/bin/bash') ? '/bin/bash' : 'bash';

let folder, world, server, addresses, hub, lab, kite, bin, outside;

// An issuer with a key set, and a place that signs for whatever audience is asked for.
async function platform(claims) {
  const { publicKey, privateKey } = await generateKeyPair('RS256');
  const jwk = { ...(await exportJWK(publicKey)), kid: 'k', use: 'sig', alg: 'RS256' };
  const it = { claims, asked: [] };
  it.token = (aud, more = {}) =>
    new SignJWT({ ...it.claims, ...more }).setProtectedHeader({ alg: 'RS256', kid: 'k', typ: 'JWT' }).setIssuer(it.issuer).setAudience(aud)
      .setIssuedAt().setExpirationTime('5m').setJti(`${Math.random()}`).sign(privateKey);
  it.listener = http.createServer(async (request, answer) => {
    const url = new URL(request.url, it.issuer);
    const json = (value) => answer.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(value));
    if (url.pathname === '/.well-known/openid-configuration') return json({ issuer: it.issuer, jwks_uri: `${it.issuer}/keys` });
    if (url.pathname === '/keys') return json({ keys: [jwk] });
    if (url.pathname === '/token' && request.headers.authorization === 'Bearer runner') {
      it.asked.push(url.searchParams.get('audience'));
      return json({ value: await it.token(url.searchParams.get('audience')) });
    }
    return answer.writeHead(404).end();
  });
  await new Promise((resolve) => it.listener.listen(0, '127.0.0.1', resolve));
  it.issuer = `http://127.0.0.1:${it.listener.address().port}`;
  return it;
}

function run(command, words, env, cwd) {
  return new Promise((resolve) => {
    execFile(command, words, { env, cwd, encoding: 'utf8', timeout: 60_000 }, (error, stdout, stderr) =>
      resolve({ code: error ? error.code : 0, stdout, stderr, all: stdout + stderr }));
  });
}

const operator = (...words) => run(binary, ['--config', join(world, 'operator-you.toml'), ...words], { ...process.env, HOME: folder });

async function succeeds(promise) {
  const ran = await promise;
  assert.equal(ran.code, 0, ran.all);
  return ran;
}

async function up() {
  rmSync(join(world, 'ready.json'), { force: true });
  const log = openSync(join(folder, 'server.log'), 'a');
  server = spawn(binary, ['dev', 'up', '--dir', world, '--port', '0'], { env: { ...process.env, HOME: folder }, stdio: ['ignore', log, log] });
  closeSync(log);
  for (let n = 0; n < 1200 && !existsSync(join(world, 'ready.json')); n++) {
    assert.equal(server.exitCode, null, readFileSync(join(folder, 'server.log'), 'utf8'));
    await sleep(50);
  }
  addresses = JSON.parse(readFileSync(join(world, 'ready.json')));
}

async function down() {
  const ended = new Promise((resolve) => server.once('exit', resolve));
  server.kill('SIGTERM');
  await ended;
}

before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'mayfly-ci-'));
  [world, bin] = [join(folder, 'world'), join(folder, 'bin')];
  mkdirSync(bin);
  writeFileSync(join(bin, 'mayfly'), `#!/bin/sh\nexec "${binary}" "$@"\n`);
  chmodSync(join(bin, 'mayfly'), 0o755);
  // Every claim that the platforms document, as they write them.
  hub = await platform({
    sub: 'repo:acme/web:ref:refs/heads/main', repository: 'acme/web', repository_id: '1296269', repository_owner: 'acme', repository_owner_id: '42',
    repository_visibility: 'private', ref: 'refs/heads/main', ref_type: 'branch', ref_protected: 'true', base_ref: '', head_ref: '', event_name: 'push',
    workflow: 'mayfly', workflow_ref: 'acme/web/.github/workflows/mayfly.yml@refs/heads/main', workflow_sha: '0a1b',
    job_workflow_ref: 'acme/web/.github/workflows/mayfly.yml@refs/heads/main', job_workflow_sha: '0a1b', sha: '0a1b', run_id: '700', run_number: '7',
    run_attempt: '1', check_run_id: '900', actor: 'ada', actor_id: '5', runner_environment: 'github-hosted',
  });
  lab = await platform({
    sub: 'project_path:acme/web:ref_type:branch:ref:main', namespace_id: '72', namespace_path: 'acme', project_id: '22', project_path: 'acme/web',
    project_visibility: 'private', user_id: '1', user_login: 'ada', user_email: 'ada@example.org', user_access_level: 'developer',
    pipeline_id: '574', pipeline_source: 'push', job_id: '302', ref: 'main', ref_type: 'branch', ref_path: 'refs/heads/main', ref_protected: 'true',
    runner_id: 1, runner_environment: 'gitlab-hosted', sha: '714a', ci_config_ref_uri: 'gitlab.example.org/acme/web//.gitlab-ci.yml@refs/heads/main',
    ci_config_sha: '714a', job_source: 'push',
  });
  kite = await platform({
    sub: 'organization:acme:pipeline:web:ref:refs/heads/main:commit:9f31:step:build', organization_slug: 'acme', organization_id: '0184-1',
    pipeline_slug: 'web', pipeline_id: '0186-77', build_number: 1, build_branch: 'main', build_commit: '9f31', build_source: 'webhook',
    step_key: 'build', job_id: '0186-1', agent_id: '0186-2', runner_environment: 'self-hosted',
  });
  await up();
  await down();
  const section = (name, it, platform) => `
[[oidc_issuers]]
name = "${name}"
issuer = "${it.issuer}"
environments = ["dev"]
uses = ["attest"]
platform = "${platform}"
`;
  appendFileSync(join(world, 'mayfly.toml'), `
[own_domain]
trust_domain = "${OWN}"
${section('hub', hub, 'github')}${section('lab', lab, 'gitlab')}${section('kite', kite, 'buildkite')}
[[attestation]]
name = "deploy"
issuer = "hub"
claims = { repository_id = "1296269", ref = "refs/heads/main" }

[[attestation]]
name = "short"
issuer = "hub"
claims = { repository_id = "1296269", ref = "refs/heads/main" }
svid_ttl = "1m"

[[attestation]]
name = "deploy"
issuer = "lab"
claims = { project_id = "22", ref = "main" }

[[attestation]]
name = "deploy"
issuer = "kite"
claims = { pipeline_id = "0186-77", build_branch = "main" }
`);
  await up();
  const policy = join(folder, 'policy');
  await succeeds(operator('policy', 'show', 'dev', '--to', policy));
  const roles = join(policy, readdirSync(policy).find((f) => f.endsWith('.toml')));
  writeFileSync(roles, readFileSync(roles, 'utf8').replace('under = ["spiffe://dev.mayfly.internal"]', `under = ["spiffe://dev.mayfly.internal", "spiffe://${OWN}/ci"]`)
    + `\n[role.deployments]\nunder = ["spiffe://${OWN}/ci"]\n`);
  writeFileSync(join(policy, 'ci.cedar'), `
@id("ci-sign-in")
permit (principal in Role::"deployments", action == Action::"SignIn", resource) when { context has job };

@id("ci-work")
permit (principal in Role::"deployments", action in Action::"Work", resource == Upstream::"echo");
`);
  // Who may sign in governs: a second operator lets it through.
  const set = await operator('policy', 'set', 'dev', policy, '--roles', roles, '--reason', 'jobs');
  assert.equal(set.code, 9, set.all);
  const colleague = join(world, 'svid/operator/colleague');
  const as = ['--svid', join(colleague, 'svid.pem'), '--key', join(colleague, 'key.pem')];
  await succeeds(operator(...as, 'approval', 'give', /appr_[A-Za-z0-9_-]+/.exec(set.all)[0], '--reason', 'jobs'));
  outside = {
    MAYFLY_ADDRESS: `https://${addresses.workload}`, MAYFLY_PUBLIC: `https://localhost:${addresses.public.split(':').at(-1)}`,
    MAYFLY_SERVER_ID: 'spiffe://dev.mayfly.internal/mayfly', MAYFLY_BUNDLE: join(world, 'bundle.pem'),
  };
});

after(async () => {
  if (server?.exitCode === null) await down();
  for (const it of [hub, lab, kite]) it?.listener.close();
  if (folder) rmSync(folder, { recursive: true, force: true });
});

// ---- a runner of GitHub Actions

// What a step's file has to say: `name<<mark`, the value, the mark.
function told(file) {
  const said = {};
  const lines = existsSync(file) ? readFileSync(file, 'utf8').split('\n') : [];
  for (let n = 0; n < lines.length; n++) {
    const [name, mark] = lines[n].split('<<');
    if (!mark) continue;
    const end = lines.indexOf(mark, n + 1);
    said[name] = lines.slice(n + 1, end).join('\n');
    n = end;
  }
  return said;
}

class Runner {
  constructor(inputs) {
    this.dir = mkdtempSync(join(folder, 'runner-'));
    this.inputs = inputs;
    const file = (name) => join(this.dir, name);
    this.env = {
      PATH: `${bin}:${process.env.PATH}`, HOME: this.dir, RUNNER_TEMP: this.dir, GITHUB_ACTIONS: 'true',
      GITHUB_ENV: file('env'), GITHUB_OUTPUT: file('output'), GITHUB_STATE: file('state'),
      ACTIONS_ID_TOKEN_REQUEST_URL: `${hub.issuer}/token?api-version=2`, ACTIONS_ID_TOKEN_REQUEST_TOKEN: 'runner',
      ...Object.fromEntries(Object.entries(inputs).map(([name, value]) => [`INPUT_${name.toUpperCase()}`, value])),
    };
  }

  main() {
    return run(process.execPath, [join(deploy, 'github/begin.mjs')], this.env);
  }

  post() {
    const state = Object.entries(told(this.env.GITHUB_STATE)).map(([name, value]) => [`STATE_${name}`, value]);
    return run(process.execPath, [join(deploy, 'github/end.mjs')], { ...this.env, ...told(this.env.GITHUB_ENV), ...Object.fromEntries(state) });
  }
}

const inputs = (more = {}) => ({
  address: outside.MAYFLY_ADDRESS, public: outside.MAYFLY_PUBLIC, 'server-id': outside.MAYFLY_SERVER_ID,
  bundle: readFileSync(outside.MAYFLY_BUNDLE, 'utf8'), purpose: 'deploy the shop', upstreams: 'echo echo:read', mayfly: 'mayfly', ...more,
});

async function state(task) {
  const shown = await succeeds(operator('task', 'show', task, '-o', 'json'));
  return JSON.parse(shown.stdout).state;
}

async function introspected(token) {
  const file = join(folder, `token-${Math.random()}`);
  writeFileSync(file, token);
  return new Promise((resolve) => {
    const child = execFile(binary, ['--config', join(world, 'operator-you.toml'), 'token', 'lookup', '-o', 'json'], { env: { ...process.env, HOME: folder } },
      (_, stdout) => resolve(JSON.parse(stdout)));
    child.stdin.end(token);
  });
}

const alive = (pid) => {
  try {
    process.kill(pid, 0);
    // One that ended and that nobody has asked for yet is no more.
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
};

test('a job of GitHub has credentials from its first step on, and none after its last', async () => {
  const runner = new Runner(inputs());
  const began = await succeeds(runner.main());
  const [output, env] = [told(runner.env.GITHUB_OUTPUT), told(runner.env.GITHUB_ENV)];
  assert.equal(output['spiffe-id'], `spiffe://${OWN}/ci/hub/1296269/deploy`);
  assert.equal(decodeJwt(output.echo).sub, output['spiffe-id']);
  assert.ok(hub.asked.at(-1).startsWith(`${ISSUER}#`), 'the platform was asked for a token for one key');
  // The token is masked before it can stand anywhere.
  assert.ok(began.stdout.includes(`::add-mask::${output.echo}\n`));
  assert.ok(!began.all.replaceAll(`::add-mask::${output.echo}`, '').includes('eyJ'), began.all);
  const { dir, beats } = told(runner.env.GITHUB_STATE);
  assert.equal(statSync(join(dir, 'config.login', 'key.pem')).mode & 0o777, 0o600);
  assert.equal(await state(output.task), 'active');
  assert.equal((await introspected(output.echo)).credential.state, 'active');
  assert.ok(alive(Number(beats)));
  // A later step gets one more by itself, and has it masked as well.
  const more = ['get', 'echo', '--scope', 'echo:read', '--purpose', 'more', '--mask'];
  const later = await succeeds(run('mayfly', more, { ...runner.env, ...env }));
  assert.match(later.stdout, /^eyJ/);
  assert.ok(later.stderr.includes(`::add-mask::${later.stdout.trim()}\n`));
  // The audit has which run it was.
  const logins = await succeeds(operator('audit', 'search', '--event', 'logged in', '-o', 'json'));
  for (const claim of ['run_id=700', 'run_attempt=1', 'check_run_id=900', 'actor_id=5', 'ref_protected=true']) {
    assert.ok(logins.stdout.includes(claim), `${claim}: ${logins.stdout}`);
  }
  await succeeds(runner.post());
  assert.equal(await state(output.task), 'completed');
  for (const token of [output.echo, later.stdout.trim()]) assert.notEqual((await introspected(token)).credential.state, 'active');
  assert.ok(!existsSync(dir));
  for (let n = 0; n < 100 && alive(Number(beats)); n++) await sleep(50);
  assert.ok(!alive(Number(beats)));
  // A re-run is another token, another SVID, another task.
  const again = new Runner(inputs());
  await succeeds(again.main());
  assert.notEqual(told(again.env.GITHUB_OUTPUT).task, output.task);
  await succeeds(again.post());
});

test('a job that fails in the middle leaves nothing behind', async () => {
  const runner = new Runner(inputs({ upstreams: 'echo echo:read\nnothing-of-that-name x' }));
  const failed = await runner.main();
  assert.equal(failed.code, 1);
  assert.match(failed.stdout, /^::error title=mayfly::mayfly task open: /m);
  await succeeds(runner.post());
  assert.ok(!existsSync(told(runner.env.GITHUB_STATE).dir));
  const missing = new Runner(inputs({ purpose: ' ' }));
  const said = await missing.main();
  assert.deepEqual([said.code, /the input purpose is missing/.test(said.stdout)], [1, true]);
  await succeeds(missing.post());
});

// A process that runs words, then does nothing: what a runner is to the scripts that it starts.
async function work(words, env, said) {
  const script = `"$@" && echo begun && sleep 1000`;
  const child = spawn(bash, ['-c', script, 'work', ...words], { env, stdio: ['ignore', 'pipe', 'pipe'] });
  let all = '';
  for (const from of [child.stdout, child.stderr]) from.on('data', (data) => (all += data));
  for (let n = 0; n < 600 && !all.includes(said); n++) {
    assert.equal(child.exitCode, null, all);
    await sleep(50);
  }
  assert.ok(all.includes(said), all);
  return child;
}

// Everything under a process, and it: as when its machine goes. What had a session of its own is not found, as it is not by a runner's killer.
async function killed(child, task) {
  child.kill('SIGKILL');
  let last;
  for (let n = 0; n < 400 && last !== 'expired'; n++) {
    await sleep(100);
    last = await state(task);
  }
  assert.equal(last, 'expired');
}

test('the task of a runner that is killed ends by itself', async () => {
  const runner = new Runner(inputs({ heartbeat: '10s' }));
  const worker = await work([process.execPath, join(deploy, 'github/begin.mjs')], runner.env, 'begun');
  const [{ task }, { beats }] = [told(runner.env.GITHUB_OUTPUT), told(runner.env.GITHUB_STATE)];
  assert.ok(alive(Number(beats)));
  // Nobody touches the heartbeats: they end because it did.
  await killed(worker, task);
  assert.ok(!alive(Number(beats)));
  await runner.post();
});

test('so does that of a job of GitLab, whose shell is killed', async () => {
  const dir = join(folder, 'lab-dies');
  const env = shellEnv({
    GITLAB_CI: 'true', MAYFLY_ID_TOKEN: await lab.token(ISSUER), MAYFLY_CI_DIR: dir, MAYFLY_PURPOSE: 'deploy', MAYFLY_UPSTREAMS: 'echo=echo:read',
    MAYFLY_HEARTBEAT: '10s',
  });
  const shell = await work(['source', join(deploy, 'begin.sh')], env, 'begun');
  const beats = Number(readFileSync(join(dir, 'beats'), 'utf8'));
  assert.ok(alive(beats));
  await killed(shell, readFileSync(join(dir, 'task'), 'utf8').trim());
  assert.ok(!alive(beats));
});

test('the SVID of a long job is renewed for the same key, and its task goes on', async () => {
  const runner = new Runner(inputs({ rule: 'short' }));
  await succeeds(runner.main());
  const { dir } = told(runner.env.GITHUB_STATE);
  const [svid, key] = ['svid.pem', 'key.pem'].map((name) => join(dir, 'config.login', name));
  const [first, own] = [new X509Certificate(readFileSync(svid)), readFileSync(key, 'utf8')];
  // It lives for a minute, which is renewed at once, or with the second heartbeat where a busy machine was too slow for that.
  let later = first;
  for (let n = 0; n < 1000 && later.serialNumber === first.serialNumber; n++) {
    await sleep(50);
    later = new X509Certificate(readFileSync(svid));
  }
  assert.notEqual(later.serialNumber, first.serialNumber);
  assert.ok(later.publicKey.equals(first.publicKey) && readFileSync(key, 'utf8') === own);
  const env = { ...runner.env, ...told(runner.env.GITHUB_ENV) };
  await succeeds(run('mayfly', ['get', 'echo', '--scope', 'echo:read', '--purpose', 'more'], env));
  assert.equal(await state(told(runner.env.GITHUB_OUTPUT).task), 'active');
  await succeeds(runner.post());
});

test('a request to merge from a fork gets nothing', async () => {
  const own = hub.claims;
  hub.claims = { ...own, event_name: 'pull_request', ref: 'refs/pull/7/merge', base_ref: 'main', head_ref: 'patch-1', sub: 'repo:acme/web:pull_request' };
  try {
    const runner = new Runner(inputs());
    const failed = await runner.main();
    assert.equal(failed.code, 1);
    assert.match(failed.stdout, /no rule lets this job of hub in/);
    await succeeds(runner.post().then((ran) => ({ ...ran, code: 0 })));
  } finally {
    hub.claims = own;
  }
});

// ---- GitLab, Buildkite

const shellEnv = (more) => ({ PATH: `${bin}:${process.env.PATH}`, HOME: folder, TMPDIR: folder, ...outside, ...more });

test('a job of GitLab sources one script before and runs one after', async () => {
  const dir = join(folder, 'lab-1');
  const env = shellEnv({
    GITLAB_CI: 'true', MAYFLY_ID_TOKEN: await lab.token(ISSUER), MAYFLY_CI_DIR: dir, MAYFLY_PURPOSE: 'deploy', MAYFLY_UPSTREAMS: 'echo=echo:read',
  });
  const script = `. "${deploy}/begin.sh" && test -z "\${MAYFLY_ID_TOKEN:-}" && mayfly get echo --scope echo:read --purpose deploy --to "${folder}/token" && echo "$MAYFLY_TASK"`;
  const ran = await succeeds(run('sh', ['-euc', script], env));
  assert.ok(!ran.all.includes('eyJ'), ran.all);
  const task = ran.stdout.trim();
  const token = readFileSync(join(folder, 'token'), 'utf8').trim();
  assert.equal(decodeJwt(token).sub, `spiffe://${OWN}/ci/lab/22/deploy`);
  assert.equal(await state(task), 'active');
  const logins = await succeeds(operator('audit', 'search', '--event', 'logged in', '-o', 'json'));
  for (const claim of ['job_id=302', 'pipeline_id=574', 'ref_type=branch']) assert.ok(logins.stdout.includes(claim), `${claim}: ${logins.stdout}`);
  await succeeds(run('sh', [join(deploy, 'end.sh')], env));
  assert.equal(await state(task), 'completed');
  assert.notEqual((await introspected(token)).credential.state, 'active');
  assert.ok(!existsSync(dir));
  // After nothing began there is nothing to end.
  await succeeds(run('sh', [join(deploy, 'end.sh')], env));
  const twice = await run('sh', ['-euc', script], env);
  assert.notEqual(twice.code, 0, 'a token is used once');
});

test('a step of Buildkite has its task by hooks of the plugin', async () => {
  const hidden = join(folder, 'hidden');
  const agent = `#!/bin/sh\nif [ "$1 $2" = "redactor add" ]; then cat >>"${hidden}"; exit; fi\n[ "$1 $2 $3" = "oidc request-token --audience" ] || exit 64\nexec "${process.execPath}" -e 'fetch(process.argv[1], {headers: {authorization: "Bearer runner"}}).then((r) => r.json()).then((j) => console.log(j.value))' "${kite.issuer}/token?audience=$(printf %s "$4" | sed 's/#/%23/')"\n`;
  writeFileSync(join(bin, 'buildkite-agent'), agent);
  chmodSync(join(bin, 'buildkite-agent'), 0o755);
  const env = shellEnv({
    BUILDKITE_AGENT_ACCESS_TOKEN: 'x', BUILDKITE_JOB_ID: '0186-1', BUILDKITE_PLUGIN_MAYFLY_PURPOSE: 'deploy', BUILDKITE_PLUGIN_MAYFLY_UPSTREAMS_0: 'echo=echo:read',
  });
  const hook = join(deploy, 'buildkite/hooks/pre-command');
  const ran = await succeeds(run(bash, ['-euc', `. "${hook}" && mayfly get echo --mask --scope echo:read --purpose deploy --header --to "${folder}/header" && echo "$MAYFLY_TASK"`], env));
  const task = ran.stdout.trim().split('\n').at(-1);
  assert.ok(!ran.all.includes('eyJ'), ran.all);
  assert.equal(readFileSync(join(folder, 'header'), 'utf8').trim(), `authorization: Bearer ${readFileSync(hidden, 'utf8')}`);
  assert.ok(kite.asked.at(-1).startsWith(`${ISSUER}#`));
  assert.equal(await state(task), 'active');
  await succeeds(run(bash, [join(deploy, 'buildkite/hooks/pre-exit')], env));
  assert.equal(await state(task), 'completed');
});

// ---- what `mayfly ci init` writes

// That the files of a platform are what the platform reads: YAML, with what has to be there, and every script one of the shell.
async function understood(platform, dir) {
  const yaml = (file) => parse(readFileSync(join(dir, file), 'utf8'));
  const scripts = [];
  if (platform === 'github') {
    const [workflow, action] = [yaml('.github/workflows/mayfly.yml'), yaml('.github/actions/mayfly/action.yml')];
    assert.equal(workflow.permissions['id-token'], 'write');
    const [, ours, step] = workflow.jobs.deploy.steps;
    for (const [name, { required }] of Object.entries(action.inputs)) assert.ok(!required || ours.with[name], name);
    for (const name of Object.keys(ours.with)) assert.ok(action.inputs[name], name);
    assert.deepEqual(ours.with.upstreams.trim().split('\n'), ['echo echo:read', 'registry push pull']);
    assert.ok(action.outputs.echo && action.outputs.registry && step.env.TOKEN.includes("outputs['echo']"));
    assert.ok(existsSync(join(dir, ours.uses, action.runs.main)) && existsSync(join(dir, ours.uses, action.runs.post)));
    scripts.push(step.run);
    // Whoever has the linter has all of it looked at.
    const linter = [process.env.ACTIONLINT, fileURLToPath(new URL('../../../target/operators/bin/actionlint', import.meta.url))].find((f) => f && existsSync(f));
    if (linter) await succeeds(run('sh', ['-c', 'git init -q . && exec "$0" -shellcheck= -pyflakes=', linter], { PATH: process.env.PATH, HOME: folder }, dir));
    else skipped('what actionlint finds in the workflow: it is not here');
  } else if (platform === 'gitlab') {
    const [pipeline, ours] = [yaml('.gitlab-ci.yml'), yaml('.gitlab/mayfly/mayfly.yml')];
    assert.ok(existsSync(join(dir, pipeline.include[0].local)));
    assert.equal(pipeline.deploy.extends, '.mayfly');
    assert.equal(ours['.mayfly'].id_tokens.MAYFLY_ID_TOKEN.aud, '$MAYFLY_ISSUER');
    assert.equal(pipeline.deploy.variables.MAYFLY_UPSTREAMS, 'echo=echo:read registry=push,pull');
    scripts.push(...pipeline.deploy.script, ...ours['.mayfly'].before_script, ...ours['.mayfly'].after_script);
  } else {
    const pipeline = yaml('.buildkite/pipeline.yml');
    const [[name, settings]] = Object.entries(pipeline.steps[0].plugins[0]);
    const plugin = yaml(join(name, 'plugin.yml'));
    for (const key of plugin.configuration.required) assert.ok(settings[key], key);
    for (const key of Object.keys(settings)) assert.ok(plugin.configuration.properties[key], key);
    assert.deepEqual(settings.upstreams, ['echo=echo:read', 'registry=push,pull']);
    scripts.push(...pipeline.steps[0].command);
  }
  for (const script of scripts) {
    assert.equal(typeof script, 'string');
    await succeeds(run('sh', ['-nc', script], { PATH: process.env.PATH }));
  }
}

test('a repository is given what its jobs need, and what is there is not written over', async () => {
  for (const [platform, workflow, runs] of [
    ['github', '.github/workflows/mayfly.yml', []],
    ['gitlab', '.gitlab-ci.yml', ['.gitlab/mayfly/end.sh']],
    ['buildkite', '.buildkite/pipeline.yml', ['.buildkite/mayfly/hooks/pre-command', '.buildkite/mayfly/hooks/pre-exit', '.buildkite/mayfly/end.sh']],
  ]) {
    const dir = mkdtempSync(join(folder, 'repository-'));
    const words = ['ci', 'init', platform, '--upstream', 'echo=echo:read', '--upstream', 'registry=push,pull', '--dir', dir];
    const ran = await succeeds(run(binary, [...words, '-o', 'json'], shellEnv({})));
    for (const file of JSON.parse(ran.stdout).files) assert.ok(existsSync(file), file);
    const text = readFileSync(join(dir, workflow), 'utf8');
    assert.ok(!text.includes('{{address') && !text.includes('{{upstream') && text.includes(outside.MAYFLY_ADDRESS), text);
    assert.ok(platform !== 'gitlab' || text.includes(`MAYFLY_ISSUER: ${ISSUER}`));
    for (const file of runs) assert.ok(statSync(join(dir, file)).mode & 0o100, file);
    await understood(platform, dir);
    // What is written is what is tested above.
    for (const file of JSON.parse(ran.stdout).files.slice(1)) {
      const name = file.slice(dirname(dir).length);
      const from = [`github/${name.split('/').at(-1)}`, name.split('/').at(-1), `buildkite/${name.split('/').at(-1)}`, `buildkite/hooks/${name.split('/').at(-1)}`, 'gitlab.yml'];
      const written = readFileSync(file, 'utf8').replace('  echo:\n    description: The credential for echo\n  registry:\n    description: The credential for registry\n', '');
      assert.ok(from.some((f) => existsSync(join(deploy, f)) && readFileSync(join(deploy, f), 'utf8') === written), file);
    }
    assert.equal((await run(binary, words, shellEnv({}))).code, 2);
    await succeeds(run(binary, [...words, '--force'], shellEnv({})));
  }
});
