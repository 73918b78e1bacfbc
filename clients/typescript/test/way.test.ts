// The way to the server: one that is silent at first, several addresses, a proxy in the environment, and who does not accept whom.
import assert from 'node:assert/strict';
import dns from 'node:dns/promises';
import { createServer, connect, type AddressInfo, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { after, before, mock, test } from 'node:test';
import { FileSource, Mayfly, NotAuthenticated, ServerCertificateError, Unavailable, type MayflyOptions } from '@mayfly/client';
import { DOMAIN, otherCa, World } from './kit.js';

let world: World;
before(async () => {
  world = await World.up();
});
after(async () => {
  await world?.down();
});

const SERVER = `spiffe://${DOMAIN}/mayfly`;
const client = (address: string, options: MayflyOptions & { serverId?: string } = {}) => new Mayfly({
  address, svid: new FileSource({ ...world.svid('agent/demo'), bundle: world.file('bundle.pem'), serverId: SERVER }), serverId: SERVER, ...options,
});

/** A listener; `silent` of its connections are accepted and told nothing, the rest go to the server. */
async function relay(silent: number, at = { host: '127.0.0.1', port: 0 }): Promise<{ address: string; port: number; seen: () => number; down: () => void }> {
  let seen = 0;
  const sockets: Socket[] = [];
  const server: Server = createServer((from) => {
    sockets.push(from.on('error', () => undefined));
    if (seen++ < silent) return;
    const [host, port] = world.address.split(':');
    const to = connect(Number(port), host).on('error', () => undefined);
    sockets.push(to);
    from.pipe(to).pipe(from);
  });
  await new Promise<void>((resolve) => server.listen(at, resolve));
  const { port } = server.address() as AddressInfo;
  return {
    address: `${at.host}:${port}`, port, seen: () => seen,
    down: () => { server.close(); for (const socket of sockets) socket.destroy(); },
  };
}

const took = async (work: () => Promise<unknown>): Promise<number> => {
  const began = performance.now();
  await work();
  return performance.now() - began;
};

for (const silent of [1, 2]) {
  test(`after ${silent} connections that are silent comes another one`, { timeout: 40_000 }, async () => {
    const way = await relay(silent);
    try {
      await using mayfly = client(way.address, { timeout: 20_000 });
      const ms = await took(() => mayfly.whoami());
      assert.ok(ms < silent * 5_000 + 3_000, `${ms}`);
      assert.ok(way.seen() > silent);
    } finally {
      way.down();
    }
  });
}

test('one that is silent for good is said so in the time of a call', { timeout: 20_000 }, async () => {
  const way = await relay(Infinity);
  try {
    await using mayfly = client(way.address, { timeout: 7_000 });
    const ms = await took(() => assert.rejects(mayfly.whoami(), Unavailable));
    assert.ok(ms < 9_000, `${ms}`);
    await using hasty = client(way.address, { timeout: 500 });
    const soon = await took(() => assert.rejects(hasty.whoami(), Unavailable));
    assert.ok(soon < 2_500, `${soon}`);
  } finally {
    way.down();
  }
});

test('of two addresses the first is silent: the second one has its turn', { timeout: 20_000 }, async () => {
  const port = Number(world.address.split(':')[1]);
  const way = await relay(Infinity, { host: '127.0.0.2', port });
  const found = [{ address: '127.0.0.2', family: 4 }, { address: '127.0.0.1', family: 4 }];
  const lookup = mock.method(dns, 'lookup', () => Promise.resolve(found));
  try {
    await using mayfly = client(`mayfly.test:${port}`);
    const ms = await took(() => mayfly.whoami());
    assert.ok(way.seen() > 0 && ms < 5_000, `${ms}`);
  } finally {
    lookup.mock.restore();
    way.down();
  }
});

test('a proxy in the environment is not asked', { timeout: 20_000 }, async () => {
  const proxy = await relay(Infinity);
  const names = ['grpc_proxy', 'https_proxy', 'http_proxy', 'HTTPS_PROXY', 'HTTP_PROXY', 'GRPC_PROXY', 'all_proxy'];
  for (const name of names) process.env[name] = `http://${proxy.address}`;
  try {
    await using mayfly = client(world.address);
    await mayfly.whoami();
    assert.equal(proxy.seen(), 0);
  } finally {
    for (const name of names) delete process.env[name];
    proxy.down();
  }
});

test('who does not accept whom is said at once, in words of our own', { timeout: 30_000 }, async () => {
  const at = async (mayfly: Mayfly, Sort: new (...all: never[]) => Error, says: RegExp) => {
    await using one = mayfly;
    const ms = await took(() => assert.rejects(one.credential('echo', { scope: 'echo:read', purpose: 'p' }), (error) => {
      assert.ok(error instanceof Sort, `${error}`);
      assert.match(error.message, says);
      assert.doesNotMatch(error.message, /SSL|:\d+:error|routines|tlsv1/);
      return true;
    }));
    assert.ok(ms < 3_000, `${ms}`);
  };
  // Another server than was meant.
  await at(client(world.address, { serverId: `spiffe://${DOMAIN}/another` }), ServerCertificateError, /is spiffe:.*\/mayfly, and has to be spiffe:.*\/another/);
  const ca = otherCa(join(world.folder, 'other'), DOMAIN);
  const files = (paths: { svid: string; key: string }, bundle: string) => new FileSource({ ...paths, bundle, serverId: SERVER });
  // A server that our bundle does not vouch for.
  const unknown = { address: world.address, svid: files(world.svid('agent/demo'), join(ca, 'ca.pem')), serverId: SERVER };
  await at(new Mayfly(unknown), ServerCertificateError, /does not verify with the bundle/);
  // An SVID that the server's bundle does not vouch for.
  const forged = world.mint('agent/demo', join(world.folder, 'forged'), 3600, DOMAIN, ca);
  await at(new Mayfly({ address: world.address, svid: files(forged, world.file('bundle.pem')), serverId: SERVER }), NotAuthenticated, /does not accept our SVID/);
  // Something that speaks no TLS.
  const plain = createServer((socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'));
  await new Promise<void>((resolve) => plain.listen(0, '127.0.0.1', resolve));
  await at(client(`127.0.0.1:${(plain.address() as AddressInfo).port}`), ServerCertificateError, /TLS 1\.3/);
  plain.close();
});
