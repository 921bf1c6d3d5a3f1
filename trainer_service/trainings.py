"""Trainings in the bucket: create, read, list, cancel. Blocking; called from worker threads of the service.

Its one rule: everything a training needs is written before its record, so that a record is always whole, and a crash in
between leaves only what a repeat of the request finds and uses.
"""

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import get_args

from base_models.catalog import BaseModelEntry
from service_kit import schema
from service_kit.adapter_manifest import AdapterReservation
from service_kit.call_context import identify, traceparent
from service_kit.errors import PreconditionUnmet, ResourceExists, ResourceMissing, Violations
from service_kit.names import AdapterName, ProjectName, TrainingName
from service_kit.store import ObjectExists, ObjectStore
from service_kit.tombstone import is_deleted, wrote_too_late
from trainer_service.consent import require_consent
from trainer_service.dataset_advice import MINIMUM_IMAGES
from trainer_service.dataset_record import DatasetRecord
from trainer_service.datasets import Datasets
from trainer_service.ending import end_training
from trainer_service.estimating import Estimate
from trainer_service.estimator import Estimator
from trainer_service.events import StateChanged
from trainer_service.journal import Journal
from trainer_service.lifecycle import State
from trainer_service.paging import PageRequest, page_of_ids, readable
from trainer_service.project_quota import ProjectQuota
from trainer_service.request_id import derived_id
from trainer_service.training_config import (
    DEFAULT_CAPTION_TEMPLATE,
    MAX_SEED,
    PresetName,
    TrainingConfig,
    decide,
    training_prompt,
)
from trainer_service.training_memory import Device
from trainer_service.training_record import DatasetTraining, TrainingDataset, TrainingImage, TrainingRecord
from trainer_service.training_request import CheckedRequest, TrainingRequest, check_request
from trainer_service.training_store import TrainingStore
from trainer_service.versions import free_version, reserve_version

# Holder of the lease while the service itself ends a training that no worker has.
_CANCELLER = "cancelled-in-queue"

TokenCount = Callable[[BaseModelEntry, str], int]
"""Tokens of a prompt for a base model."""


@dataclass(frozen=True)
class Created:
    """The answer to CreateTraining: the record and its dataset. `estimate`: only validation was asked for."""

    record: TrainingRecord
    dataset: DatasetRecord
    estimate: Estimate | None = None


