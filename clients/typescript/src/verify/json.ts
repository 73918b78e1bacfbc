/**
 * JSON from outside, read strictly: UTF-8, one value, and no name twice in one object, since two readers could each believe another value.
 *
 * @module
 */

/** As deep as the issuer's own reader goes. */
const DEPTH = 128;

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** Throws where a name stands twice in an object. The text is JSON: only its strings and brackets are looked at. */
function refuseNamesTwice(text: string): void {
  const open: (Set<string> | undefined)[] = [];
  for (let at = 0, nameNext = false; at < text.length; at++) {
    const c = text[at];
    if (c === '"') {
      const from = at;
      for (at++; text[at] !== '"'; at++) if (text[at] === '\\') at++;
      const names = open.at(-1);
      if (!nameNext || !names) continue;
      const name = JSON.parse(text.slice(from, at + 1)) as string;
      if (names.has(name)) throw new SyntaxError('a name stands twice');
      names.add(name);
      nameNext = false;
    } else if (c === '{' || c === '[') {
      open.push(c === '{' ? new Set() : undefined);
      if (open.length > DEPTH) throw new SyntaxError('too deep');
      nameNext = c === '{';
    } else if (c === '}' || c === ']') {
      open.pop();
      nameNext = false;
    } else if (c === ',') {
      nameNext = open.at(-1) !== undefined;
    }
  }
}

/**
 * Reads one JSON value.
 *
 * @throws SyntaxError or TypeError - it is none
 */
export function strictJson(bytes: Uint8Array): unknown {
  const text = utf8.decode(bytes);
  const value: unknown = JSON.parse(text);
  refuseNamesTwice(text);
  return value;
}

/** Whether it is an object of JSON. */
export const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
