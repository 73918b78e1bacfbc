/**
 * What is asked for, in the words of this language, and the messages that come of it.
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

/** What a credential is. */
export type Kind =
  | 'jwt' | 'reference' | 'x509' | 'ssh' | 'postgres' | 'oauth' | 'aws' | 'github' | 'secret' | 'mysql' | 'redis';

const KINDS: Record<Kind, CredentialKind> = {
  jwt: CredentialKind.JWT, reference: CredentialKind.REFERENCE, x509: CredentialKind.X509, ssh: CredentialKind.SSH,
  postgres: CredentialKind.POSTGRES, oauth: CredentialKind.OAUTH, aws: CredentialKind.AWS, github: CredentialKind.GITHUB,
  secret: CredentialKind.SECRET, mysql: CredentialKind.MYSQL, redis: CredentialKind.REDIS,
};

/** The life of a credential where none is asked for, seconds (`ExchangeRequest.ttl`). */
export const DEFAULT_TTL = 300;
/**
 * How long a task that a call opens for itself may ever live, extensions included, seconds: the longest that a server allows (`limits.task_ttl`).
 */
const LONGEST_WORK = 86_400;

/** A token that says on whose behalf (RFC 8693). */
export interface SubjectToken {
  /** The token as it was received. */
  readonly token: string | Secret;
  /** What it is: a JWT-SVID, a token of an OIDC provider, or a credential of mayfly's. */
  readonly type: 'jwt-svid' | 'oidc' | 'mayfly';
}

const SUBJECTS: Record<SubjectToken['type'], SubjectTokenType> = {
  'jwt-svid': SubjectTokenType.JWT_SVID, oidc: SubjectTokenType.OIDC, mayfly: SubjectTokenType.MAYFLY,
};

/** What a credential is asked for with. */
export interface CredentialAsk {
  /** The scopes, 1 to 8, like `["repo:read"]`, or the one: all of them are given or none. */
  readonly scope: string | readonly string[];
  /** The tool that it is for. Absent: none. */
  readonly tool?: string | undefined;
  /** The arguments of the tool call that it is for, as JSON: it then serves for that call alone. Absent: any. */
  readonly arguments?: Readonly<Record<string, unknown>> | undefined;
  /** What it is for, at most 512 bytes: people read it in approvals and in the audit. Needed where there is no task. */
  readonly purpose?: string | undefined;
  /** The task, or its id. Absent, `null` or `undefined`: one is opened for this credential in the same round trip, and ends with it. */
  readonly task?: { readonly id: string } | string | null | undefined;
  /** Without a `task` it is refused, and none is opened. Absent: as the client was made. */
  readonly requireTask?: boolean | undefined;
  /** How long to wait for an approval, seconds, at most 60. Absent: {@link ApprovalNeeded} at once. */
  readonly waitForApproval?: number | undefined;
  /** What is asked for. Absent: the upstream's only kind. */
  readonly kind?: Kind | undefined;
  /** How long it is to live, seconds, 1 to 3,600. Absent: what the upstream gives, at most 5 min. The least of all bounds wins. */
  readonly ttl?: number | undefined;
  /** On whose behalf. Absent: our own. */
  readonly subjectToken?: SubjectToken | undefined;
  /** A credential of mayfly's that we act under: revoking it revokes this one. A server that does not serve it yet refuses it by its field. */
  readonly parent?: string | Secret | undefined;
  /** Binds it to our SVID, so whoever shows it has to prove that key (RFC 8705). Absent: as the task and the upstream ask. */
  readonly boundToSvid?: boolean | undefined;
  /** The binding to decide under. Absent: any that permits it. */
  readonly binding?: string | undefined;
  /** RFC 9396 authorization details. Absent: none. */
  readonly authorizationDetails?: readonly object[] | undefined;
  /** For the kind x509: a PKCS #10 request, DER. */
  readonly certificateRequest?: Uint8Array | undefined;
  /** For the kind ssh: a public key in OpenSSH's form. */
  readonly sshPublicKey?: string | undefined;
  /** How long all attempts together may take, milliseconds, beside what `waitForApproval` gives. Absent: the client's own. */
  readonly timeout?: number | undefined;
  /** Gives up waiting. The exchange itself may be one that others wait for too. */
  readonly signal?: AbortSignal | undefined;
}

