/**
 * The rules that revocations create, and the check of one credential against them, by name. marks.ts filters out credentials that no rule
 * affects.
 *
 * A revocation with sequence number `v` covers everything decided at `r < v`. A rule on a signing key ignores `r`, because whoever stole
 * the key can choose it.
 *
 * @module
 */
import type { Claims, Ground } from './claims.js';
import { SCHEME, SORTS, svidIssuer, trustDomainOf, type Sort, type Target } from './target.js';

/** The rule that covers a credential. */
export interface Hit {
  readonly target: Target;
  readonly seq: number;
}

interface Entry {
  readonly target: Target;
  revoked: number;
  until: number;
}

/** The end of a rule that is never dropped. */
export const FOREVER = Number.POSITIVE_INFINITY;

/** The seconds at which rules may be droppable. */
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
  /** By kind, then name. Pairs of names are nested maps, so that no key has to be built for a lookup. */
  readonly #entries = new Map<Sort, Map<string, Map<string, Entry>>>(SORTS.map((sort) => [sort, new Map()]));
  /** By environment, then version. There are few, because each is a change of policy. */
  readonly #policy = new Map<string, Map<number, Entry>>();
  readonly #ends = new Calendar();
  #count = 0;

  /** The number of targets with a rule. */
  get size(): number {
    return this.#count;
  }

  /** Everything in force. */
  *entries(): Generator<{ readonly target: Target; readonly revoked: number }> {
    for (const names of this.#entries.values()) for (const seconds of names.values()) yield* seconds.values();
    for (const versions of this.#policy.values()) yield* versions.values();
  }

  /** Puts a revocation into force. */
  add(target: Target, revoked: number, until: number): void {
    const kept = target.sort === 'signing-key' ? FOREVER : until;
    const entry = this.#slot(target);
    entry.revoked = Math.max(entry.revoked, revoked);
    entry.until = Math.max(entry.until, kept);
    if (kept < FOREVER) this.#ends.after(kept, target);
  }

  /** Whether a signing key was revoked. */
  revokesKey(kid: string): boolean {
    return this.#named('signing-key', kid, '') !== undefined;
  }

  /** The rule by which a credential is revoked, if any. `kid` is that of its header. */
  covers(claims: Claims, kid: string): Hit | undefined {
    const key = this.#named('signing-key', kid, '');
    if (key) return { target: key.target, seq: key.revoked };
    let hit: Entry | undefined;
    questions(claims, (sort, a, b) => {
      const entry = this.#named(sort, a, b);
      if (!entry || claims.revision >= entry.revoked) return false;
      hit = entry;
      return true;
    });
    if (hit) return { target: hit.target, seq: hit.revoked };
    for (const { kid: key } of claims.restsOn) {
      // Whatever the revision says: a credential that depends on something a stolen key may have signed is not valid.
      const found = this.#named('signing-key', key, '');
      if (found) return { target: found.target, seq: found.revoked };
    }
    const { revision } = claims;
    for (const { environment, policyVersion } of [claims, ...claims.restsOn]) {
      const found = this.#policyAbove(environment, policyVersion, revision);
      if (found) return found;
    }
    return undefined;
  }

  /** Drops up to `most` rules that no living credential can match any more. */
  expire(now: number, most: number): void {
    for (let n = 0; n < most; n++) {
      const target = this.#ends.due(now);
      if (!target) return;
      const entry = this.#get(target);
      if (entry && entry.until < now) this.#remove(target);
    }
  }

  /** Any rule for a version above this one covers it; the newest of them decides. */
  #policyAbove(environment: string, policyVersion: number, revision: number): Hit | undefined {
    let hit: Entry | undefined;
    for (const entry of this.#policy.get(environment)?.values() ?? []) {
      if (entry.target.below > policyVersion && revision < entry.revoked && entry.revoked > (hit?.revoked ?? -1)) hit = entry;
    }
    return hit && { target: hit.target, seq: hit.revoked };
  }

  #get({ sort, a, b, below }: Target): Entry | undefined {
    return sort === 'policy-below' ? this.#policy.get(a)?.get(below) : this.#named(sort, a, b);
  }

  #named(sort: Sort, a: string, b: string): Entry | undefined {
    return this.#entries.get(sort)!.get(a)?.get(b);
  }

  #slot(target: Target): Entry {
    const found = this.#get(target);
    if (found) return found;
    const entry: Entry = { target, revoked: 0, until: 0 };
    const { sort, a, b, below } = target;
    this.#count++;
    if (sort === 'policy-below') within(this.#policy, a).set(below, entry);
    else within(this.#entries.get(sort)!, a).set(b, entry);
    return entry;
  }

  #remove({ sort, a, b, below }: Target): void {
    const gone = sort === 'policy-below' ? taken(this.#policy, a, below) : taken(this.#entries.get(sort)!, a, b);
    if (gone) this.#count--;
  }
}

