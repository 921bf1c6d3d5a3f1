"""What `personae train`, `watch` and `export` take, save and say."""

import re

import pytest
from client_fakes import ADAPTER, TRAINING, ended, png, sample_ready, validated

import personae
from personae.v1 import adapter_pb2, dataset_pb2, training_pb2

DATASET = "projects/default/datasets/d1"
CONFIG = ["--preset=quality", "--steps=300", "--rank=8", "--adapter-type=dora", "--resolution=64", "--seed=5"]
SETTINGS = [
    "learning_rate=1e-4",
    "horizontal_flip=true",
    "aspect_buckets=False",
    "loss_weighting=min-snr",
    "caption_template={trigger_word} = {caption}",
    "sample_prompts=a cat, asleep",
    "sample_prompts=a dog",
]


def test_train_sends_its_options_and_every_setting_as_its_type(personae_command, trainer, folder):
    settings = [f"--set={setting}" for setting in SETTINGS]
    words = ["--trigger-word=nvx", "--class-noun=cat", "--licence=CC0-1.0"]
    words += ["--consent-given-by=Ada", "--consent-purpose=a comic", "--consent-evidence=form 7"]
    code, out, _ = personae_command("train", folder, "--name=nova", "--detach", *CONFIG, *settings, *words)
    assert (code, out) == (0, f"{TRAINING}\n")
    training = trainer.requests["CreateTraining"][0].training
    assert training.config == training_pb2.TrainingConfig(
        preset=training_pb2.PRESET_QUALITY,
        steps=300,
        rank=8,
        adapter_type=training_pb2.ADAPTER_TYPE_DORA,
        resolution=64,
        seed=5,
        learning_rate=1e-4,
        horizontal_flip=True,
        aspect_buckets=False,
        loss_weighting=training_pb2.LOSS_WEIGHTING_MIN_SNR,
        caption_template="{trigger_word} = {caption}",
        sample_prompts=["a cat, asleep", "a dog"],
    )
    assert (training.trigger_word, training.class_noun) == ("nvx", "cat")
    consent = dataset_pb2.Consent(given_by="Ada", purpose="a comic", evidence="form 7")
    assert (training.licence, trainer.requests["CreateDataset"][0].consent) == ("CC0-1.0", consent)


def test_every_wrong_setting_is_named_at_once_and_before_anything_is_sent(personae_command, trainer, folder):
    wrong = ["steps=4", "stepz=4", "batch_size=many", "crop=left", "horizontal_flip=perhaps", "ema_decay"]
    code, out, err = personae_command("train", folder, "--name=n", "--steps=3", *(f"--set={text}" for text in wrong))
    assert (code, out) == (2, "")
    message = err.splitlines()[-1]
    for said in (
        "--set steps: given twice",
        "stepz: no hyper-parameter is called so; there are steps, batch_size",
        "--set batch_size: found 'many'; allowed is a whole number",
        "crop: found 'left'; allowed are centre, salient",
        "--set horizontal_flip: found 'perhaps'; allowed is true or false",
        "--set ema_decay: found 'ema_decay'; allowed is key=value",
    ):
        assert said in message
    assert not trainer.requests


def test_the_help_of_train_names_every_key(personae_command):
    _, out, _ = personae_command("train", "--help")
    _, _, said = " ".join(out.split()).partition("Keys for --set: ")
    keys = re.sub(r" \([^)]*\)", "", said).rstrip(". ").split(", ")
    assert keys == list(personae.TrainingConfig.__annotations__)
    assert "preset (fast, balanced, quality, low-memory)" in said


