/**
 * The requests in the types of this package, and the wire messages made from them.
 *
 * @module
 */
import { createHash } from 'node:crypto';
import { create, toBinary, type MessageInitShape } from '@bufbuild/protobuf';
import type { Duration } from '@bufbuild/protobuf/wkt';
import { InvalidRequest } from './errors.js';
import { TaskTermsSchema } from './gen/mayfly/v1/task_pb.js';
import { ExchangeRequestSchema, type ExchangeRequest } from './gen/mayfly/v1/token_service_pb.js';
import { CredentialKind, KeyBindingSchema, SubjectTokenType } from './gen/mayfly/v1/types_pb.js';
import type { Secret } from './secret.js';
import { canonicalArguments } from './verify/arguments.js';

/** The kind of a credential. */
export type Kind =
  | 'jwt' | 'reference' | 'x509' | 'ssh' | 'postgres' | 'oauth' | 'aws' | 'github' | 'secret' | 'mysql' | 'redis'
  | 'federation';

const KINDS: Record<Kind, CredentialKind> = {
  jwt: CredentialKind.JWT, reference: CredentialKind.REFERENCE, x509: CredentialKind.X509, ssh: CredentialKind.SSH,
  postgres: CredentialKind.POSTGRES, oauth: CredentialKind.OAUTH, aws: CredentialKind.AWS, github: CredentialKind.GITHUB,
  secret: CredentialKind.SECRET, mysql: CredentialKind.MYSQL, redis: CredentialKind.REDIS,
  federation: CredentialKind.FEDERATION,
};

/** The lifetime of a credential when none is asked for, in seconds (`ExchangeRequest.ttl`). */
export const DEFAULT_TTL = 300;
/**
 * The longest total lifetime, extensions included, of a task that a call opens for itself, in seconds: the most a server allows
 * (`limits.task_ttl`).
 */
const LONGEST_WORK = 86_400;

/** A token that says on whose behalf the workload acts (RFC 8693). */
export interface SubjectToken {
  /** The token as it was received. */
  readonly token: string | Secret;
  /** The type of the token: a JWT-SVID, a token of an OIDC provider, or a mayfly credential. */
  readonly type: 'jwt-svid' | 'oidc' | 'mayfly';
}

const SUBJECTS: Record<SubjectToken['type'], SubjectTokenType> = {
  'jwt-svid': SubjectTokenType.JWT_SVID, oidc: SubjectTokenType.OIDC, mayfly: SubjectTokenType.MAYFLY,
};

/** A request for a credential. */
export interface CredentialAsk {
  /** The scopes, 1 to 8, like `["repo:read"]`, or a single one. Either all of them are granted or none. */
  readonly scope: string | readonly string[];
  /** The tool that the credential is for. Absent: none. */
  readonly tool?: string | undefined;
  /**
   * The arguments, as JSON, of the tool call that the credential is for; it is then valid for that call alone. Absent: any.
   */
  readonly arguments?: Readonly<Record<string, unknown>> | undefined;
  /**
   * What the credential is for, at most 512 bytes. People read it in approvals and in the audit. Required when there is no task.
   */
  readonly purpose?: string | undefined;
  /**
   * The task, or its id. Absent, `null` or `undefined`: a task is opened for this credential in the same round trip and ends with it.
   */
  readonly task?: { readonly id: string } | string | null | undefined;
  /** Refuses the request when it has no `task`, instead of opening one. Absent: the setting of the client. */
  readonly requireTask?: boolean | undefined;
  /** How long to wait for an approval, in seconds, at most 60. Absent: {@link ApprovalNeeded} is thrown at once. */
  readonly waitForApproval?: number | undefined;
  /** The kind of credential. Absent: the only kind of the upstream. */
  readonly kind?: Kind | undefined;
  /**
   * The lifetime in seconds, 1 to 3,600. Absent: the default of the upstream, at most 5 min. The shortest of all limits applies.
   */
  readonly ttl?: number | undefined;
  /** On whose behalf the workload acts. Absent: its own. */
  readonly subjectToken?: SubjectToken | undefined;
  /**
   * A mayfly credential that this workload acts under: revoking it also revokes the new one. A server that does not support this yet
   * refuses the request and names the field.
   */
  readonly parent?: string | Secret | undefined;
  /**
   * Binds the credential to this workload's SVID, so that only the holder of its key can use it (RFC 8705). Absent: as the task and the
   * upstream demand.
   */
  readonly boundToSvid?: boolean | undefined;
  /** The binding to decide under. Absent: any binding that permits the request. */
  readonly binding?: string | undefined;
  /** RFC 9396 authorization details. Absent: none. */
  readonly authorizationDetails?: readonly object[] | undefined;
  /** For the kind x509: a PKCS #10 request, DER. */
  readonly certificateRequest?: Uint8Array | undefined;
  /** For the kind ssh: a public key in OpenSSH format. */
  readonly sshPublicKey?: string | undefined;
  /**
   * The limit for all attempts together, in milliseconds, in addition to `waitForApproval`. Absent: the client's own limit.
   */
  readonly timeout?: number | undefined;
  /** Stops waiting. The exchange itself may go on, because other requests may share it. */
  readonly signal?: AbortSignal | undefined;
}

