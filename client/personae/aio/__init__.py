"""Personae for asyncio: the client of `personae` with the same verbs, awaited.

Errors, resources, events and `Patience` are those of `personae`; nothing here blocks the event loop.
"""

from personae.aio.client import Client
from personae.aio.training import Training

__all__ = ["Client", "Training"]
