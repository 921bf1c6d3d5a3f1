"""Takes in an upload stream: pictures are examined as they complete, and added to the dataset together at the end.

Its one rule: a stream that breaks, for whatever reason, leaves the dataset as it was and no picture behind.
"""

import asyncio
from collections.abc import AsyncIterator

from trainer_service.dataset_record import DatasetRecord
from trainer_service.datasets import Datasets
from trainer_service.image_entry import ImageEntry
from trainer_service.upload import Part, Upload


async def receive_images(datasets: Datasets, parts: AsyncIterator[Part]) -> DatasetRecord:
    """The dataset after the upload. Raises InvalidRequest, ResourceMissing, WriteConflict."""
    upload, kept = Upload(), list[ImageEntry]()
    try:
        async for part in parts:
            known = upload.dataset is not None
            image = upload.feed(part)
            if upload.dataset is not None and not known:
                # Before the pictures, so that an upload to nowhere fails at once.
                await asyncio.to_thread(datasets.get, upload.dataset)
            if image is not None and upload.dataset is not None:
                # Not interrupted half way: what was stored is known, and can be discarded.
                kept.append(await asyncio.shield(asyncio.to_thread(datasets.keep, upload.dataset, image)))
        return await asyncio.to_thread(datasets.add, upload.finish(), kept)
    except BaseException:
        if upload.dataset is not None and kept:
            await asyncio.shield(asyncio.to_thread(datasets.discard, upload.dataset, kept))
        raise
