"""`make pin-images` against a small registry of its own, which speaks as much of the protocol as a digest takes."""

import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from k8s.images import pin
from tests.manifests.image_files import IMAGES
from tests.manifests.rendered import COMPONENTS

_DIGESTS = {"nvidia/cuda": "sha256:" + "a" * 64, "chrislusf/seaweedfs": "sha256:" + "b" * 64}
_TOKEN = "for-tests-only"


class Registry:
    """A registry that wants a token, which it gives to whoever asks, and knows two images."""

    def __init__(self) -> None:
        self.digests = dict(_DIGESTS)
        self.asked: list[str] = []
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                if self.headers.get("Authorization") != f"Bearer {_TOKEN}":
                    challenge = f'Bearer realm="{registry.address}/token",service="tests",scope="pull"'
                    self.answer(401, {"WWW-Authenticate": challenge})
                    return
                name = self.path.removeprefix("/v2/").partition("/manifests/")[0]
                registry.asked.append(self.path)
                # Lists of manifests are asked for: a digest of one processor's image would not run on the others.
                if name not in registry.digests or "image.index" not in self.headers["Accept"]:
                    self.answer(404, {})
                    return
                self.answer(200, {"Docker-Content-Digest": registry.digests[name]})

            def do_GET(self) -> None:
                assert self.path == "/token?service=tests&scope=pull"
                self.answer(200, {}, f'{{"token": "{_TOKEN}"}}'.encode())

            def answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
                self.send_response(status)
                for name, value in (headers | {"Content-Length": str(len(body))}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def registry() -> Iterator[Registry]:
    found = Registry()
    thread = threading.Thread(target=found.server.serve_forever)
    thread.start()
    yield found
    found.server.shutdown()
    thread.join()
    found.server.server_close()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what names other people's images."""
    shutil.copytree(IMAGES, tmp_path / "images", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    shutil.copytree(COMPONENTS, tmp_path / "components")
    monkeypatch.setattr(pin, "K8S", tmp_path)
    return tmp_path


def store_image(folder: Path) -> dict[str, str]:
    found = yaml.safe_load((folder / "components" / "object-store" / "kustomization.yaml").read_text())
    return dict(found["images"][0])


def test_every_tag_gets_the_digest_that_the_registry_gives(registry: Registry, folder: Path) -> None:
    assert pin.main([registry.address]) == 0
    for service in ("trainer", "inference"):
        text = (folder / "images" / f"{service}.Dockerfile").read_text()
        assert f"ARG CUDA_IMAGE=nvidia/cuda:13.0.2-base-ubuntu24.04@{_DIGESTS['nvidia/cuda']}\n" in text
    assert store_image(folder) == {
        "name": "chrislusf/seaweedfs",
        "newTag": "4.48",
        "digest": _DIGESTS["chrislusf/seaweedfs"],
    }
    assert set(registry.asked) == {
        "/v2/nvidia/cuda/manifests/13.0.2-base-ubuntu24.04",
        "/v2/chrislusf/seaweedfs/manifests/4.48",
    }


def test_pinning_again_follows_a_tag_that_moved(registry: Registry, folder: Path) -> None:
    assert pin.main([registry.address]) == 0
    registry.digests = dict.fromkeys(_DIGESTS, "sha256:" + "c" * 64)
    assert pin.main([registry.address]) == 0
    for path in (
        folder / "images" / "trainer.Dockerfile",
        folder / "components" / "object-store" / "kustomization.yaml",
    ):
        assert path.read_text().count("sha256:" + "c" * 64) == 1
        assert "sha256:" + "a" * 64 not in path.read_text()


@pytest.mark.parametrize("digest", [None, "", "sha256:short", "sha256:" + "A" * 64])
def test_what_is_no_digest_is_written_nowhere(
    registry: Registry, folder: Path, digest: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_text() for path in pin.files(folder)}
    if digest is None:
        del registry.digests["nvidia/cuda"]
    else:
        registry.digests["nvidia/cuda"] = digest
    assert pin.main([registry.address]) == 1
    assert "nothing was pinned" in capsys.readouterr().err
    assert {path: path.read_text() for path in pin.files(folder)} == before


def test_a_registry_that_is_not_there_changes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_text() for path in pin.files(folder)}
    assert pin.main(["http://127.0.0.1:9"]) == 1
    assert "nothing was pinned" in capsys.readouterr().err
    assert {path: path.read_text() for path in pin.files(folder)} == before
    assert pin.main([]) == 2