/** The most credentials of one call: as many as `mayfly get` and `mayfly exec` ask for at once. */
const AT_ONCE = 8;

/** A request for one of several credentials. A call for several does not wait for an approval; its task is that of the call. */
export interface UpstreamAsk extends Omit<CredentialAsk, 'task' | 'requireTask' | 'waitForApproval' | 'timeout' | 'signal'> {
  /** The name of the upstream in the registry. */
  readonly upstream: string;
}

/** Options of a call for several credentials. */
export type SeveralOptions = Pick<CredentialAsk, 'task' | 'requireTask' | 'timeout' | 'signal'>;

/** A duration in the wire format. */
export function duration(seconds: number): Duration {
  const ms = Math.round(seconds * 1000);
  if (!Number.isSafeInteger(ms) || ms < 0) throw new TypeError(`${seconds} is no number of seconds`);
  return { $typeName: 'google.protobuf.Duration', seconds: BigInt(Math.floor(ms / 1000)), nanos: (ms % 1000) * 1_000_000 };
}

/** The text of a secret or of a plain string. */
export const revealed = (secret: string | Secret): string => (typeof secret === 'string' ? secret : secret.reveal());

/** Scopes as a list; a string is one whole scope. */
export const scopesOf = (scope: string | readonly string[]): string[] => (typeof scope !== 'string' ? [...scope] : scope === '' ? [] : [scope]);

/** The kind in the wire format. */
export function kindOf(kind: Kind): CredentialKind {
  const found = KINDS[kind];
  if (found === undefined) throw new TypeError(`kind ${JSON.stringify(kind)} is none of ${Object.keys(KINDS).join(', ')}`);
  return found;
}

/** The kind from the wire format. */
export const kindName = (kind: CredentialKind): Kind | undefined =>
  (Object.keys(KINDS) as Kind[]).find((name) => KINDS[name] === kind);

/** A subject token in the wire format. */
export const subjectOf = ({ token, type }: SubjectToken) => ({ token: revealed(token), type: SUBJECTS[type] });

/**
 * Returns the task where one is required.
 *
 * @throws InvalidRequest - there is none
 */
export function required(task: string | undefined): string {
  if (task !== undefined) return task;
  const description = 'this call belongs to no task; right would be a credential of the agent\'s task, or its id in _meta as "mayfly/task"';
  throw new InvalidRequest(`task: ${description}`, { reason: 'INVALID_FIELD', fieldViolations: [{ field: 'task', description }] });
}

/** The id of an optional task. */
export function taskId(task: CredentialAsk['task']): string | undefined {
  const id = typeof task === 'object' ? task?.id : task;
  // An id that got lost is an error. It must not open a task of this workload, which would have all its rights.
  if (id === '') throw new TypeError('task: is empty; right would be a task\'s id, or undefined for a task of its own');
  return id;
}

/**
 * The request for a credential, without its `request_id`.
 *
 * @throws TypeError - the request is incomplete in a way that every server would refuse
 */
