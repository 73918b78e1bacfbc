/**
 * The digest of a tool call's arguments, as mayfly computes it.
 *
 * Two different calls must never have the same digest; otherwise an approval for one would also be valid for the other. So anything that a
 * JSON reader might change is refused: a number that a double cannot hold, a duplicate name, half of a surrogate pair. All languages share
 * the test cases in `tests/vectors/arguments/cases.json`.
 *
 * @module
 */
import { createHash } from 'node:crypto';
import canonicalize from 'canonicalize';
import { strictJson } from './json.js';

/**
 * From this value on, RFC 8785 writes a number with an exponent. Below it, a reader takes a whole number for an integer.
 */
const EXPONENT_FROM = 1e21;
/** A double holds every decimal number with this many digits (`DBL_DIG` of C). */
const DIGITS = 15;

const wrong = (what: string): TypeError => new TypeError(`arguments: ${what}`);

/** The digits and exponent of a written number: equal for equal numbers. */
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
  // A JavaScript number does not keep the text it was read from. All that can be seen is that it has more digits than a double always
  // holds.
  if (size < EXPONENT_FROM || decimal(size.toExponential()).replace(/e.*/, '').length > DIGITS) {
    throw wrong('an integer beyond 2^53 - 1 is none that a double holds; right would be a string');
  }
}

function refuseText(text: string): void {
  if (/\p{Surrogate}/u.test(text)) throw wrong('half of a surrogate pair is no text');
}

/**
 * The canonical form of arguments (RFC 8785).
 *
 * @throws TypeError - they are not JSON, or contain a value that JSON cannot carry exactly
 */
export function canonicalArguments(value: unknown): string {
  // The values that `toJSON` returns are checked too, because they are what is written.
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
 * The SHA-256 of the canonical form of arguments (RFC 8785), hex.
 *
 * @throws TypeError - they are not JSON, or contain a value that JSON cannot carry exactly
 */
export function argumentsDigest(value: unknown): string {
  return createHash('sha256').update(canonicalArguments(value)).digest('hex');
}

/**
 * The digest of arguments given as JSON text, as received. It refuses what `JSON.parse` would hide: a duplicate name in an object, and a
 * number that differs from the written one.
 *
 * @throws TypeError - the text is not JSON, or two readers could read it differently
 */
export function argumentsDigestOfJson(text: string | Uint8Array): string {
  const bytes = typeof text === 'string' ? new TextEncoder().encode(text) : text;
  let value: unknown;
  try {
    value = strictJson(bytes);
  } catch (error) {
    // The parser's message may quote the input.
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
