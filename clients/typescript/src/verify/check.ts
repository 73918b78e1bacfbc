/**
 * The knowledge of a relying service, and its decision on a credential. No IO and no clock: feed messages and times are passed in as
 * values.
 *
 * All languages share the test cases in `tests/vectors/verify/cases.json`. A token whose signature was verified is remembered by its
 * digest; when it is presented again, neither its signature nor its claims are read again. Everything that may have changed since is
 * checked each time.
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

/** The deepest task path, the most ancestors and the longest actor chain. */
const MOST = 8;
/**
 * The other grants that a credential depends on: the openings of its tasks, the joining of a break-glass task, its ancestors, and the
 * ancestors of each opening.
 */
const GROUNDS = MOST + 1 + MOST + (MOST + 1) * (MOST + 1);
/** Version 2 has `rests_on`. */
const OWN_VERSION = 2;

/** What a use requires besides a valid credential. */
export interface Need {
  /** The scope, or several that are all required. Absent: none. */
  readonly scope?: string | readonly string[] | undefined;
  /** The calling tool. Absent: not known here, and not compared. */
  readonly tool?: string | undefined;
  /**
   * The arguments of this call, if credentials may name arguments; or their digest, hex. Absent: not known here, and not compared. A
   * service that acts on arguments must pass them; otherwise an approval for one call would be valid for any call.
   */
  readonly arguments?: unknown;
  readonly argumentsSha256?: string | undefined;
  /**
   * SHA-256 of the client certificate of the TLS session, hex; never taken from a header. Absent: only credentials that are bound to no key
   * are accepted.
   */
  readonly certificateSha256?: string | undefined;
}

/** A need with its digests computed. */
export interface Needed {
  readonly scopes: readonly string[];
  readonly tool: string;
  readonly argumentsSha256: string;
  readonly certificateSha256: string;
}

/** The issuer and the audience that a token must have. */
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
  // DPoP proofs are not verified here: a credential that is bound to a DPoP key is refused.
  const named = x5t !== undefined && jkt === undefined ? base64url(x5t) : undefined;
  return named !== undefined && named.length === 32 && certificate !== '' && same(certificate, named);
}

/** Checks the claims without regard to revocations. */
function fits(claims: Claims, expect: Expect, now: number, limits: Limits, certificate: string): void {
  if (claims.version > OWN_VERSION) throw new Refused('newer_version', `claims of version ${claims.version} are newer than this verifier`);
  if (claims.issuer !== expect.issuer) throw new Refused('issuer', 'iss is not the expected issuer');
  if (claims.audience !== expect.audience) throw new Refused('audience', 'aud is not this service');
  const life = claims.expires - claims.issued;
  // A rule on the signing key is the only one that a stolen key cannot evade, and it may arrive late. This bounds the lifetime of tokens
  // until then.
  if (life <= 0 || life * 1000 > limits.maxTtl) throw new Refused('life', 'its life is not one that the issuer gives');
  // Clock skew is allowed for the start of the lifetime, and never for its end.
  if (now >= claims.expires * 1000) throw new Refused('expired', 'it has expired');
  if (Math.max(claims.notBefore, claims.issued) * 1000 > now + limits.skew) throw new Refused('not_yet', 'it is not good yet');
  if (claims.tasks.length > MOST || claims.ancestors.length > MOST || claims.actors.length > MOST || claims.restsOn.length > GROUNDS) {
    throw new Refused('claims', 'claims: more tasks, ancestors, actors or grounds than there can be');
  }
  if (!possessed(claims, certificate)) throw new Refused('possession', 'it is bound to a key that was not proven');
}

/** Checks whether a valid credential is valid for this use. */
function serves(claims: Claims, need: Needed): void {
  for (const scope of need.scopes) if (!claims.scopes.includes(scope)) throw new Refused('scope', `it lacks the scope ${scope}`);
  if (need.tool !== '' && claims.tool !== '' && claims.tool !== need.tool) throw new Refused('tool', `it was issued for the tool ${claims.tool}`);
  const named = claims.argumentsSha256;
  // In constant time: a caller must not be able to find the digest of approved arguments byte by byte.
  if (named !== '' && need.argumentsSha256 !== '' && !same(need.argumentsSha256, Buffer.from(named, 'hex'))) {
    throw new Refused('arguments', 'it was issued for other arguments');
  }
}

/** A token whose signature was verified, with the hashes of all targets that apply to it. */
export interface Known {
  readonly verified: Verified;
  readonly kid: string;
  readonly asked: Asked;
}

