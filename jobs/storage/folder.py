"""Objects as files in a folder of one machine, and the signed paths by which `/files` serves them.

What the operating system raises ends here: it becomes a `StorageError`, whose message names the file, the reason and the fix.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import json
import mimetypes
import os
import re
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from ..errors import SettingsError, StorageError
from .disk import make_folder, sync_folder, write_through
from .objects import (
    NO_OBJECT,
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

    A file appears whole and synced, or not at all. What it cannot say itself lies in `.metadata/<key>.json`, which is
    written after it: a crash between the two leaves a file that is described from its name and its bytes. Unlike in a
    bucket, no key can be another one's folder.
    """

    def __init__(self, root: Path, *, public_url: str | None = None, secret_keys: Sequence[str] = ()) -> None:
        self.root = root
        self._public_url = (public_url or "").rstrip("/")
        self._secret_keys = tuple(secret_keys)

    def __repr__(self) -> str:
        return f"FolderStorage({str(self.root)!r})"

    def put(self, key: str, content: bytes, *, content_type: str, metadata: Mapping[str, str]) -> StoredObject | None:
        path, sidecar = self._path(key), self._sidecar(key)
        told = json.dumps({"content_type": content_type, "metadata": checked_metadata(metadata)}).encode()

        def write() -> Uploaded:
            with _disk("put", path):
                end = _link(path, content)
                if end is Uploaded.STORED or (not sidecar.exists() and _same(path, content)):
                    _replace(sidecar, told)
                return end

        return write_once(write, lambda: self.head(key), str(path))

    def upload_request(self, key: str, **_told: object) -> None:
        checked_key(key)

    def get(self, key: str) -> bytes:
        path = self._path(key)
        with _disk("get", path):
            return path.read_bytes()

    def head(self, key: str) -> StoredObject | None:
        path = self._path(key)
        with _disk("head", path):
            try:
                found = path.stat()
                content_type, metadata = self._told(key, path)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                return None
        return StoredObject(key, found.st_size, _aware(found.st_mtime), content_type, metadata)

    def exists(self, key: str) -> bool:
        return self.head(key) is not None

    def list(self, prefix: str = "") -> tuple[Listed, ...]:
        folder = self.root / checked_prefix(prefix).rpartition("/")[0]
        with _disk("list", folder):
            listed = (self._listed(path) for path in _files(folder))
            return tuple(sorted((one for one in listed if one and one.key.startswith(prefix)), key=lambda one: one.key))

    def renew(self, key: str) -> bool:
        path = self._path(key)
        with _disk("renew", path):
            try:
                os.utime(path)
            except FileNotFoundError:
                return False
        return True

    def delete(self, key: str) -> None:
        path, sidecar = self._path(key), self._sidecar(key)
        with _disk("delete", path):
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
        """Raise StorageError unless the folder can be written; it is made when it is missing."""
        self.ensure_bucket()
        probe = self.root / f".{uuid.uuid4().hex}.tmp"
        with _disk("check", self.root):
            probe.touch()
            probe.unlink()

    def ensure_bucket(self) -> None:
        with _disk("create", self.root):
            make_folder(self.root)

    def close(self) -> None:
        """Nothing is held."""

    def _path(self, key: str) -> Path:
        return self.root / checked_key(key)

    def _sidecar(self, key: str) -> Path:
        return self.root / ".metadata" / f"{key}.json"

    def _told(self, key: str, path: Path) -> tuple[str, dict[str, str]]:
        """Return the content type and the metadata, from the sidecar or else from the file."""
        try:
            told = json.loads(self._sidecar(key).read_bytes())
            return told["content_type"], told["metadata"]
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            guessed = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
            return guessed, {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}

    def _listed(self, path: Path) -> Listed | None:
        try:
            found = path.stat()
        except FileNotFoundError:  # deleted while we listed
            return None
        return Listed(path.relative_to(self.root).as_posix(), found.st_size, _aware(found.st_mtime))


