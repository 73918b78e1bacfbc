/**
 * SPIFFE IDs, and the check that the server is the expected one. An id that is not canonical is refused, never repaired.
 *
 * @module
 */
import { X509Certificate } from 'node:crypto';
import type { PeerCertificate } from 'node:tls';

const ID_BYTES = 2048;
const DOMAIN = /^[a-z0-9._-]{1,255}$/;
const SEGMENT = /^[a-zA-Z0-9._-]+$/;

/** A well-formed SPIFFE ID. */
export interface SpiffeId {
  /** The whole id, like `spiffe://example.org/agent/a`. */
  readonly id: string;
  /** The name of the trust domain, like `example.org`. */
  readonly trustDomain: string;
  /** The path with its leading slash; empty for the id of the domain itself. */
  readonly path: string;
}

/** Whether this is the name of a trust domain. */
export const isTrustDomain = (name: string): boolean => DOMAIN.test(name);

/**
 * Parses a SPIFFE ID.
 *
 * @throws TypeError - says what is wrong with it
 */
export function spiffeId(text: string): SpiffeId {
  const wrong = (what: string) => new TypeError(`${JSON.stringify(text)} is no SPIFFE ID: ${what}`);
  if (text.length > ID_BYTES) throw wrong(`it has more than ${ID_BYTES} bytes`);
  if (!text.startsWith('spiffe://')) throw wrong('it does not begin with spiffe://');
  const rest = text.slice('spiffe://'.length);
  const end = rest.indexOf('/');
  const trustDomain = end < 0 ? rest : rest.slice(0, end);
  const path = end < 0 ? '' : rest.slice(end);
  if (!isTrustDomain(trustDomain)) throw wrong('its trust domain is not 1 to 255 of a-z, 0-9, ".", "_" and "-"');
  for (const segment of path.split('/').slice(1)) {
    if (!SEGMENT.test(segment) || segment === '.' || segment === '..') throw wrong('a segment of its path is empty or has other characters');
  }
  return { id: text, trustDomain, path };
}

/**
 * The SPIFFE ID of an X.509-SVID (X509-SVID, sections 2 and 4): a leaf with exactly one URI name, which is a SPIFFE ID with a path. TLS
 * checks its chain and dates.
 *
 * @throws TypeError - says which clause it breaks
 */
export function svidOwner(certificate: X509Certificate): SpiffeId {
  const names = certificate.subjectAltName ?? '';
  // node quotes a name that contains a comma, and a quoted name could pretend to be two names.
  if (names.includes('"')) throw new TypeError('the certificate has an alternative name that no X.509-SVID has');
  const uris = names.split(', ').filter((name) => name.startsWith('URI:'));
  if (uris.length !== 1) throw new TypeError(`an X.509-SVID has exactly one URI name, this certificate has ${uris.length}`);
  if (certificate.ca) throw new TypeError('the certificate is of an authority, not of a workload');
  const owner = spiffeId((uris[0] as string).slice('URI:'.length));
  if (owner.path === '') throw new TypeError(`${owner.id} names a trust domain, not a workload`);
  return owner;
}

/**
 * For TLS: the server must have exactly this SPIFFE ID. Its host name is not checked, because SPIFFE certificates need not have one.
 *
 * @returns a function as `tls.connect` takes it; it is called only when the chain is valid
 */
export function serverMustBe(id: string): (host: string, certificate: PeerCertificate) => Error | undefined {
  return (_host, certificate) => {
    try {
      const found = svidOwner(new X509Certificate(certificate.raw)).id;
      return found === id ? undefined : new Error(`the server is ${found}, and has to be ${id} (MAYFLY_SERVER_ID)`);
    } catch (error) {
      return error instanceof Error ? error : new Error('the server showed no certificate');
    }
  };
}
