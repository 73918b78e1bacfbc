/**
 * What a relying service knows, and its answer to a credential. No IO and no clock: messages of the feed and moments come in as values.
 *
 * The same answers in every language: `tests/vectors/verify/cases.json`. A token whose signature was found good is remembered by its digest:
 * shown again it costs neither its signature nor its claims. Whatever may have changed since is looked at each time.
 *
 * @module
 */
import { timingSafeEqual } from 'node:crypto';
import type { WatchRevocationsResponse } from '../gen/mayfly/v1/feed_pb.js';
import { readClaims, Verified, type Claims } from './claims.js';
import { readMessage } from './feed.js';
import { Building, Follower, LIMITS, type Limits, type Moment, type SeenHead, type Taken } from './follower.js';
import { asked, type Asked } from './marks.js';
import { Refused } from './refused.js';
import { Seen } from './seen.js';
import { authentic, base64url, split, TOKEN_BYTES, type Keys } from './token.js';

/** Deepest task path, most ancestors, longest actor chain. */
const MOST = 8;
/** Other grants that a credential rests on: openings of its tasks, the joining of a break-glass task, its ancestors, and those of each opening. */
const GROUNDS = MOST + 1 + MOST + (MOST + 1) * (MOST + 1);
/** 2 has `rests_on`. */
const OWN_VERSION = 2;

/** What a use needs besides a good credential. */
export interface Need {
  /** The scope, or all of several. Absent: none. */
  readonly scope?: string | readonly string[] | undefined;
  /** The tool that calls. Absent: not known here, and not compared. */
  readonly tool?: string | undefined;
  /**
   * The arguments of this very call, where the credential may name some; or their digest, hex. Absent: not known here, and not compared. Who acts
   * on arguments gives them, or what was approved for one call serves for any.
   */
  readonly arguments?: unknown;
  readonly argumentsSha256?: string | undefined;
  /** SHA-256 of the client certificate of the TLS session, hex; never of a header. Absent: only credentials that are bound to no key are good. */
  readonly certificateSha256?: string | undefined;
}

/** A need with its digests made. */
export interface Needed {
  readonly scopes: readonly string[];
  readonly tool: string;
  readonly argumentsSha256: string;
  readonly certificateSha256: string;
}

/** Whom a token has to be from and for. */
export interface Expect {
  readonly issuer: string;
  readonly audience: string;
}

const same = (hex: string, other: Buffer): boolean => {
  const bytes = Buffer.from(hex, 'hex');
  return bytes.length === other.length && timingSafeEqual(bytes, other);
};

function possessed({ x5t, jkt }: Claims, certificate: string): boolean {
  if (x5t === undefined && jkt === undefined) return true;
  // No DPoP proof is verified here: what is bound to a key of that sort is refused.
  const named = x5t !== undefined && jkt === undefined ? base64url(x5t) : undefined;
  return named !== undefined && named.length === 32 && certificate !== '' && same(certificate, named);
}

/** Whether the claims are what they have to be, whatever was revoked. */
function fits(claims: Claims, expect: Expect, now: number, limits: Limits, certificate: string): void {
  if (claims.version > OWN_VERSION) throw new Refused('newer_version', `claims of version ${claims.version} are newer than this verifier`);
  if (claims.issuer !== expect.issuer) throw new Refused('issuer', 'iss is not the expected issuer');
  if (claims.audience !== expect.audience) throw new Refused('audience', 'aud is not this service');
  const life = claims.expires - claims.issued;
  // A key rule is the only one that a stolen key can't get round, and it may take a while to come: until then nothing lives longer.
  if (life <= 0 || life * 1000 > limits.maxTtl) throw new Refused('life', 'its life is not one that the issuer gives');
  // Skew is given where it waits for a beginning, never where it would put off an end.
  if (now >= claims.expires * 1000) throw new Refused('expired', 'it has expired');
  if (Math.max(claims.notBefore, claims.issued) * 1000 > now + limits.skew) throw new Refused('not_yet', 'it is not good yet');
  if (claims.tasks.length > MOST || claims.ancestors.length > MOST || claims.actors.length > MOST || claims.restsOn.length > GROUNDS) {
    throw new Refused('claims', 'claims: more tasks, ancestors, actors or grounds than there can be');
  }
  if (!possessed(claims, certificate)) throw new Refused('possession', 'it is bound to a key that was not proven');
}

/** Whether a good credential is good for this use. */
function serves(claims: Claims, need: Needed): void {
  for (const scope of need.scopes) if (!claims.scopes.includes(scope)) throw new Refused('scope', `it lacks the scope ${scope}`);
  if (need.tool !== '' && claims.tool !== '' && claims.tool !== need.tool) throw new Refused('tool', `it was issued for the tool ${claims.tool}`);
  const named = claims.argumentsSha256;
  // In constant time: who sends calls must not learn the digest of those that were approved, byte by byte.
  if (named !== '' && need.argumentsSha256 !== '' && !same(need.argumentsSha256, Buffer.from(named, 'hex'))) {
    throw new Refused('arguments', 'it was issued for other arguments');
  }
}

