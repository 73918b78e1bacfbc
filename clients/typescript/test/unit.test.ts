// What needs no server.
import assert from 'node:assert/strict';
import { copyFileSync, readFileSync, writeFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { X509Certificate } from 'node:crypto';
import { execFileSync } from 'node:child_process';
import { after, test } from 'node:test';
import { argumentsDigest, FileSource, Mayfly, META_TASK } from '@mayfly/client';
import { requestOf, shareKey } from '#dist/ask.js';
import { hostAndPort, readEnv } from '#dist/env.js';
import { serverMustBe, spiffeId, svidOwner } from '#dist/spiffe.js';
import { rootsOf } from '#dist/svid.js';
import { certificatesOf } from '#dist/workload-api.js';
import { strictJson } from '#dist/verify/json.js';
import { base64url } from '#dist/verify/token.js';

const folder = mkdtempSync(join(tmpdir(), 'mayfly-unit-'));
after(() => rmSync(folder, { recursive: true, force: true }));

let made = 0;
/** A certificate with these alternative names, PEM, and where it and its key lie. */
function certificate(names: string, more: string[] = []): { pem: string; svid: string; key: string } {
  const [svid, key] = [join(folder, `${made}.pem`), join(folder, `${made++}.key`)];
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '1', '-subj', '/CN=x',
    '-addext', 'basicConstraints=critical,CA:FALSE', ...(names === '' ? [] : ['-addext', `subjectAltName=${names}`]), ...more,
    '-keyout', key, '-out', svid], { stdio: 'ignore' });
  return { pem: readFileSync(svid, 'utf8'), svid, key };
}
const owner = (names: string, more?: string[]) => svidOwner(new X509Certificate(certificate(names, more).pem)).id;

test('a SPIFFE ID is canonical or none', () => {
  assert.deepEqual(spiffeId('spiffe://a.example/x/y'), { id: 'spiffe://a.example/x/y', trustDomain: 'a.example', path: '/x/y' });
  for (const wrong of [
    '', 'spiffe://', 'http://a/b', 'SPIFFE://a/b', 'spiffe://A/b', 'spiffe://a:1/b', 'spiffe://u@a/b', 'spiffe://a/b/', 'spiffe://a//b',
    'spiffe://a/./b', 'spiffe://a/..', 'spiffe://a/b?c', 'spiffe://a/b#c', 'spiffe://a/%62', 'spiffe://a/ä', `spiffe://a/${'b'.repeat(2048)}`,
  ]) assert.throws(() => spiffeId(wrong), TypeError, wrong);
});

test('an X.509-SVID has exactly one URI name', () => {
  assert.equal(owner('URI:spiffe://a.example/x'), 'spiffe://a.example/x');
  assert.equal(owner('DNS:localhost,URI:spiffe://a.example/x,IP:127.0.0.1'), 'spiffe://a.example/x');
  for (const wrong of [
    '', 'DNS:a.example', 'URI:spiffe://a.example/x,URI:spiffe://a.example/y', 'URI:spiffe://a.example', 'URI:https://a.example/x',
    'email:x@a.example',
  ]) assert.throws(() => owner(wrong), TypeError, wrong);
  // node quotes a name that holds a comma: it must not pass for two.
  writeFileSync(join(folder, 'odd'), '[req]\ndistinguished_name=d\n[d]\n[v]\nsubjectAltName=@n\n[n]\nDNS.1=x\\, URI:spiffe://a.example/mayfly\\, y\n');
  const odd = join(folder, 'odd.pem');
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-subj', '/CN=x', '-config',
    join(folder, 'odd'), '-extensions', 'v', '-keyout', join(folder, 'odd.key'), '-out', odd], { stdio: 'ignore' });
  assert.throws(() => svidOwner(new X509Certificate(readFileSync(odd))), TypeError);
});

test('a server is the SPIFFE ID that it has to be, and nothing beside it', () => {
  const peer = (names: string) => ({ raw: new X509Certificate(certificate(names).pem).raw }) as never;
  const check = serverMustBe('spiffe://a.example/mayfly');
  assert.equal(check('any.host', peer('URI:spiffe://a.example/mayfly')), undefined);
  assert.match(check('h', peer('URI:spiffe://a.example/mayfly/x'))!.message, /has to be/);
  assert.match(check('h', peer('DNS:a.example'))!.message, /exactly one URI/);
});

