"""Why a file could not be read or written, in our words: each reason says what to do next."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import StorageError
from .objects import NO_OBJECT

_FULL = ("the disk, or this user's quota, is full; free some space", True)
_READ_ONLY = ("the folder cannot be used by this user; check its owner, its mode and its mount", False)
_NO_FOLDER = ("part of the path is not a folder; correct DARKROOM_STORAGE_URL", False)
_NO_LINKS = ("the file system has no hard links, which a write needs; choose another folder", False)

#: reasons by the number of the system's error, and whether the same call may work later
_REASONS = {
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


@contextmanager
def translated_errors(action: str, path: Path) -> Iterator[None]:
    """Raise StorageError instead of the operating system's errors. All of them are translated here."""
    try:
        yield
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, type(error).__name__)
        why, retryable = _REASONS.get(error.errno or 0, (f"the system answered {name}; check the disk", True))
        raise StorageError(f"{action} {path}: {why}", retryable=retryable) from error
