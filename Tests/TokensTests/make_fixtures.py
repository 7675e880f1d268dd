#!/usr/bin/env python3
"""Makes Fixtures.swift: TEST KEYS and tokens by an independent implementation (pip install joserfc cryptography).

  python3 Tests/TokensTests/make_fixtures.py > Tests/TokensTests/Fixtures.swift

Every run draws new keys. They are in the repository, so they protect nothing: never use them anywhere else.
"""
import datetime
import json

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, ed448, rsa
from joserfc import jws
from joserfc.jwk import import_key

WIDTH = 100  # of a line of text in the Swift source
SECRET = "test secret, sixty-four bytes long so that it fits HS512 as well"
CLAIMS = {
    "iss": "https://issuer.example", "sub": "alice@example.com", "user": "alice", "jti": "session-1",
    "roles": ["support", "user"], "iat": 1_700_000_000, "nbf": 1_700_000_000, "exp": 1_700_003_600,
    "address": {"city": "Köln", "codes": [1, 2.5, True, None]},
}

rsa_key = rsa.generate_private_key(65537, 2048)
keys = {
    "rsa": rsa_key,
    "rsaOther": rsa.generate_private_key(65537, 2048),
    "p256": ec.generate_private_key(ec.SECP256R1()),
    "p384": ec.generate_private_key(ec.SECP384R1()),
    "p521": ec.generate_private_key(ec.SECP521R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate(),
    "ed448": ed448.Ed448PrivateKey.generate(),
}
algorithms = {
    "RS256": "rsa", "RS384": "rsa", "RS512": "rsa", "PS256": "rsa", "PS384": "rsa", "PS512": "rsa",
    "ES256": "p256", "ES384": "p384", "ES512": "p521", "EdDSA": "ed25519",
}
registry = jws.JWSRegistry(algorithms=list(algorithms) + ["HS256", "HS384", "HS512"])


def pem(key, kind):
    if kind == "public":
        return key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
    if kind == "pkcs1":
        return key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.PKCS1).decode()
    if kind == "certificate":
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "TEST KEY")])
        start = datetime.datetime(2020, 1, 1)
        return (x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
                .serial_number(1).not_valid_before(start).not_valid_after(start + datetime.timedelta(days=36500))
                .sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode())
    form = {"pkcs8": serialization.PrivateFormat.PKCS8,
            "traditional": serialization.PrivateFormat.TraditionalOpenSSL}.get(kind)
    protection = serialization.NoEncryption()
    if kind == "encrypted":
        form, protection = serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"password")
    return key.private_bytes(serialization.Encoding.PEM, form, protection).decode()


def jose(key):
    return import_key(pem(key, "pkcs8"), {"rsa": "RSA", "p": "EC", "e": "OKP"}[kind_of(key)])


def kind_of(key):
    return "rsa" if isinstance(key, rsa.RSAPrivateKey) else "p" if isinstance(key, ec.EllipticCurvePrivateKey) else "e"


def token(algorithm, key, claims=CLAIMS, **header):
    payload = json.dumps(claims, ensure_ascii=False, separators=(",", ":"))
    return jws.serialize_compact({"alg": algorithm, "typ": "JWT", **header}, payload, key, registry=registry)


def swift(name, text, comment=None):
    if comment:
        print(f"  /// {comment}")
    print(f"  static let {name} = \"\"\"")
    for line in text.rstrip("\n").split("\n"):
        pieces = [line[i:i + WIDTH] for i in range(0, len(line), WIDTH)] or [""]
        print("\\\n".join("    " + piece for piece in pieces))
    print("    \"\"\"")


print("""// Made by make_fixtures.py with joserfc and cryptography (Python). Don't edit.
//
// ALL KEYS HERE ARE TEST KEYS: everybody knows them.

enum Fixtures {""")
print(f'  static let secret = "{SECRET}"')
for name, key in keys.items():
    swift(f"{name}PublicPEM", pem(key, "public"))
swift("rsaPKCS1PEM", pem(rsa_key, "pkcs1"))
swift("rsaCertificatePEM", pem(rsa_key, "certificate"))
swift("rsaPrivatePEM", pem(rsa_key, "pkcs8"), "TEST KEY")
swift("rsaTraditionalPEM", pem(rsa_key, "traditional"), "TEST KEY")
swift("rsaEncryptedPEM", pem(rsa_key, "encrypted"), "TEST KEY")
swift("p256TraditionalPEM", pem(keys["p256"], "traditional"), "TEST KEY")
swift("ed25519PrivatePEM", pem(keys["ed25519"], "pkcs8"), "TEST KEY")
swift("rsa1024PublicPEM", pem(rsa.generate_private_key(65537, 1024), "public"), "Too short.")
swift("secp256k1PublicPEM", pem(ec.generate_private_key(ec.SECP256K1()), "public"), "Not a curve of tokens here.")
for name in ["HS256", "HS384", "HS512"]:
    swift(f"token{name}", token(name, import_key(SECRET, "oct")))
for name, key in algorithms.items():
    swift(f"token{name}", token(name, jose(keys[key])))
swift("tokenEd448", token("EdDSA", jose(keys["ed448"])))
swift("tokenRSAOther", token("RS256", jose(keys["rsaOther"])))
swift("tokenKeyA", token("RS256", jose(rsa_key), kid="a"))
swift("tokenKeyB", token("ES256", jose(keys["p256"]), kid="b"))
swift("tokenKeyC", token("RS256", jose(rsa_key), kid="c"))
swift(
    "tokenEmbeddedKey",
    token("RS256", jose(keys["rsaOther"]), jwk=jose(keys["rsaOther"]).as_dict(private=False)),
    "Signed by the key that its header brings along.")
confused = import_key(pem(rsa_key, "public"), "oct")
swift("tokenConfused", token("HS256", confused), "HS256 with the RSA key's public PEM as secret.")
jwks = []
for kid, name, extra in [
    ("a", "rsa", {"use": "sig", "alg": "RS256"}), ("b", "p256", {"key_ops": ["verify"]}), ("p384", "p384", {}),
    ("p521", "p521", {}), ("ed25519", "ed25519", {}), ("ed448", "ed448", {}),
]:
    jwks.append({**jose(keys[name]).as_dict(private=False), "kid": kid, **extra})
jwks.append({**import_key(SECRET, "oct").as_dict(private=True), "kid": "secret", "alg": "HS256"})
swift("jwks", json.dumps({"keys": jwks}, separators=(",", ":")))
print("}")
