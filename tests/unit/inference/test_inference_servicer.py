"""InferenceService over a real port with a fake engine: what a caller gets who asks for what there is."""

import hashlib
import io
import json
from pathlib import Path
from xml.etree import ElementTree

import grpc
import pytest
from PIL import Image

from inference_service.admission import Limits
from personae.v1 import inference_pb2 as pb
from service_kit.names import AdapterVersionName
from tests.bucket_adapters import publish, reserve
from tests.unit.inference.fake_serving import PATIENCE_S, FakeServing, ask, ask_with_adapter, serve

V1 = AdapterVersionName("default", "hero", 1)
V2 = AdapterVersionName("default", "hero", 2)
MADE_BY_A_MODEL = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


def test_a_generation_is_accepted_then_told_of_then_done(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        messages = await serving.generate(ask(7, 8))
        # The clock stands still, so only the first progress message is due.
        assert [message.WhichOneof("kind") for message in messages] == [
            "accepted",
            "progress",
            "image",
            "image",
            "done",
        ]
        assert messages[0].accepted.image_count == 2
        assert messages[1].progress.indices == [0]
        assert {(m.image.index, m.image.seed) for m in messages if m.HasField("image")} == {(0, 7), (1, 8)}
        assert messages[-1].done.image_count == 2

    serve(tmp_path, scenario)


def test_the_effective_request_holds_every_default_and_asks_for_the_same_again(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        request = pb.GenerateRequest(prompts=[pb.GenerateRequest.Prompt(text="a red hat")], images_per_prompt=3)
        first = await serving.generate(request)
        effective = first[0].accepted.effective_request
        assert effective.base_model == "toon-64"
        assert (effective.steps, effective.guidance_scale, effective.width, effective.height) == (20, 3.0, 64, 64)
        assert (effective.scheduler, effective.format) == (pb.SCHEDULER_DDIM, pb.IMAGE_FORMAT_PNG)
        assert len(set(effective.prompts[0].seeds)) == 3
        again = await serving.generate(effective)
        assert again[0].accepted.effective_request == effective
        digests = [
            {m.image.seed: m.image.digest for m in messages if m.HasField("image")} for messages in (first, again)
        ]
        assert digests[0] == digests[1]

    serve(tmp_path, scenario)


@pytest.mark.parametrize(
    ("file_format", "media_type"),
    [
        (pb.IMAGE_FORMAT_UNSPECIFIED, "image/png"),
        (pb.IMAGE_FORMAT_WEBP, "image/webp"),
        (pb.IMAGE_FORMAT_JPEG, "image/jpeg"),
    ],
)
def test_an_image_is_a_file_that_says_where_it_came_from(
    tmp_path: Path, file_format: pb.ImageFormat, media_type: str
) -> None:
    async def scenario(serving: FakeServing) -> None:
        digest = publish(serving.store, V1)
        request = ask_with_adapter(V1)
        request.format = file_format
        request.width = 96
        request.negative_prompt = "fog"
        (image,) = [message.image for message in await serving.generate(request) if message.HasField("image")]
        assert image.media_type == media_type
        assert image.digest == hashlib.sha256(image.content).hexdigest()
        assert image.finish_reason == pb.GenerateResponse.Image.FINISH_REASON_COMPLETED
        picture = Image.open(io.BytesIO(image.content))
        assert (picture.width, picture.height) == (image.width, image.height) == (96, 64)
        assert picture.get_format_mimetype() == media_type
        exif = picture.getexif()
        says = picture.info if "prompt" in picture.info else json.loads(exif[0x010E]) | {"Software": exif[0x0131]}
        assert says["Software"] == "personae"
        assert (says["prompt"], says["seed"], says["base_model"]) == ("a red hat", "1", "toon-64")
        assert json.loads(says["adapters"]) == [{"adapter": str(V1), "digest": digest, "weight": 1.0}]
        settings = {"base_model_digest": "d" * 64, "steps": "2", "guidance_scale": "3.0", "scheduler": "ddim"}
        assert says.items() >= (settings | {"negative_prompt": "fog"}).items()
        mark = ElementTree.fromstring(picture.info["xmp"]).find(".//{*}Description")
        assert mark is not None
        assert mark.attrib["{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType"] == MADE_BY_A_MODEL

    serve(tmp_path, scenario)


def test_the_latest_published_version_is_used_while_the_next_one_trains(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        publish(serving.store, V1)
        reserve(serving.store, V2)

        async def used() -> str:
            accepted = (await serving.generate(ask_with_adapter(V1.adapter_name)))[0].accepted
            return accepted.effective_request.adapters[0].adapter

        assert await used() == str(V1)
        publish(serving.store, V2)
        serving.clock.now_s += 4
        assert await used() == str(V2)

    serve(tmp_path, scenario)


def test_who_waits_is_told_how_many_images_are_ahead(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        serving.engine.gate.clear()
        first = serving.stub.Generate(ask(1, 2, 3), timeout=PATIENCE_S)
        await first.read()
        second = serving.stub.Generate(ask(4), timeout=PATIENCE_S)
        assert (await second.read()).HasField("accepted")
        assert (await second.read()).queued.images_ahead == 3
        info = await serving.stub.GetServingInfo(pb.GetServingInfoRequest(), timeout=PATIENCE_S)
        assert (info.images_waiting, info.requests_open, info.requests_limit) == (4, 2, 512)
        # Two steps with guidance, and decoding.
        assert (info.cost_waiting, info.cost_limit, info.project_cost_limit) == (4 * 6, 20_000, 20_000)
        assert not info.HasField("cost_per_second")
        assert serving.engine.computed == []

    serve(tmp_path, scenario)


def test_a_cancelled_generation_frees_its_places_and_computes_nothing(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        serving.engine.gate.clear()
        call = serving.stub.Generate(ask(1, 2, 3), timeout=PATIENCE_S)
        await call.read()
        await serving.engine.begun.wait()
        call.cancel()
        await serving.engine.freed.wait()
        serving.engine.gate.set()
        assert serving.engine.computed == []
        assert len([m for m in await serving.generate(ask(*range(4))) if m.HasField("image")]) == 4

    serve(tmp_path, scenario, limits=Limits(cost=4 * 6, requests=8, project_share=1.0))


def test_a_deadline_that_passes_in_the_queue_costs_nothing(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        serving.engine.gate.clear()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in serving.stub.Generate(ask(1), timeout=0.3):
                pass
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        await serving.engine.freed.wait()
        serving.engine.gate.set()
        assert serving.engine.computed == []
        await serving.generate(ask(2))

    serve(tmp_path, scenario)


def test_a_client_that_leaves_between_images_frees_the_engine(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        serving.engine.gate_after = 3
        call = serving.stub.Generate(ask(*range(64)), timeout=PATIENCE_S)
        while not (await call.read()).HasField("image"):
            pass
        call.cancel()
        await serving.engine.freed.wait()
        assert len(serving.engine.computed) <= 3
        # Or else it would close where the first call had not come to it.
        serving.engine.gate_after = None
        serving.engine.gate.set()
        assert len([m for m in await serving.generate(ask(*range(64))) if m.HasField("image")]) == 64

    serve(tmp_path, scenario)


def test_adapters_reach_the_engine_with_their_weights(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        digest = publish(serving.store, V1)
        request = ask(1, adapters=[pb.AdapterWeight(adapter=str(V1), weight=-0.5)])
        await serving.generate(request)
        (applied,) = serving.engine.adapters
        assert (applied.name, applied.digest, applied.weight) == (V1, digest, -0.5)

    serve(tmp_path, scenario)


def test_serving_info_says_what_can_be_asked(tmp_path: Path) -> None:
    async def scenario(serving: FakeServing) -> None:
        info = await serving.stub.GetServingInfo(pb.GetServingInfoRequest(), timeout=PATIENCE_S)
        (base,) = info.base_models
        assert (base.base_model, base.digest) == ("toon-64", "d" * 64)
        assert (base.size_step, base.min_size, base.max_size, base.default_size) == (16, 32, 128, 64)
        assert (base.max_prompt_tokens, base.default_steps, base.default_guidance_scale) == (38, 20, 3.0)
        assert base.default_scheduler == pb.SCHEDULER_DDIM
        assert list(base.schedulers) == [
            pb.SCHEDULER_DDIM,
            pb.SCHEDULER_EULER,
            pb.SCHEDULER_DPM_SOLVER_MULTISTEP,
        ]
        assert (base.max_guidance_scale, base.takes_negative_prompt) == (30.0, True)

    serve(tmp_path, scenario)
