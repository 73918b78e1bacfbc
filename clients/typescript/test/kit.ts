// A dev world for tests: the real server as a child, with a CA whose SVIDs are made here as often as a test likes.
import assert from 'node:assert/strict';
import { execFile, execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { createSocket, type Socket } from 'node:dgram';
import { closeSync, existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { setTimeout as sleep } from 'node:timers/promises';
import { Mayfly, type MayflyOptions } from '@mayfly/client';

export const DOMAIN = 'dev.mayfly.internal';
export const AUDIENCE = 'https://echo.dev.mayfly.internal';
export const PROJECT = fileURLToPath(new URL('../../../../', import.meta.url));
export const binary = process.env['MAYFLY_BIN'] ?? join(PROJECT, 'target/debug/mayfly');

const MARKER = 'A dev world of mayfly. `mayfly dev down --purge` removes this directory.\n';

// Whoever has the UDP port of a number has the number, in the tests of every language, until its process ends.
const held: Socket[] = [];

/**
 * The first of so many ports of loopback in a row that are free now, and stay ours while nobody listens at them.
 * Below 32768: from there on the system gives ports to outgoing connections, and one of those may have a port in the moment that a
 * server lets it go.
 */
export async function freePort(many = 1): Promise<number> {
  for (let first = 20_000 + (process.pid % 97) * 120; first < 32_000 - many; first++) {
    const tried: Socket[] = [];
    try {
      for (let port = first; port < first + many; port++) tried.push(await udp(port));
      for (let port = first; port < first + many; port++) await listens(port);
      held.push(...tried);
      return first;
    } catch {
      // Somebody has one of them.
      for (const socket of tried) socket.close();
    }
  }
  throw new Error('no free ports below 32768');
}

function udp(port: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = createSocket('udp4').once('error', reject);
    socket.bind({ port, address: '127.0.0.1', exclusive: true }, () => resolve(socket.unref()));
  });
}

function listens(port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const server = createServer().once('error', reject);
    server.listen(port, '127.0.0.1', () => server.close(() => resolve()));
  });
}

export interface SvidPaths {
  svid: string;
  key: string;
}

export class World {
  readonly dir: string;
  readonly #env: NodeJS.ProcessEnv;
  #server: ChildProcess | undefined;
  #port = 0;

  private constructor(readonly folder: string) {
    this.dir = join(folder, 'world');
    // A home of its own: the dev server leaves a context for the command line there.
    this.#env = { ...process.env, HOME: folder, XDG_CONFIG_HOME: join(folder, 'config'), XDG_STATE_HOME: join(folder, 'state') };
  }

  /** `target` is where credentials for the upstream `echo` are to be sent; `policy` comes after that of every dev world. */
  static async up(target = 'http://127.0.0.1:9', policy = ''): Promise<World> {
    const world = new World(mkdtempSync(join(tmpdir(), 'mayfly-ts-')));
    mkdirSync(join(world.dir, 'policy/upstreams'), { recursive: true, mode: 0o700 });
    writeFileSync(join(world.dir, '.mayfly-dev'), MARKER, { mode: 0o600 });
    writeFileSync(join(world.dir, 'policy/upstreams/echo.toml'), registration(target), { mode: 0o600 });
    const samples = readFileSync(join(PROJECT, 'src/cli/samples/policy.cedar'), 'utf8');
    writeFileSync(join(world.dir, 'policy/policy.cedar'), samples + policy, { mode: 0o600 });
    world.#port = await freePort(3);
    await world.start();
    return world;
  }

  async start(): Promise<void> {
    assert.ok(existsSync(binary), `${binary} is not there: build it, or say in MAYFLY_BIN where it is`);
    rmSync(join(this.dir, 'ready.json'), { force: true });
    const log = openSync(join(this.folder, 'server.log'), 'a');
    this.#server = spawn(binary, ['dev', 'up', '--dir', this.dir, '--port', `${this.#port}`], { env: this.#env, stdio: ['ignore', log, log] });
    closeSync(log);
    for (let n = 0; n < 1200 && !existsSync(join(this.dir, 'ready.json')); n++) {
      assert.equal(this.#server.exitCode, null, this.log());
      await sleep(50);
    }
  }

  async #ended(how: NodeJS.Signals): Promise<void> {
    const server = this.#server;
    if (!server || server.exitCode !== null || server.signalCode !== null) return;
    const over = new Promise((resolve) => server.once('exit', resolve));
    server.kill(how);
    await over;
  }

  /** As by a power cut. */
  kill(): Promise<void> {
    return this.#ended('SIGKILL');
  }

  /** In good order; what it holds stays. */
  stop(): Promise<void> {
    return this.#ended('SIGTERM');
  }

  async down(): Promise<void> {
    await this.#ended('SIGTERM');
    rmSync(this.folder, { recursive: true, force: true });
  }

  log(): string {
    return readFileSync(join(this.folder, 'server.log'), 'utf8');
  }

  get address(): string {
    return (JSON.parse(readFileSync(join(this.dir, 'ready.json'), 'utf8')) as { workload: string }).workload;
  }

  /** The issuer of its one environment. */
  get issuer(): string {
    return `https://localhost:${this.#port + 2}/dev`;
  }

  file(name: string): string {
    return join(this.dir, name);
  }

  svid(name: string): SvidPaths {
    return { svid: this.file(`svid/${name}/svid.pem`), key: this.file(`svid/${name}/key.pem`) };
  }

