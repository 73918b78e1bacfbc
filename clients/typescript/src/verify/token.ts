/**
 * Checks that a token is from the issuer: form, header and signature, before anything in it is trusted.
 *
 * @module
 */
import { compactVerify, errors, importJWK, type CryptoKey } from 'jose';
import { isObject, strictJson } from './json.js';
import { Refused } from './refused.js';

/** The longest token that is read, in bytes. */
export const TOKEN_BYTES = 131_072;
const BASE64URL = /^[A-Za-z0-9_-]*$/;

/** Decodes canonical base64url without padding; `undefined` for any other text. */
export function base64url(text: string): Buffer | undefined {
  if (!BASE64URL.test(text)) return undefined;
  const bytes = Buffer.from(text, 'base64url');
  return bytes.toString('base64url') === text ? bytes : undefined;
}

/** The keys of one issuer, by id. */
export type Keys = ReadonlyMap<string, CryptoKey>;

interface Jwk {
  kid?: unknown; kty?: unknown; crv?: unknown; alg?: unknown; use?: unknown; key_ops?: unknown; x?: unknown; y?: unknown;
}

const verifies = ({ kty, crv, alg, use, key_ops: ops }: Jwk): boolean =>
  kty === 'EC' && crv === 'P-256' && (alg ?? 'ES256') === 'ES256' && (use ?? 'sig') === 'sig'
  && (ops === undefined || ops === null || (Array.isArray(ops) && ops.includes('verify')));

/**
 * Reads a JWK set (RFC 7517). Keys that do not verify ES256 are left out (section 5).
 *
 * @throws TypeError - it is not one, or two keys have the same id
 */
export async function readJwks(text: string): Promise<Keys> {
  const set: unknown = JSON.parse(text);
  if (!isObject(set) || !Array.isArray(set['keys'])) throw new TypeError('not a JWK set');
  const keys = new Map<string, CryptoKey>();
  for (const jwk of set['keys'] as Jwk[]) {
    if (!isObject(jwk) || typeof jwk.kid !== 'string' || !verifies(jwk)) continue;
    if (keys.has(jwk.kid)) throw new TypeError(`two keys have the kid ${JSON.stringify(jwk.kid)}`);
    // Only the members that define the point; the others were checked above.
    const point = { kty: 'EC', crv: 'P-256', x: String(jwk.x), y: String(jwk.y) };
    keys.set(jwk.kid, (await importJWK(point, 'ES256')) as CryptoKey);
  }
  return keys;
}

/** A token split into its parts. Nothing in it is trusted yet. */
export interface Parts {
  readonly header: Record<string, unknown>;
  readonly kid: string;
  readonly payload: string;
  readonly signature: string;
}

const malformed = (what: string) => new Refused('malformed', `not a compact JWS: ${what}`);

function headerText(header: Record<string, unknown>, name: string): string {
  const value = Object.hasOwn(header, name) ? header[name] : null;
  if (value === null) return '';
  if (typeof value !== 'string') throw malformed(`${name} is no text`);
  return value;
}

/**
 * Splits a token into its parts.
 *
 * @throws Refused - `too_long`, `malformed`
 */
export function split(token: string): Parts {
  if (token.length > TOKEN_BYTES || Buffer.byteLength(token) > TOKEN_BYTES) throw new Refused('too_long', `the token has more than ${TOKEN_BYTES} bytes`);
  const [first = '', payload, signature, ...more] = token.split('.');
  if (payload === undefined || signature === undefined || more.length > 0) throw malformed('it has not three parts');
  const bytes = base64url(first);
  let header: unknown;
  try {
    header = bytes && strictJson(bytes);
  } catch {
    header = undefined;
  }
  if (!isObject(header)) throw malformed('its header is no JSON object in base64url');
  for (const name of ['alg', 'typ']) headerText(header, name);
  return { header, kid: headerText(header, 'kid'), payload, signature };
}

/**
 * The payload, after header and signature were checked.
 *
 * @throws Refused - `algorithm`, `typ`, `header_parameter`, `unknown_key`, `signature`, `malformed`
 */
export async function authentic(token: string, { header, kid, payload, signature }: Parts, keys: Keys): Promise<Uint8Array> {
  const [alg, typ] = [headerText(header, 'alg'), headerText(header, 'typ')];
  if (alg !== 'ES256') throw new Refused('algorithm', `algorithm ${JSON.stringify(alg)} is not one that this issuer signs with (ES256)`);
  if (typ !== 'at+jwt') throw new Refused('typ', `typ ${JSON.stringify(typ)} is not at+jwt`);
  const other = Object.keys(header).find((name) => name !== 'alg' && name !== 'typ' && name !== 'kid');
  if (other !== undefined) throw new Refused('header_parameter', `the header holds ${JSON.stringify(other)}, which this issuer never writes`);
  const key = keys.get(kid);
  if (!key) throw new Refused('unknown_key', `the issuer has no key ${JSON.stringify(kid)}`);
  const unsigned = new Refused('signature', 'the signature does not fit');
  if (base64url(signature)?.length !== 64) throw unsigned;
  const decoded = base64url(payload);
  try {
    await compactVerify(token, key, { algorithms: ['ES256'] });
  } catch (error) {
    if (error instanceof errors.JWSSignatureVerificationFailed || decoded) throw unsigned;
  }
  if (!decoded) throw malformed('its payload is not base64url');
  return decoded;
}
