"""Signed images: what their manifests say, what tampering does, what a credential must be, and what a caller gets."""

import hashlib
import io
import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import c2pa
import grpc
import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from PIL import Image

from inference_service.__main__ import load_credentials
from inference_service.content_credentials import ContentCredentials, load_content_credentials
from inference_service.delivery import FILE_FORMATS, MOST_CREDENTIALS_BYTES, FileFormat, most_bytes
from inference_service.generation import ImageTask, Prompt
from inference_service.image_file import MADE_BY_A_MODEL, Provenance, encode
from inference_service.settings import InferenceSettings
from personae.v1 import inference_pb2 as pb
from service_kit.serving import StartError
from tests.real_store import free_ports
from tests.unit.inference.fake_serving import PATIENCE_S, FakeServing, ask, serve
from tests.unit.inference.quick_requests import quick_request
from tests.unit.inference.signing_chain import SigningChain, make_chain, pem_of

KEYS = {
    "Es256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "Es384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
    "Ps256": lambda: rsa.generate_private_key(65537, 2048),
}
WIRE_FORMATS = {"png": pb.IMAGE_FORMAT_PNG, "webp": pb.IMAGE_FORMAT_WEBP, "jpeg": pb.IMAGE_FORMAT_JPEG}


@pytest.fixture(scope="module")
def chain() -> SigningChain:
    return make_chain()


@pytest.fixture(scope="module")
def credentials(chain: SigningChain, tmp_path_factory: pytest.TempPathFactory) -> ContentCredentials:
    return loaded(chain, tmp_path_factory.mktemp("chain"))


def loaded(chain: SigningChain, folder: Path, **others: Any) -> ContentCredentials:
    certificates, key = chain.write(folder)
    return load_content_credentials(
        InferenceSettings(inference_c2pa_certificates=certificates, inference_c2pa_key=key, **others)
    )


def drawn(file_format: FileFormat, text: str = "a red hat", side: int = 64) -> bytes:
    pixels_HWC = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    request = quick_request(1, prompts=(Prompt(text, (1,)),))
    return encode(pixels_HWC, file_format, Provenance(request, ImageTask(0, 0, 1), "d" * 64, ()))


def read(content: bytes, file_format: FileFormat, trusting: str = "") -> c2pa.Reader:
    trust = {"trust": {"trust_anchors": trusting}} if trusting else {}
    return c2pa.Reader(f"image/{file_format}", io.BytesIO(content), context=c2pa.Context.from_dict(trust))


def failures(reader: c2pa.Reader) -> set[str]:
    results = reader.get_validation_results()
    assert results
    return {failure["code"] for failure in results["activeManifest"]["failure"]}


@pytest.mark.parametrize("file_format", FILE_FORMATS)
def test_a_signed_file_says_by_a_valid_signature_that_a_model_made_it(
    chain: SigningChain, credentials: ContentCredentials, file_format: FileFormat
) -> None:
    signed = credentials.sign(drawn(file_format), file_format)
    stranger, trusting = read(signed, file_format), read(signed, file_format, trusting=chain.root)
    assert (stranger.get_validation_state(), failures(stranger)) == ("Valid", {"signingCredential.untrusted"})
    assert (trusting.get_validation_state(), failures(trusting)) == ("Trusted", set())
    manifest = stranger.get_active_manifest()
    assert manifest
    assert manifest["claim_generator_info"][0]["name"] == "personae"
    (actions,) = [entry["data"]["actions"] for entry in manifest["assertions"] if "actions" in entry["label"]]
    assert [(action["action"], action["digitalSourceType"]) for action in actions] == [
        ("c2pa.created", MADE_BY_A_MODEL)
    ]


@pytest.mark.parametrize("file_format", FILE_FORMATS)
def test_signing_changes_neither_pixels_nor_what_the_file_says_already(
    credentials: ContentCredentials, file_format: FileFormat
) -> None:
    plain = drawn(file_format)
    before, after = Image.open(io.BytesIO(plain)), Image.open(io.BytesIO(credentials.sign(plain, file_format)))
    assert after.tobytes() == before.tobytes()
    assert dict(after.getexif()) == dict(before.getexif())
    assert {name: value for name, value in after.info.items() if name in before.info} == before.info
    assert MADE_BY_A_MODEL in str(after.info["xmp"])


@pytest.mark.parametrize("file_format", FILE_FORMATS)
def test_a_file_that_was_changed_after_signing_is_found_out(
    credentials: ContentCredentials, file_format: FileFormat
) -> None:
    signed = bytearray(credentials.sign(drawn(file_format, "a very particular prompt"), file_format))
    at = signed.index(b"a very particular prompt")
    signed[at : at + 1] = b"A"
    reader = read(bytes(signed), file_format)
    assert reader.get_validation_state() == "Invalid"
    assert "assertion.dataHash.mismatch" in failures(reader)


@pytest.mark.parametrize("algorithm", KEYS)
def test_the_key_says_how_it_signs(tmp_path: Path, algorithm: str) -> None:
    chain = make_chain(KEYS[algorithm]())
    signed = loaded(chain, tmp_path).sign(drawn("png"), "png")
    reader = read(signed, "png", trusting=chain.root)
    assert reader.get_validation_state() == "Trusted"
    manifest = reader.get_active_manifest()
    assert manifest
    assert manifest["signature_info"]["alg"] == algorithm


