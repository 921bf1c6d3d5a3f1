"""What is kept of an image with whatever it was made from: written by inference, read for listing and for deleting."""

from service_kit import schema
from service_kit.document import Document
from service_kit.names import ProjectName


class MadeImageEntry(Document):
    """An image of a generation. It holds no prompt."""

    digest: str
    project: str
    generation: str
    index: int
    suffix: str = ""
    """Of its file in the bucket; empty where it went to its caller only."""

    @property
    def image_id(self) -> str:
        """Sorts by hash; the same file made twice has two."""
        return f"{self.digest}.{self.generation}.{self.index:04d}"

    @property
    def key(self) -> str:
        """Where it lies in the bucket; empty where it does not."""
        if not self.suffix:
            return ""
        return schema.generated_image(ProjectName(self.project), self.generation, self.index, self.suffix)
