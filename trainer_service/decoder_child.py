"""`python -m trainer_service.decoder_child`: the picture doctor in a limited process; see `decoder.py`."""

import json
from collections.abc import Callable
from dataclasses import asdict

from service_kit.decoder_child import Function, serve_pictures
from service_kit.rehearsal import small_pictures
from trainer_service.picture_doctor import FORMATS, Finding, examine, examine_mask


def _told(judge: Callable[[bytes], Finding]) -> Function:
    """Of a file: the finding as JSON, and its PNG."""

    def function(body: bytes) -> tuple[bytes, bytes]:
        finding = judge(body)
        return json.dumps(asdict(finding) | {"png": ""}).encode(), finding.png

    return function


if __name__ == "__main__":
    serve_pictures({"examine": _told(examine), "examine_mask": _told(examine_mask)}, small_pictures(FORMATS))
