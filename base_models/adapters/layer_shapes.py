"""Which layers of a base model an adapter may change, and their shapes: from the headers of its files. No torch.

Its one rule: names and shapes are those that the loaded modules have, whichever release wrote the files.
"""

from base_models.catalog import BaseModelEntry
from base_models.safetensors_header import file_header
from base_models.weights.quantisation import QUANTISED_SUFFIX

LayerShapes = dict[str, tuple[int, ...]]
"""Shapes of weights, linear [out, in] or of a convolution [out, in, kh, kw], by names as adapter files have them."""

# Published files have it; in memory only a text encoder with a projection does.
_STORED_PREFIX = "text_model."
# Tables of vectors: two dimensions, but no layers.
_EMBEDDINGS = ("token_embedding", "position_embedding", "class_embedding")


def read_layer_shapes(entry: BaseModelEntry) -> LayerShapes:
    """Read a base model's headers. Raises NotSafetensors where a file is damaged."""
    shapes: LayerShapes = {}
    for part in entry.traits.adaptable:
        stored_prefix = _STORED_PREFIX if part in entry.traits.bare_text_encoders else ""
        for path in sorted((entry.folder / part).glob("*.safetensors")):
            for name, place in file_header(path).items():
                weight = name.replace(QUANTISED_SUFFIX, ".weight")
                layer = weight.removesuffix(".weight").removeprefix(stored_prefix)
                if weight.endswith(".weight") and len(place.shape) in (2, 4) and not layer.endswith(_EMBEDDINGS):
                    shapes[f"{part}.{layer}"] = place.shape
    return shapes
