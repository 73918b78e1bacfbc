/**
 * One credential as it was issued, whoever holds it: what it is, and until when it is good.
 *
 * @module
 */
import type { Timestamp } from '@bufbuild/protobuf/wkt';
import type { Issued } from './gen/mayfly/v1/issued_pb.js';

/** Of a credential's life, how much is left unused at least, and how much of it is drawn anew for each (jitter). */
const SPARE = 0.1;
const JITTER = 0.1;

/** A moment of the wire, milliseconds since 1970. */
export const millis = (at: Timestamp | undefined): number => (at ? Number(at.seconds) * 1000 + at.nanos / 1e6 : 0);

/** What was issued, and when by our own clock that never steps. */
export class Issuance {
  readonly issued: Issued;
  /** Good until then by `performance.now()`: its life counts from when it was asked for, whatever the wall clocks say. */
  readonly goodUntil: number;
  /** From then on the next holder gets another one. */
  readonly freshUntil: number;

  /** @param began - `performance.now()` when it was asked for */
  constructor(issued: Issued, began: number) {
    const life = Math.max(0, millis(issued.expiresAt) - millis(issued.issuedAt));
    this.issued = issued;
    this.goodUntil = began + life;
    this.freshUntil = began + life * (1 - SPARE - JITTER * Math.random());
  }

  /** Whether it has a life left that can be given back. */
  get live(): boolean {
    return performance.now() < this.goodUntil;
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
   */
  constructor(first: Issuance, readonly ownsTask: boolean, readonly key: string | undefined, readonly tool: string) {
    this.current = first;
  }

  /** Whether a new holder can be given it. */
  get fresh(): boolean {
    return !this.refused && !this.over && performance.now() < this.current.freshUntil;
  }
}