def test_a_dry_run_prints_what_would_be_done_and_starts_nothing(personae_command, trainer, folder):
    trainer.plan.training.MergeFrom(
        training_pb2.Training(
            dataset=DATASET,
            base_model="toon-64",
            effective_config=training_pb2.TrainingConfig(steps=120, preset=training_pb2.PRESET_FAST),
        )
    )
    trainer.plan.estimate.duration.FromSeconds(61)
    trainer.plan.estimate.basis = "[one] H100"
    code, out, err = personae_command("train", folder, "--name=nova", "--dry-run")
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert ["base_model", "toon-64"] in lines
    assert ["steps", "120"] in lines
    assert ["preset", "fast"] in lines
    assert out.splitlines()[-1] == "about 61 s, 0.0 GB of device memory ([one] H100)"
    assert "broken.png: truncated" in err
    assert f"personae train {DATASET}" in err
    assert [request.validate_only for request in trainer.requests["CreateTraining"]] == [True]
    assert not trainer.requests["WatchTraining"]


def test_train_takes_a_dataset_that_is_there_already(personae_command, trainer):
    code, _, err = personae_command("train", DATASET, "--name=nova", "--detach")
    assert code == 0
    assert "a.png: blurred, small" in err
    assert trainer.requests["CreateTraining"][0].training.dataset == DATASET
    assert not trainer.requests["UploadImages"]


def test_validations_are_shown_and_which_one_was_published(personae_command, trainer):
    trainer.events = [validated(1, 10, 0.5, True), validated(2, 20, 0.6, False), ended(3)]
    trainer.adapter.MergeFrom(adapter_pb2.Adapter(chosen_step=10, validation_loss=0.5))
    code, out, err = personae_command("watch", "t1")
    assert (code, out) == (0, f"{ADAPTER}\n")
    lines = err.splitlines()
    assert "step 10: validation loss 0.5000, best" in lines
    assert "step 20: validation loss 0.6000" in lines
    assert "step 10, validation loss 0.5000" in lines


@pytest.mark.parametrize("command", [["watch", "t1"], ["train", DATASET, "--name=nova"]])
def test_samples_are_saved_where_a_folder_is_named(personae_command, trainer, tmp_path, command):
    trainer.events = [sample_ready(1, 10), sample_ready(2, 20), ended(3)]
    code, _, err = personae_command(*command, "--samples", tmp_path / "new" / "folder")
    assert code == 0
    for name in ("000010-0.png", "000020-0.png"):
        assert (tmp_path / "new" / "folder" / name).read_bytes() == png()
        assert name in err


def test_samples_that_nobody_asked_for_are_mentioned_once(personae_command, trainer):
    trainer.events = [sample_ready(1, 10), sample_ready(2, 20), ended(3)]
    code, _, err = personae_command("watch", "t1")
    assert code == 0
    assert err.count(f"personae watch {TRAINING} --samples FOLDER") == 1


def test_a_sample_never_leaves_its_folder(personae_command, trainer, tmp_path):
    sample = sample_ready(1, 10)
    sample.sample_ready.artifact_id = "../../evil.png"
    trainer.events = [sample, ended(2)]
    personae_command("watch", "t1", "--samples", tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b" / "evil.png").exists()
    assert not (tmp_path / "evil.png").exists()


def test_a_notice_is_printed_as_it_is_written(personae_command, trainer):
    notice = training_pb2.TrainingEvent.Notice(reason="EARLY_STOPPED", message="no better one in [3] validations")
    trainer.events = [training_pb2.TrainingEvent(sequence=1, notice=notice), ended(2)]
    _, _, err = personae_command("watch", "t1")
    assert "no better one in [3] validations" in err


def test_export_saves_the_adapter_and_its_card_and_prints_its_path(personae_command, trainer, tmp_path):
    trainer.files |= {"exports/adapter": b"weights", "exports/card": b"# Micah"}
    code, out, _ = personae_command("export", "micah", "--format=diffusers", "--output", tmp_path)
    assert (code, out) == (0, f"{tmp_path / 'micah-1.safetensors'}\n")
    assert (tmp_path / "micah-1.md").read_bytes() == b"# Micah"
    assert trainer.requests["ExportAdapter"][0].format == adapter_pb2.ADAPTER_FORMAT_DIFFUSERS
