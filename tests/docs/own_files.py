"""What a reader of the pages has lying about: pictures of one's own, a LoRA from elsewhere, certificates."""

from pathlib import Path

from PIL import Image

from base_models.catalog import BUNDLED
from tests.certificates import Authority
from tests.lora_files import CONVOLUTION, LINEAR, file, kohya

# As people have them: other sizes, other formats, not square.
SIZES = [(300, 400), (640, 480), (512, 512), (200, 150)]
FORMATS = ["jpg", "png", "webp", "jpeg"]
CAPTIONED = BUNDLED["toon-64"] / "sets" / "toon-a" / "train"


def write_pictures(folder: Path, said_before: str = "") -> None:
    """Sixteen pictures of various forms with captions, and what each caption begins with."""
    folder.mkdir(parents=True)
    for index, path in enumerate(sorted(CAPTIONED.glob("*.png"))):
        own = folder / f"photo {index}.{FORMATS[index % len(FORMATS)]}"
        Image.open(path).convert("RGB").resize(SIZES[index % len(SIZES)]).save(own)
        own.with_suffix(".txt").write_text(said_before + path.with_suffix(".txt").read_text())


def write_own_files(folder: Path) -> None:
    """Everything that a page says a reader may have."""
    write_pictures(folder / "pictures")
    # As sd-scripts want them: repeats, trigger word and class in the folder's name, the trigger in each caption.
    write_pictures(folder / "img" / "10_sks person", "sks person, ")
    (folder / "my_lora.safetensors").write_bytes(file(kohya(LINEAR, CONVOLUTION)))
    authority = Authority()
    (folder / "ca.pem").write_bytes(authority.pem)
    authority.client().write(folder, "me")
