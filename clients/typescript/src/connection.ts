/**
 * The connection to mayfly. It changes with our SVID: the new one stands before the old one takes no more calls, and the old one ends when its
 * last call was answered. So no call fails because an SVID was renewed.
 *
 * @module
 */
import { isIP } from 'node:net';
import { createSecureContext } from 'node:tls';
import { Client, credentials, status as Code, type ServiceError } from '@grpc/grpc-js';
import type { DescMessage, DescMethodUnary, MessageShape } from '@bufbuild/protobuf';
import { Closed, fromServiceError, MayflyError, Unavailable } from './errors.js';
import { callUnary } from './grpc.js';
import { Deadline, retrying } from './retry.js';
import { serverMustBe, spiffeId, type SpiffeId } from './spiffe.js';
import type { Svid, SvidSource } from './svid.js';
import { traceMetadata } from './trace.js';

/** How long a new connection may take before another is tried, milliseconds. */
const CONNECT_MS = 10_000;
/** How long one attempt may take before it is sent again, milliseconds, beside what it waits for an approval. */
const ATTEMPT_MS = 5_000;

/** Refusals that another SVID may not get. */
const ABOUT_SVID = new Set(['SVID_NO_LONGER_VALID', 'NO_LIFE_LEFT']);

const OPTIONS = {
  'grpc.use_local_subchannel_pool': 1,
  'grpc.keepalive_time_ms': 20_000,
  'grpc.keepalive_timeout_ms': 10_000,
  'grpc.initial_reconnect_backoff_ms': 50,
  'grpc.min_reconnect_backoff_ms': 50,
  'grpc.max_reconnect_backoff_ms': 2_000,
  'grpc.service_config_disable_resolution': 1,
};

/** One connection with one SVID. */
export class Line {
  readonly client: Client;
  readonly #retiring = new Set<() => void>();
  #calls = 0;
  #retired = false;

  constructor(readonly svid: Svid, address: string, server: SpiffeId) {
    const context = createSecureContext({ ...svid.context(server.trustDomain), minVersion: 'TLSv1.3' });
    const verify = { checkServerIdentity: serverMustBe(server.id) };
    // An IP address is no server name (RFC 6066, section 3). Who the server is, its SVID says.
    const isIp = isIP(address.replace(/:\d+$/, '').replace(/^\[|\]$/g, '')) !== 0;
    const options = isIp ? { ...OPTIONS, 'grpc.ssl_target_name_override': server.trustDomain } : OPTIONS;
    this.client = new Client(address, credentials.createFromSecureContext(context, verify), options);
  }

  /** Something began on it: it is kept until what this returns was called. */
  hold(): () => void {
    this.#calls++;
    let held = true;
    return () => {
      if (!held) return;
      held = false;
      this.#calls--;
      this.#end();
    };
  }

  /** Calls back when there is a newer one: what is long-lived has to go over to it. */
  retiring(moved: () => void): () => void {
    this.#retiring.add(moved);
    return () => this.#retiring.delete(moved);
  }

  /** Whether it can be used, now or within so many milliseconds. */
  ready(ms: number = CONNECT_MS): Promise<boolean> {
    return new Promise((resolve) => this.client.waitForReady(Date.now() + ms, (error) => resolve(!error)));
  }

