"""A web backend on Personae: pictures in over HTTP, progress and images out as server-sent events.

It keeps nothing itself. Trainings and adapters are the services'; whoever loses a connection asks again by name.
"""

import asyncio
import base64
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from failures import body, handle_failures
from fastapi import Depends, FastAPI, File, Form, Header, Request, Response, UploadFile
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, Field
from uploads import lay_down

import personae
import personae.aio

MAX_UPLOAD_BYTES = 512 * 1024 * 1024
"""Of one request: what a stranger can have written to this machine's disk."""


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """One client for the life of the backend: its two channels carry the calls of every request."""
    trainer = os.environ.get("PERSONAE_TRAINER_ADDRESS", "127.0.0.1:50051")
    inference = os.environ.get("PERSONAE_INFERENCE_ADDRESS", "127.0.0.1:50052")
    token = os.environ.get("PERSONAE_TOKEN") or None
    # Browsers would rather be told than wait.
    patience = personae.Patience(unanswered_s=2.0)
    async with personae.aio.Client(trainer, inference, token=token, patience=patience) as client:
        app.state.client = client
        yield


app = FastAPI(title="Characters", lifespan=lifespan, max_body_size=MAX_UPLOAD_BYTES)
handle_failures(app)


def opened(request: Request) -> personae.aio.Client:
    """The client that the lifespan opened."""
    client: personae.aio.Client = request.app.state.client
    return client


Client = Annotated[personae.aio.Client, Depends(opened)]


@app.post("/characters/{name}/trainings", status_code=202)
async def train(
    name: str,
    client: Client,
    response: Response,
    pictures: Annotated[list[UploadFile], File(description="Pictures; x.txt is the caption of x.png.")],
    class_noun: Annotated[str, Form(description="What is shown, in one or two words.")] = "",
    preset: Annotated[str | None, Form(description="fast, balanced, quality or low-memory")] = None,
    steps: Annotated[int | None, Form(description="Optimizer steps; left out, the server chooses.")] = None,
) -> dict[str, object]:
    """Make a character of pictures: uploads them, queues a training and returns; its events say how it goes."""
    with tempfile.TemporaryDirectory() as folder:
        sent = await asyncio.to_thread(lay_down, pictures, Path(folder))
        dataset = await client.create_dataset(pictures=folder)
    training = await client.train(
        dataset,
        name=name,
        new_version=True,
        class_noun=class_noun,
        preset=preset,  # type: ignore[typeddict-item] - the client names the words that there are
        steps=steps,  # type: ignore[typeddict-item] - None leaves it to the server
    )
    events = f"/trainings/{training.name.rpartition('/')[2]}/events"
    response.headers["Location"] = events
    rejected = [{"file": sent.get(found.filename, ""), "detail": found.detail} for found in dataset.rejected]
    return {"training": training.name, "events": events, "accepted": dataset.accepted_count, "rejected": rejected}


async def named_training(training: str, client: Client) -> personae.aio.Training:
    """Looked up before the stream begins, so that one that does not exist is a 404."""
    return await client.get_training(training)


@app.get("/trainings/{training}/events", response_class=EventSourceResponse)
async def follow(
    followed: Annotated[personae.aio.Training, Depends(named_training)],
    last_event_id: Annotated[int, Header(ge=0)] = 0,
) -> AsyncIterator[ServerSentEvent]:
    """Every event of a training, then its end. A browser that reconnects says what it saw last, and misses nothing."""
    try:
        async with aclosing(followed.events(after=last_event_id)) as events:
            async for event in events:
                shown = asdict(event)
                # A sample picture goes as an image that a page can show.
                if content := shown.pop("content", None):
                    shown["src"] = data_url("image/png" if content.startswith(b"\x89PNG") else "image/webp", content)
                yield ServerSentEvent(id=str(event.sequence), event=type(event).__name__, data=shown)
    except personae.PersonaeError as error:
        yield ServerSentEvent(event="error", data=body(error))


class Scenes(BaseModel):
    """What to draw."""

    scenes: list[str] = Field(min_length=1, max_length=16, examples=[["happy, on a red sofa", "sad"]])
    images_per_scene: int = Field(default=1, ge=1, le=8)


async def begun(name: str, wanted: Scenes, client: Client) -> AsyncIterator[AsyncIterator[personae.Image]]:
    """Images from the moment that the first is there, so that what is refused is refused by a status.

    A browser that leaves ends the dependency, and with it the call: the engine's rows are free within one step.
    """
    adapter = await client.get_adapter(name)
    prompts = [adapter.prompt(scene) for scene in wanted.scenes]
    images = client.generate(prompts, adapter=adapter, images_per_prompt=wanted.images_per_scene)
    async with aclosing(images):
        first = await anext(images)

        async def all_of_them() -> AsyncIterator[personae.Image]:
            yield first
            async for image in images:
                yield image

        yield all_of_them()


@app.post("/characters/{name}/images", response_class=EventSourceResponse)
async def generate(
    images: Annotated[AsyncIterator[personae.Image], Depends(begun)],
) -> AsyncIterator[ServerSentEvent]:
    """Each image as soon as it is finished, in any order; `index` says which it is."""
    try:
        async for image in images:
            src = "" if image.filtered else data_url(image.media_type, image.content)
            told = {"index": image.index, "prompt": image.prompt, "seed": str(image.seed), "digest": image.digest}
            yield ServerSentEvent(event="image", data={**told, "filtered": image.filtered, "src": src})
        yield ServerSentEvent(event="done", data={})
    except personae.PersonaeError as error:
        yield ServerSentEvent(event="error", data=body(error))


def data_url(media_type: str, content: bytes) -> str:
    """What an <img> shows without another request."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