  /** An SVID with a new key, from the world's CA, written over the one in `folder` as spiffe-helper would. */
  mint(name: string, folder: string, seconds = 3600, domain = DOMAIN, ca = this.dir): SvidPaths {
    mkdirSync(folder, { recursive: true });
    const paths = { svid: join(folder, 'svid.pem'), key: join(folder, 'key.pem') };
    const openssl = (...words: string[]) => execFileSync('openssl', words, { stdio: ['ignore', 'ignore', 'pipe'] });
    openssl('ecparam', '-name', 'prime256v1', '-genkey', '-noout', '-out', `${paths.key}.1`);
    openssl('pkcs8', '-topk8', '-nocrypt', '-in', `${paths.key}.1`, '-out', `${paths.key}.2`);
    openssl('req', '-new', '-key', `${paths.key}.2`, '-subj', '/', '-out', join(folder, 'csr'));
    writeFileSync(join(folder, 'ext'), [
      `subjectAltName=critical,URI:spiffe://${domain}/${name}`, 'keyUsage=critical,digitalSignature',
      'extendedKeyUsage=serverAuth,clientAuth', 'basicConstraints=CA:FALSE', 'authorityKeyIdentifier=keyid', 'subjectKeyIdentifier=hash',
    ].join('\n'));
    const at = (ms: number) => new Date(ms).toISOString().replace(/[-:T]|\.\d+/g, '');
    const [from, to] = [at(Date.now() - 60_000), at(Date.now() + seconds * 1000)];
    sign(folder, join(ca, 'ca.pem'), join(ca, 'ca.key'), from, to);
    renameSync(`${paths.key}.2`, paths.key);
    renameSync(join(folder, 'leaf'), paths.svid);
    return paths;
  }

  env(name: string, more: Record<string, string> = {}): Record<string, string> {
    const { svid, key } = this.svid(name);
    return {
      MAYFLY_ADDRESS: this.address, MAYFLY_SVID: svid, MAYFLY_KEY: key, MAYFLY_BUNDLE: this.file('bundle.pem'),
      MAYFLY_SERVER_ID: `spiffe://${DOMAIN}/mayfly`, ...more,
    };
  }

  client(name: string, options: MayflyOptions = {}, more: Record<string, string> = {}): Mayfly {
    return Mayfly.fromEnv(options, this.env(name, more));
  }

  /** The command line as an operator; its answer as JSON where it is some. */
  operator<T = unknown>(...words: string[]): Promise<T> {
    return new Promise((resolve, reject) => {
      const all = ['--config', this.file('operator-you.toml'), ...words, '-o', 'json'];
      execFile(binary, all, { env: this.#env, encoding: 'utf8', timeout: 60_000, maxBuffer: 1 << 26 }, (error, stdout, stderr) => {
        if (error) return reject(new Error(`mayfly ${words.join(' ')}: ${stderr}${stdout}`));
        resolve((stdout.trim() === '' ? undefined : JSON.parse(stdout)) as T);
      });
    });
  }

  /** Records of an event that name something. */
  records(event: string, names: string): Promise<{ seq: number; body: Record<string, unknown> }[]> {
    return this.operator('audit', 'search', names, '--event', event, '--limit', '1000');
  }
}

function sign(folder: string, ca: string, key: string, from: string, to: string): void {
  const config = join(folder, 'ca.cnf');
  writeFileSync(config, `[ca]\ndefault_ca=d\n[d]\nnew_certs_dir=${folder}\ndatabase=${folder}/index\nrand_serial=yes\ndefault_md=sha256\npolicy=p\n`
    + 'unique_subject=no\nemail_in_dn=no\n[p]\ncommonName=optional\n');
  writeFileSync(join(folder, 'index'), '');
  execFileSync('openssl', ['ca', '-batch', '-notext', '-config', config, '-cert', ca, '-keyfile', key, '-startdate', from, '-enddate', to,
    '-in', join(folder, 'csr'), '-extfile', join(folder, 'ext'), '-out', join(folder, 'leaf'), '-preserveDN', '-subj', '/'],
  { stdio: ['ignore', 'ignore', 'pipe'] });
}

/** A CA of another trust domain, in a folder as {@link World.mint} takes it. */
export function otherCa(folder: string, domain: string): string {
  mkdirSync(folder, { recursive: true });
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2', '-subj', '/CN=ca',
    '-addext', `subjectAltName=URI:spiffe://${domain}`, '-keyout', join(folder, 'ca.key'), '-out', join(folder, 'ca.pem')],
  { stdio: ['ignore', 'ignore', 'pipe'] });
  return folder;
}

function registration(target: string): string {
  return `name = "echo"
owner = "you"
purpose = "shows what a relying service sees of a credential"
environment = "dev"
audience = "${AUDIENCE}"
target = "${target}"
servers = ["spiffe://${DOMAIN}/service/echo", "spiffe://${DOMAIN}/mcp/echo"]
approvers = ["spiffe://${DOMAIN}/operator/you"]
kinds = ["jwt", "reference"]
scopes = ["echo:read", "echo:write", { name = "echo:admin", sensitive = true }]
expires = 2099-12-31

[classification]
system = "echo"
privilege = "write"
blast_radius = "low"

[ttl]
min = "1s"
default = "5m"
max = "1h"

[jwt]
alg = "ES256"
proof_of_possession = "none"
`;
}

/** Waits until something holds. */
export async function until(what: string, holds: () => boolean | Promise<boolean>, ms = 15_000): Promise<void> {
  for (const end = Date.now() + ms; !(await holds()); await sleep(20)) {
    if (Date.now() > end) assert.fail(`it did not come to pass in time: ${what}`);
  }
}
