"""Makes tokens.json: keys and tokens of every algorithm, by PyJWT and OpenSSL.

    python3 -m pip install pyjwt cryptography
    python3 agent/policy/tests/data/make_tokens.py > agent/policy/tests/data/tokens.json
"""

import json

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

CLAIMS = {
    "iss": "https://issuer.example",
    "aud": "orders",
    "sub": "jürgen",
    "iat": 1_700_000_000,
    "exp": 4_102_444_800,
    "scope": "orders:read orders:write",
}

keys = {
    "rsa": (rsa.generate_private_key(65537, 2048), ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]),
    "p256": (ec.generate_private_key(ec.SECP256R1()), ["ES256"]),
    "p384": (ec.generate_private_key(ec.SECP384R1()), ["ES384"]),
    "p521": (ec.generate_private_key(ec.SECP521R1()), ["ES512"]),
    "ed25519": (ed25519.Ed25519PrivateKey.generate(), ["EdDSA"]),
}

jwks, tokens, pems = [], {}, {}
for kid, (private, algorithms) in keys.items():
    public = private.public_key()
    jwk = json.loads(get_default_algorithms()[algorithms[0]].to_jwk(public))
    jwk = {k: v for k, v in jwk.items() if k not in ("key_ops", "alg")}
    jwks.append({"kid": kid, "use": "sig", **jwk})
    pem = serialization.PublicFormat.SubjectPublicKeyInfo
    pems[kid] = public.public_bytes(serialization.Encoding.PEM, pem).decode()
    for algorithm in algorithms:
        tokens[algorithm] = jwt.encode(CLAIMS, private, algorithm=algorithm, headers={"kid": kid})

secret = "a secret of more than sixty-four bytes, which is what HS512 wants, no less"
for algorithm in ["HS256", "HS384", "HS512"]:
    tokens[algorithm] = jwt.encode(CLAIMS, secret, algorithm=algorithm)

print(json.dumps({"jwks": {"keys": jwks}, "pem": pems, "secret": secret, "tokens": tokens}, indent=1))
