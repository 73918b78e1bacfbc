/**
 * The claims of a mayfly token, read as strictly as by the issuer itself.
 *
 * @module
 */
import { inspect } from 'node:util';
import { isObject, strictJson } from './json.js';
import { Refused } from './refused.js';

/** The name of mayfly's own claims. */
const OWN = 'https://mayfly.dev/claims';
const ID = /^(?:task|cred)_[a-z2-7]{25}[aeimquy4]$/;
const HEX = /^(?:[0-9a-f]{2})*$/;
/** The longest actor chain that is read; a longer one is refused for its length anyway. */
const ACTORS = 64;

/**
 * A party by issuer and subject; one means nothing without the other. For a SPIFFE ID, the issuer is its trust domain.
 */
export interface Who {
  readonly issuer: string;
  readonly sub: string;
}

/** An SVID that a grant depends on, with its digests in hex. */
export interface SvidClaim {
  readonly trustAnchor: string;
  readonly issuingKey: string;
  readonly serial: string;
}

/** A subject token that a grant depends on. */
export interface SubjectTokenClaim {
  readonly issuer: string;
  readonly id: string;
}

/**
 * Another grant that a credential depends on, with everything by which it can be revoked. Fields that do not apply are empty.
 */
export interface Ground {
  readonly credentials: readonly string[];
  readonly tasks: readonly string[];
  readonly parties: readonly Who[];
  readonly upstream: string;
  readonly scopes: readonly string[];
  readonly binding: string;
  readonly tool: string;
  readonly environment: string;
  readonly policyVersion: number;
  readonly kid: string;
  readonly trustDomain: string;
  readonly svid: SvidClaim | undefined;
  readonly subjectToken: SubjectTokenClaim | undefined;
}

/** The claims of a token. */
export interface Claims {
  readonly issuer: string;
  readonly subject: Who;
  readonly audience: string;
  /** `exp`, seconds since 1970. */
  readonly expires: number;
  /** `iat`, seconds since 1970: the time of the decision. */
  readonly issued: number;
  /** `nbf`, seconds since 1970. */
  readonly notBefore: number;
  /** `jti`. */
  readonly credentialId: string;
  /** The SPIFFE ID that it was issued to. */
  readonly caller: string;
  readonly scopes: readonly string[];
  /** RFC 9396. */
  readonly authorizationDetails: unknown;
  /** The parties that act for the subject, outermost first. Empty: the subject acts itself. */
  readonly actors: readonly Who[];
  /** The certificate that it is bound to, SHA-256 in base64url. */
  readonly x5t: string | undefined;
  /** The key that it is bound to, RFC 7638 thumbprint in base64url. */
  readonly jkt: string | undefined;
  readonly version: number;
  /** Decision revision: a revocation with a higher sequence number covers it. */
  readonly revision: number;
  readonly environment: string;
  readonly policyVersion: number;
  readonly upstream: string;
  readonly binding: string;
  /** The tool that it is valid for. Empty: any. */
  readonly tool: string;
  /** SHA-256 of the arguments that it is valid for, hex. Empty: any. */
  readonly argumentsSha256: string;
  readonly trustDomain: string;
  /** The task path, root first, with the owner of each task. */
  readonly tasks: readonly { readonly id: string; readonly owner: Who }[];
  readonly ancestors: readonly { readonly id: string; readonly caller: string }[];
  readonly svid: SvidClaim | undefined;
  readonly subjectToken: SubjectTokenClaim | undefined;
  /**
   * The other grants that it depends on, as far as no other claim names what can revoke them: the openings of its tasks, and its ancestors.
   */
  readonly restsOn: readonly Ground[];
}

const bad = (what: string): Refused => new Refused('claims', `claims: ${what}`);

type Raw = Record<string, unknown>;

const has = (from: Raw, name: string): boolean => Object.hasOwn(from, name);

function text(from: Raw, name: string): string {
  const value = has(from, name) ? from[name] : undefined;
  if (typeof value !== 'string') throw bad(`${name} is no text`);
  return value;
}

