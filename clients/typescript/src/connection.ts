/**
 * The connection to mayfly. It is replaced when the SVID is renewed: the new connection is ready before the old one takes no more calls,
 * and the old one closes after its last call was answered. So no call fails because an SVID was renewed.
 *
 * @module
 */
import { createSecureContext } from 'node:tls';
import { connectivityState } from '@grpc/grpc-js';
import { Client, credentials, status as Code, type ServiceError } from '@grpc/grpc-js';
import type { DescMessage, DescMethodUnary, MessageShape } from '@bufbuild/protobuf';
import { Closed, fromServiceError, MayflyError, NotAuthenticated, Unavailable } from './errors.js';
import { callUnary } from './grpc.js';
import { CONNECT_MS, hostPort, probe, serverName } from './probe.js';
import { Deadline, retrying } from './retry.js';
import { serverMustBe, spiffeId, type SpiffeId } from './spiffe.js';
import type { Svid, SvidSource } from './svid.js';
import { traceMetadata } from './trace.js';

/** The limit for getting the first SVID, in milliseconds. */
const SVID_MS = 10_000;
/** The wait before the next try when a connection with a new SVID failed, in milliseconds. */
const AGAIN_MS = 500;
/** The limit for one attempt before it is sent again, in milliseconds, in addition to the wait for an approval. */
const ATTEMPT_MS = 5_000;

/** Refusals that may not occur with another SVID. */
const ABOUT_SVID = new Set(['SVID_NO_LONGER_VALID', 'NO_LIFE_LEFT']);

const OPTIONS = {
  'grpc.use_local_subchannel_pool': 1,
  'grpc.keepalive_time_ms': 20_000,
  'grpc.keepalive_timeout_ms': 10_000,
  'grpc.initial_reconnect_backoff_ms': 50,
  'grpc.min_reconnect_backoff_ms': 50,
  'grpc.max_reconnect_backoff_ms': 2_000,
  'grpc.service_config_disable_resolution': 1,
  // The server is called directly, not through a web proxy: a proxy would see who calls whom, and would stand between the two SVIDs.
  'grpc.enable_http_proxy': 0,
};

/** One connection with one SVID. */
export class Line {
  readonly client: Client;
  readonly #retiring = new Set<() => void>();
  #calls = 0;
  #retired = false;

  /**
   * @param address - the server's, `HOST:PORT`
   * @param at - the one of its addresses that answered, `IP:PORT`
   */
  constructor(readonly svid: Svid, address: string, at: string, server: SpiffeId) {
    const context = createSecureContext({ ...svid.context(server.trustDomain), minVersion: 'TLSv1.3' });
    const verify = { checkServerIdentity: serverMustBe(server.id) };
    const name = serverName(hostPort(address)[0], server);
    const options = { ...OPTIONS, 'grpc.ssl_target_name_override': name, 'grpc.default_authority': address };
    this.client = new Client(at, credentials.createFromSecureContext(context, verify), options);
  }

  /** Whether the connection is ready. */
  get stands(): boolean {
    return this.client.getChannel().getConnectivityState(false) === connectivityState.READY;
  }

  /** Notes that a call or stream uses the connection, which is kept until the returned function is called. */
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

  /** Calls back when there is a newer connection, which long-lived streams must move to. */
  retiring(moved: () => void): () => void {
    this.#retiring.add(moved);
    return () => this.#retiring.delete(moved);
  }

  /** Whether the connection can be used, now or within this many milliseconds. */
  ready(ms: number = CONNECT_MS): Promise<boolean> {
    return new Promise((resolve) => this.client.waitForReady(Date.now() + ms, (error) => resolve(!error)));
  }

