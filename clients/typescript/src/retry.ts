/**
 * Trying again, where that is safe: never after a refusal, always with the same `request_id`, and only while there is time.
 *
 * @module
 */
import { status as Code } from '@grpc/grpc-js';
import { setTimeout as sleep } from 'node:timers/promises';
import { MayflyError } from './errors.js';

/** First wait and longest wait, milliseconds; each is drawn anew between nothing and its bound (full jitter), which doubles. */
const WAIT_MS = [50, 2_000] as const;

/** When a call has to be over, by a clock that never steps. */
export class Deadline {
  readonly #end: number;

  /** @param ms - how long from now */
  constructor(ms: number) {
    this.#end = performance.now() + ms;
  }

  /** What is left, milliseconds; 0 when it has passed. */
  get left(): number {
    return Math.max(0, this.#end - performance.now());
  }

  /** The same for grpc-js, by the wall clock; not later than `ms` from now. */
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
 * Runs `attempt` until it answers, is refused, or there is no time left for another one.
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
