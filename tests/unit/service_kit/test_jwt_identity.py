"""Signed tokens: pinned algorithm and key, audience, issuer and expiry, and every trick with the header."""

import base64
import hashlib
import hmac
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from service_kit.errors import Unauthenticated
from service_kit.identity import Role
from service_kit.jwt_identity import JwtIdentities
from service_kit.rereading import FileUnusable

RSA_KEY = rsa.generate_private_key(65537, 2048)


def public_pem(key: Any = RSA_KEY) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def claims(**changes: Any) -> dict[str, Any]:
    """Claims that are right but for `changes`; None leaves one out."""
    right = {
        "sub": "shop",
        "aud": "personae",
        "iss": "https://issuer",
        "exp": time.time() + 60,
        "roles": ["trainer"],
        "projects": ["shop"],
    }
    return {name: value for name, value in (right | changes).items() if value is not None}


@pytest.fixture
def signed(tmp_path: Path) -> JwtIdentities:
    file = tmp_path / "key.pem"
    file.write_bytes(public_pem())
    return JwtIdentities(file, "RS256", "personae", "https://issuer")


def reason(identities: JwtIdentities, token: str) -> str:
    with pytest.raises(Unauthenticated) as caught:
        identities.of_token(token)
    assert token not in str(caught.value) or not token
    assert caught.value.__suppress_context__
    return caught.value.reason


def test_a_signed_token_says_who_its_bearer_is(signed: JwtIdentities) -> None:
    identity = signed.of_token(jwt.encode(claims(aud=["other", "personae"]), RSA_KEY, "RS256"))
    assert (identity.name, identity.roles, identity.projects) == ("shop", {Role.TRAINER}, {"shop"})
    assert signed.of_token(jwt.encode(claims(projects=["*"]), RSA_KEY, "RS256")).projects is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"exp": 1}, "TOKEN_EXPIRED"),
        ({"exp": None}, "TOKEN_INVALID"),
        ({"exp": "soon"}, "TOKEN_INVALID"),
        ({"nbf": 2**40}, "TOKEN_INVALID"),
        ({"aud": "another"}, "TOKEN_INVALID"),
        ({"aud": None}, "TOKEN_INVALID"),
        ({"iss": "https://evil"}, "TOKEN_INVALID"),
        ({"iss": None}, "TOKEN_INVALID"),
        ({"sub": None}, "TOKEN_INVALID"),
        ({"roles": None}, "TOKEN_INVALID"),
        ({"roles": ["admin"]}, "TOKEN_INVALID"),
        ({"roles": "operator"}, "TOKEN_INVALID"),
        ({"projects": None}, "TOKEN_INVALID"),
        ({"projects": []}, "TOKEN_INVALID"),
        ({"projects": "*"}, "TOKEN_INVALID"),
    ],
    ids=str,
)
def test_a_claim_that_is_wrong_or_missing_refuses_the_token(
    signed: JwtIdentities, changes: dict[str, Any], expected: str
) -> None:
    assert reason(signed, jwt.encode(claims(**changes), RSA_KEY, "RS256")) == expected


def forged(header: dict[str, Any], secret: bytes | None) -> str:
    """A token made by hand, because no library signs with a public key."""

    def part(value: object) -> bytes:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")

    body = part(header) + b"." + part(claims())
    signature = hmac.digest(secret, body, hashlib.sha256) if secret else b""
    return (body + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


def test_no_algorithm_and_no_key_but_ours_is_believed(signed: JwtIdentities) -> None:
    other, elliptic = rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1())
    good = jwt.encode(claims(), RSA_KEY, "RS256")
    head, body, signature = good.split(".")
    own_jwk = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(other.public_key()))
    bad = [
        forged({"alg": "none"}, None),
        forged({"alg": "None", "typ": "JWT"}, None),
        forged({"alg": "HS256"}, public_pem()),
        forged({"alg": "HS256"}, public_pem().strip()),
        forged({"alg": ["RS256"]}, public_pem()),
        jwt.encode(claims(), other, "RS256"),
        jwt.encode(claims(), other, "RS256", headers={"jwk": own_jwk}),
        jwt.encode(claims(), RSA_KEY, "PS256"),
        jwt.encode(claims(), RSA_KEY, "RS512"),
        jwt.encode(claims(), elliptic, "ES256"),
        f"{head}.{body}.",
        f"{head}.{body}",
        f"{head}.{body[:-2]}AA.{signature}",
        "[" * 15_000,
        base64.urlsafe_b64encode(b"[" * 10_000).decode() + ".e30.",
        "",
        "a.b.c",
        "\N{PILE OF POO}",
    ]
    assert {reason(signed, token) for token in bad} == {"TOKEN_INVALID"}
    assert signed.of_token(good).name == "shop"


def test_the_key_file_is_read_again(signed: JwtIdentities, tmp_path: Path) -> None:
    newer = rsa.generate_private_key(65537, 2048)
    (tmp_path / "key.pem").write_bytes(public_pem(newer))
    assert signed.of_token(jwt.encode(claims(), newer, "RS256")).name == "shop"
    assert reason(signed, jwt.encode(claims(), RSA_KEY, "RS256")) == "TOKEN_INVALID"


@pytest.mark.parametrize(
    ("body", "algorithm", "words"),
    [
        (b"not a key", "RS256", "no public key in PEM for RS256"),
        (public_pem(), "ES256", "no public key in PEM for ES256"),
        (public_pem(ec.generate_private_key(ec.SECP384R1())), "ES256", "no public key in PEM for ES256"),
        (public_pem(rsa.generate_private_key(65537, 1024)), "RS256", "1024 bits"),
        (RSA_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), "RS256", "private key"),
    ],
    ids=["no key", "another family", "another curve", "too short", "private"],
)
def test_a_key_that_does_not_fit_is_refused_in_words(tmp_path: Path, body: bytes, algorithm: str, words: str) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(body)
    with pytest.raises(FileUnusable, match=words):
        JwtIdentities(file, algorithm, "personae", "")


def test_other_families_of_signatures_work_too_and_the_issuer_may_be_left_open(tmp_path: Path) -> None:
    keys = {"EdDSA": ed25519.Ed25519PrivateKey.generate(), "ES384": ec.generate_private_key(ec.SECP384R1())}
    for algorithm, key in keys.items():
        file = tmp_path / algorithm
        file.write_bytes(public_pem(key))
        identities = JwtIdentities(file, algorithm, "personae", "")
        assert identities.of_token(jwt.encode(claims(iss=None), key, algorithm)).name == "shop"
