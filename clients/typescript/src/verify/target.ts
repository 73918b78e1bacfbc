/**
 * The targets of revocations.
 *
 * @module
 */

/** The kinds of targets. */
export const SORTS = [
  'credential', 'task', 'caller', 'prefix', 'trust-domain', 'trust-anchor', 'subject', 'upstream', 'upstream-scope', 'binding', 'tool',
  'environment', 'policy-below', 'signing-key', 'svid', 'subject-token', 'everything',
] as const;

/** One of the kinds. */
export type Sort = (typeof SORTS)[number];

/**
 * The target of a revocation: its kind, and one or two names. Digests are hex. With one name the second is empty; without names both are.
 */
export interface Target {
  readonly sort: Sort;
  readonly a: string;
  readonly b: string;
  /** For `policy-below`: the first version that is not covered. */
  readonly below: number;
}

/** Creates a target. */
export const target = (sort: Sort, a = '', b = '', below = 0): Target => ({ sort, a, b, below });

/** Whether targets of a kind have two names. */
export const isPair = (sort: Sort): boolean => sort === 'subject' || sort === 'upstream-scope' || sort === 'subject-token' || sort === 'svid';

/** The prefix of every SPIFFE ID. */
export const SCHEME = 'spiffe://';

/** The trust domain of a SPIFFE ID; empty for any other text. */
export function trustDomainOf(id: string): string {
  if (!id.startsWith(SCHEME)) return '';
  const end = id.indexOf('/', SCHEME.length);
  return end < 0 ? id.slice(SCHEME.length) : id.slice(SCHEME.length, end);
}

/** The second name of an SVID target: its trust domain and issuing key. The first is its serial number. */
export const svidIssuer = (trustDomain: string, issuingKey: string): string => `${trustDomain} ${issuingKey}`;
