"""What trainings are computed to hold, and what is said where a GPU has less. No torch."""

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest

from base_models.activation_figures import ActivationFigures, read_figures
from base_models.catalog import read_allow_list
from base_models.network_sizes import NetworkSizes, WeightBytes, computes_in_halves, read_network_sizes
from base_models.traits import FAMILIES
from service_kit.memory_store import MemoryStore
from trainer_service.estimator import Estimator
from trainer_service.memory_advice import Measured, Needs
from trainer_service.training_config import TrainingConfig, decide
from trainer_service.training_memory import Device, DeviceKind, adapter_parameters, training_memory

TOON = read_allow_list(["toon-64"])["toon-64"]
SIZES = read_network_sizes(TOON)
PRESETS = ("fast", "balanced", "quality", "low_memory")
KINDS: tuple[DeviceKind, ...] = get_args(DeviceKind)
HUGE = Device(kind="cuda", memory_bytes=10**15)


def config(**given: int | float | str | bool) -> TrainingConfig:
    return decide(given, TOON, 1, 16, "a picture of sks character")


def total(recomputes: bool = False, **given: int | float | str | bool) -> int:
    return training_memory(config(**given), TOON, SIZES, "cuda", 16, recomputes).total


def needs(device: Device | None = HUGE, measured: Measured | None = None) -> Needs:
    return Needs(TOON, SIZES, 16, device, measured)


def by_preset(**given: int | float | str | bool) -> dict[str, TrainingConfig]:
    return {preset: config(**given, preset=preset) for preset in PRESETS}


@pytest.mark.parametrize(
    ("name", "smaller", "larger"),
    [
        ("batch_size", 8, 16),
        ("rank", 4, 64),
        ("resolution", 64, 128),
        ("targets", "attention", "all"),
        ("optimizer", "adamw", "prodigy"),
        ("ema_decay", 0.0, 0.9),
        ("adapter_type", "lora", "dora"),
        ("text_encoder_learning_rate", 0.0, 1e-4),
        ("precision", "bfloat16", "float32"),
        ("prior_weight", 0.0, 1.0),
        ("horizontal_flip", False, True),
    ],
)
def test_who_asks_for_more_needs_more(name: str, smaller: int | str, larger: int | str) -> None:
    assert total(**{name: smaller}) < total(**{name: larger})


def test_computing_activations_again_needs_less() -> None:
    assert total(recomputes=True) < total()
    assert total(gradient_accumulation=4) == total()


def test_an_adapter_has_as_many_numbers_as_its_file() -> None:
    layers = {"unet.a.to_q": (6, 5), "unet.conv1": (4, 3, 3, 3), "text_encoder.q_proj": (7, 7), "unet.other": (9, 9)}
    plain = config(rank=2, targets="attention")
    assert adapter_parameters(plain, TOON, layers) == 2 * (6 + 5)
    assert adapter_parameters(config(rank=2, adapter_type="dora", targets="attention"), TOON, layers) == 2 * 11 + 6
    with_convolution = config(rank=2, targets="attention_and_convolution", text_encoder_learning_rate=1e-4)
    assert adapter_parameters(with_convolution, TOON, layers) == 2 * (11 + (27 + 4) + 14)


def test_weights_count_in_the_format_that_a_device_holds_them_in() -> None:
    assert SIZES.on_gpu == SIZES.on_cpu
    quantised = read_network_sizes(replace(TOON, is_quantised=True))
    assert quantised.on_gpu == quantised.on_cpu
    assert quantised.on_gpu.denoiser == SIZES.on_gpu.denoiser / 2
    assert quantised.on_gpu.others > SIZES.on_gpu.others / 2, "the autoencoder is float32 always"


def test_whose_weights_are_held_in_sixteen_bits_computes_in_them_whatever_is_asked() -> None:
    quantised, in_halves = replace(TOON, is_quantised=True), replace(TOON, pipeline="FluxPipeline")
    asked = [
        training_memory(config(precision=precision, prior_weight=1.0), quantised, SIZES, kind, 16, recomputes=False)
        for kind in KINDS
        for precision in ("float32", "bfloat16")
    ]
    assert asked[0] == asked[1]
    assert asked[2] == asked[3]
    # Class pictures too, which are drawn without autocast.
    assert asked[0].passes < training_memory(config(prior_weight=1.0), TOON, SIZES, "cuda", 16, recomputes=False).passes
    assert [computes_in_halves(in_halves, on_gpu) for on_gpu in (True, False)] == [True, False]
    assert not computes_in_halves(TOON, on_gpu=True)


def test_of_a_base_model_whose_files_are_gone_nothing_is_known(tmp_path: Path) -> None:
    estimator = Estimator(MemoryStore())
    assert estimator.memory(config(), TOON, 16) > 0
    assert estimator.memory(config(), replace(TOON, folder=tmp_path), 16) == 0


