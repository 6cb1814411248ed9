"""Tokens that are bound to keys, and proofs of possession (RFC 9449), by joserfc.

dpop.py AUTHORITY ISSUER SECRET

Prints a line of JSON for each request that a client or a thief would send to http://AUTHORITY:
what it is, its method, target and header fields, and how it is to be answered: `null`, or
[error of the challenge, part of its description].
"""

import base64
import hashlib
import json
import sys
import time
import uuid
import warnings

from joserfc import jws, jwt
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

# RFC 9864 has another name for EdDSA, and clients that send the old one will be there for years.
warnings.simplefilter("ignore")

authority, issuer, secret = sys.argv[1:]
HERE = f"http://{authority}"
NOW = int(time.time())
registry = jws.JWSRegistry(algorithms=list(jws.JWSRegistry.algorithms))
KEYS = {
    "ES256": ECKey.generate_key("P-256"),
    "ES384": ECKey.generate_key("P-384"),
    "RS256": RSAKey.generate_key(2048),
    "PS256": RSAKey.generate_key(2048),
    "EdDSA": OKPKey.generate_key("Ed25519"),
    "Ed25519": OKPKey.generate_key("Ed25519"),
}
ES = KEYS["ES256"]
OTHER = ECKey.generate_key("P-256")
SHARED = OctKey.generate_key(256)


def encode(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(key=None, **claims):
    claims = {"iss": issuer, "sub": "ann", "aud": "shop", "iat": NOW, "exp": NOW + 3600} | claims
    if key:
        claims["cnf"] = {"jkt": key.thumbprint()}
    return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(secret))


TOKENS = {name: token(key) for name, key in KEYS.items()}


def proof(access_token, alg="ES256", key=ES, header=None, signer=None, leave_out=None, **claims):
    """What RFC 9449 section 4.2 says, but for what is given."""
    header = {"typ": "dpop+jwt", "alg": alg, "jwk": key.as_dict(private=False)} | (header or {})
    claims = {
        "jti": str(uuid.uuid4()),
        "htm": "GET",
        "htu": f"{HERE}/orders/7",
        "iat": NOW,
        "ath": encode(hashlib.sha256(access_token.encode()).digest()),
    } | claims
    claims.pop(leave_out, None)
    if alg == "none":
        parts = [encode(json.dumps(part).encode()) for part in (header, claims)]
        return ".".join([*parts, ""])
    return jws.serialize_compact(
        header, json.dumps(claims), signer or key, algorithms=[alg], registry=None
    )


def case(what, answer, access_token, *proofs, method="GET", target="/orders/7", scheme="DPoP"):
    headers = [["Authorization", f"{scheme} {access_token}"]]
    headers += [["DPoP", proof] for proof in proofs]
    print(
        json.dumps(
            {"what": what, "method": method, "target": target, "headers": headers, "answer": answer}
        )
    )


ok, mine = None, TOKENS["ES256"]


def bad(part):
    return ["invalid_dpop_proof", part]


for name, key in KEYS.items():
    case(name, ok, TOKENS[name], proof(TOKENS[name], name, key))
case("another method", ok, mine, proof(mine, htm="DELETE"), method="DELETE")
case("a query of the request", ok, mine, proof(mine), target="/orders/7?page=2")
case("query and fragment in htu", ok, mine, proof(mine, htu=f"{HERE}/orders/7?page=1#top"))
case("htu of where TLS ended", ok, mine, proof(mine, htu=f"https://{authority}/orders/7"))
case("htu in another spelling", ok, mine, proof(mine, htu=f"HTTP://{authority}/%6frders/7"))
case("made a moment ago", ok, mine, proof(mine, iat=NOW - 50))
case("scheme in lower case", ok, mine, proof(mine), scheme="dpop")
case("more claims than are known", ok, mine, proof(mine, nonce="x", more={"a": [1]}))

case("htm of another method", bad("another method"), mine, proof(mine, htm="POST"))
case("htm in lower case", bad("another method"), mine, proof(mine, htm="get"))
case("htu of another path", bad("another URI"), mine, proof(mine, htu=f"{HERE}/orders/8"))
case("htu with a longer path", bad("another URI"), mine, proof(mine, htu=f"{HERE}/orders/7/"))
case("htu of another host", bad("another URI"), mine, proof(mine, htu="http://shop.example/orders/7"))
case("htu without an authority", bad("another URI"), mine, proof(mine, htu="/orders/7"))
stranger = token(OTHER)
case("ath of another token", bad("another access token"), mine, proof(stranger))
case("no ath", bad("malformed"), mine, proof(mine, leave_out="ath"))
case("no jti", bad("malformed"), mine, proof(mine, leave_out="jti"))
case("no iat", bad("malformed"), mine, proof(mine, leave_out="iat"))
case("no htm", bad("malformed"), mine, proof(mine, leave_out="htm"))
case("no htu", bad("malformed"), mine, proof(mine, leave_out="htu"))
case("too old", bad("too old"), mine, proof(mine, iat=NOW - 120))
case("from the future", bad("future"), mine, proof(mine, iat=NOW + 120))
used = proof(mine)
case("used once", ok, mine, used)
case("used twice", bad("used before"), mine, used)
again = proof(mine, jti="the same")
case("a name once", ok, mine, again)
case("a name twice", bad("used before"), mine, proof(mine, jti="the same", iat=NOW - 1))
case("a token of another's key", ["invalid_token", "another key"], stranger, proof(stranger))
case("signed by another key", bad("signature"), mine, proof(mine, signer=OTHER))
altered = proof(mine).split(".")
altered[1] = encode(base64.urlsafe_b64decode(altered[1] + "==").replace(b"orders/7", b"orders/9"))
case("altered", bad("signature"), mine, ".".join(altered), target="/orders/9")
symmetric = {"jwk": SHARED.as_dict()}
case("HS256", bad("algorithm"), mine, proof(mine, "HS256", header=symmetric, signer=SHARED))
own = OctKey.import_key(json.dumps(ES.as_dict(private=False)).encode())
case("HS256 with a public key as secret", bad("algorithm"), mine, proof(mine, "HS256", signer=own))
case("none", bad("algorithm"), mine, proof(mine, "none"))
case("RS256 of an EC key", bad("key"), mine, proof(mine, "RS256", signer=KEYS["RS256"]))
case("a private key", bad("private key"), mine, proof(mine, header={"jwk": ES.as_dict(private=True)}))
private = KEYS["RS256"].as_dict(private=True)
case("a private RSA key", bad("private key"), TOKENS["RS256"],
     proof(TOKENS["RS256"], "RS256", KEYS["RS256"], header={"jwk": private}))
case("another type", bad("another type"), mine, proof(mine, header={"typ": "JWT"}))
case("no proof", bad("no DPoP proof"), mine)
case("two proofs", bad("several"), mine, proof(mine), proof(mine))
case("no JWT", bad("malformed"), mine, "x")
case("as Bearer", ["invalid_token", "scheme DPoP"], mine, proof(mine), scheme="Bearer")
case("a token without a key", ["invalid_token", "no key"], token(), proof(token()))
expired = token(ES, exp=NOW - 3600)
case("an expired token", ["invalid_token", ""], expired, proof(expired))