/** One whose signature was found good, and the numbers of all that it answers. */
export interface Known {
  readonly verified: Verified;
  readonly kid: string;
  readonly asked: Asked;
}

/** Made when its signature was found good. */
export const known = (claims: Claims, kid: string): Known => ({ verified: new Verified(claims), kid, asked: asked(claims, kid) });

/** What one relying service knows: the keys, the revocations, and how fresh they are. */
export class Checker {
  readonly #expect: Expect;
  readonly #follower: Follower;
  #keys: Keys = new Map();
  /** The parts that came of a snapshot that is not whole yet. */
  #parts = new Building();
  /** What these keys were found to have signed. */
  #seen = new Seen<Known>();

  /** Knows nothing yet, and refuses everything. */
  constructor(expect: Expect, limits: Limits = LIMITS) {
    this.#expect = expect;
    this.#follower = new Follower(limits);
  }

  /** Everything up to here was applied. */
  get applied(): number {
    return this.#follower.applied;
  }

  /** A stream of the feed begins. Where it may go on; `undefined`: with a snapshot. */
  beginStream(): number | undefined {
    this.#parts = new Building();
    return this.#follower.resumesAfter;
  }

  /** What was seen of the ledger, for a stream's beginning: the server compares it with its own. */
  get seen(): SeenHead | undefined {
    return this.#follower.seen;
  }

  /** Why the server is not believed any more, where it went back behind what was seen. */
  get rolledBack(): string | undefined {
    return this.#follower.rolledBack;
  }

  /** The server went back behind what was seen. */
  distrust(why: string): void {
    this.#follower.distrust(why);
  }

  /** The feed goes on with a snapshot. Until that is whole, what is known decides, as long as it is fresh enough. */
  resync(): void {
    this.#follower.resync();
  }

  /** Something of the feed was not understood: everything is refused until a snapshot came. */
  needsSnapshot(): void {
    this.#follower.needsSnapshot();
  }

  /** It knows the revocations, freshly enough. */
  fresh(now: Moment): boolean {
    return this.#follower.fresh(now);
  }

  /** The issuer's keys from now on. */
  setKeys(keys: Keys): void {
    this.#keys = keys;
    this.#seen = new Seen();
  }

  /** Whether a token names a key that is not known here: one that began to sign since the keys were read. */
  lacksKeyOf(token: string): boolean {
    try {
      return !this.#keys.has(split(token).kid);
    } catch {
      return false;
    }
  }

  /**
   * Takes a message of the feed.
   *
   * @throws NotRead - it is not understood
   */
  take(message: WatchRevocationsResponse, now: Moment): Taken {
    const read = readMessage(message);
    if ('beat' in read) return this.#follower.heartbeat(read.beat, now);
    if ('event' in read) return this.#follower.apply(read.previous, read.event);
    // Each part as it comes: the event loop is never held up by all of them.
    this.#parts.add(read.part);
    if (!read.last) return 'taken';
    const whole = this.#parts;
    this.#parts = new Building();
    return this.#follower.begin(whole);
  }

  /**
   * Checks a credential for one use: its key's rules first, then signature and claims, then the rules, then the need.
   *
   * @param now - asked after the signature, for verifying it takes a while and something may be revoked meanwhile
   * @throws Refused
   */
  async check(token: string, need: Needed, now: () => Moment): Promise<Verified> {
    return this.again(token, need, now) ?? this.first(token, need, now);
  }

  /**
   * Checks one that was shown before, and whose signature is known to be good; `undefined` for another.
   *
   * @throws Refused
   */
  again(token: string, need: Needed, now: () => Moment): Verified | undefined {
    const one = token.length > TOKEN_BYTES ? undefined : this.#seen.get(token);
    if (one) this.stands(one, need, now());
    return one?.verified;
  }

  /**
   * Checks one that was not shown before, and remembers that its signature is good.
   *
   * @throws Refused
   */
  async first(token: string, need: Needed, now: () => Moment): Promise<Verified> {
    const [keys, seen] = [this.#keys, this.#seen];
    const parts = split(token);
    this.#refuseRevoked(parts.kid);
    const one = known(readClaims(await authentic(token, parts, keys)), parts.kid);
    // Among what the keys signed that it was verified with: where they were replaced meanwhile nobody looks there any more.
    seen.put(token, one);
    this.#refuseRevoked(parts.kid);
    this.stands(one, need, now());
    return one.verified;
  }

  /**
   * The same for one whose signature was found good: everything that may have changed since.
   *
   * @throws Refused
   */
  stands({ verified: { claims }, kid, asked }: Known, need: Needed, now: Moment): void {
    const follower = this.#follower;
    const touched = follower.touches(asked, claims.revision);
    if (touched) this.#refuseRevoked(kid);
    fits(claims, this.#expect, follower.time(now), follower.limits, need.certificateSha256);
    if (touched) follower.check(claims, kid, now);
    else follower.lives(claims, now);
    serves(claims, need);
  }

  #refuseRevoked(kid: string): void {
    if (this.#follower.revokesKey(kid)) throw new Refused('key_revoked', `the key ${JSON.stringify(kid)} was revoked`);
  }
}
