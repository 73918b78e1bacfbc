/**
 * The rules that revocations make, and the check of one credential against them: a few look-ups, however many rules there are.
 *
 * A revocation at seq `v` covers what was decided at `r < v`. A signing key's rule ignores `r`: whoever stole the key chooses it.
 *
 * @module
 */
import type { Claims } from './claims.js';

/** The sorts of targets. */
export const SORTS = [
  'credential', 'task', 'caller', 'prefix', 'trust-domain', 'trust-anchor', 'subject', 'upstream', 'upstream-scope', 'binding', 'tool',
  'environment', 'policy-below', 'signing-key', 'svid', 'subject-token', 'everything',
] as const;

/** One of them. */
export type Sort = (typeof SORTS)[number];

const AT = Object.fromEntries(SORTS.map((sort, at) => [sort, at])) as Record<Sort, number>;
// By number where it is asked: a look-up by a name that differs each time costs more than all else here.
const [CREDENTIAL, TASK, CALLER, PREFIX, DOMAIN, ANCHOR, SUBJECT, UPSTREAM, UPSTREAM_SCOPE, BINDING, TOOL, ENVIRONMENT, POLICY, KEY, SVID,
  SUBJECT_TOKEN, EVERYTHING] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16] as const;

/** What a revocation aims at: its sort, and one or two names. Digests are hex; what has one name has an empty second one. */
export interface Target {
  readonly sort: Sort;
  readonly a: string;
  readonly b: string;
  /** For `policy-below`: the first version that is not covered. */
  readonly below: number;
}

/** The rule that a credential ran into. */
export interface Hit {
  readonly target: Target;
  readonly seq: number;
}

interface Entry {
  revoked: number;
  until: number;
}

type Names = Map<string, Entry>;

/** Longest name of a target, characters. */
const NAME_BYTES = 2_048;

/** Marks per sort: with a thousand names one in sixteen strangers has the mark of another, and is looked up for nothing. */
const MARKS = 1 << 14;

/** A number from a name's length and four of its characters. Names with one mark may differ; one name has one mark. */
function markOf(name: string): number {
  const n = name.length;
  if (n === 0) return 0;
  let mark = n;
  mark = Math.imul(mark, 31) + name.charCodeAt(n - 1);
  mark = Math.imul(mark, 31) + name.charCodeAt(n - 1 - (n >> 3));
  mark = Math.imul(mark, 31) + name.charCodeAt(n - 1 - (n >> 2));
  mark = Math.imul(mark, 31) + name.charCodeAt(n >> 1);
  return (mark ^ (mark >>> 14)) & (MARKS - 1);
}

/** Never dropped. */
export const FOREVER = Number.POSITIVE_INFINITY;

/** When to look which rules can be dropped, by the second. */
class Calendar {
  readonly #seconds = new Map<number, Target[]>();
  #order: number[] = [];

