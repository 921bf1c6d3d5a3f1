"""What someone does who has installed the wheel and nothing else: trains and generates, with both clients.

Run by `test_wheel.py` in an environment of its own: `installed_client.py TRAINER INFERENCE PICTURES NAME`.
"""

import asyncio
import importlib.util
import os
import sys
import warnings
from importlib.metadata import version

# Before the import, so that a generated file that is too old for its protobuf is noticed.
warnings.simplefilter("error")

import personae  # noqa: E402

trainer, inference, pictures, name = sys.argv[1:]

assert importlib.util.find_spec("torch") is None
assert personae.__file__.startswith(sys.prefix)

with personae.Client(trainer, inference) as client:
    dataset = client.create_dataset(pictures=pictures)
    adapter = client.train(dataset, name=name, steps=2, batch_size=1).wait()
    (image,) = client.generate(adapter.prompt("happy"), adapter=adapter, seeds=[1], steps=2)
    assert image.picture().size == (64, 64)
    # Made before the fork, used on both sides of it. Python 3.12 warns of every fork of a process that has threads.
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        child = os.fork()
    if child == 0:
        (again,) = client.generate_many([adapter.prompt("happy")], adapter=adapter, seeds=[1], steps=2)
        os._exit(again.content != image.content)
    assert os.waitpid(child, 0)[1] == 0
    (again,) = client.generate(adapter.prompt("happy"), adapter=adapter, seeds=[1], steps=2)
    assert again.content == image.content


async def awaited() -> personae.Image:
    async with personae.aio.Client(trainer, inference) as client:
        training = await client.train(dataset, name=f"{name}-aio", steps=2, batch_size=1)
        sequences = [event.sequence async for event in training.events()]
        assert sequences == list(range(1, len(sequences) + 1))
        await training.wait()
        (image,) = [
            image async for image in client.generate(adapter.prompt("happy"), adapter=adapter, seeds=[1], steps=2)
        ]
        return image


assert asyncio.run(awaited()).content == image.content
print(*(f"{package}=={version(package)}" for package in ("grpcio", "grpcio-status", "protobuf", "pillow")))
