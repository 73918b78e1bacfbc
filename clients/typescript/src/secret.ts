/**
 * What must not be seen: it prints, logs and serializes as `[secret]`, and is had by asking for it alone.
 *
 * @module
 */
import { inspect } from 'node:util';

const HIDDEN = '[secret]';

/** A secret. Nothing but {@link Secret.reveal} and {@link Secret.bytes} gives it. */
export class Secret {
  readonly #value: Buffer;

  /** @param value - the secret itself; a text is taken as UTF-8 */
  constructor(value: string | Uint8Array) {
    this.#value = typeof value === 'string' ? Buffer.from(value) : Buffer.from(value);
  }

  /** It as text. Where it goes from here is up to whoever asked. */
  reveal(): string {
    return this.#value.toString();
  }

  /** It as bytes: a copy. */
  bytes(): Buffer {
    return Buffer.from(this.#value);
  }

  toString(): string {
    return HIDDEN;
  }

  toJSON(): string {
    return HIDDEN;
  }

  [inspect.custom](): string {
    return HIDDEN;
  }
}

/**
 * HTTP headers for `fetch`, `node:http` and the like: own enumerable properties, so they are taken and spread as any record is; printed, logged
 * or serialized as a whole they show names alone.
 */
export class CredentialHeaders implements Record<string, string> {
  [name: string]: string;

  /** @param headers - by their names */
  constructor(headers: Record<string, string>) {
    Object.assign(this, headers);
  }
}

// On the prototype: an own property would be taken for a header.
const shown = (headers: CredentialHeaders): Record<string, string> =>
  Object.fromEntries(Object.keys(headers).map((name) => [name, HIDDEN]));
Object.defineProperties(CredentialHeaders.prototype, {
  toString: { value: () => '[headers]' },
  toJSON: { value(this: CredentialHeaders) { return shown(this); } },
  [inspect.custom]: { value(this: CredentialHeaders) { return shown(this); } },
});
