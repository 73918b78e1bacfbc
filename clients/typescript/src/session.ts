/**
 * A `fetch` for what outlasts a credential: an MCP client's session over HTTP, a poller, a worker.
 *
 * @module
 */
import type { CredentialAsk } from './ask.js';
import type { Credential } from './credential.js';
import { Closed, Denied, NotActive, NotFound } from './errors.js';

/** A credential is renewed when a third of its life is left, and no sooner than so many seconds before its end. */
const SHARE = 1 / 3;
const MARGIN = 30;

/** What the requests of a session are for. Arguments are those of one call, and a session has many. */
export type SessionAsk = Omit<CredentialAsk, 'arguments' | 'signal'> & {
  /** Where requests may go: to this URL's origin. Absent: to that of the upstream. One that goes elsewhere is refused before it is sent. */
  readonly url?: string | URL | undefined;
};

/** `fetch`, with a good credential in each request. */
export interface SessionFetch extends AsyncDisposable {
  (input: string | URL | Request, init?: RequestInit): Promise<Response>;
  /** Gives the credential back. A repeat does nothing. */
  close(): Promise<void>;
}

/** Makes one; `get` exchanges. */
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
  // `fetch` takes Authorization off where a redirect leads elsewhere (Fetch, section 4.4), and no other header.
  const strict = headers.some(([name]) => name.toLowerCase() !== 'authorization');
  return strict && request.redirect === 'follow' ? new Request(request, { redirect: 'error' }) : request;
}

/** The credential of a session, one change at a time. */
class Session {
  readonly #get: () => Promise<Credential>;
  #held: Credential | undefined;
  #changing: Promise<Credential> | undefined;
  #closed = false;

  constructor(get: () => Promise<Credential>) {
    this.#get = get;
  }

  /** One that is good; another one than that which was refused. */
  async current(refused?: string): Promise<Credential> {
    // Whoever changed it meanwhile may have done so before this one was refused.
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
      // It cannot be renewed any more. Whether there is another one is decided anew.
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
