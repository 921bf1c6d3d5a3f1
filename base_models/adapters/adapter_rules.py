"""What an adapter file may hold: names, shapes, ranks and sizes of tensors, against the base model. Imports no torch.

Its one rule: what reads an adapter for use and what takes in one from elsewhere ask here, so that both say the same.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

from base_models.safetensors_header import NotSafetensors, Readable, TensorPlace, read_header

MAX_RANK = 128
DTYPES = frozenset({"F32", "F16", "BF16"})
_MAX_UPDATE_NORM = 1e4
_KINDS = {"A.weight": "A", "B.weight": "B", "magnitude_vector.weight": "magnitude_vector"}


class AdapterInvalid(Exception):
    """The file is not an adapter for this base model; the text says why."""


class Shaped(Protocol):
    """A tensor of whatever library."""

    @property
    def shape(self) -> Sequence[int]: ...


S = TypeVar("S", bound=Shaped)


def adapter_header(body: Readable) -> dict[str, TensorPlace]:
    """What tensors a file says it holds. Raises AdapterInvalid."""
    try:
        return read_header(body)
    except NotSafetensors as error:
        raise AdapterInvalid(str(error)) from error


def check_dtypes(places: Mapping[str, TensorPlace]) -> None:
    """Raise AdapterInvalid where a tensor is of a dtype that no update has."""
    for name, place in places.items():
        if place.dtype not in DTYPES:
            raise AdapterInvalid(f"{name[:120]}: holds {place.dtype}; allowed are {', '.join(sorted(DTYPES))}")


def layers_of(tensors: Mapping[str, S], prefixes: Iterable[str]) -> dict[str, dict[str, S]]:
    """Layer by layer, by the name with its prefix: tensors called A, B and magnitude_vector. Raises AdapterInvalid."""
    layers: dict[str, dict[str, S]] = {}
    for name, tensor in tensors.items():
        layer, _, kind = name.rpartition(".lora_")
        half = _KINDS.get(kind)
        if half is None or not any(layer.startswith(f"{prefix}.") for prefix in prefixes):
            raise AdapterInvalid(
                f"unknown key {name[:120]!r}; allowed is {' or '.join(prefixes)}.<module>. "
                f"followed by {', '.join(f'lora_{kind}' for kind in _KINDS)}"
            )
        layers.setdefault(layer, {})[half] = tensor
    return layers


def check_layers(
    layers: Mapping[str, Mapping[str, S]], shapes: Mapping[str, Sequence[int]], norm: Callable[[S], float]
) -> None:
    """Raise AdapterInvalid unless the layers fit the base model.

    layers: as `layers_of` gives them. shapes: of the weights that an update may change, linear [out, in] or of a
    convolution [out, in, kh, kw], by the layer's name. norm: of a tensor's values; asked once its shape is right.
    """
    if not layers:
        raise AdapterInvalid("the file holds no LoRA tensors")
    is_dora = any("magnitude_vector" in halves for halves in layers.values())
    for name, halves in layers.items():
        if not {"A", "B"} <= halves.keys():
            raise AdapterInvalid(f"{name[:120]}: has lora_{min(halves)} without its other half")
        if is_dora and "magnitude_vector" not in halves:
            raise AdapterInvalid(f"{name[:120]}: has no lora_magnitude_vector, but other modules of the file do")
        base = shapes.get(name)
        if base is None:
            raise AdapterInvalid(f"{name[:120]}: the base model has no such module")
        _check_pair(name, halves["A"], halves["B"], base, norm)
        if is_dora:
            _check_magnitudes(name, halves["magnitude_vector"], base, norm)


def _check_pair(name: str, a: S, b: S, base: Sequence[int], norm: Callable[[S], float]) -> None:
    """Linear: A [rank, in], B [out, rank]. Convolution: A [rank, in, kh, kw], B [out, rank, 1, 1]."""
    rank = a.shape[0] if len(a.shape) else 0
    if not 1 <= rank <= MAX_RANK:
        raise AdapterInvalid(f"{name}: rank {rank}; allowed is 1 to {MAX_RANK}")
    wanted_a, wanted_b = (rank, *base[1:]), (base[0], rank, *(1 for _ in base[2:]))
    if tuple(a.shape) != wanted_a or tuple(b.shape) != wanted_b:
        raise AdapterInvalid(
            f"{name}: shapes {list(a.shape)} and {list(b.shape)}; "
            f"the base model needs {list(wanted_a)} and {list(wanted_b)}"
        )
    bound = norm(a) * norm(b)
    # The comparison is false for NaN and infinity too.
    if not bound < _MAX_UPDATE_NORM:
        raise AdapterInvalid(
            f"{name}: its update has norm {bound:.3g} or more; allowed is below {_MAX_UPDATE_NORM:.0f}"
        )


def _check_magnitudes(name: str, magnitudes: S, base: Sequence[int], norm: Callable[[S], float]) -> None:
    """Linear: [out]. Convolution: [1, out, 1, 1]."""
    wanted = (base[0],) if len(base) == 2 else (1, base[0], *(1 for _ in base[2:]))
    if tuple(magnitudes.shape) != wanted:
        raise AdapterInvalid(
            f"{name}: a magnitude vector of shape {list(magnitudes.shape)}; the base model needs {list(wanted)}"
        )
    found = norm(magnitudes)
    if not found < _MAX_UPDATE_NORM:
        raise AdapterInvalid(f"{name}: its magnitudes have norm {found:.3g}; allowed is below {_MAX_UPDATE_NORM:.0f}")
