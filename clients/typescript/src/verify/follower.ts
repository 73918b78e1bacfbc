/**
 * One who checks credentials and follows revocations. No IO and no clock: messages and moments come in as values.
 *
 * It accepts only while it knows that it knows everything: snapshot complete, no gap, proof of freshness younger than the feed's maximum age.
 * A head below one that it has seen in the same generation, or another history up to it, ends its trust until the server begins a new generation:
 * such a server runs on an older copy of its ledger, and what was revoked since that copy is unknown to it.
 * Time is the later of its own clock and what the feed proves, so a clock that is set back revives nothing; rules are dropped by the feed's time
 * alone, so a clock that is set forward drops nothing.
 *
 * @module
 */
import type { Claims } from './claims.js';
import type { Beat, ChainHead, FeedEvent, Snapshot } from './feed.js';
import { Refused } from './refused.js';
import { ALWAYS, Marks, numberOf, numberOfTask, type Asked } from './marks.js';
import { Rules } from './rules.js';
import type { Target } from './target.js';

/** Ended rules that are dropped per heartbeat. */
const DROP_PER_HEARTBEAT = 4_096;
const COUNT = 2 ** 45;

/** The generation that a seq belongs to: its 8 bits above 45 of count. */
export const generationOf = (seq: number): number => Math.floor(seq / COUNT);

/** A moment by a clock that may step and by one that never does, milliseconds. */
export interface Moment {
  readonly wall: number;
  readonly steady: number;
}

/** Bounds that the server has too, milliseconds. */
export interface Limits {
  /** The longest life of a credential. */
  readonly maxTtl: number;
  /** How far clocks may differ. */
  readonly skew: number;
  /** How long a heartbeat is good for at most. */
  readonly feedMaxAge: number;
}

/** Those of mayfly. */
export const LIMITS: Limits = { maxTtl: 3_600_000, skew: 30_000, feedMaxAge: 30_000 };

/** How a message was taken. But for `old`, what is not taken makes the follower refuse everything until a snapshot came. */
export type Taken = 'taken' | 'gap' | 'old' | 'no_snapshot';

function markOf(marks: Marks, target: Target, seq: number): void {
  marks.mark(numberOf(target), target.sort === 'signing-key' ? ALWAYS : seq);
}

/** A snapshot of which parts may be missing yet. What the follower decides by stays as it is until the snapshot is whole. */
export class Building {
  seq = 0;
  readonly rules = new Rules();
  readonly held = new Set<string>();
  readonly marks = new Marks();

  /** Takes one part. */
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
  /** Of the rules and holds. */
  #marks = new Marks();
  #applied = 0;
  #whole = false;
  /** The next stream begins with a snapshot: the feed no longer has what was missed. */
  #mustBegin = false;
  #seen: SeenHead | undefined;
  #rolledBack: string | undefined;
  /** The newest proof, and the moment that it came. */
  #proof: { beat: Beat; came: Moment } | undefined;
  /** The proof that puts time furthest ahead, one that came without delay. */
  #ahead: { freshAt: number; steady: number; generation: number } | undefined;

  constructor(readonly limits: Limits) {}

  /** Everything up to here was applied, or is known not to be there. */
  get applied(): number {
    return this.#applied;
  }

  /** It has a snapshot and missed nothing since. */
  get whole(): boolean {
    return this.#whole;
  }

  /** Where a stream may go on; `undefined` where it has to begin with a snapshot. */
  get resumesAfter(): number | undefined {
    return this.#whole && !this.#mustBegin ? this.#applied : undefined;
  }

  /** The newest head that was seen, and what came with it: the server compares it with its own ledger. */
  get seen(): SeenHead | undefined {
    return this.#seen;
  }

  /** Why the server is not believed any more, where it went back behind what was seen. Only a new generation ends that. */
  get rolledBack(): string | undefined {
    return this.#rolledBack;
  }

  /** The server went back behind what was seen: nothing is accepted until it begins a new generation. */
  distrust(why: string): void {
    this.#rolledBack ??= why;
  }

