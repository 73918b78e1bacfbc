/**
 * The errors of this package as types. Each says what was refused, by which rule, and who can change that; none contains a token.
 *
 * @module
 */
import { status as Code, type Metadata, type ServiceError } from '@grpc/grpc-js';
import { fromBinary } from '@bufbuild/protobuf';
import { anyUnpack, type Duration } from '@bufbuild/protobuf/wkt';
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema, StatusSchema } from './gen/google/rpc/status_pb.js';
import type { Problem } from './gen/mayfly/v1/types_pb.js';

/** One field of the request that was wrong. */
export interface FieldViolation {
  /** Its path in the request, like `open_task.upstreams`. */
  readonly field: string;
  /** What was wrong, and what would be right. */
  readonly description: string;
}

/** The details of an error besides its message. */
export interface ErrorDetails {
  /** The gRPC status code, 1 to 16. */
  readonly code: number;
  /**
   * One of mayfly's fixed list of reasons, like `DENIED_BY_POLICY`. Empty for a fault, and for errors that occurred before the server was
   * reached.
   */
  readonly reason: string;
  /** The rule that refused: a sequence number, the id of a policy, the name of a limit. May be empty. */
  readonly rule: string;
  /** Who can change that, and the command to ask for it. May be empty. */
  readonly wayOut: string;
  /** The pending approval. May be empty. */
  readonly approvalId: string;
  /** The fields that were wrong. */
  readonly fieldViolations: readonly FieldViolation[];
  /** When a retry may help, in milliseconds from now. Absent if the server does not say. */
  readonly retryAfter?: number;
  /** Of several credentials asked for at once, the upstream of the one that was refused. Empty otherwise. */
  readonly upstream: string;
}

/** The base class of all errors that this package throws on purpose, except `TypeError` for wrong calls. */
export class MayflyError extends Error implements ErrorDetails {
  override readonly name: string = 'MayflyError';
  readonly code: number;
  readonly reason: string;
  readonly rule: string;
  readonly wayOut: string;
  readonly approvalId: string;
  readonly fieldViolations: readonly FieldViolation[];
  declare readonly retryAfter?: number;
  readonly upstream: string;

  constructor(message: string, details: Partial<ErrorDetails> = {}, options?: ErrorOptions) {
    super(message, options);
    this.code = details.code ?? Code.UNKNOWN;
    this.reason = details.reason ?? '';
    this.rule = details.rule ?? '';
    this.wayOut = details.wayOut ?? '';
    this.approvalId = details.approvalId ?? '';
    this.fieldViolations = details.fieldViolations ?? [];
    this.upstream = details.upstream ?? '';
    if (details.retryAfter !== undefined) this.retryAfter = details.retryAfter;
  }
}

/**
 * Policy, a lock, a revocation, the task or the registration refuses it (PERMISSION_DENIED). Asking again changes nothing.
 */
export class Denied extends MayflyError {
  override readonly name = 'Denied';
}

/**
 * An approval is needed first: send the same request again once {@link MayflyError.approvalId} is decided, or wait for it.
 */
export class ApprovalNeeded extends MayflyError {
  override readonly name = 'ApprovalNeeded';
}

/** The request is malformed (INVALID_ARGUMENT): {@link MayflyError.fieldViolations} names the fields. */
export class InvalidRequest extends MayflyError {
  override readonly name = 'InvalidRequest';
}

/** No such task, credential or upstream, as far as this caller may know (NOT_FOUND). */
export class NotFound extends MayflyError {
  override readonly name = 'NotFound';
}

/** The task, credential or upstream has ended, is on hold, or has no lifetime left (FAILED_PRECONDITION). */
export class NotActive extends MayflyError {
  override readonly name = 'NotActive';
}

/** The server does not accept the SVID of this workload (UNAUTHENTICATED). */
export class NotAuthenticated extends MayflyError {
  override readonly name = 'NotAuthenticated';
}

/**
 * The answering side is not the server: it has another SPIFFE ID, or a certificate that the bundle of its trust domain does not verify.
 * Nothing was sent.
 */
export class ServerCertificateError extends MayflyError {
  override readonly name = 'ServerCertificateError';
}

/** A limit was reached (RESOURCE_EXHAUSTED), and retrying for as long as there was time did not help. */
export class LimitReached extends MayflyError {
  override readonly name = 'LimitReached';
}

