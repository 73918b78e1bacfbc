/**
 * For relying services: verifies credentials locally, and follows revocations. Fails closed.
 *
 * @module
 */
import { hostname } from 'node:os';
import { randomBytes } from 'node:crypto';
import { connectivityState as State, Metadata, status as Code, type ClientReadableStream, type ServiceError } from '@grpc/grpc-js';
import { create } from '@bufbuild/protobuf';
import { setTimeout as sleep } from 'node:timers/promises';
import { scopesOf } from '../ask.js';
import type { Connection, Line } from '../connection.js';
import { Closed, fromServiceError, Unavailable } from '../errors.js';
import {
  ChainHeadSchema, SeenHeadSchema, WatchRevocationsRequestSchema, type SeenHead, type WatchRevocationsResponse,
} from '../gen/mayfly/v1/feed_pb.js';
import { GetJwksRequestSchema, KeyService } from '../gen/mayfly/v1/key_service_pb.js';
import { AcknowledgeRevocationsRequestSchema, RevocationService } from '../gen/mayfly/v1/revocation_service_pb.js';
import { openServerStream } from '../grpc.js';
import { Deadline } from '../retry.js';
import { argumentsDigest } from './arguments.js';
import { Checker, type Need, type Needed } from './check.js';
import type { Verified } from './claims.js';
import type { ChainHead } from './feed.js';
import { LIMITS, type Moment } from './follower.js';
import { readJwks } from './token.js';

/** The wait before following again after the feed broke, in milliseconds: doubled each time, up to the second value. */
const AGAIN_MS = [100, 2_000] as const;
/** The limit for one call besides the feed, in milliseconds. */
const CALL_MS = 5_000;
/** The shortest time between two key reads that tokens cause, in milliseconds: a token can name any key. */
const KEYS_MS = 250;
/**
 * How often the keys are read with the feed's heartbeats, in milliseconds. A new key is published for longer than that before it signs.
 */
const KEYS_AGAIN_MS = 5_000;

/** In place of a digest: not a SHA-256. */
const NO_DIGEST = 'none';

/** The settings of a relying service. */
export interface VerifierSettings {
  /** The accepted `iss`, exactly. */
  readonly issuer: string;
  /** The accepted `aud`, exactly: the audience of the upstream. */
  readonly audience: string;
  /** The names of the upstreams that it serves. */
  readonly upstreams: readonly string[];
  /**
   * Its name as a follower among this workload's instances: `mayfly revoke --wait` waits for it by that name. Absent: host, process and a
   * number.
   */
  readonly follower?: string;
}

const moment = (): Moment => ({ wall: Date.now(), steady: performance.now() });

/**
 * The digest of arguments. Arguments without a digest get a value that no credential names: a credential for particular arguments was
 * issued for others.
 */
function digestOrNone(value: unknown): string {
  try {
    return argumentsDigest(value);
  } catch {
    return NO_DIGEST;
  }
}

/** The need with its digests computed. */
export function needed(need: Need): Needed {
  const digest = need.arguments === undefined ? (need.argumentsSha256 ?? '') : digestOrNone(need.arguments);
  return { scopes: scopesOf(need.scope ?? []), tool: need.tool ?? '', argumentsSha256: digest, certificateSha256: need.certificateSha256 ?? '' };
}

/**
 * Calls back when the server has asked to close the connection (GOAWAY), or it broke. The returned function stops that.
 */
function leaving(line: Line, left: () => void): () => void {
  let over = false;
  const channel = line.client.getChannel();
  const look = (before: State) => {
    if (before === State.SHUTDOWN) return;
    channel.watchConnectivityState(before, Number.POSITIVE_INFINITY, (error) => {
      // A closed channel reports it here; its streams end by themselves.
      if (over || error) return;
      const now = channel.getConnectivityState(false);
      if (before === State.READY && now !== State.READY) return left();
      look(now);
    });
  };
  look(channel.getConnectivityState(false));
  return () => { over = true; };
}

function seenToWire({ head, heads }: { readonly head: number; readonly heads: readonly ChainHead[] }): SeenHead {
  const one = ({ writer, commit, hash }: ChainHead) => create(ChainHeadSchema, { writer, commit, headerSha256: Buffer.from(hash, 'hex') });
  return create(SeenHeadSchema, { seq: BigInt(head), heads: heads.map(one) });
}

