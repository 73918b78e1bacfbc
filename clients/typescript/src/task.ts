/**
 * Tasks. Everything that is issued belongs to one.
 *
 * @module
 */
import { inspect } from 'node:util';
import { randomUUID } from 'node:crypto';
import { create } from '@bufbuild/protobuf';
import { duration, kindOf, revealed, scopesOf, subjectOf, type CredentialAsk, type Kind, type SeveralOptions, type SubjectToken, type UpstreamAsk } from './ask.js';
import type { Connection } from './connection.js';
import type { Credential, Credentials } from './credential.js';
import { Denied, NotActive, NotFound } from './errors.js';
import { TaskState, TaskTermsSchema, type Task as TaskMessage } from './gen/mayfly/v1/task_pb.js';
import {
  CancelTaskRequestSchema, CompleteTaskRequestSchema, GetTaskRequestSchema, HeartbeatTaskRequestSchema, OpenTaskRequestSchema, TaskService,
} from './gen/mayfly/v1/task_service_pb.js';
import { millis } from './issuance.js';
import { Deadline } from './retry.js';
import { sessionFetch, type SessionAsk, type SessionFetch } from './session.js';
import type { Secret } from './secret.js';

/** The name of the task in MCP's `_meta`. */
export const META_TASK = 'mayfly/task';

/** The terms of a new task. Leaving a field out never makes the task wider. */
export interface TaskAsk {
  /** What the task is for, 1 to 512 bytes. People read it in approvals and in the audit. */
  readonly purpose: string;
  /** The upstreams that the task may get credentials for, with the scopes of each. */
  readonly upstreams: Readonly<Record<string, string | readonly string[]>>;
  /**
   * The tools that an exchange may name. Absent: only exchanges that name no tool. `'any'`: whatever policy permits.
   */
  readonly tools?: readonly string[] | 'any' | undefined;
  /** The kinds of credential. Absent: those that the upstreams are registered with. */
  readonly kinds?: readonly Kind[] | undefined;
  /** The SPIFFE IDs that may act in the task besides this workload: its MCP servers. */
  readonly callers?: readonly string[] | undefined;
  /** Everything that is issued in the task must be bound to a key. */
  readonly keyBound?: boolean | undefined;
  /** How long the task lives, in seconds. Absent: an hour. */
  readonly ttl?: number | undefined;
  /** The longest total lifetime, extensions included, in seconds. Absent: `ttl`. */
  readonly maxTtl?: number | undefined;
  /**
   * The dead man's switch, in seconds, 5 to 3,600: the task ends when no heartbeat came for this long. Heartbeats are sent in the
   * background. Absent: none.
   */
  readonly heartbeat?: number | undefined;
  /** The parent task. Absent: none. */
  readonly parent?: { readonly id: string } | string | undefined;
  /** On whose behalf the workload acts. Absent: its own. */
  readonly subjectToken?: SubjectToken | undefined;
  /** A mayfly credential that this workload acts under. */
  readonly parentCredential?: string | Secret | undefined;
  /**
   * How long to wait for an approval, in seconds, at most 60. Absent: a task that needs one is returned at once, as `pending_approval`.
   */
  readonly waitForApproval?: number | undefined;
  /**
   * The limit for all attempts together, in milliseconds, in addition to `waitForApproval`. Absent: the client's own limit.
   */
  readonly timeout?: number | undefined;
}

/** The state of a task. */
export type State = 'pending_approval' | 'active' | 'held' | 'completed' | 'cancelled' | 'expired' | 'revoked' | 'unspecified';

/** What a task needs of its client. */
export interface TaskHost {
  readonly connection: Connection;
  readonly timeout: number;
  credential(upstream: string, ask: CredentialAsk): Promise<Credential>;
  credentials<const Asks extends readonly UpstreamAsk[]>(asks: Asks, options: SeveralOptions): Promise<Credentials<Asks>>;
  ended(taskId: string): void;
  failed(error: unknown): void;
}

/** The terms in the wire format. */
function termsOf(ask: TaskAsk) {
  const upstreams = Object.entries(ask.upstreams).map(([upstream, scope]) => ({ upstream, scopes: scopesOf(scope) }));
  const parent = typeof ask.parent === 'string' ? ask.parent : (ask.parent?.id ?? '');
  return create(TaskTermsSchema, {
    purpose: ask.purpose, upstreams, parentTaskId: parent, callers: [...(ask.callers ?? [])], keyBound: ask.keyBound ?? false,
    tools: ask.tools === 'any' ? [] : [...(ask.tools ?? [])], anyTool: ask.tools === 'any', kinds: (ask.kinds ?? []).map(kindOf),
    ...(ask.ttl === undefined ? {} : { ttl: duration(ask.ttl) }),
    ...(ask.maxTtl === undefined ? {} : { maxTtl: duration(ask.maxTtl) }),
    ...(ask.heartbeat === undefined ? {} : { heartbeatInterval: duration(ask.heartbeat) }),
  });
}

/**
 * A task that this client opened. `await using` completes it at the end of the block, and everything issued in it is refused from then on.
 */
export class Task implements AsyncDisposable {
  /** The id of the task. A name, not a secret. */
  readonly id: string;
  readonly #host: TaskHost;
  readonly #end = new AbortController();
  #task: TaskMessage;
  #beat: NodeJS.Timeout | undefined;
  #done: Promise<void> | undefined;