  /** What is known is not all there is: it refuses everything until a snapshot came that knows no less than was applied. */
  needsSnapshot(): void {
    this.#whole = false;
  }

  /**
   * The feed no longer has what was missed: the next stream begins with a snapshot. Until that is whole the follower decides by what it knows, for
   * as long as its last proof of freshness is young enough: no restart of a server shows where credentials are checked.
   */
  resync(): void {
    this.#mustBegin = true;
  }

  /** Begins with a snapshot, all parts of it. */
  begin(snapshot: Snapshot | Building): Taken {
    const whole = snapshot instanceof Building ? snapshot : new Building().add(snapshot);
    // The next stream says what was seen before, so that the server judges it.
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

  /** Takes the next event. `previous` is the seq of the event before it: one that was not applied is a gap. */
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

  /** Takes a heartbeat: nothing is missing up to its head, and that was so at `freshAt`. */
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

  /** Now: the wall clock, but never earlier than what the feed proves. */
  time(now: Moment): number {
    return Math.max(now.wall, this.#proven(now) ?? 0);
  }

  /** Whether a signing key was revoked: asked before anything that it signed is believed. */
  revokesKey(kid: string): boolean {
    return this.#rules.revokesKey(kid);
  }

  /** It is whole, and its last proof of freshness is young enough. */
  fresh(now: Moment): boolean {
    return this.#unsure(now) === undefined;
  }

  /** Whether a rule or hold may speak against a credential, its key's rules among them. `false` is certain; else {@link check} says whether. */
  touches(asked: Asked, revision: number): boolean {
    return this.#marks.touch(asked, revision);
  }

  /**
   * Whether a credential with these claims may be accepted now. Signature, audience and possession are checked elsewhere; the revision is the
   * token's own word, and counts only because the signing key's rules come first.
   *
   * @throws Refused
   */
  check(claims: Claims, kid: string, now: Moment): void {
    this.lives(claims, now);
    const hit = this.#rules.covers(claims, kid);
    // A key that signed what this one rests on is a rule like others: its own key is the one that is named first.
    const own = hit?.target.sort === 'signing-key' && hit.target.a === kid;
    if (hit) throw new Refused(own ? 'key_revoked' : 'revoked', `a rule on its ${hit.target.sort} revoked it at seq ${hit.seq}`);
    for (const { id } of claims.tasks) if (this.#held.has(id)) throw new Refused('held', `${id} is held`);
  }

  /**
   * What {@link check} comes to for a credential that nothing {@link touches}: the follower knows everything, and the credential lives.
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

  /** So many rules or holds are no longer in force. Their marks stay until they are too many: what is marked is asked about by name. */
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

  /** What stands before what was applied is not taken. In the same generation it says that the server went back. */
  #old(found: number): Taken {
    if (generationOf(found) === generationOf(this.#applied) && found < this.#applied) {
      this.distrust(`the head of its feed is ${found}, and ${this.#applied} was seen before`);
    }
    return 'old';
  }

  #trusts(found: number): boolean {
    return this.#rolledBack === undefined || generationOf(found) > generationOf(this.#applied);
  }

  /** A chain that ends before its end of then, or otherwise at the same commit, is another history. */
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
    // A proof that came late, to one whose clock is behind: earlier proofs tell by how much, up to the skew of who made them.
    const late = (this.#proven(now) ?? 0) - beat.freshAt - this.limits.skew;
    if (Math.max(age, late) <= Math.min(beat.maxAge, this.limits.feedMaxAge)) return undefined;
    return new Refused('stale', `the revocations are known up to ${new Date(beat.freshAt).toISOString()} only`);
  }

  #proven(now: Moment): number | undefined {
    return this.#ahead && this.#ahead.freshAt + Math.max(0, now.steady - this.#ahead.steady);
  }

  /**
   * Only a new generation's own proof makes it fresh. It began by revoking whatever was issued before it, so it may be believed where the one
   * before was not.
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
