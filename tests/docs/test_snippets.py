"""Every command and snippet of the pages runs as it stands there; what is not run is listed here, to be seen."""

import json
from collections.abc import Callable

import pytest
import yaml

from tests.docs.blocks import EXECUTED, NEEDS, PARSED, PROGRAMS, SHOWN, Block, blocks, may_run, pages

# Run by tests/e2e/test_readme.py, with services that its own command starts.
ELSEWHERE = "README.md"
# Each block that is not run on every machine: its page, what it needs, and what it begins with.
NOT_RUN = {
    ("README.md", "make", "make demo"),
    ("README.md", "cluster", "kubectl apply --kustomize k8s/overlays/mine"),
    ("docs/base-models.md", "base model", "hf download stabilityai/stable-diffusion-xl-base-1.0 --revision"),
    ("docs/base-models.md", "base model", "aws s3 sync"),
    ("docs/base-models.md", "base model", "hf download stabilityai/stable-diffusion-xl-base-1.0 --local-dir"),
    ("docs/base-models.md", "base model", ".venv/bin/python -m base_models.weights.checkpoint_conversion"),
    ("docs/deploy.md", "container engine", "make pin-images"),
    ("docs/deploy.md", "cluster", "kubectl create namespace personae"),
    ("docs/deploy.md", "cluster", "kubectl apply --kustomize k8s/overlays/mine"),
    ("docs/deploy.md", "cluster", "kubectl --namespace personae get secret trainer-tls"),
    ("docs/deploy.md", "base model", "cd sdxl"),
    ("docs/deploy.md", "cluster", "docker build --file k8s/images/trainer.Dockerfile"),
    ("docs/deploy.md", "cluster", "kubectl delete"),
    ("docs/export.md", "grpcurl", "grpcurl -plaintext -d"),
    ("docs/object-stores.md", "object store", "export PERSONAE_S3_ENDPOINT=https://s3.example.com"),
    ("docs/several-gpus.md", "gpu", "torchrun --standalone --nproc-per-node 4"),
    ("examples/reflection/README.md", "grpcurl", "grpcurl -plaintext 127.0.0.1:50051 list"),
}
RUN = [page for page in pages() if page != ELSEWHERE and any(may_run(block) for block in blocks(page))]


def every_block() -> list[Block]:
    return [block for page in pages() for block in blocks(page)]


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN)
def test_every_block_of_the_page_runs(page: str, run_page: Callable[[str], None]) -> None:
    run_page(page)


@pytest.mark.parametrize("block", [block for block in every_block() if block.language in PARSED], ids=str)
def test_what_is_data_can_be_read(block: Block) -> None:
    parsed = json.loads(block.text) if block.language == "json" else list(yaml.safe_load_all(block.text))
    assert parsed


def test_every_block_says_what_it_is() -> None:
    known = EXECUTED | PARSED | SHOWN
    # What becomes a file may be of any kind.
    assert [str(block) for block in every_block() if block.language not in known and block.mark != "file"] == []
    assert {block.marked for block in every_block() if block.mark == "needs"} <= NEEDS | PROGRAMS


def test_the_blocks_that_are_not_run_are_these() -> None:
    found = [block for block in every_block() if block.mark == "needs"]
    unlisted = [
        str(block)
        for block in found
        if not any(
            (block.page, block.marked) == (page, needs) and block.text.startswith(words)
            for page, needs, words in NOT_RUN
        )
    ]
    assert unlisted == []
    assert len(found) == len(NOT_RUN)
