/**
 * Elapsed time by the wall clock or the monotonic clock, whichever shows more. The monotonic clock may stand still while the machine is
 * suspended, and the wall clock may be set back. A credential counts as expired when either clock says so.
 *
 * @module
 */

/** A moment, by both clocks. */
export class Instant {
  /** Milliseconds since 1970. */
  readonly wall = Date.now();
  /** Milliseconds by a clock that never steps. */
  readonly steady = performance.now();

  /** Milliseconds since this moment. */
  get passed(): number {
    return Math.max(Date.now() - this.wall, performance.now() - this.steady);
  }
}
