/**
 * Middleware for Express, and for anything that takes `(request, response, next)`: it verifies the bearer credential of a request, and
 * publishes how to get one (RFC 9728).
 *
 * @module
 */
import { createHash } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { TLSSocket } from 'node:tls';
import type { Need } from './check.js';
import { Refused } from './refused.js';
import type { Verified } from './claims.js';
import type { Verifier } from './verifier.js';

const WELL_KNOWN = '/.well-known/oauth-protected-resource';

/** What the middleware leaves in a request: the shape of the MCP SDK's `AuthInfo`. */
export interface AuthInfo {
  /** The token. It is for this service: never pass it on. It is not enumerable, so that it appears in no log. */
  readonly token: string;
  /** The SPIFFE ID that it was issued to. */
  readonly clientId: string;
  readonly scopes: string[];
  /** Seconds since 1970. */
  readonly expiresAt: number;
  /** The audience. */
  readonly resource: URL;
  /** `extra.mayfly`: the verified credential. */
  readonly extra: Record<string, unknown> & { readonly mayfly: Verified };
}

/** A request of Express or node, as far as it is used here. */
export type Request = IncomingMessage & { auth?: unknown; originalUrl?: string };

/** The next handler. */
export type Next = (error?: unknown) => void;

/** The description of the service for clients that have no credential (RFC 9728, section 2). */
export interface ResourceMetadata {
  /** The service's own identifier, an https URL. It is the audience, unless another one is set. */
  readonly resource?: string;
  /** The issuers of its credentials. Absent: the verifier's issuer. */
  readonly authorizationServers?: readonly string[];
  /** The available scopes. Absent: they are not published. */
  readonly scopes?: readonly string[];
  /** The name of the service, for people. */
  readonly name?: string;
  /** Where people can read about it. */
  readonly documentation?: string;
}

/** The requirements of a route: fixed, or computed from the request. */
export interface ProtectOptions {
  /** The scopes, all of them required. Absent: none. */
  readonly scope?: string | readonly string[] | ((request: Request) => string | readonly string[] | undefined);
  /** The calling tool. Absent: it is not known here, and not compared. */
  readonly tool?: string | ((request: Request) => string | undefined);
  /** The arguments of the call, if credentials may name arguments. Absent: not compared. */
  readonly arguments?: (request: Request) => unknown;
  /** The service's own identifier, an https URL. Absent: the audience. */
  readonly resource?: string;
}

/**
 * The address of a resource's metadata (RFC 9728, section 3.1): the well-known path, followed by the resource's own path.
 */
function metadataUrl(resource: string): URL {
  const url = new URL(resource);
  const path = url.pathname === '/' ? '' : url.pathname.replace(/\/$/, '');
  return new URL(`${WELL_KNOWN}${path}${url.search}`, url.origin);
}

/**
 * Serves the metadata at `/.well-known/oauth-protected-resource`, followed by the resource's own path. Put it before {@link protect}.
 */
export function protectedResourceMetadata(verifier: Verifier, metadata: ResourceMetadata = {}) {
  const { issuer, audience } = verifier.settings;
  const resource = metadata.resource ?? audience;
  const { pathname } = metadataUrl(resource);
  const body = JSON.stringify({
    resource, authorization_servers: metadata.authorizationServers ?? [issuer], bearer_methods_supported: ['header'],
    ...(metadata.scopes ? { scopes_supported: metadata.scopes } : {}),
    ...(metadata.name ? { resource_name: metadata.name } : {}),
    ...(metadata.documentation ? { resource_documentation: metadata.documentation } : {}),
  });
  return (request: Request, response: ServerResponse, next: Next): void => {
    const path = (request.originalUrl ?? request.url ?? '').split('?')[0];
    if (path !== pathname || (request.method !== 'GET' && request.method !== 'HEAD')) return next();
    response.writeHead(200, { 'content-type': 'application/json', 'cache-control': 'max-age=300', 'access-control-allow-origin': '*' });
    response.end(request.method === 'HEAD' ? undefined : body);
  };
}

/**
 * The credential of a request, from its header only (RFC 6750, section 2.1). In a form or a query it would appear in logs.
 */
function shown(request: Request): string | undefined {
  return /^Bearer +([A-Za-z0-9._~+/-]+=*) *$/i.exec(request.headers.authorization ?? '')?.[1];
}

