/**
 * An SVID from the SPIFFE Workload API: an agent on this machine sends it over a Unix socket, and its successor before it expires.
 *
 * @module
 */
import { Client, Metadata, credentials, status as Code, type ClientReadableStream } from '@grpc/grpc-js';
import { create } from '@bufbuild/protobuf';
import { SpiffeWorkloadAPI, X509SVIDRequestSchema, type X509SVIDResponse } from './gen/spiffe/workload_pb.js';
import { openServerStream } from './grpc.js';
import { Unavailable } from './errors.js';
import { Svid, Watched } from './svid.js';
import { spiffeId } from './spiffe.js';

/**
 * The wait before the agent is asked again, in milliseconds: doubled each time, up to the second value (Workload API, section 4).
 */
const AGAIN_MS = [100, 30_000] as const;

/** Splits concatenated DER certificates (X.690, section 8.1.3); each one states its length. */
export function certificatesOf(der: Uint8Array): Uint8Array[] {
  const found: Uint8Array[] = [];
  for (let at = 0; at < der.length; ) {
    const first = der[at + 1];
    if (der[at] !== 0x30 || first === undefined) throw new TypeError('not a list of DER certificates');
    const more = first < 0x80 ? 0 : first - 0x80;
    let length = more === 0 ? first : 0;
    for (let n = 0; n < more; n++) length = length * 256 + (der[at + 2 + n] ?? Number.NaN);
    const end = at + 2 + more + length;
    if (more > 4 || !(end <= der.length)) throw new TypeError('a DER certificate is cut off');
    found.push(der.subarray(at, end));
    at = end;
  }
  return found;
}

const pem = (label: string, der: Uint8Array): string =>
  `-----BEGIN ${label}-----\n${Buffer.from(der).toString('base64').replace(/.{64}(?=.)/g, '$&\n')}\n-----END ${label}-----\n`;

function svidOf(answer: X509SVIDResponse): Svid {
  const first = answer.svids[0];
  if (!first) throw new TypeError('the agent has no SVID for this workload');
  const roots = (der: Uint8Array) => certificatesOf(der).map((one) => pem('CERTIFICATE', one));
  const bundles = new Map(Object.entries(answer.federatedBundles).map(([id, der]) => [spiffeId(id).trustDomain, roots(der)]));
  bundles.set(spiffeId(first.spiffeId).trustDomain, roots(first.bundle));
  const chain = certificatesOf(first.x509Svid).map((one) => pem('CERTIFICATE', one)).join('');
  return new Svid(chain, pem('PRIVATE KEY', first.x509SvidKey), bundles);
}

/**
 * The agent behind a socket like `unix:///run/spire/agent.sock` (`SPIFFE_ENDPOINT_SOCKET`), followed until this source is closed.
 */
export class WorkloadApiSource extends Watched {
  readonly #client: Client;
  readonly #waiting = new Set<() => void>();
  #stream: ClientReadableStream<X509SVIDResponse> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #again: number = AGAIN_MS[0];
  #last = 'no answer yet';
  #closed = false;

  /**
   * @param address - `unix:///PATH`, or `tcp://IP:PORT` if the agent listens there
   * @throws TypeError - it is neither
   */
  constructor(address: string) {
    super();
    const path = /^unix:(?:\/\/)?(\/.+)$/.exec(address)?.[1];
    const tcp = /^tcp:\/\/([0-9a-fA-F.:[\]]+:\d+)$/.exec(address)?.[1];
    if (!path && !tcp) throw new TypeError(`SPIFFE_ENDPOINT_SOCKET is ${JSON.stringify(address)}: expected unix:///PATH or tcp://IP:PORT`);
    this.#client = new Client(path ? `unix:${path}` : (tcp as string), credentials.createInsecure(), {
      'grpc.use_local_subchannel_pool': 1, 'grpc.enable_http_proxy': 0, 'grpc.default_authority': 'localhost',
      'grpc.initial_reconnect_backoff_ms': 100, 'grpc.max_reconnect_backoff_ms': AGAIN_MS[1],
    });
    this.#follow();
  }

  async current(signal?: AbortSignal): Promise<Svid> {
    while (!this.newest) {
      await new Promise<void>((resolve, reject) => {
        const done = () => { this.#waiting.delete(done); signal?.removeEventListener('abort', gone); resolve(); };
        const gone = () => {
          this.#waiting.delete(done);
          reject(new Unavailable(`the SPIFFE agent gave no SVID: ${this.#last}`, { code: Code.UNAVAILABLE }));
        };
        if (signal?.aborted || this.#closed) return gone();
        this.#waiting.add(done);
        signal?.addEventListener('abort', gone, { once: true });
      });
    }
    return this.newest;
  }

  async look(): Promise<void> {
    // Nothing to do: the agent sends changes by itself.
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#stream?.cancel();
    this.#client.close();
  }

  #follow(): void {
    const metadata = new Metadata();
    // An agent refuses a request without this header, which protects against forwarded requests (Workload API, section 3).
    metadata.set('workload.spiffe.io', 'true');
    const stream = openServerStream(this.#client, SpiffeWorkloadAPI.method.fetchX509SVID, create(X509SVIDRequestSchema), metadata);
    this.#stream = stream;
    stream.on('data', (answer: X509SVIDResponse) => {
      try {
        this.take(svidOf(answer));
        this.#again = AGAIN_MS[0];
        for (const waiting of this.#waiting) waiting();
      } catch (error) {
        this.#last = error instanceof Error ? error.message : 'unreadable';
      }
    });
    let over = false;
    const ended = (why: string) => {
      // An error is followed by an end; only one of the two starts a new attempt.
      if (over || this.#closed) return;
      over = true;
      this.#last = why;
      this.#timer = setTimeout(() => this.#follow(), this.#again * (0.5 + Math.random() / 2));
      if (this.newest) this.#timer.unref();
      this.#again = Math.min(this.#again * 2, AGAIN_MS[1]);
    };
    stream.on('error', (error: Error) => ended(error.message));
    stream.on('end', () => ended('the agent ended the stream'));
  }
}