function within<K, V>(maps: Map<string, Map<K, V>>, name: string): Map<K, V> {
  let inner = maps.get(name);
  if (!inner) maps.set(name, (inner = new Map()));
  return inner;
}

function taken<K, V>(maps: Map<string, Map<K, V>>, name: string, key: K): boolean {
  const inner = maps.get(name);
  const gone = inner?.delete(key) ?? false;
  if (inner?.size === 0) maps.delete(name);
  return gone;
}

type Ask = (sort: Sort, a: string, b: string) => boolean;

/**
 * Visits every target that applies to a token, except those of its key and its policy, until a callback returns `true`.
 */
function questions(claims: Claims, ask: Ask): boolean {
  const { trustDomain, subject, tasks, ancestors, subjectToken } = claims;
  return ask('everything', '', '')
    || ask('credential', claims.credentialId, '')
    || ancestors.some(({ id }) => ask('credential', id, ''))
    // A credential that this one depends on by its subject token is not among its ancestors.
    || (subjectToken !== undefined && ask('credential', subjectToken.id, ''))
    || tasks.some(({ id }) => ask('task', id, ''))
    || ofIdentity(trustDomain, claims.caller, ask)
    || ofIdentity(subject.issuer, subject.sub, ask)
    || tasks.some(({ owner }) => ofIdentity(owner.issuer, owner.sub, ask))
    || claims.actors.some(({ issuer, sub }) => ofIdentity(issuer, sub, ask))
    || ancestors.some(({ caller }) => ofIdentity(trustDomainOf(caller), caller, ask))
    || ofEvidence(claims, ask)
    || ofResource(claims, ask)
    || claims.restsOn.some((ground) => ofGround(ground, ask));
}

function ofGround(ground: Ground, ask: Ask): boolean {
  return ground.credentials.some((id) => ask('credential', id, ''))
    || ground.tasks.some((id) => ask('task', id, ''))
    || ground.parties.some(({ issuer, sub }) => ofIdentity(issuer, sub, ask))
    || ofEvidence(ground, ask)
    || ofResource(ground, ask);
}

function ofEvidence({ trustDomain, svid, subjectToken }: Claims | Ground, ask: Ask): boolean {
  return (svid !== undefined && (ask('trust-anchor', svid.trustAnchor, '') || ask('trust-domain', trustDomain, '')
      || ask('svid', svid.serial, svidIssuer(trustDomain, svid.issuingKey))))
    || (subjectToken !== undefined && ask('subject-token', subjectToken.issuer, subjectToken.id));
}

function ofResource({ upstream, scopes, binding, tool, environment }: Claims | Ground, ask: Ask): boolean {
  return (upstream !== '' && (ask('upstream', upstream, '') || scopes.some((scope) => ask('upstream-scope', upstream, scope))))
    || (binding !== '' && ask('binding', binding, ''))
    || (tool !== '' && ask('tool', tool, ''))
    || (environment !== '' && ask('environment', environment, ''));
}

/** Caller, prefix and trust domain rules also apply to a SPIFFE ID. A prefix matches whole segments only. */
function ofIdentity(issuer: string, sub: string, ask: Ask): boolean {
  if (issuer !== '' && ask('subject', issuer, sub)) return true;
  if (!sub.startsWith(SCHEME)) return false;
  if (ask('trust-domain', trustDomainOf(sub), '') || ask('caller', sub, '')) return true;
  for (let at = sub.indexOf('/', SCHEME.length); at >= 0; at = sub.indexOf('/', at + 1)) if (ask('prefix', sub.slice(0, at), '')) return true;
  return ask('prefix', sub, '');
}
