"""What the tests of the pages rest on: blocks are found with their marks, and one that fails is a failure."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from personae.cli import local_stack
from tests.docs.blocks import blocks, may_run
from tests.docs.sandbox import Sandbox, sandbox, shortened

NOWHERE = local_stack.Running("127.0.0.1:1", "127.0.0.1:2", "", {}, [])


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Sandbox]:
    folder = tmp_path / "sandbox"
    folder.mkdir()
    with sandbox(folder, NOWHERE) as made:
        yield made


def run(place: Sandbox, page: Path, text: str) -> None:
    page.write_text(text)
    for block in blocks(str(page)):
        if may_run(block):
            place.run(block)


def test_blocks_share_a_folder_and_names_and_are_told_where_the_services_are(place: Sandbox, tmp_path: Path) -> None:
    text = """
```python
import pathlib
address = "127.0.0.1:50051"
```
<!-- file: kept/here.txt -->
```text
kept
```
```sh
test "$PERSONAE_INFERENCE_ADDRESS" = 127.0.0.1:2
cat kept/here.txt > copy.txt
```
```python
assert address == "127.0.0.1:1"
assert pathlib.Path("copy.txt").read_text() == "kept\\n"
```
"""
    run(place, tmp_path / "page.md", text)


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("```sh\necho on the way >&2\nfalse\ntrue\n```\n", AssertionError, "on the way"),
        ("```python\nraise ValueError('no')\n```\n", ValueError, "no"),
        ("<!-- keeps running: 127.0.0.1:8000 -->\n```sh\necho gone; exit 0\n```\n", AssertionError, "gone"),
        ("<!-- needs: gpu -->\n\nnothing\n", ValueError, "followed by no block"),
    ],
)
def test_a_block_that_fails_is_a_failure(
    place: Sandbox, tmp_path: Path, text: str, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        run(place, tmp_path / "page.md", text)


def test_what_needs_something_is_not_run(place: Sandbox, tmp_path: Path) -> None:
    run(place, tmp_path / "page.md", "<!-- needs: gpu -->\n```sh\nfalse\n```\n")


def test_what_keeps_running_listens_for_the_blocks_after_it_and_is_gone_afterwards(tmp_path: Path) -> None:
    text = """
<!-- keeps running: 127.0.0.1:8000 -->
```sh
python -m http.server 8000 --bind 127.0.0.1
```
```sh
python -c 'import urllib.request as web; web.urlopen("http://127.0.0.1:8000/").close()'
echo 8000 > port.txt
```
"""
    with sandbox(tmp_path, NOWHERE) as place:
        run(place, tmp_path / "page.md", text)
    port = int((tmp_path / "port.txt").read_text())
    assert port != 8000
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


@pytest.mark.parametrize(
    ("command", "becomes"),
    [
        ("personae train pictures/ --name a", "personae train pictures/ --name a --steps 2"),
        ("personae train p --steps 500 --name a", "personae train p --steps 2 --name a"),
        ("personae train p \\\n  --name a\nls", "personae train p \\\n  --name a --steps 2\nls"),
        ("personae train p --name a --dry-run", "personae train p --name a --dry-run"),
        ("curl -F steps=60 http://x", "curl -F steps=2 http://x"),
        ("personae generate x", "personae generate x"),
    ],
)
def test_only_what_trains_is_made_shorter(command: str, becomes: str) -> None:
    assert shortened(command) == becomes