  after(until: number, target: Target): void {
    const second = Math.floor(until / 1000) + 1;
    const due = this.#seconds.get(second);
    if (due) return void due.push(target);
    this.#seconds.set(second, [target]);
    let at = this.#order.length;
    while (at > 0 && (this.#order[at - 1] as number) > second) at--;
    this.#order.splice(at, 0, second);
  }

  due(now: number): Target | undefined {
    while (this.#order.length > 0 && (this.#order[0] as number) <= Math.floor(now / 1000)) {
      const second = this.#order[0] as number;
      const target = this.#seconds.get(second)?.pop();
      if (target) return target;
      this.#seconds.delete(second);
      this.#order.shift();
    }
    return undefined;
  }
}

/** All rules in force. */
export class Rules {
  /** By sort, then name; two names lie in one another, so nothing is put together to look it up. */
  readonly #one: Names[] = SORTS.map(() => new Map());
  readonly #two: Map<string, Names>[] = SORTS.map(() => new Map());
  readonly #policy = new Map<string, Map<number, Entry>>();
  /** The newest revocation of each sort: a decision that saw it needs no look-up. */
  readonly #newest: number[] = SORTS.map(() => -1);
  /** Lengths of the names that there are rules for, by sort: what has another length is not cut out of anything to be looked up. */
  readonly #lengths: Uint8Array[] = SORTS.map(() => new Uint8Array(NAME_BYTES + 1));
  /** Marks of the names that there are rules for, by sort; of two names the second, but of an SVID the serial. What has no mark has no rule, and its hash is never made. */
  readonly #marks: Uint8Array[] = SORTS.map(() => new Uint8Array(MARKS));
  readonly #ends = new Calendar();

  /** Puts a revocation into force. */
  add(target: Target, revoked: number, until: number): void {
    const kept = target.sort === 'signing-key' ? FOREVER : until;
    const entry = this.#slot(target);
    entry.revoked = Math.max(entry.revoked, revoked);
    entry.until = Math.max(entry.until, kept);
    const at = AT[target.sort];
    this.#newest[at] = Math.max(this.#newest[at] as number, revoked);
    this.#lengths[at]![target.a.length] = 1;
    this.#marks[at]![markOf(isPair(target.sort) && at !== SVID ? target.b : target.a)] = 1;
    if (kept < FOREVER) this.#ends.after(kept, target);
  }

  /** Whether a signing key was revoked. */
  revokesKey(kid: string): boolean {
    return this.#one[KEY]!.has(kid);
  }

  /** The rule by which a credential is revoked, if one does. `kid` is that of its header. */
  covers(claims: Claims, kid: string): Hit | undefined {
    const r = claims.revision;
    if (kid !== '' && this.revokesKey(kid)) return { target: target('signing-key', kid), seq: this.#one[KEY]!.get(kid)!.revoked };
    return this.#name(EVERYTHING, '', r) ?? this.#ids(claims, r) ?? this.#identities(claims, r) ?? this.#evidence(claims, r)
      ?? this.#resource(claims, r);
  }

  /** Drops up to `most` rules that nothing alive can still run into. */
  expire(now: number, most: number): void {
    for (let n = 0; n < most; n++) {
      const target = this.#ends.due(now);
      if (!target) return;
      const entry = this.#get(target);
      if (entry && entry.until < now) this.#remove(target);
    }
  }

  #name(at: number, a: string, r: number): Hit | undefined {
    if ((this.#newest[at] as number) <= r || this.#marks[at]![markOf(a)] !== 1) return undefined;
    const entry = this.#one[at]!.get(a);
    return entry && r < entry.revoked ? { target: target(SORTS[at]!, a), seq: entry.revoked } : undefined;
  }

  #pair(at: number, a: string, b: string, r: number): Hit | undefined {
    if ((this.#newest[at] as number) <= r || this.#marks[at]![markOf(b)] !== 1) return undefined;
    const entry = this.#two[at]!.get(a)?.get(b);
    return entry && r < entry.revoked ? { target: target(SORTS[at]!, a, b), seq: entry.revoked } : undefined;
  }

  #newer(at: number, r: number): boolean {
    return (this.#newest[at] as number) > r;
  }

  #ids(claims: Claims, r: number): Hit | undefined {
    if (this.#newer(CREDENTIAL, r)) {
      // What rests on a credential by its subject token has it as no ancestor.
      let hit = this.#name(CREDENTIAL, claims.credentialId, r);
      for (let n = 0; !hit && n < claims.ancestors.length; n++) hit = this.#name(CREDENTIAL, claims.ancestors[n]!.id, r);
      hit ??= claims.subjectToken && this.#name(CREDENTIAL, claims.subjectToken.id, r);
      if (hit) return hit;
    }
    if (!this.#newer(TASK, r)) return undefined;
    for (const { id } of claims.tasks) {
      const hit = this.#name(TASK, id, r);
      if (hit) return hit;
    }
    return undefined;
  }

  #identities(claims: Claims, r: number): Hit | undefined {
    const { caller, trustDomain, subject } = claims;
    if (!this.#newer(CALLER, r) && !this.#newer(PREFIX, r) && !this.#newer(DOMAIN, r) && !this.#newer(SUBJECT, r)) return undefined;
    // Most of them are the caller or the subject over again: those were asked.
    const asked = (issuer: string, sub: string) =>
      (sub === caller && issuer === trustDomain) || (sub === subject.sub && issuer === subject.issuer);
    let hit = this.#identity(trustDomain, caller, r);
    if (!hit && (subject.sub !== caller || subject.issuer !== trustDomain)) hit = this.#identity(subject.issuer, subject.sub, r);
    for (let n = 0; !hit && n < claims.tasks.length; n++) {
      const { owner } = claims.tasks[n]!;
      if (!asked(owner.issuer, owner.sub)) hit = this.#identity(owner.issuer, owner.sub, r);
    }
    for (let n = 0; !hit && n < claims.actors.length; n++) {
      const actor = claims.actors[n]!;
      if (!asked(actor.issuer, actor.sub)) hit = this.#identity(actor.issuer, actor.sub, r);
    }
    for (let n = 0; !hit && n < claims.ancestors.length; n++) {
      const one = claims.ancestors[n]!.caller;
      const domain = trustDomainOf(one);
      if (!asked(domain, one)) hit = this.#identity(domain, one, r);
    }
    return hit;
  }

  /** A SPIFFE ID answers caller, prefix and trust domain rules too; only whole segments match a prefix. */
  #identity(issuer: string, sub: string, r: number): Hit | undefined {
    const hit = issuer === '' ? undefined : this.#pair(SUBJECT, issuer, sub, r);
    if (hit || !sub.startsWith(SCHEME)) return hit;
    return this.#domain(sub, r) ?? this.#name(CALLER, sub, r) ?? this.#prefix(sub, r);
  }

  #domain(id: string, r: number): Hit | undefined {
    if (!this.#newer(DOMAIN, r)) return undefined;
    const slash = id.indexOf('/', SCHEME.length);
    const end = slash < 0 ? id.length : slash;
    return this.#lengths[DOMAIN]![end - SCHEME.length] === 1 ? this.#name(DOMAIN, id.slice(SCHEME.length, end), r) : undefined;
  }

  #prefix(id: string, r: number): Hit | undefined {
    if (!this.#newer(PREFIX, r)) return undefined;
    const lengths = this.#lengths[PREFIX]!;
    for (let at = id.indexOf('/', SCHEME.length); at >= 0; at = id.indexOf('/', at + 1)) {
      const hit = lengths[at] === 1 ? this.#name(PREFIX, id.slice(0, at), r) : undefined;
      if (hit) return hit;
    }
    return this.#name(PREFIX, id, r);
  }

  #evidence({ svid, trustDomain, subjectToken }: Claims, r: number): Hit | undefined {
    let hit = svid && (this.#name(ANCHOR, svid.trustAnchor, r) ?? this.#name(DOMAIN, trustDomain, r));
    // By the serial first: it is none of those in nearly every case, and then nothing is put together.
    if (!hit && svid && this.#newer(SVID, r) && this.#marks[SVID]![markOf(svid.serial)] === 1) {
      const [a, b] = [svid.serial, `${trustDomain} ${svid.issuingKey}`];
      const entry = this.#two[SVID]!.get(a)?.get(b);
      if (entry && r < entry.revoked) hit = { target: target('svid', a, b), seq: entry.revoked };
    }
    return hit ?? (subjectToken && this.#pair(SUBJECT_TOKEN, subjectToken.issuer, subjectToken.id, r));
  }

  #resource({ upstream, scopes, binding, tool, environment, policyVersion }: Claims, r: number): Hit | undefined {
    let hit = upstream === '' ? undefined : this.#name(UPSTREAM, upstream, r);
    if (!hit && upstream !== '' && this.#newer(UPSTREAM_SCOPE, r)) {
      for (let n = 0; !hit && n < scopes.length; n++) hit = this.#pair(UPSTREAM_SCOPE, upstream, scopes[n]!, r);
    }
    if (!hit && binding !== '') hit = this.#name(BINDING, binding, r);
    if (!hit && tool !== '') hit = this.#name(TOOL, tool, r);
    if (hit || environment === '') return hit;
    return this.#name(ENVIRONMENT, environment, r) ?? this.#policyAbove(environment, policyVersion, r);
  }

  /** Any rule for a version above this one covers it; the newest of them decides. */
  #policyAbove(environment: string, version: number, r: number): Hit | undefined {
    if (!this.#newer(POLICY, r) || this.#marks[POLICY]![markOf(environment)] !== 1) return undefined;
    let hit: Hit | undefined;
    for (const [below, entry] of this.#policy.get(environment) ?? []) {
      if (below > version && r < entry.revoked && entry.revoked > (hit?.seq ?? -1)) {
        hit = { target: { ...target('policy-below', environment), below }, seq: entry.revoked };
      }
    }
    return hit;
  }

  #get({ sort, a, b, below }: Target): Entry | undefined {
    if (sort === 'policy-below') return this.#policy.get(a)?.get(below);
    return isPair(sort) ? this.#two[AT[sort]]!.get(a)?.get(b) : this.#one[AT[sort]]!.get(a);
  }

  #slot(target: Target): Entry {
    const found = this.#get(target);
    if (found) return found;
    const entry: Entry = { revoked: 0, until: 0 };
    const { sort, a, b, below } = target;
    if (sort === 'policy-below') nested(this.#policy, a).set(below, entry);
    else if (isPair(sort)) nested(this.#two[AT[sort]]!, a).set(b, entry);
    else this.#one[AT[sort]]!.set(a, entry);
    return entry;
  }

  #remove({ sort, a, b, below }: Target): void {
    if (sort === 'policy-below') removed(this.#policy, a, below);
    else if (isPair(sort)) removed(this.#two[AT[sort]]!, a, b);
    else this.#one[AT[sort]]!.delete(a);
  }
}

const SCHEME = 'spiffe://';

const isPair = (sort: Sort): boolean => sort === 'subject' || sort === 'upstream-scope' || sort === 'subject-token' || sort === 'svid';

function nested<K, V>(maps: Map<string, Map<K, V>>, name: string): Map<K, V> {
  let inner = maps.get(name);
  if (!inner) maps.set(name, (inner = new Map()));
  return inner;
}

function removed<K, V>(maps: Map<string, Map<K, V>>, name: string, key: K): void {
  const inner = maps.get(name);
  inner?.delete(key);
  if (inner?.size === 0) maps.delete(name);
}

/** A target. */
export const target = (sort: Sort, a = '', b = '', below = 0): Target => ({ sort, a, b, below });

/** The trust domain of a SPIFFE ID; empty for what is none. */
export function trustDomainOf(id: string): string {
  if (!id.startsWith(SCHEME)) return '';
  const end = id.indexOf('/', SCHEME.length);
  return end < 0 ? id.slice(SCHEME.length) : id.slice(SCHEME.length, end);
}
