"""Which quantised base models can be used: what a folder's configurations say of it. Imports no torch.

Its one rule: what was not proven to draw and to train as it should is refused in words, before anything is loaded.
"""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_KEY = "quantization_config"
_LIBRARY = "torchao"
_KINDS = ("Int8WeightOnlyConfig", "Float8WeightOnlyConfig")
QUANTISED_SUFFIX = "._weight_qdata"
"""How torchao's files call the packed numbers of a layer's weight; of these kinds they have the weight's own shape."""


class QuantisationUnsupported(ValueError):
    """The folder holds weights that are quantised in another way; the text says which, and what is allowed."""


def is_quantised(folder: Path, denoiser: str) -> bool:
    """Whether a base model's denoiser holds quantised weights. Raises QuantisationUnsupported, OSError, ValueError."""
    found = {path.parent.name: _quantisation(path) for path in sorted(folder.glob("*/config.json"))}
    problems = [
        problem
        for part, quantisation in found.items()
        if quantisation is not None and (problem := _problem(part, quantisation, denoiser))
    ]
    if problems:
        raise QuantisationUnsupported("; ".join(problems))
    return found.get(denoiser) is not None


def _quantisation(path: Path) -> Any:
    return json.loads(path.read_text()).get(_KEY)


def _problem(part: str, quantisation: Any, denoiser: str) -> str:
    allowed = f"allowed are the denoiser's, by {_LIBRARY} as {' or '.join(_KINDS)}"
    match quantisation:
        case {"quant_method": str(method), "quant_type": {"default": {"_type": str(kind)}}}:
            pass
        case {"quant_method": str(method)}:
            kind = "another configuration"
        case _:
            method, kind = "a library that it does not name", "unknown"
    if part != denoiser or method != _LIBRARY or kind not in _KINDS:
        return f"the weights of {part} are quantised by {method} ({kind[:60]}); {allowed}"
    if find_spec(_LIBRARY) is None:
        return f"the weights of {part} are quantised by {_LIBRARY}, which is not installed (dependency group quantised)"
    return ""
