/**
 * A `fetch` for anything that lasts longer than a credential: the session of an MCP client over HTTP, a poller, a worker.
 *
 * @module
 */
import type { CredentialAsk } from './ask.js';
import type { Credential } from './credential.js';
import { Closed, Denied, NotActive, NotFound } from './errors.js';

/**
 * A credential is renewed when a third of its lifetime is left, and at the earliest this many seconds before its end.
 */
const SHARE = 1 / 3;
const MARGIN = 30;

/** What the requests of a session ask for. Arguments are excluded: they belong to one call, and a session has many. */
export type SessionAsk = Omit<CredentialAsk, 'arguments' | 'signal'> & {
  /**
   * Requests may only go to the origin of this URL. Absent: the origin of the upstream. A request to any other place is refused before it
   * is sent.
   */
  readonly url?: string | URL | undefined;
};

/** `fetch`, with a valid credential in each request. */
export interface SessionFetch extends AsyncDisposable {
  (input: string | URL | Request, init?: RequestInit): Promise<Response>;
  /** Releases the credential. Calling it again has no effect. */
  close(): Promise<void>;
}

/** Creates the session's `fetch`; `get` exchanges. */
export function sessionFetch(get: () => Promise<Credential>, url: string | URL | undefined): SessionFetch {
  const session = new Session(get);
  const send = async (input: string | URL | Request, init?: RequestInit): Promise<Response> => {
    const request = new Request(input, init);
    const again = request.clone();
    const shown = await session.current();
    const response = await fetch(withCredential(request, shown, url));
    if (response.status !== 401) {
      void again.body?.cancel().catch(() => undefined);
      return response;
    }
    const another = await session.current(shown.credentialId);
    await response.body?.cancel().catch(() => undefined);
    return fetch(withCredential(again, another, url));
  };
  const close = () => session.close();
  return Object.assign(send, { close, [Symbol.asyncDispose]: close });
}

function withCredential(request: Request, credential: Credential, url: string | URL | undefined): Request {
  const { origin } = new URL(url ?? credential.baseUrl);
  if (new URL(request.url).origin !== origin) {
    throw new TypeError(`the request goes to another place than ${origin}, and a credential goes to its upstream alone`);
  }
  const headers = Object.entries(credential.headers);
  for (const [name, value] of headers) request.headers.set(name, value);
  // On a redirect to another origin, `fetch` removes the Authorization header but no other one (Fetch, section 4.4).
  const strict = headers.some(([name]) => name.toLowerCase() !== 'authorization');
  return strict && request.redirect === 'follow' ? new Request(request, { redirect: 'error' }) : request;
}

/** The credential of a session. Only one change is made at a time. */
class Session {
  readonly #get: () => Promise<Credential>;
  #held: Credential | undefined;
  #changing: Promise<Credential> | undefined;
  #closed = false;

  constructor(get: () => Promise<Credential>) {
    this.#get = get;
  }

  /** A valid credential, other than the one that was refused. */
  async current(refused?: string): Promise<Credential> {
    // A change that was already in progress may have begun before this credential was refused.
    while (this.#changing) await this.#changing.catch(() => undefined);
    if (this.#closed) throw new Closed();
    const held = this.#held;
    const good = held && held.credentialId !== refused && held.remaining > Math.min(MARGIN, held.lifetime * SHARE);
    if (good) return held;
    this.#changing = this.#change(held, refused).finally(() => (this.#changing = undefined));
    return this.#changing;
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#changing?.catch(() => undefined);
    const held = this.#held;
    this.#held = undefined;
    await held?.release();
  }

  async #change(held: Credential | undefined, refused: string | undefined): Promise<Credential> {
    if (!held) return this.#another();
    if (held.credentialId === refused) {
      held.doubt();
      return this.#another();
    }
    const { remaining } = held;
    try {
      await held.renew();
      return held;
    } catch (error) {
      // The credential cannot be renewed any more. The server decides anew whether to issue another one.
      if (error instanceof NotActive || error instanceof NotFound || error instanceof Denied) return this.#another();
      if (remaining <= 0) throw error;
      return held;
    }
  }

  async #another(): Promise<Credential> {
    const before = this.#held;
    this.#held = undefined;
    await before?.release();
    return (this.#held = await this.#get());
  }
}
