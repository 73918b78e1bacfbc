/**
 * The source of this workload's X.509-SVID, and the notice when it was renewed.
 *
 * @module
 */
import { X509Certificate, createPrivateKey } from 'node:crypto';
import { constants, open } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { inspect } from 'node:util';
import { spiffeId, svidOwner, type SpiffeId } from './spiffe.js';

/**
 * How often files are checked, in milliseconds. An SVID lives for minutes at least and is renewed at half its lifetime.
 */
const LOOK_MS = 2_000;

/**
 * How often, and after which pause in milliseconds, mismatched files are read again at the start: a rotation writes two of them.
 */
const HALVES = 5;
const HALF_MS = 100;

/**
 * Largest file, in bytes: a bundle of some hundred roots.
 */
const FILE_BYTES = 1024 * 1024;

/**
 * An X.509-SVID with its key, and the bundle that the server is verified with. It is kept in memory only and prints as its id.
 */
export class Svid {
  /** The SPIFFE ID it belongs to. */
  readonly owner: SpiffeId;
  /** When it expires, in milliseconds since 1970. */
  readonly notAfter: number;
  /** Identifies the SVID: SHA-256 of the certificate, hex. */
  readonly fingerprint: string;
  readonly #certificate: string;
  readonly #key: string;
  readonly #bundles: ReadonlyMap<string, readonly string[]>;

  /**
   * @param certificate - the certificate and its chain, PEM, leaf first
   * @param key - its private key, PEM
   * @param bundles - the roots of trust domains by name, PEM each
   * @throws TypeError - one of them is malformed, or they do not fit together
   */
  constructor(certificate: string, key: string, bundles: ReadonlyMap<string, readonly string[]>) {
    const leaf = new X509Certificate(certificate);
    if (!leaf.checkPrivateKey(createPrivateKey(key))) throw new TypeError('the private key is not that of the certificate');
    this.owner = svidOwner(leaf);
    this.notAfter = Date.parse(leaf.validTo);
    this.fingerprint = leaf.fingerprint256.replaceAll(':', '').toLowerCase();
    this.#certificate = certificate;
    this.#key = key;
    this.#bundles = bundles;
  }

