"""The check of callers under `python -O`, which leaves out every assert: the same answers as without."""

import ast
import json
import subprocess
import sys
from pathlib import Path

from tests.identities import listed, token_of, write_identities

ROOT = Path(__file__).parents[3]
_PROGRAM = """
import json, sys
from types import SimpleNamespace
import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pathlib import Path
from service_kit.access_interceptor import check_projects, _rule
from service_kit.access_table import RULES
from service_kit.authentication import Authentication
from service_kit.errors import ServiceError
from service_kit.identities_file import read_identities
from service_kit.jwt_identity import JwtIdentities
from service_kit.rereading import FileUnusable, Reread

folder, token = Path(sys.argv[1]), sys.argv[2]
tokens, key = folder / "tokens.json", ec.generate_private_key(ec.SECP256R1())
public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
(folder / "key.pem").write_bytes(public)
signed = JwtIdentities(folder / "key.pem", "ES256", "here", "")
known = Authentication(Reread([tokens], lambda: read_identities(tokens)), signed)
claims = {"sub": "x", "aud": "here", "exp": 2**40, "roles": ["viewer"], "projects": ["shop"]}
service = "/personae.v1.TrainerService/"

def told(method, name, brought):
    try:
        identity = known.identify((("authorization", "Bearer " + brought),) if brought else (), {})
        check_projects(SimpleNamespace(name=name), _rule(service + method, identity), identity)
        return "let in"
    except ServiceError as error:
        return error.reason

mine, theirs = "projects/shop/trainings/t", "projects/other/trainings/t"
print(json.dumps({
    "asserts": __debug__,
    "good": told("GetTraining", mine, token),
    "signed": told("GetTraining", mine, jwt.encode(claims, key, "ES256")),
    "none": told("GetTraining", mine, ""),
    "wrong": told("GetTraining", mine, token[:-1]),
    "expired": told("GetTraining", mine, jwt.encode(claims | {"exp": 1}, key, "ES256")),
    "unsigned": told("GetTraining", mine, jwt.encode(claims, None, "none")),
    "audience": told("GetTraining", mine, jwt.encode(claims | {"aud": "there"}, key, "ES256")),
    "role": told("DeleteTraining", mine, token),
    "unknown rpc": told("Whatever", mine, token),
    "foreign": told("GetTraining", theirs, token),
}))
"""


def _answers(folder: Path, *options: str) -> dict[str, object]:
    write_identities(folder / "tokens.json", listed("shop", ["viewer"], ["shop"]))
    command = [sys.executable, *options, "-c", _PROGRAM, str(folder), token_of("shop")]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    answers: dict[str, object] = json.loads(ended.stdout)
    return answers


def test_every_refusal_is_the_same_without_asserts(tmp_path: Path) -> None:
    optimized = _answers(tmp_path, "-O")
    assert optimized.pop("asserts") is False
    assert optimized == {
        "good": "let in",
        "signed": "let in",
        "none": "TOKEN_MISSING",
        "wrong": "TOKEN_INVALID",
        "expired": "TOKEN_EXPIRED",
        "unsigned": "TOKEN_INVALID",
        "audience": "TOKEN_INVALID",
        "role": "NOT_PERMITTED",
        "unknown rpc": "NOT_PERMITTED",
        "foreign": "NOT_FOUND",
    }


def test_nothing_in_service_kit_rests_on_an_assert() -> None:
    resting = [
        f"{path.name}:{node.lineno}"
        for path in (ROOT / "service_kit").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Assert) or (isinstance(node, ast.Name) and node.id == "__debug__")
    ]
    assert resting == []
