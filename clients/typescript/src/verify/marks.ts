/**
 * A quick check whether any rule or hold in force may affect a token, using hashes that are computed once when the token is read.
 *
 * Each target that applies to a token has a hash, and so has the target of each rule; equal targets have equal hashes. The rules in force
 * set bits in a small table, a Bloom filter. A token none of whose hashes is in the table is affected by nothing, which is nearly every
 * token; the others are checked by name (rules.ts). So a false positive costs time and never changes an answer, and there are no false
 * negatives.
 *
 * @module
 */
import type { Claims, Ground } from './claims.js';
import { isPair, SCHEME, SORTS, svidIssuer, trustDomainOf, type Target } from './target.js';

/**
 * The smallest number of words. The number is a power of two, with at least one word for each hash in the table, so that false positives
 * stay rare.
 */
const WORDS = 256;
/** How many bits of expired rules are kept before the table is rebuilt, in addition to a quarter of all. */
const ENDED = 64;
/** Applies whatever the revision: a revoked signing key, a held task. */
export const ALWAYS = Number.POSITIVE_INFINITY;

// By number where it is looked up: a lookup by ever different names would cost more than everything else here.
const [CREDENTIAL, TASK, CALLER, PREFIX, DOMAIN, ANCHOR, SUBJECT, UPSTREAM, UPSTREAM_SCOPE, BINDING, TOOL, ENVIRONMENT, POLICY, KEY, SVID,
  SUBJECT_TOKEN, EVERYTHING] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16] as const;

/** A hash in which every bit depends on each bit of the inputs. */
function mixed(n: number, more: number): number {
  n = Math.imul(n ^ (n >>> 15) ^ more, 0x85ebca6b);
  n = Math.imul(n ^ (n >>> 13), 0xc2b2ae35);
  return n ^ (n >>> 16);
}

/**
 * A hash of a name's length and eight of its characters, the last four among them. Different names may share a hash; one name always has
 * the same hash. Reading all characters would cost more than everything that is done with the hash.
 */
function name(sort: number, text: string): number {
  const length = text.length;
  const n = Math.imul(sort + 1, 0x9e3779b1) ^ length;
  if (length === 0) return mixed(n, 0);
  const last = length - 1;
  // In a short name, some characters are used for several places, the same ones each time.
  const near = text.charCodeAt(last) ^ (text.charCodeAt(last - (length > 1 ? 1 : 0)) << 8) ^ (text.charCodeAt(last - (length > 2 ? 2 : 0)) << 16)
    ^ (text.charCodeAt(last - (length > 3 ? 3 : 0)) << 24);
  const far = text.charCodeAt(last - (length >> 3)) ^ (text.charCodeAt(last - (length >> 2)) << 8) ^ (text.charCodeAt(length >> 1) << 16)
    ^ (text.charCodeAt(length >> 2) << 24);
  return mixed(mixed(n, near), far);
}

const pair = (sort: number, a: string, b: string): number => mixed(name(sort, a), name(sort, b));

const HASH = 0x811c9dc5;
const hashed = (hash: number, char: number): number => Math.imul(hash ^ char, 0x01000193);

/**
 * A hash of all characters, because the ids of one team's workloads differ in few of them. The scheme of SPIFFE IDs is left out.
 */
function hashOf(text: string): number {
  let hash = HASH;
  for (let at = text.startsWith(SCHEME) ? SCHEME.length : 0; at < text.length; at++) hash = hashed(hash, text.charCodeAt(at));
  return hash;
}

/** A target kind that an identity can match. */
const ofHash = (sort: number, hash: number): number => mixed(Math.imul(sort + 1, 0x9e3779b1), hash);
const ofSubject = (issuer: string, hash: number): number => mixed(name(SUBJECT, issuer), hash);

/**
 * The hash of a target. The hash of a policy target does not include the version, because such a rule covers all versions below its own.
 */
export function numberOf({ sort, a, b }: Target): number {
  if (sort === 'subject') return ofSubject(a, hashOf(b));
  const at = SORTS.indexOf(sort);
  if (at === CALLER || at === PREFIX || at === DOMAIN) return ofHash(at, hashOf(a));
  return isPair(sort) ? pair(at, a, b) : name(at, a);
}

/** The hash of a held task. */
export const numberOfTask = (id: string): number => name(TASK, id);

/** The hashes of all targets that apply to a token. */
export type Asked = readonly number[];

/** The hash that all tokens have in common. */
const OF_EVERYTHING = name(EVERYTHING, '');
const SLASH = 47;

