"""Which images were made with an adapter version, or from a dataset's pictures: kept with each of these.

Its one rule: an entry lies there before its image does, so that whoever deletes an adapter or dataset finds the image.
"""

import logging
import re
from collections.abc import Iterable
from itertools import islice

from service_kit import schema
from service_kit.document import UnreadableDocument
from service_kit.errors import InvalidRequest, ResourceMissing, Violation, Violations
from service_kit.made_image import MadeImageEntry
from service_kit.names import AdapterVersionName, DatasetName, MalformedName
from service_kit.store import ObjectMissing, ObjectStore
from service_kit.tombstone import is_deleted, wrote_too_late

Source = AdapterVersionName | DatasetName
"""What images are made of."""

_logger = logging.getLogger(__name__)

_DEFAULT_PAGE_SIZE = 50
_MAX_PAGE_SIZE = 1000
_IMAGE_ID = re.compile(r"[0-9a-f]{64}\.[0-9a-f]{16}\.[0-9]{4}")


class MadeImages:
    """The entries of all projects. `bucket` is the name of the store's. Blocking; safe for several threads."""

    def __init__(self, store: ObjectStore, bucket: str) -> None:
        self._store = store
        self._bucket = bucket

    def note(self, sources: Iterable[Source], image: MadeImageEntry) -> None:
        """Keep an image that is about to be stored or sent with all that it was made of."""
        for source in sources:
            self._store.put(schema.made_image(source, image.image_id), image.to_json())

    def keep(self, sources: Iterable[Source], image: MadeImageEntry, content: bytes) -> str:
        """Store an image in the bucket, after `note`, and return its URI.

        Raises ResourceMissing where a source is deleted by then, and leaves nothing.
        """
        self._store.put(image.key, content)
        # Of all of them, because each has an entry of this image.
        deleted = [source for source in sources if wrote_too_late(self._store, source)]
        if deleted:
            self._store.delete(image.key)
            kind = "Adapter" if isinstance(deleted[0], AdapterVersionName) else "Dataset"
            raise ResourceMissing(kind, str(deleted[0]), "it was deleted meanwhile")
        return self.uri(image)

    def uri(self, image: MadeImageEntry) -> str:
        """Where an image lies, as its caller is told; empty where it was not kept."""
        return f"s3://{self._bucket}/{image.key}" if image.key else ""

    def page(self, parent: str, size: int, token: str) -> tuple[list[MadeImageEntry], str]:
        """A page of the images made of something, by their hashes, and the next page's token. Raises InvalidRequest.

        size: 0 means the default. token: of the page before, empty for the first.
        """
        violations = Violations()
        violations.check(0 <= size <= _MAX_PAGE_SIZE, "page_size", size, f"0 to {_MAX_PAGE_SIZE:,}")
        known = not token or _IMAGE_ID.fullmatch(token) is not None
        violations.check(known, "page_token", token, "a token that an earlier page gave")
        try:
            source = _parsed(parent)
        except MalformedName as error:
            raise InvalidRequest([Violation("parent", str(error)), *violations.found]) from None
        violations.raise_if_any()
        if is_deleted(self._store, source):
            return [], ""
        prefix = schema.made_images_prefix(source)
        keys = iter(self._store.keys(prefix, schema.made_image(source, token) if token else ""))
        page = list(islice(keys, size or _DEFAULT_PAGE_SIZE))
        more = next(keys, None) is not None
        images = [image for key in page if (image := self._read(key)) is not None]
        return images, page[-1].removeprefix(prefix).removesuffix(".json") if more else ""

    def _read(self, key: str) -> MadeImageEntry | None:
        try:
            return MadeImageEntry.from_json(self._store.get(key).body)
        except ObjectMissing:
            # Deleted between the listing and this.
            return None
        except UnreadableDocument as error:
            _logger.error("%s is left out of a list: %s", key, error)
            return None


def _parsed(name: str) -> Source:
    return DatasetName.parse(name) if "/datasets/" in name else AdapterVersionName.parse(name)
