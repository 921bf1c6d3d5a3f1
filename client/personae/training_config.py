"""Hyper-parameters, declared once: the keys, types and words that `train` takes and that trainings and adapters show.

A plain dict. Its keys are the fields of the contract's `TrainingConfig`, in their order; `requests.py` and `wire.py`
carry each to its field and back by the contract's own description of that field.
"""

from typing import TypedDict

from personae.vocabulary import (
    AdapterType,
    Crop,
    GradientCheckpointing,
    LossWeighting,
    Optimizer,
    Precision,
    Preset,
    Targets,
)


class TrainingConfig(TypedDict, total=False):
    """Hyper-parameters. What is not there, or None where no type checker looks, the server chooses by `preset`."""

    steps: int
    """Optimizer steps, 1 to 20,000. Default: the preset's, more for more pictures."""
    batch_size: int
    """Pictures per step, 1 to 64."""
    learning_rate: float
    """Peak learning rate, above 0 and at most 0.1; for `prodigy` a factor, at most 10."""
    warmup_steps: int
    """Steps of linear warm-up, 0 to `steps`; afterwards the rate falls along a cosine to a tenth of its peak."""
    rank: int
    """LoRA rank, 1 to 128."""
    alpha: float
    """LoRA alpha, above 0 and at most 1024; the update is scaled by alpha / rank. Default: the rank."""
    targets: Targets
    """Which layers are adapted."""
    resolution: int
    """Side in pixels of the square that pictures are cropped to, or, with `aspect_buckets`, whose area they have; 64 to
    2048, in the base model's steps."""
    seed: int
    """Seed of everything random, 0 to 2^63 - 1. Default: drawn by the server."""
    precision: Precision
    """Number format of the passes."""
    min_snr_gamma: float
    """Gamma of min-SNR loss weighting, above 0 and at most 100. Default: 5, used where `loss_weighting` says so."""
    caption_dropout: float
    """Chance per picture and step that its caption is emptied, 0 to 0.5."""
    prior_weight: float
    """Weight of the class pictures' loss (Ruiz et al. 2022), 0 to 10; 0 turns prior preservation off."""
    prior_images: int
    """Class pictures to generate, 1 to 1,000."""
    checkpoint_every: int
    """Steps between checkpoints, 1 to 20,000."""
    preset: Preset
    """How much time the training may take, which decides what is left out. Default: `balanced`."""
    adapter_type: AdapterType
    """What is trained. Default: `lora`; `dora` is a third slower."""
    text_encoder_learning_rate: float
    """Learning rate of a LoRA on the text encoder, at most 0.1; 0, the default, leaves the text encoder alone."""
    loss_weighting: LossWeighting
    """How much each timestep counts. Default: `min-snr` where `min_snr_gamma` is given, else `constant`."""
    noise_offset: float
    """Standard deviation of an offset added to each picture's noise, 0 to 1, for very dark and very bright pictures.
    Default: 0."""
    optimizer: Optimizer
    """What turns gradients into updates. Default: `adamw`; `prodigy` finds the learning rate itself."""
    ema_decay: float
    """Decay of a moving average of the weights, which is then what is published, 0 to 0.9999; 0 turns it off."""
    gradient_accumulation: int
    """Batches per optimizer step, 1 to 64. Default: 1."""
    gradient_checkpointing: GradientCheckpointing
    """Whether to save memory at the cost of a third more time. Default: `automatic`, where memory would not suffice."""
    crop: Crop
    """Which part of a picture is kept: the middle, or that with most detail (where there is a mask: the masked one)."""
    aspect_buckets: bool
    """Train each picture in the shape, among several of one area, that cuts least of it away; otherwise as a square."""
    horizontal_flip: bool
    """Train each picture's mirror image too. Default: False; wrong for faces with a parting, logos or text."""
    masked_weight: float
    """Weight of the loss outside a picture's mask, 0 to 1, for pictures that have one. Default: 0.1."""
    caption_template: str
    """How a picture's prompt is made, at most 200 characters. Default: `a picture of {trigger_word} {class_noun},
    {caption}`; `{trigger_word}` must be in it."""
    sample_every: int
    """Steps between sample pictures, 1 to 20,000; 0 draws none. Default: a quarter of `steps`."""
    sample_prompts: list[str]
    """What samples show, 1 to 4 prompts, drawn with the same seeds every time. Default: two about the subject."""
    validate_every: int
    """Steps between validations, 1 to 20,000; 0 turns them off, and the last weights are published. Default: an eighth
    of `steps`."""
    validation_images: int
    """Pictures held out to validate on, 0 to 100 and at most half of all; 0 validates on the training ones. Default:
    a tenth, where there are 24 or more."""
    early_stop_patience: int
    """End the training after this many validations in a row without a better one, 1 to 100; 0, the default, never."""
