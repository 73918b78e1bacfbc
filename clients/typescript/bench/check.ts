// What one check costs beside the signature: a million credentials, ten thousand rules of every sort, all newer than what is checked.
//
//   npm run bench
import { Checker, known, type Known } from '#dist/verify/check.js';
import { readClaims, type Claims } from '#dist/verify/claims.js';
import { Seen } from '#dist/verify/seen.js';
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { WatchRevocationsResponseSchema } from '#dist/gen/mayfly/v1/feed_pb.js';
import type { TargetSchema } from '#dist/gen/mayfly/v1/revocation_pb.js';

const CREDENTIALS = Number(process.env['CREDENTIALS'] ?? 1_000_000);
const RULES = 10_000;
const HEAD = 2 ** 45 + 1_000_000;

const ALPHABET = 'abcdefghijklmnopqrstuvwxyz234567';
/** An id like those that are given: of bits that follow from nothing but here from its number. */
const idOf = (prefix: string, n: number): string => {
  let text = '';
  for (let k = 0, bits = n + 1; k < 25; k++) {
    bits = Math.imul(bits ^ (bits >>> 15), 0x2c1b3c6d) + k;
    text += ALPHABET[bits >>> 27];
  }
  return `${prefix}${text}a`;
};
const hex = (n: number) => n.toString(16).padStart(64, '0');

/** A credential that acts for a person through another workload, in a task under a task: more is asked of it than of most. */
function payload(n: number): string {
  const caller = `spiffe://a.example/ns/agents/sa/agent-${n % 5_000}`;
  return JSON.stringify({
    iss: 'https://mayfly.example/prod', sub: `person-${n % 20_000}`, aud: 'https://github.example', exp: 1_800_000_300, iat: 1_800_000_000,
    nbf: 1_800_000_000, jti: idOf('cred_', n), client_id: caller, scope: 'issues:write repo:read',
    act: { sub: caller, iss: 'a.example', act: { sub: 'spiffe://front.example/web', iss: 'front.example' } },
    'https://mayfly.dev/claims': {
      v: 1, r: HEAD - 500_000, environment: 'prod', policy_version: 7, upstream: 'github', binding: 'agents-issues', tool: 'create_issue',
      trust_domain: 'a.example', sub_iss: 'https://idp.example',
      tasks: [
        { id: idOf('task_', n % 100_000), owner: { iss: 'https://idp.example', sub: `person-${n % 20_000}` } },
        { id: idOf('task_', 200_000 + n), owner: { iss: 'a.example', sub: caller } },
      ],
      ancestors: [{ id: idOf('cred_', 2_000_000 + n), caller: 'spiffe://front.example/web' }],
      svid: { trust_anchor: hex(1), issuing_key: hex(2), serial: (n % 5_000 + 256).toString(16).padStart(32, '0') },
    },
  });
}

type Target = MessageInitShape<typeof TargetSchema>['target'];

/** Rules that hit none of them, of each sort in turn. */
function aim(n: number): NonNullable<Target> {
  const bytes = Buffer.from(hex(1_000 + n), 'hex');
  switch (n % 16) {
    case 0: return { case: 'credentialId', value: idOf('cred_', 9_000_000 + n) };
    case 1: return { case: 'taskId', value: idOf('task_', 9_000_000 + n) };
    case 2: return { case: 'caller', value: `spiffe://a.example/ns/other/${n}` };
    case 3: return { case: 'spiffeIdPrefix', value: `spiffe://a.example/ns/gone-${n}` };
    case 4: return { case: 'trustDomain', value: `d${n}.example` };
    case 5: return { case: 'trustAnchor', value: { sha256: bytes } };
    case 6: return { case: 'subject', value: { issuer: 'https://idp.example', sub: `gone-${n}` } };
    case 7: return { case: 'upstream', value: `upstream-${n}` };
    case 8: return { case: 'upstreamScope', value: { upstream: 'github', scope: `scope-${n}` } };
    case 9: return { case: 'binding', value: `binding-${n}` };
    case 10: return { case: 'tool', value: `tool-${n}` };
    case 11: return { case: 'environment', value: `env-${n}` };
    case 12: return { case: 'policyBelow', value: { environment: `env-${n}`, version: 9n } };
    case 13: return { case: 'signingKey', value: `key-${n}` };
    case 14: return { case: 'svid', value: { trustDomain: 'a.example', issuingKeySha256: bytes, serial: bytes.subarray(0, 16) } };
    default: return { case: 'subjectToken', value: { issuer: 'https://idp.example', id: `t-${n}` } };
  }
}

