/**
 * The digest of a tool call's arguments, as mayfly makes it.
 *
 * @module
 */
import { createHash } from 'node:crypto';
import canonicalize from 'canonicalize';

/**
 * SHA-256 of the arguments in their one written form (RFC 8785), hex.
 *
 * @throws TypeError - they are no JSON
 */
export function argumentsDigest(value: unknown): string {
  const text = canonicalize(value);
  if (text === undefined) throw new TypeError('arguments: not JSON');
  return createHash('sha256').update(text).digest('hex');
}
