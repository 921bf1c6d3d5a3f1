"""The part of the fake inference service that says what it has: two adapters, on a page each, and one base model."""

from personae.v1 import inference_pb2


class HeldAdapters:
    """Needs `saw` of a Fake."""

    held = ("projects/default/adapters/micah/versions/1", "projects/default/adapters/micah/versions/2")

    def PreloadAdapter(self, request, context):
        self.saw("PreloadAdapter", request, context)
        return inference_pb2.PreloadAdapterResponse(adapter=_in_memory(request.adapter, request.pinned))

    def ListServedAdapters(self, request, context):
        self.saw("ListServedAdapters", request, context)
        page = int(request.page_token or 0)
        following = str(page + 1) if page + 1 < len(self.held) else ""
        return inference_pb2.ListServedAdaptersResponse(
            adapters=[_in_memory(self.held[page], False)], next_page_token=following
        )

    def GetServingInfo(self, request, context):
        self.saw("GetServingInfo", request, context)
        euler = inference_pb2.SCHEDULER_EULER
        flux = inference_pb2.ServedBaseModel(base_model="flux", default_scheduler=euler, max_guidance_scale=1.0)
        flux.schedulers.append(euler)
        return inference_pb2.GetServingInfoResponse(base_models=[flux])


def _in_memory(name: str, pinned: bool) -> inference_pb2.ServedAdapter:
    host = inference_pb2.ServedAdapter.RESIDENCY_HOST
    return inference_pb2.ServedAdapter(adapter=name, residency=host, size_bytes=3, pinned=pinned)
