"""A small inference service for the client's tests: images whose content says what they are, and streams that break."""

import hashlib

import grpc
from client_fakes import ADAPTER, Fake, fail, png
from held_adapters import HeldAdapters

from personae.v1 import inference_pb2, inference_pb2_grpc


class FakeInference(Fake, HeldAdapters, inference_pb2_grpc.InferenceServiceServicer):
    """Images whose content says what they are; `cut_after` holds after how many of them each stream breaks."""

    def __init__(self) -> None:
        super().__init__()
        self.cut_after: list[int] = []

    def Generate(self, request, context):
        self.saw("Generate", request, context)
        effective = inference_pb2.GenerateRequest()
        effective.CopyFrom(request)
        effective.steps = 20
        for sent_once in ("content", "mask") if request.HasField("start") else ():
            effective.start.ClearField(sent_once)
        for prompt in effective.prompts:
            if not prompt.seeds:
                prompt.seeds.extend(range(100, 100 + (request.images_per_prompt or 1)))
        accepted = inference_pb2.GenerateResponse.Accepted(effective_request=effective)
        yield inference_pb2.GenerateResponse(accepted=accepted)
        cut = self.cut_after.pop(0) if self.cut_after else -1
        pairs = [(place, seed) for place, prompt in enumerate(effective.prompts) for seed in prompt.seeds]
        # Finished in reverse, because any order is allowed.
        for sent, index in enumerate(reversed(range(len(pairs)))):
            if sent == cut:
                fail(context, grpc.StatusCode.UNAVAILABLE, "Cancelling all calls")
            place, seed = pairs[index]
            if request.preview_every:
                preview = inference_pb2.GenerateResponse.Preview(
                    index=index, completed_steps=request.preview_every, content=png()
                )
                yield inference_pb2.GenerateResponse(preview=preview)
            image = inference_pb2.GenerateResponse.Image(
                index=index,
                prompt_index=place,
                seed=seed,
                finish_reason=inference_pb2.GenerateResponse.Image.FINISH_REASON_COMPLETED,
                media_type="image/png",
            )
            content = f"{effective.prompts[place].text}/{seed}".encode()
            image.digest = hashlib.sha256(content).hexdigest()
            if request.delivery == inference_pb2.IMAGE_DELIVERY_BUCKET:
                image.uri = f"s3://bucket/{seed}"
            else:
                image.content = content
            yield inference_pb2.GenerateResponse(image=image)
        done = inference_pb2.GenerateResponse.Done(image_count=len(pairs))
        yield inference_pb2.GenerateResponse(done=done)

    def LookUpImage(self, request, context):
        self.saw("LookUpImage", request, context)
        used = inference_pb2.LookUpImageResponse.AppliedAdapter(adapter=ADAPTER, weight=0.5, digest="ad")
        return inference_pb2.LookUpImageResponse(
            generation="g1", create_time={"seconds": 60}, adapters=[used], base_model="m", base_model_digest="bd"
        )

    def ListImages(self, request, context):
        self.saw("ListImages", request, context)
        if not request.page_token:
            sent = inference_pb2.MadeImage(digest="a" * 64, project="default", generation="g1")
            return inference_pb2.ListImagesResponse(images=[sent], next_page_token="more")
        kept = inference_pb2.MadeImage(digest="b" * 64, project="shop", generation="g2", uri="s3://bucket/b.png")
        return inference_pb2.ListImagesResponse(images=[kept])
