/**
 * The client: one for a process, for as long as it runs.
 *
 * @module
 */
import { inspect } from 'node:util';
import { create } from '@bufbuild/protobuf';
import { required, taskId, type CredentialAsk } from './ask.js';
import { Connection } from './connection.js';
import type { Credential } from './credential.js';
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

/** How the client behaves, wherever it is made from. */
export interface MayflyOptions {
  /** How long all attempts of a call may take together, milliseconds. Absent: 10,000. */
  readonly timeout?: number;
  /** When exchanges share a stream. Absent: `'auto'`, while eight and more are under way at once. */
  readonly streaming?: Streaming;
  /** How long a shared credential is kept for the next one when its last holder left, seconds. Absent: 5. With 0 it is given back at once. */
  readonly idle?: number;
  /**
   * `taskOf` and `credential` refuse what names no task, for every call, and none is opened for a call. For servers whose own rights are more than
   * those of whoever calls them. Absent: false.
   */
  readonly requireTask?: boolean;
  /** Told of what failed in the background: reports of use, giving back, heartbeats. Its text holds no secret. Absent: nobody is told. */
  readonly onError?: (error: unknown) => void;
}

/** How the client is made by hand; {@link Mayfly.fromEnv} does it from the environment. */
export interface MayflySettings extends MayflyOptions {
  /** The server's exchange listener, `HOST:PORT`. */
  readonly address: string;
  /** Where our SVID comes from. */
  readonly svid: SvidSource;
  /** Who the server has to be. Absent: `/mayfly` of our own trust domain. */
  readonly serverId?: string | undefined;
  /** The task of this process, for servers on stdio. */
  readonly task?: string | undefined;
}

/** Who the server takes us for. */
export interface Whoami {
  /** Our SPIFFE ID. */
  readonly spiffeId: string;
  /** Our environment. Empty: none, so we can get nothing. */
  readonly environment: string;
  /** Our roles. */
  readonly roles: readonly string[];
  /** The upstreams that we are a server of. */
  readonly serves: readonly string[];
  /** How many locks keep us from new grants. */
  readonly locks: number;
}

/** What an MCP server's handler is given beside its arguments, as far as a task can be in it: the SDK's `RequestHandlerExtra`. */
export interface InboundCall {
  readonly authInfo?: { readonly extra?: Record<string, unknown> | undefined } | undefined;
  readonly _meta?: Record<string, unknown> | undefined;
  readonly requestInfo?: { readonly headers?: Readonly<Record<string, unknown>> | undefined } | undefined;
}

/** How {@link Mayfly.taskOf} looks for a task. */
export interface TaskOptions {
  /** A call that belongs to no task is refused. Absent: as the client was made ({@link MayflyOptions.requireTask}). */
  readonly requireTask?: boolean | undefined;
}

const TASK = /^task_[a-z2-7]{26}$/;

/** Whether a request's headers show a token. */
const shownIn = (headers: Readonly<Record<string, unknown>> | undefined): boolean =>
  Object.entries(headers ?? {}).some(([name, value]) => name.toLowerCase() === 'authorization' && value !== undefined);

