"""The Dockerfiles, as far as they can be checked without a container engine: what ships, as whom, from which base.

No built image was started here; test_images_start.py starts the services from the files that one would hold.
"""

import re
import tomllib
from pathlib import PurePosixPath

import pytest

from tests.manifests.image_files import IMAGES, Dockerfile, ignored, sources
from tests.manifests.rendered import REPOSITORY

each_service = pytest.mark.parametrize("service", ["trainer", "inference"])


def test_there_is_one_dockerfile_a_service_and_they_differ_in_its_name_only() -> None:
    texts = {path.name: path.read_text() for path in IMAGES.glob("*Dockerfile")}
    assert texts.keys() == {"trainer.Dockerfile", "inference.Dockerfile"}
    assert texts["trainer.Dockerfile"].replace("trainer", "inference") == texts["inference.Dockerfile"]


@each_service
def test_every_copied_source_exists_in_the_build_context(service: str) -> None:
    dockerfile = Dockerfile.read(service)
    copies = [copy for stage in range(len(dockerfile.stages)) for copy in dockerfile.copies(stage)]
    assert len(copies) == 5
    for copy in copies:
        assert sources(copy), f"{copy.source} is not there, or .dockerignore keeps it out"


@each_service
def test_the_image_holds_the_source_of_its_service_and_no_more(service: str) -> None:
    paths = {str(path) for copy in Dockerfile.read(service).copies() for path in sources(copy)}
    assert {path.split("/")[0] for path in paths} == {"client", "service_kit", "base_models", f"{service}_service"}
    assert not [path for path in paths if path.endswith(".pyc") or "/cli/" in path or "/sets/" in path]


def test_the_build_context_is_an_allow_list() -> None:
    for path in (".git/config", ".venv/bin/python", "k8s/base/pod.yaml", "s3.env", "trainer_service/__pycache__/a.pyc"):
        assert ignored(PurePosixPath(path))


@each_service
def test_every_stage_is_built_on_one_base_that_is_an_argument_with_a_tag(service: str) -> None:
    dockerfile = Dockerfile.read(service)
    bases = [arguments.split()[0] for stage in dockerfile.stages for found, arguments in stage if found == "FROM"]
    assert bases == ["${CUDA_IMAGE}", "${CUDA_IMAGE}"]
    # Nobody pulled it here, so no digest is committed: it would be an invented one. `make pin-images` adds it.
    assert re.fullmatch(
        r"nvidia/cuda:\d+\.\d+\.\d+-[a-z0-9.-]+(@sha256:[0-9a-f]{64})?", dockerfile.arguments()["CUDA_IMAGE"]
    )


@each_service
def test_the_last_stage_installs_python_and_nothing_that_installs_or_compiles(service: str) -> None:
    (script,) = Dockerfile.read(service).all("RUN")
    (packages,) = re.findall(r"apt-get install --yes --no-install-recommends ([^&]*)", script)
    assert packages.split() == ["python3"]
    copied = [arguments for arguments in Dockerfile.read(service).all("COPY") if arguments.startswith("--from=")]
    # pip stays behind in an environment of its own.
    assert copied == ["--from=packages /opt/venv /opt/venv"]
    assert any("venv --without-pip /opt/venv" in step for _, step in Dockerfile.read(service).stages[1])


@each_service
def test_everything_but_torch_is_installed_from_the_lock_by_hash_and_nothing_is_compiled(service: str) -> None:
    dockerfile = Dockerfile.read(service)
    pip = "/opt/pip/bin/pip --python /opt/venv/bin/python "
    steps = [step.removeprefix(pip) for _, step in dockerfile.stages[1] if step.startswith(pip)]
    assert steps == [
        f"install --require-hashes --no-deps --only-binary :all: --requirement {service}.lock",
        f'install --only-binary :all: "${{TORCH}}" && {pip}check',
    ]
    (copy,) = dockerfile.copies(1)
    assert str(copy.source) == f"k8s/images/{service}.lock"
    groups = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["dependency-groups"]
    assert dockerfile.arguments()["TORCH"] in groups["base-models"]


@each_service
def test_the_user_is_a_number_and_not_root(service: str) -> None:
    (user,) = Dockerfile.read(service).all("USER")
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user)
    (script,) = Dockerfile.read(service).all("RUN")
    assert f"useradd --uid {user.split(':')[0]} " in script
