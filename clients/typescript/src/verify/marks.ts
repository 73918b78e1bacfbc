/**
 * The quick no: whether anything of what is in force can touch a token, by numbers that were made once when the token was read.
 *
 * Each question that a token answers has a number, and so has each target: of the same question, the same number. What is in force leaves its
 * marks in a small table. A token none of whose numbers is marked is touched by nothing, which is nearly every token; the others are asked
 * about by name (rules.ts). So a mark too many costs time and never an answer; a mark too few there cannot be.
 *
 * @module
 */
import type { Claims, Ground } from './claims.js';
import { isPair, SCHEME, SORTS, svidIssuer, trustDomainOf, type Target } from './target.js';

/** The least number of words: powers of two, and at least one for each number that is marked, so that few strangers have all of a number's bits. */
const WORDS = 256;
/** Marks of what ended that are kept before all are made anew, beside a quarter of all. */
const ENDED = 64;
/** What bites whatever the revision: a signing key that was revoked, a task that is held. */
export const ALWAYS = Number.POSITIVE_INFINITY;

// By number where it is asked: a look-up by a name that differs each time costs more than all else here.
const [CREDENTIAL, TASK, CALLER, PREFIX, DOMAIN, ANCHOR, SUBJECT, UPSTREAM, UPSTREAM_SCOPE, BINDING, TOOL, ENVIRONMENT, POLICY, KEY, SVID,
  SUBJECT_TOKEN, EVERYTHING] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16] as const;

/** A number whose every bit hangs on each bit of these. */
function mixed(n: number, more: number): number {
  n = Math.imul(n ^ (n >>> 15) ^ more, 0x85ebca6b);
  n = Math.imul(n ^ (n >>> 13), 0xc2b2ae35);
  return n ^ (n >>> 16);
}

/**
 * A number from a name's length and eight of its characters, the last four among them: names with one number may differ, one name has one number.
 * To go over all characters costs more than what is done with the number.
 */
function name(sort: number, text: string): number {
  const length = text.length;
  const n = Math.imul(sort + 1, 0x9e3779b1) ^ length;
  if (length === 0) return mixed(n, 0);
  const last = length - 1;
  // Of short ones some stand for several places: the same ones each time.
  const near = text.charCodeAt(last) ^ (text.charCodeAt(last - (length > 1 ? 1 : 0)) << 8) ^ (text.charCodeAt(last - (length > 2 ? 2 : 0)) << 16)
    ^ (text.charCodeAt(last - (length > 3 ? 3 : 0)) << 24);
  const far = text.charCodeAt(last - (length >> 3)) ^ (text.charCodeAt(last - (length >> 2)) << 8) ^ (text.charCodeAt(length >> 1) << 16)
    ^ (text.charCodeAt(length >> 2) << 24);
  return mixed(mixed(n, near), far);
}

const pair = (sort: number, a: string, b: string): number => mixed(name(sort, a), name(sort, b));

const HASH = 0x811c9dc5;
const hashed = (hash: number, char: number): number => Math.imul(hash ^ char, 0x01000193);

/** Of all characters: those of one team's workloads differ in few. Of SPIFFE IDs the scheme is left out. */
function hashOf(text: string): number {
  let hash = HASH;
  for (let at = text.startsWith(SCHEME) ? SCHEME.length : 0; at < text.length; at++) hash = hashed(hash, text.charCodeAt(at));
  return hash;
}

/** Of a sort that an identity answers. */
const ofHash = (sort: number, hash: number): number => mixed(Math.imul(sort + 1, 0x9e3779b1), hash);
const ofSubject = (issuer: string, hash: number): number => mixed(name(SUBJECT, issuer), hash);

/** The number of a target. Of a policy the version is not in it: a rule is for all below its own. */
export function numberOf({ sort, a, b }: Target): number {
  if (sort === 'subject') return ofSubject(a, hashOf(b));
  const at = SORTS.indexOf(sort);
  if (at === CALLER || at === PREFIX || at === DOMAIN) return ofHash(at, hashOf(a));
  return isPair(sort) ? pair(at, a, b) : name(at, a);
}

/** The number of a held task. */
export const numberOfTask = (id: string): number => name(TASK, id);

/** The numbers of all that a token answers. */
export type Asked = readonly number[];

/** What is the same of every token. */
const OF_EVERYTHING = name(EVERYTHING, '');
const SLASH = 47;

/** Makes them: when its signature was found good. */
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
  // What rests on a credential by its subject token has it as no ancestor.
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

/** What a grant rests on, and what it is for. */
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

/** Most are the caller or the subject over again: those were asked. */
function another(all: number[], { caller, trustDomain, subject }: Claims, issuer: string, sub: string, afterSubject: boolean): void {
  if (sub === caller && issuer === trustDomain) return;
  if (!afterSubject || sub !== subject.sub || issuer !== subject.issuer) identity(all, issuer, sub);
}

/** A SPIFFE ID answers caller, prefix and trust domain rules too; only whole segments match a prefix. */
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

/** Three bits of a word. The other bits of a number choose the word. */
const bitsOf = (n: number): number => (1 << (n & 31)) | (1 << ((n >>> 5) & 31)) | (1 << ((n >>> 10) & 31));

/** The marks of all that is in force. */
export class Marks {
  #words = new Int32Array(WORDS);
  /** The newest of each number: that a table of bits says maybe is not the last word. */
  readonly #newest = new Map<number, number>();
  #newestOfAll = -1;
  #ended = 0;

  /** Something with this number was revoked at this seq; {@link ALWAYS}: it bites whatever a decision saw. */
  mark(number: number, seq: number): void {
    this.#newestOfAll = Math.max(this.#newestOfAll, seq);
    this.#newest.set(number, Math.max(this.#newest.get(number) ?? -1, seq));
    if (this.#newest.size > this.#words.length) {
      this.#words = new Int32Array(this.#words.length * 2);
      for (const one of this.#newest.keys()) this.#set(one);
    }
    this.#set(number);
  }

  /** So many marks are of what is no longer in force. `true`: they are too many, and all are to be made anew. */
  ended(count: number): boolean {
    this.#ended += count;
    return this.#ended > ENDED + this.#newest.size / 4;
  }

  /** Whether anything in force may touch what was decided at this revision. `false` is certain. */
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
