/**
 * Tracks the holders of each credential. Equal requests in progress share one exchange, later equal requests share its credential, and the
 * credential is released when its last holder leaves.
 *
 * @module
 */
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { create } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { DEFAULT_TTL, duration, requestOf, requestsOf, shareKey, type CredentialAsk, type SeveralOptions, type UpstreamAsk } from './ask.js';
import { Instant } from './clock.js';
import type { Connection } from './connection.js';
import { Credential, type Giver, type Use } from './credential.js';
import { Closed, InvalidRequest, NotActive, NotFound } from './errors.js';
import { Incomplete, type Exchanger } from './exchanger.js';
import { TaskService, CompleteTaskRequestSchema, ExtendTaskRequestSchema } from './gen/mayfly/v1/task_service_pb.js';
import { ReleaseRequestSchema, RenewRequestSchema, TokenService, type ExchangeRequest } from './gen/mayfly/v1/token_service_pb.js';
import type { Issued } from './gen/mayfly/v1/issued_pb.js';
import { Holding, Issuance, millis } from './issuance.js';
import { Deadline } from './retry.js';
import type { UseReports } from './use.js';

/** How long a release may delay its caller, in milliseconds; after that it continues in the background. */
const GIVE_BACK_MS = 2_000;
/** How often a failed release is tried again, in milliseconds. */
const AGAIN_MS = 5_000;
/**
 * How much longer than the renewed credential a task opened with it must live, in milliseconds. The renewal is decided a moment later and
 * must get its full lifetime. Policy counts whole seconds, so a policy that allows the lifetime allows this too.
 */
const AHEAD_MS = 500;
/** The most credentials that are kept without a holder. */
const MOST_IDLE = 1_000;
/** How often a batch waits for an equal exchange in progress, and then looks again, before it exchanges anyway. */
const ROUNDS = 3;

/** Settings of a pool. */
export interface PoolSettings {
  /** The limit for all attempts of an exchange, in milliseconds. */
  readonly timeout: number;
  /** How long a shared credential is kept after its last holder left, in milliseconds. */
  readonly idle: number;
  /** Receives errors that no caller waits for. */
  readonly failed: (error: unknown) => void;
}

/** An exchange to make: its request, the key by which other requests find the credential, and the lifetime that was asked for. */
interface Exchange {
  readonly request: ExchangeRequest;
  readonly key: string | undefined;
  readonly ttl: number | undefined;
}

/** The credentials of one client. */
export class Pool implements Giver {
  readonly #connection: Connection;
  readonly #exchanger: Exchanger;
  readonly #reports: UseReports;
  readonly #settings: PoolSettings;
  readonly #shared = new Map<string, Holding>();
  /** Exchanges in progress by their key. One in a batch that was refused gives `undefined`, since that may be for another of the batch. */
  readonly #flights = new Map<string, Promise<Holding | undefined>>();
  readonly #underWay = new Set<Promise<unknown>>();
  readonly #all = new Set<Holding>();
  readonly #idle = new Set<Holding>();
  readonly #owed = new Set<Holding>();
  #again: NodeJS.Timeout | undefined;
  /** Whether tasks that are opened with a credential may be opened in such a way that they can be extended. */
  #extensible = true;
  #closed = false;

  constructor(connection: Connection, exchanger: Exchanger, reports: UseReports, settings: PoolSettings) {
    this.#connection = connection;
    this.#exchanger = exchanger;
    this.#reports = reports;
    this.#settings = settings;
  }

