/**
 * Values that must not be seen: they print, log and serialize as `[secret]`, and are returned only on request.
 *
 * @module
 */
import { inspect } from 'node:util';

const HIDDEN = '[secret]';

/** A secret. Only {@link Secret.reveal} and {@link Secret.bytes} return its value. */
export class Secret {
  readonly #value: Buffer;

  /** @param value - the secret itself; a string is taken as UTF-8 */
  constructor(value: string | Uint8Array) {
    this.#value = typeof value === 'string' ? Buffer.from(value) : Buffer.from(value);
  }

  /** The secret as text. The caller is responsible for it from here on. */
  reveal(): string {
    return this.#value.toString();
  }

  /** A copy of the secret as bytes. */
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
 * HTTP headers for `fetch`, `node:http` and the like. They are own enumerable properties, so they can be passed and spread like any record;
 * when printed, logged or serialized as a whole they show only names.
 */
export class CredentialHeaders implements Record<string, string> {
  [name: string]: string;

  /** @param headers - by their names */
  constructor(headers: Record<string, string>) {
    Object.assign(this, headers);
  }
}

// On the prototype, because an own property would be taken for a header.
const shown = (headers: CredentialHeaders): Record<string, string> =>
  Object.fromEntries(Object.keys(headers).map((name) => [name, HIDDEN]));
Object.defineProperties(CredentialHeaders.prototype, {
  toString: { value: () => '[headers]' },
  toJSON: { value(this: CredentialHeaders) { return shown(this); } },
  [inspect.custom]: { value(this: CredentialHeaders) { return shown(this); } },
});
