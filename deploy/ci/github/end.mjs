// The job is over: its task ends with all that was issued in it, its SVID is given back, its key is deleted.
import { execFileSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { basename, join } from 'node:path';

const state = (name) => process.env[`STATE_${name}`];
const dir = state('dir');
let failed = false;

function mayfly(...words) {
  const env = { ...process.env, MAYFLY_CONFIG: join(dir, 'config.toml') };
  try {
    execFileSync(process.env.INPUT_MAYFLY || 'mayfly', words, { env, encoding: 'utf8', stdio: ['ignore', 'ignore', 'pipe'] });
  } catch (error) {
    failed = true;
    const what = (error.stderr || error.message).trim().replaceAll('%', '%25').replaceAll('\r', '%0D').replaceAll('\n', '%0A');
    console.log(`::error title=mayfly::mayfly ${words.slice(0, 2).join(' ')}: ${what}`);
  }
}

if (dir) {
  if (state('beats')) {
    try {
      process.kill(Number(state('beats')));
    } catch {
      // It ended before.
    }
  }
  if (state('task')) mayfly('task', 'complete', state('task'));
  mayfly('logout');
  if (basename(dir).startsWith('mayfly-')) rmSync(dir, { recursive: true, force: true });
}
process.exit(failed ? 1 : 0);
