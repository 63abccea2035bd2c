"""What reading archives needs of an object store. `sqs/s3.py` is one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Protocol


class StoredObject(Protocol):
    """An object of a listing."""

    @property
    def key(self) -> str:
        """Its name in the bucket."""

    @property
    def etag(self) -> str:
        """Without quotes."""

    @property
    def size(self) -> int:
        """Bytes."""

    @property
    def modified(self) -> datetime:
        """When it was put."""


class OpenedObject(Protocol):
    """An object that is being read."""

    @property
    def size(self) -> int:
        """Bytes."""

    @property
    def modified(self) -> datetime:
        """When it was put."""

    @property
    def pieces(self) -> Iterator[bytes]:
        """Its content. Blocking; raises as `Objects.open`."""


class Objects(Protocol):
    """An object store. Its methods block, and raise PermanentFault and TransientFault."""

    def listing(self, bucket: str, prefix: str, /) -> Iterable[StoredObject]:
        """Yield the objects under a prefix."""

    def identify(self, bucket: str, key: str, etag: str = "", /) -> tuple[str, str]:
        """Return version and ETag of the object with this ETag; without one, as it is now."""

    def open(self, bucket: str, key: str, /, *, version: str = "", etag: str = "") -> OpenedObject:
        """Begin to read an object: this version of it, else what has this ETag."""
