"""A bounded folder for what must not be lost while its store is away: each file is on the disk before `write` returns."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from pathlib import Path

from ..errors import DarkroomError
from .disk import sync_folder, write_through


class SpoolFull(DarkroomError):
    """The spool holds as much as it may; free space or raise DARKROOM_SPOOL_MAX_BYTES."""


@dataclass(frozen=True)
class Spool:
    """Files by name in one folder, in the order of their names. Safe for several processes."""

    folder: Path
    max_bytes: int

    def write(self, prefix: str, content: bytes) -> str:
        """Keeps the content under a name of its own that begins with `prefix`. Raises SpoolFull or OSError."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self.size() + len(content) > self.max_bytes:
            raise SpoolFull(f"the spool may hold {self.max_bytes} bytes")
        unique = f"{prefix}{uuid.uuid4().hex[:8]}"
        waiting = self.folder / f".{unique}"
        try:
            write_through(waiting, content)
        except OSError:  # the disk is full, say: a half must not take the room of what comes later
            waiting.unlink(missing_ok=True)
            raise
        waiting.rename(self.folder / unique)
        sync_folder(self.folder)
        return unique

    def read(self, name: str) -> bytes:
        """What was kept. Raises FileNotFoundError."""
        return (self.folder / name).read_bytes()

    def delete(self, name: str) -> None:
        """Forgets it; nothing happens when it is gone."""
        (self.folder / name).unlink(missing_ok=True)

    def names(self) -> tuple[str, ...]:
        """What waits, by name."""
        if not self.folder.is_dir():
            return ()
        entries = (entry for entry in os.scandir(self.folder) if entry.is_file() and not entry.name.startswith("."))
        return tuple(sorted(entry.name for entry in entries))

    def size(self) -> int:
        """Bytes that wait."""
        if not self.folder.is_dir():
            return 0
        return sum(_size(entry) for entry in os.scandir(self.folder))


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size if entry.is_file() else 0
    except FileNotFoundError:  # deleted by another process meanwhile
        return 0
