"""Evaluation of a proven adapter: pictures drawn without and with it, from the same prompts and seeds, before a judge.

Its one rule: an adapter is never lost for want of numbers. What fails here becomes a notice, and the adapter is
published without an evaluation; what interrupts a training interrupts it here too.

Shapes: N training pictures, M of them autoencoded, B generated pictures, C channels, H/W height and width.
"""

import dataclasses
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from base_models.family import BaseModel
from base_models.likeness.evaluation import evaluate
from base_models.likeness.judge import Judge
from service_kit.adapter_manifest import EvaluationEntry
from trainer_service.events import Evaluated
from trainer_service.training_record import LeaseLost, TrainingRecord
from trainer_service.worker.autocast import quick
from trainer_service.worker.interrupts import Cancelled, Draining
from trainer_service.worker.pictures import Report
from trainer_service.worker.reloading import reloaded
from trainer_service.worker.reporter import Reporter

# Takes after the last checkpoint; where even more were needed, workers die of the evaluation and the next goes without.
MAX_TAKES = 2
_MOST_AUTOENCODED = 64
_logger = logging.getLogger(__name__)

Count = Callable[[int], None]
"""Called with the pictures finished so far; may raise to interrupt."""


@dataclass(frozen=True)
class Candidate:
    """An adapter file that is to be judged, and the pictures that it was made from, as squares."""

    record: TrainingRecord
    body: bytes
    pixels_NCHW: Tensor


def evaluate_if_possible(
    base: BaseModel,
    candidate: Candidate,
    load_judge: Callable[[], Judge | None],
    takes: int,
    report: Report,
    reporter: Reporter,
) -> EvaluationEntry | None:
    """What the judge measures; None where there is no judge or where it failed. Raises what interrupts the training.

    takes: how often the training was taken since its last checkpoint, this take included.
    """
    if takes > MAX_TAKES:
        _notice(reporter, "workers died here before")
        return None
    try:
        judge = load_judge()
        if judge is None:
            return None
        entry = judged(base, candidate, judge, report)
    except (LeaseLost, Cancelled, Draining):
        raise
    # Whatever it is, for example a judge that does not fit into the memory that the base model leaves.
    except Exception as error:
        _logger.error("%s: not evaluated", candidate.record.name, exc_info=error)
        _notice(reporter, "the worker's log has the reason")
        return None
    reporter.report(Evaluated(evaluation=entry))
    return entry


def judged(base: BaseModel, candidate: Candidate, judge: Judge, report: Report) -> EvaluationEntry:
    """Draw, autoencode, measure. The base model is afterwards as it was before."""
    record, scenes = candidate.record, judge.scenes
    prompts = [record.prompt("") + scene for scene in scenes]
    pixels_MCHW = candidate.pixels_NCHW[:_MOST_AUTOENCODED]
    total = 2 * len(scenes) + len(pixels_MCHW)
    size, at_once = record.config.resolution, record.config.pictures_at_once

    def counting(before: int) -> Count:
        return lambda finished: report(before + finished, total)

    with quick(base, record.config):
        untuned_BCHW = drawn(base, prompts, size, at_once, counting(0))
        with reloaded(base, candidate.body):
            tuned_BCHW = drawn(base, prompts, size, at_once, counting(len(scenes)))
        autoencoded_MCHW = autoencoded(base, pixels_MCHW, at_once, counting(2 * len(scenes)))
    found = evaluate(
        judge,
        candidate.pixels_NCHW,
        autoencoded_MCHW,
        untuned_BCHW,
        tuned_BCHW,
        scenes,
        between_groups=lambda: report(total, total),
    )
    return EvaluationEntry(judge=judge.name, **dataclasses.asdict(found))


def drawn(base: BaseModel, prompts: Sequence[str], size: int, at_once: int, count: Count) -> Tensor:
    """Pixels_BCHW on the CPU: picture b of prompt b with seed b, by the network as it is now, in groups."""
    groups = []
    for start in range(0, len(prompts), at_once):
        rows = range(len(prompts))[start : start + at_once]
        count(start)
        made = base.generate([prompts[row] for row in rows], rows, size, lambda start=start: count(start))
        groups.append(made.cpu())
    count(len(prompts))
    return torch.cat(groups)


@torch.no_grad()
def autoencoded(base: BaseModel, pixels_MCHW: Tensor, at_once: int, count: Count) -> Tensor:
    """Pixels_MCHW on the CPU of training pictures, as generated ones come out of the autoencoder, in groups."""
    groups = []
    for start in range(0, len(pixels_MCHW), at_once):
        count(start)
        made = base.decode_latents(base.encode_images(pixels_MCHW[start : start + at_once]))
        groups.append(made.float().clamp(-1, 1).cpu())
    count(len(pixels_MCHW))
    return torch.cat(groups)


def _notice(reporter: Reporter, why: str) -> None:
    reporter.notice("EVALUATION_FAILED", f"the adapter is published without an evaluation: {why}")