/** The server was not reached, or not in time. Nothing was refused; the request may have been carried out. */
export class Unavailable extends MayflyError {
  override readonly name = 'Unavailable';
}

/** The client was closed. */
export class Closed extends MayflyError {
  override readonly name = 'Closed';

  constructor() {
    super('this client was closed', { code: Code.CANCELLED });
  }
}

const OF_CODE: Partial<Record<number, typeof MayflyError>> = {
  [Code.PERMISSION_DENIED]: Denied,
  [Code.INVALID_ARGUMENT]: InvalidRequest,
  [Code.NOT_FOUND]: NotFound,
  [Code.FAILED_PRECONDITION]: NotActive,
  [Code.UNAUTHENTICATED]: NotAuthenticated,
  [Code.RESOURCE_EXHAUSTED]: LimitReached,
  [Code.UNAVAILABLE]: Unavailable,
  [Code.DEADLINE_EXCEEDED]: Unavailable,
  [Code.ABORTED]: Unavailable,
};

/** What the server calls an exchange of a batch. */
const PLACE = /^exchanges\[(\d{1,3})\]/;

function made(said: string, asSaid: ErrorDetails, upstreams: readonly string[] = []): MayflyError {
  // Names the upstream where the server names the place of its exchange in the batch.
  const place = [said, ...asSaid.fieldViolations.map(({ field }) => field)].map((text) => PLACE.exec(text)).find((found) => found !== null);
  const upstream = upstreams[Number(place?.[1])] ?? '';
  const named = (text: string) => (place && upstream !== '' && text.startsWith(place[0]) ? upstream + text.slice(place[0].length) : text);
  const message = named(said);
  const details = { ...asSaid, upstream, fieldViolations: asSaid.fieldViolations.map((one) => ({ ...one, field: named(one.field) })) };
  const Sort = details.reason === 'APPROVAL_NEEDED' ? ApprovalNeeded : (OF_CODE[details.code] ?? MayflyError);
  const way = details.wayOut === '' ? '' : ` (${details.wayOut})`;
  return new Sort(`${details.reason === '' ? '' : `${details.reason}: `}${message}${way}`, details);
}

const milliseconds = (duration: Duration): number => Number(duration.seconds) * 1000 + duration.nanos / 1e6;

/** An error from one item of a stream or batch. */
export function fromProblem(problem: Problem): MayflyError {
  const { code, reason, rule, wayOut, approvalId, retryAfter } = problem;
  const fieldViolations = problem.fieldViolations.map(({ field, description }) => ({ field, description }));
  const details: ErrorDetails = { code, reason, rule, wayOut, approvalId, fieldViolations, upstream: '' };
  return made(problem.message, retryAfter ? { ...details, retryAfter: milliseconds(retryAfter) } : details);
}

/**
 * An error from what grpc-js rejects with; its details are in the trailer `grpc-status-details-bin`.
 *
 * @param upstreams - for a batch, the upstreams of its exchanges
 */
export function fromServiceError(error: ServiceError, upstreams: readonly string[] = []): MayflyError {
  const details: { -readonly [K in keyof ErrorDetails]: ErrorDetails[K] } = {
    code: error.code, reason: '', rule: '', wayOut: '', approvalId: '', fieldViolations: [], upstream: '',
  };
  for (const any of detailsOf(error.metadata)) {
    const info = anyUnpack(any, ErrorInfoSchema);
    if (info?.domain === 'mayfly.dev') {
      details.reason = info.reason;
      details.rule = info.metadata['rule'] ?? '';
      details.wayOut = info.metadata['way_out'] ?? '';
      details.approvalId = info.metadata['approval_id'] ?? '';
    }
    const retry = anyUnpack(any, RetryInfoSchema)?.retryDelay;
    if (retry) details.retryAfter = milliseconds(retry);
    const bad = anyUnpack(any, BadRequestSchema);
    if (bad) details.fieldViolations = bad.fieldViolations.map(({ field, description }) => ({ field, description }));
  }
  return made(error.details || error.message, details, upstreams);
}

function detailsOf(metadata: Metadata | undefined) {
  const packed = metadata?.get('grpc-status-details-bin')[0];
  if (!Buffer.isBuffer(packed)) return [];
  try {
    return fromBinary(StatusSchema, packed).details;
  } catch {
    return []; // The code and message say enough.
  }
}
