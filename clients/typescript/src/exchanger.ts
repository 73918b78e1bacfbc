/**
 * Sends exchanges: one by one, or over one stream while many are in progress.
 *
 * @module
 */
import { Metadata, status as Code, type ClientDuplexStream, type ServiceError } from '@grpc/grpc-js';
import { create } from '@bufbuild/protobuf';
import { openDuplex } from './grpc.js';
import type { CallSettings, Connection, Line } from './connection.js';
import { fromProblem, fromServiceError, MayflyError, Unavailable } from './errors.js';
import type { Issued } from './gen/mayfly/v1/issued_pb.js';
import {
  BatchExchangeRequestSchema, StreamExchangeRequestSchema, TokenService, type ExchangeRequest, type StreamExchangeRequest, type StreamExchangeResponse,
} from './gen/mayfly/v1/token_service_pb.js';
import { retrying } from './retry.js';

/**
 * A stream is used from this many exchanges in progress on: it saves the headers of each call and the server's work per call.
 */
const STREAM_FROM = 8;
/**
 * The most exchanges in progress on the stream; the server stops reading at 1,024. Further exchanges are sent as single calls.
 */
const STREAM_MOST = 1_000;
/** How long an idle stream is kept, in milliseconds. */
const STREAM_IDLE_MS = 10_000;

/** When exchanges share a stream. */
export type Streaming = 'auto' | 'always' | 'never';

interface Waiting {
  resolve(issued: Issued): void;
  reject(error: unknown): void;
}

class ExchangeStream {
  readonly #stream: ClientDuplexStream<StreamExchangeRequest, StreamExchangeResponse>;
  readonly #waiting = new Map<string, Waiting>();
  readonly #ended: () => void;
  #idle: NodeJS.Timeout | undefined;
  #open = true;

  constructor(line: Line) {
    const release = line.hold();
    const moved = line.retiring(() => this.#finish());
    this.#ended = () => { moved(); release(); };
    this.#stream = openDuplex(line.client, TokenService.method.streamExchange, new Metadata());
    this.#stream.on('data', (answer: StreamExchangeResponse) => this.#take(answer));
    this.#stream.on('error', (error: ServiceError) => this.#break(fromServiceError(error)));
    this.#stream.on('end', () => this.#break(new Unavailable('the server ended the stream', { code: Code.UNAVAILABLE })));
  }

  get open(): boolean {
    return this.#open;
  }

  get full(): boolean {
    return this.#waiting.size >= STREAM_MOST;
  }

  ask(exchange: ExchangeRequest, ms: number, signal?: AbortSignal): Promise<Issued> {
    clearTimeout(this.#idle);
    const id = exchange.requestId;
    return new Promise<Issued>((resolve, reject) => {
      const over = (error: unknown) => { this.#waiting.delete(id); reject(error); };
      const late = () => over(new Unavailable('no answer in time', { code: Code.DEADLINE_EXCEEDED }));
      const timer = setTimeout(late, ms);
      const gone = () => over(signal?.reason);
      signal?.addEventListener('abort', gone, { once: true });
      const finish = () => { clearTimeout(timer); signal?.removeEventListener('abort', gone); };
      this.#waiting.set(id, {
        resolve: (issued) => { finish(); resolve(issued); },
        reject: (error) => { finish(); reject(error); },
      });
      this.#stream.write(create(StreamExchangeRequestSchema, { ask: { case: 'exchange', value: exchange } }));
    }).finally(() => this.#rest());
  }

  close(): void {
    clearTimeout(this.#idle);
    this.#stream.cancel();
  }

  #take({ requestId, result }: StreamExchangeResponse): void {
    const waiting = this.#waiting.get(requestId);
    this.#waiting.delete(requestId);
    if (result.case === 'issued') waiting?.resolve(result.value);
    else if (result.case === 'problem') waiting?.reject(fromProblem(result.value));
    else waiting?.reject(new Unavailable('the server answered with what is not known here'));
  }

  /** Sends no more requests; those already sent are still answered. */
  #finish(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#stream.end();
  }

  #rest(): void {
    if (this.#waiting.size > 0 || !this.#open) return;
    clearTimeout(this.#idle);
    this.#idle = setTimeout(() => this.#finish(), STREAM_IDLE_MS);
    this.#idle.unref();
  }

  #break(error: Error): void {
    this.#open = false;
    clearTimeout(this.#idle);
    this.#ended();
    const left = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const waiting of left) waiting.reject(error);
  }
}

/** The server did not answer a batch with a credential for each of its exchanges. */
export class Incomplete extends MayflyError {
  /** @param issued - what it answered with */
  constructor(readonly issued: readonly Issued[]) {
    super('the server answered a batch without a credential for each of its exchanges', { code: Code.INTERNAL });
    // The credentials are not for those who print the error.
    Object.defineProperty(this, 'issued', { enumerable: false });
  }
}

/** Chooses between single calls and the stream by the number of exchanges in progress. */
export class Exchanger {
  readonly #connection: Connection;
  readonly #streaming: Streaming;
  #stream: ExchangeStream | undefined;
  #underWay = 0;

  constructor(connection: Connection, streaming: Streaming) {
    this.#connection = connection;
    this.#streaming = streaming;
  }

  /**
   * Exchanges, and retries with the same `request_id`. A retry is always a single call, because the stream may still be working on the
   * first attempt.
   */
  async exchange(request: ExchangeRequest, settings: CallSettings): Promise<Issued> {
    this.#underWay++;
    try {
      return await retrying((tries) => (tries === 0 && this.#streams() ? this.#byStream(request, settings) : this.#alone(request, settings)),
        settings.deadline, settings.signal);
    } finally {
      this.#underWay--;
    }
  }

  /** Exchanges for all or none, in one call, and retries with the same ids. */
  async exchangeAll(exchanges: ExchangeRequest[], settings: CallSettings): Promise<Issued[]> {
    const batch = create(BatchExchangeRequestSchema, { exchanges, allOrNothing: true });
    const upstreams = exchanges.map(({ upstream }) => upstream);
    const { results } = await this.#connection.call(TokenService.method.batchExchange, batch, { ...settings, upstreams });
    const issued = results.flatMap(({ result }) => (result.case === 'issued' ? [result.value] : []));
    if (results.length === exchanges.length && issued.length === exchanges.length) return issued;
    throw new Incomplete(issued);
  }

  close(): void {
    this.#stream?.close();
  }

  #streams(): boolean {
    return this.#streaming === 'always' || (this.#streaming === 'auto' && this.#underWay >= STREAM_FROM);
  }

  async #alone(request: ExchangeRequest, settings: CallSettings): Promise<Issued> {
    const { issued } = await this.#connection.once(TokenService.method.exchange, request, settings);
    if (!issued) throw new Unavailable('the server answered nothing');
    return issued;
  }

  async #byStream(request: ExchangeRequest, settings: CallSettings): Promise<Issued> {
    const line = await this.#connection.line(settings.deadline);
    const began = performance.now();
    if (!this.#stream?.open) this.#stream = new ExchangeStream(line);
    if (this.#stream.full) return this.#alone(request, settings);
    try {
      return await this.#stream.ask(request, Math.min(settings.deadline.left, 5_000 + (settings.waits ?? 0)), settings.signal);
    } catch (error) {
      this.#connection.failed(line, error, performance.now() - began);
      if (!(await this.#connection.outlived(line, error))) throw error;
      return this.#alone(request, settings);
    }
  }
}
