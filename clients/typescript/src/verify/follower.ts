/**
 * Follows revocations and decides on credentials. No IO and no clock: messages and times are passed in as values.
 *
 * The follower accepts credentials only while its knowledge is complete: it has a whole snapshot, no gap, and a proof of freshness younger
 * than the feed's maximum age.
 *
 * If it sees a head below one that it has seen in the same generation, or another history up to it, it trusts the server no longer until a
 * new generation begins: such a server runs on an older copy of its ledger and does not know what was revoked since that copy.
 *
 * The time is the later of its own clock and what the feed proves, so setting the clock back revives nothing. Rules are dropped only by the
 * feed's time, so setting the clock forward drops nothing.
 *
 * @module
 */
import type { Claims } from './claims.js';
import type { Beat, ChainHead, FeedEvent, Snapshot } from './feed.js';
import { Refused } from './refused.js';
import { ALWAYS, Marks, numberOf, numberOfTask, type Asked } from './marks.js';
import { Rules } from './rules.js';
import type { Target } from './target.js';

/** The most expired rules that are dropped per heartbeat. */
const DROP_PER_HEARTBEAT = 4_096;
const COUNT = 2 ** 45;

/** The generation that a sequence number belongs to: the 8 bits above its 45-bit count. */
export const generationOf = (seq: number): number => Math.floor(seq / COUNT);

/** A moment by a clock that may step and by one that never does, in milliseconds. */
export interface Moment {
  readonly wall: number;
  readonly steady: number;
}

/** Limits that the server has too, in milliseconds. */
export interface Limits {
  /** The longest lifetime of a credential. */
  readonly maxTtl: number;
  /** How far clocks may differ. */
  readonly skew: number;
  /** The longest validity of a heartbeat. */
  readonly feedMaxAge: number;
}

/** The limits of mayfly. */
export const LIMITS: Limits = { maxTtl: 3_600_000, skew: 30_000, feedMaxAge: 30_000 };

/**
 * The outcome of a message. After any outcome but `taken` and `old`, the follower refuses everything until a snapshot came.
 */
export type Taken = 'taken' | 'gap' | 'old' | 'no_snapshot';

function markOf(marks: Marks, target: Target, seq: number): void {
  marks.mark(numberOf(target), target.sort === 'signing-key' ? ALWAYS : seq);
}

/**
 * A snapshot that may still lack parts. The follower keeps deciding by its present state until the snapshot is complete.
 */
export class Building {
  seq = 0;
  readonly rules = new Rules();
  readonly held = new Set<string>();
  readonly marks = new Marks();

  /** Adds one part. */
  add(part: Snapshot): this {
    this.seq = part.seq;
    for (const { target, seq, until } of part.rules) {
      this.rules.add(target, seq, until);
      markOf(this.marks, target, seq);
    }
    for (const hold of part.holds) {
      this.held.add(hold);
      this.marks.mark(numberOfTask(hold), ALWAYS);
    }
    return this;
  }
}

/** What was seen of the ledger: a head, and the ends of the chains of commits that came with it. */
export interface SeenHead {
  readonly head: number;
  readonly heads: readonly ChainHead[];
}

/** What one follower knows. */
export class Follower {
  #rules = new Rules();
  #held = new Set<string>();
  /** The Bloom filter of the rules and holds. */
  #marks = new Marks();
  #applied = 0;
  #whole = false;
  /** The next stream begins with a snapshot, because the feed no longer has the missed events. */
  #mustBegin = false;
  #seen: SeenHead | undefined;
  #rolledBack: string | undefined;
  /** The newest proof, and the moment when it came. */
  #proof: { beat: Beat; came: Moment } | undefined;
  /** The proof that puts the time furthest ahead: one that came without delay. */
  #ahead: { freshAt: number; steady: number; generation: number } | undefined;

  constructor(readonly limits: Limits) {}

  /** Everything up to this sequence number was applied, or is known not to exist. */
  get applied(): number {
    return this.#applied;
  }

  /** The follower has a snapshot and missed nothing since. */
  get whole(): boolean {
    return this.#whole;
  }

  /** Where a stream may continue; `undefined` if it has to begin with a snapshot. */
  get resumesAfter(): number | undefined {
    return this.#whole && !this.#mustBegin ? this.#applied : undefined;
  }

  /** The newest head that was seen, with what came with it: the server compares it with its own ledger. */
  get seen(): SeenHead | undefined {
    return this.#seen;
  }

