/**
 * The digest of a tool call's arguments, as mayfly makes it.
 *
 * Two calls must never have one digest, or what was approved for the one serves for the other. So what a reader of JSON would change is refused: a
 * number that a double does not hold, a name that stands twice, half of a surrogate pair. The same cases in every language:
 * `tests/vectors/arguments/cases.json`.
 *
 * @module
 */
import { createHash } from 'node:crypto';
import canonicalize from 'canonicalize';
import { strictJson } from './json.js';

/** From there on RFC 8785 writes a number with an exponent. Below it a whole one is an integer to who reads it. */
const EXPONENT_FROM = 1e21;
/** Every decimal of so many digits is held by a double (`DBL_DIG` of C). */
const DIGITS = 15;

const wrong = (what: string): TypeError => new TypeError(`arguments: ${what}`);

/** Digits and exponent of a number as it is written: equal for equal numbers. */
function decimal(written: string): string {
  const [, whole = '', fraction = '', exponent = '0'] = /^-?(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/.exec(written) ?? [];
  const digits = (whole + fraction).replace(/^0+/, '');
  const short = digits.replace(/0+$/, '');
  return short === '' ? '0' : `${short}e${Number(exponent) - fraction.length + digits.length - short.length}`;
}

function refuseNumber(value: number): void {
  const size = Math.abs(value);
  if (!Number.isFinite(value)) throw wrong('NaN or an infinite number is no JSON');
  if (size <= Number.MAX_SAFE_INTEGER) return;
  // A JavaScript number does not tell what it was read from: that it has more digits than a double holds for sure is all there is to see.
  if (size < EXPONENT_FROM || decimal(size.toExponential()).replace(/e.*/, '').length > DIGITS) {
    throw wrong('an integer beyond 2^53 - 1 is none that a double holds; right would be a string');
  }
}

function refuseText(text: string): void {
  if (/\p{Surrogate}/u.test(text)) throw wrong('half of a surrogate pair is no text');
}

/**
 * Arguments in their one written form (RFC 8785).
 *
 * @throws TypeError - they are no JSON, or hold what JSON cannot carry exactly
 */
export function canonicalArguments(value: unknown): string {
  // What `toJSON` gives is looked at too, as it is written.
  JSON.stringify(value, (name, member: unknown) => {
    refuseText(name);
    if (typeof member === 'number') refuseNumber(member);
    else if (typeof member === 'string') refuseText(member);
    else if (typeof member === 'bigint') throw wrong('a BigInt is no JSON; right would be a number up to 2^53 - 1, or a string');
    return member;
  });
  const text = canonicalize(value);
  if (text === undefined) throw wrong('not JSON');
  return text;
}

/**
 * SHA-256 of the arguments in their one written form (RFC 8785), hex.
 *
 * @throws TypeError - they are no JSON, or hold what JSON cannot carry exactly
 */
export function argumentsDigest(value: unknown): string {
  return createHash('sha256').update(canonicalArguments(value)).digest('hex');
}

/**
 * The same of arguments as JSON text, as they came over the wire. It refuses what `JSON.parse` would hide: a name that stands twice in one object,
 * and a number that is not the one which was written.
 *
 * @throws TypeError - the text is no JSON, or one that two readers could take for two
 */
export function argumentsDigestOfJson(text: string | Uint8Array): string {
  const bytes = typeof text === 'string' ? new TextEncoder().encode(text) : text;
  let value: unknown;
  try {
    value = strictJson(bytes);
  } catch (error) {
    // What the parser says may quote what it read.
    throw wrong(error instanceof SyntaxError && error.message === 'a name stands twice' ? 'a name stands twice in one object' : 'not JSON text');
  }
  for (const [token] of new TextDecoder().decode(bytes).matchAll(/"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/gs)) {
    if (!token.startsWith('"')) refuseWritten(token);
  }
  refuseTexts(value);
  return createHash('sha256').update(canonicalize(value) as string).digest('hex');
}

function refuseWritten(written: string): void {
  const value = Number(written);
  const size = Math.abs(value);
  const integer = !/[.eE]/.test(written);
  if (!Number.isFinite(value) || (size > Number.MAX_SAFE_INTEGER && (integer || size < EXPONENT_FROM))
    || decimal(written) !== decimal(size.toExponential())) {
    throw wrong('a number is none that a double holds; right would be an integer up to 2^53 - 1, fewer digits, or a string');
  }
}

function refuseTexts(value: unknown): void {
  JSON.stringify(value, (name, member: unknown) => {
    refuseText(name);
    if (typeof member === 'string') refuseText(member);
    return member;
  });
}