const checker = new Checker({ issuer: 'https://mayfly.example/prod', audience: 'https://github.example' });
const now = { wall: 1_800_000_000_500, steady: 1_000 };
const rules = Array.from({ length: RULES }, (_, n) => ({ seq: BigInt(HEAD - 1), targets: [{ target: aim(n) }] }));
const message = (event: MessageInitShape<typeof WatchRevocationsResponseSchema>['event']) =>
  create(WatchRevocationsResponseSchema, { seq: BigInt(HEAD), previousSeq: BigInt(HEAD), event: event! });
checker.take(message({ case: 'snapshot', value: { rules, holds: [{ taskId: idOf('task_', 8_000_000) }], last: true } }), now);
checker.take(message({ case: 'heartbeat', value: { freshAt: timestampFromMs(now.wall), maxAge: { seconds: 30n, nanos: 0 }, timeGeneration: 1 } }), now);

const need = { scopes: ['issues:write'], tool: 'create_issue', argumentsSha256: '', certificateSha256: '' };
/** Of our own time: what others take on the machine is not counted. Microseconds. */
const spent = () => { const { user, system } = process.cpuUsage(); return user + system; };

// As in life: each is read from its token and checked then, and no two are the same; then again, when it is shown once more. A thousand at a time,
// for a clock that is fine enough.
const BATCH = 100;
const [first, again, texts]: [number[], number[], number[]] = [[], [], []];
const seen = new Seen<Known>();
let reading = 0;
const timed = (into: number[], work: () => void) => {
  const from = spent();
  work();
  into.push((spent() - from) / BATCH);
};
for (let n = 0; n < CREDENTIALS; n += BATCH) {
  const payloads = Array.from({ length: BATCH }, (_, k) => Buffer.from(payload(n + k)));
  // As long as a token is.
  const tokens = payloads.map((one) => one.toString('base64url'));
  const from = spent();
  const read: Claims[] = payloads.map(readClaims);
  reading += spent() - from;
  const all: Known[] = [];
  timed(first, () => {
    for (const claims of read) {
      const one = known(claims, 'k1');
      checker.stands(one, need, now);
      all.push(one);
    }
  });
  timed(again, () => { for (const one of all) checker.stands(one, need, now); });
  tokens.forEach((token, at) => seen.put(token, all[at]!));
  timed(texts, () => { for (const token of tokens) checker.stands(seen.get(token)!, need, now); });
}
// What the machine does in the same run: one look-up of a name that was never looked up before, among as many.
const names = new Map(Array.from({ length: RULES / 16 }, (_, n) => [`spiffe://a.example/ns/other/${n}`, n]));
const strangers = Array.from({ length: 200_000 }, (_, n) => JSON.parse(`"spiffe://a.example/ns/agents/sa/agent-${n}"`) as string);
const from = spent();
let found = 0;
for (const name of strangers) found += names.get(name) ?? 0;
const raw = (spent() - from) / strangers.length + found;

const said = (what: string, checks: number[]) => {
  checks.sort((a, b) => a - b);
  const at = (share: number) => checks[Math.floor(checks.length * share)]!;
  console.log(`${what.padEnd(58)} ${at(0.5).toFixed(2)} µs  (p99 of thousands ${at(0.99).toFixed(2)}; ${(at(0.5) / raw).toFixed(1)} × one look-up of ${(raw * 1000).toFixed(0)} ns)`);
};
console.log(`${CREDENTIALS} credentials, ${RULES} rules of 16 sorts, all newer than the credentials (node ${process.version}); CPU time, budget 2 µs`);
said('a token seen before, without the signature:', again);
said('the same from its text, with the SHA-256 of it:', texts);
said('a new one, without the signature and reading its claims:', first);
console.log(`reading the claims of a new one: ${(reading / CREDENTIALS).toFixed(2)} µs  (${payload(1).length} bytes of JSON, strictly)`);
