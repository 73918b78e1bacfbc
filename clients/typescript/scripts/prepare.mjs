// Builds, wherever the package is prepared. npm gives a package that is installed from its folder no compiler: then it is
// installed here first, as the lock says.
import { execFileSync } from 'node:child_process';
import { existsSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const home = join(dirname(fileURLToPath(import.meta.url)), '..');
const run = (command, ...words) => execFileSync(command, words, { cwd: home, stdio: ['ignore', 'ignore', 'inherit'], env: environment() });

/** Without what the npm around us set for its own run: that is about another folder. */
function environment() {
  const about = /^npm_(?!config_(cache|registry|userconfig|globalconfig|prefer_offline|offline)$)/;
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !about.test(name)));
}

const tsc = join(home, 'node_modules/.bin/tsc');
if (!existsSync(tsc)) run('npm', 'ci', '--ignore-scripts', '--no-audit', '--no-fund');
rmSync(join(home, 'dist'), { recursive: true, force: true });
run(tsc, '-p', '.');
