// Verifies an assertion with jose as a vendor does: discovery of the issuer, its JWK set, the claims. Prints the claims.
//
//   node assertion.mjs ISSUER AUDIENCE CA FILE
import { readFileSync } from 'node:fs';
import https from 'node:https';
import * as jose from 'jose';

const [issuer, audience, ca, file] = process.argv.slice(2);

function get(url) {
  return new Promise((resolve, reject) => {
    const request = https.get(url, { ca: readFileSync(ca), minVersion: 'TLSv1.3', timeout: 10_000 }, (answer) => {
      let body = '';
      answer.setEncoding('utf8').on('data', (part) => (body += part));
      answer.on('end', () => (answer.statusCode === 200 ? resolve(JSON.parse(body)) : reject(new Error(`${url}: ${answer.statusCode}`))));
    });
    request.on('error', reject).on('timeout', () => request.destroy(new Error(`${url}: no answer`)));
  });
}

const discovery = await get(`${issuer}/.well-known/openid-configuration`);
const keys = jose.createLocalJWKSet(await get(discovery.jwks_uri));
const options = { issuer: discovery.issuer, audience, typ: 'JWT', algorithms: discovery.id_token_signing_alg_values_supported };
const { payload } = await jose.jwtVerify(readFileSync(file, 'utf8').trim(), keys, { ...options, requiredClaims: ['sub', 'iat', 'nbf', 'exp', 'jti'] });
console.log(JSON.stringify(payload));
