// The quick way (numbers that were made when the token was first shown) and the plain way (by name) say the same, whatever happened.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { asked } from '#dist/verify/marks.js';
import type { Claims, Who } from '#dist/verify/claims.js';
import { Follower, LIMITS } from '#dist/verify/follower.js';
import { Refused } from '#dist/verify/refused.js';
import { Seen } from '#dist/verify/seen.js';
import { isPair, SORTS, svidIssuer, target, type Target } from '#dist/verify/target.js';

/** A generator of numbers that follow from a seed: what failed once fails again. */
function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let n = Math.imul(state ^ (state >>> 15), 1 | state);
    n = (n + Math.imul(n ^ (n >>> 7), 61 | n)) ^ n;
    return ((n ^ (n >>> 14)) >>> 0) % below;
  };
}

// Few names, so that rules and tokens meet.
const NAMES = ['a', 'b', 'c', 'spiffe://a', 'spiffe://a/b', 'spiffe://a/b/c', 'spiffe://a/bc'];

function someTarget(upTo: (below: number) => number): Target {
  const name = () => NAMES[upTo(NAMES.length)]!;
  const sort = SORTS[upTo(SORTS.length)]!;
  if (sort === 'everything') return target(sort);
  if (sort === 'svid') return target(sort, name(), svidIssuer(name(), name()));
  return target(sort, name(), isPair(sort) ? name() : '', upTo(8));
}

function someClaims(upTo: (below: number) => number): Claims {
  const name = () => NAMES[upTo(NAMES.length)]!;
  const maybe = () => (upTo(3) === 0 ? '' : name());
  const list = <T>(make: () => T): T[] => Array.from({ length: upTo(3) }, make);
  const who = (): Who => ({ issuer: maybe(), sub: name() });
  return {
    issuer: 'i', audience: 'a', caller: name(), credentialId: name(), subject: who(), issued: 1_000, expires: 1_300, notBefore: 1_000,
    scopes: list(name), authorizationDetails: undefined, actors: list(who), x5t: undefined, jkt: undefined, version: 1,
    revision: upTo(10) === 0 ? 2 ** 53 - 1 : upTo(60), environment: maybe(), policyVersion: upTo(8), upstream: maybe(), binding: maybe(), tool: maybe(),
    argumentsSha256: '', trustDomain: maybe(), tasks: list(() => ({ id: name(), owner: who() })), ancestors: list(() => ({ id: name(), caller: name() })),
    svid: upTo(2) ? { trustAnchor: name(), issuingKey: name(), serial: name() } : undefined,
    subjectToken: upTo(2) ? { issuer: name(), id: name() } : undefined,
    restsOn: list(() => ({
      credentials: list(name), tasks: list(name), parties: list(who), upstream: maybe(), scopes: list(name), binding: maybe(), tool: maybe(),
      environment: maybe(), policyVersion: upTo(8), kid: maybe(), trustDomain: maybe(),
      svid: upTo(2) ? { trustAnchor: name(), issuingKey: name(), serial: name() } : undefined,
      subjectToken: upTo(2) ? { issuer: name(), id: name() } : undefined,
    })),
  };
}

const answer = (check: () => void): string => {
  try {
    check();
    return 'accepted';
  } catch (error) {
    if (error instanceof Refused) return `${error.reason}: ${error.message}`;
    throw error;
  }
};

test('the quick way and the plain way agree, whatever happened', () => {
  const [met, passed] = [new Set<string>(), { quickly: 0 }];
  for (let seed = 1; seed <= 400; seed++) {
    const upTo = random(seed);
    const follower = new Follower(LIMITS);
    const known: { claims: Claims; kid: string; asked: readonly number[] }[] = [];
    let [seq, wall] = [0, 1_000_000];
    const beat = () => follower.heartbeat({ head: seq, previous: seq, freshAt: wall, maxAge: 30_000, timeGeneration: 1 }, { wall, steady: wall });
    const begin = (rules: number) => {
      const lines = Array.from({ length: rules }, () => ({ target: someTarget(upTo), seq: upTo(60), until: Infinity }));
      assert.equal(follower.begin({ seq: ++seq, rules: lines, holds: upTo(2) ? [NAMES[upTo(7)]!] : [] }), 'taken');
      beat();
    };
    begin(0);
    for (let step = 0; step < 40; step++) {
      const what = upTo(12);
      if (what === 0) begin(upTo(6));
      else if (what === 1) {
        wall += upTo(30_000);
        beat();
      } else if (what < 7) {
        const targets = what > 3 ? Array.from({ length: 1 + upTo(3) }, () => someTarget(upTo)) : [];
        const until = upTo(2) ? Infinity : 1_000_000 + upTo(100_000);
        const task = NAMES[upTo(7)]!;
        const event = { seq: ++seq, targets, until, ...(what === 2 ? { hold: task } : {}), ...(what === 3 ? { resume: task } : {}) };
        assert.equal(follower.apply(seq - 1, event), 'taken');
      } else {
        const [claims, kid] = [someClaims(upTo), NAMES[upTo(7)]!];
        known.push({ claims, kid, asked: asked(claims, kid) });
      }
      for (const one of known) {
        const moment = { wall, steady: wall };
        const plain = answer(() => follower.check(one.claims, one.kid, moment));
        const touched = follower.touches(one.asked, one.claims.revision);
        const quick = touched ? plain : answer(() => follower.lives(one.claims, moment));
        assert.equal(quick, plain, `seed ${seed}, step ${step}`);
        if (!touched) passed.quickly++;
        met.add(plain.split(':')[0]!);
      }
    }
  }
  assert.deepEqual([...met].sort(), ['accepted', 'held', 'key_revoked', 'revoked'], 'the test can fail');
  assert.ok(passed.quickly > 1_000, `${passed.quickly}`);
});

test('hardly a stranger is marked among ten thousand, and marks of what ended go', () => {
  const follower = new Follower(LIMITS);
  const now = { wall: 1_000_000, steady: 1_000 };
  const of = (n: number): Target => target((['tool', 'upstream', 'binding', 'environment'] as const)[n % 4]!, `rule-${n}`);
  const rules = Array.from({ length: 10_000 }, (_, n) => ({ target: of(n), seq: 5, until: 1_000_100 }));
  follower.begin({ seq: 9, rules, holds: [] });
  const claims = (n: number): Claims => ({
    ...someClaims(random(n)), tool: `tool-${n}`, upstream: `upstream-${n}`, binding: `binding-${n}`, environment: `env-${n}`, revision: 1,
  });
  const touched = () => Array.from({ length: 1_000 }, (_, n) => follower.touches(asked(claims(n), 'k'), 1)).filter(Boolean).length;
  assert.ok(touched() < 20, `${touched()}`);
  const one = asked({ ...claims(1), tool: 'rule-0' }, 'k');
  assert.equal(follower.touches(one, 1), true);
  for (let n = 0; n < 3; n++) follower.heartbeat({ head: 9, previous: 9, freshAt: 1_002_000 + n, maxAge: 30_000, timeGeneration: 1 }, now);
  assert.equal(follower.touches(one, 1), false);
});

test('no more tokens are remembered than there may be, and those in use stay', () => {
  const seen = new Seen<number>(64);
  for (let n = 0; n < 500; n++) {
    seen.put(`t${n}`, n);
    assert.equal(seen.get('t0'), 0, 'somebody asks for it all the time');
  }
  assert.ok(seen.size <= 64 && seen.size >= 32);
  assert.equal(seen.get('t1'), undefined);
  assert.equal(seen.get('t499'), 499);
});
