"""The object store port over S3, through the `minio` SDK: the only file that imports it.

Its one rule: any answer to a conditional write but success is settled by reading back who won; it is sent again only
where nobody has. The SDK cannot send `If-None-Match` or `If-Match` (it stores them as metadata and overwrites), so they
go through a presigned URL that never leaves this file.
"""

import base64
import hashlib
import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import urllib3
from minio import Minio
from minio.error import MinioException, S3Error
from urllib3.connectionpool import ConnectionPool
from urllib3.exceptions import ProtocolError

from service_kit.settings import StoreSettings
from service_kit.store import (
    ObjectChanged,
    ObjectExists,
    ObjectMissing,
    StoredObject,
    StoreError,
    StoreForbidden,
    StoreUnavailable,
)

# Each is tried three times: an address where nobody answers is reported within four seconds, silence within 30.
_CONNECT_TIMEOUT_S = 1.0
# Of silence, not of a whole transfer.
_READ_TIMEOUT_S = 10.0
_POOL_SIZE = 32
# An answer that the store cannot now is soon had, and so is the end of a connection: a store that gives these to three
# requests in ten fails one in 400.
_ATTEMPTS = 5
_PAUSE_S = 0.2
_FORBIDDEN_CODES = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "NoSuchBucket"}


class _Retries(urllib3.Retry):
    """urllib3's, but that a connection which ends before the answer counts as an answer, and not as silence."""

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: urllib3.BaseHTTPResponse | None = None,
        error: Exception | None = None,
        _pool: ConnectionPool | None = None,
        _stacktrace: TracebackType | None = None,
    ) -> Self:
        silences = self.read + 1 if isinstance(error, ProtocolError) and self.read is not None else self.read
        return super(_Retries, self.new(read=silences)).increment(method, url, response, error, _pool, _stacktrace)


@dataclass(frozen=True)
class ListedObject:
    """What a listing says of an object."""

    key: str
    size_bytes: int
    etag: str


