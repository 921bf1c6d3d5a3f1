"""Chunks that come one after another -> a file, written beside the event loop."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

from personae.download import Download, PartFile


async def saved(download: Download, coming: AsyncGenerator[bytes, None], path: Path) -> Path:
    """Write what comes to `path`, or into the folder `path`, and return where it lies. Raises Corrupted."""
    # Opened here, because a thread that outlives a cancellation would leave the file behind.
    file = PartFile(path)
    try:
        async with aclosing(coming) as chunks:
            async for chunk in chunks:
                await asyncio.to_thread(file.write, chunk)
        return await asyncio.to_thread(file.finish, download)
    finally:
        file.discard()
