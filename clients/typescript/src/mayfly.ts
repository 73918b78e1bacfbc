/**
 * The client: one for a process, for as long as it runs.
 *
 * @module
 */
import { inspect } from 'node:util';
import { create } from '@bufbuild/protobuf';
import type { CredentialAsk } from './ask.js';
import { Connection } from './connection.js';
import type { Credential } from './credential.js';
import { readEnv } from './env.js';
import { Exchanger, type Streaming } from './exchanger.js';
import { WhoamiRequestSchema, TokenService } from './gen/mayfly/v1/token_service_pb.js';
import { Pool } from './pool.js';
import { Deadline } from './retry.js';
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
}

const TASK = /^task_[a-z2-7]{26}$/;

/** A client of mayfly: credentials for upstreams, tasks, and verifying what others show. */
export class Mayfly implements AsyncDisposable {
  readonly #connection: Connection;
  readonly #exchanger: Exchanger;
  readonly #reports: UseReports;
  readonly #pool: Pool;
  readonly #timeout: number;
  readonly #task: string | undefined;
  readonly #failed: (error: unknown) => void;
  readonly #verifiers = new Set<Verifier>();
  #closed: Promise<void> | undefined;

  /** Connects at the first call. */
  constructor(settings: MayflySettings) {
    this.#timeout = settings.timeout ?? 10_000;
    this.#task = settings.task;
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
  credential(upstream: string, ask: CredentialAsk): Promise<Credential> {
    return this.#pool.get(upstream, ask);
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
   * The task that an inbound MCP call belongs to: that of the token which the middleware of this package verified; without such a token what
   * `_meta` names as `mayfly/task`; on stdio `MAYFLY_TASK`. `undefined`: none, so {@link Mayfly.credential} opens one.
   *
   * What `_meta` says is the caller's word. mayfly gives nothing on it alone: we have to be named in the task by whoever opened it.
   */
  taskOf(inbound?: InboundCall): string | undefined {
    const verified = verifiedOf(inbound?.authInfo?.extra);
    if (verified) return verified.task;
    const named = inbound?._meta?.[META_TASK];
    if (named === undefined) return this.#task;
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
