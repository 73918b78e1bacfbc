/**
 * The environment variables that configure the client. The names are the same as for the command line.
 *
 * @module
 */
import { FileSource, type SvidSource } from './svid.js';
import { WorkloadApiSource } from './workload-api.js';

/** The `HOST:PORT` of an address, which may be written with or without `https://`. */
export function hostAndPort(address: string): string {
  const wrong = new TypeError(`MAYFLY_ADDRESS is ${JSON.stringify(address)}: expected HOST:PORT or https://HOST:PORT`);
  const rest = address.replace(/^https:\/\//, '').replace(/\/$/, '');
  const found = /^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):(\d{1,5})$/.exec(rest);
  const port = Number(found?.[2]);
  if (!found || port < 1 || port > 65_535) throw wrong;
  return rest;
}

/** The settings from the environment. */
export interface FromEnv {
  readonly address: string;
  readonly svid: SvidSource;
  readonly serverId: string | undefined;
  readonly task: string | undefined;
}

/**
 * Reads the environment.
 *
 * @throws TypeError - names the variable that is missing or wrong
 */
export function readEnv(env: Readonly<Record<string, string | undefined>>): FromEnv {
  const address = env['MAYFLY_ADDRESS'];
  if (!address) throw new TypeError('MAYFLY_ADDRESS is not set: the server, like mayfly.example.org:7443');
  const serverId = env['MAYFLY_SERVER_ID'] || undefined;
  return { address: hostAndPort(address), svid: source(env, serverId), serverId, task: env['MAYFLY_TASK'] || undefined };
}

function source(env: Readonly<Record<string, string | undefined>>, serverId: string | undefined): SvidSource {
  const { MAYFLY_SVID: svid, MAYFLY_KEY: key, MAYFLY_BUNDLE: bundle, SPIFFE_ENDPOINT_SOCKET: socket } = env;
  if (svid && key && bundle) return new FileSource(serverId === undefined ? { svid, key, bundle } : { svid, key, bundle, serverId });
  if (svid || key) {
    const missing = Object.entries({ MAYFLY_SVID: svid, MAYFLY_KEY: key, MAYFLY_BUNDLE: bundle }).filter(([, value]) => !value);
    throw new TypeError(`${missing.map(([name]) => name).join(' and ')} not set: an SVID in files needs MAYFLY_SVID, MAYFLY_KEY and MAYFLY_BUNDLE`);
  }
  if (socket) return new WorkloadApiSource(socket);
  throw new TypeError('no SVID: set SPIFFE_ENDPOINT_SOCKET, or MAYFLY_SVID, MAYFLY_KEY and MAYFLY_BUNDLE');
}