/** Computes them, after the signature was verified. */
export function asked(claims: Claims, kid: string): Asked {
  const { caller, trustDomain, subject, tasks, actors, ancestors, subjectToken, restsOn } = claims;
  const all = [OF_EVERYTHING, name(CREDENTIAL, claims.credentialId)];
  if (kid !== '') all.push(name(KEY, kid));
  identity(all, trustDomain, caller);
  another(all, claims, subject.issuer, subject.sub, false);
  for (let n = 0; n < tasks.length; n++) {
    const { id, owner } = tasks[n]!;
    all.push(numberOfTask(id));
    another(all, claims, owner.issuer, owner.sub, true);
  }
  for (let n = 0; n < actors.length; n++) another(all, claims, actors[n]!.issuer, actors[n]!.sub, true);
  for (let n = 0; n < ancestors.length; n++) {
    const ancestor = ancestors[n]!;
    all.push(name(CREDENTIAL, ancestor.id));
    another(all, claims, trustDomainOf(ancestor.caller), ancestor.caller, true);
  }
  // A credential that this one depends on by its subject token is not among its ancestors.
  if (subjectToken) all.push(name(CREDENTIAL, subjectToken.id));
  evidence(all, claims);
  for (let n = 0; n < restsOn.length; n++) {
    const ground = restsOn[n]!;
    if (ground.kid !== '') all.push(name(KEY, ground.kid));
    for (const id of ground.credentials) all.push(name(CREDENTIAL, id));
    for (const id of ground.tasks) all.push(numberOfTask(id));
    for (const { issuer, sub } of ground.parties) identity(all, issuer, sub);
    evidence(all, ground);
  }
  return all;
}

/** The inputs and the purpose of a grant. */
function evidence(all: number[], { trustDomain, svid, subjectToken, upstream, scopes, binding, tool, environment }: Claims | Ground): void {
  if (svid) {
    all.push(name(ANCHOR, svid.trustAnchor), ofHash(DOMAIN, hashOf(trustDomain)));
    all.push(pair(SVID, svid.serial, svidIssuer(trustDomain, svid.issuingKey)));
  }
  if (subjectToken) all.push(pair(SUBJECT_TOKEN, subjectToken.issuer, subjectToken.id));
  if (upstream !== '') {
    all.push(name(UPSTREAM, upstream));
    for (let n = 0; n < scopes.length; n++) all.push(pair(UPSTREAM_SCOPE, upstream, scopes[n]!));
  }
  if (binding !== '') all.push(name(BINDING, binding));
  if (tool !== '') all.push(name(TOOL, tool));
  if (environment !== '') all.push(name(ENVIRONMENT, environment), name(POLICY, environment));
}

/** Most parties are the caller or the subject again, whose hashes are already included. */
function another(all: number[], { caller, trustDomain, subject }: Claims, issuer: string, sub: string, afterSubject: boolean): void {
  if (sub === caller && issuer === trustDomain) return;
  if (!afterSubject || sub !== subject.sub || issuer !== subject.issuer) identity(all, issuer, sub);
}

/** Caller, prefix and trust domain rules also apply to a SPIFFE ID. A prefix matches whole segments only. */
function identity(all: number[], issuer: string, sub: string): void {
  if (!sub.startsWith(SCHEME)) {
    if (issuer !== '') all.push(ofSubject(issuer, hashOf(sub)));
    return;
  }
  let hash = HASH;
  let domain = false;
  for (let at = SCHEME.length; at < sub.length; at++) {
    const char = sub.charCodeAt(at);
    if (char === SLASH) {
      if (!domain) all.push(ofHash(DOMAIN, hash));
      domain = true;
      all.push(ofHash(PREFIX, hash));
    }
    hash = hashed(hash, char);
  }
  if (!domain) all.push(ofHash(DOMAIN, hash));
  all.push(ofHash(CALLER, hash), ofHash(PREFIX, hash));
  if (issuer !== '') all.push(ofSubject(issuer, hash));
}

/** Three bits of a word. The other bits of a hash choose the word. */
const bitsOf = (n: number): number => (1 << (n & 31)) | (1 << ((n >>> 5) & 31)) | (1 << ((n >>> 10) & 31));

/** The table of everything in force. */
export class Marks {
  #words = new Int32Array(WORDS);
  /** The newest entry of each hash, because a positive answer of the bit table is not final. */
  readonly #newest = new Map<number, number>();
  #newestOfAll = -1;
  #ended = 0;

  /**
   * Notes that something with this hash was revoked at this sequence number. {@link ALWAYS}: it applies whatever the revision.
   */
  mark(number: number, seq: number): void {
    this.#newestOfAll = Math.max(this.#newestOfAll, seq);
    this.#newest.set(number, Math.max(this.#newest.get(number) ?? -1, seq));
    if (this.#newest.size > this.#words.length) {
      this.#words = new Int32Array(this.#words.length * 2);
      for (const one of this.#newest.keys()) this.#set(one);
    }
    this.#set(number);
  }

  /**
   * Notes that this many entries are no longer in force. `true`: there are too many, and the table has to be rebuilt.
   */
  ended(count: number): boolean {
    this.#ended += count;
    return this.#ended > ENDED + this.#newest.size / 4;
  }

  /** Whether anything in force may affect a decision of this revision. `false` is certain. */
  touch(asked: Asked, revision: number): boolean {
    if (this.#newestOfAll <= revision) return false;
    const words = this.#words;
    const last = words.length - 1;
    for (let at = 0; at < asked.length; at++) {
      const n = asked[at] as number;
      const bits = bitsOf(n);
      if (((words[(n >>> 15) & last] as number) & bits) === bits && (this.#newest.get(n) ?? -1) > revision) return true;
    }
    return false;
  }

  #set(number: number): void {
    const at = (number >>> 15) & (this.#words.length - 1);
    this.#words[at] = (this.#words[at] as number) | bitsOf(number);
  }
}