def _aware(epoch_seconds: float) -> datetime:
    return datetime.fromtimestamp(epoch_seconds, UTC)


def _link(path: Path, content: bytes) -> Uploaded:
    """Let a file appear under its name with all its content, unless there is one."""
    make_folder(path.parent)
    with _synced(path, content) as finished:
        try:
            os.link(finished, path)
        except FileExistsError:
            return Uploaded.EXISTS
        finally:
            sync_folder(path.parent)
    return Uploaded.STORED


def _replace(path: Path, content: bytes) -> None:
    """Let a file appear under its name with all its content, whether or not there is one."""
    make_folder(path.parent)
    with _synced(path, content) as finished:
        finished.replace(path)
        sync_folder(path.parent)


@contextmanager
def _synced(path: Path, content: bytes) -> Iterator[Path]:
    """Lend a file beside `path` whose content is on the disk. Its name begins with a dot, so it is never listed."""
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex}.tmp"
    try:
        write_through(temporary, content)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _same(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content
    except FileNotFoundError:
        return False


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files below; none when the folder is not there."""
    for parent, folders, names in os.walk(folder, onerror=_unless_gone):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent, name) for name in names if not name.startswith("."))


def _unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


@contextmanager
def _disk(action: str, path: Path) -> Iterator[None]:
    """What the operating system raises becomes ours. The one place that catches it."""
    try:
        yield
    except OSError as error:
        reason, retryable = _ERRNOS.get(
            error.errno or 0, (f"the system says {_errno_name(error)}; see to the disk", True)
        )
        raise StorageError(f"{action} {path}: {reason}", retryable=retryable) from error


def _errno_name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, type(error).__name__)


_FULL = ("the disk, or this user's quota, is full; free some space", True)
_READ_ONLY = ("the folder cannot be used by this user; see to its owner, its mode and its mount", False)
_NO_FOLDER = ("part of the path is no folder; correct DARKROOM_STORAGE_URL", False)
_NO_LINKS = ("the file system has no hard links, so nothing can be written once; choose another folder", False)

#: The system's reasons that have a fix.
_ERRNOS = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: ("the file is larger than this process may write; raise its limit (ulimit -f)", False),
    errno.EACCES: _READ_ONLY,
    errno.EPERM: _READ_ONLY,
    errno.EROFS: _READ_ONLY,
    errno.ENOENT: NO_OBJECT,
    errno.EEXIST: _NO_FOLDER,
    errno.ENOTDIR: _NO_FOLDER,
    errno.EISDIR: _NO_FOLDER,
    errno.EOPNOTSUPP: _NO_LINKS,
    errno.ENOTSUP: _NO_LINKS,
    errno.EMFILE: ("too many open files; raise the limit (ulimit -n)", True),
    errno.ENAMETOOLONG: ("the path is too long; choose a shorter folder", False),
}


# Signed paths


def sign_path(key: str, *, expires: int, secret_keys: Sequence[str]) -> str:
    """Return the query that opens `/files/<key>` until the epoch second `expires`. SettingsError without a secret."""
    if not secret_keys:
        raise SettingsError("DARKROOM_SECRET_KEYS", "is not set, so no file URL can be signed", "a-long-random-string")
    return f"expires={expires}&signature={_signature(key, str(expires), secret_keys[0])}"


def verify_path(key: str, *, expires: str, signature: str, secret_keys: Sequence[str], now: float) -> bool:
    """Tell whether `expires` and `signature`, as they came in the query, open `key` at the epoch second `now`."""
    if not _EPOCH.fullmatch(expires) or int(expires) < now:
        return False
    given = signature.encode()
    return any(hmac.compare_digest(_signature(key, expires, secret).encode(), given) for secret in secret_keys)


_EPOCH = re.compile(r"[0-9]{1,12}")


def _signature(key: str, expires: str, secret: str) -> str:
    # The first word keeps these signatures apart from whatever else the same key signs.
    return hmac.new(secret.encode(), f"darkroom-file\n{key}\n{expires}".encode(), hashlib.sha256).hexdigest()
