/**
 * One issued credential and its remaining lifetime, regardless of who holds it.
 *
 * @module
 */
import type { Timestamp } from '@bufbuild/protobuf/wkt';
import { Instant } from './clock.js';
import type { Issued } from './gen/mayfly/v1/issued_pb.js';

/**
 * The share of a lifetime that is always left as a reserve, and the random share on top of it (jitter) that is drawn for each credential.
 */
const SPARE = 0.1;
const JITTER = 0.1;

/** A timestamp of the wire format in milliseconds since 1970. */
export const millis = (at: Timestamp | undefined): number => (at ? Number(at.seconds) * 1000 + at.nanos / 1e6 : 0);

/** An issued credential, and how much of its lifetime is left by the local clocks. */
export class Issuance {
  readonly issued: Issued;
  /** When the answer arrived. */
  readonly arrived = new Instant();
  readonly #began: Instant;
  readonly #life: number;
  readonly #fresh: number;

  /** @param began - when the credential was asked for; its lifetime counts from there */
  constructor(issued: Issued, began: Instant) {
    this.issued = issued;
    this.#began = began;
    this.#life = Math.max(0, millis(issued.expiresAt) - millis(issued.issuedAt));
    this.#fresh = this.#life * (1 - SPARE - JITTER * Math.random());
  }

  /** The remaining lifetime in milliseconds; 0 or less when it has ended. */
  get left(): number {
    return this.#life - this.#began.passed;
  }

  /** The lifetime counted from the decision, in milliseconds. */
  get life(): number {
    return this.#life;
  }

  /** Whether it has not expired yet, so that releasing it makes sense. */
  get live(): boolean {
    return this.left > 0;
  }

  /** Whether enough of its lifetime is left for a new holder. */
  get fresh(): boolean {
    return this.#began.passed < this.#fresh;
  }
}

/** A credential that several holders share, with the credentials it replaced. */
export class Holding {
  /** The current credential. */
  current: Issuance;
  /** Credentials that were replaced. They stay valid until they expire. */
  readonly past: Issuance[] = [];
  /** The number of holders. */
  holders = 0;
  /** The upstream reported that the credential is no longer valid. */
  refused = false;
  /** The credential was released. */
  over = false;
  /** A renewal in progress. */
  renewing: Promise<void> | undefined;
  /** Releases the credential when no new holder came for a while. */
  idle: NodeJS.Timeout | undefined;

  /**
   * @param ownsTask - the task was opened with the credential and ends with it
   * @param key - the key by which other requests find it; absent: it is not shared
   * @param tool - the tool it was asked for
   * @param ttl - the lifetime that was asked for; absent: none in particular
   */
  constructor(
    first: Issuance, readonly ownsTask: boolean, readonly key: string | undefined, readonly tool: string, readonly ttl: number | undefined,
  ) {
    this.current = first;
  }

  /** Whether it can be given to a new holder. */
  get fresh(): boolean {
    return !this.refused && !this.over && this.current.fresh;
  }
}