  /**
   * The input of `tls.createSecureContext` for calling a server of this trust domain: only the roots of that domain are trusted.
   */
  context(trustDomain: string): { cert: string; key: string; ca: string[] } {
    const roots = this.#bundles.get(trustDomain);
    if (!roots?.length) throw new TypeError(`there is no bundle of the trust domain ${trustDomain}, which the server is of`);
    return { cert: this.#certificate, key: this.#key, ca: [...roots] };
  }

  /** Whether the other SVID is the same in every part. */
  equals(other: Svid): boolean {
    const [ours, theirs] = [this.#bundles, other.#bundles];
    const sameRoots = ours.size === theirs.size && [...ours].every(([domain, roots]) => roots.join() === theirs.get(domain)?.join());
    return sameRoots && this.fingerprint === other.fingerprint && this.#key === other.#key;
  }

  toString(): string {
    return this.owner.id;
  }

  toJSON(): object {
    return { id: this.owner.id, notAfter: new Date(this.notAfter).toISOString() };
  }

  [inspect.custom](): string {
    return `Svid(${this.owner.id})`;
  }
}

/** Supplies the current SVID and tells of newer ones. */
export interface SvidSource {
  /** The current SVID. Rejects when there is none yet. */
  current(signal?: AbortSignal): Promise<Svid>;
  /** Calls `changed` for each newer SVID. The function it returns stops that. */
  watch(changed: (svid: Svid) => void): () => void;
  /** Checks at once whether there is a newer one. */
  look(): Promise<void>;
  /** Stops watching. */
  close(): void;
}

/** The roots in a bundle file: PEM certificates, or a SPIFFE JWKS (SPIFFE Trust Domain and Bundle, section 4). */
export function rootsOf(text: string): string[] {
  if (text.trimStart().startsWith('{')) {
    const { keys } = JSON.parse(text) as { keys?: { use?: string; x5c?: string[] }[] };
    const certificates = keys?.filter((key) => key.use === 'x509-svid').map((key) => key.x5c?.[0] ?? '') ?? [];
    return certificates.map((der) => new X509Certificate(Buffer.from(der, 'base64')).toString());
  }
  const found = text.match(/-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g) ?? [];
  return found.map((pem) => new X509Certificate(pem).toString());
}

/** Notifies each watcher of a newer SVID, once. */
export abstract class Watched implements SvidSource {
  protected newest: Svid | undefined;
  readonly #watching = new Set<(svid: Svid) => void>();

  abstract current(signal?: AbortSignal): Promise<Svid>;
  abstract look(): Promise<void>;
  abstract close(): void;

  watch(changed: (svid: Svid) => void): () => void {
    this.#watching.add(changed);
    return () => this.#watching.delete(changed);
  }

  protected take(svid: Svid): void {
    if (this.newest?.equals(svid)) return;
    this.newest = svid;
    for (const changed of this.#watching) changed(svid);
  }
}

/** Reads a regular file as text. A device or a pipe is refused: it may have no end, and a read of it may never return. */
async function whole(path: string): Promise<string> {
  const file = await open(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0));
  try {
    const found = await file.stat();
    if (!found.isFile()) throw new TypeError(`${path}: it is not a regular file`);
    if (found.size > FILE_BYTES) throw new TypeError(`${path}: it has more than ${FILE_BYTES} bytes`);
    return await file.readFile('utf8');
  } finally {
    await file.close();
  }
}

/** The files of an SVID, as spiffe-helper, cert-manager and `mayfly ci login` write them. */
export interface SvidFiles {
  /** The certificate and its chain, PEM. */
  readonly svid: string;
  /** The private key, PEM. */
  readonly key: string;
  /** The bundle of the server's trust domain, PEM or SPIFFE JWKS. */
  readonly bundle: string;
  /** The SPIFFE ID of the server; the bundle belongs to its trust domain. Absent: this workload's own trust domain. */
  readonly serverId?: string;
  /** How often the files are checked, in milliseconds. Absent: 2,000. */
  readonly every?: number;
}

/**
 * An SVID in files that are checked regularly. Half-written files are read again later; until then the previous SVID stays in use.
 */
export class FileSource extends Watched {
  readonly #files: SvidFiles;
  readonly #timer: NodeJS.Timeout;
  #looking: Promise<void> | undefined;

  constructor(files: SvidFiles) {
    super();
    this.#files = files;
    this.#timer = setInterval(() => void this.look(), files.every ?? LOOK_MS);
    this.#timer.unref();
  }

  async current(): Promise<Svid> {
    for (let tries = 0; !this.newest; tries++) {
      try {
        this.take(await this.#read());
      } catch (error) {
        // Perhaps a rotation is in progress.
        if (tries === HALVES) throw error;
        await sleep(HALF_MS);
      }
    }
    return this.newest;
  }

  /** Only one check runs at a time, so that an older SVID never follows a newer one. */
  look(): Promise<void> {
    // Certificate and key are two files: in the middle of a rotation they do not match. The next check reads both.
    this.#looking ??= this.#read().then((svid) => this.take(svid), () => undefined).finally(() => (this.#looking = undefined));
    return this.#looking;
  }

  close(): void {
    clearInterval(this.#timer);
  }

  async #read(): Promise<Svid> {
    const { svid, key, bundle, serverId } = this.#files;
    const texts = await Promise.all([svid, key, bundle].map(whole));
    const [certificate, secret, roots] = texts as [string, string, string];
    try {
      const domain = serverId === undefined ? svidOwner(new X509Certificate(certificate)).trustDomain : spiffeId(serverId).trustDomain;
      return new Svid(certificate, secret, new Map([[domain, rootsOf(roots)]]));
    } catch (error) {
      throw new TypeError(`${svid}, ${key} and ${bundle}: ${error instanceof Error ? error.message : 'unreadable'}`);
    }
  }
}
