// Two tool calls never have one digest: the cases that every language reads, and what JavaScript's own values add.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { argumentsDigest, argumentsDigestOfJson } from '@mayfly/client';
import { requestOf } from '#dist/ask.js';
import { needed } from '#dist/verify/verifier.js';
import { PROJECT } from './kit.js';

interface Cases {
  accepted: { json: string[]; canonical: string }[];
  refused: string[];
}

const cases = JSON.parse(readFileSync(join(PROJECT, 'tests/vectors/arguments/cases.json'), 'utf8')) as Cases;

test('the cases of every language', () => {
  const seen = new Set<string>();
  for (const { json, canonical } of cases.accepted) {
    const digest = createHash('sha256').update(canonical).digest('hex');
    for (const text of json) {
      assert.equal(argumentsDigestOfJson(text), digest, text);
      assert.equal(argumentsDigestOfJson(Buffer.from(text)), digest, text);
    }
    assert.ok(!seen.has(digest), canonical);
    seen.add(digest);
  }
  for (const text of cases.refused) assert.throws(() => argumentsDigestOfJson(text), /^TypeError: arguments: /, text);
  assert.ok(cases.accepted.length > 10 && cases.refused.length > 30);
});

test('values that JSON does not carry are refused wherever they stand, before they are asked for', () => {
  const wrong: unknown[] = [
    2 ** 53, -(2 ** 53), 1234567890123456789, 1e20, 1234567890123456789012345, NaN, Infinity, -Infinity, 1n, '\ud800', 'x\udc00y',
    { '\ud800': 1 }, { toJSON: () => 2 ** 60 },
  ];
  for (const value of wrong) {
    for (const all of [{ id: value }, { a: [1, { b: value }] }]) {
      assert.throws(() => argumentsDigest(all), /^TypeError: arguments: /, String(value));
      assert.throws(() => requestOf('echo', { scope: 'a', purpose: 'p', arguments: all }), /^TypeError: arguments: /, String(value));
      // A credential for arguments was issued for others than these.
      assert.notEqual(needed({ arguments: all }).argumentsSha256, '');
    }
  }
  assert.equal(argumentsDigest({ a: undefined, b: 1 }), argumentsDigest({ b: 1 }), 'what JSON leaves out is left out');
});

test('what is sent is what was digested', () => {
  const { arguments: sent } = requestOf('echo', { scope: 'a', purpose: 'p', arguments: { b: 1.0, a: { z: 'é', y: [1e21, 0.1] } } });
  assert.equal(sent?.arguments.value, '{"a":{"y":[1e+21,0.1],"z":"é"},"b":1}');
});
