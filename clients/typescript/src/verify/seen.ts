/**
 * What was found of tokens that were shown before, by their digest: no token is kept.
 *
 * @module
 */
import * as crypto from 'node:crypto';

/** Tokens that one verifier remembers, at most. Each is its claims, 2 KiB as a rule. */
const MOST = 16_384;

// In one call where there is one (Node 20.12 and newer): half the time.
const digest: (token: string) => string =
  typeof crypto.hash === 'function'
    ? (token) => crypto.hash('sha256', token, 'base64')
    : (token) => crypto.createHash('sha256').update(token).digest('base64');

/** The newest {@link MOST} at most: the older half goes when the younger one is full, and what is asked for meanwhile is young again. */
export class Seen<T> {
  #young = new Map<string, T>();
  #old = new Map<string, T>();

  /** @param most - how many at most */
  constructor(private readonly most = MOST) {}

  /** How many are remembered. */
  get size(): number {
    return this.#young.size + this.#old.size;
  }

  /** What is remembered of a token. */
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
