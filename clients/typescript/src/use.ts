/**
 * Reports of use: folded, sent in batches beside the work, and at the end.
 *
 * @module
 */
import { create } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import type { Connection } from './connection.js';
import type { Outcome } from './credential.js';
import { MayflyError } from './errors.js';
import { AuditService, ReportUseRequestSchema, UseOutcome, type UseProblem } from './gen/mayfly/v1/audit_service_pb.js';
import { Deadline } from './retry.js';

/** How long reports wait for more, milliseconds. */
const FLUSH_MS = 2_000;
/** Longest wait before a server that did not take them is told again, milliseconds; it doubles up to here. */
const PAUSE_MS = 30_000;
/** Most that wait, each for uses alike: as many as one call takes. What comes beyond is counted and dropped, never waited for. */
const MOST = 1_000;
/** How long one call may take, making the connection too, milliseconds. */
const CALL_MS = 10_000;
/** How long ago a use may have been that the server takes, milliseconds. */
const OLDEST_MS = 3_600_000;

interface Waiting {
  readonly credentialId: string;
  readonly tool: string;
  readonly outcome: UseOutcome;
  at: number;
  count: number;
}

function outcomeOf(outcome: Outcome): UseOutcome {
  if (outcome === 'accepted') return UseOutcome.ACCEPTED;
  if (outcome === 'refused' || outcome === 401 || outcome === 403) return UseOutcome.REFUSED;
  if (outcome === 'failed') return UseOutcome.FAILED;
  if (!Number.isInteger(outcome)) throw new TypeError(`outcome ${String(outcome)}: expected an HTTP status, accepted, refused or failed`);
  return outcome >= 400 ? UseOutcome.FAILED : UseOutcome.ACCEPTED;
}

/** Collects uses and reports them. */
export class UseReports {
  readonly #connection: Connection;
  readonly #failed: (error: unknown) => void;
  readonly #waiting = new Map<string, Waiting>();
  #timer: NodeJS.Timeout | undefined;
  #sending: Promise<void> = Promise.resolve();
  #pause = FLUSH_MS;
  #dropped = 0;

  /** @param failed - told of what could not be reported */
  constructor(connection: Connection, failed: (error: unknown) => void) {
    this.#connection = connection;
    this.#failed = failed;
  }

  /** Uses that were never reported: there was no room, or nobody knows whether mayfly took them. */
  get dropped(): number {
    return this.#dropped;
  }

  /** Notes one use. */
  note(credentialId: string, tool: string, outcome: Outcome): void {
    this.#put({ credentialId, tool, outcome: outcomeOf(outcome), at: Date.now(), count: 1 });
    // A full report goes at once, but not to a server that is away.
    if (this.#waiting.size >= MOST / 2 && this.#pause === FLUSH_MS) void this.flush();
    else this.#later();
  }

  /** Sends what there is. Resolves when that was tried. */
  flush(ms: number = CALL_MS): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#sending = this.#sending.then(() => this.#send(ms));
    return this.#sending;
  }

  #put(use: Waiting): void {
    const key = `${use.credentialId} ${use.outcome} ${use.tool}`;
    const known = this.#waiting.get(key);
    if (known) {
      known.count += use.count;
      known.at = Math.max(known.at, use.at);
    } else if (this.#waiting.size < MOST) this.#waiting.set(key, use);
    else this.#dropped += use.count;
  }

  #later(): void {
    this.#timer ??= setTimeout(() => void this.flush(), this.#pause);
    this.#timer.unref();
  }

  async #send(ms: number): Promise<void> {
    const batch = [...this.#waiting.values()].filter((use) => use.at > Date.now() - OLDEST_MS);
    this.#waiting.clear();
    if (batch.length === 0) return;
    const uses = batch.map(({ at, ...use }) => ({ ...use, at: timestampFromMs(at) }));
    let sent = false;
    try {
      const deadline = new Deadline(ms);
      await this.#connection.ready(deadline);
      sent = true;
      // Once: what was reported twice would look like a use that there was not.
      const { problems } = await this.#connection.once(AuditService.method.reportUse, create(ReportUseRequestSchema, { uses }), { deadline });
      this.#pause = FLUSH_MS;
      this.#again(problems, batch);
    } catch (error) {
      const uncounted = !sent || (error instanceof MayflyError && error.reason !== '');
      for (const use of batch) {
        // They are folded with what came meanwhile, and go with the next.
        if (uncounted) this.#put(use);
        else this.#dropped += use.count;
      }
      this.#pause = Math.min(this.#pause * 2, PAUSE_MS);
      if (this.#waiting.size > 0) this.#later();
      this.#failed(error);
    }
  }

  #again(problems: readonly UseProblem[], batch: readonly Waiting[]): void {
    for (const { index, problem } of problems) {
      const use = batch[index];
      if (use && problem?.reason === 'LIMIT_REACHED') {
        this.#put(use);
        this.#later();
      }
    }
  }
}