/** Verifies credentials for one relying service, and follows the revocations until it is closed. */
export class Verifier {
  /** The accepted issuer and audience. */
  readonly settings: VerifierSettings;
  /** The verifier's name as a follower. */
  readonly follower: string;
  readonly #connection: Connection;
  readonly #failed: (error: unknown) => void;
  readonly #checker: Checker;
  readonly #end = new AbortController();
  readonly #readiness = new Set<() => void>();
  #keysRead = Number.NEGATIVE_INFINITY;
  #reading: Promise<void> | undefined;
  #acknowledging = false;
  #keysKnown = false;
  #jwks: string | undefined;
  #broke: unknown;
  /** The newest sequence number that this stream's server was told is applied here. */
  #said = -1;

  /** @internal */
  constructor(connection: Connection, settings: VerifierSettings, failed: (error: unknown) => void) {
    this.settings = settings;
    this.follower = settings.follower ?? `${hostname().slice(0, 64)}:${process.pid}:${randomBytes(4).toString('hex')}`;
    this.#connection = connection;
    this.#failed = failed;
    this.#checker = new Checker({ issuer: settings.issuer, audience: settings.audience });
    void this.#follow();
  }

  /** Everything up to this sequence number was applied. */
  get applied(): number {
    return this.#checker.applied;
  }

  /**
   * Whether the verifier knows the revocations and the keys now, and so accepts valid credentials. An issuer that has issued nothing yet has no keys.
   */
  get isReady(): boolean {
    return this.#keysKnown && this.#checker.fresh(moment());
  }

