/**
 * Why a credential is not accepted: a fixed list, the same in every language.
 *
 * @module
 */

/** The list, in the order of the checks. */
export const REASONS = [
  'too_long', 'malformed', 'key_revoked', 'algorithm', 'typ', 'header_parameter', 'unknown_key', 'signature', 'claims', 'newer_version',
  'issuer', 'audience', 'life', 'expired', 'not_yet', 'possession', 'not_whole', 'rolled_back', 'stale', 'revoked', 'held', 'scope', 'tool', 'arguments',
] as const;

/** One word of the list. */
export type RefusedReason = (typeof REASONS)[number];

/** A credential that was not accepted. The text contains nothing of the token but names. */
export class Refused extends Error {
  override readonly name = 'Refused';

  /** @param reason - the word of the fixed list */
  constructor(readonly reason: RefusedReason, message: string) {
    super(message);
  }

  /**
   * The credential may be valid, but the revocations are not known here, or not freshly enough. Trying again later may help.
   */
  get unsure(): boolean {
    return this.reason === 'not_whole' || this.reason === 'rolled_back' || this.reason === 'stale';
  }
}