  /**
   * Why the server is no longer trusted, if its ledger went back behind what was seen. Only a new generation ends that.
   */
  get rolledBack(): string | undefined {
    return this.#rolledBack;
  }

  /**
   * Notes that the server's ledger went back behind what was seen: nothing is accepted until it begins a new generation.
   */
  distrust(why: string): void {
    this.#rolledBack ??= why;
  }

  /**
   * The present knowledge is incomplete: the follower refuses everything until a snapshot came with at least everything applied so far.
   */
  needsSnapshot(): void {
    this.#whole = false;
  }

  /**
   * The feed no longer has the missed events, so the next stream begins with a snapshot. Until that is complete, the follower decides by
   * its present knowledge, as long as its last proof of freshness is young enough: restarting a server has no effect where credentials are
   * checked.
   */
  resync(): void {
    this.#mustBegin = true;
  }

  /** Begins with a complete snapshot. */
  begin(snapshot: Snapshot | Building): Taken {
    const whole = snapshot instanceof Building ? snapshot : new Building().add(snapshot);
    // The next stream says what was seen before, so that the server compares it.
    this.#mustBegin = false;
    if (snapshot.seq < this.#applied) return this.#old(snapshot.seq);
    if (!this.#trusts(snapshot.seq)) return 'old';
    this.#turnTo(snapshot.seq);
    this.#rules = whole.rules;
    this.#held = whole.held;
    this.#marks = whole.marks;
    this.#applied = snapshot.seq;
    this.#whole = true;
    return 'taken';
  }

  /**
   * Applies the next event. `previous` is the sequence number of the event before it; if that was not applied, there is a gap.
   */
  apply(previous: number, event: FeedEvent): Taken {
    const lost = this.#follows(previous);
    if (lost) return lost;
    if (event.seq <= this.#applied || !this.#trusts(event.seq)) return 'old';
    this.#turnTo(event.seq);
    for (const target of event.targets) {
      this.#rules.add(target, event.seq, event.until);
      this.#mark(target, event.seq);
    }
    if (event.hold !== undefined) {
      this.#held.add(event.hold);
      this.#marks.mark(numberOfTask(event.hold), ALWAYS);
    }
    if (event.resume !== undefined && this.#held.delete(event.resume)) this.#ended(1);
    this.#applied = event.seq;
    return 'taken';
  }

  /** Takes a heartbeat: nothing is missing up to its head, as of `freshAt`. */
  heartbeat(beat: Beat, now: Moment): Taken {
    this.#compare(beat);
    const lost = this.#follows(beat.previous);
    if (lost) return lost;
    if (beat.head < this.#applied) return this.#old(beat.head);
    if (!this.#trusts(beat.head)) return 'old';
    this.#applied = beat.head;
    if (beat.heads?.length) this.#seen = { head: beat.head, heads: beat.heads };
    if (this.#ahead && this.#ahead.generation < beat.timeGeneration) this.#ahead = undefined;
    if (!this.#proof || beat.freshAt > this.#proof.beat.freshAt) this.#proof = { beat, came: now };
    const proven = this.#proven(now);
    if (proven === undefined || beat.freshAt > proven) {
      this.#ahead = { freshAt: beat.freshAt, steady: now.steady, generation: generationOf(beat.head) };
    }
    const before = this.#rules.size;
    this.#rules.expire(beat.freshAt, DROP_PER_HEARTBEAT);
    this.#ended(before - this.#rules.size);
    return 'taken';
  }

  /** The present time: the wall clock, but never earlier than what the feed proves. */
  time(now: Moment): number {
    return Math.max(now.wall, this.#proven(now) ?? 0);
  }

  /** Whether a signing key was revoked. It is checked before anything that the key signed is trusted. */
  revokesKey(kid: string): boolean {
    return this.#rules.revokesKey(kid);
  }

  /** Whether the follower's knowledge is complete and its last proof of freshness young enough. */
  fresh(now: Moment): boolean {
    return this.#unsure(now) === undefined;
  }

  /**
   * Whether a rule or hold may apply to a credential, including the rules on its key. `false` is certain; otherwise {@link check} decides.
   */
  touches(asked: Asked, revision: number): boolean {
    return this.#marks.touch(asked, revision);
  }

  /**
   * Whether a credential with these claims may be accepted now. Signature, audience and possession are checked elsewhere. The revision is a
   * claim of the token itself; it counts only because the rules on the signing key are checked first.
   *
   * @throws Refused
   */
  check(claims: Claims, kid: string, now: Moment): void {
    this.lives(claims, now);
    const hit = this.#rules.covers(claims, kid);
    // The key of a ground is checked like any other rule; the credential's own key is named first.
    const own = hit?.target.sort === 'signing-key' && hit.target.a === kid;
    if (hit) throw new Refused(own ? 'key_revoked' : 'revoked', `a rule on its ${hit.target.sort} revoked it at seq ${hit.seq}`);
    for (const { id } of claims.tasks) if (this.#held.has(id)) throw new Refused('held', `${id} is held`);
  }

  /**
   * The part of {@link check} that is left for a credential that nothing {@link touches}: the follower's knowledge is complete, and the
   * credential has not expired.
   *
   * @throws Refused
   */
  lives(claims: Claims, now: Moment): void {
    const unsure = this.#unsure(now);
    if (unsure) throw unsure;
    const [issued, expires] = [claims.issued * 1000, claims.expires * 1000];
    if (expires - issued > this.limits.maxTtl) throw new Refused('life', 'it lives longer than the issuer lets anything live');
    const time = this.time(now);
    if (issued > time + this.limits.skew) throw new Refused('not_yet', 'it is not good yet');
    if (expires <= time) throw new Refused('expired', 'it has expired');
  }

  /**
   * Notes that this many rules or holds are no longer in force. Their bits stay until there are too many; a false positive only costs a
   * check by name.
   */
  #ended(count: number): void {
    if (this.#marks.ended(count)) this.#markAnew();
  }

  #markAnew(): void {
    this.#marks = new Marks();
    for (const { target, revoked } of this.#rules.entries()) this.#mark(target, revoked);
    for (const task of this.#held) this.#marks.mark(numberOfTask(task), ALWAYS);
  }

  #mark(target: Target, seq: number): void {
    markOf(this.#marks, target, seq);
  }

  /**
   * A head behind what was applied is not taken. In the same generation it means that the server's ledger went back.
   */
  #old(found: number): Taken {
    if (generationOf(found) === generationOf(this.#applied) && found < this.#applied) {
      this.distrust(`the head of its feed is ${found}, and ${this.#applied} was seen before`);
    }
    return 'old';
  }

  #trusts(found: number): boolean {
    return this.#rolledBack === undefined || generationOf(found) > generationOf(this.#applied);
  }

  /** A chain that ends before its earlier end, or differently at the same commit, is another history. */
  #compare({ head, heads = [] }: Beat): void {
    if (!this.#seen || generationOf(this.#seen.head) !== generationOf(head)) return;
    for (const { writer, commit, hash } of this.#seen.heads) {
      const now = heads.find((one) => one.writer === writer);
      if (now && (now.commit < commit || (now.commit === commit && now.hash !== hash))) {
        this.distrust(`commit ${commit} of writer ${writer} is not the one that was seen before`);
      }
    }
  }

  #unsure(now: Moment): Refused | undefined {
    if (this.#rolledBack !== undefined) {
      const what = `the server runs on an older copy of its ledger (${this.#rolledBack})`;
      return new Refused('rolled_back', `${what}; nothing is accepted until it begins a new generation (mayfly server recover)`);
    }
    if (!this.#whole) return new Refused('not_whole', 'the revocations are not known yet');
    if (!this.#proof) return new Refused('stale', 'nothing says yet how fresh the revocations are');
    const { beat, came } = this.#proof;
    const age = Math.max(now.wall - beat.freshAt, now.steady - came.steady);
    // The proof came late, to a follower whose clock is behind. Earlier proofs tell by how much, up to the clock skew of their senders.
    const late = (this.#proven(now) ?? 0) - beat.freshAt - this.limits.skew;
    if (Math.max(age, late) <= Math.min(beat.maxAge, this.limits.feedMaxAge)) return undefined;
    return new Refused('stale', `the revocations are known up to ${new Date(beat.freshAt).toISOString()} only`);
  }

  #proven(now: Moment): number | undefined {
    return this.#ahead && this.#ahead.freshAt + Math.max(0, now.steady - this.#ahead.steady);
  }

  /**
   * Only a new generation's own proof makes it fresh. A new generation begins by revoking everything issued before it, so its server may be
   * trusted even if the one before was not.
   */
  #turnTo(seq: number): void {
    if (generationOf(seq) <= generationOf(this.#applied)) return;
    this.#proof = undefined;
    this.#seen = undefined;
    this.#rolledBack = undefined;
  }

  #follows(previous: number): Taken | undefined {
    if (!this.#whole) return 'no_snapshot';
    if (previous <= this.#applied) return undefined;
    this.#whole = false;
    return 'gap';
  }
}