/** SHA-256 of the certificate of the TLS session; never taken from a header. */
function certificateOf(request: Request): string | undefined {
  const socket = request.socket as Partial<TLSSocket>;
  const raw = socket.getPeerCertificate?.()?.raw;
  return raw ? createHash('sha256').update(raw).digest('hex') : undefined;
}

const chosen = <T>(value: T | ((request: Request) => T | undefined) | undefined, request: Request): T | undefined =>
  typeof value === 'function' ? (value as (request: Request) => T | undefined)(request) : value;

function needOf(options: ProtectOptions, request: Request): Need {
  return {
    scope: chosen<string | readonly string[]>(options.scope, request), tool: chosen<string>(options.tool, request),
    arguments: options.arguments?.(request), certificateSha256: certificateOf(request),
  };
}

/** `name="text"`, without characters that are not allowed there (RFC 9110, section 5.6.4). */
const parameter = (name: string, value: string): string => `${name}="${value.replace(/[^\x20-\x7e]/g, '').replace(/["\\]/g, '\\$&')}"`;

const scopeText = (need: Need): string => (typeof need.scope === 'string' ? need.scope : (need.scope ?? []).join(' '));

/** Status, challenge and body of a refusal (RFC 6750, section 3.1; RFC 9728, section 5.1). */
function answerOf(refused: Refused | undefined, need: Need, metadata: string) {
  const where = parameter('resource_metadata', metadata);
  if (!refused) return { status: 401, challenge: [where], error: 'unauthorized' };
  const { reason, message } = refused;
  const told = parameter('error_description', message);
  if (reason === 'scope' || reason === 'tool' || reason === 'arguments') {
    const scope = scopeText(need);
    const challenge = [parameter('error', 'insufficient_scope'), ...(scope === '' ? [] : [parameter('scope', scope)]), told, where];
    return { status: 403, challenge, error: 'insufficient_scope' };
  }
  return { status: 401, challenge: [parameter('error', 'invalid_token'), told, where], error: 'invalid_token' };
}

/**
 * Lets a request through if it presents a valid credential, and leaves the credential in `request.auth` as the MCP SDK expects it.
 *
 * Every other request is answered: with 401 and `WWW-Authenticate: Bearer resource_metadata="…"`; with 403 and `error="insufficient_scope"`
 * if the credential is valid, but not for this use; with 503 and `Retry-After` if the revocations are not known here.
 */
export function protect(verifier: Verifier, options: ProtectOptions = {}) {
  const metadata = metadataUrl(options.resource ?? verifier.settings.audience).href;
  return async (request: Request, response: ServerResponse, next: Next): Promise<void> => {
    const token = shown(request);
    let need: Need = {};
    let verified: Verified | undefined;
    let refused: Refused | undefined;
    try {
      need = needOf(options, request);
      if (token !== undefined) verified = await verifier.check(token, need);
    } catch (error) {
      if (!(error instanceof Refused)) return next(error);
      refused = error;
    }
    if (!verified || token === undefined) return answer(response, refused, need, metadata);
    request.auth = authOf(token, verified, options.resource ?? verifier.settings.audience);
    next();
  };
}

function answer(response: ServerResponse, refused: Refused | undefined, need: Need, metadata: string): void {
  if (refused?.unsure) {
    response.writeHead(503, { 'retry-after': '5', 'content-type': 'application/json' });
    response.end(JSON.stringify({ error: 'temporarily_unavailable', reason: refused.reason }));
    return;
  }
  const { status, challenge, error } = answerOf(refused, need, metadata);
  response.writeHead(status, { 'www-authenticate': `Bearer ${challenge.join(', ')}`, 'content-type': 'application/json', 'cache-control': 'no-store' });
  response.end(JSON.stringify({ error, ...(refused ? { reason: refused.reason, error_description: refused.message } : {}) }));
}

function authOf(token: string, verified: Verified, resource: string): AuthInfo {
  const { caller, scopes, expires } = verified.claims;
  const auth = { clientId: caller, scopes: [...scopes], expiresAt: expires, resource: new URL(resource), extra: { mayfly: verified } };
  return Object.defineProperty(auth, 'token', { value: token, enumerable: false }) as AuthInfo;
}
