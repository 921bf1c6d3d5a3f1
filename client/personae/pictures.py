"""The pictures a caller hands over: a folder, paths, Pillow images or bytes, each with its caption.

Files are read when they are sent, one at a time, so that a folder of any size fits in memory.
"""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from personae.errors import InvalidRequest, Violation

Source = str | Path | bytes | Image.Image
"""One picture: a file's path, a file's bytes, or a Pillow image."""
Sources = str | Path | Iterable[Source]
"""A folder, one file, or several pictures."""

_SUFFIXES = {".heic", ".heif", ".jpeg", ".jpg", ".png", ".webp"}


@dataclass(frozen=True)
class Picture:
    """A picture ready to be sent."""

    filename: str
    caption: str
    source: Path | bytes

    def content(self) -> bytes:
        """The file's bytes."""
        return self.source if isinstance(self.source, bytes) else self.source.read_bytes()


def gather(sources: Sources) -> list[Picture]:
    """The pictures that `sources` means, a folder's in the order of their names.

    The caption of `x.png` is what `x.txt` beside it says. A folder's `x_mask.png` is sent too, as the mask of the
    picture `x`, whatever its suffix: of the same proportions, white where the subject is. Raises InvalidRequest where
    there is no picture.
    """
    if isinstance(sources, str | Path):
        path = Path(sources)
        if path.is_dir():
            files = [found for found in sorted(path.iterdir()) if found.suffix.lower() in _SUFFIXES and found.is_file()]
            if all(_is_mask(file) for file in files):
                raise _invalid(f"the folder {path} holds no {', '.join(sorted(_SUFFIXES))} file")
            return [_from_file(file) for file in files]
        sources = [path]
    pictures = [_picture(source, position) for position, source in enumerate(sources, start=1)]
    if not pictures:
        raise _invalid("found none; at least one is needed")
    return pictures


def _picture(source: Source, position: int) -> Picture:
    if isinstance(source, Image.Image):
        file = io.BytesIO()
        source.save(file, "PNG")
        return Picture(f"picture-{position:03d}.png", "", file.getvalue())
    if isinstance(source, bytes):
        return Picture(f"picture-{position:03d}", "", source)
    return _from_file(Path(source))


def _from_file(path: Path) -> Picture:
    if not path.is_file():
        raise _invalid(f"{path} is neither a folder nor a file")
    sidecar = path.with_suffix(".txt")
    caption = " ".join(sidecar.read_text(encoding="utf-8").split()) if sidecar.is_file() else ""
    return Picture(path.name, caption, path)


def _is_mask(path: Path) -> bool:
    return path.name.lower().endswith("_mask.png")


def _invalid(description: str) -> InvalidRequest:
    return InvalidRequest([Violation("pictures", description)])
