"""Verifies an assertion from standard input as a vendor does, with PyJWT, and prints its claims.

    verify.py ISSUER AUDIENCE CA [JWKS]

With JWKS, a file with the JWK set of `mayfly upstream jwks`, nothing is fetched. Exit code 1: it is refused.
"""
import json
import ssl
import sys

import jwt

from token_endpoint import verified


def main():
    issuer, audience, ca, *jwks = sys.argv[1:]
    token = sys.stdin.read().strip()
    try:
        if jwks:
            key = jwt.PyJWKSet.from_dict(json.load(open(jwks[0])))[jwt.get_unverified_header(token)['kid']]
            claims = jwt.decode(token, key.key, algorithms=['ES256', 'RS256'], audience=audience, issuer=issuer)
        else:
            claims = verified(token, [issuer], audience, ssl.create_default_context(cafile=ca))
    except (jwt.PyJWTError, KeyError) as no:
        sys.exit(f'refused: {no}')
    print(json.dumps(claims))


if __name__ == '__main__':
    main()
