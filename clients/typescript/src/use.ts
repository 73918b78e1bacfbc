/**
 * Use reports: equal uses are combined, sent in batches in the background, and sent once more at the end.
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

/** How long reports wait for more, in milliseconds. */
const FLUSH_MS = 2_000;
/**
 * The longest wait before a server that did not accept the reports is tried again, in milliseconds; the wait doubles up to this value.
 */
const PAUSE_MS = 30_000;
/**
 * The most reports that wait, each for equal uses: as many as one call takes. Further ones are counted and dropped without waiting.
 */
const MOST = 1_000;
/** The limit for one call, including the connection, in milliseconds. */
const CALL_MS = 10_000;
/** How old a use may be for the server to accept it, in milliseconds. */
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

  /** @param failed - receives the errors of reports that could not be sent */
  constructor(connection: Connection, failed: (error: unknown) => void) {
    this.#connection = connection;
    this.#failed = failed;
  }

  /**
   * The number of uses that may never have been reported: there was no room, or it is unknown whether mayfly received them.
   */
  get dropped(): number {
    return this.#dropped;
  }

  /** Notes one use. */
  note(credentialId: string, tool: string, outcome: Outcome): void {
    this.#put({ credentialId, tool, outcome: outcomeOf(outcome), at: Date.now(), count: 1 });
    // A full report is sent at once, but not to a server that is unreachable.
    if (this.#waiting.size >= MOST / 2 && this.#pause === FLUSH_MS) void this.flush();
    else this.#later();
  }

  /** Sends the waiting reports. Resolves when that was tried. */
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
      // Each report is sent only once: a report that is sent twice would look like a use that never happened.
      const { problems } = await this.#connection.once(AuditService.method.reportUse, create(ReportUseRequestSchema, { uses }), { deadline });
      this.#pause = FLUSH_MS;
      this.#again(problems, batch);
    } catch (error) {
      const uncounted = !sent || (error instanceof MayflyError && error.reason !== '');
      for (const use of batch) {
        // The reports are combined with newer uses and sent with the next batch.
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
