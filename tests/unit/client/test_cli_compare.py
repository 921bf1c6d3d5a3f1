"""`personae compare`: one prompt and the same seeds by the base model and by each adapter, on one sheet."""

import io
import json

import pytest
from fake_inference import FakeInference
from PIL import Image

from personae.cli import contact_sheet

GREY, RED, BLUE = (128, 128, 128), (255, 0, 0), (0, 0, 255)


class Drawing(FakeInference):
    """Draws in grey without adapters, in red with micah and in blue with any other; refuses the seed 13."""

    def Generate(self, request, context):
        adapters = [applied.adapter for applied in request.adapters]
        colour = GREY if not adapters else RED if "micah" in adapters[0] else BLUE
        file = io.BytesIO()
        Image.new("RGB", (64, 64), colour).save(file, "PNG")
        for message in super().Generate(request, context):
            if message.WhichOneof("kind") == "image":
                message.image.content = file.getvalue()
                if message.image.seed == 13:
                    message.image.finish_reason = message.image.FINISH_REASON_FILTERED
                    message.image.ClearField("content")
                    message.image.ClearField("digest")
            yield message


@pytest.fixture
def inference():
    return Drawing()


@pytest.fixture
def trainer(trainer):
    trainer.adapter.base_model = "toon-64"
    return trainer


def test_columns_are_base_and_adapters_and_rows_are_seeds(personae_command, inference, trainer, tmp_path):
    sheet = tmp_path / "new" / "sheet.png"
    words = ["--adapter=micah", "--adapter=nova=0.5", "--seed=1", "--seed=2", "--steps=7", "--output", sheet]
    code, out, _ = personae_command("compare", "a cat", *words)
    assert (code, out) == (0, f"{sheet}\n")
    asked = inference.requests["Generate"]
    assert [list(request.prompts[0].seeds) for request in asked] == [[1, 2]] * 3
    assert {(request.base_model, request.steps, request.prompts[0].text) for request in asked} == {
        ("toon-64", 7, "a cat")
    }
    applied = [[(used.adapter, used.weight) for used in request.adapters] for request in asked]
    assert applied == [
        [],
        [("projects/default/adapters/micah", 1.0)],
        [("projects/default/adapters/nova", 0.5)],
    ]
    with Image.open(sheet) as drawn:
        width, height = drawn.size
        across = [drawn.getpixel((x, height - 150)) for x in range(width)]
        down = [drawn.getpixel((168, y)) for y in range(height)]
    # Three squares of 256 pixels side by side, and two of each under each other.
    for colour in (GREY, RED, BLUE):
        assert across.count(colour) == 256
    assert down.count(GREY) == 2 * 256
    assert across.index(GREY) < across.index(RED) < across.index(BLUE)


def test_json_names_every_column(personae_command, trainer, tmp_path):
    words = ["--adapter=micah=0.5", "--seed=1", "--json", "--output", tmp_path / "x.png"]
    code, out, err = personae_command("compare", "a cat", *words)
    told = json.loads(out)
    assert (code, err, told["path"]) == (0, "", str(tmp_path / "x.png"))
    assert (told["prompt"], told["base_model"], told["seeds"]) == ("a cat", "toon-64", [1])
    assert [(column["adapter"], column["weight"]) for column in told["columns"]] == [
        (None, None),
        ("projects/default/adapters/micah", 0.5),
    ]
    assert [len(column["digests"]) for column in told["columns"]] == [1, 1]


def test_a_filtered_image_leaves_its_place_empty(personae_command, trainer, tmp_path):
    words = ["--adapter=micah", "--seed=1", "--seed=13", "--json", "--output", tmp_path / "x.png"]
    code, out, _ = personae_command("compare", "a cat", *words)
    assert code == 0
    assert [column["digests"][1] for column in json.loads(out)["columns"]] == [None, None]


def test_adapters_of_two_base_models_are_refused_before_anything_is_drawn(
    personae_command, trainer, inference, monkeypatch
):
    models = {"micah": "toon-64", "nova": "sdxl"}
    made = trainer._adapter

    def of_its_own(name):
        adapter = made(name)
        adapter.base_model = models[name.rpartition("/")[2]]
        return adapter

    monkeypatch.setattr(trainer, "_adapter", of_its_own)
    code, _, err = personae_command("compare", "a", "--adapter=micah", "--adapter=nova")
    assert code == 2
    assert "micah is of toon-64, nova is of sdxl" in err
    assert not inference.requests["Generate"]


def test_without_an_adapter_there_is_nothing_to_compare(personae_command):
    code, _, err = personae_command("compare", "a")
    assert (code, err) == (2, "Error: --adapter: name one at least\n")


def test_long_words_stay_within_their_panel(tmp_path):
    picture = Image.new("RGB", (64, 64), RED)
    grid = contact_sheet.Grid(1, 256, 20)
    plain = contact_sheet.Panel("micah", "version 1", [(picture, "seed 1")])
    wordy = contact_sheet.Panel("a" * 63, "likeness " * 40, [(picture, "seed " + "9" * 80)])
    path = contact_sheet.write(tmp_path / "x.png", "“" + "many words " * 80 + "”", [wordy, plain], grid)
    with Image.open(path) as sheet:
        # The rule between the panels has nothing written over it.
        middle = 40 + 256 + 24
        column = [sheet.getpixel((middle, y)) for y in range(sheet.height)]
        ruled = column.index((220, 216, 207))
        assert set(column[ruled : sheet.height - 40]) == {(220, 216, 207)}
        beside = {sheet.getpixel((x, y)) for x in (middle - 5, middle + 5) for y in range(ruled, sheet.height)}
        assert beside == {(251, 250, 247)}
