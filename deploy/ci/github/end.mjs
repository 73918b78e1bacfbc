// Runs at the end of the job: completes its task, which ends everything that was issued in it, gives its SVID back, and deletes its key.
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
      // The heartbeat process has already ended.
    }
  }
  if (state('task')) mayfly('task', 'complete', state('task'));
  mayfly('logout');
  if (basename(dir).startsWith('mayfly-')) rmSync(dir, { recursive: true, force: true });
}
process.exit(failed ? 1 : 0);