class Trainings:
    """The trainings of a bucket. `now` gives the time in UTC; `require_consent`: none without a consent."""

    def __init__(
        self,
        store: ObjectStore,
        datasets: Datasets,
        base_models: Mapping[str, BaseModelEntry],
        count_tokens: TokenCount,
        now: Callable[[], datetime],
        most_of_a_project: int = 0,
        require_consent: bool = False,
    ) -> None:
        """most_of_a_project: trainings of one project that may be queued and running; 0: any number."""
        self._store = store
        self._quota = ProjectQuota(store, most_of_a_project)
        self._records = TrainingStore(store)
        self._estimator = Estimator(store)
        self._datasets = datasets
        self._base_models = base_models
        self._count_tokens = count_tokens
        self._now = now
        self._require_consent = require_consent

    def create(self, request: TrainingRequest, device: Device | None = None) -> Created:
        """Queue a training, or find the one that an equal request queued before.

        device: what workers here compute on, for an estimate; None where that is not known. Raises InvalidRequest,
        ResourceMissing, ResourceExists, PreconditionUnmet, and TryLater beyond the quota.
        """
        checked = check_request(request, self._base_models)
        project = checked.dataset.project
        name = TrainingName(project, derived_id("training", project, request.request_id))
        identify(project=project, training=str(name))
        earlier = self._earlier(name, checked, request) if request.request_id else None
        if earlier is not None:
            return earlier
        if request.request_id and is_deleted(self._store, name):
            hint = "the training of this request_id was deleted; use a new one"
            raise ResourceExists("Training", str(name), hint, "DELETED")
        dataset = self._datasets.get(checked.dataset)
        config = self._decide(name, checked, dataset)
        self._check_dataset(checked, config, dataset)
        adapter, claim = AdapterName(project, checked.adapter_id), AdapterReservation(training=str(name))
        if request.validate_only:
            version = free_version(self._store, adapter, claim, request.new_version, self._now())
            record = self._record(name, checked, config, request, version, "", dataset)
            by_preset = {
                preset: self._decide(
                    name, dataclasses.replace(checked, config=checked.config | {"preset": preset}), dataset
                )
                for preset in get_args(PresetName)
            }
            found = self._estimator.estimate(config, checked.entry, len(dataset.accepted), device, by_preset)
            return Created(record, dataset, found)
        with self._quota.place(name):
            return self._write(name, checked, config, request, dataset)

    def _write(
        self,
        name: TrainingName,
        checked: CheckedRequest,
        config: TrainingConfig,
        request: TrainingRequest,
        dataset: DatasetRecord,
    ) -> Created:
        adapter, claim = AdapterName(name.project, checked.adapter_id), AdapterReservation(training=str(name))
        version = reserve_version(self._store, adapter, claim, request.new_version, self._now())
        queue_key = schema.queue_entry(name, int(self._now().timestamp() * 1000))
        record = self._record(name, checked, config, request, version, queue_key, dataset)
        self._enter_with_dataset(record)
        images = tuple(
            TrainingImage(digest=image.digest, caption=image.caption, mask_digest=image.mask_digest)
            for image in dataset.accepted
        )
        snapshot = TrainingDataset(digest=dataset.digest, images=images)
        with contextlib.suppress(ObjectExists):
            self._store.create(schema.training_dataset(name), snapshot.to_json())
        Journal(self._store, name).begin(StateChanged(state=State.QUEUED), self._now())
        self._store.put(queue_key, b"")
        try:
            self._records.create(record)
        except ObjectExists:
            stored = self._earlier(name, checked, request)
            if stored is None:
                raise
            return stored
        if wrote_too_late(self._store, name):
            self._records.hide(name)
            raise ResourceMissing("Dataset", str(checked.dataset))
        return Created(record, dataset)

    def get(self, name: TrainingName) -> TrainingRecord:
        """Read a training. Raises ResourceMissing."""
        return self._records.read(name)[0]

    def page(self, project: ProjectName, request: PageRequest) -> tuple[list[TrainingRecord], str]:
        """A page of trainings by id, and the token of the next."""
        page = page_of_ids(self._store, schema.trainings_prefix(project), request)
        names = (TrainingName(project.project, training) for training in page.ids)
        return readable(names, self.get), page.next_token

    def cancel(self, name: TrainingName) -> TrainingRecord:
        """Ask a training to stop; one that nobody holds ends here. Raises ResourceMissing, PreconditionUnmet."""
        record = self._records.change(name, _cancelling)
        if record.holder != _CANCELLER:
            return record
        return end_training(self._store, record, State.CANCELLED, None, self._now)

    def memory_of(self, record: TrainingRecord) -> int:
        """The most bytes that a training is estimated to hold at once; 0 where its base model is allowed no more, or
        cannot be read."""
        entry = self._base_models.get(record.base_model)
        if entry is None:
            return 0
        pictures = len(self._records.dataset(record.name).images)
        return self._estimator.memory(record.config, entry, pictures)

    def _enter_with_dataset(self, record: TrainingRecord) -> None:
        """Have the dataset's deletion find this training. Raises ResourceMissing where it was deleted meanwhile."""
        entry = DatasetTraining(adapter=str(record.adapter))
        with contextlib.suppress(ObjectExists):
            self._store.create(schema.dataset_training(record.dataset_name, record.training), entry.to_json())
        if wrote_too_late(self._store, record.dataset_name):
            raise ResourceMissing("Dataset", str(record.dataset_name))

    def _earlier(self, name: TrainingName, checked: CheckedRequest, request: TrainingRequest) -> Created | None:
        try:
            record = self.get(name)
        except ResourceMissing:
            return None
        if record.request_digest != checked.digest(request.new_version):
            raise ResourceExists(
                "Training",
                str(name),
                "this request_id came with another body before; use a new one",
                "REQUEST_ID_REUSED",
            )
        return Created(record, self._datasets.get(record.dataset_name))

    def _decide(self, name: TrainingName, checked: CheckedRequest, dataset: DatasetRecord) -> TrainingConfig:
        # A function of the name, so that equal requests train with equal seeds.
        seed = int.from_bytes(hashlib.sha256(str(name).encode()).digest()[:8]) % (MAX_SEED + 1)
        template = str(checked.config.get("caption_template", DEFAULT_CAPTION_TEMPLATE))
        subject = training_prompt(template, checked.trigger_word, checked.class_noun, "")
        return decide(checked.config, checked.entry, seed, len(dataset.accepted), subject)

    def _check_dataset(self, checked: CheckedRequest, config: TrainingConfig, dataset: DatasetRecord) -> None:
        """Raise PreconditionUnmet or InvalidRequest where these pictures and this config do not go together."""
        if self._require_consent:
            require_consent(dataset.consent, str(dataset.name), "create the dataset with a consent")
        if not dataset.ready:
            raise PreconditionUnmet(
                "DATASET_NOT_READY",
                str(dataset.name),
                f"{dataset.name} has {len(dataset.accepted)} usable pictures; a training starts with {MINIMUM_IMAGES}. "
                "Its report says what was refused and why.",
            )
        violations, limit = Violations(), checked.entry.max_prompt_tokens
        most = len(dataset.accepted) // 2
        violations.check(
            config.validation_images <= most,
            "training.config.validation_images",
            config.validation_images,
            f"at most half of {len(dataset.accepted)} pictures, {most}",
        )
        for index, prompt in enumerate(config.sample_prompts):
            tokens = self._count_tokens(checked.entry, prompt)
            violations.check(
                tokens <= limit, f"training.config.sample_prompts[{index}]", f"{tokens} tokens", f"at most {limit}"
            )
        violations.raise_if_any()
        too_long = []
        for image in dataset.accepted:
            prompt = training_prompt(config.caption_template, checked.trigger_word, checked.class_noun, image.caption)
            tokens = self._count_tokens(checked.entry, prompt)
            if tokens > limit:
                too_long.append(f"{image.filename} ({tokens} tokens)")
        if too_long:
            raise PreconditionUnmet(
                "CAPTION_TOO_LONG",
                str(dataset.name),
                f"{checked.entry.name} takes {limit} tokens with trigger word and class noun; the captions of "
                f"{', '.join(too_long)} are too long",
            )

    def _record(
        self,
        name: TrainingName,
        checked: CheckedRequest,
        config: TrainingConfig,
        request: TrainingRequest,
        version: int,
        queue_key: str,
        dataset: DatasetRecord,
    ) -> TrainingRecord:
        return TrainingRecord(
            project=name.project,
            training=name.training,
            request_digest=checked.digest(request.new_version),
            queue_key=queue_key,
            state=State.QUEUED,
            dataset=checked.dataset.dataset,
            adapter_id=checked.adapter_id,
            adapter_version=version,
            base_model=checked.entry.name,
            trigger_word=checked.trigger_word,
            class_noun=checked.class_noun,
            config=config,
            given_config=checked.config,
            created_at=self._now(),
            licence=checked.licence,
            consent=dataset.consent,
            traceparent=traceparent(),
        )


def _cancelling(record: TrainingRecord) -> TrainingRecord:
    """The record with cancellation asked for; where no worker holds it, the lease is taken so that none can."""
    if record.state in (State.SUCCEEDED, State.FAILED):
        raise PreconditionUnmet(
            "TRAINING_ENDED", str(record.name), f"{record.name} has {record.state.upper()}; there is nothing to cancel"
        )
    if record.state is State.CANCELLED or record.holder:
        return record.model_copy(update={"cancel_requested": True})
    return record.model_copy(update={"cancel_requested": True, "holder": _CANCELLER, "epoch": record.epoch + 1})