  /**
   * Waits until the verifier knows the revocations and the keys.
   *
   * @param ms - the limit, in milliseconds
   * @throws Unavailable - the verifier does not know them, with the reason
   */
  ready(ms = 10_000): Promise<this> {
    if (this.isReady) return Promise.resolve(this);
    return new Promise((resolve, reject) => {
      const end = (settle: () => void) => {
        clearTimeout(timer);
        this.#readiness.delete(look);
        this.#end.signal.removeEventListener('abort', closed);
        settle();
      };
      const look = () => { if (this.isReady) end(() => resolve(this)); };
      const closed = () => end(() => reject(new Closed()));
      const why = () => (this.#broke instanceof Error ? `: ${this.#broke.message}` : '');
      const late = () => new Unavailable(`the revocations are not known yet${why()}`, { code: Code.UNAVAILABLE }, { cause: this.#broke });
      const timer = setTimeout(() => end(() => reject(late())), ms);
      if (this.#end.signal.aborted) return closed();
      this.#end.signal.addEventListener('abort', closed, { once: true });
      this.#readiness.add(look);
    });
  }

  /**
   * Checks a credential for one use.
   *
   * @param token - as it was presented
   * @throws Refused - the credential is not accepted; {@link Refused.unsure} if the reason is missing knowledge here
   */
  async check(token: string, need: Need = {}): Promise<Verified> {
    const needs = needed(need);
    const known = this.#checker.again(token, needs, moment);
    if (known) return known;
    // A read of the keys that was in progress may have missed the key; the second one did not.
    for (let n = 0; n < 2 && this.#checker.lacksKeyOf(token); n++) await this.#readKeys().catch(() => undefined);
    return this.#checker.first(token, needs, moment);
  }

  /** Stops following. From then on, checks are refused as soon as the present knowledge is too old. */
  close(): void {
    this.#end.abort();
  }

  async #follow(): Promise<void> {
    const { signal } = this.#end;
    for (let wait: number = AGAIN_MS[0]; !signal.aborted; ) {
      const before = this.applied;
      try {
        await this.#readKeys();
        await this.#followOnce(await this.#connection.line());
      } catch (error) {
        this.#broke = error;
        if (!signal.aborted) this.#failed(error);
      }
      wait = this.applied > before ? AGAIN_MS[0] : Math.min(wait * 2, AGAIN_MS[1]);
      await sleep(wait * (0.5 + Math.random() / 2), undefined, { signal, ref: false }).catch(() => undefined);
    }
  }

  /** Follows over one connection, and continues over the next one, until the feed breaks. */
  async #followOnce(line: Line): Promise<void> {
    for (let at: Line | undefined = line; at && !this.#end.signal.aborted; ) at = await this.#stream(at);
  }

  /** Resolves with the connection to continue with when this one retires. */
  #stream(line: Line): Promise<Line | undefined> {
    const release = line.hold();
    const resumeAfter = this.#checker.beginStream();
    const request = create(WatchRevocationsRequestSchema, { follower: this.follower, upstreams: [...this.settings.upstreams] });
    if (resumeAfter !== undefined) request.resumeAfter = BigInt(resumeAfter);
    if (this.#checker.seen) request.seen = seenToWire(this.#checker.seen);
    // The server of an earlier stream knows its reports, and may be another one than this server.
    this.#said = -1;
    const stream = openServerStream(line.client, RevocationService.method.watchRevocations, request, new Metadata());
    return new Promise<Line | undefined>((resolve, reject) => {
      let watchdog: NodeJS.Timeout | undefined;
      const end = (settle: () => void) => {
        clearTimeout(watchdog);
        moved();
        stay();
        this.#end.signal.removeEventListener('abort', closed);
        stream.cancel();
        settle();
      };
      const lost = (what: string) => end(() => reject(new Unavailable(what, { code: Code.UNAVAILABLE })));
      const closed = () => end(() => resolve(undefined));
      // A feed that is silent for this long is stale anyway.
      const alive = () => {
        clearTimeout(watchdog);
        watchdog = setTimeout(() => lost('the feed said nothing'), LIMITS.feedMaxAge);
        watchdog.unref();
      };
      const moved = line.retiring(() => end(() => resolve(this.#connection.line())));
      // A stopping server waits for its streams: this one begins again over the next connection.
      const stay = leaving(line, () => end(() => resolve(this.#connection.line())));
      this.#end.signal.addEventListener('abort', closed, { once: true });
      alive();
      this.#read(stream, alive, lost);
      stream.on('end', () => lost('the server ended the feed'));
      stream.on('error', (error: ServiceError) => {
        const typed = fromServiceError(error);
        // An earlier version of the server reports this error by the field alone.
        const wentBack = typed.reason === 'LEDGER_ROLLED_BACK' || typed.fieldViolations.some(({ field }) => field === 'resume_after');
        if (wentBack) this.#checker.distrust(typed.message);
        else if (error.code === Code.OUT_OF_RANGE) this.#checker.resync();
        end(() => reject(typed));
      });
    }).finally(release);
  }

  #read(stream: ClientReadableStream<WatchRevocationsResponse>, alive: () => void, lost: (what: string) => void): void {
    stream.on('data', (message: WatchRevocationsResponse) => {
      alive();
      try {
        const taken = this.#checker.take(message, moment());
        if (this.#checker.rolledBack !== undefined) return lost(`the server runs on an older copy of its ledger: ${this.#checker.rolledBack}`);
        if (taken === 'gap' || taken === 'no_snapshot') return lost(`the feed had a gap (${taken})`);
      } catch (error) {
        // The revocation in it is unknown: nothing after it is trusted.
        this.#checker.needsSnapshot();
        return lost(error instanceof Error ? error.message : 'the feed was not understood');
      }
      const partly = message.event.case === 'snapshot' && !message.event.value.last;
      if (this.applied > this.#said && !partly) void this.#acknowledge();
      // A new key signs only after it was published for a while; a compromised one is refused by its rule at once.
      if (message.event.case === 'heartbeat' && performance.now() - this.#keysRead > KEYS_AGAIN_MS) {
        void this.#readKeys().catch(this.#failed);
      }
      for (const look of this.#readiness) look();
    });
  }

  /** Reports the newest applied sequence number. Progress made during a report is sent with the next one. */
  async #acknowledge(): Promise<void> {
    if (this.#acknowledging) return;
    this.#acknowledging = true;
    try {
      while (this.#said < this.applied && !this.#end.signal.aborted) {
        const said = (this.#said = this.applied);
        const request = create(AcknowledgeRevocationsRequestSchema, { follower: this.follower, appliedSeq: BigInt(said) });
        await this.#connection.once(RevocationService.method.acknowledgeRevocations, request, { deadline: new Deadline(CALL_MS) });
      }
    } catch (error) {
      // The next message reports the sequence number again.
      this.#said = -1;
      if (!this.#end.signal.aborted) this.#failed(error);
    } finally {
      this.#acknowledging = false;
    }
  }

  /** Reads the keys, one read at a time and not too often. A caller that comes too early waits for the next read. */
  #readKeys(): Promise<void> {
    this.#reading ??= this.#fetchKeys().finally(() => (this.#reading = undefined));
    return this.#reading;
  }

  async #fetchKeys(): Promise<void> {
    const early = this.#keysRead + KEYS_MS - performance.now();
    if (early > 0) await sleep(early);
    this.#keysRead = performance.now();
    const request = create(GetJwksRequestSchema, { of: { case: 'issuer', value: this.settings.issuer } });
    const { jwks } = await this.#connection.call(KeyService.method.getJwks, request, { deadline: new Deadline(CALL_MS) });
    // The same keys again: the tokens they signed stay remembered.
    if (jwks !== this.#jwks) this.#checker.setKeys(await readJwks(jwks));
    this.#jwks = jwks;
    this.#keysKnown = true;
    for (const look of this.#readiness) look();
  }
}
