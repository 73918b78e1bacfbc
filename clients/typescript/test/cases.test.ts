// The cases that every language answers alike: tests/vectors/verify/cases.json, made from the reference.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fromJson, type JsonValue } from '@bufbuild/protobuf';
import { WatchRevocationsResponseSchema } from '#dist/gen/mayfly/v1/feed_pb.js';
import { Checker } from '#dist/verify/check.js';
import { Refused, REASONS } from '#dist/verify/refused.js';
import { readJwks } from '#dist/verify/token.js';
import { NotRead } from '#dist/verify/feed.js';
import { needed } from '#dist/verify/verifier.js';

interface Step {
  wall: number;
  steady: number;
  jwks?: object;
  feed?: JsonValue;
  check?: { token: string; scope: string; tool: string; arguments_sha256: string; certificate_sha256: string };
  expect?: string;
}

interface Cases {
  version: number;
  settings: { issuer: string; audience: string; max_ttl_ms: number; skew_ms: number; feed_max_age_ms: number };
  jwks: object;
  cases: { name: string; why: string; steps: Step[] }[];
}

const path = new URL('../../../../tests/vectors/verify/cases.json', import.meta.url);
const { version, settings, jwks, cases } = JSON.parse(readFileSync(path, 'utf8')) as Cases;

interface Reach {
  keys: object[];
  cases: {
    name: string; issuer: string; audience: string; token: string; target: JsonValue;
    seen: string; seq: string; wall: number; expect: string;
  }[];
}

const reach = JSON.parse(readFileSync(new URL('reach.json', path), 'utf8')) as Reach;
const limits = { maxTtl: settings.max_ttl_ms, skew: settings.skew_ms, feedMaxAge: settings.feed_max_age_ms };

function taken(checker: Checker, step: Step): string {
  try {
    // What an older client does not know it passes over, and then the event is missing.
    const message = fromJson(WatchRevocationsResponseSchema, step.feed!, { ignoreUnknownFields: true });
    return checker.take(message, step);
  } catch (error) {
    if (error instanceof NotRead) return 'malformed';
    throw error;
  }
}

async function answered(checker: Checker, { check, ...moment }: Step): Promise<string> {
  const { token, scope, tool, arguments_sha256: argumentsSha256, certificate_sha256: certificateSha256 } = check!;
  try {
    await checker.check(token, needed({ scope, tool, argumentsSha256, certificateSha256 }), () => moment);
    return 'accepted';
  } catch (error) {
    if (error instanceof Refused) return error.reason;
    throw error;
  }
}

test('there are cases, and they are of the form that is read here', () => {
  assert.equal(version, 1);
  assert.ok(cases.length > 200);
  const seen = new Set(cases.flatMap(({ steps }) => steps.filter((step) => step.check).map((step) => step.expect)));
  assert.deepEqual([...REASONS].filter((reason) => !seen.has(reason)), [], 'every reason has a case');
});

// Tokens that a whole server issued and then revoked. The server agreed with the table in docs/invariants.md about each revocation.
for (const { name, issuer, audience, token, target, seen, seq, wall, expect } of reach.cases) {
  test(`a revocation reaches what it reached at the server: ${name}`, async () => {
    const checker = new Checker({ issuer, audience }, limits);
    checker.setKeys(await readJwks(JSON.stringify({ keys: reach.keys })));
    const step = { wall, steady: 7_000_000, check: { token, scope: '', tool: '', arguments_sha256: '', certificate_sha256: '' } };
    const take = (feed: JsonValue) => assert.equal(taken(checker, { ...step, feed }), 'taken');
    const freshAt = new Date(wall).toISOString();
    take({ seq: seen, snapshot: { rules: [], holds: [], last: true } });
    take({ seq: seen, previousSeq: seen, heartbeat: { freshAt, maxAge: '30s', timeGeneration: 1 } });
    assert.equal(await answered(checker, step), 'accepted');
    take({ seq, previousSeq: seen, rule: { seq, targets: [target] } });
    assert.deepEqual([await answered(checker, step), await answered(checker, step)], [expect, expect]);
  });
}

for (const { name, why, steps } of cases) {
  test(`${name}: ${why}`, async () => {
    const checker = new Checker(settings, limits);
    checker.setKeys(await readJwks(JSON.stringify(jwks)));
    for (const [at, step] of steps.entries()) {
      if (step.jwks) checker.setKeys(await readJwks(JSON.stringify(step.jwks)));
      if (step.feed) assert.equal(taken(checker, step), step.expect, `step ${at}`);
      // Twice: one that was shown before is looked at in another way than a new one.
      if (step.check) assert.deepEqual([await answered(checker, step), await answered(checker, step)], [step.expect, step.expect], `step ${at}`);
    }
  });
}