  /** Takes no more calls, and closes after the last one. */
  retire(): void {
    this.#retired = true;
    for (const moved of this.#retiring) moved();
    this.#end();
  }

  #end(): void {
    if (!this.#retired || this.#calls > 0) return;
    // By then, a call that was given this connection holds it.
    setImmediate(() => { if (this.#calls === 0) this.client.close(); });
  }
}

/** Settings of one call. */
export interface CallSettings {
  /** The deadline of the call with all its attempts. */
  readonly deadline: Deadline;
  /** Aborts the call. */
  readonly signal?: AbortSignal | undefined;
  /** How long the server itself may wait for an approval, in milliseconds. */
  readonly waits?: number;
  /** For a batch: the upstreams of its exchanges. */
  readonly upstreams?: readonly string[];
}

/** Calls mayfly over one connection at a time. */
export class Connection {
  readonly #source: SvidSource;
  readonly #address: string;
  readonly #serverId: string | undefined;
  readonly #unwatch: () => void;
  #line: Line | undefined;
  #opening: Promise<Line> | undefined;
  #newest: Svid | undefined;
  #changing: Promise<void> | undefined;
  #again: NodeJS.Timeout | undefined;
  #closed = false;

  /**
   * @param address - `HOST:PORT`
   * @param serverId - the SPIFFE ID that the server must have; absent: `/mayfly` of this workload's own trust domain
   */
  constructor(source: SvidSource, address: string, serverId?: string) {
    this.#source = source;
    this.#address = address;
    this.#serverId = serverId;
    this.#unwatch = source.watch((svid) => void this.#change(svid).catch(() => undefined));
  }

  /**
   * The current connection, which is made if there is none.
   *
   * @throws Unavailable - there is no SVID within ten seconds, or nobody answers within five, or not by the deadline
   * @throws ServerCertificateError, NotAuthenticated - one side has no certificate that the other accepts
   */
  async line(deadline?: Deadline): Promise<Line> {
    if (this.#closed) throw new Closed();
    if (this.#line) return this.#line;
    this.#opening ??= this.#open().finally(() => (this.#opening = undefined));
    return deadline ? within(this.#opening, deadline, `no connection to ${this.#address} in time`) : this.#opening;
  }

  /**
   * Notes that a call failed in a way that may have broken the connection: the next call uses another one, unless this one is still
   * connected.
   */
  failed(line: Line, error: unknown, ms = 0): void {
    if (!(error instanceof Unavailable) || error.reason !== '' || line !== this.#line) return;
    // A connection that was silent for the limit of an attempt is dropped too, although it is connected.
    const silent = error.code === Code.DEADLINE_EXCEEDED && ms > ATTEMPT_MS - 100;
    if (!silent && (error.code !== Code.UNAVAILABLE || line.stands)) return;
    this.#line = undefined;
    line.retire();
  }

  /** Waits for a connection that calls can be sent over. If it rejects, nothing was sent. */
  async ready(deadline: Deadline): Promise<void> {
    const line = await this.line(deadline);
    const done = line.hold();
    const isReady = await line.ready(deadline.left).finally(done);
    if (isReady) return;
    const error = new Unavailable(`no connection to ${this.#address} in time`, { code: Code.UNAVAILABLE });
    this.failed(line, error);
    throw error;
  }

  /** Makes a unary call, and repeats it if that is safe. A repeat is safe if the request has its own `request_id`. */
  async call<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>, request: MessageShape<I>, settings: CallSettings,
  ): Promise<MessageShape<O>> {
    return retrying(() => this.once(method, request, settings), settings.deadline, settings.signal);
  }

  /**
   * Makes a unary call once. The call is repeated only when the SVID expired meanwhile, because that is not an answer to the call.
   */
  async once<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>, request: MessageShape<I>, settings: CallSettings,
  ): Promise<MessageShape<O>> {
    const line = await this.line(settings.deadline);
    const began = performance.now();
    try {
      return await unary(line, method, request, settings);
    } catch (error) {
      this.failed(line, error, performance.now() - began);
      if (!(await this.outlived(line, error))) throw error;
      return unary(await this.line(settings.deadline), method, request, settings);
    }
  }

  /**
   * Whether a refusal concerned an SVID that was replaced meanwhile. Then it is not an answer to the request: nothing was done, and the
   * same request may be sent over the connection of the new SVID.
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
    clearTimeout(this.#again);
    this.#line?.retire();
    this.#line?.client.close();
    this.#source.close();
  }

  #server(svid: Svid): SpiffeId {
    return spiffeId(this.#serverId ?? `spiffe://${svid.owner.trustDomain}/mayfly`);
  }

  async #open(): Promise<Line> {
    const svid = await this.#source.current(AbortSignal.timeout(SVID_MS));
    if (this.#closed) throw new Closed();
    let line: Line;
    try {
      line = await this.#make(svid);
    } catch (error) {
      if (!(error instanceof NotAuthenticated)) throw error;
      // There may be a newer SVID that was not read yet.
      await this.#source.look();
      const newer = await this.#source.current(AbortSignal.timeout(SVID_MS));
      if (newer.equals(svid)) throw error;
      line = await this.#make(newer);
    }
    this.#line = line;
    // An SVID that came meanwhile.
    if (this.#newest && !this.#newest.equals(line.svid)) void this.#change(this.#newest).catch(() => undefined);
    return line;
  }

  /** A ready connection. */
  async #make(svid: Svid): Promise<Line> {
    const server = this.#server(svid);
    const at = await probe(this.#address, svid, server);
    const line = new Line(svid, this.#address, at, server);
    const ready = await line.ready();
    if (!this.#closed && ready) return line;
    line.client.close();
    if (this.#closed) throw new Closed();
    throw new Unavailable(`no gRPC connection to ${at} within ${CONNECT_MS / 1000} s`, { code: Code.UNAVAILABLE });
  }

  /** Changes to an SVID, one change at a time. Calls made meanwhile wait for the same change. */
  #change(svid: Svid): Promise<void> {
    this.#newest = svid;
    this.#changing ??= this.#goOver().finally(() => (this.#changing = undefined));
    return this.#changing;
  }

  async #goOver(): Promise<void> {
    for (let old = this.#line; old && this.#newest && !old.svid.equals(this.#newest) && !this.#closed; old = this.#line) {
      try {
        const next = await this.#make(this.#newest);
        // Another connection may have been opened meanwhile, with an SVID that is as new or older.
        const before = this.#line;
        this.#line = next;
        before?.retire();
      } catch {
        // The old connection works as long as its SVID is valid. After that, calls report the error.
        if (old.svid.notAfter <= Date.now() && this.#line === old) {
          this.#line = undefined;
          old.retire();
        }
        clearTimeout(this.#again);
        this.#again = setTimeout(() => { if (this.#newest) void this.#change(this.#newest).catch(() => undefined); }, AGAIN_MS);
        this.#again.unref();
        return;
      }
    }
  }
}

/** Waits for a promise until the deadline. */
async function within<T>(work: Promise<T>, deadline: Deadline, what: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Unavailable(what, { code: Code.DEADLINE_EXCEEDED })), deadline.left);
  });
  return Promise.race([work, late]).finally(() => clearTimeout(timer));
}

function unary<I extends DescMessage, O extends DescMessage>(
  line: Line, method: DescMethodUnary<I, O>, request: MessageShape<I>, { deadline, signal, waits = 0, upstreams }: CallSettings,
): Promise<MessageShape<O>> {
  const done = line.hold();
  return new Promise<MessageShape<O>>((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const options = { deadline: deadline.atMost(ATTEMPT_MS + waits) };
    const call = callUnary(line.client, method, request, traceMetadata(), options, (error, answer) => {
      signal?.removeEventListener('abort', cancel);
      if (signal?.aborted) reject(signal.reason);
      else if (error) reject(fromServiceError(error as ServiceError, upstreams));
      else if (answer) resolve(answer);
      else reject(new Unavailable('the server answered nothing'));
    });
    const cancel = () => call.cancel();
    signal?.addEventListener('abort', cancel, { once: true });
  }).finally(done);
}
