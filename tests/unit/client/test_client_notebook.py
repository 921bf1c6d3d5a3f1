"""What a notebook shows, held against IPython itself: its shell, its display, and what that publishes."""

import io
import json
import subprocess
import sys

import pytest
from client_fakes import ADAPTER, ended, png, progress, sample_ready, served, validated
from fake_inference import FakeInference
from PIL import Image as Pillow

import personae
from personae import notebook
from personae.v1 import inference_pb2_grpc
from tests.unit.client.conftest import HASTY

RUN_S = 120

# IPython's own shell; a notebook's differs by its kernel, and by sending what this one keeps in `outputs`.
NOTEBOOK = """
import json, sys
from IPython.core.displaypub import CapturingDisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from traitlets import Type
from traitlets.config import Config

class Notebook(InteractiveShell):
    display_pub_class = Type(CapturingDisplayPublisher)

shell = Notebook.instance(config=Config(HistoryManager={"enabled": False}))
if sys.argv[3] == "kernel":
    shell.kernel = object()
for cell in (
    f"import personae\\nclient = personae.Client({sys.argv[1]!r}, {sys.argv[2]!r})",
    "adapter = client.get_training('t1').wait()",
    "images = personae.show(client.generate('a <b>', seeds=[1, 2]))",
):
    shell.run_cell(cell, silent=True).raise_error()
kept = {"outputs": shell.display_pub.outputs, "data": shell.display_formatter.format(shell.user_ns["images"])[0]}
print(json.dumps(kept, default=repr))
"""


class PictureInference(FakeInference):
    """Its images are pictures."""

    def Generate(self, request, context):
        for message in super().Generate(request, context):
            if message.WhichOneof("kind") == "image":
                message.image.content = png()
            yield message


@pytest.fixture
def drawing_address():
    with served(inference_pb2_grpc.add_InferenceServiceServicer_to_server, PictureInference()) as address:
        yield address


def run_cells(tmp_path, monkeypatch, *arguments):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    ran = subprocess.run([sys.executable, "-c", NOTEBOOK, *arguments], capture_output=True, text=True, timeout=RUN_S)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return json.loads(ran.stdout)


def test_a_notebook_shows_a_training_and_images_as_they_come(
    trainer, trainer_address, drawing_address, tmp_path, monkeypatch
):
    trainer.events = [progress(1), sample_ready(2, 10), ended(3)]
    kept = run_cells(tmp_path, monkeypatch, trainer_address, drawing_address, "kernel")
    shown = [output["data"]["text/html"] for output in kept["outputs"]]
    assert [output["update"] for output in kept["outputs"]] == [False, True, True, True, False, True, True]
    # Each is drawn in one place, over and over.
    places = [output["transient"]["display_id"] for output in kept["outputs"]]
    assert (len(set(places[:4])), len(set(places[4:])), len(set(places))) == (1, 1, 2)
    assert "stepping 1/9, loss 0.5000" in shown[1]
    assert '<progress style="width:100%" max="9" value="1">' in shown[1]
    assert "step 10" in shown[2]
    assert f"succeeded: {ADAPTER}" in shown[3]
    assert [html.count("<img ") for html in shown] == [0, 0, 1, 1, 0, 1, 2]
    assert "a &lt;b&gt; (2)" in shown[5]
    assert kept["data"]["text/html"] == shown[6]


def test_a_shell_without_a_notebook_shows_nothing(trainer, trainer_address, drawing_address, tmp_path, monkeypatch):
    trainer.events = [progress(1), ended(2)]
    assert run_cells(tmp_path, monkeypatch, trainer_address, drawing_address, "terminal")["outputs"] == []


def test_outside_of_one_images_are_collected_all_the_same(trainer_address, drawing_address):
    with personae.Client(trainer_address, drawing_address, patience=HASTY) as client:
        images = personae.show(client.generate("a", seeds=[1, 2, 3]))
    assert [image.seed for image in images] == [3, 2, 1]
    assert notebook.live_view("t1") is None


def test_what_a_training_says_is_put_in_words_and_never_in_markup(client, trainer):
    view = notebook.TrainingView("<t1>")
    trainer.events = [validated(1, 20, 0.25, True), validated(2, 30, 0.5, False), ended(3, "FAILED", message="a < b")]
    for event in client.get_training("t1").events():
        view.take(event)
    html = view._repr_html_()
    assert "<b>&lt;t1&gt;</b> failed: a &lt; b<br>best so far: validation loss 0.2500 at step 20" in html
    assert repr(view) == "<<t1>: failed: a < b>"


def test_a_grid_has_a_place_for_images_without_a_file_and_an_end():
    def image(index, **changes):
        fields = {"index": index, "prompt_index": 0, "prompt": "a", "seed": index, "width": 3, "height": 2}
        file = {"media_type": "image/png", "content": b"", "digest": "", "filtered": False}
        return personae.Image(**fields | file | changes)

    images = personae.Images([image(0, filtered=True), image(1, uri="s3://b/1"), image(2, content=png())])
    html = images._repr_html_()
    assert [text in html for text in ("filtered", "s3://b/1", "a (2)")] == [True, True, True]
    assert "and 3 more" in personae.Images(image(index, content=png()) for index in range(103))._repr_html_()


@pytest.mark.parametrize(("file_format", "shown"), [("PNG", "png"), ("WEBP", "png"), ("JPEG", "jpeg")])
def test_an_image_of_any_format_is_shown(file_format, shown):
    file = io.BytesIO()
    Pillow.new("RGB", (3, 2), "red").save(file, file_format)
    preview = personae.Preview(0, 5, file.getvalue())
    data = {"png": preview._repr_png_(), "jpeg": preview._repr_jpeg_()}
    assert Pillow.open(io.BytesIO(data.pop(shown))).format == shown.upper()
    assert set(data.values()) == {None}
