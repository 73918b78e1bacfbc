/**
 * Time that has passed, by the wall clock and by the monotonic one, whichever says more: the monotonic clock may stand still while the machine is
 * suspended, and the wall clock may be set back. A credential has ended when either says so.
 *
 * @module
 */

/** A moment by both clocks. */
export class Instant {
  /** Milliseconds since 1970. */
  readonly wall = Date.now();
  /** By a clock that never steps, milliseconds. */
  readonly steady = performance.now();

  /** Milliseconds since then. */
  get passed(): number {
    return Math.max(Date.now() - this.wall, performance.now() - this.steady);
  }
}
