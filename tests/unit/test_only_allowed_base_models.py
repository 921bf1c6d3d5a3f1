"""No call can name a base model but by its name on the operator's list: no path, no hub id, no URL."""

import socket

import pytest

from base_models.catalog import BUNDLED, CatalogError, read_allow_list
from inference_service.generation import GenerationDraft, PromptDraft
from inference_service.generation_check import check
from inference_service.picture_decoding import decode
from service_kit.errors import InvalidRequest
from service_kit.names import DatasetImageName
from tests.unit.trainer.trainer_fakes import Trainer, request

HOSTILE = [
    "attacker/repo",
    "stabilityai/stable-diffusion-xl-base-1.0",
    "https://example.com/model",
    "hf://attacker/repo",
    "s3://bucket/model",
    "file:///etc/passwd",
    "/etc/passwd",
    "../toon_64",
    "./toon-64",
    "toon-64/",
    "toon-64/../x",
    "toon_64",
    "TOON-64",
    " toon-64",
    "toon-64=/etc",
    "toon-64,other",
    "toon-64\0",
    str(BUNDLED["toon-64"]),
]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: socket.socket, address: object) -> None:
        raise AssertionError(f"something was to be fetched from {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def _no_image(name: DatasetImageName) -> bytes:
    raise AssertionError(f"{name} was asked for")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_training_names_a_base_model_of_the_list_or_none(name: str) -> None:
    trainer = Trainer()
    with pytest.raises(InvalidRequest, match="allowed is toon-64"):
        trainer.trainings.create(request(base_model=name))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_generation_names_a_base_model_of_the_list_or_none(name: str) -> None:
    entry = read_allow_list(["toon-64"])["toon-64"]
    draft = GenerationDraft((PromptDraft("a hat", (1,)),), base_model=name)
    with pytest.raises(InvalidRequest, match="allowed is one of toon-64"):
        check(draft, entry, ("toon-64",), len, lambda: 1, 10**6, _no_image, decode)


@pytest.mark.parametrize("item", ["x=https://example.com/model", "x=attacker/repo", "x=s3://bucket/model", "x="])
def test_the_list_itself_names_bundled_models_and_local_folders(item: str) -> None:
    with pytest.raises(CatalogError):
        read_allow_list([item])
