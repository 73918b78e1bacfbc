/**
 * What was found about tokens that were presented before, by their digest. No token is kept.
 *
 * @module
 */
import * as crypto from 'node:crypto';

/** The most tokens that one verifier remembers. Each entry is the claims, usually 2 KiB. */
const MOST = 16_384;

// In one call where it exists (Node 20.12 and newer), which takes half the time.
const digest: (token: string) => string =
  typeof crypto.hash === 'function'
    ? (token) => crypto.hash('sha256', token, 'base64')
    : (token) => crypto.createHash('sha256').update(token).digest('base64');

/**
 * At most the newest {@link MOST}. The older half is dropped when the younger one is full; entries that are used meanwhile move to the
 * younger half.
 */
export class Seen<T> {
  #young = new Map<string, T>();
  #old = new Map<string, T>();

  /** @param most - the most entries */
  constructor(private readonly most = MOST) {}

  /** The number of entries. */
  get size(): number {
    return this.#young.size + this.#old.size;
  }

  /** What is remembered about a token. */
  get(token: string): T | undefined {
    const name = digest(token);
    const young = this.#young.get(name);
    if (young !== undefined) return young;
    const old = this.#old.get(name);
    if (old !== undefined) {
      this.#old.delete(name);
      this.#put(name, old);
    }
    return old;
  }

  /** Remembers it. */
  put(token: string, what: T): void {
    this.#put(digest(token), what);
  }

  #put(name: string, what: T): void {
    if (this.#young.size >= this.most / 2) {
      this.#old = this.#young;
      this.#young = new Map();
    }
    this.#young.set(name, what);
  }
}
