/**
 * One credential as it was issued, whoever holds it: what it is, and until when it is good.
 *
 * @module
 */
import type { Timestamp } from '@bufbuild/protobuf/wkt';
import { Instant } from './clock.js';
import type { Issued } from './gen/mayfly/v1/issued_pb.js';

/** Of a credential's life, how much is left unused at least, and how much of it is drawn anew for each (jitter). */
const SPARE = 0.1;
const JITTER = 0.1;

/** A moment of the wire, milliseconds since 1970. */
export const millis = (at: Timestamp | undefined): number => (at ? Number(at.seconds) * 1000 + at.nanos / 1e6 : 0);

/** What was issued, and how much of its life is left by our own clocks. */
export class Issuance {
  readonly issued: Issued;
  /** When its answer was here. */
  readonly arrived = new Instant();
  readonly #began: Instant;
  readonly #life: number;
  readonly #fresh: number;

  /** @param began - when it was asked for: its life counts from there */
  constructor(issued: Issued, began: Instant) {
    this.issued = issued;
    this.#began = began;
    this.#life = Math.max(0, millis(issued.expiresAt) - millis(issued.issuedAt));
    this.#fresh = this.#life * (1 - SPARE - JITTER * Math.random());
  }

  /** What is left of its life, milliseconds; 0 and less when it has ended. */
  get left(): number {
    return this.#life - this.#began.passed;
  }

  /** How long it lives from the decision, milliseconds. */
  get life(): number {
    return this.#life;
  }

  /** Whether it has a life left that can be given back. */
  get live(): boolean {
    return this.left > 0;
  }

  /** Whether it has enough left for the next holder. */
  get fresh(): boolean {
    return this.#began.passed < this.#fresh;
  }
}

/** What some hold together: one credential and those that renewed it. */
export class Holding {
  /** The one of now. */
  current: Issuance;
  /** Those before it, which are good until they end. */
  readonly past: Issuance[] = [];
  /** How many hold it. */
  holders = 0;
  /** The upstream said that it is no longer good. */
  refused = false;
  /** It was given back. */
  over = false;
  /** A renewal that is under way. */
  renewing: Promise<void> | undefined;
  /** Gives it back when nobody came for a while. */
  idle: NodeJS.Timeout | undefined;

  /**
   * @param ownsTask - its task was opened with it, and ends with it
   * @param key - by which others find it; absent: it is for one alone
   * @param tool - what it was asked for
   * @param ttl - the life that was asked for; absent: none in particular
   */
  constructor(
    first: Issuance, readonly ownsTask: boolean, readonly key: string | undefined, readonly tool: string, readonly ttl: number | undefined,
  ) {
    this.current = first;
  }

  /** Whether a new holder can be given it. */
  get fresh(): boolean {
    return !this.refused && !this.over && this.current.fresh;
  }
}
