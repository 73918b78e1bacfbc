// The README's blocks, each as it is written, in order, in an empty folder; and the package as it is installed.
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { after, before, test } from 'node:test';
import { binary, PROJECT } from './kit.js';

const home = fileURLToPath(new URL('../../', import.meta.url));
let folder: string;

before(() => {
  folder = mkdtempSync(join(tmpdir(), 'mayfly-readme-'));
});
after(() => {
  rmSync(folder, { recursive: true, force: true });
});

const NPM = {
  npm_config_audit: 'false', npm_config_fund: 'false', npm_config_update_notifier: 'false', npm_config_loglevel: 'error',
  npm_config_prefer_offline: 'true', npm_config_yes: 'true',
};

interface Block {
  language: string;
  text: string;
}

/** The fenced blocks of a page. */
function blocks(page: string): Block[] {
  return [...page.matchAll(/^```(\w+)\n([\s\S]*?)^```$/gm)].map(([, language, text]) => ({ language: language!, text: text! }));
}

/** One script of all that is to be run, with what names a file written to it first. */
function script(all: Block[], into: string): string {
  const lines = ['set -Eeuo pipefail', `trap 'kill $(jobs -p) 2>/dev/null || true; mayfly dev down --dir "$PWD/world" >/dev/null 2>&1 || true' EXIT`];
  for (const [n, { language, text }] of all.entries()) {
    if (language === 'bash') {
      lines.push(`echo "== block ${n + 1}"`, text);
      continue;
    }
    const [, name] = /^\/\/ (\S+)\n/.exec(text) ?? assert.fail(`block ${n + 1} does not begin with the name of its file`);
    const content = language === 'json' ? text.slice(text.indexOf('\n') + 1) : text;
    writeFileSync(join(into, `${name}.block`), content);
    lines.push(`cp ${name}.block ${name}`);
  }
  return lines.join('\n');
}

test('every block of the README runs as it is written', { timeout: 300_000 }, async () => {
  const into = join(folder, 'readme');
  const tools = join(folder, 'bin');
  mkdirSync(into);
  mkdirSync(tools);
  symlinkSync(binary, join(tools, 'mayfly'));
  copyOf(into);
  symlinkSync(join(home, 'node_modules'), join(into, 'clients/typescript/node_modules'));
  const all = blocks(readFileSync(join(home, 'README.md'), 'utf8'));
  assert.ok(all.length >= 12);
  writeFileSync(join(folder, 'all.sh'), script(all, into));
  const env = { ...process.env, ...NPM, PATH: `${tools}:${process.env['PATH']}`, HOME: folder, npm_config_cache: cache() };
  const { code, output } = await new Promise<{ code: number | null; output: string }>((resolve) => {
    const child = spawn('bash', [join(folder, 'all.sh')], { cwd: into, env, stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    child.stdout.on('data', (part: Buffer) => { output += part; });
    child.stderr.on('data', (part: Buffer) => { output += part; });
    child.once('close', (code) => resolve({ code, output }));
  });
  assert.equal(code, 0, output);
  assert.ok(!output.includes('eyJhbGci'), 'it shows no token');
});

/** The package's sources and the contract, as they lie in the repository: packing builds, and others use what is built here. */
function copyOf(repository: string): string {
  const copy = join(repository, 'clients/typescript');
  const kept = (path: string) => !/^(node_modules|dist|build)(\/|$)|\.tgz$/.test(relative(home, path));
  cpSync(home, copy, { recursive: true, filter: kept });
  cpSync(join(PROJECT, 'proto'), join(repository, 'proto'), { recursive: true });
  return copy;
}

/** npm's own cache, for a home that is empty. */
function cache(): string {
  return execFileSync('npm', ['config', 'get', 'cache'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
}

test('the package has what it needs, and nothing else', () => {
  const [packed] = JSON.parse(execFileSync('npm', ['pack', '--dry-run', '--json', '--ignore-scripts'], {
    cwd: home, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'],
  })) as { files: { path: string }[] }[];
  const paths = packed!.files.map(({ path }) => path);
  for (const path of ['package.json', 'README.md', 'LICENSE', 'dist/index.js', 'dist/index.d.ts']) assert.ok(paths.includes(path), path);
  assert.deepEqual(paths.filter((path) => !/^(dist\/.*\.(js|d\.ts)|package\.json|README\.md|LICENSE)$/.test(path)), []);
});

test('it is installed from its folder, and built there', { timeout: 300_000 }, () => {
  const copy = copyOf(join(folder, 'repository'));
  const app = join(folder, 'app');
  mkdirSync(app);
  writeFileSync(join(app, 'package.json'), '{"type":"module","private":true}');
  const run = (command: string, ...words: string[]) => execFileSync(command, words, { cwd: app, env: { ...process.env, ...NPM }, encoding: 'utf8' });
  run('npm', 'install', copy);
  const printed = run(process.execPath, '--input-type=module', '-e', `import * as all from '@mayfly/client'; console.log(Object.keys(all).sort().join(' '))`);
  assert.match(printed, /\bMayfly\b.*\bVerifier\b.*\bprotect\b/);
});

test('the lock names no registry, and every package by its digest', () => {
  const lock = JSON.parse(readFileSync(join(home, 'package-lock.json'), 'utf8')) as { packages: Record<string, { resolved?: string; integrity?: string; link?: boolean }> };
  const packages = Object.entries(lock.packages).filter(([name]) => name !== '');
  assert.ok(packages.length > 50);
  assert.deepEqual(packages.filter(([, { resolved }]) => resolved !== undefined).map(([name]) => name), []);
  assert.deepEqual(packages.filter(([, { integrity }]) => !integrity?.startsWith('sha512-')).map(([name]) => name), []);
});

test('what is generated from the contract is current', { timeout: 120_000 }, () => {
  const copy = copyOf(join(folder, 'again'));
  symlinkSync(join(home, 'node_modules'), join(copy, 'node_modules'));
  execFileSync('npm', ['run', 'generate'], { cwd: copy, env: { ...process.env, ...NPM }, stdio: ['ignore', 'ignore', 'pipe'] });
  const all = (root: string) => readdirSync(join(root, 'src/gen'), { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.ts')).sort();
  assert.deepEqual(all(copy), all(home));
  for (const name of all(copy)) {
    assert.equal(readFileSync(join(copy, 'src/gen', name), 'utf8'), readFileSync(join(home, 'src/gen', name), 'utf8'), `${name}: npm run generate`);
  }
});