/** A text that may be left out, and is then empty. */
const textOrNone = (from: Raw, name: string): string => (has(from, name) ? text(from, name) : '');

/** A text that may be left out or null. */
const maybeText = (from: Raw, name: string): string | undefined => (has(from, name) && from[name] !== null ? text(from, name) : undefined);

function count(from: Raw, name: string, below: number): number {
  const value = has(from, name) ? from[name] : undefined;
  if (typeof value !== 'number' || !Number.isInteger(value) || value < 0 || value >= below) throw bad(`${name} is no number from 0`);
  return value;
}

function object(value: unknown, name: string): Raw {
  if (!isObject(value)) throw bad(`${name} is no object`);
  return value;
}

const maybeObject = (from: Raw, name: string): Raw | undefined =>
  has(from, name) && from[name] !== null ? object(from[name], name) : undefined;

function list(from: Raw, name: string): unknown[] {
  const value = has(from, name) ? from[name] : undefined;
  if (!Array.isArray(value)) throw bad(`${name} is no list`);
  return value;
}

/** Whether this is the id of a task or credential in its canonical form. */
export const isId = (prefix: 'task_' | 'cred_', id: string): boolean => id.startsWith(prefix) && ID.test(id);

function id(from: Raw, name: string, prefix: 'task_' | 'cred_'): string {
  const value = text(from, name);
  if (!isId(prefix, value)) throw bad(`${name} is no ${prefix} and 26 characters`);
  return value;
}

function hex(value: string, name: string): string {
  if (!HEX.test(value)) throw bad(`${name} is not lower-case hexadecimal`);
  return value;
}

const who = (from: Raw): Who => ({ issuer: text(from, 'iss'), sub: text(from, 'sub') });

function actors(from: Raw): Who[] {
  const found: Who[] = [];
  for (let act = maybeObject(from, 'act'); act; act = maybeObject(act, 'act')) {
    found.push(who(act));
    if (found.length > ACTORS) throw bad('more actors than there can be');
  }
  return found;
}

const NUMBER = 2 ** 64;

/**
 * Reads the payload of a token.
 *
 * @throws Refused - `claims`: these are not the claims of a mayfly token
 */
export function readClaims(payload: Uint8Array): Claims {
  let parsed: unknown;
  try {
    parsed = strictJson(payload);
  } catch {
    throw bad('not JSON, or a name stands twice');
  }
  const all = object(parsed, 'the payload');
  const own = object(all[OWN], OWN);
  const cnf = maybeObject(all, 'cnf');
  const trustDomain = text(own, 'trust_domain');
  return {
    issuer: text(all, 'iss'), audience: text(all, 'aud'), caller: text(all, 'client_id'), credentialId: id(all, 'jti', 'cred_'),
    subject: { issuer: maybeText(own, 'sub_iss') ?? trustDomain, sub: text(all, 'sub') },
    expires: count(all, 'exp', NUMBER), issued: count(all, 'iat', NUMBER), notBefore: count(all, 'nbf', NUMBER),
    scopes: words(text(all, 'scope')),
    authorizationDetails: all['authorization_details'], actors: actors(all),
    ...(cnf ? boundTo(cnf) : { x5t: undefined, jkt: undefined }),
    version: count(own, 'v', 2 ** 32), revision: count(own, 'r', 2 ** 53), environment: text(own, 'environment'),
    policyVersion: count(own, 'policy_version', NUMBER), upstream: text(own, 'upstream'), binding: textOrNone(own, 'binding'),
    tool: textOrNone(own, 'tool'), argumentsSha256: hex(textOrNone(own, 'arguments'), 'arguments'), trustDomain,
    tasks: list(own, 'tasks').map((one) => {
      const task = object(one, 'a task');
      return { id: id(task, 'id', 'task_'), owner: who(object(task['owner'], 'owner')) };
    }),
    ancestors: listOrNone(own, 'ancestors').map((one) => {
      const ancestor = object(one, 'an ancestor');
      return { id: id(ancestor, 'id', 'cred_'), caller: text(ancestor, 'caller') };
    }),
    svid: svidOf(own), subjectToken: subjectTokenOf(own), restsOn: listOrNone(own, 'rests_on').map((one) => ground(object(one, 'a ground'))),
  };
}