/** Created after the signature was verified. */
export const known = (claims: Claims, kid: string): Known => ({ verified: new Verified(claims), kid, asked: asked(claims, kid) });

/** What one relying service knows: the keys, the revocations, and how fresh they are. */
export class Checker {
  readonly #expect: Expect;
  readonly #follower: Follower;
  #keys: Keys = new Map();
  /** The received parts of a snapshot that is still incomplete. */
  #parts = new Building();
  /** The tokens whose signatures were verified with these keys. */
  #seen = new Seen<Known>();

  /** Creates a checker, which knows nothing at first and refuses everything. */
  constructor(expect: Expect, limits: Limits = LIMITS) {
    this.#expect = expect;
    this.#follower = new Follower(limits);
  }

  /** Everything up to this sequence number was applied. */
  get applied(): number {
    return this.#follower.applied;
  }

  /** Begins a stream of the feed. Returns where it continues; `undefined`: with a snapshot. */
  beginStream(): number | undefined {
    this.#parts = new Building();
    return this.#follower.resumesAfter;
  }

  /** What was seen of the ledger, sent at the start of a stream: the server compares it with its own ledger. */
  get seen(): SeenHead | undefined {
    return this.#follower.seen;
  }

  /** Why the server is no longer trusted, if its ledger went back behind what was seen. */
  get rolledBack(): string | undefined {
    return this.#follower.rolledBack;
  }

  /** Notes that the server's ledger went back behind what was seen. */
  distrust(why: string): void {
    this.#follower.distrust(why);
  }

  /**
   * The feed continues with a snapshot. Until the snapshot is complete, decisions use the present knowledge as long as it is fresh enough.
   */
  resync(): void {
    this.#follower.resync();
  }

  /** A feed message was not understood: everything is refused until a snapshot came. */
  needsSnapshot(): void {
    this.#follower.needsSnapshot();
  }

  /** Whether the revocations are known and fresh enough. */
  fresh(now: Moment): boolean {
    return this.#follower.fresh(now);
  }

  /** Replaces the issuer's keys. */
  setKeys(keys: Keys): void {
    this.#keys = keys;
    this.#seen = new Seen();
  }

  /** Whether a token names an unknown key: one that began to sign after the keys were read. */
  lacksKeyOf(token: string): boolean {
    try {
      return !this.#keys.has(split(token).kid);
    } catch {
      return false;
    }
  }

  /**
   * Applies a message of the feed.
   *
   * @throws NotRead - it is not understood
   */
  take(message: WatchRevocationsResponse, now: Moment): Taken {
    const read = readMessage(message);
    if ('beat' in read) return this.#follower.heartbeat(read.beat, now);
    if ('event' in read) return this.#follower.apply(read.previous, read.event);
    // Each part is added when it arrives, so that the event loop is never blocked by all of them at once.
    this.#parts.add(read.part);
    if (!read.last) return 'taken';
    const whole = this.#parts;
    this.#parts = new Building();
    return this.#follower.begin(whole);
  }

  /**
   * Checks a credential for one use: the rules on its key first, then signature and claims, then the other rules, then the need.
   *
   * @param now - called after the signature check, because that takes a while and something may be revoked meanwhile
   * @throws Refused
   */
  async check(token: string, need: Needed, now: () => Moment): Promise<Verified> {
    return this.again(token, need, now) ?? this.first(token, need, now);
  }

  /**
   * Checks a token that was presented before and whose signature was verified; `undefined` for any other token.
   *
   * @throws Refused
   */
  again(token: string, need: Needed, now: () => Moment): Verified | undefined {
    const one = token.length > TOKEN_BYTES ? undefined : this.#seen.get(token);
    if (one) this.stands(one, need, now());
    return one?.verified;
  }

  /**
   * Checks a token that was not presented before, and remembers that its signature is valid.
   *
   * @throws Refused
   */
  async first(token: string, need: Needed, now: () => Moment): Promise<Verified> {
    const [keys, seen] = [this.#keys, this.#seen];
    const parts = split(token);
    this.#refuseRevoked(parts.kid);
    const one = known(readClaims(await authentic(token, parts, keys)), parts.kid);
    // The token is stored with the keys that verified it. If the keys were replaced meanwhile, this entry is not used any more.
    seen.put(token, one);
    this.#refuseRevoked(parts.kid);
    this.stands(one, need, now());
    return one.verified;
  }

  /**
   * Checks everything that may have changed since the signature was verified.
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
