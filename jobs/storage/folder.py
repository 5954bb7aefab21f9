"""Objects as files in a folder of one machine.

A StorageError of this module names the file, the reason and what to do.
"""

from __future__ import annotations

import hashlib
import json
import mimetypes
import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from .disk import make_folder, sync_folder, write_through
from .file_urls import sign_path
from .folder_errors import translated_errors
from .objects import (
    Listed,
    StoredObject,
    Uploaded,
    checked_expiry,
    checked_key,
    checked_metadata,
    checked_prefix,
    write_once,
)


class FolderStorage:
    """Objects as files in a folder, for one machine; safe between threads and processes.

    A file appears whole and synced, or not at all. Its content type and metadata are in `.metadata/<key>.json`, which is
    written after it: after a crash between the two, the file is described by its name and its bytes. Unlike in a bucket, no
    key can be the folder of another one.
    """

    def __init__(self, root: Path, *, public_url: str | None = None, secret_keys: Sequence[str] = ()) -> None:
        self.root = root
        self._public_url = (public_url or "").rstrip("/")
        self._secret_keys = tuple(secret_keys)

    def __repr__(self) -> str:
        return f"FolderStorage({str(self.root)!r})"

    def put(self, key: str, content: bytes, *, content_type: str, metadata: Mapping[str, str]) -> StoredObject | None:
        path, sidecar = self._path(key), self._sidecar(key)
        description = json.dumps({"content_type": content_type, "metadata": checked_metadata(metadata)}).encode()

        def write() -> Uploaded:
            with translated_errors("put", path):
                with _complete_file(path, content) as finished:
                    try:
                        # A link, unlike a rename, never replaces a file.
                        os.link(finished, path)
                        written = True
                    except FileExistsError:
                        written = False
                    sync_folder(path.parent)
                # A crash may have left the same file without its description.
                if written or (not sidecar.exists() and _has_content(path, content)):
                    with _complete_file(sidecar, description) as finished:
                        finished.replace(sidecar)
                        sync_folder(sidecar.parent)
                return Uploaded.STORED if written else Uploaded.EXISTS

        return write_once(write, lambda: self.head(key), str(path))

    def upload_request(self, key: str, **_described: object) -> None:
        checked_key(key)

    def get(self, key: str) -> bytes:
        path = self._path(key)
        with translated_errors("get", path):
            return path.read_bytes()

    def head(self, key: str) -> StoredObject | None:
        path = self._path(key)
        with translated_errors("head", path):
            try:
                found = path.stat()
                try:
                    description = json.loads(self._sidecar(key).read_bytes())
                    content_type, metadata = description["content_type"], description["metadata"]
                except (FileNotFoundError, ValueError, KeyError, TypeError):
                    content_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
                    metadata = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                return None
        return StoredObject(key, found.st_size, _utc(found.st_mtime), content_type, metadata)

    def exists(self, key: str) -> bool:
        return self.head(key) is not None

    def list(self, prefix: str = "") -> tuple[Listed, ...]:
        folder = self.root / checked_prefix(prefix).rpartition("/")[0]
        found: dict[str, Listed] = {}
        with translated_errors("list", folder):
            for path in _files(folder):
                key = path.relative_to(self.root).as_posix()
                if not key.startswith(prefix):
                    continue
                try:
                    stat = path.stat()
                except FileNotFoundError:  # deleted in the meantime
                    continue
                found[key] = Listed(key, stat.st_size, _utc(stat.st_mtime))
        return tuple(found[key] for key in sorted(found))

    def renew(self, key: str) -> bool:
        path = self._path(key)
        with translated_errors("renew", path):
            try:
                os.utime(path)
            except FileNotFoundError:
                return False
        return True

    def delete(self, key: str) -> None:
        path, sidecar = self._path(key), self._sidecar(key)
        with translated_errors("delete", path):
            # In this order, a crash leaves no description that a later object of this key would inherit.
            sidecar.unlink(missing_ok=True)
            path.unlink(missing_ok=True)

    def url(self, key: str, expires_seconds: int = 3600) -> str:
        path, seconds = self._path(key), checked_expiry(expires_seconds)
        if not self._public_url:
            return path.absolute().as_uri()
        query = sign_path(key, expires=int(time.time()) + seconds, secret_keys=self._secret_keys)
        return f"{self._public_url}/files/{key}?{query}"

    def check(self) -> None:
        """Raise StorageError unless the folder can be written; it is created if it is missing."""
        self.create()
        probe = self.root / f".{uuid.uuid4().hex}.tmp"
        with translated_errors("check", self.root):
            probe.touch()
            probe.unlink()

    def create(self) -> bool:
        with translated_errors("create", self.root):
            existed = self.root.is_dir()
            make_folder(self.root)
            return not existed

    def close(self) -> None:
        """Nothing is open between calls."""

    def _path(self, key: str) -> Path:
        return self.root / checked_key(key)

    def _sidecar(self, key: str) -> Path:
        return self.root / ".metadata" / f"{key}.json"


def _utc(epoch_seconds: float) -> datetime:
    return datetime.fromtimestamp(epoch_seconds, UTC)


@contextmanager
def _complete_file(path: Path, content: bytes) -> Iterator[Path]:
    """Lend a temporary file beside `path` whose content is on the disk; its name begins with a dot, so it is never listed."""
    make_folder(path.parent)
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex}.tmp"
    try:
        write_through(temporary, content)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _has_content(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content
    except FileNotFoundError:
        return False


def _files(folder: Path) -> Iterator[Path]:
    """The files below a folder, without hidden ones; none if the folder does not exist."""

    def fail(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    for parent, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent, name) for name in names if not name.startswith("."))
