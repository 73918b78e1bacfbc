/**
 * Middleware for Express, and for whatever takes `(request, response, next)`: verifies the bearer credential of a request, and publishes how to
 * get one (RFC 9728).
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

/** A request, and what is left in it: the shape of the MCP SDK's `AuthInfo`. */
export interface AuthInfo {
  /** The token. It is for this service: never pass it on. Not enumerable, so it is in no log. */
  readonly token: string;
  /** The SPIFFE ID that it was issued to. */
  readonly clientId: string;
  readonly scopes: string[];
  /** Seconds since 1970. */
  readonly expiresAt: number;
  /** The audience. */
  readonly resource: URL;
  /** `extra.mayfly`: the credential, verified. */
  readonly extra: Record<string, unknown> & { readonly mayfly: Verified };
}

/** A request of Express or node, as far as it matters here. */
export type Request = IncomingMessage & { auth?: unknown; originalUrl?: string };

/** What comes after. */
export type Next = (error?: unknown) => void;

/** What the service is, for those who come without a credential (RFC 9728, section 2). */
export interface ResourceMetadata {
  /** The service's own identifier, an https URL: the audience, where nothing else is said. */
  readonly resource?: string;
  /** Who issues credentials for it. Absent: the verifier's issuer. */
  readonly authorizationServers?: readonly string[];
  /** Scopes that there are. Absent: they are not told. */
  readonly scopes?: readonly string[];
  /** What it is called, for people. */
  readonly name?: string;
  /** Where people read about it. */
  readonly documentation?: string;
}

/** What a route needs: fixed, or from the request. */
export interface ProtectOptions {
  /** The scopes, all of them. Absent: none. */
  readonly scope?: string | readonly string[] | ((request: Request) => string | readonly string[] | undefined);
  /** The tool that calls. Absent: it is not known here, and not compared. */
  readonly tool?: string | ((request: Request) => string | undefined);
  /** The arguments of the call, where credentials may name some. Absent: not compared. */
  readonly arguments?: (request: Request) => unknown;
  /** The service's own identifier, an https URL. Absent: the audience. */
  readonly resource?: string;
}

/** Where the metadata of a resource lies (RFC 9728, section 3.1): the well-known path, and after it the resource's own. */
function metadataUrl(resource: string): URL {
  const url = new URL(resource);
  const path = url.pathname === '/' ? '' : url.pathname.replace(/\/$/, '');
  return new URL(`${WELL_KNOWN}${path}${url.search}`, url.origin);
}

/**
 * Serves the metadata at `/.well-known/oauth-protected-resource`, with the resource's own path after it. Put it before {@link protect}.
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

/** What a request shows, from its header alone (RFC 6750, section 2.1); from a form or a query it would be in logs. */
function shown(request: Request): string | undefined {
  return /^Bearer +([A-Za-z0-9._~+/-]+=*) *$/i.exec(request.headers.authorization ?? '')?.[1];
}

/** SHA-256 of the certificate that the TLS session proved, and of no header. */
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

/** `name="text"` with what may stand there (RFC 9110, section 5.6.4). */
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
 * Lets a request through that shows a good credential, and leaves it in `request.auth` as the MCP SDK wants it.
 *
 * Everything else is answered: 401 with `WWW-Authenticate: Bearer resource_metadata="…"`; 403 with `error="insufficient_scope"` where the
 * credential is good and not for this; 503 with `Retry-After` where what was revoked is not known here.
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
