/**
 * Strict reading of untrusted JSON: UTF-8, one value, and no duplicate name in an object, because two readers could each take another
 * value.
 *
 * @module
 */

/** The same nesting depth as the issuer's own reader. */
const DEPTH = 128;

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

const [QUOTE, BACKSLASH, COMMA] = [0x22, 0x5c, 0x2c];
const [OBJECT, OBJECT_END, LIST, LIST_END] = [0x7b, 0x7d, 0x5b, 0x5d];

/** The end of the string that begins at `from`. */
function stringEnd(text: string, from: number): number {
  for (let end = text.indexOf('"', from + 1); ; end = text.indexOf('"', end + 1)) {
    let slashes = 0;
    while (text.charCodeAt(end - 1 - slashes) === BACKSLASH) slashes++;
    if (slashes % 2 === 0) return end;
  }
}

/** Throws if a name occurs twice in an object. The text is known to be JSON; only its strings and brackets are read. */
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
 * @throws SyntaxError or TypeError - it is not one
 */
export function strictJson(bytes: Uint8Array): unknown {
  const text = utf8.decode(bytes);
  const value: unknown = JSON.parse(text);
  refuseNamesTwice(text);
  return value;
}

/** Whether it is a JSON object. */
export const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
