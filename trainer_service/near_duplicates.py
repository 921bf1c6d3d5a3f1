"""Near-duplicates: a picture's fingerprint, and whether two fingerprints are of copies of one picture. Pure.

Its one rule: two drawings of one figure that differ in an expression or a background are never copies. Hashes of a few
bits cannot keep it (on the bundled sets a 64-bit difference hash is equal for dozens of different pictures), so the
fingerprint is the picture itself, 24 cells wide, and two of them are laid over each other before they are compared.

A copy was scaled, encoded again, brightened, or cropped by up to a tenth a side. The crop is found by Gauss-Newton on
the four insets (Lucas and Kanade 1981, "An iterative image registration technique"), brightness and contrast by least
squares. What then remains of a copy is small everywhere, or, after a crop, thinly spread over everything that has
detail; what remains between two drawings lies in one place. Measured over all pairs of all six bundled sets: the least
that two drawings differ is 5.7 grey levels at one cell, with 43 % of it in one window; copies of photographs stay below
2 levels, or below 35 % after a crop.
"""

import base64

import numpy as np
from PIL import Image, ImageFilter

_LUMA_CELLS = 24
_CHROMA_CELLS = 8
FINGERPRINT_BYTES = _LUMA_CELLS**2 + 2 * _CHROMA_CELLS**2
# In cells: soft enough that a cell between two cells can be computed, sharp enough to show a mouth.
_SOFTNESS = 0.7
_LARGEST_INSET = 0.1
_ITERATIONS = 8
# An iteration that leaves more than this share of the squared difference is the last.
_WORTHWHILE = 0.98
# Of the earlier pictures, so many that look most alike are laid over a new one.
_CANDIDATES = 3
_FARTHEST_CANDIDATE = 30.0
# In grey levels of 255, after the best overlay.
_ENCODING_NOISE = 3.5
_CROPPED_MAXIMUM = 20.0
_CROPPED_RMS = 4.0
_CHROMA_MAXIMUM = 12.0
_NEARLY_WHITE = 225.0
# Share of the squared difference that lies in the worst window of 6 by 6 cells, a thirteenth of the picture.
_CROPPED_SHARE = 0.35
_WINDOW_CELLS = 6


def fingerprint(picture: Image.Image) -> str:
    """A picture's fingerprint as text: 24 x 24 cells of brightness and 8 x 8 of each colour difference."""
    planes = zip(picture.convert("YCbCr").split(), (_LUMA_CELLS, _CHROMA_CELLS, _CHROMA_CELLS), strict=True)
    return base64.b64encode(b"".join(_cells(plane, cells) for plane, cells in planes)).decode()


