/**
 * The rules that revocations make, and the check of one credential against them: a few look-ups, however many rules there are.
 *
 * A revocation at seq `v` covers what was decided at `r < v`. A signing key's rule ignores `r`: whoever stole the key chooses it.
 *
 * @module
 */
import type { Claims, Who } from './claims.js';

/** The sorts of targets. */
export const SORTS = [
  'credential', 'task', 'caller', 'prefix', 'trust-domain', 'trust-anchor', 'subject', 'upstream', 'upstream-scope', 'binding', 'tool',
  'environment', 'policy-below', 'signing-key', 'svid', 'subject-token', 'everything',
] as const;

/** One of them. */
export type Sort = (typeof SORTS)[number];

const AT = Object.fromEntries(SORTS.map((sort, at) => [sort, at])) as Record<Sort, number>;

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
  readonly #ends = new Calendar();

  /** Puts a revocation into force. */
  add(target: Target, revoked: number, until: number): void {
    const kept = target.sort === 'signing-key' ? FOREVER : until;
    const entry = this.#slot(target);
    entry.revoked = Math.max(entry.revoked, revoked);
    entry.until = Math.max(entry.until, kept);
    const at = AT[target.sort];
    this.#newest[at] = Math.max(this.#newest[at] as number, revoked);
    if (kept < FOREVER) this.#ends.after(kept, target);
  }

  /** Whether a signing key was revoked. */
  revokesKey(kid: string): boolean {
    return this.#one[AT['signing-key']]!.has(kid);
  }

  /** The rule by which a credential is revoked, if one does. `kid` is that of its header. */
  covers(claims: Claims, kid: string): Hit | undefined {
    const r = claims.revision;
    if (kid !== '' && this.revokesKey(kid)) return { target: target('signing-key', kid), seq: this.#one[AT['signing-key']]!.get(kid)!.revoked };
    return this.#name('everything', '', r) ?? this.#ids(claims, r) ?? this.#identities(claims, r) ?? this.#evidence(claims, r)
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

  #name(sort: Sort, a: string, r: number): Hit | undefined {
    const at = AT[sort];
    if ((this.#newest[at] as number) <= r) return undefined;
    const entry = this.#one[at]!.get(a);
    return entry && r < entry.revoked ? { target: target(sort, a), seq: entry.revoked } : undefined;
  }

  #pair(sort: Sort, a: string, b: string, r: number): Hit | undefined {
    const at = AT[sort];
    if ((this.#newest[at] as number) <= r) return undefined;
    const entry = this.#two[at]!.get(a)?.get(b);
    return entry && r < entry.revoked ? { target: target(sort, a, b), seq: entry.revoked } : undefined;
  }

  #newer(sort: Sort, r: number): boolean {
    return (this.#newest[AT[sort]] as number) > r;
  }

  #ids(claims: Claims, r: number): Hit | undefined {
    if (this.#newer('credential', r)) {
      // What rests on a credential by its subject token has it as no ancestor.
      let hit = this.#name('credential', claims.credentialId, r);
      for (let n = 0; !hit && n < claims.ancestors.length; n++) hit = this.#name('credential', claims.ancestors[n]!.id, r);
      hit ??= claims.subjectToken && this.#name('credential', claims.subjectToken.id, r);
      if (hit) return hit;
    }
    if (!this.#newer('task', r)) return undefined;
    for (const { id } of claims.tasks) {
      const hit = this.#name('task', id, r);
      if (hit) return hit;
    }
    return undefined;
  }

  #identities(claims: Claims, r: number): Hit | undefined {
    const { caller, trustDomain, subject } = claims;
    if (!this.#newer('caller', r) && !this.#newer('prefix', r) && !this.#newer('trust-domain', r) && !this.#newer('subject', r)) return undefined;
    let hit = this.#identity(trustDomain, caller, r);
    if (hit) return hit;
    const isCaller = (who: Who) => who.sub === caller && who.issuer === trustDomain;
    if (!isCaller(subject)) hit = this.#identity(subject.issuer, subject.sub, r);
    for (let n = 0; !hit && n < claims.tasks.length; n++) {
      const { owner } = claims.tasks[n]!;
      if (!isCaller(owner)) hit = this.#identity(owner.issuer, owner.sub, r);
    }
    for (let n = 0; !hit && n < claims.ancestors.length; n++) {
      const one = claims.ancestors[n]!.caller;
      hit = this.#identity(trustDomainOf(one), one, r);
    }
    for (let n = 0; !hit && n < claims.actors.length; n++) {
      const actor = claims.actors[n]!;
      if (!isCaller(actor)) hit = this.#identity(actor.issuer, actor.sub, r);
    }
    return hit;
  }

  /** A SPIFFE ID answers caller, prefix and trust domain rules too; only whole segments match a prefix. */
  #identity(issuer: string, sub: string, r: number): Hit | undefined {
    const hit = issuer === '' ? undefined : this.#pair('subject', issuer, sub, r);
    if (hit || !sub.startsWith(SCHEME)) return hit;
    return this.#name('trust-domain', trustDomainOf(sub), r) ?? this.#name('caller', sub, r) ?? this.#prefix(sub, r);
  }

  #prefix(id: string, r: number): Hit | undefined {
    if (!this.#newer('prefix', r)) return undefined;
    for (let at = id.indexOf('/', SCHEME.length); at >= 0; at = id.indexOf('/', at + 1)) {
      const hit = this.#name('prefix', id.slice(0, at), r);
      if (hit) return hit;
    }
    return this.#name('prefix', id, r);
  }

  #evidence({ svid, trustDomain, subjectToken }: Claims, r: number): Hit | undefined {
    let hit = svid && (this.#name('trust-anchor', svid.trustAnchor, r) ?? this.#name('trust-domain', trustDomain, r));
    if (!hit && svid && this.#newer('svid', r)) hit = this.#pair('svid', trustDomain, `${svid.issuingKey} ${svid.serial}`, r);
    return hit ?? (subjectToken && this.#pair('subject-token', subjectToken.issuer, subjectToken.id, r));
  }

  #resource({ upstream, scopes, binding, tool, environment, policyVersion }: Claims, r: number): Hit | undefined {
    let hit = upstream === '' ? undefined : this.#name('upstream', upstream, r);
    if (!hit && upstream !== '' && this.#newer('upstream-scope', r)) {
      for (let n = 0; !hit && n < scopes.length; n++) hit = this.#pair('upstream-scope', upstream, scopes[n]!, r);
    }
    if (!hit && binding !== '') hit = this.#name('binding', binding, r);
    if (!hit && tool !== '') hit = this.#name('tool', tool, r);
    if (hit || environment === '') return hit;
    return this.#name('environment', environment, r) ?? this.#policyAbove(environment, policyVersion, r);
  }

  /** Any rule for a version above this one covers it; the newest of them decides. */
  #policyAbove(environment: string, version: number, r: number): Hit | undefined {
    if (!this.#newer('policy-below', r)) return undefined;
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