test('a bundle is PEM or SPIFFE JWKS', () => {
  const { pem } = certificate('URI:spiffe://a.example');
  const x5c = [new X509Certificate(pem).raw.toString('base64')];
  assert.equal(rootsOf(`# a comment\n${pem}${pem}`).length, 2);
  assert.deepEqual(rootsOf(JSON.stringify({ keys: [{ use: 'x509-svid', x5c }, { use: 'jwt-svid', kid: 'k' }] })), rootsOf(pem));
  assert.deepEqual(rootsOf('{"keys":[]}'), []);
});

test('files that do not fit together are no SVID', async () => {
  const a = certificate('URI:spiffe://a.example/a');
  const b = certificate('URI:spiffe://a.example/b');
  const source = new FileSource({ svid: a.svid, key: b.key, bundle: a.svid });
  await assert.rejects(source.current(), /the private key is not that of the certificate/);
  source.close();
  const whole = new FileSource({ svid: a.svid, key: a.key, bundle: a.svid });
  const svid = await whole.current();
  assert.equal(`${svid} ${JSON.stringify(svid)}`.includes('PRIVATE'), false);
  assert.throws(() => svid.context('b.example'), /no bundle of the trust domain b\.example/);
  whole.close();
});

test('what has no end is not read', async () => {
  const a = certificate('URI:spiffe://a.example/a');
  const [pipe, long] = [join(folder, 'pipe'), join(folder, 'long')];
  execFileSync('mkfifo', [pipe]);
  writeFileSync(long, 'x'.repeat(1024 * 1024 + 1));
  for (const [bundle, what] of [['/dev/zero', /is not a regular file/], [pipe, /is not a regular file/], [long, /has more than/]] as const) {
    const source = new FileSource({ svid: a.svid, key: a.key, bundle });
    await assert.rejects(source.current(), what);
    source.close();
  }
});

test('whoever begins in the middle of a rotation looks again', async () => {
  const before = certificate('URI:spiffe://a.example/a');
  const next = certificate('URI:spiffe://a.example/a');
  // The key is written already, the certificate is not.
  const source = new FileSource({ svid: before.svid, key: next.key, bundle: before.svid });
  const found = source.current();
  setTimeout(() => copyFileSync(next.svid, before.svid), 150);
  assert.equal((await found).fingerprint, new X509Certificate(next.pem).fingerprint256.replaceAll(':', '').toLowerCase());
  source.close();
});

test('certificates one after the other are told apart by their length', () => {
  const raw = new X509Certificate(certificate('URI:spiffe://a.example/x').pem).raw;
  assert.deepEqual(certificatesOf(Buffer.concat([raw, raw])).map((one) => Buffer.from(one)), [raw, raw]);
  assert.deepEqual(certificatesOf(Buffer.alloc(0)), []);
  for (const wrong of [raw.subarray(0, -1), Buffer.concat([raw, Buffer.from([0x30])]), Buffer.from([0x31, 0]), Buffer.from('3085ffffffffff', 'hex')]) {
    assert.throws(() => certificatesOf(wrong), TypeError);
  }
});

test('the environment names what is missing or wrong', () => {
  assert.equal(hostAndPort('https://mayfly.example:7443/'), 'mayfly.example:7443');
  assert.equal(hostAndPort('[::1]:7443'), '[::1]:7443');
  for (const wrong of ['mayfly', 'h:0', 'h:70000', 'http://h:1', 'unix:/x', 'h:1/x', 'u@h:1']) assert.throws(() => hostAndPort(wrong), /expected HOST:PORT/);
  assert.throws(() => readEnv({}), /MAYFLY_ADDRESS is not set/);
  assert.throws(() => readEnv({ MAYFLY_ADDRESS: 'h:1' }), /SPIFFE_ENDPOINT_SOCKET, or MAYFLY_SVID, MAYFLY_KEY and MAYFLY_BUNDLE/);
  assert.throws(() => readEnv({ MAYFLY_ADDRESS: 'h:1', MAYFLY_SVID: 'x' }), /MAYFLY_KEY and MAYFLY_BUNDLE not set/);
  assert.throws(() => readEnv({ MAYFLY_ADDRESS: 'h:1', SPIFFE_ENDPOINT_SOCKET: 'x' }), /expected unix:/);
});

