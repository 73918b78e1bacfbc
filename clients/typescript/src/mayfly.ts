/**
 * The client. A process has one and uses it for as long as it runs.
 *
 * @module
 */
import { inspect } from 'node:util';
import { create } from '@bufbuild/protobuf';
import { required, taskId, type CredentialAsk, type SeveralOptions, type UpstreamAsk } from './ask.js';
import { Connection } from './connection.js';
import { together, type Credential, type Credentials } from './credential.js';
import { readEnv } from './env.js';
import { Exchanger, type Streaming } from './exchanger.js';
import { WhoamiRequestSchema, TokenService } from './gen/mayfly/v1/token_service_pb.js';
import { Pool } from './pool.js';
import { Deadline } from './retry.js';
import { sessionFetch, type SessionAsk, type SessionFetch } from './session.js';
import type { SvidSource } from './svid.js';
import { META_TASK, Task, type TaskAsk } from './task.js';
import { UseReports } from './use.js';
import { Verifier, type VerifierSettings } from './verify/verifier.js';
import { verifiedOf } from './verify/claims.js';

/** Settings of the client that apply however it is created. */
export interface MayflyOptions {
  /** The limit for all attempts of a call together, in milliseconds. Absent: 10,000. */
  readonly timeout?: number;
  /**
   * When exchanges share a stream. Absent: `'auto'`, which uses a stream while eight or more exchanges are in progress.
   */
  readonly streaming?: Streaming;
  /**
   * How long a shared credential is kept after its last holder released it, in seconds, in case another one asks for it. Absent: 5. With 0
   * it is released at once.
   */
  readonly idle?: number;
  /**
   * With `true`, `taskOf` and `credential` refuse every call that names no task, and no task is opened for a call. Meant for servers that
   * have more rights than their callers. Absent: false.
   */
  readonly requireTask?: boolean;
  /**
   * Receives the errors of background work: use reports, releases and heartbeats. Their text contains no secret. Absent: these errors are
   * dropped.
   */
  readonly onError?: (error: unknown) => void;
}

/** Settings for creating a client by hand; {@link Mayfly.fromEnv} reads them from the environment. */
export interface MayflySettings extends MayflyOptions {
  /** The server's exchange listener, `HOST:PORT`. */
  readonly address: string;
  /** The source of this workload's SVID. */
  readonly svid: SvidSource;
  /** The SPIFFE ID that the server must have. Absent: `/mayfly` of this workload's own trust domain. */
  readonly serverId?: string | undefined;
  /** The task of this process, for servers on stdio. */
  readonly task?: string | undefined;
}

/** The identity that the server sees for this workload. */
export interface Whoami {
  /** The SPIFFE ID of this workload. */
  readonly spiffeId: string;
  /** The environment of this workload. Empty: none, so it can get no credential. */
  readonly environment: string;
  /** The roles of this workload. */
  readonly roles: readonly string[];
  /** The upstreams that this workload serves. */
  readonly serves: readonly string[];
  /** The number of locks that keep this workload from new grants. */
  readonly locks: number;
}

/**
 * What the handler of an MCP server receives next to its arguments, as far as it can contain a task: the SDK's `RequestHandlerExtra`.
 */
export interface InboundCall {
  readonly authInfo?: { readonly extra?: Record<string, unknown> | undefined } | undefined;
  readonly _meta?: Record<string, unknown> | undefined;
  readonly requestInfo?: { readonly headers?: Readonly<Record<string, unknown>> | undefined } | undefined;
}

/** Options of {@link Mayfly.taskOf}. */
export interface TaskOptions {
  /** Refuses a call that belongs to no task. Absent: the setting of the client ({@link MayflyOptions.requireTask}). */
  readonly requireTask?: boolean | undefined;
}

const TASK = /^task_[a-z2-7]{26}$/;

/** Whether the headers of a request carry a token. */
const shownIn = (headers: Readonly<Record<string, unknown>> | undefined): boolean =>
  Object.entries(headers ?? {}).some(([name, value]) => name.toLowerCase() === 'authorization' && value !== undefined);

