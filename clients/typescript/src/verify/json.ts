/**
 * JSON from outside, read strictly: UTF-8, one value, and no name twice in one object, since two readers could each believe another value.
 *
 * @module
 */

/** As deep as the issuer's own reader goes. */
const DEPTH = 128;

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

const [QUOTE, BACKSLASH, COMMA] = [0x22, 0x5c, 0x2c];
const [OBJECT, OBJECT_END, LIST, LIST_END] = [0x7b, 0x7d, 0x5b, 0x5d];

/** Where the string that begins at `from` ends. */
function stringEnd(text: string, from: number): number {
  for (let end = text.indexOf('"', from + 1); ; end = text.indexOf('"', end + 1)) {
    let slashes = 0;
    while (text.charCodeAt(end - 1 - slashes) === BACKSLASH) slashes++;
    if (slashes % 2 === 0) return end;
  }
}

/** Throws where a name stands twice in an object. The text is JSON: only its strings and brackets are looked at. */
function refuseNamesTwice(text: string): void {
  const open: (Set<string> | undefined)[] = [];
  let names: Set<string> | undefined;
  let nameNext = false;
  for (let at = 0; at < text.length; at++) {
    const c = text.charCodeAt(at);
    if (c === QUOTE) {
      const from = at;
      at = stringEnd(text, at);
      if (!nameNext || !names) continue;
      nameNext = false;
      const written = text.slice(from + 1, at);
      const name = written.includes('\\') ? (JSON.parse(`"${written}"`) as string) : written;
      if (names.has(name)) throw new SyntaxError('a name stands twice');
      names.add(name);
    } else if (c === OBJECT || c === LIST) {
      names = c === OBJECT ? new Set() : undefined;
      nameNext = c === OBJECT;
      if (open.push(names) > DEPTH) throw new SyntaxError('too deep');
    } else if (c === OBJECT_END || c === LIST_END) {
      open.pop();
      names = open.at(-1);
      nameNext = false;
    } else if (c === COMMA) {
      nameNext = names !== undefined;
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