test('only requests that say the same in everything are shared', () => {
  const ask = { scope: ['a'], task: 'task_aaaaaaaaaaaaaaaaaaaaaaaaaa' };
  const key = (upstream: string, more: object = {}, svid = 's') => shareKey(requestOf(upstream, { ...ask, ...more }), svid);
  assert.equal(key('x'), key('x'));
  assert.equal(key('x', {}, 's1'), key('x', {}, 's2'), 'one that is bound to nothing outlives our SVID');
  const all = [
    key('x'), key('y'), key('x', { scope: ['a', 'b'] }), key('x', { task: 'task_baaaaaaaaaaaaaaaaaaaaaaaaa' }), key('x', { tool: 't' }),
    key('x', { purpose: 'p' }), key('x', { ttl: 60 }), key('x', { kind: 'jwt' }), key('x', { kind: 'reference' }), key('x', { waitForApproval: 1 }),
    key('x', { binding: 'b' }), key('x', { parent: 'p' }), key('x', { subjectToken: { token: 't', type: 'oidc' } }),
    key('x', { subjectToken: { token: 't', type: 'jwt-svid' } }), key('x', { subjectToken: { token: 'u', type: 'oidc' } }),
    key('x', { authorizationDetails: [{ type: 'a' }] }), key('x', { boundToSvid: true }, 's1'), key('x', { boundToSvid: true }, 's2'),
  ];
  assert.equal(new Set(all).size, all.length);
  assert.ok(!all.includes(undefined));
  assert.equal(key('x', { arguments: {} }), undefined);
  assert.equal(key('x', { task: null, purpose: 'p' }), undefined);
});

test('JSON is read strictly', () => {
  const read = (text: string) => strictJson(Buffer.from(text));
  assert.deepEqual(read('{"a":[{"b":1},{"b":2}],"c":{"a":"a\\"}{"},"":"\\\\"}'), { a: [{ b: 1 }, { b: 2 }], c: { a: 'a"}{' }, '': '\\' });
  for (const wrong of [
    '{"a":1,"a":1}', '{"a":{"b":1,"c":2,"b":3}}', '[{"a":1,"\\u0061":2}]', '{"a\\"":1,"b":[],"a\\"":1}', '{} {}', '{"a":1,}', '\ufeff{}',
    '['.repeat(200) + ']'.repeat(200),
  ]) assert.throws(() => read(wrong), SyntaxError, wrong);
  assert.throws(() => strictJson(Buffer.from([0x22, 0xff, 0x22])), TypeError);
});

test('base64url has one way to write bytes', () => {
  assert.deepEqual(base64url('AQI'), Buffer.from([1, 2]));
  for (const wrong of ['AQJ', 'AQI=', 'A', 'A+I', 'AQ I', 'AQI\n']) assert.equal(base64url(wrong), undefined, wrong);
});

test('the digest of arguments is that of RFC 8785', () => {
  // Section 3.2.3 and 3.2.2.3 of the RFC, in small.
  assert.equal(argumentsDigest({ b: 1e21, a: [0.000001, -0, 'é'] }), argumentsDigest(JSON.parse('{"a":[1e-6,0,"\\u00e9"],"b":1000000000000000000000}')));
  assert.equal(argumentsDigest({}), '44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a');
  assert.throws(() => argumentsDigest(undefined), TypeError);
});

test('the task of a call is that of its verified token, of its _meta, of the process', async () => {
  const svid = new FileSource({ svid: 'none', key: 'none', bundle: 'none' });
  const task = 'task_aaaaaaaaaaaaaaaaaaaaaaaaaa';
  await using mayfly = new Mayfly({ address: '127.0.0.1:9', svid, task });
  assert.equal(mayfly.taskOf(), task);
  assert.equal(mayfly.taskOf({ _meta: { [META_TASK]: 'task_baaaaaaaaaaaaaaaaaaaaaaaaa' } }), 'task_baaaaaaaaaaaaaaaaaaaaaaaaa');
  assert.throws(() => mayfly.taskOf({ _meta: { [META_TASK]: 'x' } }), TypeError);
  // What was not verified by the middleware says nothing.
  const forged = { claims: { tasks: [{ id: 'task_caaaaaaaaaaaaaaaaaaaaaaaaa' }] }, task: 'task_caaaaaaaaaaaaaaaaaaaaaaaaa' };
  assert.equal(mayfly.taskOf({ authInfo: { extra: { mayfly: forged } } }), task);
});