def test_on_a_gpu_a_step_has_the_denoiser_alone_unless_a_text_encoder_learns() -> None:
    large = replace(SIZES, on_gpu=WeightBytes(10**9, 10**6), on_cpu=WeightBytes(10**9, 10**6))

    def weights(kind: DeviceKind, **given: Any) -> int:
        asked = config(batch_size=64, resolution=128, **given)
        return training_memory(asked, TOON, large, kind, 16, recomputes=False).weights

    assert weights("cuda") == large.on_gpu.denoiser
    assert weights("cuda", text_encoder_learning_rate=1e-4) == weights("cpu") == large.on_gpu.all
    # Encoding and drawing need the others too, and where they are large that is the worst moment.
    most = replace(large, on_gpu=WeightBytes(10**9, 10**10))
    assert training_memory(config(), TOON, most, "cuda", 16, recomputes=False).weights == most.on_gpu.all


def test_another_shape_is_scaled_and_the_published_one_is_not() -> None:
    doubled = {name: tuple(2 * size for size in shape) for name, shape in SIZES.layers.items()}
    larger = training_memory(config(), TOON, replace(SIZES, layers=doubled), "cuda", 16, recomputes=False)
    plain = training_memory(config(), TOON, SIZES, "cuda", 16, recomputes=False)
    assert 1.5 < larger.passes / plain.passes < 4


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.tag)
def test_every_family_was_counted(family: object) -> None:
    figures = read_figures("", family.tag)  # type: ignore[attr-defined]
    assert isinstance(figures, ActivationFigures), (
        f"run: python -m tests.benchmarks.activation_memory --family {family.tag} --write"  # type: ignore[attr-defined]
    )
    for targets in family.targets:  # type: ignore[attr-defined]
        kept, recomputed = (
            figures.step(targets, halves=True, recomputes=recomputes).bytes_for(1, 4096) for recomputes in (False, True)
        )
        assert 0 < recomputed < kept


def test_what_does_not_fit_is_said_with_the_preset_that_needs_least() -> None:
    asked, presets = config(preset="quality"), by_preset()
    least = needs().bytes_of(presets["low_memory"])
    assert least < needs().bytes_of(presets["balanced"]) < needs().bytes_of(asked)
    small = needs(Device(kind="cuda", memory_bytes=least + 1))
    # All that is left to this preset is decided by the caller here: activations are kept whatever happens.
    advice = small.advice(asked.model_copy(update={"gradient_checkpointing": "never"}), presets)
    assert advice is not None
    assert (advice.fits, advice.smallest, advice.least_bytes) == (False, "low_memory", least)
    assert "PRESET_LOW_MEMORY needs" in advice.words
    tiny = needs(Device(kind="cuda", memory_bytes=least - 1)).advice(asked, presets)
    assert tiny is not None
    assert (tiny.fits, tiny.least_bytes) == (False, least)
    assert "no preset fits" in tiny.words
    ample = needs().advice(asked, presets)
    assert ample is not None
    assert (ample.fits, ample.smallest, ample.least_bytes) == (True, "", 0)


@pytest.mark.parametrize("device", [None, Device(kind="cpu"), Device(kind="cuda")])
def test_of_a_device_whose_memory_is_not_known_nothing_is_said(device: Device | None) -> None:
    assert needs(device).advice(config(), by_preset()) is None


def test_a_family_that_nobody_counted_is_not_said_to_fit() -> None:
    uncounted = Needs(replace(TOON, activations=None), SIZES, 16, HUGE)
    assert uncounted.advice(config(), by_preset()) is None
    assert 0 < uncounted.bytes_of(config()) < needs().bytes_of(config())


def test_automatic_checkpointing_is_counted_on_where_memory_is_known_to_want() -> None:
    asked = config()
    kept, recomputed = total(), total(recomputes=True)
    assert needs().bytes_of(asked) == needs(None).bytes_of(asked) == kept
    assert needs(Device(kind="cuda", memory_bytes=kept - 1)).bytes_of(asked) == recomputed


def test_what_was_measured_corrects_what_is_computed_at_every_rank_batch_and_size() -> None:
    measured = Measured("cuda", held_bytes=12, computed_bytes=10)
    for given in ({}, {"rank": 64}, {"batch_size": 2}, {"resolution": 128}, {"gradient_checkpointing": "always"}):
        asked = config(**given)  # type: ignore[arg-type]
        plain = training_memory(asked, TOON, SIZES, "cuda", 16, asked.gradient_checkpointing == "always")
        assert needs(measured=measured).bytes_of(asked) == pytest.approx(1.2 * plain.tensors + plain.overhead, rel=1e-6)
    # On another kind of device other things are held.
    on_cpu = Needs(TOON, SIZES, 16, Device(kind="cpu"), measured)
    assert on_cpu.bytes_of(config()) == training_memory(config(), TOON, SIZES, "cpu", 16, recomputes=False).total


def test_sizes_are_of_what_is_loaded() -> None:
    assert isinstance(SIZES, NetworkSizes)
    assert 40e6 < SIZES.on_cpu.all < 100e6
