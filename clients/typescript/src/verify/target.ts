/**
 * What revocations aim at.
 *
 * @module
 */

/** The sorts of targets. */
export const SORTS = [
  'credential', 'task', 'caller', 'prefix', 'trust-domain', 'trust-anchor', 'subject', 'upstream', 'upstream-scope', 'binding', 'tool',
  'environment', 'policy-below', 'signing-key', 'svid', 'subject-token', 'everything',
] as const;

/** One of them. */
export type Sort = (typeof SORTS)[number];

/** What a revocation aims at: its sort, and one or two names. Digests are hex; what has one name has an empty second one, what has none two. */
export interface Target {
  readonly sort: Sort;
  readonly a: string;
  readonly b: string;
  /** For `policy-below`: the first version that is not covered. */
  readonly below: number;
}

/** A target. */
export const target = (sort: Sort, a = '', b = '', below = 0): Target => ({ sort, a, b, below });

/** Whether targets of a sort have two names. */
export const isPair = (sort: Sort): boolean => sort === 'subject' || sort === 'upstream-scope' || sort === 'subject-token' || sort === 'svid';

/** What every SPIFFE ID begins with. */
export const SCHEME = 'spiffe://';

/** The trust domain of a SPIFFE ID; empty for what is none. */
export function trustDomainOf(id: string): string {
  if (!id.startsWith(SCHEME)) return '';
  const end = id.indexOf('/', SCHEME.length);
  return end < 0 ? id.slice(SCHEME.length) : id.slice(SCHEME.length, end);
}

/** The second name of an SVID: its trust domain and issuing key. The first is its serial. */
export const svidIssuer = (trustDomain: string, issuingKey: string): string => `${trustDomain} ${issuingKey}`;
