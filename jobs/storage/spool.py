"""A bounded folder for data whose store is unavailable: each file is on the disk before `write` returns."""

from __future__ import annotations

import contextlib
import os
import uuid
from dataclasses import dataclass
from pathlib import Path

from ..errors import DarkroomError
from .disk import sync_folder, write_through


class SpoolFull(DarkroomError):
    """The spool has reached its limit; free space or raise DARKROOM_SPOOL_MAX_BYTES."""


@dataclass(frozen=True)
class Spool:
    """Files by name in one folder, in the order of their names. Safe for several processes."""

    folder: Path
    max_bytes: int

    def write(self, prefix: str, content: bytes) -> str:
        """Write the content to a new file and return its name, which begins with `prefix`. Raises SpoolFull or OSError."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self.size() + len(content) > self.max_bytes:
            raise SpoolFull(
                f"the spool holds {self.max_bytes} bytes at most; raise DARKROOM_SPOOL_MAX_BYTES or free space"
            )
        unique = f"{prefix}{uuid.uuid4().hex[:8]}"
        temporary = self.folder / f".{unique}"
        try:
            write_through(temporary, content)
        except OSError:  # for example a full disk, where half a file would take up space
            temporary.unlink(missing_ok=True)
            raise
        temporary.rename(self.folder / unique)
        sync_folder(self.folder)
        return unique

    def read(self, name: str) -> bytes:
        """The content of a file. Raises FileNotFoundError."""
        return (self.folder / name).read_bytes()

    def delete(self, name: str) -> None:
        """Delete a file; nothing happens when it does not exist."""
        (self.folder / name).unlink(missing_ok=True)

    def names(self) -> tuple[str, ...]:
        """The names of all files, sorted."""
        if not self.folder.is_dir():
            return ()
        entries = (entry for entry in os.scandir(self.folder) if entry.is_file() and not entry.name.startswith("."))
        return tuple(sorted(entry.name for entry in entries))

    def size(self) -> int:
        """The size of all files, in bytes."""
        if not self.folder.is_dir():
            return 0
        total = 0
        for entry in os.scandir(self.folder):
            with contextlib.suppress(FileNotFoundError):  # deleted by another process in the meantime
                total += entry.stat().st_size if entry.is_file() else 0
        return total
