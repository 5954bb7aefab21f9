"""A storage in memory that is away now and then."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from jobs.errors import StorageError
from jobs.storage import Listed, StoredObject


class MemoryStorage:
    """Implements `jobs.storage.Storage` by a dictionary."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._objects: dict[str, bytes] = {}
        self._folders: dict[str, dict[str, bytes]] = defaultdict(dict)

    def of(self, job_id: str) -> Mapping[str, bytes]:
        """A job's objects."""
        return self._folders[f"jobs/{job_id}"]

    def put(self, key: str, content: bytes, *, content_type: str, metadata: Mapping[str, str]) -> StoredObject | None:
        self._fail_sometimes()
        if key in self._objects:
            return self.head(key)
        self._objects[key] = self._folders[_folder(key)][key] = content
        return None

    def upload_request(self, key: str, **_: Any) -> None:
        return None

    def get(self, key: str) -> bytes:
        if key not in self._objects:
            raise StorageError(f"nothing at {key}", retryable=False)
        return self._objects[key]

    def head(self, key: str) -> StoredObject | None:
        content = self._objects.get(key)
        return None if content is None else StoredObject(key, len(content), datetime.now(UTC), "image/png", {})

    def exists(self, key: str) -> bool:
        return key in self._objects

    def list(self, prefix: str = "") -> tuple[Listed, ...]:
        now = datetime.now(UTC)
        found = sorted(self._folders[_folder(prefix)].items())
        return tuple(Listed(key, len(content), now) for key, content in found if key.startswith(prefix))

    def renew(self, key: str) -> bool:
        return key in self._objects

    def delete(self, key: str) -> None:
        self._objects.pop(key, None)
        self._folders[_folder(key)].pop(key, None)

    def url(self, key: str, expires_seconds: int = 3600) -> str:
        return f"https://storage.example/{key}"

    def check(self) -> None:
        """Always available."""

    def ensure_bucket(self) -> None:
        """Always there."""

    def close(self) -> None:
        """Nothing to close."""

    def _fail_sometimes(self) -> None:
        if self._chance.random() < 0.03:
            raise StorageError("the storage is away")


def _folder(key: str) -> str:
    return "/".join(key.split("/")[:2])