const words = (value: string): string[] => value.split(' ').filter((word) => word !== '');

const listOrNone = (from: Raw, name: string): unknown[] => (has(from, name) ? list(from, name) : []);

function svidOf(from: Raw): SvidClaim | undefined {
  const svid = maybeObject(from, 'svid');
  return svid && {
    trustAnchor: hex(text(svid, 'trust_anchor'), 'trust_anchor'), issuingKey: hex(text(svid, 'issuing_key'), 'issuing_key'),
    serial: hex(text(svid, 'serial'), 'serial'),
  };
}

function subjectTokenOf(from: Raw): SubjectTokenClaim | undefined {
  const token = maybeObject(from, 'subject_token');
  return token && { issuer: text(token, 'iss'), id: text(token, 'id') };
}

function ids(from: Raw, name: string, prefix: 'task_' | 'cred_'): string[] {
  return listOrNone(from, name).map((one) => {
    if (typeof one !== 'string' || !isId(prefix, one)) throw bad(`${name} holds what is no ${prefix} and 26 characters`);
    return one;
  });
}

function ground(raw: Raw): Ground {
  return {
    credentials: ids(raw, 'credentials', 'cred_'), tasks: ids(raw, 'tasks', 'task_'),
    parties: listOrNone(raw, 'parties').map((one) => who(object(one, 'a party'))), upstream: textOrNone(raw, 'upstream'),
    scopes: words(textOrNone(raw, 'scope')), binding: textOrNone(raw, 'binding'), tool: textOrNone(raw, 'tool'),
    environment: textOrNone(raw, 'environment'), policyVersion: has(raw, 'policy_version') ? count(raw, 'policy_version', NUMBER) : 0,
    kid: textOrNone(raw, 'kid'), trustDomain: textOrNone(raw, 'trust_domain'), svid: svidOf(raw), subjectToken: subjectTokenOf(raw),
  };
}

/** Nobody can prove a binding that is not understood: the empty digest matches no key. */
function boundTo(cnf: Raw): { x5t: string | undefined; jkt: string | undefined } {
  const [x5t, jkt] = [maybeText(cnf, 'x5t#S256'), maybeText(cnf, 'jkt')];
  return x5t === undefined && jkt === undefined ? { x5t: '', jkt: undefined } : { x5t, jkt };
}

const MARK: unique symbol = Symbol.for('@mayfly/client.verified') as never;

/** A verified credential. Only the verifier creates one; it prints as its id. */
export class Verified {
  /** Its claims. */
  readonly claims: Claims;
  readonly [MARK] = true;

  /** @internal */
  constructor(claims: Claims) {
    this.claims = claims;
  }

  /** Its id. */
  get credentialId(): string {
    return this.claims.credentialId;
  }

  /** The SPIFFE ID that it was issued to. */
  get caller(): string {
    return this.claims.caller;
  }

  /** On whose behalf the caller acts. */
  get subject(): Who {
    return this.claims.subject;
  }

  /** The scopes. */
  get scopes(): readonly string[] {
    return this.claims.scopes;
  }

  /** The task it belongs to. */
  get task(): string | undefined {
    return this.claims.tasks.at(-1)?.id;
  }

  toString(): string {
    return this.credentialId;
  }

  [inspect.custom](): string {
    return `Verified(${this.credentialId} of ${this.caller})`;
  }
}

/**
 * The credential that the middleware left in `authInfo.extra`. Data from the wire cannot imitate it, because JSON contains no symbols.
 */
export function verifiedOf(extra: Record<string, unknown> | undefined): Verified | undefined {
  const found = extra?.['mayfly'];
  return typeof found === 'object' && found !== null && (found as { [MARK]?: unknown })[MARK] === true ? (found as Verified) : undefined;
}