  /** Takes no more calls, and closes after the last. */
  retire(): void {
    this.#retired = true;
    for (const moved of this.#retiring) moved();
    this.#end();
  }

  #end(): void {
    if (!this.#retired || this.#calls > 0) return;
    // Whoever was just given it holds it by then.
    setImmediate(() => { if (this.#calls === 0) this.client.close(); });
  }
}

/** How one call is made. */
export interface CallSettings {
  /** When it has to be over, with all its attempts. */
  readonly deadline: Deadline;
  /** Gives it up. */
  readonly signal?: AbortSignal | undefined;
  /** How long the server itself may wait, for an approval, milliseconds. */
  readonly waits?: number;
}

/** Calls mayfly, over one connection at a time. */
export class Connection {
  readonly #source: SvidSource;
  readonly #address: string;
  readonly #serverId: string | undefined;
  readonly #unwatch: () => void;
  #line: Line | undefined;
  #opening: Promise<Line> | undefined;
  #newest: Svid | undefined;
  #changing: Promise<void> | undefined;
  #closed = false;

  /**
   * @param address - `HOST:PORT`
   * @param serverId - who the server has to be; absent: `/mayfly` of our own trust domain
   */
  constructor(source: SvidSource, address: string, serverId?: string) {
    this.#source = source;
    this.#address = address;
    this.#serverId = serverId;
    this.#unwatch = source.watch((svid) => void this.#change(svid).catch(() => undefined));
  }

  /** The connection of now. Rejects where there is no SVID within ten seconds. */
  async line(): Promise<Line> {
    if (this.#closed) throw new Closed();
    if (this.#line) return this.#line;
    this.#opening ??= this.#open().finally(() => (this.#opening = undefined));
    return this.#opening;
  }

  /** Waits for a connection that calls can be sent over: where it rejects, nothing was sent. */
  async ready(deadline: Deadline): Promise<void> {
    const line = await this.line();
    const done = line.hold();
    const isReady = await line.ready(deadline.left).finally(done);
    if (!isReady) throw new Unavailable(`no connection to ${this.#address} in time`, { code: Code.UNAVAILABLE });
  }

  /** Makes a unary call, again where that is safe. The request's own `request_id`, where it has one, is what makes it so. */
  async call<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>, request: MessageShape<I>, settings: CallSettings,
  ): Promise<MessageShape<O>> {
    return retrying(() => this.once(method, request, settings), settings.deadline, settings.signal);
  }

  /** Makes a unary call once; but for an SVID that ended meanwhile, which is no answer to the call. */
  async once<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>, request: MessageShape<I>, settings: CallSettings,
  ): Promise<MessageShape<O>> {
    const line = await this.line();
    try {
      return await unary(line, method, request, settings);
    } catch (error) {
      if (!(await this.outlived(line, error))) throw error;
      return unary(await this.line(), method, request, settings);
    }
  }

  /**
   * Whether a refusal was about an SVID that has a successor by now: then it is no answer, and the same request may be sent over the line of that.
   * Nothing was done.
   */
  async outlived(line: Line, error: unknown): Promise<boolean> {
    if (!(error instanceof MayflyError) || !ABOUT_SVID.has(error.reason)) return false;
    await this.#source.look();
    await this.#change(await this.#source.current());
    return this.#line !== line;
  }

  /** Ends every call. */
  close(): void {
    this.#closed = true;
    this.#unwatch();
    this.#line?.retire();
    this.#line?.client.close();
    this.#source.close();
  }

  #server(svid: Svid): SpiffeId {
    return spiffeId(this.#serverId ?? `spiffe://${svid.owner.trustDomain}/mayfly`);
  }

  async #open(): Promise<Line> {
    const svid = await this.#source.current(AbortSignal.timeout(CONNECT_MS));
    if (this.#closed) throw new Closed();
    return (this.#line ??= new Line(svid, this.#address, this.#server(svid)));
  }

  /** Goes over to an SVID, one change at a time. Whoever asks meanwhile waits for the same one. */
  #change(svid: Svid): Promise<void> {
    this.#newest = svid;
    this.#changing ??= this.#goOver().finally(() => (this.#changing = undefined));
    return this.#changing;
  }

  async #goOver(): Promise<void> {
    while (this.#line && this.#newest && !this.#line.svid.equals(this.#newest) && !this.#closed) {
      const next = new Line(this.#newest, this.#address, this.#server(this.#newest));
      const ready = await next.ready();
      const old = this.#line;
      if (this.#closed || (!ready && old.svid.notAfter > Date.now())) {
        next.client.close();
        continue;
      }
      this.#line = next;
      old.retire();
    }
  }
}

function unary<I extends DescMessage, O extends DescMessage>(
  line: Line, method: DescMethodUnary<I, O>, request: MessageShape<I>, { deadline, signal, waits = 0 }: CallSettings,
): Promise<MessageShape<O>> {
  const done = line.hold();
  return new Promise<MessageShape<O>>((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const options = { deadline: deadline.atMost(ATTEMPT_MS + waits) };
    const call = callUnary(line.client, method, request, traceMetadata(), options, (error, answer) => {
      signal?.removeEventListener('abort', cancel);
      if (signal?.aborted) reject(signal.reason);
      else if (error) reject(fromServiceError(error as ServiceError));
      else if (answer) resolve(answer);
      else reject(new Unavailable('the server answered nothing'));
    });
    const cancel = () => call.cancel();
    signal?.addEventListener('abort', cancel, { once: true });
  }).finally(done);
}