export function requestOf(upstream: string, ask: CredentialAsk): ExchangeRequest {
  const scopes = scopesOf(ask.scope);
  if (scopes.length === 0) throw new TypeError('scope: at least one');
  const id = taskId(ask.task);
  if (id === undefined && !ask.purpose) throw new TypeError('purpose: without a task one is opened, and that says what it is for');
  const terms = () => create(TaskTermsSchema, {
    purpose: ask.purpose ?? '', upstreams: [{ upstream, scopes }], tools: ask.tool ? [ask.tool] : [], keyBound: ask.boundToSvid ?? false,
    // The task lives as long as the credential and is extended when the credential is renewed: see `Pool`.
    ttl: duration(ask.ttl ?? DEFAULT_TTL), maxTtl: duration(Math.max(ask.ttl ?? DEFAULT_TTL, LONGEST_WORK)),
    ...(ask.kind ? { kinds: [kindOf(ask.kind)] } : {}),
  });
  const request: MessageInitShape<typeof ExchangeRequestSchema> = {
    task: id === undefined ? { case: 'openTask', value: terms() } : { case: 'taskId', value: id },
    upstream, scopes, tool: ask.tool ?? '', purpose: ask.purpose ?? '', binding: ask.binding ?? '',
    authorizationDetails: ask.authorizationDetails ? JSON.stringify(ask.authorizationDetails) : '',
  };
  if (ask.kind) request.kind = kindOf(ask.kind);
  if (ask.ttl !== undefined) request.ttl = duration(ask.ttl);
  if (ask.waitForApproval) request.waitForApproval = duration(ask.waitForApproval);
  if (ask.arguments) request.arguments = { arguments: { case: 'json', value: canonicalArguments(ask.arguments) } };
  if (ask.boundToSvid) request.keyBinding = create(KeyBindingSchema, { key: { case: 'callerSvid', value: {} } });
  if (ask.subjectToken) request.subjectToken = subjectOf(ask.subjectToken);
  if (ask.parent) request.parentCredential = { token: revealed(ask.parent) };
  if (ask.certificateRequest) request.publicKey = { case: 'certificateRequest', value: ask.certificateRequest };
  else if (ask.sshPublicKey) request.publicKey = { case: 'sshPublicKey', value: ask.sshPublicKey };
  return create(ExchangeRequestSchema, request);
}

/**
 * The requests for several credentials, without their `request_id`.
 *
 * @throws TypeError - there are none or too many, or one is incomplete in a way that every server would refuse
 */
export function requestsOf(asks: readonly UpstreamAsk[], { task }: SeveralOptions): ExchangeRequest[] {
  if (asks.length === 0 || asks.length > AT_ONCE) throw new TypeError(`${asks.length} requests; right would be 1 to ${AT_ONCE}`);
  return asks.map(({ upstream, ...ask }, n) => {
    const name = upstream || `requests[${n}]`;
    if (!upstream) throw new TypeError(`${name}: upstream: is empty; right would be a registered upstream's name`);
    const foreign = ['task', 'requireTask', 'waitForApproval', 'timeout', 'signal'].find((field) => (ask as Record<string, unknown>)[field] !== undefined);
    if (foreign === 'waitForApproval') throw new TypeError(`${name}: waitForApproval: is for a single credential`);
    if (foreign !== undefined) throw new TypeError(`${name}: ${foreign}: is an option of the whole call`);
    try {
      return requestOf(upstream, { ...ask, task });
    } catch (error) {
      throw error instanceof TypeError ? new TypeError(`${name}: ${error.message}`, { cause: error }) : error;
    }
  });
}

/**
 * The key under which two requests share a credential: a digest of the whole request, because it may contain tokens. `undefined` for
 * requests whose credential is used once: a call with arguments, or a task opened with the credential.
 */
export function shareKey(request: ExchangeRequest, svid: string): string | undefined {
  if (request.arguments || request.task.case !== 'taskId') return undefined;
  const hash = createHash('sha256').update(toBinary(ExchangeRequestSchema, request));
  // A credential bound to one SVID cannot be used with the next one.
  return hash.update(request.keyBinding ? svid : '').digest('base64');
}