  /** A credential for one more holder. */
  async get(upstream: string, ask: CredentialAsk): Promise<Credential> {
    if (this.#closed) throw new Closed();
    const request = requestOf(upstream, ask);
    const svid = request.keyBinding ? (await this.#connection.line()).svid.fingerprint : '';
    const key = shareKey(request, svid);
    const known = key === undefined ? undefined : this.#shared.get(key);
    if (known?.fresh) return this.#hold(known);
    const holding = await abandonable(this.#fly(request, key, ask), ask.signal, async (late) => { if (late) await this.#hold(late).release(); });
    // Another waiting request may have received it and released it already.
    return !holding || (holding.over && !this.#closed) ? this.get(upstream, ask) : this.#hold(holding);
  }

  /** Credentials for all requests, in their order, or none. */
  async getAll(asks: readonly UpstreamAsk[], how: SeveralOptions): Promise<Credential[]> {
    if (this.#closed) throw new Closed();
    const requests = requestsOf(asks, how);
    if (requests.length === 1) {
      const { upstream, ...ask } = asks[0]!;
      return [await this.get(upstream, { ...ask, ...how })];
    }
    const svid = requests.some(({ keyBinding }) => keyBinding) ? (await this.#connection.line()).svid.fingerprint : '';
    const keys = requests.map((request) => shareKey(request, request.keyBinding ? svid : ''));
    const inFlight = (key: string | undefined) => (key === undefined || this.#shared.get(key)?.fresh ? undefined : this.#flights.get(key));
    for (let n = 0; n < ROUNDS; n++) {
      const flights = keys.map(inFlight).filter((flight) => flight !== undefined);
      if (flights.length === 0) break;
      // Whatever becomes of them: nothing is begun yet that could be refused with them.
      await abandonable(Promise.allSettled(flights), how.signal, async () => undefined);
    }
    if (this.#closed) throw new Closed();
    // From here on, the call holds what is shared already. It leaves that if the others are refused.
    const held = keys.map((key) => {
      const known = key === undefined ? undefined : this.#shared.get(key);
      return known?.fresh ? this.#hold(known) : undefined;
    });
    const fresh = requests.flatMap((_, n) => (held[n] || (keys[n] !== undefined && keys.indexOf(keys[n]) < n) ? [] : [n]));
    const leave = async (all: readonly (Credential | undefined)[]) => { await Promise.all(all.map((one) => one?.release())); };
    const whole = this.#flyAll(fresh.map((n) => ({ request: requests[n]!, key: keys[n], ttl: asks[n]!.ttl })), how.timeout).then((holdings) =>
      held.map((one, n) => one ?? this.#hold(holdings[fresh.indexOf(keys[n] === undefined ? n : keys.indexOf(keys[n]))]!)));
    whole.catch(() => leave(held));
    return abandonable(whole, how.signal, leave);
  }

  use(holding: Holding, use: Use): void {
    const { credentialId } = holding.current.issued;
    this.#reports.note(credentialId, use.tool ?? holding.tool, use.outcome);
    if (use.outcome === 401) holding.refused = true;
  }

  renew(holding: Holding): Promise<void> {
    holding.renewing ??= this.#renew(holding).finally(() => (holding.renewing = undefined));
    return holding.renewing;
  }

  async leave(holding: Holding): Promise<void> {
    if (--holding.holders > 0 || holding.over) return;
    const isShared = holding.key !== undefined && this.#shared.get(holding.key) === holding;
    if (!isShared || !holding.fresh || this.#settings.idle === 0 || this.#closed) return this.#giveBack(holding);
    this.#idle.add(holding);
    holding.idle = setTimeout(() => void this.#giveBack(holding), this.#settings.idle);
    holding.idle.unref();
    const [oldest] = this.#idle;
    if (oldest && this.#idle.size > MOST_IDLE) void this.#giveBack(oldest);
  }

  /**
   * A task has ended, and with it everything issued in it: its credentials are neither given to new holders nor released.
   */
  forget(taskId: string): void {
    for (const holding of this.#all) {
      if (holding.current.issued.taskId === taskId) this.#drop(holding);
    }
  }

  /** Releases all credentials, even those that have holders. */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#again);
    // Only the answers tell which credentials have to be released. Requests that wait for an approval are aborted by then.
    const enough = new AbortController();
    const most = sleep(this.#settings.timeout, undefined, { ref: false, signal: enough.signal }).catch(() => undefined);
    await Promise.race([Promise.allSettled(this.#underWay), most]);
    enough.abort();
    await Promise.all([...this.#all].map((holding) => this.#giveBack(holding)));
    clearTimeout(this.#again);
  }

  #hold(holding: Holding): Credential {
    clearTimeout(holding.idle);
    this.#idle.delete(holding);
    holding.holders++;
    return new Credential(holding, this);
  }

  #fly(request: ExchangeRequest, key: string | undefined, ask: CredentialAsk): Promise<Holding | undefined> {
    const before = key === undefined ? undefined : this.#flights.get(key);
    if (before) return before;
    const flight = this.#exchange(request, key, ask).finally(() => {
      this.#underWay.delete(flight);
      if (key !== undefined) this.#flights.delete(key);
    });
    this.#underWay.add(flight);
    if (key !== undefined) this.#flights.set(key, flight);
    return flight;
  }

  async #exchange(request: ExchangeRequest, key: string | undefined, ask: CredentialAsk): Promise<Holding> {
    const waits = (ask.waitForApproval ?? 0) * 1000;
    const deadline = new Deadline((ask.timeout ?? this.#settings.timeout) + waits);
    const [issued, began] = await this.#fitted([request], () => this.#exchanger.exchange(request, { deadline, waits }));
    return this.#kept({ request, key, ttl: ask.ttl }, issued, began);
  }

  /** Exchanges for all or none. Equal requests that come meanwhile wait for it. */
  #flyAll(exchanges: readonly Exchange[], timeout?: number): Promise<Holding[]> {
    if (exchanges.length === 0) return Promise.resolve([]);
    const flight = this.#exchangeAll(exchanges, timeout).finally(() => {
      this.#underWay.delete(flight);
      for (const { key } of exchanges) if (key !== undefined && this.#flights.get(key) === flights.get(key)) this.#flights.delete(key);
    });
    const flights = new Map(exchanges.flatMap(({ key }, n) => (key === undefined ? [] : [[key, flight.then((all) => all[n], () => undefined)] as const])));
    this.#underWay.add(flight);
    for (const [key, one] of flights) this.#flights.set(key, one);
    return flight;
  }

  async #exchangeAll(exchanges: readonly Exchange[], timeout = this.#settings.timeout): Promise<Holding[]> {
    const requests = exchanges.map(({ request }) => request);
    const deadline = new Deadline(timeout);
    try {
      const [issued, began] = await this.#fitted(requests, () => this.#exchanger.exchangeAll(requests, { deadline }));
      return exchanges.map((exchange, n) => this.#kept(exchange, issued[n]!, began));
    } catch (error) {
      if (!(error instanceof Incomplete)) throw error;
      // All or none: what was issued is released.
      const own = new Set(requests.filter(({ task }) => task.case === 'openTask').map(({ upstream }) => upstream));
      const left = error.issued.map((issued) => new Holding(new Issuance(issued, new Instant()), own.has(issued.upstream), undefined, '', undefined));
      await Promise.all(left.map((holding) => this.#giveBack(holding)));
      throw error;
    }
  }

  /** Exchanges with tasks that can be extended, where the server allows tasks to live that long. Also returns when that was asked for. */
  async #fitted<T>(requests: readonly ExchangeRequest[], exchange: () => Promise<T>): Promise<[T, Instant]> {
    const opened = requests.flatMap(({ task }) => (task.case === 'openTask' ? [task.value] : []));
    const attempt = async (): Promise<[T, Instant]> => {
      const began = new Instant();
      for (const request of requests) request.requestId = randomUUID();
      if (!this.#extensible) for (const terms of opened) delete terms.maxTtl;
      return [await exchange(), began];
    };
    try {
      return await attempt();
    } catch (error) {
      // The server does not allow a task to live that long: open one that lives only as long as its credential.
      const extensible = opened.some(({ maxTtl }) => maxTtl);
      if (!extensible || !(error instanceof InvalidRequest) || !error.fieldViolations.some(({ field }) => field.endsWith('max_ttl'))) throw error;
      this.#extensible = false;
      return attempt();
    }
  }

  #kept({ request, key, ttl }: Exchange, issued: Issued, began: Instant): Holding {
    const holding = new Holding(new Issuance(issued, began), request.task.case === 'openTask', key, request.tool, ttl);
    this.#all.add(holding);
    if (key !== undefined) this.#share(key, holding);
    return holding;
  }

  #share(key: string, holding: Holding): void {
    const old = this.#shared.get(key);
    this.#shared.set(key, holding);
    // The holders of the credential keep it; without holders it is dropped.
    if (old && old.holders === 0) void this.#giveBack(old);
  }

  async #renew(holding: Holding): Promise<void> {
    const deadline = new Deadline(this.#settings.timeout);
    if (holding.ownsTask) await this.#extend(holding, deadline);
    const began = new Instant();
    const request = create(RenewRequestSchema, { credentialId: holding.current.issued.credentialId, requestId: randomUUID() });
    if (holding.ttl !== undefined) request.ttl = duration(holding.ttl);
    const { issued } = await this.#connection.call(TokenService.method.renew, request, { deadline });
    if (!issued) return;
    holding.past.push(holding.current);
    holding.current = new Issuance(issued, began);
    holding.refused = false;
  }

  /** Extends a task that was opened with a credential, so that the renewed credential does not outlive its task. */
  async #extend({ current: { issued, arrived }, ttl = DEFAULT_TTL }: Holding, deadline: Deadline): Promise<void> {
    // The deadline is by the server's clock, and never later than that clock allows.
    const now = millis(issued.issuedAt) + performance.now() - arrived.steady;
    const request = create(ExtendTaskRequestSchema, {
      taskId: issued.taskId, requestId: randomUUID(), deadline: timestampFromMs(Math.floor(now + ttl * 1000 + AHEAD_MS)),
    });
    try {
      await this.#connection.call(TaskService.method.extendTask, request, { deadline });
    } catch (error) {
      // The server refuses a deadline before the present one: then the task already lives long enough.
      if (!(error instanceof InvalidRequest)) throw error;
    }
  }

  #drop(holding: Holding): void {
    holding.over = true;
    clearTimeout(holding.idle);
    this.#idle.delete(holding);
    this.#all.delete(holding);
    this.#owed.delete(holding);
    if (holding.key !== undefined && this.#shared.get(holding.key) === holding) this.#shared.delete(holding.key);
  }

  async #giveBack(holding: Holding): Promise<void> {
    if (holding.over) return;
    this.#drop(holding);
    try {
      await this.#end(holding);
    } catch (error) {
      if (error instanceof NotActive || error instanceof NotFound) return; // The task ended before.
      this.#settings.failed(error);
      this.#owe(holding);
    }
  }

  async #end(holding: Holding): Promise<void> {
    const settings = { deadline: new Deadline(GIVE_BACK_MS) };
    if (holding.ownsTask) {
      const { taskId } = holding.current.issued;
      await this.#connection.call(TaskService.method.completeTask, create(CompleteTaskRequestSchema, { taskId }), settings);
      return;
    }
    for (const { live, issued: { credentialId } } of [...holding.past, holding.current]) {
      if (live) await this.#connection.call(TokenService.method.release, create(ReleaseRequestSchema, { credentialId }), settings);
    }
  }

  /** Tries the release again later, until the credential has expired by itself. */
  #owe(holding: Holding): void {
    if (this.#closed || this.#owed.size >= MOST_IDLE) return;
    this.#owed.add(holding);
    this.#again ??= setTimeout(() => void this.#payBack(), AGAIN_MS);
    this.#again.unref();
  }

  async #payBack(): Promise<void> {
    this.#again = undefined;
    for (const holding of [...this.#owed]) {
      this.#owed.delete(holding);
      if (!holding.current.live) continue;
      try {
        await this.#end(holding);
      } catch (error) {
        if (!(error instanceof NotActive || error instanceof NotFound)) this.#owe(holding);
      }
    }
  }
}

/**
 * Waits for a promise until the signal aborts. A result that comes later is passed to `late`, so that it is not lost.
 */
async function abandonable<T>(work: Promise<T>, signal: AbortSignal | undefined, late: (value: T) => Promise<void>): Promise<T> {
  if (!signal) return work;
  return new Promise<T>((resolve, reject) => {
    const gone = () => {
      reject(signal.reason);
      work.then(late, () => undefined);
    };
    if (signal.aborted) return gone();
    signal.addEventListener('abort', gone, { once: true });
    work.then((value) => {
      signal.removeEventListener('abort', gone);
      if (!signal.aborted) resolve(value);
    }, (error) => {
      signal.removeEventListener('abort', gone);
      reject(error);
    });
  });
}