class Gallery:
    """Pictures that later ones are compared with, by their fingerprints."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._prints: list[_Print] = []

    def add(self, name: str, fingerprint: str) -> None:
        """Remember a picture."""
        self._names.append(name)
        self._prints.append(_Print(fingerprint))

    def copied(self, fingerprint: str) -> str | None:
        """The name of the picture that this one is a copy of, or the other way round; None where there is none."""
        if not self._prints:
            return None
        new = _Print(fingerprint)
        differences = np.stack([print_.evened_YX for print_ in self._prints]) - new.evened_YX
        distances = np.sqrt((differences**2).mean(axis=(1, 2)))
        for index in np.argsort(distances, kind="stable")[:_CANDIDATES]:
            if distances[index] <= _FARTHEST_CANDIDATE and _are_copies(new, self._prints[index]):
                return self._names[index]
        return None


class _Print:
    """A fingerprint unpacked: grey levels, as float32; colour differences are centred on 0."""

    def __init__(self, text: str) -> None:
        values = np.frombuffer(base64.b64decode(text), np.uint8).astype(np.float32)
        self.luma_YX = values[: _LUMA_CELLS**2].reshape(_LUMA_CELLS, _LUMA_CELLS)
        self.chroma_CYX = values[_LUMA_CELLS**2 :].reshape(2, _CHROMA_CELLS, _CHROMA_CELLS) - 128
        # Brightness and contrast evened out, so that a brightened copy stays a candidate.
        self.evened_YX = (self.luma_YX - self.luma_YX.mean()) * 50 / max(float(self.luma_YX.std()), 5.0)


def _are_copies(one: _Print, other: _Print) -> bool:
    """Whether either picture is a copy of the other, cropped or not."""
    return _holds(one, other) or _holds(other, one)


def _holds(whole: _Print, part: _Print) -> bool:
    """Whether `part` is what is left of `whole` after a crop of 0 to 10 % a side."""
    insets = np.zeros(4)
    difference_YX, slopes_YXI, gain = _laid_over(whole, part, insets)
    for _ in range(_ITERATIONS):
        slopes = slopes_YXI.reshape(-1, 4)
        curvature = slopes.T @ slopes
        damped = curvature + np.eye(4) * (1e-6 + 1e-2 * np.trace(curvature) / 4)
        step = np.linalg.solve(damped, -slopes.T @ difference_YX.ravel())
        tried = np.clip(insets + np.clip(step, -0.03, 0.03), 0, _LARGEST_INSET)
        found = _laid_over(whole, part, tried)
        if (found[0] ** 2).mean() >= _WORTHWHILE * (difference_YX**2).mean():
            break
        insets, (difference_YX, slopes_YXI, gain) = tried, found
    colours_CYX = gain * _cropped(whole.chroma_CYX, insets) - part.chroma_CYX
    if np.abs(colours_CYX[:, 1:-1, 1:-1]).max() > _CHROMA_MAXIMUM:
        return False
    squares_YX = difference_YX**2
    if squares_YX.max() <= _ENCODING_NOISE**2:
        return True
    return bool(
        squares_YX.max() <= _CROPPED_MAXIMUM**2
        and squares_YX.mean() <= _CROPPED_RMS**2
        and _worst_window(squares_YX) <= _CROPPED_SHARE * squares_YX.sum()
    )


def _laid_over(whole: _Print, part: _Print, insets: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """What differs, its slopes by left, right, top and bottom inset, and the contrast of `part` over that of `whole`.

    The outermost cells are left out: what lies beyond a picture's edge is not known.
    """
    cropped_YX = _cropped(whole.luma_YX, insets)
    # Cells that were clipped say nothing of brightness and contrast.
    told = (part.luma_YX < _NEARLY_WHITE) & (cropped_YX < _NEARLY_WHITE)
    if told.mean() < 0.2:
        told = np.ones_like(told)
    from_, to = cropped_YX[told], part.luma_YX[told]
    gain = float(np.clip(np.mean((from_ - from_.mean()) * (to - to.mean())) / max(from_.var(), 1.0), 0.7, 1.4))
    offset = float(np.clip(to.mean() - gain * from_.mean(), -40, 40))
    expected_YX = np.clip(gain * cropped_YX + offset, 0, 255)
    # Where both are nearly white, brightening has clipped what there was to see.
    difference_YX = np.where(np.minimum(expected_YX, part.luma_YX) > _NEARLY_WHITE, 0, expected_YX - part.luma_YX)
    along = (np.arange(_LUMA_CELLS, dtype=np.float32) + 0.5) / _LUMA_CELLS
    slope_Y, slope_X = np.gradient(gain * _LUMA_CELLS * cropped_YX)
    slopes_YXI = np.stack(
        [slope_X * (1 - along), -slope_X * along, slope_Y * (1 - along)[:, None], -slope_Y * along[:, None]], axis=-1
    )
    return difference_YX[1:-1, 1:-1], slopes_YXI[1:-1, 1:-1], gain


def _cropped(cells: np.ndarray, insets: np.ndarray) -> np.ndarray:
    """The cells of a picture (the last two axes) after a crop, in as many cells as before."""
    left, right, top, bottom = insets
    return _resampling(cells.shape[-2], top, bottom) @ cells @ _resampling(cells.shape[-1], left, right).T


def _resampling(cells: int, before: float, after: float) -> np.ndarray:
    """The matrix that takes a line of cells to its inner part, by cubic convolution (Keys 1981)."""
    rows = np.arange(cells)
    position = (before + (1 - before - after) * (rows + 0.5) / cells) * cells - 0.5
    first = np.floor(position).astype(int)
    t = (position - first).astype(np.float32)
    weights = (
        ((2 - t) * t - 1) * t / 2,
        ((3 * t - 5) * t * t + 2) / 2,
        ((4 - 3 * t) * t + 1) * t / 2,
        (t - 1) * t * t / 2,
    )
    matrix = np.zeros((cells, cells), np.float32)
    for offset, weight in enumerate(weights, start=-1):
        np.add.at(matrix, (rows, np.clip(first + offset, 0, cells - 1)), weight)
    return matrix


def _worst_window(squares_YX: np.ndarray) -> float:
    windows = np.lib.stride_tricks.sliding_window_view(squares_YX, (_WINDOW_CELLS, _WINDOW_CELLS))
    return float(windows.sum(axis=(2, 3)).max())


def _cells(plane: Image.Image, cells: int) -> bytes:
    fine = plane.resize((4 * cells, 4 * cells), Image.Resampling.BILINEAR)
    soft = fine.filter(ImageFilter.GaussianBlur(4 * _SOFTNESS))
    return soft.resize((cells, cells), Image.Resampling.BOX).tobytes()
