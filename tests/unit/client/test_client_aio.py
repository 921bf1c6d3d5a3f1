"""What only the asyncio client can get wrong; all it has in common with the other one is tested with both."""

import asyncio
import inspect
import time
from contextlib import aclosing

import pytest
from client_fakes import ended, progress

import personae
from tests.unit.client.conftest import HASTY

LISTENING_S = 5


def verbs(kind):
    """The public methods and properties of a class, with their parameters and their documentation."""
    # With what they inherit: many verbs are in mixins.
    public = {name: getattr(kind, name) for name in dir(kind) if not name.startswith("_")}
    return {
        name: (
            list(inspect.signature(value).parameters.values()) if callable(value) else "property",
            inspect.getdoc(value),
        )
        for name, value in public.items()
    }


@pytest.mark.parametrize(
    ("synchronous", "awaited"), [(personae.Client, personae.aio.Client), (personae.Training, personae.aio.Training)]
)
def test_both_clients_have_the_same_verbs_with_the_same_parameters_and_words(synchronous, awaited):
    assert verbs(synchronous) == verbs(awaited)
    assert {"generate_many", "delete_adapter", "preload_adapter"} <= verbs(personae.Client).keys()


def test_both_clients_are_made_alike():
    assert inspect.signature(personae.Client) == inspect.signature(personae.aio.Client)


def test_a_client_is_closed_with_its_block(trainer_address):
    async def use():
        async with personae.aio.Client(trainer_address, patience=HASTY) as client:
            return await client.get_training("t1")

    assert asyncio.run(use()).record.state == "queued"


def test_cancelling_the_task_that_iterates_cancels_the_call(trainer_address, trainer):
    trainer.events, trainer.silent_after = [progress(1), progress(2)], [1]

    async def use():
        async with personae.aio.Client(trainer_address) as client:
            training = await client.get_training("t1")
            seen = asyncio.Event()
            task = asyncio.create_task(training.wait(on_event=lambda event: seen.set()))
            await seen.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(trainer.watch_over.wait, LISTENING_S)

    asyncio.run(use())
    assert len(trainer.requests["WatchTraining"]) == 1


def test_closing_the_iterator_cancels_the_call(trainer_address, trainer):
    trainer.events, trainer.silent_after = [progress(1), progress(2)], [1]

    async def use():
        async with personae.aio.Client(trainer_address) as client:
            training = await client.get_training("t1")
            async with aclosing(training.events()) as events:
                assert (await anext(events)).sequence == 1
            assert await asyncio.to_thread(trainer.watch_over.wait, LISTENING_S)

    asyncio.run(use())


def test_a_deadline_of_the_caller_is_his_own_and_not_the_servers_silence(trainer_address, trainer):
    trainer.events, trainer.silent_after = [progress(1), progress(2)], [1]

    async def use():
        async with personae.aio.Client(trainer_address) as client:
            training = await client.get_training("t1")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await training.wait()

    asyncio.run(use())


def test_a_closed_client_ends_its_streams_with_an_error_of_the_family(trainer_address, trainer):
    trainer.events, trainer.silent_after = [progress(1), progress(2)], [1]

    async def use():
        client = personae.aio.Client(trainer_address)
        training = await client.get_training("t1")
        events = training.events()
        await anext(events)
        waiting = asyncio.create_task(anext(events))
        await asyncio.sleep(0.1)
        await client.close()
        with pytest.raises(personae.PersonaeError):
            await waiting

    asyncio.run(use())


def test_many_calls_share_a_loop(trainer_address, inference_address, trainer):
    trainer.events = [progress(1), ended(2)]

    async def seeds(client, prompt):
        return [image.seed async for image in client.generate(prompt, seeds=[1, 2])]

    async def use():
        async with personae.aio.Client(trainer_address, inference_address, patience=HASTY) as client:
            training = await client.get_training("t1")
            return await asyncio.gather(training.wait(), seeds(client, "a"), seeds(client, "b"))

    adapter, *generated = asyncio.run(use())
    assert adapter.trigger_word == "sks"
    assert generated == [[2, 1], [2, 1]]


def test_slow_pictures_do_not_hold_up_the_loop(trainer_address):
    def slowly():
        time.sleep(0.5)
        yield b"x"

    async def use():
        async with personae.aio.Client(trainer_address, patience=HASTY) as client:
            uploading = asyncio.create_task(client.create_dataset(pictures=slowly()))
            longest_s, begun = 0.0, time.monotonic()
            while not uploading.done():
                await asyncio.sleep(0.01)
                now = time.monotonic()
                longest_s, begun = max(longest_s, now - begun), now
            return longest_s, await uploading

    longest_s, dataset = asyncio.run(use())
    assert longest_s < 0.4
    assert len(dataset.images) == 1
