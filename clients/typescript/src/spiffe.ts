/**
 * SPIFFE IDs, and whether the server is who it has to be. What is not canonical is refused, never repaired.
 *
 * @module
 */
import { X509Certificate } from 'node:crypto';
import type { PeerCertificate } from 'node:tls';

const ID_BYTES = 2048;
const DOMAIN = /^[a-z0-9._-]{1,255}$/;
const SEGMENT = /^[a-zA-Z0-9._-]+$/;

/** A SPIFFE ID that was found well formed. */
export interface SpiffeId {
  /** The whole of it, like `spiffe://example.org/agent/a`. */
  readonly id: string;
  /** The trust domain's name, like `example.org`. */
  readonly trustDomain: string;
  /** The path with its leading slash; empty for the id of the domain itself. */
  readonly path: string;
}

/** Whether this is a trust domain's name. */
export const isTrustDomain = (name: string): boolean => DOMAIN.test(name);

/**
 * Reads a SPIFFE ID.
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
 * Whose X.509-SVID this is (X509-SVID, sections 2 and 4): a leaf with exactly one URI name, a SPIFFE ID that has a path. Its chain and dates are
 * TLS's to check.
 *
 * @throws TypeError - says which clause it breaks
 */
export function svidOwner(certificate: X509Certificate): SpiffeId {
  const names = certificate.subjectAltName ?? '';
  // node quotes a name that holds a comma, and a quoted name could pretend to be two.
  if (names.includes('"')) throw new TypeError('the certificate has an alternative name that no X.509-SVID has');
  const uris = names.split(', ').filter((name) => name.startsWith('URI:'));
  if (uris.length !== 1) throw new TypeError(`an X.509-SVID has exactly one URI name, this certificate has ${uris.length}`);
  if (certificate.ca) throw new TypeError('the certificate is of an authority, not of a workload');
  const owner = spiffeId((uris[0] as string).slice('URI:'.length));
  if (owner.path === '') throw new TypeError(`${owner.id} names a trust domain, not a workload`);
  return owner;
}

/**
 * For TLS: the server has to be this SPIFFE ID and nothing else. Its host name plays no part; SPIFFE certificates need have none.
 *
 * @returns a function as `tls.connect` takes it; it is asked only when the chain was found good
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