/** A client of mayfly: it gets credentials for upstreams, opens tasks and verifies credentials of callers. */
export class Mayfly implements AsyncDisposable {
  readonly #connection: Connection;
  readonly #exchanger: Exchanger;
  readonly #reports: UseReports;
  readonly #pool: Pool;
  readonly #timeout: number;
  readonly #task: string | undefined;
  readonly #requireTask: boolean;
  readonly #failed: (error: unknown) => void;
  readonly #verifiers = new Set<Verifier>();
  #closed: Promise<void> | undefined;

  /** Connects at the first call. */
  constructor(settings: MayflySettings) {
    this.#timeout = settings.timeout ?? 10_000;
    this.#task = settings.task;
    this.#requireTask = settings.requireTask ?? false;
    this.#failed = (error) => {
      try {
        settings.onError?.(error);
      } catch {
        // An error in the callback must not stop background work.
      }
    };
    this.#connection = new Connection(settings.svid, settings.address, settings.serverId);
    this.#exchanger = new Exchanger(this.#connection, settings.streaming ?? 'auto');
    this.#reports = new UseReports(this.#connection, this.#failed);
    const idle = (settings.idle ?? 5) * 1000;
    this.#pool = new Pool(this.#connection, this.#exchanger, this.#reports, { timeout: this.#timeout, idle, failed: this.#failed });
  }

  /**
   * Creates a client from the environment: `MAYFLY_ADDRESS`; `MAYFLY_SVID`, `MAYFLY_KEY` and `MAYFLY_BUNDLE` (PEM files), or
   * `SPIFFE_ENDPOINT_SOCKET`; `MAYFLY_SERVER_ID`; `MAYFLY_TASK`.
   *
   * @throws TypeError - names the variable that is missing or wrong
   */
  static fromEnv(options: MayflyOptions = {}, env: Readonly<Record<string, string | undefined>> = process.env): Mayfly {
    return new Mayfly({ ...options, ...readEnv(env) });
  }

  /**
   * Gets a credential for one upstream. Equal requests share a credential, and no call to the server is made until shortly before it
   * expires.
   *
   * @param upstream - its name in the registry
   * @throws Denied, ApprovalNeeded, InvalidRequest, NotFound, NotActive, LimitReached, Unavailable
   * @throws TypeError - the request is incomplete in a way that every server would refuse
   */
  async credential(upstream: string, ask: CredentialAsk): Promise<Credential> {
    if (ask.requireTask ?? this.#requireTask) required(taskId(ask.task));
    return this.#pool.get(upstream, ask);
  }

  /**
   * Gets up to eight credentials in one call: all are issued or none. If one is refused, what upstreams had made for the others is undone,
   * and the error's `upstream` names the one that was refused. They are shared, retried and renewed like single credentials; a request whose
   * credential is shared already is not sent again. Requests without a task open one each.
   *
   * @param asks - 1 to 8 requests; they may name the same upstream
   * @returns the credentials in the order of the requests
   * @throws Denied, ApprovalNeeded, InvalidRequest, NotFound, NotActive, LimitReached, Unavailable
   * @throws TypeError - there are none or too many, or one is incomplete in a way that every server would refuse
   */
  async credentials<const Asks extends readonly UpstreamAsk[]>(asks: Asks, options: SeveralOptions = {}): Promise<Credentials<Asks>> {
    if (options.requireTask ?? this.#requireTask) required(taskId(options.task));
    return together(await this.#pool.getAll(asks, options)) as unknown as Credentials<Asks>;
  }

  /**
   * Returns a `fetch` for a session that lasts longer than a credential, such as that of an MCP client over HTTP. Each request carries a
   * valid credential, which is renewed before it expires. A request that is answered with 401 is sent once more, with another credential.
   *
   * @returns a function like `fetch`; its `close()`, or the end of an `await using` block, releases the credential
   */
  fetch(upstream: string, { url, ...ask }: SessionAsk): SessionFetch {
    return sessionFetch(() => this.credential(upstream, ask), url);
  }

  /**
   * Opens a task. Its heartbeats, if it has them, are sent in the background.
   *
   * @throws Denied, ApprovalNeeded, InvalidRequest, NotFound, NotActive, LimitReached, Unavailable
   */
  task(ask: TaskAsk): Promise<Task> {
    return Task.open(ask, {
      connection: this.#connection, timeout: this.#timeout,
      credential: (upstream, how) => this.credential(upstream, how),
      credentials: (asks, options) => this.credentials(asks, options),
      ended: (id) => this.#pool.forget(id),
      failed: this.#failed,
    });
  }

  /**
   * The task that an inbound MCP call belongs to. It is the task of the token that came with the call and that the middleware of this
   * package verified. If no token came, it is the task that `_meta` names as `mayfly/task`. If neither names one, it is `MAYFLY_TASK`.
   * `undefined` means no task; {@link Mayfly.credential} then opens one of its own, which has all the rights of this workload.
   *
   * `_meta` is only a claim of the caller. mayfly does not rely on it alone: whoever opened the task must have named this workload in it.
   *
   * @throws TypeError - `_meta` names something that is not a task id
   * @throws InvalidRequest - nothing names a task, and one is required
   */
  taskOf(inbound: InboundCall | undefined, options: { readonly requireTask: true }): string;
  taskOf(inbound?: InboundCall, options?: TaskOptions): string | undefined;
  taskOf(inbound?: InboundCall, options: TaskOptions = {}): string | undefined {
    const task = this.#found(inbound);
    return options.requireTask ?? this.#requireTask ? required(task) : task;
  }

  #found(inbound?: InboundCall): string | undefined {
    const verified = verifiedOf(inbound?.authInfo?.extra);
    if (verified) return verified.task;
    // A token came that is unverified or from another issuer. The token names no task, and the caller may not name one in `_meta` either.
    if (inbound?.authInfo != null || shownIn(inbound?.requestInfo?.headers)) return this.#task;
    const meta = inbound?._meta;
    if (meta === undefined || meta === null || !Object.hasOwn(meta, META_TASK)) return this.#task;
    const named = meta[META_TASK];
    // A malformed id is refused rather than ignored: without a task, the call would get a task of this workload with all its rights.
    if (typeof named !== 'string' || !TASK.test(named)) throw new TypeError(`_meta["${META_TASK}"] is no task id`);
    return named;
  }

  /** Asks the server which identity it sees for this workload. */
  async whoami(): Promise<Whoami> {
    const answer = await this.#connection.call(TokenService.method.whoami, create(WhoamiRequestSchema), { deadline: new Deadline(this.#timeout) });
    const identity = answer.identity?.identity;
    const { environment, roles, serves } = answer;
    return { spiffeId: identity?.case === 'spiffeId' ? identity.value : '', environment, roles, serves, locks: answer.locks.length };
  }

  /**
   * Creates a verifier for the credentials that callers present to this workload as a server of these upstreams. The verifier follows the
   * revocations from now on. It refuses everything until the revocations are known, and whenever they cannot be followed. Closing this
   * client also closes the verifier.
   */
  verifier(settings: VerifierSettings): Verifier {
    const verifier = new Verifier(this.#connection, settings, this.#failed);
    this.#verifiers.add(verifier);
    return verifier;
  }

  /** Sends the use reports that are waiting. */
  flush(): Promise<void> {
    return this.#reports.flush();
  }

  /** Releases all credentials, sends what is waiting and closes the connection. Calling it again has no effect. */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    for (const verifier of this.#verifiers) verifier.close();
    await this.#reports.flush(3_000);
    await this.#pool.close();
    this.#exchanger.close();
    this.#connection.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  [inspect.custom](): string {
    return 'Mayfly';
  }
}
