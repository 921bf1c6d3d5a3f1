"""Pixels to files, each carrying where it came from: prompt, seed, adapters, base model and the mark of a generator.

PNG holds it in text chunks, WebP and JPEG in EXIF; all three say in XMP that a model made the picture. Nothing in a
file tells one call from another, so the same request gives the same bytes, until a signature is put in
(`content_credentials.py`); the ledger knows the call.
"""

import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from inference_service.delivery import FileFormat
from inference_service.engine import AppliedAdapter
from inference_service.generation import GenerationRequest, ImageTask

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

GENERATOR = "personae"
# The term for a picture that a trained model made, of IPTC's vocabulary "Digital Source Type".
MADE_BY_A_MODEL = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
_LOSSY_QUALITY = 90
# Coarser, because it is a sketch that is thrown away.
_PREVIEW_QUALITY = 80
# The machine-readable mark: IPTC Photo Metadata Standard 2023.2, in XMP (ISO 16684-1) as the standard places it.
_XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    f'Iptc4xmpExt:DigitalSourceType="{MADE_BY_A_MODEL}"/>'
    "</rdf:RDF></x:xmpmeta>"
)
_EXIF_DESCRIPTION, _EXIF_SOFTWARE = 0x010E, 0x0131
# JPEG holds at most 64 KB of EXIF; nobody's prompt is longer than this, but padding can be.
_EXIF_TEXT_CHARACTERS = 2_000


@dataclass(frozen=True)
class Provenance:
    """Everything it takes to make the image again."""

    request: GenerationRequest
    task: ImageTask
    base_model_digest: str
    adapters: tuple[AppliedAdapter, ...]

    def entries(self) -> dict[str, str]:
        """By keyword, as text."""
        request = self.request
        adapters = [
            {"adapter": str(adapter.name), "digest": adapter.digest, "weight": adapter.weight}
            for adapter in self.adapters
        ]
        start = {}
        if request.start is not None:
            start = {
                "strength": str(request.start.strength),
                "start_digest": request.start.digest,
                "mask_digest": request.start.mask_digest,
            }
        return {
            "prompt": request.prompts[self.task.prompt_index].text,
            "negative_prompt": request.negative_prompt,
            "seed": str(self.task.seed),
            "adapters": json.dumps(adapters),
            "base_model": request.base_model,
            "base_model_digest": self.base_model_digest,
            "steps": str(request.steps),
            "guidance_scale": str(request.guidance_scale),
            "scheduler": request.scheduler,
            **start,
        }


def media_type(file_format: FileFormat) -> str:
    """For example `image/png`."""
    return f"image/{file_format}"


def encode(pixels_HWC: "NDArray[numpy.uint8]", file_format: FileFormat, provenance: Provenance) -> bytes:
    """The bytes of a file with these pixels."""
    picture = Image.fromarray(pixels_HWC)
    file = io.BytesIO()
    if file_format == "png":
        picture.save(file, "PNG", pnginfo=_text_chunks(provenance))
    else:
        picture.save(file, file_format.upper(), quality=_LOSSY_QUALITY, exif=_exif(provenance), xmp=_XMP.encode())
    return file.getvalue()


def encode_preview(pixels_HWC: "NDArray[numpy.uint8]") -> bytes:
    """The bytes of a JPEG file with these pixels and nothing else."""
    file = io.BytesIO()
    Image.fromarray(pixels_HWC).save(file, "JPEG", quality=_PREVIEW_QUALITY)
    return file.getvalue()


def _text_chunks(provenance: Provenance) -> PngInfo:
    chunks = PngInfo()
    chunks.add_itxt("Software", GENERATOR)
    chunks.add_itxt("XML:com.adobe.xmp", _XMP)
    for keyword, text in provenance.entries().items():
        chunks.add_itxt(keyword, text)
    return chunks


def _exif(provenance: Provenance) -> Image.Exif:
    exif = Image.Exif()
    exif[_EXIF_SOFTWARE] = GENERATOR
    exif[_EXIF_DESCRIPTION] = json.dumps(
        {keyword: text[:_EXIF_TEXT_CHARACTERS] for keyword, text in provenance.entries().items()}
    )
    return exif