/** A time span for the wire. */
export function duration(seconds: number): Duration {
  const ms = Math.round(seconds * 1000);
  if (!Number.isSafeInteger(ms) || ms < 0) throw new TypeError(`${seconds} is no number of seconds`);
  return { $typeName: 'google.protobuf.Duration', seconds: BigInt(Math.floor(ms / 1000)), nanos: (ms % 1000) * 1_000_000 };
}

/** A secret or a text, as a text. */
export const revealed = (secret: string | Secret): string => (typeof secret === 'string' ? secret : secret.reveal());

/** Scopes as a list: a text is one scope, whole. */
export const scopesOf = (scope: string | readonly string[]): string[] => (typeof scope !== 'string' ? [...scope] : scope === '' ? [] : [scope]);

/** The kind for the wire. */
export function kindOf(kind: Kind): CredentialKind {
  const found = KINDS[kind];
  if (found === undefined) throw new TypeError(`kind ${JSON.stringify(kind)} is none of ${Object.keys(KINDS).join(', ')}`);
  return found;
}

/** The kind from the wire. */
export const kindName = (kind: CredentialKind): Kind | undefined =>
  (Object.keys(KINDS) as Kind[]).find((name) => KINDS[name] === kind);

/** A subject token for the wire. */
export const subjectOf = ({ token, type }: SubjectToken) => ({ token: revealed(token), type: SUBJECTS[type] });

/**
 * The task, where one is required.
 *
 * @throws InvalidRequest - there is none
 */
export function required(task: string | undefined): string {
  if (task !== undefined) return task;
  const description = 'this call belongs to no task; right would be a credential of the agent\'s task, or its id in _meta as "mayfly/task"';
  throw new InvalidRequest(`task: ${description}`, { reason: 'INVALID_FIELD', fieldViolations: [{ field: 'task', description }] });
}

/** The id of a task that may be named by it, or not at all. */
export function taskId(task: CredentialAsk['task']): string | undefined {
  const id = typeof task === 'object' ? task?.id : task;
  // An id that was lost on the way is not the wish for a task of our own, which has all our rights.
  if (id === '') throw new TypeError('task: is empty; right would be a task\'s id, or undefined for a task of its own');
  return id;
}

/**
 * The request for a credential, without its `request_id`.
 *
 * @throws TypeError - what is asked for lacks what every server would refuse
 */
export function requestOf(upstream: string, ask: CredentialAsk): ExchangeRequest {
  const scopes = scopesOf(ask.scope);
  if (scopes.length === 0) throw new TypeError('scope: at least one');
  const id = taskId(ask.task);
  if (id === undefined && !ask.purpose) throw new TypeError('purpose: without a task one is opened, and that says what it is for');
  const terms = () => create(TaskTermsSchema, {
    purpose: ask.purpose ?? '', upstreams: [{ upstream, scopes }], tools: ask.tool ? [ask.tool] : [], keyBound: ask.boundToSvid ?? false,
    // It lives as long as the credential, and is extended when that is renewed: see `Pool`.
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
 * What two requests have in common when one credential serves both: everything that they say, as a digest, for tokens may be among it.
 * `undefined` for what is for one use alone: a call with its arguments, and a task opened with it.
 */
export function shareKey(request: ExchangeRequest, svid: string): string | undefined {
  if (request.arguments || request.task.case !== 'taskId') return undefined;
  const hash = createHash('sha256').update(toBinary(ExchangeRequestSchema, request));
  // Bound to an SVID it is of no use with the next one.
  return hash.update(request.keyBinding ? svid : '').digest('base64');
}
