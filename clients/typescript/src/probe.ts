/**
 * A check of the server before grpc-js connects to it: whether one of its addresses answers, whether it is the expected server, and whether
 * it accepts this workload's SVID. grpc-js does not distinguish these cases, and keeps trying a silent or wrong server until a call has no
 * time left.
 *
 * @module
 */
import dns from 'node:dns/promises';
import { isIP } from 'node:net';
import { connect, createSecureContext, type TLSSocket } from 'node:tls';
import { status as Code } from '@grpc/grpc-js';
import { MayflyError, NotAuthenticated, ServerCertificateError, Unavailable } from './errors.js';
import { serverMustBe, type SpiffeId } from './spiffe.js';
import type { Svid } from './svid.js';

/** The limit for a connection with its handshake, in milliseconds. */
export const CONNECT_MS = 5_000;
/**
 * The same for every address but the last one. It allows a round trip across the world and a busy server, and leaves time to try the next
 * address within the time of a call. Addresses beyond the fourth are not tried, because no time would be left for them.
 */
const ADDRESS_MS = 1_500;
const ADDRESSES = 4;
/**
 * The limit for the server's first message after the handshake, in milliseconds. With TLS 1.3 the server checks the client certificate only
 * then.
 */
const FIRST_WORD_MS = 1_000;
/** The start of a connection (RFC 9113, section 3.4) and an empty SETTINGS frame. */
const PREFACE = Buffer.concat([Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0])]);

/** Host and port of `HOST:PORT`; an IPv6 address without its brackets. */
export function hostPort(address: string): [host: string, port: number] {
  const at = address.lastIndexOf(':');
  return [address.slice(0, at).replace(/^\[|\]$/g, ''), Number(address.slice(at + 1))];
}

/**
 * The server name for TLS. An IP address is not a server name (RFC 6066, section 3); the identity of the server is in its SVID.
 */
export const serverName = (host: string, server: SpiffeId): string => (isIP(host) === 0 ? host : server.trustDomain);

const unavailable = (what: string): Unavailable => new Unavailable(what, { code: Code.UNAVAILABLE });

/**
 * Finds the address of the server to connect to.
 *
 * @param address - `HOST:PORT`
 * @returns the first of its addresses that answers, with the port
 * @throws Unavailable - none answers
 * @throws ServerCertificateError - the answering side is not the server
 * @throws NotAuthenticated - the server does not accept this workload's SVID
 */
export async function probe(address: string, svid: Svid, server: SpiffeId): Promise<string> {
  const [host, port] = hostPort(address);
  const found = await dns.lookup(host, { all: true, verbatim: true }).catch((error: Error) => {
    throw unavailable(`no connection to ${address}: ${error.message}`);
  });
  const ips = [...new Set(found.map((one) => one.address))].slice(0, ADDRESSES);
  const failed: string[] = [];
  for (const [index, ip] of ips.entries()) {
    try {
      await look({ ip, host, port, address, more: index < ips.length - 1 }, svid, server);
      return isIP(ip) === 6 ? `[${ip}]:${port}` : `${ip}:${port}`;
    } catch (error) {
      if (!(error instanceof Unavailable)) throw error;
      failed.push(ips.length > 1 ? `${ip}: ${error.message}` : error.message);
    }
  }
  throw unavailable(`no connection to ${address}: ${failed.join('; ')}`);
}

interface At {
  readonly ip: string;
  readonly host: string;
  readonly port: number;
  readonly address: string;
  /** There are other addresses to try. */
  readonly more: boolean;
}

function look({ ip, host, port, address, more }: At, svid: Svid, server: SpiffeId): Promise<void> {
  const secureContext = createSecureContext({ ...svid.context(server.trustDomain), minVersion: 'TLSv1.3' });
  let another: Error | undefined;
  const checkServerIdentity = (name: string, certificate: Parameters<ReturnType<typeof serverMustBe>>[1]) =>
    (another = serverMustBe(server.id)(name, certificate));
  return new Promise<void>((resolve, reject) => {
    const socket = connect({
      host: ip, port, secureContext, servername: serverName(host, server), ALPNProtocols: ['h2'], checkServerIdentity, timeout: 0,
    });
    let shaken = false;
    const end = (settle: () => void) => {
      clearTimeout(timer);
      socket.removeAllListeners();
      // Nobody waits for its result after that.
      socket.on('error', () => undefined);
      socket.destroy();
      settle();
    };
    const late = (what: string, ms: number) => setTimeout(() => end(() => reject(unavailable(`${what} within ${ms / 1000} s`))), ms);
    let timer = late('no answer', more ? ADDRESS_MS : CONNECT_MS);
    socket.once('secureConnect', () => {
      shaken = true;
      clearTimeout(timer);
      socket.write(PREFACE);
      // The last address may still answer: the connection itself has a limit of its own.
      timer = more ? late('silence after the handshake', FIRST_WORD_MS) : setTimeout(() => end(resolve), FIRST_WORD_MS);
    });
    socket.once('data', () => end(resolve));
    socket.once('end', () => end(() => reject(unavailable('the server closed the connection after the handshake'))));
    socket.once('close', () => end(() => reject(unavailable('the server closed the connection'))));
    socket.once('error', (error: NodeJS.ErrnoException) => end(() => reject(told(error, another, shaken, socket, address, svid))));
  });
}

/** The error in the words of this package. */
function told(error: NodeJS.ErrnoException, another: Error | undefined, shaken: boolean, socket: TLSSocket, address: string, svid: Svid): MayflyError {
  if (another) return new ServerCertificateError(`${address}: ${another.message}`);
  const code = error.code ?? '';
  if (!shaken && socket.authorizationError) {
    const what = `the certificate of ${address} does not verify with the bundle of the server's trust domain (${code || error.message})`;
    return new ServerCertificateError(`${what}; right would be that bundle as it is now (MAYFLY_BUNDLE)`);
  }
  const alert = /ALERT_(\w+)/.exec(code)?.[1]?.toLowerCase().replaceAll('_', ' ');
  if (alert !== undefined) {
    const what = `the server at ${address} does not accept our SVID of ${svid.owner.id}: ${alert}`;
    return new NotAuthenticated(what, { code: Code.UNAUTHENTICATED });
  }
  if (code.startsWith('ERR_SSL_')) return new ServerCertificateError(`what answers at ${address} does not speak TLS 1.3, as mayfly does`);
  return unavailable(code === 'ECONNREFUSED' ? 'the connection was refused' : error.message);
}