def test_a_key_in_the_older_form_of_openssl_does_as_well(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    older = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    chain = make_chain(key)
    loaded(SigningChain(chain.certificates, older, chain.root), tmp_path)


@pytest.mark.parametrize("file_format", FILE_FORMATS)
def test_a_signed_file_stays_within_the_bound_of_its_size(
    credentials: ContentCredentials, file_format: FileFormat
) -> None:
    # The longest texts that a request can hold, of characters that take four bytes.
    plain = drawn(file_format, "\N{PILE OF POO}" * 10_000, side=256)
    signed = credentials.sign(plain, file_format)
    assert 1_000 < len(signed) - len(plain) <= MOST_CREDENTIALS_BYTES
    assert len(signed) <= most_bytes(file_format, 256, 256)


def test_many_threads_sign_at_once(credentials: ContentCredentials) -> None:
    files = [drawn("png", f"prompt {number}") for number in range(24)]
    with ThreadPoolExecutor(8) as pool:
        signed = list(pool.map(lambda content: credentials.sign(content, "png"), files))
    assert [read(content, "png").get_validation_state() for content in signed] == ["Valid"] * 24
    assert [Image.open(io.BytesIO(content)).info["prompt"] for content in signed] == [
        f"prompt {number}" for number in range(24)
    ]


def _encrypted(chain: SigningChain) -> SigningChain:
    key = ec.generate_private_key(ec.SECP256R1())
    return SigningChain(chain.certificates, pem_of(key, b"password"), chain.root)


@pytest.mark.parametrize(
    ("wrong", "variable", "words"),
    [
        (lambda good: make_chain(days_left=-1), "CERTIFICATES", "renew it"),
        (lambda good: SigningChain(b"not a certificate", good.key, ""), "CERTIFICATES", "allowed are PEM"),
        (lambda good: make_chain(purposes=[ExtendedKeyUsageOID.SERVER_AUTH]), "CERTIFICATES", "certificate"),
        (lambda good: make_chain(padding=30_000), "CERTIFICATES", "shorten the chain"),
        (lambda good: SigningChain(good.certificates, make_chain().key, ""), "KEY", "does not belong"),
        (lambda good: SigningChain(good.certificates, b"sesame", ""), "KEY", "allowed is an unencrypted PEM key"),
        (_encrypted, "KEY", "allowed is an unencrypted PEM key"),
        (lambda good: make_chain(rsa.generate_private_key(65537, 1024)), "KEY", "at least 2048 bits"),
        (lambda good: make_chain(ec.generate_private_key(ec.SECP521R1())), "KEY", "P-256, P-384"),
    ],
)
def test_a_credential_that_will_not_do_stops_the_start_and_is_named(
    chain: SigningChain, tmp_path: Path, wrong: Any, variable: str, words: str
) -> None:
    bad: SigningChain = wrong(chain)
    with pytest.raises(StartError) as caught:
        loaded(bad, tmp_path)
    assert str(caught.value).startswith(f"PERSONAE_INFERENCE_C2PA_{variable}={tmp_path}")
    assert words in str(caught.value)
    for line in bad.key.splitlines():
        assert line.decode() not in str(caught.value)


def test_half_a_credential_and_files_that_are_not_there_stop_the_start(chain: SigningChain, tmp_path: Path) -> None:
    certificates, key = chain.write(tmp_path)
    for settings, variable in (
        ({"inference_c2pa_key": key}, "CERTIFICATES: missing"),
        ({"inference_c2pa_certificates": certificates}, "KEY: missing"),
        ({"inference_c2pa_timestamp_url": "http://timestamps.example"}, "CERTIFICATES: missing"),
        (
            {"inference_c2pa_certificates": certificates, "inference_c2pa_key": tmp_path / "nothing"},
            "KEY=.*No such file",
        ),
    ):
        with pytest.raises(StartError, match=f"PERSONAE_INFERENCE_C2PA_{variable}"):
            load_content_credentials(InferenceSettings(**settings))


def test_a_timestamp_authority_that_is_away_stops_the_start_and_is_named(chain: SigningChain, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    with pytest.raises(StartError, match=f"PERSONAE_INFERENCE_C2PA_TIMESTAMP_URL={url}"):
        loaded(chain, tmp_path, inference_c2pa_timestamp_url=url)


@pytest.mark.parametrize("file_format", FILE_FORMATS)
def test_a_caller_gets_the_signed_file_and_finds_it_by_its_hash(
    tmp_path: Path, credentials: ContentCredentials, file_format: FileFormat
) -> None:
    async def scenario(serving: FakeServing) -> None:
        messages = await serving.generate(ask(1, format=WIRE_FORMATS[file_format]))
        (image,) = [message.image for message in messages if message.HasField("image")]
        assert read(image.content, file_format).get_validation_state() == "Valid"
        assert image.digest == hashlib.sha256(image.content).hexdigest()
        found = await serving.stub.LookUpImage(pb.LookUpImageRequest(digest=image.digest), timeout=PATIENCE_S)
        assert found.generation == messages[0].accepted.generation

    serve(tmp_path, scenario, credentials=credentials)


def test_an_image_that_cannot_be_signed_is_not_sent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    chain = make_chain(days_left=-1)
    expired = ContentCredentials("es256", chain.certificates, chain.key, "")

    async def scenario(serving: FakeServing) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await serving.generate(ask(1))
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        assert list(serving.store.keys("")) == []

    with caplog.at_level(logging.ERROR):
        serve(tmp_path, scenario, credentials=expired)
    assert "not valid at time of signing" in caplog.text
    assert chain.key.splitlines()[1].decode() not in caplog.text


@pytest.mark.slow
def test_unsigned_is_the_default_and_loads_nothing_of_it() -> None:
    assert load_credentials(InferenceSettings()) is None
    with pytest.raises(c2pa.C2paError):
        read(drawn("png"), "png")
    script = "import sys, inference_service.__main__; sys.exit('c2pa' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)
