/**
 * Retries, where they are safe: never after a refusal, always with the same `request_id`, and only while there is time.
 *
 * @module
 */
import { status as Code } from '@grpc/grpc-js';
import { setTimeout as sleep } from 'node:timers/promises';
import { MayflyError } from './errors.js';

/**
 * The first and the longest wait in milliseconds. Each wait is random between zero and a bound that doubles (full jitter).
 */
const WAIT_MS = [50, 2_000] as const;

/** The end of a call by a clock that never steps. */
export class Deadline {
  readonly #end: number;

  /** @param ms - how long from now */
  constructor(ms: number) {
    this.#end = performance.now() + ms;
  }

  /** The remaining time in milliseconds; 0 when the deadline has passed. */
  get left(): number {
    return Math.max(0, this.#end - performance.now());
  }

  /** The deadline for grpc-js, by the wall clock; at most `ms` from now. */
  atMost(ms: number): Date {
    return new Date(Date.now() + Math.min(ms, this.left));
  }
}

/** Whether the same request may simply be sent again. */
export function isRetryable(error: unknown): error is MayflyError {
  if (!(error instanceof MayflyError)) return false;
  switch (error.code) {
    case Code.UNAVAILABLE:
    case Code.DEADLINE_EXCEEDED:
    case Code.ABORTED:
      return true;
    case Code.RESOURCE_EXHAUSTED:
      return error.retryAfter !== undefined;
    default:
      return false;
  }
}

/**
 * Runs `attempt` until it succeeds, is refused, or no time is left for another attempt.
 *
 * @throws what the last attempt threw
 */
export async function retrying<T>(attempt: (tries: number) => Promise<T>, deadline: Deadline, signal?: AbortSignal): Promise<T> {
  for (let tries = 0, bound: number = WAIT_MS[0]; ; tries++, bound = Math.min(bound * 2, WAIT_MS[1])) {
    try {
      return await attempt(tries);
    } catch (error) {
      if (!isRetryable(error)) throw error;
      const wait = (error.retryAfter ?? 0) + Math.random() * bound;
      if (wait >= deadline.left) throw error;
      await sleep(wait, undefined, signal ? { signal } : {});
    }
  }
}