/** A client of mayfly: credentials for upstreams, tasks, and verifying what others show. */
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
        // What goes on in the background does not end by who is told of it.
      }
    };
    this.#connection = new Connection(settings.svid, settings.address, settings.serverId);
    this.#exchanger = new Exchanger(this.#connection, settings.streaming ?? 'auto');
    this.#reports = new UseReports(this.#connection, this.#failed);
    const idle = (settings.idle ?? 5) * 1000;
    this.#pool = new Pool(this.#connection, this.#exchanger, this.#reports, { timeout: this.#timeout, idle, failed: this.#failed });
  }

  /**
   * From the environment: `MAYFLY_ADDRESS`; `MAYFLY_SVID`, `MAYFLY_KEY` and `MAYFLY_BUNDLE` (PEM files), or `SPIFFE_ENDPOINT_SOCKET`;
   * `MAYFLY_SERVER_ID`; `MAYFLY_TASK`.
   *
   * @throws TypeError - names the variable that is missing or wrong
   */
  static fromEnv(options: MayflyOptions = {}, env: Readonly<Record<string, string | undefined>> = process.env): Mayfly {
    return new Mayfly({ ...options, ...readEnv(env) });
  }

  /**
   * A credential for one upstream. Equal requests share one; it is had again without a call until shortly before it ends.
   *
   * @param upstream - its name in the registry
   * @throws Denied, ApprovalNeeded, InvalidRequest, NotFound, NotActive, LimitReached, Unavailable
   * @throws TypeError - what is asked for lacks what every server would refuse
   */
  async credential(upstream: string, ask: CredentialAsk): Promise<Credential> {
    if (ask.requireTask ?? this.#requireTask) required(taskId(ask.task));
    return this.#pool.get(upstream, ask);
  }

  /**
   * A `fetch` for a session that outlasts a credential, like an MCP client's over HTTP. Each request carries a credential that is good; it is
   * renewed before it ends. A request that is answered 401 is sent once more, with another credential.
   *
   * @returns a function like `fetch`; its `close()`, or the end of an `await using` block, gives the credential back
   */
  fetch(upstream: string, { url, ...ask }: SessionAsk): SessionFetch {
    return sessionFetch(() => this.credential(upstream, ask), url);
  }

  /**
   * Opens a task. Its heartbeats, where it has them, are sent in the background.
   *
   * @throws Denied, ApprovalNeeded, InvalidRequest, NotFound, NotActive, LimitReached, Unavailable
   */
  task(ask: TaskAsk): Promise<Task> {
    return Task.open(ask, {
      connection: this.#connection, timeout: this.#timeout,
      credential: (upstream, how) => this.credential(upstream, how),
      ended: (id) => this.#pool.forget(id),
      failed: this.#failed,
    });
  }

  /**
   * The task that an inbound MCP call belongs to: that of the token which came with it, as the middleware of this package verified it. Where no
   * token came: what `_meta` names as `mayfly/task`. Where neither names one: `MAYFLY_TASK`. `undefined`: none, so {@link Mayfly.credential} opens
   * one of its own, which has all the rights of this workload.
   *
   * What `_meta` says is the caller's word. mayfly gives nothing on it alone: we have to be named in the task by whoever opened it.
   *
   * @throws TypeError - `_meta` names what is no task
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
    // A token came, of somebody else or unverified: it names no task, and keeps whoever sent the call from naming one.
    if (inbound?.authInfo != null || shownIn(inbound?.requestInfo?.headers)) return this.#task;
    const meta = inbound?._meta;
    if (meta === undefined || meta === null || !Object.hasOwn(meta, META_TASK)) return this.#task;
    const named = meta[META_TASK];
    // Refused, and never taken for none: without a task the call would have one of our own, with all our rights.
    if (typeof named !== 'string' || !TASK.test(named)) throw new TypeError(`_meta["${META_TASK}"] is no task id`);
    return named;
  }

  /** Who the server takes us for. */
  async whoami(): Promise<Whoami> {
    const answer = await this.#connection.call(TokenService.method.whoami, create(WhoamiRequestSchema), { deadline: new Deadline(this.#timeout) });
    const identity = answer.identity?.identity;
    const { environment, roles, serves } = answer;
    return { spiffeId: identity?.case === 'spiffeId' ? identity.value : '', environment, roles, serves, locks: answer.locks.length };
  }

  /**
   * Verifies what others show us, as a server of these upstreams. It follows the revocations from now on; until it knows them, and whenever it
   * can't, it refuses everything. It ends with this client.
   */
  verifier(settings: VerifierSettings): Verifier {
    const verifier = new Verifier(this.#connection, settings, this.#failed);
    this.#verifiers.add(verifier);
    return verifier;
  }

  /** Sends the reports of use that wait. */
  flush(): Promise<void> {
    return this.#reports.flush();
  }

  /** Gives everything back, sends what waits, and ends the connection. A repeat does nothing. */
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