class MinioStore:
    """See ObjectStore. Safe for use by several threads.

    endpoint: `http://host:port` or `https://host[:port]`.
    """

    def __init__(self, endpoint: str, access_key: str, secret_key: str, bucket: str, region: str) -> None:
        url = urlsplit(endpoint)
        if url.scheme not in ("http", "https") or not url.hostname or url.path.strip("/"):
            raise ValueError(f"found {endpoint!r}; allowed is http://host:port or https://host[:port]")
        self._http = urllib3.PoolManager(
            maxsize=_POOL_SIZE,
            timeout=urllib3.Timeout(connect=_CONNECT_TIMEOUT_S, read=_READ_TIMEOUT_S),
            retries=_Retries(
                total=_ATTEMPTS - 1, connect=2, read=2, backoff_factor=_PAUSE_S, status_forcelist=[500, 502, 503, 504]
            ),
        )
        self._client = Minio(
            endpoint=url.netloc,
            access_key=access_key,
            secret_key=secret_key,
            secure=url.scheme == "https",
            region=region,
            http_client=self._http,
        )
        self._bucket = bucket
        self._url = endpoint

    def ensure_bucket(self, create: bool) -> None:
        """Check that the bucket exists; make it where `create` says so. Raises StoreForbidden where it is missing."""
        with _store_errors(self._bucket):
            if self._client.bucket_exists(self._bucket):
                return
            if not create:
                raise StoreForbidden(f"bucket {self._bucket!r} does not exist")
            try:
                self._client.make_bucket(self._bucket)
            except S3Error as error:
                # The other service may have made it in the meantime.
                if error.code not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                    raise

    def get(self, key: str) -> StoredObject:
        with _store_errors(key):
            response = self._client.get_object(self._bucket, key)
            try:
                return StoredObject(response.read(), _etag(key, response))
            finally:
                response.release_conn()

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        with _store_errors(key):
            try:
                response = self._client.get_object(self._bucket, key, offset=offset, length=length)
            except S3Error as error:
                if error.code == "InvalidRange":
                    return b""
                raise
            try:
                return bytes(response.read())
            finally:
                response.release_conn()

    def put(self, key: str, body: bytes) -> None:
        with _store_errors(key):
            self._client.put_object(self._bucket, key, io.BytesIO(body), len(body))

    def create(self, key: str, body: bytes) -> str:
        return self._conditional_put(key, body, None, ObjectExists)

    def replace(self, key: str, body: bytes, etag: str) -> str:
        return self._conditional_put(key, body, etag, ObjectChanged)

    def delete(self, key: str) -> None:
        with _store_errors(key):
            self._client.remove_object(self._bucket, key)

    def keys(self, prefix: str, after: str = "") -> Iterator[str]:
        with _store_errors(prefix):
            for entry in self._client.list_objects(
                self._bucket, prefix=prefix, recursive=True, start_after=after or None
            ):
                yield entry.object_name

    def folders(self, prefix: str, after: str = "") -> Iterator[str]:
        with _store_errors(prefix):
            for entry in self._client.list_objects(self._bucket, prefix=prefix, start_after=after or None):
                # Stores differ in whether `start_after` holds back the folder that it names.
                if entry.is_dir and entry.object_name > after:
                    yield entry.object_name

    def listing(self, prefix: str) -> Iterator[ListedObject]:
        """All objects whose keys have the prefix, in order."""
        with _store_errors(prefix):
            for entry in self._client.list_objects(self._bucket, prefix=prefix, recursive=True):
                yield ListedObject(entry.object_name, entry.size, entry.etag.strip('"'))

    def get_part(self, key: str, etag: str, offset: int, length: int) -> bytes:
        """`length` bytes from `offset` of an object that still has `etag`. Raises ObjectMissing, ObjectChanged."""
        condition: dict[str, str | list[str] | tuple[str]] = {"If-Match": f'"{etag}"'}
        with _store_errors(key):
            try:
                response = self._client.get_object(self._bucket, key, offset, length, request_headers=condition)
            except S3Error as error:
                if error.code == "PreconditionFailed":
                    raise ObjectChanged(key) from error
                raise
            try:
                body = bytes(response.read())
            finally:
                response.release_conn()
        if len(body) != length:
            raise StoreUnavailable(f"{key}: {len(body)} bytes came from {offset}; asked were {length}")
        return body

    def clock_ahead_s(self) -> float | None:
        """How far the store's clock is ahead of ours, in whole seconds; None where it does not say."""
        with _store_errors(self._bucket):
            # The answer is an error without a signature, and has a date all the same.
            answer = self._http.request("GET", self._url)
        date = answer.headers.get("Date")
        return parsedate_to_datetime(date).timestamp() - time.time() // 1 if date else None

    def _conditional_put(self, key: str, body: bytes, expected: str | None, lost: Callable[[str], StoreError]) -> str:
        """Write where the object still has the ETag `expected`, None: where there is none; the new ETag."""
        unanswered: StoreUnavailable | None = None
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(_PAUSE_S)
            try:
                return self._conditional_put_once(key, body, expected, lost)
            except (StoreUnavailable, ObjectExists, ObjectChanged) as error:
                was_answered = not isinstance(error, StoreUnavailable)
                stored = self._stored_now(key)
                if stored is not None and stored.body == body:
                    # Our write won; its answer, or that of an earlier attempt, was lost.
                    return stored.etag
                if unanswered is None and was_answered:
                    raise
                unanswered = unanswered or StoreUnavailable(str(error))
                if was_answered or (stored.etag if stored else None) != expected:
                    # Somebody wrote meanwhile, and whether before or over ours nobody can tell.
                    break
        raise unanswered or StoreUnavailable(f"{key}: no answer to a write")

    def _conditional_put_once(
        self, key: str, body: bytes, expected: str | None, lost: Callable[[str], StoreError]
    ) -> str:
        headers = {"If-None-Match": "*"} if expected is None else {"If-Match": f'"{expected}"'}
        # Of a writer that dies before its body is under way, a store may else keep an empty object.
        headers["Content-MD5"] = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
        with _store_errors(key):
            url = self._client.presigned_put_object(self._bucket, key, expires=timedelta(minutes=5))
            try:
                response = self._http.request("PUT", url, body=body, headers=headers, retries=False)
            except urllib3.exceptions.HTTPError as error:
                raise StoreUnavailable(f"{key}: no answer to a write: {error}") from error
        if response.status == 200:
            return _etag(key, response)
        # 404 is AWS's answer to If-Match on a missing key; 409 means that another write was under way.
        if response.status in (404, 409, 412):
            raise lost(key)
        if response.status == 403:
            raise StoreForbidden(f"{key}: the store refused a write")
        if response.status == 501:
            raise StoreForbidden(f"{key}: the store does not know conditional writes")
        raise StoreUnavailable(f"{key}: the store answered {response.status} to a write")

    def _stored_now(self, key: str) -> StoredObject | None:
        """What is stored after a write that was not answered with success, to settle who won; None: nothing."""
        try:
            return self.get(key)
        except ObjectMissing:
            return None


def open_store(settings: StoreSettings) -> MinioStore:
    """The store that the settings name; nothing is asked of it yet. Raises ValueError for a malformed endpoint."""
    return MinioStore(
        settings.s3_endpoint,
        *settings.keys,
        settings.s3_bucket,
        settings.s3_region,
    )


def _etag(key: str, response: urllib3.BaseHTTPResponse) -> str:
    if "ETag" not in response.headers:
        raise StoreError(f"{key}: the store gave no ETag")
    return str(response.headers["ETag"]).strip('"')


@contextmanager
def _store_errors(subject: str) -> Iterator[None]:
    try:
        yield
    except S3Error as error:
        if error.code in ("NoSuchKey", "NoSuchObject"):
            raise ObjectMissing(subject) from error
        if error.code in _FORBIDDEN_CODES:
            raise StoreForbidden(f"{subject}: {error.code}") from error
        raise StoreUnavailable(f"{subject}: {error.code}") from error
    except (MinioException, urllib3.exceptions.HTTPError, OSError) as error:
        raise StoreUnavailable(f"{subject}: {type(error).__name__}") from error