  /** @internal */
  constructor(task: TaskMessage, host: TaskHost, heartbeat: number | undefined) {
    this.id = task.taskId;
    this.#task = task;
    this.#host = host;
    if (heartbeat !== undefined) this.#keepBeating(heartbeat * 1000);
  }

  /** @internal */
  static async open(ask: TaskAsk, host: TaskHost): Promise<Task> {
    const request = create(OpenTaskRequestSchema, { terms: termsOf(ask), requestId: randomUUID() });
    if (ask.subjectToken) request.subjectToken = create(OpenTaskRequestSchema, { subjectToken: subjectOf(ask.subjectToken) }).subjectToken!;
    if (ask.parentCredential) {
      request.parentCredential = create(OpenTaskRequestSchema, { parentCredential: { token: revealed(ask.parentCredential) } }).parentCredential!;
    }
    if (ask.waitForApproval) request.waitForApproval = duration(ask.waitForApproval);
    const waits = (ask.waitForApproval ?? 0) * 1000;
    const deadline = new Deadline((ask.timeout ?? host.timeout) + waits);
    const { task } = await host.connection.call(TaskService.method.openTask, request, { deadline, waits });
    if (!task) throw new NotActive('the server answered with no task');
    return new Task(task, host, ask.heartbeat);
  }

  /** The state of the task when it was last read; {@link Task.refresh} reads it again. */
  get state(): State {
    return TaskState[this.#task.state]!.toLowerCase() as State;
  }

  /** When the task ends unless it is extended. */
  get deadline(): Date {
    return new Date(millis(this.#task.deadline));
  }

  /** The approval that the task waits for or was opened with. Empty: none was needed. */
  get approvalId(): string {
    return this.#task.approvalId;
  }

  /**
   * Aborted when a heartbeat learned that the task has ended, with that error as its reason: work that goes on is useless.
   */
  get signal(): AbortSignal {
    return this.#end.signal;
  }

  /**
   * What to send to an MCP server with a call, as its `_meta`: `client.callTool({ name, arguments, _meta: task.meta })`.
   */
  get meta(): { [META_TASK]: string } {
    return { [META_TASK]: this.id };
  }

  /** A credential in this task. */
  credential(upstream: string, ask: Omit<CredentialAsk, 'task'>): Promise<Credential> {
    return this.#host.credential(upstream, { ...ask, task: this.id });
  }

  /** {@link Mayfly.credentials} in this task. */
  credentials<const Asks extends readonly UpstreamAsk[]>(asks: Asks, options: Omit<SeveralOptions, 'task'> = {}): Promise<Credentials<Asks>> {
    return this.#host.credentials(asks, { ...options, task: this.id });
  }

  /** {@link Mayfly.fetch} in this task. */
  fetch(upstream: string, { url, ...ask }: Omit<SessionAsk, 'task'>): SessionFetch {
    return sessionFetch(() => this.credential(upstream, ask), url);
  }

  /** Reads the task again from the server. */
  async refresh(): Promise<this> {
    const deadline = new Deadline(this.#host.timeout);
    const { task } = await this.#host.connection.call(TaskService.method.getTask, create(GetTaskRequestSchema, { taskId: this.id }), { deadline });
    if (task) this.#task = task;
    return this;
  }

  /** Completes the task: the work is done. Calling it again has no effect. */
  complete(reason = ''): Promise<void> {
    return this.#over(async () => {
      const request = create(CompleteTaskRequestSchema, { taskId: this.id, reason });
      return (await this.#host.connection.call(TaskService.method.completeTask, request, this.#call())).task;
    });
  }

  /** Cancels the task: the work is given up. */
  cancel(reason = ''): Promise<void> {
    return this.#over(async () => {
      const request = create(CancelTaskRequestSchema, { taskId: this.id, reason });
      return (await this.#host.connection.call(TaskService.method.cancelTask, request, this.#call())).task;
    });
  }

  /**
   * Completes the task. Never rejects: if the server cannot be reached, the task ends by its deadline or by a missing heartbeat.
   */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.complete().catch((error) => this.#host.failed(error));
  }

  toString(): string {
    return this.id;
  }

  toJSON(): object {
    return { id: this.id, state: this.state, deadline: this.deadline };
  }

  [inspect.custom](): string {
    return `Task(${this.id}, ${this.state})`;
  }

  #call() {
    return { deadline: new Deadline(this.#host.timeout) };
  }

  #over(end: () => Promise<TaskMessage | undefined>): Promise<void> {
    clearTimeout(this.#beat);
    this.#done ??= end().then((task) => { if (task) this.#task = task; }, (error) => {
      this.#done = undefined;
      if (!(error instanceof NotActive)) throw error; // The task had ended before.
    }).finally(() => this.#host.ended(this.id));
    return this.#done;
  }

  /** Three heartbeats in an interval: two may be lost. */
  #keepBeating(interval: number): void {
    this.#beat = setTimeout(async () => {
      try {
        const deadline = new Deadline(interval / 2);
        await this.#host.connection.call(TaskService.method.heartbeatTask, create(HeartbeatTaskRequestSchema, { taskId: this.id }), { deadline });
      } catch (error) {
        if (error instanceof NotActive || error instanceof NotFound || error instanceof Denied) {
          this.#host.ended(this.id);
          return this.#end.abort(error);
        }
        this.#host.failed(error);
      }
      if (!this.#done) this.#keepBeating(interval);
    }, (interval / 3) * (0.9 + Math.random() / 10));
    this.#beat.unref();
  }
}
